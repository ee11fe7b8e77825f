//! From 10:00 to 10:29 a consumer added up orders with a bug in it. The stream still has them: the
//! fixed consumer replays from that time on, and leaves alone what came before.
//!
//! ```text
//! cargo run --example replay
//! ```

#![allow(clippy::print_stdout)] // a program's output, not a library's

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use anabranch::{ManualClock, RecordsStart, ShardIteratorType, Stream, Timestamp};

const MINUTE_MS: i64 = 60_000;

fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("orders");

    // A clock that is moved by hand, so that the story's times are exact. Leave it out for real time.
    let nine = Timestamp::from_millis(1_767_258_000_000);
    let clock = Arc::new(ManualClock::at(nine));
    let stream = Stream::builder().shards(2).clock(clock.clone()).create(&path)?;

    // One order a minute, from 09:00 to 10:59, of 0, 1, 2, ... euros.
    for minute in 0..120_u64 {
        let receipt = stream.put(format!("customer-{}", minute % 7), minute.to_le_bytes())?;
        assert_eq!(receipt.arrival.millis_since(nine), minute * 60_000);
        clock.advance(Duration::from_secs(60));
    }
    stream.close()?;

    let stream = Stream::builder().clock(clock).open_existing(&path)?;
    let ten = minutes_after(nine, 60);
    let half_past_ten = minutes_after(nine, 90);
    let (orders, total) = total_between(&stream, ten, half_past_ten)?;
    println!("{ten} until {half_past_ten}: {orders} orders, {total} euros");
    assert_eq!((orders, total), (30, (60..90).sum()));

    // A time between two records starts at the later one, a time before all at the trim horizon.
    let after_ten = Timestamp::from_millis(ten.as_millis() + 1);
    assert_eq!(total_between(&stream, after_ten, half_past_ten)?, (29, (61..90).sum()));
    let midnight = minutes_after(nine, -9 * 60);
    assert_eq!(total_between(&stream, midnight, ten)?, (60, (0..60).sum()));

    // One shard alone knows times as well.
    let shard_id = stream.route("customer-4")?; // who ordered at 10:00
    let from_ten = ShardIteratorType::AtTimestamp(ten);
    let mut iterator = stream.shard_iterator(shard_id, from_ten)?;
    let first = iterator.available().next().ok_or("no order after ten")??;
    println!("the first in {shard_id} is {} at {}", first.partition_key(), first.arrival());
    assert_eq!((first.partition_key(), first.arrival()), ("customer-4", ten));
    Ok(())
}

/// How many orders arrived in `[from, until)`, and their sum.
fn total_between(stream: &Stream, from: Timestamp, until: Timestamp) -> Result<(u64, u64), Box<dyn Error>> {
    let (mut orders, mut total) = (0, 0);
    for record in stream.records(RecordsStart::AtTimestamp(from))?.available() {
        let record = record?;
        assert!(record.arrival() >= from);
        // Times rise inside a shard, not across shards: go on to the end, and leave out what is later.
        if record.arrival() < until {
            orders += 1;
            total += u64::from_le_bytes(record.data().try_into()?);
        }
    }
    Ok((orders, total))
}

fn minutes_after(time: Timestamp, minutes: i64) -> Timestamp {
    Timestamp::from_millis(time.as_millis() + minutes * MINUTE_MS)
}
