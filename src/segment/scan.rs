//! Finding the end of a segment whose writer died, and telling a torn tail from damage.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;

use crate::format::{
    Checker, FRAME_HEADER_BYTES, Frame, FrameError, FrameInput, ProducerStamp, RawFrame, SEGMENT_HEADER_BYTES,
    Seed, SegmentHeader, index_bytes,
};
use crate::storage::{Corruption, Fault, StorageFile};
use crate::types::{SequenceNumber, Timestamp};

/// What a scan of a segment's frames found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scan {
    /// Where each sound frame starts, in units of 8 bytes.
    pub(crate) starts: Vec<u32>,
    /// Where the sound frames end.
    pub(crate) end: u64,
    /// The number behind the last sound record.
    pub(crate) next: SequenceNumber,
    pub(crate) first_arrival: Option<Timestamp>,
    pub(crate) last_arrival: Timestamp,
    /// Bytes of keys and data.
    pub(crate) bytes: u64,
    /// Whether something other than zeros stood behind the end: a write that was cut short.
    pub(crate) torn: bool,
    /// Where frames of a batch that is not whole end, and the number behind them: what a writer staged may continue it.
    pub(crate) reached: (u64, SequenceNumber),
    /// The last batch of each producer.
    pub(crate) stamped: BTreeMap<u64, StampedBatch>,
}

/// A batch of a producer, as a segment holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StampedBatch {
    pub(crate) stamp: ProducerStamp,
    pub(crate) first: SequenceNumber,
    pub(crate) count: u32,
    pub(crate) arrival: Timestamp,
}

impl StampedBatch {
    /// The batch that a frame begins, if it has a stamp.
    #[inline]
    fn begun_by(frame: &RawFrame<'_>) -> Option<Self> {
        let stamp = frame.producer()?;
        let count = frame.batch_remaining().saturating_add(1);
        Some(Self { stamp, first: frame.sequence_number(), count, arrival: frame.arrival() })
    }

    /// The batch that a frame is to begin, if it has a stamp.
    pub(crate) fn of_input(input: &FrameInput<'_>) -> Option<Self> {
        let count = input.batch_remaining.saturating_add(1);
        Some(Self { stamp: input.producer?, first: input.sequence_number, count, arrival: input.arrival })
    }
}

/// Reads a segment's frames from `from`, a scan of its front (or [`Scan::start`]), to their end.
///
/// The frames end at the first place that does not decode, or before a batch that is not whole. `durable` is the number
/// below which records are known durable from elsewhere. If the frames end below it, or below what any
/// later frame says was durable, the file is damaged.
pub(crate) fn scan(
    file: &dyn StorageFile,
    path: &Path,
    header: &SegmentHeader,
    from: Scan,
    durable: SequenceNumber,
) -> Result<Scan, Fault> {
    let mut window = Window::new(file, path, header);
    let mut found = from;
    let stop = read_frames(&mut window, header, &mut found)?;
    found.reached = (stop.position, stop.next);
    let behind = look_behind(&mut window, header.seed(), stop.position, found.next)?;
    found.torn = behind.anything || stop.position > found.end;
    let known_durable = durable.max(behind.durable);
    if found.next < known_durable {
        let reason = format!("{}, though the records below {known_durable} were durable", stop.reason);
        return Err(Corruption::new(path, found.end, reason)
            .of_shard(header.shard_id)
            .of_records(found.next, known_durable.previous())
            .into());
    }
    Ok(found)
}

impl Scan {
    /// Nothing read yet.
    pub(crate) fn start(header: &SegmentHeader) -> Self {
        Self {
            starts: Vec::new(),
            end: SEGMENT_HEADER_BYTES as u64,
            next: header.first,
            first_arrival: None,
            last_arrival: Timestamp::MIN,
            bytes: 0,
            torn: false,
            reached: (SEGMENT_HEADER_BYTES as u64, header.first),
            stamped: BTreeMap::new(),
        }
    }

    /// A copy to run ahead with inside a batch.
    fn ahead(&self) -> Self {
        Self { starts: Vec::new(), stamped: BTreeMap::new(), ..*self }
    }
}

/// Reads on from a scan of a segment's front, without judging what stopped it: how a follower keeps up with a
/// writer at work.
pub(crate) fn advance(
    file: &dyn StorageFile,
    path: &Path,
    header: &SegmentHeader,
    found: &mut Scan,
) -> Result<(), Fault> {
    read_frames(&mut Window::new(file, path, header), header, found).map(drop)
}

struct Stop {
    position: u64,
    next: SequenceNumber,
    reason: &'static str,
}

/// Adds whole batches to `found` until a place does not decode as the next record.
fn read_frames(window: &mut Window<'_>, header: &SegmentHeader, found: &mut Scan) -> Result<Stop, Fault> {
    let checker = header.seed().checker();
    let mut batch = found.ahead();
    let mut expected_remaining: Option<u32> = None;
    let mut stamped = None;
    loop {
        let (position, next) = (batch.end, batch.next);
        let frame = match window.raw_frame(position, &checker)? {
            Ok(frame) => frame,
            Err(error) => return Ok(Stop { position, next, reason: reason(error) }),
        };
        let (arrival, remaining) = (frame.arrival(), frame.batch_remaining());
        let in_order = frame.sequence_number() == batch.next && arrival >= batch.last_arrival;
        let in_batch = expected_remaining.is_none_or(|expected| remaining == expected);
        if !leaves_room(header, &batch, frame.size()) {
            return Ok(Stop { position, next, reason: "a record leaves no room for the index" });
        }
        if !(in_order && in_batch) {
            return Ok(Stop { position, next, reason: "a record is out of its order" });
        }
        if expected_remaining.is_none() {
            stamped = StampedBatch::begun_by(&frame);
        }
        batch.starts.push(u32::try_from(position / 8).unwrap_or(u32::MAX));
        batch.end += frame.size() as u64;
        batch.next = batch.next.next();
        batch.first_arrival.get_or_insert(arrival);
        batch.last_arrival = arrival;
        batch.bytes += (frame.partition_key().len() + frame.data().len()) as u64;
        expected_remaining = remaining.checked_sub(1);
        if expected_remaining.is_none() {
            accept(found, &mut batch);
            if let Some(batch) = stamped {
                found.stamped.insert(batch.stamp.producer_id, batch);
            }
        }
    }
}

/// Whether the index over the records up to this one fits behind it: a writer never goes further.
fn leaves_room(header: &SegmentHeader, batch: &Scan, frame_bytes: usize) -> bool {
    let records = usize::try_from(batch.next.since(header.first)).map_or(usize::MAX / 8, |before| before + 1);
    let end = batch.end.saturating_add((frame_bytes + index_bytes(records)) as u64);
    end <= header.footer_position()
}

/// Takes over a whole batch.
fn accept(found: &mut Scan, batch: &mut Scan) {
    found.starts.append(&mut batch.starts);
    found.end = batch.end;
    found.next = batch.next;
    found.first_arrival = batch.first_arrival;
    found.last_arrival = batch.last_arrival;
    found.bytes = batch.bytes;
}

fn reason(error: FrameError) -> &'static str {
    match error {
        FrameError::Empty => "zeros in the place of a record",
        FrameError::Length => "a frame's length is impossible",
        FrameError::Checksum => "a frame's checksum does not match",
        FrameError::Fields => "a frame's fields contradict each other",
    }
}

/// What stands behind the end of the sound frames.
struct Behind {
    /// The highest number below which a later frame says that all was durable.
    durable: SequenceNumber,
    /// Whether there is anything but zeros.
    anything: bool,
}

/// Looks for later sound frames. Finding one proves nothing by itself: the sectors of one unsynced group
/// reach the disk in any order. Only its watermark does.
///
/// A place is worth a checksum only if it claims a length and a number that are possible there. Data that imitates frames
/// could still ask for many: the work is bounded by a budget, and past it the answer is "damaged", since
/// a silent cut would be the worse mistake.
fn look_behind(window: &mut Window<'_>, seed: Seed, from: u64, next: SequenceNumber) -> Result<Behind, Fault> {
    let mut behind = Behind { durable: SequenceNumber::ZERO, anything: false };
    let limit = window.limit;
    let mut budget = 4 * limit + (64 << 20);
    let mut position = from;
    while position + 8 <= limit {
        let zeros = window.zeros_at(position)?;
        if zeros > 0 {
            position += zeros;
            continue;
        }
        behind.anything = true;
        let numbers = window.numbers_from(next);
        if let Some(size) = window.possible_frame(position, numbers)? {
            budget = budget.saturating_sub(size);
            if budget == 0 {
                behind.durable = next.next();
                return Ok(behind);
            }
            if let Ok(frame) = window.frame(position, seed)? {
                behind.durable = behind.durable.max(frame.durable);
                position += frame.size as u64;
                continue;
            }
        }
        position += 8;
    }
    Ok(behind)
}

/// A piece of the file in memory. Read with positional reads, not through a map: a page that the device cannot
/// read is then an error and not a signal.
pub(super) struct Window<'a> {
    file: &'a dyn StorageFile,
    path: &'a Path,
    /// Frames end below this position.
    pub(super) limit: u64,
    start: u64,
    bytes: Vec<u8>,
    /// How much is read at once: doubles from piece to piece, so that a short look stays cheap.
    step: u64,
}

const FIRST_STEP: u64 = 16 << 10;
const LAST_STEP: u64 = 1 << 20;

impl<'a> Window<'a> {
    pub(super) fn new(file: &'a dyn StorageFile, path: &'a Path, header: &SegmentHeader) -> Self {
        Self { file, path, limit: header.footer_position(), start: 0, bytes: Vec::new(), step: FIRST_STEP }
    }

    /// The bytes at `position`, at least `count` of them unless the frames' room ends before.
    fn at(&mut self, position: u64, count: u64) -> Result<&[u8], Fault> {
        let end = position.saturating_add(count).min(self.limit);
        let have = self.start..self.start + self.bytes.len() as u64;
        if position < have.start || end > have.end {
            self.load(position, end)?;
        }
        let offset = usize::try_from(position.saturating_sub(self.start)).unwrap_or(usize::MAX);
        Ok(self.bytes.get(offset..).unwrap_or_default())
    }

    fn load(&mut self, position: u64, end: u64) -> Result<(), Fault> {
        // Bounded by the file, whose length was compared with its header's.
        let end = end.max(position + self.step).min(self.limit).max(position);
        self.step = (self.step * 2).min(LAST_STEP);
        let len = usize::try_from(end - position).unwrap_or(0);
        self.bytes.resize(len, 0);
        let read = self.file.read_at(&mut self.bytes, position).map_err(Fault::io("read", self.path))?;
        self.bytes.truncate(read);
        self.start = position;
        Ok(())
    }

    /// The frame at `position`, or why there is none; the outer error is one of the system's.
    pub(super) fn frame(&mut self, position: u64, seed: Seed) -> Result<Result<Frame<'_>, FrameError>, Fault> {
        let raw = self.raw_frame(position, &seed.checker())?;
        Ok(raw.and_then(|raw| raw.decode().ok_or(FrameError::Fields)))
    }

    fn raw_frame(&mut self, position: u64, checker: &Checker) -> Result<Result<RawFrame<'_>, FrameError>, Fault> {
        if position + 8 > self.limit {
            return Ok(Err(FrameError::Empty)); // the room is used up
        }
        let size = match Frame::size_at(self.at(position, 8)?) {
            Ok(size) => size as u64,
            Err(error) => return Ok(Err(error)),
        };
        if size > self.limit - position {
            return Ok(Err(FrameError::Length));
        }
        Ok(RawFrame::check(self.at(position, size)?, checker))
    }

    /// The numbers that records behind a place can have, of which the first would be `next`.
    pub(super) fn numbers_from(&self, next: SequenceNumber) -> RangeInclusive<SequenceNumber> {
        next..=next.plus(self.limit / FRAME_HEADER_BYTES as u64)
    }

    /// The size that a frame at `position` would have, if it could be a record of one of these numbers.
    pub(super) fn possible_frame(
        &mut self,
        position: u64,
        numbers: RangeInclusive<SequenceNumber>,
    ) -> Result<Option<u64>, Fault> {
        let room = self.limit - position;
        let bytes = self.at(position, 16)?;
        let possible = Frame::size_at(bytes).ok().map(|size| size as u64).filter(|size| *size <= room);
        let claims = Frame::claimed_sequence_number(bytes).is_some_and(|number| numbers.contains(&number));
        Ok(possible.filter(|_| claims))
    }

    /// How many zero bytes stand at `position`, in steps of 8, as far as is in memory, or known without a read.
    pub(super) fn zeros_at(&mut self, position: u64) -> Result<u64, Fault> {
        let bytes = self.at(position, 8)?;
        let (zeros, loaded) = (leading_zeros(bytes) as u64, bytes.len() as u64);
        if zeros < loaded {
            return Ok(zeros / 8 * 8);
        }
        let end = position + zeros;
        let data = self.file.data_from(end).map_err(Fault::io("seek in", self.path))?;
        Ok((data.clamp(end, self.limit.max(end)) - position) / 8 * 8)
    }
}

/// How many zero bytes `bytes` start with: at memory speed, since all the room of a segment is looked at.
fn leading_zeros(bytes: &[u8]) -> usize {
    const PIECE: usize = 256;
    let (pieces, _) = bytes.as_chunks::<PIECE>();
    let zeros =
        PIECE * pieces.iter().take_while(|piece| piece.iter().fold(0, |all, byte| all | byte) == 0).count();
    zeros + bytes.iter().skip(zeros).take_while(|byte| **byte == 0).count()
}

#[cfg(test)]
mod tests;
