//! Many streams under one directory.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use anabranch::storage::{Access, DirEntry, DiskFault, LockGuard, Operation, Storage, StorageFile};
use anabranch::{Crash, Durability, Error, ErrorKind, ManualClock, SimulatedDisk, Store, StoreBuilder, Stream};

use crate::support::{HORIZON, S0, fill, numbers_from, put_to, read_all, snapshot};

fn options() -> StoreBuilder {
    Store::builder().background(false)
}

fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = options().open(directory.path().join("deep/down")).unwrap();
    (directory, store)
}

#[test]
fn streams_are_created_listed_opened_and_deleted_by_name() {
    let (_directory, store) = store();
    assert_eq!(store.list().unwrap(), [""; 0]);
    let names = ["clicks", "a", "Z", "a.b", "-", "_x", "x-y_z.0"];
    for name in names {
        let stream = store.create(name, Stream::builder().shards(2)).unwrap();
        assert_eq!(stream.path(), store.path().join(name));
        stream.put("key", name).unwrap();
    }
    assert_eq!(store.list().unwrap(), ["-", "Z", "_x", "a", "a.b", "clicks", "x-y_z.0"], "ascending");
    let error = store.create("clicks", Stream::builder()).expect_err("exists");
    assert!(matches!(error, Error::StreamExists(_)), "{error:?}");
    for name in names {
        let stream = store.open_stream(name).unwrap();
        assert_eq!(crate::support::read_stream(&stream)[0].data(), name.as_bytes());
    }
    store.delete("a").unwrap();
    assert_eq!(store.list().unwrap().len(), 6);
    assert!(!store.path().join("a").exists());
    for outcome in [store.open_stream("a").map(drop), store.delete("a")] {
        let error = outcome.expect_err("deleted");
        assert!(matches!(error, Error::StreamNotFound(_)), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
    let again = store.create("a", Stream::builder()).unwrap();
    assert_eq!(read_all(&again, S0).len(), 0);
}

#[test]
fn names_are_those_that_kinesis_allows() {
    let (_directory, store) = store();
    let long = "x".repeat(129);
    let wrong = ["", ".", "..", "a/b", "/", "a b", "é", "a\0", "~deleted-x", "a\\b", "a:b", &long, "a\n"];
    let before = snapshot(store.path());
    for name in wrong {
        for outcome in [
            store.create(name, Stream::builder()).map(drop),
            store.open_stream(name).map(drop),
            store.open_or_create(name, Stream::builder()).map(drop),
            store.delete(name),
        ] {
            let error = outcome.expect_err("no name for a stream");
            assert!(
                matches!(error, Error::InvalidArgument { argument: "stream name", .. }),
                "{name:?}: {error:?}"
            );
        }
    }
    assert_eq!(snapshot(store.path()), before);
    for name in [&long[..128], "...", "..a", "A-Z_0.9", "0"] {
        store.create(name, Stream::builder()).unwrap();
    }
    assert_eq!(store.list().unwrap().len(), 5);
}

#[test]
fn an_open_stream_is_the_same_for_all_who_ask() {
    let (_directory, store) = store();
    let first = store.create("clicks", Stream::builder()).unwrap();
    let second = store.open_stream("clicks").unwrap();
    let third = store.clone().open_or_create("clicks", Stream::builder().shards(9)).unwrap();
    fill(&first, 1);
    fill(&second, 1);
    fill(&third, 1);
    assert_eq!(numbers_from(&first, S0, HORIZON), [0, 1, 2]);
    assert_eq!(first.metrics(), third.metrics());
    drop((first, second));
    fill(&third, 1);
    drop(third); // the last one closes it
    let again = store.open_stream("clicks").unwrap();
    assert_eq!(again.describe().unwrap().incarnation, 2);
    assert!(again.recovery().was_clean);
    again.close().unwrap();
    assert_eq!(store.open_stream("clicks").unwrap().describe().unwrap().incarnation, 3, "opened anew");
    let error = store.open_or_create("clicks", Stream::builder().shards(9)).map(drop).expect_err("it has one");
    assert!(matches!(error, Error::OptionMismatch { option: "shards", .. }), "{error:?}");
}

#[test]
fn a_stream_of_a_store_is_a_stream_like_any_other() {
    let (_directory, store) = store();
    let stream = store.create("clicks", Stream::builder().durability(Durability::Buffered)).unwrap();
    fill(&stream, 3);
    stream.sync().unwrap();
    let error = crate::support::builder().open(stream.path()).expect_err("the store has it");
    assert!(matches!(error, Error::Locked(_)), "{error:?}");
    assert_eq!(read_all(&crate::support::builder().open_read_only(stream.path()).unwrap(), S0).len(), 3);
    let path = stream.path().to_path_buf();
    drop(stream);
    let outside = crate::support::builder().open(&path).unwrap();
    for outcome in [store.open_stream("clicks").map(drop), store.delete("clicks")] {
        let error = outcome.expect_err("somebody else has it");
        assert!(matches!(error, Error::Locked(_)), "{error:?}");
    }
    fill(&outside, 1);
}

#[test]
fn deletion_closes_the_handles_and_spares_what_was_read() {
    let (_directory, store) = store();
    let stream = store.create("clicks", Stream::builder().shards(3)).unwrap();
    put_to(&stream, S0, "key", b"data");
    let records = read_all(&stream, S0);
    let mut iterator = stream.shard_iterator(S0, HORIZON).unwrap();
    store.delete("clicks").unwrap();
    for outcome in [stream.put("key", b"data").map(drop), stream.sync(), stream.describe().map(drop)] {
        let error = outcome.expect_err("deleted");
        assert!(matches!(error, Error::Closed), "{error:?}");
    }
    assert_eq!(records[0].data(), b"data");
    assert_eq!(store.list().unwrap(), [""; 0]);
    assert_eq!(snapshot(store.path()), [], "nothing is left behind");

    // The name is free at once, also while the old handle lives, whose end harms nobody.
    let successor = store.create("clicks", Stream::builder()).unwrap();
    assert_eq!(successor.path(), stream.path());
    drop(stream);
    iterator.available().for_each(drop);
    drop(iterator);
    fill(&successor, 2);
    assert_eq!(numbers_from(&store.open_stream("clicks").unwrap(), S0, HORIZON), [0, 1]);
}

#[test]
fn deletions_that_were_cut_short_are_finished_at_the_next_opening() {
    let (_directory, store) = store();
    for name in ["clicks", "views"] {
        fill(&store.create(name, Stream::builder()).unwrap(), 3);
    }
    let path = store.path().to_path_buf();
    drop(store);
    // As a crash leaves it: renamed, not removed; and one of which a part was removed already.
    fs::rename(path.join("clicks"), path.join("~deleted-clicks")).unwrap();
    fs::create_dir_all(path.join("~deleted-old/shards/000000000000")).unwrap();
    let store = options().open(&path).unwrap();
    assert_eq!(store.list().unwrap(), ["views"]);
    assert!(!path.join("~deleted-clicks").exists() && !path.join("~deleted-old").exists());
    assert!(matches!(store.open_stream("clicks"), Err(Error::StreamNotFound(_))));
    store.create("clicks", Stream::builder()).unwrap();
}

fn open_on(disk: &SimulatedDisk) -> Store {
    let clock = Arc::new(ManualClock::default());
    options().storage(Arc::new(disk.clone())).clock(clock).open("store").unwrap()
}

#[test]
fn a_deletion_is_whole_after_a_power_cut_at_any_point() {
    for nth in 0.. {
        let disk = SimulatedDisk::new();
        let store = open_on(&disk);
        fill(&store.create("clicks", Stream::builder()).unwrap(), 3);
        disk.fail_at(nth, DiskFault::PowerCut);
        let outcome = store.delete("clicks");
        let survivor = disk.crash(Crash::PowerLost { seed: nth });
        let store = open_on(&survivor);
        match store.list().unwrap().as_slice() {
            [] => drop(store.create("clicks", Stream::builder()).unwrap()),
            [name] => {
                assert!(outcome.is_err(), "{nth}: a deletion that succeeded is durable");
                assert_eq!(numbers_from(&store.open_stream(name).unwrap(), S0, HORIZON), [0, 1, 2]);
            }
            names => panic!("{names:?}"),
        }
        if outcome.is_ok() {
            assert!(nth > 3, "the deletion was interrupted nowhere");
            break;
        }
    }
}

/// A deletion that fails at its first call, at its second, and so on.
fn failed_deletions(mut look: impl FnMut(&SimulatedDisk, Store)) {
    for nth in 0.. {
        let disk = SimulatedDisk::new();
        let store = open_on(&disk);
        fill(&store.create("clicks", Stream::builder()).unwrap(), 3);
        disk.fail_at(nth, DiskFault::Error(io::ErrorKind::Other));
        if store.delete("clicks").is_ok() {
            break;
        }
        look(&disk, store);
    }
}

/// What failed behind the rename is durable when the next attempt says that there is nothing to delete.
#[test]
fn a_deletion_that_failed_and_is_not_found_again_does_not_come_back() {
    let mut not_found = 0;
    failed_deletions(|disk, store| {
        match store.delete("clicks") {
            Ok(()) => {}
            Err(Error::StreamNotFound(_)) => not_found += 1,
            other => panic!("{other:?}"),
        }
        for seed in 0..8 {
            let store = open_on(&disk.fork(Crash::PowerLost { seed }));
            assert!(store.list().unwrap().is_empty(), "power cut {seed}");
        }
    });
    assert!(not_found > 0, "it never failed behind the rename");
}

/// The process dies behind a rename that is not durable; who opens the store again is shown a free name, and no power cut gives it back.
#[test]
fn a_name_that_an_opening_shows_as_free_stays_free() {
    let mut free = 0;
    failed_deletions(|disk, store| {
        let disk = disk.crash(Crash::ProcessKilled);
        drop(store);
        let store = open_on(&disk);
        let shown = store.list().unwrap();
        free += u32::from(shown.is_empty());
        for seed in 0..8 {
            let store = open_on(&disk.fork(Crash::PowerLost { seed }));
            assert_eq!(store.list().unwrap(), shown, "power cut {seed}");
            for name in &shown {
                assert_eq!(numbers_from(&store.open_stream(name).unwrap(), S0, HORIZON), [0, 1, 2]);
            }
        }
    });
    assert!(free > 0, "it never failed behind the rename");
}

/// A disk on which something happens behind the first sync of a directory.
struct Meanwhile {
    disk: SimulatedDisk,
    happened: OnceLock<()>,
    happens: Box<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meanwhile").finish_non_exhaustive()
    }
}

impl Storage for Meanwhile {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir(path)
    }

    fn create_file(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        self.disk.create_file(path)
    }

    fn open_file(&self, path: &Path, access: Access) -> io::Result<Arc<dyn StorageFile>> {
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
        self.disk.sync_dir(path)?;
        if path == Path::new("store") {
            self.happened.get_or_init(|| (self.happens)());
        }
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn LockGuard>>> {
        self.disk.lock(path)
    }
}

/// A process that opens the store removes what an earlier deletion left, while another one deletes a later stream of that name, and does not come to sync it.
#[test]
fn an_opening_removes_no_files_of_a_deletion_that_it_has_not_seen() {
    let mut undone = 0;
    for seed in 0..16 {
        let disk = SimulatedDisk::new();
        let store = open_on(&disk);
        store.create("clicks", Stream::builder()).unwrap().close().unwrap();
        disk.rename("store/clicks".as_ref(), "store/~deleted-clicks".as_ref()).unwrap();
        fill(&store.create("clicks", Stream::builder()).unwrap(), 3);
        let happens = {
            let disk = disk.clone();
            move || {
                disk.fail_on(Operation::SyncDir, 0, DiskFault::Error(io::ErrorKind::Other));
                store.delete("clicks").unwrap_err();
            }
        };
        let storage =
            Arc::new(Meanwhile { disk: disk.clone(), happened: OnceLock::new(), happens: Box::new(happens) });
        drop(options().storage(storage.clone()).open("store").unwrap());
        assert!(storage.happened.get().is_some());
        assert!(disk.list("store/~deleted-clicks".as_ref()).is_err(), "what it has seen is removed");
        let store = open_on(&disk.fork(Crash::PowerLost { seed }));
        if !store.list().unwrap().is_empty() {
            undone += 1;
            assert_eq!(numbers_from(&store.open_stream("clicks").unwrap(), S0, HORIZON), [0, 1, 2], "{seed}");
        }
    }
    assert!((1..16).contains(&undone), "{undone}");
}

/// Files that are left of a deleted stream, and cannot be removed, keep no other stream from being used.
#[test]
fn what_cannot_be_removed_is_left_to_the_next_opening() {
    let disk = SimulatedDisk::new();
    let store = open_on(&disk);
    for name in ["a", "b", "clicks"] {
        fill(&store.create(name, Stream::builder()).unwrap(), 3);
    }
    drop(store);
    for name in ["a", "b"] {
        disk.rename(&Path::new("store").join(name), &Path::new("store").join(format!("~deleted-{name}"))).unwrap();
    }
    let left =
        || disk.list(Path::new("store")).unwrap().iter().filter(|entry| entry.name.starts_with('~')).count();
    disk.fail_on(Operation::RemoveFile, 0, DiskFault::Error(io::ErrorKind::PermissionDenied));
    let store = open_on(&disk);
    assert_eq!((store.list().unwrap(), left()), (vec!["clicks".to_owned()], 1));
    assert_eq!(numbers_from(&store.open_stream("clicks").unwrap(), S0, HORIZON), [0, 1, 2]);
    drop(store);
    open_on(&disk);
    assert_eq!(left(), 0);
}

#[test]
fn what_is_no_stream_is_not_listed_and_not_harmed() {
    let (_directory, store) = store();
    fs::write(store.path().join("readme"), b"text").unwrap();
    fs::create_dir(store.path().join("photos")).unwrap();
    fs::write(store.path().join("photos/one"), b"jpeg").unwrap();
    store.create("clicks", Stream::builder()).unwrap();
    assert_eq!(store.list().unwrap(), ["clicks"]);
    assert!(matches!(store.open_stream("photos"), Err(Error::NotAStream { .. })));
    assert!(matches!(store.create("photos", Stream::builder()), Err(Error::NotAStream { .. })));
    assert!(matches!(store.delete("photos"), Err(Error::StreamNotFound(_))));
    let store = options().open(store.path()).unwrap();
    assert_eq!(store.list().unwrap(), ["clicks"]);
    assert_eq!(fs::read(store.path().join("photos/one")).unwrap(), b"jpeg");
    assert_eq!(fs::read(store.path().join("readme")).unwrap(), b"text");
}

#[test]
fn a_store_lends_its_streams_clock_and_storage() {
    let (disk, clock) = (SimulatedDisk::new(), Arc::new(ManualClock::default()));
    let store = options().storage(Arc::new(disk.clone())).clock(clock.clone()).open("store").unwrap();
    // The builder's own are replaced.
    let other =
        Stream::builder().storage(Arc::new(SimulatedDisk::new())).clock(Arc::new(anabranch::SystemClock::new()));
    let stream = store.create("clicks", other).unwrap();
    let receipt = stream.put("key", b"data").unwrap();
    assert_eq!(receipt.arrival, anabranch::Clock::now(clock.as_ref()));
    assert!(disk.read_file(Path::new("store/clicks/MANIFEST")).is_ok());
}

#[test]
fn streams_outlive_their_store() {
    let (_directory, store) = store();
    let stream = store.create("clicks", Stream::builder()).unwrap();
    drop(store);
    fill(&stream, 2);
    stream.close().unwrap();
}
