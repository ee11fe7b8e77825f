//! Queues under power cuts, kills and failing calls: whatever was not acknowledged comes, what was acknowledged and synced does not come again, and what was set
//! aside then is so still.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread::Scope;
use std::time::{Duration, Instant};

use anabranch::storage::Operation;
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

    /// Of what is set aside, some is put back, and some given up.
    fn restore(&mut self) -> Result<(), Error> {
        let queue = self.queue()?;
        for aside in queue.set_aside()? {
            let at = (aside.shard_id, aside.sequence_number.get());
            match self.random.below(4) {
                0 | 1 => {
                    self.now.insert(at, Known::Open);
                    assert!(queue.restore(aside.shard_id, aside.sequence_number)?);
                }
                2 => {
                    self.now.insert(at, Known::Done);
                    self.ever_done.insert(at);
                    assert!(queue.discard(aside.shard_id, aside.sequence_number)?);
                }
                _ => {}
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

/// What an attempt could not write is written by the next one, though nothing has changed since.
#[test]
fn what_a_sync_could_not_write_is_written_by_the_next() {
    type Sync = fn(&Queue) -> Result<(), Error>;
    let syncs: [Sync; 2] = [Queue::sync, |queue| queue.stream().sync()];
    for (sync, fault) in syncs.iter().flat_map(|sync| FAULTS.map(|fault| (sync, fault))) {
        for nth in 0.. {
            let (disk, clock, queue, received) = received(1);
            queue.acknowledge(&received[0]).unwrap();
            let before = disk.operations();
            disk.fail_at(nth, fault);
            let failed = sync(&queue);
            if disk.operations() - before <= nth {
                failed.unwrap();
                assert!(nth > 3, "{nth} calls");
                break;
            }
            disk.clear_faults();
            sync(&queue).unwrap();
            let power_cuts = (0..8).map(|seed| Crash::PowerLost { seed });
            for crash in power_cuts.chain([Crash::ProcessKilled]) {
                let given = given_after(crash, &disk, &clock);
                assert_eq!(given, BTreeSet::new(), "call {nth}, {fault:?}, {crash:?}");
            }
        }
    }
}

/// A queue over a new stream of so many records, which are all received.
fn received(count: usize) -> (SimulatedDisk, Arc<ManualClock>, Queue, Vec<Received>) {
    let (disk, clock) = (SimulatedDisk::new(), Arc::new(ManualClock::default()));
    let stream = builder(&disk, &clock).create(PATH).unwrap();
    for _ in 0..count {
        stream.put("key", b"data").unwrap();
    }
    let queue = stream.queue("orders", options()).unwrap();
    let received = queue.receive(count, Duration::ZERO).unwrap();
    assert_eq!(received.len(), count);
    (disk, clock, queue, received)
}

/// What a queue gives after a crash at this moment.
fn given_after(crash: Crash, disk: &SimulatedDisk, clock: &Arc<ManualClock>) -> BTreeSet<Place> {
    let lost = disk.fork(crash);
    let stream = builder(&lost, clock).open_existing(PATH).unwrap();
    let received = stream.queue("orders", options()).unwrap().receive(1_000, Duration::ZERO).unwrap();
    received.iter().map(place).collect()
}

/// What changes while the file is written is not in it, and is written by the next sync.
#[test]
fn what_is_acknowledged_while_the_file_is_written_is_written_by_the_next_sync() {
    let (disk, clock, queue, received) = received(2);
    queue.acknowledge(&received[0]).unwrap();
    while_it_is_written(&disk, &queue, |_| queue.acknowledge(&received[1]).unwrap());
    assert_eq!(given_after(Crash::ProcessKilled, &disk, &clock), BTreeSet::from([place(&received[1])]));
    queue.sync().unwrap();
    assert_eq!(given_after(Crash::PowerLost { seed: 1 }, &disk, &clock), BTreeSet::new());
}

/// Another thread is in the middle of a sync, with an older state: who comes later waits, and what it writes is what is left.
#[test]
fn a_sync_beside_another_leaves_the_newer_of_what_they_write() {
    let (disk, clock, queue, received) = received(2);
    queue.acknowledge(&received[0]).unwrap();
    while_it_is_written(&disk, &queue, |scope| {
        queue.acknowledge(&received[1]).unwrap();
        let syncs = disk.operations_of(Operation::Sync);
        scope.spawn(|| queue.sync().unwrap());
        give_time_while(|| disk.operations_of(Operation::Sync) == syncs);
    });
    assert_eq!(given_after(Crash::PowerLost { seed: 1 }, &disk, &clock), BTreeSet::new());
}

/// The same of a deletion: the sync puts nothing back.
#[test]
fn a_queue_that_is_deleted_while_it_is_written_stays_deleted() {
    let (disk, clock, queue, received) = received(1);
    queue.acknowledge(&received[0]).unwrap();
    while_it_is_written(&disk, &queue, |scope| {
        let removals = disk.operations_of(Operation::RemoveFile);
        scope.spawn(|| queue.stream().delete_queue("orders").unwrap());
        give_time_while(|| disk.operations_of(Operation::RemoveFile) == removals);
    });
    assert_eq!(queue.stream().queues().unwrap(), Vec::<String>::new());
    let lost = disk.fork(Crash::PowerLost { seed: 1 });
    let stream = builder(&lost, &clock).open_existing(PATH).unwrap();
    assert_eq!(stream.queues().unwrap(), Vec::<String>::new());
}

/// To a thread that has to wait: so long that one is seen that does not.
fn give_time_while(waits: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_millis(100);
    while waits() && Instant::now() < deadline {
        std::thread::yield_now();
    }
}

/// Does something while another thread writes the queue's file, whose sync does not end before.
fn while_it_is_written<'scope>(
    disk: &SimulatedDisk,
    queue: &'scope Queue,
    meanwhile: impl for<'a> FnOnce(&'a Scope<'a, 'scope>),
) {
    let syncs = disk.operations_of(Operation::Sync);
    disk.stall_syncs(true);
    std::thread::scope(|scope| {
        scope.spawn(|| queue.sync().unwrap());
        while disk.operations_of(Operation::Sync) == syncs {
            std::thread::yield_now();
        }
        meanwhile(scope);
        disk.stall_syncs(false);
    });
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
