//! One lane of a shard: its records in order, one call at a time; what is tried again, cut, or given up.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::Policy;
use super::batch::BatchFailure;
use super::failure::{FailedBatch, FailureCondition};
use super::job::{Call, Outcome};
use super::windows::{Changes, ClosedWindow, StateKey, States, Window};
use crate::error::{Error, Result};
use crate::format::WindowState;
use crate::limits::{MAX_FAILURE_REASON_CHARS, MAX_SHARD_STATE_BYTES};
use crate::segment::Record;
use crate::types::{HashKeyRange, SequenceNumber, ShardId, Timestamp};

/// The time, by both clocks, and what to go by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Round<'a> {
    pub(super) wall: Timestamp,
    pub(super) monotonic: Duration,
    pub(super) policy: &'a Policy,
}

#[derive(Debug)]
pub(super) struct Lane {
    shard_id: ShardId,
    index: u32,
    /// What was read and is in no batch yet.
    queue: VecDeque<Queued>,
    /// What is to be done, in order: the first is under way, or waits for its time.
    tasks: VecDeque<Task>,
    is_busy: bool,
    windows: BTreeMap<Window, OpenWindow>,
}

#[derive(Debug)]
struct Queued {
    record: Record,
    window: Option<Window>,
    read_at: Duration,
}

#[derive(Debug, Default)]
struct OpenWindow {
    states: Arc<States>,
    /// The records of this shard that are in the states, and those that were given up behind the first of them.
    span: Option<Span>,
}

impl OpenWindow {
    fn reach(&mut self, records: &[Record]) {
        let reached = Span::of(records).map(|span| self.span.map_or(span, |before| before.and(span)));
        self.span = reached.or(self.span);
    }
}

/// Where records are.
#[derive(Debug, Clone, Copy)]
struct Span {
    first: SequenceNumber,
    last: SequenceNumber,
    first_arrival: Timestamp,
    last_arrival: Timestamp,
    records: u64,
}

#[derive(Debug)]
struct Task {
    piece: Piece,
    attempts: u32,
    /// Attempts that were retries: cutting is none.
    retries: u32,
    /// By the monotonic clock.
    try_at: Duration,
    /// Then the destination is to be told, and no more.
    given_up: Option<Arc<FailedBatch>>,
}

#[derive(Debug)]
enum Piece {
    Batch { records: Arc<[Record]>, window: Option<Window> },
    Close { closed: Arc<ClosedWindow>, keys: Vec<StateKey> },
}

/// What a finished call led to.
#[derive(Debug)]
pub(super) struct Completion {
    /// Records that are done, or were given up.
    pub(super) done: Vec<SequenceNumber>,
    /// Why the source cannot go on.
    pub(super) stop: Result<()>,
}

impl Completion {
    fn done(done: Vec<SequenceNumber>) -> Self {
        Self { done, stop: Ok(()) }
    }
}

impl Lane {
    pub(super) fn new(shard_id: ShardId, index: u32) -> Self {
        let (queue, tasks, windows) = (VecDeque::new(), VecDeque::new(), BTreeMap::new());
        Self { shard_id, index, queue, tasks, is_busy: false, windows }
    }

    pub(super) fn push(&mut self, record: Record, window: Option<Window>, read_at: Duration) {
        self.queue.push_back(Queued { record, window, read_at });
    }

    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn inherit(&mut self, window: Window, state: WindowState) {
        Arc::make_mut(&mut self.windows.entry(window).or_default().states).add(state);
    }

    /// Whether a key has a state in the window.
    pub(super) fn has_open(&self, window: Window) -> bool {
        self.windows.get(&window).is_some_and(|open| !open.states.is_empty())
    }

    /// Whether nothing is left to do, short of windows that are open, of which there is no more than a child's file takes.
    pub(super) fn is_idle(&self, complete_to: Timestamp, lanes: usize) -> bool {
        let has_closable = self.is_over_its_share(lanes) || self.window_that_is_over(complete_to).is_some();
        !self.is_busy && self.queue.is_empty() && self.tasks.is_empty() && !has_closable
    }

    /// Whether its states are more than its part of what a shard may have open: two parents may have left that much.
    fn is_over_its_share(&self, lanes: usize) -> bool {
        let bytes: usize = self.windows.values().map(|open| open.states.bytes()).sum();
        bytes > MAX_SHARD_STATE_BYTES / lanes.max(1)
    }

    /// The states of all windows that are open.
    pub(super) fn states(&self) -> impl Iterator<Item = WindowState> {
        self.windows.iter().flat_map(|(window, open)| open.states.stored(*window))
    }

    // ---- what to do next ----

    /// The next call, if there is one to make now. `complete_to`: every record that arrived before it was read. `is_last`: no further one will be.
    pub(super) fn next_call(&mut self, complete_to: Timestamp, is_last: bool, round: Round<'_>) -> Option<Call> {
        if self.is_busy {
            return None;
        }
        if self.tasks.is_empty() {
            let piece = self.next_piece(complete_to, is_last, round)?;
            self.tasks.push_back(Task::new(piece));
        }
        let task = self.tasks.front().filter(|task| task.try_at <= round.monotonic)?;
        let call = self.call(task, round.policy);
        self.is_busy = true;
        Some(call)
    }

    fn call(&self, task: &Task, policy: &Policy) -> Call {
        if let Some(failed) = &task.given_up {
            return Call::Report(Arc::clone(failed));
        }
        match &task.piece {
            Piece::Close { closed, .. } => Call::Close(Arc::clone(closed)),
            Piece::Batch { records, window } => {
                let open = window.and_then(|window| self.windows.get(&window));
                Call::Batch {
                    records: Arc::clone(records),
                    attempt: task.attempts.saturating_add(1),
                    window: *window,
                    states: open.map(|open| Arc::clone(&open.states)).unwrap_or_default(),
                    hash: policy.hash,
                }
            }
        }
    }

    fn next_piece(&mut self, complete_to: Timestamp, is_last: bool, round: Round<'_>) -> Option<Piece> {
        if self.is_over_its_share(round.policy.options.lanes as usize) {
            let window =
                self.windows.iter().find(|(_, open)| !open.states.is_empty()).map(|(window, _)| *window)?;
            return Some(self.close_all(window, true));
        }
        self.drop_empty_windows(complete_to);
        if let Some(window) = self.window_that_is_over(complete_to) {
            return Some(self.close_all(window, false));
        }
        self.next_batch(complete_to, is_last, round)
    }

    /// Of the windows with states whose records were all handled, the one that ended first. That is not always the one that began first: a parent's may be
    /// longer, if the source had other options then.
    fn window_that_is_over(&self, complete_to: Timestamp) -> Option<Window> {
        let over =
            self.windows.keys().filter(|window| self.is_over(**window, complete_to) && self.has_open(**window));
        over.min_by_key(|window| window.end).copied()
    }

    fn is_over(&self, window: Window, complete_to: Timestamp) -> bool {
        let is_ahead = self.queue.front().is_none_or(|next| next.record.arrival() >= window.end);
        window.is_over(complete_to) && is_ahead
    }

    fn drop_empty_windows(&mut self, complete_to: Timestamp) {
        let is_gone = |window: &Window| self.is_over(*window, complete_to) && !self.has_open(*window);
        let gone: Vec<_> = self.windows.keys().copied().filter(is_gone).collect();
        for window in gone {
            self.windows.remove(&window);
        }
    }

    fn close_all(&self, window: Window, is_early: bool) -> Piece {
        let keys = self.windows.get(&window).map(|open| open.states.keys()).unwrap_or_default();
        self.close(window, keys, is_early)
    }

    fn close(&self, window: Window, keys: Vec<StateKey>, is_early: bool) -> Piece {
        let states = self.windows.get(&window).map(|open| open.states.of_keys(&keys)).unwrap_or_default();
        let closed = ClosedWindow { shard_id: self.shard_id, lane: self.index, window, states, is_early };
        Piece::Close { closed: Arc::new(closed), keys }
    }

    /// The records of the next batch, if it is full, or as full as it will be, or was gathered for long enough.
    fn next_batch(&mut self, complete_to: Timestamp, is_last: bool, round: Round<'_>) -> Option<Piece> {
        let first = self.queue.front()?;
        let (window, read_at) = (first.window, first.read_at);
        let (mut count, mut bytes) = (0, 0_usize);
        for queued in self.queue.iter().take(round.policy.options.batch_records) {
            bytes = bytes.saturating_add(queued.record.partition_key().len() + queued.record.data().len());
            if count > 0 && (queued.window != window || bytes > round.policy.options.batch_bytes) {
                break;
            }
            count += 1;
        }
        let is_full = count == round.policy.options.batch_records || count < self.queue.len();
        let is_over = window.is_some_and(|window| window.is_over(complete_to));
        let is_due = round.monotonic.saturating_sub(read_at) >= round.policy.options.batch_window;
        let is_ready = is_full || is_over || is_due || is_last;
        let records = is_ready.then(|| self.queue.drain(..count).map(|queued| queued.record).collect())?;
        Some(Piece::Batch { records, window })
    }

    /// Has the states closed that no child takes. Whether there are any.
    pub(super) fn close_orphans(&mut self, children: &[HashKeyRange]) -> bool {
        for window in self.windows.keys().copied().collect::<Vec<_>>() {
            let Some(open) = self.windows.get(&window) else { continue };
            let keys: Vec<_> = open.states.keys().into_iter().filter(|key| !key.is_in(children)).collect();
            if !keys.is_empty() {
                let piece = self.close(window, keys, false);
                self.tasks.push_back(Task::new(piece));
            }
        }
        !self.tasks.is_empty()
    }

    // ---- what came of it ----

    /// The call that was under way is finished.
    pub(super) fn complete(&mut self, outcome: Outcome, round: Round<'_>) -> Completion {
        self.is_busy = false;
        let Some(task) = self.tasks.pop_front() else { return Completion::done(Vec::new()) };
        match (outcome.result, task.given_up.clone()) {
            (Ok(()), None) => self.succeed(&task.piece, outcome.changes),
            (Ok(()), Some(_)) => self.pass(&task.piece),
            (Err(failure), None) => self.fail(task, &failure, outcome.changes, round),
            (Err(failure), Some(failed)) => {
                self.tasks.push_front(task);
                Completion { done: Vec::new(), stop: Err(not_taken(&failed, &failure)) }
            }
        }
    }

    fn succeed(&mut self, piece: &Piece, changes: Changes) -> Completion {
        match piece {
            Piece::Batch { records, window } => {
                self.apply(records, *window, changes);
                Completion::done(numbers(records))
            }
            Piece::Close { .. } => self.pass(piece),
        }
    }

    /// What was given up is passed over: of a window, the states go as if they had been taken.
    fn pass(&mut self, piece: &Piece) -> Completion {
        match piece {
            Piece::Batch { records, window } => {
                // Who reads the records of the window again meets these among them.
                if let Some(open) = window.as_ref().and_then(|window| self.windows.get_mut(window)) {
                    open.reach(records);
                }
                Completion::done(numbers(records))
            }
            Piece::Close { closed, keys } => {
                if let Some(open) = self.windows.get_mut(&closed.window) {
                    let states = Arc::make_mut(&mut open.states);
                    for key in keys {
                        states.remove(key);
                    }
                    if states.is_empty() && !closed.is_early {
                        self.windows.remove(&closed.window);
                    }
                }
                Completion::done(Vec::new())
            }
        }
    }

    /// Takes what handled records made of the states of their window. States that are too large now are closed next.
    fn apply(&mut self, records: &[Record], window: Option<Window>, changes: Changes) {
        let Some(window) = window else { return };
        let open = self.windows.entry(window).or_default();
        open.reach(records);
        let large = Arc::make_mut(&mut open.states).apply(changes);
        if !large.is_empty() {
            let piece = self.close(window, large, true);
            self.tasks.push_front(Task::new(piece));
        }
    }

    fn fail(&mut self, task: Task, failure: &BatchFailure, changes: Changes, round: Round<'_>) -> Completion {
        let task = Task { attempts: task.attempts.saturating_add(1), ..task };
        match &task.piece {
            Piece::Batch { records, window } => {
                self.fail_batch(&task, (records, *window), failure, changes, round)
            }
            Piece::Close { closed, .. } => {
                let window = closed.window;
                self.fail_close(task, window, failure, round)
            }
        }
    }

    fn fail_close(&mut self, task: Task, window: Window, failure: &BatchFailure, round: Round<'_>) -> Completion {
        let span = self.windows.get(&window).and_then(|open| open.span);
        let (task, stop) = match task.again(round) {
            Ok(task) => (task, Ok(())),
            Err(task) => {
                let condition = FailureCondition::RetriesExhausted;
                self.give_up(task, (span, Some(window)), condition, failure, round)
            }
        };
        self.tasks.push_front(task);
        Completion { done: Vec::new(), stop }
    }

    /// What stands before the record that failed is done. The rest is cut, tried again, or given up.
    fn fail_batch(
        &mut self,
        task: &Task,
        (records, window): (&[Record], Option<Window>),
        failure: &BatchFailure,
        changes: Changes,
        round: Round<'_>,
    ) -> Completion {
        let named = failure.done_of(records);
        let is_kept = records.get(named).is_some_and(|first| changes.are_before(first.sequence_number()));
        let (done, rest) = records.split_at(if is_kept { named } else { 0 });
        let (next, stop) = self.go_on(task, rest, window, !done.is_empty(), failure, round);
        for task in next.into_iter().rev() {
            self.tasks.push_front(task);
        }
        if !done.is_empty() {
            self.apply(done, window, changes); // last, since what it has closed comes first
        }
        Completion { done: numbers(done), stop }
    }

    /// What becomes of records that failed. That some before them are done is progress: it was cut there.
    fn go_on(
        &self,
        task: &Task,
        rest: &[Record],
        window: Option<Window>,
        is_cut: bool,
        failure: &BatchFailure,
        round: Round<'_>,
    ) -> (Vec<Task>, Result<()>) {
        if round.policy.options.bisect_on_error && is_cut {
            return (vec![task.of(rest, window)], Ok(()));
        }
        if round.policy.options.bisect_on_error && rest.len() > 1 {
            let (left, right) = rest.split_at(rest.len() / 2);
            return (vec![task.of(left, window), task.of(right, window)], Ok(()));
        }
        self.try_again(task, rest, window, failure, round)
    }

    /// What is not cut. Only here is looked at how old it is: what was cut off may not have been handled yet, since others of its batch failed.
    fn try_again(
        &self,
        task: &Task,
        rest: &[Record],
        window: Option<Window>,
        failure: &BatchFailure,
        round: Round<'_>,
    ) -> (Vec<Task>, Result<()>) {
        let old = rest.partition_point(|record| round.policy.is_too_old(record.arrival(), round.wall));
        let (old, young) = rest.split_at(old);
        let give_up =
            |task, records, condition| self.give_up(task, (Span::of(records), None), condition, failure, round);
        let mut outcomes = Vec::new();
        if !old.is_empty() {
            outcomes.push(give_up(task.of(old, window), old, FailureCondition::RecordAgeExceeded));
        }
        if !young.is_empty() {
            let again = task.of(young, window).again(round).map(|task| (task, Ok(())));
            let exhausted = |task| give_up(task, young, FailureCondition::RetriesExhausted);
            outcomes.push(again.unwrap_or_else(exhausted));
        }
        let (tasks, stops): (Vec<_>, Vec<_>) = outcomes.into_iter().unzip();
        (tasks, stops.into_iter().fold(Ok(()), Result::and))
    }

    /// The destination is told next; without one, the source stops here, and begins anew with it when it is run again.
    fn give_up(
        &self,
        task: Task,
        (span, window): (Option<Span>, Option<Window>),
        condition: FailureCondition,
        failure: &BatchFailure,
        round: Round<'_>,
    ) -> (Task, Result<()>) {
        let failed = self.failed(span, window, condition, task.attempts, failure, round);
        if round.policy.has_destination {
            return (Task { given_up: Some(Arc::new(failed)), ..task }, Ok(()));
        }
        let FailedBatch { shard_id, first_sequence_number, last_sequence_number, attempts, reason, .. } = failed;
        let (first, last) = (first_sequence_number, last_sequence_number);
        (Task { retries: 0, ..task }, Err(Error::BatchFailed { shard_id, first, last, attempts, reason }))
    }

    fn failed(
        &self,
        span: Option<Span>,
        window: Option<Window>,
        condition: FailureCondition,
        attempts: u32,
        failure: &BatchFailure,
        round: Round<'_>,
    ) -> FailedBatch {
        FailedBatch {
            stream_id: round.policy.stream_id,
            consumer: round.policy.consumer.clone(),
            shard_id: self.shard_id,
            lane: self.index,
            lanes: round.policy.options.lanes,
            first_sequence_number: span.map(|span| span.first).unwrap_or_default(),
            last_sequence_number: span.map(|span| span.last).unwrap_or_default(),
            first_arrival: span.map(|span| span.first_arrival).unwrap_or_default(),
            last_arrival: span.map(|span| span.last_arrival).unwrap_or_default(),
            batch_size: span.map_or(0, |span| span.records),
            condition,
            attempts,
            reason: failure.reason().chars().take(MAX_FAILURE_REASON_CHARS).collect(),
            window,
        }
    }
}

impl Task {
    fn new(piece: Piece) -> Self {
        Self { piece, attempts: 0, retries: 0, try_at: Duration::ZERO, given_up: None }
    }

    /// What is left of it: with these records only, at once.
    fn of(&self, records: &[Record], window: Option<Window>) -> Self {
        let piece = Piece::Batch { records: records.into(), window };
        Self { piece, attempts: self.attempts, retries: self.retries, try_at: Duration::ZERO, given_up: None }
    }

    /// The same once more, later; or not any more.
    fn again(self, round: Round<'_>) -> Result<Self, Self> {
        let Policy { options, .. } = round.policy;
        if options.retries.is_some_and(|most| self.retries >= most) {
            return Err(self);
        }
        let retries = self.retries.saturating_add(1);
        let try_at = round.monotonic.saturating_add(options.backoff_before(retries));
        Ok(Self { retries, try_at, ..self })
    }
}

impl Span {
    fn of(records: &[Record]) -> Option<Self> {
        let (first, last) = (records.first()?, records.last()?);
        Some(Self {
            first: first.sequence_number(),
            last: last.sequence_number(),
            first_arrival: first.arrival(),
            last_arrival: last.arrival(),
            records: records.len() as u64,
        })
    }

    /// Together with records behind it.
    fn and(self, behind: Self) -> Self {
        let records = self.records.saturating_add(behind.records);
        Self { last: behind.last, last_arrival: behind.last_arrival, records, ..self }
    }
}

fn numbers(records: &[Record]) -> Vec<SequenceNumber> {
    records.iter().map(Record::sequence_number).collect()
}

fn not_taken(failed: &FailedBatch, failure: &BatchFailure) -> Error {
    Error::DestinationFailed {
        shard_id: failed.shard_id,
        first: failed.first_sequence_number,
        last: failed.last_sequence_number,
        reason: failure.reason().to_owned(),
    }
}
