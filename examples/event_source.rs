//! Orders come in, and a handler sums up what each customer spends in a minute. One order is malformed: it is cut out of its batch, tried again, and
//! told to a second stream, from which it is read again afterwards. Then the shard splits in the middle of a minute, and no sum is the poorer for it.
//!
//! `cargo run --release --example event_source`
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anabranch::{
    Batch, BatchFailure, BatchHandler, ClosedWindow, Error, EventSourceOptions, FailedBatch, ManualClock,
    RecordsStart, Result, Stream,
};

const MINUTE: Duration = Duration::from_secs(60);
const CUSTOMERS: u64 = 5;

/// Sums, by minute and customer. Written by minute and customer, so that what is written twice is there once.
#[derive(Default)]
struct Spending(Mutex<BTreeMap<(i64, String), u64>>);

impl BatchHandler for Spending {
    fn handle(&self, batch: &mut Batch<'_>) -> std::result::Result<(), BatchFailure> {
        for order in batch.records() {
            let text = String::from_utf8_lossy(order.data());
            let cents: u64 = text.parse().map_err(|error| BatchFailure::at(order, error))?;
            let state = batch.state_mut(order);
            let sum = sum_of(state) + cents;
            *state = sum.to_le_bytes().to_vec();
        }
        Ok(())
    }

    fn close_window(&self, closed: &ClosedWindow) -> std::result::Result<(), BatchFailure> {
        let minute = closed.window.start.as_millis() / 60_000;
        if let Ok(mut sums) = self.0.lock() {
            let sums_of_keys = closed.states.iter().map(|key| (key.partition_key.clone(), sum_of(&key.state)));
            sums.extend(sums_of_keys.map(|(customer, sum)| ((minute, customer), sum)));
        }
        Ok(())
    }
}

fn sum_of(state: &[u8]) -> u64 {
    state.try_into().map_or(0, u64::from_le_bytes)
}

fn main() -> Result<()> {
    let path = std::env::temp_dir().join(format!("anabranch-event-source-{}", std::process::id()));
    // A clock that is told the time: an example need not take minutes. Elsewhere the system's serves.
    let clock = Arc::new(ManualClock::default());
    let orders = Stream::builder().clock(clock.clone()).background(false).open(path.join("orders"))?;
    let failed = Stream::builder().open(path.join("failed"))?;

    let options = EventSourceOptions::new().tumbling_window(MINUTE).batch_records(20).lanes(2).retries(2);
    let source = orders.consumer("spending")?.event_source("worker-1", options.clone())?;
    let mut source = source.on_failure(failed.clone());
    let spending = Spending::default();
    let mut expected = BTreeMap::new();
    for order in 0..600_u64 {
        let (customer, cents) = (format!("customer-{}", order % CUSTOMERS), 100 + order);
        if order == 77 {
            orders.put(&customer, "a lot")?;
        } else {
            let put = orders.put(&customer, cents.to_string())?;
            *expected.entry((put.arrival.as_millis() / 60_000, customer)).or_insert(0) += cents;
        }
        clock.advance(Duration::from_millis(500));
        if order == 300 {
            let shard = orders.open_shards()[0];
            let (left, right) = orders.split_shard(shard, None)?;
            println!("{shard} split into {left} and {right}, in the middle of a minute");
        }
        if order % 10 == 0 {
            source.step(&spending)?; // a program that has nothing else to do calls `run`
        }
    }
    clock.advance(2 * MINUTE);
    while source.step(&spending)? > 0 {}
    source.close()?;

    let sums = spending.0.into_inner().unwrap_or_default();
    for ((minute, customer), cents) in sums.iter().take(3) {
        println!("minute {minute}: {customer} spent {cents}");
    }
    println!("... {} sums in all, as they should be: {}", sums.len(), sums == expected);
    check(sums == expected, "the sums differ")?;

    let told: Vec<_> = failed.records(RecordsStart::TrimHorizon)?.available().collect::<Result<_>>()?;
    check(told.len() == 1, "one order is malformed")?;
    let bad = FailedBatch::from_bytes(told[0].data())?;
    let records = bad.records(&orders)?;
    println!("given up after {} attempts: {} ({})", bad.attempts, bad.reason, bad.condition);
    println!("read again: {:?} of {}", String::from_utf8_lossy(records[0].data()), records[0].partition_key());

    orders.close()?;
    failed.close()?;
    let _ = std::fs::remove_dir_all(&path);
    Ok(())
}

fn check(is_so: bool, otherwise: &str) -> Result<()> {
    let reason = || otherwise.to_owned();
    if is_so { Ok(()) } else { Err(Error::InvalidArgument { argument: "example", reason: reason() }) }
}
