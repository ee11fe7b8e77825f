//! Queues: each record to one at a time, until it is acknowledged, or set aside.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anabranch::limits::{MAX_QUEUE_RECEIVE, MAX_QUEUE_SET_ASIDE, MAX_QUEUE_UNACKNOWLEDGED};
use anabranch::storage::{Operation, Storage};
use anabranch::{
    Clock, Crash, DiskFault, Durability, Error, ErrorKind, ManualClock, Queue, QueueOptions, Receipt, Received,
    RecordsStart, SimulatedDisk, Stream, Timestamp, VerifyOptions, repair, verify,
};

use crate::support::{
    DEADLINE, S0, S1, S2, builder, damage_on, eventually, fill, fill_large, number, place, put_to, say_version,
    simulated, stream,
};

const NOW: Duration = Duration::ZERO;
const SECOND: Duration = Duration::from_secs(1);
const VISIBILITY: Duration = Duration::from_secs(30);

fn options() -> QueueOptions {
    QueueOptions::new()
}

/// A queue over a new stream that holds `count` records.
fn queue(count: u64, options: QueueOptions) -> (SimulatedDisk, Arc<ManualClock>, Queue) {
    let (disk, clock, stream) = simulated(builder());
    fill(&stream, count);
    let queue = stream.queue("orders", options).unwrap();
    (disk, clock, queue)
}

fn receive(queue: &Queue, max: usize) -> Vec<Received> {
    queue.receive(max, NOW).unwrap()
}

/// The numbers of up to 100 records, and how often each was received.
fn counts(queue: &Queue) -> Vec<(u64, u32)> {
    let place = |received: &Received| (received.record.sequence_number().get(), received.receive_count);
    receive(queue, 100).iter().map(place).collect()
}

fn numbers_set_aside(queue: &Queue) -> Vec<u64> {
    queue.set_aside().unwrap().iter().map(|aside| aside.sequence_number.get()).collect()
}

fn is_over(outcome: &anabranch::Result<()>, of: u64) -> bool {
    matches!(outcome, Err(Error::ReceiptExpired { sequence_number, .. }) if *sequence_number == number(of))
}

fn open_again(disk: &SimulatedDisk, clock: &Arc<ManualClock>) -> Stream {
    builder().storage(Arc::new(disk.clone())).clock(clock.clone()).open_existing("stream").unwrap()
}

#[test]
fn a_record_is_invisible_until_its_time_is_over_and_comes_again_until_it_is_acknowledged() {
    let (_disk, clock, queue) = queue(3, options());
    let first = receive(&queue, 2);
    assert_eq!(first.iter().map(|one| one.record.data()).collect::<Vec<_>>(), [b"0", b"1"]);
    assert_eq!(first[0].first_received, clock.now());
    assert_eq!(counts(&queue), [(2, 1)], "the others are somebody's");
    queue.acknowledge(&first[0]).unwrap();
    clock.advance(Duration::from_millis(29_999));
    assert_eq!(counts(&queue), []);
    clock.advance(Duration::from_millis(1));
    let again = receive(&queue, 10);
    let places = |all: &[Received]| all.iter().map(|one| one.record.sequence_number().get()).collect::<Vec<_>>();
    assert_eq!((places(&again), again[0].receive_count, again[1].receive_count), (vec![1, 2], 2, 2));
    assert_eq!(again[0].first_received, first[1].first_received);
    queue.acknowledge(&again[0]).unwrap();
    queue.acknowledge(again[1].receipt).unwrap();
    clock.advance(VISIBILITY * 2);
    assert_eq!(counts(&queue), []);
    let described = queue.describe().unwrap();
    let shard = &described.shards[0];
    assert_eq!((described.name.as_str(), shard.floor, shard.next, shard.new), ("orders", number(3), number(3), 0));
    assert!(!shard.is_finished, "it is open");
}

#[test]
fn a_receipt_is_over_once_somebody_else_has_the_record() {
    let (_disk, clock, queue) = queue(2, options());
    let first = receive(&queue, 2);
    clock.advance(VISIBILITY);
    // Its time is over, but nobody else has it.
    queue.acknowledge(&first[1]).unwrap();
    assert!(is_over(&queue.acknowledge(&first[1]), 1), "done already");
    let second = receive(&queue, 2);
    assert_eq!(second.len(), 1);
    let refused = queue.acknowledge(&first[0]);
    assert_eq!(refused.as_ref().unwrap_err().kind(), ErrorKind::Conflict);
    assert!(is_over(&refused, 0));
    assert!(is_over(&queue.give_back(&first[0]), 0));
    assert!(is_over(&queue.change_visibility(&first[0], SECOND), 0));
    assert_eq!(counts(&queue), [], "nothing was changed");
    queue.acknowledge(&second[0]).unwrap();
    clock.advance(VISIBILITY);
    assert_eq!(counts(&queue), []);
}

#[test]
fn visibility_is_changed_and_records_are_given_back() {
    let (_disk, clock, queue) = queue(2, options());
    let received = receive(&queue, 2);
    queue.give_back(&received[1]).unwrap();
    assert_eq!(counts(&queue), [(1, 2)]);
    queue.change_visibility(&received[0], VISIBILITY * 4).unwrap();
    clock.advance(VISIBILITY * 3);
    assert_eq!(counts(&queue), [(1, 3)]);
    queue.change_visibility(&received[0], SECOND).unwrap();
    clock.advance(SECOND);
    // Over, but still nobody else's: it can be held on to.
    queue.change_visibility(&received[0], SECOND).unwrap();
    assert_eq!(counts(&queue), []);
    clock.advance(SECOND);
    assert_eq!(counts(&queue), [(0, 2)]);
    let of_one_call = queue.receive_for(1, NOW, NOW).unwrap();
    assert_eq!(of_one_call.len(), 0);
    clock.advance(VISIBILITY);
    let of_one_call = queue.receive_for(10, NOW, NOW).unwrap();
    assert_eq!(of_one_call.len(), 2, "each once, though they are visible at once");
    assert_eq!(receive(&queue, 10).len(), 2);
}

#[test]
fn what_was_received_too_often_is_set_aside_and_can_be_restored_or_discarded() {
    let (_disk, clock, queue) = queue(4, options().max_receives(3));
    let good = receive(&queue, 1);
    queue.acknowledge(&good[0]).unwrap();
    for round in 1..=3 {
        assert_eq!(counts(&queue), [(1, round), (2, round), (3, round)]);
        assert_eq!(numbers_set_aside(&queue), [0; 0]);
        clock.advance(VISIBILITY);
    }
    assert_eq!(counts(&queue), []);
    assert_eq!(numbers_set_aside(&queue), [1, 2, 3]);
    let aside = &queue.set_aside().unwrap()[0];
    assert_eq!((aside.shard_id, aside.receive_count), (S0, 3));
    assert_eq!(queue.stream().get(S0, aside.sequence_number).unwrap().data(), b"1");
    assert_eq!(queue.describe().unwrap().shards[0].set_aside, 3);
    assert_eq!(queue.describe().unwrap().shards[0].floor, number(4));

    assert!(queue.restore(S0, number(2)).unwrap());
    assert!(!queue.restore(S0, number(2)).unwrap() && !queue.restore(S0, number(0)).unwrap());
    assert!(queue.discard(S0, number(1)).unwrap());
    assert!(!queue.discard(S0, number(1)).unwrap() && !queue.discard(S1, number(1)).unwrap());
    assert_eq!(counts(&queue), [(2, 1)], "counted anew");
    assert_eq!(queue.restore_all().unwrap(), 1);
    assert_eq!(queue.restore_all().unwrap(), 0);
    assert_eq!(counts(&queue), [(3, 1)]);
    clock.advance(VISIBILITY);
    assert_eq!(counts(&queue), [(2, 2), (3, 2)]);
}

#[test]
fn who_gives_back_the_last_receive_has_it_set_aside_and_who_is_late_can_still_acknowledge() {
    let (_disk, clock, queue) = queue(2, options().max_receives(1));
    let received = receive(&queue, 2);
    queue.give_back(&received[0]).unwrap();
    assert_eq!(numbers_set_aside(&queue), [0]);
    clock.advance(VISIBILITY);
    assert_eq!(numbers_set_aside(&queue), [0, 1]);
    assert!(is_over(&queue.change_visibility(&received[1], SECOND), 1), "it is nobody's any more");
    queue.acknowledge(&received[1]).unwrap();
    assert_eq!(numbers_set_aside(&queue), [0]);
    queue.restore_all().unwrap();
    assert!(is_over(&queue.acknowledge(&received[0]), 0), "restored: whoever gets it now");

    let never = queue.stream().queue("never", options().max_receives(None)).unwrap();
    for round in 1..=50 {
        assert_eq!(counts(&never), [(0, round), (1, round)]);
        clock.advance(VISIBILITY);
    }
    assert!(never.set_aside().unwrap().is_empty());
}

#[test]
fn bounds_hold_back_what_is_new_and_what_is_set_aside() {
    let (_disk, clock, queue) = queue(6, options().max_unacknowledged(3).max_set_aside(2).max_receives(2));
    let received = receive(&queue, 10);
    assert_eq!(received.len(), 3);
    assert_eq!(counts(&queue), []);
    queue.acknowledge(&received[1]).unwrap();
    assert_eq!(counts(&queue), [(3, 1)]);
    queue.give_back(&received[0]).unwrap();
    assert_eq!(counts(&queue), [(0, 2)], "what was received before comes all the same");
    for _ in 0..4 {
        clock.advance(VISIBILITY);
        let _ = counts(&queue);
    }
    assert_eq!(numbers_set_aside(&queue).len(), 2);
    let shard = &queue.describe().unwrap().shards[0];
    assert_eq!((shard.visible + shard.in_flight, shard.next, shard.new), (3, number(6), 0));
    clock.advance(VISIBILITY);
    assert!(counts(&queue).iter().all(|(_, count)| *count > 2), "there is no room for more: they come again");
}

#[test]
fn who_waits_is_woken_by_what_it_waits_for() {
    let (_directory, stream) = stream(builder());
    let queue = stream.queue("orders", options().max_unacknowledged(2)).unwrap();
    let waiting = |queue: &Queue| {
        let queue = queue.clone();
        thread::spawn(move || queue.receive(1, DEADLINE).unwrap().remove(0))
    };
    let thread = waiting(&queue);
    put_to(&stream, S0, "key", b"first");
    let first = thread.join().unwrap();
    assert_eq!(first.record.data(), b"first");
    let thread = waiting(&queue);
    queue.give_back(&first).unwrap();
    let first = thread.join().unwrap();
    assert_eq!((first.record.data(), first.receive_count), (b"first".as_slice(), 2));
    // Its time runs out while somebody waits.
    queue.change_visibility(&first, Duration::from_millis(20)).unwrap();
    let first = waiting(&queue).join().unwrap();
    assert_eq!(first.receive_count, 3);
    // There is no room for a new one until this one is acknowledged.
    put_to(&stream, S0, "key", b"second");
    put_to(&stream, S0, "key", b"third");
    assert_eq!(receive(&queue, 10).len(), 1);
    let thread = waiting(&queue);
    queue.acknowledge(&first).unwrap();
    assert_eq!(thread.join().unwrap().record.data(), b"third");
    // The stream is closed.
    let thread = thread::spawn({
        let queue = queue.clone();
        move || queue.receive(1, DEADLINE)
    });
    stream.close().unwrap();
    assert!(matches!(thread.join().unwrap(), Err(Error::Closed)));
    assert!(matches!(queue.sync(), Err(Error::Closed)));
}

#[test]
fn threads_that_share_a_queue_acknowledge_each_record_once() {
    const RECORDS: usize = 2_000;
    let (_directory, stream) = stream(builder().shards(3).durability(Durability::Buffered));
    let queue = stream.queue("orders", options().visibility(DEADLINE * 10).max_unacknowledged(50)).unwrap();
    let done = AtomicUsize::new(0);
    let mut all = thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut mine = Vec::new();
                    while done.load(Ordering::SeqCst) < RECORDS {
                        for received in queue.receive(7, Duration::from_millis(20)).unwrap() {
                            assert_eq!(received.receive_count, 1);
                            queue.acknowledge(&received).unwrap();
                            mine.push((received.record.shard_id(), received.record.sequence_number()));
                            done.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                    mine
                })
            })
            .collect();
        for index in 0..RECORDS {
            stream.put(index.to_string(), b"data").unwrap();
            match index {
                500 => drop(stream.split_shard(S0, None).unwrap()),
                1_000 => {
                    let open = stream.open_shards();
                    stream.merge_shards(open[0], open[1]).unwrap();
                }
                _ if index % 20 == 0 => stream.sync().unwrap(),
                _ => {}
            }
        }
        stream.sync().unwrap();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(all.len(), RECORDS);
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), RECORDS, "each once");
    let shards = queue.describe().unwrap().shards;
    assert_eq!(shards.iter().filter(|shard| shard.is_finished).count(), 3);
    assert!(shards.iter().all(|shard| shard.floor == shard.next && shard.new == 0 && shard.in_flight == 0));
}

#[test]
fn where_a_queue_stands_is_found_again_after_a_close_and_its_receipts_are_over() {
    let (disk, clock, queue) = queue(6, options().max_receives(2));
    let received = receive(&queue, 4);
    queue.acknowledge(&received[0]).unwrap();
    queue.acknowledge(&received[2]).unwrap();
    queue.give_back(&received[1]).unwrap();
    let second = receive(&queue, 1);
    queue.give_back(&second[0]).unwrap();
    assert_eq!(numbers_set_aside(&queue), [1]);
    let stream = queue.stream().clone();
    drop(queue);
    stream.close().unwrap();

    let stream = open_again(&disk, &clock);
    assert_eq!(stream.queues().unwrap(), ["orders"]);
    let queue = stream.queue("orders", options().max_receives(2)).unwrap();
    assert!(is_over(&queue.acknowledge(&received[3]), 3));
    assert_eq!(numbers_set_aside(&queue), [1]);
    let shard = &queue.describe().unwrap().shards[0];
    assert_eq!((shard.floor, shard.next, shard.visible, shard.new), (number(3), number(4), 1, 2));
    assert_eq!(counts(&queue), [(3, 2), (4, 1), (5, 1)], "of those that were somebody's nobody has any");
    stream.close().unwrap();
    let stream = open_again(&disk, &clock);
    let queue = stream.queue("orders", options().max_receives(2)).unwrap();
    assert_eq!(numbers_set_aside(&queue), [1, 3], "received as often as it may be");
    assert_eq!(counts(&queue), [(4, 2), (5, 2)]);
}

#[test]
fn handles_share_a_queue_for_as_long_as_the_stream_is_open() {
    let (_disk, clock, queue) = queue(2, options());
    let stream = queue.stream().clone();
    let received = receive(&queue, 1);
    drop(queue);
    let queue = stream.queue("orders", options().visibility(SECOND)).unwrap();
    assert_eq!(counts(&queue), [(1, 1)]);
    queue.acknowledge(&received[0]).unwrap();
    clock.advance(SECOND);
    assert_eq!(counts(&queue.clone()), [(1, 2)], "each handle has its own options");
    let other = stream.queue("mails", options()).unwrap();
    assert_eq!(counts(&other), [(0, 1), (1, 1)]);
    assert!(is_over(&other.acknowledge(&received[0]), 0), "of another queue");
    assert_eq!(stream.queues().unwrap(), ["mails", "orders"]);

    stream.delete_queue("orders").unwrap();
    assert!(matches!(queue.receive(1, NOW), Err(Error::QueueNotFound(name)) if name == "orders"));
    assert!(matches!(queue.sync(), Err(Error::QueueNotFound(_))));
    assert_eq!(stream.delete_queue("orders").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(stream.queues().unwrap(), ["mails"]);
    let queue = stream.queue("orders", options()).unwrap();
    assert!(is_over(&queue.acknowledge(&received[0]), 0), "of one that was deleted");
    assert_eq!(counts(&queue), [(0, 1), (1, 1)], "made anew");
    stream.sync().unwrap();
}

#[test]
fn a_queue_starts_where_it_is_told_and_gets_all_of_later_shards() {
    let (disk, clock, stream) = simulated(builder());
    clock.advance(SECOND);
    fill(&stream, 2);
    clock.advance(SECOND);
    let time = clock.now();
    fill(&stream, 2);
    let latest = stream.queue("latest", options().start(RecordsStart::Latest)).unwrap();
    let timed = stream.queue("timed", options().start(RecordsStart::AtTimestamp(time))).unwrap();
    let to_come = options().start(RecordsStart::AtTimestamp(Timestamp::from_millis(time.as_millis() + 1)));
    assert_eq!(stream.queue("to_come", to_come).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!((counts(&latest), counts(&timed)), (vec![], vec![(2, 1), (3, 1)]));
    let (left, _) = stream.split_shard(S0, None).unwrap();
    put_to(&stream, left, "key", b"child's");
    assert_eq!(latest.receive(10, NOW).unwrap()[0].record.data(), b"child's");
    stream.close().unwrap();
    // Its start counts only where it is made.
    let stream = open_again(&disk, &clock);
    let latest = stream.queue("latest", options().start(RecordsStart::TrimHorizon)).unwrap();
    assert_eq!(counts(&latest), [(4, 2)]);
}

#[test]
fn shards_of_all_ages_are_read_and_finished_without_an_order() {
    let (_disk, clock, stream) = simulated(builder());
    fill(&stream, 2);
    let queue = stream.queue("orders", options()).unwrap();
    let (left, right) = stream.split_shard(S0, None).unwrap();
    put_to(&stream, right, "key", b"right");
    put_to(&stream, left, "key", b"left");
    let received = receive(&queue, 10);
    let found: BTreeSet<_> = received.iter().map(|one| one.record.data()).collect();
    assert_eq!(found, BTreeSet::from([b"0".as_slice(), b"1", b"right", b"left"]));
    let is_finished =
        |queue: &Queue| queue.describe().unwrap().shards.iter().map(|shard| shard.is_finished).collect::<Vec<_>>();
    assert_eq!(is_finished(&queue), [false, false, false]);
    for received in &received {
        queue.acknowledge(received).unwrap();
    }
    assert_eq!(is_finished(&queue), [true, false, false]);
    clock.advance(VISIBILITY);
    assert_eq!(counts(&queue), []);
}

#[test]
fn a_queue_keeps_nothing_longer_than_retention_does() {
    let (_disk, _clock, stream) = simulated(builder().shards(2).segment_bytes(4096));
    let queue = stream.queue("orders", options().max_receives(1)).unwrap();
    fill_large(&stream, S0, 30);
    let received = receive(&queue, 3);
    queue.give_back(&received[0]).unwrap(); // set aside
    queue.change_visibility(&received[1], NOW).unwrap();
    let twice = stream.queue("twice", options()).unwrap();
    let again = twice.receive(2, NOW).unwrap();
    twice.give_back(&again[0]).unwrap();
    stream.trim_shard(S0, number(20)).unwrap();
    let horizon = crate::support::numbers_from(&stream, S0, crate::support::HORIZON)[0];
    assert!(horizon > 3);
    assert_eq!(numbers_set_aside(&queue), [0; 0]);
    assert_eq!(queue.restore_all().unwrap(), 0);
    queue.acknowledge(&received[2]).unwrap();
    let expected: Vec<_> = (horizon..30).map(|number| (number, 1)).collect();
    let left = counts(&twice);
    assert!(!left.iter().any(|(at, _)| *at == 0), "the one that was given back is gone");
    assert!(
        left.ends_with(&expected),
        "perhaps behind what is left of the segment that its reader holds: {left:?}"
    );
    twice.acknowledge(&again[1]).unwrap();
    assert_eq!(counts(&queue), expected);
}

#[test]
fn shards_that_expire_leave_nothing_behind() {
    let (_disk, clock, stream) = simulated(builder().retention(Duration::from_secs(3600)));
    fill(&stream, 3);
    let queue = stream.queue("orders", options().max_receives(1)).unwrap();
    let received = receive(&queue, 2);
    queue.give_back(&received[0]).unwrap();
    stream.split_shard(S0, None).unwrap();
    let _ = stream.maintain();
    for _ in 0..4 {
        clock.advance(Duration::from_secs(3601));
        stream.maintain().unwrap();
    }
    assert!(stream.shards().iter().all(|shard| shard.shard_id != S0));
    assert!(queue.set_aside().unwrap().is_empty());
    assert!(is_over(&queue.acknowledge(&received[1]), 1));
    assert_eq!(counts(&queue), []);
    assert_eq!(queue.describe().unwrap().shards.len(), 2);
}

#[test]
fn records_of_a_buffered_stream_are_given_once_they_are_durable() {
    let (disk, clock, stream) = simulated(builder().durability(Durability::Buffered));
    let queue = stream.queue("orders", options()).unwrap();
    fill(&stream, 3);
    assert_eq!(counts(&queue), []);
    let latest = stream.queue("latest", options().start(RecordsStart::Latest)).unwrap();
    let crashed = disk.crash(Crash::PowerLost { seed: 7 });
    drop((queue, latest, stream));
    let stream = open_again(&crashed, &clock);
    assert_eq!(crate::support::read_all(&stream, S0).len(), 3, "a queue that starts at the tail makes it durable");
    let queue = stream.queue("orders", options()).unwrap();
    assert_eq!(counts(&queue), [(0, 1), (1, 1), (2, 1)]);
    assert_eq!(counts(&stream.queue("latest", options()).unwrap()), []);
}

#[test]
fn receipts_are_texts() {
    let (_disk, _clock, queue) = queue(1, options());
    let receipt = receive(&queue, 1)[0].receipt;
    assert_eq!((receipt.shard_id(), receipt.sequence_number()), (S0, number(0)));
    let text = receipt.to_string();
    assert_eq!(text.parse::<Receipt>().unwrap(), receipt);
    for wrong in ["", "-", "1-2-3", "1-2-3-", "0-0-1-1-1", "+0-0-1-1", "00-0-1-1", "0-0-1-A", "100000000-0-1-1"] {
        assert!(wrong.parse::<Receipt>().is_err(), "{wrong:?}");
    }
    assert!(is_over(&queue.acknowledge("0-0-1-0".parse::<Receipt>().unwrap()), 0));
    queue.acknowledge(text.parse::<Receipt>().unwrap()).unwrap();
}

#[test]
fn bad_use_is_told() {
    let (directory, path) = place();
    let stream = builder().create(&path).unwrap();
    for name in ["", ".", "..", "a/b", "~a", &"n".repeat(129)] {
        assert_eq!(stream.queue(name, options()).unwrap_err().kind(), ErrorKind::InvalidInput, "{name:?}");
        assert_eq!(stream.delete_queue(name).unwrap_err().kind(), ErrorKind::InvalidInput, "{name:?}");
    }
    let half_a_day = Duration::from_secs(12 * 3600);
    let wrong = [
        options().visibility(half_a_day + Duration::from_millis(1)),
        options().max_receives(0),
        options().max_unacknowledged(0),
        options().max_unacknowledged(MAX_QUEUE_UNACKNOWLEDGED + 1),
        options().max_set_aside(MAX_QUEUE_SET_ASIDE + 1),
        options().sync_changes(0),
    ];
    for options in wrong {
        let error = stream.queue("orders", options.clone()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{options:?}");
    }
    assert!(stream.queues().unwrap().is_empty());
    let queue = stream.queue("orders", options().visibility(half_a_day)).unwrap();
    for max in [0, MAX_QUEUE_RECEIVE + 1] {
        assert_eq!(queue.receive(max, NOW).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    assert_eq!(queue.receive_for(1, NOW, half_a_day * 2).unwrap_err().kind(), ErrorKind::InvalidInput);
    let reader = builder().open_read_only(&path).unwrap();
    assert!(matches!(reader.queue("orders", options()), Err(Error::ReadOnly)));
    assert!(matches!(reader.delete_queue("orders"), Err(Error::ReadOnly)));
    assert_eq!(reader.queues().unwrap(), ["orders"]);
    stream.close().unwrap();
    assert!(matches!(queue.receive(1, NOW), Err(Error::Closed)));
    assert!(matches!(queue.set_aside(), Err(Error::Closed)));
    drop(directory);
}

#[test]
fn a_queue_writes_after_so_many_changes_and_when_it_is_told() {
    let (disk, clock, queue) = queue(10, options().sync_changes(3));
    let writes = || disk.operations_of(Operation::Rename);
    let before = writes();
    let received = receive(&queue, 2);
    assert_eq!(writes(), before);
    queue.acknowledge(&received[0]).unwrap();
    assert_eq!(writes(), before + 1);
    queue.sync().unwrap();
    assert_eq!(writes(), before + 1, "nothing changed");
    queue.acknowledge(&received[1]).unwrap();
    queue.stream().sync().unwrap();
    assert_eq!(writes(), before + 2);
    let eager = queue.stream().queue("orders", options().sync_changes(1)).unwrap();
    assert_eq!(receive(&eager, 1).len(), 1);
    assert_eq!(writes(), before + 3, "received, and counted before it is given");
    assert_eq!(receive(&eager, 1).len(), 1);
    let lost = disk.crash(Crash::PowerLost { seed: 3 });
    let stream = open_again(&lost, &clock);
    assert_eq!(counts(&stream.queue("orders", options()).unwrap())[..3], [(2, 2), (3, 2), (4, 1)]);
}

#[test]
fn what_cannot_be_written_is_told_and_written_later() {
    let (disk, clock, queue) = queue(4, options().sync_changes(1));
    let received = receive(&queue, 1);
    let fail = || disk.fail_on(Operation::Rename, 0, DiskFault::Error(std::io::ErrorKind::Other));
    fail();
    assert_eq!(queue.acknowledge(&received[0]).unwrap_err().kind(), ErrorKind::Io);
    assert!(is_over(&queue.acknowledge(&received[0]), 0), "it is acknowledged here");
    fail();
    assert_eq!(queue.receive(2, NOW).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(counts(&queue), [(1, 1), (2, 1), (3, 1)], "those that were not given can be had");
    let stream = queue.stream().clone();
    drop(queue);
    stream.close().unwrap();
    let stream = open_again(&disk, &clock);
    assert_eq!(counts(&stream.queue("orders", options()).unwrap()), [(1, 2), (2, 2), (3, 2)]);
}

/// However often that happens: nobody had them.
#[test]
fn what_was_received_and_could_not_be_given_is_not_set_aside() {
    let (disk, _clock, queue) = queue(4, options().sync_changes(1).max_receives(1));
    let fail = || disk.fail_on(Operation::Rename, 0, DiskFault::Error(std::io::ErrorKind::Other));
    for _ in 0..3 {
        fail();
        assert_eq!(queue.receive(4, NOW).unwrap_err().kind(), ErrorKind::Io);
        assert_eq!(numbers_set_aside(&queue), [0; 0]);
    }
    let received = receive(&queue, 4);
    assert_eq!(received.iter().map(|received| received.receive_count).collect::<Vec<_>>(), [1; 4]);
    for received in &received {
        queue.give_back(received).unwrap();
    }
    // What is set aside stays so, and can be received there at once.
    fail();
    assert_eq!(queue.receive_set_aside(4, VISIBILITY).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(numbers_set_aside(&queue), [0, 1, 2, 3]);
    let received = queue.receive_set_aside(4, VISIBILITY).unwrap();
    assert_eq!(received.iter().map(|received| received.receive_count).collect::<Vec<_>>(), [2; 4]);
}

#[test]
fn damage_is_told_and_a_repair_sets_the_file_aside() {
    let (disk, clock, queue) = queue(2, options());
    let _ = counts(&queue);
    let stream = queue.stream().clone();
    drop(queue);
    stream.close().unwrap();
    let storage = || Arc::new(disk.clone());
    let verified = || verify("stream", VerifyOptions { storage: Some(storage()), ..Default::default() });
    assert!(verified().unwrap().is_sound());
    let file = Path::new("stream/queues/orders");
    for at in [200, 8] {
        disk.damage(file, |bytes| bytes[at] ^= 2).unwrap();
        let stream = open_again(&disk, &clock);
        assert!(matches!(stream.queue("orders", options()), Err(Error::Corrupt(damage)) if damage.path == file));
        stream.close().unwrap();
        assert_eq!(verified().unwrap().damage.len(), 1, "byte {at}");
        let report = repair("stream", Some(storage())).unwrap();
        assert_eq!(report.set_aside.len(), 1, "byte {at}");
        assert!(verified().unwrap().is_sound(), "byte {at}");
        let stream = open_again(&disk, &clock);
        assert_eq!(counts(&stream.queue("orders", options()).unwrap()), [(0, 1), (1, 1)], "byte {at}");
        stream.close().unwrap();
    }
    // What follows the last known version is refused by its own error.
    disk.damage(file, |bytes| {
        let checksum = bytes.len() - 4;
        say_version(bytes, 2, checksum);
    })
    .unwrap();
    let stream = open_again(&disk, &clock);
    assert!(matches!(stream.queue("orders", options()), Err(Error::UnsupportedVersion { found: 2, .. })));
    stream.delete_queue("orders").unwrap();
    assert_eq!(counts(&stream.queue("orders", options()).unwrap()), [(0, 1), (1, 1)]);
}

#[test]
fn the_background_thread_keeps_it() {
    let (disk, clock) = (SimulatedDisk::new(), Arc::new(ManualClock::default()));
    let stream = Stream::builder()
        .flush_interval(Duration::from_millis(5))
        .storage(Arc::new(disk.clone()))
        .clock(clock.clone())
        .create("stream")
        .unwrap();
    fill(&stream, 2);
    let queue = stream.queue("orders", options()).unwrap();
    queue.acknowledge(&receive(&queue, 1)[0]).unwrap();
    let found = |disk: &SimulatedDisk| {
        let stream = open_again(disk, &clock);
        counts(&stream.queue("orders", options()).unwrap())
    };
    eventually("the thread writes it", || found(&disk.fork(Crash::PowerLost { seed: 1 })) == [(1, 1)]);
}

/// Any sequence of calls, against a plain account of every record.
#[test]
fn random_use_agrees_with_a_plain_account() {
    for seed in 0..20 {
        let mut random = crate::support::Mixer(seed);
        let (_disk, clock, queue) = queue(12, options().max_receives(3));
        let mut held: BTreeMap<u64, (Receipt, Duration)> = BTreeMap::new();
        let (mut done, mut received_last) = (BTreeSet::new(), BTreeMap::new());
        for _ in 0..300 {
            let now = clock.monotonic();
            match random.next() % 8 {
                0 | 1 => {
                    for received in receive(&queue, 1 + usize::try_from(random.next() % 4).unwrap()) {
                        let at = received.record.sequence_number().get();
                        assert!(!done.contains(&at), "seed {seed}: {at} was acknowledged");
                        let before = held.insert(at, (received.receipt, now + VISIBILITY));
                        assert!(before.is_none_or(|(_, until)| until <= now), "seed {seed}: {at} is somebody's");
                        let count = received_last.entry(at).or_insert(0);
                        *count += 1;
                        assert_eq!(received.receive_count, *count, "seed {seed}: {at}");
                        assert!(*count <= 3);
                    }
                }
                2 | 3 => clock.advance(Duration::from_secs(random.next() % 20)),
                4 => {
                    for aside in queue.set_aside().unwrap() {
                        let at = aside.sequence_number.get();
                        assert_eq!(received_last[&at], 3);
                        if random.coin() {
                            assert!(queue.restore(S0, aside.sequence_number).unwrap());
                            held.remove(&at);
                            received_last.insert(at, 0);
                        }
                    }
                }
                choice => {
                    let Some((at, (receipt, until))) =
                        held.iter().nth(usize::try_from(random.next() % 4).unwrap())
                    else {
                        continue;
                    };
                    let (at, receipt, until) = (*at, *receipt, *until);
                    if choice == 5 {
                        queue.acknowledge(receipt).unwrap();
                        done.insert(at);
                        held.remove(&at);
                    } else if received_last[&at] < 3 || until > now {
                        let visibility = if choice == 6 { NOW } else { SECOND * 40 };
                        queue.change_visibility(receipt, visibility).unwrap();
                        held.insert(at, (receipt, now + visibility));
                    }
                }
            }
        }
        // Nothing is lost: what is not done comes, or is set aside.
        clock.advance(VISIBILITY * 10);
        queue.restore_all().unwrap();
        let left: BTreeSet<_> = counts(&queue).iter().map(|(at, _)| *at).collect();
        assert_eq!(left, (0..12).filter(|at| !done.contains(at)).collect(), "seed {seed}");
    }
}

/// As after an older copy of the shards was put back: what gets the numbers of lost records is not taken for them.
#[test]
fn a_queue_that_stands_behind_the_tail_goes_on_at_the_tail() {
    for acknowledged in [6, 8] {
        goes_on_at_the_tail(acknowledged);
    }
}

fn goes_on_at_the_tail(acknowledged: usize) {
    let (disk, clock, queue) = queue(5, options());
    for received in receive(&queue, 2) {
        queue.acknowledge(&received).unwrap();
    }
    let stream = queue.stream().clone();
    drop(queue);
    stream.close().unwrap();
    let older = disk.fork(Crash::ProcessKilled);

    let stream = open_again(&disk, &clock);
    fill(&stream, 5);
    let queue = stream.queue("orders", options()).unwrap();
    let received = receive(&queue, 100);
    assert_eq!(received.len(), 8);
    for received in &received[..acknowledged] {
        queue.acknowledge(received).unwrap();
    }
    drop(queue);
    stream.close().unwrap();
    let file = disk.read_file(Path::new("stream/queues/orders")).unwrap();
    older.damage(Path::new("stream/queues/orders"), |bytes| *bytes = file).unwrap();

    let stream = open_again(&older, &clock);
    assert_eq!(counts(&stream.queue("orders", options()).unwrap()), []);
    fill(&stream, 2);
    let older = older.crash(Crash::ProcessKilled); // before anything else is kept
    drop(stream);
    for _ in 0..2 {
        let stream = open_again(&older, &clock);
        fill(&stream, 1);
        let older = older.fork(Crash::ProcessKilled);
        drop(stream);
        let stream = open_again(&older, &clock);
        let found: Vec<_> =
            counts(&stream.queue("orders", options()).unwrap()).iter().map(|(number, _)| *number).collect();
        assert!(found.starts_with(&[5, 6, 7]), "{found:?}");
    }
}

/// With the records that it holds set aside.
fn set_aside(count: u64) -> (SimulatedDisk, Arc<ManualClock>, Queue) {
    let (disk, clock, queue) = queue(count, options().max_receives(1));
    for received in receive(&queue, 100) {
        queue.give_back(&received).unwrap();
    }
    (disk, clock, queue)
}

/// The numbers of up to 100 records that are set aside, and how often each was received.
fn counts_aside(queue: &Queue) -> Vec<(u64, u32)> {
    let place = |received: &Received| (received.record.sequence_number().get(), received.receive_count);
    queue.receive_set_aside(100, VISIBILITY).unwrap().iter().map(place).collect()
}

#[test]
fn what_is_set_aside_is_received_by_one_at_a_time_too_and_done_held_or_put_back() {
    let (_disk, clock, queue) = set_aside(4);
    let first_received = clock.now();
    clock.advance(SECOND);
    let received = queue.receive_set_aside(3, VISIBILITY).unwrap();
    assert_eq!(received.iter().map(|one| one.record.data()).collect::<Vec<_>>(), [b"0", b"1", b"2"]);
    assert_eq!((received[0].receive_count, received[0].first_received), (2, first_received));
    assert_eq!(counts_aside(&queue), [(3, 2)], "the others are somebody's");
    assert_eq!(counts(&queue), [], "and set aside");
    assert_eq!(numbers_set_aside(&queue), [0, 1, 2, 3]);
    queue.acknowledge(&received[0]).unwrap();
    queue.restore_received(&received[1]).unwrap();
    assert!(is_over(&queue.restore_received(&received[1]), 1), "it is not set aside any more");
    queue.change_visibility(&received[2], VISIBILITY * 2).unwrap();
    assert_eq!(numbers_set_aside(&queue), [2, 3]);
    assert_eq!(counts(&queue), [(1, 1)], "counted anew");
    clock.advance(VISIBILITY);
    assert_eq!(counts_aside(&queue), [(1, 2), (3, 3)], "set aside again, and visible again");
    queue.give_back(&received[2]).unwrap();
    assert_eq!(counts_aside(&queue), [(2, 3)]);
    assert!(is_over(&queue.acknowledge(&received[2]), 2), "somebody else has it");
    assert!(is_over(&queue.change_visibility(&received[2], SECOND), 2));
    assert!(is_over(&queue.restore_received(&received[2]), 2));
    assert_eq!(queue.receive_set_aside(0, NOW).unwrap_err().kind(), ErrorKind::InvalidInput);
    let too_long = Duration::from_hours(12) + SECOND;
    assert_eq!(queue.receive_set_aside(1, too_long).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn only_who_received_what_is_set_aside_puts_it_back() {
    let (_disk, clock, queue) = queue(2, options().max_receives(1));
    let received = receive(&queue, 2);
    assert!(is_over(&queue.restore_received(&received[0]), 0), "it is in flight");
    clock.advance(VISIBILITY);
    assert!(is_over(&queue.restore_received(&received[0]), 0), "it was set aside since");
    assert!(is_over(&queue.change_visibility(&received[0], SECOND), 0));
    let aside = queue.receive_set_aside(1, VISIBILITY).unwrap();
    clock.advance(VISIBILITY * 2);
    queue.restore_received(&aside[0]).unwrap(); // its time is over, but nobody else has it
    assert_eq!(counts(&queue), [(0, 1)]);
}

/// Receipts are counted anew in each opening: the same number, for the same record, is another receipt.
#[test]
fn a_receipt_of_an_earlier_opening_is_over_though_its_number_is_given_again() {
    let (disk, clock, queue) = queue(1, options());
    let earlier = receive(&queue, 1)[0].receipt;
    let disk = disk.crash(Crash::ProcessKilled);
    drop(queue);
    let queue = open_again(&disk, &clock).queue("orders", options().max_receives(1)).unwrap();
    let current = receive(&queue, 1)[0].receipt;
    let number = |receipt: Receipt| receipt.to_string().rsplit('-').next().map(str::to_owned);
    assert_eq!(number(earlier), number(current));
    assert!(is_over(&queue.acknowledge(earlier), 0));
    assert!(is_over(&queue.change_visibility(earlier, SECOND), 0));
    assert!(is_over(&queue.give_back(earlier), 0));
    assert_eq!(counts(&queue), [], "nothing was changed");
    // And so it is of what is received from those that are set aside.
    queue.give_back(current).unwrap();
    let aside = queue.receive_set_aside(1, VISIBILITY).unwrap()[0].receipt;
    let stream = queue.stream().clone();
    drop(queue);
    stream.close().unwrap();
    let queue = open_again(&disk, &clock).queue("orders", options().max_receives(1)).unwrap();
    let _ = queue.stream().queue("another", options()).unwrap().receive(1, NOW).unwrap(); // so that the numbers are the same
    let current = queue.receive_set_aside(1, VISIBILITY).unwrap()[0].receipt;
    assert_eq!(number(aside), number(current));
    assert!(is_over(&queue.restore_received(aside), 0));
    queue.restore_received(current).unwrap();
}

#[test]
fn what_is_set_aside_is_nobodys_after_the_stream_was_opened_again() {
    let (disk, clock, queue) = set_aside(2);
    let received = queue.receive_set_aside(2, VISIBILITY).unwrap();
    queue.acknowledge(&received[0]).unwrap();
    let stream = queue.stream().clone();
    drop(queue);
    stream.close().unwrap();
    let queue = open_again(&disk, &clock).queue("orders", options()).unwrap();
    assert!(is_over(&queue.restore_received(&received[1]), 1));
    assert_eq!(counts_aside(&queue), [(1, 3)]);
}

#[test]
fn a_receive_gives_so_many_bytes_or_one_record() {
    let (_disk, clock, stream) = simulated(builder());
    for bytes in [10, 20, 100, 5, 5] {
        put_to(&stream, S0, "k", &vec![0; bytes]);
    }
    let queue = stream.queue("orders", options().max_receive_bytes(32).max_receives(2)).unwrap();
    let lengths = |received: &[Received]| received.iter().map(|one| one.record.data().len()).collect::<Vec<_>>();
    let of_new = || lengths(&receive(&queue, 100));
    assert_eq!([of_new(), of_new(), of_new(), of_new()], [vec![10, 20], vec![100], vec![5, 5], vec![]]);
    clock.advance(VISIBILITY);
    assert_eq!([of_new(), of_new(), of_new(), of_new()], [vec![10, 20], vec![100], vec![5, 5], vec![]], "again");
    clock.advance(VISIBILITY);
    let aside = || lengths(&queue.receive_set_aside(100, VISIBILITY).unwrap());
    assert_eq!([aside(), aside(), aside(), aside()], [vec![10, 20], vec![100], vec![5, 5], vec![]], "set aside");
    assert_eq!(queue.set_aside().unwrap().iter().map(|one| one.receive_count).collect::<Vec<_>>(), [3; 5]);
}

#[test]
fn news_are_told_without_a_wait() {
    let (_disk, clock, stream) = simulated(builder());
    let queue = stream.queue("orders", options().max_receives(1).max_unacknowledged(2)).unwrap();
    assert!(queue.has_news(), "nobody has looked yet");
    let is_silent = || counts(&queue).is_empty() && !queue.has_news() && !queue.has_set_aside();
    assert!(is_silent());
    put_to(&stream, S0, "key", b"one");
    assert!(queue.has_news());
    let first = receive(&queue, 1);
    assert!(is_silent());
    let (left, _) = stream.split_shard(S0, None).unwrap();
    assert!(queue.has_news(), "new shards");
    assert!(is_silent());
    put_to(&stream, left, "key", b"two");
    assert!(queue.has_news());
    let second = receive(&queue, 1);
    put_to(&stream, left, "key", b"three");
    assert!(!queue.has_news(), "there are as many in flight as may be");
    stream.split_shard(left, None).unwrap();
    assert!(!queue.has_news(), "nor are new shards any news then");
    queue.acknowledge(&second[0]).unwrap();
    assert_eq!(counts(&queue), [(2, 1)]);
    clock.advance(VISIBILITY);
    assert!(queue.has_news() && queue.has_set_aside(), "their time is over, whatever comes of it");
    assert!(counts(&queue).is_empty() && !queue.has_news() && queue.has_set_aside());
    assert_eq!(counts_aside(&queue), [(0, 2), (2, 2)]);
    assert!(is_silent());
    queue.restore_received(&first[0]).unwrap_err();
    clock.advance(VISIBILITY);
    assert!(!queue.has_news() && queue.has_set_aside());
    stream.delete_queue("orders").unwrap();
    assert!(queue.has_news() && queue.has_set_aside(), "its end is news");
}

/// Who finds it open, and then not there, makes it anew: with its start.
#[test]
fn a_queue_that_is_deleted_while_it_is_opened_begins_where_it_was_told() {
    let (_disk, _clock, stream) = simulated(builder());
    fill(&stream, 5);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                match stream.delete_queue("orders") {
                    Ok(()) | Err(Error::QueueNotFound(_)) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
        });
        for _ in 0..3_000 {
            let queue = stream.queue("orders", options().start(RecordsStart::Latest)).unwrap();
            match queue.receive(1, NOW) {
                Ok(received) => assert!(received.is_empty(), "{received:?}"),
                Err(Error::QueueNotFound(_)) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
        is_over.store(true, Ordering::SeqCst);
    });
}

/// What is sound in front of it is received first.
#[test]
fn damage_is_told_where_a_queue_comes_to_it() {
    let stream = damaged_in_the_middle(|stream| drop(stream.queue("orders", options()).unwrap()));
    let queue = stream.queue("orders", options()).unwrap();
    assert_eq!(receive(&queue, 3).len(), 3);
    let mut count = 3;
    let told = loop {
        match queue.receive(10, NOW) {
            Ok(received) if received.is_empty() => break false,
            Ok(received) => count += received.len(),
            Err(Error::Corrupt(_)) => break true,
            Err(error) => panic!("{error:?}"),
        }
    };
    assert!(told && count > 10, "{count}");
}

/// In two shards, beside a third one that is damaged.
#[test]
fn each_loss_is_told_once_whatever_is_met_beside_it() {
    let (disk, clock, stream) = simulated(builder().shards(3));
    for shard_id in [S0, S1, S2] {
        put_to(&stream, shard_id, "key", b"to be lost");
    }
    drop(stream.queue("orders", options()).unwrap());
    stream.close().unwrap();
    for shard_id in [S1, S2] {
        damage_on(&disk, shard_id, b"to be lost");
    }
    repair("stream", Some(Arc::new(disk.clone()))).unwrap();
    damage_on(&disk, S0, b"to be lost");
    let stream = open_again(&disk, &clock);
    let queue = stream.queue("orders", options()).unwrap();
    let (mut damaged, mut lost) = (0, Vec::new());
    for _ in 0..10 {
        match queue.receive(10, NOW) {
            Err(Error::Corrupt(_)) => damaged += 1,
            Err(Error::Lost { shard_id, .. }) => lost.push(shard_id),
            other => panic!("{other:?}"),
        }
    }
    lost.sort_unstable();
    assert_eq!((damaged, lost), (8, vec![S1, S2]));
}

#[test]
fn damage_keeps_no_other_record_set_aside() {
    let once = || options().max_receives(1);
    let stream = damaged_in_the_middle(|stream| {
        let queue = stream.queue("orders", once()).unwrap();
        queue.give_back(&receive(&queue, 1)[0]).unwrap();
    });
    let queue = stream.queue("orders", once()).unwrap();
    assert_eq!(numbers_set_aside(&queue), [0]);
    let received = queue.receive_set_aside(1, VISIBILITY).unwrap();
    assert_eq!(received[0].record.sequence_number().get(), 0);
    queue.restore_received(&received[0]).unwrap();
    assert_eq!(receive(&queue, 1)[0].record.sequence_number().get(), 0);
}

/// A stream with large records, closed and opened again with one of its older segments damaged, and with a clock that is believed: what has
/// expired is looked for among its segments.
fn damaged_in_the_middle(prepare: impl Fn(&Stream)) -> Stream {
    let (disk, clock, stream) = simulated(builder().segment_bytes(4096));
    fill_large(&stream, S0, 40);
    prepare(&stream);
    stream.close().unwrap();
    let mut segments: Vec<_> = disk.list(Path::new("stream/shards/000000000000")).unwrap();
    segments.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    let middle = Path::new("stream/shards/000000000000").join(&segments[segments.len() / 2].name);
    disk.damage(&middle, |bytes| {
        let end = bytes.len();
        bytes[end - 100] ^= 1;
    })
    .unwrap();
    let stream = open_again(&disk, &clock);
    for _ in 0..3 {
        stream.enforce_retention().unwrap();
        clock.advance(2 * SECOND);
    }
    stream
}

/// Put under another name, or into another stream: what it says is of other records.
#[test]
fn a_file_of_another_queue_or_stream_is_refused() {
    let (disk, clock, stream) = simulated(builder());
    fill(&stream, 3);
    for name in ["one", "other"] {
        let queue = stream.queue(name, options()).unwrap();
        queue.receive(1, NOW).unwrap().iter().for_each(|received| queue.acknowledge(received).unwrap());
        queue.sync().unwrap();
    }
    stream.close().unwrap();
    let elsewhere = builder().storage(Arc::new(disk.clone())).clock(clock.clone()).create("elsewhere").unwrap();
    elsewhere.queue("other", options()).unwrap().sync().unwrap();
    elsewhere.close().unwrap();
    let file_of =
        |stream: &str, queue: &str| disk.read_file(&Path::new(stream).join("queues").join(queue)).unwrap();
    for foreign in [file_of("stream", "one"), file_of("elsewhere", "other")] {
        let disk = disk.fork(Crash::ProcessKilled);
        disk.damage(Path::new("stream/queues/other"), |bytes| bytes.clone_from(&foreign)).unwrap();
        let report =
            verify("stream", VerifyOptions { storage: Some(Arc::new(disk.clone())), progress: None }).unwrap();
        assert_eq!(report.damage.len(), 1, "{report:?}");
        let stream = builder().storage(Arc::new(disk)).clock(clock.clone()).open_existing("stream").unwrap();
        assert_eq!(stream.queue("other", options()).unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(receive(&stream.queue("one", options()).unwrap(), 3).len(), 2);
    }
}

/// A record that was received and is damaged since counts as received: the others are given beside it, it is told where it is alone, and it is set aside in the end.
#[test]
fn a_record_that_cannot_be_read_again_is_set_aside() {
    let (disk, clock, stream) = simulated(builder().segment_bytes(4096));
    fill_large(&stream, S0, 12);
    let queue = stream.queue("orders", options()).unwrap();
    assert_eq!(receive(&queue, 2).len(), 2);
    drop(queue);
    stream.close().unwrap();
    let first = Path::new("stream/shards/000000000000").join(format!("{:020}.seg", 0));
    disk.damage(&first, |bytes| bytes[128 + 60] ^= 1).unwrap();
    let stream = open_again(&disk, &clock);
    let queue = stream.queue("orders", options().max_receives(3)).unwrap();
    let rest = receive(&queue, 100);
    assert_eq!(
        rest.iter().map(|one| one.record.sequence_number().get()).collect::<Vec<_>>(),
        (1..12).collect::<Vec<_>>()
    );
    for one in &rest {
        queue.acknowledge(one).unwrap();
    }
    let told = |outcome: anabranch::Result<Vec<Received>>| matches!(outcome, Err(Error::Corrupt(damage)) if damage.path == first);
    assert_eq!(counts(&queue), [], "it is invisible for as long as others are");
    clock.advance(VISIBILITY);
    assert!(told(queue.receive(100, NOW)));
    assert_eq!(counts(&queue), [], "and again");
    clock.advance(VISIBILITY);
    assert_eq!(counts(&queue), []);
    let aside = queue.set_aside().unwrap();
    assert_eq!((aside.len(), aside[0].sequence_number, aside[0].receive_count), (1, number(0), 3));
    assert!(told(queue.receive_set_aside(1, VISIBILITY)));
    assert!(queue.receive_set_aside(1, VISIBILITY).unwrap().is_empty());
    assert!(queue.discard(S0, number(0)).unwrap());
    assert_eq!(queue.describe().unwrap().shards[0].floor, number(12));
}
