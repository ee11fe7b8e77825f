//! What a sealed segment says of producers. The layout is drawn in the [room's documentation](super).

use std::borrow::Borrow;

use super::reader::Reader;
use crate::types::{HashKey, HashKeyRange, SequenceNumber, ShardId, Timestamp};

/// The bytes of one entry.
pub(crate) const PART_BYTES: usize = 72;

/// A part of the last batch of a producer: the records of a range of hash keys, which one shard took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProducerPart {
    pub(crate) producer_id: u64,
    pub(crate) batch_number: u64,
    pub(crate) shard_id: ShardId,
    pub(crate) count: u32,
    pub(crate) first: SequenceNumber,
    pub(crate) arrival: Timestamp,
    pub(crate) range: HashKeyRange,
}

/// The bytes of a section of this many entries.
pub(crate) const fn section_bytes(parts: usize) -> usize {
    parts.saturating_mul(PART_BYTES)
}

/// A section's bytes.
pub(crate) fn encode_parts(parts: impl Iterator<Item = impl Borrow<ProducerPart>>) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        let part = part.borrow();
        out.extend_from_slice(&part.producer_id.to_le_bytes());
        out.extend_from_slice(&part.batch_number.to_le_bytes());
        out.extend_from_slice(&part.shard_id.get().to_le_bytes());
        out.extend_from_slice(&part.count.to_le_bytes());
        out.extend_from_slice(&part.first.get().to_le_bytes());
        out.extend_from_slice(&part.arrival.as_millis().to_le_bytes());
        out.extend_from_slice(&part.range.start().get().to_le_bytes());
        out.extend_from_slice(&part.range.end().get().to_le_bytes());
    }
    out
}

/// The entries of a section; nothing if one of them is impossible or they are not in order.
pub(crate) fn decode_parts(bytes: &[u8]) -> Option<Vec<ProducerPart>> {
    let (entries, rest) = bytes.as_chunks::<PART_BYTES>();
    let parts: Vec<_> = entries.iter().map(decode).collect::<Option<_>>()?;
    let place = |part: &ProducerPart| (part.producer_id, part.range.start());
    let ascend = parts.windows(2).all(|pair| {
        let same = pair[0].producer_id == pair[1].producer_id;
        place(&pair[0]) < place(&pair[1]) && (!same || pair[0].batch_number == pair[1].batch_number)
    });
    (rest.is_empty() && ascend).then_some(parts)
}

fn decode(entry: &[u8; PART_BYTES]) -> Option<ProducerPart> {
    let mut reader = Reader::new(entry);
    let part = ProducerPart {
        producer_id: reader.u64()?,
        batch_number: reader.u64()?,
        shard_id: ShardId::new(reader.u32()?),
        count: reader.u32()?,
        first: SequenceNumber::new(reader.u64()?),
        arrival: Timestamp::from_millis(reader.i64()?),
        range: HashKeyRange::new(HashKey::new(reader.u128()?), HashKey::new(reader.u128()?))?,
    };
    let end = part.first.get().checked_add(part.count.into());
    (part.count > 0 && end.is_some()).then_some(part)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part(producer_id: u64, start: u128) -> ProducerPart {
        ProducerPart {
            producer_id,
            batch_number: 7,
            shard_id: ShardId::new(3),
            count: 2,
            first: SequenceNumber::new(50),
            arrival: Timestamp::from_millis(-9),
            range: HashKeyRange::new(HashKey::new(start), HashKey::new(start + 9)).unwrap(),
        }
    }

    fn decoded(parts: &[ProducerPart]) -> Option<Vec<ProducerPart>> {
        let bytes = encode_parts(parts.iter());
        assert_eq!(bytes.len(), section_bytes(parts.len()));
        decode_parts(&bytes)
    }

    #[test]
    fn a_section_survives_the_round_trip() {
        for parts in [vec![], vec![part(1, 0)], vec![part(1, 0), part(1, 10), part(2, 0)]] {
            assert_eq!(decoded(&parts), Some(parts));
        }
    }

    #[test]
    fn impossible_sections_are_refused() {
        for parts in [
            vec![part(1, 10), part(1, 0)],
            vec![part(1, 0), part(1, 0)],
            vec![part(2, 0), part(1, 10)],
            vec![part(1, 0), ProducerPart { batch_number: 8, ..part(1, 10) }],
            vec![ProducerPart { count: 0, ..part(1, 0) }],
            vec![ProducerPart { first: SequenceNumber::new(u64::MAX), ..part(1, 0) }],
        ] {
            assert_eq!(decoded(&parts), None, "{parts:?}");
        }
        let mut bytes = encode_parts([part(1, 5)].iter());
        bytes[40] = 200; // its range starts behind its end
        assert_eq!(decode_parts(&bytes), None);
        assert_eq!(decode_parts(&[0; PART_BYTES - 1]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_give_entries_or_nothing(bytes: Vec<u8>) {
            let _ = decode_parts(&bytes);
        }
    }
}
