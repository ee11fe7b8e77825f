//! One stream: the library's, and its settings.
//!
//! Opening a stream can take long, when it is recovered. Who needs the stream waits for that, at a lock of its own; who only looks, or reads sockets, is told at once that it is not
//! open. The same goes for a change of the shards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anabranch::{
    Capacity, CapacityPolicy, Clock, Error, ErrorKind, Quotas, ShardId, ShardSummary, Store, Stream, Timestamp,
};
use parking_lot::{Mutex, RwLock};

use super::queues::Queues;
use super::settings::{ConsumerSettings, Mode, Settings, SettingsDirectory};
use super::status::{Status, Transition};
use super::{AccountFile, Changes, Common};
use crate::distribution::{Distribution, Spread};
use crate::errors::{Fault, FaultKind};
use crate::observe::Traffic;
use crate::rates::StreamRates;
use crate::sequence::{LAST_SECOND, ShardNumbers, second};
use crate::subscription::Subscribers;
use crate::{OpenError, arn};

/// A stream of an account in a region.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) account: String,
    pub(crate) region: String,
    pub(crate) arn: String,
    pub(crate) subscribers: Subscribers,
    pub(super) queues: Queues,
    spread: Spread,
    pub(crate) traffic: Traffic,
    changes: Changes,
    enforce_limits: bool,
    rates: StreamRates,
    on_demand: CapacityPolicy,
    pub(super) clock: Arc<dyn Clock>,
    transition: Transition,
    store: Store,
    directory: Arc<SettingsDirectory>,
    /// What is in force; or why its file cannot be read.
    settings: RwLock<Result<Arc<Settings>, String>>,
    /// Held through a change of the shards, which can take long.
    resharding: Mutex<()>,
    /// Held while the settings are replaced, and no longer: puts that meet a new shard wait for it.
    changing: Mutex<()>,
    /// Set while its files are deleted, which can take long; `changing` is held meanwhile.
    is_going: AtomicBool,
    /// Set before that ends: from then on the file of the settings is that of another stream, or of none.
    is_gone: AtomicBool,
    /// Held while it is opened or closed, which can take long.
    opening: Mutex<()>,
    /// Opened when it is first asked for. Held for moments only.
    stream: RwLock<Option<Stream>>,
    /// Why it could not be opened, or why one of its shards refuses records or is damaged, until the stream is opened again.
    failure: Mutex<Option<String>>,
    /// Why its settings could not be written, until they are.
    unwritten: Mutex<Option<String>>,
}

impl Entry {
    pub(super) fn new(
        name: &str,
        (account, region): (&str, &str),
        common: &Common,
        (store, directory): (&Store, &Arc<SettingsDirectory>),
        settings: Result<Arc<Settings>, String>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            account: account.to_owned(),
            region: region.to_owned(),
            arn: arn::of_stream(region, account, name),
            subscribers: Subscribers::default(),
            queues: Queues::new(common.transition_delay),
            spread: Spread::default(),
            traffic: Traffic::default(),
            changes: common.changes.clone(),
            enforce_limits: common.enforce_limits,
            rates: StreamRates::default(),
            on_demand: common.on_demand,
            clock: Arc::clone(&common.clock),
            transition: Transition::new(common.transition_delay),
            store: store.clone(),
            directory: Arc::clone(directory),
            settings: RwLock::new(settings),
            resharding: Mutex::default(),
            changing: Mutex::default(),
            is_going: AtomicBool::new(false),
            is_gone: AtomicBool::new(false),
            opening: Mutex::default(),
            stream: RwLock::default(),
            failure: Mutex::default(),
            unwritten: Mutex::default(),
        }
    }

    /// The stream, which is opened if it is not open yet.
    pub(crate) fn stream(&self) -> Result<Stream, Fault> {
        if let Some(stream) = self.opened_stream() {
            return Ok(stream);
        }
        let mode = self.settings()?.mode; // a stream with damaged settings is left alone
        let _opening = self.opening.lock();
        if let Some(stream) = self.opened_stream() {
            return Ok(stream); // somebody was faster
        }
        let stream = self.open(mode).map_err(|error| self.not_opened(error))?;
        let _ = self.note_shards(&stream); // records can be put and read all the same
        *self.failure.lock() = None;
        *self.stream.write() = Some(stream.clone());
        Ok(stream)
    }

    fn open(&self, mode: Mode) -> anabranch::Result<Stream> {
        let stream = self.store.open_stream(&self.name)?;
        if self.enforce_limits {
            stream.set_quotas(Quotas::kinesis());
        }
        stream.set_capacity(self.capacity(&stream, mode))?;
        Ok(stream)
    }

    /// Nothing is taken and nothing given until it can be opened.
    fn not_opened(&self, error: Error) -> Fault {
        if !self.is_leaving() {
            *self.failure.lock() = Some(error.to_string());
        }
        self.fault(error)
    }

    /// Who changes the number of shards depends on the mode: clients, or the load. Those that are open when a stream comes to be on demand are kept.
    pub(crate) fn follow_mode(&self, stream: &Stream) -> Result<(), Fault> {
        let capacity = self.capacity(stream, self.settings()?.mode);
        stream.set_capacity(capacity).map_err(|error| self.fault(error))
    }

    fn capacity(&self, stream: &Stream, mode: Mode) -> Option<Capacity> {
        match mode {
            Mode::Provisioned => None,
            Mode::OnDemand => {
                let open = u32::try_from(stream.open_shards().len()).unwrap_or(u32::MAX);
                let CapacityPolicy { min_shards, max_shards, .. } = self.on_demand;
                let policy = self.on_demand.min_shards(min_shards.min(open)).max_shards(max_shards.max(open));
                Some(Capacity::OnDemand(policy))
            }
        }
    }

    pub(super) fn rebalance(&self) -> anabranch::Result<()> {
        let Some(stream) = self.opened_stream().filter(|_| !self.is_gone()) else { return Ok(()) };
        let _resharding = self.resharding.lock();
        stream.rebalance()?;
        let _ = self.note_shards(&stream); // what cannot be noted now is when somebody needs it, and fails there
        Ok(())
    }

    /// The stream, if it is open.
    pub(crate) fn opened_stream(&self) -> Option<Stream> {
        self.stream.read().clone()
    }

    /// Makes the stream durable and ends all writing. It is opened anew by whoever asks for it next.
    pub(crate) fn close(&self) -> anabranch::Result<()> {
        let closed = {
            let _opening = self.opening.lock(); // one that is being opened is closed too
            let stream = self.stream.write().take();
            stream.map_or(Ok(()), Stream::close)
        };
        self.queues.let_go();
        closed
    }

    pub(crate) fn settings(&self) -> Result<Arc<Settings>, Fault> {
        self.settings.read().clone().map_err(Fault::internal)
    }

    /// What chooses the shards of records, where their keys do not.
    pub(crate) fn spread(&self) -> Option<&Spread> {
        self.settings().is_ok_and(|settings| settings.distribution == Distribution::Auto).then_some(&self.spread)
    }

    /// Deletes the stream and its settings. A stream with consumers is deleted only if they may go with it, and one with queues not at all.
    ///
    /// After a failure it is there, and can be deleted again; what is gone of it already is no fault then.
    pub(super) fn delete(&self, account: &AccountFile, takes_consumers: bool) -> Result<(), Fault> {
        if self.transition.takes_time() {
            let _ = self.stream(); // for those who look at it meanwhile
        }
        let outcome = {
            let _changing = self.changing.lock(); // nobody registers a consumer, or writes settings, from here on
            self.check_no_queues()?;
            self.check_consumers(takes_consumers)?;
            let last = self.settings().map_or_else(|_| second(self.clock.now()), |settings| settings.last_birth());
            account.retire_second(last)?;
            self.is_going.store(true, Ordering::SeqCst);
            let outcome = self.delete_locked();
            if self.is_gone() {
                self.begin(Status::Deleting, self.clock.now());
            }
            self.is_going.store(false, Ordering::SeqCst);
            outcome
        };
        if outcome.is_err() && !self.is_gone() {
            // It may be closed: whoever comes next opens it again, and those who read it subscribe again.
            drop(self.stream.write().take());
            self.queues.let_go();
            self.subscribers.end_all(&Fault::new(FaultKind::InternalFailure, "The stream could not be deleted."));
        }
        outcome
    }

    fn check_consumers(&self, takes_consumers: bool) -> Result<(), Fault> {
        let has_consumers = self.settings().is_ok_and(|settings| !settings.consumers.is_empty());
        if takes_consumers || !has_consumers {
            return Ok(());
        }
        Err(Fault::in_use(format!(
            "Stream {} under account {} has registered consumers; it is deleted with EnforceConsumerDeletion only.",
            self.name, self.account
        )))
    }

    fn delete_locked(&self) -> Result<(), Fault> {
        match self.store.delete(&self.name) {
            Ok(()) | Err(Error::StreamNotFound(_)) => {}
            Err(error) => return Err(Fault::internal(error)),
        }
        self.is_gone.store(true, Ordering::SeqCst);
        self.directory.remove(&self.name).map_err(Fault::internal)
    }

    pub(crate) fn status(&self, now: Timestamp) -> Status {
        if self.is_going.load(Ordering::SeqCst) { Status::Deleting } else { self.transition.status(now) }
    }

    /// Lets it look for a while as if this were not done yet.
    pub(crate) fn begin(&self, status: Status, now: Timestamp) {
        self.transition.begin(status, now);
    }

    /// Changes wait for the one before.
    pub(crate) fn check_active(&self, now: Timestamp) -> Result<(), Fault> {
        self.check_status(now, |status| status == Status::Active)
    }

    /// Refuses what its status does not allow.
    pub(crate) fn check_status(&self, now: Timestamp, allows: fn(Status) -> bool) -> Result<(), Fault> {
        let status = self.status(now);
        if allows(status) { Ok(()) } else { Err(self.busy(status)) }
    }

    fn busy(&self, status: Status) -> Fault {
        Fault::in_use(format!(
            "Stream {} under account {} not ACTIVE, instead in state {}",
            self.name,
            self.account,
            status.name()
        ))
    }

    /// Does what an active stream is updating with, and lets it look so for a while from its end. A failure leaves it active. It counts as one of the changes that are under way, whatever
    /// it waits for.
    pub(crate) fn update<T>(&self, work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
        self.check_status(self.clock.now(), |status| status != Status::Deleting)?;
        let updating = self.transition.update(self.clock.now()).map_err(|status| self.busy(status))?;
        let _change = self.changes.begin()?;
        let outcome = work()?;
        updating.done(self.clock.now());
        Ok(outcome)
    }

    /// Counts a call of an operation that is limited by stream, or refuses it.
    pub(crate) fn admit(&self, operation: &'static str) -> Result<(), Fault> {
        if !self.enforce_limits || self.rates.take_call(operation, self.clock.monotonic()) {
            return Ok(());
        }
        Err(self.asked_too_often())
    }

    /// Counts an iterator of a shard, or refuses it.
    pub(crate) fn admit_iterator(&self, shard_id: ShardId) -> Result<(), Fault> {
        if !self.enforce_limits || self.rates.take_iterator(shard_id, self.clock.monotonic()) {
            return Ok(());
        }
        Err(Fault::new(FaultKind::ProvisionedThroughputExceeded, self.throttle(shard_id)))
    }

    /// Does what an operation may do to a stream so often in a day. What fails does not count.
    pub(crate) fn of_the_day<T>(
        &self,
        operation: &'static str,
        change: impl FnOnce() -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let now = self.clock.monotonic();
        if !self.enforce_limits {
            return change();
        }
        if !self.rates.take_change(operation, now) {
            return Err(self.asked_too_often());
        }
        change().inspect_err(|_| self.rates.give_change_back(operation, now))
    }

    fn asked_too_often(&self) -> Fault {
        Fault::limit(format!("Rate exceeded for stream {} under account {}.", self.name, self.account))
    }

    /// A stream that is being made, or deleted, has no records for anybody.
    pub(crate) fn check_serves(&self, now: Timestamp) -> Result<(), Fault> {
        if self.status(now).serves() { Ok(()) } else { Err(self.not_found()) }
    }

    pub(crate) fn consumer_status(&self, consumer: &ConsumerSettings, now: Timestamp) -> Status {
        let created = Timestamp::from_millis(consumer.created_ms);
        if self.transition.lasts(created, now) { Status::Creating } else { Status::Active }
    }

    /// Whether it was deleted; its name may be another stream's by now.
    pub(crate) fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::SeqCst)
    }

    /// The same, or that it is being deleted: what fails of it then fails for that.
    fn is_leaving(&self) -> bool {
        self.is_going.load(Ordering::SeqCst) || self.is_gone() // in this order, since the one ends when the other has begun
    }

    /// Changes the settings: durable when this returns. `change` may refuse, and then nothing happened.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Settings) -> Result<T, Fault>) -> Result<T, Fault> {
        let _changing = self.changing.lock();
        self.change_locked(change)
    }

    fn change_locked<T>(&self, change: impl FnOnce(&mut Settings) -> Result<T, Fault>) -> Result<T, Fault> {
        if self.is_gone() {
            return Err(self.not_found());
        }
        let before = self.settings()?;
        let mut settings = Settings::clone(&before);
        let outcome = change(&mut settings)?;
        if settings != *before || self.unwritten.lock().is_some() {
            let written = self.directory.write(&self.name, &settings);
            let is_ours = |error: &&OpenError| !matches!(error, OpenError::TooLarge { .. });
            *self.unwritten.lock() = written.as_ref().err().filter(is_ours).map(ToString::to_string);
            written?;
            *self.settings.write() = Ok(Arc::new(settings));
        }
        Ok(outcome)
    }

    /// Changes the shards, in an [update](Self::update); calls of this kind wait for each other. What was done is done, be it noted or not.
    pub(crate) fn reshard<T>(&self, change: impl FnOnce(&Stream) -> Result<T, Fault>) -> Result<T, Fault> {
        let stream = self.stream()?;
        let _resharding = self.resharding.lock();
        let outcome = change(&stream);
        let _ = self.note_shards(&stream);
        outcome
    }

    /// Whether the shards are being changed: puts to them may wait for it.
    pub(crate) fn is_resharding(&self) -> bool {
        self.resharding.is_locked()
    }

    /// What the sequence numbers of a shard have in common. It may wait for the disk where that is not [known](Self::known_numbers).
    pub(crate) fn numbers(&self, shard_id: ShardId) -> Result<ShardNumbers, Fault> {
        if let Some(numbers) = self.known_numbers(shard_id)? {
            return Ok(numbers);
        }
        let stream = self.stream()?;
        if !stream.shards().iter().any(|shard| shard.shard_id == shard_id) {
            return Err(self.no_shard(shard_id));
        }
        // It was made a moment ago, and whoever makes it is about to note it; or that failed.
        self.note_shards(&stream)?;
        self.known_numbers(shard_id)?.ok_or_else(|| self.no_shard(shard_id))
    }

    /// The same, if it was noted.
    pub(crate) fn known_numbers(&self, shard_id: ShardId) -> Result<Option<ShardNumbers>, Fault> {
        let shard = shard_id.get();
        let created = self.settings()?.births.get(&shard).copied();
        Ok(created.map(|created| ShardNumbers { shard, created }))
    }

    /// Keeps what cannot be told later, when parents have expired: in which second each shard was made.
    pub(super) fn note_shards(&self, stream: &Stream) -> Result<(), Fault> {
        self.change(|settings| {
            let shards = stream.shards();
            settings.births = births(&settings.births, &shards, second(settings.created()));
            settings.open_shards = u32::try_from(stream.open_shards().len()).unwrap_or(u32::MAX);
            Ok(())
        })
    }

    /// What to answer to a refusal of the library that the operation did not expect.
    pub(crate) fn fault(&self, error: Error) -> Fault {
        match error {
            _ if self.is_leaving() => self.not_found(),
            Error::ShardNotFound(shard_id) => self.no_shard(shard_id),
            Error::ThroughputExceeded { shard_id, .. } => {
                Fault::new(FaultKind::ProvisionedThroughputExceeded, self.throttle(shard_id))
            }
            other => {
                self.note(&other);
                Fault::internal(other)
            }
        }
    }

    pub(crate) fn not_found(&self) -> Fault {
        Fault::stream_not_found(&self.name, &self.account)
    }

    pub(crate) fn no_consumer(&self, name: &str) -> Fault {
        Fault::not_found(format!(
            "Consumer {name} of stream {} under account {} not found.",
            self.name, self.account
        ))
    }

    /// Keeps why a shard refuses records from now on, or cannot give some that it has, if that is what it is.
    pub(crate) fn note(&self, error: &Error) {
        if matches!(error.kind(), ErrorKind::Reopen | ErrorKind::Corrupt) {
            self.failure.lock().get_or_insert_with(|| error.to_string());
        }
    }

    /// Why it, or a part of it, is refused. Settings that could not be written are tried again by whoever asks, but not while somebody is at them: a disk that had no room may have some by now.
    pub(crate) fn failure(&self) -> Option<String> {
        let is_unwritten = self.unwritten.lock().is_some();
        if let Some(_changing) = self.changing.try_lock().filter(|_| is_unwritten) {
            let _ = self.change_locked(|_| Ok(())); // why not is kept
        }
        // A flush in the background that failed was told to nobody.
        if let Some(error) = self.opened_stream().and_then(|stream| stream.failure()) {
            self.note(&error);
        }
        let failure = self.failure.lock().clone();
        failure.or_else(|| self.unwritten.lock().clone())
    }

    /// Counts a refusal for the rate of a shard, and says it.
    pub(crate) fn throttle(&self, shard_id: ShardId) -> String {
        self.traffic.throttle();
        format!("Rate exceeded for shard {shard_id} in stream {} under account {}.", self.name, self.account)
    }

    pub(crate) fn no_shard(&self, shard_id: ShardId) -> Fault {
        let Self { name, account, .. } = self;
        Fault::not_found(format!("Shard {shard_id} in stream {name} under account {account} does not exist"))
    }

    /// The shard that a client means: digits alone are fine, as with the service.
    pub(crate) fn shard(&self, text: &str) -> Result<ShardId, Fault> {
        let known = text.parse::<ShardId>().ok().filter(|id| id.get() <= i32::MAX.unsigned_abs());
        known.ok_or_else(|| {
            let Self { name, account, .. } = self;
            Fault::not_found(format!("Could not find shard {text} in stream {name} under account {account}."))
        })
    }
}

/// In which second each listed shard was made, as its sequence numbers say: none is earlier than its stream. The service makes children in the second after their parents were closed. Here several
/// generations can come in one second, and clocks go back: a child is later than its parents in any case, so that its numbers are greater.
fn births(known: &BTreeMap<u32, u64>, shards: &[ShardSummary], created: u64) -> BTreeMap<u32, u64> {
    let mut births: BTreeMap<u32, u64> = known.clone();
    for shard in shards {
        let id = shard.shard_id.get();
        if births.contains_key(&id) {
            continue;
        }
        let opened = second(shard.opened).max(created);
        let of_parents = shard.parents.iter().filter_map(|parent| births.get(&parent.get()).copied());
        let is_first = shard.parents.is_empty();
        let born = if is_first { opened } else { of_parents.fold(opened, u64::max).saturating_add(1) };
        births.insert(id, born.min(LAST_SECOND));
    }
    let listed: BTreeSet<_> = shards.iter().map(|shard| shard.shard_id.get()).collect();
    births.retain(|id, _| listed.contains(id));
    births
}

#[cfg(test)]
pub(super) mod tests {
    use anabranch::{ManualClock, SimulatedDisk};

    use super::*;
    use crate::{Service, ServiceOptions};

    /// A stream of one shard, and the service that has it.
    pub(in super::super) fn entry() -> (Service, Arc<Entry>) {
        let (clock, disk) = (Arc::new(ManualClock::default()), Arc::new(SimulatedDisk::new()));
        let service = Service::open_on("/data", ServiceOptions::default(), clock, disk).unwrap();
        service.create_stream("s", 1).unwrap();
        let entry = service.territory().stream("s").unwrap();
        (service, entry)
    }

    /// Those who look, and those who read sockets.
    #[test]
    fn a_stream_that_is_being_opened_is_not_open_and_nobody_who_asks_waits() {
        let (service, entry) = entry();
        entry.close().unwrap();
        let opening = entry.opening.lock();
        assert!(entry.opened_stream().is_none());
        let look = |path: &str| service.observe(&http::Request::get(path).body(()).unwrap());
        let text = String::from_utf8(look("/metrics").body().bytes().to_vec()).unwrap();
        assert!(text.contains(r#"anabranch_open_shards{account="000000000000",region="us-east-1",stream="s"} 1"#));
        assert_eq!(look("/status").status(), 200);
        drop(opening);
        entry.stream().unwrap();
        assert!(entry.opened_stream().is_some());
    }

    #[test]
    fn whoever_puts_is_told_that_the_shards_are_being_changed() {
        let (_service, entry) = entry();
        assert!(!entry.is_resharding());
        assert!(entry.reshard(|_| Ok(entry.is_resharding())).unwrap());
        assert!(!entry.is_resharding());
    }
}
