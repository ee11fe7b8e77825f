//! A shard that another process writes.

use super::*;

/// The same shard as another process sees it.
fn follow(shard: &Shard, entry: &ShardEntry) -> Shard {
    let storage = Arc::clone(&shard.context.storage);
    let watermarks = Watermarks::open(storage.as_ref(), Path::new("stream"), STREAM, Access::Read).unwrap();
    let context = context(storage, watermarks, shard.context.options, false);
    Shard::follow(context, shard.directory.clone(), entry).unwrap()
}

/// A shard of three segments; gives where each starts, too.
fn rolled() -> (Arc<Shard>, Vec<SequenceNumber>) {
    let shard = shard_with(StreamOptions { segment_bytes: 4096, ..StreamOptions::default() }, true);
    while shard.segments.read().all().len() < 3 {
        put(&shard);
    }
    shard.sync().unwrap();
    let firsts = shard.segments.read().all().iter().map(|slot| slot.first).collect();
    (shard, firsts)
}

#[test]
fn a_follower_starts_at_the_segment_that_the_manifest_names_and_moves_with_it() {
    let (shard, firsts) = rolled();
    let follower = follow(&shard, &entry());
    let front = |follower: &Shard| follower.segments.read().first();
    assert_eq!(front(&follower), Some(SequenceNumber::ZERO));
    let trimmed = ShardEntry { first: firsts[1], horizon: firsts[1], ..entry() };
    for _ in 0..2 {
        follower.refresh_entry(&trimmed);
        assert_eq!(front(&follower), Some(firsts[1]), "the files below may be gone any time");
        assert_eq!(follower.trim_horizon(None).unwrap(), firsts[1]);
    }
    assert_eq!(front(&follow(&shard, &trimmed)), Some(firsts[1]));
}

/// The room of a file that the writer removed comes free only where nobody has it mapped.
#[test]
fn a_follower_lets_go_of_the_segments_that_are_removed() {
    let (shard, firsts) = rolled();
    let follower = follow(&shard, &entry());
    let read = |first| {
        let slot = follower.segments.read().holding(first).unwrap();
        Arc::downgrade(&slot.segment(&follower.context, follower.id, &follower.directory).unwrap())
    };
    let (removed, left) = (read(firsts[0]), read(firsts[1]));
    assert!(removed.upgrade().is_some(), "kept for the next one who reads it");
    follower.refresh_entry(&ShardEntry { first: firsts[1], horizon: firsts[1], ..entry() });
    assert!(removed.upgrade().is_none());
    assert!(left.upgrade().is_some());
    follower.expire(None);
    assert!(left.upgrade().is_none());
}

#[test]
fn a_follower_ends_where_the_manifest_closes_the_shard() {
    let (shard, _) = rolled();
    let follower = follow(&shard, &entry());
    let next = shard.next(Visibility::Durable);
    assert_eq!(follower.next(Visibility::Durable), next);
    let closed = |next| {
        let closed = ClosedShard { at: Timestamp::from_millis(1) };
        ShardEntry { closed: Some(closed), next, ..entry() }
    };
    follower.refresh_end(&ShardEntry { next, ..entry() });
    assert_eq!(follower.end(), None, "it is open");
    follower.refresh_end(&closed(next.next()));
    assert_eq!(follower.end(), None, "a record of it was not seen yet");
    follower.refresh_end(&closed(next));
    assert_eq!(follower.end(), Some(next));
}

/// Who has read all that there was is at its end. Who has not, or cannot know, is told that there may have been more.
#[test]
fn a_follower_of_a_shard_that_expired_is_at_its_end_or_behind() {
    let (shard, _) = rolled();
    let next = shard.next(Visibility::Written);
    let more = next.plus(3);
    for (told, end) in
        [(Some(next), next), (Some(more), more), (None, next.next()), (Some(SequenceNumber::ZERO), next)]
    {
        let follower = Arc::new(follow(&shard, &entry()));
        let cursor_at = |number| {
            let kind = ShardIteratorType::AtSequenceNumber(number);
            Cursor::new(Arc::clone(&follower), kind, Visibility::Durable, None).unwrap()
        };
        let [mut behind, mut at_tail] = [SequenceNumber::ZERO, next.previous().unwrap()].map(cursor_at);
        assert_eq!(at_tail.next_record().unwrap().unwrap().sequence_number().next(), next);
        assert_eq!(at_tail.poll().unwrap(), Progress::Tail);
        follower.expire(told);
        assert_eq!((follower.end(), follower.trim_horizon(None).unwrap()), (Some(end), end));
        let is_trimmed = |outcome| matches!(outcome, Err(ShardError::Trimmed { earliest, .. }) if earliest == end);
        assert!(is_trimmed(behind.poll()), "{told:?}");
        let outcome = at_tail.poll();
        assert!(if end == next { outcome.unwrap() == Progress::End } else { is_trimmed(outcome) }, "{told:?}");
    }
}

/// A segment without a record is removed when its writer died, and the next writer's has its name.
#[test]
fn a_follower_leaves_an_empty_segment_for_the_one_that_takes_its_name() {
    let shard = shard(1 << 20, true);
    let abandoned = segment_of(&shard, 1, 0);
    let follower = follow(&shard, &entry());
    assert_eq!(follower.next(Visibility::Written), SequenceNumber::ZERO);
    abandoned.remove_empty().unwrap();
    let mut writer = segment_of(&shard, 2, 0);
    writer
        .stage(&FrameInput {
            sequence_number: SequenceNumber::ZERO,
            arrival: Timestamp::from_millis(1),
            durable: SequenceNumber::ZERO,
            batch_remaining: 0,
            explicit_hash_key: None,
            producer: None,
            partition_key: "key",
            data: DATA,
        })
        .unwrap();
    writer.sync().unwrap();
    follower.refresh().unwrap();
    assert_eq!(follower.next(Visibility::Written), SequenceNumber::new(1));
    assert_eq!(follower.next(Visibility::Durable), SequenceNumber::ZERO, "nobody noted that it is durable");
    shard.context.watermarks.store(shard.id, SequenceNumber::new(1));
    follower.refresh().unwrap();
    assert_eq!(follower.next(Visibility::Durable), SequenceNumber::new(1));
}

#[test]
fn a_follower_that_cannot_open_a_file_says_so() {
    let disk = SimulatedDisk::new();
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let directory = PathBuf::from("stream/shard");
    storage.create_dir(Path::new("stream")).unwrap();
    storage.create_dir(&directory).unwrap();
    let watermarks = Watermarks::create(&disk, Path::new("stream"), STREAM).unwrap();
    let shard = Shard::new(context(storage, watermarks, StreamOptions::default(), true), directory, &entry());
    let follower = follow(&shard, &entry());
    follower.refresh().unwrap(); // no file is no error
    disk.fail_on(Operation::OpenFile, 0, DiskFault::Error(io::ErrorKind::PermissionDenied));
    assert!(matches!(follower.refresh(), Err(Fault::Io { .. })));
    // One that is being made has no header yet.
    let path = shard.directory.join(crate::format::segment_name(SequenceNumber::ZERO));
    disk.create_file(&path).unwrap();
    follower.refresh().unwrap();
    assert_eq!(follow(&shard, &entry()).next(Visibility::Written), SequenceNumber::ZERO);
}
