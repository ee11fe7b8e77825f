//! Writing.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Stream, StreamInner};
use crate::error::{Error, Result};
use crate::limits::MAX_PARTITION_KEY_CHARS;
use crate::routing;
use crate::shard::{AppendEntry, Condition, Shard, ShardError};
use crate::types::{Durability, HashKey, SequenceNumber, ShardId, Timestamp};

/// Where a record went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PutReceipt {
    /// The shard that took it.
    pub shard_id: ShardId,
    /// Its place in the shard.
    pub sequence_number: SequenceNumber,
    /// Its arrival time.
    pub arrival: Timestamp,
}

/// How one record is put: see [`Stream::put_with`].
///
/// ```
/// use anabranch::{Durability, HashKey, PutOptions};
/// let options = PutOptions::new().explicit_hash_key(HashKey::new(7)).durability(Durability::Synced);
/// # let _ = options;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub struct PutOptions {
    /// Routes the record by this hash key instead of its partition key's. The partition key is stored all the same.
    pub explicit_hash_key: Option<HashKey>,
    /// The durability of this put, where it is stronger than the stream's. A weaker one changes nothing.
    pub durability: Option<Durability>,
    /// Appends only if this is the next sequence number of the shard that the key routes to; else
    /// [`Error::SequenceNumberMismatch`] says what it is. The record that won may not be durable, and so not visible, yet.
    pub expect_next: Option<SequenceNumber>,
    /// Appends only if this is the fencing token of the shard that the key routes to, as [`Stream::fence_shard`] set it; else
    /// [`Error::FencingTokenMismatch`]. A put without a token is not fenced.
    pub fencing_token: Option<u64>,
}

impl PutOptions {
    /// Nothing special.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`explicit_hash_key`](Self::explicit_hash_key).
    #[must_use]
    pub fn explicit_hash_key(mut self, key: HashKey) -> Self {
        self.explicit_hash_key = Some(key);
        self
    }

    /// Sets [`durability`](Self::durability).
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// Sets [`expect_next`](Self::expect_next).
    #[must_use]
    pub fn expect_next(mut self, next: SequenceNumber) -> Self {
        self.expect_next = Some(next);
        self
    }

    /// Sets [`fencing_token`](Self::fencing_token).
    #[must_use]
    pub fn fencing_token(mut self, token: u64) -> Self {
        self.fencing_token = Some(token);
        self
    }
}

/// How a batch is put: see [`Stream::put_batch_with`]. A [`Durability`] alone is one, too.
///
/// ```
/// use anabranch::{Durability, PutBatchOptions};
/// let options = PutBatchOptions::new().durability(Durability::Synced).fencing_token(7);
/// # let _ = options;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub struct PutBatchOptions {
    /// The durability of this batch, where it is stronger than the stream's. A weaker one changes nothing.
    pub durability: Option<Durability>,
    /// Appends only if this is the next sequence number of the shard that the batch goes to: all of it to the same one, or else it is refused.
    pub expect_next: Option<SequenceNumber>,
    /// Each shard appends its part only if this is its fencing token, and none does if it is not that of all when the batch comes; see
    /// [`PutOptions::fencing_token`].
    pub fencing_token: Option<u64>,
}

impl PutBatchOptions {
    /// Nothing special.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`durability`](Self::durability).
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// Sets [`expect_next`](Self::expect_next).
    #[must_use]
    pub fn expect_next(mut self, next: SequenceNumber) -> Self {
        self.expect_next = Some(next);
        self
    }

    /// Sets [`fencing_token`](Self::fencing_token).
    #[must_use]
    pub fn fencing_token(mut self, token: u64) -> Self {
        self.fencing_token = Some(token);
        self
    }

    pub(super) fn condition(&self) -> Condition {
        Condition { expect_next: self.expect_next, fencing_token: self.fencing_token }
    }
}

impl From<Durability> for PutBatchOptions {
    fn from(durability: Durability) -> Self {
        Self::new().durability(durability)
    }
}

/// One record of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PutEntry<'a> {
    /// The key to route it by: 1 to 256 characters.
    pub partition_key: &'a str,
    /// Its bytes.
    pub data: &'a [u8],
    /// Routes it by this hash key instead of its partition key's.
    pub explicit_hash_key: Option<HashKey>,
}

impl<'a> PutEntry<'a> {
    /// A record that is routed by its partition key.
    pub const fn new(partition_key: &'a str, data: &'a [u8]) -> Self {
        Self { partition_key, data, explicit_hash_key: None }
    }
}

impl<'a> From<&PutEntry<'a>> for AppendEntry<'a> {
    fn from(entry: &PutEntry<'a>) -> Self {
        Self { partition_key: entry.partition_key, data: entry.data, explicit_hash_key: entry.explicit_hash_key }
    }
}

impl Stream {
    /// Puts a record under a partition key, at the stream's durability.
    ///
    /// On a `Synced` stream (the default) the record survives power loss when this returns; puts of other threads to the
    /// same shard share the sync. `data` may be empty.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for a key of no or more than 256 characters, [`Error::DataTooLarge`]: nothing was written.
    /// [`Error::Io`] of kind [`StorageFull`](crate::ErrorKind::StorageFull) when no new segment could be
    /// made: nothing was written, and the shard goes on after room is made. [`Error::Io`] of another kind, as with too many open files: the shard goes on, and the record
    /// may be there and be durable with the next commit. [`Error::ShardFailed`] after a failed write or sync: the outcome of this put is unknown.
    pub fn put(&self, partition_key: impl AsRef<str>, data: impl AsRef<[u8]>) -> Result<PutReceipt> {
        self.put_with(partition_key, data, PutOptions::default())
    }

    /// Puts a record with an explicit hash key, a stronger durability, or a condition.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put), and [`Error::SequenceNumberMismatch`] or [`Error::FencingTokenMismatch`] when a condition does not hold: nothing was written.
    pub fn put_with(
        &self,
        partition_key: impl AsRef<str>,
        data: impl AsRef<[u8]>,
        options: PutOptions,
    ) -> Result<PutReceipt> {
        let entry = PutEntry {
            partition_key: partition_key.as_ref(),
            data: data.as_ref(),
            explicit_hash_key: options.explicit_hash_key,
        };
        self.inner.put(&entry, options)
    }

    /// Puts many records at the stream's durability: each shard is taken once and synced once.
    ///
    /// The batch is validated whole before anything is written. After a crash, the records that went to one shard are there all or not at all;
    /// between shards there is no such tie. Receipts come in the order of the entries, and within a shard the
    /// numbers rise in that order. An empty batch gives no receipts.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put), and [`Error::BatchTooLarge`]. After [`Error::Io`], [`Error::ShardFailed`] and [`Error::Closed`], some shards may
    /// have taken their part.
    pub fn put_batch(&self, entries: &[PutEntry<'_>]) -> Result<Vec<PutReceipt>> {
        self.put_batch_with(entries, PutBatchOptions::new())
    }

    /// Puts many records at a stronger durability, or with a condition; else as [`put_batch`](Self::put_batch).
    ///
    /// # Errors
    ///
    /// As [`put_batch`](Self::put_batch), [`Error::SequenceNumberMismatch`] and [`Error::FencingTokenMismatch`] where a condition does not hold, and
    /// [`Error::InvalidArgument`] for an [`expect_next`](PutBatchOptions::expect_next) with records for more than one shard. The tokens of all shards are looked at
    /// before any of them takes its part; where one is fenced between the two, it takes nothing, and others may have taken their part.
    pub fn put_batch_with(
        &self,
        entries: &[PutEntry<'_>],
        options: impl Into<PutBatchOptions>,
    ) -> Result<Vec<PutReceipt>> {
        self.inner.put_batch(entries, options.into())
    }

    /// Sets the fencing token of an open shard, durably: from when this returns, puts that show another token
    /// ([`PutOptions::fencing_token`]) are refused, and those that show none are not concerned. A split or a merge hands it on, a merge the higher one.
    ///
    /// Whoever takes a shard over fences it with a token above his predecessor's, and shows it with every put: then nothing of
    /// the predecessor, however late it comes, gets between. Setting the same token again is fine.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for 0; [`Error::FencingTokenMismatch`] for one below the shard's; [`Error::ShardNotFound`], [`Error::ShardClosed`];
    /// [`Error::Io`], after which the token may be in force in the next opening.
    pub fn fence_shard(&self, shard_id: ShardId, token: u64) -> Result<()> {
        self.inner.fence_shard(shard_id, token)
    }

    /// The fencing token of a shard; 0 where none was ever set.
    pub fn fencing_token(&self, shard_id: ShardId) -> Result<u64> {
        self.inner.not_forked()?;
        let manifest = self.inner.manifest.lock();
        let entry = manifest.state().shard(shard_id).ok_or(Error::ShardNotFound(shard_id))?;
        Ok(entry.fencing_token)
    }

    /// The hash key that this stream computes for a partition key.
    pub fn hash_key(&self, partition_key: impl AsRef<str>) -> Result<HashKey> {
        let partition_key = partition_key.as_ref();
        check_key(partition_key)?;
        Ok(self.inner.hash_key(partition_key, None))
    }

    /// The open shard that takes a partition key now. A reshard may change it at any time.
    pub fn route(&self, partition_key: impl AsRef<str>) -> Result<ShardId> {
        let key = self.hash_key(partition_key)?;
        Ok(self.inner.topology().routes.shard_of(key))
    }
}

impl StreamInner {
    fn put(&self, entry: &PutEntry<'_>, options: PutOptions) -> Result<PutReceipt> {
        self.append_one(entry, options, |shard, next| shard.commit(next).map_err(Error::of_shard(shard.id())))
    }

    /// Appends a record; where it has to be durable, `settle` sees to the commit up to the number behind it.
    #[inline]
    pub(super) fn append_one(
        &self,
        entry: &PutEntry<'_>,
        options: PutOptions,
        settle: impl FnOnce(&Arc<Shard>, SequenceNumber) -> Result<()>,
    ) -> Result<PutReceipt> {
        self.writable()?;
        self.check(entry)?;
        let durability = self.effective(options.durability.unwrap_or(Durability::Buffered));
        let key = self.hash_key(entry.partition_key, entry.explicit_hash_key);
        let condition = Condition { expect_next: options.expect_next, fencing_token: options.fencing_token };
        let mut is_admitted = false;
        loop {
            let topology = self.topology.load();
            let Some(shard) = topology.shard_of(key) else { return Err(Error::Closed) };
            if !is_admitted && self.quotas.are_on() {
                self.admit_put(shard.id(), entry)?;
                is_admitted = true; // also where a reshard comes between
            }
            let appended = match shard.append(std::iter::once(entry.into()), durability, condition) {
                Err(ShardError::NotOpen) => {
                    self.wait_for_reshard()?;
                    continue;
                }
                other => other.map_err(Error::of_shard(shard.id()))?,
            };
            if appended.opened_file {
                self.files.opened(shard);
            }
            if durability == Durability::Synced {
                settle(shard, appended.first.next())?;
            }
            return Ok(PutReceipt {
                shard_id: shard.id(),
                sequence_number: appended.first,
                arrival: appended.arrival,
            });
        }
    }

    fn put_batch(&self, entries: &[PutEntry<'_>], options: PutBatchOptions) -> Result<Vec<PutReceipt>> {
        let (mut outcome, waits) = self.append_batch(entries, options);
        // Also after an error elsewhere: what was appended must not stay staged for ever.
        for (shard, next) in waits {
            if let Err(error) = shard.commit(next) {
                outcome = outcome.and(Err(Error::of_shard(shard.id())(error)));
            }
        }
        outcome
    }

    /// Appends a batch; gives the commits to wait for, also where a part of it failed.
    pub(super) fn append_batch(
        &self,
        entries: &[PutEntry<'_>],
        options: PutBatchOptions,
    ) -> (Result<Vec<PutReceipt>>, Vec<CommitWait>) {
        let mut waits = Vec::new();
        let outcome = self.append_parts(entries, options, &mut waits);
        if self.effective(options.durability.unwrap_or(Durability::Buffered)) == Durability::Buffered {
            waits.clear();
        }
        (outcome, waits)
    }

    fn append_parts(
        &self,
        entries: &[PutEntry<'_>],
        options: PutBatchOptions,
        appended: &mut Vec<CommitWait>,
    ) -> Result<Vec<PutReceipt>> {
        self.writable()?;
        self.check_batch(entries)?;
        let durability = self.effective(options.durability.unwrap_or(Durability::Buffered));
        let condition = options.condition();
        self.check_tokens(entries, options.fencing_token)?;
        self.admit(entries)?;
        let mut receipts = vec![None; entries.len()];
        let refused = self.distribute(entries, (0..entries.len()).collect(), |shard, indices| {
            if condition.expect_next.is_some() && indices.len() < entries.len() {
                return Err(Error::invalid("expect_next", "the batch goes to more than one shard"));
            }
            let next = self.append_group(shard, entries, indices, (durability, condition), &mut receipts)?;
            appended.extend(next.map(|next| (Arc::clone(shard), next)));
            Ok(next.is_some())
        });
        match refused.into_iter().next() {
            Some((_, error)) => Err(error),
            None => Ok(receipts.into_iter().flatten().collect()),
        }
    }

    /// Refuses a batch that one of its shards would refuse, before another one takes its part.
    pub(super) fn check_tokens(&self, entries: &[PutEntry<'_>], token: Option<u64>) -> Result<()> {
        let Some(token) = token else { return Ok(()) };
        let indices: Vec<_> = (0..entries.len()).collect();
        let mut groups = self.group(entries, &indices)?.into_values();
        groups.try_for_each(|(shard, _)| shard.check_token(token).map_err(Error::of_shard(shard.id())))
    }

    /// Has each shard take those of the entries at `waiting` that it takes now, through the reshards that come between; `take` answers `false` for one that
    /// does not, for now. Gives what was refused, and why.
    pub(super) fn distribute(
        &self,
        entries: &[PutEntry<'_>],
        mut waiting: Vec<usize>,
        mut take: impl FnMut(&Arc<Shard>, &[usize]) -> Result<bool>,
    ) -> Vec<Refused> {
        let mut refused = Vec::new();
        while !waiting.is_empty() {
            let groups = match self.group(entries, &waiting) {
                Ok(groups) => groups,
                Err(error) => {
                    refused.push((waiting, error));
                    return refused;
                }
            };
            waiting.clear();
            for (shard, indices) in groups.into_values() {
                match take(&shard, &indices) {
                    Ok(true) => {}
                    Ok(false) => waiting.extend(indices),
                    Err(error) => refused.push((indices, error)),
                }
            }
            waiting.sort_unstable(); // of two shards that are merged, in the order of the entries
            if !waiting.is_empty()
                && let Err(error) = self.wait_for_reshard()
            {
                refused.push((std::mem::take(&mut waiting), error));
            }
        }
        refused
    }

    /// Appends a shard's part of a batch and fills in its receipts; gives the number behind it, or nothing if the shard takes no records for now.
    pub(super) fn append_group(
        &self,
        shard: &Arc<Shard>,
        entries: &[PutEntry<'_>],
        indices: &[usize],
        (durability, condition): (Durability, Condition),
        receipts: &mut [Option<PutReceipt>],
    ) -> Result<Option<SequenceNumber>> {
        let group = indices.iter().map(|index| AppendEntry::from(&entries[*index]));
        let Some(appended) = taken(shard, shard.append(group, durability, condition))? else {
            return Ok(None);
        };
        if appended.opened_file {
            self.files.opened(shard);
        }
        let mut next = appended.first;
        for index in indices {
            receipts[*index] =
                Some(PutReceipt { shard_id: shard.id(), sequence_number: next, arrival: appended.arrival });
            next = next.next();
        }
        Ok(Some(next))
    }

    fn fence_shard(&self, shard_id: ShardId, token: u64) -> Result<()> {
        if token == 0 {
            return Err(Error::invalid("token", "0 is that of a shard that was never fenced"));
        }
        self.writable()?;
        let mut manifest = self.manifest.lock();
        let entry = manifest.state().shard(shard_id).ok_or(Error::ShardNotFound(shard_id))?;
        if !entry.is_open() {
            return Err(Error::ShardClosed(shard_id));
        }
        let actual = entry.fencing_token;
        if token < actual {
            return Err(Error::FencingTokenMismatch { shard_id, token, actual });
        }
        if token > actual {
            self.change_locked(&mut manifest, |state| {
                if let Some(entry) = state.shard_mut(shard_id) {
                    entry.fencing_token = token;
                }
            })?;
        }
        self.member(shard_id)?.shard.fence(token);
        Ok(())
    }

    /// The entries by the shard that takes them now.
    fn group(&self, entries: &[PutEntry<'_>], indices: &[usize]) -> Result<Groups> {
        let topology = self.topology();
        if let [only] = topology.open.as_slice() {
            return Ok(Groups::from([(only.id(), (Arc::clone(only), indices.to_vec()))])); // whatever the keys are
        }
        let mut groups = Groups::new();
        for index in indices.iter().copied() {
            let Some(entry) = entries.get(index) else { continue };
            let key = self.hash_key(entry.partition_key, entry.explicit_hash_key);
            let shard = topology.shard_of(key).ok_or(Error::Closed)?;
            let group = groups.entry(shard.id()).or_insert_with(|| (Arc::clone(shard), Vec::new()));
            group.1.push(index);
        }
        Ok(groups)
    }

    /// A put asks for at least what the stream promises.
    pub(super) fn effective(&self, durability: Durability) -> Durability {
        durability.max(self.context.options.durability)
    }

    pub(super) fn hash_key(&self, partition_key: &str, explicit: Option<HashKey>) -> HashKey {
        explicit.unwrap_or_else(|| routing::hash_key(self.context.options.partition_hash, partition_key))
    }

    /// A shard refused because it is being split, merged or closed: waits until that is decided.
    fn wait_for_reshard(&self) -> Result<()> {
        drop(self.manifest.lock());
        self.not_closed()
    }

    pub(super) fn check_batch(&self, entries: &[PutEntry<'_>]) -> Result<()> {
        let limits = self.context.options.limits;
        let bytes = entries.iter().map(|entry| entry.partition_key.len() + entry.data.len()).sum::<usize>();
        if entries.len() > limits.max_batch_records as usize || bytes > limits.max_batch_bytes as usize {
            let (max_records, max_bytes) = (limits.max_batch_records, limits.max_batch_bytes);
            return Err(Error::BatchTooLarge { records: entries.len(), bytes, max_records, max_bytes });
        }
        entries.iter().try_for_each(|entry| self.check(entry))
    }

    pub(super) fn check(&self, entry: &PutEntry<'_>) -> Result<()> {
        check_key(entry.partition_key)?;
        let limit = self.context.options.limits.max_data_bytes;
        if entry.data.len() > limit as usize {
            let bytes = entry.data.len();
            return Err(Error::DataTooLarge { bytes, limit });
        }
        Ok(())
    }
}

/// The places of entries that a shard refused, and why.
pub(super) type Refused = (Vec<usize>, Error);

/// A shard, and the number up to which it has to be committed.
pub(super) type CommitWait = (Arc<Shard>, SequenceNumber);

/// The shards that take a batch, and the places of their entries in it.
type Groups = BTreeMap<ShardId, (Arc<Shard>, Vec<usize>)>;

/// What a shard answered; nothing if it takes no records for now.
pub(super) fn taken<T>(shard: &Shard, outcome: Result<T, ShardError>) -> Result<Option<T>> {
    match outcome {
        Ok(outcome) => Ok(Some(outcome)),
        Err(ShardError::NotOpen) => Ok(None),
        Err(error) => Err(Error::of_shard(shard.id())(error)),
    }
}

fn check_key(partition_key: &str) -> Result<()> {
    // A key of at most 256 bytes has at most as many characters: the usual case is not counted.
    let chars = match partition_key.len() {
        0 => 0,
        bytes if bytes <= MAX_PARTITION_KEY_CHARS => 1,
        _ => partition_key.chars().count(),
    };
    if (1..=MAX_PARTITION_KEY_CHARS).contains(&chars) {
        return Ok(());
    }
    let reason = format!("{chars} characters; it has 1 to {MAX_PARTITION_KEY_CHARS}");
    Err(Error::invalid("partition_key", reason))
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use crate::storage::SimulatedDisk;

    /// A batch of a producer is told its numbers in that order, too.
    #[test]
    fn what_two_shards_did_not_take_comes_to_their_child_in_the_order_of_the_entries() {
        let stream = Stream::builder().shards(2).storage(Arc::new(SimulatedDisk::new())).create("/s").unwrap();
        let shards = stream.shards();
        let entry = |shard: usize| PutEntry {
            partition_key: "key",
            data: b"data",
            explicit_hash_key: Some(shards[shard].hash_key_range.start()),
        };
        let mut asked = Vec::new();
        let refused = stream.inner.distribute(&[entry(1), entry(0)], vec![0, 1], |_, indices| {
            asked.push(indices.to_vec());
            if asked.len() == 2 {
                stream.merge_shards(shards[0].shard_id, shards[1].shard_id).unwrap();
            }
            Ok(asked.len() == 3)
        });
        assert!(refused.is_empty(), "{refused:?}");
        assert_eq!(asked, [vec![1], vec![0], vec![0, 1]]);
    }
}
