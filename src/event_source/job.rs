//! One call of the handler or of the destination, on its way to a thread and back.

use std::sync::Arc;

use super::batch::{Batch, BatchFailure, BatchHandler};
use super::failure::{FailedBatch, FailureDestination};
use super::windows::{Changes, ClosedWindow, States, Window};
use crate::segment::Record;
use crate::sync::caught;
use crate::types::{PartitionHash, ShardId};

/// Whose job it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) shard_id: ShardId,
    /// Which time that the source has the shard: what comes back from an earlier one is not looked at.
    pub(super) turn: u64,
    pub(super) lane: u32,
}

/// A call that is to be made.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) place: Place,
    pub(super) call: Call,
}

#[derive(Debug)]
pub(super) enum Call {
    Batch {
        records: Arc<[Record]>,
        attempt: u32,
        window: Option<Window>,
        states: Arc<States>,
        hash: PartitionHash,
    },
    Close(Arc<ClosedWindow>),
    Report(Arc<FailedBatch>),
}

/// A call that was made.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) place: Place,
    pub(super) outcome: Outcome,
}

#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) result: Result<(), BatchFailure>,
    /// What a batch made of the states of its keys.
    pub(super) changes: Changes,
}

impl Job {
    /// Makes the call. A panic in it is its failure.
    pub(super) fn run(
        self,
        handler: &impl BatchHandler,
        destination: Option<&dyn FailureDestination>,
    ) -> Finished {
        let outcome = caught(|| self.call(handler, destination));
        let outcome = outcome.unwrap_or_else(|panic| Outcome {
            result: Err(BatchFailure::new(panic)),
            changes: Changes::default(),
        });
        Finished { place: self.place, outcome }
    }

    fn call(&self, handler: &impl BatchHandler, destination: Option<&dyn FailureDestination>) -> Outcome {
        let result = match &self.call {
            Call::Batch { records, attempt, window, states, hash } => {
                let place = (self.place.shard_id, self.place.lane);
                let mut batch = Batch::new(place, *attempt, records, (*window, states.as_ref()), *hash);
                let result = handler.handle(&mut batch);
                return match batch.misuse {
                    Some(reason) => {
                        Outcome { result: Err(BatchFailure::new(reason)), changes: Changes::default() }
                    }
                    None => Outcome { result, changes: batch.changes },
                };
            }
            Call::Close(closed) => handler.close_window(closed),
            Call::Report(failed) => destination.map_or(Ok(()), |destination| destination.send(failed)),
        };
        Outcome { result, changes: Changes::default() }
    }
}
