//! A group whose workers are processes: they are killed, and others go on.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anabranch::{Error, RecordsStart, Stream, Work, WorkerOptions};

use crate::child::{self, Process};
use crate::support::{Random, lines, wait_until};

const LEASE: Duration = Duration::from_millis(400);
const WORKERS: u64 = 3;
const ROUNDS: u64 = 5;

/// Works until it is killed; notes what it is given before it checkpoints it: shard, number, id.
pub(crate) fn run() {
    let stream = Stream::builder().open_read_only(child::argument("STREAM")).unwrap();
    let consumer = stream.consumer("group").unwrap();
    let name = child::argument("NAME");
    let options = WorkerOptions::new().lease_time(LEASE).max_records(20);
    let mut worker = consumer.worker(&name, options).unwrap();
    let mut ledger = OpenOptions::new().append(true).create(true).open(child::argument("LEDGER")).unwrap();
    loop {
        let outcome = match worker.next_timeout(Duration::from_millis(50)).unwrap() {
            Some(Work::Records { shard_id, records }) => {
                let mut text = String::new();
                for record in &records {
                    let id: u64 = std::str::from_utf8(record.data()).unwrap().parse().unwrap();
                    writeln!(text, "{} {} {id}", shard_id.get(), record.sequence_number()).unwrap();
                }
                ledger.write_all(text.as_bytes()).unwrap();
                worker.checkpoint_last(shard_id, &records)
            }
            Some(Work::Ended(shard_id)) => worker.finish(shard_id),
            _ => Ok(()),
        };
        assert!(matches!(outcome, Ok(()) | Err(Error::LeaseLost { .. })), "{outcome:?}");
    }
}

fn start(directory: &Path, stream: &Path, ledger: &Path, number: u64) -> Process {
    let (log, name) = (directory.join(format!("worker-{number}.log")), format!("worker-{number}"));
    child::start("worker", &log, &[("STREAM", &stream), ("LEDGER", &ledger), ("NAME", &name)])
}

#[test]
fn workers_that_are_killed_lose_no_record() {
    let mut random = Random::of_test("workers_that_are_killed_lose_no_record");
    let directory = tempfile::tempdir().unwrap();
    let (path, ledger) = (directory.path().join("stream"), directory.path().join("ledger"));
    let stream = Stream::builder().shards(3).create(&path).unwrap();
    drop(stream.consumer("group").unwrap());
    let mut workers: Vec<_> = (0..WORKERS).map(|number| start(directory.path(), &path, &ledger, number)).collect();
    let (mut puts, mut number) = (0_u64, WORKERS);
    for round in 0..ROUNDS {
        for _ in 0..100 {
            stream.put(format!("key {}", puts % 13), puts.to_string()).unwrap();
            puts += 1;
        }
        let open = stream.open_shards();
        if round % 2 == 0 {
            stream.split_shard(open[0], None).unwrap();
        } else {
            stream.merge_shards(open[0], open[1]).unwrap();
        }
        std::thread::sleep(random.millis(0, 300));
        let victim = usize::try_from(random.within(0, WORKERS)).unwrap();
        workers.swap_remove(victim).kill();
        workers.push(start(directory.path(), &path, &ledger, number));
        number += 1;
    }
    let consumer = stream.consumer("group").unwrap();
    wait_until("the rest is done", || {
        workers.iter_mut().for_each(Process::assert_runs);
        stream.shards().iter().all(|shard| consumer.iterator(shard.shard_id).unwrap().available().count() == 0)
    });
    workers.into_iter().for_each(Process::kill);
    let mut given: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    for [shard, number, id] in lines::<3>(&ledger) {
        let before = given.insert((shard, number), id);
        assert!(before.is_none_or(|before| before == id));
    }
    for record in stream.records(RecordsStart::TrimHorizon).unwrap().available() {
        let record = record.unwrap();
        let place = (u64::from(record.shard_id().get()), record.sequence_number().get());
        let id = given.get(&place).map(ToString::to_string);
        assert_eq!(id.as_deref().map(str::as_bytes), Some(record.data()), "{place:?} was not handled");
    }
    println!("{} records, {} given, through {ROUNDS} kills", puts, lines::<3>(&ledger).len());
    stream.close().unwrap();
}
