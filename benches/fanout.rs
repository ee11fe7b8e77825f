//! What readers at the tail cost the writer: none, 1, 8, 32 of them, each of which gets every record.
//!
//! `cargo bench --bench fanout`. One thread puts records of 1 KiB at `Buffered`, as fast as it can and at a pace; readers follow the shard in the batch form, in threads of their
//! own. Prints what a put costs in processor time of the writer's thread alone, its ratio to that without readers, and how many records a second
//! were put and handed out. Medians of rounds in which the cases take turns. Where readers outnumber the processors, the writer waits its turn like
//! everybody: that is in the rates, and not in the cost.
#![allow(missing_docs, reason = "a program")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a failure ends the benchmark"
)]

mod support;

use std::hint::black_box;
use std::time::{Duration, Instant};

use anabranch::{Durability, ShardId, ShardIterator, ShardIteratorType, Stream};
use support::{Place, median, processor_time};

const ROUNDS: usize = 7;
const READERS: [usize; 4] = [0, 1, 8, 32];
const PUTS: u32 = 200_000;
const DATA: [u8; 1024] = [0xa5; 1024];
const SHARD: ShardId = ShardId::new(0);

#[derive(Default)]
struct Figures {
    nanos_per_put: Vec<f64>,
    puts_per_second: Vec<f64>,
}

fn main() {
    for (title, pause) in
        [("as fast as it goes", Duration::ZERO), ("20,000 puts a second", Duration::from_millis(5))]
    {
        println!(
            "{title}\n{:>7} {:>16} {:>8} {:>10} {:>14}",
            "readers", "writer's ns/put", "", "puts/s", "handed out/s"
        );
        let mut cases = READERS.map(|_| Figures::default());
        for _ in 0..ROUNDS {
            for (readers, figures) in READERS.iter().zip(&mut cases) {
                round(*readers, pause, figures);
            }
        }
        let alone = median(&mut cases[0].nanos_per_put);
        for (readers, figures) in READERS.iter().zip(&mut cases) {
            let (nanos, puts) = (median(&mut figures.nanos_per_put), median(&mut figures.puts_per_second));
            println!(
                "{readers:7} {nanos:16.0} {:7.2}x {puts:10.0} {:14.0}",
                nanos / alone,
                puts * *readers as f64
            );
        }
    }
}

/// Puts, in lots of a hundred with a pause behind each, until all readers have all.
fn round(readers: usize, pause: Duration, figures: &mut Figures) {
    let puts = if pause.is_zero() { PUTS } else { PUTS / 20 };
    let place = Place::new();
    let stream = Stream::builder().durability(Durability::Buffered).create(place.stream()).unwrap();
    let iterators = (0..readers).map(|_| stream.shard_iterator(SHARD, ShardIteratorType::TrimHorizon).unwrap());
    let iterators: Vec<_> = iterators.collect();
    std::thread::scope(|scope| {
        for iterator in iterators {
            scope.spawn(move || follow(iterator, puts));
        }
        let (started, processor) = (Instant::now(), processor_time());
        for put in 0..puts {
            stream.put("key", DATA).unwrap();
            if !pause.is_zero() && put % 100 == 99 {
                std::thread::sleep(pause);
            }
        }
        figures.nanos_per_put.push(processor_time().saturating_sub(processor).as_nanos() as f64 / f64::from(puts));
        figures.puts_per_second.push(f64::from(puts) / started.elapsed().as_secs_f64());
    });
    stream.close().unwrap();
}

fn follow(mut iterator: ShardIterator, puts: u32) {
    let mut seen = 0;
    while seen < puts {
        let batch = iterator.next_batch_timeout(Duration::from_secs(1)).unwrap();
        seen += u32::try_from(batch.len()).unwrap();
        for record in batch {
            black_box(record.data().len());
        }
    }
}
