//! Appending: numbers, rolls, group commit. The protocol is told in the [room's documentation](super).

use std::sync::Arc;

use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mistake, MutexGuard, planted};

use super::{AppendState, Counters, Phase, Producers, Shard, ShardError};
use crate::format::{
    FrameInput, ProducerPart, ProducerStamp, STAMP_BYTES, SealKind, SegmentHeader, frame_bytes, segment_name,
};
use crate::limits::{MAX_PENDING_BYTES, SEGMENT_GROWTH, UNSYNCED_FACTOR};
use crate::segment::{NotCreated, SegmentWriter, StampedBatch};
use crate::storage::{Fault, remove_if_there};
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

/// What has to hold for an append, looked at under the shard's lock.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Condition {
    pub(crate) expect_next: Option<SequenceNumber>,
    pub(crate) fencing_token: Option<u64>,
}

/// The batch of a producer that records belong to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamped<'a> {
    /// The producer's name.
    pub(crate) producer: &'a str,
    pub(crate) stamp: ProducerStamp,
    /// The epoch that may append.
    pub(crate) current_epoch: &'a AtomicU64,
    pub(crate) condition: Condition,
}

impl Stamped<'_> {
    fn check_epoch(&self) -> Result<(), ShardError> {
        let epoch = self.stamp.epoch;
        if self.current_epoch.load(Ordering::SeqCst) == u64::from(epoch) {
            return Ok(());
        }
        Err(ShardError::ProducerFenced { producer: self.producer.to_owned(), epoch })
    }
}

/// What an append takes of a segment.
#[derive(Debug, Clone, Copy)]
struct Need {
    bytes: u64,
    records: u64,
}

fn bytes_of<'a, I>(entries: I) -> u64
where
    I: Iterator<Item = AppendEntry<'a>>,
{
    let sizes = entries.map(|entry| frame_bytes(entry.explicit_hash_key, entry.partition_key, entry.data) as u64);
    sizes.sum()
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
        condition: Condition,
    ) -> Result<Appended, ShardError>
    where
        I: ExactSizeIterator<Item = AppendEntry<'a>> + Clone,
    {
        let need = Need { bytes: bytes_of(entries.clone()), records: entries.len() as u64 };
        let mut state = self.append.lock();
        let now = self.context.clock.now();
        self.make_room(&mut state, need, |state| Self::check_open(state, condition))?;
        let appended = self.stage(&mut state, now, entries, None)?;
        self.hand_on(state, durability)?;
        Ok(appended)
    }

    /// Appends what is new of a producer's batch, as one batch, and tells of each record whether it was there already: `None` for those that are
    /// appended.
    pub(crate) fn append_stamped(
        &self,
        entries: &[(HashKey, AppendEntry<'_>)],
        durability: Durability,
        stamped: Stamped<'_>,
    ) -> Result<(Vec<Option<ProducerPart>>, Option<Appended>), ShardError> {
        let mut state = self.append.lock();
        Self::check_open(&state, stamped.condition)?;
        stamped.check_epoch()?;
        let id = stamped.stamp.producer_id;
        let producers = self.producers(&mut state)?;
        if producers.last_batch(id) == Some(stamped.stamp.batch_number) {
            self.prune_producers(producers); // what is gone is new again, in each shard that has a part of it
        }
        let last = producers.last_batch(id).filter(|last| *last >= stamped.stamp.batch_number);
        if let Some(last) = last.filter(|last| *last > stamped.stamp.batch_number) {
            let number = stamped.stamp.batch_number;
            return Err(ShardError::Superseded { producer: stamped.producer.to_owned(), number, last });
        }
        let part_of = |key| last.and_then(|_| producers.part_of(id, key).copied());
        let places: Vec<_> = entries.iter().map(|(key, _)| part_of(*key)).collect();
        let fresh = entries.iter().zip(&places).filter(|(_, place)| place.is_none());
        let fresh: Vec<_> = fresh.map(|((_, entry), _)| *entry).collect();
        if fresh.is_empty() {
            return Ok((places, None));
        }
        let added = STAMP_BYTES as u64 + producers.most_added(id);
        let need = Need { bytes: bytes_of(fresh.iter().copied()) + added, records: fresh.len() as u64 };
        let now = self.context.clock.now();
        // Again whenever that has waited; nobody else of this epoch appends meanwhile. Who is fenced during a roll may append this once: who fences it waits for the lock.
        self.make_room(&mut state, need, |state| {
            Self::check_open(state, stamped.condition)?;
            if planted(Mistake::EpochUnchecked) { Ok(()) } else { stamped.check_epoch() }
        })?;
        let appended = self.stage(&mut state, now, fresh.iter().copied(), Some(stamped.stamp))?;
        self.remember(&mut state, stamped.stamp, &appended, fresh.len())?;
        self.hand_on(state, durability)?;
        Ok((places, Some(appended)))
    }

    /// Notes a batch that was just staged, and keeps room to write that down.
    fn remember(
        &self,
        state: &mut AppendState,
        stamp: ProducerStamp,
        appended: &Appended,
        records: usize,
    ) -> Result<(), ShardError> {
        let count = u32::try_from(records).unwrap_or(u32::MAX);
        let batch = StampedBatch { stamp, first: appended.first, count, arrival: appended.arrival };
        let producers = self.producers(state)?;
        producers.note(&batch, self.id, self.range);
        let section_bytes = producers.section_bytes();
        if let Some(writer) = state.writer.as_mut() {
            writer.reserve(section_bytes);
        }
        Ok(())
    }

    /// Leaves what was staged to the commit that it waits for, or sees to it that it survives the process, and shows it.
    #[inline]
    fn hand_on(&self, mut state: MutexGuard<'_, AppendState>, durability: Durability) -> Result<(), ShardError> {
        if durability == Durability::Synced {
            state.groups.note_arrival();
            self.awaited.store(state.next.get(), Ordering::SeqCst);
            return Ok(());
        }
        let is_staged = state.writer.as_ref().is_some_and(SegmentWriter::has_slot);
        let early = planted(Mistake::AnnounceBeforeStaged);
        if is_staged && early {
            self.announce_staged();
        }
        // Who is about to be woken would write it first, on a processor that has been idle: that takes several times as long.
        let is_drained = !is_staged || self.is_awaited();
        if is_drained {
            self.drain_staged(&mut state)?;
        } else {
            self.note_written(state.next); // it survives the process: it is there for everybody
        }
        let limited = self.limit_unsynced(&mut state); // told behind the others: the record is there, whatever becomes of older ones
        drop(state); // whoever is woken now may take the lock next
        if !early {
            self.announce_staged();
        }
        if !is_drained {
            self.wake_drains();
        }
        limited
    }

    fn announce_staged(&self) {
        // Looked at behind a sequentially consistent store: either this sees the sleeper, or the sleeper sees the record.
        if self.is_awaited() {
            self.announce();
        }
    }

    /// Whether somebody sleeps until there is a record.
    fn is_awaited(&self) -> bool {
        self.tail.has_sleepers() || self.context.tail.has_sleepers()
    }

    /// Has the background look again for what is staged, and for slots that are idle, if it rests.
    fn wake_drains(&self) {
        let context = &self.context;
        if context.drains_rest.load(Ordering::SeqCst) && context.has_background {
            context.drains_rest.store(false, Ordering::SeqCst);
            context.flush.ask_to_look();
        }
    }

    /// Stages records that arrived `now`. The clock was read before room was made for them: should it panic, there is no segment without a record.
    #[inline]
    fn stage<'a, I>(
        &self,
        state: &mut AppendState,
        now: Timestamp,
        entries: I,
        mut stamp: Option<ProducerStamp>,
    ) -> Result<Appended, ShardError>
    where
        I: ExactSizeIterator<Item = AppendEntry<'a>>,
    {
        let Some(writer) = state.writer.as_mut() else {
            return Err(ShardError::NotOpen); // `make_room` made one
        };
        let first = state.next;
        let arrival = now.max(state.last_arrival);
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
                producer: stamp.take(), // the first has it for all
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
        Ok(Appended { first, arrival, opened_file: std::mem::take(&mut state.has_opened_file) })
    }

    pub(super) fn write_staged(&self, state: &mut AppendState) -> Result<(), ShardError> {
        self.drain_staged(state)?;
        if state.writer.is_some() {
            self.announce();
        }
        Ok(())
    }

    /// The same, and wakes nobody.
    pub(super) fn drain_staged(&self, state: &mut AppendState) -> Result<(), ShardError> {
        self.count_appended(state);
        if planted(Mistake::DrainedBeforeWritten) {
            self.note_drained(state.next);
        }
        let Some(writer) = state.writer.as_mut() else {
            return Ok(());
        };
        match writer.write_staged() {
            Ok(()) => {
                self.note_drained(writer.next());
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

    /// Whether the shard takes appends, and this one.
    #[inline]
    fn check_open(state: &AppendState, condition: Condition) -> Result<(), ShardError> {
        if let Some(failure) = &state.failure {
            return Err(ShardError::Failed(Arc::clone(failure)));
        }
        if state.phase != Phase::Open {
            return Err(ShardError::NotOpen);
        }
        if let Some(expected) = condition.expect_next.filter(|expected| *expected != state.next) {
            return Err(ShardError::Mismatch { expected, actual: state.next });
        }
        condition.fencing_token.map_or(Ok(()), |token| state.check_token(token))
    }

    /// Leaves with an active segment that has room for what is needed, and with an append that passed its `check`.
    fn make_room(
        &self,
        state: &mut MutexGuard<'_, AppendState>,
        need: Need,
        check: impl Fn(&AppendState) -> Result<(), ShardError>,
    ) -> Result<(), ShardError> {
        loop {
            check(state)?; // before a roll: a segment that is made gets a record at once
            self.remove_leftover(state)?;
            let has_room = state.writer.as_ref().is_some_and(|writer| writer.has_room(need.bytes, need.records));
            let staged = state.writer.as_ref().map_or(0, SegmentWriter::staged_bytes);
            if has_room && staged < MAX_PENDING_BYTES {
                // Opened before anything is staged, so that a failure to open is only a refusal.
                let was_parked = state.writer.as_ref().is_some_and(SegmentWriter::is_parked);
                state.writer.as_mut().map(SegmentWriter::open).transpose()?;
                state.has_opened_file |= was_parked;
                return self.use_slot(state);
            }
            if state.committing && !planted(Mistake::RollDuringCommit) {
                self.committed.wait(state);
            } else if has_room {
                self.lead_commit(state)?;
            } else {
                let was_closed = state.writer.as_ref().is_none_or(SegmentWriter::is_parked);
                let rolled = self.roll(state, need);
                state.has_opened_file |= was_closed && rolled.is_ok();
                if let Some(writer) = state.writer.as_mut().filter(|_| was_closed && rolled.is_err()) {
                    writer.close_unused(); // it is not counted among the open files
                }
                return rolled;
            }
        }
    }

    /// Removes what a creation that failed may have left, durably: were its numbers given to records of the segment before, those who open the stream
    /// would miss them in it.
    fn remove_leftover(&self, state: &mut AppendState) -> Result<(), ShardError> {
        let Some(first) = state.leftover else {
            return Ok(());
        };
        let (storage, directory) = (self.context.storage.as_ref(), &self.directory);
        remove_if_there(storage, &directory.join(segment_name(first)))?;
        storage.sync_dir(directory).map_err(Fault::io("sync", directory))?;
        state.leftover = None;
        Ok(())
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
            Some(Ok(())) => Ok(()),
            None => {
                // Those who have one may all be idle, and a background that rests would leave it to them.
                if context.staging.are_exhausted() {
                    self.wake_drains();
                }
                Ok(())
            }
        }
    }

    /// Puts a new segment in the place of the active one. A failure to create it leaves everything as it was.
    fn roll(&self, state: &mut AppendState, need: Need) -> Result<(), ShardError> {
        state.writer.as_mut().map(SegmentWriter::open).transpose()?; // before the successor takes what may be the last descriptor
        self.write_staged(state)?;
        if state.writer.as_ref().is_some_and(SegmentWriter::is_empty) {
            self.retire_writer(state)?; // too small for the first batch: its name is needed
        }
        let producers = self.producers_behind_roll(state)?;
        let section_bytes = producers.section_bytes();
        let context = &self.context;
        let least = SegmentWriter::file_bytes_for(need.bytes, need.records);
        let file_bytes = state.next_file_bytes.max(least) + section_bytes;
        let header = SegmentHeader {
            stream_id: context.stream_id,
            shard_id: self.id,
            incarnation: context.incarnation,
            first: state.next,
            created: context.clock.now(),
            file_bytes: file_bytes.next_multiple_of(8),
        };
        let created = SegmentWriter::create(&context.storage, &self.directory, header);
        let mut successor = created.map_err(|NotCreated { fault, may_be_left }| {
            state.leftover = may_be_left.then_some(header.first);
            fault
        })?;
        successor.reserve(section_bytes);
        // Only now, and in what the old segment is to say too: recovery begins with that, and the old one's room is kept for all that was remembered in it.
        state.producers = Some(producers);
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

    /// What is to be remembered of producers from a roll on: where there is an old segment to say so, without what is to be forgotten.
    fn producers_behind_roll(&self, state: &mut AppendState) -> Result<Producers, ShardError> {
        let has_writer = state.writer.is_some();
        let mut producers = self.producers(state)?.clone();
        if has_writer {
            self.prune_producers(&mut producers);
        }
        Ok(producers)
    }

    pub(super) fn seal_rolled(&self, state: &mut AppendState) -> Result<(), ShardError> {
        let producers = state.producers.as_ref().map(Producers::encode).unwrap_or_default();
        let Some(writer) = state.writer.as_mut() else {
            return Ok(());
        };
        match writer.seal(SealKind::Rolled, &producers) {
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

impl AppendState {
    pub(super) fn check_token(&self, token: u64) -> Result<(), ShardError> {
        let actual = self.fencing_token;
        if token == actual { Ok(()) } else { Err(ShardError::Fenced { token, actual }) }
    }
}
