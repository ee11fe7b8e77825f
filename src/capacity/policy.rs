//! What a user says of capacity.

use std::time::Duration;

use crate::limits::{CAPACITY_INTERVAL_MS, MAX_SHARDS};

/// How many shards a stream keeps open. Part of an opening, not of the stream: see [`StreamBuilder::capacity`](crate::StreamBuilder::capacity).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Capacity {
    /// As many as this.
    Provisioned {
        /// Open shards: 1 to 65,536.
        shards: u32,
    },
    /// As many as the load asks for.
    OnDemand(CapacityPolicy),
}

/// When a stream with [`Capacity::OnDemand`] splits and merges.
///
/// The defaults are those of Kinesis' on-demand streams: 4 shards at least, and a shard is split above 500,000 bytes or 500 records a second, half of
/// what one takes there. A shard of this library takes a thousand times as much: where shards are for throughput, set higher targets.
///
/// ```
/// use anabranch::{Capacity, CapacityPolicy};
///
/// let policy = CapacityPolicy::default().min_shards(1).max_shards(32).records_per_second(50_000).bytes_per_second(20_000_000);
/// let capacity = Capacity::OnDemand(policy);
/// # let _ = capacity;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CapacityPolicy {
    /// Open shards that are kept whatever the load: 1 to 65,536; 4 by default.
    pub min_shards: u32,
    /// Open shards that are not passed, whatever the load: `min_shards` to 65,536; 256 by default.
    pub max_shards: u32,
    /// The target of one shard, in bytes of keys and data a second: at least 1; 500,000 by default.
    pub bytes_per_second: u64,
    /// The target of one shard, in records a second: at least 1; 500 by default.
    pub records_per_second: u64,
    /// How often the background thread looks, in real time: 1 ms to 24 h; 5 s by default.
    pub interval: Duration,
}

impl Default for CapacityPolicy {
    fn default() -> Self {
        Self {
            min_shards: 4,
            max_shards: 256,
            bytes_per_second: 500_000,
            records_per_second: 500,
            interval: Duration::from_millis(CAPACITY_INTERVAL_MS),
        }
    }
}

impl CapacityPolicy {
    /// Sets [`min_shards`](Self::min_shards).
    #[must_use]
    pub fn min_shards(mut self, shards: u32) -> Self {
        self.min_shards = shards;
        self
    }

    /// Sets [`max_shards`](Self::max_shards).
    #[must_use]
    pub fn max_shards(mut self, shards: u32) -> Self {
        self.max_shards = shards;
        self
    }

    /// Sets [`bytes_per_second`](Self::bytes_per_second).
    #[must_use]
    pub fn bytes_per_second(mut self, bytes: u64) -> Self {
        self.bytes_per_second = bytes;
        self
    }

    /// Sets [`records_per_second`](Self::records_per_second).
    #[must_use]
    pub fn records_per_second(mut self, records: u64) -> Self {
        self.records_per_second = records;
        self
    }

    /// Sets [`interval`](Self::interval).
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// What one record of so many bytes, or many of them, are of a shard's target for one second: the scarcer of the two counts.
    #[allow(clippy::cast_precision_loss, reason = "a ratio")]
    pub(super) fn load_of(&self, records: u64, bytes: u64) -> f64 {
        (records as f64 / self.records_per_second as f64).max(bytes as f64 / self.bytes_per_second as f64)
    }

    fn fault(&self) -> Option<&'static str> {
        if self.min_shards == 0 || self.max_shards > MAX_SHARDS {
            Some("min_shards and max_shards are within 1..=65,536")
        } else if self.min_shards > self.max_shards {
            Some("min_shards is above max_shards")
        } else if self.bytes_per_second == 0 || self.records_per_second == 0 {
            Some("the targets of a shard are at least 1 a second")
        } else if self.interval < Duration::from_millis(1) || self.interval > Duration::from_secs(86_400) {
            Some("interval is not within 1 ms to 24 h")
        } else {
            None
        }
    }
}

impl Capacity {
    /// Says what is wrong with it, if anything.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        match self {
            Self::Provisioned { shards } if *shards == 0 || *shards > MAX_SHARDS => {
                Some("shards is not within 1..=65,536")
            }
            Self::Provisioned { .. } => None,
            Self::OnDemand(policy) => policy.fault(),
        }
    }

    /// How many shards a new stream starts with.
    pub(crate) fn initial_shards(&self) -> u32 {
        match self {
            Self::Provisioned { shards } => *shards,
            Self::OnDemand(policy) => policy.min_shards,
        }
    }
}
