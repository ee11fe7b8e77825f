//! One round of a worker: renew, look around, take what is free or dead, steal one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::position::is_finished;
use super::worker::Worker;
use super::{Lease, millis, next_epoch, untouched};
use crate::error::Result;
use crate::format::SlotState;
use crate::leases::{LockedLeases, Slot};
use crate::stream::{ShardSummary, error_of};
use crate::types::ShardId;

/// What a round came to.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Shards that are another's now.
    pub(super) lost: Vec<ShardId>,
    /// Leases that the worker has from now on.
    pub(super) taken: Vec<Lease>,
}

/// Since when each lease stands still.
#[derive(Debug, Default)]
pub(super) struct Observed(HashMap<ShardId, Observation>);

#[derive(Debug, Clone, Copy)]
struct Observation {
    epoch: u64,
    renewals: u64,
    since: Duration,
}

impl Observed {
    /// Whether the lease's counter stood still for as long as the lease lasts. One without an end never does.
    fn is_dead(&mut self, state: &SlotState, now: Duration) -> bool {
        let SlotState { epoch, renewals, .. } = *state;
        let seen = self.0.entry(state.shard_id).or_insert(Observation { epoch, renewals, since: now });
        if (seen.epoch, seen.renewals) != (epoch, renewals) {
            *seen = Observation { epoch, renewals, since: now };
        }
        state.lease_ms > 0 && millis(now.saturating_sub(seen.since)) >= state.lease_ms
    }
}

/// The shards that are to be worked on, as one round sees them.
#[derive(Debug, Default)]
struct Survey {
    /// Those that somebody may take at once.
    free: Vec<ShardId>,
    /// What each other living worker has: one may be stolen.
    loads: BTreeMap<String, Vec<ShardId>>,
}

impl Worker {
    /// Under one lock, so that nobody comes between looking and taking.
    pub(super) fn round(&mut self, now: Duration) -> Result<Plan> {
        let consumer = self.consumer.clone();
        let name = consumer.name();
        let shards = consumer.stream().shards();
        let is_gone = consumer.is_gone()?;
        let mut leases = consumer.inner.file.lock().map_err(error_of(name))?;
        let mut slots = slots_by_shard(&mut leases, name)?;
        let workable: Vec<_> = workable(&shards, &slots).collect();
        let missing: Vec<_> =
            workable.iter().filter(|id| !slots.contains_key(id)).map(|id| untouched(*id)).collect();
        if !missing.is_empty() {
            leases.add(missing, is_gone).map_err(error_of(name))?;
            slots = slots_by_shard(&mut leases, name)?;
        }
        let mut plan = Plan { lost: self.renew(&mut leases, &slots, now)?, taken: Vec::new() };
        let lost: BTreeSet<_> = plan.lost.iter().copied().collect();
        let mine = self.held.len() - lost.len();
        let survey = self.survey(&workable, &slots, &lost, now);
        let wanted = choose(&survey, mine);
        for shard_id in &wanted {
            let Some(slot) = slots.get(shard_id) else { continue };
            let Some(state) = slot.state().cloned() else { continue };
            let (owner, lease_ms) = (self.name.clone(), millis(self.options.lease_time));
            let state = SlotState { owner, epoch: next_epoch(&state)?, renewals: 0, lease_ms, ..state };
            leases.write(slot, state.clone(), true).map_err(error_of(name))?;
            plan.taken.push(Lease::new(consumer.clone(), &state));
        }
        if !wanted.is_empty() {
            leases.sync().map_err(error_of(name))?;
        }
        Ok(plan)
    }

    /// Renews what is still this worker's; what is not.
    fn renew(
        &mut self,
        leases: &mut LockedLeases<'_>,
        slots: &BTreeMap<ShardId, Slot>,
        now: Duration,
    ) -> Result<Vec<ShardId>> {
        let mut lost = Vec::new();
        for (shard_id, held) in &mut self.held {
            let slot = slots.get(shard_id).and_then(|slot| Some((slot, slot.state()?.clone())));
            let Some((slot, state)) = slot.filter(|(_, state)| state.epoch == held.lease.epoch()) else {
                lost.push(*shard_id);
                continue;
            };
            let renewals = state.renewals.saturating_add(1);
            let state = SlotState { renewals, ..state };
            leases.write(slot, state, false).map_err(error_of(self.consumer.name()))?;
            held.renewed_at = now;
        }
        Ok(lost)
    }

    fn survey(
        &mut self,
        workable: &[ShardId],
        slots: &BTreeMap<ShardId, Slot>,
        lost: &BTreeSet<ShardId>,
        now: Duration,
    ) -> Survey {
        let mut survey = Survey::default();
        for shard_id in workable {
            let Some(state) = slots.get(shard_id).and_then(Slot::state) else { continue };
            if self.held.contains_key(shard_id) && !lost.contains(shard_id) {
                continue;
            }
            let is_dead = self.observed.is_dead(state, now);
            // Nobody else has this name, so what it left was left by an earlier one.
            let is_left = state.owner == self.name && state.lease_ms > 0;
            if state.owner.is_empty() || is_dead || is_left {
                survey.free.push(*shard_id);
            } else if state.lease_ms > 0 {
                survey.loads.entry(state.owner.clone()).or_default().push(*shard_id);
            }
            // Who took one by hand, without an end, is no worker, and has no share of the others.
        }
        survey
    }
}

/// What to take: of the free ones a fair share, or one from the worker that has most, if that has two more than this one.
fn choose(survey: &Survey, mine: usize) -> Vec<ShardId> {
    let others: usize = survey.loads.values().map(Vec::len).sum();
    let share = (mine + others + survey.free.len()).div_ceil(survey.loads.len() + 1);
    let taken: Vec<_> = survey.free.iter().take(share.saturating_sub(mine)).copied().collect();
    if !taken.is_empty() {
        return taken;
    }
    let most = survey.loads.values().max_by_key(|shards| shards.len()).filter(|shards| shards.len() > mine + 1);
    most.and_then(|shards| shards.last()).copied().into_iter().collect()
}

/// The shards whose parents are all done to their end and which are not so themselves.
fn workable<'a>(
    shards: &'a [ShardSummary],
    slots: &'a BTreeMap<ShardId, Slot>,
) -> impl Iterator<Item = ShardId> + 'a {
    let is_done = |shard: &ShardSummary| {
        let state = slots.get(&shard.shard_id).and_then(Slot::state);
        state.is_some_and(|state| is_finished(shard, state.position))
    };
    let done: BTreeSet<_> = shards.iter().filter(|shard| is_done(shard)).map(|shard| shard.shard_id).collect();
    let listed: BTreeSet<_> = shards.iter().map(|shard| shard.shard_id).collect();
    let is_ready = move |shard: &&ShardSummary| {
        let waits_for = |parent: &ShardId| listed.contains(parent) && !done.contains(parent);
        !done.contains(&shard.shard_id) && !shard.parents.iter().any(waits_for)
    };
    shards.iter().filter(is_ready).map(|shard| shard.shard_id)
}

fn slots_by_shard(leases: &mut LockedLeases<'_>, name: &str) -> Result<BTreeMap<ShardId, Slot>> {
    let slots = leases.all().map_err(error_of(name))?;
    Ok(slots.into_iter().filter_map(|slot| Some((slot.state()?.shard_id, slot))).collect())
}
