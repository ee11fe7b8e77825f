//! What the service knows of an account in a region beside its streams: which identities it gave, and what was agreed about billing.

use std::path::PathBuf;
use std::sync::Arc;

use anabranch::Timestamp;
use anabranch::storage::Storage;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::document::{self, VERSION, Versioned};
use crate::errors::Fault;
use crate::limits::COMMITMENT_MS;
use crate::sequence::{LAST_SECOND, second};

/// The settings of an account in a region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AccountSettings {
    version: u32,
    /// The greatest second in which a shard was made of a stream that was deleted. It is part of sequence numbers: streams that are made later have greater ones, whatever their names.
    last_stream_second: u64,
    /// The last second that became part of the ARN of a consumer or a queue: none is used twice.
    last_consumer_second: u64,
    pub(crate) commitment: Commitment,
}

/// The *minimum throughput billing commitment*: what makes an account one of On-demand Advantage. It lasts a day at least.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Commitment {
    /// Milliseconds since 1970, as the end.
    started_ms: Option<i64>,
    /// It can lie in the future.
    ended_ms: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum CommitmentStatus {
    Enabled,
    Disabled,
    EnabledUntilEarliestAllowedEnd,
}

impl Default for AccountSettings {
    fn default() -> Self {
        Self {
            version: VERSION,
            last_stream_second: 0,
            last_consumer_second: 0,
            commitment: Commitment::default(),
        }
    }
}

impl Versioned for AccountSettings {
    fn version(&self) -> u32 {
        self.version
    }

    fn check(&self) -> Result<(), String> {
        let last = self.last_stream_second.max(self.last_consumer_second);
        if last <= LAST_SECOND { Ok(()) } else { Err(format!("second {last}")) }
    }
}

impl Commitment {
    pub(crate) fn status(self, now: Timestamp) -> CommitmentStatus {
        match (self.started_ms, self.ended_ms) {
            (Some(_), None) => CommitmentStatus::Enabled,
            (Some(_), Some(end)) if now.as_millis() < end => CommitmentStatus::EnabledUntilEarliestAllowedEnd,
            (None, _) | (Some(_), Some(_)) => CommitmentStatus::Disabled,
        }
    }

    pub(crate) fn is_on(self, now: Timestamp) -> bool {
        self.status(now) != CommitmentStatus::Disabled
    }

    pub(crate) fn started(self) -> Option<Timestamp> {
        self.started_ms.map(Timestamp::from_millis)
    }

    /// When it ended, if it did by now.
    pub(crate) fn ended(self, now: Timestamp) -> Option<Timestamp> {
        self.ended_ms.filter(|end| *end <= now.as_millis()).map(Timestamp::from_millis)
    }

    /// While it is on.
    pub(crate) fn earliest_end(self, now: Timestamp) -> Option<Timestamp> {
        let started = self.started_ms.filter(|_| self.is_on(now))?;
        Some(Timestamp::from_millis(started.saturating_add(COMMITMENT_MS)))
    }

    /// One that goes on goes on, also where it was to end.
    pub(crate) fn enable(&mut self, now: Timestamp) {
        if !self.is_on(now) {
            self.started_ms = Some(now.as_millis());
        }
        self.ended_ms = None;
    }

    /// It ends now, or when its day is over.
    pub(crate) fn disable(&mut self, now: Timestamp) {
        if self.status(now) == CommitmentStatus::Enabled {
            self.ended_ms = self.earliest_end(now).map(|earliest| earliest.max(now).as_millis());
        }
    }
}

/// The file of these settings. It is seldom needed, and read when it is: a damaged one is the error of those who need it.
#[derive(Debug)]
pub(crate) struct AccountFile {
    storage: Arc<dyn Storage>,
    path: PathBuf,
    /// Held while the file is read and replaced.
    changing: Mutex<()>,
}

impl AccountFile {
    pub(super) fn new(storage: Arc<dyn Storage>, path: PathBuf) -> Self {
        Self { storage, path, changing: Mutex::default() }
    }

    pub(crate) fn read(&self) -> Result<AccountSettings, Fault> {
        let found = document::read(self.storage.as_ref(), &self.path).map_err(Fault::internal)?;
        Ok(found.unwrap_or_default())
    }

    /// Changes the settings: durable when this returns.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut AccountSettings) -> T) -> Result<T, Fault> {
        let _changing = self.changing.lock();
        let mut settings = self.read()?;
        let outcome = change(&mut settings);
        document::write(self.storage.as_ref(), &self.path, &settings)?;
        Ok(outcome)
    }

    /// The creation second of a stream that is made now: later than those of all shards of streams that were deleted, whatever became of the clock.
    pub(crate) fn stream_second(&self, now: Timestamp) -> Result<u64, Fault> {
        Ok(next(self.read()?.last_stream_second, now))
    }

    /// Keeps the last second of a stream that is about to be deleted: durable when this returns.
    pub(crate) fn retire_second(&self, second: u64) -> Result<(), Fault> {
        if self.read()?.last_stream_second >= second {
            return Ok(());
        }
        self.change(|settings| settings.last_stream_second = settings.last_stream_second.max(second))
    }

    /// A second for the ARN of a consumer, or a queue, that is made now: later than that of any before.
    pub(crate) fn next_consumer_second(&self, now: Timestamp) -> Result<u64, Fault> {
        self.change(|settings| {
            settings.last_consumer_second = next(settings.last_consumer_second, now);
            settings.last_consumer_second
        })
    }
}

/// The present second, but later than a last one.
fn next(last: u64, now: Timestamp) -> u64 {
    second(now).max(last.saturating_add(1)).min(LAST_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commitment_lasts_a_day() {
        let at = |hours: i64| Timestamp::from_millis(hours * 3_600_000);
        let mut commitment = Commitment::default();
        commitment.disable(at(0));
        assert_eq!(commitment, Commitment::default());
        commitment.enable(at(0));
        commitment.enable(at(1));
        assert_eq!((commitment.started(), commitment.earliest_end(at(1))), (Some(at(0)), Some(at(24))));
        commitment.disable(at(2));
        assert_eq!(commitment.status(at(23)), CommitmentStatus::EnabledUntilEarliestAllowedEnd);
        assert_eq!(
            (commitment.status(at(24)), commitment.ended(at(24))),
            (CommitmentStatus::Disabled, Some(at(24)))
        );
        commitment.enable(at(3));
        assert_eq!(commitment.status(at(24)), CommitmentStatus::Enabled, "the end was called off");
        commitment.disable(at(30));
        assert_eq!(
            (commitment.status(at(30)), commitment.ended(at(30))),
            (CommitmentStatus::Disabled, Some(at(30)))
        );
        commitment.enable(at(31));
        assert_eq!((commitment.started(), commitment.ended(at(99))), (Some(at(31)), None));
    }
}
