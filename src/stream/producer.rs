//! Idempotent producers: batches that can be put again.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::put::taken;
use super::{PutBatchOptions, PutEntry, PutReceipt, Stream, StreamInner};
use crate::error::{Error, Result};
use crate::format::{ProducerEntry, ProducerPart, ProducerStamp};
use crate::limits::MAX_PRODUCERS;
use crate::segment::Visibility;
use crate::shard::{AppendEntry, Shard, ShardError, Stamped};
use crate::sync::atomic::AtomicU64;
use crate::sync::{Mistake, planted};
use crate::types::{Durability, HashKey, SequenceNumber, ShardId};

/// A producer whose batches can be put again without being appended again: after an error whose outcome is unknown, after `kill -9`, after a power cut.
///
/// Each batch has a number, chosen by the caller, that rises from batch to batch: a counter, or a position in what the records are made from. A
/// batch that comes again under the number of the producer's **last** batch is answered with the receipts of the first time; what of it is missing, because the
/// process died before all shards had their part, is appended then. Numbers may leave gaps; a lower one is refused.
///
/// ```
/// # fn main() -> anabranch::Result<()> {
/// # let directory = tempfile::tempdir().unwrap();
/// # let stream = anabranch::Stream::builder().shards(4).open(directory.path().join("clicks"))?;
/// use anabranch::PutEntry;
///
/// let batch = [PutEntry::new("user-1", b"GET /"), PutEntry::new("user-2", b"GET /cart")];
/// let mut producer = stream.producer("importer")?;
/// let receipts = producer.put_batch(7, &batch)?;
///
/// // The next life of the same program does not know whether batch 7 was put: it puts it again.
/// let mut producer = stream.producer("importer")?; // fences the handle above
/// assert_eq!(producer.last_batch()?, Some(7));
/// assert_eq!(producer.put_batch(7, &batch)?, receipts);
/// assert_eq!(stream.metrics().records_in, 2);
/// # Ok(())
/// # }
/// ```
///
/// # What is remembered, and how long
///
/// Each shard remembers the last batch of each producer, through every crash that its records survive, through roll, split and merge. It is remembered as long as its records are
/// kept: when retention has removed them, the batch is new again.
///
/// Of a batch that goes to several shards, a crash can leave the parts of some: put it again with the same records (their number is checked,
/// shard by shard), before any later batch. A batch that goes to one shard is there whole or not at all, so that
/// [`last_batch`](Self::last_batch) says how far a producer with one partition key came.
///
/// # One at a time
///
/// A handle puts one batch after the other; more threads take more producers. [`Stream::producer`] makes a new *epoch*, durably, and from then on no
/// earlier handle of that name appends anything, in whatever state it was: [`Error::ProducerFenced`].
pub struct Producer {
    stream: Stream,
    name: String,
    id: u64,
    epoch: u32,
    current_epoch: Arc<AtomicU64>,
}

/// A producer that a stream knows by name: see [`Stream::producers`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ProducerDescription {
    /// Its name.
    pub name: String,
    /// How often a handle of it was made. Only the last of them can append.
    pub epoch: u32,
    /// The number of the last batch that any shard remembers, whole or in part.
    pub last_batch: Option<u64>,
}

impl Stream {
    /// A handle of the producer of this name, 1 to 128 characters of `[a-zA-Z0-9_.-]`; the stream gets to know it if need be. When this returns,
    /// earlier handles of that name are fenced for good.
    ///
    /// It is a change of the manifest, some synchronous writes: make a handle for a life of the program, not for a batch.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for another name, or beyond [`MAX_PRODUCERS`] of them; [`Error::ReadOnly`]; [`Error::Io`], after which earlier handles may
    /// be fenced or not.
    pub fn producer(&self, name: impl AsRef<str>) -> Result<Producer> {
        let name = name.as_ref();
        Error::check_name("producer name", name)?;
        let (ProducerEntry { name, id, epoch }, current_epoch) = self.inner.raise_epoch(name)?;
        if !planted(Mistake::FenceUnwaited) {
            self.inner.pass_appends();
        }
        Ok(Producer { stream: self.clone(), name, id, epoch, current_epoch })
    }

    /// The producers that the stream knows, by name. On a read-only stream, as far as the other process' files say.
    pub fn producers(&self) -> Result<Vec<ProducerDescription>> {
        self.inner.not_closed()?;
        self.inner.look(|| {
            self.inner.refresh_all()?;
            let known = self.inner.manifest.lock().state().producers.clone();
            let describe = |ProducerEntry { name, id, epoch }| {
                let last_batch = self.inner.last_batch(id)?;
                Ok(ProducerDescription { name, epoch, last_batch })
            };
            known.into_iter().map(describe).collect()
        })
    }

    pub(crate) fn producer_names(&self) -> Result<Vec<String>> {
        self.inner.not_closed()?;
        let manifest = self.inner.manifest.lock();
        Ok(manifest.state().producers.iter().map(|producer| producer.name.clone()).collect())
    }

    /// Forgets a producer and its batches. A later one of the same name is another: batches that came before are new to it.
    ///
    /// # Errors
    ///
    /// [`Error::ProducerNotFound`].
    pub fn delete_producer(&self, name: impl AsRef<str>) -> Result<()> {
        let name = name.as_ref();
        self.inner.writable()?;
        let mut manifest = self.inner.manifest.lock();
        let place = manifest.state().producers.binary_search_by(|producer| producer.name.as_str().cmp(name));
        let place = place.map_err(|_| Error::ProducerNotFound(name.to_owned()))?;
        let mut gone = None;
        self.inner.change_locked(&mut manifest, |state| gone = Some(state.producers.remove(place)))?;
        if let Some(gone) = gone {
            self.inner.context.producers.remove(gone.id);
            self.inner.pass_appends();
        }
        Ok(())
    }
}

impl Producer {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which handle of its name this is, counted from 1.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The number of the producer's last batch, as far as any shard remembers it: it may be there in part, see [above](Self#what-is-remembered-and-how-long).
    /// It may not be durable yet; putting it again makes it so.
    pub fn last_batch(&self) -> Result<Option<u64>> {
        self.stream.inner.writable()?;
        self.stream.inner.last_batch(self.id)
    }

    /// Puts a batch of one record.
    ///
    /// # Errors
    ///
    /// As [`put_batch`](Self::put_batch).
    pub fn put(
        &mut self,
        number: u64,
        partition_key: impl AsRef<str>,
        data: impl AsRef<[u8]>,
    ) -> Result<PutReceipt> {
        let entry = PutEntry::new(partition_key.as_ref(), data.as_ref());
        self.put_batch(number, &[entry])?.pop().ok_or(Error::Closed)
    }

    /// Puts a batch at the stream's durability, or, if it is the last one come again, gives the receipts that it had. Else as
    /// [`Stream::put_batch`]. An empty batch leaves no trace.
    ///
    /// # Errors
    ///
    /// As [`Stream::put_batch`]; the batch can be put again after every one of them. Further, [`Error::ProducerFenced`];
    /// [`Error::BatchSuperseded`] for a number below the last one of a shard that the batch goes to; and [`Error::BatchMismatch`] where it
    /// came with other records the first time, of which those are appended whose keys' shards had not taken any.
    pub fn put_batch(&mut self, number: u64, entries: &[PutEntry<'_>]) -> Result<Vec<PutReceipt>> {
        self.put_batch_with(number, entries, PutBatchOptions::new())
    }

    /// Puts a batch at a stronger durability or with a fencing token; else as [`put_batch`](Self::put_batch).
    ///
    /// # Errors
    ///
    /// As [`put_batch`](Self::put_batch), [`Error::FencingTokenMismatch`], and [`Error::InvalidArgument`] for an
    /// [`expect_next`](PutBatchOptions::expect_next), which a batch that comes again could not meet.
    pub fn put_batch_with(
        &mut self,
        number: u64,
        entries: &[PutEntry<'_>],
        options: impl Into<PutBatchOptions>,
    ) -> Result<Vec<PutReceipt>> {
        let options = options.into();
        if options.expect_next.is_some() {
            return Err(Error::invalid(
                "expect_next",
                "the batches of a producer are told apart by their numbers",
            ));
        }
        let stamped = Stamped {
            producer: &self.name,
            stamp: ProducerStamp { producer_id: self.id, epoch: self.epoch, batch_number: number },
            current_epoch: &self.current_epoch,
            condition: options.condition(),
        };
        self.stream.inner.put_stamped(entries, options, stamped)
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("name", &self.name).field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl StreamInner {
    /// Makes the next epoch of a producer durable, and puts it in force: appends of earlier ones are over once [`pass_appends`](Self::pass_appends)
    /// returns.
    fn raise_epoch(&self, name: &str) -> Result<(ProducerEntry, Arc<AtomicU64>)> {
        self.writable()?;
        let mut manifest = self.manifest.lock();
        let producers = &manifest.state().producers;
        let place = producers.binary_search_by(|producer| producer.name.as_str().cmp(name));
        let entry = match place {
            Ok(place) => {
                let known = producers.get(place).ok_or(Error::Closed)?;
                let epoch = known.epoch.checked_add(1);
                let epoch = epoch.ok_or_else(|| Error::invalid("producer name", "it has used up its epochs"))?;
                ProducerEntry { epoch, ..known.clone() }
            }
            Err(_) if producers.len() >= MAX_PRODUCERS => {
                let reason = format!("the stream knows {MAX_PRODUCERS} producers, and cannot know more");
                return Err(Error::invalid("producer name", reason));
            }
            Err(_) => ProducerEntry { name: name.to_owned(), id: manifest.state().next_producer_id, epoch: 1 },
        };
        self.change_locked(&mut manifest, |state| {
            state.next_producer_id = state.next_producer_id.max(entry.id + 1);
            match place {
                Ok(place) => state.producers[place] = entry.clone(),
                Err(place) => state.producers.insert(place, entry.clone()),
            }
        })?;
        // With the manifest still locked: of several handles that are made at once, the last is in force, and none of a producer that is deleted.
        let current_epoch = self.context.producers.set(entry.id, entry.epoch);
        Ok((entry, current_epoch))
    }

    fn pass_appends(&self) {
        // A shard that is made later looks at the epoch later.
        for member in self.topology().shards.values() {
            member.shard.pass_appends();
        }
    }

    fn last_batch(&self, id: u64) -> Result<Option<u64>> {
        let topology = self.topology();
        let mut batches =
            topology.open.iter().map(|shard| shard.last_batch(id).map_err(Error::of_shard(shard.id())));
        batches.try_fold(None, |last, batch| Ok(last.max(batch?)))
    }

    fn put_stamped(
        &self,
        entries: &[PutEntry<'_>],
        options: PutBatchOptions,
        stamped: Stamped<'_>,
    ) -> Result<Vec<PutReceipt>> {
        self.writable()?;
        self.check_batch(entries)?;
        self.check_tokens(entries, options.fencing_token)?;
        let durability = self.effective(options.durability.unwrap_or(Durability::Buffered));
        self.admit(entries)?;
        let mut batch = StampedPut { entries, durability, stamped, places: vec![None; entries.len()] };
        let refused = self.distribute(entries, (0..entries.len()).collect(), |shard, indices| {
            Ok(taken(shard, batch.append(self, shard, indices))?.is_some())
        });
        let mut outcome = refused.into_iter().next().map_or(Ok(()), |(_, error)| Err(error));
        if durability == Durability::Synced {
            outcome = outcome.and(self.commit_places(&batch.places)); // also after an error: nothing stays staged for ever
        }
        outcome?;
        batch.receipts()
    }

    /// Waits until all that a batch has so far is durable. What closed shards hold is.
    fn commit_places(&self, places: &[Option<ProducerPart>]) -> Result<()> {
        let mut ends = BTreeMap::new();
        for part in places.iter().flatten() {
            let end = part.first.plus(part.count.into());
            ends.entry(part.shard_id)
                .and_modify(|known: &mut SequenceNumber| *known = end.max(*known))
                .or_insert(end);
        }
        let topology = self.topology();
        let commit = |(id, end): (ShardId, SequenceNumber)| match topology.shards.get(&id) {
            Some(member) if member.shard.next(Visibility::Durable) < end => {
                member.shard.commit(end).map_err(Error::of_shard(id))
            }
            _ => Ok(()),
        };
        ends.into_iter().map(commit).fold(Ok(()), Result::and) // all are tried
    }
}

/// A batch of a producer on its way.
struct StampedPut<'a> {
    entries: &'a [PutEntry<'a>],
    durability: Durability,
    stamped: Stamped<'a>,
    /// For each record the part of the batch that it is in, once its shard has it.
    places: Vec<Option<ProducerPart>>,
}

impl StampedPut<'_> {
    /// Lets a shard take its records.
    fn append(&mut self, inner: &StreamInner, shard: &Arc<Shard>, indices: &[usize]) -> Result<(), ShardError> {
        let key_of = |entry: &PutEntry<'_>| inner.hash_key(entry.partition_key, entry.explicit_hash_key);
        let entries = indices.iter().filter_map(|index| self.entries.get(*index));
        let entries: Vec<(HashKey, AppendEntry<'_>)> =
            entries.map(|entry| (key_of(entry), entry.into())).collect();
        let (found, appended) = shard.append_stamped(&entries, self.durability, self.stamped)?;
        let count = u32::try_from(found.iter().filter(|part| part.is_none()).count()).unwrap_or(u32::MAX);
        if appended.is_some_and(|appended| appended.opened_file) {
            inner.files.opened(shard);
        }
        for (index, found) in indices.iter().zip(found) {
            let new = appended.map(|appended| ProducerPart {
                producer_id: self.stamped.stamp.producer_id,
                batch_number: self.stamped.stamp.batch_number,
                shard_id: shard.id(),
                count,
                first: appended.first,
                arrival: appended.arrival,
                range: crate::types::HashKeyRange::FULL, // nobody looks at it
            });
            if let Some(place) = self.places.get_mut(*index) {
                *place = found.or(new);
            }
        }
        Ok(())
    }

    /// The receipts, in the order of the entries: the records of a part stand in its shard in that order.
    fn receipts(self) -> Result<Vec<PutReceipt>> {
        let mut parts: BTreeMap<(ShardId, SequenceNumber), u32> = BTreeMap::new();
        let mut receipts = Vec::with_capacity(self.entries.len());
        for part in self.places.iter().flatten() {
            let before = parts.entry((part.shard_id, part.first)).or_insert(0);
            receipts.push(PutReceipt {
                shard_id: part.shard_id,
                sequence_number: part.first.plus((*before).into()),
                arrival: part.arrival,
            });
            *before += 1;
        }
        for part in self.places.iter().flatten() {
            let found = parts.get(&(part.shard_id, part.first)).copied().unwrap_or(0);
            if found != part.count {
                let (producer, number) = (self.stamped.producer.to_owned(), part.batch_number);
                return Err(Error::BatchMismatch { producer, number, expected: part.count, found });
            }
        }
        Ok(receipts)
    }
}
