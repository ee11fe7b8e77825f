//! What fails under a shard: when it is only a refusal, and when the shard takes nothing any more.

use super::*;
use crate::format::segment_name;

/// A `Buffered` shard whose segments hold one long record each, and its disk.
fn shard_of_short_segments() -> (Arc<Shard>, SimulatedDisk) {
    let disk = SimulatedDisk::new();
    let options =
        StreamOptions { durability: Durability::Buffered, segment_bytes: 4096, ..StreamOptions::default() };
    (shard_on(Arc::new(disk.clone()), options, true), disk)
}

fn append_data(shard: &Shard, data: &[u8]) -> Result<(), ShardError> {
    let entry = AppendEntry { partition_key: "key", data, explicit_hash_key: None };
    shard.append(std::iter::once(entry), Durability::Buffered, Condition::default()).map(drop)
}

/// A disk on which a write-back that fails is reported to nobody but those who had the file open.
#[derive(Debug, Default)]
struct ForgetfulDisk {
    disk: SimulatedDisk,
    opened: AtomicU64,
}

impl Storage for ForgetfulDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir(path)
    }

    fn create_file(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        self.disk.create_file(path)
    }

    fn open_file(&self, path: &Path, access: Access) -> io::Result<Arc<dyn StorageFile>> {
        self.opened.fetch_add(1, Ordering::SeqCst);
        self.disk.open_file(path, access)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.disk.list(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn LockGuard>>> {
        self.disk.lock(path)
    }
}

#[test]
fn a_file_is_synced_before_it_is_closed_where_its_failure_would_not_be_reported_later() {
    let storage = Arc::new(ForgetfulDisk::default());
    let opened = || storage.opened.load(Ordering::SeqCst);
    let shard = shard_on(Arc::<ForgetfulDisk>::clone(&storage), StreamOptions::default(), true);
    let durable = || shard.next(Visibility::Durable).get();
    let is_parked = || shard.append.lock().writer.as_ref().is_some_and(SegmentWriter::is_parked);
    put(&shard);
    let before = opened();
    assert!(shard.park());
    assert_eq!((is_parked(), durable(), syncs(&shard), shard.has_unsynced()), (true, 1, 1, false));
    assert_eq!(opened(), before, "the handle that wrote is the one that syncs");
    assert!(shard.park());
    assert_eq!(syncs(&shard), 1, "nothing is left to sync");

    put(&shard);
    assert_eq!(opened(), before + 1);
    storage.disk.fail_on(Operation::Sync, 0, DiskFault::Error(io::ErrorKind::Other));
    assert!(shard.park());
    assert_eq!(durable(), 1);
    let refused = append(&shard, Durability::Buffered);
    assert!(matches!(refused, Err(ShardError::Failed(_))), "whoever comes next is told: {refused:?}");
    assert!(!shard.park(), "a shard that failed is left alone");
    assert_eq!(durable(), 1, "a sync behind one that failed proves nothing");
}

/// What the sync that failed was to make durable may be lost, and the next sync would not tell.
#[test]
fn a_shard_whose_seal_failed_takes_no_more_records() {
    for nth in 0..2 {
        let (shard, disk) = staging_shard(true);
        put(&shard);
        disk.fail_on(Operation::Sync, nth, DiskFault::Error(io::ErrorKind::Other));
        let sealed = shard.freeze();
        assert!(matches!(sealed, Err(ShardError::Failed(_))), "sync {nth}: {sealed:?}");
        shard.thaw();
        let refused = append(&shard, Durability::Buffered);
        assert!(matches!(refused, Err(ShardError::Failed(_))), "sync {nth}: {refused:?}");
        assert!(matches!(shard.sync(), Err(ShardError::Failed(_))), "sync {nth}");
        assert_eq!(shard.next(Visibility::Durable).get(), 0, "sync {nth}");
    }
}

/// A record that is longer than what is gathered is written by itself. Wherever that ends, the shard is as it was, or takes nothing any more.
#[test]
fn a_shard_of_which_a_record_was_written_in_part_takes_no_more() {
    let mut failed = 0;
    for nth in 0.. {
        let (shard, disk) = staging_shard(true);
        disk.fail_on(Operation::Write, nth, DiskFault::ShortWrite);
        match append_data(&shard, &vec![7; 1 << 20]) {
            Ok(()) => break,
            Err(ShardError::Failed(_)) => {
                failed += 1;
                let refused = append(&shard, Durability::Buffered);
                assert!(matches!(refused, Err(ShardError::Failed(_))), "write {nth}: {refused:?}");
            }
            Err(_) => {
                put(&shard);
                assert_eq!(shard.next(Visibility::Written).get(), 1, "write {nth}");
            }
        }
    }
    assert!(failed > 0);
}

/// Too many files are open: nothing was tried of the segment, so nothing is unknown of it.
#[test]
fn a_parked_file_that_cannot_be_opened_is_only_a_refusal() {
    let (shard, disk) = shard_of_short_segments();
    let refused = |outcome: Result<(), ShardError>| matches!(outcome, Err(ShardError::Fault(Fault::Io { .. })));
    put(&shard);
    let behind_the_last = Timestamp::from_millis(i64::MAX);
    let refused_once = |name: &str, call: &dyn Fn() -> Result<(), ShardError>| {
        put(&shard);
        assert!(shard.park());
        disk.fail_on(Operation::OpenFile, 0, DiskFault::Error(io::ErrorKind::Other));
        assert!(refused(call()), "{name}");
        call().unwrap();
        shard.thaw();
    };
    refused_once("sync", &|| shard.sync());
    refused_once("put", &|| append(&shard, Durability::Buffered).map(drop));
    refused_once("roll", &|| append_data(&shard, &[7; 4_000]));
    refused_once("retention", &|| shard.retire_expired(behind_the_last));
    refused_once("freeze", &|| shard.freeze().map(drop));
    assert_eq!(shard.next(Visibility::Durable), shard.next(Visibility::Written));
}

/// It came to nothing: those who come while the next one gathers are of that one.
#[test]
fn who_waits_behind_a_commit_that_could_not_open_its_file_is_told_by_the_next() {
    let disk = SimulatedDisk::new();
    let shard = shard_on(Arc::new(disk.clone()), StreamOptions::default(), true);
    let target = append(&shard, Durability::Synced).unwrap().next();
    assert!(shard.park());
    disk.fail_on(Operation::OpenFile, 0, DiskFault::Error(io::ErrorKind::Other));
    shard.commit(target).unwrap_err();
    shard.append.lock().committing = true;
    let waiters = [(); 3].map(|()| {
        sleeper({
            let shard = Arc::clone(&shard);
            move || shard.commit(target)
        })
    });
    shard.append.lock().committing = false;
    shard.sync().unwrap();
    for waiter in waiters {
        join(waiter).unwrap();
    }
}

/// What a creation that failed left is removed. This is somebody else's.
#[test]
fn a_file_that_stands_in_the_way_of_a_segment_stays() {
    let (shard, disk) = shard_of_short_segments();
    put(&shard);
    let other = shard.directory.join(segment_name(SequenceNumber::new(1)));
    drop(disk.create_file(&other).unwrap());
    append_data(&shard, &[7; 4_000]).unwrap_err();
    put(&shard);
    assert!(disk.read_file(&other).is_ok(), "it was removed");
}

/// Nobody counts it among the open files.
#[test]
fn a_roll_that_fails_leaves_a_parked_file_closed() {
    let (shard, disk) = shard_of_short_segments();
    put(&shard);
    assert!(shard.park());
    disk.fail_on(Operation::Allocate, 0, DiskFault::Error(io::ErrorKind::StorageFull));
    append_data(&shard, &[7; 4_000]).unwrap_err();
    assert!(shard.append.lock().writer.as_ref().is_some_and(SegmentWriter::is_parked));
    put(&shard);
}

/// Tasks wait for the outcome, and nobody leads another commit for them.
#[cfg(feature = "async")]
#[test]
fn a_wanted_commit_that_cannot_open_a_parked_file_is_told() {
    let disk = SimulatedDisk::new();
    let shard = shard_on(Arc::new(disk.clone()), StreamOptions::default(), true);
    let first = append(&shard, Durability::Synced).unwrap();
    assert!(shard.committed(first.next()).is_none());
    shard.commit_wanted();
    assert!(matches!(shard.committed(first.next()), Some(Ok(()))));
    let staged = append(&shard, Durability::Synced).unwrap();
    assert!(shard.park());
    assert!(shard.committed(staged.next()).is_none());
    disk.fail_on(Operation::OpenFile, 0, DiskFault::Error(io::ErrorKind::Other));
    shard.commit_wanted();
    assert!(matches!(shard.committed(staged.next()), Some(Err(ShardError::Failed(_)))));
}

/// Between its two looks the commit ends, and a later write fails.
#[cfg(feature = "async")]
#[test]
fn who_asks_for_a_commit_that_ended_before_a_failure_is_told_of_the_commit() {
    let shard = shard(1 << 20, true);
    let target = append(&shard, Durability::Synced).unwrap().next();
    let mut state = shard.append.lock();
    let asks = sleeper({
        let shard = Arc::clone(&shard);
        move || shard.committed(target)
    });
    shard.note_durable(target);
    drop(shard.fail(&mut state, io_fault()));
    drop(state);
    let told = join(asks);
    assert!(matches!(told, Some(Ok(()))), "{told:?}");
}

/// Without a failure: its file could not be opened to be sealed, say.
#[cfg(feature = "async")]
#[test]
fn who_waits_for_a_commit_is_told_of_the_end_of_its_shard() {
    let shard = shard(1 << 20, true);
    let target = append(&shard, Durability::Synced).unwrap().next();
    assert!(shard.committed(target).is_none());
    shard.shut();
    let told = shard.committed(target);
    assert!(matches!(told, Some(Err(ShardError::NotOpen))), "{told:?}");
}

#[cfg(feature = "async")]
#[test]
fn a_task_that_watches_a_commit_looks_again_only_where_it_has_ended() {
    let shard = shard(1 << 20, true);
    let target = append(&shard, Durability::Synced).unwrap().next();
    let looks_again = || shard.watch_commit(shard.context.new_task(), std::task::Waker::noop(), target);
    assert!(!looks_again());
    assert!(shard.has_sleepers(), "it is to be woken");
    shard.commit(target).unwrap();
    assert!(looks_again());
}
