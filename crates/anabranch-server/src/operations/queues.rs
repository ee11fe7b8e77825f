//! Queues as resources: `CreateQueue`, `DescribeQueue`, `UpdateQueue`, `DeleteQueue`, `ListQueues`.

use std::collections::BTreeMap;

use anabranch::{RecordsStart, Timestamp};
use serde::Serialize;

use super::consumers::check_room;
use super::describe::after_token;
use super::shapes::horizon;
use super::tags::{add_tags, check_tags};
use super::target::{QueueTarget, stream_of};
use super::{Call, Reply};
use crate::catalog::{Entry, Mode, QueueSettings, QueueStart, Settings, Status, Territory};
use crate::errors::{Fault, FaultKind};
use crate::limits::{
    DEFAULT_PAGE, DEFAULT_RECEIVE_COUNT, DEFAULT_VISIBILITY_SECONDS, MAX_RECEIVE_COUNT, MAX_VISIBILITY_SECONDS,
};
use crate::sequence::second;
use crate::token::{self, Purpose};
use crate::validate::{STREAM_ARN, Validator, listed};
use crate::wire::{Fields, List, Time};

const STARTS: [&str; 3] = ["TRIM_HORIZON", "LATEST", "AT_TIMESTAMP"];
const TARGETS: [&str; 2] = ["BUILT_IN", "NONE"];

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct DescriptionAnswer {
    queue_description: DescriptionShape,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(clippy::struct_field_names, reason = "the names are the service's")]
struct DescriptionShape {
    queue_name: String,
    #[serde(rename = "QueueARN")]
    queue_arn: String,
    queue_status: Status,
    queue_creation_timestamp: Time,
    stream_configuration_list: [StreamShape; 1],
    queue_attributes: AttributesShape,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct StreamShape {
    #[serde(rename = "StreamARN")]
    stream_arn: String,
    starting_position: PositionShape,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct PositionShape {
    r#type: QueueStart,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<Time>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct AttributesShape {
    visibility_timeout_seconds: u32,
    dead_letter_configuration: DeadLetterShape,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct DeadLetterShape {
    target_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_receive_count: Option<u32>,
}

impl DescriptionShape {
    fn new(entry: &Entry, queue: &QueueSettings, status: Status) -> Self {
        // One that is being made says what was asked for, others where it led to.
        let start_ms = if status == Status::Creating { queue.asked_start_ms } else { Some(queue.start_ms) };
        let timestamp = start_ms.map(|millis| Time(Timestamp::from_millis(millis)));
        Self {
            queue_name: queue.name.clone(),
            queue_arn: entry.queue_arn(queue.id),
            queue_status: status,
            queue_creation_timestamp: Time(Timestamp::from_millis(queue.created_ms)),
            stream_configuration_list: [StreamShape {
                stream_arn: entry.arn.clone(),
                starting_position: PositionShape { r#type: queue.start, timestamp },
            }],
            queue_attributes: AttributesShape {
                visibility_timeout_seconds: queue.visibility_seconds,
                dead_letter_configuration: DeadLetterShape {
                    target_type: if queue.max_receives.is_some() { "BUILT_IN" } else { "NONE" },
                    max_receive_count: queue.max_receives,
                },
            },
        }
    }
}

pub(super) fn create(call: &Call<'_>, mut fields: Fields<'_>) -> Result<Reply, Fault> {
    let name = fields.text("QueueName")?;
    let streams = fields.list("StreamConfigurationList")?.map(List::structures).transpose()?;
    let attributes = fields.structure("QueueAttributes")?.map(Attributes::read).transpose()?.unwrap_or_default();
    let tags = fields.text_map("Tags")?.unwrap_or_default();

    let mut check = Validator::default();
    check.required("queueName", name.as_ref());
    check.name("queueName", name.as_deref());
    check.required("streamConfigurationList", streams.as_ref());
    let mut streams = streams.unwrap_or_default();
    if !(1..=10_000).contains(&streams.len()) {
        let print = vec!["com.amazonaws.kinesis.v20131202.QueueStreamConfiguration"; streams.len()];
        check.size("streamConfigurationList", &listed(print), streams.len(), 1, 10_000);
    }
    let configuration = streams.first_mut().map(|stream| Configuration::read(stream, &mut check)).transpose()?;
    attributes.check(&mut check);
    check_tags(&mut check, call.bounds(), &tags);
    check.finish()?;
    let Some(configuration) = configuration.filter(|_| streams.len() == 1) else {
        return Err(invalid("A queue delivers records of exactly one stream."));
    };
    let (start, asked_start_ms) = configuration.start()?;
    attributes.check_dead_letters()?;

    let entry = stream_of(call, &configuration.stream)?;
    entry.check_status(call.now, Status::serves)?;
    let name = name.as_deref().unwrap_or_default();
    let mut own_tags = BTreeMap::new();
    add_tags(&mut own_tags, tags, &format!("queue {name} under account {}", call.account))?;
    let (from, start_ms) = effective_start(&entry, start, asked_start_ms, call.now)?;
    let territory = call.own_territory()?;
    let make = |settings: &Settings| {
        check_possible(&entry, settings, &territory, call.now)?;
        Ok(QueueSettings {
            name: name.to_owned(),
            id: i64::try_from(territory.account_file.next_consumer_second(call.now)?).unwrap_or(i64::MAX),
            created_ms: call.now.as_millis(),
            start,
            asked_start_ms,
            start_ms,
            visibility_seconds: attributes.visibility_seconds().unwrap_or(DEFAULT_VISIBILITY_SECONDS),
            max_receives: attributes.max_receives(Some(DEFAULT_RECEIVE_COUNT)),
            tags: own_tags,
            policy: None,
        })
    };
    let queue = territory.while_adding(|| {
        check_name(&territory, name, call.now)?;
        entry.make_queue(from, make)
    })?;
    // It can be active at once; clients expect to be told that it is being made.
    call.answer(&DescriptionAnswer { queue_description: DescriptionShape::new(&entry, &queue, Status::Creating) })
}

/// Names are those of an account in a region, whatever the stream.
fn check_name(territory: &Territory, name: &str, now: Timestamp) -> Result<(), Fault> {
    let has_it = |entry: &Entry| entry.shown_queues(now).iter().any(|queue| queue.name == name);
    if territory.entries().iter().any(|entry| has_it(entry)) {
        return Err(Fault::in_use(format!("Queue {name} already exists.")));
    }
    Ok(())
}

/// Whether the stream can have another queue.
fn check_possible(entry: &Entry, settings: &Settings, territory: &Territory, now: Timestamp) -> Result<(), Fault> {
    if settings.mode != Mode::OnDemand {
        return Err(invalid(&format!(
            "Queues are for streams in On-Demand mode; stream {} under account {} is in Provisioned mode.",
            entry.name, entry.account
        )));
    }
    check_room(entry, settings, &territory.account_file, now)
}

/// What the generic validator cannot say.
fn invalid(message: &str) -> Fault {
    Fault::new(FaultKind::Validation, message)
}

/// The stream of a queue, and where in it the queue starts.
#[derive(Debug)]
struct Configuration {
    stream: String,
    kind: Option<String>,
    timestamp: Option<Timestamp>,
}

impl Configuration {
    fn read(fields: &mut Fields<'_>, check: &mut Validator) -> Result<Self, Fault> {
        let path = |member: &str| format!("streamConfigurationList.1.member.{member}");
        let stream = fields.text("StreamARN")?;
        check.required(&path("streamARN"), stream.as_ref());
        check.pattern(&path("streamARN"), stream.as_deref(), STREAM_ARN);
        check.length(&path("streamARN"), stream.as_deref(), 1, 2_048);
        let (mut kind, mut timestamp) = (None, None);
        if let Some(mut position) = fields.structure("StartingPosition")? {
            kind = position.text("Type")?.map(std::borrow::Cow::into_owned);
            timestamp = position.time("Timestamp")?;
            check.required(&path("startingPosition.type"), kind.as_ref());
            check.one_of(&path("startingPosition.type"), kind.as_deref(), &STARTS);
        }
        Ok(Self { stream: stream.unwrap_or_default().into_owned(), kind, timestamp })
    }

    fn start(&self) -> Result<(QueueStart, Option<i64>), Fault> {
        let start = match self.kind.as_deref() {
            Some("TRIM_HORIZON") => QueueStart::TrimHorizon,
            Some("AT_TIMESTAMP") => QueueStart::AtTimestamp,
            _ => QueueStart::Latest,
        };
        match (start, self.timestamp) {
            (QueueStart::AtTimestamp, None) => {
                Err(invalid("A StartingPosition of type AT_TIMESTAMP needs a Timestamp."))
            }
            (QueueStart::Latest | QueueStart::TrimHorizon, Some(_)) => {
                Err(invalid("Only a StartingPosition of type AT_TIMESTAMP has a Timestamp."))
            }
            (start, timestamp) => Ok((start, timestamp.map(Timestamp::as_millis))),
        }
    }
}

/// Where the library is to start, and since when there are records then.
fn effective_start(
    entry: &Entry,
    start: QueueStart,
    asked_ms: Option<i64>,
    now: Timestamp,
) -> Result<(RecordsStart, i64), Fault> {
    let earliest = entry.settings()?.created_ms.max(horizon(&entry.stream()?, now).as_millis());
    match (start, asked_ms) {
        (QueueStart::AtTimestamp, Some(millis)) if millis > now.as_millis() => {
            Err(Fault::invalid("The Timestamp of a StartingPosition cannot be in the future."))
        }
        (QueueStart::AtTimestamp, Some(millis)) => {
            Ok((RecordsStart::AtTimestamp(Timestamp::from_millis(millis)), millis.max(earliest)))
        }
        (QueueStart::TrimHorizon, _) => Ok((RecordsStart::TrimHorizon, earliest)),
        (QueueStart::Latest | QueueStart::AtTimestamp, _) => Ok((RecordsStart::Latest, now.as_millis())),
    }
}

/// `QueueAttributes`.
#[derive(Debug, Default)]
struct Attributes {
    visibility: Option<i64>,
    has_dead_letters: bool,
    target: Option<String>,
    max_receives: Option<i64>,
}

impl Attributes {
    fn read(mut fields: Fields<'_>) -> Result<Self, Fault> {
        let visibility = fields.integer("VisibilityTimeoutSeconds")?;
        let mut dead_letters = fields.structure("DeadLetterConfiguration")?;
        let target = dead_letters.as_mut().map(|fields| fields.text("TargetType")).transpose()?.flatten();
        let max_receives =
            dead_letters.as_mut().map(|fields| fields.integer("MaxReceiveCount")).transpose()?.flatten();
        Ok(Self {
            visibility,
            has_dead_letters: dead_letters.is_some(),
            target: target.map(std::borrow::Cow::into_owned),
            max_receives,
        })
    }

    fn check(&self, check: &mut Validator) {
        let path = |member: &str| format!("queueAttributes.{member}");
        check.range(&path("visibilityTimeoutSeconds"), self.visibility, 0, MAX_VISIBILITY_SECONDS.into());
        if self.has_dead_letters {
            check.required(&path("deadLetterConfiguration.targetType"), self.target.as_ref());
        }
        check.one_of(&path("deadLetterConfiguration.targetType"), self.target.as_deref(), &TARGETS);
        let max_receives = path("deadLetterConfiguration.maxReceiveCount");
        check.range(&max_receives, self.max_receives, 1, MAX_RECEIVE_COUNT.into());
    }

    fn visibility_seconds(&self) -> Option<u32> {
        self.visibility.and_then(|seconds| u32::try_from(seconds).ok())
    }

    /// What the model cannot say: a count is there just where there are dead letters.
    fn check_dead_letters(&self) -> Result<(), Fault> {
        match (self.target.as_deref(), self.max_receives) {
            (Some("BUILT_IN"), None) => Err(invalid("A TargetType of BUILT_IN needs a MaxReceiveCount.")),
            (Some("NONE"), Some(_)) => Err(invalid("Only a TargetType of BUILT_IN has a MaxReceiveCount.")),
            _ => Ok(()),
        }
    }

    /// After how many receives a record is a dead letter, if they say it.
    fn max_receives(&self, otherwise: Option<u32>) -> Option<u32> {
        if !self.has_dead_letters {
            return otherwise;
        }
        self.max_receives.and_then(|count| u32::try_from(count).ok())
    }
}

pub(super) fn describe(call: &Call<'_>, fields: Fields<'_>) -> Result<Reply, Fault> {
    let (entry, queue) = target(fields)?.find(call)?;
    let status = entry.queue_status(queue.id, call.now);
    call.answer(&DescriptionAnswer { queue_description: DescriptionShape::new(&entry, &queue, status) })
}

/// `QueueARN`, of an operation that takes nothing else.
fn target(mut fields: Fields<'_>) -> Result<QueueTarget<'_>, Fault> {
    let target = QueueTarget::read(&mut fields)?;
    let mut check = Validator::default();
    target.check(&mut check);
    check.finish()?;
    Ok(target)
}

pub(super) fn update(call: &Call<'_>, mut fields: Fields<'_>) -> Result<Reply, Fault> {
    let target = QueueTarget::read(&mut fields)?;
    let attributes = fields.structure("QueueAttributes")?.map(Attributes::read).transpose()?;
    let mut check = Validator::default();
    target.check(&mut check);
    check.required("queueAttributes", attributes.as_ref());
    let attributes = attributes.unwrap_or_default();
    attributes.check(&mut check);
    check.finish()?;
    attributes.check_dead_letters()?;

    let (entry, queue) = target.find(call)?;
    let queue = entry.update_queue(queue.id, |queue| {
        queue.visibility_seconds = attributes.visibility_seconds().unwrap_or(queue.visibility_seconds);
        queue.max_receives = attributes.max_receives(queue.max_receives);
    })?;
    // It is done; clients expect to be told that it is going on.
    call.answer(&DescriptionAnswer { queue_description: DescriptionShape::new(&entry, &queue, Status::Updating) })
}

pub(super) fn delete(call: &Call<'_>, fields: Fields<'_>) -> Result<Reply, Fault> {
    let (entry, queue) = target(fields)?.find(call)?;
    // Who asks again while it goes on has nothing to wait for.
    if entry.queue_status(queue.id, call.now) != Status::Deleting {
        entry.delete_queue(queue.id)?;
    }
    Ok(Reply::Empty)
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ListAnswer {
    queue_summaries: Vec<SummaryShape>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct SummaryShape {
    queue_name: String,
    #[serde(rename = "QueueARN")]
    queue_arn: String,
    queue_status: Status,
    queue_creation_timestamp: Time,
    streams: [IdentifierShape; 1],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct IdentifierShape {
    #[serde(rename = "StreamARN")]
    stream_arn: String,
    stream_creation_timestamp: Time,
}

/// A stream whose queues are asked for.
#[derive(Debug)]
struct Filter {
    arn: String,
    /// Clients send whole seconds.
    created: Option<u64>,
}

impl Filter {
    fn read(mut fields: Fields<'_>, index: usize, check: &mut Validator) -> Result<Self, Fault> {
        let path = format!("streamFilter.{}.member.streamARN", index + 1);
        let arn = fields.text("StreamARN")?;
        check.required(&path, arn.as_ref());
        check.pattern(&path, arn.as_deref(), STREAM_ARN);
        check.length(&path, arn.as_deref(), 1, 2_048);
        let created = fields.time("StreamCreationTimestamp")?.map(second);
        Ok(Self { arn: arn.unwrap_or_default().into_owned(), created })
    }

    fn holds(&self, entry: &Entry, settings: &Settings) -> bool {
        self.arn == entry.arn && self.created.is_none_or(|created| created == second(settings.created()))
    }
}

pub(super) fn list(call: &Call<'_>, mut fields: Fields<'_>) -> Result<Reply, Fault> {
    let most = fields.integer("MaxResults")?;
    let next_token = fields.text("NextToken")?;
    let filters = fields.list("StreamFilter")?.map(List::structures).transpose()?;
    let mut check = Validator::default();
    check.range("maxResults", most, 1, 10_000);
    check.length("nextToken", next_token.as_deref(), 1, 1_048_576);
    if let Some(filters) = filters.as_ref().filter(|filters| !(1..=10_000).contains(&filters.len())) {
        let print = vec!["com.amazonaws.kinesis.v20131202.QueueStreamFilter"; filters.len()];
        check.size("streamFilter", &listed(print), filters.len(), 1, 10_000);
    }
    let filters = filters.map(|filters| {
        let read = filters.into_iter().enumerate().map(|(index, fields)| Filter::read(fields, index, &mut check));
        read.collect::<Result<Vec<_>, _>>()
    });
    let filters = filters.transpose()?;
    check.finish()?;

    let after = next_token.map(|text| after_token(call, Purpose::Queues, &text)).transpose()?;
    let most = most.and_then(|most| usize::try_from(most).ok()).unwrap_or(DEFAULT_PAGE);
    let mut summaries = summaries(call, filters.as_deref())?;
    summaries.retain(|summary| after.as_ref().is_none_or(|after| summary.queue_name > *after));
    summaries.sort_unstable_by(|a, b| a.queue_name.cmp(&b.queue_name));
    let has_more = summaries.len() > most;
    summaries.truncate(most);
    let last = summaries.last().filter(|_| has_more);
    call.answer(&ListAnswer {
        next_token: last.map(|last| token::seal(Purpose::Queues, call.now, last.queue_name.as_bytes())),
        queue_summaries: summaries,
    })
}

/// The queues of the streams that are asked for; of all, where there is no filter.
fn summaries(call: &Call<'_>, filters: Option<&[Filter]>) -> Result<Vec<SummaryShape>, Fault> {
    let mut summaries = Vec::new();
    for entry in call.territory()?.map(|territory| territory.entries()).unwrap_or_default() {
        let Ok(settings) = entry.settings() else { continue };
        if filters.is_some_and(|filters| !filters.iter().any(|filter| filter.holds(&entry, &settings))) {
            continue;
        }
        summaries.extend(entry.shown_queues(call.now).into_iter().map(|queue| SummaryShape {
            queue_arn: entry.queue_arn(queue.id),
            queue_status: entry.queue_status(queue.id, call.now),
            queue_creation_timestamp: Time(Timestamp::from_millis(queue.created_ms)),
            streams: [IdentifierShape {
                stream_arn: entry.arn.clone(),
                stream_creation_timestamp: Time(settings.created()),
            }],
            queue_name: queue.name,
        }));
    }
    Ok(summaries)
}
