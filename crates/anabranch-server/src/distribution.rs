//! Who chooses the shard of a record: its key, or, with the strategy `AUTO`, the service, which spreads records evenly and asks for no key.

use std::sync::atomic::{AtomicU64, Ordering};

use anabranch::{HashKey, Record};
use serde::{Deserialize, Serialize};

/// The names of the strategies on the wire.
pub(crate) const STRATEGIES: [&str; 2] = ["USER_PARTITION_KEY", "AUTO"];

/// The key in the log of a record that was put without one; its hash key is one of [`Spread`]'s. Unicode keeps this noncharacter for such uses: who puts a record to a stream
/// with the strategy `AUTO` under just this key reads none.
const NO_KEY: &str = "\u{FFFF}";

/// All bits of the golden ratio's fraction. Its multiples, modulo the key space, lie as evenly as can be, however many there are.
const STEP: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;

/// What [`STEP`] times it is 1, modulo the key space: it tells which multiple a hash key is.
const UNSTEP: u128 = inverse(STEP);

/// By Newton's iteration, which doubles the right bits: an odd number is its own inverse in three.
const fn inverse(odd: u128) -> u128 {
    let (mut inverse, mut bits) = (odd, 3);
    while bits < u128::BITS {
        inverse = inverse.wrapping_mul(2_u128.wrapping_sub(odd.wrapping_mul(inverse)));
        bits *= 2;
    }
    inverse
}

/// The *record distribution strategy* of a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Distribution {
    #[default]
    UserPartitionKey,
    Auto,
}

impl Distribution {
    pub(crate) fn named(text: &str) -> Self {
        if text == "AUTO" { Self::Auto } else { Self::UserPartitionKey }
    }
}

/// Chooses hash keys for records, in turn: the first is that of turn 1, since 0 is what clients name too.
#[derive(Debug, Default)]
pub(crate) struct Spread(AtomicU64);

impl Spread {
    pub(crate) fn next(&self) -> HashKey {
        let turn = self.0.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        HashKey::new(STEP.wrapping_mul(turn.into()))
    }

    /// Whether this is one of those. Of all that clients may name, it is one of 2^64.
    fn gives(key: HashKey) -> bool {
        let turn = UNSTEP.wrapping_mul(key.get());
        turn != 0 && u64::try_from(turn).is_ok()
    }
}

/// The key that a record is stored with.
pub(crate) fn stored_key(given: Option<&str>) -> &str {
    given.unwrap_or(NO_KEY)
}

/// The key that a record was put with, if it had one.
pub(crate) fn given_key(record: &Record) -> Option<&str> {
    let key = record.partition_key();
    let is_none = key == NO_KEY && record.explicit_hash_key().is_some_and(Spread::gives);
    (!is_none).then_some(key)
}

#[cfg(test)]
mod tests {
    use anabranch::HashKeyRange;

    use super::*;

    #[test]
    fn a_hash_key_tells_whether_it_was_given() {
        let spread = Spread::default();
        assert!((0..10_000).all(|_| Spread::gives(spread.next())));
        assert!(Spread::gives(HashKey::new(STEP.wrapping_mul(u64::MAX.into()))));
        for key in [0, 1, 2, 7, 1 << 64, 1 << 127, u128::MAX / 2, u128::MAX, STEP - 1, STEP + 1] {
            assert!(!Spread::gives(HashKey::new(key)), "{key}");
        }
    }

    #[test]
    fn records_are_spread_evenly_over_any_number_of_shards() {
        for shards in [1, 2, 3, 4, 7, 16] {
            let (spread, ranges) = (Spread::default(), HashKeyRange::partition(shards));
            let keys: Vec<_> = (0..shards * 100).map(|_| spread.next()).collect();
            for range in ranges {
                let inside = keys.iter().filter(|key| range.contains(**key)).count();
                assert!((97..=103).contains(&inside), "{inside} of {} in one of {shards}", keys.len());
            }
        }
    }
}
