//! rocksdb: an LSM tree behind a write-ahead log, writes of many threads joined; the key is the record's number.

use std::sync::atomic::{AtomicU64, Ordering};

use rocksdb::{DB, DBCompressionType, Options, WriteBatch, WriteOptions};

use super::{Can, Engine, Entrant, Role, Setup, Survives};
use crate::Result;

pub(super) const ENTRANT: Entrant = Entrant {
    name: "rocksdb",
    role: Role::Peer,
    package: "rocksdb",
    levels: &[
        (Survives::Nothing, "`set_manual_wal_flush(true)`"),
        (Survives::Kill, "`put`"),
        (Survives::PowerCut, "`set_sync(true)`"),
    ],
    can: &[Can::Append, Can::Batch, Can::Threads, Can::Scan, Can::Get, Can::Tail, Can::Reopen],
    open: |setup| Ok(Box::new(RocksDb::open(setup)?)),
};

struct RocksDb {
    db: DB,
    write: WriteOptions,
    next: AtomicU64,
}

impl RocksDb {
    fn open(setup: &Setup<'_>) -> Result<Self> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_compression_type(DBCompressionType::None); // the records do not compress
        options.set_write_buffer_size(256 << 20);
        options.set_max_write_buffer_number(4);
        options.set_max_background_jobs(2);
        options.set_enable_pipelined_write(true);
        options.set_recycle_log_file_num(4);
        options.set_manual_wal_flush(setup.survives == Survives::Nothing);
        let mut write = WriteOptions::default();
        write.set_sync(setup.survives == Survives::PowerCut);
        Ok(Self { db: DB::open(&options, setup.dir)?, write, next: AtomicU64::new(0) })
    }

    fn next_key(&self) -> [u8; 8] {
        super::key(self.next.fetch_add(1, Ordering::Relaxed))
    }
}

impl Engine for RocksDb {
    fn append(&self, data: &[u8]) -> Result<()> {
        Ok(self.db.put_opt(self.next_key(), data, &self.write)?)
    }

    fn append_batch(&self, batch: &[&[u8]]) -> Result<()> {
        let mut write = WriteBatch::default();
        for data in batch {
            write.put(self.next_key(), data);
        }
        Ok(self.db.write_opt(write, &self.write)?)
    }

    fn scan(&self, from: u64, visit: &mut dyn FnMut(&[u8])) -> Result<()> {
        let mut records = self.db.raw_iterator();
        records.seek(super::key(from));
        while let Some(data) = records.value() {
            visit(data);
            records.next();
        }
        Ok(records.status()?)
    }

    fn get(&self, number: u64, visit: &mut dyn FnMut(&[u8])) -> Result<()> {
        visit(&self.db.get_pinned(super::key(number))?.ok_or("no such record")?);
        Ok(())
    }
}
