//! `DescribeStream`, `DescribeStreamSummary`, `ListStreams`, `DescribeLimits`.

use std::collections::BTreeSet;

use anabranch::{ShardSummary, Timestamp};
use serde::Serialize;

use super::shapes::{ShardShape, listed_shards};
use super::target::StreamTarget;
use super::{Call, Reply};
use crate::catalog::{Entry, Mode, Settings, Status};
use crate::distribution::Distribution;
use crate::errors::{Fault, FaultKind};
use crate::limits::{DEFAULT_PAGE, ON_DEMAND_STREAMS, TOKEN_LIFETIME_MS};
use crate::token::{self, Purpose};
use crate::validate::Validator;
use crate::wire::{Fields, Time};

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ModeShape {
    stream_mode: Mode,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct MetricsShape {
    shard_level_metrics: BTreeSet<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct WarmThroughputShape {
    #[serde(rename = "TargetMiBps")]
    pub(super) target: u32,
    #[serde(rename = "CurrentMiBps")]
    pub(super) current: u32,
}

/// What both descriptions of a stream begin with.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct StreamShape {
    stream_name: String,
    #[serde(rename = "StreamARN")]
    stream_arn: String,
    stream_status: Status,
    stream_mode_details: ModeShape,
    retention_period_hours: u64,
    stream_creation_timestamp: Time,
    enhanced_monitoring: [MetricsShape; 1],
    encryption_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<String>,
}

impl StreamShape {
    fn new(entry: &Entry, settings: &Settings, now: Timestamp) -> Result<Self, Fault> {
        Ok(Self {
            stream_name: entry.name.clone(),
            stream_arn: entry.arn.clone(),
            stream_status: entry.status(now),
            stream_mode_details: ModeShape { stream_mode: settings.mode },
            retention_period_hours: super::retention::hours(&entry.stream()?),
            stream_creation_timestamp: Time(settings.created()),
            enhanced_monitoring: [MetricsShape { shard_level_metrics: settings.shard_level_metrics.clone() }],
            encryption_type: if settings.key_id.is_some() { "KMS" } else { "NONE" },
            key_id: settings.key_id.clone(),
        })
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Described<T> {
    stream_description: T,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Description {
    #[serde(flatten)]
    stream: StreamShape,
    shards: Vec<ShardShape>,
    has_more_shards: bool,
}

pub(super) fn describe_stream(call: &Call<'_>, mut fields: Fields<'_>) -> Result<Reply, Fault> {
    let target = StreamTarget::read(&mut fields)?;
    let limit = fields.integer("Limit")?;
    let after = fields.text("ExclusiveStartShardId")?;

    let mut check = Validator::default();
    check.range("limit", limit, 1, 10_000);
    check.name("exclusiveStartShardId", after.as_deref());
    target.check(&mut check);
    check.finish()?;

    let entry = target.find(call)?;
    let settings = entry.settings()?;
    let after = after.map(|after| entry.shard(&after)).transpose()?;
    let most = page(limit);
    let mut shards = visible_shards(&entry, call.now)?;
    shards.retain(|shard| after.is_none_or(|after| shard.shard_id > after));
    let has_more_shards = shards.len() > most;
    let shapes = shards.iter().take(most).map(|shard| ShardShape::new(&entry, shard));
    call.answer(&Described {
        stream_description: Description {
            stream: StreamShape::new(&entry, &settings, call.now)?,
            shards: shapes.collect::<Result<_, _>>()?,
            has_more_shards,
        },
    })
}

/// A stream that is being made shows no shards.
fn visible_shards(entry: &Entry, now: Timestamp) -> Result<Vec<ShardSummary>, Fault> {
    let stream = entry.stream()?;
    Ok(if entry.status(now) == Status::Creating { Vec::new() } else { listed_shards(&stream, now) })
}

/// What is asked for, but not more than a page.
fn page(limit: Option<i64>) -> usize {
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(DEFAULT_PAGE).min(DEFAULT_PAGE)
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Summarized {
    stream_description_summary: Summary,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Summary {
    #[serde(flatten)]
    stream: StreamShape,
    open_shard_count: usize,
    consumer_count: usize,
    queue_count: usize,
    #[serde(rename = "MaxRecordSizeInKiB")]
    max_record_size: u32,
    /// Both are told of streams on demand only.
    #[serde(skip_serializing_if = "Option::is_none")]
    warm_throughput: Option<WarmThroughputShape>,
    #[serde(skip_serializing_if = "Option::is_none")]
    record_distribution_strategy: Option<Distribution>,
}

pub(super) fn describe_stream_summary(call: &Call<'_>, mut fields: Fields<'_>) -> Result<Reply, Fault> {
    let target = StreamTarget::read(&mut fields)?;
    let mut check = Validator::default();
    target.check(&mut check);
    check.finish()?;

    let entry = target.find(call)?;
    let settings = entry.settings()?;
    let is_on_demand = settings.mode == Mode::OnDemand;
    let warm = settings.warm_throughput_mibps.filter(|_| is_on_demand);
    call.answer(&Summarized {
        stream_description_summary: Summary {
            stream: StreamShape::new(&entry, &settings, call.now)?,
            open_shard_count: visible_shards(&entry, call.now)?
                .iter()
                .filter(|shard| shard.closed.is_none())
                .count(),
            consumer_count: settings.consumers.len(),
            queue_count: entry.queue_count(call.now),
            max_record_size: settings.max_record_kib,
            warm_throughput: warm.map(|value| WarmThroughputShape { target: value, current: value }),
            record_distribution_strategy: is_on_demand.then_some(settings.distribution),
        },
    })
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct StreamsAnswer {
    stream_names: Vec<String>,
    has_more_streams: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
    stream_summaries: Vec<StreamSummaryShape>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(clippy::struct_field_names, reason = "the names are the service's")]
struct StreamSummaryShape {
    stream_name: String,
    #[serde(rename = "StreamARN")]
    stream_arn: String,
    stream_status: Status,
    stream_mode_details: ModeShape,
    stream_creation_timestamp: Time,
}

pub(super) fn list_streams(call: &Call<'_>, mut fields: Fields<'_>) -> Result<Reply, Fault> {
    let limit = fields.integer("Limit")?;
    let after = fields.text("ExclusiveStartStreamName")?;
    let next_token = fields.text("NextToken")?;

    let mut check = Validator::default();
    check.range("limit", limit, 1, 10_000);
    check.name("exclusiveStartStreamName", after.as_deref());
    check.length("nextToken", next_token.as_deref(), 1, 1_048_576);
    check.finish()?;

    let after = match next_token {
        Some(text) => Some(after_token(call, Purpose::Streams, &text)?),
        None => after.map(std::borrow::Cow::into_owned),
    };
    let mut entries = call.territory()?.map(|territory| territory.entries()).unwrap_or_default();
    entries.retain(|entry| after.as_ref().is_none_or(|after| entry.name > *after));
    let has_more_streams = entries.len() > page(limit);
    entries.truncate(page(limit));
    let stream_names: Vec<_> = entries.iter().map(|entry| entry.name.clone()).collect();
    let last = stream_names.last().filter(|_| has_more_streams);
    let summaries = entries.iter().filter_map(|entry| Some((entry, entry.settings().ok()?)));
    let stream_summaries = summaries.map(|(entry, settings)| StreamSummaryShape {
        stream_name: entry.name.clone(),
        stream_arn: entry.arn.clone(),
        stream_status: entry.status(call.now),
        stream_mode_details: ModeShape { stream_mode: settings.mode },
        stream_creation_timestamp: Time(settings.created()),
    });
    call.answer(&StreamsAnswer {
        has_more_streams,
        next_token: last.map(|name| token::seal(Purpose::Streams, call.now, name.as_bytes())),
        stream_summaries: stream_summaries.collect(),
        stream_names,
    })
}

/// The name that a page ended with.
pub(super) fn after_token(call: &Call<'_>, purpose: Purpose, text: &str) -> Result<String, Fault> {
    let opened = token::open(purpose, text).ok_or_else(|| Fault::invalid("Invalid NextToken."))?;
    if opened.is_expired(call.now, TOKEN_LIFETIME_MS) {
        return Err(Fault::new(FaultKind::ExpiredNextToken, "NextToken expired."));
    }
    String::from_utf8(opened.payload).map_err(|_| Fault::invalid("Invalid NextToken."))
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct LimitsAnswer {
    shard_limit: u32,
    open_shard_count: u32,
    on_demand_stream_count: usize,
    on_demand_stream_count_limit: usize,
}

pub(super) fn describe_limits(call: &Call<'_>, _: Fields<'_>) -> Result<Reply, Fault> {
    let territory = call.territory()?;
    call.answer(&LimitsAnswer {
        shard_limit: call.options.shard_limit,
        open_shard_count: territory.as_ref().map_or(0, |territory| territory.open_shards()),
        on_demand_stream_count: territory.as_ref().map_or(0, |territory| territory.on_demand_streams()),
        on_demand_stream_count_limit: ON_DEMAND_STREAMS,
    })
}
