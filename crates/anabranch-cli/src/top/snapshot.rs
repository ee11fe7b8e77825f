//! One look at a stream, from beside its writer.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anabranch::{
    Checkpoint, Consumer, HashKeyRange, Position, ShardDescription, ShardIterator, ShardState, Stream, Timestamp,
};
use serde::Serialize;

use crate::consumers::show_position;
use crate::units::show_retention;
use crate::view::durability_name;

/// A stream that is looked at again and again, and opened again if need be.
#[derive(Debug)]
pub(crate) struct Watcher {
    dir: PathBuf,
    stream: Option<Stream>,
    started: Instant,
}

/// What a look saw.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Snapshot {
    pub(crate) path: String,
    pub(crate) stream_id: String,
    pub(crate) durability: &'static str,
    pub(crate) retention: String,
    /// When, by a clock that nobody sets.
    pub(crate) taken: Duration,
    /// When, by the clock of the records' arrivals, in milliseconds.
    pub(crate) now: i64,
    pub(crate) shards: Vec<Shard>,
    pub(crate) readings: Vec<Reading>,
    pub(crate) producers: Vec<Writing>,
    pub(crate) queues: Vec<String>,
}

/// A shard and what it holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shard {
    pub(crate) id: String,
    pub(crate) is_open: bool,
    /// The part of all hash keys that it has.
    pub(crate) share: f64,
    pub(crate) starting: u64,
    pub(crate) next: u64,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) disk_bytes: u64,
    pub(crate) oldest: Option<i64>,
    pub(crate) newest: Option<i64>,
}

/// Where a consumer is in a shard that it has not finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Reading {
    pub(crate) consumer: String,
    pub(crate) shard_id: String,
    /// As `get --from` takes it.
    pub(crate) position: String,
    pub(crate) owner: Option<String>,
    /// Nothing where retention removed what it would read next.
    pub(crate) records_behind: Option<u64>,
    pub(crate) millis_behind: Option<u64>,
}

/// A producer that the stream knows by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Writing {
    pub(crate) name: String,
    pub(crate) epoch: u32,
    pub(crate) last_batch: Option<u64>,
}

impl Watcher {
    /// Opens the stream.
    pub(crate) fn open(dir: &Path) -> anabranch::Result<Self> {
        let stream = Stream::builder().open_read_only(dir)?;
        Ok(Self { dir: dir.to_owned(), stream: Some(stream), started: Instant::now() })
    }

    /// Looks. After an error the next look opens the stream anew: it may have been deleted, and made again.
    pub(crate) fn look(&mut self) -> anabranch::Result<Snapshot> {
        let stream = match self.stream.take() {
            Some(stream) if self.dir.exists() => stream,
            _ => Stream::builder().open_read_only(&self.dir)?,
        };
        let snapshot = Snapshot::take(&stream, self.started.elapsed())?;
        self.stream = Some(stream);
        Ok(snapshot)
    }
}

impl Snapshot {
    fn take(stream: &Stream, taken: Duration) -> anabranch::Result<Self> {
        let description = stream.describe()?;
        let mut readings = Vec::new();
        for name in stream.consumers()? {
            let consumer = stream.consumer(&name)?;
            let unfinished = consumer.checkpoints()?.into_iter().filter(|at| at.position != Position::ShardEnd);
            readings.extend(unfinished.map(|checkpoint| Reading::new(&consumer, checkpoint)));
        }
        let producers = stream.producers()?.into_iter();
        let producers =
            producers.map(|known| Writing { name: known.name, epoch: known.epoch, last_batch: known.last_batch });
        Ok(Self {
            path: stream.path().display().to_string(),
            stream_id: description.stream_id.to_string(),
            durability: durability_name(description.durability),
            retention: show_retention(description.retention),
            taken,
            now: Timestamp::from(SystemTime::now()).as_millis(),
            shards: description.shards.iter().map(Shard::from).collect(),
            readings,
            producers: producers.collect(),
            queues: stream.queues()?,
        })
    }
}

impl From<&ShardDescription> for Shard {
    fn from(shard: &ShardDescription) -> Self {
        Self {
            id: shard.summary.shard_id.to_string(),
            is_open: shard.summary.state == ShardState::Open,
            share: share(shard.summary.hash_key_range),
            starting: shard.starting_sequence_number.get(),
            next: shard.next_sequence_number.get(),
            records: shard.records,
            bytes: shard.bytes,
            disk_bytes: shard.disk_bytes,
            oldest: shard.oldest_arrival.map(Timestamp::as_millis),
            newest: shard.newest_arrival.map(Timestamp::as_millis),
        }
    }
}

impl Reading {
    fn new(consumer: &Consumer, checkpoint: Checkpoint) -> Self {
        let mut iterator = consumer.iterator(checkpoint.shard_id).ok();
        let records_behind = iterator.as_ref().map(ShardIterator::records_behind);
        let millis_behind = iterator.as_mut().and_then(|iterator| iterator.millis_behind_latest().ok());
        Self {
            consumer: consumer.name().to_owned(),
            shard_id: checkpoint.shard_id.to_string(),
            position: show_position(checkpoint.position),
            owner: checkpoint.owner,
            records_behind,
            millis_behind,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "shares are shown with three digits")]
fn share(range: HashKeyRange) -> f64 {
    (range.end().get() - range.start().get()) as f64 / u128::MAX as f64
}

#[cfg(test)]
mod tests {
    use anabranch::{PutEntry, RecordsStart};

    use super::*;

    #[test]
    fn a_look_sees_shards_readers_and_writers_beside_the_writer() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("s");
        let stream = Stream::builder().shards(2).create(&path).unwrap();
        let mut watcher = Watcher::open(&path).unwrap();
        let empty = watcher.look().unwrap();
        assert_eq!((empty.shards.len(), empty.readings.len(), empty.producers.len()), (2, 0, 0));
        assert!((empty.shards[0].share - 0.5).abs() < 1e-9 && empty.shards[0].newest.is_none());

        let billing = stream.consumer("billing").unwrap();
        billing.reset(RecordsStart::TrimHorizon).unwrap();
        let batch: Vec<_> = ["a", "b", "c", "d"].map(|key| PutEntry::new(key, b"12345")).into();
        stream.producer("importer").unwrap().put_batch(9, &batch).unwrap();
        let busy = watcher.look().unwrap();
        assert_eq!(busy.shards.iter().map(|shard| shard.records).sum::<u64>(), 4);
        assert_eq!(busy.readings.iter().filter_map(|reading| reading.records_behind).sum::<u64>(), 4);
        assert_eq!(busy.producers, [Writing { name: "importer".to_owned(), epoch: 1, last_batch: Some(9) }]);
        assert!(busy.taken > empty.taken);

        stream.split_shard(busy.shards[0].id.parse().unwrap(), None).unwrap();
        let split = watcher.look().unwrap();
        assert_eq!(split.shards.iter().filter(|shard| shard.is_open).count(), 3);
        assert_eq!(split.shards.len(), 4);
    }

    #[test]
    fn a_stream_that_is_deleted_is_an_error_and_one_that_comes_again_is_seen() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("s");
        Stream::builder().create(&path).unwrap().close().unwrap();
        let mut watcher = Watcher::open(&path).unwrap();
        let before = watcher.look().unwrap().stream_id;
        std::fs::remove_dir_all(&path).unwrap();
        for _ in 0..2 {
            assert!(watcher.look().is_err());
        }
        Stream::builder().create(&path).unwrap().close().unwrap();
        assert_ne!(watcher.look().unwrap().stream_id, before);
        assert!(Watcher::open(&home.path().join("nowhere")).is_err());
    }
}
