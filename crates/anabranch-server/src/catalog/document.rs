//! A small JSON file that is read whole and replaced whole: after any crash it is the old one or the new.
//!
//! Its last member is a checksum of all before it. Whoever changes a document by hand takes that member out; one without it, as earlier releases wrote them, is not checked.

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

/// What stands before the checksum, the last member of a document, and what behind it.
const CHECKSUM: &[u8] = b",\n  \"checksum\": ";
const END: &[u8] = b"\n}";

/// What says of which version it is, and whether it could have been written.
pub(super) trait Versioned {
    fn version(&self) -> u32;

    /// Refuses numbers that nobody could have written.
    fn check(&self) -> Result<(), String>;
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
        VERSION..=LATEST_VERSION => {}
        other => {
            return Err(damaged(format!("version {other}; this release knows versions up to {LATEST_VERSION}")));
        }
    }
    check_sum(&bytes).and_then(|()| document.check()).map_err(damaged)?;
    Ok(Some(document))
}

/// The text with its checksum as a last member. A document without members has none.
fn sealed(mut text: Vec<u8>) -> Vec<u8> {
    let checksum = crc32fast::hash(&text);
    if let Some(length) = text.strip_suffix(END).map(<[u8]>::len) {
        text.truncate(length);
        text.extend_from_slice(CHECKSUM);
        text.extend_from_slice(checksum.to_string().as_bytes());
        text.extend_from_slice(END);
    }
    text
}

fn check_sum(bytes: &[u8]) -> Result<(), String> {
    let digits = |byte: &u8| byte.is_ascii_digit();
    let Some(text) = bytes.strip_suffix(END) else { return Ok(()) };
    let (before, number) = text.split_at(text.len() - text.iter().rev().take_while(|byte| digits(byte)).count());
    let Some(before) = before.strip_suffix(CHECKSUM) else { return Ok(()) };
    let mut found = crc32fast::Hasher::new();
    found.update(before);
    found.update(END);
    let is_right = std::str::from_utf8(number).is_ok_and(|number| number == found.finalize().to_string());
    if is_right { Ok(()) } else { Err("the checksum is that of another text".to_owned()) }
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
    let text =
        serde_json::to_vec_pretty(document).map(sealed).map_err(|error| OpenError::io(path)(error.into()))?;
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

    #[derive(Debug, Serialize, serde::Deserialize)]
    struct Small {
        version: u32,
        number: u64,
    }

    impl Versioned for Small {
        fn version(&self) -> u32 {
            self.version
        }

        fn check(&self) -> Result<(), String> {
            if self.number < 1_000 { Ok(()) } else { Err(format!("number {}", self.number)) }
        }
    }

    #[test]
    fn a_document_is_read_as_it_was_written_or_not_at_all() {
        let (disk, path) = (SimulatedDisk::new(), Path::new("/settings/s.json"));
        disk.create_dir(Path::new("/settings")).unwrap();
        let read_back = |bytes: &[u8]| {
            replace(&disk, path, bytes).unwrap();
            read::<Small>(&disk, path).map(|found| found.unwrap().number)
        };
        let text = serde_json::to_vec_pretty(&Small { version: VERSION, number: 577 }).unwrap();
        let whole = sealed(text.clone());
        assert_eq!(read_back(&whole).unwrap(), 577);
        assert_eq!(read_back(&text).unwrap(), 577, "of an earlier release, or changed by hand");
        let place = whole.windows(3).position(|digits| digits == b"577").unwrap();
        for (offset, bit) in (0..3).flat_map(|offset| [1, 2, 4].map(|bit| (offset, bit))) {
            let mut damaged = whole.clone();
            damaged[place + offset] ^= bit;
            let refused = read_back(&damaged).unwrap_err();
            assert!(matches!(refused, OpenError::Damaged { .. }), "{refused}");
        }
        let impossible = serde_json::to_vec_pretty(&Small { version: VERSION, number: 1_000 }).unwrap();
        for bytes in [sealed(impossible.clone()), impossible] {
            assert!(matches!(read_back(&bytes), Err(OpenError::Damaged { .. })));
        }
    }
}
