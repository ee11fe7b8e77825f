//! `shards`, `split`, `merge` and `scale`: the lineage, and changes to it.

use anabranch::{HashKey, ShardId, Stream};
use clap::Args;

use crate::exit::{Exit, Failure};
use crate::open::{self, StreamArg};
use crate::output::Output;
use crate::view::print_shards;

/// Arguments of `split`.
#[derive(Debug, Clone, Args)]
pub(crate) struct SplitArgs {
    #[command(flatten)]
    stream: StreamArg,
    /// The open shard to split, such as 3 or shardId-000000000003
    shard: ShardId,
    /// The first hash key of the upper half, as a decimal number [default: the middle]
    #[arg(long, value_name = "HASH KEY")]
    at: Option<HashKey>,
}

/// Arguments of `merge`.
#[derive(Debug, Clone, Args)]
pub(crate) struct MergeArgs {
    #[command(flatten)]
    stream: StreamArg,
    /// The open shard with the lower hash keys
    lower: ShardId,
    /// The open shard whose range begins where the lower one's ends
    upper: ShardId,
}

/// Arguments of `scale`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ScaleArgs {
    #[command(flatten)]
    stream: StreamArg,
    /// How many open shards there shall be
    target: u32,
}

/// Lists all shards that still are.
pub(crate) fn list(args: &StreamArg, out: &mut Output) -> Result<Exit, Failure> {
    let description = open::to_read(&args.dir)?.describe()?;
    print_shards(out, &description.shards.iter().collect::<Vec<_>>())?;
    Ok(Exit::Fine)
}

/// Splits a shard and shows its children.
pub(crate) fn split(args: &SplitArgs, out: &mut Output) -> Result<Exit, Failure> {
    reshard(&args.stream, out, |stream| {
        let (lower, upper) = stream.split_shard(args.shard, args.at)?;
        Ok(vec![lower, upper])
    })
}

/// Merges two shards and shows their child.
pub(crate) fn merge(args: &MergeArgs, out: &mut Output) -> Result<Exit, Failure> {
    reshard(&args.stream, out, |stream| Ok(vec![stream.merge_shards(args.lower, args.upper)?]))
}

/// Splits and merges up or down to a count and shows the open shards.
pub(crate) fn scale(args: &ScaleArgs, out: &mut Output) -> Result<Exit, Failure> {
    reshard(&args.stream, out, |stream| stream.update_shard_count(args.target))
}

fn reshard(
    args: &StreamArg,
    out: &mut Output,
    change: impl FnOnce(&Stream) -> anabranch::Result<Vec<ShardId>>,
) -> Result<Exit, Failure> {
    let stream = open::to_write(&args.dir, out)?;
    let changed = change(&stream)?;
    let description = stream.describe()?;
    stream.close()?;
    let mut shards: Vec<_> = description.shards.iter().collect();
    shards.retain(|shard| changed.contains(&shard.summary.shard_id));
    print_shards(out, &shards)?;
    Ok(Exit::Fine)
}
