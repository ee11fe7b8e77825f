//! One thread puts records, another follows the tail of the shard and measures how long each record
//! took to reach it, for both levels of durability.
//!
//! ```text
//! cargo run --release --example tail
//! ```

#![allow(clippy::print_stdout)] // a program's output, not a library's

use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};

use anabranch::{Durability, ShardIterator, ShardIteratorType, Stream};

type Failure = Box<dyn Error + Send + Sync>; // may cross threads

const RECORDS: usize = 500;
const PAUSE: Duration = Duration::from_millis(1);
const LAST: &[u8] = b"last";

fn main() -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    for durability in [Durability::Buffered, Durability::Synced] {
        let path = directory.path().join(format!("{durability:?}"));
        let stream = Stream::builder().durability(durability).create(path)?;
        let mut latencies = follow_while_writing(&stream)?;
        assert_eq!(latencies.len(), RECORDS);

        latencies.sort();
        let (median, worst) = (latencies[RECORDS / 2], latencies[RECORDS - 1]);
        println!("{durability:?}: put to follower in {median:.1?} (median), {worst:.1?} (worst)");
    }
    Ok(())
}

/// The time that each record took from its put to the follower.
fn follow_while_writing(stream: &Stream) -> Result<Vec<Duration>, Failure> {
    let shard_id = stream.open_shards()[0];
    // `Latest` is the tail of this moment. What is put later is seen, even before anyone reads.
    let mut iterator = stream.shard_iterator(shard_id, ShardIteratorType::Latest)?;
    let started = Instant::now();
    let latencies = thread::scope(|scope| {
        let follower = scope.spawn(|| follow(&mut iterator, started));
        let put = put_all(stream, started);
        if put.is_err() {
            stream.clone().close()?; // or the follower would wait for ever
        }
        let followed = follower.join().map_err(|_| "the follower panicked")?;
        put?;
        followed
    })?;

    // `follow` would wait for ever now; the timed form gives up.
    assert!(iterator.next_timeout(Duration::from_millis(20))?.is_none());
    assert_eq!(iterator.records_behind(), 0);
    Ok(latencies)
}

fn put_all(stream: &Stream, started: Instant) -> anabranch::Result<()> {
    for _ in 0..RECORDS {
        stream.put("clock", nanos_since(started).to_le_bytes())?;
        thread::sleep(PAUSE);
    }
    stream.put("clock", LAST)?;
    Ok(())
}

fn follow(iterator: &mut ShardIterator, started: Instant) -> Result<Vec<Duration>, Failure> {
    let mut latencies = Vec::new();
    for record in iterator.follow() {
        let record = record?;
        if record.data() == LAST {
            break;
        }
        let sent = u64::from_le_bytes(record.data().try_into()?);
        latencies.push(Duration::from_nanos(nanos_since(started).saturating_sub(sent)));
    }
    Ok(latencies)
}

fn nanos_since(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
