//! Consumers with a throughput of their own: `RegisterStreamConsumer`, `DeregisterStreamConsumer`, `DescribeStreamConsumer`, `ListStreamConsumers`.

use std::collections::BTreeMap;

use anabranch::Timestamp;
use serde::{Deserialize, Serialize};

use super::describe::after_token;
use super::tags::{add_tags, check_tags};
use super::target::{ConsumerTarget, StreamTarget, check_created, consumer_arn};
use super::{Call, Reply};
use crate::catalog::{AccountFile, ConsumerSettings, Entry, Mode, Settings, Status};
use crate::errors::Fault;
use crate::limits::{DEFAULT_PAGE, MAX_ADVANTAGE_CONSUMERS, MAX_CONSUMERS, MAX_CREATING_CONSUMERS};
use crate::token::{self, Purpose};
use crate::validate::Validator;
use crate::wire::{Fields, Time};

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ConsumerShape {
    consumer_name: String,
    #[serde(rename = "ConsumerARN")]
    consumer_arn: String,
    consumer_status: Status,
    consumer_creation_timestamp: Time,
    #[serde(rename = "StreamARN", skip_serializing_if = "Option::is_none")]
    stream_arn: Option<String>,
}

impl ConsumerShape {
    fn new(entry: &Entry, consumer: &ConsumerSettings, status: Status) -> Self {
        Self {
            consumer_name: consumer.name.clone(),
            consumer_arn: consumer_arn(entry, consumer),
            consumer_status: status,
            consumer_creation_timestamp: Time(Timestamp::from_millis(consumer.created_ms)),
            stream_arn: None,
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Registered {
    consumer: ConsumerShape,
}

pub(super) fn register(call: &Call<'_>, mut fields: Fields<'_>) -> Result<Reply, Fault> {
    let target = StreamTarget::read(&mut fields)?;
    let name = fields.text("ConsumerName")?;
    let tags = fields.text_map("Tags")?.unwrap_or_default();
    let mut check = Validator::default();
    target.check_arn(&mut check);
    check.required("consumerName", name.as_ref());
    check.name("consumerName", name.as_deref());
    check_tags(&mut check, call.bounds(), &tags);
    check.finish()?;

    let entry = target.find(call)?;
    entry.check_status(call.now, Status::serves)?;
    let name = name.as_deref().unwrap_or_default();
    let mut own_tags = BTreeMap::new();
    add_tags(&mut own_tags, tags, &format!("consumer {name} of stream {}", entry.name))?;
    let account = &call.own_territory()?.account_file;
    let consumer = entry.change(|settings| {
        if settings.consumers.iter().any(|consumer| consumer.name == name) {
            return Err(Fault::in_use(format!(
                "Consumer {name} of stream {} under account {} already exists.",
                entry.name, entry.account
            )));
        }
        check_new_consumer(&entry, settings, account, call.now)?;
        let consumer = ConsumerSettings {
            name: name.to_owned(),
            arn_second: i64::try_from(account.next_consumer_second(call.now)?).unwrap_or(i64::MAX),
            created_ms: call.now.as_millis(),
            tags: own_tags,
            policy: None,
        };
        settings.consumers.push(consumer.clone());
        Ok(consumer)
    })?;
    // It can be active at once; clients expect to be told that it is being made.
    call.answer(&Registered { consumer: ConsumerShape::new(&entry, &consumer, Status::Creating) })
}

/// Whether the stream can have another consumer now.
fn check_new_consumer(
    entry: &Entry,
    settings: &Settings,
    account: &AccountFile,
    now: Timestamp,
) -> Result<(), Fault> {
    let Entry { name, account: owner, .. } = entry;
    let is_creating = |consumer: &&ConsumerSettings| entry.consumer_status(consumer, now) == Status::Creating;
    if settings.consumers.iter().filter(is_creating).count() >= MAX_CREATING_CONSUMERS {
        return Err(Fault::limit(format!(
            "Stream {name} under account {owner} has {MAX_CREATING_CONSUMERS} consumers in state CREATING."
        )));
    }
    check_room(entry, settings, account, now)
}

/// Whether the stream can have another consumer or queue: they share a limit.
pub(super) fn check_room(
    entry: &Entry,
    settings: &Settings,
    account: &AccountFile,
    now: Timestamp,
) -> Result<(), Fault> {
    let Entry { name, account: owner, .. } = entry;
    let is_advantage = settings.mode == Mode::OnDemand && account.read()?.commitment.is_on(now);
    let most = if is_advantage { MAX_ADVANTAGE_CONSUMERS } else { MAX_CONSUMERS };
    if settings.consumers.len() + settings.queues.len() >= most {
        return Err(Fault::limit(format!(
            "Stream {name} under account {owner} has {most} consumers and queues already."
        )));
    }
    Ok(())
}

pub(super) fn deregister(call: &Call<'_>, mut fields: Fields<'_>) -> Result<Reply, Fault> {
    let target = ConsumerTarget::read(&mut fields)?;
    let mut check = Validator::default();
    target.check(&mut check);
    check.finish()?;

    let (entry, consumer) = target.find(call)?;
    entry.change(|settings| {
        settings.consumers.retain(|other| other.arn_second != consumer.arn_second);
        Ok(())
    })?;
    entry.subscribers.end_those_of(consumer.arn_second, &entry.no_consumer(&consumer.name));
    Ok(Reply::Empty)
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Described {
    consumer_description: ConsumerShape,
}

pub(super) fn describe(call: &Call<'_>, mut fields: Fields<'_>) -> Result<Reply, Fault> {
    let target = ConsumerTarget::read(&mut fields)?;
    let mut check = Validator::default();
    target.check(&mut check);
    check.finish()?;

    let (entry, consumer) = target.find(call)?;
    let shape = ConsumerShape::new(&entry, &consumer, entry.consumer_status(&consumer, call.now));
    call.answer(&Described {
        consumer_description: ConsumerShape { stream_arn: Some(entry.arn.clone()), ..shape },
    })
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    consumers: Vec<ConsumerShape>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

/// Where the next page starts, and of what.
#[derive(Debug, Serialize, Deserialize)]
struct Page {
    stream: String,
    created_ms: i64,
    after: String,
}

pub(super) fn list(call: &Call<'_>, mut fields: Fields<'_>) -> Result<Reply, Fault> {
    let target = StreamTarget::read(&mut fields)?;
    let most = fields.integer("MaxResults")?;
    let next_token = fields.text("NextToken")?;
    let created = fields.time("StreamCreationTimestamp")?;
    let mut check = Validator::default();
    check.range("maxResults", most, 1, i64::try_from(DEFAULT_PAGE).unwrap_or(i64::MAX));
    check.length("nextToken", next_token.as_deref(), 1, 1_048_576);
    target.check_arn(&mut check);
    check.finish()?;

    if next_token.is_some() && created.is_some() {
        return Err(Fault::invalid("NextToken and StreamCreationTimestamp cannot be provided together."));
    }
    let entry = target.find(call)?;
    check_created(&entry, created)?;
    let after = next_token.map(|text| continue_page(call, &entry, &text)).transpose()?;
    let settings = entry.settings()?;
    let mut consumers = settings.consumers.clone();
    consumers.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    consumers.retain(|consumer| after.as_ref().is_none_or(|after| consumer.name > *after));
    let most = most.and_then(|most| usize::try_from(most).ok()).unwrap_or(DEFAULT_PAGE);
    let has_more = consumers.len() > most;
    consumers.truncate(most);
    let last = consumers.last().filter(|_| has_more);
    let next_token = last.map(|last| {
        let (stream, after) = (entry.name.clone(), last.name.clone());
        let page = serde_json::to_string(&Page { stream, created_ms: settings.created_ms, after });
        page.map(|page| token::seal(Purpose::Consumers, call.now, page.as_bytes())).map_err(Fault::internal)
    });
    let shape = |consumer: &ConsumerSettings| {
        ConsumerShape::new(&entry, consumer, entry.consumer_status(consumer, call.now))
    };
    call.answer(&Listed { next_token: next_token.transpose()?, consumers: consumers.iter().map(shape).collect() })
}

/// The name that a page of this stream's consumers ended with.
fn continue_page(call: &Call<'_>, entry: &Entry, text: &str) -> Result<String, Fault> {
    let page = serde_json::from_str::<Page>(&after_token(call, Purpose::Consumers, text)?).ok();
    let created_ms = entry.settings()?.created_ms;
    let page = page.filter(|page| page.stream == entry.name && page.created_ms == created_ms);
    page.map(|page| page.after).ok_or_else(|| Fault::invalid("Invalid NextToken."))
}
