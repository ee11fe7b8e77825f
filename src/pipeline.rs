//! Exactly once from stream to stream.
//!
//! A [`Pipeline`] reads a consumer's shards, makes records of records, and appends those to another stream. Three steps a batch, each durable before the next:
//!
//! 1. The input is read, at most so many records of one shard.
//! 2. What is made of it is put as one batch of a [`Producer`](crate::Producer) that belongs to the shard. Its number is the sequence number of the last input record.
//! 3. That record is checkpointed.
//!
//! Killed between the second and the third, the next life finds the checkpoint below the number of the producer's last batch: so the input of that batch is everything from the
//! one to the other. It is read again, and what is made of it, which has to be the same, is put again under the same number: what is there is not
//! appended again, what is missing is. No other journal is needed. The checkpoint is durable before the next batch is put, so that there is never more
//! than one batch to repeat. Where retention or damage took some of its input meanwhile, what is made of the rest is there once all the same.
//!
//! Only durable input is read: what a power cut could take back is not made anything of.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use crate::consumer::{Consumer, Lease, Position};
use crate::error::{Error, Result};
use crate::segment::Record;
use crate::stream::{EntryBuffer, Producer, PutEntry, RecordsStart, ShardIterator, ShardSummary, Stream};
use crate::types::{Durability, HashKey, SequenceNumber, ShardId};

/// Most input records of a batch, unless [`Pipeline::batch_records`] says otherwise.
const DEFAULT_BATCH_RECORDS: usize = 500;

/// Reads what a consumer has not done, makes records of it, and appends them to another stream: exactly once, wherever it is killed, on
/// either side of a power cut, through splits and merges of both streams.
///
/// What is made of a record may depend on nothing but the record. Per partition key, output is in the order of the input, if the keys that are put
/// depend on the input's key.
///
/// ```
/// # fn main() -> anabranch::Result<()> {
/// # let directory = tempfile::tempdir().unwrap();
/// # let path = directory.path().to_path_buf();
/// use anabranch::{Pipeline, RecordsStart, Stream};
///
/// let clicks = Stream::builder().shards(2).open(path.join("clicks"))?;
/// let carts = Stream::builder().open(path.join("carts"))?;
/// clicks.put("user-1", b"GET /cart")?;
/// clicks.put("user-2", b"GET /about")?;
///
/// let mut pipeline = Pipeline::new(&clicks.consumer("carts")?, &carts, "worker-1")?;
/// while pipeline.step(|record, output| {
///     if record.data().ends_with(b"/cart") {
///         output.put(record.partition_key(), b"looked");
///     }
/// })? > 0 {}
/// assert_eq!(carts.records(RecordsStart::TrimHorizon)?.available().count(), 1);
/// # Ok(())
/// # }
/// ```
///
/// # Several of them
///
/// A pipeline takes the shards that it reads from whoever had them: of two on one consumer, the one that came first gets
/// [`Error::LeaseLost`] or [`Error::ProducerFenced`], whatever it was doing, and nothing is put twice by it. It can go on: then it takes them back.
///
/// # What it leaves
///
/// In the output, a producer named `CONSUMER.SHARD.STREAM` for each input shard that is not finished, the input told by the first half of its id. To make everything anew from the input that is left, use
/// [`restart`](Self::restart); resetting the consumer alone makes the producers refuse what they have put before.
pub struct Pipeline {
    consumer: Consumer,
    output: Stream,
    worker: String,
    batch_records: usize,
    lanes: BTreeMap<ShardId, Lane>,
    /// The shards that are known to be done to their end.
    finished: BTreeSet<ShardId>,
    /// What is said once, and was met beside something that was told first.
    untold: VecDeque<Error>,
    /// The shards of which it was said that retention took the front, and what was said to be the earliest record left.
    told: BTreeMap<ShardId, SequenceNumber>,
}

/// One input shard.
struct Lane {
    lease: Lease,
    iterator: ShardIterator,
    producer: Producer,
    /// Records that were read and are in no batch yet: they come before those of the iterator.
    ahead: Vec<Record>,
    /// The last input record of a batch that was put and not checkpointed.
    repeats_to: Option<SequenceNumber>,
    /// Whether others of that batch may be gone: expired before the lane was begun, or lost.
    may_lack: bool,
}

/// What is made of a batch of records.
#[derive(Debug, Default)]
pub struct Outputs(EntryBuffer);

impl Outputs {
    /// Has a record appended.
    pub fn put(&mut self, partition_key: impl AsRef<str>, data: impl AsRef<[u8]>) {
        self.0.push(&PutEntry::new(partition_key.as_ref(), data.as_ref()));
    }

    /// Has a record appended that is routed by a hash key of its own.
    pub fn put_at(&mut self, hash_key: HashKey, partition_key: impl AsRef<str>, data: impl AsRef<[u8]>) {
        let entry = PutEntry::new(partition_key.as_ref(), data.as_ref());
        self.0.push(&PutEntry { explicit_hash_key: Some(hash_key), ..entry });
    }
}

impl Pipeline {
    /// A pipeline from a consumer's stream to `output`, which must be open for writing. `worker` names it where leases are shown.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for a worker's name that a consumer could not have, and for a consumer whose name is too long to
    /// name producers by: more than 98 characters. [`Error::ReadOnly`].
    pub fn new(consumer: &Consumer, output: &Stream, worker: &str) -> Result<Self> {
        if output.is_read_only() {
            return Err(Error::ReadOnly);
        }
        Error::check_name("worker name", worker)?;
        Error::check_name("producer name of the pipeline", &producer_name(consumer, ShardId::default()))?;
        Ok(Self {
            consumer: consumer.clone(),
            output: output.clone(),
            worker: worker.to_owned(),
            batch_records: DEFAULT_BATCH_RECORDS,
            lanes: BTreeMap::new(),
            finished: BTreeSet::new(),
            untold: VecDeque::new(),
            told: BTreeMap::new(),
        })
    }

    /// Most input records of a batch: 500 unless this is called, at least 1. Two durable writes a batch are what a pipeline costs.
    #[must_use]
    pub fn batch_records(mut self, records: usize) -> Self {
        self.batch_records = records.max(1);
        self
    }

    /// Handles one batch of every shard that has records: gives how many input records were done, durably, output included. 0 at the tails: look
    /// again later, or wait as for any reader.
    ///
    /// # Errors
    ///
    /// Those of reading, of [`Producer::put_batch`] and of [`Lease::checkpoint`]: the first, once all shards had their batch. After any of them, calling it again goes on where
    /// it has to: nothing is skipped and nothing put twice. [`Error::BatchTooLarge`] only where what was made of one record is. [`Error::Lost`] is said
    /// once, and goes on behind what is lost; so is [`Error::Trimmed`] where retention took the front of a shard whose parent is done, and [`Error::ShardNotFound`] of a shard that
    /// expired before all of it was done. Each of these is told: by a call of its own, which does nothing else, where another error came first.
    pub fn step(&mut self, mut make: impl FnMut(&Record, &mut Outputs)) -> Result<u64> {
        if let Some(error) = self.untold.pop_front() {
            return Err(error);
        }
        loop {
            let mut met = Vec::new();
            self.begin_lanes(&mut met); // one that cannot be begun keeps no other waiting
            let (done, ended) = self.step_lanes(&mut make, &mut met);
            self.tell(met)?;
            if done > 0 || !ended {
                return Ok(done);
            }
        }
    }

    /// Tells the first error. Of the others, those are kept that are said once; the rest comes again as long as its cause lasts.
    fn tell(&mut self, met: Vec<Error>) -> Result<()> {
        let mut first = None;
        for error in met {
            let is_said_once = match &error {
                Error::Trimmed { shard_id, earliest, .. } => {
                    self.told.insert(*shard_id, *earliest) != Some(*earliest)
                }
                other => matches!(other, Error::Lost { .. } | Error::ShardNotFound(_)),
            };
            match first {
                None => first = Some(error),
                Some(_) if is_said_once => self.untold.push_back(error),
                Some(_) => {}
            }
        }
        first.map_or(Ok(()), Err)
    }

    /// A batch of every shard that was begun; gives the records, and whether a shard ended, so that others can begin. All are tried.
    fn step_lanes(&mut self, make: &mut impl FnMut(&Record, &mut Outputs), met: &mut Vec<Error>) -> (u64, bool) {
        let (mut done, mut ended) = (0, false);
        for shard_id in self.lanes.keys().copied().collect::<Vec<_>>() {
            match self.step_lane(shard_id, make) {
                Ok(Some(records)) => done += records,
                Ok(None) => ended = true,
                Err(error) => met.push(error),
            }
        }
        (done, ended)
    }

    /// A batch of one shard; nothing where it ended. After an error it is begun again, where it has to be.
    fn step_lane(
        &mut self,
        shard_id: ShardId,
        make: &mut impl FnMut(&Record, &mut Outputs),
    ) -> Result<Option<u64>> {
        let Some(mut lane) = self.lanes.remove(&shard_id) else { return Ok(Some(0)) };
        let records = match lane.read(self.batch_records) {
            Err(error @ (Error::ThroughputExceeded { .. } | Error::Lost { .. })) => {
                self.lanes.insert(shard_id, lane); // it goes on where it stands
                return Err(error);
            }
            read => read?, // an error takes no record along
        };
        let records = lane.handle(records, &self.consumer, make)?;
        if records == 0 && lane.iterator.end_of_shard().is_some() {
            return match lane.lease.checkpoint_end_at(lane.iterator.next_sequence_number()) {
                Ok(()) | Err(Error::ShardNotFound(_)) => Ok(None), // all of it was done
                Err(error) => Err(error),
            };
        }
        self.lanes.insert(shard_id, lane);
        Ok(Some(records))
    }

    /// Puts the consumer at a place of its own choice, and lets the output forget what was put: from there on everything is made anew. Not atomic: a
    /// crash in the middle leaves it to be called again, before anything else.
    ///
    /// # Errors
    ///
    /// Those of [`Consumer::reset`] and [`Stream::delete_producer`].
    pub fn restart(&mut self, start: RecordsStart) -> Result<()> {
        self.lanes.clear();
        self.finished.clear();
        self.told.clear();
        for checkpoint in self.consumer.checkpoints()? {
            self.forget_producer(checkpoint.shard_id)?;
        }
        self.consumer.reset(start)
    }

    /// Begins the shards that are not finished, and whose parents are; all are tried. The consumer's file is looked at only where there may be one.
    fn begin_lanes(&mut self, met: &mut Vec<Error>) {
        let shards = self.consumer.stream().shards();
        self.drop_gone(&shards, met);
        let is_known = |id: &ShardId| self.lanes.contains_key(id) || self.finished.contains(id);
        let waits = |shard: &ShardSummary| shard.parents.iter().any(|parent| self.lanes.contains_key(parent));
        if shards.iter().all(|shard| is_known(&shard.shard_id) || waits(shard)) {
            return;
        }
        let finished = match self.consumer.finished() {
            Ok(finished) => finished,
            Err(error) => return met.push(error),
        };
        let ids = shards.iter().map(|shard| shard.shard_id);
        let unfinished: BTreeSet<_> = ids.filter(|shard_id| !finished.contains(shard_id)).collect();
        met.extend(self.forget_finished(finished).err());
        met.extend(self.forget_gone().err());
        for shard in shards {
            let waits = shard.parents.iter().any(|parent| unfinished.contains(parent));
            if !unfinished.contains(&shard.shard_id) || waits || self.lanes.contains_key(&shard.shard_id) {
                continue;
            }
            match self.begin_lane(shard.shard_id, met) {
                Ok(lane) => drop(self.lanes.insert(shard.shard_id, lane)),
                Err(error) => met.push(error),
            }
        }
    }

    /// Lets go of shards that expired: they keep nobody waiting, and their rest would come behind what follows them. That there was a rest is told.
    fn drop_gone(&mut self, shards: &[ShardSummary], met: &mut Vec<Error>) {
        self.lanes.retain(|shard_id, lane| {
            let is_listed = shards.binary_search_by_key(shard_id, |shard| shard.shard_id).is_ok();
            if !is_listed && !lane.is_through() {
                met.push(Error::ShardNotFound(*shard_id));
            }
            is_listed
        });
    }

    /// In this order: behind the first, no other worker's checkpoint counts; behind the second, no other's put; only then is it certain how far they came.
    fn begin_lane(&self, shard_id: ShardId, met: &mut Vec<Error>) -> Result<Lane> {
        let lease = self.consumer.take(shard_id, &self.worker)?;
        let producer = self.output.producer(producer_name(&self.consumer, shard_id))?;
        let following = match self.consumer.following_iterator(shard_id, self.told.get(&shard_id).copied()) {
            Err(error @ Error::Trimmed { .. }) if !self.consumer.is_begun(&[shard_id])? => {
                met.push(error);
                lease.iterator() // at once: what is the earliest now may be gone at the next attempt
            }
            other => other,
        };
        let mut iterator = following?.include_unsynced(false);
        let last = producer.last_batch()?.map(SequenceNumber::new);
        let repeats_to = last.filter(|last| *last >= iterator.next_sequence_number());
        if repeats_to.is_some() {
            iterator = iterator.uncounted(); // it was read before, and paid for where that is asked for
        }
        let may_lack = !matches!(self.consumer.checkpoint(shard_id)?.position, Position::After(_));
        Ok(Lane { lease, iterator, producer, ahead: Vec::new(), repeats_to, may_lack })
    }

    /// Forgets the producers of shards that are finished: each once, those too that an earlier life finished and did not come to forget.
    fn forget_finished(&mut self, finished: BTreeSet<ShardId>) -> Result<()> {
        if !finished.is_subset(&self.finished) {
            self.consumer.sync()?; // before the producer is forgotten, which could repeat its batch
        }
        for shard_id in &finished {
            if !self.finished.contains(shard_id) {
                self.forget_producer(*shard_id)?;
                self.finished.insert(*shard_id);
            }
        }
        self.finished = finished; // and no others: of a split that a crash undid, the parent goes on
        Ok(())
    }

    /// Forgets the producers of shards that expired before they were done, or before a life came to forget them: there is nothing left to be repeated.
    fn forget_gone(&self) -> Result<()> {
        let is_gone = self.consumer.is_gone()?;
        for name in self.output.producer_names()? {
            match shard_of_producer(&self.consumer, &name) {
                Some(shard_id) if is_gone(shard_id) && !self.lanes.contains_key(&shard_id) => {
                    self.forget_producer(shard_id)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn forget_producer(&self, shard_id: ShardId) -> Result<()> {
        match self.output.delete_producer(producer_name(&self.consumer, shard_id)) {
            Err(Error::ProducerNotFound(_)) => Ok(()),
            other => other,
        }
    }
}

impl Lane {
    /// Handles a batch, or as much of it as fits; gives how many records that were.
    fn handle(
        &mut self,
        mut records: Vec<Record>,
        consumer: &Consumer,
        make: &mut impl FnMut(&Record, &mut Outputs),
    ) -> Result<u64> {
        while !records.is_empty() {
            let mut outputs = Outputs::default();
            for record in &records {
                make(record, &mut outputs);
            }
            match self.put(&records, &outputs) {
                // Nothing of it was appended: half of it may fit.
                Err(Error::BatchTooLarge { .. }) if records.len() > 1 && self.repeats_to.is_none() => {
                    self.ahead.splice(0..0, records.split_off(records.len() / 2));
                }
                outcome => {
                    outcome?;
                    consumer.sync()?; // the next batch is put on the word of this checkpoint
                    self.end_repeat();
                    break;
                }
            }
        }
        Ok(records.len() as u64)
    }

    /// The records of the next batch: those of the one to repeat, all of them, or as many as there are.
    fn read(&mut self, batch_records: usize) -> Result<Vec<Record>> {
        if let Some(last) = self.repeats_to {
            if !self.read_to(last)? {
                return Ok(Vec::new()); // the rest is there, but this process does not see it yet
            }
            if !self.ahead.is_empty() {
                return Ok(std::mem::take(&mut self.ahead));
            }
            self.end_repeat(); // nothing is left of it
        }
        let ahead = self.ahead.len().min(batch_records);
        if ahead > 0 {
            return Ok(self.ahead.drain(..ahead).collect());
        }
        self.iterator.next_records(batch_records)
    }

    /// Reads the batch to repeat, on from where the lane was begun: what expires meanwhile is part of it. Whether all of it was read.
    fn read_to(&mut self, last: SequenceNumber) -> Result<bool> {
        while self.iterator.next_sequence_number() <= last {
            match self.iterator.available().next() {
                Some(Ok(record)) => self.ahead.push(record),
                Some(Err(error)) => {
                    self.may_lack |= matches!(error, Error::Lost { .. }); // said once, and passed over
                    return Err(error);
                }
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Whether all of the shard was done.
    fn is_through(&self) -> bool {
        self.ahead.is_empty() && self.repeats_to.is_none() && self.iterator.end_of_shard().is_some()
    }

    fn put(&mut self, records: &[Record], outputs: &Outputs) -> Result<()> {
        let Some(last) = records.last() else { return Ok(()) };
        let here = last.sequence_number();
        let number = self.repeats_to.map_or(here, |there| there.max(here)); // the last one of a batch to repeat may be lost
        // Whatever the stream's level: a checkpoint must not outlive what was made.
        match self.producer.put_batch_with(number.get(), &outputs.0.entries(), Durability::Synced) {
            // It was made of more. What is made of the rest is there, once.
            Err(Error::BatchMismatch { expected, found, .. })
                if self.repeats_to.is_some() && self.may_lack && found < expected => {}
            put => drop(put?),
        }
        self.lease.checkpoint(last)
    }

    /// Goes on behind the batch that was repeated, if one was.
    fn end_repeat(&mut self) {
        if self.repeats_to.take().is_some() {
            self.iterator.count_again();
        }
    }
}

/// Another for each input, consumer and shard: of two that shared one, each would take the other's batches for its own.
fn producer_name(consumer: &Consumer, shard_id: ShardId) -> String {
    let input = consumer.stream().stream_id().get() >> 64;
    format!("{}.{:012}.{input:016x}", consumer.name(), shard_id.get())
}

/// The shard, if the name is that of one of this consumer's producers.
fn shard_of_producer(consumer: &Consumer, name: &str) -> Option<ShardId> {
    let shard_id = name.strip_prefix(consumer.name())?.split('.').nth(1)?.parse().ok().map(ShardId::new)?;
    (producer_name(consumer, shard_id) == name).then_some(shard_id)
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline")
            .field("consumer", &self.consumer.name())
            .field("worker", &self.worker)
            .field("shards", &self.lanes.keys())
            .finish_non_exhaustive()
    }
}
