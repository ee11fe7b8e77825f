//! The queues of a stream: the library's that are open, and what they are said to be doing. What they are is kept in the stream's settings.
//!
//! A queue is made in the library before the settings tell of it, and is deleted there after they have forgotten it, so that one that is told of has its records' states. What a crash leaves
//! in the library, a file that goes with its stream, has an id that no queue gets again.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anabranch::{Error, Queue, QueueOptions, RecordsStart, Stream, Timestamp};
use parking_lot::{Mutex, RwLock};

use super::entry::Entry;
use super::settings::{QueueSettings, Settings};
use super::status::{Status, Transition};
use crate::arn;
use crate::errors::Fault;

/// The queues of a stream that were used since the server was started.
#[derive(Debug)]
pub(crate) struct Queues {
    delay: Duration,
    live: Mutex<BTreeMap<i64, Arc<Live>>>,
}

/// One of them.
#[derive(Debug)]
struct Live {
    transition: Transition,
    /// Held while it is opened, which can wait for the disk, and while it is deleted.
    opening: Mutex<()>,
    /// Opened when it is first asked for, and again when a record may be received more often or less.
    opened: RwLock<Option<Opened>>,
    /// What it was, once it was deleted.
    gone: OnceLock<QueueSettings>,
}

/// The library's queue.
#[derive(Debug, Clone)]
struct Opened {
    max_receives: Option<u32>,
    queue: Queue,
}

impl Live {
    fn new(delay: Duration) -> Self {
        Self {
            transition: Transition::new(delay),
            opening: Mutex::default(),
            opened: RwLock::default(),
            gone: OnceLock::new(),
        }
    }

    fn opened(&self) -> Option<Opened> {
        self.opened.read().clone()
    }

    /// The library's queue, if it is open and goes by these settings.
    fn opened_as(&self, settings: &QueueSettings) -> Option<Queue> {
        self.opened().filter(|opened| opened.max_receives == settings.max_receives).map(|opened| opened.queue)
    }
}

impl Queues {
    pub(super) fn new(delay: Duration) -> Self {
        Self { delay, live: Mutex::default() }
    }

    /// Lets go of them all, since they hold the stream. It is closed, or gone: one that is being opened meanwhile is waited for, and those that come later open none in it.
    pub(super) fn let_go(&self) {
        let all: Vec<_> = self.live.lock().values().map(Arc::clone).collect();
        for live in all {
            let _opening = live.opening.lock();
            drop(live.opened.write().take());
        }
    }

    fn live(&self, id: i64) -> Arc<Live> {
        Arc::clone(self.live.lock().entry(id).or_insert_with(|| Arc::new(Live::new(self.delay))))
    }

    fn status(&self, id: i64, now: Timestamp) -> Status {
        self.live.lock().get(&id).map_or(Status::Active, |live| live.transition.status(now))
    }

    /// Those whose deletion is said to go on. The others that were deleted are forgotten.
    fn deleting(&self, now: Timestamp) -> Vec<QueueSettings> {
        let mut live = self.live.lock();
        live.retain(|_, live| live.gone.get().is_none() || live.transition.status(now) == Status::Deleting);
        live.values().filter_map(|live| live.gone.get().cloned()).collect()
    }
}

impl Entry {
    /// The queues that are shown.
    pub(crate) fn shown_queues(&self, now: Timestamp) -> Vec<QueueSettings> {
        let mut queues = self.settings().map_or_else(|_| Vec::new(), |settings| settings.queues.clone());
        queues.extend(self.queues.deleting(now));
        queues
    }

    /// How many they are.
    pub(crate) fn queue_count(&self, now: Timestamp) -> usize {
        self.settings().map_or(0, |settings| settings.queues.len()) + self.queues.deleting(now).len()
    }

    /// One of them.
    pub(crate) fn queue(&self, id: i64, now: Timestamp) -> Option<QueueSettings> {
        let kept = self.settings().ok().and_then(|settings| settings.queue(id).cloned());
        kept.or_else(|| self.queues.deleting(now).into_iter().find(|queue| queue.id == id))
    }

    pub(crate) fn queue_arn(&self, id: i64) -> String {
        arn::of_queue(&self.region, &self.account, id)
    }

    pub(crate) fn queue_status(&self, id: i64, now: Timestamp) -> Status {
        self.queues.status(id, now)
    }

    /// Makes the queue that `make` says, which may refuse: durably when this returns.
    pub(crate) fn make_queue(
        &self,
        start: RecordsStart,
        make: impl FnOnce(&Settings) -> Result<QueueSettings, Fault>,
    ) -> Result<QueueSettings, Fault> {
        let (stream, mut begun) = (self.stream()?, None);
        let outcome = self.change(|settings| {
            let queue = make(settings)?;
            let id = begun.insert(queue.id).to_string();
            stream.queue(&id, options(&queue).start(start)).map_err(|error| self.fault(error))?;
            settings.queues.push(queue.clone());
            Ok(queue)
        });
        match (&outcome, begun) {
            (Ok(queue), _) => self.queues.live(queue.id).transition.begin(Status::Creating, self.clock.now()),
            (Err(_), Some(id)) => drop(stream.delete_queue(&id.to_string())), // nobody knows of it
            (Err(_), None) => {}
        }
        outcome
    }

    /// Changes a queue that is active, and lets it look for a while as if that went on.
    pub(crate) fn update_queue(
        &self,
        id: i64,
        change: impl FnOnce(&mut QueueSettings),
    ) -> Result<QueueSettings, Fault> {
        let live = self.queues.live(id);
        let updating = live.transition.update(self.clock.now()).map_err(|status| self.queue_busy(id, status))?;
        let updated = self.change(|settings| {
            let queue = settings.queues.iter_mut().find(|queue| queue.id == id);
            let queue = queue.ok_or_else(|| self.no_queue(id))?;
            change(queue);
            Ok(queue.clone())
        })?;
        self.open_queue(&updated)?; // what was received often enough by now is a dead letter
        updating.done(self.clock.now());
        Ok(updated)
    }

    /// Deletes a queue; what waits for its records finds it gone.
    pub(crate) fn delete_queue(&self, id: i64) -> Result<(), Fault> {
        let gone = self.change(|settings| {
            let at = settings.queues.iter().position(|queue| queue.id == id);
            Ok(settings.queues.remove(at.ok_or_else(|| self.no_queue(id))?))
        })?;
        let live = self.queues.live(id);
        live.transition.begin(Status::Deleting, self.clock.now());
        let _ = live.gone.set(gone);
        let stream = self.stream();
        let _opening = live.opening.lock();
        drop(live.opened.write().take());
        let Ok(stream) = stream else { return Ok(()) }; // so that a stream that cannot be opened can be deleted
        match stream.delete_queue(&id.to_string()) {
            Ok(()) | Err(Error::QueueNotFound(_)) => Ok(()),
            Err(error) => Err(self.fault(error)),
        }
    }

    /// The library's queue, which is opened if it is not open yet. What the caller knows of it may have changed meanwhile.
    pub(crate) fn open_queue(&self, known: &QueueSettings) -> Result<Queue, Fault> {
        let stream = self.stream()?;
        let live = self.queues.live(known.id);
        if let Some(opened) = live.opened_as(known) {
            return Ok(opened);
        }
        let _opening = live.opening.lock();
        // Who changes or deletes it changes the settings first, and then comes here, or closes what was opened here.
        let settings = self.settings()?;
        let queue = settings.queue(known.id).ok_or_else(|| self.no_queue(known.id))?;
        if let Some(opened) = live.opened_as(queue) {
            return Ok(opened); // somebody was faster
        }
        let opened = open(&stream, queue, self.clock.now()).map_err(|error| self.fault(error))?;
        *live.opened.write() = Some(Opened { max_receives: queue.max_receives, queue: opened.clone() });
        Ok(opened)
    }

    /// The same, if it is open: told at once.
    pub(crate) fn opened_queue(&self, id: i64) -> Option<Queue> {
        let live = self.queues.live.lock().get(&id).cloned()?;
        live.opened().map(|opened| opened.queue)
    }

    /// Queues are deleted one by one, before their stream is, or is on demand no more.
    pub(crate) fn check_no_queues(&self) -> Result<(), Fault> {
        if self.queue_count(self.clock.now()) == 0 {
            return Ok(());
        }
        let Self { name, account, .. } = self;
        Err(Fault::in_use(format!("Stream {name} under account {account} has queues; delete them first.")))
    }

    pub(crate) fn no_queue(&self, id: i64) -> Fault {
        Fault::queue_not_found(&self.queue_arn(id), &self.account)
    }

    fn queue_busy(&self, id: i64, status: Status) -> Fault {
        let (arn, status) = (self.queue_arn(id), status.name());
        Fault::in_use(format!("Queue {arn} under account {} not ACTIVE, instead in state {status}", self.account))
    }
}

/// Where the library has lost it, it starts again where it started.
fn open(stream: &Stream, queue: &QueueSettings, now: Timestamp) -> anabranch::Result<Queue> {
    let start = Timestamp::from_millis(queue.start_ms).min(now);
    stream.queue(&queue.id.to_string(), options(queue).start(RecordsStart::AtTimestamp(start)))
}

fn options(queue: &QueueSettings) -> QueueOptions {
    QueueOptions::new().max_receives(queue.max_receives).max_receive_bytes(crate::limits::MAX_GET_BYTES)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::super::entry::tests::entry;
    use super::super::settings::QueueStart;
    use super::*;

    const START: RecordsStart = RecordsStart::TrimHorizon;

    fn queue(id: i64) -> QueueSettings {
        QueueSettings {
            name: format!("q{id}"),
            id,
            created_ms: 0,
            start: QueueStart::TrimHorizon,
            asked_start_ms: None,
            start_ms: 0,
            visibility_seconds: 0,
            max_receives: Some(1),
            tags: BTreeMap::new(),
            policy: None,
        }
    }

    /// As a call that found the queue before that.
    #[test]
    fn who_knows_an_old_count_of_receives_does_not_bring_it_back() {
        let (_service, entry) = entry();
        let old = entry.make_queue(START, |_| Ok(queue(1))).unwrap();
        entry.update_queue(1, |queue| queue.max_receives = Some(9)).unwrap();
        let library = entry.open_queue(&old).unwrap();
        entry.stream().unwrap().put("a", b"one").unwrap();
        for _ in 0..9 {
            let received = library.receive_for(1, Duration::ZERO, Duration::ZERO).unwrap();
            assert_eq!(received.len(), 1, "it is no dead letter yet");
        }
        assert!(library.receive(1, Duration::ZERO).unwrap().is_empty());
    }

    #[test]
    fn a_queue_that_is_opened_while_its_stream_is_closed_is_let_go() {
        let (_service, entry) = entry();
        let queue = entry.make_queue(START, |_| Ok(queue(1))).unwrap();
        let live = entry.queues.live(1);
        let stream = entry.stream().unwrap();
        let opening = live.opening.lock();
        let opened = open(&stream, &queue, entry.clock.now()).unwrap();
        let closing = thread::spawn({
            let entry = Arc::clone(&entry);
            move || entry.close()
        });
        while stream.sync().is_ok() {
            thread::sleep(Duration::from_millis(1));
        }
        *live.opened.write() = Some(Opened { max_receives: queue.max_receives, queue: opened });
        drop(opening);
        closing.join().unwrap().unwrap();
        assert!(entry.opened_queue(1).is_none());
        entry.open_queue(&queue).unwrap().receive(1, Duration::ZERO).unwrap();
    }
}
