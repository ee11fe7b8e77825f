//! The consumer and the queue of the workload: what each did, told mark by mark; and what must be found of it.

use std::collections::{HashMap, HashSet};
use std::thread;
use std::time::Duration;

use anabranch::{
    Consumer, Durability, Error, Position, Queue, QueueOptions, RecordsStart, SequenceNumber, ShardId,
    ShardIteratorType, ShardState, Stream,
};

use crate::image::Random;
use crate::workload::{Marks, id_of};

const CONSUMER: &str = "billing";
const QUEUE: &str = "mails";
const ROUNDS: usize = 16;
/// The place of a shard's end, behind every record.
const END: u64 = u64::MAX;
/// Nobody's time runs out within a life.
const LONG: Duration = Duration::from_secs(600);

/// The consumer and the queue of one life.
pub(crate) struct Readers {
    consumer: Consumer,
    queue: Queue,
    /// Positions that a flush has to cover before they are promised.
    unsynced: Vec<(ShardId, u64)>,
}

/// Uses both in turn for a while.
pub(crate) fn run(stream: &Stream, marks: &Marks, random: &mut Random) {
    let Some(mut readers) = Readers::open(stream, marks) else { return };
    for _ in 0..ROUNDS {
        thread::sleep(Duration::from_millis(random.below(6) as u64));
        let shards = stream.shards();
        readers.consume(marks, shards[random.below(shards.len())].shard_id, random);
        readers.work_off(marks, random);
        if random.below(3) == 0 {
            readers.keep(marks);
        }
    }
}

impl Readers {
    pub(crate) fn open(stream: &Stream, marks: &Marks) -> Option<Self> {
        let consumer = marks.attempt("consumer", stream.consumer(CONSUMER))?;
        marks.put("consumer");
        let queue = marks.attempt("queue", stream.queue(QUEUE, queue_options()))?;
        marks.put("queue");
        Some(Self { consumer, queue, unsynced: Vec::new() })
    }

    /// Takes a shard and moves its position over some records, or to its end; how often it was moved.
    pub(crate) fn consume(&mut self, marks: &Marks, shard_id: ShardId, random: &mut Random) -> u64 {
        let Some(lease) = marks.attempt("take", self.consumer.take(shard_id, "worker")) else { return 0 };
        marks.put(&format!("taken {} {}", shard_id.get(), lease.epoch()));
        let iterator = match lease.iterator() {
            // The workload trims what the consumer did not see: it goes on at what is left.
            Err(Error::Trimmed { .. }) => {
                self.consumer.stream().shard_iterator(shard_id, ShardIteratorType::TrimHorizon)
            }
            other => other,
        };
        let Some(mut iterator) = marks.attempt("iterator", iterator) else { return 0 };
        let mut moved = 0;
        for record in iterator.available().take(1 + random.below(8)) {
            let record = match record {
                Err(Error::Trimmed { .. }) => break,
                other => marks.attempt("read", other),
            };
            let Some(record) = record else { return moved };
            let done = || lease.checkpoint(&record);
            moved += u64::from(self.checkpoint(marks, shard_id, record.sequence_number().get(), done));
        }
        if iterator.end_of_shard().is_some() {
            moved += u64::from(self.checkpoint(marks, shard_id, END, || lease.checkpoint_end()));
        }
        moved
    }

    fn checkpoint(
        &mut self,
        marks: &Marks,
        shard_id: ShardId,
        place: u64,
        checkpoint: impl FnOnce() -> anabranch::Result<()>,
    ) -> bool {
        marks.put(&format!("doing {} {place}", shard_id.get()));
        if marks.attempt("checkpoint", checkpoint()).is_none() {
            return false;
        }
        if self.consumer.stream().durability() == Durability::Synced {
            marks.put(&format!("done {} {place}", shard_id.get()));
        } else {
            self.unsynced.push((shard_id, place));
        }
        true
    }

    /// Receives some records, acknowledges most of them and gives others back.
    pub(crate) fn work_off(&mut self, marks: &Marks, random: &mut Random) {
        let received = self.queue.receive(1 + random.below(20), Duration::ZERO);
        for received in marks.attempt("receive", received).unwrap_or_default() {
            let (shard_id, at) = (received.record.shard_id(), received.record.sequence_number());
            marks.have(shard_id, at, id_of(&received.record)); // a queue gives what no crash takes back
            if random.below(4) == 0 {
                marks.attempt("give-back", self.queue.give_back(&received));
                continue;
            }
            marks.put(&format!("acknowledging {} {}", shard_id.get(), at.get()));
            if marks.attempt("acknowledge", self.queue.acknowledge(&received)).is_some() {
                marks.put(&format!("acknowledged {} {}", shard_id.get(), at.get()));
            }
        }
    }

    /// Makes durable what both know.
    pub(crate) fn keep(&mut self, marks: &Marks) {
        if marks.attempt("queue-sync", self.queue.sync()).is_some() {
            marks.put("kept");
        }
        if self.unsynced.is_empty() || marks.attempt("sync", self.consumer.stream().sync()).is_none() {
            return;
        }
        for (shard_id, place) in self.unsynced.drain(..) {
            marks.put(&format!("done {} {place}", shard_id.get()));
        }
    }
}

fn queue_options() -> QueueOptions {
    QueueOptions::new().visibility(LONG).max_receives(None)
}

/// What was promised of the consumer and the queue before a power cut.
#[derive(Debug, Default)]
pub(crate) struct Promised {
    has_consumer: bool,
    has_queue: bool,
    /// The epoch of the last lease, by shard.
    taken: HashMap<u32, u64>,
    /// How far a checkpoint was begun, by shard.
    doing: HashMap<u32, u64>,
    /// How far one is durable.
    done: HashMap<u32, u64>,
    /// Acknowledged, perhaps.
    acknowledging: HashSet<(u32, u64)>,
    /// Acknowledged in this life, and not yet kept.
    acknowledged: HashSet<(u32, u64)>,
    kept: HashSet<(u32, u64)>,
}

impl Promised {
    pub(crate) fn note(&mut self, words: &[&str]) {
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        let shard = || words[1].parse::<u32>().unwrap();
        let raise = |of: &mut HashMap<u32, u64>| {
            let highest = of.entry(shard()).or_default();
            *highest = number(2).max(*highest);
        };
        match words[0] {
            "consumer" => self.has_consumer = true,
            "queue" => self.has_queue = true,
            "taken" => raise(&mut self.taken),
            "doing" => raise(&mut self.doing),
            "done" => raise(&mut self.done),
            "acknowledging" => drop(self.acknowledging.insert((shard(), number(2)))),
            "acknowledged" => drop(self.acknowledged.insert((shard(), number(2)))),
            "kept" | "closed" => self.kept.extend(self.acknowledged.drain()),
            "opened" => self.acknowledged.clear(), // the life before ended before it was kept
            _ => {}
        }
    }

    /// How many positions and acknowledgements a power cut may not take.
    pub(crate) fn durable(&self) -> (u64, u64) {
        (self.done.len() as u64, self.kept.len() as u64)
    }

    /// Demands that no position went back or is ahead of the records, and that epochs rise.
    pub(crate) fn demand_consumer(&self, stream: &Stream, case: &str) {
        let known = stream.consumers().unwrap().iter().any(|name| name == CONSUMER);
        assert!(known || !self.has_consumer, "{case}: the consumer is gone");
        let consumer = stream.consumer(CONSUMER).unwrap_or_else(|error| panic!("{case}: the consumer: {error:?}"));
        for shard in stream.describe().unwrap().shards {
            let (shard_id, next) = (shard.summary.shard_id, shard.next_sequence_number);
            let begun = self.doing.get(&shard_id.get());
            let found =
                consumer.checkpoint(shard_id).unwrap_or_else(|error| panic!("{case}: {shard_id}: {error:?}"));
            let place = match found.position {
                Position::After(at) => Some(at.sequence_number.get()),
                Position::ShardEnd => Some(END),
                _ => None,
            };
            let (done, case) =
                (self.done.get(&shard_id.get()), format!("{case}: {shard_id}, whose next is {next}"));
            assert!(place.as_ref() >= done, "{case}: {done:?} was done, and is {place:?}");
            assert!(place.as_ref() <= begun, "{case}: nobody came beyond {begun:?}, and it is {place:?}");
            match found.position {
                Position::ShardEnd => {
                    assert_eq!(shard.summary.state, ShardState::Closed, "{case}: the end of an open shard");
                }
                Position::After(at) if stream.durability() == Durability::Synced => {
                    assert!(at.sequence_number < next, "{case}: it is beyond the tail, {place:?}");
                }
                _ => {}
            }
            demand_start(&consumer, shard_id, place, done, next, &case);
            let lease = consumer.take(shard_id, "checker").unwrap_or_else(|error| panic!("{case}: {error:?}"));
            assert!(Some(&lease.epoch()) > self.taken.get(&shard_id.get()), "{case}: an epoch came twice");
        }
    }

    /// Demands that the queue gives each record once that is not acknowledged, and none whose acknowledgement was kept.
    pub(crate) fn demand_queue(&self, stream: &Stream, case: &str) {
        let known = stream.queues().unwrap().iter().any(|name| name == QUEUE);
        assert!(known || !self.has_queue, "{case}: the queue is gone");
        let queue =
            stream.queue(QUEUE, queue_options()).unwrap_or_else(|error| panic!("{case}: queue: {error:?}"));
        let mut given = HashSet::new();
        loop {
            let some = queue.receive(1000, Duration::ZERO);
            let some = some.unwrap_or_else(|error| panic!("{case}: receiving: {error:?}"));
            if some.is_empty() {
                break;
            }
            for received in some {
                let place = (received.record.shard_id().get(), received.record.sequence_number().get());
                assert!(given.insert(place), "{case}: the queue gave {place:?} twice");
                assert!(!self.kept.contains(&place), "{case}: {place:?} came back, which was acknowledged");
            }
        }
        for record in stream.records(RecordsStart::TrimHorizon).unwrap().available() {
            let record = record.unwrap_or_else(|error| panic!("{case}: reading: {error:?}"));
            let place = (record.shard_id().get(), record.sequence_number().get());
            assert!(
                given.contains(&place) || self.acknowledging.contains(&place),
                "{case}: the queue does not give {place:?}"
            );
        }
    }
}

/// Reading starts right behind the position, but where a cut took its record: then at the tail.
fn demand_start(
    consumer: &Consumer,
    shard_id: ShardId,
    place: Option<u64>,
    done: Option<&u64>,
    next: SequenceNumber,
    case: &str,
) {
    match (consumer.iterator(shard_id), place) {
        (Err(Error::Trimmed { .. }), _) | (Ok(_), None) => {}
        (Err(error), _) => panic!("{case}: its iterator: {error:?}"),
        (Ok(iterator), Some(place)) => {
            let start = iterator.next_sequence_number();
            assert!(start <= next, "{case}: reading starts at {start}");
            assert!(done.is_none_or(|done| start.get() > *done || *done == END), "{case}: {start} is given again");
            assert!(start.get() <= place.saturating_add(1), "{case}: reading starts at {start}, behind {place}");
        }
    }
}
