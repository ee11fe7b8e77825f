//! What expires: by age, by bytes, by request.
//!
//! Whole segments go, from the old end of a shard. The manifest records it first, durably; then the files are removed. A reader
//! that holds a segment reads it to its end.

use crate::sync::atomic::Ordering;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::{Member, Stream, StreamInner, Topology};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::format::{ClosedShard, ManifestState};
use crate::manifest::Manifest;
use crate::segment::Visibility;
use crate::shard::{Removal, SegmentSummary};
use crate::storage::Fault;
use crate::trace::event;
use crate::types::{RetentionPeriod, SequenceNumber, ShardId, Timestamp};

/// What a round of retention removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TrimReport {
    /// Segment files.
    pub segments_removed: u64,
    /// Their bytes on the disk.
    pub bytes_removed: u64,
    /// Their records.
    pub records_removed: u64,
    /// Closed shards whose last record expired: they are no longer listed.
    pub shards_removed: Vec<ShardId>,
}

/// Tells when the wall clock may be believed as far as deleting goes, and passing over for good what is there.
///
/// A clock that leaps forward would expire everything at once. So a step that is further than the monotonic clock
/// accounts for deletes nothing until a second reading, taken later by the monotonic clock, agrees with it.
#[derive(Debug)]
pub(super) struct DeletionClock {
    /// The last reading that was believed; none yet after an opening, since the clock may have leapt before it.
    believed: Option<Reading>,
    /// The first reading beyond a leap.
    suspect: Option<Reading>,
}

/// The wall clock and the monotonic one, read together.
type Reading = (Timestamp, Duration);

/// How far the two clocks may drift apart between two looks: half of the retention period, within these bounds. Less could not be told from how clocks are read and set.
const TOLERANCE_MS: RangeInclusive<u64> = 1_000..=60_000;
/// How much later a second reading has to be.
const SECOND_LOOK: Duration = Duration::from_secs(1);

impl DeletionClock {
    pub(super) fn new(clock: &dyn Clock) -> Self {
        Self { believed: None, suspect: Some((clock.now(), clock.monotonic())) }
    }

    /// The time, if it is believed where records are kept for so long.
    fn now(&mut self, clock: &dyn Clock, period_ms: u64) -> Option<Timestamp> {
        let reading = (clock.now(), clock.monotonic());
        let tolerance = (period_ms / 2).clamp(*TOLERANCE_MS.start(), *TOLERANCE_MS.end());
        let is_doubtful = self.believed.is_none_or(|believed| leapt(believed, reading, tolerance));
        if is_doubtful && !self.agrees(reading, tolerance) {
            return None;
        }
        self.suspect = None;
        self.believed = Some(reading);
        Some(reading.0)
    }

    /// Whether an earlier reading beyond the leap confirms this one; else this one is kept to be confirmed.
    fn agrees(&mut self, reading: Reading, tolerance: u64) -> bool {
        let is_behind = |suspect: &Reading| reading.0 >= suspect.0 && !leapt(*suspect, reading, tolerance);
        if let Some(suspect) = self.suspect.filter(is_behind) {
            return reading.1 >= suspect.1.saturating_add(SECOND_LOOK);
        }
        self.suspect = Some(reading);
        false
    }
}

fn leapt(before: Reading, after: Reading, tolerance: u64) -> bool {
    let passed = u64::try_from(after.1.saturating_sub(before.1).as_millis()).unwrap_or(u64::MAX);
    after.0.millis_since(before.0) > passed.saturating_add(tolerance)
}

impl Stream {
    /// The retention period as it is now.
    pub fn retention(&self) -> RetentionPeriod {
        match self.inner.context.retention.load(Ordering::Relaxed) {
            u64::MAX => RetentionPeriod::Unlimited,
            millis => RetentionPeriod::Millis(millis),
        }
    }

    /// Lengthens the retention period. What was trimmed does not come back. The present value is accepted and changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for a period that is shorter than the present one, or out of its range; [`Error::Io`], after which the new period may be in force in the
    /// next opening.
    pub fn increase_retention(&self, period: impl Into<RetentionPeriod>) -> Result<()> {
        let period = period.into();
        self.inner.change_retention(period, |present| period < present, "shorter", "decrease_retention")
    }

    /// Shortens the retention period: records older than it are out of reach for new readers at once. The present value is accepted and changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for a period that is longer than the present one, or out of its range; [`Error::Io`], after which the new period may be in force in the
    /// next opening.
    pub fn decrease_retention(&self, period: impl Into<RetentionPeriod>) -> Result<()> {
        let period = period.into();
        self.inner.change_retention(period, |present| period > present, "longer", "increase_retention")
    }

    /// Sets the byte budget of the whole stream; none removes it. The oldest sealed segments go until the files of the
    /// rest fit.
    pub fn set_retention_bytes(&self, bytes: Option<u64>) -> Result<()> {
        self.inner.change(|state| state.options.retention_bytes = bytes)
    }

    /// Removes what has expired by age and what is above the byte budget, now. The background thread does so
    /// every few seconds.
    pub fn enforce_retention(&self) -> Result<TrimReport> {
        self.inner.writable()?;
        self.inner.enforce_retention()
    }

    /// Moves a shard's trim horizon up to `before`: new readers find nothing below it, and segments that lie wholly below are removed.
    /// A `before` below the present horizon changes nothing. It needs room for a new manifest: on a disk without any it is
    /// refused, as are all changes.
    ///
    /// # Errors
    ///
    /// [`Error::ShardNotFound`]; [`Error::BeyondTail`] for a number above the next one; [`Error::Io`], after which the new horizon may be in force in the next opening.
    pub fn trim_shard(&self, shard_id: ShardId, before: SequenceNumber) -> Result<TrimReport> {
        self.inner.writable()?;
        let mut manifest = self.inner.manifest.lock();
        self.inner.writable()?; // may have been closed while this waited
        let member = self.inner.member(shard_id)?;
        member.shard.sync().map_err(Error::of_shard(shard_id))?; // the horizon is kept: it must not be ahead of the records
        let next = member.shard.next(Visibility::Durable);
        if before > next {
            return Err(Error::BeyondTail { shard_id, requested: before, next });
        }
        let mut trim = Trim { horizon: Some((shard_id, before)), ..Default::default() };
        trim.remove(&member, member.shard.removal(|segment| segment.next <= before)?);
        let mut report = TrimReport::default();
        self.inner.trim(&mut manifest, &trim, &mut report)?;
        Ok(report)
    }
}

impl StreamInner {
    /// Before which arrival records are expired for good; nothing where none are, or the clock is not to be believed.
    pub(super) fn believed_cutoff(&self) -> Option<Timestamp> {
        self.context.cutoff(self.believed_now()?)
    }

    fn believed_now(&self) -> Option<Timestamp> {
        let period_ms = self.context.retention.load(Ordering::Relaxed);
        self.deletion_clock.lock().now(self.context.clock.as_ref(), period_ms)
    }

    fn change_retention(
        &self,
        period: RetentionPeriod,
        is_wrong: impl FnOnce(RetentionPeriod) -> bool,
        comparison: &str,
        other: &str,
    ) -> Result<()> {
        if !period.is_valid() {
            return Err(Error::invalid(
                "retention",
                format!("{period} is not within 1 ms..=8760 h, nor unlimited"),
            ));
        }
        self.writable()?;
        let mut manifest = self.manifest.lock();
        let present = manifest.state().options.retention;
        if is_wrong(present) {
            let reason = format!("{period} is {comparison} than the present {present}: use {other}");
            return Err(Error::invalid("retention", reason));
        }
        let hidden = match self.believed_cutoff() {
            Some(cutoff) if period > present => self.expired_now(cutoff)?,
            _ => Vec::new(), // a time that is not believed hides nothing for good
        };
        self.change_locked(&mut manifest, |state| {
            state.options.retention = period;
            for (id, horizon) in &hidden {
                if let Some(entry) = state.shard_mut(*id) {
                    entry.next = entry.next.max(*horizon);
                    entry.horizon = entry.horizon.max(*horizon);
                }
            }
        })?;
        let topology = self.topology();
        for (id, horizon) in hidden {
            if let Some(member) = topology.shards.get(&id) {
                member.shard.raise_horizon(horizon); // not before it is durable: what it takes from a producer's memory would come back
            }
        }
        self.context.retention.store(period.as_millis().unwrap_or(u64::MAX), Ordering::Relaxed);
        Ok(())
    }

    /// What retention hides of each shard now: a longer period brings nothing back.
    fn expired_now(&self, cutoff: Timestamp) -> Result<Vec<(ShardId, SequenceNumber)>> {
        let mut horizons = Vec::new();
        for (id, member) in &self.topology().shards {
            let shard = &member.shard;
            let durable = shard.next(Visibility::Durable);
            let horizon = shard.trim_horizon(Some(cutoff)).map_err(Error::of_shard(*id))?.min(durable);
            horizons.push((*id, horizon));
        }
        Ok(horizons)
    }

    fn change(&self, change: impl FnOnce(&mut ManifestState)) -> Result<()> {
        self.writable()?;
        self.change_locked(&mut self.manifest.lock(), change)
    }

    pub(super) fn change_locked(
        &self,
        manifest: &mut Manifest,
        change: impl FnOnce(&mut ManifestState),
    ) -> Result<()> {
        self.writable()?; // may have been closed while this waited
        let mut state = manifest.state().clone();
        change(&mut state);
        if let Some((option, reason)) = state.options.fault() {
            return Err(Error::invalid(option, reason));
        }
        manifest.replace(state).map_err(|error| error.into_fault().into())
    }

    /// A shard that fails, of which a segment is damaged or cannot be removed, keeps no other one as it is: it is told at the end.
    pub(super) fn enforce_retention(&self) -> Result<TrimReport> {
        let mut manifest = self.manifest.lock();
        self.writable()?;
        let mut report = TrimReport::default();
        let mut outcome = Ok(());
        if let Some(now) = self.believed_now() {
            outcome = self.trim_by_age(&mut manifest, now, &mut report);
        }
        if let Some(budget) = manifest.state().options.retention_bytes {
            outcome = outcome.and(self.trim_by_bytes(&mut manifest, budget, &mut report));
        }
        outcome.map(|()| report)
    }

    fn trim_by_age(&self, manifest: &mut Manifest, now: Timestamp, report: &mut TrimReport) -> Result<()> {
        let Some(period) = manifest.state().options.retention.as_millis() else {
            return Ok(());
        };
        let cutoff = now.minus_millis(period);
        let mut trim = Trim::default();
        let mut outcome = Ok(());
        let topology = self.topology();
        for member in topology.shards.values() {
            outcome = outcome.and(trim.add_expired(member, cutoff, &topology));
        }
        outcome.and(self.trim(manifest, &trim, report))
    }

    /// Removes the oldest sealed segments of the stream until the others' files fit the budget.
    fn trim_by_bytes(&self, manifest: &mut Manifest, budget: u64, report: &mut TrimReport) -> Result<()> {
        let topology = self.topology();
        let mut segments = Vec::new();
        let mut outcome = Ok(());
        for (id, member) in &topology.shards {
            match member.shard.segment_summaries() {
                Ok(found) => segments.extend(found.into_iter().map(|segment| (*id, segment))),
                // What is not known of cannot go, nor make others go.
                Err(fault) => outcome = outcome.and(Err(fault.into())),
            }
        }
        let surplus = Surplus::above(budget, &segments);
        let mut trim = Trim::default();
        for member in topology.shards.values() {
            outcome = outcome.and(trim.add_surplus(member, &surplus, &topology));
        }
        outcome.and(self.trim(manifest, &trim, report))
    }

    /// Records what is to go in the manifest, then removes it.
    fn trim(&self, manifest: &mut Manifest, trim: &Trim, report: &mut TrimReport) -> Result<()> {
        if trim.is_empty() {
            return Ok(());
        }
        let topology = self.topology();
        let mut state = manifest.state().clone();
        trim.record(&mut state);
        for entry in state.shards.iter_mut().filter(|entry| entry.is_open()) {
            if let Some(member) = topology.shards.get(&entry.id) {
                entry.next = entry.next.max(member.shard.next(Visibility::Durable));
                // With its last segment the files say no longer when its last record arrived.
                entry.last_arrival = entry.last_arrival.max(member.shard.last_arrival());
            }
        }
        manifest.replace(state).map_err(|error| Error::from(error.into_fault()))?;
        self.publish(manifest.state(), Vec::new());
        for entry in &manifest.state().shards {
            if let Some(member) = topology.shards.get(&entry.id) {
                member.shard.raise_horizon(entry.horizon);
            }
        }
        let mut outcome = Ok(()); // what stays on the disk is removed by the next opening
        for (member, removal) in &trim.removals {
            let removed = member.shard.remove(removal);
            if removed.is_ok() {
                report.add(removal);
                event!(debug, shard = %member.shard.id(), first = %removal.first, "segments removed");
            }
            outcome = outcome.and(removed);
        }
        for member in trim.expired.values() {
            let directory = member.shard.directory();
            let removed = self.context.storage.remove_dir(directory).map_err(Fault::io("remove", directory));
            if removed.is_ok() {
                report.shards_removed.push(member.shard.id());
            }
            outcome = outcome.and(removed);
        }
        Ok(outcome?)
    }
}

/// What is above a byte budget.
struct Surplus {
    /// Where what stays of a shard starts.
    ends: BTreeMap<ShardId, SequenceNumber>,
    /// When the oldest record arrived that stays; nothing if none does.
    oldest: Option<Timestamp>,
}

impl Surplus {
    fn above(budget: u64, segments: &[(ShardId, SegmentSummary)]) -> Self {
        let mut total: u64 = segments.iter().map(|(_, segment)| segment.disk_bytes).sum();
        let mut sealed: Vec<_> = segments.iter().filter(|(_, segment)| segment.sealed).collect();
        // Within a shard, arrival times do not fall: the oldest first is also the front first.
        sealed.sort_by_key(|(id, segment)| (segment.last_arrival, *id, segment.first));
        let mut ends = BTreeMap::new();
        for (id, segment) in sealed {
            if total <= budget {
                break;
            }
            total -= segment.disk_bytes;
            ends.insert(*id, segment.next);
        }
        let stays =
            |(id, segment): &&(ShardId, SegmentSummary)| ends.get(id).is_none_or(|end| segment.next > *end);
        let oldest = segments.iter().filter(stays).map(|(_, segment)| segment.first_arrival).min();
        Self { ends, oldest }
    }
}

/// What is to go.
#[derive(Default)]
struct Trim {
    /// Segments from the front of shards.
    removals: Vec<(Member, Removal)>,
    /// Closed shards that hold nothing any more.
    expired: BTreeMap<ShardId, Member>,
    /// A shard's new trim horizon.
    horizon: Option<(ShardId, SequenceNumber)>,
}

impl Trim {
    fn is_empty(&self) -> bool {
        self.removals.is_empty() && self.expired.is_empty() && self.horizon.is_none()
    }

    /// Adds what of a shard arrived before `cutoff`.
    fn add_expired(&mut self, member: &Member, cutoff: Timestamp, topology: &Topology) -> Result<()> {
        member.shard.retire_expired(cutoff).map_err(Error::of_shard(member.shard.id()))?;
        let removal = member.shard.removal(|segment| segment.last_arrival < cutoff)?;
        let is_empty = removal.first >= member.entry.next;
        // Not before what its parents hold, whose last arrival it has: its children would not wait for them. A clock may have gone back since.
        let is_old = |closed: ClosedShard| closed.at.max(member.entry.last_arrival) < cutoff;
        if is_empty && member.entry.closed.is_some_and(is_old) {
            self.take_off_the_list(member, topology);
        }
        self.remove(member, removal);
        Ok(())
    }

    /// Adds what of a shard is above the byte budget. A closed shard that had nothing goes once all that is left arrived behind its end.
    fn add_surplus(&mut self, member: &Member, surplus: &Surplus, topology: &Topology) -> Result<()> {
        let end = surplus.ends.get(&member.shard.id()).copied().unwrap_or_default();
        let removal = member.shard.removal(|segment| segment.next <= end)?;
        let is_empty = removal.first >= member.entry.next;
        let is_passed = |closed: ClosedShard| {
            let at = closed.at.max(member.entry.last_arrival);
            !removal.is_empty() || surplus.oldest.is_none_or(|oldest| at < oldest)
        };
        if is_empty && member.entry.closed.is_some_and(is_passed) {
            self.take_off_the_list(member, topology);
        }
        self.remove(member, removal);
        Ok(())
    }

    /// Unless a parent stays, be it damaged: the children would not wait for what it holds. Parents come first.
    fn take_off_the_list(&mut self, member: &Member, topology: &Topology) {
        let stays = |id: &ShardId| topology.shards.contains_key(id) && !self.expired.contains_key(id);
        if !member.entry.parents.iter().any(stays) {
            self.expired.insert(member.shard.id(), member.clone());
        }
    }

    fn remove(&mut self, member: &Member, removal: Removal) {
        if !removal.is_empty() {
            self.removals.push((member.clone(), removal));
        }
    }

    /// Takes it out of the manifest.
    fn record(&self, state: &mut ManifestState) {
        for (member, removal) in &self.removals {
            if let Some(entry) = state.shard_mut(member.shard.id()) {
                entry.first = removal.first;
                entry.horizon = entry.horizon.max(removal.first);
                entry.next = entry.next.max(removal.first); // sealed, and so durable
            }
        }
        if let Some((id, before)) = self.horizon
            && let Some(entry) = state.shard_mut(id)
        {
            entry.horizon = entry.horizon.max(before);
            entry.next = entry.next.max(before); // below the durable end, as was checked
        }
        state.shards.retain(|entry| !self.expired.contains_key(&entry.id));
    }
}

impl TrimReport {
    fn add(&mut self, removal: &Removal) {
        for segment in &removal.segments {
            self.segments_removed += 1;
            self.bytes_removed += segment.disk_bytes;
            self.records_removed += segment.next.since(segment.first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    const DAY: Duration = Duration::from_secs(86_400);
    const DAY_MS: u64 = 86_400_000;

    #[test]
    fn time_that_really_passed_is_believed() {
        let clock = ManualClock::default();
        let mut deletion = DeletionClock::new(&clock);
        clock.advance(400 * DAY);
        assert_eq!(deletion.now(&clock, DAY_MS), Some(clock.now()));
    }

    #[test]
    fn a_leap_is_believed_at_the_second_look_only() {
        let clock = ManualClock::default();
        let mut deletion = DeletionClock::new(&clock);
        clock.set(Timestamp::from_millis(clock.now().as_millis() + 86_400_000 * 365));
        assert_eq!(deletion.now(&clock, DAY_MS), None);
        assert_eq!(deletion.now(&clock, DAY_MS), None, "no time has passed since the first look");
        clock.advance(Duration::from_secs(2));
        assert_eq!(deletion.now(&clock, DAY_MS), Some(clock.now()));
    }

    #[test]
    fn a_leap_behind_a_leap_is_looked_at_twice_itself() {
        let clock = ManualClock::default();
        let leap = |days: i64| clock.set(Timestamp::from_millis(clock.now().as_millis() + 86_400_000 * days));
        let mut deletion = DeletionClock::new(&clock);
        for days in [400, 500] {
            leap(days);
            assert_eq!(deletion.now(&clock, DAY_MS), None, "{days}");
            clock.advance(Duration::from_secs(2));
        }
        assert_eq!(deletion.now(&clock, DAY_MS), Some(clock.now()));
    }

    #[test]
    fn clocks_may_drift_apart_by_a_minute_between_two_looks() {
        let clock = ManualClock::default();
        let mut deletion = DeletionClock::new(&clock);
        clock.advance(Duration::from_secs(2));
        assert_eq!(deletion.now(&clock, DAY_MS), Some(clock.now()));
        for (millis, is_believed) in [(60_000, true), (60_001, false)] {
            clock.set(Timestamp::from_millis(clock.now().as_millis() + millis));
            assert_eq!(deletion.now(&clock, DAY_MS).is_some(), is_believed, "{millis}");
        }
    }

    #[test]
    fn clocks_may_drift_apart_by_half_the_period_where_that_is_less() {
        for (period_ms, drift) in [(30_000, 15_000), (1, 1_000), (u64::MAX, 60_000)] {
            let clock = ManualClock::default();
            let mut deletion = DeletionClock::new(&clock);
            clock.advance(Duration::from_secs(2));
            assert_eq!(deletion.now(&clock, period_ms), Some(clock.now()));
            for (millis, is_believed) in [(drift, true), (drift + 1, false)] {
                clock.set(Timestamp::from_millis(clock.now().as_millis() + millis));
                assert_eq!(deletion.now(&clock, period_ms).is_some(), is_believed, "{period_ms}: {millis}");
            }
        }
    }

    #[test]
    fn a_leap_that_is_taken_back_deletes_nothing() {
        let clock = ManualClock::default();
        let mut deletion = DeletionClock::new(&clock);
        clock.advance(Duration::from_secs(2));
        let before = clock.now();
        assert_eq!(deletion.now(&clock, DAY_MS), Some(before));
        clock.set(Timestamp::from_millis(i64::MAX));
        assert_eq!(deletion.now(&clock, DAY_MS), None);
        clock.set(before);
        clock.advance(Duration::from_secs(2));
        assert_eq!(deletion.now(&clock, DAY_MS), Some(clock.now()));
        clock.set(Timestamp::from_millis(i64::MAX));
        assert_eq!(deletion.now(&clock, DAY_MS), None, "the first leap's suspicion is forgotten");
    }
}
