//! commitlog: one writer, `write` for every call, a mapped index; its `flush` does not sync.

use std::sync::{PoisonError, RwLock};

use commitlog::message::{MessageBuf, MessageSet};
use commitlog::{CommitLog, LogOptions, ReadLimit};

use super::{Can, Engine, Entrant, Role, Setup, Survives};
use crate::Result;

pub(super) const ENTRANT: Entrant = Entrant {
    name: "commitlog",
    role: Role::Peer,
    package: "commitlog",
    levels: &[(Survives::Kill, "`append`")],
    can: &[Can::Append, Can::Batch, Can::Scan, Can::Get, Can::Tail, Can::Reopen],
    open: |setup| Ok(Box::new(Log::open(setup)?)),
};

/// What its reads ask for: small enough for the allocator to keep.
const READ_BYTES: usize = 64 << 10;

struct Log {
    log: RwLock<CommitLog>,
}

impl Log {
    fn open(setup: &Setup<'_>) -> Result<Self> {
        let mut options = LogOptions::new(setup.dir);
        // Its index grows by half and is mapped anew: big enough from the start.
        options
            .segment_max_bytes(1 << 30)
            .index_max_items((1 << 30) / setup.record_bytes)
            .message_max_bytes(16 << 20);
        Ok(Self { log: RwLock::new(CommitLog::new(options)?) })
    }
}

impl Engine for Log {
    fn append(&self, data: &[u8]) -> Result<()> {
        self.log
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .append_msg(data)
            .map_err(|error| error.to_string())?;
        Ok(())
    }

    fn append_batch(&self, batch: &[&[u8]]) -> Result<()> {
        let mut messages: MessageBuf = batch.iter().collect();
        let mut log = self.log.write().unwrap_or_else(PoisonError::into_inner);
        log.append(&mut messages).map_err(|error| error.to_string())?;
        Ok(())
    }

    fn scan(&self, mut from: u64, visit: &mut dyn FnMut(&[u8])) -> Result<()> {
        loop {
            let log = self.log.read().unwrap_or_else(PoisonError::into_inner);
            let messages = log.read(from, ReadLimit::max_bytes(READ_BYTES))?;
            drop(log);
            if messages.is_empty() {
                return Ok(());
            }
            for message in messages.iter() {
                visit(message.payload());
            }
            from += messages.len() as u64;
        }
    }

    fn get(&self, number: u64, visit: &mut dyn FnMut(&[u8])) -> Result<()> {
        let log = self.log.read().unwrap_or_else(PoisonError::into_inner);
        let messages = log.read(number, ReadLimit::max_bytes(16 << 10))?;
        let first = messages.iter().next().ok_or("no such record")?;
        visit(first.payload());
        Ok(())
    }
}
