//! Waking those who wait for news: threads that park, and tasks that left their wakers.

use std::time::Duration;

use crate::sync::atomic::{AtomicU64, Ordering};
#[cfg(feature = "async")]
use crate::sync::caught;
use crate::sync::thread::{self, Thread};
use crate::sync::{Mistake, Mutex, park_timeout, planted};

/// Wakes sleepers when something happened; costs one load while nobody sleeps, and the waking of one thread however many do: who is woken
/// wakes two others. Each sleeper parks by itself and has no lock to take again when it is woken. Tasks leave their wakers beside them.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    /// Those for whom nobody has rung yet.
    sleepers: AtomicU64,
    sleeping: Mutex<Sleeping>,
}

#[derive(Debug, Default)]
struct Sleeping {
    threads: Vec<Thread>,
    /// A ring was for them, and somebody who was woken before, and is not up yet, wakes them.
    rung_for: Vec<Thread>,
    /// One waker a task.
    #[cfg(feature = "async")]
    tasks: Vec<(TaskId, std::task::Waker)>,
}

impl Signal {
    /// Whether somebody sleeps, asked by one who has just stored with sequential consistency what the sleepers look at.
    pub(crate) fn has_sleepers(&self) -> bool {
        self.sleepers.load(Ordering::SeqCst) > 0
    }

    /// Something happened. It must be visible to others before this is called.
    pub(crate) fn ring(&self) {
        // Sequentially consistent with the increment in `wait_unless`: either this sees the sleeper, or the
        // sleeper's last look sees what happened.
        crate::sync::atomic::fence(Ordering::SeqCst);
        if self.has_sleepers() {
            self.wake();
        }
    }

    fn wake(&self) {
        let mut sleeping = self.sleeping.lock();
        let mut threads = std::mem::take(&mut sleeping.threads);
        self.sleepers.fetch_sub(threads.len() as u64, Ordering::SeqCst);
        // Where some are left to be woken, one who will do it is on the way.
        let first = if sleeping.rung_for.is_empty() { threads.pop() } else { None };
        sleeping.rung_for.append(&mut threads);
        #[cfg(feature = "async")]
        let tasks = std::mem::take(&mut sleeping.tasks);
        drop(sleeping);
        if let Some(first) = first {
            first.unpark();
        }
        #[cfg(feature = "async")]
        self.wake_tasks(tasks);
    }

    /// Sleeps until a ring or for `timeout`, unless `happened` says that there is no need to. It may end early: callers look again.
    pub(crate) fn wait_unless(&self, timeout: Duration, happened: impl Fn() -> bool) {
        let late = planted(Mistake::RegisterLate);
        if late && happened() {
            return;
        }
        let this = thread::current();
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        self.sleeping.lock().threads.push(this.clone());
        crate::sync::atomic::fence(Ordering::SeqCst);
        // A ring from here on finds this thread in the list, and then parking ends at once.
        if late || !happened() {
            park_timeout(timeout);
        }
        self.get_up(&this);
    }

    /// Does not sleep any more, and wakes two of those for whom a ring was: in the end all are woken, since whoever was is found in no list, and comes here.
    fn get_up(&self, this: &Thread) {
        let mut sleeping = self.sleeping.lock();
        let before = sleeping.threads.len();
        sleeping.threads.retain(|thread| thread.id() != this.id());
        self.sleepers.fetch_sub((before - sleeping.threads.len()) as u64, Ordering::SeqCst);
        sleeping.rung_for.retain(|thread| thread.id() != this.id());
        let others = [sleeping.rung_for.pop(), sleeping.rung_for.pop()];
        drop(sleeping);
        if !planted(Mistake::WakeNoOther) {
            others.iter().flatten().for_each(Thread::unpark);
        }
    }
}

/// Who waits without a thread.
#[cfg(feature = "async")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TaskId(pub(super) u64);

#[cfg(feature = "async")]
impl Signal {
    /// Has the next ring wake this task, and says whether something has `happened` already: then the task has to look again now. The waker stays until a ring, or until it is
    /// [forgotten](Self::forget).
    pub(crate) fn watch(&self, task: TaskId, waker: &std::task::Waker, happened: impl FnOnce() -> bool) -> bool {
        // Somebody else's code: cloned before the lock is taken, and what it takes the place of is dropped behind it.
        let waker = waker.clone();
        let mut sleeping = self.sleeping.lock();
        let before = if let Some((_, known)) = sleeping.tasks.iter_mut().find(|(other, _)| *other == task) {
            Some(std::mem::replace(known, waker))
        } else {
            sleeping.tasks.push((task, waker));
            self.sleepers.fetch_add(1, Ordering::SeqCst);
            None
        };
        drop(sleeping);
        drop(before);
        crate::sync::atomic::fence(Ordering::SeqCst); // as in `wait_unless`
        happened()
    }

    /// The task waits no more.
    pub(crate) fn forget(&self, task: TaskId) {
        let mut sleeping = self.sleeping.lock();
        let place = sleeping.tasks.iter().position(|(other, _)| *other == task);
        let gone = place.map(|place| sleeping.tasks.swap_remove(place));
        self.sleepers.fetch_sub(u64::from(gone.is_some()), Ordering::SeqCst);
        drop(sleeping);
        drop(gone);
    }

    /// Whether tasks wait.
    pub(crate) fn has_tasks(&self) -> bool {
        !self.sleeping.lock().tasks.is_empty()
    }

    fn wake_tasks(&self, tasks: Vec<(TaskId, std::task::Waker)>) {
        self.sleepers.fetch_sub(tasks.len() as u64, Ordering::SeqCst);
        for (_, waker) in tasks {
            // It may panic, where its executor is gone; the ring was for others too, and for a shard in the middle of a commit.
            let _ = caught(|| waker.wake());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    #[cfg(feature = "async")]
    use std::sync::mpsc;
    #[cfg(feature = "async")]
    use std::task::{Wake, Waker};

    use super::*;
    use crate::sync::atomic::AtomicBool;

    /// Far longer than any test: who is not woken fails by [`DEADLINE`].
    const FOREVER: Duration = Duration::from_secs(3_600);
    const DEADLINE: Duration = Duration::from_secs(60);

    /// Threads that sleep until this is so.
    fn sleepers(count: u64, signal: &Arc<Signal>, awake: &Arc<AtomicBool>) -> Vec<thread::JoinHandle<()>> {
        let sleep = |_| {
            let (signal, awake) = (Arc::clone(signal), Arc::clone(awake));
            thread::spawn(move || {
                while !awake.load(Ordering::SeqCst) {
                    signal.wait_unless(FOREVER, || awake.load(Ordering::SeqCst));
                }
            })
        };
        let threads = (0..count).map(sleep).collect();
        while signal.sleepers.load(Ordering::SeqCst) < count
            || signal.sleeping.lock().threads.len() as u64 != count
        {
            thread::yield_now();
        }
        threads
    }

    /// Rings once, and demands that all of them get up.
    fn wake(threads: &[thread::JoinHandle<()>], signal: &Signal, awake: &AtomicBool) {
        awake.store(true, Ordering::SeqCst);
        signal.ring();
        let deadline = std::time::Instant::now() + DEADLINE;
        while !threads.iter().all(thread::JoinHandle::is_finished) {
            assert!(std::time::Instant::now() < deadline, "somebody is not woken");
            thread::sleep(Duration::from_millis(1));
        }
        assert_nobody_sleeps(signal);
    }

    fn assert_nobody_sleeps(signal: &Signal) {
        let sleeping = signal.sleeping.lock();
        let left = (signal.sleepers.load(Ordering::SeqCst), sleeping.threads.len(), sleeping.rung_for.len());
        assert_eq!(left, (0, 0, 0), "sleepers, of them known, and not woken yet");
    }

    /// The ring wakes one of them, and each wakes others.
    #[test]
    fn one_ring_wakes_all() {
        let (signal, awake) = (Arc::new(Signal::default()), Arc::default());
        let threads = sleepers(9, &signal, &awake);
        wake(&threads, &signal, &awake);
    }

    /// Its time was over: the others are still counted, and woken later.
    #[test]
    fn who_gets_up_by_himself_leaves_the_others_asleep() {
        let (signal, awake) = (Arc::new(Signal::default()), Arc::default());
        let threads = sleepers(2, &signal, &awake);
        signal.wait_unless(Duration::ZERO, || false);
        assert_eq!(signal.sleepers.load(Ordering::SeqCst), 2);
        assert_eq!(signal.sleeping.lock().threads.len(), 2);
        wake(&threads, &signal, &awake);
    }

    /// A waker that is the last to hold its task, which waits at the same signal for something else, too.
    #[cfg(feature = "async")]
    struct Last {
        signal: Arc<Signal>,
        other: TaskId,
    }

    #[cfg(feature = "async")]
    impl Wake for Last {
        fn wake(self: Arc<Self>) {}
    }

    #[cfg(feature = "async")]
    impl Drop for Last {
        fn drop(&mut self) {
            self.signal.forget(self.other);
        }
    }

    #[cfg(feature = "async")]
    #[test]
    fn a_task_that_goes_with_its_waker_may_ask_the_signal_for_something() {
        let (tell, told) = mpsc::channel();
        let done = thread::spawn(move || {
            let signal = Arc::new(Signal::default());
            let watch = |task| {
                let waker = Waker::from(Arc::new(Last { signal: Arc::clone(&signal), other: TaskId(task + 1) }));
                signal.watch(TaskId(task), &waker, || false);
            };
            watch(1);
            signal.watch(TaskId(2), Waker::noop(), || false);
            signal.forget(TaskId(1));
            assert!(!signal.has_sleepers(), "both are gone");
            watch(3);
            signal.watch(TaskId(4), Waker::noop(), || false);
            signal.watch(TaskId(3), Waker::noop(), || false);
            assert_eq!(signal.sleepers.load(Ordering::SeqCst), 1, "the third, with another waker");
            tell.send(()).unwrap();
        });
        told.recv_timeout(Duration::from_secs(60)).expect("it does not wait for a lock that it has");
        done.join().unwrap();
    }

    /// Nobody rings for it any more.
    #[cfg(feature = "async")]
    #[test]
    fn a_task_that_comes_behind_the_ring_is_told_to_look() {
        let signal = Signal::default();
        signal.ring();
        assert!(signal.watch(TaskId(1), Waker::noop(), || true));
        assert!(!signal.watch(TaskId(1), Waker::noop(), || false), "nothing happened");
        assert!(signal.has_tasks(), "it waits");
    }

    #[cfg(feature = "async")]
    #[test]
    fn tasks_are_woken_once_and_none_that_was_forgotten() {
        #[derive(Default)]
        struct Rings(AtomicU64);
        impl Wake for Rings {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let signal = Signal::default();
        let rings: [Arc<Rings>; 4] = Default::default();
        for (task, rings) in (0..3).zip(&rings) {
            signal.watch(TaskId(task), &Arc::clone(rings).into(), || false);
        }
        signal.watch(TaskId(2), &Arc::clone(&rings[3]).into(), || false); // it is another one's now
        signal.forget(TaskId(1));
        signal.forget(TaskId(7));
        assert_eq!(signal.sleepers.load(Ordering::SeqCst), 2);
        signal.ring();
        signal.ring();
        assert_eq!(rings.map(|rings| rings.0.load(Ordering::SeqCst)), [1, 0, 0, 1]);
        assert!(!signal.has_tasks());
        assert_nobody_sleeps(&signal);
    }
}
