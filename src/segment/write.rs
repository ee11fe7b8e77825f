//! The one writer's side of a segment.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::buffer::FrameBuffer;
use super::read::Segment;
use super::scan::{Scan, advance};
use crate::format::{
    Checker, FOOTER_BYTES, Footer, FrameInput, PART_BYTES, SEGMENT_HEADER_BYTES, SealKind, SegmentHeader, encode,
    index_bytes, segment_name,
};
use crate::storage::{Access, Fault, StagingSlot, Storage, StorageFile};
use crate::types::{SequenceNumber, Timestamp};

/// What is written with zeros ahead of the frames at once, at most. A sync of bytes that were written before is nearly twice as fast as one
/// of bytes that were only reserved, whose file system has to note that they are written.
const ZEROS_AHEAD: usize = 1 << 20;
const LEAST_ZEROS_AHEAD: usize = 16 << 10;
static ZEROS: [u8; ZEROS_AHEAD] = [0; ZEROS_AHEAD];
/// A segment that was synced less often is not worth it.
const SYNCS_BEFORE_ZEROS: u32 = 3;

/// Appends frames to a segment: staged in a buffer, written as a group, then made durable.
#[derive(Debug)]
pub(crate) struct SegmentWriter {
    segment: Arc<Segment>,
    storage: Arc<dyn Storage>,
    /// Open for writing, unless it was parked.
    file: Option<Arc<dyn StorageFile>>,
    /// Where the next group goes; everything before is written.
    written_end: u64,
    /// Everything before is durable.
    durable_end: u64,
    /// Frames encoded and not yet written.
    buffer: FrameBuffer,
    checker: Checker,
    /// Zeros were written up to here, where that is behind the frames.
    zeros_end: u64,
    /// Commits of this segment.
    syncs: u32,
    /// Of all records, the staged ones included.
    records: u64,
    bytes: u64,
    first_arrival: Option<Timestamp>,
    last_arrival: Timestamp,
    /// Room that is kept for what the seal is to say of producers.
    reserved: u64,
}

/// Why a segment was not created.
#[derive(Debug)]
pub(crate) struct NotCreated {
    pub(crate) fault: Fault,
    /// Whether its file may be there, or come back with a crash: it holds no record, and the next opening removes it, unless others have got its numbers.
    pub(crate) may_be_left: bool,
}

impl From<NotCreated> for Fault {
    fn from(failure: NotCreated) -> Self {
        failure.fault
    }
}

impl SegmentWriter {
    /// Creates a segment: when this returns, its room is reserved and its name and header are durable.
    pub(crate) fn create(
        storage: &Arc<dyn Storage>,
        directory: &Path,
        header: SegmentHeader,
    ) -> Result<Self, NotCreated> {
        let path = directory.join(segment_name(header.first));
        let file = storage.create_file(&path).map_err(|error| NotCreated {
            may_be_left: error.kind() != io::ErrorKind::AlreadyExists,
            fault: Fault::io("create", &path)(error),
        })?;
        match Self::prepare(storage.as_ref(), directory, &path, file.as_ref(), &header) {
            Ok(segment) => Ok(Self::new(Arc::clone(storage), Arc::new(segment), file)),
            Err(fault) => {
                // Room for others.
                let removed = storage.remove_file(&path).and_then(|()| storage.sync_dir(directory));
                Err(NotCreated { fault, may_be_left: removed.is_err() })
            }
        }
    }

    fn prepare(
        storage: &dyn Storage,
        directory: &Path,
        path: &Path,
        file: &dyn StorageFile,
        header: &SegmentHeader,
    ) -> Result<Segment, Fault> {
        file.allocate(header.file_bytes).map_err(Fault::io("allocate", path))?;
        file.write_at(&header.encode(), 0).map_err(Fault::io("write", path))?;
        file.sync().map_err(Fault::io("sync", path))?;
        storage.sync_dir(directory).map_err(Fault::io("sync", directory))?;
        let map = file.map(header.file_bytes).map_err(Fault::io("map", path))?;
        Ok(Segment::live(path.to_path_buf(), *header, map))
    }

    /// Creates a sealed segment that stands for `records` lost ones, durable but for its name. Its file has room for the section about producers.
    pub(crate) fn create_lost(
        storage: &Arc<dyn Storage>,
        directory: &Path,
        header: SegmentHeader,
        records: u64,
        arrival: Timestamp,
        producers: &[u8],
    ) -> Result<(), Fault> {
        let path = directory.join(segment_name(header.first));
        let (producers_count, producers_checksum) = section_summary(producers, &header.seed().checker());
        let footer = Footer {
            kind: SealKind::Lost,
            first: header.first,
            records,
            frames_end: SEGMENT_HEADER_BYTES as u64,
            index_position: SEGMENT_HEADER_BYTES as u64,
            first_arrival: arrival,
            last_arrival: arrival,
            bytes: 0,
            index_checksum: header.seed().checksum(&[]),
            producers: producers_count,
            producers_checksum,
        };
        let file = storage.create_file(&path).map_err(Fault::io("create", &path))?;
        file.write_at(&header.encode(), 0).map_err(Fault::io("write", &path))?;
        if !producers.is_empty() {
            file.write_at(producers, footer.producers_position()).map_err(Fault::io("write", &path))?;
        }
        let footer = footer.encode(header.seed());
        file.write_at(&footer, header.footer_position()).map_err(Fault::io("write", &path))?;
        file.sync().map_err(Fault::io("sync", &path))
    }

    fn new(storage: Arc<dyn Storage>, segment: Arc<Segment>, file: Arc<dyn StorageFile>) -> Self {
        Self {
            checker: segment.seed().checker(),
            segment,
            storage,
            file: Some(file),
            written_end: SEGMENT_HEADER_BYTES as u64,
            durable_end: SEGMENT_HEADER_BYTES as u64,
            buffer: FrameBuffer::default(),
            zeros_end: 0,
            syncs: 0,
            records: 0,
            bytes: 0,
            first_arrival: None,
            last_arrival: Timestamp::MIN,
            reserved: 0,
        }
    }

    /// Takes up a segment whose writer died, at the end that a scan found. It is there to be sealed: its
    /// incarnation is over, nothing is appended to it.
    ///
    /// What is not known durable, from the record `durable` on, is read and written again: if the sync of a dead writer had failed, the
    /// kernel may hold these pages as clean, and a sync of ours would "succeed" without them. It may also have let them go since the scan, and
    /// have read what the medium has: so it is decoded again once it is written, and stays in memory until it is synced.
    pub(crate) fn recover(
        storage: &Arc<dyn Storage>,
        path: &Path,
        header: SegmentHeader,
        found: &Scan,
        durable: SequenceNumber,
    ) -> Result<Self, Fault> {
        let file = storage.open_file(path, Access::Write).map_err(Fault::io("open", path))?;
        let known = usize::try_from(durable.since(header.first)).unwrap_or(usize::MAX);
        let from = found.starts.get(known).map_or(found.end, |units| u64::from(*units) * 8);
        rewrite(file.as_ref(), path, from..found.end)?;
        expect_again(file.as_ref(), path, &header, found, known)?;
        let segment = Segment::follow(path, header, file.as_ref())?;
        segment.publish(&found.starts, found.end);
        let mut writer = Self::new(Arc::clone(storage), Arc::new(segment), file);
        writer.written_end = found.end;
        writer.records = found.starts.len() as u64;
        writer.bytes = found.bytes;
        writer.first_arrival = found.first_arrival;
        writer.last_arrival = found.last_arrival;
        Ok(writer)
    }

    pub(crate) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// The open file; opened again if it was parked.
    pub(crate) fn file(&mut self) -> Result<Arc<dyn StorageFile>, Fault> {
        let file = self.file_to_sync()?;
        if self.file.is_none() {
            self.file = Some(Arc::clone(&file));
        }
        Ok(file)
    }

    /// The file for one sync: of a parked one a handle that nobody keeps, since it is not counted among the open files.
    pub(crate) fn file_to_sync(&self) -> Result<Arc<dyn StorageFile>, Fault> {
        if let Some(file) = &self.file {
            return Ok(Arc::clone(file));
        }
        let path = self.segment.path();
        self.storage.open_file(path, Access::Write).map_err(Fault::io("open", path))
    }

    /// Opens the file if it was parked.
    pub(crate) fn open(&mut self) -> Result<(), Fault> {
        if self.file.is_none() {
            self.file()?;
        }
        Ok(())
    }

    /// Closes the file that was opened, and of which nothing was done since.
    pub(crate) fn close_unused(&mut self) {
        self.file = None;
    }

    pub(crate) fn is_parked(&self) -> bool {
        self.file.is_none()
    }

    /// Writes what is staged and closes the file until the next write or sync. Where a failed write-back would be told only
    /// to those who had the file open at the time, everything is made durable first.
    pub(crate) fn park(&mut self) -> Result<(), Fault> {
        self.write_staged()?;
        if !self.storage.reports_late() {
            self.sync()?;
        }
        self.file = None;
        drop(self.take_slot());
        Ok(())
    }

    /// The number behind the last record, staged ones included.
    pub(crate) fn next(&self) -> SequenceNumber {
        self.segment.first().plus(self.records)
    }

    /// Bytes of keys and data, staged ones included.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The arrival of the last record, staged ones included.
    pub(crate) fn last_arrival(&self) -> Timestamp {
        self.last_arrival
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Keeps room for a section about producers of this many bytes, which [`has_room`](Self::has_room) has found to be there.
    pub(crate) fn reserve(&mut self, section_bytes: u64) {
        self.reserved = section_bytes;
    }

    /// Whether frames of this many bytes fit, with their places in the index, what is reserved, and the footer.
    pub(crate) fn has_room(&self, frame_bytes: u64, records: u64) -> bool {
        let frames_end = self.staged_end().saturating_add(frame_bytes);
        let records = usize::try_from(self.records.saturating_add(records)).unwrap_or(usize::MAX / 8);
        let end = frames_end.saturating_add(index_bytes(records) as u64).saturating_add(self.reserved);
        end <= self.segment.header().footer_position()
    }

    /// The most bytes that a section about producers can have behind the records that there are.
    pub(crate) fn section_room(&self) -> u64 {
        let records = usize::try_from(self.records).unwrap_or(usize::MAX / 8);
        let sections_start = self.staged_end().saturating_add(index_bytes(records) as u64);
        self.segment.header().footer_position().saturating_sub(sections_start)
    }

    /// The smallest file that holds a group of frames of this many bytes.
    pub(crate) fn file_bytes_for(frame_bytes: u64, records: u64) -> u64 {
        let records = usize::try_from(records).unwrap_or(usize::MAX / 8);
        (SEGMENT_HEADER_BYTES + FOOTER_BYTES + index_bytes(records)) as u64 + frame_bytes
    }

    /// Encodes a record behind those staged before. There is room in the segment: the caller asked. Where there is none in the buffer, what
    /// is in it is written, but not shown to readers before [`write_staged`](Self::write_staged): it may be a part of a batch.
    pub(crate) fn stage(&mut self, input: &FrameInput<'_>) -> Result<(), Fault> {
        let size = input.size();
        if !self.buffer.has_room(size) {
            self.write_buffer()?;
        }
        self.segment.push_position(self.staged_end());
        if self.buffer.has_room(size) {
            let staged = self.buffer.push(size, |frame| encode(frame, &self.checker, input));
            staged.map_err(Fault::io("stage for", self.segment.path()))?;
        } else {
            self.write_large(size, input)?;
        }
        self.records += 1;
        self.bytes += (input.partition_key.len() + input.data.len()) as u64;
        self.first_arrival.get_or_insert(input.arrival);
        self.last_arrival = input.arrival;
        Ok(())
    }

    /// Writes a frame that is larger than the whole buffer, which is empty.
    fn write_large(&mut self, size: usize, input: &FrameInput<'_>) -> Result<(), Fault> {
        let mut frame = vec![0; size];
        encode(&mut frame, &self.checker, input);
        let (file, path) = (self.file()?, self.segment.path());
        file.write_at(&frame, self.written_end).map_err(Fault::io("write", path))?;
        self.written_end += size as u64;
        Ok(())
    }

    fn staged_end(&self) -> u64 {
        self.written_end + self.buffer.len() as u64
    }

    /// Bytes that wait to be written.
    pub(crate) fn staged_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Bytes that are staged or written, and not known durable.
    pub(crate) fn unsynced_bytes(&self) -> u64 {
        self.staged_end() - self.durable_end
    }

    /// Whether what is staged survives the death of the process.
    pub(crate) fn has_slot(&self) -> bool {
        self.buffer.has_slot()
    }

    /// Stages in this slot from now on; on failure, and where something is staged, as before.
    pub(crate) fn use_slot(&mut self, slot: StagingSlot) -> Result<(), Fault> {
        if !self.buffer.is_empty() {
            return Ok(());
        }
        let header = self.segment.header();
        self.buffer.use_slot(slot, header).map_err(Fault::io("stage for", self.segment.path()))
    }

    /// Gives the slot back, if there is one and nothing is in it.
    pub(crate) fn take_slot(&mut self) -> Option<StagingSlot> {
        self.buffer.take_slot()
    }

    /// Where the written frames end.
    pub(crate) fn written_end(&self) -> u64 {
        self.written_end
    }

    /// Writes what is staged in one call, and shows it to readers of the unsynced tail.
    pub(crate) fn write_staged(&mut self) -> Result<(), Fault> {
        self.write_buffer()?;
        self.segment.publish_end(self.written_end);
        Ok(())
    }

    fn write_buffer(&mut self) -> Result<(), Fault> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.open()?;
        let frames = self.buffer.frames();
        let Some(file) = &self.file else { return Ok(()) };
        file.write_at(frames, self.written_end).map_err(Fault::io("write", self.segment.path()))?;
        self.written_end += frames.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Zeros to be written before the sync that is to come, and where: they make the syncs behind it cheaper. Nothing where the commits
    /// are few, or so large that the disk is busy with them anyway. Nobody else may write to the segment until they are written.
    pub(crate) fn zeros_ahead(&mut self) -> Option<(&'static [u8], u64)> {
        self.syncs = self.syncs.saturating_add(1);
        let group = self.written_end - self.durable_end;
        let is_small = group <= ZEROS_AHEAD as u64 / 4;
        let is_near = self.written_end + group > self.zeros_end; // the next group may reach it
        if self.syncs < SYNCS_BEFORE_ZEROS || !is_small || !is_near {
            return None;
        }
        let start = self.written_end.max(self.zeros_end);
        // As much as was written so far: a segment that stays small costs little more.
        let most = usize::try_from(self.written_end).unwrap_or(ZEROS_AHEAD).clamp(LEAST_ZEROS_AHEAD, ZEROS_AHEAD);
        let room = usize::try_from(self.segment.header().footer_position().saturating_sub(start)).unwrap_or(most);
        let zeros = ZEROS.get(..most.min(room)).filter(|zeros| !zeros.is_empty())?;
        self.zeros_end = start + zeros.len() as u64;
        Some((zeros, start))
    }

    /// Whether all that is written stands where zeros stood that an earlier commit made durable: the one that wrote them.
    pub(crate) fn is_in_place(&self) -> bool {
        self.written_end <= self.zeros_end
    }

    /// Records that a sync which began after `end` was written has succeeded.
    pub(crate) fn note_durable(&mut self, end: u64) {
        self.durable_end = self.durable_end.max(end);
        self.segment.publish_durable(end);
    }

    /// Makes everything staged and written durable.
    pub(crate) fn sync(&mut self) -> Result<(), Fault> {
        self.write_staged()?;
        if self.durable_end < self.written_end {
            self.file()?.sync().map_err(Fault::io("sync", self.segment.path()))?;
            self.note_durable(self.written_end);
        }
        Ok(())
    }

    /// Seals the segment: all frames durable first, then index, section about producers and footer, durable too. An empty segment
    /// must not be sealed; see [`remove_empty`](Self::remove_empty). There is room for the section, or it was reserved.
    pub(crate) fn seal(&mut self, kind: SealKind, producers: &[u8]) -> Result<Footer, Fault> {
        // In two steps: one sync for all could, cut short, leave a footer that vouches for frames or an index that are
        // not there.
        self.write_staged()?;
        let file = self.file()?;
        let index_checksum = self.write_sections(file.as_ref(), producers)?;
        file.sync().map_err(Fault::io("sync", self.segment.path()))?;
        self.note_durable(self.written_end);
        let footer = self.write_footer(file.as_ref(), kind, index_checksum, producers)?;
        file.sync().map_err(Fault::io("sync", self.segment.path()))?;
        // A hint: where the file system cannot, the room stays taken until the segment expires.
        let _ = file.release(footer.sections_end()..self.segment.header().footer_position());
        self.segment.publish_footer(footer);
        Ok(footer)
    }

    /// Writes index and section; gives the checksum of the index.
    fn write_sections(&self, file: &dyn StorageFile, producers: &[u8]) -> Result<u32, Fault> {
        let mut sections = self.segment.encode_index();
        let index_checksum = self.checker.checksum(&sections);
        sections.extend_from_slice(producers);
        file.write_at(&sections, self.written_end).map_err(Fault::io("write", self.segment.path()))?;
        Ok(index_checksum)
    }

    fn write_footer(
        &self,
        file: &dyn StorageFile,
        kind: SealKind,
        index_checksum: u32,
        producers: &[u8],
    ) -> Result<Footer, Fault> {
        let path = self.segment.path();
        let (producers, producers_checksum) = section_summary(producers, &self.checker);
        let footer = Footer {
            kind,
            first: self.segment.first(),
            records: self.records,
            frames_end: self.written_end,
            index_position: self.written_end,
            first_arrival: self.first_arrival.unwrap_or(self.last_arrival),
            last_arrival: self.last_arrival,
            bytes: self.bytes,
            index_checksum,
            producers,
            producers_checksum,
        };
        let footer_bytes = footer.encode(self.segment.seed());
        file.write_at(&footer_bytes, self.segment.header().footer_position()).map_err(Fault::io("write", path))?;
        Ok(footer)
    }

    /// Removes a segment that never got a record, so that its successor can have its name.
    pub(crate) fn remove_empty(self) -> Result<(), Fault> {
        let path = self.segment.path();
        self.storage.remove_file(path).map_err(Fault::io("remove", path))
    }
}

/// What a footer says of a section about producers: how many entries, and their checksum.
fn section_summary(section: &[u8], checker: &Checker) -> (u32, u32) {
    match section.len() / PART_BYTES {
        0 => (0, 0),
        entries => (u32::try_from(entries).unwrap_or(u32::MAX), checker.checksum(section)),
    }
}

/// Writes the bytes of a range again, as they are.
fn rewrite(file: &dyn StorageFile, path: &Path, range: Range<u64>) -> Result<(), Fault> {
    const PIECE: u64 = 1 << 20;
    let mut piece = Vec::new();
    let mut position = range.start;
    while position < range.end {
        let count = (range.end - position).min(PIECE);
        piece.resize(usize::try_from(count).unwrap_or(0), 0);
        let read = file.read_at(&mut piece, position).map_err(Fault::io("read", path))?;
        if read == 0 {
            break;
        }
        piece.truncate(read);
        file.write_at(&piece, position).map_err(Fault::io("write", path))?;
        position += read as u64;
    }
    Ok(())
}

/// Fails where the records that a scan found from the `known`th on are not found again.
fn expect_again(
    file: &dyn StorageFile,
    path: &Path,
    header: &SegmentHeader,
    found: &Scan,
    known: usize,
) -> Result<(), Fault> {
    let expected = found.starts.get(known..).unwrap_or_default();
    let Some(start) = expected.first() else { return Ok(()) };
    let (end, next) = (u64::from(*start) * 8, header.first.plus(known as u64));
    let mut again = Scan { end, next, ..Scan::start(header) };
    advance(file, path, header, &mut again)?;
    if again.starts == expected && again.end == found.end {
        return Ok(());
    }
    let lost = io::Error::other("the storage no longer gives what it gave before");
    Err(Fault::io("read again", path)(lost))
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;
    use crate::format::FRAME_HEADER_BYTES;
    use crate::storage::{Crash, DiskFault, Operation, SimulatedDisk};
    use crate::types::{ShardId, StreamId};

    const KEY: &str = "key";

    fn writer(file_bytes: u64) -> SegmentWriter {
        writer_on(SimulatedDisk::new(), file_bytes)
    }

    fn writer_on(disk: SimulatedDisk, file_bytes: u64) -> SegmentWriter {
        let storage: Arc<dyn Storage> = Arc::new(disk);
        let header = SegmentHeader {
            stream_id: StreamId::new(1),
            shard_id: ShardId::new(2),
            incarnation: 1,
            first: SequenceNumber::new(100),
            created: Timestamp::from_millis(0),
            file_bytes,
        };
        SegmentWriter::create(&storage, Path::new("/"), header).unwrap()
    }

    /// Stages a record whose frame has this many bytes.
    fn stage(writer: &mut SegmentWriter, frame: usize) {
        let input = FrameInput {
            sequence_number: writer.next(),
            arrival: Timestamp::from_millis(1),
            durable: SequenceNumber::ZERO,
            batch_remaining: 0,
            explicit_hash_key: None,
            producer: None,
            partition_key: KEY,
            data: &vec![1; frame - FRAME_HEADER_BYTES - KEY.len()],
        };
        assert_eq!(input.size(), frame);
        writer.stage(&input).unwrap();
    }

    /// What a commit of such a group writes ahead.
    fn commit(writer: &mut SegmentWriter, group: usize) -> Option<(usize, u64)> {
        stage(writer, group);
        writer.write_staged().unwrap();
        let zeros = writer.zeros_ahead().map(|(zeros, at)| (zeros.len(), at));
        writer.note_durable(writer.written_end());
        zeros
    }

    #[test]
    fn what_is_staged_waits_until_it_is_written() {
        let mut writer = writer(64 << 10);
        assert_eq!((writer.staged_bytes(), writer.unsynced_bytes()), (0, 0));
        stage(&mut writer, 104);
        stage(&mut writer, 200);
        assert_eq!((writer.staged_bytes(), writer.unsynced_bytes()), (304, 304));
        writer.write_staged().unwrap();
        assert_eq!((writer.staged_bytes(), writer.unsynced_bytes()), (0, 304));
        assert_eq!(writer.written_end(), SEGMENT_HEADER_BYTES as u64 + 304);
        writer.sync().unwrap();
        assert_eq!(writer.unsynced_bytes(), 0);
    }

    /// Zeros come from the third commit on, behind what is written, before it is needed, and no more than was written so far.
    #[test]
    fn zeros_are_written_ahead_of_small_commits() {
        const GROUP: usize = 1024;
        let mut writer = writer(8 << 20);
        assert_eq!([(); 2].map(|()| commit(&mut writer, GROUP)), [None; 2], "it may stay with a few");
        assert!(!writer.is_in_place(), "no zeros were written yet");
        let start = writer.written_end() + GROUP as u64;
        assert_eq!(commit(&mut writer, GROUP), Some((LEAST_ZEROS_AHEAD, start)));
        let mut zeros_end = start + LEAST_ZEROS_AHEAD as u64;
        let (mut longest, mut calls) = (0, 0);
        for _ in 3..4000 {
            let zeros = commit(&mut writer, GROUP);
            if let Some((length, at)) = zeros {
                assert_eq!(at, zeros_end, "where the others ended");
                assert!(at < writer.written_end() + GROUP as u64, "it is soon reached");
                assert!(length as u64 <= writer.written_end().max(LEAST_ZEROS_AHEAD as u64));
                zeros_end += length as u64;
                (longest, calls) = (longest.max(length), calls + 1);
            }
            assert!(writer.written_end() + GROUP as u64 <= zeros_end, "the next commit finds them there");
            assert!(writer.is_in_place());
        }
        assert_eq!(longest, ZEROS_AHEAD);
        assert!((8..16).contains(&calls), "{calls}");
    }

    #[test]
    fn no_zeros_are_written_ahead_of_large_commits_or_behind_the_frames_room() {
        for (group, is_small) in [(ZEROS_AHEAD / 4, true), (ZEROS_AHEAD / 4 + 8, false)] {
            let mut writer = writer(8 << 20);
            let zeros: Vec<_> = (0..4).map(|_| commit(&mut writer, group)).collect();
            assert_eq!(zeros.iter().any(Option::is_some), is_small, "{group}: {zeros:?}");
        }
        let mut writer = writer(8 << 10);
        let footer = writer.segment().header().footer_position();
        commit(&mut writer, 104);
        commit(&mut writer, 104);
        let (length, at) = commit(&mut writer, 104).unwrap();
        assert_eq!(at + length as u64, footer);
        assert_eq!((0..20).find_map(|_| commit(&mut writer, 256)), None, "there is no room for more");
    }

    /// What a failed sync left as clean is made durable by nothing but writing it again: all of the range, in pieces of 1 MiB, and no more.
    #[test]
    fn what_is_written_again_is_durable_from_end_to_end() {
        let path = Path::new("/file");
        let disk = SimulatedDisk::new();
        let file = disk.create_file(path).unwrap();
        let bytes: Vec<u8> = (0..(5_usize << 19)).map(|at| u8::try_from(at % 251).unwrap()).collect();
        file.allocate(bytes.len() as u64).unwrap();
        file.sync().unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        file.write_at(&bytes, 0).unwrap();
        disk.fail_on(Operation::Sync, 0, DiskFault::Error(ErrorKind::Other));
        file.sync().unwrap_err();
        let range = 4096..bytes.len() - 8192;
        let written = disk.operations_of(Operation::Write);
        rewrite(file.as_ref(), path, range.start as u64..range.end as u64).unwrap();
        assert_eq!(disk.operations_of(Operation::Write) - written, 3);
        file.sync().unwrap();
        let mut outside = [false; 2];
        for seed in 0..8 {
            let found = disk.fork(Crash::PowerLost { seed }).read_file(path).unwrap();
            assert!(found[range.clone()] == bytes[range.clone()], "something of it is gone");
            outside[0] |= found[..range.start] != bytes[..range.start];
            outside[1] |= found[range.end..] != bytes[range.end..];
        }
        assert_eq!(outside, [true; 2], "written without need");
        let end = bytes.len() as u64;
        rewrite(file.as_ref(), path, end..end + 4096).unwrap();
        assert_eq!(file.len().unwrap(), end, "nothing is behind the end of the file");
    }

    #[test]
    fn a_recovery_writes_nothing_again_that_is_known_durable() {
        const FRAME: usize = 1_024;
        let disk = SimulatedDisk::new();
        let mut dead = writer_on(disk.clone(), 8 << 10);
        (0..3).for_each(|_| stage(&mut dead, FRAME));
        disk.fail_on(Operation::Sync, 0, DiskFault::Error(ErrorKind::Other));
        dead.sync().unwrap_err();
        let (path, header, file) = (dead.segment().path(), *dead.segment().header(), dead.file.as_ref().unwrap());
        let mut found = Scan::start(&header);
        advance(file.as_ref(), path, &header, &mut found).unwrap();
        let durable = header.first.plus(2);
        SegmentWriter::recover(&dead.storage, path, header, &found, durable).unwrap().sync().unwrap();
        let written = disk.read_file(path).unwrap();
        let [_, second, third, end] = [0, 1, 2, 3].map(|frame| SEGMENT_HEADER_BYTES + frame * FRAME);
        let mut is_lost = false;
        for seed in 0..8 {
            let left = disk.fork(Crash::PowerLost { seed }).read_file(path).unwrap();
            is_lost |= left[second..third] != written[second..third];
            assert!(left[third..end] == written[third..end], "what was not known durable is gone");
        }
        assert!(is_lost, "written without need");
    }
}
