//! Reading a shard in order.

use crate::sync::atomic::Ordering;
use std::sync::Arc;

use super::{Counters, Done, Shard, ShardError};
use crate::format::RawFrame;
use crate::limits::READ_BATCH_BYTES;
use crate::segment::{Record, RecordBatch, Segment, Visibility};
use crate::storage::{Corruption, Fault};
use crate::types::{SequenceNumber, ShardIteratorType, Timestamp};

/// A place in a shard from which reading goes on. It holds the segment it reads, so that retention does not take it away.
#[derive(Debug)]
pub(crate) struct Cursor {
    shard: Arc<Shard>,
    /// The segment of `next` and where its frame starts, once there is one.
    place: Option<Place>,
    next: SequenceNumber,
    visibility: Visibility,
    /// Records that arrived before this time are passed over.
    not_before: Option<Timestamp>,
    /// What was done before is passed over.
    done: Option<Done>,
    /// The records below this number were verified already, and the last of them ends here in its segment.
    verified: (SequenceNumber, u64),
    /// How many records to verify at once, in the iterator form.
    ahead: usize,
}

#[derive(Debug)]
struct Place {
    segment: Arc<Segment>,
    position: u64,
}

/// What a step of reading found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Records.
    Records,
    /// Nothing more for now.
    Tail,
    /// Nothing more for ever.
    End,
}

/// Checked frames in a segment.
struct Run {
    start: u64,
    end: u64,
    records: usize,
}

impl Cursor {
    /// A cursor at the place that `kind` names. What arrived before `cutoff` is expired.
    pub(crate) fn new(
        shard: Arc<Shard>,
        kind: ShardIteratorType,
        visibility: Visibility,
        cutoff: Option<Timestamp>,
    ) -> Result<Self, ShardError> {
        let mut not_before = None;
        let next = match kind {
            ShardIteratorType::TrimHorizon => shard.trim_horizon(cutoff)?,
            ShardIteratorType::Latest => shard.next(visibility),
            ShardIteratorType::AtSequenceNumber(number) => shard.checked_position(number, number, cutoff)?,
            ShardIteratorType::AfterSequenceNumber(number) => {
                shard.checked_position(number.next(), number, cutoff)?
            }
            ShardIteratorType::AtTimestamp(time) => {
                not_before = Some(time);
                shard.first_at(time, visibility, cutoff)?
            }
        };
        Ok(Self { not_before, ..Self::at(shard, next, visibility, None) })
    }

    pub(super) fn at(shard: Arc<Shard>, next: SequenceNumber, visibility: Visibility, done: Option<Done>) -> Self {
        Self { shard, place: None, next, visibility, not_before: None, done, verified: (next, 0), ahead: 1 }
    }

    pub(crate) fn shard(&self) -> &Arc<Shard> {
        &self.shard
    }

    pub(crate) fn next(&self) -> SequenceNumber {
        self.next
    }

    /// Goes on at another record.
    pub(crate) fn go_on_at(&mut self, next: SequenceNumber) {
        (self.place, self.next, self.verified) = (None, next, (next, 0));
    }

    pub(crate) fn visibility(&self) -> Visibility {
        self.visibility
    }

    pub(crate) fn set_visibility(&mut self, visibility: Visibility) {
        self.visibility = visibility;
        self.verified = (self.next, 0); // some of it may not be shown any more
    }

    /// The records that follow and are there now, borrowed from the map, at most `records` of them. Their checksums are verified.
    pub(crate) fn next_batch(&mut self, records: usize) -> Result<(RecordBatch<'_>, Progress), ShardError> {
        let progress = self.poll()?;
        if progress == Progress::Records {
            let run = self.check_run(records)?;
            return self.lend(&run).map(|batch| (batch, progress));
        }
        Ok((RecordBatch::default(), progress))
    }

    /// The next record, if it is there now. The more were asked for one by one, the more are verified at once.
    pub(crate) fn next_record(&mut self) -> Result<Option<Record>, ShardError> {
        if let Some(record) = self.next_verified() {
            return Ok(Some(record));
        }
        Ok(if self.verify_ahead()? { self.next_verified() } else { None })
    }

    /// The bytes, key and data, of the next record, if it is there now. It is verified, once.
    pub(crate) fn next_record_bytes(&mut self) -> Result<Option<usize>, ShardError> {
        let is_there = self.verified_bytes().is_some() || self.verify_ahead()?;
        Ok(if is_there { self.verified_bytes() } else { None })
    }

    fn verified_bytes(&self) -> Option<usize> {
        let (until, end) = self.verified;
        let place = self.place.as_ref().filter(|_| self.next < until)?;
        let frame = RawFrame::split(place.segment.published(place.position, end).ok()?)?;
        Some(frame.partition_key().len() + frame.data().len())
    }

    /// Verifies the records that follow, if there are any now.
    fn verify_ahead(&mut self) -> Result<bool, ShardError> {
        if self.poll()? != Progress::Records {
            return Ok(false);
        }
        let run = self.check_run(self.ahead)?;
        self.verified = (self.next.plus(run.records as u64), run.end);
        self.ahead = self.ahead.saturating_mul(2);
        Ok(true)
    }

    /// The next record, if it was verified together with one before.
    #[inline]
    pub(crate) fn next_verified(&mut self) -> Option<Record> {
        let (until, end) = self.verified;
        let place = self.place.as_mut().filter(|_| self.next < until)?;
        let frame = RawFrame::split(place.segment.published(place.position, end).ok()?)?;
        place.position += frame.size() as u64;
        self.next = self.next.next();
        let counters = &self.shard.context.counters;
        Counters::add(&counters.records_out, 1);
        Counters::add(&counters.bytes_out, frame.size() as u64);
        Some(Record::new(&place.segment, &frame, usize::try_from(place.position).ok()?))
    }

    /// Whether there is a record at the cursor, now or ever.
    pub(crate) fn poll(&mut self) -> Result<Progress, ShardError> {
        let mut has_drained = false;
        loop {
            match (self.advance()?, self.not_before) {
                (Progress::Records, _) if self.is_done() => self.pass_over_done(),
                (Progress::Records, Some(time)) => {
                    let run = self.check_run(usize::MAX)?;
                    if !self.pass_over(&run, time)? {
                        self.not_before = None;
                    }
                }
                // What was acknowledged is shown: it waits in a slot and comes to the segment now, or somebody brought it there since the last look.
                (Progress::Tail, _) if !has_drained && self.has_unseen() => {
                    self.shard.drain()?;
                    has_drained = true;
                }
                (progress, _) => return Ok(progress),
            }
        }
    }

    fn has_unseen(&self) -> bool {
        self.visibility == Visibility::Written && self.has_news()
    }

    /// Whether all of a closed shard is read.
    #[cfg(feature = "async")]
    pub(crate) fn is_at_end(&self) -> bool {
        self.shard.end().is_some_and(|end| self.next >= end)
    }

    fn is_done(&self) -> bool {
        let (Some(done), Some(place)) = (self.done, &self.place) else {
            return false;
        };
        done.covers(&place.segment, self.next)
    }

    /// Moves behind the records of this segment that were done. They count as read.
    fn pass_over_done(&mut self) {
        if let (Some(done), Some(place)) = (self.done, self.place.take()) {
            let behind = place.segment.first().plus(place.segment.records() as u64);
            self.next = behind.min(done.next);
        }
    }

    /// Whether a poll may find something else than the tail; costs two loads.
    pub(crate) fn has_news(&self) -> bool {
        self.shard.next(self.visibility) > self.next || self.shard.end().is_some_and(|end| self.next >= end)
    }

    /// Finds the segment and the position of `next`, if the record is there.
    fn advance(&mut self) -> Result<Progress, ShardError> {
        loop {
            if self.shard.end().is_some_and(|end| self.next >= end) {
                return Ok(Progress::End);
            }
            let Some(place) = &self.place else {
                self.place = self.find()?;
                if self.place.is_none() {
                    return Ok(Progress::Tail);
                }
                continue;
            };
            if place.position < place.segment.end(self.visibility) {
                return Ok(Progress::Records);
            }
            if let Some(lost) = place.segment.footer().filter(|footer| footer.is_lost()) {
                let (first, next) = (self.next, lost.next());
                self.place = None;
                self.next = next; // said once; what follows can be read
                return Err(ShardError::Lost { first, last: next.previous().unwrap_or(first) });
            }
            // What a shard ends with was sealed before: another process removed this, and what followed in it was not seen here.
            if self.shard.end().is_some() && place.segment.footer().is_none() {
                self.place = None;
                continue;
            }
            // A sealed segment is durable to its end, so being there means that it was read.
            let Some(footer) = place.segment.footer().filter(|footer| place.position >= footer.frames_end) else {
                return Ok(Progress::Tail);
            };
            if self.next != footer.next() {
                let reason = "the frames end before the records that the footer counts";
                return Err(Fault::from(place.segment.damaged_from(place.position, self.next, reason)).into());
            }
            self.place = None;
            self.place = self.find()?;
            if self.place.is_none() {
                return Ok(Progress::Tail);
            }
        }
    }

    fn find(&self) -> Result<Option<Place>, ShardError> {
        let shard = &self.shard;
        // Looked at first: what it counts is in the list of segments by now.
        let (known, written) = (shard.next(self.visibility), shard.next(Visibility::Written));
        let (slot, earliest) = {
            let segments = shard.segments.read();
            (segments.holding(self.next), segments.first())
        };
        let Some(slot) = slot else {
            // Below the first segment: removed while this reader was elsewhere, unless there is none yet.
            let earliest = earliest.unwrap_or(written);
            return if self.next < earliest { Err(shard.trimmed(self.next, earliest)) } else { Ok(None) };
        };
        let segment = slot.segment(&shard.context, shard.id, &shard.directory)?;
        if let Some(footer) = segment.footer().filter(|footer| footer.next() <= self.next) {
            return if self.next < known { Err(self.missing(&segment, footer.next()).into()) } else { Ok(None) };
        }
        if segment.footer().is_some_and(crate::format::Footer::is_lost) {
            return Ok(Some(Place { position: segment.end(Visibility::Durable), segment }));
        }
        // Not before the record is there: a segment without records may yet be replaced by another.
        let is_sealed = segment.footer().is_some(); // looked at first: then all its frames have positions
        let position = segment.position(self.next, Visibility::Written)?;
        if position.is_none() && is_sealed {
            let reason = "the footer counts a record that the frames do not hold";
            return Err(Fault::from(segment.damaged_from(0, self.next, reason)).into());
        }
        Ok(position.map(|position| Place { segment, position }))
    }

    fn missing(&self, before: &Segment, first: SequenceNumber) -> Fault {
        Corruption::new(&self.shard.directory, 0, format!("no segment follows {}", before.path().display()))
            .of_shard(self.shard.id)
            .of_records(first, None)
            .into()
    }

    /// Verifies the frames from the cursor on: as many as make a batch. It ends before a damaged one, which is an error once it comes first.
    fn check_run(&self, records: usize) -> Result<Run, ShardError> {
        let mut run = Run { start: 0, end: 0, records: 0 };
        let Some(place) = &self.place else {
            return Ok(run);
        };
        let segment = &place.segment;
        let visible = segment.end(self.visibility);
        if place.position >= visible {
            return Ok(run);
        }
        let first = segment.frame(place.position, visible, self.next)?;
        let mut size = first.size();
        let (frames, checker) = (segment.published(place.position, visible)?, segment.seed().checker());
        run.records = 1;
        while run.records < records && size < READ_BATCH_BYTES {
            let expected = self.next.plus(run.records as u64);
            let next = frames.get(size..).and_then(|bytes| RawFrame::check(bytes, &checker).ok());
            let Some(frame) = next.filter(|frame| frame.sequence_number() == expected) else {
                break;
            };
            size += frame.size();
            run.records += 1;
        }
        if size >= READ_BATCH_BYTES && place.position < READ_BATCH_BYTES as u64 {
            segment.map().expect_a_scan(); // a whole batch at the segment's front: more will follow
        }
        (run.start, run.end) = (place.position, place.position + size as u64);
        Ok(run)
    }

    /// Moves behind the records of the run that arrived before `time`; whether that was all of them.
    fn pass_over(&mut self, run: &Run, time: Timestamp) -> Result<bool, ShardError> {
        let Some(place) = &mut self.place else {
            return Ok(false);
        };
        while place.position < run.end {
            let frame = place.segment.frame(place.position, run.end, self.next)?;
            if frame.arrival() >= time {
                return Ok(false);
            }
            place.position += frame.size() as u64;
            self.next = self.next.next();
        }
        Ok(true)
    }

    fn lend(&mut self, run: &Run) -> Result<RecordBatch<'_>, ShardError> {
        let Some(place) = &mut self.place else {
            return Ok(RecordBatch::default());
        };
        place.position = run.end;
        self.next = self.next.plus(run.records as u64);
        let bytes = place.segment.published(run.start, run.end)?;
        let counters = &self.shard.context.counters;
        Counters::add(&counters.records_out, run.records as u64);
        Counters::add(&counters.bytes_out, bytes.len() as u64);
        let end = usize::try_from(run.end).unwrap_or(usize::MAX);
        Ok(RecordBatch::new(&place.segment, bytes, end, run.records))
    }

    /// How many visible records are still to be read.
    pub(crate) fn records_behind(&self) -> u64 {
        self.shard.next(self.visibility).since(self.next)
    }

    /// Milliseconds from the next record's arrival to the newest one's; zero at the tail.
    pub(crate) fn millis_behind(&mut self) -> Result<u64, ShardError> {
        match self.poll() {
            Ok(Progress::Records) => {}
            Ok(Progress::Tail | Progress::End) => return Ok(0),
            Err(ShardError::Lost { first, .. }) => {
                self.go_on_at(first); // who reads is told
                return Ok(1);
            }
            Err(error) => return Err(error),
        }
        let Some(place) = &self.place else {
            return Ok(0);
        };
        let visible = place.segment.end(self.visibility);
        let frame = place.segment.frame(place.position, visible, self.next)?;
        // Behind by something, even if it arrived in the same millisecond: clients stop draining at zero.
        Ok(self.shard.last_arrival().millis_since(frame.arrival()).max(1))
    }
}

impl Shard {
    /// A record that is there for certain, and certainly kept; what to say of any other is for a cursor to find out.
    pub(crate) fn record(&self, number: SequenceNumber, visibility: Visibility) -> Option<Record> {
        let (record, size) = self.peek(number, visibility)?;
        Counters::add(&self.context.counters.records_out, 1);
        Counters::add(&self.context.counters.bytes_out, size);
        Some(record)
    }

    /// The same for those who are no readers, and are not counted as such; with the bytes it takes in the log.
    pub(crate) fn peek(&self, number: SequenceNumber, visibility: Visibility) -> Option<(Record, u64)> {
        if number >= self.next(visibility) || number.get() < self.horizon.load(Ordering::SeqCst) {
            return None;
        }
        let slot = self.segments.read().holding(number)?;
        let segment = slot.segment(&self.context, self.id, &self.directory).ok()?;
        let position = segment.position(number, visibility).ok()??;
        let frame = segment.frame(position, segment.end(visibility), number).ok()?;
        if self.context.cutoff_by_clock().is_some_and(|cutoff| frame.arrival() < cutoff) {
            return None;
        }
        let end = usize::try_from(position).ok()? + frame.size();
        Some((Record::new(&segment, &frame, end), frame.size() as u64))
    }

    /// The oldest record that retention keeps, where what arrived before `cutoff` is expired.
    pub(crate) fn trim_horizon(&self, cutoff: Option<Timestamp>) -> Result<SequenceNumber, ShardError> {
        let trimmed = SequenceNumber::new(self.horizon.load(Ordering::SeqCst));
        let first = self.segments.read().first().unwrap_or(trimmed);
        let by_age = match cutoff {
            Some(cutoff) => self.first_at_or_next(cutoff)?,
            None => SequenceNumber::ZERO,
        };
        Ok(trimmed.max(first).max(by_age))
    }

    /// The first visible record that arrived at `time` or later, or the place of the next one; not below the trim horizon.
    fn first_at(
        &self,
        time: Timestamp,
        visibility: Visibility,
        cutoff: Option<Timestamp>,
    ) -> Result<SequenceNumber, ShardError> {
        let horizon = self.trim_horizon(cutoff)?;
        Ok(self.first_at_or_next(time)?.max(horizon).min(self.next(visibility).max(horizon)))
    }

    fn first_at_or_next(&self, time: Timestamp) -> Result<SequenceNumber, Fault> {
        let _ = self.drain(); // a failed shard has what is written
        let next = self.next_drained(); // looked at first: what comes meanwhile may have arrived in time, and no look below would see it
        let slots = self.segments.read().all();
        // Arrival times never fall, so the segments that end before `time` come first.
        let (mut low, mut high) = (0, slots.len());
        while low < high {
            let middle = low.midpoint(high);
            let footer = match slots.get(middle) {
                Some(slot) => slot.footer(&self.context, self.id, &self.directory)?,
                None => None,
            };
            if footer.is_some_and(|footer| footer.last_arrival < time) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let Some(slot) = slots.get(low) else {
            return Ok(next);
        };
        let segment = slot.segment(&self.context, self.id, &self.directory)?;
        let found = segment.first_at(time, Visibility::Written)?;
        Ok(found.unwrap_or(next))
    }

    /// `next`, if `requested` names a place that exists.
    pub(super) fn checked_position(
        &self,
        next: SequenceNumber,
        requested: SequenceNumber,
        cutoff: Option<Timestamp>,
    ) -> Result<SequenceNumber, ShardError> {
        let tail = self.next(Visibility::Written);
        if next > tail {
            return Err(ShardError::BeyondTail { requested, next: tail });
        }
        if next == tail || self.is_kept(next, cutoff)? {
            return Ok(next);
        }
        let earliest = self.trim_horizon(cutoff)?;
        if next < earliest { Err(self.trimmed(requested, earliest)) } else { Ok(next) }
    }

    /// Whether a record is certainly above the trim horizon: one look at it, where finding the horizon is a search.
    fn is_kept(&self, number: SequenceNumber, cutoff: Option<Timestamp>) -> Result<bool, Fault> {
        if number < SequenceNumber::new(self.horizon.load(Ordering::SeqCst)) {
            return Ok(false);
        }
        let Some(slot) = self.segments.read().holding(number) else {
            return Ok(false);
        };
        let Some(cutoff) = cutoff else {
            return Ok(true);
        };
        let segment = slot.segment(&self.context, self.id, &self.directory)?;
        let Some(position) = segment.position(number, Visibility::Written)? else {
            return Ok(false);
        };
        if segment.footer().is_some_and(|footer| footer.first_arrival >= cutoff) {
            return Ok(true); // as all of the segment is
        }
        Ok(segment.frame(position, segment.end(Visibility::Written), number)?.arrival() >= cutoff)
    }

    fn trimmed(&self, requested: SequenceNumber, earliest: SequenceNumber) -> ShardError {
        let horizon = SequenceNumber::new(self.horizon.load(Ordering::SeqCst));
        ShardError::Trimmed { requested, earliest: earliest.max(horizon) }
    }
}
