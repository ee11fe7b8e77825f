//! What shards leave to their children: the states of tumbling windows that were open at a shard's end, one file for each child and parent.
//!
//! Beside the consumers' files, under names that no consumer and no worker has, so that they go with their consumer. Written whole under
//! another name, synced, renamed, under the directory's lock. The id of the consumer's own file tells what an earlier consumer of the same name left.

use std::io;

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

/// How they end, whatever the consumer.
fn suffix_of(child: ShardId, parent: ShardId) -> String {
    format!("~~{:012}~{:012}", child.get(), parent.get())
}

fn child_of(consumer: &str, name: &str) -> Option<ShardId> {
    name.strip_prefix(&prefix(consumer))?.split('~').next()?.parse().ok().map(ShardId::new)
}

/// Whether it is the name of such a file, of whatever consumer.
pub(super) fn is_windows_file(name: &str) -> bool {
    name.strip_prefix('~').and_then(|rest| rest.split_once("~~")).is_some_and(|(consumer, _)| !consumer.is_empty())
}

impl ConsumersDirectory<'_> {
    /// Keeps what a child gets from a parent, durably; with no states, what was kept is removed.
    pub(crate) fn keep_windows(&self, consumer: &str, snapshot: &WindowsSnapshot) -> Result<(), LeaseError> {
        let _lock = self.lock()?;
        self.expect_current(consumer, snapshot.file_id)?;
        let name = format!("~{consumer}{}", suffix_of(snapshot.child, snapshot.parent));
        let (path, new) = (self.path(&name), self.path(NEW_FILE));
        if snapshot.states.is_empty() {
            remove_if_there(self.storage, &path)?;
            return Ok(self.sync()?); // also of a removal before that failed behind it, or whose caller died
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
            found.extend(self.read_windows(&name)?.filter(|snapshot| snapshot.file_id == file_id));
        }
        Ok(found)
    }

    /// These children have done what they got: that goes, durably, also if a removal before failed behind it, or its caller died.
    pub(crate) fn forget_windows(
        &self,
        consumer: &str,
        file_id: u128,
        children: &[ShardId],
    ) -> Result<(), LeaseError> {
        let mut names = self.names_with(&prefix(consumer))?;
        names.retain(|name| child_of(consumer, name).is_some_and(|child| children.contains(&child)));
        if !names.is_empty() {
            let _lock = self.lock()?;
            self.expect_current(consumer, file_id)?;
            for name in names {
                remove_if_there(self.storage, &self.path(&name))?;
            }
        }
        Ok(self.sync()?)
    }

    /// Under the directory's lock: that the consumer is still there. What stands under its name may be a later one's, as its windows are.
    fn expect_current(&self, consumer: &str, file_id: u128) -> Result<(), LeaseError> {
        let Some(file) = self.open_unread(&self.path(consumer))? else { return Err(LeaseError::Deleted) };
        let is_current = !file.is_deleted()? && file.read_header(self.stream_id, consumer)?.file_id == file_id;
        if is_current { Ok(()) } else { Err(LeaseError::Deleted) }
    }

    /// Looks for damage in such files. One that is replaced or removed meanwhile is whole, or not there.
    pub(super) fn damage_of_windows(&self) -> Result<Vec<Corruption>, Fault> {
        let mut damage = Vec::new();
        for name in self.names_with("~")?.iter().filter(|name| is_windows_file(name)) {
            match self.read_windows(name) {
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

    pub(super) fn read_windows(&self, name: &str) -> Result<Option<WindowsSnapshot>, Fault> {
        let path = self.path(name);
        let most = MAX_WINDOWS_FILE_BYTES as u64;
        let Some(bytes) = read_whole(self.storage, &path, most)? else { return Ok(None) };
        let damaged = |reason: String| Fault::from(Corruption::new(&path, 0, reason));
        match WindowsSnapshot::decode(&bytes) {
            Ok(snapshot) if snapshot.stream_id != self.stream_id => {
                Err(damaged("it is the file of another stream".to_owned()))
            }
            Ok(snapshot) if !name.ends_with(&suffix_of(snapshot.child, snapshot.parent)) => {
                Err(damaged("it is the file of another child or parent".to_owned()))
            }
            Ok(snapshot) => Ok(Some(snapshot)),
            Err(WholeFileError::Version(found)) => Err(Fault::UnsupportedVersion { path, found }),
            Err(error) => Err(damaged(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::format::{ConsumerHeader, WindowState};
    use crate::storage::{Crash, DiskFault, Operation, SimulatedDisk, Storage};
    use crate::types::{StreamId, Timestamp};

    const CHILD: ShardId = ShardId::new(2);

    fn directory(disk: &SimulatedDisk) -> ConsumersDirectory<'_> {
        ConsumersDirectory { storage: disk, stream: Path::new("stream"), stream_id: StreamId::new(7) }
    }

    fn snapshot(child: ShardId, states: Vec<WindowState>) -> WindowsSnapshot {
        WindowsSnapshot { stream_id: StreamId::new(7), file_id: 1, child, parent: ShardId::new(0), states }
    }

    /// Two children of one shard, each with a window.
    fn disk_with_windows() -> SimulatedDisk {
        let disk = SimulatedDisk::new();
        for path in ["stream", "stream/consumers"] {
            disk.create_dir(Path::new(path)).unwrap();
        }
        disk.sync_dir(Path::new("/")).unwrap();
        let (stream_id, file_id) = (StreamId::new(7), 1);
        let header = || ConsumerHeader {
            stream_id,
            file_id,
            created: Timestamp::default(),
            name: "c".to_owned(),
            slots: 1,
        };
        directory(&disk).open_or_create("c", header, Vec::new).unwrap();
        for child in [CHILD, ShardId::new(22)] {
            directory(&disk).keep_windows("c", &snapshot(child, vec![WindowState::example()])).unwrap();
        }
        disk
    }

    fn count(disk: &SimulatedDisk, child: u32) -> usize {
        directory(disk).windows("c", 1, ShardId::new(child)).unwrap().len()
    }

    /// Two of them that were swapped, or one over the other: passed over, the windows in it would be lost.
    #[test]
    fn what_stands_under_the_name_of_another_is_damage() {
        let path = |child: u32| Path::new("stream/consumers").join(format!("~c~~{child:012}~{:012}", 0));
        let parents = disk_with_windows();
        directory(&parents)
            .keep_windows(
                "c",
                &WindowsSnapshot { parent: ShardId::new(1), ..snapshot(CHILD, vec![WindowState::example()]) },
            )
            .unwrap();
        let of_parent = Path::new("stream/consumers").join(format!("~c~~{:012}~{:012}", 2, 1));
        for (disk, one, other, child) in
            [(disk_with_windows(), path(2), path(22), 22), (parents, path(2), of_parent, 2)]
        {
            assert_eq!(directory(&disk).damage_of_windows().unwrap(), []);
            let (first, second) = (disk.read_file(&one).unwrap(), disk.read_file(&other).unwrap());
            disk.damage(&one, |bytes| *bytes = second).unwrap();
            disk.damage(&other, |bytes| *bytes = first).unwrap();
            let damage = directory(&disk).damage_of_windows().unwrap();
            let damaged: Vec<_> = damage.iter().map(|damage| damage.path.clone()).collect();
            let mut expected = [one, other];
            expected.sort();
            assert_eq!(damaged, expected);
            for child in [2, child] {
                let asked = directory(&disk).windows("c", 1, ShardId::new(child));
                assert!(matches!(asked, Err(LeaseError::Fault(Fault::Corrupt(_)))), "{asked:?}");
            }
        }
    }

    /// Whoever comes again finds nothing to remove, and nothing may come back once that was said to be done.
    fn expect_gone_for_good(remove: impl Fn(&ConsumersDirectory<'_>) -> Result<(), LeaseError>) {
        let disk = disk_with_windows();
        disk.fail_on(Operation::SyncDir, 0, DiskFault::Error(io::ErrorKind::Other));
        assert!(remove(&directory(&disk)).is_err());
        assert_eq!((count(&disk, 2), count(&disk, 22)), (0, 1));
        remove(&directory(&disk)).unwrap();
        for seed in 0..32 {
            let disk = disk.fork(Crash::PowerLost { seed });
            assert_eq!((count(&disk, 2), count(&disk, 22)), (0, 1), "{seed}");
        }
    }

    #[test]
    fn windows_in_whose_place_none_were_left_do_not_come_back() {
        expect_gone_for_good(|consumers| consumers.keep_windows("c", &snapshot(CHILD, Vec::new())));
    }

    #[test]
    fn windows_that_were_forgotten_do_not_come_back() {
        expect_gone_for_good(|consumers| consumers.forget_windows("c", 1, &[CHILD, ShardId::new(3)]));
    }

    /// Whoever has run a repair is told once that something was lost.
    #[test]
    fn what_a_repair_took_away_does_not_come_back() {
        let disk = disk_with_windows();
        let name = format!("~c~~{:012}~{:012}", CHILD.get(), 0);
        disk.damage(&Path::new("stream/consumers").join(&name), |bytes| bytes[30] ^= 1).unwrap();
        directory(&disk).mend(&name).unwrap();
        for seed in 0..32 {
            let disk = disk.fork(Crash::PowerLost { seed });
            assert_eq!(directory(&disk).damage_of_windows().unwrap(), [], "{seed}");
            assert_eq!((count(&disk, 2), count(&disk, 22)), (0, 1), "{seed}");
        }
    }
}
