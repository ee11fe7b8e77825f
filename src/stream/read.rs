//! Reading one shard.

use crate::sync::atomic::Ordering;
use std::fmt;
use std::iter::FusedIterator;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::metered::MeteredCursor;
use super::quotas::Payer;
use super::{Stream, StreamInner};
use crate::error::{Error, Result};
use crate::segment::{Record, RecordBatch, Visibility};
use crate::shard::{Cursor, Progress};
use crate::types::{HashKeyRange, SequenceNumber, ShardId, ShardIteratorType, Timestamp};

/// How long a wait lasts before a look at whether the stream was closed.
pub(super) const WAIT_STEP: Duration = Duration::from_millis(500);
/// A reader that finds at least so many records each time it looks does not sleep at the tail until the next one comes: waking it would cost its
/// writer more than the record. It naps, and finds the next lot. So does one that finds any while others sleep there: of many readers
/// the next record wakes one.
const BUSY_RECORDS: u64 = 16;
/// Naps end at multiples of this, so that all readers of a shard come at once, and one of them writes what is staged for all.
const NAP: Duration = Duration::from_micros(250);
/// How often a read-only stream looks for what the other process wrote.
pub(super) const FOLLOW_STEP: Duration = Duration::from_millis(1);

/// A place in one shard, from which records are read in order.
///
/// The **batch form**, [`next_batch`](Self::next_batch), borrows records from the map and allocates nothing. The **iterator form**,
/// [`available`](Self::available) and [`follow`](Self::follow), gives records that own their share of the map.
/// Both verify every checksum.
///
/// A reader is shown a prefix of its shard: no gaps, no torn record. On a `Synced` stream it is shown
/// only what no crash can take back; see [`include_unsynced`](Self::include_unsynced).
///
/// An iterator that fell behind retention reads the segment it holds to its end; then it gives [`Error::Trimmed`] with the
/// earliest number left, every time: where to go on is its owner's decision.
pub struct ShardIterator {
    stream: Arc<StreamInner>,
    cursor: MeteredCursor,
    /// Where it waited last.
    waited_at: SequenceNumber,
}

/// A shard that continues one that was read to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChildShard {
    /// The child.
    pub shard_id: ShardId,
    /// Its parents: one after a split, two after a merge. Read all of them to their end before the child.
    pub parents: Vec<ShardId>,
    /// The hash keys it takes.
    pub hash_key_range: HashKeyRange,
}

impl Stream {
    /// A reader of one shard, open or closed, that starts at the place `kind` names.
    ///
    /// # Errors
    ///
    /// [`Error::ShardNotFound`]; [`Error::Trimmed`] for a sequence number below the trim horizon; [`Error::BeyondTail`] for one that was
    /// never written and is not the next.
    pub fn shard_iterator(&self, shard_id: ShardId, kind: ShardIteratorType) -> Result<ShardIterator> {
        self.inner.not_closed()?;
        self.inner.refresh()?;
        Ok(self.iterate(self.inner.cursor(shard_id, kind)?))
    }

    pub(super) fn iterate(&self, cursor: Cursor) -> ShardIterator {
        ShardIterator { stream: Arc::clone(&self.inner.0), waited_at: cursor.next(), cursor: cursor.into() }
    }

    /// One record by its sequence number.
    ///
    /// # Errors
    ///
    /// As [`shard_iterator`](Self::shard_iterator); [`Error::BeyondTail`] for every number that is not readable yet; [`Error::Lost`] for one that a
    /// [`repair`](crate::repair) could not keep.
    pub fn get(&self, shard_id: ShardId, sequence_number: SequenceNumber) -> Result<Record> {
        self.inner.get(shard_id, sequence_number, StreamInner::cursor)
    }

    /// As [`get`](Self::get), for those who would forget the record if they were told that it is trimmed: see [`StreamInner::lasting_cursor`].
    pub(crate) fn get_lasting(&self, shard_id: ShardId, sequence_number: SequenceNumber) -> Result<Record> {
        self.inner.get(shard_id, sequence_number, StreamInner::lasting_cursor)
    }

    /// As [`shard_iterator`](Self::shard_iterator), for those who keep where they stand: see [`StreamInner::lasting_cursor`].
    pub(crate) fn lasting_iterator(&self, shard_id: ShardId, kind: ShardIteratorType) -> Result<ShardIterator> {
        self.inner.not_closed()?;
        self.inner.refresh()?;
        Ok(self.iterate(self.inner.lasting_cursor(shard_id, kind)?))
    }
}

impl StreamInner {
    fn get(
        &self,
        shard_id: ShardId,
        sequence_number: SequenceNumber,
        cursor: impl FnOnce(&Self, ShardId, ShardIteratorType) -> Result<Cursor>,
    ) -> Result<Record> {
        self.not_closed()?;
        if let Some(record) = self.record(shard_id, sequence_number) {
            return Ok(record);
        }
        self.refresh()?;
        let mut cursor = cursor(self, shard_id, ShardIteratorType::AtSequenceNumber(sequence_number))?;
        let next = cursor.shard().next(cursor.visibility());
        let found = self.look(|| {
            let (mut batch, _) = cursor.next_batch(1).map_err(Error::of_shard(shard_id))?;
            Ok(batch.next().map(|record| record.to_record()))
        })?;
        found.ok_or(Error::BeyondTail { shard_id, requested: sequence_number, next })
    }

    /// A record that is there for certain. A read-only stream has to look at files to tell.
    fn record(&self, shard_id: ShardId, number: SequenceNumber) -> Option<Record> {
        let topology = (!self.read_only).then(|| self.topology())?;
        topology.shards.get(&shard_id)?.shard.record(number, self.visibility())
    }

    /// A cursor of who is shown what is there: what is expired by the clock is not.
    pub(super) fn cursor(&self, shard_id: ShardId, kind: ShardIteratorType) -> Result<Cursor> {
        self.cursor_behind(shard_id, kind, self.context.cutoff_by_clock())
    }

    /// A cursor of who keeps how far it came, and does not look at what is below it ever again: nothing is expired by a clock that is not to be believed.
    pub(super) fn lasting_cursor(&self, shard_id: ShardId, kind: ShardIteratorType) -> Result<Cursor> {
        self.cursor_behind(shard_id, kind, self.believed_cutoff())
    }

    pub(super) fn cursor_behind(
        &self,
        shard_id: ShardId,
        kind: ShardIteratorType,
        cutoff: Option<Timestamp>,
    ) -> Result<Cursor> {
        self.look(|| {
            let shard = self.member(shard_id)?.shard;
            self.refresh_shard(&shard)?;
            Cursor::new(shard, kind, self.visibility(), cutoff).map_err(Error::of_shard(shard_id))
        })
    }

    /// The shards that continue this one, lowest range first. Those that expired since are left out.
    pub(super) fn children(&self, shard_id: ShardId) -> Vec<ChildShard> {
        let topology = self.topology();
        let entries = topology.shards.values().map(|member| &member.entry);
        let mut children: Vec<_> = entries
            .filter(|entry| entry.parents.contains(&shard_id))
            .map(|entry| ChildShard {
                shard_id: entry.id,
                parents: entry.parents.clone(),
                hash_key_range: entry.range,
            })
            .collect();
        children.sort_unstable_by_key(|child| child.hash_key_range);
        children
    }

    /// Whether everything that was acknowledged is there to be read, and nothing will be added.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }
}

impl ShardIterator {
    /// The shard it reads.
    pub fn shard_id(&self) -> ShardId {
        self.cursor.shard().id()
    }

    /// The hash keys of that shard.
    pub(crate) fn hash_key_range(&self) -> HashKeyRange {
        self.cursor.shard().range()
    }

    /// The sequence number that it will return next, or pass over to.
    pub fn next_sequence_number(&self) -> SequenceNumber {
        self.cursor.next()
    }

    /// Shows, or stops showing, the **unsynced tail**: records that are written but not yet durable. A power cut can make them
    /// vanish, and their numbers be given to others of a higher [incarnation](Record::incarnation). A `Buffered` stream shows it from the start.
    #[must_use]
    pub fn include_unsynced(mut self, yes: bool) -> Self {
        let visibility = if yes { Visibility::Written } else { Visibility::Durable };
        self.cursor.set_visibility(visibility);
        self
    }

    /// Counts what is read from now on to this consumer's [quota](crate::Quotas::dedicated_read_bytes) instead of that which all readers share: what Kinesis calls enhanced
    /// fan-out. The name need not be that of a [`Consumer`](crate::Consumer); all who say the same share a quota for each shard.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for a name that a consumer could not have.
    pub fn dedicated(mut self, consumer: &str) -> Result<Self> {
        Error::check_name("consumer name", consumer)?;
        self.cursor.payer = Some(Payer::Dedicated(consumer.into()));
        Ok(self)
    }

    /// What is read from now on is not counted.
    pub(crate) fn uncounted(mut self) -> Self {
        self.cursor.payer = None;
        self
    }

    /// What is read from now on is counted again, to the quota that all readers share.
    pub(crate) fn count_again(&mut self) {
        self.cursor.payer = Some(Payer::Readers);
    }

    /// Begins a read call that is counted to the [quotas](crate::Quotas), be there records or not: what a server does for each `GetRecords`. Otherwise a call
    /// begins by itself with the first record. Without quotas this does nothing.
    ///
    /// # Errors
    ///
    /// [`Error::ThroughputExceeded`].
    pub fn begin_call(&mut self) -> Result<()> {
        self.cursor.begin_call(&self.stream)
    }

    /// The records that follow and are there now, borrowed from the map: at most 256 KiB of them, and at least one if
    /// there is any. An empty batch means the tail, or the [end of the shard](Self::end_of_shard).
    pub fn next_batch(&mut self) -> Result<RecordBatch<'_>> {
        self.cursor.next_batch(&self.stream)
    }

    /// The records that follow and are there now, at most so many. None mean the tail, or the [end of the shard](Self::end_of_shard).
    ///
    /// Unlike collecting [`available`](Self::available), it loses no record to an error that comes behind some: they are given, and the next call meets the error.
    pub fn next_records(&mut self, most: usize) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        while records.len() < most {
            match self.next_record() {
                Ok(Some(record)) => records.push(record),
                Ok(None) => break,
                Err(error) if records.is_empty() => return Err(error),
                Err(error) => {
                    if let Error::Lost { first, .. } = error {
                        self.cursor.go_on_at(first); // all others are met again by themselves
                    }
                    break;
                }
            }
        }
        Ok(records)
    }

    /// The bytes, key and data, of the record that is given next, if it is there now. Looking gives nothing and is counted to no [quota](crate::Quotas): so that whoever keeps an answer
    /// within so many bytes neither reads nor pays for a record that has to wait for the next one.
    ///
    /// ```
    /// use anabranch::{ShardIteratorType, Stream};
    /// # let directory = tempfile::tempdir()?;
    /// # let stream = Stream::builder().open(directory.path())?;
    ///
    /// let put = stream.put("key", b"data")?;
    /// let mut reader = stream.shard_iterator(put.shard_id, ShardIteratorType::TrimHorizon)?;
    /// assert_eq!(reader.next_record_bytes()?, Some(7));
    /// assert_eq!(reader.next_records(1)?.len(), 1);
    /// assert_eq!(reader.next_record_bytes()?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// What reading it would meet, but for [`Error::ThroughputExceeded`].
    pub fn next_record_bytes(&mut self) -> Result<Option<usize>> {
        self.cursor.next_record_bytes(&self.stream)
    }

    /// As [`next_batch`](Self::next_batch), but waits up to `timeout` for a first record.
    pub fn next_batch_timeout(&mut self, timeout: Duration) -> Result<RecordBatch<'_>> {
        self.wait(timeout)?;
        self.next_batch()
    }

    /// Iterates over the records that are there now and stops at the tail. Calling it again later gives what came since.
    pub fn available(&mut self) -> Available<'_> {
        Available { iterator: self }
    }

    /// Iterates over the records as they come, waiting at the tail. Ends at the end of a closed shard, or, when the stream
    /// is closed, behind the last record that is there.
    pub fn follow(&mut self) -> Follow<'_> {
        Follow { iterator: self }
    }

    /// The next record, waiting up to `timeout` for it; nothing if none came, or none ever will.
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<Record>> {
        self.wait(timeout)?;
        self.next_record()
    }

    /// The shards to read next, once this one is closed and read to its end; nothing before. Empty if they expired.
    pub fn end_of_shard(&self) -> Option<Vec<ChildShard>> {
        let shard = self.cursor.shard();
        let at_end = shard.end().is_some_and(|end| self.cursor.next() >= end);
        at_end.then(|| self.stream.children(shard.id()))
    }

    /// Milliseconds from the arrival of the next record to that of the shard's newest: 0 at the tail, and at least 1
    /// where there is anything to read, or lost records to be told of.
    pub fn millis_behind_latest(&mut self) -> Result<u64> {
        self.stream.not_forked()?;
        let shard_id = self.shard_id();
        self.cursor.millis_behind().map_err(Error::of_shard(shard_id))
    }

    /// How many records there are to read until the tail.
    ///
    /// With [`ShardIteratorType::AtTimestamp`], records that arrived before the time are counted until the first later one came.
    pub fn records_behind(&self) -> u64 {
        let _ = self.stream.refresh_shard(self.cursor.shard()); // what cannot be looked at is not counted
        self.cursor.records_behind()
    }

    /// Whether there may be more than there was at the last look.
    pub(crate) fn has_news(&self) -> bool {
        self.cursor.has_news() || self.cursor.shard().is_shut()
    }

    #[cfg(feature = "async")]
    pub(super) fn stream(&self) -> &Arc<StreamInner> {
        &self.stream
    }

    #[cfg(feature = "async")]
    pub(super) fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    pub(super) fn next_record(&mut self) -> Result<Option<Record>> {
        if let Some(record) = self.cursor.next_verified(&self.stream) {
            return Ok(Some(record));
        }
        self.cursor.next_record(&self.stream)
    }

    /// Looks whether there are records; a read-only stream looks at the files for them.
    fn poll(&mut self) -> Result<Progress> {
        self.cursor.look(&self.stream)
    }

    /// Waits for records, for the end of the shard or the closing of the stream (both are an end), or for `timeout`.
    fn wait(&mut self, timeout: Duration) -> Result<Progress> {
        let deadline = Instant::now().checked_add(timeout);
        loop {
            let closed = self.stream.is_closed(); // looked at first: what was added before is found
            let progress = self.poll()?;
            let left = deadline.map_or(WAIT_STEP, |deadline| deadline.saturating_duration_since(Instant::now()));
            if progress == Progress::Tail && closed {
                return Ok(Progress::End);
            }
            if progress != Progress::Tail || left.is_zero() {
                return Ok(progress);
            }
            let found = self.cursor.next().since(self.waited_at);
            self.waited_at = self.cursor.next();
            if self.stream.read_only {
                std::thread::sleep(left.min(FOLLOW_STEP));
            } else if found >= BUSY_RECORDS || (found > 0 && self.cursor.shard().has_sleepers()) {
                std::thread::sleep(left.min(self.stream.nap()));
            } else {
                let cursor = &self.cursor;
                cursor.shard().wait(cursor.next(), cursor.visibility(), left.min(WAIT_STEP));
            }
        }
    }
}

impl StreamInner {
    /// How long it is until naps end.
    fn nap(&self) -> Duration {
        let into = self.context.clock.monotonic().as_micros() % NAP.as_micros();
        NAP.saturating_sub(Duration::from_micros(u64::try_from(into).unwrap_or(0)))
    }

    pub(super) fn poll_cursor(&self, cursor: &mut Cursor) -> Result<Progress> {
        self.not_forked()?;
        let shard_id = cursor.shard().id();
        let mut poll = || cursor.poll().map_err(Error::of_shard(shard_id));
        let progress = self.look(&mut poll)?;
        if progress != Progress::Tail || !self.read_only {
            return Ok(progress);
        }
        // The tail may have moved since the files were looked at.
        self.refresh()?;
        self.look(|| {
            let refreshed = self.refresh_shard(cursor.shard());
            let progress = cursor.poll().map_err(Error::of_shard(shard_id))?;
            if progress != Progress::Records {
                refreshed?; // what is sound comes first
            }
            Ok(progress)
        })
    }
}

impl fmt::Debug for ShardIterator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardIterator")
            .field("shard_id", &self.shard_id())
            .field("next_sequence_number", &self.next_sequence_number())
            .finish_non_exhaustive()
    }
}

/// The records that are there now; made by [`ShardIterator::available`].
#[derive(Debug)]
pub struct Available<'a> {
    iterator: &'a mut ShardIterator,
}

impl Iterator for Available<'_> {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        self.iterator.next_record().transpose()
    }
}

/// The records as they come; made by [`ShardIterator::follow`].
#[derive(Debug)]
pub struct Follow<'a> {
    iterator: &'a mut ShardIterator,
}

impl Iterator for Follow<'_> {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.iterator.wait(WAIT_STEP) {
                Ok(Progress::Records) => return self.iterator.next_record().transpose(),
                Ok(Progress::End) => return None,
                Ok(Progress::Tail) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl FusedIterator for Follow<'_> {}
