//! An embedded stream store: what Amazon Kinesis Data Streams is as a service, as a library that lives in the caller's
//! process and in one directory.
//!
//! A [`Stream`] is a set of *shards*. Each shard is an append-only log that owns a range of a 128-bit hash-key space. A
//! record's partition key is hashed, and the open shard whose range holds the hash takes the record and gives it the
//! next sequence number. Readers iterate over a shard from the trim horizon, a sequence number, a time or the tail.
//! Shards split and merge while producers write; a shard that was split or merged stays readable until its records expire.
//!
//! ```
//! use anabranch::{RecordsStart, ShardIteratorType, Stream};
//!
//! # fn main() -> anabranch::Result<()> {
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = directory.path().join("clicks");
//! let stream = Stream::builder().shards(2).open(&path)?; // create it, or open it again
//! let put = stream.put("user-42", b"GET /cart")?;        // durable when this returns
//!
//! let mut iterator = stream.shard_iterator(put.shard_id, ShardIteratorType::TrimHorizon)?;
//! for record in iterator.next_batch()? {                 // borrowed from the map: no copy, no allocation
//!     assert_eq!((record.partition_key(), record.data()), ("user-42", b"GET /cart".as_slice()));
//! }
//!
//! let (left, right) = stream.split_shard(put.shard_id, None)?;
//! stream.put("user-42", b"GET /checkout")?;              // goes to one of the children
//! stream.merge_shards(left, right)?;
//!
//! // The whole stream, parents before children: for each key, the order in which it was put.
//! let all: Vec<_> = stream.records(RecordsStart::TrimHorizon)?.available().collect::<Result<_, _>>()?;
//! assert_eq!(all[1].data(), b"GET /checkout");
//! stream.close()
//! # }
//! ```
//!
//! # Where to look
//!
//! - Opening: [`Stream::builder`]; many streams by name: [`Store`].
//! - Writing: [`Stream::put`], [`put_with`](Stream::put_with) (explicit hash key, durability, condition), [`put_batch`](Stream::put_batch);
//!   in batches in the background, with a handle for each record: [`Stream::batching_producer`].
//! - Writing once, whatever happens: [`Stream::producer`]. Against others: [`PutOptions::expect_next`], [`Stream::fence_shard`].
//! - Reading: [`Stream::shard_iterator`], [`records`](Stream::records), [`get`](Stream::get). Beside the writer, in another process:
//!   [`StreamBuilder::open_read_only`].
//! - Consumers, whose positions are kept: [`Stream::consumer`]; groups of workers that share the shards: [`Consumer::worker`]. Exactly once from one
//!   stream to another: [`Pipeline`].
//! - A function that is called with batches of records, as a Lambda mapping does it, with retries, lanes and tumbling windows: [`Consumer::event_source`], explained in
//!   [`docs::event_sources`].
//! - Queues, whose records are acknowledged one by one, in any order, and come again: [`Stream::queue`].
//! - Shards: [`split_shard`](Stream::split_shard), [`merge_shards`](Stream::merge_shards), [`update_shard_count`](Stream::update_shard_count);
//!   as many as the load asks for: [`StreamBuilder::capacity`].
//! - Retention: [`increase_retention`](Stream::increase_retention), [`set_retention_bytes`](Stream::set_retention_bytes), [`trim_shard`](Stream::trim_shard).
//! - Looking: [`describe`](Stream::describe), [`metrics`](Stream::metrics), [`recovery`](Stream::recovery), [`verify()`].
//! - Tests of your own: a stream on a [`SimulatedDisk`] with a [`ManualClock`] lives in memory, is the same at every run, and
//!   can lose power, fill up and fail.
//! - What is promised, word for word: [`docs::promises`]; how that is tested: [`docs::testing`]; what costs what: [`docs::performance`]; how shards follow
//!   a load: [`docs::capacity`].
//! - Damage: [`verify()`] finds it, [`salvage()`] reads behind it, [`repair()`] makes the stream whole again.
//! - The files: [`mod@format`]; the bounds: [`limits`]; what is asked of a file system: [`storage`].
//!
//! # Durability
//!
//! An acknowledged put is durable at one of two levels: [`Durability::Synced`] (the default) survives power loss when `put`
//! returns; [`Durability::Buffered`] survives the death of the process then, and power loss after the next flush.
//!
//! After any crash each shard holds a contiguous prefix of what was appended to it, in order, bit for bit, which
//! contains everything that was acknowledged at its level. A batch is there whole or not at all, per shard. Opening makes what it
//! found durable before anybody reads it.
//!
//! A reader of a `Synced` stream is shown only what no crash can take back. The unsynced tail is shown on a `Buffered` stream, or where
//! [`include_unsynced`](ShardIterator::include_unsynced) asks for it; a power cut can make it vanish, and its sequence numbers
//! be given to other records, which then carry a higher [incarnation](Record::incarnation).
//!
//! A failed append has an **unknown outcome**: the record may turn up later. After a failed write or sync a shard refuses
//! appends until the stream is opened again ([`Error::ShardFailed`]).
//!
//! Damage is told from a torn tail by what was known durable when later bytes were written (see [`mod@format`]). A torn tail is cut off
//! and reported; damage is [`Error::Corrupt`], with file, offset and sequence numbers, and nothing that is sound is lost by telling it.
//!
//! # What is assumed
//!
//! When a sync succeeds, what was written before it survives a power cut; a write changes no byte outside its range. Nothing else. One
//! kernel, a local file system (ext4, XFS, Btrfs); no promise on network file systems. Files of a stream are not changed by other
//! programs while it is open: they are mapped.
//!
//! # Threads, processes, time
//!
//! [`Stream`] is a handle: clones share the stream, in any number of threads. One process has it open for writing, held by a lock that dies
//! with the process; others follow read-only. A stream has one background thread, for flushes of `Buffered` records and for
//! retention ([`StreamBuilder::background`] turns it off); the streams of a [`Store`] share one. A [`BatchingProducer`] has one of its own, an [`EventSource`] those that it calls its handler in, while it runs.
//!
//! Arrival times never fall inside a shard, whatever the clock does. A clock that leaps forward deletes nothing until a second reading
//! agrees with it.
//!
//! # Features
//!
//! - `async`: readers and puts for tasks of any runtime: `Records::into_stream`, `ShardIterator::into_stream`, `Stream::put_async`,
//!   `Stream::put_batch_async`. Readers are woken by whoever appends; puts share the commits of threads.
//!   Wakers are called with a shard's lock held: they have their task polled later, as those of runtimes do, and neither poll it
//!   themselves nor drop it with the last handle of its stream in it.
//! - `tracing`: events of the engine (open, recovery, roll, reshard, trim, failure) through the `tracing` facade. Changes nothing else. A subscriber is
//!   called with a shard's lock held: it must not use the stream; should it panic, the engine goes on.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(not(all(unix, target_pointer_width = "64")))]
compile_error!("anabranch supports 64-bit Unix systems");

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod batching;
mod capacity;
mod clock;
mod consumer;
pub mod docs;
mod error;
mod event_source;
pub mod format;
#[doc(hidden)]
pub mod fuzzing;
mod leases;
pub mod limits;
mod manifest;
mod pipeline;
mod queue;
mod queue_files;
mod routing;
mod segment;
mod shard;
pub mod storage;
mod store;
mod stream;
#[doc(hidden)]
pub mod sync;
mod trace;
mod types;

pub use batching::{BatchingProducer, BatchingProducerBuilder, InFlight, PutHandle};
pub use capacity::{Capacity, CapacityPolicy};
pub use clock::{Clock, ManualClock, SystemClock};
pub use consumer::{Checkpoint, Consumer, Handler, Lease, Position, RecordPosition, Work, Worker, WorkerOptions};
pub use error::{Error, ErrorKind, Result};
pub use event_source::{
    Batch, BatchFailure, BatchHandler, ClosedWindow, EventSource, EventSourceOptions, FailedBatch,
    FailureCondition, FailureDestination, KeyState, Window,
};
pub use limits::{Limits, Quota, Quotas};
pub use pipeline::{Outputs, Pipeline};
pub use queue::{
    ParseReceiptError, Queue, QueueDescription, QueueOptions, QueueShardDescription, Receipt, Received, SetAside,
};
pub use segment::{Record, RecordBatch, RecordRef};
pub use storage::{Corruption, Crash, DiskFault, SimulatedDisk, Storage};
pub use store::{Store, StoreBuilder};
pub use stream::{
    Available, ChildShard, Follow, LostRange, Metrics, Producer, ProducerDescription, PutBatchOptions, PutEntry,
    PutOptions, PutReceipt, Rebalanced, Records, RecordsAvailable, RecordsFollow, RecordsStart, RecoveryReport,
    RepairReport, SalvageReport, Salvaged, SalvagedRecord, ShardDescription, ShardIterator, ShardState,
    ShardSummary, Stream, StreamBuilder, StreamDescription, TornTail, TrimReport, VerifyOptions, VerifyProgress,
    VerifyReport, repair, salvage, verify,
};
#[cfg(feature = "async")]
pub use stream::{PutBatchFuture, PutFuture, RecordsStream, ShardStream};
pub use types::{
    Durability, HashKey, HashKeyRange, ParseShardIdError, PartitionHash, RetentionPeriod, SequenceNumber, ShardId,
    ShardIteratorType, StreamId, Timestamp,
};
