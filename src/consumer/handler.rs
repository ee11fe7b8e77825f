//! Workers that call back.

use std::time::Duration;

use super::worker::{Work, Worker};
use super::{Checkpoint, RecordPosition};
use crate::error::{Error, Result};
use crate::segment::Record;
use crate::types::ShardId;

/// How long a worker waits for something to do before it looks whether it is to stop.
const STEP: Duration = Duration::from_millis(100);

/// What is done with the records of a group's worker; see [`Worker::run`]. One value handles all shards that the worker has, one after the other.
///
/// An error ends the run, and is given to who started it. What failed is given again when the worker is run again: the beginning of a shard, or, of records and
/// ends, everything behind the shard's checkpoint. [`Error::LeaseLost`] and [`Error::ShardNotFound`] do not where they come of the worker's own calls for the shard
/// that it handed over: that is another's, or expired, and the worker goes on with the rest.
pub trait Handler {
    /// The worker got a shard, and goes on behind this checkpoint.
    fn initialize(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        let _ = checkpoint;
        Ok(())
    }

    /// Handles records of one shard: at least one, in order. `worker` takes [checkpoints](Worker::checkpoint).
    fn process(&mut self, worker: &mut Worker, shard_id: ShardId, records: &[Record]) -> Result<()>;

    /// The shard is another worker's; nothing of it can be checkpointed any more.
    fn lease_lost(&mut self, shard_id: ShardId) {
        let _ = shard_id;
    }

    /// The shard was given to its end. Its children begin once it is [finished](Worker::finish), which is what happens if this does not do it: it is
    /// the place to complete what was begun.
    fn shard_ended(&mut self, worker: &mut Worker, shard_id: ShardId) -> Result<()> {
        worker.finish(shard_id)
    }
}

impl Worker {
    /// Works until `stop` says so, the stream is closed, or an error ends it: the worker can be run again then, and what the handler failed at is given
    /// [again](Handler). `stop` is asked between two pieces of work,
    /// and a few times a second.
    ///
    /// ```
    /// # fn main() -> anabranch::Result<()> {
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("clicks");
    /// use anabranch::{Handler, Record, Result, ShardId, Stream, Worker, WorkerOptions};
    /// use std::cell::Cell;
    ///
    /// struct Count<'a>(&'a Cell<usize>);
    ///
    /// impl Handler for Count<'_> {
    ///     fn process(&mut self, worker: &mut Worker, shard_id: ShardId, records: &[Record]) -> Result<()> {
    ///         self.0.set(self.0.get() + records.len());
    ///         worker.checkpoint(shard_id, &records[records.len() - 1])
    ///     }
    /// }
    ///
    /// let stream = Stream::builder().create(&path)?;
    /// stream.put("user-42", b"GET /cart")?;
    /// let mut worker = stream.consumer("billing")?.worker("worker-1", WorkerOptions::new())?;
    /// let seen = Cell::new(0);
    /// worker.run(&mut Count(&seen), || seen.get() == 1)?;
    /// worker.close()
    /// # }
    /// ```
    pub fn run(&mut self, handler: &mut impl Handler, stop: impl Fn() -> bool) -> Result<()> {
        while !stop() {
            match self.next_timeout(STEP) {
                Ok(Some(work)) => self.hand_over(handler, work)?,
                Ok(None) => {}
                Err(Error::Closed) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn hand_over(&mut self, handler: &mut impl Handler, work: Work) -> Result<()> {
        let (shard_id, outcome) = match &work {
            Work::Started(checkpoint) => (checkpoint.shard_id, handler.initialize(checkpoint)),
            Work::Records { shard_id, records } => (*shard_id, handler.process(self, *shard_id, records)),
            Work::Ended(shard_id) => (*shard_id, handler.shard_ended(self, *shard_id)),
            Work::Lost(shard_id) => {
                handler.lease_lost(*shard_id);
                (*shard_id, Ok(()))
            }
        };
        if outcome.as_ref().is_err_and(|error| self.is_loss(shard_id, error)) {
            handler.lease_lost(shard_id);
            return Ok(());
        }
        if outcome.is_err() {
            self.give_again(work);
        }
        outcome
    }

    /// Whether the error says that the worker has this shard no more. It may be of another shard, of another consumer or stream, with which the handler works.
    fn is_loss(&self, shard_id: ShardId, error: &Error) -> bool {
        let of = match error {
            Error::LeaseLost { shard_id, .. } | Error::ShardNotFound(shard_id) => *shard_id,
            _ => return false,
        };
        of == shard_id && !self.held.contains_key(&shard_id)
    }

    /// As [`checkpoint`](Self::checkpoint), of the last of these records; nothing if there are none.
    pub fn checkpoint_last(&mut self, shard_id: ShardId, records: &[Record]) -> Result<()> {
        match records.last() {
            Some(last) => self.checkpoint(shard_id, RecordPosition::from(last)),
            None => Ok(()),
        }
    }
}
