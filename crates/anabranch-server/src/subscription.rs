//! A subscription to a shard: events with records, pushed as they come, for five minutes or until the shard ends.
//!
//! A subscription is asked for its next event and never waits, so that thousands of them need no threads, and so that a test moves it by its clock.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use anabranch::{Error, Record, SequenceNumber, ShardId, ShardIterator, Timestamp};
use parking_lot::Mutex;
use serde::Serialize;

use crate::Profile;
use crate::catalog::Entry;
use crate::errors::{Fault, FaultKind};
use crate::event_stream::message;
use crate::limits::{HEARTBEAT_MS, MAX_EVENT_BYTES, MAX_GET_RECORDS, SUBSCRIPTION_GUARD_MS, SUBSCRIPTION_MS};
use crate::observe::Counted;
use crate::operations::{
    Call, ChildShardShape, Position, RecordShape, child_shapes, millis_behind_latest, next_that_fits, open_reader,
};
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
    /// What its consumer's throughput goes by.
    payer: String,
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
        (entry, payer): (Arc<Entry>, String),
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
            payer,
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

    /// Whether [`next`](Self::next) may have records: told without the disk, so that those at the tail cost no thread.
    pub(crate) fn has_records(&self) -> bool {
        self.reader.records_behind() > 0
    }

    /// Whether it has something to say without any: told like that.
    pub(crate) fn has_word(&self, now: Timestamp) -> bool {
        self.state != State::Running
            || self.is_due(now)
            || self.is_expired(now)
            || self.why_over().is_some()
            || self.reader.end_of_shard().is_some()
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

    /// The next event, if there is one now; without records where there is no room for them.
    pub(crate) fn next(&mut self, now: Timestamp, with_records: bool) -> Next {
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
                None => self.event(now, with_records).unwrap_or_else(|fault| self.fail(&fault)),
            },
        }
    }

    fn event(&mut self, now: Timestamp, with_records: bool) -> Result<Next, Fault> {
        if self.is_expired(now) {
            self.state = State::Over;
            return Ok(Next::Over);
        }
        let records = if with_records { self.records()? } else { Vec::new() };
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
            millis_behind_latest: millis_behind_latest(&mut self.reader),
            child_shards: end.as_deref().and_then(child_shapes),
        };
        let payload = self.profile.answered("SubscribeToShard", self.format, self.format.write(&event)?);
        Ok(Next::Event(message(&self.headers("event", (":event-type", "SubscribeToShardEvent")), &payload)))
    }

    /// What an event holds; the consumer's quota may say that there is nothing to have yet.
    fn records(&mut self) -> Result<Vec<Record>, Fault> {
        let (mut records, mut bytes) = (Vec::new(), 0);
        while records.len() < MAX_GET_RECORDS {
            match next_that_fits(&mut self.reader, bytes, MAX_EVENT_BYTES) {
                Ok(None) | Err(Error::ThroughputExceeded { .. }) => break,
                Ok(Some(record)) => {
                    bytes += record.data().len() + record.partition_key().len();
                    records.push(record);
                }
                Err(Error::Lost { .. }) => {} // said once; it goes on behind them
                Err(Error::Trimmed { earliest, .. }) => self.go_on_at(earliest)?,
                Err(_) if !records.is_empty() => break, // met again where it stands
                Err(error) => return Err(self.entry.fault(error)),
            }
        }
        Ok(records)
    }

    fn go_on_at(&mut self, number: SequenceNumber) -> Result<(), Fault> {
        let stream = self.entry.stream()?;
        let reader = open_reader(&self.entry, &stream, self.shard_id, Position::At(number.get()))?;
        self.reader = reader.dedicated(&self.payer).map_err(|error| self.entry.fault(error))?;
        Ok(())
    }

    /// The number of the last record before the place where reading goes on: subscribing after it misses nothing. Without records it is
    /// that number as of now, so that it never goes back: who keeps the greatest one keeps the last one.
    fn continuation(&mut self, records: &[Record], now: Timestamp) -> Result<Sequence, Fault> {
        let numbers = self.entry.numbers(self.shard_id)?;
        let written =
            records.last().map_or_else(|| second(now).max(self.written), |record| second(record.arrival()));
        self.written = self.written.max(written);
        let last = self.reader.next_sequence_number().get().checked_sub(1);
        Ok(last.map_or_else(|| numbers.starting_at(written), |last| numbers.record(last, written)))
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

#[cfg(test)]
pub(crate) mod tests {
    use anabranch::{ManualClock, PartitionHash, SimulatedDisk, Stream};
    use bytes::Bytes;
    use http::Request;

    use super::*;
    use crate::{Body, Service, ServiceOptions};

    const AUTHORIZATION: &str =
        "AWS4-HMAC-SHA256 Credential=me/20260101/us-east-1/kinesis/aws4_request, SignedHeaders=host, Signature=00";

    /// A service with the service's quotas, and a stream `s` of small segments, from which records can be removed under readers.
    pub(crate) struct Trimming {
        service: Service,
    }

    impl Trimming {
        pub(crate) const RECORDS: usize = 40;

        pub(crate) fn new() -> Self {
            let (clock, disk) = (Arc::new(ManualClock::default()), SimulatedDisk::new());
            let open = || {
                let options = ServiceOptions { enforce_limits: true, ..ServiceOptions::default() };
                Service::open_on("/data", options, clock.clone(), Arc::new(disk.clone())).unwrap()
            };
            open().create_stream("other", 1).unwrap();
            let builder = Stream::builder().clock(clock.clone()).storage(Arc::new(disk.clone()));
            let builder =
                builder.partition_hash(PartitionHash::Md5).segment_bytes(4_096).first_segment_bytes(4_096);
            let stream = builder.create("/data/000000000000/us-east-1/streams/s").unwrap();
            for index in 0..Self::RECORDS {
                stream.put("key", format!("{index:01000}").as_bytes()).unwrap();
            }
            stream.close().unwrap();
            Self { service: open() }
        }

        pub(crate) fn stream(&self) -> (Arc<Entry>, Stream) {
            let territory = self.service.territory();
            let entry = territory.stream("s").unwrap();
            let stream = entry.stream().unwrap();
            (entry, stream)
        }

        /// Removes all but the last records.
        pub(crate) fn trim(&self) {
            let before = SequenceNumber::new(Self::RECORDS as u64 - 2);
            self.stream().1.trim_shard(ShardId::new(0), before).unwrap();
        }

        fn send(&self, operation: &str, body: String) -> http::Response<Body> {
            let request = Request::post("/")
                .header("content-type", "application/x-amz-json-1.1")
                .header("x-amz-target", format!("Kinesis_20131202.{operation}"))
                .header("x-amz-date", "20260101T000000Z")
                .header("authorization", AUTHORIZATION);
            self.service.respond(request.body(Bytes::from(body)).unwrap())
        }

        fn ok(&self, operation: &str, body: String) -> serde_json::Value {
            let answer = self.send(operation, body);
            assert_eq!(answer.status(), 200, "{operation}");
            serde_json::from_slice(answer.body().bytes()).unwrap()
        }

        fn subscribe(&self) -> Body {
            let (entry, _) = self.stream();
            let register = format!(r#"{{"StreamARN": "{}", "ConsumerName": "c"}}"#, entry.arn);
            let consumer = self.ok("RegisterStreamConsumer", register)["Consumer"]["ConsumerARN"].clone();
            let position = r#"{"Type": "TRIM_HORIZON"}"#;
            let subscribe =
                format!(r#"{{"ConsumerARN": {consumer}, "ShardId": "0", "StartingPosition": {position}}}"#);
            let mut body = self.send("SubscribeToShard", subscribe).into_body();
            let first = body.next_event().unwrap();
            assert!(is_in(&first, b"initial-response"));
            body
        }
    }

    fn is_in(text: &[u8], part: &[u8]) -> bool {
        text.windows(part.len()).any(|window| window == part)
    }

    #[test]
    fn a_subscription_that_passes_over_what_was_removed_keeps_the_quota_of_its_own() {
        let world = Trimming::new();
        let mut subscription = world.subscribe();
        world.trim();
        let ask = r#"{"StreamName": "s", "ShardId": "0", "ShardIteratorType": "LATEST"}"#;
        let iterator = world.ok("GetShardIterator", ask.to_owned())["ShardIterator"].clone();
        let get = || world.send("GetRecords", format!(r#"{{"ShardIterator": {iterator}}}"#)).status();
        while get() == 200 {} // until nothing is left of the quota that others share
        let last = base64_simd::STANDARD.encode_to_string(format!("{:01000}", Trimming::RECORDS - 1));
        let event = subscription.next_event().unwrap();
        assert!(is_in(&event, last.as_bytes()), "{}", String::from_utf8_lossy(&event));
    }
}
