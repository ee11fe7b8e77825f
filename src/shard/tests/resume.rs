//! Going on behind what was done, where numbers were given a second time.

use super::*;
use crate::format::SealKind;

/// A shard whose segments start at 0, 3 and 5 and end at 7, made by the first, the second and the fourth opening.
fn reopened() -> Arc<Shard> {
    let disk = SimulatedDisk::new();
    let shard = shard_on(Arc::new(disk.clone()), StreamOptions::default(), false);
    for (incarnation, numbers, kind) in
        [(1, 0..3, SealKind::Rolled), (2, 3..5, SealKind::Rolled), (4, 5..7, SealKind::Closed)]
    {
        let mut writer = segment_of(&shard, incarnation, numbers.start);
        for number in numbers {
            let frame = FrameInput {
                sequence_number: SequenceNumber::new(number),
                arrival: Timestamp::from_millis(0),
                durable: SequenceNumber::ZERO,
                batch_remaining: 0,
                explicit_hash_key: None,
                producer: None,
                partition_key: "key",
                data: DATA,
            };
            writer.stage(&frame).unwrap();
        }
        writer.seal(kind, &[]).unwrap();
    }
    let watermarks = Watermarks::open(&disk, Path::new("stream"), STREAM, Access::Write).unwrap();
    let mut context = context(Arc::new(disk.clone()), watermarks, StreamOptions::default(), false);
    Arc::get_mut(&mut context).unwrap().incarnation = 5;
    let staged = Staged::load(&disk, Path::new("stream")).unwrap();
    let found = Shard::recover(context, shard.directory.clone(), &entry(), false, &staged).unwrap();
    assert_eq!(found.next, SequenceNumber::new(7));
    Arc::new(found.shard)
}

fn done(next: u64, incarnation: u64) -> Done {
    Done { next: SequenceNumber::new(next), incarnation }
}

/// The numbers that a cursor behind what was done gives.
fn given(shard: &Arc<Shard>, done: Done) -> Vec<u64> {
    let mut cursor = Cursor::behind(Arc::clone(shard), done, Visibility::Written, None).unwrap();
    numbers(&mut cursor)
}

fn numbers(cursor: &mut Cursor) -> Vec<u64> {
    std::iter::from_fn(|| cursor.next_record().unwrap()).map(|record| record.sequence_number().get()).collect()
}

#[test]
fn records_of_later_openings_than_what_was_done_were_not_done() {
    let shard = reopened();
    for (done, first) in [
        (done(0, 4), 0),
        (done(2, 1), 2),
        (done(3, 1), 3),
        (done(4, 2), 4),
        (done(7, 4), 7),
        (done(9, 4), 7), // the tail
        (done(9, 3), 5),
        (done(7, 2), 5),
        (done(7, 1), 3),
        (done(4, 1), 3),
        (done(7, 0), 0),
    ] {
        assert_eq!(shard.resume(done).unwrap(), SequenceNumber::new(first), "{done:?}");
        assert_eq!(given(&shard, done), (first..7).collect::<Vec<_>>(), "{done:?}");
    }
    let incarnation = |number| shard.incarnation_of(SequenceNumber::new(number)).unwrap();
    assert_eq!([0, 2, 3, 4, 5, 6].map(incarnation), [1, 1, 2, 2, 4, 4].map(Some));
}

/// What is done may be more than is seen yet: what comes is passed over as far as it is of an opening that was done.
#[test]
fn what_was_done_and_is_seen_later_is_passed_over() {
    let shard = shard(1 << 20, true);
    put(&shard);
    let cursor = |done| Cursor::behind(Arc::clone(&shard), done, Visibility::Written, None).unwrap();
    let (mut same, mut earlier) = (cursor(done(3, 1)), cursor(done(3, 0)));
    assert_eq!((numbers(&mut same), numbers(&mut earlier)), (vec![], vec![0]));
    (0..4).for_each(|_| put(&shard));
    assert_eq!((numbers(&mut same), numbers(&mut earlier)), (vec![3, 4], vec![1, 2, 3, 4]));
}
