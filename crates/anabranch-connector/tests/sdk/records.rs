//! Putting and getting.

use anabranch_server::ServiceOptions;
use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::ShardIteratorType;

use crate::support::{both, both_with, data, entry, shard};

#[test]
fn what_is_put_is_got_with_its_key_its_number_and_its_time() {
    both(async |world| {
        world.create(1).await;
        let put = world.put("user-42", "GET /cart").await;
        assert_eq!(put.shard_id(), shard(0));
        let iterator = world.iterator(&shard(0), ShardIteratorType::TrimHorizon).await;
        let got = world.get(&iterator).await;
        let [record] = got.records() else { panic!("{got:?}") };
        assert_eq!((record.partition_key(), record.sequence_number()), ("user-42", put.sequence_number()));
        assert_eq!(record.data().as_ref(), b"GET /cart");
        assert_eq!(record.approximate_arrival_timestamp(), Some(&DateTime::from_secs(1_767_225_600)));
        assert_eq!(got.millis_behind_latest(), Some(0));
        assert!(got.child_shards().is_empty());
    });
}

#[test]
fn iterators_of_all_types_begin_where_they_say() {
    both(async |world| {
        world.create(1).await;
        let first = world.put("a", "one").await;
        world.advance(1_500);
        world.put("a", "two").await;
        let latest = world.iterator(&shard(0), ShardIteratorType::Latest).await;
        world.put("a", "three").await;

        let iterator = || world.kinesis.get_shard_iterator().stream_name("s").shard_id(shard(0));
        let at = iterator().shard_iterator_type(ShardIteratorType::AtSequenceNumber);
        let after = iterator().shard_iterator_type(ShardIteratorType::AfterSequenceNumber);
        let time = iterator().shard_iterator_type(ShardIteratorType::AtTimestamp);
        let horizon = iterator().shard_iterator_type(ShardIteratorType::TrimHorizon);
        let requests = [
            (horizon, &["one", "two", "three"][..]),
            (at.starting_sequence_number(first.sequence_number()), &["one", "two", "three"]),
            (after.starting_sequence_number(first.sequence_number()), &["two", "three"]),
            (time.timestamp(DateTime::from_millis(1_767_225_601_500)), &["two", "three"]),
        ];
        for (request, expected) in requests {
            let iterator = request.send().await.unwrap().shard_iterator.unwrap();
            assert_eq!(data(world.get(&iterator).await.records()), expected);
        }
        assert_eq!(data(world.get(&latest).await.records()), ["three"]);
    });
}

#[test]
fn reading_goes_on_page_by_page_and_tells_how_far_it_is_behind() {
    both(async |world| {
        world.create(1).await;
        for number in 0..5 {
            world.put("a", &number.to_string()).await;
            world.advance(1_000);
        }
        let mut iterator = world.iterator(&shard(0), ShardIteratorType::TrimHorizon).await;
        let mut pages = Vec::new();
        loop {
            let got = world.kinesis.get_records().shard_iterator(&iterator).limit(2).send().await.unwrap();
            pages.push((data(got.records()).concat(), got.millis_behind_latest() == Some(0)));
            iterator = got.next_shard_iterator.unwrap();
            if pages.last().unwrap().1 {
                break;
            }
        }
        assert_eq!(pages, [("01".to_owned(), false), ("23".to_owned(), false), ("4".to_owned(), true)]);
        world.put("a", "5").await;
        assert_eq!(data(world.get(&iterator).await.records()), ["5"]);
    });
}

#[test]
fn a_batch_is_answered_record_by_record() {
    both(async |world| {
        world.create(2).await;
        let low = entry("a", "low");
        let mut steered = entry("b", "high");
        steered.explicit_hash_key = Some("340282366920938463463374607431768211455".to_owned());
        let put = world.kinesis.put_records().stream_name("s").records(low).records(steered);
        let put = put.send().await.unwrap();
        assert_eq!(put.failed_record_count(), Some(0));
        let shards: Vec<_> = put.records().iter().map(|outcome| outcome.shard_id().unwrap()).collect();
        assert_eq!(shards, [shard(0), shard(1)]);
        assert_eq!(
            (world.all(&shard(0)).await, world.all(&shard(1)).await),
            (vec!["low".into()], vec!["high".into()])
        );
    });
}

/// The records that fit a shard's quota are put, and the others say so.
#[test]
fn a_batch_that_is_too_much_for_its_shard_fails_in_part() {
    both_with(&ServiceOptions { enforce_limits: true, ..ServiceOptions::default() }, async |world| {
        world.create(1).await;
        let large = "x".repeat(400 << 10);
        let put = world.kinesis.put_records().stream_name("s");
        let put = ["a", "b", "c", "d"].iter().fold(put, |put, key| put.records(entry(key, &large)));
        let put = put.send().await.unwrap();
        let failed: Vec<_> = put.records().iter().filter(|outcome| outcome.error_code().is_some()).collect();
        assert!((1..4).contains(&failed.len()), "{failed:?}");
        assert_eq!(put.failed_record_count(), i32::try_from(failed.len()).ok());
        for outcome in failed {
            assert_eq!(outcome.error_code(), Some("ProvisionedThroughputExceededException"));
            assert!(outcome.error_message().unwrap().starts_with("Rate exceeded for shard shardId-000000000000"));
            assert_eq!(outcome.sequence_number(), None);
        }
        assert_eq!(
            world.all(&shard(0)).await.len(),
            4 - usize::try_from(put.failed_record_count().unwrap()).unwrap()
        );
    });
}
