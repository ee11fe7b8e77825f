//! Shapes that several answers have.

use anabranch::{ChildShard, HashKeyRange, Record, ShardSummary, Stream, Timestamp};
use serde::Serialize;

use crate::catalog::Entry;
use crate::distribution::given_key;
use crate::errors::Fault;
use crate::sequence::{Sequence, second};
use crate::wire::{Blob, Time};

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct HashKeyRangeShape {
    starting_hash_key: String,
    ending_hash_key: String,
}

impl From<HashKeyRange> for HashKeyRangeShape {
    fn from(range: HashKeyRange) -> Self {
        Self { starting_hash_key: range.start().to_string(), ending_hash_key: range.end().to_string() }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct SequenceRangeShape {
    starting_sequence_number: Sequence,
    #[serde(skip_serializing_if = "Option::is_none")]
    ending_sequence_number: Option<Sequence>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ShardShape {
    shard_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_shard_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    adjacent_parent_shard_id: Option<String>,
    hash_key_range: HashKeyRangeShape,
    sequence_number_range: SequenceRangeShape,
}

impl ShardShape {
    pub(super) fn new(entry: &Entry, shard: &ShardSummary) -> Result<Self, Fault> {
        let numbers = entry.numbers(shard.shard_id)?;
        let parent = |index: usize| shard.parents.get(index).map(ToString::to_string);
        Ok(Self {
            shard_id: shard.shard_id.to_string(),
            parent_shard_id: parent(0),
            adjacent_parent_shard_id: parent(1),
            hash_key_range: shard.hash_key_range.into(),
            sequence_number_range: SequenceRangeShape {
                starting_sequence_number: numbers.starting(),
                ending_sequence_number: shard.closed.map(|closed| numbers.ending(second(closed))),
            },
        })
    }
}

/// The shards of a stream within retention, by id: a closed one is listed until everything in it has expired.
pub(super) fn listed_shards(stream: &Stream, now: Timestamp) -> Vec<ShardSummary> {
    shards_since(stream, horizon(stream, now))
}

/// Those that were not closed before this horizon.
pub(super) fn shards_since(stream: &Stream, horizon: Timestamp) -> Vec<ShardSummary> {
    let is_listed = |shard: &ShardSummary| shard.closed.is_none_or(|closed| closed >= horizon);
    stream.shards().into_iter().filter(is_listed).collect()
}

/// The moment before which records are out of reach.
pub(super) fn horizon(stream: &Stream, now: Timestamp) -> Timestamp {
    let retention = stream.retention().as_millis().and_then(|millis| i64::try_from(millis).ok());
    Timestamp::from_millis(retention.map_or(i64::MIN, |millis| now.as_millis().saturating_sub(millis)))
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ChildShardShape {
    shard_id: String,
    parent_shards: Vec<String>,
    hash_key_range: HashKeyRangeShape,
}

/// At the end of a shard; where its children have expired too there are none to tell of.
pub(crate) fn child_shapes(children: &[ChildShard]) -> Option<Vec<ChildShardShape>> {
    let shapes = children.iter().map(|child| ChildShardShape {
        shard_id: child.shard_id.to_string(),
        parent_shards: child.parents.iter().map(ToString::to_string).collect(),
        hash_key_range: child.hash_key_range.into(),
    });
    (!children.is_empty()).then(|| shapes.collect())
}

/// A record that is written to the answer from the log's map.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct RecordShape<'a> {
    sequence_number: Sequence,
    approximate_arrival_timestamp: Time,
    data: Blob<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encryption_type: Option<&'static str>,
}

impl<'a> RecordShape<'a> {
    pub(crate) fn all(entry: &Entry, records: &'a [Record]) -> Result<Vec<Self>, Fault> {
        let Some(first) = records.first() else { return Ok(Vec::new()) };
        let numbers = entry.numbers(first.shard_id())?;
        let encryption_type = encryption_type(entry)?;
        let shapes = records.iter().map(|record| Self {
            sequence_number: numbers.record(record.sequence_number().get(), second(record.arrival())),
            approximate_arrival_timestamp: Time(record.arrival()),
            data: Blob(record.data()),
            partition_key: given_key(record),
            encryption_type,
        });
        Ok(shapes.collect())
    }
}

/// Told of encrypted streams only.
pub(super) fn encryption_type(entry: &Entry) -> Result<Option<&'static str>, Fault> {
    Ok(entry.settings()?.key_id.is_some().then_some("KMS"))
}
