//! The asynchronous face: readers that are woken by the log, puts that are acknowledged later. Nothing here knows a runtime, starts a thread or
//! keeps a timer.
//!
//! A reader that found nothing leaves its waker where threads leave themselves, and whoever appends wakes both alike. A durable put is appended at once, and the stream's
//! background thread is asked for a commit: the same that threads share.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_core::Stream as FuturesStream;

use super::{PutBatchOptions, PutEntry, PutOptions, PutReceipt, Records, ShardIterator, Stream, StreamInner};
use crate::error::{Error, Result};
use crate::segment::Record;
use crate::shard::{Shard, TaskId};
use crate::storage::Process;
use crate::types::SequenceNumber;

/// A task that always finds a record gives way after so many.
const RECORDS_IN_A_ROW: u32 = 256;

impl Stream {
    /// Puts a record, and gives a future of its acknowledgement: as [`put_with`](Self::put_with), but it does not wait for the commit.
    ///
    /// The record is appended when this returns, in the order of the calls, and is committed whether the future is polled, dropped or neither: only the answer can be lost.
    /// All who put to the same shard, threads and tasks alike, share the commits. On a stream without a
    /// background thread ([`StreamBuilder::background`](crate::StreamBuilder::background)) nobody else would commit, so that it is done here.
    ///
    /// It may block as long as making a segment takes, when the last one is full.
    ///
    /// ```
    /// # fn main() -> anabranch::Result<()> {
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let stream = anabranch::Stream::builder().open(directory.path().join("clicks"))?;
    /// # let run = async {
    /// let receipts = [stream.put_async("user-1", b"GET /"), stream.put_async("user-2", b"GET /cart")];
    /// for receipt in receipts {
    ///     println!("{}", receipt.await?.sequence_number); // durable now; one sync served both
    /// }
    /// # anabranch::Result::Ok(())
    /// # };
    /// # smol::block_on(run)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn put_async(&self, partition_key: impl AsRef<str>, data: impl AsRef<[u8]>) -> PutFuture {
        self.put_async_with(partition_key, data, PutOptions::new())
    }

    /// As [`put_async`](Self::put_async), with an explicit hash key, a stronger durability, or a condition.
    pub fn put_async_with(
        &self,
        partition_key: impl AsRef<str>,
        data: impl AsRef<[u8]>,
        options: PutOptions,
    ) -> PutFuture {
        let entry = PutEntry {
            partition_key: partition_key.as_ref(),
            data: data.as_ref(),
            explicit_hash_key: options.explicit_hash_key,
        };
        let mut waits = Vec::new();
        let outcome = self.inner.append_one(&entry, options, |shard, next| {
            waits.push((Arc::clone(shard), next));
            Ok(())
        });
        PutFuture(Acknowledgement::new(&self.inner.0, outcome, waits))
    }

    /// Puts a batch, and gives a future of its acknowledgement: [`put_batch_with`](Self::put_batch_with), as [`put_async`](Self::put_async) is [`put`](Self::put).
    pub fn put_batch_async(
        &self,
        entries: &[PutEntry<'_>],
        options: impl Into<PutBatchOptions>,
    ) -> PutBatchFuture {
        let (outcome, waits) = self.inner.append_batch(entries, options.into());
        PutBatchFuture(Acknowledgement::new(&self.inner.0, outcome, waits))
    }
}

/// The acknowledgement of a put; made by [`Stream::put_async`]. Dropping it does not take the record back.
#[must_use = "whether the record is durable is not known before this is awaited"]
pub struct PutFuture(Acknowledgement<PutReceipt>);

/// The acknowledgement of a batch; made by [`Stream::put_batch_async`]. Dropping it does not take the records back.
#[must_use = "whether the records are durable is not known before this is awaited"]
pub struct PutBatchFuture(Acknowledgement<Vec<PutReceipt>>);

impl Future for PutFuture {
    type Output = Result<PutReceipt>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(context.waker())
    }
}

impl Future for PutBatchFuture {
    type Output = Result<Vec<PutReceipt>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(context.waker())
    }
}

impl fmt::Debug for PutFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PutFuture").finish_non_exhaustive()
    }
}

impl fmt::Debug for PutBatchFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PutBatchFuture").finish_non_exhaustive()
    }
}

/// What was appended, and the commits that it waits for.
struct Acknowledgement<T> {
    outcome: Option<Result<T>>,
    waits: Vec<(Arc<Shard>, SequenceNumber)>,
    task: TaskId,
    /// In a copy that a fork made nobody is woken, and a lock may be held for ever.
    process: Process,
}

impl<T> Acknowledgement<T> {
    fn new(stream: &StreamInner, outcome: Result<T>, waits: Vec<(Arc<Shard>, SequenceNumber)>) -> Self {
        let (outcome, task) = (Some(outcome), stream.context.new_task());
        let mut acknowledgement = Self { outcome, waits, task, process: Process::this() };
        if stream.context.has_background {
            for (shard, _) in &acknowledgement.waits {
                shard.want_commit();
            }
        } else {
            acknowledgement.commit_here();
        }
        acknowledgement
    }

    fn commit_here(&mut self) {
        for (shard, end) in self.waits.drain(..) {
            let committed = shard.commit(end).map_err(Error::of_shard(shard.id()));
            note(&mut self.outcome, committed);
        }
    }

    fn poll(&mut self, waker: &Waker) -> Poll<Result<T>> {
        if self.process.was_forked() {
            return Poll::Ready(Err(Error::Closed));
        }
        while let Some((shard, end)) = self.waits.last() {
            match shard.committed(*end) {
                Some(committed) => {
                    note(&mut self.outcome, committed.map_err(Error::of_shard(shard.id())));
                    shard.forget(self.task);
                    self.waits.pop();
                }
                None if shard.watch_commit(self.task, waker, *end) => {} // it came meanwhile
                None => return Poll::Pending,
            }
        }
        // Polled again after it was ready, which nobody should, it says that there is nothing.
        Poll::Ready(self.outcome.take().unwrap_or(Err(Error::Closed)))
    }
}

/// Of several errors the first is told.
fn note<T>(outcome: &mut Option<Result<T>>, committed: Result<()>) {
    if let (Some(Ok(_)), Err(error)) = (&outcome, committed) {
        *outcome = Some(Err(error));
    }
}

impl<T> Drop for Acknowledgement<T> {
    fn drop(&mut self) {
        if let Some((shard, _)) = self.waits.last().filter(|_| !self.process.was_forked()) {
            shard.forget(self.task);
        }
    }
}

// All fields are plain values: nothing is pinned inside.
impl<T> Unpin for Acknowledgement<T> {}

impl Records {
    /// The records as they come, for tasks: as [`follow`](Self::follow), woken by whoever appends.
    ///
    /// It ends, when the stream is closed, behind the last record that is there. Dropping it loses nothing: records are
    /// given when they are polled for, and [`RecordsStream::into_inner`] gives the reader back, where it is. Reading maps files and may wait for the disk; a task
    /// that always finds records gives way after 256.
    ///
    /// On a read-only stream nobody of this process appends: a thread, one for all such readers of the stream, has them look at the files every millisecond as long as
    /// they wait.
    pub fn into_stream(self) -> RecordsStream {
        let task = self.stream().context.new_task();
        let waiting = Waiting::new(At::Stream(Arc::clone(self.stream())), task);
        RecordsStream { records: self, waiting }
    }
}

impl ShardIterator {
    /// The records of the shard as they come, for tasks: as [`follow`](Self::follow), woken by whoever appends to the shard. It ends at the end of a closed shard, or when the
    /// stream is closed; else as [`Records::into_stream`].
    pub fn into_stream(self) -> ShardStream {
        let stream = Arc::clone(self.stream());
        let task = stream.context.new_task();
        let at = if stream.read_only { At::Stream(stream) } else { At::Shard(Arc::clone(self.cursor().shard())) };
        ShardStream { iterator: self, waiting: Waiting::new(at, task) }
    }
}

/// The records of a whole stream as they come; made by [`Records::into_stream`].
pub struct RecordsStream {
    records: Records,
    waiting: Waiting,
}

/// The records of a shard as they come; made by [`ShardIterator::into_stream`].
pub struct ShardStream {
    iterator: ShardIterator,
    waiting: Waiting,
}

impl RecordsStream {
    /// The reader, where it is now.
    pub fn into_inner(self) -> Records {
        self.records
    }
}

impl ShardStream {
    /// The reader, where it is now.
    pub fn into_inner(self) -> ShardIterator {
        self.iterator
    }
}

impl FuturesStream for RecordsStream {
    type Item = Result<Record>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { records, waiting } = &mut *self;
        waiting.poll(records, context.waker())
    }
}

impl FuturesStream for ShardStream {
    type Item = Result<Record>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { iterator, waiting } = &mut *self;
        waiting.poll(iterator, context.waker())
    }
}

impl fmt::Debug for RecordsStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RecordsStream").field(&self.records).finish()
    }
}

impl fmt::Debug for ShardStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ShardStream").field(&self.iterator).finish()
    }
}

/// What a reader has to tell a task that waits for it.
trait Reader {
    fn next(&mut self) -> Result<Option<Record>>;

    /// Whether all is read and nothing will follow; `is_closed` is what the stream was before the last look for records.
    fn is_over(&self, is_closed: bool) -> bool;

    /// Whether there may be more than there was at the last look.
    fn has_news(&self) -> bool;
}

impl Reader for Records {
    fn next(&mut self) -> Result<Option<Record>> {
        self.next_record()
    }

    fn is_over(&self, is_closed: bool) -> bool {
        is_closed
    }

    fn has_news(&self) -> bool {
        self.has_news()
    }
}

impl Reader for ShardIterator {
    fn next(&mut self) -> Result<Option<Record>> {
        self.next_record()
    }

    fn is_over(&self, is_closed: bool) -> bool {
        is_closed || self.cursor().is_at_end()
    }

    fn has_news(&self) -> bool {
        self.cursor().has_news() || self.cursor().shard().is_shut()
    }
}

/// Where a reader is woken.
enum At {
    Shard(Arc<Shard>),
    Stream(Arc<StreamInner>),
}

/// A task that waits for a reader's next record.
struct Waiting {
    at: At,
    task: TaskId,
    in_a_row: u32,
    /// As in an [`Acknowledgement`].
    process: Process,
}

impl Waiting {
    fn new(at: At, task: TaskId) -> Self {
        Self { at, task, in_a_row: 0, process: Process::this() }
    }

    fn poll(&mut self, reader: &mut impl Reader, waker: &Waker) -> Poll<Option<Result<Record>>> {
        if self.process.was_forked() {
            return Poll::Ready(None); // as of a stream that is closed
        }
        if self.in_a_row >= RECORDS_IN_A_ROW {
            self.in_a_row = 0;
            waker.wake_by_ref();
            return Poll::Pending;
        }
        loop {
            let is_closed = self.is_closed(); // looked at first: what was added before is found
            match reader.next() {
                Ok(Some(record)) => {
                    self.in_a_row += 1;
                    return Poll::Ready(Some(Ok(record)));
                }
                Err(error) => return Poll::Ready(Some(Err(error))),
                Ok(None) if reader.is_over(is_closed) => return Poll::Ready(None),
                Ok(None) => {}
            }
            self.in_a_row = 0;
            match self.watch(waker, || reader.has_news()) {
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }

    fn is_closed(&self) -> bool {
        match &self.at {
            At::Shard(shard) => shard.is_shut(),
            At::Stream(stream) => stream.is_closed(),
        }
    }

    fn watch(&self, waker: &Waker, has_news: impl Fn() -> bool) -> Result<bool> {
        match &self.at {
            At::Shard(shard) => Ok(shard.watch(self.task, waker, has_news)),
            At::Stream(stream) => {
                let news = stream.context.tail.watch(self.task, waker, || has_news() || stream.is_closed());
                stream.look_for_tasks()?;
                Ok(news)
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.process.was_forked() {
            return;
        }
        match &self.at {
            At::Shard(shard) => shard.forget(self.task),
            At::Stream(stream) => stream.context.tail.forget(self.task),
        }
    }
}
