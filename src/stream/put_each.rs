//! Writing many records of which each has an outcome of its own.

use std::sync::Arc;

use super::{Stream, StreamInner};
use crate::error::{Error, Result};
use crate::shard::Condition;
use crate::stream::{PutEntry, PutReceipt};
use crate::types::Durability;

impl Stream {
    /// As [`put_batch_with`](Self::put_batch_with), with an outcome for each entry: a shard that fails takes no more than its own entries along.
    /// The entries were [checked](Self::check_entry), and are no more than a batch may have.
    pub(crate) fn put_each(&self, entries: &[PutEntry<'_>], durability: Durability) -> Vec<Result<PutReceipt>> {
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
        let mut refused = self.distribute(entries, |shard, indices| {
            self.writable()?;
            let how = (durability, Condition::default());
            let next = self.append_group(shard, entries, indices, how, &mut receipts)?;
            appended.extend(next.map(|next| (Arc::clone(shard), next, indices.to_vec())));
            Ok(next.is_some())
        });
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
