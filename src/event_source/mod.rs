//! Event sources: a handler is called with batches of a stream's records, as AWS Lambda is by its event source mapping.
//!
//! An [`EventSource`] is a [`Worker`] of a consumer that gathers what it is given into batches, calls a [`BatchHandler`] with them, tries again what failed, and
//! moves the consumer's checkpoints. Leases, the sharing of shards among workers in threads and processes, and children after parents come from the worker.
//!
//! ```text
//!            worker              lanes of a shard            threads
//!  stream  ---------> records ==> queue -> batch ---- call ----> handler
//!                                   |  again, cut, given up <-----'|
//!  consumer <-------- checkpoint <--'  (contiguous)        `-> destination of failed batches
//! ```
//!
//! # What is promised
//!
//! - **At least once.** Each record is handled, or its position was taken by the destination of failed batches, before a checkpoint passes it. After a crash, and when a shard
//!   changes hands, what stands behind the checkpoint is handled again. The checkpoint of a shard is the highest below which every lane is done.
//! - **In order per key.** A partition key has one lane, a lane has one batch under way, and the next one is not begun before that is done or given up; a shard is begun when its
//!   parents are finished. What is under way still of a shard that was lost is waited for, be the shard taken again, or its keys in a child by then. Another source does not know
//!   of it: where a lease ran out or was taken, the last call of the one that had it may run beside those of the other.
//! - **Nothing is lost by giving up.** A batch is given up after so many [retries](EventSourceOptions::retries), or at [an age](EventSourceOptions::max_record_age): both finite unless
//!   one asks for other, since a bad record else blocks its shard until retention takes it. The [destination](EventSource::on_failure) is told first. Where there
//!   is none, or where it fails, the run ends with an error and the source stays where it is.
//!
//! # Failures
//!
//! A batch failed as a whole ([`BatchFailure::new`], an error, a panic), or from one record on ([`BatchFailure::at`]): then what stands before it is done. With
//! [`bisect_on_error`](EventSourceOptions::bisect_on_error), as by default, the rest is cut: there, or else in halves, which are tried at once, in order, and again cut, until one
//! record that fails stands alone. Cutting is no retry; it ends after as many calls as a batch can be halved. What is not cut is tried again after a pause that
//! doubles.
//!
//! # Tumbling windows
//!
//! With [`tumbling_window`](EventSourceOptions::tumbling_window), a batch holds records of one window only, by their arrival, and each key in it has a state, which the
//! handler [changes](Batch::state_mut). When the window is over, the handler is given [its states](BatchHandler::close_window), and they are gone.
//!
//! Handlers are called at least once; **states are made exactly once**: what a window is closed with was made of each of its records once, in order. For a state is a function of the
//! log. It is nowhere but in memory while a shard lasts, and the checkpoint does not pass the first record of a window that is open: after a crash all records of the window are given
//! again, and make the state anew, from nothing. What failed changes nothing.
//!
//! At the end of a shard, whose checkpoint has to pass everything for its children to begin, the states of open windows are written to
//! one file for each child, durably, before the shard is finished: each to the child that takes its hash key, and so the one that takes the key's further records. The child of a merge
//! has a file of each parent. Where nothing of a child was checkpointed, its files count, and else they do not: its checkpoint passes nothing while a window of its parents
//! is open. They are removed when all of those are closed. No file is written at any other time. That the parent waits with its end until its windows are over would need
//! no file, and keep the children waiting for a window's length; that children read the end of their parents again would need none, and have the handler
//! called twice for records at every reshard, failures and destinations included, and fail where retention was faster.
//!
//! A window is over in a shard when a record of a later one was read, since arrivals never fall in a shard; or, at its tail,
//! [a second](crate::limits::TUMBLING_WINDOW_GRACE_MS) after it ended by the clock. If the clock is set back after that, or a put takes longer to become durable,
//! a record of a window that was closed may follow: the window is closed once more, with what came late. A state that grows over
//! [its bound](crate::limits::MAX_KEY_STATE_BYTES) is given to a call early, [marked](ClosedWindow::is_early), and begins again from nothing; after a crash it may be cut
//! elsewhere. So what a handler makes of a window adds up where it is of a kind that adds up.
//!
//! # Two forms
//!
//! [`EventSource::run`] calls the handler in threads, as many as there are lanes with something to do, and renews leases beside them: a handler may take longer than a
//! lease lasts. [`EventSource::step`] does one round in the calling thread, and starts none: for tests with a [`ManualClock`](crate::ManualClock), and for programs
//! with a loop of their own.

mod batch;
mod failure;
mod job;
mod lane;
mod options;
mod progress;
mod run;
mod shard;
mod windows;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use job::{Finished, Job, Place};
use lane::Round;
use shard::SourceShard;

use crate::clock::Clock;
use crate::consumer::{Checkpoint, Consumer, Position, Work, Worker, WorkerOptions};
use crate::error::{Error, Result};
use crate::limits::TUMBLING_WINDOW_GRACE_MS;
use crate::stream::{RecordsStart, ShardState};
use crate::types::{HashKeyRange, PartitionHash, ShardId, StreamId, Timestamp};

pub use batch::{Batch, BatchFailure, BatchHandler};
pub use failure::{FailedBatch, FailureCondition, FailureDestination};
pub use options::EventSourceOptions;
pub use windows::{ClosedWindow, KeyState, Window};

/// Calls a handler with batches of a consumer's records; see [`Consumer::event_source`]. Several of them, in threads and in processes, share the consumer's shards.
///
/// At least once, in order per key, and through splits and merges: [`docs::event_sources`](crate::docs::event_sources) explains it.
///
/// ```
/// # fn main() -> anabranch::Result<()> {
/// # let directory = tempfile::tempdir().unwrap();
/// # let path = directory.path().to_path_buf();
/// use anabranch::{Batch, BatchFailure, EventSourceOptions, FailedBatch, RecordsStart, Stream};
/// use std::sync::atomic::{AtomicUsize, Ordering};
///
/// let orders = Stream::builder().shards(2).open(path.join("orders"))?;
/// let failed = Stream::builder().open(path.join("failed"))?;
/// for order in ["3 pens", "1 desk", "a pen", "2 lamps"] {
///     orders.put("customer-7", order)?;
/// }
///
/// let items = AtomicUsize::new(0);
/// let count = |batch: &mut Batch<'_>| {
///     for record in batch.records() {
///         let text = String::from_utf8_lossy(record.data());
///         let number = text.split(' ').next().unwrap_or_default().parse::<usize>();
///         items.fetch_add(number.map_err(|error| BatchFailure::at(record, error))?, Ordering::Relaxed);
///     }
///     Ok(())
/// };
///
/// // What fails stands alone in the end, and is tried once more; then others are told of it, and the source goes on behind it.
/// let options = EventSourceOptions::new().batch_records(10).retries(1);
/// let source = orders.consumer("count")?.event_source("worker-1", options)?;
/// let mut source = source.on_failure(failed.clone());
/// source.run(&count, || items.load(Ordering::Relaxed) == 6)?; // until then
/// source.close()?;
///
/// let told: Vec<_> = failed.records(RecordsStart::TrimHorizon)?.available().collect::<Result<_, _>>()?;
/// let bad = FailedBatch::from_bytes(told[0].data())?;
/// assert_eq!((told.len(), bad.batch_size), (1, 1));
/// assert_eq!(bad.records(&orders)?[0].data(), b"a pen");
/// # Ok(()) }
/// ```
pub struct EventSource {
    worker: Worker,
    policy: Policy,
    destination: Option<Arc<dyn FailureDestination>>,
    shards: BTreeMap<ShardId, SourceShard>,
    /// Shards that the worker got and that are not begun.
    starting: VecDeque<Checkpoint>,
    turns: u64,
    /// The lanes with a call under way, be it one of an earlier turn: its keys have no second one at a time.
    under_way: BTreeSet<(ShardId, u32)>,
    /// Those of them whose shard was lost since, with its hash keys: they may be another shard's by now.
    strays: BTreeMap<(ShardId, u32), HashKeyRange>,
    /// What went wrong beside something that was told first.
    untold: VecDeque<Error>,
}

/// What all lanes go by.
#[derive(Debug)]
struct Policy {
    options: EventSourceOptions,
    window_ms: Option<i64>,
    has_destination: bool,
    stream_id: StreamId,
    consumer: String,
    hash: PartitionHash,
}

impl Policy {
    fn is_too_old(&self, arrival: Timestamp, now: Timestamp) -> bool {
        let age_ms = u128::from(now.millis_since(arrival));
        self.options.max_record_age.is_some_and(|most| age_ms > most.as_millis())
    }
}

impl Consumer {
    /// An event source of this consumer. `worker` names it among those that share the shards, as [`worker`](Self::worker) does.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for options out of their ranges, and those of [`worker`](Self::worker).
    pub fn event_source(&self, worker: &str, options: EventSourceOptions) -> Result<EventSource> {
        options.check()?;
        let stream = self.stream().describe()?;
        self.forget_inheritances_of_finished()?;
        let of_worker = WorkerOptions::new().lease_time(options.lease_time).max_records(options.batch_records);
        Ok(EventSource {
            worker: self.worker(worker, of_worker)?,
            policy: Policy {
                window_ms: options.window_ms(),
                options,
                has_destination: false,
                stream_id: stream.stream_id,
                consumer: self.name().to_owned(),
                hash: stream.partition_hash,
            },
            destination: None,
            shards: BTreeMap::new(),
            starting: VecDeque::new(),
            turns: 0,
            under_way: BTreeSet::new(),
            strays: BTreeMap::new(),
            untold: VecDeque::new(),
        })
    }
}

impl EventSource {
    /// Names who is told of batches that are given up: a stream, a closure, or whatever implements [`FailureDestination`]. Without this the source stops at such a
    /// batch. `|_: &FailedBatch| Ok(())` passes over them.
    ///
    /// A stream should not be the one that the source reads.
    #[must_use]
    pub fn on_failure(mut self, destination: impl FailureDestination + 'static) -> Self {
        self.destination = Some(Arc::new(destination));
        self.policy.has_destination = true;
        self
    }

    /// The consumer whose records it handles.
    pub fn consumer(&self) -> &Consumer {
        self.worker.consumer()
    }

    /// The shards that it has, as far as it knows.
    pub fn shards(&self) -> Vec<ShardId> {
        self.worker.shards()
    }

    /// One round, in this thread: reads what there is, makes one call for each lane that has one to make now, and moves the checkpoints. Gives how many calls it made
    /// and shards it finished: after 0 there is nothing to do until time passes or records come.
    ///
    /// Leases are renewed between rounds only: one must not take longer than the [lease time](EventSourceOptions::lease_time), or others may handle the same. [`run`](Self::run) has no such bound.
    ///
    /// # Errors
    ///
    /// Those of [`run`](Self::run).
    pub fn step(&mut self, handler: &impl BatchHandler) -> Result<usize> {
        let (jobs, before) = self.advance()?;
        let calls = jobs.len();
        let mut outcome = Ok(());
        let destination = self.destination.clone();
        for job in jobs {
            let finished = job.run(handler, destination.as_deref());
            let completed = self.complete(finished);
            self.note(completed, &mut outcome);
        }
        let mut after = 0;
        let settled = self.settle().map(|finished| after = finished);
        self.note(settled, &mut outcome);
        outcome.map(|()| before + calls + after)
    }

    /// Gives all shards back, so that others need not wait. What was not checkpointed is given to them.
    ///
    /// # Errors
    ///
    /// Those of [`Worker::close`].
    pub fn close(self) -> Result<()> {
        self.worker.close()
    }

    // ---- a round ----

    /// Takes what the worker has, moves checkpoints, and gives the calls that are to be made; and how many shards it finished. What reading ran into is told once
    /// the calls are made that it does not concern.
    fn advance(&mut self) -> Result<(Vec<Job>, usize)> {
        if let Some(error) = self.untold.pop_front() {
            return Err(error);
        }
        self.resume();
        let read = self.take_work();
        let is_one_new = !self.starting.is_empty();
        let begun = self.begin_shards();
        let read = read.and_then(|()| if is_one_new { self.take_work() } else { Ok(()) });
        let mut finished = 0;
        let settled = self.settle().map(|shards| finished = shards);
        [read, begun, settled].into_iter().filter_map(Result::err).for_each(|error| self.keep(error));
        let jobs = self.jobs();
        let untold = if jobs.is_empty() && finished == 0 { self.untold.pop_front() } else { None };
        untold.map_or(Ok((jobs, finished)), Err)
    }

    /// Keeps an error for later: those that are said once, and one of the others, which come again as long as their cause lasts.
    fn keep(&mut self, error: Error) {
        let is_said_once = |error: &Error| matches!(error, Error::Lost { .. } | Error::Trimmed { .. });
        if is_said_once(&error) || self.untold.iter().all(is_said_once) {
            self.untold.push_back(error);
        }
    }

    /// Tells the first error; others are kept for the next round.
    fn note(&mut self, result: Result<()>, outcome: &mut Result<()>) {
        match result {
            Ok(()) | Err(Error::Closed) => {}
            Err(error) if outcome.is_ok() => *outcome = Err(error),
            Err(error) => self.keep(error),
        }
    }

    fn jobs(&mut self) -> Vec<Job> {
        let round = round(&self.worker, &self.policy);
        let mut jobs = Vec::new();
        for (shard_id, shard) in &mut self.shards {
            let (turn, range) = (shard.turn, shard.range);
            let has_stray = |lane| {
                let mut strays = self.strays.iter().filter(|((_, of_stray), _)| *of_stray == lane);
                strays.any(|(_, keys)| keys.intersection(range).is_some())
            };
            let is_taken = |lane| self.under_way.contains(&(*shard_id, lane)) || has_stray(lane);
            for (lane, call) in shard.calls(is_taken, round) {
                self.under_way.insert((*shard_id, lane));
                jobs.push(Job { place: Place { shard_id: *shard_id, turn, lane }, call });
            }
        }
        jobs
    }

    /// Lets the worker give what there is room for again.
    fn resume(&mut self) {
        for (shard_id, shard) in &mut self.shards {
            if shard.is_paused && shard.has_room(&self.policy) {
                self.worker.resume(*shard_id);
                shard.is_paused = false;
            }
        }
    }

    fn take_work(&mut self) -> Result<()> {
        let before = self.clock().now();
        let read = loop {
            match self.worker.poll() {
                Ok(Some(work)) => self.take(work),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        // Whatever that came to: one shard that cannot be read keeps no window of another open.
        let reached = self.reach(before.minus_millis(TUMBLING_WINDOW_GRACE_MS), read.is_ok());
        read.and(reached)
    }

    /// Of shards at their tails, that everything was read that arrived before a time, which was noted before they were looked at. Not of one that is closed by now: its
    /// children have the rest.
    fn reach(&mut self, time: Timestamp, were_looked_at: bool) -> Result<()> {
        let waits = |shard: &SourceShard| !shard.is_paused && shard.has_open_window();
        if !self.shards.values().any(waits) {
            return Ok(());
        }
        let stream = self.worker.consumer().stream();
        stream.listed_shards()?; // looks at what another process closed
        let open: BTreeSet<_> = stream.open_shards().into_iter().collect();
        for (shard_id, shard) in self.shards.iter_mut().filter(|(id, shard)| waits(shard) && open.contains(id)) {
            // Records that are behind are not counted where they cannot be looked at.
            let can_be_read = || stream.starting_position(*shard_id, RecordsStart::Latest).is_ok();
            let is_known = were_looked_at || can_be_read();
            if is_known && self.worker.records_behind(*shard_id) == Some(0) {
                shard.reach(time);
            }
        }
        Ok(())
    }

    fn take(&mut self, work: Work) {
        match work {
            Work::Started(checkpoint) => {
                self.forget(checkpoint.shard_id);
                self.worker.pause(checkpoint.shard_id); // until it is known what its parents left
                self.starting.push_back(checkpoint);
            }
            Work::Records { shard_id, records } => {
                let Some(shard) = self.shards.get_mut(&shard_id) else { return };
                shard.read(records, round(&self.worker, &self.policy));
                if !shard.has_room(&self.policy) {
                    self.worker.pause(shard_id);
                    shard.is_paused = true;
                }
            }
            Work::Ended(shard_id) => {
                if let Some(shard) = self.shards.get_mut(&shard_id) {
                    shard.end();
                }
            }
            Work::Lost(shard_id) => self.forget(shard_id),
        }
    }

    /// The shard is another's: what of it is under way comes to nothing, and is waited for by whoever has its keys.
    fn forget(&mut self, shard_id: ShardId) {
        if let Some(lost) = self.shards.remove(&shard_id) {
            let under_way = self.under_way.range((shard_id, 0)..=(shard_id, u32::MAX));
            self.strays.extend(under_way.map(|lane| (*lane, lost.range)));
        }
        self.starting.retain(|checkpoint| checkpoint.shard_id != shard_id);
    }

    /// Begins the shards that the worker got. One whose inheritance cannot be read keeps no other waiting.
    fn begin_shards(&mut self) -> Result<()> {
        let mut outcome = Ok(());
        for checkpoint in std::mem::take(&mut self.starting) {
            if let Err(error) = self.begin_shard(&checkpoint) {
                self.starting.push_back(checkpoint);
                outcome = outcome.and(Err(error));
            }
        }
        outcome
    }

    fn begin_shard(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        let shard_id = checkpoint.shard_id;
        let Some(range) = self.worker.hash_key_range(shard_id) else { return Ok(()) }; // lost since, as is told next
        let is_untouched = matches!(checkpoint.position, Position::TrimHorizon | Position::AtTimestamp(_));
        let inherited = if is_untouched {
            self.consumer().inheritance(shard_id)?
        } else {
            self.consumer().forget_inheritance(shard_id)?; // done, and left by a crash
            Vec::new()
        };
        self.turns += 1;
        let shard = SourceShard::new((shard_id, range), self.turns, inherited, &self.policy);
        self.shards.insert(shard_id, shard);
        self.worker.resume(shard_id);
        Ok(())
    }

    /// A call was made.
    fn complete(&mut self, finished: Finished) -> Result<()> {
        let Finished { place, outcome } = finished;
        self.under_way.remove(&(place.shard_id, place.lane));
        self.strays.remove(&(place.shard_id, place.lane));
        let round = round(&self.worker, &self.policy);
        let shard = self.shards.get_mut(&place.shard_id).filter(|shard| shard.turn == place.turn);
        shard.map_or(Ok(()), |shard| shard.complete(place.lane, outcome, round))
    }

    // ---- how far it is ----

    /// Stores the checkpoints that can move, and finishes shards that are done. How many that were. All are tried.
    fn settle(&mut self) -> Result<usize> {
        let (mut finished, mut outcome) = (0, Ok(()));
        for shard_id in self.shards.keys().copied().collect::<Vec<_>>() {
            match self.settle_shard(shard_id) {
                Ok(is_finished) => finished += usize::from(is_finished),
                Err(Error::LeaseLost { .. } | Error::ShardNotFound(_)) => self.forget(shard_id),
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        outcome.map(|()| finished)
    }

    fn settle_shard(&mut self, shard_id: ShardId) -> Result<bool> {
        let Some(shard) = self.shards.get_mut(&shard_id) else { return Ok(false) };
        if let Some(at) = shard.checkpoint() {
            self.worker.checkpoint_if_listed(shard_id, at)?;
            shard.stored(at);
        }
        if shard.has_inheritance && shard.is_through_inheritance() {
            self.worker.consumer().forget_inheritance(shard_id)?;
            shard.has_inheritance = false;
        }
        if shard.is_finished() { self.finish(shard_id) } else { Ok(false) }
    }

    /// Leaves the open windows to the children, durably, and only then lets them begin. Whether it came to that.
    fn finish(&mut self, shard_id: ShardId) -> Result<bool> {
        let Some(shard) = self.shards.get_mut(&shard_id) else { return Ok(false) };
        let shards = self.worker.consumer().stream().shards();
        if shards.iter().any(|known| known.shard_id == shard_id && known.state == ShardState::Open) {
            return Ok(false); // its end is seen, and its children are not listed yet
        }
        let children: Vec<_> = shards.iter().filter(|child| child.parents.contains(&shard_id)).collect();
        let ranges: Vec<_> = children.iter().map(|child| child.hash_key_range).collect();
        if shard.close_orphans(&ranges) {
            return Ok(false);
        }
        self.worker.expect_lease(shard_id)?;
        for child in children {
            let states = shard.states_of(child.hash_key_range);
            self.worker.consumer().bequeath(child.shard_id, shard_id, states)?;
        }
        self.worker.finish(shard_id)?;
        let finished = self.shards.remove(&shard_id);
        if finished.is_some_and(|shard| shard.has_inheritance) {
            self.worker.consumer().forget_inheritance(shard_id)?; // it was left to the children in turn
        }
        Ok(true)
    }

    fn clock(&self) -> &dyn Clock {
        self.worker.consumer().stream().clock()
    }
}

fn round<'a>(worker: &Worker, policy: &'a Policy) -> Round<'a> {
    let clock = worker.consumer().stream().clock();
    Round { wall: clock.now(), monotonic: clock.monotonic(), policy }
}

impl fmt::Debug for EventSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventSource")
            .field("worker", &self.worker.name())
            .field("consumer", &self.policy.consumer)
            .field("shards", &self.shards.keys())
            .finish_non_exhaustive()
    }
}
