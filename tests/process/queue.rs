//! A queue whose process is killed, again and again: what was acknowledged and kept is not received again, and everything else is.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anabranch::{Durability, Queue, QueueOptions, Received, RecordsStart, ShardId, Stream};

use crate::child;
use crate::records::assert_sound;
use crate::support::{Random, length, lines, wait_until};

const ROUNDS: u64 = 8;
/// It is about to be acknowledged.
const ACKNOWLEDGED: u64 = 0;
/// Everything that was acknowledged in this life is kept.
const KEPT: u64 = 1;
/// It was not acknowledged.
const REFUSED: u64 = 2;
/// A life begins.
const BEGUN: u64 = 3;

/// A record's shard and number.
type Place = (u64, u64);

fn queue(stream: &Stream) -> Queue {
    let options = QueueOptions::new().max_receives(None).visibility(Duration::from_millis(20)).sync_changes(50);
    stream.queue("mails", options).unwrap()
}

fn place(received: &Received) -> Place {
    (received.record.shard_id().get().into(), received.record.sequence_number().get())
}

#[test]
fn nothing_is_lost_or_comes_back_after_kills_synced() {
    rounds("nothing_is_lost_or_comes_back_after_kills_synced", Durability::Synced);
}

#[test]
fn nothing_is_lost_or_comes_back_after_kills_buffered() {
    rounds("nothing_is_lost_or_comes_back_after_kills_buffered", Durability::Buffered);
}

fn rounds(name: &str, durability: Durability) {
    let mut random = Random::of_test(name);
    let directory = tempfile::tempdir().unwrap();
    let (path, ledger) = (directory.path().join("stream"), directory.path().join("ledger"));
    let builder = Stream::builder().shards(2).segment_bytes(64 << 10).durability(durability);
    builder.create(&path).unwrap().close().unwrap();
    let (mut acknowledged, mut kept) = (BTreeSet::new(), BTreeSet::new());
    for round in 0..ROUNDS {
        let (log, seed) = (directory.path().join(format!("log-{round}")), random.next().to_string());
        let before = length(&ledger);
        let mut worker = child::start("queue", &log, &[("STREAM", &path), ("LEDGER", &ledger), ("SEED", &seed)]);
        wait_until("an acknowledgement", || {
            worker.assert_runs();
            length(&ledger) > before + 30
        });
        std::thread::sleep(random.millis(0, 150));
        worker.kill();
        (acknowledged, kept) = noted(&ledger);
        assert_sound(&path);
        let stream = Stream::builder().open_existing(&path).unwrap();
        check(&stream, &acknowledged, &kept);
        if round % 3 == 1 {
            let open = stream.open_shards();
            stream.split_shard(open[0], None).unwrap();
        }
    }
    println!("{name}: {} acknowledged, {} of them kept, in {ROUNDS} lives", acknowledged.len(), kept.len());
    assert!(kept.len() as u64 > ROUNDS);
}

/// What was acknowledged perhaps, and what of it is kept for certain.
fn noted(ledger: &Path) -> (BTreeSet<Place>, BTreeSet<Place>) {
    let (mut perhaps, mut of_this_life, mut kept) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for [kind, shard, number] in lines::<3>(ledger) {
        match kind {
            ACKNOWLEDGED => {
                perhaps.insert((shard, number));
                of_this_life.insert((shard, number));
            }
            REFUSED => drop(of_this_life.remove(&(shard, number))),
            KEPT => kept.append(&mut of_this_life),
            _ => of_this_life.clear(), // the kill may have come before, or before it was kept
        }
    }
    (perhaps, kept)
}

fn check(stream: &Stream, acknowledged: &BTreeSet<Place>, kept: &BTreeSet<Place>) {
    let queue = queue(stream);
    let mut received = BTreeSet::new();
    loop {
        let some = queue.receive_for(1_000, Duration::ZERO, Duration::from_secs(600)).unwrap();
        if some.is_empty() {
            break;
        }
        for record in some {
            assert!(received.insert(place(&record)), "{:?} twice", place(&record));
        }
    }
    let mut all = stream.records(RecordsStart::TrimHorizon).unwrap();
    for record in all.available() {
        let record = record.unwrap();
        let place = (u64::from(record.shard_id().get()), record.sequence_number().get());
        assert!(received.contains(&place) || acknowledged.contains(&place), "{place:?} is lost");
        assert!(!(received.contains(&place) && kept.contains(&place)), "{place:?} came back");
    }
    for (shard, number) in &received {
        let shard_id = ShardId::new(u32::try_from(*shard).unwrap());
        stream.get(shard_id, (*number).into()).unwrap();
    }
}

/// The child: puts, receives, acknowledges, gives back, forgets, until it is killed.
pub(crate) fn run() {
    let stream = Stream::builder().open_existing(child::argument("STREAM")).unwrap();
    let queue = queue(&stream);
    let mut ledger = OpenOptions::new().append(true).create(true).open(child::argument("LEDGER")).unwrap();
    let mut random = Random::new(child::argument("SEED").parse().unwrap());
    let mut note = |kind: u64, (shard, number): Place| {
        let mut text = String::new();
        writeln!(text, "{kind} {shard} {number}").unwrap();
        ledger.write_all(text.as_bytes()).unwrap(); // one call: whole, or not at all
    };
    note(BEGUN, (0, 0));
    loop {
        for _ in 0..random.within(0, 8) {
            stream.put(random.next().to_string(), b"mail").unwrap();
        }
        for received in queue.receive(10, Duration::ZERO).unwrap() {
            match random.within(0, 10) {
                0..6 => {
                    note(ACKNOWLEDGED, place(&received));
                    if queue.acknowledge(&received).is_err() {
                        note(REFUSED, place(&received)); // its time was over: it comes again
                    }
                }
                6..8 => drop(queue.give_back(&received)),
                _ => {}
            }
        }
        if random.within(0, 4) == 0 {
            queue.sync().unwrap();
            note(KEPT, (0, 0));
        }
    }
}
