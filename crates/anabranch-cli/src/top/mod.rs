//! `top`: a stream as it lives: what is written to which shard, who reads it and how far behind.
//!
//! [`snapshot`] is one look at the stream, [`figures`] what two looks say together, [`panes`] the tables that people see, [`screen`] which of them is
//! where, and what keys do; [`draw`] puts that on a terminal. Only [`terminal`] touches one.

mod draw;
mod figures;
mod panes;
mod screen;
mod snapshot;
mod terminal;

use std::io::{self, IsTerminal};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use crate::exit::{Exit, Failure};
use crate::interrupt::{Interrupt, PATIENCE};
use crate::open::StreamArg;
use crate::output::Output;
use crate::units::parse_duration;
use figures::Figures;
use snapshot::Watcher;

/// Arguments of `top`.
#[derive(Debug, Clone, Args)]
pub(crate) struct TopArgs {
    #[command(flatten)]
    stream: StreamArg,

    /// How often to look; rates are over this time
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_interval)]
    interval: Duration,

    /// Look twice, an interval apart, print what there is as text, and exit; so does --json, and an output that is no terminal
    #[arg(long)]
    once: bool,
}

/// Shows the stream until the user has seen enough, or once.
pub(crate) fn run(args: &TopArgs, out: &mut Output) -> Result<Exit, Failure> {
    let interrupt = Interrupt::install()?;
    let watcher = Watcher::open(&args.stream.dir)?;
    if args.once || out.is_json() || !io::stdout().is_terminal() {
        return print(watcher, args.interval, &interrupt, out);
    }
    terminal::show(watcher, args.interval, &interrupt)?;
    Ok(Exit::Fine)
}

fn print(
    mut watcher: Watcher,
    interval: Duration,
    interrupt: &Interrupt,
    out: &mut Output,
) -> Result<Exit, Failure> {
    let before = watcher.look()?;
    let until = Instant::now() + interval;
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        interrupt.check()?;
        thread::sleep(left.min(PATIENCE));
    }
    let figures = Figures::new(Some(&before), &watcher.look()?);
    if out.is_json() {
        out.value(&figures)?;
        return Ok(Exit::Fine);
    }
    out.bytes(panes::as_text(&figures).as_bytes())?;
    Ok(Exit::Fine)
}

/// A look takes time, too: more than a hundred a second would be all that the machine does.
fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text)?;
    if interval < Duration::from_millis(10) {
        return Err("10ms is the shortest interval".to_owned());
    }
    Ok(interval)
}
