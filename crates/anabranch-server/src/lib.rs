//! The wire protocol of Amazon Kinesis Data Streams over HTTP, in front of [`anabranch`] streams: a local Kinesis that keeps its data.
//!
//! [`Service`] is the protocol without a socket; [`Server`] puts it behind a port, with HTTP/1.1 and HTTP/2 (prior knowledge, or ALPN with a [`TlsIdentity`]) on it. The command is
//! `anabranch serve`.
//!
//! # What there is
//!
//! All 40 operations of streams, and the 12 of queues, in JSON 1.1 and CBOR 1.1: writing, reading, enhanced fan-out as an event stream, listing and describing, splits and merges, retention, tags, consumers, monitoring,
//! encryption (kept and reported; nothing is encrypted), modes, policies (kept; nobody is refused), record sizes, record distribution, account settings (of each region). An operation that is not there is
//! answered as the service answers an unknown one: the 5 of channels, since nothing is delivered from here to anywhere.
//!
//! Queues are [the library's](anabranch::Queue): each record to one at a time, until it is acknowledged, with dead letters and calls that wait. What was acknowledged or restored is as durable as the
//! stream's records: with [`Durability::Synced`](anabranch::Durability::Synced) when it is answered, else in the background. Receipt handles are good until the stream is opened again; one that is
//! over fails its entry with `ResourceNotFoundException`, one that this queue never gave for such an operation with `InvalidArgumentException`.
//!
//! Sequence numbers have the service's 56 digits, shards its hash ranges (MD5), iterators its five types and 300 seconds (or [what they are told](ServiceOptions::iterator_lifetime)), and parents stay readable after a split or a merge, as records were put.
//!
//! How it is, is told by [`Service::observe`], or at [`ServerOptions::health`]: health, metrics for Prometheus, and a page for a browser.
//!
//! # What is different
//!
//! Everything takes effect before it is answered: a stream is `ACTIVE` when `CreateStream` answers, and a reshard is done, unless [`ServiceOptions::transition_delay`] lets them look
//! otherwise for a while; new shards are seen at once then too. Streams on demand are split and merged by [the library's rule](anabranch::docs::capacity), which cuts where keys balance and gives a hot key
//! a shard of its own; the service splits evenly. A stream that is made in the second in which one was deleted is said to be made in a later one, so that no sequence number comes back; `AT_TIMESTAMP`
//! of that second is refused until it has come. With the record distribution `AUTO` the service's choice is by turns.
//! What queues give is not counted against any rate.
//! Throughput is not limited unless [`ServiceOptions::enforce_limits`] asks for it, nor are control operations: by account and by stream, by the second and by the day. What was done in a day is not
//! kept: a restart begins a new one.
//!
//! [`Profile::Y2020`] is the service as it was then, for those who compare whole answers. It still asks for `StreamName` with a text of now where that is missing.
//!
//! # Accounts and regions
//!
//! The region is that of the signature's scope; the account is the access key where that has twelve digits, else [`ServiceOptions::account`]. Each has streams of its own.
//!
//! # What is safe
//!
//! An acknowledged put survives what its [durability](anabranch::Durability) says, as in the library; so does every change of streams and settings, at once. After a failed sync a shard answers
//! `InternalFailure` until the server is started again.

mod arn;
mod body;
mod catalog;
mod distribution;
mod errors;
mod event_stream;
#[doc(hidden)]
pub mod fuzzing;
mod http_protocol;
pub mod limits;
mod observe;
mod operations;
mod profile;
mod rates;
mod room;
mod sequence;
mod server;
mod service;
mod signature;
mod socket;
mod subscription;
mod tls;
mod token;
mod validate;
mod waiting;
mod wire;

use std::io;
use std::path::{Path, PathBuf};

pub use body::Body;
pub use profile::Profile;
pub use server::{Server, ServerOptions};
pub use service::{Service, ServiceOptions};
pub use signature::Credentials;
pub use tls::{TlsError, TlsIdentity};

/// Why a service, or the streams of an account in a region, cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// An option is out of its range.
    #[error("invalid {0}")]
    Option(String),
    /// The library refused or failed.
    #[error(transparent)]
    Stream(#[from] anabranch::Error),
    /// The settings of a stream are not what was written, or of a later release. Nothing was changed.
    #[error("damaged: {}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Settings would be larger than [`MAX_SETTINGS_BYTES`](limits::MAX_SETTINGS_BYTES), and were not written: they would not be read again.
    #[error("too large: {}: {bytes} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// How large they would be.
        bytes: u64,
    },
    /// A call of the operating system failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl OpenError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.to_path_buf(), source }
    }
}

/// Why a stream was not made: the text that `CreateStream` would answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CreateError(String);
