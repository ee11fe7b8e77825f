//! A web server's access log through a stream that splits and merges shards while it is written,
//! and the proof that every line came back, in order.
//!
//! ```text
//! cargo run --release --example clickstream                             # lines found on this machine
//! cargo run --release --example clickstream -- access.log.2.gz          # a log of yours, plain or gzip
//! cargo run --release --example clickstream -- access.log --dir clicks  # and keep the stream
//! ```
//!
//! Each line becomes a record under its client (the first field of the common and the combined log
//! format) as partition key. Without an argument the lines are the machine's own logs where they
//! are readable, else the Rust sources that cargo fetched, under their package as partition key.
//!
//! The proof does not ask the stream: it chains a hash over the lines of each key as they stand in
//! the source, and compares it with the chain over what the stream gives back.

#![allow(clippy::print_stdout, clippy::print_stderr)] // a program's output, not a library's
#![allow(clippy::cast_precision_loss)] // rates, for people

mod proof;
mod source;

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anabranch::{
    Durability, PutEntry, RecordsStart, ShardDescription, ShardId, ShardIteratorType, ShardState, Stream,
};

use proof::Tally;
use source::{Line, Source};

const SHARDS: u32 = 4;
const PRODUCERS: usize = 3;
const BATCH_LINES: usize = 500;
/// The stream's default, spelled out because the write rate depends on it: each batch is on the
/// disk, not only in a cache, before its producer goes on to the next.
const DURABILITY: Durability = Durability::Synced;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("clickstream: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome<()> {
    let arguments = Arguments::parse(env::args_os().skip(1))?;
    let source = match &arguments.log {
        Some(log) => Source::access_log(log)?,
        None => Source::discover()?,
    };
    let expected = Tally::of_lines(&source.lines);
    let size = Size::of_lines(&source.lines);
    println!("source   {}", source.name);
    println!("lines    {} of {} keys, {:.1} MB", grouped(size.lines), expected.len(), size.megabytes());

    let temporary; // lives to the end of the run, and removes the stream then
    let path = if let Some(dir) = arguments.dir {
        dir
    } else {
        temporary = tempfile::tempdir()?;
        temporary.path().join("clickstream")
    };
    println!("stream   {}", path.display());
    println!("         {PRODUCERS} producers, batches of {BATCH_LINES} lines, {DURABILITY:?}\n");

    let stream = Stream::builder().shards(SHARDS).durability(DURABILITY).create(&path)?;
    let write_time = write(&stream, &source.lines)?;
    let metrics = stream.metrics();

    // From here on nothing is left but the files.
    stream.close()?;
    let stream = Stream::builder().open_existing(&path)?;
    let (by_shard, by_shard_time) = timed(|| read_by_shard(&stream))?;
    let (whole, whole_time) = timed(|| read_whole(&stream))?;

    print_shards(&stream)?;
    println!("\n{:<24} {:>12} {:>8}", "", "lines/s", "MB/s");
    size.print_rate("write", write_time);
    size.print_rate("read and check by shard", by_shard_time);
    size.print_rate("read and check whole", whole_time);
    println!("{} syncs while writing, {:.0} records each\n", metrics.syncs, metrics.records_per_sync());

    by_shard.prove("by shard", &expected)?;
    whole.prove("as a whole", &expected)?;
    println!(
        "proof: {} lines of {} keys came back in order, none lost, none twice",
        grouped(size.lines),
        expected.len()
    );
    Ok(())
}

// ---- writing, and resharding meanwhile ----

/// Puts all lines, several producers at once, and splits and merges shards on the way.
fn write(stream: &Stream, lines: &[Line]) -> Outcome<Duration> {
    // All lines of a key go through one producer: two of them would leave no order to prove.
    let mut shares = vec![Vec::new(); PRODUCERS];
    for line in lines {
        shares[producer_of(&line.key)].push(line);
    }

    let started = Instant::now();
    let (progress, written) = mpsc::channel();
    thread::scope(|scope| {
        let producers: Vec<_> = shares
            .iter()
            .map(|share| {
                let progress = progress.clone();
                scope.spawn(move || produce(stream, share, &progress))
            })
            .collect();
        drop(progress); // so that the channel ends with the last producer
        let resharded = reshard_on_the_way(stream, &written, lines.len());
        drop(written); // so that producers stop if that failed
        for producer in producers {
            producer.join().map_err(|_| "a producer panicked")??;
        }
        resharded
    })?;
    Ok(started.elapsed())
}

fn producer_of(key: &str) -> usize {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    usize::from(hasher.finish().to_le_bytes()[0]) % PRODUCERS
}

/// One producer. It neither knows nor cares how many shards there are.
fn produce(stream: &Stream, lines: &[&Line], progress: &Sender<usize>) -> anabranch::Result<()> {
    for batch in lines.chunks(BATCH_LINES) {
        let entries: Vec<_> = batch.iter().map(|line| PutEntry::new(&line.key, &line.text)).collect();
        stream.put_batch(&entries)?;
        if progress.send(batch.len()).is_err() {
            break; // resharding failed, and its error is the one to show
        }
    }
    Ok(())
}

/// Counts what the producers have written: splits after a third of it, merges after two thirds.
fn reshard_on_the_way(stream: &Stream, written: &Receiver<usize>, total: usize) -> Outcome<()> {
    type Step = fn(&Stream) -> Outcome<String>;
    let steps: [(usize, Step); 2] =
        [(total.div_ceil(3), split_busiest), ((2 * total).div_ceil(3), merge_quietest)];
    let mut steps = steps.into_iter().peekable();
    let mut lines = 0;
    for batch in written {
        lines += batch;
        while let Some((_, step)) = steps.next_if(|(after, _)| lines >= *after) {
            let (done, time) = timed(|| step(stream))?;
            println!("after {} lines {done} in {time:.1?}", grouped(lines));
        }
    }
    Ok(())
}

fn split_busiest(stream: &Stream) -> Outcome<String> {
    let shards = open_shards(stream)?;
    let busiest = shards.iter().max_by_key(|shard| shard.records).ok_or("no open shard")?;
    let parent = busiest.summary.shard_id;
    let (lower, upper) = stream.split_shard(parent, None)?;
    Ok(format!("split {} into {} and {}", parent.get(), lower.get(), upper.get()))
}

fn merge_quietest(stream: &Stream) -> Outcome<String> {
    let shards = open_shards(stream)?;
    let pair = shards
        .windows(2)
        .filter(|pair| !are_siblings(&pair[0], &pair[1])) // that would only undo the split
        .min_by_key(|pair| pair[0].records + pair[1].records)
        .ok_or("no two shards to merge")?;
    let (lower, upper) = (pair[0].summary.shard_id, pair[1].summary.shard_id);
    let child = stream.merge_shards(lower, upper)?;
    Ok(format!("merged {} and {} into {}", lower.get(), upper.get(), child.get()))
}

/// The open shards in the order of their hash keys: neighbours in the list are adjacent shards.
fn open_shards(stream: &Stream) -> anabranch::Result<Vec<ShardDescription>> {
    let mut shards = stream.describe()?.shards;
    shards.retain(|shard| shard.summary.state == ShardState::Open);
    shards.sort_by_key(|shard| shard.summary.hash_key_range.start());
    Ok(shards)
}

fn are_siblings(a: &ShardDescription, b: &ShardDescription) -> bool {
    !a.summary.parents.is_empty() && a.summary.parents == b.summary.parents
}

// ---- reading ----

/// Shard by shard, in the form that allocates nothing: records are borrowed from the batch.
fn read_by_shard(stream: &Stream) -> anabranch::Result<Tally> {
    let mut shards: Vec<ShardId> = stream.shards().iter().map(|shard| shard.shard_id).collect();
    shards.sort(); // ids count up in order of creation, so parents come before their children
    let mut tally = Tally::default();
    for shard_id in shards {
        let mut iterator = stream.shard_iterator(shard_id, ShardIteratorType::TrimHorizon)?;
        loop {
            let batch = iterator.next_batch()?;
            if batch.is_empty() {
                break; // the end of a closed shard, or the tail of an open one
            }
            for record in batch {
                tally.add(record.partition_key(), record.data());
            }
        }
    }
    Ok(tally)
}

/// The whole stream, which finds its own way through the split and the merge.
fn read_whole(stream: &Stream) -> anabranch::Result<Tally> {
    let mut tally = Tally::default();
    for record in stream.records(RecordsStart::TrimHorizon)?.available() {
        let record = record?;
        tally.add(record.partition_key(), record.data());
    }
    Ok(tally)
}

// ---- arguments and output ----

#[derive(Default)]
struct Arguments {
    log: Option<PathBuf>,
    dir: Option<PathBuf>,
}

impl Arguments {
    fn parse(mut arguments: impl Iterator<Item = OsString>) -> Outcome<Self> {
        let mut parsed = Self::default();
        while let Some(argument) = arguments.next() {
            if argument == "--dir" {
                parsed.dir = Some(arguments.next().ok_or("--dir needs a directory")?.into());
            } else if parsed.log.is_none() && !argument.to_string_lossy().starts_with("--") {
                parsed.log = Some(argument.into());
            } else {
                return Err("usage: clickstream [LOG] [--dir DIR]".into());
            }
        }
        Ok(parsed)
    }
}

struct Size {
    lines: usize,
    bytes: usize,
}

impl Size {
    fn of_lines(lines: &[Line]) -> Self {
        Self { lines: lines.len(), bytes: lines.iter().map(|line| line.text.len()).sum() }
    }

    fn megabytes(&self) -> f64 {
        self.bytes as f64 / 1e6
    }

    fn print_rate(&self, name: &str, time: Duration) {
        let lines = (self.lines as f64 / time.as_secs_f64()).round();
        println!("{name:<24} {lines:>12} {:>8.1}", self.megabytes() / time.as_secs_f64());
    }
}

fn print_shards(stream: &Stream) -> anabranch::Result<()> {
    println!("\n{:<20} {:<6} {:>8} {:>10} {:>8}", "shard", "state", "parents", "records", "MB");
    for shard in stream.describe()?.shards {
        let parents: Vec<_> = shard.summary.parents.iter().map(|id| id.get().to_string()).collect();
        println!(
            "{} {:<6} {:>8} {:>10} {:>8.1}",
            shard.summary.shard_id,
            format!("{:?}", shard.summary.state).to_lowercase(),
            parents.join("+"),
            shard.records,
            shard.bytes as f64 / 1e6
        );
    }
    Ok(())
}

fn timed<T, E>(work: impl FnOnce() -> Result<T, E>) -> Result<(T, Duration), E> {
    let started = Instant::now();
    let value = work()?;
    Ok((value, started.elapsed()))
}

/// `1234567` as `1,234,567`.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
