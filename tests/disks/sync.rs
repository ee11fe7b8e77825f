//! A flush fails while several files are being synced: whoever was told that its sync succeeded must find what it wrote.
//!
//! It is the storage alone, without a stream around it: in 14 of 40 runs ext4's own `fdatasync` broke the promise (Linux 6.18), in 7 of 100 that of
//! XFS. See `anabranch::Disk`.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use anabranch::storage::{Access, Disk, Storage, StorageFile};

use crate::fuse::Fuse;
use crate::image::{Cut, Event, Image, Random, Rest};
use crate::mount::FileSystem;
use crate::power::number;

const FILES: u8 = 3;
const WRITES: u64 = 200;
const BLOCK: usize = 4096;

/// Fails a flush in runs on each of these.
pub(crate) fn failures(file_systems: &[&FileSystem], work: &Path) {
    for file_system in file_systems.iter().filter(|file_system| file_system.has_disk()) {
        let runs = number("SYNC_RUNS", 40);
        let failed: u64 = (0..runs).map(|seed| u64::from(run(file_system, seed, work))).sum();
        println!("{}: a flush failed beside syncs, {runs} runs: {failed} syncs failed", file_system.name);
        assert!(runs == 0 || failed >= runs / 2, "the syncs did not meet the flush");
    }
}

/// One run; whether a sync failed in it.
fn run(file_system: &FileSystem, seed: u64, work: &Path) -> bool {
    let fuse = Fuse::mount(&work.join("disks"));
    let disk = fuse.add_disk(Image::default(), file_system.bytes);
    file_system.make(&disk);
    let before = fuse.image();
    drop(fuse.take_events());
    let mut random = Random(seed);
    let mount = file_system.mount(&disk, &work.join("mount")).expect("a new file system");
    fuse.fail_flush(Some(5 + random.below(60)));
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["writers".as_ref(), mount.path().as_os_str(), fuse.marks().as_os_str()]);
    assert!(child.status().unwrap().success(), "{} seed {seed}", file_system.name);
    fuse.fail_flush(None);
    drop(mount);

    let events = fuse.take_events();
    let state = Cut { at: events.len(), rest: Rest::Everything }.state(&before, &events, &mut random);
    fuse.discard();
    let disk = fuse.add_disk(state, file_system.bytes);
    let mount = file_system.mount(&disk, &work.join("mount")).expect("everything was written");
    let failed = check(mount.path(), &events, &format!("{} seed {seed}", file_system.name));
    drop(mount);
    fuse.discard();
    failed
}

/// Demands every block whose sync was a success; whether a sync failed.
fn check(directory: &Path, events: &[Event], case: &str) -> bool {
    let mut failed = false;
    for event in events {
        let Event::Mark(mark) = event else { continue };
        let Some(synced) = mark.strip_prefix("synced ") else {
            failed = true;
            continue;
        };
        let (file, block) = synced.split_once(' ').unwrap();
        let opened = Disk.open_file(&directory.join(file), Access::Read);
        let opened = opened.unwrap_or_else(|error| panic!("{case}: {mark}: {error}"));
        let mut found = [0; BLOCK];
        opened.read_at(&mut found, block.parse::<u64>().unwrap() * BLOCK as u64).unwrap();
        let expected = file.parse::<u8>().unwrap() + 1;
        assert!(found.iter().all(|byte| *byte == expected), "{case}: {mark}, but it is not there");
    }
    failed
}

/// What the process started by [`run`] does: each of its threads writes a file of its own and syncs after each block, until that fails.
pub(crate) fn main(directory: &Path, marks: &Path) {
    let marks = Mutex::new(OpenOptions::new().append(true).create(true).open(marks).unwrap());
    thread::scope(|scope| {
        for number in 0..FILES {
            let marks = &marks;
            scope.spawn(move || {
                let mark = |what: String| marks.lock().unwrap().write_all(what.as_bytes()).unwrap();
                if let Err(error) = write(directory, number, &mark) {
                    mark(format!("failed {number} {error}\n"));
                }
            });
        }
    });
}

fn write(directory: &Path, number: u8, mark: &impl Fn(String)) -> std::io::Result<()> {
    let file: Arc<dyn StorageFile> = Disk.create_file(&directory.join(number.to_string()))?;
    Disk.sync_dir(directory)?;
    file.allocate(1 << 20)?;
    for block in 0..WRITES {
        file.write_at(&[number + 1; BLOCK], block * BLOCK as u64)?;
        file.sync()?;
        mark(format!("synced {number} {block}\n"));
    }
    Ok(())
}
