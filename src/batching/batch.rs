//! Records that are sent together, and what became of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::storage::Process;
use crate::stream::{EntryBuffer, PutEntry, PutReceipt};
use crate::sync::{Door, OnceLock};

/// Records that are sent together.
#[derive(Debug)]
pub(super) struct Batch {
    records: EntryBuffer,
    fate: Arc<Fate>,
}

impl Batch {
    pub(super) fn new(process: Process) -> Self {
        Self { records: EntryBuffer::default(), fate: Arc::new(Fate::new(process)) }
    }

    /// Takes a copy of a record.
    pub(super) fn push(&mut self, entry: &PutEntry<'_>) -> PutHandle {
        let handle = PutHandle { fate: Arc::clone(&self.fate), index: self.records.len() };
        self.records.push(entry);
        handle
    }

    pub(super) fn records(&self) -> &EntryBuffer {
        &self.records
    }

    /// Tells every handle what became of its record. There is one outcome for each record.
    pub(super) fn resolve(&self, outcomes: Vec<Result<PutReceipt>>) {
        let _ = self.fate.outcomes.set(outcomes); // a batch is resolved once
        self.fate.resolved.open();
    }

    /// The same memory for the next batch, unless one large record has made it much longer than batches are.
    pub(super) fn reuse(mut self, batch_bytes: usize) -> Option<Self> {
        if self.records.capacity() > batch_bytes.saturating_mul(4) {
            return None;
        }
        self.records.clear();
        self.fate = Arc::new(Fate::new(self.fate.process));
        Some(self)
    }
}

/// What became of a batch. All its handles share it; it outlives the batch's bytes.
#[derive(Debug)]
struct Fate {
    outcomes: OnceLock<Vec<Result<PutReceipt>>>,
    resolved: Door,
    /// The one in which somebody will resolve it.
    process: Process,
}

impl Fate {
    fn new(process: Process) -> Self {
        Self { outcomes: OnceLock::new(), resolved: Door::default(), process }
    }

    fn of(&self, index: usize) -> Option<Result<PutReceipt>> {
        match self.outcomes.get() {
            Some(outcomes) => Some(outcomes.get(index).cloned().unwrap_or(Err(Error::Closed))),
            None if self.process.was_forked() => Some(Err(Error::Closed)), // nobody here will send it
            None => None,
        }
    }
}

/// A record that was put to a [`BatchingProducer`](super::BatchingProducer): resolves to its receipt or to its error. Clones resolve to
/// the same, in any thread, as often as they are asked.
///
/// Dropping it loses nothing: the record is sent all the same, and [`flush`](super::BatchingProducer::flush) tells of an error. A handle that is kept
/// keeps the receipts of its batch, some 100 bytes a record, not the records.
#[derive(Debug, Clone)]
pub struct PutHandle {
    fate: Arc<Fate>,
    index: usize,
}

impl PutHandle {
    /// Waits until the record is acknowledged at its level, or is known to have failed.
    ///
    /// Waiting does not hasten it: the record may linger as long as the producer was told to let it.
    ///
    /// # Errors
    ///
    /// Those of [`Stream::put`](crate::Stream::put) that concern this record.
    pub fn wait(&self) -> Result<PutReceipt> {
        loop {
            let ticket = self.fate.resolved.ticket();
            if let Some(outcome) = self.fate.of(self.index) {
                return outcome;
            }
            self.fate.resolved.wait(ticket);
        }
    }

    /// Waits for `timeout` at most. Nothing where the record is not resolved by then.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<Option<PutReceipt>> {
        let Some(deadline) = Instant::now().checked_add(timeout) else {
            return self.wait().map(Some); // for longer than there is time
        };
        loop {
            let ticket = self.fate.resolved.ticket();
            if let Some(outcome) = self.fate.of(self.index) {
                return outcome.map(Some);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.fate.resolved.wait_for(ticket, left);
        }
    }

    /// What became of the record, if that is known; waits for nothing.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub fn try_wait(&self) -> Result<Option<PutReceipt>> {
        self.fate.of(self.index).transpose()
    }
}
