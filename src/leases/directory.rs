//! The directory of consumers' files: making, finding, deleting.

use std::io;
use std::path::{Path, PathBuf};

use super::file::{LeaseFile, MAX_FILE_BYTES, first_copies};
use super::windows::is_windows_file;
use super::{LeaseError, claim, patiently};
use crate::format::{CONSUMER_HEADER_BYTES, ConsumerHeader, SlotState};
use crate::limits::MAX_CONSUMERS;
use crate::storage::{
    Access, Corruption, Fault, LockGuard, Storage, list_if_there, make_directory, may_not_write, remove_if_there,
    replace_whole,
};
use crate::types::{StreamId, is_name};

/// The directory in the stream's.
const CONSUMERS_DIRECTORY: &str = "consumers";
/// Its lock, and the name under which a file is made: no consumer's name starts so.
const LOCK_FILE: &str = "~lock";
pub(super) const NEW_FILE: &str = "~new";

/// The consumers of one stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConsumersDirectory<'a> {
    pub(crate) storage: &'a dyn Storage,
    pub(crate) stream: &'a Path,
    pub(crate) stream_id: StreamId,
}

impl ConsumersDirectory<'_> {
    /// Opens a consumer's file, or makes it with these slots.
    pub(crate) fn open_or_create(
        &self,
        name: &str,
        header: impl FnOnce() -> ConsumerHeader,
        slots: impl FnOnce() -> Vec<SlotState>,
    ) -> Result<LeaseFile, LeaseError> {
        make_directory(self.storage, &self.directory())?;
        let _lock = self.lock()?;
        match self.open(name) {
            Ok(Some(file)) => {
                // Whoever made it may have died before its name was durable.
                self.sync()?;
                Ok(file)
            }
            // A deletion that was cut short: a new one takes its place.
            Ok(None) | Err(LeaseError::Deleted) => self.create(name, &header(), slots()),
            Err(error) => Err(error),
        }
    }

    /// Deletes a consumer; whether there was one.
    pub(crate) fn delete(&self, name: &str) -> Result<bool, LeaseError> {
        if !self.is_there()? {
            return Ok(false);
        }
        let _lock = self.lock()?;
        let path = self.path(name);
        match self.open_unread(&path)? {
            None => return Ok(false), // if a power cut brings it back, it is marked
            Some(file) => file.mark_deleted()?,
        }
        self.storage.remove_file(&path).map_err(Fault::io("remove", &path))?;
        self.sync()?;
        self.remove_belongings(name);
        Ok(true)
    }

    /// The names of the consumers, ascending.
    pub(crate) fn list(&self) -> Result<Vec<String>, Fault> {
        let mut names = Vec::new();
        for name in self.names()? {
            if self.is_live(&name)? {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// The names of the files, ascending.
    fn names(&self) -> Result<Vec<String>, Fault> {
        let entries = list_if_there(self.storage, &self.directory())?;
        let files = entries.into_iter().filter(|entry| !entry.is_dir && is_name(&entry.name));
        let mut names: Vec<_> = files.map(|entry| entry.name).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Looks for damage in every consumer's file, without a lock: what is seen beside one who writes is looked at again.
    pub(crate) fn damage(&self) -> Result<Vec<Corruption>, Fault> {
        const ATTEMPTS: u32 = 5;
        let mut damage = Vec::new();
        for name in self.names()? {
            for attempt in 1..=ATTEMPTS {
                let found = self.damage_of(&name)?;
                if found.is_empty() || attempt == ATTEMPTS {
                    damage.extend(found);
                    break;
                }
            }
        }
        damage.extend(self.damage_of_windows()?);
        Ok(damage)
    }

    fn damage_of(&self, name: &str) -> Result<Vec<Corruption>, Fault> {
        let path = self.path(name);
        match self.storage.open_file(&path, Access::Read) {
            Ok(file) => LeaseFile::unread(&path, file).damage(self.stream_id, name),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()), // deleted since
            Err(error) => Err(Fault::io("open", &path)(error)),
        }
    }

    /// Takes damage out of a file that was copied aside: its damaged slots, or the whole file if it is not known whose they are, or if it has no slots. Other
    /// processes may be at work on it: what they have made sound meanwhile stays, and who has a file open that goes meets the mark of a deletion.
    pub(crate) fn mend(&self, name: &str) -> Result<(), LeaseError> {
        let _lock = self.lock()?;
        let path = self.path(name);
        if is_windows_file(name) {
            if matches!(self.read_windows(name), Err(Fault::Corrupt(_))) {
                remove_if_there(self.storage, &path)?;
            }
            return Ok(self.sync()?);
        }
        let mut damage = self.damage_of(name)?;
        if damage.iter().any(|damage| damage.offset == MAX_FILE_BYTES) {
            self.shorten(&path)?;
            damage = self.damage_of(name)?;
        }
        let Some(file) = self.open_unread(&path)? else { return Ok(()) };
        if damage.iter().any(|damage| damage.offset < CONSUMER_HEADER_BYTES as u64) {
            file.mark_deleted()?;
            self.storage.remove_file(&path).map_err(Fault::io("remove", &path))?;
            return Ok(self.sync()?);
        }
        file.clear(&damage)
    }

    /// Puts a file of the slots that there can be in the place of one that is longer.
    fn shorten(&self, path: &Path) -> Result<(), LeaseError> {
        let Some(file) = self.open_unread(path)? else { return Ok(()) };
        let new = self.directory().join(NEW_FILE);
        replace_whole(self.storage, &new, path, &file.slots_that_can_be()?)?;
        self.sync()?;
        file.mark_deleted()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    /// Opens a consumer's file and makes what is in it durable; nothing if there is none.
    pub(crate) fn open(&self, name: &str) -> Result<Option<LeaseFile>, LeaseError> {
        let path = self.path(name);
        self.open_unread(&path)?.map(|file| file.begin(self.stream_id, name)).transpose()
    }

    /// What claims of its workers' names left, those of workers that live included, and open windows. Harmless where they stay: nobody takes them for their own.
    fn remove_belongings(&self, consumer: &str) {
        let entries = self.storage.list(&self.directory()).unwrap_or_default();
        for entry in entries.iter().filter(|entry| entry.name.starts_with(&claim::prefix(consumer))) {
            let _ = self.storage.remove_file(&self.directory().join(&entry.name));
        }
    }

    pub(super) fn open_unread(&self, path: &Path) -> Result<Option<LeaseFile>, Fault> {
        match self.storage.open_file(path, Access::Write) {
            Ok(file) => Ok(Some(LeaseFile::unread(path, file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Fault::io("open", path)(error)),
        }
    }

    fn is_live(&self, name: &str) -> Result<bool, Fault> {
        let path = self.path(name);
        match self.storage.open_file(&path, Access::Read) {
            Ok(file) => {
                if !LeaseFile::unread(&path, file).is_marked()? {
                    return Ok(true);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(Fault::io("open", &path)(error)),
        }
        match self.open_unread(&path) {
            Ok(Some(file)) => Ok(!file.is_deleted()?), // another one may have the name since
            Ok(None) => Ok(false),
            Err(Fault::Io { source, .. }) if may_not_write(&source) => Ok(false), // to make it durable is left to others
            Err(fault) => Err(fault),
        }
    }

    fn create(&self, name: &str, header: &ConsumerHeader, slots: Vec<SlotState>) -> Result<LeaseFile, LeaseError> {
        if self.list()?.len() >= MAX_CONSUMERS {
            return Err(LeaseError::Full);
        }
        let (path, new) = (self.path(name), self.directory().join(NEW_FILE));
        let file = replace_whole(self.storage, &new, &path, &first_copies(header, slots))?;
        self.sync()?;
        LeaseFile::unread(&path, file).begin(header.stream_id, name)
    }

    fn directory(&self) -> PathBuf {
        self.stream.join(CONSUMERS_DIRECTORY)
    }

    fn is_there(&self) -> Result<bool, Fault> {
        let directory = self.directory();
        match self.storage.list(&directory) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Fault::io("list", &directory)(error)),
        }
    }

    /// Makes the names durable: those in the directory, and its own, which may be another process' that died.
    pub(super) fn sync(&self) -> Result<(), Fault> {
        let directory = self.directory();
        self.storage.sync_dir(&directory).map_err(Fault::io("sync", &directory))?;
        self.storage.sync_dir(self.stream).map_err(Fault::io("sync", self.stream))
    }

    pub(super) fn lock(&self) -> Result<Box<dyn LockGuard>, LeaseError> {
        let path = self.directory().join(LOCK_FILE);
        let attempt = || self.storage.lock(&path).map_err(Fault::io("lock", &path));
        patiently(attempt)?.ok_or(LeaseError::Busy(path.clone()))
    }
}
