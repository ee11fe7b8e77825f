//! A subscription to a shard: events with records, pushed as they come, for five minutes or until the shard ends.
//!
//! A subscription is asked for its next event and never waits, so that thousands of them need no threads, and so that a test moves it by its clock.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use anabranch::{Error, Record, ShardId, ShardIterator, Timestamp};
use parking_lot::Mutex;
use serde::Serialize;

use crate::Profile;
use crate::catalog::Entry;
use crate::errors::{Fault, FaultKind};
use crate::event_stream::message;
use crate::limits::{HEARTBEAT_MS, MAX_EVENT_BYTES, MAX_GET_RECORDS, SUBSCRIPTION_GUARD_MS, SUBSCRIPTION_MS};
use crate::observe::Counted;
use crate::operations::{Call, ChildShardShape, Position, RecordShape, child_shapes, open_reader};
use crate::sequence::{Sequence, second};
use crate::wire::Format;

/// Who is subscribed to which shard of a stream: one at a time for a consumer.
#[derive(Debug, Default)]
pub(crate) struct Subscribers(Mutex<BTreeMap<(i64, ShardId), Ticket>>);

/// The right of a subscription to go on.
#[derive(Debug, Clone)]
pub(crate) struct Ticket {
    begun: Timestamp,
    /// Why it is over, once it is.
    over: Arc<OnceLock<Fault>>,
    /// The library's number of the record that comes next.
    reached: Arc<AtomicU64>,
}

impl Subscribers {
    /// Begins a subscription, and ends the one before it; for five seconds that one is safe. `consumer` is the second of its ARN.
    pub(crate) fn begin(&self, consumer: i64, shard_id: ShardId, now: Timestamp) -> Result<Ticket, Fault> {
        let mut tickets = self.0.lock();
        if let Some(ticket) = tickets.get(&(consumer, shard_id)) {
            let age = now.as_millis().saturating_sub(ticket.begun.as_millis());
            if (0..SUBSCRIPTION_GUARD_MS).contains(&age) {
                return Err(Fault::in_use(format!(
                    "Another active subscription exists for this consumer: its subscription to {shard_id} is {age} ms old."
                )));
            }
            ticket.end(Fault::in_use("Another subscription of this consumer to the shard took over."));
        }
        let ticket = Ticket { begun: now, over: Arc::default(), reached: Arc::default() };
        tickets.retain(|_, ticket| now.as_millis().saturating_sub(ticket.begun.as_millis()) < SUBSCRIPTION_MS);
        tickets.insert((consumer, shard_id), ticket.clone());
        Ok(ticket)
    }

    /// The subscriptions that somebody reads: consumers, shards, and which record of the library's comes next.
    pub(crate) fn reached(&self) -> Vec<(i64, ShardId, u64)> {
        let tickets = self.0.lock();
        let is_read = |ticket: &Ticket| Arc::strong_count(&ticket.reached) > 1; // the other one is the reader's
        let live = tickets.iter().filter(|(_, ticket)| is_read(ticket));
        live.map(|((consumer, shard_id), ticket)| (*consumer, *shard_id, ticket.reached.load(Ordering::Relaxed)))
            .collect()
    }

    /// Ends those of a consumer that is gone.
    pub(crate) fn end_those_of(&self, consumer: i64, why: &Fault) {
        self.end(why, |of| of == consumer);
    }

    pub(crate) fn end_all(&self, why: &Fault) {
        self.end(why, |_| true);
    }

    fn end(&self, why: &Fault, is_meant: impl Fn(i64) -> bool) {
        for ((consumer, _), ticket) in &*self.0.lock() {
            if is_meant(*consumer) {
                ticket.end(why.clone());
            }
        }
    }
}

impl Ticket {
    /// The first reason is the one that is told.
    fn end(&self, why: Fault) {
        let _ = self.over.set(why);
    }
}

/// What a look at a subscription found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Bytes to be sent.
    Event(Vec<u8>),
    /// Nothing yet.
    Later,
    /// There will be no more.
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Beginning,
    Running,
    Over,
}

/// One subscription.
#[derive(Debug)]
pub(crate) struct Subscription {
    entry: Arc<Entry>,
    shard_id: ShardId,
    reader: ShardIterator,
    ticket: Ticket,
    format: Format,
    profile: Profile,
    state: State,
    /// When the last event was sent; heartbeats count from it.
    told: Timestamp,
    /// The latest write second of a number that was sent.
    written: u64,
    _counted: Counted,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct EventShape<'a> {
    records: Vec<RecordShape<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    continuation_sequence_number: Option<Sequence>,
    millis_behind_latest: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    child_shards: Option<Vec<ChildShardShape>>,
}

impl Subscription {
    /// With a reader of its consumer's own.
    pub(crate) fn new(
        entry: Arc<Entry>,
        shard_id: ShardId,
        reader: ShardIterator,
        ticket: Ticket,
        call: &Call<'_>,
    ) -> Self {
        let (format, told) = (call.format, call.now);
        ticket.reached.store(reader.next_sequence_number().get(), Ordering::Relaxed);
        Self {
            _counted: entry.traffic.subscriptions.one_more(),
            entry,
            shard_id,
            reader,
            ticket,
            format,
            profile: call.options.profile,
            state: State::Beginning,
            told,
            written: 0,
        }
    }

    /// Whether [`next`](Self::next) has nothing to give: told without the disk, so that those at the tail cost no thread.
    pub(crate) fn is_silent(&self, now: Timestamp) -> bool {
        self.state == State::Running
            && !self.is_due(now)
            && !self.is_expired(now)
            && self.why_over().is_none()
            && self.reader.records_behind() == 0
            && self.reader.end_of_shard().is_none()
    }

    /// Why there will be no more events, if somebody ended it.
    fn why_over(&self) -> Option<Fault> {
        if self.entry.is_gone() { Some(self.entry.not_found()) } else { self.ticket.over.get().cloned() }
    }

    /// Whether it is time for an event, records or not.
    fn is_due(&self, now: Timestamp) -> bool {
        now.as_millis().saturating_sub(self.told.as_millis()) >= HEARTBEAT_MS
    }

    fn is_expired(&self, now: Timestamp) -> bool {
        now.as_millis().saturating_sub(self.ticket.begun.as_millis()) >= SUBSCRIPTION_MS
    }

    /// The next event, if there is one now.
    pub(crate) fn next(&mut self, now: Timestamp) -> Next {
        match self.state {
            State::Over => Next::Over,
            State::Beginning => {
                self.state = State::Running;
                self.told = Timestamp::from_millis(i64::MIN); // the first event comes at once, records or not
                let headers = self.headers("event", (":event-type", "initial-response"));
                Next::Event(message(&headers, self.empty_document()))
            }
            State::Running => match self.why_over() {
                Some(fault) => self.fail(&fault),
                None => self.event(now).unwrap_or_else(|fault| self.fail(&fault)),
            },
        }
    }

    fn event(&mut self, now: Timestamp) -> Result<Next, Fault> {
        if self.is_expired(now) {
            self.state = State::Over;
            return Ok(Next::Over);
        }
        let records = self.records()?;
        self.entry.traffic.went_out(&records);
        self.ticket.reached.store(self.reader.next_sequence_number().get(), Ordering::Relaxed);
        let end = self.reader.end_of_shard();
        if records.is_empty() && end.is_none() && !self.is_due(now) {
            return Ok(Next::Later);
        }
        if end.is_some() {
            self.state = State::Over;
        }
        self.told = now;
        let event = EventShape {
            records: RecordShape::all(&self.entry, &records)?,
            continuation_sequence_number: if end.is_some() {
                None
            } else {
                Some(self.continuation(&records, now)?)
            },
            millis_behind_latest: self.reader.millis_behind_latest().map_err(|error| self.entry.fault(error))?,
            child_shards: end.as_deref().and_then(child_shapes),
        };
        let payload = self.profile.answered("SubscribeToShard", self.format, self.format.write(&event)?);
        Ok(Next::Event(message(&self.headers("event", (":event-type", "SubscribeToShardEvent")), &payload)))
    }

    /// What an event holds; the consumer's quota may say that there is nothing to have yet.
    fn records(&mut self) -> Result<Vec<Record>, Fault> {
        let (mut records, mut bytes) = (Vec::new(), 0);
        while records.len() < MAX_GET_RECORDS && bytes < MAX_EVENT_BYTES {
            match self.reader.next_records(1) {
                Ok(next) if next.is_empty() => break,
                Ok(next) => {
                    bytes += next
                        .iter()
                        .map(|record| record.data().len() + record.partition_key().len())
                        .sum::<usize>();
                    records.extend(next);
                }
                Err(Error::ThroughputExceeded { .. }) => break,
                Err(Error::Lost { .. }) => {} // said once; it goes on behind them
                Err(Error::Trimmed { earliest, .. }) => {
                    let stream = self.entry.stream()?;
                    self.reader = open_reader(&self.entry, &stream, self.shard_id, Position::At(earliest.get()))?;
                }
                Err(_) if !records.is_empty() => break, // met again where it stands
                Err(error) => return Err(self.entry.fault(error)),
            }
        }
        Ok(records)
    }

    /// The number of the last record before the place where reading goes on: subscribing after it misses nothing. Without records it is
    /// that number as of now, so that it never goes back: who keeps the greatest one keeps the last one.
    fn continuation(&mut self, records: &[Record], now: Timestamp) -> Result<Sequence, Fault> {
        let numbers = self.entry.numbers(self.shard_id)?;
        let written =
            records.last().map_or_else(|| second(now).max(self.written), |record| second(record.arrival()));
        self.written = self.written.max(written);
        let last = self.reader.next_sequence_number().get().checked_sub(1);
        Ok(last.map_or_else(|| numbers.starting(), |last| numbers.record(last, written)))
    }

    fn fail(&mut self, fault: &Fault) -> Next {
        self.state = State::Over;
        let name = match fault.kind {
            FaultKind::InternalFailure => "InternalFailureException",
            kind => kind.name(),
        };
        let document = BTreeMap::from([("message", fault.message.clone().unwrap_or_default())]);
        let payload = self.format.write(&document).unwrap_or_default();
        Next::Event(message(&self.headers("exception", (":exception-type", name)), &payload))
    }

    fn headers<'h>(&self, kind: &'h str, typed: (&'h str, &'h str)) -> [(&'h str, &'h str); 3] {
        [(":message-type", kind), typed, (":content-type", self.format.content_type())]
    }

    fn empty_document(&self) -> &'static [u8] {
        match self.format {
            Format::Json => b"{}",
            Format::Cbor => b"\xa0",
        }
    }
}
