//! A system that does less than it was asked for, and is interrupted: it is asked for the rest, and nothing fails.
//!
//! Between the child and its C library stands a library that does a part of every third `pread` and `pwrite`, and lets every fifth be interrupted: what a kernel
//! may do, and hardly ever does with files.
#![allow(unsafe_code, reason = "the library in between is asked whether it was called")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anabranch::{Durability, QueueOptions, RecordsStart, ShardId, ShardIteratorType, Stream};

use crate::child;
use crate::records::assert_sound;

const LIBRARY: &str = r"
#define _GNU_SOURCE
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

static unsigned long calls, parts, interrupts;

static long call(long number, int fd, void *bytes, unsigned long length, long position) {
    unsigned long nth = __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST);
    if (nth % 5 == 0) {
        __atomic_add_fetch(&interrupts, 1, __ATOMIC_SEQ_CST);
        errno = EINTR;
        return -1;
    }
    if (nth % 3 == 0 && length > 1) {
        __atomic_add_fetch(&parts, 1, __ATOMIC_SEQ_CST);
        length = 1 + nth * 7919 % (length - 1);
    }
    return syscall(number, fd, bytes, length, position);
}

long pwrite64(int fd, const void *bytes, unsigned long length, long position) {
    return call(SYS_pwrite64, fd, (void *)bytes, length, position);
}

long pread64(int fd, void *bytes, unsigned long length, long position) {
    return call(SYS_pread64, fd, bytes, length, position);
}

unsigned long anabranch_parts(void) { return parts; }
unsigned long anabranch_interrupts(void) { return interrupts; }
";

/// Builds the library; nothing where there is no C compiler.
fn library(directory: &Path) -> Option<PathBuf> {
    let (source, library) = (directory.join("short.c"), directory.join("short.so"));
    std::fs::write(&source, LIBRARY).unwrap();
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).status();
    built.is_ok_and(|status| status.success()).then_some(library)
}

#[test]
fn parts_and_interruptions_are_gone_on_with() {
    if !cfg!(all(target_os = "linux", target_pointer_width = "64", target_env = "gnu")) {
        println!("skipped: there is no library to stand between for this system");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let Some(library) = library(directory.path()) else {
        println!("skipped: no C compiler");
        return;
    };
    for durability in ["synced", "buffered"] {
        let path = directory.path().join(durability);
        for life in ["first", "second", "third"] {
            let log = directory.path().join(format!("{durability}-{life}"));
            let arguments: [(&str, &dyn AsRef<std::ffi::OsStr>); 4] =
                [("STREAM", &path), ("DURABILITY", &durability), ("LIFE", &life), ("LD_PRELOAD", &library)];
            child::start("short", &log, &arguments).join();
        }
        assert_sound(&path);
    }
}

/// How much the library in between did.
fn counted(name: &std::ffi::CStr) -> u64 {
    // SAFETY: a name that ends in a zero byte; what has it, if anything, is the function of the source above.
    unsafe {
        let found = libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr());
        assert!(!found.is_null(), "the library is not in between");
        std::mem::transmute::<*mut libc::c_void, extern "C" fn() -> u64>(found)()
    }
}

const S0: ShardId = ShardId::new(0);
const PUTS: u32 = 150;

fn data(put: u32) -> Vec<u8> {
    let length = if put % 50 == 7 { 200_000 } else { put as usize * 37 % 900 };
    put.to_le_bytes().into_iter().cycle().take(length + 4).collect()
}

/// One life of three: the first and the second end without a close.
pub(crate) fn run() {
    let path = PathBuf::from(child::argument("STREAM"));
    let durability = match child::argument("DURABILITY").as_str() {
        "synced" => Durability::Synced,
        _ => Durability::Buffered,
    };
    let before = match child::argument("LIFE").as_str() {
        "first" => 0,
        "second" => PUTS,
        _ => 2 * PUTS,
    };
    let stream = Stream::builder().durability(durability).segment_bytes(1 << 20).open(&path).unwrap();
    let consumer = stream.consumer("consumer").unwrap();
    let queue = stream.queue("queue", QueueOptions::new()).unwrap();
    let lease = consumer.take(S0, "worker").unwrap();
    for put in before..before + PUTS {
        stream.put("key", data(put)).unwrap();
    }
    let mut records = stream.shard_iterator(S0, ShardIteratorType::TrimHorizon).unwrap();
    let records: Vec<_> = records.available().map(|record| record.unwrap()).collect();
    assert_eq!(records.len() as u64, u64::from(before + PUTS));
    for (record, put) in records.iter().zip(0..) {
        assert_eq!(record.data(), data(put), "record {put}");
    }
    assert_eq!(consumer.iterator(S0).unwrap().next_sequence_number().get(), u64::from(before));
    lease.checkpoint(records.last().unwrap()).unwrap();
    consumer.sync().unwrap();
    stream.sync().unwrap(); // queues give what is durable
    let mut done = u64::from(before); // by the lives before
    loop {
        let received = queue.receive(1_000, Duration::ZERO).unwrap();
        let Some(first) = received.first() else { break };
        assert_eq!(first.record.sequence_number().get(), done);
        for received in &received {
            queue.acknowledge(received).unwrap();
        }
        done += received.len() as u64;
    }
    assert_eq!(done, u64::from(before + PUTS));
    queue.sync().unwrap();
    let (parts, interrupts) = (counted(c"anabranch_parts"), counted(c"anabranch_interrupts"));
    println!("{parts} calls in parts, {interrupts} interrupted");
    assert!(parts > 3 && interrupts > 3, "{parts} {interrupts}");
    if before < 2 * PUTS {
        std::process::exit(0);
    }
    stream.split_shard(S0, None).unwrap();
    assert_eq!(stream.records(RecordsStart::TrimHorizon).unwrap().available().count(), records.len());
    stream.close().unwrap();
}
