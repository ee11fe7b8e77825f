//! How far one shard is done: everything up to a position, whatever the order in which lanes finish, and never into a window that is open.

use std::collections::VecDeque;

use super::windows::Window;
use crate::consumer::RecordPosition;
use crate::types::{SequenceNumber, Timestamp};

/// What of one shard was read, what of that is done, and what keeps its checkpoint back.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// What was read, from the first that is not done on.
    pending: VecDeque<Pending>,
    /// Everything up to here is done.
    done_to: Option<RecordPosition>,
    read_to: Option<RecordPosition>,
    /// The windows that are not closed, by the order of their records.
    holds: VecDeque<Hold>,
    /// The checkpoint that was stored last.
    stored: Option<RecordPosition>,
}

#[derive(Debug)]
struct Pending {
    at: RecordPosition,
    is_done: bool,
}

/// A window whose states are rebuilt from its records after a crash: a checkpoint does not pass its first one.
#[derive(Debug)]
struct Hold {
    window: Window,
    /// The record before its first one: none where it starts with the shard, or came from a parent.
    before: Option<RecordPosition>,
    /// Its last record that was read; none of this shard so far.
    last: Option<SequenceNumber>,
    is_inherited: bool,
}

impl Progress {
    /// That a parent left a window open.
    pub(super) fn inherit(&mut self, window: Window) {
        if self.holds.back().is_none_or(|hold| hold.window != window) {
            self.holds.push_back(Hold { window, before: None, last: None, is_inherited: true });
        }
    }

    /// A record was read, in this window.
    pub(super) fn read(&mut self, at: RecordPosition, window: Option<Window>) {
        if let Some(window) = window {
            let last = Some(at.sequence_number);
            match self.holds.iter_mut().rfind(|hold| hold.window == window) {
                Some(hold) => hold.last = last,
                None => self.holds.push_back(Hold { window, before: self.read_to, last, is_inherited: false }),
            }
        }
        self.pending.push_back(Pending { at, is_done: false });
        self.read_to = Some(at);
    }

    /// A record is done, or was given up.
    pub(super) fn done(&mut self, number: SequenceNumber) {
        if let Ok(place) = self.pending.binary_search_by_key(&number, |pending| pending.at.sequence_number)
            && let Some(pending) = self.pending.get_mut(place)
        {
            pending.is_done = true;
        }
        let done = self.pending.iter().take_while(|pending| pending.is_done).count();
        if let Some(last) = self.pending.drain(..done).next_back() {
            self.done_to = Some(last.at);
        }
    }

    /// How many records there are from the first that is not done on.
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Whether all that was read is done.
    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// Lets go of windows that are over by `complete_to`, whose records are done and whose states no lane has any more.
    pub(super) fn release(&mut self, complete_to: Timestamp, is_open: impl Fn(Window) -> bool) {
        let first_pending = self.pending.front().map(|pending| pending.at.sequence_number);
        let is_done = |hold: &Hold| hold.last.is_none_or(|last| first_pending.is_none_or(|first| last < first));
        let is_over = |hold: &&Hold| hold.window.is_over(complete_to) && is_done(hold) && !is_open(hold.window);
        let over = self.holds.iter().take_while(is_over).count();
        self.holds.drain(..over);
    }

    /// Whether a window is open.
    pub(super) fn has_open(&self) -> bool {
        !self.holds.is_empty()
    }

    /// Whether a window is open that a parent left.
    pub(super) fn has_inherited(&self) -> bool {
        self.holds.iter().any(|hold| hold.is_inherited)
    }

    /// The checkpoint that is to be stored, if it is another than the last one.
    pub(super) fn checkpoint(&self) -> Option<RecordPosition> {
        let done_to = self.done_to?;
        let at = match self.holds.front() {
            Some(hold) => {
                hold.before.map(|before| if before.order() < done_to.order() { before } else { done_to })?
            }
            None => done_to,
        };
        (self.stored != Some(at)).then_some(at)
    }

    /// This checkpoint was stored.
    pub(super) fn stored(&mut self, at: RecordPosition) {
        self.stored = Some(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(number: u64) -> RecordPosition {
        RecordPosition { sequence_number: SequenceNumber::new(number), sub_sequence_number: None, incarnation: 1 }
    }

    fn window(start: i64) -> Window {
        Window::of(Timestamp::from_millis(start), 10)
    }

    fn read(windows: &[Option<i64>]) -> Progress {
        let mut progress = Progress::default();
        for (number, start) in (0..).zip(windows) {
            progress.read(at(number), start.map(window));
        }
        progress
    }

    #[test]
    fn the_lowest_that_is_not_done_holds_the_checkpoint() {
        let mut progress = read(&[None; 5]);
        assert_eq!(progress.checkpoint(), None);
        for (number, expected) in [(1, None), (0, Some(1)), (4, Some(1)), (3, Some(1)), (2, Some(4))] {
            progress.done(SequenceNumber::new(number));
            assert_eq!(progress.checkpoint(), expected.map(at), "after {number}");
        }
        assert!(progress.is_idle());
        progress.stored(at(4));
        assert_eq!(progress.checkpoint(), None, "nothing new");
        progress.done(SequenceNumber::new(9));
        assert_eq!(progress.checkpoint(), None, "none of its records");
    }

    #[test]
    fn an_open_window_holds_the_checkpoint_before_its_first_record() {
        let mut progress = read(&[Some(0), Some(0), Some(10), Some(20)]);
        for number in 0..4 {
            progress.done(SequenceNumber::new(number));
        }
        assert_eq!(progress.checkpoint(), None, "before the first there is nothing");
        progress.release(Timestamp::from_millis(20), |open| open == window(10));
        assert_eq!(progress.checkpoint(), Some(at(1)));
        progress.release(Timestamp::from_millis(20), |_| false);
        assert_eq!(progress.checkpoint(), Some(at(2)), "the third is not over");
        progress.release(Timestamp::from_millis(30), |_| false);
        assert_eq!(progress.checkpoint(), Some(at(3)));
    }

    #[test]
    fn a_window_that_follows_lets_the_checkpoint_come_up_to_it() {
        let mut progress = read(&[Some(0), Some(0), Some(10)]);
        for (number, expected) in [(0, None), (1, Some(1)), (2, Some(1))] {
            progress.done(SequenceNumber::new(number));
            progress.release(Timestamp::from_millis(10), |_| false);
            assert_eq!(progress.checkpoint(), expected.map(at), "after {number}");
        }
        let mut progress = read(&[Some(0), Some(0)]);
        progress.done(SequenceNumber::ZERO);
        progress.release(Timestamp::from_millis(10), |_| false);
        assert_eq!(progress.checkpoint(), None, "the first window is not through");
    }

    #[test]
    fn a_window_is_not_let_go_of_while_records_of_it_are_under_way() {
        let mut progress = read(&[Some(0), Some(0)]);
        progress.done(SequenceNumber::ZERO);
        progress.release(Timestamp::from_millis(10), |_| false);
        progress.done(SequenceNumber::new(1));
        assert_eq!(progress.checkpoint(), None, "its state may be open by now");
        progress.release(Timestamp::from_millis(10), |_| false);
        assert_eq!(progress.checkpoint(), Some(at(1)));
    }

    #[test]
    fn what_a_parent_left_holds_everything() {
        let mut progress = Progress::default();
        progress.inherit(window(0));
        assert!(progress.has_inherited());
        for number in 0..2 {
            progress.read(at(number), Some(window(10 * i64::try_from(number).unwrap())));
            progress.done(SequenceNumber::new(number));
        }
        assert_eq!(progress.checkpoint(), None);
        progress.release(Timestamp::from_millis(10), |_| false);
        assert_eq!((progress.checkpoint(), progress.has_inherited()), (Some(at(0)), false));
    }
}
