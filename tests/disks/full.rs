//! Full disks: the workload with so many bytes left, from none up to more than a segment.
//!
//! In each case one process meets the full disk with the stream open (or creates it there), is refused, and goes on when there is room again; then the
//! disk is full once more, and the workload opens the stream on it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anabranch::{Durability, PutReceipt, QueueOptions, RetentionPeriod, Stream, VerifyOptions, verify};

use crate::check::Ledger;
use crate::fuse::Fuse;
use crate::image::{Event, Image, Random};
use crate::mount::{FileSystem, Mount};
use crate::power::number;
use crate::readers::Readers;
use crate::workload::{self, Marks, builder, record};

const CASES: u64 = 24;
/// The first cases have nothing left.
const EMPTY_CASES: u64 = 3;
/// Steps below the size of a segment, and no multiple of a block.
const STEP: u64 = 53_000;
/// What is given back when there is to be room.
const SPARE: u64 = 6 << 20;
/// More records than fit into what any case leaves.
const MOST_PUTS: u64 = 2000;
const PUTS_WITH_ROOM: u64 = 60;
/// What a full disk says: that it is full, or, where a write met it, that the shard is to be opened again because of it.
const KINDS: [&str; 3] = ["StorageFull", "Reopen-StorageFull", "Reopen-QuotaExceeded"];
/// What has to be refused somewhere, each of them: the parts of a creation, of a roll, of a change of the manifest, and files of consumers and queues.
const REFUSED: [&str; 8] =
    ["create", "put", "split", "retention", "retention-bytes", "late-consumer", "late-queue", "queue-sync"];

/// Fills each of these up, and demands: an error of the right kind and no signal, nothing acknowledged missing, readers that go on, and a stream that
/// goes on after room was made, in the process that was refused.
pub(crate) fn disks(file_systems: &[&FileSystem], work: &Path) {
    for file_system in file_systems {
        let cases = number("FULL_CASES", CASES);
        let mut reached = Reached::default();
        for case in 0..cases {
            Case { file_system, number: case, work }.run(&mut reached);
        }
        let most = left_in(cases.saturating_sub(1));
        println!("{}: {cases} disks with 0 to {most} bytes left: {reached:?}", file_system.name);
        if cases > EMPTY_CASES {
            reached.demand(file_system.name);
        }
    }
}

fn left_in(case: u64) -> u64 {
    (case + 1).saturating_sub(EMPTY_CASES) * STEP
}

/// What the cases met.
#[derive(Debug, Default)]
struct Reached {
    /// How often each operation was refused.
    refused: BTreeMap<String, u64>,
    /// Streams that went on as soon as there was room, and those that had to be opened again.
    went_on: u64,
    reopened: u64,
    checkpoints: u64,
}

impl Reached {
    fn note(&mut self, ledger: &Ledger) {
        for (what, ..) in &ledger.refused {
            *self.refused.entry(what.clone()).or_default() += 1;
        }
        self.went_on += ledger.told("went-on");
        self.reopened += ledger.told("reopened");
        self.checkpoints += ledger.told("full-checkpoint");
    }

    fn demand(&self, file_system: &str) {
        for what in REFUSED {
            assert!(self.refused.contains_key(what), "{file_system}: no {what} was refused: {self:?}");
        }
        assert!(self.went_on > 0, "{file_system}: no stream went on: {self:?}");
        assert!(self.checkpoints > 0, "{file_system}: no checkpoint met the full disk: {self:?}");
    }
}

struct Case<'a> {
    file_system: &'a FileSystem,
    number: u64,
    work: &'a Path,
}

impl Case<'_> {
    fn run(&self, reached: &mut Reached) {
        let (number, left) = (self.number, left_in(self.number));
        let durability = if number.is_multiple_of(2) { Durability::Synced } else { Durability::Buffered };
        let case = format!("{}, case {number}, {left} bytes left, {durability:?}", self.file_system.name);
        let fuse = Fuse::mount(&self.work.join("disks"));
        let disk = fuse.add_disk(Image::default(), self.file_system.bytes);
        self.file_system.make(&disk);
        let mount = self.file_system.mount(&disk, &self.work.join("mount")).expect("a new file system");
        let marks = self.work.join("marks");
        File::create(&marks).unwrap();
        // A stream is there before in two of three cases; in the third its creation meets the full disk.
        let is_there = !number.is_multiple_of(3);
        if is_there {
            workload::live(&mount.stream(), &marks, durability, number, 0);
            ledger_of(&marks).demand_kinds(&[], &case); // there was room
        }
        live(&mount, &marks, durability, left, number);
        let ledger = ledger_of(&marks);
        assert_eq!(ledger.told("over"), 1, "{case}");
        assert!(!ledger.refused.is_empty(), "{case}: nothing was refused");
        ledger.demand_kinds(&KINDS, &case);
        reached.note(&ledger);

        fill(mount.path(), left);
        workload::live(&mount.stream(), &marks, durability, number, 2);
        let ledger = ledger_of(&marks);
        ledger.demand_kinds(&KINDS, &case);
        assert!(ledger.len() as u64 >= PUTS_WITH_ROOM, "{case}: {} records were acknowledged", ledger.len());
        let stream = Stream::builder().open_read_only(mount.stream());
        ledger.demand(&stream.unwrap_or_else(|error| panic!("{case}: readers go on: {error:?}")), &case);
        make_room(mount.path());
        ledger.check(&mount.stream(), durability, &case);
        drop(mount);
        fuse.discard();
    }
}

fn ledger_of(marks: &Path) -> Ledger {
    let marks = std::fs::read_to_string(marks).unwrap();
    let events: Vec<_> = marks.lines().map(|line| Event::Mark(line.to_owned())).collect();
    Ledger::of(&events)
}

/// Takes all room but this much. The most of it stays taken: what [`make_room`] gives is enough, and soon filled again.
fn fill(directory: &Path, left: u64) {
    share_blocks(directory);
    let (reserve, spare, ballast) =
        (directory.join("reserve"), directory.join("spare"), directory.join("ballast"));
    write_ones(&reserve, left);
    if !ballast.exists() {
        write_ones(&spare, SPARE);
        write_until_full(&ballast);
        std::fs::remove_file(spare).unwrap();
    }
    write_until_full(&directory.join("filler"));
    std::fs::remove_file(reserve).unwrap();
    File::open(directory).unwrap().sync_all().unwrap();
}

/// A snapshot, as backups make them, where the file system has any: what is written again behind it goes elsewhere, and needs room.
fn share_blocks(directory: &Path) {
    const BTRFS: u32 = 0x9123_683e;
    if u32::try_from(rustix::fs::statfs(directory).unwrap().f_type) != Ok(BTRFS) {
        return;
    }
    let snapshots = std::fs::read_dir(directory).unwrap().count();
    let mut snapshot = Command::new("btrfs");
    snapshot.args(["-q", "subvolume", "snapshot"]).arg(directory);
    assert!(snapshot.arg(directory.join(format!("snapshot-{snapshots}"))).status().unwrap().success());
}

fn write_ones(path: &Path, bytes: u64) {
    let mut file = File::create(path).unwrap();
    file.write_all(&vec![1; usize::try_from(bytes).unwrap()]).unwrap();
    file.sync_all().unwrap();
}

fn write_until_full(path: &Path) {
    let mut file = File::create(path).unwrap();
    for piece in [1 << 20, 4096, 1] {
        let bytes = vec![1; piece];
        loop {
            match file.write(&bytes) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => panic!("filling: {error}"),
            }
        }
        let _ = file.sync_all();
    }
}

fn make_room(directory: &Path) {
    std::fs::remove_file(directory.join("filler")).unwrap();
    File::open(directory).unwrap().sync_all().unwrap();
}

/// A process that meets the full disk, which must end well.
fn live(mount: &Mount, marks: &Path, durability: Durability, left: u64, case: u64) {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.arg("full").arg(mount.path()).arg(marks);
    child.arg(format!("{durability:?}")).arg(left.to_string()).arg(case.to_string());
    let status = child.status().unwrap();
    assert!(status.success(), "case {case}: {status}");
}

/// What the process started by [`live`] does.
pub(crate) fn main([directory, marks, durability, left, case]: [&String; 5]) {
    let directory = PathBuf::from(directory);
    let case: u64 = case.parse().unwrap();
    let mut process = Process {
        marks: Marks::open(Path::new(marks)),
        durability: workload::level(durability),
        next_id: 1 << 32,
        promised: Vec::new(),
        changes: 0,
        random: Random(case),
        directory,
    };
    process.run(left.parse().unwrap());
    process.marks.put("over");
}

struct Process {
    directory: PathBuf,
    marks: Marks,
    durability: Durability,
    next_id: u64,
    /// What was acknowledged in this process.
    promised: Vec<(PutReceipt, u64)>,
    /// How often the options were changed, each time to something else.
    changes: u64,
    random: Random,
}

impl Process {
    fn run(&mut self, left: u64) {
        let path = self.directory.join("stream");
        let open = || builder(self.durability).open(&path);
        let (stream, mut readers) = if path.exists() {
            let stream = open().unwrap();
            let readers = self.open_readers(&stream);
            self.put(&stream); // what it is staged in is there before
            fill(&self.directory, left);
            (stream, readers)
        } else {
            fill(&self.directory, left);
            let Some(stream) = self.marks.attempt("create", open()) else {
                make_room(&self.directory);
                return self.go_on(open().unwrap(), None);
            };
            (stream, None)
        };
        self.change(&stream, &mut readers);
        self.put_until_refused(&stream);
        self.change(&stream, &mut readers); // what was left is in segments by now
        self.marks.attempt("sync", stream.sync());
        self.read(&stream);
        make_room(&self.directory);
        if stream.failure().is_none() {
            self.marks.put("went-on");
            return self.go_on(stream, readers);
        }
        drop(readers);
        self.marks.attempt("close", stream.close());
        self.marks.put("reopened");
        self.go_on(builder(self.durability).open(&path).unwrap(), None);
    }

    fn open_readers(&self, stream: &Stream) -> Option<Readers> {
        self.marks.put("opened");
        Readers::open(stream, &self.marks)
    }

    /// There is room: nothing is refused any more, and everything is there.
    fn go_on(&mut self, stream: Stream, mut readers: Option<Readers>) {
        let refusals = self.marks.refusals();
        self.read(&stream);
        for _ in 0..PUTS_WITH_ROOM {
            self.put(&stream);
        }
        self.change(&stream, &mut readers);
        self.marks.attempt("sync", stream.sync());
        for (receipt, id) in &self.promised {
            self.marks.have(receipt.shard_id, receipt.sequence_number, *id);
        }
        self.read(&stream);
        if self.marks.attempt("close", stream.close()).is_some() {
            self.marks.put("closed");
        }
        assert_eq!(self.marks.refusals(), refusals, "refused although there is room");
        for number in 1..=self.changes {
            let other = self.directory.join(format!("other-{number}"));
            let stream = builder(self.durability).open(&other).unwrap();
            stream.put("key", b"data").unwrap();
            stream.close().unwrap();
            assert!(verify(&other, VerifyOptions::default()).unwrap().is_sound());
        }
    }

    /// Everything but puts that needs room of its own, or writes: once each.
    fn change(&mut self, stream: &Stream, readers: &mut Option<Readers>) {
        let marks = &self.marks;
        self.changes += 1;
        let other = self.directory.join(format!("other-{}", self.changes));
        if let Some(other) = marks.attempt("create", builder(self.durability).create(other)) {
            marks.attempt("close-other", other.close());
        }
        marks.attempt("split", stream.split_shard(stream.open_shards()[0], None));
        marks.attempt("retention", stream.increase_retention(RetentionPeriod::hours(24 + self.changes)));
        marks.attempt("retention-bytes", stream.set_retention_bytes(Some((1 << 40) + self.changes)));
        let name = format!("late-{}", self.changes);
        marks.attempt("late-consumer", stream.consumer(&name));
        marks.attempt("late-queue", stream.queue(&name, QueueOptions::new()));
        *readers = readers.take().or_else(|| self.open_readers(stream));
        let Some(readers) = readers else { return };
        for shard in stream.shards() {
            for _ in 0..readers.consume(marks, shard.shard_id, &mut self.random) {
                marks.put("full-checkpoint");
            }
        }
        readers.work_off(marks, &mut self.random);
        readers.keep(marks);
    }

    fn put_until_refused(&mut self, stream: &Stream) {
        let refused = (0..MOST_PUTS).any(|_| !self.put(stream));
        assert!(refused, "{MOST_PUTS} records found room on a full disk");
    }

    /// Whether it was taken.
    fn put(&mut self, stream: &Stream) -> bool {
        let id = self.next_id;
        self.next_id += 1;
        let (key, data) = record(id);
        let Some(receipt) = self.marks.attempt("put", stream.put(key, data)) else { return false };
        if self.durability == Durability::Synced {
            self.marks.have(receipt.shard_id, receipt.sequence_number, id);
        }
        self.promised.push((receipt, id));
        true
    }

    /// Reads go on: everything that was acknowledged here.
    fn read(&self, stream: &Stream) {
        for (receipt, id) in &self.promised {
            let found = stream.get(receipt.shard_id, receipt.sequence_number);
            let found = found.unwrap_or_else(|error| panic!("{receipt:?}: {error:?}"));
            assert_eq!(found.data(), record(*id).1, "{receipt:?}");
        }
    }
}
