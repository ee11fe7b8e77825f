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

    /// Whether nothing was ever noted, of whatever stream.
    pub(crate) fn is_blank(&self) -> Result<bool, Fault> {
        let length = self.file.len().map_err(Fault::io("read the length of", &self.path))?;
        let mut piece = [0; 4096];
        let mut position = 0;
        loop {
            position = self.file.data_from(position).map_err(Fault::io("seek in", &self.path))?.max(position);
            if position >= length {
                return Ok(true);
            }
            let read = self.file.read_at(&mut piece, position).map_err(Fault::io("read", &self.path))?;
            if read == 0 || piece.iter().take(read).any(|byte| *byte != 0) {
                return Ok(read == 0);
            }
            position += read as u64;
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{DiskFault, Operation, SimulatedDisk};

    const STREAM: StreamId = StreamId::new(9);

    fn shard(id: u32) -> ShardId {
        ShardId::new(id)
    }

    fn number(number: u64) -> SequenceNumber {
        SequenceNumber::new(number)
    }

    fn path() -> PathBuf {
        Path::new("stream").join(WATERMARK_FILE)
    }

    fn made() -> (SimulatedDisk, Watermarks) {
        let disk = SimulatedDisk::new();
        disk.create_dir(Path::new("stream")).unwrap();
        let watermarks = Watermarks::create(&disk, Path::new("stream"), STREAM).unwrap();
        (disk, watermarks)
    }

    fn opened(disk: &SimulatedDisk, access: Access) -> Watermarks {
        Watermarks::open(disk, Path::new("stream"), STREAM, access).unwrap()
    }

    #[test]
    fn each_shard_has_a_slot_of_its_own() {
        let (disk, watermarks) = made();
        for id in [0, 1, 2, 7] {
            watermarks.store(shard(id), number(100 + u64::from(id)));
        }
        watermarks.try_store(shard(1), number(500)).unwrap();
        for reader in [watermarks, opened(&disk, Access::Read)] {
            let noted = [0, 1, 2, 3, 6, 7, 8].map(|id| reader.load(shard(id)).unwrap().get());
            assert_eq!(noted, [100, 500, 102, 0, 0, 107, 0]);
        }
        assert_eq!(disk.read_file(&path()).unwrap().len(), 8 * WATERMARK_SLOT_BYTES, "one after the other");
    }

    #[test]
    fn who_only_reads_notes_nothing() {
        let (disk, watermarks) = made();
        opened(&disk, Access::Write).store(shard(0), number(5));
        let writes = disk.operations_of(Operation::Write);
        opened(&disk, Access::Read).store(shard(0), number(6));
        assert_eq!(disk.operations_of(Operation::Write), writes);
        assert_eq!(watermarks.load(shard(0)).unwrap(), number(5));
    }

    #[test]
    fn a_note_that_cannot_be_written_is_an_error_to_who_asks_for_it() {
        let (disk, watermarks) = made();
        watermarks.store(shard(0), number(5));
        disk.fail_on(Operation::Write, 0, DiskFault::Error(std::io::ErrorKind::Other));
        watermarks.store(shard(0), number(6));
        assert_eq!(watermarks.load(shard(0)).unwrap(), number(5));
        disk.fail_on(Operation::Write, 0, DiskFault::Error(std::io::ErrorKind::Other));
        watermarks.try_store(shard(0), number(6)).unwrap_err();
        disk.fail_on(Operation::Sync, 0, DiskFault::Error(std::io::ErrorKind::Other));
        watermarks.sync().unwrap_err();
        watermarks.sync().unwrap();
    }

    #[test]
    fn a_file_that_is_not_there_is_nothing_and_one_that_cannot_be_opened_an_error() {
        let (disk, _) = made();
        let open = |stream| Watermarks::open_if_there(&disk, Path::new(stream), STREAM);
        assert!(open("stream").unwrap().is_some());
        assert!(open("elsewhere").unwrap().is_none());
        disk.fail_on(Operation::OpenFile, 0, DiskFault::Error(std::io::ErrorKind::PermissionDenied));
        assert!(matches!(open("stream"), Err(Fault::Io { .. })));
    }

    /// A power cut may keep its length and no note. Shards that came late have their slots behind zeros.
    #[test]
    fn a_file_is_blank_until_something_is_noted() {
        let (disk, watermarks) = made();
        assert!(watermarks.is_blank().unwrap());
        disk.damage(&path(), |bytes| bytes.resize(5_000, 0)).unwrap();
        assert!(watermarks.is_blank().unwrap());
        disk.damage(&path(), Vec::clear).unwrap();
        watermarks.store(shard(300), number(5));
        assert!(!watermarks.is_blank().unwrap());
    }

    #[test]
    fn a_slot_that_is_neither_empty_nor_whole_is_damaged() {
        let (disk, watermarks) = made();
        watermarks.store(shard(0), number(5));
        watermarks.store(shard(2), number(7));
        let damage = || [0, 1, 2, 3].map(|id| watermarks.damage(shard(id)).unwrap().map(|damage| damage.offset));
        assert_eq!(damage(), [None; 4]);
        let change = |at: usize, byte: u8| disk.damage(&path(), |bytes| bytes[at] ^= byte).unwrap();
        change(2 * WATERMARK_SLOT_BYTES, 1);
        change(WATERMARK_SLOT_BYTES + 3, 1); // nothing was noted there
        assert_eq!(damage(), [None, Some(16), Some(32), None]);
        assert_eq!(watermarks.load(shard(2)).unwrap(), SequenceNumber::ZERO);
        let told = watermarks.damage(shard(2)).unwrap().unwrap();
        assert_eq!((told.path, told.shard_id), (path(), Some(shard(2))));
        // Cut short, it claims nothing; and what is left of it is damage.
        disk.damage(&path(), |bytes| bytes.truncate(WATERMARK_SLOT_BYTES - 8)).unwrap();
        assert_eq!(watermarks.load(shard(0)).unwrap(), SequenceNumber::ZERO);
        assert_eq!(damage(), [Some(0), None, None, None]);
    }
}
