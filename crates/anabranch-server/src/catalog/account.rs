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
use crate::sequence::second;

/// The settings of an account in a region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AccountSettings {
    version: u32,
    /// The last second that became the creation second of a stream, and so part of its sequence numbers: none is used twice.
    last_stream_second: u64,
    /// The same of consumers and queues, whose ARNs have it.
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

    /// The creation second of a stream that is made now: later than that of any before, whatever became of those and of the clock.
    pub(crate) fn next_stream_second(&self, now: Timestamp) -> Result<u64, Fault> {
        self.change(|settings| next(&mut settings.last_stream_second, now))
    }

    /// The same of a consumer, or a queue.
    pub(crate) fn next_consumer_second(&self, now: Timestamp) -> Result<u64, Fault> {
        self.change(|settings| next(&mut settings.last_consumer_second, now))
    }
}

fn next(last: &mut u64, now: Timestamp) -> u64 {
    *last = second(now).max(last.saturating_add(1));
    *last
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
