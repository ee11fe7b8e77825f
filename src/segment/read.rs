//! The readers' side of a segment.

use std::path::{Path, PathBuf};

use crate::sync::OnceLock;
use crate::sync::atomic::{AtomicU64, Ordering};

use super::positions::Positions;
use crate::format::{
    FOOTER_BYTES, Footer, FrameError, HeaderError, ProducerPart, RawFrame, SEGMENT_HEADER_BYTES, Seed,
    SegmentHeader, decode_parts, section_bytes,
};
use crate::storage::{Access, Corruption, Fault, Map, Storage, StorageFile};
use crate::types::{SequenceNumber, ShardId, StreamId, Timestamp};

/// How much of a segment a reader is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Visibility {
    /// What no crash can take back.
    Durable,
    /// All that was written, which a power cut may take back in part.
    Written,
}

/// A segment as readers see it: any number of threads, no lock on the way.
#[derive(Debug)]
pub(crate) struct Segment {
    path: PathBuf,
    header: SegmentHeader,
    seed: Seed,
    map: Map,
    /// Frames end here, as far as they are written. Only ever rises.
    written: AtomicU64,
    /// Frames end here, as far as they are durable. Only ever rises, never past `written`.
    durable: AtomicU64,
    /// Set once nothing will be appended any more.
    footer: OnceLock<Footer>,
    index: Index,
}

/// Where each record's frame starts, in units of 8 bytes.
#[derive(Debug)]
enum Index {
    /// Kept by the writer, or by a follower, as the segment grows.
    Live(Positions),
    /// In the file, whose checksum is verified at first use.
    Sealed(OnceLock<bool>),
}

impl Segment {
    /// A segment that is being appended to and holds nothing yet.
    pub(super) fn live(path: PathBuf, header: SegmentHeader, map: Map) -> Self {
        Self {
            path,
            header,
            seed: header.seed(),
            map,
            written: AtomicU64::new(SEGMENT_HEADER_BYTES as u64),
            durable: AtomicU64::new(SEGMENT_HEADER_BYTES as u64),
            footer: OnceLock::new(),
            index: Index::Live(Positions::of_file(header.file_bytes)),
        }
    }

    /// Opens a segment of which it is known that it was sealed: without a sound footer it is damaged.
    pub(crate) fn open_sealed(
        storage: &dyn Storage,
        path: &Path,
        stream_id: StreamId,
        shard_id: ShardId,
        first: SequenceNumber,
    ) -> Result<Self, Fault> {
        let file = storage.open_file(path, Access::Read).map_err(Fault::io("open", path))?;
        let header = read_header(file.as_ref(), path, stream_id, shard_id, first)?;
        let footer = read_footer(file.as_ref(), path, &header)?.ok_or_else(|| {
            Corruption::new(path, header.footer_position(), "the footer of a sealed segment is not sound")
                .of_shard(shard_id)
                .of_records(first, None)
        })?;
        let map = file.map(header.file_bytes).map_err(Fault::io("map", path))?;
        Ok(Self {
            path: path.to_path_buf(),
            seed: header.seed(),
            map,
            written: AtomicU64::new(footer.frames_end),
            durable: AtomicU64::new(footer.frames_end),
            footer: OnceLock::from(footer),
            index: Index::Sealed(OnceLock::new()),
            header,
        })
    }

    /// A segment that another process is writing: nothing of it is published until the follower
    /// found it with [`publish`](Self::publish).
    pub(crate) fn follow(path: &Path, header: SegmentHeader, file: &dyn StorageFile) -> Result<Self, Fault> {
        let map = file.map(header.file_bytes).map_err(Fault::io("map", path))?;
        Ok(Self::live(path.to_path_buf(), header, map))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn header(&self) -> &SegmentHeader {
        &self.header
    }

    pub(crate) fn seed(&self) -> Seed {
        self.seed
    }

    pub(crate) fn shard_id(&self) -> ShardId {
        self.header.shard_id
    }

    pub(crate) fn first(&self) -> SequenceNumber {
        self.header.first
    }

    pub(crate) fn map(&self) -> &Map {
        &self.map
    }

    /// The footer, once the segment is sealed.
    pub(crate) fn footer(&self) -> Option<&Footer> {
        self.footer.get()
    }

    /// Where the frames that a reader may see end.
    pub(crate) fn end(&self, visibility: Visibility) -> u64 {
        match visibility {
            Visibility::Durable => self.durable.load(Ordering::Acquire),
            Visibility::Written => self.written.load(Ordering::Acquire),
        }
    }

    /// Shows readers frames that were written behind the last ones. `starts` are their positions, in units of 8 bytes.
    pub(crate) fn publish(&self, starts: &[u32], end: u64) {
        for start in starts {
            self.push_position(u64::from(*start) * 8);
        }
        self.publish_end(end);
    }

    /// Notes where the next frame will start; readers are not shown it before [`publish_end`](Self::publish_end).
    pub(super) fn push_position(&self, position: u64) {
        if let Index::Live(positions) = &self.index {
            positions.push(position);
        }
    }

    /// Shows readers the frames up to `end`, all of which are written.
    pub(super) fn publish_end(&self, end: u64) {
        self.written.store(end, Ordering::Release);
    }

    /// Tells readers that the frames up to `end` are durable.
    pub(crate) fn publish_durable(&self, end: u64) {
        self.durable.fetch_max(end, Ordering::AcqRel);
    }

    /// Tells readers that nothing will follow.
    pub(crate) fn publish_footer(&self, footer: Footer) {
        let _ = self.footer.set(footer); // a second seal says the same
    }

    /// The index of a live segment as it is to be written behind its frames.
    pub(super) fn encode_index(&self) -> Vec<u8> {
        match &self.index {
            Index::Live(positions) => positions.encode(),
            Index::Sealed(_) => Vec::new(),
        }
    }

    /// How many records have a position; those past the visible end included.
    pub(crate) fn records(&self) -> usize {
        match (&self.index, self.footer.get()) {
            (Index::Live(positions), _) => positions.len(),
            (Index::Sealed(_), Some(footer)) => usize::try_from(footer.records).unwrap_or(usize::MAX),
            (Index::Sealed(_), None) => 0,
        }
    }

    /// Where the frame of a record starts; nothing if the segment does not hold it, or does not show it.
    pub(crate) fn position(&self, number: SequenceNumber, visibility: Visibility) -> Result<Option<u64>, Fault> {
        if number < self.first() {
            return Ok(None);
        }
        let place = usize::try_from(number.since(self.first())).unwrap_or(usize::MAX);
        let position = self.position_at(place)?;
        Ok(position.filter(|position| *position < self.end(visibility)))
    }

    fn position_at(&self, place: usize) -> Result<Option<u64>, Fault> {
        let units = match &self.index {
            Index::Live(positions) => positions.get(place),
            Index::Sealed(_) => self
                .sealed_index()?
                .get(place.saturating_mul(4)..)
                .and_then(|units| units.first_chunk().copied())
                .map(u32::from_le_bytes),
        };
        Ok(units.map(|units| u64::from(units) * 8))
    }

    /// The index in the file, its checksum verified.
    fn sealed_index(&self) -> Result<&[u8], Fault> {
        let (Some(footer), Index::Sealed(verified)) = (self.footer.get(), &self.index) else {
            return Ok(&[]);
        };
        let start = usize::try_from(footer.index_position).unwrap_or(usize::MAX);
        let bytes = start
            .checked_add(footer.index_bytes())
            .and_then(|end| self.map.bytes(start..end))
            .ok_or_else(|| self.damaged(footer.index_position, "the index reaches past the file"))?;
        let sound = *verified.get_or_init(|| self.seed.checksum(bytes) == footer.index_checksum);
        if !sound {
            return Err(self.damaged(footer.index_position, "the index' checksum does not match").into());
        }
        let records = usize::try_from(footer.records).unwrap_or(usize::MAX / 4);
        Ok(bytes.get(..records.saturating_mul(4)).unwrap_or(bytes))
    }

    /// Checks the frame at `position`, which must lie below `end`, a published end.
    #[inline]
    pub(crate) fn frame(&self, position: u64, end: u64, number: SequenceNumber) -> Result<RawFrame<'_>, Fault> {
        match RawFrame::check(self.published(position, end)?, &self.seed.checker()) {
            Ok(frame) if frame.sequence_number() == number => Ok(frame),
            other => Err(self.no_frame(position, number, other)),
        }
    }

    #[cold]
    fn no_frame(&self, position: u64, number: SequenceNumber, found: Result<RawFrame<'_>, FrameError>) -> Fault {
        let reason = match found {
            Ok(frame) => format!("found sequence number {} in the place of {number}", frame.sequence_number()),
            Err(FrameError::Empty) => "zeros in the place of a record".to_owned(),
            Err(error) => error.to_string(),
        };
        self.damaged_from(position, number, reason).into()
    }

    /// The published bytes from `position` to `end`.
    pub(crate) fn published(&self, position: u64, end: u64) -> Result<&[u8], Fault> {
        let range = usize::try_from(position).unwrap_or(usize::MAX)..usize::try_from(end).unwrap_or(usize::MAX);
        self.map.bytes(range).ok_or_else(|| self.damaged(position, "a position lies outside the segment").into())
    }

    /// The first visible record that arrived at `time` or later; nothing if all arrived before.
    pub(crate) fn first_at(
        &self,
        time: Timestamp,
        visibility: Visibility,
    ) -> Result<Option<SequenceNumber>, Fault> {
        if self.footer.get().is_some_and(Footer::is_lost) {
            return Ok(Some(self.first())); // no record to compare with: from here on it may be any of them
        }
        let end = self.end(visibility);
        let (mut low, mut high) = (0, self.records());
        // Arrival times never fall inside a shard, so the records before `time` come first.
        while low < high {
            let middle = low.midpoint(high);
            let number = self.first().plus(middle as u64);
            let before = match self.position_at(middle)? {
                Some(position) if position < end => self.frame(position, end, number)?.arrival() < time,
                _ => false, // not visible yet: as if it arrived later
            };
            if before {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let visible = self.position_at(low)?.is_some_and(|position| position < end);
        Ok(visible.then(|| self.first().plus(low as u64)))
    }

    fn damaged(&self, offset: u64, reason: impl Into<String>) -> Corruption {
        self.damaged_from(offset, self.first(), reason)
    }

    /// Damage that hides the records from `number` to the end of the segment.
    pub(crate) fn damaged_from(
        &self,
        offset: u64,
        number: SequenceNumber,
        reason: impl Into<String>,
    ) -> Corruption {
        let last = self.footer.get().and_then(|footer| footer.next().previous());
        Corruption::new(&self.path, offset, reason).of_shard(self.shard_id()).of_records(number, last)
    }
}

/// Reads a segment's header and checks that the file is the one its name and directory say.
pub(crate) fn read_header(
    file: &dyn StorageFile,
    path: &Path,
    stream_id: StreamId,
    shard_id: ShardId,
    first: SequenceNumber,
) -> Result<SegmentHeader, Fault> {
    let damaged = |reason: String| Corruption::new(path, 0, reason).of_shard(shard_id).of_records(first, None);
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    let read = file.read_at(&mut bytes, 0).map_err(Fault::io("read", path))?;
    if read < bytes.len() {
        return Err(damaged("the file is shorter than a segment's header".to_owned()).into());
    }
    let header = match SegmentHeader::decode(&bytes) {
        Ok(header) => header,
        Err(HeaderError::Version(found)) => {
            return Err(Fault::UnsupportedVersion { path: path.to_path_buf(), found });
        }
        Err(error) => return Err(damaged(error.to_string()).into()),
    };
    let length = file.len().map_err(Fault::io("read the length of", path))?;
    if (header.stream_id, header.shard_id, header.first) != (stream_id, shard_id, first) {
        Err(damaged("it is a segment of another stream, shard or place".to_owned()).into())
    } else if length != header.file_bytes {
        Err(damaged(format!("the file has {length} bytes instead of {}", header.file_bytes)).into())
    } else {
        Ok(header)
    }
}

/// What a sealed segment says of producers.
pub(crate) fn producers_section(
    file: &dyn StorageFile,
    path: &Path,
    header: &SegmentHeader,
    footer: &Footer,
) -> Result<Vec<ProducerPart>, Fault> {
    if footer.producers == 0 {
        return Ok(Vec::new());
    }
    let position = footer.producers_position();
    let mut bytes = vec![0; section_bytes(footer.producers as usize)]; // bounded by the footer's checks
    let read = file.read_at(&mut bytes, position).map_err(Fault::io("read", path))?;
    let is_sound = read == bytes.len() && header.seed().checksum(&bytes) == footer.producers_checksum;
    decode_parts(&bytes).filter(|_| is_sound).ok_or_else(|| {
        let reason = "the section about producers is not sound";
        Corruption::new(path, position, reason).of_shard(header.shard_id).into()
    })
}

/// Reads a segment's footer; nothing where there is no sound one.
pub(crate) fn read_footer(
    file: &dyn StorageFile,
    path: &Path,
    header: &SegmentHeader,
) -> Result<Option<Footer>, Fault> {
    let mut bytes = [0; FOOTER_BYTES];
    let read = file.read_at(&mut bytes, header.footer_position()).map_err(Fault::io("read", path))?;
    Ok(if read == bytes.len() { Footer::decode(&bytes, header) } else { None })
}

/// Whose segment a file was to become, and the latest incarnation that can have made it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Due {
    pub(crate) stream_id: StreamId,
    pub(crate) shard_id: ShardId,
    pub(crate) first: SequenceNumber,
    pub(crate) incarnation: u64,
}

/// Whether a file is what a creation that was cut short leaves: a header that does not decode, or the due one in a file
/// that has not its length yet; and zeros behind it, since the header is durable before the first frame is written.
pub(crate) fn is_unfinished(file: &dyn StorageFile, path: &Path, due: &Due) -> Result<bool, Fault> {
    let mut front = [0; SEGMENT_HEADER_BYTES + 4096];
    let read = file.read_at(&mut front, 0).map_err(Fault::io("read", path))?;
    let (header, frames) = front.split_at(SEGMENT_HEADER_BYTES);
    let whole = header.first_chunk().filter(|_| read >= SEGMENT_HEADER_BYTES);
    let of_a_creation = match whole.map(SegmentHeader::decode) {
        None | Some(Err(_)) => true,
        Some(Ok(header)) => {
            let ours =
                (header.stream_id, header.shard_id, header.first) == (due.stream_id, due.shard_id, due.first);
            let length = file.len().map_err(Fault::io("read the length of", path))?;
            ours && header.incarnation <= due.incarnation && length < header.file_bytes
        }
    };
    Ok(of_a_creation && frames.iter().all(|byte| *byte == 0))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::format::FrameInput;
    use crate::segment::SegmentWriter;
    use crate::storage::SimulatedDisk;

    /// Records that arrived at 10, 20 and 30; the last is written and not durable.
    fn writer() -> SegmentWriter {
        let storage: Arc<dyn Storage> = Arc::new(SimulatedDisk::new());
        let directory = PathBuf::from("shard");
        storage.create_dir(&directory).unwrap();
        let header = SegmentHeader {
            stream_id: StreamId::new(1),
            shard_id: ShardId::new(2),
            incarnation: 1,
            first: SequenceNumber::new(100),
            created: Timestamp::from_millis(0),
            file_bytes: 4096,
        };
        let mut writer = SegmentWriter::create(&storage, &directory, header).unwrap();
        for (number, arrival) in [(100, 10), (101, 20), (102, 30)] {
            writer
                .stage(&FrameInput {
                    sequence_number: SequenceNumber::new(number),
                    arrival: Timestamp::from_millis(arrival),
                    durable: SequenceNumber::ZERO,
                    batch_remaining: 0,
                    explicit_hash_key: None,
                    producer: None,
                    partition_key: "key",
                    data: b"data",
                })
                .unwrap();
            if number == 102 { writer.write_staged().unwrap() } else { writer.sync().unwrap() }
        }
        writer
    }

    #[test]
    fn a_record_that_is_not_durable_is_shown_to_those_who_ask_for_it_only() {
        let writer = writer();
        let position = |number, visibility| {
            writer.segment().position(SequenceNumber::new(number), visibility).unwrap().is_some()
        };
        for visibility in [Visibility::Durable, Visibility::Written] {
            let seen = [99, 100, 101, 102, 103].map(|number| position(number, visibility));
            assert_eq!(seen, [false, true, true, visibility == Visibility::Written, false], "{visibility:?}");
        }
    }

    #[test]
    fn a_sound_frame_of_another_record_is_not_the_one_that_was_asked_for() {
        let writer = writer();
        let segment = writer.segment();
        let number = SequenceNumber::new(101);
        let position = segment.position(number, Visibility::Durable).unwrap().unwrap();
        let end = segment.end(Visibility::Durable);
        assert_eq!(segment.frame(position, end, number).unwrap().sequence_number(), number);
        let Err(Fault::Corrupt(other)) = segment.frame(position, end, SequenceNumber::new(100)) else {
            panic!("it was given");
        };
        assert_eq!((other.offset, other.first_sequence_number), (position, Some(SequenceNumber::new(100))));
        assert_eq!(other.reason, "found sequence number 101 in the place of 100");
    }

    #[test]
    fn a_time_leads_to_the_first_visible_record_from_it_on() {
        let writer = writer();
        let first_at = |time, visibility| {
            let found = writer.segment().first_at(Timestamp::from_millis(time), visibility).unwrap();
            found.map(SequenceNumber::get)
        };
        for (time, durable, written) in [
            (0, Some(100), Some(100)),
            (10, Some(100), Some(100)),
            (11, Some(101), Some(101)),
            (20, Some(101), Some(101)),
            (21, None, Some(102)),
            (30, None, Some(102)),
            (31, None, None),
        ] {
            assert_eq!(first_at(time, Visibility::Durable), durable, "from {time} on, durable");
            assert_eq!(first_at(time, Visibility::Written), written, "from {time} on, written");
        }
    }

    fn due() -> Due {
        Due {
            stream_id: StreamId::new(1),
            shard_id: ShardId::new(2),
            first: SequenceNumber::new(100),
            incarnation: 5,
        }
    }

    fn header_of(due: &Due) -> SegmentHeader {
        SegmentHeader {
            stream_id: due.stream_id,
            shard_id: due.shard_id,
            incarnation: due.incarnation,
            first: due.first,
            created: Timestamp::from_millis(0),
            file_bytes: 64 << 10,
        }
    }

    fn file_of(length: u64, pieces: &[(u64, &[u8])]) -> Arc<dyn StorageFile> {
        let file = SimulatedDisk::new().create_file(Path::new("file")).unwrap();
        file.allocate(length).unwrap();
        for (position, bytes) in pieces {
            file.write_at(bytes, *position).unwrap();
        }
        file
    }

    #[test]
    fn only_what_a_creation_leaves_is_unfinished() {
        const WHOLE: u64 = 64 << 10;
        let frames = SEGMENT_HEADER_BYTES as u64;
        let unfinished = |length, pieces: &[(u64, &[u8])]| {
            is_unfinished(file_of(length, pieces).as_ref(), Path::new("file"), &due()).unwrap()
        };
        let header = header_of(&due()).encode();
        assert!(unfinished(0, &[]));
        assert!(unfinished(frames - 1, &[(0, &header[..SEGMENT_HEADER_BYTES - 1])]));
        assert!(unfinished(WHOLE, &[]), "no header");
        assert!(unfinished(WHOLE, &[(0, &header[8..])]), "a torn header");
        for at in [frames, frames + 4095] {
            assert!(
                !unfinished(WHOLE, &[(0, &header[8..]), (at, &[1])]),
                "something at {at} behind a torn header"
            );
            assert!(!unfinished(WHOLE - 1, &[(0, &header), (at, &[1])]), "something at {at} behind a header");
        }
        assert!(unfinished(WHOLE - 1, &[(0, &header)]));
        assert!(unfinished(frames, &[(0, &header)]));
        assert!(!unfinished(WHOLE, &[(0, &header)]), "it is finished");
    }

    #[test]
    fn only_ones_own_creation_is_unfinished() {
        let unfinished = |change: fn(&mut Due)| {
            let mut other = due();
            change(&mut other);
            let file = file_of(4096, &[(0, &header_of(&other).encode())]);
            is_unfinished(file.as_ref(), Path::new("file"), &due()).unwrap()
        };
        assert!(unfinished(|_| {}));
        assert!(unfinished(|other| other.incarnation = 4));
        assert!(!unfinished(|other| other.incarnation = 6), "newer than what can have made it");
        assert!(!unfinished(|other| other.stream_id = StreamId::new(7)));
        assert!(!unfinished(|other| other.shard_id = ShardId::new(7)));
        assert!(!unfinished(|other| other.first = SequenceNumber::new(7)));
    }

    #[test]
    fn a_file_too_short_for_a_header_is_said_to_be_short() {
        let header = header_of(&due()).encode();
        let file = file_of(0, &[(0, &header[..SEGMENT_HEADER_BYTES - 1])]);
        let due = due();
        let read = read_header(file.as_ref(), Path::new("file"), due.stream_id, due.shard_id, due.first);
        let Err(Fault::Corrupt(corruption)) = read else { panic!("{read:?}") };
        assert_eq!(corruption.reason, "the file is shorter than a segment's header");
    }
}
