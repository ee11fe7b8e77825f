//! Idempotent producers: a history of numbered batches, splits, merges, rolls and restarts, cut or struck at every operation. Whatever happened, the batch that
//! was under way is put again, and in the end each record is there exactly once, where its receipt says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anabranch::storage::{Operation, Storage};
use anabranch::{
    Crash, DiskFault, Durability, Error, ErrorKind, HashKey, ManualClock, Producer, PutEntry, PutReceipt,
    RecordsStart, ShardId, SimulatedDisk, Stream,
};

use crate::history::{PATH, assert_sound, builder};
use crate::ledger::Visited;
use crate::opening::Meanwhile;
use crate::{Case, Random, is_single, only_at, seeds};

const STEPS: u64 = 14;

#[test]
fn batches_are_there_once_after_a_power_cut_at_every_operation() {
    strike_everywhere("batches_are_there_once_after_a_power", Durability::Synced, DiskFault::PowerCut, 3);
}

#[test]
fn batches_are_there_once_after_a_kill_at_every_operation() {
    strike_everywhere("batches_are_there_once_after_a_kill", Durability::Buffered, DiskFault::PowerCut, 3);
}

#[test]
fn batches_are_there_once_after_a_failure_at_every_operation() {
    let failure = DiskFault::Error(std::io::ErrorKind::Other);
    strike_everywhere("batches_are_there_once_after_a_failure", Durability::Synced, failure, 3);
}

fn strike_everywhere(test: &'static str, durability: Durability, fault: DiskFault, quick: u64) {
    let mut visited = Visited::default();
    let mut states = 0;
    for seed in seeds(quick) {
        let mut case = Case { test, seed, at: u64::MAX, detail: "without a fault".to_owned() };
        let mut whole = Life::new(seed, durability, &mut visited);
        whole.run().expect("a history without faults");
        let operations = whole.disk.operations();
        whole.finish();
        for at in (0..operations).filter(|at| only_at().is_none_or(|only| only == *at)) {
            (case.at, case.detail) = (at, format!("{fault:?}"));
            strike(seed, durability, (at, fault), &mut visited);
            states += 1;
        }
    }
    println!("{states} states");
    if !is_single() {
        visited.demand(&["a roll", "answered whole", "many shards", "put again in part"]);
    }
}

fn strike(seed: u64, durability: Durability, (at, fault): (u64, DiskFault), visited: &mut Visited) {
    let mut life = Life::new(seed, durability, visited);
    life.disk.fail_at(at, fault);
    let outcome = life.run();
    let is_cut = matches!(fault, DiskFault::PowerCut);
    if outcome.is_err() && !is_cut && life.stream.is_some() {
        life.disk.clear_faults();
        life.put_again_in_process();
    }
    if outcome.is_err() {
        // The recovery is cut as well, now and then.
        let again = life.random.one_in(2).then(|| life.random.below(40));
        life.restart(again);
    }
    life.disk.clear_faults();
    life.finish();
}

/// The writer dies at any call of a roll: its segment may be unsealed beside a successor that is empty, and whoever only reads is told what it remembers.
#[test]
fn a_reader_knows_producers_beside_a_roll_that_was_cut_short() {
    for at in 0.. {
        let (disk, clock) = (SimulatedDisk::new(), Arc::default());
        let stream = builder(&disk, &clock).segment_bytes(4096).create(PATH).unwrap();
        let mut producer = stream.producer("p").unwrap();
        for number in 1..=3 {
            producer.put(number, "key", [1; 1000]).unwrap();
        }
        disk.fail_at(at, DiskFault::PowerCut);
        let is_done = producer.put(4, "key", [1; 1000]).is_ok();
        let left = disk.fork(Crash::ProcessKilled);
        let last_batch = |disk: &SimulatedDisk| {
            let reader = builder(disk, &clock).open_read_only(PATH).unwrap();
            reader.producers().map(|known| known[0].last_batch.unwrap())
        };
        let told = last_batch(&left).unwrap_or_else(|error| panic!("cut at {at}: {error:?}"));
        assert!((if is_done { 4 } else { 3 }..=4).contains(&told), "cut at {at}: {told}");
        if is_done {
            // The successor has a record: now the footer is missed.
            left.damage(&Path::new(PATH).join("WATERMARK"), |bytes| bytes.fill(0)).unwrap();
            left.damage(&first_segment(), |bytes| *bytes.last_mut().unwrap() ^= 1).unwrap();
            assert!(matches!(last_batch(&left), Err(Error::Corrupt(_))));
            break;
        }
    }
}

/// Retention takes an ancestor's segments away between two looks of a put, which wants to know what they remember: then there is nothing to remember.
#[test]
fn a_put_beside_retention_looks_again() {
    for asks in [false, true] {
        let mut happened = true;
        for at in 0.. {
            let (disk, clock) = (SimulatedDisk::new(), Arc::default());
            let stream = builder(&disk, &clock).create(PATH).unwrap();
            stream.producer("p").unwrap().put(1, "key", b"before").unwrap();
            stream.split_shard(ShardId::new(0), None).unwrap();
            stream.close().unwrap();
            let looks = Arc::new(AtomicU64::new(u64::MAX / 2));
            let storage = Meanwhile::before(0..u64::MAX, &disk, {
                let (disk, looks) = (disk.clone(), Arc::clone(&looks));
                move || {
                    if looks.fetch_add(1, Ordering::SeqCst) == at {
                        disk.remove_file(&first_segment()).unwrap();
                    }
                }
            });
            let stream = builder(&disk, &clock).storage(storage).open_existing(PATH).unwrap();
            let mut producer = stream.producer("p").unwrap();
            looks.store(0, Ordering::SeqCst);
            let name = format!("asks: {asks}, before look {at}");
            if asks {
                let last = producer.last_batch().unwrap_or_else(|error| panic!("{name}: {error:?}"));
                assert!([None, Some(1)].contains(&last), "{name}: {last:?}");
            } else {
                producer.put(2, "key", b"after").unwrap_or_else(|error| panic!("{name}: {error:?}"));
            }
            happened = looks.load(Ordering::SeqCst) > at;
            if !happened {
                break;
            }
        }
        assert!(!happened, "it happened before every look");
    }
}

/// Only a file that went is looked for again.
#[test]
fn a_look_that_fails_is_told() {
    let (disk, clock) = (SimulatedDisk::new(), Arc::default());
    let stream = builder(&disk, &clock).create(PATH).unwrap();
    stream.producer("p").unwrap().put(1, "key", b"before").unwrap();
    stream.close().unwrap();
    let stream = builder(&disk, &clock).open_existing(PATH).unwrap();
    let producer = stream.producer("p").unwrap();
    disk.fail_on(Operation::OpenFile, 0, DiskFault::Error(std::io::ErrorKind::Other));
    assert_eq!(producer.last_batch().unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(producer.last_batch().unwrap(), Some(1));
}

fn first_segment() -> PathBuf {
    Path::new(PATH).join(format!("shards/{:012}/{:020}.seg", 0, 0))
}

/// One program that puts batch after batch, in as many lives as it takes.
struct Life<'a> {
    disk: SimulatedDisk,
    clock: Arc<ManualClock>,
    durability: Durability,
    stream: Option<Stream>,
    producer: Option<Producer>,
    /// Draws what happens; the batches do not depend on it.
    random: Random,
    seed: u64,
    /// The receipts of the batches that were acknowledged; the next one is that which may be under way.
    receipts: Vec<Vec<PutReceipt>>,
    visited: &'a mut Visited,
}

impl<'a> Life<'a> {
    fn new(seed: u64, durability: Durability, visited: &'a mut Visited) -> Self {
        for state in ["put again in part", "answered whole", "answered by an ancestor", "many shards", "a roll"] {
            visited.count(state, false);
        }
        Self {
            disk: SimulatedDisk::new(),
            clock: Arc::new(ManualClock::default()),
            durability,
            stream: None,
            producer: None,
            random: Random::new(seed),
            seed,
            receipts: Vec::new(),
            visited,
        }
    }

    fn run(&mut self) -> Result<(), Error> {
        self.open()?;
        for _ in 0..STEPS {
            self.clock.advance(Duration::from_millis(self.random.below(20)));
            match self.random.below(100) {
                0..55 => self.put_next()?,
                55..65 => self.put_other()?,
                65..78 => self.split()?,
                78..88 => self.merge()?,
                88..94 => {
                    self.producer = None;
                    self.stream.take().expect("an open stream").close()?;
                    self.open()?;
                }
                _ => {
                    (self.stream, self.producer) = (None, None); // the last handle closes it, unless that fails
                    self.open()?;
                }
            }
        }
        Ok(())
    }

    /// Opens the stream, and finds out how far it came.
    fn open(&mut self) -> Result<(), Error> {
        let described = builder(&self.disk, &self.clock).shards(2).segment_bytes(4096);
        let stream = described.first_segment_bytes(4096).durability(self.durability).open(PATH)?;
        let producer = stream.producer("p")?;
        let last = producer.last_batch()?;
        let acknowledged = (self.receipts.len() as u64).checked_sub(1);
        assert!(last >= acknowledged, "batch {acknowledged:?} was acknowledged, {last:?} is remembered");
        assert!(last <= Some(self.receipts.len() as u64), "nobody put {last:?}");
        (self.stream, self.producer) = (Some(stream), Some(producer));
        // The last one that was acknowledged, unless a part of the next is there.
        if let Some(number) = acknowledged.filter(|_| last == acknowledged) {
            let receipts = self.put(number)?;
            assert_eq!(Some(&receipts), self.receipts.last(), "batch {number} came again");
            let open = self.open_shards();
            self.visited.count("answered whole", true);
            self.visited.count(
                "answered by an ancestor",
                receipts.iter().any(|receipt| !open.contains(&receipt.shard_id.get())),
            );
        }
        Ok(())
    }

    fn open_shards(&self) -> BTreeSet<u32> {
        let shards = self.stream().shards();
        let open = shards.iter().filter(|shard| shard.state == anabranch::ShardState::Open);
        open.map(|shard| shard.shard_id.get()).collect()
    }

    fn stream(&self) -> &Stream {
        self.stream.as_ref().expect("an open stream")
    }

    fn put_next(&mut self) -> Result<(), Error> {
        let number = self.receipts.len() as u64;
        let last = self.producer.as_ref().expect("a producer").last_batch()?;
        let before = self.stream().metrics().records_in;
        let receipts = self.put(number)?;
        let appended = self.stream().metrics().records_in - before;
        self.visited.count("put again in part", last == Some(number) && appended > 0);
        let shards: BTreeSet<_> = receipts.iter().map(|receipt| receipt.shard_id).collect();
        self.visited.count("many shards", shards.len() > 1);
        self.visited.count("a roll", self.stream().metrics().segments_rolled > 0);
        self.receipts.push(receipts);
        Ok(())
    }

    fn put(&mut self, number: u64) -> Result<Vec<PutReceipt>, Error> {
        let batch = batch(self.seed, number);
        let entries: Vec<_> = batch.iter().map(|(hash_key, data)| entry(*hash_key, data)).collect();
        self.producer.as_mut().expect("a producer").put_batch(number, &entries)
    }

    /// Records of somebody else: they fill segments.
    fn put_other(&mut self) -> Result<(), Error> {
        let hash_key = HashKey::new(u128::from(self.random.next()) << 64);
        let data = vec![b'-'; usize::try_from(self.random.below(3000)).unwrap()];
        self.stream().put_batch(&[entry(hash_key, &data)]).map(drop)
    }

    fn split(&mut self) -> Result<(), Error> {
        let open: Vec<_> = self.open_shards().into_iter().collect();
        let id = ShardId::new(open[self.random.index(open.len())]);
        self.stream().split_shard(id, None).map(drop)
    }

    fn merge(&mut self) -> Result<(), Error> {
        let open = self.stream().open_shards();
        if open.len() < 2 {
            return Ok(());
        }
        let lower = self.random.index(open.len() - 1);
        self.stream().merge_shards(open[lower], open[lower + 1]).map(drop)
    }

    /// After a failure that the process survived: some shards may have failed for good, and say so.
    fn put_again_in_process(&mut self) {
        if self.producer.is_none() {
            return;
        }
        match self.put_next() {
            Ok(()) | Err(Error::ShardFailed { .. } | Error::Io { .. }) => {}
            Err(error) => panic!("a batch that may be put again: {error:?}"),
        }
    }

    /// The process or the machine dies, and the program starts again; where `again` says so, this is cut, too.
    fn restart(&mut self, again: Option<u64>) {
        (self.stream, self.producer) = (None, None);
        self.crash();
        if let Some(at) = again {
            self.disk.fail_at(at, DiskFault::PowerCut);
            if self.open().is_err() {
                (self.stream, self.producer) = (None, None);
                self.crash();
            } else {
                return;
            }
        }
        self.open().expect("an opening after the cut");
    }

    fn crash(&mut self) {
        let crash = match self.durability {
            Durability::Synced if !self.random.one_in(4) => Crash::PowerLost { seed: self.random.next() },
            _ => Crash::ProcessKilled,
        };
        self.disk = self.disk.crash(crash);
    }

    /// Puts what is left, and counts.
    fn finish(&mut self) {
        self.disk.clear_faults();
        if self.stream.is_none() {
            self.open().expect("an opening");
        }
        if self.put_next().is_err() {
            self.restart(None); // a shard had failed
            self.put_next().expect("a batch after the restart");
        }
        self.put_next().expect("one more");
        let mut found = BTreeMap::new();
        let mut records = self.stream().records(RecordsStart::TrimHorizon).expect("a reader");
        for record in records.available() {
            let record = record.expect("a record");
            if record.data().first() != Some(&b'-') {
                let place = (record.shard_id(), record.sequence_number(), record.arrival());
                assert_eq!(found.insert(record.data().to_vec(), place), None, "there twice");
            }
        }
        for (number, receipts) in (0..).zip(&self.receipts) {
            for ((_, data), receipt) in batch(self.seed, number).iter().zip(receipts) {
                let place = (receipt.shard_id, receipt.sequence_number, receipt.arrival);
                assert_eq!(found.remove(data), Some(place), "a record of batch {number}");
            }
        }
        assert!(found.is_empty(), "of batches that were never acknowledged: {found:?}");
        drop(records);
        self.producer = None;
        self.stream.take().expect("an open stream").close().expect("a clean close");
        assert_sound(&self.disk, "in the end");
    }
}

/// The records of a batch: the same, whenever it is put.
fn batch(seed: u64, number: u64) -> Vec<(HashKey, Vec<u8>)> {
    let mut random = Random::new(seed.wrapping_mul(1_000).wrapping_add(number));
    let count = 1 + random.below(6);
    let record = |index| {
        let hash_key = HashKey::new(u128::from(random.next()) << 64);
        let mut data = format!("{number}:{index}").into_bytes();
        data.resize(data.len() + usize::try_from(random.below(900)).unwrap(), b'.');
        (hash_key, data)
    };
    (0..count).map(record).collect()
}

fn entry(hash_key: HashKey, data: &[u8]) -> PutEntry<'_> {
    PutEntry { explicit_hash_key: Some(hash_key), ..PutEntry::new("key", data) }
}
