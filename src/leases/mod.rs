//! The files of consumers: one a consumer, in it one slot a shard, which holds who works on the shard and how far that is done.
//!
//! Any process that has the stream open, for writing or for reading, reads and writes them: each look and each change is made under the
//! file's lock, which excludes other handles in this process and in others.
//!
//! # What a crash leaves
//!
//! A slot has three copies. A write goes to one that is neither *in force* (the sound one with the highest version) nor the newest that is
//! *known durable*. So a write that is cut short by a power cut, a full disk or a failing device leaves what was in force before, and however
//! many unsynced writes a power cut takes, what was durable is still there. Two copies would do for one or the other: a `Buffered` checkpoint
//! that is overwritten needs the older durable one *and* the newer one that its failed successor must not take along.
//!
//! What is known durable: each copy names the version that was durable when it was written. Who writes next takes that from the copy in force, or from its
//! own memory, if it synced the slot since. A copy that is *acknowledged after a sync only* may have been acknowledged and not be known
//! durable, because another process made it, or died making it: then it is written again, as it is, and synced before anything
//! else is written to the slot. It has to be written again because a sync that failed leaves pages that look clean and are lost.
//! An opening does so with the whole file: nobody builds on what a crash could still take back.
//!
//! A slot comes into being in two steps, each synced: one copy, then a second one. So a slot with no sound copy was never finished if at most one of them
//! holds anything, and is damaged otherwise.
//!
//! How many slots there are is said by the header, of those that the file was made with, and by the copies, of those that came later: once they are
//! durable, the first slot is written with their count. So a file that was cut is told from one that never had more.
//!
//! # Making and deleting
//!
//! Both are done under the lock of the directory. A file is made whole under another name, synced, renamed, its directory synced. One
//! that is deleted is marked first: who has it open meets the mark at its next operation, instead of writing to a file without a name. The mark is
//! durable before the name goes, so that a name which a power cut brings back leads to a marked file; and whoever meets a mark makes it durable
//! before acting on it, since who wrote it may have died, or failed, in between.
//!
//! Beside them stand what shards leave to their children, see `windows`, and what claims the names of workers, see `claim`.

mod claim;
mod directory;
mod file;
mod windows;

use std::path::PathBuf;
use std::time::Duration;

use crate::limits::CONSUMER_LOCK_MS;
use crate::storage::{Corruption, Fault};

pub(crate) use claim::WorkerClaim;
pub(crate) use directory::ConsumersDirectory;
pub(crate) use file::{LeaseFile, LockedLeases, Slot};

/// Why an operation on a consumer's file failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LeaseError {
    #[error("files")]
    Fault(Fault),
    /// The consumer was deleted.
    #[error("deleted")]
    Deleted,
    /// Somebody held the lock all the time.
    #[error("locked")]
    Busy(PathBuf),
    /// There is no room for a further slot.
    #[error("full")]
    Full,
}

impl From<Fault> for LeaseError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Corruption> for LeaseError {
    fn from(corruption: Corruption) -> Self {
        Self::Fault(corruption.into())
    }
}

/// Tries until it is done or the time is over: at first at once again, then after longer and longer sleeps.
fn patiently<T>(mut attempt: impl FnMut() -> Result<Option<T>, Fault>) -> Result<Option<T>, Fault> {
    const AT_ONCE: u32 = 16;
    const LONGEST: Duration = Duration::from_millis(1);
    let mut slept = Duration::ZERO;
    for tries in 0_u32.. {
        if let Some(done) = attempt()? {
            return Ok(Some(done));
        }
        if tries < AT_ONCE {
            std::thread::yield_now();
            continue;
        }
        if slept >= Duration::from_millis(CONSUMER_LOCK_MS) {
            break;
        }
        let sleep = Duration::from_micros(20 * u64::from(tries - AT_ONCE + 1)).min(LONGEST);
        std::thread::sleep(sleep);
        slept += sleep;
    }
    Ok(None)
}
