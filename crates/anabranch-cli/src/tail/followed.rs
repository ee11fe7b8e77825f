//! One file that is followed, through its names and its end.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anabranch::Producer;

use super::cut::Ending;
use super::identity::{FileId, Head, open_as};
use super::matches::{Look, Sighting, unrotated};
use super::range::FileRange;
use super::registry::Entry;

/// How many looks at all files a file that was cut off is waited for by its successor: its copy shows in the next one.
const LOOKS_FOR_COPY: u32 = 2;

/// Where the file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Where a pattern matches it.
    Matched,
    /// Renamed to where no pattern looks, or deleted; it is open, and can be read.
    Moved { is_deleted: bool },
    /// Its inode has other content now. A copy may have what was not read.
    CutOff { since: Instant, looks: u32 },
    /// Nowhere that is known.
    Missing,
}

/// A file, and how far it was read.
#[derive(Debug)]
pub(crate) struct Followed {
    pub(crate) entry: Entry,
    pub(crate) standing: Standing,
    /// All before is in the stream, or is not wanted.
    pub(crate) position: u64,
    /// The last batch of the run before, which may be in the stream in part: it is put again before anything else.
    pub(crate) unconfirmed: Option<FileRange>,
    pub(crate) producer: Option<Producer>,
    /// With what there was no complete record.
    pub(crate) tried: Option<(Look, Ending)>,
    path: PathBuf,
    file: Option<File>,
    head: Option<Head>,
    look: Option<Look>,
    still_since: Instant,
    /// It was renamed or cut off while it was looked at last.
    is_in_flux: bool,
}

impl Followed {
    /// A file of the registry, which was not found yet.
    pub(crate) fn known(entry: Entry, last_batch: Option<FileRange>) -> Self {
        Self {
            position: entry.offset,
            unconfirmed: last_batch.filter(|range| range.end > entry.offset),
            path: PathBuf::from(&entry.path),
            entry,
            standing: Standing::Missing,
            producer: None,
            tried: None,
            file: None,
            head: None,
            look: None,
            still_since: Instant::now(),
            is_in_flux: false,
        }
    }

    /// A file that was just met.
    pub(crate) fn new(entry: Entry, sighting: &Sighting, file: File, head: Head) -> Self {
        let mut followed = Self::known(entry, None);
        followed.appears(sighting, file, head);
        followed
    }

    fn appears(&mut self, sighting: &Sighting, file: File, head: Head) {
        self.entry.set_id(sighting.id);
        (self.file, self.head) = (Some(file), Some(head));
        self.stands_at(sighting);
    }

    fn stands_at(&mut self, sighting: &Sighting) {
        if self.path != sighting.path {
            self.path.clone_from(&sighting.path);
            self.still_since = Instant::now(); // whoever writes it may not know yet
        }
        // The next run may start in another directory.
        let absolute = std::path::absolute(&sighting.path);
        let path = absolute.as_deref().unwrap_or(&sighting.path);
        self.entry.path = path.to_string_lossy().into_owned();
        (self.standing, self.is_in_flux) = (Standing::Matched, false);
        self.looks(sighting.look);
    }

    fn looks(&mut self, look: Look) {
        if self.look != Some(look) {
            self.look = Some(look);
            self.still_since = Instant::now();
        }
    }

    /// Looks at the file with this device and inode. False if its content is another: it was cut off, or the inode is used again.
    ///
    /// `strangers` are what else was seen, and is not followed.
    pub(crate) fn meet_again(&mut self, sighting: &Sighting, strangers: &[Sighting]) -> io::Result<bool> {
        if self.is_changed(sighting) {
            let Some(head) = self.read_head(&sighting.path, sighting.id, self.reach())? else {
                return Ok(false);
            };
            if !self.is_well_known() {
                if !sighting.is_still(&head) {
                    return Err(io::ErrorKind::NotFound.into()); // it may have been cut off since
                }
                if strangers.iter().any(|stranger| self.went_on_in(stranger, sighting, &head)) {
                    return Ok(false);
                }
            }
            self.head = Some(head);
        }
        self.stands_at(sighting);
        Ok(true)
    }

    /// Whether what was seen needs no second look: nothing is new, or enough is known to notice what is in the place of this file.
    pub(crate) fn is_surely(&self, sighting: &Sighting) -> bool {
        self.is_well_known() || !self.is_changed(sighting)
    }

    fn is_changed(&self, sighting: &Sighting) -> bool {
        self.standing != Standing::Matched || self.look != Some(sighting.look)
    }

    fn is_well_known(&self) -> bool {
        self.entry.fingerprint.is_full() || self.head.as_ref().is_some_and(Head::is_telling)
    }

    /// Whether an older stranger of the same log has what little is known of this file, and what has its inode now begins otherwise: the log was copied, cut
    /// off, and begins again as it began before.
    fn went_on_in(&self, stranger: &Sighting, now: &Sighting, head: &Head) -> bool {
        let is_older = stranger.log() == now.log() && stranger.look.modified <= now.look.modified;
        let begins_so = |copy: &Head| !copy.is_empty() && self.may_begin_with(copy) && !copy.is_beginning_of(head);
        is_older && stranger.look.size >= self.reach() && stranger.head.as_ref().is_some_and(begins_so)
    }

    /// Whether the file begins as it did, and is at least so long.
    fn is_still_itself(&mut self, path: &Path, id: FileId, length: u64) -> io::Result<bool> {
        let head = self.read_head(path, id, length)?;
        let is_same = head.is_some();
        self.head = head.or(self.head.take());
        Ok(is_same)
    }

    /// How it begins now, if that is as it did, and the file is at least so long.
    fn read_head(&mut self, path: &Path, id: FileId, length: u64) -> io::Result<Option<Head>> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(open_as(path, id)?),
        };
        let (metadata, head) = (file.metadata()?, Head::read(file)?);
        let is_same = metadata.len() >= length && self.may_begin_with(&head);
        Ok(is_same.then_some(head))
    }

    fn may_begin_with(&self, head: &Head) -> bool {
        head.matches(&self.entry.fingerprint) && self.head.as_ref().is_none_or(|known| known.is_beginning_of(head))
    }

    /// It was renamed or cut off while it was looked at: the next look finds out where it is.
    pub(crate) fn moves(&mut self) {
        self.is_in_flux = true;
    }

    pub(crate) fn is_in_flux(&self) -> bool {
        self.is_in_flux
    }

    /// No pattern matches it any more.
    pub(crate) fn is_not_seen(&mut self) {
        self.is_in_flux = false;
        match (&mut self.standing, &self.file) {
            (Standing::CutOff { looks, .. }, _) => *looks += 1,
            (Standing::Missing, _) => {}
            (_, Some(file)) => match file.metadata() {
                Ok(metadata) if metadata.len() >= self.reach() => {
                    if self.standing == Standing::Matched {
                        self.still_since = Instant::now();
                    }
                    self.standing = Standing::Moved { is_deleted: metadata.nlink() == 0 };
                    self.looks(Look::of(&metadata));
                }
                Ok(_) => self.is_cut_off(),
                Err(_) => self.is_missing(),
            },
            (_, None) => self.is_missing(),
        }
    }

    pub(crate) fn is_cut_off(&mut self) {
        self.is_in_flux = false;
        self.standing = Standing::CutOff { since: Instant::now(), looks: 0 };
        (self.file, self.producer) = (None, None);
    }

    pub(crate) fn is_missing(&mut self) {
        self.standing = Standing::Missing;
        (self.file, self.producer, self.tried) = (None, None, None);
    }

    /// Whether the file that was just seen has what this one had: as a copy, made before it was cut off, or since it was moved to another file system.
    /// A short beginning proves that only for a file that was cut off; on the same file system, which moves files without copying them, even a long one
    /// may be of a new file with the same header.
    pub(crate) fn goes_on_in(&self, id: FileId, head: &Head, size: u64) -> bool {
        let fingerprint = &self.entry.fingerprint;
        let may = match self.standing {
            Standing::Matched => false,
            Standing::CutOff { .. } => id != self.entry.id() && fingerprint.bytes > 0,
            Standing::Missing => fingerprint.is_full() && id.device != self.entry.id().device,
            Standing::Moved { .. } => {
                fingerprint.is_full() && self.is_drained() && id.device != self.entry.id().device
            }
        };
        may && size >= self.reach() && self.may_begin_with(head)
    }

    /// Whether the file that was just seen, so long, is a copy of what was put of this one before it was cut off: made a moment too early, or long ago.
    pub(crate) fn was_put_as_far_as(&self, id: FileId, head: &Head, size: u64) -> bool {
        let is_beginning = || self.head.as_ref().is_some_and(|known| head.is_beginning_of(known));
        let is_cut_off = matches!(self.standing, Standing::CutOff { .. });
        let may = is_cut_off && id != self.entry.id() && self.entry.fingerprint.bytes > 0 && size < self.reach();
        may && (self.may_begin_with(head) || is_beginning())
    }

    /// Whether the file with this inode only lost its end since the run before, as by a power cut: nobody syncs log files, and the stream is.
    pub(crate) fn lost_its_end(&self, head: &Head, size: u64) -> bool {
        let is_unwatched = self.head.is_none() && matches!(self.standing, Standing::CutOff { .. });
        is_unwatched
            && self.entry.fingerprint.is_full()
            && size < self.reach()
            && head.matches(&self.entry.fingerprint)
    }

    /// Goes on in such a file.
    pub(crate) fn go_on_in(&mut self, sighting: &Sighting, file: File, head: Head) {
        self.tried = None;
        self.appears(sighting, file, head);
    }

    /// Whether a file that was just seen, so long, may be a copy of this one: perhaps one that is being made.
    pub(crate) fn may_be_original_of(&self, head: &Head, size: u64) -> bool {
        let is_there = matches!(self.standing, Standing::Matched | Standing::Moved { .. });
        let Some(own) = self.head.as_ref().filter(|own| is_there && !own.is_empty()) else {
            return false;
        };
        let is_alike = head.is_beginning_of(own) || own.is_beginning_of(head);
        is_alike && self.may_have_been_so_long(size)
    }

    /// A file that shrinks at this moment may have been of any length.
    fn may_have_been_so_long(&self, size: u64) -> bool {
        let metadata = match &self.file {
            Some(file) => file.metadata(),
            None => fs::metadata(&self.path),
        };
        metadata.map_or(true, |metadata| metadata.len() >= size || metadata.len() < self.size())
    }

    /// The file, to read it.
    pub(crate) fn open(&mut self) -> io::Result<File> {
        if let Some(file) = &self.file {
            return file.try_clone();
        }
        let file = open_as(&self.path, self.entry.id())?;
        self.file = Some(file.try_clone()?);
        Ok(file)
    }

    /// Whether bytes up to there, read a moment ago, were this file's: checked after the read, since a file can be cut off at any time.
    pub(crate) fn held(&mut self, end: u64) -> io::Result<bool> {
        let path = self.path.clone();
        self.is_still_itself(&path, self.entry.id(), end)
    }

    /// Lets the entry know the beginning of the file, as far as a batch up to `end` asks for. True if that was news.
    pub(crate) fn extend_fingerprint(&mut self, end: u64) -> bool {
        let known = self.entry.fingerprint.bytes;
        let Some(head) = self.head.as_ref().filter(|head| head.fingerprint().bytes > known && end > known as u64)
        else {
            return false;
        };
        self.entry.fingerprint = head.fingerprint().clone();
        true
    }

    /// Takes one descriptor less, until there is something to read.
    pub(crate) fn close(&mut self) {
        self.file = None;
    }

    pub(crate) fn is_open(&self) -> bool {
        self.file.is_some()
    }

    pub(crate) fn is_idle_and_open(&self) -> bool {
        self.file.is_some() && self.standing == Standing::Matched && self.is_drained()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the last batch for complete: it cannot be made again.
    pub(crate) fn skip_unconfirmed(&mut self) {
        self.position = self.reach();
        self.unconfirmed = None;
    }

    /// How long the file was when it was looked at last.
    pub(crate) fn size(&self) -> u64 {
        self.look.map_or(0, |look| look.size)
    }

    pub(crate) fn look(&self) -> Option<Look> {
        self.look
    }

    pub(crate) fn still_since(&self) -> Instant {
        self.still_since
    }

    /// How far the file was read in whatever run.
    fn reach(&self) -> u64 {
        self.unconfirmed.map_or(self.position, |range| range.end)
    }

    pub(crate) fn is_drained(&self) -> bool {
        self.unconfirmed.is_none() && self.position >= self.size()
    }

    /// Whether files of the same name that came later have to wait for this one.
    pub(crate) fn comes_first(&self) -> bool {
        self.is_in_flux
            || (matches!(self.standing, Standing::Matched | Standing::Moved { .. }) && !self.is_drained())
    }

    /// Whether a copy of it may show at the next look, which comes before all later files.
    pub(crate) fn awaits_copy(&self) -> bool {
        matches!(self.standing, Standing::CutOff { looks, .. } if looks < LOOKS_FOR_COPY)
    }

    /// What may still come.
    pub(crate) fn ending(&self, idle: Duration) -> Ending {
        let has_its_name =
            self.standing == Standing::Matched && self.is_called_as_at_first() && !self.is_rotated();
        match (self.still_since.elapsed() >= idle, has_its_name) {
            (false, _) => Ending::Open,
            (true, true) => Ending::AtRest,
            (true, false) => Ending::Final,
        }
    }

    /// The name at first sight is as the pattern gave it, the path is absolute.
    fn is_called_as_at_first(&self) -> bool {
        let name = Path::new(&self.entry.name);
        Path::new(&self.entry.path).ends_with(name.strip_prefix(".").unwrap_or(name))
    }

    /// Whether its name has the number of a rotation, and there is a file without one, which is written now.
    fn is_rotated(&self) -> bool {
        let written = unrotated(&self.entry.path);
        written.len() < self.entry.path.len() && Path::new(written).exists()
    }

    /// Whether nothing more is expected of the file where it is.
    pub(crate) fn is_over(&self, idle: Duration) -> bool {
        match self.standing {
            Standing::Moved { .. } => self.is_drained() && self.still_since.elapsed() >= idle,
            Standing::CutOff { since, looks } => looks >= LOOKS_FOR_COPY && since.elapsed() >= idle,
            Standing::Matched | Standing::Missing => false,
        }
    }
}
