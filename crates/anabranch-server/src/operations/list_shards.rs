//! `ListShards`: filters and pages.

use anabranch::{ShardId, ShardSummary, Timestamp};
use serde::{Deserialize, Serialize};

use super::lineage::open_before;
use super::shapes::{ShardShape, horizon, shards_since};
use super::target::{StreamTarget, check_created};
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
    /// That were open when the newest shard had this number.
    Latest(u32),
    /// That were open at this millisecond: a shard lives from when it was opened until its children were.
    At(i64),
    /// These, and those that were closed at this millisecond or later.
    From(i64),
}

/// Where the next page starts, and of what.
#[derive(Debug, Serialize, Deserialize)]
struct Page {
    stream: String,
    created_ms: i64,
    /// What was closed before had expired when the listing began.
    horizon_ms: i64,
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

/// The filter as it was asked for.
struct Asked<'a> {
    kind: Option<std::borrow::Cow<'a, str>>,
    shard: Option<std::borrow::Cow<'a, str>>,
    time: Option<Timestamp>,
}

impl Asked<'_> {
    fn page(&self, call: &Call<'_>, entry: &Entry, after: Option<&str>) -> Result<Page, Fault> {
        let stream = entry.stream()?;
        let horizon = horizon(&stream, call.now);
        let time = || {
            let missing = || Fault::invalid("Timestamp must be specified for a ShardFilter that is by time.");
            self.time.map(|time| time.max(horizon).as_millis()).ok_or_else(missing)
        };
        let mut after = after.map(|after| entry.shard(after)).transpose()?.map(ShardId::get);
        let filter = match self.kind.as_deref().unwrap_or("FROM_TRIM_HORIZON") {
            "AT_LATEST" => Filter::Latest(stream.shards().last().map_or(0, |newest| newest.shard_id.get())),
            "AT_TRIM_HORIZON" => Filter::At(horizon.as_millis()),
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
        let (created_ms, horizon_ms) = (entry.settings()?.created_ms, horizon.as_millis());
        Ok(Page { stream: entry.name.clone(), created_ms, horizon_ms, filter, after })
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
    let mut shards = page.filter.of(shards_since(&stream, Timestamp::from_millis(page.horizon_ms)));
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

impl Filter {
    /// Of the listed shards, by id.
    fn of(self, mut shards: Vec<ShardSummary>) -> Vec<ShardSummary> {
        let open = match self {
            Self::All => return shards,
            Self::Latest(newest) => open_before(&shards, |shard| shard.shard_id.get() > newest),
            Self::At(time) | Self::From(time) => open_before(&shards, |shard| shard.opened.as_millis() > time),
        };
        let is_later = |shard: &ShardSummary| match self {
            Self::From(from) => shard.closed.is_none_or(|closed| closed.as_millis() >= from),
            _ => false,
        };
        shards.retain(|shard| open.contains(&shard.shard_id) || is_later(shard));
        shards
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use anabranch::{Clock, ManualClock, RetentionPeriod, SimulatedDisk, Stream};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const HOUR: i64 = 3_600_000;

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Split(usize),
        Merge(usize),
        Retention(u64),
        Pass(u64),
        SetClock(i64),
        Expire,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0..8_usize).prop_map(Step::Split),
            3 => (0..8_usize).prop_map(Step::Merge),
            1 => (1..6_u64).prop_map(|days| Step::Retention(days * 24)),
            3 => (0..30_u64).prop_map(Step::Pass),
            2 => (-40..40_i64).prop_map(Step::SetClock),
            2 => Just(Step::Expire),
        ];
        vec(step, 0..60)
    }

    fn take(stream: &Stream, clock: &ManualClock, step: Step) -> anabranch::Result<()> {
        let open = stream.open_shards();
        match step {
            Step::Split(at) => stream.split_shard(open[at % open.len()], None).map(drop),
            Step::Merge(at) if at + 1 < open.len() => stream.merge_shards(open[at], open[at + 1]).map(drop),
            Step::Merge(_) => Ok(()),
            Step::Retention(hours) if RetentionPeriod::hours(hours) > stream.retention() => {
                stream.increase_retention(RetentionPeriod::hours(hours))
            }
            Step::Retention(hours) => stream.decrease_retention(RetentionPeriod::hours(hours)),
            Step::Pass(hours) => {
                clock.advance(Duration::from_secs(hours * 3_600 + 1));
                Ok(())
            }
            Step::SetClock(hours) => {
                clock.set(Timestamp::from_millis(clock.now().as_millis() + hours * HOUR));
                Ok(())
            }
            Step::Expire => stream.enforce_retention().map(drop),
        }
    }

    fn tile(shards: &[ShardSummary]) -> bool {
        let mut ranges: Vec<_> =
            shards.iter().map(|s| (s.hash_key_range.start().get(), s.hash_key_range.end().get())).collect();
        ranges.sort_unstable();
        let ends = (ranges.first().map(|first| first.0), ranges.last().map(|last| last.1));
        ends == (Some(0), Some(u128::MAX))
            && ranges.windows(2).all(|pair| pair[0].1.checked_add(1) == Some(pair[1].0))
    }

    proptest! {
        /// Whatever was split and merged, however long it is kept, and where the clock went.
        #[test]
        fn what_was_open_tiles_the_space(steps in steps(), hours in vec(-300..100_i64, 8)) {
            let (clock, disk) = (Arc::new(ManualClock::default()), Arc::new(SimulatedDisk::new()));
            let options = Stream::builder().shards(2).background(false).clock(clock.clone()).storage(disk);
            let stream = options.create("/stream").unwrap();
            let listed = |filter: Filter| filter.of(shards_since(&stream, horizon(&stream, clock.now())));
            for step in steps {
                take(&stream, &clock, step).unwrap();
                let now = clock.now().as_millis();
                let times = hours.iter().map(|hours| now + hours * HOUR);
                let times = times.chain(stream.shards().into_iter().map(|shard| shard.opened.as_millis()));
                for time in times.chain([horizon(&stream, clock.now()).as_millis()]) {
                    let (at, from) = (listed(Filter::At(time)), listed(Filter::From(time)));
                    prop_assert!(tile(&at), "{time}: {at:?} of {:?}", stream.shards());
                    prop_assert!(at.iter().all(|shard| from.contains(shard)));
                }
            }
            let newest = stream.shards().last().unwrap().shard_id.get();
            let ids = |shards: Vec<ShardSummary>| -> Vec<_> { shards.iter().map(|s| s.shard_id).collect() };
            let latest = ids(listed(Filter::Latest(newest)));
            for at in [0, 3, 1] {
                take(&stream, &clock, Step::Split(at)).unwrap();
                take(&stream, &clock, Step::SetClock(-1)).unwrap();
                prop_assert_eq!(&ids(listed(Filter::Latest(newest))), &latest, "though shards are split meanwhile");
            }
        }
    }
}
