//! Processes at the limits that the system sets them: file sizes, open files, memory.
#![allow(unsafe_code, reason = "limits are set through libc")]

use std::path::PathBuf;

use anabranch::{ErrorKind, RetentionPeriod, SequenceNumber, Stream, StreamBuilder};

use crate::child;
use crate::records::assert_sound;

fn builder() -> StreamBuilder {
    Stream::builder().segment_bytes(64 << 10).retention(RetentionPeriod::Unlimited).background(false)
}

fn limit(resource: libc::__rlimit_resource_t, to: u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is ours, for the duration of the calls.
    unsafe {
        assert_eq!(libc::getrlimit(resource, &raw mut limit), 0);
        limit.rlim_cur = to.min(limit.rlim_max);
        assert_eq!(libc::setrlimit(resource, &raw const limit), 0);
    }
}

/// Puts until a limit stands in the way, goes on reading, and goes on writing when it is gone.
pub(crate) fn run() {
    let path = PathBuf::from(child::argument("STREAM"));
    let stream = builder().shards(64).open(&path).unwrap();
    stream.put("first", [0; 100]).unwrap();
    let resource = match child::argument("LIMIT").as_str() {
        "files" => libc::RLIMIT_NOFILE,
        _ => libc::RLIMIT_FSIZE,
    };
    // SAFETY: no handler, only the default taken away.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    limit(resource, if resource == libc::RLIMIT_NOFILE { 12 } else { 10 << 10 });
    let mut receipts = Vec::new();
    let refusal = (0..10_000_u32).find_map(|id| match stream.put(id.to_string(), id.to_le_bytes()) {
        Ok(receipt) => {
            receipts.push((receipt, id));
            None
        }
        Err(error) => Some(error),
    });
    let refusal = refusal.expect("a limit that is met");
    println!("{} puts, then {refusal}", receipts.len());
    assert!(matches!(refusal.kind(), ErrorKind::Io | ErrorKind::Reopen), "{refusal:?}");
    let refused = stream.split_shard(stream.open_shards()[0], None);
    assert!(refused.is_ok() || refused.is_err_and(|error| error.kind() != ErrorKind::Corrupt));
    for (receipt, id) in &receipts {
        match stream.get(receipt.shard_id, receipt.sequence_number) {
            Ok(record) => assert_eq!(record.data(), id.to_le_bytes()),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Io, "no descriptor for it: {error:?}"),
        }
    }
    limit(resource, 1 << 40);
    assert_eq!(refusal.kind(), ErrorKind::Io, "a refusal before anything is written leaves the shard in use");
    for id in 0..200_u32 {
        receipts.push((stream.put(id.to_string(), id.to_le_bytes()).unwrap(), id));
    }
    stream.close().unwrap();
    let stream = builder().open_existing(&path).unwrap();
    for (receipt, id) in receipts {
        assert_eq!(stream.get(receipt.shard_id, receipt.sequence_number).unwrap().data(), id.to_le_bytes());
    }
    assert_eq!(
        stream.get(stream.shards()[0].shard_id, SequenceNumber::new(1 << 40)).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
}

fn at_the_limit_of(what: &str) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("stream");
    let log = directory.path().join("log");
    child::start("limited", &log, &[("STREAM", &path), ("LIMIT", &what)]).join();
    println!("{}", std::fs::read_to_string(log).unwrap());
    assert_sound(&path);
}

#[test]
fn too_many_open_files_are_an_error_and_no_end() {
    at_the_limit_of("files");
}

#[test]
fn files_that_may_not_grow_are_an_error_and_no_signal() {
    at_the_limit_of("size");
}

const MEMORY: usize = 64 << 20;

type Body = fn(&[u8]);

/// Decodes, opens and repairs what a fuzzer's corpus makes, with lengths and counts blown up at every place and checksums put right.
pub(crate) fn decode() {
    limit(libc::RLIMIT_DATA, MEMORY as u64);
    assert!(Vec::<u8>::new().try_reserve_exact(2 * MEMORY).is_err(), "the limit is in force");
    let bodies: [(&str, Body); 3] = [
        ("decode", anabranch::fuzzing::decode),
        ("recover_segment", anabranch::fuzzing::recover_segment),
        ("repair", anabranch::fuzzing::repair),
    ];
    for (target, body) in bodies {
        let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        let mut inputs = 0_u64;
        for entry in std::fs::read_dir(corpus).unwrap() {
            let whole = std::fs::read(entry.unwrap().path()).unwrap();
            body(&whole);
            let step = if target == "decode" { 1 } else { 16 };
            for at in (1..whole.len().saturating_sub(3)).step_by(step) {
                for value in [u32::MAX, i32::MAX.cast_unsigned(), 1 << 30] {
                    let mut input = whole.clone();
                    input[at..at + 4].copy_from_slice(&value.to_le_bytes());
                    body(&input);
                    inputs += 1;
                }
            }
        }
        println!("{target}: {inputs} inputs");
    }
}

#[test]
fn lengths_and_counts_in_files_take_no_memory() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    child::start("decode", &log, &[]).join();
    println!("{}", std::fs::read_to_string(log).unwrap());
}
