//! What programs (`--json`) and people (tables) see of the library's values.
//!
//! JSON fields have Kinesis' names where Kinesis has one. Hash keys are strings, since most JSON
//! readers cannot hold 128 bits; times are RFC 3339.

use anabranch::{
    Corruption, Durability, HashKeyRange, LostRange, PartitionHash, PutReceipt, ShardDescription, ShardId,
    ShardState, StreamDescription, Timestamp, TornTail, TrimReport,
};
use serde::Serialize;

use crate::exit::Failure;
use crate::output::{Align, Output, Table};
use crate::units::{show_bytes, show_count, show_millis, show_retention};

/// Records that are lost.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LostView {
    shard_id: String,
    first_sequence_number: u64,
    last_sequence_number: u64,
}

impl From<&LostRange> for LostView {
    fn from(lost: &LostRange) -> Self {
        Self {
            shard_id: lost.shard_id.to_string(),
            first_sequence_number: lost.first.get(),
            last_sequence_number: lost.last.get(),
        }
    }
}

/// Records that are lost, for people.
pub(crate) fn lost_text(lost: &LostRange) -> String {
    format!("lost: sequence numbers {} to {} of {}", lost.first, lost.last, lost.shard_id)
}

/// One acknowledged record.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ReceiptView {
    shard_id: String,
    sequence_number: u64,
    arrival: String,
}

impl From<&PutReceipt> for ReceiptView {
    fn from(receipt: &PutReceipt) -> Self {
        Self {
            shard_id: receipt.shard_id.to_string(),
            sequence_number: receipt.sequence_number.get(),
            arrival: receipt.arrival.to_string(),
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RangeView {
    starting_hash_key: String,
    ending_hash_key: String,
}

impl From<HashKeyRange> for RangeView {
    fn from(range: HashKeyRange) -> Self {
        Self { starting_hash_key: range.start().to_string(), ending_hash_key: range.end().to_string() }
    }
}

/// A shard with its lineage and contents.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ShardView {
    shard_id: String,
    state: &'static str,
    parents: Vec<String>,
    hash_key_range: RangeView,
    opened: String,
    closed: Option<String>,
    starting_sequence_number: u64,
    first_sequence_number: Option<u64>,
    last_sequence_number: Option<u64>,
    next_sequence_number: u64,
    records: u64,
    lost_records: u64,
    bytes: u64,
    disk_bytes: u64,
    segments: u64,
    oldest_arrival: Option<String>,
    newest_arrival: Option<String>,
}

impl From<&ShardDescription> for ShardView {
    fn from(shard: &ShardDescription) -> Self {
        let summary = &shard.summary;
        Self {
            shard_id: summary.shard_id.to_string(),
            state: state_name(summary.state),
            parents: names(&summary.parents),
            hash_key_range: summary.hash_key_range.into(),
            opened: summary.opened.to_string(),
            closed: text(summary.closed),
            starting_sequence_number: shard.starting_sequence_number.get(),
            first_sequence_number: shard.first_sequence_number.map(anabranch::SequenceNumber::get),
            last_sequence_number: shard.last_sequence_number.map(anabranch::SequenceNumber::get),
            next_sequence_number: shard.next_sequence_number.get(),
            records: shard.records,
            lost_records: shard.lost_records,
            bytes: shard.bytes,
            disk_bytes: shard.disk_bytes,
            segments: shard.segments,
            oldest_arrival: text(shard.oldest_arrival),
            newest_arrival: text(shard.newest_arrival),
        }
    }
}

fn text(time: Option<Timestamp>) -> Option<String> {
    time.map(|time| time.to_string())
}

fn names(shards: &[ShardId]) -> Vec<String> {
    shards.iter().map(ToString::to_string).collect()
}

fn state_name(state: ShardState) -> &'static str {
    match state {
        ShardState::Open => "open",
        ShardState::Closed => "closed",
        _ => "unknown",
    }
}

/// The name that `--durability` takes.
pub(crate) fn durability_name(durability: Durability) -> &'static str {
    match durability {
        Durability::Buffered => "buffered",
        Durability::Synced => "synced",
        _ => "unknown",
    }
}

fn hash_name(hash: PartitionHash) -> &'static str {
    match hash {
        PartitionHash::Xxh3 => "xxh3",
        PartitionHash::Md5 => "md5",
        _ => "unknown",
    }
}

/// Prints shards: a JSON array, or a table.
pub(crate) fn print_shards(out: &mut Output, shards: &[&ShardDescription]) -> Result<(), Failure> {
    if out.is_json() {
        let views: Vec<ShardView> = shards.iter().copied().map(ShardView::from).collect();
        return out.value(&views);
    }
    let mut table = Table::new(&[
        ("SHARD", Align::Left),
        ("STATE", Align::Left),
        ("PARENTS", Align::Left),
        ("RECORDS", Align::Right),
        ("BYTES", Align::Right),
        ("SEQUENCE NUMBERS", Align::Left),
        ("OLDEST ARRIVAL", Align::Left),
        ("HASH KEY RANGE", Align::Left),
    ]);
    for shard in shards {
        table.row(shard_row(shard));
    }
    out.bytes(table.to_string().as_bytes())
}

fn shard_row(shard: &ShardDescription) -> [String; 8] {
    let summary = &shard.summary;
    let numbers = match (shard.first_sequence_number, shard.last_sequence_number) {
        (Some(first), Some(last)) => format!("{first}..{last}"),
        _ => "-".to_owned(),
    };
    [
        summary.shard_id.to_string(),
        state_name(summary.state).to_owned(),
        or_dash(parent_numbers(&summary.parents)),
        show_count(shard.records),
        show_bytes(shard.bytes),
        numbers,
        or_dash(text(shard.oldest_arrival).unwrap_or_default()),
        format!("{}..{}", summary.hash_key_range.start(), summary.hash_key_range.end()),
    ]
}

/// `3+4`: the full ids would cost the table half its width.
fn parent_numbers(parents: &[ShardId]) -> String {
    let numbers: Vec<String> = parents.iter().map(|parent| parent.get().to_string()).collect();
    numbers.join("+")
}

fn or_dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StreamView {
    stream_id: String,
    created: String,
    incarnation: u64,
    retention_millis: Option<u64>,
    retention_bytes: Option<u64>,
    segment_bytes: u64,
    durability: &'static str,
    flush_interval_millis: u64,
    flush_bytes: u64,
    partition_hash: &'static str,
    max_data_bytes: u32,
    max_batch_records: u32,
    max_batch_bytes: u32,
    open_shards: u64,
    closed_shards: u64,
    records: u64,
    bytes: u64,
    disk_bytes: u64,
    shards: Vec<ShardView>,
}

impl From<&StreamDescription> for StreamView {
    fn from(stream: &StreamDescription) -> Self {
        let open = open_shards(stream);
        Self {
            stream_id: stream.stream_id.to_string(),
            created: stream.created.to_string(),
            incarnation: stream.incarnation,
            retention_millis: stream.retention.as_millis(),
            retention_bytes: stream.retention_bytes,
            segment_bytes: stream.segment_bytes,
            durability: durability_name(stream.durability),
            flush_interval_millis: millis(stream.flush_interval),
            flush_bytes: stream.flush_bytes,
            partition_hash: hash_name(stream.partition_hash),
            max_data_bytes: stream.limits.max_data_bytes,
            max_batch_records: stream.limits.max_batch_records,
            max_batch_bytes: stream.limits.max_batch_bytes,
            open_shards: open,
            closed_shards: stream.shards.len() as u64 - open,
            records: stream.shards.iter().map(|shard| shard.records).sum(),
            bytes: stream.shards.iter().map(|shard| shard.bytes).sum(),
            disk_bytes: stream.shards.iter().map(|shard| shard.disk_bytes).sum(),
            shards: stream.shards.iter().map(ShardView::from).collect(),
        }
    }
}

fn open_shards(stream: &StreamDescription) -> u64 {
    let is_open = |shard: &&ShardDescription| shard.summary.state == ShardState::Open;
    stream.shards.iter().filter(is_open).count() as u64
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Prints a stream: a JSON object with its shards, or its options and sums.
pub(crate) fn print_stream(out: &mut Output, stream: &StreamDescription) -> Result<(), Failure> {
    let view = StreamView::from(stream);
    if out.is_json() {
        return out.value(&view);
    }
    let mut table = Table::of_facts();
    table.fact("stream", &view.stream_id);
    table.fact("created", &view.created);
    table.fact("incarnation", view.incarnation);
    table.fact("shards", format!("{} open, {} closed", view.open_shards, view.closed_shards));
    table.fact("records", show_count(view.records));
    table.fact("bytes", format!("{}, on disk {}", show_bytes(view.bytes), show_bytes(view.disk_bytes)));
    table.fact("retention", show_retention(stream.retention));
    table.fact("byte budget", view.retention_bytes.map_or_else(|| "none".to_owned(), show_bytes));
    table.fact("durability", view.durability);
    table.fact(
        "flush",
        format!("every {} or {}", show_millis(view.flush_interval_millis), show_bytes(view.flush_bytes)),
    );
    table.fact("segments", format!("up to {}", show_bytes(view.segment_bytes)));
    table.fact("partition hash", view.partition_hash);
    table.fact("record limit", show_bytes(u64::from(view.max_data_bytes)));
    table.fact(
        "batch limit",
        format!(
            "{} records, {}",
            show_count(u64::from(view.max_batch_records)),
            show_bytes(u64::from(view.max_batch_bytes))
        ),
    );
    out.bytes(table.to_string().as_bytes())
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "these are the names in the JSON")]
struct TrimView {
    records_removed: u64,
    bytes_removed: u64,
    segments_removed: u64,
    shards_removed: Vec<String>,
}

/// Prints what a trim removed.
pub(crate) fn print_trim(out: &mut Output, report: &TrimReport) -> Result<(), Failure> {
    if out.is_json() {
        return out.value(&TrimView {
            records_removed: report.records_removed,
            bytes_removed: report.bytes_removed,
            segments_removed: report.segments_removed,
            shards_removed: names(&report.shards_removed),
        });
    }
    let mut table = Table::of_facts();
    table.fact("records removed", show_count(report.records_removed));
    table.fact("bytes removed", show_bytes(report.bytes_removed));
    table.fact("segments removed", show_count(report.segments_removed));
    table.fact("shards removed", show_count(report.shards_removed.len() as u64));
    out.bytes(table.to_string().as_bytes())
}

/// Damage in one file.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DamageView {
    path: String,
    offset: u64,
    shard_id: Option<String>,
    first_sequence_number: Option<u64>,
    last_sequence_number: Option<u64>,
    reason: String,
}

impl From<&Corruption> for DamageView {
    fn from(damage: &Corruption) -> Self {
        Self {
            path: damage.path.display().to_string(),
            offset: damage.offset,
            shard_id: damage.shard_id.map(|shard| shard.to_string()),
            first_sequence_number: damage.first_sequence_number.map(anabranch::SequenceNumber::get),
            last_sequence_number: damage.last_sequence_number.map(anabranch::SequenceNumber::get),
            reason: damage.reason.clone(),
        }
    }
}

/// The unfinished end of a shard that a crash left.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TornTailView {
    path: String,
    offset: u64,
    shard_id: String,
    next_sequence_number: u64,
}

impl From<&TornTail> for TornTailView {
    fn from(tail: &TornTail) -> Self {
        Self {
            path: tail.path.display().to_string(),
            offset: tail.offset,
            shard_id: tail.shard_id.to_string(),
            next_sequence_number: tail.next_sequence_number.get(),
        }
    }
}
