//! What the service knows of a stream and the library does not: a small document for each, replaced whole.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anabranch::Timestamp;
use anabranch::limits::MAX_SHARDS;
use anabranch::storage::Storage;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::document::{self, VERSION, VERSION_OF_DISTRIBUTIONS, VERSION_OF_QUEUES, Versioned};
use crate::OpenError;
use crate::distribution::Distribution;
use crate::limits::{DEFAULT_RECORD_KIB, MAX_RECORD_KIB};
use crate::sequence::{LAST_SECOND, second};

const EXTENSION: &str = ".json";

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
    #[serde(default)]
    pub(crate) distribution: Distribution,
    pub(crate) consumers: Vec<ConsumerSettings>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) queues: Vec<QueueSettings>,
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

/// A queue over the stream. Where it stands is kept by the library, under its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct QueueSettings {
    pub(crate) name: String,
    /// All that its ARN tells of it: a second that no other queue, and no consumer, has.
    pub(crate) id: i64,
    /// Milliseconds since 1970, as the other times.
    pub(crate) created_ms: i64,
    pub(crate) start: QueueStart,
    /// With [`QueueStart::AtTimestamp`].
    pub(crate) asked_start_ms: Option<i64>,
    /// What became of it: no record that came earlier is given, more or less.
    pub(crate) start_ms: i64,
    pub(crate) visibility_seconds: u32,
    /// After how many receives a record is a dead letter; none for never.
    pub(crate) max_receives: Option<u32>,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) policy: Option<String>,
}

/// Where a queue starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum QueueStart {
    TrimHorizon,
    Latest,
    AtTimestamp,
}

/// What of a stream has tags and a policy of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Stream,
    /// By the second of its ARN.
    Consumer(i64),
    /// By its id.
    Queue(i64),
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
            distribution: Distribution::default(),
            consumers: Vec::new(),
            queues: Vec::new(),
        }
    }

    pub(crate) fn created(&self) -> Timestamp {
        Timestamp::from_millis(self.created_ms)
    }

    /// The first version that knows all of this.
    fn least_version(&self) -> u32 {
        if !self.queues.is_empty() {
            VERSION_OF_QUEUES
        } else if self.distribution != Distribution::default() {
            VERSION_OF_DISTRIBUTIONS
        } else {
            VERSION
        }
    }

    pub(crate) fn queue(&self, id: i64) -> Option<&QueueSettings> {
        self.queues.iter().find(|queue| queue.id == id)
    }

    /// The tags and the policy of a part; nothing if it is gone.
    pub(crate) fn labels(&self, part: Part) -> Option<(&BTreeMap<String, String>, Option<&String>)> {
        let (tags, policy) = match part {
            Part::Stream => (&self.tags, &self.policy),
            Part::Consumer(second) => {
                let consumer = self.consumers.iter().find(|consumer| consumer.arn_second == second)?;
                (&consumer.tags, &consumer.policy)
            }
            Part::Queue(id) => {
                let queue = self.queue(id)?;
                (&queue.tags, &queue.policy)
            }
        };
        Some((tags, policy.as_ref()))
    }

    /// The same, to be changed.
    pub(crate) fn labels_mut(
        &mut self,
        part: Part,
    ) -> Option<(&mut BTreeMap<String, String>, &mut Option<String>)> {
        Some(match part {
            Part::Stream => (&mut self.tags, &mut self.policy),
            Part::Consumer(second) => {
                let consumer = self.consumers.iter_mut().find(|consumer| consumer.arn_second == second)?;
                (&mut consumer.tags, &mut consumer.policy)
            }
            Part::Queue(id) => {
                let queue = self.queues.iter_mut().find(|queue| queue.id == id)?;
                (&mut queue.tags, &mut queue.policy)
            }
        })
    }

    /// Makes the creation time no earlier than this second.
    pub(super) fn raise_created(&mut self, second: u64) {
        let least = i64::try_from(second).unwrap_or(i64::MAX).saturating_mul(1_000);
        self.created_ms = self.created_ms.max(least);
    }

    /// The greatest second in which one of its shards was made.
    pub(super) fn last_birth(&self) -> u64 {
        self.births.values().copied().fold(second(self.created()), u64::max)
    }

    pub(crate) fn max_record_bytes(&self) -> usize {
        self.max_record_kib as usize * 1_024
    }
}

impl Versioned for Settings {
    fn version(&self) -> u32 {
        self.version
    }

    fn check(&self) -> Result<(), String> {
        if let Some((shard, second)) = self.births.iter().find(|(_, second)| **second > LAST_SECOND) {
            return Err(format!("shard {shard} was made in second {second}"));
        }
        if !(DEFAULT_RECORD_KIB..=MAX_RECORD_KIB).contains(&self.max_record_kib) {
            return Err(format!("records of {} KiB", self.max_record_kib));
        }
        if self.open_shards > MAX_SHARDS {
            return Err(format!("{} open shards", self.open_shards));
        }
        Ok(())
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
        // What is found is served: whoever replaced a document, or made the directory, may have died before that was durable.
        for directory in [Some(path.as_path()), path.parent()].into_iter().flatten() {
            storage.sync_dir(directory).map_err(OpenError::io(directory))?;
        }
        Ok(Self { storage, path, writing: Mutex::default() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The names of the streams that have settings.
    pub(super) fn list(&self) -> Result<Vec<String>, OpenError> {
        list(self.storage.as_ref(), &self.path)
    }

    pub(super) fn read(&self, name: &str) -> Result<Option<Settings>, OpenError> {
        read(self.storage.as_ref(), &self.path, name)
    }

    /// Replaces the settings of a stream: durable when this returns.
    pub(super) fn write(&self, name: &str, settings: &Settings) -> Result<(), OpenError> {
        let _writing = self.writing.lock();
        let settings = Settings { version: settings.least_version(), ..settings.clone() };
        document::write(self.storage.as_ref(), &self.file(name), &settings)
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), OpenError> {
        document::remove(self.storage.as_ref(), &self.file(name))
    }

    fn file(&self, name: &str) -> PathBuf {
        file_of(&self.path, name)
    }
}

/// The names of the streams that have settings in a directory of them.
pub(super) fn list(storage: &dyn Storage, directory: &Path) -> Result<Vec<String>, OpenError> {
    let entries = storage.list(directory).map_err(OpenError::io(directory))?;
    Ok(entries.iter().filter_map(|entry| entry.name.strip_suffix(EXTENSION)).map(str::to_owned).collect())
}

/// The settings of a stream in a directory of them; none if it has none.
pub(super) fn read(storage: &dyn Storage, directory: &Path, name: &str) -> Result<Option<Settings>, OpenError> {
    document::read(storage, &file_of(directory, name))
}

fn file_of(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}{EXTENSION}"))
}

#[cfg(test)]
mod tests {
    use anabranch::storage::Operation;
    use anabranch::{Crash, DiskFault, SimulatedDisk};

    use super::*;

    /// A release that does not know of it would leave it out at the next change.
    #[test]
    fn what_came_later_is_of_a_version_of_its_own() {
        let disk = SimulatedDisk::new();
        let directory = SettingsDirectory::open(Arc::new(disk.clone()), "/settings".into()).unwrap();
        let mut settings = Settings::new(Timestamp::from_millis(0), Mode::OnDemand);
        for (distribution, version) in
            [(Distribution::Auto, VERSION_OF_DISTRIBUTIONS), (Distribution::UserPartitionKey, VERSION)]
        {
            settings.distribution = distribution;
            directory.write("s", &settings).unwrap();
            let written: serde_json::Value =
                serde_json::from_slice(&disk.read_file(Path::new("/settings/s.json")).unwrap()).unwrap();
            assert_eq!(written["version"], version);
            assert_eq!(directory.read("s").unwrap().unwrap().distribution, distribution);
        }
        let queue = QueueSettings {
            name: "q".to_owned(),
            id: 7,
            created_ms: 0,
            start: QueueStart::Latest,
            asked_start_ms: None,
            start_ms: 0,
            visibility_seconds: 30,
            max_receives: Some(6),
            tags: BTreeMap::new(),
            policy: None,
        };
        settings.queues.push(queue);
        directory.write("s", &settings).unwrap();
        let written = disk.read_file(Path::new("/settings/s.json")).unwrap();
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&written).unwrap()["version"], VERSION_OF_QUEUES);
        assert_eq!(directory.read("s").unwrap().unwrap().queues, settings.queues);
    }

    /// A server is killed behind a rename that is not durable: what the next one serves, no power cut takes back.
    #[test]
    fn what_an_opening_finds_stays() {
        let disk = SimulatedDisk::new();
        let open =
            |disk: &SimulatedDisk| SettingsDirectory::open(Arc::new(disk.clone()), "/settings".into()).unwrap();
        let mut settings = Settings::new(Timestamp::from_millis(0), Mode::Provisioned);
        let directory = open(&disk);
        directory.write("s", &settings).unwrap();
        settings.open_shards = 7;
        disk.fail_on(Operation::SyncDir, 0, DiskFault::Error(io::ErrorKind::Other));
        directory.write("s", &settings).unwrap_err();
        let found = open(&disk).read("s").unwrap().unwrap();
        assert_eq!(found.open_shards, 7, "it was replaced");
        for seed in 0..32 {
            let disk = disk.fork(Crash::PowerLost { seed });
            assert_eq!(open(&disk).read("s").unwrap().as_ref(), Some(&found), "{seed}");
        }
    }

    #[test]
    fn numbers_that_nobody_wrote_are_damage() {
        let directory = SettingsDirectory::open(Arc::new(SimulatedDisk::new()), "/settings".into()).unwrap();
        let damages: [fn(&mut Settings); 4] = [
            |settings| settings.births = BTreeMap::from([(0, 7), (3, u64::MAX)]),
            |settings| settings.max_record_kib = 0,
            |settings| settings.max_record_kib = u32::MAX,
            |settings| settings.open_shards = u32::MAX,
        ];
        for damage in damages {
            let mut settings = Settings::new(Timestamp::from_millis(0), Mode::Provisioned);
            directory.write("s", &settings).unwrap();
            directory.read("s").unwrap().unwrap();
            damage(&mut settings);
            directory.write("s", &settings).unwrap();
            assert!(matches!(directory.read("s"), Err(OpenError::Damaged { .. })), "{settings:?}");
        }
    }
}
