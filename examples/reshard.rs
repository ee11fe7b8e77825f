//! Shards split, multiply and merge while a producer writes and a consumer reads. Neither is told:
//! the producer's keys are routed anew, the consumer learns of children where a shard ends.
//!
//! ```text
//! cargo run --example reshard
//! ```

#![allow(clippy::print_stdout)] // a program's output, not a library's

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anabranch::{Durability, PutEntry, ShardIterator, ShardIteratorType, ShardState, Stream};

type Failure = Box<dyn Error + Send + Sync>; // may cross threads

const KEYS: u64 = 40;
const ROUNDS_AT_LEAST: u64 = 50;

fn main() -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let stream = Stream::builder().durability(Durability::Buffered).create(directory.path().join("counters"))?;
    let (resharding, writing) = (AtomicBool::new(true), AtomicBool::new(true));

    let (put, read) = thread::scope(|scope| {
        let producer = scope.spawn(|| produce(&stream, &resharding));
        let consumer = scope.spawn(|| consume(&stream, &writing));

        // The flags fall whatever happens, so that a failure ends the other threads as well.
        let resharded = reshard(&stream);
        resharding.store(false, Ordering::Release);
        let put = producer.join().map_err(|_| "the producer panicked");
        writing.store(false, Ordering::Release);
        let read = consumer.join().map_err(|_| "the consumer panicked");
        resharded?;
        Ok::<_, Failure>((put??, read??))
    })?;

    assert_eq!(read.len() as u64, KEYS);
    assert!(read.values().all(|count| *count == put), "lost: {put} rounds put, {read:?} read");
    println!("{put} rounds of {KEYS} keys came back in order through {} shards", stream.shards().len());
    Ok(())
}

/// Puts 0, 1, 2, ... under every key, for as long as shards change and a little longer.
fn produce(stream: &Stream, resharding: &AtomicBool) -> Result<u64, Failure> {
    let keys: Vec<String> = (0..KEYS).map(|key| format!("key-{key}")).collect();
    let mut round = 0;
    while round < ROUNDS_AT_LEAST || resharding.load(Ordering::Acquire) {
        let value = round.to_le_bytes();
        let entries: Vec<_> = keys.iter().map(|key| PutEntry::new(key, &value)).collect();
        stream.put_batch(&entries)?;
        round += 1;
        thread::sleep(Duration::from_micros(200)); // a producer in no hurry
    }
    Ok(round)
}

fn reshard(stream: &Stream) -> Result<(), Failure> {
    let pause = || thread::sleep(Duration::from_millis(20));
    let first = stream.open_shards()[0];
    pause();

    let (lower, upper) = stream.split_shard(first, None)?;
    println!("split  {first} into {lower} and {upper}");
    pause();

    let open = stream.update_shard_count(5)?;
    assert_eq!(open.len(), 5);
    println!("update to 5 open shards");
    pause();

    // Adjacent are shards whose hash-key ranges touch, whatever their ids.
    let mut shards = stream.shards();
    shards.retain(|shard| shard.state == ShardState::Open);
    shards.sort_by_key(|shard| shard.hash_key_range.start());
    let (lower, upper) = (shards[0].shard_id, shards[1].shard_id);
    let child = stream.merge_shards(lower, upper)?;
    println!("merge  {lower} and {upper} into {child}");
    pause();
    Ok(())
}

/// Follows the stream from its first shards to the open ones, a child only after all of its
/// parents. That is what keeps the order of a key. Gives the number of records of each key.
///
/// `Stream::records` does the same in one line; this is how, for who spreads shards over workers.
fn consume(stream: &Stream, writing: &AtomicBool) -> Result<BTreeMap<String, u64>, Failure> {
    let from_start = |shard_id| stream.shard_iterator(shard_id, ShardIteratorType::TrimHorizon);
    let roots = stream.shards().into_iter().filter(|shard| shard.parents.is_empty());
    let mut iterators = roots.map(|shard| from_start(shard.shard_id)).collect::<Result<Vec<_>, _>>()?;
    let mut ended = BTreeSet::new();
    let mut counts = BTreeMap::new();

    loop {
        // Asked before reading: what was put before the flag fell is then read in this round.
        let last_round = !writing.load(Ordering::Acquire);
        let mut moved = false;
        for mut iterator in std::mem::take(&mut iterators) {
            moved |= check_order(&mut iterator, &mut counts)?;
            let Some(children) = iterator.end_of_shard() else {
                iterators.push(iterator);
                continue;
            };
            moved = true;
            ended.insert(iterator.shard_id());
            for child in children {
                if child.parents.iter().all(|parent| ended.contains(parent)) {
                    println!("{} ended: on to {}", iterator.shard_id(), child.shard_id);
                    iterators.push(from_start(child.shard_id)?);
                }
            }
        }
        if last_round && !moved {
            return Ok(counts);
        }
    }
}

/// Reads what is there, and says whether anything was. Each key must count up by one.
fn check_order(iterator: &mut ShardIterator, counts: &mut BTreeMap<String, u64>) -> Result<bool, Failure> {
    let batch = iterator.next_batch_timeout(Duration::from_millis(1))?;
    let any = !batch.is_empty();
    for record in batch {
        let value = u64::from_le_bytes(record.data().try_into()?);
        let count = counts.entry(record.partition_key().to_owned()).or_default();
        assert_eq!(value, *count, "{} is out of order", record.partition_key());
        *count += 1;
    }
    Ok(any)
}
