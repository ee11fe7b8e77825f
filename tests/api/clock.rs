//! A wall clock that goes wrong: backwards, years ahead, before 1970, at the ends of its range.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anabranch::{
    Batch, BatchFailure, Clock, Crash, Durability, Error, EventSourceOptions, ManualClock, Pipeline, Queue,
    QueueOptions, RecordsStart, RetentionPeriod, ShardIteratorType, SimulatedDisk, Stream, Timestamp, Work,
    WorkerOptions,
};

use crate::support::{HORIZON, S0, builder, drain, fill_large, number, numbers, put_to, read_stream, simulated};

const HOUR: Duration = Duration::from_secs(3_600);
const YEAR_MS: i64 = 365 * 86_400_000;
/// The ends, the middle, and their neighbours.
const EDGES: [i64; 11] = [
    i64::MIN,
    i64::MIN + 1,
    i64::MIN / 2,
    -50 * YEAR_MS,
    -1,
    0,
    1,
    1_767_225_600_000,
    4_102_444_800_000,
    i64::MAX - 1,
    i64::MAX,
];

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn hourly() -> anabranch::StreamBuilder {
    builder().segment_bytes(4096).retention(RetentionPeriod::hours(24))
}

fn assert_arrivals_never_fall(stream: &Stream) {
    for shard in stream.shards() {
        let records = drain(&mut stream.shard_iterator(shard.shard_id, HORIZON).unwrap());
        assert!(records.is_sorted_by_key(anabranch::Record::arrival), "{}", shard.shard_id);
    }
}

/// From any time to any other, everything that a stream does is done, and arrival times never fall.
#[test]
fn any_time_may_follow_any_other() {
    for first in EDGES {
        for second in EDGES {
            let clock = Arc::new(ManualClock::at(at(first)));
            let disk = SimulatedDisk::new();
            let opening =
                |options: anabranch::StreamBuilder| options.storage(Arc::new(disk.clone())).clock(clock.clone());
            // Unlimited: what is hidden by age at a wrong time is another test's.
            let stream =
                opening(builder().segment_bytes(4096).retention(RetentionPeriod::Unlimited)).create("/s").unwrap();
            fill_large(&stream, S0, 8);
            clock.set(at(second));
            fill_large(&stream, S0, 8);
            for time in EDGES {
                let mut iterator = stream.shard_iterator(S0, ShardIteratorType::AtTimestamp(at(time))).unwrap();
                let expected = read_stream(&stream).iter().filter(|record| record.arrival() >= at(time)).count();
                assert_eq!(drain(&mut iterator).len(), expected, "{first} {second} {time}");
            }
            let (lower, upper) = stream.split_shard(S0, None).unwrap();
            put_to(&stream, lower, "key", b"child");
            clock.set(at(first));
            put_to(&stream, upper, "key", b"child");
            stream.merge_shards(lower, upper).unwrap();
            stream.put("key", b"grandchild").unwrap();
            stream.enforce_retention().unwrap();
            stream.describe().unwrap();
            let before: Vec<_> = read_stream(&stream).iter().map(|record| record.data().to_vec()).collect();
            assert_eq!(before.len(), 19);
            stream.close().unwrap();
            clock.set(at(second));
            let stream = opening(builder()).open_existing("/s").unwrap();
            let after: Vec<_> = read_stream(&stream).iter().map(|record| record.data().to_vec()).collect();
            assert_eq!(after, before);
            stream.put("key", b"reopened").unwrap();
            assert_arrivals_never_fall(&stream);
            stream.close().unwrap();
        }
    }
}

/// With retention by age, at any time: no panic, and the wrong time alone removes nothing.
#[test]
fn no_leap_deletes_at_once() {
    for first in EDGES {
        for second in EDGES {
            let (_disk, clock, stream) = simulated(hourly());
            clock.set(at(first));
            fill_large(&stream, S0, 20);
            stream.enforce_retention().unwrap(); // the first look after an opening is not believed anyway
            clock.advance(Duration::from_secs(2));
            assert_eq!(stream.enforce_retention().unwrap().segments_removed, 0, "{first}, believed");
            clock.set(at(second));
            clock.advance(Duration::from_secs(2));
            let leaps = stream.enforce_retention().unwrap();
            assert_eq!(leaps.segments_removed, 0, "{first} {second}");
            clock.set(at(first));
            clock.advance(HOUR);
            assert_eq!(stream.enforce_retention().unwrap().segments_removed, 0, "{first} {second}, and back");
            stream.shard_iterator(S0, ShardIteratorType::AtTimestamp(at(second))).unwrap();
            assert_arrivals_never_fall(&stream);
            stream.close().unwrap();
        }
    }
}

/// A clock that is years ahead when the stream is opened, and is set right soon after, as at a boot without a time server.
#[test]
fn a_clock_that_leapt_before_the_opening_deletes_nothing_at_the_first_look() {
    let (disk, clock, stream) = simulated(hourly());
    let right = clock.now();
    fill_large(&stream, S0, 20);
    stream.close().unwrap();
    clock.set(at(right.as_millis() + 10 * YEAR_MS));
    let stream = builder().storage(Arc::new(disk)).clock(clock.clone()).open_existing("stream").unwrap();
    assert_eq!(stream.enforce_retention().unwrap().segments_removed, 0);
    clock.set(right);
    clock.advance(HOUR);
    assert_eq!(stream.enforce_retention().unwrap().segments_removed, 0);
    assert_eq!(read_stream(&stream).len(), 20);
    // What really is old goes.
    clock.advance(25 * HOUR);
    assert!(stream.enforce_retention().unwrap().segments_removed > 0);
}

/// While the clock is years ahead everything is hidden, as expired; set right, all is there again. Lengthening retention meanwhile
/// makes none of it final.
#[test]
fn a_leap_hides_nothing_for_good() {
    let (disk, clock, stream) = simulated(hourly());
    let right = clock.now();
    fill_large(&stream, S0, 20);
    clock.set(at(right.as_millis() + 10 * YEAR_MS));
    assert_eq!(read_stream(&stream).len(), 0);
    stream.increase_retention(RetentionPeriod::hours(48)).unwrap();
    clock.set(right);
    assert_eq!(read_stream(&stream).len(), 20);
    assert_eq!(stream.get(S0, number(0)).unwrap().data().len(), 500);
    stream.close().unwrap();
    let stream = builder().storage(Arc::new(disk)).clock(clock).open_existing("stream").unwrap();
    assert_eq!(read_stream(&stream).len(), 20);
}

/// A clock that goes back keeps records longer, never shorter; arrival times stand still until it has caught up.
#[test]
fn a_clock_that_goes_back_deletes_nothing() {
    let (_disk, clock, stream) = simulated(hourly());
    let right = clock.now();
    fill_large(&stream, S0, 20);
    clock.set(at(-YEAR_MS));
    clock.advance(30 * HOUR);
    fill_large(&stream, S0, 20);
    assert_eq!(stream.enforce_retention().unwrap().segments_removed, 0);
    let records = read_stream(&stream);
    assert_eq!(records.len(), 40);
    assert!(records.iter().all(|record| record.arrival() == right));
}

/// Years ahead of a time that the stream believes, and not at this moment only.
fn leap(clock: &ManualClock, stream: &Stream) {
    clock.advance(Duration::from_secs(2));
    assert_eq!(stream.enforce_retention().unwrap().segments_removed, 0);
    clock.set(at(clock.now().as_millis() + 10 * YEAR_MS));
    clock.advance(Duration::from_secs(2));
}

fn give_back_all(queue: &Queue) {
    for received in queue.receive(100, Duration::ZERO).unwrap() {
        queue.give_back(&received).unwrap();
    }
}

/// Whatever it is asked: a queue that has a record that is set aside, one that was given back, and others that are new; and one that is made meanwhile.
#[test]
fn a_leap_makes_no_queue_forget_anything() {
    let (disk, clock, stream) = simulated(hourly());
    let right = clock.now();
    fill_large(&stream, S0, 20);
    let asks: [fn(&Queue); 6] = [
        |queue| assert_eq!(queue.describe().unwrap().shards[0].new, 19),
        |queue| assert_eq!(queue.set_aside().unwrap().len(), 1),
        give_back_all,
        |queue| drop(queue.receive_set_aside(10, Duration::from_secs(9)).unwrap()),
        |queue| assert_eq!(queue.restore_all().unwrap(), 1),
        |queue| assert!(queue.restore(S0, number(0)).unwrap()),
    ];
    let queue = |name: usize, options| stream.queue(&name.to_string(), options).unwrap();
    for name in 0..asks.len() {
        let once = queue(name, QueueOptions::new().max_receives(1));
        once.give_back(&once.receive(1, Duration::ZERO).unwrap()[0]).unwrap();
        let often = queue(name, QueueOptions::new());
        often.give_back(&often.receive(1, Duration::ZERO).unwrap()[0]).unwrap();
    }
    leap(&clock, &stream);
    fill_large(&stream, S0, 1);
    for (name, ask) in asks.iter().enumerate() {
        ask(&queue(name, QueueOptions::new()));
    }
    let made = queue(asks.len(), QueueOptions::new());
    assert_eq!(made.describe().unwrap().shards[0].new, 21);
    clock.set(right);
    stream.close().unwrap();
    let stream = builder().storage(Arc::new(disk)).clock(clock.clone()).open_existing("stream").unwrap();
    let queue = |name: usize| stream.queue(&name.to_string(), QueueOptions::new()).unwrap();
    for name in 0..=asks.len() {
        let queue = queue(name);
        let left = queue.receive(100, Duration::ZERO).unwrap().len() + queue.set_aside().unwrap().len();
        assert_eq!(left, 21, "{name}");
    }
    // What really is old goes.
    clock.advance(25 * HOUR);
    for name in 0..=asks.len() {
        let queue = queue(name);
        assert_eq!(
            queue.receive(100, Duration::ZERO).unwrap().len(),
            1,
            "{name}: that of the leap is kept longer"
        );
        assert!(queue.set_aside().unwrap().is_empty(), "{name}");
    }
}

/// A shard without a record that was split and closed behind a clock that had been ahead: it stays as long as its parent has records, or its children
/// would be read beside them.
#[test]
fn a_clock_that_was_ahead_lets_no_shard_expire_before_its_parent() {
    let (_disk, clock, stream) = simulated(hourly());
    let right = clock.now();
    clock.advance(30 * HOUR);
    stream.put("key", b"first").unwrap();
    clock.set(right);
    let (mut child, other) = stream.split_shard(S0, None).unwrap();
    if stream.route("key").unwrap() == other {
        child = other;
    }
    stream.split_shard(child, None).unwrap();
    stream.put("key", b"second").unwrap();
    for _ in 0..3 {
        clock.advance(26 * HOUR / 3 + HOUR);
        assert_eq!(stream.enforce_retention().unwrap().shards_removed, []);
    }
    assert_eq!(stream.shards().len(), 5);
    let data: Vec<_> = read_stream(&stream).iter().map(|record| record.data().to_vec()).collect();
    assert_eq!(data, [b"first".to_vec(), b"second".to_vec()]);
}

/// What takes the place of a record that a power cut took is another record, however old the lost one was.
#[test]
fn a_queue_passes_nothing_that_is_not_durable() {
    let (disk, clock, stream) = simulated(hourly().durability(Durability::Buffered));
    let queue = stream.queue("q", QueueOptions::new()).unwrap();
    fill_large(&stream, S0, 5);
    clock.advance(25 * HOUR);
    assert!(queue.receive(100, Duration::ZERO).unwrap().is_empty());
    queue.describe().unwrap();
    queue.sync().unwrap();
    let mut reused = 0;
    for seed in 0..20 {
        let survivor = Arc::new(disk.fork(Crash::PowerLost { seed }));
        let stream = builder().storage(survivor).clock(clock.clone()).open_existing("stream").unwrap();
        fill_large(&stream, S0, 6);
        stream.sync().unwrap();
        let kept: Vec<_> = read_stream(&stream).iter().map(anabranch::Record::sequence_number).collect();
        reused += usize::from(kept[0] < number(5));
        let received = stream.queue("q", QueueOptions::new()).unwrap().receive(100, Duration::ZERO).unwrap();
        let received: Vec<_> = received.iter().map(|one| one.record.sequence_number()).collect();
        assert!(received.ends_with(&kept), "seed {seed}: {received:?} of {kept:?}");
    }
    assert!(reused > 0);
}

/// Wherever it stands, and whoever reads for it: a worker, a pipeline, an event source.
#[test]
fn a_leap_makes_no_consumer_skip_anything() {
    let (_disk, clock, stream) = simulated(hourly());
    let (_output, _, output) = simulated(builder());
    let right = clock.now();
    fill_large(&stream, S0, 20);
    let consumer = |name: &str| stream.consumer(name).unwrap();
    consumer("time").reset(RecordsStart::AtTimestamp(right)).unwrap();
    consumer("after").take(S0, "w").unwrap().checkpoint_at(number(3)).unwrap();
    consumer("after").take(S0, "w").unwrap().release().unwrap();
    leap(&clock, &stream);
    fill_large(&stream, S0, 1);
    for (name, first) in [("untouched", 0), ("time", 0), ("after", 4)] {
        let mut expected = first..21;
        assert!(numbers(&mut consumer(name).iterator(S0).unwrap()).into_iter().eq(expected.clone()), "{name}");
        let mut worker = consumer(name).worker("w", WorkerOptions::new().max_records(1)).unwrap();
        while let Some(work) = worker.poll().unwrap() {
            let Work::Records { records, .. } = work else { continue };
            assert_eq!(expected.next(), Some(records[0].sequence_number().get()), "{name}");
            worker.checkpoint(S0, &records[0]).unwrap();
        }
        assert_eq!(expected.next(), None, "{name}");
    }
    let mut pipeline = Pipeline::new(&consumer("pipeline"), &output, "w").unwrap();
    let copy = |record: &anabranch::Record, output: &mut anabranch::Outputs| output.put("key", record.data());
    assert_eq!(pipeline.step(copy).unwrap(), 21);
    let handled = AtomicUsize::new(0);
    let count = |batch: &mut Batch<'_>| -> Result<(), BatchFailure> {
        handled.fetch_add(batch.records().len(), Ordering::SeqCst);
        Ok(())
    };
    let mut source = consumer("source").event_source("w", EventSourceOptions::new()).unwrap();
    while source.step(&count).unwrap() > 0 {}
    assert_eq!(handled.load(Ordering::SeqCst), 21);
    // What is gone is gone, and what is left behind it is not.
    consumer("overtaken").take(S0, "w").unwrap().checkpoint_at(number(3)).unwrap();
    consumer("overtaken").take(S0, "w").unwrap().release().unwrap();
    stream.trim_shard(S0, number(12)).unwrap();
    let mut worker = consumer("overtaken").worker("w", WorkerOptions::new()).unwrap();
    assert!(matches!(worker.poll(), Ok(Some(Work::Started(_)))));
    assert!(matches!(worker.poll(), Err(Error::Trimmed { earliest, .. }) if earliest == number(12)));
    let Ok(Some(Work::Records { records, .. })) = worker.poll() else { panic!() };
    assert_eq!((records[0].sequence_number(), records.len()), (number(12), 9));
}
