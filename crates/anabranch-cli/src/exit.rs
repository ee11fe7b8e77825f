//! How a command ends: exit codes, error messages and the hints below them.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anabranch::{Error, ErrorKind};

/// What `--help` says about exit codes.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0    fine; also when standard output was closed early, and when Ctrl-C ended `get --follow` or `tail`
  1    damage found in the stream
  2    wrong use: a wrong argument, or no such stream or shard
  3    refused by the stream, or an I/O error
  130  interrupted by Ctrl-C or SIGTERM; what was acknowledged is in the stream";

/// The ways to end that are no failure to do what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Fine,
    /// Done, and the stream is damaged.
    Damage,
}

/// Why a command stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The library refused or failed.
    #[error(transparent)]
    Stream(#[from] Error),
    /// A line of the input could not become a record. The lines before it did.
    #[error("{input}:{line}: {reason}")]
    Line {
        /// The input file as it was named, `-` for standard input.
        input: String,
        /// Counted from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// A record of a followed file could not be put. Those before it were.
    #[error("{input}: the record at byte {offset}: {reason}")]
    Record {
        /// The file's path.
        input: String,
        /// Where the record starts.
        offset: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// An input file could not be read.
    #[error("{input}: {error}")]
    Input {
        /// The input file as it was named, `-` for standard input.
        input: String,
        /// What the system said.
        error: io::Error,
    },
    /// What the agent knows of its files could not be read or kept.
    #[error("{}: {reason}", path.display())]
    State {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Standard output could not be written; silent where its reader went away.
    #[error("standard output: {0}")]
    Output(io::Error),
    /// The temporary stream of a benchmark could not be made or removed.
    #[error("temporary directory: {0}")]
    Temporary(io::Error),
    /// The handler of Ctrl-C could not be set.
    #[error("signal handler: {0}")]
    Signal(#[from] ctrlc::Error),
    /// Arguments that contradict each other or the stream.
    #[error("{0}")]
    Usage(String),
    /// The stream did not give back what was put into it.
    #[error("{0}")]
    Mismatch(String),
    /// The user asked to stop.
    #[error("interrupted")]
    Interrupted,
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::Stream(error) => stream_code(error.kind()),
            Self::Mismatch(_) => 1,
            Self::Usage(_) => 2,
            Self::Interrupted => 130,
            _ => 3,
        }
    }

    /// A reader that went away (`| head`) and a user who pressed Ctrl-C know what happened.
    fn is_silent(&self) -> bool {
        matches!(self.code(), 0 | 130)
    }
}

fn stream_code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Corrupt => 1,
        ErrorKind::InvalidInput | ErrorKind::NotFound => 2,
        _ => 3,
    }
}

/// Prints what there is to say about a failure and gives the process's exit code.
pub(crate) fn report(outcome: Result<Exit, Failure>) -> ExitCode {
    match outcome {
        Ok(Exit::Fine) => ExitCode::SUCCESS,
        Ok(Exit::Damage) => ExitCode::from(1),
        Err(failure) => {
            if !failure.is_silent() {
                print(&failure);
            }
            ExitCode::from(failure.code())
        }
    }
}

fn print(failure: &Failure) {
    let mut stderr = io::stderr().lock();
    // With standard error gone as well there is nobody left to tell.
    let _ = writeln!(stderr, "anabranch: {failure}");
    if let Some(hint) = hint(failure) {
        let _ = writeln!(stderr, "hint: {hint}");
    }
}

/// What the user can do about it, where that is known.
fn hint(failure: &Failure) -> Option<String> {
    let Failure::Stream(error) = failure else {
        return None;
    };
    match error {
        Error::Trimmed { earliest, .. } => {
            Some(format!("retention removed it; the earliest that is left is at:{earliest}"))
        }
        Error::BeyondTail { next, .. } => Some(format!("at:{next} with --follow waits for the next record")),
        Error::ShardNotFound(_) | Error::ShardClosed(_) | Error::NotAdjacent { .. } => {
            Some("`anabranch shards DIR` lists the shards, their states and ranges".to_owned())
        }
        Error::ConsumerNotFound(_) => Some("`anabranch consumers DIR` lists the consumers".to_owned()),
        Error::StreamNotFound(_) => {
            Some("`anabranch create DIR` makes one, and so does `anabranch put --create`".to_owned())
        }
        _ => kind_hint(error.kind()).map(str::to_owned),
    }
}

fn kind_hint(kind: ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::Locked => {
            Some("another process writes to this stream; get, shards, describe and verify work beside it")
        }
        ErrorKind::Corrupt => Some(
            "`anabranch verify DIR` lists everything that is damaged, and mends it with --repair; `anabranch salvage DIR` reads what is sound",
        ),
        ErrorKind::StorageFull => {
            Some("free some space, or let go of records with `anabranch trim` or `retention --decrease`")
        }
        ErrorKind::Reopen => {
            Some("the disk failed a write or a sync; check it, then run the command again, which recovers")
        }
        ErrorKind::Unsupported => Some("a newer release of anabranch wrote this stream"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_follow_the_documented_table() {
        let closed_pipe = Failure::Output(io::ErrorKind::BrokenPipe.into());
        assert_eq!((closed_pipe.code(), closed_pipe.is_silent()), (0, true));
        assert_eq!(Failure::Output(io::ErrorKind::StorageFull.into()).code(), 3);
        assert_eq!(Failure::Usage(String::new()).code(), 2);
        assert_eq!(Failure::Mismatch(String::new()).code(), 1);
        assert_eq!((Failure::Interrupted.code(), Failure::Interrupted.is_silent()), (130, true));
        assert_eq!(stream_code(ErrorKind::Corrupt), 1);
        assert_eq!(stream_code(ErrorKind::NotFound), 2);
        assert_eq!(stream_code(ErrorKind::Locked), 3);
    }
}
