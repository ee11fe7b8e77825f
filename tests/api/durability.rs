//! What a put has made durable when it returns, counted in syncs, and proved by taking the power away.

use std::sync::Arc;
use std::thread;

use anabranch::storage::Operation;
use anabranch::{Crash, Durability, ManualClock, PutEntry, PutOptions, SimulatedDisk, Stream};

use crate::support::{S0, builder, eventually, fill_large, number, put_to, read_all, simulated};

fn syncs(disk: &SimulatedDisk) -> u64 {
    disk.operations_of(Operation::Sync)
}

/// The records that are left of the first shard if the power goes now.
fn after_power_loss(disk: &SimulatedDisk, seed: u64) -> usize {
    let survivor = disk.fork(Crash::PowerLost { seed });
    let options = builder().storage(Arc::new(survivor)).clock(Arc::new(ManualClock::default()));
    read_all(&options.open_existing("stream").unwrap(), S0).len()
}

#[test]
fn a_synced_put_costs_one_sync_and_survives_power_loss() {
    let (disk, _, stream) = simulated(builder());
    stream.put("key", b"first").unwrap(); // makes the segment
    for count in 2..20 {
        let before = (syncs(&disk), stream.metrics().syncs);
        stream.put("key", b"data").unwrap();
        assert_eq!((syncs(&disk), stream.metrics().syncs), (before.0 + 1, before.1 + 1));
        assert_eq!(after_power_loss(&disk, count as u64), count);
    }
}

#[test]
fn a_batch_costs_one_sync_a_shard() {
    let (disk, _, stream) = simulated(builder().shards(4));
    for shard in stream.shards() {
        put_to(&stream, shard.shard_id, "key", b"first");
    }
    let keys: Vec<_> = (0..100).map(|index| format!("key-{index}")).collect();
    let entries: Vec<_> = keys.iter().map(|key| PutEntry::new(key, b"data")).collect();
    let before = (syncs(&disk), stream.metrics());
    stream.put_batch(&entries).unwrap();
    let after = stream.metrics();
    assert_eq!(syncs(&disk) - before.0, 4);
    assert_eq!(after.syncs - before.1.syncs, 4);
    assert_eq!(after.records_synced - before.1.records_synced, 100);
}

/// What is not synced stays bounded: while a sync takes its time, a writer that is far ahead of it waits for it.
#[test]
fn a_writer_far_ahead_of_a_slow_disk_waits_for_it() {
    let (disk, _, stream) = simulated(builder().durability(Durability::Buffered).flush_bytes(1));
    stream.put("key", b"makes the segment").unwrap();
    let before = syncs(&disk);
    disk.stall_syncs(true);
    let put = || {
        let stream = stream.clone();
        thread::spawn(move || stream.put("key", b"data").unwrap())
    };
    let first = put();
    eventually("it syncs", || syncs(&disk) > before);
    let second = put();
    eventually("it is appended", || stream.metrics().records_in == 3);
    thread::sleep(std::time::Duration::from_millis(20));
    assert!(!first.is_finished() && !second.is_finished(), "unsynced bytes grow without bound");
    disk.stall_syncs(false);
    first.join().unwrap();
    second.join().unwrap();
}

#[test]
fn concurrent_writers_share_one_sync() {
    const WRITERS: u64 = 16;
    let (disk, _, stream) = simulated(builder());
    stream.put("key", b"makes the segment").unwrap();
    let before = (syncs(&disk), stream.metrics());

    disk.stall_syncs(true);
    let put = |stream: &Stream| {
        let stream = stream.clone();
        thread::spawn(move || stream.put("key", b"data").unwrap())
    };
    let leader = put(&stream);
    eventually("the leader syncs", || syncs(&disk) == before.0 + 1);
    let group: Vec<_> = (0..WRITERS).map(|_| put(&stream)).collect();
    eventually("the group is staged", || stream.metrics().records_in == before.1.records_in + 1 + WRITERS);
    assert!(!leader.is_finished() && group.iter().all(|writer| !writer.is_finished()), "acknowledged too early");
    assert_eq!(read_all(&stream, S0).len(), 1, "shown before it is durable");
    disk.stall_syncs(false);

    assert_eq!(leader.join().unwrap().sequence_number, number(1));
    let mut receipts: Vec<_> =
        group.into_iter().map(|writer| writer.join().unwrap().sequence_number.get()).collect();
    receipts.sort_unstable();
    assert_eq!(receipts, (2..2 + WRITERS).collect::<Vec<_>>());
    assert_eq!(syncs(&disk) - before.0, 2, "one sync for the leader, one for all others together");
    let after = stream.metrics();
    assert_eq!(after.syncs - before.1.syncs, 2);
    assert_eq!(after.records_synced - before.1.records_synced, 1 + WRITERS);
    assert_eq!(after_power_loss(&disk, 3), 2 + usize::try_from(WRITERS).unwrap());
}

#[test]
fn a_buffered_put_syncs_nothing_until_it_is_asked_to() {
    let (disk, _, stream) = simulated(builder().durability(Durability::Buffered));
    stream.put("key", b"first").unwrap();
    let before = syncs(&disk);
    for _ in 0..50 {
        stream.put("key", b"data").unwrap();
    }
    stream.put_batch(&[PutEntry::new("key", b"data"); 50]).unwrap();
    assert_eq!(syncs(&disk), before);
    assert_eq!(stream.metrics().unsynced_records, 101);
    assert_eq!(read_all(&stream, S0).len(), 101, "a buffered stream shows what is written");

    stream.sync().unwrap();
    assert_eq!(syncs(&disk), before + 1);
    let metrics = stream.metrics();
    assert_eq!((metrics.unsynced_records, metrics.syncs, metrics.records_synced), (0, 1, 101));
    assert_eq!(after_power_loss(&disk, 11), 101);
    stream.sync().unwrap();
    assert_eq!(syncs(&disk), before + 1, "nothing was left to sync");
}

#[test]
fn buffered_records_survive_the_process_at_once_and_lose_a_suffix_to_a_power_cut() {
    let (disk, clock, stream) = simulated(builder().durability(Durability::Buffered));
    for index in 0..100 {
        stream.put("key", format!("{index}")).unwrap();
        if index == 39 {
            stream.sync().unwrap();
        }
    }
    let killed = disk.fork(Crash::ProcessKilled);
    let options = builder().storage(Arc::new(killed)).clock(clock.clone());
    assert_eq!(read_all(&options.open_existing("stream").unwrap(), S0).len(), 100);
    for seed in 0..50 {
        let survivor = builder().storage(Arc::new(disk.fork(Crash::PowerLost { seed }))).clock(clock.clone());
        let survivor = survivor.open_existing("stream").unwrap();
        let records = read_all(&survivor, S0);
        assert!((40..=100).contains(&records.len()), "seed {seed}: {}", records.len());
        for (index, record) in records.iter().enumerate() {
            assert_eq!(record.data(), index.to_string().as_bytes(), "seed {seed}: a prefix");
        }
        // What is written in the place of the lost ones can be told apart from them.
        let receipt = survivor.put("key", b"new").unwrap();
        assert_eq!(receipt.sequence_number.get(), records.len() as u64);
        assert_eq!(survivor.get(S0, receipt.sequence_number).unwrap().incarnation(), 2);
    }
}

#[test]
fn flush_bytes_bound_what_is_unsynced_without_a_thread() {
    let (disk, _, stream) = simulated(builder().durability(Durability::Buffered).flush_bytes(10_000));
    put_to(&stream, S0, "key", &[0; 100]);
    let before = syncs(&disk);
    while syncs(&disk) == before {
        put_to(&stream, S0, "key", &[0; 1_000]);
        assert!(stream.metrics().unsynced_records <= 10, "unsynced data grows past its bound");
    }
    let metrics = stream.metrics();
    assert_eq!(metrics.unsynced_records, 0);
    assert_eq!(metrics.records_synced, metrics.records_in);
}

#[test]
fn maintenance_flushes_a_buffered_stream() {
    let (disk, _, stream) = simulated(builder().shards(3).durability(Durability::Buffered));
    for shard in stream.shards() {
        put_to(&stream, shard.shard_id, "key", b"data");
    }
    assert_eq!(stream.metrics().unsynced_records, 3);
    let before = syncs(&disk);
    stream.maintain().unwrap();
    assert_eq!(stream.metrics().unsynced_records, 0);
    assert_eq!(syncs(&disk), before + 3);
}

#[test]
fn a_put_can_ask_for_more_than_its_stream_promises() {
    let (disk, _, stream) = simulated(builder().durability(Durability::Buffered));
    for _ in 0..10 {
        stream.put("key", b"data").unwrap();
    }
    assert_eq!(stream.metrics().unsynced_records, 10);
    stream.put_with("key", b"data", PutOptions::new().durability(Durability::Synced)).unwrap();
    assert_eq!(stream.metrics().unsynced_records, 0, "all before it in its shard is durable too");
    assert_eq!(after_power_loss(&disk, 5), 11);
    stream.put("key", b"data").unwrap();
    stream.put_batch_with(&[PutEntry::new("key", b"data"); 3], Durability::Synced).unwrap();
    assert_eq!(stream.metrics().unsynced_records, 0);
    assert_eq!(after_power_loss(&disk, 6), 15);
}

#[test]
fn a_put_cannot_ask_for_less_than_its_stream_promises() {
    let (disk, _, stream) = simulated(builder());
    stream.put_with("key", b"data", PutOptions::new().durability(Durability::Buffered)).unwrap();
    stream.put_batch_with(&[PutEntry::new("key", b"data"); 3], Durability::Buffered).unwrap();
    assert_eq!(stream.metrics().unsynced_records, 0);
    assert_eq!(after_power_loss(&disk, 9), 4);
}

#[test]
fn rolls_lose_nothing_that_was_acknowledged() {
    let (disk, _, stream) = simulated(builder().segment_bytes(4 << 10));
    for count in 1..40 {
        fill_large(&stream, S0, 1);
        assert_eq!(after_power_loss(&disk, count as u64), count);
    }
    assert!(stream.metrics().segments_rolled >= 4);
}

#[test]
fn closing_and_dropping_make_a_buffered_stream_durable() {
    for close in [true, false] {
        let (disk, clock, stream) = simulated(builder().shards(2).durability(Durability::Buffered));
        for shard in stream.shards() {
            put_to(&stream, shard.shard_id, "key", b"data");
        }
        if close {
            stream.close().unwrap();
        } else {
            drop(stream);
        }
        let survivor = disk.crash(Crash::PowerLost { seed: 2 });
        let stream = builder().storage(Arc::new(survivor)).clock(clock).open_existing("stream").unwrap();
        assert!(stream.recovery().was_clean);
        assert_eq!(crate::support::read_stream(&stream).len(), 2);
    }
}
