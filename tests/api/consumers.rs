//! Consumers: positions that are kept, leases that are lost, places to start from.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anabranch::storage::{Operation, Storage};
use anabranch::{
    Checkpoint, Consumer, DiskFault, Durability, Error, ErrorKind, ManualClock, Position, RecordPosition,
    RecordsStart, SequenceNumber, ShardId, SimulatedDisk, Store, Stream, Timestamp, VerifyOptions, limits, repair,
    verify,
};

use crate::support::{
    HORIZON, S0, S1, builder, drain, fill, fill_large, number, numbers, numbers_from, place, put_to, say_version,
    simulated, stream,
};

fn after(checkpoint: &Checkpoint) -> Option<u64> {
    match checkpoint.position {
        Position::After(at) => Some(at.sequence_number.get()),
        _ => None,
    }
}

fn stands_at(consumer: &Consumer, shard_id: ShardId) -> Option<u64> {
    after(&consumer.checkpoint(shard_id).unwrap())
}

fn left(consumer: &Consumer, shard_id: ShardId) -> Vec<u64> {
    numbers(&mut consumer.iterator(shard_id).unwrap())
}

#[test]
fn a_consumer_goes_on_behind_its_checkpoint_after_a_reopening() {
    for durability in [Durability::Synced, Durability::Buffered] {
        let (_directory, path) = place();
        let stream = builder().durability(durability).create(&path).unwrap();
        fill(&stream, 10);
        let consumer = stream.consumer("billing").unwrap();
        assert_eq!(consumer.checkpoint(S0).unwrap().position, Position::TrimHorizon);
        assert_eq!(left(&consumer, S0), (0..10).collect::<Vec<_>>());
        let lease = consumer.take(S0, "worker-1").unwrap();
        for record in lease.iterator().unwrap().available().take(4) {
            lease.checkpoint(&record.unwrap()).unwrap();
        }
        assert_eq!(left(&consumer, S0), [4, 5, 6, 7, 8, 9]);
        drop((lease, consumer));
        stream.close().unwrap();

        let stream = builder().open(&path).unwrap();
        let consumer = stream.consumer("billing").unwrap();
        let checkpoint = consumer.checkpoint(S0).unwrap();
        let incarnation = 1;
        let expected = RecordPosition { sequence_number: number(3), sub_sequence_number: None, incarnation };
        assert_eq!(checkpoint.position, Position::After(expected));
        assert_eq!((checkpoint.owner.as_deref(), checkpoint.epoch), (Some("worker-1"), 1));
        assert_eq!(left(&consumer, S0), [4, 5, 6, 7, 8, 9]);
        assert_eq!((consumer.name(), consumer.stream().path()), ("billing", path.as_path()));
    }
}

#[test]
fn consumers_are_independent_listed_and_deleted() {
    let (_directory, stream) = stream(builder());
    assert_eq!(stream.consumers().unwrap(), [""; 0]);
    assert!(matches!(stream.delete_consumer("x"), Err(Error::ConsumerNotFound(name)) if name == "x"));
    fill(&stream, 3);
    let names = ["b", "a.2", "A", "..."];
    let consumers = names.map(|name| stream.consumer(name).unwrap());
    assert_eq!(stream.consumers().unwrap(), ["...", "A", "a.2", "b"]);
    consumers[0].take(S0, "w").unwrap().checkpoint_at(number(1)).unwrap();
    assert_eq!(consumers.each_ref().map(|consumer| stands_at(consumer, S0)), [Some(1), None, None, None]);
    // One that is open is the same for all who ask for it.
    assert_eq!(stands_at(&stream.consumer("b").unwrap(), S0), Some(1));

    stream.delete_consumer("b").unwrap();
    assert_eq!(stream.consumers().unwrap(), ["...", "A", "a.2"]);
    let gone = consumers[0].checkpoint(S0).unwrap_err();
    assert!(matches!(&gone, Error::ConsumerNotFound(name) if name == "b"), "{gone:?}");
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    let again = stream.consumer("b").unwrap();
    assert_eq!(stands_at(&again, S0), None, "another one of that name");
    assert!(matches!(consumers[0].take(S0, "w"), Err(Error::ConsumerNotFound(_))), "not that one");
}

#[test]
fn names_are_checked() {
    let (_directory, stream) = stream(builder());
    let longest = "n".repeat(limits::MAX_NAME_CHARS);
    let consumer = stream.consumer(&longest).unwrap();
    consumer.take(S0, &longest).unwrap();
    assert_eq!(consumer.checkpoint(S0).unwrap().owner, Some(longest.clone()));
    for name in ["", ".", "..", "a/b", "~new", "a b", "ü", "a\0", &format!("{longest}n")] {
        for error in [
            stream.consumer(name).map(drop).unwrap_err(),
            stream.delete_consumer(name).unwrap_err(),
            consumer.take(S0, name).map(drop).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name:?}: {error:?}");
        }
    }
}

#[test]
fn one_consumer_too_many_is_refused() {
    let (disk, _, stream) = simulated(builder());
    drop(stream.consumer("c").unwrap());
    let file = |number: usize| Path::new("stream/consumers").join(number.to_string());
    for number in 1..limits::MAX_CONSUMERS {
        disk.create_file(&file(number)).unwrap();
    }
    assert_eq!(stream.consumer("more").unwrap_err().kind(), ErrorKind::InvalidInput);
    drop(stream.consumer("c").unwrap());
    disk.remove_file(&file(1)).unwrap();
    drop(stream.consumer("more").unwrap());
}

#[test]
fn a_checkpoint_under_an_old_epoch_is_refused_and_changes_nothing() {
    let (_directory, stream) = stream(builder());
    fill(&stream, 5);
    let consumer = stream.consumer("c").unwrap();
    let old = consumer.take(S0, "old").unwrap();
    old.checkpoint_at(number(1)).unwrap();
    let new = consumer.take(S0, "new").unwrap();
    assert_eq!((old.epoch(), new.epoch()), (1, 2));
    for refused in [old.checkpoint_at(number(3)), old.release()] {
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        let Error::LeaseLost { shard_id, epoch, current, owner } = error else { panic!("{error:?}") };
        assert_eq!((shard_id, epoch, current, owner.as_deref()), (S0, 1, 2, Some("new")));
        assert_eq!(stands_at(&consumer, S0), Some(1));
    }
    new.checkpoint_at(number(2)).unwrap();
    new.release().unwrap();
    let released = consumer.checkpoint(S0).unwrap();
    assert_eq!((released.owner, released.epoch, stands_at(&consumer, S0)), (None, 3, Some(2)));
    // The same name is no right to go on: it may be the one that was given up for dead.
    let first = consumer.take(S0, "w").unwrap();
    let second = consumer.take(S0, "w").unwrap();
    assert!(matches!(first.checkpoint_at(number(4)), Err(Error::LeaseLost { .. })));
    second.checkpoint_at(number(4)).unwrap();
    consumer.reset(RecordsStart::TrimHorizon).unwrap();
    assert!(matches!(second.checkpoint_at(number(4)), Err(Error::LeaseLost { owner: None, .. })));
}

#[test]
fn a_checkpoint_stays_within_the_data_and_does_not_go_back() {
    let (_directory, stream) = stream(builder());
    fill(&stream, 5);
    let consumer = stream.consumer("c").unwrap();
    let lease = consumer.take(S0, "w").unwrap();
    let error = lease.checkpoint_at(number(5)).unwrap_err();
    let beyond =
        matches!(error, Error::BeyondTail { requested, next, .. } if (requested, next) == (number(5), number(5)));
    assert!(beyond, "{error:?}");
    assert_eq!(lease.checkpoint_at(number(u64::MAX)).unwrap_err().kind(), ErrorKind::InvalidInput);
    lease.checkpoint_at(number(3)).unwrap();
    lease.checkpoint_at(number(3)).unwrap(); // again
    let error = lease.checkpoint_at(number(2)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let behind = matches!(error, Error::BehindCheckpoint { requested, checkpoint, .. } if (requested, checkpoint) == (number(2), number(3)));
    assert!(behind, "{error:?}");
    assert_eq!(stands_at(&consumer, S0), Some(3));
    let records = crate::support::read_all(&stream, S0);
    // A part of the next record, a further one, and the whole.
    let at = RecordPosition::from(&records[4]);
    for done in [at.part(0), at.part(7), at] {
        assert_eq!(left(&consumer, S0), [4]);
        lease.checkpoint(done).unwrap();
        let Position::After(stored) = consumer.checkpoint(S0).unwrap().position else { panic!() };
        assert_eq!(stored, done);
    }
    assert_eq!(left(&consumer, S0), [0; 0]);
    assert!(matches!(lease.checkpoint(at.part(8)), Err(Error::BehindCheckpoint { .. })));
    assert!(matches!(lease.checkpoint(RecordPosition::from(&records[0])), Err(Error::BehindCheckpoint { .. })));
}

#[test]
fn a_batchs_records_are_places_too() {
    let (_directory, stream) = stream(builder());
    fill(&stream, 5);
    let consumer = stream.consumer("c").unwrap();
    let lease = consumer.take(S0, "w").unwrap();
    let mut iterator = lease.iterator().unwrap();
    let last = iterator.next_batch().unwrap().last().unwrap();
    lease.checkpoint(last).unwrap();
    assert_eq!(stands_at(&consumer, S0), Some(4));
}

/// Of a shard that came after the consumer was made, nothing is stored before somebody takes or resets it.
#[test]
fn shards_that_nobody_has_taken_are_reset() {
    let (_disk, _clock, stream) = simulated(builder());
    let consumer = stream.consumer("c").unwrap();
    let (lower, upper) = stream.split_shard(S0, None).unwrap();
    put_to(&stream, lower, "key", b"before");
    put_to(&stream, upper, "key", b"before");
    consumer.reset(RecordsStart::Latest).unwrap();
    assert_eq!((left(&consumer, lower), left(&consumer, upper)), (vec![], vec![]));
    put_to(&stream, lower, "key", b"behind");
    assert_eq!(left(&consumer, lower), [1]);
}

#[test]
fn resets_go_to_the_trim_horizon_the_tail_or_a_time() {
    let (_disk, clock, stream) = simulated(builder().shards(2));
    let consumer = stream.consumer("c").unwrap();
    let times: Vec<_> = (0..6_u8)
        .map(|byte| {
            clock.advance(Duration::from_secs(10));
            put_to(&stream, S0, "key", &[byte]);
            anabranch::Clock::now(clock.as_ref())
        })
        .collect();
    let lease = consumer.take(S0, "w").unwrap();
    lease.checkpoint_at(number(3)).unwrap();
    consumer.reset(RecordsStart::TrimHorizon).unwrap();
    assert_eq!(left(&consumer, S0), [0, 1, 2, 3, 4, 5]);
    consumer.reset(RecordsStart::AtTimestamp(times[2])).unwrap();
    assert_eq!(left(&consumer, S0), [2, 3, 4, 5]);
    assert_eq!(consumer.checkpoint(S1).unwrap().position, Position::AtTimestamp(times[2]));
    consumer.reset(RecordsStart::Latest).unwrap();
    assert_eq!((left(&consumer, S0), left(&consumer, S1)), (vec![], vec![]));
    // Latest is where the tail was, not where it is.
    put_to(&stream, S0, "key", b"new");
    put_to(&stream, S1, "key", b"new");
    assert_eq!((left(&consumer, S0), left(&consumer, S1)), (vec![6], vec![0]));
    consumer.reset_shard(S0, RecordsStart::TrimHorizon).unwrap();
    assert_eq!((left(&consumer, S0).len(), left(&consumer, S1)), (7, vec![0]), "the other one stays");
    assert_eq!(consumer.checkpoints().unwrap().iter().map(|at| at.epoch).collect::<Vec<_>>(), [5, 3]);
    let nobody = consumer.reset_shard(ShardId::new(9), RecordsStart::Latest).unwrap_err();
    assert!(matches!(nobody, Error::ShardNotFound(_)), "{nobody:?}");
}

#[test]
fn a_shard_ends_when_it_is_closed_and_its_children_start_at_their_beginning() {
    let (_directory, stream) = stream(builder());
    fill(&stream, 3);
    let consumer = stream.consumer("c").unwrap();
    let lease = consumer.take(S0, "w").unwrap();
    assert_eq!(lease.checkpoint_end().unwrap_err().kind(), ErrorKind::InvalidInput, "it is open");
    let (lower, upper) = stream.split_shard(S0, None).unwrap();
    lease.checkpoint_end().unwrap();
    assert_eq!(consumer.checkpoint(S0).unwrap().position, Position::ShardEnd);
    let mut iterator = consumer.iterator(S0).unwrap();
    assert_eq!(drain(&mut iterator).len(), 0);
    assert_eq!(iterator.end_of_shard().unwrap().len(), 2);
    assert!(matches!(lease.checkpoint_at(number(1)), Err(Error::BehindCheckpoint { .. })));
    for child in [lower, upper] {
        assert_eq!(consumer.checkpoint(child).unwrap(), {
            let other = consumer.checkpoint(child).unwrap();
            assert_eq!((other.shard_id, other.position, other.epoch), (child, Position::TrimHorizon, 0));
            other
        });
        put_to(&stream, child, "key", b"data");
        assert_eq!(left(&consumer, child), [3]);
        let lease = consumer.take(child, "w").unwrap();
        lease.checkpoint_at(number(3)).unwrap();
        assert_eq!(left(&consumer, child), [0; 0]);
    }
    // All of a closed shard is older than what is latest.
    consumer.reset(RecordsStart::Latest).unwrap();
    assert_eq!(consumer.checkpoint(S0).unwrap().position, Position::ShardEnd);
    assert_eq!(consumer.checkpoints().unwrap().len(), 3);
}

#[test]
fn places_of_shards_that_expired_are_used_again() {
    let (disk, clock, stream) = simulated(builder().retention(Duration::from_secs(60)).shards(2));
    let consumer = stream.consumer("c").unwrap();
    let path = Path::new("stream/consumers/c");
    let length = disk.read_file(path).unwrap().len();
    for round in 0..5 {
        let open = stream.open_shards();
        let merged = stream.merge_shards(open[0], open[1]).unwrap();
        put_to(&stream, merged, "key", &[round]);
        let (lower, upper) = stream.split_shard(merged, None).unwrap();
        for child in [merged, lower, upper] {
            put_any(&stream, child);
            consumer.take(child, "w").unwrap();
        }
        for _ in 0..4 {
            clock.advance(Duration::from_secs(40));
            stream.enforce_retention().unwrap();
        }
    }
    assert_eq!(stream.shards().len(), 2);
    let grown = disk.read_file(path).unwrap().len() - length;
    assert!(grown <= 4 * 768, "{grown}"); // of what expired, the parent of the two has its own
    let all = consumer.checkpoints().unwrap();
    assert_eq!(all.iter().map(|at| at.epoch).collect::<Vec<_>>(), [1, 1], "each is its own");
    let expired = consumer.checkpoint(S0).unwrap_err();
    assert!(matches!(expired, Error::ShardNotFound(S0)), "{expired:?}");
    assert!(matches!(consumer.take(S0, "w"), Err(Error::ShardNotFound(S0))));
}

fn put_any(stream: &Stream, shard_id: ShardId) {
    if stream.open_shards().contains(&shard_id) {
        put_to(stream, shard_id, "key", b"data");
    }
}

#[test]
fn a_consumer_that_fell_behind_retention_is_told() {
    let (_directory, stream) = stream(builder().segment_bytes(4 << 10));
    fill_large(&stream, S0, 30);
    let consumer = stream.consumer("c").unwrap();
    let lease = consumer.take(S0, "w").unwrap();
    lease.checkpoint_at(number(3)).unwrap();
    stream.trim_shard(S0, number(20)).unwrap();
    let error = consumer.iterator(S0).unwrap_err();
    assert!(matches!(error, Error::Trimmed { earliest, .. } if earliest == number(20)), "{error:?}");
    lease.checkpoint_at(number(5)).unwrap(); // what is done is done
    consumer.reset_shard(S0, RecordsStart::TrimHorizon).unwrap();
    assert_eq!(left(&consumer, S0), (20..30).collect::<Vec<_>>());
}

#[test]
fn a_read_only_process_uses_consumers_too() {
    let (_directory, writer) = stream(builder());
    fill(&writer, 5);
    let reader = builder().open_read_only(writer.path()).unwrap();
    let theirs = reader.consumer("c").unwrap();
    let ours = writer.consumer("c").unwrap();
    let lease = theirs.take(S0, "reader").unwrap();
    lease.checkpoint_at(number(2)).unwrap();
    assert_eq!(stands_at(&ours, S0), Some(2));
    assert_eq!(left(&ours, S0), [3, 4]);
    let mine = ours.take(S0, "writer").unwrap();
    assert!(matches!(lease.checkpoint_at(number(3)), Err(Error::LeaseLost { epoch: 1, current: 2, .. })));
    fill(&writer, 2);
    mine.checkpoint_at(number(6)).unwrap();
    assert_eq!(left(&theirs, S0), [0; 0]);
    let (lower, _) = writer.split_shard(S0, None).unwrap();
    mine.checkpoint_end().unwrap();
    assert_eq!(theirs.checkpoint(S0).unwrap().position, Position::ShardEnd);
    put_to(&writer, lower, "key", b"data");
    let child = theirs.take(lower, "reader").unwrap();
    child.checkpoint_at(number(7)).unwrap();
    assert_eq!(left(&ours, lower), [0; 0]);
    assert!(matches!(child.checkpoint_at(number(8)), Err(Error::BeyondTail { .. })));
    reader.delete_consumer("c").unwrap();
    assert!(matches!(ours.checkpoint(lower), Err(Error::ConsumerNotFound(_))));
    assert_eq!(writer.consumers().unwrap(), [""; 0]);
}

/// The writer has not written it to the segment yet: for the reader it is not there, and still it is done.
#[test]
fn a_reader_that_does_not_see_the_tail_yet_does_not_give_what_is_done() {
    let disk: Arc<SimulatedDisk> = Arc::default();
    let options = || builder().storage(disk.clone()).clock(Arc::new(ManualClock::default()));
    let writer = options().durability(Durability::Buffered).create("stream").unwrap();
    let reader = options().open_read_only("stream").unwrap();
    fill(&writer, 3);
    drain(&mut writer.shard_iterator(S0, HORIZON).unwrap());
    for _ in 0..3 {
        writer.put("key", b"staged").unwrap();
    }
    let ours = writer.consumer("c").unwrap();
    ours.take(S0, "w").unwrap().checkpoint_at(number(4)).unwrap();
    assert_eq!(numbers_from(&reader, S0, HORIZON), [0, 1, 2], "as far as is seen");
    let mut theirs = reader.consumer("c").unwrap().iterator(S0).unwrap();
    assert_eq!(numbers(&mut theirs), [0; 0]);
    drain(&mut writer.shard_iterator(S0, HORIZON).unwrap());
    assert_eq!(numbers(&mut theirs), [5]);
}

#[test]
fn a_read_only_process_keeps_no_position_of_what_is_not_durable() {
    let disk: Arc<SimulatedDisk> = Arc::default();
    let options = || builder().storage(disk.clone()).clock(Arc::new(ManualClock::default()));
    let writer = options().create("stream").unwrap();
    fill(&writer, 2);
    let reader = options().open_read_only("stream").unwrap();
    let consumer = reader.consumer("c").unwrap();
    let lease = consumer.take(S0, "w").unwrap();
    disk.stall_syncs(true);
    let syncs = disk.operations_of(Operation::Sync);
    let putting = std::thread::spawn({
        let writer = writer.clone();
        move || writer.put("key", b"in flight").unwrap()
    });
    crate::support::eventually("the put waits for its sync", || disk.operations_of(Operation::Sync) > syncs);
    let mut unsynced = reader.shard_iterator(S0, HORIZON).unwrap().include_unsynced(true);
    let seen = drain(&mut unsynced);
    assert_eq!(seen.len(), 3);
    let refused = lease.checkpoint(&seen[2]).unwrap_err();
    assert!(matches!(refused, Error::BeyondTail { next, .. } if next == number(2)), "{refused:?}");
    disk.stall_syncs(false);
    putting.join().unwrap();
    lease.checkpoint(&seen[2]).unwrap();
}

#[test]
fn a_closed_stream_refuses() {
    let (_directory, stream) = stream(builder());
    fill(&stream, 3);
    let consumer = stream.consumer("c").unwrap();
    let lease = consumer.take(S0, "w").unwrap();
    stream.clone().close().unwrap();
    let outcomes = [
        stream.consumer("c").map(drop),
        stream.consumers().map(drop),
        stream.delete_consumer("c"),
        consumer.checkpoint(S0).map(drop),
        consumer.checkpoints().map(drop),
        consumer.iterator(S0).map(drop),
        consumer.take(S0, "w").map(drop),
        consumer.reset(RecordsStart::Latest),
        consumer.reset_shard(S0, RecordsStart::Latest),
        consumer.sync(),
        lease.iterator().map(drop),
        lease.checkpoint_at(number(1)),
        lease.checkpoint_end(),
        lease.release(),
    ];
    for outcome in outcomes {
        assert!(matches!(outcome, Err(Error::Closed)), "{outcome:?}");
    }
}

/// A stream that was made under the name of a deleted one has consumers of its own.
#[test]
fn a_deleted_streams_consumers_are_gone() {
    let (_directory, path) = place();
    let store = Store::open(&path).unwrap();
    let stream = store.create("clicks", builder()).unwrap();
    fill(&stream, 3);
    stream.consumer("c").unwrap().take(S0, "w").unwrap().checkpoint_at(number(2)).unwrap();
    store.delete("clicks").unwrap();
    assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    let stream = store.create("clicks", builder()).unwrap();
    assert_eq!(stream.consumers().unwrap(), [""; 0]);
    assert_eq!(stands_at(&stream.consumer("c").unwrap(), S0), None);
}

#[test]
fn a_file_of_another_stream_consumer_or_version_is_refused() {
    let (disk, clock, stream) = simulated(builder());
    fill(&stream, 3);
    for name in ["a", "b"] {
        stream.consumer(name).unwrap().take(S0, "w").unwrap().checkpoint_at(number(1)).unwrap();
    }
    let of = |name: &str| Path::new("stream/consumers").join(name);
    let original = disk.read_file(&of("a")).unwrap();
    let options = || builder().storage(Arc::new(disk.clone())).clock(clock.clone());
    options().create("other").unwrap().consumer("a").unwrap();
    let corrupt = |stream: &Stream| match stream.consumer("a") {
        Err(Error::Corrupt(found)) => assert_eq!(found.path, Path::new(stream.path()).join("consumers/a")),
        other => panic!("{other:?}"),
    };
    let theirs = disk.read_file(&of("b")).unwrap();
    disk.damage(&of("a"), |bytes| *bytes = theirs).unwrap();
    corrupt(&stream);
    let foreign = Path::new("other/consumers/a");
    disk.damage(foreign, |bytes| bytes.clone_from(&original)).unwrap();
    corrupt(&options().open_read_only("other").unwrap());
    disk.damage(&of("a"), |bytes| {
        bytes.clone_from(&original);
        bytes[8] = 9;
    })
    .unwrap();
    corrupt(&stream); // nothing but its version is another
    disk.damage(&of("a"), |bytes| say_version(bytes, 9, 244)).unwrap();
    let later = stream.consumer("a").unwrap_err();
    assert!(matches!(later, Error::UnsupportedVersion { found: 9, .. }), "{later:?}");
    disk.damage(&of("a"), |bytes| bytes.truncate(100)).unwrap();
    corrupt(&stream);
    // The header of an older file of the same name over the slots of this one.
    disk.damage(&of("a"), |bytes| bytes.clone_from(&original)).unwrap();
    stream.delete_consumer("a").unwrap();
    stream.consumer("a").unwrap();
    disk.damage(&of("a"), |bytes| bytes[256..].copy_from_slice(&original[256..])).unwrap();
    corrupt(&stream);
    stream.delete_consumer("a").unwrap(); // which a damaged one can be
    stream.consumer("a").unwrap();
}

/// One slot's copies: any one that is sound is used; none that is sound is damage, never a silent start from the beginning.
#[test]
fn damage_of_every_copy_is_told_and_mended_by_a_repair() {
    let (disk, clock, stream) = simulated(builder().shards(2));
    put_to(&stream, S0, "key", b"data");
    put_to(&stream, S1, "key", b"data");
    let consumer = stream.consumer("c").unwrap();
    for shard_id in [S0, S1] {
        consumer.take(shard_id, "w").unwrap().checkpoint_at(number(0)).unwrap();
    }
    drop(consumer);
    stream.close().unwrap();
    let path = Path::new("stream/consumers/c");
    let storage = || -> Option<Arc<dyn Storage>> { Some(Arc::new(disk.clone())) };
    let options = || builder().storage(Arc::new(disk.clone())).clock(clock.clone());
    let look = || verify("stream", VerifyOptions { storage: storage(), progress: None }).unwrap();
    assert!(look().is_sound());
    for copies in 1..=3 {
        disk.damage(path, |bytes| (0..copies).for_each(|copy| bytes[256 + 768 + copy * 256 + 100] ^= 1)).unwrap();
        let stream = options().open("stream").unwrap();
        let outcome = stream.consumer("c");
        let report = look();
        if copies < 3 {
            // The copy in force may be gone; the one before it is not.
            let consumer = outcome.unwrap();
            assert!(consumer.checkpoint(S1).unwrap().epoch <= 1);
            assert!(report.is_sound());
            drop(consumer);
            stream.close().unwrap();
            disk.damage(path, |bytes| (0..copies).for_each(|copy| bytes[256 + 768 + copy * 256 + 100] ^= 1))
                .unwrap();
            continue;
        }
        let Err(Error::Corrupt(found)) = outcome else { panic!("{outcome:?}") };
        assert_eq!((found.path.as_path(), found.offset), (path, 256 + 768));
        assert_eq!(report.damage.len(), 1, "{:?}", report.damage);
        assert_eq!((report.damage[0].path.as_path(), report.damage[0].offset), (path, 256 + 768));
        stream.close().unwrap();
    }
    let before = disk.read_file(path).unwrap();
    let report = repair("stream", storage()).unwrap();
    assert!(report.after.is_sound(), "{:?}", report.after.damage);
    assert!(report.set_aside.iter().any(|kept| disk.read_file(kept).unwrap() == before), "{:?}", report.set_aside);
    let stream = options().open("stream").unwrap();
    let consumer = stream.consumer("c").unwrap();
    assert_eq!((stands_at(&consumer, S0), stands_at(&consumer, S1)), (Some(0), None), "the other stays");
    drop(consumer);
    stream.close().unwrap();
    // A header that is damaged: the file is set aside, and the consumer is gone.
    disk.damage(path, |bytes| bytes[20] ^= 1).unwrap();
    assert_eq!(look().damage.len(), 1);
    assert!(repair("stream", storage()).unwrap().after.is_sound());
    assert_eq!(options().open("stream").unwrap().consumers().unwrap(), [""; 0]);
}

/// Also of a slot that was only just made: it is finished with two copies, so that damage is not taken for a beginning.
#[test]
fn damage_of_a_new_slot_is_told() {
    let (disk, _, stream) = simulated(builder());
    drop(stream.consumer("c").unwrap());
    let (lower, _) = stream.split_shard(S0, None).unwrap();
    let consumer = stream.consumer("c").unwrap();
    consumer.reset_shard(lower, RecordsStart::AtTimestamp(Timestamp::from_millis(7))).unwrap();
    drop(consumer);
    let slot = 256 + 768;
    disk.damage(Path::new("stream/consumers/c"), |bytes| {
        assert!(bytes[slot..slot + 512].chunks(256).all(|copy| copy.iter().any(|byte| *byte != 0)));
        bytes[slot + 100] ^= 1;
        bytes[slot + 256 + 100] ^= 1;
    })
    .unwrap();
    assert!(matches!(stream.consumer("c"), Err(Error::Corrupt(_))));
}

#[test]
fn a_checkpoint_whose_sync_failed_is_not_taken_for_durable_by_the_next() {
    let (disk, clock, stream) = simulated(builder());
    fill(&stream, 5);
    let consumer = stream.consumer("c").unwrap();
    let lease = consumer.take(S0, "w").unwrap();
    lease.checkpoint_at(number(1)).unwrap();
    disk.fail_on(Operation::Sync, 0, DiskFault::Error(std::io::ErrorKind::Other));
    assert_eq!(lease.checkpoint_at(number(2)).unwrap_err().kind(), ErrorKind::Io);
    // Nothing new is written, and yet a success has to mean something.
    consumer.sync().unwrap();
    for seed in 0..50 {
        let lost = disk.fork(anabranch::Crash::PowerLost { seed });
        let stream = builder().storage(Arc::new(lost)).clock(clock.clone()).open("stream").unwrap();
        assert_eq!(stands_at(&stream.consumer("c").unwrap(), S0), Some(2), "seed {seed}");
    }
}

/// Whether this is where the consumer stands after whatever a power cut leaves.
fn survives(disk: &SimulatedDisk, clock: &Arc<ManualClock>, expected: Option<u64>) -> bool {
    (0..50).all(|seed| {
        let lost = disk.fork(anabranch::Crash::PowerLost { seed });
        let stream = builder().storage(Arc::new(lost)).clock(clock.clone()).open("stream").unwrap();
        stands_at(&stream.consumer("c").unwrap(), S0) == expected
    })
}

/// Nobody holds the consumer when the flush comes.
#[test]
fn a_buffered_checkpoint_outlives_the_handles_that_made_it() {
    let (disk, clock, stream) = simulated(builder().durability(Durability::Buffered));
    fill(&stream, 5);
    let flushes: [&dyn Fn(); 3] =
        [&|| stream.sync().unwrap(), &|| stream.maintain().unwrap(), &|| stream.clone().close().unwrap()];
    for (at, flush) in (1..).zip(flushes) {
        let consumer = stream.consumer("c").unwrap();
        let lease = consumer.take(S0, "w").unwrap();
        lease.checkpoint_at(number(at)).unwrap();
        drop((lease, consumer));
        assert!(!survives(&disk, &clock, Some(at)));
        flush();
        assert!(survives(&disk, &clock, Some(at)), "{at}");
    }
}

/// Whoever holds it goes on with it.
#[test]
fn a_buffered_checkpoint_behind_a_failed_deletion_is_durable_after_a_flush() {
    let (disk, clock, stream) = simulated(builder().durability(Durability::Buffered));
    fill(&stream, 5);
    let lease = stream.consumer("c").unwrap().take(S0, "w").unwrap();
    disk.fail_on(Operation::Write, 0, DiskFault::Error(std::io::ErrorKind::Other));
    assert_eq!(stream.delete_consumer("c").unwrap_err().kind(), ErrorKind::Io);
    lease.checkpoint_at(number(2)).unwrap();
    assert!(!survives(&disk, &clock, Some(2)));
    stream.sync().unwrap();
    assert!(survives(&disk, &clock, Some(2)));
}

/// One whose checkpoints are durable, or never will be, takes no room when nobody holds it.
#[cfg(target_os = "linux")]
#[test]
fn files_of_consumers_that_nobody_holds_are_closed_by_the_next_flush() {
    let (_directory, path) = place();
    let open = || builder().durability(Durability::Buffered).open(&path).unwrap();
    let stream = open();
    fill(&stream, 5);
    let open_files = || {
        let links =
            fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
        links.filter(|link| link.starts_with(path.join("consumers"))).count()
    };
    for is_deleted in [false, true] {
        let consumer = stream.consumer("c").unwrap();
        consumer.take(S0, "w").unwrap().checkpoint_at(number(2)).unwrap();
        assert_eq!(open_files(), 1);
        if is_deleted {
            let elsewhere = builder().open_read_only(&path).unwrap();
            elsewhere.delete_consumer("c").unwrap();
        }
        drop(consumer);
        stream.sync().unwrap();
        assert_eq!(open_files(), 0, "deleted: {is_deleted}");
    }
}

#[test]
fn a_buffered_checkpoint_is_durable_after_a_flush() {
    let (disk, clock, stream) = simulated(builder().durability(Durability::Buffered));
    fill(&stream, 5);
    let consumer = stream.consumer("c").unwrap();
    let lease = consumer.take(S0, "w").unwrap();
    let survives = |expected| survives(&disk, &clock, expected);
    let flushes: [(u64, &dyn Fn()); 3] =
        [(1, &|| stream.sync().unwrap()), (2, &|| stream.maintain().unwrap()), (3, &|| consumer.sync().unwrap())];
    for (at, flush) in flushes {
        let syncs = disk.operations_of(Operation::Sync);
        lease.checkpoint_at(number(at)).unwrap();
        assert_eq!(disk.operations_of(Operation::Sync), syncs, "it makes no sync");
        assert!(!survives(Some(at)));
        flush();
        assert!(survives(Some(at)), "{at}");
    }
    lease.checkpoint_at(number(4)).unwrap();
    stream.clone().close().unwrap();
    assert!(survives(Some(4)));
    // In a process without a background, the first checkpoint after the interval is the flush.
    let reader = builder().storage(Arc::new(disk.clone())).clock(clock.clone()).open_read_only("stream").unwrap();
    let consumer = reader.consumer("c").unwrap();
    let lease = consumer.take(S0, "r").unwrap();
    let syncs = disk.operations_of(Operation::Sync);
    lease.checkpoint_at(number(4)).unwrap();
    assert_eq!(disk.operations_of(Operation::Sync), syncs);
    clock.advance(Duration::from_secs(2));
    lease.checkpoint_at(number(4)).unwrap();
    assert_eq!(disk.operations_of(Operation::Sync), syncs + 1);
}

#[test]
fn threads_that_checkpoint_exclude_each_other() {
    let (_directory, stream) = stream(builder().shards(4).durability(Durability::Buffered));
    for shard in stream.shards() {
        for _ in 0..200 {
            put_to(&stream, shard.shard_id, "key", b"data");
        }
    }
    let consumer = stream.consumer("c").unwrap();
    let reader = builder().open_read_only(stream.path()).unwrap();
    let other = reader.consumer("c").unwrap();
    let takes = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4_u32 {
            let (consumer, takes) = (if thread % 2 == 0 { &consumer } else { &other }, &takes);
            scope.spawn(move || {
                for round in 0..40 {
                    let shard_id = ShardId::new((thread + round) % 4);
                    let lease = consumer.take(shard_id, &format!("w{thread}")).unwrap();
                    takes.fetch_add(1, Ordering::SeqCst);
                    let mut iterator = lease.iterator().unwrap();
                    match iterator.available().next().map(Result::unwrap).map(|next| lease.checkpoint(&next)) {
                        None | Some(Ok(()) | Err(Error::LeaseLost { .. })) => {}
                        Some(Err(error)) => panic!("{error:?}"),
                    }
                }
            });
        }
    });
    let epochs: u64 = consumer.checkpoints().unwrap().iter().map(|at| at.epoch).sum();
    assert_eq!(epochs, takes.into_inner(), "each take got an epoch of its own");
}

#[test]
fn any_time_is_a_place_to_start() {
    let (_directory, stream) = stream(builder());
    fill(&stream, 3);
    let consumer = stream.consumer("c").unwrap();
    for (millis, expected) in [(i64::MIN, 3), (0, 3), (i64::MAX, 0)] {
        consumer.reset(RecordsStart::AtTimestamp(Timestamp::from_millis(millis))).unwrap();
        assert_eq!(left(&consumer, S0).len(), expected, "{millis}");
    }
    assert_eq!(SequenceNumber::ZERO, number(0));
}

#[test]
fn what_was_read_can_be_checkpointed_while_its_shard_is_sealed() {
    let directory = tempfile::tempdir().unwrap();
    let stream = Stream::builder().segment_bytes(4096).create(directory.path().join("stream")).unwrap();
    let consumer = stream.consumer("billing").unwrap();
    let flag = AtomicBool::new(false);
    let is_over = || flag.load(Ordering::SeqCst);
    std::thread::scope(|scope| {
        for producer in 0..3 {
            let (stream, is_over) = (&stream, &is_over);
            scope.spawn(move || {
                while !is_over() {
                    stream.put(format!("key-{producer}"), [0; 600]).unwrap();
                }
            });
        }
        scope.spawn(|| {
            while !is_over() {
                let shard_id = stream.shards().last().unwrap().shard_id;
                let lease = consumer.take(shard_id, "worker").unwrap();
                let mut records = lease.iterator().unwrap();
                while records.end_of_shard().is_none() && !is_over() {
                    if let Some(record) = records.next_timeout(Duration::from_millis(1)).unwrap() {
                        lease.checkpoint(&record).unwrap();
                    }
                }
            }
        });
        for _ in 0..60 {
            let (lower, upper) = stream.split_shard(stream.open_shards()[0], None).unwrap();
            stream.merge_shards(lower, upper).unwrap();
        }
        flag.store(true, Ordering::SeqCst);
    });
}
