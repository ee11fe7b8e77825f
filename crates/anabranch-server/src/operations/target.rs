//! Which stream, consumer or queue a call is about: by name, by ARN, or by both.

use std::borrow::Cow;
use std::sync::Arc;

use anabranch::Timestamp;

use super::Call;
use crate::arn::{Arn, QueueArn};
use crate::catalog::{ConsumerSettings, Entry, Part, QueueSettings};
use crate::errors::{Fault, printed};
use crate::validate::{CONSUMER_ARN, Pattern, QUEUE_ARN, RESOURCE_ARN, STREAM_ARN, Validator};
use crate::wire::Fields;

/// `StreamName` and `StreamARN`.
#[derive(Debug)]
pub(super) struct StreamTarget<'a> {
    name: Option<Cow<'a, str>>,
    arn: Option<Cow<'a, str>>,
}

impl<'a> StreamTarget<'a> {
    pub(super) fn read(fields: &mut Fields<'a>) -> Result<Self, Fault> {
        Ok(Self { name: fields.text("StreamName")?, arn: fields.text("StreamARN")? })
    }

    pub(super) fn check(&self, check: &mut Validator) {
        check.name("streamName", self.name.as_deref());
        check_arn(check, "streamARN", self.arn.as_deref(), STREAM_ARN);
    }

    /// Operations that take the ARN alone.
    pub(super) fn check_arn(&self, check: &mut Validator) {
        check.required("streamARN", self.arn.as_ref());
        self.check(check);
    }

    pub(super) fn is_given(&self) -> bool {
        self.name.is_some() || self.arn.is_some()
    }

    pub(super) fn find(&self, call: &Call<'_>) -> Result<Arc<Entry>, Fault> {
        let Some(arn) = self.arn.as_deref() else {
            let name = self.name.as_deref();
            return call.stream(
                name.ok_or_else(|| Fault::invalid("Either StreamName or StreamARN should be provided."))?,
            );
        };
        let entry = stream_of(call, arn)?;
        match self.name.as_deref() {
            Some(name) if name != entry.name => {
                Err(Fault::invalid(format!("StreamName {name} and StreamARN {arn} are of different streams.")))
            }
            _ => Ok(entry),
        }
    }

    /// A stream that takes and gives records.
    pub(super) fn find_serving(&self, call: &Call<'_>) -> Result<Arc<Entry>, Fault> {
        let entry = self.find(call)?;
        entry.check_serves(call.now)?;
        Ok(entry)
    }

    /// A stream that can be changed.
    pub(super) fn find_active(&self, call: &Call<'_>) -> Result<Arc<Entry>, Fault> {
        let entry = self.find(call)?;
        entry.check_active(call.now)?;
        Ok(entry)
    }
}

fn check_arn(check: &mut Validator, path: &str, arn: Option<&str>, pattern: Pattern) {
    check.pattern(path, arn, pattern);
    check.length(path, arn, 1, 2_048);
}

/// A listing of an earlier stream of the name finds nothing.
pub(super) fn check_created(entry: &Entry, created: Option<Timestamp>) -> Result<(), Fault> {
    let own = entry.settings()?.created_ms;
    match created {
        Some(created) if created.as_millis().div_euclid(1_000) != own.div_euclid(1_000) => Err(entry.not_found()),
        _ => Ok(()),
    }
}

/// The stream of this ARN. That of a consumer is none: what was meant for the one is not done to the other.
pub(super) fn stream_of(call: &Call<'_>, text: &str) -> Result<Arc<Entry>, Fault> {
    match Arn::parse(text) {
        Some(Arn { consumer: Some(_), .. }) => Err(no_stream_arn(text)),
        _ => owner_of(call, text),
    }
}

fn no_stream_arn(text: &str) -> Fault {
    Fault::invalid(format!("{} is no ARN of a stream.", printed(text)))
}

/// The stream that an ARN is of, or whose consumer it is of. One of another account or region names nothing here, whatever its last part is.
fn owner_of(call: &Call<'_>, text: &str) -> Result<Arc<Entry>, Fault> {
    let arn = Arn::parse(text).ok_or_else(|| no_stream_arn(text))?;
    if arn.account != call.account || arn.region != call.region {
        return Err(Fault::stream_not_found(arn.stream, arn.account));
    }
    call.stream(arn.stream)
}

/// `ConsumerARN`, or `StreamARN` and `ConsumerName`, or all three if they fit.
#[derive(Debug)]
pub(super) struct ConsumerTarget<'a> {
    stream: Option<Cow<'a, str>>,
    name: Option<Cow<'a, str>>,
    arn: Option<Cow<'a, str>>,
}

impl<'a> ConsumerTarget<'a> {
    pub(super) fn read(fields: &mut Fields<'a>) -> Result<Self, Fault> {
        Ok(Self {
            stream: fields.text("StreamARN")?,
            name: fields.text("ConsumerName")?,
            arn: fields.text("ConsumerARN")?,
        })
    }

    pub(super) fn check(&self, check: &mut Validator) {
        check_arn(check, "streamARN", self.stream.as_deref(), STREAM_ARN);
        check.name("consumerName", self.name.as_deref());
        check_arn(check, "consumerARN", self.arn.as_deref(), CONSUMER_ARN);
    }

    pub(super) fn check_arn(&self, check: &mut Validator) {
        check.required("consumerARN", self.arn.as_ref());
        self.check(check);
    }

    pub(super) fn find(&self, call: &Call<'_>) -> Result<(Arc<Entry>, ConsumerSettings), Fault> {
        let (entry, name, second) = match (self.arn.as_deref(), self.stream.as_deref(), self.name.as_deref()) {
            (Some(text), _, _) => {
                let arn = Arn::parse(text).and_then(|arn| arn.consumer);
                let (name, second) = arn.ok_or_else(|| no_consumer_arn(text))?;
                (owner_of(call, text)?, name, Some(second))
            }
            (None, Some(stream), Some(name)) => (stream_of(call, stream)?, name, None),
            _ => {
                return Err(Fault::invalid(
                    "Either ConsumerARN or both StreamARN and ConsumerName should be provided.",
                ));
            }
        };
        let fits = self.stream.as_deref().is_none_or(|arn| arn == entry.arn)
            && self.name.as_deref().is_none_or(|given| given == name);
        if !fits {
            return Err(Fault::invalid("ConsumerARN, StreamARN and ConsumerName are of different consumers."));
        }
        let consumer = find_consumer(&entry, name, second)?;
        Ok((entry, consumer))
    }
}

fn no_consumer_arn(text: &str) -> Fault {
    Fault::invalid(format!("{} is no ARN of a consumer.", printed(text)))
}

fn find_consumer(entry: &Entry, name: &str, second: Option<i64>) -> Result<ConsumerSettings, Fault> {
    let settings = entry.settings()?;
    let is_it = |consumer: &&ConsumerSettings| {
        consumer.name == name && second.is_none_or(|second| second == consumer.arn_second)
    };
    let found = settings.consumers.iter().find(is_it).cloned();
    found.ok_or_else(|| entry.no_consumer(name))
}

/// The ARN of a consumer.
pub(super) fn consumer_arn(entry: &Entry, consumer: &ConsumerSettings) -> String {
    format!("{}/consumer/{}:{}", entry.arn, consumer.name, consumer.arn_second)
}

/// `QueueARN`.
#[derive(Debug)]
pub(super) struct QueueTarget<'a>(Option<Cow<'a, str>>);

impl<'a> QueueTarget<'a> {
    pub(super) fn read(fields: &mut Fields<'a>) -> Result<Self, Fault> {
        Ok(Self(fields.text("QueueARN")?))
    }

    pub(super) fn check(&self, check: &mut Validator) {
        check.required("queueARN", self.0.as_ref());
        check_arn(check, "queueARN", self.0.as_deref(), QUEUE_ARN);
    }

    /// The queue, and its stream.
    pub(super) fn find(&self, call: &Call<'_>) -> Result<(Arc<Entry>, QueueSettings), Fault> {
        find_queue(call, self.0.as_deref().unwrap_or_default())
    }

    /// A queue that gives records.
    pub(super) fn find_serving(&self, call: &Call<'_>) -> Result<(Arc<Entry>, QueueSettings), Fault> {
        let (entry, queue) = self.find(call)?;
        if entry.queue_status(queue.id, call.now).serves() {
            Ok((entry, queue))
        } else {
            Err(entry.no_queue(queue.id))
        }
    }
}

fn find_queue(call: &Call<'_>, text: &str) -> Result<(Arc<Entry>, QueueSettings), Fault> {
    let own = QueueArn::parse(text).filter(|arn| arn.account == call.account && arn.region == call.region);
    let not_found = || Fault::queue_not_found(text, &call.account);
    // One text for each: no signs and no zeros in front.
    let id = own.and_then(|arn| arn.id.parse().ok().filter(|id: &i64| id.to_string() == arn.id));
    let id = id.ok_or_else(not_found)?;
    let entry = call.territory()?.and_then(|territory| territory.stream_of_queue(id)).ok_or_else(not_found)?;
    let queue = entry.queue(id, call.now).ok_or_else(not_found)?;
    Ok((entry, queue))
}

/// `ResourceARN`: a stream, or one of its consumers or queues.
#[derive(Debug)]
pub(super) struct ResourceTarget<'a>(Option<Cow<'a, str>>);

/// What a resource ARN leads to.
#[derive(Debug)]
pub(super) struct Resource {
    pub(super) entry: Arc<Entry>,
    pub(super) part: Part,
}

impl Resource {
    /// It was there, and is not any more.
    pub(super) fn gone(&self) -> Fault {
        match self.part {
            Part::Stream => self.entry.not_found(),
            Part::Consumer(_) => {
                Fault::not_found(format!("A consumer of stream {} was not found.", self.entry.name))
            }
            Part::Queue(id) => self.entry.no_queue(id),
        }
    }
}

impl<'a> ResourceTarget<'a> {
    pub(super) fn read(fields: &mut Fields<'a>) -> Result<Self, Fault> {
        Ok(Self(fields.text("ResourceARN")?))
    }

    pub(super) fn check(&self, check: &mut Validator) {
        check.required("resourceARN", self.0.as_ref());
        check_arn(check, "resourceARN", self.0.as_deref(), RESOURCE_ARN);
    }

    pub(super) fn find(&self, call: &Call<'_>) -> Result<Resource, Fault> {
        let text = self.0.as_deref().unwrap_or_default();
        if QueueArn::parse(text).is_some() {
            let (entry, queue) = find_queue(call, text)?;
            return Ok(Resource { entry, part: Part::Queue(queue.id) });
        }
        let entry = owner_of(call, text)?;
        let part = match Arn::parse(text).and_then(|arn| arn.consumer) {
            Some((name, second)) => Part::Consumer(find_consumer(&entry, name, Some(second))?.arn_second),
            None => Part::Stream,
        };
        Ok(Resource { entry, part })
    }
}
