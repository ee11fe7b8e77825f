//! Reading a whole stream through its splits and merges.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::metered::MeteredCursor;
use super::read::{FOLLOW_STEP, WAIT_STEP};
use super::{Stream, StreamInner, Topology};
use crate::error::{Error, Result};
use crate::format::ShardEntry;
use crate::segment::{Record, RecordBatch};
use crate::shard::{Progress, Shard};
use crate::types::{HashKeyRange, SequenceNumber, ShardId, ShardIteratorType, Timestamp};

/// Where [`Stream::records`] starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RecordsStart {
    /// At the oldest records within retention.
    TrimHorizon,
    /// Behind the newest records of the shards that are open now.
    Latest,
    /// At the records that arrived at this time or later.
    AtTimestamp(Timestamp),
}

/// A reader of the whole stream. A child shard is begun when all its parents were read to their end, so for each
/// partition key records come in the exact order in which they were put, through every split and merge. Between shards that are
/// read at the same time there is no order.
///
/// Where retention overtook it in a shard, or took the front of one, or all of one, that follows what it read, it says [`Error::Trimmed`] once, and goes on at the oldest record that
/// is left. Of a shard that was made before the [time](RecordsStart::AtTimestamp) it starts at, it is not told what retention took before it came there: that may have arrived before
/// that time.
pub struct Records {
    stream: Arc<StreamInner>,
    start: RecordsStart,
    /// The shards being read.
    active: BTreeMap<ShardId, MeteredCursor>,
    /// The shards read to their end, or not to be read.
    finished: BTreeSet<ShardId>,
    /// The shards that expired before they were begun: their children wait for nothing.
    expired: BTreeSet<ShardId>,
    /// How far it came with keys whose next shard is not begun.
    ended: Vec<Ended>,
    /// Where the shards started that were listed, and not to be begun yet, when it began.
    starts: BTreeMap<ShardId, SequenceNumber>,
    /// What retention took of shards that follow what was read, to be told.
    overtaken: VecDeque<Error>,
    /// The shard that gave the last records: when its turn is over, its neighbour is asked first.
    last: ShardId,
    /// How many single records it may still give in a row.
    turn: usize,
    discovery: Discovery,
}

/// Keys of a shard that was read to its end.
#[derive(Debug, Clone, Copy)]
struct Ended {
    shard_id: ShardId,
    range: HashKeyRange,
    /// The number behind its last record.
    next: SequenceNumber,
}

/// Whether there may be shards to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Discovery {
    Done,
    /// A shard ended.
    Due,
    /// The same, and beginning others failed, which was told: those that were begun have their turn before it is tried again.
    Failed,
}

/// How many single records one shard gives before the next is asked.
const TURN_RECORDS: usize = 256;

impl Stream {
    /// A reader of the whole stream.
    pub fn records(&self, start: RecordsStart) -> Result<Records> {
        self.inner.not_closed()?;
        self.inner.refresh()?;
        let mut records = Records {
            stream: Arc::clone(&self.inner.0),
            start,
            active: BTreeMap::new(),
            finished: BTreeSet::new(),
            expired: BTreeSet::new(),
            ended: Vec::new(),
            starts: BTreeMap::new(),
            overtaken: VecDeque::new(),
            last: ShardId::default(),
            turn: 0,
            discovery: Discovery::Done,
        };
        records.begin()?;
        Ok(records)
    }
}

impl Records {
    fn begin(&mut self) -> Result<()> {
        let topology = self.stream.topology();
        let entries = || topology.shards.values().map(|member| &member.entry);
        self.starts = entries().map(|entry| (entry.id, entry.horizon)).collect();
        // What expired before is not missed.
        let parents = entries().flat_map(|entry| &entry.parents).copied();
        self.finished.extend(parents.filter(|id| !topology.shards.contains_key(id)));
        if self.start == RecordsStart::Latest {
            for (id, member) in &topology.shards {
                if member.entry.is_open() {
                    self.active.insert(*id, self.stream.cursor(*id, ShardIteratorType::Latest)?.into());
                } else {
                    self.finished.insert(*id);
                }
            }
        }
        self.discover()?;
        self.starts.retain(|id, _| !self.active.contains_key(id) && !self.finished.contains(id));
        Ok(())
    }

    /// Begins the shards whose parents are all read, or no longer listed. One that cannot be begun keeps no other waiting.
    fn discover(&mut self) -> Result<()> {
        loop {
            let passed = self.finished.len() + self.expired.len();
            let outcome = self.begin_listed(&self.stream.topology());
            // One of them has nothing to read, or expired since it was listed, which nobody will say again: its children may be listed by now.
            if outcome.is_err() || self.finished.len() + self.expired.len() == passed {
                return outcome;
            }
        }
    }

    fn begin_listed(&mut self, topology: &Topology) -> Result<()> {
        // What is read though it is no longer listed. Between it and a shard with some of its keys there may have been others, which are not listed either.
        let read = self.active.values().map(|cursor| Arc::clone(cursor.shard()));
        let removed: Vec<_> = read.filter(|shard| !topology.shards.contains_key(&shard.id())).collect();
        let mut outcome = Ok(());
        for (id, member) in &topology.shards {
            let is_passed = |id: &ShardId| self.finished.contains(id) || self.expired.contains(id);
            let known = self.active.contains_key(id) || is_passed(id);
            let waits_for = |parent: &ShardId| topology.shards.contains_key(parent) && !is_passed(parent);
            let range = member.entry.range;
            let descends =
                |removed: &Arc<Shard>| removed.id() < *id && removed.range().intersection(range).is_some();
            if known || member.entry.parents.iter().any(waits_for) || removed.iter().any(descends) {
                continue;
            }
            match self.begin_shard(&member.entry) {
                Err(Error::ShardNotFound(_)) => drop(self.expired.insert(*id)),
                begun => outcome = outcome.and(begun),
            }
        }
        outcome
    }

    /// Begins a shard behind what was read of its keys, if that is told by a number, or else where the reader starts.
    fn begin_shard(&mut self, entry: &ShardEntry) -> Result<()> {
        let is_followed = self.ended.iter().any(|ended| ended.range.intersection(entry.range).is_some());
        let kind = match (self.start, self.follows(entry)) {
            (RecordsStart::AtTimestamp(time), _) if entry.opened < time => ShardIteratorType::AtTimestamp(time),
            (_, Some(number)) => ShardIteratorType::AtSequenceNumber(number),
            (RecordsStart::AtTimestamp(time), None) => ShardIteratorType::AtTimestamp(time),
            (_, None) => ShardIteratorType::TrimHorizon,
        };
        let cursor = match self.stream.cursor(entry.id, kind) {
            Err(error @ Error::Trimmed { .. }) => {
                let cursor = self.stream.cursor(entry.id, ShardIteratorType::TrimHorizon)?;
                self.overtaken.push_back(error);
                cursor
            }
            other => other?,
        };
        if !is_followed && cursor.shard().end().is_some_and(|end| cursor.next() >= end) {
            self.finished.insert(entry.id); // nothing of it is read, and so its children follow nothing
            return Ok(());
        }
        let rest = |ended: Ended| ended.range.without(entry.range).map(move |range| Ended { range, ..ended });
        self.ended = std::mem::take(&mut self.ended).into_iter().flat_map(rest).collect();
        self.active.insert(entry.id, cursor.into());
        Ok(())
    }

    /// The number that follows, in a shard, what was read of its keys, if any were. Where shards between expired unread, it is that behind the last which was not.
    fn follows(&self, entry: &ShardEntry) -> Option<SequenceNumber> {
        let ended = || self.ended.iter().filter(|ended| ended.range.intersection(entry.range).is_some());
        ended().next()?;
        let start = self.starts.get(&entry.id).copied().unwrap_or_default().max(entry.starting);
        let is_next = entry.parents.iter().all(|parent| self.finished.contains(parent));
        let behind_others = ended().filter(|ended| !is_next && !entry.parents.contains(&ended.shard_id));
        Some(behind_others.map(|ended| ended.next).min().unwrap_or(start))
    }

    /// Records of one shard that are there now, borrowed from the map, the shards taking turns. An empty batch means that
    /// all shards are read to their tails.
    pub fn next_batch(&mut self) -> Result<RecordBatch<'_>> {
        self.turn = 0; // a batch is a turn
        match self.take_turn()? {
            Some((stream, cursor)) => cursor.next_batch(stream),
            None => Ok(RecordBatch::default()),
        }
    }

    /// Iterates over the records that are there now, and stops when every shard is read to its tail.
    pub fn available(&mut self) -> RecordsAvailable<'_> {
        RecordsAvailable { records: self }
    }

    /// Iterates over the records as they come, waiting when all are read. Ends, when the stream is closed, behind the last
    /// record that is there.
    pub fn follow(&mut self) -> RecordsFollow<'_> {
        RecordsFollow { records: self }
    }

    /// The next record, waiting up to `timeout` for it; nothing if none came.
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<Record>> {
        self.wait(timeout)?;
        self.next_record()
    }

    pub(super) fn next_record(&mut self) -> Result<Option<Record>> {
        if self.turn > 0
            && let Some(record) =
                self.active.get_mut(&self.last).and_then(|cursor| cursor.next_verified(&self.stream))
        {
            self.turn -= 1;
            return Ok(Some(record));
        }
        let found = match self.take_turn()? {
            Some((stream, cursor)) => cursor.next_record(stream),
            None => Ok(None),
        };
        if found.is_err() {
            self.turn = 0; // the others have theirs
        }
        found
    }

    /// The shard that gives next: the last one, if it has records and its turn is not over.
    fn take_turn(&mut self) -> Result<Option<(&StreamInner, &mut MeteredCursor)>> {
        if self.goes_on()? {
            self.turn -= 1;
        } else if let Some(id) = self.find_ready()? {
            (self.last, self.turn) = (id, TURN_RECORDS);
        } else {
            return Ok(None);
        }
        Ok(self.active.get_mut(&self.last).map(|cursor| (&*self.stream, cursor)))
    }

    fn goes_on(&mut self) -> Result<bool> {
        match self.active.get_mut(&self.last) {
            Some(cursor) if self.turn > 0 => match look(&self.stream, cursor) {
                Ok(progress) => Ok(progress == Progress::Records),
                Err(error) => {
                    self.turn = 0;
                    Err(error)
                }
            },
            _ => Ok(false),
        }
    }

    /// A shard that has records to give.
    fn find_ready(&mut self) -> Result<Option<ShardId>> {
        loop {
            match self.discovery {
                Discovery::Due => {
                    self.discovery = Discovery::Failed; // unless it does not
                    self.discover()?;
                    self.discovery = Discovery::Done;
                }
                Discovery::Failed => self.discovery = Discovery::Due,
                Discovery::Done => {}
            }
            if let Some(error) = self.overtaken.pop_front() {
                return Err(error);
            }
            if let Some(id) = self.look_around()? {
                return Ok(Some(id));
            }
            if self.discovery == Discovery::Done {
                return Ok(None);
            }
        }
    }

    /// Asks the shards in turn. One that cannot be read has had its turn.
    fn look_around(&mut self) -> Result<Option<ShardId>> {
        let after = self.active.range(self.last.successor()..).map(|(id, _)| *id);
        let turns: Vec<_> = after.chain(self.active.range(..=self.last).map(|(id, _)| *id)).collect();
        for id in turns {
            let Some(cursor) = self.active.get_mut(&id) else { continue };
            match look(&self.stream, cursor) {
                Ok(Progress::Records) => return Ok(Some(id)),
                Ok(Progress::End) => {
                    let (range, next) = (cursor.shard().range(), cursor.next());
                    self.ended.push(Ended { shard_id: id, range, next });
                    self.active.remove(&id);
                    self.finished.insert(id);
                    self.discovery = Discovery::Due;
                }
                Ok(Progress::Tail) => {}
                Err(error) => {
                    (self.last, self.turn) = (id, 0);
                    return Err(error);
                }
            }
        }
        Ok(None)
    }

    /// Waits for records, for the closing of the stream, or for `timeout`.
    fn wait(&mut self, timeout: Duration) -> Result<Progress> {
        let deadline = Instant::now().checked_add(timeout);
        loop {
            let closed = self.stream.is_closed(); // looked at first: what was added before is found
            let ready = self.goes_on()? || self.find_ready()?.is_some();
            let left = deadline.map_or(WAIT_STEP, |deadline| deadline.saturating_duration_since(Instant::now()));
            if ready {
                return Ok(Progress::Records);
            }
            if closed {
                return Ok(Progress::End);
            }
            if left.is_zero() {
                return Ok(Progress::Tail);
            }
            if self.stream.read_only {
                std::thread::sleep(left.min(FOLLOW_STEP));
            } else {
                let tail = &self.stream.context.tail;
                tail.wait_unless(left.min(WAIT_STEP), || self.has_news());
            }
        }
    }

    /// Whether there may be more than there was at the last look; costs two loads a shard.
    pub(super) fn has_news(&self) -> bool {
        let may_have = |cursor: &MeteredCursor| cursor.has_news() || cursor.shard().is_shut();
        let is_due = self.discovery != Discovery::Done || !self.overtaken.is_empty();
        is_due || self.active.values().any(may_have)
    }

    #[cfg(feature = "async")]
    pub(super) fn stream(&self) -> &Arc<StreamInner> {
        &self.stream
    }
}

/// Looks whether a shard has records. That retention removed some first is said once, for nobody but this reader could go on behind them.
fn look(stream: &StreamInner, cursor: &mut MeteredCursor) -> Result<Progress> {
    let outcome = cursor.look(stream);
    if let Err(Error::Trimmed { earliest, .. }) = outcome {
        cursor.go_on_at(earliest);
    }
    outcome
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records")
            .field("start", &self.start)
            .field("active", &self.active.keys())
            .finish_non_exhaustive()
    }
}

/// The records that are there now; made by [`Records::available`].
#[derive(Debug)]
pub struct RecordsAvailable<'a> {
    records: &'a mut Records,
}

impl Iterator for RecordsAvailable<'_> {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        self.records.next_record().transpose()
    }
}

/// The records as they come; made by [`Records::follow`].
#[derive(Debug)]
pub struct RecordsFollow<'a> {
    records: &'a mut Records,
}

impl Iterator for RecordsFollow<'_> {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.records.wait(WAIT_STEP) {
                Ok(Progress::Records) => return self.records.next_record().transpose(),
                Ok(Progress::End) => return None,
                Ok(Progress::Tail) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
