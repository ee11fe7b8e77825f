//! What a stream says of itself.

use crate::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use super::{Member, Stream, StreamInner};
use crate::error::{Error, Result};
use crate::format::ShardEntry;
use crate::limits::Limits;
use crate::segment::Visibility;
use crate::types::{
    Durability, HashKeyRange, PartitionHash, RetentionPeriod, SequenceNumber, ShardId, StreamId, Timestamp,
};

/// A stream, its options and its shards; see [`Stream::describe`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamDescription {
    /// Drawn at its creation; part of every checksum.
    pub stream_id: StreamId,
    /// When it was created.
    pub created: Timestamp,
    /// How often it was opened for writing.
    pub incarnation: u64,
    /// How long records stay.
    pub retention: RetentionPeriod,
    /// The byte budget of the whole stream, if it has one.
    pub retention_bytes: Option<u64>,
    /// The size that a shard's segments grow to.
    pub segment_bytes: u64,
    /// What an acknowledged put survives.
    pub durability: Durability,
    /// How long `Buffered` records wait for a sync at most.
    pub flush_interval: Duration,
    /// After how many unsynced bytes a shard is synced.
    pub flush_bytes: u64,
    /// From partition key to hash key.
    pub partition_hash: PartitionHash,
    /// The bounds of records and batches.
    pub limits: Limits,
    /// Its shards, open and closed, by id. Expired ones are not listed.
    pub shards: Vec<ShardDescription>,
}

/// Whether a shard takes records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ShardState {
    /// It takes records.
    Open,
    /// Its range went to its children; it is read until its records expire.
    Closed,
}

impl std::fmt::Display for ShardState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Closed => "closed",
        })
    }
}

/// A shard's place in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShardSummary {
    /// Its id.
    pub shard_id: ShardId,
    /// None for the first shards, one after a split, two after a merge (the lower one first). They may have expired.
    pub parents: Vec<ShardId>,
    /// The hash keys it takes, or took.
    pub hash_key_range: HashKeyRange,
    /// Whether it takes records.
    pub state: ShardState,
    /// When it was made.
    pub opened: Timestamp,
    /// When it was closed.
    pub closed: Option<Timestamp>,
    /// The number that its first record has, or will have.
    pub(crate) starting: SequenceNumber,
    /// The number behind its last record, once it is closed.
    pub(crate) end: Option<SequenceNumber>,
}

/// A shard and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShardDescription {
    /// Its place in the stream.
    pub summary: ShardSummary,
    /// The number that its first record has, or will have: above everything its parents hold.
    pub starting_sequence_number: SequenceNumber,
    /// Its earliest record within retention.
    pub first_sequence_number: Option<SequenceNumber>,
    /// Its newest record that readers are shown.
    pub last_sequence_number: Option<SequenceNumber>,
    /// The number of the next record; for a closed shard, the one behind its last.
    pub next_sequence_number: SequenceNumber,
    /// Records from the first to the last, without the lost ones.
    pub records: u64,
    /// Records among them that a [`repair`](crate::repair) found lost.
    pub lost_records: u64,
    /// Bytes of keys and data in its segments, records included that expired but share a segment with later ones.
    pub bytes: u64,
    /// Bytes that its segment files take on the disk.
    pub disk_bytes: u64,
    /// How many segment files it has.
    pub segments: u64,
    /// When the earliest record in its segments arrived.
    pub oldest_arrival: Option<Timestamp>,
    /// When its newest record arrived.
    pub newest_arrival: Option<Timestamp>,
}

/// Counts since the stream was opened, over all its handles and iterators; see [`Stream::metrics`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Appends: a `put`, or a shard's part of a batch.
    pub puts: u64,
    /// Records put.
    pub records_in: u64,
    /// Their bytes, keys and data.
    pub bytes_in: u64,
    /// Records handed to readers.
    pub records_out: u64,
    /// Their bytes in the log, frame headers included.
    pub bytes_out: u64,
    /// Successful syncs of shards.
    pub syncs: u64,
    /// Records that those syncs made durable.
    pub records_synced: u64,
    /// Full segments that were sealed and followed by another.
    pub segments_rolled: u64,
    /// Segments that retention removed.
    pub segments_trimmed: u64,
    /// Splits and merges.
    pub reshards: u64,
    /// The tail lag: records that are written and not durable, over all shards, now.
    pub unsynced_records: u64,
}

impl Metrics {
    /// How many records a sync made durable, on average: what group commit gains.
    #[allow(clippy::cast_precision_loss, reason = "an average for people")]
    pub fn records_per_sync(&self) -> f64 {
        if self.syncs == 0 { 0.0 } else { self.records_synced as f64 / self.syncs as f64 }
    }
}

impl Stream {
    /// The stream, its options, and every listed shard with what it holds. Opens each segment's footer the first time;
    /// [`shards`](Self::shards) is cheaper.
    pub fn describe(&self) -> Result<StreamDescription> {
        self.inner.not_closed()?;
        self.inner.look(|| {
            self.inner.refresh_all()?;
            self.inner.describe()
        })
    }

    /// The bounds of this stream's records and batches, and the quotas in force.
    pub fn limits(&self) -> Limits {
        Limits { quotas: self.quotas(), ..self.inner.context.options.limits }
    }

    /// What an acknowledged put survives, unless it asks for more.
    pub fn durability(&self) -> Durability {
        self.inner.context.options.durability
    }

    /// The listed shards, by id, with their lineage: no file is looked at.
    pub fn shards(&self) -> Vec<ShardSummary> {
        let _ = self.inner.refresh(); // a read-only stream that cannot look shows what it knew
        let topology = self.inner.topology();
        topology.shards.values().map(|member| summary(&member.entry)).collect()
    }

    /// The open shards, lowest range first: neighbours here are what [`merge_shards`](Self::merge_shards) takes.
    pub fn open_shards(&self) -> Vec<ShardId> {
        let _ = self.inner.refresh();
        self.inner.topology().routes.shards().collect()
    }

    /// Why a shard takes no more records, if one does: the first write or sync that failed since the stream was opened, in the background too, as the
    /// [`Error::ShardFailed`] that those who append to that shard are told. It stays until the stream is opened again; other shards go on.
    ///
    /// Waits for nothing: it is for those who watch a stream, and put nothing.
    pub fn failure(&self) -> Option<Error> {
        let (shard_id, source) = self.inner.context.failure.get()?;
        Some(Error::ShardFailed { shard_id: *shard_id, source: Arc::clone(source) })
    }

    /// What was counted since the stream was opened. Each figure is exact, but they are not taken at one moment.
    pub fn metrics(&self) -> Metrics {
        let counters = &self.inner.context.counters;
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let topology = self.inner.topology();
        if !self.inner.is_forked() {
            topology.shards.values().for_each(|member| member.shard.count()); // takes a lock
        }
        let unsynced = topology.shards.values().map(|member| {
            let shard = &member.shard;
            shard.next(Visibility::Written).since(shard.next(Visibility::Durable))
        });
        Metrics {
            puts: of(&counters.puts),
            records_in: of(&counters.records_in),
            bytes_in: of(&counters.bytes_in),
            records_out: of(&counters.records_out),
            bytes_out: of(&counters.bytes_out),
            syncs: of(&counters.syncs),
            records_synced: of(&counters.records_synced),
            segments_rolled: of(&counters.segments_rolled),
            segments_trimmed: of(&counters.segments_trimmed),
            reshards: of(&counters.reshards),
            unsynced_records: unsynced.sum(),
        }
    }
}

impl StreamInner {
    fn describe(&self) -> Result<StreamDescription> {
        let topology = self.topology();
        let shards = topology.shards.values().map(|member| self.describe_shard(member)).collect::<Result<_>>()?;
        let manifest = self.manifest.lock();
        let state = manifest.state();
        let options = &state.options;
        Ok(StreamDescription {
            stream_id: state.stream_id,
            created: state.created,
            incarnation: state.incarnation,
            retention: options.retention,
            retention_bytes: options.retention_bytes,
            segment_bytes: options.segment_bytes,
            durability: options.durability,
            flush_interval: options.flush_interval,
            flush_bytes: options.flush_bytes,
            partition_hash: options.partition_hash,
            limits: Limits { quotas: self.quotas.current(), ..options.limits },
            shards,
        })
    }

    fn describe_shard(&self, member: &Member) -> Result<ShardDescription> {
        let shard = &member.shard;
        let segments = shard.segment_summaries()?;
        let next = shard.next(self.visibility());
        let first = shard.trim_horizon(self.context.cutoff_by_clock()).map_err(Error::of_shard(shard.id()))?;
        let numbers = next.since(first);
        let lost = segments.iter().filter(|segment| segment.lost);
        let lost_records = lost.map(|segment| segment.next.since(segment.first.max(first))).sum();
        Ok(ShardDescription {
            summary: summary(&member.entry),
            starting_sequence_number: member.entry.starting,
            first_sequence_number: (numbers > 0).then_some(first),
            last_sequence_number: next.previous().filter(|_| numbers > 0),
            next_sequence_number: next,
            records: numbers.saturating_sub(lost_records),
            lost_records,
            bytes: segments.iter().map(|segment| segment.bytes).sum(),
            disk_bytes: segments.iter().map(|segment| segment.disk_bytes).sum(),
            segments: segments.len() as u64,
            oldest_arrival: segments.first().map(|segment| segment.first_arrival),
            newest_arrival: segments.last().map(|segment| segment.last_arrival),
        })
    }
}

fn summary(entry: &ShardEntry) -> ShardSummary {
    ShardSummary {
        shard_id: entry.id,
        parents: entry.parents.clone(),
        hash_key_range: entry.range,
        state: if entry.is_open() { ShardState::Open } else { ShardState::Closed },
        opened: entry.opened,
        closed: entry.closed.map(|closed| closed.at),
        starting: entry.starting,
        end: entry.closed.map(|_| entry.next),
    }
}
