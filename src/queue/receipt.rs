//! What one who received a record shows for it.

use std::fmt;
use std::str::FromStr;

use crate::segment::Record;
use crate::types::{SequenceNumber, ShardId, Timestamp};

/// A record as a queue gave it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Received {
    /// The record.
    pub record: Record,
    /// What it is acknowledged by.
    pub receipt: Receipt,
    /// How often it was received, this time included, since it was restored last: 1 for the first. A crash can take back what was not
    /// [synced](crate::Queue::sync).
    pub receive_count: u32,
    /// When it was received first, by the wall clock.
    pub first_received: Timestamp,
}

/// The right to acknowledge one receive of one record, or to change its time. It is over when the record is received again, acknowledged or restored, and with
/// the opening of the stream.
///
/// Prints as a text that can be sent elsewhere and parsed again. It is no secret: numbers that nobody was given can be made up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Receipt {
    pub(super) shard_id: ShardId,
    pub(super) sequence_number: SequenceNumber,
    pub(super) incarnation: u64,
    pub(super) number: u64,
}

impl Receipt {
    /// The record's shard.
    pub fn shard_id(&self) -> ShardId {
        self.shard_id
    }

    /// The record.
    pub fn sequence_number(&self) -> SequenceNumber {
        self.sequence_number
    }
}

impl From<&Received> for Receipt {
    fn from(received: &Received) -> Self {
        received.receipt
    }
}

impl From<&Receipt> for Receipt {
    fn from(receipt: &Receipt) -> Self {
        *receipt
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shard_id, sequence_number, incarnation, number } = self;
        write!(f, "{:x}-{:x}-{incarnation:x}-{number:x}", shard_id.get(), sequence_number.get())
    }
}

/// A text that is no receipt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no receipt")]
pub struct ParseReceiptError(String);

impl FromStr for Receipt {
    type Err = ParseReceiptError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut fields = text.split('-').map(|field| u64::from_str_radix(field, 16).ok());
        let mut field = || fields.next().flatten();
        let parsed = (|| {
            let shard_id = ShardId::new(u32::try_from(field()?).ok()?);
            let sequence_number = SequenceNumber::new(field()?);
            Some(Self { shard_id, sequence_number, incarnation: field()?, number: field()? })
        })();
        // One text for each: no signs, zeros or fields more.
        parsed.filter(|receipt| receipt.to_string() == text).ok_or_else(|| ParseReceiptError(text.to_owned()))
    }
}
