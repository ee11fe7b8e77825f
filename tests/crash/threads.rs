//! Several threads put, read, make checkpoints, split and merge while the power is cut: which interleaving, the scheduler decides. What each thread
//! was told, and what it was shown, is checked against what the next opening finds.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anabranch::storage::Storage;
use anabranch::{
    Consumer, Crash, DiskFault, Durability, Error, ErrorKind, Lease, ManualClock, Position, PutEntry,
    RecordsStart, RetentionPeriod, ShardId, SimulatedDisk, Stream, Timestamp,
};

use crate::history::{PATH, assert_sound, builder};
use crate::ledger::{CONSUMER, Visited};
use crate::positions::check_done;
use crate::{Case, Random, is_single, only_at, only_seed, seeds};

const PRODUCERS: u64 = 3;
/// Puts of each producer, if nothing stops it.
const ROUNDS: u64 = 24;

/// What one producer knows of its own key.
#[derive(Debug, Default)]
struct Told {
    /// How many records it tried to put.
    tried: u64,
    /// So many of them were acknowledged.
    acknowledged: u64,
    /// So many of them are promised to survive a power cut.
    durable: u64,
    /// Where they went.
    receipts: BTreeMap<u64, Receipt>,
    /// The last record of each batch.
    batches: Vec<(u64, u64)>,
}

/// Where a record went, and when.
type Receipt = (ShardId, u64, Timestamp);

/// A place, and what a reader saw there.
type Shown = BTreeMap<(ShardId, u64), Vec<u8>>;

fn data(producer: u64, number: u64) -> Vec<u8> {
    let mut data = format!("{producer}:{number}:").into_bytes();
    data.resize(data.len() + usize::try_from((producer * 31 + number * 97) % 600).unwrap(), b'.');
    data
}

fn produce(stream: &Stream, disk: &SimulatedDisk, producer: u64, mut random: Random) -> Told {
    let mut told = Told::default();
    let key = format!("producer-{producer}");
    let synced = stream.durability() == Durability::Synced;
    for _ in 0..ROUNDS {
        let count = if random.one_in(4) { 1 + random.below(5) } else { 1 };
        let records: Vec<_> = (told.tried..told.tried + count).map(|number| data(producer, number)).collect();
        told.tried += count;
        let outcome = if count == 1 {
            stream.put(&key, &records[0]).map(|receipt| vec![receipt])
        } else {
            told.batches.push((told.tried - count, told.tried));
            stream.put_batch(&records.iter().map(|data| PutEntry::new(&key, data)).collect::<Vec<_>>())
        };
        let Ok(receipts) = outcome.inspect_err(|error| check_error(error, disk)) else { return told };
        let places =
            receipts.iter().map(|receipt| (receipt.shard_id, receipt.sequence_number.get(), receipt.arrival));
        told.receipts.extend((told.acknowledged..).zip(places));
        told.acknowledged = told.tried;
        if synced {
            told.durable = told.tried;
        } else if random.one_in(6) {
            if stream.sync().inspect_err(|error| check_error(error, disk)).is_err() {
                return told;
            }
            told.durable = told.tried;
        }
    }
    told
}

/// What a thread may be told once the disk is off, and not before.
fn check_error(error: &Error, disk: &SimulatedDisk) {
    let typed = matches!(error.kind(), ErrorKind::Io | ErrorKind::Reopen | ErrorKind::Closed);
    assert!(typed, "an error of the wrong kind: {error:?}");
    assert!(disk.list(Path::new(PATH)).is_err(), "an error of a disk that is on: {error:?}");
}

/// Splits, merges and scales until an error or the end.
fn reshard(stream: &Stream, disk: &SimulatedDisk, mut random: Random, stop: &AtomicBool) -> u64 {
    let mut done = 0;
    while !stop.load(Ordering::SeqCst) {
        let open = stream.open_shards();
        let outcome = match random.below(3) {
            0 => stream.split_shard(open[random.index(open.len())], None).map(drop),
            1 if open.len() > 1 => {
                let lower = random.index(open.len() - 1);
                stream.merge_shards(open[lower], open[lower + 1]).map(drop)
            }
            _ => stream.update_shard_count(u32::try_from(random.within(1..4)).unwrap()).map(drop),
        };
        if let Err(error) = outcome {
            check_error(&error, disk);
            return done;
        }
        done += 1;
        thread::yield_now();
    }
    done
}

/// Reads the whole stream again and again; what it is shown on a `Synced` stream never vanishes.
fn read(stream: &Stream, disk: &SimulatedDisk, stop: &AtomicBool) -> Shown {
    let mut shown = Shown::new();
    while !stop.load(Ordering::SeqCst) {
        let records = stream.records(RecordsStart::TrimHorizon);
        let Ok(mut records) = records.inspect_err(|error| check_error(error, disk)) else { return shown };
        for record in records.available() {
            let Ok(record) = record.inspect_err(|error| check_error(error, disk)) else { return shown };
            let place = (record.shard_id(), record.sequence_number().get());
            let before = shown.insert(place, record.data().to_vec());
            assert!(before.is_none_or(|before| before == record.data()), "{place:?} changed");
        }
        thread::yield_now();
    }
    shown
}

/// What the consumer knows of a shard, as numbers behind the last record that is done.
#[derive(Debug, Clone, Copy, Default)]
struct Stood {
    told: u64,
    tried: u64,
}

fn reach(position: Position) -> u64 {
    match position {
        Position::After(at) => at.sequence_number.get() + 1,
        Position::ShardEnd => u64::MAX,
        _ => 0,
    }
}

/// Makes checkpoints behind records as soon as they are there, durable or not. Nothing if not even the consumer could be made.
fn consume(stream: &Stream, disk: &SimulatedDisk, stop: &AtomicBool) -> Option<BTreeMap<ShardId, Stood>> {
    let consumer = stream.consumer(CONSUMER).inspect_err(|error| check_error(error, disk)).ok()?;
    let (mut leases, mut stood) = (BTreeMap::new(), BTreeMap::new());
    while !stop.load(Ordering::SeqCst) {
        for shard in stream.shards() {
            let stood_here = stood.entry(shard.shard_id).or_default();
            let moved = move_on(&consumer, shard.shard_id, &mut leases, stood_here);
            if moved.inspect_err(|error| check_error(error, disk)).is_err() {
                return Some(stood);
            }
        }
        thread::yield_now();
    }
    Some(stood)
}

fn move_on(
    consumer: &Consumer,
    shard_id: ShardId,
    leases: &mut BTreeMap<ShardId, Lease>,
    stood: &mut Stood,
) -> Result<(), Error> {
    if stood.told == reach(Position::ShardEnd) {
        return Ok(());
    }
    let lease = match leases.entry(shard_id) {
        Entry::Occupied(held) => held.into_mut(),
        Entry::Vacant(free) => free.insert(consumer.take(shard_id, "worker")?),
    };
    let mut iterator = lease.iterator()?.include_unsynced(true);
    let records = iterator.available().take(5).collect::<Result<Vec<_>, _>>()?;
    let position = match records.last() {
        Some(record) => Position::After(record.into()),
        None if iterator.end_of_shard().is_some() => Position::ShardEnd,
        None => return Ok(()),
    };
    stood.tried = reach(position);
    match position {
        Position::After(at) => lease.checkpoint(at)?,
        _ => lease.checkpoint_end()?,
    }
    stood.told = stood.tried;
    Ok(())
}

struct Run {
    disk: SimulatedDisk,
    clock: Arc<ManualClock>,
    told: Vec<Told>,
    shown: Shown,
    stood: Option<BTreeMap<ShardId, Stood>>,
    reshards: u64,
}

fn run(seed: u64, durability: Durability, cut_at: Option<u64>) -> Run {
    let (disk, clock) = (SimulatedDisk::new(), Arc::new(ManualClock::default()));
    let made = builder(&disk, &clock).shards(2).segment_bytes(4096).durability(durability);
    let stream = made.retention(RetentionPeriod::Unlimited).create(PATH).unwrap();
    if let Some(at) = cut_at {
        disk.fail_at(at, DiskFault::PowerCut);
    }
    let random = |role: u64| Random::new(seed << 8 | role);
    let stop = AtomicBool::new(false);
    let (told, shown, stood, reshards) = thread::scope(|scope| {
        let (stream, disk) = (&stream, &disk);
        let producers: Vec<_> = (0..PRODUCERS)
            .map(|producer| scope.spawn(move || produce(stream, disk, producer, random(producer))))
            .collect();
        let resharder = scope.spawn(|| reshard(stream, disk, random(100), &stop));
        let reader = scope.spawn(|| read(stream, disk, &stop));
        let consumer = scope.spawn(|| consume(stream, disk, &stop));
        let told = producers.into_iter().map(|producer| producer.join().unwrap()).collect();
        stop.store(true, Ordering::SeqCst);
        (told, reader.join().unwrap(), consumer.join().unwrap(), resharder.join().unwrap())
    });
    let killed = disk.fork(Crash::ProcessKilled);
    drop(stream);
    Run { disk: killed, clock, told, shown, stood, reshards }
}

/// What a crash left, against what the threads know.
fn check(run: &Run, disk: &SimulatedDisk, durability: Durability, powered: bool, visited: &mut Visited) {
    assert_sound(disk, "after a crash");
    let stream = builder(disk, &run.clock).open_existing(PATH).expect("an opening after a crash");
    let mut found: Vec<Vec<Receipt>> = vec![Vec::new(); run.told.len()];
    let mut places = Shown::new();
    for record in stream.records(RecordsStart::TrimHorizon).unwrap().available() {
        let record = record.expect("a sound record");
        let place = (record.shard_id(), record.sequence_number().get());
        assert!(places.insert(place, record.data().to_vec()).is_none(), "{place:?} twice");
        let text = String::from_utf8_lossy(record.data()).into_owned();
        let mut fields = text.split(':').map(|field| field.parse::<u64>().unwrap_or(u64::MAX));
        let (producer, number) = (fields.next().unwrap(), fields.next().unwrap());
        let of_producer = &mut found[usize::try_from(producer).unwrap()];
        assert_eq!(record.data(), data(producer, number), "bit for bit");
        assert_eq!(number, of_producer.len() as u64, "the order of producer {producer}");
        of_producer.push((place.0, place.1, record.arrival()));
    }
    for (producer, (told, found)) in run.told.iter().zip(&found).enumerate() {
        let held = found.len() as u64;
        let promised = if powered { told.durable } else { told.acknowledged };
        assert!(held >= promised, "producer {producer} lost records: {held} of {promised}");
        assert!(held <= told.tried, "producer {producer} has more than it put");
        for (number, receipt) in &told.receipts {
            let there = found.get(usize::try_from(*number).unwrap());
            assert!(there.is_none_or(|there| there == receipt), "record {number} of producer {producer} moved");
        }
        for (first, behind) in &told.batches {
            assert!(held <= *first || held >= *behind, "producer {producer} ends inside a batch");
        }
        visited.count("acknowledged records lost as they may be", held < told.acknowledged);
        visited.count("unacknowledged records kept", held > told.acknowledged);
    }
    for (place, data) in run.shown.iter().filter(|_| durability == Durability::Synced || !powered) {
        assert_eq!(places.get(place), Some(data), "{place:?} was shown and is gone");
    }
    let promised = durability == Durability::Synced || !powered;
    let consumer = run.stood.as_ref().map(|stood| check_positions(&stream, stood, promised, visited));
    visited.count("resharded before the cut", run.reshards > 0);
    visited.count("shown before the cut", !run.shown.is_empty());
    stream.put("later", b"later").expect("a put after a crash");
    if let Some(consumer) = consumer {
        check_done(&consumer, visited);
    }
    stream.close().expect("a clean close");
    assert_sound(disk, "after a clean close");
}

/// Where the consumer stands lies between what it was told and what it tried, and nothing that is not done is passed over.
fn check_positions(
    stream: &Stream,
    stood: &BTreeMap<ShardId, Stood>,
    promised: bool,
    visited: &mut Visited,
) -> Consumer {
    assert_eq!(stream.consumers().unwrap(), [CONSUMER], "it was made");
    let consumer = stream.consumer(CONSUMER).unwrap();
    for (shard_id, Stood { told, tried }) in stood {
        let found = reach(consumer.checkpoint(*shard_id).expect("of a shard that was listed").position);
        let least = if promised { *told } else { 0 };
        assert!((least..=*tried).contains(&found), "{shard_id} at {found}, told {told}, tried {tried}");
        visited.count("an acknowledged checkpoint lost", found < *told);
        visited.count("a checkpoint that was not acknowledged found", found > *told);
        visited.count("a checkpoint that was not acknowledged lost", found == *told && told < tried);
    }
    check_done(&consumer, visited);
    consumer
}

#[test]
fn what_threads_were_told_survives_a_cut() {
    let mut visited = Visited::default();
    let mut states = 0;
    for durability in [Durability::Synced, Durability::Buffered] {
        for seed in seeds(2) {
            let operations = {
                let whole = run(seed, durability, None);
                check(&whole, &whole.disk.fork(Crash::ProcessKilled), durability, false, &mut visited);
                whole.disk.operations().max(400)
            };
            let mut random = Random::new(seed);
            for cut in 0..150 {
                let at = only_at().unwrap_or_else(|| random.below(operations));
                let mut case =
                    Case { test: "what_threads_were_told", seed, at, detail: format!("{durability:?}") };
                let run = run(seed, durability, Some(at));
                for crash in
                    [Crash::ProcessKilled, Crash::PowerLost { seed: cut }, Crash::PowerLost { seed: !cut }]
                {
                    case.detail = format!("{durability:?}, {crash:?}; which interleaving it was is not known");
                    let powered = crash != Crash::ProcessKilled;
                    check(&run, &run.disk.fork(crash), durability, powered, &mut visited);
                    states += 1;
                }
            }
        }
    }
    println!("{states} states");
    if only_seed().is_none() && !is_single() {
        visited.demand(&[
            "a checkpoint at the end of a shard",
            "acknowledged records lost as they may be",
            "resharded before the cut",
            "shown before the cut",
            "unacknowledged records kept",
        ]);
    }
}
