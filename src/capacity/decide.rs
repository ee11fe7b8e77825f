//! The decision: histories in, splits and merges out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::history::{History, Seen};
use super::policy::CapacityPolicy;
use crate::types::{HashKey, HashKeyRange, ShardId};

/// A shard is not split into more at a time, whatever its load: each further time it is known better.
const MOST_PIECES: usize = 8;
/// Neighbours are merged if their loads stay below this together: far enough below what would split them again.
const MERGED_LOAD: f64 = 0.6;
/// How many keys of a shard's new records are looked at each time.
const KEYS_AT_A_TIME: u64 = 64;

/// What is to be done with shards. Each shard is in one action at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Split it so that its parts but the lowest start at these keys, which ascend.
    Split(ShardId, Vec<HashKey>),
    /// Merge it with the one above it.
    Merge(ShardId, ShardId),
}

/// The records of a shard whose keys are to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Draw {
    pub(crate) shard_id: ShardId,
    from: u64,
    to: u64,
}

/// Remembers the loads of shards, and says what to do about them.
#[derive(Debug, Clone)]
pub(crate) struct Autoscaler {
    policy: CapacityPolicy,
    histories: BTreeMap<ShardId, History>,
    observed: Option<Duration>,
}

impl Draw {
    /// Their sequence numbers, spread evenly over all that came.
    pub(crate) fn numbers(self) -> impl Iterator<Item = u64> {
        let count = (self.to - self.from).min(KEYS_AT_A_TIME);
        (0..count).map(move |index| {
            let place = u128::from(self.to - self.from) * u128::from(index) / u128::from(count);
            self.from + u64::try_from(place).unwrap_or(0)
        })
    }
}

impl Autoscaler {
    pub(crate) fn new(policy: CapacityPolicy) -> Self {
        Self { policy, histories: BTreeMap::new(), observed: None }
    }

    pub(crate) fn policy(&self) -> CapacityPolicy {
        self.policy
    }

    /// Takes in what the open shards have taken up to now; `records` of each is the number of its next record. Gives those whose keys should be
    /// looked at. Shards that are not open any more are forgotten.
    pub(crate) fn observe(&mut self, open: &[(ShardId, Seen)], now: Duration) -> Vec<Draw> {
        let passed = self.observed.map_or(Duration::ZERO, |before| now.saturating_sub(before));
        if self.observed.is_some() && passed.is_zero() {
            return Vec::new(); // nothing can be said of no time
        }
        self.observed = Some(now);
        let mut before = std::mem::take(&mut self.histories);
        let mut draws = Vec::new();
        for (shard_id, seen) in open {
            let history = match before.remove(shard_id) {
                Some(mut history) => {
                    let from = history.records();
                    let load = history.observe(&self.policy, *seen, passed, now);
                    if history.is_warm(load) && seen.records > from {
                        draws.push(Draw { shard_id: *shard_id, from, to: seen.records });
                    }
                    history
                }
                None => History::new(*seen, now),
            };
            self.histories.insert(*shard_id, history);
        }
        draws
    }

    /// Takes in the key of a record that was drawn, and the record's bytes.
    pub(crate) fn note_key(&mut self, shard_id: ShardId, key: HashKey, bytes: u64) {
        let weight = self.policy.load_of(1, bytes);
        if let Some(history) = self.histories.get_mut(&shard_id) {
            history.keys.add(key, weight);
        }
    }

    /// What to do with the open shards, whose ranges tile the space in this order. Changes nothing: what is done shows in the next observation.
    pub(crate) fn decide(&self, open: &[(HashKeyRange, ShardId)], now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        let mut busy = BTreeSet::new();
        let (min, max) = (self.policy.min_shards as usize, self.policy.max_shards as usize);
        let mut count = open.len();
        for (range, shard_id) in open {
            let cuts = self.cuts(*range, *shard_id, max.saturating_sub(count) + 1, now);
            if !cuts.is_empty() {
                count += cuts.len();
                busy.insert(*shard_id);
                actions.push(Action::Split(*shard_id, cuts));
            }
        }
        for (lower, upper) in self.cold_pairs(open, now) {
            if count > min && !busy.contains(&lower) && !busy.contains(&upper) {
                count -= 1;
                busy.extend([lower, upper]);
                actions.push(Action::Merge(lower, upper));
            }
        }
        actions
    }

    fn cuts(&self, range: HashKeyRange, shard_id: ShardId, most: usize, now: Duration) -> Vec<HashKey> {
        let Some(history) = self.histories.get(&shard_id) else { return Vec::new() };
        match history.excessive_load(now) {
            Some(load) => history.keys.cuts(range, load, most.min(MOST_PIECES)),
            None => Vec::new(),
        }
    }

    /// Neighbours that can be merged, those with the least load first.
    fn cold_pairs(&self, open: &[(HashKeyRange, ShardId)], now: Duration) -> Vec<(ShardId, ShardId)> {
        let load = |shard_id| {
            let history: &History = self.histories.get(&shard_id)?;
            history.is_mergeable(now).then(|| history.remaining_load(now))
        };
        let neighbours = open.windows(2).map(|pair| (pair[0].1, pair[1].1));
        let mut pairs: Vec<_> = neighbours
            .filter_map(|(lower, upper)| Some((load(lower)? + load(upper)?, lower, upper)))
            .filter(|(load, ..)| *load < MERGED_LOAD)
            .collect();
        pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
        pairs.into_iter().map(|(_, lower, upper)| (lower, upper)).collect()
    }
}
