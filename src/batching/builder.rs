//! What a user says of a producer to start.

use std::time::Duration;

use super::BatchingProducer;
use super::queue::Bounds;
use crate::error::{Error, Result};
use crate::limits::{
    DEFAULT_IN_FLIGHT_BYTES, DEFAULT_IN_FLIGHT_RECORDS, DEFAULT_LINGER_MS, DEFAULT_PRODUCER_BATCH_BYTES,
    DEFAULT_PRODUCER_BATCH_RECORDS, MAX_LINGER_MS,
};
use crate::stream::Stream;
use crate::types::Durability;

/// Describes a [`BatchingProducer`]: made by [`Stream::batching_producer`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until it starts a producer"]
pub struct BatchingProducerBuilder {
    stream: Stream,
    bounds: Bounds,
    durability: Durability,
}

impl BatchingProducerBuilder {
    pub(super) fn new(stream: Stream) -> Self {
        let limits = stream.limits();
        let bounds = Bounds {
            linger: Duration::from_millis(DEFAULT_LINGER_MS),
            batch_records: DEFAULT_PRODUCER_BATCH_RECORDS.min(limits.max_batch_records as usize),
            batch_bytes: DEFAULT_PRODUCER_BATCH_BYTES.min(limits.max_batch_bytes as usize),
            in_flight_records: DEFAULT_IN_FLIGHT_RECORDS,
            in_flight_bytes: DEFAULT_IN_FLIGHT_BYTES,
        };
        Self { stream, bounds, durability: Durability::Buffered }
    }

    /// How long a record waits for others at most before it is sent: 0 to 24 h; 1 ms by default. It is sent sooner when its batch is full, when
    /// somebody flushes, and when a put waits for room. With 0 a batch is what was put while the one before was sent. Measured in
    /// real time, whatever the stream's clock.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.bounds.linger = linger;
        self
    }

    /// How many records are sent together at most: 1 to the stream's [`max_batch_records`](crate::Limits::max_batch_records); 500 by default.
    pub fn batch_records(mut self, most: usize) -> Self {
        self.bounds.batch_records = most;
        self
    }

    /// How many bytes of keys and data are sent together at most: 1 to the stream's [`max_batch_bytes`](crate::Limits::max_batch_bytes); 1 MiB by
    /// default. A longer record is sent by itself.
    pub fn batch_bytes(mut self, most: usize) -> Self {
        self.bounds.batch_bytes = most;
        self
    }

    /// How many records may be put and not resolved before puts wait: at least 1; 10,000 by default.
    pub fn in_flight_records(mut self, most: usize) -> Self {
        self.bounds.in_flight_records = most;
        self
    }

    /// How many bytes of keys and data may be put and not resolved before puts wait: at least 1; 32 MiB by default. A record is taken while
    /// less than this is in flight, so that there is never more than this and one record.
    pub fn in_flight_bytes(mut self, most: usize) -> Self {
        self.bounds.in_flight_bytes = most;
        self
    }

    /// The durability at which records are acknowledged, where it is stronger than the stream's.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Starts the producer and its thread.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for an option out of its range; [`Error::ReadOnly`], [`Error::Closed`]; [`Error::Io`] when no thread could be started.
    pub fn start(self) -> Result<BatchingProducer> {
        self.check()?;
        BatchingProducer::start(self.stream, self.bounds, self.durability)
    }

    fn check(&self) -> Result<()> {
        let (bounds, limits) = (self.bounds, self.stream.limits());
        if bounds.linger > Duration::from_millis(MAX_LINGER_MS) {
            return Err(Error::invalid("linger", format!("{:?} is above 24 h", bounds.linger)));
        }
        within("batch_records", bounds.batch_records, limits.max_batch_records as usize)?;
        within("batch_bytes", bounds.batch_bytes, limits.max_batch_bytes as usize)?;
        within("in_flight_records", bounds.in_flight_records, usize::MAX)?;
        within("in_flight_bytes", bounds.in_flight_bytes, usize::MAX)
    }
}

fn within(argument: &'static str, value: usize, most: usize) -> Result<()> {
    if (1..=most).contains(&value) {
        return Ok(());
    }
    Err(Error::invalid(argument, format!("{value} is not within 1..={most}")))
}
