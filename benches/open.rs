//! Opening a stream, after a clean close and after its writer was killed.
#![allow(missing_docs, reason = "criterion's macros")]
#![allow(clippy::unwrap_used, reason = "a failure ends the benchmark")]

mod support;

use std::time::{Duration, Instant};

use anabranch::{Durability, Stream};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use support::{Load, Place, check, copy, group, keys};

/// A stream to open, closed or as its writer was killed.
struct Left {
    name: &'static str,
    place: Place,
    records: u64,
    bytes: u64,
}

/// One shard whose newest segment holds most of 256 MB, or many shards with a little each.
fn leave(name: &'static str, shards: u32, records: usize, closed: bool) -> Left {
    let (first, mut place) = (Place::new(), Place::new());
    let stream = Stream::builder()
        .shards(shards)
        .segment_bytes(512 << 20)
        .durability(Durability::Buffered)
        .create(first.stream())
        .unwrap();
    let load = Load { threads: 1, records_per_thread: records, batch: 100, data_bytes: 1 << 10 };
    load.write(&stream, &keys());
    if closed {
        stream.close().unwrap();
        place = first;
    } else {
        copy(&first.stream(), &place.stream()).unwrap();
        drop(stream);
    }
    Left { name, place, records: load.records(), bytes: load.records() << 10 }
}

impl Left {
    fn open_closed(&self, times: u64) -> Duration {
        (0..times).map(|_| self.open(&self.place, true)).sum()
    }

    /// Opens copies: each can be recovered once.
    fn open_killed(&self, times: u64) -> Duration {
        let open_one = |_| {
            let place = Place::new();
            copy(&self.place.stream(), &place.stream()).unwrap();
            self.open(&place, false)
        };
        (0..times).map(open_one).sum()
    }

    /// Opens it, and checks that it is whole and was left as it says.
    fn open(&self, place: &Place, clean: bool) -> Duration {
        let started = Instant::now();
        let stream = Stream::builder().open_existing(place.stream()).unwrap();
        let elapsed = started.elapsed();
        assert_eq!(stream.recovery().was_clean, clean);
        assert_eq!(stream.recovery().records_recovered > 0, !clean);
        check(&stream, self.records, self.bytes);
        stream.close().unwrap();
        elapsed
    }
}

fn open(criterion: &mut Criterion) {
    let mut group = group(criterion, "open");
    for closed in [true, false] {
        let how = if closed { "after_close" } else { "after_kill" };
        for (name, shards, records) in [("1_shard_256MB", 1, 250_000), ("1000_shards", 1_000, 10_000)] {
            let left = leave(name, shards, records, closed);
            group.throughput(Throughput::Bytes(left.bytes));
            group.bench_function(format!("{how}/{}", left.name), |bencher| {
                bencher
                    .iter_custom(|times| if closed { left.open_closed(times) } else { left.open_killed(times) });
            });
        }
    }
}

criterion_group!(benches, open);
criterion_main!(benches);
