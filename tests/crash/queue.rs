//! Queues under power cuts, kills and failing calls: whatever was not acknowledged comes, what was acknowledged and synced does not come again, and what was set
//! aside then is so still.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anabranch::{
    Crash, DiskFault, Durability, Error, ErrorKind, HashKey, ManualClock, PutOptions, Queue, QueueOptions,
    Received, ShardId, SimulatedDisk, Stream,
};

use crate::history::{PATH, assert_sound, builder};
use crate::{Case, FAULTS, Random, is_single, only_at, seeds};

const STEPS: u64 = 16;
const VISIBILITY: Duration = Duration::from_secs(30);
const MAX_RECEIVES: u32 = 2;

type Place = (ShardId, u64);

fn options() -> QueueOptions {
    QueueOptions::new().max_receives(MAX_RECEIVES).visibility(VISIBILITY)
}

/// What is known of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Open,
    /// It is, or would be if a call had not failed.
    Done,
    SetAside,
}

struct World {
    disk: SimulatedDisk,
    clock: Arc<ManualClock>,
    durability: Durability,
    stream: Option<Stream>,
    queue: Option<Queue>,
    /// What was acknowledged or set aside, in this life.
    now: BTreeMap<Place, Known>,
    /// The same as it was when it was last known to be durable.
    kept: BTreeMap<Place, Known>,
    /// Everything that was acknowledged, ever: only that may be gone.
    ever_done: BTreeSet<Place>,
    held: Vec<Received>,
    random: Random,
    fault: Option<(u64, DiskFault)>,
    operations_before: u64,
}

impl World {
    fn new(seed: u64, durability: Durability, fault: Option<(u64, DiskFault)>) -> Self {
        let (disk, clock) = (SimulatedDisk::new(), Arc::new(ManualClock::default()));
        let stream =
            builder(&disk, &clock).shards(2).segment_bytes(4096).durability(durability).create(PATH).unwrap();
        let operations_before = 0_u64.wrapping_sub(disk.operations());
        let world = Self {
            disk,
            clock,
            durability,
            stream: Some(stream),
            queue: None,
            now: BTreeMap::new(),
            kept: BTreeMap::new(),
            ever_done: BTreeSet::new(),
            held: Vec::new(),
            random: Random::new(seed),
            fault,
            operations_before,
        };
        if let Some((at, fault)) = fault {
            world.disk.fail_at(at, fault);
        }
        world
    }

    fn operations(&self) -> u64 {
        self.operations_before.wrapping_add(self.disk.operations())
    }

    fn stream(&self) -> &Stream {
        self.stream.as_ref().unwrap()
    }

    fn run(&mut self) {
        for _ in 0..STEPS {
            let outcome = self.step();
            let Err(error) = outcome else { continue };
            let typed = matches!(error.kind(), ErrorKind::Io | ErrorKind::StorageFull | ErrorKind::Reopen);
            assert!(typed && self.fault.is_some(), "an error of the wrong kind: {error:?}");
            if self.stream.is_none() || matches!(self.fault, Some((_, DiskFault::PowerCut))) {
                return;
            }
        }
    }

    fn step(&mut self) -> Result<(), Error> {
        self.clock.advance(Duration::from_millis(7));
        match self.random.below(16) {
            0..=2 => self.put(),
            3..=5 => self.receive(),
            6..=8 => self.acknowledge(),
            9 => self.give_back(),
            10 => {
                self.clock.advance(VISIBILITY);
                self.note_set_aside()
            }
            11 => self.restore(),
            12 => self.reshard(),
            13 => self.reopen(),
            _ => self.sync(),
        }
    }

    fn put(&mut self) -> Result<(), Error> {
        for _ in 0..=self.random.below(4) {
            let hash_key = HashKey::new(u128::from(self.random.next()) << 64);
            let data = vec![7; 20 + self.random.index(900)];
            self.stream().put_with("key", &data, PutOptions::new().explicit_hash_key(hash_key))?;
        }
        Ok(())
    }

    fn queue(&mut self) -> Result<Queue, Error> {
        if self.queue.is_none() {
            self.queue = Some(self.stream().queue("orders", options())?);
            self.note_set_aside()?;
        }
        Ok(self.queue.clone().unwrap())
    }

    fn receive(&mut self) -> Result<(), Error> {
        let (queue, max) = (self.queue()?, 1 + self.random.index(4));
        let received = queue.receive(max, Duration::ZERO)?;
        for one in &received {
            assert!(self.now.get(&place(one)).is_none_or(|known| *known == Known::Open), "{one:?} comes again");
        }
        self.held.extend(received);
        Ok(())
    }

    fn acknowledge(&mut self) -> Result<(), Error> {
        let queue = self.queue()?;
        for _ in 0..self.random.below(3) {
            if self.held.is_empty() {
                return self.receive();
            }
            let one = self.held.swap_remove(self.random.index(self.held.len()));
            match queue.acknowledge(&one) {
                Err(Error::ReceiptExpired { .. }) => {}
                outcome => {
                    self.now.insert(place(&one), Known::Done);
                    self.ever_done.insert(place(&one));
                    outcome?;
                }
            }
        }
        Ok(())
    }

    fn give_back(&mut self) -> Result<(), Error> {
        let queue = self.queue()?;
        let Some(one) = self.held.pop() else { return Ok(()) };
        match queue.give_back(&one) {
            Err(Error::ReceiptExpired { .. }) => Ok(()),
            outcome => outcome.and_then(|()| self.note_set_aside()),
        }
    }

    fn restore(&mut self) -> Result<(), Error> {
        let queue = self.queue()?;
        for aside in queue.set_aside()? {
            if self.random.one_in(2) {
                let at = (aside.shard_id, aside.sequence_number.get());
                self.now.insert(at, Known::Open);
                assert!(queue.restore(aside.shard_id, aside.sequence_number)?);
            }
        }
        Ok(())
    }

    fn note_set_aside(&mut self) -> Result<(), Error> {
        let queue = self.queue()?;
        for aside in queue.set_aside()? {
            self.now.insert((aside.shard_id, aside.sequence_number.get()), Known::SetAside);
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

    fn sync(&mut self) -> Result<(), Error> {
        let queue = self.queue()?;
        self.note_set_aside()?;
        if self.random.one_in(2) {
            queue.sync()?;
        } else {
            self.stream().sync()?;
        }
        self.kept = self.now.clone();
        Ok(())
    }

    /// A clean close keeps everything.
    fn reopen(&mut self) -> Result<(), Error> {
        if self.queue.is_some() {
            self.note_set_aside()?;
        }
        self.queue = None;
        self.held.clear();
        self.stream.take().unwrap().close()?;
        self.kept = self.now.clone();
        self.stream = Some(builder(&self.disk, &self.clock).open_existing(PATH)?);
        Ok(())
    }

    fn crash(&mut self, crash: Crash) {
        self.operations_before = self.operations();
        let disk = self.disk.crash(crash);
        (self.queue, self.stream) = (None, None);
        self.disk = disk;
    }

    /// After a crash: what is known to be kept is kept, and whatever nobody ever acknowledged comes, or is set aside.
    fn check(&mut self) {
        assert_sound(&self.disk, "after a crash");
        let stream = builder(&self.disk, &self.clock).open_existing(PATH).unwrap();
        let queue = stream.queue("orders", options()).unwrap();
        let aside: BTreeSet<_> =
            queue.set_aside().unwrap().iter().map(|aside| (aside.shard_id, aside.sequence_number.get())).collect();
        let given: BTreeSet<_> = queue.receive(1_000, Duration::ZERO).unwrap().iter().map(place).collect();
        assert!(aside.is_disjoint(&given));
        for (at, known) in &self.kept {
            let later = self.now.get(at) != Some(known);
            match known {
                Known::Done => assert!(!given.contains(at) && !aside.contains(at), "{at:?} comes again"),
                Known::SetAside => assert!(aside.contains(at) || later, "{at:?} is not set aside any more"),
                Known::Open => {}
            }
        }
        for summary in stream.shards() {
            let mut iterator =
                stream.shard_iterator(summary.shard_id, anabranch::ShardIteratorType::TrimHorizon).unwrap();
            for record in iterator.available() {
                let at = (summary.shard_id, record.unwrap().sequence_number().get());
                let is_there = given.contains(&at) || aside.contains(&at);
                assert!(is_there || self.ever_done.contains(&at), "{at:?} is lost");
            }
        }
        drop(queue);
        stream.close().unwrap();
        assert_sound(&self.disk, "after a close");
    }
}

fn place(received: &Received) -> Place {
    (received.record.shard_id(), received.record.sequence_number().get())
}

/// Runs a history with a fault at each of its operations, crashes, and compares.
fn every_operation(test: &'static str, durability: Durability, fault: DiskFault, histories: u64) {
    let (mut states, mut kept_done, mut kept_aside) = (0_u64, 0, 0);
    for seed in seeds(histories) {
        for at in only_at().map_or(0..u64::MAX, |at| at..at + 1) {
            let mut is_over = false;
            for crash in 0..3 {
                let _case = Case { test, seed, at, detail: format!("{durability:?}, {fault:?}, crash {crash}") };
                let mut world = World::new(seed, durability, Some((at, fault)));
                world.run();
                is_over = world.operations() <= at;
                world.disk.clear_faults();
                world.crash(match crash {
                    0 => Crash::ProcessKilled,
                    seed => Crash::PowerLost { seed: seed * 31 + at },
                });
                if matches!(fault, DiskFault::PowerCut) {
                    cut_the_opening(&mut world, at);
                }
                world.check();
                states += 1;
                kept_done += world.kept.values().filter(|known| **known == Known::Done).count();
                kept_aside += world.kept.values().filter(|known| **known == Known::SetAside).count();
                assert_eq!(world.durability, durability);
            }
            if is_over {
                break;
            }
        }
    }
    println!("{test}: {states} states, {kept_done} records done, {kept_aside} set aside");
    if !is_single() && only_at().is_none() {
        assert!(states > 500 && kept_done > 0 && kept_aside > 0, "{states}, {kept_done}, {kept_aside}");
    }
}

/// The power goes once more while the stream and its queue are opened.
fn cut_the_opening(world: &mut World, at: u64) {
    world.disk.fail_at(3 + at * 7 % 60, DiskFault::PowerCut);
    if let Ok(stream) = builder(&world.disk, &world.clock).open_existing(PATH) {
        let queue = stream.queue("orders", options());
        world.crash(Crash::PowerLost { seed: at });
        drop((queue, stream));
    } else {
        world.crash(Crash::PowerLost { seed: at });
    }
}

#[test]
fn queues_of_synced_streams_survive_a_cut_at_every_operation() {
    let test = "queues_of_synced_streams_survive_a_cut_at_every_operation";
    every_operation(test, Durability::Synced, DiskFault::PowerCut, 6);
}

#[test]
fn queues_of_buffered_streams_survive_a_cut_at_every_operation() {
    let test = "queues_of_buffered_streams_survive_a_cut_at_every_operation";
    every_operation(test, Durability::Buffered, DiskFault::PowerCut, 6);
}

#[test]
fn queues_survive_every_failing_operation() {
    for fault in FAULTS {
        every_operation("queues_survive_every_failing_operation", Durability::Synced, fault, 3);
    }
}

/// The tail of a `Buffered` stream goes with the power, and its numbers are given to other records: none of those was given before, so all come.
#[test]
fn records_that_take_the_place_of_lost_ones_are_given() {
    let (disk, clock) = (SimulatedDisk::new(), Arc::new(ManualClock::default()));
    let stream = builder(&disk, &clock).durability(Durability::Buffered).create(PATH).unwrap();
    let queue = stream.queue("orders", options()).unwrap();
    stream.put("key", b"durable").unwrap();
    stream.sync().unwrap();
    for _ in 0..5 {
        stream.put("key", b"lost").unwrap();
    }
    for received in queue.receive(10, Duration::ZERO).unwrap() {
        queue.acknowledge(&received).unwrap();
    }
    queue.sync().unwrap();
    // Of the states that a power cut can leave, one without the tail.
    let lost = (0..200).find_map(|seed| {
        let disk = disk.fork(Crash::PowerLost { seed });
        let stream = builder(&disk, &clock).open_existing(PATH).unwrap();
        let next = stream.describe().unwrap().shards[0].next_sequence_number.get();
        (next == 1).then_some(stream)
    });
    let stream = lost.expect("a cut that takes the tail");
    stream.put("key", b"in the place of a lost one").unwrap();
    stream.sync().unwrap();
    let received = stream.queue("orders", options()).unwrap().receive(10, Duration::ZERO).unwrap();
    let data: Vec<_> = received.iter().map(|one| one.record.data()).collect();
    assert_eq!(data, [b"in the place of a lost one"]);
}
