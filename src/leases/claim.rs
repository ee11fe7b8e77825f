//! Claims of workers' names: an empty file each, beside those of the consumers, whose lock stands for the worker.
//!
//! A file is locked, and removed, under the directory's lock only: so that whoever has the lock of a file has the file that the name leads to. What a
//! process that was killed leaves is taken again with the name, and goes with the consumer.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{ConsumersDirectory, LeaseError};
use crate::storage::{Access, Fault, Process, Storage, StorageFile, remove_if_there};
use crate::types::StreamId;

/// How the names of these files begin: no name of a consumer or a worker has a tilde in it.
pub(super) fn prefix(consumer: &str) -> String {
    format!("~{consumer}~")
}

/// The name of a worker, for as long as this is held and the process lives.
#[derive(Debug)]
pub(crate) struct WorkerClaim {
    storage: Arc<dyn Storage>,
    stream: PathBuf,
    stream_id: StreamId,
    path: PathBuf,
    file: Arc<dyn StorageFile>,
    process: Process,
}

impl WorkerClaim {
    /// Claims the name; nothing if somebody has it.
    pub(crate) fn take(
        storage: &Arc<dyn Storage>,
        stream: &Path,
        stream_id: StreamId,
        (consumer, worker): (&str, &str),
    ) -> Result<Option<Self>, LeaseError> {
        let consumers = ConsumersDirectory { storage: storage.as_ref(), stream, stream_id };
        let path = consumers.path(&format!("{}{worker}", prefix(consumer)));
        let _lock = consumers.lock()?;
        let claimed = consumers.lock_claim(&path)?.map(|file| Self {
            storage: Arc::clone(storage),
            stream: stream.to_path_buf(),
            stream_id,
            path,
            file,
            process: Process::this(),
        });
        Ok(claimed)
    }

    /// Removes the file, unless somebody has claimed the name since: also one whose consumer is a later one of the same name.
    fn withdraw(&self) -> Result<(), LeaseError> {
        let (storage, stream, stream_id) = (self.storage.as_ref(), self.stream.as_path(), self.stream_id);
        let consumers = ConsumersDirectory { storage, stream, stream_id };
        let _lock = consumers.lock()?;
        if consumers.lock_claim(&self.path)?.is_some() {
            remove_if_there(storage, &self.path)?;
        }
        Ok(())
    }
}

impl Drop for WorkerClaim {
    /// Unlocks, not only closes: a process that is just being spawned holds a copy of the descriptor. A fork that goes on must not do so for its parent.
    fn drop(&mut self) {
        if self.process.is_this() {
            let _ = self.file.unlock(); // closing follows
            let _ = self.withdraw(); // or it stays, as of one that was killed
        }
    }
}

impl ConsumersDirectory<'_> {
    /// The file, made if need be, with its lock; nothing if somebody has that.
    fn lock_claim(&self, path: &Path) -> Result<Option<Arc<dyn StorageFile>>, Fault> {
        let file = match self.storage.create_file(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.storage.open_file(path, Access::Write).map_err(Fault::io("open", path))?
            }
            made => made.map_err(Fault::io("create", path))?,
        };
        Ok(file.try_lock().map_err(Fault::io("lock", path))?.then_some(file))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;

    use super::*;
    use crate::storage::{Disk, SimulatedDisk};

    fn take(storage: &Arc<dyn Storage>, stream: &Path) -> Option<WorkerClaim> {
        WorkerClaim::take(storage, stream, StreamId::new(7), ("c", "w")).unwrap()
    }

    fn claims(storage: &Arc<dyn Storage>, stream: &Path) -> usize {
        let listed = storage.list(&stream.join("consumers")).unwrap();
        listed.iter().filter(|entry| entry.name.starts_with("~c~")).count()
    }

    /// As a process has it that is just being spawned.
    #[test]
    fn a_copy_of_the_descriptor_does_not_keep_the_name() {
        let directory = tempfile::tempdir().unwrap();
        let storage: Arc<dyn Storage> = Arc::new(Disk);
        storage.create_dir(&directory.path().join("consumers")).unwrap();
        let claim = take(&storage, directory.path()).unwrap();
        assert!(take(&storage, directory.path()).is_none());
        assert_eq!(claims(&storage, directory.path()), 1);
        let copy = Arc::clone(&claim.file);
        drop(claim);
        assert_eq!(claims(&storage, directory.path()), 0);
        assert!(take(&storage, directory.path()).is_some());
        drop(copy);
    }

    /// A file whose name goes while somebody waits for its lock would let two in.
    #[test]
    fn one_at_a_time_has_a_name() {
        let (disk, stream) = (SimulatedDisk::new(), Path::new("stream"));
        let storage: Arc<dyn Storage> = Arc::new(disk);
        for path in ["stream", "stream/consumers"] {
            storage.create_dir(Path::new(path)).unwrap();
        }
        let (holders, held) = (AtomicU32::new(0), AtomicU32::new(0));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..300 {
                        let Some(claim) = take(&storage, stream) else { continue };
                        assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0, "two have the name");
                        held.fetch_add(1, Ordering::SeqCst);
                        thread::yield_now();
                        holders.fetch_sub(1, Ordering::SeqCst);
                        drop(claim);
                    }
                });
            }
        });
        assert!(held.into_inner() > 0);
        assert_eq!(claims(&storage, stream), 0);
    }
}
