//! Keeping as many shards open as the load asks for. What is to be done is decided in the room `capacity`; here it is looked and done.
//!
//! Looking costs the writers nothing: how many records a shard took is the number of its next one, its bytes are counted when they are written
//! out, and keys are read from the log, 64 of a busy shard's new records each time, spread evenly.

use std::sync::Arc;
use std::time::Duration;

use super::{Member, Stream, StreamInner, Topology};
use crate::capacity::{Action, Autoscaler, Capacity, Seen};
use crate::error::{Error, Result};
use crate::manifest::Manifest;
use crate::sync::Mutex;
use crate::types::{HashKey, HashKeyRange, SequenceNumber, ShardId};

/// What [`Stream::rebalance`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rebalanced {
    /// How many splits it took, of two parts each.
    pub splits: u64,
    /// How many merges it took.
    pub merges: u64,
    /// How many shards are open now.
    pub open_shards: u64,
}

/// What an open stream was told of capacity.
#[derive(Debug, Default)]
pub(super) struct Scaling {
    /// Held for a moment.
    capacity: Mutex<Option<Capacity>>,
    /// For capacity on demand. Held while a stream is rebalanced, and locked before the manifest.
    scaler: Mutex<Option<Autoscaler>>,
}

impl Scaling {
    pub(super) fn new(capacity: Option<Capacity>) -> Self {
        let scaling = Self::default();
        scaling.set(capacity);
        scaling
    }

    /// A rebalance that goes on is waited for.
    fn set(&self, capacity: Option<Capacity>) {
        let mut scaler = self.scaler.lock();
        *scaler = match capacity {
            Some(Capacity::OnDemand(policy)) => Some(Autoscaler::new(policy)),
            _ => None,
        };
        *self.capacity.lock() = capacity;
    }

    fn current(&self) -> Option<Capacity> {
        *self.capacity.lock()
    }

    /// How often the background looks; nothing where it does not.
    pub(super) fn interval(&self) -> Option<Duration> {
        match self.current() {
            Some(Capacity::OnDemand(policy)) => Some(policy.interval),
            _ => None,
        }
    }
}

impl Capacity {
    /// Whether a stream can have it.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for what is out of its range.
    pub fn check(&self) -> Result<()> {
        self.fault().map_or(Ok(()), |reason| Err(Error::invalid("capacity", reason)))
    }
}

impl Stream {
    /// What this opening was told of capacity, with [`StreamBuilder::capacity`](crate::StreamBuilder::capacity) or since then.
    pub fn capacity(&self) -> Option<Capacity> {
        self.inner.scaling.current()
    }

    /// Puts another capacity in force for this open stream and all its handles; without one, shards change only when somebody splits or merges them. What was known of
    /// the load is forgotten. A [`rebalance`](Self::rebalance) that goes on is waited for: none that began before goes on behind this.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`], as [`Capacity::check`]. Nothing is changed then.
    pub fn set_capacity(&self, capacity: Option<Capacity>) -> Result<()> {
        capacity.as_ref().map_or(Ok(()), Capacity::check)?;
        self.inner.scaling.set(capacity);
        let background = self.inner.background.lock().clone();
        if let Some(background) = background {
            background.look_at_load(&self.inner.0);
        }
        Ok(())
    }

    /// Splits and merges as the stream's [`Capacity`] asks for; without one, nothing.
    ///
    /// With [`Capacity::Provisioned`] so many shards are open when this returns. With [`Capacity::OnDemand`] it looks what the shards took since the
    /// last time, and acts on what they took on average over the last 2 to 20 minutes of the stream's clock: it has to be called again and
    /// again, every few seconds, and the [background thread](crate::StreamBuilder::background) does.
    /// Hot shards are split where the keys that they take balance (one key that is too much for a shard gets one for itself),
    /// cold neighbours are merged. See [the page about capacity](crate::docs::capacity).
    ///
    /// # Errors
    ///
    /// The first one of a [`split_shard`](Self::split_shard) or [`merge_shards`](Self::merge_shards); on demand, the others are tried all the same. Each step takes
    /// effect by itself: after a failure the stream is some of the way.
    pub fn rebalance(&self) -> Result<Rebalanced> {
        self.inner.rebalance()
    }
}

impl StreamInner {
    pub(super) fn rebalance(&self) -> Result<Rebalanced> {
        self.writable()?;
        let mut done = Rebalanced::default();
        let mut scaler = self.scaling.scaler.lock();
        if let Some(Capacity::Provisioned { shards }) = self.scaling.current() {
            self.scale_within(shards, shards, &mut done)?;
        }
        if let Some(scaler) = &mut *scaler {
            let policy = scaler.policy();
            self.scale_within(policy.min_shards, policy.max_shards, &mut done)?;
            self.observe(scaler);
            self.act(scaler, &mut done)?;
        }
        done.open_shards = self.topology().routes.len() as u64;
        Ok(done)
    }

    /// Sees to it that no fewer and no more shards are open.
    fn scale_within(&self, min: u32, max: u32, done: &mut Rebalanced) -> Result<()> {
        let mut manifest = self.manifest.lock();
        self.writable()?;
        let before = self.topology().routes.len();
        let target = before.clamp(min as usize, max as usize);
        self.scale(&mut manifest, target)?;
        done.splits += target.saturating_sub(before) as u64;
        done.merges += before.saturating_sub(target) as u64;
        Ok(())
    }

    /// Looks what the open shards took, and at some of the keys of those that took much.
    fn observe(&self, scaler: &mut Autoscaler) {
        let topology = self.topology();
        let seen = |member: &Member| {
            let shard = &member.shard;
            let seen = Seen { records: shard.next(self.visibility()).get(), bytes: shard.bytes_in() };
            (shard.id(), seen)
        };
        let open = topology.shards.values().filter(|member| member.entry.is_open());
        let seen: Vec<_> = open.map(seen).collect();
        for draw in scaler.observe(&seen, self.context.clock.monotonic()) {
            let Some(member) = topology.shards.get(&draw.shard_id) else { continue };
            let _ = member.shard.drain(); // a failure is kept by the shard, which tells the next one who appends
            for number in draw.numbers() {
                if let Some((key, bytes)) = self.key_of(member, number) {
                    scaler.note_key(draw.shard_id, key, bytes);
                }
            }
        }
    }

    /// A record's hash key, and the bytes of its key and data; nothing where it is not there any more.
    fn key_of(&self, member: &Member, number: u64) -> Option<(HashKey, u64)> {
        let (record, _) = member.shard.peek(SequenceNumber::new(number), self.visibility())?;
        let key = self.hash_key(record.partition_key(), record.explicit_hash_key());
        Some((key, (record.partition_key().len() + record.data().len()) as u64))
    }

    /// Decides and acts with the manifest's lock held: what is decided about is what is there.
    fn act(&self, scaler: &Autoscaler, done: &mut Rebalanced) -> Result<()> {
        let mut manifest = self.manifest.lock();
        self.writable()?;
        let open = open_ranges(&self.topology());
        let mut outcome = Ok(());
        for action in scaler.decide(&open, self.context.clock.monotonic()) {
            let acted = match action {
                Action::Split(shard_id, cuts) => self.split_at(&mut manifest, shard_id, cuts, done),
                Action::Merge(lower, upper) => self.merge(&mut manifest, lower, upper).map(|_| done.merges += 1),
            };
            outcome = outcome.and(acted); // a shard that failed must not keep the others as they are
        }
        outcome
    }

    fn split_at(
        &self,
        manifest: &mut Manifest,
        shard_id: ShardId,
        cuts: Vec<HashKey>,
        done: &mut Rebalanced,
    ) -> Result<()> {
        let mut rest = shard_id;
        for at in cuts {
            (_, rest) = self.split(manifest, rest, Some(at))?;
            done.splits += 1;
        }
        Ok(())
    }
}

fn open_ranges(topology: &Topology) -> Vec<(HashKeyRange, ShardId)> {
    let open = topology.open.iter().map(Arc::as_ref);
    open.filter_map(|shard| Some((topology.shards.get(&shard.id())?.entry.range, shard.id()))).collect()
}
