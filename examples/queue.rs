//! Three threads work off a queue: one of them dies at work, and its record is done by another; one record is poison, is set aside, and restored once its
//! handler is mended.
//!
//! `cargo run --release --example queue`
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anabranch::{Error, Queue, QueueOptions, Result, Stream};

const RECORDS: usize = 1_000;
const WAIT: Duration = Duration::from_millis(50);

/// What the threads share.
#[derive(Default)]
struct Work {
    done: AtomicUsize,
    one_died: AtomicBool,
    mended: AtomicBool,
}

fn work(name: &str, queue: &Queue, work: &Work) -> Result<()> {
    let wanted = || RECORDS - usize::from(!work.mended.load(Ordering::SeqCst));
    while work.done.load(Ordering::SeqCst) < wanted() {
        for received in queue.receive(10, WAIT)? {
            if received.record.data() == b"100" && !work.one_died.swap(true, Ordering::SeqCst) {
                println!("{name} dies over record 100, and over those that it received with it");
                return Ok(()); // without a word: others get them when their time is over
            }
            if received.record.data() == b"500" && !work.mended.load(Ordering::SeqCst) {
                println!("{name} cannot handle record 500: receive {}", received.receive_count);
                queue.give_back(&received)?;
                continue;
            }
            match queue.acknowledge(&received) {
                Ok(()) => drop(work.done.fetch_add(1, Ordering::SeqCst)),
                Err(Error::ReceiptExpired { .. }) => println!("{name} was too slow: somebody else has it"),
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

fn work_off(queue: &Queue, shared: &Work) -> Result<()> {
    thread::scope(|scope| {
        let names = ["one", "two", "three"];
        let threads: Vec<_> = names.map(|name| scope.spawn(move || work(name, queue, shared))).into();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or(Err(Error::Closed)))
    })
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let stream = Stream::builder().shards(2).create(directory.path().join("orders"))?;
    let records: Vec<_> = (0..RECORDS).map(|number| number.to_string()).collect();
    let entries: Vec<_> = records
        .iter()
        .map(|data| anabranch::PutEntry { partition_key: data, data: data.as_bytes(), explicit_hash_key: None })
        .collect();
    stream.put_batch(&entries)?;

    let options = QueueOptions::new().visibility(Duration::from_millis(200)).max_receives(3);
    let queue = stream.queue("orders", options)?;
    let shared = Work::default();
    work_off(&queue, &shared)?;
    let aside = queue.set_aside()?;
    println!("{} done, {} set aside", shared.done.load(Ordering::SeqCst), aside.len());
    for aside in &aside {
        let record = stream.get(aside.shard_id, aside.sequence_number)?;
        println!("set aside after {} receives: {}", aside.receive_count, String::from_utf8_lossy(record.data()));
    }

    shared.mended.store(true, Ordering::SeqCst);
    println!("{} restored", queue.restore_all()?);
    work_off(&queue, &shared)?;
    queue.sync()?;
    let is_done = queue.describe()?.shards.iter().all(|shard| shard.floor == shard.next && shard.new == 0);
    println!("{} done, nothing left: {is_done}", shared.done.load(Ordering::SeqCst));
    if !is_done || shared.done.load(Ordering::SeqCst) != RECORDS {
        return Err("records were lost".into());
    }
    stream.close()?;
    Ok(())
}
