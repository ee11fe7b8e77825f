//! Locks and atomics: the one place that the crate takes them from, so that a model checker can stand in for them.
//!
//! Normally these are `parking_lot`'s and the standard library's, and nothing is added. Built with `--cfg shuttle` they are those of the
//! `shuttle` scheduler, and `tests/concurrency` runs the crate's own code under thousands of chosen schedules.

mod caught;
mod door;

pub(crate) use caught::caught;
pub(crate) use door::Door;
#[cfg(not(shuttle))]
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
#[cfg(not(shuttle))]
pub(crate) use std::sync::atomic;
#[cfg(not(shuttle))]
pub(crate) use std::thread::{self, park_timeout};

#[cfg(not(tsan))]
pub(crate) use std::sync::OnceLock;
// The standard library is not built for the sanitizer, which therefore does not see how its own synchronises.
#[cfg(tsan)]
pub(crate) use once_cell::sync::OnceCell as OnceLock;

#[cfg(shuttle)]
pub(crate) use shuttle::sync::atomic;
#[cfg(shuttle)]
pub(crate) use shuttle::thread;
#[cfg(shuttle)]
pub(crate) use under_shuttle::park_timeout;
#[cfg(shuttle)]
pub(crate) use under_shuttle::{Condvar, Mutex, MutexGuard, RwLock};

/// A mistake that a model must find: see `tests/concurrency`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistake {
    /// A commit publishes before it syncs.
    PublishBeforeSync,
    /// A commit that ended wakes nobody.
    WakeNobody,
    /// A leader whose sync failed keeps that to itself.
    ForgetFailure,
    /// A sleeper looks whether it has to sleep before it says that it may.
    RegisterLate,
    /// A sleeper that is woken does not wake the others for whom the same bell was rung.
    WakeNoOther,
    /// A roll does not wait for the commit that is running.
    RollDuringCommit,
    /// What is staged is said to be in its segment before it is written there.
    DrainedBeforeWritten,
    /// A put looks for sleepers before its record can be seen.
    AnnounceBeforeStaged,
    /// The looks for staged records rest without a last one.
    RestUnlooked,
    /// A new handle of a producer does not wait for what the last one has under way.
    FenceUnwaited,
    /// An append that waited for room does not look again whether its producer may still append.
    EpochUnchecked,
}

/// Whether the mistake is to be made: never, outside a model's twin.
#[cfg(not(shuttle))]
pub(crate) const fn planted(_: Mistake) -> bool {
    false
}

#[cfg(shuttle)]
pub use under_shuttle::plant;
#[cfg(shuttle)]
pub(crate) use under_shuttle::planted;

#[cfg(shuttle)]
mod under_shuttle {
    //! `shuttle`'s primitives in `parking_lot`'s form.

    use std::ops::{Deref, DerefMut};
    use std::time::Duration;

    use crate::sync::Mistake;

    static PLANTED: std::sync::Mutex<Option<Mistake>> = std::sync::Mutex::new(None);

    /// Makes a mistake from now on, or none.
    pub fn plant(mistake: Option<Mistake>) {
        *PLANTED.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = mistake;
    }

    pub(crate) fn planted(mistake: Mistake) -> bool {
        *PLANTED.lock().unwrap_or_else(std::sync::PoisonError::into_inner) == Some(mistake)
    }

    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

    #[derive(Debug)]
    pub(crate) struct MutexGuard<'a, T> {
        mutex: &'a Mutex<T>,
        /// Gone only while this thread waits or lets others in.
        held: Option<shuttle::sync::MutexGuard<'a, T>>,
    }

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            MutexGuard { mutex: self, held: Some(self.acquire()) }
        }

        pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            let held = match self.0.try_lock() {
                Ok(held) => held,
                Err(std::sync::TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(std::sync::TryLockError::WouldBlock) => return None,
            };
            Some(MutexGuard { mutex: self, held: Some(held) })
        }

        pub(crate) fn get_mut(&mut self) -> &mut T {
            self.0.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner)
        }

        fn acquire(&self) -> shuttle::sync::MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
        }
    }

    impl<T> MutexGuard<'_, T> {
        pub(crate) fn unlocked<U>(guard: &mut Self, run: impl FnOnce() -> U) -> U {
            guard.held = None;
            let outcome = run();
            guard.held = Some(guard.mutex.acquire());
            outcome
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        #[allow(clippy::expect_used, reason = "it is gone only inside this type's own calls")]
        fn deref(&self) -> &T {
            self.held.as_ref().expect("a held lock")
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        #[allow(clippy::expect_used, reason = "it is gone only inside this type's own calls")]
        fn deref_mut(&mut self) -> &mut T {
            self.held.as_mut().expect("a held lock")
        }
    }

    #[derive(Debug, Default)]
    pub(crate) struct Condvar(shuttle::sync::Condvar);

    impl Condvar {
        pub(crate) fn new() -> Self {
            Self::default()
        }

        pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
            if let Some(held) = guard.held.take() {
                guard.held = Some(self.0.wait(held).unwrap_or_else(std::sync::PoisonError::into_inner));
            }
        }

        /// Waits without end, as [`park_timeout`](super::park_timeout) does.
        pub(crate) fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, _: Duration) {
            self.wait(guard);
        }

        pub(crate) fn notify_all(&self) {
            self.0.notify_all();
        }

        pub(crate) fn notify_one(&self) {
            self.0.notify_one();
        }
    }

    /// Parks without end: a wake-up that is lost is then a deadlock, which the scheduler reports, and not a delay.
    pub(crate) fn park_timeout(_: Duration) {
        shuttle::thread::park();
    }

    #[derive(Debug, Default)]
    pub(crate) struct RwLock<T>(shuttle::sync::RwLock<T>);

    impl<T> RwLock<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(shuttle::sync::RwLock::new(value))
        }

        pub(crate) fn read(&self) -> shuttle::sync::RwLockReadGuard<'_, T> {
            self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner)
        }

        pub(crate) fn write(&self) -> shuttle::sync::RwLockWriteGuard<'_, T> {
            self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner)
        }
    }
}
