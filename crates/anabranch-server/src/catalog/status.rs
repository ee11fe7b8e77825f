//! What a stream is said to be doing. All is done when it is answered; where the server is told so, it looks for a while as if it were not, as with the service, where things
//! take their time. Nothing of this is on disk: after a restart a stream is active, or gone.

use std::time::Duration;

use anabranch::Timestamp;
use parking_lot::Mutex;
use serde::Serialize;

/// The status of a stream, a consumer or a queue.
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

/// The last transition of a stream, or of a queue.
#[derive(Debug)]
pub(super) struct Transition {
    delay_ms: i64,
    last: Mutex<Last>,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    status: Status,
    /// Since when it only looks so; none while what it says is being done.
    done: Option<Timestamp>,
}

const AT_REST: Last = Last { status: Status::Active, done: None };

impl Transition {
    pub(super) fn new(delay: Duration) -> Self {
        let delay_ms = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
        Self { delay_ms, last: Mutex::new(AT_REST) }
    }

    pub(super) fn takes_time(&self) -> bool {
        self.delay_ms > 0
    }

    /// What it says was done just now.
    pub(super) fn begin(&self, status: Status, now: Timestamp) {
        *self.last.lock() = Last { status, done: Some(now) };
    }

    /// Begins an update, which goes on until it is dropped; or says what the stream is busy with.
    pub(super) fn update(&self, now: Timestamp) -> Result<Updating<'_>, Status> {
        let mut last = self.last.lock();
        match self.status_of(*last, now) {
            Status::Active => *last = Last { status: Status::Updating, done: None },
            busy => return Err(busy),
        }
        Ok(Updating { of: self, after: AT_REST })
    }

    pub(super) fn status(&self, now: Timestamp) -> Status {
        self.status_of(*self.last.lock(), now)
    }

    fn status_of(&self, last: Last, now: Timestamp) -> Status {
        let lasts = last.done.is_none_or(|done| self.lasts(done, now));
        if self.takes_time() && lasts { last.status } else { Status::Active }
    }

    /// Whether what began then goes on. A clock that went back ends it: it would last too long otherwise.
    pub(super) fn lasts(&self, begun: Timestamp, now: Timestamp) -> bool {
        (0..self.delay_ms).contains(&now.as_millis().saturating_sub(begun.as_millis()))
    }
}

/// An update that is being done. It leaves nothing behind unless it is said to be done.
#[derive(Debug)]
pub(super) struct Updating<'t> {
    of: &'t Transition,
    after: Last,
}

impl Updating<'_> {
    pub(super) fn done(mut self, now: Timestamp) {
        self.after = Last { status: Status::Updating, done: Some(now) };
    }
}

impl Drop for Updating<'_> {
    fn drop(&mut self) {
        let mut last = self.of.last.lock();
        // It may have been deleted meanwhile, and stays so.
        if last.status == Status::Updating {
            *last = self.after;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn an_update_is_alone_and_its_delay_begins_when_it_is_done() {
        let transition = Transition::new(Duration::from_millis(10));
        let first = transition.update(at(0)).unwrap();
        assert_eq!(
            transition.update(at(500)).unwrap_err(),
            Status::Updating,
            "it goes on for as long as it takes"
        );
        first.done(at(500));
        assert_eq!((transition.status(at(509)), transition.status(at(510))), (Status::Updating, Status::Active));
        drop(transition.update(at(510)).unwrap()); // it failed
        assert_eq!(transition.status(at(510)), Status::Active);
    }

    #[test]
    fn an_update_does_not_undo_a_deletion() {
        for is_done in [false, true] {
            let transition = Transition::new(Duration::from_millis(10));
            let update = transition.update(at(0)).unwrap();
            transition.begin(Status::Deleting, at(1));
            if is_done {
                update.done(at(2));
            } else {
                drop(update);
            }
            assert_eq!(transition.status(at(2)), Status::Deleting);
        }
    }

    #[test]
    fn where_nothing_takes_time_updates_do_not_refuse_each_other() {
        let transition = Transition::new(Duration::ZERO);
        let _first = transition.update(at(0)).unwrap();
        transition.update(at(0)).unwrap();
        assert_eq!(transition.status(at(0)), Status::Active);
    }
}
