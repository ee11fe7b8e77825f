//! What the agent knows of its files from one run to the next.
//!
//! The stream itself says how far each file came: the number of its producer's last batch. The registry says which producer belongs to which file, and
//! keeps the offset for the time when retention has removed that batch. A file is in it, safely on the disk, before its first batch is put.
//!
//! One file, `registry`, replaced whole: JSON, and a line with its hash. `LOCK` beside it is held while an agent runs.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anabranch::limits::MAX_NAME_CHARS;
use serde::{Deserialize, Serialize};

use super::identity::{FileId, Fingerprint, HEAD_BYTES};
use super::range::MAX_OFFSET;
use crate::exit::Failure;
use crate::keys::line_hash;

const VERSION: u32 = 1;

/// The largest registry that is read: far above what a stream's 10,000 producers need.
const MAX_REGISTRY_BYTES: u64 = 64 << 20;

/// The registry's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct State {
    version: u32,
    /// The stream that the files go into.
    stream_id: String,
    /// The first part of its producers' names, drawn when the registry was made: a lost registry's names do not come again.
    prefix: String,
    /// The second part of the next producer's name.
    next: u64,
    /// The options that records are made with, as they are typed.
    pub(crate) options: String,
    /// The files, in the order in which they were met.
    pub(crate) files: Vec<Entry>,
}

/// What every version of the registry begins with.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// A file that is followed, or was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Entry {
    /// The name of its producer.
    pub(crate) producer: String,
    /// What the file was called when it was seen first.
    pub(crate) name: String,
    /// What it was called last.
    pub(crate) path: String,
    device: u64,
    inode: u64,
    /// How it begins: of the first KiB, what there was of it when a batch was put last.
    pub(crate) fingerprint: Fingerprint,
    /// What stands before is in the stream, or is not wanted.
    pub(crate) offset: u64,
}

impl Entry {
    pub(crate) fn id(&self) -> FileId {
        FileId { device: self.device, inode: self.inode }
    }

    /// The same file under another identity: a copy of it, or the file that was moved to another file system.
    pub(crate) fn set_id(&mut self, id: FileId) {
        (self.device, self.inode) = (id.device, id.inode);
    }
}

impl State {
    fn new(stream_id: &str) -> Self {
        let drawn = RandomState::new().build_hasher().finish();
        Self {
            version: VERSION,
            stream_id: stream_id.to_owned(),
            prefix: format!("tail-{drawn:016x}-"),
            next: 1,
            options: String::new(),
            files: Vec::new(),
        }
    }

    /// An entry for a file that was not known, with a producer that nobody had.
    pub(crate) fn new_entry(&mut self, path: &Path, id: FileId, fingerprint: Fingerprint, offset: u64) -> Entry {
        let producer = format!("{}{}", self.prefix, self.next);
        self.next += 1;
        let path = path.to_string_lossy().into_owned();
        let name = path.clone();
        let (device, inode) = (id.device, id.inode);
        Entry { producer, name, path, device, inode, fingerprint, offset }
    }

    /// Whether a producer's name is one of those that this registry gave.
    pub(crate) fn has_named(&self, producer: &str) -> bool {
        producer.starts_with(&self.prefix)
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let damaged = || "the registry is damaged".to_owned();
        let text = bytes.strip_suffix(b"\n").ok_or_else(damaged)?;
        let end = memchr::memrchr(b'\n', text).ok_or_else(damaged)? + 1;
        let (json, hash) = text.split_at(end);
        if hash != line_hash(json).as_bytes() {
            return Err(damaged());
        }
        let Version { version } = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        if version != VERSION {
            return Err(format!("the registry has version {version}; this release reads version {VERSION}"));
        }
        let state: Self = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        state.check().map(|()| state)
    }

    fn check(&self) -> Result<(), String> {
        let is_sound = |entry: &Entry| {
            entry.offset <= MAX_OFFSET
                && entry.fingerprint.bytes <= HEAD_BYTES
                && entry.producer.len() <= MAX_NAME_CHARS
                && self.has_named(&entry.producer)
        };
        let wrong = self.files.iter().find(|entry| !is_sound(entry));
        wrong.map_or(Ok(()), |entry| Err(format!("the registry says what cannot be of {}", entry.path)))
    }

    fn to_bytes(&self) -> serde_json::Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        let hash = line_hash(&bytes);
        bytes.extend_from_slice(hash.as_bytes());
        bytes.push(b'\n');
        Ok(bytes)
    }
}

/// Where the state lies, locked for the life of the value.
#[derive(Debug)]
pub(crate) struct Registry {
    directory: PathBuf,
    _lock: File,
}

impl Registry {
    /// Where it lies unless the user says otherwise: beside the stream, which keeps its directory to itself. However the directory was called, one stream
    /// has one registry.
    pub(crate) fn beside(stream: &Path) -> io::Result<PathBuf> {
        let stream = stream.canonicalize()?;
        let mut name = stream.file_name().unwrap_or_default().to_owned();
        name.push(".agent");
        Ok(stream.with_file_name(name))
    }

    /// Takes the directory, made if need be, and reads what is there; nothing at the very first run.
    pub(crate) fn open(directory: &Path, stream_id: &str) -> Result<(Self, State, bool), Failure> {
        let failed = |reason: String| Failure::State { path: directory.to_owned(), reason };
        make(directory).map_err(|error| failed(error.to_string()))?;
        let lock = lock(&directory.join("LOCK")).map_err(failed)?;
        let registry = Self { directory: directory.to_owned(), _lock: lock };
        let known = registry.read().map_err(failed)?;
        let is_new = known.is_none();
        let state = known.unwrap_or_else(|| State::new(stream_id));
        if state.stream_id != stream_id {
            let reason = format!("it is of the stream with id {}, not {stream_id}", state.stream_id);
            return Err(failed(format!("{reason}; another --state begins anew, or remove this one")));
        }
        Ok((registry, state, is_new))
    }

    fn path(&self) -> PathBuf {
        self.directory.join("registry")
    }

    fn read(&self) -> Result<Option<State>, String> {
        match fs::metadata(self.path()) {
            Ok(metadata) if metadata.len() > MAX_REGISTRY_BYTES => Err("the registry is too large".to_owned()),
            Ok(_) => {
                let bytes = fs::read(self.path()).map_err(|error| error.to_string())?;
                State::from_bytes(&bytes).map(Some)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Replaces what is there. When this returns, the new state survives power loss; before, the old one does.
    pub(crate) fn save(&self, state: &State) -> Result<(), Failure> {
        let replace = || -> io::Result<()> {
            let new = self.directory.join("registry.new");
            let bytes = state.to_bytes()?;
            if bytes.len() as u64 > MAX_REGISTRY_BYTES {
                return Err(io::Error::other(
                    "the registry would be larger than is read again: follow fewer files",
                ));
            }
            let mut file = File::create(&new)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&new, self.path())?;
            File::open(&self.directory)?.sync_all()
        };
        replace().map_err(|error| Failure::State { path: self.path(), reason: error.to_string() })
    }
}

/// Makes the directory so that its name survives power loss, too.
fn make(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(directory)?;
    let directory = directory.canonicalize()?;
    directory.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

fn lock(path: &Path) -> Result<File, String> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path);
    let file = file.map_err(|error| error.to_string())?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err("another agent uses it".to_owned()),
        Err(TryLockError::Error(error)) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let mut state = State::new("stream-1");
        state.options = "--format 'x'".to_owned();
        let fingerprint: Fingerprint = serde_json::from_str(r#"{"bytes": 5, "hash": "00"}"#).unwrap();
        let id = FileId { device: 1, inode: u64::MAX };
        let entry = state.new_entry(Path::new("a/ü.log"), id, fingerprint, MAX_OFFSET);
        state.files.push(entry);
        state
    }

    #[test]
    fn what_is_kept_is_what_comes_back() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("s.agent");
        let (registry, mut new, is_new) = Registry::open(&directory, "stream-1").unwrap();
        assert!(is_new && new.files.is_empty());
        new.files = state().files;
        new.files[0].producer = format!("{}7", new.prefix);
        registry.save(&new).unwrap();
        assert!(Registry::open(&directory, "stream-1").unwrap_err().to_string().contains("another agent"));
        drop(registry);
        let (registry, known, is_new) = Registry::open(&directory, "stream-1").unwrap();
        assert_eq!((known, is_new), (new, false));
        drop(registry);
        assert!(Registry::open(&directory, "stream-2").unwrap_err().to_string().contains("stream-1"));
    }

    #[test]
    fn no_damage_is_taken_for_a_registry() {
        let bytes = state().to_bytes().unwrap();
        assert_eq!(State::from_bytes(&bytes), Ok(State::from_bytes(&bytes).unwrap()));
        for at in 0..bytes.len() {
            assert!(State::from_bytes(&bytes[..at]).is_err(), "cut off at {at}");
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert!(State::from_bytes(&flipped).is_err(), "damaged at {at}");
        }
        assert!(State::from_bytes(b"").is_err());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let refused = |change: fn(&mut State)| {
            let mut state = state();
            change(&mut state);
            State::from_bytes(&state.to_bytes().unwrap()).unwrap_err()
        };
        assert!(refused(|state| state.version = 2).contains("version 2"));
        assert!(refused(|state| state.files[0].offset = MAX_OFFSET + 1).contains("ü.log"));
        assert!(refused(|state| state.files[0].fingerprint.bytes = HEAD_BYTES + 1).contains("ü.log"));
        assert!(refused(|state| "other-1".clone_into(&mut state.files[0].producer)).contains("ü.log"));
    }

    #[test]
    fn producers_of_two_registries_have_different_names() {
        assert_ne!(State::new("s").prefix, State::new("s").prefix);
    }

    #[test]
    fn it_lies_beside_the_stream_whatever_that_is_called() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path().canonicalize().unwrap();
        fs::create_dir_all(home.join("clicks")).unwrap();
        fs::create_dir_all(home.join("elsewhere")).unwrap();
        std::os::unix::fs::symlink(home.join("clicks"), home.join("elsewhere/link")).unwrap();
        for called in ["clicks", "clicks/.", "elsewhere/link", "elsewhere/../clicks"] {
            assert_eq!(Registry::beside(&home.join(called)).unwrap(), home.join("clicks.agent"), "{called}");
        }
    }
}
