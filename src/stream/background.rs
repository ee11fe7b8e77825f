//! The one thread that flushes and trims while nobody calls.

use crate::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::sync::{Mistake, Mutex, caught, planted};

use super::StreamInner;
use crate::limits::{DRAIN_INTERVAL_MS, RETENTION_CHECK_MS};
use crate::shard::FlushRequest;

/// A background thread and the streams it serves. Clones share it; the last one dropped stops the thread.
#[derive(Debug, Clone)]
pub(crate) struct Background {
    worker: Arc<Worker>,
}

#[derive(Debug)]
struct Worker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    streams: Mutex<Vec<Served>>,
    /// Asked for a sync by shards and at the end; for a look when a stream joins.
    wake: Arc<FlushRequest>,
    stop: AtomicBool,
}

struct Served {
    stream: Weak<StreamInner>,
    flush_interval: Duration,
    next_flush: Instant,
    next_retention: Instant,
    /// When the load is looked at next, and how often it is; nothing where it is not.
    rebalances: Option<(Instant, Duration)>,
    drains: Drains,
}

/// What is to be done for a stream.
#[derive(Debug, Clone, Copy)]
struct Work {
    flush: bool,
    retain: bool,
    rebalance: bool,
}

impl Work {
    const FLUSH: Self = Self { flush: true, retain: false, rebalance: false };
}

/// When to look next for staged records, if at all.
#[derive(Debug, Clone, Copy)]
struct Drains {
    next: Instant,
    /// Looks since one last found something.
    idle: u32,
}

/// So many looks in vain, and the thread rests until a put wakes it.
const IDLE_LOOKS: u32 = 50;
/// The thread rests so many times as long as a look took, so that looks do not take more than this share of a processor.
const LOOK_SHARE: u32 = 10;
/// And no longer: a look that took more than a tenth of this waited for the disk, or for a shard that did, and those whose records are staged wait for the next one.
const MAX_LOOK_PAUSE: Duration = Duration::from_millis(50);

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Served").field("flush_interval", &self.flush_interval).finish_non_exhaustive()
    }
}

/// How long the thread sleeps when it has nothing to wait for.
const IDLE: Duration = Duration::from_secs(3600);

impl Background {
    /// Starts the thread.
    pub(crate) fn start() -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let for_thread = Arc::clone(&shared);
        let thread = thread::Builder::new().name("anabranch".to_owned()).spawn(move || for_thread.run())?;
        Ok(Self { worker: Arc::new(Worker { shared, thread: Some(thread) }) })
    }

    /// What a shard asks when it wants a sync.
    pub(crate) fn wake(&self) -> Arc<FlushRequest> {
        Arc::clone(&self.worker.shared.wake)
    }

    /// Serves a stream for as long as somebody else holds it.
    pub(super) fn serve(&self, stream: &Arc<StreamInner>) {
        let now = Instant::now();
        let flush_interval = stream.context.options.flush_interval;
        self.worker.shared.streams.lock().push(Served {
            stream: Arc::downgrade(stream),
            flush_interval,
            next_flush: now + flush_interval,
            next_retention: now + Duration::from_millis(RETENTION_CHECK_MS),
            rebalances: next_rebalance(stream),
            drains: Drains { next: now, idle: 0 },
        });
        self.worker.shared.wake.ask_to_look();
    }

    /// Looks at a stream's load as often as it asks for now.
    pub(super) fn look_at_load(&self, stream: &Arc<StreamInner>) {
        if let Some(served) = self.worker.shared.streams.lock().iter_mut().find(|served| served.is(stream)) {
            served.rebalances = next_rebalance(stream);
        }
        self.worker.shared.wake.ask_to_look();
    }
}

fn next_rebalance(stream: &StreamInner) -> Option<(Instant, Duration)> {
    stream.scaling.interval().map(|interval| (Instant::now() + interval, interval))
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.wake.ask();
        let Some(thread) = self.thread.take() else { return };
        // The thread itself may have dropped the last handle of a stream, and with it this.
        if thread.thread().id() != thread::current().id() {
            let _ = thread.join(); // a panic over there was reported over there
        }
    }
}

impl Shared {
    fn run(&self) {
        while !self.stop.load(Ordering::SeqCst) {
            let next = self.serve_due();
            let timeout = next.map_or(IDLE, |next| next.saturating_duration_since(Instant::now()));
            if self.wake.wait(timeout) && !self.stop.load(Ordering::SeqCst) {
                self.flush_all();
            }
        }
    }

    /// Does what is due, and says when something will be again.
    fn serve_due(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut due = Vec::new();
        let mut streams = self.streams.lock();
        streams.retain(|served| served.stream.strong_count() > 0);
        for served in streams.iter_mut() {
            let stream = served.stream.clone();
            due.extend(served.take_due(now).map(|work| (stream, work)));
        }
        #[cfg(feature = "async")]
        let all: Vec<_> = streams.iter().map(|served| served.stream.clone()).collect();
        let next = streams.iter().map(Served::next).min();
        drop(streams); // work without the lock: a stream may close meanwhile
        #[cfg(feature = "async")]
        all.iter().filter_map(Weak::upgrade).for_each(|stream| stream.commit_wanted());
        for (stream, work) in due {
            if let Some(stream) = stream.upgrade() {
                stream.tend(work);
            }
        }
        [next, self.drain_due()].into_iter().flatten().min()
    }

    /// Looks for staged records where that is due, and says when it will be again.
    fn drain_due(&self) -> Option<Instant> {
        let now = Instant::now();
        let awake = |served: &Served| Some((served.stream.upgrade()?, served.drains));
        let mut streams: Vec<_> = self.streams.lock().iter().filter_map(awake).collect();
        streams.retain(|(stream, _)| !stream.context.drains_rest.load(Ordering::SeqCst));
        let mut next = None;
        for (stream, drains) in streams {
            let drains = if drains.next <= now { stream.drain(drains) } else { drains };
            if let Some(served) = self.streams.lock().iter_mut().find(|served| served.is(&stream)) {
                served.drains = drains;
            }
            if !stream.context.drains_rest.load(Ordering::SeqCst) {
                next = Some(next.map_or(drains.next, |next: Instant| next.min(drains.next)));
            }
        }
        next
    }

    fn flush_all(&self) {
        let streams: Vec<_> = self.streams.lock().iter().map(|served| served.stream.clone()).collect();
        for stream in streams.iter().filter_map(Weak::upgrade) {
            stream.tend(Work::FLUSH);
        }
    }
}

impl Served {
    /// What is due now, if anything; when it will be next is put down.
    fn take_due(&mut self, now: Instant) -> Option<Work> {
        let is_due = |next: &mut Instant, interval: Duration| {
            let is_due = *next <= now;
            if is_due {
                *next = now + interval;
            }
            is_due
        };
        let flush = is_due(&mut self.next_flush, self.flush_interval);
        let retain = is_due(&mut self.next_retention, Duration::from_millis(RETENTION_CHECK_MS));
        let rebalance = self.rebalances.as_mut().is_some_and(|(next, interval)| is_due(next, *interval));
        (flush || retain || rebalance).then_some(Work { flush: flush || retain, retain, rebalance })
    }

    fn next(&self) -> Instant {
        let next = self.next_flush.min(self.next_retention);
        self.rebalances.map_or(next, |(rebalance, _)| next.min(rebalance))
    }

    fn is(&self, stream: &Arc<StreamInner>) -> bool {
        std::ptr::eq(self.stream.as_ptr(), Arc::as_ptr(stream))
    }
}

#[cfg(feature = "async")]
impl StreamInner {
    /// Leads the commits that tasks wait for.
    fn commit_wanted(&self) {
        let wanted = std::mem::take(&mut *self.context.wanted.lock());
        if wanted.is_empty() || self.is_forked() {
            return;
        }
        let wanted: Vec<_> = wanted.iter().filter_map(Weak::upgrade).collect();
        super::parallel::map(&wanted, |shard| shard.commit_wanted());
    }

    /// Has the tasks of a read-only stream woken to look at the files, as long as there are any.
    pub(super) fn look_for_tasks(self: &Arc<Self>) -> crate::Result<()> {
        if !self.read_only || self.looks_for_tasks.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        let stream = Arc::downgrade(self);
        let looks = move || {
            let mut idle = 0;
            while let Some(stream) = stream.upgrade().filter(|stream| stream.goes_on_looking(&mut idle)) {
                stream.context.tail.ring();
                drop(stream);
                thread::sleep(super::read::FOLLOW_STEP);
            }
        };
        let started = thread::Builder::new().name("anabranch-follow".to_owned()).spawn(looks);
        if let Err(source) = started {
            self.looks_for_tasks.store(false, Ordering::SeqCst);
            return Err(crate::storage::Fault::io("start a thread for", &self.path)(source).into());
        }
        Ok(())
    }

    /// Whether tasks wait, or did until a moment ago.
    fn goes_on_looking(&self, idle: &mut u32) -> bool {
        *idle = if self.context.tail.has_tasks() { 0 } else { *idle + 1 };
        if *idle < IDLE_LOOKS {
            return true;
        }
        self.looks_for_tasks.store(false, Ordering::SeqCst);
        // One may have come that saw the looks going on: then they do, unless it has begun others.
        self.context.tail.has_tasks() && !self.looks_for_tasks.swap(true, Ordering::SeqCst)
    }
}

/// How long the thread rests behind a look that took so long.
fn pause_behind(look: Duration) -> Duration {
    look.saturating_mul(LOOK_SHARE).clamp(Duration::from_millis(DRAIN_INTERVAL_MS), MAX_LOOK_PAUSE)
}

impl StreamInner {
    /// One look for staged records. After many in vain, the looks rest.
    fn drain(&self, before: Drains) -> Drains {
        let started = Instant::now();
        let idle = if self.drain_shards() == 0 { before.idle + 1 } else { 0 };
        if idle >= IDLE_LOOKS {
            self.rest();
        }
        Drains { next: Instant::now() + pause_behind(started.elapsed()), idle }
    }

    /// Lets the looks rest, unless a last one finds something; whether they do.
    fn rest(&self) -> bool {
        self.context.drains_rest.store(true, Ordering::SeqCst);
        let finds_some = !planted(Mistake::RestUnlooked) && self.drain_shards() > 0;
        if finds_some {
            self.context.drains_rest.store(false, Ordering::SeqCst); // staged by one who did not see it
        }
        !finds_some
    }

    /// One round of background work. Failures are kept by the shards, which tell the next one who appends; a
    /// failed trim or reshard is tried again in its time.
    fn tend(&self, work: Work) {
        // The streams of a store share the thread: a clock of the user's that panics ends this round, and nothing else.
        let _ = caught(|| self.work(work));
    }

    fn work(&self, work: Work) {
        if self.writable().is_err() {
            return;
        }
        if work.flush {
            let _ = self.sync_all();
        }
        if work.retain {
            let _ = self.enforce_retention();
        }
        if work.rebalance {
            let _ = self.rebalance();
        }
    }
}

/// For models, whose own threads play the background.
#[cfg(shuttle)]
impl super::Stream {
    /// One look for staged records, as the background does it; how many shards had some.
    pub fn drain_once(&self) -> u64 {
        self.inner.drain_shards()
    }

    /// Looks for staged records and rests, until it is `over`; how often it was woken, and how often its last look before a rest found some.
    pub fn drain_until(&self, over: impl Fn() -> bool) -> (u64, u64) {
        let context = &self.inner.context;
        let (mut wakes, mut late) = (0, 0);
        while !over() {
            if context.drains_rest.load(Ordering::SeqCst) {
                context.flush.wait(IDLE);
                wakes += 1;
            }
            if self.inner.drain_shards() == 0 {
                late += u64::from(!self.inner.rest());
            }
        }
        (wakes, late)
    }

    /// How many records of the first shard are in its segments.
    pub fn drained(&self) -> u64 {
        let topology = self.inner.topology();
        topology.shards.values().next().map_or(0, |member| member.shard.next_drained().get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MAX_STAGING_SLOTS;
    use crate::{Durability, PutOptions, SimulatedDisk, Stream};

    #[test]
    fn a_look_takes_a_share_of_the_time_and_a_long_one_puts_off_no_other() {
        let pauses = [0, 1, 3, 60_000].map(|look| pause_behind(Duration::from_millis(look)).as_millis());
        assert_eq!(pauses, [1, 10, 30, 50]);
    }

    /// Nobody looks for idle slots while the looks rest, but who needs one has them begin again.
    #[test]
    fn a_shard_without_a_slot_gets_one_also_while_the_looks_rest() {
        let shards = u32::try_from(MAX_STAGING_SLOTS).unwrap() + 1;
        let builder = Stream::builder().shards(shards).durability(Durability::Buffered);
        let stream = builder.storage(Arc::new(SimulatedDisk::new())).create("stream").unwrap();
        let put = |index: u32| {
            let key = stream.shards()[index as usize].hash_key_range.start();
            stream.put_with("key", "data", PutOptions::new().explicit_hash_key(key)).unwrap();
        };
        (0..shards).for_each(put);
        let last = stream.inner.topology().shards.values().next_back().unwrap().shard.clone();
        let happens = |what: &str, happened: &dyn Fn() -> bool| {
            let given_up = Instant::now() + Duration::from_secs(60);
            while !happened() {
                assert!(Instant::now() < given_up, "{what}");
                thread::sleep(Duration::from_millis(1));
            }
        };
        happens("the looks rest", &|| stream.inner.context.drains_rest.load(Ordering::SeqCst));
        let staging = &stream.inner.context.staging;
        drop(std::iter::from_fn(|| staging.lend()).collect::<Vec<_>>()); // somebody found none, and now there are some
        assert!(staging.are_exhausted());
        happens("the shard that is used gets a slot", &|| {
            put(shards - 1);
            last.has_staged()
        });
    }
}
