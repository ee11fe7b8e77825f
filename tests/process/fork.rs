//! A fork of a process that has a stream open.
#![allow(unsafe_code, reason = "fork and _exit")]

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anabranch::storage::Operation;
use anabranch::{
    Consumer, Durability, Error, Lease, Pipeline, PutEntry, Queue, QueueOptions, Received, RecordsStart, ShardId,
    ShardIteratorType, SimulatedDisk, Stream, Work, WorkerOptions,
};

use crate::records::assert_sound;
use crate::support::wait_until;

type Call = fn(&Stream, ShardId) -> anabranch::Result<()>;

/// The child has a copy of the handle. Whatever it asks of it is refused, before a lock is taken that another thread may have held.
#[test]
fn a_forks_copy_is_closed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("stream");
    let stream = Stream::builder().durability(Durability::Buffered).create(&path).unwrap();
    stream.put("key", b"before").unwrap();
    let shard = stream.open_shards()[0];
    let calls: [Call; 10] = [
        |stream, shard| stream.fencing_token(shard).map(drop),
        |stream, _| stream.put("key", b"in the child").map(drop),
        |stream, _| stream.put_batch(&[PutEntry::new("key", b"in the child")]).map(drop),
        |stream, _| stream.sync(),
        |stream, _| stream.maintain(),
        |stream, shard| stream.split_shard(shard, None).map(drop),
        |stream, shard| stream.trim_shard(shard, 1.into()).map(drop),
        |stream, shard| stream.shard_iterator(shard, ShardIteratorType::Latest).map(drop),
        |stream, _| stream.delete_queue("queue").map(drop),
        |stream, _| stream.delete_consumer("consumer").map(drop),
    ];
    // SAFETY: the child makes calls that must be refused before they take a lock, and leaves.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let refused = calls.iter().take_while(|call| matches!(call(&stream, shard), Err(Error::Closed)));
        let code = i32::try_from(refused.count()).unwrap_or(99);
        // SAFETY: ends this process at once.
        unsafe { libc::_exit(code) }
    }
    let mut status = 0;
    // SAFETY: `status` is ours.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(libc::WEXITSTATUS(status), 10, "the first call that was not refused");
    stream.put("key", b"behind").unwrap();
    stream.close().unwrap();
    assert_sound(&path);
    let stream = Stream::builder().open(&path).unwrap();
    let mut records = stream.records(RecordsStart::TrimHorizon).unwrap();
    let data: Vec<_> = records.available().map(|record| record.unwrap().data().to_vec()).collect();
    assert_eq!(data, [b"before".to_vec(), b"behind".to_vec()]);
}

/// The child has a copy of the handle. It must not unlock, flush, seal or wait for what is its parent's.
#[test]
fn a_forks_copy_changes_nothing() {
    for durability in [Durability::Synced, Durability::Buffered] {
        for closes in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("stream");
            let stream = Stream::builder().durability(durability).create(&path).unwrap();
            for byte in 0..10_u8 {
                stream.put("key", [byte]).unwrap();
            }
            // SAFETY: the child only drops a handle, which takes no lock that another thread may have held, and leaves.
            let child = unsafe { libc::fork() };
            if child == 0 {
                let mut code = 0;
                if closes {
                    code = i32::from(stream.close().is_ok());
                } else {
                    drop(stream);
                }
                // SAFETY: ends this process at once.
                unsafe { libc::_exit(code) }
            }
            let mut status = 0;
            // SAFETY: `status` is ours.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert_eq!(status, 0, "the child");
            assert!(Stream::builder().open(&path).is_err(), "the lock is held as before");
            for byte in 10..20_u8 {
                stream.put("key", [byte]).unwrap();
            }
            stream.close().unwrap();
            assert_sound(&path);
            let stream = Stream::builder().open(&path).unwrap();
            assert!(stream.recovery().was_clean);
            let records = stream.records(RecordsStart::TrimHorizon).unwrap().available().count();
            assert_eq!(records, 20);
        }
    }
}

/// What was staged when the process was forked is in its segment by now, and its parent's slot, which both have mapped, holds other records: a copy
/// of an iterator that wrote them to the segment would put them in the place of the first ones.
#[test]
fn a_forks_copy_of_an_iterator_writes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("stream");
    let stream = Stream::builder().durability(Durability::Buffered).background(false).create(&path).unwrap();
    let shard = stream.open_shards()[0];
    let mut iterator = stream.shard_iterator(shard, ShardIteratorType::Latest).unwrap();
    stream.put("key", b"first").unwrap();
    let (mut told, mut tell) = std::io::pipe().unwrap();
    // SAFETY: the child waits to be told, makes calls that must be refused before they take a lock, and leaves.
    let child = unsafe { libc::fork() };
    if child == 0 {
        drop(tell);
        let was_told = told.read(&mut [0]).is_ok();
        let is_refused = matches!(iterator.next_batch(), Err(Error::Closed))
            && matches!(iterator.millis_behind_latest(), Err(Error::Closed));
        let puts = stream.metrics().puts;
        // SAFETY: ends this process at once.
        unsafe { libc::_exit(i32::from(!was_told || !is_refused || puts > 0)) }
    }
    stream.sync().unwrap();
    stream.put("key", b"other").unwrap();
    tell.write_all(b"!").unwrap();
    let mut status = 0;
    // SAFETY: `status` is ours.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "the child");
    let data: Vec<_> = iterator.available().map(|record| record.unwrap().data().to_vec()).collect();
    assert_eq!(data, [b"first", b"other"]);
    stream.close().unwrap();
    assert_sound(&path);
}

/// Another thread of its parent follows the stream: the child has a copy of the locks that it holds meanwhile.
#[test]
fn a_forks_copy_of_a_read_only_stream_shows_what_it_knew() {
    let directory = tempfile::tempdir().unwrap();
    let stream = Stream::builder().create(directory.path().join("stream")).unwrap();
    let put = stream.put("key", b"data").unwrap();
    let reader = Stream::builder().open_read_only(stream.path()).unwrap();
    let iterator = || reader.shard_iterator(put.shard_id, ShardIteratorType::TrimHorizon).unwrap();
    let (iterator, follower) = (iterator(), iterator());
    let (calls, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let ended = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                assert_eq!((reader.shards().len(), follower.records_behind()), (1, 1));
                calls.fetch_add(1, Ordering::SeqCst);
            }
        });
        let knows = |_: &u32| {
            let before = calls.load(Ordering::SeqCst);
            wait_until("the other thread goes on", || calls.load(Ordering::SeqCst) > before);
            // SAFETY: the child makes calls that must not take a lock, and leaves; or is ended where it waits for one.
            let child = unsafe { libc::fork() };
            if child == 0 {
                // SAFETY: sets an alarm, of this process alone.
                unsafe { libc::alarm(20) };
                let shown = (reader.shards().len(), reader.open_shards().len(), iterator.records_behind());
                // SAFETY: ends this process at once.
                unsafe { libc::_exit(i32::from(shown != (1, 1, 1))) }
            }
            let mut status = 0;
            // SAFETY: `status` is ours.
            let ended = unsafe { libc::waitpid(child, &raw mut status, 0) };
            ended == child && status == 0
        };
        let ended = (0..100).take_while(knows).count();
        is_over.store(true, Ordering::SeqCst); // before anything is asserted: the thread has to end
        ended
    });
    assert_eq!(ended, 100, "the first child that showed something else, or waited for ever");
}

/// The child has a copy of the producer and of its handles, and no thread that sends.
#[test]
fn a_forks_copy_of_a_producer_is_closed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("stream");
    let stream = Stream::builder().create(&path).unwrap();
    let producer = stream.batching_producer().linger(Duration::from_secs(3_600)).start().unwrap();
    let handle = producer.put("key", b"before").unwrap();
    // SAFETY: the child makes calls that must be refused before they take a lock, drops its copies, and leaves.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let outcomes = [
            producer.put("key", b"in the child").map(drop),
            producer.flush(),
            handle.wait().map(drop),
            handle.wait_timeout(Duration::from_secs(3_600)).map(drop),
            producer.clone().close(),
        ];
        let in_flight = producer.in_flight().records;
        drop((producer, stream));
        let refused = outcomes.iter().take_while(|outcome| matches!(outcome, Err(Error::Closed)));
        let code = i32::try_from(refused.count() + 10 * in_flight).unwrap_or(99);
        // SAFETY: ends this process at once.
        unsafe { libc::_exit(code) }
    }
    let mut status = 0;
    // SAFETY: `status` is ours.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(libc::WEXITSTATUS(status), 5, "the first call that was not refused");
    producer.close().unwrap();
    assert_eq!(handle.try_wait().unwrap().unwrap().sequence_number.get(), 0);
    stream.close().unwrap();
    assert_sound(&path);
}

type CallOfConsumer = fn(&Consumer, &Lease, &mut Pipeline) -> anabranch::Result<()>;

/// The child has a copy of the consumer. The lock of its file is one with its parent's: that the child took it, too, and gave it back, would be the end of it for both.
#[test]
fn a_forks_copy_of_a_consumer_asks_for_no_lock() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("stream");
    let stream = Stream::builder().create(&path).unwrap();
    let output = Stream::builder().create(directory.path().join("output")).unwrap();
    let consumer = stream.consumer("c").unwrap();
    let mut pipeline = Pipeline::new(&consumer, &output, "p").unwrap();
    let lease = consumer.take(ShardId::new(0), "w").unwrap();
    let calls: [CallOfConsumer; 15] = [
        |consumer, _, _| consumer.worker("w", WorkerOptions::new()).map(drop),
        |_, _, pipeline| pipeline.step(|_, _| ()).map(drop),
        |consumer, _, _| consumer.take(ShardId::new(0), "w").map(drop),
        |consumer, _, _| consumer.checkpoint(ShardId::new(0)).map(drop),
        |consumer, _, _| consumer.checkpoints().map(drop),
        |consumer, _, _| consumer.iterator(ShardId::new(0)).map(drop),
        |consumer, _, _| consumer.reset(RecordsStart::TrimHorizon),
        |consumer, _, _| consumer.reset_shard(ShardId::new(0), RecordsStart::TrimHorizon),
        |consumer, _, _| consumer.sync(),
        |_, lease, _| lease.iterator().map(drop),
        |_, lease, _| lease.checkpoint_at(0.into()),
        |_, lease, _| lease.checkpoint_end(),
        |consumer, _, _| consumer.stream().consumer("c").map(drop),
        |consumer, _, _| consumer.stream().consumer("new").map(drop),
        |consumer, _, _| consumer.stream().consumers().map(drop),
    ];
    // Somebody else's: whoever asks for it is told so after seconds.
    let file = std::fs::File::open(path.join("consumers/c")).unwrap();
    file.lock().unwrap();
    // SAFETY: the child makes calls that must be refused before they take a lock, and leaves.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let refused =
            calls.iter().take_while(|call| matches!(call(&consumer, &lease, &mut pipeline), Err(Error::Closed)));
        let code = i32::try_from(refused.count()).unwrap_or(99);
        // SAFETY: ends this process at once.
        unsafe { libc::_exit(code) }
    }
    let mut status = 0;
    // SAFETY: `status` is ours.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(libc::WEXITSTATUS(status), 15, "the first call that was not refused");
    file.unlock().unwrap();
    consumer.take(ShardId::new(0), "w").unwrap();
}

type CallOfQueue = fn(&Queue, &Received) -> anabranch::Result<()>;

/// The child has a copy of the queue, and of locks that other threads of its parent hold: one writes the queue's file, one makes another queue.
#[test]
fn a_forks_copy_of_a_queue_is_closed() {
    const CALLS: [CallOfQueue; 17] = [
        |queue, _| queue.receive(1, Duration::ZERO).map(drop),
        |queue, _| queue.receive_set_aside(1, Duration::ZERO).map(drop),
        |queue, received| queue.acknowledge(received),
        |queue, received| queue.change_visibility(received, Duration::ZERO),
        |queue, received| queue.give_back(received),
        |queue, received| queue.restore_received(received),
        |queue, received| queue.restore(received.record.shard_id(), received.record.sequence_number()).map(drop),
        |queue, received| queue.discard(received.record.shard_id(), received.record.sequence_number()).map(drop),
        |queue, _| queue.restore_all().map(drop),
        |queue, _| queue.set_aside().map(drop),
        |queue, _| queue.describe().map(drop),
        |queue, _| queue.sync(),
        |queue, _| queue.stream().sync(),
        |queue, _| queue.stream().queue("orders", QueueOptions::new()).map(drop),
        |queue, _| queue.stream().queue("new", QueueOptions::new()).map(drop),
        |queue, _| queue.stream().queues().map(drop),
        |queue, _| queue.stream().delete_queue("orders"),
    ];
    let disk = SimulatedDisk::new();
    let stream = Stream::builder().background(false).storage(Arc::new(disk.clone())).create("stream").unwrap();
    for _ in 0..2 {
        stream.put("key", b"data").unwrap();
    }
    let queue = stream.queue("orders", QueueOptions::new()).unwrap();
    let received = queue.receive(2, Duration::ZERO).unwrap();
    queue.acknowledge(&received[0]).unwrap();
    let syncs = disk.operations_of(Operation::Sync);
    disk.stall_syncs(true);
    std::thread::scope(|scope| {
        scope.spawn(|| queue.sync().unwrap());
        scope.spawn(|| drop(stream.queue("another", QueueOptions::new()).unwrap()));
        wait_until("both write", || disk.operations_of(Operation::Sync) == syncs + 2);
        // SAFETY: the child makes calls that must be refused before they take a lock, and leaves; or is ended where it waits for one.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: sets an alarm, of this process alone.
            unsafe { libc::alarm(20) };
            let refused = CALLS.iter().take_while(|call| matches!(call(&queue, &received[1]), Err(Error::Closed)));
            let code = i32::try_from(refused.count()).unwrap_or(99);
            // SAFETY: ends this process at once.
            unsafe { libc::_exit(code) }
        }
        let mut status = 0;
        // SAFETY: `status` is ours.
        let ended = unsafe { libc::waitpid(child, &raw mut status, 0) };
        disk.stall_syncs(false); // before anything is asserted: the threads have to end
        assert_eq!(ended, child);
        assert!(libc::WIFEXITED(status), "it waits for ever: {status}");
        assert_eq!(libc::WEXITSTATUS(status), 17, "the first call that was not refused");
    });
    queue.acknowledge(&received[1]).unwrap();
    assert_eq!(stream.queues().unwrap(), ["another", "orders"]);
}

/// The child drops its copy of a worker: its parent goes on with its name and its shards.
#[test]
fn a_forks_copy_of_a_worker_gives_nothing_up() {
    let directory = tempfile::tempdir().unwrap();
    let stream = Stream::builder().create(directory.path().join("stream")).unwrap();
    let put = stream.put("key", b"data").unwrap();
    let consumer = stream.consumer("c").unwrap();
    let mut worker = consumer.worker("w", WorkerOptions::new()).unwrap();
    assert!(matches!(worker.poll(), Ok(Some(Work::Started(_)))));
    // SAFETY: the child drops a worker, which takes no lock, and leaves.
    let child = unsafe { libc::fork() };
    if child == 0 {
        drop(worker);
        // SAFETY: ends this process at once.
        unsafe { libc::_exit(0) }
    }
    let mut status = 0;
    // SAFETY: `status` is ours.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "the child");
    // Who asks in another process would have the name, if the child had unlocked or removed it.
    let elsewhere = Stream::builder().open_read_only(stream.path()).unwrap().consumer("c").unwrap();
    assert!(matches!(elsewhere.worker("w", WorkerOptions::new()), Err(Error::WorkerExists(_))));
    assert!(matches!(worker.poll(), Ok(Some(Work::Records { .. }))));
    worker.checkpoint(put.shard_id, &stream.get(put.shard_id, put.sequence_number).unwrap()).unwrap();
    worker.close().unwrap();
    drop(elsewhere.worker("w", WorkerOptions::new()).unwrap());
}
