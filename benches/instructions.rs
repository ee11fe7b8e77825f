//! The hot paths, each run a fixed number of times for `.ci/instructions` to count the instructions of: `instructions PATH TIMES`.
//! Without arguments, every path once, so that it is known to run.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a failure ends the benchmark")]

mod support;

use std::hint::black_box;
use std::sync::Arc;

use anabranch::{Durability, PutEntry, SequenceNumber, ShardId, ShardIteratorType, SimulatedDisk, Stream};
use support::bare::BareMaps;
use support::{Load, Place, keys};

const SHARD: ShardId = ShardId::new(0);
const BATCH: usize = 100;

/// A hot path, with the size of its records' data.
type Path = (&'static str, usize, fn(usize, u64));

const PATHS: [Path; 18] = [
    ("put_buffered_128B", 128, put_buffered),
    ("put_buffered_1KiB", 1 << 10, put_buffered),
    ("put_batch_128B", 128, put_batch),
    ("put_batch_1KiB", 1 << 10, put_batch),
    ("put_synced_simulated_128B", 128, put_synced),
    ("scan_bare_128B", 128, scan_bare),
    ("scan_batches_128B", 128, scan_batches),
    ("scan_records_128B", 128, scan_records),
    ("scan_bare_1KiB", 1 << 10, scan_bare),
    ("scan_batches_1KiB", 1 << 10, scan_batches),
    ("scan_records_1KiB", 1 << 10, scan_records),
    ("scan_bare_10KiB", 10 << 10, scan_bare),
    ("scan_batches_10KiB", 10 << 10, scan_batches),
    ("get_bare_1KiB", 1 << 10, get_bare),
    ("get_1KiB", 1 << 10, get),
    ("get_iterator_1KiB", 1 << 10, get_iterator),
    ("recover_128B", 128, recover),
    ("recover_1KiB", 1 << 10, recover),
];

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.as_slice() {
        [] => PATHS.iter().for_each(|(_, data_bytes, run)| run(*data_bytes, 1_000)),
        [command] if command == "list" => PATHS.iter().for_each(|(name, ..)| println!("{name}")),
        [name, times] => {
            let (_, data_bytes, run) = PATHS.iter().find(|(known, ..)| known == name).unwrap();
            run(*data_bytes, times.parse().unwrap());
        }
        _ => panic!("instructions [list | PATH TIMES]"),
    }
}

/// What is counted. It is not inlined, so that its name is there to be told to the counter.
#[inline(never)]
fn measured<T>(run: impl FnOnce() -> T) -> T {
    black_box(run())
}

fn repeat<T>(numbers: impl Iterator<Item = u64>, mut run: impl FnMut(u64) -> T) {
    for number in numbers {
        black_box(run(number));
    }
}

fn create(place: &Place, durability: Durability) -> Stream {
    // No background thread: it would be counted, now and then.
    Stream::builder().background(false).durability(durability).create(place.stream()).unwrap()
}

/// Puts records one a call. What comes first is not counted: files are made, code is run for the first time.
fn put_one_by_one(stream: &Stream, data_bytes: usize, times: u64) {
    let (keys, data) = (keys(), vec![0xa5; data_bytes]);
    let mut keys = keys.iter().cycle();
    let mut put = |_| stream.put(keys.next().unwrap(), &data).unwrap();
    repeat(0..100, &mut put);
    measured(|| repeat(0..times, &mut put));
}

fn put_buffered(data_bytes: usize, times: u64) {
    put_one_by_one(&create(&Place::new(), Durability::Buffered), data_bytes, times);
}

fn put_synced(data_bytes: usize, times: u64) {
    let disk = Arc::new(SimulatedDisk::new());
    let stream = Stream::builder().background(false).storage(disk).create("stream").unwrap();
    put_one_by_one(&stream, data_bytes, times);
}

fn put_batch(data_bytes: usize, times: u64) {
    let place = Place::new();
    let stream = create(&place, Durability::Buffered);
    let (keys, data) = (keys(), vec![0xa5; data_bytes]);
    let entries: Vec<_> = keys.iter().take(BATCH).map(|key| PutEntry::new(key, &data)).collect();
    stream.put_batch(&entries).unwrap();
    measured(|| repeat(0..times / BATCH as u64, |_| stream.put_batch(&entries).unwrap()));
}

/// A stream of this many records and at least 1,000, closed.
fn fill(place: &Place, data_bytes: usize, times: u64) {
    let stream = create(place, Durability::Buffered);
    let records = usize::try_from(times).unwrap().max(1_000);
    Load { threads: 1, records_per_thread: records, batch: BATCH, data_bytes }.write(&stream, &keys());
    stream.close().unwrap();
}

fn filled(place: &Place, data_bytes: usize, times: u64) -> Stream {
    fill(place, data_bytes, times);
    Stream::builder().background(false).open_existing(place.stream()).unwrap()
}

fn scan_bare(data_bytes: usize, times: u64) {
    let place = Place::new();
    fill(&place, data_bytes, times);
    let bare = BareMaps::open(&place.stream());
    assert_eq!(measured(|| bare.scan(true)).0, times);
}

fn scan_batches(data_bytes: usize, times: u64) {
    let place = Place::new();
    let stream = filled(&place, data_bytes, times);
    measured(|| {
        let mut iterator = stream.shard_iterator(SHARD, ShardIteratorType::TrimHorizon).unwrap();
        let (mut records, mut sum) = (0, 0);
        while records < times {
            for record in iterator.next_batch().unwrap() {
                records += 1;
                sum += support::sum(record.partition_key().as_bytes()) + support::sum(record.data());
            }
        }
        black_box(sum)
    });
}

fn scan_records(data_bytes: usize, times: u64) {
    let place = Place::new();
    let stream = filled(&place, data_bytes, times);
    measured(|| {
        let mut iterator = stream.shard_iterator(SHARD, ShardIteratorType::TrimHorizon).unwrap();
        let records = iterator.available().map(|record| record.unwrap());
        let sum = |key: &str, data: &[u8]| support::sum(key.as_bytes()) + support::sum(data);
        records.map(|record| sum(record.partition_key(), record.data())).sum::<u64>()
    });
}

/// Numbers all over the shard.
fn numbers(times: u64) -> impl Iterator<Item = u64> {
    (0..times).map(move |number| number.wrapping_mul(2_654_435_761) % times)
}

fn get_bare(data_bytes: usize, times: u64) {
    let place = Place::new();
    fill(&place, data_bytes, times);
    let bare = BareMaps::open(&place.stream());
    measured(|| repeat(numbers(times), |number| bare.get(number)));
}

fn get(data_bytes: usize, times: u64) {
    let place = Place::new();
    let stream = filled(&place, data_bytes, times);
    let get = |number| {
        let record = stream.get(SHARD, SequenceNumber::new(number)).unwrap();
        support::sum(record.partition_key().as_bytes()) + support::sum(record.data())
    };
    repeat(numbers(times), get);
    measured(|| repeat(numbers(times), get));
}

fn get_iterator(data_bytes: usize, times: u64) {
    let place = Place::new();
    let stream = filled(&place, data_bytes, times);
    let get = |number| {
        let kind = ShardIteratorType::AtSequenceNumber(SequenceNumber::new(number));
        let record = stream.shard_iterator(SHARD, kind).unwrap().available().next().unwrap().unwrap();
        support::sum(record.partition_key().as_bytes()) + support::sum(record.data())
    };
    repeat(numbers(times), get);
    measured(|| repeat(numbers(times), get));
}

/// Opens a stream as its writer was killed. Counted per record of the stream, of which the unsealed segment holds about half.
fn recover(data_bytes: usize, times: u64) {
    let (place, left) = (Place::new(), Place::new());
    let stream = create(&left, Durability::Buffered);
    let records = usize::try_from(times).unwrap();
    Load { threads: 1, records_per_thread: records, batch: BATCH, data_bytes }.write(&stream, &keys());
    stream.sync().unwrap();
    support::copy(&left.stream(), &place.stream()).unwrap();
    let stream = measured(|| Stream::builder().background(false).open_existing(place.stream()).unwrap());
    assert!(stream.recovery().records_recovered > 0);
}
