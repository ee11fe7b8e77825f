//! The files that are followed: which of them is which at each look, and which are let go.
//!
//! A file keeps its place under whatever name as long as its inode and its beginning say that it is the same. One that was cut off goes on in its copy, if the
//! patterns match one, and what is in its place is a new file. A file that nobody knows and that begins like one that is there may be a copy in the
//! making: it is left alone until it differs, its original is cut off, or it has not grown for a while. Then it is a file of its own
//! if it is short, and a copy, which is not read, if the whole first KiB is the same.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::followed::{Followed, Standing, open_as};
use super::identity::{FileId, Head};
use super::matches::{Sighting, Troubles};
use super::reader;
use super::registry::State;

/// How many files that nobody sees are remembered, those that were met last: they may be on a disk that is not there now.
const MAX_MISSING: usize = 1_000;

/// Most files that stay open while there is nothing to read in them.
const MAX_IDLE_OPEN: usize = 256;

/// Where following begins in files that are new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    Start,
    /// With the line that is being written, which is no longer than this.
    End {
        max_line_bytes: usize,
    },
}

/// A file that may be a copy.
#[derive(Debug)]
struct Suspect {
    size: u64,
    since: Instant,
    is_told: bool,
}

/// What became of a look at a file that nobody knew.
enum Met {
    /// Nothing can be told yet: it is empty, or may be a copy.
    Nothing,
    /// It has an entry, and is read from now on.
    File,
}

/// What a look at all files had for a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Looked {
    /// The registry has to know something before a batch is put.
    pub(crate) is_news: bool,
    /// No file was renamed in the middle of it. Else a file may have been missed, which those behind it would overtake.
    pub(crate) is_settled: bool,
}

impl Looked {
    fn could_not(&mut self, sighting: &Sighting, error: io::Error, troubles: &mut Troubles) {
        if error.kind() == io::ErrorKind::NotFound {
            self.is_settled = false;
        } else {
            troubles.note(&sighting.path, error);
        }
    }
}

/// All files, in the order in which they were met.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) list: Vec<Followed>,
    suspects: HashMap<FileId, Suspect>,
    idle: Duration,
}

impl Files {
    pub(crate) fn new(list: Vec<Followed>, idle: Duration) -> Self {
        let mut files = Self { list, suspects: HashMap::new(), idle };
        files.mark_reused_inodes();
        files
    }

    /// Of two entries with one inode the earlier is of a file that was cut off.
    fn mark_reused_inodes(&mut self) {
        let mut later = HashSet::new();
        for file in self.list.iter_mut().rev() {
            if !later.insert(file.entry.id()) {
                file.is_cut_off();
            }
        }
    }

    /// Takes in what the patterns match now.
    ///
    /// `decides` is set where no later look will tell a copy from a file of its own.
    pub(crate) fn look(
        &mut self,
        sightings: Vec<Sighting>,
        state: &mut State,
        begin: Begin,
        decides: bool,
        troubles: &mut Troubles,
    ) -> Looked {
        let mut unknown = Vec::new();
        let mut looked = Looked { is_news: false, is_settled: true };
        let mut seen = HashSet::new();
        let places = self.places();
        for sighting in sightings {
            let Some(&place) = places.get(&sighting.id) else {
                unknown.push(sighting);
                continue;
            };
            match self.list[place].meet_again(&sighting) {
                Ok(true) => _ = seen.insert(place),
                Ok(false) => unknown.push(sighting),
                Err(error) => {
                    seen.insert(place);
                    looked.could_not(&sighting, error, troubles);
                }
            }
        }
        let cut_off: HashSet<_> = unknown.iter().map(|sighting| sighting.id).collect();
        for (place, file) in self.list.iter_mut().enumerate().filter(|(place, _)| !seen.contains(place)) {
            if places.get(&file.entry.id()) == Some(&place) && cut_off.contains(&file.entry.id()) {
                file.is_cut_off();
            } else {
                file.is_not_seen();
            }
        }
        self.suspects.retain(|id, _| cut_off.contains(id));
        for sighting in oldest_first(unknown) {
            match self.meet(&sighting, state, begin, decides, troubles) {
                Ok(Met::Nothing) => {}
                Ok(Met::File) => looked.is_news = true,
                Err(error) => looked.could_not(&sighting, error, troubles),
            }
            if !looked.is_settled {
                break; // later files would overtake it
            }
        }
        self.close_idle();
        looked
    }

    /// Whether all of these are files that are followed.
    pub(crate) fn know(&self, sightings: &[Sighting]) -> bool {
        let places = self.places();
        sightings.iter().all(|sighting| places.contains_key(&sighting.id))
    }

    fn places(&self) -> HashMap<FileId, usize> {
        let is_whole = |file: &Followed| !matches!(file.standing, Standing::CutOff { .. });
        let whole = self.list.iter().enumerate().filter(|(_, file)| is_whole(file));
        whole.map(|(place, file)| (file.entry.id(), place)).collect()
    }

    /// Finds out what a file is that has no entry.
    fn meet(
        &mut self,
        sighting: &Sighting,
        state: &mut State,
        begin: Begin,
        decides: bool,
        troubles: &mut Troubles,
    ) -> io::Result<Met> {
        let file = open_as(&sighting.path, sighting.id)?;
        let size = file.metadata()?.len();
        if size < sighting.look.size {
            return Err(io::ErrorKind::NotFound.into()); // what was seen was cut off
        }
        let head = Head::read(&file)?;
        if head.is_empty() {
            return Ok(Met::Nothing);
        }
        if let Some(original) = self.list.iter_mut().find(|known| known.goes_on_in(sighting.id, &head, size)) {
            original.go_on_in(sighting, file, head);
            return Ok(Met::File);
        }
        let original = self.list.iter().position(|known| known.may_be_original_of(&head, size));
        if let Some(original) = original
            && !self.is_of_its_own(sighting, original, size, &head, decides, troubles)
        {
            return Ok(Met::Nothing);
        }
        self.suspects.remove(&sighting.id);
        let start = match begin {
            Begin::Start => 0,
            Begin::End { max_line_bytes } => reader::start_of_last_line(&file, size, max_line_bytes)?,
        };
        let entry = state.new_entry(&sighting.path, sighting.id, head.fingerprint().clone(), start);
        self.list.push(Followed::new(entry, sighting, file, head));
        Ok(Met::File)
    }

    /// Whether a file that begins like another is a file of its own; not as long as it may turn out to be a copy.
    fn is_of_its_own(
        &mut self,
        sighting: &Sighting,
        original: usize,
        size: u64,
        head: &Head,
        decides: bool,
        troubles: &mut Troubles,
    ) -> bool {
        let fresh = || Suspect { size, since: Instant::now(), is_told: false };
        let suspect = self.suspects.entry(sighting.id).or_insert_with(fresh);
        if suspect.size != size {
            *suspect = fresh();
        }
        if !decides && suspect.since.elapsed() < self.idle {
            return false;
        }
        let is_copy = head.fingerprint().is_full();
        if is_copy && !suspect.is_told {
            suspect.is_told = true;
            let original = self.list[original].path().display();
            troubles.note(
                &sighting.path,
                format_args!("not read: it begins like {original} and is no longer, as a copy of it"),
            );
        }
        !is_copy
    }

    /// Those that grew last stay open, so that they can be read wherever they are renamed to.
    fn close_idle(&mut self) {
        let mut open: Vec<_> = self.list.iter_mut().filter(|file| file.is_idle_and_open()).collect();
        if open.len() > MAX_IDLE_OPEN {
            open.sort_by_key(|file| std::cmp::Reverse(file.still_since()));
            open.iter_mut().skip(MAX_IDLE_OPEN).for_each(|file| file.close());
        }
    }

    /// Lets go of files of which nothing more is expected. Their producers are to be deleted, once the registry does not name them any more.
    pub(crate) fn let_go(&mut self, note: &mut dyn FnMut(String)) -> Vec<Followed> {
        let idle = self.idle;
        for file in self.list.iter_mut().filter(|file| file.is_over(idle)) {
            if file.standing == (Standing::Moved { is_deleted: false }) {
                file.is_missing();
            }
        }
        let forgotten = self.forgotten();
        let (gone, kept) = std::mem::take(&mut self.list)
            .into_iter()
            .partition(|file| file.is_over(idle) || forgotten.contains(&file.entry.producer));
        self.list = kept;
        let gone: Vec<Followed> = gone;
        gone.iter().filter_map(left_unread).for_each(note);
        gone
    }

    /// Files that nobody sees beyond those that are remembered, unless they are there and only not asked for.
    fn forgotten(&self) -> HashSet<String> {
        let missing = self.list.iter().rev().filter(|file| file.standing == Standing::Missing);
        let old = missing.map(|file| &file.entry).skip(MAX_MISSING);
        let old = old.filter(|entry| !is_there(Path::new(&entry.path), entry.id()));
        old.map(|entry| entry.producer.clone()).collect()
    }
}

/// Files that were rotated while nobody looked, in the order in which they were written.
fn oldest_first(mut sightings: Vec<Sighting>) -> Vec<Sighting> {
    // Of two with the same time the one that was rotated more often: app.log.10 before app.log.9, and that before app.log.
    let turned = |sighting: &Sighting| std::cmp::Reverse((sighting.path.as_os_str().len(), sighting.path.clone()));
    sightings.sort_by_cached_key(|sighting| (sighting.look.modified, turned(sighting)));
    sightings
}

fn is_there(path: &Path, id: FileId) -> bool {
    fs::metadata(path).is_ok_and(|metadata| FileId::of(&metadata) == id)
}

/// What is lost with a file, for the user.
fn left_unread(file: &Followed) -> Option<String> {
    let name = &file.entry.name;
    if let Some(range) = file.unconfirmed {
        return Some(format!(
            "{name}: gone; its bytes {} to {} may be in the stream in part",
            range.start, range.end
        ));
    }
    let bytes = file.size().saturating_sub(file.position);
    (bytes > 0).then(|| format!("{name}: gone, {bytes} bytes of it unread, and no copy is among the files"))
}
