//! Named consumers: how far each is in every shard, and who works on it.
//!
//! A [`Consumer`] keeps one position a shard, in a file of its own in the stream's directory, which every process uses that has the stream open.
//! Positions are changed under a [`Lease`], which names an owner and an epoch: who takes a shard raises its epoch, and from then on
//! a checkpoint under the old one is refused. So a worker that was given up for dead, and comes back, changes nothing.
//!
//! # Why a position names an incarnation
//!
//! A position is never ahead of the data: on a `Synced` stream the record is durable before the position is. On a `Buffered` stream a power cut may keep
//! the position and take the record; its number is then given to another one, of a higher incarnation. A position that
//! was a bare number would skip it. So it names the incarnation as well, and a record counts as done if its number is at or below the
//! position's *and* it is not of a later incarnation.
//!
//! # Groups
//!
//! [`Worker`]s share the shards of a consumer. A worker's leases last a while and are renewed in rounds; each round also looks at everybody else's. A
//! lease counts as dead when its counter stood still for as long as its owner said it would last, *by the monotonic clock of who looks*, who first
//! saw it after it was written: so it is given up by its owner, who counts from before the write, no later than it is taken by another, and no clock
//! on a wall has a say in it. A dead worker's shards move within its lease time and a round.
//!
//! A shard is given only when all of its parents are done to their end, both of a merge. One that expires behind its end, while a worker has it, is waited for until it is finished
//! or that worker is dead. Shards are spread evenly: free and dead ones are
//! taken up to a fair share, and where somebody has two more than oneself, one of them is stolen a round.
//!
//! # Latest
//!
//! What [`reset`](Consumer::reset) to the latest records stores is the place of the tail at that moment, not a wish: a consumer that was
//! reset, and is started an hour later, gets that hour's records.

mod handler;
mod lease;
mod position;
mod rounds;
mod worker;

use crate::sync::atomic::{AtomicU64, Ordering};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::format::{SlotState, StoredPosition, WindowState, WindowsSnapshot};
use crate::leases::{LeaseFile, LockedLeases};
use crate::stream::{RecordsStart, ShardIterator, Stream, error_of};
use crate::types::{Durability, SequenceNumber, ShardId, ShardIteratorType};

use position::{FRONT_GIVEN_UP, is_finished};

pub use handler::Handler;
pub use lease::Lease;
pub use position::{Checkpoint, Position, RecordPosition};
pub use worker::{Work, Worker, WorkerOptions};

/// A named consumer of a stream: one position a shard, durable, for any number of workers in any number of processes.
///
/// A handle: clones share the consumer, and keep the stream open. Where nothing was checkpointed, reading starts at the trim horizon.
///
/// ```
/// # fn main() -> anabranch::Result<()> {
/// # let directory = tempfile::tempdir().unwrap();
/// # let path = directory.path().join("clicks");
/// use anabranch::{Position, Stream};
///
/// let stream = Stream::builder().create(&path)?;
/// let put = stream.put("user-42", b"GET /cart")?;
///
/// let billing = stream.consumer("billing")?;             // create it, or open it again
/// let lease = billing.take(put.shard_id, "worker-1")?;   // from now on nobody else's checkpoint of this shard counts
/// for record in lease.iterator()?.available() {          // behind the checkpoint
///     let record = record?;
///     // ... handle it, then:
///     lease.checkpoint(&record)?;                        // durable at the stream's level when this returns
/// }
/// assert!(matches!(billing.checkpoint(put.shard_id)?.position, Position::After(at) if at.sequence_number == put.sequence_number));
/// assert_eq!(lease.iterator()?.available().count(), 0);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Consumer {
    inner: Arc<Inner>,
}

struct Inner {
    stream: Stream,
    name: String,
    file: Arc<LeaseFile>,
    /// When a read-only process, which has no background thread, synced the file last: milliseconds of the monotonic clock.
    synced_at: AtomicU64,
}

impl Stream {
    /// Opens the consumer of this name, or makes it: durably when this returns, with every shard at its trim horizon. Works on a read-only
    /// stream, too.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for a name that is not 1 to 128 characters of `[a-zA-Z0-9_.-]`, or is `.` or `..`, and for one consumer too
    /// many ([`MAX_CONSUMERS`](crate::limits::MAX_CONSUMERS)); [`Error::Corrupt`] for a damaged file; [`Error::UnsupportedVersion`];
    /// [`Error::Locked`] if somebody holds the lock for seconds; [`Error::Io`].
    pub fn consumer(&self, name: &str) -> Result<Consumer> {
        Error::check_name("consumer name", name)?;
        let shards = self.listed_shards()?;
        let slots = || shards.into_iter().map(untouched).collect();
        let file = self.lease_file(name, slots)?;
        let synced_at = AtomicU64::new(millis(self.clock().monotonic()));
        let inner = Inner { stream: self.clone(), name: name.to_owned(), file, synced_at };
        Ok(Consumer { inner: Arc::new(inner) })
    }

    /// The names of the stream's consumers, ascending.
    pub fn consumers(&self) -> Result<Vec<String>> {
        self.consumer_names()
    }

    /// Deletes a consumer and its positions: durably when this returns. Handles of it, in all processes, give
    /// [`Error::ConsumerNotFound`] from then on; the name is free.
    ///
    /// # Errors
    ///
    /// [`Error::ConsumerNotFound`]; [`Error::Locked`]; [`Error::Io`]. A damaged one can be deleted.
    pub fn delete_consumer(&self, name: &str) -> Result<()> {
        Error::check_name("consumer name", name)?;
        if self.delete_lease_file(name)? { Ok(()) } else { Err(Error::ConsumerNotFound(name.to_owned())) }
    }
}

impl Consumer {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The stream that it consumes.
    pub fn stream(&self) -> &Stream {
        &self.inner.stream
    }

    /// Where it stands in one shard.
    ///
    /// # Errors
    ///
    /// [`Error::ShardNotFound`] for a shard that the stream does not list, and those of every operation on a consumer: [`Error::ConsumerNotFound`]
    /// if it was deleted, [`Error::Closed`], [`Error::Corrupt`], [`Error::Locked`], [`Error::Io`].
    pub fn checkpoint(&self, shard_id: ShardId) -> Result<Checkpoint> {
        self.expect_listed(shard_id)?;
        Ok(Checkpoint::of(&self.state(shard_id)?))
    }

    /// Where it stands in every shard that is listed, by shard id.
    pub fn checkpoints(&self) -> Result<Vec<Checkpoint>> {
        let shards = self.inner.stream.listed_shards()?;
        let mut known = self.states()?;
        known.sort_unstable_by_key(|state| state.shard_id);
        let state = |shard_id| match known.binary_search_by_key(&shard_id, |state| state.shard_id) {
            Ok(at) => known.get(at).cloned().unwrap_or_else(|| untouched(shard_id)),
            Err(_) => untouched(shard_id),
        };
        Ok(shards.into_iter().map(|shard_id| Checkpoint::of(&state(shard_id))).collect())
    }

    /// A reader of a shard that gives what is not done yet. Behind a checkpoint inside an aggregated record it starts with that record.
    ///
    /// # Errors
    ///
    /// [`Error::Trimmed`] if retention removed records that were not done; [`reset_shard`](Self::reset_shard) goes on at what is left. And those of
    /// [`checkpoint`](Self::checkpoint).
    pub fn iterator(&self, shard_id: ShardId) -> Result<ShardIterator> {
        self.expect_listed(shard_id)?;
        self.inner.stream.iterator_behind(shard_id, self.state(shard_id)?.position)
    }

    /// As [`iterator`](Self::iterator), for who goes on here behind the ends of the shard's parents: where one of them was begun, all of the shard is due, from what was said to be the
    /// `earliest` if that was said before, and [`Error::Trimmed`] says that its front is gone.
    pub(crate) fn following_iterator(
        &self,
        shard_id: ShardId,
        earliest: Option<SequenceNumber>,
    ) -> Result<ShardIterator> {
        let shards = self.inner.stream.shards();
        let shard = shards.iter().find(|shard| shard.shard_id == shard_id);
        match shard.filter(|shard| !shard.parents.is_empty()) {
            Some(shard) if !self.is_begun(&[shard_id])? && self.is_begun(&shard.parents)? => {
                let first = earliest.unwrap_or_default().max(shard.starting);
                self.inner.stream.lasting_iterator(shard_id, ShardIteratorType::AtSequenceNumber(first))
            }
            _ => self.iterator(shard_id),
        }
    }

    /// Whether there is more to say of one of these shards than that nothing is done.
    pub(crate) fn is_begun(&self, shards: &[ShardId]) -> Result<bool> {
        let states = shards.iter().map(|shard_id| self.state(*shard_id)).collect::<Result<Vec<_>>>()?;
        Ok(states.iter().any(|state| state.position != StoredPosition::TrimHorizon))
    }

    /// Takes a shard for a worker, whoever has it: raises its epoch, durably, so that checkpoints under every earlier lease are refused.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for a worker's name that a consumer could not have, and those of [`checkpoint`](Self::checkpoint).
    pub fn take(&self, shard_id: ShardId, worker: &str) -> Result<Lease> {
        Error::check_name("worker name", worker)?;
        self.expect_listed(shard_id)?;
        let state = self.change(shard_id, Level::Durable, |state| {
            let owner = worker.to_owned();
            Ok(SlotState { owner, epoch: next_epoch(&state)?, renewals: 0, lease_ms: 0, ..state })
        })?;
        Ok(Lease::new(self.clone(), &state))
    }

    /// Puts every shard at a place of its own choice: the trim horizon, the present tail, or a time. Leases are lost by it, those of shards that expired among them. Durable when it
    /// returns; a crash before may leave some shards where they were, and with [a time](RecordsStart::AtTimestamp) shards at their new start to which an
    /// [event source](Self::event_source) still gives the states of windows that their parents left. Called again, it ends what was begun.
    ///
    /// A shard that is closed has no record behind the [latest](RecordsStart::Latest): it is at its end.
    pub fn reset(&self, start: RecordsStart) -> Result<()> {
        let shards = self.inner.stream.listed_shards()?;
        self.reset_expired()?;
        self.reset_shards(&shards, start)
    }

    /// Ends the leases of shards that expired, which somebody may have behind their ends, and forgets how far these were done: nothing is due for that any more.
    fn reset_expired(&self) -> Result<()> {
        let inner = &self.inner;
        let is_gone = self.is_gone()?;
        let mut leases = inner.file.lock().map_err(error_of(&inner.name))?;
        for slot in leases.all().map_err(error_of(&inner.name))? {
            let is_used = |state: &&SlotState| {
                let is_begun = state.position != StoredPosition::TrimHorizon;
                is_gone(state.shard_id) && (is_begun || !state.owner.is_empty())
            };
            let Some(state) = slot.state().filter(is_used) else { continue };
            let state = SlotState { epoch: next_epoch(state)?, ..untouched(state.shard_id) };
            leases.write(&slot, state, true).map_err(error_of(&inner.name))?;
        }
        Ok(())
    }

    /// As [`reset`](Self::reset), for one shard. To the trim horizon, it goes on at what is left: where the shard's parents are done, or expired, no worker and no pipeline says
    /// [`Error::Trimmed`] again of what retention took of its front.
    ///
    /// # Errors
    ///
    /// Those of [`checkpoint`](Self::checkpoint).
    pub fn reset_shard(&self, shard_id: ShardId, start: RecordsStart) -> Result<()> {
        self.expect_listed(shard_id)?;
        let mut position = self.inner.stream.starting_position(shard_id, start)?;
        if position == StoredPosition::TrimHorizon && self.is_due(shard_id)? {
            position = FRONT_GIVEN_UP;
        }
        self.put_at(vec![(shard_id, position)])?;
        self.forget_windows_before(start, &[shard_id])
    }

    fn reset_shards(&self, shards: &[ShardId], start: RecordsStart) -> Result<()> {
        let mut positions = Vec::new();
        for shard_id in shards {
            match self.inner.stream.starting_position(*shard_id, start) {
                Ok(position) => positions.push((*shard_id, position)),
                Err(Error::ShardNotFound(_)) => {} // expired since it was listed
                Err(error) => return Err(error),
            }
        }
        self.put_at(positions)?;
        self.forget_windows_before(start, shards)
    }

    /// Whether a shard follows others, all of which are done, or expired.
    fn is_due(&self, shard_id: ShardId) -> Result<bool> {
        let (finished, shards) = (self.finished()?, self.inner.stream.shards());
        let is_listed = |id: &ShardId| shards.binary_search_by_key(id, |shard| shard.shard_id).is_ok();
        let shard = shards.iter().find(|shard| shard.shard_id == shard_id);
        let is_passed = |id: &ShardId| finished.contains(id) || !is_listed(id);
        Ok(shard.is_some_and(|shard| !shard.parents.is_empty() && shard.parents.iter().all(is_passed)))
    }

    /// Durable when it returns. Leases are lost by it.
    fn put_at(&self, positions: Vec<(ShardId, StoredPosition)>) -> Result<()> {
        let inner = &self.inner;
        let mut leases = inner.file.lock().map_err(error_of(&inner.name))?;
        let mut missing = Vec::new();
        for (shard_id, position) in positions {
            match leases.find(shard_id).map_err(error_of(&inner.name))? {
                Some(slot) => {
                    let state = slot.state().cloned().unwrap_or_else(|| untouched(shard_id));
                    let state = SlotState { epoch: next_epoch(&state)?, position, ..untouched(shard_id) };
                    leases.write(&slot, state, true).map_err(error_of(&inner.name))?;
                }
                None => missing.push(SlotState { epoch: 1, position, ..untouched(shard_id) }),
            }
        }
        if !missing.is_empty() {
            self.add(&mut leases, missing)?;
        }
        leases.sync().map_err(error_of(&inner.name))
    }

    /// The windows that were open when their parents ended are of records before the new start. Not before it is durable: a crash
    /// in between would leave shards where they were, without what their parents left.
    fn forget_windows_before(&self, start: RecordsStart, shards: &[ShardId]) -> Result<()> {
        match start {
            RecordsStart::TrimHorizon => Ok(()),
            _ => self.inner.stream.forget_windows(&self.inner.name, self.inner.file.file_id(), shards),
        }
    }

    /// Makes every checkpoint that was made in this process durable, whatever level it was acknowledged at. The records before them are made durable
    /// by [`Stream::sync`], which does both.
    pub fn sync(&self) -> Result<()> {
        self.inner.stream.expect_open()?;
        self.inner.file.sync().map_err(error_of(&self.inner.name))
    }

    /// The shards that are done to their ends. Those that expired since are among them: they have no end to come to any more.
    pub(crate) fn finished(&self) -> Result<BTreeSet<ShardId>> {
        let states = self.states()?; // first: an end that is stored is that of a shard which is listed as closed by now
        let is_gone = self.is_gone()?;
        let shards = self.inner.stream.shards();
        let is_finished = |state: &SlotState| {
            let listed = shards.binary_search_by_key(&state.shard_id, |shard| shard.shard_id);
            match listed.ok().and_then(|place| shards.get(place)) {
                Some(shard) => is_finished(shard, state.position),
                None => Position::of(state.position) == Position::ShardEnd && is_gone(state.shard_id),
            }
        };
        Ok(states.iter().filter(|state| is_finished(state)).map(|state| state.shard_id).collect())
    }

    /// Keeps what a child of a shard gets from it: the states of windows that are open, durably when this returns.
    pub(crate) fn bequeath(&self, child: ShardId, parent: ShardId, states: Vec<WindowState>) -> Result<()> {
        let (stream_id, file_id) = (self.inner.stream.stream_id(), self.inner.file.file_id());
        let snapshot = WindowsSnapshot { stream_id, file_id, child, parent, states };
        self.inner.stream.keep_windows(&self.inner.name, &snapshot)
    }

    /// What a shard got from its parents, all of them.
    pub(crate) fn inheritance(&self, child: ShardId) -> Result<Vec<WindowState>> {
        let found = self.inner.stream.windows(&self.inner.name, self.inner.file.file_id(), child)?;
        Ok(found.into_iter().flat_map(|snapshot| snapshot.states).collect())
    }

    /// What a shard got is behind its checkpoint, which is made durable first: without the one, the other counts.
    pub(crate) fn forget_inheritance(&self, child: ShardId) -> Result<()> {
        self.sync()?;
        self.inner.stream.forget_windows(&self.inner.name, self.inner.file.file_id(), &[child])
    }

    /// What shards got that are finished, and that a crash left: it is with their children.
    pub(crate) fn forget_inheritances_of_finished(&self) -> Result<()> {
        let finished: Vec<_> = self.finished()?.into_iter().collect();
        if finished.is_empty() {
            return Ok(());
        }
        // Also what another process stored, which may have died before it was durable: without the end, what the shard got counts.
        self.inner.file.renew().map_err(error_of(&self.inner.name))?;
        self.inner.stream.forget_windows(&self.inner.name, self.inner.file.file_id(), &finished)
    }

    fn expect_listed(&self, shard_id: ShardId) -> Result<()> {
        self.inner.stream.expect_listed(shard_id)
    }

    fn state(&self, shard_id: ShardId) -> Result<SlotState> {
        Ok(self.stored(shard_id)?.unwrap_or_else(|| untouched(shard_id)))
    }

    fn stored(&self, shard_id: ShardId) -> Result<Option<SlotState>> {
        self.inner.stream.expect_open()?; // before any lock: a fork has its parent's, in whatever state they were
        let mut leases = self.inner.file.lock().map_err(error_of(&self.inner.name))?;
        let slot = leases.find(shard_id).map_err(error_of(&self.inner.name))?;
        Ok(slot.and_then(|slot| slot.state().cloned()))
    }

    fn states(&self) -> Result<Vec<SlotState>> {
        self.inner.stream.expect_open()?;
        let mut leases = self.inner.file.lock().map_err(error_of(&self.inner.name))?;
        let slots = leases.all().map_err(error_of(&self.inner.name))?;
        Ok(slots.iter().filter_map(|slot| slot.state().cloned()).collect())
    }

    /// Reads what is stored of a shard, and puts in its place what `change` makes of it: nobody comes between. What is stored now.
    fn change(
        &self,
        shard_id: ShardId,
        level: Level,
        change: impl FnOnce(SlotState) -> Result<SlotState>,
    ) -> Result<SlotState> {
        let inner = &self.inner;
        inner.stream.expect_open()?;
        let mut leases = inner.file.lock().map_err(error_of(&inner.name))?;
        let mut slot = leases.find(shard_id).map_err(error_of(&inner.name))?;
        if slot.is_none() && !self.is_gone()?(shard_id) {
            self.add(&mut leases, vec![untouched(shard_id)])?;
            slot = leases.find(shard_id).map_err(error_of(&inner.name))?;
        }
        let slot = slot.ok_or(Error::ShardNotFound(shard_id))?;
        let state = change(slot.state().cloned().unwrap_or_else(|| untouched(shard_id)))?;
        let synced = level == Level::Durable;
        leases.write(&slot, state.clone(), synced).map_err(error_of(&inner.name))?;
        if synced || (level == Level::Kept && self.is_flush_due()) {
            leases.sync().map_err(error_of(&inner.name))?;
        }
        Ok(state)
    }

    /// Gives shards slots, durably: those of shards that expired, as far as nobody asks any more what is stored there. What is asked for is who works on a shard behind its
    /// end, and whether one was begun whose children are listed.
    fn add(&self, leases: &mut LockedLeases<'_>, states: Vec<SlotState>) -> Result<()> {
        let is_gone = self.is_gone()?;
        let shards = self.inner.stream.shards();
        let parents: BTreeSet<_> = shards.iter().flat_map(|shard| &shard.parents).copied().collect();
        let wanted = |state: &SlotState| (is_at_work(state), parents.contains(&state.shard_id));
        leases.add(states, |state| is_gone(state.shard_id), wanted).map_err(error_of(&self.inner.name))
    }

    /// The level at which checkpoints are acknowledged.
    fn level(&self) -> Level {
        match self.inner.stream.durability() {
            Durability::Synced => Level::Durable,
            Durability::Buffered => Level::Kept,
        }
    }

    /// In a process without a background thread that would do it: whether the flush interval is over.
    fn is_flush_due(&self) -> bool {
        let inner = &self.inner;
        let now = millis(inner.stream.clock().monotonic());
        let due = inner.synced_at.load(Ordering::Relaxed).saturating_add(millis(inner.stream.flush_interval()));
        let is_due = inner.stream.is_read_only() && now >= due;
        if is_due {
            inner.synced_at.store(now, Ordering::Relaxed);
        }
        is_due
    }

    /// Tells shards that expired from those that this process has not heard of yet: children have higher ids than their parents.
    pub(crate) fn is_gone(&self) -> Result<impl Fn(ShardId) -> bool> {
        let listed = self.inner.stream.listed_shards()?;
        Ok(move |shard_id| {
            listed.last().is_some_and(|last| shard_id < *last) && listed.binary_search(&shard_id).is_err()
        })
    }
}

/// What a change of a slot has to survive when it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    /// The power.
    Durable,
    /// The process; the power after the next flush.
    Kept,
}

/// A shard that nobody has taken and of which nothing is done.
fn untouched(shard_id: ShardId) -> SlotState {
    SlotState {
        shard_id,
        epoch: 0,
        owner: String::new(),
        renewals: 0,
        lease_ms: 0,
        position: StoredPosition::TrimHorizon,
    }
}

/// Whether a worker has the shard, and is not through with it. One that was taken by hand, without an end, is nobody's in this sense.
fn is_at_work(state: &SlotState) -> bool {
    state.lease_ms > 0 && !matches!(state.position, StoredPosition::ShardEnd { .. })
}

/// The same without an owner.
fn released(state: &SlotState) -> Result<SlotState> {
    Ok(SlotState { owner: String::new(), epoch: next_epoch(state)?, renewals: 0, lease_ms: 0, ..*state })
}

fn next_epoch(state: &SlotState) -> Result<u64> {
    state.epoch.checked_add(1).ok_or_else(|| Error::invalid("epoch", "the shard changed hands 2^64 times"))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("name", &self.inner.name).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::storage::{Crash, SimulatedDisk};

    const PARENT: ShardId = ShardId::new(0);
    /// The lower child of a split.
    const SHARD: ShardId = ShardId::new(1);

    /// As of a merge that a power cut undid, after which the id was given to the child of a split.
    #[test]
    fn windows_of_another_parent_are_not_given() {
        let builder = Stream::builder().background(false).storage(Arc::new(SimulatedDisk::new()));
        let stream = builder.shards(2).create("/s").unwrap();
        let (lower, upper) = stream.split_shard(PARENT, None).unwrap();
        let consumer = stream.consumer("c").unwrap();
        for child in [lower, upper] {
            consumer.bequeath(child, ShardId::new(1), vec![WindowState::example()]).unwrap();
        }
        consumer.bequeath(upper, PARENT, vec![WindowState::example()]).unwrap();
        let inherited = |child| consumer.inheritance(child).unwrap().len();
        assert_eq!((inherited(lower), inherited(upper)), (0, 1));
    }

    /// By an event source whose consumer was deleted, and made again, while it was at work.
    #[test]
    fn windows_of_a_consumer_are_spared_by_an_earlier_one_of_its_name() {
        let builder = Stream::builder().background(false).storage(Arc::new(SimulatedDisk::new()));
        let stream = builder.create("/s").unwrap();
        let (child, _) = stream.split_shard(PARENT, None).unwrap();
        let old = stream.consumer("c").unwrap();
        stream.delete_consumer("c").unwrap();
        let is_gone = |outcome: Result<()>| matches!(outcome, Err(Error::ConsumerNotFound(name)) if name == "c");
        assert!(is_gone(old.bequeath(child, PARENT, vec![WindowState::example()])), "there is none");
        let new = stream.consumer("c").unwrap();
        new.bequeath(child, PARENT, vec![WindowState::example()]).unwrap();
        assert!(is_gone(old.bequeath(child, PARENT, Vec::new())));
        assert!(is_gone(old.forget_inheritance(child)));
        assert_eq!(new.inheritance(child).unwrap().len(), 1);
    }

    /// Who still has a lease of it, when what was stored of it has made room for another, can change nothing.
    #[test]
    fn a_shard_that_expired_gets_no_slot_again() {
        let clock = Arc::new(ManualClock::default());
        let builder = Stream::builder().background(false).storage(Arc::new(SimulatedDisk::new()));
        let stream = builder.clock(clock.clone()).retention(Duration::from_secs(60)).create("/s").unwrap();
        let consumer = stream.consumer("c").unwrap();
        let lease = consumer.take(PARENT, "hand").unwrap();
        let (lower, upper) = stream.split_shard(PARENT, None).unwrap();
        let merged = stream.merge_shards(lower, upper).unwrap();
        clock.advance(Duration::from_secs(61));
        while stream.shards().len() > 1 {
            stream.enforce_retention().unwrap();
            clock.advance(Duration::from_secs(1));
        }
        consumer.take(merged, "hand").unwrap();
        assert!(matches!(lease.release(), Err(Error::ShardNotFound(PARENT))));
        let stored: Vec<_> = consumer.states().unwrap().iter().map(|state| state.shard_id).collect();
        assert_eq!(stored, [merged]);
    }

    /// By a worker in a process that was killed since, and then the power goes.
    #[test]
    fn what_a_shard_got_stays_until_its_end_is_durable_whoever_stored_that() {
        let disk = SimulatedDisk::new();
        let builder = || {
            let builder = Stream::builder().durability(Durability::Buffered).background(false);
            builder.flush_interval(Duration::from_secs(3_600)).storage(Arc::new(disk.clone()))
        };
        let stream = builder().create("/s").unwrap();
        stream.split_shard(PARENT, None).unwrap();
        stream.split_shard(SHARD, None).unwrap();
        let ours = stream.consumer("c").unwrap();
        ours.bequeath(SHARD, PARENT, vec![WindowState::example()]).unwrap();
        let others = builder().open_read_only("/s").unwrap();
        others.consumer("c").unwrap().take(SHARD, "w").unwrap().checkpoint_end().unwrap();
        let of_a_crash = |seed| {
            let survivor = Arc::new(disk.fork(Crash::PowerLost { seed }));
            let consumer = builder().storage(survivor).open_existing("/s").unwrap().consumer("c").unwrap();
            let is_finished = consumer.checkpoint(SHARD).unwrap().position == Position::ShardEnd;
            (is_finished, !consumer.inheritance(SHARD).unwrap().is_empty())
        };
        assert!((0..32).any(|seed| of_a_crash(seed) == (false, true)), "a power cut may take the end as yet");
        ours.forget_inheritances_of_finished().unwrap();
        for seed in 0..32 {
            assert_eq!(of_a_crash(seed), (true, false), "{seed}");
        }
    }
}
