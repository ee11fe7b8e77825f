//! The files that are followed: which of them is which at each look, and which are let go.
//!
//! A file keeps its place under whatever name as long as its inode and its beginning say that it is the same. One that was cut off goes on in its copy, if the
//! patterns match one, and what is in its place is a new file. A file that nobody knows and that begins like one that is there may be a copy in the
//! making: it is left alone until it differs, its original is cut off, or it has not grown for a while. Then it is a file of its own
//! if it is short, and a copy, which is not read, if the whole first KiB is the same.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::followed::{Followed, Standing};
use super::identity::{FileId, Head, open_as};
use super::matches::{Sighting, Troubles, unrotated};
use super::reader;
use super::registry::State;

/// How often at most the files are looked at again that move while they are looked at.
pub(crate) const MAX_LOOKS: usize = 10;

/// How often at most the names are listed again that change while they are listed. Behind that a new file is met all the same: out of its turn rather
/// than never, where names change faster than they are listed.
const MAX_LISTS: usize = 100;

/// How many files that nobody sees are remembered, those that were met last: they may be on a disk that is not there now.
const MAX_MISSING: usize = 1_000;

/// Most files with a name that stay open: a process has 1,024 descriptors where nobody asked for more, and the stream and the registry need theirs.
const MAX_OPEN: usize = 256;

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Looked {
    /// The registry has to know something before a batch is put.
    pub(crate) is_news: bool,
    /// No file was renamed or cut off in the middle of it. Else a file may have been missed, which those behind it would overtake.
    pub(crate) is_settled: bool,
    /// A file that could not be read.
    pub(crate) unread: Option<(String, io::ErrorKind)>,
}

impl Looked {
    fn could_not(&mut self, sighting: &Sighting, error: io::Error, troubles: &mut Troubles) {
        if error.kind() == io::ErrorKind::NotFound {
            self.is_settled = false;
        } else {
            self.unread = Some((sighting.path.display().to_string(), error.kind()));
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
    /// How many of them are open, since the last look.
    open: usize,
    /// Where to begin in files that could not be read at the very first look: they are none of those that came later.
    missed_at_first: HashMap<FileId, Begin>,
    /// Directories that the agent itself writes to: what is in them grows with every line that is put.
    own: Vec<PathBuf>,
}

impl Files {
    /// Files that are known, and directories whose files are not followed, whatever the patterns match.
    pub(crate) fn new(list: Vec<Followed>, idle: Duration, own: &[&Path]) -> Self {
        let own = own.iter().filter_map(|directory| directory.canonicalize().ok()).collect();
        let mut files =
            Self { list, suspects: HashMap::new(), idle, open: 0, missed_at_first: HashMap::new(), own };
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
        let mut looked = Looked { is_news: false, is_settled: true, unread: None };
        let mut seen = HashSet::new();
        let places = self.places();
        let (known, mut unknown): (Vec<_>, Vec<_>) =
            sightings.into_iter().partition(|sighting| places.contains_key(&sighting.id));
        for sighting in known {
            let place = places[&sighting.id];
            let was_open = self.list[place].is_open();
            match self.list[place].meet_again(&sighting, &unknown) {
                Ok(true) => {
                    seen.insert(place);
                    self.keep_few_open(place, was_open);
                }
                Ok(false) => unknown.push(sighting),
                Err(error) => {
                    seen.insert(place);
                    if error.kind() == io::ErrorKind::NotFound {
                        self.list[place].moves();
                    }
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
            if !looked.is_settled {
                break; // it may be the copy of a file that could not be met, or overtake one
            }
            match self.meet(&sighting, state, begin, decides, troubles) {
                Ok(Met::Nothing) => {}
                Ok(Met::File) => looked.is_news = true,
                Err(error) => {
                    if begin != Begin::Start {
                        self.missed_at_first.insert(sighting.id, begin);
                    }
                    looked.could_not(&sighting, error, troubles);
                }
            }
        }
        self.close_idle();
        self.open = self.list.iter().filter(|file| file.is_open()).count();
        looked
    }

    /// What is listed, with the beginnings of what is not surely known; where there is such a file, or at a run's first look, seen twice the same.
    ///
    /// Names that move while they are listed show up twice or not at all, and a file that is missed would be overtaken by its successors. The first of two
    /// lists that are the same is the one to go by: what was copied and cut off before it was looked at has a name in the second.
    pub(crate) fn sightings(&self, is_first: bool, mut list: impl FnMut() -> Vec<Sighting>) -> Vec<Sighting> {
        let mut sightings = list();
        for lists in 1.. {
            let has_strangers = self.read_heads_of_strangers(&mut sightings);
            if lists == MAX_LISTS || !(has_strangers || is_first) {
                break;
            }
            let again = list();
            if again.iter().map(Sighting::name).eq(sightings.iter().map(Sighting::name)) {
                break;
            }
            sightings = again;
        }
        sightings
    }

    /// False if all of these are surely files that are followed.
    fn read_heads_of_strangers(&self, sightings: &mut [Sighting]) -> bool {
        let places = self.places();
        let is_known =
            |seen: &Sighting| places.get(&seen.id).is_some_and(|&place| self.list[place].is_surely(seen));
        let strangers = sightings.iter_mut().filter(|seen| !is_known(seen));
        strangers.map(Sighting::read_head).count() > 0
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
        let begin = self.missed_at_first.get(&sighting.id).copied().unwrap_or(begin);
        let file = open_as(&sighting.path, sighting.id)?;
        let size = file.metadata()?.len();
        let head = Head::read(&file)?;
        if size < sighting.look.size || !sighting.is_still(&head) {
            return Err(io::ErrorKind::NotFound.into()); // what was seen was cut off, or was known until a moment ago
        }
        // Of an empty file nothing can be told, and nothing has to be read.
        if head.is_empty() || self.is_own(&sighting.path) {
            return Ok(Met::Nothing);
        }
        if let Some(original) = self.list.iter_mut().find(|known| known.goes_on_in(sighting.id, &head, size)) {
            if original.standing == Standing::Missing || matches!(original.standing, Standing::Moved { .. }) {
                let (before, offset) = (original.path().display(), original.position);
                let what = format_args!("taken for {before}, from another disk: goes on at byte {offset}");
                troubles.note(&sighting.path, what);
            }
            original.go_on_in(sighting, file, head);
            return Ok(Met::File);
        }
        if let Some(start) = self.put_before(sighting, &head, size, troubles) {
            self.take_up(sighting, state, start, file, head);
            return Ok(Met::File);
        }
        let original = self.list.iter().position(|known| known.may_be_original_of(&head, size));
        if let Some(original) = original
            && !self.is_of_its_own(sighting, original, size, &head, decides, troubles)
        {
            return Ok(Met::Nothing);
        }
        let start = match begin {
            Begin::Start => 0,
            Begin::End { max_line_bytes } => reader::start_of_last_line(&file, size, max_line_bytes)?,
        };
        // A copy that was told stays one when its original is gone.
        let told = self.suspects.get(&sighting.id).filter(|suspect| original.is_none() && suspect.is_told);
        let start = told.map_or(start, |copy| copy.size.min(size));
        self.take_up(sighting, state, start, file, head);
        Ok(Met::File)
    }

    fn take_up(&mut self, sighting: &Sighting, state: &mut State, start: u64, file: File, head: Head) {
        self.suspects.remove(&sighting.id);
        let entry = state.new_entry(&sighting.path, sighting.id, head.fingerprint().clone(), start);
        self.list.push(Followed::new(entry, sighting, file, head));
        self.missed_at_first.remove(&sighting.id);
        self.keep_few_open(self.list.len() - 1, false);
    }

    /// For each file which of them it is rotated from or to: equal numbers mean one order. By names at first sight: files that were rotated before that are
    /// of the family of the file without a number.
    pub(crate) fn families(&self) -> Vec<usize> {
        let mut numbers = HashMap::new();
        let names = self.list.iter().enumerate();
        names.for_each(|(place, file)| _ = numbers.entry(file.entry.name.as_str()).or_insert(place));
        let family = |file: &Followed| numbers.get(unrotated(&file.entry.name)).copied();
        let own = |file: &Followed| numbers.get(file.entry.name.as_str()).copied().unwrap_or(usize::MAX);
        self.list.iter().map(|file| family(file).unwrap_or_else(|| own(file))).collect()
    }

    /// Closes a file that was just opened if there are enough of them: it is opened again to be read.
    pub(crate) fn keep_few_open(&mut self, place: usize, was_open: bool) {
        let file = &mut self.list[place];
        if was_open || !file.is_open() {
            return;
        }
        if self.open >= MAX_OPEN && file.standing == Standing::Matched {
            file.close();
        } else {
            self.open += 1;
        }
    }

    /// How much of a file without an entry is in the stream all the same, if that is known: under its own entry or that of its original. Bytes that may
    /// be there are never put twice.
    fn put_before(&self, sighting: &Sighting, head: &Head, size: u64, troubles: &mut Troubles) -> Option<u64> {
        if self.list.iter().any(|known| known.was_put_as_far_as(sighting.id, head, size)) {
            return Some(size);
        }
        let own = self.list.iter().rev().find(|known| known.entry.id() == sighting.id)?;
        own.lost_its_end(head, size).then(|| {
            let what = "shorter than when it was read, as after a power cut: goes on at its end";
            troubles.note(&sighting.path, format_args!("{what}, byte {size}"));
            size
        })
    }

    fn is_own(&self, path: &Path) -> bool {
        let path = path.canonicalize();
        path.is_ok_and(|path| self.own.iter().any(|directory| path.starts_with(directory)))
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
        if open.len() > MAX_OPEN {
            open.sort_by_key(|file| std::cmp::Reverse(file.still_since()));
            open.iter_mut().skip(MAX_OPEN).for_each(|file| file.close());
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

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write;

    use tempfile::TempDir;

    use super::super::matches;
    use super::super::registry::Registry;
    use super::*;

    /// Files in a directory, and what is known of them.
    struct Scene {
        home: TempDir,
        state: State,
        files: Files,
    }

    impl Scene {
        fn new() -> Self {
            let home = tempfile::tempdir().unwrap();
            let (_, state, _) = Registry::open(&home.path().join("state"), "stream").unwrap();
            let files = Files::new(Vec::new(), Duration::from_secs(3_600), &[]);
            Self { home, state, files }
        }

        fn append(&self, name: &str, text: &str) {
            let file = OpenOptions::new().create(true).append(true).open(self.home.path().join(name));
            file.unwrap().write_all(text.as_bytes()).unwrap();
        }

        fn sightings(&self, names: &[&str]) -> Vec<Sighting> {
            let paths: Vec<_> =
                names.iter().map(|name| format!("{}/{name}", self.home.path().display())).collect();
            let mut sightings = matches::look(&paths, &mut Troubles::default());
            sightings.iter_mut().for_each(Sighting::read_head);
            sightings
        }

        fn take(&mut self, sightings: Vec<Sighting>) -> Looked {
            self.files.look(sightings, &mut self.state, Begin::Start, false, &mut Troubles::default())
        }

        fn look(&mut self, names: &[&str]) -> Looked {
            let sightings = self.sightings(names);
            self.take(sightings)
        }

        /// The files by their names now, and how far each was read.
        fn standing(&self) -> Vec<(String, Standing, u64)> {
            let name = |file: &Followed| file.path().file_name().unwrap().to_str().unwrap().to_owned();
            self.files.list.iter().map(|file| (name(file), file.standing, file.position)).collect()
        }

        fn copy_and_cut_off(&self) {
            let path = |name| self.home.path().join(name);
            fs::copy(path("log"), path("log.1")).unwrap();
            OpenOptions::new().write(true).open(path("log")).unwrap().set_len(0).unwrap();
        }
    }

    #[test]
    fn all_wait_for_a_copy_that_the_listing_missed() {
        let mut scene = Scene::new();
        scene.append("log", "one\ntwo\n");
        assert!(scene.look(&["log"]).is_news);
        scene.files.list[0].position = 4;
        scene.copy_and_cut_off();
        scene.append("log", "three\n");
        // The names were listed before there was a copy.
        assert!(scene.look(&["log"]).is_news);
        assert!(scene.files.list[0].awaits_copy());
        assert!(scene.look(&["log", "log.1"]).is_news);
        let [old, new] = scene.standing().try_into().unwrap();
        assert_eq!(old, ("log.1".to_owned(), Standing::Matched, 4), "it goes on where it was, and comes first");
        assert_eq!(new, ("log".to_owned(), Standing::Matched, 0));
    }

    #[test]
    fn the_next_run_knows_a_file_that_was_cut_off_by_its_inode() {
        let mut scene = Scene::new();
        scene.append("log", "one\ntwo\n");
        scene.look(&["log"]);
        scene.copy_and_cut_off();
        scene.append("log", "three\n");
        scene.look(&["log"]);
        let mut entries: Vec<_> = scene.files.list.iter().map(|file| file.entry.clone()).collect();
        entries[0].offset = 4;
        let known = entries.into_iter().map(|entry| Followed::known(entry, None)).collect();
        scene.files = Files::new(known, Duration::from_secs(3_600), &[]);
        scene.look(&["log", "log.1"]);
        let [old, new] = scene.standing().try_into().unwrap();
        assert_eq!(old, ("log.1".to_owned(), Standing::Matched, 4));
        assert_eq!(new, ("log".to_owned(), Standing::Matched, 0));
    }

    /// The first line was half written when it was looked at last: all lines begin like that.
    #[test]
    fn a_file_that_was_cut_off_behind_half_a_line_goes_on_in_its_copy() {
        for (is_another_run, is_renamed) in [(false, false), (true, false), (false, true), (true, true)] {
            let mut scene = Scene::new();
            scene.append("log", "b 84");
            scene.look(&["log"]);
            if is_another_run {
                let entry = scene.files.list[0].entry.clone();
                scene.files = Files::new(vec![Followed::known(entry, None)], Duration::from_secs(3_600), &[]);
            }
            scene.append("log", "26 x\n");
            scene.copy_and_cut_off();
            scene.append("log", "b 8477 y\n");
            let mut expected = vec!["log.1", "log"];
            if is_renamed {
                let path = |name| scene.home.path().join(name);
                fs::rename(path("log.1"), path("log.2")).unwrap();
                fs::rename(path("log"), path("log.1")).unwrap();
                scene.append("log", "b 8499 z\n");
                expected.insert(0, "log.2");
            }
            scene.look(&["log", "log.1", "log.2"]);
            let names: Vec<_> = scene.standing().into_iter().map(|(name, ..)| name).collect();
            assert_eq!(names, expected, "another run: {is_another_run}");
        }
    }

    /// The log is copied and cut off while its directory is listed: behind the names, and before it is looked at.
    #[test]
    fn a_file_that_was_cut_off_between_two_lists_does_not_overtake_its_copy() {
        let mut scene = Scene::new();
        scene.append("log", "one\n");
        let mut lists = 0;
        let names = |scene: &Scene| {
            matches::look(&[format!("{}/log", scene.home.path().display())], &mut Troubles::default())
        };
        let sightings = scene.files.sightings(true, || {
            lists += 1;
            if lists == 2 {
                scene.copy_and_cut_off();
                scene.append("log", "two, and longer\n");
            }
            names(&scene)
        });
        assert_eq!((lists, sightings.len()), (2, 1), "it has the same name and inode");
        assert_eq!(scene.take(sightings), Looked { is_news: false, is_settled: false, unread: None });
        scene.look(&["log", "log.1"]);
        let names: Vec<_> = scene.standing().into_iter().map(|(name, ..)| name).collect();
        assert_eq!(names, ["log.1", "log"]);
    }

    #[test]
    fn a_file_that_never_comes_to_rest_is_not_overtaken() {
        let mut scene = Scene::new();
        scene.append("log.1", "one\n");
        scene.append("log", "two\n");
        scene.look(&["log", "log.1"]);
        let known = scene.files.list.iter().map(|file| Followed::known(file.entry.clone(), None)).collect();
        scene.files = Files::new(known, Duration::from_secs(3_600), &[]);
        let before = scene.sightings(&["log", "log.1"]);
        fs::rename(scene.home.path().join("log.1"), scene.home.path().join("log.2")).unwrap();
        assert!(!scene.take(before).is_settled);
        let comes_first = |scene: &Scene| scene.files.list[0].comes_first();
        assert!(comes_first(&scene), "nobody knows where it is");
        scene.look(&["log", "log.2"]);
        assert!(comes_first(&scene), "it is to be read");
        scene.files.list[0].position = 4;
        assert!(!comes_first(&scene));
    }

    /// It is listed with the time of its last line, and its beginning read when that is another's.
    #[test]
    fn a_file_that_was_cut_off_before_its_beginning_was_read_does_not_overtake_its_copy() {
        let mut scene = Scene::new();
        let list = |scene: &Scene, name| {
            matches::look(&[format!("{}/{name}", scene.home.path().display())], &mut Troubles::default())
        };
        scene.append("log", "one\n");
        let mut sightings = list(&scene, "log");
        std::thread::sleep(Duration::from_millis(30)); // so that the copy has a later time, however coarse the clock
        scene.copy_and_cut_off();
        scene.append("log", "two, and longer\n");
        sightings.extend(list(&scene, "log.1"));
        assert!(sightings[0].look.modified < sightings[1].look.modified);
        sightings.iter_mut().for_each(Sighting::read_head);
        assert!(scene.take(sightings).is_settled);
        let names: Vec<_> = scene.standing().into_iter().map(|(name, ..)| name).collect();
        assert_eq!(names, ["log.1", "log"]);
    }

    #[test]
    fn a_copy_of_a_file_that_could_not_be_met_is_no_new_file() {
        let mut scene = Scene::new();
        scene.append("log", "one\n");
        scene.look(&["log"]);
        let mut entry = scene.files.list[0].entry.clone();
        entry.offset = 4;
        scene.files = Files::new(vec![Followed::known(entry, None)], Duration::from_secs(3_600), &[]);
        scene.copy_and_cut_off();
        scene.append("log", "two\n");
        let before = scene.sightings(&["log", "log.1"]);
        fs::rename(scene.home.path().join("log"), scene.home.path().join("log.0")).unwrap();
        assert_eq!(scene.take(before), Looked { is_news: false, is_settled: false, unread: None });
        scene.look(&["log.0", "log.1"]);
        let [old, new] = scene.standing().try_into().unwrap();
        assert_eq!(old, ("log.1".to_owned(), Standing::Matched, 4), "none of its lines comes twice");
        assert_eq!(new, ("log.0".to_owned(), Standing::Matched, 0));
    }

    #[test]
    fn half_a_line_that_grew_may_be_another_line() {
        for is_known in [false, true] {
            let mut scene = Scene::new();
            scene.append("log", "b 84");
            if is_known {
                scene.look(&["log"]);
                scene.append("log", "2");
            }
            let before = scene.sightings(&["log"]);
            scene.append("log", "26 x\n");
            scene.copy_and_cut_off();
            scene.append("log", "b 8427 y\n");
            assert!(!scene.take(before).is_settled, "known: {is_known}");
            scene.look(&["log", "log.1"]);
            let names: Vec<_> = scene.standing().into_iter().map(|(name, ..)| name).collect();
            assert_eq!(names, ["log.1", "log"], "known: {is_known}");
        }
    }

    #[test]
    fn a_new_file_among_names_that_never_rest_is_met_out_of_its_turn() {
        let mut scene = Scene::new();
        scene.append("log", "one\n");
        let mut lists = 0;
        let sightings = scene.files.sightings(true, || {
            lists += 1;
            scene.append(&format!("log.{lists}"), &format!("{lists}\n"));
            matches::look(&[format!("{}/log*", scene.home.path().display())], &mut Troubles::default())
        });
        assert_eq!((lists, sightings.len()), (MAX_LISTS, MAX_LISTS + 1));
        assert!(scene.take(sightings).is_settled);
        assert_eq!(scene.files.list.len(), MAX_LISTS + 1);
    }

    #[test]
    fn what_is_surely_known_is_listed_once() {
        let mut scene = Scene::new();
        let lists_of = |scene: &Scene, is_first| {
            let mut lists = 0;
            scene.files.sightings(is_first, || {
                lists += 1;
                matches::look(&[format!("{}/*log*", scene.home.path().display())], &mut Troubles::default())
            });
            lists
        };
        scene.append("log", "half");
        assert_eq!(lists_of(&scene, false), 2, "nobody knows it");
        scene.look(&["log"]);
        assert_eq!((lists_of(&scene, false), lists_of(&scene, true)), (1, 2), "it is as it was");
        scene.append("log", " a line\n");
        assert_eq!(lists_of(&scene, false), 2, "its beginning is that of many");
        scene.look(&["log"]);
        scene.append("log", "more\n");
        assert_eq!(lists_of(&scene, false), 1);
    }

    #[test]
    fn a_copy_that_lacks_what_was_put_last_goes_on_at_its_end() {
        for more in ["three\n", &"x".repeat(3_000)] {
            let mut scene = Scene::new();
            let path = |name| scene.home.path().join(name);
            let (log, copy) = (path("log"), path("log.1"));
            scene.append("log", "one\ntwo\n");
            scene.look(&["log"]);
            fs::copy(&log, &copy).unwrap();
            scene.append("log", more);
            scene.look(&["log"]);
            assert_eq!(scene.files.list[0].held(8 + more.len() as u64).ok(), Some(true));
            scene.files.list[0].position = 8 + more.len() as u64;
            OpenOptions::new().write(true).open(&log).unwrap().set_len(0).unwrap();
            scene.append("log", "four\n");
            scene.look(&["log", "log.1"]);
            let [old, copy, new] = scene.standing().try_into().unwrap();
            assert!(matches!(old.1, Standing::CutOff { .. }), "{old:?}");
            assert_eq!(copy, ("log.1".to_owned(), Standing::Matched, 8), "all of it is in the stream");
            assert_eq!(new, ("log".to_owned(), Standing::Matched, 0));
        }
    }

    #[test]
    fn a_copy_that_was_told_stays_one_when_its_original_is_gone() {
        let mut scene = Scene::new();
        scene.append("log", &"x\n".repeat(1_000));
        scene.look(&["log"]);
        scene.files.list[0].position = 2_000;
        fs::copy(scene.home.path().join("log"), scene.home.path().join("log.bak")).unwrap();
        let mut troubles = Troubles::default();
        let sightings = scene.sightings(&["log", "log.bak"]);
        assert!(!scene.files.look(sightings, &mut scene.state, Begin::Start, true, &mut troubles).is_news);
        assert_eq!(troubles.take_news().len(), 1);
        fs::remove_file(scene.home.path().join("log")).unwrap();
        scene.look(&["log", "log.bak"]);
        scene.files.idle = Duration::ZERO;
        assert_eq!(scene.files.let_go(&mut |_| ()).len(), 1);
        scene.look(&["log", "log.bak"]);
        assert_eq!(scene.standing(), [("log.bak".to_owned(), Standing::Matched, 2_000)]);
    }

    #[test]
    fn a_new_file_with_the_header_of_one_that_is_gone_is_read_from_its_start() {
        let mut scene = Scene::new();
        let header = "x\n".repeat(600);
        scene.append("log", &header);
        scene.look(&["log"]);
        scene.files.list[0].position = 1_200;
        scene.append("other", &format!("{header}more\n"));
        fs::remove_file(scene.home.path().join("log")).unwrap();
        scene.look(&["log", "other"]);
        assert_eq!(scene.standing()[1], ("other".to_owned(), Standing::Matched, 0));
        let mut entry = scene.files.list[1].entry.clone();
        entry.offset = 1_200;
        let id = FileId { device: u64::MAX, ..entry.id() };
        entry.set_id(id);
        scene.files = Files::new(vec![Followed::known(entry, None)], Duration::from_secs(3_600), &[]);
        scene.look(&["other"]);
        let moved = ("other".to_owned(), Standing::Matched, 1_200);
        assert_eq!(scene.standing(), [moved], "it came from another disk");
    }

    #[test]
    fn a_copy_that_never_comes_is_waited_for_in_two_looks() {
        let mut scene = Scene::new();
        scene.append("log", "one\n");
        scene.look(&["log"]);
        scene.files.list[0].position = 4;
        File::create(scene.home.path().join("log")).unwrap();
        for waits in [true, true, false] {
            scene.look(&["log"]);
            assert_eq!(scene.files.list[0].awaits_copy(), waits);
        }
    }

    #[test]
    fn what_was_renamed_or_cut_off_in_the_middle_of_a_look_is_looked_at_again() {
        let mut scene = Scene::new();
        scene.append("log", "one\n");
        let before = scene.sightings(&["log"]);
        fs::rename(scene.home.path().join("log"), scene.home.path().join("log.1")).unwrap();
        assert!(!scene.take(before).is_settled);
        let before = scene.sightings(&["log.1"]);
        File::create(scene.home.path().join("log.1")).unwrap();
        assert!(!scene.take(before).is_settled);
        scene.append("log", "two\n");
        assert_eq!(scene.look(&["log", "log.1"]), Looked { is_news: true, is_settled: true, unread: None });
        assert_eq!(scene.files.list.len(), 1, "of an empty file nothing is known");
    }

    #[test]
    fn a_copy_in_the_making_is_left_alone() {
        let mut scene = Scene::new();
        scene.append("log", "one\ntwo\n");
        scene.look(&["log"]);
        scene.append("log.1", "one\n");
        assert!(!scene.look(&["log", "log.1"]).is_news);
        scene.append("log.1", "other\n");
        assert!(scene.look(&["log", "log.1"]).is_news, "it is none");
    }

    #[test]
    fn rotated_files_that_are_met_first_come_before_the_file_without_a_number() {
        let mut scene = Scene::new();
        for name in ["app.log.2", "app.log.1", "app.log", "worker.1", "worker.2"] {
            scene.append(name, &name.chars().rev().collect::<String>());
        }
        scene.look(&["app.log.2", "app.log.1", "app.log", "worker.1", "worker.2"]);
        let families = scene.files.families();
        let of = |name| {
            let is_it = |file: &Followed| file.path().ends_with(name);
            families[scene.files.list.iter().position(is_it).unwrap()]
        };
        assert_eq!([of("app.log.2"), of("app.log.1")], [of("app.log"), of("app.log")]);
        assert_ne!(of("worker.1"), of("worker.2"), "nothing shows that they are one log");
        assert_ne!(of("worker.1"), of("app.log"));
    }

    #[test]
    fn few_files_stay_open_however_many_have_something_to_read() {
        let mut scene = Scene::new();
        for number in 0..MAX_OPEN + 20 {
            scene.append(&format!("{number}.log"), &format!("{number}\n"));
        }
        scene.look(&["*.log"]);
        let open = |scene: &Scene| scene.files.list.iter().filter(|file| file.is_open()).count();
        assert_eq!((scene.files.list.len(), open(&scene)), (MAX_OPEN + 20, MAX_OPEN));
        for place in 0..MAX_OPEN + 20 {
            let was_open = scene.files.list[place].is_open();
            scene.files.list[place].open().unwrap();
            scene.files.keep_few_open(place, was_open);
        }
        assert_eq!(open(&scene), MAX_OPEN);
        for number in 0..MAX_OPEN + 20 {
            scene.append(&format!("{number}.log"), "more\n");
        }
        scene.look(&["*.log"]);
        assert_eq!(open(&scene), MAX_OPEN);
        let known = scene.files.list.iter().map(|file| Followed::known(file.entry.clone(), None)).collect();
        scene.files = Files::new(known, Duration::from_secs(3_600), &[]);
        scene.look(&["*.log"]);
        assert_eq!(open(&scene), MAX_OPEN, "of those that are known from the run before");
    }

    #[test]
    fn what_could_not_be_read_at_the_very_first_look_begins_where_that_would_have() {
        let mut scene = Scene::new();
        scene.append("log", "one\ntwo");
        let real = scene.sightings(&["log"]);
        let mut away = real.clone();
        away[0].path = scene.home.path().join("away");
        let begin = Begin::End { max_line_bytes: 100 };
        let looked = scene.files.look(away, &mut scene.state, begin, true, &mut Troubles::default());
        assert!(!looked.is_news && !looked.is_settled);
        scene.append("new", "new\n");
        scene.look(&["log", "new"]);
        let mut standing = scene.standing();
        standing.sort_by_key(|(name, ..)| name.clone());
        let [old, new] = standing.try_into().unwrap();
        assert_eq!((old.2, new.2), (4, 0));
    }

    #[test]
    fn files_that_nobody_sees_are_remembered_up_to_a_number() {
        let mut scene = Scene::new();
        scene.append("there", "and not asked for\n");
        scene.look(&["there"]);
        scene.look(&[]);
        let fingerprint = scene.files.list[0].entry.fingerprint.clone();
        scene.files.list[0].is_missing();
        for inode in 0..MAX_MISSING as u64 + 5 {
            let id = FileId { device: 0, inode };
            let entry = scene.state.new_entry(Path::new("/nowhere"), id, fingerprint.clone(), 0);
            scene.files.list.push(Followed::known(entry, None));
        }
        let gone = scene.files.let_go(&mut |_| ());
        let gone: Vec<_> = gone.iter().map(|file| file.entry.id().inode).collect();
        assert_eq!(gone, [0, 1, 2, 3, 4], "those that were met first");
        assert_eq!(scene.files.list.len(), MAX_MISSING + 1);
    }
}
