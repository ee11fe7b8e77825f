//! What a shard leaves to one of its children: the states of tumbling windows that were open at its end. The layout is drawn in the
//! [room's documentation](super).

use super::reader::Reader;
use super::u32_of;
use super::whole::{self, CHECKSUM_BYTES, WholeFileError};
use crate::limits::{
    MAX_KEY_STATE_BYTES, MAX_PARTITION_KEY_BYTES, MAX_PARTITION_KEY_CHARS, MAX_SHARD_ID, MAX_SHARD_STATE_BYTES,
};
use crate::types::{HashKey, ShardId, StreamId, Timestamp};

/// In front of the states.
const HEADER_BYTES: usize = 64;
/// In front of a state's key.
const STATE_BYTES: usize = 40;
const MAGIC: [u8; 8] = *b"ANABRWIN";

/// The longest file: a state counts more than it takes here.
pub(crate) const MAX_FILE_BYTES: usize = HEADER_BYTES + MAX_SHARD_STATE_BYTES + CHECKSUM_BYTES;

const _: () = assert!(STATE_BYTES <= crate::limits::KEY_STATE_OVERHEAD_BYTES);

/// The open windows that a child gets from one of its parents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WindowsSnapshot {
    pub(crate) stream_id: StreamId,
    /// That of the consumer's own file: an earlier consumer of the same name had another.
    pub(crate) file_id: u128,
    pub(crate) child: ShardId,
    pub(crate) parent: ShardId,
    /// By ascending window, hash key and partition key.
    pub(crate) states: Vec<WindowState>,
}

/// The state of one key in one window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WindowState {
    pub(crate) start: Timestamp,
    pub(crate) end: Timestamp,
    pub(crate) hash_key: HashKey,
    pub(crate) partition_key: String,
    pub(crate) state: Vec<u8>,
}

impl WindowsSnapshot {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = whole::begin(MAGIC, HEADER_BYTES);
        bytes.extend_from_slice(&u32_of(self.states.len()).to_le_bytes());
        bytes.extend_from_slice(&self.stream_id.get().to_le_bytes());
        bytes.extend_from_slice(&self.file_id.to_le_bytes());
        bytes.extend_from_slice(&self.child.get().to_le_bytes());
        bytes.extend_from_slice(&self.parent.get().to_le_bytes());
        bytes.resize(HEADER_BYTES, 0);
        for state in &self.states {
            state.encode_to(&mut bytes);
        }
        whole::seal(bytes)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, WholeFileError> {
        whole::unseal(bytes, MAGIC).and_then(|fields| Self::decode_fields(fields).ok_or(WholeFileError::Field))
    }

    fn decode_fields(mut reader: Reader<'_>) -> Option<Self> {
        let count = usize::try_from(reader.u32()?).ok()?;
        let (stream_id, file_id) = (StreamId::new(reader.u128()?), reader.u128()?);
        let mut shard = || reader.u32().filter(|id| *id <= MAX_SHARD_ID).map(ShardId::new);
        let (child, parent) = (shard()?, shard()?);
        reader.zeros(HEADER_BYTES - 56)?;
        // What the count claims is there: nothing is allocated on its word alone.
        let room = reader.left();
        if count > room / STATE_BYTES || room > MAX_SHARD_STATE_BYTES {
            return None;
        }
        let states = (0..count).map(|_| WindowState::decode(&mut reader)).collect::<Option<Vec<_>>>()?;
        reader.end()?;
        let ascend = states.is_sorted_by(|a, b| a.order() < b.order());
        ascend.then_some(Self { stream_id, file_id, child, parent, states })
    }
}

#[cfg(test)]
impl WindowState {
    /// One for the tests of those who keep such.
    pub(crate) fn example() -> Self {
        Self {
            start: Timestamp::from_millis(0),
            end: Timestamp::from_millis(10),
            hash_key: HashKey::new(1),
            partition_key: "key".to_owned(),
            state: vec![1],
        }
    }
}

impl WindowState {
    pub(crate) fn order(&self) -> (Timestamp, Timestamp, HashKey, &str) {
        (self.start, self.end, self.hash_key, &self.partition_key)
    }

    fn encode_to(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.start.as_millis().to_le_bytes());
        bytes.extend_from_slice(&self.end.as_millis().to_le_bytes());
        bytes.extend_from_slice(&self.hash_key.get().to_le_bytes());
        bytes.extend_from_slice(&u32_of(self.partition_key.len()).to_le_bytes());
        bytes.extend_from_slice(&u32_of(self.state.len()).to_le_bytes());
        bytes.extend_from_slice(self.partition_key.as_bytes());
        bytes.extend_from_slice(&self.state);
    }

    fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let (start, end) = (Timestamp::from_millis(reader.i64()?), Timestamp::from_millis(reader.i64()?));
        let hash_key = HashKey::new(reader.u128()?);
        let mut length = |most: usize| usize::try_from(reader.u32()?).ok().filter(|bytes| *bytes <= most);
        let (key_bytes, state_bytes) = (length(MAX_PARTITION_KEY_BYTES)?, length(MAX_KEY_STATE_BYTES)?);
        let partition_key = std::str::from_utf8(reader.take(key_bytes)?).ok()?.to_owned();
        let state = reader.take(state_bytes)?.to_vec();
        let is_key = (1..=MAX_PARTITION_KEY_CHARS).contains(&partition_key.chars().count());
        let is_sound = start < end && is_key && !state.is_empty();
        is_sound.then_some(Self { start, end, hash_key, partition_key, state })
    }
}

/// A count or a length that is within its limit.
#[cfg(test)]
mod tests {
    use super::*;

    fn state(start: i64, hash_key: u128, partition_key: &str, state: &[u8]) -> WindowState {
        WindowState {
            start: Timestamp::from_millis(start),
            end: Timestamp::from_millis(start + 60_000),
            hash_key: HashKey::new(hash_key),
            partition_key: partition_key.to_owned(),
            state: state.to_vec(),
        }
    }

    fn snapshot(states: Vec<WindowState>) -> WindowsSnapshot {
        let (child, parent) = (ShardId::new(9), ShardId::new(4));
        WindowsSnapshot { stream_id: StreamId::new(7), file_id: 8, child, parent, states }
    }

    fn large() -> WindowsSnapshot {
        snapshot(vec![
            state(-60_000, 3, "b", b"12"),
            state(-60_000, 3, "c", b"\0"),
            state(-60_000, u128::MAX, "a", b"345"),
            state(0, 0, "a", b"6"),
        ])
    }

    /// Changes a field and makes the checksum right again.
    fn forged(at: usize, field: &[u8]) -> Result<WindowsSnapshot, WholeFileError> {
        let mut bytes = large().encode();
        bytes[at..at + field.len()].copy_from_slice(field);
        let end = bytes.len() - CHECKSUM_BYTES;
        let checksum = crc32fast::hash(&bytes[..end]);
        bytes[end..].copy_from_slice(&checksum.to_le_bytes());
        WindowsSnapshot::decode(&bytes)
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let longest = snapshot(vec![state(
            i64::MIN,
            1,
            &"\u{10ffff}".repeat(MAX_PARTITION_KEY_CHARS),
            &vec![7; MAX_KEY_STATE_BYTES],
        )]);
        for snapshot in [snapshot(vec![]), large(), longest] {
            assert_eq!(WindowsSnapshot::decode(&snapshot.encode()), Ok(snapshot));
        }
    }

    #[test]
    fn a_flipped_bit_and_a_missing_byte_are_seen() {
        let whole = large().encode();
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(WindowsSnapshot::decode(&bytes).is_err(), "bit {bit}");
        }
        for length in 0..whole.len() {
            assert!(WindowsSnapshot::decode(&whole[..length]).is_err(), "{length} bytes");
        }
        let mut longer = whole;
        longer.push(0);
        assert!(WindowsSnapshot::decode(&longer).is_err());
    }

    #[test]
    fn fields_out_of_their_ranges_are_refused_under_a_right_checksum() {
        let refused = |at: usize, field: &[u8]| forged(at, field) == Err(WholeFileError::Field);
        for count in [0, 3, 5, u32::MAX] {
            assert!(refused(12, &u32::to_le_bytes(count)), "{count} states");
        }
        assert!(refused(48, &(MAX_SHARD_ID + 1).to_le_bytes()), "a child's id");
        assert!(refused(52, &(MAX_SHARD_ID + 1).to_le_bytes()), "a parent's id");
        assert!(refused(HEADER_BYTES - 1, &[1]), "padding");
        let first = HEADER_BYTES;
        assert!(refused(first, &1_i64.to_le_bytes()), "a window that ends before it starts");
        assert!(refused(first + 16, &4_u128.to_le_bytes()), "states out of order");
        for length in [0, 2, u32::MAX] {
            assert!(refused(first + 32, &u32::to_le_bytes(length)), "a key of {length} bytes");
            assert!(refused(first + 36, &u32::to_le_bytes(if length == 2 { 1 } else { length })), "a state");
        }
        assert!(refused(first + STATE_BYTES, &[0xff]), "a key that is no text");
        assert!(forged(first + STATE_BYTES, b"a").is_ok(), "the test's own tool");
        assert_eq!(forged(8, &2_u32.to_le_bytes()), Err(WholeFileError::Version(2)));
        assert_eq!(forged(0, b"X"), Err(WholeFileError::Magic));
    }

    #[test]
    fn states_that_cannot_be_are_refused() {
        let decoded = |states: Vec<WindowState>| WindowsSnapshot::decode(&snapshot(states).encode());
        let sound = state(0, 1, "a", b"1");
        for (state, why) in [
            (WindowState { end: sound.start, ..sound.clone() }, "a window without extent"),
            (WindowState { partition_key: String::new(), ..sound.clone() }, "no key"),
            (
                WindowState { partition_key: "k".repeat(MAX_PARTITION_KEY_CHARS + 1), ..sound.clone() },
                "a long key",
            ),
            (WindowState { state: vec![], ..sound.clone() }, "no state"),
            (WindowState { state: vec![0; MAX_KEY_STATE_BYTES + 1], ..sound.clone() }, "a long state"),
        ] {
            assert_eq!(decoded(vec![state]), Err(WholeFileError::Field), "{why}");
        }
        assert_eq!(decoded(vec![sound.clone(), sound]), Err(WholeFileError::Field), "a state twice");
    }

    #[test]
    fn the_most_is_taken_and_no_more() {
        // Each takes as much as the largest state.
        let bytes = vec![1; MAX_KEY_STATE_BYTES - STATE_BYTES - 1];
        let count = (MAX_SHARD_STATE_BYTES / MAX_KEY_STATE_BYTES) as u128;
        let mut most = snapshot((0..count).map(|hash_key| state(0, hash_key, "a", &bytes)).collect());
        assert_eq!(most.encode().len(), MAX_FILE_BYTES);
        assert!(WindowsSnapshot::decode(&most.encode()).is_ok_and(|decoded| decoded == most));
        most.states[0].state.push(1);
        assert_eq!(WindowsSnapshot::decode(&most.encode()), Err(WholeFileError::Field));
    }
}
