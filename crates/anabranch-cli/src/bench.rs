//! `bench`: how fast this machine writes and reads a stream.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anabranch::{Durability, PutEntry, ShardIteratorType, Stream};
use clap::{Args, ValueHint, value_parser};
use serde::Serialize;
use tempfile::TempDir;

use crate::exit::{Exit, Failure};
use crate::interrupt::Interrupt;
use crate::open::DurabilityArg;
use crate::output::{Align, Output, Table};
use crate::progress::Progress;
use crate::units::{parse_bytes_u32, per_second, show_bytes, show_count};

/// Records are spread over so many partition keys.
const KEYS: u64 = 1_000;

/// Arguments of `bench`.
#[derive(Debug, Clone, Args)]
pub(crate) struct BenchArgs {
    /// Where to make the temporary stream: a directory on the disk to measure [default: the system's
    /// directory for temporary files]
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    dir: Option<PathBuf>,

    /// How many records to write
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = value_parser!(u64).range(1..))]
    records: u64,

    /// The data of each record
    #[arg(long, value_name = "SIZE", default_value = "256", value_parser = parse_bytes_u32)]
    size: u32,

    /// How many threads write
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u16).range(1..))]
    threads: u16,

    /// How many shards they write to
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u32).range(1..))]
    shards: u32,

    /// What an acknowledged record survives
    #[arg(long, value_name = "LEVEL", value_enum, default_value = "synced")]
    durability: DurabilityArg,

    /// How many records a put takes; with 1 they are put one by one
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = value_parser!(u32).range(1..))]
    batch: u32,
}

/// Writes a temporary stream, reads it back and shows the rates of both.
pub(crate) fn run(args: &BenchArgs, out: &mut Output) -> Result<Exit, Failure> {
    let interrupt = Interrupt::install()?;
    let home = match &args.dir {
        Some(dir) => TempDir::with_prefix_in("anabranch-bench-", dir),
        None => TempDir::with_prefix("anabranch-bench-"),
    };
    let home = home.map_err(Failure::Temporary)?;
    let outcome = measure(args, &home, &interrupt, out.is_quiet());
    home.close().map_err(Failure::Temporary)?;
    let report = outcome?;
    report.print(out)?;
    Ok(Exit::Fine)
}

fn measure(args: &BenchArgs, home: &TempDir, interrupt: &Interrupt, is_quiet: bool) -> Result<Report, Failure> {
    let stream = Stream::builder()
        .shards(args.shards)
        .durability(Durability::from(args.durability))
        .create(home.path().join("stream"))?;
    let bar = |what| {
        if is_quiet { Progress::none() } else { Progress::of_records(args.records, what) }
    };
    let (write, calls) = write(args, &stream, interrupt, &bar("write"))?;
    let records_per_sync = stream.metrics().records_per_sync();
    let read = read(&stream, interrupt, &bar("read"))?;
    stream.close()?;
    if read.records != write.records {
        return Err(Failure::Mismatch(format!(
            "{} records were acknowledged but {} read back",
            write.records, read.records
        )));
    }
    Ok(Report { write, read, put_micros: Percentiles::of(calls), records_per_sync })
}

fn write(
    args: &BenchArgs,
    stream: &Stream,
    interrupt: &Interrupt,
    bar: &Progress,
) -> Result<(Phase, Vec<Duration>), Failure> {
    let started = Instant::now();
    let calls = thread::scope(|scope| {
        let writer = |index| scope.spawn(move || write_share(args, index, stream, interrupt, bar));
        let writers: Vec<_> = (0..u64::from(args.threads)).map(writer).collect();
        let mut calls = Vec::new();
        for writer in writers {
            match writer.join() {
                Ok(share) => calls.extend(share?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok::<_, Failure>(calls)
    })?;
    let phase = Phase::new(args.records, args.records * u64::from(args.size), started.elapsed());
    Ok((phase, calls))
}

/// What one thread writes; gives the time of each of its puts.
fn write_share(
    args: &BenchArgs,
    thread: u64,
    stream: &Stream,
    interrupt: &Interrupt,
    bar: &Progress,
) -> Result<Vec<Duration>, Failure> {
    let threads = u64::from(args.threads);
    let mut left = args.records / threads + u64::from(thread < args.records % threads);
    let keys: Vec<String> = (0..KEYS).map(|key| format!("key-{key}")).collect();
    let data = noise(args.size as usize, thread);
    let mut keys = keys.iter().map(String::as_str).cycle();
    let mut entries = Vec::new();
    let mut calls = Vec::new();
    while left > 0 {
        interrupt.check()?;
        let count = left.min(u64::from(args.batch));
        entries.clear();
        entries.extend((0..count).zip(keys.by_ref()).map(|(_, key)| PutEntry::new(key, &data)));
        let called = Instant::now();
        put(stream, &entries)?;
        calls.push(called.elapsed());
        bar.add(count);
        left -= count;
    }
    Ok(calls)
}

fn put(stream: &Stream, entries: &[PutEntry<'_>]) -> anabranch::Result<()> {
    match entries {
        [entry] => stream.put(entry.partition_key, entry.data).map(drop),
        entries => stream.put_batch(entries).map(drop),
    }
}

/// Bytes that no disk or file system compresses (a xorshift generator's).
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32).to_le_bytes()[0]
    };
    std::iter::repeat_with(step).take(length).collect()
}

fn read(stream: &Stream, interrupt: &Interrupt, bar: &Progress) -> Result<Phase, Failure> {
    let started = Instant::now();
    let (mut records, mut bytes) = (0, 0);
    for shard in stream.open_shards() {
        let mut iterator = stream.shard_iterator(shard, ShardIteratorType::TrimHorizon)?;
        loop {
            interrupt.check()?;
            let batch = iterator.next_batch()?;
            if batch.is_empty() {
                break;
            }
            bar.add(batch.len() as u64);
            records += batch.len() as u64;
            bytes += batch.map(|record| record.data().len() as u64).sum::<u64>();
        }
    }
    Ok(Phase::new(records, bytes, started.elapsed()))
}

/// One direction's amounts and rates.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Phase {
    records: u64,
    bytes: u64,
    seconds: f64,
    records_per_second: u64,
    bytes_per_second: u64,
}

impl Phase {
    fn new(records: u64, bytes: u64, elapsed: Duration) -> Self {
        Self {
            records,
            bytes,
            seconds: elapsed.as_secs_f64(),
            records_per_second: per_second(records, elapsed),
            bytes_per_second: per_second(bytes, elapsed),
        }
    }

    fn row(&self, name: &str) -> [String; 6] {
        [
            name.to_owned(),
            show_count(self.records),
            show_bytes(self.bytes),
            format!("{:.3}", self.seconds),
            show_count(self.records_per_second),
            show_bytes(self.bytes_per_second),
        ]
    }
}

/// How long puts took, in microseconds.
#[derive(Debug, Serialize)]
struct Percentiles {
    p50: u64,
    p99: u64,
    max: u64,
}

impl Percentiles {
    fn of(mut calls: Vec<Duration>) -> Self {
        calls.sort_unstable();
        let at = |percent: usize| {
            let index = (calls.len() * percent / 100).min(calls.len().saturating_sub(1));
            let call = calls.get(index).copied().unwrap_or_default();
            u64::try_from(call.as_micros()).unwrap_or(u64::MAX)
        };
        Self { p50: at(50), p99: at(99), max: at(100) }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    write: Phase,
    read: Phase,
    put_micros: Percentiles,
    records_per_sync: f64,
}

impl Report {
    fn print(&self, out: &mut Output) -> Result<(), Failure> {
        if out.is_json() {
            return out.value(self);
        }
        let mut table = Table::new(&[
            ("", Align::Left),
            ("RECORDS", Align::Right),
            ("BYTES", Align::Right),
            ("SECONDS", Align::Right),
            ("RECORDS/S", Align::Right),
            ("BYTES/S", Align::Right),
        ]);
        table.row(self.write.row("write"));
        table.row(self.read.row("read"));
        out.bytes(table.to_string().as_bytes())?;
        let Percentiles { p50, p99, max } = self.put_micros;
        out.line(format_args!("put latency: p50 {p50} µs, p99 {p99} µs, max {max} µs"))?;
        out.line(format_args!("records per sync: {:.1}", self.records_per_sync))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_calls() {
        let calls = (1..=100).rev().map(Duration::from_micros).collect();
        let Percentiles { p50, p99, max } = Percentiles::of(calls);
        assert_eq!((p50, p99, max), (51, 100, 100));
        assert_eq!(Percentiles::of(Vec::new()).max, 0);
    }

    #[test]
    fn noise_has_its_length_and_differs_by_thread() {
        assert_eq!(noise(1_000, 0).len(), 1_000);
        assert_ne!(noise(64, 0), noise(64, 1));
    }
}
