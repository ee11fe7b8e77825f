//! Going on behind what was done before, perhaps before a crash that took some of it.

use std::sync::Arc;

use super::{Cursor, Shard, ShardError};
use crate::format::Footer;
use crate::segment::{Segment, Visibility};
use crate::storage::Fault;
use crate::types::{SequenceNumber, Timestamp};

/// What was done of a shard: the records below `next`, as far as they are of this incarnation or an earlier one. A power cut can take the
/// unsynced tail of a `Buffered` shard, and its numbers are given to other records, of a later incarnation: those were not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) next: SequenceNumber,
    pub(crate) incarnation: u64,
}

impl Done {
    pub(super) fn covers(self, segment: &Segment, number: SequenceNumber) -> bool {
        number < self.next && segment.header().incarnation <= self.incarnation
    }
}

impl Cursor {
    /// A cursor that gives everything but what was done. What arrived before `cutoff` is expired.
    pub(crate) fn behind(
        shard: Arc<Shard>,
        done: Done,
        visibility: Visibility,
        cutoff: Option<Timestamp>,
    ) -> Result<Self, ShardError> {
        let next = shard.resume(done)?;
        let next = shard.checked_position(next, next, cutoff)?;
        Ok(Self::at(shard, next, visibility, Some(done)))
    }
}

impl Shard {
    /// The first number that may not have been done: at most the tail, and at most the start of any later incarnation's records.
    ///
    /// Records that are done may follow, where the tail is not seen yet from this process: a cursor passes over them.
    pub(crate) fn resume(&self, done: Done) -> Result<SequenceNumber, Fault> {
        let mut start = done.next.min(self.next(Visibility::Written));
        let Some(last) = done.next.previous() else {
            return Ok(start);
        };
        let mut slots = self.segments.read().up_to(last);
        // Incarnations rise along a shard. Only what stands for lost records was made later than what follows it.
        while let Some(slot) = slots.pop() {
            let segment = slot.segment(&self.context, self.id, &self.directory)?;
            if segment.footer().is_some_and(Footer::is_lost) {
                continue;
            }
            if segment.header().incarnation <= done.incarnation {
                break;
            }
            start = start.min(segment.first());
        }
        Ok(start)
    }

    /// The incarnation of the segment that holds a record; nothing where none is left that does.
    pub(crate) fn incarnation_of(&self, number: SequenceNumber) -> Result<Option<u64>, Fault> {
        let slot = self.segments.read().holding(number);
        let segment = slot.map(|slot| slot.segment(&self.context, self.id, &self.directory)).transpose()?;
        Ok(segment.map(|segment| segment.header().incarnation))
    }
}
