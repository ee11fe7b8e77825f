//! What is known of one shard: its load on average over several times, its age, its keys.

use std::time::Duration;

use super::keys::Keys;
use super::policy::CapacityPolicy;

/// The times that loads are averaged over, in minutes.
const MINUTES: [u32; 4] = [2, 5, 10, 20];
/// How old a shard is before it can be cold, and for how long it is before it is merged.
const OLD: Duration = minutes(20);
const COLD: Duration = minutes(10);
/// A shard that took nothing for so long is cold, whatever it took before.
const SILENT: Duration = minutes(20);

const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

/// What a shard has taken since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
}

/// Loads are shares of a shard's target: above 1, it is too much for one.
#[derive(Debug, Clone)]
pub(super) struct History {
    began: Duration,
    seen: Seen,
    /// Exponential averages over [`MINUTES`].
    averages: [f64; 4],
    cold_since: Option<Duration>,
    silent_since: Duration,
    pub(super) keys: Keys,
}

impl History {
    /// Of a shard that is seen for the first time.
    pub(super) fn new(seen: Seen, now: Duration) -> Self {
        let keys = Keys::default();
        Self { began: now, seen, averages: [0.0; 4], cold_since: None, silent_since: now, keys }
    }

    /// Takes in what the shard took in the time that passed; gives the load that this was.
    pub(super) fn observe(&mut self, policy: &CapacityPolicy, seen: Seen, passed: Duration, now: Duration) -> f64 {
        let records = seen.records.saturating_sub(self.seen.records);
        let bytes = seen.bytes.saturating_sub(self.seen.bytes);
        self.seen = seen;
        let load = policy.load_of(records, bytes) / passed.as_secs_f64();
        for (average, minutes) in self.averages.iter_mut().zip(MINUTES) {
            let share = -(-passed.as_secs_f64() / 60.0 / f64::from(minutes)).exp_m1();
            *average += share * (load - *average);
        }
        if records > 0 {
            self.silent_since = now;
        }
        self.cold_since = if self.looks_cold(now) { self.cold_since.or(Some(now)) } else { None };
        load
    }

    /// The number of the record behind those that were seen.
    pub(super) fn records(&self) -> u64 {
        self.seen.records
    }

    /// Its load, if that is too much for one shard.
    pub(super) fn excessive_load(&self, now: Duration) -> Option<f64> {
        let [two, five, ten, _] = self.averages;
        let is_old = |minutes: u64| self.age(now) >= Duration::from_secs(60 * minutes);
        let is_hot = (two > 5.0 && is_old(2)) || (five > 2.0 && is_old(5)) || (ten > 1.0 && is_old(10));
        is_hot.then(|| two.max(five).max(ten))
    }

    /// Whether its keys should be looked at: it may have to be split before long.
    pub(super) fn is_warm(&self, load: f64) -> bool {
        load.max(self.load()) > 0.5
    }

    /// Whether it is ready to be merged with a neighbour that is, too.
    pub(super) fn is_mergeable(&self, now: Duration) -> bool {
        let is_cold = self.cold_since.is_some_and(|since| now.saturating_sub(since) >= COLD);
        self.age(now) >= OLD && (is_cold || self.is_silent(now))
    }

    /// What it would add to a shard that it is merged into: the highest of its averages, or nothing once it is silent.
    pub(super) fn remaining_load(&self, now: Duration) -> f64 {
        if self.is_silent(now) { 0.0 } else { self.load() }
    }

    fn looks_cold(&self, now: Duration) -> bool {
        let [two, five, ten, twenty] = self.averages;
        self.age(now) >= OLD && two < 1.0 && five < 1.0 && ten < 1.0 && twenty < 0.5
    }

    fn is_silent(&self, now: Duration) -> bool {
        now.saturating_sub(self.silent_since) >= SILENT
    }

    fn load(&self) -> f64 {
        self.averages.into_iter().fold(0.0, f64::max)
    }

    fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.began)
    }
}
