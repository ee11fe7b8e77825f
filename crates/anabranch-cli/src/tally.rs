//! What `put` acknowledged, and its summary.

use std::collections::BTreeSet;
use std::time::Instant;

use anabranch::{PutReceipt, ShardId};
use serde::Serialize;

use crate::exit::Failure;
use crate::output::Output;
use crate::units::{per_second, show_bytes, show_count, show_counted};

/// What was acknowledged.
#[derive(Debug)]
pub(crate) struct Tally {
    records: u64,
    bytes: u64,
    skipped: u64,
    shards: BTreeSet<ShardId>,
    started: Instant,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SummaryView {
    records: u64,
    bytes: u64,
    skipped: u64,
    shards: Vec<String>,
    elapsed_millis: u64,
    complete: bool,
}

impl Tally {
    /// Nothing yet; time runs from here.
    pub(crate) fn new() -> Self {
        Self { records: 0, bytes: 0, skipped: 0, shards: BTreeSet::new(), started: Instant::now() }
    }

    /// A line was left out.
    pub(crate) fn skip(&mut self) {
        self.skipped += 1;
    }

    /// A batch was acknowledged.
    pub(crate) fn count(&mut self, receipts: &[PutReceipt], bytes: u64) {
        self.records += receipts.len() as u64;
        self.bytes += bytes;
        self.shards.extend(receipts.iter().map(|receipt| receipt.shard_id));
    }

    /// Tells how far a put came. Nothing is said to a reader who went away; that is how `| head` ends a command.
    pub(crate) fn report(&self, outcome: &Result<(), Failure>, out: &mut Output) -> Result<(), Failure> {
        match outcome {
            Err(Failure::Output(_)) => Ok(()),
            outcome if out.is_json() => out.value(&self.view(outcome.is_ok())),
            outcome => {
                let prefix = if matches!(outcome, Err(Failure::Interrupted)) { "interrupted: " } else { "" };
                out.note(format_args!("{prefix}{}", self.text()));
                Ok(())
            }
        }
    }

    fn view(&self, complete: bool) -> SummaryView {
        SummaryView {
            records: self.records,
            bytes: self.bytes,
            skipped: self.skipped,
            shards: self.shards.iter().map(ToString::to_string).collect(),
            elapsed_millis: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            complete,
        }
    }

    fn text(&self) -> String {
        let elapsed = self.started.elapsed();
        let skipped = match self.skipped {
            0 => String::new(),
            skipped => format!(", skipped {}", show_count(skipped)),
        };
        format!(
            "put {} ({}) to {} in {:.2} s, {} records/s{skipped}",
            show_counted(self.records, "record"),
            show_bytes(self.bytes),
            show_counted(self.shards.len() as u64, "shard"),
            elapsed.as_secs_f64(),
            show_count(per_second(self.records, elapsed)),
        )
    }
}
