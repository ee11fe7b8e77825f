//! The frame: one record in a segment. The layout is drawn in the [room's documentation](super).

use super::reader::Reader;
use super::{Checker, Seed, padded};
use crate::limits::{MAX_DATA_BYTES, MAX_PARTITION_KEY_BYTES};
use crate::types::{HashKey, SequenceNumber, Timestamp};

/// The fixed part of a frame.
pub(crate) const HEADER_BYTES: usize = 40;

const HASH_KEY_BYTES: usize = 16;
/// What a producer stamp adds to a frame.
pub(crate) const STAMP_BYTES: usize = 24;
const FLAG_HASH_KEY: u8 = 1;
const FLAG_STAMP: u8 = 2;

/// The longest frame that is believed.
const MAX_FRAME_BYTES: usize =
    HEADER_BYTES + HASH_KEY_BYTES + STAMP_BYTES + MAX_PARTITION_KEY_BYTES + MAX_DATA_BYTES as usize;

/// Which batch of which producer a record came with: in the first frame of the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProducerStamp {
    pub(crate) producer_id: u64,
    pub(crate) epoch: u32,
    pub(crate) batch_number: u64,
}

/// What a frame is made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FrameInput<'a> {
    pub(crate) sequence_number: SequenceNumber,
    pub(crate) arrival: Timestamp,
    /// All records of the shard below this number are durable.
    pub(crate) durable: SequenceNumber,
    /// How many records of the same batch follow.
    pub(crate) batch_remaining: u32,
    pub(crate) explicit_hash_key: Option<HashKey>,
    pub(crate) producer: Option<ProducerStamp>,
    pub(crate) partition_key: &'a str,
    pub(crate) data: &'a [u8],
}

/// A decoded frame: its checksum holds and its fields are within their limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) sequence_number: SequenceNumber,
    pub(crate) arrival: Timestamp,
    pub(crate) durable: SequenceNumber,
    pub(crate) batch_remaining: u32,
    pub(crate) explicit_hash_key: Option<HashKey>,
    pub(crate) producer: Option<ProducerStamp>,
    pub(crate) partition_key: &'a str,
    pub(crate) data: &'a [u8],
    /// Bytes from this frame's start to the next one's.
    pub(crate) size: usize,
}

/// Why bytes are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("nothing was written here")]
    Empty,
    #[error("the frame's length is impossible")]
    Length,
    #[error("the frame's checksum does not match")]
    Checksum,
    #[error("the frame's fields contradict each other")]
    Fields,
}

/// The bytes that a record takes in a segment.
pub(crate) fn frame_bytes(explicit_hash_key: Option<HashKey>, partition_key: &str, data: &[u8]) -> usize {
    let hash_key_bytes = if explicit_hash_key.is_some() { HASH_KEY_BYTES } else { 0 };
    padded(HEADER_BYTES + hash_key_bytes + partition_key.len() + data.len())
}

impl FrameInput<'_> {
    /// The frame's bytes without its padding.
    fn length(&self) -> usize {
        let hash_key_bytes = if self.explicit_hash_key.is_some() { HASH_KEY_BYTES } else { 0 };
        let stamp_bytes = if self.producer.is_some() { STAMP_BYTES } else { 0 };
        HEADER_BYTES + hash_key_bytes + stamp_bytes + self.partition_key.len() + self.data.len()
    }

    /// The bytes that the frame takes in a segment.
    pub(crate) fn size(&self) -> usize {
        padded(self.length())
    }
}

/// Writes the frame of a record into `out`, which has [`FrameInput::size`] bytes; what they held does not matter. The caller has
/// checked key and data against their limits, which are far below what the length fields hold.
#[allow(clippy::cast_possible_truncation, reason = "key and data are bounded by the limits")]
pub(crate) fn encode(out: &mut [u8], checker: &Checker, input: &FrameInput<'_>) {
    let length = input.length();
    let flags = if input.explicit_hash_key.is_some() { FLAG_HASH_KEY } else { 0 }
        | if input.producer.is_some() { FLAG_STAMP } else { 0 };
    let Some((header, mut rest)) = out.split_first_chunk_mut::<HEADER_BYTES>() else {
        return; // shorter than any frame
    };
    header[4..8].copy_from_slice(&(length as u32).to_le_bytes());
    header[8..16].copy_from_slice(&input.sequence_number.get().to_le_bytes());
    header[16..24].copy_from_slice(&input.arrival.as_millis().to_le_bytes());
    header[24..32].copy_from_slice(&input.durable.get().to_le_bytes());
    header[32..36].copy_from_slice(&input.batch_remaining.to_le_bytes());
    header[36..38].copy_from_slice(&(input.partition_key.len() as u16).to_le_bytes());
    header[38..40].copy_from_slice(&[flags, 0]);
    if let Some(hash_key) = input.explicit_hash_key {
        rest = put(rest, &hash_key.get().to_le_bytes());
    }
    if let Some(stamp) = input.producer {
        rest = put(rest, &stamp.producer_id.to_le_bytes());
        rest = put(rest, &stamp.epoch.to_le_bytes());
        rest = put(rest, &[0; 4]);
        rest = put(rest, &stamp.batch_number.to_le_bytes());
    }
    rest = put(rest, input.partition_key.as_bytes());
    rest = put(rest, input.data);
    rest.fill(0); // the padding

    if let Some((checksum, checked)) = out.split_first_chunk_mut() {
        *checksum = checker.checksum(checked).to_le_bytes();
    }
}

/// Copies `bytes` to the front of `room`; gives what is behind them.
fn put<'a>(room: &'a mut [u8], bytes: &[u8]) -> &'a mut [u8] {
    let Some((front, behind)) = room.split_at_mut_checked(bytes.len()) else {
        return &mut []; // shorter than the frame
    };
    front.copy_from_slice(bytes);
    behind
}

/// Appends the frame of a record.
pub(crate) fn encode_to(out: &mut Vec<u8>, seed: Seed, input: &FrameInput<'_>) {
    let start = out.len();
    out.resize(start + input.size(), 0);
    encode(out.get_mut(start..).unwrap_or_default(), &seed.checker(), input);
}

impl<'a> Frame<'a> {
    /// Decodes and checks the frame at the front of `bytes`.
    pub(crate) fn decode(bytes: &'a [u8], seed: Seed) -> Result<Self, FrameError> {
        RawFrame::check(bytes, &seed.checker())?.decode().ok_or(FrameError::Fields)
    }

    /// How many bytes the frame at the front of `bytes` says it has, if that is possible at all. `bytes` may end
    /// before the frame does, but must hold its first 8 bytes.
    #[inline]
    pub(crate) fn size_at(bytes: &[u8]) -> Result<usize, FrameError> {
        let front = bytes.first_chunk().map(|front| u64::from_le_bytes(*front)).ok_or(FrameError::Length)?;
        if front == 0 {
            return Err(FrameError::Empty);
        }
        let length = (front >> 32) as usize;
        if !(HEADER_BYTES..=MAX_FRAME_BYTES).contains(&length) {
            return Err(FrameError::Length);
        }
        Ok(padded(length))
    }

    /// The sequence number that a frame claims, before its checksum is looked at.
    pub(crate) fn claimed_sequence_number(bytes: &[u8]) -> Option<SequenceNumber> {
        Reader::new(bytes.get(8..)?).u64().map(SequenceNumber::new)
    }
}

/// A frame whose parts are told apart and not yet read: what a scan passes over, and what a reader is lent. Its fields are decoded when
/// they are asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawFrame<'a> {
    header: &'a [u8; HEADER_BYTES],
    /// Hash key and producer stamp.
    optional: &'a [u8],
    partition_key: &'a [u8],
    data: &'a [u8],
    /// From header to end of data.
    length: usize,
}

impl<'a> RawFrame<'a> {
    /// Checks the frame at the front of `bytes`: whatever is asked of it later is there, and as it was written.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "loops over frames look at little of what it gives")]
    pub(crate) fn check(bytes: &'a [u8], checker: &Checker) -> Result<Self, FrameError> {
        let size = Frame::size_at(bytes)?;
        let frame = bytes.get(..size).ok_or(FrameError::Length)?;
        let (stored, rest) = frame.split_first_chunk().ok_or(FrameError::Length)?;
        if checker.checksum(rest) != u32::from_le_bytes(*stored) {
            return Err(FrameError::Checksum);
        }
        if !Self::is_sound(frame) {
            return Err(FrameError::Fields);
        }
        Self::split(frame).ok_or(FrameError::Fields)
    }

    /// Whether a frame's fields are within their limits, its key is text, and nothing stands where nothing may.
    #[inline]
    fn is_sound(frame: &[u8]) -> bool {
        let (Some(header), Some(last)) = (frame.first_chunk::<HEADER_BYTES>(), frame.last_chunk()) else {
            return false;
        };
        let length = Self::field(header, 4, u32::from_le_bytes) as usize;
        let key_bytes = usize::from(Self::field(header, 36, u16::from_le_bytes));
        let flags = Self::field(header, 38, u16::from_le_bytes); // with the zero behind them
        let key_start = HEADER_BYTES + optional_bytes(header[38]);
        // The padding is in the last bytes of eight: the highest of a little-endian number.
        u64::from_le_bytes(*last).leading_zeros() as usize >= 8 * (frame.len() - length.min(frame.len()))
            && flags & !u16::from(FLAG_HASH_KEY | FLAG_STAMP) == 0
            && key_bytes <= MAX_PARTITION_KEY_BYTES
            && key_start + key_bytes <= length
            && (header[38] & FLAG_STAMP == 0 || stamp_before(frame, key_start).is_some())
            && frame.get(key_start..key_start + key_bytes).is_some_and(is_text)
    }

    /// The frame at the front of `bytes`, which was checked before; nothing, should its lengths contradict each other.
    #[inline]
    pub(crate) fn split(bytes: &'a [u8]) -> Option<Self> {
        let (header, _) = bytes.split_first_chunk::<HEADER_BYTES>()?;
        let length = Self::field(header, 4, u32::from_le_bytes) as usize;
        let key_bytes = usize::from(Self::field(header, 36, u16::from_le_bytes));
        let body = bytes.get(HEADER_BYTES..length)?;
        let (optional, body) = body.split_at_checked(optional_bytes(header[38]))?;
        let (partition_key, data) = body.split_at_checked(key_bytes)?;
        Some(Self { header, optional, partition_key, data, length })
    }

    pub(crate) fn decode(&self) -> Option<Frame<'a>> {
        Some(Frame {
            sequence_number: self.sequence_number(),
            arrival: self.arrival(),
            durable: SequenceNumber::new(Self::field(self.header, 24, u64::from_le_bytes)),
            batch_remaining: self.batch_remaining(),
            explicit_hash_key: self.explicit_hash_key(),
            producer: self.producer(),
            partition_key: std::str::from_utf8(self.partition_key).ok()?,
            data: self.data,
            size: self.size(),
        })
    }

    #[inline]
    pub(crate) fn sequence_number(&self) -> SequenceNumber {
        SequenceNumber::new(Self::field(self.header, 8, u64::from_le_bytes))
    }

    #[inline]
    pub(crate) fn arrival(&self) -> Timestamp {
        Timestamp::from_millis(Self::field(self.header, 16, i64::from_le_bytes))
    }

    #[inline]
    pub(crate) fn batch_remaining(&self) -> u32 {
        Self::field(self.header, 32, u32::from_le_bytes)
    }

    pub(crate) fn explicit_hash_key(&self) -> Option<HashKey> {
        let present = self.header[38] & FLAG_HASH_KEY != 0;
        let bytes = self.optional.first_chunk().filter(|_| present)?;
        Some(HashKey::new(u128::from_le_bytes(*bytes)))
    }

    #[inline]
    pub(crate) fn producer(&self) -> Option<ProducerStamp> {
        if self.header[38] & FLAG_STAMP == 0 {
            return None;
        }
        stamp_before(self.optional, self.optional.len())
    }

    #[inline]
    pub(crate) fn partition_key(&self) -> &'a [u8] {
        self.partition_key
    }

    #[inline]
    pub(crate) fn data(&self) -> &'a [u8] {
        self.data
    }

    /// Bytes from this frame's start to the next one's.
    #[inline]
    pub(crate) fn size(&self) -> usize {
        padded(self.length)
    }

    /// How many bytes behind the data, below 8, belong to the frame.
    #[inline]
    pub(crate) fn padding(&self) -> usize {
        self.size() - self.length
    }

    #[inline]
    fn field<const N: usize, T>(header: &[u8; HEADER_BYTES], position: usize, read: fn([u8; N]) -> T) -> T {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&header[position..position + N]);
        read(bytes)
    }
}

/// The bytes of hash key and producer stamp.
#[inline]
fn optional_bytes(flags: u8) -> usize {
    usize::from(flags & FLAG_HASH_KEY) * HASH_KEY_BYTES + usize::from(flags & FLAG_STAMP) / 2 * STAMP_BYTES
}

/// The producer stamp that ends at `end`.
fn stamp_before(bytes: &[u8], end: usize) -> Option<ProducerStamp> {
    let mut reader = Reader::new(bytes.get(end.checked_sub(STAMP_BYTES)?..end)?);
    let producer_id = reader.u64()?;
    let epoch = reader.u32()?;
    reader.zeros(4)?;
    let batch_number = reader.u64()?;
    Some(ProducerStamp { producer_id, epoch, batch_number })
}

/// Whether bytes are UTF-8; most keys are ASCII, which is told sooner.
#[inline]
fn is_text(bytes: &[u8]) -> bool {
    bytes.is_ascii() || std::str::from_utf8(bytes).is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn input<'a>(key: &'a str, data: &'a [u8], hash_key: Option<u128>, stamped: bool) -> FrameInput<'a> {
        FrameInput {
            sequence_number: SequenceNumber::new(7),
            arrival: Timestamp::from_millis(-5),
            durable: SequenceNumber::new(3),
            batch_remaining: 2,
            explicit_hash_key: hash_key.map(HashKey::new),
            producer: stamped.then_some(ProducerStamp { producer_id: 1, epoch: 2, batch_number: 3 }),
            partition_key: key,
            data,
        }
    }

    proptest! {
        #[test]
        fn decodes_what_was_encoded(key in ".{1,30}", data: Vec<u8>, hash_key: Option<u128>, stamped: bool) {
            let input = input(&key, &data, hash_key, stamped);
            let mut bytes = Vec::new();
            encode_to(&mut bytes, Seed(9), &input);
            prop_assert_eq!(bytes.len(), input.size());
            if !stamped {
                prop_assert_eq!(bytes.len(), frame_bytes(input.explicit_hash_key, &key, &data));
            }
            // What stood in the place before does not matter.
            let mut used = vec![0xff; input.size()];
            encode(&mut used, &Seed(9).checker(), &input);
            prop_assert_eq!(&used, &bytes);
            bytes.extend_from_slice(b"behind it");
            let frame = Frame::decode(&bytes, Seed(9)).unwrap();
            prop_assert_eq!(frame.size, bytes.len() - 9);
            prop_assert_eq!(frame.sequence_number, input.sequence_number);
            prop_assert_eq!(frame.arrival, input.arrival);
            prop_assert_eq!(frame.durable, input.durable);
            prop_assert_eq!(frame.batch_remaining, 2);
            prop_assert_eq!(frame.explicit_hash_key, input.explicit_hash_key);
            prop_assert_eq!(frame.producer, input.producer);
            prop_assert_eq!(frame.partition_key, key.as_str());
            prop_assert_eq!(frame.data, data.as_slice());
            prop_assert_eq!(RawFrame::split(&bytes).and_then(|raw| raw.decode()), Some(frame));
        }

        #[test]
        fn any_bytes_give_a_frame_or_an_error(bytes: Vec<u8>) {
            let _ = Frame::decode(&bytes, Seed(0));
            let _ = RawFrame::split(&bytes).map(|raw| (raw.decode(), raw.padding()));
        }
    }

    #[test]
    fn every_bit_of_a_frame_is_checked() {
        let mut bytes = Vec::new();
        encode_to(&mut bytes, Seed(1), &input("key", b"some data", Some(5), true));
        for position in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[position] ^= 1 << bit;
                assert!(Frame::decode(&damaged, Seed(1)).is_err(), "byte {position} bit {bit}");
            }
        }
    }

    #[test]
    fn a_frame_of_another_life_is_refused() {
        let mut bytes = Vec::new();
        encode_to(&mut bytes, Seed(1), &input("key", b"data", None, false));
        assert_eq!(Frame::decode(&bytes, Seed(2)), Err(FrameError::Checksum));
    }

    #[test]
    fn the_longest_frame_is_believed_and_no_longer_one() {
        assert_eq!(MAX_FRAME_BYTES, 40 + 16 + 24 + MAX_PARTITION_KEY_BYTES + MAX_DATA_BYTES as usize);
        let claim = |length: usize| {
            let mut bytes = vec![0; 8];
            bytes[4..].copy_from_slice(&u32::try_from(length).unwrap().to_le_bytes());
            Frame::size_at(&bytes)
        };
        // A checksum may be zero; a length may not.
        assert_eq!(claim(HEADER_BYTES), Ok(HEADER_BYTES));
        assert_eq!(claim(MAX_FRAME_BYTES), Ok(padded(MAX_FRAME_BYTES)));
        assert_eq!(claim(MAX_FRAME_BYTES + 1), Err(FrameError::Length));
        assert_eq!(claim(HEADER_BYTES - 1), Err(FrameError::Length));
        assert_eq!(Frame::size_at(&[1, 0, 0, 0, 0, 0, 0, 0]), Err(FrameError::Length));
    }

    #[test]
    fn contradictions_are_refused_even_with_a_sound_checksum() {
        let key = "k".repeat(MAX_PARTITION_KEY_BYTES + 1);
        let frame = |key: &str, change: fn(&mut Vec<u8>)| {
            let mut bytes = Vec::new();
            encode_to(&mut bytes, Seed(1), &input(key, b"some data", None, false));
            change(&mut bytes);
            let checksum = Seed(1).checksum(&bytes[4..]);
            bytes[..4].copy_from_slice(&checksum.to_le_bytes());
            let checked = RawFrame::check(&bytes, &Seed(1).checker());
            assert!(matches!(checked, Ok(_) | Err(FrameError::Fields)), "{checked:?}");
            checked.is_ok()
        };
        assert!(frame(&key[1..], |_| ()));
        assert!(!frame(&key, |_| ()), "a key that is too long");
        assert!(!frame("key", |bytes| bytes[38] |= 4), "a flag of a version to come");
        assert!(!frame("key", |bytes| bytes[39] = 1), "a byte that must be zero");
        assert!(!frame("key", |bytes| bytes[40] = 0xff), "a key that is not UTF-8");
        assert!(!frame("key", |bytes| bytes[36] = 13), "a key longer than the frame");
        let last = |bytes: &mut Vec<u8>| *bytes.last_mut().unwrap() = 1;
        assert!(frame("longkey", last), "a frame without padding");
        assert!(!frame("key", last), "padding that is not zero");
        assert!(!frame("longke", last), "padding of one byte that is not zero");
    }

    #[test]
    fn zeros_are_the_end() {
        assert_eq!(Frame::decode(&[0; 64], Seed(1)), Err(FrameError::Empty));
        assert_eq!(Frame::decode(&[], Seed(1)), Err(FrameError::Length));
    }
}
