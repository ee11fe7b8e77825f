//! Writing many records of which each has an outcome of its own.

use super::put::append_group;
use super::{Stream, StreamInner};
use crate::error::{Error, Result};
use crate::shard::{Condition, ShardError};
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
        let mut errors = vec![None; entries.len()];
        let mut refuse = |indices: &[usize], error: Error| {
            for index in indices {
                errors[*index] = Some(error.clone());
            }
        };
        let mut appended = Vec::new();
        let mut waiting: Vec<usize> = (0..entries.len()).collect();
        while !waiting.is_empty() {
            let groups = match self.writable().and_then(|()| self.group(entries, &waiting)) {
                Ok(groups) => groups,
                Err(error) => {
                    refuse(&waiting, error);
                    break;
                }
            };
            waiting.clear();
            for (shard, indices) in groups.into_values() {
                match append_group(&shard, entries, &indices, (durability, Condition::default()), &mut receipts) {
                    Ok((next, opened_file)) => {
                        if opened_file {
                            self.files.opened(&shard);
                        }
                        appended.push((shard, next, indices));
                    }
                    Err(ShardError::NotOpen) => waiting.extend(indices),
                    Err(error) => refuse(&indices, Error::of_shard(shard.id())(error)),
                }
            }
            if !waiting.is_empty()
                && let Err(error) = self.wait_for_reshard()
            {
                refuse(&waiting, error);
                break;
            }
        }
        if durability == Durability::Synced {
            for (shard, next, indices) in appended {
                if let Err(error) = shard.commit(next) {
                    refuse(&indices, Error::of_shard(shard.id())(error));
                }
            }
        }
        let outcome = |(receipt, error): (Option<PutReceipt>, Option<Error>)| match (receipt, error) {
            (Some(receipt), None) => Ok(receipt),
            (_, error) => Err(error.unwrap_or(Error::Closed)),
        };
        receipts.into_iter().zip(errors).map(outcome).collect()
    }
}
