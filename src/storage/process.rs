//! Telling the process that opened something from a copy that a fork made of it.
#![allow(unsafe_code)]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many forks led from the process that loaded this library to this one.
static FORKS: AtomicU64 = AtomicU64::new(0);

extern "C" fn note_fork() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// The process that took it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    forks: u64,
    id: u32,
}

impl Process {
    pub(crate) fn this() -> Self {
        static COUNTING: OnceLock<bool> = OnceLock::new();
        // SAFETY: the function that the child runs adds to an atomic number and does nothing else. Should there be no memory to
        // register it, `is_this` still compares the processes' numbers.
        COUNTING.get_or_init(|| unsafe { libc::pthread_atfork(None, None, Some(note_fork)) } == 0);
        Self { forks: FORKS.load(Ordering::Relaxed), id: std::process::id() }
    }

    /// Whether a fork made this process since. One load: it is asked at every put. A process made by a bare `clone` call is not seen here.
    pub(crate) fn was_forked(self) -> bool {
        self.forks != FORKS.load(Ordering::Relaxed)
    }

    /// Whether this is the same process, by whatever means another was made.
    pub(crate) fn is_this(self) -> bool {
        !self.was_forked() && self.id == std::process::id()
    }
}
