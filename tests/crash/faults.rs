//! Every operation fails once: errors, a full disk, short writes. And a disk that is really full.

use std::io;
use std::sync::Arc;

use anabranch::storage::Operation;
use anabranch::{
    Crash, DiskFault, Durability, ErrorKind, ManualClock, RetentionPeriod, ShardId, ShardIteratorType,
    SimulatedDisk,
};

use crate::history::{PATH, World, assert_sound, builder, probe};
use crate::ledger::{Survives, Visited};
use crate::{Case, Random, is_single, only_at, seeds};

const STEPS: u64 = 48;

const FAULTS: [DiskFault; 3] =
    [DiskFault::Error(io::ErrorKind::Other), DiskFault::Error(io::ErrorKind::StorageFull), DiskFault::ShortWrite];

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
                let mut random = Random::new(seed << 32 | at);
                let mut world = World::new(seed, durability, Some((at, fault)));
                if let Err(error) = world.run(STEPS, false) {
                    visited.count("creation failed", true);
                    let typed = matches!(error.kind(), ErrorKind::Io | ErrorKind::StorageFull);
                    assert!(typed, "creating failed with {error:?}");
                    world.create().expect("the second try to create");
                }
                let has_failed = world.ledger.shards.values().any(|shard| shard.failed);
                visited.count("a shard refused to the end", has_failed);
                finish(&mut world, &mut random, &mut visited, &mut case);
            }
        }
    }
    if !is_single() {
        visited.0.remove("buffered tail lost"); // the death of the process spares it
        visited.demand_all();
    }
}

fn finish(world: &mut World, random: &mut Random, visited: &mut Visited, case: &mut Case) {
    if let Some(stream) = world.stream.take() {
        let closed = stream.close();
        visited.count("close reported a failure", closed.is_err());
        if closed.is_ok() {
            world.ledger.shards.values_mut().for_each(crate::ledger::ShardLedger::all_durable);
        }
    }
    world.disk.clear_faults();
    case.detail += ", reopened";
    let stream = builder(&world.disk, &world.clock).open_existing(PATH).expect("an opening after a fault");
    let clock = Arc::clone(&world.clock);
    world.ledger.settle(&stream, &clock, Survives::Written, visited);
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
        let read = |stream: &anabranch::Stream| {
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
            let count = |stream: &anabranch::Stream| {
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
