//! `PutRecord` and `PutRecords`.

use std::borrow::Cow;

use anabranch::{Durability, Error, HashKey, PutEntry, PutOptions, PutReceipt, Stream};
use serde::Serialize;

use super::shapes::encryption_type;
use super::target::StreamTarget;
use super::{Call, Reply};
use crate::catalog::Entry;
use crate::distribution::{Spread, stored_key};
use crate::errors::{Fault, FaultKind};
use crate::limits::{MAX_KEY_CHARS, MAX_PUT_RECORDS};
use crate::profile::Bounds;
use crate::sequence::{Sequence, second};
use crate::validate::{HASH_KEY, SEQUENCE, Validator, listed};
use crate::wire::{Fields, List};

/// A record to be put; its data is borrowed from the request where that has it as it is.
#[derive(Debug)]
struct Entering<'a> {
    data: Option<Cow<'a, [u8]>>,
    partition_key: Option<Cow<'a, str>>,
    explicit_hash_key: Option<Cow<'a, str>>,
}

impl<'a> Entering<'a> {
    fn read(fields: &mut Fields<'a>) -> Result<Self, Fault> {
        Ok(Self {
            data: fields.blob("Data")?,
            partition_key: fields.text("PartitionKey")?,
            explicit_hash_key: fields.text("ExplicitHashKey")?,
        })
    }

    /// A stream that spreads its records asks for no key.
    fn check(&self, check: &mut Validator, bounds: &Bounds, spread: Option<&Spread>) {
        check.required("data", self.data.as_ref());
        check_size(check, self.data(), bounds.data_bytes);
        if spread.is_none() {
            check.required("partitionKey", self.partition_key.as_ref());
        }
        check.length("partitionKey", self.partition_key.as_deref(), 1, MAX_KEY_CHARS);
        check.pattern("explicitHashKey", self.explicit_hash_key.as_deref(), HASH_KEY);
    }

    /// What a stream that was made for smaller records refuses: the key counts there.
    fn check_stream(&self, check: &mut Validator, most: usize) {
        check_size(check, self.data(), most.saturating_sub(self.key().len()));
    }

    fn data(&self) -> &[u8] {
        self.data.as_deref().unwrap_or_default()
    }

    fn key(&self) -> &str {
        self.partition_key.as_deref().unwrap_or_default()
    }

    fn bytes(&self) -> usize {
        self.data().len() + self.key().len()
    }

    fn entry(&self, spread: Option<&Spread>) -> Result<PutEntry<'_>, Fault> {
        let explicit_hash_key = self.explicit_hash_key.as_deref().map(hash_key).transpose()?;
        let explicit_hash_key = spread.map(Spread::next).or(explicit_hash_key);
        let partition_key = stored_key(self.partition_key.as_deref());
        Ok(PutEntry { partition_key, data: self.data(), explicit_hash_key })
    }
}

fn check_size(check: &mut Validator, data: &[u8], most: usize) {
    let length = data.len();
    let print = || format!("java.nio.HeapByteBuffer[pos=0 lim={length} cap={length}]");
    if length > most {
        check.size("data", &print(), length, 0, most);
    }
}

fn hash_key(text: &str) -> Result<HashKey, Fault> {
    text.parse().map_err(|_| {
        Fault::invalid(format!(
            "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. Specified value was {text}"
        ))
    })
}

pub(super) fn dry_run() -> Fault {
    Fault::new(FaultKind::DryRunOperation, "The request would have succeeded, but DryRun is set.")
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct PutRecordAnswer {
    shard_id: String,
    sequence_number: Sequence,
    #[serde(skip_serializing_if = "Option::is_none")]
    encryption_type: Option<&'static str>,
}

pub(super) fn put_record(call: &Call<'_>, mut fields: Fields<'_>) -> Result<Reply, Fault> {
    let target = StreamTarget::read(&mut fields)?;
    let record = Entering::read(&mut fields)?;
    let ordering = fields.text("SequenceNumberForOrdering")?;
    let is_dry = fields.flag("DryRun")?;
    let found = target.find_serving(call);
    let spread = found.as_deref().ok().and_then(Entry::spread);

    let mut check = Validator::default();
    target.check(&mut check);
    record.check(&mut check, call.bounds(), spread);
    check.pattern("sequenceNumberForOrdering", ordering.as_deref(), SEQUENCE);
    check.finish()?;

    let entry = found.as_deref().map_err(Fault::clone)?;
    let stream = call.open(entry)?;
    let mut check = Validator::default();
    record.check_stream(&mut check, entry.settings()?.max_record_bytes());
    check.finish()?;
    let put = record.entry(spread)?;
    if let Some(ordering) = ordering {
        check_ordering(call, entry, &ordering)?;
    }
    if is_dry {
        return Err(dry_run());
    }
    let options =
        put.explicit_hash_key.map_or_else(PutOptions::new, |key| PutOptions::new().explicit_hash_key(key));
    let receipt = while_putting(call, &stream, || stream.put_with(put.partition_key, put.data, options));
    let receipt = receipt.map_err(|error| entry.fault(error))?;
    entry.traffic.came_in(record.bytes());
    call.answer(&PutRecordAnswer {
        shard_id: receipt.shard_id.to_string(),
        sequence_number: number(entry, &receipt)?,
        encryption_type: encryption_type(entry)?,
    })
}

/// A buffered put is a copy in memory, nearly always; others wait for the disk.
fn while_putting<T>(call: &Call<'_>, stream: &Stream, put: impl FnOnce() -> T) -> T {
    match stream.durability() {
        Durability::Buffered => put(),
        _ => call.waiting(put),
    }
}

/// Every number that the server gave is below the next one, so that nothing has to be done for the order itself.
fn check_ordering(call: &Call<'_>, entry: &Entry, text: &str) -> Result<(), Fault> {
    let is_past = |number: &Sequence| number.written() <= second(call.now).max(number.created());
    if Sequence::parse(text).as_ref().is_some_and(is_past) {
        return Ok(());
    }
    Err(Fault::invalid(format!(
        "ExclusiveMinimumSequenceNumber {text} used in PutRecord on stream {} under account {} is invalid.",
        entry.name, entry.account
    )))
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct PutRecordsAnswer {
    failed_record_count: usize,
    records: Vec<PutOutcome>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encryption_type: Option<&'static str>,
}

#[derive(Debug, Serialize)]
#[serde(untagged, rename_all_fields = "PascalCase")]
enum PutOutcome {
    Done { sequence_number: Sequence, shard_id: String },
    Failed { error_code: &'static str, error_message: String },
}

pub(super) fn put_records(call: &Call<'_>, mut fields: Fields<'_>) -> Result<Reply, Fault> {
    let target = StreamTarget::read(&mut fields)?;
    let list = fields.list("Records")?.map(List::structures).transpose()?;
    let is_dry = fields.flag("DryRun")?;
    let records = list.map(|list| list.into_iter().map(|mut record| Entering::read(&mut record)).collect());
    let records: Option<Vec<_>> = records.transpose()?;
    let found = target.find_serving(call);
    let spread = found.as_deref().ok().and_then(Entry::spread);

    let mut check = Validator::default();
    check.required("records", records.as_ref());
    if let Some(records) = records.as_deref().filter(|records| !(1..=MAX_PUT_RECORDS).contains(&records.len())) {
        let print = vec!["com.amazonaws.kinesis.v20131202.PutRecordsRequestEntry"; records.len()];
        check.size("records", &listed(print), records.len(), 1, MAX_PUT_RECORDS);
    }
    let records = records.unwrap_or_default();
    check_each(&mut check, &records, |record, check| record.check(check, call.bounds(), spread));
    target.check(&mut check);
    check.finish()?;
    let most = call.bounds().put_bytes;
    if records.iter().map(Entering::bytes).sum::<usize>() > most {
        return Err(Fault::invalid(format!("Records size exceeds {} MB limit", most >> 20)));
    }

    let entry = found.as_deref().map_err(Fault::clone)?;
    let stream = call.open(entry)?;
    let most = entry.settings()?.max_record_bytes();
    let mut check = Validator::default();
    check_each(&mut check, &records, |record, check| record.check_stream(check, most));
    check.finish()?;
    let puts = records.iter().map(|record| record.entry(spread)).collect::<Result<Vec<_>, _>>()?;
    if is_dry {
        return Err(dry_run());
    }
    // The stream's own durability holds where it is stronger.
    let outcomes = while_putting(call, &stream, || stream.put_each(&puts, Durability::Buffered));
    let outcomes = outcomes.map_err(|error| entry.fault(error))?;
    for (record, _) in records.iter().zip(&outcomes).filter(|(_, outcome)| outcome.is_ok()) {
        entry.traffic.came_in(record.bytes());
    }
    let records = outcomes.iter().map(|outcome| put_outcome(entry, outcome)).collect::<Result<Vec<_>, _>>()?;
    let failed_record_count = records.iter().filter(|record| matches!(record, PutOutcome::Failed { .. })).count();
    call.answer(&PutRecordsAnswer { failed_record_count, records, encryption_type: encryption_type(entry)? })
}

fn check_each<'a>(
    check: &mut Validator,
    records: &[Entering<'a>],
    of_one: impl Fn(&Entering<'a>, &mut Validator),
) {
    for (index, record) in records.iter().enumerate() {
        check.of_record(index);
        of_one(record, check);
    }
    check.of_request();
}

fn put_outcome(entry: &Entry, outcome: &anabranch::Result<PutReceipt>) -> Result<PutOutcome, Fault> {
    Ok(match outcome {
        Ok(receipt) => {
            PutOutcome::Done { sequence_number: number(entry, receipt)?, shard_id: receipt.shard_id.to_string() }
        }
        Err(Error::ThroughputExceeded { shard_id, .. }) => PutOutcome::Failed {
            error_code: FaultKind::ProvisionedThroughputExceeded.name(),
            error_message: entry.throttle(*shard_id),
        },
        Err(error) => {
            entry.note(error);
            PutOutcome::Failed {
                error_code: FaultKind::InternalFailure.name(),
                error_message: "Internal Service Failure".to_owned(),
            }
        }
    })
}

fn number(entry: &Entry, receipt: &PutReceipt) -> Result<Sequence, Fault> {
    let numbers = entry.numbers(receipt.shard_id)?;
    Ok(numbers.record(receipt.sequence_number.get(), second(receipt.arrival)))
}
