//! What can go wrong, as a user sees it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::format::FORMAT_VERSION;
use crate::limits::{MAX_NAME_CHARS, Quota};
use crate::shard::ShardError;
use crate::storage::{Corruption, Fault};
use crate::types::{SequenceNumber, ShardId, is_name};

/// The result of the library's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong. [`kind`](Self::kind) says what a caller can do about it. Clones are told to all whom it concerns.
///
/// An operation that was refused ([`ErrorKind::InvalidInput`], [`NotFound`](ErrorKind::NotFound), [`Conflict`](ErrorKind::Conflict), ...) left no trace,
/// but for a batch that goes to several shards: [`FencingTokenMismatch`](Self::FencingTokenMismatch), [`BatchSuperseded`](Self::BatchSuperseded) and
/// [`BatchMismatch`](Self::BatchMismatch) speak for one of them, and others may have taken their part.
/// A put that failed with [`ErrorKind::Io`] or [`ErrorKind::Reopen`] has an **unknown outcome**: its records may turn up later.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument or an option is out of its range.
    #[error("invalid {argument}: {reason}")]
    InvalidArgument {
        /// Which one.
        argument: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A record's data is longer than the stream's [`Limits::max_data_bytes`](crate::Limits::max_data_bytes).
    #[error("data of {bytes} bytes is over the stream's limit of {limit}")]
    DataTooLarge {
        /// The data's length.
        bytes: usize,
        /// The limit.
        limit: u32,
    },
    /// A batch has more records or more bytes than the stream's [`Limits`](crate::Limits) allow.
    #[error(
        "a batch of {records} records with {bytes} bytes is over the stream's limit of {max_records} records or \
         {max_bytes} bytes"
    )]
    BatchTooLarge {
        /// Its records.
        records: usize,
        /// Its bytes: keys and data.
        bytes: usize,
        /// The most records that it may have.
        max_records: u32,
        /// The most bytes that it may have.
        max_bytes: u32,
    },
    /// More would pass a shard than the [quotas](crate::Quotas) of the stream allow. Nothing was put, and nothing skipped.
    #[error("{quota} of {shard_id} exceed the stream's quota; there is room in {retry_after:?}")]
    ThroughputExceeded {
        /// The shard.
        shard_id: ShardId,
        /// What there was too much of.
        quota: Quota,
        /// When to try again, if nobody else comes between.
        retry_after: Duration,
    },
    /// The stream has no such shard, or no longer.
    #[error("the stream has no shard {0}")]
    ShardNotFound(ShardId),
    /// The shard was split or merged already.
    #[error("{0} is closed: it was split or merged, and takes no more records")]
    ShardClosed(ShardId),
    /// Two shards cannot be merged.
    #[error("{lower} and {upper} are not two open shards whose ranges follow each other in this order")]
    NotAdjacent {
        /// The one given as the lower.
        lower: ShardId,
        /// The one given as the upper.
        upper: ShardId,
    },
    /// A conditional append found that somebody else wrote first. Nothing was appended.
    #[error("the next sequence number of {shard_id} is {actual}, not {expected}")]
    SequenceNumberMismatch {
        /// The shard.
        shard_id: ShardId,
        /// What the caller expected.
        expected: SequenceNumber,
        /// What it is.
        actual: SequenceNumber,
    },
    /// A fenced append showed another token than the shard's. Nothing was appended by the shard that says so, nor of a batch by any other, unless the shard was fenced
    /// in the moment between looking at the tokens and appending.
    #[error("the fencing token of {shard_id} is {actual}, not {token}")]
    FencingTokenMismatch {
        /// The shard.
        shard_id: ShardId,
        /// The token that the append showed.
        token: u64,
        /// The shard's; 0 where none was ever set.
        actual: u64,
    },
    /// A later handle of the same producer was made, or the producer was deleted: this one appends nothing any more.
    #[error("epoch {epoch} of producer {producer:?} is over: a later handle was made, or the producer deleted")]
    ProducerFenced {
        /// The producer's name.
        producer: String,
        /// The epoch of the handle that was used.
        epoch: u32,
    },
    /// The producer has put a later batch: what became of this one is not remembered. Nothing was appended by the shard that says so.
    #[error("batch {number} of producer {producer:?} comes after its batch {last}")]
    BatchSuperseded {
        /// The producer's name.
        producer: String,
        /// The number of the batch.
        number: u64,
        /// The number of the last batch that is known.
        last: u64,
    },
    /// A batch came again under its number with other records than the first time.
    #[error(
        "batch {number} of producer {producer:?} came again with other records: {found} in the place of {expected}"
    )]
    BatchMismatch {
        /// The producer's name.
        producer: String,
        /// The number of the batch.
        number: u64,
        /// How many records of it one shard took the first time.
        expected: u32,
        /// How many there are now.
        found: u32,
    },
    /// The stream has no producer of this name.
    #[error("the stream has no producer {0:?}")]
    ProducerNotFound(String),
    /// The place lies below the trim horizon: retention has removed it.
    #[error("sequence number {requested} of {shard_id} is trimmed; the earliest record left is {earliest}")]
    Trimmed {
        /// The shard.
        shard_id: ShardId,
        /// What was asked for.
        requested: SequenceNumber,
        /// Where reading can start.
        earliest: SequenceNumber,
    },
    /// The records were damaged, and a [`repair`](crate::repair) set what was left of them aside. An iterator says this once and
    /// goes on behind them.
    #[error("sequence numbers {first} to {last} of {shard_id} are lost")]
    Lost {
        /// The shard.
        shard_id: ShardId,
        /// The first one that is lost, or that was asked for.
        first: SequenceNumber,
        /// The last one that is lost.
        last: SequenceNumber,
    },
    /// The place lies behind the tail that is readable: no such record was written, or none that is shown yet, as one that waits for its sync on a
    /// `Synced` stream.
    #[error("sequence number {requested} of {shard_id} is beyond its tail; the next one to be read is {next}")]
    BeyondTail {
        /// The shard.
        shard_id: ShardId,
        /// What was asked for.
        requested: SequenceNumber,
        /// The number of the next record that will be readable.
        next: SequenceNumber,
    },
    /// The stream has no consumer of this name, or it was deleted.
    #[error("the stream has no consumer {0:?}")]
    ConsumerNotFound(String),
    /// A worker of this name is at work on the consumer, in this process or another.
    #[error("there is a worker {0:?} already")]
    WorkerExists(String),
    /// Somebody else took the shard, or the consumer was reset: this lease is over. Nothing was changed.
    #[error(
        "the lease of {shard_id} with epoch {epoch} is lost: its epoch is {current} now, its owner {}",
        owner.as_deref().unwrap_or("nobody")
    )]
    LeaseLost {
        /// The shard.
        shard_id: ShardId,
        /// The epoch of the lease.
        epoch: u64,
        /// The epoch that the shard has now.
        current: u64,
        /// Who has it now.
        owner: Option<String>,
    },
    /// A batch of an [`EventSource`](crate::EventSource) was given up, and there is no destination that would keep where it is: the source does not go on behind it.
    /// Running it again tries the batch again.
    #[error(
        "{shard_id}, sequence numbers {first} to {last}: failed {attempts} times, for the last time: {reason}"
    )]
    BatchFailed {
        /// The shard.
        shard_id: ShardId,
        /// The first record of the batch.
        first: SequenceNumber,
        /// The last one.
        last: SequenceNumber,
        /// How often it was tried.
        attempts: u32,
        /// What the handler said.
        reason: String,
    },
    /// A batch of an [`EventSource`](crate::EventSource) was given up, and its destination did not take it: the source does not go on behind it. Running
    /// it again offers it again.
    #[error(
        "{shard_id}, sequence numbers {first} to {last}: not taken by the destination of failed batches: {reason}"
    )]
    DestinationFailed {
        /// The shard.
        shard_id: ShardId,
        /// The first record of the batch.
        first: SequenceNumber,
        /// The last one.
        last: SequenceNumber,
        /// What the destination said.
        reason: String,
    },
    /// The stream has no queue of this name, or it was deleted.
    #[error("the stream has no queue {0:?}")]
    QueueNotFound(String),
    /// The receipt is no longer that of the record's last receive: its time ran out and somebody else received the record, it was acknowledged or set aside, or
    /// the stream was opened again. Nothing was changed.
    #[error("the receipt of sequence number {sequence_number} of {shard_id} is over")]
    ReceiptExpired {
        /// The record's shard.
        shard_id: ShardId,
        /// The record.
        sequence_number: SequenceNumber,
    },
    /// A checkpoint would take back what was done already. A reset can.
    #[error("a checkpoint at {requested} of {shard_id} would go back behind the one at {checkpoint}")]
    BehindCheckpoint {
        /// The shard.
        shard_id: ShardId,
        /// The sequence number that was given.
        requested: SequenceNumber,
        /// That of the checkpoint in force.
        checkpoint: SequenceNumber,
    },
    /// There is no stream at this path.
    #[error("there is no stream at {}", .0.display())]
    StreamNotFound(PathBuf),
    /// There is a stream at this path already.
    #[error("there is a stream at {} already", .0.display())]
    StreamExists(PathBuf),
    /// The path is something else than a stream.
    #[error("{} is no stream: {reason}", path.display())]
    NotAStream {
        /// The path.
        path: PathBuf,
        /// What it is instead.
        reason: String,
    },
    /// Another handle, in this process or another, has the stream open for writing; or somebody held the lock of a consumer's file for
    /// longer than [`CONSUMER_LOCK_MS`](crate::limits::CONSUMER_LOCK_MS).
    #[error("{} is locked elsewhere", .0.display())]
    Locked(PathBuf),
    /// The stream was opened read-only.
    #[error("the stream is open read-only")]
    ReadOnly,
    /// The stream was closed, or the [`BatchingProducer`](crate::BatchingProducer) that was asked.
    #[error("the stream, or its producer, is closed")]
    Closed,
    /// An option that was asked for contradicts what the stream was created with.
    #[error("the stream was created with {option} {stored}, not {requested}")]
    OptionMismatch {
        /// The option's name, as in the builder.
        option: &'static str,
        /// Its value in the manifest.
        stored: String,
        /// The value asked for.
        requested: String,
    },
    /// A file was written by a later release.
    #[error("{} has format version {found}; this release reads version {supported}", path.display())]
    UnsupportedVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version that is known.
        supported: u32,
    },
    /// Bytes on disk are not what was written. Nothing was changed or skipped because of it.
    #[error("damaged: {0}")]
    Corrupt(Box<Corruption>),
    /// A call of the operating system failed.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// What was being done.
        operation: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// The system's answer, shared by all whom it concerns.
        source: Arc<io::Error>,
    },
    /// A write or sync of this shard failed, now or earlier: it refuses appends until the stream is opened again,
    /// since the kernel may have dropped pages that it could not write.
    #[error("{shard_id} takes no more records until the stream is opened again: {source}")]
    ShardFailed {
        /// The shard.
        shard_id: ShardId,
        /// The failure, shared by all whom it concerns.
        source: Arc<io::Error>,
    },
}

/// What a caller can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Mend the argument.
    InvalidInput,
    /// Name something that exists.
    NotFound,
    /// Choose another name, or open what is there.
    AlreadyExists,
    /// Look at the new state and decide again.
    Conflict,
    /// Start again from the earliest record left, which the error names.
    Trimmed,
    /// Read on behind what is lost; the error names it.
    Lost,
    /// Wait as long as the error says.
    Throttled,
    /// See to what the program's own handler, or its destination of failed batches, ran into; then run it again.
    Handler,
    /// Wait until the other writer is gone, or open read-only.
    Locked,
    /// Open for writing.
    ReadOnly,
    /// Open the stream again.
    Closed,
    /// Use a later release.
    Unsupported,
    /// Restore the file, or see what `verify` finds.
    Corrupt,
    /// Make room on the disk.
    StorageFull,
    /// The system refused; its answer is the error's source.
    Io,
    /// Close and open the stream again: it recovers what is durable.
    Reopen,
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::InvalidArgument { .. }
            | Self::DataTooLarge { .. }
            | Self::BatchTooLarge { .. }
            | Self::NotAdjacent { .. }
            | Self::BeyondTail { .. }
            | Self::BatchMismatch { .. }
            | Self::BehindCheckpoint { .. }
            | Self::OptionMismatch { .. } => ErrorKind::InvalidInput,
            Self::ShardNotFound(_)
            | Self::ConsumerNotFound(_)
            | Self::QueueNotFound(_)
            | Self::ProducerNotFound(_)
            | Self::StreamNotFound(_)
            | Self::NotAStream { .. } => ErrorKind::NotFound,
            Self::StreamExists(_) | Self::WorkerExists(_) => ErrorKind::AlreadyExists,
            Self::SequenceNumberMismatch { .. }
            | Self::FencingTokenMismatch { .. }
            | Self::ProducerFenced { .. }
            | Self::BatchSuperseded { .. }
            | Self::LeaseLost { .. }
            | Self::ReceiptExpired { .. }
            | Self::ShardClosed(_) => ErrorKind::Conflict,
            Self::ThroughputExceeded { .. } => ErrorKind::Throttled,
            Self::BatchFailed { .. } | Self::DestinationFailed { .. } => ErrorKind::Handler,
            Self::Trimmed { .. } => ErrorKind::Trimmed,
            Self::Lost { .. } => ErrorKind::Lost,
            Self::Locked(_) => ErrorKind::Locked,
            Self::ReadOnly => ErrorKind::ReadOnly,
            Self::Closed => ErrorKind::Closed,
            Self::UnsupportedVersion { .. } => ErrorKind::Unsupported,
            Self::Corrupt(_) => ErrorKind::Corrupt,
            Self::Io { source, .. } if is_full(source) => ErrorKind::StorageFull,
            Self::Io { .. } => ErrorKind::Io,
            Self::ShardFailed { .. } => ErrorKind::Reopen,
        }
    }

    pub(crate) fn invalid(argument: &'static str, reason: impl Into<String>) -> Self {
        Self::InvalidArgument { argument, reason: reason.into() }
    }

    /// Refuses a name that a stream, a consumer, a worker, a producer or a queue cannot have.
    pub(crate) fn check_name(argument: &'static str, name: &str) -> Result<()> {
        if is_name(name) {
            return Ok(());
        }
        let reason = format!("{name:?}; it has 1 to {MAX_NAME_CHARS} characters of [a-zA-Z0-9_.-]");
        Err(Self::invalid(argument, reason))
    }

    /// For `map_err`: says which shard refused.
    pub(crate) fn of_shard(shard_id: ShardId) -> impl FnOnce(ShardError) -> Self {
        move |error| match error {
            ShardError::Fault(fault) => fault.into(),
            ShardError::NotOpen => Self::ShardClosed(shard_id),
            ShardError::Failed(source) => Self::ShardFailed { shard_id, source },
            ShardError::Mismatch { expected, actual } => {
                Self::SequenceNumberMismatch { shard_id, expected, actual }
            }
            ShardError::Fenced { token, actual } => Self::FencingTokenMismatch { shard_id, token, actual },
            ShardError::ProducerFenced { producer, epoch } => Self::ProducerFenced { producer, epoch },
            ShardError::Superseded { producer, number, last } => Self::BatchSuperseded { producer, number, last },
            ShardError::Trimmed { requested, earliest } => Self::Trimmed { shard_id, requested, earliest },
            ShardError::Lost { first, last } => Self::Lost { shard_id, first, last },
            ShardError::BeyondTail { requested, next } => Self::BeyondTail { shard_id, requested, next },
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Io { operation, path, source } => Self::Io { operation, path, source: Arc::new(source) },
            Fault::Corrupt(corruption) => Self::Corrupt(corruption),
            Fault::UnsupportedVersion { path, found } => {
                Self::UnsupportedVersion { path, found, supported: FORMAT_VERSION }
            }
        }
    }
}
