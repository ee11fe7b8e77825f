//! nano-wal: `writev` for every call under a mutex of its own; readers keep the places of records themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nano_wal::{ReadDescriptor, Segment, Wal, WalOptions, WriteEntry, read_batch};

use super::{Can, Engine, Entrant, Role, Setup, Survives};
use crate::Result;

pub(super) const ENTRANT: Entrant = Entrant {
    name: "nano-wal",
    role: Role::Peer,
    package: "nano-wal",
    levels: &[(Survives::Kill, "`append(durable: false)`"), (Survives::PowerCut, "`append(durable: true)`")],
    can: &[Can::Append, Can::Batch, Can::Threads, Can::Scan, Can::Get, Can::Tail, Can::Reopen],
    open: |setup| Ok(Box::new(NanoWal::open(setup)?)),
};

/// Any time: one segment takes it all.
const TIME_MS: i64 = 4_000_000_000_000;
const FILE_HEADER_BYTES: u64 = 16;
const FRAMING_BYTES: usize = 16;
/// Records that its batch reads join into one call.
const RECORDS_OF_READ: u64 = 512;

struct NanoWal {
    wal: Wal,
    segment: Arc<Segment>,
    durable: bool,
    frame_bytes: usize,
    records: AtomicU64,
}

impl NanoWal {
    fn open(setup: &Setup<'_>) -> Result<Self> {
        let day = Duration::from_hours(24);
        let wal = Wal::new(setup.dir, "peers", WalOptions { retention: day, segment_duration: day })?;
        let segment = wal.ensure_segment(TIME_MS)?;
        let frame_bytes = FRAMING_BYTES + setup.record_bytes;
        let records = AtomicU64::new((segment.file_size() - FILE_HEADER_BYTES) / frame_bytes as u64);
        Ok(Self { wal, segment, durable: setup.survives == Survives::PowerCut, frame_bytes, records })
    }

    fn offset(&self, number: u64) -> u64 {
        FILE_HEADER_BYTES + number * self.frame_bytes as u64
    }
}

impl Engine for NanoWal {
    fn append(&self, data: &[u8]) -> Result<()> {
        self.wal.append(None, data, TIME_MS, self.durable)?;
        self.records.fetch_add(1, Ordering::Release);
        Ok(())
    }

    fn append_batch(&self, batch: &[&[u8]]) -> Result<()> {
        let entries: Vec<_> = batch.iter().map(|content| WriteEntry { header: None, content }).collect();
        self.wal.append_batch(&entries, TIME_MS, self.durable)?;
        self.records.fetch_add(batch.len() as u64, Ordering::Release);
        Ok(())
    }

    fn scan(&self, mut from: u64, visit: &mut dyn FnMut(&[u8])) -> Result<()> {
        let end = self.records.load(Ordering::Acquire);
        while from < end {
            let to = end.min(from + RECORDS_OF_READ);
            let places: Vec<_> = (from..to)
                .map(|number| ReadDescriptor {
                    read_fd: Arc::clone(self.segment.read_fd()),
                    file_offset: self.offset(number),
                    byte_size: self.frame_bytes,
                })
                .collect();
            for record in read_batch(&places)? {
                visit(&record.content);
            }
            from = to;
        }
        Ok(())
    }

    fn get(&self, number: u64, visit: &mut dyn FnMut(&[u8])) -> Result<()> {
        let record = self.wal.read_at(&self.segment, self.offset(number), self.frame_bytes)?;
        visit(&record.content);
        Ok(())
    }
}
