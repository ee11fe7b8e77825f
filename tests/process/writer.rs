//! The writer: four threads that put, one that splits, merges and trims, and a ledger of what was acknowledged.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anabranch::{Durability, PutEntry, PutReceipt, RetentionPeriod, SequenceNumber, ShardId, Stream};

use crate::child::{self, Process};
use crate::records::Id;
use crate::support::{Random, lines};

const THREADS: u64 = 4;
const OPEN_SHARDS: usize = 6;

/// Where the files of one stream's test are.
pub(crate) struct Places {
    pub(crate) stream: PathBuf,
    pub(crate) ledger: PathBuf,
    /// What may be trimmed: lines of shard and sequence number.
    pub(crate) trim: PathBuf,
    directory: PathBuf,
    durability: Durability,
}

impl Places {
    pub(crate) fn new(directory: &Path, durability: Durability) -> Self {
        Self {
            stream: directory.join("stream"),
            ledger: directory.join("ledger"),
            trim: directory.join("trim"),
            directory: directory.to_path_buf(),
            durability,
        }
    }

    /// Starts a child as `role`; `run` tells the runs of a writer apart.
    pub(crate) fn start(&self, role: &str, run: u64, seed: u64) -> Process {
        let log = self.directory.join(format!("{role}-{run}.log"));
        let (run, seed) = (run.to_string(), seed.to_string());
        let durability = format!("{:?}", self.durability);
        child::start(
            role,
            &log,
            &[
                ("STREAM", &self.stream),
                ("LEDGER", &self.ledger),
                ("TRIM", &self.trim),
                ("DURABILITY", &durability),
                ("RUN", &run),
                ("SEED", &seed),
            ],
        )
    }
}

/// The stream of this child's arguments, created if need be.
pub(crate) fn open() -> Stream {
    let durability = match child::argument("DURABILITY").as_str() {
        "Buffered" => Durability::Buffered,
        _ => Durability::Synced,
    };
    Stream::builder()
        .shards(3)
        .durability(durability)
        .segment_bytes(24 << 10)
        .flush_interval(Duration::from_millis(20))
        .retention(RetentionPeriod::Unlimited)
        .open(child::argument("STREAM"))
        .unwrap()
}

/// Writes until it is killed.
pub(crate) fn run() {
    let stream = open();
    let ledger = OpenOptions::new().append(true).create(true).open(child::argument("LEDGER")).unwrap();
    let number = |name| child::argument(name).parse::<u64>().unwrap();
    let (run, seed) = (number("RUN"), number("SEED"));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (stream, ledger) = (&stream, &ledger);
            scope.spawn(move || write(stream, ledger, run, thread, seed));
        }
        scope.spawn(|| change(&stream, &PathBuf::from(child::argument("TRIM")), seed));
    });
}

/// A failed put must end the whole process, not one of its threads.
fn orderly<T>(outcome: anabranch::Result<T>) -> T {
    outcome.unwrap_or_else(|error| {
        eprintln!("{error}");
        std::process::exit(3)
    })
}

fn write(stream: &Stream, mut ledger: &File, run: u64, thread: u64, seed: u64) {
    let mut random = Random::new(seed ^ thread);
    let mut count = 0;
    loop {
        let first = Id::new(run, thread, count);
        let size = if random.within(0, 6) == 0 { random.within(2, 20) } else { 1 };
        count += size;
        let receipts = put(stream, first, size);
        let mut text = String::new();
        for (receipt, id) in receipts.iter().zip(first.0..) {
            writeln!(text, "{} {} {id}", receipt.shard_id.get(), receipt.sequence_number).unwrap();
        }
        ledger.write_all(text.as_bytes()).unwrap(); // one call: whole, or not at all
        std::thread::sleep(Duration::from_micros(random.within(0, 300)));
    }
}

fn put(stream: &Stream, first: Id, size: u64) -> Vec<PutReceipt> {
    let width = u16::try_from(size).unwrap();
    if size == 1 {
        return vec![orderly(stream.put(first.key(), first.data(first, width)))];
    }
    let members: Vec<_> = (first.0..first.0 + size).map(|id| (Id(id).key(), Id(id).data(first, width))).collect();
    let entries: Vec<_> = members.iter().map(|(key, data)| PutEntry::new(key, data)).collect();
    orderly(stream.put_batch(&entries))
}

/// Splits, merges, and trims what may be trimmed.
fn change(stream: &Stream, trim: &Path, seed: u64) {
    let mut random = Random::new(!seed);
    loop {
        std::thread::sleep(random.millis(10, 60));
        let open = stream.open_shards();
        let place = usize::try_from(random.within(0, open.len() as u64)).unwrap();
        if open.len() < OPEN_SHARDS && random.within(0, 2) == 0 {
            orderly(stream.split_shard(open[place], None));
        } else if let [lower, upper] = open[place..open.len().min(place + 2)] {
            orderly(stream.merge_shards(lower, upper));
        }
        for [shard, before] in lines::<2>(trim) {
            let shard_id = ShardId::new(u32::try_from(shard).unwrap());
            if stream.shards().iter().any(|shard| shard.shard_id == shard_id) {
                orderly(stream.trim_shard(shard_id, SequenceNumber::new(before)));
            }
        }
    }
}
