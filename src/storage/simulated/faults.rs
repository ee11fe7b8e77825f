//! Faults that a test plans ahead, and the count of calls by which it does so.

use std::collections::BTreeMap;
use std::io;

/// The kinds of calls that a [`SimulatedDisk`](super::SimulatedDisk) counts and can fail: the
/// methods of [`Storage`](crate::storage::Storage) and [`StorageFile`](crate::storage::StorageFile).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// `Storage::create_dir`.
    CreateDir,
    /// `Storage::create_file`.
    CreateFile,
    /// `Storage::open_file`.
    OpenFile,
    /// `Storage::rename`.
    Rename,
    /// `Storage::remove_file`.
    RemoveFile,
    /// `Storage::remove_dir`.
    RemoveDir,
    /// `Storage::list`.
    List,
    /// `Storage::sync_dir`.
    SyncDir,
    /// `Storage::lock`, and `StorageFile::try_lock`.
    Lock,
    /// `StorageFile::len`, and `is_empty`, which calls it.
    Len,
    /// `StorageFile::read_at`.
    Read,
    /// `StorageFile::write_at`.
    Write,
    /// `StorageFile::allocate`.
    Allocate,
    /// `StorageFile::release`.
    Release,
    /// `StorageFile::sync`.
    Sync,
    /// `StorageFile::map`.
    Map,
    /// `Storage::create_staging`.
    CreateStaging,
    /// A store into a [`Staging`](crate::storage::Staging) file. It is no call on a real disk and cannot fail there, so only a power cut strikes it;
    /// another fault that is due here strikes the next call.
    Stage,
}

/// What goes wrong with a call that was chosen to fail.
///
/// The call does nothing, with two exceptions: a write may do a part, and a failed `sync` of a file
/// does what it does on Linux. The bytes that it should have made durable stay readable but count as
/// clean from then on: a later sync that succeeds does not make them durable, only writing them again
/// and syncing that does. A failed `sync_dir` can be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DiskFault {
    /// The call fails, once.
    Error(io::ErrorKind),
    /// The call fails, and so does each later one that the fault was planned for.
    ErrorFromThenOn(io::ErrorKind),
    /// A write stores the first half of its bytes and fails; any other call just fails. Once.
    ShortWrite,
    /// The call panics, as that of a faulty storage might, without a word on standard error; a write when it has stored the first half of its bytes. Once.
    Panic,
    /// The machine goes off in the middle of the call. A write may be in part on the medium; any
    /// other call has not happened. All later calls fail until the test restarts the machine with
    /// [`SimulatedDisk::crash`](super::SimulatedDisk::crash).
    PowerCut,
}

impl DiskFault {
    /// What the call gives, if it gives anything.
    pub(super) fn error(self) -> io::Error {
        match self {
            Self::Error(kind) | Self::ErrorFromThenOn(kind) => {
                io::Error::new(kind, "a planned fault of the simulated disk")
            }
            Self::ShortWrite => io::Error::new(io::ErrorKind::WriteZero, "a planned short write"),
            Self::Panic => std::panic::resume_unwind(Box::new("a planned panic")),
            Self::PowerCut => io::Error::other("the simulated machine is off"),
        }
    }

    /// How much of a write of `len` bytes happens.
    pub(super) fn written(self, len: usize) -> usize {
        match self {
            Self::Error(_) | Self::ErrorFromThenOn(_) => 0,
            Self::ShortWrite | Self::Panic => len / 2,
            // All of it reached the system; the power loss that follows takes any part of it.
            Self::PowerCut => len,
        }
    }
}

/// The calls so far, and the faults to come.
#[derive(Debug, Default)]
pub(super) struct Faults {
    counts: BTreeMap<Operation, u64>,
    planned: Vec<Planned>,
    power_is_cut: bool,
}

#[derive(Debug)]
struct Planned {
    operation: Option<Operation>,
    calls_before: u64,
    fault: DiskFault,
}

impl Faults {
    pub(super) fn plan(&mut self, operation: Option<Operation>, nth: u64, fault: DiskFault) {
        self.planned.push(Planned { operation, calls_before: nth, fault });
    }

    pub(super) fn clear(&mut self) {
        self.planned.clear();
    }

    pub(super) fn count(&self) -> u64 {
        self.counts.values().sum()
    }

    pub(super) fn count_of(&self, operation: Operation) -> u64 {
        self.counts.get(&operation).copied().unwrap_or(0)
    }

    pub(super) fn power_is_cut(&self) -> bool {
        self.power_is_cut
    }

    /// Counts a call, and says what goes wrong with it. Of faults due at the same call, the one
    /// planned first happens.
    pub(super) fn strike(&mut self, operation: Operation) -> Option<DiskFault> {
        *self.counts.entry(operation).or_default() += 1;
        let mut struck = None;
        self.planned.retain_mut(|planned| {
            if planned.operation.is_some_and(|only| only != operation) {
                return true;
            }
            if let Some(before) = planned.calls_before.checked_sub(1) {
                planned.calls_before = before;
                return true;
            }
            if operation == Operation::Stage && planned.fault != DiskFault::PowerCut {
                return true;
            }
            struck = struck.or(Some(planned.fault));
            matches!(planned.fault, DiskFault::ErrorFromThenOn(_))
        });
        self.power_is_cut |= struck == Some(DiskFault::PowerCut);
        struck
    }
}
