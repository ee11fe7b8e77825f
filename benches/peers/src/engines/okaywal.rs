//! okaywal: every commit is synced, commits of many threads share syncs. It is read back only by recovery.

use okaywal::{Configuration, LogVoid, WriteAheadLog};

use super::{Can, Engine, Entrant, Role, Setup, Survives};
use crate::Result;

pub(super) const ENTRANT: Entrant = Entrant {
    name: "okaywal",
    role: Role::Peer,
    package: "okaywal",
    levels: &[(Survives::PowerCut, "`commit`")],
    can: &[Can::Append, Can::Threads],
    open: |setup| Ok(Box::new(OkayWal(open(setup)?))),
};

/// Bigger than its default, for checkpoints to be rarer; small enough for its files, which it fills with zeros first, to be soon reused.
const FILE_BYTES: u32 = 8 << 20;

struct OkayWal(WriteAheadLog);

fn open(setup: &Setup<'_>) -> Result<WriteAheadLog> {
    let configuration = Configuration::default_for(setup.dir)
        .preallocate_bytes(FILE_BYTES)
        .checkpoint_after_bytes(u64::from(FILE_BYTES) * 3 / 4)
        .buffer_bytes(128 << 10);
    Ok(configuration.open(LogVoid)?)
}

impl Engine for OkayWal {
    fn append(&self, data: &[u8]) -> Result<()> {
        let mut entry = self.0.begin_entry()?;
        entry.write_chunk(data)?;
        entry.commit()?;
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.0.shutdown()?)
    }
}
