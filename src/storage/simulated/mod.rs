//! A file system in memory that loses power, tears sectors, fills up, fails and stalls on demand.
//!
//! This file owns [`SimulatedDisk`], its public face. Beneath it `tree` knows paths and inodes,
//! `directory` and `contents` know what of names and bytes is durable, `crash` chooses what survives,
//! `faults` counts calls and strikes them, `file` is what an open file is, `buffer` is the memory
//! that maps point into.

mod buffer;
mod contents;
mod crash;
mod directory;
mod faults;
mod file;
mod history;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::limits::SLOT_UNIT_BYTES;
use crate::sync::{Condvar, Mutex, MutexGuard};

pub(super) use buffer::SharedBuffer;
pub use crash::Crash;
pub use faults::{DiskFault, Operation};
pub(super) use file::SimulatedFile;

use super::{Access, DirEntry, LockGuard, Staging, StagingLayout, Storage, StorageFile};
use faults::Faults;
use file::SimulatedLock;
use tree::{InodeId, Tree};

/// A disk in memory that a test can crash, fill up, damage, stall and let fail.
///
/// A stream on a simulated disk is an in-memory stream: it needs no directory, leaves nothing behind,
/// and does what it does on a real disk, through the same code. What a real disk shows once in years
/// it shows on request. Handles are cheap to clone and share one disk. Paths are those of a disk of its own,
/// whose root exists; relative paths start at the root, so `clicks` and `/clicks` are the same.
///
/// # Crashes
///
/// [`crash`](Self::crash) is the end of a program: it gives the disk that the next one finds, and all
/// calls through the old disk and its open files fail from then on, so threads that the test forgot
/// change nothing. [`fork`](Self::fork) gives the same and leaves the old disk running: one history
/// can be cut into thousands of states at any of its points.
///
/// ```
/// use anabranch::storage::{Crash, SimulatedDisk, Storage, StorageFile};
/// use std::path::Path;
///
/// let disk = SimulatedDisk::new();
/// let file = disk.create_file(Path::new("journal"))?;
/// file.write_at(b"synced, ", 0)?;
/// file.sync()?;
/// disk.sync_dir(Path::new("/"))?; // without it, the file itself may be gone
/// file.write_at(b"not synced", 8)?;
///
/// let journal_after = |crash| disk.fork(crash).read_file(Path::new("journal"));
/// assert_eq!(journal_after(Crash::ProcessKilled)?, b"synced, not synced");
/// for seed in 0..100 {
///     let journal = journal_after(Crash::PowerLost { seed })?;
///     assert!(journal.starts_with(b"synced, ")); // the rest: there, in part, or not at all
/// }
///
/// let restarted = disk.crash(Crash::PowerLost { seed: 7 });
/// assert!(file.write_at(b"!", 0).is_err()); // the machine that this file was open on is gone
/// assert!(restarted.read_file(Path::new("journal"))?.len() >= 8);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// After [`Crash::ProcessKilled`] every byte written is there. After [`Crash::PowerLost`] there is what
/// was synced, and of the rest anything that a careless but legal disk and file system may leave:
///
/// - Each 512-byte sector has its durable bytes or those after any write to it since; the newest may be
///   torn, at a multiple of 8 bytes, with older ones on the other side of the tear. No byte changes that was
///   not written.
/// - The file has its durable size or any it had since, whatever became of its sectors. What lies
///   behind a smaller size is lost; what a larger size adds is zeros until it is written.
/// - Of what was done to the names in a directory since its last `sync_dir`, any subset happened. A
///   rename inside one directory is one such step: the new name leads to the old file or to the new
///   one. A rename between two directories is two steps, one in each.
/// - Closing a file makes nothing durable, and neither does syncing a file for its name.
///
/// The seed chooses; the same history and seed give the same state. Some seeds keep everything, some
/// nothing that was not synced, and most something in between for each file.
///
/// # Faults
///
/// Each call of [`Storage`] and [`StorageFile`] counts as one operation, and can be made to fail with
/// [`fail_at`](Self::fail_at) and [`fail_on`](Self::fail_on). To try a program against every single
/// failure, let the first call fail, then the second, and so on, until a run has fewer calls than that:
///
/// ```
/// use anabranch::storage::{Crash, DiskFault, SimulatedDisk, Storage, StorageFile};
/// use std::io;
/// use std::path::Path;
///
/// fn program(disk: &SimulatedDisk) -> io::Result<()> {
///     let file = disk.create_file(Path::new("new"))?;
///     file.write_at(b"whole", 0)?;
///     file.sync()?;
///     disk.rename(Path::new("new"), Path::new("value"))?;
///     disk.sync_dir(Path::new("/"))
/// }
///
/// for nth in 0.. {
///     let disk = SimulatedDisk::new();
///     disk.fail_at(nth, DiskFault::PowerCut);
///     let outcome = program(&disk);
///     let restarted = disk.crash(Crash::PowerLost { seed: 1 });
///     match restarted.read_file(Path::new("value")) {
///         Ok(value) => assert_eq!(value, b"whole"),
///         Err(error) => assert!(outcome.is_err() && error.kind() == io::ErrorKind::NotFound),
///     }
///     if outcome.is_ok() {
///         break;
///     }
/// }
/// # Ok::<(), io::Error>(())
/// ```
///
/// # Damage
///
/// [`read_file`](Self::read_file) and [`damage`](Self::damage) are for the test itself: they count as no
/// operation and meet no fault.
#[derive(Clone)]
pub struct SimulatedDisk {
    shared: Arc<Shared>,
}

/// What all handles of a disk share.
struct Shared {
    state: Mutex<State>,
    /// Notified when stalled syncs may go on, or never will.
    stall_ended: Condvar,
}

struct State {
    tree: Tree,
    locks: BTreeSet<InodeId>,
    faults: Faults,
    syncs_are_stalled: bool,
    has_crashed: bool,
}

impl SimulatedDisk {
    /// An empty disk of unlimited capacity.
    pub fn new() -> Self {
        Self::of(Tree::new())
    }

    /// Ends this disk and gives the one that the next program finds.
    ///
    /// From now on every call through this disk's handles, its open files and its clones fails. The
    /// new disk has no locks, no open files, no planned faults, no stall, and the same capacity.
    #[must_use = "the disk after the crash is what the next program finds"]
    pub fn crash(&self, crash: Crash) -> Self {
        let mut state = self.shared.state.lock();
        state.has_crashed = true;
        self.shared.stall_ended.notify_all();
        Self::of(state.tree.after(crash))
    }

    /// Gives the disk that would be found after a crash at this point, as [`crash`](Self::crash)
    /// does, but leaves this one running.
    #[must_use = "the disk after the crash is what the next program finds"]
    pub fn fork(&self, crash: Crash) -> Self {
        Self::of(self.shared.state.lock().tree.after(crash))
    }

    /// Plans a fault for the `nth` operation from now; 0 is the next one.
    ///
    /// Faults planned before stay planned. Of two that are due at the same operation the one planned
    /// first happens.
    pub fn fail_at(&self, nth: u64, fault: DiskFault) {
        self.shared.state.lock().faults.plan(None, nth, fault);
    }

    /// Plans a fault for the `nth` operation of one kind from now; 0 is the next one of that kind.
    pub fn fail_on(&self, operation: Operation, nth: u64, fault: DiskFault) {
        let mut state = self.shared.state.lock();
        state.faults.plan(Some(operation), nth, fault);
    }

    /// Forgets the planned faults. A power cut that has happened stays.
    pub fn clear_faults(&self) {
        self.shared.state.lock().faults.clear();
    }

    /// How many operations there were, failed ones included, until the machine went off.
    pub fn operations(&self) -> u64 {
        self.shared.state.lock().faults.count()
    }

    /// How many operations of one kind there were.
    pub fn operations_of(&self, operation: Operation) -> u64 {
        self.shared.state.lock().faults.count_of(operation)
    }

    /// Sets how many bytes all files together may take; `None` for no limit.
    ///
    /// Running out of it is `StorageFull`: from `allocate`, from a `write_at`, which writes what fits,
    /// and, on a disk that is full to the last byte, from making a file or directory. Allocated bytes take room
    /// whether written or not; 4 KiB blocks that were released take none.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.shared.state.lock().tree.set_capacity(bytes);
    }

    /// How many bytes all files together take, removed ones that are still open included.
    pub fn used_bytes(&self) -> u64 {
        self.shared.state.lock().tree.used_bytes()
    }

    /// While `true`, calls of `sync` and `sync_dir` wait: a disk that is busy for a long time.
    ///
    /// A call counts as an operation before it waits, so a test can tell by
    /// [`operations_of`](Self::operations_of) that it does. What is written meanwhile is not covered
    /// by the waiting sync. If the disk crashes, the waiting calls fail.
    pub fn stall_syncs(&self, stalled: bool) {
        self.shared.state.lock().syncs_are_stalled = stalled;
        self.shared.stall_ended.notify_all();
    }

    /// A file's bytes, as the running program sees them.
    pub fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.shared.inspect()?;
        let inode = state.tree.find(path)?;
        Ok(state.tree.file(inode)?.read_all())
    }

    /// Changes a file's bytes at rest, its length too if `change` does: bit rot, lost sectors, an older copy.
    ///
    /// What is left is durable at once. Maps that exist keep what they show and see no later writes:
    /// damage a disk that no program is using.
    ///
    /// ```
    /// use anabranch::storage::{SimulatedDisk, Storage, StorageFile};
    /// use std::path::Path;
    ///
    /// let disk = SimulatedDisk::new();
    /// let path = Path::new("segment");
    /// disk.create_file(path)?.write_at(&[0b1000; 3], 0)?;
    /// disk.damage(path, |bytes| bytes[1] ^= 1)?;
    /// assert_eq!(disk.read_file(path)?, [0b1000, 0b1001, 0b1000]);
    /// disk.damage(path, |bytes| bytes.truncate(1))?;
    /// assert_eq!(disk.read_file(path)?.len(), 1);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let mut bytes = self.read_file(path)?;
        change(&mut bytes);
        let mut state = self.shared.inspect()?;
        let inode = state.tree.find(path)?;
        state.tree.file_mut(inode)?.replace(&bytes);
        Ok(())
    }

    /// Makes the sectors of a range of a file unreadable: every [`read_at`](crate::storage::StorageFile::read_at) that touches them fails, until the file is
    /// [damaged](Self::damage), which replaces it, or removed. Maps still show the bytes (a real one would end in a signal).
    pub fn make_unreadable(&self, path: &Path, range: std::ops::Range<usize>) -> io::Result<()> {
        let mut state = self.shared.inspect()?;
        let inode = state.tree.find(path)?;
        state.tree.file_mut(inode)?.make_unreadable(range);
        Ok(())
    }

    /// Copies the directory `from` of this disk into the directory `to` of the real one, which is
    /// made if need be: to look at a state with other tools.
    pub fn export(&self, from: &Path, to: &Path) -> io::Result<()> {
        for (path, contents) in self.tree_below(from)? {
            let path = to.join(path);
            match contents {
                Some(bytes) => fs::write(path, bytes)?,
                None => fs::create_dir_all(path)?,
            }
        }
        Ok(())
    }

    fn of(tree: Tree) -> Self {
        let state = State {
            tree,
            locks: BTreeSet::new(),
            faults: Faults::default(),
            syncs_are_stalled: false,
            has_crashed: false,
        };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), stall_ended: Condvar::new() }) }
    }

    /// Everything in a directory, itself first, by paths relative to it; directories have no bytes.
    fn tree_below(&self, top: &Path) -> io::Result<Vec<(PathBuf, Option<Vec<u8>>)>> {
        let state = self.shared.inspect()?;
        let mut found = Vec::new();
        let mut pending = vec![(PathBuf::new(), state.tree.find(top)?)];
        while let Some((path, inode)) = pending.pop() {
            let children = state.tree.directory(inode)?.entries();
            found.push((path.clone(), None));
            for (name, child) in children {
                match state.tree.file(child) {
                    Ok(file) => found.push((path.join(name), Some(file.read_all()))),
                    Err(_) => pending.push((path.join(name), child)),
                }
            }
        }
        Ok(found)
    }

    /// A handle of a file for the caller of this disk.
    fn open(&self, state: &mut State, inode: InodeId, access: Access) -> Arc<dyn StorageFile> {
        state.tree.open(inode);
        Arc::new(SimulatedFile::new(Arc::clone(&self.shared), inode, access))
    }
}

impl Storage for SimulatedDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.shared.call(Operation::CreateDir)?.tree.create_dir(path)
    }

    fn create_file(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        let mut state = self.shared.call(Operation::CreateFile)?;
        let inode = state.tree.create_file(path)?;
        Ok(self.open(&mut state, inode, Access::Write))
    }

    fn open_file(&self, path: &Path, access: Access) -> io::Result<Arc<dyn StorageFile>> {
        let mut state = self.shared.call(Operation::OpenFile)?;
        let inode = state.tree.find(path)?;
        state.tree.file(inode)?;
        Ok(self.open(&mut state, inode, access))
    }

    fn reports_late(&self) -> bool {
        true
    }

    fn create_staging(&self, path: &Path, layout: StagingLayout) -> io::Result<Option<Staging>> {
        // The shortest slots there are: a history of a few records then fills some.
        let layout = StagingLayout { slot_bytes: layout.slot_bytes.min(SLOT_UNIT_BYTES), ..layout };
        let mut state = self.shared.call(Operation::CreateStaging)?;
        let inode = state.tree.create_file(path)?;
        state.tree.open(inode);
        let file = Arc::new(SimulatedFile::new(Arc::clone(&self.shared), inode, Access::Write));
        Ok(Some(Staging::of_simulated(file, layout)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.shared.call(Operation::Rename)?.tree.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.shared.call(Operation::RemoveFile)?.tree.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.shared.call(Operation::RemoveDir)?.tree.remove_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.shared.call(Operation::List)?.tree.list(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.shared.call(Operation::SyncDir)?;
        let inode = state.tree.find(path)?;
        let started = state.tree.directory(inode)?.start_sync();
        self.shared.wait_while_stalled(&mut state)?;
        state.tree.directory_mut(inode)?.finish_sync(started);
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn LockGuard>>> {
        let mut state = self.shared.call(Operation::Lock)?;
        let inode = match state.tree.find(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => state.tree.create_file(path)?,
            found => found?,
        };
        state.tree.file(inode)?;
        if !state.locks.insert(inode) {
            return Ok(None);
        }
        let lock = SimulatedLock::new(Arc::clone(&self.shared), inode);
        Ok(Some(Box::new(lock)))
    }
}

impl Default for SimulatedDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SimulatedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedDisk").finish_non_exhaustive()
    }
}

impl Shared {
    /// Counts an operation, and fails it if the disk is gone or a fault is due.
    fn call(&self, operation: Operation) -> io::Result<MutexGuard<'_, State>> {
        match self.begin(operation)? {
            (state, None) => Ok(state),
            (_, Some(fault)) => Err(fault.error()),
        }
    }

    /// As [`call`](Self::call), but leaves it to the caller to carry out the fault.
    fn begin(&self, operation: Operation) -> io::Result<(MutexGuard<'_, State>, Option<DiskFault>)> {
        let mut state = self.state.lock();
        state.check_running()?;
        let fault = state.faults.strike(operation);
        if fault == Some(DiskFault::PowerCut) {
            self.stall_ended.notify_all();
        }
        Ok((state, fault))
    }

    /// For the test's own looks at the disk: no operation, no fault.
    fn inspect(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state.lock();
        state.check_not_crashed()?;
        Ok(state)
    }

    fn wait_while_stalled(&self, state: &mut MutexGuard<'_, State>) -> io::Result<()> {
        while state.syncs_are_stalled {
            self.stall_ended.wait(state);
            state.check_running()?;
        }
        Ok(())
    }
}

impl State {
    fn check_running(&self) -> io::Result<()> {
        self.check_not_crashed()?;
        if self.faults.power_is_cut() {
            return Err(DiskFault::PowerCut.error());
        }
        Ok(())
    }

    fn check_not_crashed(&self) -> io::Result<()> {
        if self.has_crashed {
            return Err(io::Error::other("the simulated disk has crashed"));
        }
        Ok(())
    }
}
