//! Two workers share the shards of a stream through a split and a merge: each record is handled, in the order of its key, though the shards change
//! hands and the shards themselves change.
//!
//! `cargo run --release --example group`
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anabranch::{Checkpoint, Consumer, Handler, Record, Result, ShardId, Stream, Worker, WorkerOptions};

const KEYS: usize = 10;
const ROUNDS: usize = 300;

/// What both workers know: the last number of each key.
type Newest = Mutex<HashMap<String, usize>>;

struct Billing<'a> {
    name: &'a str,
    newest: &'a Newest,
}

impl Handler for Billing<'_> {
    fn initialize(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        println!("{} begins {} at {:?}", self.name, checkpoint.shard_id, checkpoint.position);
        Ok(())
    }

    fn process(&mut self, worker: &mut Worker, shard_id: ShardId, records: &[Record]) -> Result<()> {
        if let Ok(mut newest) = self.newest.lock() {
            for record in records {
                let number = String::from_utf8_lossy(record.data()).parse().unwrap_or(0);
                let last = newest.entry(record.partition_key().to_owned()).or_default();
                // At least once: what a worker that lost its shard had not checkpointed comes again.
                *last = number.max(*last);
            }
        }
        worker.checkpoint_last(shard_id, records)
    }

    fn lease_lost(&mut self, shard_id: ShardId) {
        println!("{} gave up {shard_id}", self.name);
    }

    fn shard_ended(&mut self, worker: &mut Worker, shard_id: ShardId) -> Result<()> {
        println!("{} finished {shard_id}", self.name);
        worker.finish(shard_id)
    }
}

fn main() -> Result<()> {
    let path = std::env::temp_dir().join(format!("anabranch-group-{}", std::process::id()));
    let stream = Stream::builder().shards(2).create(&path)?;
    let consumer = stream.consumer("billing")?;
    let (newest, stop) = (Newest::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let work = |name| {
            let (consumer, newest, stop) = (&consumer, &newest, &stop);
            scope.spawn(move || run(consumer, name, newest, stop))
        };
        let workers = [work("worker-1"), work("worker-2")];
        let outcome = produce(&stream).and_then(|()| wait(&stream, &consumer));
        stop.store(true, Ordering::SeqCst);
        for worker in workers {
            worker.join().unwrap_or(Ok(()))?;
        }
        outcome
    })?;
    let newest = newest.into_inner().unwrap_or_default();
    assert!(newest.len() == KEYS && newest.values().all(|number| *number == ROUNDS), "{newest:?}");
    println!("{} records of {KEYS} keys handled", ROUNDS * KEYS);
    drop(consumer);
    stream.close()?;
    let _ = std::fs::remove_dir_all(path);
    Ok(())
}

fn run(consumer: &Consumer, name: &str, newest: &Newest, stop: &AtomicBool) -> Result<()> {
    let mut worker = consumer.worker(name, WorkerOptions::new().lease_time(Duration::from_millis(300)))?;
    worker.run(&mut Billing { name, newest }, || stop.load(Ordering::SeqCst))?;
    worker.close()
}

fn produce(stream: &Stream) -> Result<()> {
    for round in 1..=ROUNDS {
        for key in 0..KEYS {
            stream.put(format!("user-{key}"), round.to_string())?;
        }
        match round {
            100 => drop(stream.split_shard(ShardId::new(0), None)?),
            200 => {
                let open = stream.open_shards();
                if let [lower, upper, ..] = open[..] {
                    stream.merge_shards(lower, upper)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Until every open shard is done.
fn wait(stream: &Stream, consumer: &Consumer) -> Result<()> {
    loop {
        let mut left = 0;
        for shard_id in stream.open_shards() {
            left += consumer.iterator(shard_id)?.available().count();
        }
        if left == 0 {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
