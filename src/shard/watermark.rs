//! The WATERMARK file: what is known durable, for followers in other processes and as a witness at recovery.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::format::{WATERMARK_SLOT_BYTES, decode_slot, encode_slot};
use crate::storage::{Access, Corruption, Fault, Storage, StorageFile};
use crate::types::{SequenceNumber, ShardId, StreamId};

/// The file's name in the stream's directory.
pub(crate) const WATERMARK_FILE: &str = "WATERMARK";

/// One slot a shard, written after each sync and never synced itself.
#[derive(Debug)]
pub(crate) struct Watermarks {
    stream_id: StreamId,
    path: PathBuf,
    file: Arc<dyn StorageFile>,
    writable: bool,
}

impl Watermarks {
    pub(crate) fn create(storage: &dyn Storage, stream: &Path, stream_id: StreamId) -> Result<Self, Fault> {
        let path = stream.join(WATERMARK_FILE);
        let file = storage.create_file(&path).map_err(Fault::io("create", &path))?;
        Ok(Self { stream_id, path, file, writable: true })
    }

    pub(crate) fn open(
        storage: &dyn Storage,
        stream: &Path,
        stream_id: StreamId,
        access: Access,
    ) -> Result<Self, Fault> {
        let path = stream.join(WATERMARK_FILE);
        let file = storage.open_file(&path, access).map_err(Fault::io("open", &path))?;
        Ok(Self { stream_id, path, file, writable: access == Access::Write })
    }

    /// For reading; nothing if there is no such file. That it cannot be opened is another answer.
    pub(crate) fn open_if_there(
        storage: &dyn Storage,
        stream: &Path,
        stream_id: StreamId,
    ) -> Result<Option<Self>, Fault> {
        match Self::open(storage, stream, stream_id, Access::Read) {
            Err(Fault::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        }
    }

    /// Notes that the records below `durable` are durable. It is only a witness, so a failure to write it is no failure of
    /// the records: the old value stays true.
    pub(crate) fn store(&self, shard_id: ShardId, durable: SequenceNumber) {
        if self.writable {
            let _ = self.try_store(shard_id, durable);
        }
    }

    /// As [`store`](Self::store), where it matters that it was written.
    pub(crate) fn try_store(&self, shard_id: ShardId, durable: SequenceNumber) -> Result<(), Fault> {
        let slot = encode_slot(self.stream_id, shard_id, durable);
        self.file.write_at(&slot, Self::position(shard_id)).map_err(Fault::io("write", &self.path))
    }

    /// Makes all notes durable.
    pub(crate) fn sync(&self) -> Result<(), Fault> {
        self.file.sync().map_err(Fault::io("sync", &self.path))
    }

    /// What was noted last; zero where nothing was, or where the slot is not whole.
    pub(crate) fn load(&self, shard_id: ShardId) -> Result<SequenceNumber, Fault> {
        let mut slot = [0; WATERMARK_SLOT_BYTES];
        let read =
            self.file.read_at(&mut slot, Self::position(shard_id)).map_err(Fault::io("read", &self.path))?;
        let claimed = if read == slot.len() { decode_slot(&slot, self.stream_id, shard_id) } else { None };
        Ok(claimed.unwrap_or_default())
    }

    /// What is wrong with a slot: anything but zeros or a whole value.
    pub(crate) fn damage(&self, shard_id: ShardId) -> Result<Option<Corruption>, Fault> {
        let mut slot = [0; WATERMARK_SLOT_BYTES];
        let read =
            self.file.read_at(&mut slot, Self::position(shard_id)).map_err(Fault::io("read", &self.path))?;
        let written = slot.get(..read).unwrap_or_default().iter().any(|byte| *byte != 0);
        let whole = decode_slot(&slot, self.stream_id, shard_id).is_some();
        let reason = "a slot's checksum does not match";
        Ok((written && !whole)
            .then(|| Corruption::new(&self.path, Self::position(shard_id), reason).of_shard(shard_id)))
    }

    fn position(shard_id: ShardId) -> u64 {
        u64::from(shard_id.get()) * WATERMARK_SLOT_BYTES as u64
    }
}
