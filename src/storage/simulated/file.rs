//! Open files and held locks of a simulated disk.

use crate::sync::atomic::{AtomicBool, Ordering};
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::Shared;
use super::contents::{Contents, StartedSync};
use super::faults::{DiskFault, Operation};
use super::tree::InodeId;
use crate::storage::{Access, LockGuard, Map, StorageFile};

pub(in crate::storage) struct SimulatedFile {
    disk: Arc<Shared>,
    inode: InodeId,
    access: Access,
    /// Whether the inode's lock is this handle's. Changed with the disk's state locked.
    is_locked: AtomicBool,
}

impl SimulatedFile {
    /// A handle of an inode that [`Tree::open`](super::tree::Tree::open) was told of.
    pub(super) fn new(disk: Arc<Shared>, inode: InodeId, access: Access) -> Self {
        Self { disk, inode, access, is_locked: AtomicBool::new(false) }
    }

    /// A store into a map of the file: there when it is done, or in part if the power goes during it.
    pub(in crate::storage) fn stage(&self, bytes: &[u8], position: usize) -> io::Result<()> {
        let (mut state, fault) = self.disk.begin(Operation::Stage)?;
        let file = state.tree.file_mut(self.inode)?;
        let Some(fault) = fault else {
            return file.write(bytes, position, u64::MAX); // its room was reserved
        };
        let (stored, _) = bytes.split_at(bytes.len() / 2);
        let _ = file.write(stored, position, u64::MAX);
        Err(fault.error())
    }

    fn sync_by(&self, finish: impl FnOnce(&mut Contents, StartedSync)) -> io::Result<()> {
        let (mut state, fault) = self.disk.begin(Operation::Sync)?;
        let file = state.tree.file_mut(self.inode)?;
        if let Some(fault) = fault {
            if fault != DiskFault::PowerCut {
                file.fail_sync();
            }
            return Err(fault.error());
        }
        let started = file.start_sync();
        self.disk.wait_while_stalled(&mut state)?;
        finish(state.tree.file_mut(self.inode)?, started);
        Ok(())
    }

    fn check_writable(&self) -> io::Result<()> {
        match self.access {
            Access::Write => Ok(()),
            Access::Read => Err(io::ErrorKind::PermissionDenied.into()),
        }
    }
}

impl StorageFile for SimulatedFile {
    fn len(&self) -> io::Result<u64> {
        let state = self.disk.call(Operation::Len)?;
        Ok(state.tree.file(self.inode)?.size() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let state = self.disk.call(Operation::Read)?;
        let file = state.tree.file(self.inode)?;
        match usize::try_from(position) {
            Ok(position) => file.read(buffer, position),
            Err(_) => Ok(0), // behind any file's end
        }
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        let (mut state, fault) = self.disk.begin(Operation::Write)?;
        self.check_writable()?;
        let position = in_memory(position)?;
        let room = state.tree.room();
        let file = state.tree.file_mut(self.inode)?;
        let Some(fault) = fault else {
            return file.write(bytes, position, room);
        };
        let (written, _) = bytes.split_at(fault.written(bytes.len()));
        // How much of a failed write arrived is nobody's business.
        let _ = file.write(written, position, room);
        Err(fault.error())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.call(Operation::Allocate)?;
        self.check_writable()?;
        let room = state.tree.room();
        state.tree.file_mut(self.inode)?.allocate(in_memory(len)?, room)
    }

    fn release(&self, range: Range<u64>) -> io::Result<()> {
        let mut state = self.disk.call(Operation::Release)?;
        self.check_writable()?;
        let range = in_memory(range.start)?..usize::try_from(range.end).unwrap_or(usize::MAX);
        state.tree.file_mut(self.inode)?.release(range)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_by(Contents::finish_sync)
    }

    /// What was not durable before stays as it is.
    fn sync_in_place(&self) -> io::Result<()> {
        self.sync_by(Contents::finish_sync_in_place)
    }

    fn map(&self, len: u64) -> io::Result<Map> {
        let state = self.disk.call(Operation::Map)?;
        state.tree.file(self.inode)?.map(in_memory(len)?)
    }

    fn try_lock(&self) -> io::Result<bool> {
        let mut state = self.disk.call(Operation::Lock)?;
        let is_locked = self.is_locked.load(Ordering::SeqCst) || state.locks.insert(self.inode);
        self.is_locked.store(is_locked, Ordering::SeqCst);
        Ok(is_locked)
    }

    fn unlock(&self) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        if self.is_locked.swap(false, Ordering::SeqCst) {
            state.locks.remove(&self.inode);
        }
        Ok(())
    }
}

impl Drop for SimulatedFile {
    fn drop(&mut self) {
        let _ = self.unlock();
        self.disk.state.lock().tree.close(self.inode);
    }
}

impl fmt::Debug for SimulatedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedFile")
            .field("inode", &self.inode)
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

pub(super) struct SimulatedLock {
    disk: Arc<Shared>,
    inode: InodeId,
}

impl SimulatedLock {
    /// A lock that is noted in the state's `locks`.
    pub(super) fn new(disk: Arc<Shared>, inode: InodeId) -> Self {
        Self { disk, inode }
    }
}

impl LockGuard for SimulatedLock {}

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        self.disk.state.lock().locks.remove(&self.inode);
    }
}

impl fmt::Debug for SimulatedLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedLock").field("inode", &self.inode).finish_non_exhaustive()
    }
}

/// A position or length as an index of memory.
fn in_memory(position: u64) -> io::Result<usize> {
    usize::try_from(position).map_err(|_| io::ErrorKind::FileTooLarge.into())
}
