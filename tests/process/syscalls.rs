//! Each system call on a stream's files fails once, or from some call on: `strace` injects it into a child.
//!
//! The child lives through a [`Story`] and goes on behind each failure. Demanded of it: errors of the right kinds, no panic, no
//! signal, no hang, and that reads of what was acknowledged go on; then, without faults, that the stream opens, nothing
//! acknowledged is missing (neither records nor what a consumer and a queue have done), and it takes records. A sample runs with every
//! `cargo test`; `.ci/syscalls` runs all.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anabranch::{
    Durability, Error, ErrorKind, Position, PutEntry, PutOptions, PutReceipt, Queue, QueueOptions, RecordsStart,
    RetentionPeriod, SequenceNumber, ShardId, Stream, StreamBuilder, VerifyOptions, repair, verify,
};

use crate::child;
use crate::records::assert_sound;
use crate::support::{length, wait_until};

/// The calls that the library makes on its files. Not here: `ftruncate`, since no file is ever shortened, and `munmap`, of which `strace` does not know
/// whose file it is about, and whose failure nobody could be told.
const CALLS: [&str; 16] = [
    "openat",
    "fdatasync",
    "fsync",
    "pwrite64",
    "pread64",
    "fallocate",
    "mmap",
    "renameat",
    "unlinkat",
    "mkdirat",
    "flock",
    "getdents64",
    "statx,fstat,newfstatat",
    "utimensat",
    "fstatfs",
    "lseek",
];
const ERRORS: [&str; 8] = ["EIO", "ENOSPC", "EINTR", "EMFILE", "ENOMEM", "EOPNOTSUPP", "EDQUOT", "EROFS"];
/// Made again at once when a signal interrupts them; a sync is not.
const RESTARTED: [&str; 7] = ["openat", "pwrite64", "pread64", "fallocate", "flock", "getdents64", "mkdirat"];
const LASTING: [&str; 5] = ["openat", "fdatasync", "fsync", "pwrite64", "fallocate"];

/// What the child does, and on what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Story {
    /// A stream of its own, `Synced`, from its creation to a follower.
    Synced,
    /// A `Buffered` one, with STAGING, a consumer and a queue.
    Buffered,
    /// The recovery of a copy of what a writer left that was killed, and the use of it.
    Killed,
    /// The repair of a copy of a stream one record of which is damaged.
    Repaired,
}

const STORIES: [Story; 4] = [Story::Synced, Story::Buffered, Story::Killed, Story::Repaired];

/// What the writer has to note, behind all else, before it is killed.
const LONG_LEDGER: u64 = 1_200;
/// Of the story whose writer is to be killed.
const WRITER: &str = "writer";

fn builder(durability: Durability) -> StreamBuilder {
    let builder = Stream::builder().shards(2).segment_bytes(4096).durability(durability).background(false);
    // No flush because of the time: each run makes the same calls.
    builder.flush_interval(Duration::from_secs(3600)).retention(RetentionPeriod::Unlimited)
}

fn queue(stream: &Stream) -> anabranch::Result<Queue> {
    stream.queue("mails", QueueOptions::new().max_receives(None).visibility(Duration::from_secs(3600)))
}

// ---- the child ----

struct History {
    ledger: File,
    acknowledged: BTreeMap<(ShardId, u64), u64>,
    count: u64,
    failures: u64,
}

/// Lives through its story, whatever fails meanwhile.
pub(crate) fn run() {
    let (path, ledger) = (PathBuf::from(child::argument("STREAM")), child::argument("LEDGER"));
    let noted = Noted::read(Path::new(&ledger));
    let ledger = OpenOptions::new().append(true).create(true).open(ledger).unwrap();
    let (acknowledged, count) = (noted.kept_records(), noted.next_id());
    let mut history = History { ledger, acknowledged, count, failures: 0 };
    match child::argument("STORY").as_str() {
        "Synced" => history.synced(&path),
        "Buffered" => history.buffered(&path),
        "Killed" => history.killed(&path),
        "Repaired" => history.repaired(&path),
        _ => history.write_until_killed(&path),
    }
    println!("failures: {}", history.failures);
}

impl History {
    /// A failure must be of a kind that a system's refusal can have.
    fn attempt<T>(&mut self, what: &str, call: impl FnOnce() -> anabranch::Result<T>) -> Option<T> {
        match call() {
            Ok(value) => Some(value),
            Err(error) => {
                self.failures += 1;
                println!("{what}: {error}");
                let typed = matches!(error.kind(), ErrorKind::Io | ErrorKind::StorageFull | ErrorKind::Reopen);
                assert!(typed, "{what} failed with {error:?}");
                None
            }
        }
    }

    fn synced(&mut self, path: &Path) {
        let Some(stream) = self.attempt("create", || builder(Durability::Synced).open(path)) else { return };
        self.use_stream(&stream);
        self.attempt("close", || stream.close());
        if let Some(stream) = self.attempt("reopen", || builder(Durability::Synced).open_existing(path)) {
            self.put(&stream, Durability::Synced);
            self.read(&stream);
            self.attempt("close", || stream.close());
        }
        self.follow(path);
    }

    fn buffered(&mut self, path: &Path) {
        let Some(stream) = self.attempt("create", || builder(Durability::Buffered).open(path)) else { return };
        self.use_readers(&stream);
        self.attempt("close", || stream.close());
        if let Some(stream) = self.attempt("reopen", || builder(Durability::Buffered).open_existing(path)) {
            self.put(&stream, Durability::Buffered);
            self.consume(&stream);
            self.work_off(&stream);
            self.attempt("close", || stream.close());
        }
        self.verify(path);
    }

    fn killed(&mut self, path: &Path) {
        let open = || builder(Durability::Buffered).open_existing(path);
        if let Some(stream) = self.attempt("recover", open).or_else(|| self.attempt("recover again", open)) {
            self.read(&stream);
            self.put(&stream, Durability::Buffered);
            self.consume(&stream);
            self.work_off(&stream);
            self.put(&stream, Durability::Synced);
            self.attempt("close", || stream.close());
        }
        self.verify(path);
        self.follow(path);
    }

    fn repaired(&mut self, path: &Path) {
        self.attempt("repair", || repair(path, None));
        let stream = self.attempt("open", || builder(Durability::Synced).open_existing(path));
        if let Some(stream) = stream {
            self.put(&stream, Durability::Synced);
            self.attempt("close", || stream.close());
        }
    }

    /// Whatever failed before is no damage.
    fn verify(&mut self, path: &Path) {
        if let Some(report) = self.attempt("verify", || verify(path, VerifyOptions::default())) {
            assert!(report.is_sound(), "{:?}", report.damage);
        }
    }

    fn follow(&mut self, path: &Path) {
        if let Some(stream) = self.attempt("follow", || Stream::builder().open_read_only(path)) {
            self.read(&stream);
        }
    }

    fn write_until_killed(&mut self, path: &Path) {
        let stream = builder(Durability::Buffered).open(path).unwrap();
        self.use_readers(&stream);
        loop {
            self.put(&stream, Durability::Buffered);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Staged records that a reader wishes for, a sync, a roll and a split, and what a consumer and a queue do.
    fn use_readers(&mut self, stream: &Stream) {
        for _ in 0..5 {
            self.put(stream, Durability::Buffered);
        }
        self.read(stream);
        self.consume(stream);
        self.attempt("sync", || stream.sync());
        self.work_off(stream);
        for _ in 0..8 {
            self.put(stream, Durability::Buffered);
        }
        self.batch(stream);
        self.consume(stream);
        let open = stream.open_shards();
        self.attempt("split", || stream.split_shard(open[0], None));
        self.put(stream, Durability::Synced);
        self.consume(stream);
        self.work_off(stream);
    }

    /// Takes every shard and moves its position over some records.
    fn consume(&mut self, stream: &Stream) {
        let Some(consumer) = self.attempt("consumer", || stream.consumer("billing")) else { return };
        for shard in stream.shards() {
            let shard_id = shard.shard_id;
            let Some(lease) = self.attempt("take", || consumer.take(shard_id, "worker")) else { continue };
            let Some(mut iterator) = self.attempt("iterator", || lease.iterator()) else { continue };
            for record in iterator.available().take(3) {
                let Some(record) = self.attempt("next", || record) else { break };
                let at = record.sequence_number().get();
                self.write_note("doing", shard_id, at);
                if self.attempt("checkpoint", || lease.checkpoint(&record)).is_some() {
                    self.write_note("done", shard_id, at);
                }
            }
        }
        self.attempt("consumer sync", || consumer.sync());
    }

    /// Receives some records and acknowledges all but one of them.
    fn work_off(&mut self, stream: &Stream) {
        let Some(queue) = self.attempt("queue", || queue(stream)) else { return };
        let received = self.attempt("receive", || queue.receive(4, Duration::ZERO)).unwrap_or_default();
        let mut acknowledged = Vec::new();
        for (position, received) in received.iter().enumerate() {
            let place = (received.record.shard_id(), received.record.sequence_number().get());
            if position == 0 {
                self.attempt("give back", || queue.give_back(received));
                continue;
            }
            self.write_note("acknowledging", place.0, place.1);
            if self.attempt("acknowledge", || queue.acknowledge(received)).is_some() {
                acknowledged.push(place);
            }
        }
        if self.attempt("queue sync", || queue.sync()).is_some() {
            for (shard_id, at) in acknowledged {
                self.write_note("kept", shard_id, at);
            }
        }
    }

    fn write_note(&mut self, what: &str, shard_id: ShardId, at: u64) {
        self.ledger.write_all(format!("{what} {} {at}\n", shard_id.get()).as_bytes()).unwrap();
    }

    fn use_stream(&mut self, stream: &Stream) {
        for round in 0..12 {
            let durability = if round % 3 == 2 { Durability::Buffered } else { Durability::Synced };
            self.put(stream, durability);
        }
        self.attempt("sync", || stream.sync());
        self.batch(stream);
        let open = stream.open_shards();
        self.attempt("split", || stream.split_shard(open[0], None));
        self.put(stream, Durability::Synced);
        let open = stream.open_shards();
        self.attempt("merge", || stream.merge_shards(open[0], open[1]));
        for _ in 0..4 {
            self.put(stream, Durability::Synced);
        }
        self.read(stream);
        let first = stream.shards()[0].shard_id;
        let horizon = stream.describe().map_or(0, |all| all.shards[0].next_sequence_number.get() / 2);
        writeln!(self.ledger, "trim {} {horizon}", first.get()).unwrap();
        self.acknowledged.retain(|place, _| place.0 != first || place.1 >= horizon);
        self.attempt("trim", || stream.trim_shard(first, SequenceNumber::new(horizon)));
        self.attempt("retain", || stream.increase_retention(RetentionPeriod::Unlimited));
        self.attempt("budget", || stream.set_retention_bytes(Some(1 << 30)));
    }

    fn put(&mut self, stream: &Stream, durability: Durability) {
        let (key, data) = record(self.count);
        let options = PutOptions::new().durability(durability);
        let put = self.attempt("put", || stream.put_with(&key, &data, options));
        self.note(put.as_slice());
    }

    fn batch(&mut self, stream: &Stream) {
        let records: Vec<_> = (self.count..self.count + 4).map(record).collect();
        let entries: Vec<_> = records.iter().map(|(key, data)| PutEntry::new(key, data)).collect();
        let put = self.attempt("batch", || stream.put_batch(&entries));
        self.note(&put.unwrap_or_default());
        self.count += 4;
    }

    fn note(&mut self, receipts: &[PutReceipt]) {
        let mut text = String::new();
        for (receipt, id) in receipts.iter().zip(self.count..) {
            let (shard, at) = (receipt.shard_id, receipt.sequence_number.get());
            writeln!(text, "put {} {at} {id}", shard.get()).unwrap();
            self.acknowledged.insert((shard, at), id);
        }
        self.ledger.write_all(text.as_bytes()).unwrap();
        self.count += 1;
    }

    /// All that was acknowledged can be read now; each read is tried again once, since it may be the one that fails.
    fn read(&mut self, stream: &Stream) {
        for ((shard, at), id) in self.acknowledged.clone() {
            let get = || match stream.get(shard, SequenceNumber::new(at)) {
                // A follower is shown what the writer could note as durable.
                Err(Error::BeyondTail { .. }) if stream.is_read_only() => Ok(None),
                other => other.map(Some),
            };
            let found = self.attempt("get", get).or_else(|| self.attempt("get", get)).flatten();
            assert!(found.is_none_or(|found| found.data() == record(id).1), "{shard} {at}");
        }
    }
}

fn record(id: u64) -> (String, Vec<u8>) {
    let mut data = id.to_le_bytes().to_vec();
    data.resize(700, id.to_le_bytes()[0]);
    (format!("key-{id}"), data)
}

// ---- the parent ----

/// What the child has noted.
#[derive(Debug, Default)]
struct Noted {
    acknowledged: Vec<(ShardId, u64, u64)>,
    horizons: BTreeMap<ShardId, u64>,
    /// How far checkpoints were begun, and how far they were acknowledged.
    doing: BTreeMap<ShardId, u64>,
    done: BTreeMap<ShardId, u64>,
    acknowledging: BTreeSet<(ShardId, u64)>,
    kept: BTreeSet<(ShardId, u64)>,
    damaged: Option<u64>,
}

impl Noted {
    fn read(ledger: &Path) -> Self {
        let text = fs::read_to_string(ledger).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut noted = Self::default();
        for line in whole.lines() {
            let (what, numbers) = line.split_once(' ').unwrap();
            let numbers: Vec<u64> = numbers.split(' ').map(|field| field.parse().unwrap()).collect();
            let shard = ShardId::new(u32::try_from(numbers[0]).unwrap());
            match (what, &numbers[1..]) {
                ("trim", [horizon]) => drop(noted.horizons.insert(shard, *horizon)),
                ("put", [at, id]) => noted.acknowledged.push((shard, *at, *id)),
                ("doing", [at]) => drop(noted.doing.insert(shard, *at)),
                ("done", [at]) => drop(noted.done.insert(shard, *at)),
                ("acknowledging", [at]) => drop(noted.acknowledging.insert((shard, *at))),
                ("kept", [at]) => drop(noted.kept.insert((shard, *at))),
                ("damaged", [id]) => noted.damaged = Some(*id),
                _ => panic!("{line}"),
            }
        }
        noted
    }

    /// The records that were acknowledged and not trimmed.
    fn kept_records(&self) -> BTreeMap<(ShardId, u64), u64> {
        let is_left = |(shard, at): (&ShardId, u64)| self.horizons.get(shard).is_none_or(|horizon| at >= *horizon);
        let left = self.acknowledged.iter().filter(|(shard, at, _)| is_left((shard, *at)));
        left.map(|(shard, at, id)| ((*shard, *at), *id)).collect()
    }

    fn next_id(&self) -> u64 {
        self.acknowledged.iter().map(|(.., id)| id + 1).max().unwrap_or(0)
    }
}

struct Case<'a> {
    call: &'a str,
    error: &'a str,
    when: String,
}

#[derive(Debug, Default)]
struct Figures {
    cases: u64,
    reported: u64,
    acknowledged: u64,
    checkpoints: u64,
    kept: u64,
}

struct Bench {
    story: Story,
    directory: tempfile::TempDir,
    paths: Vec<PathBuf>,
}

impl Bench {
    fn stream(&self) -> PathBuf {
        self.directory.path().join("stream")
    }

    fn ledger(&self) -> PathBuf {
        self.directory.path().join("ledger")
    }

    /// Where what every run begins with is, if it begins with something: a stream, and its ledger.
    fn begins_with(&self) -> (PathBuf, PathBuf) {
        (self.directory.path().join("first-stream"), self.directory.path().join("first-ledger"))
    }

    fn durability(&self) -> Durability {
        match self.story {
            Story::Synced | Story::Repaired => Durability::Synced,
            Story::Buffered | Story::Killed => Durability::Buffered,
        }
    }

    /// Runs the story twice: to learn which files there are, and then how often each call is made on these.
    fn new(story: Story) -> (Self, BTreeMap<&'static str, u64>) {
        let bench = Self { story, directory: directory_in_memory(), paths: Vec::new() };
        bench.prepare();
        let trace = bench.directory.path().join("trace");
        let calls = format!("trace={}", CALLS.join(","));
        bench.run(&["-y", "-e", &calls, "-o", trace.to_str().unwrap()]);
        let text = fs::read_to_string(&trace).unwrap();
        let inside = bench.stream();
        let inside = inside.to_str().unwrap();
        let mut paths = vec![bench.stream(), bench.directory.path().to_path_buf()];
        for line in text.lines() {
            for piece in line.split(['<', '>', '"', '(']).filter(|piece| piece.starts_with(inside)) {
                let path = PathBuf::from(piece);
                if !paths.contains(&path) {
                    paths.push(path);
                }
            }
        }
        let bench = Self { paths, ..bench };
        let of_paths = bench.paths.iter().flat_map(|path| ["-P", path.to_str().unwrap()]);
        let options: Vec<_> = ["-e", &calls, "-o", trace.to_str().unwrap()].into_iter().chain(of_paths).collect();
        bench.run(&options);
        let text = fs::read_to_string(&trace).unwrap();
        let count = |call: &'static str| (call, call.split(',').map(|one| most(&text, one)).max().unwrap_or(0));
        let counts = CALLS.into_iter().map(count).collect();
        (bench, counts)
    }

    /// Makes what every run begins with.
    fn prepare(&self) {
        let (stream, ledger) = self.begins_with();
        let log = self.directory.path().join("log");
        let begin = |story: &str| {
            child::start("history", &log, &[("STREAM", &stream), ("LEDGER", &ledger), ("STORY", &story)])
        };
        match self.story {
            Story::Synced | Story::Buffered => {}
            Story::Killed => {
                let mut writer = begin(WRITER);
                wait_until("some records behind the rest", || {
                    writer.assert_runs();
                    length(&ledger) > LONG_LEDGER
                });
                writer.kill();
            }
            Story::Repaired => {
                begin("Synced").join();
                let noted = Noted::read(&ledger).kept_records();
                let id = *noted.values().next_back().unwrap();
                damage(&stream.join("shards"), &record(id).1);
                let mut ledger = OpenOptions::new().append(true).open(&ledger).unwrap();
                writeln!(ledger, "damaged 0 {id}").unwrap();
            }
        }
    }

    /// Runs the story under `strace`; gives what it printed.
    fn run(&self, options: &[&str]) -> String {
        let _ = fs::remove_dir_all(self.stream());
        let _ = fs::remove_file(self.ledger());
        let (stream, ledger) = self.begins_with();
        if stream.exists() {
            copy(&stream, &self.stream());
            fs::copy(ledger, self.ledger()).unwrap();
        }
        let log = self.directory.path().join("log");
        let output = File::create(&log).unwrap();
        let mut command = Command::new("strace");
        command.arg("-f").args(options).arg(std::env::current_exe().unwrap());
        command.args(["--exact", "child::role", "--nocapture", "--test-threads=1"]);
        command.env("ANABRANCH_CHILD", "history").env("STREAM", self.stream()).env("LEDGER", self.ledger());
        command.env("STORY", format!("{:?}", self.story));
        command.stdin(Stdio::piped()).stdout(output.try_clone().unwrap()).stderr(output);
        let mut child = command.spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                panic!("{options:?} hangs:\n{}", fs::read_to_string(&log).unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let text = fs::read_to_string(&log).unwrap();
        assert!(status.success(), "{options:?} ended with {status}:\n{text}");
        text
    }

    /// One occurrence of a call, or all of them.
    fn strike_each(&self, call: &str, count: u64, error: &str, all: bool, chosen: usize, figures: &mut Figures) {
        let chosen = 1 + chosen as u64 % count;
        for nth in if all { 1..=count } else { chosen..=chosen } {
            self.strike(&Case { call, error, when: nth.to_string() }, figures);
            if all && LASTING.contains(&call) && error != "EINTR" {
                self.strike(&Case { call, error, when: format!("{nth}+") }, figures);
            }
        }
    }

    fn strike(&self, case: &Case<'_>, figures: &mut Figures) {
        let Case { call, error, when } = case;
        let trace = self.directory.path().join("trace");
        let inject = format!("inject={call}:error={error}:when={when}");
        let of_calls = format!("trace={call}");
        let mut options = vec!["-o", trace.to_str().unwrap(), "-e", &of_calls, "-e", &inject];
        for path in &self.paths {
            options.extend(["-P", path.to_str().unwrap()]);
        }
        let text = self.run(&options);
        let failures: u64 = text.split("failures: ").nth(1).unwrap().lines().next().unwrap().parse().unwrap();
        let struck = fs::read_to_string(&trace).unwrap().contains("(INJECTED)");
        assert!(struck, "{:?}, {inject}: no call was struck:\n{text}", self.story);
        figures.cases += 1;
        figures.reported += u64::from(failures > 0);
        let once = !when.ends_with('+');
        if once && *error == "EINTR" && RESTARTED.contains(call) {
            assert_eq!(failures, 0, "{inject} was not tried again:\n{text}");
        }
        if once && *error == "EINTR" && *call == "fdatasync" {
            assert!(failures > 0, "{inject}: a failed sync was tried again:\n{text}");
        }
        if *error == "EOPNOTSUPP" && *call == "fallocate" {
            assert_eq!(failures, 0, "{inject} has a way round:\n{text}");
        }
        self.check(&format!("{:?}, {inject}", self.story), figures);
    }

    /// Without faults: it opens, has everything, and goes on.
    fn check(&self, case: &str, figures: &mut Figures) {
        let noted = Noted::read(&self.ledger());
        if noted.damaged.is_some() {
            repair(self.stream(), None).unwrap_or_else(|error| panic!("{case}: {error:?}"));
        }
        let stream = builder(self.durability()).open(self.stream());
        let stream = stream.unwrap_or_else(|error| panic!("{case}: {error:?}"));
        for ((shard, at), id) in noted.kept_records() {
            match stream.get(shard, SequenceNumber::new(at)) {
                Ok(found) => {
                    assert_eq!((found.partition_key().to_owned(), found.data().to_vec()), record(id), "{case}");
                }
                Err(Error::Lost { .. }) if noted.damaged == Some(id) => {}
                Err(error) => panic!("{case}: {shard} {at} is missing: {error:?}"),
            }
        }
        check_consumer(&stream, &noted, case);
        check_queue(&stream, &noted, case);
        for shard in stream.open_shards() {
            stream.split_shard(shard, None).unwrap_or_else(|error| panic!("{case}: {error:?}"));
        }
        stream.put("after", b"all").unwrap_or_else(|error| panic!("{case}: {error:?}"));
        stream.close().unwrap_or_else(|error| panic!("{case}: {error:?}"));
        assert_sound(&self.stream());
        figures.acknowledged += noted.acknowledged.len() as u64;
        figures.checkpoints += noted.done.len() as u64;
        figures.kept += noted.kept.len() as u64;
    }
}

/// No position went back, or further than somebody tried.
fn check_consumer(stream: &Stream, noted: &Noted, case: &str) {
    if noted.doing.is_empty() {
        return;
    }
    let consumer = stream.consumer("billing").unwrap_or_else(|error| panic!("{case}: {error:?}"));
    for (shard_id, doing) in &noted.doing {
        let found = consumer.checkpoint(*shard_id).unwrap_or_else(|error| panic!("{case}: {error:?}"));
        let at = match found.position {
            Position::After(at) => Some(at.sequence_number.get()),
            _ => None,
        };
        let done = noted.done.get(shard_id).copied();
        assert!(at >= done && at <= Some(*doing), "{case}: {shard_id} is at {at:?}, {done:?} was done");
    }
}

/// Each record is given that nobody acknowledged, and none whose acknowledgement was kept.
fn check_queue(stream: &Stream, noted: &Noted, case: &str) {
    if noted.acknowledging.is_empty() {
        return;
    }
    let queue = queue(stream).unwrap_or_else(|error| panic!("{case}: {error:?}"));
    let received = queue.receive(1000, Duration::ZERO).unwrap_or_else(|error| panic!("{case}: {error:?}"));
    let place =
        |received: &anabranch::Received| (received.record.shard_id(), received.record.sequence_number().get());
    let received: BTreeSet<_> = received.iter().map(place).collect();
    assert!(received.is_disjoint(&noted.kept), "{case}: it came back: {received:?}, {:?}", noted.kept);
    for record in stream.records(RecordsStart::TrimHorizon).unwrap().available() {
        let record = record.unwrap_or_else(|error| panic!("{case}: {error:?}"));
        let place = (record.shard_id(), record.sequence_number().get());
        assert!(
            received.contains(&place) || noted.acknowledging.contains(&place),
            "{case}: {place:?} is not given"
        );
    }
}

/// How often a thread made a call on files `inside`, at most: `strace` counts the calls of each thread by itself.
fn most(trace: &str, call: &str) -> u64 {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for line in trace.lines().filter(|line| line.contains(&format!(" {call}("))) {
        *counts.entry(line.split(' ').next().unwrap()).or_default() += 1;
    }
    counts.into_values().max().unwrap_or(0)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Changes one byte of the record with this data.
fn damage(shards: &Path, data: &[u8]) {
    for shard in fs::read_dir(shards).unwrap() {
        for segment in fs::read_dir(shard.unwrap().path()).unwrap() {
            let path = segment.unwrap().path();
            let mut bytes = fs::read(&path).unwrap();
            if let Some(at) = bytes.windows(data.len()).position(|window| window == data) {
                bytes[at + data.len() / 2] ^= 1;
                return fs::write(path, bytes).unwrap();
            }
        }
    }
    panic!("no segment has the record");
}

/// The faults are in the calls, not in the disk, whose syncs would take most of the time.
fn directory_in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

fn has_strace(directory: &Path) -> bool {
    let output = directory.join("output");
    let tried = Command::new("strace").args(["-f", "-o"]).arg(output).arg("true").stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}

#[test]
fn every_system_call_fails() {
    let (probe, all) = (tempfile::tempdir().unwrap(), std::env::var("ANABRANCH_SYSCALLS").is_ok());
    if !has_strace(probe.path()) {
        println!("skipped: no strace that may trace");
        return;
    }
    let (only, only_story) = (std::env::var("ANABRANCH_SYSCALL").ok(), std::env::var("ANABRANCH_STORY").ok());
    let (mut made, mut figures): (BTreeMap<&str, u64>, _) = (BTreeMap::new(), Figures::default());
    for (number, story) in STORIES.into_iter().enumerate() {
        let (bench, counts) = Bench::new(story);
        println!("{story:?}: {counts:?}");
        for (position, (call, count)) in counts.into_iter().enumerate() {
            *made.entry(call).or_default() += count;
            let is_other = |only: &Option<String>, name: &str| only.as_ref().is_some_and(|only| only != name);
            if is_other(&only, call) || is_other(&only_story, &format!("{story:?}")) {
                continue;
            }
            let before = figures.cases;
            for (place, error) in ERRORS.into_iter().enumerate() {
                // The stories share the errors of a sample.
                if count > 0 && (all || (place + position) % STORIES.len() == number) {
                    bench.strike_each(call, count, error, all, place * 7 + position, &mut figures);
                }
            }
            if all {
                println!("{story:?}, {call}: {count} calls, {} faults", figures.cases - before);
            }
        }
    }
    println!("{figures:?}");
    assert!(made.values().all(|count| *count > 0), "a call that no story makes: {made:?}");
    let counts = [figures.cases, figures.reported, figures.acknowledged, figures.checkpoints, figures.kept];
    assert!(only.is_some() || only_story.is_some() || counts.iter().all(|count| *count > 0), "{figures:?}");
}
