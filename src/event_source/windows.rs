//! Tumbling windows: which one a record is in, and the states of its keys.

use std::collections::BTreeMap;

use crate::format::WindowState;
use crate::limits::{KEY_STATE_OVERHEAD_BYTES, MAX_KEY_STATE_BYTES};
use crate::routing::hash_key;
use crate::segment::Record;
use crate::types::{HashKey, HashKeyRange, PartitionHash, SequenceNumber, ShardId, Timestamp};

/// A tumbling window: the records that arrived from its start on, and before its end. Windows of one length start at multiples of it since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct Window {
    /// The first moment in it.
    pub start: Timestamp,
    /// The first moment behind it.
    pub end: Timestamp,
}

impl Window {
    /// The window of this length that holds a moment. The last one of all holds the last moment, too, which has none behind it.
    pub(super) fn of(moment: Timestamp, length_ms: i64) -> Self {
        let moment = moment.as_millis().min(Timestamp::MAX.as_millis() - 1);
        let start = moment.saturating_sub(moment.rem_euclid(length_ms));
        Self { start: Timestamp::from_millis(start), end: Timestamp::from_millis(start.saturating_add(length_ms)) }
    }

    /// Whether nothing more comes in it, once everything is there that arrived before this time. The last one never is.
    pub(super) fn is_over(self, complete_to: Timestamp) -> bool {
        self.end < Timestamp::MAX && self.end <= complete_to
    }
}

/// A window that is over, with the states of its keys in one lane of a shard; see [`BatchHandler::close_window`](crate::BatchHandler::close_window).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClosedWindow {
    /// The shard.
    pub shard_id: ShardId,
    /// The lane of the shard, from 0.
    pub lane: u32,
    /// The window.
    pub window: Window,
    /// The states, by key: at least one.
    pub states: Vec<KeyState>,
    /// Whether the window is not over: these states grew too large ([`MAX_KEY_STATE_BYTES`], [`MAX_SHARD_STATE_BYTES`](crate::limits::MAX_SHARD_STATE_BYTES)), and
    /// their keys begin again from nothing. There is a further call for what comes of them.
    pub is_early: bool,
}

/// What became of one key in a window.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyState {
    /// The key.
    pub partition_key: String,
    /// Its hash key, or the one that was given in its place: records of one key that were put with different explicit hash keys have a state each.
    pub hash_key: HashKey,
    /// The state, as the handler left it: not empty.
    pub state: Vec<u8>,
}

/// Whose state it is. The hash key is part of it, so that a state is in the same shard as its records, through every reshard.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StateKey {
    hash_key: HashKey,
    partition_key: String,
}

impl StateKey {
    pub(super) fn of(record: &Record, hash: PartitionHash) -> Self {
        let partition_key = record.partition_key().to_owned();
        let hash_key = record.explicit_hash_key().unwrap_or_else(|| hash_key(hash, &partition_key));
        Self { hash_key, partition_key }
    }

    /// Whether one of these ranges takes it.
    pub(super) fn is_in(&self, ranges: &[HashKeyRange]) -> bool {
        ranges.iter().any(|range| range.contains(self.hash_key))
    }
}

/// The lane of a key: by the low bits of its hash, which say nothing of its shard.
pub(super) fn lane_of(partition_key: &str, hash: PartitionHash, lanes: u32) -> u32 {
    let lane = hash_key(hash, partition_key).get() % u128::from(lanes.max(1));
    u32::try_from(lane).unwrap_or(0)
}

/// The states of one window in one lane.
#[derive(Debug, Clone, Default)]
pub(super) struct States {
    by_key: BTreeMap<StateKey, Vec<u8>>,
    bytes: usize,
}

impl States {
    pub(super) fn get(&self, key: &StateKey) -> Option<&Vec<u8>> {
        self.by_key.get(key)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// What they count towards their bound.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes what a batch changed. Gives the keys whose states are too large now.
    pub(super) fn apply(&mut self, changes: Changes) -> Vec<StateKey> {
        let mut large = Vec::new();
        for (key, Change { state, .. }) in changes.0 {
            if state.len() > MAX_KEY_STATE_BYTES {
                large.push(key.clone());
            }
            self.set(key, state);
        }
        large
    }

    pub(super) fn add(&mut self, state: WindowState) {
        let key = StateKey { hash_key: state.hash_key, partition_key: state.partition_key };
        self.set(key, state.state);
    }

    fn set(&mut self, key: StateKey, state: Vec<u8>) {
        self.remove(&key);
        if !state.is_empty() {
            self.bytes += count(&key, &state);
            self.by_key.insert(key, state);
        }
    }

    pub(super) fn remove(&mut self, key: &StateKey) {
        if let Some(state) = self.by_key.remove(key) {
            self.bytes -= count(key, &state);
        }
    }

    pub(super) fn keys(&self) -> Vec<StateKey> {
        self.by_key.keys().cloned().collect()
    }

    /// These states, for a last call.
    pub(super) fn of_keys(&self, keys: &[StateKey]) -> Vec<KeyState> {
        let state = |key: &StateKey| {
            let state = self.by_key.get(key)?.clone();
            Some(KeyState { partition_key: key.partition_key.clone(), hash_key: key.hash_key, state })
        };
        keys.iter().filter_map(state).collect()
    }

    /// All states, for a child.
    pub(super) fn stored(&self, window: Window) -> impl Iterator<Item = WindowState> {
        self.by_key.iter().map(move |(key, state)| WindowState {
            start: window.start,
            end: window.end,
            hash_key: key.hash_key,
            partition_key: key.partition_key.clone(),
            state: state.clone(),
        })
    }
}

fn count(key: &StateKey, state: &[u8]) -> usize {
    KEY_STATE_OVERHEAD_BYTES + key.partition_key.len() + state.len()
}

/// What a batch makes of the states of its keys.
#[derive(Debug, Default)]
pub(super) struct Changes(BTreeMap<StateKey, Change>);

#[derive(Debug)]
pub(super) struct Change {
    pub(super) state: Vec<u8>,
    /// The last record on whose account it was changed.
    last: SequenceNumber,
}

impl Changes {
    pub(super) fn get(&self, key: &StateKey) -> Option<&Change> {
        self.0.get(key)
    }

    /// The state of a key, to be changed on account of a record.
    pub(super) fn of(&mut self, key: StateKey, before: Option<&Vec<u8>>, number: SequenceNumber) -> &mut Vec<u8> {
        let unchanged = || Change { state: before.cloned().unwrap_or_default(), last: number };
        let change = self.0.entry(key).or_insert_with(unchanged);
        change.last = change.last.max(number);
        &mut change.state
    }

    /// Whether all of them were made on account of records before this one.
    pub(super) fn are_before(&self, number: SequenceNumber) -> bool {
        self.0.values().all(|change| change.last < number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_tile_the_time() {
        let window = |moment: i64| Window::of(Timestamp::from_millis(moment), 60_000);
        let bounds = |moment: i64| (window(moment).start.as_millis(), window(moment).end.as_millis());
        assert_eq!(bounds(0), (0, 60_000));
        assert_eq!(bounds(59_999), (0, 60_000));
        assert_eq!(bounds(60_000), (60_000, 120_000));
        assert_eq!(bounds(-1), (-60_000, 0));
        for moment in [i64::MIN, i64::MAX] {
            let (start, end) = bounds(moment);
            assert!(start <= moment && moment <= end && start < end, "{moment}: {start} to {end}");
        }
    }

    /// Whether the end of time is inside a window, or where the next one would start.
    #[test]
    fn the_last_window_is_one_that_is_never_over() {
        let (last, dividing) = (Timestamp::MAX, 3_577);
        assert_eq!(i64::MAX % dividing, 0);
        for length in [dividing, 60_000] {
            let window = Window::of(last, length);
            assert!(window.start < window.end && window.end == last, "{window:?}");
            assert_eq!(Window::of(last.minus_millis(1), length), window);
            assert!(!window.is_over(last), "records of it may be under way");
            let before = Window::of(last.minus_millis(length.unsigned_abs() + 1), length);
            assert!(before.end == window.start && before.is_over(window.start), "{before:?}");
        }
    }

    #[test]
    fn states_count_what_they_hold() {
        let key = |hash: u128| StateKey { hash_key: HashKey::new(hash), partition_key: "key".to_owned() };
        let change = |hash: u128, bytes: usize| {
            let mut changes = Changes::default();
            changes.of(key(hash), None, SequenceNumber::ZERO).resize(bytes, 1);
            changes
        };
        let mut states = States::default();
        assert!(states.apply(change(1, 10)).is_empty());
        assert!(states.apply(change(2, MAX_KEY_STATE_BYTES)).is_empty());
        assert_eq!(states.bytes(), 2 * (KEY_STATE_OVERHEAD_BYTES + 3) + 10 + MAX_KEY_STATE_BYTES);
        assert_eq!(states.apply(change(2, MAX_KEY_STATE_BYTES + 1)), [key(2)]);
        states.remove(&key(2));
        assert!(states.apply(change(1, 0)).is_empty());
        assert!(states.is_empty() && states.bytes() == 0);
    }
}
