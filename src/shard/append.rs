//! Appending: numbers, rolls, group commit. The protocol is told in the [room's documentation](super).

use std::sync::Arc;

use crate::sync::atomic::Ordering;
use crate::sync::{Mistake, MutexGuard, planted};

use super::{AppendState, Counters, Phase, Shard, ShardError};
use crate::format::{FrameInput, SealKind, SegmentHeader, frame_bytes};
use crate::limits::{MAX_PENDING_BYTES, SEGMENT_GROWTH, UNSYNCED_FACTOR};
use crate::segment::SegmentWriter;
use crate::trace::event;
use crate::types::{Durability, HashKey, SequenceNumber, Timestamp};

/// A record to append; validated before it gets here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AppendEntry<'a> {
    pub(crate) partition_key: &'a str,
    pub(crate) data: &'a [u8],
    pub(crate) explicit_hash_key: Option<HashKey>,
}

/// What an append got: the first of its consecutive numbers, and their time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Appended {
    pub(crate) first: SequenceNumber,
    pub(crate) arrival: Timestamp,
    /// Whether the shard opened a file for it: the caller tells [`OpenFiles`](super::OpenFiles).
    pub(crate) opened_file: bool,
}

impl Shard {
    /// Appends records as one batch: after a crash all are there or none is.
    ///
    /// When this returns, a `Buffered` batch is written. A `Synced` one is staged: it is acknowledged by a
    /// [`commit`](Self::commit) up to the number behind it.
    pub(crate) fn append<'a, I>(
        &self,
        entries: I,
        durability: Durability,
        expect_next: Option<SequenceNumber>,
    ) -> Result<Appended, ShardError>
    where
        I: ExactSizeIterator<Item = AppendEntry<'a>> + Clone,
    {
        let count = entries.len() as u64;
        let bytes: u64 = entries
            .clone()
            .map(|entry| frame_bytes(entry.explicit_hash_key, entry.partition_key, entry.data) as u64)
            .sum();
        let mut state = self.append.lock();
        let was_closed = state.writer.as_ref().is_none_or(SegmentWriter::is_parked);
        self.make_room(&mut state, bytes, count, expect_next)?;
        let mut appended = self.stage(&mut state, entries)?;
        if durability == Durability::Synced {
            state.groups.note_arrival();
        }
        appended.opened_file = was_closed;
        if durability == Durability::Buffered {
            let is_staged = state.writer.as_ref().is_some_and(SegmentWriter::has_slot);
            let early = planted(Mistake::AnnounceBeforeStaged);
            if is_staged && early {
                self.announce_staged();
            }
            if is_staged {
                self.note_written(state.next); // it survives the process: it is there for everybody
            } else {
                self.write_staged(&mut state)?;
            }
            self.limit_unsynced(&mut state)?;
            drop(state); // whoever is woken now takes the lock next
            if is_staged && !early {
                self.announce_staged();
            }
        }
        Ok(appended)
    }

    fn announce_staged(&self) {
        // Looked at behind a sequentially consistent store: either this sees the sleeper, or the sleeper sees the record.
        if self.tail.has_sleepers() || self.context.tail.has_sleepers() {
            self.announce();
        }
        let context = &self.context;
        if context.drains_rest.load(Ordering::SeqCst) && context.has_background {
            context.drains_rest.store(false, Ordering::SeqCst);
            context.flush.ask_to_look();
        }
    }

    fn stage<'a, I>(&self, state: &mut AppendState, entries: I) -> Result<Appended, ShardError>
    where
        I: ExactSizeIterator<Item = AppendEntry<'a>>,
    {
        let Some(writer) = state.writer.as_mut() else {
            return Err(ShardError::NotOpen); // `make_room` made one
        };
        let first = state.next;
        let arrival = self.context.clock.now().max(state.last_arrival);
        let durable = self.next(crate::segment::Visibility::Durable);
        let mut remaining = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        let mut bytes = 0;
        for entry in entries {
            remaining = remaining.saturating_sub(1);
            let staged = writer.stage(&FrameInput {
                sequence_number: state.next,
                arrival,
                durable,
                batch_remaining: remaining,
                explicit_hash_key: entry.explicit_hash_key,
                producer: None,
                partition_key: entry.partition_key,
                data: entry.data,
            });
            if let Err(fault) = staged {
                return Err(self.fail(state, fault));
            }
            state.next = state.next.next();
            bytes += entry.partition_key.len() + entry.data.len();
        }
        state.last_arrival = arrival;
        state.counted.puts += 1;
        state.counted.records += state.next.since(first);
        state.counted.bytes += bytes as u64;
        Ok(Appended { first, arrival, opened_file: false })
    }

    pub(super) fn write_staged(&self, state: &mut AppendState) -> Result<(), ShardError> {
        self.count_appended(state);
        if planted(Mistake::DrainedBeforeWritten) {
            self.note_drained(state.next);
        }
        let Some(writer) = state.writer.as_mut() else {
            return Ok(());
        };
        match writer.write_staged() {
            Ok(()) => {
                let next = writer.next();
                self.note_drained(next);
                self.announce();
                Ok(())
            }
            Err(fault) => Err(self.fail(state, fault)),
        }
    }

    /// Asks for a sync when much is unsynced, and does it itself when nobody else would or could keep up.
    fn limit_unsynced(&self, state: &mut MutexGuard<'_, AppendState>) -> Result<(), ShardError> {
        let unsynced = state.writer.as_ref().map_or(0, SegmentWriter::unsynced_bytes);
        let limit = self.context.options.flush_bytes;
        let is_far_ahead = unsynced >= limit.saturating_mul(UNSYNCED_FACTOR);
        if unsynced < limit || (state.committing && !is_far_ahead) {
            return Ok(());
        }
        if self.context.has_background && !is_far_ahead {
            self.context.flush.ask();
            return Ok(());
        }
        if state.committing {
            self.committed.wait(state); // a slow disk makes its writers wait
            return Ok(());
        }
        self.lead_commit(state)
    }

    /// Leaves with an active segment that has room for frames of this many bytes.
    fn make_room(
        &self,
        state: &mut MutexGuard<'_, AppendState>,
        bytes: u64,
        records: u64,
        expect_next: Option<SequenceNumber>,
    ) -> Result<(), ShardError> {
        loop {
            if let Some(failure) = &state.failure {
                return Err(ShardError::Failed(Arc::clone(failure)));
            }
            if state.phase != Phase::Open {
                return Err(ShardError::NotOpen);
            }
            // Before a roll: a segment that is made gets a record at once.
            if let Some(expected) = expect_next.filter(|expected| *expected != state.next) {
                return Err(ShardError::Mismatch { expected, actual: state.next });
            }
            let has_room = state.writer.as_ref().is_some_and(|writer| writer.has_room(bytes, records));
            let staged = state.writer.as_ref().map_or(0, SegmentWriter::staged_bytes);
            if has_room && staged < MAX_PENDING_BYTES {
                // Opened before anything is staged, so that a failure to open is only a refusal.
                state.writer.as_mut().map(SegmentWriter::open).transpose()?;
                return self.use_slot(state);
            }
            if state.committing && !planted(Mistake::RollDuringCommit) {
                self.committed.wait(state);
            } else if has_room {
                self.lead_commit(state)?;
            } else {
                return self.roll(state, bytes, records);
            }
        }
    }

    /// Sees to it that a `Buffered` shard stages in a slot, if there is one.
    fn use_slot(&self, state: &mut AppendState) -> Result<(), ShardError> {
        let context = &self.context;
        let Some(writer) = state.writer.as_mut() else {
            return Ok(());
        };
        if writer.has_slot() || context.options.durability != Durability::Buffered {
            return Ok(());
        }
        match context.staging.lend().map(|slot| writer.use_slot(slot)) {
            Some(Err(fault)) => Err(self.fail(state, fault)),
            _ => Ok(()),
        }
    }

    /// Puts a new segment in the place of the active one. A failure to create it leaves everything as it was.
    fn roll(&self, state: &mut AppendState, bytes: u64, records: u64) -> Result<(), ShardError> {
        self.write_staged(state)?;
        if state.writer.as_ref().is_some_and(SegmentWriter::is_empty) {
            self.retire_writer(state)?; // too small for the first batch: its name is needed
        }
        let context = &self.context;
        let file_bytes = state.next_file_bytes.max(SegmentWriter::file_bytes_for(bytes, records));
        let header = SegmentHeader {
            stream_id: context.stream_id,
            shard_id: self.id,
            incarnation: context.incarnation,
            first: state.next,
            created: context.clock.now(),
            file_bytes: file_bytes.next_multiple_of(8),
        };
        let successor = SegmentWriter::create(&context.storage, &self.directory, header)?;
        // Should it fail, the successor stays: the footer may be on the disk, and says that there is one.
        self.seal_rolled(state)?;
        self.segments.write().push_live(Arc::clone(successor.segment()));
        drop(state.writer.replace(successor)); // and with it, give its slot back
        state.next_file_bytes = file_bytes
            .saturating_mul(SEGMENT_GROWTH)
            .min(context.options.segment_bytes)
            .max(state.next_file_bytes);
        self.use_slot(state)
    }

    pub(super) fn seal_rolled(&self, state: &mut AppendState) -> Result<(), ShardError> {
        let Some(writer) = state.writer.as_mut() else {
            return Ok(());
        };
        match writer.seal(SealKind::Rolled) {
            Ok(_) => {
                let (first, next) = (writer.segment().first(), writer.next());
                self.segments.write().seal(first);
                self.note_durable(next);
                Counters::add(&self.context.counters.segments_rolled, 1);
                event!(debug, shard = %self.id, %first, %next, "segment rolled");
                self.tell(state);
                self.announce();
                Ok(())
            }
            Err(fault) => Err(self.fail(state, fault)),
        }
    }
}
