//! Every bound of the library, in one place.
//!
//! Each limit is checked on the way in (a typed error, nothing written) *and* on the way back from
//! disk (a length that breaks its limit is damage, and is never used to allocate or to step).

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

/// After how many changes a queue writes down where it stands, unless it says otherwise.
pub const DEFAULT_QUEUE_SYNC_CHANGES: u64 = 10_000;

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

/// The bounds of one stream, fixed when it is created and kept in its manifest.
///
/// ```
/// let limits = anabranch::Limits { max_data_bytes: 10 << 20, ..Default::default() };
/// assert_eq!(limits.max_batch_records, 10_000);
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
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_data_bytes: DEFAULT_MAX_DATA_BYTES,
            max_batch_records: DEFAULT_MAX_BATCH_RECORDS,
            max_batch_bytes: DEFAULT_MAX_BATCH_BYTES,
        }
    }
}

impl Limits {
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
