//! A cursor whose reading is counted, where the stream has quotas.

use std::ops::{Deref, DerefMut};

use super::StreamInner;
use super::quotas::{Call, Payer};
use crate::error::{Error, Result};
use crate::segment::{Record, RecordBatch};
use crate::shard::{Cursor, Progress};

/// A cursor, and who pays for what it reads.
#[derive(Debug)]
pub(super) struct MeteredCursor {
    cursor: Cursor,
    /// Nobody where it is not counted.
    pub(super) payer: Option<Payer>,
    call: Call,
}

impl From<Cursor> for MeteredCursor {
    fn from(cursor: Cursor) -> Self {
        Self { cursor, payer: Some(Payer::Readers), call: Call::default() }
    }
}

impl MeteredCursor {
    /// Looks whether there are records. Where there are none, a call is over.
    pub(super) fn look(&mut self, stream: &StreamInner) -> Result<Progress> {
        let progress = stream.poll_cursor(&mut self.cursor)?;
        if progress != Progress::Records {
            self.call.end();
        }
        Ok(progress)
    }

    /// The records that follow and are there now, borrowed from the map.
    pub(super) fn next_batch(&mut self, stream: &StreamInner) -> Result<RecordBatch<'_>> {
        if self.look(stream)? != Progress::Records {
            return Ok(RecordBatch::default());
        }
        let shard_id = self.cursor.shard().id();
        let Some(payer) = self.payer.as_ref().filter(|_| stream.quotas.are_on()) else {
            return Ok(self.cursor.next_batch(usize::MAX).map_err(Error::of_shard(shard_id))?.0);
        };
        let most = stream.admit_read(&mut self.call, shard_id, payer)?;
        let (batch, _) = self.cursor.next_batch(most).map_err(Error::of_shard(shard_id))?;
        let bytes = batch.clone().map(|record| record.partition_key().len() + record.data().len());
        let given = (batch.len(), bytes.sum::<usize>() as u64);
        stream.count_read(&mut self.call, shard_id, payer, given);
        Ok(batch)
    }

    /// The next record, if it is there now, and is not among the [verified](Self::next_verified) ones.
    pub(super) fn next_record(&mut self, stream: &StreamInner) -> Result<Option<Record>> {
        if stream.quotas.are_on() { self.next_counted(stream) } else { self.next_uncounted(stream) }
    }

    /// The bytes of the next record, if it is there now: looking at them is not counted.
    pub(super) fn next_record_bytes(&mut self, stream: &StreamInner) -> Result<Option<usize>> {
        if self.look(stream)? != Progress::Records {
            return Ok(None);
        }
        let shard_id = self.cursor.shard().id();
        self.cursor.next_record_bytes().map_err(Error::of_shard(shard_id))
    }

    /// The next record, if it was verified together with one before, and costs nothing.
    #[inline]
    pub(super) fn next_verified(&mut self, stream: &StreamInner) -> Option<Record> {
        if stream.quotas.are_on() { None } else { self.cursor.next_verified() }
    }

    fn next_uncounted(&mut self, stream: &StreamInner) -> Result<Option<Record>> {
        if stream.poll_cursor(&mut self.cursor)? != Progress::Records {
            return Ok(None);
        }
        let shard_id = self.cursor.shard().id();
        self.cursor.next_record().map_err(Error::of_shard(shard_id))
    }

    #[cold]
    fn next_counted(&mut self, stream: &StreamInner) -> Result<Option<Record>> {
        let Some(payer) = self.payer.clone() else { return self.next_uncounted(stream) };
        if self.look(stream)? != Progress::Records {
            return Ok(None);
        }
        let shard_id = self.cursor.shard().id();
        stream.admit_read(&mut self.call, shard_id, &payer)?;
        let record = self.cursor.next_record().map_err(Error::of_shard(shard_id))?;
        if let Some(record) = &record {
            let bytes = (record.partition_key().len() + record.data().len()) as u64;
            stream.count_read(&mut self.call, shard_id, &payer, (1, bytes));
        }
        Ok(record)
    }

    /// Begins a call, even if one goes on.
    pub(super) fn begin_call(&mut self, stream: &StreamInner) -> Result<()> {
        let Some(payer) = self.payer.as_ref().filter(|_| stream.quotas.are_on()) else { return Ok(()) };
        self.call.end();
        stream.admit_read(&mut self.call, self.cursor.shard().id(), payer).map(drop)
    }
}

impl Deref for MeteredCursor {
    type Target = Cursor;

    fn deref(&self) -> &Cursor {
        &self.cursor
    }
}

impl DerefMut for MeteredCursor {
    fn deref_mut(&mut self) -> &mut Cursor {
        &mut self.cursor
    }
}
