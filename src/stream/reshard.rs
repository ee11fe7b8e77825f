//! Split, merge, and scaling by them.
//!
//! A reshard holds the manifest's lock. It freezes its parents (all they hold becomes durable, puts wait), makes the
//! children's directories durable, and replaces the manifest: that is the moment it happens. Only then are the children
//! published and the parents closed, in this order, so that a reader that meets a parent's end finds its children. Cut short
//! before the manifest, it leaves empty directories that the next opening removes; a failure before the manifest
//! thaws the parents and leaves everything as it was.

use std::sync::Arc;

use super::open::SHARDS_DIRECTORY;
use super::{Member, Stream, StreamInner};
use crate::error::{Error, Result};
use crate::format::{ClosedShard, ManifestState, ShardEntry};
use crate::limits::{MAX_SHARD_ID, MAX_SHARDS};
use crate::manifest::{self, Manifest, ReplaceError};
use crate::routing::{self, Step};
use crate::shard::{Counters, Shard};
use crate::storage::{Fault, make_directory};
use crate::trace::event;
use crate::types::{HashKey, HashKeyRange, SequenceNumber, ShardId, Timestamp};

impl Stream {
    /// Splits an open shard in two, in the middle of its range or so that the upper child starts at
    /// `new_starting_hash_key`. Gives the lower child and the upper one.
    ///
    /// Producers and readers go on; a put waits at most while the parent is sealed. The parent stays readable until its
    /// records expire. Takes effect at once and for good when this returns, or not at all; after an [`Error::Io`] of syncing the stream's directory, which of the two the next
    /// opening tells: the parent takes no more records until then.
    ///
    /// # Errors
    ///
    /// [`Error::ShardNotFound`], [`Error::ShardClosed`]; [`Error::InvalidArgument`] for a key that leaves a child without keys (Kinesis
    /// refuses a few more keys at the edges), for a range of one key, and when the stream has [`MAX_SHARDS`].
    pub fn split_shard(
        &self,
        shard_id: ShardId,
        new_starting_hash_key: Option<HashKey>,
    ) -> Result<(ShardId, ShardId)> {
        self.inner.writable()?;
        let mut manifest = self.inner.manifest.lock();
        self.inner.writable()?;
        self.inner.split(&mut manifest, shard_id, new_starting_hash_key)
    }

    /// Merges an open shard with the one whose range follows its own. Gives the child. Takes effect as a [split](Self::split_shard) does.
    ///
    /// # Errors
    ///
    /// [`Error::ShardNotFound`], [`Error::ShardClosed`], and [`Error::NotAdjacent`], also when the two are given in the wrong order.
    pub fn merge_shards(&self, shard_id: ShardId, adjacent: ShardId) -> Result<ShardId> {
        self.inner.writable()?;
        let mut manifest = self.inner.manifest.lock();
        self.inner.writable()?;
        self.inner.merge(&mut manifest, shard_id, adjacent)
    }

    /// Splits and merges until `target` shards are open, as evenly as halving allows. Gives the open shards, lowest range first.
    ///
    /// Each step takes effect by itself: after a failure or a crash the stream is some of the way.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for a target of 0 or above [`MAX_SHARDS`].
    pub fn update_shard_count(&self, target: u32) -> Result<Vec<ShardId>> {
        self.inner.writable()?;
        if target == 0 || target > MAX_SHARDS {
            return Err(Error::invalid("target", format!("{target} is not within 1..={MAX_SHARDS}")));
        }
        let mut manifest = self.inner.manifest.lock();
        self.inner.writable()?;
        self.inner.scale(&mut manifest, target as usize)?;
        Ok(self.inner.topology().routes.shards().collect())
    }
}

impl StreamInner {
    /// Splits and merges until so many shards are open.
    pub(super) fn scale(&self, manifest: &mut Manifest, target: usize) -> Result<()> {
        while let Some(step) = routing::next_step(&self.topology().routes, target) {
            match step {
                Step::Split(shard_id) => drop(self.split(manifest, shard_id, None)?),
                Step::Merge(lower, upper) => drop(self.merge(manifest, lower, upper)?),
            }
        }
        Ok(())
    }

    pub(super) fn split(
        &self,
        manifest: &mut Manifest,
        shard_id: ShardId,
        at: Option<HashKey>,
    ) -> Result<(ShardId, ShardId)> {
        let parent = self.open_member(shard_id)?;
        let range = parent.entry.range;
        let at = at.or_else(|| range.middle()).ok_or_else(|| one_key(range))?;
        let (lower, upper) = range.split(at).ok_or_else(|| {
            let reason = format!(
                "{at} leaves a child without keys: it must be above {} and at most {}",
                range.start(),
                range.end()
            );
            Error::invalid("new_starting_hash_key", reason)
        })?;
        let children = self.reshard(manifest, &[parent], &[lower, upper])?;
        match children[..] {
            [lower, upper] => Ok((lower, upper)),
            _ => Err(Error::Closed),
        }
    }

    pub(super) fn merge(&self, manifest: &mut Manifest, lower: ShardId, upper: ShardId) -> Result<ShardId> {
        let (first, second) = (self.open_member(lower)?, self.open_member(upper)?);
        let joined = first.entry.range.join(second.entry.range);
        let range = joined.ok_or(Error::NotAdjacent { lower, upper })?;
        let children = self.reshard(manifest, &[first, second], &[range])?;
        children.first().copied().ok_or(Error::Closed)
    }

    fn open_member(&self, shard_id: ShardId) -> Result<Member> {
        let member = self.member(shard_id)?;
        if member.entry.is_open() { Ok(member) } else { Err(Error::ShardClosed(shard_id)) }
    }

    /// Replaces parents by children that take `ranges`.
    fn reshard(
        &self,
        manifest: &mut Manifest,
        parents: &[Member],
        ranges: &[HashKeyRange],
    ) -> Result<Vec<ShardId>> {
        manifest.expect_usable()?; // else nothing of it is tried, and nothing of it is unknown
        let mut state = manifest.state().clone();
        check_count(&state, ranges.len())?;
        let mut starting = SequenceNumber::ZERO;
        let frozen = Thaw(parents);
        for parent in parents {
            let (next, last_arrival) = parent.shard.freeze().map_err(Error::of_shard(parent.shard.id()))?;
            starting = starting.max(next);
            self.close_entry(&mut state, parent.shard.id(), next, last_arrival);
        }
        let children = add_children(&mut state, parents, ranges, starting, self.context.clock.now());
        let shards = self.make_shards(&children)?;
        if let Err(error) = manifest.replace(state) {
            if let ReplaceError::Unknown(fault) = &error {
                // A crash may leave the children in force: a parent must not take another record.
                for parent in parents {
                    parent.shard.abandon(fault);
                }
            }
            return Err(error.into_fault().into());
        }
        std::mem::forget(frozen); // the children have their keys now
        self.publish(manifest.state(), shards);
        for parent in parents {
            parent.shard.close();
        }
        Counters::add(&self.context.counters.reshards, 1);
        event!(info, children = children.len(), %starting, "stream resharded");
        Ok(children.iter().map(|entry| entry.id).collect())
    }

    fn close_entry(&self, state: &mut ManifestState, id: ShardId, next: SequenceNumber, last_arrival: Timestamp) {
        let at = self.context.clock.now();
        if let Some(entry) = state.shard_mut(id) {
            entry.closed = Some(ClosedShard { at });
            entry.next = next;
            entry.last_arrival = last_arrival;
        }
    }

    /// Makes the directories of new shards, durably, and their empty logs.
    fn make_shards(&self, entries: &[ShardEntry]) -> Result<Vec<Arc<Shard>>, Fault> {
        let storage = self.context.storage.as_ref();
        let parent = self.path.join(SHARDS_DIRECTORY);
        let mut shards = Vec::with_capacity(entries.len());
        for entry in entries {
            let directory = parent.join(entry.id.directory());
            make_directory(storage, &directory)?;
            shards.push(Arc::new(Shard::new(Arc::clone(&self.context), directory, entry)));
        }
        storage.sync_dir(&parent).map_err(Fault::io("sync", &parent))?;
        Ok(shards)
    }
}

fn check_count(state: &ManifestState, more: usize) -> Result<()> {
    let listed = state.shards.len() + more;
    let ids = state.next_shard_id.get() as usize + more;
    if listed > MAX_SHARDS as usize {
        let reason = format!("the stream would list {listed} shards, open and closed; it can list {MAX_SHARDS}");
        return Err(Error::invalid("shards", reason));
    }
    if ids > MAX_SHARD_ID as usize {
        return Err(Error::invalid("shards", format!("the stream has used its {MAX_SHARD_ID} shard ids")));
    }
    Ok(())
}

fn add_children(
    state: &mut ManifestState,
    parents: &[Member],
    ranges: &[HashKeyRange],
    starting: SequenceNumber,
    now: Timestamp,
) -> Vec<ShardEntry> {
    let parent_ids: Vec<_> = parents.iter().map(|parent| parent.entry.id).collect();
    let latest = parent_ids.iter().filter_map(|id| state.shard(*id)).map(|entry| entry.last_arrival).max();
    let fencing_token =
        parents.iter().filter_map(|parent| state.shard(parent.entry.id)).map(|entry| entry.fencing_token);
    let fencing_token = fencing_token.max().unwrap_or(0);
    let mut children = Vec::with_capacity(ranges.len());
    for range in ranges {
        let id = state.next_shard_id;
        state.next_shard_id = id.successor();
        let mut child = ShardEntry::new(id, parent_ids.clone(), *range, starting, now);
        // Arrival times do not fall from parent to child either.
        child.last_arrival = latest.map_or(now, |latest| latest.max(now));
        child.fencing_token = fencing_token;
        state.shards.push(child.clone());
        children.push(child);
    }
    debug_assert!(manifest::routes(state).is_some(), "a reshard keeps the ranges a partition");
    children
}

/// Parents that take appends again when this is dropped, be it by a clock that panics; not those that were given up.
struct Thaw<'a>(&'a [Member]);

impl Drop for Thaw<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|parent| parent.shard.thaw());
    }
}

fn one_key(range: HashKeyRange) -> Error {
    Error::invalid("shard_id", format!("its range {range} has one key and cannot be split"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::StreamOptions;
    use crate::types::StreamId;

    fn state(listed: u32, next_shard_id: u32) -> ManifestState {
        let shard = |id| {
            let (id, start) = (ShardId::new(id), Timestamp::from_millis(0));
            ShardEntry::new(id, vec![], HashKeyRange::FULL, SequenceNumber::ZERO, start)
        };
        ManifestState {
            generation: 1,
            stream_id: StreamId::new(1),
            created: Timestamp::from_millis(0),
            incarnation: 1,
            clean: false,
            options: StreamOptions::default(),
            next_shard_id: ShardId::new(next_shard_id),
            shards: (0..listed).map(shard).collect(),
            next_producer_id: 0,
            producers: Vec::new(),
        }
    }

    #[test]
    fn shards_are_made_up_to_as_many_as_a_stream_lists() {
        assert!(check_count(&state(MAX_SHARDS - 2, MAX_SHARDS), 2).is_ok());
        let error = check_count(&state(MAX_SHARDS - 1, MAX_SHARDS), 2).unwrap_err();
        assert!(error.to_string().contains("list 65537 shards"), "{error}");
    }

    #[test]
    fn shards_are_made_up_to_the_last_id() {
        assert!(check_count(&state(2, MAX_SHARD_ID - 2), 2).is_ok());
        let error = check_count(&state(2, MAX_SHARD_ID - 1), 2).unwrap_err();
        assert!(error.to_string().contains("has used its"), "{error}");
        assert!(check_count(&state(2, MAX_SHARD_ID), 2).is_err());
    }
}
