//! A queue's file: everything that is kept of it, at one moment. The layout is drawn in the [room's documentation](super).

use super::reader::Reader;
use super::u32_of;
use super::whole::{self, CHECKSUM_BYTES, WholeFileError};
use crate::limits::{MAX_NAME_CHARS, MAX_QUEUE_RECORDS, MAX_SHARD_ID, MAX_SHARDS};
use crate::types::{SequenceNumber, ShardId, StreamId, Timestamp, is_name};

/// In front of the shards.
pub(crate) const HEADER_BYTES: usize = 192;
/// In front of a shard's records.
const SHARD_BYTES: usize = 16;
/// A record.
const RECORD_BYTES: usize = 24;
const MAGIC: [u8; 8] = *b"ANABRQUE";
const SET_ASIDE: u32 = 1;

/// The longest file of a queue.
pub(crate) const MAX_FILE_BYTES: usize =
    HEADER_BYTES + MAX_SHARDS as usize * SHARD_BYTES + MAX_QUEUE_RECORDS * RECORD_BYTES + CHECKSUM_BYTES;

/// A queue, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QueueSnapshot {
    pub(crate) stream_id: StreamId,
    pub(crate) created: Timestamp,
    pub(crate) name: String,
    /// By ascending shard id.
    pub(crate) shards: Vec<QueueShard>,
}

/// A shard of a queue: what is below `next` is done, but for these records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QueueShard {
    pub(crate) shard_id: ShardId,
    /// The first number that was never received.
    pub(crate) next: SequenceNumber,
    /// By ascending number; all of them below `next`.
    pub(crate) records: Vec<QueueRecord>,
}

/// A record that was received and not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueueRecord {
    pub(crate) sequence_number: SequenceNumber,
    pub(crate) first_received: Timestamp,
    /// How often it was received, since it was restored last.
    pub(crate) receives: u32,
    pub(crate) set_aside: bool,
}

impl QueueSnapshot {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let records: usize = self.shards.iter().map(|shard| shard.records.len()).sum();
        let length = HEADER_BYTES + self.shards.len() * SHARD_BYTES + records * RECORD_BYTES + CHECKSUM_BYTES;
        let mut bytes = whole::begin(MAGIC, length);
        bytes.extend_from_slice(&u32_of(self.name.len()).to_le_bytes());
        bytes.extend_from_slice(&self.stream_id.get().to_le_bytes());
        bytes.extend_from_slice(&self.created.as_millis().to_le_bytes());
        bytes.extend_from_slice(&u32_of(self.shards.len()).to_le_bytes());
        bytes.extend_from_slice(&u32_of(records).to_le_bytes());
        bytes.extend_from_slice(self.name.as_bytes());
        bytes.resize(HEADER_BYTES, 0);
        for shard in &self.shards {
            shard.encode_to(&mut bytes);
        }
        whole::seal(bytes)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, WholeFileError> {
        whole::unseal(bytes, MAGIC).and_then(|fields| Self::decode_fields(fields).ok_or(WholeFileError::Field))
    }

    fn decode_fields(mut reader: Reader<'_>) -> Option<Self> {
        let name_bytes = usize::try_from(reader.u32()?).ok().filter(|bytes| *bytes <= MAX_NAME_CHARS)?;
        let stream_id = StreamId::new(reader.u128()?);
        let created = Timestamp::from_millis(reader.i64()?);
        let (shards, records) = (usize::try_from(reader.u32()?).ok()?, usize::try_from(reader.u32()?).ok()?);
        let name = std::str::from_utf8(reader.take(name_bytes)?).ok()?.to_owned();
        reader.zeros(HEADER_BYTES - 48 - name_bytes)?;
        // What they claim is there: nothing is allocated on their word alone.
        let fits = shards * SHARD_BYTES + records * RECORD_BYTES == reader.left();
        if !fits || shards > MAX_SHARDS as usize || records > MAX_QUEUE_RECORDS {
            return None;
        }
        let shards = (0..shards).map(|_| QueueShard::decode(&mut reader)).collect::<Option<Vec<_>>>()?;
        reader.end()?;
        let ascend = shards.is_sorted_by(|a, b| a.shard_id < b.shard_id);
        (ascend && is_name(&name)).then_some(Self { stream_id, created, name, shards })
    }
}

impl QueueShard {
    fn encode_to(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.shard_id.get().to_le_bytes());
        bytes.extend_from_slice(&u32_of(self.records.len()).to_le_bytes());
        bytes.extend_from_slice(&self.next.get().to_le_bytes());
        for record in &self.records {
            bytes.extend_from_slice(&record.sequence_number.get().to_le_bytes());
            bytes.extend_from_slice(&record.first_received.as_millis().to_le_bytes());
            bytes.extend_from_slice(&record.receives.to_le_bytes());
            bytes.extend_from_slice(&if record.set_aside { SET_ASIDE } else { 0 }.to_le_bytes());
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let shard_id = ShardId::new(reader.u32().filter(|id| *id <= MAX_SHARD_ID)?);
        let records = usize::try_from(reader.u32()?).ok()?;
        let next = SequenceNumber::new(reader.u64()?);
        let mut records_of = Reader::new(reader.take(records.checked_mul(RECORD_BYTES)?)?);
        let records = (0..records).map(|_| QueueRecord::decode(&mut records_of)).collect::<Option<Vec<_>>>()?;
        let ascend = records.is_sorted_by(|a, b| a.sequence_number < b.sequence_number);
        let below = records.last().is_none_or(|last| last.sequence_number < next);
        (ascend && below).then_some(Self { shard_id, next, records })
    }
}

impl QueueRecord {
    fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let sequence_number = SequenceNumber::new(reader.u64()?);
        let first_received = Timestamp::from_millis(reader.i64()?);
        let (receives, flags) = (reader.u32()?, reader.u32()?);
        (flags <= SET_ASIDE).then_some(Self {
            sequence_number,
            first_received,
            receives,
            set_aside: flags == SET_ASIDE,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(number: u64, receives: u32, set_aside: bool) -> QueueRecord {
        QueueRecord {
            sequence_number: SequenceNumber::new(number),
            first_received: Timestamp::from_millis(-5),
            receives,
            set_aside,
        }
    }

    fn shard(id: u32, next: u64, records: Vec<QueueRecord>) -> QueueShard {
        QueueShard { shard_id: ShardId::new(id), next: SequenceNumber::new(next), records }
    }

    fn snapshot(shards: Vec<QueueShard>) -> QueueSnapshot {
        QueueSnapshot {
            stream_id: StreamId::new(7),
            created: Timestamp::from_millis(99),
            name: "orders".to_owned(),
            shards,
        }
    }

    fn large() -> QueueSnapshot {
        let records = vec![record(3, 1, false), record(4, 6, true), record(8, 0, false)];
        snapshot(vec![
            shard(0, 9, records),
            shard(2, 0, vec![]),
            shard(7, u64::MAX, vec![record(1, u32::MAX, true)]),
        ])
    }

    /// Changes a field and makes the checksum right again.
    fn forged(at: usize, field: &[u8]) -> Result<QueueSnapshot, WholeFileError> {
        let mut bytes = large().encode();
        bytes[at..at + field.len()].copy_from_slice(field);
        let end = bytes.len() - CHECKSUM_BYTES;
        let checksum = crc32fast::hash(&bytes[..end]);
        bytes[end..].copy_from_slice(&checksum.to_le_bytes());
        QueueSnapshot::decode(&bytes)
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let longest = "n".repeat(MAX_NAME_CHARS);
        for snapshot in [snapshot(vec![]), large(), QueueSnapshot { name: longest, ..large() }] {
            assert_eq!(QueueSnapshot::decode(&snapshot.encode()), Ok(snapshot));
        }
    }

    #[test]
    fn a_flipped_bit_and_a_missing_byte_are_seen() {
        let whole = large().encode();
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(QueueSnapshot::decode(&bytes).is_err(), "bit {bit}");
        }
        for length in 0..whole.len() {
            assert!(QueueSnapshot::decode(&whole[..length]).is_err(), "{length} bytes");
        }
        let mut longer = whole;
        longer.push(0);
        assert!(QueueSnapshot::decode(&longer).is_err());
    }

    #[test]
    fn fields_out_of_their_ranges_are_refused_under_a_right_checksum() {
        let refused = |at: usize, field: &[u8]| forged(at, field) == Err(WholeFileError::Field);
        for length in [0, 7, u32::MAX] {
            assert!(refused(12, &u32::to_le_bytes(length)), "a name of {length} bytes");
        }
        for count in [0, 2, 4, u32::MAX] {
            assert!(refused(40, &u32::to_le_bytes(count)), "{count} shards");
        }
        assert!(refused(44, &3_u32.to_le_bytes()), "records");
        assert!(refused(48, &[0xff]), "a name that is no text");
        assert!(refused(HEADER_BYTES - 1, &[1]), "padding");
        let first = HEADER_BYTES;
        assert!(refused(first, &(MAX_SHARD_ID + 1).to_le_bytes()), "a shard id");
        assert!(refused(first, &2_u32.to_le_bytes()), "shards out of order");
        for count in [0, 2, 4, u32::MAX] {
            assert!(refused(first + 4, &u32::to_le_bytes(count)), "{count} records of a shard");
        }
        assert!(refused(first + 8, &8_u64.to_le_bytes()), "a record that was never received");
        assert!(refused(first + SHARD_BYTES, &4_u64.to_le_bytes()), "records out of order");
        assert!(refused(first + SHARD_BYTES + 20, &2_u32.to_le_bytes()), "flags");
        assert!(forged(first + SHARD_BYTES, &2_u64.to_le_bytes()).is_ok(), "the test's own tool");
        assert_eq!(forged(8, &2_u32.to_le_bytes()), Err(WholeFileError::Version(2)));
        assert_eq!(forged(0, b"X"), Err(WholeFileError::Magic));
    }

    #[test]
    fn the_most_is_taken_and_no_more() {
        let shards = |count: u32| snapshot((0..count).map(|id| shard(id, 0, vec![])).collect());
        let records = |count: usize| {
            let records = (0..count).map(|number| record(number as u64, 1, false)).collect();
            snapshot(vec![shard(0, u64::MAX, records)])
        };
        for most in [shards(MAX_SHARDS), records(MAX_QUEUE_RECORDS)] {
            assert_eq!(QueueSnapshot::decode(&most.encode()), Ok(most));
        }
        for more in [shards(MAX_SHARDS + 1), records(MAX_QUEUE_RECORDS + 1)] {
            assert_eq!(QueueSnapshot::decode(&more.encode()), Err(WholeFileError::Field));
        }
    }
}
