//! From a put to its record in the hands of a following thread.
#![allow(missing_docs, reason = "criterion's macros")]
#![allow(clippy::unwrap_used, reason = "a failure ends the benchmark")]

mod support;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anabranch::{Durability, ShardId, ShardIterator, ShardIteratorType, Stream};
use criterion::{Criterion, criterion_group, criterion_main};
use support::{Place, group};

const SHARD: ShardId = ShardId::new(0);
const DATA: [u8; 128] = [0xa5; 128];
/// Puts of one measurement, which are paced and so take far longer than what is measured of them.
const MOST_PUTS: u64 = 500;

/// What a follower tells the writer: how many records it has got.
#[derive(Default)]
struct Seen {
    records: AtomicU64,
    stop: AtomicBool,
}

fn tail(criterion: &mut Criterion) {
    let mut group = group(criterion, "tail");
    group.bench_function("spinning", |bencher| bencher.iter_custom(|puts| follow(puts, spin)));
    group.bench_function("parked", |bencher| bencher.iter_custom(|puts| follow(puts, park)));
}

/// The time of as many puts, each of them until the follower has it.
fn follow(iterations: u64, follower: fn(ShardIterator, &Seen)) -> Duration {
    let puts = iterations.min(MOST_PUTS);
    let place = Place::new();
    let stream = Stream::builder().durability(Durability::Buffered).create(place.stream()).unwrap();
    let iterator = stream.shard_iterator(SHARD, ShardIteratorType::TrimHorizon).unwrap();
    let seen = Seen::default();
    let elapsed = std::thread::scope(|scope| {
        let follower = scope.spawn(|| follower(iterator, &seen));
        let mut elapsed = Duration::ZERO;
        for put in 1..=puts {
            // Paced: a follower that waits has gone to sleep by then.
            std::thread::sleep(Duration::from_micros(50));
            let started = Instant::now();
            stream.put("key", DATA).unwrap();
            while seen.records.load(Ordering::Acquire) < put {
                std::hint::spin_loop();
            }
            elapsed += started.elapsed();
        }
        seen.stop.store(true, Ordering::Release);
        stream.put("key", DATA).unwrap(); // wakes it
        follower.join().unwrap();
        elapsed
    });
    stream.close().unwrap();
    elapsed / u32::try_from(puts).unwrap() * u32::try_from(iterations).unwrap()
}

fn spin(mut iterator: ShardIterator, seen: &Seen) {
    while !seen.stop.load(Ordering::Acquire) {
        for record in iterator.next_batch().unwrap() {
            assert_eq!(record.data(), DATA);
            seen.records.fetch_add(1, Ordering::Release);
        }
    }
}

fn park(mut iterator: ShardIterator, seen: &Seen) {
    for record in iterator.follow() {
        assert_eq!(record.unwrap().data(), DATA);
        seen.records.fetch_add(1, Ordering::Release);
        if seen.stop.load(Ordering::Acquire) {
            return;
        }
    }
}

criterion_group!(benches, tail);
criterion_main!(benches);
