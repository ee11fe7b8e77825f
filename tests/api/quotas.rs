//! Quotas: what passes, what is refused for how long, and that nothing is lost or skipped by a refusal.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use anabranch::{
    Clock, Durability, Error, ErrorKind, HashKey, Limits, ManualClock, Pipeline, PutEntry, PutOptions, PutReceipt,
    Quota, Quotas, RecordsStart, ShardIterator, SimulatedDisk, Stream, Timestamp, Work, WorkerOptions,
};

use crate::support::{HORIZON, S0, S1, builder, put_to, read_stream, simulated};

/// The service's, with records of up to 10 MiB.
fn limits() -> Limits {
    Limits { max_data_bytes: 10 << 20, max_batch_bytes: 20 << 20, ..Limits::kinesis() }
}

/// Everything but the quotas.
fn free(stream: &Stream) {
    stream.set_quotas(Quotas::none());
}

fn throttled(shards: u32) -> (SimulatedDisk, Arc<ManualClock>, Stream) {
    simulated(builder().shards(shards).limits(limits()))
}

fn of(count: u64) -> Option<NonZeroU64> {
    NonZeroU64::new(count)
}

/// Which quota refused it, and for how long.
#[track_caller]
fn refusal<T: std::fmt::Debug>(outcome: Result<T, Error>) -> (Quota, Duration) {
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Throttled);
    match error {
        Error::ThroughputExceeded { quota, retry_after, .. } => (quota, retry_after),
        other => panic!("{other}"),
    }
}

/// To the first shard.
fn put_low(stream: &Stream) -> Result<PutReceipt, Error> {
    stream.put_with("key", b"", PutOptions::new().explicit_hash_key(HashKey::MIN))
}

fn records_in(stream: &Stream) -> u64 {
    stream.metrics().records_in
}

#[test]
fn nothing_is_throttled_by_default() {
    let (_disk, _clock, stream) = simulated(builder());
    assert_eq!(stream.quotas(), Quotas::none());
    for _ in 0..3_000 {
        stream.put("key", [0; 1_000]).unwrap();
    }
    assert_eq!(read_stream(&stream).len(), 3_000);
}

#[test]
fn a_thousand_records_a_second_may_be_put_to_a_shard() {
    let (_disk, clock, stream) = throttled(2);
    for _ in 0..1_000 {
        put_to(&stream, S0, "key", b"");
    }
    let (quota, wait) = refusal(put_low(&stream));
    assert_eq!((quota, wait), (Quota::WriteRecords, Duration::from_millis(1)));
    put_to(&stream, S1, "key", b""); // another shard
    clock.advance(Duration::from_millis(500));
    let passed = (0..1_000).take_while(|_| put_low(&stream).is_ok());
    assert_eq!(passed.count(), 500);
    assert_eq!(records_in(&stream), 1_501);
    clock.advance(Duration::from_secs(3_600));
    let passed = (0..2_000).take_while(|_| put_low(&stream).is_ok());
    assert_eq!(passed.count(), 1_000, "what is not used is not saved up");
}

#[test]
fn a_mebibyte_a_second_may_be_put_to_a_shard() {
    let (_disk, clock, stream) = throttled(1);
    stream.put("k", vec![0; (1 << 19) - 1]).unwrap();
    stream.put("k", vec![0; (1 << 18) - 1]).unwrap();
    let (quota, wait) = refusal(stream.put("k", vec![0; 1 << 18]));
    assert_eq!((quota, wait), (Quota::WriteBytes, Duration::from_millis(1)), "the key counts");
    stream.put("k", vec![0; (1 << 18) - 1]).unwrap();
    let (_, wait) = refusal(stream.put("k", vec![0; (1 << 19) - 1]));
    assert_eq!(wait, Duration::from_millis(500));
    clock.advance(wait);
    stream.put("k", vec![0; (1 << 19) - 1]).unwrap();
}

#[test]
fn what_is_larger_than_a_second_passes_by_itself_and_is_paid_for() {
    let (_disk, clock, stream) = throttled(1);
    stream.put("k", b"").unwrap();
    let large = vec![0; (10 << 20) - 1];
    let (quota, wait) = refusal(stream.put("k", &large));
    assert_eq!((quota, wait), (Quota::WriteBytes, Duration::from_millis(1)), "only a full bucket lets it pass");
    clock.advance(wait);
    stream.put("k", &large).unwrap();
    let (_, wait) = refusal(stream.put("k", b""));
    assert_eq!(wait, Duration::from_millis(9_001), "10 MiB and a byte, of which a second's worth may be owed");
    clock.advance(Duration::from_secs(9));
    refusal(stream.put("k", b""));
    clock.advance(Duration::from_millis(1));
    stream.put("k", b"").unwrap();
    refusal(stream.put("k", &large));
}

#[test]
fn a_batch_passes_whole_or_not_at_all() {
    let (_disk, clock, stream) = throttled(2);
    for _ in 0..999 {
        put_to(&stream, S1, "key", b"");
    }
    let to = |key: HashKey| PutEntry { explicit_hash_key: Some(key), ..PutEntry::new("key", b"") };
    let batch = [to(HashKey::MIN), to(HashKey::MAX), to(HashKey::MAX)];
    let before = records_in(&stream);
    assert_eq!(refusal(stream.put_batch(&batch)).0, Quota::WriteRecords);
    let mut producer = stream.producer("p").unwrap();
    assert_eq!(refusal(producer.put_batch(1, &batch)).0, Quota::WriteRecords);
    assert_eq!(producer.last_batch().unwrap(), None);
    assert_eq!(records_in(&stream), before);
    stream.put_batch(&batch[..2]).unwrap(); // what was refused was not counted
    clock.advance(Duration::from_millis(2));
    producer.put_batch(1, &batch).unwrap();
    assert_eq!(records_in(&stream), before + 5);
}

#[test]
fn each_record_of_many_has_an_outcome_and_order_is_kept() {
    let (_disk, clock, stream) = throttled(2);
    stream.set_quotas(Quotas { write_bytes: of(100), ..Quotas::none() });
    let data: Vec<_> = [30, 60, 30, 1, 9].map(|bytes| vec![b'x'; bytes]).into();
    let entry = |index: usize, key| PutEntry { explicit_hash_key: Some(key), ..PutEntry::new("k", &data[index]) };
    let (low, high) = (HashKey::MIN, HashKey::MAX);
    let mut left =
        vec![entry(0, low), entry(1, high), entry(1, low), entry(2, low), entry(3, low), entry(4, high)];
    let outcomes = stream.put_each(&left, Durability::Synced).unwrap();
    let taken: Vec<_> = outcomes.iter().map(Result::is_ok).collect();
    // The fourth would be over it; the fifth would have room, but comes behind it.
    assert_eq!(taken, [true, true, true, false, false, true]);
    for outcome in outcomes.into_iter().filter(Result::is_err) {
        assert_eq!(refusal(outcome), (Quota::WriteBytes, Duration::from_millis(230)));
    }
    left = vec![left[3], left[4]];
    clock.advance(Duration::from_millis(230));
    assert!(stream.put_each(&left, Durability::Synced).unwrap()[0].is_ok());
    clock.advance(Duration::from_secs(1));
    assert!(stream.put_each(&left[1..], Durability::Synced).unwrap()[0].is_ok());
    let lengths: Vec<_> = stream
        .shard_iterator(S0, HORIZON)
        .unwrap()
        .available()
        .map(|record| record.unwrap().data().len())
        .collect();
    assert_eq!(lengths, [30, 60, 30, 1]);

    let none = PutEntry::new("", b"");
    let error = stream.put_each(&[left[0], none], Durability::Synced).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "one that is invalid takes all along");
    assert_eq!(records_in(&stream), 6);
}

#[test]
fn threads_together_pass_no_more_than_the_quota() {
    let (_disk, _clock, stream) = simulated(builder().durability(Durability::Buffered));
    stream.set_quotas(Quotas::kinesis());
    let passed = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..500 {
                    passed.fetch_add(u64::from(stream.put("key", b"").is_ok()), Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(passed.into_inner(), 1_000);
    assert_eq!(records_in(&stream), 1_000);
}

/// All that a call gives, and what it met.
fn call(iterator: &mut ShardIterator) -> Result<usize, Error> {
    let mut given = 0;
    for record in iterator.available() {
        match record {
            Ok(_) => given += 1,
            Err(error) if given == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(given)
}

#[test]
fn five_calls_a_second_are_shared_by_all_readers() {
    let (_disk, clock, stream) = throttled(1);
    let mut readers = [(); 2].map(|()| stream.shard_iterator(S0, HORIZON).unwrap());
    for _ in 0..100 {
        assert_eq!(call(&mut readers[0]).unwrap(), 0, "looks that find nothing cost nothing");
    }
    for round in 0..5 {
        stream.put("key", b"").unwrap();
        assert_eq!(call(&mut readers[0]).unwrap(), 1, "{round}");
    }
    stream.put("key", b"").unwrap();
    let wait = Duration::from_millis(200);
    assert_eq!(refusal(call(&mut readers[0])), (Quota::ReadCalls, wait));
    assert_eq!(refusal(call(&mut readers[1])), (Quota::ReadCalls, wait));
    assert_eq!(refusal(readers[1].next_batch().map(|batch| batch.len())), (Quota::ReadCalls, wait));
    assert_eq!(refusal(readers[1].next_timeout(Duration::ZERO)), (Quota::ReadCalls, wait));
    assert_eq!(refusal(readers[1].follow().next().unwrap()), (Quota::ReadCalls, wait));
    let mut all = stream.records(RecordsStart::TrimHorizon).unwrap();
    assert_eq!(refusal(all.available().next().unwrap()), (Quota::ReadCalls, wait));
    clock.advance(wait);
    assert_eq!(call(&mut readers[1]).unwrap(), 6, "nothing was skipped");
    clock.advance(wait);
    assert_eq!(all.next_batch().unwrap().len(), 6);
    assert!(all.next_timeout(Duration::ZERO).unwrap().is_none());
    clock.advance(wait);
    assert_eq!(call(&mut readers[0]).unwrap(), 1);
    // Whoever waits comes to the tail, too.
    clock.advance(Duration::from_secs(1));
    for round in 0..5 {
        stream.put("key", b"").unwrap();
        if round < 3 {
            assert!(readers[0].next_timeout(Duration::ZERO).unwrap().is_some());
            assert!(readers[0].next_timeout(Duration::ZERO).unwrap().is_none());
        } else {
            assert!(all.next_timeout(Duration::ZERO).unwrap().is_some());
            while all.next_timeout(Duration::ZERO).unwrap().is_some() {}
        }
    }
    stream.put("key", b"").unwrap();
    assert_eq!(refusal(readers[0].next_timeout(Duration::ZERO)), (Quota::ReadCalls, wait));
    assert_eq!(refusal(all.next_timeout(Duration::ZERO)), (Quota::ReadCalls, wait));
    clock.advance(Duration::from_secs(1));
    assert_eq!(call(&mut readers[0]).unwrap(), 3);
    // In the batch form as well, a call ends at the tail.
    clock.advance(Duration::from_secs(1));
    for _ in 0..5 {
        stream.put("key", b"").unwrap();
        assert_eq!(readers[0].next_batch().unwrap().len(), 1);
        assert_eq!(readers[0].next_batch().unwrap().len(), 0);
    }
    stream.put("key", b"").unwrap();
    assert_eq!(refusal(readers[0].next_batch().map(|batch| batch.len())), (Quota::ReadCalls, wait));
}

#[test]
fn readers_of_the_whole_stream_are_counted() {
    let (_disk, clock, stream) = throttled(1);
    free(&stream);
    for _ in 0..72 {
        stream.put("k", vec![0; (1 << 16) - 1]).unwrap(); // several are verified at once
    }
    stream.set_quotas(Quotas::kinesis());
    let mut all = stream.records(RecordsStart::TrimHorizon).unwrap();
    assert_eq!(all.available().take(64).map(Result::unwrap).count(), 64);
    let mut reader = stream.shard_iterator(S0, HORIZON).unwrap();
    assert_eq!(refusal(call(&mut reader)), (Quota::ReadBytes, Duration::from_secs(2)));
    clock.advance(Duration::from_secs(2));
    assert_eq!(call(&mut reader).unwrap(), 72);
}

#[test]
fn a_call_can_be_counted_that_gives_nothing() {
    let (_disk, clock, stream) = throttled(1);
    let mut reader = stream.shard_iterator(S0, HORIZON).unwrap();
    for _ in 0..5 {
        reader.begin_call().unwrap();
        assert_eq!(call(&mut reader).unwrap(), 0);
    }
    assert_eq!(refusal(reader.begin_call()).0, Quota::ReadCalls);
    clock.advance(Duration::from_millis(200));
    stream.put("key", b"").unwrap();
    reader.begin_call().unwrap();
    assert_eq!(call(&mut reader).unwrap(), 1, "it is the one that was begun");
    assert_eq!(refusal(reader.begin_call()).0, Quota::ReadCalls);
    free(&stream);
    reader.begin_call().unwrap();

    stream.set_quotas(Quotas::kinesis());
    for _ in 0..7 {
        stream.put("key", b"").unwrap();
    }
    for _ in 0..5 {
        reader.begin_call().unwrap(); // the one before goes on
        assert_eq!(reader.next_records(1).unwrap().len(), 1);
    }
    assert_eq!(refusal(reader.begin_call()).0, Quota::ReadCalls);
}

#[test]
fn two_mebibytes_a_second_are_read_and_more_are_paid_for() {
    let (_disk, clock, stream) = throttled(1);
    free(&stream);
    for _ in 0..12 {
        stream.put("k", vec![0; (1 << 20) - 1]).unwrap();
    }
    stream.set_quotas(Quotas::kinesis());
    let mut readers = [(); 2].map(|()| stream.shard_iterator(S0, HORIZON).unwrap());
    assert_eq!(readers[0].next_records(1).unwrap().len(), 1);
    assert_eq!(readers[1].next_records(1).unwrap().len(), 1);
    // What they were given together is a second's.
    let mut third = stream.shard_iterator(S0, HORIZON).unwrap();
    assert_eq!(refusal(call(&mut third)), (Quota::ReadBytes, Duration::from_secs(1)));
    clock.advance(Duration::from_secs(1));
    assert_eq!(call(&mut third).unwrap(), 10, "a call ends behind 10 MiB");
    assert_eq!(refusal(call(&mut third)), (Quota::ReadBytes, Duration::from_secs(5)));
    clock.advance(Duration::from_millis(4_999));
    assert_eq!(refusal(call(&mut third)).1, Duration::from_millis(1));
    clock.advance(Duration::from_millis(1));
    assert_eq!(call(&mut third).unwrap(), 2);
}

#[test]
fn a_call_gives_ten_thousand_records() {
    let (_disk, clock, stream) = simulated(builder().durability(Durability::Buffered));
    let batch: Vec<_> = (0..8_000).map(|_| PutEntry::new("k", b"")).collect();
    for _ in 0..3 {
        stream.put_batch(&batch).unwrap();
    }
    stream.set_quotas(Quotas { shared_read_calls: of(1), ..Quotas::none() });
    let mut reader = stream.shard_iterator(S0, HORIZON).unwrap();
    for given in [10_000, 10_000, 4_000] {
        assert_eq!(call(&mut reader).unwrap(), given);
        clock.advance(Duration::from_secs(1));
    }
    // The batch form as well.
    let mut reader = stream.shard_iterator(S0, HORIZON).unwrap();
    let mut given = 0;
    while let Ok(batch) = reader.next_batch() {
        given += batch.len();
    }
    assert_eq!(given, 10_000);
}

/// Before each record, also where several are verified at once, and through segments.
#[test]
fn a_look_at_the_next_record_costs_nothing() {
    let (_disk, clock, stream) = simulated(builder().segment_bytes(4_096));
    stream.set_quotas(Quotas { shared_read_calls: of(1), shared_read_bytes: of(1_000), ..Quotas::none() });
    let sizes: Vec<_> = (0..50).map(|number| number * 20).collect();
    for size in &sizes {
        stream.put("key", vec![0; *size]).unwrap();
    }
    let mut reader = stream.shard_iterator(S0, HORIZON).unwrap();
    for size in sizes {
        for _ in 0..3 {
            assert_eq!(reader.next_record_bytes().unwrap(), Some(3 + size));
        }
        clock.advance(Duration::from_secs(1)); // pays for one record
        let record = reader.next_records(1).unwrap().pop().unwrap();
        assert_eq!(record.data().len(), size);
    }
    assert_eq!(reader.next_record_bytes().unwrap(), None, "and a call ends at the tail");
    stream.put("key", b"").unwrap();
    assert_eq!(reader.next_records(1).unwrap().len(), 1);
    assert_eq!(reader.next_record_bytes().unwrap(), None);
    stream.put("key", b"").unwrap();
    assert_eq!(refusal(reader.next_records(1)).0, Quota::ReadCalls);
    assert_eq!(reader.next_record_bytes().unwrap(), Some(3), "whoever may not read may look");
}

#[test]
fn dedicated_readers_have_a_quota_of_their_own() {
    let (_disk, clock, stream) = throttled(2);
    free(&stream);
    for _ in 0..10 {
        put_to(&stream, S0, "k", &vec![0; (1 << 20) - 1]);
        put_to(&stream, S1, "k", &vec![0; (1 << 20) - 1]);
    }
    stream.set_quotas(Quotas::kinesis());
    let dedicated =
        |shard_id, name: &str| stream.shard_iterator(shard_id, HORIZON).unwrap().dedicated(name).unwrap();
    let mut a = dedicated(S0, "a");
    for second in 0..4 {
        assert_eq!(call(&mut a).unwrap(), 2, "{second}");
        assert_eq!(refusal(call(&mut a)), (Quota::ReadBytes, Duration::from_secs(1)));
        assert_eq!(refusal(call(&mut dedicated(S0, "a"))).0, Quota::ReadBytes, "all of this name");
        assert_eq!(call(&mut dedicated(S0, &format!("b{second}"))).unwrap(), 2, "another consumer");
        clock.advance(Duration::from_secs(1));
    }
    assert_eq!(call(&mut dedicated(S1, "a")).unwrap(), 2, "another shard");
    assert_eq!(call(&mut stream.shard_iterator(S0, HORIZON).unwrap()).unwrap(), 10, "all others");
    assert_eq!(call(&mut a).unwrap(), 2);
    let iterator = stream.shard_iterator(S0, HORIZON).unwrap();
    assert_eq!(iterator.dedicated("no name").unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn workers_wait_for_their_quota_and_lose_nothing() {
    for dedicated in [false, true] {
        let (_disk, clock, stream) = throttled(2);
        free(&stream);
        let mut expected = Vec::new();
        for number in 0..40_u8 {
            let shard_id = if number % 2 == 0 { S0 } else { S1 };
            put_to(&stream, shard_id, "k", &vec![number; 1 << 18]);
            expected.push(number);
        }
        stream.set_quotas(Quotas::kinesis());
        let consumer = stream.consumer("c").unwrap();
        let mut worker = consumer.worker("w", WorkerOptions::new().dedicated(dedicated)).unwrap();
        let (mut handled, mut waits) = (Vec::new(), 0);
        while handled.len() < expected.len() {
            match worker.poll().unwrap() {
                Some(Work::Records { records, .. }) => {
                    handled.extend(records.iter().map(|record| record.data()[0]));
                }
                Some(_) => {}
                None => {
                    clock.advance(Duration::from_millis(100));
                    waits += 1;
                }
            }
        }
        handled.sort_unstable();
        assert_eq!(handled, expected);
        // A dedicated one is given 2 MiB a second; a shared one 5 MiB in its first call.
        assert_eq!(waits > 5, dedicated, "{waits}");
    }
}

#[test]
fn a_batching_producer_waits_and_keeps_the_order() {
    let (_disk, clock, stream) = simulated(builder().shards(2));
    stream.set_quotas(Quotas { write_records: of(100), ..Quotas::none() });
    let producer = stream.batching_producer().linger(Duration::ZERO).start().unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                clock.advance(Duration::from_millis(10));
                thread::yield_now();
            }
        });
        for number in 0..2_000 {
            producer.put(format!("key-{}", number % 7), number.to_string()).unwrap();
        }
        producer.flush().unwrap();
        done.store(true, Ordering::Relaxed);
    });
    let mut last = std::collections::BTreeMap::new();
    let records = read_stream(&stream);
    assert_eq!(records.len(), 2_000);
    for record in records {
        let number: u32 = std::str::from_utf8(record.data()).unwrap().parse().unwrap();
        assert!(last.insert(record.partition_key().to_owned(), number) < Some(number));
    }
}

#[test]
fn a_batching_producer_that_waits_is_told_when_the_stream_closes() {
    let (_disk, _clock, stream) = simulated(builder());
    stream.set_quotas(Quotas { write_records: of(1), ..Quotas::none() });
    let producer = stream.batching_producer().linger(Duration::ZERO).start().unwrap();
    producer.put("key", b"").unwrap().wait().unwrap();
    let waits = producer.put("key", b"").unwrap();
    stream.close().unwrap(); // the clock stands still
    assert!(matches!(waits.wait(), Err(Error::Closed)));
}

#[test]
fn pipelines_go_on_behind_a_refusal_of_either_side() {
    let (_disk, clock, input) = simulated(builder());
    let (_other, _, _) = simulated(builder());
    let directory = tempfile::tempdir().unwrap();
    let output = builder().clock(clock.clone()).create(directory.path().join("output")).unwrap();
    for number in 0..200 {
        input.put("key", number.to_string()).unwrap();
    }
    input.set_quotas(Quotas { shared_read_bytes: of(100), ..Quotas::none() });
    output.set_quotas(Quotas { write_records: of(20), ..Quotas::none() });
    let consumer = input.consumer("c").unwrap();
    let mut pipeline = Pipeline::new(&consumer, &output, "w").unwrap().batch_records(20);
    let (mut done, mut refused) = (0, 0);
    while done < 200 {
        match pipeline.step(|record, outputs| outputs.put(record.partition_key(), record.data())) {
            Ok(records) => done += records,
            Err(Error::ThroughputExceeded { retry_after, .. }) => {
                clock.advance(retry_after);
                refused += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(refused > 5, "{refused}");
    let copied: Vec<_> = read_stream(&output).iter().map(|record| record.data().to_vec()).collect();
    assert_eq!(copied, (0..200).map(|number| number.to_string().into_bytes()).collect::<Vec<_>>());
}

/// What of a batch does not fit is not read again, which the quota might never allow; nor does a repeat need room.
#[test]
fn pipelines_with_too_much_output_read_their_input_once() {
    let (_disk, clock, input) = simulated(builder());
    for number in 0..64 {
        input.put("key", number.to_string()).unwrap();
    }
    let directory = tempfile::tempdir().unwrap();
    let small = Limits { max_batch_records: 8, ..Limits::default() };
    let output = builder().limits(small).create(directory.path().join("output")).unwrap();
    input.set_quotas(Quotas { shared_read_calls: of(1), ..Quotas::none() });
    let consumer = input.consumer("c").unwrap();
    let mut pipeline = Pipeline::new(&consumer, &output, "w").unwrap().batch_records(64);
    let (mut done, mut refused) = (0, 0);
    while done < 64 {
        match pipeline.step(|record, outputs| {
            outputs.put(record.partition_key(), record.data());
            outputs.put(record.partition_key(), record.data());
        }) {
            Ok(records) => done += records,
            Err(Error::ThroughputExceeded { retry_after, .. }) => {
                clock.advance(retry_after);
                refused += 1;
                assert!(refused < 10, "it comes to nothing");
            }
            Err(error) => panic!("{error}"),
        }
    }
    let copied: Vec<_> = read_stream(&output).iter().map(|record| record.data().to_vec()).collect();
    let twice = |number: u32| [number.to_string().into_bytes(), number.to_string().into_bytes()];
    assert_eq!(copied, (0..64).flat_map(twice).collect::<Vec<_>>());
}

#[test]
fn queues_are_not_counted() {
    let (_disk, _clock, stream) = throttled(1);
    let queue = stream.queue("q", anabranch::QueueOptions::new()).unwrap();
    for _ in 0..30 {
        stream.put("key", b"").unwrap();
        assert_eq!(queue.receive(10, Duration::ZERO).unwrap().len(), 1);
    }
}

#[test]
fn quotas_are_of_the_open_stream_and_not_of_its_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("stream");
    let stream = builder().limits(Limits::kinesis()).create(&path).unwrap();
    assert_eq!((stream.limits(), stream.quotas()), (Limits::kinesis(), Quotas::kinesis()));
    assert_eq!(stream.describe().unwrap().limits, Limits::kinesis());
    stream.close().unwrap();
    let stream = builder().open(&path).unwrap();
    assert_eq!(stream.limits(), Limits { quotas: Quotas::none(), ..Limits::kinesis() });
    let other = stream.clone();
    other.set_quotas(Quotas::kinesis());
    assert_eq!(stream.quotas(), Quotas::kinesis(), "of all handles");
    stream.close().unwrap();
    drop(other);
    builder().limits(Limits { quotas: Quotas::none(), ..Limits::kinesis() }).open(&path).unwrap().close().unwrap();
    builder().limits(Limits::kinesis()).open(&path).unwrap().close().unwrap();
    let error = builder().limits(limits()).open(&path).unwrap_err();
    assert!(matches!(error, Error::OptionMismatch { option: "limits", .. }), "{error}");
}

#[test]
fn children_begin_with_full_buckets() {
    let (_disk, _clock, stream) = throttled(1);
    while stream.put("key", b"").is_ok() {}
    stream.split_shard(S0, Some(HashKey::new(1 << 127))).unwrap();
    for _ in 0..1_000 {
        stream.put("key", b"").unwrap();
    }
    refusal(stream.put("key", b""));
}

/// A clock at whose next reading something happens.
#[derive(Default)]
struct EventfulClock {
    next: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl std::fmt::Debug for EventfulClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventfulClock").finish_non_exhaustive()
    }
}

impl Clock for EventfulClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(0)
    }

    fn monotonic(&self) -> Duration {
        let next = self.next.lock().unwrap().take();
        if let Some(happens) = next {
            happens();
        }
        Duration::ZERO
    }
}

/// Its children have buckets of their own, which are full.
#[test]
fn behind_a_refused_record_nothing_of_its_key_passes_to_a_child_either() {
    let clock = Arc::new(EventfulClock::default());
    let storage = Arc::new(SimulatedDisk::new());
    let stream = builder().storage(storage).clock(clock.clone()).create("stream").unwrap();
    stream.set_quotas(Quotas { write_records: of(1), ..Quotas::none() });
    stream.put("key", b"0").unwrap();
    *clock.next.lock().unwrap() = Some(Box::new({
        let stream = stream.clone();
        move || {
            stream.split_shard(S0, None).unwrap();
        }
    }));
    let entries = [PutEntry::new("key", b"1"), PutEntry::new("key", b"2")];
    let outcomes = stream.put_each(&entries, Durability::Buffered).unwrap();
    assert_eq!(stream.open_shards().len(), 2, "it was split at the first one");
    assert!(
        outcomes.iter().all(|outcome| matches!(outcome, Err(Error::ThroughputExceeded { .. }))),
        "{outcomes:?}"
    );
}
