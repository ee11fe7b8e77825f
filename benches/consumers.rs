//! Checkpoints a second, at both levels, of one process and of two. Prints one line a case.
//!
//! `cargo bench --bench consumers`
#![allow(missing_docs, reason = "a program")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a failure ends the benchmark"
)]

mod support;

use std::sync::Barrier;
use std::time::{Duration, Instant};

use anabranch::{Consumer, Durability, PutEntry, Record, ShardId, ShardIteratorType, Stream};
use support::Place;

const RECORDS: usize = 10_000;

/// Checkpoints every record of a shard, over and over: how many, in how long.
fn checkpoint(consumer: &Consumer, records: &[Record], shard_id: ShardId, least: Duration) -> (u64, Duration) {
    let started = Instant::now();
    let mut done = 0;
    while started.elapsed() < least {
        consumer.reset_shard(shard_id, anabranch::RecordsStart::TrimHorizon).unwrap();
        let lease = consumer.take(shard_id, "worker").unwrap();
        for record in records {
            lease.checkpoint(record).unwrap();
            done += 1;
            if done % 64 == 0 && started.elapsed() >= least {
                break;
            }
        }
    }
    (done, started.elapsed())
}

fn measure(durability: Durability, shards: u32, beside: bool) {
    let place = Place::new();
    let stream = Stream::builder().shards(shards).durability(durability).create(place.stream()).unwrap();
    let reader = beside.then(|| Stream::builder().open_read_only(place.stream()).unwrap());
    for shard in stream.shards() {
        let at = Some(shard.hash_key_range.start());
        let entry = PutEntry { explicit_hash_key: at, ..PutEntry::new("key", b"data") };
        stream.put_batch(&vec![entry; RECORDS]).unwrap();
    }
    let barrier = Barrier::new(shards as usize);
    let rates: Vec<f64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..shards)
            .map(|shard| {
                let stream = reader.as_ref().filter(|_| shard % 2 == 1).unwrap_or(&stream);
                let barrier = &barrier;
                scope.spawn(move || {
                    let shard_id = ShardId::new(shard);
                    let mut iterator = stream.shard_iterator(shard_id, ShardIteratorType::TrimHorizon).unwrap();
                    let records: Vec<_> = iterator.available().map(Result::unwrap).collect();
                    let consumer = stream.consumer("consumer").unwrap();
                    barrier.wait();
                    let (done, took) = checkpoint(&consumer, &records, shard_id, Duration::from_secs(2));
                    done as f64 / took.as_secs_f64()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let how = if beside { "of two handles of the file" } else { "of one handle" };
    println!("{durability:?}, {shards} threads {how}: {:.0} checkpoints/s", rates.iter().sum::<f64>());
}

fn main() {
    for durability in [Durability::Buffered, Durability::Synced] {
        for (shards, beside) in [(1, false), (4, false), (4, true)] {
            measure(durability, shards, beside);
        }
    }
}
