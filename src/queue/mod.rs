//! Queues: a stream's records one by one, each to whoever asks next, until it is acknowledged.
//!
//! Where a [`Consumer`](crate::Consumer) keeps one position a shard and so hands out a shard in order, a [`Queue`] knows of each record by itself. A record
//! that was received is invisible to others for a while; if it is not acknowledged by then it can be received again, and what was received
//! too often is set aside. There is no order, and no shard belongs to anybody: any number of threads receive from the same queue.
//!
//! # What is kept
//!
//! For each shard the first number that was never received, and the records below it that are not done, each with its count of receives. So what is done is a
//! floor (the lowest record that is not) and a set of intervals above it, kept as the gaps between them: each gap has a count that has to be kept in
//! any case, and the intervals are then known without being stored. Both stay small together: above so many records that are received and not
//! acknowledged a queue gives nothing new, and above so many that are set aside it sets aside no more.
//!
//! All of that is in memory, and written to the queue's file whole: on [`Queue::sync`] and [`Stream::sync`], by the background thread, by a clean close, and after
//! so many changes. A crash takes back the changes since: records that were acknowledged come again, and counts are lower. Nothing is lost by it,
//! since whatever the file does not call done is given.
//!
//! # Why numbers are enough here
//!
//! A queue gives durable records only, whatever the stream's level: no crash takes their numbers from them, and what it keeps of them needs no
//! incarnation. On a `Buffered` stream records are given once a flush has covered them.
//!
//! # Who has it
//!
//! The process that has the stream open for writing, whose lock keeps others out; in it all handles share one queue, which stays in memory until the stream is
//! closed. Receipts name the opening, so that one of an earlier life is refused.

mod ledger;
mod receipt;
mod shared;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ledger::{Place, Policy};
use shared::{Call, Core, State};

use crate::error::{Error, Result};
use crate::limits::{
    DEFAULT_MAX_RECEIVES, DEFAULT_QUEUE_RECEIVE_BYTES, DEFAULT_QUEUE_SYNC_CHANGES, DEFAULT_VISIBILITY_MS,
    MAX_QUEUE_RECEIVE, MAX_QUEUE_SET_ASIDE, MAX_QUEUE_UNACKNOWLEDGED, MAX_VISIBILITY_MS,
};
use crate::stream::{RecordsStart, Stream};
use crate::sync::MutexGuard;
use crate::types::{SequenceNumber, ShardId, Timestamp};

pub use receipt::{ParseReceiptError, Receipt, Received};

/// How a handle of a queue works; see [`Stream::queue`]. Nothing of it is kept in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueOptions {
    /// Where a queue that is made now starts: at the trim horizon by default. A time that is to come is refused. Shards that are made later are given
    /// from their start.
    pub start: RecordsStart,
    /// How long a record that was received is invisible to others: up to 12 h ([`MAX_VISIBILITY_MS`]); 30 s by default; 0 for not at all.
    pub visibility: Duration,
    /// After how many receives without an acknowledgement a record is set aside: at least 1; 6 by default; none for never.
    pub max_receives: Option<u32>,
    /// How many records may be received and not acknowledged before no new ones are given: at least 1, up to [`MAX_QUEUE_UNACKNOWLEDGED`], the
    /// default.
    pub max_unacknowledged: usize,
    /// How many records may be set aside; while there are so many, others are given again instead: up to [`MAX_QUEUE_SET_ASIDE`], the default.
    pub max_set_aside: usize,
    /// How many bytes (keys and data) one receive gives, but for a single record that has more: [`DEFAULT_QUEUE_RECEIVE_BYTES`], 10 MiB, by default.
    pub max_receive_bytes: usize,
    /// After how many changes (receives, acknowledgements and the like) where the queue stands is made durable by the call that makes the last of
    /// them: at least 1; [`DEFAULT_QUEUE_SYNC_CHANGES`] by default. With 1, what was acknowledged stays so, and what was received is counted, whatever
    /// happens after the call.
    pub sync_changes: u64,
}

impl Default for QueueOptions {
    fn default() -> Self {
        Self {
            start: RecordsStart::TrimHorizon,
            visibility: Duration::from_millis(DEFAULT_VISIBILITY_MS),
            max_receives: Some(DEFAULT_MAX_RECEIVES),
            max_unacknowledged: MAX_QUEUE_UNACKNOWLEDGED,
            max_set_aside: MAX_QUEUE_SET_ASIDE,
            max_receive_bytes: DEFAULT_QUEUE_RECEIVE_BYTES,
            sync_changes: DEFAULT_QUEUE_SYNC_CHANGES,
        }
    }
}

impl QueueOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`start`](Self::start).
    #[must_use]
    pub fn start(mut self, start: RecordsStart) -> Self {
        self.start = start;
        self
    }

    /// Sets [`visibility`](Self::visibility).
    #[must_use]
    pub fn visibility(mut self, visibility: Duration) -> Self {
        self.visibility = visibility;
        self
    }

    /// Sets [`max_receives`](Self::max_receives).
    #[must_use]
    pub fn max_receives(mut self, receives: impl Into<Option<u32>>) -> Self {
        self.max_receives = receives.into();
        self
    }

    /// Sets [`max_unacknowledged`](Self::max_unacknowledged).
    #[must_use]
    pub fn max_unacknowledged(mut self, records: usize) -> Self {
        self.max_unacknowledged = records;
        self
    }

    /// Sets [`max_set_aside`](Self::max_set_aside).
    #[must_use]
    pub fn max_set_aside(mut self, records: usize) -> Self {
        self.max_set_aside = records;
        self
    }

    /// Sets [`max_receive_bytes`](Self::max_receive_bytes).
    #[must_use]
    pub fn max_receive_bytes(mut self, bytes: usize) -> Self {
        self.max_receive_bytes = bytes;
        self
    }

    /// Sets [`sync_changes`](Self::sync_changes).
    #[must_use]
    pub fn sync_changes(mut self, changes: u64) -> Self {
        self.sync_changes = changes;
        self
    }

    fn check(&self, now: Timestamp) -> Result<()> {
        check_visibility(self.visibility)?;
        check_count("max_unacknowledged", self.max_unacknowledged, 1, MAX_QUEUE_UNACKNOWLEDGED)?;
        check_count("max_set_aside", self.max_set_aside, 0, MAX_QUEUE_SET_ASIDE)?;
        if self.max_receives == Some(0) {
            return Err(Error::invalid("max_receives", "0; it is at least 1, or none"));
        }
        if self.sync_changes == 0 {
            return Err(Error::invalid("sync_changes", "0; it is at least 1"));
        }
        match self.start {
            RecordsStart::AtTimestamp(time) if time > now => {
                Err(Error::invalid("start", format!("{time:?} is to come; it is {now:?}")))
            }
            _ => Ok(()),
        }
    }

    fn policy(&self) -> Policy {
        Policy { max_receives: self.max_receives, max_set_aside: self.max_set_aside }
    }
}

/// A record that was received too often; see [`Queue::set_aside`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SetAside {
    /// Its shard.
    pub shard_id: ShardId,
    /// Its place in the shard; [`Stream::get`] reads it.
    pub sequence_number: SequenceNumber,
    /// How often it was received.
    pub receive_count: u32,
    /// When it was received first.
    pub first_received: Timestamp,
}

/// Where a queue stands; see [`Queue::describe`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueDescription {
    /// Its name.
    pub name: String,
    /// Its shards, by id.
    pub shards: Vec<QueueShardDescription>,
}

/// Where a queue stands in one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueShardDescription {
    /// The shard.
    pub shard_id: ShardId,
    /// What is below it is done, or set aside.
    pub floor: SequenceNumber,
    /// The first number that was never received.
    pub next: SequenceNumber,
    /// Durable records that were never received.
    pub new: u64,
    /// Records that can be received again.
    pub visible: usize,
    /// Records that somebody has.
    pub in_flight: usize,
    /// Records that are set aside.
    pub set_aside: usize,
    /// Whether the shard is closed and nothing of it is left to be done.
    pub is_finished: bool,
}

/// A queue over a stream: each record is received by one at a time, and again by others until one of them acknowledges it.
///
/// A handle: clones share the queue, in any number of threads, and keep the stream open. Records come in no order, at least once, and for as long as
/// retention keeps them: a queue never makes it keep them longer.
///
/// ```
/// # fn main() -> anabranch::Result<()> {
/// # let directory = tempfile::tempdir().unwrap();
/// # let path = directory.path().join("clicks");
/// use anabranch::{QueueOptions, Stream};
/// use std::time::Duration;
///
/// let stream = Stream::builder().shards(2).create(&path)?;
/// stream.put("user-42", b"send a mail")?;
///
/// let mails = stream.queue("mails", QueueOptions::new())?;      // create it, or open it again
/// for received in mails.receive(10, Duration::from_secs(1))? {  // up to 10, waiting up to a second for a first one
///     match received.record.data() {
///         b"send a mail" => mails.acknowledge(&received)?,      // it does not come again
///         _ => mails.give_back(&received)?,                     // it can be received at once
///     }
/// }
/// mails.sync()?;                                                // and that survives everything
/// assert!(mails.receive(10, Duration::ZERO)?.is_empty());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Queue {
    stream: Stream,
    core: Arc<Core>,
    options: Arc<QueueOptions>,
}

impl Stream {
    /// Opens the queue of this name, or makes it: durably when this returns. Handles of it share one queue; the options are each handle's own.
    ///
    /// Of a queue that was open when the stream was closed, or its process died, nobody has any record: all that are not acknowledged can be received, and
    /// those that were received often enough by then are set aside. A queue that stands behind the tail that a shard has then, as when an older copy of the shard was put
    /// back, goes on at the tail.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for a name that is not 1 to 128 characters of `[a-zA-Z0-9_.-]`, or is `.` or `..`, and options out of their
    /// ranges; [`Error::ReadOnly`]; [`Error::Closed`]; [`Error::Corrupt`] for a damaged file (see [`repair`](crate::repair)); [`Error::UnsupportedVersion`];
    /// [`Error::Io`].
    pub fn queue(&self, name: &str, options: QueueOptions) -> Result<Queue> {
        Error::check_name("queue name", name)?;
        let now = self.clock().now();
        options.check(now)?;
        let core = loop {
            // Before the lock under which queues are opened, since it may have to sync.
            let is_open = self.has_open_queue(name)?;
            let places = if is_open { None } else { Some(self.queue_start(options.start)) };
            let core = self.open_queue(name, |files| match (files.open(name)?, &places) {
                (Some(kept), _) => Core::of_snapshot(files, kept, |shard_id| self.tail_of(shard_id)).map(Some),
                (None, Some(places)) => {
                    Core::create(files, name, now, places.as_ref().map_err(Clone::clone)?).map(Some)
                }
                (None, None) => Ok(None), // it was deleted meanwhile
            })?;
            if let Some(core) = core {
                break core;
            }
        };
        core.state.lock().ledger.sweep(options.policy());
        Ok(Queue { stream: self.clone(), core, options: Arc::new(options) })
    }

    /// The names of the stream's queues, ascending.
    pub fn queues(&self) -> Result<Vec<String>> {
        self.queue_names()
    }

    /// Deletes a queue and all it knows, durably when this returns. Its handles give [`Error::QueueNotFound`] from then on; the name is free. The records
    /// stay in the stream.
    ///
    /// # Errors
    ///
    /// [`Error::QueueNotFound`]; [`Error::ReadOnly`]; [`Error::Io`]. A damaged one can be deleted.
    pub fn delete_queue(&self, name: &str) -> Result<()> {
        Error::check_name("queue name", name)?;
        let is_gone = self.delete_queue_file(name)?;
        self.wake_queues();
        if is_gone { Ok(()) } else { Err(Error::QueueNotFound(name.to_owned())) }
    }
}

impl Queue {
    /// Its name.
    pub fn name(&self) -> &str {
        self.core.name()
    }

    /// The stream whose records it gives.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Up to `max` records (1 to [`MAX_QUEUE_RECEIVE`]) that nobody has: those first that were received before. Where there is none, waits up to `wait` for
    /// one. They are invisible to others for the handle's [`visibility`](QueueOptions::visibility).
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`]; [`Error::QueueNotFound`] if the queue was deleted; [`Error::Closed`]; [`Error::Lost`] where a repair found records
    /// lost, said once; [`Error::Corrupt`] and [`Error::Io`]. What was found beside an error is given first. A record that cannot be read counts as received,
    /// and is set aside in the end.
    pub fn receive(&self, max: usize, wait: Duration) -> Result<Vec<Received>> {
        self.receive_for(max, wait, self.options.visibility)
    }

    /// As [`receive`](Self::receive), with another visibility (0 to 12 h) for these records.
    pub fn receive_for(&self, max: usize, wait: Duration, visibility: Duration) -> Result<Vec<Received>> {
        check_count("max", max, 1, MAX_QUEUE_RECEIVE)?;
        check_visibility(visibility)?;
        let deadline = Instant::now().checked_add(wait);
        loop {
            let received = self.look(max, visibility, Core::receive)?;
            let left = deadline.map_or(wait, |deadline| deadline.saturating_duration_since(Instant::now()));
            if !received.is_empty() || left.is_zero() {
                return Ok(received);
            }
            self.sleep(left);
        }
    }

    /// Whether a [`receive`](Self::receive) may find something now, an error included: told from memory, at once, and not while another call is at work on the
    /// queue. Who asks for it again and again waits for records without a thread that is kept.
    pub fn has_news(&self) -> bool {
        let max_unacknowledged = self.options.max_unacknowledged;
        self.may_have(|state| {
            state.has_news(max_unacknowledged)
                || (state.ledger.unacknowledged() < max_unacknowledged && state.has_new_shards(&self.stream))
        })
    }

    /// The same of [`receive_set_aside`](Self::receive_set_aside).
    pub fn has_set_aside(&self) -> bool {
        let now = self.stream.clock().monotonic();
        self.may_have(|state| !state.ledger.visible_aside(now, 1).is_empty())
    }

    /// Whether there is something, or something is over. Not while somebody is at it: many who ask would set each other off.
    fn may_have(&self, has: impl Fn(&State) -> bool) -> bool {
        let now = self.stream.clock().monotonic();
        let is_over = |state: &State| state.ledger.next_deadline().is_some_and(|until| until <= now);
        let look = |state: MutexGuard<'_, State>| {
            state.expect_usable(self.name()).is_err() || state.has_fault() || is_over(&state) || has(&state)
        };
        self.stream.expect_open().is_err() || self.core.state.try_lock().is_some_and(look)
    }

    /// The record is done, and does not come again. Accepted as long as nobody else received it, even after its time.
    ///
    /// It is durable after the next [`sync`](Self::sync). A failure with [`ErrorKind::Io`](crate::ErrorKind::Io) comes from making it so, where
    /// [`sync_changes`](QueueOptions::sync_changes) asked for that: the record is acknowledged in this process then, and the next sync tries again.
    ///
    /// # Errors
    ///
    /// [`Error::ReceiptExpired`] if the record was received again, acknowledged or restored, or the receipt is of an earlier opening;
    /// [`Error::QueueNotFound`]; [`Error::Closed`]; [`Error::Io`].
    pub fn acknowledge(&self, receipt: impl Into<Receipt>) -> Result<()> {
        let receipt = receipt.into();
        let was_full = {
            let mut state = self.usable()?;
            let was_full = state.ledger.unacknowledged() >= self.options.max_unacknowledged;
            let is_done =
                self.is_of_this_life(receipt) && state.ledger.acknowledge(place(receipt), receipt.number);
            is_done.then_some(was_full)
        };
        let was_full = was_full.ok_or_else(|| expired(receipt))?;
        if was_full {
            self.stream.wake_queues();
        }
        self.keep_if_due()
    }

    /// The record is invisible for this long from now on (0 to 12 h), in place of what is left. Accepted as long as nobody else received it and it was not set
    /// aside since.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`], and those of [`acknowledge`](Self::acknowledge).
    pub fn change_visibility(&self, receipt: impl Into<Receipt>, visibility: Duration) -> Result<()> {
        check_visibility(visibility)?;
        let receipt = receipt.into();
        let is_held = {
            let mut state = self.usable()?;
            let now = self.stream.clock().monotonic();
            let until = now.saturating_add(visibility);
            let is_held =
                self.is_of_this_life(receipt) && state.ledger.hold(place(receipt), receipt.number, until);
            state.ledger.expire(now, self.options.policy());
            is_held
        };
        if !is_held {
            return Err(expired(receipt));
        }
        self.stream.wake_queues(); // who waits for the next that runs out may wait for another now
        self.keep_if_due()
    }

    /// The record can be received at once, by anybody; it is set aside if this was the last receive that it had.
    ///
    /// # Errors
    ///
    /// Those of [`acknowledge`](Self::acknowledge).
    pub fn give_back(&self, receipt: impl Into<Receipt>) -> Result<()> {
        self.change_visibility(receipt, Duration::ZERO)
    }

    /// The records that are set aside, by shard and number. Those that retention took are not among them.
    pub fn set_aside(&self) -> Result<Vec<SetAside>> {
        let mut state = self.usable()?;
        state.trim(&self.stream)?;
        let set_aside = state.ledger.set_aside().map(|((shard_id, sequence_number), entry)| SetAside {
            shard_id,
            sequence_number,
            receive_count: entry.receives,
            first_received: entry.first_received,
        });
        Ok(set_aside.collect())
    }

    /// Up to `max` records (1 to [`MAX_QUEUE_RECEIVE`]) that are set aside and that nobody has: those first that were waiting for longest since they were
    /// received here last. They stay set aside, and are invisible to others who ask here for `visibility` (0 to 12 h). What was received is acknowledged,
    /// put back by [`restore_received`](Self::restore_received), or held on to by [`change_visibility`](Self::change_visibility).
    ///
    /// ```
    /// # fn main() -> anabranch::Result<()> {
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("clicks");
    /// use anabranch::{QueueOptions, Stream};
    /// use std::time::Duration;
    ///
    /// let stream = Stream::builder().create(&path)?;
    /// stream.put("user-42", b"nonsense")?;
    /// let mails = stream.queue("mails", QueueOptions::new().max_receives(1))?;
    /// for received in mails.receive(10, Duration::ZERO)? {
    ///     mails.give_back(&received)?; // once too often
    /// }
    /// for received in mails.receive_set_aside(10, Duration::from_secs(60))? {
    ///     assert_eq!(received.record.data(), b"nonsense");
    ///     mails.acknowledge(&received)?; // nothing can be done about it
    /// }
    /// assert!(mails.set_aside()?.is_empty());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`receive`](Self::receive).
    pub fn receive_set_aside(&self, max: usize, visibility: Duration) -> Result<Vec<Received>> {
        check_count("max", max, 1, MAX_QUEUE_RECEIVE)?;
        check_visibility(visibility)?;
        self.look(max, visibility, Core::receive_set_aside)
    }

    /// Puts a record back that was received by [`receive_set_aside`](Self::receive_set_aside): it is received again as often as any other.
    ///
    /// # Errors
    ///
    /// [`Error::ReceiptExpired`] for any other receipt, and if the record was received there again, acknowledged or restored; else those of
    /// [`acknowledge`](Self::acknowledge).
    pub fn restore_received(&self, receipt: impl Into<Receipt>) -> Result<()> {
        let receipt = receipt.into();
        let is_restored = {
            let mut state = self.usable()?;
            self.is_of_this_life(receipt) && state.ledger.restore_held(place(receipt), receipt.number)
        };
        if !is_restored {
            return Err(expired(receipt));
        }
        self.stream.wake_queues();
        self.keep_if_due()
    }

    /// Puts a record that is set aside back: it is received again as often as any other. Whether there was one.
    pub fn restore(&self, shard_id: ShardId, sequence_number: SequenceNumber) -> Result<bool> {
        let is_there = {
            let mut state = self.usable()?;
            state.trim(&self.stream)?;
            state.ledger.restore((shard_id, sequence_number))
        };
        self.stream.wake_queues();
        self.keep_if_due()?;
        Ok(is_there)
    }

    /// Puts all records that are set aside back; how many there were.
    pub fn restore_all(&self) -> Result<usize> {
        let restored = {
            let mut state = self.usable()?;
            state.trim(&self.stream)?;
            let places: Vec<Place> = state.ledger.set_aside().map(|(place, _)| place).collect();
            places.into_iter().filter(|place| state.ledger.restore(*place)).count()
        };
        self.stream.wake_queues();
        self.keep_if_due()?;
        Ok(restored)
    }

    /// A record that is set aside is done: it is not among them any more, and does not come again. Whether there was one.
    pub fn discard(&self, shard_id: ShardId, sequence_number: SequenceNumber) -> Result<bool> {
        let is_there = self.usable()?.ledger.discard((shard_id, sequence_number));
        self.keep_if_due()?;
        Ok(is_there)
    }

    /// Makes durable where the queue stands: what was acknowledged by now does not come again, whatever happens. Does nothing where nothing changed.
    ///
    /// Costs a write of all that the queue keeps, 24 bytes a record that is not acknowledged, and three syncs.
    pub fn sync(&self) -> Result<()> {
        drop(self.usable()?);
        self.stream.keep_queue(self.core.as_ref())
    }

    /// Where the queue stands in every shard.
    pub fn describe(&self) -> Result<QueueDescription> {
        let mut state = self.usable()?;
        state.trim(&self.stream)?;
        let mut shards = Vec::new();
        for shard_id in state.ledger.shard_ids() {
            let (counts, next) = (state.ledger.counts(shard_id), state.ledger.next(shard_id));
            let iterator = match self.stream.durable_iterator(shard_id, next) {
                Ok(iterator) => iterator,
                Err(Error::ShardNotFound(_)) => continue, // expired since
                Err(error) => return Err(error),
            };
            let ends = iterator.end_of_shard().is_some();
            shards.push(QueueShardDescription {
                shard_id,
                floor: state.ledger.floor(shard_id),
                next,
                new: iterator.records_behind(),
                visible: counts.visible,
                in_flight: counts.in_flight,
                set_aside: counts.set_aside,
                is_finished: ends && counts.visible + counts.in_flight + counts.set_aside == 0,
            });
        }
        Ok(QueueDescription { name: self.name().to_owned(), shards })
    }

    /// One look for records. What was received is not given if it cannot be made durable where that is asked for: it can be received again, and this time does not count.
    fn look(&self, max: usize, visibility: Duration, receive: Receive) -> Result<Vec<Received>> {
        self.stream.expect_open()?;
        let call = Call {
            stream: &self.stream,
            policy: self.options.policy(),
            max_unacknowledged: self.options.max_unacknowledged,
            most: max,
            most_bytes: self.options.max_receive_bytes,
            visibility,
        };
        let received = receive(&self.core, &call)?;
        if let Err(error) = self.keep_if_due() {
            let mut state = self.core.state.lock();
            for Receipt { shard_id, sequence_number, number, .. } in received.iter().map(Receipt::from) {
                state.ledger.take_back((shard_id, sequence_number), number);
            }
            drop(state);
            self.stream.wake_queues();
            return Err(error);
        }
        Ok(received)
    }

    /// Waits for records, for one whose time runs out, or for less.
    fn sleep(&self, left: Duration) {
        let next = self.core.state.lock().ledger.next_deadline();
        let until = next.map_or(left, |next| next.saturating_sub(self.stream.clock().monotonic()));
        let most = self.options.max_unacknowledged;
        // A clock that stands still would have this look all the time.
        let timeout = until.clamp(Duration::from_millis(1), left.max(Duration::from_millis(1)));
        // Who is woken wakes others, and is not to wait for one who reads meanwhile: where somebody has the state, it is looked at again from the front.
        let has_news = || self.core.state.try_lock().is_none_or(|state| state.has_news(most));
        self.stream.wait_for_news(timeout, has_news);
    }

    /// The queue, which can be used: those whose time is over are visible or set aside.
    fn usable(&self) -> Result<MutexGuard<'_, State>> {
        self.stream.expect_open()?;
        let mut state = self.core.state.lock();
        state.expect_usable(self.name())?;
        state.ledger.expire(self.stream.clock().monotonic(), self.options.policy());
        Ok(state)
    }

    fn keep_if_due(&self) -> Result<()> {
        if self.core.unwritten() < self.options.sync_changes {
            return Ok(());
        }
        self.stream.keep_queue(self.core.as_ref())
    }

    fn is_of_this_life(&self, receipt: Receipt) -> bool {
        receipt.incarnation == self.stream.incarnation()
    }
}

/// From which records a look takes some.
type Receive = fn(&Core, &Call<'_>) -> Result<Vec<Received>>;

fn place(receipt: Receipt) -> Place {
    (receipt.shard_id, receipt.sequence_number)
}

fn expired(receipt: Receipt) -> Error {
    Error::ReceiptExpired { shard_id: receipt.shard_id, sequence_number: receipt.sequence_number }
}

fn check_visibility(visibility: Duration) -> Result<()> {
    if visibility <= Duration::from_millis(MAX_VISIBILITY_MS) {
        return Ok(());
    }
    Err(Error::invalid("visibility", format!("{visibility:?}; it is at most 12 h")))
}

fn check_count(argument: &'static str, count: usize, least: usize, most: usize) -> Result<()> {
    if (least..=most).contains(&count) {
        return Ok(());
    }
    Err(Error::invalid(argument, format!("{count}; it is {least} to {most}")))
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("name", &self.name()).field("options", &self.options).finish_non_exhaustive()
    }
}
