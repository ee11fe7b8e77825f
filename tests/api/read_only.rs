//! Reading beside a live writer, through files alone.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anabranch::storage::Operation;
use anabranch::{
    Crash, Durability, Error, ErrorKind, ManualClock, PutEntry, RecordsStart, RetentionPeriod, ShardIteratorType,
    SimulatedDisk, Stream,
};

use crate::support::{
    DEADLINE, HORIZON, S0, S1, builder, drain, eventually, fill, fill_large, number, numbers, numbers_from, place,
    read_all, read_stream, simulated, snapshot, split_undurably, stream,
};

fn reader_of(writer: &Stream) -> Stream {
    builder().open_read_only(writer.path()).unwrap()
}

#[test]
fn a_reader_refuses_to_write() {
    let (_directory, writer) = stream(builder().shards(2));
    fill(&writer, 3);
    let reader = reader_of(&writer);
    assert!(reader.is_read_only() && !writer.is_read_only());
    let before = snapshot(writer.path());
    let refused = |outcome: anabranch::Result<()>| {
        let error = outcome.expect_err("it is read-only");
        assert!(matches!(error, Error::ReadOnly), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::ReadOnly);
    };
    refused(reader.put("key", b"data").map(drop));
    refused(reader.put("", b"data").map(drop));
    refused(reader.put_batch(&[PutEntry::new("key", b"data")]).map(drop));
    refused(reader.put_batch(&[]).map(drop));
    refused(reader.sync());
    refused(reader.maintain());
    refused(reader.split_shard(S0, None).map(drop));
    refused(reader.merge_shards(S0, S1).map(drop));
    refused(reader.update_shard_count(4).map(drop));
    refused(reader.trim_shard(S0, number(1)).map(drop));
    refused(reader.enforce_retention().map(drop));
    refused(reader.set_retention_bytes(None));
    refused(reader.increase_retention(RetentionPeriod::Unlimited));
    refused(reader.decrease_retention(RetentionPeriod::hours(1)));
    assert_eq!(snapshot(writer.path()), before);
    // What only asks is answered.
    assert_eq!(reader.route("key").unwrap(), writer.route("key").unwrap());
    assert_eq!(reader.hash_key("key").unwrap(), writer.hash_key("key").unwrap());
    assert_eq!(reader.retention(), writer.retention());
    reader.clone().close().unwrap();
    let error = reader.describe().expect_err("closed");
    assert!(matches!(error, Error::Closed), "{error:?}");
    fill(&writer, 1);
}

#[test]
fn a_reader_takes_no_lock_and_changes_nothing() {
    let (_directory, path) = place();
    let writer = builder().create(&path).unwrap();
    fill(&writer, 3);
    writer.close().unwrap();
    let before = snapshot(&path);
    let readers: Vec<_> = (0..4).map(|_| builder().open_read_only(&path).unwrap()).collect();
    for reader in &readers {
        assert!(reader.recovery().was_clean);
        assert_eq!(numbers_from(reader, S0, HORIZON), [0, 1, 2]);
        assert_eq!(reader.describe().unwrap().shards[0].records, 3);
    }
    assert_eq!(snapshot(&path), before);
    fill(&builder().open(&path).unwrap(), 1); // no reader keeps a writer out
}

#[test]
fn a_reader_sees_a_synced_put_as_soon_as_it_is_acknowledged() {
    let (_directory, writer) = stream(builder());
    let reader = reader_of(&writer);
    let mut iterator = reader.shard_iterator(S0, HORIZON).unwrap();
    for expected in 0..30 {
        assert_eq!(numbers(&mut iterator), [0; 0]);
        fill(&writer, 1);
        assert_eq!(numbers(&mut iterator), [expected]);
    }
    assert_eq!(reader.describe().unwrap().shards[0].records, 30);
}

/// In the writer's own process it is seen at once; from another one, when the background thread has written it to its segment.
#[test]
fn a_reader_sees_a_buffered_put_soon_after_it_is_acknowledged() {
    let (_directory, writer) = stream(builder().durability(Durability::Buffered).background(true));
    let reader = reader_of(&writer);
    let mut own = writer.shard_iterator(S0, HORIZON).unwrap();
    let mut iterator = reader.shard_iterator(S0, HORIZON).unwrap();
    for expected in 0..30 {
        fill(&writer, 1);
        let mut seen = Vec::new();
        eventually("it is written", || {
            seen.extend(numbers(&mut iterator));
            !seen.is_empty()
        });
        assert_eq!(seen, [expected]);
        assert_eq!(numbers(&mut own), [expected]);
    }
    assert_eq!(reader.describe().unwrap().shards[0].records, 30);
}

#[test]
fn a_reader_of_a_synced_stream_sees_durable_records_only() {
    let disk: Arc<SimulatedDisk> = Arc::default();
    let options = || builder().storage(disk.clone()).clock(Arc::new(ManualClock::default()));
    let writer = options().create("stream").unwrap();
    fill(&writer, 2);
    let reader = options().open_read_only("stream").unwrap();
    disk.stall_syncs(true);
    let syncs = disk.operations_of(Operation::Sync);
    let putting = thread::spawn({
        let writer = writer.clone();
        move || writer.put("key", b"in flight").unwrap()
    });
    eventually("the put waits for its sync", || disk.operations_of(Operation::Sync) > syncs);

    let mut iterator = reader.shard_iterator(S0, HORIZON).unwrap();
    let mut unsynced = reader.shard_iterator(S0, HORIZON).unwrap().include_unsynced(true);
    assert_eq!(numbers(&mut iterator), [0, 1], "the third could still be taken back");
    assert_eq!(numbers(&mut unsynced), [0, 1, 2]);
    assert_eq!(reader.describe().unwrap().shards[0].records, 2);
    disk.stall_syncs(false);
    putting.join().unwrap();
    assert_eq!(numbers(&mut iterator), [2]);
    assert_eq!(numbers(&mut unsynced), [0; 0]);
}

#[test]
fn a_reader_of_a_buffered_stream_sees_everything() {
    let disk: Arc<SimulatedDisk> = Arc::default();
    let options = || builder().storage(disk.clone()).clock(Arc::new(ManualClock::default()));
    let writer = options().durability(Durability::Buffered).create("stream").unwrap();
    let reader = options().open_read_only("stream").unwrap();
    fill(&writer, 5);
    assert_eq!(read_all(&writer, S0).len(), 5); // which also writes them where other processes look
    assert_eq!(writer.metrics().syncs, 0);
    assert_eq!(read_all(&reader, S0).len(), 5);
    let mut durable = reader.shard_iterator(S0, HORIZON).unwrap().include_unsynced(false);
    assert_eq!(numbers(&mut durable), [0; 0]);
    writer.sync().unwrap();
    assert_eq!(numbers(&mut durable), [0, 1, 2, 3, 4]);
}

#[test]
fn a_reader_follows_through_rolls() {
    let (_directory, writer) = stream(builder().segment_bytes(4 << 10));
    let reader = reader_of(&writer);
    let mut iterator = reader.shard_iterator(S0, HORIZON).unwrap();
    let mut next = 0;
    for round in 0..40 {
        let count = round % 9;
        fill_large(&writer, S0, count);
        assert_eq!(numbers(&mut iterator), (next..next + count).collect::<Vec<_>>());
        next += count;
    }
    assert!(writer.metrics().segments_rolled > 15);
    let (ours, theirs) = (reader.describe().unwrap(), writer.describe().unwrap());
    assert_eq!(ours.shards[0].records, theirs.shards[0].records);
    assert_eq!(ours.shards[0].segments, theirs.shards[0].segments);
    assert_eq!((ours.stream_id, ours.incarnation), (theirs.stream_id, theirs.incarnation));
    assert_eq!(read_all(&reader, S0).len() as u64, next);
}

#[test]
fn a_reader_follows_through_splits_and_merges() {
    let (_directory, writer) = stream(builder().shards(2));
    let reader = reader_of(&writer);
    let mut records = reader.records(RecordsStart::TrimHorizon).unwrap();
    let mut iterator = reader.shard_iterator(S0, HORIZON).unwrap();
    let mut count = 0_u64;
    let mut put = |writer: &Stream| {
        writer.put("one key", count.to_string()).unwrap();
        let seen: Vec<_> = records.available().map(|record| record.unwrap().data().to_vec()).collect();
        assert_eq!(seen, [count.to_string().into_bytes()]);
        count += 1;
    };
    put(&writer);
    for _ in 0..4 {
        let owner = writer.route("one key").unwrap();
        let (lower, upper) = writer.split_shard(owner, None).unwrap();
        put(&writer);
        assert_eq!(reader.open_shards(), writer.open_shards());
        writer.merge_shards(lower, upper).unwrap();
        put(&writer);
        assert_eq!(reader.shards(), writer.shards());
        put(&writer);
    }
    writer.update_shard_count(1).unwrap();
    put(&writer);
    drain(&mut iterator);
    let children = iterator.end_of_shard().unwrap();
    assert!(children.iter().all(|child| child.parents.contains(&S0)));
    assert_eq!(read_stream(&reader).len() as u64, count);
}

#[test]
fn a_reader_follows_the_trim_horizon_and_the_retention_period() {
    let (_directory, writer) = stream(builder().segment_bytes(4 << 10));
    fill_large(&writer, S0, 30);
    let reader = reader_of(&writer);
    let mut iterator = reader.shard_iterator(S0, HORIZON).unwrap();
    assert_eq!(iterator.available().take(3).count(), 3); // of the six in its first segment
    writer.trim_shard(S0, number(20)).unwrap();
    assert_eq!(numbers_from(&reader, S0, HORIZON), (20..30).collect::<Vec<_>>());
    let error = reader.get(S0, number(5)).expect_err("trimmed");
    assert!(matches!(error, Error::Trimmed { earliest, .. } if earliest == number(20)), "{error:?}");
    // The one that held a segment reads it to its end, then is told.
    let outcomes: Vec<_> = iterator.available().take(4).collect();
    assert!(outcomes[..3].iter().all(Result::is_ok), "{outcomes:?}");
    assert!(matches!(outcomes[3], Err(Error::Trimmed { .. })), "{:?}", outcomes[3]);

    writer.increase_retention(RetentionPeriod::hours(99)).unwrap();
    assert_eq!(reader.describe().unwrap().retention, RetentionPeriod::hours(99));
    assert_eq!(reader.retention(), RetentionPeriod::hours(99));
}

#[test]
fn a_reader_survives_the_writers_close_and_reopening() {
    let (_directory, path) = place();
    let mut writer = builder().segment_bytes(4 << 10).create(&path).unwrap();
    let reader = builder().open_read_only(&path).unwrap();
    let mut iterator = reader.shard_iterator(S0, HORIZON).unwrap();
    let mut next = 0;
    for incarnation in 1..=4 {
        fill_large(&writer, S0, 9);
        assert_eq!(numbers(&mut iterator), (next..next + 9).collect::<Vec<_>>());
        next += 9;
        fill_large(&writer, S0, 2);
        writer.close().unwrap();
        let records = drain(&mut iterator);
        assert_eq!(records.len(), 2, "what came last before the close");
        assert!(records.iter().all(|record| record.incarnation() == incarnation));
        next += 2;
        assert_eq!(numbers(&mut iterator), [0; 0]);
        assert_eq!(iterator.end_of_shard(), None, "the stream may be opened again");
        writer = builder().open(&path).unwrap();
    }
    assert_eq!(reader.describe().unwrap().incarnation, 5);
    assert_eq!(numbers_from(&reader, S0, HORIZON), (0..next).collect::<Vec<_>>());
}

#[test]
fn a_reader_in_a_thread_waits_for_the_writer() {
    let (_directory, writer) = stream(builder().shards(2));
    let reader = reader_of(&writer);
    let total = 200_u64;
    let mut records = reader.records(RecordsStart::TrimHorizon).unwrap();
    let mut iterator = reader.shard_iterator(S0, HORIZON).unwrap();
    let whole = thread::spawn(move || {
        let read = (0..total).map(|_| records.next_timeout(DEADLINE).unwrap().unwrap().data().to_vec());
        read.collect::<Vec<_>>()
    });
    let shard = thread::spawn(move || iterator.follow().map(Result::unwrap).count());
    for index in 0..total {
        writer.put("one key", index.to_string()).unwrap();
        if index % 50 == 49 {
            let owner = writer.route("one key").unwrap();
            writer.split_shard(owner, None).unwrap();
        }
    }
    let expected: Vec<_> = (0..total).map(|index| index.to_string().into_bytes()).collect();
    assert_eq!(whole.join().unwrap(), expected);
    if writer.shards()[0].closed.is_none() {
        writer.split_shard(S0, None).unwrap();
    }
    assert_eq!(shard.join().unwrap(), read_all(&writer, S0).len(), "it ends at the end of the shard");
}

#[test]
fn a_reader_keeps_up_with_rolls_splits_and_trims_at_full_speed() {
    let (_directory, writer) = stream(builder().shards(2).segment_bytes(4 << 10));
    let reader = reader_of(&writer);
    let done = Arc::new(AtomicBool::new(false));
    let watching = thread::spawn({
        let done = Arc::clone(&done);
        move || {
            let mut looks = 0_u64;
            loop {
                let last_look = done.load(Ordering::SeqCst);
                for shard in reader.shards() {
                    let iterator = match reader.shard_iterator(shard.shard_id, HORIZON) {
                        Err(Error::ShardNotFound(_)) => continue, // expired since
                        outcome => outcome,
                    };
                    let mut before = None;
                    for record in iterator.unwrap().available() {
                        match record {
                            Ok(record) => {
                                let number = record.sequence_number().get();
                                assert!(before.is_none_or(|before| before + 1 == number), "a gap at {number}");
                                before = Some(number);
                            }
                            Err(Error::Trimmed { .. }) => break, // overtaken
                            Err(error) => panic!("{error:?}"),
                        }
                    }
                }
                looks += 1;
                if last_look {
                    return looks;
                }
            }
        }
    });
    for round in 0..30 {
        for shard_id in writer.open_shards() {
            fill_large(&writer, shard_id, 12);
        }
        let open = writer.open_shards();
        if round % 3 == 2 {
            writer.merge_shards(open[0], open[1]).unwrap();
        } else if round % 3 == 1 {
            writer.split_shard(open[0], None).unwrap();
        }
        for shard in writer.describe().unwrap().shards {
            let before = number(shard.next_sequence_number.get().saturating_sub(5));
            writer.trim_shard(shard.summary.shard_id, before).unwrap();
        }
        if writer.open_shards().len() == 1 {
            writer.update_shard_count(2).unwrap();
        }
    }
    done.store(true, Ordering::SeqCst);
    assert!(watching.join().unwrap() > 0);
}

/// Between two looks of a reader that has read all, more records came, the shard was split or merged, and retention took it: what came is not passed over
/// in silence. Who had read all is at the end.
#[test]
fn a_reader_of_a_shard_that_expired_is_told_what_it_missed() {
    for merges in [false, true] {
        for missed in [0, 1, 20] {
            let (disk, clock, writer) = simulated(builder().shards(2).segment_bytes(4 << 10));
            let options = builder().storage(Arc::new(disk.clone())).clock(clock.clone());
            fill_large(&writer, S0, 5);
            fill_large(&writer, S1, 2);
            let reader = options.open_read_only("stream").unwrap();
            let mut iterator = reader.shard_iterator(S0, HORIZON).unwrap();
            assert_eq!(numbers(&mut iterator), [0, 1, 2, 3, 4]);
            fill_large(&writer, S0, missed);
            if merges {
                writer.merge_shards(S0, S1).unwrap();
            } else {
                writer.split_shard(S0, None).unwrap();
            }
            writer.set_retention_bytes(Some(1)).unwrap();
            assert!(writer.enforce_retention().unwrap().shards_removed.contains(&S0));
            let outcome = iterator.available().next();
            let name = format!("merges: {merges}, missed {missed}: {outcome:?}");
            match outcome {
                None => {
                    assert_eq!(missed, 0, "{name}");
                    assert!(iterator.end_of_shard().is_some(), "{name}");
                }
                Some(Err(Error::Trimmed { earliest, .. })) => {
                    assert_eq!((missed > 0, earliest), (true, number(5 + missed)), "{name}");
                }
                _ => panic!("{name}"),
            }
        }
    }
}

/// Its children went too, so that nobody knows where it ended: it is taken for longer than what was seen.
#[test]
fn a_reader_of_a_shard_whose_children_expired_too_is_told() {
    let (disk, clock, writer) = simulated(builder().segment_bytes(4 << 10));
    fill_large(&writer, S0, 5);
    let reader = builder().storage(Arc::new(disk.clone())).clock(clock.clone()).open_read_only("stream").unwrap();
    let mut iterator = reader.shard_iterator(S0, HORIZON).unwrap();
    assert_eq!(numbers(&mut iterator), [0, 1, 2, 3, 4]);
    fill_large(&writer, S0, 1);
    let (lower, upper) = writer.split_shard(S0, None).unwrap();
    fill_large(&writer, lower, 1);
    fill_large(&writer, upper, 1);
    writer.merge_shards(lower, upper).unwrap();
    writer.set_retention_bytes(Some(1)).unwrap();
    assert_eq!(writer.enforce_retention().unwrap().shards_removed, [S0, lower, upper]);
    for _ in 0..2 {
        let outcome = iterator.available().next();
        assert!(matches!(outcome, Some(Err(Error::Trimmed { .. }))), "{outcome:?}");
    }
}

/// What was removed while it was looked for is trimmed, or not listed any more, and nothing else.
fn unless_overtaken<T>(outcome: anabranch::Result<T>) -> Option<T> {
    match outcome {
        Ok(found) => Some(found),
        Err(Error::Trimmed { .. } | Error::ShardNotFound(_)) => None,
        Err(error) => panic!("{error:?}"),
    }
}

/// Whoever opens the stream and reads it, or describes and follows it, while its writer rolls, trims, splits, closes and opens.
#[test]
fn a_busy_writer_is_never_taken_for_damage() {
    let (disk, clock, writer) = simulated(builder().segment_bytes(4 << 10).retention_bytes(Some(16 << 10)));
    let options = || builder().storage(Arc::new(disk.clone())).clock(clock.clone());
    let done = AtomicBool::new(false);
    // However slow it is, it finds what the writer leaves.
    let watch = |look: &dyn Fn() -> usize| {
        let mut found = 0;
        while !done.load(Ordering::SeqCst) {
            found += look();
        }
        assert!(found + look() > 0, "nothing was found");
    };
    thread::scope(|scope| {
        let opening = scope.spawn(|| {
            watch(&|| {
                let reader = options().open_read_only("stream").unwrap();
                let Some(mut records) = unless_overtaken(reader.records(RecordsStart::TrimHorizon)) else {
                    return 0;
                };
                records.available().take(40).filter_map(unless_overtaken).count()
            });
        });
        let following = scope.spawn(|| {
            let reader = options().open_read_only("stream").unwrap();
            watch(&|| {
                let newest = reader.describe().unwrap().shards.last().unwrap().summary.shard_id;
                let Some(mut iterator) = unless_overtaken(reader.shard_iterator(newest, HORIZON)) else {
                    return 0;
                };
                (0..20).map(|_| iterator.available().map_while(unless_overtaken).count()).sum()
            });
        });
        let writing = scope.spawn(move || {
            let mut writer = writer;
            for round in 0..150 {
                for shard_id in writer.open_shards() {
                    fill_large(&writer, shard_id, 9);
                }
                match writer.open_shards()[..] {
                    [one] => drop(writer.split_shard(one, None).unwrap()),
                    [lower, upper, ..] => drop(writer.merge_shards(lower, upper).unwrap()),
                    [] => {}
                }
                writer.enforce_retention().unwrap();
                if round % 10 == 9 {
                    writer.close().unwrap();
                    writer = options().open_existing("stream").unwrap();
                }
            }
            for shard_id in writer.open_shards() {
                fill_large(&writer, shard_id, 1);
            }
        });
        let written = writing.join();
        done.store(true, Ordering::SeqCst);
        written.unwrap();
        opening.join().unwrap();
        following.join().unwrap();
    });
}

#[test]
fn a_reader_gives_up_its_wait_when_it_is_closed() {
    let (_directory, writer) = stream(builder());
    let reader = reader_of(&writer);
    let mut iterator = reader.shard_iterator(S0, ShardIteratorType::Latest).unwrap();
    let waiter = thread::spawn(move || iterator.next_timeout(Duration::MAX).unwrap().is_none());
    reader.close().unwrap();
    assert!(waiter.join().unwrap());
    fill(&writer, 1);
}

/// The writer rolled and trimmed past the place that the reader had come to: the segment that would come next is gone.
#[test]
fn a_reader_that_was_left_behind_goes_on_at_the_trim_horizon() {
    let (_directory, writer) = stream(builder().segment_bytes(4 << 10));
    fill_large(&writer, S0, 3);
    let reader = reader_of(&writer);
    let mut iterator = reader.shard_iterator(S0, HORIZON).unwrap();
    assert_eq!(numbers(&mut iterator), [0, 1, 2]);
    fill_large(&writer, S0, 30);
    writer.trim_shard(S0, number(30)).unwrap();
    assert_eq!(numbers_from(&reader, S0, HORIZON), [30, 31, 32]);
    assert_eq!(reader.describe().unwrap().shards[0].records, 3);
    // The one that holds a segment reads it to its end, then is told.
    let outcomes: Vec<_> = iterator.available().take(4).collect();
    assert!(outcomes[..3].iter().all(Result::is_ok), "{outcomes:?}");
    assert!(matches!(outcomes[3], Err(Error::Trimmed { earliest, .. }) if earliest == number(30)), "{outcomes:?}");
    // All of it, and nothing put since.
    fill_large(&writer, S0, 30);
    writer.trim_shard(S0, number(63)).unwrap();
    assert_eq!(numbers_from(&reader, S0, HORIZON), [0; 0]);
    fill_large(&writer, S0, 1);
    assert_eq!(numbers_from(&reader, S0, HORIZON), [63]);
}

/// The writer did not live to make a split durable that a reader was shown.
#[test]
fn what_a_reader_is_shown_of_the_shards_is_not_undone_by_a_power_cut() {
    let open = |disk: &SimulatedDisk| builder().storage(Arc::new(disk.clone()));
    let shards_after_a_cut = |disk: &SimulatedDisk, seed| {
        let survivor = disk.fork(Crash::PowerLost { seed });
        open(&survivor).open_existing("stream").unwrap().shards().len()
    };
    let (disk, _clock, writer) = simulated(builder());
    let reader = open(&disk).open_read_only("stream").unwrap();
    split_undurably(&disk, &writer, io::ErrorKind::Other);
    assert!((0..32).any(|seed| shards_after_a_cut(&disk, seed) == 1));
    // Who cannot make it durable is told, and shown what was there before.
    assert!(matches!(reader.describe(), Err(Error::Io { .. })));
    assert!(matches!(reader.consumer("c"), Err(Error::Io { .. })));
    assert_eq!(reader.shards().len(), 1);
    assert!(matches!(open(&disk).open_read_only("stream"), Err(Error::Io { .. })));
    for is_new in [false, true] {
        let (disk, _clock, writer) = simulated(builder());
        let reader = open(&disk).open_read_only("stream").unwrap();
        split_undurably(&disk, &writer, io::ErrorKind::Other);
        disk.clear_faults();
        let reader = if is_new { open(&disk).open_read_only("stream").unwrap() } else { reader };
        assert_eq!(reader.shards().len(), 3);
        for seed in 0..32 {
            assert_eq!(shards_after_a_cut(&disk, seed), 3, "{is_new}, seed {seed}");
        }
    }
}

/// It keeps no place there, either.
#[test]
fn who_may_not_write_reads_what_may_be_undone() {
    for refusal in [io::ErrorKind::PermissionDenied, io::ErrorKind::ReadOnlyFilesystem] {
        let (disk, _clock, writer) = simulated(builder());
        let open = || builder().storage(Arc::new(disk.clone())).open_read_only("stream").unwrap();
        let reader = open();
        split_undurably(&disk, &writer, refusal);
        assert_eq!((reader.describe().unwrap().shards.len(), open().shards().len()), (3, 3));
    }
}
