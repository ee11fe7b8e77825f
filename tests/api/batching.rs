//! The batching producer: what becomes of each record, in which order, and how much may be under way.

use std::collections::BTreeMap;
use std::sync::{Arc, Barrier};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anabranch::storage::Operation;
use anabranch::{
    BatchingProducer, BatchingProducerBuilder, DiskFault, Durability, Error, HashKey, PutEntry, PutHandle,
    SimulatedDisk, Stream,
};

use crate::support::{FaultyClock, Mixer, S0, S1, builder, eventually, read_all, read_stream, simulated, stream};

/// Longer than any test lasts: what lingers for so long is not sent by itself.
const HOURS: Duration = Duration::from_secs(20 * 3_600);
const MOMENT: Duration = Duration::from_millis(20);

fn lazy(stream: &Stream) -> BatchingProducerBuilder {
    stream.batching_producer().linger(HOURS)
}

fn eager(stream: &Stream) -> BatchingProducer {
    stream.batching_producer().linger(Duration::ZERO).start().unwrap()
}

/// The half of the keys that the first of two shards takes, and the other one's.
const LOWER: HashKey = HashKey::MIN;
const UPPER: HashKey = HashKey::MAX;

fn put_at(producer: &BatchingProducer, at: HashKey, data: &[u8]) -> PutHandle {
    let entry = PutEntry { explicit_hash_key: Some(at), ..PutEntry::new("key", data) };
    producer.put_entry(&entry).unwrap()
}

fn expect_unresolved(handle: &PutHandle) {
    assert!(handle.try_wait().unwrap().is_none());
    assert!(handle.wait_timeout(MOMENT).unwrap().is_none());
}

#[test]
fn each_handle_gives_the_receipt_of_its_record() {
    for durability in [Durability::Buffered, Durability::Synced] {
        let (_directory, stream) = stream(builder().shards(4).durability(durability));
        let producer = stream.batching_producer().batch_records(7).start().unwrap();
        let texts: Vec<_> = (0..200).map(|index| format!("{index}-ä")).collect();
        let handles: Vec<_> =
            texts.iter().map(|text| producer.put(text, text.repeat(text.len())).unwrap()).collect();
        for (text, handle) in texts.iter().zip(&handles) {
            let receipt = handle.wait().unwrap();
            assert_eq!(handle.try_wait().unwrap(), Some(receipt), "as often as it is asked");
            assert_eq!(handle.clone().wait_timeout(Duration::ZERO).unwrap(), Some(receipt));
            let record = stream.get(receipt.shard_id, receipt.sequence_number).unwrap();
            assert_eq!(
                (record.partition_key(), record.data()),
                (text.as_str(), text.repeat(text.len()).as_bytes())
            );
            assert_eq!(record.arrival(), receipt.arrival);
        }
        assert!(stream.metrics().puts <= 4 * 200_u64.div_ceil(7) + 200, "several records a put");
        let explicit = put_at(&producer, UPPER, b"explicit").wait().unwrap();
        let record = stream.get(explicit.shard_id, explicit.sequence_number).unwrap();
        assert_eq!((record.explicit_hash_key(), record.data()), (Some(UPPER), b"explicit".as_slice()));
        assert_eq!(read_stream(&stream).len(), 201);
    }
}

#[test]
fn records_are_durable_when_their_handles_say_so() {
    let (disk, _, stream) = simulated(builder().durability(Durability::Buffered));
    let producer = lazy(&stream).durability(Durability::Synced).start().unwrap();
    stream.put("key", b"makes the segment").unwrap();
    let before = stream.metrics();
    let handles: Vec<_> = (0..50).map(|_| producer.put("key", b"data").unwrap()).collect();
    disk.stall_syncs(true);
    let flush = in_thread(&producer, |producer| producer.flush().unwrap());
    eventually("the batch is appended", || stream.metrics().records_in == 51);
    handles.iter().for_each(expect_unresolved);
    assert!(!flush.is_finished());
    disk.stall_syncs(false);
    flush.join().unwrap();
    assert!(handles.iter().all(|handle| handle.try_wait().unwrap().is_some()));
    let after = stream.metrics();
    assert_eq!((after.puts - before.puts, after.syncs - before.syncs), (1, 1), "one batch, one sync");
    assert_eq!(after.unsynced_records, 0);
}

fn in_thread<T: Send + 'static>(
    producer: &BatchingProducer,
    work: impl FnOnce(BatchingProducer) -> T + Send + 'static,
) -> JoinHandle<T> {
    let producer = producer.clone();
    thread::spawn(move || work(producer))
}

// ---- order ----

/// Each thread's records of a key, as the stream has them, parents before children.
fn assert_in_order(stream: &Stream, threads: u64, each: u64) {
    let mut next: BTreeMap<String, u64> = BTreeMap::new();
    let mut total = 0;
    for record in read_stream(stream) {
        let text = std::str::from_utf8(record.data()).unwrap();
        let (thread, index) = text.split_once(' ').unwrap();
        let next = next.entry(format!("{thread} {}", record.partition_key())).or_default();
        let index: u64 = index.parse().unwrap();
        assert!(*next <= index, "{text} of {} came behind {next}", record.partition_key());
        *next = index + 1;
        total += 1;
    }
    assert_eq!(total, threads * each, "none is lost, none is there twice");
}

#[test]
fn order_per_key_holds_through_batches_splits_and_merges() {
    const THREADS: u64 = 8;
    const EACH: u64 = 3_000;
    for durability in [Durability::Buffered, Durability::Synced] {
        let options = builder().shards(2).segment_bytes(32 << 10).durability(durability);
        let (_directory, stream) = stream(options);
        let producer = stream.batching_producer().batch_records(40).in_flight_records(200).start().unwrap();
        let start = Arc::new(Barrier::new(usize::try_from(THREADS).unwrap() + 1));
        let writers = (0..THREADS).map(|writer| {
            let start = Arc::clone(&start);
            in_thread(&producer, move |producer| {
                let mut mixer = Mixer(writer);
                start.wait();
                let put = |index| producer.put(format!("key-{}", mixer.next() % 16), format!("{writer} {index}"));
                (0..EACH).map(put).collect::<Result<Vec<_>, _>>().unwrap()
            })
        });
        let writers: Vec<_> = writers.collect();
        start.wait();
        let (mut mixer, mut reshards) = (Mixer(7), 0);
        while writers.iter().any(|writer| !writer.is_finished()) {
            let target = u32::try_from(mixer.next() % 6 + 1).unwrap();
            stream.update_shard_count(target).unwrap();
            reshards += 1;
            eventually("some more is written", || {
                stream.metrics().records_in > reshards * 500 || writers.iter().all(JoinHandle::is_finished)
            });
        }
        let handles: Vec<_> = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
        producer.flush().unwrap();
        assert_in_order(&stream, THREADS, EACH);
        for handle in handles.iter().step_by(17) {
            let receipt = handle.try_wait().unwrap().unwrap();
            assert!(stream.get(receipt.shard_id, receipt.sequence_number).is_ok());
        }
        assert!(stream.metrics().reshards > 2, "the shards changed meanwhile");
    }
}

// ---- when a batch is sent ----

#[test]
fn a_batch_gathers_until_it_is_full_or_flushed() {
    let (_, _, stream) = simulated(builder());
    let producer = lazy(&stream).batch_records(10).batch_bytes(1_000).start().unwrap();
    let by_count: Vec<_> = (0..10).map(|_| producer.put("key", b"data").unwrap()).collect();
    let last = by_count.last().unwrap().wait().unwrap();
    assert_eq!((last.sequence_number.get(), stream.metrics().puts), (9, 1));

    let by_bytes: Vec<_> = (0..4).map(|_| producer.put("key", [0; 300]).unwrap()).collect();
    by_bytes[2].wait().unwrap(); // the fourth would make them too many
    expect_unresolved(&by_bytes[3]);
    assert_eq!(stream.metrics().puts, 2);

    let large = producer.put("key", [0; 5_000]).unwrap(); // a batch by itself, behind what gathered
    assert_eq!(large.wait().unwrap().sequence_number.get(), 14);
    assert_eq!(by_bytes[3].try_wait().unwrap().unwrap().sequence_number.get(), 13);
    assert_eq!(stream.metrics().puts, 4);

    let few: Vec<_> = (0..3).map(|_| producer.put("key", b"data").unwrap()).collect();
    few.iter().for_each(expect_unresolved);
    producer.flush().unwrap();
    assert!(few.iter().all(|handle| handle.try_wait().unwrap().is_some()));
    assert_eq!(stream.metrics().puts, 5);
    producer.flush().unwrap(); // of nothing
}

#[test]
fn what_lingered_is_sent_by_itself() {
    for linger in [Duration::ZERO, Duration::from_micros(1), MOMENT] {
        let (_, _, stream) = simulated(builder());
        let producer = stream.batching_producer().linger(linger).start().unwrap();
        for _ in 0..5 {
            producer.put("key", b"data").unwrap().wait().unwrap();
        }
        producer.put("key", b"data").unwrap();
        eventually("nobody waits for it", || stream.metrics().records_in == 6);
    }
}

#[test]
fn a_flush_waits_for_no_more_than_was_put_before() {
    let (disk, _, stream) = simulated(builder());
    let producer = eager(&stream);
    producer.put("key", b"makes the segment").unwrap().wait().unwrap();
    disk.stall_syncs(true);
    let before = producer.put("key", b"before").unwrap();
    eventually("it is sent", || stream.metrics().records_in == 2);
    let flush = in_thread(&producer, |producer| producer.flush().unwrap());
    thread::sleep(MOMENT);
    let lazy = lazy(&stream).start().unwrap(); // another producer's records are its own
    let other = lazy.put("key", b"other").unwrap();
    disk.stall_syncs(false);
    flush.join().unwrap();
    assert!(before.try_wait().unwrap().is_some());
    expect_unresolved(&other);
}

// ---- how much is under way ----

#[test]
fn what_is_under_way_is_bounded() {
    let (disk, _, stream) = simulated(builder());
    let producer = lazy(&stream).batch_records(10).in_flight_records(25).in_flight_bytes(10_000).start().unwrap();
    producer.put("key", b"makes the segment").unwrap();
    producer.flush().unwrap();
    disk.stall_syncs(true);
    let mut handles = Vec::new();
    while let Some(handle) = producer.try_put("key", b"data").unwrap() {
        handles.push(handle);
        assert!(handles.len() <= 25, "no bound on records");
    }
    assert_eq!((handles.len(), producer.in_flight().records), (25, 25));
    assert_eq!(producer.put_timeout("key", b"data", MOMENT).unwrap().map(drop), None);
    let waiting = in_thread(&producer, |producer| producer.put("key", b"waited").unwrap().wait().unwrap());
    thread::sleep(MOMENT);
    assert!(!waiting.is_finished());
    assert_eq!(producer.in_flight().records, 25);
    disk.stall_syncs(false);
    // It gets its room when a batch is resolved, at a time of its own, and then lingers.
    eventually("the put that waited has its room", || {
        producer.flush().unwrap();
        waiting.is_finished()
    });
    waiting.join().unwrap();
    assert_eq!(producer.in_flight().records, 0);

    // By bytes: one record passes the cap, and nothing is taken behind it.
    disk.stall_syncs(true);
    let mut taken = 0;
    while producer.try_put("key", [0; 4_000]).unwrap().map(drop).is_some() {
        taken += 1;
        assert!(taken <= 3, "no bound on bytes");
    }
    assert_eq!((taken, producer.in_flight().bytes), (3, 12_009));
    disk.stall_syncs(false);
    producer.close().unwrap();
}

#[test]
fn a_put_without_room_has_what_lingers_sent() {
    let (_, _, stream) = simulated(builder());
    let producer = lazy(&stream).in_flight_records(3).start().unwrap();
    for _ in 0..100 {
        producer.put("key", b"data").unwrap(); // would wait for hours
    }
    let handle = producer.put_timeout("key", b"data", HOURS).unwrap().unwrap();
    assert!(producer.in_flight().records <= 3);
    producer.flush().unwrap();
    assert_eq!(handle.try_wait().unwrap().unwrap().sequence_number.get(), 100);
}

#[test]
fn room_is_there_once_a_record_is_resolved() {
    let (_, _, stream) = simulated(builder());
    let producer = stream.batching_producer().linger(Duration::ZERO).in_flight_records(1).start().unwrap();
    for _ in 0..200 {
        producer.try_put("key", b"data").unwrap().expect("room").wait().unwrap();
    }
}

// ---- failures ----

#[test]
fn what_cannot_be_put_is_refused_before_it_has_neighbours() {
    let (_, _, stream) = simulated(builder());
    let producer = lazy(&stream).start().unwrap();
    let good = producer.put("key", b"data").unwrap();
    let long = "k".repeat(257);
    for key in ["", &long] {
        assert!(matches!(producer.put(key, b"data").unwrap_err(), Error::InvalidArgument { .. }));
    }
    let large = vec![0; (1 << 20) + 1];
    assert!(matches!(producer.try_put("key", &large).unwrap_err(), Error::DataTooLarge { .. }));
    assert!(matches!(producer.put_timeout("key", &large, HOURS).unwrap_err(), Error::DataTooLarge { .. }));
    assert_eq!(producer.in_flight().records, 1);
    producer.flush().unwrap();
    good.wait().unwrap();
    assert_eq!(read_stream(&stream).len(), 1);
}

#[test]
fn a_failed_shard_fails_its_own_records_alone() {
    for (operation, durability) in [(Operation::Sync, Durability::Synced), (Operation::Write, Durability::Synced)]
    {
        let (disk, _, stream) = simulated(builder().shards(2).durability(durability));
        let producer = lazy(&stream).start().unwrap();
        for at in [LOWER, UPPER] {
            put_at(&producer, at, b"makes the segment");
        }
        producer.flush().unwrap();
        let put = || (0..20).map(|index| put_at(&producer, if index % 2 == 0 { LOWER } else { UPPER }, b"data"));
        let handles: Vec<_> = put().collect();
        disk.fail_on(operation, 0, DiskFault::Error(std::io::ErrorKind::Other)); // shards are synced in their order
        let told = producer.flush().unwrap_err();
        assert!(matches!(told, Error::ShardFailed { shard_id: S0, .. }), "{told:?}");
        producer.flush().unwrap(); // it was told
        let later: Vec<_> = put().collect();
        drop(producer.flush().unwrap_err());
        for (index, handle) in handles.iter().chain(&later).enumerate() {
            match handle.try_wait() {
                Ok(receipt) => assert_eq!((index % 2, receipt.unwrap().shard_id), (1, S1)),
                Err(error) => {
                    assert_eq!(index % 2, 0);
                    assert!(matches!(error, Error::ShardFailed { shard_id: S0, .. }), "{error:?}");
                    assert_eq!(handle.wait().unwrap_err().to_string(), error.to_string(), "each time");
                }
            }
        }
        assert_eq!(read_all(&stream, S1).len(), 21);
        assert_eq!(read_all(&stream, S0).len(), 1, "what failed is not shown");
        drop(producer.close().map(|()| stream.close()));
    }
}

#[test]
fn a_full_disk_refuses_some_and_the_producer_goes_on() {
    let (disk, _, stream) = simulated(builder().shards(2));
    let producer = lazy(&stream).start().unwrap();
    put_at(&producer, UPPER, b"makes the segment");
    producer.flush().unwrap();
    disk.set_capacity(Some(disk.used_bytes()));
    let refused = put_at(&producer, LOWER, b"needs a segment");
    let taken = put_at(&producer, UPPER, b"has one");
    assert_eq!(producer.flush().unwrap_err().kind(), anabranch::ErrorKind::StorageFull);
    assert_eq!(refused.wait().unwrap_err().kind(), anabranch::ErrorKind::StorageFull);
    taken.wait().unwrap();
    disk.set_capacity(None);
    put_at(&producer, LOWER, b"has room");
    producer.flush().unwrap();
    assert_eq!((read_all(&stream, S0).len(), read_all(&stream, S1).len()), (1, 2));
}

#[test]
fn a_panic_where_a_batch_is_sent_is_told_to_its_handles() {
    let clock = Arc::new(FaultyClock::default());
    let options = builder().storage(Arc::new(SimulatedDisk::new())).clock(clock.clone());
    let stream = options.create("stream").unwrap();
    let producer = eager(&stream);
    producer.put("key", b"data").unwrap().wait().unwrap();
    clock.break_behind(0);
    let error = producer.put("key", b"data").unwrap().wait().unwrap_err();
    assert!(error.to_string().contains("the clock is broken"), "{error}");
    assert!(producer.flush().is_err());
    clock.mend();
    producer.put("key", b"data").unwrap().wait().unwrap();
    producer.close().unwrap();
}

#[test]
fn a_closed_stream_is_told_to_every_handle() {
    let (_, _, stream) = simulated(builder().shards(2));
    let producer = lazy(&stream).start().unwrap();
    producer.put("key", b"sent before").unwrap();
    producer.flush().unwrap();
    let handles: Vec<_> = (0..10).map(|index| producer.put(format!("{index}"), b"data").unwrap()).collect();
    stream.close().unwrap();
    assert!(matches!(producer.put("key", b"data").unwrap_err(), Error::Closed));
    assert!(matches!(producer.flush().unwrap_err(), Error::Closed));
    assert!(handles.iter().all(|handle| matches!(handle.wait().unwrap_err(), Error::Closed)));
    assert_eq!(producer.in_flight(), anabranch::InFlight::default());
    drop(producer);
}

#[test]
fn closing_the_stream_under_load_keeps_exactly_what_was_acknowledged() {
    for round in 0..10 {
        let (_directory, stream) = stream(builder().shards(2));
        let path = stream.path().to_path_buf();
        let producer = eager(&stream);
        let writers = (0..4).map(|writer| {
            in_thread(&producer, move |producer| {
                let mut handles = Vec::new();
                while let Ok(handle) = producer.put(format!("{writer}"), b"data") {
                    handles.push(handle);
                }
                handles.iter().filter(|handle| handle.wait().is_ok()).count()
            })
        });
        let writers: Vec<_> = writers.collect();
        eventually("some are written", || stream.metrics().records_in > round * 10);
        stream.close().unwrap();
        let acknowledged: usize = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
        drop(producer);
        assert_eq!(read_stream(&builder().open(path).unwrap()).len(), acknowledged);
    }
}

// ---- ends ----

#[test]
fn a_closed_producer_has_sent_all_and_takes_no_more() {
    let (disk, _, stream) = simulated(builder());
    let producer = lazy(&stream).in_flight_records(5).start().unwrap();
    producer.put("key", b"makes the segment").unwrap();
    producer.flush().unwrap();
    disk.stall_syncs(true);
    let handles: Vec<_> = (0..5).map(|_| producer.put("key", b"data").unwrap()).collect();
    let waits_for_room = in_thread(&producer, |producer| producer.put("key", b"data").map(drop));
    eventually("what lingers is sent", || stream.metrics().records_in == 6);
    let clone = producer.clone();
    let closing = thread::spawn(move || clone.close());
    assert!(matches!(waits_for_room.join().unwrap().unwrap_err(), Error::Closed));
    assert!(matches!(producer.put("key", b"data").unwrap_err(), Error::Closed));
    assert!(matches!(producer.try_put("key", b"data").unwrap_err(), Error::Closed));
    assert!(!closing.is_finished());
    disk.stall_syncs(false);
    closing.join().unwrap().unwrap();
    assert!(handles.iter().all(|handle| handle.try_wait().unwrap().is_some()));
    producer.flush().unwrap();
    producer.close().unwrap(); // twice
    stream.put("key", b"the stream is open").unwrap();
    assert_eq!(read_stream(&stream).len(), 7);
}

#[test]
fn the_last_clone_flushes_and_handles_outlive_it() {
    let (_, _, stream) = simulated(builder());
    let producer = lazy(&stream).start().unwrap();
    let clone = producer.clone();
    let kept = producer.put("key", b"kept").unwrap();
    producer.put("key", b"dropped").unwrap();
    drop(producer);
    expect_unresolved(&kept);
    drop(clone);
    assert_eq!(kept.try_wait().unwrap().unwrap().sequence_number.get(), 0);
    assert_eq!(read_stream(&stream).len(), 2, "a dropped handle loses nothing");
}

#[test]
fn a_producer_keeps_its_stream_open() {
    let (disk, clock, stream) = simulated(builder());
    let producer = eager(&stream);
    drop(stream);
    producer.put("key", b"data").unwrap().wait().unwrap();
    let reopen = || builder().storage(Arc::new(disk.clone())).clock(clock.clone()).open("stream");
    assert!(matches!(reopen().unwrap_err(), Error::Locked(_)));
    drop(producer);
    assert_eq!(read_stream(&reopen().unwrap()).len(), 1);
}

#[test]
fn a_thread_that_panics_takes_nothing_along() {
    let (_, _, stream) = simulated(builder());
    let producer = lazy(&stream).start().unwrap();
    let panicked = in_thread(&producer, |producer| {
        let _handles: Vec<_> = (0..10).map(|_| producer.put("key", b"data").unwrap()).collect();
        panic!("on purpose");
    });
    panicked.join().unwrap_err();
    producer.flush().unwrap();
    assert_eq!(read_stream(&stream).len(), 10);
}

#[test]
fn options_out_of_range_are_refused() {
    let (disk, clock, stream) = simulated(builder());
    let of = || stream.batching_producer();
    for wrong in [
        of().linger(Duration::from_secs(86_401)),
        of().batch_records(0),
        of().batch_records(10_001),
        of().batch_bytes(0),
        of().batch_bytes((16 << 20) + 1),
        of().in_flight_records(0),
        of().in_flight_bytes(0),
    ] {
        assert!(matches!(wrong.start().unwrap_err(), Error::InvalidArgument { .. }));
    }
    of().linger(Duration::from_secs(86_400)).batch_records(10_000).batch_bytes(16 << 20).start().unwrap();
    let reader = builder().storage(Arc::new(disk)).clock(clock).open_read_only("stream").unwrap();
    assert!(matches!(reader.batching_producer().start().unwrap_err(), Error::ReadOnly));
    let builder = of();
    stream.clone().close().unwrap();
    assert!(matches!(builder.start().unwrap_err(), Error::Closed));
}

#[test]
fn producers_and_handles_go_from_thread_to_thread() {
    fn goes<T: Clone + Send + Sync + 'static>() {}
    goes::<BatchingProducer>();
    goes::<PutHandle>();
    goes::<Error>();
}
