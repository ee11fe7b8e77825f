//! A worker of a group, in the pull form.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

use super::rounds::{Observed, Plan};
use super::{Checkpoint, Consumer, Lease, RecordPosition, millis};
use crate::error::{Error, Result};
use crate::format::StoredPosition;
use crate::leases::WorkerClaim;
use crate::limits::{
    DEFAULT_LEASE_MS, DEFAULT_WORKER_RECORDS, MAX_LEASE_MS, MAX_WORKER_CLAIM_CHARS, MIN_LEASE_MS,
};
use crate::segment::Record;
use crate::stream::ShardIterator;
use crate::types::{HashKeyRange, ShardId};

/// How long a worker that has nothing to do waits before it looks again, at first: whoever appends pays nothing for it.
const NAP: Duration = Duration::from_millis(2);
/// After so many looks in vain it sleeps, until somebody appends and wakes it.
const NAPS: u32 = 50;
/// How often a lease is renewed while it lasts.
const RENEWALS: u32 = 3;

/// How a [`Worker`] works.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerOptions {
    /// How long the worker's leases last without a renewal: after that, others take its shards. 10 ms to 24 h; 10 s by default. Each call
    /// renews what is due, so this has to be longer than the handling of one batch takes.
    pub lease_time: Duration,
    /// Most records of a batch: at least 1; 10,000 by default.
    pub max_records: usize,
    /// Whether what the worker reads is counted to the consumer's own [quota](crate::Quotas::dedicated_read_bytes) instead of that which all readers
    /// share: no, by default. Where a quota is used up, the worker gives nothing of that shard for a while.
    pub dedicated: bool,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self {
            lease_time: Duration::from_millis(DEFAULT_LEASE_MS),
            max_records: DEFAULT_WORKER_RECORDS,
            dedicated: false,
        }
    }
}

impl WorkerOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`lease_time`](Self::lease_time).
    #[must_use]
    pub fn lease_time(mut self, time: Duration) -> Self {
        self.lease_time = time;
        self
    }

    /// Sets [`max_records`](Self::max_records).
    #[must_use]
    pub fn max_records(mut self, records: usize) -> Self {
        self.max_records = records;
        self
    }

    /// Sets [`dedicated`](Self::dedicated).
    #[must_use]
    pub fn dedicated(mut self, yes: bool) -> Self {
        self.dedicated = yes;
        self
    }

    /// The reader, on whose quota it is.
    fn paid(&self, iterator: ShardIterator, consumer: &Consumer) -> Result<ShardIterator> {
        if self.dedicated { iterator.dedicated(consumer.name()) } else { Ok(iterator) }
    }

    fn check(&self) -> Result<()> {
        if !(MIN_LEASE_MS..=MAX_LEASE_MS).contains(&millis(self.lease_time)) {
            let reason = format!("{:?}; it is {MIN_LEASE_MS} ms to {MAX_LEASE_MS} ms", self.lease_time);
            return Err(Error::invalid("lease time", reason));
        }
        if self.max_records == 0 {
            return Err(Error::invalid("max_records", "0; it is at least 1"));
        }
        Ok(())
    }
}

/// What a worker has to do next.
#[derive(Debug)]
#[non_exhaustive]
pub enum Work {
    /// The worker has the shard from now on, and will be given what is behind this checkpoint.
    Started(Checkpoint),
    /// Records of one shard, in order, behind those that were given before: at least one.
    Records {
        /// Their shard.
        shard_id: ShardId,
        /// The records.
        records: Vec<Record>,
    },
    /// The shard was given to its end. Once all of it is handled, [`Worker::finish`] lets its children begin.
    Ended(ShardId),
    /// Somebody else has the shard now, or the consumer was reset: what was not checkpointed is given to others. Or the shard expired.
    Lost(ShardId),
}

/// One of several workers, in threads or in processes, that share the shards of a consumer; see [`Consumer::worker`].
///
/// Every call of [`poll`](Self::poll) renews the worker's leases when that is due, takes shards that are free or whose worker is dead, steals one from a
/// worker that has more than its share, and gives the next piece of work. Between two calls no more than the lease time may pass: what is
/// handled later than that may be handled by another worker, too; its checkpoint is refused then.
///
/// What a worker does not [`close`](Self::close) before it is dropped is left as by one that died: others wait for the lease time.
pub struct Worker {
    pub(super) consumer: Consumer,
    pub(super) name: String,
    pub(super) options: WorkerOptions,
    pub(super) held: BTreeMap<ShardId, Held>,
    pub(super) observed: Observed,
    pub(super) pending: VecDeque<Work>,
    /// What beginning with shards ran into.
    failures: VecDeque<Error>,
    tended_at: Option<Duration>,
    /// The shard that gave records last: its neighbour is asked first.
    last: ShardId,
    /// How often it waited since it had something to do.
    naps: u32,
    /// That nobody else has the name.
    _claim: WorkerClaim,
}

/// A shard that the worker has.
pub(super) struct Held {
    pub(super) lease: Lease,
    pub(super) iterator: ShardIterator,
    /// Taken before the lease was written last: it lasts from then on.
    pub(super) renewed_at: Duration,
    /// Whether it was said that it ended.
    pub(super) is_ended: bool,
    /// Whether everything behind the checkpoint is to be given again.
    goes_back: bool,
    /// Whether nothing of it is wanted now.
    is_paused: bool,
}

impl Consumer {
    /// A worker of this consumer, which shares the shards with all others, in this process and in others.
    ///
    /// ```
    /// # fn main() -> anabranch::Result<()> {
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("clicks");
    /// use anabranch::{Stream, Work, WorkerOptions};
    ///
    /// let stream = Stream::builder().shards(2).create(&path)?;
    /// stream.put("user-42", b"GET /cart")?;
    /// let mut worker = stream.consumer("billing")?.worker("worker-1", WorkerOptions::new())?;
    /// let mut handled = 0;
    /// while let Some(work) = worker.poll()? {
    ///     match work {
    ///         Work::Records { shard_id, records } => {
    ///             handled += records.len();
    ///             worker.checkpoint(shard_id, records.last().unwrap())?;
    ///         }
    ///         Work::Ended(shard_id) => worker.finish(shard_id)?, // its children may begin
    ///         _ => {}
    ///     }
    /// }
    /// assert_eq!(handled, 1);
    /// worker.close()
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for a name that a consumer could not have, or that is too long together with the consumer's
    /// ([`MAX_WORKER_CLAIM_CHARS`]), or options out of their ranges; [`Error::WorkerExists`] while a worker of this name is at work;
    /// [`Error::ConsumerNotFound`] if it was deleted; [`Error::Closed`]; [`Error::Locked`] if somebody holds the lock for seconds; [`Error::Io`].
    pub fn worker(&self, name: &str, options: WorkerOptions) -> Result<Worker> {
        Error::check_name("worker name", name)?;
        if self.name().len() + name.len() > MAX_WORKER_CLAIM_CHARS {
            let reason =
                format!("{name:?}; with the consumer's it has {MAX_WORKER_CLAIM_CHARS} characters at most");
            return Err(Error::invalid("worker name", reason));
        }
        options.check()?;
        self.states()?; // it is there
        let claim = self.inner.stream.claim_worker(self.name(), name)?;
        let claim = claim.ok_or_else(|| Error::WorkerExists(name.to_owned()))?;
        Ok(Worker {
            consumer: self.clone(),
            name: name.to_owned(),
            options,
            held: BTreeMap::new(),
            observed: Observed::default(),
            pending: VecDeque::new(),
            failures: VecDeque::new(),
            tended_at: None,
            last: ShardId::default(),
            naps: 0,
            _claim: claim,
        })
    }
}

impl Worker {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The consumer that it works for.
    pub fn consumer(&self) -> &Consumer {
        &self.consumer
    }

    /// The shards that it has, as far as it knows.
    pub fn shards(&self) -> Vec<ShardId> {
        self.held.keys().copied().collect()
    }

    /// Renews what is due, and gives the next piece of work, if there is any now.
    ///
    /// # Errors
    ///
    /// [`Error::Trimmed`] where retention overtook the consumer in one of the shards, or took the front of one whose parent is done, and [`Error::Lost`]: said once, the next call goes on
    /// behind what is missing. A shard that expired altogether before a worker had it is not told of. [`Error::ConsumerNotFound`] if it was deleted, [`Error::Closed`], and what reading and writing can lead to: a call that failed
    /// can be made again.
    pub fn poll(&mut self) -> Result<Option<Work>> {
        self.consumer.inner.stream.expect_open()?;
        self.tend()?;
        let work = self.look()?;
        if work.is_some() {
            self.naps = 0;
        }
        Ok(work)
    }

    /// What there is to do for the shards that it has.
    fn look(&mut self) -> Result<Option<Work>> {
        if let Some(work) = self.pending.pop_front() {
            return Ok(Some(work));
        }
        // Behind what came of the same round: who is told of an error knows by then which shards are lost and which are begun.
        if let Some(failure) = self.failures.pop_front() {
            return Err(failure);
        }
        let after = self.held.range(ShardId::new(self.last.get().saturating_add(1))..).map(|(id, _)| *id);
        let turns: Vec<_> = after.chain(self.held.range(..=self.last).map(|(id, _)| *id)).collect();
        for shard_id in turns {
            match self.ask(shard_id) {
                Ok(None) => {}
                found_or_failed => {
                    self.last = shard_id; // of one that fails, too: those behind it have their turn
                    return found_or_failed;
                }
            }
        }
        Ok(None)
    }

    /// As [`poll`](Self::poll), but waits up to `timeout` for something to do.
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<Work>> {
        let mut left = timeout;
        loop {
            let work = self.poll()?;
            if work.is_some() || left.is_zero() {
                return Ok(work);
            }
            let started = Instant::now();
            self.wait(left);
            left = left.saturating_sub(started.elapsed());
        }
    }

    /// Waits for something to do, or for `timeout`, or for less.
    fn wait(&mut self, timeout: Duration) {
        self.naps = self.naps.saturating_add(1);
        if self.naps <= NAPS {
            std::thread::sleep(timeout.min(NAP));
            return;
        }
        let until_due = self.options.lease_time / RENEWALS;
        let has_news =
            || self.held.values().any(|held| held.iterator.has_news() && !held.is_ended && !held.is_paused);
        self.consumer.inner.stream.wait_for_news(timeout.min(until_due), has_news);
    }

    /// Gives nothing more of a shard until it is [resumed](Self::resume): for who has as much of it as can be handled. Its lease is renewed as before. Lasts as
    /// long as the worker has the shard; nothing happens if it does not have it.
    pub fn pause(&mut self, shard_id: ShardId) {
        self.set_paused(shard_id, true);
    }

    /// Gives what is there of a shard again, from where it was [paused](Self::pause).
    pub fn resume(&mut self, shard_id: ShardId) {
        self.set_paused(shard_id, false);
    }

    /// How many records of a shard are there now and were not given yet; nothing if the worker does not have it. See [`ShardIterator::records_behind`].
    pub fn records_behind(&self, shard_id: ShardId) -> Option<u64> {
        self.held.get(&shard_id).map(|held| held.iterator.records_behind())
    }

    /// The hash keys of a shard; nothing if the worker does not have it.
    pub(crate) fn hash_key_range(&self, shard_id: ShardId) -> Option<HashKeyRange> {
        self.held.get(&shard_id).map(|held| held.iterator.hash_key_range())
    }

    /// Everything of the shard up to and including this record is done; see [`Lease::checkpoint`].
    ///
    /// # Errors
    ///
    /// [`Error::LeaseLost`] if the worker does not have the shard any more, and those of [`Lease::checkpoint`].
    pub fn checkpoint(&mut self, shard_id: ShardId, done: impl Into<RecordPosition>) -> Result<()> {
        let outcome = self.lease(shard_id)?.checkpoint(done);
        self.note_loss(shard_id, outcome)
    }

    /// As [`checkpoint`](Self::checkpoint), for who handles to its end what it was given: a shard that expired behind its end stores nothing any more, and is the worker's
    /// until it is finished, so that its children wait.
    pub(crate) fn checkpoint_if_listed(&mut self, shard_id: ShardId, done: RecordPosition) -> Result<()> {
        let outcome = match self.lease(shard_id)?.checkpoint(done) {
            Err(Error::ShardNotFound(_)) if self.has_ended(shard_id) => Ok(()),
            other => other,
        };
        self.note_loss(shard_id, outcome)
    }

    /// That the shard is nobody else's by now, for who is to leave something to its children.
    pub(crate) fn expect_lease(&mut self, shard_id: ShardId) -> Result<()> {
        let outcome = self.lease(shard_id)?.expect_in_force();
        self.note_loss(shard_id, outcome)
    }

    /// All of a shard that [ended](Work::Ended) is done: its children may begin. The worker has it no more.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for a shard that was not given to its end; otherwise as [`checkpoint`](Self::checkpoint).
    pub fn finish(&mut self, shard_id: ShardId) -> Result<()> {
        self.lease(shard_id)?;
        let ended = self.held.get(&shard_id).filter(|held| held.is_ended);
        let Some(Held { lease, iterator, .. }) = ended else {
            return Err(Error::invalid("shard", format!("{shard_id} was not given to its end")));
        };
        let outcome = lease.checkpoint_end_at(iterator.next_sequence_number());
        self.note_loss(shard_id, outcome)?;
        self.tended_at = None; // the children may be this worker's
        self.let_go(shard_id); // its end is stored: nobody takes it, whoever has it
        Ok(())
    }

    /// Gives all shards back, so that others need not wait. What was not checkpointed is given to them.
    ///
    /// # Errors
    ///
    /// The first of the shards that fails, after all have been tried.
    pub fn close(mut self) -> Result<()> {
        let release = |held: Held| match held.lease.release() {
            Err(Error::LeaseLost { .. } | Error::ShardNotFound(_)) => Ok(()),
            other => other,
        };
        std::mem::take(&mut self.held).into_values().map(release).fold(Ok(()), Result::and)
    }

    fn lease(&self, shard_id: ShardId) -> Result<&Lease> {
        if let Some(held) = self.held.get(&shard_id) {
            return Ok(&held.lease);
        }
        let Checkpoint { epoch, owner, .. } = self.consumer.checkpoint(shard_id)?;
        Err(Error::LeaseLost { shard_id, epoch: 0, current: epoch, owner })
    }

    fn has_ended(&self, shard_id: ShardId) -> bool {
        self.held.get(&shard_id).is_some_and(|held| held.is_ended)
    }

    /// Who is refused has lost it, and is told by the error alone. So has who works on a shard that expired.
    fn note_loss(&mut self, shard_id: ShardId, outcome: Result<()>) -> Result<()> {
        match outcome {
            Err(Error::LeaseLost { .. }) => drop(self.held.remove(&shard_id)),
            Err(Error::ShardNotFound(_)) => self.let_go(shard_id),
            _ => {}
        }
        outcome
    }

    /// Has a shard no more, and shows that others need not wait for it.
    fn let_go(&mut self, shard_id: ShardId) {
        if let Some(held) = self.held.remove(&shard_id) {
            drop(held.lease.release());
        }
    }

    /// Gives again what was not done: of a shard that began, everything behind its checkpoint.
    pub(super) fn give_again(&mut self, work: Work) {
        match work {
            Work::Started(_) => self.pending.push_front(work),
            Work::Records { shard_id, .. } | Work::Ended(shard_id) => {
                if let Some(held) = self.held.get_mut(&shard_id) {
                    (held.goes_back, held.is_ended) = (true, false);
                }
            }
            Work::Lost(_) => {}
        }
    }

    fn set_paused(&mut self, shard_id: ShardId, is_paused: bool) {
        if let Some(held) = self.held.get_mut(&shard_id) {
            held.is_paused = is_paused;
        }
    }

    pub(super) fn now(&self) -> Duration {
        self.consumer.inner.stream.clock().monotonic()
    }

    /// Renews, looks around, takes and steals, if that is due.
    fn tend(&mut self) -> Result<()> {
        let now = self.now();
        let due = self.tended_at.is_none_or(|at| now >= at.saturating_add(self.options.lease_time / RENEWALS));
        if !due {
            return Ok(());
        }
        let Plan { lost, taken } = self.round(now)?;
        for shard_id in lost {
            self.held.remove(&shard_id);
            self.pending.push_back(Work::Lost(shard_id));
        }
        for lease in taken {
            match self.start(lease, now) {
                Ok(()) | Err(Error::ShardNotFound(_)) => {} // expired since
                Err(error) => {
                    // Of those that the next round meets again, one is enough.
                    if matches!(error, Error::Trimmed { .. }) || self.failures.is_empty() {
                        self.failures.push_back(error);
                    }
                }
            }
        }
        self.tended_at = Some(now);
        Ok(())
    }

    /// Begins with a shard that was just taken.
    fn start(&mut self, lease: Lease, renewed_at: Duration) -> Result<()> {
        let shard_id = lease.shard_id();
        let checkpoint = self.consumer.checkpoint(shard_id)?;
        let (iterator, overtaken) = read_behind(&lease, &self.consumer, &self.options)?;
        let held = Held { lease, iterator, renewed_at, is_ended: false, goes_back: false, is_paused: false };
        self.held.insert(shard_id, held);
        self.pending.push_back(Work::Started(checkpoint));
        overtaken
    }

    /// What a shard has to give, or that it expired.
    fn ask(&mut self, shard_id: ShardId) -> Result<Option<Work>> {
        match self.read(shard_id) {
            Err(Error::ShardNotFound(_)) => {
                self.let_go(shard_id);
                Ok(Some(Work::Lost(shard_id)))
            }
            other => other,
        }
    }

    fn read(&mut self, shard_id: ShardId) -> Result<Option<Work>> {
        let (now, lease_time, most) = (self.now(), self.options.lease_time, self.options.max_records);
        let Some(held) = self.held.get_mut(&shard_id) else { return Ok(None) };
        if now >= held.renewed_at.saturating_add(lease_time) {
            self.tended_at = None; // it may be another's by now: the next round tells
            return Ok(None);
        }
        if held.is_paused {
            return Ok(None);
        }
        if held.goes_back {
            let (iterator, overtaken) = read_behind(&held.lease, &self.consumer, &self.options)?;
            (held.iterator, held.goes_back) = (iterator, false);
            overtaken?;
        }
        let records = match held.iterator.next_records(most) {
            Err(Error::ThroughputExceeded { .. }) => {
                self.naps = 0; // there is something, but not now
                return Ok(None);
            }
            Err(error @ Error::Trimmed { .. }) => {
                held.iterator = self.options.paid(at_the_horizon(&self.consumer, shard_id)?, &self.consumer)?;
                return Err(error);
            }
            other => other?,
        };
        if !records.is_empty() {
            return Ok(Some(Work::Records { shard_id, records }));
        }
        let ends = !held.is_ended && held.iterator.end_of_shard().is_some();
        held.is_ended |= ends;
        Ok(ends.then_some(Work::Ended(shard_id)))
    }
}

/// A reader behind the checkpoint, and whether retention overtook it.
fn read_behind(
    lease: &Lease,
    consumer: &Consumer,
    options: &WorkerOptions,
) -> Result<(ShardIterator, Result<()>)> {
    let (iterator, overtaken) = match consumer.following_iterator(lease.shard_id(), None) {
        Err(error @ Error::Trimmed { .. }) => (at_the_horizon(consumer, lease.shard_id())?, Err(error)),
        other => (other?, Ok(())),
    };
    Ok((options.paid(iterator, consumer)?, overtaken))
}

/// Where a reader goes on that retention overtook.
fn at_the_horizon(consumer: &Consumer, shard_id: ShardId) -> Result<ShardIterator> {
    consumer.stream().iterator_behind(shard_id, StoredPosition::TrimHorizon)
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("name", &self.name)
            .field("consumer", &self.consumer.name())
            .field("shards", &self.held.keys())
            .finish_non_exhaustive()
    }
}
