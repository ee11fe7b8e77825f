//! Each system call on a stream's files fails once, or from some call on: `strace` injects it into a child.
//!
//! The child runs a fixed history and goes on behind each failure. Demanded of it: errors of the right kinds, no panic, no
//! signal, no hang, and that reads of what was acknowledged go on; then, without faults, that the stream opens, nothing
//! acknowledged is missing, and it takes records. A sample runs with every `cargo test`; `.ci/syscalls` runs all.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anabranch::{
    Durability, Error, ErrorKind, PutEntry, PutOptions, PutReceipt, RetentionPeriod, SequenceNumber, ShardId,
    Stream, StreamBuilder,
};

use crate::child;
use crate::records::assert_sound;

/// The calls that the library makes on its files.
const CALLS: [&str; 18] = [
    "openat",
    "fdatasync",
    "fsync",
    "pwrite64",
    "pread64",
    "fallocate",
    "mmap",
    "munmap",
    "renameat",
    "unlinkat",
    "mkdirat",
    "flock",
    "getdents64",
    "statx,fstat,newfstatat",
    "ftruncate",
    "utimensat",
    "fstatfs",
    "lseek",
];
const ERRORS: [&str; 8] = ["EIO", "ENOSPC", "EINTR", "EMFILE", "ENOMEM", "EOPNOTSUPP", "EDQUOT", "EROFS"];
/// Made again at once when a signal interrupts them; a sync is not.
const RESTARTED: [&str; 7] = ["openat", "pwrite64", "pread64", "fallocate", "flock", "getdents64", "mkdirat"];
const LASTING: [&str; 5] = ["openat", "fdatasync", "fsync", "pwrite64", "fallocate"];

fn builder() -> StreamBuilder {
    Stream::builder().shards(2).segment_bytes(4096).background(false).retention(RetentionPeriod::Unlimited)
}

// ---- the child ----

struct History {
    ledger: File,
    acknowledged: BTreeMap<(ShardId, u64), u64>,
    count: u64,
    failures: u64,
}

/// Does everything that a stream does, whatever fails meanwhile.
pub(crate) fn run() {
    let path = PathBuf::from(child::argument("STREAM"));
    let ledger = OpenOptions::new().append(true).create(true).open(child::argument("LEDGER")).unwrap();
    let mut history = History { ledger, acknowledged: BTreeMap::new(), count: 0, failures: 0 };
    let Some(stream) = history.attempt("create", || builder().open(&path)) else {
        println!("failures: {}", history.failures);
        return;
    };
    history.use_stream(&stream);
    history.attempt("close", || stream.close());
    if let Some(stream) = history.attempt("reopen", || builder().open_existing(&path)) {
        history.put(&stream, Durability::Synced);
        history.read(&stream);
        history.attempt("close", || stream.close());
    }
    if let Some(stream) = history.attempt("follow", || Stream::builder().open_read_only(&path)) {
        history.read(&stream);
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

struct Case<'a> {
    call: &'a str,
    error: &'a str,
    when: String,
}

#[derive(Debug, Default)]
struct Figures {
    cases: u64,
    struck: u64,
    reported: u64,
    acknowledged: u64,
}

struct Bench {
    directory: tempfile::TempDir,
    paths: Vec<PathBuf>,
}

impl Bench {
    fn stream(&self) -> PathBuf {
        self.directory.path().join("stream")
    }

    /// Runs the history once, to learn which files there are and which call is made how often.
    fn new() -> (Self, BTreeMap<&'static str, u64>) {
        let bench = Self { directory: directory_in_memory(), paths: Vec::new() };
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
        let count = |call: &'static str| {
            let made = |line: &&str| {
                call.split(',').any(|one| line.contains(&format!(" {one}("))) && line.contains(inside)
            };
            (call, text.lines().filter(made).count() as u64)
        };
        (Self { paths, ..bench }, CALLS.into_iter().map(count).collect())
    }

    /// Runs the history under `strace`; gives what it printed.
    fn run(&self, options: &[&str]) -> String {
        let _ = fs::remove_dir_all(self.stream());
        let ledger = self.directory.path().join("ledger");
        let _ = fs::remove_file(&ledger);
        let log = self.directory.path().join("log");
        let output = File::create(&log).unwrap();
        let mut command = Command::new("strace");
        command.arg("-f").args(options).arg(std::env::current_exe().unwrap());
        command.args(["--exact", "child::role", "--nocapture", "--test-threads=1"]);
        command.env("ANABRANCH_CHILD", "history").env("STREAM", self.stream()).env("LEDGER", ledger);
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
        figures.cases += 1;
        figures.struck += u64::from(struck);
        figures.reported += u64::from(failures > 0);
        let once = !when.ends_with('+');
        if once && *error == "EINTR" && RESTARTED.contains(call) {
            assert_eq!(failures, 0, "{inject} was not tried again:\n{text}");
        }
        if once && *error == "EINTR" && *call == "fdatasync" && struck {
            assert!(failures > 0, "{inject}: a failed sync was tried again:\n{text}");
        }
        if *error == "EOPNOTSUPP" && *call == "fallocate" {
            assert_eq!(failures, 0, "{inject} has a way round:\n{text}");
        }
        figures.acknowledged += self.check(&inject);
    }

    /// Without faults: it opens, has everything, and goes on.
    fn check(&self, case: &str) -> u64 {
        let stream = builder().open(self.stream()).unwrap_or_else(|error| panic!("{case}: {error:?}"));
        let mut horizons = BTreeMap::new();
        let mut acknowledged = Vec::new();
        for line in fs::read_to_string(self.directory.path().join("ledger")).unwrap_or_default().lines() {
            let numbers: Vec<u64> = line.split(' ').skip(1).map(|field| field.parse().unwrap()).collect();
            let shard = ShardId::new(u32::try_from(numbers[0]).unwrap());
            match numbers[1..] {
                [horizon] => drop(horizons.insert(shard, horizon)),
                [at, id] => acknowledged.push((shard, at, id)),
                _ => panic!("{line}"),
            }
        }
        for (shard, at, id) in &acknowledged {
            if horizons.get(shard).is_some_and(|horizon| at < horizon) {
                continue;
            }
            let found = stream.get(*shard, SequenceNumber::new(*at));
            let found = found.unwrap_or_else(|error| panic!("{case}: {shard} {at} is missing: {error:?}"));
            assert_eq!((found.partition_key().to_owned(), found.data().to_vec()), record(*id), "{case}");
        }
        for shard in stream.open_shards() {
            stream.split_shard(shard, None).unwrap_or_else(|error| panic!("{case}: {error:?}"));
        }
        stream.put("after", b"all").unwrap_or_else(|error| panic!("{case}: {error:?}"));
        stream.close().unwrap_or_else(|error| panic!("{case}: {error:?}"));
        assert_sound(&self.stream());
        acknowledged.len() as u64
    }
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
    let only = std::env::var("ANABRANCH_SYSCALL").ok();
    let (bench, counts) = Bench::new();
    println!("calls of the history: {counts:?}");
    let mut figures = Figures::default();
    for (position, (call, count)) in counts.into_iter().enumerate() {
        if only.as_ref().is_some_and(|only| only != call) {
            continue;
        }
        let before = figures.struck;
        for (place, error) in ERRORS.into_iter().enumerate() {
            let step = if all { 1 } else { usize::try_from(count).unwrap().max(1) };
            let first = if all { 1 } else { 1 + (place * 7 + position) as u64 % count.max(1) };
            for nth in (first..=count).step_by(step) {
                bench.strike(&Case { call, error, when: nth.to_string() }, &mut figures);
                if all && LASTING.contains(&call) && error != "EINTR" {
                    bench.strike(&Case { call, error, when: format!("{nth}+") }, &mut figures);
                }
            }
        }
        if all {
            println!("{call}: {count} calls, {} faults", figures.struck - before);
        }
    }
    println!("{figures:?}");
    assert!(figures.struck > 0 && figures.acknowledged > 0, "nothing was struck: {figures:?}");
}
