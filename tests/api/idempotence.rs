//! Producers whose batches can be put again.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use anabranch::storage::{Operation, Storage};
use anabranch::{
    Crash, DiskFault, Durability, Error, ErrorKind, HashKey, Producer, PutBatchOptions, PutEntry, PutReceipt,
    SequenceNumber, ShardId, SimulatedDisk, Stream, VerifyOptions, repair, verify,
};

use crate::support::{S0, S1, builder, fill_large, number, place, put_to, read_stream, simulated, stream};

const MIDDLE: HashKey = HashKey::new(1 << 127);

/// Records for both halves of the key space.
fn entries() -> [PutEntry<'static>; 4] {
    [("low", HashKey::MIN), ("high", HashKey::MAX), ("above", MIDDLE), ("below", HashKey::new((1 << 127) - 1))]
        .map(|(key, hash_key)| PutEntry { partition_key: key, data: b"data", explicit_hash_key: Some(hash_key) })
}

fn records(stream: &Stream) -> u64 {
    stream.describe().unwrap().shards.iter().map(|shard| shard.records).sum()
}

fn next_of(stream: &Stream, shard_id: ShardId) -> SequenceNumber {
    let shards = stream.describe().unwrap().shards;
    shards.iter().find(|shard| shard.summary.shard_id == shard_id).unwrap().next_sequence_number
}

/// Each receipt names its own record.
fn assert_names(stream: &Stream, entries: &[PutEntry<'_>], receipts: &[PutReceipt]) {
    assert_eq!(entries.len(), receipts.len());
    for (entry, receipt) in entries.iter().zip(receipts) {
        let record = stream.get(receipt.shard_id, receipt.sequence_number).unwrap();
        assert_eq!((record.partition_key(), record.data()), (entry.partition_key, entry.data));
        assert_eq!(record.arrival(), receipt.arrival);
    }
}

fn reopen(disk: &SimulatedDisk, crash: Crash) -> (SimulatedDisk, Stream) {
    let disk = disk.crash(crash);
    let stream = builder().storage(Arc::new(disk.clone())).open_existing("stream").unwrap();
    (disk, stream)
}

#[test]
fn a_repeat_is_answered_and_appends_nothing() {
    let (_directory, stream) = stream(builder().shards(2));
    let mut producer = stream.producer("p").unwrap();
    assert_eq!((producer.name(), producer.epoch(), producer.last_batch().unwrap()), ("p", 1, None));
    let first = producer.put_batch(5, &entries()).unwrap();
    assert_names(&stream, &entries(), &first);
    assert_eq!(producer.put_batch(5, &entries()).unwrap(), first);
    stream.put("between", b"").unwrap();
    assert_eq!(producer.put_batch(5, &entries()).unwrap(), first);
    let second = producer.put_batch(9, &entries()).unwrap();
    assert_ne!(first, second);
    assert_eq!(producer.last_batch().unwrap(), Some(9));
    assert_eq!(records(&stream), 9);
    // Producers do not know each other.
    let mut other = stream.producer("q").unwrap();
    other.put(5, "key", b"other").unwrap();
    assert_eq!(records(&stream), 10);
}

#[test]
fn a_repeat_is_answered_after_every_way_to_end() {
    for durability in [Durability::Synced, Durability::Buffered] {
        let (mut disk, _, mut stream) = simulated(builder().shards(2).durability(durability));
        let receipts = stream.producer("p").unwrap().put_batch(1, &entries()).unwrap();
        let power = (durability == Durability::Synced).then_some(Crash::PowerLost { seed: 3 });
        for crash in [Some(Crash::ProcessKilled), None, Some(Crash::ProcessKilled), None, None, power] {
            if crash.is_none() {
                stream.close().unwrap();
            } else {
                drop(stream.put("something", b"else"));
            }
            (disk, stream) = reopen(&disk, crash.unwrap_or(Crash::ProcessKilled));
            let mut producer = stream.producer("p").unwrap();
            assert_eq!(producer.last_batch().unwrap(), Some(1), "{durability:?} {crash:?}");
            let before = records(&stream);
            assert_eq!(producer.put_batch(1, &entries()).unwrap(), receipts);
            assert_eq!(records(&stream), before);
        }
        assert!(
            verify("stream", VerifyOptions { storage: Some(Arc::new(disk)), progress: None }).unwrap().is_sound()
        );
    }
}

#[test]
fn earlier_handles_are_fenced() {
    let (_directory, stream) = stream(builder().shards(2));
    let mut old = stream.producer("p").unwrap();
    old.put(1, "key", b"old").unwrap();
    let mut new = stream.producer("p").unwrap();
    assert_eq!((old.epoch(), new.epoch()), (1, 2));
    for number in [1, 2] {
        let error = old.put(number, "key", b"old").unwrap_err();
        assert!(matches!(&error, Error::ProducerFenced { producer, epoch: 1 } if producer == "p"), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::Conflict);
    }
    let receipt = new.put(1, "key", b"old").unwrap();
    assert_eq!(receipt.sequence_number, number(0), "it knows the batches of its predecessor");
    new.put(2, "key", b"new").unwrap();
    assert_eq!(records(&stream), 2);

    stream.delete_producer("p").unwrap();
    assert!(matches!(new.put(3, "key", b"new"), Err(Error::ProducerFenced { .. })));
    assert!(matches!(stream.delete_producer("p"), Err(Error::ProducerNotFound(name)) if name == "p"));
    let mut another = stream.producer("p").unwrap();
    assert_eq!((another.epoch(), another.last_batch().unwrap()), (1, None));
    another.put(1, "key", b"another").unwrap();
    assert_eq!(records(&stream), 3);
}

/// When `producer` returns, no put of an earlier handle is under way any more.
#[test]
fn a_fence_holds_against_a_put_that_is_under_way() {
    for _ in 0..20 {
        let (_directory, stream) = stream(builder().durability(Durability::Buffered));
        let mut old = stream.producer("p").unwrap();
        let is_running = Arc::new(AtomicBool::new(false));
        let running = Arc::clone(&is_running);
        let zombie = thread::spawn(move || {
            for number in 0.. {
                match old.put(number, "key", b"zombie") {
                    Ok(_) => running.store(true, Ordering::SeqCst),
                    Err(Error::ProducerFenced { .. }) => return number,
                    Err(error) => panic!("{error:?}"),
                }
            }
            unreachable!()
        });
        while !is_running.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        let new = stream.producer("p").unwrap();
        let last = new.last_batch().unwrap();
        let refused = zombie.join().unwrap();
        assert_eq!(last, Some(refused - 1), "something came after the fence");
        assert_eq!(records(&stream), refused);
    }
}

#[test]
fn misuse_is_refused_and_loses_nothing() {
    let (_directory, stream) = stream(builder().shards(2));
    let mut producer = stream.producer("p").unwrap();
    let receipts = producer.put_batch(7, &entries()).unwrap();
    let superseded = producer.put_batch(6, &entries()).unwrap_err();
    assert!(matches!(superseded, Error::BatchSuperseded { number: 6, last: 7, .. }), "{superseded:?}");
    assert_eq!(superseded.kind(), ErrorKind::Conflict);
    for other in [&entries()[..3], &[entries(), entries()].concat()] {
        let mismatch = producer.put_batch(7, other).unwrap_err();
        assert!(matches!(mismatch, Error::BatchMismatch { number: 7, expected: 2, .. }), "{mismatch:?}");
        assert_eq!(mismatch.kind(), ErrorKind::InvalidInput);
    }
    assert_eq!(producer.put_batch(8, &[]).unwrap(), []);
    assert_eq!(producer.last_batch().unwrap(), Some(7), "an empty batch leaves no trace");
    let conditional = PutBatchOptions::new().expect_next(number(2));
    let refused = producer.put_batch_with(8, &entries()[..1], conditional).unwrap_err();
    assert!(matches!(refused, Error::InvalidArgument { argument: "expect_next", .. }), "{refused:?}");
    let empty_key = [PutEntry::new("", b"")];
    assert!(matches!(producer.put_batch(8, &empty_key), Err(Error::InvalidArgument { .. })));
    assert_eq!(producer.put_batch(7, &entries()).unwrap(), receipts);
    assert_eq!(records(&stream), 4);
    for name in ["", ".", "..", "a/b", "ä", &"n".repeat(129)] {
        assert!(matches!(stream.producer(name), Err(Error::InvalidArgument { .. })), "{name:?}");
    }
    stream.producer("n".repeat(128)).unwrap();
    let path = stream.path().to_path_buf();
    stream.clone().close().unwrap();
    assert!(matches!(producer.put_batch(8, &entries()), Err(Error::Closed)));
    assert!(matches!(stream.producer("p"), Err(Error::Closed)));
    let reader = builder().open_read_only(&path).unwrap();
    assert!(matches!(reader.producer("p"), Err(Error::ReadOnly)));
}

#[test]
fn a_repeat_is_answered_through_splits_and_merges() {
    let (mut disk, _, mut stream) = simulated(builder().shards(2));
    let receipts = stream.producer("p").unwrap().put_batch(1, &entries()).unwrap();
    let repeat = |stream: &Stream| {
        let before = records(stream);
        let mut producer = stream.producer("p").unwrap();
        assert_eq!(producer.last_batch().unwrap(), Some(1));
        assert_eq!(producer.put_batch(1, &entries()).unwrap(), receipts);
        assert_eq!(records(stream), before);
    };
    let (lower, upper) = stream.split_shard(S0, None).unwrap();
    repeat(&stream);
    let merged = stream.merge_shards(upper, S1).unwrap();
    repeat(&stream);
    for crash in [Crash::ProcessKilled, Crash::PowerLost { seed: 1 }] {
        (disk, stream) = reopen(&disk, crash);
        repeat(&stream); // children that never had a record
        put_to(&stream, merged, "key", b"data");
        (disk, stream) = reopen(&disk, crash);
        repeat(&stream); // and whose first segment was recovered
    }
    let whole = stream.merge_shards(lower, merged).unwrap();
    put_to(&stream, whole, "key", b"data");
    stream.close().unwrap();
    (_, stream) = reopen(&disk, Crash::ProcessKilled);
    repeat(&stream);
    let mut producer = stream.producer("p").unwrap();
    let second = producer.put_batch(2, &entries()).unwrap();
    assert!(second.iter().all(|receipt| receipt.shard_id == whole));
    assert_eq!(producer.put_batch(2, &entries()).unwrap(), second);
}

/// A producer that was silent for hundreds of segments is remembered, and finding that out reads no more than the newest.
#[test]
fn what_is_read_does_not_grow_with_the_log() {
    let operations = |segments: u64| {
        let (disk, _, stream) = simulated(builder().segment_bytes(4096));
        let receipts = stream.producer("p").unwrap().put_batch(1, &entries()).unwrap();
        fill_large(&stream, S0, segments * crate::support::LARGE_PER_SEGMENT);
        assert!(stream.metrics().segments_rolled > segments / 2);
        stream.close().unwrap();
        let (disk, stream) = reopen(&disk, Crash::ProcessKilled);
        let mut producer = stream.producer("p").unwrap();
        let before = disk.operations();
        assert_eq!(producer.last_batch().unwrap(), Some(1));
        let operations = disk.operations() - before;
        assert_eq!(producer.put_batch(1, &entries()).unwrap(), receipts);
        operations
    };
    assert_eq!(operations(3), operations(200));
}

/// What is remembered of many producers is longer than a segment: each gets room for it.
#[test]
fn many_producers_are_remembered() {
    const PRODUCERS: u64 = 300;
    let (mut disk, _, mut stream) = simulated(
        builder().shards(2).segment_bytes(4096).first_segment_bytes(4096).durability(Durability::Buffered),
    );
    let mut receipts = BTreeMap::new();
    for round in 0..3 {
        for index in 0..PRODUCERS {
            let mut producer = stream.producer(format!("p{index}")).unwrap();
            receipts.insert(index, producer.put_batch(round, &entries()).unwrap());
        }
        match round {
            0 => drop(stream.split_shard(S0, None).unwrap()),
            1 => stream.close().unwrap(),
            _ => {}
        }
        (disk, stream) = reopen(&disk, Crash::ProcessKilled);
    }
    assert!(
        verify("stream", VerifyOptions { storage: Some(Arc::new(disk.clone())), progress: None })
            .unwrap()
            .is_sound()
    );
    let before = records(&stream);
    for (index, receipts) in &receipts {
        assert_eq!(stream.producer(format!("p{index}")).unwrap().put_batch(2, &entries()).unwrap(), *receipts);
    }
    assert_eq!(records(&stream), before);
    let described = stream.producers().unwrap();
    assert_eq!(described.len(), receipts.len());
    assert!(described.iter().all(|producer| producer.epoch == 4 && producer.last_batch == Some(2)));
}

/// As long as the records are there, and no longer.
#[test]
fn a_batch_is_forgotten_with_its_records() {
    let (disk, _, stream) = simulated(builder().segment_bytes(4096));
    let first = stream.producer("p").unwrap().put_batch(1, &entries()).unwrap();
    fill_large(&stream, S0, 20);
    let end = stream.describe().unwrap().shards[0].next_sequence_number;
    stream.trim_shard(S0, end).unwrap();
    fill_large(&stream, S0, 20); // a roll forgets
    stream.close().unwrap();
    let (_, stream) = reopen(&disk, Crash::ProcessKilled);
    let mut producer = stream.producer("p").unwrap();
    assert_eq!(producer.last_batch().unwrap(), None);
    assert_ne!(producer.put_batch(1, &entries()).unwrap(), first);
}

/// Of what the child holds, some is trimmed; the parent, whose records these are, is not.
#[test]
fn a_batch_whose_records_an_ancestor_keeps_is_remembered() {
    let (_disk, _, stream) = simulated(builder().segment_bytes(4096));
    let mut producer = stream.producer("p").unwrap();
    let first = producer.put_batch(1, &entries()).unwrap();
    let (lower, upper) = stream.split_shard(S0, None).unwrap();
    for child in [lower, upper] {
        fill_large(&stream, child, 5);
        let end = next_of(&stream, child);
        stream.trim_shard(child, end).unwrap();
        fill_large(&stream, child, 20); // a roll forgets
    }
    assert_eq!(producer.put_batch(1, &entries()).unwrap(), first);
    let end = next_of(&stream, S0);
    stream.trim_shard(S0, end).unwrap();
    for child in [lower, upper] {
        fill_large(&stream, child, 20);
    }
    assert_ne!(producer.put_batch(1, &entries()).unwrap(), first, "its records are gone");
}

/// Also where no roll has come since: a shard that is idle has as little of it as the others.
#[test]
fn a_batch_whose_records_are_gone_is_new_in_every_shard() {
    let (_disk, _, stream) = simulated(builder().segment_bytes(4096));
    let mut producer = stream.producer("p").unwrap();
    let first = producer.put_batch(1, &entries()).unwrap();
    let (lower, _) = stream.split_shard(S0, None).unwrap();
    assert_eq!(producer.put_batch(1, &entries()).unwrap(), first, "both know of it");
    let end = next_of(&stream, S0);
    stream.trim_shard(S0, end).unwrap();
    fill_large(&stream, lower, 20); // a roll forgets, and the other one has none
    let again = producer.put_batch(1, &entries()).unwrap();
    assert_names(&stream, &entries(), &again);
    assert!(again.iter().all(|receipt| !first.contains(receipt)), "{again:?}");
    assert_eq!(producer.put_batch(1, &entries()).unwrap(), again);
}

/// Puts a batch whose records are gone again, and once more after a kill, and after a repair of the segment that it is in.
fn put_again_and_again(disk: &SimulatedDisk, stream: &Stream, first: &[PutReceipt]) {
    let again = stream.producer("p").unwrap().put_batch(1, &entries()).unwrap();
    assert!(again.iter().all(|receipt| !first.contains(receipt)), "{again:?}");
    assert_names(stream, &entries(), &again);
    for receipt in &again {
        put_to(stream, receipt.shard_id, "key", b"behind it");
    }
    for with_repair in [false, true] {
        let (disk, stream) = reopen(disk, Crash::ProcessKilled);
        let stream = if with_repair {
            stream.close().unwrap();
            for receipt in &again {
                lose_the_last_record(&disk, receipt.shard_id);
            }
            let report = repair("stream", Some(Arc::new(disk.clone()))).unwrap();
            assert!(report.records_rewritten > 0);
            reopen(&disk, Crash::ProcessKilled).1
        } else {
            stream
        };
        let answer = stream.producer("p").unwrap().put_batch(1, &entries()).unwrap();
        assert_eq!(answer, again, "with a repair: {with_repair}");
    }
}

/// Damages the data of the last record of a shard of a closed stream.
fn lose_the_last_record(disk: &SimulatedDisk, shard_id: ShardId) {
    let directory = Path::new("stream/shards").join(format!("{:012}", shard_id.get()));
    let newest = disk.list(&directory).unwrap().into_iter().map(|entry| entry.name).max().unwrap();
    let spoil = |bytes: &mut Vec<u8>| {
        let place = bytes.windows(9).rposition(|window| window == b"behind it").unwrap();
        bytes[place] = b'B';
    };
    disk.damage(&directory.join(newest), spoil).unwrap();
}

/// What the segments before say of the batch is older than what was put in its place.
#[test]
fn a_batch_that_was_gone_is_not_appended_twice_after_a_kill() {
    let (disk, _, stream) = simulated(builder().segment_bytes(4096));
    let first = stream.producer("p").unwrap().put_batch(1, &entries()).unwrap();
    fill_large(&stream, S0, 10);
    stream.trim_shard(S0, number(4)).unwrap();
    assert_eq!(stream.metrics().segments_trimmed, 0, "a segment says what was there");
    put_again_and_again(&disk, &stream, &first);
}

/// The same, where one segment holds both.
#[test]
fn a_batch_that_was_gone_from_its_segment_is_not_appended_twice_after_a_kill() {
    let (disk, _, stream) = simulated(builder());
    let first = stream.producer("p").unwrap().put_batch(1, &entries()).unwrap();
    fill_large(&stream, S0, 1);
    stream.trim_shard(S0, number(4)).unwrap();
    put_again_and_again(&disk, &stream, &first);
}

/// The same, where it is the parent that says so.
#[test]
fn a_batch_that_was_gone_from_a_parent_is_not_appended_twice_after_a_kill() {
    let (disk, _, stream) = simulated(builder().segment_bytes(4096));
    let first = stream.producer("p").unwrap().put_batch(1, &entries()).unwrap();
    fill_large(&stream, S0, 1);
    stream.split_shard(S0, None).unwrap();
    stream.trim_shard(S0, number(4)).unwrap();
    put_again_and_again(&disk, &stream, &first);
}

/// A horizon that was not stored is none: what it hides may be shown again by the next opening.
#[test]
fn a_batch_is_as_gone_as_the_manifest_says() {
    let (disk, clock, stream) = simulated(builder().segment_bytes(4096).retention(Duration::from_secs(60)));
    let first = stream.producer("p").unwrap().put_batch(1, &entries()).unwrap();
    fill_large(&stream, S0, 10);
    clock.advance(Duration::from_secs(61));
    disk.fail_on(Operation::Write, 0, DiskFault::Error(std::io::ErrorKind::StorageFull));
    stream.increase_retention(Duration::from_secs(120)).unwrap_err();
    assert_eq!(stream.producer("p").unwrap().put_batch(1, &entries()).unwrap(), first);
    stream.increase_retention(Duration::from_secs(120)).unwrap();
    put_again_and_again(&disk, &stream, &first);
}

/// The sections about producers went with the segments that were trimmed, and with them that there is nothing to remember of the child. What an ancestor says of them
/// needs more room than there is.
#[test]
fn an_opening_remembers_what_there_is_room_for() {
    let (disk, _, stream) = simulated(builder().shards(2).segment_bytes(4096));
    let mut producers: Vec<_> = (0..60).map(|id| stream.producer(format!("p{id}")).unwrap()).collect();
    let mut put_all = |number| {
        for producer in &mut producers {
            producer.put_batch(number, &entries()[..1]).unwrap();
        }
    };
    put_all(1);
    let child = stream.merge_shards(S0, S1).unwrap();
    put_all(2);
    for _ in 0..3 {
        fill_large(&stream, child, 20);
        let end = next_of(&stream, child);
        stream.trim_shard(child, end).unwrap();
    }
    fill_large(&stream, child, 1);
    let end = next_of(&stream, child);
    let (_, stream) = reopen(&disk, Crash::ProcessKilled);
    assert_eq!(next_of(&stream, child), end);
    let known = |id: u64| stream.producer(format!("p{id}")).unwrap().last_batch().unwrap().is_some();
    let known = (0..60).filter(|id| known(*id)).count();
    assert!((1..60).contains(&known), "{known}");
}

#[test]
fn order_is_kept_and_reading_sees_each_record_once() {
    let (_directory, path) = place();
    let mut expected = Vec::new();
    for life in 0_u64..4 {
        let stream = builder().open(&path).unwrap();
        let mut producer = stream.producer("p").unwrap();
        assert_eq!(producer.last_batch().unwrap(), (expected.len() as u64).checked_sub(1));
        for number in expected.len() as u64..(life + 1) * 5 {
            for _ in 0..2 {
                producer.put(number, "key", number.to_string()).unwrap();
            }
            expected.push(number.to_string());
        }
        drop(stream);
    }
    let stream = builder().open(&path).unwrap();
    let found = read_stream(&stream).into_iter().map(|record| String::from_utf8(record.data().to_vec()).unwrap());
    assert_eq!(found.collect::<Vec<_>>(), expected);
}

#[test]
fn another_process_sees_how_far_producers_came() {
    let (_directory, path) = place();
    let stream = builder().shards(2).segment_bytes(4096).durability(Durability::Buffered).create(&path).unwrap();
    let reader = builder().open_read_only(&path).unwrap();
    assert_eq!(reader.producers().unwrap(), []);
    let mut producer = stream.producer("p").unwrap();
    for number in 0..60 {
        producer.put_batch(number, &entries()).unwrap();
        if number == 30 {
            stream.split_shard(S0, None).unwrap();
        }
        stream.sync().unwrap(); // it is in the segments
        let seen = reader.producers().unwrap();
        assert_eq!(seen.len(), 1);
        assert_eq!((seen[0].name.as_str(), seen[0].epoch, seen[0].last_batch), ("p", 1, Some(number)));
    }
    assert!(stream.metrics().segments_rolled > 0);
    stream.delete_producer("p").unwrap();
    assert_eq!(reader.producers().unwrap(), []);
}

/// A roll that finds no room leaves what was remembered as it was: the old segment goes on, and keeps the room to write all of it down.
#[test]
fn a_roll_that_fails_forgets_nothing() {
    let (disk, _, stream) = simulated(builder().segment_bytes(4096).first_segment_bytes(4096));
    for index in 0..15 {
        stream.producer(format!("old-{index}")).unwrap().put(1, "key", b"").unwrap();
    }
    while stream.metrics().segments_rolled == 0 {
        fill_large(&stream, S0, 1);
    }
    stream.trim_shard(S0, number(15)).unwrap(); // the first segment stays, but the next roll may forget its batches
    assert_eq!(stream.metrics().segments_trimmed, 0);
    let mut fresh = Vec::new();
    for index in 0.. {
        disk.fail_on(Operation::Allocate, 0, DiskFault::Error(std::io::ErrorKind::StorageFull));
        if index == 0 {
            let refused = stream.put("key", vec![b'x'; 3800]).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::StorageFull);
            continue;
        }
        let mut producer = stream.producer(format!("new-{index}")).unwrap();
        match producer.put(1, "key", [b'x'; 40]) {
            Ok(receipt) => fresh.push((index, receipt)),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::StorageFull);
                break;
            }
        }
    }
    assert!(!fresh.is_empty());
    let (_, stream) = reopen(&disk, Crash::ProcessKilled);
    for (index, receipt) in fresh {
        let mut producer = stream.producer(format!("new-{index}")).unwrap();
        assert_eq!(producer.put(1, "key", [b'x'; 40]).unwrap(), receipt);
    }
}

#[test]
fn of_handles_that_are_made_at_once_the_last_one_appends_and_no_other() {
    let (_disk, _clock, stream) = simulated(builder());
    for round in 0..300 {
        let barrier = Barrier::new(4);
        let make = || {
            barrier.wait();
            stream.producer("p").unwrap()
        };
        let mut producers: Vec<Producer> = thread::scope(|scope| {
            let threads = [(); 4].map(|()| scope.spawn(make));
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        producers.sort_unstable_by_key(Producer::epoch);
        let mut last = producers.pop().unwrap();
        last.put(round, "key", b"data").unwrap();
        for mut other in producers {
            assert!(matches!(other.put(round + 1, "key", b"data"), Err(Error::ProducerFenced { .. })), "{round}");
        }
    }
}
