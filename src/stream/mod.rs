//! The engine: a stream as its user sees it.

#[cfg(feature = "async")]
mod asynchronous;
mod background;
mod builder;
mod capacity;
mod consumers;
mod describe;
mod entries;
mod leftovers;
mod metered;
mod open;
mod parallel;
mod producer;
mod put;
mod put_each;
mod queues;
mod quotas;
mod read;
mod records;
mod refresh;
mod repair;
mod reshard;
mod retention;
mod salvage;
mod verify;

use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;

use crate::sync::Mutex;

use crate::error::{Error, Result};
use crate::format::{ManifestState, ShardEntry};
use crate::leases::LeaseFile;
use crate::manifest::{self, Manifest};
use crate::routing::Routes;
use crate::segment::Visibility;
use crate::shard::{OpenFiles, Shard, ShardContext};
use crate::storage::LockGuard;
use crate::types::{Durability, HashKey, ShardId};

#[cfg(feature = "async")]
pub use asynchronous::{PutBatchFuture, PutFuture, RecordsStream, ShardStream};
pub(crate) use background::Background;
pub use builder::StreamBuilder;
pub use capacity::Rebalanced;
pub(crate) use consumers::error_of;
pub use describe::{Metrics, ShardDescription, ShardState, ShardSummary, StreamDescription};
pub(crate) use entries::EntryBuffer;
pub(crate) use open::{LOCK_FILE, draw_id, make_directories};
pub use producer::{Producer, ProducerDescription};
pub use put::{PutBatchOptions, PutEntry, PutOptions, PutReceipt};
pub(crate) use queues::OpenQueue;
pub use read::{Available, ChildShard, Follow, ShardIterator};
pub use records::{Records, RecordsAvailable, RecordsFollow, RecordsStart};
pub use repair::{RepairReport, repair};
pub use retention::TrimReport;
pub use salvage::{LostRange, SalvageReport, Salvaged, SalvagedRecord, salvage};
pub use verify::{VerifyOptions, VerifyProgress, VerifyReport, verify};

use capacity::Scaling;
use retention::DeletionClock;

/// A stream, open for writing or read-only. A handle: clones share it, in any number of threads.
///
/// The last handle that is dropped closes the stream, as [`close`](Self::close) does, but has nobody to tell
/// if that fails; what was acknowledged is safe either way. Iterators are no handles: they read on in what is there.
///
/// See the [crate's documentation](crate) for an example.
#[derive(Clone)]
pub struct Stream {
    inner: Arc<Handle>,
}

/// What all clones of a handle share: the last of them closes the stream.
pub(crate) struct Handle(Arc<StreamInner>);

impl Deref for Handle {
    type Target = StreamInner;

    fn deref(&self) -> &StreamInner {
        &self.0
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.0.is_forked() {
            // The parent's stream: its files, and threads that are not here. Nothing of it is touched, nor waited for.
            std::mem::forget(Arc::clone(&self.0));
            return;
        }
        // Nobody is left to tell; what was acknowledged is durable at its level without this.
        let _ = self.0.close();
    }
}

pub(crate) struct StreamInner {
    path: PathBuf,
    context: Arc<ShardContext>,
    topology: ArcSwap<Topology>,
    /// The durable state. Held through every change of the set of shards or the options.
    manifest: Mutex<Manifest>,
    /// Taken only by a writer; dropping it lets the next one in.
    lock: Mutex<Option<Box<dyn LockGuard>>>,
    read_only: bool,
    /// Refuses operations.
    closing: AtomicBool,
    /// What closing it came to, for every handle that closes it. Set before the manifest is let go of.
    close_outcome: Mutex<Result<()>>,
    /// Everything that was acknowledged is sealed: readers that are at the tail may end.
    closed: AtomicBool,
    recovery: RecoveryReport,
    deletion_clock: Mutex<DeletionClock>,
    scaling: Scaling,
    quotas: quotas::QuotaKeeper,
    background: Mutex<Option<Background>>,
    files: Arc<OpenFiles>,
    /// Whether a thread has waiting tasks of a read-only stream look at the files.
    #[cfg(feature = "async")]
    looks_for_tasks: AtomicBool,
    /// The consumers that somebody holds, or of which something is to be synced, by name.
    consumers: Mutex<BTreeMap<String, Arc<LeaseFile>>>,
    /// The queues that were opened, by name.
    queues: Mutex<BTreeMap<String, Arc<dyn OpenQueue>>>,
    /// The number of the next receipt of a queue; 0 is none.
    receipts: AtomicU64,
}

/// The shards as they are between two reshards.
#[derive(Debug)]
struct Topology {
    routes: Routes,
    /// The logs of the open shards, in the order of the routes: what a put needs is found in one step.
    open: Vec<Arc<Shard>>,
    shards: BTreeMap<ShardId, Member>,
}

/// A listed shard: its log, and what the manifest says of it.
#[derive(Debug, Clone)]
struct Member {
    shard: Arc<Shard>,
    entry: ShardEntry,
}

/// What opening a stream found and mended; see [`Stream::recovery`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// Whether the stream was closed cleanly before; nothing was recovered then. True for a new stream.
    pub was_clean: bool,
    /// Shards with a segment that the last writer left unsealed.
    pub shards_recovered: u64,
    /// Records found in those segments.
    pub records_recovered: u64,
    /// Writes that the crash had cut short. None of them was acknowledged, except for `Buffered` records
    /// that a power cut took.
    pub torn_tails: Vec<TornTail>,
}

/// A write that a crash had cut short.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TornTail {
    /// Its shard.
    pub shard_id: ShardId,
    /// The number of the first record that was not whole; the next record gets it.
    pub next_sequence_number: crate::types::SequenceNumber,
    /// The segment file.
    pub path: PathBuf,
    /// Where in it the sound frames end.
    pub offset: u64,
}

impl Stream {
    /// Starts describing a stream to create or open.
    pub fn builder() -> StreamBuilder {
        StreamBuilder::default()
    }

    /// The stream's directory.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Whether it was opened with [`StreamBuilder::open_read_only`].
    pub fn is_read_only(&self) -> bool {
        self.inner.read_only
    }

    /// What the opening of this handle found after a crash.
    pub fn recovery(&self) -> RecoveryReport {
        self.inner.recovery.clone()
    }

    /// Makes every record put so far durable, whatever level it was acknowledged at, every checkpoint made in this process, and where its queues stand.
    ///
    /// # Errors
    ///
    /// The first shard that fails, after all have been tried; also one whose failure all who put there were told.
    pub fn sync(&self) -> Result<()> {
        self.inner.writable()?;
        self.inner.sync_all()
    }

    /// Does now what the background thread does in its time: syncs what `Buffered` puts left unsynced, and enforces retention. For a
    /// stream without a background thread ([`StreamBuilder::background`]).
    pub fn maintain(&self) -> Result<()> {
        self.inner.writable()?;
        self.inner.sync_all()?;
        self.inner.enforce_retention().map(drop)
    }

    /// Closes the stream for all its handles: makes everything durable, seals the segments, records every shard's exact
    /// end, and releases the lock. Later calls through any handle give [`Error::Closed`]; records
    /// that were read stay valid, and iterators still read what is there.
    ///
    /// The next opening reads no records. Closing twice is fine: each call says how the first one went, so that none says that records are durable
    /// which may not be.
    ///
    /// # Errors
    ///
    /// [`Error::ShardFailed`] and [`Error::Io`]: what was acknowledged at the level `Buffered` may not be durable. The lock is released all the same, and the next opening
    /// recovers what is there.
    pub fn close(self) -> Result<()> {
        self.inner.close()
    }

    /// For a store, which remembers its open streams without keeping them open.
    pub(crate) fn downgrade(&self) -> WeakStream {
        WeakStream { handle: Arc::downgrade(&self.inner), inner: Arc::downgrade(&self.inner.0) }
    }

    /// Closes the stream without a trace, since its files are to go; gives its lock.
    pub(crate) fn close_for_deletion(&self) -> Option<Box<dyn LockGuard>> {
        let manifest = self.inner.manifest.lock();
        self.inner.closing.store(true, Ordering::SeqCst);
        self.inner.shut_shards();
        self.inner.forget_queues();
        self.inner.consumers.lock().clear(); // a close that follows has nothing to sync
        let lock = self.inner.lock.lock().take();
        drop(manifest);
        self.inner.stop_background();
        lock
    }
}

/// A stream that may be closed by now.
pub(crate) struct WeakStream {
    handle: Weak<Handle>,
    inner: Weak<StreamInner>,
}

impl WeakStream {
    /// The stream, if it is open. If its last handle is just being dropped, waits until it is closed.
    pub(crate) fn upgrade(&self) -> Option<Stream> {
        if let Some(inner) = self.handle.upgrade().filter(|inner| inner.not_closed().is_ok()) {
            return Some(Stream { inner });
        }
        if let Some(inner) = self.inner.upgrade() {
            let _ = inner.close(); // whoever dropped the handle has nobody to tell either
        }
        None
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("path", &self.inner.path)
            .field("read_only", &self.inner.read_only)
            .finish_non_exhaustive()
    }
}

impl StreamInner {
    fn writable(&self) -> Result<()> {
        if self.read_only { Err(Error::ReadOnly) } else { self.not_closed() }
    }

    fn not_closed(&self) -> Result<()> {
        let closed = self.closing.load(Ordering::SeqCst) || self.context.process.was_forked();
        if closed { Err(Error::Closed) } else { Ok(()) }
    }

    /// In a copy that a fork made, a lock may be held for ever, and what is staged is its parent's.
    fn not_forked(&self) -> Result<()> {
        if self.context.process.was_forked() { Err(Error::Closed) } else { Ok(()) }
    }

    fn topology(&self) -> Arc<Topology> {
        self.topology.load_full()
    }

    fn member(&self, shard_id: ShardId) -> Result<Member> {
        let topology = self.topology();
        topology.shards.get(&shard_id).cloned().ok_or(Error::ShardNotFound(shard_id))
    }

    /// What readers of this stream are shown unless they ask for more.
    fn visibility(&self) -> Visibility {
        match self.context.options.durability {
            Durability::Buffered => Visibility::Written,
            Durability::Synced => Visibility::Durable,
        }
    }

    /// Writes what is staged to the segments, where other processes find it; how many shards had something, and what it took.
    fn drain_shards(&self) -> u64 {
        let topology = self.topology();
        let wanted = self.context.staging.take_exhausted();
        let mut drained = 0;
        for member in topology.shards.values() {
            if member.shard.has_staged() {
                drained += 1;
                let _ = member.shard.drain_old(); // a failure is kept by the shard, which tells the next one who appends
            } else if wanted {
                member.shard.release_slot(); // it was idle since the last look
            }
        }
        drained
    }

    /// Makes everything durable: records first, and then the checkpoints behind them.
    fn sync_all(&self) -> Result<()> {
        self.sync_shards().and(self.sync_consumers()).and(self.keep_queues())
    }

    fn sync_shards(&self) -> Result<()> {
        let topology = self.topology();
        let unsynced: Vec<_> = topology.shards.values().filter(|member| member.shard.has_unsynced()).collect();
        let outcomes =
            parallel::map(&unsynced, |member| member.shard.sync().map_err(Error::of_shard(member.shard.id())));
        outcomes.into_iter().fold(Ok(()), Result::and) // all are tried
    }

    /// Puts the shards of `state` in force for producers and readers. Logs of shards that stay are kept.
    /// Called with the manifest's lock held.
    fn publish(&self, state: &ManifestState, made: Vec<Arc<Shard>>) {
        let topology = self.topology();
        let mut made: BTreeMap<_, _> = made.into_iter().map(|shard| (shard.id(), shard)).collect();
        let shards = state.shards.iter().filter_map(|entry| {
            let known = topology.shards.get(&entry.id).map(|member| Arc::clone(&member.shard));
            let shard = known.or_else(|| made.remove(&entry.id))?;
            let entry = entry.clone();
            Some((entry.id, Member { shard, entry }))
        });
        self.context.lineage.set(&state.shards);
        // A manifest whose open shards do not tile the space is never put in force.
        let next = Topology::new(shards.collect(), manifest::routes(state).unwrap_or_default());
        self.topology.store(Arc::new(next));
        self.context.tail.ring();
    }

    /// Whether this is a copy that a fork made.
    fn is_forked(&self) -> bool {
        !self.context.process.is_this()
    }

    fn close(&self) -> Result<()> {
        if self.is_forked() {
            return Err(Error::Closed);
        }
        let outcome = self.close_once();
        self.stop_background();
        // Not under the manifest's lock: who works on a consumer may be waiting for it. What could not be synced is tried again by a later close.
        outcome.and(self.sync_consumers())
    }

    /// All but the checkpoints; later calls are told what the first one found.
    fn close_once(&self) -> Result<()> {
        let mut manifest = self.manifest.lock();
        if self.closing.swap(true, Ordering::SeqCst) {
            return self.close_outcome.lock().clone(); // and it is closed, since whoever closed it held the manifest
        }
        let outcome = if self.read_only { Ok(()) } else { self.close_shards(&mut manifest) };
        self.shut_shards();
        let outcome = outcome.and(self.close_queues());
        self.close_outcome.lock().clone_from(&outcome);
        *self.lock.lock() = None;
        outcome
    }

    /// Ends all writing, and lets waiting readers end.
    fn shut_shards(&self) {
        self.closed.store(true, Ordering::SeqCst);
        for member in self.topology().shards.values() {
            member.shard.shut();
        }
    }

    /// Not under the manifest's lock: the thread may be waiting for it.
    fn stop_background(&self) {
        drop(self.background.lock().take());
    }

    fn close_shards(&self, manifest: &mut Manifest) -> Result<()> {
        let mut state = manifest.state().clone();
        let mut outcome = Ok(());
        let topology = self.topology();
        let open: Vec<_> = topology.shards.values().filter(|member| member.entry.is_open()).collect();
        let frozen = parallel::map(&open, |member| member.shard.freeze());
        for (member, frozen) in open.iter().zip(frozen) {
            let shard = &member.shard;
            match (frozen, state.shard_mut(shard.id())) {
                (Ok((next, last_arrival)), Some(entry)) => {
                    entry.next = next;
                    entry.last_arrival = last_arrival;
                }
                (Err(error), _) => outcome = outcome.and(Err(Error::of_shard(shard.id())(error))),
                (Ok(_), None) => {}
            }
        }
        outcome?; // without every exact end it is no clean close
        // Written anew before the sync, since an earlier one may have failed: a clean stream has nothing unsynced.
        for entry in &state.shards {
            self.context.watermarks.try_store(entry.id, entry.next)?;
        }
        self.context.watermarks.sync()?;
        state.clean = true;
        manifest.replace(state).map_err(|error| Error::from(error.into_fault()))?;
        self.context.staging.remove();
        Ok(())
    }
}

impl Topology {
    fn new(shards: BTreeMap<ShardId, Member>, routes: Routes) -> Self {
        let log = |id| shards.get(&id).map(|member| Arc::clone(&member.shard));
        Self { open: routes.shards().filter_map(log).collect(), routes, shards }
    }

    fn shard_of(&self, key: HashKey) -> Option<&Arc<Shard>> {
        self.open.get(self.routes.index_of(key))
    }
}
