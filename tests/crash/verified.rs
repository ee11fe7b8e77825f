//! What a verification says of one state after another: of those that a crash leaves, nothing; of those that it cannot leave, where they are wrong.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anabranch::storage::{Operation, Storage};
use anabranch::{
    Crash, DiskFault, Error, ErrorKind, ManualClock, RecordsStart, RetentionPeriod, ShardId, SimulatedDisk,
    Stream, VerifyOptions, VerifyProgress, VerifyReport, verify,
};

use crate::damage::{FOOTER, HEADER, Sample, frames};
use crate::history::{PATH, builder};
use crate::opening::Meanwhile;

fn try_verify(disk: &SimulatedDisk) -> anabranch::Result<VerifyReport> {
    verify(PATH, VerifyOptions { storage: Some(Arc::new(disk.clone())), progress: None })
}

pub(crate) fn report(disk: &SimulatedDisk) -> VerifyReport {
    try_verify(disk).unwrap()
}

fn shard_directory(id: u32) -> PathBuf {
    Path::new(PATH).join(format!("shards/{id:012}"))
}

/// The segment files of the first shard, ascending.
pub(crate) fn segments(disk: &SimulatedDisk) -> Vec<PathBuf> {
    let directory = shard_directory(0);
    let mut paths: Vec<_> =
        disk.list(&directory).unwrap().into_iter().map(|entry| directory.join(entry.name)).collect();
    paths.sort();
    paths
}

pub(crate) fn is_sealed(disk: &SimulatedDisk, path: &Path) -> bool {
    let bytes = disk.read_file(path).unwrap();
    bytes.len() >= FOOTER && bytes[bytes.len() - FOOTER..].starts_with(b"ANABREND")
}

fn forget_watermark(disk: &SimulatedDisk) {
    disk.damage(&Path::new(PATH).join("WATERMARK"), |bytes| bytes.fill(0)).unwrap();
}

/// A stream of one shard with three of these records in a segment.
pub(crate) fn create(disk: &SimulatedDisk) -> Stream {
    let made = builder(disk, &Arc::new(ManualClock::default())).segment_bytes(4096);
    made.retention(RetentionPeriod::Unlimited).create(PATH).unwrap()
}

pub(crate) const RECORD: [u8; 1000] = [1; 1000];

pub(crate) fn put(stream: &Stream, records: usize) {
    for _ in 0..records {
        stream.put("key", RECORD).unwrap();
    }
}

/// What a process leaves that is killed after this many records, without the notes of what was durable.
fn killed_after(records: usize) -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    let stream = create(&disk);
    put(&stream, records);
    let left = disk.crash(Crash::ProcessKilled);
    forget_watermark(&left);
    left
}

#[test]
fn each_segment_is_counted_once_whatever_is_found() {
    for sample in [Sample::closed(), Sample::killed()] {
        let segments = sample.segments();
        let bytes: u64 = segments.iter().map(|path| sample.disk.read_file(path).unwrap().len() as u64).sum();
        let opens = |disk: &SimulatedDisk| disk.operations_of(Operation::OpenFile);
        let mut opened = Vec::new();
        for is_damaged in [false, true] {
            let disk = sample.copy();
            if is_damaged {
                disk.damage(&segments[0], |bytes| bytes[HEADER + 50] ^= 1).unwrap();
            }
            let mut seen = Vec::new();
            let mut progress = |now: VerifyProgress| seen.push(now);
            let before = opens(&disk);
            let options = VerifyOptions { storage: Some(Arc::new(disk.clone())), progress: Some(&mut progress) };
            assert!(format!("{options:?}").contains("SimulatedDisk"));
            let report = verify(PATH, options).unwrap();
            opened.push(opens(&disk) - before);
            assert_eq!(report.is_sound(), !is_damaged);
            assert_eq!((report.segments, report.bytes), (segments.len() as u64, bytes));
            assert_eq!(seen.len(), segments.len());
            assert!(seen.iter().all(|now| now.bytes_total == bytes), "{seen:?}");
            assert!(
                seen.is_sorted_by(|one, next| one.bytes_done < next.bytes_done && one.records <= next.records)
            );
            let last = seen.last().unwrap();
            assert_eq!((last.bytes_done, last.records), (bytes, report.records));
            assert!(is_damaged || report.records == sample.contents.len() as u64);
        }
        if report(&sample.copy()).clean_close {
            assert_eq!(
                opened[0] + 1,
                opened[1],
                "of a closed stream, damage is believed once the manifest is still the same"
            );
        }
    }
}

#[test]
fn a_call_that_fails_ends_a_verification() {
    let sample = Sample::killed();
    let whole = sample.copy();
    let before = whole.operations();
    assert!(report(&whole).is_sound());
    for nth in 0..whole.operations() - before {
        let disk = sample.copy();
        disk.fail_at(nth, DiskFault::Error(io::ErrorKind::Other));
        let refusal = try_verify(&disk).map(|report| report.damage);
        assert_eq!(refusal.as_ref().err().map(Error::kind), Some(ErrorKind::Io), "call {nth}: {refusal:?}");
    }
}

#[test]
fn directories_of_shards_are_missed_and_others_are_not_minded() {
    let sample = Sample::closed();
    let damage = |disk: &SimulatedDisk| {
        let damage = report(disk).damage;
        damage.iter().map(|damage| damage.shard_id.unwrap().get()).collect::<Vec<_>>()
    };
    let next = u32::try_from(report(&sample.copy()).shards).unwrap();
    let disk = sample.copy();
    for newer in [next, next + 1] {
        disk.create_dir(&shard_directory(newer)).unwrap();
    }
    assert_eq!(damage(&disk), [0; 0], "made for a split that came to nothing");
    for (error, is_told) in [(io::ErrorKind::NotFound, false), (io::ErrorKind::Other, true)] {
        let disk = disk.fork(Crash::ProcessKilled);
        disk.fail_on(Operation::List, 1, DiskFault::Error(error));
        assert_eq!(try_verify(&disk).is_err(), is_told, "{error:?} from the list of one of them");
    }
    disk.create_file(&shard_directory(next).join("anything")).unwrap();
    assert_eq!(damage(&disk), [next]);
    disk.create_file(&shard_directory(next + 1).join("anything")).unwrap();
    assert_eq!(damage(&disk), [next, next + 1]);

    for id in 0..next {
        let disk = sample.copy();
        let directory = shard_directory(id);
        let files = disk.list(&directory).unwrap();
        for entry in &files {
            disk.remove_file(&directory.join(&entry.name)).unwrap();
        }
        assert_eq!(damage(&disk).is_empty(), files.is_empty(), "nothing is in it");
        disk.remove_dir(&directory).unwrap();
        assert_eq!(damage(&disk), [id], "it is gone");
    }
}

/// Removed between two looks, without a writer that says so in the manifest: another look is taken.
#[test]
fn a_file_that_went_between_two_looks_is_looked_for_again() {
    let sample = Sample::closed();
    let disk = sample.copy();
    let opens = disk.operations_of(Operation::OpenFile);
    assert!(report(&disk).is_sound());
    let opens = disk.operations_of(Operation::OpenFile) - opens;
    let (mut sound, mut damaged, mut refused) = (0, 0, 0);
    for nth in 0..opens {
        let disk = sample.copy();
        disk.fail_on(Operation::OpenFile, nth, DiskFault::Error(io::ErrorKind::NotFound));
        match try_verify(&disk) {
            Ok(report) if report.is_sound() => sound += 1,
            Ok(_) => damaged += 1,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NotFound, "open {nth}: {error:?}");
                refused += 1;
            }
        }
    }
    assert_eq!((damaged, refused), (1, 1), "WATERMARK, and MANIFEST");
    assert_eq!(sound, opens - 2, "each segment, for its length and for its records, and each file beside the log");
}

/// A directory that cannot be listed is not said to be missing.
#[test]
fn a_path_that_leads_nowhere_is_told_from_one_that_cannot_be_read() {
    let disk = SimulatedDisk::new();
    assert!(matches!(try_verify(&disk), Err(Error::StreamNotFound(_))));
    disk.fail_on(Operation::List, 0, DiskFault::Error(io::ErrorKind::PermissionDenied));
    assert!(matches!(try_verify(&disk), Err(Error::Io { .. })));
}

/// The writer died at any write of a roll. Between two looks of a verification, its next life removes an empty segment that was listed, and has not come to the
/// manifest yet.
#[test]
fn a_look_beside_a_recovery_is_repeated() {
    let mut removed = 0;
    for nth in 0.. {
        let disk = SimulatedDisk::new();
        let stream = create(&disk);
        put(&stream, 3);
        disk.fail_on(Operation::Write, nth, DiskFault::Error(io::ErrorKind::Other));
        let is_whole = stream.put("key", RECORD).is_ok();
        let left = disk.crash(Crash::ProcessKilled);
        drop(stream);
        let mut happened = true;
        for at in 0.. {
            let disk = left.fork(Crash::ProcessKilled);
            let before = segments(&disk).len();
            let storage = Meanwhile::before(at..at + 1, &disk, {
                let disk = disk.clone();
                move || {
                    disk.fail_on(Operation::Rename, 0, DiskFault::Error(io::ErrorKind::Other));
                    builder(&disk, &Arc::default()).open_existing(PATH).unwrap_err();
                }
            });
            let name = format!("write {nth} failed, before look {at}");
            let report = verify(PATH, VerifyOptions { storage: Some(storage.clone()), progress: None });
            let report = report.unwrap_or_else(|error| panic!("{name}: {error:?}"));
            assert!(report.is_sound(), "{name}: {:?}", report.damage);
            removed += before - segments(&disk).len();
            happened = storage.looks() > at;
            if !happened {
                break;
            }
        }
        assert!(!happened, "it happened before every look");
        if is_whole {
            break;
        }
    }
    assert!(removed > 0, "no recovery removed a segment");
}

/// Cut at every call of a roll, and of the first segment of an opening.
#[test]
fn a_roll_or_a_creation_that_is_cut_short_is_no_damage() {
    let mut rolled = 0;
    for reopened in [false, true] {
        for at in 0.. {
            let disk = SimulatedDisk::new();
            let stream = create(&disk);
            put(&stream, 3);
            let stream = if reopened {
                stream.close().unwrap();
                builder(&disk, &Arc::new(ManualClock::default())).open_existing(PATH).unwrap()
            } else {
                stream
            };
            disk.fail_at(at, DiskFault::PowerCut);
            let is_done = stream.put("key", RECORD).is_ok();
            for crash in [Crash::ProcessKilled, Crash::PowerLost { seed: at }] {
                let left = disk.fork(crash);
                let found = report(&left);
                assert!(found.is_sound(), "cut at {at}, {crash:?}: {:?}", found.damage);
                assert_eq!(found.segments, segments(&left).len() as u64, "cut at {at}, {crash:?}");
                rolled += u64::from(check_successor(&left));
            }
            if is_done {
                break;
            }
        }
    }
    assert!(rolled > 2, "a sealed segment and its empty successor");
}

/// A verification finds it; an opening refuses it and changes nothing, or reading does.
fn assert_refused(disk: &SimulatedDisk, case: &str) {
    assert!(!report(disk).is_sound(), "{case}");
    let files = segments(disk);
    let bytes = |path: &PathBuf| disk.read_file(path).ok();
    let before: Vec<_> = files.iter().map(bytes).collect();
    match builder(disk, &Arc::default()).open_existing(PATH) {
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{case}: {error:?}");
            assert!(files.iter().map(bytes).eq(before), "{case}: the opening changed something");
        }
        Ok(stream) => {
            let mut records = stream.records(RecordsStart::TrimHorizon).unwrap();
            assert!(records.available().any(|record| record.is_err()), "{case}: it was read");
        }
    }
}

/// Behind a segment that says that it was full, another one must be; whether the state was that.
fn check_successor(disk: &SimulatedDisk) -> bool {
    let files = segments(disk);
    let [.., before, newest] = files.as_slice() else { return false };
    let bytes = disk.read_file(newest).unwrap();
    let is_empty = bytes.len() > HEADER && frames(&bytes).is_empty();
    if !is_sealed(disk, before) || !is_empty || !was_full(disk, before) {
        return false;
    }
    for is_gone in [true, false] {
        let damaged = disk.fork(Crash::ProcessKilled);
        forget_watermark(&damaged);
        if is_gone {
            damaged.remove_file(newest).unwrap();
        } else {
            damaged.damage(newest, |bytes| bytes[..HEADER].fill(0)).unwrap();
        }
        assert_refused(&damaged.fork(Crash::ProcessKilled), &format!("gone: {is_gone}"));
        assert!(!report(&damaged).is_sound());
        for nth in 0..damaged.operations() {
            let disk = damaged.fork(Crash::ProcessKilled);
            disk.fail_at(nth, DiskFault::Error(io::ErrorKind::Other));
            let outcome = try_verify(&disk);
            assert!(outcome.is_err() || disk.operations() <= nth, "call {nth} fails: {outcome:?}");
        }
    }
    true
}

/// Whether the footer says that the segment was full.
fn was_full(disk: &SimulatedDisk, path: &Path) -> bool {
    let bytes = disk.read_file(path).unwrap();
    bytes[bytes.len() - FOOTER + 12] == 1
}

/// States that no crash leaves, though nothing but the segments themselves tells.
#[test]
fn segments_tell_what_is_wrong_with_each_other() {
    let whole = killed_after(10);
    let files = segments(&whole);
    assert_eq!(files.len(), 4);
    assert!(report(&whole).is_sound());
    let (second_newest, newest) = (&files[2], &files[3]);
    let no_footer = |bytes: &mut Vec<u8>| {
        let footer = bytes.len() - FOOTER;
        bytes[footer..].fill(0);
    };
    let no_record = |bytes: &mut Vec<u8>| {
        let last = *frames(bytes).last().unwrap();
        bytes[last..].fill(0);
    };
    let damaged = |case: &str, change: &dyn Fn(&SimulatedDisk)| {
        let disk = whole.fork(Crash::ProcessKilled);
        change(&disk);
        assert_refused(&disk, case);
    };
    for (index, path) in files[..3].iter().enumerate() {
        damaged(&format!("segment {index} has no footer"), &|disk| disk.damage(path, no_footer).unwrap());
        damaged(&format!("segment {index} is gone"), &|disk| disk.remove_file(path).unwrap());
        damaged(&format!("segment {index} has no last record"), &|disk| disk.damage(path, no_record).unwrap());
    }
    // With its last record, it would be what an interrupted recovery leaves: nothing is missing.
    damaged("the newest segment is torn, the one before has no footer and no last record", &|disk| {
        disk.damage(second_newest, no_record).unwrap();
        disk.damage(second_newest, no_footer).unwrap();
        disk.damage(newest, |bytes| bytes[HEADER + 50] ^= 1).unwrap();
    });
    for whole in [whole.fork(Crash::ProcessKilled), killed_after(2)] {
        let newest = segments(&whole).pop().unwrap();
        whole.damage(&newest, |bytes| bytes[..HEADER].fill(0)).unwrap();
        assert_refused(&whole, "the newest segment has no header, but a record");
    }
}

/// A gap before the empty successor of a roll, and the segment before the gap is sealed.
#[test]
fn a_gap_before_an_empty_segment_is_damage_if_the_one_before_was_full() {
    let mut tried = 0;
    for at in 0.. {
        let disk = SimulatedDisk::new();
        let stream = create(&disk);
        put(&stream, 6);
        disk.fail_at(at, DiskFault::PowerCut);
        let is_done = stream.put("key", RECORD).is_ok();
        let left = disk.fork(Crash::ProcessKilled);
        let files = segments(&left);
        if files.len() == 3 {
            forget_watermark(&left);
            left.remove_file(&files[1]).unwrap();
            assert!(!report(&left).is_sound(), "cut at {at}");
            tried += 1;
        }
        if is_done {
            break;
        }
    }
    assert!(tried > 3, "{tried}");
}

#[test]
fn a_shard_that_ends_too_early_or_too_late_is_damage() {
    for is_killed in [false, true] {
        let disk = SimulatedDisk::new();
        let stream = create(&disk);
        stream.put("key", RECORD).unwrap();
        let left = if is_killed {
            disk.crash(Crash::ProcessKilled)
        } else {
            stream.close().unwrap();
            disk.fork(Crash::ProcessKilled)
        };
        assert!(report(&left).is_sound());
        left.remove_file(&segments(&left)[0]).unwrap();
        let damage = report(&left).damage;
        assert_eq!(damage.len(), 1, "killed: {is_killed}: {damage:?}");
        assert_eq!(damage[0].shard_id, Some(ShardId::new(0)));
        assert_eq!(damage[0].first_sequence_number, Some(0.into()));
    }
    let disk = SimulatedDisk::new();
    let stream = create(&disk);
    stream.close().unwrap();
    let manifest = Path::new(PATH).join("MANIFEST");
    let older = disk.read_file(&manifest).unwrap();
    let stream = builder(&disk, &Arc::new(ManualClock::default())).open_existing(PATH).unwrap();
    stream.put("key", RECORD).unwrap();
    stream.close().unwrap();
    assert!(report(&disk).is_sound());
    disk.damage(&manifest, |bytes| *bytes = older).unwrap();
    assert!(!report(&disk).is_sound(), "the manifest ends the shard before its record");
}
