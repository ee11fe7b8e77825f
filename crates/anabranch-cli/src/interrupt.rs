//! Ctrl-C and SIGTERM as a flag that the long commands look at.

use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::exit::Failure;

/// How long a command waits at most before it looks at the flag again.
pub(crate) const PATIENCE: Duration = Duration::from_millis(100);

/// Whether the user asked to stop. The first request lets the command end cleanly; a second one ends
/// the process at once, for when the first cannot get through (a blocked pipe).
#[derive(Debug, Clone)]
pub(crate) struct Interrupt {
    requested: Arc<AtomicBool>,
    /// What is to be put back as it was even by a sudden end.
    before_exit: Arc<OnceLock<fn()>>,
}

impl Interrupt {
    /// Takes over the process's handling of the signals; once per process.
    pub(crate) fn install() -> Result<Self, Failure> {
        let requested = Arc::new(AtomicBool::new(false));
        let before_exit = Arc::new(OnceLock::<fn()>::new());
        let (flag, last) = (Arc::clone(&requested), Arc::clone(&before_exit));
        ctrlc::set_handler(move || {
            if flag.swap(true, Ordering::SeqCst) {
                last.get().into_iter().for_each(|last| last());
                process::exit(130);
            }
        })?;
        Ok(Self { requested, before_exit })
    }

    /// Has this done before a second request ends the process; the first of these that is given counts.
    pub(crate) fn before_exit(&self, last: fn()) {
        self.before_exit.get_or_init(|| last);
    }

    /// Whether a request has come.
    pub(crate) fn requested(&self) -> bool {
        self.requested.load(Ordering::Relaxed)
    }

    /// [`Failure::Interrupted`] once a request has come.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.requested() { Err(Failure::Interrupted) } else { Ok(()) }
    }
}
