//! A small JSON file that is read whole and replaced whole: after any crash it is the old one or the new.

use std::io;
use std::path::Path;

use anabranch::storage::{Access, Storage};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::OpenError;
use crate::limits::MAX_SETTINGS_BYTES;

/// The version of the documents. A later one is refused: what is not understood must not be lost at the next change.
pub(super) const VERSION: u32 = 1;
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
        VERSION => Ok(Some(document)),
        other => Err(damaged(format!("version {other}; this release knows version {VERSION}"))),
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
    let bytes = serde_json::to_vec_pretty(document).map_err(|error| OpenError::io(path)(error.into()))?;
    let length = bytes.len() as u64;
    if length > MAX_SETTINGS_BYTES {
        return Err(OpenError::TooLarge { path: path.to_path_buf(), bytes: length });
    }
    replace(storage, path, &bytes).map_err(OpenError::io(path))
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
        write(&disk, path, &"small").unwrap();
        let before = read_file(&disk, path).unwrap();
        let most = usize::try_from(MAX_SETTINGS_BYTES).unwrap();
        let refused = write(&disk, path, &"x".repeat(most - 1)); // and two quotes
        assert!(matches!(refused, Err(OpenError::TooLarge { bytes, .. }) if bytes == MAX_SETTINGS_BYTES + 1));
        assert_eq!(read_file(&disk, path).unwrap(), before);
        write(&disk, path, &"x".repeat(most - 2)).unwrap();
        assert_eq!(read_file(&disk, path).unwrap().len(), most);
    }
}
