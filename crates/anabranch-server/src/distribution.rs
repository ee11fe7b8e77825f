//! Who chooses the shard of a record: its key, or, with the strategy `AUTO`, the service, which spreads records evenly and asks for no key.

use std::sync::atomic::{AtomicU64, Ordering};

use anabranch::{HashKey, Record};
use serde::{Deserialize, Serialize};

/// The names of the strategies on the wire.
pub(crate) const STRATEGIES: [&str; 2] = ["USER_PARTITION_KEY", "AUTO"];

/// The key in the log of a record that was put without one; its hash key is explicit. Unicode keeps this noncharacter for such uses: who puts a record to a stream
/// with the strategy `AUTO` under just this key reads none.
const NO_KEY: &str = "\u{FFFF}";

/// All bits of the golden ratio's fraction. Its multiples, modulo the key space, lie as evenly as can be, however many there are.
const STEP: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;

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

/// Chooses hash keys for records, in turn.
#[derive(Debug, Default)]
pub(crate) struct Spread(AtomicU64);

impl Spread {
    pub(crate) fn next(&self) -> HashKey {
        let turn = self.0.fetch_add(1, Ordering::Relaxed);
        HashKey::new(STEP.wrapping_mul(turn.into()))
    }
}

/// The key that a record is stored with.
pub(crate) fn stored_key(given: Option<&str>) -> &str {
    given.unwrap_or(NO_KEY)
}

/// The key that a record was put with, if it had one.
pub(crate) fn given_key(record: &Record) -> Option<&str> {
    let key = record.partition_key();
    (key != NO_KEY || record.explicit_hash_key().is_none()).then_some(key)
}

#[cfg(test)]
mod tests {
    use anabranch::HashKeyRange;

    use super::*;

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
