//! What consumers need of a stream: their files, where reading goes on behind a position, and that a position is not ahead of the data.

use std::sync::Arc;

use super::{RecordsStart, ShardIterator, Stream, StreamInner};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::format::{ConsumerHeader, SlotState, StoredPosition, WindowsSnapshot};
use crate::leases::{ConsumersDirectory, LeaseError, LeaseFile, WorkerClaim};
use crate::segment::Visibility;
use crate::shard::{Cursor, Done, Shard};
use crate::types::{Durability, SequenceNumber, ShardId, ShardIteratorType, StreamId};

impl Stream {
    /// The file of a consumer, which is made if need be: one for all handles in this process.
    pub(crate) fn lease_file(&self, name: &str, slots: impl FnOnce() -> Vec<SlotState>) -> Result<Arc<LeaseFile>> {
        let inner = &self.inner;
        inner.not_closed()?;
        let mut consumers = inner.consumers.lock();
        consumers.retain(|_, file| is_wanted(file));
        if let Some(file) = consumers.get(name) {
            match file.lock() {
                Ok(_) => return Ok(Arc::clone(file)),
                Err(LeaseError::Deleted) => {} // and perhaps made again
                Err(error) => return Err(error_of(name)(error)),
            }
        }
        let header = || ConsumerHeader {
            stream_id: inner.context.stream_id,
            file_id: super::open::draw_id(inner.context.clock.now(), &inner.path),
            created: inner.context.clock.now(),
            name: name.to_owned(),
            slots: 0, // known where they are made
        };
        let file = inner.consumers_directory().open_or_create(name, header, slots).map_err(error_of(name))?;
        let file = Arc::new(file);
        consumers.insert(name.to_owned(), Arc::clone(&file));
        Ok(file)
    }

    /// Claims the name of a worker until the claim is dropped; nothing if it is taken.
    pub(crate) fn claim_worker(&self, consumer: &str, worker: &str) -> Result<Option<WorkerClaim>> {
        self.inner.not_closed()?;
        let StreamInner { context, path, .. } = &**self.inner;
        WorkerClaim::take(&context.storage, path, context.stream_id, (consumer, worker))
            .map_err(error_of(consumer))
    }

    /// Keeps the windows that a child gets from a parent, durably, for a consumer.
    pub(crate) fn keep_windows(&self, consumer: &str, snapshot: &WindowsSnapshot) -> Result<()> {
        self.inner.not_closed()?;
        self.inner.consumers_directory().keep_windows(consumer, snapshot).map_err(error_of(consumer))
    }

    /// The windows that a child got from its parents. A split that a power cut undid may have left some to a shard of the same id.
    pub(crate) fn windows(&self, consumer: &str, file_id: u128, child: ShardId) -> Result<Vec<WindowsSnapshot>> {
        self.inner.not_closed()?;
        let mut found =
            self.inner.consumers_directory().windows(consumer, file_id, child).map_err(error_of(consumer))?;
        let topology = self.inner.topology();
        let parents =
            topology.shards.get(&child).map(|member| member.entry.parents.as_slice()).unwrap_or_default();
        found.retain(|snapshot| parents.contains(&snapshot.parent));
        Ok(found)
    }

    pub(crate) fn forget_windows(&self, consumer: &str, file_id: u128, children: &[ShardId]) -> Result<()> {
        self.inner.not_closed()?;
        self.inner.consumers_directory().forget_windows(consumer, file_id, children).map_err(error_of(consumer))
    }

    pub(crate) fn consumer_names(&self) -> Result<Vec<String>> {
        self.inner.not_closed()?;
        Ok(self.inner.consumers_directory().list()?)
    }

    /// Deletes a consumer; whether there was one.
    pub(crate) fn delete_lease_file(&self, name: &str) -> Result<bool> {
        self.inner.not_closed()?;
        let mut consumers = self.inner.consumers.lock();
        let was_there = self.inner.consumers_directory().delete(name).map_err(error_of(name))?;
        consumers.remove(name); // not before: whoever holds one that could not be deleted goes on with it
        Ok(was_there)
    }

    pub(crate) fn stream_id(&self) -> StreamId {
        self.inner.context.stream_id
    }

    pub(crate) fn expect_open(&self) -> Result<()> {
        self.inner.not_closed()
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        self.inner.context.clock.as_ref()
    }

    pub(crate) fn flush_interval(&self) -> std::time::Duration {
        self.inner.context.options.flush_interval
    }

    /// The shards that are listed now.
    pub(crate) fn listed_shards(&self) -> Result<Vec<ShardId>> {
        self.inner.not_closed()?;
        self.inner.refresh()?;
        Ok(self.inner.topology().shards.keys().copied().collect())
    }

    pub(crate) fn expect_listed(&self, shard_id: ShardId) -> Result<()> {
        self.inner.not_closed()?;
        self.inner.refresh()?;
        self.inner.member(shard_id).map(drop)
    }

    /// Where a consumer begins that has done nothing of a shard, or, with [`RecordsStart::Latest`], wants nothing of what is there.
    pub(crate) fn starting_position(&self, shard_id: ShardId, start: RecordsStart) -> Result<StoredPosition> {
        match start {
            RecordsStart::TrimHorizon => Ok(StoredPosition::TrimHorizon),
            RecordsStart::AtTimestamp(time) => Ok(StoredPosition::AtTimestamp(time)),
            RecordsStart::Latest => self.inner.look(|| self.inner.latest(shard_id)),
        }
    }

    /// A reader of everything but what is done. No leap of the clock hides anything from it: what follows is checkpointed, and with it what is below.
    pub(crate) fn iterator_behind(&self, shard_id: ShardId, position: StoredPosition) -> Result<ShardIterator> {
        self.inner.not_closed()?;
        let done = match position {
            StoredPosition::TrimHorizon => return self.lasting_iterator(shard_id, ShardIteratorType::TrimHorizon),
            StoredPosition::AtTimestamp(time) => {
                return self.lasting_iterator(shard_id, ShardIteratorType::AtTimestamp(time));
            }
            StoredPosition::After { sequence_number, sub_sequence_number, incarnation } => {
                let whole = sub_sequence_number.is_none();
                Done { next: if whole { sequence_number.next() } else { sequence_number }, incarnation }
            }
            StoredPosition::ShardEnd { next, incarnation } => Done { next, incarnation },
        };
        self.inner.refresh()?;
        let cutoff = self.inner.believed_cutoff();
        let cursor = self.inner.look(|| {
            let shard = self.inner.refreshed(shard_id)?;
            Cursor::behind(shard, done, self.inner.visibility(), cutoff).map_err(Error::of_shard(shard_id))
        })?;
        Ok(self.iterate(cursor))
    }

    /// The first record that may not have been done, though everything below `next` was when it was written: see [`Done`].
    pub(crate) fn resume(
        &self,
        shard_id: ShardId,
        next: SequenceNumber,
        incarnation: u64,
    ) -> Result<SequenceNumber> {
        self.inner.look(|| Ok(self.inner.refreshed(shard_id)?.resume(Done { next, incarnation })?))
    }

    /// The incarnation of a record, for a position that was given by its number alone.
    pub(crate) fn incarnation_of(&self, shard_id: ShardId, number: SequenceNumber) -> Result<u64> {
        let found = self.inner.look(|| Ok(self.inner.refreshed(shard_id)?.incarnation_of(number)?))?;
        // Nothing that is left starts at or below it: whichever it was, nothing will have to be read again.
        Ok(found.unwrap_or(self.inner.context.incarnation))
    }

    /// The number behind the last record of a closed shard.
    pub(crate) fn end_of(&self, shard_id: ShardId) -> Result<Option<SequenceNumber>> {
        if let Some(end) = self.inner.member(shard_id)?.shard.end() {
            return Ok(Some(end));
        }
        self.inner.refresh()?;
        self.inner.look(|| Ok(self.inner.refreshed(shard_id)?.end()))
    }

    /// Sees to it that a position which is to be stored is not ahead of the data: its record is there, and durable where puts are.
    pub(crate) fn hold_data(&self, shard_id: ShardId, number: SequenceNumber) -> Result<()> {
        let next = number.next();
        let shard = self.inner.member(shard_id)?.shard;
        if self.inner.context.options.durability == Durability::Synced && !self.inner.read_only {
            self.expect_written(&shard, next)?;
            return shard.commit(next).map_err(Error::of_shard(shard_id));
        }
        self.expect_written(&shard, next)
    }

    fn expect_written(&self, shard: &Arc<Shard>, next: SequenceNumber) -> Result<()> {
        // In a read-only process nothing can be made durable: what is not is not there yet.
        let visibility = if self.inner.read_only { self.inner.visibility() } else { Visibility::Written };
        if shard.next(visibility) < next {
            self.inner.look(|| self.inner.refresh_shard(shard))?;
        }
        let tail = shard.next(visibility);
        if next <= tail {
            return Ok(());
        }
        let requested = next.previous().unwrap_or_default();
        Err(Error::BeyondTail { shard_id: shard.id(), requested, next: tail })
    }
}

impl StreamInner {
    pub(super) fn consumers_directory(&self) -> ConsumersDirectory<'_> {
        ConsumersDirectory {
            storage: self.context.storage.as_ref(),
            stream: &self.path,
            stream_id: self.context.stream_id,
        }
    }

    /// Makes the checkpoints that were made in this process durable.
    pub(super) fn sync_consumers(&self) -> Result<()> {
        let consumers = self.consumers.lock().clone();
        let sync = |(name, file): (String, Arc<LeaseFile>)| match file.sync() {
            Ok(()) => Ok(()),
            Err(LeaseError::Deleted) => {
                self.let_go(&name, &file);
                Ok(())
            }
            Err(error) => Err(error_of(&name)(error)),
        };
        let outcome = consumers.into_iter().map(sync).fold(Ok(()), Result::and); // all are tried
        self.consumers.lock().retain(|_, file| is_wanted(file));
        outcome
    }

    /// Of a consumer that was deleted, by whatever process, nothing is synced any more. Another one may have its name by now.
    fn let_go(&self, name: &str, deleted: &Arc<LeaseFile>) {
        let mut consumers = self.consumers.lock();
        if consumers.get(name).is_some_and(|file| Arc::ptr_eq(file, deleted)) {
            consumers.remove(name);
        }
    }

    fn refreshed(&self, shard_id: ShardId) -> Result<Arc<Shard>> {
        let shard = self.member(shard_id)?.shard;
        self.refresh_shard(&shard)?;
        Ok(shard)
    }

    fn latest(&self, shard_id: ShardId) -> Result<StoredPosition> {
        let shard = self.refreshed(shard_id)?;
        let next = shard.end().unwrap_or_else(|| shard.next(self.visibility()));
        let Some(sequence_number) = next.previous() else {
            return Ok(StoredPosition::TrimHorizon);
        };
        let incarnation = shard.incarnation_of(sequence_number)?.unwrap_or(self.context.incarnation);
        Ok(match shard.end() {
            Some(next) => StoredPosition::ShardEnd { next, incarnation },
            None => StoredPosition::After { sequence_number, sub_sequence_number: None, incarnation },
        })
    }
}

/// Whether somebody holds the consumer, or left checkpoints that the next flush has to make durable.
fn is_wanted(file: &Arc<LeaseFile>) -> bool {
    Arc::strong_count(file) > 1 || file.has_unsynced()
}

/// For `map_err`: says which consumer it is.
pub(crate) fn error_of(name: &str) -> impl FnOnce(LeaseError) -> Error {
    move |error| match error {
        LeaseError::Fault(fault) => fault.into(),
        LeaseError::Deleted => Error::ConsumerNotFound(name.to_owned()),
        LeaseError::Busy(path) => Error::Locked(path),
        LeaseError::Full => Error::invalid(
            "consumer",
            format!("{name:?}; a stream has at most MAX_CONSUMERS, and a consumer MAX_CONSUMER_SLOTS shards"),
        ),
    }
}
