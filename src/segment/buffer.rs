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
    #[inline]
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::storage::{Access, SimulatedDisk, Staging, StagingLayout, Storage};
    use crate::types::{SequenceNumber, ShardId, StreamId, Timestamp};

    fn header() -> SegmentHeader {
        SegmentHeader {
            stream_id: StreamId::new(7),
            shard_id: ShardId::new(3),
            incarnation: 2,
            first: SequenceNumber::new(90),
            created: Timestamp::MIN,
            file_bytes: 4096,
        }
    }

    /// One slot of 1 KiB, and the bytes of its file.
    fn staging() -> (Staging, impl Fn() -> Vec<u8>) {
        let disk = SimulatedDisk::new();
        let path = Path::new("STAGING");
        let staging = disk.create_staging(path, StagingLayout { slot_bytes: 1024, slots: 1 }).unwrap().unwrap();
        let file = disk.open_file(path, Access::Read).unwrap();
        let bytes = move || {
            let mut bytes = vec![0; 1024];
            assert_eq!(file.read_at(&mut bytes, 0).unwrap(), 1024);
            bytes
        };
        (staging, bytes)
    }

    fn push(buffer: &mut FrameBuffer, frame: &[u8]) {
        assert!(buffer.has_room(frame.len()));
        buffer.push(frame.len(), |place| place.copy_from_slice(frame)).unwrap();
    }

    #[test]
    fn frames_gather_in_private_memory_that_is_given_back() {
        let mut buffer = FrameBuffer::default();
        assert!(!buffer.has_slot() && buffer.is_empty());
        assert!(buffer.has_room(usize::MAX / 2), "it grows");
        push(&mut buffer, &[1; 8]);
        push(&mut buffer, &[2; 5000]);
        assert_eq!(buffer.len(), 5008);
        assert_eq!((&buffer.frames()[..8], &buffer.frames()[8..]), (&[1; 8][..], &[2; 5000][..]));
        assert!(buffer.take_slot().is_none());
        buffer.clear();
        assert!(buffer.is_empty() && buffer.frames().is_empty());
        push(&mut buffer, &vec![3; 2 * KEPT_BYTES]);
        buffer.clear();
        let Memory::Private(bytes) = &buffer.memory else { panic!("no slot was given") };
        assert!(bytes.capacity() <= KEPT_BYTES, "{} bytes are kept", bytes.capacity());
        push(&mut buffer, &[4; 8]);
        assert_eq!(buffer.frames(), [4; 8]);
    }

    #[test]
    fn frames_gather_in_a_slot_behind_its_header() {
        let (staging, bytes) = staging();
        let mut buffer = FrameBuffer::default();
        buffer.use_slot(staging.lend().unwrap().unwrap(), &header()).unwrap();
        assert!(buffer.has_slot());
        assert_eq!(SlotHeader::decode(&bytes()), Some(SlotHeader::of_segment(&header(), 1024)));
        push(&mut buffer, &[1; 8]);
        push(&mut buffer, &[2; 16]);
        assert_eq!(bytes()[SLOT_HEADER_BYTES..][..24], *buffer.frames());
        assert_eq!(buffer.frames()[..9], [1, 1, 1, 1, 1, 1, 1, 1, 2]);
        assert!(buffer.take_slot().is_none(), "frames are in it");
        assert!(buffer.has_slot());
        let left = 1024 - SLOT_HEADER_BYTES - 24;
        assert!(buffer.has_room(left) && !buffer.has_room(left + 1));
        buffer.clear();
        assert!(buffer.has_room(left + 24) && !buffer.has_room(left + 25));
        drop(buffer.take_slot().unwrap());
        assert!(!buffer.has_slot());
        assert!(staging.lend().unwrap().is_some());
    }

    #[test]
    fn a_slot_with_frames_in_it_is_kept_for_the_next_opening() {
        for has_frames in [false, true] {
            let (staging, bytes) = staging();
            let mut buffer = FrameBuffer::default();
            buffer.use_slot(staging.lend().unwrap().unwrap(), &header()).unwrap();
            push(&mut buffer, &[1; 8]);
            if !has_frames {
                buffer.clear();
            }
            drop(buffer);
            assert_eq!(staging.lend().unwrap().is_none(), has_frames);
            assert_eq!(bytes()[SLOT_HEADER_BYTES..][..8], [1; 8]);
        }
    }
}
