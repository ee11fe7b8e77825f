//! The one room that touches the operating system, and the only one with `unsafe`.
//!
//! Everything the library reads or writes goes through [`Storage`] and [`StorageFile`]. Two
//! implementations are part of the crate: [`Disk`], the operating system's files, and
//! [`SimulatedDisk`], a file system in memory that can lose power, tear sectors, fill up and fail.
//!
//! # What a storage promises
//!
//! The contract is what a local file system (ext4, XFS, Btrfs) gives, and no more:
//!
//! 1. When [`StorageFile::sync`] returns `Ok`, all that was written to the file before it, and its
//!    size, survive a power cut. A file's *name* survives once [`Storage::sync_dir`] of its directory
//!    returned `Ok`.
//! 2. A write changes no byte outside its range, whatever happens meanwhile.
//! 3. Nothing else. What was not synced may survive in part: 512-byte sectors in any subset,
//!    directory entries in any subset, old or new file size.
//!
//! # Maps
//!
//! [`StorageFile::map`] gives a read-only view that sees later writes. The library's protocol, on which
//! the soundness of `Map::bytes` rests: **bytes that were lent out are never written again**. A
//! segment is written by appending only; readers are told how far the published bytes reach and
//! borrow no byte past it; no file that was mapped is ever shortened. The simulated disk checks this on every
//! write. What no library can check is another program that changes the files of a live stream: as
//! for every memory-mapped store, that is undefined, and the lock keeps this crate's own writers apart.

mod contained;
mod disk;
mod fault;
mod map;
mod names;
mod process;
mod simulated;
mod staging;
mod whole;

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

pub(crate) use contained::Contained;
pub use disk::Disk;
pub use fault::{Corruption, Fault};
pub use map::Map;
pub(crate) use names::{list_if_there, make_directory, may_not_write, remove_if_there, sync_if_there};
pub(crate) use process::Process;
pub use simulated::{Crash, DiskFault, Operation, SimulatedDisk};
pub use staging::{Staging, StagingLayout, StagingSlot};
pub(crate) use whole::{read_whole, replace_whole, write_whole};

/// A file system, as far as the library needs one.
///
/// Errors are `io::Error`; of their kinds the library looks at `NotFound`, `AlreadyExists`,
/// `StorageFull` and `ReadOnlyFilesystem`. A call that panics counts as one that failed.
pub trait Storage: fmt::Debug + Send + Sync + 'static {
    /// Makes a directory. Its parent must exist; its name is durable after a sync of the parent.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Makes an empty file for reading and writing; fails with `AlreadyExists` if there is one.
    fn create_file(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>>;

    /// Opens an existing file.
    fn open_file(&self, path: &Path, access: Access) -> io::Result<Arc<dyn StorageFile>>;

    /// Renames a file or directory; a file that has the new name is replaced atomically.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file's name. Maps and open handles of it stay valid.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// The names in a directory, in no order.
    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Takes the exclusive lock of a file, which it creates if need be: nothing if somebody has it.
    /// The lock is held until the returned value is dropped or the process dies.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn LockGuard>>>;

    /// Whether a write-back that fails while no handle of a file is open is still reported by the next sync, through a handle that is opened
    /// then, as long as a [map](StorageFile::map) of the file is held. By default it is not said to be, and files are synced before they are closed.
    fn reports_late(&self) -> bool {
        false
    }

    /// Makes a file to stage records in: memory that survives the death of the process. Fails with `AlreadyExists` if there is a
    /// file. Nothing, as by default, where storing could end in a signal: then each record is written by a call of
    /// its own.
    fn create_staging(&self, path: &Path, layout: StagingLayout) -> io::Result<Option<Staging>> {
        let _ = (path, layout);
        Ok(None)
    }

    /// This storage as a writer of the directory at `path` uses it: paths below `path` lead into the directory that has the name
    /// now, whatever is moved to the name later. Nothing, as by default, if the storage cannot tell: then a
    /// directory must not be moved while it is written.
    fn anchor(&self, path: &Path) -> io::Result<Option<Arc<dyn Storage>>> {
        let _ = path;
        Ok(None)
    }
}

/// One open file. Reads and writes name their position; there is no cursor.
pub trait StorageFile: fmt::Debug + Send + Sync {
    /// The file's length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reads up to `buffer.len()` bytes from `position`; fewer only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;

    /// A position from which on something else than zeros may stand in the file; everything from `position` up to it is zeros,
    /// and is not worth a read. A hint: a storage that cannot tell says `position`, as by default. The file's end, or more,
    /// where nothing follows.
    fn data_from(&self, position: u64) -> io::Result<u64> {
        Ok(position)
    }

    /// Writes all of `bytes` at `position`, or fails; a failed write may have written a part.
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()>;

    /// Grows the file to `len` bytes of zeros with room reserved on the disk, so that a later write
    /// inside it does not run out of space. Running out of it is an error here.
    fn allocate(&self, len: u64) -> io::Result<()>;

    /// Gives the room of a range back to the disk; it reads as zeros from then on and the file's
    /// length stays. A hint: a storage may do nothing.
    fn release(&self, range: Range<u64>) -> io::Result<()>;

    /// Makes all bytes written so far, and the file's length, durable.
    fn sync(&self) -> io::Result<()>;

    /// As [`sync`](Self::sync), by one who knows that all that was written since the last sync stands in the place of bytes that a
    /// sync had made durable, in a file that has not grown: a disk may know a cheaper way.
    fn sync_in_place(&self) -> io::Result<()> {
        self.sync()
    }

    /// A read-only view of the first `len` bytes, which must exist. It sees later writes and
    /// outlives the handle and the file's name.
    fn map(&self, len: u64) -> io::Result<Map>;

    /// Takes the exclusive lock of the file for this handle; whether it has it now. Handles exclude each other, in this process and in others,
    /// and a lock dies with its handle and with its process. It is no part of the file: reads and writes do not ask for it.
    ///
    /// By default it is `Unsupported`; then the stream has no consumers.
    fn try_lock(&self) -> io::Result<bool> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Gives the lock back.
    fn unlock(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// For reading.
    Read,
    /// For reading and writing.
    Write,
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// The name, without the directory. Names that are not UTF-8 are left out of listings: none of ours are.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// A held lock: dropping it releases it.
pub trait LockGuard: fmt::Debug + Send + Sync {}
