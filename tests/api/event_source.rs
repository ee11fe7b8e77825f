//! Event sources: batches, lanes, retries, cuts, partial failures, destinations, in steps under a clock that stands still, and in threads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anabranch::{
    Batch, BatchFailure, Consumer, Crash, Durability, Error, ErrorKind, EventSource, EventSourceOptions,
    FailedBatch, FailureCondition, ManualClock, Position, RecordsStart, Result, SequenceNumber, ShardId, Stream,
    Work, Worker, WorkerOptions,
};

use crate::support::{
    LARGE_PER_SEGMENT, Mixer, S0, S1, builder, eventually, expire, fill_large, number, place, put_to, read_stream,
    simulated,
};

const SECOND: Duration = Duration::from_secs(1);

fn options() -> EventSourceOptions {
    EventSourceOptions::new()
}

fn consumer(stream: &Stream) -> Consumer {
    stream.consumer("c").unwrap()
}

fn source(stream: &Stream, options: EventSourceOptions) -> EventSource {
    consumer(stream).event_source("w", options).unwrap()
}

/// Puts records to the first shard, whose data are these.
fn put(stream: &Stream, data: &[&str]) {
    for data in data {
        put_to(stream, S0, "key", data.as_bytes());
    }
}

/// How far the shard is done, as a number of records; none where nothing is.
fn done_of(stream: &Stream, shard_id: ShardId) -> Option<u64> {
    match consumer(stream).checkpoint(shard_id).unwrap().position {
        Position::TrimHorizon => None,
        Position::After(at) => Some(at.sequence_number.get() + 1),
        other => panic!("{other:?}"),
    }
}

fn text(batch: &Batch<'_>) -> String {
    let words: Vec<_> = batch.records().iter().map(|record| String::from_utf8_lossy(record.data())).collect();
    words.join(" ")
}

/// What a handler was called with.
#[derive(Default)]
struct Calls(Mutex<Vec<String>>);

impl Calls {
    fn note(&self, batch: &Batch<'_>) {
        self.0.lock().unwrap().push(text(batch));
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// A handler that fails whole batches in which this word is.
    fn but(&self, bad: &'static str) -> impl Fn(&mut Batch<'_>) -> Result<(), BatchFailure> {
        move |batch| {
            self.note(batch);
            if text(batch).split(' ').any(|word| word == bad) { Err(BatchFailure::new("bad")) } else { Ok(()) }
        }
    }

    /// A handler that says from which record on it failed.
    fn up_to(&self, bad: &'static str) -> impl Fn(&mut Batch<'_>) -> Result<(), BatchFailure> {
        move |batch| {
            self.note(batch);
            let failing = batch.records().iter().find(|record| record.data() == bad.as_bytes());
            failing.map_or(Ok(()), |record| Err(BatchFailure::at(record, "bad")))
        }
    }
}

/// Steps until nothing is to be done.
fn drain(
    source: &mut EventSource,
    handler: &(impl Fn(&mut Batch<'_>) -> Result<(), BatchFailure> + Sync),
) -> Result<()> {
    while source.step(handler)? > 0 {}
    Ok(())
}

/// Steps, and lets time pass, until nothing happens for minutes.
fn drain_slowly(
    source: &mut EventSource,
    clock: &ManualClock,
    handler: &(impl Fn(&mut Batch<'_>) -> Result<(), BatchFailure> + Sync),
) -> Result<()> {
    let mut idle = 0;
    while idle < 3 {
        idle = if source.step(handler)? > 0 { 0 } else { idle + 1 };
        clock.advance(60 * SECOND);
    }
    Ok(())
}

/// Notes what it is told.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<FailedBatch>>>);

impl Told {
    fn destination(&self) -> impl Fn(&FailedBatch) -> Result<(), BatchFailure> + Send + Sync + 'static {
        let told = self.clone();
        move |failed| {
            told.0.lock().unwrap().push(failed.clone());
            Ok(())
        }
    }

    fn take(&self) -> Vec<FailedBatch> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn data_of(failed: &FailedBatch, stream: &Stream) -> Vec<String> {
    let records = failed.records(stream).unwrap();
    records.iter().map(|record| String::from_utf8(record.data().to_vec()).unwrap()).collect()
}

// ---- batches ----

#[test]
fn a_batch_ends_at_its_records_and_at_its_bytes() {
    let (_disk, _clock, stream) = simulated(builder());
    let calls = Calls::default();
    put(&stream, &["a", "b", "c", "d", "e"]);
    let mut source = source(&stream, options().batch_records(2).batch_bytes(11));
    drain(&mut source, &calls.but("")).unwrap();
    assert_eq!(calls.take(), ["a b", "c d", "e"]);
    assert_eq!(done_of(&stream, S0), Some(5));
    put(&stream, &["1234567890123456789", "f", "123456", "g"]);
    drain(&mut source, &calls.but("")).unwrap();
    assert_eq!(calls.take(), ["1234567890123456789", "f", "123456", "g"], "one over the bytes is alone");
}

#[test]
fn a_batch_is_gathered_for_its_window() {
    let (_disk, clock, stream) = simulated(builder());
    let calls = Calls::default();
    let mut source = source(&stream, options().batch_records(3).batch_window(10 * SECOND));
    let mut look = || {
        drain(&mut source, &calls.but("")).unwrap();
        calls.take()
    };
    put(&stream, &["a"]);
    assert!(look().is_empty());
    clock.advance(9 * SECOND);
    put(&stream, &["b"]);
    assert!(look().is_empty());
    clock.advance(SECOND);
    assert_eq!(look(), ["a b"], "ten seconds after the first was read");
    put(&stream, &["c", "d", "e", "f"]);
    assert_eq!(look(), ["c d e"], "a full one waits for nothing");
    stream.split_shard(S0, None).unwrap();
    assert_eq!(look(), ["f"], "nor does the last one of a shard");
}

#[test]
fn lanes_keep_the_order_of_a_key_and_the_lowest_that_is_not_done_holds_the_checkpoint() {
    let (_disk, clock, stream) = simulated(builder());
    for n in 0..40 {
        put_to(&stream, S0, &format!("key {}", n % 8), n.to_string().as_bytes());
    }
    let given: Mutex<BTreeMap<u32, Vec<(String, u64)>>> = Mutex::default();
    let is_bad = AtomicBool::new(true);
    let handler = |batch: &mut Batch<'_>| {
        if batch.records()[0].partition_key() == "key 3" && is_bad.load(Ordering::SeqCst) {
            return Err(BatchFailure::new("not yet"));
        }
        let records = batch.records().iter();
        let records = records.map(|record| (record.partition_key().to_owned(), record.sequence_number().get()));
        given.lock().unwrap().entry(batch.lane()).or_default().extend(records);
        Ok(())
    };
    let mut source = source(&stream, options().lanes(4).batch_records(1).retries(None));
    drain(&mut source, &handler).unwrap();
    let keys = |given: &BTreeMap<u32, Vec<(String, u64)>>| -> Vec<BTreeSet<String>> {
        given.values().map(|records| records.iter().map(|(key, _)| key.clone()).collect()).collect()
    };
    assert!(done_of(&stream, S0).unwrap() <= 3, "record 3 is not done");
    assert!(!given.lock().unwrap().is_empty());
    is_bad.store(false, Ordering::SeqCst);
    drain_slowly(&mut source, &clock, &handler).unwrap();
    assert_eq!(done_of(&stream, S0), Some(40));
    let given = given.into_inner().unwrap();
    let keys = keys(&given);
    assert!(keys.len() > 1, "several lanes");
    assert_eq!(keys.iter().map(BTreeSet::len).sum::<usize>(), 8, "a key has one lane");
    for records in given.values() {
        assert!(records.is_sorted_by_key(|(_, number)| *number), "{records:?}");
    }
    assert_eq!(given.values().map(Vec::len).sum::<usize>(), 40);
}

// ---- failures ----

#[test]
fn a_failed_batch_is_tried_again_after_longer_and_longer_pauses_and_given_up_in_the_end() {
    let (_disk, clock, stream) = simulated(builder());
    let (calls, told) = (Calls::default(), Told::default());
    put(&stream, &["a", "bad", "c"]);
    let options = options().bisect_on_error(false).retries(3).backoff(SECOND);
    let mut source = source(&stream, options).on_failure(told.destination());
    let mut look = |seconds: u32| {
        clock.advance(seconds * SECOND);
        drain(&mut source, &calls.but("bad")).unwrap();
        calls.take().len()
    };
    assert_eq!(look(0), 1);
    assert_eq!((look(0), look(1)), (0, 1));
    assert_eq!((look(1), look(1)), (0, 1));
    put(&stream, &["d"]);
    assert_eq!((look(3), done_of(&stream, S0)), (0, None), "what comes later waits");
    assert!(told.take().is_empty());
    let first_arrival = stream.get(S0, number(0)).unwrap().arrival();
    assert_eq!(look(1), 2, "the last try, and then the next batch");
    assert_eq!(done_of(&stream, S0), Some(4));
    let failed = told.take();
    let [failed] = failed.as_slice() else { panic!("{failed:?}") };
    assert_eq!((failed.shard_id, failed.lane, failed.lanes), (S0, 0, 1));
    assert_eq!((failed.first_sequence_number, failed.last_sequence_number), (number(0), number(2)));
    assert_eq!((failed.batch_size, failed.attempts), (3, 4));
    assert_eq!((failed.first_arrival, failed.last_arrival), (first_arrival, first_arrival));
    assert_eq!((failed.condition, failed.reason.as_str()), (FailureCondition::RetriesExhausted, "bad"));
    assert_eq!((failed.consumer.as_str(), failed.window), ("c", None));
    assert_eq!(data_of(failed, &stream), ["a", "bad", "c"]);
}

#[test]
fn a_batch_is_halved_until_what_fails_stands_alone() {
    let (_disk, clock, stream) = simulated(builder());
    let (calls, told) = (Calls::default(), Told::default());
    put(&stream, &["a", "b", "c", "d", "bad", "f", "g", "h"]);
    let mut source = source(&stream, options().retries(1)).on_failure(told.destination());
    drain(&mut source, &calls.but("bad")).unwrap();
    assert_eq!(
        calls.take(),
        ["a b c d bad f g h", "a b c d", "bad f g h", "bad f", "bad"],
        "in order, and cutting is no retry"
    );
    assert_eq!(done_of(&stream, S0), Some(4));
    clock.advance(SECOND);
    drain(&mut source, &calls.but("bad")).unwrap();
    assert_eq!(calls.take(), ["bad", "f", "g h"]);
    let failed = told.take();
    assert_eq!((failed.len(), failed[0].batch_size, failed[0].attempts), (1, 1, 5));
    assert_eq!(data_of(&failed[0], &stream), ["bad"]);
    assert_eq!(done_of(&stream, S0), Some(8));
}

#[test]
fn what_stands_before_the_record_that_failed_is_done() {
    let (_disk, clock, stream) = simulated(builder());
    let (calls, told) = (Calls::default(), Told::default());
    put(&stream, &["a", "b", "bad", "d"]);
    let mut cutting = source(&stream, options().retries(0)).on_failure(told.destination());
    cutting.step(&calls.up_to("bad")).unwrap();
    assert_eq!(done_of(&stream, S0), Some(2), "its checkpoint is taken");
    drain(&mut cutting, &calls.up_to("bad")).unwrap();
    assert_eq!(calls.take(), ["a b bad d", "bad d", "bad", "d"]);
    assert_eq!(data_of(&told.take()[0], &stream), ["bad"]);
    cutting.close().unwrap();

    put(&stream, &["e", "bad", "g"]);
    let whole = options().bisect_on_error(false).retries(2);
    let mut whole = source(&stream, whole).on_failure(told.destination());
    drain_slowly(&mut whole, &clock, &calls.up_to("bad")).unwrap();
    assert_eq!(calls.take(), ["e bad g", "bad g", "bad g"]);
    assert_eq!(data_of(&told.take()[0], &stream), ["bad", "g"]);
}

#[test]
fn a_number_that_is_not_of_the_batch_is_a_failure_of_all_of_it() {
    let (_disk, _clock, stream) = simulated(builder());
    let (calls, told) = (Calls::default(), Told::default());
    put(&stream, &["a", "b"]);
    let options = options().bisect_on_error(false).retries(0);
    let mut source = source(&stream, options).on_failure(told.destination());
    let handler = |batch: &mut Batch<'_>| {
        calls.note(batch);
        Err(BatchFailure::at_sequence_number(number(7), "seven"))
    };
    drain(&mut source, &handler).unwrap();
    assert_eq!(calls.take(), ["a b"]);
    assert_eq!(data_of(&told.take()[0], &stream), ["a", "b"]);
}

#[test]
fn records_that_are_too_old_are_tried_once_and_not_again() {
    let (_disk, clock, stream) = simulated(builder());
    let (calls, told) = (Calls::default(), Told::default());
    put(&stream, &["a", "b"]);
    clock.advance(100 * SECOND);
    put(&stream, &["c"]);
    clock.advance(SECOND);
    let options = options().max_record_age(60 * SECOND).bisect_on_error(false).backoff(SECOND);
    let mut source = source(&stream, options).on_failure(told.destination());
    drain(&mut source, &calls.but("c")).unwrap();
    assert_eq!(calls.take(), ["a b c"]);
    let failed = told.take();
    assert_eq!((failed.len(), failed[0].condition), (1, FailureCondition::RecordAgeExceeded));
    assert_eq!(data_of(&failed[0], &stream), ["a", "b"], "those that are younger are not given up for it");
    clock.advance(SECOND);
    drain(&mut source, &calls.but("")).unwrap();
    assert_eq!((calls.take(), done_of(&stream, S0)), (vec!["c".to_owned()], Some(3)));
}

/// The source was stopped for longer than that: what was never handled is not given up for another record of its batch.
#[test]
fn a_record_is_handled_once_however_old_it_is() {
    let (_disk, clock, stream) = simulated(builder());
    let (calls, told) = (Calls::default(), Told::default());
    put(&stream, &["a", "b", "c", "d"]);
    clock.advance(100 * SECOND);
    let mut source = source(&stream, options().max_record_age(60 * SECOND)).on_failure(told.destination());
    drain(&mut source, &calls.up_to("b")).unwrap();
    assert_eq!(calls.take(), ["a b c d", "b c d", "b", "c d"]);
    let failed = told.take();
    assert_eq!((failed.len(), failed[0].condition), (1, FailureCondition::RecordAgeExceeded));
    assert_eq!((data_of(&failed[0], &stream), done_of(&stream, S0)), (vec!["b".to_owned()], Some(4)));
}

/// What is done behind a record that is not is remembered, and comes again after a crash: there is a bound to it.
#[test]
fn a_lane_that_gets_no_further_keeps_the_others_from_running_far_ahead() {
    let (_disk, clock, stream) = simulated(builder());
    for n in 0..300 {
        put_to(&stream, S0, if n == 0 { "bad" } else { "good" }, n.to_string().as_bytes());
    }
    let (handled, is_bad) = (AtomicUsize::new(0), AtomicBool::new(true));
    let handler = |batch: &mut Batch<'_>| {
        if batch.records()[0].partition_key() == "bad" && is_bad.load(Ordering::SeqCst) {
            return Err(BatchFailure::new("not yet"));
        }
        handled.fetch_add(batch.records().len(), Ordering::SeqCst);
        Ok(())
    };
    let options = options().lanes(10).batch_records(1).retries(None).batch_window(300 * SECOND);
    let mut source = source(&stream, options);
    drain(&mut source, &handler).unwrap();
    assert!((1..200).contains(&handled.load(Ordering::SeqCst)), "{handled:?}");
    is_bad.store(false, Ordering::SeqCst);
    drain_slowly(&mut source, &clock, &handler).unwrap();
    assert_eq!((handled.into_inner(), done_of(&stream, S0)), (300, Some(300)));
}

#[test]
fn without_a_destination_the_source_stops_at_what_is_to_be_given_up() {
    let (_disk, _clock, stream) = simulated(builder());
    let calls = Calls::default();
    put(&stream, &["a", "bad", "c"]);
    let mut source = source(&stream, options().retries(0));
    for attempts in [3, 4] {
        let error = drain(&mut source, &calls.but("bad")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Handler);
        assert!(error.to_string().contains("failed") && error.to_string().contains("bad"), "{error}");
        let Error::BatchFailed { shard_id, first, last, attempts: tried, reason } = error else {
            panic!("{error:?}")
        };
        assert_eq!((shard_id, first, last, tried, reason.as_str()), (S0, number(1), number(1), attempts, "bad"));
        assert_eq!(done_of(&stream, S0), Some(1));
    }
    calls.take();
    drain(&mut source, &calls.but("")).unwrap();
    assert_eq!((calls.take().join(" "), done_of(&stream, S0)), ("bad c".to_owned(), Some(3)));
}

#[test]
fn a_destination_that_fails_stops_the_source() {
    let (_disk, _clock, stream) = simulated(builder());
    let calls = Calls::default();
    let (full, taken) = (Arc::new(AtomicUsize::new(2)), Told::default());
    put(&stream, &["bad", "b"]);
    let take = taken.destination();
    let destination = {
        let full = Arc::clone(&full);
        move |failed: &FailedBatch| match full.fetch_sub(1, Ordering::SeqCst) {
            2 => Err(BatchFailure::new("full")),
            1 => panic!("broken"),
            _ => take(failed),
        }
    };
    let mut source = source(&stream, options().retries(0).batch_records(1)).on_failure(destination);
    for reason in ["full", "panicked: broken"] {
        let error = drain(&mut source, &calls.but("bad")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Handler);
        let Error::DestinationFailed { shard_id: S0, reason: told, .. } = &error else { panic!("{error:?}") };
        assert_eq!((told.as_str(), done_of(&stream, S0)), (reason, None));
    }
    assert_eq!(calls.take(), ["bad"], "the handler is not asked again");
    drain(&mut source, &calls.but("bad")).unwrap();
    assert_eq!((taken.take().len(), done_of(&stream, S0)), (1, Some(2)));
}

#[test]
fn a_stream_is_a_destination_and_the_batch_can_be_read_again() {
    let (_disk, _clock, stream) = simulated(builder());
    let (_other_disk, _other_clock, failures) = simulated(builder());
    for n in 0..20 {
        put_to(&stream, S0, &format!("key {}", n % 5), n.to_string().as_bytes());
    }
    let options = options().lanes(3).retries(0).bisect_on_error(false);
    let mut source = source(&stream, options).on_failure(failures.clone());
    drain(&mut source, &|_: &mut Batch<'_>| Err(BatchFailure::new("\"no\"\n"))).unwrap();
    let mut again = Vec::new();
    for record in read_stream(&failures) {
        assert_eq!(record.partition_key(), S0.to_string());
        let mut forged = FailedBatch::from_bytes(record.data()).unwrap();
        (forged.first_sequence_number, forged.batch_size) = (SequenceNumber::ZERO, 2);
        forged.last_sequence_number = SequenceNumber::new(u64::MAX);
        assert_eq!(forged.records(&stream).unwrap().len(), 2, "no more than it says");
        let failed = FailedBatch::from_bytes(record.data()).unwrap();
        assert_eq!(failed.reason, "\"no\"\n");
        let records = failed.records(&stream).unwrap();
        assert_eq!(records.len() as u64, failed.batch_size, "those of its lane alone");
        again.extend(records.iter().map(|record| record.sequence_number().get()));
        assert_eq!(failed.records(&failures).unwrap_err().kind(), ErrorKind::InvalidInput, "another stream");
    }
    again.sort_unstable();
    assert_eq!(again, (0..20).collect::<Vec<_>>());
    assert_eq!(done_of(&stream, S0), Some(20));
}

/// The source's checkpoint is behind the batch then, and may be durable.
#[test]
fn a_stream_is_told_durably_whatever_its_own_level() {
    for seed in 0..8 {
        let (disk, clock, stream) = simulated(builder());
        put(&stream, &["a"]);
        let of_failed = || builder().clock(clock.clone()).durability(Durability::Buffered);
        let failed = of_failed().storage(Arc::new(disk.clone())).create("failed").unwrap();
        let mut source = source(&stream, options().retries(0)).on_failure(failed.clone());
        drain(&mut source, &Calls::default().but("a")).unwrap();
        assert_eq!(done_of(&stream, S0), Some(1));
        let disk = disk.crash(Crash::PowerLost { seed });
        let after = of_failed().storage(Arc::new(disk)).open_existing("failed").unwrap();
        let told = after.records(RecordsStart::TrimHorizon).unwrap().available().count();
        assert_eq!(told, 1, "seed {seed}");
    }
}

#[test]
fn a_panic_is_a_failure_of_the_batch() {
    let (_disk, _clock, stream) = simulated(builder());
    let (calls, told) = (Calls::default(), Told::default());
    put(&stream, &["a", "bad", "c"]);
    let mut source = source(&stream, options().retries(0)).on_failure(told.destination());
    let handler = |batch: &mut Batch<'_>| {
        calls.note(batch);
        assert!(!text(batch).contains("bad"), "no {}", "way");
        Ok(())
    };
    drain(&mut source, &handler).unwrap();
    assert_eq!(calls.take(), ["a bad c", "a", "bad c", "bad", "c"]);
    let failed = told.take();
    assert_eq!((failed[0].reason.as_str(), failed[0].batch_size), ("panicked: no way", 1));
}

// ---- shards and workers ----

#[test]
fn keys_stay_in_order_through_splits_and_merges_in_two_sources() {
    let (_disk, clock, stream) = simulated(builder().shards(2));
    let seed = std::env::var("EVENT_SEED").map_or(1, |seed| seed.parse().unwrap());
    println!("EVENT_SEED={seed}");
    let mut random = Mixer(seed);
    let given: Mutex<BTreeMap<String, u64>> = Mutex::default();
    let handled = AtomicUsize::new(0);
    let handler = |batch: &mut Batch<'_>| {
        for record in batch.records() {
            let id: u64 = String::from_utf8_lossy(record.data()).parse().unwrap();
            let mut given = given.lock().unwrap();
            let last = given.entry(record.partition_key().to_owned()).or_insert(0);
            assert!(id <= *last + 1, "{}: {id} after {last}", record.partition_key());
            *last = id.max(*last);
            handled.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    };
    let options = options().lanes(3).batch_records(4).lease_time(9 * SECOND);
    let consumer = consumer(&stream);
    let mut sources: Vec<_> =
        ["a", "b"].iter().map(|name| consumer.event_source(name, options.clone()).unwrap()).collect();
    let mut ids = BTreeMap::<u64, u64>::new();
    for _ in 0..300 {
        for _ in 0..random.next() % 5 {
            let key = random.next() % 10;
            let id = ids.entry(key).or_insert(0);
            *id += 1;
            stream.put(format!("key {key}"), id.to_string()).unwrap();
        }
        let open = stream.open_shards();
        let chosen = open[usize::try_from(random.next()).unwrap() % open.len()];
        match random.next() % 20 {
            0 => drop(stream.split_shard(chosen, None)),
            1 => drop(stream.merge_shards(chosen, open[0])),
            _ => {}
        }
        clock.advance(Duration::from_millis(random.next() % 2_000));
        let turn = usize::from(random.coin());
        sources[turn].step(&handler).unwrap();
    }
    for _ in 0..100 {
        clock.advance(SECOND);
        for source in &mut sources {
            drain(source, &handler).unwrap();
        }
    }
    let last: BTreeMap<_, _> = ids.iter().map(|(key, id)| (format!("key {key}"), *id)).collect();
    assert_eq!(*given.lock().unwrap(), last);
    assert!(stream.shards().len() > 6, "{} shards", stream.shards().len());
}

#[test]
fn what_is_under_way_when_the_shard_is_lost_comes_to_nothing() {
    let (_disk, _clock, stream) = simulated(builder());
    put(&stream, &["a", "b"]);
    let consumer = consumer(&stream);
    let mut source = source(&stream, options().batch_bytes(1));
    let handler = |_: &mut Batch<'_>| {
        drop(consumer.take(S0, "thief").unwrap());
        Ok(())
    };
    assert_eq!(source.step(&handler).unwrap(), 1);
    assert_eq!((done_of(&stream, S0), source.shards()), (None, vec![]));
    assert_eq!(source.step(&handler).unwrap(), 0, "the rest of it is not handled any more");
}

/// It expires between two calls, with others to be made.
#[test]
fn a_shard_that_expires_behind_its_end_is_handled_before_its_children() {
    let (_disk, clock, stream) = simulated(builder().retention(3_600 * SECOND));
    put(&stream, &["a", "b", "c"]);
    let (lower, _) = stream.split_shard(S0, None).unwrap();
    let calls = Calls::default();
    let handler = |batch: &mut Batch<'_>| {
        if text(batch) == "a" {
            expire(&clock, &stream, 3_601 * SECOND);
            put_to(&stream, lower, "key", b"d");
        }
        calls.note(batch);
        if batch.records().len() > 1 { Err(BatchFailure::new("together")) } else { Ok(()) }
    };
    let mut source = source(&stream, options().batch_records(2));
    drain(&mut source, &handler).unwrap();
    assert_eq!(calls.take(), ["a b", "a", "b", "c", "d"]);
    assert!(stream.shards().iter().all(|shard| shard.shard_id != S0));
    assert_eq!(source.shards().len(), 2, "its children");
}

/// The shard is lost and taken again while a batch is handled: its keys have no second call meanwhile, and that it is done then says nothing of the batch that is
/// under way now.
#[test]
fn what_comes_back_from_an_earlier_turn_is_not_looked_at() {
    let (_directory, path) = place();
    let stream = Stream::builder().create(path).unwrap();
    put(&stream, &["a"]);
    let consumer = consumer(&stream);
    let calls = AtomicUsize::new(0);
    let was_alone = AtomicBool::new(false);
    let handler = |_: &mut Batch<'_>| {
        if calls.fetch_add(1, Ordering::SeqCst) == 0 {
            consumer.reset(RecordsStart::TrimHorizon).unwrap();
            eventually("the next turn", || consumer.checkpoint(S0).unwrap().owner.is_some());
            std::thread::sleep(Duration::from_millis(100)); // for a second call, if there were one
            was_alone.store(calls.load(Ordering::SeqCst) == 1, Ordering::SeqCst);
            return Ok(());
        }
        Err(BatchFailure::new("bad"))
    };
    let mut source = source(&stream, options().lease_time(Duration::from_millis(50)).retries(0));
    let error = source.run(&handler, || false).unwrap_err();
    assert!(matches!(error, Error::BatchFailed { .. }), "{error:?}");
    assert_eq!((done_of(&stream, S0), calls.load(Ordering::SeqCst)), (None, 2));
    assert!(was_alone.load(Ordering::SeqCst));
}

/// The shard is lost in the call, and its key is in another one then: in a child, and in a parent that is begun anew.
#[test]
fn what_is_under_way_in_a_shard_that_was_lost_keeps_its_keys_waiting_in_others() {
    let (_directory, path) = place();
    let stream = Stream::builder().create(path).unwrap();
    put(&stream, &["a"]);
    let consumer = consumer(&stream);
    let (calls, was_alone) = (Calls::default(), Mutex::new(Vec::new()));
    let handler = |batch: &mut Batch<'_>| {
        calls.note(batch);
        let count = calls.count();
        let next = match count {
            1 => {
                let (lower, _) = stream.split_shard(S0, None).unwrap();
                consumer.reset(RecordsStart::Latest).unwrap();
                put_to(&stream, lower, "key", b"b");
                lower
            }
            2 => {
                consumer.reset(RecordsStart::TrimHorizon).unwrap();
                S0
            }
            _ => return Ok(()),
        };
        eventually("the next shard", || consumer.checkpoint(next).unwrap().owner.is_some());
        std::thread::sleep(Duration::from_millis(100)); // for a second call, if there were one
        was_alone.lock().unwrap().push(calls.count() == count);
        Ok(())
    };
    let mut source = source(&stream, options().lease_time(Duration::from_millis(50)));
    source.run(&handler, || calls.count() >= 4).unwrap();
    assert_eq!(calls.take(), ["a", "b", "a", "b"]);
    assert_eq!(was_alone.into_inner().unwrap(), [true, true]);
}

/// What a worker read before it met the damage is given before the error.
#[test]
fn damage_takes_no_records_along_that_stand_before_it() {
    let (disk, clock, stream) = simulated(builder().segment_bytes(4096).first_segment_bytes(4096));
    fill_large(&stream, S0, 2 * LARGE_PER_SEGMENT);
    stream.close().unwrap();
    let second = format!("stream/shards/{:012}/{LARGE_PER_SEGMENT:020}.seg", 0);
    disk.damage(second.as_ref(), |bytes| bytes[2_000] ^= 1).unwrap();
    let stream = builder().storage(Arc::new(disk)).clock(clock).open_existing("stream").unwrap();
    let handled = AtomicUsize::new(0);
    let handler = |batch: &mut Batch<'_>| {
        handled.fetch_add(batch.records().len(), Ordering::SeqCst);
        Ok(())
    };
    let mut source = source(&stream, options());
    let errors: Vec<_> = (0..4).filter_map(|_| source.step(&handler).err()).collect();
    assert!(!errors.is_empty() && errors.iter().all(|error| error.kind() == ErrorKind::Corrupt), "{errors:?}");
    assert!(handled.load(Ordering::SeqCst) as u64 > LARGE_PER_SEGMENT, "{handled:?} stand before it");
    assert_eq!(done_of(&stream, S0), Some(handled.load(Ordering::SeqCst) as u64));
}

#[test]
fn a_handler_may_take_longer_than_a_lease_lasts() {
    let (_directory, path) = place();
    let stream = Stream::builder().create(path).unwrap();
    put(&stream, &["a", "b"]);
    let options = options().lease_time(Duration::from_millis(200)).batch_records(1);
    let consumer = consumer(&stream);
    let mut slow = consumer.event_source("slow", options).unwrap();
    let mut other = consumer.worker("other", WorkerOptions::new()).unwrap();
    let handled = AtomicUsize::new(0);
    let handler = |_: &mut Batch<'_>| {
        std::thread::sleep(Duration::from_secs(1)); // five leases
        handled.fetch_add(1, Ordering::SeqCst);
        Ok(())
    };
    std::thread::scope(|scope| {
        let running = scope.spawn(|| slow.run(&handler, || handled.load(Ordering::SeqCst) > 0));
        eventually("the source has the shard", || {
            consumer.checkpoint(S0).unwrap().owner.as_deref() == Some("slow")
        });
        while !running.is_finished() {
            assert!(!matches!(other.poll().unwrap(), Some(Work::Records { .. })), "it was taken");
            std::thread::sleep(Duration::from_millis(20));
        }
        running.join().unwrap().unwrap();
    });
    assert_eq!(done_of(&stream, S0), Some(handled.load(Ordering::SeqCst) as u64), "what was under way is kept");
}

#[test]
fn threads_handle_lanes_and_shards_at_a_time_and_stop_when_told() {
    let (_directory, path) = place();
    let stream = Stream::builder().shards(2).create(path).unwrap();
    for n in 0..64 {
        stream.put(format!("key {n}"), b"data").unwrap();
    }
    let (at_work, most, handled) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let threads: Mutex<BTreeSet<String>> = Mutex::default();
    let handler = |batch: &mut Batch<'_>| {
        most.fetch_max(at_work.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        threads.lock().unwrap().insert(format!("{:?}", std::thread::current().id()));
        std::thread::sleep(Duration::from_millis(5));
        at_work.fetch_sub(1, Ordering::SeqCst);
        handled.fetch_add(batch.records().len(), Ordering::SeqCst);
        Ok(())
    };
    let mut source = source(&stream, options().lanes(4).batch_records(1).max_threads(3));
    source.run(&handler, || handled.load(Ordering::SeqCst) == 64).unwrap();
    assert!((2..=3).contains(&most.load(Ordering::SeqCst)), "{most:?} at a time");
    assert!(threads.lock().unwrap().len() <= 3);
    assert_eq!(done_of(&stream, S0).unwrap_or(0) + done_of(&stream, S1).unwrap_or(0), 64);
    let failing = |_: &mut Batch<'_>| Err(BatchFailure::new("no"));
    stream.put("key", b"data").unwrap();
    source.close().unwrap();
    let mut source = self::source(&stream, options().retries(0));
    let error = source.run(&failing, || false).unwrap_err();
    assert!(matches!(error, Error::BatchFailed { .. }), "{error:?}");
    let closing = stream.clone();
    source.run(&|_: &mut Batch<'_>| Ok(()), || closing.clone().close().is_ok()).unwrap();
}

// ---- use ----

#[test]
fn bad_use_is_told() {
    let (_disk, _clock, stream) = simulated(builder());
    put(&stream, &["a"]);
    let consumer = consumer(&stream);
    let day = Duration::from_secs(24 * 3_600);
    for wrong in [
        options().batch_records(0),
        options().batch_records(10_001),
        options().batch_bytes(0),
        options().batch_bytes(usize::MAX),
        options().batch_window(301 * SECOND),
        options().lanes(0),
        options().lanes(11),
        options().backoff(61 * SECOND),
        options().tumbling_window(Duration::from_millis(999)),
        options().tumbling_window(Duration::from_micros(1_000_500)),
        options().tumbling_window(901 * SECOND),
        options().max_threads(0),
        options().max_threads(1_025),
        options().lease_time(Duration::from_millis(9)),
        options().lease_time(2 * day),
    ] {
        let error = consumer.event_source("w", wrong.clone()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{wrong:?}: {error:?}");
    }
    let finite = options();
    assert!(finite.retries.is_some() && finite.max_record_age.is_some(), "the defaults are finite");
    let mut source = source(&stream, options().retries(0));
    let taken = consumer.event_source("w", options()).unwrap_err();
    assert!(matches!(taken, Error::WorkerExists(_)), "{taken:?}");
    let stateful = |batch: &mut Batch<'_>| {
        let record = &batch.records()[0];
        assert!(batch.state(record).is_empty());
        batch.state_mut(record).push(1);
        Ok(())
    };
    let error = source.step(&stateful).unwrap_err();
    assert!(
        matches!(&error, Error::BatchFailed { reason, .. } if reason.contains("tumbling window")),
        "{error:?}"
    );
    assert_eq!(done_of(&stream, S0), None, "nothing is lost");
    stream.delete_consumer("c").unwrap();
    let error = drain(&mut source, &|_: &mut Batch<'_>| Ok(())).unwrap_err();
    assert!(matches!(error, Error::ConsumerNotFound(_)), "{error:?}");
}

#[test]
fn a_worker_gives_nothing_of_a_shard_that_is_paused() {
    let (_disk, clock, stream) = simulated(builder().shards(2));
    put_to(&stream, S0, "key", b"a");
    put_to(&stream, S1, "key", b"b");
    let mut worker = consumer(&stream).worker("w", WorkerOptions::new()).unwrap();
    let given = |worker: &mut Worker| {
        let work = std::iter::from_fn(|| worker.poll().unwrap());
        let shards = work.filter_map(|work| match work {
            Work::Records { shard_id, .. } => Some(shard_id),
            _ => None,
        });
        shards.collect::<Vec<_>>()
    };
    assert!(matches!(worker.poll().unwrap(), Some(Work::Started(_))));
    worker.pause(S0);
    assert_eq!(given(&mut worker), [S1]);
    assert_eq!((worker.records_behind(S0), worker.records_behind(S1)), (Some(1), Some(0)));
    clock.advance(20 * SECOND);
    assert!(given(&mut worker).is_empty() && worker.shards().contains(&S0), "its lease is renewed");
    worker.resume(S0);
    assert_eq!(given(&mut worker), [S0]);
    assert_eq!(worker.records_behind(ShardId::new(9)), None);
}
