//! Where reading starts: the five types of iterators, and readers at what became of them.

use anabranch::{Error, Record, SequenceNumber, ShardId, ShardIterator, ShardIteratorType, Stream, Timestamp};

use super::shapes::listed_shards;
use crate::catalog::Entry;
use crate::errors::Fault;
use crate::sequence::{Place, Sequence, second};
use crate::validate::{SEQUENCE, Validator};

/// How often a reader is looked for at a place that retention takes away meanwhile.
const TRIES: usize = 3;

pub(super) const TYPES: [&str; 5] =
    ["AFTER_SEQUENCE_NUMBER", "LATEST", "AT_TIMESTAMP", "AT_SEQUENCE_NUMBER", "TRIM_HORIZON"];

/// A place in a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Position {
    /// At this number of the library's, or the first one behind it that is left.
    At(u64),
    /// At the first record that arrived then or later.
    Time(Timestamp),
}

/// What a client says of where to start.
#[derive(Debug)]
pub(super) struct Start<'a> {
    pub(super) kind: &'a str,
    pub(super) sequence_number: Option<&'a str>,
    pub(super) timestamp: Option<Timestamp>,
    /// The operation that asks; texts name it.
    pub(super) operation: &'static str,
}

impl Start<'_> {
    pub(super) fn check(&self, check: &mut Validator, kind_path: &str, number_path: &str) {
        check.one_of(kind_path, Some(self.kind), &TYPES);
        check.pattern(number_path, self.sequence_number, SEQUENCE);
    }

    /// The place in a shard, as things are now.
    pub(super) fn resolve(
        &self,
        entry: &Entry,
        stream: &Stream,
        shard_id: ShardId,
        now: Timestamp,
    ) -> Result<Position, Fault> {
        let numbers = entry.numbers(shard_id)?; // says if there is no such shard
        check_listed(entry, stream, shard_id, now)?;
        self.check_arguments()?;
        let number = match self.kind {
            "LATEST" => {
                let iterator = stream.shard_iterator(shard_id, ShardIteratorType::Latest);
                return Ok(Position::At(
                    iterator.map_err(|error| entry.fault(error))?.next_sequence_number().get(),
                ));
            }
            "AT_TIMESTAMP" => return self.time(now),
            "TRIM_HORIZON" => 0,
            kind => {
                let number = self.number(entry, shard_id, numbers.created)?;
                if is_of_the_future(number, now) && !was_given(entry, stream, number) {
                    return Err(self.invalid(entry, shard_id, "."));
                }
                match (number.place(), kind) {
                    (Place::Start, _) => 0,
                    (Place::End, _) => u64::MAX,
                    (Place::At(dense), "AFTER_SEQUENCE_NUMBER") => dense.saturating_add(1),
                    (Place::At(dense), _) => dense,
                }
            }
        };
        let reader = open_reader(entry, stream, shard_id, Position::At(number))?;
        Ok(Position::At(reader.next_sequence_number().get()))
    }

    fn check_arguments(&self) -> Result<(), Fault> {
        let kind = self.kind;
        let wants_number = kind.ends_with("_SEQUENCE_NUMBER");
        if wants_number != self.sequence_number.is_some() {
            let and =
                if wants_number { "and no StartingSequenceNumber" } else { "and also a StartingSequenceNumber" };
            return Err(Fault::invalid(format!(
                "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and StartingSequenceNumber or \
                 (2) TRIM_HORIZON or LATEST and no StartingSequenceNumber. Request specified {kind} {and}."
            )));
        }
        if kind == "AT_TIMESTAMP" && self.timestamp.is_none() {
            return Err(Fault::invalid(
                "Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP. Current request has no \
                 timestamp parameter.",
            ));
        }
        Ok(())
    }

    fn time(&self, now: Timestamp) -> Result<Position, Fault> {
        let time = self.timestamp.unwrap_or(now);
        if time > now {
            return Err(Fault::invalid(format!(
                "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. timestampInMillis: {}, \
                 currentTimestampInMillis: {}",
                time.as_millis(),
                now.as_millis()
            )));
        }
        Ok(Position::Time(time))
    }

    fn number(&self, entry: &Entry, shard_id: ShardId, created: u64) -> Result<Sequence, Fault> {
        let text = self.sequence_number.unwrap_or_default();
        let number = Sequence::parse(text).ok_or_else(|| self.invalid(entry, shard_id, "."))?;
        if number.shard() != shard_id.get() {
            return Err(Fault::invalid(format!(
                "Invalid StartingSequenceNumber. It encodes {}, while it was used in a call to a shard with {shard_id}",
                ShardId::new(number.shard())
            )));
        }
        if number.created() != created {
            return Err(self.invalid(entry, shard_id, " because it did not come from this stream."));
        }
        Ok(number)
    }

    fn invalid(&self, entry: &Entry, shard_id: ShardId, why: &str) -> Fault {
        Fault::invalid(format!(
            "StartingSequenceNumber {} used in {} on shard {shard_id} in stream {} under account {} is invalid{why}",
            self.sequence_number.unwrap_or_default(),
            self.operation,
            entry.name,
            entry.account
        ))
    }
}

/// Whether a number says that it was given later than now.
pub(super) fn is_of_the_future(number: Sequence, now: Timestamp) -> bool {
    number.written() > second(now).max(number.created())
}

/// Whether it was given all the same: that of a record, or of the end of a shard, says when that came, and the clock can have gone back since.
pub(super) fn was_given(entry: &Entry, stream: &Stream, number: Sequence) -> bool {
    let shard_id = ShardId::new(number.shard());
    let Ok(numbers) = entry.numbers(shard_id) else { return false };
    let is_known = match number.place() {
        Place::Start => number == numbers.starting(),
        Place::At(dense) => {
            let tail = stream.shard_iterator(shard_id, ShardIteratorType::Latest);
            tail.is_ok_and(|tail| dense < tail.next_sequence_number().get())
        }
        Place::End => {
            let closed = stream.shards().into_iter().find(|shard| shard.shard_id == shard_id);
            let closed = closed.and_then(|shard| shard.closed);
            closed.is_some_and(|closed| number == numbers.ending(second(closed)))
        }
    };
    is_known && number.created() == numbers.created
}

/// A closed shard is gone once all in it has expired, though its files may still be there.
fn check_listed(entry: &Entry, stream: &Stream, shard_id: ShardId, now: Timestamp) -> Result<(), Fault> {
    let oldest = stream.shard_iterator(shard_id, ShardIteratorType::TrimHorizon);
    // Whoever has a record, or can have one, need not be looked for among all shards.
    let is_empty = oldest.map_err(|error| entry.fault(error))?.end_of_shard().is_some();
    if is_empty && !listed_shards(stream, now).iter().any(|shard| shard.shard_id == shard_id) {
        return Err(entry.no_shard(shard_id));
    }
    Ok(())
}

/// A reader at a place. The service passes silently over what retention removed, and so does this; a place behind the tail (a power cut can take a
/// buffered tail back) is the tail.
pub(crate) fn open_reader(
    entry: &Entry,
    stream: &Stream,
    shard_id: ShardId,
    position: Position,
) -> Result<ShardIterator, Fault> {
    let mut kind = match position {
        Position::At(number) => ShardIteratorType::AtSequenceNumber(SequenceNumber::new(number)),
        Position::Time(time) => ShardIteratorType::AtTimestamp(time),
    };
    for _ in 1..TRIES {
        let at = match stream.shard_iterator(shard_id, kind) {
            Err(Error::Trimmed { earliest, .. }) => earliest,
            Err(Error::BeyondTail { next, .. }) => next,
            other => return other.map_err(|error| entry.fault(error)),
        };
        kind = ShardIteratorType::AtSequenceNumber(at);
    }
    stream.shard_iterator(shard_id, ShardIteratorType::TrimHorizon).map_err(|error| entry.fault(error))
}

/// How far a reader is behind the newest record, in milliseconds. What it stands at may have been removed by retention since, or be damaged: there is still something to be
/// read, and who asks for it is told. The answer with the records before it is given all the same.
pub(crate) fn millis_behind_latest(reader: &mut ShardIterator) -> u64 {
    reader.millis_behind_latest().unwrap_or(1)
}

/// The next record, unless it is too much behind so many bytes of an answer that holds `most`: it is not read then, since what is read is paid for.
pub(crate) fn next_that_fits(
    reader: &mut ShardIterator,
    behind: usize,
    most: usize,
) -> anabranch::Result<Option<Record>> {
    match reader.next_record_bytes()? {
        Some(bytes) if behind == 0 || behind + bytes <= most => reader.available().next().transpose(),
        _ => Ok(None),
    }
}
