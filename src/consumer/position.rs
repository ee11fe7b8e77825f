//! Where a consumer stands.

use crate::format::{SlotState, StoredPosition};
use crate::segment::{Record, RecordRef};
use crate::stream::ShardSummary;
use crate::types::{SequenceNumber, ShardId, Timestamp};

/// Where a consumer stands in a shard, and who works on it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checkpoint {
    /// The shard.
    pub shard_id: ShardId,
    /// How far it is done.
    pub position: Position,
    /// The worker that has the shard.
    pub owner: Option<String>,
    /// How often the shard changed hands or was reset.
    pub epoch: u64,
}

/// How far a shard is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Position {
    /// Nothing is: it starts at the oldest record within retention.
    TrimHorizon,
    /// Nothing is: it starts at the first record that arrived at this time or later.
    AtTimestamp(Timestamp),
    /// Everything up to and including this record.
    After(RecordPosition),
    /// Everything, and nothing will come: the shard is closed.
    ShardEnd,
}

/// The trim horizon of a shard whose turn has come, by a reset: that retention took its front is known, and not to be said again. No record arrived before this time.
pub(super) const FRONT_GIVEN_UP: StoredPosition = StoredPosition::AtTimestamp(Timestamp::MIN);

/// Whether all of a shard is done, to the end that it has. What is stored may be an end that a power cut undid: the shard went on, and may have come to another.
pub(super) fn is_finished(shard: &ShardSummary, stored: StoredPosition) -> bool {
    matches!(stored, StoredPosition::ShardEnd { next, .. } if shard.end.is_some_and(|end| next >= end))
}

/// A record's place for all time, perhaps inside an aggregated record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RecordPosition {
    /// Its sequence number.
    pub sequence_number: SequenceNumber,
    /// The last part that is done, where a record holds several; none means all of it.
    pub sub_sequence_number: Option<u64>,
    /// Its [incarnation](Record::incarnation).
    pub incarnation: u64,
}

impl RecordPosition {
    /// The place of one part of the record.
    #[must_use]
    pub fn part(self, sub_sequence_number: u64) -> Self {
        Self { sub_sequence_number: Some(sub_sequence_number), ..self }
    }

    /// For comparison inside one incarnation: the whole record comes behind all of its parts.
    pub(crate) fn order(&self) -> (SequenceNumber, bool, u64) {
        (self.sequence_number, self.sub_sequence_number.is_none(), self.sub_sequence_number.unwrap_or(0))
    }

    /// The first number of which not everything is done.
    pub(super) fn next(&self) -> SequenceNumber {
        if self.sub_sequence_number.is_none() { self.sequence_number.next() } else { self.sequence_number }
    }

    pub(super) fn stored(self) -> StoredPosition {
        let Self { sequence_number, sub_sequence_number, incarnation } = self;
        StoredPosition::After { sequence_number, sub_sequence_number, incarnation }
    }
}

impl From<&Record> for RecordPosition {
    fn from(record: &Record) -> Self {
        let (sequence_number, incarnation) = (record.sequence_number(), record.incarnation());
        Self { sequence_number, sub_sequence_number: None, incarnation }
    }
}

impl From<RecordRef<'_>> for RecordPosition {
    fn from(record: RecordRef<'_>) -> Self {
        let (sequence_number, incarnation) = (record.sequence_number(), record.incarnation());
        Self { sequence_number, sub_sequence_number: None, incarnation }
    }
}

impl Checkpoint {
    pub(super) fn of(state: &SlotState) -> Self {
        Self {
            shard_id: state.shard_id,
            position: Position::of(state.position),
            owner: (!state.owner.is_empty()).then(|| state.owner.clone()),
            epoch: state.epoch,
        }
    }
}

impl Position {
    pub(super) fn of(stored: StoredPosition) -> Self {
        match stored {
            StoredPosition::TrimHorizon | FRONT_GIVEN_UP => Self::TrimHorizon,
            StoredPosition::AtTimestamp(time) => Self::AtTimestamp(time),
            StoredPosition::After { sequence_number, sub_sequence_number, incarnation } => {
                Self::After(RecordPosition { sequence_number, sub_sequence_number, incarnation })
            }
            StoredPosition::ShardEnd { .. } => Self::ShardEnd,
        }
    }
}
