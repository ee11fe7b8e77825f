//! Quotas on the clock: how much may pass a shard, and who pays for it.
//!
//! A bucket is one number, the time at which it will be full again (the *generic cell rate algorithm*, ITU-T I.371): it holds what one second
//! brings, less what flows in until then. An idle bucket equals a new one, so that only those in use are kept.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use super::put::Refused;
use super::{PutEntry, Stream, StreamInner, Topology};
use crate::error::{Error, Result};
use crate::limits::{CALL_BYTES, CALL_RECORDS, Quota, Quotas};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::types::ShardId;

/// What a bucket holds is what so much time brings.
const DEPTH: Duration = Duration::from_secs(1);

impl Stream {
    /// The quotas in force.
    pub fn quotas(&self) -> Quotas {
        self.inner.quotas.current()
    }

    /// Puts other quotas in force for this open stream and all its handles, readers that are at work included. All buckets are full then.
    pub fn set_quotas(&self, quotas: Quotas) {
        self.inner.quotas.set(quotas);
    }
}

/// The quotas of an open stream, and what was used of them.
#[derive(Debug, Default)]
pub(super) struct QuotaKeeper {
    /// Whether there are any: all that who is not throttled pays for.
    on: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    quotas: Quotas,
    meters: BTreeMap<(ShardId, Payer), Meter>,
}

/// Whose bucket it is, for each shard.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Payer {
    Writers,
    Readers,
    /// Dedicated readers, by their consumer's name.
    Dedicated(Arc<str>),
}

/// The bytes, and the records or the calls.
#[derive(Debug, Clone, Copy, Default)]
struct Meter {
    bytes: Bucket,
    count: Bucket,
}

/// What a read call may still give; one that may give nothing is over.
#[derive(Debug, Default)]
pub(super) struct Call {
    records: usize,
    bytes: u64,
}

/// What is to be put to a shard.
#[derive(Debug, Clone, Copy, Default)]
struct Load {
    bytes: u64,
    records: u64,
}

impl QuotaKeeper {
    pub(super) fn new(quotas: Quotas) -> Self {
        let keeper = Self::default();
        keeper.set(quotas);
        keeper
    }

    pub(super) fn set(&self, quotas: Quotas) {
        let mut state = self.state.lock();
        *state = State { quotas, meters: BTreeMap::new() };
        self.on.store(quotas != Quotas::none(), Ordering::Relaxed);
    }

    pub(super) fn current(&self) -> Quotas {
        self.state.lock().quotas
    }

    #[inline]
    pub(super) fn are_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }
}

// ---- those who write ----

impl StreamInner {
    /// Whether a record may be put to a shard; if so, it is counted.
    #[cold]
    pub(super) fn admit_put(&self, shard_id: ShardId, entry: &PutEntry<'_>) -> Result<()> {
        let mut load = Load::default();
        load.add(entry);
        self.admit_loads(&BTreeMap::from([(shard_id, load)]))
    }

    /// Whether a batch may be put, all of it; if so, it is counted.
    pub(super) fn admit(&self, entries: &[PutEntry<'_>]) -> Result<()> {
        if !self.quotas.are_on() {
            return Ok(());
        }
        let topology = self.topology();
        let mut loads = BTreeMap::<_, Load>::new();
        for entry in entries {
            loads.entry(self.shard_of(&topology, entry)).or_default().add(entry);
        }
        self.admit_loads(&loads)
    }

    /// Which records of a batch may be put, by their places; they are counted. Behind one that is refused, its shard takes no more, so that those of one key
    /// stay in order.
    pub(super) fn admit_each(&self, entries: &[PutEntry<'_>]) -> (Vec<usize>, Vec<Refused>) {
        if !self.quotas.are_on() {
            return ((0..entries.len()).collect(), Vec::new());
        }
        let topology = self.topology(); // one for all: what is behind a refused record does not go to a child of its shard meanwhile
        let (mut admitted, mut refused) = (Vec::new(), BTreeMap::<_, Refused>::new());
        for (index, entry) in entries.iter().enumerate() {
            let shard_id = self.shard_of(&topology, entry);
            if let Some((behind, _)) = refused.get_mut(&shard_id) {
                behind.push(index);
                continue;
            }
            match self.admit_put(shard_id, entry) {
                Ok(()) => admitted.push(index),
                Err(error) => drop(refused.insert(shard_id, (vec![index], error))),
            }
        }
        (admitted, refused.into_values().collect())
    }

    fn shard_of(&self, topology: &Topology, entry: &PutEntry<'_>) -> ShardId {
        topology.routes.shard_of(self.hash_key(entry.partition_key, entry.explicit_hash_key))
    }

    fn admit_loads(&self, loads: &BTreeMap<ShardId, Load>) -> Result<()> {
        let now = self.context.clock.monotonic();
        let mut state = self.quotas.state.lock();
        let Quotas { write_bytes, write_records, .. } = state.quotas;
        for (shard_id, load) in loads {
            let meter = state.meter(*shard_id, &Payer::Writers, now);
            meter.bytes.has(write_bytes, load.bytes, now).map_err(over(*shard_id, Quota::WriteBytes))?;
            meter.count.has(write_records, load.records, now).map_err(over(*shard_id, Quota::WriteRecords))?;
        }
        for (shard_id, load) in loads {
            let meter = state.meter(*shard_id, &Payer::Writers, now);
            meter.bytes.take(write_bytes, load.bytes, now);
            meter.count.take(write_records, load.records, now);
        }
        Ok(())
    }
}

impl Load {
    fn add(&mut self, entry: &PutEntry<'_>) {
        self.bytes += (entry.partition_key.len() + entry.data.len()) as u64;
        self.records += 1;
    }
}

// ---- those who read ----

impl StreamInner {
    /// Begins a call, unless one goes on; gives how many records it may still give.
    #[cold]
    pub(super) fn admit_read(&self, call: &mut Call, shard_id: ShardId, payer: &Payer) -> Result<usize> {
        if call.records > 0 {
            return Ok(call.records);
        }
        let now = self.context.clock.monotonic();
        let mut state = self.quotas.state.lock();
        let (bytes, calls) = state.quotas.of_reader(payer);
        let meter = state.meter(shard_id, payer, now);
        meter.bytes.is_open(bytes, now).map_err(over(shard_id, Quota::ReadBytes))?;
        meter.count.has(calls, 1, now).map_err(over(shard_id, Quota::ReadCalls))?;
        meter.count.take(calls, 1, now);
        *call = Call::begun(payer);
        Ok(call.records)
    }

    /// Counts what a call gave.
    #[cold]
    pub(super) fn count_read(
        &self,
        call: &mut Call,
        shard_id: ShardId,
        payer: &Payer,
        (records, bytes): (usize, u64),
    ) {
        call.give(records, bytes);
        let now = self.context.clock.monotonic();
        let mut state = self.quotas.state.lock();
        let (quota, _) = state.quotas.of_reader(payer);
        state.meter(shard_id, payer, now).bytes.take(quota, bytes, now);
    }
}

impl Call {
    fn begun(payer: &Payer) -> Self {
        match payer {
            Payer::Dedicated(_) => Self { records: 1, bytes: u64::MAX }, // looked at again for the next one
            Payer::Readers | Payer::Writers => Self { records: CALL_RECORDS, bytes: CALL_BYTES },
        }
    }

    fn give(&mut self, records: usize, bytes: u64) {
        let left = Self { records: self.records.saturating_sub(records), bytes: self.bytes.saturating_sub(bytes) };
        *self = if left.bytes == 0 { Self::default() } else { left };
    }

    /// The reader is at the tail.
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }
}

impl Quotas {
    /// Bytes and calls.
    fn of_reader(&self, payer: &Payer) -> (Option<NonZeroU64>, Option<NonZeroU64>) {
        match payer {
            Payer::Dedicated(_) => (self.dedicated_read_bytes, None),
            Payer::Readers | Payer::Writers => (self.shared_read_bytes, self.shared_read_calls),
        }
    }
}

fn over(shard_id: ShardId, quota: Quota) -> impl FnOnce(Duration) -> Error {
    move |retry_after| Error::ThroughputExceeded { shard_id, quota, retry_after }
}

// ---- buckets ----

impl State {
    fn meter(&mut self, shard_id: ShardId, payer: &Payer, now: Duration) -> &mut Meter {
        let place = (shard_id, payer.clone());
        if !self.meters.contains_key(&place) {
            self.meters.retain(|_, meter| !meter.bytes.is_full(now) || !meter.count.is_full(now));
        }
        self.meters.entry(place).or_default()
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    full_at: Duration,
    /// Nothing passes before.
    closed_until: Duration,
}

impl Bucket {
    fn is_full(&self, now: Duration) -> bool {
        self.full_at <= now
    }

    /// Whether it has so much, or is full: else how long to wait.
    fn has(&self, per_second: Option<NonZeroU64>, amount: u64, now: Duration) -> Result<(), Duration> {
        let Some(rate) = per_second else { return Ok(()) };
        let full_after = self.full_at.max(now).saturating_add(time_of(rate, amount));
        if self.is_full(now) || full_after <= now.saturating_add(DEPTH) {
            return Ok(());
        }
        let wait = full_after.saturating_sub(now.saturating_add(DEPTH));
        Err(rounded(wait.min(self.full_at.saturating_sub(now))))
    }

    /// Whether there is anything in it, and it is not closed: else how long to wait.
    fn is_open(&self, per_second: Option<NonZeroU64>, now: Duration) -> Result<(), Duration> {
        if per_second.is_none() || self.closed_until <= now {
            return Ok(());
        }
        Err(rounded(self.closed_until.saturating_sub(now)))
    }

    /// Takes so much, be it more than there is. What leaves it empty closes it until it is full again.
    fn take(&mut self, per_second: Option<NonZeroU64>, amount: u64, now: Duration) {
        let Some(rate) = per_second else { return };
        self.full_at = self.full_at.max(now).saturating_add(time_of(rate, amount));
        if self.full_at >= now.saturating_add(DEPTH) {
            self.closed_until = self.full_at;
        }
    }
}

/// How long it takes until so much came.
fn time_of(rate: NonZeroU64, amount: u64) -> Duration {
    let nanos = u128::from(amount) * 1_000_000_000 / u128::from(rate.get());
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// To whole milliseconds, upwards: who waits for it finds room, on a coarse clock too.
fn rounded(wait: Duration) -> Duration {
    Duration::from_millis(u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Amounts, and pauses in milliseconds before them.
    fn steps() -> impl Strategy<Value = Vec<(u64, u64)>> {
        vec((0..3_000_u64, 0..1_500_u64), 1..200)
    }

    proptest! {
        /// In no stretch of time passes more than that time brings, what a full bucket holds, and the one that was let in by a full bucket.
        #[test]
        fn no_more_passes_than_the_rate_and_the_depth(rate in 1..2_000_u64, steps in steps()) {
            let per_second = NonZeroU64::new(rate);
            let (mut bucket, mut now) = (Bucket::default(), Duration::ZERO);
            let mut passed = Vec::new();
            for (amount, pause) in steps {
                now += Duration::from_millis(pause);
                if bucket.has(per_second, amount, now).is_ok() {
                    bucket.take(per_second, amount, now);
                    passed.push((now, amount));
                }
            }
            for first in 0..passed.len() {
                let large = passed[first..].iter().map(|(_, amount)| *amount).max().unwrap_or(0);
                let mut sum = 0;
                for (at, amount) in &passed[first..] {
                    sum += amount;
                    let time = u64::try_from(at.saturating_sub(passed[first].0).as_millis()).unwrap();
                    let brought = rate * time; // in thousandths, as all here
                    prop_assert!(sum * 1_000 <= brought + (rate * 1_000).max(large * 1_000) + 1, "{sum} in {time} ms");
                }
            }
        }

        /// Who waits as long as it was told passes, and nobody passes a millisecond earlier.
        #[test]
        fn the_wait_is_as_long_as_it_has_to_be(rate in 1..2_000_u64, steps in steps()) {
            let per_second = NonZeroU64::new(rate);
            let (mut bucket, mut now) = (Bucket::default(), Duration::ZERO);
            for (amount, pause) in steps {
                now += Duration::from_millis(pause);
                for check in [Bucket::has as fn(&_, _, _, _) -> _, |bucket: &Bucket, rate, _, now| bucket.is_open(rate, now)] {
                    if let Err(wait) = check(&bucket, per_second, amount, now) {
                        prop_assert!(wait >= Duration::from_millis(1));
                        prop_assert!(check(&bucket, per_second, amount, now + wait).is_ok());
                        let earlier = now + wait.saturating_sub(Duration::from_millis(1));
                        prop_assert!(check(&bucket, per_second, amount, earlier).is_err());
                    }
                }
                bucket.take(per_second, amount, now);
            }
        }

        /// What an idle meter was dropped for, a new one gives.
        #[test]
        fn an_idle_bucket_is_as_a_new_one(rate in 1..2_000_u64, amount in 0..3_000_u64, next in 0..3_000_u64) {
            let per_second = NonZeroU64::new(rate);
            let mut bucket = Bucket::default();
            bucket.take(per_second, amount, Duration::ZERO);
            let idle = bucket.full_at + Duration::from_nanos(1);
            prop_assert!(bucket.is_full(idle) && bucket.is_open(per_second, idle).is_ok());
            let mut new = Bucket::default();
            prop_assert_eq!(bucket.has(per_second, next, idle), new.has(per_second, next, idle));
            bucket.take(per_second, next, idle);
            new.take(per_second, next, idle);
            prop_assert_eq!((bucket.full_at, bucket.closed_until.max(idle)), (new.full_at, new.closed_until.max(idle)));
        }
    }

    #[test]
    fn the_largest_amounts_and_times_are_no_panic() {
        let mut bucket = Bucket::default();
        for now in [Duration::ZERO, Duration::from_secs(u64::MAX / 2), Duration::MAX] {
            for _ in 0..3 {
                bucket.take(NonZeroU64::new(1), u64::MAX, now);
                let _ = (
                    bucket.has(NonZeroU64::new(u64::MAX), u64::MAX, now),
                    bucket.is_open(NonZeroU64::new(1), now),
                );
            }
        }
    }
}
