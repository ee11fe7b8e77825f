//! What retention needs of a shard: which segments it has, and taking the oldest away.

use crate::sync::atomic::Ordering;

use super::{Counters, Shard, ShardContext, ShardError};
use crate::format::{FOOTER_BYTES, Footer, segment_name};
use crate::segment::{SegmentWriter, Visibility};
use crate::storage::Fault;
use crate::types::{SequenceNumber, Timestamp};

/// A segment as retention and descriptions see it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SegmentSummary {
    pub(crate) first: SequenceNumber,
    pub(crate) next: SequenceNumber,
    pub(crate) first_arrival: Timestamp,
    pub(crate) last_arrival: Timestamp,
    /// Bytes of keys and data.
    pub(crate) bytes: u64,
    /// Bytes that the file takes on the disk.
    pub(crate) disk_bytes: u64,
    /// Whether it is sealed: only then can it be removed.
    pub(crate) sealed: bool,
    /// Whether it stands for records that are lost.
    pub(crate) lost: bool,
}

/// Segments to remove from the front of a shard.
#[derive(Debug, Clone, Default)]
pub(crate) struct Removal {
    pub(crate) segments: Vec<SegmentSummary>,
    /// Where the shard's first segment starts afterwards.
    pub(crate) first: SequenceNumber,
}

impl Removal {
    pub(crate) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }
}

impl ShardContext {
    /// The arrival time before which records are expired at this time; nothing if they never are.
    pub(crate) fn cutoff(&self, now: Timestamp) -> Option<Timestamp> {
        let retention = self.retention.load(Ordering::Relaxed);
        (retention != u64::MAX).then(|| now.minus_millis(retention))
    }

    /// The same by the clock, whether it is right or not: for those who are shown what is there.
    pub(crate) fn cutoff_by_clock(&self) -> Option<Timestamp> {
        self.cutoff(self.clock.now())
    }
}

impl Shard {
    /// All segments that hold records, oldest first.
    pub(crate) fn segment_summaries(&self) -> Result<Vec<SegmentSummary>, Fault> {
        let _ = self.drain(); // a failed shard is described as far as it is written
        let mut summaries = Vec::new();
        let slots = self.segments.read().all();
        for slot in slots {
            match slot.footer(&self.context, self.id, &self.directory)? {
                Some(footer) => summaries.push(sealed_summary(&footer)),
                None => summaries.extend(self.live_summary(slot.first)?),
            }
        }
        Ok(summaries)
    }

    /// The active segment, as far as it is written.
    fn live_summary(&self, first: SequenceNumber) -> Result<Option<SegmentSummary>, Fault> {
        let state = self.append.lock();
        let (bytes, last_arrival) = match state.writer.as_ref() {
            Some(writer) if writer.segment().first() == first => (writer.bytes(), writer.last_arrival()),
            _ => (0, state.last_arrival), // sealed meanwhile, or followed from another process
        };
        drop(state);
        let Some(slot) = self.segments.read().holding(first) else {
            return Ok(None);
        };
        let segment = slot.segment(&self.context, self.id, &self.directory)?;
        if let Some(footer) = segment.footer() {
            return Ok(Some(sealed_summary(footer)));
        }
        let end = segment.end(Visibility::Written);
        if end == crate::format::SEGMENT_HEADER_BYTES as u64 {
            return Ok(None);
        }
        let frame = segment.frame(crate::format::SEGMENT_HEADER_BYTES as u64, end, first)?;
        Ok(Some(SegmentSummary {
            first,
            next: self.next(Visibility::Written),
            first_arrival: frame.arrival(),
            last_arrival,
            bytes,
            disk_bytes: segment.header().file_bytes,
            sealed: false,
            lost: false,
        }))
    }

    /// Seals the active segment if all of it arrived before `cutoff`, so that it can go as well.
    pub(crate) fn retire_expired(&self, cutoff: Timestamp) -> Result<(), ShardError> {
        let mut state = self.append.lock();
        let expired = |writer: &SegmentWriter| !writer.is_empty() && writer.last_arrival() < cutoff;
        let is_expired = state.writer.as_ref().is_some_and(expired);
        if is_expired && !state.committing && state.failure.is_none() {
            self.retire_writer(&mut state)?;
        }
        Ok(())
    }

    /// The sealed segments at the front that `goes` picks.
    pub(crate) fn removal(&self, goes: impl Fn(&SegmentSummary) -> bool) -> Result<Removal, Fault> {
        let slots = self.segments.read().all();
        let mut removal = Removal {
            segments: Vec::new(),
            first: slots.first().map_or(self.next(Visibility::Written), |slot| slot.first),
        };
        for slot in slots {
            let Some(footer) = slot.footer(&self.context, self.id, &self.directory)? else {
                break;
            };
            let summary = sealed_summary(&footer);
            if !goes(&summary) {
                break;
            }
            removal.first = summary.next;
            removal.segments.push(summary);
        }
        Ok(removal)
    }

    /// Removes segments whose removal the manifest has recorded. Readers that hold them go on reading. One that cannot be removed keeps no other one.
    pub(crate) fn remove(&self, removal: &Removal) -> Result<(), Fault> {
        let mut outcome = Ok(());
        for summary in &removal.segments {
            self.segments.write().remove(summary.first);
            self.context.recent.forget(self.id, summary.first);
            let path = self.directory.join(segment_name(summary.first));
            let removed = self.context.storage.remove_file(&path).map_err(Fault::io("remove", &path));
            Counters::add(&self.context.counters.segments_trimmed, u64::from(removed.is_ok()));
            outcome = outcome.and(removed);
        }
        outcome
    }

    /// Shows new readers nothing below `horizon`.
    pub(crate) fn raise_horizon(&self, horizon: SequenceNumber) {
        self.horizon.fetch_max(horizon.get(), Ordering::SeqCst);
    }
}

fn sealed_summary(footer: &Footer) -> SegmentSummary {
    SegmentSummary {
        first: footer.first,
        next: footer.next(),
        first_arrival: footer.first_arrival,
        last_arrival: footer.last_arrival,
        bytes: footer.bytes,
        disk_bytes: footer.sections_end() + FOOTER_BYTES as u64,
        sealed: true,
        lost: footer.is_lost(),
    }
}
