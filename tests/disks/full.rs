//! Full disks: the workload with so many bytes left, from none up to more than a segment.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::Path;

use anabranch::{Durability, Stream};

use crate::check::Ledger;
use crate::fuse::Fuse;
use crate::image::{Event, Image};
use crate::mount::{FileSystem, Mount};
use crate::power::number;
use crate::workload;

const CASES: u64 = 24;
/// Steps below the size of a segment, and no multiple of a block.
const STEP: u64 = 53_000;

/// Fills each of these up, and demands: an error and no signal, nothing acknowledged missing, readers that go on, and a stream that goes on after
/// room was made.
pub(crate) fn disks(file_systems: &[&FileSystem], work: &Path) {
    for file_system in file_systems {
        let cases = number("FULL_CASES", CASES);
        let refused: u64 = (0..cases).map(|case| run(file_system, work, case)).sum();
        let most = cases.saturating_sub(1) * STEP;
        println!("{}: {cases} disks with 0 to {most} bytes left: {refused} openings refused", file_system.name);
    }
}

/// Whether an opening was refused.
fn run(file_system: &FileSystem, work: &Path, number: u64) -> u64 {
    let durability = if number.is_multiple_of(2) { Durability::Synced } else { Durability::Buffered };
    let case = format!("{}, {} bytes left, {durability:?}", file_system.name, number * STEP);
    let fuse = Fuse::mount(&work.join("disks"));
    let disk = fuse.add_disk(Image::default(), file_system.bytes);
    file_system.make(&disk);
    let mount = file_system.mount(&disk, &work.join("mount")).expect("a new file system");
    let marks = work.join("marks");
    File::create(&marks).unwrap();
    // A stream is there before in two of three cases; in the third its creation meets the full disk.
    if !number.is_multiple_of(3) {
        workload::live(&mount.stream(), &marks, durability, number, 0);
    }
    fill(&mount, number * STEP);
    for life in 1..3 {
        workload::live(&mount.stream(), &marks, durability, number, life);
    }
    let marks = std::fs::read_to_string(&marks).unwrap();
    let events: Vec<_> = marks.lines().map(|line| Event::Mark(line.to_owned())).collect();
    let ledger = Ledger::of(&events);
    assert!(number.is_multiple_of(3) || ledger.len() > 80, "{case}: {} records were acknowledged", ledger.len());
    if let Ok(stream) = Stream::builder().open_read_only(mount.stream()) {
        ledger.demand(&stream, &case);
    } else {
        assert_eq!(ledger.len(), 0, "{case}: readers go on");
    }
    std::fs::remove_file(mount.path().join("filler")).unwrap();
    ledger.check(&mount.stream(), durability, &case);
    drop(mount);
    fuse.discard();
    ledger.refused
}

/// Takes all room but this much.
fn fill(mount: &Mount, left: u64) {
    let reserve = mount.path().join("reserve");
    let mut file = File::create(&reserve).unwrap();
    file.write_all(&vec![1; usize::try_from(left).unwrap()]).unwrap();
    file.sync_all().unwrap();
    let mut filler = File::create(mount.path().join("filler")).unwrap();
    for piece in [1 << 20, 4096, 1] {
        let bytes = vec![1; piece];
        loop {
            match filler.write(&bytes) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => panic!("filling: {error}"),
            }
        }
        let _ = filler.sync_all();
    }
    std::fs::remove_file(reserve).unwrap();
    File::open(mount.path()).unwrap().sync_all().unwrap();
}
