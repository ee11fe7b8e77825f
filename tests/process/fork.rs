//! A fork of a process that has a stream open.
#![allow(unsafe_code, reason = "fork and _exit")]

use std::io::{Read, Write};
use std::time::Duration;

use anabranch::{
    Consumer, Durability, Error, Pipeline, PutEntry, RecordsStart, ShardId, ShardIteratorType, Stream,
    WorkerOptions,
};

use crate::records::assert_sound;

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
        let is_refused = matches!(iterator.next_batch(), Err(Error::Closed));
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

type CallOfConsumer = fn(&Consumer, &mut Pipeline) -> anabranch::Result<()>;

/// The child has a copy of the consumer. The lock of its file is one with its parent's: that the child took it, too, and gave it back, would be the end of it for both.
#[test]
fn a_forks_copy_of_a_consumer_asks_for_no_lock() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("stream");
    let stream = Stream::builder().create(&path).unwrap();
    let output = Stream::builder().create(directory.path().join("output")).unwrap();
    let consumer = stream.consumer("c").unwrap();
    let mut pipeline = Pipeline::new(&consumer, &output, "p").unwrap();
    let calls: [CallOfConsumer; 8] = [
        |consumer, _| consumer.worker("w", WorkerOptions::new()).map(drop),
        |_, pipeline| pipeline.step(|_, _| ()).map(drop),
        |consumer, _| consumer.take(ShardId::new(0), "w").map(drop),
        |consumer, _| consumer.checkpoint(ShardId::new(0)).map(drop),
        |consumer, _| consumer.checkpoints().map(drop),
        |consumer, _| consumer.iterator(ShardId::new(0)).map(drop),
        |consumer, _| consumer.reset(RecordsStart::TrimHorizon),
        |consumer, _| consumer.sync(),
    ];
    // Somebody else's: whoever asks for it is told so after seconds.
    let file = std::fs::File::open(path.join("consumers/c")).unwrap();
    file.lock().unwrap();
    // SAFETY: the child makes calls that must be refused before they take a lock, and leaves.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let refused = calls.iter().take_while(|call| matches!(call(&consumer, &mut pipeline), Err(Error::Closed)));
        let code = i32::try_from(refused.count()).unwrap_or(99);
        // SAFETY: ends this process at once.
        unsafe { libc::_exit(code) }
    }
    let mut status = 0;
    // SAFETY: `status` is ours.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(libc::WEXITSTATUS(status), 8, "the first call that was not refused");
    file.unlock().unwrap();
    consumer.take(ShardId::new(0), "w").unwrap();
}
