//! walrus: topics in preallocated files, written through a map or by `pwrite`; reads consume.

use walrus_rust::{FsyncSchedule, ReadConsistency, Walrus, disable_fd_backend, enable_fd_backend};

use super::{Can, Engine, Entrant, Role, Setup, Survives};
use crate::Result;

const LEVELS: &[(Survives, &str)] =
    &[(Survives::Kill, "`FsyncSchedule::NoFsync`"), (Survives::PowerCut, "`FsyncSchedule::SyncEach`")];

/// Without batches: behind a map they are appended one by one, and at 10 KiB a batch that ends one block and begins the
/// next is not read back whole.
pub(super) const MAP: Entrant = Entrant {
    name: "walrus (map)",
    role: Role::Peer,
    package: "walrus-rust",
    levels: LEVELS,
    can: &[Can::Append, Can::Threads, Can::Scan, Can::Tail],
    open: |setup| {
        disable_fd_backend();
        open(setup)
    },
};

pub(super) const FILE: Entrant = Entrant {
    name: "walrus (file)",
    can: &[Can::Append, Can::Batch, Can::Threads, Can::Scan, Can::Tail],
    open: |setup| {
        enable_fd_backend();
        open(setup)
    },
    ..MAP
};

const TOPIC: &str = "t";

struct Topic(Walrus);

/// Its directory comes from `WALRUS_DATA_DIR`, which every cell's process is started with.
fn open(setup: &Setup<'_>) -> Result<Box<dyn Engine>> {
    let schedule = match setup.survives {
        Survives::PowerCut => FsyncSchedule::SyncEach,
        _ => FsyncSchedule::NoFsync,
    };
    let consistency = ReadConsistency::AtLeastOnce { persist_every: u32::MAX };
    Ok(Box::new(Topic(Walrus::with_consistency_and_schedule(consistency, schedule)?)))
}

impl Engine for Topic {
    fn append(&self, data: &[u8]) -> Result<()> {
        Ok(self.0.append_for_topic(TOPIC, data)?)
    }

    fn append_batch(&self, batch: &[&[u8]]) -> Result<()> {
        Ok(self.0.batch_append_for_topic(TOPIC, batch)?)
    }

    /// Goes on where the last scan ended, whatever `from` says: there is one reader, and it starts at 0.
    fn scan(&self, _: u64, visit: &mut dyn FnMut(&[u8])) -> Result<()> {
        loop {
            let entries = self.0.batch_read_for_topic(TOPIC, 1 << 20, true)?;
            if entries.is_empty() {
                return Ok(());
            }
            for entry in entries {
                visit(&entry.data);
            }
        }
    }
}
