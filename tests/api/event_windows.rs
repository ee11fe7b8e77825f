//! Tumbling windows of event sources: what they are closed with, what failures change, and that reshards and crashes take nothing from them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anabranch::limits::{KEY_STATE_OVERHEAD_BYTES, MAX_KEY_STATE_BYTES, MAX_SHARD_STATE_BYTES};
use anabranch::storage::{Access, Storage};
use anabranch::{
    Batch, BatchFailure, BatchHandler, ClosedWindow, Crash, DiskFault, Error, ErrorKind, EventSource,
    EventSourceOptions, FailedBatch, HashKey, ManualClock, Position, RecordsStart, SequenceNumber, ShardId,
    SimulatedDisk, Stream, VerifyOptions, repair, verify,
};

use crate::support::{S0, S1, builder, expire, put_at, put_to, simulated, split_undurably};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn options() -> EventSourceOptions {
    EventSourceOptions::new().tumbling_window(MINUTE).bisect_on_error(false).retries(0)
}

fn source(stream: &Stream, options: EventSourceOptions) -> EventSource {
    stream.consumer("c").unwrap().event_source("w", options).unwrap()
}

/// Strings the words of each key together; notes its calls.
#[derive(Default)]
struct Strings {
    batches: Mutex<Vec<String>>,
    closed: Mutex<Vec<ClosedWindow>>,
    /// A word at which a batch fails.
    bad: Mutex<Option<&'static str>>,
    /// How often closing a window fails.
    failing_ends: Mutex<u32>,
}

impl BatchHandler for Strings {
    fn handle(&self, batch: &mut Batch<'_>) -> Result<(), BatchFailure> {
        let words: Vec<_> = batch.records().iter().map(|record| String::from_utf8_lossy(record.data())).collect();
        self.batches.lock().unwrap().push(words.join(" "));
        let window = batch.window().unwrap();
        for record in batch.records() {
            assert!(window.start <= record.arrival() && record.arrival() < window.end);
            if self.bad.lock().unwrap().is_some_and(|bad| bad.as_bytes() == record.data()) {
                return Err(BatchFailure::at(record, "bad"));
            }
            batch.state_mut(record).extend_from_slice(record.data());
            assert!(batch.state(record).ends_with(record.data()));
        }
        Ok(())
    }

    fn close_window(&self, closed: &ClosedWindow) -> Result<(), BatchFailure> {
        let mut failing = self.failing_ends.lock().unwrap();
        if *failing > 0 {
            *failing -= 1;
            return Err(BatchFailure::new("not now"));
        }
        self.closed.lock().unwrap().push(closed.clone());
        Ok(())
    }
}

impl Strings {
    fn batches(&self) -> Vec<String> {
        std::mem::take(&mut self.batches.lock().unwrap())
    }

    /// What was closed: shard, minute, key and state.
    fn ends(&self) -> Vec<String> {
        let closed = std::mem::take(&mut *self.closed.lock().unwrap());
        let ends = closed.iter().flat_map(|closed| {
            let minute = closed.window.start.as_millis() / 60_000 % 60;
            let mark = if closed.is_early { " early" } else { "" };
            let shard = closed.shard_id.get();
            closed.states.iter().map(move |state| {
                let text =
                    if state.state.len() > 99 { "long".into() } else { String::from_utf8_lossy(&state.state) };
                format!("{shard}: {minute} {}={text}{mark}", state.partition_key)
            })
        });
        ends.collect()
    }
}

fn drain(source: &mut EventSource, handler: &Strings) -> anabranch::Result<()> {
    while source.step(handler)? > 0 {}
    Ok(())
}

fn position(stream: &Stream, shard_id: ShardId) -> Position {
    stream.consumer("c").unwrap().checkpoint(shard_id).unwrap().position
}

fn reopened(disk: &SimulatedDisk, clock: &Arc<ManualClock>, crash: Crash) -> (SimulatedDisk, Stream) {
    let disk = disk.crash(crash);
    let stream = builder().storage(Arc::new(disk.clone())).clock(clock.clone()).open_existing("stream").unwrap();
    (disk, stream)
}

/// The files of open windows.
fn files(disk: &SimulatedDisk) -> Vec<String> {
    let listed = disk.list("stream/consumers".as_ref()).unwrap();
    let mut names: Vec<_> =
        listed.into_iter().map(|entry| entry.name).filter(|name| name.contains("~~")).collect();
    names.sort_unstable();
    names
}

// ---- in one shard ----

#[test]
fn a_window_is_closed_by_a_later_record_or_at_the_tail_a_second_after_its_end() {
    let (_disk, clock, stream) = simulated(builder());
    let (handler, mut source) = (Strings::default(), source(&stream, options()));
    put_to(&stream, S0, "a", b"1");
    put_to(&stream, S0, "b", b"2");
    drain(&mut source, &handler).unwrap();
    clock.advance(59 * SECOND);
    put_to(&stream, S0, "a", b"3");
    clock.advance(SECOND);
    put_to(&stream, S0, "a", b"4");
    drain(&mut source, &handler).unwrap();
    assert_eq!(handler.batches(), ["1 2", "3", "4"], "no batch is of two windows");
    assert_eq!(handler.ends(), ["0: 0 a=13", "0: 0 b=2"]);
    assert!(matches!(position(&stream, S0), Position::After(at) if at.sequence_number.get() == 2));
    clock.advance(60 * SECOND);
    drain(&mut source, &handler).unwrap();
    assert!(handler.ends().is_empty(), "its records may be on their way");
    clock.advance(SECOND);
    drain(&mut source, &handler).unwrap();
    assert_eq!(handler.ends(), ["0: 1 a=4"]);
    assert!(matches!(position(&stream, S0), Position::After(at) if at.sequence_number.get() == 3));
    clock.advance(10 * MINUTE);
    drain(&mut source, &handler).unwrap();
    assert!(handler.ends().is_empty() && handler.batches().is_empty(), "once");
}

#[test]
fn a_record_that_comes_late_closes_its_window_again() {
    let (_disk, clock, stream) = simulated(builder());
    let (handler, mut source) = (Strings::default(), source(&stream, options()));
    let start = anabranch::Clock::now(clock.as_ref());
    put_to(&stream, S0, "a", b"1");
    clock.advance(62 * SECOND);
    drain(&mut source, &handler).unwrap();
    assert_eq!(handler.ends(), ["0: 0 a=1"]);
    clock.set(start);
    put_to(&stream, S0, "a", b"2");
    clock.advance(62 * SECOND);
    drain(&mut source, &handler).unwrap();
    assert_eq!(handler.ends(), ["0: 0 a=2"]);
    assert!(matches!(position(&stream, S0), Position::After(at) if at.sequence_number.get() == 1));
}

#[test]
fn what_failed_changes_nothing_and_what_stands_before_it_counts() {
    let (_disk, clock, stream) = simulated(builder());
    let handler = Strings { bad: Mutex::new(Some("x")), ..Strings::default() };
    let options = options().retries(2).backoff(Duration::ZERO);
    let mut source = source(&stream, options).on_failure(|_: &FailedBatch| Ok(()));
    for data in ["1", "2", "x", "4"] {
        put_to(&stream, S0, "a", data.as_bytes());
    }
    source.step(&handler).unwrap();
    *handler.bad.lock().unwrap() = None;
    drain(&mut source, &handler).unwrap();
    assert_eq!(handler.batches(), ["1 2 x 4", "x 4"]);
    *handler.bad.lock().unwrap() = Some("y");
    put_to(&stream, S0, "a", b"y");
    put_to(&stream, S0, "a", b"6");
    drain(&mut source, &handler).unwrap();
    assert_eq!(handler.batches(), ["y 6", "y 6", "y 6"], "given up");
    clock.advance(2 * MINUTE);
    drain(&mut source, &handler).unwrap();
    assert_eq!(handler.ends(), ["0: 0 a=12x4"]);
}

/// It says that only the second failed, and changed the state on account of the third.
#[test]
fn a_failure_below_what_was_changed_is_one_of_the_whole_batch() {
    struct Careless(Strings);
    impl BatchHandler for Careless {
        fn handle(&self, batch: &mut Batch<'_>) -> Result<(), BatchFailure> {
            self.0.handle(batch)?;
            let [_, second, _] = batch.records() else { return Ok(()) };
            if batch.attempt() == 1 { Err(BatchFailure::at(second, "late")) } else { Ok(()) }
        }
        fn close_window(&self, closed: &ClosedWindow) -> Result<(), BatchFailure> {
            self.0.close_window(closed)
        }
    }
    let (_disk, clock, stream) = simulated(builder());
    let mut source = source(&stream, options().retries(1).backoff(Duration::ZERO));
    let handler = Careless(Strings::default());
    for data in ["1", "2", "3"] {
        put_to(&stream, S0, "a", data.as_bytes());
    }
    while source.step(&handler).unwrap() > 0 {}
    clock.advance(2 * MINUTE);
    while source.step(&handler).unwrap() > 0 {}
    assert_eq!(handler.0.batches(), ["1 2 3", "1 2 3"]);
    assert_eq!(handler.0.ends(), ["0: 0 a=123"]);
}

#[test]
fn the_checkpoint_stays_before_an_open_window_and_a_crash_makes_its_state_anew() {
    let (disk, clock, stream) = simulated(builder());
    let (handler, mut before) = (Strings::default(), source(&stream, options()));
    for (data, pause) in [("1", 30), ("2", 40), ("3", 10), ("4", 0)] {
        put_to(&stream, S0, "a", data.as_bytes());
        clock.advance(pause * SECOND);
        drain(&mut before, &handler).unwrap();
    }
    assert_eq!(handler.ends(), ["0: 0 a=12"]);
    assert!(matches!(position(&stream, S0), Position::After(at) if at.sequence_number.get() == 1));
    drop((before, stream));
    let (_disk, stream) = reopened(&disk, &clock, Crash::PowerLost { seed: 3 });
    handler.batches();
    let mut after = source(&stream, options());
    clock.advance(2 * MINUTE);
    drain(&mut after, &handler).unwrap();
    assert_eq!(handler.batches(), ["3 4"]);
    assert_eq!(handler.ends(), ["0: 1 a=34"], "each once");
}

type Told = Arc<Mutex<Vec<FailedBatch>>>;

/// A destination, and what it was told.
fn notes() -> (Told, impl Fn(&FailedBatch) -> Result<(), BatchFailure> + Send + Sync) {
    let told = Told::default();
    let note = Arc::clone(&told);
    let destination = move |failed: &FailedBatch| {
        note.lock().unwrap().push(failed.clone());
        Ok(())
    };
    (told, destination)
}

#[test]
fn an_end_that_fails_is_tried_again_and_given_up_with_the_places_of_its_records() {
    let (_disk, clock, stream) = simulated(builder());
    let (told, destination) = notes();
    let options = options().retries(1).backoff(SECOND);
    let mut source = source(&stream, options).on_failure(destination);
    let handler = Strings { failing_ends: Mutex::new(1), ..Strings::default() };
    for (key, data) in [("a", "1"), ("b", "2"), ("a", "3")] {
        put_to(&stream, S0, key, data.as_bytes());
    }
    clock.advance(2 * MINUTE);
    drain(&mut source, &handler).unwrap();
    put_to(&stream, S0, "a", b"4");
    clock.advance(SECOND);
    drain(&mut source, &handler).unwrap();
    assert_eq!(handler.ends(), ["0: 0 a=13", "0: 0 b=2"]);
    *handler.failing_ends.lock().unwrap() = 2;
    clock.advance(2 * MINUTE);
    drain(&mut source, &handler).unwrap();
    clock.advance(2 * SECOND);
    drain(&mut source, &handler).unwrap();
    let told = told.lock().unwrap();
    let [failed] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((failed.batch_size, failed.attempts, failed.reason.as_str()), (1, 2, "not now"));
    assert_eq!(failed.window.map(|window| window.end.as_millis() - window.start.as_millis()), Some(60_000));
    assert_eq!(failed.records(&stream).unwrap()[0].data(), b"4");
    put_to(&stream, S0, "a", b"of a later window");
    let mut forged = failed.clone();
    (forged.last_sequence_number, forged.batch_size) = (SequenceNumber::new(u64::MAX), 100);
    assert_eq!(forged.records(&stream).unwrap().len(), 1);
    assert_eq!(FailedBatch::from_bytes(failed.to_json().as_bytes()).unwrap(), *failed);
    assert!(matches!(position(&stream, S0), Position::After(at) if at.sequence_number.get() == 3));
}

/// A batch in the middle of a window was given up: it is among the records of the window, which all can be read again.
#[test]
fn the_records_of_a_window_are_all_from_its_first_to_its_last() {
    let (_disk, clock, stream) = simulated(builder());
    let (told, destination) = notes();
    let mut source = source(&stream, options().batch_records(2)).on_failure(destination);
    let handler = Strings { bad: Mutex::new(Some("2")), failing_ends: Mutex::new(1), ..Strings::default() };
    for data in ["0", "1", "2", "3", "4", "5"] {
        put_to(&stream, S0, "a", data.as_bytes());
    }
    drain(&mut source, &handler).unwrap();
    assert_eq!(handler.batches(), ["0 1", "2 3", "4 5"]);
    clock.advance(2 * MINUTE);
    drain(&mut source, &handler).unwrap();
    let told = told.lock().unwrap();
    let [batch, window] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((batch.batch_size, window.batch_size), (2, 6));
    let records = window.records(&stream).unwrap();
    let data: Vec<_> = records.iter().map(|record| String::from_utf8_lossy(record.data())).collect();
    assert_eq!(data, ["0", "1", "2", "3", "4", "5"]);
}

#[test]
fn states_that_grow_too_large_are_given_to_an_early_call() {
    let (_disk, clock, stream) = simulated(builder());
    let (handler, mut source) = (Strings::default(), source(&stream, options()));
    put_to(&stream, S0, "small", b"1");
    for _ in 0..2 {
        put_to(&stream, S0, "large", &vec![b'x'; MAX_KEY_STATE_BYTES / 2 + 1]);
    }
    put_to(&stream, S0, "small", b"2");
    drain(&mut source, &handler).unwrap();
    assert_eq!(handler.ends(), ["0: 0 large=long early"]);
    put_to(&stream, S0, "large", b"3");
    clock.advance(2 * MINUTE);
    drain(&mut source, &handler).unwrap();
    let mut ends = handler.ends();
    ends.sort_unstable();
    assert_eq!(ends, ["0: 0 large=3", "0: 0 small=12"]);

    let state = MAX_KEY_STATE_BYTES;
    let keys = MAX_SHARD_STATE_BYTES / (KEY_STATE_OVERHEAD_BYTES + "key 00".len() + state) + 1;
    for key in 0..keys {
        put_to(&stream, S0, &format!("key {key:02}"), &vec![b'x'; state]);
        drain(&mut source, &handler).unwrap();
        let early = handler.ends().iter().filter(|end| end.ends_with("early")).count();
        assert_eq!(early, if key + 1 == keys { keys } else { 0 }, "key {key}: all of the shard's, at its bound");
    }
}

#[test]
fn a_state_has_the_hash_key_of_its_records() {
    let (_disk, clock, stream) = simulated(builder());
    let (handler, mut source) = (Strings::default(), source(&stream, options()));
    for (hash_key, data) in [(1, "1"), (u128::MAX, "2"), (1, "3")] {
        put_at(&stream, HashKey::new(hash_key), "a", data.as_bytes());
    }
    clock.advance(2 * MINUTE);
    drain(&mut source, &handler).unwrap();
    assert_eq!(handler.ends(), ["0: 0 a=13", "0: 0 a=2"]);
}

// ---- through reshards ----

#[test]
fn states_go_to_the_children_that_take_their_keys() {
    for lanes in [1, 3] {
        let (disk, clock, stream) = simulated(builder());
        let (handler, mut source) = (Strings::default(), source(&stream, options().lanes(lanes)));
        for (hash_key, key, data) in [(1, "low", "1"), (u128::MAX, "high", "2")] {
            put_at(&stream, HashKey::new(hash_key), key, data.as_bytes());
        }
        drain(&mut source, &handler).unwrap();
        let (left, right) = stream.split_shard(S0, None).unwrap();
        drain(&mut source, &handler).unwrap();
        assert_eq!(position(&stream, S0), Position::ShardEnd, "the children do not wait for the window");
        assert_eq!(files(&disk).len(), 2);
        put_at(&stream, HashKey::new(1), "low", b"3");
        put_at(&stream, HashKey::new(u128::MAX), "high", b"4");
        drain(&mut source, &handler).unwrap();
        assert_eq!(
            (position(&stream, left), position(&stream, right)),
            (Position::TrimHorizon, Position::TrimHorizon)
        );
        let merged = stream.merge_shards(left, right).unwrap();
        drain(&mut source, &handler).unwrap();
        assert_eq!(files(&disk), [1, 2].map(|parent| format!("~c~~000000000003~{parent:012}")));
        put_at(&stream, HashKey::new(1), "low", b"5");
        drain(&mut source, &handler).unwrap();
        assert!(handler.ends().is_empty());
        clock.advance(2 * MINUTE);
        drain(&mut source, &handler).unwrap();
        let mut ends = handler.ends();
        ends.sort_unstable();
        assert_eq!(ends, ["3: 0 high=24", "3: 0 low=135"]);
        assert!(files(&disk).is_empty(), "what is done is removed");
        assert!(matches!(position(&stream, merged), Position::After(_)));
    }
}

/// In the same process another source takes the children; after a crash, another life.
#[test]
fn another_worker_and_a_later_life_go_on_with_what_a_shard_left() {
    for crash in [None, Some(Crash::ProcessKilled), Some(Crash::PowerLost { seed: 5 })] {
        let (disk, clock, stream) = simulated(builder());
        let (handler, mut first) = (Strings::default(), source(&stream, options()));
        put_at(&stream, HashKey::new(1), "a", b"1");
        drain(&mut first, &handler).unwrap();
        stream.split_shard(S0, None).unwrap();
        put_at(&stream, HashKey::new(1), "a", b"2");
        drain(&mut first, &handler).unwrap();
        let (disk, stream) = match crash {
            None => {
                first.close().unwrap();
                (disk, stream)
            }
            Some(crash) => {
                drop((first, stream));
                reopened(&disk, &clock, crash)
            }
        };
        handler.batches();
        let mut second = source(&stream, options());
        drain(&mut second, &handler).unwrap();
        assert_eq!(handler.batches(), ["2"], "the parent's record does not come again");
        clock.advance(2 * MINUTE);
        drain(&mut second, &handler).unwrap();
        assert_eq!(handler.ends(), ["1: 0 a=12"]);
        assert!(files(&disk).is_empty());
    }
}

/// The parent ended under longer windows: they are the child's beside its own, which are over first.
#[test]
fn windows_of_another_length_keep_no_shard_from_its_end() {
    let (_disk, clock, stream) = simulated(builder());
    let (handler, mut first) = (Strings::default(), source(&stream, options().tumbling_window(15 * MINUTE)));
    put_at(&stream, HashKey::new(1), "a", b"1");
    drain(&mut first, &handler).unwrap();
    let (left, _) = stream.split_shard(S0, None).unwrap();
    drain(&mut first, &handler).unwrap();
    first.close().unwrap();
    let mut second = source(&stream, options());
    clock.advance(MINUTE);
    put_at(&stream, HashKey::new(1), "a", b"2");
    clock.advance(MINUTE);
    put_at(&stream, HashKey::new(1), "a", b"3");
    stream.split_shard(left, None).unwrap();
    drain(&mut second, &handler).unwrap();
    assert_eq!(handler.ends(), ["1: 1 a=2"]);
    assert_eq!(position(&stream, left), Position::ShardEnd);
    clock.advance(20 * MINUTE);
    drain(&mut second, &handler).unwrap();
    let mut ends = handler.ends();
    ends.sort_unstable();
    assert_eq!(ends, ["3: 0 a=1", "3: 2 a=3"]);
}

#[test]
fn a_reset_behind_inherited_windows_takes_them_away() {
    let (disk, clock, stream) = simulated(builder());
    let (handler, mut source) = (Strings::default(), source(&stream, options()));
    put_at(&stream, HashKey::new(1), "a", b"1");
    drain(&mut source, &handler).unwrap();
    stream.split_shard(S0, None).unwrap();
    drain(&mut source, &handler).unwrap();
    let consumer = stream.consumer("c").unwrap();
    consumer.reset(RecordsStart::TrimHorizon).unwrap();
    assert_eq!(files(&disk).len(), 1);
    consumer.reset(RecordsStart::Latest).unwrap();
    assert!(files(&disk).is_empty());
    clock.advance(10 * MINUTE);
    drain(&mut source, &handler).unwrap();
    assert!(handler.ends().is_empty());
}

/// It may have put shards at their start before it took the windows away.
#[test]
fn a_reset_that_was_cut_short_is_ended_by_the_next() {
    for nth in 0.. {
        let (disk, clock, stream) = simulated(builder());
        let (handler, mut source) = (Strings::default(), source(&stream, options()));
        put_at(&stream, HashKey::new(1), "a", b"1");
        drain(&mut source, &handler).unwrap();
        stream.split_shard(S0, None).unwrap();
        drain(&mut source, &handler).unwrap();
        assert_eq!(files(&disk).len(), 1);
        let consumer = stream.consumer("c").unwrap();
        let start = RecordsStart::AtTimestamp(anabranch::Clock::now(clock.as_ref()));
        disk.fail_at(nth, DiskFault::Error(std::io::ErrorKind::Other));
        if consumer.reset(start).is_ok() {
            assert!(nth > 8, "it failed nowhere");
            break;
        }
        consumer.reset(start).unwrap();
        for seed in 0..16 {
            assert!(files(&disk.fork(Crash::PowerLost { seed })).is_empty(), "{nth}, {seed}");
        }
    }
}

/// It leaves its windows to the children first, durably, and with them that these are its children.
#[test]
fn an_event_source_stores_no_end_that_a_power_cut_may_undo() {
    let mut undone = 0;
    for seed in 0..16 {
        let (disk, clock, writer) = simulated(builder());
        writer.consumer("c").unwrap();
        writer.put("a", b"1").unwrap();
        let reader = builder().storage(Arc::new(disk.clone())).clock(clock.clone());
        let mut beside = source(&reader.open_read_only("stream").unwrap(), options());
        split_undurably(&disk, &writer, std::io::ErrorKind::PermissionDenied);
        assert!(matches!(drain(&mut beside, &Strings::default()), Err(Error::Io { .. })));
        let (_disk, stream) = reopened(&disk, &clock, Crash::PowerLost { seed });
        undone += u32::from(stream.shards().len() == 1);
        let (handler, mut source) = (Strings::default(), source(&stream, options()));
        for word in [b"2", b"3"] {
            stream.put("a", word).unwrap();
            drain(&mut source, &handler).unwrap();
            stream.split_shard(stream.route("a").unwrap(), None).unwrap();
        }
        drain(&mut source, &handler).unwrap();
        clock.advance(MINUTE + 2 * SECOND);
        drain(&mut source, &handler).unwrap();
        let ends = handler.ends();
        assert!(ends.len() == 1 && ends[0].ends_with("a=123"), "seed {seed}: {ends:?}");
    }
    assert!((1..16).contains(&undone), "{undone}");
}

/// What a shard leaves to its children cannot be written: the others go on.
#[test]
fn a_shard_that_cannot_be_finished_keeps_no_other_waiting() {
    let (disk, _clock, stream) = simulated(builder().shards(2));
    let (handler, mut source) = (Strings::default(), source(&stream, options()));
    put_to(&stream, S0, "a", b"1");
    drain(&mut source, &handler).unwrap();
    stream.split_shard(S0, None).unwrap();
    disk.create_dir("stream/consumers/~new".as_ref()).unwrap();
    assert!(source.step(&handler).is_err());
    put_to(&stream, S1, "b", b"2");
    handler.batches();
    for _ in 0..3 {
        let _ = source.step(&handler); // it is told every other time
    }
    assert_eq!(handler.batches(), ["2"]);
    assert_ne!(position(&stream, S0), Position::ShardEnd);
}

/// Has the first shard expire when a window is closed, with records of the next one to be handled.
struct Expires<'a>(&'a Strings, &'a ManualClock, &'a Stream);

impl BatchHandler for Expires<'_> {
    fn handle(&self, batch: &mut Batch<'_>) -> Result<(), BatchFailure> {
        self.0.handle(batch)
    }

    fn close_window(&self, closed: &ClosedWindow) -> Result<(), BatchFailure> {
        if closed.shard_id == S0 {
            expire(self.1, self.2, 20 * MINUTE);
        }
        self.0.close_window(closed)
    }
}

/// A shard with two windows that was split, and that expires when the first is closed.
fn two_windows() -> (SimulatedDisk, Arc<ManualClock>, Stream, EventSource) {
    let (disk, clock, stream) = simulated(builder().retention(15 * MINUTE));
    put_at(&stream, HashKey::new(1), "a", b"0");
    clock.advance(MINUTE);
    put_at(&stream, HashKey::new(1), "a", b"1");
    put_at(&stream, HashKey::new(1), "a", b"2");
    stream.split_shard(S0, None).unwrap();
    let source = source(&stream, options().batch_records(3));
    (disk, clock, stream, source)
}

#[test]
fn a_shard_that_expires_behind_its_end_leaves_its_windows_to_its_children() {
    let (_disk, clock, stream, mut source) = two_windows();
    let handler = Strings::default();
    while source.step(&Expires(&handler, &clock, &stream)).unwrap() > 0 {}
    assert!(stream.shards().iter().all(|shard| shard.shard_id != S0));
    put_at(&stream, HashKey::new(1), "a", b"3");
    clock.advance(2 * MINUTE);
    drain(&mut source, &handler).unwrap();
    assert_eq!(handler.batches(), ["0", "1 2", "3"]);
    assert_eq!(handler.ends(), ["0: 0 a=0", "1: 1 a=12", "1: 1 a=3"], "the last one an hour later");
}

/// Be it while a batch is handled: then the worker is told where it would leave something to the children.
#[test]
fn a_reset_behind_the_windows_of_a_shard_that_expired_takes_them_away() {
    for is_in_a_call in [false, true] {
        let (disk, clock, stream, mut source) = two_windows();
        let (handler, consumer) = (Strings::default(), stream.consumer("c").unwrap());
        while stream.shards().iter().any(|shard| shard.shard_id == S0) {
            source.step(&Expires(&handler, &clock, &stream)).unwrap();
        }
        assert_eq!(source.shards(), [S0]);
        let reset = || consumer.reset(RecordsStart::AtTimestamp(anabranch::Clock::now(clock.as_ref()))).unwrap();
        if is_in_a_call {
            let resets = |batch: &mut Batch<'_>| {
                reset();
                handler.handle(batch)
            };
            source.step(&resets).unwrap();
            assert_eq!(handler.batches(), ["0", "1 2"]);
        } else {
            reset();
        }
        drain(&mut source, &handler).unwrap();
        assert!(files(&disk).is_empty());
        put_at(&stream, HashKey::new(1), "a", b"3");
        drain(&mut source, &handler).unwrap();
        clock.advance(2 * MINUTE);
        drain(&mut source, &handler).unwrap();
        assert_eq!(handler.ends(), ["0: 0 a=0", "1: 1 a=3"], "{is_in_a_call}");
    }
}

/// The clock is far past the window when its shard is read to its end: its children may have more of it.
#[test]
fn a_window_at_the_end_of_a_shard_is_the_childrens_however_late_it_is() {
    let (_disk, clock, stream) = simulated(builder());
    put_at(&stream, HashKey::new(1), "a", b"1");
    let (left, _) = stream.split_shard(S0, None).unwrap();
    put_at(&stream, HashKey::new(1), "a", b"2");
    stream.split_shard(left, None).unwrap();
    put_at(&stream, HashKey::new(1), "a", b"3");
    clock.advance(10 * MINUTE);
    let (handler, mut source) = (Strings::default(), source(&stream, options()));
    drain(&mut source, &handler).unwrap();
    assert_eq!(handler.ends(), ["3: 0 a=123"]);
}

/// A crash comes between the child's checkpoint, behind the window that it inherited, and the removal of the file.
#[test]
fn a_file_that_a_crash_left_is_not_taken_for_what_is_open() {
    let (disk, clock, stream) = simulated(builder());
    let (handler, mut before) = (Strings::default(), source(&stream, options()));
    put_at(&stream, HashKey::new(1), "a", b"1");
    stream.split_shard(S0, None).unwrap();
    put_at(&stream, HashKey::new(1), "a", b"2");
    drain(&mut before, &handler).unwrap();
    let name = files(&disk).remove(0);
    let path = format!("stream/consumers/{name}");
    let kept = {
        let file = disk.open_file(path.as_ref(), Access::Read).unwrap();
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_at(&mut bytes, 0).unwrap();
        bytes
    };
    clock.advance(2 * MINUTE);
    drain(&mut before, &handler).unwrap();
    assert_eq!(handler.ends(), ["1: 0 a=12"]);
    assert!(files(&disk).is_empty());
    before.close().unwrap();
    disk.create_file(path.as_ref()).unwrap().write_at(&kept, 0).unwrap();
    let mut after = source(&stream, options());
    drain(&mut after, &handler).unwrap();
    assert!(handler.ends().is_empty() && files(&disk).is_empty());
}

/// A crash comes between a shard's end and the removal of the file that it inherited.
#[test]
fn a_file_of_a_shard_that_is_finished_is_removed() {
    let (disk, _clock, stream) = simulated(builder());
    let (handler, mut before) = (Strings::default(), source(&stream, options()));
    put_at(&stream, HashKey::new(1), "a", b"1");
    let (left, _) = stream.split_shard(S0, None).unwrap();
    drain(&mut before, &handler).unwrap();
    let path = format!("stream/consumers/{}", files(&disk).remove(0));
    let kept = disk.read_file(path.as_ref()).unwrap();
    stream.split_shard(left, None).unwrap();
    drain(&mut before, &handler).unwrap();
    assert_eq!(position(&stream, left), Position::ShardEnd);
    before.close().unwrap();
    disk.create_file(path.as_ref()).unwrap().write_at(&kept, 0).unwrap();
    assert_eq!(files(&disk).len(), 2);
    let after = source(&stream, options());
    assert_eq!(files(&disk).len(), 1, "what its child got is there");
    drop(after);
}

/// The next window has begun and nothing of it is done: the checkpoint is behind the inherited one all the same, before the file goes.
#[test]
fn what_was_inherited_is_behind_the_checkpoint_when_its_file_goes() {
    let (disk, clock, stream) = simulated(builder());
    let handler = Strings { bad: Mutex::new(Some("x")), ..Strings::default() };
    let options = options().retries(None).backoff(MINUTE);
    let mut before = source(&stream, options);
    put_at(&stream, HashKey::new(1), "a", b"1");
    stream.split_shard(S0, None).unwrap();
    put_at(&stream, HashKey::new(1), "a", b"2");
    clock.advance(MINUTE);
    put_at(&stream, HashKey::new(1), "a", b"x");
    drain(&mut before, &handler).unwrap();
    assert_eq!(handler.ends(), ["1: 0 a=12"]);
    assert!(files(&disk).is_empty());
    assert!(matches!(position(&stream, S1), Position::After(at) if at.sequence_number.get() == 1));
    *handler.bad.lock().unwrap() = None;
    drop((before, stream));
    let (_disk, stream) = reopened(&disk, &clock, Crash::PowerLost { seed: 7 });
    clock.advance(2 * MINUTE);
    drain(&mut source(&stream, self::options()), &handler).unwrap();
    assert_eq!(handler.ends(), ["1: 1 a=x"]);
}

#[test]
fn a_child_without_records_closes_what_it_inherited_once() {
    let (disk, clock, stream) = simulated(builder());
    let (handler, mut before) = (Strings::default(), source(&stream, options()));
    put_at(&stream, HashKey::new(1), "a", b"1");
    stream.split_shard(S0, None).unwrap();
    drain(&mut before, &handler).unwrap();
    clock.advance(2 * MINUTE);
    drain(&mut before, &handler).unwrap();
    assert_eq!(handler.ends(), ["1: 0 a=1"]);
    drop((before, stream));
    let (_disk, stream) = reopened(&disk, &clock, Crash::PowerLost { seed: 1 });
    let mut after = source(&stream, options());
    drain(&mut after, &handler).unwrap();
    assert!(handler.ends().is_empty());
}

#[test]
fn other_options_and_other_consumers_of_the_name() {
    let (disk, clock, stream) = simulated(builder());
    let handler = Strings::default();
    let begin = |options| source(&stream, options);
    let mut minutes = begin(options());
    put_at(&stream, HashKey::new(1), "a", b"1");
    stream.split_shard(S0, None).unwrap();
    drain(&mut minutes, &handler).unwrap();
    minutes.close().unwrap();
    put_at(&stream, HashKey::new(1), "a", b"2");
    let mut seconds = begin(options().tumbling_window(10 * SECOND).lanes(2));
    drain(&mut seconds, &handler).unwrap();
    clock.advance(2 * MINUTE);
    drain(&mut seconds, &handler).unwrap();
    let mut ends = handler.ends();
    ends.sort_unstable();
    assert_eq!(ends, ["1: 0 a=1", "1: 0 a=2"], "each window as it was opened");
    seconds.close().unwrap();

    put_at(&stream, HashKey::new(1), "a", b"3");
    stream.split_shard(S1, None).unwrap();
    let mut minutes = begin(options());
    drain(&mut minutes, &handler).unwrap();
    drop(minutes);
    let left = files(&disk);
    assert!(!left.is_empty());
    stream.delete_consumer("c").unwrap();
    assert!(files(&disk).is_empty(), "they go with their consumer");
}

#[test]
fn what_an_earlier_consumer_of_the_name_left_is_not_taken() {
    let (disk, clock, stream) = simulated(builder());
    let handler = Strings::default();
    let mut before = source(&stream, options());
    put_at(&stream, HashKey::new(1), "a", b"1");
    stream.split_shard(S0, None).unwrap();
    drain(&mut before, &handler).unwrap();
    drop(before);
    let path = format!("stream/consumers/{}", files(&disk)[0]);
    let aside = "stream/consumers/~aside";
    disk.rename(path.as_ref(), aside.as_ref()).unwrap();
    stream.delete_consumer("c").unwrap();
    let consumer = stream.consumer("c").unwrap();
    let lease = consumer.take(S0, "w").unwrap();
    lease.checkpoint_end().unwrap(); // so that the children are begun at once
    lease.release().unwrap();
    disk.rename(aside.as_ref(), path.as_ref()).unwrap();
    let mut after = source(&stream, options());
    clock.advance(2 * MINUTE);
    drain(&mut after, &handler).unwrap();
    assert!(handler.ends().is_empty());
}

#[test]
fn a_damaged_file_is_told_and_a_repair_sets_it_aside() {
    let (disk, clock, stream) = simulated(builder());
    let (handler, mut before) = (Strings::default(), source(&stream, options()));
    put_at(&stream, HashKey::new(1), "a", b"1");
    stream.split_shard(S0, None).unwrap();
    drain(&mut before, &handler).unwrap();
    before.close().unwrap();
    let path = format!("stream/consumers/{}", files(&disk)[0]);
    disk.open_file(path.as_ref(), Access::Write).unwrap().write_at(b"x", 70).unwrap();
    let mut after = source(&stream, options());
    for _ in 0..2 {
        let error = drain(&mut after, &handler).unwrap_err();
        let Error::Corrupt(damage) = &error else { panic!("{error:?}") };
        assert!(damage.path.ends_with(&path), "{damage:?}");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
    drop(after);
    stream.close().unwrap();
    let storage = || Some(Arc::new(disk.clone()) as Arc<dyn Storage>);
    let check =
        || verify("stream", VerifyOptions { storage: storage(), ..VerifyOptions::default() }).unwrap().damage;
    assert_eq!(check().len(), 1);
    repair("stream", storage()).unwrap();
    assert!(check().is_empty());
    let stream = builder().storage(Arc::new(disk.clone())).clock(clock.clone()).open_existing("stream").unwrap();
    put_at(&stream, HashKey::new(1), "a", b"2");
    clock.advance(2 * MINUTE);
    drain(&mut source(&stream, options()), &handler).unwrap();
    assert_eq!(handler.ends(), ["1: 0 a=2"], "what it held is gone, the rest goes on");
}

/// Whatever is cut where, the ends of all windows together hold each record once.
#[test]
fn windows_of_many_keys_add_up() {
    let (_disk, clock, stream) = simulated(builder().shards(2));
    let (handler, mut source) = (Strings::default(), source(&stream, options().lanes(3).batch_records(3)));
    let mut expected: BTreeMap<String, String> = BTreeMap::new();
    for n in 0..200_u32 {
        let (key, minute) = (format!("key {}", n % 7), n / 20);
        let word = format!("{n}.");
        stream.put(&key, &word).unwrap();
        expected.entry(format!("{minute} {key}")).or_default().push_str(&word);
        clock.advance(3 * SECOND);
        if n % 50 == 25 {
            stream.split_shard(stream.open_shards()[0], None).unwrap();
        }
        if n % 3 == 0 {
            source.step(&handler).unwrap();
        }
    }
    clock.advance(2 * MINUTE);
    drain(&mut source, &handler).unwrap();
    let mut found = BTreeMap::new();
    for end in handler.ends() {
        let (_, end) = end.split_once(": ").unwrap();
        let (place, state) = end.split_once('=').unwrap();
        assert!(found.insert(place.to_owned(), state.to_owned()).is_none(), "{place} twice");
    }
    assert_eq!(found, expected);
}
