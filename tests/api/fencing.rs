//! Conditional appends: fencing tokens, and batches on a condition.

use anabranch::{Error, ErrorKind, PutBatchOptions, PutEntry, PutOptions, ShardId, Stream};

use crate::support::{S0, S1, builder, number, place, read_all, stream};

fn put(stream: &Stream, token: u64) -> Result<ShardId, Error> {
    stream.put_with("key", b"data", PutOptions::new().fencing_token(token)).map(|receipt| receipt.shard_id)
}

fn refused(outcome: Result<ShardId, Error>, is: u64) {
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(matches!(error, Error::FencingTokenMismatch { actual, .. } if actual == is), "{error:?}");
}

#[test]
fn only_the_token_of_the_shard_is_accepted() {
    let (_directory, path) = place();
    let stream = builder().create(&path).unwrap();
    assert_eq!(stream.fencing_token(S0).unwrap(), 0);
    refused(put(&stream, 1), 0);
    stream.fence_shard(S0, 5).unwrap();
    put(&stream, 5).unwrap();
    for other in [4, 6] {
        refused(put(&stream, other), 5);
    }
    stream.put("key", b"not fenced").unwrap();
    stream.fence_shard(S0, 5).unwrap();
    assert!(matches!(stream.fence_shard(S0, 4), Err(Error::FencingTokenMismatch { token: 4, actual: 5, .. })));
    assert!(matches!(stream.fence_shard(S0, 0), Err(Error::InvalidArgument { .. })));
    assert!(matches!(stream.fence_shard(S1, 9), Err(Error::ShardNotFound(_))));
    stream.fence_shard(S0, 6).unwrap();
    refused(put(&stream, 5), 6);
    drop(stream);

    let stream = builder().open(&path).unwrap();
    assert_eq!(stream.fencing_token(S0).unwrap(), 6);
    refused(put(&stream, 5), 6);
    put(&stream, 6).unwrap();
    assert_eq!(stream.metrics().records_in, 1);
}

#[test]
fn children_keep_the_token() {
    let (_directory, stream) = stream(builder());
    stream.fence_shard(S0, 5).unwrap();
    let (lower, upper) = stream.split_shard(S0, None).unwrap();
    assert!(matches!(stream.fence_shard(S0, 9), Err(Error::ShardClosed(_))));
    for child in [lower, upper] {
        assert_eq!(stream.fencing_token(child).unwrap(), 5);
    }
    stream.fence_shard(upper, 8).unwrap();
    let merged = stream.merge_shards(lower, upper).unwrap();
    assert_eq!(stream.fencing_token(merged).unwrap(), 8);
    refused(put(&stream, 5), 8);
    assert_eq!(put(&stream, 8).unwrap(), merged);
}

#[test]
fn a_batch_is_appended_on_a_condition_or_not_at_all() {
    let (_directory, stream) = stream(builder());
    let entries = [PutEntry::new("a", b"1"), PutEntry::new("b", b"2")];
    let expecting = |next| PutBatchOptions::new().expect_next(number(next));
    stream.put_batch_with(&entries, expecting(0)).unwrap();
    let error = stream.put_batch_with(&entries, expecting(0)).unwrap_err();
    assert!(matches!(error, Error::SequenceNumberMismatch { .. }), "{error:?}");
    stream.put_batch_with(&entries, expecting(2)).unwrap();
    stream.fence_shard(S0, 3).unwrap();
    let error = stream.put_batch_with(&entries, PutBatchOptions::new().fencing_token(2)).unwrap_err();
    assert!(matches!(error, Error::FencingTokenMismatch { .. }), "{error:?}");
    let mut producer = stream.producer("p").unwrap();
    let error = producer.put_batch_with(1, &entries, PutBatchOptions::new().fencing_token(2)).unwrap_err();
    assert!(matches!(error, Error::FencingTokenMismatch { .. }), "{error:?}");
    producer.put_batch_with(1, &entries, PutBatchOptions::new().fencing_token(3)).unwrap();
    assert_eq!(stream.metrics().records_in, 6);

    stream.split_shard(S0, None).unwrap();
    let keys: Vec<_> = (0..64).map(|key| key.to_string()).collect();
    let entries: Vec<_> = keys.iter().map(|key| PutEntry::new(key, b"")).collect();
    let error = stream.put_batch_with(&entries, expecting(6)).unwrap_err();
    assert!(matches!(error, Error::InvalidArgument { argument: "expect_next", .. }), "{error:?}");
    assert_eq!(stream.metrics().records_in, 6);
}

/// Also where the shard that refuses it comes behind one that would not, or before it.
#[test]
fn a_batch_that_one_shard_refuses_for_its_token_is_taken_by_none() {
    for fenced in [S0, S1] {
        let (_directory, stream) = stream(builder().shards(2));
        for shard_id in [S0, S1] {
            stream.fence_shard(shard_id, 3).unwrap();
        }
        let keys: Vec<_> = (0..64).map(|key| key.to_string()).collect();
        let entries: Vec<_> = keys.iter().map(|key| PutEntry::new(key, b"")).collect();
        let held = || [S0, S1].map(|shard_id| read_all(&stream, shard_id).len());
        stream.put_batch_with(&entries, PutBatchOptions::new().fencing_token(3)).unwrap();
        let before = held();
        assert!(before.iter().all(|records| *records > 0), "{before:?}");
        stream.fence_shard(fenced, 9).unwrap();
        let error = stream.put_batch_with(&entries, PutBatchOptions::new().fencing_token(3)).unwrap_err();
        assert!(
            matches!(error, Error::FencingTokenMismatch { shard_id, actual: 9, .. } if shard_id == fenced),
            "{error:?}"
        );
        let mut producer = stream.producer("p").unwrap();
        let refused = producer.put_batch_with(1, &entries, PutBatchOptions::new().fencing_token(3)).unwrap_err();
        assert!(
            matches!(refused, Error::FencingTokenMismatch { shard_id, actual: 9, .. } if shard_id == fenced),
            "{refused:?}"
        );
        assert_eq!(held(), before, "{fenced}");
    }
}
