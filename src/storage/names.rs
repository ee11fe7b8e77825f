//! What is done with names that may be there or not.

use std::io::{self, ErrorKind};
use std::path::Path;

use super::{DirEntry, Fault, Storage};

/// Makes a directory, or takes the one that is there.
pub(crate) fn make_directory(storage: &dyn Storage, path: &Path) -> Result<(), Fault> {
    match storage.create_dir(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(Fault::io("create", path)(error)),
        _ => Ok(()),
    }
}

/// The names in a directory; none if it is not there.
pub(crate) fn list_if_there(storage: &dyn Storage, path: &Path) -> Result<Vec<DirEntry>, Fault> {
    match storage.list(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed.map_err(Fault::io("list", path)),
    }
}

/// Makes what was done to the names in a directory durable; nothing if it is not there.
pub(crate) fn sync_if_there(storage: &dyn Storage, path: &Path) -> Result<(), Fault> {
    match storage.sync_dir(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        synced => synced.map_err(Fault::io("sync", path)),
    }
}

/// Whether it is an answer to who may not change anything there.
pub(crate) fn may_not_write(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
}

/// Removes a file's name; whether it was there.
pub(crate) fn remove_if_there(storage: &dyn Storage, path: &Path) -> Result<bool, Fault> {
    match storage.remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        removed => removed.map(|()| true).map_err(Fault::io("remove", path)),
    }
}
