//! What queues need of a stream: a place for those that are open, their files, where reading starts, and a wait for records.

use crate::sync::atomic::Ordering;
use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use super::read::{FOLLOW_STEP, WAIT_STEP};
use super::{RecordsStart, ShardIterator, Stream, StreamInner};
use crate::error::{Error, Result};
use crate::queue_files::QueuesDirectory;
use crate::segment::Visibility;
use crate::types::{SequenceNumber, ShardId, ShardIteratorType};

/// A queue as the stream sees it, which keeps it from its first opening to the stream's end: so there is one in the process, and none of it is
/// written by anybody who came late.
pub(crate) trait OpenQueue: Any + Send + Sync {
    /// Writes what has changed since it was written last.
    fn keep(&self, files: &QueuesDirectory<'_>) -> Result<()>;

    /// As [`keep`](Self::keep), for the last time.
    fn close(&self, files: &QueuesDirectory<'_>) -> Result<()>;

    /// Nothing of it is written any more when this returns.
    fn forget(&self);
}

impl Stream {
    /// The queue of this name: the one that is open, or the one that `open` opens, if it does.
    pub(crate) fn open_queue<Q: OpenQueue>(
        &self,
        name: &str,
        open: impl FnOnce(&QueuesDirectory<'_>) -> Result<Option<Q>>,
    ) -> Result<Option<Arc<Q>>> {
        let inner = &self.inner;
        let mut queues = inner.queues.lock();
        inner.writable()?; // under the lock: who closes the stream has not seen the queues yet
        if let Some(queue) = queues.get(name) {
            let queue: Arc<dyn Any + Send + Sync> = Arc::<dyn OpenQueue>::clone(queue);
            return queue.downcast().map(Some).map_err(|_| Error::invalid("queue", "it is of another kind"));
        }
        let queue = open(&inner.queues_directory())?.map(Arc::new);
        if let Some(queue) = &queue {
            queues.insert(name.to_owned(), Arc::<Q>::clone(queue));
        }
        Ok(queue)
    }

    /// Whether the queue is open in this process.
    pub(crate) fn has_open_queue(&self, name: &str) -> Result<bool> {
        self.inner.writable()?;
        Ok(self.inner.queues.lock().contains_key(name))
    }

    /// Deletes a queue; whether there was one.
    pub(crate) fn delete_queue_file(&self, name: &str) -> Result<bool> {
        let inner = &self.inner;
        inner.writable()?; // before the lock, which a fork's copy may have from a parent that held it
        let mut queues = inner.queues.lock();
        inner.writable()?;
        if let Some(queue) = queues.remove(name) {
            queue.forget();
        }
        Ok(inner.queues_directory().delete(name)?)
    }

    pub(crate) fn queue_names(&self) -> Result<Vec<String>> {
        self.inner.not_closed()?;
        Ok(self.inner.queues_directory().list()?)
    }

    /// Makes durable where this queue stands.
    pub(crate) fn keep_queue(&self, queue: &impl OpenQueue) -> Result<()> {
        queue.keep(&self.inner.queues_directory())
    }

    /// The first number in a shard that a queue made now has to give, none of which a crash can take back.
    pub(crate) fn queue_start(&self, start: RecordsStart) -> Result<Vec<(ShardId, SequenceNumber)>> {
        let kind = match start {
            RecordsStart::TrimHorizon => ShardIteratorType::TrimHorizon,
            RecordsStart::Latest => ShardIteratorType::Latest,
            RecordsStart::AtTimestamp(time) => ShardIteratorType::AtTimestamp(time),
        };
        let mut places = Vec::new();
        for shard_id in self.listed_shards()? {
            match self.lasting_iterator(shard_id, kind) {
                Ok(iterator) => places.push((shard_id, iterator.next_sequence_number())),
                Err(Error::ShardNotFound(_)) => {} // expired since
                Err(error) => return Err(error),
            }
        }
        self.inner.sync_shards()?;
        Ok(places)
    }

    /// A reader that gives only what no crash can take back, however old it is: see [`horizon_of`](Self::horizon_of).
    pub(crate) fn durable_iterator(&self, shard_id: ShardId, next: SequenceNumber) -> Result<ShardIterator> {
        self.inner.not_closed()?;
        self.inner.refresh()?;
        let cursor = self.inner.cursor_behind(shard_id, ShardIteratorType::AtSequenceNumber(next), None)?;
        Ok(self.iterate(cursor).include_unsynced(false).uncounted())
    }

    /// The number of the next record of a shard, if it is listed.
    pub(crate) fn tail_of(&self, shard_id: ShardId) -> Result<Option<SequenceNumber>> {
        match self.shard_iterator(shard_id, ShardIteratorType::Latest) {
            Err(Error::ShardNotFound(_)) => Ok(None),
            other => Ok(Some(other?.next_sequence_number())),
        }
    }

    /// The oldest record of a shard that is not gone for good. Not above what is durable: after a power cut, other records have those numbers.
    pub(crate) fn horizon_of(&self, shard_id: ShardId) -> Result<SequenceNumber> {
        let horizon = self.inner.lasting_cursor(shard_id, ShardIteratorType::TrimHorizon)?;
        Ok(horizon.next().min(horizon.shard().next(Visibility::Durable)))
    }

    /// The number of a receipt: no other has it in this opening of the stream.
    pub(crate) fn next_receipt(&self) -> u64 {
        self.inner.receipts.fetch_add(1, Ordering::Relaxed)
    }

    /// The number of this writable opening: no other has it.
    pub(crate) fn incarnation(&self) -> u64 {
        self.inner.context.incarnation
    }

    /// Waits until something was appended, or [`wake_queues`](Self::wake_queues) was called, or for `timeout`, or for less.
    pub(crate) fn wait_for_news(&self, timeout: Duration, has_news: impl Fn() -> bool) {
        if self.inner.read_only {
            std::thread::sleep(timeout.min(FOLLOW_STEP)); // others append
        } else {
            self.inner.context.tail.wait_unless(timeout.min(WAIT_STEP), has_news);
        }
    }

    /// Lets those look who wait for a queue.
    pub(crate) fn wake_queues(&self) {
        self.inner.context.tail.ring();
    }
}

impl StreamInner {
    pub(super) fn queues_directory(&self) -> QueuesDirectory<'_> {
        QueuesDirectory {
            storage: self.context.storage.as_ref(),
            stream: &self.path,
            stream_id: self.context.stream_id,
        }
    }

    /// Makes durable where the queues stand.
    pub(super) fn keep_queues(&self) -> Result<()> {
        let queues: Vec<_> = self.queues.lock().values().map(Arc::clone).collect();
        let files = self.queues_directory();
        queues.iter().map(|queue| queue.keep(&files)).fold(Ok(()), Result::and) // all are tried
    }

    /// The same for the last time: called while the stream still has its lock. The queues' readers hold the stream, and are let go of.
    pub(super) fn close_queues(&self) -> Result<()> {
        let queues = std::mem::take(&mut *self.queues.lock());
        let files = self.queues_directory();
        queues.values().map(|queue| queue.close(&files)).fold(Ok(()), Result::and)
    }

    /// The stream's files are to go.
    pub(super) fn forget_queues(&self) {
        let queues = std::mem::take(&mut *self.queues.lock());
        for queue in queues.values() {
            queue.forget();
        }
    }
}
