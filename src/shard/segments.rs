//! The list of a shard's segments, opened as they are needed.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Weak};

use crate::sync::{Mutex, OnceLock};

use super::ShardContext;
use crate::format::{Footer, segment_name};
use crate::limits::SEGMENT_GROWTH;
use crate::segment::Segment;
use crate::storage::Fault;
use crate::types::{SequenceNumber, ShardId};

/// The segments of one shard, ascending, without gaps.
#[derive(Debug, Default)]
pub(super) struct Segments {
    slots: VecDeque<Arc<Slot>>,
    /// The size of the newest segment's file when the shard was opened, to go on growing from.
    pub(super) newest_file_bytes: Option<u64>,
}

/// One segment: a name until somebody reads it.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) first: SequenceNumber,
    footer: OnceLock<Footer>,
    /// Kept alive while it is appended to.
    live: Mutex<Option<Arc<Segment>>>,
    /// Open as long as a reader holds it.
    open: Mutex<Weak<Segment>>,
}

impl Segments {
    /// Adds a sealed segment behind the others.
    pub(super) fn push_sealed(&mut self, first: SequenceNumber, footer: Option<Footer>) {
        self.slots.push_back(Arc::new(Slot {
            first,
            footer: footer.map_or_else(OnceLock::new, OnceLock::from),
            live: Mutex::new(None),
            open: Mutex::default(),
        }));
    }

    /// Adds the active segment behind the others.
    pub(super) fn push_live(&mut self, segment: Arc<Segment>) {
        self.slots.push_back(Arc::new(Slot {
            first: segment.first(),
            footer: OnceLock::new(),
            open: Mutex::new(Arc::downgrade(&segment)),
            live: Mutex::new(Some(segment)),
        }));
    }

    /// The active segment has been sealed: it need not be kept open any more.
    pub(super) fn seal(&mut self, first: SequenceNumber) {
        if let Some(slot) = self.slots.iter().rev().find(|slot| slot.first == first) {
            let live = slot.live.lock().take();
            if let Some(footer) = live.as_ref().and_then(|segment| segment.footer()) {
                let _ = slot.footer.set(*footer);
            }
        }
    }

    pub(super) fn remove(&mut self, first: SequenceNumber) {
        self.slots.retain(|slot| slot.first != first);
    }

    /// The segment that holds `number`, or would if it were long enough: the last that starts at or below it.
    pub(super) fn holding(&self, number: SequenceNumber) -> Option<Arc<Slot>> {
        let behind = self.slots.partition_point(|slot| slot.first <= number);
        self.slots.get(behind.checked_sub(1)?).cloned()
    }

    /// The segments that start at or below `number`, ascending.
    pub(super) fn up_to(&self, number: SequenceNumber) -> Vec<Arc<Slot>> {
        self.slots.iter().take_while(|slot| slot.first <= number).cloned().collect()
    }

    pub(super) fn all(&self) -> Vec<Arc<Slot>> {
        self.slots.iter().cloned().collect()
    }

    pub(super) fn first(&self) -> Option<SequenceNumber> {
        self.slots.front().map(|slot| slot.first)
    }

    /// How large the next segment is to be.
    pub(super) fn next_file_bytes(&self, first_segment_bytes: u64, segment_bytes: u64) -> u64 {
        let first = first_segment_bytes.min(segment_bytes);
        let grown = self.newest_file_bytes.map_or(first, |bytes| bytes.saturating_mul(SEGMENT_GROWTH));
        grown.min(segment_bytes).max(first)
    }
}

impl Slot {
    /// The segment, opened if it is not.
    pub(super) fn segment(
        &self,
        context: &ShardContext,
        shard_id: ShardId,
        directory: &Path,
    ) -> Result<Arc<Segment>, Fault> {
        if let Some(live) = &*self.live.lock() {
            return Ok(Arc::clone(live));
        }
        let mut open = self.open.lock();
        if let Some(segment) = open.upgrade() {
            return Ok(segment);
        }
        let path = directory.join(segment_name(self.first));
        let segment =
            Segment::open_sealed(context.storage.as_ref(), &path, context.stream_id, shard_id, self.first)?;
        if let Some(footer) = segment.footer() {
            let _ = self.footer.set(*footer);
        }
        let segment = Arc::new(segment);
        *open = Arc::downgrade(&segment);
        context.recent.keep(&segment);
        Ok(segment)
    }

    /// The footer; nothing while the segment is appended to.
    pub(super) fn footer(
        &self,
        context: &ShardContext,
        shard_id: ShardId,
        directory: &Path,
    ) -> Result<Option<Footer>, Fault> {
        if let Some(footer) = self.footer.get() {
            return Ok(Some(*footer));
        }
        let segment = self.segment(context, shard_id, directory)?;
        Ok(segment.footer().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{FrameInput, SealKind, SegmentHeader};
    use crate::segment::SegmentWriter;
    use crate::storage::{SimulatedDisk, Storage};
    use crate::types::{StreamId, Timestamp};

    /// A sealed segment is kept open by those who read it, and by nobody else.
    #[test]
    fn a_sealed_segment_is_let_go() {
        let storage: Arc<dyn Storage> = Arc::new(SimulatedDisk::new());
        storage.create_dir(Path::new("shard")).unwrap();
        let (first, arrival) = (SequenceNumber::new(5), Timestamp::from_millis(1));
        let header = SegmentHeader {
            stream_id: StreamId::new(1),
            shard_id: ShardId::new(2),
            incarnation: 1,
            first,
            created: arrival,
            file_bytes: 4096,
        };
        let mut writer = SegmentWriter::create(&storage, Path::new("shard"), header).unwrap();
        let mut segments = Segments::default();
        segments.push_sealed(SequenceNumber::ZERO, None);
        segments.push_live(Arc::clone(writer.segment()));
        writer
            .stage(&FrameInput {
                sequence_number: first,
                arrival,
                durable: SequenceNumber::ZERO,
                batch_remaining: 0,
                explicit_hash_key: None,
                producer: None,
                partition_key: "key",
                data: b"data",
            })
            .unwrap();
        let footer = writer.seal(SealKind::Rolled, &[]).unwrap();
        drop(writer);
        let slot = segments.holding(first).unwrap();
        assert!(slot.open.lock().upgrade().is_some(), "it is not known yet that it is sealed");
        segments.seal(first);
        assert!(slot.open.lock().upgrade().is_none());
        assert_eq!(slot.footer.get(), Some(&footer), "which need not be read again");
    }
}
