//! The right to move a consumer's position in one shard.

use std::fmt;

use super::{Consumer, Level, RecordPosition, released};
use crate::error::{Error, Result};
use crate::format::{SlotState, StoredPosition};
use crate::stream::ShardIterator;
use crate::types::{SequenceNumber, ShardId};

/// A shard of a consumer, taken by a worker; see [`Consumer::take`]. It is over when somebody else takes the shard, or the consumer is reset: each call
/// that would change something then gives [`Error::LeaseLost`] and changes nothing.
pub struct Lease {
    consumer: Consumer,
    shard_id: ShardId,
    owner: String,
    epoch: u64,
}

impl Lease {
    pub(super) fn new(consumer: Consumer, state: &SlotState) -> Self {
        Self { consumer, shard_id: state.shard_id, owner: state.owner.clone(), epoch: state.epoch }
    }

    /// The shard.
    pub fn shard_id(&self) -> ShardId {
        self.shard_id
    }

    /// Who took it.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// Rises with every change of hands, for all time: a fencing token for what the worker writes elsewhere.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// A reader of what is not done; see [`Consumer::iterator`].
    pub fn iterator(&self) -> Result<ShardIterator> {
        self.consumer.iterator(self.shard_id)
    }

    /// Everything up to and including this record is done; or, with [`RecordPosition::part`], up to a part of it. Durable at the stream's level when
    /// this returns, and never ahead of the data: on a `Synced` stream the record is made durable first.
    ///
    /// A failure with [`ErrorKind::Io`](crate::ErrorKind::Io) has an unknown outcome, as that of a put: the next checkpoint decides.
    ///
    /// # Errors
    ///
    /// [`Error::LeaseLost`]; [`Error::BehindCheckpoint`] for a place before the checkpoint in force; [`Error::BeyondTail`] for a record that is
    /// not there, or, in a read-only process of a `Synced` stream, not durable yet; and those of [`Consumer::checkpoint`].
    pub fn checkpoint(&self, done: impl Into<RecordPosition>) -> Result<()> {
        let done = done.into();
        self.consumer.inner.stream.expect_open()?;
        self.consumer.inner.stream.hold_data(self.shard_id, done.sequence_number)?;
        self.store(|state| {
            self.expect_ahead(state.position, done)?;
            Ok(SlotState { position: done.stored(), ..state })
        })
    }

    /// As [`checkpoint`](Self::checkpoint), by the record's number alone.
    pub fn checkpoint_at(&self, sequence_number: SequenceNumber) -> Result<()> {
        let stream = &self.consumer.inner.stream;
        stream.expect_open()?;
        stream.hold_data(self.shard_id, sequence_number)?; // and only then is it somewhere
        let incarnation = stream.incarnation_of(self.shard_id, sequence_number)?;
        self.checkpoint(RecordPosition { sequence_number, sub_sequence_number: None, incarnation })
    }

    /// The shard was read to its end, and all of it is done: its children may be begun.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for a shard that is open, which has no end; otherwise as [`checkpoint`](Self::checkpoint).
    pub fn checkpoint_end(&self) -> Result<()> {
        let stream = &self.consumer.inner.stream;
        stream.expect_open()?;
        let Some(next) = stream.end_of(self.shard_id)? else {
            return Err(Error::invalid("checkpoint", format!("{} is open, and has no end yet", self.shard_id)));
        };
        let incarnation = match next.previous() {
            Some(last) => stream.incarnation_of(self.shard_id, last)?,
            None => 0,
        };
        let position = StoredPosition::ShardEnd { next, incarnation };
        self.store(|state| Ok(SlotState { position, ..state }))
    }

    /// As [`checkpoint_end`](Self::checkpoint_end), for who read the shard to this end before it expired, if it did: its children go on behind it all the same.
    pub(crate) fn checkpoint_end_at(&self, next: SequenceNumber) -> Result<()> {
        match self.checkpoint_end() {
            Err(Error::ShardNotFound(_)) => {
                let position = StoredPosition::ShardEnd { next, incarnation: 0 }; // nothing is left that could be of a later one
                self.store(|state| Ok(SlotState { position, ..state }))
            }
            other => other,
        }
    }

    /// Gives the shard back: nobody has it. The position stays.
    pub fn release(self) -> Result<()> {
        self.store(|state| released(&state))
    }

    /// That nobody else took the shard, and the consumer was not reset.
    pub(super) fn expect_in_force(&self) -> Result<()> {
        let state = self.consumer.stored(self.shard_id)?.ok_or(Error::ShardNotFound(self.shard_id))?;
        self.expect_held(&state)
    }

    fn store(&self, change: impl FnOnce(SlotState) -> Result<SlotState>) -> Result<()> {
        self.change(self.consumer.level(), change)
    }

    /// Changes what is stored of the shard, if this lease is still the one in force.
    pub(super) fn change(&self, level: Level, change: impl FnOnce(SlotState) -> Result<SlotState>) -> Result<()> {
        let changed = self.consumer.change(self.shard_id, level, |state| {
            self.expect_held(&state)?;
            change(state)
        });
        changed.map(drop)
    }

    fn expect_held(&self, state: &SlotState) -> Result<()> {
        if state.epoch == self.epoch {
            return Ok(());
        }
        let owner = (!state.owner.is_empty()).then(|| state.owner.clone());
        Err(Error::LeaseLost { shard_id: self.shard_id, epoch: self.epoch, current: state.epoch, owner })
    }

    /// A position may go back only to records that took the place of those that were done, after a power cut.
    fn expect_ahead(&self, stored: StoredPosition, done: RecordPosition) -> Result<()> {
        let in_force = match stored {
            StoredPosition::TrimHorizon | StoredPosition::AtTimestamp(_) => return Ok(()),
            StoredPosition::After { sequence_number, sub_sequence_number, incarnation } => {
                RecordPosition { sequence_number, sub_sequence_number, incarnation }
            }
            StoredPosition::ShardEnd { next, incarnation } => RecordPosition {
                sequence_number: next.previous().unwrap_or_default(),
                sub_sequence_number: None,
                incarnation,
            },
        };
        if done.order() >= in_force.order() {
            return Ok(());
        }
        let stream = &self.consumer.inner.stream;
        let replaced = done.incarnation > in_force.incarnation
            && done.sequence_number >= stream.resume(self.shard_id, in_force.next(), in_force.incarnation)?;
        if replaced {
            return Ok(());
        }
        Err(Error::BehindCheckpoint {
            shard_id: self.shard_id,
            requested: done.sequence_number,
            checkpoint: in_force.sequence_number,
        })
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("consumer", &self.consumer.name())
            .field("shard_id", &self.shard_id)
            .field("owner", &self.owner)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}
