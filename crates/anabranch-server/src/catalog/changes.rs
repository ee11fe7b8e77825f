//! How many changes of streams and shards may be under way.
//!
//! They wait for one another, each with a thread and room for its answer, and one of them can take long: without a bound they would take all there is for calls that neither put nor
//! read, and nobody could ask how a stream is. What there is for puts is not theirs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::errors::Fault;
use crate::limits::MAX_CHANGES;

/// Those under way or waiting, of all accounts and regions.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changes(Arc<AtomicUsize>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct Change(Changes);

impl Changes {
    /// Begins one, or refuses it.
    pub(super) fn begin(&self) -> Result<Change, Fault> {
        let before = self.0.fetch_add(1, Ordering::Relaxed);
        let change = Change(self.clone());
        if before < MAX_CHANGES {
            return Ok(change);
        }
        Err(Fault::limit(format!(
            "There are {MAX_CHANGES} changes of streams and shards under way. Try again later."
        )))
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::errors::FaultKind;

    #[test]
    fn there_are_so_many_at_a_time() {
        let changes = Changes::default();
        let mut under_way: Vec<_> = (0..MAX_CHANGES).map(|_| changes.begin().unwrap()).collect();
        for _ in 0..3 {
            assert_eq!(changes.begin().unwrap_err().kind, FaultKind::LimitExceeded);
        }
        under_way.pop();
        changes.begin().unwrap();
    }
}
