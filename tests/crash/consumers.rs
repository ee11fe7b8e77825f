//! Consumers under power cuts, kills and failing calls: what was acknowledged stays, nothing is skipped, nothing is ahead of the data.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use anabranch::storage::Operation;
use anabranch::{
    Checkpoint, Clock, Consumer, Crash, DiskFault, Durability, Error, ErrorKind, HashKey, HashKeyRange, Lease,
    ManualClock, Position, PutOptions, RecordPosition, RecordsStart, SequenceNumber, ShardId, ShardIteratorType,
    SimulatedDisk, Stream, Timestamp,
};

use crate::history::{PATH, assert_sound, builder};
use crate::ledger::{Survives, Visited};
use crate::positions::{Known, Outcome, changed, check_done, drain, place};
use crate::{Case, FAULTS, Random, is_single, only_at, seeds};

const NAMES: [&str; 2] = ["billing", "audit"];
const STEPS: u64 = 14;

struct World {
    disk: SimulatedDisk,
    clock: Arc<ManualClock>,
    durability: Durability,
    stream: Option<Stream>,
    consumers: BTreeMap<&'static str, Consumer>,
    leases: BTreeMap<(&'static str, ShardId), Lease>,
    known: BTreeMap<&'static str, Known>,
    random: Random,
    fault: Option<(u64, DiskFault)>,
    operations_before: u64,
    visited: Visited,
}

impl World {
    fn new(seed: u64, durability: Durability, fault: Option<(u64, DiskFault)>) -> Self {
        let (disk, clock) = (SimulatedDisk::new(), Arc::new(ManualClock::default()));
        let stream =
            builder(&disk, &clock).shards(2).segment_bytes(4096).durability(durability).create(PATH).unwrap();
        let operations_before = 0_u64.wrapping_sub(disk.operations()); // those of the creation do not count
        let known = NAMES.map(|name| (name, Known::absent()));
        let world = Self {
            disk,
            clock,
            durability,
            stream: Some(stream),
            consumers: BTreeMap::new(),
            leases: BTreeMap::new(),
            known: known.into(),
            random: Random::new(seed),
            fault,
            operations_before,
            visited: Visited::default(),
        };
        world.plan();
        world
    }

    fn operations(&self) -> u64 {
        self.operations_before.wrapping_add(self.disk.operations())
    }

    fn plan(&self) {
        if let Some((at, fault)) = self.fault
            && let Some(nth) = at.checked_sub(self.operations())
        {
            self.disk.fail_at(nth, fault);
        }
    }

    fn stream(&self) -> Stream {
        self.stream.clone().unwrap()
    }

    fn run(&mut self) -> Result<(), Error> {
        for _ in 0..STEPS {
            let outcome = self.step();
            let is_cut = matches!(self.fault, Some((at, DiskFault::PowerCut)) if self.operations() > at);
            if let Err(error) = &outcome {
                let typed = matches!(error.kind(), ErrorKind::Io | ErrorKind::StorageFull | ErrorKind::Reopen);
                assert!(typed && self.fault.is_some(), "an error of the wrong kind: {error:?}");
            }
            if is_cut {
                return outcome;
            }
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), Error> {
        self.clock.advance(std::time::Duration::from_millis(7));
        let name = NAMES[self.random.index(2)];
        match self.random.below(20) {
            0..=3 => self.put(),
            4 => self.put().and(self.create(name)),
            5..=6 => self.take(name),
            // Often many in a row, so that there is more than one that no sync covered.
            7..=11 => (0..=self.random.below(4)).try_for_each(|_| self.checkpoint(name)),
            12 => self.reset(name),
            13 => self.release(name),
            14 if self.random.one_in(2) => self.delete(name),
            14 | 15 => self.sync(),
            16 => self.reshard(),
            17 => self.reopen(Crash::ProcessKilled, true),
            18 => self.reopen(Crash::ProcessKilled, false),
            _ => {
                let seed = self.random.next();
                self.reopen(Crash::PowerLost { seed }, false)
            }
        }
    }

    fn put(&mut self) -> Result<(), Error> {
        for _ in 0..=self.random.below(3) {
            let hash_key = HashKey::new(u128::from(self.random.next()) << 64);
            let data = vec![7; 20 + self.random.index(900)];
            self.stream().put_with("key", &data, PutOptions::new().explicit_hash_key(hash_key))?;
        }
        Ok(())
    }

    fn create(&mut self, name: &'static str) -> Result<(), Error> {
        let stream = self.stream();
        let known = self.known.get_mut(name).unwrap();
        let consumer = known.open(&stream, name)?;
        known.settle(&consumer, &mut self.visited);
        self.consumers.insert(name, consumer);
        Ok(())
    }

    fn any_shard(&mut self) -> ShardId {
        let shards = self.stream().shards();
        shards[self.random.index(shards.len())].shard_id
    }

    fn in_force(&mut self, name: &'static str, shard_id: ShardId) -> Result<Checkpoint, Error> {
        self.known.get_mut(name).unwrap().in_force(&self.consumers[name], shard_id)
    }

    fn take(&mut self, name: &'static str) -> Result<(), Error> {
        if !self.consumers.contains_key(name) {
            return self.create(name);
        }
        let shard_id = self.any_shard();
        let owner = format!("w{}", self.random.below(3));
        let lease = self.known.get_mut(name).unwrap().take(&self.consumers[name], shard_id, &owner)?;
        self.leases.insert((name, shard_id), lease);
        Ok(())
    }

    fn checkpoint(&mut self, name: &'static str) -> Result<(), Error> {
        let held: Vec<_> = self.leases.keys().filter(|(of, _)| *of == name).copied().collect();
        if held.is_empty() {
            return self.take(name);
        }
        let key = held[self.random.index(held.len())];
        let before = self.in_force(name, key.1)?;
        if self.leases[&key].epoch() != before.epoch {
            let refused = self.leases[&key].checkpoint_at(SequenceNumber::ZERO);
            let stays = matches!(
                refused,
                Err(Error::LeaseLost { .. }
                    | Error::BeyondTail { .. }
                    | Error::Io { .. }
                    | Error::ShardFailed { .. })
            );
            assert!(stays, "{refused:?}");
            self.leases.remove(&key);
            return Ok(());
        }
        let many = 1 + self.random.index(3);
        self.known.get_mut(name).unwrap().move_on(&self.consumers[name], &self.leases[&key], many)
    }

    fn release(&mut self, name: &'static str) -> Result<(), Error> {
        let Some(key) = self.leases.keys().find(|(of, _)| *of == name).copied() else { return Ok(()) };
        let before = self.in_force(name, key.1)?;
        let lease = self.leases.remove(&key).unwrap();
        if lease.epoch() != before.epoch {
            return Ok(());
        }
        let released = lease.release();
        let level = Outcome::of_level(self.durability);
        let outcome = if released.is_ok() { level } else { Outcome::Unknown };
        let next = changed(&before, |next| (next.owner, next.epoch) = (None, before.epoch + 1));
        self.known.get_mut(name).unwrap().note(next, outcome);
        released
    }

    fn reset(&mut self, name: &'static str) -> Result<(), Error> {
        let Some(consumer) = self.consumers.get(name).cloned() else { return Ok(()) };
        let time = self.clock.now();
        let start = match self.random.below(2) {
            0 => (RecordsStart::TrimHorizon, Position::TrimHorizon),
            _ => (RecordsStart::AtTimestamp(time), Position::AtTimestamp(time)),
        };
        let shards: Vec<_> = self.stream().shards().iter().map(|shard| shard.shard_id).collect();
        self.known.get_mut(name).unwrap().reset(&consumer, &shards, start)
    }

    fn delete(&mut self, name: &'static str) -> Result<(), Error> {
        self.consumers.remove(name);
        self.leases.retain(|(of, _), _| *of != name);
        let outcome = self.stream().delete_consumer(name);
        let known = self.known.get_mut(name).unwrap();
        match &outcome {
            Ok(()) => {
                assert_ne!(known.exists, Some(false));
                *known = Known::absent();
            }
            Err(Error::ConsumerNotFound(_)) => {
                assert_ne!(known.exists, Some(true));
                *known = Known::absent();
                return Ok(());
            }
            Err(_) if known.exists != Some(false) => known.deletion_failed(),
            Err(_) => {}
        }
        outcome
    }

    fn sync(&mut self) -> Result<(), Error> {
        self.stream().sync()?;
        for name in self.consumers.keys() {
            self.known.get_mut(name).unwrap().all_durable();
        }
        Ok(())
    }

    fn reshard(&mut self) -> Result<(), Error> {
        let open = self.stream().open_shards();
        match open[..] {
            [lower, upper] => self.stream().merge_shards(lower, upper).map(drop),
            _ => self.stream().split_shard(open[0], None).map(drop),
        }
    }

    fn reopen(&mut self, crash: Crash, cleanly: bool) -> Result<(), Error> {
        self.leases.clear();
        self.consumers.clear();
        let stream = self.stream.take().unwrap();
        if cleanly {
            if let Err(error) = stream.close() {
                let is_cut = matches!(self.fault, Some((at, DiskFault::PowerCut)) if self.operations() > at);
                if is_cut {
                    return Err(error);
                }
            }
        } else {
            self.crash(crash);
            drop(stream);
        }
        self.stream = Some(loop {
            match self.open() {
                Ok(stream) => break stream,
                Err(error)
                    if !matches!(self.fault, Some((_, DiskFault::PowerCut)))
                        && matches!(error.kind(), ErrorKind::Io | ErrorKind::StorageFull) => {}
                Err(error) => return Err(error),
            }
        });
        if cleanly {
            return Ok(());
        }
        self.look()
    }

    fn open(&self) -> Result<Stream, Error> {
        builder(&self.disk, &self.clock).open_existing(PATH)
    }

    /// The machine or the process ends: from now on what may be found is what survives that.
    fn crash(&mut self, crash: Crash) {
        self.operations_before = self.operations();
        self.disk = self.disk.crash(crash);
        self.plan();
        let survives = if crash == Crash::ProcessKilled { Survives::Written } else { Survives::Durable };
        self.known.values_mut().for_each(|known| known.crashed(survives));
    }

    /// Opens what consumers there are, and compares.
    fn look(&mut self) -> Result<(), Error> {
        let stream = self.stream();
        for (name, known) in &mut self.known {
            if let Some(consumer) = known.look(&stream, name, &mut self.visited)? {
                self.consumers.insert(name, consumer);
            }
        }
        Ok(())
    }

    /// After a crash: all is there, and each consumer gets exactly what it has not done, through records that take the place of lost ones.
    fn check(&mut self) {
        assert_sound(&self.disk, "after a crash");
        self.stream = Some(self.open().unwrap());
        self.look().unwrap();
        self.check_done();
        for _ in 0..4 {
            for shard_id in self.stream().open_shards() {
                let shards = self.stream().shards();
                let range: HashKeyRange =
                    shards.iter().find(|shard| shard.shard_id == shard_id).unwrap().hash_key_range;
                let at = PutOptions::new().explicit_hash_key(range.start());
                self.stream().put_with("key", b"in the place of lost ones", at).unwrap();
            }
            self.check_done();
        }
        self.consumers.clear();
        let stream = self.stream.take().unwrap();
        stream.close().unwrap();
        assert_sound(&self.disk, "after a close");
    }

    fn check_done(&mut self) {
        self.consumers.values().for_each(|consumer| check_done(consumer, &mut self.visited));
    }
}

/// Runs a history with a fault at each of its operations, crashes, and compares.
fn every_operation(test: &'static str, durability: Durability, fault: DiskFault, histories: u64) -> u64 {
    let (mut states, mut visited) = (0, Visited::default());
    for seed in seeds(histories) {
        for at in only_at().map_or(0..u64::MAX, |at| at..at + 1) {
            let mut is_over = false;
            for crash in 0..4 {
                let _case = Case { test, seed, at, detail: format!("{durability:?}, {fault:?}, crash {crash}") };
                let mut world = World::new(seed, durability, Some((at, fault)));
                let _ = world.run();
                is_over = world.operations() <= at;
                world.disk.clear_faults();
                world.leases.clear();
                world.consumers.clear();
                world.fault = None;
                let stream = world.stream.take();
                let crash = match crash {
                    0 => Crash::ProcessKilled,
                    seed => Crash::PowerLost { seed: seed * 31 + at },
                };
                world.crash(crash);
                drop(stream);
                if matches!(fault, DiskFault::PowerCut) {
                    cut_the_opening(&mut world, at);
                }
                world.check();
                states += 1;
                visited.add(&world.visited);
            }
            if is_over {
                break;
            }
        }
    }
    let rewound = visited.0["a checkpoint behind a lost tail"];
    println!("{test}: {states} states, {rewound} positions behind a lost tail");
    if !is_single() && only_at().is_none() {
        assert!(states > 1_000, "{states}");
    }
    rewound
}

/// The power goes once more while the stream and its consumers are opened.
fn cut_the_opening(world: &mut World, at: u64) {
    world.disk.fail_at(3 + at * 7 % 60, DiskFault::PowerCut);
    if let Ok(stream) = world.open() {
        for name in NAMES {
            if stream.consumers().is_ok_and(|names| names.iter().any(|known| known == name)) {
                let _ = stream.consumer(name);
            }
        }
        world.crash(Crash::PowerLost { seed: at });
        drop(stream);
    } else {
        world.crash(Crash::PowerLost { seed: at });
    }
}

#[test]
fn synced_consumers_survive_a_cut_at_every_operation() {
    let test = "synced_consumers_survive_a_cut_at_every_operation";
    assert_eq!(every_operation(test, Durability::Synced, DiskFault::PowerCut, 6), 0);
}

#[test]
fn buffered_consumers_survive_a_cut_at_every_operation() {
    let test = "buffered_consumers_survive_a_cut_at_every_operation";
    let rewound = every_operation(test, Durability::Buffered, DiskFault::PowerCut, 6);
    assert!(rewound > 0 || is_single(), "no position was ever behind a lost tail");
}

#[test]
fn consumers_survive_every_failing_operation() {
    for durability in [Durability::Synced, Durability::Buffered] {
        for fault in FAULTS {
            every_operation("consumers_survive_every_failing_operation", durability, fault, 2);
        }
    }
}

/// A checkpoint at 100 in the fifth life; the power takes the tail down to 80; the sixth life writes past 100: it goes on at 80.
#[test]
fn a_position_behind_a_lost_tail_goes_on_where_the_tail_was_cut() {
    for (rewritten, expected) in [(0, 0), (5, 5), (40, 40)] {
        let (mut disk, clock) = (SimulatedDisk::new(), Arc::new(ManualClock::default()));
        let options = |disk: &SimulatedDisk| builder(disk, &clock);
        drop(options(&disk).durability(Durability::Buffered).create(PATH).unwrap());
        for _ in 2..5 {
            options(&disk).open_existing(PATH).unwrap().close().unwrap();
        }
        let stream = options(&disk).open_existing(PATH).unwrap();
        let consumer = stream.consumer("c").unwrap();
        let lease = consumer.take(ShardId::new(0), "w").unwrap();
        for _ in 0..80 {
            stream.put("key", b"durable").unwrap();
        }
        stream.sync().unwrap();
        let before = stream.shard_iterator(ShardId::new(0), ShardIteratorType::Latest).unwrap();
        for _ in 80..=100 {
            stream.put("key", b"lost").unwrap();
        }
        let last = drain(before).pop().unwrap();
        assert_eq!(place(&last), (100, 5));
        lease.checkpoint(&last).unwrap();
        consumer.sync().unwrap(); // the position alone
        let mut cut = None;
        for seed in 0..2_000 {
            let lost = disk.fork(Crash::PowerLost { seed });
            let stream = options(&lost).open_existing(PATH).unwrap();
            if stream.describe().unwrap().shards[0].next_sequence_number.get() == 80 {
                cut = Some((lost, stream));
                break;
            }
        }
        drop((lease, consumer, stream));
        let stream;
        (disk, stream) = cut.expect("a power cut that takes the whole tail");
        for _ in 0..rewritten {
            stream.put("key", b"in its place").unwrap();
        }
        let consumer = stream.consumer("c").unwrap();
        let Position::After(at) = consumer.checkpoint(ShardId::new(0)).unwrap().position else { panic!() };
        assert_eq!((at.sequence_number.get(), at.incarnation), (100, 5));
        let mut iterator = consumer.iterator(ShardId::new(0)).unwrap();
        assert_eq!(iterator.next_sequence_number().get(), 80);
        let given: Vec<_> = iterator.available().map(|record| place(&record.unwrap())).collect();
        assert_eq!(given, (80..80 + expected).map(|number| (number, 6)).collect::<Vec<_>>());
        // And it may be checkpointed, although the number is lower.
        let lease = consumer.take(ShardId::new(0), "w").unwrap();
        if rewritten > 0 {
            lease.checkpoint_at(SequenceNumber::new(80)).unwrap();
            assert_eq!(drain(consumer.iterator(ShardId::new(0)).unwrap()).len() as u64, expected - 1);
        }
        assert_sound(&disk, "at the end");
    }
}

/// Whoever made the file died before its name was durable: the next one makes it so before anything is acknowledged.
#[test]
fn a_consumer_whose_maker_died_stays_once_somebody_uses_it() {
    let mut cuts = 0;
    for nth in 0..4 {
        for seed in 0..60 {
            let clock = Arc::new(ManualClock::default());
            let disk = SimulatedDisk::new();
            let stream = builder(&disk, &clock).create(PATH).unwrap();
            disk.fail_on(Operation::SyncDir, nth, DiskFault::PowerCut);
            cuts += u64::from(stream.consumer("c").is_err());
            let killed = disk.crash(Crash::ProcessKilled);
            drop(stream);
            let stream = builder(&killed, &clock).open_existing(PATH).unwrap();
            stream.consumer("c").unwrap().take(ShardId::new(0), "w").unwrap();
            let lost = killed.crash(Crash::PowerLost { seed });
            drop(stream);
            let stream = builder(&lost, &clock).open_existing(PATH).unwrap();
            assert_eq!(stream.consumers().unwrap(), ["c"], "sync {nth}, seed {seed}");
            assert_eq!(stream.consumer("c").unwrap().checkpoint(ShardId::new(0)).unwrap().epoch, 1);
        }
    }
    assert!(cuts >= 120, "{cuts}");
}

/// A slot is made while the power goes: it is there or it is not, and never damage.
#[test]
fn a_slot_that_was_cut_short_is_no_damage() {
    let mut made = [0, 0];
    for operation in [Operation::Write, Operation::Sync] {
        for nth in 0..4 {
            for seed in 0..150 {
                let clock = Arc::new(ManualClock::default());
                let disk = SimulatedDisk::new();
                let stream = builder(&disk, &clock).create(PATH).unwrap();
                let consumer = stream.consumer("c").unwrap();
                let (lower, _) = stream.split_shard(ShardId::new(0), None).unwrap();
                disk.fail_on(operation, nth, DiskFault::PowerCut);
                let is_taken = consumer.take(lower, "w").is_ok();
                let lost = disk.crash(Crash::PowerLost { seed });
                drop((consumer, stream));
                assert_sound(&lost, "after a cut");
                let stream = builder(&lost, &clock).open_existing(PATH).unwrap();
                let epoch = stream.consumer("c").unwrap().checkpoint(lower).unwrap().epoch;
                assert!(epoch == 1 || !is_taken);
                made[usize::try_from(epoch).unwrap()] += 1;
                stream.consumer("c").unwrap().take(lower, "w").unwrap();
            }
        }
    }
    assert!(made[0] > 100 && made[1] > 100, "{made:?}");
}

/// On a `Synced` stream a position that is kept is one whose record is: also of a record that was read before it was durable.
#[test]
fn a_checkpoint_makes_its_record_durable_first() {
    let (disk, clock) = (SimulatedDisk::new(), Arc::new(ManualClock::default()));
    let stream = builder(&disk, &clock).create(PATH).unwrap();
    stream.put("key", b"durable").unwrap();
    let consumer = stream.consumer("c").unwrap();
    let lease = consumer.take(ShardId::new(0), "w").unwrap();
    let (opened, synced) = (disk.operations_of(Operation::Lock), disk.operations_of(Operation::Sync));
    disk.stall_syncs(true);
    std::thread::scope(|scope| {
        scope.spawn(|| stream.put("key", b"in flight").unwrap());
        while disk.operations_of(Operation::Sync) == synced {
            std::thread::yield_now();
        }
        let iterator = stream.shard_iterator(ShardId::new(0), ShardIteratorType::TrimHorizon).unwrap();
        let seen = drain(iterator.include_unsynced(true));
        assert_eq!(seen.len(), 2);
        let checkpointing = scope.spawn({
            let (lease, last) = (&lease, seen[1].clone());
            move || lease.checkpoint(&last).unwrap()
        });
        let forks: Vec<_> = (0..300).map(|seed| disk.fork(Crash::PowerLost { seed })).collect();
        let locks = disk.operations_of(Operation::Lock);
        disk.stall_syncs(false); // before anything is asserted: the threads have to end
        assert_eq!(locks, opened, "it waits for the record first");
        for lost in forks {
            let stream = builder(&lost, &clock).open_existing(PATH).unwrap();
            let next = stream.describe().unwrap().shards[0].next_sequence_number;
            match stream.consumer("c").unwrap().checkpoint(ShardId::new(0)).unwrap().position {
                Position::After(at) => assert!(at.sequence_number < next, "{at:?} ahead of {next}"),
                other => assert_eq!(other, Position::TrimHorizon),
            }
        }
        checkpointing.join().unwrap();
    });
    for seed in 0..50 {
        let lost = disk.fork(Crash::PowerLost { seed });
        let stream = builder(&lost, &clock).open_existing(PATH).unwrap();
        assert!(stream.get(ShardId::new(0), SequenceNumber::new(1)).is_ok(), "seed {seed}");
        let position = stream.consumer("c").unwrap().checkpoint(ShardId::new(0)).unwrap().position;
        assert!(matches!(position, Position::After(at) if at.sequence_number.get() == 1), "{position:?}");
    }
}

/// It was read before its sync failed: no position is kept of what no opening will find.
#[test]
fn a_record_whose_sync_failed_is_not_checkpointed() {
    let (disk, clock) = (SimulatedDisk::new(), Arc::new(ManualClock::default()));
    let stream = builder(&disk, &clock).create(PATH).unwrap();
    stream.put("key", b"durable").unwrap();
    let lease = stream.consumer("c").unwrap().take(ShardId::new(0), "w").unwrap();
    disk.fail_on(Operation::Sync, 0, DiskFault::Error(io::ErrorKind::Other));
    stream.put("key", b"not durable").unwrap_err();
    let iterator = stream.shard_iterator(ShardId::new(0), ShardIteratorType::TrimHorizon).unwrap();
    let seen = drain(iterator.include_unsynced(true));
    assert_eq!(seen.len(), 2);
    for refused in [lease.checkpoint(&seen[1]), lease.checkpoint_at(seen[1].sequence_number())] {
        assert!(matches!(refused, Err(Error::ShardFailed { .. })), "{refused:?}");
    }
    lease.checkpoint(&seen[0]).unwrap();
    for seed in 0..50 {
        let lost = disk.fork(Crash::PowerLost { seed });
        let stream = builder(&lost, &clock).open_existing(PATH).unwrap();
        let position = stream.consumer("c").unwrap().checkpoint(ShardId::new(0)).unwrap().position;
        assert_eq!(position, Position::After(RecordPosition::from(&seen[0])), "seed {seed}");
    }
}

/// A write fails in its middle, and what it stored is in force all the same, where the rest of it is zeros. Whoever was shown that, and then told of a sync, is
/// not shown anything older by a power cut.
#[test]
fn what_a_failed_write_put_in_force_is_durable_behind_the_next_sync() {
    type Change = fn(&Consumer, &Lease) -> Result<(), Error>;
    type Sync = fn(&Consumer) -> Result<(), Error>;
    let changes: [Change; 3] = [
        |_, lease| lease.checkpoint_at(SequenceNumber::new(1)),
        |consumer, lease| consumer.take(lease.shard_id(), "v").map(drop),
        |consumer, _| consumer.reset(RecordsStart::AtTimestamp(Timestamp::from_millis(7))),
    ];
    let syncs: [Sync; 2] = [Consumer::sync, |consumer| consumer.stream().sync()];
    for (change, sync) in changes.iter().flat_map(|change| syncs.map(|sync| (change, sync))) {
        for durability in [Durability::Synced, Durability::Buffered] {
            let (disk, clock) = (SimulatedDisk::new(), Arc::new(ManualClock::default()));
            let stream = builder(&disk, &clock).durability(durability).create(PATH).unwrap();
            for _ in 0..2 {
                stream.put("key", b"data").unwrap();
            }
            let consumer = stream.consumer("c").unwrap();
            let lease = consumer.take(ShardId::new(0), "w").unwrap();
            stream.sync().unwrap();
            let before = consumer.checkpoint(ShardId::new(0)).unwrap();
            disk.fail_on(Operation::Write, 0, DiskFault::ShortWrite);
            change(&consumer, &lease).unwrap_err();
            let shown = consumer.checkpoint(ShardId::new(0)).unwrap();
            assert_ne!(shown, before, "it is in force");
            let found = |seed| {
                let lost = disk.fork(Crash::PowerLost { seed });
                let stream = builder(&lost, &clock).open_existing(PATH).unwrap();
                stream.consumer("c").unwrap().checkpoint(ShardId::new(0)).unwrap()
            };
            assert!((0..32).any(|seed| found(seed) == before), "and a power cut may take it");
            sync(&consumer).unwrap();
            for seed in 0..32 {
                assert_eq!(found(seed), shown, "{durability:?}, seed {seed}");
            }
        }
    }
}

/// Two processes take turns, and their syncs fail now and then: whatever the power takes then, nothing that was acknowledged to one of them is lost
/// through what the other wrote over it.
#[test]
fn what_another_process_may_have_acknowledged_is_not_overwritten() {
    for durability in [Durability::Synced, Durability::Buffered] {
        for seed in seeds(400) {
            let _case = Case {
                test: "what_another_process_may_have_acknowledged_is_not_overwritten",
                seed,
                at: 0,
                detail: format!("{durability:?}"),
            };
            take_turns(seed, durability);
        }
    }
}

fn take_turns(seed: u64, durability: Durability) {
    let mut random = Random::new(seed);
    let (disk, clock) = (SimulatedDisk::new(), Arc::new(ManualClock::default()));
    let writer = builder(&disk, &clock).durability(durability).create(PATH).unwrap();
    for _ in 0..60 {
        writer.put("key", b"data").unwrap();
    }
    drain(writer.shard_iterator(ShardId::new(0), ShardIteratorType::TrimHorizon).unwrap());
    writer.sync().unwrap();
    let reader = builder(&disk, &clock).open_read_only(PATH).unwrap();
    let handles = [writer.consumer("c").unwrap(), reader.consumer("c").unwrap()];
    let (mut acknowledged, mut epoch, mut next) = (None, 0, 0_u64);
    for _ in 0..12 {
        let consumer = &handles[random.index(2)];
        let fail = |random: &mut Random| {
            disk.clear_faults();
            if random.one_in(3) {
                disk.fail_on(Operation::Sync, random.below(2), DiskFault::Error(io::ErrorKind::Other));
            }
        };
        fail(&mut random);
        let Ok(lease) = consumer.take(ShardId::new(0), "w") else { continue };
        epoch = lease.epoch();
        for _ in 0..random.below(4) {
            fail(&mut random);
            if lease.checkpoint_at(SequenceNumber::new(next)).is_ok() && durability == Durability::Synced {
                acknowledged = Some(next);
            }
            next += 1;
        }
    }
    for seed in 0..12 {
        let lost = disk.fork(Crash::PowerLost { seed });
        let stream = builder(&lost, &clock).open_existing(PATH).unwrap();
        let found = stream.consumer("c").unwrap().checkpoint(ShardId::new(0)).unwrap();
        let at = match found.position {
            Position::After(at) => Some(at.sequence_number.get()),
            _ => None,
        };
        assert!(at >= acknowledged, "at {at:?} after {acknowledged:?}, power cut {seed}");
        assert!(found.epoch >= epoch, "epoch {} after {epoch}, power cut {seed}", found.epoch);
    }
}

/// The writer of the stream makes the slot of a new shard, and cannot make it durable. Another process, which had the file open before, finds it there.
#[test]
fn a_slot_that_another_process_made_is_durable_with_what_is_done_in_it() {
    for seed in seeds(100) {
        let (disk, clock) = (SimulatedDisk::new(), Arc::new(ManualClock::default()));
        let writer = builder(&disk, &clock).create(PATH).unwrap();
        let reader = builder(&disk, &clock).open_read_only(PATH).unwrap();
        let [first, other] = [&writer, &reader].map(|stream| stream.consumer("c").unwrap());
        let (child, _) = writer.split_shard(ShardId::new(0), None).unwrap();
        disk.fail_on(Operation::Sync, 0, DiskFault::Error(io::ErrorKind::Other));
        first.take(child, "w").unwrap_err();
        let epoch = other.take(child, "w").unwrap().epoch();
        let disk = disk.crash(Crash::PowerLost { seed });
        let stream = builder(&disk, &clock).open_existing(PATH).unwrap();
        let found = stream.consumer("c").unwrap().checkpoint(child).unwrap();
        assert!(found.epoch >= epoch, "seed {seed}: {found:?} behind {epoch}");
    }
}

/// A sync failed, and the next one would not tell that what it was to make durable is lost. That of a new slot is the next one.
#[test]
fn a_new_slot_does_not_vouch_for_what_a_failed_sync_left() {
    for seed in seeds(100) {
        let (disk, clock) = (SimulatedDisk::new(), Arc::new(ManualClock::default()));
        let made = builder(&disk, &clock).shards(2).durability(Durability::Buffered);
        let stream = made.create(PATH).unwrap();
        let options = PutOptions::new().explicit_hash_key(HashKey::MAX);
        let put = stream.put_with("key", b"data", options).unwrap();
        let consumer = stream.consumer("c").unwrap();
        let lease = consumer.take(put.shard_id, "w").unwrap();
        stream.sync().unwrap();
        lease.checkpoint_at(put.sequence_number).unwrap();
        disk.fail_on(Operation::Sync, 0, DiskFault::Error(io::ErrorKind::Other));
        consumer.sync().unwrap_err();
        let (child, _) = stream.split_shard(ShardId::new(0), None).unwrap();
        consumer.take(child, "w").unwrap();
        stream.sync().unwrap();
        let done = consumer.checkpoint(put.shard_id).unwrap();
        let disk = disk.crash(Crash::PowerLost { seed });
        let stream = builder(&disk, &clock).open_existing(PATH).unwrap();
        let found = stream.consumer("c").unwrap().checkpoint(put.shard_id).unwrap();
        assert_eq!(found, done, "seed {seed}");
    }
}

/// The same, one step at a time, with many power cuts: a durable value stays whatever is written after it, and is lost, unsynced, torn.
#[test]
fn what_was_durable_outlives_all_that_is_written_behind_it() {
    const OTHERS: usize = 5;
    // Names that differ in every byte, so that a tear anywhere is one.
    let name = |number: usize| ["a", "b", "c", "d", "e", "f", "g"][number % 7].repeat(120);
    for failing in [None, Some(0), Some(1)] {
        let (disk, clock) = (SimulatedDisk::new(), Arc::new(ManualClock::default()));
        let durability = if failing.is_none() { Durability::Buffered } else { Durability::Synced };
        let stream = builder(&disk, &clock).durability(durability).create(PATH).unwrap();
        for _ in 0..20 {
            stream.put("key", b"data").unwrap();
        }
        stream.sync().unwrap();
        let others: Vec<_> = (0..OTHERS).map(|_| builder(&disk, &clock).open_read_only(PATH).unwrap()).collect();
        let others: Vec<_> = others.iter().map(|stream| stream.consumer("c").unwrap()).collect();
        let consumer = stream.consumer("c").unwrap();
        for owner in 0..3 {
            let lease = consumer.take(ShardId::new(0), &name(owner)).unwrap();
            lease.checkpoint_at(SequenceNumber::new(owner as u64)).unwrap();
        }
        consumer.sync().unwrap();
        let durable = consumer.checkpoint(ShardId::new(0)).unwrap();
        if let Some(nth) = failing {
            for (owner, other) in (3..).zip(&others) {
                disk.fail_on(Operation::Sync, nth, DiskFault::Error(io::ErrorKind::Other));
                assert!(other.take(ShardId::new(0), &name(owner)).is_err());
                disk.clear_faults();
            }
        } else {
            let lease = consumer.take(ShardId::new(0), &name(3)).unwrap();
            // As many as there are copies: the last one takes the place of the durable one, if that is free to be taken.
            (3..6).for_each(|number| lease.checkpoint_at(SequenceNumber::new(number)).unwrap());
        }
        for seed in 0..if failing.is_none() { 8_000 } else { 1_500 } {
            let lost = disk.fork(Crash::PowerLost { seed });
            let stream = builder(&lost, &clock).open_existing(PATH).unwrap();
            let found = stream.consumer("c").unwrap().checkpoint(ShardId::new(0)).unwrap();
            let number = |checkpoint: &Checkpoint| match checkpoint.position {
                Position::After(at) => at.sequence_number.get(),
                other => panic!("at {other:?}, {failing:?}, power cut {seed}"),
            };
            assert!(
                number(&found) >= number(&durable),
                "{found:?} after {durable:?}, {failing:?}, power cut {seed}"
            );
            assert!(found.epoch >= durable.epoch + u64::from(failing.is_none()), "{found:?}, power cut {seed}");
        }
    }
}

/// Somebody who has the stream open, and the consumer, and looks.
struct Onlooker {
    stream: Stream,
    reader: Stream,
    consumer: Consumer,
}

/// The ways to be told that the consumer is gone.
const LOOKS: [fn(&Onlooker) -> bool; 3] = [
    |at| at.stream.consumers().unwrap().is_empty(),
    |at| at.reader.consumers().unwrap().is_empty(),
    |at| match at.consumer.checkpoints() {
        Ok(_) => false,
        Err(Error::ConsumerNotFound(_)) => true,
        Err(other) => panic!("{other:?}"),
    },
];

/// A deletion fails somewhere. Who is told that the consumer is gone, without another opening of the stream, is told what no power cut takes back.
#[test]
fn a_consumer_that_somebody_met_as_deleted_stays_deleted() {
    for look in LOOKS {
        let mut gone = 0;
        for nth in 0.. {
            let (clock, disk) = (Arc::new(ManualClock::default()), SimulatedDisk::new());
            let stream = builder(&disk, &clock).create(PATH).unwrap();
            let reader = builder(&disk, &clock).open_read_only(PATH).unwrap();
            let consumer = stream.consumer("c").unwrap();
            disk.fail_at(nth, DiskFault::Error(io::ErrorKind::Other));
            if stream.delete_consumer("c").is_ok() {
                break;
            }
            if !look(&Onlooker { stream, reader, consumer }) {
                continue;
            }
            gone += 1;
            for seed in 0..64 {
                let lost = disk.fork(Crash::PowerLost { seed });
                let stream = builder(&lost, &clock).open_existing(PATH).unwrap();
                assert_eq!(stream.consumers().unwrap(), Vec::<String>::new(), "{nth}, {seed}");
            }
        }
        assert!(gone > 1, "it never failed behind the mark");
    }
}

/// A deletion that failed in the middle of its mark is none, and no damage: the consumer is as it was, for all who look, and is deleted by the next attempt.
#[test]
fn a_mark_that_was_cut_short_deletes_nothing() {
    let (clock, disk) = (Arc::new(ManualClock::default()), SimulatedDisk::new());
    let stream = builder(&disk, &clock).create(PATH).unwrap();
    let reader = builder(&disk, &clock).open_read_only(PATH).unwrap();
    stream.put("key", b"data").unwrap();
    let consumer = stream.consumer("c").unwrap();
    let lease = consumer.take(ShardId::new(0), "w").unwrap();
    disk.fail_on(Operation::Write, 0, DiskFault::ShortWrite);
    assert_eq!(stream.delete_consumer("c").unwrap_err().kind(), ErrorKind::Io);
    let marked = disk.read_file(&std::path::Path::new(PATH).join("consumers/c")).unwrap();
    assert_eq!(&marked[248..256], b"DELE\0\0\0\0");
    lease.checkpoint_at(SequenceNumber::ZERO).unwrap();
    let onlooker = Onlooker { stream, reader, consumer };
    for look in LOOKS {
        assert!(!look(&onlooker));
    }
    for seed in 0..32 {
        let lost = disk.fork(Crash::PowerLost { seed });
        assert_sound(&lost, "behind half a mark");
        let stream = builder(&lost, &clock).open_existing(PATH).unwrap();
        assert_eq!(stream.consumers().unwrap(), ["c"]);
        let position = stream.consumer("c").unwrap().checkpoint(ShardId::new(0)).unwrap().position;
        assert!(matches!(position, Position::After(_)), "{position:?}");
    }
    onlooker.stream.delete_consumer("c").unwrap();
    for look in LOOKS {
        assert!(look(&onlooker));
    }
}

/// A consumer's file is read in pieces of 256 slots: what is behind the first of them is found, taken, moved on and found again like what is in it.
#[test]
fn shards_behind_the_first_piece_of_the_file_are_kept_like_others() {
    const MADE_WITH: u32 = 254;
    let clock = Arc::new(ManualClock::default());
    let disk = SimulatedDisk::new();
    let stream = builder(&disk, &clock).shards(MADE_WITH).segment_bytes(4096).create(PATH).unwrap();
    drop(stream.consumer("c").unwrap());
    for parent in [0, 1] {
        stream.split_shard(ShardId::new(parent), None).unwrap();
    }
    for shard in stream.shards().iter().filter(|shard| shard.shard_id.get() >= MADE_WITH) {
        let to_shard = PutOptions::new().explicit_hash_key(shard.hash_key_range.start());
        assert_eq!(stream.put_with("key", b"data", to_shard).unwrap().shard_id, shard.shard_id);
    }
    stream.close().unwrap();
    let (last_made, added) = (ShardId::new(MADE_WITH - 1), (MADE_WITH..MADE_WITH + 4).map(ShardId::new));
    let use_it = |disk: &SimulatedDisk, nth, done: &mut BTreeMap<ShardId, u64>| -> Result<(), Error> {
        let stream = builder(disk, &clock).open_existing(PATH)?;
        let consumer = stream.consumer("c")?;
        disk.fail_at(nth, DiskFault::PowerCut);
        for shard_id in [last_made].into_iter().chain(added.clone()) {
            let lease = consumer.take(shard_id, "w")?;
            done.insert(shard_id, 0);
            if shard_id != last_made {
                lease.checkpoint_at(SequenceNumber::ZERO)?;
                done.insert(shard_id, 1);
            }
        }
        Ok(())
    };
    // How many records of it are done, of each shard that was taken.
    let done_in = |disk: &SimulatedDisk| -> BTreeMap<ShardId, u64> {
        let stream = builder(disk, &clock).open_existing(PATH).unwrap();
        let all = stream.consumer("c").unwrap().checkpoints().unwrap();
        let taken = all.into_iter().filter(|at| at.epoch > 0);
        taken.map(|at| (at.shard_id, u64::from(matches!(at.position, Position::After(_))))).collect()
    };
    for nth in 0.. {
        let cut = disk.fork(Crash::ProcessKilled);
        let mut done = BTreeMap::new();
        let is_whole = use_it(&cut, nth, &mut done).is_ok();
        for crash in [Crash::ProcessKilled, Crash::PowerLost { seed: nth }] {
            let lost = cut.fork(crash);
            assert_sound(&lost, "after a cut");
            let found = done_in(&lost);
            let is_kept = |(shard_id, count): (&ShardId, &u64)| found.get(shard_id) >= Some(count);
            assert!(done.iter().all(is_kept), "cut at {nth}, {crash:?}: {found:?} after {done:?}");
            assert!(found.len() <= done.len() + 1, "cut at {nth}, {crash:?}: {found:?} after {done:?}");
        }
        if is_whole {
            assert_eq!(done.len(), 5);
            check_every_end(&cut.fork(Crash::ProcessKilled), &clock, MADE_WITH..MADE_WITH + 4);
            break;
        }
    }
}

/// A file with so many slots, cut before the end of each of the last of them, is damaged.
fn check_every_end(disk: &SimulatedDisk, clock: &Arc<ManualClock>, slots: std::ops::Range<u32>) {
    let path = std::path::Path::new(PATH).join("consumers/c");
    for slot in slots {
        let cut = disk.fork(Crash::ProcessKilled);
        let end = 256 + 768 * slot as usize;
        cut.damage(&path, |bytes| bytes.truncate(end)).unwrap();
        let stream = builder(&cut, clock).open_existing(PATH).unwrap();
        let refused = stream.consumer("c").unwrap_err();
        let Error::Corrupt(damage) = refused else { panic!("slot {slot}: {refused:?}") };
        assert_eq!((damage.path.as_path(), damage.offset), (path.as_path(), end as u64));
    }
}
