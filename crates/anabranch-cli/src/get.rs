//! `get`: records of one shard, of some, or of the whole stream.

use std::time::Duration;

use anabranch::{
    Error, Record, RecordRef, SalvagedRecord, SequenceNumber, ShardId, ShardIterator, Stream, Timestamp,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::interrupt::{Interrupt, PATIENCE};
use crate::open::{self, StreamArg};
use crate::output::Output;
use crate::start::Start;

/// Arguments of `get`.
#[derive(Debug, Clone, Args)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    stream: StreamArg,

    /// Read this shard, such as 3 or shardId-000000000003; can be repeated
    ///
    /// Without it the whole stream is read, each shard after its parents.
    #[arg(long = "shard", value_name = "SHARD")]
    shards: Vec<ShardId>,

    /// Where to start: trim-horizon, latest, at:N or after:N (with one --shard), time:RFC3339
    #[arg(long, value_name = "PLACE", default_value = "trim-horizon")]
    from: Start,

    /// Wait for more records until Ctrl-C; shards given by --shard end when they are closed
    #[arg(short, long)]
    follow: bool,

    /// Stop after so many records
    #[arg(short = 'n', long, value_name = "N")]
    limit: Option<u64>,
}

/// Reads as asked. Ctrl-C is how to end `--follow`, so it is no failure there.
pub(crate) fn run(args: &GetArgs, out: &mut Output) -> Result<Exit, Failure> {
    if args.from.in_stream().is_none() && args.shards.len() != 1 {
        let reason = "--from at:N and after:N need one --shard: a sequence number belongs to a shard";
        return Err(Failure::Usage(reason.to_owned()));
    }
    let interrupt = Interrupt::install()?;
    let stream = open::to_read(&args.stream.dir)?;
    let mut reading = Reading { out, interrupt, left: args.limit.unwrap_or(u64::MAX), is_following: args.follow };
    let outcome = match args.from.in_stream() {
        Some(start) if args.shards.is_empty() => reading.whole_stream(&stream, start),
        _ => reading.shards(&stream, &args.shards, args.from),
    };
    match outcome {
        Err(Failure::Interrupted) if args.follow => Ok(Exit::Fine),
        outcome => outcome.map(|()| Exit::Fine),
    }
}

/// The progress of one `get`.
struct Reading<'a> {
    out: &'a mut Output,
    interrupt: Interrupt,
    left: u64,
    is_following: bool,
}

impl Reading<'_> {
    fn whole_stream(&mut self, stream: &Stream, start: anabranch::RecordsStart) -> Result<(), Failure> {
        let mut records = stream.records(start)?;
        loop {
            for record in records.available() {
                if self.is_done() {
                    return Ok(());
                }
                self.show_or_note(record)?;
            }
            if !self.is_following || self.is_done() {
                return Ok(());
            }
            self.pause()?;
            if let Some(record) = records.next_timeout(PATIENCE).transpose() {
                self.show_or_note(record)?;
            }
        }
    }

    /// What is lost is said once by the library; what follows can be read.
    fn show_or_note(&mut self, record: Result<Record, Error>) -> Result<(), Failure> {
        match record {
            Err(error @ Error::Lost { .. }) => {
                self.out.note(format_args!("anabranch: {error}"));
                Ok(())
            }
            other => self.show(&Shown::from(&other?)),
        }
    }

    fn shards(&mut self, stream: &Stream, shards: &[ShardId], start: Start) -> Result<(), Failure> {
        let iterators = shards.iter().map(|shard| stream.shard_iterator(*shard, start.in_shard()));
        let mut iterators = iterators.collect::<Result<Vec<_>, _>>()?;
        if self.is_following {
            return self.follow(iterators);
        }
        for iterator in &mut iterators {
            while !self.is_done() && self.batch(iterator, Duration::ZERO)? {}
        }
        Ok(())
    }

    /// Takes the shards in turn, a batch each, so that a busy one does not hide the others.
    fn follow(&mut self, mut iterators: Vec<ShardIterator>) -> Result<(), Failure> {
        while !iterators.is_empty() && !self.is_done() {
            let mut is_idle = true;
            for iterator in &mut iterators {
                is_idle &= !self.batch(iterator, Duration::ZERO)?;
            }
            iterators.retain(|iterator| iterator.end_of_shard().is_none());
            if is_idle && !self.is_done() {
                self.pause()?;
                self.wait(&mut iterators)?;
            }
        }
        Ok(())
    }

    /// Waits at the first shard; with others beside it, only briefly.
    fn wait(&mut self, iterators: &mut [ShardIterator]) -> Result<(), Failure> {
        let timeout = if iterators.len() == 1 { PATIENCE } else { PATIENCE / 5 };
        if let Some(first) = iterators.first_mut() {
            self.batch(first, timeout)?;
        }
        Ok(())
    }

    /// Shows the next records of a shard; false if there are none yet.
    fn batch(&mut self, iterator: &mut ShardIterator, timeout: Duration) -> Result<bool, Failure> {
        let outcome = if timeout.is_zero() { iterator.next_batch() } else { iterator.next_batch_timeout(timeout) };
        let batch = match outcome {
            Err(error @ Error::Lost { .. }) => {
                self.out.note(format_args!("anabranch: {error}"));
                return Ok(true);
            }
            other => other?,
        };
        let is_some = !batch.is_empty();
        for record in batch {
            if self.is_done() {
                break;
            }
            self.show(&Shown::from(record))?;
        }
        Ok(is_some)
    }

    fn show(&mut self, record: &Shown<'_>) -> Result<(), Failure> {
        self.interrupt.check()?;
        self.left -= 1;
        record.write(self.out)
    }

    fn is_done(&self) -> bool {
        self.left == 0
    }

    /// Before a wait: the reader gets what there is.
    fn pause(&mut self) -> Result<(), Failure> {
        self.out.flush()?;
        self.interrupt.check()
    }
}

/// A record, owned or borrowed by the library.
pub(crate) struct Shown<'a> {
    shard_id: ShardId,
    sequence_number: SequenceNumber,
    arrival: Timestamp,
    partition_key: &'a str,
    data: &'a [u8],
}

impl Shown<'_> {
    /// Writes the record: its data and a newline, or a line of JSON.
    pub(crate) fn write(&self, out: &mut Output) -> Result<(), Failure> {
        if out.is_json() {
            return out.value(&RecordView::from(self));
        }
        out.bytes(self.data)?;
        out.bytes(b"\n")
    }
}

impl<'a> From<SalvagedRecord<'a>> for Shown<'a> {
    fn from(record: SalvagedRecord<'a>) -> Self {
        Self {
            shard_id: record.shard_id,
            sequence_number: record.sequence_number,
            arrival: record.arrival,
            partition_key: record.partition_key,
            data: record.data,
        }
    }
}

impl<'a> From<&'a Record> for Shown<'a> {
    fn from(record: &'a Record) -> Self {
        Self {
            shard_id: record.shard_id(),
            sequence_number: record.sequence_number(),
            arrival: record.arrival(),
            partition_key: record.partition_key(),
            data: record.data(),
        }
    }
}

impl<'a> From<RecordRef<'a>> for Shown<'a> {
    fn from(record: RecordRef<'a>) -> Self {
        Self {
            shard_id: record.shard_id(),
            sequence_number: record.sequence_number(),
            arrival: record.arrival(),
            partition_key: record.partition_key(),
            data: record.data(),
        }
    }
}

/// A record as a line of JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RecordView<'a> {
    shard_id: String,
    sequence_number: u64,
    arrival: String,
    partition_key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
}

impl<'a> From<&Shown<'a>> for RecordView<'a> {
    fn from(record: &Shown<'a>) -> Self {
        let text = std::str::from_utf8(record.data).ok();
        Self {
            shard_id: record.shard_id.to_string(),
            sequence_number: record.sequence_number.get(),
            arrival: record.arrival.to_string(),
            partition_key: record.partition_key,
            data: text,
            data_base64: text.is_none().then(|| STANDARD.encode(record.data)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(data: &[u8]) -> String {
        let record = Shown {
            shard_id: ShardId::new(7),
            sequence_number: SequenceNumber::new(12),
            arrival: Timestamp::from_millis(0),
            partition_key: "k",
            data,
        };
        serde_json::to_string(&RecordView::from(&record)).unwrap()
    }

    #[test]
    fn data_is_text_where_it_can_be() {
        let head = r#"{"shardId":"shardId-000000000007","sequenceNumber":12,"arrival":"1970-01-01T00:00:00.000Z","partitionKey":"k","#;
        assert_eq!(json(b"a\"b"), format!(r#"{head}"data":"a\"b"}}"#));
        assert_eq!(json(b""), format!(r#"{head}"data":""}}"#));
        assert_eq!(json(b"\xff\x00"), format!(r#"{head}"dataBase64":"/wA="}}"#));
    }
}
