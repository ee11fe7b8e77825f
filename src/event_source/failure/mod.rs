//! Batches that were given up: where they are, and who is told.

mod json;

use std::fmt;

use json::{Object, Writer};

use super::batch::BatchFailure;
use super::windows::{Window, lane_of};
use crate::error::{Error, Result};
use crate::limits::{
    MAX_EVENT_BATCH_RECORDS, MAX_EVENT_LANES, MAX_FAILED_BATCH_BYTES, MAX_FAILURE_REASON_CHARS, MAX_SHARD_ID,
    MAX_TUMBLING_WINDOW_MS,
};
use crate::segment::Record;
use crate::stream::{PutOptions, Stream};
use crate::types::{Durability, SequenceNumber, ShardId, ShardIteratorType, StreamId, Timestamp, is_name};

/// The form of the record that [`FailedBatch::to_json`] writes.
const VERSION: i128 = 1;

/// A batch that an [`EventSource`](crate::EventSource) gave up: where its records are, not what they hold, and why.
///
/// The records stay in the stream for as long as its retention keeps them; [`records`](Self::records) reads them again.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailedBatch {
    /// The stream.
    pub stream_id: StreamId,
    /// The consumer for which it was handled.
    pub consumer: String,
    /// The shard.
    pub shard_id: ShardId,
    /// The lane of the shard, from 0: between the first and the last of the batch stand records of other lanes, which are not of it.
    pub lane: u32,
    /// How many lanes the shard had.
    pub lanes: u32,
    /// The first record.
    pub first_sequence_number: SequenceNumber,
    /// The last record.
    pub last_sequence_number: SequenceNumber,
    /// When the first record arrived.
    pub first_arrival: Timestamp,
    /// When the last record arrived.
    pub last_arrival: Timestamp,
    /// How many records it has. Of a window: how many of them this shard had; 0 where all were its parents'.
    pub batch_size: u64,
    /// Why it was given up.
    pub condition: FailureCondition,
    /// How often it was tried.
    pub attempts: u32,
    /// What the handler said last, cut after [`MAX_FAILURE_REASON_CHARS`] characters.
    pub reason: String,
    /// If it was no batch that failed, but the last call of this tumbling window. Its states are gone; the window's records are those of the
    /// stream that arrived in it.
    pub window: Option<Window>,
}

/// Why a batch was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureCondition {
    /// It failed once more than [`EventSourceOptions::retries`](crate::EventSourceOptions::retries) says.
    RetriesExhausted,
    /// It failed, and its records are older than [`EventSourceOptions::max_record_age`](crate::EventSourceOptions::max_record_age) says.
    RecordAgeExceeded,
}

/// Who is told of batches that are given up; see [`EventSource::on_failure`](crate::EventSource::on_failure).
///
/// A stream is one: it gets [`FailedBatch::to_json`], synced, under the failed shard's id as the partition key. So is a closure.
pub trait FailureDestination: Send + Sync {
    /// Takes note of a batch, durably: when this returns, the source goes on behind it. It may be told twice of the same, after a crash. A failure ends the run with
    /// [`Error::DestinationFailed`], and the source stays where it is.
    fn send(&self, failed: &FailedBatch) -> Result<(), BatchFailure>;
}

impl FailureDestination for Stream {
    fn send(&self, failed: &FailedBatch) -> Result<(), BatchFailure> {
        // The source goes on behind the batch, whatever the level of the stream itself.
        let durable = PutOptions::new().durability(Durability::Synced);
        self.put_with(failed.shard_id.to_string(), failed.to_json(), durable)?;
        Ok(())
    }
}

impl<F: Fn(&FailedBatch) -> Result<(), BatchFailure> + Send + Sync> FailureDestination for F {
    fn send(&self, failed: &FailedBatch) -> Result<(), BatchFailure> {
        self(failed)
    }
}

impl FailedBatch {
    /// Reads the records of the batch again, [`batch_size`](Self::batch_size) at most. `stream` is the one that they are in.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for another stream; [`Error::Trimmed`] and [`Error::ShardNotFound`] where retention removed them; and those of reading.
    pub fn records(&self, stream: &Stream) -> Result<Vec<Record>> {
        let description = stream.describe()?;
        if description.stream_id != self.stream_id {
            return Err(Error::invalid(
                "stream",
                format!("it is not {}, in which the batch failed", self.stream_id),
            ));
        }
        if self.batch_size == 0 {
            return Ok(Vec::new());
        }
        let kind = ShardIteratorType::AtSequenceNumber(self.first_sequence_number);
        let mut iterator = stream.shard_iterator(self.shard_id, kind)?.uncounted();
        let mut records = Vec::new();
        for record in iterator.available() {
            let record = record?;
            if self.is_before(&record) {
                break;
            }
            if lane_of(record.partition_key(), description.partition_hash, self.lanes) == self.lane {
                records.push(record);
            }
            if records.len() as u64 == self.batch_size {
                break;
            }
        }
        Ok(records)
    }

    /// Whether the record, and so each that follows in its shard, comes behind the batch.
    fn is_before(&self, record: &Record) -> bool {
        record.sequence_number() > self.last_sequence_number
            || self.window.is_some_and(|window| window.end < Timestamp::MAX && record.arrival() >= window.end)
    }

    /// As a JSON object of one line. Sequence numbers are texts, since JSON's numbers do not hold all of them; times are milliseconds since 1970.
    ///
    /// ```text
    /// {"version":1,"streamId":"00000000000000000000000000000007","consumer":"billing","shardId":4,"lane":0,"lanes":1,
    ///  "startSequenceNumber":"100","endSequenceNumber":"104","firstArrivalMs":1767225600000,"lastArrivalMs":1767225600123,
    ///  "batchSize":5,"condition":"RetriesExhausted","attempts":11,"reason":"no route to host"}
    /// ```
    ///
    /// A failed last call of a window has `windowStartMs` and `windowEndMs` as well.
    pub fn to_json(&self) -> String {
        let mut json = Writer::new();
        json.number("version", VERSION);
        json.text("streamId", &self.stream_id.to_string());
        json.text("consumer", &self.consumer);
        json.number("shardId", self.shard_id.get());
        json.number("lane", self.lane);
        json.number("lanes", self.lanes);
        json.text("startSequenceNumber", &self.first_sequence_number.to_string());
        json.text("endSequenceNumber", &self.last_sequence_number.to_string());
        json.number("firstArrivalMs", self.first_arrival.as_millis());
        json.number("lastArrivalMs", self.last_arrival.as_millis());
        json.number("batchSize", self.batch_size);
        json.text("condition", &self.condition.to_string());
        json.number("attempts", self.attempts);
        json.text("reason", &self.reason);
        if let Some(window) = self.window {
            json.number("windowStartMs", window.start.as_millis());
            json.number("windowEndMs", window.end.as_millis());
        }
        json.finish()
    }

    /// What [`to_json`](Self::to_json) wrote: the data of a record that a stream got as a destination. Fields that are not known are passed over.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let refused = || Error::invalid("failed batch", "it is no JSON object of a failed batch, version 1");
        Self::parse(bytes).ok_or_else(refused)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > MAX_FAILED_BATCH_BYTES {
            return None;
        }
        let json = Object::parse(std::str::from_utf8(bytes).ok()?)?;
        json.number::<i128>("version").filter(|version| *version == VERSION)?;
        let time = |name: &str| json.number(name).map(Timestamp::from_millis);
        let number = |name: &str| json.text(name)?.parse().ok().map(SequenceNumber::new);
        let reason = json.text("reason")?.to_owned();
        let window = match (json.has("windowStartMs"), json.has("windowEndMs")) {
            (false, false) => None,
            _ => Some(Window { start: time("windowStartMs")?, end: time("windowEndMs")? }),
        };
        let failed = Self {
            stream_id: stream_id(json.text("streamId")?)?,
            consumer: json.text("consumer").filter(|name| is_name(name))?.to_owned(),
            shard_id: json.number("shardId").filter(|id| *id <= MAX_SHARD_ID).map(ShardId::new)?,
            lane: json.number("lane")?,
            lanes: json.number("lanes").filter(|lanes| (1..=MAX_EVENT_LANES).contains(lanes))?,
            first_sequence_number: number("startSequenceNumber")?,
            last_sequence_number: number("endSequenceNumber")?,
            first_arrival: time("firstArrivalMs")?,
            last_arrival: time("lastArrivalMs")?,
            batch_size: json.number("batchSize")?,
            condition: FailureCondition::parse(json.text("condition")?)?,
            attempts: json.number("attempts")?,
            reason,
            window,
        };
        failed.is_sound().then_some(failed)
    }

    fn is_sound(&self) -> bool {
        let is_ordered =
            self.first_sequence_number <= self.last_sequence_number && self.first_arrival <= self.last_arrival;
        let fits =
            self.batch_size.saturating_sub(1) <= self.last_sequence_number.since(self.first_sequence_number);
        let is_short = self.reason.chars().count() <= MAX_FAILURE_REASON_CHARS;
        self.lane < self.lanes && is_ordered && fits && self.is_bounded() && is_short
    }

    /// Whether it has no more records than a batch or a window can have.
    fn is_bounded(&self) -> bool {
        match self.window {
            Some(Window { start, end }) => start < end && end.millis_since(start) <= MAX_TUMBLING_WINDOW_MS,
            None => self.batch_size <= MAX_EVENT_BATCH_RECORDS as u64,
        }
    }
}

impl FailureCondition {
    fn parse(text: &str) -> Option<Self> {
        [Self::RetriesExhausted, Self::RecordAgeExceeded].into_iter().find(|known| known.to_string() == text)
    }
}

impl fmt::Display for FailureCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RetriesExhausted => "RetriesExhausted",
            Self::RecordAgeExceeded => "RecordAgeExceeded",
        })
    }
}

/// As [`StreamId`] prints it: 32 digits.
fn stream_id(text: &str) -> Option<StreamId> {
    let is_hex = text.len() == 32 && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    is_hex.then(|| u128::from_str_radix(text, 16).ok().map(StreamId::new))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(reason: &str, window: Option<Window>) -> FailedBatch {
        FailedBatch {
            stream_id: StreamId::new(0xabc),
            consumer: "billing".to_owned(),
            shard_id: ShardId::new(4),
            lane: 2,
            lanes: 3,
            first_sequence_number: SequenceNumber::new(u64::MAX - 9),
            last_sequence_number: SequenceNumber::new(u64::MAX),
            first_arrival: Timestamp::from_millis(i64::MIN),
            last_arrival: Timestamp::from_millis(i64::MAX),
            batch_size: 5,
            condition: FailureCondition::RecordAgeExceeded,
            attempts: u32::MAX,
            reason: reason.to_owned(),
            window,
        }
    }

    fn all() -> Vec<FailedBatch> {
        let longest: String = ('\0'..).take(MAX_FAILURE_REASON_CHARS).collect();
        let widest = "\u{1}".repeat(MAX_FAILURE_REASON_CHARS);
        let window = Some(Window::of(Timestamp::from_millis(-1), 60_000));
        let mut all: Vec<_> = ["", "a \"quoted\" \\ word\n\t\u{7f}\u{1f600}", &longest, &widest]
            .iter()
            .map(|reason| failed(reason, window))
            .collect();
        all.push(FailedBatch { condition: FailureCondition::RetriesExhausted, ..failed("x", None) });
        all.push(FailedBatch { batch_size: 0, ..failed("x", window) });
        all
    }

    #[test]
    fn what_is_written_is_read() {
        for failed in all() {
            let json = failed.to_json();
            assert!(json.len() < MAX_FAILED_BATCH_BYTES, "{} bytes", json.len());
            assert_eq!(FailedBatch::from_bytes(json.as_bytes()).unwrap(), failed);
            let spread =
                json.replace("\":", "\" : ").replacen('{', " { ", 1).replace(",\"lane\"", " ,\r\n\t\"lane\"");
            let longer = spread.replacen("\"version\"", "\"later\" : -5, \"version\"", 1);
            assert_eq!(FailedBatch::from_bytes(longer.as_bytes()).unwrap(), failed, "{longer}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let whole = failed("why", None).to_json();
        for length in 0..whole.len() {
            assert!(FailedBatch::from_bytes(&whole.as_bytes()[..length]).is_err(), "{length} bytes");
        }
        for (there, instead) in [
            ("\"version\":1", "\"version\":2"),
            ("\"version\":1", "\"version\":\"1\""),
            ("\"lane\":2", "\"lane\":3"),
            ("\"lane\":2", "\"lane\":-1"),
            ("\"lane\":2", "\"lane\":2.0"),
            ("\"lane\":2", "\"lane\":02"),
            ("\"lane\":2", "\"lane\":[2]"),
            ("\"lane\":2", "\"lane\":2,\"lane\":2"),
            ("\"lanes\":3", "\"lanes\":11"),
            ("\"shardId\":4", "\"shardId\":16777216"),
            ("\"batchSize\":5", "\"batchSize\":11"),
            ("\"attempts\":4294967295", "\"attempts\":4294967296"),
            ("RecordAgeExceeded", "Bored"),
            ("abc\"", "ABC\""),
            ("abc\"", "0abc\""),
            ("billing", "bill ing"),
            ("\"reason\":\"why\"", "\"reason\":\"\\x\""),
            ("\"reason\":\"why\"", "\"reason\":\"\\ud800\""),
            ("\"reason\":\"why\"", "\"reason\":null"),
            ("\"reason\":\"why\"", "\"reason\":\"why\",\"windowStartMs\":0"),
            ("\"reason\":\"why\"", "\"reason\":\"why\",\"windowStartMs\":0,\"windowEndMs\":0"),
            ("}", "},"),
            ("}", ",}"),
            ("{", "{,"),
        ] {
            let changed = whole.replacen(there, instead, 1);
            assert_ne!(changed, whole, "{there}");
            assert!(FailedBatch::from_bytes(changed.as_bytes()).is_err(), "{changed}");
        }
        assert!(FailedBatch::from_bytes(&vec![b' '; MAX_FAILED_BATCH_BYTES + 1]).is_err());
        assert!(FailedBatch::from_bytes(b"\xff").is_err());
    }

    /// Anybody may have put the record.
    #[test]
    fn more_than_a_batch_or_a_window_can_have_is_refused() {
        let read = |failed: FailedBatch| FailedBatch::from_bytes(failed.to_json().as_bytes());
        let batch = |batch_size, window| FailedBatch {
            first_sequence_number: SequenceNumber::ZERO,
            batch_size,
            ..failed("why", window)
        };
        let most = MAX_EVENT_BATCH_RECORDS as u64;
        assert!(read(batch(most, None)).is_ok() && read(batch(most + 1, None)).is_err());
        let window = |length_ms: u64| {
            let (start, end) = (Timestamp::from_millis(7), Timestamp::from_millis(7 + length_ms.cast_signed()));
            Some(Window { start, end })
        };
        let longest = MAX_TUMBLING_WINDOW_MS;
        assert!(read(batch(most + 1, window(longest))).is_ok() && read(batch(1, window(longest + 1))).is_err());
    }

    #[test]
    fn changed_bytes_do_not_panic() {
        let whole = failed("\u{1f600}\n", None).to_json().into_bytes();
        for at in 0..whole.len() {
            for byte in [0, b'"', b'\\', b'{', b'9', 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = byte;
                if let Ok(read) = FailedBatch::from_bytes(&bytes) {
                    assert_eq!(FailedBatch::from_bytes(read.to_json().as_bytes()).unwrap(), read);
                }
            }
        }
    }
}
