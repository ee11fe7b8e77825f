//! The command `anabranch`: arguments and dispatch. Each command has a file; see `exit` for how they end.

mod batch;
mod bench;
mod consumers;
mod exit;
mod get;
mod interrupt;
mod keys;
mod lines;
mod open;
mod output;
mod producers;
mod progress;
mod put;
mod retention;
mod salvage;
mod serve;
mod shards;
mod start;
mod stream;
mod tail;
mod tally;
mod top;
mod units;
mod verify;
mod view;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use exit::{EXIT_CODES, Exit, Failure};
use output::Output;

/// Streams of records in one directory: shards, hash-key routing, splits and merges.
#[derive(Debug, Parser)]
#[command(name = "anabranch", version, after_help = EXIT_CODES, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// Write results as JSON, for programs
    #[arg(long, global = true)]
    json: bool,

    /// No summaries, notes and progress on standard error
    #[arg(short, long, global = true)]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a new stream
    Create(stream::CreateArgs),
    /// Put lines of files or standard input into a stream, one record each
    ///
    /// Lines are bytes; a record is a line without its \n, and a last line without one counts. Unless a
    /// key option says otherwise, the partition key is a hash of the line (64-bit FNV-1a, 16 hexadecimal
    /// digits): lines spread over the shards, and order holds only within a shard. Keys are text, so bytes
    /// of a line that are no UTF-8 become U+FFFD in a key taken from it; its data keeps them.
    ///
    /// Where a line is refused, the message names it, and all lines before it are in the stream. Ctrl-C
    /// lets the current batch finish. The summary on standard error says how many records were
    /// acknowledged; with --json it is an object on standard output, behind the receipts.
    Put(put::PutArgs),
    /// Follow log files and put each line into a stream once, through rotation and kill -9
    ///
    /// Files are followed through rotation by renaming and by copying and cutting off; name rotated files and copies too
    /// ('app.log*'), so that what is left in them is found. What was put is never put again, after whatever crash, and
    /// what was not is: the stream itself says how far each file came, and DIR.agent which file is which. One agent at a
    /// time writes a stream.
    ///
    /// Without --from a first run begins at the ends of the files that are there. Ctrl-C and SIGTERM end the command with exit
    /// code 0; the next run goes on where this one ended.
    Tail(tail::TailArgs),
    /// Read records
    ///
    /// Data is written as it is, with a newline behind each record. With --json a record is a line
    /// {"shardId", "sequenceNumber", "arrival", "partitionKey", "data"}, with "dataBase64" in place of
    /// "data" where the bytes are no UTF-8. Reading needs no lock: it works beside a writer.
    Get(get::GetArgs),
    /// List the shards with their lineage and contents
    Shards(open::StreamArg),
    /// Split a shard in two
    Split(shards::SplitArgs),
    /// Merge two adjacent shards into one
    Merge(shards::MergeArgs),
    /// Split and merge until there are so many open shards
    Scale(shards::ScaleArgs),
    /// Show a stream's options and contents
    Describe(open::StreamArg),
    /// List the producers that the stream knows by name, and how far each came
    Producers(open::StreamArg),
    /// List the consumers, and how far each is in every shard
    Consumers(open::StreamArg),
    /// Show where a consumer stands, put it elsewhere, or delete it
    Checkpoint(consumers::CheckpointArgs),
    /// Watch a stream live: shards, rates, consumers and their lag
    ///
    /// Works beside the writer. Keys: q, Esc or Ctrl-C ends it, Tab and the arrows choose a pane and scroll it, s sorts it
    /// by its next column. Where standard output is no terminal, and with --once or --json, it prints what it sees once.
    Top(top::TopArgs),
    /// Show or change how long records stay
    Retention(retention::RetentionArgs),
    /// Remove what retention no longer covers now, or everything before a sequence number
    Trim(retention::TrimArgs),
    /// Check every checksum and cross-reference; changes nothing but with --repair
    Verify(verify::VerifyArgs),
    /// Read every sound record of a damaged stream, behind damage and without a manifest too; changes nothing
    ///
    /// Records are written as `get` writes them, shard by shard. What is lost is told on standard error, and
    /// the exit code is 1 if anything is.
    Salvage(open::StreamArg),
    /// Serve streams with the wire protocol of Amazon Kinesis Data Streams over HTTP
    ///
    /// Writes its address when it is ready. Ctrl-C and SIGTERM stop it: whoever is being answered is
    /// answered, and everything is durable. Killed, it loses nothing that it acknowledged at its durability.
    Serve(serve::ServeArgs),
    /// Measure writing and reading on this machine, in a stream that is removed afterwards
    Bench(bench::BenchArgs),
    /// Print the completion script of a shell
    Completions {
        /// Whose script
        shell: Shell,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = Output::new(cli.json, cli.quiet);
    let outcome = run(&cli.command, &mut out);
    exit::report(flushed(outcome, &mut out))
}

fn run(command: &Command, out: &mut Output) -> Result<Exit, Failure> {
    match command {
        Command::Create(args) => stream::create(args, out),
        Command::Put(args) => put::run(args, out),
        Command::Tail(args) => tail::run(args, out),
        Command::Get(args) => get::run(args, out),
        Command::Shards(args) => shards::list(args, out),
        Command::Split(args) => shards::split(args, out),
        Command::Merge(args) => shards::merge(args, out),
        Command::Scale(args) => shards::scale(args, out),
        Command::Describe(args) => stream::describe(args, out),
        Command::Producers(args) => producers::list(args, out),
        Command::Consumers(args) => consumers::list(args, out),
        Command::Checkpoint(args) => consumers::checkpoint(args, out),
        Command::Top(args) => top::run(args, out),
        Command::Retention(args) => retention::run(args, out),
        Command::Trim(args) => retention::trim(args, out),
        Command::Verify(args) => verify::run(args, out),
        Command::Salvage(args) => salvage::run(args, out),
        Command::Serve(args) => serve::run(args, out),
        Command::Bench(args) => bench::run(args, out),
        Command::Completions { shell } => completions(*shell, out),
    }
}

/// What was written before a failure is the reader's all the same; the first failure is the one told.
fn flushed(outcome: Result<Exit, Failure>, out: &mut Output) -> Result<Exit, Failure> {
    let written = out.flush();
    let exit = outcome?;
    written.map(|()| exit)
}

fn completions(shell: Shell, out: &mut Output) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "anabranch", &mut script);
    out.bytes(&script)?;
    Ok(Exit::Fine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Cli::command().debug_assert();
    }
}
