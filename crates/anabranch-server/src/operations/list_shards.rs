//! `ListShards`: filters and pages.

use anabranch::{ShardId, ShardSummary, Stream, Timestamp};
use serde::{Deserialize, Serialize};

use super::shapes::{ShardShape, horizon, listed_shards};
use super::target::StreamTarget;
use super::{Call, Reply};
use crate::catalog::{Entry, Status};
use crate::errors::{Fault, FaultKind};
use crate::limits::{DEFAULT_LIST_SHARDS, MAX_LIST_SHARDS, TOKEN_LIFETIME_MS};
use crate::token::{self, Purpose};
use crate::validate::Validator;
use crate::wire::Fields;

const FILTERS: [&str; 6] =
    ["AFTER_SHARD_ID", "AT_TRIM_HORIZON", "FROM_TRIM_HORIZON", "AT_LATEST", "AT_TIMESTAMP", "FROM_TIMESTAMP"];

/// Which shards are listed. Times are resolved, so that all pages of a listing mean the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Filter {
    All,
    Open,
    /// That were open at this millisecond.
    At(i64),
    /// That were open at this millisecond or later.
    From(i64),
}

/// Where the next page starts, and of what.
#[derive(Debug, Serialize, Deserialize)]
struct Page {
    stream: String,
    created_ms: i64,
    filter: Filter,
    after: Option<u32>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ShardsAnswer {
    shards: Vec<ShardShape>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

pub(super) fn list_shards(call: &Call<'_>, mut fields: Fields<'_>) -> Result<Reply, Fault> {
    let target = StreamTarget::read(&mut fields)?;
    let next_token = fields.text("NextToken")?;
    let after = fields.text("ExclusiveStartShardId")?;
    let most = fields.integer("MaxResults")?;
    let created = fields.time("StreamCreationTimestamp")?;
    let mut filter = fields.structure("ShardFilter")?;
    let kind = filter.as_mut().map(|filter| filter.text("Type")).transpose()?;
    let filter_shard = filter.as_mut().map(|filter| filter.text("ShardId")).transpose()?.flatten();
    let filter_time = filter.as_mut().map(|filter| filter.time("Timestamp")).transpose()?.flatten();

    let mut check = Validator::default();
    check.range("maxResults", most, 1, i64::try_from(MAX_LIST_SHARDS).unwrap_or(i64::MAX));
    check.length("nextToken", next_token.as_deref(), 1, 1_048_576);
    check.name("exclusiveStartShardId", after.as_deref());
    if let Some(kind) = &kind {
        check.required("shardFilter.type", kind.as_ref());
        check.one_of("shardFilter.type", kind.as_deref(), &FILTERS);
        check.name("shardFilter.shardId", filter_shard.as_deref());
    }
    target.check(&mut check);
    check.finish()?;

    let has_more = after.is_some() || created.is_some() || kind.is_some();
    let (entry, page) = match next_token {
        Some(_) if target.is_given() || has_more => {
            return Err(Fault::invalid("NextToken and StreamName cannot be provided together."));
        }
        Some(text) => continue_page(call, &text)?,
        None if !target.is_given() => {
            return Err(Fault::invalid("Either NextToken or StreamName should be provided."));
        }
        None => {
            let entry = target.find(call)?;
            check_created(&entry, created)?;
            let asked = Asked { kind: kind.flatten(), shard: filter_shard, time: filter_time };
            let page = asked.page(call, &entry, after.as_deref())?;
            (entry, page)
        }
    };
    entry.check_status(call.now, Status::serves)?;
    let most = most.and_then(|most| usize::try_from(most).ok()).unwrap_or(DEFAULT_LIST_SHARDS);
    answer(call, &entry, page, most.min(DEFAULT_LIST_SHARDS))
}

/// A listing of an earlier stream of the name finds nothing.
fn check_created(entry: &Entry, created: Option<Timestamp>) -> Result<(), Fault> {
    let own = entry.settings()?.created_ms;
    match created {
        Some(created) if created.as_millis().div_euclid(1_000) != own.div_euclid(1_000) => Err(entry.not_found()),
        _ => Ok(()),
    }
}

/// The filter as it was asked for.
struct Asked<'a> {
    kind: Option<std::borrow::Cow<'a, str>>,
    shard: Option<std::borrow::Cow<'a, str>>,
    time: Option<Timestamp>,
}

impl Asked<'_> {
    fn page(&self, call: &Call<'_>, entry: &Entry, after: Option<&str>) -> Result<Page, Fault> {
        let stream = entry.stream()?;
        let created = entry.settings()?.created();
        // Before its horizon a stream looks as it did there, and before its first shards as it did with them: they were opened a little after it was asked for.
        let shards = stream.shards();
        let first = shards.iter().filter(|shard| shard.parents.is_empty()).map(|shard| shard.opened).max();
        let earliest = horizon(&stream, call.now).max(first.unwrap_or(created));
        let time = || {
            let missing = || Fault::invalid("Timestamp must be specified for a ShardFilter that is by time.");
            self.time.map(|time| time.max(earliest).as_millis()).ok_or_else(missing)
        };
        let mut after = after.map(|after| entry.shard(after)).transpose()?.map(ShardId::get);
        let filter = match self.kind.as_deref().unwrap_or("FROM_TRIM_HORIZON") {
            "AT_LATEST" => Filter::Open,
            "AT_TRIM_HORIZON" => Filter::At(earliest.as_millis()),
            "AT_TIMESTAMP" => Filter::At(time()?),
            "FROM_TIMESTAMP" => Filter::From(time()?),
            "AFTER_SHARD_ID" => {
                let missing =
                    || Fault::invalid("ShardId must be specified for a ShardFilter of type AFTER_SHARD_ID.");
                let shard = entry.shard(self.shard.as_deref().ok_or_else(missing)?)?.get();
                after = Some(after.map_or(shard, |after| after.max(shard)));
                Filter::All
            }
            _ => Filter::All,
        };
        Ok(Page { stream: entry.name.clone(), created_ms: created.as_millis(), filter, after })
    }
}

fn continue_page(call: &Call<'_>, text: &str) -> Result<(std::sync::Arc<Entry>, Page), Fault> {
    let invalid = || Fault::invalid("Invalid NextToken.");
    let opened = token::open(Purpose::Shards, text).ok_or_else(invalid)?;
    if opened.is_expired(call.now, TOKEN_LIFETIME_MS) {
        return Err(Fault::new(FaultKind::ExpiredNextToken, "NextToken expired."));
    }
    let page: Page = serde_json::from_slice(&opened.payload).map_err(|_| invalid())?;
    let entry = call.stream(&page.stream)?;
    if entry.settings()?.created_ms != page.created_ms {
        return Err(Fault::stream_not_found(&page.stream, &call.account));
    }
    Ok((entry, page))
}

fn answer(call: &Call<'_>, entry: &Entry, mut page: Page, most: usize) -> Result<Reply, Fault> {
    let stream = entry.stream()?;
    let mut shards = filtered(&stream, call.now, page.filter);
    shards.retain(|shard| page.after.is_none_or(|after| shard.shard_id.get() > after));
    let has_more = shards.len() > most;
    shards.truncate(most);
    page.after = shards.last().map(|shard| shard.shard_id.get());
    let next_token = if has_more {
        let payload = serde_json::to_vec(&page).map_err(Fault::internal)?;
        Some(token::seal(Purpose::Shards, call.now, &payload))
    } else {
        None
    };
    let shards = shards.iter().map(|shard| ShardShape::new(entry, shard)).collect::<Result<_, _>>()?;
    call.answer(&ShardsAnswer { shards, next_token })
}

/// A shard lives from when it was opened until its children were: half-open, so that at each moment the living ones tile the space.
fn filtered(stream: &Stream, now: Timestamp, filter: Filter) -> Vec<ShardSummary> {
    let shards = listed_shards(stream, now);
    let all = stream.shards();
    let closed = |shard: &ShardSummary| {
        let closed = shard.closed?;
        let children = all.iter().filter(|child| child.parents.contains(&shard.shard_id));
        Some(children.map(|child| child.opened).min().unwrap_or(closed).as_millis())
    };
    let is_in = |shard: &ShardSummary| match filter {
        Filter::All => true,
        Filter::Open => shard.closed.is_none(),
        Filter::At(at) => shard.opened.as_millis() <= at && closed(shard).is_none_or(|closed| at < closed),
        Filter::From(from) => closed(shard).is_none_or(|closed| from < closed),
    };
    shards.iter().filter(|shard| is_in(shard)).cloned().collect()
}
