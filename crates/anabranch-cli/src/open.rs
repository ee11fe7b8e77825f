//! Opening a stream, and the options that a new one is made with.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anabranch::limits::MAX_PARTITION_KEY_BYTES;
use anabranch::{Durability, Limits, PartitionHash, RetentionPeriod, Stream, StreamBuilder};
use clap::{Args, ValueEnum, ValueHint};

use crate::exit::Failure;
use crate::output::Output;
use crate::units::{ByteBudget, parse_byte_budget, parse_bytes, parse_bytes_u32, parse_duration, parse_retention};

/// The stream that a command is about.
#[derive(Debug, Clone, Args)]
pub(crate) struct StreamArg {
    /// The stream's directory
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
}

/// What an acknowledged record survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DurabilityArg {
    /// Power loss
    Synced,
    /// The death of the process at once, power loss after the next flush
    Buffered,
}

impl From<DurabilityArg> for Durability {
    fn from(durability: DurabilityArg) -> Self {
        match durability {
            DurabilityArg::Synced => Self::Synced,
            DurabilityArg::Buffered => Self::Buffered,
        }
    }
}

/// The function from partition key to hash key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum HashArg {
    /// XXH3-128: fast
    Xxh3,
    /// MD5: routes as Kinesis does
    Md5,
}

impl From<HashArg> for PartitionHash {
    fn from(hash: HashArg) -> Self {
        match hash {
            HashArg::Xxh3 => Self::Xxh3,
            HashArg::Md5 => Self::Md5,
        }
    }
}

/// The options of a new stream. Sizes read like 64MiB or 10GB, durations like 90m, 24h or 7d.
#[derive(Debug, Clone, Args)]
pub(crate) struct NewStreamArgs {
    /// How many shards to begin with
    #[arg(long, value_name = "N", default_value_t = 1)]
    shards: u32,

    /// How long records stay: a duration, or `unlimited` [default: 24h]
    #[arg(long, value_name = "DURATION", value_parser = parse_retention)]
    retention: Option<RetentionPeriod>,

    /// How much the whole stream may hold before the oldest segments go: a size, or `none` [default: none]
    #[arg(long, value_name = "SIZE", value_parser = parse_byte_budget)]
    retention_bytes: Option<ByteBudget>,

    /// How large a segment file grows [default: 64MiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    segment_bytes: Option<u64>,

    /// What an acknowledged record survives [default: synced]
    #[arg(long, value_name = "LEVEL", value_enum)]
    durability: Option<DurabilityArg>,

    /// Which function routes partition keys [default: xxh3]
    #[arg(long, value_name = "FUNCTION", value_enum)]
    hash: Option<HashArg>,

    /// The largest data of a record [default: 1MiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes_u32)]
    max_data_bytes: Option<u32>,

    /// The most records of a batch [default: 10000]
    #[arg(long, value_name = "N")]
    max_batch_records: Option<u32>,

    /// The most bytes of a batch [default: 16MiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes_u32)]
    max_batch_bytes: Option<u32>,

    /// How long buffered records wait for a flush at most [default: 1s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    flush_interval: Option<Duration>,

    /// After how many bytes of a shard buffered records are flushed [default: 8MiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    flush_bytes: Option<u64>,
}

impl NewStreamArgs {
    /// A builder with what was asked for; the library has the other defaults.
    pub(crate) fn builder(&self) -> StreamBuilder {
        let builder = Stream::builder().shards(self.shards).limits(self.limits());
        let builder = set(builder, self.retention, StreamBuilder::retention);
        let builder = set(builder, self.retention_bytes.map(|budget| budget.0), StreamBuilder::retention_bytes);
        let builder = set(builder, self.segment_bytes, StreamBuilder::segment_bytes);
        let builder = set(builder, self.durability.map(Durability::from), StreamBuilder::durability);
        let builder = set(builder, self.hash.map(PartitionHash::from), StreamBuilder::partition_hash);
        let builder = set(builder, self.flush_interval, StreamBuilder::flush_interval);
        set(builder, self.flush_bytes, StreamBuilder::flush_bytes)
    }

    /// A larger record takes a larger batch with it, unless the user says how large that may be.
    fn limits(&self) -> Limits {
        let default = Limits::default();
        let max_data_bytes = self.max_data_bytes.unwrap_or(default.max_data_bytes);
        let one_record = max_data_bytes.saturating_add(u32::try_from(MAX_PARTITION_KEY_BYTES).unwrap_or(u32::MAX));
        Limits {
            max_data_bytes,
            max_batch_records: self.max_batch_records.unwrap_or(default.max_batch_records),
            max_batch_bytes: self.max_batch_bytes.unwrap_or(default.max_batch_bytes.max(one_record)),
            ..default
        }
    }
}

fn set<T>(
    builder: StreamBuilder,
    value: Option<T>,
    option: impl FnOnce(StreamBuilder, T) -> StreamBuilder,
) -> StreamBuilder {
    match value {
        Some(value) => option(builder, value),
        None => builder,
    }
}

/// Opens an existing stream as its one writer, and says what a crash had left there.
pub(crate) fn to_write(dir: &Path, out: &Output) -> Result<Stream, Failure> {
    let stream = Stream::builder().open_existing(dir)?;
    note_recovery(&stream, out);
    Ok(stream)
}

/// As [`to_write`], and makes the stream if there is none and `create` says so.
pub(crate) fn to_fill(dir: &Path, create: bool, out: &Output) -> Result<Stream, Failure> {
    if !create {
        return to_write(dir, out);
    }
    let stream = Stream::builder().open(dir)?;
    note_recovery(&stream, out);
    Ok(stream)
}

/// Opens a stream beside its writer, if it has one.
pub(crate) fn to_read(dir: &Path) -> Result<Stream, Failure> {
    Ok(Stream::builder().open_read_only(dir)?)
}

/// Says what a crash had left in a stream that was just opened.
pub(crate) fn note_recovery(stream: &Stream, out: &Output) {
    for tail in stream.recovery().torn_tails {
        out.note(format_args!(
            "recovered {}: cut off an unfinished record after a crash; it goes on at {}",
            tail.shard_id, tail.next_sequence_number
        ));
    }
}
