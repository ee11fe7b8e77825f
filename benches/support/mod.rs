//! What the benchmarks share: directories on the disk to be measured, records, writers.
#![allow(dead_code, reason = "each benchmark uses a part")]

pub(crate) mod bare;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use anabranch::{PutEntry, Stream};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode};

/// A directory that goes when this is dropped: below `ANABRANCH_BENCH_DIR`, or else below the target directory. Figures
/// from a tmpfs say nothing about a disk.
pub(crate) struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let parent = std::env::var_os("ANABRANCH_BENCH_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
        fs::create_dir_all(&parent).unwrap();
        Self { directory: tempfile::tempdir_in(parent).unwrap() }
    }

    pub(crate) fn stream(&self) -> PathBuf {
        self.directory.path().join("stream")
    }
}

/// A group of measurements of about a second each.
pub(crate) fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.sampling_mode(SamplingMode::Flat).sample_size(10);
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    group
}

/// Sizes of records' data, by name.
pub(crate) const SIZES: [(&str, usize); 3] = [("128B", 128), ("1KiB", 1 << 10), ("10KiB", 10 << 10)];

/// The key of a record: 16 bytes, of which there are 1,024, so that all shards get their share.
pub(crate) fn keys() -> Vec<String> {
    (0..1_024).map(|key| format!("partition-{key:06}")).collect()
}

/// What each thread writes.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) threads: usize,
    pub(crate) records_per_thread: usize,
    /// Records of one call.
    pub(crate) batch: usize,
    pub(crate) data_bytes: usize,
}

impl Load {
    pub(crate) fn records(&self) -> u64 {
        (self.threads * self.records_per_thread) as u64
    }

    /// Writes it once, and says how long that took from the first put to the last.
    pub(crate) fn write(&self, stream: &Stream, keys: &[String]) -> Duration {
        in_threads(self.threads, |thread| self.write_one(stream, keys, thread * 131))
    }

    fn write_one(&self, stream: &Stream, keys: &[String], offset: usize) {
        let data = vec![0xa5; self.data_bytes];
        let mut keys = keys.iter().cycle().skip(offset % keys.len());
        if self.batch == 1 {
            for key in keys.take(self.records_per_thread) {
                stream.put(key, &data).unwrap();
            }
            return;
        }
        for _ in 0..self.records_per_thread / self.batch {
            let entries: Vec<_> = keys.by_ref().take(self.batch).map(|key| PutEntry::new(key, &data)).collect();
            stream.put_batch(&entries).unwrap();
        }
    }
}

/// How long it takes from the first to the last of so many threads to do `work`, which is told the thread's number.
pub(crate) fn in_threads(threads: usize, work: impl Fn(usize) + Sync) -> Duration {
    let (barrier, work) = (&Barrier::new(threads + 1), &work);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                barrier.wait();
                work(thread);
                barrier.wait();
            });
        }
        barrier.wait();
        let started = Instant::now();
        barrier.wait();
        started.elapsed()
    })
}

/// What this thread had of the processor, the kernel's work for it included.
#[cfg(target_os = "linux")]
pub(crate) fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
}

/// The time that passed, where it is not known what a thread had of it.
#[cfg(not(target_os = "linux"))]
pub(crate) fn processor_time() -> Duration {
    static STARTED: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    STARTED.elapsed()
}

pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Eight bytes at a time: at memory speed.
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    bytes
        .chunks_exact(8)
        .fold(0, |sum: u64, chunk| sum.wrapping_add(u64::from_le_bytes(chunk.try_into().unwrap()) >> 40))
}

/// The stream holds this many records with this many bytes of keys and data.
pub(crate) fn check(stream: &Stream, records: u64, data_bytes: u64) {
    let shards = stream.describe().unwrap().shards;
    assert_eq!(shards.iter().map(|shard| shard.records).sum::<u64>(), records);
    assert_eq!(shards.iter().map(|shard| shard.bytes).sum::<u64>(), data_bytes + records * 16);
}

/// Copies a stream's directory as a killed process leaves it, with holes for the room that was never written, and has the system
/// write everything back, as it does for a process that lives for a while.
pub(crate) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    run(Command::new("cp").args(["-R", "--sparse=always"]).args([from, to]))?;
    run(&mut Command::new("sync"))
}

fn run(command: &mut Command) -> io::Result<()> {
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("{command:?}: {status}"))) }
}
