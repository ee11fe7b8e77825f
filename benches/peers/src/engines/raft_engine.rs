//! raft-engine: log entries of one raft group, an index in memory, writes of many threads joined.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use protobuf::well_known_types::BytesValue;
use raft_engine::{Config, Engine as RaftEngine, LogBatch, MessageExt, ReadableSize};

use super::{Can, Engine, Entrant, Role, Setup, Survives};
use crate::Result;
use crate::records::number_of;

pub(super) const ENTRANT: Entrant = Entrant {
    name: "raft-engine",
    role: Role::Peer,
    package: "raft-engine",
    levels: &[(Survives::Kill, "`write(sync: false)`"), (Survives::PowerCut, "`write(sync: true)`")],
    can: &[Can::Append, Can::Batch, Can::Threads, Can::Scan, Can::Get, Can::Tail, Can::Reopen],
    open: |setup| Ok(Box::new(Raft::open(setup)?)),
};

/// An entry is its bytes; its index is the number that they begin with.
struct Bytes;

impl MessageExt for Bytes {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        number_of(&entry.value)
    }
}

struct Raft {
    engine: RaftEngine,
    sync: bool,
    /// The next thread's group. Threads have groups of their own: the indexes of a group must be consecutive.
    groups: AtomicU64,
}

thread_local! {
    static WRITER: RefCell<Writer> = RefCell::default();
}

/// What a thread keeps between appends.
#[derive(Default)]
struct Writer {
    batch: LogBatch,
    entries: Vec<BytesValue>,
    /// Its raft group, from 1; 0 before its first append.
    group: u64,
}

impl Raft {
    fn open(setup: &Setup<'_>) -> Result<Self> {
        let config = Config {
            dir: setup.dir.to_string_lossy().into_owned(),
            batch_compression_threshold: ReadableSize(0), // the records do not compress
            ..Config::default()
        };
        let sync = setup.survives == Survives::PowerCut;
        Ok(Self { engine: RaftEngine::open(config)?, sync, groups: AtomicU64::new(1) })
    }

    fn write(&self, writer: &mut Writer, batch: &[&[u8]]) -> Result<()> {
        if writer.group == 0 {
            writer.group = self.groups.fetch_add(1, Ordering::Relaxed);
        }
        writer.entries.resize_with(batch.len(), BytesValue::default);
        for (entry, data) in writer.entries.iter_mut().zip(batch) {
            entry.value.clear();
            entry.value.extend_from_slice(data);
        }
        writer.batch.add_entries::<Bytes>(writer.group, &writer.entries)?;
        self.engine.write(&mut writer.batch, self.sync)?;
        Ok(())
    }
}

impl Engine for Raft {
    fn append(&self, data: &[u8]) -> Result<()> {
        self.append_batch(&[data])
    }

    fn append_batch(&self, batch: &[&[u8]]) -> Result<()> {
        WRITER.with_borrow_mut(|writer| self.write(writer, batch))
    }

    fn scan(&self, mut from: u64, visit: &mut dyn FnMut(&[u8])) -> Result<()> {
        let end = self.engine.last_index(1).map_or(0, |last| last + 1);
        let mut entries = Vec::new();
        while from < end {
            let to = end.min(from + 256);
            self.engine.fetch_entries_to::<Bytes>(1, from, to, None, &mut entries)?;
            for entry in entries.drain(..) {
                visit(&entry.value);
            }
            from = to;
        }
        Ok(())
    }

    fn get(&self, number: u64, visit: &mut dyn FnMut(&[u8])) -> Result<()> {
        visit(&self.engine.get_entry::<Bytes>(1, number)?.ok_or("no such record")?.value);
        Ok(())
    }
}
