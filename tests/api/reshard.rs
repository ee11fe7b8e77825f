//! Splits and merges: their refusals, their lineage, and the order of records through them.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use anabranch::storage::Operation;
use anabranch::{
    DiskFault, Error, ErrorKind, HashKey, HashKeyRange, PutEntry, Record, RecordsStart, ShardId, ShardState,
    SimulatedDisk, Stream,
};

use crate::support::{
    FaultyClock, HORIZON, LARGE_PER_SEGMENT, Mixer, S0, S1, builder, fill, fill_large, number, numbers_from,
    put_at, put_to, read_all, read_stream, simulated, stream,
};

const fn shard(id: u32) -> ShardId {
    ShardId::new(id)
}

/// The open shards' ranges follow each other from the lowest key to the highest.
fn assert_tiled(stream: &Stream) {
    let shards = stream.shards();
    let range_of = |id: ShardId| shards.iter().find(|shard| shard.shard_id == id).unwrap().hash_key_range;
    let ranges: Vec<_> = stream.open_shards().into_iter().map(range_of).collect();
    assert_eq!(ranges[0].start(), HashKey::MIN);
    assert_eq!(ranges[ranges.len() - 1].end(), HashKey::MAX);
    assert!(ranges.windows(2).all(|pair| pair[0].is_followed_by(pair[1])));
}

#[test]
fn a_split_in_the_middle_gives_even_halves() {
    let (_disk, clock, stream) = simulated(builder());
    fill(&stream, 5);
    clock.advance(Duration::from_secs(9));
    let children = stream.split_shard(S0, None).unwrap();
    assert_eq!(children, (shard(1), shard(2)), "ids count up, the lower child first");
    let shards = stream.describe().unwrap().shards;
    let [parent, lower, upper] = &shards[..] else { panic!("{shards:?}") };
    assert_eq!(parent.summary.state, ShardState::Closed);
    assert_eq!(parent.summary.closed.unwrap().millis_since(parent.summary.opened), 9_000);
    assert_eq!(parent.next_sequence_number, number(5));
    for child in [lower, upper] {
        assert_eq!((child.summary.state, child.summary.closed), (ShardState::Open, None));
        assert_eq!(child.summary.parents, [S0]);
        assert_eq!(child.summary.opened, parent.summary.closed.unwrap());
        assert_eq!(child.starting_sequence_number, number(5), "above everything the parent holds");
        assert_eq!((child.records, child.first_sequence_number, child.segments), (0, None, 0));
    }
    assert_eq!(
        HashKeyRange::FULL.split(HashKey::new(1 << 127)).unwrap(),
        (lower.summary.hash_key_range, upper.summary.hash_key_range)
    );
    assert_eq!(stream.open_shards(), [shard(1), shard(2)]);
    assert_eq!(put_at(&stream, HashKey::MAX, "key", b"").sequence_number, number(5));
    assert_eq!(stream.metrics().reshards, 1);
}

#[test]
fn a_split_takes_any_key_that_leaves_both_children_some() {
    let (_directory, stream) = stream(builder().shards(2));
    let range = stream.shards()[1].hash_key_range;
    let outside = [HashKey::MIN, HashKey::new(range.start().get() - 1), range.start()];
    for at in outside {
        let error = stream.split_shard(S1, Some(at)).expect_err("the lower child would be empty");
        let named = matches!(&error, Error::InvalidArgument { argument: "new_starting_hash_key", .. });
        assert!(named, "{at}: {error:?}");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    let error = stream.split_shard(S0, Some(range.start())).expect_err("beyond the shard's last key");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(stream.shards().len(), 2, "a refusal leaves no trace");
    assert_eq!(stream.metrics().reshards, 0);

    // The narrowest children: one key each.
    let (lower, upper) = stream.split_shard(S1, Some(HashKey::new(range.start().get() + 1))).unwrap();
    let (_, last) = stream.split_shard(upper, Some(HashKey::MAX)).unwrap();
    assert_tiled(&stream);
    assert_eq!(put_at(&stream, range.start(), "key", b"").shard_id, lower);
    assert_eq!(put_at(&stream, HashKey::MAX, "key", b"").shard_id, last);
    for single in [lower, last] {
        for at in [None, Some(HashKey::MAX), Some(range.start())] {
            let error = stream.split_shard(single, at).expect_err("one key cannot be split");
            assert!(matches!(error, Error::InvalidArgument { .. }), "{error:?}");
        }
    }
}

#[test]
fn two_keys_can_be_split_once_more() {
    let (_directory, stream) = stream(builder());
    let (_, two) = stream.split_shard(S0, Some(HashKey::new(u128::MAX - 1))).unwrap();
    let (lower, upper) = stream.split_shard(two, None).unwrap();
    assert_eq!(put_at(&stream, HashKey::new(u128::MAX - 1), "key", b"").shard_id, lower);
    assert_eq!(put_at(&stream, HashKey::MAX, "key", b"").shard_id, upper);
    let merged = stream.merge_shards(lower, upper).unwrap();
    let range = stream.shards().last().unwrap().hash_key_range;
    assert_eq!((range.start().get(), range.end()), (u128::MAX - 1, HashKey::MAX));
    assert_eq!(put_at(&stream, HashKey::MAX, "key", b"").shard_id, merged);
    assert_tiled(&stream);
}

#[test]
fn a_merge_takes_neighbours_in_their_order() {
    let (_directory, stream) = stream(builder().shards(4));
    for (lower, upper) in [(1, 0), (0, 2), (3, 0), (0, 3), (2, 2), (0, 0)] {
        let error = stream.merge_shards(shard(lower), shard(upper)).expect_err("no neighbours in this order");
        let Error::NotAdjacent { lower: told, upper: other } = error else { panic!("{error:?}") };
        assert_eq!((told, other), (shard(lower), shard(upper)));
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    for (lower, upper) in [(3, 4), (4, 3), (99, 99)] {
        let error = stream.merge_shards(shard(lower), shard(upper)).expect_err("no such shard");
        assert!(matches!(error, Error::ShardNotFound(_)), "{error:?}");
    }
    assert!(matches!(stream.split_shard(shard(4), None), Err(Error::ShardNotFound(id)) if id == shard(4)));
    assert_eq!(stream.shards().len(), 4);

    for (id, count) in [(1, 3), (2, 7)] {
        for _ in 0..count {
            put_to(&stream, shard(id), "key", b"data");
        }
    }
    let child = stream.merge_shards(shard(1), shard(2)).unwrap();
    assert_eq!(child, shard(4));
    assert_eq!(stream.open_shards(), [shard(0), shard(4), shard(3)], "in the order of their ranges");
    let described = stream.describe().unwrap().shards;
    assert_eq!(described[4].summary.parents, [shard(1), shard(2)], "the lower one first");
    assert_eq!(described[4].starting_sequence_number, number(7), "above the higher of both");
    assert_tiled(&stream);
}

#[test]
fn closed_shards_are_not_resharded_again() {
    let (_directory, stream) = stream(builder().shards(2));
    stream.split_shard(S0, None).unwrap();
    for outcome in [
        stream.split_shard(S0, None).map(drop),
        stream.merge_shards(S0, S1).map(drop),
        stream.merge_shards(shard(3), S0).map(drop),
    ] {
        let error = outcome.expect_err("it is closed");
        assert!(matches!(error, Error::ShardClosed(S0)), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::Conflict);
    }
    assert_eq!(stream.shards().len(), 4);
}

#[test]
fn parents_keep_their_records() {
    let (_directory, stream) = stream(builder().segment_bytes(4 << 10));
    fill(&stream, 100);
    let before = read_all(&stream, S0);
    let (lower, upper) = stream.split_shard(S0, None).unwrap();
    put_to(&stream, lower, "key", b"data");
    stream.merge_shards(lower, upper).unwrap();
    let after = read_all(&stream, S0);
    assert_eq!(after.len(), 100);
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before.sequence_number(), after.sequence_number());
        assert_eq!((before.arrival(), before.data()), (after.arrival(), after.data()));
    }
    let path = stream.path().to_path_buf();
    stream.close().unwrap();
    let stream = builder().open(path).unwrap();
    assert_eq!(numbers_from(&stream, S0, HORIZON), (0..100).collect::<Vec<_>>());
    assert_eq!(numbers_from(&stream, lower, HORIZON), [100]);
    assert_eq!(numbers_from(&stream, upper, HORIZON), [0; 0]);
    assert_eq!(stream.open_shards(), [shard(3)]);
    assert_eq!(put_at(&stream, HashKey::MIN, "key", b"").sequence_number, number(101));
}

#[test]
fn the_shard_count_goes_where_it_is_sent() {
    let (_directory, stream) = stream(builder().shards(2));
    for target in [2, 4, 4, 1, 5, 3, 8, 2, 1, 1] {
        let before = (stream.open_shards(), stream.metrics().reshards);
        let open = stream.update_shard_count(target).unwrap();
        assert_eq!(open.len(), target as usize);
        assert_eq!(stream.open_shards(), open);
        assert_tiled(&stream);
        let steps = stream.metrics().reshards - before.1;
        assert_eq!(steps, u64::from(target).abs_diff(before.0.len() as u64), "no step too many");
        if steps == 0 {
            assert_eq!(open, before.0, "the present count changes nothing");
        }
        for count in [1, 2, 4, 8] {
            if target == count && before.0.len().is_power_of_two() {
                let shards = stream.shards();
                let range_of =
                    |id: ShardId| shards.iter().find(|shard| shard.shard_id == id).unwrap().hash_key_range;
                let ranges: Vec<_> = open.iter().copied().map(range_of).collect();
                assert_eq!(ranges, HashKeyRange::partition(count), "even halves");
            }
        }
    }
    for wrong in [0, 65_537, u32::MAX] {
        let error = stream.update_shard_count(wrong).expect_err("out of range");
        assert!(matches!(error, Error::InvalidArgument { argument: "target", .. }), "{error:?}");
    }
}

#[test]
fn order_holds_for_one_key_through_many_reshards() {
    let (_directory, stream) = stream(builder());
    let mut mixer = Mixer(5);
    for index in 0..300_u64 {
        for key in ["a", "b", "c", "d"] {
            stream.put(key, index.to_string()).unwrap();
        }
        if index % 10 == 9 {
            let open = stream.open_shards();
            let place = usize::try_from(mixer.next()).unwrap() % open.len();
            if mixer.coin() || open.len() == 1 {
                stream.split_shard(open[place], None).unwrap();
            } else {
                let lower = place.min(open.len() - 2);
                stream.merge_shards(open[lower], open[lower + 1]).unwrap();
            }
        }
    }
    let mut next: BTreeMap<String, u64> = BTreeMap::new();
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    for record in read_stream(&stream) {
        let index = next.entry(record.partition_key().to_owned()).or_default();
        assert_eq!(record.data(), index.to_string().as_bytes(), "{record:?}");
        *index += 1;
        let number = record.sequence_number().get();
        let before = last.insert(record.partition_key().to_owned(), number);
        assert!(before.is_none_or(|before| before < number), "numbers rise for a key through every reshard");
    }
    assert!(next.len() == 4 && next.values().all(|count| *count == 300), "{next:?}");
}

/// Checks that each key's counters come in order, none missing, none twice.
#[derive(Debug, Default)]
struct Ledger {
    next: BTreeMap<String, u64>,
}

impl Ledger {
    fn enter(&mut self, record: &Record) {
        let counter: u64 = std::str::from_utf8(record.data()).unwrap().parse().unwrap();
        let next = self.next.entry(record.partition_key().to_owned()).or_default();
        assert_eq!(counter, *next, "{record:?}");
        *next += 1;
    }
}

#[test]
fn producers_and_readers_go_on_through_reshards() {
    const PRODUCERS: u64 = 4;
    const KEYS: u64 = 8;
    const ROUNDS: u64 = 60;
    let (_directory, stream) = stream(builder().shards(2).segment_bytes(16 << 10));
    let total = PRODUCERS * KEYS * ROUNDS;
    let put = Arc::new(AtomicU64::new(0));

    let producers = (0..PRODUCERS).map(|producer| {
        let (stream, put) = (stream.clone(), Arc::clone(&put));
        thread::spawn(move || {
            let keys: Vec<_> = (0..KEYS).map(|key| format!("{producer}-{key}")).collect();
            for round in 0..ROUNDS {
                let data = round.to_string();
                if round % 3 == 0 {
                    for key in &keys {
                        stream.put(key, &data).unwrap();
                    }
                } else {
                    let entries: Vec<_> = keys.iter().map(|key| PutEntry::new(key, data.as_bytes())).collect();
                    assert_eq!(stream.put_batch(&entries).unwrap().len(), entries.len());
                }
                put.fetch_add(KEYS, Ordering::SeqCst);
            }
        })
    });
    let producers: Vec<_> = producers.collect();

    let readers = (0..2).map(|_| {
        let mut records = stream.records(RecordsStart::TrimHorizon).unwrap();
        thread::spawn(move || {
            let mut ledger = Ledger::default();
            let mut count = 0;
            for record in records.follow() {
                ledger.enter(&record.unwrap());
                count += 1;
                if count == total {
                    break;
                }
            }
            (count, ledger)
        })
    });
    let readers: Vec<_> = readers.collect();

    // Reshards at set points of the producers' progress, so that all of them happen under load.
    let mut mixer = Mixer(17);
    let steps = 40;
    for step in 0..steps {
        crate::support::eventually("the producers go on", || put.load(Ordering::SeqCst) >= step * total / steps);
        let open = stream.open_shards();
        let place = usize::try_from(mixer.next() % open.len() as u64).unwrap();
        if open.len() < 3 || (open.len() < 7 && mixer.coin()) {
            stream.split_shard(open[place], None).unwrap();
        } else {
            let lower = place.min(open.len() - 2);
            stream.merge_shards(open[lower], open[lower + 1]).unwrap();
        }
        assert_tiled(&stream);
    }
    for producer in producers {
        producer.join().unwrap();
    }
    for reader in readers {
        let (count, ledger) = reader.join().unwrap();
        assert_eq!(count, total);
        assert_eq!(ledger.next.len() as u64, PRODUCERS * KEYS);
        assert!(ledger.next.values().all(|counters| *counters == ROUNDS));
    }
    let mut ledger = Ledger::default();
    let records = read_stream(&stream);
    assert_eq!(records.len() as u64, total);
    for record in &records {
        ledger.enter(record);
    }
    let metrics = stream.metrics();
    assert_eq!((metrics.records_in, metrics.reshards), (total, steps));

    let path = stream.path().to_path_buf();
    drop(records);
    stream.close().unwrap();
    assert!(anabranch::verify(&path, anabranch::VerifyOptions::default()).unwrap().is_sound());
    assert_eq!(read_stream(&builder().open(&path).unwrap()).len() as u64, total);
}

#[test]
fn readers_by_shard_follow_the_children() {
    let (_directory, stream) = stream(builder());
    let stop = Arc::new(AtomicBool::new(false));
    stream.put("one key", "0").unwrap(); // the producer may start late
    let producer = thread::spawn({
        let (stream, stop) = (stream.clone(), Arc::clone(&stop));
        move || {
            let mut count = 1_u64;
            while !stop.load(Ordering::SeqCst) {
                stream.put("one key", count.to_string()).unwrap();
                count += 1;
            }
            count
        }
    });
    // As a server does it: one iterator a shard, then those of the children that take the key.
    let (tell, told) = mpsc::channel();
    let reader = thread::spawn({
        let stream = stream.clone();
        move || {
            let key = stream.hash_key("one key").unwrap();
            let mut shard_id = S0;
            let mut ledger = Ledger::default();
            loop {
                let mut iterator = stream.shard_iterator(shard_id, HORIZON).unwrap();
                for record in iterator.follow() {
                    ledger.enter(&record.unwrap());
                }
                let Some(children) = iterator.end_of_shard() else { break };
                shard_id = children.iter().find(|child| child.hash_key_range.contains(key)).unwrap().shard_id;
                tell.send(shard_id).unwrap();
            }
            ledger.next["one key"]
        }
    });
    for _ in 0..6 {
        let owner = stream.route("one key").unwrap();
        let (lower, upper) = stream.split_shard(owner, None).unwrap();
        let owner = told.recv_timeout(crate::support::DEADLINE).unwrap();
        assert!([lower, upper].contains(&owner));
        let merged = stream.merge_shards(lower, upper).unwrap();
        assert_eq!(told.recv_timeout(crate::support::DEADLINE).unwrap(), merged);
    }
    stop.store(true, Ordering::SeqCst);
    let count = producer.join().unwrap();
    stream.close().unwrap();
    assert_eq!(reader.join().unwrap(), count);
}

/// For those who watch a stream and put nothing.
#[test]
fn a_split_of_unknown_outcome_is_a_failure_of_the_stream() {
    let (disk, _clock, stream) = simulated(builder());
    stream.put("key", b"data").unwrap();
    let kind = std::io::ErrorKind::PermissionDenied;
    disk.fail_on(Operation::SyncDir, 1, DiskFault::Error(kind)); // behind that of the shards' directory
    assert!(stream.split_shard(S0, None).is_err());
    assert!(matches!(stream.put("key", b"data"), Err(Error::ShardFailed { .. })));
    let Some(Error::ShardFailed { shard_id: S0, source }) = stream.failure() else {
        panic!("{:?}", stream.failure());
    };
    assert_eq!(source.kind(), kind);
    assert!(source.to_string().starts_with("its reshard was cut short: "), "{source}");
    // Which manifest is in force is not known: another one would be made of the wrong one.
    let refused = stream.set_retention_bytes(Some(1 << 30)).unwrap_err();
    assert!(refused.to_string().contains("an earlier replacement failed"), "{refused}");
}

/// Nothing of the split is tried then: no shard is to suffer from it.
#[test]
fn a_split_behind_a_change_of_unknown_outcome_leaves_its_shard_open() {
    let (disk, _clock, stream) = simulated(builder());
    disk.fail_on(Operation::SyncDir, 0, DiskFault::Error(std::io::ErrorKind::Other));
    stream.set_retention_bytes(Some(1 << 30)).unwrap_err();
    let refused = stream.split_shard(S0, None).unwrap_err();
    assert!(refused.to_string().contains("an earlier replacement failed"), "{refused}");
    stream.put("key", b"data").unwrap();
    assert!(stream.failure().is_none());
}

#[test]
fn a_clock_that_panics_in_a_split_leaves_the_shard_open() {
    let clock = Arc::new(FaultyClock::default());
    let options = builder().storage(Arc::new(SimulatedDisk::new())).clock(clock.clone());
    let stream = options.create("stream").unwrap();
    put_to(&stream, S0, "key", b"before");
    clock.break_behind(0);
    assert!(catch_unwind(AssertUnwindSafe(|| stream.split_shard(S0, None))).is_err());
    clock.mend();
    put_to(&stream, S0, "key", b"behind");
    stream.split_shard(S0, None).unwrap();
    assert_eq!(read_stream(&stream).len(), 2);
}

/// What a put has done when the clock breaks under it: a close or a split then must not leave what the next opening takes for damage.
#[test]
fn a_clock_that_panics_in_a_put_leaves_a_sound_shard() {
    for splits in [false, true] {
        for readings in 0..4 {
            let (disk, clock) = (SimulatedDisk::new(), Arc::new(FaultyClock::default()));
            let options = || builder().storage(Arc::new(disk.clone())).clock(clock.clone());
            let stream = options().segment_bytes(4 << 10).create("stream").unwrap();
            fill_large(&stream, S0, LARGE_PER_SEGMENT);
            clock.break_behind(readings);
            let outcome = catch_unwind(AssertUnwindSafe(|| stream.put("key", [b'x'; 500])));
            clock.mend();
            let put = LARGE_PER_SEGMENT + u64::from(matches!(outcome, Ok(Ok(_))));
            if splits {
                stream.split_shard(S0, None).unwrap();
            }
            stream.close().unwrap();
            let stream = options().open_existing("stream").unwrap();
            assert_eq!(read_stream(&stream).len() as u64, put, "broken behind {readings} readings");
        }
    }
}
