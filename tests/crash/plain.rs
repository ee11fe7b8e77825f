//! A storage of the user's that has no more than the calls that it has to have: what the others do by default loses nothing.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use anabranch::storage::{Access, DirEntry, LockGuard, Map, Storage, StorageFile};
use anabranch::{Crash, DiskFault, Durability, Error, ManualClock, SequenceNumber, ShardId, SimulatedDisk};

use crate::history::{PATH, assert_sound, builder};

/// Enough of them for syncs in place, and for a roll.
const PUTS: u64 = 24;
const DATA: [u8; 300] = [7; 300];

#[derive(Debug)]
struct Plain(SimulatedDisk);

#[derive(Debug)]
struct PlainFile(Arc<dyn StorageFile>);

fn plain(file: Arc<dyn StorageFile>) -> Arc<dyn StorageFile> {
    Arc::new(PlainFile(file))
}

impl Storage for Plain {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.0.create_dir(path)
    }

    fn create_file(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        self.0.create_file(path).map(plain)
    }

    fn open_file(&self, path: &Path, access: Access) -> io::Result<Arc<dyn StorageFile>> {
        self.0.open_file(path, access).map(plain)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.0.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.0.remove_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.0.list(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.0.sync_dir(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn LockGuard>>> {
        self.0.lock(path)
    }
}

impl StorageFile for PlainFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.0.read_at(buffer, position)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.0.write_at(bytes, position)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.0.allocate(len)
    }

    fn release(&self, range: Range<u64>) -> io::Result<()> {
        self.0.release(range)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn map(&self, len: u64) -> io::Result<Map> {
        self.0.map(len)
    }
}

/// Puts until something fails; gives how many were acknowledged.
fn puts(disk: &SimulatedDisk, clock: &Arc<ManualClock>) -> Result<u64, (u64, Error)> {
    let made = builder(disk, clock).storage(Arc::new(Plain(disk.clone()))).segment_bytes(4096);
    let stream = made.durability(Durability::Synced).shards(1).create(PATH).map_err(|error| (0, error))?;
    for number in 0..PUTS {
        stream.put("key", DATA).map_err(|error| (number, error))?;
    }
    stream.close().map_err(|error| (PUTS, error))?;
    Ok(PUTS)
}

#[test]
fn a_storage_with_no_more_than_it_has_to_have_loses_nothing() {
    let clock = Arc::new(ManualClock::default());
    let whole = SimulatedDisk::new();
    assert_eq!(puts(&whole, &clock).unwrap(), PUTS);
    for nth in 0..whole.operations() {
        for seed in 0..8 {
            let disk = SimulatedDisk::new();
            disk.fail_at(nth, DiskFault::PowerCut);
            let acknowledged = puts(&disk, &clock).unwrap_or_else(|(puts, _)| puts);
            let disk = disk.crash(Crash::PowerLost { seed });
            if acknowledged == 0 {
                continue; // there may be no stream
            }
            let name = format!("cut at call {nth}, seed {seed}");
            assert_sound(&disk, &name);
            let storage = Arc::new(Plain(disk.clone()));
            let stream = builder(&disk, &clock).storage(storage).open_existing(PATH).unwrap();
            for number in 0..acknowledged {
                let record = stream.get(ShardId::new(0), SequenceNumber::new(number));
                assert_eq!(record.unwrap_or_else(|error| panic!("{name}: {error}")).data(), DATA, "{name}");
            }
        }
    }
}
