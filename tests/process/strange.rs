//! What no run of the library leaves on a disk: files of enormous lengths, pipes and directories in the place of files.

use std::fs::{self, File};
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anabranch::{RecordsStart, Salvaged, SequenceNumber, ShardId, Stream, VerifyOptions, repair, salvage, verify};

const RECORDS: u64 = 10;
const SHARD: ShardId = ShardId::new(0);

fn first_segment(stream: &Path) -> PathBuf {
    stream.join(format!("shards/{:012}/{:020}.seg", 0, 0))
}

/// A closed stream of several segments, with a consumer that is through with three records.
fn make(path: &Path) {
    let stream = Stream::builder().segment_bytes(4096).background(false).create(path).unwrap();
    for _ in 0..RECORDS {
        stream.put("key", [1; 1000]).unwrap();
    }
    let lease = stream.consumer("billing").unwrap().take(SHARD, "worker").unwrap();
    lease.checkpoint_at(SequenceNumber::new(2)).unwrap();
    drop(lease);
    stream.close().unwrap();
}

fn lengthen(path: &Path, length: u64) {
    File::options().write(true).open(path).unwrap().set_len(length).unwrap();
}

fn salvaged(path: &Path) -> u64 {
    salvage(path, None, |found| {
        assert!(matches!(found, Salvaged::Record(_)), "{found:?}");
        ControlFlow::Continue(())
    })
    .unwrap()
    .records
}

/// A length says nothing of what is in a file: it is not read through, and a copy of it takes no more room than the file does.
#[test]
fn a_file_of_enormous_length_costs_no_more_than_what_is_in_it() {
    const LENGTH: u64 = 4 << 30; // a copy of so many zeros would fail the test, and no machine

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("clicks");
    make(&path);
    let segment = first_segment(&path);
    for lengthened in [&segment, &path.join("consumers/billing"), &path.join("MANIFEST.new")] {
        drop(File::options().create(true).append(true).open(lengthened).unwrap());
        lengthen(lengthened, LENGTH);
    }
    assert_eq!(salvaged(&path), RECORDS);

    let report = repair(&path, None).unwrap();
    let damaged: Vec<_> = report.before.damage.iter().map(|damage| damage.path.clone()).collect();
    assert_eq!(damaged, [segment, path.join("consumers/billing")]);
    assert!(report.after.is_sound() && report.lost.is_empty(), "{report:?}");
    assert_eq!(report.set_aside.len(), 2);
    for copy in &report.set_aside {
        let copy = copy.metadata().unwrap();
        assert_eq!(copy.len(), LENGTH);
        assert!(copy.blocks() < 1 << 12, "{} blocks", copy.blocks());
    }

    let stream = Stream::builder().background(false).open_existing(&path).unwrap();
    let mut records = stream.records(RecordsStart::TrimHorizon).unwrap();
    assert_eq!(records.available().map(Result::unwrap).count() as u64, RECORDS);
    let lease = stream.consumer("billing").unwrap().take(SHARD, "worker").unwrap();
    let next = lease.iterator().unwrap().available().next().unwrap().unwrap();
    assert_eq!(next.sequence_number().get(), 3, "the position is kept");
}

/// The lengths that only some file systems let a file have, tmpfs among them.
#[test]
fn lengths_at_the_end_of_the_scale_overflow_nothing() {
    let Ok(directory) = tempfile::tempdir_in("/dev/shm") else {
        println!("skipped: no /dev/shm here");
        return;
    };
    let path = directory.path().join("clicks");
    make(&path);
    let names = fs::read_dir(first_segment(&path).parent().unwrap()).unwrap();
    let segments: Vec<_> = names.map(|entry| entry.unwrap().path()).collect();
    assert!(segments.len() > 3);
    let lengths = [1 << 62, i64::MAX as u64 - 4095].into_iter().cycle();
    segments.iter().zip(lengths).for_each(|(segment, length)| lengthen(segment, length));
    assert_eq!(salvaged(&path), RECORDS);
    let report = verify(&path, VerifyOptions::default()).unwrap();
    assert_eq!(report.damage.len(), segments.len(), "{:?}", report.damage);

    // Without a manifest, all of what was noted is asked whether there was a stream.
    let path = directory.path().join("other");
    fs::create_dir(&path).unwrap();
    let notes = path.join("WATERMARK");
    drop(File::create(&notes).unwrap());
    lengthen(&notes, 1 << 62);
    Stream::builder().background(false).create(&path).unwrap();
}

/// Nobody writes into it: who waited for that would wait for ever.
#[test]
fn a_pipe_in_the_place_of_a_file_is_waited_for_by_nobody() {
    for name in ["MANIFEST", "WATERMARK", "STAGING", "consumers/billing", "segment"] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("clicks");
        make(&path);
        let pipe = if name == "segment" { first_segment(&path) } else { path.join(name) };
        let _ = fs::remove_file(&pipe);
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let (done, is_done) = mpsc::channel();
        thread::spawn(move || {
            let verified = verify(&path, VerifyOptions::default()).map(|report| report.is_sound());
            let _ = salvage(&path, None, |_| ControlFlow::Continue(()));
            let opened = Stream::builder().background(false).open_existing(&path);
            let used = opened.and_then(|stream| stream.consumer("billing").map(drop));
            done.send((verified, used)).unwrap();
        });
        let told = is_done.recv_timeout(Duration::from_secs(20));
        let (verified, used) = told.unwrap_or_else(|_| panic!("{name}: waited for"));
        println!("{name}: {verified:?}, {used:?}");
        let is_told = !matches!(verified, Ok(true)) || name == "STAGING"; // of a closed stream it is a leftover
        assert!(is_told, "{name}: {verified:?}");
    }
}

/// A directory that has a segment's name is damage, and is set aside whole.
#[test]
fn a_directory_in_the_place_of_a_segment_is_set_aside() {
    for (number, in_place) in [(0, false), (3, true), (99, false)] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("clicks");
        make(&path);
        let stream = Stream::builder().background(false).open_existing(&path).unwrap();
        stream.trim_shard(SHARD, SequenceNumber::new(3)).unwrap(); // the first segment
        stream.close().unwrap();
        let name = first_segment(&path).with_file_name(format!("{number:020}.seg"));
        let _ = fs::remove_file(&name);
        fs::create_dir(&name).unwrap();
        fs::write(name.join("kept"), "something").unwrap();
        let opened = Stream::builder().background(false).open_existing(&path).map(Stream::close);
        assert_eq!(opened.map_err(|error| error.kind()).is_err(), in_place);

        let report = repair(&path, None).unwrap();
        assert!(report.before.damage.iter().any(|damage| damage.path == name), "{:?}", report.before.damage);
        assert!(report.after.is_sound(), "{:?}", report.after.damage);
        assert_eq!(report.lost.is_empty(), !in_place);
        let copy = report.set_aside.iter().find(|copy| copy.is_dir()).unwrap();
        assert_eq!(fs::read(copy.join("kept")).unwrap(), b"something");
        Stream::builder().background(false).open_existing(&path).unwrap();
    }
}
