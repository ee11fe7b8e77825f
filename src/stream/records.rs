//! Reading a whole stream through its splits and merges.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::metered::MeteredCursor;
use super::read::{FOLLOW_STEP, WAIT_STEP};
use super::{Stream, StreamInner, Topology};
use crate::error::{Error, Result};
use crate::segment::{Record, RecordBatch};
use crate::shard::{Progress, Shard};
use crate::types::{ShardId, ShardIteratorType, Timestamp};

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
/// Where retention overtook it in a shard, it says [`Error::Trimmed`] once, and goes on at the oldest record that is left.
pub struct Records {
    stream: Arc<StreamInner>,
    start: RecordsStart,
    /// The shards being read.
    active: BTreeMap<ShardId, MeteredCursor>,
    /// The shards read to their end, or not to be read.
    finished: BTreeSet<ShardId>,
    /// The shard that gave the last records: when its turn is over, its neighbour is asked first.
    last: ShardId,
    /// How many single records it may still give in a row.
    turn: usize,
    discovery: Discovery,
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
        if self.start == RecordsStart::Latest {
            let topology = self.stream.topology();
            for (id, member) in &topology.shards {
                if member.entry.is_open() {
                    self.active.insert(*id, self.stream.cursor(*id, ShardIteratorType::Latest)?.into());
                } else {
                    self.finished.insert(*id);
                }
            }
        }
        self.discover()
    }

    /// Begins the shards whose parents are all read, or no longer listed. One that cannot be begun keeps no other waiting.
    fn discover(&mut self) -> Result<()> {
        loop {
            let finished = self.finished.len();
            let outcome = self.begin_listed(&self.stream.topology());
            // One of them expired since it was listed, which nobody will say again: its children may be listed by now.
            if outcome.is_err() || self.finished.len() == finished {
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
            let known = self.active.contains_key(id) || self.finished.contains(id);
            let waits_for =
                |parent: &ShardId| topology.shards.contains_key(parent) && !self.finished.contains(parent);
            let range = member.entry.range;
            let descends =
                |removed: &Arc<Shard>| removed.id() < *id && removed.range().intersection(range).is_some();
            if known || member.entry.parents.iter().any(waits_for) || removed.iter().any(descends) {
                continue;
            }
            let kind = match self.start {
                RecordsStart::TrimHorizon | RecordsStart::Latest => ShardIteratorType::TrimHorizon,
                RecordsStart::AtTimestamp(time) => ShardIteratorType::AtTimestamp(time),
            };
            match self.stream.cursor(*id, kind) {
                Ok(cursor) => drop(self.active.insert(*id, cursor.into())),
                // Expired since: its children wait for nothing.
                Err(Error::ShardNotFound(_)) => drop(self.finished.insert(*id)),
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        outcome
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
        self.discovery != Discovery::Done || self.active.values().any(may_have)
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
