//! `/status`: what the page shows, small enough to be asked for every other second.

use anabranch::{ShardId, ShardState, ShardSummary, Stream};
use serde::Serialize;

use super::counters::Traffic;
use super::health::Health;
use super::look::{StreamLook, look};
use crate::catalog::{ConsumerSettings, Entry, Mode};
use crate::limits::{MAX_SHOWN_SHARDS, MAX_SHOWN_STREAMS};
use crate::operations::{Position, open_reader};
use crate::service::Core;

/// The server and its streams.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    version: &'static str,
    /// Milliseconds since 1970, by the server's clock: rates are made of two looks.
    now_ms: i64,
    health: Health,
    connections: u64,
    requests: u64,
    /// Of all streams, those that are not shown among them.
    stream_count: usize,
    streams: Vec<StreamStatus>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StreamStatus {
    account: String,
    region: String,
    name: String,
    arn: String,
    retention_hours: Option<u64>,
    is_on_demand: bool,
    open_shards: u64,
    failure: Option<String>,
    records_in: u64,
    bytes_in: u64,
    records_out: u64,
    bytes_out: u64,
    throttled: u64,
    /// None where the stream has not been used since the server was started: looking opens nothing.
    shards: Option<Vec<ShardStatus>>,
    shard_count: usize,
    consumers: Vec<ConsumerStatus>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ShardStatus {
    id: String,
    is_open: bool,
    starting_hash_key: String,
    ending_hash_key: String,
    parents: Vec<String>,
}

/// A registered consumer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ConsumerStatus {
    name: String,
    subscriptions: usize,
    /// How far the slowest of its subscriptions is behind the tail.
    behind_ms: Option<u64>,
}

impl Status {
    pub(super) fn new(core: &Core) -> Self {
        let look = look(core);
        Self {
            version: env!("CARGO_PKG_VERSION"),
            now_ms: core.clock.now().as_millis(),
            health: Health::new(core, &look),
            connections: core.counters.connections.get(),
            requests: core.counters.operations().map(|(_, counts)| counts.total()).sum(),
            stream_count: look.streams.len(),
            streams: look.streams.iter().take(MAX_SHOWN_STREAMS).map(StreamStatus::new).collect(),
        }
    }
}

impl StreamStatus {
    fn new(look: &StreamLook) -> Self {
        let StreamLook { entry, settings, .. } = look;
        let stream = look.opened();
        let retention = stream.as_ref().and_then(|stream| stream.retention().as_millis());
        let shards = stream.as_ref().map(Stream::shards);
        let consumers = settings.as_ref().map_or(&[][..], |settings| &settings.consumers);
        Self {
            account: look.account.clone(),
            region: look.region.clone(),
            name: look.name.clone(),
            arn: look.arn(),
            retention_hours: retention.map(|millis| millis / 3_600_000),
            is_on_demand: settings.as_ref().is_some_and(|settings| settings.mode == Mode::OnDemand),
            open_shards: look.open_shards(),
            failure: look.failure.clone(),
            records_in: look.count(Traffic::records_in),
            bytes_in: look.count(Traffic::bytes_in),
            records_out: look.count(Traffic::records_out),
            bytes_out: look.count(Traffic::bytes_out),
            throttled: look.count(Traffic::throttled),
            shard_count: shards.as_ref().map_or(0, Vec::len),
            shards: shards.map(shown),
            consumers: consumers_of(entry.as_deref(), stream.as_ref(), consumers),
        }
    }
}

fn consumers_of(
    entry: Option<&Entry>,
    stream: Option<&Stream>,
    consumers: &[ConsumerSettings],
) -> Vec<ConsumerStatus> {
    let reached = entry.map(|entry| entry.subscribers.reached()).unwrap_or_default();
    let status = |consumer: &ConsumerSettings| {
        let own = reached.iter().filter(|(second, ..)| *second == consumer.arn_second);
        let behind = |(_, shard_id, next): &(i64, ShardId, u64)| {
            open_reader(entry?, stream?, *shard_id, Position::At(*next)).ok()?.millis_behind_latest().ok()
        };
        ConsumerStatus {
            name: consumer.name.clone(),
            subscriptions: own.clone().count(),
            behind_ms: own.filter_map(behind).max(),
        }
    };
    consumers.iter().map(status).collect()
}

/// The open ones, and the newest of the closed ones, as far as there is room.
fn shown(mut shards: Vec<ShardSummary>) -> Vec<ShardStatus> {
    shards.sort_by_key(|shard| (shard.state != ShardState::Open, std::cmp::Reverse(shard.shard_id)));
    shards.truncate(MAX_SHOWN_SHARDS);
    shards.sort_by_key(|shard| shard.shard_id);
    shards.iter().map(ShardStatus::new).collect()
}

impl ShardStatus {
    fn new(shard: &ShardSummary) -> Self {
        Self {
            id: shard.shard_id.to_string(),
            is_open: shard.state == ShardState::Open,
            starting_hash_key: shard.hash_key_range.start().to_string(),
            ending_hash_key: shard.hash_key_range.end().to_string(),
            parents: shard.parents.iter().map(ToString::to_string).collect(),
        }
    }
}
