//! What opening costs, and an idle shard: by the number of shards, and by how much is sealed. A table, not a Criterion
//! bench: each line is one opening in a process of its own, so that nothing is warm but the page cache.
//!
//! ```text
//! cargo bench --bench bounds              # the whole table: some 3 GB of temporary files
//! cargo bench --bench bounds -- --quick   # a hundredth of it
//! ```
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a failure ends the benchmark; it prints a table")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anabranch::{Durability, RetentionPeriod, Stream};

const DATA_BYTES: usize = 1 << 10;
const SEGMENT_BYTES: u64 = 64 << 20;

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("write") => write(&arguments[2..]),
        Some("open") => open(Path::new(&arguments[2])),
        _ => table(arguments.iter().any(|argument| argument == "--quick")),
    }
}

fn table(quick: bool) {
    let scale = if quick { 100 } else { 1 };
    println!("| shards | records | left by | open ms | memory of a shard, bytes | records recovered |");
    println!("| ---: | ---: | --- | ---: | ---: | ---: |");
    for (shards, records) in [(1, 0), (100, 10_000), (10_000 / scale, 0)] {
        line(shards, records);
    }
    for mebibytes in [64, 512, 2_048] {
        line(1, mebibytes * 1_024 / scale);
    }
}

fn line(shards: u32, records: u32) {
    for end in ["close", "kill"] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("stream");
        again(&["write", path.to_str().unwrap(), &shards.to_string(), &records.to_string(), end]);
        let opened = again(&["open", path.to_str().unwrap()]);
        println!("| {shards} | {records} | {end} | {} |", opened.trim());
    }
}

/// This program in a process of its own.
fn again(arguments: &[&str]) -> String {
    let program: PathBuf = std::env::current_exe().unwrap();
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Makes a stream with records spread over its shards, and closes it or just ends.
fn write(arguments: &[String]) {
    let (shards, records): (u32, u32) = (arguments[1].parse().unwrap(), arguments[2].parse().unwrap());
    let stream = Stream::builder()
        .shards(shards)
        .segment_bytes(SEGMENT_BYTES)
        .durability(Durability::Buffered)
        .retention(RetentionPeriod::Unlimited)
        .create(&arguments[0])
        .unwrap();
    let data = [7; DATA_BYTES];
    for number in 0..records {
        stream.put(format!("key-{number}"), data).unwrap();
    }
    if arguments[3] == "close" {
        stream.close().unwrap();
    } else {
        std::process::exit(0); // nothing is closed or dropped
    }
}

fn open(path: &Path) {
    let before = resident_bytes();
    let started = Instant::now();
    let stream = Stream::builder().open_existing(path).unwrap();
    let elapsed = started.elapsed();
    let grown = resident_bytes().saturating_sub(before);
    let recovery = stream.recovery();
    let shards = stream.shards().len();
    println!("{:.1} | {} | {}", elapsed.as_secs_f64() * 1e3, grown / shards, recovery.records_recovered);
    std::process::exit(0);
}

/// What of this process is in memory, where the system tells.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or(0) * 4096
}
