//! Reading what is there, every checksum verified: scans in the batch form and the iterator form, and single records.
#![allow(missing_docs, reason = "criterion's macros")]
#![allow(clippy::unwrap_used, reason = "a failure ends the benchmark")]

mod support;

use std::hint::black_box;

use anabranch::{Durability, SequenceNumber, ShardId, ShardIteratorType, Stream};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use support::{Load, Place, SIZES, check, group, keys};

const VOLUME: usize = 64 << 20;
const SHARD: ShardId = ShardId::new(0);

struct Filled {
    stream: Stream,
    records: u64,
    data_bytes: usize,
    _place: Place,
}

impl Filled {
    fn new(data_bytes: usize) -> Self {
        let place = Place::new();
        let stream = Stream::builder().durability(Durability::Buffered).create(place.stream()).unwrap();
        let records_per_thread = (VOLUME / data_bytes).next_multiple_of(100);
        let load = Load { threads: 1, records_per_thread, batch: 100, data_bytes };
        load.write(&stream, &keys());
        stream.close().unwrap();
        let stream = Stream::builder().open_existing(place.stream()).unwrap();
        check(&stream, load.records(), load.records() * data_bytes as u64);
        Self { stream, records: load.records(), data_bytes, _place: place }
    }

    /// Every byte is summed, so that every byte is read.
    fn expected(&self) -> (u64, u64) {
        (self.records, self.records * sum(&vec![0xa5; self.data_bytes]))
    }

    fn scan_batches(&self) -> (u64, u64) {
        let mut iterator = self.stream.shard_iterator(SHARD, ShardIteratorType::TrimHorizon).unwrap();
        let mut found = (0, 0);
        loop {
            let batch = iterator.next_batch().unwrap();
            if batch.is_empty() {
                return found;
            }
            for record in batch {
                found.0 += 1;
                found.1 += sum(record.data());
            }
        }
    }

    fn scan_records(&self) -> (u64, u64) {
        let mut iterator = self.stream.shard_iterator(SHARD, ShardIteratorType::TrimHorizon).unwrap();
        iterator
            .available()
            .map(|record| sum(record.unwrap().data()))
            .fold((0, 0), |all, one| (all.0 + 1, all.1 + one))
    }
}

/// Eight bytes at a time: at memory speed.
fn sum(bytes: &[u8]) -> u64 {
    bytes
        .chunks_exact(8)
        .fold(0, |sum: u64, chunk| sum.wrapping_add(u64::from_le_bytes(chunk.try_into().unwrap()) >> 40))
}

fn scan(criterion: &mut Criterion) {
    for (size, data_bytes) in SIZES {
        let filled = Filled::new(data_bytes);
        let mut group = group(criterion, "scan");
        let bytes = filled.records * data_bytes as u64;
        group.throughput(Throughput::ElementsAndBytes { elements: filled.records, bytes });
        group.bench_function(format!("batches/{size}"), |bencher| {
            bencher.iter(|| assert_eq!(filled.scan_batches(), filled.expected()));
        });
        group.bench_function(format!("records/{size}"), |bencher| {
            bencher.iter(|| assert_eq!(filled.scan_records(), filled.expected()));
        });
    }
}

fn point(criterion: &mut Criterion) {
    let filled = Filled::new(1 << 10);
    let mut group = group(criterion, "get");
    group.throughput(Throughput::Elements(1));
    let mut number = 0;
    group.bench_function("1KiB", |bencher| {
        bencher.iter(|| {
            number = (number + 2_654_435_761) % filled.records; // all over the shard
            let record = filled.stream.get(SHARD, SequenceNumber::new(number)).unwrap();
            assert_eq!((record.sequence_number().get(), record.data().len()), (number, filled.data_bytes));
            black_box(sum(record.data()))
        });
    });
}

criterion_group!(benches, scan, point);
criterion_main!(benches);
