//! redb: a copy-on-write B-tree; the key is the record's number.

use std::sync::atomic::{AtomicU64, Ordering};

use redb::{Database, Durability, ReadableDatabase, TableDefinition};

use super::{Can, Engine, Entrant, Role, Setup, Survives};
use crate::Result;

pub(super) const ENTRANT: Entrant = Entrant {
    name: "redb",
    role: Role::Peer,
    package: "redb",
    levels: &[(Survives::Nothing, "`Durability::None`"), (Survives::PowerCut, "`Durability::Immediate`")],
    can: &[Can::Append, Can::Batch, Can::Threads, Can::Scan, Can::Get, Can::Tail, Can::Reopen],
    open: |setup| Ok(Box::new(Redb::open(setup)?)),
};

const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("records");

struct Redb {
    database: Database,
    durability: Durability,
    next: AtomicU64,
}

impl Redb {
    fn open(setup: &Setup<'_>) -> Result<Self> {
        let durability =
            if setup.survives == Survives::PowerCut { Durability::Immediate } else { Durability::None };
        let database = Database::builder().set_cache_size(512 << 20).create(setup.dir.join("redb"))?;
        let write = database.begin_write()?;
        write.open_table(TABLE)?;
        write.commit()?;
        Ok(Self { database, durability, next: AtomicU64::new(0) })
    }
}

impl Engine for Redb {
    fn append(&self, data: &[u8]) -> Result<()> {
        self.append_batch(&[data])
    }

    fn append_batch(&self, batch: &[&[u8]]) -> Result<()> {
        let mut write = self.database.begin_write()?;
        write.set_durability(self.durability)?;
        let mut table = write.open_table(TABLE)?;
        for data in batch {
            table.insert(self.next.fetch_add(1, Ordering::Relaxed), *data)?;
        }
        drop(table);
        Ok(write.commit()?)
    }

    fn scan(&self, from: u64, visit: &mut dyn FnMut(&[u8])) -> Result<()> {
        for record in self.database.begin_read()?.open_table(TABLE)?.range(from..)? {
            visit(record?.1.value());
        }
        Ok(())
    }

    fn get(&self, number: u64, visit: &mut dyn FnMut(&[u8])) -> Result<()> {
        let table = self.database.begin_read()?.open_table(TABLE)?;
        visit(table.get(number)?.ok_or("no such record")?.value());
        Ok(())
    }
}
