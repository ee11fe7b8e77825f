//! From partition key to hash key to open shard, and the pure plans of splits and merges.

use std::cmp::Ordering;

use md5::{Digest, Md5};
use xxhash_rust::xxh3::xxh3_128;

use crate::types::{HashKey, HashKeyRange, PartitionHash, ShardId};

/// The hash key of a partition key.
///
/// [`PartitionHash::Md5`] is Kinesis' rule: the MD5 digest of the UTF-8 bytes, read as a big-endian integer
/// (Amazon Kinesis Data Streams API Reference, `PutRecordsRequestEntry`).
pub(crate) fn hash_key(hash: PartitionHash, partition_key: &str) -> HashKey {
    HashKey::new(match hash {
        PartitionHash::Xxh3 => xxh3_128(partition_key.as_bytes()),
        PartitionHash::Md5 => md5_number(partition_key),
    })
}

#[allow(
    clippy::big_endian_bytes,
    reason = "Kinesis reads the digest as a big-endian number; nothing of it reaches the disk"
)]
fn md5_number(partition_key: &str) -> u128 {
    u128::from_be_bytes(Md5::digest(partition_key.as_bytes()).into())
}

/// The open shards, by the hash keys they take. They tile the whole space: every key has exactly one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Routes {
    /// Ascending by range.
    open: Vec<(HashKeyRange, ShardId)>,
}

impl Routes {
    /// Nothing if the ranges leave a gap, overlap, or are none.
    pub(crate) fn new(mut open: Vec<(HashKeyRange, ShardId)>) -> Option<Self> {
        open.sort_unstable();
        let first = open.first()?.0.start() == HashKey::MIN;
        let last = open.last()?.0.end() == HashKey::MAX;
        let joined = open.windows(2).all(|pair| pair[0].0.is_followed_by(pair[1].0));
        (first && last && joined).then_some(Self { open })
    }

    /// The shard that takes this hash key.
    pub(crate) fn shard_of(&self, key: HashKey) -> ShardId {
        self.open.get(self.index_of(key)).map_or(ShardId::default(), |(_, id)| *id)
    }

    /// The place of the shard that takes this hash key, among the [open shards](Self::shards).
    pub(crate) fn index_of(&self, key: HashKey) -> usize {
        self.open.partition_point(|(range, _)| range.start() <= key).saturating_sub(1)
    }

    /// The open shards in the order of their ranges.
    pub(crate) fn shards(&self) -> impl Iterator<Item = ShardId> + '_ {
        self.open.iter().map(|(_, id)| *id)
    }

    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }
}

/// One step towards another number of shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Split this shard in the middle.
    Split(ShardId),
    /// Merge this shard with the one above it.
    Merge(ShardId, ShardId),
}

/// The next step towards `target` open shards, all of about equal size; nothing when they are that many.
///
/// Growing splits the widest range (the lowest among equals); shrinking merges the neighbours whose ranges are
/// narrowest together. Each step is the one that evens the ranges most, so 2 to 4 and 4 to 2 give exact
/// halves. Kinesis' own `UpdateShardCount` was seen to split every shard and merge back for targets
/// that are no multiple; this needs fewer steps and moves fewer keys.
pub(crate) fn next_step(routes: &Routes, target: usize) -> Option<Step> {
    match routes.len().cmp(&target) {
        Ordering::Less => {
            let widest = routes.open.iter().rev().max_by_key(|(range, _)| width(*range))?;
            widest.0.middle()?;
            Some(Step::Split(widest.1))
        }
        Ordering::Greater => {
            let pairs = routes.open.windows(2);
            let narrowest = pairs.min_by_key(|pair| width(pair[0].0).saturating_add(width(pair[1].0)))?;
            Some(Step::Merge(narrowest[0].1, narrowest[1].1))
        }
        Ordering::Equal => None,
    }
}

fn width(range: HashKeyRange) -> u128 {
    range.end().get() - range.start().get()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn initial(count: u32) -> Vec<(HashKeyRange, ShardId)> {
        let ids = (0..).map(ShardId::new);
        HashKeyRange::partition(count).into_iter().zip(ids).collect()
    }

    /// What the engine does with a step, without an engine.
    fn apply(open: &mut Vec<(HashKeyRange, ShardId)>, step: Step, next_id: &mut u32) {
        let mut take = |id: ShardId| {
            let index = open.iter().position(|(_, open)| *open == id).unwrap();
            open.remove(index).0
        };
        let children = match step {
            Step::Split(id) => {
                let range = take(id);
                let (lower, upper) = range.split(range.middle().unwrap()).unwrap();
                vec![lower, upper]
            }
            Step::Merge(lower, upper) => vec![take(lower).join(take(upper)).unwrap()],
        };
        for range in children {
            open.push((range, ShardId::new(*next_id)));
            *next_id += 1;
        }
    }

    #[test]
    fn md5_routes_as_kinesis_does() {
        // MD5 test vectors of RFC 1321, appendix A.5, as numbers.
        for (key, digest) in [
            ("a", 0x0cc1_75b9_c0f1_b6a8_31c3_99e2_6977_2661),
            ("abc", 0x9001_5098_3cd2_4fb0_d696_3f7d_28e1_7f72),
            ("message digest", 0xf96b_697d_7cb7_938d_525a_2f31_aaf1_61d0),
        ] {
            assert_eq!(hash_key(PartitionHash::Md5, key), HashKey::new(digest), "{key}");
        }
    }

    #[test]
    fn xxh3_is_stable() {
        // On disk, routing depends on this value staying as it is: XXH3-128 of "", as published with xxHash.
        assert_eq!(hash_key(PartitionHash::Xxh3, ""), HashKey::new(0x99aa_06d3_0147_98d8_6001_c324_468d_497f));
    }

    #[test]
    fn ends_of_ranges_are_routable() {
        let routes = Routes::new(initial(3)).unwrap();
        for (range, id) in initial(3) {
            assert_eq!(routes.shard_of(range.start()), id);
            assert_eq!(routes.shard_of(range.end()), id);
        }
    }

    #[test]
    fn gaps_and_overlaps_are_no_routes() {
        let mut gap = initial(3);
        gap.remove(1);
        let mut overlap = initial(3);
        overlap.push(overlap[1]);
        for broken in [vec![], gap, overlap, initial(3)[..2].to_vec(), initial(3)[1..].to_vec()] {
            assert_eq!(Routes::new(broken), None);
        }
    }

    #[test]
    fn even_targets_give_even_ranges() {
        for (from, to) in [(2, 4), (4, 2), (1, 8), (8, 1)] {
            let (mut open, mut next_id) = (initial(from), from);
            while let Some(step) = next_step(&Routes::new(open.clone()).unwrap(), to as usize) {
                apply(&mut open, step, &mut next_id);
            }
            open.sort_unstable();
            let ranges: Vec<_> = open.iter().map(|(range, _)| *range).collect();
            assert_eq!(ranges, HashKeyRange::partition(to), "{from} to {to}");
        }
    }

    proptest! {
        #[test]
        fn any_walk_keeps_the_space_tiled(targets in prop::collection::vec(1..40usize, 1..6), probe: u128) {
            let (mut open, mut next_id) = (initial(1), 1);
            for target in targets {
                while let Some(step) = next_step(&Routes::new(open.clone()).unwrap(), target) {
                    apply(&mut open, step, &mut next_id);
                }
                let routes = Routes::new(open.clone());
                prop_assert!(routes.is_some());
                let routes = routes.unwrap();
                prop_assert_eq!(routes.len(), target);
                let owner = routes.shard_of(HashKey::new(probe));
                let holders: Vec<_> = open.iter().filter(|(range, _)| range.contains(HashKey::new(probe))).collect();
                prop_assert_eq!(holders.len(), 1);
                prop_assert_eq!(holders[0].1, owner);
            }
        }
    }
}
