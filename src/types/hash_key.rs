//! The 128-bit space that shards divide among them.

use std::fmt;
use std::str::FromStr;

/// A position in the hash-key space, `0` to `2^128 - 1`. Prints as a decimal number, as in Kinesis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct HashKey(u128);

impl HashKey {
    /// The lowest hash key.
    pub const MIN: Self = Self(0);
    /// The highest hash key, `2^128 - 1`.
    pub const MAX: Self = Self(u128::MAX);

    /// A hash key from its number.
    pub const fn new(value: u128) -> Self {
        Self(value)
    }

    /// The number.
    pub const fn get(self) -> u128 {
        self.0
    }

    /// The key behind this one; nothing behind the last.
    pub(crate) fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }

    /// The key before this one; nothing before the first.
    pub(crate) fn previous(self) -> Option<Self> {
        self.0.checked_sub(1).map(Self)
    }
}

impl From<u128> for HashKey {
    fn from(value: u128) -> Self {
        Self(value)
    }
}

impl FromStr for HashKey {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl fmt::Display for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A run of hash keys, **both ends inclusive**, never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HashKeyRange {
    start: HashKey,
    end: HashKey,
}

impl HashKeyRange {
    /// The whole space.
    pub const FULL: Self = Self { start: HashKey::MIN, end: HashKey::MAX };

    /// The range from `start` to `end`, both included; nothing if `end` is below `start`.
    pub fn new(start: HashKey, end: HashKey) -> Option<Self> {
        (start <= end).then_some(Self { start, end })
    }

    /// The first hash key of the range.
    pub const fn start(self) -> HashKey {
        self.start
    }

    /// The last hash key of the range; it belongs to it.
    pub const fn end(self) -> HashKey {
        self.end
    }

    /// Whether the range holds `key`.
    pub fn contains(self, key: HashKey) -> bool {
        self.start <= key && key <= self.end
    }

    /// The key at which the upper of two even halves starts; nothing where the range is one key.
    pub fn middle(self) -> Option<HashKey> {
        let below = (self.end.0 - self.start.0) / 2;
        (self.start < self.end).then(|| HashKey(self.start.0 + below + 1))
    }

    /// Cuts the range in two, the upper part starting at `at`. Nothing if `at` leaves either part empty.
    pub fn split(self, at: HashKey) -> Option<(Self, Self)> {
        let inside = self.start < at && at <= self.end;
        inside.then(|| {
            let lower = Self { start: self.start, end: HashKey(at.0 - 1) };
            let upper = Self { start: at, end: self.end };
            (lower, upper)
        })
    }

    /// Whether `upper` starts at the very key after this range's end.
    pub fn is_followed_by(self, upper: Self) -> bool {
        self.end.0.checked_add(1) == Some(upper.start.0)
    }

    /// The union with the range that follows this one; nothing if they are not neighbours in this order.
    pub fn join(self, upper: Self) -> Option<Self> {
        self.is_followed_by(upper).then_some(Self { start: self.start, end: upper.end })
    }

    /// The keys that both ranges hold, if there are any.
    pub fn intersection(self, other: Self) -> Option<Self> {
        Self::new(self.start.max(other.start), self.end.min(other.end))
    }

    /// What is left without the keys that both ranges hold: what lies below them, and above.
    pub(crate) fn without(self, other: Self) -> impl Iterator<Item = Self> {
        let (below, above) = match self.intersection(other) {
            Some(both) => (
                both.start.previous().and_then(|end| Self::new(self.start, end)),
                both.end.next().and_then(|start| Self::new(start, self.end)),
            ),
            None => (Some(self), None),
        };
        below.into_iter().chain(above)
    }

    /// Cuts the whole space into `count` ranges as Kinesis does: `floor(2^128 / count)` keys each,
    /// the last one taking the remainder.
    pub fn partition(count: u32) -> Vec<Self> {
        let width = partition_width(count);
        (0..u128::from(count))
            .map(|index| Self {
                start: HashKey(index * width),
                end: if index + 1 == u128::from(count) { HashKey::MAX } else { HashKey((index + 1) * width - 1) },
            })
            .collect()
    }
}

/// `floor(2^128 / count)`, without the 129th bit.
fn partition_width(count: u32) -> u128 {
    match u128::from(count) {
        0 | 1 => u128::MAX,
        count => u128::MAX / count + u128::from(u128::MAX % count == count - 1),
    }
}

impl fmt::Display for HashKeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..={}", self.start, self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u128, end: u128) -> HashKeyRange {
        HashKeyRange::new(HashKey(start), HashKey(end)).unwrap()
    }

    #[test]
    fn initial_ranges_are_kinesis_own() {
        // The figures for three shards that the service itself was seen to use.
        let ends: Vec<String> = HashKeyRange::partition(3).iter().map(|range| range.end().to_string()).collect();
        assert_eq!(
            ends,
            [
                "113427455640312821154458202477256070484",
                "226854911280625642308916404954512140969",
                "340282366920938463463374607431768211455"
            ]
        );
        assert_eq!(HashKeyRange::partition(1), [HashKeyRange::FULL]);
    }

    #[test]
    fn partitions_tile_the_space() {
        for count in [1, 2, 3, 4, 7, 64, 1000, 65_536] {
            let ranges = HashKeyRange::partition(count);
            assert_eq!(ranges.len(), count as usize);
            assert_eq!(ranges[0].start(), HashKey::MIN);
            assert_eq!(ranges[ranges.len() - 1].end(), HashKey::MAX);
            assert!(ranges.windows(2).all(|w| w[0].is_followed_by(w[1])));
        }
    }

    #[test]
    fn split_and_join_are_inverse() {
        let (lower, upper) = HashKeyRange::FULL.split(HashKey(1 << 127)).unwrap();
        assert_eq!(HashKeyRange::FULL.middle(), Some(HashKey(1 << 127)));
        assert_eq!(lower.join(upper), Some(HashKeyRange::FULL));
        assert_eq!(upper.join(lower), None);
        assert_eq!(range(5, 5).middle(), None);
        assert_eq!(range(5, 9).split(HashKey(5)), None);
        assert_eq!(range(5, 9).split(HashKey(10)), None);
        assert_eq!(range(5, 6).split(HashKey(6)), Some((range(5, 5), range(6, 6))));
        assert_eq!(HashKeyRange::new(HashKey(2), HashKey(1)), None);
    }

    #[test]
    fn ranges_intersect_where_both_hold_a_key() {
        assert_eq!(range(3, 9).intersection(range(5, 20)), Some(range(5, 9)));
        assert_eq!(range(3, 9).intersection(range(9, 9)), Some(range(9, 9)));
        assert_eq!(range(3, 9).intersection(HashKeyRange::FULL), Some(range(3, 9)));
        assert_eq!(range(3, 9).intersection(range(10, 20)), None);
        assert_eq!((HashKey::MIN.previous(), HashKey::MAX.next()), (None, None));
    }
}
