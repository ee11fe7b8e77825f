//! The operating system's files.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::{Access, DirEntry, LockGuard, Map, Storage, StorageFile};

/// The file systems of this machine.
///
/// Promises hold on local file systems: ext4, XFS, Btrfs, tmpfs (which forgets everything at power loss). None is made for NFS and other network
/// file systems.
#[derive(Debug, Default, Clone, Copy)]
pub struct Disk;

impl Storage for Disk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn create_file(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        Ok(Arc::new(DiskFile(file)))
    }

    fn open_file(&self, path: &Path, access: Access) -> io::Result<Arc<dyn StorageFile>> {
        let for_writing = access == Access::Write;
        let file = OpenOptions::new().read(true).write(for_writing).open(path)?;
        Ok(Arc::new(DiskFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string() {
                let is_dir = entry.file_type()?.is_dir();
                entries.push(DirEntry { name, is_dir });
            }
        }
        Ok(entries)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn LockGuard>>> {
        // The file is never deleted: two processes could each lock an inode of their own.
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(DiskLock { file, process: std::process::id() }))),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

/// An `flock` on an open file; the kernel drops it with the descriptor, however the process ends. It
/// belongs to the open file, not to the process, so a second open in the same process meets it too.
#[derive(Debug)]
struct DiskLock {
    file: File,
    process: u32,
}

impl Drop for DiskLock {
    /// Unlocks, not only closes: a process that another thread is just spawning holds a copy of the descriptor until it
    /// executes, and the lock would live as long. A fork that goes on must not unlock for its parent.
    fn drop(&mut self) {
        if self.process == std::process::id() {
            let _ = self.file.unlock(); // closing follows, and is as good where nobody has a copy
        }
    }
}

impl LockGuard for DiskLock {}

#[derive(Debug)]
struct DiskFile(File);

impl StorageFile for DiskFile {
    fn len(&self) -> io::Result<u64> {
        self.0.metadata().map(|metadata| metadata.len())
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.0.read_at(&mut buffer[filled..], position + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, position) // continues after short writes and EINTR
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        reserve(&self.0, len)
    }

    fn release(&self, range: Range<u64>) -> io::Result<()> {
        punch_hole(&self.0, range)
    }

    fn sync(&self) -> io::Result<()> {
        // `fdatasync` covers the length too: POSIX counts metadata that is needed to read the data.
        // Not retried on failure, whatever the error: the kernel may have dropped the pages.
        self.0.sync_data()
    }

    fn map(&self, len: u64) -> io::Result<Map> {
        if self.len()? < len {
            // Touching a page behind the end of the file would be a SIGBUS.
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than its map"));
        }
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        Map::of_file(&self.0, len)
    }
}

#[cfg(target_os = "linux")]
fn reserve(file: &File, len: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::Errno;
    loop {
        match fallocate(file, FallocateFlags::empty(), 0, len) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP) => return write_zeros(file, len),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn reserve(file: &File, len: u64) -> io::Result<()> {
    write_zeros(file, len)
}

/// Room the portable way: the blocks exist because something was written to them.
fn write_zeros(file: &File, len: u64) -> io::Result<()> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let mut position = file.metadata()?.len();
    while position < len {
        let count = (len - position).min(ZEROS.len() as u64);
        let zeros = ZEROS.get(..usize::try_from(count).unwrap_or(ZEROS.len())).unwrap_or(&ZEROS);
        file.write_all_at(zeros, position)?;
        position += zeros.len() as u64;
    }
    Ok(())
}

#[cfg(target_os = "linux")]
fn punch_hole(file: &File, range: Range<u64>) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    if range.is_empty() {
        return Ok(());
    }
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(fallocate(file, flags, range.start, range.end - range.start)?)
}

#[cfg(not(target_os = "linux"))]
fn punch_hole(_file: &File, _range: Range<u64>) -> io::Result<()> {
    Ok(())
}
