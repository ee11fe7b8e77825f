//! An idempotent producer that is killed, again and again: each batch is there once.

use std::path::Path;

use anabranch::{Durability, PutEntry, RecordsStart, Stream};

use crate::child;
use crate::records::assert_sound;
use crate::support::{Random, wait_until};

const ROUNDS: u64 = 8;

#[test]
fn batches_are_there_once_after_kills_synced() {
    rounds("batches_are_there_once_after_kills_synced", Durability::Synced);
}

#[test]
fn batches_are_there_once_after_kills_buffered() {
    rounds("batches_are_there_once_after_kills_buffered", Durability::Buffered);
}

fn rounds(name: &str, durability: Durability) {
    let mut random = Random::of_test(name);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("stream");
    Stream::builder()
        .shards(2)
        .segment_bytes(64 << 10)
        .durability(durability)
        .create(&path)
        .unwrap()
        .close()
        .unwrap();
    for round in 0..ROUNDS {
        let log = directory.path().join(format!("log-{round}"));
        let marks = directory.path().join(format!("marks-{round}"));
        let mut producer = child::start("producer", &log, &[("STREAM", &path), ("MARKS", &marks)]);
        wait_until("a batch", || {
            producer.assert_runs();
            marks.exists()
        });
        std::thread::sleep(random.millis(0, 120));
        producer.kill();
        assert_sound(&path);
        if round % 2 == 0 {
            let stream = Stream::builder().open_existing(&path).unwrap();
            let open = stream.open_shards();
            let (lower, upper) = stream
                .split_shard(open[usize::try_from(random.within(0, open.len() as u64)).unwrap()], None)
                .unwrap();
            if round % 4 == 0 {
                stream.merge_shards(lower, upper).unwrap();
            }
        }
    }
    let stream = Stream::builder().open_existing(&path).unwrap();
    let last = stream.producer("p").unwrap().last_batch().unwrap().unwrap();
    stream.producer("p").map(|mut producer| put(&mut producer, last)).unwrap();
    let mut all = stream.records(RecordsStart::TrimHorizon).unwrap();
    let text = |record: anabranch::Record| String::from_utf8(record.data().to_vec()).unwrap();
    let mut found: Vec<_> = all.available().map(|record| text(record.unwrap())).collect();
    found.sort_unstable();
    let mut expected: Vec<_> = (0..=last).flat_map(records).collect();
    expected.sort_unstable();
    println!("{name}: {last} batches in {ROUNDS} lives");
    assert!(last > ROUNDS);
    assert_eq!(found.len(), expected.len());
    assert_eq!(found, expected);
}

/// What batch `number` holds, in whichever life it is put: records for all shards.
fn records(number: u64) -> impl Iterator<Item = String> {
    (0..=number % 7).map(move |index| format!("{number}:{index}"))
}

fn put(producer: &mut anabranch::Producer, number: u64) {
    let records: Vec<_> = records(number).collect();
    let entries: Vec<_> = records.iter().map(|record| PutEntry::new(record, record.as_bytes())).collect();
    let receipts = producer.put_batch(number, &entries).unwrap();
    assert_eq!(receipts.len(), records.len());
}

/// The child: goes on with the batch that may have been under way.
pub(crate) fn run() {
    let stream = Stream::builder().open_existing(child::argument("STREAM")).unwrap();
    let mut producer = stream.producer("p").unwrap();
    let next = producer.last_batch().unwrap().unwrap_or(0);
    for number in next.. {
        put(&mut producer, number);
        if number == next + 1 {
            std::fs::write(Path::new(&child::argument("MARKS")), b"").unwrap();
        }
    }
}
