//! `verify`: a stream's soundness, and what is wrong with it.

use anabranch::{RepairReport, VerifyOptions, VerifyProgress, VerifyReport};
use clap::Args;
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::open::StreamArg;
use crate::output::{Output, Table};
use crate::progress::Progress;
use crate::units::{show_bytes, show_count};
use crate::view::{DamageView, LostView, TornTailView, lost_text};

/// Arguments of `verify`.
#[derive(Debug, Clone, Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    stream: StreamArg,

    /// Make a damaged stream whole: copy damaged files to DIR/damaged, keep every sound record, and say what is lost
    ///
    /// The exit code is 0 if the stream is sound afterwards. A damaged MANIFEST is not rebuilt: see `salvage`.
    #[arg(long)]
    repair: bool,
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
    lost: Vec<LostView>,
    damage: Vec<DamageView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repair: Option<RepairView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RepairView {
    sound: bool,
    records_rewritten: u64,
    set_aside: Vec<String>,
    lost: Vec<LostView>,
}

impl From<&RepairReport> for RepairView {
    fn from(report: &RepairReport) -> Self {
        Self {
            sound: report.after.is_sound(),
            records_rewritten: report.records_rewritten,
            set_aside: report.set_aside.iter().map(|path| path.display().to_string()).collect(),
            lost: report.lost.iter().map(LostView::from).collect(),
        }
    }
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
            lost: report.lost.iter().map(LostView::from).collect(),
            damage: report.damage.iter().map(DamageView::from).collect(),
            repair: None,
        }
    }
}

/// Checks a stream and shows what it found; damage is exit code 1, unless it was repaired.
pub(crate) fn run(args: &VerifyArgs, out: &mut Output) -> Result<Exit, Failure> {
    let report = check(args, out.is_quiet())?;
    let to_repair = args.repair && !report.is_sound();
    let repaired = to_repair.then(|| anabranch::repair(&args.stream.dir, None)).transpose()?;
    if out.is_json() {
        let repair = repaired.as_ref().map(RepairView::from);
        out.value(&VerifyView { repair, ..VerifyView::from(&report) })?;
    } else {
        print(out, &report)?;
        repaired.iter().try_for_each(|repaired| print_repair(out, repaired))?;
    }
    let is_sound = repaired.map_or(report.is_sound(), |repaired| repaired.after.is_sound());
    Ok(if is_sound { Exit::Fine } else { Exit::Damage })
}

fn print_repair(out: &mut Output, report: &RepairReport) -> Result<(), Failure> {
    for path in &report.set_aside {
        out.line(format_args!("set aside: {}", path.display()))?;
    }
    for lost in &report.lost {
        out.line(lost_text(lost))?;
    }
    out.line(format_args!("repaired: {} records written again", show_count(report.records_rewritten)))?;
    report.after.damage.iter().try_for_each(|damage| out.line(format_args!("damage that is left: {damage}")))
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
    report.lost.iter().try_for_each(|lost| out.line(format_args!("{} (repaired before)", lost_text(lost))))?;
    report.damage.iter().try_for_each(|damage| out.line(format_args!("damage: {damage}")))
}
