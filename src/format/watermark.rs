//! A slot of the WATERMARK file. The layout is drawn in the [room's documentation](super).

use super::reader::Reader;
use crate::types::{SequenceNumber, ShardId, StreamId};

/// The bytes of one slot; slot *n* belongs to shard *n*.
pub(crate) const SLOT_BYTES: usize = 16;

pub(crate) fn encode_slot(stream_id: StreamId, shard_id: ShardId, durable: SequenceNumber) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    slot[0..8].copy_from_slice(&durable.get().to_le_bytes());
    slot[8..12].copy_from_slice(&checksum(stream_id, shard_id, durable).to_le_bytes());
    slot
}

/// What a slot claims; nothing where it was never written or is not whole.
pub(crate) fn decode_slot(
    slot: &[u8; SLOT_BYTES],
    stream_id: StreamId,
    shard_id: ShardId,
) -> Option<SequenceNumber> {
    let mut reader = Reader::new(slot);
    let durable = SequenceNumber::new(reader.u64()?);
    let stored = reader.u32()?;
    reader.zeros(4)?;
    (stored == checksum(stream_id, shard_id, durable)).then_some(durable)
}

fn checksum(stream_id: StreamId, shard_id: ShardId, durable: SequenceNumber) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&stream_id.get().to_le_bytes());
    hasher.update(&shard_id.get().to_le_bytes());
    hasher.update(&durable.get().to_le_bytes());
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_claims_only_what_was_written_for_its_shard() {
        let (stream, shard) = (StreamId::new(8), ShardId::new(2));
        let slot = encode_slot(stream, shard, SequenceNumber::new(77));
        assert_eq!(decode_slot(&slot, stream, shard), Some(SequenceNumber::new(77)));
        assert_eq!(decode_slot(&slot, stream, ShardId::new(3)), None);
        assert_eq!(decode_slot(&slot, StreamId::new(9), shard), None);
        assert_eq!(decode_slot(&[0; SLOT_BYTES], stream, shard), None);
        for position in 0..SLOT_BYTES {
            let mut damaged = slot;
            damaged[position] ^= 0x10;
            assert_eq!(decode_slot(&damaged, stream, shard), None);
        }
    }
}
