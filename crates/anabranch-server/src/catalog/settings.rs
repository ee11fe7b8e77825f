//! What the service knows of a stream and the library does not: a small document for each, replaced whole.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anabranch::Timestamp;
use anabranch::storage::{Access, Storage};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::OpenError;
use crate::limits::{DEFAULT_RECORD_KIB, MAX_SETTINGS_BYTES};

/// The version of the document. A later one is refused: what is not understood must not be lost at the next change.
const VERSION: u32 = 1;
const EXTENSION: &str = ".json";
/// Under this name a document is written before it gets its own.
const TEMPORARY: &str = "~new";

/// Who decides how many shards there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Mode {
    #[serde(rename = "PROVISIONED")]
    Provisioned,
    #[serde(rename = "ON_DEMAND")]
    OnDemand,
}

/// The settings of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    version: u32,
    /// Milliseconds since 1970.
    pub(crate) created_ms: i64,
    pub(crate) mode: Mode,
    pub(crate) max_record_kib: u32,
    pub(crate) open_shards: u32,
    /// The create second of each listed shard; see [`sequence`](crate::sequence).
    pub(crate) births: BTreeMap<u32, u64>,
    pub(crate) warm_throughput_mibps: Option<u32>,
    /// The key that the stream says it is encrypted with; nothing is encrypted.
    pub(crate) key_id: Option<String>,
    pub(crate) shard_level_metrics: BTreeSet<String>,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) policy: Option<String>,
    pub(crate) consumers: Vec<ConsumerSettings>,
    /// The last second that went into a consumer's ARN: none is used twice.
    pub(crate) last_consumer_second: i64,
}

/// A consumer with a throughput of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ConsumerSettings {
    pub(crate) name: String,
    /// Part of its ARN: a consumer that is registered again under its name has another.
    pub(crate) arn_second: i64,
    /// Milliseconds since 1970.
    pub(crate) created_ms: i64,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) policy: Option<String>,
}

impl Settings {
    pub(crate) fn new(created: Timestamp, mode: Mode) -> Self {
        Self {
            version: VERSION,
            created_ms: created.as_millis(),
            mode,
            max_record_kib: DEFAULT_RECORD_KIB,
            open_shards: 0,
            births: BTreeMap::new(),
            warm_throughput_mibps: None,
            key_id: None,
            shard_level_metrics: BTreeSet::new(),
            tags: BTreeMap::new(),
            policy: None,
            consumers: Vec::new(),
            last_consumer_second: 0,
        }
    }

    pub(crate) fn created(&self) -> Timestamp {
        Timestamp::from_millis(self.created_ms)
    }

    pub(crate) fn max_record_bytes(&self) -> usize {
        self.max_record_kib as usize * 1_024
    }
}

/// The settings of the streams of a territory.
#[derive(Debug)]
pub(crate) struct SettingsDirectory {
    storage: Arc<dyn Storage>,
    path: PathBuf,
    /// Held while a document is replaced: they share the temporary name.
    writing: Mutex<()>,
}

impl SettingsDirectory {
    pub(super) fn open(storage: Arc<dyn Storage>, path: PathBuf) -> Result<Self, OpenError> {
        match storage.create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(OpenError::io(&path)(error)),
            _ => {}
        }
        if let Some(parent) = path.parent() {
            storage.sync_dir(parent).map_err(OpenError::io(parent))?;
        }
        Ok(Self { storage, path, writing: Mutex::default() })
    }

    /// The names of the streams that have settings.
    pub(super) fn list(&self) -> Result<Vec<String>, OpenError> {
        let entries = self.storage.list(&self.path).map_err(OpenError::io(&self.path))?;
        Ok(entries.iter().filter_map(|entry| entry.name.strip_suffix(EXTENSION)).map(str::to_owned).collect())
    }

    pub(super) fn read(&self, name: &str) -> Result<Option<Settings>, OpenError> {
        let path = self.file(name);
        let bytes = match self.read_file(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(OpenError::io(&path)(error)),
        };
        let damaged = |reason: String| OpenError::Damaged { path: path.clone(), reason };
        let settings: Settings = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        match settings.version {
            VERSION => Ok(Some(settings)),
            other => Err(damaged(format!("version {other}; this release knows version {VERSION}"))),
        }
    }

    fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.storage.open_file(path, Access::Read)?;
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

    /// Replaces the settings of a stream: durable when this returns, and after any crash the old ones or the new.
    pub(super) fn write(&self, name: &str, settings: &Settings) -> Result<(), OpenError> {
        let path = self.file(name);
        let bytes = serde_json::to_vec_pretty(settings).map_err(|error| OpenError::io(&path)(error.into()))?;
        let _writing = self.writing.lock();
        self.replace(&path, &bytes).map_err(OpenError::io(&path))
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let temporary = self.path.join(TEMPORARY);
        remove_if_there(self.storage.as_ref(), &temporary)?;
        let file = self.storage.create_file(&temporary)?;
        file.write_at(bytes, 0)?;
        file.sync()?;
        self.storage.rename(&temporary, path)?;
        self.storage.sync_dir(&self.path)
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), OpenError> {
        let path = self.file(name);
        remove_if_there(self.storage.as_ref(), &path).map_err(OpenError::io(&path))?;
        self.storage.sync_dir(&self.path).map_err(OpenError::io(&self.path))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}{EXTENSION}"))
    }
}

fn remove_if_there(storage: &dyn Storage, path: &Path) -> io::Result<()> {
    match storage.remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
