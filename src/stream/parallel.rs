//! The same work for each of many shards.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Up to here one thread does it all: as fast for a few, and the same at every run, which simulated crashes rely on.
const SERIAL: usize = 64;

/// Syncs wait for the disk, not for a core: more threads than cores let the disk take several at once, and file systems that
/// commit a journal do it for all who wait.
const THREADS: usize = 16;

/// Does `work` for each item; gives the results in the items' order.
pub(super) fn map<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    if items.len() <= SERIAL {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return done };
            done.push((index, work(item)));
        }
    };
    let mut results = thread::scope(|scope| {
        let spawn =
            |_| thread::Builder::new().name("anabranch-shards".to_owned()).spawn_scoped(scope, worker).ok();
        // A thread that cannot be had is done without.
        let helpers: Vec<_> = (1..THREADS).filter_map(spawn).collect();
        let mut results = worker();
        for helper in helpers {
            match helper.join() {
                Ok(found) => results.extend(found),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        results
    });
    results.sort_unstable_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order() {
        for count in [0, 1, SERIAL, SERIAL + 1, 1_000] {
            let items: Vec<_> = (0..count).collect();
            assert_eq!(map(&items, |item| item * 2), items.iter().map(|item| item * 2).collect::<Vec<_>>());
        }
    }
}
