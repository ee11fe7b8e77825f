//! `salvage`: what is sound of a damaged stream.

use std::ops::ControlFlow;

use anabranch::Salvaged;

use crate::exit::{Exit, Failure};
use crate::get::Shown;
use crate::interrupt::Interrupt;
use crate::open::StreamArg;
use crate::output::Output;
use crate::view::lost_text;

/// Writes every sound record; what is lost is exit code 1.
pub(crate) fn run(args: &StreamArg, out: &mut Output) -> Result<Exit, Failure> {
    let interrupt = Interrupt::install()?;
    let mut failure = None;
    let report = anabranch::salvage(&args.dir, None, |item| {
        let outcome = interrupt.check().and_then(|()| tell(item, out));
        match outcome {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    if let Some(failure) = failure {
        return Err(failure);
    }
    if let Some(damage) = &report.manifest {
        out.note(format_args!("damage: {damage}"));
    }
    let is_whole = report.lost.is_empty() && report.manifest.is_none();
    Ok(if is_whole { Exit::Fine } else { Exit::Damage })
}

fn tell(item: Salvaged<'_>, out: &mut Output) -> Result<(), Failure> {
    match item {
        Salvaged::Record(record) => Shown::from(record).write(out),
        Salvaged::Lost(lost) => {
            out.note(lost_text(&lost));
            Ok(())
        }
        _ => Ok(()),
    }
}
