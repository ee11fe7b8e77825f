//! The one thread that flushes and trims. These tests alone have it running, and take turns.

use std::fs;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anabranch::storage::{DiskFault, Operation};
use anabranch::{Capacity, CapacityPolicy, Durability, Error, ManualClock, SimulatedDisk, Store, Stream};

use crate::support::{FaultyClock, S0, eventually, fill_large, place, put_to};

/// Two tests that count threads must not run at the same time.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many threads of this process the library has named; nothing where the system does not tell.
fn threads() -> Option<usize> {
    let tasks = fs::read_dir("/proc/self/task").ok()?;
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    Some(names.filter(|name| name.trim() == "anabranch").count())
}

/// A thread that was joined may be listed for a moment longer.
fn expect_threads(count: usize) {
    if threads().is_none() {
        eprintln!("skipped in part: no list of threads on this system");
        return;
    }
    eventually(&format!("{count} background threads"), || threads() == Some(count));
}

fn buffered() -> anabranch::StreamBuilder {
    Stream::builder().durability(Durability::Buffered).flush_interval(Duration::from_millis(5))
}

#[test]
fn a_buffered_stream_is_flushed_in_its_interval() {
    let _turn = turn();
    let (_directory, path) = place();
    let stream = buffered().shards(3).create(path).unwrap();
    for round in 1..5 {
        for shard in stream.shards() {
            put_to(&stream, shard.shard_id, "key", b"data");
        }
        eventually("the thread syncs", || stream.metrics().unsynced_records == 0);
        assert_eq!(stream.metrics().records_synced, 3 * round);
    }
}

#[test]
fn many_unsynced_bytes_are_flushed_before_the_interval_is_over() {
    let _turn = turn();
    let (_directory, path) = place();
    let hours = Duration::from_secs(20 * 3_600);
    let options = Stream::builder().durability(Durability::Buffered).flush_interval(hours).flush_bytes(10_000);
    let stream = options.create(path).unwrap();
    fill_large(&stream, S0, 2);
    let before = stream.metrics().syncs;
    fill_large(&stream, S0, 30); // a fifth of what the puts would sync by themselves
    eventually("the thread syncs", || stream.metrics().syncs > before);
}

#[test]
fn a_stream_has_one_thread_and_takes_it_along() {
    let _turn = turn();
    expect_threads(0);
    let (_directory, path) = place();
    let stream = buffered().create(&path).unwrap();
    let other = stream.clone();
    expect_threads(1);
    drop(stream);
    expect_threads(1);
    drop(other);
    expect_threads(0);

    let stream = buffered().open(&path).unwrap();
    let reader = buffered().open_read_only(&path).unwrap();
    expect_threads(1); // a reader needs none
    drop((stream, reader));
    expect_threads(0);

    Stream::builder().background(false).open(&path).unwrap();
    expect_threads(0);
    let error = buffered().create(&path).expect_err("exists");
    assert!(matches!(error, Error::StreamExists(_)), "{error:?}");
    expect_threads(0); // a failed opening leaves none
}

#[test]
fn a_closed_stream_is_left_alone_by_the_thread() {
    let _turn = turn();
    let (_directory, path) = place();
    for _ in 0..20 {
        let stream = buffered().open(&path).unwrap();
        let kept = stream.clone();
        put_to(&stream, S0, "key", b"data");
        stream.close().unwrap();
        let again = buffered().open(&path).unwrap(); // the first handle's thread is still there
        put_to(&again, S0, "key", b"data");
        again.close().unwrap();
        drop(kept);
    }
    expect_threads(0);
    assert!(anabranch::verify(&path, anabranch::VerifyOptions::default()).unwrap().is_sound());
}

#[test]
fn many_streams_of_a_store_share_one_thread() {
    let _turn = turn();
    expect_threads(0);
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let options = || Stream::builder().durability(Durability::Buffered).flush_interval(Duration::from_millis(5));
    let streams: Vec<_> =
        (0..40).map(|index| store.create(&format!("stream-{index}"), options()).unwrap()).collect();
    expect_threads(1);
    for stream in &streams {
        put_to(stream, S0, "key", b"data");
    }
    eventually("all of them are flushed", || streams.iter().all(|stream| stream.metrics().unsynced_records == 0));

    // Streams with intervals of their own keep them, whatever the others'.
    let hours = Duration::from_secs(20 * 3_600);
    let slow = store.create("slow", options().flush_interval(hours)).unwrap();
    put_to(&slow, S0, "key", b"data");
    put_to(&streams[0], S0, "key", b"data");
    eventually("the quick one is flushed", || streams[0].metrics().unsynced_records == 0);
    assert_eq!(slow.metrics().unsynced_records, 1);

    store.delete("stream-7").unwrap();
    drop(streams);
    drop(store);
    expect_threads(1); // of the stream that outlives the store
    put_to(&slow, S0, "key", b"data");
    drop(slow);
    expect_threads(0);
}

#[test]
fn a_hot_shard_is_split_by_the_thread() {
    let _turn = turn();
    let policy = CapacityPolicy::default().min_shards(1).records_per_second(10).interval(Duration::from_millis(1));
    let (disk, clock) = (SimulatedDisk::new(), Arc::new(ManualClock::default()));
    let options = buffered().capacity(Capacity::OnDemand(policy)).storage(Arc::new(disk)).clock(clock.clone());
    let stream = options.create("stream").unwrap();
    let mut put = 0;
    eventually("the thread splits", || {
        for _ in 0..100 {
            stream.put(format!("key-{put}"), b"data").unwrap();
            put += 1;
        }
        clock.advance(Duration::from_secs(5)); // many between two looks, where the thread is slow
        stream.open_shards().len() > 1
    });
    assert_eq!(stream.metrics().records_in, put);
}

#[test]
fn a_clock_that_panics_does_not_end_the_thread() {
    let _turn = turn();
    let policy = CapacityPolicy::default().interval(Duration::from_millis(1));
    let clock = Arc::new(FaultyClock::default());
    let options = buffered().capacity(Capacity::OnDemand(policy)).storage(Arc::new(SimulatedDisk::new()));
    let stream = options.clock(clock.clone()).create("stream").unwrap();
    clock.break_behind(0);
    eventually("the thread meets it", || clock.panicked.load(Ordering::SeqCst) > 1);
    clock.mend();
    stream.put("key", b"data").unwrap();
    eventually("the thread syncs", || stream.metrics().unsynced_records == 0);
}

/// A flush that nobody waits for fails where nobody is told: who watches the stream sees it all the same, and before the next put is refused.
#[test]
fn a_failed_flush_is_seen_by_who_puts_nothing() {
    let _turn = turn();
    let disk = SimulatedDisk::new();
    let stream = buffered().shards(2).storage(Arc::new(disk.clone())).create("stream").unwrap();
    let [_, second] = [0, 1].map(|index| stream.shards()[index].shard_id);
    put_to(&stream, second, "key", b"data"); // makes the file, which would fail otherwise
    eventually("it is flushed", || stream.metrics().unsynced_records == 0);
    assert!(stream.failure().is_none());
    disk.fail_on(Operation::Sync, 0, DiskFault::Error(std::io::ErrorKind::Other));
    put_to(&stream, second, "key", b"data");
    eventually("it is told", || stream.failure().is_some());
    let Some(Error::ShardFailed { shard_id, source }) = stream.failure() else { panic!("of another kind") };
    assert_eq!(shard_id, second);
    assert!(source.to_string().contains("sync"), "{source}");
    put_to(&stream, S0, "key", b"data"); // others go on
    drop(stream);
    let stream = buffered().storage(Arc::new(disk)).open_existing("stream").unwrap();
    assert!(stream.failure().is_none(), "it ends with the opening");
}
