//! One shard that the source has: its records spread over its lanes, and how far it is done.

use super::Policy;
use super::job::{Call, Outcome};
use super::lane::{Completion, Lane, Round};
use super::progress::Progress;
use super::windows::{Window, lane_of};
use crate::consumer::RecordPosition;
use crate::error::Result;
use crate::format::WindowState;
use crate::limits::MAX_EVENT_BATCHES_BEHIND;
use crate::segment::Record;
use crate::types::{HashKeyRange, ShardId, Timestamp};

#[derive(Debug)]
pub(super) struct SourceShard {
    /// Which time that the source has the shard.
    pub(super) turn: u64,
    pub(super) range: HashKeyRange,
    lanes: Vec<Lane>,
    progress: Progress,
    /// Every record that arrived before it was read.
    complete_to: Timestamp,
    is_ended: bool,
    /// Whether what its parents left is on disk still.
    pub(super) has_inheritance: bool,
    /// Whether it gives nothing for now, having given enough.
    pub(super) is_paused: bool,
}

impl SourceShard {
    pub(super) fn new(
        (shard_id, range): (ShardId, HashKeyRange),
        turn: u64,
        inherited: Vec<WindowState>,
        policy: &Policy,
    ) -> Self {
        let mut shard = Self {
            turn,
            range,
            lanes: (0..policy.options.lanes).map(|index| Lane::new(shard_id, index)).collect(),
            progress: Progress::default(),
            complete_to: Timestamp::MIN,
            is_ended: false,
            has_inheritance: !inherited.is_empty(),
            is_paused: false,
        };
        shard.inherit(inherited, policy);
        shard
    }

    fn inherit(&mut self, mut states: Vec<WindowState>, policy: &Policy) {
        states.sort_unstable_by_key(|state| (state.start, state.end)); // those of two parents
        for state in states {
            let window = Window { start: state.start, end: state.end };
            self.progress.inherit(window);
            if let Some(lane) = self.lane_of(&state.partition_key, policy) {
                lane.inherit(window, state);
            }
        }
    }

    fn lane_of(&mut self, partition_key: &str, policy: &Policy) -> Option<&mut Lane> {
        let index = lane_of(partition_key, policy.hash, policy.options.lanes);
        self.lanes.get_mut(index as usize)
    }

    // ---- what comes in ----

    pub(super) fn read(&mut self, records: Vec<Record>, round: Round<'_>) {
        for record in records {
            let window = round.policy.window_ms.map(|length| Window::of(record.arrival(), length));
            self.progress.read(RecordPosition::from(&record), window);
            self.complete_to = self.complete_to.max(record.arrival());
            if let Some(lane) = self.lane_of(record.partition_key(), round.policy) {
                lane.push(record, window, round.monotonic);
            }
        }
    }

    /// Whether more should be read: there is less than a batch for each lane, and one lane that gets no further did not let the others run far ahead.
    pub(super) fn has_room(&self, policy: &Policy) -> bool {
        let queued: usize = self.lanes.iter().map(Lane::queued).sum();
        queued < self.batch_of_each_lane(policy) && !self.is_far_ahead(policy)
    }

    fn is_far_ahead(&self, policy: &Policy) -> bool {
        self.progress.pending() >= self.batch_of_each_lane(policy).saturating_mul(MAX_EVENT_BATCHES_BEHIND)
    }

    fn batch_of_each_lane(&self, policy: &Policy) -> usize {
        policy.options.batch_records.saturating_mul(self.lanes.len())
    }

    /// At its tail there was nothing more: what arrived before this time was all read.
    pub(super) fn reach(&mut self, time: Timestamp) {
        self.complete_to = self.complete_to.max(time);
    }

    pub(super) fn end(&mut self) {
        self.is_ended = true;
    }

    // ---- what is to be done ----

    /// The calls that are to be made now, by lane; none for lanes that are taken.
    pub(super) fn calls(&mut self, is_taken: impl Fn(u32) -> bool, round: Round<'_>) -> Vec<(u32, Call)> {
        // Where nothing more is read until the first records are done, nothing more is gathered for their batch.
        let (complete_to, is_last) = (self.complete_to, self.is_ended || self.is_far_ahead(round.policy));
        let lanes = (0..).zip(&mut self.lanes).filter(|(index, _)| !is_taken(*index));
        lanes.filter_map(|(index, lane)| Some((index, lane.next_call(complete_to, is_last, round)?))).collect()
    }

    pub(super) fn complete(&mut self, lane: u32, outcome: Outcome, round: Round<'_>) -> Result<()> {
        let Some(lane) = self.lanes.get_mut(lane as usize) else { return Ok(()) };
        let Completion { done, stop } = lane.complete(outcome, round);
        for number in done {
            self.progress.done(number);
        }
        stop
    }

    // ---- how far it is ----

    /// The checkpoint to store, if there is a new one.
    pub(super) fn checkpoint(&mut self) -> Option<RecordPosition> {
        let lanes = &self.lanes;
        self.progress.release(self.complete_to, |window| lanes.iter().any(|lane| lane.has_open(window)));
        self.progress.checkpoint()
    }

    pub(super) fn stored(&mut self, at: RecordPosition) {
        self.progress.stored(at);
    }

    /// Whether it waits for the end of a window.
    pub(super) fn has_open_window(&self) -> bool {
        self.progress.has_open()
    }

    /// Whether all windows that its parents left are closed.
    pub(super) fn is_through_inheritance(&self) -> bool {
        !self.progress.has_inherited()
    }

    /// Whether it ended and all of it is done, but for windows that its children go on with.
    pub(super) fn is_finished(&self) -> bool {
        let is_idle = self.lanes.iter().all(|lane| lane.is_idle(self.complete_to, self.lanes.len()));
        self.is_ended && self.progress.is_idle() && is_idle
    }

    /// Has the states closed that none of these takes. Whether there are any.
    pub(super) fn close_orphans(&mut self, children: &[HashKeyRange]) -> bool {
        self.lanes.iter_mut().map(|lane| lane.close_orphans(children)).fold(false, |any, one| any | one)
    }

    /// The open states that a child takes, in the order in which they are kept.
    pub(super) fn states_of(&self, child: HashKeyRange) -> Vec<WindowState> {
        let states = self.lanes.iter().flat_map(Lane::states);
        let mut states: Vec<_> = states.filter(|state| child.contains(state.hash_key)).collect();
        states.sort_unstable_by(|a, b| a.order().cmp(&b.order()));
        states
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::job::Call;
    use super::super::windows::Changes;
    use super::*;
    use crate::event_source::EventSourceOptions;
    use crate::limits::{MAX_KEY_STATE_BYTES, MAX_SHARD_STATE_BYTES};
    use crate::types::{HashKey, PartitionHash, StreamId};

    const SHARD: (ShardId, HashKeyRange) = (ShardId::new(4), HashKeyRange::FULL);

    fn policy(lanes: u32) -> Policy {
        Policy {
            options: EventSourceOptions::new().lanes(lanes),
            window_ms: Some(10),
            has_destination: false,
            stream_id: StreamId::new(1),
            consumer: "c".to_owned(),
            hash: PartitionHash::Xxh3,
        }
    }

    fn state(hash_key: u128, partition_key: &str) -> WindowState {
        WindowState {
            start: Timestamp::from_millis(0),
            end: Timestamp::from_millis(10),
            hash_key: HashKey::new(hash_key),
            partition_key: partition_key.to_owned(),
            state: vec![1],
        }
    }

    /// A child expired before its parent was done.
    #[test]
    fn states_that_no_child_takes_are_closed_by_the_shard_itself() {
        for lanes in [1, 4] {
            let policy = policy(lanes);
            let round = Round { wall: Timestamp::from_millis(5), monotonic: Duration::ZERO, policy: &policy };
            let inherited = vec![state(1, "a"), state(1, "b"), state(9, "c")];
            let mut shard = SourceShard::new(SHARD, 1, inherited, &policy);
            shard.end();
            assert!(shard.is_finished() && shard.calls(|_| false, round).is_empty());
            let child = HashKeyRange::new(HashKey::new(9), HashKey::MAX).unwrap();
            assert!(shard.close_orphans(&[child]) && !shard.is_finished());
            let mut closed = Vec::new();
            for (lane, call) in shard.calls(|_| false, round) {
                let Call::Close(window) = call else { panic!("{call:?}") };
                closed.extend(window.states.iter().map(|state| state.partition_key.clone()));
                let outcome = Outcome { result: Ok(()), changes: Changes::default() };
                shard.complete(lane, outcome, round).unwrap();
            }
            closed.sort_unstable();
            assert_eq!(closed, ["a", "b"]);
            assert!(shard.is_finished() && !shard.close_orphans(&[child]));
            assert_eq!(shard.states_of(child), [state(9, "c")]);
        }
    }

    /// Each of two parents left less than a shard may have open.
    #[test]
    fn what_two_parents_left_is_given_to_early_calls_before_it_is_too_much_for_a_child() {
        for lanes in [1, 4] {
            let policy = policy(lanes);
            let round = Round { wall: Timestamp::from_millis(5), monotonic: Duration::ZERO, policy: &policy };
            let keys = MAX_SHARD_STATE_BYTES / MAX_KEY_STATE_BYTES + 8;
            let large = |key: usize| {
                let state = state(key as u128, &key.to_string());
                WindowState { state: vec![1; MAX_KEY_STATE_BYTES], ..state }
            };
            let mut shard = SourceShard::new(SHARD, 1, (0..keys).map(large).collect(), &policy);
            shard.end();
            assert!(!shard.is_finished());
            for (lane, call) in shard.calls(|_| false, round) {
                assert!(matches!(call, Call::Close(window) if window.is_early));
                let outcome = Outcome { result: Ok(()), changes: Changes::default() };
                shard.complete(lane, outcome, round).unwrap();
            }
            assert!(shard.is_finished());
            let all = HashKeyRange::new(HashKey::new(0), HashKey::MAX).unwrap();
            assert!(shard.states_of(all).len() * MAX_KEY_STATE_BYTES < MAX_SHARD_STATE_BYTES);
        }
    }
}
