//! The crate's own code under chosen schedules: publishing, group commit, rolls, waiting readers, staging and draining.
//!
//! `shuttle` decides which thread goes on at every lock, condition and atomic; a deadlock (a wake-up that is lost) fails at once.
//! Each model counts the interleavings that it is about and fails if one was never reached. Each has a twin in which a mistake
//! is planted ([`Mistake`]) that the same model must find.
//!
//! ```text
//! RUSTFLAGS="--cfg shuttle" cargo test --release --test concurrency
//! ```
//!
//! Without that flag there is nothing here. `ANABRANCH_SCHEDULES` says how many schedules each model runs. Shuttle's atomics are
//! sequentially consistent: weaker orders are what `.ci/sanitizers` looks at.
#![cfg(shuttle)]
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex as StdMutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anabranch::storage::{Operation, Storage};
use anabranch::sync::{Mistake, plant};
use anabranch::{
    Crash, DiskFault, Durability, Error, ErrorKind, ManualClock, PutOptions, RetentionPeriod, ShardId,
    ShardIteratorType, SimulatedDisk, Stream,
};
use shuttle::thread;

const SHARD: ShardId = ShardId::new(0);

/// How often each interesting interleaving was reached, over all schedules of a model.
#[derive(Debug, Default, Clone)]
struct Reached(Arc<StdMutex<BTreeMap<&'static str, u64>>>);

impl Reached {
    fn count(&self, what: &'static str, happened: bool) {
        *self.0.lock().unwrap().entry(what).or_default() += u64::from(happened);
    }

    fn demand(&self, model: &str, schedules: usize) {
        let counts = self.0.lock().unwrap();
        println!("{model}: {schedules} schedules at random, as many by priority; {counts:?}");
        assert!(!counts.is_empty() && counts.values().all(|count| *count > 0), "never reached: {counts:?}");
    }
}

fn schedules() -> usize {
    std::env::var("ANABRANCH_SCHEDULES").map_or(2_000, |text| text.parse().unwrap())
}

/// One at a time: planted mistakes are everybody's.
static TURN: StdMutex<()> = StdMutex::new(());

/// Runs a model under many schedules, and then its twins, each of which has to fail.
fn check(name: &str, model: fn(&Reached), mistakes: &[Mistake]) {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    plant(None);
    let reached = Reached::default();
    explore(model, &reached, schedules());
    reached.demand(name, schedules());
    for mistake in mistakes {
        plant(Some(*mistake));
        // It ends with the first schedule that fails, so that it may look again and again: chance is not to decide.
        let look = || (0..20).for_each(|_| explore(model, &Reached::default(), schedules()));
        let outcome = catch_unwind(AssertUnwindSafe(look));
        plant(None);
        assert!(outcome.is_err(), "{name} does not find {mistake:?}");
        println!("{name}: found the planted {mistake:?}");
    }
}

fn explore(model: fn(&Reached), reached: &Reached, schedules: usize) {
    let (random, by_priority) = (reached.clone(), reached.clone());
    shuttle::check_random(move || model(&random), schedules);
    shuttle::check_pct(move || model(&by_priority), schedules, 3);
}

fn make(durability: Durability) -> (SimulatedDisk, Stream) {
    let disk = SimulatedDisk::new();
    let stream = builder(&disk)
        .segment_bytes(4096)
        .durability(durability)
        .retention(RetentionPeriod::Unlimited)
        .create("s")
        .unwrap();
    (disk, stream)
}

fn builder(disk: &SimulatedDisk) -> anabranch::StreamBuilder {
    Stream::builder().storage(Arc::new(disk.clone())).clock(Arc::new(ManualClock::default())).background(false)
}

/// All data of a shard that is there now.
fn read(stream: &Stream) -> Vec<Vec<u8>> {
    let mut iterator = stream.shard_iterator(SHARD, ShardIteratorType::TrimHorizon).unwrap();
    let first = iterator.next_sequence_number().get();
    let records = iterator.available().map(Result::unwrap);
    let numbered = (first..).zip(records).map(|(number, record)| {
        assert_eq!(record.sequence_number().get(), number, "a gap");
        record.data().to_vec()
    });
    numbered.collect()
}

/// What the shard holds after the power went now.
fn after_power_loss(disk: &SimulatedDisk, seed: u64) -> Vec<Vec<u8>> {
    let left = disk.fork(Crash::PowerLost { seed });
    let stream = builder(&left).open_existing("s").unwrap();
    read(&stream)
}

/// Several put, one reads: a reader sees a prefix, the right bytes, and nothing that a power cut takes back.
fn publish(reached: &Reached) {
    let (disk, stream) = make(Durability::Synced);
    let writers: Vec<_> = (0..2)
        .map(|writer: u8| {
            let stream = stream.clone();
            thread::spawn(move || {
                for number in 0..2 {
                    stream.put("key", [writer, number, 7]).unwrap();
                }
            })
        })
        .collect();
    let shown = read(&stream);
    let left = after_power_loss(&disk, 1);
    assert!(left.starts_with(&shown), "{shown:?} was shown, {left:?} is left");
    reached.count("a reader before all was put", shown.len() < 4);
    reached.count("a reader in the middle", (1..4).contains(&shown.len()));
    for writer in writers {
        writer.join().unwrap();
    }
    let all = read(&stream);
    assert_eq!(all.len(), 4);
    assert!(all.starts_with(&shown), "what was shown changed");
}

#[test]
fn readers_see_a_durable_prefix() {
    check("publish", publish, &[Mistake::PublishBeforeSync]);
}

/// Several put at once: each acknowledged record is durable, groups form, nobody waits for ever.
fn group_commit(reached: &Reached) {
    // As many as it takes for one to lead, and for two to wait for it or for the next one.
    const WRITERS: u8 = 4;
    let (disk, stream) = make(Durability::Synced);
    let syncs = stream.metrics().syncs;
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer: u8| {
            let (stream, disk) = (stream.clone(), disk.clone());
            thread::spawn(move || {
                let receipt = stream.put("key", [writer; 9]).unwrap();
                let left = after_power_loss(&disk, u64::from(writer));
                let place = usize::try_from(receipt.sequence_number.get()).unwrap();
                assert_eq!(left.get(place), Some(&vec![writer; 9]), "an acknowledged record is gone");
            })
        })
        .collect();
    for writer in writers {
        writer.join().unwrap();
    }
    let metrics = stream.metrics();
    let each = u64::from(WRITERS);
    reached.count("a group of several", metrics.syncs - syncs < each);
    reached.count("a group of all", metrics.syncs - syncs == 1);
    reached.count("a sync each", metrics.syncs - syncs == each);
}

#[test]
fn a_group_is_acknowledged_when_it_is_durable_and_nobody_is_forgotten() {
    check("group commit", group_commit, &[Mistake::PublishBeforeSync, Mistake::WakeNobody]);
}

/// The sync of a group fails: all of the group are told, later ones are refused, nobody is told "ok" wrongly or never.
fn failed_group(reached: &Reached) {
    let (disk, stream) = make(Durability::Synced);
    stream.put("key", b"first").unwrap();
    disk.fail_on(Operation::Sync, 0, DiskFault::Error(io::ErrorKind::Other));
    let writers: Vec<_> = (0..3)
        .map(|writer: u8| {
            let stream = stream.clone();
            thread::spawn(move || stream.put("key", [writer]).map_err(|error| error.kind()))
        })
        .collect();
    let outcomes: Vec<_> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
    assert!(outcomes.iter().all(|outcome| outcome.as_ref().err() == Some(&ErrorKind::Reopen)), "{outcomes:?}");
    assert_eq!(stream.put("key", b"later").unwrap_err().kind(), ErrorKind::Reopen);
    assert_eq!(read(&stream), [b"first"], "readers go on with what is durable");
    // What was staged when the sync failed: the failed group. The others were refused before they staged.
    let staged = stream.metrics().records_in - 1;
    reached.count("several waited for the sync that failed", staged > 1);
    reached.count("some came after it had failed", staged < 3);
}

#[test]
fn a_failed_sync_reaches_everybody() {
    check("failed group", failed_group, &[Mistake::ForgetFailure]);
}

/// Segments roll under writers and a reader, and the shard is split while they are at it.
fn roll_and_split(reached: &Reached) {
    let (disk, stream) = make(Durability::Synced);
    let writers: Vec<_> = (0..2)
        .map(|writer: u8| {
            let stream = stream.clone();
            thread::spawn(move || {
                let receipts = (0..3).map(|number| stream.put("key", vec![writer * 16 + number; 1_500]).unwrap());
                receipts.map(|receipt| (receipt.shard_id, receipt.sequence_number.get())).collect::<Vec<_>>()
            })
        })
        .collect();
    let splitting = thread::spawn({
        let stream = stream.clone();
        move || stream.split_shard(SHARD, None).unwrap()
    });
    let mut between_rolls = false;
    for seed in 0..3 {
        let shown = read(&stream);
        between_rolls |= stream.metrics().segments_rolled > 0 && !shown.is_empty();
        let left = after_power_loss(&disk, seed);
        assert!(left.starts_with(&shown), "what was shown in a roll is gone");
    }
    let mut receipts: Vec<_> = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
    splitting.join().unwrap();
    receipts.sort_unstable();
    let in_parent = receipts.iter().filter(|(shard, _)| *shard == SHARD).count();
    reached.count("a reader between rolls", between_rolls);
    reached.count("a split in the middle of the puts", (1..6).contains(&in_parent));
    let all = read(&stream);
    assert_eq!(all.len(), in_parent, "the parent holds what went there");
    let left = disk.fork(Crash::PowerLost { seed: 9 });
    let stream = builder(&left).open_existing("s").unwrap();
    for (shard, number) in receipts {
        stream.get(shard, anabranch::SequenceNumber::new(number)).expect("an acknowledged record");
    }
}

#[test]
fn rolls_and_splits_lose_nothing() {
    check("roll and split", roll_and_split, &[Mistake::RollDuringCommit]);
}

/// A reader waits at the tail, a writer comes, the stream is closed: the reader gets the record, then the end.
fn waiting_reader(reached: &Reached) {
    let (_disk, stream) = make(Durability::Synced);
    let reader = thread::spawn({
        let stream = stream.clone();
        move || {
            let mut iterator = stream.shard_iterator(SHARD, ShardIteratorType::TrimHorizon).unwrap();
            let was_there = !iterator.next_batch().unwrap().is_empty();
            if was_there {
                return true;
            }
            let record = iterator.next_timeout(Duration::from_secs(600)).unwrap();
            assert_eq!(record.expect("the record").data(), b"news");
            false
        }
    });
    let other = thread::spawn({
        let stream = stream.clone();
        move || {
            stream
                .records(anabranch::RecordsStart::TrimHorizon)
                .unwrap()
                .next_timeout(Duration::from_secs(600))
                .unwrap()
        }
    });
    stream.put("key", b"news").unwrap();
    let was_there = reader.join().unwrap();
    assert_eq!(other.join().unwrap().expect("the record").data(), b"news");
    reached.count("the reader came first", !was_there);
    reached.count("the record came first", was_there);
}

#[test]
fn a_waiting_reader_is_woken() {
    check("waiting reader", waiting_reader, &[Mistake::RegisterLate]);
}

/// Many wait at the tail, of the shard and of the stream, and a writer comes: the put wakes one of them, and they wake each other.
fn waiting_readers(reached: &Reached) {
    let (_disk, stream) = make(Durability::Synced);
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let stream = stream.clone();
            thread::spawn(move || {
                let mut iterator = stream.shard_iterator(SHARD, ShardIteratorType::TrimHorizon).unwrap();
                let was_there = !iterator.next_batch().unwrap().is_empty();
                let record =
                    if was_there { None } else { iterator.next_timeout(Duration::from_secs(600)).unwrap() };
                assert!(was_there || record.expect("the record").data() == b"news");
                was_there
            })
        })
        .collect();
    stream.put("key", b"news").unwrap();
    let came_late = readers.into_iter().map(|reader| reader.join().unwrap()).filter(|late| *late).count();
    reached.count("all came first", came_late == 0);
    reached.count("some came late", came_late > 0);
}

#[test]
fn all_waiting_readers_are_woken() {
    check("waiting readers", waiting_readers, &[Mistake::WakeNoOther, Mistake::RegisterLate]);
}

/// A record that fills a slot of the STAGING file; the fifth needs another segment.
fn filling(number: usize) -> Vec<u8> {
    vec![u8::try_from(number).unwrap(); 880]
}

/// The steps of one thread that others look at.
#[derive(Debug, Default, Clone)]
struct Steps(Arc<AtomicUsize>);

impl Steps {
    fn step(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn taken(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// What the background does, step by step.
#[derive(Debug, Default, Clone)]
struct Looks {
    begun: Steps,
    in_vain: Steps,
}

impl Looks {
    fn look(&self, stream: &Stream) -> bool {
        self.begun.step();
        let is_in_vain = stream.drain_once() == 0;
        if is_in_vain {
            self.in_vain.step();
        }
        !is_in_vain
    }

    fn wrote_nothing(&self) -> bool {
        self.begun.taken() == self.in_vain.taken()
    }
}

/// Reads at the tail until all is there; counts how it came to what was staged.
fn read_staged(stream: &Stream, put: &Steps, background: &Looks, reached: &Reached) {
    let mut iterator = stream.shard_iterator(SHARD, ShardIteratorType::TrimHorizon).unwrap();
    let (mut slept, mut by_itself) = (false, false);
    for number in 0..5 {
        let known = put.taken();
        let record = match iterator.available().next() {
            Some(record) => record.unwrap(),
            None => {
                assert!(number >= known, "a record that was acknowledged is not shown");
                slept = true;
                iterator.next_timeout(Duration::from_secs(600)).unwrap().expect("the record")
            }
        };
        by_itself |= background.wrote_nothing() && put.taken() < 4; // nor did a roll
        assert_eq!(record.data(), filling(number));
    }
    reached.count("the reader slept", slept);
    reached.count("the reader drained what it read", by_itself);
}

/// What a process leaves that is killed, or whose machine loses its power, at this moment.
fn cut_while_staging(disk: &SimulatedDisk, put: &Steps, seed: u64, reached: &Reached) {
    let expected = |left: &[Vec<u8>]| left.iter().enumerate().all(|(number, data)| *data == filling(number));
    let acknowledged = put.taken();
    let killed = disk.fork(Crash::ProcessKilled);
    let in_segments = killed.fork(Crash::ProcessKilled);
    let sealed = sealed_segments(&killed);
    let left = read(&builder(&killed).open_existing("s").unwrap());
    assert!(
        left.len() >= acknowledged && expected(&left),
        "{acknowledged} were acknowledged, {} left",
        left.len()
    );
    if in_segments.remove_file(Path::new("s/STAGING")).is_ok() {
        let written = read(&builder(&in_segments).open_existing("s").unwrap()).len();
        reached.count("a kill while records were staged", written < left.len());
        reached.count("a kill while all were drained", written == left.len() && written > 0);
    }
    reached.count("a kill before the roll was sealed", sealed == [false, false]);
    reached.count("a kill after the roll", sealed == [true, false]);

    let acknowledged = put.taken();
    let left = after_power_loss(disk, seed);
    assert!(expected(&left), "a power cut leaves a prefix");
    reached.count("a power cut that took acknowledged records", left.len() < acknowledged);
}

/// Whether each segment file of the shard has its footer.
fn sealed_segments(disk: &SimulatedDisk) -> Vec<bool> {
    let directory = Path::new("s/shards").join(format!("{:012}", SHARD.get()));
    let mut names: Vec<_> = disk.list(&directory).unwrap().into_iter().map(|entry| entry.name).collect();
    names.sort();
    let is_sealed = |name: &String| {
        let bytes = disk.read_file(&directory.join(name)).unwrap();
        bytes.len() >= 128 && bytes[bytes.len() - 128..].starts_with(b"ANABREND")
    };
    names.iter().map(is_sealed).collect()
}

/// A writer stages and rolls, a reader at the tail and the background drain; a kill in the middle loses nothing, a power cut leaves a
/// prefix, and a reader finds whatever was acknowledged.
fn staging(reached: &Reached) {
    let (disk, stream) = make(Durability::Buffered);
    let (put, looks) = (Steps::default(), Looks::default());
    let writer = thread::spawn({
        let (stream, put) = (stream.clone(), put.clone());
        move || {
            for number in 0..5 {
                stream.put("key", filling(number)).unwrap();
                put.step();
            }
        }
    });
    let reader = thread::spawn({
        let (stream, put, looks, reached) = (stream.clone(), put.clone(), looks.clone(), reached.clone());
        move || read_staged(&stream, &put, &looks, &reached)
    });
    let background = thread::spawn({
        let stream = stream.clone();
        move || (0..2).filter(|_| looks.look(&stream)).count()
    });
    for seed in 0..2 {
        cut_while_staging(&disk, &put, seed, reached);
    }
    writer.join().unwrap();
    reader.join().unwrap();
    reached.count("the background drained", background.join().unwrap() > 0);
}

#[test]
fn what_is_staged_survives_a_kill_and_is_shown() {
    check("staging", staging, &[Mistake::DrainedBeforeWritten, Mistake::AnnounceBeforeStaged]);
}

/// The background rests where nothing is staged: a put wakes it, and other processes find the record.
fn draining(reached: &Reached) {
    let disk = SimulatedDisk::new();
    // Many shards, so that a look takes long: the first one gets the records, and is looked at first.
    let stream = builder(&disk).shards(8).durability(Durability::Buffered).create("s").unwrap();
    let writer = thread::spawn({
        let stream = stream.clone();
        move || {
            for number in 0..2 {
                let first = PutOptions::new().explicit_hash_key(0.into());
                stream.put_with("key", [number; 9], first).unwrap();
            }
        }
    });
    let all_are_drained = || stream.drained() == 2;
    let (wakes, late) = stream.drain_until(all_are_drained);
    writer.join().unwrap();
    let beside = builder(&disk).open_read_only("s").unwrap();
    assert_eq!(read(&beside), [[0; 9], [1; 9]]);
    reached.count("two puts woke it", wakes > 1);
    reached.count("the last look before a rest found a record", late > 0);
}

#[test]
fn what_is_staged_is_drained_by_nobody_but_the_background() {
    check("draining", draining, &[Mistake::RestUnlooked]);
}

/// A new handle of a producer is made while the old one puts, and others make the shard commit and roll: nothing of the old one stands behind what
/// was there when the new one was.
fn fence(reached: &Reached) {
    let (_disk, stream) = make(Durability::Buffered);
    let mut old = stream.producer("p").unwrap();
    let zombie = thread::spawn(move || {
        let put = |number: &u64| match old.put(*number, "key", [1; 1500]) {
            Ok(_) => true,
            Err(Error::ProducerFenced { .. }) => false,
            Err(error) => panic!("{error:?}"),
        };
        (1..=2).take_while(put).count()
    });
    let other = stream.clone();
    let other = thread::spawn(move || {
        for _ in 0..2 {
            other.put_with("key", [2; 1500], PutOptions::new().durability(Durability::Synced)).unwrap();
        }
    });
    let new = stream.producer("p").unwrap();
    let tail = stream.shard_iterator(SHARD, ShardIteratorType::Latest).unwrap().next_sequence_number().get();
    let put = zombie.join().unwrap();
    other.join().unwrap();
    let of_zombie = |data: &&Vec<u8>| data[0] == 1;
    let records = read(&stream);
    let late = records.iter().skip(usize::try_from(tail).unwrap()).filter(of_zombie).count();
    assert_eq!(late, 0, "something came after the fence");
    assert_eq!(records.iter().filter(of_zombie).count(), put);
    assert_eq!(new.last_batch().unwrap().unwrap_or(0), put as u64);
    reached.count("fenced before it put", put == 0);
    reached.count("fenced between", put == 1);
    reached.count("fenced too late", put == 2);
    reached.count("a roll", stream.metrics().segments_rolled > 0);
}

#[test]
fn nothing_comes_after_a_fence() {
    check("fence", fence, &[Mistake::FenceUnwaited, Mistake::EpochUnchecked]);
}
