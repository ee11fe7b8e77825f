//! Creating, opening, closing, and everything that may be in the way.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anabranch::storage::Operation;
use anabranch::{
    Crash, DiskFault, Durability, Error, ErrorKind, Limits, ManualClock, PartitionHash, RetentionPeriod,
    SimulatedDisk, Stream, StreamBuilder, VerifyOptions, verify,
};

use crate::support::{
    HORIZON, LARGE_PER_SEGMENT, S0, builder, fill, fill_large, number, numbers_from, place, put_to, read_all,
    say_version, segments, simulated, snapshot, stream,
};

fn refusal(outcome: anabranch::Result<Stream>) -> Error {
    outcome.expect_err("this must be refused")
}

#[test]
fn create_makes_directories_and_refuses_what_exists() {
    let (directory, _) = place();
    let path = directory.path().join("a/b/c");
    let stream = builder().shards(2).create(&path).unwrap();
    assert_eq!(stream.path(), path);
    assert!(!stream.is_read_only());
    assert!(stream.recovery().was_clean);
    stream.put("key", b"data").unwrap();
    stream.close().unwrap();

    let before = snapshot(&path);
    let error = refusal(builder().create(&path));
    assert!(matches!(&error, Error::StreamExists(at) if *at == path), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(snapshot(&path), before);
}

#[test]
fn open_creates_and_opens_again() {
    let (_directory, path) = place();
    let options = || builder().shards(3).segment_bytes(8 << 10);
    let stream = options().open(&path).unwrap();
    let first = put_to(&stream, S0, "key", b"one");
    let created = stream.describe().unwrap();
    stream.close().unwrap();

    let stream = options().open(&path).unwrap();
    let again = stream.describe().unwrap();
    assert_eq!(again.stream_id, created.stream_id);
    assert_eq!(again.created, created.created);
    assert_eq!(again.incarnation, created.incarnation + 1);
    let second = put_to(&stream, S0, "key", b"two");
    assert_eq!(second.sequence_number, first.sequence_number.next());
    let records = read_all(&stream, S0);
    assert_eq!(records.iter().map(anabranch::Record::data).collect::<Vec<_>>(), [b"one", b"two"]);
    assert_eq!(records.iter().map(anabranch::Record::incarnation).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn streams_do_not_share_an_identity() {
    let (_first, first) = stream(builder());
    let (_second, second) = stream(builder());
    assert_ne!(first.describe().unwrap().stream_id, second.describe().unwrap().stream_id);
}

#[test]
fn a_missing_path_is_not_found_and_not_made() {
    let (_directory, path) = place();
    for outcome in [builder().open_existing(&path), builder().open_read_only(&path)] {
        let error = refusal(outcome);
        assert!(matches!(&error, Error::StreamNotFound(at) if *at == path), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
    assert!(!path.exists());
    let error = verify(&path, VerifyOptions::default()).expect_err("there is nothing");
    assert!(matches!(error, Error::StreamNotFound(_)), "{error:?}");
}

#[test]
fn a_file_in_place_of_a_directory_is_no_stream() {
    let (_directory, path) = place();
    fs::write(&path, b"a letter").unwrap();
    let ways: [fn(StreamBuilder, &Path) -> anabranch::Result<Stream>; 4] = [
        |builder, path| builder.create(path),
        |builder, path| builder.open(path),
        |builder, path| builder.open_existing(path),
        |builder, path| builder.open_read_only(path),
    ];
    for open in ways {
        let error = refusal(open(builder(), &path));
        assert!(matches!(error, Error::NotAStream { .. }), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
    assert_eq!(fs::read(&path).unwrap(), b"a letter");
}

#[test]
fn a_directory_with_other_things_in_it_is_left_alone() {
    let (_directory, path) = place();
    fs::create_dir(&path).unwrap();
    fs::write(path.join("letter"), b"dear reader").unwrap();
    let before = snapshot(&path);
    let ways: [fn(StreamBuilder, &Path) -> anabranch::Result<Stream>; 4] = [
        |builder, path| builder.create(path),
        |builder, path| builder.open(path),
        |builder, path| builder.open_existing(path),
        |builder, path| builder.open_read_only(path),
    ];
    for open in ways {
        let error = refusal(open(builder(), &path));
        assert!(matches!(error, Error::NotAStream { .. }), "{error:?}");
    }
    assert_eq!(snapshot(&path), before, "a refusal leaves no trace");
    let error = verify(&path, VerifyOptions::default()).expect_err("no stream");
    assert!(matches!(error, Error::NotAStream { .. }), "{error:?}");
}

#[test]
fn an_empty_directory_becomes_a_stream_when_asked_to() {
    let (_directory, path) = place();
    fs::create_dir(&path).unwrap();
    for outcome in [builder().open_existing(&path), builder().open_read_only(&path)] {
        assert!(matches!(refusal(outcome), Error::NotAStream { .. }));
    }
    assert_eq!(snapshot(&path), []);
    fill(&builder().open(&path).unwrap(), 1);
}

#[test]
fn segments_without_a_manifest_are_not_overwritten() {
    let (_directory, path) = place();
    let stream = builder().create(&path).unwrap();
    fill(&stream, 3);
    stream.close().unwrap();
    fs::remove_file(path.join("MANIFEST")).unwrap();
    let kept = fs::read(&segments(&path, S0)[0]).unwrap();
    for outcome in [builder().create(&path), builder().open(&path), builder().open_existing(&path)] {
        let error = refusal(outcome);
        assert!(matches!(error, Error::NotAStream { .. }), "{error:?}");
    }
    assert_eq!(fs::read(&segments(&path, S0)[0]).unwrap(), kept);
}

#[test]
fn options_out_of_range_are_refused_before_anything_is_made() {
    let limits = |max_data_bytes, max_batch_records, max_batch_bytes| Limits {
        max_data_bytes,
        max_batch_records,
        max_batch_bytes,
        ..Limits::default()
    };
    let wrong = [
        ("shards", builder().shards(0)),
        ("shards", builder().shards(65_537)),
        ("retention", builder().retention(RetentionPeriod::Millis(0))),
        ("retention", builder().retention(RetentionPeriod::Millis(8_760 * 3_600_000 + 1))),
        ("retention", builder().retention(Duration::MAX)),
        ("retention_bytes", builder().retention_bytes(Some(u64::MAX))),
        ("segment_bytes", builder().segment_bytes(4_088)),
        ("segment_bytes", builder().segment_bytes(4_100)),
        ("segment_bytes", builder().segment_bytes((4 << 30) + 8)),
        ("flush_interval", builder().flush_interval(Duration::ZERO)),
        ("flush_interval", builder().flush_interval(Duration::from_micros(999))),
        ("flush_interval", builder().flush_interval(Duration::from_secs(86_401))),
        ("flush_interval", builder().flush_interval(Duration::MAX)),
        ("flush_bytes", builder().flush_bytes(0)),
        ("limits", builder().limits(limits((256 << 20) + 1, 1, 512 << 20))),
        ("limits", builder().limits(limits(1, 0, 16 << 20))),
        ("limits", builder().limits(limits(1, (1 << 20) + 1, 16 << 20))),
        ("limits", builder().limits(limits(1, 1, (512 << 20) + 1))),
        ("limits", builder().limits(limits(1 << 20, 1, (1 << 20) + 1_023))),
    ];
    let (_directory, path) = place();
    for (option, options) in wrong {
        for outcome in [options.clone().create(&path), options.clone().open(&path)] {
            let error = refusal(outcome);
            let named = matches!(&error, Error::InvalidArgument { argument, .. } if *argument == option);
            assert!(named, "{option}: {error:?}");
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
        assert!(!path.exists(), "{option}");
    }
}

#[test]
fn options_at_the_edges_of_their_ranges_are_kept() {
    let limits = Limits {
        max_data_bytes: 256 << 20,
        max_batch_records: 1 << 20,
        max_batch_bytes: 512 << 20,
        ..Limits::default()
    };
    let (_directory, path) = place();
    let options = || {
        builder()
            .shards(1)
            .retention(RetentionPeriod::Millis(1))
            .retention_bytes(Some(0))
            .segment_bytes(4 << 30)
            .durability(Durability::Buffered)
            .flush_interval(Duration::from_secs(86_400))
            .flush_bytes(u64::MAX)
            .partition_hash(PartitionHash::Md5)
            .limits(limits)
    };
    options().create(&path).unwrap().close().unwrap();
    let described = options().open_existing(&path).unwrap().describe().unwrap();
    assert_eq!(described.retention, RetentionPeriod::Millis(1));
    assert_eq!(described.retention_bytes, Some(0));
    assert_eq!(described.segment_bytes, 4 << 30);
    assert_eq!(described.durability, Durability::Buffered);
    assert_eq!(described.flush_interval, Duration::from_secs(86_400));
    assert_eq!(described.flush_bytes, u64::MAX);
    assert_eq!(described.partition_hash, PartitionHash::Md5);
    assert_eq!(described.limits, limits);
}

/// An interval is stored in milliseconds: what is cut off is so for who asks, too.
#[test]
fn an_interval_with_a_fraction_is_the_one_that_is_stored() {
    let (_directory, path) = place();
    let options = || builder().flush_interval(Duration::from_micros(1_500));
    let stream = options().create(&path).unwrap();
    assert_eq!(stream.describe().unwrap().flush_interval, Duration::from_millis(1));
    stream.close().unwrap();
    assert_eq!(options().open(&path).unwrap().describe().unwrap().flush_interval, Duration::from_millis(1));
}

#[test]
fn every_option_that_contradicts_the_stream_is_named() {
    let (_directory, path) = place();
    builder().create(&path).unwrap().close().unwrap();
    let other_limits = Limits { max_batch_records: 7, ..Limits::default() };
    let contradictions = [
        ("shards", builder().shards(2)),
        ("retention", builder().retention(RetentionPeriod::Unlimited)),
        ("retention_bytes", builder().retention_bytes(Some(1 << 30))),
        ("segment_bytes", builder().segment_bytes(4 << 10)),
        ("durability", builder().durability(Durability::Buffered)),
        ("partition_hash", builder().partition_hash(PartitionHash::Md5)),
        ("flush_interval", builder().flush_interval(Duration::from_millis(999))),
        ("flush_bytes", builder().flush_bytes(1)),
        ("limits", builder().limits(other_limits)),
    ];
    let before = snapshot(&path);
    for (name, options) in contradictions {
        let outcomes = [
            options.clone().open(&path),
            options.clone().open_existing(&path),
            options.clone().open_read_only(&path),
        ];
        for outcome in outcomes {
            let error = refusal(outcome);
            let Error::OptionMismatch { option, stored, requested } = &error else {
                panic!("{name}: {error:?}");
            };
            assert_eq!(*option, name);
            assert_ne!(stored, requested);
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(name), "{error}");
        }
    }
    assert_eq!(snapshot(&path), before);

    // What agrees, or is not set, is no contradiction; and a refusal has let go of the lock.
    let same = builder().shards(1).retention(RetentionPeriod::hours(24)).retention_bytes(None);
    same.durability(Durability::Synced).limits(Limits::default()).open_existing(&path).unwrap();
}

#[test]
fn options_that_were_changed_since_are_compared_as_they_are_now() {
    let (_directory, path) = place();
    let stream = builder().shards(1).create(&path).unwrap();
    stream.increase_retention(RetentionPeriod::hours(48)).unwrap();
    stream.set_retention_bytes(Some(1 << 20)).unwrap();
    stream.update_shard_count(4).unwrap();
    stream.close().unwrap();
    let error = refusal(builder().retention(RetentionPeriod::hours(24)).open(&path));
    assert!(matches!(error, Error::OptionMismatch { option: "retention", .. }), "{error:?}");
    // The shard count is the one it started with: a program that reshards can go on opening as it did.
    let options = builder().shards(1).retention(RetentionPeriod::hours(48)).retention_bytes(Some(1 << 20));
    assert_eq!(options.open(&path).unwrap().open_shards().len(), 4);
}

#[test]
fn a_second_writer_is_locked_out() {
    let (directory, path) = place();
    let stream = builder().create(&path).unwrap();
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let roundabout = directory.path().join("../").join(directory.path().file_name().unwrap()).join("stream");
    for way in [&path, &link, &roundabout] {
        for outcome in [builder().open(way), builder().open_existing(way)] {
            let error = refusal(outcome);
            assert!(matches!(&error, Error::Locked(at) if at == way), "{error:?}");
            assert_eq!(error.kind(), ErrorKind::Locked);
        }
    }
    fill(&stream, 1); // the intruders did no harm
    stream.close().unwrap();
    fill(&builder().open(&link).unwrap(), 1);
}

#[test]
fn a_simulated_disk_locks_as_a_real_one() {
    let disk: Arc<SimulatedDisk> = Arc::default();
    let options = || builder().storage(disk.clone()).clock(Arc::new(ManualClock::default()));
    let stream = options().create("stream").unwrap();
    assert!(matches!(refusal(options().open("/stream")), Error::Locked(_)));
    assert!(matches!(refusal(options().open_existing("elsewhere")), Error::StreamNotFound(_)));
    drop(stream);
    options().open("/stream").unwrap();
}

#[test]
fn a_closed_stream_refuses_through_every_handle() {
    let (_directory, path) = place();
    let stream = builder().shards(2).create(&path).unwrap();
    fill(&stream, 3);
    let other = stream.clone();
    let mut iterator = stream.shard_iterator(S0, HORIZON).unwrap();
    let mut records = stream.records(anabranch::RecordsStart::TrimHorizon).unwrap();
    stream.close().unwrap();

    let closed = |outcome: anabranch::Result<()>| {
        let error = outcome.expect_err("the stream is closed");
        assert!(matches!(error, Error::Closed), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::Closed);
    };
    closed(other.put("key", b"data").map(drop));
    closed(other.put_batch(&[]).map(drop));
    closed(other.shard_iterator(S0, HORIZON).map(drop));
    closed(other.records(anabranch::RecordsStart::Latest).map(drop));
    closed(other.get(S0, number(0)).map(drop));
    closed(other.describe().map(drop));
    closed(other.sync());
    closed(other.maintain());
    closed(other.split_shard(S0, None).map(drop));
    closed(other.merge_shards(S0, crate::support::S1).map(drop));
    closed(other.update_shard_count(3).map(drop));
    closed(other.enforce_retention().map(drop));
    closed(other.trim_shard(S0, number(1)).map(drop));
    closed(other.set_retention_bytes(None));
    closed(other.increase_retention(RetentionPeriod::Unlimited));

    // What asks nothing of the files still answers, and iterators read what is there.
    assert_eq!(other.shards().len(), 2);
    assert_eq!(other.metrics().records_in, 3);
    assert_eq!(iterator.available().count(), 3);
    assert_eq!(records.available().count(), 3);
    other.close().unwrap(); // twice is fine
}

/// Whoever closes a stream behind a close that failed is not told that all is durable, since a power cut may take it.
#[test]
fn a_close_that_failed_is_told_to_everybody_who_closes() {
    let (disk, clock, stream) = simulated(builder().durability(Durability::Buffered));
    fill(&stream, 3);
    let others = [stream.clone(), stream.clone()];
    disk.fail_on(Operation::Sync, 1, DiskFault::Error(std::io::ErrorKind::Other));
    let first = stream.close().unwrap_err();
    assert_eq!(first.kind(), ErrorKind::Reopen);
    for other in others {
        assert_eq!(other.close().unwrap_err().to_string(), first.to_string());
    }
    let stream = builder().storage(Arc::new(disk)).clock(clock).open_existing("stream").unwrap();
    assert!(!stream.recovery().was_clean);
    stream.close().unwrap();
}

#[test]
fn dropping_the_last_handle_closes() {
    let (_directory, path) = place();
    let stream = builder().create(&path).unwrap();
    fill(&stream, 3);
    let other = stream.clone();
    drop(stream);
    assert!(matches!(refusal(builder().open_existing(&path)), Error::Locked(_)));
    fill(&other, 1);
    drop(other);
    let stream = builder().open_existing(&path).unwrap();
    assert!(stream.recovery().was_clean, "a drop is a clean close");
    assert_eq!(numbers_from(&stream, S0, HORIZON), [0, 1, 2, 3]);
}

#[test]
fn a_clean_close_leaves_nothing_to_recover() {
    let (_directory, path) = place();
    let stream = builder().durability(Durability::Buffered).shards(2).create(&path).unwrap();
    fill(&stream, 20);
    stream.close().unwrap();
    let report = verify(&path, VerifyOptions::default()).unwrap();
    assert!(report.is_sound() && report.clean_close, "{report:?}");
    assert_eq!((report.shards, report.segments, report.records), (2, 1, 20));
    let stream = builder().open(&path).unwrap();
    let recovery = stream.recovery();
    assert!(recovery.was_clean);
    assert_eq!((recovery.shards_recovered, recovery.records_recovered), (0, 0));
    assert_eq!(recovery.torn_tails, []);
}

#[test]
fn a_manifest_of_a_later_version_is_refused() {
    let (_directory, path) = place();
    builder().create(&path).unwrap().close().unwrap();
    let manifest = path.join("MANIFEST");
    let mut bytes = fs::read(&manifest).unwrap();
    let checksum = bytes.len() - 4;
    say_version(&mut bytes, 2, checksum);
    fs::write(&manifest, &bytes).unwrap();
    let before = snapshot(&path);
    let outcomes = [
        builder().create(&path),
        builder().open(&path),
        builder().open_existing(&path),
        builder().open_read_only(&path),
    ];
    for outcome in outcomes {
        assert_version_refused(&refusal(outcome), &manifest);
    }
    assert_version_refused(&verify(&path, VerifyOptions::default()).expect_err("unknown version"), &manifest);
    assert_eq!(snapshot(&path), before);
}

#[test]
fn a_segment_of_a_later_version_is_refused() {
    let (_directory, path) = place();
    let stream = builder().segment_bytes(4 << 10).create(&path).unwrap();
    fill_large(&stream, S0, 3 * LARGE_PER_SEGMENT);
    stream.close().unwrap();
    let files = segments(&path, S0);
    let newest = files.last().unwrap();
    let mut bytes = fs::read(newest).unwrap();
    say_version(&mut bytes, 9, 124);
    fs::write(newest, &bytes).unwrap();
    for outcome in [builder().open(&path), builder().open_read_only(&path)] {
        let error = refusal(outcome);
        let Error::UnsupportedVersion { path: at, found: 9, supported: 1 } = &error else {
            panic!("{error:?}");
        };
        assert_eq!(at, newest);
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
    assert_eq!(fs::read(newest).unwrap(), bytes);
}

fn assert_version_refused(error: &Error, file: &Path) {
    let Error::UnsupportedVersion { path, found: 2, supported: 1 } = error else {
        panic!("{error:?}");
    };
    assert_eq!(path, file);
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn a_damaged_manifest_is_corrupt_and_kept() {
    let (_directory, path) = place();
    builder().create(&path).unwrap().close().unwrap();
    let manifest = path.join("MANIFEST");
    let sound = fs::read(&manifest).unwrap();
    for position in [0, 20, 52, sound.len() / 2, sound.len() - 1] {
        let mut bytes = sound.clone();
        bytes[position] ^= 0x10;
        fs::write(&manifest, &bytes).unwrap();
        for outcome in [builder().open(&path), builder().open_existing(&path), builder().open_read_only(&path)] {
            let error = refusal(outcome);
            assert!(matches!(&error, Error::Corrupt(damage) if damage.path == manifest), "{position}: {error:?}");
            assert_eq!(error.kind(), ErrorKind::Corrupt);
        }
        assert_eq!(fs::read(&manifest).unwrap(), bytes);
        assert!(!verify(&path, VerifyOptions::default()).unwrap().is_sound());
    }
    fs::write(&manifest, &sound).unwrap();
    builder().open(&path).unwrap();
}

#[test]
fn a_shard_whose_files_are_gone_is_corrupt() {
    let (_directory, path) = place();
    let stream = builder().segment_bytes(4 << 10).create(&path).unwrap();
    fill_large(&stream, S0, 30);
    stream.close().unwrap();
    let files = segments(&path, S0);
    assert!(files.len() > 4);
    for (index, lost) in files.iter().enumerate() {
        // The middle one is not looked for at opening: a clean opening reads the newest segments only.
        let bytes = fs::read(lost).unwrap();
        fs::remove_file(lost).unwrap();
        assert!(!verify(&path, VerifyOptions::default()).unwrap().is_sound(), "{}", lost.display());
        if index == 0 || index + 1 == files.len() {
            let error = refusal(builder().open(&path));
            assert!(matches!(&error, Error::Corrupt(damage) if damage.shard_id == Some(S0)), "{error:?}");
        }
        fs::write(lost, bytes).unwrap();
    }
    assert!(verify(&path, VerifyOptions::default()).unwrap().is_sound());
    assert_eq!(numbers_from(&builder().open(&path).unwrap(), S0, HORIZON).len(), 30);
}

#[test]
fn a_directory_that_may_not_be_written_can_be_read() {
    let (directory, path) = place();
    let stream = builder().create(&path).unwrap();
    fill(&stream, 5);
    stream.close().unwrap();
    let shut = |mode| {
        for inside in [path.clone(), path.join("shards"), path.join("shards/000000000000")] {
            fs::set_permissions(inside, fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    shut(0o555);
    let binds = fs::write(path.join("probe"), b"").is_err();
    if binds {
        let error = refusal(builder().open_existing(&path));
        assert_eq!(error.kind(), ErrorKind::Io, "{error:?}");
    } else {
        eprintln!("skipped in part: this user may write where permissions forbid it");
        let _ = fs::remove_file(path.join("probe"));
    }
    let before = snapshot(&path);
    let reader = builder().open_read_only(&path).unwrap();
    assert_eq!(numbers_from(&reader, S0, HORIZON), [0, 1, 2, 3, 4]);
    assert_eq!(snapshot(&path), before, "a reader changes nothing");
    shut(0o755);
    drop(directory);
}

#[test]
fn relative_paths_are_taken_from_where_the_program_stands() {
    // The tests run in the package's directory, in which the build's own directory need not exist: a made-up name is
    // looked for, and nothing is made.
    let error = refusal(builder().open_existing("no-such-stream-anywhere"));
    assert!(matches!(error, Error::StreamNotFound(_)), "{error:?}");
    assert!(!Path::new("no-such-stream-anywhere").exists());
}

/// What is sealed costs an opening nothing, however much of it there is: neither behind a clean close nor behind a crash.
#[test]
fn an_opening_reads_no_more_for_more_that_is_sealed() {
    let calls = |segments: u64, crash: bool| {
        let (disk, clock, stream) = simulated(builder().segment_bytes(4 << 10));
        fill_large(&stream, S0, segments * LARGE_PER_SEGMENT + 3);
        if !crash {
            stream.clone().close().unwrap();
        }
        let disk = disk.crash(Crash::ProcessKilled);
        drop(stream);
        let before = disk.operations();
        let stream = builder().storage(Arc::new(disk.clone())).clock(clock).open_existing("stream").unwrap();
        let calls = disk.operations() - before;
        assert_eq!(read_all(&stream, S0).len() as u64, segments * LARGE_PER_SEGMENT + 3);
        calls
    };
    for crash in [false, true] {
        assert_eq!(calls(50, crash), calls(3, crash), "after a crash: {crash}");
    }
}
