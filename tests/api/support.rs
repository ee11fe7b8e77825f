//! What the tests share: directories, clocks, fillers, and polling with a deadline.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anabranch::storage::Operation;
use anabranch::{
    Clock, DiskFault, HashKey, ManualClock, PutOptions, PutReceipt, Record, RecordsStart, SequenceNumber, ShardId,
    ShardIterator, ShardIteratorType, SimulatedDisk, Stream, StreamBuilder, Timestamp,
};
use tempfile::TempDir;

/// Far above what anything here takes.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// The start of every shard.
pub(crate) const HORIZON: ShardIteratorType = ShardIteratorType::TrimHorizon;
/// How many records of [`fill_large`] a segment of 4 KiB holds.
pub(crate) const LARGE_PER_SEGMENT: u64 = 6;
/// The first shard of a stream.
pub(crate) const S0: ShardId = ShardId::new(0);
/// The second one.
pub(crate) const S1: ShardId = ShardId::new(1);
pub(crate) const S2: ShardId = ShardId::new(2);

/// A stream's description without a thread: what a test does not ask for does not happen.
pub(crate) fn builder() -> StreamBuilder {
    Stream::builder().background(false)
}

/// A directory that goes away, and a path in it at which nothing is.
pub(crate) fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("stream");
    (directory, path)
}

/// A new stream in a directory that goes away.
pub(crate) fn stream(options: StreamBuilder) -> (TempDir, Stream) {
    let (directory, path) = place();
    let stream = options.create(path).unwrap();
    (directory, stream)
}

/// A new stream on a simulated disk, with a clock that stands still.
pub(crate) fn simulated(options: StreamBuilder) -> (SimulatedDisk, Arc<ManualClock>, Stream) {
    let (disk, clock) = (SimulatedDisk::new(), Arc::new(ManualClock::default()));
    let stream = options.storage(Arc::new(disk.clone())).clock(clock.clone()).create("stream").unwrap();
    (disk, clock, stream)
}

pub(crate) const fn number(value: u64) -> SequenceNumber {
    SequenceNumber::new(value)
}

/// Looks again and again until `done`.
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !done() {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Puts a record by a hash key that lies in the range of `shard_id`.
pub(crate) fn put_to(stream: &Stream, shard_id: ShardId, key: &str, data: &[u8]) -> PutReceipt {
    let shards = stream.shards();
    let range = shards.iter().find(|shard| shard.shard_id == shard_id).unwrap().hash_key_range;
    let receipt = put_at(stream, range.start(), key, data);
    assert_eq!(receipt.shard_id, shard_id);
    receipt
}

/// Puts a record by an explicit hash key.
pub(crate) fn put_at(stream: &Stream, at: HashKey, key: &str, data: &[u8]) -> PutReceipt {
    stream.put_with(key, data, PutOptions::new().explicit_hash_key(at)).unwrap()
}

/// Puts `count` records to a stream's first shard, whose data are their numbers.
pub(crate) fn fill(stream: &Stream, count: u64) {
    for _ in 0..count {
        let next = stream.describe().unwrap().shards[0].next_sequence_number;
        let receipt = put_to(stream, S0, "key", next.to_string().as_bytes());
        assert_eq!(receipt.sequence_number, next);
    }
}

/// Puts `count` records of 500 bytes to a shard: [`LARGE_PER_SEGMENT`] of them fit a segment of 4 KiB.
pub(crate) fn fill_large(stream: &Stream, shard_id: ShardId, count: u64) {
    for _ in 0..count {
        put_to(stream, shard_id, "key", &[b'x'; 500]);
    }
}

/// A clock of the user's that breaks: then it panics.
#[derive(Debug)]
pub(crate) struct FaultyClock {
    clock: ManualClock,
    /// How many readings it still gives.
    readings: AtomicU64,
    /// How often it panicked.
    pub(crate) panicked: AtomicU64,
}

impl Default for FaultyClock {
    fn default() -> Self {
        Self { clock: ManualClock::default(), readings: AtomicU64::new(u64::MAX), panicked: AtomicU64::new(0) }
    }
}

impl FaultyClock {
    /// From so many readings on it panics.
    pub(crate) fn break_behind(&self, readings: u64) {
        self.readings.store(readings, Ordering::SeqCst);
    }

    pub(crate) fn mend(&self) {
        self.break_behind(u64::MAX);
    }

    fn check(&self) {
        let spend = |left: u64| if left == u64::MAX { Some(left) } else { left.checked_sub(1) };
        if self.readings.fetch_update(Ordering::SeqCst, Ordering::SeqCst, spend).is_err() {
            self.panicked.fetch_add(1, Ordering::SeqCst);
            panic!("the clock is broken");
        }
    }
}

impl Clock for FaultyClock {
    fn now(&self) -> Timestamp {
        self.check();
        self.clock.now()
    }

    fn monotonic(&self) -> Duration {
        self.check();
        self.clock.monotonic()
    }
}

/// Lets so much time pass, and has retention enforced, until it believes a clock that leapt.
pub(crate) fn expire(clock: &ManualClock, stream: &Stream, time: Duration) {
    for _ in 0..3 {
        clock.advance(time);
        stream.enforce_retention().unwrap();
    }
}

/// Splits a stream's first shard, and fails to make it durable, as does from then on everybody who would. There is one shard or three after a power cut.
pub(crate) fn split_undurably(disk: &SimulatedDisk, stream: &Stream, failure: ErrorKind) {
    // The first makes the directories of the children durable.
    disk.fail_on(Operation::SyncDir, 1, DiskFault::ErrorFromThenOn(failure));
    stream.split_shard(S0, None).unwrap_err();
}

/// All that is there, from the trim horizon on.
pub(crate) fn read_all(stream: &Stream, shard_id: ShardId) -> Vec<Record> {
    drain(&mut stream.shard_iterator(shard_id, HORIZON).unwrap())
}

/// All that an iterator has to give now.
pub(crate) fn drain(iterator: &mut ShardIterator) -> Vec<Record> {
    iterator.available().collect::<anabranch::Result<_>>().unwrap()
}

/// The sequence numbers that an iterator has to give now.
pub(crate) fn numbers(iterator: &mut ShardIterator) -> Vec<u64> {
    drain(iterator).iter().map(|record| record.sequence_number().get()).collect()
}

/// The sequence numbers from a place on.
pub(crate) fn numbers_from(stream: &Stream, shard_id: ShardId, kind: ShardIteratorType) -> Vec<u64> {
    numbers(&mut stream.shard_iterator(shard_id, kind).unwrap())
}

/// Every record of the stream, parents before children.
pub(crate) fn read_stream(stream: &Stream) -> Vec<Record> {
    let mut records = stream.records(RecordsStart::TrimHorizon).unwrap();
    records.available().collect::<anabranch::Result<_>>().unwrap()
}

/// The segment files of a shard, oldest first.
pub(crate) fn segments(stream: &Path, shard_id: ShardId) -> Vec<PathBuf> {
    let directory = stream.join("shards").join(format!("{:012}", shard_id.get()));
    let mut paths: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Changes a byte of what was put, in the file of a closed stream.
pub(crate) fn damage(segment: &Path, data: &[u8]) {
    let mut bytes = fs::read(segment).unwrap();
    let place = bytes.windows(data.len()).position(|window| window == data).unwrap();
    bytes[place] ^= 1;
    fs::write(segment, bytes).unwrap();
}

/// The same in the first segment of a shard of the stream on a simulated disk.
pub(crate) fn damage_on(disk: &SimulatedDisk, shard_id: ShardId, data: &[u8]) {
    let path = format!("stream/shards/{:012}/{:020}.seg", shard_id.get(), 0);
    disk.damage(path.as_ref(), |bytes| {
        let place = bytes.windows(data.len()).position(|window| window == data).unwrap();
        bytes[place] ^= 1;
    })
    .unwrap();
}

/// Has a file's bytes say that they are of another version, under a checksum that holds and stands at `checksum`.
pub(crate) fn say_version(bytes: &mut [u8], version: u32, checksum: usize) {
    bytes[8..12].copy_from_slice(&version.to_le_bytes());
    let holds = crc32fast::hash(&bytes[..checksum]).to_le_bytes();
    bytes[checksum..checksum + 4].copy_from_slice(&holds);
}

/// Every file below a directory with its bytes, and every directory.
pub(crate) fn snapshot(directory: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(snapshot(&path));
            found.push((path, None));
        } else {
            let bytes = fs::read(&path).unwrap();
            found.push((path, Some(bytes)));
        }
    }
    found.sort();
    found
}

/// What a fast generator of numbers gives: for tests that want variety and the same one at every run.
#[derive(Debug)]
pub(crate) struct Mixer(pub(crate) u64);

impl Mixer {
    /// One of two.
    pub(crate) fn coin(&mut self) -> bool {
        self.next().is_multiple_of(2)
    }

    /// The next number (`SplitMix64`).
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
