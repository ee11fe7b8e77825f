//! What a stream is said to be doing. All is done when it is answered; where the server is told so, it looks for a while as if it were not, as with the service, where things
//! take their time. Nothing of this is on disk: after a restart a stream is active, or gone.

use std::time::Duration;

use anabranch::Timestamp;
use parking_lot::Mutex;
use serde::Serialize;

/// The status of a stream or a consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Status {
    Creating,
    Active,
    Updating,
    Deleting,
}

impl Status {
    /// The name on the wire.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Creating => "CREATING",
            Self::Active => "ACTIVE",
            Self::Updating => "UPDATING",
            Self::Deleting => "DELETING",
        }
    }

    /// Whether records can be put and read.
    pub(crate) fn serves(self) -> bool {
        matches!(self, Self::Active | Self::Updating)
    }
}

/// The last transition of a stream.
#[derive(Debug)]
pub(super) struct Transition {
    delay_ms: i64,
    last: Mutex<(Status, Timestamp)>,
}

impl Transition {
    pub(super) fn new(delay: Duration) -> Self {
        let delay_ms = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
        Self { delay_ms, last: Mutex::new((Status::Active, Timestamp::from_millis(0))) }
    }

    pub(super) fn takes_time(&self) -> bool {
        self.delay_ms > 0
    }

    pub(super) fn begin(&self, status: Status, now: Timestamp) {
        *self.last.lock() = (status, now);
    }

    pub(super) fn status(&self, now: Timestamp) -> Status {
        if !self.takes_time() {
            return Status::Active;
        }
        let (status, begun) = *self.last.lock();
        if self.lasts(begun, now) { status } else { Status::Active }
    }

    /// Whether what began then goes on. A clock that went back ends it: it would last too long otherwise.
    pub(super) fn lasts(&self, begun: Timestamp, now: Timestamp) -> bool {
        (0..self.delay_ms).contains(&now.as_millis().saturating_sub(begun.as_millis()))
    }
}
