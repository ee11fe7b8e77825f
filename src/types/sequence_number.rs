//! Positions in a shard.

use std::fmt;
use std::str::FromStr;

use super::Timestamp;

/// A record's place in its shard.
///
/// Sequence numbers of a shard are **dense**: each record's is its predecessor's plus one. A child
/// shard starts above everything its parents hold, so for one partition key the numbers rise through
/// every split and merge. Numbers of unrelated shards say nothing about each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SequenceNumber(u64);

impl SequenceNumber {
    /// The first number of a stream's first shards.
    pub const ZERO: Self = Self(0);

    /// A sequence number from its value.
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The value.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The number before this one; nothing before zero.
    pub const fn previous(self) -> Option<Self> {
        match self.0.checked_sub(1) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }

    /// The number `count` places further.
    #[must_use]
    pub(crate) const fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }

    /// How many places this number is past `earlier`; zero where it is not.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl From<u64> for SequenceNumber {
    fn from(value: u64) -> Self {
        Self(value)
    }
}

impl FromStr for SequenceNumber {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a shard iterator starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ShardIteratorType {
    /// At the oldest record that is still within retention.
    TrimHorizon,
    /// Behind the newest record *at the time the iterator is made*.
    Latest,
    /// At this very sequence number. It may be the next one that will be written.
    AtSequenceNumber(SequenceNumber),
    /// Behind this sequence number.
    AfterSequenceNumber(SequenceNumber),
    /// At the first record that arrived at this time or later; at the trim horizon for a time before it.
    AtTimestamp(Timestamp),
}
