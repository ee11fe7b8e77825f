//! `retention` and `trim`: how long records stay, and letting go of them now.

use anabranch::{RetentionPeriod, SequenceNumber, ShardId, Stream};
use clap::Args;
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::open::{self, StreamArg};
use crate::output::{Output, Table};
use crate::units::{ByteBudget, parse_byte_budget, parse_retention, show_bytes, show_retention};
use crate::view::print_trim;

/// Arguments of `retention`; without an option it shows what holds.
#[derive(Debug, Clone, Args)]
pub(crate) struct RetentionArgs {
    #[command(flatten)]
    stream: StreamArg,

    /// Keep records longer: a duration such as 48h or 7d, or `unlimited`
    #[arg(long, value_name = "DURATION", value_parser = parse_retention, conflicts_with = "decrease")]
    increase: Option<RetentionPeriod>,

    /// Keep records for a shorter time; those past it are removed
    #[arg(long, value_name = "DURATION", value_parser = parse_retention)]
    decrease: Option<RetentionPeriod>,

    /// How much the whole stream may hold before the oldest segments go: a size, or `none`
    #[arg(long, value_name = "SIZE", value_parser = parse_byte_budget)]
    bytes: Option<ByteBudget>,
}

/// Arguments of `trim`; without an option it applies the stream's retention.
#[derive(Debug, Clone, Args)]
pub(crate) struct TrimArgs {
    #[command(flatten)]
    stream: StreamArg,

    /// The shard to trim
    #[arg(long, requires = "before")]
    shard: Option<ShardId>,

    /// The sequence number that becomes the shard's earliest
    #[arg(long, value_name = "N", requires = "shard")]
    before: Option<SequenceNumber>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RetentionView {
    retention_millis: Option<u64>,
    retention_bytes: Option<u64>,
}

/// Changes the retention where asked to, and shows it.
pub(crate) fn run(args: &RetentionArgs, out: &mut Output) -> Result<Exit, Failure> {
    let is_change = args.increase.is_some() || args.decrease.is_some() || args.bytes.is_some();
    let stream = if is_change { open::to_write(&args.stream.dir, out)? } else { open::to_read(&args.stream.dir)? };
    change(args, &stream)?;
    let description = stream.describe()?;
    stream.close()?;
    show(out, description.retention, description.retention_bytes)?;
    Ok(Exit::Fine)
}

fn change(args: &RetentionArgs, stream: &Stream) -> Result<(), Failure> {
    if let Some(period) = args.increase {
        stream.increase_retention(period)?;
    }
    if let Some(period) = args.decrease {
        stream.decrease_retention(period)?;
    }
    if let Some(budget) = args.bytes {
        stream.set_retention_bytes(budget.0)?;
    }
    Ok(())
}

fn show(out: &mut Output, period: RetentionPeriod, bytes: Option<u64>) -> Result<(), Failure> {
    if out.is_json() {
        return out.value(&RetentionView { retention_millis: period.as_millis(), retention_bytes: bytes });
    }
    let mut table = Table::of_facts();
    table.fact("retention", show_retention(period));
    table.fact("byte budget", bytes.map_or_else(|| "none".to_owned(), show_bytes));
    out.bytes(table.to_string().as_bytes())
}

/// Removes records now and shows how many.
pub(crate) fn trim(args: &TrimArgs, out: &mut Output) -> Result<Exit, Failure> {
    let stream = open::to_write(&args.stream.dir, out)?;
    let report = match (args.shard, args.before) {
        (Some(shard), Some(before)) => stream.trim_shard(shard, before)?,
        _ => stream.enforce_retention()?,
    };
    stream.close()?;
    print_trim(out, &report)?;
    Ok(Exit::Fine)
}
