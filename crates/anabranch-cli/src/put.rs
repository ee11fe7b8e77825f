//! `put`: lines become records, in batches.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use anabranch::{Durability, HashKey, Limits, PutEntry, PutReceipt, Stream};
use clap::{Args, ValueHint};

use crate::batch::Batch;
use crate::exit::{Exit, Failure};
use crate::interrupt::Interrupt;
use crate::keys::{BadKey, KeyArgs, KeyRule, line_hash};
use crate::lines::{self, Event, Splitter};
use crate::open::{self, DurabilityArg, StreamArg};
use crate::output::Output;
use crate::progress::Progress;
use crate::tally::Tally;
use crate::units::{parse_duration, show_bytes};
use crate::view::ReceiptView;

/// Arguments of `put`.
#[derive(Debug, Clone, Args)]
pub(crate) struct PutArgs {
    #[command(flatten)]
    stream: StreamArg,

    /// Files whose lines to put; none, or -, is standard input
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    files: Vec<PathBuf>,

    #[command(flatten)]
    key: KeyArgs,

    /// Route every record by this hash key instead of its partition key's
    #[arg(long, value_name = "HASH KEY")]
    hash_key: Option<HashKey>,

    /// Put up to so many lines at once
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,

    /// Let a batch that is not full wait for more lines so long at most
    #[arg(long, value_name = "DURATION", default_value = "10ms", value_parser = parse_duration)]
    linger: Duration,

    /// What acknowledged records survive, where that is more than the stream's own level
    #[arg(long, value_name = "LEVEL", value_enum)]
    durability: Option<DurabilityArg>,

    /// Write a line of JSON for each acknowledged record
    #[arg(long)]
    receipts: bool,

    /// Make the stream, with the defaults of `create`, if there is none
    #[arg(long)]
    create: bool,

    /// Take a carriage return at the end of a line off, too
    #[arg(long)]
    crlf: bool,
}

/// Puts lines until the input ends, a line is refused, or the user stops it. However it ends, the stream
/// is closed and the summary says how many records were acknowledged.
pub(crate) fn run(args: &PutArgs, out: &mut Output) -> Result<Exit, Failure> {
    let interrupt = Interrupt::install()?;
    let stream = open::to_fill(&args.stream.dir, args.create, out)?;
    let limits = stream.limits();
    let progress = progress(args, out.is_quiet());
    let mut session = Session {
        stream: &stream,
        args,
        limits,
        rule: args.key.rule(),
        interrupt: &interrupt,
        input: String::new(),
        line: 0,
        batch: Batch::default(),
        tally: Tally::new(),
        out,
    };
    let outcome = session.run(&lines::read(&args.files), &progress);
    let tally = session.tally;
    drop(progress);
    let closed = stream.close().map_err(Failure::from);
    let outcome = outcome.and(closed);
    tally.report(&outcome, out)?;
    outcome.map(|()| Exit::Fine)
}

/// A bar where the input's size is known: files, and nothing that is typed or piped.
fn progress(args: &PutArgs, is_quiet: bool) -> Progress {
    let size = |file: &PathBuf| file.metadata().ok().filter(std::fs::Metadata::is_file);
    let sizes: Option<Vec<u64>> = args.files.iter().map(|file| Some(size(file)?.len())).collect();
    match sizes {
        Some(sizes) if !sizes.is_empty() && !is_quiet => Progress::of_bytes(sizes.iter().sum(), "put"),
        _ => Progress::none(),
    }
}

struct Session<'a> {
    stream: &'a Stream,
    args: &'a PutArgs,
    limits: Limits,
    rule: KeyRule,
    interrupt: &'a Interrupt,
    input: String,
    line: u64,
    batch: Batch,
    tally: Tally,
    out: &'a mut Output,
}

impl Session<'_> {
    /// Lines before a failure are put as well: what failed is the line (or file) that the message names.
    fn run(&mut self, events: &Receiver<Event>, progress: &Progress) -> Result<(), Failure> {
        let outcome = self.pump(events, progress);
        let flushed = self.flush();
        outcome.and(flushed)
    }

    fn pump(&mut self, events: &Receiver<Event>, progress: &Progress) -> Result<(), Failure> {
        let mut splitter = Splitter::default();
        loop {
            self.interrupt.check()?;
            match events.recv_timeout(self.batch.patience(self.args.linger)) {
                Ok(Event::Bytes(chunk)) => {
                    progress.add(chunk.len() as u64);
                    self.take_chunk(&mut splitter, &chunk)?;
                }
                Ok(Event::Begin(input)) => (self.input, self.line) = (input, 0),
                Ok(Event::End) => self.end_file(&mut splitter)?,
                Ok(Event::Failed(input, error)) => return Err(Failure::Input { input, error }),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            if self.batch.has_waited(self.args.linger) {
                self.flush()?;
            }
        }
    }

    fn take_chunk(&mut self, splitter: &mut Splitter, chunk: &[u8]) -> Result<(), Failure> {
        splitter.feed(chunk, |line| self.take_line(line))?;
        // A line without end would otherwise be gathered in memory until there is none left.
        if splitter.partial_bytes() > self.limits.max_data_bytes as usize + 1 {
            self.line += 1;
            return Err(self.too_long());
        }
        Ok(())
    }

    /// The last line counts without a newline, unless the end is that of a pipe whose writer was
    /// interrupted together with this process: then it may be half a line.
    fn end_file(&mut self, splitter: &mut Splitter) -> Result<(), Failure> {
        self.interrupt.check()?;
        splitter.finish().map_or(Ok(()), |line| self.take_line(&line))
    }

    fn take_line(&mut self, line: &[u8]) -> Result<(), Failure> {
        self.line += 1;
        let data = match line {
            [data @ .., b'\r'] if self.args.crlf => data,
            data => data,
        };
        if data.len() > self.limits.max_data_bytes as usize {
            return Err(self.too_long());
        }
        let key = match self.rule.key(data, &self.input) {
            Ok(key) => key.into_owned(),
            Err(_) if self.args.key.bad_key == BadKey::Hash => line_hash(data),
            Err(_) if self.args.key.bad_key == BadKey::Skip => {
                self.tally.skip();
                return Ok(());
            }
            Err(fault) => return Err(self.refuse(fault.to_string())),
        };
        if !self.batch.has_room(&key, data, &self.limits) {
            self.flush()?;
        }
        self.batch.push(&key, data);
        if self.batch.len() >= self.batch_records() {
            self.flush()?;
            self.interrupt.check()?;
        }
        Ok(())
    }

    fn batch_records(&self) -> usize {
        self.args.batch.min(self.limits.max_batch_records) as usize
    }

    fn too_long(&self) -> Failure {
        let limit = show_bytes(u64::from(self.limits.max_data_bytes));
        self.refuse(format!("the line is longer than the stream's limit of {limit}"))
    }

    fn refuse(&self, reason: String) -> Failure {
        Failure::Line { input: self.input.clone(), line: self.line, reason }
    }

    /// Puts the batch. It is empty afterwards, also after a failure, so that nothing is put twice.
    fn flush(&mut self) -> Result<(), Failure> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.batch);
        let receipts = self.put(&batch.entries(self.args.hash_key))?;
        self.tally.count(&receipts, batch.data_bytes());
        self.batch = batch.cleared();
        self.show_receipts(&receipts)
    }

    fn put(&self, entries: &[PutEntry<'_>]) -> anabranch::Result<Vec<PutReceipt>> {
        match self.args.durability {
            Some(level) => self.stream.put_batch_with(entries, Durability::from(level)),
            None => self.stream.put_batch(entries),
        }
    }

    fn show_receipts(&mut self, receipts: &[PutReceipt]) -> Result<(), Failure> {
        if !self.args.receipts {
            return Ok(());
        }
        for receipt in receipts {
            self.out.value(&ReceiptView::from(receipt))?;
        }
        self.out.flush()
    }
}
