//! The operating system's files.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};

use super::{Access, DirEntry, LockGuard, Map, Process, Staging, StagingLayout, Storage, StorageFile};

/// The file systems of this machine.
///
/// Promises hold on local file systems: ext4, XFS, Btrfs, tmpfs (which forgets everything at power loss). None is made for NFS and other network
/// file systems.
#[derive(Debug, Default, Clone, Copy)]
pub struct Disk;

impl Storage for Disk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        Place::of(path).create_dir()
    }

    fn create_file(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        Place::of(path).create_file()
    }

    fn open_file(&self, path: &Path, access: Access) -> io::Result<Arc<dyn StorageFile>> {
        Place::of(path).open_file(access)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Place::of(from).rename(&Place::of(to))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        Place::of(path).remove(AtFlags::empty())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        Place::of(path).remove(AtFlags::REMOVEDIR)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        Place::of(path).list()
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        Place::of(path).sync_dir()
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn LockGuard>>> {
        Place::of(path).lock()
    }

    /// On Linux the map keeps the inode, and with it the mark of an error that nobody was told of; who opens the file next is told at
    /// its first sync (`errseq_sample` in the kernel's `lib/errseq.c`, since 4.17).
    fn reports_late(&self) -> bool {
        cfg!(target_os = "linux")
    }

    fn create_staging(&self, path: &Path, layout: StagingLayout) -> io::Result<Option<Staging>> {
        Place::of(path).create_staging(layout)
    }

    fn anchor(&self, path: &Path) -> io::Result<Option<Arc<dyn Storage>>> {
        let root = Place::of(path).open_directory()?;
        Ok(Some(Arc::new(AnchoredDisk { path: path.to_path_buf(), root })))
    }
}

/// The disk as seen from one open directory: paths that start with `path` lead there, wherever it was moved.
#[derive(Debug)]
struct AnchoredDisk {
    path: PathBuf,
    root: File,
}

impl AnchoredDisk {
    fn place<'a>(&'a self, path: &'a Path) -> Place<'a> {
        match path.strip_prefix(&self.path) {
            Ok(below) if below.as_os_str().is_empty() => Place { start: self.root.as_fd(), path: Path::new(".") },
            Ok(below) => Place { start: self.root.as_fd(), path: below },
            Err(_) => Place::of(path),
        }
    }
}

impl Storage for AnchoredDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.place(path).create_dir()
    }

    fn create_file(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        self.place(path).create_file()
    }

    fn open_file(&self, path: &Path, access: Access) -> io::Result<Arc<dyn StorageFile>> {
        self.place(path).open_file(access)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.place(from).rename(&self.place(to))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.place(path).remove(AtFlags::empty())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.place(path).remove(AtFlags::REMOVEDIR)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.place(path).list()
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.place(path).sync_dir()
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn LockGuard>>> {
        self.place(path).lock()
    }

    fn reports_late(&self) -> bool {
        Disk.reports_late()
    }

    fn create_staging(&self, path: &Path, layout: StagingLayout) -> io::Result<Option<Staging>> {
        self.place(path).create_staging(layout)
    }
}

/// A path, from an open directory on. Calls that a signal interrupts are made again; syncs are not.
struct Place<'a> {
    start: BorrowedFd<'a>,
    path: &'a Path,
}

impl<'a> Place<'a> {
    /// From the working directory on.
    fn of(path: &'a Path) -> Self {
        Self { start: CWD, path }
    }

    fn open(&self, flags: OFlags) -> io::Result<File> {
        let mode = Mode::from_raw_mode(0o666); // less the process' umask
        let opened = retry_on_intr(|| rustix::fs::openat(self.start, self.path, flags | OFlags::CLOEXEC, mode));
        Ok(opened?.into())
    }

    fn open_directory(&self) -> io::Result<File> {
        self.open(OFlags::RDONLY | OFlags::DIRECTORY)
    }

    fn create_dir(&self) -> io::Result<()> {
        let mode = Mode::from_raw_mode(0o777);
        Ok(retry_on_intr(|| rustix::fs::mkdirat(self.start, self.path, mode))?)
    }

    fn create_file(&self) -> io::Result<Arc<dyn StorageFile>> {
        Ok(Arc::new(DiskFile(self.open(OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)?)))
    }

    fn create_staging(&self, layout: StagingLayout) -> io::Result<Option<Staging>> {
        let file = self.open(OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)?;
        if !keeps_its_room(&file)? {
            self.remove(AtFlags::empty())?;
            return Ok(None);
        }
        let pages = memmap2::MmapOptions::new().len(layout.bytes()?).map_raw(&file)?;
        Ok(Some(Staging::of_file(Arc::new(DiskFile(file)), pages, layout)))
    }

    fn open_file(&self, access: Access) -> io::Result<Arc<dyn StorageFile>> {
        let flags = if access == Access::Write { OFlags::RDWR } else { OFlags::RDONLY };
        // Of no consequence to a file; a pipe in its place would be waited for without it.
        Ok(Arc::new(DiskFile(self.open(flags | OFlags::NONBLOCK)?)))
    }

    fn rename(&self, to: &Self) -> io::Result<()> {
        Ok(retry_on_intr(|| rustix::fs::renameat(self.start, self.path, to.start, to.path))?)
    }

    fn remove(&self, flags: AtFlags) -> io::Result<()> {
        Ok(retry_on_intr(|| rustix::fs::unlinkat(self.start, self.path, flags))?)
    }

    fn list(&self) -> io::Result<Vec<DirEntry>> {
        let mut names = Dir::new(self.open_directory()?)?;
        let mut entries = Vec::new();
        while let Some(entry) = names.read() {
            let entry = entry?;
            let name = entry.file_name();
            let Ok(text) = std::str::from_utf8(name.to_bytes()) else { continue };
            if text == "." || text == ".." {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => kind_of(names.fd()?, name)?,
                known => known,
            };
            entries.push(DirEntry { name: text.to_owned(), is_dir: kind == FileType::Directory });
        }
        Ok(entries)
    }

    fn sync_dir(&self) -> io::Result<()> {
        let directory = self.open(OFlags::RDONLY)?;
        sync_all(&directory)?;
        still_changeable(&directory)
    }

    fn lock(&self) -> io::Result<Option<Box<dyn LockGuard>>> {
        let file = self.open(OFlags::RDWR | OFlags::CREATE)?;
        let Some(file) = HeldLock::take(file)? else { return Ok(None) };
        // A lock file can be deleted under its holder, and the next one would lock a file of its own. The directory cannot.
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = Self { start: self.start, path: parent.unwrap_or(Path::new(".")) }.open_directory()?;
        let Some(directory) = HeldLock::take(directory)? else { return Ok(None) };
        Ok(Some(Box::new(DiskLock { _file: file, _directory: directory })))
    }
}

/// For file systems whose listings do not say what a name is.
fn kind_of(directory: BorrowedFd<'_>, name: &CStr) -> io::Result<FileType> {
    let stat = retry_on_intr(|| rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW))?;
    Ok(FileType::from_raw_mode(stat.st_mode))
}

/// The locks of a file and of the directory that it is in.
#[derive(Debug)]
struct DiskLock {
    _file: HeldLock,
    _directory: HeldLock,
}

impl LockGuard for DiskLock {}

/// An `flock` on an open file; the kernel drops it with the descriptor, however the process ends. It
/// belongs to the open file, not to the process, so a second open in the same process meets it too.
#[derive(Debug)]
struct HeldLock {
    file: File,
    process: Process,
}

impl HeldLock {
    fn take(file: File) -> io::Result<Option<Self>> {
        Ok(try_lock(&file)?.then(|| Self { file, process: Process::this() }))
    }
}

fn try_lock(file: &File) -> io::Result<bool> {
    match retry_on_intr(|| rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive)) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

impl Drop for HeldLock {
    /// Unlocks, not only closes: a process that another thread is just spawning holds a copy of the descriptor until it
    /// executes, and the lock would live as long. A fork that goes on must not unlock for its parent.
    fn drop(&mut self) {
        if self.process.is_this() {
            let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock); // closing follows, and is as good
        }
    }
}

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

    fn data_from(&self, position: u64) -> io::Result<u64> {
        Ok(first_data(&self.0, position))
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
        // Not retried on failure, whatever the error: the kernel may have dropped the pages. (`File::sync_data` would retry EINTR.)
        sync_data(&self.0)?;
        still_changeable(&self.0)
    }

    fn sync_in_place(&self) -> io::Result<()> {
        // Such a sync waits for no commit of the journal, whose failure could be kept from it. Where that cannot be asked it is a whole one.
        if overwrites_in_place(&self.0).unwrap_or(false) { sync_data(&self.0) } else { self.sync() }
    }

    fn map(&self, len: u64) -> io::Result<Map> {
        if self.len()? < len {
            // Touching a page behind the end of the file would be a SIGBUS.
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than its map"));
        }
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        Map::of_file(&self.0, len)
    }

    fn try_lock(&self) -> io::Result<bool> {
        try_lock(&self.0)
    }

    fn unlock(&self) -> io::Result<()> {
        Ok(retry_on_intr(|| rustix::fs::flock(&self.0, FlockOperation::Unlock))?)
    }
}

#[cfg(target_os = "linux")]
fn sync_data(file: &File) -> io::Result<()> {
    Ok(rustix::fs::fdatasync(file)?)
}

#[cfg(target_os = "linux")]
fn sync_all(file: &File) -> io::Result<()> {
    Ok(rustix::fs::fsync(file)?)
}

/// Elsewhere it may take more than the call of this name to reach the medium, and the standard library knows what.
#[cfg(not(target_os = "linux"))]
fn sync_data(file: &File) -> io::Result<()> {
    file.sync_data()
}

#[cfg(not(target_os = "linux"))]
fn sync_all(file: &File) -> io::Result<()> {
    file.sync_all()
}

/// Whether the file system of a file that was synced just now still takes changes: unless it does, the sync's success means nothing.
///
/// On Linux a sync can succeed though what it was to make durable is lost. Several syncs wait for one commit of the file system's journal; if that
/// fails, the journal is stopped for good and some of the waiters get the error, but who comes to look when
/// the commit has just ended finds nothing left to wait for: success. `.ci/disks` shows it for ext4 and XFS. By
/// then the file system knows that it must not be changed any more, and says so to who changes something: here, the file's times. ext4
/// notices when the first change is made, which it still lets pass, and refuses the second.
///
/// The calls are short, but they leave a change behind, and the next sync takes a third longer for it (178 us in place of 131, ext4 without
/// a journal, Linux 6.18, `cargo bench --bench kernel`). A sync that has nothing to do with the journal goes without: [`StorageFile::sync_in_place`].
#[cfg(target_os = "linux")]
fn still_changeable(file: &File) -> io::Result<()> {
    use rustix::fs::{Timespec, Timestamps, UTIME_NOW, futimens};
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    // Both times, since that is what takes no more than the permission to write.
    let touch = || futimens(file, &Timestamps { last_access: now, last_modification: now });
    match touch().and_then(|()| touch()) {
        Err(error @ (Errno::IO | Errno::ROFS | Errno::UCLEAN)) => Err(error.into()),
        _ => Ok(()), // a refusal for another reason says nothing of the journal
    }
}

#[cfg(not(target_os = "linux"))]
fn still_changeable(_file: &File) -> io::Result<()> {
    Ok(())
}

#[cfg(target_os = "linux")]
const EXT4: u64 = 0xef53;
#[cfg(target_os = "linux")]
const XFS: u64 = 0x5846_5342;
#[cfg(target_os = "linux")]
const TMPFS: u64 = 0x0102_1994;

/// Which file system a file is on.
#[cfg(target_os = "linux")]
fn file_system(file: &File) -> io::Result<u64> {
    // The type's width and sign differ between architectures.
    #[allow(clippy::cast_sign_loss, clippy::unnecessary_cast, reason = "magic numbers of 32 bits")]
    Ok(rustix::fs::fstatfs(file)?.f_type as u64 & 0xffff_ffff)
}

/// Whether what is written again goes to the same blocks without a note in the journal. Only file systems that are known are trusted, and only
/// files that offer direct I/O: ext4 has none for those whose data go through its journal. (XFS writes blocks elsewhere that a copy
/// shares, and cannot be asked: a live segment must not be cloned, as it must not be written to by others.)
#[cfg(target_os = "linux")]
fn overwrites_in_place(file: &File) -> io::Result<bool> {
    use rustix::fs::{StatxFlags, statx};
    if !matches!(file_system(file)?, EXT4 | XFS) {
        return Ok(false);
    }
    let stat = statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)?;
    Ok(stat.stx_mask & StatxFlags::DIOALIGN.bits() != 0 && stat.stx_dio_offset_align != 0)
}

#[cfg(not(target_os = "linux"))]
fn overwrites_in_place(_file: &File) -> io::Result<bool> {
    Ok(false)
}

/// Whether the room of a new file, once reserved, is there for every later store: a file system that writes elsewhere what is written
/// again may have none left then, and a store into a map cannot be told but by a signal. Only file systems that are known are trusted. Btrfs is not, also without
/// copying on write: behind a snapshot it copies all the same, and older kernels want room for a store into a map in any case.
#[cfg(target_os = "linux")]
fn keeps_its_room(file: &File) -> io::Result<bool> {
    Ok(matches!(file_system(file)?, EXT4 | XFS | TMPFS))
}

#[cfg(not(target_os = "linux"))]
fn keeps_its_room(_file: &File) -> io::Result<bool> {
    Ok(false)
}

#[cfg(target_os = "linux")]
fn reserve(file: &File, len: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
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

/// Reserved room that was never written is a hole to the file system, which knows its pages in memory too.
#[cfg(target_os = "linux")]
fn first_data(file: &File, position: u64) -> u64 {
    use rustix::fs::{SeekFrom, seek};
    match seek(file, SeekFrom::Data(position)) {
        Ok(data) => data.max(position),
        Err(Errno::NXIO) => u64::MAX,
        Err(_) => position, // it cannot tell
    }
}

#[cfg(not(target_os = "linux"))]
fn first_data(_file: &File, position: u64) -> u64 {
    position
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A page behind the end of the file is a signal to who touches it.
    #[test]
    fn no_map_reaches_past_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = Disk.create_file(&directory.path().join("file")).unwrap();
        file.write_at(&[7; 100], 0).unwrap();
        assert_eq!(file.map(100).unwrap().bytes(0..100), Some(&[7; 100][..]));
        assert_eq!(file.map(101).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    /// What is asked behind a whole sync leaves its mark in the file's times, which tells it from one in place. Where that may be done is known of ext4
    /// and XFS only; the file system in memory, which has no journal, stands for all others.
    #[cfg(target_os = "linux")]
    #[test]
    #[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
    fn a_sync_in_place_is_a_whole_one_where_that_is_not_known_to_be_enough() {
        use std::time::SystemTime;

        let Ok(directory) = tempfile::tempdir_in("/dev/shm") else {
            return eprintln!("skipped: there is no /dev/shm");
        };
        let path = directory.path().join("file");
        let file = Disk.create_file(&path).unwrap();
        if file_system(&File::open(&path).unwrap()).unwrap() != TMPFS {
            return eprintln!("skipped: /dev/shm is no tmpfs");
        }
        for sync in [StorageFile::sync, StorageFile::sync_in_place] {
            File::options().write(true).open(&path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
            sync(file.as_ref()).unwrap();
            assert_ne!(std::fs::metadata(&path).unwrap().modified().unwrap(), SystemTime::UNIX_EPOCH);
        }
    }
}
