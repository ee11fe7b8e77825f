//! Making a damaged stream whole again: what is sound is kept, what is damaged is set aside, what is lost is said.
//!
//! # How a repair survives its own interruption
//!
//! First every file that is to change is *copied* into `damaged/N` and made durable there. Then the segments that take the place
//! of a damaged one are made in a scratch directory and renamed into place one by one, the highest first, each rename durable before the
//! next. So a damaged segment keeps its name until all that stands behind its damage is in place; cut short, a repair
//! is simply run again, and finds in the old files or in the new ones what it found the first time. Files of shards that the manifest does not know
//! go when it is durable that their ids are taken.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::consumers::error_of;
use super::open::{LOCK_FILE, SHARDS_DIRECTORY};
use super::salvage::{Look, Looker, LostRange, Piece, SegmentFile, lost_range};
use super::verify::{VerifyOptions, VerifyReport, no_stream, verify};
use crate::error::{Error, Result};
use crate::format::{Frame, FrameInput, ManifestState, SealKind, SegmentHeader, parse_segment_name, segment_name};
use crate::leases::ConsumersDirectory;
use crate::manifest::{self, MANIFEST_FILE, Manifest, ReplaceError};
use crate::queue_files::QueuesDirectory;
use crate::segment::{Run, SegmentWriter, StampedBatch, Survey};
use crate::shard::{Memory, Producers, Staged, WATERMARK_FILE, Watermarks};
use crate::storage::{Access, Corruption, Disk, Fault, LockGuard, Storage, make_directory};
use crate::types::{HashKeyRange, SequenceNumber, ShardId, Timestamp};

/// The directory in the stream's that takes what was damaged; each repair makes one in it, named by a number.
pub(super) const DAMAGED_DIRECTORY: &str = "damaged";
/// Where new segments are made before they are put in place.
const SCRATCH_DIRECTORY: &str = "repair.new";
/// How much of a file is copied, or written, at once.
const PIECE_BYTES: usize = 1 << 20;

/// What [`repair`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RepairReport {
    /// What a verification found before. If it was sound, nothing was changed.
    pub before: VerifyReport,
    /// What a verification found afterwards.
    pub after: VerifyReport,
    /// The copies of the damaged files as they were found.
    pub set_aside: Vec<PathBuf>,
    /// Records of the repaired shards that are lost, by this repair's finding or an earlier one's: reading over them gives
    /// [`Error::Lost`].
    pub lost: Vec<LostRange>,
    /// Records that were taken out of damaged files and written again.
    pub records_rewritten: u64,
}

/// Makes a damaged stream one that opens and verifies, and deletes nothing: damaged files are copied to `damaged/N` in the stream's directory
/// before they are replaced. Records that pass their checksums stay, under their own sequence numbers; the numbers of the
/// lost ones stay lost, are never given again, and reading over them says [`Error::Lost`] once. A sound stream is left as it is.
///
/// A consumer whose position in a shard is damaged begins that shard anew; one whose file's header is damaged is gone. A damaged queue is set aside and gone: opened again,
/// it starts where its options say, and skips what was not received yet if that is `Latest`.
///
/// It takes the writer's lock. Cut short by a crash, it can be run again.
///
/// What it cannot do: sectors that the device cannot read end it with [`Error::Io`], since what they hold may come back; and a damaged MANIFEST is not rebuilt, since the ranges of the shards stand nowhere else. [`salvage`](crate::salvage) reads the
/// records all the same, to be put into a new stream.
///
/// # Errors
///
/// [`Error::Corrupt`] for a damaged MANIFEST, [`Error::Locked`], those of [`verify`], and [`Error::Io`]; after any of them, nothing is lost that was
/// there before.
pub fn repair(path: impl AsRef<Path>, storage: Option<Arc<dyn Storage>>) -> Result<RepairReport> {
    let storage = storage.unwrap_or_else(|| Arc::new(Disk));
    let path = path.as_ref();
    let load = || manifest::load(storage.as_ref(), path)?.ok_or_else(|| no_stream(storage.as_ref(), path));
    load()?; // no lock is taken where there is no stream
    let _lock = lock(storage.as_ref(), path)?;
    let state = load()?; // whoever had the lock may have changed it
    let check = || verify(path, VerifyOptions { storage: Some(Arc::clone(&storage)), progress: None });
    let before = check()?;
    if before.is_sound() {
        return Ok(RepairReport { after: before.clone(), before, ..Default::default() });
    }
    let mut repair = Repair::begin(&storage, path, state, &before)?;
    repair.run()?;
    let Repair { set_aside, lost, records_rewritten, .. } = repair;
    Ok(RepairReport { after: check()?, before, set_aside, lost, records_rewritten })
}

fn lock(storage: &dyn Storage, path: &Path) -> Result<Box<dyn LockGuard>> {
    let lock = path.join(LOCK_FILE);
    let guard = storage.lock(&lock).map_err(Fault::io("lock", &lock))?;
    guard.ok_or_else(|| Error::Locked(path.to_path_buf()))
}

struct Repair<'a> {
    storage: &'a Arc<dyn Storage>,
    path: &'a Path,
    /// As it is to be.
    state: ManifestState,
    found: ManifestState,
    damage: &'a [Corruption],
    scratch: PathBuf,
    aside: PathBuf,
    set_aside: Vec<PathBuf>,
    lost: Vec<LostRange>,
    records_rewritten: u64,
}

impl<'a> Repair<'a> {
    fn begin(
        storage: &'a Arc<dyn Storage>,
        path: &'a Path,
        state: ManifestState,
        before: &'a VerifyReport,
    ) -> Result<Self> {
        Ok(Self {
            storage,
            path,
            found: state.clone(),
            state,
            damage: &before.damage,
            scratch: path.join(SCRATCH_DIRECTORY),
            aside: make_aside(storage.as_ref(), path)?,
            set_aside: Vec::new(),
            lost: Vec::new(),
            records_rewritten: 0,
        })
    }

    fn run(&mut self) -> Result<()> {
        self.empty_scratch()?;
        let newer = self.copy_newer_shards()?;
        let staged = Staged::load(self.storage.as_ref(), self.path)?;
        for id in self.damaged_shards() {
            self.take_staged(&staged, id)?;
            self.repair_shard(id)?;
            self.set_misplaced_aside(id)?;
        }
        let watermarks = self.path.join(WATERMARK_FILE);
        if self.damage.iter().any(|damage| damage.path == watermarks) || self.is_watermark_ahead()? {
            self.renew_watermarks()?;
        }
        self.mend_consumers()?;
        self.set_queues_aside()?;
        self.empty_scratch()?;
        if self.state != self.found {
            self.keep_copy(&self.path.join(MANIFEST_FILE), self.aside.join(MANIFEST_FILE))?;
            self.sync_dir(&self.aside.clone())?;
            let mut manifest =
                Manifest::new(Arc::clone(self.storage), self.path.to_path_buf(), self.found.clone());
            manifest.replace(self.state.clone()).map_err(ReplaceError::into_fault)?;
        }
        newer.into_iter().try_for_each(|id| self.remove_files_of(id))
    }

    fn damaged_shards(&self) -> BTreeSet<ShardId> {
        let watermarks = self.path.join(WATERMARK_FILE);
        let of_shards = self.damage.iter().filter(|damage| damage.path != watermarks);
        of_shards.filter_map(|damage| damage.shard_id).filter(|id| self.state.shard(*id).is_some()).collect()
    }

    /// Shards that are newer than the manifest, of which an older copy was put in place, or that hold what belongs elsewhere. Their ranges are not known. What they
    /// hold goes last, when the manifest says that their ids are taken: until then nothing else does.
    fn copy_newer_shards(&mut self) -> Result<BTreeSet<ShardId>> {
        let newer = self.damage.iter().filter_map(|damage| damage.shard_id);
        let newer: BTreeSet<_> = newer.filter(|id| self.state.shard(*id).is_none()).collect();
        for id in &newer {
            for path in self.files_of(*id)? {
                self.keep_copy_of_shard(*id, &path)?;
            }
            self.state.next_shard_id = self.state.next_shard_id.max(id.successor());
        }
        if !newer.is_empty() {
            self.sync_dir(&self.aside.clone())?; // it may be that the manifest stays as it is, and nothing else does
        }
        Ok(newer)
    }

    fn remove_files_of(&self, id: ShardId) -> Result<()> {
        for path in self.files_of(id)? {
            self.remove(&path)?;
        }
        self.sync_dir(&self.shard_directory(id))
    }

    fn files_of(&self, id: ShardId) -> Result<Vec<PathBuf>> {
        let directory = self.shard_directory(id);
        let entries = self.storage.list(&directory).map_err(Fault::io("list", &directory))?;
        Ok(entries.iter().map(|entry| directory.join(&entry.name)).collect())
    }

    /// Writes what a dead writer staged behind the last record of the segment that it was appending to, as opening would. It is not
    /// synced: the segment has no footer, so it is written anew.
    fn take_staged(&mut self, staged: &Staged, id: ShardId) -> Result<()> {
        let look = Looker::new(self.storage.as_ref(), self.path, Some(&self.found), &[], false)?.look(id)?;
        let Some(behind) = look.staged_behind(staged)? else {
            return Ok(());
        };
        let path = behind.path;
        self.keep_copy_of_shard(id, path)?;
        self.sync_dir(&self.aside.clone())?;
        let file = self.storage.open_file(path, Access::Write).map_err(Fault::io("open", path))?;
        Ok(file.write_at(behind.frames, behind.end).map_err(Fault::io("write", path))?)
    }

    fn repair_shard(&mut self, id: ShardId) -> Result<()> {
        self.make_shard_directory(id)?;
        self.set_directories_aside(id)?;
        let look = Looker::new(self.storage.as_ref(), self.path, Some(&self.found), &[], false)?.look(id)?;
        let replaced = self.replaced(&look);
        for file in &replaced {
            self.keep_copy_of_shard(id, &file.path)?;
        }
        self.sync_dir(&self.aside.clone())?;
        let new = self.make_pieces(&look, &replaced)?;
        self.put_in_place(&look, &replaced, &new)?;
        self.note(&look);
        Ok(())
    }

    /// Files below the shard's first segment that belong elsewhere: the next opening would refuse them.
    fn set_misplaced_aside(&mut self, id: ShardId) -> Result<()> {
        let directory = self.shard_directory(id);
        let Some(first) = self.found.shard(id).map(|entry| entry.first) else { return Ok(()) };
        let is_below = |path: &&PathBuf| {
            let name = path.strip_prefix(&directory).ok().and_then(Path::to_str);
            name.and_then(parse_segment_name).is_some_and(|number| number < first)
        };
        let damaged = self.damage.iter().map(|damage| &damage.path);
        let is_there = |path: &&PathBuf| !self.set_aside.contains(&self.copy_of_shard(id, path)); // a directory is not, any more
        for path in damaged.filter(is_below).filter(is_there).cloned().collect::<Vec<_>>() {
            self.keep_copy_of_shard(id, &path)?;
            self.sync_dir(&self.aside.clone())?;
            self.remove(&path)?;
        }
        self.sync_dir(&directory)
    }

    fn make_shard_directory(&self, id: ShardId) -> Result<()> {
        let all = self.path.join(SHARDS_DIRECTORY);
        make_directory(self.storage.as_ref(), &all)?;
        self.sync_dir(self.path)?;
        make_directory(self.storage.as_ref(), &self.shard_directory(id))?;
        self.sync_dir(&all)
    }

    /// Directories that have the names of segments: nothing could be put in their place.
    fn set_directories_aside(&mut self, id: ShardId) -> Result<()> {
        let directory = self.shard_directory(id);
        let found = self.storage.list(&directory).map_err(Fault::io("list", &directory))?;
        for name in found.iter().filter(|found| found.is_dir).map(|found| &found.name) {
            if parse_segment_name(name).is_none() {
                continue;
            }
            let from = directory.join(name);
            let to = self.copy_of_shard(id, &from);
            self.storage.rename(&from, &to).map_err(Fault::io("rename", &from))?;
            self.sync_dir(&self.aside.clone())?;
            self.sync_dir(&directory)?;
            self.set_aside.push(to);
        }
        Ok(())
    }

    /// The files that do not stay: those that are damaged, not usable at all, not sealed as a shard's last segment should be, or that hold what the next one
    /// holds as well.
    fn replaced<'l>(&self, look: &'l Look) -> Vec<&'l SegmentFile> {
        let holds = |survey: &Survey| survey.footer.is_some() || !survey.runs.is_empty();
        let last = look.files.iter().rposition(|file| file.survey.as_ref().is_some_and(holds));
        let files = look.files.iter().enumerate();
        let goes = |(index, file): &(usize, &SegmentFile)| {
            let footer = file.survey.as_ref().and_then(|survey| survey.footer);
            let sealed = footer.is_some_and(|footer| {
                let followed = Some(*index) != last || footer.next() < look.next;
                followed || footer.kind != SealKind::Rolled
            });
            let behind = look.files.iter().skip(index + 1).find(|file| file.survey.is_some() && !file.is_lost());
            let end = behind.map_or(look.next, |behind| behind.first.min(look.next));
            let overlaps = footer.is_some_and(|footer| footer.next() > end);
            // What was lost before is written down again, together with what is lost now.
            !sealed || overlaps || file.is_lost() || self.damage.iter().any(|damage| damage.path == file.path)
        };
        files.filter(goes).map(|(_, file)| file).collect()
    }

    /// Makes, in the scratch directory, a segment for each piece that no kept file holds; their first numbers, ascending.
    fn make_pieces(&mut self, look: &Look, replaced: &[&SegmentFile]) -> Result<Vec<SequenceNumber>> {
        let mut made = Vec::new();
        let mut arrival = self.state.shard(look.shard_id).map_or(Timestamp::MIN, |entry| entry.opened);
        let mut producers = self.inherited_producers(look.shard_id)?;
        for piece in &look.pieces {
            match piece {
                Piece::Records(index, run) => {
                    arrival = run.last_arrival;
                    let Some(file) = look.files.get(*index) else { continue };
                    if replaced.iter().any(|other| other.first == file.first) {
                        self.rewrite(look, *index, file, run, &mut producers)?;
                        made.push(run.first);
                    } else {
                        producers = self.kept_producers(file, look.shard_id)?;
                    }
                }
                Piece::Lost(first, next) => {
                    self.lost.push(lost_range(look.shard_id, *first, *next));
                    let mut header = self.header(look.shard_id, *first, self.found.incarnation, arrival);
                    header.file_bytes += producers.section_bytes();
                    let (records, producers) = (next.since(*first), producers.encode());
                    SegmentWriter::create_lost(self.storage, &self.scratch, header, records, arrival, &producers)?;
                    made.push(*first);
                }
            }
        }
        Ok(made)
    }

    /// What the shard's ancestors remember of producers, if that can be read; they are repaired before their children.
    fn inherited_producers(&self, shard_id: ShardId) -> Result<Producers> {
        let shards = self.path.join(SHARDS_DIRECTORY);
        let memory = self.memory(&shards);
        match self.state.shard(shard_id).map(|entry| memory.inherited(entry)).transpose() {
            Ok(producers) => Ok(producers.unwrap_or_default()),
            Err(Fault::Corrupt(_)) => Ok(Producers::default()), // of a shard that could not be repaired
            Err(fault) => Err(fault.into()),
        }
    }

    fn memory<'m>(&'m self, shards: &'m Path) -> Memory<'m> {
        let (storage, stream_id) = (self.storage.as_ref(), self.state.stream_id);
        Memory { storage, stream_id, shards, entries: &self.state.shards }
    }

    /// What a sound segment says of producers.
    fn kept_producers(&self, file: &SegmentFile, shard_id: ShardId) -> Result<Producers> {
        let mut producers = Producers::default();
        let Some(survey) = &file.survey else { return Ok(producers) };
        if let (Some(footer), Some(entry)) = (&survey.footer, self.state.shard(shard_id)) {
            let open = self.storage.open_file(&file.path, Access::Read).map_err(Fault::io("open", &file.path))?;
            let parts = self.memory(&self.path.join(SHARDS_DIRECTORY)).section(
                open.as_ref(),
                &file.path,
                &survey.header,
                footer,
            )?;
            producers.inherit(&parts, entry.range);
        }
        Ok(producers)
    }

    fn header(
        &self,
        shard_id: ShardId,
        first: SequenceNumber,
        incarnation: u64,
        created: Timestamp,
    ) -> SegmentHeader {
        let file_bytes = SegmentWriter::file_bytes_for(0, 0);
        SegmentHeader { stream_id: self.state.stream_id, shard_id, incarnation, first, created, file_bytes }
    }

    /// Writes a run of records as a segment of its own: the seed of its checksums depends on its first number. What it says of producers is
    /// gathered from the stamps again, but for those of batches that have no record left: they may have been put again.
    fn rewrite(
        &mut self,
        look: &Look,
        index: usize,
        file: &SegmentFile,
        run: &Run,
        producers: &mut Producers,
    ) -> Result<()> {
        let incarnation = file.survey.as_ref().map_or(self.found.incarnation, |survey| survey.header.incarnation);
        let created = file.survey.as_ref().map_or(run.last_arrival, |survey| survey.header.created);
        let count = run.next.since(run.first);
        let entry = self.state.shard(look.shard_id);
        let (range, horizon) =
            entry.map_or((HashKeyRange::FULL, SequenceNumber::ZERO), |entry| (entry.range, entry.horizon));
        let is_kept = |batch: &StampedBatch| batch.first.plus(batch.count.into()) > horizon;
        look.records(index, run, |frame| {
            if let Some(batch) = StampedBatch::of_input(&input_of(frame, run)).filter(is_kept) {
                producers.note(&batch, look.shard_id, range);
            }
            Ok(true)
        })?;
        let least = SegmentWriter::file_bytes_for(run.end - run.start, count) + producers.section_bytes();
        let header = SegmentHeader {
            file_bytes: least.next_multiple_of(8),
            ..self.header(look.shard_id, run.first, incarnation, created)
        };
        let mut writer = SegmentWriter::create(self.storage, &self.scratch, header).map_err(Fault::from)?;
        look.records(index, run, |frame| {
            writer.stage(&input_of(frame, run))?;
            if writer.staged_bytes() > PIECE_BYTES {
                writer.write_staged()?;
            }
            Ok(true)
        })?;
        if writer.next() != run.next {
            let reason = "records that were sound a moment ago are not any more";
            return Err(Fault::from(Corruption::new(&file.path, run.start, reason)).into());
        }
        writer.seal(SealKind::Closed, &producers.encode())?;
        self.records_rewritten += count;
        Ok(())
    }

    /// Puts the new segments in the place of the old ones, the highest first. What an old one alone may tell, that there were such numbers, is told by what
    /// stands for lost records before the old one goes.
    fn put_in_place(&self, look: &Look, replaced: &[&SegmentFile], new: &[SequenceNumber]) -> Result<()> {
        let standing_for = |first: SequenceNumber| {
            look.pieces.iter().find_map(|piece| match piece {
                Piece::Lost(from, to) if (*from..*to).contains(&first) => Some(*from),
                _ => None,
            })
        };
        let gone = replaced.iter().map(|file| file.first).filter(|first| !new.contains(first));
        let gone = gone.map(|first| (standing_for(first).unwrap_or(first), false, first));
        let mut steps: Vec<_> = gone.chain(new.iter().map(|first| (*first, true, *first))).collect();
        steps.sort_unstable();
        for (_, is_new, first) in steps.into_iter().rev() {
            let name = segment_name(first);
            let target = look.directory.join(&name);
            if is_new {
                let made = self.scratch.join(&name);
                self.storage.rename(&made, &target).map_err(Fault::io("rename", &made))?;
            } else {
                self.remove(&target)?;
            }
            self.sync_dir(&look.directory)?;
        }
        Ok(())
    }

    /// What the manifest has to say of the shard from now on.
    fn note(&mut self, look: &Look) {
        let incarnations = look.files.iter().filter_map(|file| file.survey.as_ref());
        let newest = incarnations.map(|survey| survey.header.incarnation).max().unwrap_or(0);
        self.state.incarnation = self.state.incarnation.max(newest);
        if let Some(entry) = self.state.shard_mut(look.shard_id) {
            entry.next = entry.next.max(look.next);
            entry.last_arrival = entry.last_arrival.max(look.last_arrival);
        }
    }

    /// Whether more is noted of a closed shard than it has: that was noted of another copy of the stream.
    fn is_watermark_ahead(&self) -> Result<bool> {
        let found = Watermarks::open_if_there(self.storage.as_ref(), self.path, self.state.stream_id)?;
        let Some(watermarks) = found else { return Ok(false) };
        for entry in self.state.shards.iter().filter(|entry| !entry.is_open()) {
            if watermarks.load(entry.id)? > entry.next {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn renew_watermarks(&mut self) -> Result<()> {
        let path = self.path.join(WATERMARK_FILE);
        match self.keep_copy(&path, self.aside.join(WATERMARK_FILE)) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {} // that is the damage
            other => other?,
        }
        self.sync_dir(&self.aside.clone())?;
        let old = Watermarks::open_if_there(self.storage.as_ref(), self.path, self.state.stream_id)?;
        let new = Watermarks::create(self.storage.as_ref(), &self.scratch, self.state.stream_id)?;
        for entry in &self.state.shards {
            let noted = old.as_ref().filter(|_| entry.is_open()).map(|old| old.load(entry.id)).transpose()?;
            new.try_store(entry.id, noted.unwrap_or_default().max(entry.next))?;
        }
        new.sync()?;
        let made = self.scratch.join(WATERMARK_FILE);
        self.storage.rename(&made, &path).map_err(Fault::io("rename", &made))?;
        self.sync_dir(self.path)
    }

    /// What a damaged slot of a consumer held is gone: the shard is begun anew. Without a header the whole consumer is.
    fn mend_consumers(&mut self) -> Result<()> {
        let (storage, stream, stream_id) = (Arc::clone(self.storage), self.path, self.state.stream_id);
        let consumers = ConsumersDirectory { storage: storage.as_ref(), stream, stream_id };
        let directory = consumers.path("");
        let damaged = self.damage.iter().filter(|damage| damage.path.starts_with(&directory));
        let paths: BTreeSet<_> = damaged.map(|damage| damage.path.clone()).collect();
        for path in paths {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            self.keep_copy(&path, self.aside.join(format!("consumers-{name}")))?;
            self.sync_dir(&self.aside.clone())?;
            consumers.mend(&name).map_err(error_of(&name))?;
        }
        Ok(())
    }

    /// A damaged queue is gone: who opens it makes it anew.
    fn set_queues_aside(&mut self) -> Result<()> {
        let (storage, stream, stream_id) = (Arc::clone(self.storage), self.path, self.state.stream_id);
        let queues = QueuesDirectory { storage: storage.as_ref(), stream, stream_id };
        for name in queues.list()? {
            let path = queues.path(&name);
            if self.damage.iter().any(|damage| damage.path == path) {
                self.keep_copy(&path, self.aside.join(format!("queues-{name}")))?;
                self.sync_dir(&self.aside.clone())?;
                queues.delete(&name)?;
            }
        }
        Ok(())
    }

    /// Where what a shard's directory has is set aside.
    fn copy_of_shard(&self, id: ShardId, path: &Path) -> PathBuf {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.aside.join(format!("{}-{name}", id.directory()))
    }

    fn keep_copy_of_shard(&mut self, id: ShardId, from: &Path) -> Result<()> {
        self.keep_copy(from, self.copy_of_shard(id, from))
    }

    /// Copies a file as it was found.
    fn keep_copy(&mut self, from: &Path, to: PathBuf) -> Result<()> {
        let source = self.storage.open_file(from, Access::Read).map_err(Fault::io("open", from))?;
        let length = source.len().map_err(Fault::io("read the length of", from))?;
        if self.set_aside.contains(&to) {
            return Ok(()); // and changed since
        }
        let copy = self.storage.create_file(&to).map_err(Fault::io("create", &to))?;
        crate::segment::copy(source.as_ref(), copy.as_ref(), length).map_err(Fault::io("copy", from))?;
        copy.sync().map_err(Fault::io("sync", &to))?;
        self.set_aside.push(to);
        Ok(())
    }

    fn empty_scratch(&self) -> Result<()> {
        make_directory(self.storage.as_ref(), &self.scratch)?;
        for entry in self.storage.list(&self.scratch).map_err(Fault::io("list", &self.scratch))? {
            self.remove(&self.scratch.join(&entry.name))?;
        }
        Ok(())
    }

    fn shard_directory(&self, id: ShardId) -> PathBuf {
        self.path.join(SHARDS_DIRECTORY).join(id.directory())
    }

    fn remove(&self, path: &Path) -> Result<()> {
        Ok(self.storage.remove_file(path).map_err(Fault::io("remove", path))?)
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        Ok(self.storage.sync_dir(path).map_err(Fault::io("sync", path))?)
    }
}

/// The frame again, in a run that may end inside its batch.
fn input_of<'a>(frame: &Frame<'a>, run: &Run) -> FrameInput<'a> {
    let behind = run.next.since(frame.sequence_number).saturating_sub(1);
    FrameInput {
        sequence_number: frame.sequence_number,
        arrival: frame.arrival,
        durable: frame.durable,
        batch_remaining: frame.batch_remaining.min(u32::try_from(behind).unwrap_or(u32::MAX)),
        explicit_hash_key: frame.explicit_hash_key,
        producer: frame.producer,
        partition_key: frame.partition_key,
        data: frame.data,
    }
}

/// Makes the directory for what this repair sets aside: the first free number.
fn make_aside(storage: &dyn Storage, path: &Path) -> Result<PathBuf> {
    let all = path.join(DAMAGED_DIRECTORY);
    make_directory(storage, &all)?;
    storage.sync_dir(path).map_err(Fault::io("sync", path))?;
    let taken = storage.list(&all).map_err(Fault::io("list", &all))?;
    let highest = taken.iter().filter_map(|entry| entry.name.parse::<u64>().ok()).max();
    let aside = all.join(highest.map_or(1, |number| number.saturating_add(1)).to_string());
    storage.create_dir(&aside).map_err(Fault::io("create", &aside))?;
    storage.sync_dir(&all).map_err(Fault::io("sync", &all))?;
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::SimulatedDisk;

    /// The manifest closed the shard before the end of its last segment: what is above belongs to its children.
    #[test]
    fn a_segment_that_goes_on_behind_the_end_of_its_shard_is_cut() {
        let disk = SimulatedDisk::new();
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        let stream = crate::Stream::builder().storage(Arc::clone(&storage)).background(false).create("s").unwrap();
        for _ in 0..4 {
            stream.put("key", b"data").unwrap();
        }
        stream.split_shard(ShardId::new(0), None).unwrap();
        stream.close().unwrap();
        let path = Path::new("s");
        let mut state = manifest::load(&disk, path).unwrap().unwrap();
        state.shard_mut(ShardId::new(0)).unwrap().next = SequenceNumber::new(3);
        disk.damage(&path.join(MANIFEST_FILE), |bytes| *bytes = state.encode()).unwrap();
        disk.damage(&path.join(WATERMARK_FILE), |bytes| bytes.fill(0)).unwrap();

        let report = repair(path, Some(Arc::clone(&storage))).unwrap();
        assert!(!report.before.is_sound());
        assert!(report.after.is_sound(), "{:?}", report.after.damage);
        assert_eq!((report.records_rewritten, report.after.records), (3, 3));
    }
}
