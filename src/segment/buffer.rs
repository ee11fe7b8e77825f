//! Where a writer's frames gather before they are written to the segment.

use std::io;
use std::ops::Range;

use crate::format::{SLOT_HEADER_BYTES, SegmentHeader, SlotHeader};
use crate::storage::StagingSlot;

/// The private buffer gives back what a large group made it grow beyond this.
const KEPT_BYTES: usize = 1 << 20;

/// Frames that are encoded and not yet written: in the process' own memory, which grows as it must, or in a slot of the STAGING file,
/// where they survive the death of the process.
#[derive(Debug, Default)]
pub(super) struct FrameBuffer {
    memory: Memory,
    /// Bytes of frames.
    used: usize,
}

#[derive(Debug)]
enum Memory {
    /// Always initialised to its length, so that a frame is written into it and nothing else is.
    Private(Vec<u8>),
    Slot(StagingSlot),
}

impl Default for Memory {
    fn default() -> Self {
        Self::Private(Vec::new())
    }
}

impl FrameBuffer {
    pub(super) fn len(&self) -> usize {
        self.used
    }

    pub(super) fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// The frames.
    pub(super) fn frames(&self) -> &[u8] {
        let memory = match &self.memory {
            Memory::Private(bytes) => bytes.as_slice(),
            Memory::Slot(slot) => slot.bytes(),
        };
        memory.get(self.range(0..self.used)).unwrap_or_default()
    }

    /// Whether a frame of this size fits behind the others; private memory grows.
    pub(super) fn has_room(&self, size: usize) -> bool {
        match &self.memory {
            Memory::Private(_) => true,
            Memory::Slot(slot) => SLOT_HEADER_BYTES + self.used + size <= slot.len(),
        }
    }

    /// Adds a frame, which `encode` writes into the place that it is given. There is room.
    pub(super) fn push(&mut self, size: usize, encode: impl FnOnce(&mut [u8])) -> io::Result<()> {
        let range = self.range(self.used..self.used + size);
        match &mut self.memory {
            Memory::Private(bytes) => {
                if range.end > bytes.len() {
                    bytes.resize(range.end.next_power_of_two().max(4096), 0);
                }
                encode(bytes.get_mut(range).unwrap_or_default());
            }
            Memory::Slot(slot) => {
                encode(slot.bytes_mut().get_mut(range.clone()).unwrap_or_default());
                slot.stored(range)?;
            }
        }
        self.used += size;
        Ok(())
    }

    /// The frames were written: their room is used again.
    pub(super) fn clear(&mut self) {
        self.used = 0;
        if let Memory::Private(bytes) = &mut self.memory
            && bytes.len() > KEPT_BYTES
        {
            bytes.truncate(KEPT_BYTES);
            bytes.shrink_to_fit();
        }
    }

    pub(super) fn has_slot(&self) -> bool {
        matches!(self.memory, Memory::Slot(_))
    }

    /// Gathers in a slot from now on, frames of the segment with this header. Nothing is in the buffer.
    pub(super) fn use_slot(&mut self, mut slot: StagingSlot, segment: &SegmentHeader) -> io::Result<()> {
        // What stands in the slot behind the header is of segments that have it, or is nothing.
        let header = SlotHeader::of_segment(segment, u32::try_from(slot.len()).unwrap_or(u32::MAX)).encode();
        if let Some(front) = slot.bytes_mut().first_chunk_mut() {
            *front = header;
        }
        slot.stored(0..SLOT_HEADER_BYTES)?;
        self.memory = Memory::Slot(slot);
        Ok(())
    }

    /// Gives the slot back, if there is one and nothing is in it.
    pub(super) fn take_slot(&mut self) -> Option<StagingSlot> {
        if !self.is_empty() {
            return None;
        }
        match std::mem::take(&mut self.memory) {
            Memory::Slot(slot) => Some(slot),
            private @ Memory::Private(_) => {
                self.memory = private;
                None
            }
        }
    }

    fn range(&self, frames: Range<usize>) -> Range<usize> {
        let offset = if self.has_slot() { SLOT_HEADER_BYTES } else { 0 };
        frames.start + offset..frames.end + offset
    }
}

impl Drop for FrameBuffer {
    /// Frames that could not be written wait in their slot for the next opening: nobody else gets it in this one.
    fn drop(&mut self) {
        if self.used > 0
            && let Memory::Slot(slot) = std::mem::take(&mut self.memory)
        {
            slot.keep();
        }
    }
}
