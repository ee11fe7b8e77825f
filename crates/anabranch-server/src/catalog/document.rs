//! A small JSON file that is read whole and replaced whole: after any crash it is the old one or the new.

use std::io;
use std::path::Path;

use anabranch::storage::{Access, Storage};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::OpenError;
use crate::limits::MAX_SETTINGS_BYTES;

/// The version of the documents, unless they say what releases of that version would not understand. A later one than the latest known is refused: what is not understood
/// must not be lost at the next change.
pub(super) const VERSION: u32 = 1;
/// Streams have a record distribution.
pub(super) const VERSION_OF_DISTRIBUTIONS: u32 = 2;
/// Streams have queues.
pub(super) const VERSION_OF_QUEUES: u32 = 3;
const LATEST_VERSION: u32 = VERSION_OF_QUEUES;
/// Under this name a document is written before it gets its own. Those who write in a directory take turns.
const TEMPORARY: &str = "~new";

/// What says of which version it is.
pub(super) trait Versioned {
    fn version(&self) -> u32;
}

/// The document; nothing if there is none.
pub(super) fn read<T: DeserializeOwned + Versioned>(
    storage: &dyn Storage,
    path: &Path,
) -> Result<Option<T>, OpenError> {
    let bytes = match read_file(storage, path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(OpenError::io(path)(error)),
    };
    let damaged = |reason: String| OpenError::Damaged { path: path.to_path_buf(), reason };
    let document: T = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    match document.version() {
        VERSION..=LATEST_VERSION => Ok(Some(document)),
        other => Err(damaged(format!("version {other}; this release knows versions up to {LATEST_VERSION}"))),
    }
}

fn read_file(storage: &dyn Storage, path: &Path) -> io::Result<Vec<u8>> {
    let file = storage.open_file(path, Access::Read)?;
    let length = file.len()?;
    if length > MAX_SETTINGS_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{length} bytes are too many")));
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, done as u64)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => done += read,
        }
    }
    Ok(bytes)
}

/// Replaces the document: durable when this returns. One that is too large to be read again is not written.
pub(super) fn write(storage: &dyn Storage, path: &Path, document: &impl Serialize) -> Result<(), OpenError> {
    write_within(MAX_SETTINGS_BYTES, storage, path, document)
}

fn write_within(
    most: u64,
    storage: &dyn Storage,
    path: &Path,
    document: &impl Serialize,
) -> Result<(), OpenError> {
    let text = serde_json::to_vec_pretty(document).map_err(|error| OpenError::io(path)(error.into()))?;
    let bytes = text.len() as u64;
    if bytes > most {
        return Err(OpenError::TooLarge { path: path.to_path_buf(), bytes });
    }
    replace(storage, path, &text).map_err(OpenError::io(path))
}

fn replace(storage: &dyn Storage, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(path);
    let temporary = directory.join(TEMPORARY);
    remove_if_there(storage, &temporary)?;
    let file = storage.create_file(&temporary)?;
    file.write_at(bytes, 0)?;
    file.sync()?;
    storage.rename(&temporary, path)?;
    storage.sync_dir(directory)
}

pub(super) fn remove(storage: &dyn Storage, path: &Path) -> Result<(), OpenError> {
    let directory = path.parent().unwrap_or(path);
    let removed = remove_if_there(storage, path).and_then(|()| storage.sync_dir(directory));
    removed.map_err(OpenError::io(path))
}

fn remove_if_there(storage: &dyn Storage, path: &Path) -> io::Result<()> {
    match storage.remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use anabranch::SimulatedDisk;

    use super::*;

    #[test]
    fn what_would_not_be_read_again_is_not_written() {
        let (disk, path) = (SimulatedDisk::new(), Path::new("/settings/s.json"));
        disk.create_dir(Path::new("/settings")).unwrap();
        let write = |text: &str| write_within(100, &disk, path, &text);
        write(&"x".repeat(98)).unwrap(); // and two quotes
        let refused = write(&"y".repeat(99));
        assert!(matches!(refused, Err(OpenError::TooLarge { bytes: 101, .. })));
        assert!(read_file(&disk, path).unwrap().starts_with(b"\"xxx"));
    }
}
