//! A batching producer beside `put` in a loop, at both levels of durability. Prints one line a case: rates, and their ratio; medians of rounds
//! in which the cases take turns.
//!
//! `cargo bench --bench batching`. Records of 128 bytes to four shards. *Put and go on*: threads put all their records and wait for them at the
//! end. *Put and wait*: each thread waits for its record before it puts the next, as `put` itself does.
#![allow(missing_docs, reason = "a program")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a failure ends the benchmark")]

mod support;

use std::hint::black_box;
use std::time::Duration;

use anabranch::{BatchingProducer, Durability, PutReceipt, Stream};
use support::{Place, check, keys};

const ROUNDS: usize = 7;
const THREADS: [usize; 3] = [1, 8, 64];
const SHARDS: u32 = 4;
const DATA: [u8; 128] = [0xa5; 128];

/// How the records get to the stream.
#[derive(Clone, Copy, Debug)]
enum Way {
    Loop,
    GoOn,
    Wait,
}

const WAYS: [Way; 3] = [Way::Loop, Way::GoOn, Way::Wait];

fn main() {
    println!("{:9} {:>7}   {:>9} {:>12} {:>13}", "", "threads", "put", "put, go on", "put and wait");
    for durability in [Durability::Buffered, Durability::Synced] {
        for threads in THREADS {
            let mut rates = WAYS.map(|_| Vec::new());
            for _ in 0..ROUNDS {
                for (way, rates) in WAYS.iter().zip(&mut rates) {
                    rates.push(rate(*way, durability, threads));
                }
            }
            let [put, go_on, wait] = rates.map(median);
            println!(
                "{durability:9?} {threads:7}   {:7.1} k {:7.1} k {:4.1}x {:7.1} k {:4.2}x",
                put / 1e3,
                go_on / 1e3,
                go_on / put,
                wait / 1e3,
                wait / put
            );
        }
    }
}

/// Records a second.
fn rate(way: Way, durability: Durability, threads: usize) -> f64 {
    let place = Place::new();
    let stream = Stream::builder().shards(SHARDS).durability(durability).create(place.stream()).unwrap();
    let keys = keys();
    // Past the first, small segments.
    let preface = support::Load { threads: 1, records_per_thread: 20_000, batch: 100, data_bytes: DATA.len() };
    preface.write(&stream, &keys);
    let producer = stream.batching_producer().linger(linger(way)).start().unwrap();
    let each = records(way, durability) / threads;
    let elapsed = support::in_threads(threads, |thread| write(way, &producer, &keys, thread * 131, each));
    let written = (each * threads) as u64;
    check(&stream, preface.records() + written, (preface.records() + written) * DATA.len() as u64);
    producer.close().unwrap();
    stream.close().unwrap();
    #[allow(clippy::cast_precision_loss, reason = "a rate")]
    let written = written as f64;
    written / elapsed.as_secs_f64()
}

/// Who waits for each record waits for its lingering, too.
fn linger(way: Way) -> Duration {
    if matches!(way, Way::Wait) { Duration::ZERO } else { Duration::from_millis(1) }
}

/// Some tenths of a second for each.
fn records(way: Way, durability: Durability) -> usize {
    match (way, durability) {
        (Way::Loop, Durability::Synced) => 3_200,
        (Way::Wait, _) => 6_400,
        (Way::GoOn, Durability::Synced) => 128_000,
        _ => 512_000,
    }
}

fn write(way: Way, producer: &BatchingProducer, keys: &[String], offset: usize, records: usize) {
    let keys = keys.iter().cycle().skip(offset % keys.len()).take(records);
    match way {
        Way::Loop => keys.for_each(|key| done(producer.stream().put(key, DATA))),
        Way::Wait => keys.for_each(|key| done(producer.put(key, DATA).unwrap().wait())),
        Way::GoOn => {
            let handles: Vec<_> = keys.map(|key| producer.put(key, DATA).unwrap()).collect();
            for handle in handles {
                done(handle.wait());
            }
        }
    }
}

fn done(outcome: anabranch::Result<PutReceipt>) {
    black_box(outcome.unwrap());
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
