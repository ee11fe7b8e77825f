//! Where iterators start, what they give, and what they know of themselves.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anabranch::storage::Operation;
use anabranch::{
    Durability, Error, ErrorKind, ManualClock, RecordBatch, RecordsStart, RetentionPeriod, ShardId,
    ShardIteratorType, Stream, Timestamp,
};

use crate::support::{
    HORIZON, S0, S1, builder, drain, eventually, fill, fill_large, number, numbers, numbers_from, put_to,
    read_all, simulated, stream,
};

const LATEST: ShardIteratorType = ShardIteratorType::Latest;

const fn at(value: u64) -> ShardIteratorType {
    ShardIteratorType::AtSequenceNumber(number(value))
}

const fn after(value: u64) -> ShardIteratorType {
    ShardIteratorType::AfterSequenceNumber(number(value))
}

fn error_of(stream: &Stream, shard_id: ShardId, kind: ShardIteratorType) -> Error {
    stream.shard_iterator(shard_id, kind).map(drop).expect_err("no such place")
}

#[test]
fn a_fresh_shard_has_a_beginning_that_is_its_end() {
    let (_directory, stream) = stream(builder());
    let past = ShardIteratorType::AtTimestamp(Timestamp::MIN);
    let future = ShardIteratorType::AtTimestamp(Timestamp::from_millis(i64::MAX));
    for kind in [HORIZON, LATEST, at(0), past, future] {
        let mut iterator = stream.shard_iterator(S0, kind).unwrap();
        assert_eq!(iterator.shard_id(), S0);
        assert_eq!(iterator.next_sequence_number(), number(0));
        assert_eq!((iterator.records_behind(), iterator.millis_behind_latest().unwrap()), (0, 0));
        assert!(iterator.next_batch().unwrap().is_empty());
        assert_eq!(iterator.end_of_shard(), None);
    }
    for kind in [at(1), after(0), after(u64::MAX), at(u64::MAX)] {
        let error = error_of(&stream, S0, kind);
        assert!(matches!(error, Error::BeyondTail { next, .. } if next == number(0)), "{kind:?}: {error:?}");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn every_kind_of_place_on_an_empty_shard_gives_what_comes_next() {
    for kind in [HORIZON, LATEST, at(0), ShardIteratorType::AtTimestamp(Timestamp::MIN)] {
        let (_directory, stream) = stream(builder());
        let mut iterator = stream.shard_iterator(S0, kind).unwrap();
        assert_eq!(numbers(&mut iterator), [0; 0]);
        fill(&stream, 3);
        assert_eq!(numbers(&mut iterator), [0, 1, 2], "{kind:?}");
    }
}

#[test]
fn numbers_are_places() {
    let (_directory, stream) = stream(builder());
    fill(&stream, 10);
    assert_eq!(numbers_from(&stream, S0, HORIZON), (0..10).collect::<Vec<_>>());
    for start in 0..=10 {
        assert_eq!(numbers_from(&stream, S0, at(start)), (start..10).collect::<Vec<_>>());
    }
    for start in 0..=9 {
        assert_eq!(numbers_from(&stream, S0, after(start)), (start + 1..10).collect::<Vec<_>>());
    }
    for kind in [at(11), after(10)] {
        let error = error_of(&stream, S0, kind);
        let Error::BeyondTail { shard_id: S0, next, .. } = error else { panic!("{error:?}") };
        assert_eq!(next, number(10));
    }
}

#[test]
fn numbers_are_places_in_every_segment() {
    let (_directory, stream) = stream(builder().segment_bytes(4 << 10));
    fill_large(&stream, S0, 40);
    assert!(stream.describe().unwrap().shards[0].segments > 4);
    for start in 0..=40 {
        assert_eq!(numbers_from(&stream, S0, at(start)), (start..40).collect::<Vec<_>>());
        if start < 40 {
            assert_eq!(stream.get(S0, number(start)).unwrap().sequence_number(), number(start));
        }
    }
}

#[test]
fn latest_is_fixed_when_the_iterator_is_made() {
    let (_directory, stream) = stream(builder());
    fill(&stream, 5);
    let mut early = stream.shard_iterator(S0, LATEST).unwrap();
    fill(&stream, 2);
    let mut late = stream.shard_iterator(S0, LATEST).unwrap();
    fill(&stream, 1);
    assert_eq!(numbers(&mut early), [5, 6, 7]);
    assert_eq!(numbers(&mut late), [7]);
}

#[test]
fn an_unknown_shard_is_not_found() {
    let (_directory, stream) = stream(builder().shards(2));
    for kind in [HORIZON, LATEST, at(0), after(0)] {
        let error = error_of(&stream, ShardId::new(2), kind);
        assert!(matches!(error, Error::ShardNotFound(id) if id == ShardId::new(2)), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
    let error = stream.get(ShardId::new(u32::MAX), number(0)).expect_err("no such shard");
    assert!(matches!(error, Error::ShardNotFound(_)), "{error:?}");
}

#[test]
fn a_time_is_a_place_and_inclusive() {
    let (_disk, clock, stream) = simulated(builder().retention(RetentionPeriod::hours(1)).segment_bytes(4 << 10));
    let start = stream.describe().unwrap().created.as_millis();
    let from = |millis: i64| {
        numbers_from(
            &stream,
            S0,
            ShardIteratorType::AtTimestamp(Timestamp::from_millis(start.saturating_add(millis))),
        )
    };
    // Two records each at 0 s, 10 s, 20 s ... 190 s, over several segments.
    for _ in 0..20 {
        fill_large(&stream, S0, 2);
        clock.advance(Duration::from_secs(10));
    }
    assert!(stream.describe().unwrap().shards[0].segments > 4);
    for step in 0..20 {
        let millis = i64::try_from(step * 10_000).unwrap();
        assert_eq!(from(millis), (step * 2..40).collect::<Vec<_>>(), "at {millis} ms itself");
        assert_eq!(from(millis + 1), (step * 2 + 2..40).collect::<Vec<_>>(), "between {millis} ms and the next");
        assert_eq!(from(millis - 1), (step * 2..40).collect::<Vec<_>>(), "just before {millis} ms");
    }
    assert_eq!(from(-1_000_000), (0..40).collect::<Vec<_>>(), "before everything");
    assert_eq!(from(i64::MIN), (0..40).collect::<Vec<_>>());
    assert_eq!(from(190_001), [0; 0]);
    assert_eq!(from(i64::MAX), [0; 0]);

    // Below the horizon is the horizon.
    clock.advance(Duration::from_secs(3_600 - 100));
    assert_eq!(from(-1), numbers_from(&stream, S0, HORIZON));
    assert_eq!(from(0), (20..40).collect::<Vec<_>>());
}

#[test]
fn a_time_to_come_is_waited_for() {
    let (_disk, clock, stream) = simulated(builder());
    fill(&stream, 2);
    let start = stream.describe().unwrap().created.as_millis();
    let soon = ShardIteratorType::AtTimestamp(Timestamp::from_millis(start + 5_000));
    let mut iterator = stream.shard_iterator(S0, soon).unwrap();
    for seconds in 0..8 {
        fill(&stream, 1);
        let expected: Vec<u64> = if seconds < 5 { Vec::new() } else { vec![2 + seconds] };
        assert_eq!(numbers(&mut iterator), expected, "after {seconds} s");
        clock.advance(Duration::from_secs(1));
    }
}

#[test]
fn arrival_times_never_fall_whatever_the_clock_does() {
    let (_disk, clock, stream) = simulated(builder().retention(RetentionPeriod::Unlimited));
    let start = stream.describe().unwrap().created.as_millis();
    for jump in [0, 5_000, 2_000, -9_000_000, 6_000, i64::MIN / 2, 7_000] {
        clock.set(Timestamp::from_millis(start + jump));
        let receipt = put_to(&stream, S0, "key", b"data");
        assert_eq!(stream.get(S0, receipt.sequence_number).unwrap().arrival(), receipt.arrival);
    }
    let arrivals: Vec<_> =
        read_all(&stream, S0).iter().map(|record| record.arrival().as_millis() - start).collect();
    assert_eq!(arrivals, [0, 5_000, 5_000, 5_000, 6_000, 6_000, 7_000]);
    // Nor across a reshard.
    clock.set(Timestamp::from_millis(start - 1));
    let (lower, _) = stream.split_shard(S0, None).unwrap();
    assert_eq!(put_to(&stream, lower, "key", b"data").arrival.as_millis() - start, 7_000);
}

fn copied(batch: RecordBatch<'_>) -> Vec<(u64, i64, String, Vec<u8>, u64)> {
    batch
        .map(|record| {
            (
                record.sequence_number().get(),
                record.arrival().as_millis(),
                record.partition_key().to_owned(),
                record.data().to_owned(),
                record.incarnation(),
            )
        })
        .collect()
}

#[test]
fn batches_and_iterators_give_the_same() {
    let (_directory, stream) = stream(builder().segment_bytes(64 << 10));
    for index in 0..400_usize {
        put_to(&stream, S0, &format!("key-{index}"), &vec![b'a' + u8::try_from(index % 26).unwrap(); index * 7]);
    }
    let one_by_one: Vec<_> = read_all(&stream, S0)
        .iter()
        .map(|record| {
            (
                record.sequence_number().get(),
                record.arrival().as_millis(),
                record.partition_key().to_owned(),
                record.data().to_owned(),
                record.incarnation(),
            )
        })
        .collect();
    let mut iterator = stream.shard_iterator(S0, HORIZON).unwrap();
    let mut in_batches = Vec::new();
    let mut batches = 0;
    loop {
        let batch = iterator.next_batch().unwrap();
        if batch.is_empty() {
            break;
        }
        let (len, copied) = (batch.len(), copied(batch));
        assert_eq!(copied.len(), len);
        in_batches.extend(copied);
        batches += 1;
        let done = in_batches.len() as u64;
        assert_eq!((iterator.next_sequence_number(), iterator.records_behind()), (number(done), 400 - done));
    }
    assert_eq!(in_batches, one_by_one);
    assert!((3..100).contains(&batches), "{batches} batches: neither one for all, nor one a record");

    // A record outlives its batch, and can be mixed with the other forms.
    let mut iterator = stream.shard_iterator(S0, HORIZON).unwrap();
    let kept = iterator.next_batch().unwrap().next().unwrap().to_record();
    assert_eq!(kept.data(), b"");
    assert_eq!(kept.partition_key(), "key-0");
}

#[test]
fn a_record_larger_than_a_batch_comes_alone() {
    let (_directory, stream) = stream(builder());
    for length in [10, 900_000, 10] {
        put_to(&stream, S0, "key", &vec![1; length]);
    }
    let mut iterator = stream.shard_iterator(S0, HORIZON).unwrap();
    let mut lengths = Vec::new();
    loop {
        let batch = iterator.next_batch().unwrap();
        if batch.is_empty() {
            break;
        }
        lengths.extend(batch.map(|record| record.data().len()));
    }
    assert_eq!(lengths, [10, 900_000, 10]);
}

#[test]
fn available_stops_at_the_tail_and_goes_on_later() {
    let (_directory, stream) = stream(builder());
    let mut iterator = stream.shard_iterator(S0, HORIZON).unwrap();
    assert_eq!(iterator.available().count(), 0);
    fill(&stream, 3);
    assert_eq!(iterator.available().take(2).count(), 2);
    assert_eq!(numbers(&mut iterator), [2]);
    fill(&stream, 1);
    assert_eq!(numbers(&mut iterator), [3]);
}

#[test]
fn how_far_behind_an_iterator_is() {
    let (_disk, clock, stream) = simulated(builder());
    for _ in 0..5 {
        fill(&stream, 1);
        clock.advance(Duration::from_secs(1));
    }
    let mut iterator = stream.shard_iterator(S0, HORIZON).unwrap();
    for read in 0..5 {
        assert_eq!(iterator.records_behind(), 5 - read);
        let behind = iterator.millis_behind_latest().unwrap();
        let newest = (4 - read) * 1_000;
        assert_eq!(behind, newest.max(1), "at least 1 while there is anything to read");
        assert!(iterator.available().next().is_some());
    }
    assert_eq!((iterator.records_behind(), iterator.millis_behind_latest().unwrap()), (0, 0));
    let mut latest = stream.shard_iterator(S0, LATEST).unwrap();
    assert_eq!((latest.records_behind(), latest.millis_behind_latest().unwrap()), (0, 0));
}

#[test]
fn the_unsynced_tail_is_shown_on_request_only() {
    let (disk, _, stream) = simulated(builder());
    fill(&stream, 2);
    disk.stall_syncs(true);
    let syncs = disk.operations_of(Operation::Sync);
    let writer = thread::spawn({
        let stream = stream.clone();
        move || stream.put("key", b"in flight").unwrap()
    });
    eventually("the put waits for its sync", || disk.operations_of(Operation::Sync) > syncs);

    let mut durable = stream.shard_iterator(S0, HORIZON).unwrap();
    let mut written = stream.shard_iterator(S0, HORIZON).unwrap().include_unsynced(true);
    assert_eq!((durable.records_behind(), written.records_behind()), (2, 3));
    assert_eq!(numbers(&mut durable), [0, 1]);
    assert_eq!(numbers(&mut written), [0, 1, 2]);
    assert_eq!(stream.describe().unwrap().shards[0].last_sequence_number, Some(number(1)));
    let error = stream.get(S0, number(2)).expect_err("not durable yet");
    assert!(matches!(error, Error::BeyondTail { next, .. } if next == number(2)), "{error:?}");
    let mut stopped = stream.shard_iterator(S0, at(2)).unwrap();
    assert_eq!(numbers(&mut stopped), [0; 0]);

    disk.stall_syncs(false);
    writer.join().unwrap();
    assert_eq!(numbers(&mut durable), [2]);
    assert_eq!(numbers(&mut stopped), [2]);
    assert_eq!(numbers(&mut written), [0; 0]);
}

#[test]
fn a_reader_of_a_buffered_stream_can_ask_for_durable_records_only() {
    let (_disk, _, stream) = simulated(builder().durability(Durability::Buffered));
    fill(&stream, 3);
    stream.sync().unwrap();
    fill(&stream, 2);
    let mut durable = stream.shard_iterator(S0, HORIZON).unwrap().include_unsynced(false);
    assert_eq!(numbers(&mut durable), [0, 1, 2]);
    assert_eq!(numbers_from(&stream, S0, HORIZON), [0, 1, 2, 3, 4]);
    stream.sync().unwrap();
    assert_eq!(numbers(&mut durable), [3, 4]);
}

#[test]
fn the_end_of_a_split_shard_names_its_children() {
    let (_directory, stream) = stream(builder());
    fill(&stream, 3);
    let mut iterator = stream.shard_iterator(S0, HORIZON).unwrap();
    let (lower, upper) = stream.split_shard(S0, None).unwrap();
    assert_eq!(iterator.end_of_shard(), None, "not read to its end yet");
    assert_eq!(numbers(&mut iterator), [0, 1, 2]);
    let children = iterator.end_of_shard().unwrap();
    assert_eq!(children.iter().map(|child| child.shard_id).collect::<Vec<_>>(), [lower, upper]);
    for (child, listed) in children.iter().zip(&stream.shards()[1..]) {
        assert_eq!(child.parents, [S0]);
        assert_eq!(child.hash_key_range, listed.hash_key_range);
    }
    assert!(iterator.next_batch().unwrap().is_empty());
    assert_eq!((iterator.records_behind(), iterator.millis_behind_latest().unwrap()), (0, 0));
    // Every kind of place in a closed shard can still be asked for.
    assert_eq!(numbers_from(&stream, S0, at(1)), [1, 2]);
    assert_eq!(numbers_from(&stream, S0, at(3)), [0; 0]);
    assert_eq!(numbers_from(&stream, S0, after(2)), [0; 0]);
    assert!(matches!(error_of(&stream, S0, at(4)), Error::BeyondTail { .. }));
    let latest = stream.shard_iterator(S0, LATEST).unwrap();
    assert_eq!(latest.end_of_shard().unwrap(), children, "behind the newest is the end");
}

#[test]
fn the_end_of_each_merged_shard_names_the_child() {
    let (_directory, stream) = stream(builder().shards(2));
    put_to(&stream, S0, "key", b"data");
    let child = stream.merge_shards(S0, S1).unwrap();
    for parent in [S0, S1] {
        let mut iterator = stream.shard_iterator(parent, HORIZON).unwrap();
        drain(&mut iterator);
        let children = iterator.end_of_shard().unwrap();
        assert_eq!(children.len(), 1);
        assert_eq!(children[0].shard_id, child);
        assert_eq!(children[0].parents, [S0, S1], "the lower one first");
        assert_eq!(children[0].hash_key_range, anabranch::HashKeyRange::FULL);
    }
}

#[test]
fn a_record_is_found_by_its_number() {
    let (_directory, stream) = stream(builder().segment_bytes(4 << 10));
    fill(&stream, 200);
    let mut mixer = crate::support::Mixer(3);
    for _ in 0..200 {
        let wanted = mixer.next() % 200;
        let record = stream.get(S0, number(wanted)).unwrap();
        assert_eq!(record.sequence_number().get(), wanted);
        assert_eq!(record.data(), wanted.to_string().as_bytes());
        assert_eq!(record.shard_id(), S0);
    }
    for wanted in [200, 201, u64::MAX] {
        let error = stream.get(S0, number(wanted)).expect_err("never written");
        let Error::BeyondTail { requested, next, .. } = error else { panic!("{error:?}") };
        assert_eq!((requested, next), (number(wanted), number(200)));
    }
}

#[test]
fn records_stay_valid_after_a_trim_and_after_the_close() {
    let (_directory, stream) = stream(builder().segment_bytes(4 << 10));
    fill_large(&stream, S0, 30);
    let all = read_all(&stream, S0);
    let trimmed = stream.trim_shard(S0, number(20)).unwrap();
    assert!(trimmed.segments_removed >= 2);
    let check = || {
        for (index, record) in all.iter().enumerate() {
            assert_eq!(record.sequence_number().get(), index as u64);
            assert_eq!((record.partition_key(), record.data()), ("key", &[b'x'; 500][..]));
        }
    };
    check();
    let path = stream.path().to_path_buf();
    stream.close().unwrap();
    check();
    std::fs::remove_dir_all(path).unwrap();
    check();
    let sent = thread::spawn({
        let all = all.clone();
        move || all.iter().map(|record| record.data().len()).sum::<usize>()
    });
    assert_eq!(sent.join().unwrap(), 15_000);
}

#[test]
fn the_whole_stream_starts_where_it_is_told() {
    let clock = Arc::new(ManualClock::default());
    let (_directory, stream) = stream(builder().shards(2).clock(clock.clone()));
    let start = stream.describe().unwrap().created.as_millis();
    put_to(&stream, S0, "key", b"old 0");
    put_to(&stream, S1, "key", b"old 1");
    clock.advance(Duration::from_secs(10));
    put_to(&stream, S0, "key", b"mid 0");
    let (lower, _) = stream.split_shard(S0, None).unwrap();
    put_to(&stream, lower, "key", b"mid child");

    let texts = |start: RecordsStart| {
        let mut records = stream.records(start).unwrap();
        let mut texts: Vec<_> = records
            .available()
            .map(|record| String::from_utf8(record.unwrap().data().to_vec()).unwrap())
            .collect();
        texts.sort();
        (texts, records)
    };
    assert_eq!(texts(RecordsStart::TrimHorizon).0, ["mid 0", "mid child", "old 0", "old 1"]);
    let at_time = RecordsStart::AtTimestamp(Timestamp::from_millis(start + 10_000));
    assert_eq!(texts(at_time).0, ["mid 0", "mid child"]);
    let (none, mut latest) = texts(RecordsStart::Latest);
    assert!(none.is_empty());
    put_to(&stream, S1, "key", b"new 1");
    put_to(&stream, lower, "key", b"new child");
    let mut batch_total = 0;
    loop {
        let batch = latest.next_batch().unwrap();
        if batch.is_empty() {
            break;
        }
        assert!(batch.clone().all(|record| record.data().starts_with(b"new")));
        batch_total += batch.len();
    }
    assert_eq!(batch_total, 2);
}
