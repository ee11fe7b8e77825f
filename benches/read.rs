//! Reading what is there, every checksum verified: scans in the batch form and the iterator form, and single records,
//! each beside a bare walk of the same segments in memory maps.
#![allow(missing_docs, reason = "criterion's macros")]
#![allow(clippy::unwrap_used, reason = "a failure ends the benchmark")]

mod support;

use std::hint::black_box;

use anabranch::{Durability, SequenceNumber, ShardId, ShardIteratorType, Stream};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use support::bare::BareMaps;
use support::{Load, Place, SIZES, check, group, keys, sum};

const VOLUME: usize = 64 << 20;
const SHARD: ShardId = ShardId::new(0);

struct Filled {
    stream: Stream,
    records: u64,
    data_bytes: usize,
    bare: BareMaps,
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
        let bare = BareMaps::open(&place.stream());
        let stream = Stream::builder().open_existing(place.stream()).unwrap();
        check(&stream, load.records(), load.records() * data_bytes as u64);
        Self { stream, records: load.records(), data_bytes, bare, _place: place }
    }

    /// Every byte of keys and data is summed, so that every byte is read.
    fn expected(&self) -> (u64, u64) {
        let of_data = sum(&vec![0xa5; self.data_bytes]);
        let of_keys: Vec<_> = keys().iter().map(|key| sum(key.as_bytes())).collect();
        let sums = (0..self.records).zip(of_keys.iter().cycle()).map(|(_, of_key)| of_key + of_data);
        (self.records, sums.sum())
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
                found.1 += sum(record.partition_key().as_bytes()) + sum(record.data());
            }
        }
    }

    fn scan_records(&self) -> (u64, u64) {
        let mut iterator = self.stream.shard_iterator(SHARD, ShardIteratorType::TrimHorizon).unwrap();
        iterator
            .available()
            .map(|record| record.unwrap())
            .map(|record| sum(record.partition_key().as_bytes()) + sum(record.data()))
            .fold((0, 0), |all, one| (all.0 + 1, all.1 + one))
    }

    fn get(&self, number: u64) -> u64 {
        let record = self.stream.get(SHARD, SequenceNumber::new(number)).unwrap();
        assert_eq!((record.sequence_number().get(), record.data().len()), (number, self.data_bytes));
        sum(record.partition_key().as_bytes()) + sum(record.data())
    }

    fn get_by_iterator(&self, number: u64) -> u64 {
        let place = ShardIteratorType::AtSequenceNumber(SequenceNumber::new(number));
        let mut iterator = self.stream.shard_iterator(SHARD, place).unwrap();
        let record = iterator.available().next().unwrap().unwrap();
        assert_eq!((record.sequence_number().get(), record.data().len()), (number, self.data_bytes));
        sum(record.partition_key().as_bytes()) + sum(record.data())
    }
}

fn scan(criterion: &mut Criterion) {
    for (size, data_bytes) in SIZES {
        let filled = Filled::new(data_bytes);
        let mut group = group(criterion, "scan");
        let bytes = filled.records * data_bytes as u64;
        let expected = filled.expected();
        group.throughput(Throughput::ElementsAndBytes { elements: filled.records, bytes });
        for (name, checked) in [("bare_unchecked", false), ("bare", true)] {
            group.bench_function(format!("{name}/{size}"), |bencher| {
                bencher.iter(|| assert_eq!(filled.bare.scan(checked), expected));
            });
        }
        group.bench_function(format!("batches/{size}"), |bencher| {
            bencher.iter(|| assert_eq!(filled.scan_batches(), expected));
        });
        group.bench_function(format!("records/{size}"), |bencher| {
            bencher.iter(|| assert_eq!(filled.scan_records(), expected));
        });
    }
}

fn point(criterion: &mut Criterion) {
    for (size, data_bytes) in SIZES {
        let filled = Filled::new(data_bytes);
        let mut group = group(criterion, "get");
        group.throughput(Throughput::Elements(1));
        let mut number = 0;
        let mut next = || {
            number = (number + 2_654_435_761) % filled.records; // all over the shard
            number
        };
        group.bench_function(format!("bare/{size}"), |bencher| {
            bencher.iter(|| black_box(filled.bare.get(next())));
        });
        group.bench_function(format!("get/{size}"), |bencher| {
            bencher.iter(|| black_box(filled.get(next())));
        });
        group.bench_function(format!("iterator/{size}"), |bencher| {
            bencher.iter(|| black_box(filled.get_by_iterator(next())));
        });
    }
}

criterion_group!(benches, scan, point);
criterion_main!(benches);
