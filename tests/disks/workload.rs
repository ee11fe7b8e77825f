//! What a process does to the stream before the power goes, told mark by mark to whoever checks what is left.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anabranch::{
    Durability, Error, ErrorKind, PutEntry, PutReceipt, Record, SequenceNumber, ShardId, ShardIteratorType,
    Stream, StreamBuilder,
};

use crate::image::Random;
use crate::readers;

const PRODUCERS: u64 = 3;
const PUTS_OF_A_PRODUCER: u64 = 40;

pub(crate) fn builder(durability: Durability) -> StreamBuilder {
    Stream::builder().shards(2).segment_bytes(64 << 10).durability(durability).background(false)
}

/// The record of this number: its key and its data, which begins with the number.
pub(crate) fn record(id: u64) -> (String, Vec<u8>) {
    let mut random = Random(id);
    let length = if random.below(8) == 0 { 20_000 } else { 1500 };
    let mut data = id.to_le_bytes().to_vec();
    data.resize(8 + random.below(length), (id % 251) as u8);
    (format!("key-{}", id % 17), data)
}

/// How a life ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It ended by itself.
    Over,
    /// A thread ended the process while another one was inside a put.
    Inside,
}

/// The exit status of a process that ended [inside](End::Inside) a put.
const INSIDE: i32 = 7;

/// A life in a process of its own, which must end well.
pub(crate) fn live(stream: &Path, marks: &Path, durability: Durability, seed: u64, life: u64) -> End {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.arg("workload").arg(stream).arg(marks);
    child.arg(format!("{durability:?}")).arg(seed.to_string()).arg(life.to_string());
    let status = child.status().unwrap();
    match status.code() {
        Some(0) => End::Over,
        Some(INSIDE) => End::Inside,
        _ => panic!("seed {seed}, life {life}: {status}"),
    }
}

/// What the process started by [`live`] does.
pub(crate) fn main([stream, marks, durability, seed, life]: [&String; 5]) {
    run(
        Path::new(stream),
        &Marks::open(Path::new(marks)),
        level(durability),
        seed.parse().unwrap(),
        life.parse().unwrap(),
    );
}

/// The level of this name.
pub(crate) fn level(name: &str) -> Durability {
    if name == "Synced" { Durability::Synced } else { Durability::Buffered }
}

/// One life of the process: opens the stream, reads it, puts from three threads while a fourth splits, merges and trims, and a fifth is its consumer
/// and its queue. It ends in a close, or (as a kill would) behind the last put, or inside one.
fn run(path: &Path, marks: &Marks, durability: Durability, seed: u64, life: u64) {
    let Some(stream) = marks.attempt("open", builder(durability).open(path)) else { return };
    marks.put("opened");
    show(&stream, marks);
    let puts = Puts { next_id: AtomicU64::new(life << 32), ..Puts::default() };
    let mut random = Random(seed << 8 | life);
    let end = (seed + life) % 3;
    thread::scope(|scope| {
        for _ in 0..PRODUCERS {
            let mut random = Random(random.below(1 << 40) as u64);
            let (stream, puts) = (&stream, &puts);
            scope.spawn(move || produce(stream, marks, puts, &mut random));
        }
        let (mut of_readers, behind) = (Random(random.below(1 << 40) as u64), 30 + random.below(60) as u64);
        let (stream, puts) = (&stream, &puts);
        scope.spawn(move || readers::run(stream, marks, &mut of_readers));
        if end == 2 {
            scope.spawn(move || exit_inside(marks, puts, behind));
        }
        reshape(stream, marks, &mut random);
    });
    show(&stream, marks);
    if end == 0 && marks.attempt("close", stream.close()).is_some() {
        marks.put("closed");
    }
    std::process::exit(0); // no destructor runs
}

/// The puts of a life.
#[derive(Default)]
struct Puts {
    next_id: AtomicU64,
    under_way: AtomicU64,
    over: AtomicU64,
    producers_gone: AtomicU64,
}

impl Puts {
    fn call<T>(&self, put: impl FnOnce() -> T) -> T {
        self.under_way.fetch_add(1, Ordering::SeqCst);
        let outcome = put();
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        self.over.fetch_add(1, Ordering::SeqCst);
        outcome
    }
}

/// Ends the process inside a put behind so many others, if there are as many.
fn exit_inside(marks: &Marks, puts: &Puts, behind: u64) {
    while puts.producers_gone.load(Ordering::SeqCst) < PRODUCERS {
        if puts.over.load(Ordering::SeqCst) >= behind {
            let _whole = marks.log.lock().unwrap(); // no mark is cut short
            if puts.under_way.load(Ordering::SeqCst) > 0 {
                std::process::exit(INSIDE);
            }
        }
        thread::yield_now();
    }
}

/// The log of what happened.
pub(crate) struct Marks {
    log: Mutex<File>,
    refusals: AtomicU64,
}

impl Marks {
    pub(crate) fn open(path: &Path) -> Self {
        let log = OpenOptions::new().append(true).create(true).open(path).unwrap();
        Self { log: Mutex::new(log), refusals: AtomicU64::new(0) }
    }

    /// How much was refused so far.
    pub(crate) fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::SeqCst)
    }

    /// When this returns, the mark is in the log, behind all that it tells of.
    pub(crate) fn put(&self, mark: &str) {
        self.log.lock().unwrap().write_all(format!("{mark}\n").as_bytes()).unwrap();
    }

    pub(crate) fn have(&self, shard_id: ShardId, sequence_number: SequenceNumber, id: u64) {
        self.put(&format!("have {} {} {id}", shard_id.get(), sequence_number.get()));
    }

    /// What came of it; a refusal is told with its kind, for whoever knows what may be refused.
    pub(crate) fn attempt<T>(&self, what: &str, outcome: anabranch::Result<T>) -> Option<T> {
        outcome.map_err(|error| self.refused(what, &error)).ok()
    }

    fn refused(&self, what: &str, error: &Error) {
        self.refusals.fetch_add(1, Ordering::SeqCst);
        let kind = match error {
            Error::ShardFailed { source, .. } => format!("{:?}-{:?}", error.kind(), source.kind()),
            _ => format!("{:?}", error.kind()),
        };
        self.put(&format!("refused {what} {kind} {error}"));
    }
}

/// The number of a record that [`record`] made.
pub(crate) fn id_of(record: &Record) -> u64 {
    u64::from_le_bytes(record.data()[..8].try_into().unwrap())
}

/// Marks what a reader is shown: from then on it must not vanish.
fn show(stream: &Stream, marks: &Marks) {
    for shard in stream.shards() {
        let Some(iterator) =
            marks.attempt("iterator", stream.shard_iterator(shard.shard_id, ShardIteratorType::TrimHorizon))
        else {
            continue;
        };
        for record in iterator.include_unsynced(false).available() {
            let Some(record) = marks.attempt("read", record) else { break };
            marks.have(record.shard_id(), record.sequence_number(), id_of(&record));
        }
    }
}

fn produce(stream: &Stream, marks: &Marks, puts: &Puts, random: &mut Random) {
    let mut unsynced: Vec<(PutReceipt, u64)> = Vec::new();
    for _ in 0..PUTS_OF_A_PRODUCER {
        let count = if random.below(4) == 0 { 3 } else { 1 };
        let ids: Vec<_> = (0..count).map(|_| puts.next_id.fetch_add(1, Ordering::SeqCst)).collect();
        let records: Vec<_> = ids.iter().map(|id| record(*id)).collect();
        let entries: Vec<_> = records.iter().map(|(key, data)| PutEntry::new(key, data)).collect();
        let Some(receipts) = marks.attempt("put", puts.call(|| stream.put_batch(&entries))) else { break };
        unsynced.extend(receipts.into_iter().zip(ids));
        if stream.durability() == Durability::Buffered
            && (random.below(6) != 0 || marks.attempt("sync", stream.sync()).is_none())
        {
            continue;
        }
        for (receipt, id) in unsynced.drain(..) {
            marks.have(receipt.shard_id, receipt.sequence_number, id);
        }
    }
    puts.producers_gone.fetch_add(1, Ordering::SeqCst);
}

fn reshape(stream: &Stream, marks: &Marks, random: &mut Random) {
    for _ in 0..6 {
        thread::sleep(std::time::Duration::from_millis(random.below(30) as u64));
        let open = stream.open_shards();
        let shard = open[random.below(open.len())];
        match random.below(3) {
            0 if open.len() < 5 => drop(marks.attempt("split", stream.split_shard(shard, None))),
            1 => {
                for other in open {
                    match stream.merge_shards(shard, other) {
                        Ok(_) => break,
                        Err(error) if error.kind() == ErrorKind::InvalidInput => {} // they are no neighbours
                        Err(error) => marks.refused("merge", &error),
                    }
                }
            }
            _ => {
                let Ok(description) = stream.describe() else { continue };
                let Some(end) = description.shards.iter().find(|found| found.summary.shard_id == shard) else {
                    continue;
                };
                let before = SequenceNumber::new(
                    random.below(1 + usize::try_from(end.next_sequence_number.get()).unwrap()) as u64,
                );
                marks.put(&format!("trim {} {}", shard.get(), before.get()));
                marks.attempt("trim", stream.trim_shard(shard, before));
            }
        }
    }
}
