//! What opening costs at the ends of the scale: ten thousand shards, gigabytes of sealed segments. Prints one line a case.
//!
//! `cargo bench --bench scale`; it writes 2 GiB below the directory for temporary files.
#![allow(missing_docs, reason = "a program")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a failure ends the benchmark")]

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use anabranch::{Durability, PutOptions, Stream, StreamBuilder};
use support::{Place, copy};

const SHARDS: u32 = 10_000;

fn builder() -> StreamBuilder {
    Stream::builder().background(false).durability(Durability::Buffered)
}

/// The resident memory of this process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) << 10
}

fn open(path: &Path) -> (Stream, Duration, u64) {
    let (before, started) = (resident(), Instant::now());
    let stream = builder().open_existing(path).unwrap();
    (stream, started.elapsed(), resident().saturating_sub(before))
}

fn many_shards() {
    let place = Place::new();
    let started = Instant::now();
    let stream = builder().shards(SHARDS).create(place.stream()).unwrap();
    println!("create {SHARDS} shards: {:?}", started.elapsed());
    stream.close().unwrap();
    let (stream, took, memory) = open(&place.stream());
    println!(
        "open {SHARDS} empty shards after close: {took:?}, {} bytes resident a shard",
        memory / u64::from(SHARDS)
    );
    for summary in stream.shards() {
        let at = PutOptions::new().explicit_hash_key(summary.hash_key_range.start());
        stream.put_with("key", [7; 100], at).unwrap();
    }
    stream.sync().unwrap();
    let killed = Place::new();
    copy(&place.stream(), &killed.stream()).unwrap();
    let started = Instant::now();
    stream.close().unwrap();
    println!("close {SHARDS} shards, one record each: {:?}", started.elapsed());
    for (how, place) in [("close", &place), ("a kill", &killed)] {
        let (stream, took, memory) = open(&place.stream());
        let each = memory / u64::from(SHARDS);
        println!("open {SHARDS} shards of one record after {how}: {took:?}, {each} bytes resident a shard");
        drop(stream);
    }
}

/// A kill with this much sealed, and one segment of 16 MiB that is not.
fn sealed(mebibytes: u64) {
    let (place, killed) = (Place::new(), Place::new());
    let stream = builder().segment_bytes(16 << 20).create(place.stream()).unwrap();
    let data = vec![7; 64 << 10];
    for _ in 0..mebibytes * 16 + 100 {
        stream.put("key", &data).unwrap();
    }
    stream.sync().unwrap();
    copy(&place.stream(), &killed.stream()).unwrap();
    drop(stream);
    let (stream, took, memory) = open(&killed.stream());
    let records = stream.recovery().records_recovered;
    println!("open {mebibytes} MiB after a kill: {took:?}, {records} records recovered, {memory} bytes resident");
    drop(stream);
}

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        return; // built and run by `cargo test`
    }
    many_shards();
    for mebibytes in [64, 2 << 10] {
        sealed(mebibytes);
    }
}
