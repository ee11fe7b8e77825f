//! The source in threads: one that reads, renews and checkpoints, and as many as there are calls to make.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, scope};
use std::time::Duration;

use super::EventSource;
use super::batch::BatchHandler;
use super::failure::FailureDestination;
use super::job::{Finished, Job};
use crate::error::{Error, Result};
use crate::sync::Mutex;

/// How long the reading thread waits for a call to be finished before it looks for records again.
const IDLE: Duration = Duration::from_millis(2);

impl EventSource {
    /// Handles what is there and what comes, until `stop` says so, the stream is closed, or an error ends it: it can be run again then. `stop` is asked many times a second.
    ///
    /// The handler is called in threads, which end before this returns; what is under way then is finished and checkpointed. What waits for its next try is tried
    /// by the next run, or by who gets the shard.
    ///
    /// # Errors
    ///
    /// [`Error::BatchFailed`] for a batch that is to be given up, where nobody is named who is told; [`Error::DestinationFailed`]; and those of [`Worker::poll`](crate::Worker::poll) and
    /// [`Worker::checkpoint`](crate::Worker::checkpoint). After any of them nothing is lost, and the source can be run again.
    pub fn run(&mut self, handler: &impl BatchHandler, stop: impl Fn() -> bool) -> Result<()> {
        let (jobs, waiting) = channel();
        let (results, finished) = channel();
        let (waiting, destination) = (Mutex::new(waiting), self.destination.clone());
        scope(|scope| {
            let (mut threads, mut under_way) = (0, 0);
            let mut outcome = Ok(());
            while outcome.is_ok() && !stop() {
                let new = match self.advance() {
                    Ok((new, _)) => new,
                    Err(Error::Closed) => break,
                    Err(error) => {
                        outcome = Err(error);
                        break;
                    }
                };
                for job in new {
                    if under_way >= threads && threads < self.policy.options.max_threads {
                        let (waiting, results) = (&waiting, results.clone());
                        let destination = destination.as_deref();
                        let work = move || work(waiting, &results, handler, destination);
                        threads += usize::from(Builder::new().spawn_scoped(scope, work).is_ok());
                    }
                    if threads == 0 {
                        let finished = job.run(handler, destination.as_deref()); // the system has no thread for it
                        let completed = self.complete(finished);
                        self.note(completed, &mut outcome);
                    } else {
                        under_way += usize::from(jobs.send(job).is_ok());
                    }
                }
                self.collect(&finished, &mut under_way, &mut outcome);
            }
            drop(jobs);
            while under_way > 0 {
                self.collect(&finished, &mut under_way, &mut outcome);
                let renewed = self.take_work();
                self.note(renewed, &mut outcome);
            }
            let settled = self.settle().map(drop);
            self.note(settled, &mut outcome);
            outcome
        })
    }

    /// Waits a moment for a call to be finished, and takes all that are.
    fn collect(&mut self, finished: &Receiver<Finished>, under_way: &mut usize, outcome: &mut Result<()>) {
        let first = finished.recv_timeout(IDLE).ok();
        for done in first.into_iter().chain(finished.try_iter()) {
            *under_way -= 1;
            let completed = self.complete(done);
            self.note(completed, outcome);
        }
    }
}

/// One thread: makes the calls that nobody else makes, until no more come.
fn work(
    waiting: &Mutex<Receiver<Job>>,
    results: &Sender<Finished>,
    handler: &impl BatchHandler,
    destination: Option<&dyn FailureDestination>,
) {
    loop {
        let job = waiting.lock().recv();
        let Ok(job) = job else { return };
        if results.send(job.run(handler, destination)).is_err() {
            return;
        }
    }
}
