//! Who may write: one process, and one opening in it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Barrier;
use std::time::Duration;

use anabranch::{ErrorKind, ShardIteratorType, Stream, StreamBuilder};

use crate::child::{self, Process};
use crate::records::assert_sound;
use crate::support::wait_until;

const SHARDS: u32 = 2;

fn builder() -> StreamBuilder {
    Stream::builder().shards(SHARDS)
}

/// Tries to open the stream for writing, and notes what came of it.
pub(crate) fn try_to_open() {
    let outcome = match builder().open(child::argument("STREAM")) {
        Ok(stream) => {
            stream.close().unwrap();
            "opened".to_owned()
        }
        Err(error) => format!("{:?}", error.kind()),
    };
    fs::write(child::argument("OUTCOME"), outcome).unwrap();
}

/// Opens the stream, says so, and holds it until it is killed.
pub(crate) fn hold() {
    let stream = builder().open(child::argument("STREAM")).unwrap();
    stream.put("held", b"data").unwrap();
    fs::write(child::argument("OUTCOME"), "held").unwrap();
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn outcome_elsewhere(path: &Path, directory: &Path) -> String {
    let outcome = directory.join("outcome");
    let log = directory.join("try.log");
    child::start("try", &log, &[("STREAM", &path), ("OUTCOME", &outcome)]).join();
    fs::read_to_string(outcome).unwrap()
}

fn held_elsewhere(path: &Path, directory: &Path) -> Process {
    let ready = directory.join("held");
    let mut holder = child::start("hold", &directory.join("hold.log"), &[("STREAM", &path), ("OUTCOME", &ready)]);
    wait_until("the other process", || {
        holder.assert_runs();
        fs::read_to_string(&ready).is_ok_and(|text| text == "held")
    });
    holder
}

#[test]
fn a_second_process_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (path, link) = (directory.path().join("stream"), directory.path().join("link"));
    let stream = builder().open(&path).unwrap();
    symlink(&path, &link).unwrap();
    for path in [&path, &link] {
        assert_eq!(outcome_elsewhere(path, directory.path()), "Locked");
        assert_eq!(builder().open(path).unwrap_err().kind(), ErrorKind::Locked);
    }
    stream.put("still", b"here").unwrap();
    stream.close().unwrap();
    assert_eq!(outcome_elsewhere(&link, directory.path()), "opened");
}

#[test]
fn the_lock_dies_with_its_process() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("stream");
    for _ in 0..3 {
        let holder = held_elsewhere(&path, directory.path());
        assert_eq!(builder().open(&path).unwrap_err().kind(), ErrorKind::Locked);
        let reader = Stream::builder().open_read_only(&path).unwrap();
        assert!(reader.put("reader", b"").is_err());
        holder.kill();
        fs::remove_file(directory.path().join("held")).unwrap();
        builder().open(&path).unwrap().close().unwrap();
    }
}

#[test]
fn of_threads_that_open_at_once_one_wins() {
    const THREADS: usize = 6;
    for round in 0..20 {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("stream");
        if round % 2 == 0 {
            builder().create(&path).unwrap().close().unwrap(); // else they race to create it
        }
        let barrier = Barrier::new(THREADS);
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let open = || {
                barrier.wait();
                let outcome = builder().open(&path);
                barrier.wait(); // nobody closes while others try
                outcome.map(|stream| stream.close().unwrap()).map_err(|error| error.kind())
            };
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(()) | Err(ErrorKind::Locked))), "{outcomes:?}");
    }
}

/// The directory is locked as well: a second opening would lock a file of its own otherwise, and there would be two writers.
#[test]
fn a_deleted_lock_file_lets_nobody_in() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("stream");
    let stream = builder().open(&path).unwrap();
    let puts: Vec<_> = (0..100_u8).map(|byte| stream.put("key", [byte; 50]).unwrap()).collect();

    fs::remove_file(path.join("LOCK")).unwrap();
    let alone = stream.put("key", [100; 50]).unwrap();
    assert_eq!(stream.get(alone.shard_id, alone.sequence_number).unwrap().data(), [100; 50]);
    assert_eq!(outcome_elsewhere(&path, directory.path()), "Locked");
    assert_eq!(builder().open(&path).unwrap_err().kind(), ErrorKind::Locked);
    stream.close().unwrap();

    let stream = builder().open(&path).unwrap();
    let shard_id = puts[0].shard_id;
    let mut iterator = stream.shard_iterator(shard_id, ShardIteratorType::TrimHorizon).unwrap();
    let found: Vec<_> = iterator.available().map(|record| record.unwrap().data()[0]).collect();
    assert_eq!(found, (0..=100).collect::<Vec<u8>>());
    stream.close().unwrap();
    assert_sound(&path);
}
