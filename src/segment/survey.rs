//! What is still sound in a segment that is damaged: for salvage and repair, which want every record that passes its
//! checksum, where recovery wants to know whether anything is wrong.

use std::io;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use super::scan::Window;
use crate::format::{FOOTER_BYTES, FRAME_HEADER_BYTES, Footer, Frame, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::limits::MAX_SEGMENT_FILE_BYTES;
use crate::storage::{Fault, StorageFile};
use crate::types::{SequenceNumber, ShardId, StreamId, Timestamp};

/// How many incarnations are tried where a damaged header does not tell its own.
const MAX_GUESSES: u64 = 1 << 16;
/// Of how many places that may be records each of them is tried, and of how many bytes of records, if the first two do not have more.
const MAX_WITNESSES: usize = 16;
const WITNESS_BYTES: u64 = 1 << 20;
/// How many bytes are summed up for that: fewer incarnations are tried of long records.
const GUESS_BYTES: u64 = 64 << 30;
/// What a device is asked for at once where it could not give more: the sectors around a bad one are still read.
const SECTOR_GROUP: usize = 4096;

/// Whose segment a file should be.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    pub(crate) stream_id: StreamId,
    pub(crate) shard_id: ShardId,
    pub(crate) first: SequenceNumber,
    /// Which openings can have written it.
    pub(crate) incarnations: RangeInclusive<u64>,
}

impl Expected {
    /// The segment with this header.
    pub(crate) fn exactly(header: &SegmentHeader) -> Self {
        Self {
            stream_id: header.stream_id,
            shard_id: header.shard_id,
            first: header.first,
            incarnations: header.incarnation..=header.incarnation,
        }
    }
}

/// What was found in one segment file.
#[derive(Debug)]
pub(crate) struct Survey {
    pub(crate) header: SegmentHeader,
    /// The footer, if it is sound.
    pub(crate) footer: Option<Footer>,
    /// The records that pass their checksums, ascending.
    pub(crate) runs: Vec<Run>,
    /// The highest number below which a record says that all was durable.
    pub(crate) durable: SequenceNumber,
}

/// Records that follow each other without a gap, in number and in place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) first: SequenceNumber,
    pub(crate) next: SequenceNumber,
    /// The number behind its last whole batch.
    pub(crate) whole: SequenceNumber,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) last_arrival: Timestamp,
}

impl Survey {
    /// Surveys a file; nothing if it cannot be told to be the expected segment.
    pub(crate) fn of(
        file: &Arc<dyn StorageFile>,
        path: &Path,
        expected: &Expected,
    ) -> Result<Option<Self>, Fault> {
        let file = file.as_ref();
        let Some(header) = find_header(file, path, expected)? else {
            return Ok(None);
        };
        let footer = super::read_footer(file, path, &header)?;
        let mut survey = Self { header, footer, runs: Vec::new(), durable: SequenceNumber::ZERO };
        survey.walk(&mut Window::new(file, path, &header), footer)?;
        Ok(Some(survey))
    }

    /// Drops what a crash may have left behind the end of the log: of an unsealed segment count, behind its first run, only records
    /// below `durable`; and in front of them only whole batches.
    pub(crate) fn cut_torn_tail(&mut self, durable: SequenceNumber) {
        let durable = durable.max(self.durable);
        let first = self.header.first;
        self.runs.retain_mut(|run| {
            let most = if run.first == first { durable.max(run.whole) } else { durable };
            run.next = run.next.min(most);
            run.first < run.next
        });
    }

    /// Drops what is not below `next`.
    pub(crate) fn cut_at(&mut self, next: SequenceNumber) {
        self.runs.retain_mut(|run| {
            run.next = run.next.min(next);
            run.first < run.next
        });
    }

    /// Calls `visit` with each record of a run, until it answers `false`; whether it never did.
    pub(crate) fn visit(
        &self,
        file: &Arc<dyn StorageFile>,
        path: &Path,
        run: &Run,
        mut visit: impl FnMut(&Frame<'_>) -> Result<bool, Fault>,
    ) -> Result<bool, Fault> {
        let mut window = Window::new(file.as_ref(), path, &self.header);
        let (mut position, mut number) = (run.start, run.first);
        while number < run.next {
            let Ok(frame) = window.frame(position, self.header.seed())? else {
                break; // was sound a moment ago: the device changed its mind
            };
            position += frame.size as u64;
            number = number.next();
            if !visit(&frame)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Finds the runs. As in recovery's look behind a torn tail, a place is worth a checksum only if it claims a length and a
    /// number that are possible there, and the work is bounded: past the budget, the rest counts as lost.
    fn walk(&mut self, window: &mut Window<'_>, footer: Option<Footer>) -> Result<(), Fault> {
        let seed = self.header.seed();
        let limit = footer.map_or(window.limit, |footer| footer.frames_end);
        let mut budget = 4 * limit + (64 << 20);
        let mut position = SEGMENT_HEADER_BYTES as u64;
        let mut next = self.header.first;
        while position + 8 <= limit && budget > 0 {
            let zeros = window.zeros_at(position)?;
            if zeros > 0 {
                position += zeros;
                continue;
            }
            let numbers = window.numbers_from(next);
            if let Some(size) = window.possible_frame(position, numbers)? {
                budget = budget.saturating_sub(size);
                if let Ok(frame) = window.frame(position, seed)?
                    && self.add(&frame, position)
                {
                    position += frame.size as u64;
                    next = frame.sequence_number.next();
                    continue;
                }
            }
            position += 8;
        }
        Ok(())
    }

    /// Whether the frame can stand where it does.
    fn add(&mut self, frame: &Frame<'_>, position: u64) -> bool {
        let number = frame.sequence_number;
        let end = position + frame.size as u64;
        let last = self.runs.last().map_or(Timestamp::MIN, |run| run.last_arrival);
        if frame.arrival < last || number.next() == number {
            return false;
        }
        self.durable = self.durable.max(frame.durable.min(number));
        let whole = frame.batch_remaining == 0;
        match self.runs.last_mut().filter(|run| run.next == number && run.end == position) {
            Some(run) => {
                run.next = number.next();
                run.end = end;
                run.last_arrival = frame.arrival;
                if whole {
                    run.whole = run.next;
                }
            }
            None => self.runs.push(Run {
                first: number,
                next: number.next(),
                whole: if whole { number.next() } else { number },
                start: position,
                end,
                last_arrival: frame.arrival,
            }),
        }
        true
    }
}

/// The segment's header, or one that fits what else is in the file.
fn find_header(file: &dyn StorageFile, path: &Path, expected: &Expected) -> Result<Option<SegmentHeader>, Fault> {
    let length = file.len().map_err(Fault::io("read the length of", path))?;
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    let read = file.read_at(&mut bytes, 0).map_err(Fault::io("read", path))?;
    let decoded = if read == bytes.len() { SegmentHeader::decode(&bytes).ok() } else { None };
    if let Some(header) = decoded {
        let same = (header.stream_id, header.shard_id, header.first)
            == (expected.stream_id, expected.shard_id, expected.first);
        return Ok(same.then(|| sized(header, length)));
    }
    guess_header(file, path, expected, length)
}

/// A header gives its file's length; where the file has another one, frames may stand up to its very end, or to that of the longest file.
fn sized(header: SegmentHeader, length: u64) -> SegmentHeader {
    if header.file_bytes == length {
        return header;
    }
    let length = length.min(MAX_SEGMENT_FILE_BYTES);
    SegmentHeader { file_bytes: (length + FOOTER_BYTES as u64).next_multiple_of(8), ..header }
}

/// Of a damaged header only the incarnation is not known from elsewhere: the right one is that with which the footer, or a record, passes its checksum.
fn guess_header(
    file: &dyn StorageFile,
    path: &Path,
    expected: &Expected,
    length: u64,
) -> Result<Option<SegmentHeader>, Fault> {
    if length < (SEGMENT_HEADER_BYTES + FOOTER_BYTES) as u64 || !length.is_multiple_of(8) {
        return Ok(None);
    }
    let of = |incarnation| SegmentHeader {
        stream_id: expected.stream_id,
        shard_id: expected.shard_id,
        incarnation,
        first: expected.first,
        created: Timestamp::MIN,
        file_bytes: length.min(MAX_SEGMENT_FILE_BYTES),
    };
    let (from, to) = (*expected.incarnations.start(), *expected.incarnations.end());
    let witnesses = Witnesses::of(file, path, &of(to))?;
    let newest = |most| (from..=to).rev().take(usize::try_from(most).unwrap_or(usize::MAX)).map(of);
    let by_footer = newest(MAX_GUESSES).find(|header| witnesses.footer_fits(header));
    Ok(by_footer.or_else(|| newest(witnesses.guesses()).find(|header| witnesses.a_frame_fits(header))))
}

/// What tells, of a file without a sound header, with which incarnation its checksums begin.
struct Witnesses {
    footer: [u8; FOOTER_BYTES],
    /// What may be its first records: those at its front may be damaged as well.
    frames: Vec<Vec<u8>>,
}

impl Witnesses {
    fn of(file: &dyn StorageFile, path: &Path, header: &SegmentHeader) -> Result<Self, Fault> {
        let mut found = Self { footer: [0; FOOTER_BYTES], frames: Vec::new() };
        // A footer that is not there to its end is none.
        file.read_at(&mut found.footer, header.footer_position()).map_err(Fault::io("read", path))?;
        let mut places = possible_frames(&mut Window::new(file, path, header), header.first)?;
        // The first is the likeliest; of the others, which may be data that look like records, short ones say as much for less.
        places.get_mut(1..).unwrap_or_default().sort_unstable();
        let mut bytes = 0;
        for (index, (size, position)) in places.into_iter().enumerate() {
            bytes += size;
            if bytes > WITNESS_BYTES && index > 1 {
                break;
            }
            let mut frame = vec![0; usize::try_from(size).unwrap_or(0)]; // within the file
            file.read_at(&mut frame, position).map_err(Fault::io("read", path))?;
            found.frames.push(frame);
        }
        Ok(found)
    }

    /// Of how many incarnations the frames are tried.
    fn guesses(&self) -> u64 {
        let bytes: usize = self.frames.iter().map(Vec::len).sum();
        MAX_GUESSES.min(GUESS_BYTES / (bytes as u64).max(1))
    }

    fn footer_fits(&self, header: &SegmentHeader) -> bool {
        Footer::decode(&self.footer, header).is_some()
    }

    fn a_frame_fits(&self, header: &SegmentHeader) -> bool {
        let mut frames = self.frames.iter();
        frames.any(|frame| Frame::decode(frame, header.seed()).is_ok())
    }
}

/// The first places that may be records, and the size of each: those between the first one and the one that it claims to be could stand in front of it.
fn possible_frames(window: &mut Window<'_>, first: SequenceNumber) -> Result<Vec<(u64, u64)>, Fault> {
    let mut places = Vec::new();
    let mut position = SEGMENT_HEADER_BYTES as u64;
    while position + 8 <= window.limit && places.len() < MAX_WITNESSES {
        let zeros = window.zeros_at(position)?;
        if zeros > 0 {
            position += zeros;
            continue;
        }
        let most = first.plus((position - SEGMENT_HEADER_BYTES as u64) / FRAME_HEADER_BYTES as u64);
        let size = window.possible_frame(position, first..=most)?;
        places.extend(size.map(|size| (size, position)));
        position += 8;
    }
    Ok(places)
}

/// The same file, sectors that cannot be read as zeros: no record stands in zeros. For reading only; a repair replaces
/// files, and takes an error for what it is.
pub(crate) fn tolerant(file: Arc<dyn StorageFile>) -> Arc<dyn StorageFile> {
    Arc::new(Tolerant(file))
}

/// Copies a file's bytes. What has no room on the disk gets none in the copy: a length alone, whatever it is, costs nothing.
pub(crate) fn copy(from: &dyn StorageFile, to: &dyn StorageFile, length: u64) -> io::Result<()> {
    let mut piece = vec![0; 1 << 20];
    let (mut position, mut written) = (0, 0);
    loop {
        position = from.data_from(position)?.max(position);
        let read = if position < length { from.read_at(&mut piece, position)? } else { 0 };
        if read == 0 {
            break;
        }
        to.write_at(piece.get(..read).unwrap_or_default(), position)?;
        position += read as u64;
        written = position;
    }
    match length.checked_sub(1).filter(|_| written < length) {
        Some(last) => to.write_at(&[0], last),
        None => Ok(()),
    }
}

/// A file whose unreadable sectors read as zeros: no record stands in zeros, so they are lost and nothing else is.
#[derive(Debug)]
struct Tolerant(Arc<dyn StorageFile>);

impl StorageFile for Tolerant {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        match self.0.read_at(buffer, position) {
            Err(_) => self.read_piecewise(buffer, position),
            other => other,
        }
    }

    fn data_from(&self, position: u64) -> io::Result<u64> {
        self.0.data_from(position)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn release(&self, _: std::ops::Range<u64>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn map(&self, _: u64) -> io::Result<crate::storage::Map> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Tolerant {
    fn read_piecewise(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let length = self.0.len()?;
        let count = buffer.len().min(usize::try_from(length.saturating_sub(position)).unwrap_or(usize::MAX));
        let mut done = 0;
        while done < count {
            let start = position + done as u64;
            // Up to the next whole multiple, so that pieces fall on sectors.
            let within = usize::try_from(start % SECTOR_GROUP as u64).unwrap_or(0);
            let end = count.min(done + SECTOR_GROUP - within);
            let Some(piece) = buffer.get_mut(done..end) else { break };
            if !self.0.read_at(piece, start).is_ok_and(|read| read == piece.len()) {
                piece.fill(0);
            }
            done = end;
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
