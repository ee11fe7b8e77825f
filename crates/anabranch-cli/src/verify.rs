//! `verify`: a stream's soundness, and what is wrong with it.

use anabranch::{VerifyOptions, VerifyProgress, VerifyReport};
use clap::Args;
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::open::StreamArg;
use crate::output::{Output, Table};
use crate::progress::Progress;
use crate::units::{show_bytes, show_count};
use crate::view::{DamageView, TornTailView};

/// Arguments of `verify`.
#[derive(Debug, Clone, Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    stream: StreamArg,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct VerifyView {
    sound: bool,
    shards: u64,
    segments: u64,
    records: u64,
    bytes: u64,
    clean_close: bool,
    torn_tails: Vec<TornTailView>,
    damage: Vec<DamageView>,
}

impl From<&VerifyReport> for VerifyView {
    fn from(report: &VerifyReport) -> Self {
        Self {
            sound: report.is_sound(),
            shards: report.shards,
            segments: report.segments,
            records: report.records,
            bytes: report.bytes,
            clean_close: report.clean_close,
            torn_tails: report.torn_tails.iter().map(TornTailView::from).collect(),
            damage: report.damage.iter().map(DamageView::from).collect(),
        }
    }
}

/// Checks a stream and shows what it found; damage is exit code 1.
pub(crate) fn run(args: &VerifyArgs, out: &mut Output) -> Result<Exit, Failure> {
    let report = check(args, out.is_quiet())?;
    if out.is_json() {
        out.value(&VerifyView::from(&report))?;
    } else {
        print(out, &report)?;
    }
    Ok(if report.is_sound() { Exit::Fine } else { Exit::Damage })
}

fn check(args: &VerifyArgs, is_quiet: bool) -> Result<VerifyReport, Failure> {
    let bar = if is_quiet { Progress::none() } else { Progress::of_bytes(0, "verify") };
    let mut show = |progress: VerifyProgress| bar.set(progress.bytes_done, progress.bytes_total);
    let options = VerifyOptions { progress: Some(&mut show), ..VerifyOptions::default() };
    Ok(anabranch::verify(&args.stream.dir, options)?)
}

fn print(out: &mut Output, report: &VerifyReport) -> Result<(), Failure> {
    let mut table = Table::of_facts();
    table.fact("shards", show_count(report.shards));
    table.fact("segments", show_count(report.segments));
    table.fact("records", show_count(report.records));
    table.fact("bytes", show_bytes(report.bytes));
    table.fact("closed cleanly", if report.clean_close { "yes" } else { "no, or being written" });
    table.fact(
        "damage",
        if report.is_sound() { "none".to_owned() } else { show_count(report.damage.len() as u64) },
    );
    out.bytes(table.to_string().as_bytes())?;
    for tail in &report.torn_tails {
        out.line(format_args!(
            "torn tail (no damage): {} of {} ends at byte {}, before sequence number {}",
            tail.path.display(),
            tail.shard_id,
            tail.offset,
            tail.next_sequence_number
        ))?;
    }
    report.damage.iter().try_for_each(|damage| out.line(format_args!("damage: {damage}")))
}
