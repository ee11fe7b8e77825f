//! Time, behind a trait: arrival times, retention and flush timers read it from nowhere else.

use crate::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::types::Timestamp;

/// Where a stream takes the time from.
///
/// Two clocks, because they answer different questions: the wall clock stamps records and may jump
/// in either direction; the monotonic one tells how much time really passed, and retention uses it
/// to disbelieve a wall clock that leapt.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The wall clock.
    fn now(&self) -> Timestamp;

    /// Time since some fixed moment; never goes back.
    fn monotonic(&self) -> Duration;
}

/// The operating system's clocks.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// A clock whose monotonic side starts now.
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => Timestamp::from_millis(saturate(since)),
            Err(before) => Timestamp::from_millis(-saturate(before.duration())),
        }
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }
}

fn saturate(duration: Duration) -> i64 {
    // Not `as_millis`, which divides numbers of 128 bits: every put asks for the time.
    let millis = duration.as_secs().saturating_mul(1_000).saturating_add(u64::from(duration.subsec_millis()));
    i64::try_from(millis).unwrap_or(i64::MAX)
}

/// A clock that moves only when it is told to: for tests.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use anabranch::{Clock, ManualClock, Timestamp};
///
/// let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_000)));
/// clock.advance(Duration::from_secs(2));
/// assert_eq!(clock.now(), Timestamp::from_millis(3_000));
/// assert_eq!(clock.monotonic(), Duration::from_secs(2));
///
/// clock.set(Timestamp::from_millis(0)); // the wall clock jumps; no time passed
/// assert_eq!(clock.monotonic(), Duration::from_secs(2));
/// ```
#[derive(Debug)]
pub struct ManualClock {
    wall_ms: AtomicI64,
    monotonic_ms: AtomicU64,
}

impl ManualClock {
    /// A clock that stands at `now`.
    pub fn at(now: Timestamp) -> Self {
        Self { wall_ms: AtomicI64::new(now.as_millis()), monotonic_ms: AtomicU64::new(0) }
    }

    /// Lets time pass: both clocks move.
    pub fn advance(&self, by: Duration) {
        let millis = saturate(by);
        let _ =
            self.wall_ms.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now| Some(now.saturating_add(millis)));
        self.monotonic_ms.fetch_add(millis.unsigned_abs(), Ordering::SeqCst);
    }

    /// Sets the wall clock alone, forwards or backwards, as an operator or a time server does.
    pub fn set(&self, now: Timestamp) {
        self.wall_ms.store(now.as_millis(), Ordering::SeqCst);
    }
}

impl Default for ManualClock {
    /// Stands at 2026-01-01T00:00:00Z.
    fn default() -> Self {
        Self::at(Timestamp::from_millis(1_767_225_600_000))
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.wall_ms.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.monotonic_ms.load(Ordering::SeqCst))
    }
}
