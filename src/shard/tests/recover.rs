//! What a shard leaves to the next opening, and what that makes of it.

use super::*;

/// Fences a producer while a segment is made for a record of its, once it is armed: the first reading is the record's.
#[derive(Debug)]
struct FencingClock {
    armed: AtomicBool,
    readings: AtomicU64,
    epoch: AtomicU64,
}

impl Clock for FencingClock {
    fn now(&self) -> Timestamp {
        if self.armed.load(Ordering::SeqCst) && self.readings.fetch_add(1, Ordering::SeqCst) == 1 {
            self.epoch.store(2, Ordering::SeqCst);
        }
        Timestamp::from_millis(0)
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

/// Its segment would be removed by a close, and the one before it says that there is one.
#[test]
fn a_producer_that_is_fenced_during_a_roll_leaves_no_segment_without_a_record() {
    let disk = SimulatedDisk::new();
    let (storage, options): (Arc<dyn Storage>, _) = (Arc::new(disk.clone()), StreamOptions::default());
    drop(shard_on(Arc::clone(&storage), options, false));
    let stream = Path::new("stream");
    let clock = Arc::new(FencingClock {
        armed: AtomicBool::new(false),
        readings: AtomicU64::new(0),
        epoch: AtomicU64::new(1),
    });
    let opened = |incarnation| {
        let watermarks = Watermarks::open(&disk, stream, STREAM, Access::Write).unwrap();
        let mut context = context(Arc::clone(&storage), watermarks, options, false);
        let changed = Arc::get_mut(&mut context).unwrap();
        (changed.incarnation, changed.clock) = (incarnation, Arc::<FencingClock>::clone(&clock));
        context
    };
    let shard = Shard::new(opened(1), stream.join("shard"), &entry());
    put(&shard);
    clock.armed.store(true, Ordering::SeqCst);
    let large = vec![7; usize::try_from(crate::limits::FIRST_SEGMENT_BYTES).unwrap()];
    let stamped = Stamped {
        producer: "p",
        stamp: ProducerStamp { producer_id: 1, epoch: 1, batch_number: 1 },
        current_epoch: &clock.epoch,
        condition: Condition::default(),
    };
    let append = || {
        let entry = AppendEntry { partition_key: "key", data: &large, explicit_hash_key: None };
        shard.append_stamped(&[(HashKey::new(0), entry)], Durability::Buffered, stamped)
    };
    append().unwrap();
    assert!(matches!(append(), Err(ShardError::ProducerFenced { .. })), "from then on");
    shard.freeze().unwrap();
    drop(shard);
    let staged = Staged::load(&disk, stream).unwrap();
    let found = Shard::recover(opened(2), stream.join("shard"), &entry(), false, &staged).unwrap();
    assert_eq!(found.next, SequenceNumber::new(2));
}

/// However many there are, none has a record; what stands there was written by somebody else.
#[test]
fn segments_without_a_record_are_removed_in_no_endless_number() {
    let disk = SimulatedDisk::new();
    let shard = shard_on(Arc::new(disk.clone()), StreamOptions::default(), false);
    (0..100).for_each(|first| drop(segment_of(&shard, 1, first)));
    let watermarks = Watermarks::open(&disk, Path::new("stream"), STREAM, Access::Write).unwrap();
    let mut context = context(Arc::new(disk.clone()), watermarks, StreamOptions::default(), false);
    Arc::get_mut(&mut context).unwrap().incarnation = 2;
    let staged = Staged::load(&disk, Path::new("stream")).unwrap();
    let found = Shard::recover(context, shard.directory().to_path_buf(), &entry(), false, &staged);
    assert!(matches!(found, Err(Fault::Corrupt(_))), "{found:?}");
}
