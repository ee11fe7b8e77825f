//! How often the service may be asked, on its clock: token buckets for what it counts by the second, and times for what it counts by the day.
//!
//! None of it is on disk: after a restart all may be asked for again, by the day too.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use anabranch::ShardId;
use parking_lot::Mutex;

use crate::errors::Fault;
use crate::limits::{CALLS_PER_DAY_OF_STREAM, CALLS_PER_SECOND, CALLS_PER_SECOND_OF_STREAM, ITERATORS_PER_SECOND};

/// What a bucket holds is what so much time brings.
const DEPTH: Duration = Duration::from_secs(1);
/// How often buckets that are full are forgotten.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);
/// For how long a change counts that is counted by the day.
const DAY: Duration = Duration::from_secs(86_400);

/// The buckets of all accounts, regions and operations.
#[derive(Debug, Default)]
pub(crate) struct Rates(Mutex<Buckets<(String, String, &'static str)>>);

impl Rates {
    /// Counts a call, or refuses it.
    pub(crate) fn admit(
        &self,
        operation: &'static str,
        (account, region): (&str, &str),
        now: Duration,
    ) -> Result<(), Fault> {
        let Some(rate) = limit_of(&CALLS_PER_SECOND, operation) else { return Ok(()) };
        if self.0.lock().take((account.to_owned(), region.to_owned(), operation), rate, now) {
            return Ok(());
        }
        Err(Fault::limit(format!("Rate exceeded for {operation} under account {account}.")))
    }
}

/// What is counted by stream; it goes with its stream.
#[derive(Debug, Default)]
pub(crate) struct StreamRates {
    calls: Mutex<Buckets<&'static str>>,
    iterators: Mutex<Buckets<ShardId>>,
    changes: Mutex<BTreeMap<&'static str, Day>>,
}

impl StreamRates {
    /// Whether an operation may be called now, which counts then.
    pub(crate) fn take_call(&self, operation: &'static str, now: Duration) -> bool {
        let rate = limit_of(&CALLS_PER_SECOND_OF_STREAM, operation);
        rate.is_none_or(|rate| self.calls.lock().take(operation, rate, now))
    }

    /// Whether there may be another iterator of a shard now, which counts then.
    pub(crate) fn take_iterator(&self, shard_id: ShardId, now: Duration) -> bool {
        self.iterators.lock().take(shard_id, ITERATORS_PER_SECOND, now)
    }

    /// Whether an operation may change the stream once more in this day, which counts unless it is given back.
    pub(crate) fn take_change(&self, operation: &'static str, now: Duration) -> bool {
        let most = limit_of(&CALLS_PER_DAY_OF_STREAM, operation);
        most.is_none_or(|most| self.changes.lock().entry(operation).or_default().take(most as usize, now))
    }

    /// Of a change that came to nothing.
    pub(crate) fn give_change_back(&self, operation: &'static str, taken: Duration) {
        if let Some(day) = self.changes.lock().get_mut(operation) {
            day.give_back(taken);
        }
    }
}

fn limit_of(limits: &[(&str, u32)], operation: &str) -> Option<u32> {
    limits.iter().find(|(name, _)| *name == operation).map(|(_, limit)| *limit)
}

/// A bucket is the time at which it will be full again, as those of shards are. A full one equals a new one, so that only those in use are kept.
#[derive(Debug)]
struct Buckets<K> {
    full_at: BTreeMap<K, Duration>,
    /// When those that are full are looked for again: not with each call, which all others wait for.
    sweep_at: Duration,
}

impl<K> Default for Buckets<K> {
    fn default() -> Self {
        Self { full_at: BTreeMap::new(), sweep_at: Duration::ZERO }
    }
}

impl<K: Ord> Buckets<K> {
    /// Takes one of the calls that a second brings, if there is one.
    fn take(&mut self, key: K, rate: u32, now: Duration) -> bool {
        self.sweep(now);
        let full_at = self.full_at.entry(key).or_insert(now);
        let after = (*full_at).max(now) + DEPTH / rate;
        let is_there = after <= now + DEPTH;
        if is_there {
            *full_at = after;
        }
        is_there
    }

    fn sweep(&mut self, now: Duration) {
        if now >= self.sweep_at {
            self.full_at.retain(|_, full_at| *full_at > now);
            self.sweep_at = now + SWEEP_INTERVAL;
        }
    }
}

/// When something was done in the day that ends now, the earliest first.
#[derive(Debug, Default)]
struct Day(VecDeque<Duration>);

impl Day {
    fn take(&mut self, most: usize, now: Duration) -> bool {
        while self.0.front().is_some_and(|done| *done + DAY <= now) {
            self.0.pop_front();
        }
        let is_there = self.0.len() < most;
        if is_there {
            self.0.push_back(now);
        }
        is_there
    }

    fn give_back(&mut self, taken: Duration) {
        if let Some(place) = self.0.iter().rposition(|done| *done == taken) {
            self.0.remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operations;

    #[test]
    fn rates_are_of_operations_that_there_are() {
        let all = CALLS_PER_SECOND.iter().chain(&CALLS_PER_SECOND_OF_STREAM).chain(&CALLS_PER_DAY_OF_STREAM);
        for (name, rate) in all {
            assert!(operations::named(name).is_some() && *rate > 0, "{name}");
        }
    }

    #[test]
    fn a_second_brings_so_many_calls_and_buckets_in_rest_are_forgotten() {
        let (rates, own) = (Rates::default(), ("000000000000", "us-east-1"));
        let admit = |of, millis| rates.admit("CreateStream", of, Duration::from_millis(millis)).is_ok();
        assert_eq!([0; 6].map(|millis| admit(own, millis)), [true, true, true, true, true, false]);
        assert!(!admit(own, 199) && admit(own, 200) && !admit(own, 200), "one each fifth of a second");
        assert!(admit(("000000000001", "us-east-1"), 200) && admit(("000000000000", "eu-west-1"), 200));
        assert!((0..1_000).all(|_| rates.admit("PutRecord", own, Duration::ZERO).is_ok()));
        assert!(admit(own, 10_000));
        assert_eq!(rates.0.lock().full_at.len(), 1);
        // A bucket in rest that is still there holds no more than a new one.
        assert!(admit(own, 10_000) && rates.0.lock().sweep_at == Duration::from_millis(10_100));
        let later = [10_000 + 4 * 200; 6].map(|millis| admit(own, millis));
        assert_eq!(later, [true, true, true, true, true, false]);
    }

    #[test]
    fn a_day_ends_with_each_moment() {
        let (rates, hour) = (StreamRates::default(), Duration::from_secs(3_600));
        let take = |hours| rates.take_change("UpdateStreamMode", hour * hours);
        assert_eq!([0, 1, 2, 23].map(take), [true, true, false, false]);
        assert!(take(24) && !take(24), "that of hour 1 counts");
        rates.give_change_back("UpdateStreamMode", 24 * hour);
        assert!(take(24) && !take(24));
        rates.give_change_back("UpdateStreamMode", 7 * hour);
        assert!(!take(24), "nothing was done then");
        assert_eq!(rates.changes.lock().values().map(|day| day.0.len()).sum::<usize>(), 2);
        assert!((0..100).all(|_| rates.take_change("SplitShard", hour)));
    }
}
