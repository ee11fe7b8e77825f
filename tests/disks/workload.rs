//! What a process does to the stream before the power goes, told mark by mark to whoever checks what is left.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anabranch::{
    Durability, Error, PutEntry, PutReceipt, SequenceNumber, ShardIteratorType, Stream, StreamBuilder,
};

use crate::image::Random;

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

/// A life in a process of its own, which must end well.
pub(crate) fn live(stream: &Path, marks: &Path, durability: Durability, seed: u64, life: u64) {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.arg("workload").arg(stream).arg(marks);
    child.arg(format!("{durability:?}")).arg(seed.to_string()).arg(life.to_string());
    let status = child.status().unwrap();
    assert!(status.success(), "seed {seed}, life {life}: {status}");
}

/// What the process started by [`live`] does.
pub(crate) fn main([stream, marks, durability, seed, life]: [&String; 5]) {
    let durability = if durability == "Synced" { Durability::Synced } else { Durability::Buffered };
    run(Path::new(stream), Path::new(marks), durability, seed.parse().unwrap(), life.parse().unwrap());
}

/// One life of the process: opens the stream, reads it, puts from three threads while a fourth splits, merges and trims. It ends in a
/// close, or (as a kill would) in the middle.
fn run(path: &Path, marks: &Path, durability: Durability, seed: u64, life: u64) {
    let marks = Marks(Mutex::new(OpenOptions::new().append(true).create(true).open(marks).unwrap()));
    let stream = match builder(durability).open(path) {
        Ok(stream) => stream,
        Err(error) => return marks.put(&format!("refused {error}")),
    };
    marks.put("opened");
    show(&stream, &marks);
    let next_id = AtomicU64::new(life << 32);
    let mut random = Random(seed << 8 | life);
    thread::scope(|scope| {
        for _ in 0..3 {
            let mut random = Random(random.below(1 << 40) as u64);
            let (stream, marks, next_id) = (&stream, &marks, &next_id);
            scope.spawn(move || produce(stream, marks, next_id, &mut random));
        }
        reshape(&stream, &marks, &mut random);
    });
    show(&stream, &marks);
    if random.below(2) == 0 && stream.close().is_ok() {
        marks.put("closed");
    }
    std::process::exit(0); // no destructor runs
}

struct Marks(Mutex<File>);

impl Marks {
    /// When this returns, the mark is in the log, behind all that it tells of.
    fn put(&self, mark: &str) {
        self.0.lock().unwrap().write_all(format!("{mark}\n").as_bytes()).unwrap();
    }
}

/// Marks what a reader is shown: from then on it must not vanish.
fn show(stream: &Stream, marks: &Marks) {
    for shard in stream.shards() {
        let Ok(mut iterator) = stream.shard_iterator(shard.shard_id, ShardIteratorType::TrimHorizon) else {
            continue;
        };
        iterator = iterator.include_unsynced(false);
        for record in iterator.available() {
            let Ok(record) = record else { break };
            let id = u64::from_le_bytes(record.data()[..8].try_into().unwrap());
            marks.put(&format!("have {} {} {id}", record.shard_id().get(), record.sequence_number().get()));
        }
    }
}

fn produce(stream: &Stream, marks: &Marks, next_id: &AtomicU64, random: &mut Random) {
    let mut unsynced: Vec<(PutReceipt, u64)> = Vec::new();
    for _ in 0..PUTS_OF_A_PRODUCER {
        let count = if random.below(4) == 0 { 3 } else { 1 };
        let ids: Vec<_> = (0..count).map(|_| next_id.fetch_add(1, Ordering::SeqCst)).collect();
        let records: Vec<_> = ids.iter().map(|id| record(*id)).collect();
        let entries: Vec<_> = records.iter().map(|(key, data)| PutEntry::new(key, data)).collect();
        match stream.put_batch(&entries) {
            Ok(receipts) => unsynced.extend(receipts.into_iter().zip(ids)),
            Err(Error::ShardFailed { .. } | Error::Io { .. }) => return,
            Err(error) => panic!("{error:?}"),
        }
        if stream.durability() == Durability::Buffered && (random.below(6) != 0 || stream.sync().is_err()) {
            continue;
        }
        for (receipt, id) in unsynced.drain(..) {
            marks.put(&format!("have {} {} {id}", receipt.shard_id.get(), receipt.sequence_number.get()));
        }
    }
}

fn reshape(stream: &Stream, marks: &Marks, random: &mut Random) {
    for _ in 0..6 {
        thread::sleep(std::time::Duration::from_millis(random.below(30) as u64));
        let open = stream.open_shards();
        let shard = open[random.below(open.len())];
        match random.below(3) {
            0 if open.len() < 5 => drop(stream.split_shard(shard, None)),
            1 => {
                for other in open {
                    if stream.merge_shards(shard, other).is_ok() {
                        break;
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
                let _ = stream.trim_shard(shard, before);
            }
        }
    }
}
