//! The durable state of a stream, and its atomic change.
//!
//! The manifest is replaced whole: written under another name, synced, renamed over the old one, its directory
//! synced. A crash leaves the old state or the new one. It is the commit point of creation, split, merge, trimming and option changes: files that it is to name are
//! durable before, files that it no longer names are removed after.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::format::{ManifestError, ManifestState};
use crate::limits::MAX_MANIFEST_BYTES;
use crate::routing::Routes;
use crate::storage::{Access, Corruption, Fault, Storage, may_not_write, read_whole, write_whole};

/// The file's name in the stream's directory.
pub(crate) const MANIFEST_FILE: &str = "MANIFEST";
/// The name under which its successor is written.
pub(crate) const MANIFEST_NEW_FILE: &str = "MANIFEST.new";

/// Why a replacement failed, and what is on disk.
#[derive(Debug)]
pub(crate) enum ReplaceError {
    /// The old state is in force.
    Kept(Fault),
    /// It is not known which state a crash would leave. No further change is tried; reopening decides.
    Unknown(Fault),
}

impl ReplaceError {
    pub(crate) fn into_fault(self) -> Fault {
        match self {
            Self::Kept(fault) | Self::Unknown(fault) => fault,
        }
    }
}

/// The manifest of a stream that this process writes.
#[derive(Debug)]
pub(crate) struct Manifest {
    storage: Arc<dyn Storage>,
    directory: PathBuf,
    state: ManifestState,
    /// Set by a replacement of unknown outcome.
    failure: Option<(io::ErrorKind, String)>,
}

impl Manifest {
    pub(crate) fn new(storage: Arc<dyn Storage>, directory: PathBuf, state: ManifestState) -> Self {
        Self { storage, directory, state, failure: None }
    }

    pub(crate) fn state(&self) -> &ManifestState {
        &self.state
    }

    /// Whether it can be replaced at all: for who changes something else before.
    pub(crate) fn expect_usable(&self) -> Result<(), Fault> {
        let Some((kind, text)) = &self.failure else {
            return Ok(());
        };
        let path = self.directory.join(MANIFEST_FILE);
        let source = io::Error::new(*kind, format!("an earlier replacement failed: {text}"));
        Err(Fault::io("replace", &path)(source))
    }

    /// Puts `state` in force, durably.
    pub(crate) fn replace(&mut self, mut state: ManifestState) -> Result<(), ReplaceError> {
        self.expect_usable().map_err(ReplaceError::Unknown)?;
        state.generation = self.state.generation + 1;
        self.write(&state.encode()).map_err(ReplaceError::Kept)?;
        if let Err(fault) = self.swap() {
            if let Fault::Io { source, .. } = &fault {
                self.failure = Some((source.kind(), source.to_string()));
            }
            return Err(ReplaceError::Unknown(fault));
        }
        self.state = state;
        Ok(())
    }

    /// Rather no change than a stream that cannot be opened any more: what would be refused when it is read is not written.
    fn write(&self, bytes: &[u8]) -> Result<(), Fault> {
        let path = self.directory.join(MANIFEST_NEW_FILE);
        decode(bytes, &path)?;
        write_whole(self.storage.as_ref(), &path, bytes).map(drop)
    }

    fn swap(&self) -> Result<(), Fault> {
        let (new, current) = (self.directory.join(MANIFEST_NEW_FILE), self.directory.join(MANIFEST_FILE));
        self.storage.rename(&new, &current).map_err(Fault::io("rename", &new))?;
        self.storage.sync_dir(&self.directory).map_err(Fault::io("sync", &self.directory))
    }
}

/// Reads the manifest of a stream; nothing if there is none.
pub(crate) fn load(storage: &dyn Storage, directory: &Path) -> Result<Option<ManifestState>, Fault> {
    let path = directory.join(MANIFEST_FILE);
    let bytes = read_whole(storage, &path, MAX_MANIFEST_BYTES)?;
    bytes.map(|bytes| decode(&bytes, &path)).transpose()
}

fn decode(bytes: &[u8], path: &Path) -> Result<ManifestState, Fault> {
    let state = match ManifestState::decode(bytes) {
        Ok(state) => state,
        Err(ManifestError::Version(found)) => {
            return Err(Fault::UnsupportedVersion { path: path.to_path_buf(), found });
        }
        Err(error) => return Err(Corruption::new(path, 0, error.to_string()).into()),
    };
    match routes(&state) {
        Some(_) => Ok(state),
        None => Err(Corruption::new(path, 0, "the open shards do not tile the hash-key space").into()),
    }
}

/// Reads the manifest of a stream that another process writes, and makes what was read durable, since its writer may not live to: an end of a shard that a power
/// cut undoes must not be where a consumer is, durably. Who may not write there has no consumer there either, and does without.
pub(crate) fn load_durable(storage: &dyn Storage, directory: &Path) -> Result<Option<ManifestState>, Fault> {
    let Some(state) = load(storage, directory)? else { return Ok(None) };
    match storage.sync_dir(directory) {
        Err(error) if may_not_write(&error) => Ok(Some(state)),
        synced => synced.map(|()| Some(state)).map_err(Fault::io("sync", directory)),
    }
}

/// Which open shard takes which hash keys; nothing if they do not tile the space.
pub(crate) fn routes(state: &ManifestState) -> Option<Routes> {
    let open = state.shards.iter().filter(|shard| shard.is_open());
    Routes::new(open.map(|shard| (shard.range, shard.id)).collect())
}

/// Whether the manifest on disk is another than `state`: a look that is cheap enough to poll.
pub(crate) fn changed(storage: &dyn Storage, directory: &Path, state: &ManifestState) -> Result<bool, Fault> {
    let path = directory.join(MANIFEST_FILE);
    let file = storage.open_file(&path, Access::Read).map_err(Fault::io("open", &path))?;
    let mut front = [0; 36];
    let read = file.read_at(&mut front, 0).map_err(Fault::io("read", &path))?;
    let generation = front.get(12..20) == Some(&state.generation.to_le_bytes());
    let stream = front.get(20..36) == Some(&state.stream_id.get().to_le_bytes());
    Ok(read < front.len() || !generation || !stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{ShardEntry, StreamOptions};
    use crate::storage::SimulatedDisk;
    use crate::types::{HashKeyRange, SequenceNumber, ShardId, StreamId, Timestamp};

    #[test]
    fn a_change_is_seen_by_a_look_at_the_front() {
        let directory = Path::new("stream");
        let (disk, manifest) = manifest_in(directory);
        let stored = manifest.state().clone();
        assert_eq!(stored.generation, 4, "each has its own");
        assert!(!changed(&disk, directory, &stored).unwrap());
        let other = ManifestState { generation: stored.generation + 1, ..stored.clone() };
        assert!(changed(&disk, directory, &other).unwrap(), "another generation");
        let other = ManifestState { stream_id: StreamId::new(6), ..stored.clone() };
        assert!(changed(&disk, directory, &other).unwrap(), "another stream");
        disk.damage(&directory.join(MANIFEST_FILE), |bytes| bytes.truncate(35)).unwrap();
        assert!(changed(&disk, directory, &stored).unwrap(), "a part of one");
    }

    #[test]
    fn what_could_not_be_read_is_not_put_in_force() {
        let directory = Path::new("stream");
        let (disk, mut manifest) = manifest_in(directory);
        let before = disk.read_file(&directory.join(MANIFEST_FILE)).unwrap();
        let breaking: [fn(&mut ManifestState); 2] =
            [|state| state.next_shard_id = ShardId::new(0), |state| state.shards.clear()];
        for (case, breaking) in breaking.iter().enumerate() {
            let mut broken = manifest.state().clone();
            breaking(&mut broken);
            let refused = manifest.replace(broken);
            assert!(matches!(refused, Err(ReplaceError::Kept(Fault::Corrupt(_)))), "case {case}: {refused:?}");
            assert_eq!(disk.read_file(&directory.join(MANIFEST_FILE)).unwrap(), before, "case {case}");
        }
        manifest.replace(state(3, 5)).unwrap();
    }

    fn manifest_in(directory: &Path) -> (SimulatedDisk, Manifest) {
        let disk = SimulatedDisk::new();
        disk.create_dir(directory).unwrap();
        let mut manifest = Manifest::new(Arc::new(disk.clone()), directory.to_path_buf(), state(3, 5));
        manifest.replace(state(3, 5)).unwrap();
        (disk, manifest)
    }

    fn state(generation: u64, stream_id: u128) -> ManifestState {
        let shard =
            ShardEntry::new(ShardId::new(0), Vec::new(), HashKeyRange::FULL, SequenceNumber::ZERO, Timestamp::MIN);
        ManifestState {
            generation,
            stream_id: StreamId::new(stream_id),
            created: Timestamp::MIN,
            incarnation: 1,
            clean: false,
            options: StreamOptions::default(),
            next_shard_id: ShardId::new(1),
            shards: vec![shard],
            next_producer_id: 0,
            producers: Vec::new(),
        }
    }
}
