//! What a handler is given and what it answers.

use std::fmt;

use super::windows::{Changes, ClosedWindow, StateKey, States, Window};
use crate::segment::Record;
use crate::types::{PartitionHash, SequenceNumber, ShardId};

/// What is done with the batches of an [`EventSource`](crate::EventSource). Called in several threads at a time, where there are several shards or lanes: never for two
/// batches of one lane.
///
/// A closure that takes a [`Batch`] is a handler.
pub trait BatchHandler: Sync {
    /// Handles a batch: all of it, or up to the record that its [failure](BatchFailure) names.
    ///
    /// A panic counts as a failure of the whole batch: what the handler itself was in the middle of is its own to mend.
    fn handle(&self, batch: &mut Batch<'_>) -> Result<(), BatchFailure>;

    /// Takes the states of a tumbling window that is over. Called for each shard, and for each lane, that had a state in the window; by default it does
    /// nothing, and the states are gone.
    ///
    /// It is tried again as a batch is. It may be called again for the same states after a crash, or when the shard changes hands: what it writes is best
    /// named by the window and the key.
    fn close_window(&self, closed: &ClosedWindow) -> Result<(), BatchFailure> {
        let _ = closed;
        Ok(())
    }
}

impl<F: Fn(&mut Batch<'_>) -> Result<(), BatchFailure> + Sync> BatchHandler for F {
    fn handle(&self, batch: &mut Batch<'_>) -> Result<(), BatchFailure> {
        self(batch)
    }
}

/// Why a batch failed, and from where on.
///
/// Every error converts to one that is about the whole batch, so that `?` may be used in a handler.
///
/// ```
/// # fn handle(batch: &mut anabranch::Batch<'_>) -> Result<(), anabranch::BatchFailure> {
/// use anabranch::BatchFailure;
///
/// for record in batch.records() {
///     let text = std::str::from_utf8(record.data()).map_err(|error| BatchFailure::at(record, error))?;
///     // ... what stands before the record is done, and does not come again
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchFailure {
    from: Option<SequenceNumber>,
    reason: String,
}

impl BatchFailure {
    /// All of the batch failed.
    pub fn new(reason: impl fmt::Display) -> Self {
        Self { from: None, reason: reason.to_string() }
    }

    /// This record failed; what stands before it in the batch is done. Of several records that failed, name the lowest.
    pub fn at(record: &Record, reason: impl fmt::Display) -> Self {
        Self::at_sequence_number(record.sequence_number(), reason)
    }

    /// As [`at`](Self::at), by the record's number. Where that is none of the batch's, all of it failed.
    pub fn at_sequence_number(number: SequenceNumber, reason: impl fmt::Display) -> Self {
        Self { from: Some(number), reason: reason.to_string() }
    }

    /// The record from which on the batch failed, if it was named.
    pub fn sequence_number(&self) -> Option<SequenceNumber> {
        self.from
    }

    /// What went wrong.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// How many of these records stand before it.
    pub(super) fn done_of(&self, records: &[Record]) -> usize {
        self.from.and_then(|number| place_of(records, number)).unwrap_or(0)
    }
}

impl<E: std::error::Error> From<E> for BatchFailure {
    fn from(error: E) -> Self {
        Self::new(error)
    }
}

/// Records of one shard, and of one lane of it, in order.
pub struct Batch<'a> {
    pub(super) shard_id: ShardId,
    pub(super) lane: u32,
    pub(super) attempt: u32,
    pub(super) records: &'a [Record],
    pub(super) window: Option<Window>,
    pub(super) states: &'a States,
    pub(super) hash: PartitionHash,
    pub(super) changes: Changes,
    /// What was done that cannot be.
    pub(super) misuse: Option<&'static str>,
    /// Takes what is written to a state that there is none of.
    scratch: Vec<u8>,
}

impl<'a> Batch<'a> {
    pub(super) fn new(
        (shard_id, lane): (ShardId, u32),
        attempt: u32,
        records: &'a [Record],
        (window, states): (Option<Window>, &'a States),
        hash: PartitionHash,
    ) -> Self {
        let (changes, scratch) = (Changes::default(), Vec::new());
        Self { shard_id, lane, attempt, records, window, states, hash, changes, misuse: None, scratch }
    }

    /// Their shard.
    pub fn shard_id(&self) -> ShardId {
        self.shard_id
    }

    /// Their lane in the shard, from 0.
    pub fn lane(&self) -> u32 {
        self.lane
    }

    /// How often these records were tried, this time included: 1 for the first. Of what is left of a batch that was cut, its earlier tries count, too.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The records: at least one.
    pub fn records(&self) -> &'a [Record] {
        self.records
    }

    /// The tumbling window that all of them arrived in, where the source has such.
    pub fn window(&self) -> Option<Window> {
        self.window
    }

    /// The state of a record's key in the window: empty where there is none.
    pub fn state(&self, record: &Record) -> &[u8] {
        let key = StateKey::of(record, self.hash);
        let changed = self.changes.get(&key).map(|change| &change.state);
        changed.or_else(|| self.states.get(&key)).map_or(&[], Vec::as_slice)
    }

    /// The same to be changed, on account of this record, which must be of this batch. A change counts once the batch is done; if it failed, the next try sees what was
    /// there before. An empty state is none.
    ///
    /// Of a batch that failed from a record on, what was changed on account of earlier ones counts. If a state was changed on account of that record or a later one,
    /// all of the batch has failed.
    ///
    /// Where the source has no tumbling windows there is no state: the batch fails then, as it does for a record of another batch.
    pub fn state_mut(&mut self, record: &Record) -> &mut Vec<u8> {
        let number = record.sequence_number();
        if self.window.is_none() {
            self.misuse = Some("a state was changed, and the source has no tumbling window");
            return &mut self.scratch;
        }
        if record.shard_id() != self.shard_id || place_of(self.records, number).is_none() {
            self.misuse = Some("a state was changed on account of a record that is not of the batch");
            return &mut self.scratch;
        }
        let key = StateKey::of(record, self.hash);
        let before = self.states.get(&key);
        self.changes.of(key, before, number)
    }
}

/// Where the record of this number stands.
pub(super) fn place_of(records: &[Record], number: SequenceNumber) -> Option<usize> {
    records.binary_search_by_key(&number, Record::sequence_number).ok()
}

impl fmt::Debug for Batch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("shard_id", &self.shard_id)
            .field("lane", &self.lane)
            .field("attempt", &self.attempt)
            .field("records", &self.records.len())
            .field("window", &self.window)
            .finish_non_exhaustive()
    }
}
