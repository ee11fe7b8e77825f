//! The files of queues: one a queue, in the stream's directory, replaced whole.
//!
//! Only the process that has the stream open for writing reads and writes them, under the stream's own lock. What a queue keeps is written to a new
//! file, synced, and renamed over the old one, and the directory is synced: after a crash there is the old one or the new one. A file
//! is renamed only after a sync of it that succeeded, so what is found under a queue's name is durable, and so is the name once the directory was
//! synced again, which an opening does.

use std::path::{Path, PathBuf};

use crate::format::{MAX_QUEUE_FILE_BYTES, QueueSnapshot, WholeFileError};
use crate::storage::{
    Corruption, Fault, Storage, list_if_there, make_directory, read_whole, remove_if_there, replace_whole,
    sync_if_there,
};
use crate::types::{StreamId, is_name};

/// The directory in the stream's.
const QUEUES_DIRECTORY: &str = "queues";

/// The queues of one stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueuesDirectory<'a> {
    pub(crate) storage: &'a dyn Storage,
    pub(crate) stream: &'a Path,
    pub(crate) stream_id: StreamId,
}

impl QueuesDirectory<'_> {
    /// What is kept of a queue, durably; nothing if there is none.
    pub(crate) fn open(&self, name: &str) -> Result<Option<QueueSnapshot>, Fault> {
        let found = self.read(name)?;
        if found.is_some() {
            self.sync()?; // whoever wrote it may have died before its name was durable
        }
        Ok(found)
    }

    /// Puts this in the place of what was kept of the queue, durably.
    pub(crate) fn write(&self, snapshot: &QueueSnapshot) -> Result<(), Fault> {
        let (path, new) = (self.path(&snapshot.name), self.path(&format!("~{}", snapshot.name)));
        make_directory(self.storage, &self.path(""))?;
        replace_whole(self.storage, &new, &path, &snapshot.encode())?;
        self.sync()
    }

    /// Deletes a queue, durably; whether there was one.
    pub(crate) fn delete(&self, name: &str) -> Result<bool, Fault> {
        let was_there = remove_if_there(self.storage, &self.path(name))?;
        self.settle()?; // also of a deletion before that failed behind the removal: what is said to be gone must not come back
        Ok(was_there)
    }

    /// Makes durable what an opening finds: a power cut could still take back a removal.
    pub(crate) fn settle(&self) -> Result<(), Fault> {
        sync_if_there(self.storage, &self.path(""))
    }

    /// The names of the queues, ascending.
    pub(crate) fn list(&self) -> Result<Vec<String>, Fault> {
        let entries = list_if_there(self.storage, &self.path(""))?;
        let files = entries.into_iter().filter(|entry| !entry.is_dir && is_name(&entry.name));
        let mut names: Vec<_> = files.map(|entry| entry.name).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Looks for damage in every queue's file.
    pub(crate) fn damage(&self) -> Result<Vec<Corruption>, Fault> {
        let mut damage = Vec::new();
        for name in self.list()? {
            match self.read(&name) {
                Ok(_) => {}
                Err(Fault::Corrupt(found)) => damage.push(*found),
                Err(fault) => return Err(fault),
            }
        }
        Ok(damage)
    }

    /// The place of a queue's file; that of the directory where the name is empty.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.stream.join(QUEUES_DIRECTORY).join(name)
    }

    fn read(&self, name: &str) -> Result<Option<QueueSnapshot>, Fault> {
        let path = self.path(name);
        let most = MAX_QUEUE_FILE_BYTES as u64;
        let Some(bytes) = read_whole(self.storage, &path, most)? else { return Ok(None) };
        let damaged = |reason: String| Fault::from(Corruption::new(&path, 0, reason));
        match QueueSnapshot::decode(&bytes) {
            Ok(snapshot) if snapshot.stream_id != self.stream_id || snapshot.name != name => {
                Err(damaged("it is the file of another stream or queue".to_owned()))
            }
            Ok(snapshot) => Ok(Some(snapshot)),
            Err(WholeFileError::Version(found)) => Err(Fault::UnsupportedVersion { path, found }),
            Err(error) => Err(damaged(error.to_string())),
        }
    }

    /// Makes the names durable: those in the directory, and its own.
    fn sync(&self) -> Result<(), Fault> {
        let directory = self.path("");
        self.storage.sync_dir(&directory).map_err(Fault::io("sync", &directory))?;
        self.storage.sync_dir(self.stream).map_err(Fault::io("sync", self.stream))
    }
}
