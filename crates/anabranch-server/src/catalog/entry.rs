//! One stream: the library's, and its settings.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anabranch::{
    Capacity, CapacityPolicy, Clock, Error, ErrorKind, Quotas, ShardId, ShardSummary, Store, Stream, Timestamp,
};
use parking_lot::{Mutex, RwLock};

use super::queues::Queues;
use super::settings::{ConsumerSettings, Mode, Settings, SettingsDirectory};
use super::status::{Status, Transition};
use super::{Changes, Common};
use crate::arn;
use crate::distribution::{Distribution, Spread};
use crate::errors::{Fault, FaultKind};
use crate::observe::Traffic;
use crate::sequence::{ShardNumbers, second};
use crate::subscription::Subscribers;

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
    /// Set while `changing` is held: from then on the file of the settings is that of another stream, or of none.
    is_gone: AtomicBool,
    /// Opened when it is first asked for.
    stream: RwLock<Option<Stream>>,
    /// Why it could not be opened, or why one of its shards refuses records, until the stream is opened again.
    failure: Mutex<Option<String>>,
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
            on_demand: common.on_demand,
            clock: Arc::clone(&common.clock),
            transition: Transition::new(common.transition_delay),
            store: store.clone(),
            directory: Arc::clone(directory),
            settings: RwLock::new(settings),
            resharding: Mutex::default(),
            changing: Mutex::default(),
            is_gone: AtomicBool::new(false),
            stream: RwLock::default(),
            failure: Mutex::default(),
        }
    }

    /// The stream, which is opened if it is not open yet.
    pub(crate) fn stream(&self) -> Result<Stream, Fault> {
        if let Some(stream) = &*self.stream.read() {
            return Ok(stream.clone());
        }
        self.settings()?; // a stream with damaged settings is left alone
        let mut place = self.stream.write();
        if let Some(stream) = &*place {
            return Ok(stream.clone());
        }
        let stream = self.store.open_stream(&self.name).map_err(|error| self.not_opened(error))?;
        if self.enforce_limits {
            stream.set_quotas(Quotas::kinesis());
        }
        self.note_shards(&stream)?;
        self.follow_mode(&stream)?;
        *self.failure.lock() = None;
        *place = Some(stream.clone());
        Ok(stream)
    }

    /// Nothing is taken and nothing given until it can be opened.
    fn not_opened(&self, error: Error) -> Fault {
        if !self.is_gone() {
            *self.failure.lock() = Some(error.to_string());
        }
        self.fault(error)
    }

    /// Who changes the number of shards depends on the mode: clients, or the load. Those that are open when a stream comes to be on demand are kept.
    pub(crate) fn follow_mode(&self, stream: &Stream) -> Result<(), Fault> {
        let capacity = match self.settings()?.mode {
            Mode::Provisioned => None,
            Mode::OnDemand => {
                let open = u32::try_from(stream.open_shards().len()).unwrap_or(u32::MAX);
                let CapacityPolicy { min_shards, max_shards, .. } = self.on_demand;
                let policy = self.on_demand.min_shards(min_shards.min(open)).max_shards(max_shards.max(open));
                Some(Capacity::OnDemand(policy))
            }
        };
        stream.set_capacity(capacity).map_err(|error| self.fault(error))
    }

    pub(super) fn rebalance(&self) -> anabranch::Result<()> {
        let Some(stream) = self.opened_stream().filter(|_| !self.is_gone()) else { return Ok(()) };
        stream.rebalance()?;
        let _ = self.note_shards(&stream); // what cannot be noted now is when somebody needs it, and fails there
        Ok(())
    }

    /// The stream, if it is open.
    pub(crate) fn opened_stream(&self) -> Option<Stream> {
        self.stream.read().clone()
    }

    pub(crate) fn close(&self) -> anabranch::Result<()> {
        self.queues.let_go();
        self.stream.write().take().map_or(Ok(()), Stream::close)
    }

    pub(crate) fn settings(&self) -> Result<Arc<Settings>, Fault> {
        self.settings.read().clone().map_err(|reason| Fault::new(FaultKind::InternalFailure, reason))
    }

    /// What chooses the shards of records, where their keys do not.
    pub(crate) fn spread(&self) -> Option<&Spread> {
        self.settings().is_ok_and(|settings| settings.distribution == Distribution::Auto).then_some(&self.spread)
    }

    /// Deletes the stream and its settings. A stream with consumers is deleted only if they may go with it, and one with queues not at all.
    ///
    /// After a failure it is there, and can be deleted again; what is gone of it already is no fault then.
    pub(super) fn delete(&self, takes_consumers: bool) -> Result<(), Fault> {
        if self.transition.takes_time() {
            let _ = self.stream(); // for those who look at it meanwhile
        }
        let outcome = {
            let _changing = self.changing.lock(); // nobody registers a consumer, or writes settings, from here on
            self.check_no_queues()?;
            self.check_consumers(takes_consumers)?;
            self.delete_locked()
        };
        if outcome.is_err() && !self.is_gone() {
            // It may be closed: whoever comes next opens it again, and those who read it subscribe again.
            self.queues.let_go();
            drop(self.stream.write().take());
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
        self.transition.status(now)
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

    /// Does what an active stream is updating with, and lets it look so for a while from its end. A failure leaves it active.
    pub(crate) fn update<T>(&self, work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
        let updating = self.transition.update(self.clock.now()).map_err(|status| self.busy(status))?;
        let outcome = work()?;
        updating.done(self.clock.now());
        Ok(outcome)
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

    /// Changes the settings: durable when this returns. `change` may refuse, and then nothing happened.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Settings) -> Result<T, Fault>) -> Result<T, Fault> {
        let _changing = self.changing.lock();
        if self.is_gone() {
            return Err(self.not_found());
        }
        let before = self.settings()?;
        let mut settings = Settings::clone(&before);
        let outcome = change(&mut settings)?;
        if settings != *before {
            self.directory.write(&self.name, &settings)?;
            *self.settings.write() = Ok(Arc::new(settings));
        }
        Ok(outcome)
    }

    /// Changes the shards; calls of this kind wait for each other.
    pub(crate) fn reshard<T>(&self, change: impl FnOnce(&Stream) -> Result<T, Fault>) -> Result<T, Fault> {
        let _change = self.changes.begin()?;
        let stream = self.stream()?;
        let _resharding = self.resharding.lock();
        let outcome = change(&stream);
        self.note_shards(&stream)?;
        outcome
    }

    /// What the sequence numbers of a shard have in common.
    pub(crate) fn numbers(&self, shard_id: ShardId) -> Result<ShardNumbers, Fault> {
        let shard = shard_id.get();
        if let Some(created) = self.settings()?.births.get(&shard) {
            return Ok(ShardNumbers { shard, created: *created });
        }
        // It was made a moment ago, and whoever makes it is about to note it.
        self.note_shards(&self.stream()?)?;
        let created = self.settings()?.births.get(&shard).copied();
        created.map(|created| ShardNumbers { shard, created }).ok_or_else(|| self.no_shard(shard_id))
    }

    /// Keeps what cannot be told later, when parents have expired: in which second each shard was made.
    fn note_shards(&self, stream: &Stream) -> Result<(), Fault> {
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
            Error::Closed | Error::StreamNotFound(_) => self.not_found(),
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

    /// Keeps why a shard refuses records from now on, if that is what it is.
    pub(crate) fn note(&self, error: &Error) {
        if error.kind() == ErrorKind::Reopen {
            self.failure.lock().get_or_insert_with(|| error.to_string());
        }
    }

    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
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
        let born = if shard.parents.is_empty() { opened } else { of_parents.fold(opened, u64::max) + 1 };
        births.insert(id, born);
    }
    births.retain(|id, _| shards.iter().any(|shard| shard.shard_id.get() == *id));
    births
}
