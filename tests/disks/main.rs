//! Real file systems on disks of ours: the stream on ext4, XFS, Btrfs or tmpfs, that on a loop device, that on a file of this process, which logs
//! every write and every flush in order.
//!
//! - `sync`: a flush fails while several files are being synced: whoever was told of success must find what it wrote.
//! - `power`: a power cut leaves what was flushed, and nothing, everything or some sectors of the rest; the file system mounts that and replays
//!   its journal, then the stream is opened and compared with what was acknowledged, shown and trimmed. Every fourth run has one
//!   flush that fails.
//! - `full`: the disk is full, but for so many bytes.
//!
//! A [`workload`] has producers, splits, merges, trims, a consumer and a queue; some of its lives end inside a put.
//!
//! It needs root, `/dev/fuse`, loop devices and the `mkfs` of each file system, and mounts: run it through `.ci/disks`, which gives it a mount
//! namespace of its own. Called without a file system's name it does nothing, and says so.
//!
//! Arguments: file systems, each by name. `POWERCUT_STATES`: how many states of each run (60); `POWERCUT_RUNS`: runs, one seed each (4);
//! `POWERCUT_SEED`: the first seed (1); `SYNC_RUNS`: runs with a failing flush beside syncs (40); `FULL_CASES`: full disks (24).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test program")]
#![cfg_attr(not(target_os = "linux"), allow(unused))]

#[cfg(target_os = "linux")]
mod check;
#[cfg(target_os = "linux")]
mod full;
#[cfg(target_os = "linux")]
mod fuse;
#[cfg(target_os = "linux")]
mod image;
#[cfg(target_os = "linux")]
mod mount;
#[cfg(target_os = "linux")]
mod power;
#[cfg(target_os = "linux")]
mod readers;
#[cfg(target_os = "linux")]
mod sync;
#[cfg(target_os = "linux")]
mod workload;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        // What runners that start each test alone ask a harness.
        if !arguments.iter().any(|argument| argument == "--ignored") {
            println!("disks: test");
        }
        return;
    }
    #[cfg(target_os = "linux")]
    run(&arguments);
    #[cfg(not(target_os = "linux"))]
    println!("skipped: real disks are tested on Linux only");
}

#[cfg(target_os = "linux")]
fn run(arguments: &[String]) {
    if let [role, stream, marks, durability, seed, life] = arguments
        && role == "workload"
    {
        return workload::main([stream, marks, durability, seed, life]);
    }
    if let [role, directory, marks, durability, left, case] = arguments
        && role == "full"
    {
        return full::main([directory, marks, durability, left, case]);
    }
    if let [role, directory, marks] = arguments
        && role == "writers"
    {
        return sync::main(directory.as_ref(), marks.as_ref());
    }
    let named = |known: &&mount::FileSystem| arguments.iter().any(|name| name == known.name);
    let chosen: Vec<_> = mount::FILE_SYSTEMS.iter().filter(named).collect();
    if chosen.is_empty() {
        println!("skipped: power cuts and full disks of real file systems need root and mounts; run .ci/disks");
        return;
    }
    let work = tempfile::tempdir().unwrap();
    sync::failures(&chosen, work.path());
    power::cuts(&chosen, work.path());
    full::disks(&chosen, work.path());
}
