//! `SplitShard`, `MergeShards`, `UpdateShardCount`. They have happened when they answer.

use std::borrow::Cow;
use std::fmt::Display;

use anabranch::limits::MAX_SHARDS;
use anabranch::{Error, HashKey, ShardId, Stream};
use serde::Serialize;

use super::target::StreamTarget;
use super::{Call, Reply};
use crate::catalog::{Entry, Mode};
use crate::errors::{Fault, FaultKind};
use crate::limits::MAX_STREAM_SHARDS;
use crate::validate::{HASH_KEY, Validator};
use crate::wire::Fields;

pub(super) fn split_shard(call: &Call<'_>, mut fields: Fields<'_>) -> Result<Reply, Fault> {
    let target = StreamTarget::read(&mut fields)?;
    let shard = fields.text("ShardToSplit")?;
    let key = fields.text("NewStartingHashKey")?;

    let mut check = Validator::default();
    check.required("newStartingHashKey", key.as_ref());
    check.pattern("newStartingHashKey", key.as_deref(), HASH_KEY);
    check_shard(&mut check, "shardToSplit", shard.as_ref());
    target.check(&mut check);
    check.finish()?;

    let entry = target.find_active(call)?;
    check_mode(&entry)?;
    let shard_id = entry.shard(shard.as_deref().unwrap_or_default())?;
    let territory = call.own_territory()?;
    let split = |stream: &Stream| {
        let at = check_key(&entry, stream, shard_id, key.as_deref().unwrap_or_default())?;
        territory.check_shards(1)?;
        stream.split_shard(shard_id, Some(at)).map_err(|error| refusal(&entry, error))
    };
    entry.update(|| territory.while_counting(|| entry.reshard(split)))?;
    Ok(Reply::Empty)
}

/// Strictly between one above the start and the end, as the service has it.
fn check_key(entry: &Entry, stream: &Stream, shard_id: ShardId, text: &str) -> Result<HashKey, Fault> {
    let shards = stream.shards();
    let shard = shards.iter().find(|shard| shard.shard_id == shard_id).ok_or_else(|| entry.no_shard(shard_id))?;
    if shard.closed.is_some() {
        return Err(refusal(entry, Error::ShardClosed(shard_id)));
    }
    let (start, end) = (shard.hash_key_range.start(), shard.hash_key_range.end());
    let key = text.parse::<HashKey>().ok();
    key.filter(|key| start.get().saturating_add(1) < key.get() && *key < end).ok_or_else(|| {
        Fault::invalid(format!(
            "NewStartingHashKey {text} used in SplitShard() on shard {shard_id} in stream {} under account {} is not both greater \
             than one plus the shard's StartingHashKey {start} and less than the shard's EndingHashKey {end}.",
            entry.name, entry.account
        ))
    })
}

pub(super) fn merge_shards(call: &Call<'_>, mut fields: Fields<'_>) -> Result<Reply, Fault> {
    let target = StreamTarget::read(&mut fields)?;
    let lower = fields.text("ShardToMerge")?;
    let upper = fields.text("AdjacentShardToMerge")?;

    let mut check = Validator::default();
    check_shard(&mut check, "shardToMerge", lower.as_ref());
    check_shard(&mut check, "adjacentShardToMerge", upper.as_ref());
    target.check(&mut check);
    check.finish()?;

    let entry = target.find_active(call)?;
    check_mode(&entry)?;
    let lower = entry.shard(lower.as_deref().unwrap_or_default())?;
    let upper = entry.shard(upper.as_deref().unwrap_or_default())?;
    let merge = |stream: &Stream| stream.merge_shards(lower, upper).map_err(|error| refusal(&entry, error));
    entry.update(|| entry.reshard(merge))?;
    Ok(Reply::Empty)
}

fn check_shard(check: &mut Validator, path: &str, shard: Option<&Cow<'_, str>>) {
    check.required(path, shard);
    check.name(path, shard.map(AsRef::as_ref));
}

fn check_mode(entry: &Entry) -> Result<(), Fault> {
    if entry.settings()?.mode == Mode::Provisioned {
        return Ok(());
    }
    let message =
        format!("Request is invalid. Stream {} under account {} is in On-Demand mode.", entry.name, entry.account);
    Err(Fault::new(FaultKind::Validation, message))
}

fn refusal(entry: &Entry, error: Error) -> Fault {
    let Entry { name, account, .. } = entry;
    match error {
        Error::ShardClosed(shard_id) => Fault::invalid(format!(
            "Shard {shard_id} in stream {name} under account {account} has already been merged or split, and thus is not eligible \
             for merging or splitting."
        )),
        Error::NotAdjacent { lower, upper } => Fault::invalid(format!(
            "Shards {lower} and {upper} in stream {name} under account {account} are not an adjacent pair of shards eligible for merging"
        )),
        Error::InvalidArgument { reason, .. } => no_room(entry, reason),
        other => entry.fault(other),
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct CountAnswer {
    stream_name: String,
    #[serde(rename = "StreamARN")]
    stream_arn: String,
    current_shard_count: usize,
    target_shard_count: usize,
}

pub(super) fn update_shard_count(call: &Call<'_>, mut fields: Fields<'_>) -> Result<Reply, Fault> {
    let target = StreamTarget::read(&mut fields)?;
    let count = fields.integer("TargetShardCount")?;
    let scaling = fields.text("ScalingType")?;

    let mut check = Validator::default();
    check.required("targetShardCount", count.as_ref());
    check.range("targetShardCount", count, 1, i64::from(i32::MAX));
    check.required("scalingType", scaling.as_ref());
    check.one_of("scalingType", scaling.as_deref(), &["UNIFORM_SCALING"]);
    target.check(&mut check);
    check.finish()?;

    let entry = target.find_active(call)?;
    check_mode(&entry)?;
    let wanted = count.and_then(|count| usize::try_from(count).ok()).unwrap_or(1);
    let territory = call.own_territory()?;
    let rescale = |stream: &Stream| {
        let current = stream.open_shards().len();
        check_count(current, wanted)?;
        check_scale(&entry, stream, wanted)?;
        territory.check_shards(u32::try_from(wanted.saturating_sub(current)).unwrap_or(u32::MAX))?;
        scale(stream, wanted).map_err(|error| refusal(&entry, error))?;
        Ok(current)
    };
    let rescale = || entry.update(|| territory.while_counting(|| entry.reshard(rescale)));
    let current = entry.of_the_day(call.operation, rescale)?;
    call.answer(&CountAnswer {
        stream_name: entry.name.clone(),
        stream_arn: entry.arn.clone(),
        current_shard_count: current,
        target_shard_count: wanted,
    })
}

fn check_count(current: usize, wanted: usize) -> Result<(), Fault> {
    let told = format!("Current open shard count: {current} Target shard count: {wanted}");
    if wanted > MAX_STREAM_SHARDS as usize {
        return Err(Fault::limit(format!(
            "UpdateShardCount cannot scale to more than {MAX_STREAM_SHARDS} shards. {told}"
        )));
    }
    if wanted > current.saturating_mul(2) {
        return Err(Fault::limit(format!(
            "UpdateShardCount cannot scale up over double your current open shard count. {told}"
        )));
    }
    if wanted < current.div_ceil(2) {
        return Err(Fault::limit(format!(
            "UpdateShardCount cannot scale down below half your current open shard count. {told}"
        )));
    }
    Ok(())
}

/// What the library would refuse on the way is refused before the first step.
fn check_scale(entry: &Entry, stream: &Stream, wanted: usize) -> Result<(), Fault> {
    let shards = stream.shards();
    let open: Vec<_> = shards.iter().filter(|shard| shard.closed.is_none()).collect();
    let is_growing = wanted > open.len();
    let halves = if is_growing { open.len() * 2 } else { 0 };
    let merged = open.len().max(halves).saturating_sub(wanted);
    let listed = shards.len() + halves + merged;
    if listed > MAX_SHARDS as usize {
        return Err(no_room(
            entry,
            format!("it would list {listed} shards, open and closed; it can list {MAX_SHARDS}"),
        ));
    }
    match open.iter().find(|shard| is_growing && shard.hash_key_range.middle().is_none()) {
        Some(shard) => Err(no_room(entry, format!("{} has one hash key, which cannot be split", shard.shard_id))),
        None => Ok(()),
    }
}

fn no_room(entry: &Entry, why: impl Display) -> Fault {
    Fault::limit(format!("Stream {} under account {} cannot have more shards: {why}.", entry.name, entry.account))
}

/// As the service does: to grow, every shard is split in the middle; then pairs of neighbours are merged, lowest first, until there are so many.
fn scale(stream: &Stream, wanted: usize) -> anabranch::Result<()> {
    if wanted > stream.open_shards().len() {
        for shard_id in stream.open_shards() {
            stream.split_shard(shard_id, None)?;
        }
    }
    loop {
        let open = stream.open_shards();
        let excess = open.len().saturating_sub(wanted);
        if excess == 0 {
            return Ok(());
        }
        for pair in open.chunks_exact(2).take(excess) {
            if let [lower, upper] = pair {
                stream.merge_shards(*lower, *upper)?;
            }
        }
    }
}
