//! How an event source works.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::limits::{
    DEFAULT_EVENT_BACKOFF_MS, DEFAULT_EVENT_BATCH_BYTES, DEFAULT_EVENT_BATCH_RECORDS, DEFAULT_EVENT_RECORD_AGE_MS,
    DEFAULT_EVENT_RETRIES, DEFAULT_EVENT_THREADS, DEFAULT_LEASE_MS, MAX_BATCH_BYTES, MAX_EVENT_BACKOFF_MS,
    MAX_EVENT_BATCH_RECORDS, MAX_EVENT_BATCH_WINDOW_MS, MAX_EVENT_LANES, MAX_EVENT_THREADS, MAX_LEASE_MS,
    MAX_TUMBLING_WINDOW_MS,
};

/// How an [`EventSource`](crate::EventSource) works. Nothing of it is kept on disk: a later run may have other options.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventSourceOptions {
    /// Most records of a batch: 1 to 10,000; 100 by default.
    pub batch_records: usize,
    /// Most bytes of a batch, keys and data: 1 to 512 MiB; 6 MiB by default. A record that is larger is a batch of its own.
    pub batch_bytes: usize,
    /// How long a batch is gathered that is not full: up to 300 s; by default 0, for not at all. From when its first record was read.
    pub batch_window: Duration,
    /// How many batches of one shard are handled at a time: 1 to 10; 1 by default. A partition key always goes to the same lane, so its records stay in
    /// order.
    pub lanes: u32,
    /// How often a failed batch is tried again before it is given up; 10 by default; none for ever. Cutting a batch is no retry.
    pub retries: Option<u32>,
    /// How old the records of a failed batch may be to be tried again, from their arrival; 24 h by default; none for any age. A record is handled once however old it is,
    /// unlike in Lambda: a source that was stopped for a while skips nothing.
    pub max_record_age: Option<Duration>,
    /// Whether a failed batch is halved, and halved again, until what fails stands alone: by default it is. Good records are handled more than once for it, which
    /// at-least-once allows in any case; without it they are given up together with a bad one.
    pub bisect_on_error: bool,
    /// How long the source waits before the first retry of a batch; each further one waits twice as long, up to 60 s. 100 ms by default; up to 60 s.
    pub backoff: Duration,
    /// The length of tumbling windows: whole milliseconds, 1 s to 900 s; none by default.
    pub tumbling_window: Option<Duration>,
    /// In how many threads [`run`](crate::EventSource::run) calls the handler at most: 1 to 1,024; 16 by default. They are started as they are needed, so that a
    /// source with one shard and one lane has one.
    pub max_threads: usize,
    /// How long the leases of its shards last without a renewal; see [`WorkerOptions::lease_time`](crate::WorkerOptions::lease_time). A handler may
    /// take longer: [`run`](crate::EventSource::run) renews beside it.
    pub lease_time: Duration,
}

impl Default for EventSourceOptions {
    fn default() -> Self {
        Self {
            batch_records: DEFAULT_EVENT_BATCH_RECORDS,
            batch_bytes: DEFAULT_EVENT_BATCH_BYTES,
            batch_window: Duration::ZERO,
            lanes: 1,
            retries: Some(DEFAULT_EVENT_RETRIES),
            max_record_age: Some(Duration::from_millis(DEFAULT_EVENT_RECORD_AGE_MS)),
            bisect_on_error: true,
            backoff: Duration::from_millis(DEFAULT_EVENT_BACKOFF_MS),
            tumbling_window: None,
            max_threads: DEFAULT_EVENT_THREADS,
            lease_time: Duration::from_millis(DEFAULT_LEASE_MS),
        }
    }
}

impl EventSourceOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`batch_records`](Self::batch_records).
    #[must_use]
    pub fn batch_records(mut self, records: usize) -> Self {
        self.batch_records = records;
        self
    }

    /// Sets [`batch_bytes`](Self::batch_bytes).
    #[must_use]
    pub fn batch_bytes(mut self, bytes: usize) -> Self {
        self.batch_bytes = bytes;
        self
    }

    /// Sets [`batch_window`](Self::batch_window).
    #[must_use]
    pub fn batch_window(mut self, window: Duration) -> Self {
        self.batch_window = window;
        self
    }

    /// Sets [`lanes`](Self::lanes).
    #[must_use]
    pub fn lanes(mut self, lanes: u32) -> Self {
        self.lanes = lanes;
        self
    }

    /// Sets [`retries`](Self::retries).
    #[must_use]
    pub fn retries(mut self, retries: impl Into<Option<u32>>) -> Self {
        self.retries = retries.into();
        self
    }

    /// Sets [`max_record_age`](Self::max_record_age).
    #[must_use]
    pub fn max_record_age(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.max_record_age = age.into();
        self
    }

    /// Sets [`bisect_on_error`](Self::bisect_on_error).
    #[must_use]
    pub fn bisect_on_error(mut self, yes: bool) -> Self {
        self.bisect_on_error = yes;
        self
    }

    /// Sets [`backoff`](Self::backoff).
    #[must_use]
    pub fn backoff(mut self, backoff: Duration) -> Self {
        self.backoff = backoff;
        self
    }

    /// Sets [`tumbling_window`](Self::tumbling_window).
    #[must_use]
    pub fn tumbling_window(mut self, length: impl Into<Option<Duration>>) -> Self {
        self.tumbling_window = length.into();
        self
    }

    /// Sets [`max_threads`](Self::max_threads).
    #[must_use]
    pub fn max_threads(mut self, threads: usize) -> Self {
        self.max_threads = threads;
        self
    }

    /// Sets [`lease_time`](Self::lease_time).
    #[must_use]
    pub fn lease_time(mut self, time: Duration) -> Self {
        self.lease_time = time;
        self
    }

    /// Refuses what is out of its range. The lease time is checked where the worker is made.
    pub(super) fn check(&self) -> Result<()> {
        let count = |option, value: usize, most: usize| {
            let reason = || format!("{value}; it is 1 to {most}");
            if (1..=most).contains(&value) { Ok(()) } else { Err(Error::invalid(option, reason())) }
        };
        let time = |option, value: Duration, least_ms: u64, most_ms: u64| {
            let reason = || format!("{value:?}; it is {least_ms} ms to {most_ms} ms");
            let range = Duration::from_millis(least_ms)..=Duration::from_millis(most_ms);
            if range.contains(&value) { Ok(()) } else { Err(Error::invalid(option, reason())) }
        };
        count("batch_records", self.batch_records, MAX_EVENT_BATCH_RECORDS)?;
        count("batch_bytes", self.batch_bytes, MAX_BATCH_BYTES as usize)?;
        count("lanes", self.lanes as usize, MAX_EVENT_LANES as usize)?;
        count("max_threads", self.max_threads, MAX_EVENT_THREADS)?;
        time("batch_window", self.batch_window, 0, MAX_EVENT_BATCH_WINDOW_MS)?;
        time("backoff", self.backoff, 0, MAX_EVENT_BACKOFF_MS)?;
        time("lease time", self.lease_time, 1, MAX_LEASE_MS)?;
        let Some(length) = self.tumbling_window else { return Ok(()) };
        if !length.subsec_nanos().is_multiple_of(1_000_000) {
            return Err(Error::invalid("tumbling_window", format!("{length:?}; it is whole milliseconds")));
        }
        time("tumbling_window", length, 1_000, MAX_TUMBLING_WINDOW_MS)
    }

    /// The length of tumbling windows in milliseconds.
    pub(super) fn window_ms(&self) -> Option<i64> {
        self.tumbling_window.and_then(|length| i64::try_from(length.as_millis()).ok())
    }

    /// How long to wait before the nth retry, from 1.
    pub(super) fn backoff_before(&self, retry: u32) -> Duration {
        let factor = 1_u32.checked_shl(retry.saturating_sub(1)).unwrap_or(u32::MAX);
        self.backoff.saturating_mul(factor).min(Duration::from_millis(MAX_EVENT_BACKOFF_MS))
    }
}
