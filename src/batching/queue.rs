//! What was put and is not acknowledged: how it gathers, who waits for room, what is sent next.
//!
//! One batch gathers. It is *full* when it has its records or its bytes, and *due* when its first record has lingered, when somebody waits for what is
//! in it (a flush, a close) or for the room it takes. Full batches are sent in their order, then the gathering one as soon as it is due: a due batch
//! goes on gathering while another is sent. Batches are sent one at a time, so that records stay in the order in which they were put.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::batch::{Batch, PutHandle};
use crate::error::{Error, Result};
use crate::storage::Process;
use crate::stream::{PutEntry, PutReceipt};
use crate::sync::{Condvar, Mutex, MutexGuard};

/// When a batch is sent, and how much may wait for that.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) linger: Duration,
    pub(super) batch_records: usize,
    pub(super) batch_bytes: usize,
    pub(super) in_flight_records: usize,
    pub(super) in_flight_bytes: usize,
}

#[derive(Debug)]
pub(super) struct Queue {
    bounds: Bounds,
    process: Process,
    state: Mutex<State>,
    /// Told when there may be something to send.
    work: Condvar,
    /// Told when a batch was resolved: there is room, and a flush may be over.
    resolved: Condvar,
}

#[derive(Debug)]
struct State {
    gathering: Batch,
    /// When the first record of the gathering batch has lingered.
    due: Option<Instant>,
    full: VecDeque<Batch>,
    spare: Option<Batch>,
    in_flight: InFlight,
    /// Threads that wait for room.
    waiting_for_room: usize,
    /// How many batches gathered before the one that does.
    gathered: u64,
    /// Batches with a number below are waited for.
    wanted: u64,
    /// How many batches were resolved.
    resolved: u64,
    /// Of records that no flush waited for: the next one's.
    error: Option<Error>,
    /// Those who flush now, by the order in which they came.
    flushes: BTreeMap<u64, Flush>,
    closing: bool,
}

/// Somebody waits for the batches with a number below the target.
#[derive(Debug)]
struct Flush {
    target: u64,
    /// The first of those batches, and of the records since the flush before.
    error: Option<Error>,
}

/// What was put to a producer and is not resolved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct InFlight {
    /// How many records.
    pub records: usize,
    /// Bytes of their keys and data.
    pub bytes: usize,
}

/// How long a put waits for room.
#[derive(Debug, Clone, Copy)]
pub(super) enum Patience {
    Endless,
    Until(Instant),
    None,
}

impl Queue {
    pub(super) fn new(bounds: Bounds, process: Process) -> Self {
        let state = State {
            gathering: Batch::new(process),
            due: None,
            full: VecDeque::new(),
            spare: None,
            in_flight: InFlight::default(),
            waiting_for_room: 0,
            gathered: 0,
            wanted: 0,
            resolved: 0,
            error: None,
            flushes: BTreeMap::new(),
            closing: false,
        };
        Self { bounds, process, state: Mutex::new(state), work: Condvar::new(), resolved: Condvar::new() }
    }

    // ---- those who put ----

    /// Takes a copy of a record; nothing where there is no room for as long as the caller has patience.
    pub(super) fn put(&self, entry: &PutEntry<'_>, patience: Patience) -> Result<Option<PutHandle>> {
        let mut state = self.state.lock();
        if !self.wait_for_room(&mut state, patience)? {
            return Ok(None);
        }
        let bytes = entry.partition_key.len() + entry.data.len();
        if !state.gathering.records().is_empty()
            && state.gathering.records().bytes() + bytes > self.bounds.batch_bytes
        {
            self.end_gathering(&mut state);
        }
        let is_first = state.gathering.records().is_empty();
        if is_first && !self.bounds.linger.is_zero() {
            state.due = Some(Instant::now() + self.bounds.linger);
        }
        let handle = state.gathering.push(entry);
        state.in_flight.records += 1;
        state.in_flight.bytes += bytes;
        let is_full = state.gathering.records().len() >= self.bounds.batch_records
            || state.gathering.records().bytes() >= self.bounds.batch_bytes;
        if is_full {
            self.end_gathering(&mut state);
        }
        drop(state); // whoever is woken takes it next
        if is_first || is_full {
            self.work.notify_one();
        }
        Ok(Some(handle))
    }

    /// Waits while there is no room; whether there is. A record is taken while less than the cap is in flight, whatever its size: so the cap
    /// is passed by one record at most, and a large record does not wait for ever behind small ones.
    fn wait_for_room(&self, state: &mut MutexGuard<'_, State>, patience: Patience) -> Result<bool> {
        loop {
            if state.closing {
                return Err(Error::Closed);
            }
            if self.bounds.has_room(state.in_flight) {
                return Ok(true);
            }
            let left = match patience {
                Patience::None => return Ok(false),
                Patience::Endless => None,
                Patience::Until(deadline) => match deadline.saturating_duration_since(Instant::now()) {
                    Duration::ZERO => return Ok(false),
                    left => Some(left),
                },
            };
            state.waiting_for_room += 1;
            self.work.notify_one(); // what lingers takes the room
            self.wait_for_resolved(state, left);
            state.waiting_for_room -= 1;
        }
    }

    fn wait_for_resolved(&self, state: &mut MutexGuard<'_, State>, timeout: Option<Duration>) {
        match timeout {
            Some(timeout) => drop(self.resolved.wait_for(state, timeout)),
            None => self.resolved.wait(state),
        }
    }

    /// The gathering batch is to be sent as it is; the next one begins.
    fn end_gathering(&self, state: &mut State) {
        let next = state.spare.take().unwrap_or_else(|| Batch::new(self.process));
        let ended = std::mem::replace(&mut state.gathering, next);
        state.full.push_back(ended);
        state.gathered += 1;
        state.due = None;
    }

    // ---- those who wait for all ----

    /// Waits until all that was put before is resolved; gives the first error since the last flush.
    pub(super) fn flush(&self) -> Result<()> {
        self.settle(&mut self.state.lock())
    }

    /// Refuses puts from now on, those that wait for room included, and waits as [`flush`](Self::flush) does.
    pub(super) fn close(&self) -> Result<()> {
        let mut state = self.state.lock();
        state.closing = true;
        self.resolved.notify_all();
        self.settle(&mut state)
    }

    fn settle(&self, state: &mut MutexGuard<'_, State>) -> Result<()> {
        let target = state.gathered + u64::from(!state.gathering.records().is_empty());
        state.wanted = state.wanted.max(target);
        let turn = state.flushes.last_key_value().map_or(0, |(last, _)| last + 1);
        let error = state.error.take();
        state.flushes.insert(turn, Flush { target, error });
        self.work.notify_one();
        while state.resolved < target {
            self.resolved.wait(state);
        }
        state.flushes.remove(&turn).and_then(|flush| flush.error).map_or(Ok(()), Err)
    }

    pub(super) fn in_flight(&self) -> InFlight {
        self.state.lock().in_flight
    }

    // ---- the one who sends ----

    /// Waits for the next batch to send; none once the queue is closed and everything was sent.
    pub(super) fn next(&self) -> Option<Batch> {
        let mut state = self.state.lock();
        loop {
            if let Some(batch) = state.full.pop_front() {
                return Some(batch);
            }
            if state.gathering.records().is_empty() {
                if state.closing {
                    return None;
                }
                self.work.wait(&mut state);
                continue;
            }
            match state.lingers_for() {
                Some(left) => drop(self.work.wait_for(&mut state, left)),
                None => self.end_gathering(&mut state),
            }
        }
    }

    /// Tells what became of a batch, makes room, and lets those go on who wait.
    pub(super) fn resolve(&self, batch: Batch, outcomes: Vec<Result<PutReceipt>>) {
        let error = outcomes.iter().find_map(|outcome| outcome.as_ref().err().cloned());
        let mut state = self.state.lock();
        state.in_flight.records = state.in_flight.records.saturating_sub(batch.records().len());
        state.in_flight.bytes = state.in_flight.bytes.saturating_sub(batch.records().bytes());
        if let Some(error) = error {
            state.tell(&error);
        }
        state.resolved += 1;
        // With the lock held: whoever was told finds the room, and whoever finds a flush over was told.
        batch.resolve(outcomes);
        state.spare = batch.reuse(self.bounds.batch_bytes);
        drop(state);
        self.resolved.notify_all();
    }
}

impl State {
    /// The batch that is resolved next failed. Everybody who waits for it is told, or whoever flushes next.
    fn tell(&mut self, error: &Error) {
        let resolved = self.resolved;
        let mut waiting = self.flushes.values_mut().filter(|flush| resolved < flush.target).peekable();
        if waiting.peek().is_none() {
            self.error.get_or_insert_with(|| error.clone());
        }
        for flush in waiting {
            flush.error.get_or_insert_with(|| error.clone());
        }
    }

    /// How long the gathering batch still waits for more; nothing where it is to be sent.
    fn lingers_for(&self) -> Option<Duration> {
        if self.closing || self.waiting_for_room > 0 || self.wanted > self.gathered {
            return None;
        }
        let left = self.due?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }
}

impl Bounds {
    fn has_room(&self, in_flight: InFlight) -> bool {
        in_flight.records < self.in_flight_records && in_flight.bytes < self.in_flight_bytes
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    fn queue() -> Queue {
        let bounds = Bounds {
            linger: Duration::ZERO,
            batch_records: 2,
            batch_bytes: 1 << 20,
            in_flight_records: 100,
            in_flight_bytes: 1 << 20,
        };
        Queue::new(bounds, Process::this())
    }

    fn fail_next(queue: &Queue) {
        let batch = queue.next().unwrap();
        let outcomes = (0..batch.records().len()).map(|_| Err(Error::Closed)).collect();
        queue.resolve(batch, outcomes);
    }

    #[test]
    fn everybody_who_waits_for_a_batch_is_told_that_it_failed() {
        let queue = Arc::new(queue());
        queue.put(&PutEntry::new("key", b"data"), Patience::None).unwrap();
        let flush = || {
            let queue = Arc::clone(&queue);
            thread::spawn(move || queue.flush())
        };
        let flushes = [flush(), flush(), flush()];
        while queue.state.lock().flushes.len() < flushes.len() {
            thread::yield_now();
        }
        fail_next(&queue);
        for flush in flushes {
            assert!(matches!(flush.join().unwrap(), Err(Error::Closed)));
        }
        queue.flush().unwrap();
        queue.put(&PutEntry::new("key", b"data"), Patience::None).unwrap();
        fail_next(&queue);
        assert!(queue.flush().is_err(), "nobody was told");
        queue.flush().unwrap();
    }
}
