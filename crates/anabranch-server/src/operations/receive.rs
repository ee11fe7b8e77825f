//! `ReceiveQueueRecords` and `ReceiveDeadLetterQueueRecords`, which wait for records.

use std::sync::Arc;
use std::time::Duration;

use anabranch::{Error, Queue, Receipt, Received, Timestamp};
use serde::Serialize;
use tokio::runtime::Handle as Runtime;

use super::queue_records::Handle;
use super::read::likely_bytes;
use super::target::QueueTarget;
use super::{Call, Reply};
use crate::catalog::Entry;
use crate::distribution::given_key;
use crate::errors::Fault;
use crate::limits::{DEFAULT_WAIT_SECONDS, MAX_QUEUE_BATCH, MAX_VISIBILITY_SECONDS, MAX_WAIT_SECONDS};
use crate::sequence::{Sequence, second};
use crate::validate::Validator;
use crate::wire::{Blob, Fields, Format, Time};

/// Which of a queue's records a call is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Records,
    DeadLetters,
}

/// A call that receives records, and can look for them again.
#[derive(Debug)]
pub(crate) struct Receive {
    entry: Arc<Entry>,
    queue: i64,
    of: Of,
    most: usize,
    visibility: Duration,
    format: Format,
    /// How long it waits for a first record.
    pub(crate) wait: Duration,
}

pub(super) fn receive_records(call: &Call<'_>, fields: Fields<'_>) -> Result<Reply, Fault> {
    receive(call, fields, Of::Records)
}

pub(super) fn receive_dead_letters(call: &Call<'_>, fields: Fields<'_>) -> Result<Reply, Fault> {
    receive(call, fields, Of::DeadLetters)
}

fn receive(call: &Call<'_>, mut fields: Fields<'_>, of: Of) -> Result<Reply, Fault> {
    let target = QueueTarget::read(&mut fields)?;
    let limit = fields.integer("Limit")?;
    let wait = fields.integer("WaitTimeSeconds")?;
    let visibility = fields.integer("VisibilityTimeoutSeconds")?;
    let mut check = Validator::default();
    target.check(&mut check);
    check.range("limit", limit, 1, i64::try_from(MAX_QUEUE_BATCH).unwrap_or(i64::MAX));
    check.range("waitTimeSeconds", wait, 1, MAX_WAIT_SECONDS.into());
    check.range("visibilityTimeoutSeconds", visibility, 0, MAX_VISIBILITY_SECONDS.into());
    check.finish()?;

    let (entry, queue) = target.find_serving(call)?;
    let library = entry.open_queue(&queue)?;
    let seconds = |given: Option<i64>, otherwise: u32| {
        Duration::from_secs(given.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(otherwise.into()))
    };
    let receive = Receive {
        entry,
        queue: queue.id,
        of,
        most: limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(MAX_QUEUE_BATCH),
        visibility: seconds(visibility, queue.visibility_seconds),
        format: call.format,
        wait: seconds(wait, DEFAULT_WAIT_SECONDS),
    };
    match receive.take(&library, call.now)? {
        Some(answer) => Ok(answer),
        None => Ok(Reply::Waiting(Box::new(receive))),
    }
}

impl Receive {
    /// Whether a look would find something, an end included: told from memory, so that those who wait cost no thread.
    pub(crate) fn has_news(&self) -> bool {
        let has_news = |queue: Queue| match self.of {
            Of::Records => queue.has_news(),
            Of::DeadLetters => queue.has_set_aside(),
        };
        self.entry.is_gone() || self.entry.opened_queue(self.queue).is_none_or(has_news)
    }

    /// Looks again: an answer, if there are records by now. It opens nothing that was closed meanwhile.
    pub(crate) fn look(&self, now: Timestamp) -> Result<Option<Reply>, Fault> {
        let gone = || if self.entry.is_gone() { self.entry.not_found() } else { self.entry.no_queue(self.queue) };
        let queue = self.entry.opened_queue(self.queue).ok_or_else(gone)?;
        self.take(&queue, now)
    }

    /// What is answered when the wait was for nothing.
    pub(crate) fn nothing(&self) -> Vec<u8> {
        self.format.write(&RecordsAnswer { queue_records: Vec::new() }).unwrap_or_default()
    }

    fn take(&self, queue: &Queue, now: Timestamp) -> Result<Option<Reply>, Fault> {
        let receive = || match self.of {
            Of::Records => queue.receive_for(self.most, Duration::ZERO, self.visibility),
            Of::DeadLetters => queue.receive_set_aside(self.most, self.visibility),
        };
        let received = loop {
            match receive() {
                Err(Error::Lost { .. }) => {} // said once; it goes on behind them
                other => break other.map_err(|error| self.fault(error))?,
            }
        };
        if received.is_empty() {
            return Ok(None);
        }
        let taken = Taken { queue: queue.clone(), receipts: received.iter().map(Receipt::from).collect() };
        self.entry.traffic.went_out(received.iter().map(|received| &received.record));
        let bytes = likely_bytes(received.iter().map(|received| &received.record));
        let shape = |received| RecordShape::new(self, received, now);
        let queue_records = received.iter().map(shape).collect::<Result<_, _>>()?;
        let document = self.format.write_sized(&RecordsAnswer { queue_records }, bytes)?;
        Ok(Some(Reply::Records(document, Box::new(taken))))
    }

    fn fault(&self, error: Error) -> Fault {
        match error {
            Error::QueueNotFound(_) => self.entry.no_queue(self.queue),
            other => self.entry.fault(other),
        }
    }
}

/// Records that were received for an answer. Where that is not given, as when its client went away meanwhile, others can receive them at once.
#[derive(Debug)]
pub(crate) struct Taken {
    queue: Queue,
    receipts: Vec<Receipt>,
}

impl Taken {
    /// The answer is on its way.
    pub(crate) fn give(mut self) {
        self.receipts.clear();
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let (queue, receipts) = (self.queue.clone(), std::mem::take(&mut self.receipts));
        if receipts.is_empty() {
            return;
        }
        // What fails is visible again when its time is over.
        let give_back = move || receipts.into_iter().for_each(|receipt| drop(queue.give_back(receipt)));
        match Runtime::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(give_back)), // it may wait for the disk
            Err(_) => give_back(),
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct RecordsAnswer<'a> {
    queue_records: Vec<RecordShape<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct RecordShape<'a> {
    receipt_handle: String,
    /// The record's number in the stream.
    record_id: Sequence,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition_key: Option<&'a str>,
    data: Blob<'a>,
    approximate_arrival_timestamp: Time,
    first_receive_timestamp: Time,
    receive_count: u32,
}

impl<'a> RecordShape<'a> {
    fn new(receive: &Receive, received: &'a Received, now: Timestamp) -> Result<Self, Fault> {
        let record = &received.record;
        let numbers = receive.entry.numbers(record.shard_id())?;
        Ok(Self {
            receipt_handle: Handle { queue: receive.queue, receipt: received.receipt }.seal(receive.of, now),
            record_id: numbers.record(record.sequence_number().get(), second(record.arrival())),
            partition_key: given_key(record),
            data: Blob(record.data()),
            approximate_arrival_timestamp: Time(record.arrival()),
            first_receive_timestamp: Time(received.first_received),
            receive_count: received.receive_count,
        })
    }
}
