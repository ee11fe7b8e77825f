//! Every operation fails once: errors, a full disk, short writes. And a disk that is really full.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anabranch::storage::Operation;
use anabranch::{
    Crash, DiskFault, Durability, Error, ErrorKind, Lease, ManualClock, Queue, QueueOptions, RecordsStart,
    RetentionPeriod, ShardId, ShardIteratorType, SimulatedDisk, Stream,
};

use crate::history::{PATH, World, assert_sound, builder, probe};
use crate::ledger::{Survives, Visited};
use crate::{Case, FAULTS, Random, is_single, number, only_at, seeds};

const STEPS: u64 = 48;
const S0: ShardId = ShardId::new(0);

/// What every run has to reach.
const STATES: [&str; 3] = ["a shard refused to the end", "close reported a failure", "creation failed"];

#[test]
fn synced_streams_survive_every_failing_operation() {
    fail_everywhere("synced_streams_survive_every_failing", Durability::Synced);
}

#[test]
fn buffered_streams_survive_every_failing_operation() {
    fail_everywhere("buffered_streams_survive_every_failing", Durability::Buffered);
}

/// The history goes on behind the failure; at its end the stream is closed as well as it can be and opened again.
fn fail_everywhere(test: &'static str, durability: Durability) {
    let mut visited = Visited::default();
    for seed in seeds(1) {
        let mut case = Case { test, seed, at: u64::MAX, detail: "without a fault".to_owned() };
        let mut whole = World::new(seed, durability, None);
        whole.run(STEPS, true).expect("a history without faults");
        let operations = whole.operations();
        drop(whole);
        for at in (0..operations).filter(|at| only_at().is_none_or(|only| only == *at)) {
            case.at = at;
            for fault in FAULTS {
                case.detail = format!("{fault:?}");
                strike(seed, durability, (at, fault), &mut visited, &mut case);
            }
        }
    }
    if !is_single() {
        visited.demand(&STATES);
    }
}

fn strike(seed: u64, durability: Durability, fault: (u64, DiskFault), visited: &mut Visited, case: &mut Case) {
    let mut random = Random::new(seed << 32 | fault.0);
    let mut world = World::new(seed, durability, Some(fault));
    if let Err(error) = world.run(STEPS, false) {
        visited.count("creation failed", true);
        let typed = matches!(error.kind(), ErrorKind::Io | ErrorKind::StorageFull);
        assert!(typed, "creating failed with {error:?}");
        world.disk.clear_faults(); // those that last
        world.create().expect("the second try to create");
    }
    let has_failed = world.ledger.shards.values().any(|shard| shard.failed);
    visited.count("a shard refused to the end", has_failed);
    finish(&mut world, &mut random, visited, case);
}

fn finish(world: &mut World, random: &mut Random, visited: &mut Visited, case: &mut Case) {
    if world.stream.is_some() {
        visited.count("close reported a failure", world.close().is_err());
    }
    world.disk.clear_faults();
    case.detail += ", reopened";
    let stream = builder(&world.disk, &world.clock).open_existing(PATH).expect("an opening after a fault");
    let clock = Arc::clone(&world.clock);
    world.ledger.settle(&stream, &clock, Survives::Written, visited);
    world.ledger.settle_consumer(&stream, visited);
    // What a failed sync left in the page cache only was shown just now: it must have been made durable.
    let seed = random.next();
    case.detail = format!("{}, used, power lost, seed {seed}", case.detail);
    if random.one_in(2) {
        probe(&stream, &mut world.ledger, "after a fault");
    }
    let disk = world.disk.crash(Crash::PowerLost { seed });
    drop(stream);
    assert_sound(&disk, "after a fault and a crash");
    let stream = builder(&disk, &clock).open_existing(PATH).expect("an opening after a crash");
    world.ledger.settle(&stream, &clock, Survives::Durable, visited);
    world.ledger.settle_consumer(&stream, visited);
    stream.close().expect("a clean close");
    assert_sound(&disk, "after a clean close");
}

/// A failed sync, the death of the process, then of the machine: what was shown in between stays.
#[test]
fn what_is_shown_after_a_failed_sync_survives_power_loss() {
    let mut found = 0;
    for seed in 0..64 {
        let (disk, clock) = (SimulatedDisk::new(), Arc::new(ManualClock::default()));
        let stream = builder(&disk, &clock).create(PATH).unwrap();
        stream.put("key", b"durable").unwrap();
        disk.fail_on(Operation::Sync, 0, DiskFault::Error(io::ErrorKind::Other));
        assert_eq!(stream.put("key", b"unknown").unwrap_err().kind(), ErrorKind::Reopen);
        assert_eq!(stream.put("key", b"refused").unwrap_err().kind(), ErrorKind::Reopen);
        let disk = disk.crash(Crash::ProcessKilled);
        drop(stream);
        let stream = builder(&disk, &clock).open_existing(PATH).unwrap();
        let read = |stream: &Stream| {
            let mut iterator = stream.shard_iterator(ShardId::new(0), ShardIteratorType::TrimHorizon).unwrap();
            iterator.available().map(|record| record.unwrap().data().to_vec()).collect::<Vec<_>>()
        };
        let shown = read(&stream);
        let disk = disk.crash(Crash::PowerLost { seed });
        drop(stream);
        let stream = builder(&disk, &clock).open_existing(PATH).unwrap();
        assert_eq!(read(&stream), shown, "seed {seed}");
        found += shown.len();
    }
    assert_eq!(found, 2 * 64, "the record of the failed sync was there, and shown");
}

/// The disk fills up: refusals of the right kind, nothing lost, reading goes on, and so does writing once there is room.
#[test]
fn a_full_disk_refuses_and_recovers_without_reopening() {
    for durability in [Durability::Synced, Durability::Buffered] {
        for spare in (0..6_000).step_by(248) {
            let (disk, clock) = (SimulatedDisk::new(), Arc::new(ManualClock::default()));
            let made = builder(&disk, &clock).segment_bytes(4096).durability(durability);
            let stream = made.retention(RetentionPeriod::Unlimited).create(PATH).unwrap();
            stream.put("key", [1; 100]).unwrap();
            disk.set_capacity(Some(disk.used_bytes() + spare));
            let mut acknowledged = 1;
            let refusal = loop {
                match stream.put("key", [1; 100]) {
                    Ok(receipt) => {
                        assert_eq!(receipt.sequence_number.get(), acknowledged);
                        acknowledged += 1;
                    }
                    Err(error) => break error,
                }
            };
            assert_eq!(refusal.kind(), ErrorKind::StorageFull, "spare {spare}: {refusal:?}");
            assert_eq!(stream.put("key", [1; 100]).unwrap_err().kind(), ErrorKind::StorageFull);
            let count = |stream: &Stream| {
                let kind = ShardIteratorType::TrimHorizon;
                let mut iterator = stream.shard_iterator(ShardId::new(0), kind).unwrap();
                iterator.available().map(Result::unwrap).filter(|record| record.data() == [1; 100]).count() as u64
            };
            assert_eq!(count(&stream), acknowledged, "reading a stream on a full disk");
            disk.set_capacity(None);
            assert_eq!(stream.put("key", [1; 100]).unwrap().sequence_number.get(), acknowledged);
            stream.sync().unwrap();
            let disk = disk.crash(Crash::PowerLost { seed: spare });
            drop(stream);
            let stream = builder(&disk, &clock).open_existing(PATH).unwrap();
            assert_eq!(count(&stream), acknowledged + 1);
        }
    }
}

/// A split that finds no room changes nothing, and the parent takes records as before.
#[test]
fn a_full_disk_refuses_a_split_and_keeps_the_parent() {
    let (disk, clock) = (SimulatedDisk::new(), Arc::new(ManualClock::default()));
    let stream = builder(&disk, &clock).create(PATH).unwrap();
    stream.put("key", b"before").unwrap();
    disk.set_capacity(Some(0));
    let refusal = stream.split_shard(ShardId::new(0), None).unwrap_err();
    assert_eq!(refusal.kind(), ErrorKind::StorageFull, "{refusal:?}");
    assert_eq!(stream.open_shards(), [ShardId::new(0)]);
    disk.set_capacity(None);
    assert_eq!(stream.put("key", b"after").unwrap().sequence_number.get(), 1);
    let (lower, upper) = stream.split_shard(ShardId::new(0), None).unwrap();
    assert_eq!(stream.open_shards(), [lower, upper]);
}

/// Errors of rarer kinds, and ones that last: at a sample of the calls, in the long form at every one of a tenth of the histories.
#[test]
fn rarer_and_lasting_failures_lose_nothing_either() {
    use io::ErrorKind::{Interrupted, Other, OutOfMemory, QuotaExceeded, StorageFull, Unsupported};
    let faults = [
        DiskFault::Error(Interrupted),
        DiskFault::Error(OutOfMemory),
        DiskFault::Error(QuotaExceeded),
        DiskFault::Error(Unsupported),
        DiskFault::ErrorFromThenOn(Other),
        DiskFault::ErrorFromThenOn(StorageFull),
    ];
    let test = "rarer_and_lasting_failures_lose_nothing_either";
    let mut visited = Visited::default();
    let histories = seeds(1);
    let histories = histories.start..histories.start + (histories.end - histories.start).div_ceil(10);
    for seed in histories {
        for durability in [Durability::Synced, Durability::Buffered] {
            let mut case = Case { test, seed, at: u64::MAX, detail: "without a fault".to_owned() };
            let mut whole = World::new(seed, durability, None);
            whole.run(STEPS, true).expect("a history without faults");
            let operations = whole.operations();
            let rarely = number("ANABRANCH_CRASH_SEEDS").is_none() && !is_single();
            for (place, fault) in faults.into_iter().enumerate() {
                let sample = if rarely { (place..).step_by(SAMPLE) } else { (0..).step_by(1) };
                let sample = sample.map(|at| at as u64).take_while(|at| *at < operations);
                for at in sample.filter(|at| only_at().is_none_or(|only| only == *at)) {
                    (case.at, case.detail) = (at, format!("{durability:?}, {fault:?}"));
                    strike(seed, durability, (at, fault), &mut visited, &mut case);
                }
            }
        }
    }
    if !is_single() {
        visited.demand(&STATES);
        visited.demand(&["reshard cut short, in force", "reshard cut short, not in force"]);
    }
}

/// One in so many calls, in the quick form.
const SAMPLE: usize = 9;

/// One sync for many: when it fails, each of them is told, and of the same failure; then the shard refuses, and reading goes on.
#[test]
fn a_failed_sync_is_told_to_all_its_waiters() {
    const WAITERS: u64 = 8;
    let (disk, clock) = (SimulatedDisk::new(), Arc::new(ManualClock::default()));
    let stream = builder(&disk, &clock).create(PATH).unwrap();
    stream.put("key", b"durable").unwrap();
    let syncs = disk.operations_of(Operation::Sync);
    disk.stall_syncs(true);
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let leader = scope.spawn(|| stream.put("key", b"led"));
        wait_until(|| disk.operations_of(Operation::Sync) > syncs);
        disk.fail_on(Operation::Sync, 0, DiskFault::Error(io::ErrorKind::Other));
        let waiters: Vec<_> = (0..WAITERS).map(|_| scope.spawn(|| stream.put("key", b"waits"))).collect();
        wait_until(|| stream.metrics().records_in == 2 + WAITERS);
        disk.stall_syncs(false);
        leader.join().unwrap().expect("the sync before the failed one");
        waiters.into_iter().map(|waiter| waiter.join().unwrap()).collect()
    });
    let mut sources: Vec<Arc<io::Error>> = Vec::new();
    for outcome in outcomes {
        match outcome {
            Err(Error::ShardFailed { source, .. }) => sources.push(source),
            other => panic!("a waiter of a failed sync was told {other:?}"),
        }
    }
    assert!(sources.iter().all(|source| Arc::ptr_eq(source, &sources[0])), "{sources:?}");
    assert_eq!(stream.put("key", b"refused").unwrap_err().kind(), ErrorKind::Reopen);
    assert_eq!(stream.get(ShardId::new(0), 1.into()).unwrap().data(), b"led");
    assert_eq!(stream.get(ShardId::new(0), 2.into()).unwrap_err().kind(), ErrorKind::InvalidInput, "not durable");
    stream.close().unwrap_err();
    let stream = builder(&disk, &clock).open_existing(PATH).unwrap();
    assert_eq!(stream.get(ShardId::new(0), 0.into()).unwrap().data(), b"durable");
    assert_eq!(stream.get(ShardId::new(0), 1.into()).unwrap().data(), b"led");
    stream.put("key", b"goes on").unwrap();
}

fn wait_until(mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !happened() {
        assert!(Instant::now() < deadline, "gave up waiting");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// No byte of room at each change of a stream and of what reads it: a refusal that says so, nothing lost, and it goes on once there is room, without
/// reopening; a failed creation and a failed close are tried again by opening.
#[test]
fn a_full_disk_refuses_every_change_and_then_allows_it() {
    type Change = fn(&Changed) -> anabranch::Result<()>;
    let changes: [(&str, Change); 11] = [
        ("split", |of| of.stream.split_shard(S0, None).map(drop)),
        ("merge", |of| of.stream.merge_shards(S0, ShardId::new(1)).map(drop)),
        ("scale", |of| of.stream.update_shard_count(5).map(drop)),
        ("retention", |of| of.stream.decrease_retention(RetentionPeriod::hours(2))),
        ("budget", |of| of.stream.set_retention_bytes(Some(1 << 20))),
        ("trim", |of| of.stream.trim_shard(S0, 1.into()).map(drop)),
        ("fence", |of| of.stream.fence_shard(S0, 7).map(drop)),
        ("producer", |of| of.stream.producer("producer").map(drop)),
        ("consumer", |of| of.stream.consumer("another").map(drop)),
        ("queue", |of| of.stream.queue("another", QueueOptions::new()).map(drop)),
        ("acknowledgement", |of| {
            for received in of.queue.receive(10, Duration::ZERO)? {
                of.queue.acknowledge(&received)?;
            }
            of.queue.sync()
        }),
    ];
    for (name, change) in changes {
        let (disk, clock) = (SimulatedDisk::new(), Arc::new(ManualClock::default()));
        disk.set_capacity(Some(0));
        let made = || builder(&disk, &clock).shards(2).segment_bytes(4096);
        assert_eq!(made().create(PATH).unwrap_err().kind(), ErrorKind::StorageFull, "create");
        disk.set_capacity(None);
        let of = Changed::new(made().open(PATH).unwrap());
        for id in 0..40_u8 {
            of.stream.put(id.to_string(), [id; 200]).unwrap();
        }
        let before = read(&of.stream);
        disk.set_capacity(Some(0));
        of.checkpoint();
        let refusal = change(&of).expect_err(name);
        assert_eq!(refusal.kind(), ErrorKind::StorageFull, "{name}: {refusal:?}");
        assert_eq!(read(&of.stream), before, "{name}");
        disk.set_capacity(None);
        of.stream.put("between", [100; 200]).unwrap_or_else(|error| panic!("after a refused {name}: {error:?}"));
        change(&of).unwrap_or_else(|error| panic!("{name} with room: {error:?}"));
        of.stream.put("after", [101; 200]).unwrap();
        let before = read(&of.stream);
        assert!(before.len() >= 41 && before.contains(&100) && before.contains(&101), "{name}");
        disk.set_capacity(Some(0));
        assert_eq!(of.stream.close().unwrap_err().kind(), ErrorKind::StorageFull, "close");
        disk.set_capacity(None);
        let disk = disk.crash(Crash::PowerLost { seed: 5 });
        let stream = builder(&disk, &clock).open_existing(PATH).unwrap();
        assert_eq!(read(&stream), before, "{name}");
        stream.close().unwrap();
        assert_sound(&disk, name);
    }
}

/// A stream that is changed, and those who read it.
struct Changed {
    stream: Stream,
    lease: Lease,
    queue: Queue,
}

impl Changed {
    fn new(stream: Stream) -> Self {
        let lease = stream.consumer("consumer").unwrap().take(S0, "worker").unwrap();
        let queue = stream.queue("queue", QueueOptions::new()).unwrap();
        Self { stream, lease, queue }
    }

    /// Leases and checkpoints are written in place, and need no room; a disk that refuses them all the same is among the faults of `consumers`.
    fn checkpoint(&self) {
        let first = self.stream.describe().unwrap().shards[0].starting_sequence_number;
        self.lease.checkpoint_at(first).unwrap();
    }
}

fn read(stream: &Stream) -> BTreeSet<u8> {
    let mut records = stream.records(RecordsStart::TrimHorizon).unwrap();
    records.available().map(|record| record.unwrap().data()[0]).collect()
}
