//! `GetShardIterator` and `GetRecords`.

use std::borrow::Borrow;
use std::sync::Arc;

use anabranch::{Error, Record, ShardId, ShardIterator, Stream, Timestamp};
use serde::Serialize;

use super::position::{Position, Start, millis_behind_latest, next_that_fits, open_reader};
use super::shapes::{ChildShardShape, RecordShape, child_shapes};
use super::target::StreamTarget;
use super::write::dry_run;
use super::{Call, Reply};
use crate::catalog::Entry;
use crate::errors::{Fault, FaultKind};
use crate::limits::{MAX_GET_BYTES, MAX_GET_RECORDS};
use crate::token::{self, Purpose};
use crate::validate::Validator;
use crate::wire::Fields;

/// What a shard iterator says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    /// Tells streams of the same name apart.
    created_ms: i64,
    shard_id: ShardId,
    position: Position,
    stream: String,
}

impl Token {
    fn seal(&self, now: Timestamp) -> String {
        let (kind, value) = match self.position {
            Position::At(number) => (0, number.to_le_bytes()),
            Position::Time(time) => (1, time.as_millis().to_le_bytes()),
        };
        let mut payload = Vec::with_capacity(160);
        payload.extend_from_slice(&self.created_ms.to_le_bytes());
        payload.extend_from_slice(&self.shard_id.get().to_le_bytes());
        payload.push(kind);
        payload.extend_from_slice(&value);
        payload.extend_from_slice(self.stream.as_bytes());
        token::seal(Purpose::Iterator, now, &payload)
    }

    fn open(payload: &[u8]) -> Option<Self> {
        let (created, rest) = payload.split_first_chunk()?;
        let (shard, rest) = rest.split_first_chunk()?;
        let (kind, rest) = rest.split_first()?;
        let (value, stream) = rest.split_first_chunk()?;
        let position = match kind {
            0 => Position::At(u64::from_le_bytes(*value)),
            _ => Position::Time(Timestamp::from_millis(i64::from_le_bytes(*value))),
        };
        Some(Self {
            created_ms: i64::from_le_bytes(*created),
            shard_id: ShardId::new(u32::from_le_bytes(*shard)),
            position,
            stream: String::from_utf8(stream.to_vec()).ok()?,
        })
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct IteratorAnswer {
    shard_iterator: String,
}

pub(super) fn get_shard_iterator(call: &Call<'_>, mut fields: Fields<'_>) -> Result<Reply, Fault> {
    let target = StreamTarget::read(&mut fields)?;
    let shard = fields.text("ShardId")?;
    let kind = fields.text("ShardIteratorType")?;
    let sequence_number = fields.text("StartingSequenceNumber")?;
    let timestamp = fields.time("Timestamp")?;
    let is_dry = fields.flag("DryRun")?;

    let mut check = Validator::default();
    check.required("shardId", shard.as_ref());
    check.name("shardId", shard.as_deref());
    check.required("shardIteratorType", kind.as_ref());
    let start = Start {
        kind: kind.as_deref().unwrap_or("LATEST"),
        sequence_number: sequence_number.as_deref(),
        timestamp,
        operation: "GetShardIterator",
    };
    start.check(&mut check, "shardIteratorType", "startingSequenceNumber");
    target.check(&mut check);
    check.finish()?;

    let entry = target.find_serving(call)?;
    let stream = entry.stream()?;
    let shard_id = entry.shard(shard.as_deref().unwrap_or_default())?;
    let position = start.resolve(&entry, &stream, shard_id, call.now)?;
    entry.admit_iterator(shard_id)?;
    if is_dry {
        return Err(dry_run());
    }
    let created_ms = entry.settings()?.created_ms;
    let token = Token { created_ms, shard_id, position, stream: entry.name.clone() };
    call.answer(&IteratorAnswer { shard_iterator: token.seal(call.now) })
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct RecordsAnswer<'a> {
    records: Vec<RecordShape<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_shard_iterator: Option<String>,
    millis_behind_latest: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    child_shards: Option<Vec<ChildShardShape>>,
}

pub(super) fn get_records(call: &Call<'_>, mut fields: Fields<'_>) -> Result<Reply, Fault> {
    let target = StreamTarget::read(&mut fields)?;
    let iterator = fields.text("ShardIterator")?;
    let limit = fields.integer("Limit")?;
    let is_dry = fields.flag("DryRun")?;

    let mut check = Validator::default();
    check.range("limit", limit, 1, i64::try_from(MAX_GET_RECORDS).unwrap_or(i64::MAX));
    check.required("shardIterator", iterator.as_ref());
    check.length("shardIterator", iterator.as_deref(), 1, 512);
    target.check(&mut check);
    check.finish()?;

    let token = open_token(call, iterator.as_deref().unwrap_or_default())?;
    let entry = stream_of(call, &token)?;
    if target.is_given() && !Arc::ptr_eq(&target.find(call)?, &entry) {
        return Err(Fault::invalid("Invalid ShardIterator."));
    }
    if is_dry {
        return Err(dry_run());
    }
    let most = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(MAX_GET_RECORDS);
    let stream = entry.stream()?;
    let mut reader = open_reader(&entry, &stream, token.shard_id, token.position)?;
    reader.begin_call().map_err(|error| entry.fault(error))?;
    let records = take_there(&entry, &stream, &mut reader, most)?;
    entry.traffic.went_out(&records);
    let end = reader.end_of_shard();
    let next = Token { position: next_position(&reader, &token, &records), ..token };
    let answer = RecordsAnswer {
        records: RecordShape::all(&entry, &records)?,
        next_shard_iterator: end.is_none().then(|| next.seal(call.now)),
        millis_behind_latest: millis_behind_latest(&mut reader),
        child_shards: end.as_deref().and_then(child_shapes),
    };
    call.answer_sized(&answer, likely_bytes(&records))
}

/// Of an answer with these records.
pub(super) fn likely_bytes(records: impl IntoIterator<Item: Borrow<Record>>) -> usize {
    const OF_A_RECORD: usize = 256; // its names, number and time
    let of_one =
        |record: &Record| record.data().len().div_ceil(3) * 4 + record.partition_key().len() + OF_A_RECORD;
    records.into_iter().map(|record| of_one(record.borrow())).sum::<usize>() + 1_024
}

/// As [`take_records`], passing over what retention removed since the reader was opened.
fn take_there(
    entry: &Entry,
    stream: &Stream,
    reader: &mut ShardIterator,
    most: usize,
) -> Result<Vec<Record>, Fault> {
    let mut taken = take_records(reader, most);
    if let Err(Error::Trimmed { earliest, .. }) = taken {
        *reader = open_reader(entry, stream, reader.shard_id(), Position::At(earliest.get()))?;
        taken = take_records(reader, most);
    }
    taken.map_err(|error| entry.fault(error))
}

/// At most so many records of the answer's size.
fn take_records(reader: &mut ShardIterator, most: usize) -> anabranch::Result<Vec<Record>> {
    let (mut records, mut bytes) = (Vec::new(), 0);
    while records.len() < most {
        match next_that_fits(reader, bytes, MAX_GET_BYTES) {
            Ok(Some(record)) => {
                bytes += record.data().len() + record.partition_key().len();
                records.push(record);
            }
            Err(Error::Lost { .. }) => {} // said once; it goes on behind them
            Err(error) if records.is_empty() => return Err(error),
            Err(_) | Ok(None) => break, // an error is met again where it stands
        }
    }
    Ok(records)
}

/// A place by time stays one until a record was found: later ones may come with earlier clocks.
fn next_position(reader: &ShardIterator, token: &Token, records: &[Record]) -> Position {
    match token.position {
        Position::Time(time) if records.is_empty() => Position::Time(time),
        _ => Position::At(reader.next_sequence_number().get()),
    }
}

fn open_token(call: &Call<'_>, text: &str) -> Result<Token, Fault> {
    let invalid = || Fault::invalid("Invalid ShardIterator.");
    let opened = token::open(Purpose::Iterator, text).ok_or_else(invalid)?;
    let lifetime = i64::try_from(call.options.iterator_lifetime.as_millis()).unwrap_or(i64::MAX);
    if opened.is_expired(call.now, lifetime) {
        let (created, now) = (http_date(opened.issued), http_date(call.now));
        return Err(Fault::new(
            FaultKind::ExpiredIterator,
            format!(
                "Iterator expired. The iterator was created at time {created} while right now it is {now} which is further in the \
                 future than the tolerated delay of {lifetime} milliseconds."
            ),
        ));
    }
    Token::open(&opened.payload).ok_or_else(invalid)
}

/// As Java prints a date: `Thu Jan 22 01:22:02 UTC 2015`.
fn http_date(time: Timestamp) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let text = time.to_string(); // 2015-01-22T01:22:02.000Z
    let days = time.as_millis().div_euclid(86_400_000).rem_euclid(7);
    let day = usize::try_from(days).ok().and_then(|index| DAYS.get(index)).copied().unwrap_or_default();
    let parts = (|| {
        let (date, clock) = text.split_once('T')?;
        let (rest, day_of_month) = date.rsplit_once('-')?;
        let (year, month) = rest.rsplit_once('-')?;
        let month = MONTHS.get(month.parse::<usize>().ok()?.checked_sub(1)?)?;
        Some(format!("{day} {month} {day_of_month} {} UTC {year}", clock.split('.').next()?))
    })();
    parts.unwrap_or(text)
}

fn stream_of(call: &Call<'_>, token: &Token) -> Result<Arc<Entry>, Fault> {
    let found = call.territory()?.and_then(|territory| territory.stream(&token.stream));
    let found = found.filter(|entry| entry.status(call.now).serves());
    let gone = || {
        let Token { shard_id, stream, .. } = token;
        Fault::not_found(format!(
            "Shard {shard_id} in stream {stream} under account {} does not exist",
            call.account
        ))
    };
    let entry = found.ok_or_else(gone)?;
    // Another stream under the same name.
    if entry.settings()?.created_ms == token.created_ms { Ok(entry) } else { Err(gone()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subscription::tests::Trimming;

    #[test]
    fn what_was_removed_under_a_reader_is_passed_over() {
        let world = Trimming::new();
        let (entry, stream) = world.stream();
        let mut reader = open_reader(&entry, &stream, ShardId::new(0), Position::At(0)).unwrap();
        let first = take_there(&entry, &stream, &mut reader, 1).unwrap();
        world.trim();
        let rest = take_there(&entry, &stream, &mut reader, 1_000).unwrap();
        let last = take_there(&entry, &stream, &mut reader, 1_000).unwrap();
        assert!(first.len() + rest.len() + last.len() < Trimming::RECORDS);
        assert_eq!(last.last().unwrap().sequence_number().get(), Trimming::RECORDS as u64 - 1);
    }

    #[test]
    fn where_everything_was_removed_there_is_still_something_behind() {
        let world = Trimming::new();
        let (entry, stream) = world.stream();
        let mut reader = open_reader(&entry, &stream, ShardId::new(0), Position::At(0)).unwrap();
        reader.next_records(1).unwrap();
        world.trim();
        while reader.next_records(1).is_ok() {}
        assert!(matches!(reader.millis_behind_latest(), Err(Error::Trimmed { .. })));
        assert_eq!(millis_behind_latest(&mut reader), 1);
    }

    #[test]
    fn dates_are_printed_as_java_does() {
        assert_eq!(http_date(Timestamp::from_millis(1_421_889_722_000)), "Thu Jan 22 01:22:02 UTC 2015");
        assert_eq!(http_date(Timestamp::from_millis(0)), "Thu Jan 01 00:00:00 UTC 1970");
    }

    #[test]
    fn tokens_come_back() {
        for position in [Position::At(7), Position::At(u64::MAX), Position::Time(Timestamp::from_millis(-1))] {
            let token = Token { created_ms: 5, shard_id: ShardId::new(3), position, stream: "x".repeat(128) };
            let text = token.seal(Timestamp::from_millis(0));
            assert!(text.len() <= 512);
            let opened = token::open(Purpose::Iterator, &text).unwrap();
            assert_eq!(Token::open(&opened.payload), Some(token));
        }
    }
}
