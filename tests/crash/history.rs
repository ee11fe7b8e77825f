//! Seeded random histories of a stream, and what runs them.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anabranch::{
    Consumer, Crash, DiskFault, Durability, Error, ErrorKind, HashKey, HashKeyRange, Lease, ManualClock, Position,
    PutEntry, PutOptions, RecordsStart, RetentionPeriod, SequenceNumber, ShardId, ShardIteratorType,
    SimulatedDisk, Stream, StreamBuilder, VerifyOptions, VerifyReport, verify,
};

use crate::Random;
use crate::ledger::{CONSUMER, Entry, Ledger, Reshard, ShardLedger, Survives, Visited};

/// Where the stream is on its disk: below a directory that has to be made too.
pub(crate) const PATH: &str = "data/clicks";
pub(crate) const SHARDS: u32 = 2;
const RETENTION_MS: u64 = 60_000;

/// What a history is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Put,
    PutLong,
    PutBatch,
    Sync,
    Split,
    Merge,
    Trim,
    EnforceRetention,
    Read,
    Checkpoint,
    Conditional,
    CloseAndReopen,
    KillAndReopen,
    LosePowerAndReopen,
}

/// A disk, a stream on it, and the ledger of what it promised.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) disk: SimulatedDisk,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) durability: Durability,
    pub(crate) segment_bytes: u64,
    pub(crate) stream: Option<Stream>,
    pub(crate) ledger: Ledger,
    pub(crate) visited: Visited,
    /// Opened by the first checkpoint since the stream was opened.
    consumer: Option<Consumer>,
    leases: BTreeMap<ShardId, Lease>,
    random: Random,
    /// The operation of the history that is to fail, and how.
    fault: Option<(u64, DiskFault)>,
    /// Operations of earlier disks, less those that only checked.
    operations_before: i64,
    /// Numbers the records, so that no two are alike.
    puts: u64,
}

impl World {
    pub(crate) fn new(seed: u64, durability: Durability, fault: Option<(u64, DiskFault)>) -> Self {
        let mut random = Random::new(seed);
        let world = Self {
            disk: SimulatedDisk::new(),
            clock: Arc::new(ManualClock::default()),
            durability,
            segment_bytes: 4096 + 8 * random.below(512),
            stream: None,
            ledger: Ledger::new(SHARDS, Some(RETENTION_MS)),
            visited: Visited::default(),
            consumer: None,
            leases: BTreeMap::new(),
            random,
            fault,
            operations_before: 0,
            puts: 0,
        };
        world.plan_fault();
        world
    }

    pub(crate) fn builder(&self) -> StreamBuilder {
        builder(&self.disk, &self.clock)
    }

    pub(crate) fn stream(&self) -> &Stream {
        self.stream.as_ref().expect("an open stream")
    }

    /// How many operations the history has done.
    pub(crate) fn operations(&self) -> u64 {
        u64::try_from(self.operations_before + i64::try_from(self.disk.operations()).unwrap()).unwrap()
    }

    fn plan_fault(&self) {
        if let Some((at, fault)) = self.fault
            && let Some(nth) = at.checked_sub(self.operations())
        {
            self.disk.fail_at(nth, fault);
        }
    }

    pub(crate) fn power_is_cut(&self) -> bool {
        matches!(self.fault, Some((at, DiskFault::PowerCut)) if self.operations() > at)
    }

    /// Runs a whole history; stops at the first error if that is what a fault leads to.
    pub(crate) fn run(&mut self, steps: u64, stop_at_error: bool) -> Result<(), Error> {
        self.create()?;
        for _ in 0..steps {
            if self.power_is_cut() {
                break; // met by a call whose failure does not matter
            }
            let outcome = self.step();
            if let Err(error) = outcome {
                let typed = matches!(error.kind(), ErrorKind::Io | ErrorKind::StorageFull | ErrorKind::Reopen);
                assert!(typed && self.fault.is_some(), "an error of the wrong kind: {error:?}");
                if stop_at_error {
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Makes the stream, or opens what an earlier try made.
    pub(crate) fn create(&mut self) -> Result<(), Error> {
        let retention = RetentionPeriod::Millis(RETENTION_MS);
        let builder = self.builder().shards(SHARDS).durability(self.durability).retention(retention);
        let opened = builder.segment_bytes(self.segment_bytes).open(PATH)?;
        self.stream = Some(opened);
        self.settle(Survives::Written);
        Ok(())
    }

    fn step(&mut self) -> Result<(), Error> {
        self.clock.advance(Duration::from_millis(self.random.below(20)));
        if self.stream.is_none() {
            return self.reopen();
        }
        let step = match self.random.below(100) {
            0..40 => Step::Put,
            40..52 => Step::PutBatch,
            52..56 => Step::Sync,
            56..62 => Step::Split,
            62..68 => Step::Merge,
            68..73 => Step::Trim,
            73..77 => Step::EnforceRetention,
            77..82 => Step::Read,
            82..89 => Step::Checkpoint,
            89..92 => Step::Conditional,
            92..95 => Step::CloseAndReopen,
            95..98 => Step::KillAndReopen,
            _ => Step::LosePowerAndReopen,
        };
        self.apply(step)
    }

    fn apply(&mut self, step: Step) -> Result<(), Error> {
        match step {
            Step::Put => self.put(),
            Step::PutLong => self.put_long(),
            Step::PutBatch => self.put_batch(),
            Step::Sync => self.sync(),
            Step::Split => self.split(),
            Step::Merge => self.merge(),
            Step::Trim => self.trim(),
            Step::EnforceRetention => self.enforce_retention(),
            Step::Read => self.read(),
            Step::Checkpoint => self.checkpoint(),
            Step::Conditional => self.conditional(),
            Step::CloseAndReopen => self.close_and_reopen(),
            Step::KillAndReopen => self.crash_and_reopen(Crash::ProcessKilled, Survives::Written),
            Step::LosePowerAndReopen => {
                let seed = self.random.next();
                self.crash_and_reopen(Crash::PowerLost { seed }, Survives::Durable)
            }
        }
    }

    /// Runs these steps and no others, up to the first error.
    pub(crate) fn run_steps(&mut self, steps: &[Step]) -> Result<(), Error> {
        self.create()?;
        for step in steps {
            if self.power_is_cut() {
                break;
            }
            match &self.stream {
                Some(_) => self.apply(*step)?,
                None => self.reopen()?,
            }
        }
        Ok(())
    }

    /// Two of these do not fit into one segment.
    fn put_long(&mut self) -> Result<(), Error> {
        let mut entry = self.entry();
        let mut data = entry.data.to_vec();
        data.resize(2500, 7);
        entry.data = Rc::from(data);
        self.put_entry(entry, false)
    }

    /// A record that no other is like.
    fn entry(&mut self) -> Entry {
        self.puts += 1;
        let len = match self.random.below(12) {
            0 => 0,
            1 => self.random.within(1000..6000),
            2..5 => self.random.within(200..1000),
            _ => self.random.below(120),
        };
        let mut data = format!("{}:", self.puts).into_bytes();
        let zeros = self.random.one_in(6);
        data.extend((0..len).map(|_| if zeros { 0 } else { self.random.next().to_le_bytes()[0] }));
        let hash_key = self.random.one_in(2).then(|| self.hash_key());
        // A key has one hash, so that its order can be checked.
        let key = hash_key.map_or_else(|| format!("key-{}", self.random.below(6)), |key| format!("hash-{key}"));
        Entry { key, data: Rc::from(data), hash_key, batch_left: 0, stamp: None }
    }

    fn hash_key(&mut self) -> HashKey {
        HashKey::new(u128::from(self.random.next()) << 64 | u128::from(self.random.next()))
    }

    fn route(&self, entry: &Entry) -> ShardId {
        let key = entry.hash_key.unwrap_or_else(|| self.stream().hash_key(&entry.key).expect("a key"));
        self.ledger.shard_of(key)
    }

    fn put(&mut self) -> Result<(), Error> {
        let entry = self.entry();
        let synced = self.random.one_in(3);
        self.put_entry(entry, synced)
    }

    pub(crate) fn put_entry(&mut self, entry: Entry, synced: bool) -> Result<(), Error> {
        let id = self.route(&entry);
        let mut options = PutOptions::new();
        options.explicit_hash_key = entry.hash_key;
        options.durability = synced.then_some(Durability::Synced);
        let synced = synced || self.durability == Durability::Synced;
        match self.stream().put_with(&entry.key, &entry.data, options) {
            Ok(receipt) => {
                assert_eq!(receipt.shard_id, id, "where {} went", entry.key);
                assert!(!self.ledger.shard(id).failed, "{id} took a record after it failed");
                let stream = self.stream.as_ref().expect("an open stream");
                self.ledger.acknowledge(stream, entry, receipt, synced);
                Ok(())
            }
            Err(error) => {
                self.attempted(vec![(id, vec![entry])], &error);
                Err(error)
            }
        }
    }

    fn put_batch(&mut self) -> Result<(), Error> {
        let count = 1 + self.random.below(7);
        let mut entries: Vec<_> = (0..count).map(|_| self.entry()).collect();
        let mut left = BTreeMap::new();
        for entry in entries.iter_mut().rev() {
            let left = left.entry(self.route(entry)).or_insert(0);
            entry.batch_left = *left;
            *left += 1;
        }
        let synced = self.random.one_in(3);
        let level = if synced { Durability::Synced } else { Durability::Buffered };
        let puts: Vec<_> = entries
            .iter()
            .map(|entry| PutEntry { explicit_hash_key: entry.hash_key, ..PutEntry::new(&entry.key, &entry.data) })
            .collect();
        let outcome = self.stream().put_batch_with(&puts, level);
        drop(puts);
        match outcome {
            Ok(receipts) => {
                assert_eq!(receipts.len(), entries.len(), "a receipt for each record");
                let stream = self.stream.as_ref().expect("an open stream");
                for (entry, receipt) in entries.into_iter().zip(receipts) {
                    self.ledger.acknowledge(
                        stream,
                        entry,
                        receipt,
                        synced || self.durability == Durability::Synced,
                    );
                }
                Ok(())
            }
            Err(error) => {
                let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
                for entry in entries {
                    groups.entry(self.route(&entry)).or_default().push(entry);
                }
                self.attempted_parts(groups.into_iter().collect(), &error);
                Err(error)
            }
        }
    }

    /// A put that failed may have happened all the same, unless the error says that nothing was written.
    fn attempted(&mut self, groups: Vec<(ShardId, Vec<Entry>)>, error: &Error) {
        if error.kind() == ErrorKind::StorageFull {
            return;
        }
        self.attempted_parts(groups, error);
    }

    fn attempted_parts(&mut self, groups: Vec<(ShardId, Vec<Entry>)>, error: &Error) {
        for (id, entries) in groups {
            self.ledger.shard(id).attempts.push(entries);
        }
        if let Error::ShardFailed { shard_id, .. } = error {
            self.ledger.shard(*shard_id).failed = true;
        }
    }

    /// A conditional put whose condition does not hold, of a size that may ask for a new segment.
    fn conditional(&mut self) -> Result<(), Error> {
        let entry = self.entry();
        let id = self.route(&entry);
        let wrong = SequenceNumber::new(self.ledger.shard(id).next() + 1000);
        let mut options = PutOptions::new().expect_next(wrong);
        options.explicit_hash_key = entry.hash_key;
        match self.stream().put_with(&entry.key, &entry.data, options) {
            Err(Error::SequenceNumberMismatch { expected, .. }) if expected == wrong => Ok(()),
            Err(error) => {
                if let Error::ShardFailed { shard_id, .. } = &error {
                    self.ledger.shard(*shard_id).failed = true;
                }
                Err(error)
            }
            Ok(receipt) => panic!("a condition on {wrong} held at {receipt:?}"),
        }
    }

    fn sync(&mut self) -> Result<(), Error> {
        self.stream().sync()?;
        for shard in self.ledger.shards.values_mut() {
            shard.all_durable();
        }
        if self.consumer.is_some() {
            self.ledger.consumer.all_durable(); // those of an earlier process are not its concern
        }
        Ok(())
    }

    fn split(&mut self) -> Result<(), Error> {
        let open = self.ledger.open_shards();
        if open.len() >= 5 {
            return self.merge();
        }
        let parent = open[self.random.index(open.len())];
        let range = self.ledger.shards[&parent].range;
        let width = range.end().get() - range.start().get();
        let at = self.random.one_in(2).then(|| {
            let offset = self.hash_key().get() % width;
            HashKey::new(range.start().get() + 1 + offset)
        });
        let (lower, upper) = range.split(at.or_else(|| range.middle()).unwrap()).expect("a wide range");
        let reshard = Reshard { parents: vec![parent], ranges: vec![lower, upper] };
        let outcome = self.stream().split_shard(parent, at).map(|(lower, upper)| vec![lower, upper]);
        self.resharded(reshard, outcome)
    }

    fn merge(&mut self) -> Result<(), Error> {
        let open = self.ledger.open_shards();
        if open.len() < 2 {
            return self.put();
        }
        let first = self.random.index(open.len() - 1);
        let (lower, upper) = (open[first], open[first + 1]);
        let joined = self.ledger.shards[&lower].range.join(self.ledger.shards[&upper].range);
        let reshard = Reshard { parents: vec![lower, upper], ranges: vec![joined.expect("neighbours")] };
        let outcome = self.stream().merge_shards(lower, upper).map(|child| vec![child]);
        self.resharded(reshard, outcome)
    }

    fn resharded(&mut self, reshard: Reshard, outcome: Result<Vec<ShardId>, Error>) -> Result<(), Error> {
        match outcome {
            Ok(children) => {
                self.catch_up_with_attempts(&reshard.parents)?;
                let starting = reshard.parents.iter().map(|parent| self.ledger.shards[parent].next()).max();
                self.ledger.apply(&reshard, &children, starting.expect("a parent"));
                Ok(())
            }
            Err(error) => {
                self.ledger.pending.push(reshard);
                if let Error::ShardFailed { shard_id, .. } = &error {
                    self.ledger.shard(*shard_id).failed = true;
                }
                Err(error)
            }
        }
    }

    /// Closed shards have an exact end: reads what of the attempts is there.
    fn catch_up_with_attempts(&mut self, shards: &[ShardId]) -> Result<(), Error> {
        for id in shards.iter().copied() {
            if self.ledger.shard(id).attempts.is_empty() {
                continue;
            }
            let from = SequenceNumber::new(self.ledger.shard(id).next());
            let mut iterator = match self.stream().shard_iterator(id, ShardIteratorType::AtSequenceNumber(from)) {
                // Attempts that were there may have expired before anybody looked.
                Err(Error::Trimmed { earliest, .. }) => {
                    self.ledger.starts_at(id, earliest.get());
                    self.stream().shard_iterator(id, ShardIteratorType::TrimHorizon)?
                }
                other => other?,
            };
            while let Some(record) = iterator.available().next() {
                self.ledger.shown(&record?, true);
            }
        }
        Ok(())
    }

    fn trim(&mut self) -> Result<(), Error> {
        let ids: Vec<_> = self.ledger.shards.keys().copied().collect();
        let id = ids[self.random.index(ids.len())];
        let shard = &self.ledger.shards[&id];
        let (lowest, highest) = (shard.starting, shard.durable_next());
        let before = self.random.within(lowest..highest + 1);
        self.ledger.shard(id).horizon_most = self.ledger.shards[&id].horizon_most.max(before);
        match self.stream().trim_shard(id, SequenceNumber::new(before)) {
            // The shard may have gone with a retention that met an error behind its manifest.
            Err(Error::ShardNotFound(_)) if self.fault.is_some() => return Ok(()),
            other => other?,
        };
        let shard = self.ledger.shard(id);
        shard.horizon = shard.horizon.max(before);
        Ok(())
    }

    fn enforce_retention(&mut self) -> Result<(), Error> {
        self.clock.advance(Duration::from_secs(self.random.within(10..45)));
        let report = self.stream().enforce_retention()?;
        for id in report.shards_removed {
            let shard = self.ledger.shards.remove(&id).expect("a shard that the ledger knows");
            let cutoff = self.ledger.cutoff(&self.clock).expect("a retention period");
            // Of a record that nobody was shown the time is not known.
            let expired = |entry: &Entry| entry.stamp.is_none_or(|stamp| stamp.arrival < cutoff);
            assert!(!shard.is_open && shard.entries.iter().all(expired), "{id} expired too early");
            self.ledger.expired.insert(id);
        }
        Ok(())
    }

    /// Reads a few records as a default reader does: what it is shown on a `Synced` stream never vanishes.
    fn read(&mut self) -> Result<(), Error> {
        let ids: Vec<_> = self.ledger.shards.keys().copied().collect();
        let id = ids[self.random.index(ids.len())];
        let count = 1 + self.random.index(30);
        let durable = self.durability == Durability::Synced;
        let mut iterator = match self.stream().shard_iterator(id, ShardIteratorType::TrimHorizon) {
            // The shard may have gone with a retention that met an error behind its manifest.
            Err(Error::ShardNotFound(_)) if self.fault.is_some() => return Ok(()),
            other => other?,
        };
        self.ledger.starts_at(id, iterator.next_sequence_number().get());
        for record in iterator.available().take(count) {
            self.ledger.shown(&record?, durable);
        }
        Ok(())
    }

    /// The consumer reads some records, and makes a checkpoint behind each lot of them.
    fn checkpoint(&mut self) -> Result<(), Error> {
        let consumer = self.consumer()?;
        let id = self.shard_to_go_on_with();
        match self.move_on(&consumer, id) {
            // Of what was not done, some is trimmed or expired: it goes on with what is left.
            Err(Error::Trimmed { .. }) => {
                self.leases.remove(&id);
                let start = (RecordsStart::TrimHorizon, Position::TrimHorizon);
                self.ledger.consumer.reset(&consumer, &[id], start)
            }
            // The shard may have gone with a retention that met an error behind its manifest.
            Err(Error::ShardNotFound(_)) if self.fault.is_some() => Ok(()),
            outcome => outcome,
        }
    }

    fn consumer(&mut self) -> Result<Consumer, Error> {
        if let Some(consumer) = &self.consumer {
            return Ok(consumer.clone());
        }
        let stream = self.stream.clone().expect("an open stream");
        let consumer = self.ledger.consumer.open(&stream, CONSUMER)?;
        self.consumer = Some(consumer.clone());
        // Where it stands, and not what it is given: a shard that failed may not be able to give it.
        self.unhindered(|world| {
            let looked = world.ledger.consumer.look(&stream, CONSUMER, &mut world.visited);
            looked.expect("an opening of the consumer");
        });
        Ok(consumer)
    }

    /// One that was not read to its end, if there is any.
    fn shard_to_go_on_with(&mut self) -> ShardId {
        let all: Vec<_> = self.ledger.shards.keys().copied().collect();
        let is_done = |id: &ShardId| {
            let shard = &self.ledger.shards[id];
            match self.ledger.consumer.position(*id) {
                Position::After(at) => shard.is_open && at.sequence_number.get() + 1 >= shard.next(),
                Position::ShardEnd => true,
                _ => shard.is_open && shard.entries.is_empty(),
            }
        };
        let undone: Vec<_> = all.iter().copied().filter(|id| !is_done(id)).collect();
        let of = if undone.is_empty() { all } else { undone };
        of[self.random.index(of.len())]
    }

    fn move_on(&mut self, consumer: &Consumer, id: ShardId) -> Result<(), Error> {
        let known = &mut self.ledger.consumer;
        let in_force = known.in_force(consumer, id)?.epoch;
        if self.leases.get(&id).is_none_or(|lease| lease.epoch() != in_force) {
            self.leases.insert(id, known.take(consumer, id, "worker")?);
        }
        // Some in a row, so that there is more than one that no sync covered.
        (0..=self.random.below(3)).try_for_each(|_| {
            let many = 1 + self.random.index(3);
            self.ledger.consumer.move_on(consumer, &self.leases[&id], many)
        })
    }

    fn close_and_reopen(&mut self) -> Result<(), Error> {
        self.close()?;
        self.reopen()?;
        assert!(self.stream().recovery().was_clean, "a clean close");
        Ok(())
    }

    /// Ends this life of the stream as well as it can be.
    pub(crate) fn close(&mut self) -> Result<(), Error> {
        let had_consumer = self.consumer.is_some();
        let stream = self.let_go().expect("an open stream");
        stream.close()?;
        self.ledger.shards.values_mut().for_each(ShardLedger::all_durable);
        if had_consumer {
            self.ledger.consumer.all_durable();
        }
        Ok(())
    }

    /// Drops all handles but this one.
    fn let_go(&mut self) -> Option<Stream> {
        self.leases.clear();
        self.consumer = None;
        self.stream.take()
    }

    fn crash_and_reopen(&mut self, crash: Crash, survives: Survives) -> Result<(), Error> {
        self.replace_disk(crash);
        if survives == Survives::Durable {
            self.ledger.shards.values_mut().for_each(|shard| shard.written = shard.durable);
            self.ledger.consumer.crashed(survives);
        }
        self.stream = Some(self.builder().open_existing(PATH)?);
        self.settle(survives);
        Ok(())
    }

    /// The machine or the process dies: the old disk's handles are dead from then on.
    fn replace_disk(&mut self, crash: Crash) {
        let operations = i64::try_from(self.operations()).unwrap();
        self.disk = self.disk.crash(crash);
        self.operations_before = operations;
        drop(self.let_go());
        self.plan_fault();
    }

    pub(crate) fn reopen(&mut self) -> Result<(), Error> {
        drop(self.let_go());
        self.stream = Some(self.builder().open_existing(PATH)?);
        self.settle(Survives::Written);
        Ok(())
    }

    /// Checks the stream against the ledger.
    pub(crate) fn settle(&mut self, survives: Survives) {
        self.unhindered(|world| {
            let stream = world.stream.as_ref().expect("an open stream");
            world.ledger.settle(stream, &world.clock, survives, &mut world.visited);
        });
    }

    /// A look at what is there: the faults wait meanwhile, and what it reads is not counted.
    fn unhindered(&mut self, look: impl FnOnce(&mut Self)) {
        let operations = self.operations();
        self.disk.clear_faults();
        if self.power_is_cut() {
            return; // the call before swallowed the cut: nothing was promised since
        }
        look(self);
        self.operations_before =
            i64::try_from(operations).unwrap() - i64::try_from(self.disk.operations()).unwrap();
        self.plan_fault();
    }
}

/// Merges two neighbours, or splits a shard.
pub(crate) fn reshard_somewhere(stream: &Stream, random: &mut Random) -> Result<(), Error> {
    let open = stream.open_shards(); // in the order of their ranges
    if open.len() > 1 && random.one_in(2) {
        let lower = random.index(open.len() - 1);
        return stream.merge_shards(open[lower], open[lower + 1]).map(drop);
    }
    stream.split_shard(open[random.index(open.len())], None).map(drop)
}

/// The process dies, or the power goes.
pub(crate) fn any_crash(random: &mut Random) -> Crash {
    let seed = random.next();
    if random.one_in(3) { Crash::ProcessKilled } else { Crash::PowerLost { seed } }
}

pub(crate) fn builder(disk: &SimulatedDisk, clock: &Arc<ManualClock>) -> StreamBuilder {
    Stream::builder().storage(Arc::new(disk.clone())).clock(Arc::<ManualClock>::clone(clock)).background(false)
}

/// One record for each open shard, `Synced`; each must get the next number and be readable at once.
pub(crate) fn probe(stream: &Stream, ledger: &mut Ledger, tag: &str) {
    for id in ledger.open_shards() {
        let range: HashKeyRange = ledger.shards[&id].range;
        for key in [range.start(), range.end()] {
            let data = format!("{tag} {id} {key}");
            let entry = Entry {
                key: format!("hash-{key}"),
                data: Rc::from(data.as_bytes()),
                hash_key: Some(key),
                batch_left: 0,
                stamp: None,
            };
            let options = PutOptions::new().explicit_hash_key(key).durability(Durability::Synced);
            let receipt = stream.put_with(&entry.key, &entry.data, options).expect("a put after recovery");
            assert_eq!(receipt.shard_id, id, "where hash key {key} goes");
            ledger.acknowledge(stream, entry, receipt, true);
            let record = stream.get(id, receipt.sequence_number).expect("a record just put");
            assert!(ledger.expects(&record), "{record:?} is not what was put");
            ledger.shown(&record, true);
        }
    }
}

/// No damage is found, clean close or not.
pub(crate) fn assert_sound(disk: &SimulatedDisk, when: &str) -> VerifyReport {
    let options = VerifyOptions { storage: Some(Arc::new(disk.clone())), progress: None };
    let report = verify(Path::new(PATH), options).expect("a verification");
    assert!(report.is_sound(), "damage {when}: {:?}", report.damage);
    report
}
