//! One consumer, used by several processes at once, which are killed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use anabranch::{Durability, Error, Position, PutEntry, ShardId, Stream, StreamBuilder};

use crate::child::{self, Process};
use crate::records::assert_sound;
use crate::support::{Random, length, lines, wait_until};

const SHARDS: u32 = 3;
const RECORDS: u64 = 3_000;
const ROUNDS: u64 = 6;
const TAKEN: u64 = 0;
const DONE: u64 = 1;

fn builder(durability: Durability) -> StreamBuilder {
    Stream::builder().shards(SHARDS).durability(durability)
}

/// Takes shards and moves their positions until it is killed; notes what was acknowledged.
pub(crate) fn run() {
    let path = child::argument("STREAM");
    let stream = match child::argument("WRITER").as_str() {
        "yes" => Stream::builder().open_existing(path).unwrap(),
        _ => Stream::builder().open_read_only(path).unwrap(),
    };
    let consumer = stream.consumer("billing").unwrap();
    let mut ledger = OpenOptions::new().append(true).create(true).open(child::argument("LEDGER")).unwrap();
    let mut random = Random::new(child::argument("SEED").parse().unwrap());
    let worker = format!("worker-{}", child::argument("SEED"));
    loop {
        let shard_id = ShardId::new(u32::try_from(random.within(0, u64::from(SHARDS))).unwrap());
        let lease = consumer.take(shard_id, &worker).unwrap();
        let mut note = |kind: u64, number: u64| {
            let mut text = String::new();
            writeln!(text, "{kind} {} {} {number}", shard_id.get(), lease.epoch()).unwrap();
            ledger.write_all(text.as_bytes()).unwrap(); // one call: whole, or not at all
        };
        note(TAKEN, 0);
        for record in lease.iterator().unwrap().available().take(usize::try_from(random.within(1, 20)).unwrap()) {
            let record = record.unwrap();
            match lease.checkpoint(&record) {
                Ok(()) => note(DONE, record.sequence_number().get()),
                Err(Error::LeaseLost { .. }) => break,
                Err(error) => panic!("{error:?}"),
            }
        }
    }
}

fn start(directory: &Path, stream: &Path, ledger: &Path, number: u64, is_writer: bool) -> Process {
    let log = directory.join(format!("consumer-{number}.log"));
    let (seed, writer) = (number.to_string(), if is_writer { "yes" } else { "no" });
    child::start(
        "consumer",
        &log,
        &[("STREAM", &stream), ("LEDGER", &ledger), ("SEED", &seed), ("WRITER", &writer)],
    )
}

/// What was acknowledged holds: no epoch was given twice, and no position went back from one epoch to the next.
fn check(stream: &Stream, ledger: &Path) -> usize {
    let mut epochs = BTreeSet::new();
    let mut done: BTreeMap<(u64, u64), (u64, u64)> = BTreeMap::new();
    let notes = lines::<4>(ledger);
    for [kind, shard, epoch, number] in &notes {
        if *kind == TAKEN {
            assert!(epochs.insert((*shard, *epoch)), "epoch {epoch} of shard {shard} was given twice");
            continue;
        }
        let (first, last) = done.entry((*shard, *epoch)).or_insert((*number, *number));
        (*first, *last) = ((*first).min(*number), (*last).max(*number));
    }
    for shard in 0..u64::from(SHARDS) {
        let of_shard: Vec<_> = done.range((shard, 0)..(shard + 1, 0)).map(|(_, range)| *range).collect();
        for pair in of_shard.windows(2) {
            assert!(pair[0].1 < pair[1].0, "shard {shard}: {:?} was done, and then {:?}", pair[0], pair[1]);
        }
        let found = stream.consumer("billing").unwrap().checkpoint(ShardId::new(u32::try_from(shard).unwrap()));
        let at = match found.unwrap().position {
            Position::After(at) => Some(at.sequence_number.get()),
            _ => None,
        };
        assert!(at >= of_shard.last().map(|range| range.1), "shard {shard} is at {at:?}: {:?}", of_shard.last());
    }
    notes.iter().filter(|note| note[0] == DONE).count()
}

#[test]
fn a_consumer_of_killed_processes_keeps_what_it_acknowledged() {
    for durability in [Durability::Synced, Durability::Buffered] {
        let mut random = Random::of_test("a_consumer_of_killed_processes_keeps_what_it_acknowledged");
        let directory = tempfile::tempdir().unwrap();
        let (path, ledger) = (directory.path().join("stream"), directory.path().join("ledger"));
        let stream = builder(durability).create(&path).unwrap();
        for shard in stream.shards() {
            for _ in 0..RECORDS / 100 {
                let at = Some(shard.hash_key_range.start());
                let entry = PutEntry { explicit_hash_key: at, ..PutEntry::new("key", b"data") };
                stream.put_batch(&vec![entry; 100]).unwrap();
            }
        }
        stream.close().unwrap();
        let mut acknowledged = 0;
        for round in 0..ROUNDS {
            let before = length(&ledger);
            // The writer among them, now and then.
            let mut workers: Vec<_> = (0..3)
                .map(|worker| {
                    start(directory.path(), &path, &ledger, round * 10 + worker, worker == 0 && round % 2 == 0)
                })
                .collect();
            wait_until("the first checkpoints", || {
                workers.iter_mut().for_each(Process::assert_runs);
                length(&ledger) > before + 500
            });
            std::thread::sleep(random.millis(0, 150));
            workers.into_iter().for_each(Process::kill);
            assert_sound(&path);
            let stream = Stream::builder().open_existing(&path).unwrap();
            acknowledged = check(&stream, &ledger);
            stream.close().unwrap();
        }
        println!("{durability:?}: {acknowledged} checkpoints of three processes that were killed {ROUNDS} times");
        assert!(acknowledged > 0);
    }
}
