//! Writing many records of which each has an outcome of its own.

use std::sync::Arc;

use super::{Stream, StreamInner};
use crate::error::{Error, Result};
use crate::shard::Condition;
use crate::stream::{PutEntry, PutReceipt};
use crate::types::Durability;

impl Stream {
    /// Puts many records with an outcome for each, as `PutRecords` does: a shard that fails, or is over its [quotas](crate::Quotas), takes no more
    /// than its own records along. Else as [`put_batch_with`](Self::put_batch_with).
    ///
    /// Behind a record that is over a quota, its shard takes no more of this call: who puts those that were refused again, in their order, has the records of each key
    /// in order.
    ///
    /// ```
    /// # fn main() -> anabranch::Result<()> {
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let stream = anabranch::Stream::builder().open(directory.path().join("clicks"))?;
    /// use anabranch::{Durability, PutEntry};
    ///
    /// let entries = [PutEntry::new("user-1", b"GET /"), PutEntry::new("user-2", b"GET /cart")];
    /// for (entry, outcome) in entries.iter().zip(stream.put_each(&entries, Durability::Buffered)?) {
    ///     match outcome {
    ///         Ok(receipt) => println!("{} is {}", entry.partition_key, receipt.sequence_number),
    ///         Err(error) => println!("{} was refused: {error}", entry.partition_key),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Where any record is invalid, all are refused: [`Error::InvalidArgument`], [`Error::DataTooLarge`], [`Error::BatchTooLarge`]. [`Error::ReadOnly`],
    /// [`Error::Closed`]. The outcome of a record is what [`put`](Self::put) would give.
    pub fn put_each(&self, entries: &[PutEntry<'_>], durability: Durability) -> Result<Vec<Result<PutReceipt>>> {
        self.inner.writable()?;
        self.inner.check_batch(entries)?;
        Ok(self.put_each_checked(entries, durability))
    }

    /// As [`put_each`](Self::put_each), for entries that were [checked](Self::check_entry), and are no more than a batch may have.
    pub(crate) fn put_each_checked(
        &self,
        entries: &[PutEntry<'_>],
        durability: Durability,
    ) -> Vec<Result<PutReceipt>> {
        self.inner.put_each(entries, durability)
    }

    /// Whether the stream takes records at all.
    pub(crate) fn check_writable(&self) -> Result<()> {
        self.inner.writable()
    }

    /// Whether a put of this record would not be refused for what it is, or for what the stream is.
    pub(crate) fn check_entry(&self, entry: &PutEntry<'_>) -> Result<()> {
        self.inner.writable()?;
        self.inner.check(entry)
    }
}

impl StreamInner {
    fn put_each(&self, entries: &[PutEntry<'_>], durability: Durability) -> Vec<Result<PutReceipt>> {
        let durability = self.effective(durability);
        let mut receipts = vec![None; entries.len()];
        let mut appended = Vec::new();
        if let Err(error) = self.writable() {
            return vec![Err(error); entries.len()];
        }
        let (admitted, mut refused) = self.admit_each(entries);
        refused.extend(self.distribute(entries, admitted, |shard, indices| {
            self.writable()?;
            let how = (durability, Condition::default());
            let next = self.append_group(shard, entries, indices, how, &mut receipts)?;
            appended.extend(next.map(|next| (Arc::clone(shard), next, indices.to_vec())));
            Ok(next.is_some())
        }));
        if durability == Durability::Synced {
            for (shard, next, indices) in appended {
                if let Err(error) = shard.commit(next) {
                    refused.push((indices, Error::of_shard(shard.id())(error)));
                }
            }
        }
        let mut errors = vec![None; entries.len()];
        for (indices, error) in refused {
            for index in indices {
                errors[index] = Some(error.clone());
            }
        }
        let outcome = |(receipt, error): (Option<PutReceipt>, Option<Error>)| match (receipt, error) {
            (Some(receipt), None) => Ok(receipt),
            (_, error) => Err(error.unwrap_or(Error::Closed)),
        };
        receipts.into_iter().zip(errors).map(outcome).collect()
    }
}
