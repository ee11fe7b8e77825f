//! The two ways in which stored bytes let a reader down: the system refused, or the bytes are wrong.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::types::{SequenceNumber, ShardId};

/// Why an operation on files failed.
#[derive(Debug)]
pub enum Fault {
    /// A call of the operating system failed.
    Io {
        /// What was being done, as a short verb phrase.
        operation: &'static str,
        /// The file or directory it was done to.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Bytes on disk are not what was written.
    Corrupt(Box<Corruption>),
    /// The file is of a format version that this release does not know.
    UnsupportedVersion {
        /// The file.
        path: PathBuf,
        /// The version in the file.
        found: u32,
    },
}

impl Fault {
    /// For `map_err`: names the operation and the path of a failed call.
    /// Copies the path only of one that failed: puts pass by here.
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { operation, path: path.to_path_buf(), source }
    }

    /// Whether there is no file of this name: it may just have been removed.
    pub(crate) fn is_missing_file(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

impl From<Corruption> for Fault {
    fn from(corruption: Corruption) -> Self {
        Self::Corrupt(Box::new(corruption))
    }
}

/// Damage to a stream's files: where it is, what it affects, how it was noticed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Corruption {
    /// The damaged file or directory.
    pub path: PathBuf,
    /// The byte offset in the file at which the damage was noticed.
    pub offset: u64,
    /// The shard whose records are affected, if one is.
    pub shard_id: Option<ShardId>,
    /// The first sequence number that cannot be read because of it.
    pub first_sequence_number: Option<SequenceNumber>,
    /// The last sequence number that cannot be read because of it, where it is known.
    pub last_sequence_number: Option<SequenceNumber>,
    /// What is wrong.
    pub reason: String,
}

impl Corruption {
    pub(crate) fn new(path: &Path, offset: u64, reason: impl Into<String>) -> Self {
        Self {
            path: path.to_path_buf(),
            offset,
            shard_id: None,
            first_sequence_number: None,
            last_sequence_number: None,
            reason: reason.into(),
        }
    }

    pub(crate) fn of_shard(mut self, shard_id: ShardId) -> Self {
        self.shard_id = Some(shard_id);
        self
    }

    /// The records affected: from `first` on, up to `last` where that is known.
    pub(crate) fn of_records(mut self, first: SequenceNumber, last: Option<SequenceNumber>) -> Self {
        self.first_sequence_number = Some(first);
        self.last_sequence_number = last;
        self
    }
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: {}", self.path.display(), self.offset, self.reason)?;
        if let Some(shard_id) = self.shard_id {
            write!(f, "; {shard_id}")?;
        }
        match (self.first_sequence_number, self.last_sequence_number) {
            (Some(first), Some(last)) => write!(f, ", sequence numbers {first} to {last}"),
            (Some(first), None) => write!(f, ", sequence numbers from {first}"),
            _ => Ok(()),
        }
    }
}
