//! One round of a worker: renew, look around, take what is free or dead, steal one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::position::is_finished;
use super::worker::{Held, Worker};
use super::{Lease, is_at_work, millis, next_epoch, released, untouched};
use crate::error::Result;
use crate::format::SlotState;
use crate::leases::{LockedLeases, Slot};
use crate::stream::{ShardSummary, error_of};
use crate::types::{HashKeyRange, ShardId};

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
    /// Forgets other shards: those that are done, or expired.
    fn keep(&mut self, is_kept: impl Fn(&ShardId) -> bool) {
        self.0.retain(|shard_id, _| is_kept(shard_id));
    }

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
    /// Under one lock, so that nobody comes between looking and taking. `now` was read before the call, which may wait for that lock: what is renewed lasts from then on,
    /// and what is seen is seen behind the wait.
    pub(super) fn round(&mut self, now: Duration) -> Result<Plan> {
        let consumer = self.consumer.clone();
        let name = consumer.name();
        let mut leases = consumer.inner.file.lock().map_err(error_of(name))?;
        let seen_at = self.now();
        let shards = consumer.stream().shards(); // behind the wait, too: whoever uses the slot of one again has seen that it expired
        let is_gone = consumer.is_gone()?;
        let mut slots = slots_by_shard(&mut leases, name)?;
        let at_work = self.expired_at_work(&mut leases, &slots, &is_gone, seen_at)?;
        let workable: Vec<_> = workable(&shards, &slots, &self.held, &at_work).collect();
        self.observed.keep(|id| workable.binary_search(id).is_ok() || at_work.contains(id));
        let missing: Vec<_> =
            workable.iter().filter(|id| !slots.contains_key(id)).map(|id| untouched(*id)).collect();
        if !missing.is_empty() {
            consumer.add(&mut leases, missing)?;
            slots = slots_by_shard(&mut leases, name)?;
        }
        let mut plan = Plan { lost: self.renew(&mut leases, &slots, &is_gone, now)?, taken: Vec::new() };
        let lost: BTreeSet<_> = plan.lost.iter().copied().collect();
        let mine = self.held.len() - lost.len();
        let survey = self.survey(&workable, &slots, &lost, seen_at);
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

    /// The shards that expired while others have them: behind their ends, as far as can be told, so that their children wait. Those whose lease is dead are nobody's from
    /// now on, and nobody waits for them again.
    fn expired_at_work(
        &mut self,
        leases: &mut LockedLeases<'_>,
        slots: &BTreeMap<ShardId, Slot>,
        is_gone: &impl Fn(ShardId) -> bool,
        now: Duration,
    ) -> Result<BTreeSet<ShardId>> {
        let mut at_work = BTreeSet::new();
        for (shard_id, slot) in slots.iter().filter(|(shard_id, _)| is_gone(**shard_id)) {
            let Some(state) = slot.state().filter(|state| is_at_work(state)) else { continue };
            let is_mine = state.owner == self.name;
            if is_mine && self.held.contains_key(shard_id) {
                continue;
            }
            // Nobody else has this name, so what it left was left by an earlier one.
            if is_mine || self.observed.is_dead(state, now) {
                leases.write(slot, released(state)?, false).map_err(error_of(self.consumer.name()))?;
            } else {
                at_work.insert(*shard_id);
            }
        }
        Ok(at_work)
    }

    /// Renews what is still this worker's; what is not. So is the rest of a shard that expired, since that keeps none of its children waiting any more. One that was given to
    /// its end before is had until it is finished.
    fn renew(
        &mut self,
        leases: &mut LockedLeases<'_>,
        slots: &BTreeMap<ShardId, Slot>,
        is_gone: &impl Fn(ShardId) -> bool,
        now: Duration,
    ) -> Result<Vec<ShardId>> {
        let mut lost = Vec::new();
        for (shard_id, held) in &mut self.held {
            let slot = slots.get(shard_id).and_then(|slot| Some((slot, slot.state()?.clone())));
            let has_expired = is_gone(*shard_id);
            match slot {
                Some((slot, state)) if state.epoch == held.lease.epoch() && (held.is_ended || !has_expired) => {
                    let renewals = state.renewals.saturating_add(1);
                    let state = SlotState { renewals, ..state };
                    leases.write(slot, state, false).map_err(error_of(self.consumer.name()))?;
                }
                of_another_or_expired => {
                    let rest = of_another_or_expired.filter(|(_, state)| state.epoch == held.lease.epoch());
                    if let Some((slot, state)) = rest {
                        // Nobody waits for it.
                        leases.write(slot, released(&state)?, false).map_err(error_of(self.consumer.name()))?;
                    }
                    lost.push(*shard_id);
                    continue;
                }
            }
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

/// The shards whose parents are all done to their end and which are not so themselves. One that expired is waited for only where it was given to its end: if here, by all that have
/// some of its keys, since those between may have expired with it; if to others, who are `at_work`, by all that may descend from it, since nobody knows its keys any more.
fn workable<'a>(
    shards: &'a [ShardSummary],
    slots: &'a BTreeMap<ShardId, Slot>,
    held: &'a BTreeMap<ShardId, Held>,
    at_work: &'a BTreeSet<ShardId>,
) -> impl Iterator<Item = ShardId> + 'a {
    let is_done = |shard: &ShardSummary| {
        let state = slots.get(&shard.shard_id).and_then(Slot::state);
        state.is_some_and(|state| is_finished(shard, state.position))
    };
    let done: BTreeSet<_> = shards.iter().filter(|shard| is_done(shard)).map(|shard| shard.shard_id).collect();
    let listed: BTreeSet<_> = shards.iter().map(|shard| shard.shard_id).collect();
    let expired = held.iter().filter(|(shard_id, held)| held.is_ended && !listed.contains(shard_id));
    let expired: Vec<_> = expired.map(|(shard_id, held)| (*shard_id, held.iterator.hash_key_range())).collect();
    let is_ready = move |shard: &&ShardSummary| {
        let waits_for = |parent: &ShardId| {
            if listed.contains(parent) {
                !done.contains(parent)
            } else {
                at_work.first().is_some_and(|first| first <= parent)
            }
        };
        let descends_from = |(expired, range): &(ShardId, HashKeyRange)| {
            *expired < shard.shard_id && range.intersection(shard.hash_key_range).is_some()
        };
        let waits = shard.parents.iter().any(waits_for) || expired.iter().any(descends_from);
        !done.contains(&shard.shard_id) && !waits
    };
    shards.iter().filter(is_ready).map(|shard| shard.shard_id)
}

fn slots_by_shard(leases: &mut LockedLeases<'_>, name: &str) -> Result<BTreeMap<ShardId, Slot>> {
    let slots = leases.all().map_err(error_of(name))?;
    Ok(slots.into_iter().filter_map(|slot| Some((slot.state()?.shard_id, slot))).collect())
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "outside the test functions too")]

    use std::sync::Arc;

    use super::*;
    use crate::clock::{Clock, ManualClock};
    use crate::consumer::{Work, WorkerOptions};
    use crate::storage::SimulatedDisk;
    use crate::stream::Stream;

    const LEASE: Duration = Duration::from_secs(9);

    fn stream() -> (Arc<ManualClock>, Stream) {
        let clock = Arc::new(ManualClock::default());
        let builder = Stream::builder().background(false).storage(Arc::new(SimulatedDisk::new()));
        let stream = builder.clock(clock.clone()).create("/s").unwrap();
        (clock, stream)
    }

    fn worker(stream: &Stream, name: &str) -> Worker {
        stream.consumer("c").unwrap().worker(name, WorkerOptions::new().lease_time(LEASE)).unwrap()
    }

    /// The file may be locked for seconds, in which its owner has renewed what is seen then.
    #[test]
    fn a_lease_is_seen_when_the_lock_was_had_and_not_when_it_was_asked_for() {
        let (clock, stream) = stream();
        let (mut owner, mut other) = (worker(&stream, "owner"), worker(&stream, "other"));
        clock.advance(Duration::from_secs(5));
        assert!(owner.poll().unwrap().is_some());
        let asked_at = Duration::ZERO;
        assert!(other.round(asked_at).unwrap().taken.is_empty());
        clock.advance(Duration::from_secs(8));
        assert!(other.round(clock.monotonic()).unwrap().taken.is_empty(), "the lease lasts a second more");
        clock.advance(Duration::from_secs(1));
        assert_eq!(other.round(clock.monotonic()).unwrap().taken.len(), 1);
    }

    #[test]
    fn leases_of_shards_that_are_done_are_observed_no_more() {
        let (clock, stream) = stream();
        let parent = stream.open_shards()[0];
        let (lower, upper) = stream.split_shard(parent, None).unwrap();
        let (mut owner, mut other) = (worker(&stream, "owner"), worker(&stream, "other"));
        let observed = |worker: &Worker| {
            let mut observed: Vec<_> = worker.observed.0.keys().copied().collect();
            observed.sort_unstable();
            observed
        };
        assert!(owner.poll().unwrap().is_some());
        other.round(clock.monotonic()).unwrap();
        assert_eq!(observed(&other), [parent]);
        while let Some(work) = owner.poll().unwrap() {
            if let Work::Ended(shard_id) = work {
                owner.finish(shard_id).unwrap();
            }
        }
        other.round(clock.monotonic()).unwrap();
        assert_eq!(observed(&other), [lower, upper]);
    }
}
