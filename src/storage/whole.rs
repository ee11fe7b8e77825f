//! Files that are written and read whole.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use super::{Access, Corruption, Fault, Storage, StorageFile, remove_if_there};

/// A new file of these bytes, synced: its bytes are durable, its name is not. What an interrupted writing left under the name goes.
pub(crate) fn write_whole(
    storage: &dyn Storage,
    path: &Path,
    bytes: &[u8],
) -> Result<Arc<dyn StorageFile>, Fault> {
    remove_if_there(storage, path)?;
    let file = storage.create_file(path).map_err(Fault::io("create", path))?;
    file.write_at(bytes, 0).map_err(Fault::io("write", path))?;
    file.sync().map_err(Fault::io("sync", path))?;
    Ok(file)
}

/// Puts a file of these bytes in the place of another, written under the name `new` before: after a crash there is the one or the other. It is
/// durable once the directory was synced, which is the caller's to do.
pub(crate) fn replace_whole(
    storage: &dyn Storage,
    new: &Path,
    path: &Path,
    bytes: &[u8],
) -> Result<Arc<dyn StorageFile>, Fault> {
    let file = write_whole(storage, new, bytes)?;
    storage.rename(new, path).map_err(Fault::io("rename", new))?;
    Ok(file)
}

/// All of a file; nothing if there is none. One of more than `most` bytes is damaged, and is not read.
pub(crate) fn read_whole(storage: &dyn Storage, path: &Path, most: u64) -> Result<Option<Vec<u8>>, Fault> {
    let file = match storage.open_file(path, Access::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Fault::io("open", path)(error)),
    };
    let length = file.len().map_err(Fault::io("read the length of", path))?;
    let fitting = usize::try_from(length).ok().filter(|_| length <= most);
    let too_long = || Corruption::new(path, 0, format!("it has {length} bytes, and can have {most} at most"));
    let mut bytes = vec![0; fitting.ok_or_else(too_long)?];
    let read = file.read_at(&mut bytes, 0).map_err(Fault::io("read", path))?;
    bytes.truncate(read);
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::SimulatedDisk;

    /// Nothing is allocated for it before: the length is all that is known of a file that may be anything.
    #[test]
    fn a_file_that_is_too_long_is_damaged() {
        let (disk, path) = (SimulatedDisk::new(), Path::new("file"));
        write_whole(&disk, path, &[7; 10]).unwrap();
        assert_eq!(read_whole(&disk, path, 10).unwrap(), Some(vec![7; 10]));
        let refused = read_whole(&disk, path, 9);
        assert!(matches!(&refused, Err(Fault::Corrupt(damage)) if damage.path == path), "{refused:?}");
        assert_eq!(read_whole(&disk, Path::new("other"), 10).unwrap(), None);
    }
}
