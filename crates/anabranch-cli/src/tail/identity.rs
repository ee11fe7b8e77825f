//! Which file it is, whatever it is called: device and inode, and how it begins.
//!
//! An inode alone is used again for other files, and keeps its number when its file is cut off; the first bytes tell. They also tell a copy from
//! a new file.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::keys::line_hash;

/// How much of a file's beginning tells it from others.
pub(crate) const HEAD_BYTES: usize = 1 << 10;

/// A file as the system knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FileId {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

impl FileId {
    /// The file that was looked at.
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// The file of this name, if it is this one. Else [`io::ErrorKind::NotFound`]: it is being renamed, and the next look finds where it is.
pub(crate) fn open_as(path: &Path, id: FileId) -> io::Result<File> {
    let file = File::open(path)?;
    if FileId::of(&file.metadata()?) != id {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(file)
}

/// The hash of a file's first bytes, of as many as there were: up to [`HEAD_BYTES`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fingerprint {
    pub(crate) bytes: usize,
    hash: String,
}

impl Fingerprint {
    /// Whether it covers all that it can: two files with one full fingerprint are taken for the same.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes == HEAD_BYTES
    }
}

/// The first bytes of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    bytes: Vec<u8>,
    fingerprint: Fingerprint,
}

impl Head {
    fn new(bytes: Vec<u8>) -> Self {
        let fingerprint = Fingerprint { bytes: bytes.len(), hash: line_hash(&bytes) };
        Self { bytes, fingerprint }
    }

    /// Reads it, as far as the file goes.
    pub(crate) fn read(file: &File) -> io::Result<Self> {
        let mut bytes = vec![0; HEAD_BYTES];
        let mut length = 0;
        while length < HEAD_BYTES {
            match file.read_at(&mut bytes[length..], length as u64) {
                Ok(0) => break,
                Ok(read) => length += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(length);
        Ok(Self::new(bytes))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether it tells the file from a later one of the same log: with a whole line, while many lines begin like half of one.
    pub(crate) fn is_telling(&self) -> bool {
        self.fingerprint.is_full() || self.bytes.contains(&b'\n')
    }

    pub(crate) fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// Whether a file that begins like this may be the one of that fingerprint.
    pub(crate) fn matches(&self, fingerprint: &Fingerprint) -> bool {
        if fingerprint.bytes == self.bytes.len() {
            return self.fingerprint == *fingerprint;
        }
        self.bytes.get(..fingerprint.bytes).is_some_and(|bytes| line_hash(bytes) == fingerprint.hash)
    }

    /// Whether a file that begins like this can grow into one that begins like `other`.
    pub(crate) fn is_beginning_of(&self, other: &Self) -> bool {
        other.bytes.starts_with(&self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Head {
        Head::new(text.as_bytes().to_vec())
    }

    #[test]
    fn a_file_that_grew_is_the_same_and_one_that_was_cut_off_is_not() {
        let first = head("one line\n");
        assert!(head("one line\nand more\n").matches(first.fingerprint()));
        assert!(first.matches(first.fingerprint()));
        assert!(!head("one").matches(first.fingerprint()));
        assert!(!head("two line\nand more\n").matches(first.fingerprint()));
        assert!(head("one").is_beginning_of(&first) && !head("two").is_beginning_of(&first));
        assert!(head("anything").matches(head("").fingerprint()), "of an empty file nothing is known");
    }

    #[test]
    fn heads_end_after_a_kibibyte() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        std::fs::write(&path, vec![b'x'; HEAD_BYTES + 5]).unwrap();
        let long = Head::read(&File::open(&path).unwrap()).unwrap();
        assert!(long.fingerprint().is_full());
        std::fs::write(&path, vec![b'x'; HEAD_BYTES - 1]).unwrap();
        let short = Head::read(&File::open(&path).unwrap()).unwrap();
        assert!(!short.fingerprint().is_full() && long.matches(short.fingerprint()));
        assert!(!short.matches(long.fingerprint()) && short.is_beginning_of(&long));
    }
}
