//! How often control operations may be called: token buckets on the service's clock.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;

use crate::errors::Fault;
use crate::limits::CALLS_PER_SECOND;

/// What a bucket holds is what so much time brings.
const DEPTH: Duration = Duration::from_secs(1);
/// How often buckets that are full are forgotten.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

/// The buckets of all accounts, regions and operations.
///
/// A bucket is the time at which it will be full again, as those of shards are. A full one equals a new one, so that only those in use are kept.
#[derive(Debug, Default)]
pub(crate) struct Rates(Mutex<Buckets>);

#[derive(Debug, Default)]
struct Buckets {
    full_at: BTreeMap<(String, String, &'static str), Duration>,
    /// When those that are full are looked for again: not with each call, which all others wait for.
    sweep_at: Duration,
}

impl Rates {
    /// Counts a call, or refuses it.
    pub(crate) fn admit(
        &self,
        operation: &'static str,
        (account, region): (&str, &str),
        now: Duration,
    ) -> Result<(), Fault> {
        let Some((_, rate)) = CALLS_PER_SECOND.iter().find(|(name, _)| *name == operation) else { return Ok(()) };
        let mut buckets = self.0.lock();
        buckets.sweep(now);
        let full_at = buckets.full_at.entry((account.to_owned(), region.to_owned(), operation)).or_insert(now);
        let after = (*full_at).max(now) + DEPTH / *rate;
        if after > now + DEPTH {
            return Err(Fault::limit(format!("Rate exceeded for {operation} under account {account}.")));
        }
        *full_at = after;
        Ok(())
    }
}

impl Buckets {
    fn sweep(&mut self, now: Duration) {
        if now >= self.sweep_at {
            self.full_at.retain(|_, full_at| *full_at > now);
            self.sweep_at = now + SWEEP_INTERVAL;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operations;

    #[test]
    fn rates_are_of_operations_that_there_are() {
        assert!(CALLS_PER_SECOND.iter().all(|(name, rate)| operations::named(name).is_some() && *rate > 0));
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
}
