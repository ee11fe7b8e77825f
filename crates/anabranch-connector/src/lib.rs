//! Kinesis in the process of a test: an HTTP client for the AWS SDK for Rust that answers from [`anabranch_server::Service`], without a socket, on a clock that the test moves, and with
//! [faults](Faults) from a seed.
//!
//! The program under test keeps its `aws_sdk_kinesis::Client` and does not know. This is a whole test:
//!
//! ```
//! # type Result = std::result::Result<(), Box<dyn std::error::Error>>;
//! use anabranch_connector::Connector;
//! use aws_sdk_kinesis::{Client, primitives::Blob, types::ShardIteratorType};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result {
//! let (connector, clock) = Connector::in_memory()?;
//! let kinesis = Client::new(&connector.sdk_config());
//!
//! kinesis.create_stream().stream_name("clicks").shard_count(1).send().await?;
//! let put = kinesis.put_record().stream_name("clicks").partition_key("user-42");
//! let put = put.data(Blob::new("GET /cart")).send().await?;
//!
//! let iterator = kinesis.get_shard_iterator().stream_name("clicks").shard_id(put.shard_id());
//! let iterator = iterator.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await?;
//! let get = kinesis.get_records().shard_iterator(iterator.shard_iterator().unwrap_or_default());
//! let records = get.clone().send().await?.records;
//! assert_eq!(records[0].data().as_ref(), b"GET /cart");
//! assert_eq!(records[0].sequence_number(), put.sequence_number());
//!
//! clock.advance(std::time::Duration::from_secs(301)); // nobody waits five minutes
//! let error = get.send().await.unwrap_err().into_service_error();
//! assert!(error.is_expired_iterator_exception());
//! # Ok(()) }
//! ```
//!
//! # Threads
//!
//! A call of the service may wait for a disk. Inside a Tokio runtime it runs on a thread for calls that block ([`tokio::task::spawn_blocking`]), so that no task is kept waiting, and goes on to
//! its end even if the caller's future is dropped, as a request does that is on its way. Outside of one it runs where it is called, and `SubscribeToShard`, whose events come later, is refused
//! with an error. But a client of the SDK has timers, which are Tokio's unless its configuration has another `sleep_impl`: one without a runtime has retries, timeouts, the protection against
//! stalled streams and the cache of identities switched off.
//!
//! # What is different from a socket
//!
//! Timeouts of connections have nothing to apply to. Those of reads hold, by Tokio's timer, and so only inside of a runtime; those of operations and attempts are the SDK's own, and hold. What the service answers, and what it does otherwise than Amazon's, is the
//! matter of [`anabranch_server`].

mod connector;
mod faults;
mod partial;

// What a connector is made of, so that a test needs no other crate.
pub use anabranch::{ManualClock, SimulatedDisk};
pub use anabranch_server::{Service, ServiceOptions};
pub use connector::Connector;
pub use faults::{Fault, Faults, Injection};

/// The README's example runs with those of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
