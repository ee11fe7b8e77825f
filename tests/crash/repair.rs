//! Damage of every kind is mended: what was sound stays, what is gone is named, and nothing is deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anabranch::storage::{Operation, Storage};
use anabranch::{
    Crash, DiskFault, Durability, Error, ErrorKind, HashKey, LostRange, Pipeline, PutEntry, PutOptions,
    QueueOptions, Record, RecordsStart, RepairReport, SalvageReport, Salvaged, ShardId, ShardIteratorType,
    SimulatedDisk, Timestamp, VerifyOptions, Work, WorkerOptions, repair, salvage, verify,
};

use crate::Random;
use crate::damage::{Contents, FOOTER, HEADER, Sample, files_of, frames, sample};
use crate::history::{PATH, builder};
use crate::opening::{with_a_misplaced_segment, with_a_misplaced_segment_of_no_shard};
use crate::verified;

/// A record's place.
type Place = (ShardId, u64);

#[allow(clippy::unnecessary_wraps, reason = "it is what the calls take")]
fn storage(disk: &SimulatedDisk) -> Option<Arc<dyn Storage>> {
    Some(Arc::new(disk.clone()))
}

/// Damages a record in the first segment of the first shard, and repairs the closed stream.
fn lose_record(disk: &SimulatedDisk, index: usize) {
    let path = Path::new(PATH).join(format!("shards/{:012}/{:020}.seg", 0, 0));
    let at = frames(&disk.read_file(&path).unwrap())[index];
    disk.damage(&path, |bytes| bytes[at + 50] ^= 1).unwrap();
    assert_eq!(repair(PATH, storage(disk)).unwrap().lost.len(), 1);
}

fn is_in(lost: &[LostRange], (shard_id, number): Place) -> bool {
    lost.iter().any(|range| range.shard_id == shard_id && (range.first.get()..=range.last.get()).contains(&number))
}

/// Reads what is sound: right data, each record once, in order; all else is named as lost.
fn check_salvage(sample: &Sample, disk: &SimulatedDisk, case: &str) -> (BTreeSet<Place>, SalvageReport) {
    let mut found = BTreeSet::new();
    let mut last = None;
    let report = salvage(PATH, storage(disk), |item| {
        if let Salvaged::Record(record) = item {
            let place = (record.shard_id, record.sequence_number.get());
            assert_eq!(sample.contents.get(&place).map(Vec::as_slice), Some(record.data), "{case}: {place:?}");
            assert!(last.replace(place) < Some(place), "{case}: {place:?} after {last:?}");
            found.insert(place);
        }
        ControlFlow::Continue(())
    })
    .unwrap_or_else(|error| panic!("{case}: salvage: {error}"));
    assert_eq!(report.records, found.len() as u64, "{case}");
    if report.manifest.is_none() {
        for place in sample.contents.keys() {
            let told = found.contains(place) || is_in(&report.lost, *place);
            assert!(told, "{case}: {place:?} is neither given nor said to be lost");
        }
    }
    (found, report)
}

/// Mends a damaged disk and uses the stream; gives how many records are lost.
fn check_repair(sample: &Sample, disk: &SimulatedDisk, case: &str) -> usize {
    let (salvaged, _) = check_salvage(sample, disk, case);
    let before: Vec<(PathBuf, Vec<u8>)> = existing(sample, disk);
    let report = repair(PATH, storage(disk)).unwrap_or_else(|error| panic!("{case}: repair: {error:?}"));
    let kept: Vec<_> = report.set_aside.iter().map(|path| disk.read_file(path).unwrap()).collect();
    for (path, bytes) in before {
        let stays = disk.read_file(&path).is_ok_and(|now| now == bytes);
        assert!(stays || kept.contains(&bytes), "{case}: {} is gone", path.display());
    }
    check_repaired(sample, disk, &report, &salvaged, case);
    sample.contents.len() - salvaged.len()
}

/// What a record is beside its number and its data.
type Identity = (u64, Timestamp, String, Option<HashKey>);

fn identity(record: &Record) -> Identity {
    let key = record.partition_key().to_owned();
    (record.incarnation(), record.arrival(), key, record.explicit_hash_key())
}

/// Those of the records before the damage; nothing of a sample that is put together of two states, and does not open.
fn identities(sample: &Sample) -> BTreeMap<Place, Identity> {
    let Ok(stream) = builder(&sample.copy(), &sample.clock).open_existing(PATH) else { return BTreeMap::new() };
    let mut records = stream.records(RecordsStart::TrimHorizon).unwrap();
    let records = records.available().map(Result::unwrap);
    records.map(|record| ((record.shard_id(), record.sequence_number().get()), identity(&record))).collect()
}

fn existing(sample: &Sample, disk: &SimulatedDisk) -> Vec<(PathBuf, Vec<u8>)> {
    let segments = sample.segments().into_iter();
    segments.filter_map(|path| disk.read_file(&path).ok().map(|bytes| (path, bytes))).collect()
}

fn check_repaired(
    sample: &Sample,
    disk: &SimulatedDisk,
    report: &RepairReport,
    salvaged: &BTreeSet<Place>,
    case: &str,
) {
    assert!(!report.before.is_sound(), "{case}: there was damage");
    assert!(report.after.is_sound(), "{case}: damage is left: {:?}", report.after.damage);
    for place in sample.contents.keys().filter(|place| !salvaged.contains(place)) {
        assert!(is_in(&report.lost, *place), "{case}: {place:?} is lost, and nobody says so");
    }
    let stream = builder(disk, &sample.clock).open_existing(PATH).expect("an opening after a repair");
    let original = identities(sample);
    let mut read = BTreeSet::new();
    for shard in stream.shards() {
        let id = shard.shard_id;
        let mut iterator = stream.shard_iterator(id, ShardIteratorType::TrimHorizon).unwrap();
        for record in iterator.available() {
            match record {
                Ok(record) => {
                    let place = (id, record.sequence_number().get());
                    assert_eq!(sample.contents[&place], record.data(), "{case}: {place:?}");
                    let original = original.get(&place).cloned().unwrap_or_else(|| identity(&record));
                    assert_eq!(identity(&record), original, "{case}: {place:?}");
                    assert!(read.insert(place), "{case}: {place:?} twice");
                }
                Err(Error::Lost { shard_id, first, last }) => {
                    assert_eq!(shard_id, id, "{case}");
                    let told = report.lost.iter().find(|lost| lost.shard_id == id && lost.first == first);
                    assert_eq!(told.map(|lost| lost.last), Some(last), "{case}");
                }
                Err(error) => panic!("{case}: reading a repaired stream: {error:?}"),
            }
        }
        let lost: u64 = report
            .lost
            .iter()
            .filter(|lost| lost.shard_id == id)
            .map(|lost| lost.last.since(lost.first) + 1)
            .sum();
        let description = stream.describe().unwrap();
        let description = description.shards.iter().find(|shard| shard.summary.shard_id == id).unwrap();
        assert_eq!(description.lost_records, lost, "{case}: {id}");
        assert_eq!(description.records, read.range((id, 0)..=(id, u64::MAX)).count() as u64, "{case}: {id}");
    }
    assert_eq!(read, *salvaged, "{case}: what was sound stays");
    for range in &report.lost {
        let asked = stream.get(range.shard_id, range.first).unwrap_err();
        assert_eq!(asked.kind(), ErrorKind::Lost, "{case}: {asked:?}");
    }
    let mut all = stream.records(RecordsStart::TrimHorizon).unwrap();
    let all: Vec<_> = all.available().collect();
    assert_eq!(all.iter().filter(|record| record.is_ok()).count(), read.len(), "{case}");

    sample.assert_remembered(&stream, case);
    // No number that stood for something is given again, and what comes now is as durable as ever.
    for (index, id) in stream.open_shards().into_iter().enumerate() {
        let range = stream.shards().into_iter().find(|shard| shard.shard_id == id).unwrap().hash_key_range;
        let options = PutOptions::new().explicit_hash_key(range.start());
        let receipt = stream.put_with("later", index.to_string(), options).unwrap();
        let highest = sample.contents.range((id, 0)..=(id, u64::MAX)).map(|((_, number), _)| *number).max();
        assert!(Some(receipt.sequence_number.get()) > highest, "{case}: {receipt:?} names another record");
    }
    let disk = disk.crash(Crash::PowerLost { seed: 7 });
    drop(stream);
    let options = VerifyOptions { storage: storage(&disk), progress: None };
    let verified = verify(PATH, options).unwrap();
    assert!(verified.is_sound(), "{case}: after use and a crash: {:?}", verified.damage);
    let stream = builder(&disk, &sample.clock).open_existing(PATH).expect("an opening after a repair and a crash");
    stream.close().unwrap();
}

#[test]
fn every_kind_of_damage_is_mended_and_costs_only_what_it_hit() {
    for (name, sample) in [("closed", Sample::closed()), ("killed", Sample::killed())] {
        for path in sample.segments() {
            let bytes = sample.disk.read_file(&path).unwrap();
            let sealed = bytes[bytes.len() - FOOTER..].starts_with(b"ANABREND");
            let starts = frames(&bytes);
            let footer = bytes.len() - FOOTER;
            // (where, how many records stood there)
            let mut flips = vec![(0, 0), (8, 0), (20, 0), (44, 0), (HEADER - 1, 0)];
            flips.extend(starts.iter().flat_map(|start| [(start + 4, 1), (start + 41, 1)]));
            if sealed {
                flips.extend([(footer, 0), (footer + 30, 0), (footer + 127, 0)]);
            }
            for (at, lost) in flips {
                let case = format!("{name}: {} byte {at}", path.display());
                let disk = sample.copy();
                disk.damage(&path, |bytes| bytes[at] ^= 0x20).unwrap();
                assert_eq!(check_repair(&sample, &disk, &case), lost, "{case}");
            }
        }
    }
}

#[test]
fn sectors_of_noise_zeros_and_missing_ends_are_mended() {
    let mut random = Random::new(3);
    let mut lost = 0;
    for sample in [Sample::closed(), Sample::killed()] {
        for path in sample.segments() {
            for round in 0..12 {
                let disk = sample.copy();
                let len = sample.disk.read_file(&path).unwrap().len();
                let at = random.index(len / 512) * 512;
                let cut = random.index(len);
                disk.damage(&path, |bytes| match round % 4 {
                    0 => bytes[at..(at + 512).min(len)].fill(0),
                    1 => bytes[at..(at + 512).min(len)].fill_with(|| random.next().to_le_bytes()[0]),
                    2 => bytes.truncate(cut),
                    _ => bytes.extend(vec![9; 4096]),
                })
                .unwrap();
                let case = format!("{} round {round} at {at}, cut {cut}", path.display());
                let options = VerifyOptions { storage: storage(&disk), progress: None };
                if verify(PATH, options).is_ok_and(|report| !report.is_sound()) {
                    lost += check_repair(&sample, &disk, &case);
                } else {
                    check_salvage(&sample, &disk, &case);
                }
            }
        }
    }
    assert!(lost > 0, "some of it hit records");
}

/// A killed writer's segment, with many records behind a front that cannot be read: only what stood in the front is lost.
#[test]
fn a_bad_front_of_an_unsealed_segment_costs_what_stood_in_it() {
    let (disk, clock) = (SimulatedDisk::new(), Arc::new(anabranch::ManualClock::default()));
    let stream = builder(&disk, &clock).create(PATH).unwrap();
    let mut contents = Contents::new();
    for number in 0..100_u8 {
        let receipt = stream.put("key", [number; 300]).unwrap();
        contents.insert((receipt.shard_id, receipt.sequence_number.get()), vec![number; 300]);
    }
    let disk = disk.crash(Crash::ProcessKilled);
    drop(stream);
    let sample = Sample { disk, clock, contents };
    let mut random = Random::new(5);
    let [path] = &sample.segments()[..] else { panic!("{:?}", sample.segments()) };
    let starts = frames(&sample.disk.read_file(path).unwrap());
    let in_front = |bytes: usize| starts.iter().filter(|start| **start < bytes).count();
    for (bytes, is_noise) in [(512, false), (512, true), (4096, false), (4096, true)] {
        let disk = sample.copy();
        let mut byte = || if is_noise { random.next().to_le_bytes()[0] } else { 0 };
        disk.damage(path, |all| all[..bytes].fill_with(&mut byte)).unwrap();
        let case = format!("{bytes} bytes, noise: {is_noise}");
        assert_eq!(check_repair(&sample, &disk, &case), in_front(bytes), "{case}");
    }
    let disk = sample.copy();
    disk.make_unreadable(path, 0..1).unwrap();
    let (found, _) = check_salvage(&sample, &disk, "unreadable");
    assert_eq!(sample.contents.len() - found.len(), in_front(4096), "what is read at once is lost at once");
}

#[test]
fn missing_and_swapped_files_are_mended() {
    for (name, sample) in [("closed", Sample::closed()), ("killed", Sample::killed())] {
        let segments = sample.segments();
        for (index, path) in segments.iter().enumerate() {
            let disk = sample.copy();
            disk.remove_file(path).unwrap();
            let lost = check_repair(&sample, &disk, &format!("{name}: {} is gone", path.display()));
            assert!(lost > 0);

            let other = &segments[(index + 1) % segments.len()];
            let (one, two) = (sample.disk.read_file(path).unwrap(), sample.disk.read_file(other).unwrap());
            let disk = sample.copy();
            disk.damage(path, |bytes| *bytes = two).unwrap();
            disk.damage(other, |bytes| *bytes = one).unwrap();
            check_repair(&sample, &disk, &format!("{name}: {} swapped with the next", path.display()));
        }
        let disk = sample.copy();
        disk.remove_file(&Path::new(PATH).join("WATERMARK")).unwrap();
        assert_eq!(check_repair(&sample, &disk, "WATERMARK is gone"), 0);
    }
}

#[test]
fn without_a_manifest_the_records_are_salvaged_and_nothing_is_changed() {
    let sample = Sample::closed();
    let manifest = Path::new(PATH).join("MANIFEST");
    for damaged_at in [None, Some(40), Some(8)] {
        let disk = sample.copy();
        match damaged_at {
            None => disk.remove_file(&manifest).unwrap(),
            Some(at) => disk.damage(&manifest, |bytes| bytes[at] ^= 4).unwrap(),
        }
        let (found, report) = check_salvage(&sample, &disk, "no MANIFEST");
        let reason = report.manifest.unwrap().reason;
        assert_eq!(reason.contains("missing"), damaged_at.is_none(), "{reason}");
        assert_eq!(found.len(), sample.contents.len(), "all of it can be read");
        let before = disk.operations();
        let refusal = repair(PATH, storage(&disk)).unwrap_err();
        assert!(matches!(refusal.kind(), ErrorKind::Corrupt | ErrorKind::NotFound), "{refusal:?}");
        assert!(disk.operations() - before < 10, "nothing was tried");
    }
}

/// Records that were put after the manifest was copied, in shards that it does not know.
const IN_NEWER_SHARD: &[u8] = b"in one that it does not";

fn behind_an_older_manifest() -> Sample {
    let (disk, clock, stream, contents) = sample(Durability::Synced);
    stream.close().unwrap();
    let manifest = Path::new(PATH).join("MANIFEST");
    let older = disk.read_file(&manifest).unwrap();
    let stream = builder(&disk, &clock).open_existing(PATH).unwrap();
    let mut sample = Sample { disk, clock, contents };
    let mut put = |stream: &anabranch::Stream, text: &[u8]| {
        let options = PutOptions::new().explicit_hash_key(HashKey::new(u128::MAX));
        let receipt = stream.put_with("partition", text, options).unwrap();
        sample.contents.insert((receipt.shard_id, receipt.sequence_number.get()), text.to_vec());
    };
    put(&stream, b"in a shard that the manifest knows");
    stream.split_shard(ShardId::new(1), None).unwrap();
    put(&stream, IN_NEWER_SHARD);
    stream.close().unwrap();
    sample.disk.damage(&manifest, |bytes| *bytes = older).unwrap();
    sample
}

#[test]
fn behind_an_older_manifest_nothing_is_deleted() {
    let sample = behind_an_older_manifest();
    let disk = sample.copy();
    let (found, _) =
        check_salvage(&Sample { contents: sample.contents.clone(), ..sample_of(&sample) }, &disk, "older");
    assert_eq!(found.len(), sample.contents.len(), "salvage reads the shards that the manifest does not know");
    let report = repair(PATH, storage(&disk)).unwrap();
    assert!(report.after.is_sound(), "{:?}", report.after.damage);
    let given = salvage(PATH, storage(&disk), |_| ControlFlow::Continue(())).unwrap().records;
    assert_eq!(given, sample.contents.len() as u64 - 1, "what was set aside is not in its place any more");
    let stream = builder(&disk, &sample.clock).open_existing(PATH).unwrap();
    assert_eq!(stream.records(RecordsStart::TrimHorizon).unwrap().available().count(), sample.contents.len() - 1);
    let of_shards: BTreeSet<_> = report.before.damage.iter().filter_map(|damage| damage.shard_id).collect();
    assert!(of_shards.len() >= 2, "each shard that the manifest does not know is named: {of_shards:?}");
    let newer: Vec<_> = report.set_aside.iter().map(|path| disk.read_file(path).unwrap()).collect();
    let is_newer = |bytes: &Vec<u8>| bytes.windows(IN_NEWER_SHARD.len()).any(|window| window == IN_NEWER_SHARD);
    assert!(newer.iter().any(is_newer), "set aside, whole");
    expect_new_ids(&stream, "repaired");
}

/// Wherever a repair is cut short, the ids of the shards that it set aside are known to be taken.
#[test]
fn behind_an_older_manifest_no_id_is_given_again_whenever_the_power_goes() {
    let sample = behind_an_older_manifest();
    for at in 0.. {
        let cut = sample.copy();
        cut.fail_at(at, DiskFault::PowerCut);
        let is_whole = repair(PATH, storage(&cut)).is_ok();
        for crash in [Crash::ProcessKilled, Crash::PowerLost { seed: at }, Crash::PowerLost { seed: !at }] {
            let case = format!("cut at {at}, {crash:?}");
            let disk = cut.fork(crash);
            let report = repair(PATH, storage(&disk)).unwrap_or_else(|error| panic!("{case}: {error:?}"));
            assert!(report.after.is_sound(), "{case}: {:?}", report.after.damage);
            expect_new_ids(&builder(&disk, &sample.clock).open_existing(PATH).unwrap(), &case);
        }
        if is_whole {
            break;
        }
    }
}

/// The shards that were set aside are 4 and 5.
fn expect_new_ids(stream: &anabranch::Stream, case: &str) {
    let (left, right) = stream.split_shard(stream.open_shards()[0], None).unwrap();
    assert!(left > ShardId::new(5) && right > left, "{case}: ids are used again: {left}, {right}");
}

/// Puts the files of a stream back as they were, and removes those that came later; all but WATERMARK.
fn put_back(sample: &Sample, files: &BTreeMap<PathBuf, Vec<u8>>) {
    for path in sample.files().iter().filter(|path| !path.ends_with("WATERMARK")) {
        if let Some(older) = files.get(path) {
            sample.disk.damage(path, |bytes| bytes.clone_from(older)).unwrap();
        } else {
            sample.disk.remove_file(path).unwrap();
            sample.disk.sync_dir(path.parent().unwrap()).unwrap();
        }
    }
}

/// An older copy of the manifest and the segments, whose end a clean close said, and notes of what came later: those numbers were given.
#[test]
fn behind_an_older_copy_of_all_but_the_watermark_no_number_is_given_again() {
    let (disk, clock) = (SimulatedDisk::new(), Arc::new(anabranch::ManualClock::default()));
    let mut sample = Sample { disk: disk.clone(), clock: Arc::clone(&clock), contents: Contents::new() };
    let stream = builder(&disk, &clock).create(PATH).unwrap();
    let mut put_ten = |stream: anabranch::Stream| {
        for _ in 0..10 {
            let receipt = stream.put("key", [1; 100]).unwrap();
            sample.contents.insert((receipt.shard_id, receipt.sequence_number.get()), vec![1; 100]);
        }
        stream.close().unwrap();
    };
    put_ten(stream);
    let read = |sample: &Sample| {
        let read = |path: PathBuf| (path.clone(), sample.disk.read_file(&path).unwrap());
        sample.files().into_iter().map(read).collect::<BTreeMap<_, _>>()
    };
    let older = read(&Sample { disk: disk.clone(), clock: Arc::clone(&clock), contents: Contents::new() });
    put_ten(builder(&disk, &clock).open_existing(PATH).unwrap());
    let watermark = disk.read_file(&Path::new(PATH).join("WATERMARK")).unwrap();
    put_back(&sample, &older);
    let behind = sample.copy();
    assert_eq!(check_repair(&sample, &behind, "an older copy"), 10);

    // Of a shard that is closed, the numbers behind its end are its children's: there the note is wrong.
    let path = Path::new(PATH).join("WATERMARK");
    disk.damage(&path, |bytes| bytes.clone_from(&older[&path])).unwrap();
    let stream = builder(&disk, &clock).open_existing(PATH).unwrap();
    stream.split_shard(ShardId::new(0), None).unwrap();
    let receipt = stream.put("key", [2; 100]).unwrap();
    stream.close().unwrap();
    sample.contents.retain(|(_, number), _| *number < 10);
    sample.contents.insert((receipt.shard_id, receipt.sequence_number.get()), vec![2; 100]);
    disk.damage(&path, |bytes| bytes.clone_from(&watermark)).unwrap();
    let report = repair(PATH, storage(&sample.copy())).unwrap();
    assert_eq!((report.lost, report.set_aside.len()), (vec![], 1));
    assert_eq!(check_repair(&sample, &disk, "notes of another copy"), 0);
}

fn sample_of(sample: &Sample) -> Sample {
    Sample { disk: sample.disk.clone(), clock: Arc::clone(&sample.clock), contents: sample.contents.clone() }
}

#[test]
fn a_second_repair_takes_up_what_the_first_found_lost() {
    let sample = Sample::closed();
    let path = sample.segments()[0].clone();
    let starts = frames(&sample.disk.read_file(&path).unwrap());
    let disk = sample.copy();
    disk.damage(&path, |bytes| bytes[starts[2] + 50] ^= 1).unwrap();
    let first = repair(PATH, storage(&disk)).unwrap();
    assert_eq!(first.lost.len(), 1);
    let again = repair(PATH, storage(&disk)).unwrap();
    assert!(again.before.is_sound() && again.set_aside.is_empty(), "a sound stream is left alone");
    assert_eq!(again.before.lost, first.lost, "and still says what it has lost");
    let neighbour = disk.fork(Crash::ProcessKilled);
    disk.damage(&path, |bytes| bytes[HEADER + 50] ^= 1).unwrap();
    check_repair(&sample, &disk, "damaged a second time");
    neighbour.damage(&path, |bytes| bytes[starts[1] + 50] ^= 1).unwrap();
    check_repair(&sample, &neighbour, "damaged beside what was lost");
}

/// After a repair, a sound copy of the damaged file is put back, over what the repair made of its front: it holds what was lost before the next file of the
/// repair, and what is in that as well.
#[test]
fn a_sound_copy_that_is_put_back_is_used() {
    let mut states = 0;
    for (name, sample) in [("closed", Sample::closed()), ("killed", Sample::killed())] {
        let path = sample.segments()[0].clone();
        let copy = sample.disk.read_file(&path).unwrap();
        let starts = frames(&copy);
        let damage = |disk: &SimulatedDisk, record: usize| {
            disk.damage(&path, |bytes| bytes[starts[record] + 50] ^= 1).unwrap();
        };
        // (what was lost, what is damaged in the copy, what is lost in the end)
        for (first, second, lost) in
            [(&[2][..], None, 0), (&[2, 4], None, 1), (&[2], Some(0), 1), (&[2], Some(2), 1)]
        {
            let case = format!("{name}: {first:?}, then {second:?}");
            let disk = sample.copy();
            for record in first {
                damage(&disk, *record);
            }
            assert_eq!(repair(PATH, storage(&disk)).unwrap().lost.len(), first.len(), "{case}");
            disk.damage(&path, |bytes| bytes.clone_from(&copy)).unwrap();
            if let Some(record) = second {
                damage(&disk, record);
            }
            let whole = disk.fork(Crash::ProcessKilled);
            assert_eq!(check_repair(&sample, &whole, &case), lost, "{case}");
            let (salvaged, _) = check_salvage(&sample, &disk, &case);
            for at in 0.. {
                let cut = disk.fork(Crash::ProcessKilled);
                cut.fail_at(at, DiskFault::PowerCut);
                let is_whole = repair(PATH, storage(&cut)).is_ok();
                let cut = cut.fork(Crash::PowerLost { seed: at });
                let case = format!("{case}, cut at {at}");
                let report = repair(PATH, storage(&cut)).unwrap_or_else(|error| panic!("{case}: {error:?}"));
                assert!(report.after.is_sound(), "{case}: {:?}", report.after.damage);
                assert_eq!(check_salvage(&sample, &cut, &case).0, salvaged, "{case}");
                states += 1;
                if is_whole {
                    break;
                }
            }
        }
    }
    println!("{states} states");
}

/// Copied and written again is what is damaged, and nothing else.
#[test]
fn only_what_is_damaged_is_replaced() {
    let sample = Sample::closed();
    let segments = sample.segments();
    let names = |paths: &[PathBuf]| {
        let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        paths.iter().map(name).collect::<Vec<_>>()
    };
    let copy_of = |path: &Path| {
        let shard = path.parent().unwrap().file_name().unwrap().to_str().unwrap();
        format!("{shard}-{}", path.file_name().unwrap().to_str().unwrap())
    };
    for path in &segments {
        let bytes = sample.disk.read_file(path).unwrap();
        let starts = frames(&bytes);
        let case = path.display();
        for (index, start) in starts.iter().enumerate() {
            let disk = sample.copy();
            disk.damage(path, |bytes| bytes[start + 50] ^= 1).unwrap();
            let report = repair(PATH, storage(&disk)).unwrap();
            assert!(report.after.is_sound(), "{case}: {:?}", report.after.damage);
            assert_eq!(names(&report.set_aside), [copy_of(path)], "{case}");
            assert!(report.set_aside[0].starts_with(Path::new(PATH).join("damaged/1")));
            assert_eq!(report.records_rewritten, starts.len() as u64 - 1, "{case}");
            if index > 0 {
                let found = disk.read_file(path).unwrap();
                let producers = usize::from(found[found.len() - FOOTER + 76]);
                let expected = start + (4 * index).next_multiple_of(8) + 72 * producers + FOOTER;
                assert_eq!(found.len(), expected, "{case}: no longer than it must be");
            }
        }
        let disk = sample.copy();
        disk.remove_file(path).unwrap();
        let report = repair(PATH, storage(&disk)).unwrap();
        assert!(report.after.is_sound(), "{case} is gone: {:?}", report.after.damage);
        assert_eq!((names(&report.set_aside), report.records_rewritten), (vec![], 0), "{case} is gone");
    }
    let disk = sample.copy();
    for directory in ["damaged/1", "damaged/2"] {
        disk.damage(&segments[0], |bytes| bytes[HEADER + 50] ^= 1).unwrap();
        let report = repair(PATH, storage(&disk)).unwrap();
        assert!(
            report.set_aside.iter().all(|path| path.starts_with(Path::new(PATH).join(directory))),
            "{report:?}"
        );
    }
}

/// A process that is killed in a roll leaves a segment that is sealed, or not, and a successor that is empty; and a record was damaged
/// before.
#[test]
fn a_repair_beside_a_roll_that_was_cut_short() {
    let mut with_successor = 0;
    for at in 0.. {
        let disk = SimulatedDisk::new();
        let stream = verified::create(&disk);
        verified::put(&stream, 6);
        disk.fail_at(at, DiskFault::PowerCut);
        let is_done = stream.put("key", verified::RECORD).is_ok();
        let left = disk.fork(Crash::ProcessKilled);
        let files = verified::segments(&left);
        with_successor += u64::from(files.len() == 3 && verified::is_sealed(&left, &files[1]));
        left.damage(&files[0], |bytes| bytes[HEADER + 50] ^= 1).unwrap();
        let report = repair(PATH, storage(&left)).unwrap();
        assert!(report.after.is_sound(), "cut at {at}: {:?}", report.after.damage);
        assert_eq!(report.lost.len(), 1, "cut at {at}");
        let stream = builder(&left, &Arc::default()).open_existing(PATH).unwrap();
        let mut records = stream.records(RecordsStart::TrimHorizon).unwrap();
        let read = records.available().filter_map(Result::ok).count();
        assert!(read >= 5 && (!is_done || read == 6), "cut at {at}: {read}");
        stream.put("key", verified::RECORD).unwrap();
        if is_done {
            break;
        }
    }
    assert!(with_successor > 2, "{with_successor}");
}

/// Three records that were synced before the process was killed; some are damaged.
fn with_damaged_records(damaged: &[usize]) -> (SimulatedDisk, PathBuf) {
    let disk = SimulatedDisk::new();
    let stream = verified::create(&disk);
    verified::put(&stream, 3);
    let left = disk.crash(Crash::ProcessKilled);
    drop(stream);
    let path = verified::segments(&left)[0].clone();
    assert!(!verified::is_sealed(&left, &path));
    let starts = frames(&left.read_file(&path).unwrap());
    left.damage(&path, |bytes| damaged.iter().for_each(|at| bytes[starts[*at] + 50] ^= 1)).unwrap();
    (settled(&left), path)
}

/// Of the three records these are lost, and the number of none is given again.
fn expect_lost(damaged: &[usize], disk: &SimulatedDisk, case: &str) {
    let report = repair(PATH, storage(disk)).unwrap_or_else(|error| panic!("{case}: {error:?}"));
    assert!(report.after.is_sound(), "{case}: {:?}", report.after.damage);
    let stream =
        builder(disk, &Arc::default()).open_existing(PATH).unwrap_or_else(|error| panic!("{case}: {error:?}"));
    let shard_id = ShardId::new(0);
    for (index, number) in [0_usize, 1, 2].into_iter().zip(0_u64..) {
        let told = stream.get(shard_id, number.into()).map(drop).map_err(|error| error.kind());
        let expected = if damaged.contains(&index) { Err(ErrorKind::Lost) } else { Ok(()) };
        assert_eq!(told, expected, "{case}: {number}");
    }
    assert_eq!(stream.put("key", b"more").unwrap().sequence_number.get(), 3, "{case}");
}

/// A repair puts what stands for the lost record in place before it replaces the segment in front, which has no footer. That is no roll that was cut
/// short, also where the power took the note of what was durable.
#[test]
fn a_repair_that_is_cut_short_behind_a_lost_record_is_run_again() {
    for (damaged, marker) in [(&[2][..], 2), (&[0, 2], 2), (&[1, 2], 1)] {
        let between = cut_short_behind_a_lost_record(damaged, marker);
        assert!(between > 2, "{damaged:?}: {between}");
    }
}

/// Gives in how many states the last marker was in place, and the segment in front was not replaced yet.
fn cut_short_behind_a_lost_record(damaged: &[usize], marker: u64) -> u64 {
    let (disk, path) = with_damaged_records(damaged);
    let marker = path.with_file_name(format!("{marker:020}.seg"));
    let mut between = 0;
    for (case, disk) in cuts_of_a_repair(&disk, DiskFault::PowerCut) {
        let case = format!("{damaged:?}, {case}");
        if disk.read_file(&marker).is_ok() {
            expect_lost(damaged, &without_notes(&disk), &format!("{case}, nothing noted"));
            between += u64::from(!verified::is_sealed(&disk, &path));
        }
        expect_lost(damaged, &disk, &case);
    }
    between
}

/// What a repair leaves that meets this at one call that changes something, for each of these; then as it is, or behind a power cut.
fn cuts_of_a_repair(disk: &SimulatedDisk, fault: DiskFault) -> impl Iterator<Item = (String, SimulatedDisk)> {
    let whole = disk.fork(Crash::ProcessKilled);
    repair(PATH, storage(&whole)).unwrap();
    let calls = CHANGES.iter().map(move |call| (*call, whole.operations_of(*call)));
    let calls = calls.flat_map(|(call, times)| (0..times).map(move |nth| (call, nth)));
    let disk = disk.clone();
    calls.flat_map(move |(call, nth)| {
        let cut = disk.fork(Crash::ProcessKilled);
        cut.fail_on(call, nth, fault);
        let _ = repair(PATH, storage(&cut)); // its last calls do not matter to it
        let losses = (0..4).map(move |seed| Crash::PowerLost { seed: 4 * nth + seed });
        let crashes = [Crash::ProcessKilled].into_iter().chain(losses);
        crashes.map(move |crash| (format!("{fault:?} at {call:?} {nth}, {crash:?}"), cut.fork(crash)))
    })
}

/// The disk as the power leaves it if no note of what was durable had come to it.
fn without_notes(disk: &SimulatedDisk) -> SimulatedDisk {
    let unnoted = disk.fork(Crash::ProcessKilled);
    unnoted.damage(&Path::new(PATH).join("WATERMARK"), |bytes| bytes.fill(0)).unwrap();
    unnoted
}

/// A repair was cut short when it had put what stands for the last record in place, which alone tells that there was one. Then the record before is damaged,
/// too: the next repair has one marker for both, and the first one stays until that is there.
#[test]
fn what_stands_for_lost_records_stays_until_another_does() {
    let (disk, path) = with_damaged_records(&[2]);
    let marker = path.with_file_name(format!("{:020}.seg", 2));
    let is_between = |disk: &SimulatedDisk| disk.read_file(&marker).is_ok() && !verified::is_sealed(disk, &path);
    let mut cuts = cuts_of_a_repair(&disk, DiskFault::PowerCut).map(|(_, disk)| disk);
    let disk = without_notes(&cuts.find(is_between).unwrap());
    let second = frames(&disk.read_file(&path).unwrap())[1];
    disk.damage(&path, |bytes| bytes[second + 50] ^= 1).unwrap();
    for (case, disk) in cuts_of_a_repair(&settled(&disk), DiskFault::PowerCut) {
        expect_lost(&[1, 2], &disk, &case);
    }
}

/// A repair was cut short when it had put what stands for records of two segments in place, and not removed the second of them, of which nothing is left. The note of what was
/// durable is gone, too.
#[test]
fn what_stands_for_lost_records_tells_of_those_of_a_file_that_is_left_as_well() {
    let disk = SimulatedDisk::new();
    let stream = verified::create(&disk);
    verified::put(&stream, 5);
    let left = disk.crash(Crash::ProcessKilled);
    drop(stream);
    let paths = verified::segments(&left);
    for (path, damaged) in [(&paths[0], &[2][..]), (&paths[1], &[0, 1])] {
        let starts = frames(&left.read_file(path).unwrap());
        left.damage(path, |bytes| damaged.iter().for_each(|at| bytes[starts[*at] + 50] ^= 1)).unwrap();
    }
    let marker = paths[0].with_file_name(format!("{:020}.seg", 2));
    let mut between = 0;
    for (case, disk) in cuts_of_a_repair(&settled(&left), DiskFault::PowerCut) {
        if disk.read_file(&marker).is_err() {
            continue;
        }
        between += u64::from(disk.read_file(&paths[1]).is_ok());
        let disk = without_notes(&disk);
        let report = repair(PATH, storage(&disk)).unwrap();
        assert!(report.after.is_sound(), "{case}: {:?}", report.after.damage);
        let stream = builder(&disk, &Arc::default()).open_existing(PATH).unwrap();
        let told =
            (0..5).map(|number: u64| stream.get(ShardId::new(0), number.into()).map_err(|error| error.kind()));
        let lost: Vec<_> = told.map(Result::err).collect();
        assert_eq!(
            lost,
            [None, None, Some(ErrorKind::Lost), Some(ErrorKind::Lost), Some(ErrorKind::Lost)],
            "{case}"
        );
        assert_eq!(stream.put("key", b"more").unwrap().sequence_number.get(), 5, "{case}");
    }
    assert!(between > 2, "{between}");
}

/// The footer of the segment in front of what stands for lost records is damaged before anything is put behind.
#[test]
fn a_damaged_footer_before_a_lost_record_is_told() {
    let (disk, path) = with_damaged_records(&[2]);
    repair(PATH, storage(&disk)).unwrap();
    let stream = builder(&disk, &Arc::default()).open_existing(PATH).unwrap();
    let disk = disk.crash(Crash::ProcessKilled);
    drop(stream);
    disk.damage(&path, |bytes| *bytes.last_mut().unwrap() ^= 1).unwrap();
    let damage = verified::report(&disk).damage;
    assert!(damage.iter().any(|damage| damage.path == path), "{damage:?}");
    let before = contents(&disk);
    for _ in 0..2 {
        let refused = builder(&disk, &Arc::default()).open_existing(PATH).map(drop).unwrap_err();
        assert!(matches!(refused, Error::Corrupt(_)), "{refused:?}");
        assert!(contents(&disk) == before, "it is refused again, with nothing changed");
    }
    expect_lost(&[2], &disk, "repaired again");
}

/// What a damaged WATERMARK said is kept, or there is no repair.
#[test]
fn a_watermark_is_not_replaced_without_a_copy() {
    let sample = Sample::closed();
    let path = Path::new(PATH).join("WATERMARK");
    let damaged = sample.copy();
    damaged.damage(&path, |bytes| bytes[3] ^= 1).unwrap();
    let expected = damaged.read_file(&path).unwrap();
    let whole = damaged.fork(Crash::ProcessKilled);
    repair(PATH, storage(&whole)).unwrap();
    for at in 0..whole.operations() {
        let disk = damaged.fork(Crash::ProcessKilled);
        disk.fail_at(at, DiskFault::Error(std::io::ErrorKind::Other));
        if let Ok(report) = repair(PATH, storage(&disk)) {
            let kept = report.set_aside.iter().any(|path| disk.read_file(path).unwrap() == expected);
            assert!(kept, "an error at {at}: {report:?}");
        }
    }
}

fn remove(disk: &SimulatedDisk, directory: &Path) {
    for entry in disk.list(directory).unwrap() {
        let path = directory.join(entry.name);
        if entry.is_dir { remove(disk, &path) } else { disk.remove_file(&path).unwrap() }
    }
    disk.remove_dir(directory).unwrap();
}

/// Where nothing is left of a shard, or of all of them, a salvage goes on with the rest, and says what it counted.
#[test]
fn a_salvage_goes_without_directories() {
    let sample = Sample::closed();
    let shards = Path::new(PATH).join("shards");
    let (_, whole) = check_salvage(&sample, &sample.copy(), "sound");
    let count = sample.disk.list(&shards).unwrap().len() as u64;
    assert_eq!((whole.shards, whole.manifest, whole.lost), (count, None, vec![]));

    let mut directories: Vec<_> = sample.disk.list(&shards).unwrap();
    directories.sort();
    let disk = sample.copy();
    for entry in &directories {
        // One after another: of those that are gone without a trace, a repair knows from the manifest.
        remove(&disk, &shards.join(&entry.name));
        let left = salvage(PATH, storage(&disk), |_| ControlFlow::Continue(())).unwrap();
        assert!(left.manifest.is_none());
        let report = repair(PATH, storage(&disk.fork(Crash::ProcessKilled))).unwrap();
        assert!(report.after.is_sound(), "{}: {:?}", entry.name, report.after.damage);
    }
    let lost =
        |report: &RepairReport| -> u64 { report.lost.iter().map(|range| range.last.since(range.first) + 1).sum() };
    assert_eq!(lost(&repair(PATH, storage(&disk)).unwrap()), sample.contents.len() as u64);

    let disk = sample.copy();
    remove(&disk, &shards);
    let left = salvage(PATH, storage(&disk), |_| ControlFlow::Continue(())).unwrap();
    assert_eq!((left.shards, left.records, left.manifest), (0, 0, None));
    let report = repair(PATH, storage(&disk.fork(Crash::ProcessKilled))).unwrap();
    assert!(report.after.is_sound(), "all of them are gone: {:?}", report.after.damage);
    assert_eq!(lost(&report), sample.contents.len() as u64);
    disk.remove_file(&Path::new(PATH).join("MANIFEST")).unwrap();
    let refusal = salvage(PATH, storage(&disk), |_| ControlFlow::Continue(())).unwrap_err();
    assert_eq!(refusal.kind(), ErrorKind::NotFound, "{refusal:?}");
    for nth in 0..3 {
        let disk = sample.copy();
        disk.fail_on(Operation::List, nth, DiskFault::Error(std::io::ErrorKind::Other));
        let refusal = salvage(PATH, storage(&disk), |_| ControlFlow::Continue(())).unwrap_err();
        assert_eq!(refusal.kind(), ErrorKind::Io, "list {nth}: {refusal:?}");
    }
    let nowhere = salvage("nowhere", storage(&disk), |_| ControlFlow::Continue(())).unwrap_err();
    assert_eq!(nowhere.kind(), ErrorKind::NotFound);
}

/// A MANIFEST that cannot be read or opened is done without, and said; so are the notes of what was durable, and what was staged.
#[test]
fn a_manifest_that_cannot_be_read_costs_a_salvage_nothing() {
    let sample = Sample::closed();
    let manifest = Path::new(PATH).join("MANIFEST");
    let disk = sample.copy();
    disk.make_unreadable(&manifest, 0..1).unwrap();
    let (found, report) = check_salvage(&sample, &disk, "an unreadable MANIFEST");
    assert_eq!(found.len(), sample.contents.len());
    assert_eq!(report.manifest.unwrap().path, manifest);

    let whole = sample.copy();
    let records = salvage(PATH, storage(&whole), |_| ControlFlow::Continue(())).unwrap().records;
    let done_without = |nth: &u64| {
        let disk = sample.copy();
        disk.fail_on(Operation::OpenFile, *nth, DiskFault::Error(std::io::ErrorKind::PermissionDenied));
        let salvaged = salvage(PATH, storage(&disk), |_| ControlFlow::Continue(()));
        salvaged.is_ok_and(|report| report.records == records && report.manifest.is_some() == (*nth == 0))
    };
    let opens = whole.operations_of(Operation::OpenFile);
    let segments = sample.segments().len() as u64;
    assert_eq!((0..opens).filter(done_without).count() as u64, opens - segments);
}

/// Notes of what was durable that cannot be read are done without by a salvage, and end a repair.
#[test]
fn a_watermark_that_cannot_be_read_costs_a_salvage_nothing() {
    let sample = Sample::killed();
    let disk = sample.copy();
    disk.make_unreadable(&Path::new(PATH).join("WATERMARK"), 0..1).unwrap();
    let (found, _) = check_salvage(&sample, &disk, "an unreadable WATERMARK");
    assert_eq!(found.len(), sample.contents.len());

    // Only the notes tell that the last record of a shard was durable: without them it would be cut off behind damage.
    let path = sample.segments().pop().unwrap();
    let starts = frames(&sample.disk.read_file(&path).unwrap());
    let damaged = sample.copy();
    damaged.damage(&path, |bytes| bytes[starts[starts.len() - 2] + 50] ^= 1).unwrap();
    let (salvaged, _) = check_salvage(&sample, &damaged, "before");
    let whole = damaged.fork(Crash::ProcessKilled);
    repair(PATH, storage(&whole)).unwrap();
    for at in 0..whole.operations() {
        let case = format!("an error at {at}");
        let disk = damaged.fork(Crash::ProcessKilled);
        disk.fail_at(at, DiskFault::Error(std::io::ErrorKind::Other));
        let _ = repair(PATH, storage(&disk));
        disk.clear_faults();
        assert_eq!(check_salvage(&sample, &disk, &case).0, salvaged, "{case}");
    }
}

/// Cut at every operation, a repair can be run again and loses nothing that the first run had not lost.
#[test]
fn a_repair_that_is_cut_short_is_run_again() {
    let mut states = 0;
    for (name, sample) in [("closed", Sample::closed()), ("killed", Sample::killed())] {
        let segments = sample.segments();
        let path = &segments[1];
        let starts = frames(&sample.disk.read_file(path).unwrap());
        let damaged = sample.copy();
        damaged
            .damage(path, |bytes| {
                bytes[starts[1] + 50] ^= 1;
                bytes[starts[3] + 50] ^= 1;
            })
            .unwrap();
        damaged.remove_file(&segments[2]).unwrap();
        damaged.sync_dir(segments[2].parent().unwrap()).unwrap();
        let (salvaged, _) = check_salvage(&sample, &damaged, name);
        let whole = damaged.fork(Crash::ProcessKilled);
        repair(PATH, storage(&whole)).unwrap();
        for at in 0..whole.operations() {
            for crash in [Crash::ProcessKilled, Crash::PowerLost { seed: at }, Crash::PowerLost { seed: !at }] {
                let case = format!("{name}: cut at {at}, {crash:?}");
                let disk = damaged.fork(Crash::ProcessKilled);
                disk.fail_at(at, DiskFault::PowerCut);
                let _ = repair(PATH, storage(&disk)); // its last operations do not matter to it
                let disk = disk.fork(crash);
                let (found, _) = check_salvage(&sample, &disk, &case);
                assert_eq!(found, salvaged, "{case}: before the second run");
                let report = repair(PATH, storage(&disk)).unwrap_or_else(|error| panic!("{case}: {error:?}"));
                if report.before.is_sound() {
                    assert!(!report.after.lost.is_empty(), "{case}: the first run was through");
                } else {
                    check_repaired(&sample, &disk, &report, &salvaged, &case);
                }
                states += 1;
            }
        }
    }
    println!("{states} states");
}

/// A call that fails once, a read included, ends a repair and loses nothing: the next one finds what was sound before.
#[test]
fn a_repair_that_meets_an_error_loses_nothing() {
    let sample = Sample::killed();
    let path = &sample.segments()[1];
    let starts = frames(&sample.disk.read_file(path).unwrap());
    let damaged = sample.copy();
    damaged.damage(path, |bytes| bytes[starts[1] + 50] ^= 1).unwrap();
    let (salvaged, _) = check_salvage(&sample, &damaged, "before");
    let whole = damaged.fork(Crash::ProcessKilled);
    repair(PATH, storage(&whole)).unwrap();
    let mut refused = 0;
    for at in 0..whole.operations() {
        let case = format!("an error at {at}");
        let disk = damaged.fork(Crash::ProcessKilled);
        disk.fail_at(at, DiskFault::Error(std::io::ErrorKind::Other));
        refused += u64::from(repair(PATH, storage(&disk)).is_err());
        disk.clear_faults();
        let (found, _) = check_salvage(&sample, &disk, &case);
        assert_eq!(found, salvaged, "{case}: what was sound is there");
        let report = repair(PATH, storage(&disk)).unwrap_or_else(|error| panic!("{case}: {error:?}"));
        assert!(report.after.is_sound(), "{case}");
        assert_eq!(check_salvage(&sample, &disk, &case).0, salvaged, "{case}: after the second run");
    }
    assert!(refused > 20, "most errors end a repair");
}

/// Sectors that the device cannot read: a salvage reads around them and names what stood there; a repair and an opening that has to read them end
/// with the error and change nothing, since the sectors may come back.
#[test]
fn unreadable_sectors_are_read_around_and_change_nothing() {
    for (sample, path) in [Sample::killed(), Sample::closed()].map(|sample| {
        let path = sample.segments().pop().unwrap();
        (sample, path)
    }) {
        let bytes = sample.disk.read_file(&path).unwrap();
        let starts = frames(&bytes);
        for (index, start) in starts.iter().enumerate().skip(1) {
            let case = format!("{} record {index}", path.display());
            let disk = sample.copy();
            let middle = start + 100;
            disk.make_unreadable(&path, middle..middle + 1).unwrap();
            let (found, report) = check_salvage(&sample, &disk, &case);
            // What is read again piece by piece are pages, as the kernel reads them.
            let gone = sample.contents.len() - found.len();
            assert!((1..=10).contains(&gone) && !report.lost.is_empty(), "{case}: {gone} records are gone");
            let sealed = bytes[bytes.len() - FOOTER..].starts_with(b"ANABREND");
            match builder(&disk, &sample.clock).open_existing(PATH) {
                Ok(stream) => {
                    assert!(sealed, "{case}: it was opened without reading it");
                    drop(stream);
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::Io, "{case}: {error:?}"),
            }
            assert_eq!(disk.read_file(&path).unwrap(), bytes, "{case}: an opening changed the file");
            if !sealed {
                let refusal = repair(PATH, storage(&disk)).unwrap_err();
                assert_eq!(refusal.kind(), ErrorKind::Io, "{case}: {refusal:?}");
                assert_eq!(check_salvage(&sample, &disk, &case).0, found, "{case}: after the repair that ended");
            }
        }
    }
}

/// What a crash left behind the end of the log is not handed out, but for what is known to have been durable.
#[test]
fn a_salvage_ends_where_a_recovery_would() {
    let clock = Arc::new(anabranch::ManualClock::default());
    for (synced, given) in [(false, 2), (true, 4)] {
        let disk = SimulatedDisk::new();
        let stream = builder(&disk, &clock).durability(Durability::Buffered).create(PATH).unwrap();
        for _ in 0..2 {
            stream.put("key", [1; 100]).unwrap();
        }
        let batch = [[2; 100], [3; 100], [4; 100]];
        let batch = batch.each_ref().map(|data| PutEntry::new("key", data));
        stream.put_batch(&batch).unwrap();
        if synced {
            stream.sync().unwrap();
        }
        // Reading writes what is staged to the segment, and without the staging file it stands nowhere else.
        let mut reader = stream.shard_iterator(ShardId::new(0), ShardIteratorType::TrimHorizon).unwrap();
        assert_eq!(reader.available().map(Result::unwrap).count(), 5);
        disk.remove_file(&Path::new(PATH).join("STAGING")).unwrap();
        let disk = disk.crash(Crash::ProcessKilled);
        drop(stream);
        let path = Path::new(PATH).join(format!("shards/{:012}/{:020}.seg", 0, 0));
        let starts = frames(&disk.read_file(&path).unwrap());
        disk.damage(&path, |bytes| bytes[starts[3] + 50] ^= 1).unwrap();
        let mut numbers = Vec::new();
        let report = salvage(PATH, storage(&disk), |item| {
            if let Salvaged::Record(record) = item {
                numbers.push(record.sequence_number.get());
            }
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(numbers.len(), given, "{numbers:?}, synced: {synced}");
        assert_eq!(report.lost.len(), usize::from(synced), "{report:?}");
    }
}

/// What a writer staged and did not live to write is salvaged, and a repair of something else keeps it.
#[test]
fn what_was_staged_is_salvaged_and_kept_by_a_repair() {
    let (disk, first, expected) = staged_behind_a_segment();
    assert!(disk.read_file(&Path::new(PATH).join("STAGING")).is_ok());
    let salvaged = |disk: &SimulatedDisk| {
        let report = salvage(PATH, storage(disk), |_| ControlFlow::Continue(())).unwrap();
        (report.records, report.lost.len())
    };
    assert_eq!(salvaged(&disk), (expected, 0));
    disk.damage(&first, |bytes| bytes[128 + 50] ^= 1).unwrap();
    assert_eq!(salvaged(&disk), (expected - 1, 1));
    let report = repair(PATH, storage(&disk)).unwrap();
    assert!(report.after.is_sound(), "{report:?}");
    assert_eq!(report.lost.len(), 1);
    let stream = builder(&disk, &Arc::default()).open_existing(PATH).unwrap();
    let mut reader = stream.shard_iterator(ShardId::new(0), ShardIteratorType::TrimHorizon).unwrap();
    assert_eq!(reader.available().filter_map(Result::ok).count() as u64, expected - 1);
}

/// What was damaged in a segment and stands in STAGING as well is taken from there; the copy is of what was found.
#[test]
fn a_damaged_record_that_is_staged_as_well_is_not_lost() {
    let disk = staged_and_written();
    let path = Path::new(PATH).join(format!("shards/{:012}/{:020}.seg", 0, 0));
    let damaged = disk.read_file(&path).unwrap();
    let report = repair(PATH, storage(&disk)).unwrap();
    assert!(!report.before.is_sound() && report.after.is_sound(), "{report:?}");
    assert_eq!((report.after.records, report.lost), (5, vec![]));
    assert_eq!(copies_in(&disk), [damaged, disk.read_file(&report.set_aside[1]).unwrap()], "and of MANIFEST");
}

/// The last of five records is damaged, though it was synced; the writer was killed before it staged another one in its place.
fn staged_and_written() -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    let stream = builder(&disk, &Arc::default()).durability(Durability::Buffered).create(PATH).unwrap();
    for number in 0..5 {
        stream.put("key", [number; 100]).unwrap();
    }
    stream.sync().unwrap();
    let left = disk.crash(Crash::ProcessKilled);
    drop(stream);
    let path = Path::new(PATH).join(format!("shards/{:012}/{:020}.seg", 0, 0));
    let last = *frames(&left.read_file(&path).unwrap()).last().unwrap();
    left.damage(&path, |bytes| bytes[last + 50] ^= 1).unwrap();
    left
}

/// What a killed writer left: a sealed segment, which is given, and a second one, of which the last records are staged; and how many records.
fn staged_behind_a_segment() -> (SimulatedDisk, PathBuf, u64) {
    let disk = SimulatedDisk::new();
    let small = builder(&disk, &Arc::default()).durability(Durability::Buffered).segment_bytes(4096);
    let stream = small.create(PATH).unwrap();
    for number in 0..40 {
        stream.put("key", [number; 100]).unwrap();
    }
    let records = stream.metrics().records_in;
    let left = disk.crash(Crash::ProcessKilled);
    drop(stream);
    (left, Path::new(PATH).join(format!("shards/{:012}/{:020}.seg", 0, 0)), records)
}

/// Without a manifest and the notes of what was durable, a footer tells what its segment held; and what is lost on both sides of a
/// segment's end is one stretch.
#[test]
fn lost_records_at_the_end_of_a_segment_are_told_by_its_footer() {
    let sample = Sample::closed();
    let segments = sample.segments();
    let shard = segments[0].parent().unwrap();
    let of_shard: Vec<_> = segments.iter().filter(|path| path.starts_with(shard)).collect();
    let (before_last, last) = (of_shard[of_shard.len() - 2], of_shard[of_shard.len() - 1]);
    let place = |path: &Path, last: bool| {
        let starts = frames(&sample.disk.read_file(path).unwrap());
        if last { starts[starts.len() - 1] } else { starts[0] }
    };
    let lost = |damaged: &[(&PathBuf, bool)]| {
        let disk = sample.copy();
        for (path, last) in damaged {
            let at = place(path, *last) + 50;
            disk.damage(path, |bytes| bytes[at] ^= 1).unwrap();
        }
        for witness in ["MANIFEST", "WATERMARK"] {
            disk.remove_file(&Path::new(PATH).join(witness)).unwrap();
        }
        check_salvage(&sample, &disk, "no witness but the footers").1.lost
    };
    let count = |range: &LostRange| range.last.since(range.first) + 1;
    assert_eq!(lost(&[]), []);
    assert_eq!(lost(&[(last, true)]).iter().map(count).collect::<Vec<_>>(), [1]);
    assert_eq!(lost(&[(before_last, true), (last, false)]).iter().map(count).collect::<Vec<_>>(), [2]);
    assert_eq!(lost(&[(before_last, false), (last, true)]).iter().map(count).collect::<Vec<_>>(), [1, 1]);
}

/// A reader may start at a record that is lost, the oldest one too: it is told so, and goes on behind it.
#[test]
fn reading_starts_at_a_lost_record() {
    let (disk, clock) = (SimulatedDisk::new(), Arc::new(anabranch::ManualClock::default()));
    let stream = builder(&disk, &clock).create(PATH).unwrap();
    for _ in 0..3 {
        stream.put("key", [1; 100]).unwrap();
    }
    stream.close().unwrap();
    let path = Path::new(PATH).join(format!("shards/{:012}/{:020}.seg", 0, 0));
    disk.damage(&path, |bytes| bytes[HEADER + 50] ^= 1).unwrap();
    assert_eq!(repair(PATH, storage(&disk)).unwrap().lost.len(), 1);
    let stream = builder(&disk, &clock).open_existing(PATH).unwrap();
    let at = ShardIteratorType::AtSequenceNumber(0.into());
    let mut iterator = stream.shard_iterator(ShardId::new(0), at).unwrap();
    let read: Vec<_> =
        iterator.available().map(|record| record.map(|record| record.sequence_number().get())).collect();
    assert!(matches!(read.as_slice(), [Err(Error::Lost { .. }), Ok(1), Ok(2)]), "{read:?}");
}

/// Workers and pipelines take records many at a time: those before the lost ones are theirs, and the loss is told behind them.
#[test]
fn what_stands_before_a_lost_record_is_handled() {
    let (disk, clock) = (SimulatedDisk::new(), Arc::new(anabranch::ManualClock::default()));
    let stream = builder(&disk, &clock).create(PATH).unwrap();
    for number in 0..5 {
        stream.put("key", [number; 100]).unwrap();
    }
    stream.close().unwrap();
    lose_record(&disk, 2);
    let stream = builder(&disk, &clock).open_existing(PATH).unwrap();

    for most in [2, 10] {
        let mut iterator = stream.shard_iterator(ShardId::new(0), ShardIteratorType::TrimHorizon).unwrap();
        assert_eq!(iterator.next_records(most).unwrap().len(), 2);
        assert_eq!(iterator.millis_behind_latest().unwrap(), 1, "asking how far behind it is tells of no loss");
        assert!(matches!(iterator.next_records(10), Err(Error::Lost { first, .. }) if first.get() == 2), "{most}");
        assert_eq!(iterator.next_records(10).unwrap().len(), 2);
    }

    let mut worker = stream.consumer("c").unwrap().worker("w", WorkerOptions::new()).unwrap();
    let mut told = Vec::new();
    while told.len() < 5 {
        match worker.poll() {
            Ok(Some(Work::Records { records, .. })) => {
                told.extend(records.iter().map(|record| Some(record.data()[0])));
            }
            Ok(_) => {}
            Err(Error::Lost { .. }) => told.push(None),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(told, [Some(0), Some(1), None, Some(3), Some(4)]);

    let output = builder(&disk, &clock).create("output").unwrap();
    let mut pipeline = Pipeline::new(&stream.consumer("d").unwrap(), &output, "w").unwrap();
    let mut step = || pipeline.step(|record, outputs| outputs.put("key", record.data()));
    assert_eq!(step().unwrap(), 2);
    assert!(matches!(step(), Err(Error::Lost { .. })));
    assert_eq!(step().unwrap(), 2);
    assert_eq!(step().unwrap(), 0);
    let copied = output
        .records(RecordsStart::TrimHorizon)
        .unwrap()
        .available()
        .map(|record| record.unwrap().data()[0])
        .collect::<Vec<_>>();
    assert_eq!(copied, [0, 1, 3, 4]);
}

/// Who goes on to the children has been told all that there is to say of the shard.
#[test]
fn a_shard_ends_behind_its_lost_records() {
    let (disk, clock) = (SimulatedDisk::new(), Arc::new(anabranch::ManualClock::default()));
    let stream = builder(&disk, &clock).create(PATH).unwrap();
    for number in 0..5 {
        stream.put("key", [number; 100]).unwrap();
    }
    stream.split_shard(ShardId::new(0), None).unwrap();
    stream.close().unwrap();
    lose_record(&disk, 4);
    let stream = builder(&disk, &clock).open_existing(PATH).unwrap();
    let mut iterator = stream.shard_iterator(ShardId::new(0), ShardIteratorType::TrimHorizon).unwrap();
    assert_eq!(iterator.next_records(10).unwrap().len(), 4);
    assert_eq!(iterator.end_of_shard(), None);
    assert_eq!(iterator.millis_behind_latest().unwrap(), 1);
    assert!(matches!(iterator.next_records(10), Err(Error::Lost { first, .. }) if first.get() == 4));
    assert_eq!(iterator.end_of_shard().unwrap().len(), 2);
    assert_eq!(iterator.millis_behind_latest().unwrap(), 0);
}

/// Queues take records one by one: all but the lost one are given, whether that was received before or not, and the loss is told once.
#[test]
fn a_queue_passes_a_lost_record_and_tells_it_once() {
    const RECORDS: u8 = 5;
    let clock = Arc::new(anabranch::ManualClock::default());
    for (lost, received) in (0..RECORDS).flat_map(|lost| (0..=RECORDS).map(move |received| (lost, received))) {
        let case = format!("record {lost} of {received} that were received");
        let disk = SimulatedDisk::new();
        let stream = builder(&disk, &clock).create(PATH).unwrap();
        for number in 0..RECORDS {
            stream.put("key", [number; 100]).unwrap();
        }
        let queue = stream.queue("q", QueueOptions::new()).unwrap();
        if received > 0 {
            queue.receive(usize::from(received), Duration::ZERO).unwrap();
        }
        drop(queue);
        stream.close().unwrap();
        lose_record(&disk, usize::from(lost));
        for is_first in [true, false] {
            let stream = builder(&disk, &clock).open_existing(PATH).unwrap();
            let queue = stream.queue("q", QueueOptions::new()).unwrap();
            let (mut given, mut told) = (Vec::new(), 0);
            loop {
                let has_news = queue.has_news();
                let outcome = queue.receive(10, Duration::ZERO);
                let finds_nothing = matches!(&outcome, Ok(received) if received.is_empty());
                assert!(has_news || finds_nothing, "{case}: no news, and then {outcome:?}");
                match outcome {
                    Ok(_) if finds_nothing => break,
                    Ok(received) => given.extend(received.iter().map(|one| one.record.data()[0])),
                    Err(Error::Lost { first, .. }) if first.get() == u64::from(lost) => told += 1,
                    Err(error) => panic!("{case}: {error}"),
                }
            }
            let others: Vec<_> = (0..RECORDS).filter(|number| *number != lost).collect();
            given.sort_unstable();
            assert_eq!((given, told), (others, usize::from(is_first)), "{case}, {is_first}");
            let shard = queue.describe().unwrap().shards.remove(0);
            assert_eq!((shard.next.get(), shard.in_flight, shard.visible), (5, 4, 0), "{case}");
            drop(queue);
            stream.close().unwrap();
        }
    }
}

/// No copy of a slot was sound: a repair frees it, for good, and leaves the one beside it as it is.
#[test]
fn a_slot_that_a_repair_freed_stays_free() {
    let (disk, clock) = (SimulatedDisk::new(), Arc::new(anabranch::ManualClock::default()));
    let stream = builder(&disk, &clock).shards(2).create(PATH).unwrap();
    let consumer = stream.consumer("c").unwrap();
    for shard_id in [0, 1] {
        consumer.take(ShardId::new(shard_id), "w").unwrap();
    }
    drop(consumer);
    stream.close().unwrap();
    let path = Path::new(PATH).join("consumers/c");
    disk.damage(&path, |bytes| (0..3).for_each(|copy| bytes[256 + 768 + copy * 256 + 100] ^= 1)).unwrap();
    let report = repair(PATH, storage(&disk)).unwrap();
    assert!(report.after.is_sound() && report.set_aside.len() == 1, "{report:?}");
    for seed in 0..32 {
        let lost = disk.fork(Crash::PowerLost { seed });
        let report = verify(PATH, VerifyOptions { storage: storage(&lost), progress: None }).unwrap();
        assert!(report.is_sound(), "seed {seed}: {:?}", report.damage);
        let stream = builder(&lost, &clock).open_existing(PATH).unwrap();
        let epochs =
            stream.consumer("c").unwrap().checkpoints().unwrap().iter().map(|at| at.epoch).collect::<Vec<_>>();
        assert_eq!(epochs, [1, 0], "seed {seed}");
    }
}

/// A worker in another process has the file open that a repair takes away: it is told so, and does not note in a file without a name what it has done.
#[test]
fn a_consumer_whose_file_goes_with_a_repair_is_told() {
    let (disk, clock) = (SimulatedDisk::new(), Arc::new(anabranch::ManualClock::default()));
    let stream = builder(&disk, &clock).create(PATH).unwrap();
    stream.put("key", b"data").unwrap();
    stream.consumer("c").unwrap();
    stream.close().unwrap();
    let reader = builder(&disk, &clock).open_read_only(PATH).unwrap();
    let lease = reader.consumer("c").unwrap().take(ShardId::new(0), "w").unwrap();
    let path = Path::new(PATH).join("consumers/c");
    disk.damage(&path, |bytes| bytes[20] ^= 1).unwrap();
    let report = repair(PATH, storage(&disk)).unwrap();
    assert!(report.after.is_sound() && report.set_aside.len() == 1, "{report:?}");
    let told = lease.checkpoint_at(0.into()).unwrap_err();
    assert!(matches!(told, Error::ConsumerNotFound(_)), "{told:?}");
}

/// Wherever a repair is cut short, by an error or the power, each file is there as it was, in its place or as a copy, and the next repair is through.
#[test]
fn what_was_damaged_is_in_its_place_or_set_aside_whenever_the_power_goes() {
    let mut states = 0;
    for (kind, disk) in damaged_streams() {
        let before = contents(&disk);
        for fault in [DiskFault::PowerCut, DiskFault::Error(std::io::ErrorKind::Other)] {
            for (case, disk) in cuts_of_a_repair(&disk, fault) {
                let case = format!("{kind}: {case}");
                let copies = copies_in(&disk);
                for (path, bytes) in &before {
                    let is_there =
                        disk.read_file(path).is_ok_and(|found| found == *bytes) || copies.contains(bytes);
                    assert!(is_there, "{case}: {} is gone", path.display());
                }
                let report = repair(PATH, storage(&disk)).unwrap_or_else(|error| panic!("{case}: {error:?}"));
                assert!(report.after.is_sound(), "{case}: {:?}", report.after.damage);
                states += 1;
            }
        }
    }
    println!("{states} states");
}

/// The calls that change something: a cut at another one is a cut at the next of these.
const CHANGES: [Operation; 8] = [
    Operation::CreateDir,
    Operation::CreateFile,
    Operation::Write,
    Operation::Allocate,
    Operation::Sync,
    Operation::SyncDir,
    Operation::Rename,
    Operation::RemoveFile,
];

/// What a repair said that it has done is done: nothing of it is undone by a power cut.
#[test]
fn what_a_repair_has_done_survives_a_power_cut() {
    let mut kinds_of_copies = BTreeSet::new();
    for (kind, disk) in damaged_streams() {
        let report = repair(PATH, storage(&disk)).unwrap();
        assert!(!report.before.is_sound(), "{kind}: there is damage");
        assert!(report.after.is_sound(), "{kind}: {:?}", report.after.damage);
        for path in &report.set_aside {
            let name = path.file_name().unwrap().to_str().unwrap();
            kinds_of_copies.insert(name.split('-').next().unwrap().to_owned());
        }
        let after = contents(&disk);
        assert!(report.set_aside.iter().all(|path| after.contains_key(path)), "{kind}: {report:?}");
        for seed in 0..256 {
            let case = format!("{kind}, seed {seed}");
            let disk = disk.fork(Crash::PowerLost { seed });
            let found = contents(&disk);
            let is_as_it_was = |path: &&PathBuf| found.get(*path) == after.get(*path);
            let changed: Vec<_> = after.keys().chain(found.keys()).filter(|path| !is_as_it_was(path)).collect();
            assert!(changed.is_empty(), "{case}: {changed:?}");
            let verified = verify(PATH, VerifyOptions { storage: storage(&disk), progress: None }).unwrap();
            assert!(verified.is_sound(), "{case}: {:?}", verified.damage);
        }
    }
    // Shards by their numbers: the last one is not in the older manifest.
    let expected = ["000000000000", "000000000001", "000000000002", "000000000005"];
    let expected = expected.into_iter().chain(["MANIFEST", "WATERMARK", "consumers", "queues"]);
    assert_eq!(kinds_of_copies, expected.map(str::to_owned).collect());
}

/// A stream for each kind of damage that a repair mends. A power cut takes nothing from it that was there before the repair.
fn damaged_streams() -> Vec<(&'static str, SimulatedDisk)> {
    let (closed, killed) = (Sample::closed(), Sample::killed());
    let mut streams = Vec::new();
    let mut add = |kind, sample: &Sample, damage: &dyn Fn(&SimulatedDisk)| {
        let disk = sample.copy();
        damage(&disk);
        streams.push((kind, settled(&disk)));
    };
    let path = |name: &str| Path::new(PATH).join(name);
    let flip = |disk: &SimulatedDisk, name: &str, places: &[usize]| {
        disk.damage(&path(name), |bytes| places.iter().for_each(|at| bytes[*at] ^= 1)).unwrap();
    };
    let (first, last) = (closed.segments()[0].clone(), closed.segments().pop().unwrap());
    let (first, last) = (first.strip_prefix(PATH).unwrap(), last.strip_prefix(PATH).unwrap());
    let (first, last) = (first.to_str().unwrap(), last.to_str().unwrap());
    let watermark = |disk: &SimulatedDisk| flip(disk, "WATERMARK", &[9]);
    let consumer = |disk: &SimulatedDisk| flip(disk, "consumers/billing", &[30]);
    let position = |disk: &SimulatedDisk| flip(disk, "consumers/totals", &[256 + 20, 512 + 20, 768 + 20]);
    let windows = |disk: &SimulatedDisk| flip(disk, "consumers/~totals~~000000000002~000000000000", &[30]);
    let queue = |disk: &SimulatedDisk| flip(disk, "queues/orders", &[30]);
    add("a record", &closed, &|disk| flip(disk, first, &[HEADER + 60]));
    add("a record of the last segment", &closed, &|disk| flip(disk, last, &[HEADER + 60]));
    add("a record that a dead writer put", &killed, &|disk| flip(disk, last, &[HEADER + 60]));
    add("a segment that is gone", &closed, &|disk| disk.remove_file(&path(first)).unwrap());
    add("a shard that is gone", &closed, &|disk| remove(disk, path(first).parent().unwrap()));
    add("all shards are gone", &closed, &|disk| remove(disk, &path("shards")));
    add("a note of what was durable", &closed, &watermark);
    add("notes that are gone", &closed, &|disk| disk.remove_file(&path("WATERMARK")).unwrap());
    add("a consumer", &closed, &consumer);
    add("a position", &closed, &position);
    add("open windows", &closed, &windows);
    add("a queue", &closed, &queue);
    add("all of these", &closed, &|disk| {
        flip(disk, first, &[HEADER + 60]);
        for damage in [&watermark as &dyn Fn(_), &consumer, &position, &windows, &queue] {
            damage(disk);
        }
    });
    add("an older manifest", &behind_an_older_manifest(), &|_| {});
    let (staged, segment, _) = staged_behind_a_segment();
    staged.damage(&segment, |bytes| bytes[HEADER + 50] ^= 1).unwrap();
    streams.push(("a record before staged ones", settled(&staged)));
    streams.push(("a record that is staged as well", settled(&staged_and_written())));
    streams.push(("a segment of another shard", settled(&with_a_misplaced_segment())));
    streams.push(("one where no shard is", settled(&with_a_misplaced_segment_of_no_shard())));
    streams
}

/// The disk as it is, with all of it durable.
fn settled(disk: &SimulatedDisk) -> SimulatedDisk {
    let all = contents(disk);
    let mut found = (0..).map(|seed| disk.fork(Crash::PowerLost { seed }));
    found.find(|found| contents(found) == all).unwrap()
}

/// Every file of the stream that has bytes, but for what a repair works with.
fn contents(disk: &SimulatedDisk) -> BTreeMap<PathBuf, Vec<u8>> {
    let scratch = Path::new(PATH).join("repair.new");
    let paths = files_of(disk).into_iter().filter(|path| !path.starts_with(&scratch));
    paths.map(|path| (path.clone(), disk.read_file(&path).unwrap())).collect()
}

/// What repairs have set aside.
fn copies_in(disk: &SimulatedDisk) -> Vec<Vec<u8>> {
    let all = Path::new(PATH).join("damaged");
    contents(disk).into_iter().filter(|(path, _)| path.starts_with(&all)).map(|(_, bytes)| bytes).collect()
}
