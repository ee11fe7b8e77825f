//! The choices a stream is made with.

use std::fmt;
use std::time::Duration;

use crate::limits::{DEFAULT_RETENTION_MS, MAX_RETENTION_MS};

/// What an acknowledged put survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[non_exhaustive]
pub enum Durability {
    /// When the put returns, its bytes are in memory that the kernel keeps (a segment's page cache, or a mapped file's): they survive kill -9, a panic
    /// and the OOM killer at once; a power cut or a kernel crash once a later flush has covered
    /// them (by interval, by bytes, or by [`Stream::sync`](crate::Stream::sync)). What a power cut takes is a
    /// suffix of the shard, never a hole.
    Buffered,
    /// When the put returns, a sync that covers the record, all before it in its shard and everything
    /// needed to find them has succeeded: it survives power loss. Concurrent writers of a shard
    /// share one sync.
    #[default]
    Synced,
}

/// The function from partition key to 128-bit hash key; fixed when the stream is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum PartitionHash {
    /// XXH3-128 of the key's UTF-8 bytes. The default: fast.
    #[default]
    Xxh3,
    /// MD5 of the key's UTF-8 bytes, read as a big-endian integer: routes as Kinesis does.
    Md5,
}

/// How long records stay readable.
///
/// ```
/// use std::time::Duration;
/// use anabranch::RetentionPeriod;
///
/// assert_eq!(RetentionPeriod::default(), RetentionPeriod::hours(24));
/// assert!(RetentionPeriod::Unlimited > RetentionPeriod::hours(8_760));
/// assert_eq!(RetentionPeriod::from(Duration::from_secs(3_600)), RetentionPeriod::hours(1));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RetentionPeriod {
    /// Records expire this many milliseconds after they arrived: 1 ms to 8,760 hours.
    Millis(u64),
    /// Records never expire by age.
    Unlimited,
}

impl RetentionPeriod {
    /// A period of whole hours.
    pub const fn hours(hours: u64) -> Self {
        Self::Millis(hours.saturating_mul(3_600_000))
    }

    /// The period in milliseconds; nothing where it is unlimited.
    pub const fn as_millis(self) -> Option<u64> {
        match self {
            Self::Millis(millis) => Some(millis),
            Self::Unlimited => None,
        }
    }

    pub(crate) fn is_valid(self) -> bool {
        match self {
            Self::Millis(millis) => (1..=MAX_RETENTION_MS).contains(&millis),
            Self::Unlimited => true,
        }
    }
}

impl Default for RetentionPeriod {
    /// 24 hours.
    fn default() -> Self {
        Self::Millis(DEFAULT_RETENTION_MS)
    }
}

impl From<Duration> for RetentionPeriod {
    fn from(period: Duration) -> Self {
        Self::Millis(u64::try_from(period.as_millis()).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for RetentionPeriod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unlimited => f.write_str("unlimited"),
            Self::Millis(millis) if millis % 3_600_000 == 0 => write!(f, "{} h", millis / 3_600_000),
            Self::Millis(millis) => write!(f, "{millis} ms"),
        }
    }
}
