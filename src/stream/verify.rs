//! Checking a stream directory: every checksum, every cross-reference, nothing changed.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::TornTail;
use super::leftovers::misplaced;
use super::open::SHARDS_DIRECTORY;
use super::salvage::{LostRange, lost_range, shard_directories};
use crate::error::{Error, Result};
use crate::format::{
    Footer, ManifestState, SealKind, SegmentHeader, ShardEntry, index_bytes, parse_segment_name, segment_name,
};
use crate::leases::ConsumersDirectory;
use crate::manifest;
use crate::queue_files::QueuesDirectory;
use crate::segment::{Due, Scan, advance, is_unfinished, producers_section, read_footer, read_header, scan};
use crate::shard::Watermarks;
use crate::storage::{Access, Corruption, Disk, Fault, Storage, StorageFile};
use crate::types::SequenceNumber;

/// How [`verify`] looks.
#[derive(Default)]
pub struct VerifyOptions<'a> {
    /// Where the files are; the machine's file systems by default.
    pub storage: Option<Arc<dyn Storage>>,
    /// Called after each segment.
    pub progress: Option<&'a mut dyn FnMut(VerifyProgress)>,
}

impl std::fmt::Debug for VerifyOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VerifyOptions").field("storage", &self.storage).finish_non_exhaustive()
    }
}

/// How far a verification is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyProgress {
    /// Bytes of segment files that were looked at.
    pub bytes_done: u64,
    /// Bytes of segment files in all, as far as they were listed at the start.
    pub bytes_total: u64,
    /// Records that were read.
    pub records: u64,
}

/// What [`verify`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Shards in the manifest.
    pub shards: u64,
    /// Segment files that were read.
    pub segments: u64,
    /// Records whose checksums hold.
    pub records: u64,
    /// Bytes of the segment files.
    pub bytes: u64,
    /// Whether the stream was closed cleanly. If not, a writer has it open, or died.
    pub clean_close: bool,
    /// Writes that were cut short: no damage, the next opening cuts them off.
    pub torn_tails: Vec<TornTail>,
    /// Records that an earlier [`repair`](crate::repair) found lost: no new damage.
    pub lost: Vec<LostRange>,
    /// Damage.
    pub damage: Vec<Corruption>,
}

impl VerifyReport {
    /// Whether no damage was found.
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty()
    }
}

/// Reads every file of the stream at `path` and checks every checksum, every index against the records, and every
/// file against its neighbours and the manifest; the consumers' and queues' files, too. Changes nothing and takes no lock; beside a live writer it checks what is
/// written so far.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("clicks");
/// let stream = anabranch::Stream::builder().create(&path)?;
/// stream.put("user-42", b"GET /cart")?;
/// stream.close()?;
///
/// let report = anabranch::verify(&path, Default::default())?;
/// assert!(report.is_sound() && report.clean_close);
/// assert_eq!(report.records, 1);
/// # Ok(()) }
/// ```
///
/// # Errors
///
/// Damage is not an error but part of the report. [`Error::StreamNotFound`], [`Error::NotAStream`], [`Error::UnsupportedVersion`], and
/// [`Error::Io`] where the system refuses to read.
pub fn verify(path: impl AsRef<Path>, options: VerifyOptions<'_>) -> Result<VerifyReport> {
    let storage = options.storage.unwrap_or_else(|| Arc::new(Disk));
    let path = path.as_ref();
    let mut progress = options.progress;
    let mut attempts = 1;
    loop {
        let state = match manifest::load(storage.as_ref(), path) {
            Ok(Some(state)) => state,
            Ok(None) => return Err(no_stream(storage.as_ref(), path)),
            Err(Fault::Corrupt(damage)) => {
                return Ok(VerifyReport { damage: vec![*damage], ..Default::default() });
            }
            Err(fault) => return Err(fault.into()),
        };
        let mut verification = Verification::new(storage.as_ref(), path, &state, progress.take());
        let outcome = verification.run();
        let is_sound = outcome.is_ok() && verification.report.is_sound();
        // Beside a live writer, files that the manifest named may be gone by now: another look, by what it names then. So may an empty segment that was
        // listed, which the recovery of another process removes before it changes the manifest.
        let is_gone = outcome.as_ref().is_err_and(Fault::is_missing_file);
        if is_sound || attempts == ATTEMPTS || !(is_gone || manifest::changed(storage.as_ref(), path, &state)?) {
            outcome?;
            return Ok(verification.report);
        }
        progress = verification.progress.take();
        attempts += 1;
    }
}

/// How often a look is repeated before what it saw is believed: what a live writer changes meanwhile passes, damage stays.
const ATTEMPTS: u32 = 5;

pub(super) fn no_stream(storage: &dyn Storage, path: &Path) -> Error {
    match storage.list(path) {
        Ok(_) => {
            Error::NotAStream { path: path.to_path_buf(), reason: "the directory has no MANIFEST".to_owned() }
        }
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Error::StreamNotFound(path.to_path_buf())
        }
        Err(error) => Fault::io("list", path)(error).into(),
    }
}

struct Verification<'a, 'p> {
    storage: &'a dyn Storage,
    path: &'a Path,
    state: &'a ManifestState,
    report: VerifyReport,
    seen: VerifyProgress,
    progress: Option<&'p mut (dyn FnMut(VerifyProgress) + 'p)>,
}

/// A shard's segment files, by their first numbers.
struct Listing<'a> {
    entry: &'a ShardEntry,
    directory: PathBuf,
    firsts: Vec<SequenceNumber>,
    /// Below it, all records were durable before the files were looked at.
    durable: SequenceNumber,
}

impl<'a, 'p> Verification<'a, 'p> {
    fn new(
        storage: &'a dyn Storage,
        path: &'a Path,
        state: &'a ManifestState,
        progress: Option<&'p mut (dyn FnMut(VerifyProgress) + 'p)>,
    ) -> Self {
        let (shards, clean_close) = (state.shards.len() as u64, state.clean);
        let report = VerifyReport { shards, clean_close, ..Default::default() };
        Self { storage, path, state, report, seen: VerifyProgress::default(), progress }
    }

    fn run(&mut self) -> Result<(), Fault> {
        let watermarks = self.open_watermarks()?;
        let state = self.state;
        self.check_newer_shards()?;
        self.report.damage.extend(misplaced(self.storage, self.path, state)?);
        let mut listings = Vec::new();
        for entry in &state.shards {
            // Noted first: what it vouches for is in the files that are listed and read next.
            let noted = watermarks.as_ref().map(|watermarks| watermarks.load(entry.id)).transpose()?;
            let durable = entry.next.max(noted.unwrap_or_default());
            let listed = self.list(entry, durable);
            listings.extend(self.keep(listed)?);
        }
        for listing in &listings {
            for first in &listing.firsts {
                let length = self.length(&listing.directory.join(segment_name(*first)))?;
                self.seen.bytes_total = self.seen.bytes_total.saturating_add(length);
            }
        }
        listings.iter().try_for_each(|listing| self.check_shard(listing))?;
        let consumers =
            ConsumersDirectory { storage: self.storage, stream: self.path, stream_id: state.stream_id };
        self.report.damage.extend(consumers.damage()?);
        let queues = QueuesDirectory { storage: self.storage, stream: self.path, stream_id: state.stream_id };
        self.report.damage.extend(queues.damage()?);
        Ok(())
    }

    /// Notes damage and goes on; passes other failures on.
    fn keep<T>(&mut self, outcome: Result<T, Fault>) -> Result<Option<T>, Fault> {
        match outcome {
            Ok(value) => Ok(Some(value)),
            Err(Fault::Corrupt(damage)) => {
                self.report.damage.push(*damage);
                Ok(None)
            }
            Err(fault) => Err(fault),
        }
    }

    fn open_watermarks(&mut self) -> Result<Option<Watermarks>, Fault> {
        let opened = Watermarks::open(self.storage, self.path, self.state.stream_id, Access::Read);
        match opened {
            Ok(watermarks) => {
                // Only a clean close syncs the file: after a crash, a slot that is not whole just claims nothing.
                for entry in self.state.shards.iter().filter(|_| self.state.clean) {
                    self.report.damage.extend(watermarks.damage(entry.id)?);
                }
                Ok(Some(watermarks))
            }
            Err(Fault::Io { path, source, .. }) if source.kind() == ErrorKind::NotFound => {
                self.report.damage.push(Corruption::new(&path, 0, "the file is missing"));
                Ok(None)
            }
            Err(fault) => Err(fault),
        }
    }

    /// Directories that the manifest does not name are leftovers, unless they are newer than it and hold files; see [`misplaced`] for what is in the others.
    fn check_newer_shards(&mut self) -> Result<(), Fault> {
        for id in shard_directories(self.storage, self.path)? {
            if id < self.state.next_shard_id {
                continue;
            }
            let directory = self.path.join(SHARDS_DIRECTORY).join(id.directory());
            match self.storage.list(&directory) {
                Ok(files) if files.is_empty() => {}
                Ok(_) => {
                    let reason = "the shard holds files, but is newer than the manifest";
                    self.report.damage.push(Corruption::new(&directory, 0, reason).of_shard(id));
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {} // removed since
                Err(error) => return Err(Fault::io("list", &directory)(error)),
            }
        }
        Ok(())
    }

    fn list<'e>(&mut self, entry: &'e ShardEntry, durable: SequenceNumber) -> Result<Listing<'e>, Fault> {
        let directory = self.path.join(SHARDS_DIRECTORY).join(entry.id.directory());
        let names = match self.storage.list(&directory) {
            Ok(names) => names,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(damage_of(&directory, entry, "the shard's directory is missing").into());
            }
            Err(error) => return Err(Fault::io("list", &directory)(error)),
        };
        let (directories, files): (Vec<_>, Vec<_>) = names.iter().partition(|name| name.is_dir);
        for found in directories.iter().filter(|found| parse_segment_name(&found.name).is_some()) {
            let path = directory.join(&found.name);
            self.report
                .damage
                .push(Corruption::new(&path, 0, "a directory is in a segment's place").of_shard(entry.id));
        }
        let mut firsts: Vec<_> = files.iter().filter_map(|file| parse_segment_name(&file.name)).collect();
        firsts.retain(|first| *first >= entry.first); // what is below is removed by the next opening
        firsts.sort_unstable();
        Ok(Listing { entry, directory, firsts, durable })
    }

    fn length(&self, path: &Path) -> Result<u64, Fault> {
        match self.storage.open_file(path, Access::Read) {
            Ok(file) => file.len().map_err(Fault::io("read the length of", path)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(0), // removed since
            Err(error) => Err(Fault::io("open", path)(error)),
        }
    }

    fn check_shard(&mut self, listing: &Listing<'_>) -> Result<(), Fault> {
        let entry = listing.entry;
        let mut next = Some(entry.first);
        for (index, first) in listing.firsts.iter().enumerate() {
            next = next.map(|next| self.without_removed(entry, next, *first)).transpose()?;
            let newest = index + 1 == listing.firsts.len();
            if newest && index > 0 && next.is_some_and(|next| next < *first) && self.is_cut_roll(listing)? {
                break; // the tail before it was lost: the next opening removes it
            }
            if let Some(next) = next.filter(|next| next != first) {
                self.report.damage.push(seam(listing, next, *first));
            }
            next = match self.check_segment_at_rest(listing, *first, newest) {
                Err(fault) if fault.is_missing_file() && self.start_by_now(entry)? > *first => Some(*first),
                checked => checked?,
            };
            if let Some(progress) = &mut self.progress {
                progress(self.seen);
            }
        }
        if let Some(end) = next {
            let end = if listing.firsts.is_empty() { entry.first } else { end };
            let end = self.without_removed(entry, end, listing.durable.max(entry.next))?;
            self.check_end(listing, end);
        }
        Ok(())
    }

    /// Where the next records are due: at `next`, or as far behind it, up to `found`, as a live writer has removed what was there since the manifest was read.
    /// Retention may be faster than a look at all of a stream is.
    fn without_removed(
        &self,
        entry: &ShardEntry,
        next: SequenceNumber,
        found: SequenceNumber,
    ) -> Result<SequenceNumber, Fault> {
        Ok(if next < found { next.max(self.start_by_now(entry)?.min(found)) } else { next })
    }

    /// Where the shard starts by what the manifest names now: at its end, if it expired.
    fn start_by_now(&self, entry: &ShardEntry) -> Result<SequenceNumber, Fault> {
        if !manifest::changed(self.storage, self.path, self.state)? {
            return Ok(entry.first); // the manifest itself can be long, and damage of many shards asks each time
        }
        let now = manifest::load(self.storage, self.path)?;
        let now = now.filter(|now| now.stream_id == self.state.stream_id);
        Ok(now.map_or(entry.first, |now| now.shard(entry.id).map_or(entry.next, |entry| entry.first)))
    }

    /// Checks a segment, again if it looked damaged: a writer may have been at it.
    fn check_segment_at_rest(
        &mut self,
        listing: &Listing<'_>,
        first: SequenceNumber,
        newest: bool,
    ) -> Result<Option<SequenceNumber>, Fault> {
        let before = (self.report.clone(), self.seen);
        let mut outcome = self.check_segment(listing, first, newest);
        for _ in 1..ATTEMPTS {
            if self.may_grow(listing.entry) && matches!(outcome, Err(Fault::Corrupt(_))) {
                (self.report, self.seen) = before.clone();
                outcome = self.check_segment(listing, first, newest);
            }
        }
        self.keep(outcome)
    }

    /// Gives the number behind the segment's last record.
    fn check_segment(
        &mut self,
        listing: &Listing<'_>,
        first: SequenceNumber,
        newest: bool,
    ) -> Result<SequenceNumber, Fault> {
        let entry = listing.entry;
        let path = listing.directory.join(segment_name(first));
        let file = self.storage.open_file(&path, Access::Read).map_err(Fault::io("open", &path))?;
        let length = file.len().map_err(Fault::io("read the length of", &path))?;
        self.report.segments += 1;
        self.report.bytes = self.report.bytes.saturating_add(length); // whatever a damaged file says
        self.seen.bytes_done = self.report.bytes;
        let header = match read_header(file.as_ref(), &path, self.state.stream_id, entry.id, first) {
            Ok(header) => header,
            // Its creation may be under way, or have been cut short; nothing durable may lie in it then.
            Err(Fault::Corrupt(damage)) => {
                let unfinished = newest
                    && self.is_unfinished(listing, file.as_ref(), &path, first)?
                    && self.may_be_unfinished(listing)?;
                return if unfinished { Ok(first) } else { Err(Fault::Corrupt(damage)) };
            }
            Err(fault) => return Err(fault),
        };
        if header.incarnation > self.state.incarnation {
            return Err(damage_of(&path, entry, "the segment is newer than the manifest").into());
        }
        let found = match read_footer(file.as_ref(), &path, &header)? {
            Some(footer) if footer.is_lost() => {
                producers_section(file.as_ref(), &path, &header, &footer)?;
                self.report.lost.push(lost_range(entry.id, footer.first, footer.next()));
                return Ok(footer.next());
            }
            Some(footer) => {
                let found = check_sealed(file.as_ref(), &path, &header, &footer)?;
                if newest && footer.kind == SealKind::Rolled {
                    self.expect_successor(listing, &footer)?;
                }
                found
            }
            None => self.check_unsealed(listing, file.as_ref(), &path, &header, newest)?,
        };
        self.report.records += found.starts.len() as u64;
        self.seen.records = self.report.records;
        Ok(found.next)
    }

    /// The newest segment that was listed was full: by now there must be another.
    fn expect_successor(&self, listing: &Listing<'_>, footer: &Footer) -> Result<(), Fault> {
        let path = listing.directory.join(segment_name(footer.next()));
        match self.storage.open_file(&path, Access::Read) {
            Ok(_) => Ok(()),
            Err(error)
                if error.kind() == ErrorKind::NotFound && self.start_by_now(listing.entry)? > footer.next() =>
            {
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(Corruption::new(&path, 0, "the segment that follows is missing")
                    .of_shard(listing.entry.id)
                    .of_records(footer.next(), None)
                    .into())
            }
            Err(error) => Err(Fault::io("open", &path)(error)),
        }
    }

    fn check_unsealed(
        &mut self,
        listing: &Listing<'_>,
        file: &dyn StorageFile,
        path: &Path,
        header: &SegmentHeader,
        newest: bool,
    ) -> Result<Scan, Fault> {
        let entry = listing.entry;
        // The records from the next segment's first on are no business of this one.
        let next = listing.firsts.iter().find(|first| **first > header.first);
        let durable = next.map_or(listing.durable, |next| listing.durable.min(*next));
        let found = scan(file, path, header, Scan::start(header), durable)?;
        let may_be_unsealed = if newest {
            self.may_grow(entry) || found.starts.is_empty() // the next opening removes one that never got a record
        } else {
            self.may_grow(entry) && self.is_interrupted_roll(listing, header)?
        };
        if !may_be_unsealed {
            return Err(Corruption::new(
                path,
                header.footer_position(),
                "the footer of a sealed segment is not sound",
            )
            .of_shard(entry.id)
            .of_records(header.first, None)
            .into());
        }
        if found.torn {
            self.report.torn_tails.push(TornTail {
                shard_id: entry.id,
                next_sequence_number: found.next,
                path: path.to_path_buf(),
                offset: found.end,
            });
        }
        Ok(found)
    }

    /// Whether the newest segment is the empty successor of an unsealed one.
    fn is_cut_roll(&mut self, listing: &Listing<'_>) -> Result<bool, Fault> {
        let [.., before, _] = listing.firsts[..] else { return Ok(false) };
        let path = listing.directory.join(segment_name(before));
        let file = self.storage.open_file(&path, Access::Read).map_err(Fault::io("open", &path))?;
        let header = read_header(file.as_ref(), &path, self.state.stream_id, listing.entry.id, before);
        let Some(header) = self.keep(header)? else { return Ok(false) };
        let unsealed = self.may_grow(listing.entry) && read_footer(file.as_ref(), &path, &header)?.is_none();
        Ok(unsealed && self.is_interrupted_roll(listing, &header)?)
    }

    /// Whether this segment's successor is the newest and holds nothing: a roll is under way, or was cut short. Or it holds a torn write and no
    /// record, and a recovery that wrote this segment's footer again was cut short: then no record is missing between them.
    fn is_interrupted_roll(&self, listing: &Listing<'_>, header: &SegmentHeader) -> Result<bool, Fault> {
        let [.., second_newest, newest] = listing.firsts[..] else {
            return Ok(false);
        };
        if second_newest != header.first {
            return Ok(false);
        }
        let path = listing.directory.join(segment_name(newest));
        let file = self.storage.open_file(&path, Access::Read).map_err(Fault::io("open", &path))?;
        match read_header(file.as_ref(), &path, self.state.stream_id, listing.entry.id, newest) {
            // An earlier repair's marker holds no record either. It was put in place behind a sealed segment, or one that the repair had yet to replace.
            Ok(successor) if read_footer(file.as_ref(), &path, &successor)?.is_some() => Ok(false),
            Ok(successor) => {
                let found = scan(file.as_ref(), &path, &successor, Scan::start(&successor), SequenceNumber::ZERO)?;
                let nothing_is_missing = || -> Result<bool, Fault> {
                    Ok(listing.durable <= newest && self.scan_unsealed(listing, header)?.next == newest)
                };
                Ok(found.starts.is_empty() && (!found.torn || nothing_is_missing()?))
            }
            Err(Fault::Corrupt(_)) => self.is_unfinished(listing, file.as_ref(), &path, newest),
            Err(fault) => Err(fault),
        }
    }

    fn scan_unsealed(&self, listing: &Listing<'_>, header: &SegmentHeader) -> Result<Scan, Fault> {
        let path = listing.directory.join(segment_name(header.first));
        let file = self.storage.open_file(&path, Access::Read).map_err(Fault::io("open", &path))?;
        scan(file.as_ref(), &path, header, Scan::start(header), SequenceNumber::ZERO)
    }

    /// Whether a file without a sound header is one whose creation was cut short: nothing durable may lie in it.
    fn is_unfinished(
        &self,
        listing: &Listing<'_>,
        file: &dyn StorageFile,
        path: &Path,
        first: SequenceNumber,
    ) -> Result<bool, Fault> {
        let (stream_id, incarnation) = (self.state.stream_id, self.state.incarnation);
        let due = Due { stream_id, shard_id: listing.entry.id, first, incarnation };
        Ok(listing.durable <= first && is_unfinished(file, path, &due)?)
    }

    /// Whether the newest segment can be one whose creation is under way or was cut short: not if the one before was sealed
    /// because it had a successor.
    fn may_be_unfinished(&self, listing: &Listing<'_>) -> Result<bool, Fault> {
        let [.., previous, _] = listing.firsts[..] else {
            return Ok(true);
        };
        let path = listing.directory.join(segment_name(previous));
        let file = self.storage.open_file(&path, Access::Read).map_err(Fault::io("open", &path))?;
        let header = read_header(file.as_ref(), &path, self.state.stream_id, listing.entry.id, previous)?;
        let footer = read_footer(file.as_ref(), &path, &header)?;
        Ok(footer.is_none_or(|footer| footer.kind != SealKind::Rolled))
    }

    /// Whether the manifest leaves the end of the shard open.
    fn may_grow(&self, entry: &ShardEntry) -> bool {
        entry.is_open() && !self.state.clean
    }

    fn check_end(&mut self, listing: &Listing<'_>, end: SequenceNumber) {
        let entry = listing.entry;
        let durable = listing.durable;
        if end < durable || (!self.may_grow(entry) && end != entry.next) {
            let reason = format!("the shard ends at {end} instead of {}", durable.max(entry.next));
            self.report.damage.push(
                Corruption::new(&listing.directory, 0, reason)
                    .of_shard(entry.id)
                    .of_records(end.min(entry.next), durable.max(end).previous()),
            );
        }
    }
}

/// Compares a sealed segment's records with its footer and its index.
fn check_sealed(
    file: &dyn StorageFile,
    path: &Path,
    header: &SegmentHeader,
    footer: &Footer,
) -> Result<Scan, Fault> {
    let mut found = Scan::start(header);
    advance(file, path, header, &mut found)?;
    let at = |offset, reason: &str| {
        Corruption::new(path, offset, reason)
            .of_shard(header.shard_id)
            .of_records(found.next.min(footer.next()), footer.next().previous())
    };
    if found.next < footer.next() {
        return Err(at(found.end, "a record does not decode").into());
    }
    let agrees = found.next == footer.next()
        && found.end == footer.frames_end
        && found.first_arrival == Some(footer.first_arrival)
        && found.last_arrival == footer.last_arrival
        && found.bytes == footer.bytes;
    if !agrees {
        return Err(at(header.footer_position(), "the footer does not describe the records").into());
    }
    if !index_agrees(file, path, header, footer, &found)? {
        return Err(at(footer.index_position, "the index does not point at the records").into());
    }
    producers_section(file, path, header, footer)?;
    Ok(found)
}

fn index_agrees(
    file: &dyn StorageFile,
    path: &Path,
    header: &SegmentHeader,
    footer: &Footer,
    found: &Scan,
) -> Result<bool, Fault> {
    // As long as the records that were just read, whatever the footer says.
    let mut index = vec![0; index_bytes(found.starts.len())];
    let read = file.read_at(&mut index, footer.index_position).map_err(Fault::io("read", path))?;
    let units = index.chunks_exact(4).zip(&found.starts);
    let mut points = units.map(|(unit, start)| unit == start.to_le_bytes());
    Ok(read == index.len()
        && header.seed().checksum(&index) == footer.index_checksum
        && points.all(|points| points))
}

/// Two neighbours that do not meet: the one ends before `next`, the other begins with `first`.
fn seam(listing: &Listing<'_>, next: SequenceNumber, first: SequenceNumber) -> Corruption {
    let (reason, from, behind) = if next < first {
        (format!("no segment holds the records before {first}"), next, first)
    } else {
        (format!("two segments hold the records from {first} on"), first, next)
    };
    Corruption::new(&listing.directory, 0, reason).of_shard(listing.entry.id).of_records(from, behind.previous())
}

/// Damage that hides all of a shard's records, for what is known.
fn damage_of(path: &Path, entry: &ShardEntry, reason: &str) -> Corruption {
    Corruption::new(path, 0, reason).of_shard(entry.id).of_records(entry.first, entry.next.previous())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::FrameInput;
    use crate::segment::SegmentWriter;
    use crate::storage::SimulatedDisk;
    use crate::types::{ShardId, StreamId, Timestamp};

    /// A footer whose own checksum holds, but which says something else than the records: no damage makes it, a mistake could.
    #[test]
    fn each_field_of_a_footer_is_compared_with_the_records() {
        let disk = SimulatedDisk::new();
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        let header = SegmentHeader {
            stream_id: StreamId::new(7),
            shard_id: ShardId::new(0),
            incarnation: 1,
            first: SequenceNumber::new(90),
            created: Timestamp::from_millis(0),
            file_bytes: 4096,
        };
        let mut writer = SegmentWriter::create(&storage, Path::new("/"), header).unwrap();
        for number in 90_u32..94 {
            writer
                .stage(&FrameInput {
                    sequence_number: SequenceNumber::new(number.into()),
                    arrival: Timestamp::from_millis(number.into()),
                    durable: SequenceNumber::ZERO,
                    batch_remaining: 0,
                    explicit_hash_key: None,
                    producer: None,
                    partition_key: "key",
                    data: b"data",
                })
                .unwrap();
        }
        let footer = writer.seal(SealKind::Closed, &[]).unwrap();
        let path = writer.segment().path().to_path_buf();
        let check = |footer: &Footer| {
            let file = disk.open_file(&path, Access::Read).unwrap();
            check_sealed(file.as_ref(), &path, &header, footer)
        };
        assert_eq!(check(&footer).unwrap().starts.len(), 4);
        let later = Timestamp::from_millis(100);
        for wrong in [
            Footer { records: 3, ..footer },
            Footer { records: 5, ..footer },
            Footer { frames_end: footer.frames_end + 8, ..footer },
            Footer { first_arrival: later, ..footer },
            Footer { last_arrival: later, ..footer },
            Footer { bytes: footer.bytes + 1, ..footer },
            Footer { index_position: footer.index_position - 8, ..footer },
            Footer { index_checksum: !footer.index_checksum, ..footer },
            Footer { producers: 1, producers_checksum: 1, ..footer },
        ] {
            assert!(matches!(check(&wrong), Err(Fault::Corrupt(_))), "{wrong:?}");
        }
    }
}
