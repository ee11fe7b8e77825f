//! What the kernel takes for what the library asks of it: long writes beside short ones, syncs with a change of the file's times behind them beside
//! syncs without, several commits in flight beside one. Prints one line a case, medians of cases that take turns.
//!
//! `cargo bench --bench kernel`; it writes 256 MiB at a time below the directory of [`Place`], on the file system that is asked about.
#![allow(missing_docs, reason = "a program")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a failure ends the benchmark"
)]

mod support;

use std::fs::{File, FileTimes};
use std::os::unix::fs::FileExt;
use std::time::{Instant, SystemTime};

use support::Place;

const ROUNDS: usize = 7;
/// Where frames begin in a segment.
const FRONT: u64 = 64;
/// What one case writes.
const VOLUME: u32 = 128 << 20;
const WRITES: [usize; 4] = [16 << 10, 64 << 10, 256 << 10, 1 << 20];
const SYNCS: usize = 200;
const RECORD: [u8; 1024] = [7; 1024];
#[cfg(target_os = "linux")]
const IN_FLIGHT: [u64; 5] = [1, 2, 4, 8, 16];

fn main() {
    let mut rates = WRITES.map(|_| Vec::new());
    for _ in 0..ROUNDS {
        for (bytes, rates) in WRITES.iter().zip(&mut rates) {
            rates.push(f64::from(VOLUME) / 1e9 / write_seconds(*bytes));
        }
    }
    for (bytes, rates) in WRITES.iter().zip(rates) {
        println!("writes of {:4} KiB: {:.2} GB/s", bytes >> 10, median(rates));
    }
    let files = [(); 2].map(|()| written_file());
    let mut times = files.each_ref().map(|_| Vec::new());
    for round in 0..ROUNDS {
        for (touches, ((_, file), times)) in files.iter().zip(&mut times).enumerate() {
            let start = FRONT + (round * SYNCS * RECORD.len()) as u64;
            times.extend(
                (0..SYNCS).map(|sync| sync_micros(file, start + (sync * RECORD.len()) as u64, touches > 0)),
            );
        }
    }
    let [plain, touched] = times.map(median);
    println!("syncs of 1 KiB over bytes that are durable: {plain:.0} us");
    println!("the same, with the file's times changed behind each: {touched:.0} us");
    #[cfg(target_os = "linux")]
    print_commits_in_flight();
}

/// What commits in flight at once are worth, where each is a write that is durable when it returns.
#[cfg(target_os = "linux")]
fn print_commits_in_flight() {
    let (_place, file) = direct_file();
    let mut rates = IN_FLIGHT.map(|_| Vec::new());
    for _ in 0..ROUNDS {
        for (in_flight, rates) in IN_FLIGHT.into_iter().zip(&mut rates) {
            rates.push(commits_per_second(&file, in_flight));
        }
    }
    let rates = rates.map(median);
    for (in_flight, rate) in IN_FLIGHT.into_iter().zip(rates) {
        println!(
            "direct synchronous writes of 4 KiB, {in_flight:2} in flight: {rate:.0} a second, {:.1} times one",
            rate / rates[0]
        );
    }
}

#[cfg(target_os = "linux")]
fn direct_file() -> (Place, File) {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = rustix::fs::OFlags::DIRECT | rustix::fs::OFlags::DSYNC;
    let (place, _) = written_file();
    let options = File::options().write(true).custom_flags(flags.bits().cast_signed()).open(place.stream());
    (place, options.unwrap())
}

/// Direct writes start at a multiple of this in memory, too.
#[repr(align(4096))]
#[cfg(target_os = "linux")]
struct Block([u8; 4096]);

/// As many threads as commits are to be in flight; each overwrites blocks of its own.
#[cfg(target_os = "linux")]
fn commits_per_second(file: &File, in_flight: u64) -> f64 {
    let block = Block([7; 4096]);
    let started = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..in_flight {
            let block = &block;
            scope.spawn(move || {
                for commit in 0..SYNCS as u64 {
                    file.write_all_at(&block.0, (thread * SYNCS as u64 + commit) * block.0.len() as u64).unwrap();
                }
            });
        }
    });
    (in_flight * SYNCS as u64) as f64 / started.elapsed().as_secs_f64()
}

/// Fills a preallocated file by writes of so many bytes.
fn write_seconds(bytes: usize) -> f64 {
    let place = Place::new();
    let file = File::create_new(place.stream()).unwrap();
    // More than is written, so that no write makes the file longer.
    #[cfg(target_os = "linux")]
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 2 * u64::from(VOLUME)).unwrap();
    let source = vec![1; bytes];
    let started = Instant::now();
    for position in (FRONT..VOLUME.into()).step_by(bytes - 32) {
        // A little less than the power of two, as frames are: at the same few offsets of a page some processors copy at half the speed.
        file.write_all_at(&source[32..], position).unwrap();
    }
    started.elapsed().as_secs_f64()
}

/// A file all of whose bytes are durable.
fn written_file() -> (Place, File) {
    let place = Place::new();
    let file = File::create_new(place.stream()).unwrap();
    file.write_all_at(&vec![0; 16 << 20], 0).unwrap();
    file.sync_all().unwrap();
    (place, file)
}

fn sync_micros(file: &File, position: u64, touches: bool) -> f64 {
    let started = Instant::now();
    file.write_all_at(&RECORD, position).unwrap();
    file.sync_data().unwrap();
    if touches {
        let now = SystemTime::now();
        file.set_times(FileTimes::new().set_accessed(now).set_modified(now)).unwrap();
    }
    started.elapsed().as_secs_f64() * 1e6
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
