//! Header, index and footer of a segment, and its file name. The layouts are drawn in the [room's documentation](super).

use super::producers::section_bytes;
use super::reader::Reader;
use super::whole::only_version_differs;
use super::{FORMAT_VERSION, Seed, padded};
use crate::limits::{MAX_PRODUCER_PARTS, MAX_SEGMENT_FILE_BYTES};
use crate::types::{SequenceNumber, ShardId, StreamId, Timestamp};

/// A segment's header; its first frame starts behind it.
pub(crate) const HEADER_BYTES: usize = 128;
/// A sealed segment's footer: the last bytes of the file.
pub(crate) const FOOTER_BYTES: usize = 128;

const HEADER_MAGIC: [u8; 8] = *b"ANABRSEG";
const FOOTER_MAGIC: [u8; 8] = *b"ANABREND";
const CHECKSUM_KIND: u32 = 1;
/// Both header and footer end in a checksum of the bytes before it.
const CHECKED_BYTES: usize = 124;
const SUFFIX: &str = ".seg";

/// The name of the segment file whose first record has this number.
pub(crate) fn segment_name(first: SequenceNumber) -> String {
    format!("{:020}{SUFFIX}", first.get())
}

/// The inverse of [`segment_name`]; nothing for any other name.
pub(crate) fn parse_segment_name(name: &str) -> Option<SequenceNumber> {
    let first = SequenceNumber::new(name.strip_suffix(SUFFIX)?.parse().ok()?);
    (segment_name(first) == name).then_some(first)
}

/// The bytes of an index over this many records.
pub(crate) const fn index_bytes(records: usize) -> usize {
    padded(records * size_of::<u32>())
}

/// Whose segment a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) stream_id: StreamId,
    pub(crate) shard_id: ShardId,
    pub(crate) incarnation: u64,
    pub(crate) first: SequenceNumber,
    pub(crate) created: Timestamp,
    pub(crate) file_bytes: u64,
}

/// Why bytes are no segment header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeaderError {
    #[error("it does not start with a segment's magic bytes")]
    Magic,
    #[error("format version {0} is not known")]
    Version(u32),
    #[error("the segment header's checksum does not match")]
    Checksum,
    #[error("the segment header's fields are impossible")]
    Fields,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..8].copy_from_slice(&HEADER_MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&CHECKSUM_KIND.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.stream_id.get().to_le_bytes());
        bytes[32..36].copy_from_slice(&self.shard_id.get().to_le_bytes());
        bytes[40..48].copy_from_slice(&self.incarnation.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.first.get().to_le_bytes());
        bytes[56..64].copy_from_slice(&self.created.as_millis().to_le_bytes());
        bytes[64..72].copy_from_slice(&self.file_bytes.to_le_bytes());
        let checksum = crc32fast::hash(&bytes[..CHECKED_BYTES]);
        bytes[CHECKED_BYTES..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, HeaderError> {
        let mut reader = Reader::new(bytes);
        if reader.array() != Some(HEADER_MAGIC) {
            return Err(HeaderError::Magic);
        }
        let version = reader.u32().ok_or(HeaderError::Fields)?;
        let checked = &bytes[..CHECKED_BYTES];
        let stored = Reader::new(&bytes[CHECKED_BYTES..]).u32().ok_or(HeaderError::Fields)?;
        // A later version may keep its checksum elsewhere, so the version is looked at first. Version 0 was never written: it is a header
        // that a crash tore.
        if version != FORMAT_VERSION && version != 0 && !only_version_differs(checked, stored) {
            return Err(HeaderError::Version(version));
        }
        if version == 0 || crc32fast::hash(checked) != stored {
            return Err(HeaderError::Checksum);
        }
        Self::parse(&mut reader).ok_or(HeaderError::Fields)
    }

    fn parse(reader: &mut Reader<'_>) -> Option<Self> {
        if reader.u32()? != CHECKSUM_KIND {
            return None;
        }
        let stream_id = StreamId::new(reader.u128()?);
        let shard_id = ShardId::new(reader.u32()?);
        reader.zeros(4)?;
        let header = Self {
            stream_id,
            shard_id,
            incarnation: reader.u64()?,
            first: SequenceNumber::new(reader.u64()?),
            created: Timestamp::from_millis(reader.i64()?),
            file_bytes: reader.u64()?,
        };
        reader.zeros(52)?;
        let room = (HEADER_BYTES + FOOTER_BYTES) as u64..=MAX_SEGMENT_FILE_BYTES;
        (room.contains(&header.file_bytes) && header.file_bytes.is_multiple_of(8)).then_some(header)
    }

    /// Where the footer of this segment stands once it is sealed.
    pub(crate) const fn footer_position(&self) -> u64 {
        self.file_bytes - FOOTER_BYTES as u64
    }

    /// The seed of this segment's checksums.
    pub(crate) fn seed(&self) -> Seed {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.stream_id.get().to_le_bytes());
        hasher.update(&self.shard_id.get().to_le_bytes());
        hasher.update(&self.incarnation.to_le_bytes());
        hasher.update(&self.first.get().to_le_bytes());
        Seed(hasher.finalize())
    }
}

/// Why a segment was sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SealKind {
    /// It was full: its successor was created, and its name made durable, before this seal was written.
    Rolled,
    /// The stream or the shard was closed, or recovered after a crash: nothing need follow.
    Closed,
    /// A repair made it to stand for records that were lost: it counts them and holds none.
    Lost,
}

/// What a sealed segment holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) kind: SealKind,
    pub(crate) first: SequenceNumber,
    pub(crate) records: u64,
    pub(crate) frames_end: u64,
    pub(crate) index_position: u64,
    pub(crate) first_arrival: Timestamp,
    pub(crate) last_arrival: Timestamp,
    /// Bytes of keys and data.
    pub(crate) bytes: u64,
    pub(crate) index_checksum: u32,
    /// How many entries the section about producers has, behind the index.
    pub(crate) producers: u32,
    /// Of that section; 0 where there is none.
    pub(crate) producers_checksum: u32,
}

impl Footer {
    /// The number behind the segment's last record.
    pub(crate) const fn next(&self) -> SequenceNumber {
        self.first.plus(self.records)
    }

    /// Whether the records that it counts were lost, and a repair said so.
    pub(crate) fn is_lost(&self) -> bool {
        self.kind == SealKind::Lost
    }

    /// How long the segment's index is.
    pub(crate) fn index_bytes(&self) -> usize {
        if self.is_lost() { 0 } else { index_bytes(usize::try_from(self.records).unwrap_or(usize::MAX / 8)) }
    }

    /// Where the section about producers starts.
    pub(crate) fn producers_position(&self) -> u64 {
        self.index_position.saturating_add(self.index_bytes() as u64)
    }

    /// Where the last of the segment's sections ends: the room from here to the footer is not used.
    pub(crate) fn sections_end(&self) -> u64 {
        self.producers_position().saturating_add(section_bytes(self.producers as usize) as u64)
    }

    pub(crate) fn encode(&self, seed: Seed) -> [u8; FOOTER_BYTES] {
        let kind: u32 = match self.kind {
            SealKind::Rolled => 1,
            SealKind::Closed => 2,
            SealKind::Lost => 3,
        };
        let mut bytes = [0; FOOTER_BYTES];
        bytes[0..8].copy_from_slice(&FOOTER_MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&kind.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first.get().to_le_bytes());
        bytes[24..32].copy_from_slice(&self.records.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.frames_end.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.index_position.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.first_arrival.as_millis().to_le_bytes());
        bytes[56..64].copy_from_slice(&self.last_arrival.as_millis().to_le_bytes());
        bytes[64..72].copy_from_slice(&self.bytes.to_le_bytes());
        bytes[72..76].copy_from_slice(&self.index_checksum.to_le_bytes());
        bytes[76..80].copy_from_slice(&self.producers.to_le_bytes());
        bytes[80..84].copy_from_slice(&self.producers_checksum.to_le_bytes());
        let checksum = seed.checksum(&bytes[..CHECKED_BYTES]);
        bytes[CHECKED_BYTES..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// The footer in `bytes`, if it is a sound one of the segment with this header.
    pub(crate) fn decode(bytes: &[u8; FOOTER_BYTES], header: &SegmentHeader) -> Option<Self> {
        let mut tail = Reader::new(&bytes[CHECKED_BYTES..]);
        if tail.u32()? != header.seed().checksum(&bytes[..CHECKED_BYTES]) {
            return None;
        }
        let mut reader = Reader::new(bytes);
        if reader.array()? != FOOTER_MAGIC || reader.u32()? != FORMAT_VERSION {
            return None;
        }
        let kind = match reader.u32()? {
            1 => SealKind::Rolled,
            2 => SealKind::Closed,
            3 => SealKind::Lost,
            _ => return None,
        };
        let footer = Self {
            kind,
            first: SequenceNumber::new(reader.u64()?),
            records: reader.u64()?,
            frames_end: reader.u64()?,
            index_position: reader.u64()?,
            first_arrival: Timestamp::from_millis(reader.i64()?),
            last_arrival: Timestamp::from_millis(reader.i64()?),
            bytes: reader.u64()?,
            index_checksum: reader.u32()?,
            producers: reader.u32()?,
            producers_checksum: reader.u32()?,
        };
        reader.zeros(40)?;
        footer.fits(header).then_some(footer)
    }

    fn fits(&self, header: &SegmentHeader) -> bool {
        let room = header.footer_position();
        let held = if self.is_lost() {
            self.frames_end == HEADER_BYTES as u64 && self.bytes == 0
        } else {
            self.records <= room / super::FRAME_HEADER_BYTES as u64
        };
        held && self.first == header.first
            && self.records > 0
            && self.first.get().checked_add(self.records).is_some()
            && self.frames_end >= HEADER_BYTES as u64
            && self.frames_end <= self.index_position
            && self.index_position.is_multiple_of(8)
            && self.index_position <= room
            && self.sections_end() <= room
            && self.producers as usize <= MAX_PRODUCER_PARTS
            && (self.producers > 0 || self.producers_checksum == 0)
            && self.first_arrival <= self.last_arrival
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            stream_id: StreamId::new(0xfeed),
            shard_id: ShardId::new(3),
            incarnation: 4,
            first: SequenceNumber::new(100),
            created: Timestamp::from_millis(1_000),
            file_bytes: 65_536,
        }
    }

    fn footer() -> Footer {
        Footer {
            kind: SealKind::Rolled,
            first: SequenceNumber::new(100),
            records: 5,
            frames_end: 1_024,
            index_position: 1_024,
            first_arrival: Timestamp::from_millis(1_000),
            last_arrival: Timestamp::from_millis(2_000),
            bytes: 300,
            index_checksum: 7,
            producers: 2,
            producers_checksum: 8,
        }
    }

    #[test]
    fn header_and_footer_survive_the_round_trip() {
        assert_eq!(SegmentHeader::decode(&header().encode()), Ok(header()));
        let bytes = footer().encode(header().seed());
        assert_eq!(Footer::decode(&bytes, &header()), Some(footer()));
    }

    #[test]
    fn every_bit_of_header_and_footer_is_checked() {
        for position in 0..HEADER_BYTES {
            for bit in 0..8 {
                let mut bytes = header().encode();
                bytes[position] ^= 1 << bit;
                assert!(SegmentHeader::decode(&bytes).is_err(), "header byte {position}");
                let mut bytes = footer().encode(header().seed());
                bytes[position] ^= 1 << bit;
                assert_eq!(Footer::decode(&bytes, &header()), None, "footer byte {position}");
            }
        }
    }

    #[test]
    fn a_newer_version_is_named() {
        let mut bytes = header().encode();
        bytes[8..12].copy_from_slice(&2u32.to_le_bytes());
        assert_eq!(
            SegmentHeader::decode(&bytes),
            Err(HeaderError::Checksum),
            "nothing but the version is another"
        );
        let checksum = crc32fast::hash(&bytes[..CHECKED_BYTES]);
        bytes[CHECKED_BYTES..].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderError::Version(2)));
    }

    #[test]
    fn a_footer_of_another_segment_is_refused() {
        let bytes = footer().encode(header().seed());
        for other in [
            SegmentHeader { shard_id: ShardId::new(4), ..header() },
            SegmentHeader { incarnation: 5, ..header() },
            SegmentHeader { stream_id: StreamId::new(1), ..header() },
            SegmentHeader { first: SequenceNumber::new(101), ..header() },
        ] {
            assert_eq!(Footer::decode(&bytes, &other), None);
        }
    }

    #[test]
    fn impossible_footers_are_refused_even_with_a_sound_checksum() {
        let seed = header().seed();
        for impossible in [
            Footer { records: 0, ..footer() },
            Footer { records: u64::MAX, ..footer() },
            Footer { records: 60_000, ..footer() },
            Footer { records: 1_700, ..footer() }, // an index of them fits, frames of them do not
            Footer { frames_end: 4, ..footer() },
            Footer { frames_end: 1_032, ..footer() },
            Footer { index_position: 65_528, ..footer() },
            Footer { index_position: 1_025, ..footer() },
            Footer { index_position: 65_400, ..footer() },
            Footer { index_position: 65_272, ..footer() }, // the index fits, what is known of producers does not
            Footer { producers: 0, ..footer() },
            Footer { producers: u32::MAX, ..footer() },
            Footer { last_arrival: Timestamp::from_millis(0), ..footer() },
        ] {
            assert_eq!(Footer::decode(&impossible.encode(seed), &header()), None, "{impossible:?}");
        }
    }

    #[test]
    fn impossible_headers_are_refused_even_with_a_sound_checksum() {
        let least = (HEADER_BYTES + FOOTER_BYTES) as u64;
        for (file_bytes, possible) in [
            (least, true),
            (least - 8, false),
            (65_540, false),
            (MAX_SEGMENT_FILE_BYTES, true),
            (MAX_SEGMENT_FILE_BYTES + 8, false),
        ] {
            let header = SegmentHeader { file_bytes, ..header() };
            assert_eq!(SegmentHeader::decode(&header.encode()).is_ok(), possible, "{file_bytes}");
        }
    }

    #[test]
    fn a_footer_of_lost_records_counts_no_bytes() {
        let lost = Footer {
            kind: SealKind::Lost,
            records: u64::MAX / 2,
            frames_end: HEADER_BYTES as u64,
            index_position: HEADER_BYTES as u64,
            bytes: 0,
            ..footer()
        };
        for (footer, possible) in [
            (lost, true),
            (Footer { bytes: 1, ..lost }, false),
            (Footer { frames_end: 136, index_position: 136, ..lost }, false),
        ] {
            assert_eq!(
                Footer::decode(&footer.encode(header().seed()), &header()).is_some(),
                possible,
                "{footer:?}"
            );
        }
    }

    #[test]
    fn names_have_one_form() {
        let first = SequenceNumber::new(31_402);
        assert_eq!(segment_name(first), "00000000000000031402.seg");
        assert_eq!(parse_segment_name("00000000000000031402.seg"), Some(first));
        for name in ["31402.seg", "00000000000000031402", "+0000000000000031402.seg", "x.seg", ".seg"] {
            assert_eq!(parse_segment_name(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_value_or_an_error(bytes: [u8; 32], at in 0..96usize) {
            let mut header_bytes = header().encode();
            header_bytes[at..at + 32].copy_from_slice(&bytes);
            let _ = SegmentHeader::decode(&header_bytes);
            let _ = Footer::decode(&header_bytes, &header());
        }
    }
}
