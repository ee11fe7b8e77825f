//! What `put` and `tail` got acknowledged, and its summary.

use std::collections::{BTreeMap, BTreeSet};
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
    more: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SummaryView<'a> {
    records: u64,
    bytes: u64,
    skipped: u64,
    shards: Vec<String>,
    elapsed_millis: u64,
    complete: bool,
    #[serde(flatten)]
    more: &'a BTreeMap<&'static str, u64>,
}

impl Tally {
    /// Nothing yet; time runs from here.
    pub(crate) fn new() -> Self {
        Self {
            records: 0,
            bytes: 0,
            skipped: 0,
            shards: BTreeSet::new(),
            started: Instant::now(),
            more: BTreeMap::new(),
        }
    }

    /// A line was left out.
    pub(crate) fn skip(&mut self) {
        self.skipped += 1;
    }

    /// With so many lines left out, and other counts by their names.
    pub(crate) fn with(mut self, skipped: u64, more: BTreeMap<&'static str, u64>) -> Self {
        self.skipped += skipped;
        self.more = more;
        self
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

    fn view(&self, complete: bool) -> SummaryView<'_> {
        SummaryView {
            records: self.records,
            bytes: self.bytes,
            skipped: self.skipped,
            shards: self.shards.iter().map(ToString::to_string).collect(),
            elapsed_millis: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            complete,
            more: &self.more,
        }
    }

    fn text(&self) -> String {
        let elapsed = self.started.elapsed();
        let others = self.more.iter().map(|(name, count)| (*name, *count));
        let others = [("skipped", self.skipped)].into_iter().chain(others).filter(|(_, count)| *count > 0);
        let others: Vec<_> = others.map(|(name, count)| format!(", {name} {}", show_count(count))).collect();
        let others = others.concat();
        format!(
            "put {} ({}) to {} in {:.2} s, {} records/s{others}",
            show_counted(self.records, "record"),
            show_bytes(self.bytes),
            show_counted(self.shards.len() as u64, "shard"),
            elapsed.as_secs_f64(),
            show_count(per_second(self.records, elapsed)),
        )
    }
}
