//! Which files there are to follow: what the patterns match now.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::identity::{FileId, Head, open_as};

/// What rotated files are compressed to: bytes that are no lines, of lines that were put before.
const COMPRESSED: [&str; 5] = ["gz", "bz2", "xz", "zst", "zip"];

/// A file that a pattern matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sighting {
    pub(crate) path: PathBuf,
    pub(crate) id: FileId,
    pub(crate) look: Look,
    /// How it began, if that was read.
    pub(crate) head: Option<Head>,
}

impl Sighting {
    /// What the file was called while it was written.
    pub(crate) fn log(&self) -> String {
        unrotated(&self.path.to_string_lossy()).to_owned()
    }

    /// Reads how the file begins, and looks at it behind that: its time of change is not from before it was cut off. Nothing is known of a file that is
    /// renamed meanwhile, or cannot be read: whoever opens it next has the error.
    pub(crate) fn read_head(&mut self) {
        let read = open_as(&self.path, self.id).and_then(|file| Ok((Head::read(&file)?, file.metadata()?)));
        self.head = read.ok().map(|(head, metadata)| {
            self.look = Look::of(&metadata);
            head
        });
    }

    /// Whether the file that begins like this now is what was seen: it only grew since. Of half a line that grew this cannot be told.
    pub(crate) fn is_still(&self, head: &Head) -> bool {
        let grew = |seen: &Head| seen == head || (seen.is_telling() && seen.is_beginning_of(head));
        self.head.as_ref().is_some_and(grew)
    }

    /// Which file has which name.
    pub(crate) fn name(&self) -> (&Path, FileId) {
        (&self.path, self.id)
    }
}

/// What changes when a file does: equal looks mean that there is nothing new in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) size: u64,
    pub(crate) modified: (i64, i64),
}

impl Look {
    pub(crate) fn of(metadata: &fs::Metadata) -> Self {
        Self { size: metadata.len(), modified: (metadata.mtime(), metadata.mtime_nsec()) }
    }
}

/// The patterns, one by one, and each file once: under the first of its names, symbolic links followed.
pub(crate) fn look(patterns: &[String], troubles: &mut Troubles) -> Vec<Sighting> {
    let mut known = HashSet::new();
    let mut sightings = Vec::new();
    let paths: Vec<_> = patterns.iter().flat_map(|pattern| paths(pattern, troubles)).collect();
    for path in paths {
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() && is_compressed(&path) => {
                troubles.note(&path, "not read: it is compressed");
            }
            Ok(metadata) if metadata.is_file() => {
                let id = FileId::of(&metadata);
                if known.insert(id) {
                    sightings.push(Sighting { path, id, look: Look::of(&metadata), head: None });
                }
            }
            Ok(_) => {} // directories, pipes and devices have no end to go on from
            Err(error) if error.kind() == io::ErrorKind::NotFound => {} // it was renamed a moment ago
            Err(error) => troubles.note(&path, error),
        }
    }
    sightings
}

fn is_compressed(path: &Path) -> bool {
    path.extension().is_some_and(|extension| COMPRESSED.iter().any(|known| extension.eq_ignore_ascii_case(known)))
}

/// What a rotated file was called while it was written: its path without the number or the date that rotation put behind it.
pub(crate) fn unrotated(path: &str) -> &str {
    let start = path.rfind('/').map_or(0, |slash| slash + 1);
    let separators = path[start..].match_indices(['.', '-']).filter(|(at, _)| *at > 0);
    let rotated = separators.map(|(at, separator)| (start + at, separator)).find(|(at, separator)| {
        let turn = &path.as_bytes()[at + 1..];
        let is_turn = turn.iter().all(|byte| byte.is_ascii_digit() || b".-_".contains(byte));
        let digits = turn.iter().take_while(|byte| byte.is_ascii_digit()).count();
        is_turn && digits > 0 && (*separator == "." || (digits >= 4 && turn.len() >= 8))
    });
    rotated.map_or(path, |(at, _)| &path[..at])
}

/// A file that has this very name is meant by it, whatever is a wildcard in it.
fn paths(pattern: &str, troubles: &mut Troubles) -> Vec<PathBuf> {
    if Path::new(pattern).symlink_metadata().is_ok() {
        return vec![PathBuf::from(pattern)];
    }
    let mut found = Vec::new();
    for path in glob::glob(pattern).into_iter().flatten() {
        match path {
            Ok(path) => found.push(path),
            Err(error) => troubles.note(error.path(), error.error()),
        }
    }
    found
}

/// A name without wildcards of which there is no file.
pub(crate) fn absent(patterns: &[String]) -> Option<&String> {
    let is_name = |pattern: &&String| glob::Pattern::escape(pattern) == **pattern;
    patterns.iter().filter(is_name).find(|name| fs::metadata(name).is_err())
}

/// A pattern as it is given on the command line.
pub(crate) fn parse_pattern(text: &str) -> Result<String, String> {
    glob::Pattern::new(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// Files that cannot be looked at or read. Each trouble is told once, and again when it comes back.
#[derive(Debug, Default)]
pub(crate) struct Troubles {
    told: HashMap<PathBuf, String>,
    now: HashMap<PathBuf, String>,
    fresh: Vec<String>,
}

impl Troubles {
    /// Something is wrong with a file.
    pub(crate) fn note(&mut self, path: &Path, what: impl Display) {
        let what = what.to_string();
        if self.told.get(path) != Some(&what) && self.now.get(path) != Some(&what) {
            self.fresh.push(format!("{}: {what}", path.display()));
        }
        self.now.insert(path.to_owned(), what);
    }

    /// A look at all files is over: what was wrong in it and was not told yet.
    pub(crate) fn take_news(&mut self) -> Vec<String> {
        self.told = std::mem::take(&mut self.now);
        std::mem::take(&mut self.fresh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(patterns: &[&str], directory: &Path) -> Vec<String> {
        let patterns: Vec<_> = patterns.iter().map(|name| format!("{}/{name}", directory.display())).collect();
        let sightings = look(&patterns, &mut Troubles::default());
        sightings.iter().map(|seen| seen.path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn each_file_is_seen_once_and_directories_are_not() {
        let home = tempfile::tempdir().unwrap();
        for name in ["b.log", "a.log", "c[1].log", "c1.log"] {
            fs::write(home.path().join(name), name).unwrap();
        }
        fs::create_dir(home.path().join("d.log")).unwrap();
        std::os::unix::fs::symlink(home.path().join("a.log"), home.path().join("link.log")).unwrap();
        std::os::unix::fs::symlink(home.path().join("nowhere"), home.path().join("broken.log")).unwrap();
        assert_eq!(names(&["*.log", "a.log"], home.path()), ["a.log", "b.log", "c1.log", "c[1].log"]);
        assert_eq!(names(&["link.log"], home.path()), ["link.log"]);
        assert_eq!(names(&["c[1].log"], home.path()), ["c[1].log"], "the file itself, not the wildcard");
        assert_eq!(names(&["[ab].log", "missing"], home.path()), ["a.log", "b.log"]);
        assert!(parse_pattern("a***").is_err());
    }

    #[test]
    fn compressed_files_are_no_logs() {
        let home = tempfile::tempdir().unwrap();
        for name in ["log", "log.1.gz", "log.2.bz2", "log.3.xz", "log.4.zst", "log.5.ZIP", "gz"] {
            fs::write(home.path().join(name), name).unwrap();
        }
        assert_eq!(names(&["*"], home.path()), ["gz", "log"]);
        let mut troubles = Troubles::default();
        for news in [5, 0] {
            look(&[format!("{}/*", home.path().display())], &mut troubles);
            assert_eq!(troubles.take_news().len(), news);
        }
    }

    #[test]
    fn rotated_files_are_of_one_family() {
        for rotated in
            ["a/app.log.1", "a/app.log.10", "a/app.log-20261126", "a/app.log-20261126.2", "a/app.log.2026-11-26"]
        {
            assert_eq!(unrotated(rotated), "a/app.log", "{rotated}");
        }
        for own in ["a/app.log", "a/worker-1.log", "a/worker-1", "a/.1", "12", "a/1", "a.1/log", ""] {
            assert_eq!(unrotated(own), own);
        }
    }

    #[test]
    fn a_trouble_is_told_once_until_it_was_gone() {
        let mut troubles = Troubles::default();
        for expected in [1, 0] {
            troubles.note(Path::new("a"), "denied");
            troubles.note(Path::new("a"), "denied");
            assert_eq!(troubles.take_news().len(), expected);
        }
        assert!(troubles.take_news().is_empty());
        troubles.note(Path::new("a"), "denied");
        assert_eq!(troubles.take_news(), ["a: denied"]);
    }
}
