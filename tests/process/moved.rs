//! A stream's directory is moved or deleted under those who have it open.

use std::fs;
use std::path::Path;

use anabranch::{ErrorKind, RecordsStart, RetentionPeriod, Stream, StreamBuilder};

use crate::records::assert_sound;

fn builder() -> StreamBuilder {
    Stream::builder().segment_bytes(4096).retention(RetentionPeriod::Unlimited).background(false)
}

fn put(stream: &Stream, ids: std::ops::Range<u32>) {
    for id in ids {
        stream.put(id.to_string(), [id.to_le_bytes().as_slice(), &[7; 300]].concat()).unwrap();
    }
}

/// All that is at `path` is `ids`, each once.
fn assert_holds(path: &Path, ids: std::ops::Range<u32>) {
    assert_sound(path);
    let stream = builder().open_existing(path).unwrap();
    let mut records = stream.records(RecordsStart::TrimHorizon).unwrap();
    let id = |record: anabranch::Record| u32::from_le_bytes(record.data()[..4].try_into().unwrap());
    let mut found: Vec<_> = records.available().map(|record| id(record.unwrap())).collect();
    found.sort_unstable();
    assert_eq!(found, ids.collect::<Vec<_>>());
    stream.close().unwrap();
}

/// The writer goes on in its own directory, whatever gets the old name: rolls, reshards, trims and closes.
#[test]
fn a_moved_stream_is_written_where_it_is_now() {
    for is_replaced in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let (old, new) = (directory.path().join("old"), directory.path().join("new"));
        let stream = builder().create(&old).unwrap();
        put(&stream, 0..5);
        fs::rename(&old, &new).unwrap();
        let other = is_replaced.then(|| builder().create(&old).unwrap());
        if let Some(other) = &other {
            put(other, 1000..1010);
        }

        put(&stream, 5..50);
        let (lower, upper) = stream.split_shard(stream.open_shards()[0], None).unwrap();
        put(&stream, 50..100);
        stream.merge_shards(lower, upper).unwrap();
        assert_eq!(builder().open(&new).unwrap_err().kind(), ErrorKind::Locked);
        if let Some(other) = &other {
            put(other, 1010..1030);
        }
        put(&stream, 100..120);
        assert_eq!(stream.records(RecordsStart::TrimHorizon).unwrap().available().count(), 120);
        stream.close().unwrap();
        assert_holds(&new, 0..120);
        match other {
            Some(other) => {
                other.close().unwrap();
                assert_holds(&old, 1000..1030);
            }
            None => assert!(!old.exists()),
        }
    }
}

#[test]
fn a_follower_of_a_deleted_or_moved_stream_is_told() {
    for is_moved in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("stream");
        let stream = builder().create(&path).unwrap();
        put(&stream, 0..5);
        let follower = Stream::builder().open_read_only(&path).unwrap();
        let mut records = follower.records(RecordsStart::TrimHorizon).unwrap();
        let held = records.available().next().unwrap().unwrap();
        if is_moved {
            fs::rename(&path, directory.path().join("moved")).unwrap();
        } else {
            fs::remove_dir_all(&path).unwrap();
        }
        assert_eq!(follower.describe().unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(held.data()[4..], [7; 300]);
        drop(stream);
        assert!(!path.exists(), "nothing is made anew");
    }
}

/// What a reader holds of a trimmed segment stays right; what it asks for next is said to be trimmed.
#[test]
fn records_of_a_trimmed_segment_stay_readable() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("stream");
    let stream = builder().create(&path).unwrap();
    put(&stream, 0..60);
    let shard = stream.open_shards()[0];
    let follower = Stream::builder().open_read_only(&path).unwrap();
    let mut held = Vec::new();
    for reader in [&stream, &follower] {
        let mut iterator = reader.shard_iterator(shard, anabranch::ShardIteratorType::TrimHorizon).unwrap();
        held.push(iterator.next_batch().unwrap().map(|record| record.to_record()).collect::<Vec<_>>());
    }
    stream.trim_shard(shard, 55.into()).unwrap();
    put(&stream, 60..120);
    for records in &held {
        assert!(!records.is_empty());
        for (record, id) in records.iter().zip(0_u32..) {
            assert_eq!(record.data()[..4], id.to_le_bytes());
            assert_eq!(record.data()[4..], [7; 300]);
        }
    }
    for reader in [&stream, &follower] {
        assert_eq!(reader.get(shard, 3.into()).unwrap_err().kind(), ErrorKind::Trimmed);
    }
    stream.close().unwrap();
}
