//! Group commit: many wait, one leads, one sync makes the records of all durable.
//!
//! Whoever finds no commit running leads one. The others register and wait, each at a door of its own (`park`), so that whoever is told goes on with
//! no lock to take again: the outcome is in two atomics. A commit that ended tells those whose records it covered; of those that it did not cover it
//! wakes one, who leads the next commit while the first are still being told.
//!
//! Threads that were just told come back with their next record a moment later. A leader that started at once would sync for a few
//! and let them wait for the sync after that: each would get every second sync. So it *gathers*: it lets others go first as long as fewer records came than
//! there were waiters, but not for longer than a small part of a sync, and not again soon where that was in vain.

use std::sync::Arc;

use crate::sync::thread::{self, Thread};
use crate::sync::{Mistake, MutexGuard, planted};

use super::{AppendState, Shard, ShardError};
use crate::segment::Visibility;
use crate::storage::Fault;
use crate::types::{Durability, SequenceNumber};

/// How often a waiter lets others run before it parks: waking one that has not parked costs nothing.
const YIELDS_BEFORE_PARKING: u32 = 2;
/// How often a leader lets others run while it gathers: some ten microseconds, up to a hundred where every processor is busy with them.
const YIELDS_TO_GATHER: u32 = 16;
/// After gathering in vain, at most so many commits go by without.
const MOST_SKIPPED: u32 = 63;

/// Those who wait for commits of one shard.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    waiting: Vec<Waiter>,
    gathering: Gathering,
}

#[derive(Debug)]
struct Waiter {
    target: SequenceNumber,
    thread: Thread,
}

/// How many records a leader expects.
#[derive(Debug, Default)]
struct Gathering {
    /// Appends that a commit has to cover, since the last one began.
    arrived: u32,
    /// Who was told at the end of the last commit, or had to wait for this one.
    expected: u32,
    /// Commits until gathering is tried again, and how many it will be next time.
    skip: u32,
    penalty: u32,
}

impl Waiters {
    /// An append came that a commit has to cover.
    pub(super) fn note_arrival(&mut self) {
        self.gathering.arrived = self.gathering.arrived.saturating_add(1);
    }

    /// Takes out those whose records are below `durable`, or everybody.
    fn take(&mut self, durable: SequenceNumber, everybody: bool) -> Vec<Thread> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        let told = |waiter: &mut Waiter| everybody || waiter.target <= durable;
        self.waiting.extract_if(.., told).map(|waiter| waiter.thread).collect()
    }

    /// Takes out one who is to lead.
    fn take_leader(&mut self) -> Option<Thread> {
        self.waiting.pop().map(|waiter| waiter.thread)
    }
}

impl Gathering {
    /// Whether a leader should let others go first.
    fn is_worth_it(&mut self) -> bool {
        if self.arrived >= self.expected {
            return false;
        }
        match self.skip.checked_sub(1) {
            Some(left) => {
                self.skip = left;
                false
            }
            None => true,
        }
    }

    fn is_complete(&self) -> bool {
        self.arrived >= self.expected
    }

    /// Learns from how it went, and begins the next group.
    fn end(&mut self, has_waited: bool) {
        if has_waited {
            self.penalty = if self.is_complete() { 0 } else { (self.penalty * 2 + 1).min(MOST_SKIPPED) };
            self.skip = self.penalty;
        }
        self.arrived = 0;
    }
}

impl Shard {
    /// Waits until all records below `target` are durable, and leads the commit if nobody else does.
    pub(crate) fn commit(&self, target: SequenceNumber) -> Result<(), ShardError> {
        loop {
            // The outcome is the group's: a leader's failure is kept in the state before anyone is woken.
            if self.next(Visibility::Durable) >= target {
                return Ok(());
            }
            let mut state = self.append.lock();
            if self.next(Visibility::Durable) >= target {
                return Ok(());
            }
            if let Some(failure) = &state.failure {
                return Err(ShardError::Failed(Arc::clone(failure)));
            }
            if state.committing {
                let thread = thread::current();
                state.waiters.waiting.push(Waiter { target, thread });
                drop(state);
                self.wait_to_be_told(target);
            } else {
                self.lead_commit(&mut state)?;
            }
        }
    }

    /// Waits until a commit ended that says something to this thread. It may come back early: the caller looks again.
    fn wait_to_be_told(&self, target: SequenceNumber) {
        for _ in 0..YIELDS_BEFORE_PARKING {
            if self.next(Visibility::Durable) >= target {
                return;
            }
            thread::yield_now();
        }
        thread::park();
    }

    /// Makes everything that is appended so far durable.
    pub(crate) fn sync(&self) -> Result<(), ShardError> {
        let target = self.append.lock().next;
        self.commit(target)
    }

    pub(super) fn lead_commit(&self, state: &mut MutexGuard<'_, AppendState>) -> Result<(), ShardError> {
        state.committing = true; // from here on: who comes meanwhile is to wait, or to join while it is gathered
        Self::gather(state);
        let outcome = self.commit_group(state);
        state.committing = false;
        if !planted(Mistake::WakeNobody) {
            let told = self.take_told(state);
            // The next leader, who is the last of them, starts while the others are still being told.
            MutexGuard::unlocked(state, || told.iter().rev().for_each(Thread::unpark));
        }
        if outcome.is_ok() {
            self.announce();
        }
        outcome
    }

    fn gather(state: &mut MutexGuard<'_, AppendState>) {
        let waits = state.waiters.gathering.is_worth_it();
        for _ in 0..if waits { YIELDS_TO_GATHER } else { 0 } {
            if state.waiters.gathering.is_complete() {
                break;
            }
            MutexGuard::unlocked(state, thread::yield_now);
        }
        state.waiters.gathering.end(waits);
    }

    /// Writes what is staged, lets go of the lock, syncs, and publishes.
    fn commit_group(&self, state: &mut MutexGuard<'_, AppendState>) -> Result<(), ShardError> {
        if let Some(failure) = &state.failure {
            return Err(ShardError::Failed(Arc::clone(failure))); // of a write, while this group gathered
        }
        self.write_staged(state)?;
        let Some(writer) = state.writer.as_mut() else {
            return Err(ShardError::NotOpen); // nothing undurable without a writer
        };
        let file = match writer.file_to_sync() {
            Ok(file) => file,
            Err(fault) => return Err(self.fail(state, fault)),
        };
        let (end, next) = (writer.written_end(), writer.next());
        let segment = Arc::clone(writer.segment());
        // Frames are written only with the lock held and no commit running where all of them wait for commits.
        let is_alone = self.context.options.durability == Durability::Synced;
        let zeros = if is_alone { writer.zeros_ahead() } else { None };
        let outcome = MutexGuard::unlocked(state, || {
            if planted(Mistake::PublishBeforeSync) {
                segment.publish_durable(end);
                self.note_durable(next);
            }
            let outcome = zeros.map_or(Ok(()), |(zeros, at)| file.write_at(zeros, at)).and_then(|()| file.sync());
            if outcome.is_ok() {
                // Readers first: whoever learns that a record is durable also finds it.
                segment.publish_durable(end);
                self.note_durable(next);
            }
            outcome
        });
        if let Err(source) = outcome {
            return Err(self.fail(state, Fault::io("sync", segment.path())(source)));
        }
        // The writer is the same: a roll waits while a commit runs.
        if let Some(writer) = state.writer.as_mut() {
            writer.note_durable(end);
        }
        Ok(())
    }

    /// Tells those who wait what has become durable, or that nothing more will.
    pub(super) fn tell(&self, state: &mut AppendState) {
        for thread in self.take_told(state) {
            thread.unpark();
        }
    }

    /// Takes out everybody who has something to do now: those whose records are durable; all, if the shard failed; else, if nobody commits,
    /// one who leads the next commit, at the end.
    fn take_told(&self, state: &mut AppendState) -> Vec<Thread> {
        self.committed.notify_all();
        let over = state.failure.is_some() || state.writer.is_none();
        let waiting = state.waiters.waiting.len();
        let mut told = state.waiters.take(self.next(Visibility::Durable), over);
        // This thread is one of those who will come back.
        state.waiters.gathering.expected = u32::try_from(waiting).unwrap_or(u32::MAX).saturating_add(1);
        if !state.committing {
            told.extend(state.waiters.take_leader());
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(gathering: &mut Gathering, arrived: u32, expected: u32) -> bool {
        (gathering.arrived, gathering.expected) = (arrived, expected);
        let waits = gathering.is_worth_it();
        gathering.end(waits);
        assert_eq!(gathering.arrived, 0);
        waits
    }

    #[test]
    fn a_leader_gathers_while_fewer_came_than_are_expected() {
        let mut gathering = Gathering::default();
        assert!(!group(&mut gathering, 1, 1), "alone");
        assert!(!group(&mut gathering, 9, 8));
        (gathering.arrived, gathering.expected) = (3, 8);
        assert!(gathering.is_worth_it());
        gathering.arrived = 8; // they came
        gathering.end(true);
        assert!(group(&mut gathering, 3, 8), "it was worth it");
    }

    #[test]
    fn gathering_in_vain_is_done_less_and_less() {
        let mut gathering = Gathering::default();
        let waited: Vec<_> = (0..200).filter(|_| group(&mut gathering, 1, 8)).collect();
        assert_eq!(waited, [0, 2, 6, 14, 30, 62, 126, 190], "each time twice as long, up to 63 commits");
        gathering.skip = 0;
        (gathering.arrived, gathering.expected) = (8, 8);
        gathering.end(true);
        assert!(group(&mut gathering, 1, 8), "and again once it was worth it");
    }
}
