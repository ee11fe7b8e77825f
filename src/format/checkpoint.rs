//! A consumer's file: its header, and the copies of its slots. The layouts are drawn in the [room's documentation](super).

use super::reader::Reader;
use super::whole::only_version_differs;
use super::{FORMAT_VERSION, Seed, u32_of};
use crate::limits::{MAX_CONSUMER_SLOTS, MAX_NAME_CHARS, MAX_SHARD_ID};
use crate::types::{SequenceNumber, ShardId, StreamId, Timestamp};

/// The header; the slots start behind it.
pub(crate) const HEADER_BYTES: usize = 256;
/// One copy of a slot.
pub(crate) const COPY_BYTES: usize = 256;
/// Copies of a slot.
pub(crate) const COPIES: usize = 3;
/// One slot.
pub(crate) const SLOT_BYTES: usize = COPIES * COPY_BYTES;
/// Where the mark of a deleted consumer stands: behind what the header's checksum covers, and of a size that does not tear.
pub(crate) const MARK_POSITION: usize = 248;
/// That mark; zeros in the file of a consumer that is there.
pub(crate) const DELETED_MARK: [u8; 8] = *b"DELETED\0";

const MAGIC: [u8; 8] = *b"ANABRCON";
const CHECKED_BYTES: usize = 244;
const NAME_BYTES: usize = MAX_NAME_CHARS;
const OWNER_BYTES: usize = MAX_NAME_CHARS;
/// Behind the name.
const SLOTS_POSITION: usize = 56 + NAME_BYTES;

/// The front of a consumer's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConsumerHeader {
    pub(crate) stream_id: StreamId,
    /// Drawn when the file was made: another consumer of the same name, later, is another one.
    pub(crate) file_id: u128,
    pub(crate) created: Timestamp,
    pub(crate) name: String,
    /// How many slots the file was made with: it never has fewer.
    pub(crate) slots: u32,
}

/// Why a header does not decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConsumerHeaderError {
    #[error("it is no consumer's file")]
    Magic,
    #[error("format version {0}")]
    Version(u32),
    #[error("the header's checksum does not match")]
    Checksum,
    #[error("a field of the header is out of its range")]
    Field,
}

impl ConsumerHeader {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let name = self.name.as_bytes();
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&u32_of(name.len()).to_le_bytes());
        bytes[16..32].copy_from_slice(&self.stream_id.get().to_le_bytes());
        bytes[32..48].copy_from_slice(&self.file_id.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.created.as_millis().to_le_bytes());
        bytes[56..56 + name.len()].copy_from_slice(name);
        bytes[SLOTS_POSITION..SLOTS_POSITION + 4].copy_from_slice(&self.slots.to_le_bytes());
        let checksum = crc32fast::hash(&bytes[..CHECKED_BYTES]);
        bytes[CHECKED_BYTES..MARK_POSITION].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// The mark behind the header is not looked at.
    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, ConsumerHeaderError> {
        let mut reader = Reader::new(bytes);
        if reader.array() != Some(MAGIC) {
            return Err(ConsumerHeaderError::Magic);
        }
        let version = reader.u32().ok_or(ConsumerHeaderError::Field)?;
        let checked = &bytes[..CHECKED_BYTES];
        let stored = Reader::new(&bytes[CHECKED_BYTES..]).u32().ok_or(ConsumerHeaderError::Field)?;
        if version != FORMAT_VERSION && !only_version_differs(checked, stored) {
            return Err(ConsumerHeaderError::Version(version));
        }
        if crc32fast::hash(checked) != stored {
            return Err(ConsumerHeaderError::Checksum);
        }
        Self::decode_fields(&mut reader).ok_or(ConsumerHeaderError::Field)
    }

    fn decode_fields(reader: &mut Reader<'_>) -> Option<Self> {
        let name_bytes = usize::try_from(reader.u32()?).ok()?;
        let stream_id = StreamId::new(reader.u128()?);
        let file_id = reader.u128()?;
        let created = Timestamp::from_millis(reader.i64()?);
        let name = text(reader, name_bytes, NAME_BYTES)?;
        let slots = reader.u32()?;
        reader.zeros(CHECKED_BYTES - SLOTS_POSITION - 4)?;
        let is_sound = !name.is_empty() && slots <= MAX_CONSUMER_SLOTS;
        is_sound.then_some(Self { stream_id, file_id, created, name, slots })
    }

    /// The seed of the checksums of a slot: bytes of another stream, file or slot never pass for its own.
    pub(crate) fn seed(&self, slot: u32) -> Seed {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.stream_id.get().to_le_bytes());
        hasher.update(&self.file_id.to_le_bytes());
        hasher.update(&slot.to_le_bytes());
        Seed(hasher.finalize())
    }
}

/// Where a consumer stands in a shard, as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoredPosition {
    /// Nothing is done: from the oldest record on.
    TrimHorizon,
    /// Nothing is done: from the first record on that arrived at this time or later.
    AtTimestamp(Timestamp),
    /// Everything up to and including this record is done, or up to and including a part of it.
    After { sequence_number: SequenceNumber, sub_sequence_number: Option<u64>, incarnation: u64 },
    /// Everything is done: the shard ends before this number.
    ShardEnd { next: SequenceNumber, incarnation: u64 },
}

/// What a slot holds of one shard: who works on it, and how far the work is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlotState {
    pub(crate) shard_id: ShardId,
    /// Raised by every change of the owner, and by every reset.
    pub(crate) epoch: u64,
    /// Empty while nobody has it.
    pub(crate) owner: String,
    /// Raised by each renewal: what stands still is nobody's any more, after `lease_ms`.
    pub(crate) renewals: u64,
    /// How long the owner's lease lasts without a renewal, in milliseconds; 0 for one that does not end.
    pub(crate) lease_ms: u64,
    pub(crate) position: StoredPosition,
}

/// One copy of a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlotCopy {
    /// Raised by every write to the slot.
    pub(crate) version: u64,
    /// The copies of the slot up to this version were durable when this one was written.
    pub(crate) durable: u64,
    /// Whether it is acknowledged only after a sync.
    pub(crate) synced: bool,
    /// The file had so many slots at least, durably, when this was written; it never has fewer.
    pub(crate) slots: u32,
    pub(crate) state: SlotState,
}

/// Most that a counter can have got to, one by one: above it there is always room for the next.
const MAX_COUNT: u64 = u64::MAX / 2;

const TRIM_HORIZON: u32 = 1;
const AT_TIMESTAMP: u32 = 2;
const AFTER: u32 = 3;
const AFTER_PART: u32 = 4;
const SHARD_END: u32 = 5;
const SYNCED: u32 = 1;

impl StoredPosition {
    /// Kind, number, sub-sequence number, incarnation.
    fn fields(self) -> (u32, u64, u64, u64) {
        match self {
            Self::TrimHorizon => (TRIM_HORIZON, 0, 0, 0),
            Self::AtTimestamp(time) => (AT_TIMESTAMP, time.as_millis().cast_unsigned(), 0, 0),
            Self::After { sequence_number, sub_sequence_number: None, incarnation } => {
                (AFTER, sequence_number.get(), 0, incarnation)
            }
            Self::After { sequence_number, sub_sequence_number: Some(part), incarnation } => {
                (AFTER_PART, sequence_number.get(), part, incarnation)
            }
            Self::ShardEnd { next, incarnation } => (SHARD_END, next.get(), 0, incarnation),
        }
    }

    fn of_fields((kind, number, part, incarnation): (u32, u64, u64, u64)) -> Option<Self> {
        let sequence_number = SequenceNumber::new(number);
        let position = match kind {
            TRIM_HORIZON => Self::TrimHorizon,
            AT_TIMESTAMP => Self::AtTimestamp(Timestamp::from_millis(number.cast_signed())),
            AFTER => Self::After { sequence_number, sub_sequence_number: None, incarnation },
            AFTER_PART => Self::After { sequence_number, sub_sequence_number: Some(part), incarnation },
            SHARD_END => Self::ShardEnd { next: sequence_number, incarnation },
            _ => return None,
        };
        // What a kind has no use for is zero.
        (position.fields() == (kind, number, part, incarnation)).then_some(position)
    }
}

impl SlotCopy {
    pub(crate) fn encode(&self, seed: Seed) -> [u8; COPY_BYTES] {
        let mut bytes = [0; COPY_BYTES];
        let state = &self.state;
        let owner = state.owner.as_bytes();
        let (kind, number, part, incarnation) = state.position.fields();
        bytes[4..8].copy_from_slice(&state.shard_id.get().to_le_bytes());
        bytes[8..16].copy_from_slice(&self.version.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.durable.to_le_bytes());
        bytes[24..28].copy_from_slice(&if self.synced { SYNCED } else { 0 }.to_le_bytes());
        bytes[28..32].copy_from_slice(&kind.to_le_bytes());
        bytes[32..40].copy_from_slice(&number.to_le_bytes());
        bytes[40..48].copy_from_slice(&part.to_le_bytes());
        bytes[48..56].copy_from_slice(&incarnation.to_le_bytes());
        bytes[56..64].copy_from_slice(&state.epoch.to_le_bytes());
        bytes[64..72].copy_from_slice(&state.renewals.to_le_bytes());
        bytes[72..80].copy_from_slice(&state.lease_ms.to_le_bytes());
        bytes[80..84].copy_from_slice(&u32_of(owner.len()).to_le_bytes());
        bytes[84..88].copy_from_slice(&self.slots.to_le_bytes());
        bytes[88..88 + owner.len()].copy_from_slice(owner);
        let checksum = seed.checksum(&bytes[4..]);
        bytes[0..4].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Nothing where the copy was never written, or is not whole.
    pub(crate) fn decode(bytes: &[u8; COPY_BYTES], seed: Seed) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        if reader.u32()? != seed.checksum(&bytes[4..]) {
            return None;
        }
        let shard_id = ShardId::new(reader.u32()?);
        let (version, durable, flags) = (reader.u64()?, reader.u64()?, reader.u32()?);
        let position = StoredPosition::of_fields((reader.u32()?, reader.u64()?, reader.u64()?, reader.u64()?))?;
        let (epoch, renewals, lease_ms) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let owner_bytes = usize::try_from(reader.u32()?).ok()?;
        let slots = reader.u32()?;
        let owner = text(&mut reader, owner_bytes, OWNER_BYTES)?;
        reader.zeros(COPY_BYTES - 88 - OWNER_BYTES)?;
        reader.end()?;
        let counts = [version, epoch, renewals].iter().all(|count| *count <= MAX_COUNT);
        let in_range = counts
            && shard_id.get() <= MAX_SHARD_ID
            && durable < version
            && flags <= SYNCED
            && slots <= MAX_CONSUMER_SLOTS;
        let state = SlotState { shard_id, epoch, owner, renewals, lease_ms, position };
        in_range.then_some(Self { version, durable, synced: flags == SYNCED, slots, state })
    }
}

/// Text of `bytes` bytes in a field of `field` bytes, zeros behind it.
fn text(reader: &mut Reader<'_>, bytes: usize, field: usize) -> Option<String> {
    let padding = field.checked_sub(bytes)?;
    let text = std::str::from_utf8(reader.take(bytes)?).ok()?;
    reader.zeros(padding)?;
    Some(text.to_owned())
}

/// A length that is within a field's.
#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> ConsumerHeader {
        ConsumerHeader {
            stream_id: StreamId::new(7),
            file_id: 9,
            created: Timestamp::from_millis(-5),
            name: "billing".to_owned(),
            slots: 3,
        }
    }

    fn copies() -> Vec<SlotCopy> {
        let number = SequenceNumber::new(100);
        let positions = [
            StoredPosition::TrimHorizon,
            StoredPosition::AtTimestamp(Timestamp::from_millis(-77)),
            StoredPosition::After { sequence_number: number, sub_sequence_number: None, incarnation: 5 },
            StoredPosition::After { sequence_number: number, sub_sequence_number: Some(0), incarnation: 5 },
            StoredPosition::ShardEnd { next: number, incarnation: 5 },
        ];
        let owners = ["", "w", &"o".repeat(OWNER_BYTES)];
        let copy = |(index, position): (u64, StoredPosition)| SlotCopy {
            version: 10 + index,
            durable: 9,
            synced: index % 2 == 0,
            slots: 4,
            state: SlotState {
                shard_id: ShardId::new(3),
                epoch: 2,
                owner: owners[usize::try_from(index).unwrap() % 3].to_owned(),
                renewals: 44,
                lease_ms: 10_000,
                position,
            },
        };
        (0..).zip(positions).map(copy).collect()
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        for name in ["a", "billing", &"n".repeat(NAME_BYTES)] {
            let header = ConsumerHeader { name: name.to_owned(), ..header() };
            assert_eq!(ConsumerHeader::decode(&header.encode()), Ok(header));
        }
        let seed = header().seed(1);
        for copy in copies() {
            assert_eq!(SlotCopy::decode(&copy.encode(seed), seed), Some(copy));
        }
    }

    #[test]
    fn a_flipped_bit_is_seen() {
        let whole = header().encode();
        for bit in 0..MARK_POSITION * 8 {
            let mut bytes = whole;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(ConsumerHeader::decode(&bytes).is_err(), "bit {bit}");
        }
        let seed = header().seed(1);
        for copy in copies() {
            let whole = copy.encode(seed);
            for bit in 0..COPY_BYTES * 8 {
                let mut bytes = whole;
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(SlotCopy::decode(&bytes, seed), None, "bit {bit}");
            }
        }
    }

    #[test]
    fn a_copy_of_another_stream_file_or_slot_is_none() {
        let copy = &copies()[2];
        let bytes = copy.encode(header().seed(1));
        let others = [
            header().seed(2),
            ConsumerHeader { file_id: 10, ..header() }.seed(1),
            ConsumerHeader { stream_id: StreamId::new(8), ..header() }.seed(1),
        ];
        for seed in others {
            assert_eq!(SlotCopy::decode(&bytes, seed), None);
        }
        assert_eq!(SlotCopy::decode(&[0; COPY_BYTES], header().seed(1)), None);
    }

    #[test]
    fn fields_out_of_their_ranges_are_refused_under_a_right_checksum() {
        let seed = header().seed(1);
        let refused = |at: usize, field: &[u8]| {
            let mut bytes = copies()[2].encode(seed);
            bytes[at..at + field.len()].copy_from_slice(field);
            let checksum = seed.checksum(&bytes[4..]);
            bytes[0..4].copy_from_slice(&checksum.to_le_bytes());
            SlotCopy::decode(&bytes, seed).is_none()
        };
        assert!(refused(4, &(MAX_SHARD_ID + 1).to_le_bytes()), "shard id");
        assert!(refused(16, &12_u64.to_le_bytes()), "durable before it was written");
        for at in [8, 56, 64] {
            assert!(refused(at, &(MAX_COUNT + 1).to_le_bytes()), "the counter at {at}");
        }
        assert!(refused(24, &2_u32.to_le_bytes()), "flags");
        assert!(refused(84, &(MAX_CONSUMER_SLOTS + 1).to_le_bytes()), "count of slots");
        for kind in [0_u32, 6] {
            assert!(refused(28, &kind.to_le_bytes()), "kind {kind}");
        }
        assert!(refused(40, &1_u64.to_le_bytes()), "a part of a whole record");
        for length in [u32::MAX, u32_of(OWNER_BYTES) + 1] {
            assert!(refused(80, &length.to_le_bytes()), "owner's length {length}");
        }
        assert!(refused(80, &[1, 0, 0, 0, 0, 0, 0, 0, 0xff]), "an owner that is no text");
        assert!(refused(255, &[1]), "padding");
        assert!(!refused(64, &45_u64.to_le_bytes()), "the test's own tool");
    }

    #[test]
    fn later_versions_and_other_files_are_told_apart() {
        let mut bytes = header().encode();
        bytes[8] = 2;
        assert_eq!(
            ConsumerHeader::decode(&bytes),
            Err(ConsumerHeaderError::Checksum),
            "only the version is another"
        );
        let checksum = crc32fast::hash(&bytes[..CHECKED_BYTES]);
        bytes[CHECKED_BYTES..MARK_POSITION].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(ConsumerHeader::decode(&bytes), Err(ConsumerHeaderError::Version(2)));
        bytes[0] = b'X';
        assert_eq!(ConsumerHeader::decode(&bytes), Err(ConsumerHeaderError::Magic));
    }

    #[test]
    fn fields_of_the_header_out_of_their_ranges_are_refused_under_a_right_checksum() {
        let forged = |at: usize, field: &[u8]| {
            let mut bytes = header().encode();
            bytes[at..at + field.len()].copy_from_slice(field);
            let checksum = crc32fast::hash(&bytes[..CHECKED_BYTES]);
            bytes[CHECKED_BYTES..MARK_POSITION].copy_from_slice(&checksum.to_le_bytes());
            ConsumerHeader::decode(&bytes)
        };
        let refused = |at: usize, field: &[u8]| forged(at, field) == Err(ConsumerHeaderError::Field);
        for length in [0, 6, u32_of(NAME_BYTES) + 1, u32::MAX] {
            assert!(refused(12, &length.to_le_bytes()), "a name of {length} bytes");
        }
        assert!(refused(56, &[0xff]), "a name that is no text");
        for at in [SLOTS_POSITION + 4, CHECKED_BYTES - 1] {
            assert!(refused(at, &[1]), "padding at {at}");
        }
        let nameless = ConsumerHeader { name: String::new(), ..header() };
        assert_eq!(ConsumerHeader::decode(&nameless.encode()), Err(ConsumerHeaderError::Field));
        assert!(forged(32, &[10]).is_ok(), "the test's own tool");
        assert_eq!(forged(8, &2_u32.to_le_bytes()), Err(ConsumerHeaderError::Version(2)));
        assert_eq!(forged(0, b"X"), Err(ConsumerHeaderError::Magic));
    }
}
