//! Damage anywhere in a stream's directory: whatever it is, salvage and repair tell all of it and change no record.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::builder;
use super::input::Input;
use crate::error::{Error, ErrorKind};
use crate::segment::Record;
use crate::storage::{Crash, SimulatedDisk, Storage};
use crate::stream::{RecordsStart, Salvaged, VerifyOptions, repair as repair_stream, salvage, verify};
use crate::types::{Durability, RetentionPeriod, SequenceNumber, ShardId};

/// What was put, by place.
type Contents = BTreeMap<(ShardId, SequenceNumber), Vec<u8>>;

/// Damages the files of a small stream as the bytes say, then salvages, repairs and uses what is left.
///
/// The first byte says whether the stream was closed; then follow damages: a file, a kind, a place, and bytes.
pub fn repair(input: &[u8]) {
    let mut input = Input::new(input);
    let Some(kind) = input.byte() else { return };
    let (disk, contents) = stream(kind & 1 == 0);
    let files = files(&disk);
    while damage(&disk, &files, &mut input).is_some() {}
    let storage = || -> Option<Arc<dyn Storage>> { Some(Arc::new(disk.clone())) };

    let mut salvaged = Contents::new();
    let outcome = salvage("s", storage(), |item| {
        if let Salvaged::Record(record) = item {
            let place = (record.shard_id, record.sequence_number);
            assert_eq!(contents.get(&place).map(Vec::as_slice), Some(record.data), "{place:?}");
            assert!(salvaged.insert(place, record.data.to_vec()).is_none(), "{place:?} twice");
        }
        ControlFlow::Continue(())
    });
    assert!(outcome.is_ok() || salvaged.is_empty());
    let sound = |report: crate::Result<crate::VerifyReport>| report.is_ok_and(|report| report.is_sound());
    let check = || verify("s", VerifyOptions { storage: storage(), progress: None });
    match repair_stream("s", storage()) {
        Ok(report) => assert!(report.after.is_sound(), "{:?}", report.after.damage),
        Err(error) => {
            let refused =
                matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported | ErrorKind::NotFound);
            assert!(refused && !sound(check()), "{error:?}");
            return;
        }
    }
    let stream = builder(&disk).open_existing("s").unwrap();
    for record in stream.records(RecordsStart::TrimHorizon).unwrap().available() {
        match record {
            Ok(record) => check_record(&contents, &record),
            Err(Error::Lost { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    stream.put("key", b"later").unwrap();
    stream.close().unwrap();
    assert!(sound(check()));
}

fn check_record(contents: &Contents, record: &Record) {
    let place = (record.shard_id(), record.sequence_number());
    assert_eq!(contents.get(&place).map(Vec::as_slice), Some(record.data()), "{place:?}");
}

/// Two shards, one of them split, a few segments each.
fn stream(closed: bool) -> (SimulatedDisk, Contents) {
    let disk = SimulatedDisk::new();
    let made = builder(&disk).shards(2).segment_bytes(4096).retention(RetentionPeriod::Unlimited);
    let stream = made.durability(Durability::Buffered).create("s").unwrap();
    let mut contents = Contents::new();
    for number in 0..60_u8 {
        if number == 40 {
            stream.split_shard(ShardId::new(0), None).unwrap();
        }
        let data = vec![number; usize::from(number) * 4];
        let receipt = stream.put(format!("key-{}", number % 7), &data).unwrap();
        contents.insert((receipt.shard_id, receipt.sequence_number), data);
    }
    stream.sync().unwrap();
    if closed {
        stream.close().unwrap();
        return (disk, contents);
    }
    (disk.crash(Crash::ProcessKilled), contents)
}

fn files(disk: &SimulatedDisk) -> Vec<PathBuf> {
    let mut found = vec![Path::new("s").join("WATERMARK"), Path::new("s").join("MANIFEST")];
    for shard in disk.list(Path::new("s/shards")).unwrap() {
        let directory = Path::new("s/shards").join(shard.name);
        found.extend(disk.list(&directory).unwrap().into_iter().map(|entry| directory.join(entry.name)));
    }
    found.sort();
    found
}

/// One change to one file; nothing once the input is used up.
fn damage(disk: &SimulatedDisk, files: &[PathBuf], input: &mut Input<'_>) -> Option<()> {
    let path = files.get(usize::from(input.byte()?) % files.len())?;
    let kind = input.byte()?;
    let at = usize::from(input.short()?);
    let bytes = input.bytes(usize::from(kind >> 3));
    match kind & 7 {
        0 => drop(disk.remove_file(path)),
        1 => change(disk, path, |file| file.truncate(at)),
        2 => change(disk, path, |file| file.extend_from_slice(bytes)),
        3 => {
            let other = disk.read_file(files.get(at % files.len())?).ok()?;
            change(disk, path, |file| *file = other);
        }
        4 => change(disk, path, |file| file.iter_mut().skip(at).take(512).for_each(|byte| *byte = 0)),
        _ => change(disk, path, |file| {
            for (byte, by) in file.iter_mut().skip(at).zip(bytes) {
                *byte ^= by;
            }
        }),
    }
    Some(())
}

fn change(disk: &SimulatedDisk, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let _ = disk.damage(path, change); // of a file that was removed there is nothing to damage
}
