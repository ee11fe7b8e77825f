//! Creating a stream's directory, and opening one: lock, manifest, recovery of each shard.

use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::sync::{Mutex, OnceLock};

use super::builder::StreamBuilder;
use super::capacity::Scaling;
use super::leftovers::misplaced;
use super::quotas::QuotaKeeper;
use super::retention::DeletionClock;
use super::{Background, Handle, Member, RecoveryReport, Stream, StreamInner, Topology, TornTail, parallel};
use crate::capacity::Capacity;
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Result};
use crate::format::{ManifestState, ShardEntry, parse_segment_name};
use crate::limits::FIRST_SEGMENT_BYTES;
use crate::manifest::{self, MANIFEST_FILE, MANIFEST_NEW_FILE, Manifest};
use crate::queue_files::QueuesDirectory;
use crate::shard::{
    Counters, FlushRequest, Lineage, OpenFiles, ProducerRegistry, RecentSegments, STAGING_FILE, Shard,
    ShardContext, Signal, Staged, StagingSlots, Torn, WATERMARK_FILE, Watermarks,
};
use crate::storage::{
    Access, Corruption, DirEntry, Disk, Fault, LockGuard, Process, Storage, list_if_there, make_directory,
    remove_if_there,
};
use crate::trace::event;
use crate::types::{HashKeyRange, SequenceNumber, ShardId, StreamId, Timestamp};

/// The directory of the shards' directories, in the stream's.
pub(super) const SHARDS_DIRECTORY: &str = "shards";
/// The writer's lock, in the stream's directory.
pub(crate) const LOCK_FILE: &str = "LOCK";

/// The logs of a stream's shards.
type Shards = BTreeMap<ShardId, Arc<Shard>>;

/// How often somebody looks at files of which one was removed, or changed by the process that writes, while he looked.
pub(super) const LOOKS: u32 = 10;

/// One attempt to create or open.
pub(super) struct Opening {
    pub(super) path: PathBuf,
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    builder: StreamBuilder,
}

impl Opening {
    pub(super) fn new(builder: StreamBuilder, path: &Path) -> Result<Self> {
        builder.capacity.as_ref().map_or(Ok(()), Capacity::check)?;
        if let Some((option, reason)) = builder.options().fault() {
            return Err(Error::invalid(option, reason));
        }
        Ok(Self {
            path: path.to_path_buf(),
            storage: builder.storage.clone().unwrap_or_else(|| Arc::new(Disk)),
            clock: builder.clock.clone().unwrap_or_else(|| Arc::new(SystemClock::new())),
            builder,
        })
    }

    fn storage(&self) -> &dyn Storage {
        self.storage.as_ref()
    }

    pub(super) fn load_manifest(&self) -> Result<Option<ManifestState>> {
        Ok(manifest::load(self.storage(), &self.path)?)
    }

    /// For who only reads the stream; see [`manifest::load_durable`].
    pub(super) fn load_durable_manifest(&self) -> Result<Option<ManifestState>> {
        Ok(manifest::load_durable(self.storage(), &self.path)?)
    }

    pub(super) fn expect_directory(&self) -> Result<()> {
        match self.storage.list(&self.path) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::StreamNotFound(self.path.clone())),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                Err(self.not_a_stream("it is not a directory"))
            }
            Err(error) => Err(Fault::io("list", &self.path)(error).into()),
        }
    }

    pub(super) fn no_manifest(&self) -> Error {
        self.not_a_stream("the directory has no MANIFEST")
    }

    fn not_a_stream(&self, reason: impl Into<String>) -> Error {
        Error::NotAStream { path: self.path.clone(), reason: reason.into() }
    }

    /// Takes the writer's lock, making the directory if there is none.
    pub(super) fn lock(&mut self) -> Result<Box<dyn LockGuard>> {
        make_directories(self.storage(), &self.path)?;
        self.expect_own_directory()?;
        // From here on it is this directory, wherever it is moved: never another one that gets its name.
        if let Some(anchored) = self.storage.anchor(&self.path).map_err(Fault::io("open", &self.path))? {
            self.storage = anchored;
        }
        let path = self.path.join(LOCK_FILE);
        let guard = self.storage.lock(&path).map_err(Fault::io("lock", &path))?;
        guard.ok_or_else(|| Error::Locked(self.path.clone()))
    }

    /// A directory with anything but a stream in it is left alone.
    fn expect_own_directory(&self) -> Result<()> {
        const OWN: [&str; 6] =
            [LOCK_FILE, MANIFEST_FILE, MANIFEST_NEW_FILE, WATERMARK_FILE, STAGING_FILE, SHARDS_DIRECTORY];
        let entries = match self.storage.list(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Err(self.not_a_stream("it is not a directory"));
            }
            Err(error) => return Err(Fault::io("list", &self.path)(error).into()),
        };
        let is_stream = entries.iter().any(|entry| entry.name == MANIFEST_FILE);
        match entries.iter().find(|entry| !OWN.contains(&entry.name.as_str())) {
            Some(foreign) if !is_stream => {
                Err(self.not_a_stream(format!("the directory has no MANIFEST, and holds {:?}", foreign.name)))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn create(self, lock: Box<dyn LockGuard>) -> Result<Stream> {
        let now = self.clock.now();
        let mut state = ManifestState {
            generation: 0,
            stream_id: draw_stream_id(now, &self.path),
            created: now,
            incarnation: 1,
            clean: false,
            options: self.builder.options(),
            next_shard_id: ShardId::new(self.builder.options().initial_shards),
            shards: Vec::new(),
            next_producer_id: 0,
            producers: Vec::new(),
        };
        let ranges = HashKeyRange::partition(state.options.initial_shards);
        state.shards = (0..)
            .zip(ranges)
            .map(|(id, range)| ShardEntry::new(ShardId::new(id), Vec::new(), range, SequenceNumber::ZERO, now))
            .collect();

        let watermarks = self.make_layout(&state)?;
        let background = self.background()?;
        let context = self.context(&state, watermarks, background.as_ref());
        let shards = state.shards.iter().map(|entry| {
            let shard = Shard::new(Arc::clone(&context), self.shard_directory(entry.id), entry);
            (entry.id, Arc::new(shard))
        });
        let shards = shards.collect();
        let mut manifest = Manifest::new(Arc::clone(&self.storage), self.path.clone(), state.clone());
        manifest.replace(state).map_err(|error| Error::from(error.into_fault()))?;
        let recovery = RecoveryReport { was_clean: true, ..Default::default() };
        Ok(self.assemble(context, manifest, &shards, Some(lock), recovery, background.as_ref()))
    }

    /// Makes all that the manifest will name, durably. What an interrupted creation left is taken up if it is empty.
    fn make_layout(&self, state: &ManifestState) -> Result<Watermarks> {
        let storage = self.storage();
        let shards = self.path.join(SHARDS_DIRECTORY);
        self.refuse_records(&shards)?;
        make_directory(storage, &shards)?;
        for entry in &state.shards {
            make_directory(storage, &self.shard_directory(entry.id))?;
        }
        storage.sync_dir(&shards).map_err(Fault::io("sync", &shards))?;
        let watermark = self.path.join(WATERMARK_FILE);
        remove_if_there(storage, &watermark)?;
        let watermarks = Watermarks::create(storage, &self.path, state.stream_id)?;
        storage.sync_dir(&self.path).map_err(Fault::io("sync", &self.path))?;
        sync_ancestors(storage, &self.path)?;
        Ok(watermarks)
    }

    /// Segments without a manifest are not the leftover of a creation: somebody lost the manifest.
    fn refuse_records(&self, shards: &Path) -> Result<()> {
        for DirEntry { name, .. } in list_if_there(self.storage(), shards)? {
            let inside = list_if_there(self.storage(), &shards.join(&name))?;
            if !inside.is_empty() {
                return Err(
                    self.not_a_stream(format!("the directory has no MANIFEST, but shards/{name} holds files"))
                );
            }
        }
        // Where all of them expired, there is still the note of which were durable: their numbers are not given again.
        match Watermarks::open_if_there(self.storage(), &self.path, StreamId::new(0))? {
            Some(noted) if !noted.is_blank()? => {
                Err(self
                    .not_a_stream("the directory has no MANIFEST, but WATERMARK is of a stream that had records"))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn open(self, mut state: ManifestState, lock: Box<dyn LockGuard>) -> Result<Stream> {
        self.builder.check_against(&state.options)?;
        let was_clean = state.clean;
        state.incarnation += 1;
        state.clean = false;
        let watermarks = self.open_watermarks(&state, Access::Write)?;
        let background = self.background()?;
        let context = self.context(&state, watermarks, background.as_ref());
        // The manifest may be one whose rename the last writer did not live to make durable; files are removed on its word.
        self.storage().sync_dir(&self.path).map_err(Fault::io("sync", &self.path))?;
        // And it may be the word of another stream's manifest, or of another shard's directory: then nothing is.
        if let Some(damage) = misplaced(self.storage(), &self.path, &state)?.into_iter().next() {
            return Err(Fault::from(damage).into());
        }
        self.remove_unlisted(&state)?;
        let (storage, stream, stream_id) = (self.storage(), self.path.as_path(), state.stream_id);
        QueuesDirectory { storage, stream, stream_id }.settle()?;

        let staged = if was_clean { Staged::default() } else { Staged::load(self.storage(), &self.path)? };
        let mut recovery = RecoveryReport { was_clean, ..Default::default() };
        let mut shards = Shards::new();
        let failed = AtomicBool::new(false);
        let found = parallel::map(&state.shards, |entry| {
            if failed.load(Ordering::Relaxed) {
                return None; // where one is damaged, no more than necessary is changed
            }
            let exact = was_clean || !entry.is_open();
            let found =
                Shard::recover(Arc::clone(&context), self.shard_directory(entry.id), entry, exact, &staged);
            failed.fetch_or(found.is_err(), Ordering::Relaxed);
            Some(found)
        });
        let found = found.into_iter().flatten().collect::<Result<Vec<_>, Fault>>()?;
        for (entry, found) in state.shards.iter_mut().zip(found) {
            entry.next = found.next;
            entry.last_arrival = found.last_arrival;
            recovery.shards_recovered += u64::from(found.records > 0);
            recovery.records_recovered += found.records;
            if let Some(torn) = found.torn {
                event!(warn, shard = %torn.shard_id, next = %torn.next, offset = torn.offset, "torn tail cut off");
                recovery.torn_tails.push(torn.into());
            }
            shards.insert(entry.id, Arc::new(found.shard));
        }
        event!(
            info,
            path = %self.path.display(),
            incarnation = state.incarnation,
            clean = was_clean,
            recovered = recovery.records_recovered,
            "stream opened"
        );
        // The incarnation, and what recovery found, are durable before the first append and the first read.
        let mut manifest = Manifest::new(Arc::clone(&self.storage), self.path.clone(), state.clone());
        manifest.replace(state).map_err(|error| Error::from(error.into_fault()))?;
        Ok(self.assemble(context, manifest, &shards, Some(lock), recovery, background.as_ref()))
    }

    fn open_watermarks(&self, state: &ManifestState, access: Access) -> Result<Watermarks, Fault> {
        let opened = Watermarks::open(self.storage(), &self.path, state.stream_id, access);
        opened.map_err(|fault| match fault {
            Fault::Io { path, source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Corruption::new(&path, 0, "the file is missing").into()
            }
            other => other,
        })
    }

    /// Removes directories that no manifest names: children of a reshard that did not happen, shards that expired.
    fn remove_unlisted(&self, state: &ManifestState) -> Result<(), Fault> {
        let storage = self.storage();
        let shards = self.path.join(SHARDS_DIRECTORY);
        for DirEntry { name, .. } in list_if_there(storage, &shards)? {
            let Some(id) = ShardId::from_directory(&name).filter(|id| state.shard(*id).is_none()) else {
                continue;
            };
            let directory = shards.join(&name);
            let files = list_if_there(storage, &directory)?;
            if id >= state.next_shard_id && !files.is_empty() {
                return Err(Corruption::new(
                    &directory,
                    0,
                    "the shard holds files, but is newer than the manifest",
                )
                .of_shard(id)
                .into());
            }
            // What cannot be removed, or is not ours, is in nobody's way: the id is not given again.
            for file in files.iter().filter(|file| parse_segment_name(&file.name).is_some()) {
                let _ = remove_if_there(storage, &directory.join(&file.name));
            }
            let _ = storage.remove_dir(&directory);
        }
        Ok(())
    }

    /// Beside a live writer, files that the manifest named may be gone by now: then it is read again. So may a segment without records that was
    /// listed, which the recovery of another process removes before it changes the manifest: then the list is made again.
    pub(super) fn open_read_only(self, mut state: ManifestState) -> Result<Stream> {
        self.builder.check_against(&state.options)?;
        for _ in 1..LOOKS {
            let fault = match self.follow(&state) {
                Ok((context, shards)) => return Ok(self.assemble_read_only(context, state, &shards)),
                Err(fault) => fault,
            };
            match self.load_durable_manifest()? {
                Some(newer) if newer.generation != state.generation || fault.is_missing_file() => state = newer,
                _ => return Err(fault.into()),
            }
        }
        let (context, shards) = self.follow(&state)?;
        Ok(self.assemble_read_only(context, state, &shards))
    }

    fn follow(&self, state: &ManifestState) -> Result<(Arc<ShardContext>, Shards), Fault> {
        let watermarks = self.open_watermarks(state, Access::Read)?;
        let context = self.context(state, watermarks, None);
        let mut shards = Shards::new();
        for entry in &state.shards {
            let shard = Shard::follow(Arc::clone(&context), self.shard_directory(entry.id), entry)?;
            shard.refresh_end(entry);
            shards.insert(entry.id, Arc::new(shard));
        }
        Ok((context, shards))
    }

    fn assemble_read_only(self, context: Arc<ShardContext>, state: ManifestState, shards: &Shards) -> Stream {
        let recovery = RecoveryReport { was_clean: state.clean, ..Default::default() };
        let manifest = Manifest::new(Arc::clone(&self.storage), self.path.clone(), state);
        self.assemble(context, manifest, shards, None, recovery, None)
    }

    fn background(&self) -> Result<Option<Background>> {
        if self.builder.no_background {
            return Ok(None);
        }
        match &self.builder.background {
            Some(background) => Ok(Some(background.clone())),
            None => Ok(Some(Background::start().map_err(Fault::io("start a thread for", &self.path))?)),
        }
    }

    fn context(
        &self,
        state: &ManifestState,
        watermarks: Watermarks,
        background: Option<&Background>,
    ) -> Arc<ShardContext> {
        let producers = ProducerRegistry::default();
        producers.replace(&state.producers);
        let lineage = Lineage::default();
        lineage.set(&state.shards);
        Arc::new(ShardContext {
            producers,
            lineage,
            #[cfg(feature = "async")]
            wanted: Mutex::default(),
            #[cfg(feature = "async")]
            tasks: AtomicU64::new(0),
            storage: Arc::clone(&self.storage),
            clock: Arc::clone(&self.clock),
            stream_id: state.stream_id,
            incarnation: state.incarnation,
            process: Process::this(),
            options: state.options,
            first_segment_bytes: self.builder.first_segment_bytes.unwrap_or(FIRST_SEGMENT_BYTES),
            retention: AtomicU64::new(state.options.retention.as_millis().unwrap_or(u64::MAX)),
            watermarks,
            counters: Counters::default(),
            failure: OnceLock::new(),
            tail: Signal::default(),
            recent: RecentSegments::default(),
            flush: background.map_or_else(|| Arc::new(FlushRequest::default()), Background::wake),
            has_background: background.is_some() || cfg!(shuttle), // which a model plays
            staging: StagingSlots::new(Arc::clone(&self.storage), &self.path),
            drains_rest: AtomicBool::new(true),
        })
    }

    fn shard_directory(&self, id: ShardId) -> PathBuf {
        self.path.join(SHARDS_DIRECTORY).join(id.directory())
    }

    fn assemble(
        self,
        context: Arc<ShardContext>,
        manifest: Manifest,
        shards: &Shards,
        lock: Option<Box<dyn LockGuard>>,
        recovery: RecoveryReport,
        background: Option<&Background>,
    ) -> Stream {
        let state = manifest.state();
        let members = state.shards.iter().filter_map(|entry| {
            let shard = Arc::clone(shards.get(&entry.id)?);
            let entry = entry.clone();
            Some((entry.id, Member { shard, entry }))
        });
        let topology = Topology::new(members.collect(), manifest::routes(state).unwrap_or_default());
        let inner = Arc::new(StreamInner {
            read_only: lock.is_none(),
            scaling: Scaling::new(self.builder.capacity),
            quotas: QuotaKeeper::new(self.builder.quotas()),
            deletion_clock: Mutex::new(DeletionClock::new(context.clock.as_ref())),
            path: self.path,
            context,
            topology: ArcSwap::from_pointee(topology),
            manifest: Mutex::new(manifest),
            lock: Mutex::new(lock),
            closing: AtomicBool::new(false),
            close_outcome: Mutex::new(Ok(())),
            closed: AtomicBool::new(false),
            recovery,
            consumers: Mutex::default(),
            queues: Mutex::default(),
            receipts: AtomicU64::new(1),
            background: Mutex::new(background.cloned()),
            #[cfg(feature = "async")]
            looks_for_tasks: AtomicBool::new(false),
            files: self.builder.files.unwrap_or_else(|| {
                Arc::new(self.builder.open_files.map_or_else(OpenFiles::default, OpenFiles::new))
            }),
        });
        if let Some(background) = background {
            background.serve(&inner);
        }
        Stream { inner: Arc::new(Handle(inner)) }
    }
}

/// Makes a directory and all that lead to it.
pub(crate) fn make_directories(storage: &dyn Storage, path: &Path) -> Result<(), Fault> {
    match storage.create_dir(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = parent_of(path).ok_or_else(|| Fault::io("create", path)(error))?;
            make_directories(storage, parent)?;
            storage.create_dir(path).map_err(Fault::io("create", path))
        }
        Err(error) => Err(Fault::io("create", path)(error)),
    }
}

/// Makes the names that lead to `path` durable. Also those that were there before: whoever made them may have died
/// before they were. A directory that may not be read was not made by a creation of ours, and neither was one in a file system that is read-only
/// where another is mounted, as a container's volume in its root. A file system that failed, and is read-only since, takes no manifest either.
fn sync_ancestors(storage: &dyn Storage, path: &Path) -> Result<(), Fault> {
    let mut child = path;
    while let Some(parent) = parent_of(child) {
        match storage.sync_dir(parent) {
            Err(error) if child != path && is_not_ours(&error) => break,
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => break,
            other => other.map_err(Fault::io("sync", parent))?,
        }
        if parent == Path::new(".") {
            break;
        }
        child = parent;
    }
    Ok(())
}

/// Whether a directory that is not synced for this reason was there before any creation of ours: it may not be read, or its file system has no syncs, being one
/// that is never written, such as squashfs.
fn is_not_ours(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput)
}

fn parent_of(path: &Path) -> Option<&Path> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Some(Path::new(".")),
        parent => parent,
    }
}

fn draw_stream_id(now: Timestamp, path: &Path) -> StreamId {
    StreamId::new(draw_id(now, path))
}

/// A number that no other stream or consumer has: from the operating system's randomness, which seeds the standard library's hash
/// maps, with time and path mixed in.
pub(crate) fn draw_id(now: Timestamp, path: &Path) -> u128 {
    use std::hash::{BuildHasher, RandomState};
    let half = || u128::from(RandomState::new().hash_one((now, path)));
    half() << 64 | half()
}

impl From<Torn> for TornTail {
    fn from(torn: Torn) -> Self {
        Self { shard_id: torn.shard_id, next_sequence_number: torn.next, path: torn.path, offset: torn.offset }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_to_a_relative_path_is_where_the_program_stands() {
        let parent = |path| parent_of(Path::new(path)).map(Path::to_path_buf);
        assert_eq!(parent("clicks"), Some(PathBuf::from(".")));
        assert_eq!(parent("data/clicks"), Some(PathBuf::from("data")));
        assert_eq!(parent("/clicks"), Some(PathBuf::from("/")));
        assert_eq!(parent("/"), None);
    }

    #[test]
    fn all_of_a_stream_id_is_drawn() {
        let draw = || draw_stream_id(Timestamp::from_millis(1), Path::new("stream")).get();
        let drawn: Vec<u128> = (0..16).map(|_| draw()).collect();
        let parts = |shift: u32| drawn.iter().map(|id| (id >> shift) & 0xffff_ffff).collect::<Vec<_>>();
        for shift in [0, 32, 64, 96] {
            let mut parts = parts(shift);
            parts.sort_unstable();
            parts.dedup();
            assert!(parts.len() > 10, "bits from {shift} on: {parts:x?}");
        }
    }
}
