//! The power is cut at every operation of a history, of the creation of a stream, and of recovery.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anabranch::storage::{Operation, Storage};
use anabranch::{
    Consumer, Crash, DiskFault, Durability, Error, ManualClock, ShardIteratorType, SimulatedDisk, Stream,
};

use crate::history::{PATH, Step, World, any_crash, assert_sound, builder, probe};
use crate::ledger::{CONSUMER, Ledger, Survives, Visited};
use crate::{Case, Random, is_single, number, only_at, only_seed, seeds};

const STEPS: u64 = 48;

#[test]
fn synced_streams_survive_a_cut_at_every_operation() {
    cut_everywhere("synced_streams_survive", Durability::Synced, 3);
}

#[test]
fn buffered_streams_survive_a_cut_at_every_operation() {
    cut_everywhere("buffered_streams_survive", Durability::Buffered, 3);
}

/// Every history of two steps; of as many as `ANABRANCH_CRASH_STEPS` says in the long form.
#[test]
fn every_short_history_survives_a_cut_at_every_operation() {
    let mut visited = Visited::default();
    let (mut states, mut histories) = (0, 0);
    let length = number("ANABRANCH_CRASH_STEPS").map_or(2, |steps| u32::try_from(steps).unwrap());
    for durability in [Durability::Synced, Durability::Buffered] {
        for index in
            (0..ALPHABET.len().pow(length)).filter(|index| only_seed().is_none_or(|seed| seed == *index as u64))
        {
            let digits = (0..length).map(|place| index / ALPHABET.len().pow(place) % ALPHABET.len());
            let steps: Vec<_> = digits.map(|digit| ALPHABET[digit]).collect();
            let history = History { seed: index as u64, durability, steps: Some(steps) };
            // The creation is the same for all of them.
            let from = if index == 0 { 0 } else { history.creation() };
            states += history.cut_everywhere("every_short_history", from, &mut visited);
            histories += 1;
        }
    }
    println!("{states} states of {histories} histories of {length} steps");
    assert!(histories > 0, "there is no history of that number and length");
    demand(&visited, Durability::Buffered, &[]);
}

/// What short histories are made of.
const ALPHABET: [Step; 12] = [
    Step::Put,
    Step::PutLong,
    Step::PutBatch,
    Step::Sync,
    Step::Split,
    Step::Merge,
    Step::Trim,
    Step::EnforceRetention,
    Step::Checkpoint,
    Step::CloseAndReopen,
    Step::KillAndReopen,
    Step::LosePowerAndReopen,
];

fn cut_everywhere(test: &'static str, durability: Durability, quick: u64) {
    let mut visited = Visited::default();
    let mut states = 0;
    for seed in seeds(quick) {
        states += History { seed, durability, steps: None }.cut_everywhere(test, 0, &mut visited);
    }
    println!("{states} states");
    demand(&visited, durability, &["a checkpoint in a child"]);
}

/// What every run has to reach.
const STATES: [&str; 21] = [
    "a checkpoint at the end of a shard",
    "a checkpoint that was not acknowledged found",
    "a checkpoint that was not acknowledged lost",
    "clean close",
    "creation of a consumer cut short, made",
    "creation of a consumer cut short, not made",
    "creation cut short, created again",
    "creation cut short, opened",
    "cut during recovery",
    "cut during the recovery behind a cut one",
    "leftover of a manifest's replacement",
    "records shown to a follower after a crash",
    "reshard cut short, in force",
    "reshard cut short, not in force",
    "roll cut short before the seal",
    "segment without a header",
    "sound record behind a torn one",
    "torn tail cut off",
    "unsealed segment recovered",
    "unsynced name lost",
    "unsynced removal undone",
];

fn demand(visited: &Visited, durability: Durability, more: &[&str]) {
    if is_single() {
        return;
    }
    let and: &[_] = match durability {
        Durability::Synced => &["records shown to a follower, and then a power cut"],
        // A `Synced` one has none of these to lose, but for what nobody was told of.
        _ => &["a checkpoint behind a lost tail", "an acknowledged checkpoint lost", "buffered tail lost"],
    };
    visited.demand(&[STATES.as_slice(), and, more].concat());
}

/// A history that can be run again and again.
struct History {
    seed: u64,
    durability: Durability,
    /// Its steps; drawn by the seed if there are none.
    steps: Option<Vec<Step>>,
}

impl History {
    fn run(&self, fault: Option<(u64, DiskFault)>) -> (World, Result<(), Error>) {
        let mut world = World::new(self.seed, self.durability, fault);
        let outcome = match &self.steps {
            Some(steps) => world.run_steps(steps),
            None => world.run(STEPS, true),
        };
        (world, outcome)
    }

    /// How many operations making the stream takes.
    fn creation(&self) -> u64 {
        let mut world = World::new(self.seed, self.durability, None);
        world.create().expect("a creation without faults");
        world.operations()
    }

    /// Cuts the power at each of its operations from `from` on; gives how many states were visited.
    fn cut_everywhere(&self, test: &'static str, from: u64, visited: &mut Visited) -> u64 {
        let detail = format!("without a cut, {:?}", self.steps);
        let mut case = Case { test, seed: self.seed, at: u64::MAX, detail };
        let (whole, outcome) = self.run(None);
        outcome.expect("a history without faults");
        let operations = whole.operations();
        drop(whole);
        let mut states = 0;
        for at in (from..operations).filter(|at| only_at().is_none_or(|only| only == *at)) {
            states += self.cut_at(at, visited, &mut case);
        }
        states
    }

    fn cut_at(&self, at: u64, visited: &mut Visited, case: &mut Case) -> u64 {
        case.at = at;
        case.detail = format!("the history {:?}", self.steps);
        let (world, outcome) = self.run(Some((at, DiskFault::PowerCut)));
        assert!(outcome.is_err() || world.power_is_cut(), "operation {at} was reached");
        let cut = Cut { world: &world, seed: self.seed };
        let states = cut.explore(at, visited, case);
        visited.add(&world.visited);
        states
    }
}

/// A history that was cut: what may be found afterwards.
struct Cut<'a> {
    world: &'a World,
    seed: u64,
}

impl Cut<'_> {
    fn explore(&self, at: u64, visited: &mut Visited, case: &mut Case) -> u64 {
        let mut random = Random::new(self.seed << 32 | at);
        let killed = self.world.disk.fork(Crash::ProcessKilled);
        let mut states = 0;
        for _ in 0..2 {
            let seed = random.next();
            case.detail = format!("power lost, seed {seed}");
            let disk = killed.fork(Crash::PowerLost { seed });
            compare_listings(&killed, &disk, visited);
            self.survive(&disk, Survives::Durable, &mut random, visited, case);
            states += 1;
        }
        "process killed".clone_into(&mut case.detail);
        self.survive(&killed.fork(Crash::ProcessKilled), Survives::Written, &mut random, visited, case);
        states += 1;
        let everything = random.one_in(60);
        for (crash, survives) in [
            (Crash::ProcessKilled, Survives::Written),
            (Crash::PowerLost { seed: random.next() }, Survives::Durable),
        ] {
            case.detail = format!("{crash:?}, then cut in recovery");
            states += self.cut_recovery(&killed.fork(crash), survives, everything, &mut random, visited, case);
        }
        states
    }

    /// Opens a disk after a crash, checks it, uses it, and lets it crash or close again.
    fn survive(
        &self,
        disk: &SimulatedDisk,
        survives: Survives,
        random: &mut Random,
        visited: &mut Visited,
        case: &mut Case,
    ) {
        let clock = &self.world.clock;
        let mut ledger = self.world.ledger.clone();
        look(disk, visited);
        if random.one_in(3) {
            self.follow(disk, random.clone().next(), visited, case);
        }
        let stream = self.open(disk, visited);
        ledger.settle(&stream, clock, survives, visited);
        note(disk, &stream, visited);
        if random.one_in(2) {
            ledger.settle_consumer(&stream, visited);
        }
        let before = format!("{}, ", case.detail);
        match random.below(4) {
            0 => {
                case.detail = before + "closed";
                stream.close().expect("a clean close");
                assert_sound(disk, "after a clean close");
                let stream = builder(disk, clock).open_existing(PATH).expect("opening after a clean close");
                assert!(stream.recovery().was_clean, "a clean close");
                settle(&mut ledger, &stream, clock, Survives::Written, visited);
                visited.count("clean close", true);
            }
            1 => {
                case.detail = before + "killed at once";
                let disk = disk.crash(Crash::ProcessKilled);
                drop(stream);
                settle(&mut ledger, &reopen(&disk, clock), clock, Survives::Written, visited);
            }
            2 => {
                // What was shown after a recovery must survive what comes next.
                let seed = random.next();
                case.detail = before + &format!("power lost at once, seed {seed}");
                let disk = disk.crash(Crash::PowerLost { seed });
                drop(stream);
                settle(&mut ledger, &reopen(&disk, clock), clock, Survives::Durable, visited);
            }
            _ => {
                let seed = random.next();
                case.detail = before + &format!("used, power lost, seed {seed}");
                probe(&stream, &mut ledger, "first"); // in the place of lost records, for one who passed over those
                let disk = disk.crash(Crash::PowerLost { seed });
                drop(stream);
                assert_sound(&disk, "after two crashes");
                let stream = reopen(&disk, clock);
                settle(&mut ledger, &stream, clock, Survives::Durable, visited);
                probe(&stream, &mut ledger, "second");
                let disk = disk.crash(Crash::ProcessKilled);
                drop(stream);
                settle(&mut ledger, &reopen(&disk, clock), clock, Survives::Written, visited);
            }
        }
    }

    /// A read-only opening before any writer recovers: it shows nothing that was not put, and takes no crash for damage. What it shows of a
    /// `Synced` stream is there after a power cut, too.
    fn follow(&self, disk: &SimulatedDisk, seed: u64, visited: &mut Visited, case: &mut Case) {
        if disk.read_file(&Path::new(PATH).join("MANIFEST")).is_err() {
            return;
        }
        let clock = &self.world.clock;
        let is_durable = self.world.durability == Durability::Synced;
        let disk = disk.fork(Crash::ProcessKilled);
        let stream = builder(&disk, clock).open_read_only(PATH).expect("a read-only opening after a crash");
        let mut ledger = self.world.ledger.clone();
        let mut shown = 0;
        for shard in stream.shards() {
            if !ledger.shards.contains_key(&shard.shard_id) {
                continue; // of a reshard that was cut short: it holds nothing
            }
            let mut iterator = match stream.shard_iterator(shard.shard_id, ShardIteratorType::TrimHorizon) {
                Err(Error::ShardNotFound(_)) => continue,
                other => other.expect("an iterator of a follower"),
            };
            ledger.starts_at(shard.shard_id, iterator.next_sequence_number().get());
            for record in iterator.available() {
                ledger.shown(&record.expect("a record shown to a follower after a crash"), is_durable);
                shown += 1;
            }
        }
        visited.count("records shown to a follower after a crash", shown > 0);
        if is_durable && shown > 0 {
            let detail = case.detail.clone();
            case.detail = format!("{detail}, shown to a follower, power lost, seed {seed}");
            let disk = disk.crash(Crash::PowerLost { seed });
            drop(stream);
            settle(&mut ledger, &reopen(&disk, clock), clock, Survives::Durable, visited);
            visited.count("records shown to a follower, and then a power cut", true);
            case.detail = detail;
        }
    }

    /// Cuts the power at operations of the recovery itself, and recovers again.
    fn cut_recovery(
        &self,
        crashed: &SimulatedDisk,
        survives: Survives,
        everything: bool,
        random: &mut Random,
        visited: &mut Visited,
        case: &mut Case,
    ) -> u64 {
        let clock = &self.world.clock;
        let whole = crashed.fork(Crash::ProcessKilled);
        drop(self.recover(&whole).expect("a recovery"));
        // Dropping closed it, which is no part of the recovery; cuts in there do no harm.
        let operations = whole.operations();
        let chosen: Vec<_> = if everything { (0..operations).collect() } else { vec![random.below(operations)] };
        for at in &chosen {
            let mut more = Random::new(!random.clone().next());
            let disk = crashed.fork(Crash::ProcessKilled);
            // Cut off, or given up because of a call that fails: the same for who comes next, but for what a failed sync leaves.
            let is_error = more.one_in(4);
            let fault = if is_error { DiskFault::Error(io::ErrorKind::Other) } else { DiskFault::PowerCut };
            if everything || more.one_in(2) {
                disk.fail_at(*at, fault);
            } else {
                strike_what_lasts(&disk, fault, &mut more);
            }
            let outcome = self.recover(&disk);
            visited.count("cut during recovery", outcome.is_err());
            let seed = random.next();
            let crash = if random.one_in(3) { Crash::ProcessKilled } else { Crash::PowerLost { seed } };
            let detail = std::mem::take(&mut case.detail);
            case.detail = format!("{detail} at {at} or so by {fault:?}, {crash:?}");
            let mut again = disk.fork(crash);
            drop(outcome);
            let mut survives = if crash == Crash::ProcessKilled { survives } else { Survives::Durable };
            if more.one_in(2) {
                let crash;
                (again, crash) = self.cut_again(&again, operations, &mut more, visited, case);
                survives = if crash == Crash::ProcessKilled { survives } else { Survives::Durable };
            }
            let mut ledger = self.world.ledger.clone();
            let stream = self.open(&again, visited);
            ledger.settle(&stream, clock, survives, visited);
            if more.one_in(2) {
                ledger.settle_consumer(&stream, visited);
            }
            if more.one_in(2) {
                case.detail += ", used"; // which syncs the directories of the shards, too
                probe(&stream, &mut ledger, "after a cut recovery");
            }
            let last = again.crash(Crash::PowerLost { seed: !seed });
            drop(stream);
            settle(&mut ledger, &reopen(&last, clock), clock, Survives::Durable, visited);
            case.detail = detail;
        }
        chosen.len() as u64
    }

    /// Cuts the power once more, in the recovery of what a cut recovery left: more often than not where something is made durable.
    fn cut_again(
        &self,
        disk: &SimulatedDisk,
        operations: u64,
        random: &mut Random,
        visited: &mut Visited,
        case: &mut Case,
    ) -> (SimulatedDisk, Crash) {
        if random.one_in(4) {
            disk.fail_at(random.below(operations), DiskFault::PowerCut);
        } else {
            strike_what_lasts(disk, DiskFault::PowerCut, random);
        }
        let outcome = self.recover(disk);
        visited.count("cut during the recovery behind a cut one", outcome.is_err());
        let crash = any_crash(random);
        case.detail = format!("{}, cut again, {crash:?}", case.detail);
        let after = disk.fork(crash);
        drop(outcome);
        (after, crash)
    }

    /// Opens the stream, and the consumer if one is found.
    fn recover(&self, disk: &SimulatedDisk) -> Result<(Stream, Option<Consumer>), Error> {
        let stream = self.try_open(disk)?;
        let is_there = stream.consumers()?.iter().any(|name| name == CONSUMER);
        let consumer = is_there.then(|| stream.consumer(CONSUMER)).transpose()?;
        Ok((stream, consumer))
    }

    fn try_open(&self, disk: &SimulatedDisk) -> Result<Stream, Error> {
        match &self.world.stream {
            // Nobody was told that the stream exists.
            None if self.world.ledger.incarnation == 0 => {
                let builder = builder(disk, &self.world.clock).shards(crate::history::SHARDS);
                let builder = builder.durability(self.world.durability).segment_bytes(self.world.segment_bytes);
                builder.retention(std::time::Duration::from_secs(60)).open(PATH)
            }
            _ => builder(disk, &self.world.clock).open_existing(PATH),
        }
    }

    fn open(&self, disk: &SimulatedDisk, visited: &mut Visited) -> Stream {
        let exists = disk.read_file(&Path::new(PATH).join("MANIFEST")).is_ok();
        if self.world.ledger.incarnation == 0 {
            visited.count("creation cut short, created again", !exists);
            visited.count("creation cut short, opened", exists);
        }
        if exists {
            for tail in assert_sound(disk, "after a crash").torn_tails {
                let bytes = disk.read_file(&tail.path).expect("a file");
                let behind = has_record_behind(&bytes, tail.offset, tail.next_sequence_number.get());
                visited.count("sound record behind a torn one", behind);
            }
        }
        self.try_open(disk).expect("an opening after a crash")
    }
}

/// Plans a fault for one of the next calls that make something durable: what is in force before them and not behind them is where recoveries err.
fn strike_what_lasts(disk: &SimulatedDisk, fault: DiskFault, random: &mut Random) {
    let operation = if random.one_in(2) { Operation::SyncDir } else { Operation::Sync };
    disk.fail_on(operation, random.below(6), fault);
}

/// Whether something behind a torn place has a later record's number and a frame's length: the sectors of one group reach
/// the disk in any order.
fn has_record_behind(bytes: &[u8], torn: u64, next: u64) -> bool {
    let from = usize::try_from(torn).expect("a small file") + 8;
    (from..bytes.len().saturating_sub(16)).step_by(8).any(|at| {
        let length = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().expect("four bytes"));
        let number = u64::from_le_bytes(bytes[at + 8..at + 16].try_into().expect("eight bytes"));
        (40..8192).contains(&length) && (next + 1..next + 64).contains(&number)
    })
}

/// The stream against the ledger, and the consumer, too.
fn settle(ledger: &mut Ledger, stream: &Stream, clock: &ManualClock, survives: Survives, visited: &mut Visited) {
    ledger.settle(stream, clock, survives, visited);
    ledger.settle_consumer(stream, visited);
}

fn reopen(disk: &SimulatedDisk, clock: &Arc<ManualClock>) -> Stream {
    assert_sound(disk, "before the next opening");
    builder(disk, clock).open_existing(PATH).expect("opening again")
}

/// All files and directories below the stream's directory.
fn files(disk: &SimulatedDisk) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut pending = vec![PathBuf::from(PATH)];
    while let Some(directory) = pending.pop() {
        for entry in disk.list(&directory).unwrap_or_default() {
            let path = directory.join(entry.name);
            if entry.is_dir {
                pending.push(path.clone());
            }
            found.insert(path);
        }
    }
    found
}

/// Notes what a crash left, before anybody mends it.
fn look(disk: &SimulatedDisk, visited: &mut Visited) {
    const FOOTER: usize = 128;
    let mut interrupted_roll = false;
    let mut unfinished = false;
    let mut last: Option<(PathBuf, bool)> = None;
    for path in files(disk) {
        if path.extension().is_none_or(|extension| extension != "seg") {
            continue;
        }
        let bytes = disk.read_file(&path).expect("a file");
        unfinished |= !bytes.starts_with(b"ANABRSEG");
        let is_sealed = bytes.len() > FOOTER && bytes[bytes.len() - FOOTER..].starts_with(b"ANABREND");
        if let Some((before, before_is_sealed)) = &last {
            interrupted_roll |= before.parent() == path.parent() && !is_sealed && !before_is_sealed;
        }
        last = Some((path, is_sealed));
    }
    visited.count("roll cut short before the seal", interrupted_roll);
    visited.count("segment without a header", unfinished);
    let leftover = disk.read_file(&Path::new(PATH).join("MANIFEST.new")).is_ok();
    visited.count("leftover of a manifest's replacement", leftover);
}

/// Notes what an opening mended.
fn note(disk: &SimulatedDisk, stream: &Stream, visited: &mut Visited) {
    let recovery = stream.recovery();
    visited.count("torn tail cut off", !recovery.torn_tails.is_empty());
    visited.count("unsealed segment recovered", recovery.shards_recovered > 0);
    let directories = disk.list(&Path::new(PATH).join("shards")).expect("a directory");
    assert_eq!(directories.len(), stream.shards().len(), "a directory for each shard and no other");
}

/// What the power cut took of the names.
fn compare_listings(killed: &SimulatedDisk, after: &SimulatedDisk, visited: &mut Visited) {
    let (before, after) = (files(killed), files(after));
    visited.count("unsynced name lost", before.difference(&after).next().is_some());
    visited.count("unsynced removal undone", after.difference(&before).next().is_some());
}
