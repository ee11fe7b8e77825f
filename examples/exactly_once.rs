//! A pipeline from one stream to another that is killed, again and again, while its input is split and merged: the output is what it would be if
//! nothing had happened.
//!
//! The program starts itself as a child that runs the pipeline, and kills it.
//!
//! ```text
//! cargo run --release --example exactly_once
//! ```
#![allow(clippy::print_stdout, reason = "it tells what it does")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use anabranch::{Outputs, Pipeline, PutEntry, Record, RecordsStart, Stream};

type Error = Box<dyn std::error::Error>;

const ORDERS: u64 = 20_000;
const KILLS: u64 = 8;

fn main() -> Result<(), Error> {
    if let Some(directory) = std::env::args().nth(1) {
        return run(Path::new(&directory));
    }
    let directory = tempfile::tempdir()?;
    put_orders(directory.path())?;
    for kill in 0..KILLS {
        let mut child = start(directory.path())?;
        std::thread::sleep(Duration::from_millis(150 + 30 * kill));
        child.kill()?; // SIGKILL, wherever it is
        child.wait()?;
    }
    let status = start(directory.path())?.wait()?; // and one that may finish
    assert!(status.success());
    check(directory.path())
}

fn start(directory: &Path) -> Result<Child, Error> {
    Ok(Command::new(std::env::current_exe()?).arg(directory).spawn()?)
}

/// Orders of a hundred customers; the stream is split and merged among them.
fn put_orders(directory: &Path) -> Result<(), Error> {
    let orders = Stream::builder().open(directory.join("orders"))?;
    for number in (0..ORDERS).step_by(500) {
        let orders_of = |number: u64| (format!("customer-{}", number % 100), number.to_string());
        let batch: Vec<_> = (number..number + 500).map(orders_of).collect();
        let entries: Vec<_> =
            batch.iter().map(|(customer, order)| PutEntry::new(customer, order.as_bytes())).collect();
        orders.put_batch(&entries)?;
        let open = orders.open_shards();
        match number {
            5_000 => drop(orders.split_shard(open[0], None)?),
            10_000 => drop(orders.merge_shards(open[0], open[1])?),
            _ => {}
        }
    }
    orders.close()?;
    Ok(())
}

/// What is made of an order: a line for each third one, two for those with a seven.
fn make(order: &Record, lines: &mut Outputs) {
    let text = String::from_utf8_lossy(order.data());
    if text.parse::<u64>().is_ok_and(|number| number.is_multiple_of(3)) {
        lines.put(order.partition_key(), format!("third {text}"));
    }
    if text.contains('7') {
        lines.put(order.partition_key(), format!("seven {text}"));
    }
}

/// The child.
fn run(directory: &Path) -> Result<(), Error> {
    let orders = Stream::builder().open(directory.join("orders"))?;
    let lines = Stream::builder().shards(2).open(directory.join("lines"))?;
    let mut pipeline = Pipeline::new(&orders.consumer("lines")?, &lines, "worker")?.batch_records(50);
    let mut done = 0;
    loop {
        let records = pipeline.step(make)?;
        done += records;
        if records == 0 {
            println!("read to the end; {done} orders in this life");
            return Ok(());
        }
    }
}

fn check(directory: &Path) -> Result<(), Error> {
    let lines = Stream::builder().open(directory.join("lines"))?;
    let mut found = BTreeMap::new();
    for line in lines.records(RecordsStart::TrimHorizon)?.available() {
        *found.entry(String::from_utf8(line?.data().to_vec())?).or_insert(0) += 1;
    }
    let thirds = (0..ORDERS).filter(|number| number.is_multiple_of(3)).map(|number| format!("third {number}"));
    let sevens = (0..ORDERS).map(|number| number.to_string()).filter(|text| text.contains('7'));
    let expected: BTreeMap<_, _> =
        thirds.chain(sevens.map(|text| format!("seven {text}"))).map(|line| (line, 1)).collect();
    assert!(found == expected, "lines are missing, or there twice");
    println!("{} lines, each there once, after {KILLS} kills", found.len());
    Ok(())
}
