//! Group commit: many wait, one leads, one sync makes the records of all durable.
//!
//! Whoever finds no commit running leads one. The others wait at a [`Door`]: there are two, which the groups use in turn, so that a commit that ended
//! lets its own group out by one call, and of the next group no more than one, who leads it while the first are still coming out. Whoever is let out goes on
//! with no lock to take again: the outcome is in an atomic.
//!
//! Threads that were just told come back with their next record a moment later. A leader that started at once would sync for a few
//! and let them wait for the sync after that: each would get every second sync. So it *gathers*: it lets others go first as long as fewer records came than
//! there were waiters, but not for longer than a small part of a sync, and not again soon where that was in vain.

use std::sync::Arc;

#[cfg(feature = "async")]
use crate::sync::atomic::Ordering;
use crate::sync::{Door, Mistake, MutexGuard, planted, thread};

use super::{AppendState, Shard, ShardError};
use crate::segment::Visibility;
use crate::storage::Fault;
use crate::types::{Durability, SequenceNumber};

/// How often a leader lets others run while it gathers: some twenty microseconds, up to a few hundred where every processor is busy with them.
const YIELDS_TO_GATHER: u32 = 32;
/// After gathering in vain, at most so many commits go by without.
const MOST_SKIPPED: u32 = 63;

/// The groups of one shard, as its lock protects them.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// Commits that have begun: the number of the group that gathers.
    begun: u64,
    /// The number behind the last record that the last of them covers.
    covered: SequenceNumber,
    /// Whether somebody waits at the door of the even groups, and of the odd ones.
    is_awaited: [bool; 2],
    gathering: Gathering,
}

/// Where the groups wait in turn.
#[derive(Debug, Default)]
pub(super) struct Doors([Door; 2]);

impl Doors {
    fn of(&self, group: u64) -> &Door {
        let [even, odd] = &self.0;
        if group.is_multiple_of(2) { even } else { odd }
    }
}

/// How many records a leader expects.
#[derive(Debug, Default)]
struct Gathering {
    /// Appends that the next commit has to cover.
    arrived: u32,
    /// Those that the last one covered.
    covered: u32,
    /// How many there would be if all that were told come back.
    expected: u32,
    /// Commits until gathering is tried again, and how many it will be next time.
    skip: u32,
    penalty: u32,
}

impl Groups {
    /// An append came that a commit has to cover.
    pub(super) fn note_arrival(&mut self) {
        self.gathering.arrived = self.gathering.arrived.saturating_add(1);
    }

    /// The group that gathers becomes the one that is committed, with all records below `next`.
    fn begin(&mut self, next: SequenceNumber) {
        self.begun += 1;
        self.covered = next;
    }

    /// The group whose commit covers the records below `target`, while one is running.
    fn of(&self, target: SequenceNumber) -> u64 {
        if target <= self.covered { self.begun.wrapping_sub(1) } else { self.begun }
    }

    fn is_awaited(&mut self, group: u64) -> &mut bool {
        let [even, odd] = &mut self.is_awaited;
        if group.is_multiple_of(2) { even } else { odd }
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
        self.covered = std::mem::take(&mut self.arrived);
    }

    /// Those who were told come back, the leader too; the others are there.
    fn expect(&mut self) {
        self.expected = self.covered.saturating_add(self.arrived);
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
                let group = state.groups.of(target);
                *state.groups.is_awaited(group) = true;
                let door = self.doors.of(group);
                let ticket = door.ticket(); // with the lock held: the door is opened later
                drop(state);
                door.wait(ticket);
            } else {
                self.lead_commit(&mut state)?;
            }
        }
    }

    /// Has the background lead a commit of what is appended so far. Those who want one while the last is waited for share it.
    #[cfg(feature = "async")]
    pub(crate) fn want_commit(self: &Arc<Self>) {
        if !self.is_wanted.swap(true, Ordering::SeqCst) {
            self.context.wanted.lock().push(Arc::downgrade(self));
            self.context.flush.ask_to_look();
        }
    }

    /// Leads a commit that was wanted. Its failure is kept by the shard.
    #[cfg(feature = "async")]
    pub(crate) fn commit_wanted(&self) {
        self.is_wanted.store(false, Ordering::SeqCst); // who appends from here on wants another
        let target = self.append.lock().next;
        if let Err(ShardError::Fault(fault)) = self.commit(target) {
            self.end_undurable(target, fault);
        }
        self.tail.ring(); // also after a failure
    }

    /// Tasks wait for the outcome, and nobody leads another commit for them: the shard fails, unless somebody did meanwhile.
    #[cfg(feature = "async")]
    fn end_undurable(&self, target: SequenceNumber, fault: Fault) {
        let mut state = self.append.lock();
        while state.committing {
            self.committed.wait(&mut state);
        }
        if self.next(Visibility::Durable) < target && state.failure.is_none() {
            drop(self.fail(&mut state, fault));
        }
    }

    /// What became of the records below `target`; nothing while it is not known.
    #[cfg(feature = "async")]
    pub(crate) fn committed(&self, target: SequenceNumber) -> Option<Result<(), ShardError>> {
        if self.next(Visibility::Durable) >= target {
            return Some(Ok(()));
        }
        let failure = self.append.lock().failure.clone();
        match failure {
            _ if self.next(Visibility::Durable) >= target => Some(Ok(())),
            Some(failure) => Some(Err(ShardError::Failed(failure))),
            None if self.is_shut() => Some(Err(ShardError::NotOpen)),
            None => None,
        }
    }

    /// Has the task woken by what may be the end of that commit; whether it has to look again now.
    #[cfg(feature = "async")]
    pub(crate) fn watch_commit(
        &self,
        task: super::TaskId,
        waker: &std::task::Waker,
        target: SequenceNumber,
    ) -> bool {
        self.tail.watch(task, waker, || self.committed(target).is_some())
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
        state.groups.gathering.expect();
        if outcome.is_err() {
            state.groups.covered = SequenceNumber::ZERO; // by no commit: who comes while the next one gathers is of that one
            self.tell(state);
        } else if !planted(Mistake::WakeNobody) {
            self.tell_group(state);
        }
        if outcome.is_ok() {
            self.announce();
        }
        outcome
    }

    fn gather(state: &mut MutexGuard<'_, AppendState>) {
        let waits = state.groups.gathering.is_worth_it();
        for _ in 0..if waits { YIELDS_TO_GATHER } else { 0 } {
            if state.groups.gathering.is_complete() {
                break;
            }
            MutexGuard::unlocked(state, thread::yield_now);
        }
        state.groups.gathering.end(waits);
    }

    /// Writes what is staged, lets go of the lock, syncs, and publishes.
    fn commit_group(&self, state: &mut MutexGuard<'_, AppendState>) -> Result<(), ShardError> {
        let next = state.next;
        state.groups.begin(next);
        if let Some(failure) = &state.failure {
            return Err(ShardError::Failed(Arc::clone(failure))); // of a write, while this group gathered
        }
        self.write_staged(state)?;
        let Some(writer) = state.writer.as_mut() else {
            return Err(ShardError::NotOpen); // nothing undurable without a writer
        };
        let file = writer.file_to_sync()?; // of a parked one, which may fail to open: nothing was tried of it, and the next commit tries again
        let (end, next) = (writer.written_end(), writer.next());
        let segment = Arc::clone(writer.segment());
        // Frames are written only with the lock held and no commit running where all of them wait for commits.
        let is_alone = self.context.options.durability == Durability::Synced;
        let zeros = if is_alone { writer.zeros_ahead() } else { None };
        let is_in_place = writer.is_in_place(); // where no zeros are to be written now
        let outcome = MutexGuard::unlocked(state, || {
            if planted(Mistake::PublishBeforeSync) {
                segment.publish_durable(end);
                self.note_durable(next);
            }
            let outcome = match zeros {
                Some((zeros, at)) => file.write_at(zeros, at).and_then(|()| file.sync()),
                None if is_in_place => file.sync_in_place(),
                None => file.sync(),
            };
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

    /// Lets out the group whose commit has ended, and before it one of the next, who leads it while the others come out.
    fn tell_group(&self, state: &mut MutexGuard<'_, AppendState>) {
        self.committed.notify_all();
        let next = state.groups.begun;
        let ended = next.wrapping_sub(1);
        let next_awaits = *state.groups.is_awaited(next);
        let ended_awaits = std::mem::take(state.groups.is_awaited(ended));
        MutexGuard::unlocked(state, || {
            if next_awaits {
                self.doors.of(next).open_for_one();
            }
            if ended_awaits {
                self.doors.of(ended).open();
            }
        });
    }

    /// Lets everybody out who waits, to look what has become durable, or that nothing more will.
    pub(super) fn tell(&self, state: &mut AppendState) {
        self.committed.notify_all();
        if std::mem::take(&mut state.groups.is_awaited) != [false; 2] {
            self.doors.0.iter().for_each(Door::open);
        }
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    #[cfg(feature = "async")]
    use crate::shard::tests::io_fault;
    use crate::shard::tests::{append, shard};

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

    #[test]
    fn a_commit_expects_those_back_whose_records_it_covered() {
        let shard = shard(1 << 20, true);
        let target = append(&shard, Durability::Synced).unwrap().next();
        shard.commit(target).unwrap();
        let gathering = &shard.append.lock().groups.gathering;
        assert_eq!((gathering.arrived, gathering.covered, gathering.expected), (0, 1, 1));
    }

    /// Who wants one before it is led shares it.
    #[cfg(feature = "async")]
    #[test]
    fn a_commit_is_asked_for_once_until_it_is_led() {
        let shard = shard(1 << 20, true);
        append(&shard, Durability::Synced).unwrap();
        let asked_for = || shard.context.wanted.lock().len();
        for _ in 0..2 {
            shard.want_commit();
            assert_eq!(asked_for(), 1);
        }
        shard.commit_wanted();
        shard.want_commit();
        assert_eq!(asked_for(), 2);
    }

    /// Somebody led another commit meanwhile.
    #[cfg(feature = "async")]
    #[test]
    fn a_shard_whose_records_became_durable_all_the_same_goes_on() {
        let shard = shard(1 << 20, true);
        let target = append(&shard, Durability::Synced).unwrap().next();
        shard.commit(target).unwrap();
        shard.end_undurable(target, io_fault());
        append(&shard, Durability::Synced).unwrap();
    }
}
