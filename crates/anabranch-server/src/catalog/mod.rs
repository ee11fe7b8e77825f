//! The streams of all accounts and regions, and where they lie.
//!
//! ```text
//! DATA/ACCOUNT/REGION/streams/NAME/...      a stream of the library
//! DATA/ACCOUNT/REGION/settings/NAME.json    what the service knows of a stream and the library does not
//! DATA/ACCOUNT/REGION/account.json          what it knows of the account there beside its streams
//! DATA/LOCK                                 held by the one server of the directory
//! ```
//!
//! A [*territory*](Territory) is an account in a region; it is opened when somebody first asks for it, and a stream when somebody first asks for that, so that starting costs
//! nothing however much there is.
//!
//! A stream is there if the library has it. Its settings are written before it is made and removed after it is gone, each in one step that is durable, so that
//! whatever a crash leaves is either whole or settings without a stream, which are removed. A directory that lost its MANIFEST, and has settings, is a stream that nobody can open: it
//! keeps its name and its settings, and says so. A stream whose settings were lost is given new ones: its records are worth more.

mod account;
mod changes;
mod document;
mod entry;
mod queues;
mod resting;
mod settings;
mod status;
mod territory;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anabranch::storage::{LockGuard, Storage};
use anabranch::{CapacityPolicy, Clock, Durability, Error, Store};
use parking_lot::Mutex;

pub(crate) use account::{AccountFile, Commitment, CommitmentStatus};
pub(crate) use changes::Changes;
pub(crate) use entry::Entry;
pub(crate) use resting::Resting;
pub(crate) use settings::{ConsumerSettings, Mode, Part, QueueSettings, QueueStart, Settings};
pub(crate) use status::Status;
pub(crate) use territory::Territory;

use crate::OpenError;
use crate::arn::is_account;
use crate::errors::Fault;
use crate::http_protocol::is_region;
use crate::limits::MAX_TERRITORIES;
use territory::check_shards;

/// The directory of a territory's streams.
const STREAMS: &str = "streams";
/// The directory of their settings.
const SETTINGS: &str = "settings";
/// What the service knows of an account in a region.
const ACCOUNT_FILE: &str = "account.json";
/// Locked by the server of a directory.
const LOCK_FILE: &str = "LOCK";

/// What the streams of a server have in common.
#[derive(Debug, Clone)]
pub(crate) struct Common {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) durability: Durability,
    pub(crate) enforce_limits: bool,
    pub(crate) shard_limit: u32,
    pub(crate) on_demand: CapacityPolicy,
    pub(crate) transition_delay: Duration,
    pub(crate) changes: Changes,
}

#[cfg(test)]
impl Common {
    /// On this disk, with nothing out of the ordinary.
    pub(crate) fn of_tests(disk: &anabranch::SimulatedDisk) -> Self {
        Self {
            clock: Arc::new(anabranch::ManualClock::default()),
            storage: Arc::new(disk.clone()),
            durability: Durability::Synced,
            enforce_limits: false,
            shard_limit: 100,
            on_demand: CapacityPolicy::default(),
            transition_delay: Duration::ZERO,
            changes: Changes::default(),
        }
    }
}

/// All accounts and regions.
#[derive(Debug)]
pub(crate) struct Catalog {
    path: PathBuf,
    common: Common,
    /// Two servers would replace each other's settings.
    _lock: Box<dyn LockGuard>,
    /// Held for moments only.
    places: Mutex<BTreeMap<Key, Arc<Place>>>,
}

/// An account and a region.
type Key = (String, String);

/// Where a territory is once it is open.
#[derive(Debug, Default)]
struct Place {
    /// Held while it is opened, which can take long.
    opening: Mutex<()>,
    territory: OnceLock<Arc<Territory>>,
}

/// A territory as those see it who only look.
#[derive(Debug)]
pub(crate) enum Surveyed {
    Open(Arc<Territory>),
    Resting(Resting),
}

impl Catalog {
    pub(crate) fn open(path: PathBuf, common: Common) -> Result<Self, OpenError> {
        drop(Store::builder().storage(Arc::clone(&common.storage)).background(false).open(&path)?); // makes the directory
        let file = path.join(LOCK_FILE);
        let lock = common.storage.lock(&file).map_err(OpenError::io(&file))?;
        let lock = lock.ok_or_else(|| Error::Locked(path.clone()))?;
        Ok(Self { path, common, _lock: lock, places: Mutex::default() })
    }

    /// The streams of an account in a region; nothing where there never were any.
    pub(crate) fn territory(&self, account: &str, region: &str) -> Result<Option<Arc<Territory>>, Fault> {
        let key = (account.to_owned(), region.to_owned());
        if let Some(territory) = self.opened(&key) {
            return Ok(Some(territory));
        }
        if self.is_territory(&key)? { self.open_territory(&key).map(Some) } else { Ok(None) }
    }

    /// The same, if it is open.
    pub(crate) fn opened_territory(&self, account: &str, region: &str) -> Option<Arc<Territory>> {
        self.opened(&(account.to_owned(), region.to_owned()))
    }

    /// The same, made if need be.
    pub(crate) fn make_territory(&self, account: &str, region: &str) -> Result<Arc<Territory>, Fault> {
        let key = (account.to_owned(), region.to_owned());
        self.opened(&key).map_or_else(|| self.open_territory(&key), Ok)
    }

    /// All that are there, by account and region; and why one, or what is known of an account, cannot be told of. Those that nobody has asked for yet are read, and neither opened nor
    /// changed.
    pub(crate) fn survey(&self) -> Vec<Result<Surveyed, Fault>> {
        let keys = match self.keys() {
            Ok(keys) => keys,
            Err(fault) => return vec![Err(fault)],
        };
        keys.into_iter()
            .flat_map(|key| key.map_or_else(|fault| vec![Err(fault)], |key| self.look_at(key)))
            .collect()
    }

    fn look_at(&self, key: Key) -> Vec<Result<Surveyed, Fault>> {
        let path = self.path_of(&key);
        let account = account_file(&path, &self.common).read().err().map(Err);
        let surveyed = match self.opened(&key) {
            Some(territory) => Ok(Surveyed::Open(territory)),
            None => Resting::read(&path, key, self.common.storage.as_ref()).map(Surveyed::Resting),
        };
        [surveyed].into_iter().chain(account).collect()
    }

    /// The accounts and regions that have streams.
    fn keys(&self) -> Result<Vec<Result<Key, Fault>>, Fault> {
        let mut keys = Vec::new();
        for account in self.directories(&self.path, is_account)? {
            match self.directories(&self.path.join(&account), is_region) {
                Ok(regions) => keys.extend(regions.into_iter().map(|region| Ok((account.clone(), region)))),
                Err(fault) => keys.push(Err(fault)),
            }
        }
        let has_streams = |key: Key| self.is_territory(&key).map(|is_one| is_one.then_some(key)).transpose();
        Ok(keys.into_iter().filter_map(|key| key.map_or_else(|fault| Some(Err(fault)), has_streams)).collect())
    }

    /// The directories in a directory that have a name of a kind.
    fn directories(&self, path: &Path, is_name: fn(&str) -> bool) -> Result<Vec<String>, Fault> {
        let listed =
            self.common.storage.list(path).map_err(|error| Fault::internal(OpenError::io(path)(error)))?;
        let meant = listed.into_iter().filter(|entry| entry.is_dir && is_name(&entry.name));
        let mut names: Vec<_> = meant.map(|entry| entry.name).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Whether there are streams, or were: other directories that happen to have such names are nobody's.
    fn is_territory(&self, key: &Key) -> Result<bool, Fault> {
        let path = self.path_of(key);
        match self.common.storage.list(&path) {
            Ok(entries) => Ok(entries.iter().any(|entry| entry.is_dir && entry.name == STREAMS)),
            Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind()) => {
                Ok(false)
            }
            Err(error) => Err(Fault::internal(OpenError::io(&path)(error))),
        }
    }

    /// Refuses a first stream of an account in a region that could not be made, before anything is made for it.
    pub(crate) fn check_first(&self, of: (&str, &str), mode: Mode, shards: u32) -> Result<(), Fault> {
        match mode {
            Mode::Provisioned => check_shards(of, 0, shards, self.common.shard_limit),
            Mode::OnDemand => Ok(()),
        }
    }

    fn path_of(&self, (account, region): &Key) -> PathBuf {
        self.path.join(account).join(region)
    }

    fn opened(&self, key: &Key) -> Option<Arc<Territory>> {
        self.places.lock().get(key).and_then(|place| place.territory.get().cloned())
    }

    /// Who asks for the same one waits meanwhile, and nobody else does.
    fn open_territory(&self, key: &Key) -> Result<Arc<Territory>, Fault> {
        let place = self.place(key)?;
        let _opening = place.opening.lock();
        if let Some(territory) = place.territory.get() {
            return Ok(Arc::clone(territory)); // somebody was faster
        }
        match Territory::open(&self.path_of(key), key, &self.common) {
            Ok(territory) => Ok(Arc::clone(place.territory.get_or_init(|| Arc::new(territory)))),
            Err(error) => {
                self.give_back(key, &place);
                Err(Fault::internal(error))
            }
        }
    }

    /// Makes a place free in which nothing could be opened, unless somebody else is about to try.
    fn give_back(&self, key: &Key, place: &Arc<Place>) {
        let mut places = self.places.lock();
        let (own, listed) = (1, 1); // nobody gets another one but under the lock
        if Arc::strong_count(place) == own + listed {
            places.remove(key);
        }
    }

    fn place(&self, key: &Key) -> Result<Arc<Place>, Fault> {
        let mut places = self.places.lock();
        if places.len() >= MAX_TERRITORIES && !places.contains_key(key) {
            return Err(Fault::limit(format!(
                "The server has streams in {MAX_TERRITORIES} accounts and regions."
            )));
        }
        Ok(Arc::clone(places.entry(key.clone()).or_default()))
    }

    /// Splits and merges the shards of the open streams on demand as their load asks for.
    pub(crate) fn rebalance(&self) -> anabranch::Result<()> {
        self.for_each(Entry::rebalance)
    }

    /// Makes everything durable and ends all writing. The territories stay: whoever is at work in one has the same settings as those who come later.
    pub(crate) fn close(&self) -> anabranch::Result<()> {
        self.for_each(Entry::close)
    }

    /// Does something with all streams of the open territories, whatever comes of it with one of them.
    fn for_each(&self, work: fn(&Entry) -> anabranch::Result<()>) -> anabranch::Result<()> {
        let territories: Vec<_> =
            self.places.lock().values().filter_map(|place| place.territory.get().cloned()).collect();
        let mut outcome = Ok(());
        for entry in territories.iter().flat_map(|territory| territory.entries()) {
            outcome = outcome.and(work(&entry)); // all are tried
        }
        outcome
    }
}

fn account_file(path: &Path, common: &Common) -> AccountFile {
    AccountFile::new(Arc::clone(&common.storage), path.join(ACCOUNT_FILE))
}

/// Makes the names durable that lead to a directory: what is kept in it would be lost with one of them. A directory that may not be read was not made by the server.
pub(crate) fn sync_names(storage: &dyn Storage, path: &Path) -> io::Result<()> {
    for directory in path.ancestors().skip(1) {
        let is_here = directory.as_os_str().is_empty();
        let directory = if is_here { Path::new(".") } else { directory };
        match storage.sync_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => break,
            other => other?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
