//! A run of segments as one log: append and roll, group commit, reading, recovery, retention.
//!
//! # The write protocol
//!
//! Appending assigns numbers and encodes frames under the shard's lock, into the active segment's buffer.
//! For a `Buffered` append that is all: the buffer is a slot of the [STAGING](staging) file, which survives the process. (Where there is
//! no slot, it writes the buffer at once.) A `Synced` one waits for a *commit*: whoever finds none
//! running leads [one](commit), writes all that is staged (its own and everybody else's), lets go of the lock, syncs once,
//! publishes, and wakes those whose records it covered. Meanwhile the next group gathers.
//!
//! A failed write or sync is final: the shard keeps the error and refuses appends, all who waited get it, and readers
//! go on with what is durable. Linux marks pages clean after a failed write-back, so that a second sync would
//! "succeed" over a hole; only reopening, which trusts nothing but what it reads back, may go on.
//!
//! # Segments and incarnations
//!
//! A segment belongs to the incarnation that created it, and only that one appends to it. Opening a stream for writing seals what a crash
//! left unsealed; the first append creates a new segment. So an open shard has at most one unsealed segment, and an idle shard has no file open.
//!
//! The roll: the successor is created and its name made durable, then the old segment is sealed, and the seal is
//! durable before the successor takes its first record. Hence recovery knows: an unsealed segment with a successor means the successor is
//! empty; a segment sealed as *rolled* without a successor means a file is missing.

mod append;
mod commit;
mod cursor;
mod files;
mod follow;
mod producers;
mod recover;
mod resume;
mod retain;
mod segments;
mod signal;
mod staging;
#[cfg(all(test, not(shuttle)))]
mod tests;
mod watermark;

use crate::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::sync::{Condvar, Mistake, Mutex, OnceLock, RwLock, planted};

use crate::clock::Clock;
use crate::format::{SealKind, ShardEntry, StreamOptions};
use crate::segment::{SegmentWriter, Visibility};
use crate::storage::{Fault, Process, Storage};
use crate::trace::event;
use crate::types::{HashKeyRange, SequenceNumber, ShardId, StreamId, Timestamp};

pub(crate) use append::{AppendEntry, Condition, Stamped};
pub(crate) use cursor::{Cursor, Progress};
pub(crate) use files::{OpenFiles, RecentSegments};
pub(crate) use producers::{Lineage, Memory, ProducerRegistry, Producers};
pub(crate) use recover::Torn;
pub(crate) use resume::Done;
pub(crate) use retain::{Removal, SegmentSummary};
pub(crate) use signal::Signal;
#[cfg(feature = "async")]
pub(crate) use signal::TaskId;
pub(crate) use staging::{STAGING_FILE, Staged, StagingSlots};
pub(crate) use watermark::{WATERMARK_FILE, Watermarks};

use commit::{Doors, Groups};
use follow::FollowState;
use segments::Segments;

/// What the shards of a stream share.
#[derive(Debug)]
pub(crate) struct ShardContext {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) stream_id: StreamId,
    /// Of the writable opening that this is; in a read-only one, what the manifest said.
    pub(crate) incarnation: u64,
    /// That which opened the stream.
    pub(crate) process: Process,
    pub(crate) options: StreamOptions,
    /// The size of a shard's first segment.
    pub(crate) first_segment_bytes: u64,
    /// The retention period in milliseconds as it is now; all ones where it is unlimited.
    pub(crate) retention: AtomicU64,
    pub(crate) watermarks: Watermarks,
    pub(crate) counters: Counters,
    /// The first shard that failed, and how.
    pub(crate) failure: OnceLock<(ShardId, Arc<io::Error>)>,
    /// Rung when any shard of the stream has news for its readers.
    pub(crate) tail: Signal,
    /// Rung when a shard has gathered enough unsynced bytes to want a sync.
    pub(crate) flush: Arc<FlushRequest>,
    /// The segments opened last, which stay mapped for the next point read.
    pub(crate) recent: RecentSegments,
    /// Whether somebody listens to `flush`.
    pub(crate) has_background: bool,
    pub(crate) staging: StagingSlots,
    /// Whether nobody looks for staged records at the moment: who stages one wakes them.
    pub(crate) drains_rest: AtomicBool,
    pub(crate) producers: ProducerRegistry,
    pub(crate) lineage: Lineage,
    /// Shards that tasks want to be committed.
    #[cfg(feature = "async")]
    pub(crate) wanted: Mutex<Vec<std::sync::Weak<Shard>>>,
    /// Numbers the tasks.
    #[cfg(feature = "async")]
    pub(crate) tasks: AtomicU64,
}

/// What is counted for `Stream::metrics`. Statistics: each is exact, no two are read at one moment.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) puts: AtomicU64,
    pub(crate) records_in: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) records_out: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) records_synced: AtomicU64,
    pub(crate) segments_rolled: AtomicU64,
    pub(crate) segments_trimmed: AtomicU64,
    pub(crate) reshards: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

#[cfg(feature = "async")]
impl ShardContext {
    /// One that no other task of the stream has.
    pub(crate) fn new_task(&self) -> TaskId {
        TaskId(self.tasks.fetch_add(1, Ordering::Relaxed))
    }
}

/// Why a shard refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShardError {
    #[error("files")]
    Fault(Fault),
    /// It takes no records, for now or for good: ask the stream who does.
    #[error("not open")]
    NotOpen,
    /// An earlier write or sync failed.
    #[error("failed")]
    Failed(Arc<io::Error>),
    #[error("fencing token mismatch")]
    Fenced { token: u64, actual: u64 },
    /// A later handle of the producer was made.
    #[error("producer fenced")]
    ProducerFenced { producer: String, epoch: u32 },
    /// The producer put a later batch before.
    #[error("batch superseded")]
    Superseded { producer: String, number: u64, last: u64 },
    #[error("sequence number mismatch")]
    Mismatch { expected: SequenceNumber, actual: SequenceNumber },
    #[error("trimmed")]
    Trimmed { requested: SequenceNumber, earliest: SequenceNumber },
    /// A repair found that these records are lost.
    #[error("lost")]
    Lost { first: SequenceNumber, last: SequenceNumber },
    #[error("beyond the tail")]
    BeyondTail { requested: SequenceNumber, next: SequenceNumber },
}

impl From<Fault> for ShardError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// A standing wish for whoever works in the background.
#[derive(Debug, Default)]
pub(crate) struct FlushRequest {
    wish: AtomicU8,
    signal: Signal,
}

const NO_WISH: u8 = 0;
const LOOK_AGAIN: u8 = 1;
const SYNC: u8 = 2;

impl FlushRequest {
    /// Wishes for a sync, and wakes whoever waits for wishes.
    pub(crate) fn ask(&self) {
        self.wish_for(SYNC);
    }

    /// Wishes for no more than a look at what is due.
    pub(crate) fn ask_to_look(&self) {
        self.wish_for(LOOK_AGAIN);
    }

    fn wish_for(&self, wish: u8) {
        if self.wish.fetch_max(wish, Ordering::SeqCst) < wish {
            self.signal.ring();
        }
    }

    /// Waits for a wish or for `timeout`; whether a sync was wished for.
    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        self.signal.wait_unless(timeout, || self.wish.load(Ordering::SeqCst) != NO_WISH);
        self.wish.swap(NO_WISH, Ordering::SeqCst) == SYNC
    }
}

/// One shard's log.
#[derive(Debug)]
pub(crate) struct Shard {
    id: ShardId,
    range: HashKeyRange,
    directory: PathBuf,
    context: Arc<ShardContext>,
    segments: RwLock<Segments>,
    append: Mutex<AppendState>,
    /// Told when a commit ended, whatever its outcome: for those who want the shard to themselves.
    committed: Condvar,
    /// Where those wait whose records a commit is to make durable.
    doors: Doors,
    /// All records below survive the death of the process: they are in a segment, or staged.
    written: AtomicU64,
    /// All records below are in a segment, where readers find them.
    drained: AtomicU64,
    /// What `written` was when somebody looked for old staged records last.
    seen_written: AtomicU64,
    /// All records below that were put to be durable are appended, and wait for a commit if they are not.
    awaited: AtomicU64,
    /// All records below are durable.
    durable: AtomicU64,
    /// Bytes of keys and data that were appended in this opening and are counted.
    bytes_in: AtomicU64,
    /// Readers are shown nothing below this number.
    horizon: AtomicU64,
    /// The number behind the last record there will ever be; all ones while the shard is open.
    end: AtomicU64,
    tail: Signal,
    /// Set by [`shut`](Self::shut): nothing more will come.
    is_shut: AtomicBool,
    /// In a read-only stream: how far the other process' segment was followed.
    follow: Option<Mutex<FollowState>>,
    /// Whether it is among those that tasks want to be committed.
    #[cfg(feature = "async")]
    is_wanted: AtomicBool,
}

/// What the shard's lock protects.
#[derive(Debug)]
struct AppendState {
    /// The active segment; none until the first append of this incarnation.
    writer: Option<SegmentWriter>,
    /// The next number to give.
    next: SequenceNumber,
    last_arrival: Timestamp,
    next_file_bytes: u64,
    /// Whether a file was opened that [`OpenFiles`] was not told of.
    has_opened_file: bool,
    /// A segment whose creation failed, and whose file may be there.
    leftover: Option<SequenceNumber>,
    phase: Phase,
    /// The write or sync that failed.
    failure: Option<Arc<io::Error>>,
    /// Whether somebody syncs the active segment's file outside the lock.
    committing: bool,
    /// What was appended and not added to the stream's counters yet.
    counted: Counted,
    groups: Groups,
    /// What is remembered of producers; nothing until it is needed, and always there when there is a writer.
    producers: Option<Producers>,
    /// The token that fenced appends have to show; 0 where there is none.
    fencing_token: u64,
}

#[derive(Debug, Default)]
struct Counted {
    puts: u64,
    records: u64,
    bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// Sealed for a reshard or a close that is not decided yet.
    Frozen,
    Closed,
}

const STILL_OPEN: u64 = u64::MAX;

impl Shard {
    fn assemble(
        context: Arc<ShardContext>,
        directory: PathBuf,
        entry: &ShardEntry,
        segments: Segments,
        next: SequenceNumber,
        last_arrival: Timestamp,
    ) -> Self {
        let next_file_bytes = segments.next_file_bytes(context.first_segment_bytes, context.options.segment_bytes);
        let phase = if entry.is_open() { Phase::Open } else { Phase::Closed };
        Self {
            id: entry.id,
            range: entry.range,
            directory,
            context,
            segments: RwLock::new(segments),
            append: Mutex::new(AppendState {
                writer: None,
                next,
                last_arrival: last_arrival.max(entry.last_arrival),
                next_file_bytes,
                has_opened_file: false,
                leftover: None,
                phase,
                failure: None,
                committing: false,
                counted: Counted::default(),
                groups: Groups::default(),
                producers: None,
                fencing_token: entry.fencing_token,
            }),
            committed: Condvar::new(),
            doors: Doors::default(),
            written: AtomicU64::new(next.get()),
            drained: AtomicU64::new(next.get()),
            seen_written: AtomicU64::new(next.get()),
            awaited: AtomicU64::new(next.get()),
            durable: AtomicU64::new(next.get()),
            bytes_in: AtomicU64::new(0),
            horizon: AtomicU64::new(entry.horizon.get()),
            end: AtomicU64::new(if entry.is_open() { STILL_OPEN } else { next.get() }),
            tail: Signal::default(),
            is_shut: AtomicBool::new(false),
            follow: None,
            #[cfg(feature = "async")]
            is_wanted: AtomicBool::new(false),
        }
    }

    /// A shard that was just made for a manifest to come: its directory exists and is empty.
    pub(crate) fn new(context: Arc<ShardContext>, directory: PathBuf, entry: &ShardEntry) -> Self {
        let segments = Segments::default();
        Self::assemble(context, directory, entry, segments, entry.next, entry.last_arrival)
    }

    pub(crate) fn id(&self) -> ShardId {
        self.id
    }

    pub(crate) fn range(&self) -> HashKeyRange {
        self.range
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The number behind the last record that `visibility` shows.
    pub(crate) fn next(&self, visibility: Visibility) -> SequenceNumber {
        SequenceNumber::new(match visibility {
            Visibility::Durable => self.durable.load(Ordering::SeqCst),
            Visibility::Written => self.written.load(Ordering::SeqCst),
        })
    }

    /// The number behind the last record there will ever be, once that is known.
    pub(crate) fn end(&self) -> Option<SequenceNumber> {
        let end = self.end.load(Ordering::SeqCst);
        (end != STILL_OPEN).then(|| SequenceNumber::new(end))
    }

    /// Whether anything is appended that is not durable.
    pub(crate) fn has_unsynced(&self) -> bool {
        let appended = self.awaited.load(Ordering::SeqCst).max(self.written.load(Ordering::SeqCst));
        appended > self.durable.load(Ordering::SeqCst)
    }

    /// The arrival of the newest record, or the time before which no further one will be stamped.
    pub(crate) fn last_arrival(&self) -> Timestamp {
        self.append.lock().last_arrival
    }

    /// Whether records wait in a slot of the STAGING file.
    pub(crate) fn has_staged(&self) -> bool {
        self.written.load(Ordering::SeqCst) > self.drained.load(Ordering::SeqCst)
    }

    /// The number behind the last record that is in a segment.
    pub(crate) fn next_drained(&self) -> SequenceNumber {
        SequenceNumber::new(self.drained.load(Ordering::SeqCst))
    }

    /// Writes what is staged to its segment, where readers find it. Not in a copy that a fork made: the slot is mapped there, too, and has what the parent staged since.
    pub(crate) fn drain(&self) -> Result<(), ShardError> {
        if !self.has_staged() || self.context.process.was_forked() {
            return Ok(());
        }
        let mut state = self.append.lock();
        if let Some(failure) = &state.failure {
            return Err(ShardError::Failed(Arc::clone(failure)));
        }
        self.write_staged(&mut state)
    }

    /// Writes what is staged if some of it was so at the last call: a writer that fills its slot sooner writes it whole, which
    /// is the cheapest.
    pub(crate) fn drain_old(&self) -> Result<(), ShardError> {
        let seen = self.seen_written.swap(self.written.load(Ordering::SeqCst), Ordering::SeqCst);
        if seen > self.drained.load(Ordering::SeqCst) { self.drain() } else { Ok(()) }
    }

    /// Gives back the slot of a shard in which nothing is staged.
    pub(crate) fn release_slot(&self) {
        drop(self.append.lock().writer.as_mut().and_then(SegmentWriter::take_slot));
    }

    /// Adds what was appended to the stream's counters.
    pub(crate) fn count(&self) {
        self.count_appended(&mut self.append.lock());
    }

    fn count_appended(&self, state: &mut AppendState) {
        let Counted { puts, records, bytes } = std::mem::take(&mut state.counted);
        let counters = &self.context.counters;
        Counters::add(&counters.puts, puts);
        Counters::add(&counters.records_in, records);
        Counters::add(&counters.bytes_in, bytes);
        Counters::add(&self.bytes_in, bytes);
    }

    /// Bytes of keys and data that were appended in this opening.
    pub(crate) fn bytes_in(&self) -> u64 {
        self.count();
        self.bytes_in.load(Ordering::Relaxed)
    }

    /// Whether somebody sleeps at the tail.
    pub(crate) fn has_sleepers(&self) -> bool {
        self.tail.has_sleepers()
    }

    /// Sleeps until there may be records at `next` or the end of the shard, or for `timeout`.
    pub(crate) fn wait(&self, next: SequenceNumber, visibility: Visibility, timeout: Duration) {
        self.tail.wait_unless(timeout, || self.next(visibility) > next || self.end().is_some() || self.is_shut());
    }

    /// Has a task woken when there may be news of this shard; whether something has `happened` already.
    #[cfg(feature = "async")]
    pub(crate) fn watch(&self, task: TaskId, waker: &std::task::Waker, happened: impl FnOnce() -> bool) -> bool {
        self.tail.watch(task, waker, happened)
    }

    /// The task waits no more.
    #[cfg(feature = "async")]
    pub(crate) fn forget(&self, task: TaskId) {
        self.tail.forget(task);
    }

    pub(crate) fn is_shut(&self) -> bool {
        self.is_shut.load(Ordering::SeqCst)
    }

    /// Wakes everyone who waits for this shard's tail.
    fn announce(&self) {
        self.tail.ring();
        self.context.tail.ring();
    }

    /// Seals the shard so that it can be closed, split or merged: when this returns, everything it holds is durable, and
    /// appends are answered with [`ShardError::NotOpen`] until [`thaw`](Self::thaw).
    pub(crate) fn freeze(&self) -> Result<(SequenceNumber, Timestamp), ShardError> {
        let mut state = self.append.lock();
        while state.committing {
            self.committed.wait(&mut state);
        }
        if let Some(failure) = &state.failure {
            return Err(ShardError::Failed(Arc::clone(failure)));
        }
        if state.phase == Phase::Open {
            self.retire_writer(&mut state)?;
            state.phase = Phase::Frozen;
        }
        Ok((state.next, state.last_arrival))
    }

    /// Seals the active segment, if there is one, and puts it aside.
    fn retire_writer(&self, state: &mut AppendState) -> Result<(), ShardError> {
        self.drain_staged(state)?; // counted before the seal shows it: whoever reads a record may say at once that it is done
        state.writer.as_mut().map(SegmentWriter::open).transpose()?; // so that a failure to open it is only a refusal
        let Some(mut writer) = state.writer.take() else {
            return Ok(());
        };
        let first = writer.segment().first();
        if writer.is_empty() {
            self.segments.write().remove(first);
            let removed = writer.remove_empty();
            state.leftover = removed.is_err().then_some(first);
            return Ok(removed?);
        }
        let producers = state.producers.as_ref().map(Producers::encode).unwrap_or_default();
        match writer.seal(SealKind::Closed, &producers) {
            Ok(_) => {
                self.segments.write().seal(first);
                self.note_durable(writer.next());
                self.tell(state);
                self.announce();
                Ok(())
            }
            Err(fault) => {
                state.writer = Some(writer);
                self.announce(); // of what was written before
                Err(self.fail(state, fault))
            }
        }
    }

    /// Whether an append that shows this token would not be refused for it now.
    pub(crate) fn check_token(&self, token: u64) -> Result<(), ShardError> {
        self.append.lock().check_token(token)
    }

    /// From now on, a fenced append has to show this token.
    pub(crate) fn fence(&self, token: u64) {
        self.append.lock().fencing_token = token;
    }

    /// Takes appends again after a freeze that led to nothing.
    pub(crate) fn thaw(&self) {
        let mut state = self.append.lock();
        if state.phase == Phase::Frozen {
            state.phase = Phase::Open;
        }
    }

    /// Refuses appends until the stream is opened again: the outcome of this shard's reshard is unknown.
    pub(crate) fn abandon(&self, fault: &Fault) {
        let mut state = self.append.lock();
        let source = match fault {
            Fault::Io { source, .. } => {
                io::Error::new(source.kind(), format!("its reshard was cut short: {source}"))
            }
            other => io::Error::other(format!("its reshard was cut short: {other:?}")),
        };
        state.phase = Phase::Open; // so that puts meet the failure instead of waiting
        self.keep_failure(&mut state, &Arc::new(source));
    }

    /// Makes a frozen shard a closed one: its readers reach its end.
    pub(crate) fn close(&self) {
        let mut state = self.append.lock();
        state.phase = Phase::Closed;
        self.end.store(state.next.get(), Ordering::SeqCst);
        drop(state);
        self.announce();
    }

    /// Refuses appends and commits from now on, and wakes the readers; what is written stays as it is. For a stream that
    /// is closed: when this returns, nothing of this shard is written any more.
    pub(crate) fn shut(&self) {
        let mut state = self.append.lock();
        while state.committing {
            self.committed.wait(&mut state);
        }
        state.phase = Phase::Closed;
        state.writer = None;
        self.tell(&mut state);
        drop(state);
        self.is_shut.store(true, Ordering::SeqCst);
        self.announce();
    }

    /// Closes the active segment's file until the next append or sync; whether that could be done now.
    pub(crate) fn park(&self) -> bool {
        let mut state = self.append.lock();
        if state.committing || state.failure.is_some() {
            return false;
        }
        let Some(writer) = state.writer.as_mut() else {
            return true;
        };
        let had_unsynced = writer.unsynced_bytes() > 0;
        let outcome = writer.park();
        let (next, is_durable) = (writer.next(), writer.unsynced_bytes() == 0);
        match outcome {
            Ok(()) if had_unsynced => {
                self.note_drained(next);
                if is_durable {
                    self.note_durable(next);
                }
                self.tell(&mut state);
                self.announce();
            }
            Ok(()) => {}
            Err(fault) => drop(self.fail(&mut state, fault)), // told to the next one who appends
        }
        true
    }

    /// The records below `next` survive the process. Called with the shard's lock held.
    fn note_written(&self, next: SequenceNumber) {
        self.written.store(next.get(), Ordering::SeqCst);
    }

    /// The records below `next` are in a segment. Called with the shard's lock held.
    fn note_drained(&self, next: SequenceNumber) {
        self.note_written(next);
        self.drained.store(next.get(), Ordering::SeqCst);
    }

    fn note_durable(&self, next: SequenceNumber) {
        let before = self.durable.fetch_max(next.get(), Ordering::SeqCst);
        let counters = &self.context.counters;
        Counters::add(&counters.syncs, 1);
        Counters::add(&counters.records_synced, next.get().saturating_sub(before));
        self.context.watermarks.store(self.id, next);
    }

    /// Keeps a failed write or sync for good.
    fn fail(&self, state: &mut AppendState, fault: Fault) -> ShardError {
        let failure = match fault {
            Fault::Io { operation, path, source } => {
                let text = format!("{operation} {}: {source}", path.display());
                Arc::new(io::Error::new(source.kind(), text))
            }
            other => return ShardError::Fault(other),
        };
        self.keep_failure(state, &failure);
        self.tell(state);
        ShardError::Failed(failure)
    }

    fn keep_failure(&self, state: &mut AppendState, failure: &Arc<io::Error>) {
        event!(error, shard = %self.id, error = %failure, "shard failed: it takes no more records until the stream is opened again");
        if !planted(Mistake::ForgetFailure) {
            state.failure = Some(Arc::clone(failure));
        }
        self.context.failure.get_or_init(|| (self.id, Arc::clone(failure)));
    }
}
