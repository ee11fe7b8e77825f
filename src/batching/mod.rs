//! A producer that gathers records into batches while its callers go on.

mod batch;
mod builder;
mod queue;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::storage::{Fault, Process};
use crate::stream::{PutEntry, PutReceipt, Stream};
use crate::sync::caught;
use crate::types::Durability;

pub use batch::PutHandle;
pub use builder::BatchingProducerBuilder;
pub use queue::InFlight;

use batch::Batch;
use queue::{Bounds, Patience, Queue};

/// How long records over a quota wait at most before it is asked again: the stream's clock may be one that is set.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Puts records in batches, in the background: what the Kinesis Producer Library is to the service.
///
/// [`put`](Self::put) copies the record and returns; the [`PutHandle`] it gives resolves to the record's receipt or to its error. Records are sent
/// together: when a batch is [full](BatchingProducerBuilder::batch_records), when its first record has [lingered](BatchingProducerBuilder::linger), or at a
/// [`flush`](Self::flush). A handle of one producer: clones share it, in any number of threads.
///
/// ```
/// # use anabranch::{Result, Stream};
/// # fn main() -> Result<()> {
/// # let directory = tempfile::tempdir().unwrap();
/// # let stream = Stream::builder().open(directory.path().join("clicks"))?;
/// let producer = stream.batching_producer().start()?;
/// let first = producer.put("user-42", b"GET /cart")?;
/// for index in 0..1_000 {
///     producer.put(format!("user-{index}"), b"GET /")?; // sent without its handle, too
/// }
/// producer.flush()?; // all of them are durable
/// assert_eq!(first.try_wait()?.unwrap().sequence_number.get(), 0);
/// producer.close()?;
/// # stream.close()
/// # }
/// ```
///
/// # Order
///
/// Batches are sent one at a time, in the order of their records. So for one partition key the sequence numbers rise in the order in which a thread
/// put them, through batches, splits and merges. Where several producers, or a producer and [`Stream::put`], put the same key, nothing is said of
/// their order. After a [failure](crate::ErrorKind::Reopen) of a shard, its later records fail too; where room was missing
/// ([`StorageFull`](crate::ErrorKind::StorageFull)), later ones may succeed.
///
/// # Errors
///
/// A record that cannot be put at all is refused by `put`, before it is in a batch. What happens to a batch happens to each of its records by
/// itself: those of a failed shard get its error, their neighbours their receipts. Who dropped the handles learns of an error by the next
/// [`flush`](Self::flush) or [`close`](Self::close). A batch is no unit: after a crash any prefix of each shard's records may be there.
///
/// Records over the stream's [quotas](crate::Quotas) wait here until there is room, and those behind them with them.
///
/// # Memory
///
/// While [so many records](BatchingProducerBuilder::in_flight_records) or [bytes](BatchingProducerBuilder::in_flight_bytes) are put and not resolved,
/// `put` waits; [`try_put`](Self::try_put) and [`put_timeout`](Self::put_timeout) do not, or not for long.
///
/// # Its thread
///
/// A producer has a thread of its own, which sends. The engine's does not serve: a `put` that returns before its record is durable needs somebody else to
/// wait for the disk, batch after batch, and the engine's thread has flushes and retention of all streams of a store to see to, and may be
/// turned off. Letting the caller who fills a batch send it would make that caller wait for the disk, which is what the
/// producer is there to spare it.
///
/// # When to use it
///
/// On a `Synced` stream, whenever a thread has something else to do until its record is durable. Where each record has to be durable before its thread goes on,
/// [`put`](Stream::put) is as fast or faster, since threads share syncs anyway; and on a `Buffered` stream it is faster always. Figures:
/// [`performance`](crate::docs::performance#batches-in-the-background).
///
/// The producer keeps the stream open. The last clone that is dropped flushes, as [`close`](Self::close) does, but has nobody to tell of an error.
#[derive(Clone)]
pub struct BatchingProducer {
    handle: Arc<Handle>,
}

/// What all clones share: the last of them ends the thread.
struct Handle {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the clones and the thread share.
struct Shared {
    stream: Stream,
    durability: Durability,
    queue: Queue,
    process: Process,
}

impl Stream {
    /// Starts describing a producer that puts records to this stream in batches.
    pub fn batching_producer(&self) -> BatchingProducerBuilder {
        BatchingProducerBuilder::new(self.clone())
    }
}

impl BatchingProducer {
    fn start(stream: Stream, bounds: Bounds, durability: Durability) -> Result<Self> {
        stream.check_writable()?;
        let process = Process::this();
        let shared = Arc::new(Shared { stream, durability, queue: Queue::new(bounds, process), process });
        let for_thread = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("anabranch-batch".to_owned())
            .spawn(move || for_thread.send_all())
            .map_err(Fault::io("start a thread for", shared.stream.path()))?;
        Ok(Self { handle: Arc::new(Handle { shared, thread: Some(thread) }) })
    }

    /// The stream that it puts to.
    pub fn stream(&self) -> &Stream {
        &self.handle.shared.stream
    }

    /// Takes a copy of a record, to be sent soon. Waits while too much is in flight.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for a key of no or more than 256 characters, [`Error::DataTooLarge`]; [`Error::Closed`] when the producer
    /// is closed, also while this waits, or the stream was closed before the call. Nothing was taken then.
    pub fn put(&self, partition_key: impl AsRef<str>, data: impl AsRef<[u8]>) -> Result<PutHandle> {
        self.put_entry(&PutEntry::new(partition_key.as_ref(), data.as_ref()))
    }

    /// As [`put`](Self::put), for a record that may have an explicit hash key.
    pub fn put_entry(&self, entry: &PutEntry<'_>) -> Result<PutHandle> {
        // Somebody with endless patience gets a handle or an error.
        self.handle.shared.put(entry, Patience::Endless)?.ok_or(Error::Closed)
    }

    /// As [`put`](Self::put), but waits for nothing: gives nothing, and has taken nothing, while too much is in flight.
    pub fn try_put(&self, partition_key: impl AsRef<str>, data: impl AsRef<[u8]>) -> Result<Option<PutHandle>> {
        let entry = PutEntry::new(partition_key.as_ref(), data.as_ref());
        self.handle.shared.put(&entry, Patience::None)
    }

    /// As [`put`](Self::put), but waits for `timeout` at most: gives nothing, and has taken nothing, if too much is in flight until then.
    pub fn put_timeout(
        &self,
        partition_key: impl AsRef<str>,
        data: impl AsRef<[u8]>,
        timeout: Duration,
    ) -> Result<Option<PutHandle>> {
        let entry = PutEntry::new(partition_key.as_ref(), data.as_ref());
        let deadline = Instant::now().checked_add(timeout);
        self.handle.shared.put(&entry, deadline.map_or(Patience::Endless, Patience::Until))
    }

    /// Sends what gathers without lingering, and waits until every record that was put before is resolved.
    ///
    /// # Errors
    ///
    /// The first error that a record met since the last flush, whether or not its handle told it too. Of several that wait at once, each is told of
    /// what it waits for.
    pub fn flush(&self) -> Result<()> {
        self.handle.shared.check_process()?;
        self.handle.shared.queue.flush()
    }

    /// Refuses further puts through any clone, those that wait for room included, and flushes. The stream stays open.
    ///
    /// Closing twice is fine.
    ///
    /// # Errors
    ///
    /// As [`flush`](Self::flush).
    pub fn close(self) -> Result<()> {
        self.handle.shared.check_process()?;
        self.handle.shared.queue.close()
    }

    /// What was put and is not resolved.
    pub fn in_flight(&self) -> InFlight {
        let Ok(()) = self.handle.shared.check_process() else { return InFlight::default() };
        self.handle.shared.queue.in_flight()
    }
}

impl fmt::Debug for BatchingProducer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchingProducer").field("stream", self.stream()).finish_non_exhaustive()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.shared.process.was_forked() {
            return; // its thread is not here
        }
        let _ = self.shared.queue.close(); // nobody is left to tell
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // a panic over there was reported over there
        }
    }
}

impl Shared {
    fn put(&self, entry: &PutEntry<'_>, patience: Patience) -> Result<Option<PutHandle>> {
        self.stream.check_entry(entry)?;
        self.queue.put(entry, patience)
    }

    /// In a copy that a fork made, nobody sends, and the queue may be locked for ever.
    fn check_process(&self) -> Result<()> {
        if self.process.was_forked() { Err(Error::Closed) } else { Ok(()) }
    }

    // ---- the thread ----

    fn send_all(&self) {
        while let Some(batch) = self.queue.next() {
            let outcomes = self.send(&batch);
            self.queue.resolve(batch, outcomes);
        }
    }

    /// One outcome for each record, whatever happens: a clock of the user's may panic.
    fn send(&self, batch: &Batch) -> Vec<Result<PutReceipt>> {
        caught(|| self.put_all(&batch.records().entries())).unwrap_or_else(|panic| {
            let fault = Fault::io("put to", self.stream.path())(io::Error::other(panic));
            vec![Err(Error::from(fault)); batch.records().len()]
        })
    }
}

impl Shared {
    /// Those that are over the stream's quotas are put again, in their order, when there is room.
    fn put_all(&self, entries: &[PutEntry<'_>]) -> Vec<Result<PutReceipt>> {
        let mut outcomes = self.stream.put_each_checked(entries, self.durability);
        while let Some(wait) = outcomes.iter().filter_map(throttled_for).min() {
            thread::sleep(wait.min(LOOK_AGAIN));
            let throttled = (0..entries.len()).filter(|index| throttled_for(&outcomes[*index]).is_some());
            let throttled: Vec<_> = throttled.collect();
            let again: Vec<_> = throttled.iter().map(|index| entries[*index]).collect();
            for (index, outcome) in
                throttled.into_iter().zip(self.stream.put_each_checked(&again, self.durability))
            {
                outcomes[index] = outcome;
            }
        }
        outcomes
    }
}

fn throttled_for(outcome: &Result<PutReceipt>) -> Option<Duration> {
    match outcome {
        Err(Error::ThroughputExceeded { retry_after, .. }) => Some(*retry_after),
        _ => None,
    }
}
