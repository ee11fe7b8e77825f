//! The library itself, through its public interface: 16-byte keys, checksums verified by every read.

use std::time::Duration;

use anabranch::{Durability, PutEntry, SequenceNumber, ShardId, ShardIterator, ShardIteratorType, Stream};

use super::{Can, Engine, Entrant, Role, Setup, Survives};
use crate::Result;
use crate::records::part_of;

pub(super) const ENTRANT: Entrant = Entrant {
    name: "anabranch",
    role: Role::Ours,
    package: "anabranch",
    levels: &[(Survives::Kill, "`Buffered`, no flush while the clock runs"), (Survives::PowerCut, "`Synced`")],
    can: &[
        Can::Append,
        Can::Batch,
        Can::Threads,
        Can::Shards,
        Can::Scan,
        Can::Get,
        Can::Tail,
        Can::Park,
        Can::Reopen,
    ],
    open: |setup| Ok(Box::new(Anabranch::open(setup)?)),
};

const SHARD: ShardId = ShardId::new(0);
const SEGMENT_BYTES: u64 = 2 << 30;

pub(crate) struct Anabranch {
    stream: Stream,
    keys: Vec<String>,
}

impl Anabranch {
    pub(crate) fn open(setup: &Setup<'_>) -> Result<Self> {
        // Segments that hold all of a cell's volume, as the peers' do.
        let builder = Stream::builder().shards(setup.shards).segment_bytes(SEGMENT_BYTES);
        let builder = if setup.shards <= 16 { builder.first_segment_bytes(SEGMENT_BYTES) } else { builder };
        let builder = match setup.survives {
            Survives::PowerCut => builder.durability(Durability::Synced),
            _ if setup.flushes => builder.durability(Durability::Buffered),
            // As for the peers: the kernel alone decides when to write back.
            _ => builder
                .durability(Durability::Buffered)
                .flush_interval(Duration::from_hours(24))
                .flush_bytes(1 << 40),
        };
        let keys = (0..1_024).map(|key| format!("partition-{key:06}")).collect();
        Ok(Self { stream: builder.open(setup.dir.join("stream"))?, keys })
    }

    pub(crate) fn stream(&self) -> &Stream {
        &self.stream
    }

    pub(crate) fn iterator(&self, from: u64) -> Result<ShardIterator> {
        let kind = match from {
            0 => ShardIteratorType::TrimHorizon,
            _ => ShardIteratorType::AtSequenceNumber(SequenceNumber::new(from)),
        };
        Ok(self.stream.shard_iterator(SHARD, kind)?)
    }

    /// The key of a record: all shards get their share.
    fn key(&self, data: &[u8]) -> &str {
        &self.keys[part_of(data, self.keys.len())]
    }
}

impl Engine for Anabranch {
    fn append(&self, data: &[u8]) -> Result<()> {
        self.stream.put(self.key(data), data)?;
        Ok(())
    }

    fn append_batch(&self, batch: &[&[u8]]) -> Result<()> {
        let entries: Vec<_> = batch.iter().map(|data| PutEntry::new(self.key(data), data)).collect();
        self.stream.put_batch(&entries)?;
        Ok(())
    }

    fn scan(&self, from: u64, visit: &mut dyn FnMut(&[u8])) -> Result<()> {
        let mut iterator = self.iterator(from)?;
        loop {
            let batch = iterator.next_batch()?;
            if batch.is_empty() {
                return Ok(());
            }
            for record in batch {
                visit(record.data());
            }
        }
    }

    fn get(&self, number: u64, visit: &mut dyn FnMut(&[u8])) -> Result<()> {
        visit(self.stream.get(SHARD, SequenceNumber::new(number))?.data());
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.stream.close()?)
    }
}
