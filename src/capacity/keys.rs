//! Which keys a shard was seen to take, and where to cut its range by them.
//!
//! Keys are kept as they were seen, not counted by buckets: a cut between two of them is exact, and a key that is hot by itself gets a shard of its own
//! by two cuts, however close its neighbours are.

use std::collections::VecDeque;

use crate::types::{HashKey, HashKeyRange};

/// The newest keys that are kept of a shard: some 32 KiB for those that take much.
const MOST: usize = 1_024;
/// Fewer say nothing.
const FEWEST: usize = 64;
/// A cut is worth it if the lighter side has at least this share.
const SHARE_WORTH_A_CUT: f64 = 0.05;
/// A key with this share is cut off exactly, so that its shard takes no other.
const SHARE_OF_A_HOT_KEY: f64 = 0.25;

/// Keys of records that were drawn evenly, with what each of the records is of the shard's load.
#[derive(Debug, Clone, Default)]
pub(super) struct Keys {
    drawn: VecDeque<(HashKey, f64)>,
}

/// Neighbouring keys, ascending and each once, with their weights.
type Part<'a> = &'a [(HashKey, f64)];

impl Keys {
    pub(super) fn add(&mut self, key: HashKey, weight: f64) {
        if self.drawn.len() == MOST {
            self.drawn.pop_front();
        }
        self.drawn.push_back((key, weight));
    }

    /// Where to cut `range`, whose load is so many times what a shard should take, for parts of about the same weight: the first keys of all parts but the lowest, ascending. There
    /// are as many parts as the load is worth, and `most` at most; what is no more than a shard should take is not cut further. Nothing where too little is known, or where no
    /// cut takes anything off a hot key.
    pub(super) fn cuts(&self, range: HashKeyRange, load: f64, most: usize) -> Vec<HashKey> {
        let weighed = self.weighed(range);
        let pieces = pieces_of(load).min(most);
        let weight_of_a_shard = weight(&weighed) / load;
        let mut parts: Vec<Part<'_>> = vec![&weighed];
        let mut cuts = Vec::new();
        if self.drawn.len() < FEWEST {
            return cuts;
        }
        while cuts.len() + 1 < pieces {
            let cut = |(index, part): (usize, &Part<'_>)| Some((index, weight(part), best_cut(part)?));
            let worthy =
                parts.iter().enumerate().filter_map(cut).filter(|(_, weight, _)| *weight > weight_of_a_shard);
            let Some((index, _, place)) = worthy.max_by(|a, b| a.1.total_cmp(&b.1)) else { break };
            let part = parts.swap_remove(index);
            let (lower, upper) = part.split_at(place);
            cuts.extend(between(lower, upper));
            parts.extend([lower, upper]);
        }
        cuts.sort_unstable();
        cuts
    }

    fn weighed(&self, range: HashKeyRange) -> Vec<(HashKey, f64)> {
        let mut keys: Vec<_> = self.drawn.iter().copied().filter(|(key, _)| range.contains(*key)).collect();
        keys.sort_unstable_by_key(|(key, _)| *key);
        keys.dedup_by(|next, kept| {
            let is_same = next.0 == kept.0;
            if is_same {
                kept.1 += next.1;
            }
            is_same
        });
        keys
    }
}

/// How many shards a load is worth that is too much for one.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
fn pieces_of(load: f64) -> usize {
    load.min(1e6).ceil().max(2.0) as usize
}

fn weight(part: Part<'_>) -> f64 {
    part.iter().map(|(_, weight)| weight).sum()
}

/// How many keys the lower side of the evenest cut has; nothing where none is worth it.
fn best_cut(part: Part<'_>) -> Option<usize> {
    let total = weight(part);
    let mut lower = 0.0;
    let mut best: Option<(usize, f64)> = None;
    for (index, (_, weight)) in part.iter().enumerate().take(part.len().saturating_sub(1)) {
        lower += weight;
        let lighter = lower.min(total - lower);
        if best.is_none_or(|(_, other)| lighter > other) {
            best = Some((index + 1, lighter));
        }
    }
    best.filter(|(_, lighter)| *lighter >= total * SHARE_WORTH_A_CUT).map(|(place, _)| place)
}

/// The first key of the upper side: in the middle of the gap, or beside a hot key.
fn between(lower: Part<'_>, upper: Part<'_>) -> Option<HashKey> {
    let (below, above) = (lower.last()?, upper.first()?);
    let hot = (weight(lower) + weight(upper)) * SHARE_OF_A_HOT_KEY;
    let gap = above.0.get() - below.0.get();
    Some(HashKey::new(match (below.1 >= hot, above.1 >= hot) {
        (true, _) => below.0.get() + 1,
        (false, true) => above.0.get(),
        (false, false) => below.0.get() + gap / 2 + gap % 2,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(weights: &[(u128, f64)]) -> Keys {
        let mut keys = Keys::default();
        for _ in 0..FEWEST.div_ceil(weights.len()) {
            for (key, weight) in weights {
                keys.add(HashKey::new(*key), *weight);
            }
        }
        keys
    }

    fn cuts(weights: &[(u128, f64)], load: f64) -> Vec<u128> {
        keys(weights).cuts(HashKeyRange::FULL, load, 8).into_iter().map(HashKey::get).collect()
    }

    #[test]
    fn cuts_lie_where_the_load_balances() {
        assert_eq!(cuts(&[(10, 1.0), (20, 1.0), (31, 1.0), (40, 1.0)], 2.0), [21]); // each of four is hot enough to be cut off exactly
        let many: Vec<_> = (0..100).map(|key| (key * 10, 1.0)).collect();
        assert_eq!(cuts(&many, 1.1), [495]);
        assert_eq!(cuts(&many, 4.0), [245, 495, 745]);
        let skewed: Vec<_> = (0..100).map(|key| (key * 10, if key < 10 { 9.0 } else { 1.0 })).collect();
        assert_eq!(cuts(&skewed, 2.0), [95]);
    }

    #[test]
    fn a_hot_key_is_cut_off_exactly() {
        let hot = [(100, 1.0), (200, 1.0), (300, 8.0), (301, 1.0), (400, 1.0)];
        assert_eq!(cuts(&hot, 1.5), [300]);
        assert_eq!(cuts(&hot, 3.0), [300, 301]);
    }

    #[test]
    fn a_hot_key_that_is_alone_is_left_so() {
        assert_eq!(cuts(&[(7, 1.0)], 4.0), [0; 0]);
        assert_eq!(cuts(&[(6, 0.04), (7, 1.0), (8, 0.04)], 4.0), [0; 0]);
        assert_eq!(cuts(&[(6, 0.06), (7, 1.0), (8, 0.04)], 4.0), [7], "worth a cut");
    }

    #[test]
    fn what_a_shard_can_take_is_not_cut() {
        let beside_a_hot_key = [(100, 1.0), (200, 1.0), (300, 1.0), (400, 17.0)];
        assert_eq!(cuts(&beside_a_hot_key, 6.0), [400], "the rest is worth 0.9 shards");
        assert_eq!(cuts(&beside_a_hot_key, 7.0), [101, 400], "and 1.05 now");
    }

    #[test]
    fn few_keys_say_nothing_and_old_ones_are_forgotten() {
        let mut keys = Keys::default();
        (0..FEWEST - 1).for_each(|key| keys.add(HashKey::new(key as u128), 1.0));
        assert!(keys.cuts(HashKeyRange::FULL, 2.0, 8).is_empty());
        keys.add(HashKey::new(1_000), 1.0);
        assert_eq!(keys.cuts(HashKeyRange::FULL, 2.0, 8).len(), 1);
        (0..MOST).for_each(|_| keys.add(HashKey::new(5), 1.0));
        assert!(keys.cuts(HashKeyRange::FULL, 2.0, 8).is_empty());
        assert_eq!(keys.drawn.len(), MOST);
    }
}
