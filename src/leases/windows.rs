//! What shards leave to their children: the states of tumbling windows that were open at a shard's end, one file for each child and parent.
//!
//! Beside the consumers' files, under names that no consumer and no worker has, so that they go with their consumer. Written whole under
//! another name, synced, renamed, under the directory's lock. The id of the consumer's own file tells what an earlier consumer of the same name left.

use std::io;
use std::path::Path;

use super::directory::NEW_FILE;
use super::{ConsumersDirectory, LeaseError};
use crate::format::{MAX_WINDOWS_FILE_BYTES, WholeFileError, WindowsSnapshot};
use crate::storage::{Corruption, Fault, list_if_there, read_whole, remove_if_there, replace_whole};
use crate::types::ShardId;

/// How the names of a consumer's files of windows begin: a worker's claim has no second tilde there.
fn prefix(consumer: &str) -> String {
    format!("~{consumer}~~")
}

fn prefix_of(consumer: &str, child: ShardId) -> String {
    format!("{}{:012}~", prefix(consumer), child.get())
}

/// Whether it is the name of such a file, of whatever consumer.
pub(super) fn is_windows_file(name: &str) -> bool {
    name.strip_prefix('~').and_then(|rest| rest.split_once("~~")).is_some_and(|(consumer, _)| !consumer.is_empty())
}

impl ConsumersDirectory<'_> {
    /// Keeps what a child gets from a parent, durably; with no states, what was kept is removed.
    pub(crate) fn keep_windows(&self, consumer: &str, snapshot: &WindowsSnapshot) -> Result<(), LeaseError> {
        let _lock = self.lock()?;
        let name = format!("{}{:012}", prefix_of(consumer, snapshot.child), snapshot.parent.get());
        let (path, new) = (self.path(&name), self.path(NEW_FILE));
        if snapshot.states.is_empty() {
            return if remove_if_there(self.storage, &path)? { Ok(self.sync()?) } else { Ok(()) };
        }
        let bytes = snapshot.encode();
        if bytes.len() > MAX_WINDOWS_FILE_BYTES {
            let reason = format!("{} bytes; a file of windows has at most {MAX_WINDOWS_FILE_BYTES}", bytes.len());
            return Err(Fault::io("write", &path)(io::Error::other(reason)).into()); // it could not be read again
        }
        replace_whole(self.storage, &new, &path, &bytes)?;
        Ok(self.sync()?)
    }

    /// What a child got from its parents. What an earlier consumer of this name left is not it.
    pub(crate) fn windows(
        &self,
        consumer: &str,
        file_id: u128,
        child: ShardId,
    ) -> Result<Vec<WindowsSnapshot>, LeaseError> {
        let mut found = Vec::new();
        for name in self.names_with(&prefix_of(consumer, child))? {
            let snapshot = self.read_windows(&self.path(&name))?;
            found.extend(snapshot.filter(|snapshot| snapshot.file_id == file_id && snapshot.child == child));
        }
        Ok(found)
    }

    /// The child has done what it got: that goes, durably.
    pub(crate) fn forget_windows(&self, consumer: &str, child: ShardId) -> Result<(), LeaseError> {
        let names = self.names_with(&prefix_of(consumer, child))?;
        if names.is_empty() {
            return Ok(());
        }
        let _lock = self.lock()?;
        for name in names {
            remove_if_there(self.storage, &self.path(&name))?;
        }
        Ok(self.sync()?)
    }

    /// Looks for damage in such files. One that is replaced or removed meanwhile is whole, or not there.
    pub(super) fn damage_of_windows(&self) -> Result<Vec<Corruption>, Fault> {
        let mut damage = Vec::new();
        for name in self.names_with("~")?.iter().filter(|name| is_windows_file(name)) {
            match self.read_windows(&self.path(name)) {
                Ok(_) => {}
                Err(Fault::Corrupt(found)) => damage.push(*found),
                Err(fault) => return Err(fault),
            }
        }
        Ok(damage)
    }

    fn names_with(&self, prefix: &str) -> Result<Vec<String>, Fault> {
        let entries = list_if_there(self.storage, &self.path(""))?;
        let files = entries.into_iter().filter(|entry| !entry.is_dir && entry.name.starts_with(prefix));
        let mut names: Vec<_> = files.map(|entry| entry.name).collect();
        names.sort_unstable();
        Ok(names)
    }

    fn read_windows(&self, path: &Path) -> Result<Option<WindowsSnapshot>, Fault> {
        let most = MAX_WINDOWS_FILE_BYTES as u64;
        let Some(bytes) = read_whole(self.storage, path, most)? else { return Ok(None) };
        let damaged = |reason: String| Fault::from(Corruption::new(path, 0, reason));
        match WindowsSnapshot::decode(&bytes) {
            Ok(snapshot) if snapshot.stream_id != self.stream_id => {
                Err(damaged("it is the file of another stream".to_owned()))
            }
            Ok(snapshot) => Ok(Some(snapshot)),
            Err(WholeFileError::Version(found)) => {
                Err(Fault::UnsupportedVersion { path: path.to_path_buf(), found })
            }
            Err(error) => Err(damaged(error.to_string())),
        }
    }
}
