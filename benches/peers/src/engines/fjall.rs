//! fjall: an LSM tree behind a journal; the key is the record's number.

use std::sync::atomic::{AtomicU64, Ordering};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{Can, Engine, Entrant, Role, Setup, Survives};
use crate::Result;

pub(super) const ENTRANT: Entrant = Entrant {
    name: "fjall",
    role: Role::Peer,
    package: "fjall",
    levels: &[(Survives::Kill, "`insert`"), (Survives::PowerCut, "`insert`, `persist(SyncData)`")],
    can: &[Can::Append, Can::Batch, Can::Threads, Can::Scan, Can::Get, Can::Tail, Can::Reopen],
    open: |setup| Ok(Box::new(Fjall::open(setup)?)),
};

struct Fjall {
    database: Database,
    records: Keyspace,
    sync: bool,
    next: AtomicU64,
}

impl Fjall {
    fn open(setup: &Setup<'_>) -> Result<Self> {
        let database = Database::builder(setup.dir)
            .cache_size(256 << 20)
            .max_journaling_size(2 << 30)
            .worker_threads(2)
            .open()?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(64 << 20).expect_point_read_hits(true);
        let records = database.keyspace("records", options)?;
        Ok(Self { database, records, sync: setup.survives == Survives::PowerCut, next: AtomicU64::new(0) })
    }

    fn next_key(&self) -> [u8; 8] {
        super::key(self.next.fetch_add(1, Ordering::Relaxed))
    }
}

impl Engine for Fjall {
    fn append(&self, data: &[u8]) -> Result<()> {
        self.records.insert(self.next_key(), data)?;
        if self.sync {
            self.database.persist(PersistMode::SyncData)?;
        }
        Ok(())
    }

    fn append_batch(&self, batch: &[&[u8]]) -> Result<()> {
        let mode = if self.sync { PersistMode::SyncData } else { PersistMode::Buffer };
        let mut write = self.database.batch().durability(Some(mode));
        for data in batch {
            write.insert(&self.records, self.next_key(), *data);
        }
        Ok(write.commit()?)
    }

    fn scan(&self, from: u64, visit: &mut dyn FnMut(&[u8])) -> Result<()> {
        for record in self.records.range(super::key(from)..) {
            visit(&record.value()?);
        }
        Ok(())
    }

    fn get(&self, number: u64, visit: &mut dyn FnMut(&[u8])) -> Result<()> {
        visit(&self.records.get(super::key(number))?.ok_or("no such record")?);
        Ok(())
    }
}
