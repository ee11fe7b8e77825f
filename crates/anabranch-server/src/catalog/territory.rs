//! An account in a region: its streams, which are found, made and deleted here, and counted against its limits.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anabranch::{Limits, PartitionHash, Store, Stream, Timestamp};
use parking_lot::{Mutex, RwLock};

use super::settings::SettingsDirectory;
use super::{AccountFile, Common, Entry, Key, Mode, Settings, Status, resting};
use super::{SETTINGS, STREAMS, account_file, sync_names};
use crate::OpenError;
use crate::errors::Fault;
use crate::limits::{MAX_CREATING_STREAMS, MAX_DATA_BYTES, MAX_PUT_BYTES, MAX_PUT_RECORDS, ON_DEMAND_STREAMS};

/// An account in a region.
#[derive(Debug)]
pub(crate) struct Territory {
    account: String,
    region: String,
    pub(super) common: Common,
    pub(super) store: Store,
    pub(super) settings: Arc<SettingsDirectory>,
    pub(crate) account_file: AccountFile,
    streams: RwLock<BTreeMap<String, Arc<Entry>>>,
    /// Held while a stream is made or deleted, and while shards are counted and added.
    changes: Mutex<()>,
}

impl Territory {
    pub(super) fn open(path: &Path, (account, region): &Key, common: &Common) -> Result<Self, OpenError> {
        let store = Store::builder().clock(Arc::clone(&common.clock)).storage(Arc::clone(&common.storage));
        let territory = Self {
            account: account.clone(),
            region: region.clone(),
            common: common.clone(),
            store: store.open(path.join(STREAMS))?,
            settings: Arc::new(SettingsDirectory::open(Arc::clone(&common.storage), path.join(SETTINGS))?),
            account_file: account_file(path, common),
            streams: RwLock::default(),
            changes: Mutex::default(),
        };
        sync_names(common.storage.as_ref(), path).map_err(OpenError::io(path))?;
        territory.load()?;
        Ok(territory)
    }

    /// Finds the streams and their settings, and clears away what a crash left.
    fn load(&self) -> Result<(), OpenError> {
        let names = self.store.list()?;
        let kept = self.settings.list()?;
        for name in kept.iter().filter(|name| names.binary_search(name).is_err()) {
            match self.why_lost(name) {
                Some(reason) => {
                    self.streams.write().insert(name.clone(), Arc::new(self.entry(name, Err(reason))));
                }
                None => self.settings.remove(name)?,
            }
        }
        for name in names {
            let settings = match self.settings.read(&name) {
                Ok(Some(settings)) => Ok(settings),
                Ok(None) => self.adopt(&name),
                Err(error) => Err(error),
            };
            // Damaged settings are an error of their stream, not of all others.
            let settings = settings.map(Arc::new).map_err(|error| error.to_string());
            self.streams.write().insert(name.clone(), Arc::new(self.entry(&name, settings)));
        }
        Ok(())
    }

    fn why_lost(&self, name: &str) -> Option<String> {
        resting::why_lost(self.common.storage.as_ref(), self.store.path(), self.settings.path(), name)
    }

    fn adopt(&self, name: &str) -> Result<Settings, OpenError> {
        let created = self.store.open_stream(name)?.describe()?.created;
        let settings = Settings::new(created, Mode::Provisioned);
        self.settings.write(name, &settings)?;
        Ok(settings)
    }

    fn entry(&self, name: &str, settings: Result<Arc<Settings>, String>) -> Entry {
        Entry::new(name, (&self.account, &self.region), &self.common, (&self.store, &self.settings), settings)
    }

    pub(crate) fn stream(&self, name: &str) -> Option<Arc<Entry>> {
        self.streams.read().get(name).filter(|entry| self.is_shown(entry)).cloned()
    }

    /// The stream of a queue.
    pub(crate) fn stream_of_queue(&self, id: i64) -> Option<Arc<Entry>> {
        let now = self.common.clock.now();
        self.entries().into_iter().find(|entry| entry.queue(id, now).is_some())
    }

    /// All streams, by name.
    pub(crate) fn entries(&self) -> Vec<Arc<Entry>> {
        self.streams.read().values().filter(|entry| self.is_shown(entry)).cloned().collect()
    }

    /// A stream that was deleted is shown for as long as its deletion is said to last.
    fn is_shown(&self, entry: &Entry) -> bool {
        !entry.is_gone() || entry.status(self.common.clock.now()) == Status::Deleting
    }

    /// Makes a stream: it is there, durably and with its settings, when this returns, or not at all. What was deleted before has earlier
    /// creation times, to the second. `shown` is what it is said to be doing at first: creating, or nothing where nobody is to wait for it.
    pub(crate) fn create(
        &self,
        name: &str,
        mut settings: Settings,
        shards: u32,
        shown: Status,
    ) -> Result<(), Fault> {
        let _change = self.common.changes.begin()?;
        let _changes = self.changes.lock();
        if self.stream(name).is_some() {
            return Err(Fault::in_use(format!("Stream {name} under account {} already exists.", self.account)));
        }
        // One that came from elsewhere: it is found when the server is started again, and neither it nor its settings are touched before.
        let present = self.store.list().map_err(Fault::internal)?;
        if present.iter().any(|present| present == name) || self.why_lost(name).is_some() {
            return Err(Fault::in_use(format!(
                "There are files of a stream {name} that the server does not know."
            )));
        }
        self.check_room(settings.mode, shards)?;
        if shown == Status::Creating {
            self.check_creating(self.common.clock.now())?;
        }
        settings.raise_created(self.account_file.stream_second(settings.created())?);
        self.settings.write(name, &settings)?;
        let entry = Arc::new(self.entry(name, Ok(Arc::new(settings))));
        let made = self.make(name, shards).map_err(Fault::internal).and_then(|()| entry.stream());
        let made = made.and_then(|stream| entry.note_shards(&stream)); // if it was not noted when it was opened
        // What cannot be undone is a stream like others, so that it can be deleted; its name would be lost otherwise.
        if made.is_ok() || (entry.delete(&self.account_file, true).is_err() && !entry.is_gone()) {
            entry.begin(shown, self.common.clock.now());
            self.streams.write().insert(name.to_owned(), entry);
        }
        made
    }

    fn make(&self, name: &str, shards: u32) -> anabranch::Result<()> {
        let limits = Limits {
            max_data_bytes: u32::try_from(MAX_DATA_BYTES).unwrap_or(u32::MAX),
            max_batch_records: u32::try_from(MAX_PUT_RECORDS).unwrap_or(u32::MAX),
            max_batch_bytes: u32::try_from(2 * MAX_PUT_BYTES).unwrap_or(u32::MAX),
            ..Limits::default()
        };
        let options = Stream::builder()
            .shards(shards)
            .partition_hash(PartitionHash::Md5)
            .durability(self.common.durability)
            .limits(limits);
        self.store.create(name, options).map(drop)
    }

    fn check_room(&self, mode: Mode, shards: u32) -> Result<(), Fault> {
        match mode {
            Mode::Provisioned => self.check_shards(shards),
            Mode::OnDemand => self.check_on_demand(),
        }
    }

    /// Refuses one more stream on demand where there are as many as there may be.
    pub(crate) fn check_on_demand(&self) -> Result<(), Fault> {
        if self.on_demand_streams() < ON_DEMAND_STREAMS {
            return Ok(());
        }
        Err(Fault::limit(format!(
            "This request would exceed the on-demand stream limit for the account {} in {}. Limit: {ON_DEMAND_STREAMS}.",
            self.account, self.region
        )))
    }

    fn check_creating(&self, now: Timestamp) -> Result<(), Fault> {
        let creating = self.entries().iter().filter(|entry| entry.status(now) == Status::Creating).count();
        if creating < MAX_CREATING_STREAMS {
            return Ok(());
        }
        Err(Fault::limit(format!(
            "This request would exceed the limit of {MAX_CREATING_STREAMS} streams in state CREATING for the account {} in {}.",
            self.account, self.region
        )))
    }

    /// Refuses what would take the account over its limit of open shards.
    pub(crate) fn check_shards(&self, more: u32) -> Result<(), Fault> {
        check_shards((&self.account, &self.region), self.open_shards(), more, self.common.shard_limit)
    }

    /// The open shards of all provisioned streams.
    pub(crate) fn open_shards(&self) -> u32 {
        self.of_mode(Mode::Provisioned).fold(0, |sum, settings| sum.saturating_add(settings.open_shards))
    }

    pub(crate) fn on_demand_streams(&self) -> usize {
        self.of_mode(Mode::OnDemand).count()
    }

    fn of_mode(&self, mode: Mode) -> impl Iterator<Item = Arc<Settings>> {
        let present = self.entries().into_iter().filter(|entry| !entry.is_gone());
        let settings = present.filter_map(|entry| entry.settings().ok());
        settings.filter(move |settings| settings.mode == mode)
    }

    /// Holds off whoever else wants to add shards; in an [update](Entry::update).
    pub(crate) fn while_counting<T>(&self, change: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
        let _changes = self.changes.lock();
        change()
    }

    /// The same in what is no update of a stream.
    pub(crate) fn while_adding<T>(&self, change: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
        let _change = self.common.changes.begin()?;
        self.while_counting(change)
    }

    /// Deletes a stream with everything in it; calls that are at work on it find it closed. One that was deleted meanwhile is not found, whatever has its name now.
    pub(crate) fn delete(&self, entry: &Arc<Entry>, takes_consumers: bool) -> Result<(), Fault> {
        let _change = self.common.changes.begin()?;
        let _changes = self.changes.lock();
        if !self.stream(&entry.name).is_some_and(|present| Arc::ptr_eq(&present, entry)) {
            return Err(entry.not_found());
        }
        if let Some(reason) = self.why_lost(&entry.name) {
            return Err(Fault::internal(reason)); // whoever brings the rest back is to find it
        }
        let outcome = entry.delete(&self.account_file, takes_consumers);
        // Also those whose deletion was shown for long enough. Settings that could not be removed are replaced by the next ones.
        self.streams.write().retain(|_, entry| self.is_shown(entry));
        outcome
    }
}

pub(super) fn check_shards(
    (account, region): (&str, &str),
    open: u32,
    more: u32,
    limit: u32,
) -> Result<(), Fault> {
    if u64::from(open) + u64::from(more) <= u64::from(limit) {
        return Ok(());
    }
    Err(Fault::limit(format!(
        "This request would exceed the shard limit for the account {account} in {region}. Current shard count for the account: {open}. Limit: {limit}. \
         Number of additional shards that would have resulted from this request: {more}. Refer to the AWS Service Limits page \
         (https://docs.aws.amazon.com/general/latest/gr/aws_service_limits.html) for current limits and how to request higher limits."
    )))
}
