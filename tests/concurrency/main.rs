//! The crate's own code under chosen schedules: publishing, group commit, rolls, waiting readers.
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
use std::sync::Arc;
use std::sync::Mutex as StdMutex;
use std::time::Duration;

use anabranch::storage::Operation;
use anabranch::sync::{Mistake, plant};
use anabranch::{
    Crash, DiskFault, Durability, ErrorKind, ManualClock, RetentionPeriod, ShardId, ShardIteratorType,
    SimulatedDisk, Stream,
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
        let outcome = catch_unwind(AssertUnwindSafe(|| explore(model, &Reached::default(), schedules())));
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
    let (disk, stream) = make(Durability::Synced);
    let syncs = stream.metrics().syncs;
    let writers: Vec<_> = (0..3)
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
    reached.count("a group of several", metrics.syncs - syncs < 3);
    reached.count("a group of all", metrics.syncs - syncs == 1);
    reached.count("a sync each", metrics.syncs - syncs == 3);
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
