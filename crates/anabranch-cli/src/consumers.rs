//! `consumers` and `checkpoint`: how far each consumer is, and changing that.

use anabranch::{Checkpoint, Consumer, Position, ShardId, Stream};
use clap::Args;
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::open::{self, StreamArg};
use crate::output::{Align, Output, Table};
use crate::start::Start;
use crate::units::show_count;

/// Arguments of `checkpoint`.
#[derive(Debug, Clone, Args)]
pub(crate) struct CheckpointArgs {
    #[command(flatten)]
    stream: StreamArg,
    /// The consumer's name
    consumer: String,
    /// Only this shard, such as 3 or shardId-000000000003
    #[arg(long)]
    shard: Option<ShardId>,
    /// Where it is to go on: `trim-horizon`, `latest`, or `time:` and an RFC 3339 time; its workers lose their shards
    #[arg(long, value_name = "PLACE")]
    reset: Option<Start>,
    /// Delete the consumer and its positions
    #[arg(long, conflicts_with_all = ["shard", "reset"])]
    delete: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct CheckpointView {
    consumer: String,
    shard_id: String,
    /// As `get --from` takes it, or `end`.
    position: String,
    owner: Option<String>,
    epoch: u64,
    /// How many records there are to do; nothing where that cannot be told, since retention removed some of them.
    records_behind: Option<u64>,
}

impl CheckpointView {
    fn new(consumer: &Consumer, checkpoint: Checkpoint) -> Self {
        let behind = consumer.iterator(checkpoint.shard_id).map(|iterator| iterator.records_behind());
        Self {
            consumer: consumer.name().to_owned(),
            shard_id: checkpoint.shard_id.to_string(),
            position: show_position(checkpoint.position),
            owner: checkpoint.owner,
            epoch: checkpoint.epoch,
            records_behind: behind.ok(),
        }
    }
}

/// A position as `get --from` takes it, or `end`.
pub(crate) fn show_position(position: Position) -> String {
    match position {
        Position::TrimHorizon => "trim-horizon".to_owned(),
        Position::AtTimestamp(time) => format!("time:{time}"),
        Position::After(at) => match at.sub_sequence_number {
            Some(part) => format!("after:{} part {part}", at.sequence_number),
            None => format!("after:{}", at.sequence_number),
        },
        Position::ShardEnd => "end".to_owned(),
        _ => "unknown".to_owned(),
    }
}

/// Lists all consumers, shard by shard.
pub(crate) fn list(args: &StreamArg, out: &mut Output) -> Result<Exit, Failure> {
    let stream = open::to_read(&args.dir)?;
    let mut views = Vec::new();
    for name in stream.consumers()? {
        views.extend(checkpoints(&stream.consumer(&name)?, None)?);
    }
    print(out, views)
}

/// Shows or changes one consumer's positions.
pub(crate) fn checkpoint(args: &CheckpointArgs, out: &mut Output) -> Result<Exit, Failure> {
    let stream = open::to_read(&args.stream.dir)?;
    if args.delete {
        stream.delete_consumer(&args.consumer)?;
        return Ok(Exit::Fine);
    }
    let consumer = existing(&stream, &args.consumer)?;
    if let Some(start) = args.reset {
        let start = start.in_stream().ok_or_else(|| {
            Failure::Usage("--reset takes trim-horizon, latest or time:RFC3339, no sequence number".to_owned())
        })?;
        match args.shard {
            Some(shard_id) => consumer.reset_shard(shard_id, start)?,
            None => consumer.reset(start)?,
        }
    }
    print(out, checkpoints(&consumer, args.shard)?)
}

/// A consumer that is there: a misspelt name makes none.
fn existing(stream: &Stream, name: &str) -> Result<Consumer, Failure> {
    if stream.consumers()?.iter().any(|known| known == name) {
        return Ok(stream.consumer(name)?);
    }
    Err(anabranch::Error::ConsumerNotFound(name.to_owned()).into())
}

fn checkpoints(consumer: &Consumer, shard: Option<ShardId>) -> Result<Vec<CheckpointView>, Failure> {
    let checkpoints = match shard {
        Some(shard_id) => vec![consumer.checkpoint(shard_id)?],
        None => consumer.checkpoints()?,
    };
    Ok(checkpoints.into_iter().map(|checkpoint| CheckpointView::new(consumer, checkpoint)).collect())
}

fn print(out: &mut Output, views: Vec<CheckpointView>) -> Result<Exit, Failure> {
    if out.is_json() {
        out.value(&views)?;
        return Ok(Exit::Fine);
    }
    let mut table = Table::new(&[
        ("CONSUMER", Align::Left),
        ("SHARD", Align::Left),
        ("POSITION", Align::Left),
        ("BEHIND", Align::Right),
        ("EPOCH", Align::Right),
        ("WORKER", Align::Left),
    ]);
    for view in views {
        let behind = view.records_behind.map_or_else(|| "trimmed".to_owned(), show_count);
        let owner = view.owner.unwrap_or_else(|| "-".to_owned());
        table.row([view.consumer, view.shard_id, view.position, behind, view.epoch.to_string(), owner]);
    }
    out.bytes(table.to_string().as_bytes())?;
    Ok(Exit::Fine)
}
