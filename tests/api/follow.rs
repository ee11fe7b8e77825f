//! Waiting at the tail: woken by puts, ended by a shard's end or the stream's close, bounded by timeouts.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use anabranch::storage::Operation;
use anabranch::{DiskFault, Error, Records, RecordsStart, RetentionPeriod, ShardId, Stream};

use crate::support::{
    DEADLINE, HORIZON, LARGE_PER_SEGMENT, S0, S1, builder, damage, eventually, fill, fill_large, numbers, put_to,
    segments, simulated, stream,
};

/// Follows a shard in a thread, which tells each number as it comes, and gives how many there were.
fn follow(stream: &Stream) -> (mpsc::Receiver<u64>, thread::JoinHandle<u64>) {
    let mut iterator = stream.shard_iterator(S0, HORIZON).unwrap();
    let (tell, told) = mpsc::channel();
    let follower = thread::spawn(move || {
        let mut count = 0;
        for record in iterator.follow() {
            tell.send(record.unwrap().sequence_number().get()).unwrap();
            count += 1;
        }
        count
    });
    (told, follower)
}

#[test]
fn a_follower_gets_what_another_thread_puts() {
    let (_directory, stream) = stream(builder());
    fill(&stream, 2);
    let (told, follower) = follow(&stream);
    for expected in 0..2 {
        assert_eq!(told.recv_timeout(DEADLINE).unwrap(), expected);
    }
    for expected in 2..50 {
        assert!(told.try_recv().is_err(), "told of a record that was not put");
        fill(&stream, 1);
        assert_eq!(told.recv_timeout(DEADLINE).unwrap(), expected);
    }
    stream.close().unwrap();
    assert_eq!(follower.join().unwrap(), 50);
}

#[test]
fn following_ends_at_the_end_of_the_shard() {
    let (_directory, stream) = stream(builder().shards(2));
    fill(&stream, 3);
    for merge in [false, true] {
        if merge {
            let (_told, follower) = follow(&stream);
            assert_eq!(follower.join().unwrap(), 3, "a shard that is closed already");
        } else {
            let (told, follower) = follow(&stream);
            assert_eq!(told.recv_timeout(DEADLINE).unwrap(), 0);
            stream.merge_shards(S0, S1).unwrap();
            assert_eq!(follower.join().unwrap(), 3);
        }
    }
}

#[test]
fn following_ends_when_the_stream_is_closed_elsewhere() {
    let (_directory, stream) = stream(builder());
    fill(&stream, 1);
    let (told, follower) = follow(&stream);
    assert_eq!(told.recv_timeout(DEADLINE).unwrap(), 0);
    stream.clone().close().unwrap();
    assert_eq!(follower.join().unwrap(), 1);
    drop(stream);
}

#[test]
fn following_the_whole_stream_passes_through_reshards_and_ends_at_the_close() {
    let (_directory, stream) = stream(builder().shards(2));
    let mut records = stream.records(RecordsStart::TrimHorizon).unwrap();
    let (tell, told) = mpsc::channel();
    let follower = thread::spawn(move || {
        for record in records.follow() {
            tell.send(String::from_utf8(record.unwrap().data().to_vec()).unwrap()).unwrap();
        }
    });
    let put = |text: String| {
        stream.put("one key", &text).unwrap();
        assert_eq!(told.recv_timeout(DEADLINE).unwrap(), text);
    };
    for round in 0..5 {
        put(format!("before {round}"));
        let owner = stream.route("one key").unwrap();
        stream.split_shard(owner, None).unwrap();
        put(format!("split {round}"));
        let open = stream.open_shards();
        stream.merge_shards(open[0], open[1]).unwrap();
        put(format!("merged {round}"));
    }
    stream.close().unwrap();
    follower.join().unwrap();
    assert!(told.try_recv().is_err());
}

#[test]
fn timeouts_give_nothing() {
    let (_directory, stream) = stream(builder());
    let mut iterator = stream.shard_iterator(S0, HORIZON).unwrap();
    let mut records = stream.records(RecordsStart::TrimHorizon).unwrap();
    for timeout in [Duration::ZERO, Duration::from_millis(1), Duration::from_millis(20)] {
        assert!(iterator.next_timeout(timeout).unwrap().is_none());
        assert!(iterator.next_batch_timeout(timeout).unwrap().is_empty());
        assert!(records.next_timeout(timeout).unwrap().is_none());
    }
    fill(&stream, 3);
    for expected in 0..3 {
        let record = iterator.next_timeout(Duration::ZERO).unwrap().unwrap();
        assert_eq!(record.sequence_number().get(), expected, "a zero timeout is a poll");
        assert_eq!(records.next_timeout(Duration::ZERO).unwrap().unwrap().sequence_number().get(), expected);
    }
    assert!(iterator.next_timeout(Duration::ZERO).unwrap().is_none());
    fill(&stream, 2);
    assert_eq!(iterator.next_batch_timeout(Duration::MAX).unwrap().len(), 2);
}

#[test]
fn a_long_timeout_is_cut_short_by_a_record() {
    let (_directory, stream) = stream(builder());
    let mut iterator = stream.shard_iterator(S0, HORIZON).unwrap();
    let mut records = stream.records(RecordsStart::Latest).unwrap();
    // Longer than the test may take: only the record can end the wait.
    let waiter = thread::spawn(move || {
        let record = iterator.next_timeout(Duration::MAX).unwrap().unwrap();
        (record.sequence_number().get(), iterator.next_batch_timeout(Duration::MAX).unwrap().len())
    });
    let other =
        thread::spawn(move || records.next_timeout(Duration::MAX).unwrap().unwrap().sequence_number().get());
    fill(&stream, 1);
    assert_eq!(other.join().unwrap(), 0);
    eventually("the second wait is served as well", || {
        if !waiter.is_finished() {
            fill(&stream, 1);
        }
        waiter.is_finished()
    });
    let (first, more) = waiter.join().unwrap();
    assert_eq!(first, 0);
    assert!(more >= 1);
}

#[test]
fn a_wait_ends_when_nothing_will_ever_come() {
    let (_directory, stream) = stream(builder());
    fill(&stream, 1);
    let mut iterator = stream.shard_iterator(S0, HORIZON).unwrap();
    let mut other = stream.shard_iterator(S0, anabranch::ShardIteratorType::Latest).unwrap();
    let waiter = thread::spawn(move || other.next_timeout(Duration::MAX).unwrap().is_none());
    stream.split_shard(S0, None).unwrap();
    assert!(waiter.join().unwrap(), "the end of the shard ends the wait");
    assert!(iterator.next_timeout(Duration::MAX).unwrap().is_some());
    assert!(iterator.next_timeout(Duration::MAX).unwrap().is_none());
    assert!(iterator.end_of_shard().is_some());
}

#[test]
fn a_wait_ends_when_the_stream_is_closed() {
    let (_directory, stream) = stream(builder());
    let mut iterator = stream.shard_iterator(S0, HORIZON).unwrap();
    let mut records = stream.records(RecordsStart::TrimHorizon).unwrap();
    let waiters = [
        thread::spawn(move || iterator.next_timeout(Duration::MAX).unwrap().is_none()),
        thread::spawn(move || records.next_timeout(Duration::MAX).unwrap().is_none()),
    ];
    stream.close().unwrap();
    for waiter in waiters {
        assert!(waiter.join().unwrap());
    }
}

#[test]
fn after_the_close_iterators_read_what_is_left() {
    let (_directory, stream) = stream(builder());
    fill(&stream, 4);
    let mut iterator = stream.shard_iterator(S0, HORIZON).unwrap();
    assert_eq!(iterator.available().take(1).count(), 1);
    stream.close().unwrap();
    let followed: Vec<_> = iterator.follow().map(|record| record.unwrap().sequence_number().get()).collect();
    assert_eq!(followed, [1, 2, 3]);
    assert_eq!(numbers(&mut iterator), [0; 0]);
}

#[test]
fn many_followers_are_all_woken() {
    let (_directory, stream) = stream(builder());
    let followers: Vec<_> = (0..12).map(|_| follow(&stream)).collect();
    for round in 0..20 {
        put_to(&stream, S0, "key", b"data");
        for (told, _) in &followers {
            assert_eq!(told.recv_timeout(DEADLINE).unwrap(), round);
        }
    }
    stream.close().unwrap();
    for (_, follower) in followers {
        assert_eq!(follower.join().unwrap(), 20);
    }
}

/// Children that could not be begun are begun at the next look.
#[test]
fn a_failure_between_a_parent_and_its_children_loses_neither() {
    let (disk, clock, stream) = simulated(builder().retention(RetentionPeriod::hours(24)));
    fill_large(&stream, S0, 3);
    let (lower, upper) = stream.split_shard(S0, None).unwrap();
    fill_large(&stream, lower, 4);
    fill_large(&stream, upper, 5);
    stream.close().unwrap();
    let stream = builder().storage(Arc::new(disk.clone())).clock(clock.clone()).open_existing("stream").unwrap();
    clock.advance(Duration::from_secs(2));
    let mut records = stream.records(RecordsStart::TrimHorizon).unwrap();
    assert_eq!(records.available().take(3).flatten().count(), 3);
    disk.fail_on(Operation::OpenFile, 0, DiskFault::Error(std::io::ErrorKind::Other));
    let mut found = Vec::new();
    for _ in 0..2 {
        found.extend(records.available().map(|record| record.map(|record| record.shard_id())));
    }
    let (read, failed): (Vec<_>, Vec<_>) = found.into_iter().partition(Result::is_ok);
    assert_eq!((read.len(), failed.len()), (9, 1));
}

/// The shards of the records that a reader has to give now; before them, those of which it says that something is gone.
fn missed_and_read(records: &mut Records) -> (Vec<ShardId>, Vec<ShardId>) {
    let (mut missed, mut read) = (Vec::new(), Vec::new());
    for outcome in records.available() {
        match outcome {
            Ok(record) => read.push(record.shard_id()),
            Err(Error::Trimmed { shard_id, .. }) if read.is_empty() => missed.push(shard_id),
            Err(error) => panic!("{error:?}"),
        }
    }
    (missed, read)
}

/// Between two looks of a reader that follows another process, a shard expired that it was to begin: the children of that one are begun.
#[test]
fn a_shard_that_expired_before_it_was_begun_keeps_its_children_not_waiting() {
    let (disk, clock, stream) = simulated(builder().shards(2).retention(RetentionPeriod::hours(24)));
    let hours = |hours: u64| clock.advance(Duration::from_secs(hours * 3_600));
    fill_large(&stream, S0, 1);
    fill_large(&stream, S1, 1);
    let merged = stream.merge_shards(S0, S1).unwrap();
    fill_large(&stream, merged, 1);
    let (lower, upper) = stream.split_shard(merged, None).unwrap();
    hours(20);
    fill_large(&stream, lower, 1);
    let reader = builder().storage(Arc::new(disk.clone())).clock(clock.clone()).open_read_only("stream").unwrap();
    clock.advance(Duration::from_secs(2));
    let mut records = reader.records(RecordsStart::TrimHorizon).unwrap();
    assert_eq!(records.available().take(2).flatten().count(), 2);
    disk.fail_on(Operation::OpenFile, 0, DiskFault::Error(std::io::ErrorKind::Other));
    assert!(records.available().next().unwrap().is_err());
    hours(5);
    for _ in 0..3 {
        stream.enforce_retention().unwrap();
        clock.advance(Duration::from_secs(2));
    }
    assert!(stream.shards().iter().all(|shard| shard.shard_id != merged));
    assert_eq!(missed_and_read(&mut records), (vec![lower, upper], vec![lower]), "what it held is missed");
}

/// The same where its children were not seen before either: they are begun all the same, and at once.
#[test]
fn the_children_of_a_shard_that_expired_unseen_are_begun() {
    let (disk, clock, stream) = simulated(builder().retention(RetentionPeriod::hours(24)));
    fill_large(&stream, S0, 1);
    let (lower, upper) = stream.split_shard(S0, None).unwrap();
    let reader = builder().storage(Arc::new(disk.clone())).clock(clock.clone()).open_read_only("stream").unwrap();
    let mut records = reader.records(RecordsStart::TrimHorizon).unwrap();
    assert_eq!(records.available().next().unwrap().unwrap().shard_id(), S0);
    fill_large(&stream, lower, 1);
    let (lowest, lower_middle) = stream.split_shard(lower, None).unwrap();
    clock.advance(Duration::from_secs(25 * 3_600));
    for _ in 0..3 {
        stream.enforce_retention().unwrap();
        clock.advance(Duration::from_secs(2));
    }
    assert!(stream.shards().iter().all(|shard| shard.shard_id >= upper), "the others expired");
    fill_large(&stream, lowest, 1);
    assert_eq!(missed_and_read(&mut records), (vec![lowest, lower_middle], vec![lowest]));
}

/// What was read of one parent ends lower than the merged shard begins, and of the other one's part, which expired, there was nothing.
#[test]
fn nothing_is_missed_where_what_expired_between_was_empty() {
    let (_disk, clock, stream) = simulated(builder().shards(2).retention(RetentionPeriod::hours(24)));
    fill_large(&stream, S0, 10);
    fill_large(&stream, S1, 5);
    let mut records = stream.records(RecordsStart::TrimHorizon).unwrap();
    assert_eq!(missed_and_read(&mut records).1.len(), 15);
    let (_, upper) = stream.split_shard(S0, None).unwrap();
    let merged = stream.merge_shards(upper, S1).unwrap();
    clock.advance(Duration::from_secs(25 * 3_600));
    for _ in 0..3 {
        stream.enforce_retention().unwrap();
        clock.advance(Duration::from_secs(2));
    }
    assert!(stream.shards().iter().all(|shard| ![S0, S1, upper].contains(&shard.shard_id)));
    fill_large(&stream, merged, 1);
    assert_eq!(missed_and_read(&mut records), (vec![], vec![merged]));
}

/// One shard is damaged, or has lost a file: the others are read all the same.
#[test]
fn a_shard_that_cannot_be_read_keeps_no_other_waiting() {
    for is_removed in [false, true] {
        for in_batches in [false, true] {
            let (directory, stream) = stream(builder().shards(2).segment_bytes(4096));
            fill_large(&stream, S0, LARGE_PER_SEGMENT);
            put_to(&stream, S0, "key", &[b'y'; 500]);
            fill_large(&stream, S1, 20);
            stream.close().unwrap();
            let path = directory.path().join("stream");
            let second = &segments(&path, S0)[1];
            if !is_removed {
                damage(second, &[b'y'; 500]);
            }
            let stream = builder().open_existing(&path).unwrap();
            let mut records = stream.records(RecordsStart::TrimHorizon).unwrap();
            if is_removed {
                std::fs::remove_file(second).unwrap();
            }
            let (mut read, mut failed) = (0, 0);
            for _ in 0..40 {
                let found = if in_batches {
                    records.next_batch().map(|batch| batch.len())
                } else {
                    records.next_timeout(Duration::ZERO).map(|record| usize::from(record.is_some()))
                };
                match found {
                    Ok(records) => read += records,
                    Err(_) => failed += 1,
                }
            }
            assert_eq!(read, 26, "{is_removed} {in_batches}");
            assert!(failed > 1);
        }
    }
}
