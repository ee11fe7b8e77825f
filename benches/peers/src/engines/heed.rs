//! heed: LMDB; the key is the record's number, appended at the end of the tree.

use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, PutFlags, WithoutTls};

use super::{Can, Engine, Entrant, Role, Setup, Survives};
use crate::Result;

pub(super) const ENTRANT: Entrant = Entrant {
    name: "heed",
    role: Role::Peer,
    package: "heed",
    levels: &[(Survives::Kill, "`WRITE_MAP`, `NO_SYNC`"), (Survives::PowerCut, "default flags")],
    can: &[Can::Append, Can::Batch, Can::Threads, Can::Scan, Can::Get, Can::Tail, Can::Reopen],
    open: |setup| Ok(Box::new(Heed::open(setup)?)),
};

struct Heed {
    env: &'static Env<WithoutTls>,
    records: Database<'static, Bytes, Bytes>,
    /// Changed only by the one write transaction.
    next: AtomicU64,
}

impl Heed {
    fn open(setup: &Setup<'_>) -> Result<Self> {
        let flags = match setup.survives {
            Survives::PowerCut => EnvFlags::empty(),
            _ => EnvFlags::WRITE_MAP | EnvFlags::NO_SYNC,
        };
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        // A record of 10 KiB takes three pages of 4 KiB; small ones fill them by half at worst.
        options.map_size((setup.volume_bytes as usize * 3 + (1 << 30)).next_multiple_of(1 << 20));
        #[expect(unsafe_code, reason = "LMDB maps a file")]
        // SAFETY: the directory is this process's own, so nobody truncates the mapped file or opens it with other flags;
        // NO_SYNC endangers it at a power cut only, after which it is not read.
        let env = unsafe { options.flags(flags).open(setup.dir)? };
        // Databases borrow it. A cell's process opens one.
        let env: &'static Env<WithoutTls> = Box::leak(Box::new(env));
        let write = env.write_txn()?;
        let created = env.create_databases_and_commit(write, |opener, write| {
            opener.create_database::<Bytes, Bytes>(write, None).map(CommitOrAbort::<_, ()>::Commit)
        })?;
        Ok(Self { env, records: created.unwrap_commit(), next: AtomicU64::new(0) })
    }
}

impl Engine for Heed {
    fn append(&self, data: &[u8]) -> Result<()> {
        self.append_batch(&[data])
    }

    fn append_batch(&self, batch: &[&[u8]]) -> Result<()> {
        let mut write = self.env.write_txn()?;
        for data in batch {
            let key = super::key(self.next.fetch_add(1, Ordering::Relaxed));
            self.records.put_with_flags(&mut write, PutFlags::APPEND, &key, data)?;
        }
        Ok(write.commit()?)
    }

    fn scan(&self, from: u64, visit: &mut dyn FnMut(&[u8])) -> Result<()> {
        let read = self.env.read_txn()?;
        let from = (Bound::Included(&super::key(from)[..]), Bound::Unbounded);
        for record in self.records.range(&read, &from)? {
            visit(record?.1);
        }
        Ok(())
    }

    fn get(&self, number: u64, visit: &mut dyn FnMut(&[u8])) -> Result<()> {
        let read = self.env.read_txn()?;
        visit(self.records.get(&read, &super::key(number))?.ok_or("no such record")?);
        Ok(())
    }
}
