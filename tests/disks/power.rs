//! Power cuts: runs of the workload, and the states that are looked at.

use std::path::Path;

use anabranch::Durability;

use crate::check::{Found, Ledger};
use crate::fuse::Fuse;
use crate::image::{Cut, Event, Image, Random, Rest};
use crate::mount::{FileSystem, Mount};
use crate::workload::{self, End};

const LIVES: u64 = 4;
/// One state of small sectors in so many, and three more, may be one that the file system does not mount.
const MOUNTED: u64 = 6;

/// In so many states of a file system one has to have a torn tail: on Btrfs, which writes elsewhere, it is one in fifty.
const TORN_STATES: u64 = 400;

/// Cuts the power in runs of the workload on each of these.
pub(crate) fn cuts(file_systems: &[&FileSystem], work: &Path) {
    let (mut states, mut torn) = (0, 0);
    for file_system in file_systems.iter().filter(|file_system| file_system.has_disk()) {
        let mut reached = Reached::default();
        for seed in number("POWERCUT_SEED", 1)..number("POWERCUT_SEED", 1) + number("POWERCUT_RUNS", 4) {
            Run { file_system, seed, work }.run(&mut reached);
        }
        println!("{}: power cuts: {reached:?}", file_system.name);
        reached.demand(file_system.name);
        (states, torn) = (states + reached.states, torn + reached.found.torn);
    }
    assert!(states == 0 || torn > 0, "no tail was torn on any file system");
}

pub(crate) fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

struct Run<'a> {
    file_system: &'a FileSystem,
    seed: u64,
    work: &'a Path,
}

/// What the runs met.
#[derive(Debug, Default)]
struct Reached {
    states: u64,
    cut_again: u64,
    /// States in which the file system could not be mounted: it does not survive that its own superblock is torn.
    not_mounted: u64,
    /// Those of them and of the others in which some sectors of 512 bytes were left: no other state may fail to be mounted.
    small_sectors: u64,
    /// Lives that ended inside a put.
    inside: u64,
    found: Found,
}

impl Reached {
    /// Each file system by itself has to come to every state that this is about.
    fn demand(&self, file_system: &str) {
        if self.states == 0 {
            return; // nothing was asked for
        }
        let Found { records, torn, clean, positions, kept } = self.found;
        let counts = [self.states, self.cut_again, self.inside, records, clean, positions, kept];
        assert!(
            counts.iter().all(|count| *count > 0),
            "{file_system}: an interesting state was not reached: {self:?}"
        );
        let is_torn = torn > 0 || self.states < TORN_STATES;
        assert!(is_torn, "{file_system}: no tail was torn: {self:?}");
        assert!(
            self.not_mounted <= 3 + self.small_sectors / MOUNTED,
            "{file_system}: it did not survive too often: {self:?}"
        );
    }
}

impl Run<'_> {
    fn run(&self, reached: &mut Reached) {
        let durability = self.durability();
        let fuse = Fuse::mount(&self.work.join("disks"));
        let disk = fuse.add_disk(Image::default(), self.file_system.bytes);
        self.file_system.make(&disk);
        let before = fuse.image();
        drop(fuse.take_events());
        // Every fourth run has a disk whose flush fails once.
        let mut random = Random(self.seed);
        let failing = self.seed % 4 == 3;
        let mount = self.mount(&disk).expect("a new file system");
        if failing {
            fuse.fail_flush(Some(70 + random.below(150))); // behind the creation and some puts
        }
        for life in 0..LIVES {
            let end = workload::live(&mount.stream(), &fuse.marks(), durability, self.seed, life);
            reached.inside += u64::from(end == End::Inside);
        }
        let failed = failing && fuse.fail_flush(None);
        drop(mount);
        let events = fuse.take_events();
        fuse.discard();

        let ledger = Ledger::of(&events);
        assert!(ledger.len() > if failing { 10 } else { 300 }, "the workload did little: {ledger:?}");
        // Where no flush fails nothing is refused.
        ledger.demand_kinds(if failing { &["Io", "Reopen"] } else { &[] }, &self.case());
        let flushes = events.iter().filter(|event| matches!(event, Event::Flush)).count();
        let states_before = reached.states;
        let states = number("POWERCUT_STATES", 60);
        for cut in behind_close(&events).into_iter().take(usize::try_from(states).unwrap()) {
            self.check(&fuse, &before, &events, cut, &mut random, reached);
        }
        for _ in 0..states {
            let cut = draw(&events, &mut random);
            self.check(&fuse, &before, &events, cut, &mut random, reached);
        }
        println!(
            "{} {durability:?} seed {}: {} events, {flushes} flushes ({}), {} records promised, {} states",
            self.file_system.name,
            self.seed,
            events.len(),
            if failed {
                format!("one failed, {} refusals", ledger.refused.len())
            } else {
                "none failed".to_owned()
            },
            ledger.len(),
            reached.states - states_before,
        );
    }

    fn case(&self) -> String {
        format!("{} seed {}", self.file_system.name, self.seed)
    }

    fn durability(&self) -> Durability {
        if self.seed.is_multiple_of(2) { Durability::Buffered } else { Durability::Synced }
    }

    /// One state; in a third of the cases the power goes once more during the check.
    fn check(
        &self,
        fuse: &Fuse,
        before: &Image,
        events: &[Event],
        cut: Cut,
        random: &mut Random,
        reached: &mut Reached,
    ) {
        reached.small_sectors += u64::from(cut.rest == Rest::Sectors(512));
        let case = format!("{} {cut:?}", self.case());
        let ledger = Ledger::of(&events[..cut.at]);
        let state = cut.state(before, events, random);
        let disk = fuse.add_disk(state.clone(), self.file_system.bytes);
        let Some(found) = self.look(&disk, cut, &ledger, &case) else {
            fuse.discard();
            reached.not_mounted += 1;
            return;
        };
        reached.states += 1;
        reached.found.records += found.records;
        reached.found.torn += found.torn;
        reached.found.clean += found.clean;
        reached.found.positions += found.positions;
        reached.found.kept += found.kept;
        let events = fuse.take_events();
        fuse.discard();
        if random.below(3) == 0 {
            let again = draw(&events, random);
            reached.small_sectors += u64::from(again.rest == Rest::Sectors(512));
            let state = again.state(&state, &events, random);
            let disk = fuse.add_disk(state, self.file_system.bytes);
            match self.look(&disk, again, &ledger, &format!("{case}, then {again:?}")) {
                Some(_) => reached.cut_again += 1,
                None => reached.not_mounted += 1,
            }
            fuse.discard();
        }
    }

    /// Mounts a state and checks the stream in it; nothing if the file system itself did not survive.
    fn look(&self, disk: &Path, cut: Cut, ledger: &Ledger, case: &str) -> Option<Found> {
        let Some(mount) = self.mount(disk) else {
            assert_eq!(cut.rest, Rest::Sectors(512), "{case}: the file system did not survive");
            return None;
        };
        Some(ledger.check(&mount.stream(), self.durability(), case))
    }

    fn mount(&self, disk: &Path) -> Option<Mount> {
        self.file_system.mount(disk, &self.work.join("mount"))
    }
}

/// A cut right behind a mark (the strictest place), right before a flush (where most is at stake), or anywhere.
fn draw(events: &[Event], random: &mut Random) -> Cut {
    let mut at = random.below(events.len() + 1);
    let next = |wanted: fn(&Event) -> bool| events[at..].iter().position(wanted);
    match random.below(4) {
        0 => at += next(|event| matches!(event, Event::Flush)).unwrap_or(0),
        1 => {}
        _ => at += next(|event| matches!(event, Event::Mark(_))).map_or(0, |found| found + 1),
    }
    let rest = [Rest::Nothing, Rest::Everything, Rest::Sectors(512), Rest::Sectors(4096)][random.below(4)];
    Cut { at, rest }
}

/// The cut right behind the last close, if there was one: what a random one seldom is.
fn behind_close(events: &[Event]) -> Option<Cut> {
    let closed = events.iter().rposition(|event| matches!(event, Event::Mark(mark) if mark == "closed"))?;
    Some(Cut { at: closed + 1, rest: Rest::Nothing })
}
