//! Appending to a `Synced` stream: each record survives power loss when its put returns. Writers share syncs.
#![allow(missing_docs, reason = "criterion's macros")]
#![allow(clippy::unwrap_used, reason = "a failure ends the benchmark")]

mod support;

use std::time::Duration;

use anabranch::Stream;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use support::{Load, Place, check, group, keys};

fn durable(criterion: &mut Criterion) {
    let mut group = group(criterion, "durable");
    for (threads, shards, records_per_thread) in [(1, 1, 200), (8, 1, 200), (64, 1, 100), (64, 16, 100)] {
        let load = Load { threads, records_per_thread, batch: 1, data_bytes: 1 << 10 };
        group.throughput(Throughput::Elements(load.records()));
        group.bench_function(format!("1KiB/{threads}_threads/{shards}_shards"), |bencher| {
            bencher.iter_custom(|iterations| write(load, shards, iterations));
        });
    }
}

fn write(load: Load, shards: u32, iterations: u64) -> Duration {
    let (place, keys) = (Place::new(), keys());
    let stream = Stream::builder().shards(shards).create(place.stream()).unwrap();
    // Past the first, small segments.
    let preface = Load { threads: 1, records_per_thread: 700 * shards as usize, batch: 100, ..load };
    preface.write(&stream, &keys);
    let elapsed = (0..iterations).map(|_| load.write(&stream, &keys)).sum();
    let records = preface.records() + iterations * load.records();
    check(&stream, records, records * load.data_bytes as u64);
    assert_eq!(stream.metrics().unsynced_records, 0);
    stream.close().unwrap();
    elapsed
}

criterion_group!(benches, durable);
criterion_main!(benches);
