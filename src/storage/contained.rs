//! A storage somebody else wrote, whose panics are errors.
//!
//! The library calls a storage with its locks held and in the middle of its protocols. A panic that went through them would leave a commit that never ends, or a segment
//! without its seal; as an error it is what every call of a storage is expected to give, and is handled as one.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::sync::caught;

use super::{Access, DirEntry, LockGuard, Map, Staging, StagingLayout, Storage, StorageFile};

#[derive(Debug)]
pub(crate) struct Contained(Arc<dyn Storage>);

#[derive(Debug)]
struct ContainedFile(Arc<dyn StorageFile>);

impl Contained {
    pub(crate) const fn new(storage: Arc<dyn Storage>) -> Self {
        Self(storage)
    }
}

/// What a call gives; an error in the place of a panic. What state that leaves the storage in is the storage's own to know: it is used on as after any error.
pub(super) fn contained<T>(call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    caught(call).unwrap_or_else(|panic| Err(io::Error::other(format!("the storage {panic}"))))
}

fn file(opened: io::Result<Arc<dyn StorageFile>>) -> io::Result<Arc<dyn StorageFile>> {
    Ok(Arc::new(ContainedFile(opened?)))
}

impl Storage for Contained {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        contained(|| self.0.create_dir(path))
    }

    fn create_file(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        file(contained(|| self.0.create_file(path)))
    }

    fn open_file(&self, path: &Path, access: Access) -> io::Result<Arc<dyn StorageFile>> {
        file(contained(|| self.0.open_file(path, access)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        contained(|| self.0.rename(from, to))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        contained(|| self.0.remove_file(path))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        contained(|| self.0.remove_dir(path))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        contained(|| self.0.list(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        contained(|| self.0.sync_dir(path))
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn LockGuard>>> {
        contained(|| self.0.lock(path))
    }

    fn reports_late(&self) -> bool {
        contained(|| Ok(self.0.reports_late())).unwrap_or(false)
    }

    fn create_staging(&self, path: &Path, layout: StagingLayout) -> io::Result<Option<Staging>> {
        contained(|| self.0.create_staging(path, layout))
    }

    fn anchor(&self, path: &Path) -> io::Result<Option<Arc<dyn Storage>>> {
        Ok(contained(|| self.0.anchor(path))?.map(|anchored| Arc::new(Self(anchored)) as Arc<dyn Storage>))
    }
}

impl StorageFile for ContainedFile {
    fn len(&self) -> io::Result<u64> {
        contained(|| self.0.len())
    }

    fn is_empty(&self) -> io::Result<bool> {
        contained(|| self.0.is_empty())
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        contained(|| self.0.read_at(buffer, position))
    }

    fn data_from(&self, position: u64) -> io::Result<u64> {
        contained(|| self.0.data_from(position))
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        contained(|| self.0.write_at(bytes, position))
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        contained(|| self.0.allocate(len))
    }

    fn release(&self, range: Range<u64>) -> io::Result<()> {
        contained(|| self.0.release(range))
    }

    fn sync(&self) -> io::Result<()> {
        contained(|| self.0.sync())
    }

    fn sync_in_place(&self) -> io::Result<()> {
        contained(|| self.0.sync_in_place())
    }

    fn map(&self, len: u64) -> io::Result<Map> {
        contained(|| self.0.map(len))
    }

    fn try_lock(&self) -> io::Result<bool> {
        contained(|| self.0.try_lock())
    }

    fn unlock(&self) -> io::Result<()> {
        contained(|| self.0.unlock())
    }
}
