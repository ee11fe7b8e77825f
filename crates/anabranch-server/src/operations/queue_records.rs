//! What is done with records that a queue gave: acknowledging them, changing their visibility, restoring dead letters. Each entry of a call has an outcome of its own.

use std::borrow::Cow;
use std::time::Duration;

use anabranch::{Durability, Error, Queue, Receipt, Timestamp};
use serde::Serialize;

use super::receive::Of;
use super::target::QueueTarget;
use super::{Call, Reply};
use crate::catalog::Entry;
use crate::errors::Fault;
use crate::limits::{MAX_QUEUE_BATCH, MAX_RECEIPT_CHARS, MAX_VISIBILITY_SECONDS};
use crate::token::{self, Purpose};
use crate::validate::{Validator, listed};
use crate::wire::{Fields, List};

/// What a receipt handle says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Handle {
    pub(super) queue: i64,
    pub(super) receipt: Receipt,
}

impl Handle {
    pub(super) fn seal(&self, of: Of, now: Timestamp) -> String {
        let mut payload = self.queue.to_le_bytes().to_vec();
        payload.extend_from_slice(self.receipt.to_string().as_bytes());
        token::seal(purpose(of), now, &payload)
    }

    /// Nothing if it is none, or of other records than these.
    fn open(of: Of, text: &str) -> Option<Self> {
        let payload = token::open(purpose(of), text)?.payload;
        let (queue, receipt) = payload.split_first_chunk()?;
        let receipt = std::str::from_utf8(receipt).ok()?.parse().ok()?;
        Some(Self { queue: i64::from_le_bytes(*queue), receipt })
    }
}

fn purpose(of: Of) -> Purpose {
    match of {
        Of::Records => Purpose::Receipt,
        Of::DeadLetters => Purpose::DeadLetter,
    }
}

/// What a call does with each record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Acknowledge,
    Restore,
    /// It has a visibility in each entry.
    ChangeVisibility,
}

pub(super) fn acknowledge(call: &Call<'_>, fields: Fields<'_>) -> Result<Reply, Fault> {
    act(call, fields, Of::Records, Action::Acknowledge)
}

pub(super) fn update_visibility(call: &Call<'_>, fields: Fields<'_>) -> Result<Reply, Fault> {
    act(call, fields, Of::Records, Action::ChangeVisibility)
}

pub(super) fn acknowledge_dead_letters(call: &Call<'_>, fields: Fields<'_>) -> Result<Reply, Fault> {
    act(call, fields, Of::DeadLetters, Action::Acknowledge)
}

pub(super) fn restore_dead_letters(call: &Call<'_>, fields: Fields<'_>) -> Result<Reply, Fault> {
    act(call, fields, Of::DeadLetters, Action::Restore)
}

pub(super) fn update_dead_letter_visibility(call: &Call<'_>, fields: Fields<'_>) -> Result<Reply, Fault> {
    act(call, fields, Of::DeadLetters, Action::ChangeVisibility)
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct OutcomesAnswer<'a> {
    successful: Vec<SuccessShape<'a>>,
    failed: Vec<FailureShape<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct SuccessShape<'a> {
    receipt_handle: &'a str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct FailureShape<'a> {
    receipt_handle: &'a str,
    error_code: &'static str,
    error_message: String,
}

fn act(call: &Call<'_>, mut fields: Fields<'_>, of: Of, action: Action) -> Result<Reply, Fault> {
    let target = QueueTarget::read(&mut fields)?;
    let entries = fields.list("Entries")?.map(List::structures).transpose()?;
    let mut check = Validator::default();
    target.check(&mut check);
    check.required("entries", entries.as_ref());
    if let Some(entries) = entries.as_ref().filter(|entries| !(1..=MAX_QUEUE_BATCH).contains(&entries.len())) {
        let print = vec!["com.amazonaws.kinesis.v20131202.RequestEntry"; entries.len()];
        check.size("entries", &listed(print), entries.len(), 1, MAX_QUEUE_BATCH);
    }
    let entries = entries.unwrap_or_default().into_iter().enumerate();
    let entries = entries.map(|(index, fields)| RequestEntry::read(fields, index, action, &mut check));
    let entries = entries.collect::<Result<Vec<_>, _>>()?;
    check.finish()?;

    let (stream, queue) = target.find_serving(call)?;
    let library = stream.open_queue(&queue)?;
    let (mut successful, mut failed) = (Vec::new(), Vec::new());
    for entry in &entries {
        let receipt_handle = entry.receipt_handle.as_ref();
        match entry.act(&stream, &library, queue.id, of, action)? {
            Ok(()) => successful.push(SuccessShape { receipt_handle }),
            Err((error_code, error_message)) => {
                failed.push(FailureShape { receipt_handle, error_code, error_message });
            }
        }
    }
    if !successful.is_empty() && action != Action::ChangeVisibility {
        keep(&library).map_err(|error| stream.fault(error))?;
    }
    call.answer(&OutcomesAnswer { successful, failed })
}

/// What was done is as durable as the stream's records: those who do something at the same time share the writing.
fn keep(queue: &Queue) -> anabranch::Result<()> {
    match queue.stream().durability() {
        Durability::Synced => queue.sync(),
        _ => Ok(()), // in the background
    }
}

#[derive(Debug)]
struct RequestEntry<'a> {
    receipt_handle: Cow<'a, str>,
    visibility: Duration,
}

/// The code and the text of an entry that failed.
type Failure = (&'static str, String);

impl<'a> RequestEntry<'a> {
    fn read(mut fields: Fields<'a>, index: usize, action: Action, check: &mut Validator) -> Result<Self, Fault> {
        let path = |member: &str| format!("entries.{}.member.{member}", index + 1);
        let receipt_handle = fields.text("ReceiptHandle")?;
        check.required(&path("receiptHandle"), receipt_handle.as_ref());
        check.length(&path("receiptHandle"), receipt_handle.as_deref(), 1, MAX_RECEIPT_CHARS);
        let mut visibility = None;
        if action == Action::ChangeVisibility {
            visibility = fields.integer("VisibilityTimeoutSeconds")?;
            check.required(&path("visibilityTimeoutSeconds"), visibility.as_ref());
            check.range(&path("visibilityTimeoutSeconds"), visibility, 0, MAX_VISIBILITY_SECONDS.into());
        }
        let visibility = visibility.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or_default();
        Ok(Self {
            receipt_handle: receipt_handle.unwrap_or_default(),
            visibility: Duration::from_secs(visibility),
        })
    }

    /// What becomes of the entry; or why there is no answer at all.
    fn act(
        &self,
        stream: &Entry,
        library: &Queue,
        queue: i64,
        of: Of,
        action: Action,
    ) -> Result<Result<(), Failure>, Fault> {
        let Some(handle) = Handle::open(of, &self.receipt_handle).filter(|handle| handle.queue == queue) else {
            let text = "The receipt handle was not given by this queue for this operation.";
            return Ok(Err(("InvalidArgumentException", text.to_owned())));
        };
        let outcome = match action {
            Action::Acknowledge => library.acknowledge(handle.receipt),
            Action::Restore => library.restore_received(handle.receipt),
            Action::ChangeVisibility => library.change_visibility(handle.receipt, self.visibility),
        };
        match outcome {
            Ok(()) => Ok(Ok(())),
            Err(Error::ReceiptExpired { .. }) => {
                let text = "No record is held by this receipt handle any more.";
                Ok(Err(("ResourceNotFoundException", text.to_owned())))
            }
            Err(Error::QueueNotFound(_)) => Err(stream.no_queue(queue)),
            Err(Error::Closed) => Err(stream.fault(Error::Closed)),
            Err(error) => Ok(Err(("InternalFailureException", error.to_string()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_come_back_and_are_not_too_long() {
        let longest = "ffffffff-ffffffffffffffff-ffffffffffffffff-ffffffffffffffff";
        let handle = Handle { queue: i64::MAX, receipt: longest.parse().unwrap() };
        let text = handle.seal(Of::Records, Timestamp::from_millis(i64::MAX));
        assert!(text.len() <= MAX_RECEIPT_CHARS);
        assert_eq!(Handle::open(Of::Records, &text), Some(handle));
        assert_eq!(Handle::open(Of::DeadLetters, &text), None);
        for payload in [&b""[..], b"12345678", b"12345678x-1-1-1", b"1234567812345678\xff"] {
            let text = token::seal(Purpose::Receipt, Timestamp::from_millis(0), payload);
            assert_eq!(Handle::open(Of::Records, &text), None, "{payload:?}");
        }
    }
}
