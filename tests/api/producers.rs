//! Many writers and readers at once.

use std::collections::BTreeSet;
use std::sync::{Arc, Barrier};
use std::thread;

use anabranch::{Durability, PutEntry, PutReceipt, RecordsStart, ShardIteratorType, Stream};

use crate::support::{HORIZON, Mixer, builder, numbers_from, read_stream, stream};

const WRITERS: u64 = 8;
const READERS: usize = 4;

/// One writer's share: single puts and batches, mixed.
fn write(stream: &Stream, writer: u64, records: u64) -> Vec<PutReceipt> {
    let mut mixer = Mixer(writer);
    let mut receipts = Vec::new();
    while (receipts.len() as u64) < records {
        let left = records - receipts.len() as u64;
        let count = if mixer.coin() { 1 } else { (mixer.next() % 10 + 1).min(left) };
        let keys: Vec<_> = (0..count).map(|_| format!("key-{}", mixer.next() % 64)).collect();
        let data = format!("{writer}");
        if count == 1 {
            receipts.push(stream.put(&keys[0], &data).unwrap());
        } else {
            let entries: Vec<_> = keys.iter().map(|key| PutEntry::new(key, data.as_bytes())).collect();
            receipts.extend(stream.put_batch(&entries).unwrap());
        }
    }
    receipts
}

fn contend(durability: Durability, records: u64) {
    let options = builder().shards(4).segment_bytes(32 << 10).durability(durability);
    let (_directory, stream) = stream(options);
    let start = Arc::new(Barrier::new(usize::try_from(WRITERS).unwrap() + READERS));
    let writers = (0..WRITERS).map(|writer| {
        let (stream, start) = (stream.clone(), Arc::clone(&start));
        thread::spawn(move || {
            start.wait();
            write(&stream, writer, records)
        })
    });
    let writers: Vec<_> = writers.collect();
    let total = WRITERS * records;
    let readers = (0..READERS).map(|_| {
        let mut reader = stream.records(RecordsStart::TrimHorizon).unwrap();
        let start = Arc::clone(&start);
        thread::spawn(move || {
            start.wait();
            let mut next = [0_u64; 4];
            while next.iter().sum::<u64>() < total {
                let batch = reader.next_batch().unwrap();
                if batch.is_empty() {
                    thread::yield_now();
                }
                for record in batch {
                    let place = &mut next[record.shard_id().get() as usize];
                    assert_eq!(record.sequence_number().get(), *place, "strictly one after the other");
                    *place += 1;
                }
            }
            next
        })
    });
    let readers: Vec<_> = readers.collect();

    let mut receipts = BTreeSet::new();
    for writer in writers {
        let mut last = [None; 4];
        for receipt in writer.join().unwrap() {
            let last = &mut last[receipt.shard_id.get() as usize];
            assert!(
                last.is_none_or(|last| last < receipt.sequence_number),
                "a writer's numbers rise in each shard"
            );
            *last = Some(receipt.sequence_number);
            assert!(receipts.insert((receipt.shard_id, receipt.sequence_number)), "given twice: {receipt:?}");
        }
    }
    assert_eq!(receipts.len() as u64, total);
    let described = stream.describe().unwrap();
    for shard in &described.shards {
        let shard_id = shard.summary.shard_id;
        let of_shard = receipts.iter().filter(|(id, _)| *id == shard_id).map(|(_, number)| number.get());
        let dense: Vec<_> = (0..shard.records).collect();
        assert_eq!(of_shard.collect::<Vec<_>>(), dense);
        assert_eq!(numbers_from(&stream, shard_id, HORIZON), dense);
    }
    let expected: Vec<_> = described.shards.iter().map(|shard| shard.records).collect();
    for reader in readers {
        assert_eq!(reader.join().unwrap().to_vec(), expected);
    }

    // What a receipt says is what stands there.
    let records = read_stream(&stream);
    assert_eq!(records.len() as u64, total);
    for writer in 0..WRITERS {
        let of_writer = records.iter().filter(|record| record.data() == writer.to_string().as_bytes());
        assert_eq!(of_writer.count() as u64, records_of(total));
    }
    let metrics = stream.metrics();
    assert_eq!(metrics.records_in, total);
    if durability == Durability::Synced {
        assert_eq!((metrics.unsynced_records, metrics.records_synced), (0, total));
        assert!(metrics.syncs <= metrics.puts + 3 * metrics.segments_rolled, "never more than a sync a put");
    }
}

const fn records_of(total: u64) -> u64 {
    total / WRITERS
}

#[test]
fn synced_writers_and_readers_agree() {
    contend(Durability::Synced, 400);
}

#[test]
fn buffered_writers_and_readers_agree() {
    contend(Durability::Buffered, 4_000);
}

#[test]
fn a_writer_reads_its_own_writes() {
    let (_directory, stream) = stream(builder().shards(2));
    let writers = (0..4).map(|writer| {
        let stream = stream.clone();
        thread::spawn(move || {
            for index in 0..100 {
                let text = format!("{writer}-{index}");
                let receipt = stream.put(&text, &text).unwrap();
                let record = stream.get(receipt.shard_id, receipt.sequence_number).unwrap();
                assert_eq!((record.partition_key(), record.data()), (text.as_str(), text.as_bytes()));
                let kind = ShardIteratorType::AtSequenceNumber(receipt.sequence_number);
                let mut iterator = stream.shard_iterator(receipt.shard_id, kind).unwrap();
                let first = iterator.next_batch().unwrap().next().unwrap();
                assert_eq!(first.sequence_number(), receipt.sequence_number);
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.join().unwrap();
    }
}

#[test]
fn closing_under_load_keeps_exactly_what_was_acknowledged() {
    for round in 0..10 {
        let (_directory, stream) = stream(builder().shards(2));
        let path = stream.path().to_path_buf();
        let start = Arc::new(Barrier::new(5));
        let writers = (0..4).map(|writer| {
            let (stream, start) = (stream.clone(), Arc::clone(&start));
            thread::spawn(move || {
                start.wait();
                let mut acknowledged = Vec::new();
                loop {
                    match stream.put(format!("{writer}"), b"data") {
                        Ok(receipt) => acknowledged.push((receipt.shard_id, receipt.sequence_number)),
                        Err(anabranch::Error::Closed) => return acknowledged,
                        Err(error) => panic!("{error:?}"),
                    }
                }
            })
        });
        let writers: Vec<_> = writers.collect();
        start.wait();
        crate::support::eventually("some are written", || stream.metrics().records_in > round * 10);
        stream.close().unwrap();
        let acknowledged: BTreeSet<_> = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
        let stream = builder().open(path).unwrap();
        assert!(stream.recovery().was_clean);
        let found: BTreeSet<_> =
            read_stream(&stream).iter().map(|record| (record.shard_id(), record.sequence_number())).collect();
        assert_eq!(found, acknowledged);
    }
}
