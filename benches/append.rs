//! Appending to a `Buffered` stream: each record is in the page cache when its put returns.
#![allow(missing_docs, reason = "criterion's macros")]
#![allow(clippy::unwrap_used, reason = "a failure ends the benchmark")]

mod support;

use std::time::Duration;

use anabranch::{Durability, Stream};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use support::{Load, Place, SIZES, check, group, keys};

/// Written in one iteration.
const VOLUME: usize = 16 << 20;
/// Written to each shard before, so that it has passed its first, small segments.
const PREFACE: usize = 700 << 10;

fn append(criterion: &mut Criterion) {
    for (name, batch) in [("append", 1), ("append_batch_100", 100)] {
        let mut group = group(criterion, name);
        for (threads, shards) in [(1, 1), (1, 16), (8, 1), (8, 16)] {
            if batch > 1 && threads > 1 {
                continue;
            }
            for (size, data_bytes) in SIZES {
                let records_per_thread = (VOLUME / data_bytes / threads).next_multiple_of(batch);
                let load = Load { threads, records_per_thread, batch, data_bytes };
                group.throughput(Throughput::ElementsAndBytes {
                    elements: load.records(),
                    bytes: load.records() * data_bytes as u64,
                });
                group.bench_function(format!("{size}/{threads}_threads/{shards}_shards"), |bencher| {
                    bencher.iter_custom(|iterations| write(load, shards, iterations));
                });
            }
        }
    }
}

fn write(load: Load, shards: u32, iterations: u64) -> Duration {
    let (place, keys) = (Place::new(), keys());
    let stream = Stream::builder().shards(shards).durability(Durability::Buffered).create(place.stream()).unwrap();
    let preface = Load {
        threads: 1,
        records_per_thread: (shards as usize * PREFACE / load.data_bytes).next_multiple_of(100),
        batch: 100,
        ..load
    };
    preface.write(&stream, &keys);
    stream.sync().unwrap();
    let elapsed = (0..iterations).map(|_| load.write(&stream, &keys)).sum();
    let records = preface.records() + iterations * load.records();
    check(&stream, records, records * load.data_bytes as u64);
    stream.close().unwrap();
    elapsed
}

criterion_group!(benches, append);
criterion_main!(benches);
