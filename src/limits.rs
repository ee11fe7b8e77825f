//! Every bound of the library, in one place.
//!
//! Each limit is checked on the way in (a typed error, nothing written) *and* on the way back from
//! disk (a length that breaks its limit is damage, and is never used to allocate or to step).

use std::fmt;
use std::num::NonZeroU64;

/// The longest partition key, in Unicode characters. Kinesis' own limit.
pub const MAX_PARTITION_KEY_CHARS: usize = 256;

/// The longest partition key in bytes: 256 characters of at most four bytes each.
pub const MAX_PARTITION_KEY_BYTES: usize = MAX_PARTITION_KEY_CHARS * 4;

/// Largest data of a record unless the stream says otherwise: 1 MiB, as Kinesis.
pub const DEFAULT_MAX_DATA_BYTES: u32 = 1 << 20;

/// The most that [`Limits::max_data_bytes`] can be set to: 256 MiB.
pub const MAX_DATA_BYTES: u32 = 256 << 20;

/// Most records of one batch unless the stream says otherwise.
pub const DEFAULT_MAX_BATCH_RECORDS: u32 = 10_000;

/// The most that [`Limits::max_batch_records`] can be set to.
pub const MAX_BATCH_RECORDS: u32 = 1 << 20;

/// Most bytes of one batch (keys and data) unless the stream says otherwise: 16 MiB.
pub const DEFAULT_MAX_BATCH_BYTES: u32 = 16 << 20;

/// The most that [`Limits::max_batch_bytes`] can be set to: 512 MiB.
pub const MAX_BATCH_BYTES: u32 = 512 << 20;

/// The smallest segment that a stream can be configured with.
pub const MIN_SEGMENT_BYTES: u64 = 4 << 10;

/// A segment's size unless the stream says otherwise: 64 MiB.
pub const DEFAULT_SEGMENT_BYTES: u64 = 64 << 20;

/// The largest segment that a stream can be configured with: 4 GiB.
pub const MAX_SEGMENT_BYTES: u64 = 4 << 30;

/// The size of a shard's first segment; each further one is [`SEGMENT_GROWTH`] times larger until
/// the configured size is reached, so that a shard with few records costs little disk.
pub const FIRST_SEGMENT_BYTES: u64 = 64 << 10;

/// See [`FIRST_SEGMENT_BYTES`].
pub const SEGMENT_GROWTH: u64 = 8;

/// The largest segment file that is accepted from disk. A group larger than the configured segment
/// size gets a segment of its own, so this is above [`MAX_SEGMENT_BYTES`].
pub const MAX_SEGMENT_FILE_BYTES: u64 = 8 << 30;

/// Most shards that one stream may list (open and closed together).
pub const MAX_SHARDS: u32 = 65_536;

/// The highest shard id: Kinesis' ids fit a non-negative 32-bit integer, and the watermark file
/// keeps a slot for each.
pub const MAX_SHARD_ID: u32 = (1 << 24) - 1;

/// The largest manifest that is read: far above what [`MAX_SHARDS`] can need.
pub const MAX_MANIFEST_BYTES: u64 = 64 << 20;

/// Most producers that a stream knows by name at a time.
pub const MAX_PRODUCERS: usize = 10_000;

/// Most parts of batches that a shard remembers, over all its producers. Where merges would bring more together, the producers that have not put anything for
/// the longest time are forgotten.
pub const MAX_PRODUCER_PARTS: usize = 1 << 20;

/// The longest retention period, in milliseconds, short of unlimited: 8,760 hours, as Kinesis.
pub const MAX_RETENTION_MS: u64 = 8_760 * 3_600_000;

/// The retention period unless the stream says otherwise, in milliseconds: 24 hours, as Kinesis.
pub const DEFAULT_RETENTION_MS: u64 = 24 * 3_600_000;

/// How long `Buffered` records wait for a sync at most, in milliseconds, unless the stream says otherwise.
pub const DEFAULT_FLUSH_INTERVAL_MS: u64 = 1_000;

/// After how many unsynced bytes of a shard a sync is asked for, unless the stream says otherwise.
pub const DEFAULT_FLUSH_BYTES: u64 = 8 << 20;

/// A writer that is this many times [`DEFAULT_FLUSH_BYTES`] (or the stream's own value) ahead of the
/// disk syncs by itself, so that unsynced data cannot grow without bound.
pub const UNSYNCED_FACTOR: u64 = 8;

/// Bytes of a group that waits for its commit before further writers of the shard are made to wait.
pub const MAX_PENDING_BYTES: usize = 32 << 20;

/// How long a record waits for others in a batching producer at most, in milliseconds, unless the producer says otherwise.
pub const DEFAULT_LINGER_MS: u64 = 1;

/// The longest that a batching producer can be told to linger, in milliseconds: 24 hours.
pub const MAX_LINGER_MS: u64 = 24 * 3_600_000;

/// Most records of a batching producer's batch unless it says otherwise.
pub const DEFAULT_PRODUCER_BATCH_RECORDS: usize = 500;

/// Most bytes (keys and data) of a batching producer's batch unless it says otherwise: 1 MiB.
pub const DEFAULT_PRODUCER_BATCH_BYTES: usize = 1 << 20;

/// Records that are put to a batching producer and not resolved before puts wait, unless it says otherwise.
pub const DEFAULT_IN_FLIGHT_RECORDS: usize = 10_000;

/// Bytes (keys and data) that are put to a batching producer and not resolved before puts wait, unless it says otherwise: 32 MiB.
pub const DEFAULT_IN_FLIGHT_BYTES: usize = 32 << 20;

/// A batch that a reader borrows ends at the first frame past this many bytes.
pub const READ_BATCH_BYTES: usize = 256 << 10;

/// Most files that are open for appending, over all streams of a store, unless
/// [`StreamBuilder::open_files`](crate::StreamBuilder::open_files) says otherwise. Above it the shard that opened its file first closes
/// it until its next append or sync. Well below the usual limit of 1,024 descriptors.
pub const MAX_OPEN_FILES: usize = 512;

/// A slot of the STAGING file: what a `Buffered` shard gathers before it writes it to its segment. The longer a write, the larger the pieces of
/// its page cache that the kernel works with (2.9, 4.1, 4.7 GB/s by 64 KiB, 256 KiB, 1 MiB; `cargo bench --bench kernel`, ext4, Linux 6.18), but
/// the slot is to stay in the processor's cache.
pub const STAGING_SLOT_BYTES: usize = 256 << 10;

/// Slots start at multiples of this, and are no shorter.
pub(crate) const SLOT_UNIT_BYTES: usize = 1 << 10;

/// Most slots of a stream's STAGING file. Shards that find none write each record by a call of its own, until one comes free.
pub const MAX_STAGING_SLOTS: usize = 64;

/// How long `Buffered` records wait, in milliseconds and at most twice, before the background thread writes them to their segment, where other
/// processes find them. In this process they are read at once.
pub const DRAIN_INTERVAL_MS: u64 = 1;

/// How many sealed segments of a stream stay mapped after they were read.
pub const RECENT_SEGMENTS: usize = 64;

/// How often the background thread looks for expired segments, in milliseconds.
pub const RETENTION_CHECK_MS: u64 = 10_000;

/// How often the background thread looks whether an on-demand stream should split or merge, in milliseconds, unless its policy says otherwise.
pub const CAPACITY_INTERVAL_MS: u64 = 5_000;

/// The name of a stream in a store, of a consumer, a worker, a producer or a queue: 1 to 128 characters of `[a-zA-Z0-9_.-]`, as Kinesis names streams.
pub const MAX_NAME_CHARS: usize = 128;

/// Most characters that the names of a consumer and of its worker have together: with a mark before each they are the name of a file, which has 255 bytes
/// at most.
pub const MAX_WORKER_CLAIM_CHARS: usize = 253;

/// Most consumers of one stream.
pub const MAX_CONSUMERS: usize = 10_000;

/// Most shards that a consumer keeps a position of; those of shards that expired are used again. As many as a stream may list.
pub const MAX_CONSUMER_SLOTS: u32 = MAX_SHARDS;

/// How long a worker's lease lasts without a renewal unless the worker says otherwise, in milliseconds: 10 s, as the Kinesis Client Library.
pub const DEFAULT_LEASE_MS: u64 = 10_000;

/// The shortest lease of a worker, in milliseconds.
pub const MIN_LEASE_MS: u64 = 10;

/// The longest lease of a worker, in milliseconds: a day.
pub const MAX_LEASE_MS: u64 = 24 * 3_600_000;

/// Most records of one batch that a worker is given, unless it says otherwise: as `GetRecords`.
pub const DEFAULT_WORKER_RECORDS: usize = 10_000;

/// Most records that one call of [`Queue::receive`](crate::Queue::receive) gives: as `GetRecords`.
pub const MAX_QUEUE_RECEIVE: usize = 10_000;

/// How long a record that was received stays invisible unless the queue says otherwise, in milliseconds: 30 s, as Kinesis' queues.
pub const DEFAULT_VISIBILITY_MS: u64 = 30_000;

/// The longest that a record that was received can stay invisible, in milliseconds: 12 hours, as in Kinesis' queues.
pub const MAX_VISIBILITY_MS: u64 = 12 * 3_600_000;

/// How often a record is received before it is set aside, unless the queue says otherwise: as in Kinesis' queues.
pub const DEFAULT_MAX_RECEIVES: u32 = 6;

/// Most records of a queue that were received and neither acknowledged nor set aside: above it a queue gives no record for the first time.
pub const MAX_QUEUE_UNACKNOWLEDGED: usize = 100_000;

/// Most records that a queue sets aside: above it those that were received too often are given again.
pub const MAX_QUEUE_SET_ASIDE: usize = 100_000;

/// Most records that a queue keeps something of. What is restored adds to those that are not acknowledged, and takes its place with it.
pub const MAX_QUEUE_RECORDS: usize = MAX_QUEUE_UNACKNOWLEDGED + MAX_QUEUE_SET_ASIDE;

/// Most bytes (keys and data) that one receive of a queue gives, but for a single record that has more, unless the queue says otherwise: 10 MiB, as `GetRecords`.
pub const DEFAULT_QUEUE_RECEIVE_BYTES: usize = 10 << 20;

/// After how many changes a queue writes down where it stands, unless it says otherwise.
pub const DEFAULT_QUEUE_SYNC_CHANGES: u64 = 10_000;

/// Most records that one read call gives under [`Quotas`]: as `GetRecords`.
pub const CALL_RECORDS: usize = 10_000;

/// Most bytes (keys and data) that one read call gives under [`Quotas`], but for the record that passes it: 10 MiB, as `GetRecords`.
pub const CALL_BYTES: u64 = 10 << 20;
/// Most records of an event source's batch, unless it says otherwise: as a Lambda mapping.
pub const DEFAULT_EVENT_BATCH_RECORDS: usize = 100;

/// The most that [`EventSourceOptions::batch_records`](crate::EventSourceOptions::batch_records) can be set to: as in Lambda.
pub const MAX_EVENT_BATCH_RECORDS: usize = 10_000;

/// Most bytes (keys and data) of an event source's batch, unless it says otherwise: 6 MiB, what a Lambda call takes.
pub const DEFAULT_EVENT_BATCH_BYTES: usize = 6 << 20;

/// The longest that an event source gathers records for a batch, in milliseconds: 300 s, as Lambda.
pub const MAX_EVENT_BATCH_WINDOW_MS: u64 = 300_000;

/// Most lanes that an event source makes of a shard: as Lambda's parallelization factor.
pub const MAX_EVENT_LANES: u32 = 10;

/// How many batches for each lane of an event source may be done, or under way, behind a record that is not. They are remembered until it is, and are handled again
/// after a crash.
pub const MAX_EVENT_BATCHES_BEHIND: usize = 16;

/// How often an event source tries a batch again, unless it says otherwise: a hundred seconds, with [`DEFAULT_EVENT_BACKOFF_MS`].
pub const DEFAULT_EVENT_RETRIES: u32 = 10;

/// How old a record may be when its batch is tried again, in milliseconds, unless the event source says otherwise: 24 hours, as long as a stream keeps
/// records by default.
pub const DEFAULT_EVENT_RECORD_AGE_MS: u64 = 24 * 3_600_000;

/// How long an event source waits before its first retry, in milliseconds, unless it says otherwise. Each further retry waits twice as long.
pub const DEFAULT_EVENT_BACKOFF_MS: u64 = 100;

/// The longest that an event source waits before a retry, in milliseconds.
pub const MAX_EVENT_BACKOFF_MS: u64 = 60_000;

/// Most threads in which an event source calls its handler, unless it says otherwise.
pub const DEFAULT_EVENT_THREADS: usize = 16;

/// The most that [`EventSourceOptions::max_threads`](crate::EventSourceOptions::max_threads) can be set to.
pub const MAX_EVENT_THREADS: usize = 1_024;

/// The longest tumbling window of an event source, in milliseconds: 900 s, as in Lambda.
pub const MAX_TUMBLING_WINDOW_MS: u64 = 900_000;

/// How long after the end of a tumbling window, in milliseconds, its records may still become readable: a record is stamped when it is put, and
/// shown when it is durable. At the tail of a shard a window is closed so much later than it ends.
pub const TUMBLING_WINDOW_GRACE_MS: u64 = 1_000;

/// The largest state that a key has in a tumbling window: 1 MiB, as in Lambda. One that grows larger is given to a final call early.
pub const MAX_KEY_STATE_BYTES: usize = 1 << 20;

/// Most bytes of the states that are open in one shard of an event source, keys and [`KEY_STATE_OVERHEAD_BYTES`] a key counted: 64 MiB, in equal shares of its
/// lanes. Above it the oldest window is given to final calls early.
pub const MAX_SHARD_STATE_BYTES: usize = 64 << 20;

/// What a key's state counts beside its own bytes and the key's.
pub const KEY_STATE_OVERHEAD_BYTES: usize = 64;

/// The longest record of a failed batch that is read; one that is written is shorter.
pub const MAX_FAILED_BATCH_BYTES: usize = 16 << 10;

/// What is kept of the reason for which a batch failed, in characters.
pub const MAX_FAILURE_REASON_CHARS: usize = 1_024;

/// How long an operation on a consumer waits for its file's lock, in milliseconds, before it is refused as
/// [`Error::Locked`](crate::Error::Locked). It is held for microseconds, or for one sync: whoever keeps it longer was stopped.
pub const CONSUMER_LOCK_MS: u64 = 10_000;

const _: () = assert!(STAGING_SLOT_BYTES.is_multiple_of(SLOT_UNIT_BYTES));
const _: () = assert!(MAX_DATA_BYTES < MAX_BATCH_BYTES);
// The largest state of a lane's share.
const _: () = assert!(MAX_KEY_STATE_BYTES < MAX_SHARD_STATE_BYTES / MAX_EVENT_LANES as usize);
const _: () = assert!(DEFAULT_MAX_DATA_BYTES < DEFAULT_MAX_BATCH_BYTES);
const _: () = assert!(DEFAULT_MAX_DATA_BYTES <= MAX_DATA_BYTES);
const _: () = assert!(FIRST_SEGMENT_BYTES >= MIN_SEGMENT_BYTES);
const _: () = assert!(DEFAULT_SEGMENT_BYTES <= MAX_SEGMENT_BYTES);
// A batch of the largest size, with frame headers and index entries, fits one segment file.
const _: () =
    assert!(MAX_BATCH_BYTES as u64 + MAX_BATCH_RECORDS as u64 * 128 + (1 << 20) < MAX_SEGMENT_FILE_BYTES);
// Positions inside a segment are kept as 32-bit counts of 8 bytes.
const _: () = assert!(MAX_SEGMENT_FILE_BYTES / 8 < u32::MAX as u64);

/// The bounds of one stream: of sizes, which are fixed when it is created and kept in its manifest, and of throughput, which whoever opens
/// it may set anew.
///
/// ```
/// let limits = anabranch::Limits { max_data_bytes: 10 << 20, ..Default::default() };
/// assert_eq!(limits.max_batch_records, 10_000);
/// assert_eq!(limits.quotas, anabranch::Quotas::none());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Largest data of one record in bytes, without its key: up to [`MAX_DATA_BYTES`].
    pub max_data_bytes: u32,
    /// Most records in one `put_batch`: up to [`MAX_BATCH_RECORDS`].
    pub max_batch_records: u32,
    /// Most bytes (keys and data) in one `put_batch`: up to [`MAX_BATCH_BYTES`], and at least
    /// `max_data_bytes` plus the longest key.
    pub max_batch_bytes: u32,
    /// How much may pass a shard in a second: not kept in the manifest, none by default. [`Stream::set_quotas`](crate::Stream::set_quotas) changes them.
    pub quotas: Quotas,
}

/// How much may pass one shard in a second; `None` is no quota.
///
/// A library does not throttle its host, so that there are none by default. [`Quotas::kinesis`] are the service's, for tests of what a program does
/// when it is throttled, and for servers. They hold for one open stream, of this process; another process has its own. Time is that of the
/// stream's [`Clock`](crate::Clock), and monotonic.
///
/// Who is over a quota gets [`Error::ThroughputExceeded`](crate::Error::ThroughputExceeded), which says how long to wait; nothing was written, and nothing skipped.
///
/// # Writing
///
/// Each shard has a bucket of what one second brings. A put passes if all its records and bytes are in it, or if it is full: what is larger than a second's quota passes
/// by itself, and those behind it wait until it is paid for. Of [`put_batch`](crate::Stream::put_batch) and a producer's batch, all passes or nothing;
/// [`put_each`](crate::Stream::put_each) refuses single records. What passed is counted, whatever becomes of it.
///
/// # Reading
///
/// Reading is counted in *calls*, as `GetRecords`: a call begins with the first record that a reader finds, and ends at the tail, after [`CALL_RECORDS`]
/// records or behind [`CALL_BYTES`] bytes. Looks that find nothing cost nothing; [`ShardIterator::begin_call`](crate::ShardIterator::begin_call) counts one
/// all the same. A call passes while the shard's bucket is not empty, and takes what it gives, be it more than is there: what gave a second's quota or more closes the shard to
/// readers until it is paid for, 10 MiB for 5 seconds at 2 MiB/s.
///
/// All readers of a shard share one bucket, but for those that are [dedicated](crate::ShardIterator::dedicated) to a consumer, which has one for each shard.
/// A dedicated reader is not counted in calls, but record by record.
///
/// [`Stream::get`](crate::Stream::get) is not counted, nor is what a [`Queue`](crate::Queue) reads, or [`FailedBatch::records`](crate::FailedBatch::records).
///
/// ```
/// # fn main() -> anabranch::Result<()> {
/// # let directory = tempfile::tempdir().unwrap();
/// # let path = directory.path().join("clicks");
/// use std::{sync::Arc, time::Duration};
/// use anabranch::{Error, Limits, ManualClock, Stream, Timestamp};
///
/// let clock = Arc::new(ManualClock::at(Timestamp::from_millis(0)));
/// let stream = Stream::builder().limits(Limits::kinesis()).clock(clock.clone()).create(&path)?;
/// stream.put("user-1", vec![0; 1_000_000])?;
/// let Err(Error::ThroughputExceeded { retry_after, .. }) = stream.put("user-1", vec![0; 500_000]) else { panic!() };
/// assert!(retry_after < Duration::from_millis(500)); // 1 MiB a second, of which 48 KiB are left
///
/// clock.advance(retry_after);
/// stream.put("user-1", vec![0; 500_000])?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Quotas {
    /// Bytes (keys and data) that are put.
    pub write_bytes: Option<NonZeroU64>,
    /// Records that are put.
    pub write_records: Option<NonZeroU64>,
    /// Bytes (keys and data) that all readers together are given.
    pub shared_read_bytes: Option<NonZeroU64>,
    /// Calls of all readers together.
    pub shared_read_calls: Option<NonZeroU64>,
    /// Bytes (keys and data) that the dedicated readers of one consumer are given.
    pub dedicated_read_bytes: Option<NonZeroU64>,
}

/// What a quota counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Quota {
    /// [`Quotas::write_bytes`].
    WriteBytes,
    /// [`Quotas::write_records`].
    WriteRecords,
    /// [`Quotas::shared_read_bytes`] or, for a dedicated reader, [`Quotas::dedicated_read_bytes`].
    ReadBytes,
    /// [`Quotas::shared_read_calls`].
    ReadCalls,
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WriteBytes => "bytes put",
            Self::WriteRecords => "records put",
            Self::ReadBytes => "bytes read",
            Self::ReadCalls => "read calls",
        })
    }
}

impl Quotas {
    /// No quotas.
    pub const fn none() -> Self {
        Self {
            write_bytes: None,
            write_records: None,
            shared_read_bytes: None,
            shared_read_calls: None,
            dedicated_read_bytes: None,
        }
    }

    /// Those of Kinesis Data Streams, per shard and second: 1 MiB and 1,000 records written; 2 MiB in 5 calls for all readers together; 2 MiB for each dedicated consumer.
    pub const fn kinesis() -> Self {
        Self {
            write_bytes: NonZeroU64::new(1 << 20),
            write_records: NonZeroU64::new(1_000),
            shared_read_bytes: NonZeroU64::new(2 << 20),
            shared_read_calls: NonZeroU64::new(5),
            dedicated_read_bytes: NonZeroU64::new(2 << 20),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_data_bytes: DEFAULT_MAX_DATA_BYTES,
            max_batch_records: DEFAULT_MAX_BATCH_RECORDS,
            max_batch_bytes: DEFAULT_MAX_BATCH_BYTES,
            quotas: Quotas::none(),
        }
    }
}

impl Limits {
    /// Those of Kinesis Data Streams: records of 1 MiB, batches of 500 records and 10 MiB, and its [quotas](Quotas::kinesis).
    ///
    /// The service counts a record's key into its 1 MiB, which is not done here.
    pub const fn kinesis() -> Self {
        Self {
            max_data_bytes: 1 << 20,
            max_batch_records: 500,
            max_batch_bytes: 10 << 20,
            quotas: Quotas::kinesis(),
        }
    }

    /// What of them the manifest keeps.
    pub(crate) const fn of_sizes(self) -> Self {
        Self { quotas: Quotas::none(), ..self }
    }

    /// Says what is wrong with these limits, if anything.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        let one_record = u64::from(self.max_data_bytes) + MAX_PARTITION_KEY_BYTES as u64;
        if self.max_data_bytes > MAX_DATA_BYTES {
            Some("max_data_bytes is above MAX_DATA_BYTES (256 MiB)")
        } else if self.max_batch_records == 0 || self.max_batch_records > MAX_BATCH_RECORDS {
            Some("max_batch_records is not within 1..=MAX_BATCH_RECORDS (1,048,576)")
        } else if self.max_batch_bytes > MAX_BATCH_BYTES {
            Some("max_batch_bytes is above MAX_BATCH_BYTES (512 MiB)")
        } else if u64::from(self.max_batch_bytes) < one_record {
            Some("max_batch_bytes is below max_data_bytes plus the longest partition key (1,024 bytes)")
        } else {
            None
        }
    }
}
