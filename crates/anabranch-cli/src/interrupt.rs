//! Ctrl-C and SIGTERM as a flag that the long commands look at.

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::exit::Failure;

/// How long a command waits at most before it looks at the flag again.
pub(crate) const PATIENCE: Duration = Duration::from_millis(100);

/// Whether the user asked to stop. The first request lets the command end cleanly; a second one ends
/// the process at once, for when the first cannot get through (a blocked pipe).
#[derive(Debug, Clone)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Takes over the process's handling of the signals; once per process.
    pub(crate) fn install() -> Result<Self, Failure> {
        let requested = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&requested);
        ctrlc::set_handler(move || {
            if flag.swap(true, Ordering::SeqCst) {
                process::exit(130);
            }
        })?;
        Ok(Self(requested))
    }

    /// Whether a request has come.
    pub(crate) fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// [`Failure::Interrupted`] once a request has come.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.requested() { Err(Failure::Interrupted) } else { Ok(()) }
    }
}
