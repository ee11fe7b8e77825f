//! Every rule of what a crash leaves: each legal state is reached, no illegal one ever is.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use super::contents::SECTOR_BYTES;
use super::*;

const SEEDS: u64 = 1000;

fn path(name: &str) -> &Path {
    Path::new(name)
}

fn kind<T>(result: io::Result<T>) -> ErrorKind {
    result.map(|_| ()).unwrap_err().kind()
}

/// A disk with one file of these bytes, durable with its name.
fn disk_with(bytes: &[u8]) -> (SimulatedDisk, Arc<dyn StorageFile>) {
    let disk = SimulatedDisk::new();
    let file = disk.create_file(path("f")).unwrap();
    file.write_at(bytes, 0).unwrap();
    file.sync().unwrap();
    disk.sync_dir(path("")).unwrap();
    (disk, file)
}

/// The states of file `f` that power loss may leave; no bytes if there is no file.
fn states(disk: &SimulatedDisk) -> BTreeSet<Option<Vec<u8>>> {
    let state = |seed| disk.fork(Crash::PowerLost { seed }).read_file(path("f")).ok();
    (0..SEEDS).map(state).collect()
}

/// The names in the root that power loss may leave, joined by spaces.
fn name_states(disk: &SimulatedDisk) -> BTreeSet<String> {
    (0..SEEDS).map(|seed| names(&disk.fork(Crash::PowerLost { seed }), "")).collect()
}

fn names(disk: &SimulatedDisk, directory: &str) -> String {
    let entries = disk.list(path(directory)).unwrap();
    let names: Vec<_> = entries.into_iter().map(|entry| entry.name).collect();
    names.join(" ")
}

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.into_iter().map(str::to_owned).collect()
}

#[test]
fn synced_bytes_always_survive() {
    let (disk, file) = disk_with(&[1; 3000]);
    file.write_at(&[2; 3000], 3000).unwrap();
    for state in states(&disk) {
        let state = state.unwrap();
        assert!(state.len() == 3000 || state.len() == 6000);
        assert_eq!(state[..3000], [1; 3000]);
        assert!(state[3000..].iter().all(|&byte| byte == 0 || byte == 2));
    }
}

#[test]
fn unsynced_sectors_survive_independently() {
    let (disk, file) = disk_with(&[1; 3 * SECTOR_BYTES]);
    file.write_at(&[2; 3 * SECTOR_BYTES], 0).unwrap();
    let mut seen = BTreeSet::new();
    for state in states(&disk) {
        let sectors = state.unwrap();
        let whole = |sector: &[u8]| sector.iter().all(|byte| *byte == sector[0]);
        if sectors.chunks(SECTOR_BYTES).all(whole) {
            seen.insert([sectors[0], sectors[SECTOR_BYTES], sectors[2 * SECTOR_BYTES]]);
        }
    }
    assert_eq!(seen.len(), 8);
}

#[test]
fn a_sector_may_be_at_any_point_of_its_history() {
    let (disk, file) = disk_with(&[0; SECTOR_BYTES]);
    for version in 1..=3 {
        file.write_at(&[version; SECTOR_BYTES], 0).unwrap();
    }
    let states = states(&disk);
    for version in 0..=3 {
        assert!(states.contains(&Some(vec![version; SECTOR_BYTES])), "{version}");
    }
}

#[test]
fn sectors_tear_at_eight_bytes_and_outside_of_a_write_nothing_changes() {
    let (disk, file) = disk_with(&[1; SECTOR_BYTES]);
    file.write_at(&[2; 400], 100).unwrap();
    let (mut prefixes, mut suffixes) = (0, 0);
    for state in states(&disk) {
        let state = state.unwrap();
        assert_eq!(state[..100], [1; 100]);
        assert_eq!(state[500..], [1; 12]);
        let changes: Vec<_> = (100..499).filter(|&at| state[at] != state[at + 1]).collect();
        assert!(changes.len() <= 1);
        assert!(changes.iter().all(|at| (at + 1) % 8 == 0));
        if !changes.is_empty() {
            *(if state[100] == 2 { &mut prefixes } else { &mut suffixes }) += 1;
        }
    }
    assert!(prefixes > 5 && suffixes > 5);
}

#[test]
fn size_and_sectors_survive_independently() {
    let (disk, file) = disk_with(b"");
    file.write_at(&[1; 100], 0).unwrap();
    file.write_at(&[2; 100], 100).unwrap();
    let states = states(&disk);
    let sizes: BTreeSet<_> = states.iter().flatten().map(Vec::len).collect();
    assert_eq!(sizes, BTreeSet::from([0, 100, 200]));
    assert!(states.contains(&Some(vec![0; 200]))); // the size without the bytes
    assert!(states.contains(&Some(vec![1; 100]))); // the bytes without the size
}

#[test]
fn allocated_room_is_zeros_of_unsynced_size() {
    let (disk, file) = disk_with(b"x");
    file.allocate(4096).unwrap();
    let mut expected = vec![0; 4096];
    expected[0] = b'x';
    assert_eq!(disk.read_file(path("f")).unwrap(), expected);
    assert_eq!(states(&disk), BTreeSet::from([Some(b"x".to_vec()), Some(expected)]));
}

#[test]
fn a_release_is_unsynced_too() {
    let (disk, file) = disk_with(&[1; 2 * SECTOR_BYTES]);
    file.release(0..10_000).unwrap();
    assert_eq!(file.len().unwrap(), 1024);
    let states = states(&disk);
    assert!(states.contains(&Some(vec![0; 1024])) && states.contains(&Some(vec![1; 1024])));
    file.sync().unwrap();
    assert_eq!(self::states(&disk).len(), 1);
}

#[test]
fn closing_syncs_nothing_and_a_sync_makes_no_name_durable() {
    let disk = SimulatedDisk::new();
    let file = disk.create_file(path("f")).unwrap();
    file.write_at(b"bytes", 0).unwrap();
    drop(file);
    disk.sync_dir(path("")).unwrap();
    let unsynced = states(&disk);
    assert!(unsynced.contains(&Some(vec![])) && unsynced.contains(&Some(b"bytes".to_vec())));
    assert!(!unsynced.contains(&None));

    let disk = SimulatedDisk::new();
    let file = disk.create_file(path("f")).unwrap();
    file.write_at(b"bytes", 0).unwrap();
    file.sync().unwrap();
    assert_eq!(states(&disk), BTreeSet::from([None, Some(b"bytes".to_vec())]));
}

#[test]
fn any_subset_of_directory_changes_survives() {
    let disk = SimulatedDisk::new();
    for name in ["a", "b"] {
        disk.create_file(path(name)).unwrap();
    }
    assert_eq!(name_states(&disk), set(["", "a", "b", "a b"]));
    disk.sync_dir(path("/")).unwrap();
    disk.remove_file(path("a")).unwrap();
    disk.create_dir(path("c")).unwrap();
    assert_eq!(name_states(&disk), set(["a b", "a b c", "b", "b c"]));
}

#[test]
fn a_rename_in_a_directory_is_atomic() {
    let (disk, _) = disk_with(b"old");
    let new = disk.create_file(path("new")).unwrap();
    new.write_at(b"new", 0).unwrap();
    new.sync().unwrap();
    disk.sync_dir(path("")).unwrap();
    disk.rename(path("new"), path("f")).unwrap();
    let replaced = BTreeSet::from([Some(b"old".to_vec()), Some(b"new".to_vec())]);
    assert_eq!(states(&disk), replaced);
    assert_eq!(name_states(&disk), set(["f", "f new"]));
    disk.sync_dir(path("")).unwrap();
    assert_eq!(states(&disk), BTreeSet::from([Some(b"new".to_vec())]));
}

#[test]
fn a_rename_between_directories_is_two_steps() {
    let disk = SimulatedDisk::new();
    for name in ["a", "b", "a/d"] {
        disk.create_dir(path(name)).unwrap();
    }
    disk.create_file(path("a/f")).unwrap();
    for name in ["", "a", "a/d"] {
        disk.sync_dir(path(name)).unwrap();
    }
    disk.rename(path("a/f"), path("b/f")).unwrap();
    disk.rename(path("a/d"), path("b/d")).unwrap();
    let state = |seed| {
        let disk = disk.fork(Crash::PowerLost { seed });
        (names(&disk, "a"), names(&disk, "b"))
    };
    let states: BTreeSet<_> = (0..SEEDS).map(state).collect();
    let has = |a: &str, b: &str| states.contains(&(a.to_owned(), b.to_owned()));
    assert!(has("", "d f") && has("d f", "") && has("", ""));
    assert!(has("d f", "f") || has("f", "d f")); // a file has both names for a while
    let in_both = |(a, b): &(String, String)| a.contains('d') && b.contains('d');
    assert!(!states.iter().any(in_both)); // a directory does not
}

#[test]
fn a_directory_moves_whole() {
    let disk = SimulatedDisk::new();
    disk.create_dir(path("a")).unwrap();
    disk.create_file(path("a/f")).unwrap();
    disk.sync_dir(path("a")).unwrap();
    disk.sync_dir(path("")).unwrap();
    disk.rename(path("a"), path("b")).unwrap();
    assert_eq!(names(&disk, "b"), "f");
    assert_eq!(name_states(&disk), set(["a", "b"]));
    for seed in 0..SEEDS {
        let disk = disk.fork(Crash::PowerLost { seed });
        assert_eq!(names(&disk, &names(&disk, "")), "f");
    }
}

#[test]
fn a_removed_directory_may_come_back_with_what_it_had() {
    let disk = SimulatedDisk::new();
    disk.create_dir(path("a")).unwrap();
    disk.create_file(path("a/f")).unwrap().write_at(b"x", 0).unwrap();
    disk.sync_dir(path("a")).unwrap();
    disk.sync_dir(path("")).unwrap();
    disk.remove_file(path("a/f")).unwrap();
    disk.remove_dir(path("a")).unwrap();
    for n in 0..300 {
        let name = format!("t{n}");
        disk.create_file(path(&name)).unwrap();
        disk.remove_file(path(&name)).unwrap(); // many: unused inodes are swept
    }
    let came_back = |seed| {
        let disk = disk.fork(Crash::PowerLost { seed });
        disk.read_file(path("a/f")).is_ok()
    };
    assert!((0..SEEDS).any(came_back) && !(0..SEEDS).all(came_back));
}

#[test]
fn a_killed_process_loses_nothing_but_power_loss_still_may() {
    let (disk, file) = disk_with(b"old");
    file.write_at(b"new", 0).unwrap();
    file.write_at(b"er", 3).unwrap();
    disk.create_file(path("g")).unwrap();
    let killed = disk.crash(Crash::ProcessKilled);
    assert_eq!(killed.read_file(path("f")).unwrap(), b"newer");
    assert_eq!(names(&killed, ""), "f g");
    let states = states(&killed);
    assert!(states.contains(&Some(b"old".to_vec())) && states.contains(&Some(b"newer".to_vec())));
    assert!(states.contains(&Some(b"new".to_vec()))); // the shorter size
    assert_eq!(name_states(&killed), set(["f", "f g"]));
    let file = killed.open_file(path("f"), Access::Read).unwrap();
    file.sync().unwrap();
    assert_eq!(self::states(&killed), BTreeSet::from([Some(b"newer".to_vec())]));
}

#[test]
fn after_power_loss_everything_found_is_durable() {
    let (disk, file) = disk_with(&[1; 5000]);
    file.write_at(&[2; 5000], 100).unwrap();
    for seed in 0..50 {
        let found = disk.fork(Crash::PowerLost { seed });
        let bytes = found.read_file(path("f")).unwrap();
        let again = found.fork(Crash::PowerLost { seed: seed + 1 });
        assert_eq!(again.read_file(path("f")).unwrap(), bytes);
    }
}

#[test]
fn states_are_named_by_their_seed() {
    let history = || {
        let (disk, file) = disk_with(&[1; 5000]);
        file.write_at(&[2; 3000], 100).unwrap();
        file.write_at(&[3; 5000], 4000).unwrap();
        disk.create_file(path("g")).unwrap();
        disk
    };
    let state = |disk: &SimulatedDisk, seed| {
        let disk = disk.fork(Crash::PowerLost { seed });
        (names(&disk, ""), disk.read_file(path("f")).unwrap())
    };
    let (one, other) = (history(), history());
    let mut states = BTreeSet::new();
    for seed in 0..SEEDS {
        assert_eq!(state(&one, seed), state(&other, seed));
        states.insert(state(&one, seed));
    }
    assert!(states.len() > 200);
    let everything = ("f g".to_owned(), one.read_file(path("f")).unwrap());
    let only_synced = ("f".to_owned(), vec![1; 5000]);
    assert!(states.contains(&everything) && states.contains(&only_synced));
}

#[test]
fn the_crashed_disk_is_dead() {
    let (disk, file) = disk_with(b"x");
    let lock = disk.lock(path("LOCK")).unwrap().unwrap();
    assert!(disk.lock(path("LOCK")).unwrap().is_none());
    let restarted = disk.crash(Crash::ProcessKilled);
    assert!(file.write_at(b"y", 0).is_err());
    assert!(file.sync().is_err() && file.len().is_err());
    assert!(disk.create_file(path("g")).is_err());
    assert!(disk.read_file(path("f")).is_err());
    let next = restarted.lock(path("LOCK")).unwrap().unwrap();
    drop(lock);
    assert!(restarted.lock(path("LOCK")).unwrap().is_none());
    drop(next);
    assert!(restarted.lock(path("LOCK")).unwrap().is_some());
}

#[test]
fn maps_see_later_writes_and_survive_removal() {
    let disk = SimulatedDisk::new();
    let file = disk.create_file(path("f")).unwrap();
    file.allocate(1000).unwrap();
    file.write_at(b"first", 0).unwrap();
    let map = file.map(1000).unwrap();
    file.write_at(b"second", 5).unwrap();
    assert_eq!(map.bytes(0..11).unwrap(), b"firstsecond");
    file.write_at(b"third", 11).unwrap();
    disk.remove_file(path("f")).unwrap();
    drop(file);
    assert_eq!(disk.used_bytes(), 1000);
    let restarted = disk.crash(Crash::PowerLost { seed: 0 });
    drop((disk, restarted));
    assert_eq!(map.bytes(0..16).unwrap(), b"firstsecondthird");
}

#[test]
fn a_mapped_file_grows_within_its_allocation_only() {
    let disk = SimulatedDisk::new();
    let file = disk.create_file(path("f")).unwrap();
    file.allocate(SECTOR_BYTES as u64).unwrap();
    assert_eq!(kind(file.map(513)), ErrorKind::UnexpectedEof);
    let map = file.map(512).unwrap();
    assert_eq!(kind(file.write_at(b"xy", 511)), ErrorKind::Unsupported);
    assert_eq!(kind(file.allocate(513)), ErrorKind::Unsupported);
    drop(map);
    file.write_at(b"xy", 511).unwrap();
    file.allocate(10_000).unwrap();
    assert_eq!(file.len().unwrap(), 10_000);
}

#[test]
fn removed_files_work_through_open_handles() {
    let (disk, file) = disk_with(b"bytes");
    disk.remove_file(path("f")).unwrap();
    file.write_at(b"B", 0).unwrap();
    let mut bytes = [0; 9];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), 5);
    assert_eq!(&bytes[..5], b"Bytes");
    assert_eq!(disk.used_bytes(), 5);
    disk.sync_dir(path("")).unwrap();
    for _ in 0..500 {
        disk.create_file(path("g")).unwrap();
        disk.sync_dir(path("")).unwrap();
        disk.remove_file(path("g")).unwrap(); // many: unused inodes are swept
    }
    file.write_at(b"!", 5).unwrap();
    assert_eq!(disk.used_bytes(), 6);
    drop(file);
    assert_eq!(disk.used_bytes(), 0);
}

#[test]
fn a_failed_sync_may_lose_bytes_even_if_a_later_one_succeeds() {
    let (disk, file) = disk_with(&[1; 2 * SECTOR_BYTES]);
    file.write_at(&[2; 2 * SECTOR_BYTES], 0).unwrap();
    disk.fail_on(Operation::Sync, 0, DiskFault::Error(ErrorKind::Other));
    assert_eq!(kind(file.sync()), ErrorKind::Other);
    file.sync().unwrap();
    assert_eq!(disk.read_file(path("f")).unwrap(), [2; 1024]);
    assert!(states(&disk).contains(&Some(vec![1; 1024])));

    file.write_at(&[2; SECTOR_BYTES], 0).unwrap(); // the same bytes, but written anew
    file.sync().unwrap();
    let states = states(&disk);
    assert!(states.iter().flatten().all(|state| state[..512] == [2; 512]));
    assert!(states.iter().flatten().any(|state| state[512..] == [1; 512]));
}

#[test]
fn a_failed_sync_may_lose_the_size_until_the_file_is_changed() {
    let (disk, file) = disk_with(b"");
    file.allocate(100).unwrap();
    disk.fail_at(0, DiskFault::Error(ErrorKind::Other));
    assert!(file.sync().is_err());
    file.sync().unwrap();
    assert!(states(&disk).contains(&Some(vec![])));
    file.write_at(b"x", 0).unwrap();
    file.sync().unwrap();
    assert_eq!(states(&disk).len(), 1);
}

#[test]
fn a_failed_directory_sync_can_be_repeated() {
    let disk = SimulatedDisk::new();
    disk.create_file(path("f")).unwrap();
    disk.fail_on(Operation::SyncDir, 0, DiskFault::Error(ErrorKind::Other));
    assert!(disk.sync_dir(path("")).is_err());
    assert_eq!(name_states(&disk), set(["", "f"]));
    disk.sync_dir(path("")).unwrap();
    assert_eq!(name_states(&disk), set(["f"]));
}

#[test]
fn faults_strike_the_chosen_call() {
    let (disk, file) = disk_with(b"12345678");
    let before = disk.operations();
    disk.fail_at(1, DiskFault::Error(ErrorKind::TimedOut));
    file.write_at(b"a", 0).unwrap();
    assert_eq!(kind(file.write_at(b"b", 0)), ErrorKind::TimedOut);
    file.write_at(b"c", 0).unwrap();
    assert_eq!(disk.operations() - before, 3);

    disk.fail_on(Operation::Read, 1, DiskFault::ErrorFromThenOn(ErrorKind::TimedOut));
    file.read_at(&mut [0], 0).unwrap();
    assert_eq!(kind(file.read_at(&mut [0], 0)), ErrorKind::TimedOut);
    file.write_at(b"d", 0).unwrap();
    assert_eq!(kind(file.read_at(&mut [0], 0)), ErrorKind::TimedOut);
    disk.clear_faults();
    file.read_at(&mut [0], 0).unwrap();
    assert_eq!(disk.operations_of(Operation::Read), 4);

    disk.fail_at(0, DiskFault::ShortWrite);
    assert_eq!(kind(file.write_at(b"ABCD", 0)), ErrorKind::WriteZero);
    assert_eq!(disk.read_file(path("f")).unwrap(), b"AB345678");
    disk.fail_at(0, DiskFault::Panic);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| file.write_at(b"abcd", 0)));
    assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&"a planned panic"));
    assert_eq!(disk.read_file(path("f")).unwrap(), b"ab345678");
    disk.fail_at(0, DiskFault::ShortWrite);
    disk.fail_at(0, DiskFault::Error(ErrorKind::TimedOut));
    assert_eq!(kind(disk.list(path(""))), ErrorKind::WriteZero);
    disk.list(path("")).unwrap();
}

#[test]
fn a_power_cut_stops_everything() {
    let (disk, file) = disk_with(b"old");
    disk.fail_at(0, DiskFault::PowerCut);
    assert!(file.write_at(b"new", 0).is_err());
    assert!(file.sync().is_err() && disk.create_file(path("g")).is_err());
    disk.clear_faults();
    assert!(file.len().is_err());
    let states = states(&disk);
    assert!(states.contains(&Some(b"old".to_vec())) && states.contains(&Some(b"new".to_vec())));
    let restarted = disk.crash(Crash::PowerLost { seed: 0 });
    assert_eq!(names(&restarted, ""), "f");

    let (disk, file) = disk_with(b"old");
    file.write_at(b"new", 0).unwrap();
    disk.fail_at(0, DiskFault::PowerCut);
    assert!(file.sync().is_err());
    assert!(self::states(&disk).contains(&Some(b"old".to_vec())));
}

#[test]
fn a_full_disk_says_so() {
    let disk = SimulatedDisk::new();
    disk.set_capacity(Some(10_000));
    let file = disk.create_file(path("f")).unwrap();
    file.allocate(8192).unwrap();
    assert_eq!(disk.used_bytes(), 8192);
    assert_eq!(kind(file.allocate(10_001)), ErrorKind::StorageFull);
    file.write_at(&[1; 8192], 0).unwrap(); // the room is there already
    assert_eq!(kind(file.write_at(&[2; 4000], 8000)), ErrorKind::StorageFull);
    assert_eq!(file.len().unwrap(), 10_000); // what fits
    assert_eq!(kind(disk.create_file(path("g"))), ErrorKind::StorageFull);
    assert_eq!(kind(disk.create_dir(path("g"))), ErrorKind::StorageFull);
    assert_eq!(kind(disk.lock(path("g"))), ErrorKind::StorageFull);

    file.release(1..8192).unwrap();
    assert_eq!(disk.used_bytes(), 10_000 - 4096);
    let other = disk.create_file(path("g")).unwrap();
    other.allocate(4000).unwrap();
    assert_eq!(kind(file.write_at(b"x", 5000)), ErrorKind::StorageFull);
    disk.remove_file(path("g")).unwrap();
    drop(other);
    file.write_at(b"x", 5000).unwrap();
    assert_eq!(disk.used_bytes(), 10_000);
    let restarted = disk.crash(Crash::ProcessKilled);
    let file = restarted.open_file(path("f"), Access::Write).unwrap();
    assert_eq!(kind(file.write_at(b"x", 10_000)), ErrorKind::StorageFull);
}

#[test]
fn released_room_that_comes_back_is_used_again() {
    let (disk, file) = disk_with(&[1; 8192]);
    file.release(0..8192).unwrap();
    let used = |seed| disk.fork(Crash::PowerLost { seed }).used_bytes();
    let seen: BTreeSet<_> = (0..SEEDS).map(used).collect();
    assert!(seen.contains(&0) && seen.contains(&8192));
}

#[test]
fn a_stalled_sync_covers_what_was_written_before_it() {
    let (disk, file) = disk_with(&[1; 1024]);
    for version in 2..=12 {
        file.write_at(&[version; 1024], 0).unwrap();
    }
    disk.stall_syncs(true);
    let syncing = thread::spawn({
        let file = Arc::clone(&file);
        move || file.sync()
    });
    while disk.operations_of(Operation::Sync) < 2 {
        thread::yield_now();
    }
    for version in 13..60 {
        file.write_at(&[version; 1024], 0).unwrap();
    }
    file.write_at(&[0], 1024).unwrap();
    assert!(states(&disk).contains(&Some(vec![1; 1024])));
    disk.stall_syncs(false);
    syncing.join().unwrap().unwrap();
    let states = states(&disk);
    assert!(states.contains(&Some(vec![12; 1024])));
    let synced = states.iter().flatten().map(|state| &state[..1024]);
    assert!(synced.flatten().all(|&byte| byte >= 12));
    assert!(states.iter().flatten().any(|state| state.len() == 1025));
}

#[test]
fn a_crash_ends_stalled_syncs() {
    let (disk, file) = disk_with(b"x");
    disk.stall_syncs(true);
    let syncing = thread::spawn(move || file.sync());
    let naming = thread::spawn({
        let disk = disk.clone();
        move || disk.sync_dir(path(""))
    });
    while disk.operations_of(Operation::Sync) + disk.operations_of(Operation::SyncDir) < 4 {
        thread::yield_now();
    }
    let restarted = disk.crash(Crash::ProcessKilled);
    assert!(syncing.join().unwrap().is_err() && naming.join().unwrap().is_err());
    restarted.sync_dir(path("")).unwrap();
}

#[test]
fn errors_are_those_of_a_file_system() {
    let (disk, _) = disk_with(b"x");
    disk.create_dir(path("/d/")).unwrap();
    disk.create_file(path("./d/../d/g")).unwrap();
    assert_eq!(names(&disk, "/d"), "g");
    assert_eq!(kind(disk.create_dir(path("/"))), ErrorKind::AlreadyExists);
    assert_eq!(kind(disk.create_dir(path("f"))), ErrorKind::AlreadyExists);
    assert_eq!(kind(disk.create_file(path("f"))), ErrorKind::AlreadyExists);
    assert_eq!(kind(disk.create_file(path("x/y"))), ErrorKind::NotFound);
    assert_eq!(kind(disk.create_file(path("f/y"))), ErrorKind::NotADirectory);
    assert_eq!(kind(disk.open_file(path("x"), Access::Read)), ErrorKind::NotFound);
    assert_eq!(kind(disk.open_file(path("d"), Access::Read)), ErrorKind::IsADirectory);
    assert_eq!(kind(disk.lock(path("d"))), ErrorKind::IsADirectory);
    assert_eq!(kind(disk.list(path("f"))), ErrorKind::NotADirectory);
    assert_eq!(kind(disk.sync_dir(path("x"))), ErrorKind::NotFound);
    assert_eq!(kind(disk.remove_file(path("d"))), ErrorKind::IsADirectory);
    assert_eq!(kind(disk.remove_file(path("x"))), ErrorKind::NotFound);
    assert_eq!(kind(disk.remove_dir(path("f"))), ErrorKind::NotADirectory);
    assert_eq!(kind(disk.remove_dir(path("d"))), ErrorKind::DirectoryNotEmpty);
    assert_eq!(kind(disk.remove_dir(path("/"))), ErrorKind::ResourceBusy);
    assert_eq!(kind(disk.rename(path("x"), path("y"))), ErrorKind::NotFound);
    assert_eq!(kind(disk.rename(path("f"), path("d"))), ErrorKind::IsADirectory);
    assert_eq!(kind(disk.rename(path("d"), path("f"))), ErrorKind::NotADirectory);
    assert_eq!(kind(disk.rename(path("d"), path("d/e"))), ErrorKind::InvalidInput);
    disk.rename(path("d"), path("d")).unwrap();
    disk.create_dir(path("e")).unwrap();
    assert_eq!(kind(disk.rename(path("e"), path("d"))), ErrorKind::DirectoryNotEmpty);
    disk.rename(path("d"), path("e")).unwrap();
    assert_eq!(names(&disk, ""), "e f");

    let file = disk.open_file(path("f"), Access::Read).unwrap();
    assert_eq!(kind(file.write_at(b"x", 0)), ErrorKind::PermissionDenied);
    assert_eq!(kind(file.allocate(9)), ErrorKind::PermissionDenied);
    let file = disk.open_file(path("f"), Access::Write).unwrap();
    assert!(file.write_at(b"x", u64::MAX).is_err() && file.allocate(u64::MAX).is_err());
    assert_eq!(file.read_at(&mut [0], u64::MAX).unwrap(), 0);
    file.write_at(b"x", 3).unwrap();
    assert_eq!(disk.read_file(path("f")).unwrap(), b"x\0\0x");
}

#[test]
fn names_that_are_never_synced_do_not_pile_up() {
    let disk = SimulatedDisk::new();
    for n in 0..5000_u32 {
        disk.create_file(path("new")).unwrap().write_at(&[1; 100], 0).unwrap();
        disk.rename(path("new"), path("f")).unwrap();
        if n % 1000 == 0 {
            disk.create_file(path(&format!("g{n}"))).unwrap();
        }
    }
    assert_eq!(disk.used_bytes(), 100);
    assert!(disk.shared.state.lock().tree.inode_count() < 3000);
    assert!(!states(&disk).contains(&None)); // old enough to have been written by itself
}

#[test]
fn damage_is_at_rest() {
    let (disk, file) = disk_with(&[1; 600]);
    file.write_at(&[2; 600], 0).unwrap();
    disk.damage(path("f"), |bytes| bytes[550] ^= 0xff).unwrap();
    let mut expected = vec![2; 600];
    expected[550] ^= 0xff;
    assert_eq!(states(&disk), BTreeSet::from([Some(expected)]));
    file.write_at(&[3; 600], 0).unwrap();
    assert!(states(&disk).contains(&Some(vec![3; 600])));
}

#[test]
fn a_state_can_be_exported() {
    let (disk, _) = disk_with(b"bytes");
    disk.create_dir(path("d")).unwrap();
    disk.create_dir(path("d/e")).unwrap();
    disk.create_file(path("d/g")).unwrap().write_at(b"more", 0).unwrap();
    let real = tempfile::tempdir().unwrap();
    let to = real.path().join("state");
    disk.export(path("/"), &to).unwrap();
    assert_eq!(fs::read(to.join("f")).unwrap(), b"bytes");
    assert_eq!(fs::read(to.join("d/g")).unwrap(), b"more");
    assert!(to.join("d/e").is_dir());
}

#[test]
fn both_storages_do_the_same() {
    let real = tempfile::tempdir().unwrap();
    let simulated = SimulatedDisk::new();
    let of_disk = trace(&crate::storage::Disk, real.path());
    assert_eq!(trace(&simulated, path("/")), of_disk);
}

/// What a program sees that uses a storage in a directory.
fn trace(storage: &dyn Storage, top: &Path) -> Vec<String> {
    let file = storage.create_file(&top.join("a")).unwrap();
    let mut seen = vec![format!("{:?}", storage.create_file(&top.join("a")).map_err(|e| e.kind()).err())];
    file.write_at(b"hello", 3).unwrap();
    file.allocate(5000).unwrap();
    file.release(4..6).unwrap();
    let map = file.map(5000).unwrap();
    file.write_at(b"later", 100).unwrap();
    seen.push(format!("{:?} {:?}", file.len().unwrap(), map.bytes(0..110)));
    storage.create_dir(&top.join("d")).unwrap();
    storage.rename(&top.join("a"), &top.join("d/b")).unwrap();
    storage.sync_dir(&top.join("d")).unwrap();
    seen.push(format!("{:?}", storage.list(&top.join("d")).unwrap()));
    seen.push(format!("{:?}", storage.remove_dir(&top.join("d")).map_err(|e| e.kind())));
    let lock = storage.lock(&top.join("LOCK")).unwrap();
    seen.push(format!("{:?}", storage.lock(&top.join("LOCK")).unwrap().is_some()));
    drop(lock);
    seen.push(format!("{:?}", storage.lock(&top.join("LOCK")).unwrap().is_some()));
    let mut names = storage.list(top).unwrap();
    names.sort();
    seen.push(format!("{names:?}"));
    seen
}

#[test]
fn a_sync_in_place_makes_durable_only_what_was_durable_before_and_written_again() {
    let (disk, file) = disk_with(&[]);
    file.allocate(4096).unwrap();
    file.write_at(&[1; 1024], 0).unwrap();
    file.sync().unwrap();
    file.write_at(&[2; 1536], 0).unwrap();
    file.sync_in_place().unwrap();
    let kept: BTreeSet<_> = states(&disk).into_iter().map(|state| state.unwrap()[..1536].to_vec()).collect();
    let with_end = |byte| [vec![2; 1024], vec![byte; 512]].concat();
    assert!(kept.contains(&with_end(0)) && kept.contains(&with_end(2)));
    assert!(kept.iter().all(|state| state[..1024] == [2; 1024]), "what was there before is durable");
}
