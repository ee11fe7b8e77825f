//! What a user says of a stream to create or open.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::open::Opening;
use super::{Background, Stream};
use crate::capacity::Capacity;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::format::StreamOptions;
use crate::limits::{Limits, MIN_SEGMENT_BYTES, Quotas};
use crate::shard::OpenFiles;
use crate::storage::{Contained, Storage};
use crate::types::{Durability, PartitionHash, RetentionPeriod};

/// Describes a stream to create or open: made by [`Stream::builder`].
///
/// What is set here is used when a stream is created. When an existing one is opened, its manifest decides: an option that was set and
/// contradicts it is [`Error::OptionMismatch`], never a silent override. Clock, storage, capacity and background thread are not part of the stream
/// and can differ at every opening.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("clicks");
/// use anabranch::{Durability, RetentionPeriod, Stream};
///
/// let stream = Stream::builder()
///     .shards(4)
///     .retention(RetentionPeriod::hours(48))
///     .durability(Durability::Buffered)
///     .open(&path)?;
/// # stream.close()?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "a builder does nothing until it creates or opens"]
pub struct StreamBuilder {
    shards: Setting<u32>,
    retention: Setting<RetentionPeriod>,
    retention_bytes: Setting<Option<u64>>,
    segment_bytes: Setting<u64>,
    durability: Setting<Durability>,
    flush_interval: Setting<Duration>,
    flush_bytes: Setting<u64>,
    partition_hash: Setting<PartitionHash>,
    limits: Setting<Limits>,
    pub(super) capacity: Setting<Capacity>,
    pub(super) clock: Option<Arc<dyn Clock>>,
    pub(super) storage: Option<Arc<dyn Storage>>,
    pub(super) no_background: bool,
    pub(super) open_files: Setting<usize>,
    pub(super) first_segment_bytes: Setting<u64>,
    /// A store's thread, in place of one of the stream's own.
    pub(super) background: Option<Background>,
    /// A store's bound on open files, in place of one of the stream's own.
    pub(super) files: Option<Arc<OpenFiles>>,
}

/// An option that was set, or was not.
type Setting<T> = Option<T>;

impl StreamBuilder {
    /// How many shards the stream starts with: 1 to 65,536; 1 by default.
    pub fn shards(mut self, count: u32) -> Self {
        self.shards = Some(count);
        self
    }

    /// How many shards are kept open, in this opening: see [`Stream::rebalance`]. With [`Capacity::OnDemand`] the background thread splits and merges
    /// as the load asks for. Unless [`shards`](Self::shards) says otherwise, a new stream starts with as many as provisioned, or with the
    /// policy's least. By default the shards change only when somebody splits or merges them.
    pub fn capacity(mut self, capacity: Capacity) -> Self {
        self.capacity = Some(capacity);
        self
    }

    /// How long records stay: 1 ms to 8,760 h, or unlimited; 24 h by default.
    pub fn retention(mut self, period: impl Into<RetentionPeriod>) -> Self {
        self.retention = Some(period.into());
        self
    }

    /// A byte budget for the whole stream's segment files; none by default.
    pub fn retention_bytes(mut self, bytes: Option<u64>) -> Self {
        self.retention_bytes = Some(bytes);
        self
    }

    /// The size that a shard's segments grow to: a multiple of 8 from 4 KiB to 4 GiB; 64 MiB by default. Retention
    /// removes whole segments, so smaller ones follow it more closely. A shard's first segment is at most 64 KiB, unless
    /// [`first_segment_bytes`](Self::first_segment_bytes) or what is put first needs more.
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = Some(bytes);
        self
    }

    /// What an acknowledged put survives; [`Durability::Synced`] by default.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// How long `Buffered` records wait for a sync at most: 1 ms to 24 h, in whole milliseconds (a fraction is cut off); 1 s by default.
    /// Measured in real time by the background thread, whatever the clock.
    pub fn flush_interval(mut self, interval: Duration) -> Self {
        let millis = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        self.flush_interval = Some(Duration::from_millis(millis)); // as it is stored
        self
    }

    /// After how many unsynced bytes a shard is synced: at least 1; 8 MiB by default. A writer that gets eight times as far ahead of the disk
    /// waits for it.
    pub fn flush_bytes(mut self, bytes: u64) -> Self {
        self.flush_bytes = Some(bytes);
        self
    }

    /// From partition key to hash key; [`PartitionHash::Xxh3`] by default.
    pub fn partition_hash(mut self, hash: PartitionHash) -> Self {
        self.partition_hash = Some(hash);
        self
    }

    /// The bounds of records and batches.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// Where arrival times and retention take the time from; the system's clock by default.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Where the files are; the machine's file systems by default. With a
    /// [`SimulatedDisk`](crate::SimulatedDisk) the stream lives in memory.
    pub fn storage(mut self, storage: Arc<dyn Storage>) -> Self {
        self.storage = Some(Arc::new(Contained::new(storage)));
        self
    }

    /// Whether a thread flushes and trims in the background; it does by default. Without it, call [`Stream::maintain`]; tests do,
    /// to be the same at every run. `Synced` puts never need it, and unsynced bytes stay bounded without it too; other processes that follow
    /// a `Buffered` stream find its newest records later (see [`performance`](crate::docs::performance#reading)).
    pub fn background(mut self, on: bool) -> Self {
        self.no_background = !on;
        self
    }

    /// The size of a shard's first segment file in bytes, in this opening: 64 KiB by default, at most the stream's `segment_bytes`. Each
    /// further one is eight times larger until `segment_bytes` is reached, so that many idle shards cost little disk. For few, busy
    /// shards set both alike: each full segment is synced, and while that lasts its shard takes no records.
    pub fn first_segment_bytes(mut self, bytes: u64) -> Self {
        self.first_segment_bytes = Some(bytes.max(MIN_SEGMENT_BYTES));
        self
    }

    /// How many shards have their file open for appending at once: at least 1; [`MAX_OPEN_FILES`](crate::limits::MAX_OPEN_FILES) by default. Above
    /// it the shard that opened its file first closes it until its next append or sync. In a
    /// [`Store`](crate::Store) the store's bound counts, for all of its streams together.
    pub fn open_files(mut self, most: usize) -> Self {
        self.open_files = Some(most);
        self
    }

    pub(crate) fn within_store(
        mut self,
        clock: Arc<dyn Clock>,
        storage: Arc<dyn Storage>,
        background: Option<Background>,
        files: Arc<OpenFiles>,
    ) -> Self {
        self.files = Some(files);
        self.clock = Some(clock);
        self.storage = Some(storage);
        self.no_background = background.is_none();
        self.background = background;
        self
    }

    /// Creates a stream. Directories on the way to `path` are made.
    ///
    /// # Errors
    ///
    /// [`Error::StreamExists`]; [`Error::NotAStream`] if `path` holds something else; [`Error::InvalidArgument`] for an option out
    /// of its range; [`Error::Locked`] if somebody else is just creating it.
    pub fn create(self, path: impl AsRef<Path>) -> Result<Stream> {
        let mut opening = Opening::new(self, path.as_ref())?;
        if matches!(opening.load_manifest(), Ok(Some(_))) {
            return Err(Error::StreamExists(opening.path)); // also where a writer has it open
        }
        let lock = opening.lock()?;
        match opening.load_manifest()? {
            Some(_) => Err(Error::StreamExists(opening.path)),
            None => opening.create(lock),
        }
    }

    /// Opens the stream at `path`, or creates it if there is none.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create) and [`open_existing`](Self::open_existing).
    pub fn open(self, path: impl AsRef<Path>) -> Result<Stream> {
        let mut opening = Opening::new(self, path.as_ref())?;
        let lock = opening.lock()?;
        match opening.load_manifest()? {
            Some(state) => opening.open(state, lock),
            None => opening.create(lock),
        }
    }

    /// Opens the stream at `path` for writing. After a crash, it recovers what the last writer left: see [`Stream::recovery`].
    ///
    /// # Errors
    ///
    /// [`Error::StreamNotFound`], [`Error::NotAStream`], [`Error::OptionMismatch`]; [`Error::Locked`] if it is open for writing elsewhere, in this
    /// process or another; [`Error::UnsupportedVersion`]; [`Error::Corrupt`] where something that was durable is damaged: nothing
    /// that was sound is lost then, though leftovers may have been removed, and other shards recovered.
    pub fn open_existing(self, path: impl AsRef<Path>) -> Result<Stream> {
        let mut opening = Opening::new(self, path.as_ref())?;
        opening.expect_directory()?;
        match opening.load_manifest()? {
            // Looked at before the lock, so that a wrong path is not given a LOCK file; read again under it.
            Some(_) => {
                let lock = opening.lock()?;
                let state = opening.load_manifest()?.ok_or_else(|| opening.no_manifest())?;
                opening.open(state, lock)
            }
            None => Err(opening.no_manifest()),
        }
    }

    /// Opens the stream at `path` for reading, beside the process that writes it, or alone. Takes no lock and changes nothing, but makes durable what the writer
    /// says of its shards, where it may: no end that a reader comes to is undone by a power cut.
    ///
    /// Readers are shown what the writer has made durable (on a `Buffered` stream: written), within about a
    /// millisecond of looking; they look when they are asked for more.
    ///
    /// # Errors
    ///
    /// As [`open_existing`](Self::open_existing), without [`Error::Locked`].
    pub fn open_read_only(self, path: impl AsRef<Path>) -> Result<Stream> {
        let opening = Opening::new(self, path.as_ref())?;
        opening.expect_directory()?;
        match opening.load_durable_manifest()? {
            Some(state) => opening.open_read_only(state),
            None => Err(opening.no_manifest()),
        }
    }

    /// The options of a new stream.
    pub(super) fn options(&self) -> StreamOptions {
        let defaults = StreamOptions::default();
        StreamOptions {
            retention: self.retention.unwrap_or(defaults.retention),
            retention_bytes: self.retention_bytes.unwrap_or(defaults.retention_bytes),
            segment_bytes: self.segment_bytes.unwrap_or(defaults.segment_bytes),
            durability: self.durability.unwrap_or(defaults.durability),
            partition_hash: self.partition_hash.unwrap_or(defaults.partition_hash),
            flush_interval: self.flush_interval.unwrap_or(defaults.flush_interval),
            flush_bytes: self.flush_bytes.unwrap_or(defaults.flush_bytes),
            limits: self.limits.map_or(defaults.limits, Limits::of_sizes),
            initial_shards: self.initial_shards().unwrap_or(defaults.initial_shards),
        }
    }

    pub(super) fn quotas(&self) -> Quotas {
        self.limits.map_or(Quotas::none(), |limits| limits.quotas)
    }

    fn initial_shards(&self) -> Option<u32> {
        self.shards.or_else(|| self.capacity.map(|capacity| capacity.initial_shards()))
    }

    /// Compares what was set with what the stream was created with.
    pub(super) fn check_against(&self, stored: &StreamOptions) -> Result<()> {
        expect("shards", self.shards, &stored.initial_shards)?;
        expect("retention", self.retention, &stored.retention)?;
        expect("retention_bytes", self.retention_bytes, &stored.retention_bytes)?;
        expect("segment_bytes", self.segment_bytes, &stored.segment_bytes)?;
        expect("durability", self.durability, &stored.durability)?;
        expect("partition_hash", self.partition_hash, &stored.partition_hash)?;
        expect("flush_interval", self.flush_interval, &stored.flush_interval)?;
        expect("flush_bytes", self.flush_bytes, &stored.flush_bytes)?;
        expect("limits", self.limits.map(Limits::of_sizes), &stored.limits)
    }
}

fn expect<T: PartialEq + std::fmt::Debug>(option: &'static str, requested: Setting<T>, stored: &T) -> Result<()> {
    match requested {
        Some(requested) if requested != *stored => Err(Error::OptionMismatch {
            option,
            stored: format!("{stored:?}"),
            requested: format!("{requested:?}"),
        }),
        _ => Ok(()),
    }
}
