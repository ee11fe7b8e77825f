//! What expires, when, and what readers see of it.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use anabranch::storage::{Operation, Storage};
use anabranch::{
    Clock, Crash, DiskFault, Error, ErrorKind, ManualClock, Records, RecordsStart, RetentionPeriod,
    ShardIteratorType, Stream, StreamBuilder, Timestamp,
};
use tempfile::TempDir;

use crate::support::{
    HORIZON, LARGE_PER_SEGMENT, S0, S1, builder, drain, fill, fill_large, number, numbers, numbers_from, put_to,
    read_all, read_stream, segments, simulated, stream,
};

const HOUR: Duration = Duration::from_secs(3_600);

/// A stream of small segments on a real directory with a clock that the test moves.
fn timed(options: StreamBuilder) -> (TempDir, Arc<ManualClock>, Stream) {
    let clock = Arc::new(ManualClock::default());
    let (directory, stream) = stream(options.segment_bytes(4 << 10).clock(clock.clone()));
    (directory, clock, stream)
}

#[track_caller]
fn trimmed<T>(outcome: anabranch::Result<T>) -> (u64, u64) {
    match outcome.map(drop) {
        Err(error @ Error::Trimmed { requested, earliest, .. }) => {
            assert_eq!(error.kind(), ErrorKind::Trimmed);
            assert!(error.to_string().contains(&earliest.to_string()));
            (requested.get(), earliest.get())
        }
        other => panic!("{other:?}"),
    }
}

const fn at(value: u64) -> ShardIteratorType {
    ShardIteratorType::AtSequenceNumber(number(value))
}

#[test]
fn records_expire_by_their_age() {
    let (_directory, clock, stream) = timed(builder().retention(RetentionPeriod::hours(10)));
    for _ in 0..10 {
        fill_large(&stream, S0, 4);
        clock.advance(HOUR);
    }
    // The first records are exactly 10 h old: within retention. A moment later they are not.
    assert_eq!(numbers_from(&stream, S0, HORIZON)[0], 0);
    assert_eq!(stream.enforce_retention().unwrap().segments_removed, 0);
    clock.advance(Duration::from_millis(1));
    assert_eq!(numbers_from(&stream, S0, HORIZON)[0], 4);

    // Files go whole, records one by one: 24 records in segments of six.
    clock.advance(5 * HOUR);
    assert_eq!(numbers_from(&stream, S0, HORIZON), (24..40).collect::<Vec<_>>());
    let files = segments(stream.path(), S0).len();
    let report = stream.enforce_retention().unwrap();
    assert_eq!((report.segments_removed, report.records_removed), (24 / LARGE_PER_SEGMENT, 24));
    assert!((4 * 3_400..=4 * 4_096).contains(&report.bytes_removed), "{report:?}");
    assert_eq!(report.shards_removed, []);
    assert_eq!(segments(stream.path(), S0).len(), files - 4);
    assert_eq!(numbers_from(&stream, S0, HORIZON), (24..40).collect::<Vec<_>>());
    assert_eq!(stream.metrics().segments_trimmed, 4);
    let shard = &stream.describe().unwrap().shards[0];
    assert_eq!((shard.first_sequence_number, shard.records), (Some(number(24)), 16));
    assert_eq!(stream.enforce_retention().unwrap(), anabranch::TrimReport::default(), "nothing is left to do");

    for requested in [0, 7, 21, 23] {
        assert_eq!(trimmed(stream.shard_iterator(S0, at(requested))), (requested, 24));
        let error = stream.get(S0, number(requested)).expect_err("expired");
        assert!(matches!(error, Error::Trimmed { earliest, .. } if earliest == number(24)), "{error:?}");
    }
    let after = |value| ShardIteratorType::AfterSequenceNumber(number(value));
    assert_eq!(trimmed(stream.shard_iterator(S0, after(22))), (22, 24));
    assert_eq!(numbers_from(&stream, S0, after(23))[0], 24);
    assert_eq!(numbers_from(&stream, S0, at(24))[0], 24);
    let past = ShardIteratorType::AtTimestamp(Timestamp::MIN);
    assert_eq!(numbers_from(&stream, S0, past)[0], 24, "a time below the horizon is the horizon");
}

#[test]
fn an_idle_shard_expires_to_nothing_and_goes_on() {
    let (_directory, clock, stream) = timed(builder());
    fill_large(&stream, S0, 10);
    clock.advance(25 * HOUR);
    assert_eq!(numbers_from(&stream, S0, HORIZON), [0; 0]);
    let report = stream.enforce_retention().unwrap();
    assert_eq!(report.records_removed, 10, "also the active segment, all of which expired");
    assert_eq!(segments(stream.path(), S0).len(), 0);
    let shard = &stream.describe().unwrap().shards[0];
    assert_eq!((shard.records, shard.segments, shard.bytes, shard.disk_bytes), (0, 0, 0, 0));
    assert_eq!((shard.first_sequence_number, shard.last_sequence_number), (None, None));
    assert_eq!(shard.next_sequence_number, number(10));
    assert_eq!(trimmed(stream.shard_iterator(S0, at(9))), (9, 10));
    fill_large(&stream, S0, 2);
    assert_eq!(numbers_from(&stream, S0, HORIZON), [10, 11], "numbers go on where they were");

    let path = stream.path().to_path_buf();
    stream.close().unwrap();
    let stream = builder().clock(clock).open(path).unwrap();
    assert_eq!(numbers_from(&stream, S0, HORIZON), [10, 11]);
}

#[test]
fn a_byte_budget_takes_the_oldest_of_all_shards_first() {
    let (_directory, clock, stream) = timed(builder().shards(2).retention(RetentionPeriod::Unlimited));
    // Shard 1's records are older than shard 0's, but for the last.
    for shard_id in [S1, S0] {
        fill_large(&stream, shard_id, 4 * LARGE_PER_SEGMENT);
        clock.advance(HOUR);
    }
    fill_large(&stream, S1, 1);
    let disk_bytes = || stream.describe().unwrap().shards.iter().map(|shard| shard.disk_bytes).sum::<u64>();
    let sealed_bytes = stream.describe().unwrap().shards[0].disk_bytes / 4;
    assert_eq!(stream.enforce_retention().unwrap().segments_removed, 0, "no budget yet");

    let budget = disk_bytes() - 2 * sealed_bytes;
    stream.set_retention_bytes(Some(budget)).unwrap();
    assert_eq!(stream.describe().unwrap().retention_bytes, Some(budget));
    let report = stream.enforce_retention().unwrap();
    assert!((2..=3).contains(&report.segments_removed), "{report:?}");
    assert!(disk_bytes() <= budget);
    assert_eq!(numbers_from(&stream, S0, HORIZON).len(), 24, "the younger shard is spared");
    let left = numbers_from(&stream, S1, HORIZON);
    assert_eq!(left, (report.records_removed..25).collect::<Vec<_>>());

    // Down to nothing: sealed segments go, the active ones stay.
    stream.set_retention_bytes(Some(0)).unwrap();
    stream.enforce_retention().unwrap();
    for shard in stream.describe().unwrap().shards {
        assert_eq!(shard.segments, 1, "{shard:?}");
    }
    assert_eq!(*numbers_from(&stream, S0, HORIZON).last().unwrap(), 23);
    assert_eq!(*numbers_from(&stream, S1, HORIZON).last().unwrap(), 24);

    stream.set_retention_bytes(None).unwrap();
    fill_large(&stream, S0, 40);
    assert_eq!(stream.enforce_retention().unwrap().segments_removed, 0);
    let error = stream.set_retention_bytes(Some(u64::MAX)).expect_err("reserved");
    assert!(matches!(error, Error::InvalidArgument { argument: "retention_bytes", .. }), "{error:?}");
}

#[test]
fn a_byte_budget_takes_closed_shards_off_the_list() {
    let (_directory, _clock, stream) = timed(builder().retention(RetentionPeriod::Unlimited));
    fill_large(&stream, S0, 2 * LARGE_PER_SEGMENT);
    let (lower, upper) = stream.split_shard(S0, None).unwrap();
    stream.set_retention_bytes(Some(0)).unwrap();
    assert_eq!(stream.enforce_retention().unwrap().shards_removed, [S0]);
    let listed: Vec<_> = stream.shards().iter().map(|shard| shard.shard_id).collect();
    assert_eq!(listed, [lower, upper], "open shards stay, though they are empty");
}

/// Shards that never had a record, split and merged again and again: they go with what was put before their end.
#[test]
fn a_byte_budget_takes_closed_shards_without_records_off_the_list() {
    let (_directory, clock, stream) = timed(builder().shards(3).retention(RetentionPeriod::Unlimited));
    let mut cold = S1;
    for _ in 0..3 {
        let (lower, upper) = stream.split_shard(cold, None).unwrap();
        cold = stream.merge_shards(lower, upper).unwrap();
    }
    fill_large(&stream, S0, 1); // as old as they
    clock.advance(HOUR);
    fill_large(&stream, S0, 2 * LARGE_PER_SEGMENT);
    assert_eq!(stream.enforce_retention().unwrap().shards_removed, [], "without a budget nothing goes");
    stream.set_retention_bytes(Some(1 << 30)).unwrap();
    assert_eq!(stream.enforce_retention().unwrap().shards_removed, [], "something older is left");
    assert_eq!(stream.shards().len(), 12);
    stream.set_retention_bytes(Some(8 << 10)).unwrap();
    let report = stream.enforce_retention().unwrap();
    assert_eq!((report.segments_removed, report.shards_removed.len()), (1, 9));
    let listed: Vec<_> = stream.shards().iter().map(|shard| shard.shard_id).collect();
    assert_eq!(listed, [S0, anabranch::ShardId::new(2), cold], "those that are open");
}

#[test]
fn a_longer_period_does_not_bring_back_and_a_shorter_one_hides_at_once() {
    let (_directory, clock, stream) = timed(builder());
    assert_eq!(stream.retention(), RetentionPeriod::hours(24));
    for _ in 0..8 {
        fill_large(&stream, S0, LARGE_PER_SEGMENT);
        clock.advance(6 * HOUR);
    }
    let first = || numbers_from(&stream, S0, HORIZON)[0];
    assert_eq!(first(), 24, "4 of 8 groups are 24 h old or younger");
    stream.enforce_retention().unwrap();
    stream.increase_retention(RetentionPeriod::hours(100)).unwrap();
    assert_eq!(stream.retention(), RetentionPeriod::hours(100));
    assert_eq!(first(), 24, "what was removed stays removed");
    stream.decrease_retention(RetentionPeriod::hours(12)).unwrap();
    assert_eq!(first(), 36);
    stream.increase_retention(RetentionPeriod::hours(24)).unwrap();
    assert_eq!(first(), 36, "what was hidden stays hidden, as in Kinesis");
    stream.increase_retention(RetentionPeriod::Unlimited).unwrap();
    stream.decrease_retention(Duration::from_millis(1)).unwrap();
    assert_eq!(numbers_from(&stream, S0, HORIZON), [0; 0]);

    let path = stream.path().to_path_buf();
    stream.close().unwrap();
    assert_eq!(builder().clock(clock).open(path).unwrap().retention(), RetentionPeriod::Millis(1));
}

#[test]
fn what_a_shorter_period_hid_stays_hidden_in_the_next_opening() {
    let (_directory, clock, stream) = timed(builder());
    for _ in 0..8 {
        fill_large(&stream, S0, LARGE_PER_SEGMENT);
        clock.advance(6 * HOUR);
    }
    stream.decrease_retention(RetentionPeriod::hours(12)).unwrap();
    stream.increase_retention(RetentionPeriod::hours(24)).unwrap();
    let path = stream.path().to_path_buf();
    stream.close().unwrap();
    let stream = builder().clock(clock).open(path).unwrap();
    assert_eq!(numbers_from(&stream, S0, HORIZON)[0], 36, "2 of 8 groups are 12 h old or younger");
}

#[test]
fn the_period_is_changed_in_the_direction_that_was_said() {
    let (_directory, _, stream) = timed(builder());
    let hours = RetentionPeriod::hours;
    let refused = |outcome: anabranch::Result<()>| {
        let error = outcome.expect_err("must be refused");
        assert!(matches!(&error, Error::InvalidArgument { argument: "retention", .. }), "{error:?}");
        error.to_string()
    };
    assert!(refused(stream.increase_retention(hours(23))).contains("decrease_retention"));
    assert!(refused(stream.decrease_retention(hours(25))).contains("increase_retention"));
    assert!(refused(stream.decrease_retention(RetentionPeriod::Unlimited)).contains("increase_retention"));
    refused(stream.increase_retention(hours(8_761)));
    refused(stream.decrease_retention(RetentionPeriod::Millis(0)));
    refused(stream.decrease_retention(Duration::ZERO));
    assert_eq!(stream.retention(), hours(24));
    stream.increase_retention(hours(24)).unwrap();
    stream.decrease_retention(hours(24)).unwrap();
    stream.increase_retention(hours(8_760)).unwrap();
    stream.increase_retention(RetentionPeriod::Unlimited).unwrap();
    refused(stream.increase_retention(hours(8_760)));
    stream.decrease_retention(hours(1)).unwrap();
    assert_eq!(stream.retention(), hours(1));
    assert_eq!(stream.describe().unwrap().retention, hours(1));
}

#[test]
fn a_reader_goes_on_in_the_segment_it_holds() {
    let (_directory, clock, stream) = timed(builder());
    fill_large(&stream, S0, 30);
    let mut slow = stream.shard_iterator(S0, HORIZON).unwrap();
    let mut whole = stream.records(RecordsStart::TrimHorizon).unwrap();
    assert_eq!(slow.available().take(2).count(), 2);
    assert_eq!(whole.available().take(2).count(), 2);
    clock.advance(25 * HOUR);
    fill_large(&stream, S0, 3);
    let report = stream.enforce_retention().unwrap();
    assert!(report.segments_removed >= 4);
    let earliest = numbers_from(&stream, S0, HORIZON)[0];

    let mut seen = Vec::new();
    let error = loop {
        match slow.available().next() {
            Some(Ok(record)) => {
                assert_eq!(record.data(), [b'x'; 500]);
                seen.push(record.sequence_number().get());
            }
            Some(Err(error)) => break error,
            None => panic!("a gap must not look like the tail"),
        }
    };
    assert_eq!(seen, [2, 3, 4, 5], "to the end of its segment");
    for error in [error, slow.next_batch().map(drop).expect_err("every time")] {
        let Error::Trimmed { shard_id: S0, requested, earliest: told } = error else { panic!("{error:?}") };
        assert_eq!((requested, told), (number(LARGE_PER_SEGMENT), number(earliest)));
        // The error says where to go on.
        assert_eq!(numbers_from(&stream, S0, at(told.get()))[0], earliest);
    }
    let outcomes: Vec<_> = whole.available().take(5).collect();
    assert!(outcomes[..4].iter().all(Result::is_ok));
    assert!(matches!(outcomes[4], Err(Error::Trimmed { .. })), "{:?}", outcomes[4]);
    let rest: Vec<_> = whole.available().map(|record| record.unwrap().sequence_number().get()).collect();
    assert_eq!(rest, numbers_from(&stream, S0, at(earliest)), "a reader of the whole goes on");
}

#[test]
fn a_reader_of_the_whole_begins_no_grandchild_of_what_it_reads() {
    let clock = Arc::new(ManualClock::default());
    let (_directory, stream) =
        stream(builder().shards(2).retention(RetentionPeriod::hours(2)).clock(clock.clone()));
    for _ in 0..900 {
        put_to(&stream, S0, "key", b"old");
    }
    let mut whole = stream.records(RecordsStart::TrimHorizon).unwrap();
    assert_eq!(whole.available().take(1).count(), 1, "it holds the segment");
    stream.split_shard(S1, None).unwrap(); // whose end has it look for others
    let (lower, upper) = stream.split_shard(S0, None).unwrap();
    put_to(&stream, lower, "key", b"between");
    let grandchild = stream.merge_shards(lower, upper).unwrap();
    clock.advance(3 * HOUR);
    put_to(&stream, grandchild, "key", b"new");
    stream.enforce_retention().unwrap();
    let listed: Vec<_> = stream.shards().iter().map(|shard| shard.shard_id.get()).collect();
    assert_eq!(listed, [2, 3, 6], "parents and grandparents expired");

    let mut rest = told(&mut whole);
    assert_eq!(rest.pop().as_deref(), Some("6: 901"), "behind all that was put before");
    assert_eq!(rest.pop().as_deref(), Some("6: 900 is trimmed up to 901"), "what was between is missed");
    assert_eq!(rest, (1..900).map(|number| format!("0: {number}")).collect::<Vec<_>>());
}

/// The places of the records that a reader has to give now, and what it says is gone.
fn told(reader: &mut Records) -> Vec<String> {
    let text = |outcome: anabranch::Result<anabranch::Record>| match outcome {
        Ok(record) => format!("{}: {}", record.shard_id().get(), record.sequence_number()),
        Err(Error::Trimmed { shard_id, requested, earliest }) => {
            format!("{}: {requested} is trimmed up to {earliest}", shard_id.get())
        }
        Err(error) => panic!("{error:?}"),
    };
    reader.available().map(text).collect()
}

#[test]
fn a_reader_of_the_whole_is_told_what_it_missed_of_the_children() {
    let (_directory, clock, stream) = timed(builder());
    let follower = builder().clock(clock).open_read_only(stream.path()).unwrap();
    fill(&stream, 2);
    let starts = [RecordsStart::TrimHorizon, RecordsStart::Latest, RecordsStart::AtTimestamp(Timestamp::MIN)];
    let readers = [&stream, &follower].into_iter().flat_map(|stream| starts.map(|start| stream.records(start)));
    let mut readers: Vec<_> = readers.map(|reader| reader.unwrap()).collect();
    for reader in &mut readers {
        told(reader);
    }
    let (lower, upper) = stream.split_shard(S0, None).unwrap();
    for child in [lower, upper] {
        fill_large(&stream, child, 12);
        stream.trim_shard(child, number(10)).unwrap();
    }
    let expected = ["1: 2 is trimmed up to 10", "2: 2 is trimmed up to 10", "1: 10", "1: 11", "1: 12", "1: 13"];
    for reader in &mut readers {
        let rest = told(reader);
        assert_eq!(rest[..6], expected, "{reader:?}");
        assert_eq!(rest.len(), 10);
    }
}

/// What was gone before it began is not missed, be it of a shard whose parent is there.
#[test]
fn a_reader_of_the_whole_misses_nothing_that_was_gone_before_it_began() {
    let (_directory, clock, stream) = timed(builder().retention(RetentionPeriod::hours(2)));
    fill(&stream, 2);
    let (lower, _) = stream.split_shard(S0, None).unwrap();
    fill_large(&stream, lower, 12);
    stream.trim_shard(lower, number(10)).unwrap();
    let mut whole = stream.records(RecordsStart::TrimHorizon).unwrap();
    assert_eq!(told(&mut whole), ["0: 0", "0: 1", "1: 10", "1: 11", "1: 12", "1: 13"]);
    clock.advance(3 * HOUR);
    fill_large(&stream, lower, 1);
    let mut whole = stream.records(RecordsStart::TrimHorizon).unwrap();
    assert_eq!(told(&mut whole), ["1: 14"], "the parent is listed, and all of it expired");
}

/// What was removed of a shard may have arrived before the time that a reader begins at.
#[test]
fn a_reader_from_a_time_on_misses_nothing_from_before() {
    let (_directory, clock, stream) = timed(builder());
    let time = Timestamp::from_millis(clock.now().as_millis() + 10_000);
    let mut whole = stream.records(RecordsStart::AtTimestamp(time)).unwrap();
    let (lower, _) = stream.split_shard(S0, None).unwrap();
    fill_large(&stream, lower, 12);
    stream.trim_shard(lower, number(10)).unwrap();
    assert_eq!(told(&mut whole), [""; 0]);
    clock.advance(HOUR);
    fill_large(&stream, lower, 1);
    assert_eq!(told(&mut whole), ["1: 12"]);
}

#[test]
fn a_reader_that_keeps_up_never_notices() {
    let (_directory, clock, stream) = timed(builder().retention(RetentionPeriod::hours(2)));
    let mut iterator = stream.shard_iterator(S0, HORIZON).unwrap();
    let mut next = 0;
    for _ in 0..30 {
        fill_large(&stream, S0, 5);
        assert_eq!(numbers(&mut iterator), (next..next + 5).collect::<Vec<_>>());
        next += 5;
        clock.advance(HOUR);
        stream.enforce_retention().unwrap();
    }
    assert!(stream.metrics().segments_trimmed > 10);
}

#[test]
fn closed_shards_leave_the_list_when_their_last_record_expired() {
    let (_directory, clock, stream) = timed(builder().shards(2));
    fill_large(&stream, S0, 10);
    fill_large(&stream, S1, 3);
    clock.advance(10 * HOUR);
    let (lower, upper) = stream.split_shard(S0, None).unwrap();
    clock.advance(20 * HOUR);
    fill_large(&stream, lower, 3);

    // The parent's records expired, its closing has not: a reader may still want to know of it.
    let report = stream.enforce_retention().unwrap();
    assert_eq!(report.shards_removed, []);
    assert_eq!(stream.shards().len(), 4);
    assert_eq!(numbers_from(&stream, S0, HORIZON), [0; 0]);
    let ended = stream.shard_iterator(S0, HORIZON).unwrap();
    assert_eq!(ended.end_of_shard().unwrap().len(), 2);

    clock.advance(5 * HOUR);
    let mut held = stream.shard_iterator(S0, ShardIteratorType::Latest).unwrap();
    let report = stream.enforce_retention().unwrap();
    assert_eq!(report.shards_removed, [S0]);
    assert_eq!(stream.shards().iter().map(|shard| shard.shard_id).collect::<Vec<_>>(), [S1, lower, upper]);
    assert!(!stream.path().join("shards/000000000000").exists());
    assert_eq!(stream.shards()[1].parents, [S0], "the lineage stays");
    let error = stream.shard_iterator(S0, HORIZON).map(drop).expect_err("expired");
    assert!(matches!(error, Error::ShardNotFound(S0)), "{error:?}");
    assert!(matches!(stream.split_shard(S0, None), Err(Error::ShardNotFound(S0))));
    assert_eq!(drain(&mut held).len(), 0);
    assert!(held.end_of_shard().is_some(), "who held an iterator is still led on");
    assert_eq!(read_stream(&stream).len(), 3, "the child, whose parent is gone");

    // Open shards stay, however old.
    clock.advance(1_000 * HOUR);
    assert_eq!(stream.enforce_retention().unwrap().shards_removed, []);
    assert_eq!(stream.open_shards(), [lower, upper, S1]);
    let path = stream.path().to_path_buf();
    stream.close().unwrap();
    let stream = builder().clock(clock).open(path).unwrap();
    assert_eq!(stream.shards().len(), 3);
    assert_eq!(stream.split_shard(S1, None).unwrap().0.get(), 4, "ids are never used again");
}

#[test]
fn a_shard_is_trimmed_by_request() {
    let (_directory, clock, stream) = timed(builder().shards(2));
    fill_large(&stream, S0, 30);
    fill_large(&stream, S1, 10);
    let report = stream.trim_shard(S0, number(0)).unwrap();
    assert_eq!(report, anabranch::TrimReport::default());
    let report = stream.trim_shard(S0, number(10)).unwrap();
    assert_eq!(
        (report.segments_removed, report.records_removed),
        (1, LARGE_PER_SEGMENT),
        "whole segments below 10"
    );
    assert_eq!(numbers_from(&stream, S0, HORIZON), (10..30).collect::<Vec<_>>(), "the horizon is exact");
    assert_eq!(trimmed(stream.shard_iterator(S0, at(8))), (8, 10));
    assert_eq!(trimmed(stream.get(S0, number(8))), (8, 10), "its segment is still there");
    assert_eq!(trimmed(stream.shard_iterator(S0, at(0))), (0, 10));
    assert_eq!(stream.trim_shard(S0, number(5)).unwrap(), anabranch::TrimReport::default());
    assert_eq!(numbers_from(&stream, S0, HORIZON)[0], 10, "never down again");
    assert_eq!(numbers_from(&stream, S1, HORIZON).len(), 10, "no other shard is touched");

    let error = stream.trim_shard(S0, number(31)).expect_err("beyond");
    assert!(matches!(error, Error::BeyondTail { next, .. } if next == number(30)), "{error:?}");
    let error = stream.trim_shard(anabranch::ShardId::new(2), number(0)).expect_err("unknown");
    assert!(matches!(error, Error::ShardNotFound(_)), "{error:?}");

    stream.trim_shard(S0, number(30)).unwrap();
    assert_eq!(numbers_from(&stream, S0, HORIZON), [0; 0]);
    let shard = &stream.describe().unwrap().shards[0];
    assert_eq!((shard.records, shard.next_sequence_number), (0, number(30)));
    fill_large(&stream, S0, 1);
    assert_eq!(numbers_from(&stream, S0, HORIZON), [30]);

    let path = stream.path().to_path_buf();
    stream.close().unwrap();
    let stream = builder().clock(clock).open(&path).unwrap();
    assert_eq!(numbers_from(&stream, S0, HORIZON), [30], "the horizon is kept");
    assert_eq!(trimmed(stream.shard_iterator(S0, at(29))), (29, 30));
}

#[test]
fn a_closed_shard_is_trimmed_by_request() {
    let (_directory, _, stream) = timed(builder());
    fill_large(&stream, S0, 30);
    stream.split_shard(S0, None).unwrap();
    let report = stream.trim_shard(S0, number(30)).unwrap();
    assert_eq!(report.records_removed, 30);
    assert_eq!(read_all(&stream, S0).len(), 0);
    let ended = stream.shard_iterator(S0, HORIZON).unwrap();
    assert_eq!(ended.end_of_shard().unwrap().len(), 2);
    let path = stream.path().to_path_buf();
    stream.close().unwrap();
    assert!(anabranch::verify(&path, anabranch::VerifyOptions::default()).unwrap().is_sound());
    let stream = builder().open(&path).unwrap();
    assert_eq!(stream.shards().len(), 3, "it is listed until its closing expires");
}

#[test]
fn a_leap_of_the_clock_deletes_nothing() {
    let (_directory, clock, stream) = timed(builder());
    fill_large(&stream, S0, 30);
    let start = stream.describe().unwrap().created.as_millis();
    let files = fs::read_dir(stream.path().join("shards/000000000000")).unwrap().count();
    clock.advance(Duration::from_secs(2));
    assert_eq!(stream.enforce_retention().unwrap(), anabranch::TrimReport::default(), "and this time is believed");
    // However much time passes between looks of which no two agree: one further behind, or a leap further.
    for days in [365, 200, 300] {
        clock.set(Timestamp::from_millis(start + days * 86_400_000));
        clock.advance(Duration::from_secs(10));
        assert_eq!(stream.enforce_retention().unwrap(), anabranch::TrimReport::default(), "{days} days");
    }
    clock.set(Timestamp::from_millis(start + 32_000));
    assert_eq!(stream.enforce_retention().unwrap(), anabranch::TrimReport::default());

    clock.set(Timestamp::from_millis(start + 365 * 86_400_000));
    for _ in 0..3 {
        assert_eq!(stream.enforce_retention().unwrap(), anabranch::TrimReport::default());
        stream.maintain().unwrap();
    }
    // The clock is put right: nothing was lost.
    clock.set(Timestamp::from_millis(start + 1_000));
    assert_eq!(stream.enforce_retention().unwrap(), anabranch::TrimReport::default());
    assert_eq!(fs::read_dir(stream.path().join("shards/000000000000")).unwrap().count(), files);
    assert_eq!(numbers_from(&stream, S0, HORIZON).len(), 30);

    // A leap that lasts is believed in the end.
    clock.set(Timestamp::from_millis(start + 365 * 86_400_000));
    assert_eq!(stream.enforce_retention().unwrap().records_removed, 0);
    clock.advance(Duration::from_millis(999));
    assert_eq!(stream.enforce_retention().unwrap().records_removed, 0);
    clock.advance(Duration::from_millis(1));
    assert_eq!(stream.enforce_retention().unwrap().records_removed, 30, "a second later");
}

/// Where records are kept for less than a minute, a leap of less than a minute is one.
#[test]
fn a_leap_past_a_short_period_deletes_nothing_at_once() {
    let (_directory, clock, stream) = timed(builder().retention(Duration::from_secs(30)));
    fill_large(&stream, S0, 30);
    clock.advance(Duration::from_secs(2));
    assert_eq!(stream.enforce_retention().unwrap().records_removed, 0, "and this time is believed");
    clock.set(Timestamp::from_millis(clock.now().as_millis() + 45_000));
    assert_eq!(stream.enforce_retention().unwrap().records_removed, 0);
    clock.advance(Duration::from_secs(1));
    assert_eq!(stream.enforce_retention().unwrap().records_removed, 30, "a second reading agrees");
}

#[test]
fn a_clock_that_falls_back_expires_nothing_early() {
    let (_directory, clock, stream) = timed(builder().retention(RetentionPeriod::hours(1)));
    fill(&stream, 5);
    let start = stream.describe().unwrap().created.as_millis();
    clock.set(Timestamp::from_millis(start - 86_400_000));
    fill(&stream, 5);
    stream.enforce_retention().unwrap();
    assert_eq!(numbers_from(&stream, S0, HORIZON).len(), 10);
    clock.advance(2 * HOUR);
    stream.enforce_retention().unwrap();
    assert_eq!(numbers_from(&stream, S0, HORIZON).len(), 10, "their arrival is still to come");
}

/// A record that is too old is gone for who asks for it by its number, though its segment, be it active or sealed, is still there.
#[test]
fn an_iterator_does_not_start_at_a_record_that_expired() {
    for old in [1, LARGE_PER_SEGMENT] {
        let (_directory, clock, stream) = timed(builder());
        fill_large(&stream, S0, old);
        clock.advance(24 * HOUR);
        fill_large(&stream, S0, 1);
        assert!(stream.shard_iterator(S0, at(0)).is_ok(), "as old as the period is long");
        assert!(stream.get(S0, number(0)).is_ok(), "as old as the period is long");
        clock.advance(HOUR / 3600);
        assert_eq!(trimmed(stream.shard_iterator(S0, at(0))), (0, old));
        assert_eq!(trimmed(stream.get(S0, number(0))), (0, old));
        assert!(stream.shard_iterator(S0, at(old)).is_ok());
    }
}

/// The footer of the oldest segment of a shard is damaged, which no opening looks at: the others are trimmed, and the damage is told.
/// Whatever is sealed goes at the next look, by bytes; or by age, once it is an hour old.
fn let_all_go(stream: &Stream, by_bytes: bool) {
    if by_bytes {
        stream.set_retention_bytes(Some(0)).unwrap();
    } else {
        stream.decrease_retention(RetentionPeriod::hours(1)).unwrap();
    }
}

#[test]
fn a_damaged_segment_keeps_no_other_shard_from_its_retention() {
    for by_bytes in [false, true] {
        let (_directory, clock, stream) = timed(builder().shards(2).retention(RetentionPeriod::Unlimited));
        for shard_id in [S0, S1] {
            fill_large(&stream, shard_id, 4 * LARGE_PER_SEGMENT);
        }
        let_all_go(&stream, by_bytes);
        let path = stream.path().to_path_buf();
        stream.close().unwrap();
        let damaged = segments(&path, S0)[0].clone();
        let mut bytes = fs::read(&damaged).unwrap();
        let footer = bytes.len() - 100;
        bytes[footer] ^= 1;
        fs::write(&damaged, bytes).unwrap();

        let stream = builder().clock(clock.clone()).open(&path).unwrap();
        for _ in 0..2 {
            clock.advance(2 * HOUR);
            match stream.enforce_retention() {
                Err(Error::Corrupt(found)) => assert_eq!(found.path, damaged),
                other => panic!("by bytes: {by_bytes}: {other:?}"),
            }
        }
        assert_eq!(segments(&path, S1).len(), 0, "by bytes: {by_bytes}");
        assert_eq!(segments(&path, S0).len(), 4, "by bytes: {by_bytes}");
    }
}

/// A closed shard stays listed as long as a parent of it does, which cannot be trimmed: whoever reads its children waits for what the parent holds.
#[test]
fn a_shard_stays_listed_while_a_damaged_parent_does() {
    for by_bytes in [false, true] {
        let (_directory, clock, stream) = timed(builder().retention(RetentionPeriod::Unlimited));
        fill_large(&stream, S0, 3 * LARGE_PER_SEGMENT); // an opening looks at the newest two
        let (lower, _) = stream.split_shard(S0, None).unwrap();
        fill_large(&stream, lower, LARGE_PER_SEGMENT);
        stream.split_shard(lower, None).unwrap();
        let_all_go(&stream, by_bytes);
        let path = stream.path().to_path_buf();
        stream.close().unwrap();
        let damaged = segments(&path, S0)[0].clone();
        let sound = fs::read(&damaged).unwrap();
        let mut bytes = sound.clone();
        let footer = bytes.len() - 100;
        bytes[footer] ^= 1;
        fs::write(&damaged, bytes).unwrap();
        let stream = builder().clock(clock.clone()).open(&path).unwrap();
        clock.advance(2 * HOUR);
        stream.enforce_retention().unwrap_err();
        assert_eq!((segments(&path, lower).len(), stream.shards().len()), (0, 5), "by bytes: {by_bytes}");

        fs::write(&damaged, sound).unwrap();
        clock.advance(2 * HOUR);
        let report = stream.enforce_retention().unwrap();
        assert_eq!(report.shards_removed, [S0, lower], "by bytes: {by_bytes}");
    }
}

/// One file that cannot be removed keeps no other one, also of a shard that nobody looks at again.
#[test]
fn a_removal_that_fails_keeps_no_other_file() {
    // The first removal is that of what a replacement of the manifest may have left.
    for nth in 1..=6 {
        let options = builder().shards(2).segment_bytes(4 << 10).retention(RetentionPeriod::hours(1));
        let (disk, clock, stream) = simulated(options);
        for shard_id in [S0, S1] {
            fill_large(&stream, shard_id, 3 * LARGE_PER_SEGMENT);
            stream.split_shard(shard_id, None).unwrap();
        }
        clock.advance(2 * HOUR);
        disk.fail_on(Operation::RemoveFile, nth, DiskFault::Error(std::io::ErrorKind::Other));
        assert_eq!(stream.enforce_retention().unwrap_err().kind(), ErrorKind::Io, "removal {nth}");
        let left = |id: u32| disk.list(format!("stream/shards/{id:012}").as_ref()).map_or(0, |files| files.len());
        assert_eq!(left(0) + left(1), 1, "removal {nth}");
        assert_eq!(stream.shards().len(), 4, "removal {nth}");
        stream.close().unwrap();
        let stream = builder().storage(Arc::new(disk.clone())).clock(clock).open("stream").unwrap();
        assert_eq!((stream.shards().len(), left(0) + left(1)), (4, 0), "removal {nth}");
    }
}

/// Of a shard that retention emptied, only the manifest says when its last record arrived, and its process does not live to close it.
#[test]
fn arrival_times_do_not_go_back_behind_all_that_expired() {
    for is_trimmed in [false, true] {
        let (disk, clock, stream) = simulated(builder().retention(RetentionPeriod::hours(1)));
        let start = clock.now().as_millis();
        clock.advance(Duration::from_secs(100));
        let last = put_to(&stream, S0, "key", b"before");
        clock.advance(2 * HOUR);
        if is_trimmed {
            stream.trim_shard(S0, number(1)).unwrap();
        }
        assert_eq!(stream.enforce_retention().unwrap().records_removed, 1);
        let disk = disk.crash(Crash::ProcessKilled);
        drop(stream);
        clock.set(Timestamp::from_millis(start + 50_000));
        let stream = builder().storage(Arc::new(disk)).clock(clock).open("stream").unwrap();
        assert_eq!(segments_of(&stream), 0, "no file tells");
        let next = put_to(&stream, S0, "key", b"after");
        assert_eq!(next.sequence_number, number(1));
        assert!(
            next.arrival >= last.arrival,
            "{:?} behind {:?}, trimmed: {is_trimmed}",
            next.arrival,
            last.arrival
        );
    }
}

fn segments_of(stream: &Stream) -> u64 {
    stream.describe().unwrap().shards[0].segments
}
