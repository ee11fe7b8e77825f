//! Tasks that read and put, on two runtimes and on none.
//!
//! ```text
//! cargo test --features async --test asynchronous
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]
#![allow(unsafe_code, reason = "fork and _exit")]

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use anabranch::storage::Operation;
use anabranch::{
    DiskFault, Durability, Error, PutEntry, PutOptions, RecordsStart, SequenceNumber, ShardId, ShardIteratorType,
    SimulatedDisk, Stream,
};
use futures_util::future::join_all;
use futures_util::{FutureExt, StreamExt};

const S0: ShardId = ShardId::new(0);

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap()
}

/// Nothing is synced but what somebody asks for.
fn stream(durability: Durability, shards: u32) -> (tempfile::TempDir, Stream) {
    let directory = tempfile::tempdir().unwrap();
    let builder = Stream::builder().shards(shards).segment_bytes(64 << 10).durability(durability);
    let builder = builder.flush_interval(Duration::from_secs(3_600));
    let stream = builder.create(directory.path().join("stream")).unwrap();
    (directory, stream)
}

fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Counts how often it was woken.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Count {
    fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

async fn put_and_check(stream: Stream) {
    let puts: Vec<_> =
        (0..1_000).map(|index| stream.put_async(format!("key-{index}"), format!("{index}"))).collect();
    let receipts = join_all(puts).await;
    for (index, receipt) in receipts.into_iter().enumerate() {
        let receipt = receipt.unwrap();
        let record = stream.get(receipt.shard_id, receipt.sequence_number).unwrap();
        assert_eq!(record.data(), index.to_string().as_bytes());
    }
    let keys: Vec<_> = (0..100).map(|index| format!("key-{index}")).collect();
    let entries: Vec<_> = keys.iter().map(|key| PutEntry::new(key, b"batch")).collect();
    let receipts = stream.put_batch_async(&entries, Durability::Synced).await.unwrap();
    assert_eq!(receipts.len(), entries.len());
    let metrics = stream.metrics();
    assert_eq!((metrics.records_in, metrics.records_synced), (1_100, 1_100));
    assert!(metrics.syncs < 500, "{} syncs for 1,100 records: commits are shared", metrics.syncs);
}

#[test]
fn durable_puts_share_their_commits() {
    runtime().block_on(put_and_check(stream(Durability::Synced, 2).1));
    smol::block_on(put_and_check(stream(Durability::Synced, 2).1));
}

#[test]
fn threads_and_tasks_commit_together() {
    let (_directory, stream) = stream(Durability::Synced, 1);
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let stream = stream.clone();
            thread::spawn(move || {
                for _ in 0..100 {
                    stream.put("thread", b"data").unwrap();
                }
            })
        })
        .collect();
    runtime().block_on(async {
        let tasks = (0..8).map(|_| {
            let stream = stream.clone();
            tokio::spawn(async move {
                for _ in 0..100 {
                    stream.put_async("task", b"data").await.unwrap();
                }
            })
        });
        for outcome in join_all(tasks).await {
            outcome.unwrap();
        }
    });
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(stream.describe().unwrap().shards[0].next_sequence_number, SequenceNumber::new(1_200));
    assert_eq!(stream.metrics().records_synced, 1_200);
}

#[test]
fn a_dropped_future_loses_nothing() {
    let (_directory, stream) = stream(Durability::Synced, 1);
    drop(stream.put_async("key", b"never polled"));
    let mut polled = Box::pin(stream.put_async("key", b"polled once"));
    let _ = polled.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    drop(polled);
    eventually("both are committed", || stream.metrics().records_synced == 2);
    let mut records = stream.records(RecordsStart::TrimHorizon).unwrap();
    let data: Vec<_> = records.available().map(|record| record.unwrap().data().to_vec()).collect();
    assert_eq!(data, [&b"never polled"[..], b"polled once"]);
}

/// Nothing of this process wakes it, and it must give way all the same.
#[test]
fn a_reader_of_what_another_process_writes_does_not_spin() {
    let (_directory, stream) = stream(Durability::Synced, 1);
    stream.put("key", b"data").unwrap();
    let other = Stream::builder().open_read_only(stream.path()).unwrap();
    let poll = thread::spawn(move || {
        let mut context = Context::from_waker(Waker::noop());
        let mut records = other.records(RecordsStart::TrimHorizon).unwrap().into_stream();
        let mut shard = other.shard_iterator(S0, ShardIteratorType::TrimHorizon).unwrap().into_stream();
        let polls = [(); 2].map(|()| (records.poll_next_unpin(&mut context), shard.poll_next_unpin(&mut context)));
        polls.map(|(records, shard)| (records.is_pending(), shard.is_pending()))
    });
    eventually("they give way", || poll.is_finished());
    assert_eq!(poll.join().unwrap(), [(false, false), (true, true)]);
}

/// In a child, which has copies of what nobody wakes there.
#[test]
fn a_forks_copies_of_what_is_awaited_are_over() {
    let (_directory, stream) = stream(Durability::Synced, 1);
    let mut context = Context::from_waker(Waker::noop());
    let mut records = stream.records(RecordsStart::TrimHorizon).unwrap().into_stream();
    assert!(records.poll_next_unpin(&mut context).is_pending());
    let mut put = stream.put_async("key", b"data");
    // SAFETY: the child polls copies that must be over before they take a lock, drops them, and leaves.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let put_is_over = matches!(put.poll_unpin(&mut context), Poll::Ready(Err(Error::Closed)));
        let records_are_over = matches!(records.poll_next_unpin(&mut context), Poll::Ready(None));
        drop((put, records));
        // SAFETY: ends this process at once.
        unsafe { libc::_exit(i32::from(put_is_over) + 2 * i32::from(records_are_over)) }
    }
    let mut status = 0;
    // SAFETY: `status` is ours.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(libc::WEXITSTATUS(status), 3);
    smol::block_on(put).unwrap();
}

/// Nobody else would do it.
#[test]
fn without_a_background_the_commit_is_done_at_once() {
    let disk = SimulatedDisk::new();
    let stream = Stream::builder().background(false).storage(Arc::new(disk)).create("stream").unwrap();
    let put = pin!(stream.put_async("key", b"data"));
    assert_eq!(stream.metrics().records_synced, 1);
    assert!(matches!(put.poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(_))));
}

#[test]
fn refusals_and_failures_are_given_to_each() {
    let disk = SimulatedDisk::new();
    let stream = Stream::builder().storage(Arc::new(disk.clone())).create("stream").unwrap();
    smol::block_on(async {
        assert!(matches!(stream.put_async("", b"").await, Err(Error::InvalidArgument { .. })));
        let expecting = PutOptions::new().expect_next(SequenceNumber::new(7));
        let refused = stream.put_async_with("key", b"", expecting).await;
        assert!(matches!(refused, Err(Error::SequenceNumberMismatch { .. })));
        stream.put_async("key", b"data").await.unwrap();
        disk.fail_on(Operation::Sync, 0, DiskFault::Error(std::io::ErrorKind::Other));
        let puts: Vec<_> = (0..10).map(|_| stream.put_async("key", b"lost")).collect();
        for outcome in join_all(puts).await {
            assert!(matches!(outcome, Err(Error::ShardFailed { .. })), "{outcome:?}");
        }
    });
}

#[test]
fn a_pending_put_is_answered_when_the_stream_is_closed() {
    for _ in 0..20 {
        let (_directory, stream) = stream(Durability::Synced, 2);
        let puts: Vec<_> = (0..50).map(|index| stream.put_async(format!("{index}"), b"data")).collect();
        stream.close().unwrap();
        assert!(smol::block_on(join_all(puts)).into_iter().all(|outcome| outcome.is_ok()));
    }
}

/// Puts from a thread, through a split and a merge; the readers end when the stream is closed.
fn produce(stream: Stream, records: u64) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for index in 0..records {
            stream.put(format!("key-{}", index % 7), index.to_string()).unwrap();
            if index == records / 3 {
                stream.split_shard(S0, None).unwrap();
            } else if index == records / 2 {
                stream.merge_shards(ShardId::new(1), ShardId::new(2)).unwrap();
            }
            if index % 50 == 0 {
                thread::sleep(Duration::from_millis(1)); // the readers reach the tail, and wait
            }
        }
        stream.close().unwrap();
    })
}

async fn follow(stream: Stream, records: u64) {
    let producer = produce(stream.clone(), records);
    let mut reader = stream.records(RecordsStart::TrimHorizon).unwrap().into_stream();
    drop(stream);
    let mut last = BTreeMap::new();
    let mut found = 0;
    while let Some(record) = reader.next().await {
        let record = record.unwrap();
        let index: u64 = std::str::from_utf8(record.data()).unwrap().parse().unwrap();
        let before = last.insert(record.partition_key().to_owned(), index);
        assert!(before.is_none_or(|before| before + 7 == index), "{before:?} and then {index}");
        found += 1;
    }
    assert_eq!(found, records);
    producer.join().unwrap();
}

#[test]
fn a_reader_follows_through_split_and_merge_to_the_end() {
    for durability in [Durability::Synced, Durability::Buffered] {
        runtime().block_on(follow(stream(durability, 1).1, 600));
        smol::block_on(follow(stream(durability, 1).1, 600));
    }
    runtime().block_on(follow(stream(Durability::Buffered, 1).1, 100_000));
}

#[test]
fn many_readers_of_one_shard_are_all_woken() {
    let (_directory, stream) = stream(Durability::Buffered, 1);
    runtime().block_on(async {
        let readers = (0..32).map(|_| {
            let iterator = stream.shard_iterator(S0, ShardIteratorType::TrimHorizon).unwrap();
            tokio::spawn(iterator.into_stream().take(500).fold(0, |next, record| async move {
                assert_eq!(record.unwrap().sequence_number().get(), next);
                next + 1
            }))
        });
        let readers: Vec<_> = readers.collect();
        for index in 0..500 {
            stream.put_async("key", index.to_string()).await.unwrap();
            if index % 10 == 0 {
                tokio::task::yield_now().await;
            }
        }
        assert!(join_all(readers).await.into_iter().all(|read| read.unwrap() == 500));
    });
}

#[test]
fn a_shards_reader_ends_with_its_shard() {
    let (_directory, stream) = stream(Durability::Synced, 1);
    stream.put("key", b"data").unwrap();
    let reader = stream.shard_iterator(S0, ShardIteratorType::TrimHorizon).unwrap().into_stream();
    let reading = thread::spawn(move || smol::block_on(reader.count()));
    stream.split_shard(S0, None).unwrap();
    assert_eq!(reading.join().unwrap(), 1);
}

#[test]
fn who_waits_is_woken_by_records_and_by_nothing_else() {
    let (_directory, stream) = stream(Durability::Buffered, 2);
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    let mut reader = stream.shard_iterator(S0, ShardIteratorType::Latest).unwrap().into_stream();
    let mut poll = || reader.poll_next_unpin(&mut Context::from_waker(&waker));
    for _ in 0..3 {
        assert!(poll().is_pending());
    }
    thread::sleep(Duration::from_millis(100));
    assert_eq!(count.get(), 0);
    let keys: Vec<_> = (0..100).map(|key| key.to_string()).collect();
    let of = |shard| keys.iter().find(|key| stream.route(key).unwrap() == shard).unwrap();
    stream.put(of(ShardId::new(1)), b"another shard's").unwrap();
    assert_eq!(count.get(), 0);
    stream.put(of(S0), b"its own").unwrap();
    assert_eq!(count.get(), 1);
    assert!(matches!(poll(), Poll::Ready(Some(Ok(record))) if record.data() == b"its own"));
    assert!(poll().is_pending());
    // Dropped, it leaves nothing behind.
    let iterator = reader.into_inner();
    assert_eq!(Arc::strong_count(&count), 2, "the test's own, and its waker's");
    stream.put(of(S0), b"unseen").unwrap();
    assert_eq!(count.get(), 1);
    assert_eq!(iterator.next_sequence_number(), SequenceNumber::new(1), "and the reader goes on where it was");
}

#[test]
fn a_busy_reader_gives_way() {
    let (_directory, stream) = stream(Durability::Buffered, 1);
    for _ in 0..1_000 {
        stream.put("key", b"data").unwrap();
    }
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    let mut reader = stream.records(RecordsStart::TrimHorizon).unwrap().into_stream();
    let mut polls = (0..1_003).map(|_| reader.poll_next_unpin(&mut Context::from_waker(&waker)).is_ready());
    assert_eq!(polls.by_ref().filter(|ready| *ready).count(), 1_000);
    assert_eq!(count.get(), 3);
}

#[test]
fn a_follower_of_another_writer_is_woken_too() {
    let (_directory, writer) = stream(Durability::Buffered, 2);
    let reader = Stream::builder().open_read_only(writer.path()).unwrap();
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let records = reader.records(RecordsStart::TrimHorizon).unwrap().into_stream();
            thread::spawn(move || smol::block_on(records.take(100).count()))
        })
        .collect();
    for round in 0..2 {
        for index in 0..50 {
            writer.put(format!("{index}"), b"data").unwrap();
        }
        thread::sleep(Duration::from_millis(100 * (1 - round))); // the looks rest, and begin again
    }
    assert!(readers.into_iter().all(|reader| reader.join().unwrap() == 100));
}

/// A waker whose executor is gone.
struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("there is no executor any more");
    }
}

/// Whoever rings goes on, and so do the others that the ring was for.
#[test]
fn a_waker_that_panics_harms_nobody() {
    for durability in [Durability::Synced, Durability::Buffered] {
        let (_directory, stream) = stream(durability, 1);
        let gone = Waker::from(Arc::new(Panics));
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let [mut first, mut second] =
            [(), ()].map(|()| stream.records(RecordsStart::TrimHorizon).unwrap().into_stream());
        assert!(first.poll_next_unpin(&mut Context::from_waker(&gone)).is_pending());
        assert!(second.poll_next_unpin(&mut Context::from_waker(&waker)).is_pending());
        let puts = thread::spawn({
            let stream = stream.clone();
            move || {
                for _ in 0..200 {
                    stream.put("key", [1; 1_000]).unwrap(); // segments are rolled, too
                }
                stream.close().unwrap();
            }
        });
        eventually("the puts come back", || puts.is_finished());
        puts.join().unwrap();
        assert!(count.get() > 0, "the other one was woken");
    }
}
