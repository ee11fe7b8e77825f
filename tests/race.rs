//! The engine under real threads, for a sanitizer to watch: `.ci/sanitizers` runs it under `ThreadSanitizer`. A plain program
//! (the test harness has threads of its own, in a standard library that is not instrumented); in a normal `cargo test` it is just run.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "it fails by panicking, and says what it did")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anabranch::{Durability, PutEntry, PutOptions, RecordsStart, ShardIteratorType, SimulatedDisk, Stream};

fn main() {
    if std::env::args().any(|argument| argument == "--list") {
        // What runners that start each test alone ask a harness.
        if !std::env::args().any(|argument| argument == "--ignored") {
            println!("race: test");
        }
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    for durability in [Durability::Synced, Durability::Buffered] {
        let builder = Stream::builder().durability(durability).segment_bytes(16 << 10).shards(2);
        let name = format!("{durability:?}");
        run(&builder.clone().create(directory.path().join(&name)).unwrap(), &format!("{name} on files"));
        run(&builder.storage(Arc::new(SimulatedDisk::new())).create("s").unwrap(), &format!("{name} simulated"));
    }
}

/// Writers, readers that poll and readers that wait, splits, merges and syncs, all at once.
fn run(stream: &Stream, name: &str) {
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> =
        (0..3).map(|writer| spawn(stream, &stop, move |stream, _| write(stream, writer))).collect();
    let others = [
        spawn(stream, &stop, reshard),
        spawn(stream, &stop, scan),
        spawn(stream, &stop, follow),
        spawn(stream, &stop, look),
    ];
    let written: u64 = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
    stop.store(true, Ordering::SeqCst);
    let counts: Vec<_> = others.into_iter().map(|other| other.join().unwrap()).collect();
    let held = stream.records(RecordsStart::TrimHorizon).unwrap().available().map(Result::unwrap).count() as u64;
    assert_eq!(held, written);
    println!("{name}: {written} records written; reshards, records scanned and followed, looks: {counts:?}");
}

fn spawn(
    stream: &Stream,
    stop: &Arc<AtomicBool>,
    body: impl FnOnce(&Stream, &AtomicBool) -> u64 + Send + 'static,
) -> thread::JoinHandle<u64> {
    let (stream, stop) = (stream.clone(), Arc::clone(stop));
    thread::spawn(move || body(&stream, &stop))
}

fn write(stream: &Stream, writer: u64) -> u64 {
    let mut written = 0;
    for round in 0..200_u64 {
        let data = vec![7; usize::try_from(round * 37 % 900).unwrap()];
        let key = format!("{writer}-{}", round % 5);
        if round % 4 == 0 {
            let entries = [PutEntry::new(&key, &data), PutEntry::new("other", &data)];
            written += stream.put_batch(&entries).unwrap().len() as u64;
        } else {
            let durability = if round % 7 == 0 { Durability::Synced } else { stream.durability() };
            stream.put_with(&key, &data, PutOptions::new().durability(durability)).unwrap();
            written += 1;
        }
    }
    stream.sync().unwrap();
    written
}

fn reshard(stream: &Stream, stop: &AtomicBool) -> u64 {
    let mut done = 0;
    while !stop.load(Ordering::SeqCst) && done < 12 {
        let open = stream.open_shards();
        if open.len() < 4 {
            stream.split_shard(open[0], None).unwrap();
        } else {
            stream.merge_shards(open[0], open[1]).unwrap();
        }
        done += 1;
        thread::sleep(Duration::from_millis(2));
    }
    done
}

fn scan(stream: &Stream, stop: &AtomicBool) -> u64 {
    let mut seen = 0;
    while !stop.load(Ordering::SeqCst) {
        for shard in stream.shards() {
            let mut iterator = stream.shard_iterator(shard.shard_id, ShardIteratorType::TrimHorizon).unwrap();
            loop {
                let batch = iterator.next_batch().unwrap();
                if batch.is_empty() {
                    break;
                }
                seen += batch.map(|record| u64::from(record.data().iter().all(|byte| *byte == 7))).sum::<u64>();
            }
        }
    }
    seen
}

fn follow(stream: &Stream, stop: &AtomicBool) -> u64 {
    let mut records = stream.records(RecordsStart::TrimHorizon).unwrap();
    let mut seen = 0;
    while !stop.load(Ordering::SeqCst) {
        seen += u64::from(records.next_timeout(Duration::from_millis(5)).unwrap().is_some());
    }
    seen
}

fn look(stream: &Stream, stop: &AtomicBool) -> u64 {
    let mut looks = 0;
    while !stop.load(Ordering::SeqCst) {
        looks += u64::from(!stream.describe().unwrap().shards.is_empty());
        stream.sync().unwrap();
    }
    looks
}
