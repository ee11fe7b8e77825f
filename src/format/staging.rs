//! The header of a slot in the STAGING file. The layout is drawn in the [room's documentation](super).

use super::reader::Reader;
use super::{FORMAT_VERSION, SegmentHeader};
use crate::types::{SequenceNumber, ShardId, StreamId};

/// A slot's header; its frames start behind it.
pub(crate) const HEADER_BYTES: usize = 64;

const MAGIC: [u8; 8] = *b"ANABRSTG";
const CHECKED_BYTES: usize = 60;

/// Whose frames a slot holds: those of one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotHeader {
    pub(crate) stream_id: StreamId,
    pub(crate) shard_id: ShardId,
    pub(crate) incarnation: u64,
    /// The first sequence number of the segment.
    pub(crate) first: SequenceNumber,
    /// The slot's length, this header included.
    pub(crate) slot_bytes: u32,
}

impl SlotHeader {
    /// The header of a slot of this length that takes frames of a segment.
    pub(crate) fn of_segment(header: &SegmentHeader, slot_bytes: u32) -> Self {
        Self {
            stream_id: header.stream_id,
            shard_id: header.shard_id,
            incarnation: header.incarnation,
            first: header.first,
            slot_bytes,
        }
    }

    pub(crate) fn is_of(&self, header: &SegmentHeader) -> bool {
        *self == Self::of_segment(header, self.slot_bytes)
    }

    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.slot_bytes.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.stream_id.get().to_le_bytes());
        bytes[32..36].copy_from_slice(&self.shard_id.get().to_le_bytes());
        bytes[40..48].copy_from_slice(&self.incarnation.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.first.get().to_le_bytes());
        let checksum = crc32fast::hash(&bytes[..CHECKED_BYTES]);
        bytes[CHECKED_BYTES..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// The header in `bytes`, if there is a sound one. Nothing else is an error: a power cut leaves anything.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.first_chunk::<HEADER_BYTES>()?;
        let mut tail = Reader::new(&bytes[CHECKED_BYTES..]);
        if tail.u32()? != crc32fast::hash(&bytes[..CHECKED_BYTES]) {
            return None;
        }
        let mut reader = Reader::new(bytes);
        if reader.array()? != MAGIC || reader.u32()? != FORMAT_VERSION {
            return None;
        }
        let slot_bytes = reader.u32()?;
        let stream_id = StreamId::new(reader.u128()?);
        let shard_id = ShardId::new(reader.u32()?);
        reader.zeros(4)?;
        let incarnation = reader.u64()?;
        let first = SequenceNumber::new(reader.u64()?);
        reader.zeros(4)?;
        Some(Self { stream_id, shard_id, incarnation, first, slot_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SlotHeader {
        SlotHeader {
            stream_id: StreamId::new(7),
            shard_id: ShardId::new(3),
            incarnation: 2,
            first: SequenceNumber::new(90),
            slot_bytes: 4096,
        }
    }

    #[test]
    fn decodes_what_was_encoded_and_nothing_else() {
        let bytes = header().encode();
        assert_eq!(SlotHeader::decode(&bytes), Some(header()));
        assert_eq!(SlotHeader::decode(&bytes[..HEADER_BYTES - 1]), None);
        for bit in 0..HEADER_BYTES * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SlotHeader::decode(&damaged), None, "bit {bit}");
        }
    }

    #[test]
    fn a_slot_is_of_one_segment() {
        let segment = SegmentHeader {
            stream_id: StreamId::new(7),
            shard_id: ShardId::new(3),
            incarnation: 2,
            first: SequenceNumber::new(90),
            created: crate::types::Timestamp::MIN,
            file_bytes: 4096,
        };
        assert!(header().is_of(&segment));
        assert!(!header().is_of(&SegmentHeader { stream_id: StreamId::new(8), ..segment }));
        assert!(!header().is_of(&SegmentHeader { shard_id: ShardId::new(4), ..segment }));
        assert!(!header().is_of(&SegmentHeader { incarnation: 3, ..segment }));
        assert!(!header().is_of(&SegmentHeader { first: SequenceNumber::new(91), ..segment }));
    }
}
