//! The memory of where a consumer may stand: what was acknowledged, and what may have happened. Shared by the histories of consumers and those of streams.

use std::collections::BTreeMap;
use std::sync::Arc;

use anabranch::{
    Checkpoint, Consumer, Durability, Error, Lease, ManualClock, Position, Record, RecordPosition, RecordsStart,
    ShardId, ShardIterator, ShardIteratorType, ShardState, SimulatedDisk, Stream,
};

use crate::history::{PATH, builder};
use crate::ledger::{Survives, Visited};

/// What a call promised of what it stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Durable,
    Kept,
    Unknown,
}

impl Outcome {
    /// Of a checkpoint that was acknowledged.
    pub(crate) fn of_level(level: Durability) -> Self {
        if level == Durability::Synced { Self::Durable } else { Self::Kept }
    }
}

/// What is known of one consumer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    /// Whether it is there, if that is known.
    pub(crate) exists: Option<bool>,
    shards: BTreeMap<ShardId, Kept>,
}

/// What may be found of it in one shard, in the order in which it was stored.
#[derive(Debug, Clone)]
struct Kept {
    /// After a power cut.
    power: Vec<Checkpoint>,
    /// After a kill, or without a crash: more than one only where a call failed.
    kill: Vec<Checkpoint>,
    /// What was acknowledged last, at any level, or found.
    told: Checkpoint,
}

impl Kept {
    fn of(found: Checkpoint) -> Self {
        Self { power: vec![found.clone()], kill: vec![found.clone()], told: found }
    }

    fn note(&mut self, next: Checkpoint, outcome: Outcome) {
        match outcome {
            Outcome::Durable => *self = Self::of(next),
            Outcome::Kept => {
                self.power.push(next.clone());
                self.kill = vec![next.clone()];
                self.told = next;
            }
            Outcome::Unknown => {
                self.power.push(next.clone());
                self.kill.push(next);
            }
        }
    }

    /// What is found is one of what may be, and nothing else from now on.
    fn settle(&mut self, found: Checkpoint, name: &str) {
        assert!(self.kill.contains(&found), "{name}: {found:?} is none of {:?}", self.kill);
        self.told = found.clone();
        self.kill = vec![found];
    }

    /// What became of the last position that was acknowledged, and of those that were not.
    fn count(&self, found: &Checkpoint, visited: &mut Visited) {
        let place = |of: &Checkpoint| self.kill.iter().rposition(|kept| kept.position == of.position);
        let (found, told) = (place(found), place(&self.told));
        visited.count("an acknowledged checkpoint lost", found < told);
        visited.count("a checkpoint that was not acknowledged found", found > told);
        let last = self.kill.len().checked_sub(1);
        visited.count("a checkpoint that was not acknowledged lost", found == told && told < last);
    }
}

impl Known {
    /// There is none.
    pub(crate) fn absent() -> Self {
        Self { exists: Some(false), ..Self::default() }
    }

    fn kept(&mut self, shard_id: ShardId) -> &mut Kept {
        self.shards.entry(shard_id).or_insert_with(|| Kept::of(untouched(shard_id)))
    }

    /// The machine or the process ends: from now on what may be found is what survives that.
    pub(crate) fn crashed(&mut self, survives: Survives) {
        if survives == Survives::Durable {
            self.shards.values_mut().for_each(|kept| kept.kill.clone_from(&kept.power));
        }
    }

    /// Of what was stored nothing is lost any more.
    pub(crate) fn all_durable(&mut self) {
        self.shards.values_mut().for_each(|kept| kept.power.clone_from(&kept.kill));
    }

    /// It may be there as it was, or be gone; or be made anew where its mark is found.
    pub(crate) fn deletion_failed(&mut self) {
        self.exists = None;
        for (shard_id, kept) in &mut self.shards {
            kept.note(untouched(*shard_id), Outcome::Unknown);
        }
    }

    /// Opens the consumer, or makes it.
    pub(crate) fn open(&mut self, stream: &Stream, name: &str) -> Result<Consumer, Error> {
        let opened = stream.consumer(name);
        if opened.is_ok() {
            self.exists = Some(true);
        } else if self.exists == Some(false) {
            self.exists = None;
        }
        opened
    }

    /// Opens the consumer after a crash, if it is there. Opening makes what it finds durable.
    pub(crate) fn look(
        &mut self,
        stream: &Stream,
        name: &str,
        visited: &mut Visited,
    ) -> Result<Option<Consumer>, Error> {
        let is_there = stream.consumers()?.iter().any(|found| found == name);
        assert!(self.exists.is_none_or(|exists| exists == is_there), "{name}: {:?}, {is_there}", self.exists);
        if !is_there {
            *self = Self::absent();
            return Ok(None);
        }
        let consumer = self.open(stream, name)?;
        self.settle(&consumer, visited);
        self.all_durable();
        Ok(Some(consumer))
    }

    /// What is found is one of what may be: nothing else from now on.
    pub(crate) fn settle(&mut self, consumer: &Consumer, visited: &mut Visited) {
        let Ok(found) = consumer.checkpoints() else { return }; // the fault; the next one finds it
        for found in found {
            let kept = self.kept(found.shard_id);
            kept.count(&found, visited);
            kept.settle(found, consumer.name());
        }
    }

    /// What is in force for a consumer that is open; where a call failed before, it says which it is.
    pub(crate) fn in_force(&mut self, consumer: &Consumer, shard_id: ShardId) -> Result<Checkpoint, Error> {
        let kept = self.kept(shard_id);
        if kept.kill.len() > 1 {
            kept.settle(consumer.checkpoint(shard_id)?, consumer.name());
        }
        Ok(kept.kill[0].clone())
    }

    pub(crate) fn note(&mut self, next: Checkpoint, outcome: Outcome) {
        self.kept(next.shard_id).note(next, outcome);
    }

    /// Where it stands in a shard, as far as is known.
    pub(crate) fn position(&self, shard_id: ShardId) -> Position {
        let last = self.shards.get(&shard_id).and_then(|kept| kept.kill.last());
        last.map_or(Position::TrimHorizon, |last| last.position)
    }

    pub(crate) fn take(&mut self, consumer: &Consumer, shard_id: ShardId, owner: &str) -> Result<Lease, Error> {
        let before = self.in_force(consumer, shard_id)?;
        let taken = consumer.take(shard_id, owner);
        let outcome = if taken.is_ok() { Outcome::Durable } else { Outcome::Unknown };
        let owner = Some(owner.to_owned());
        self.note(changed(&before, |next| (next.owner, next.epoch) = (owner, before.epoch + 1)), outcome);
        taken
    }

    /// Reads up to so many records under a lease that is in force, durable or not, and makes a checkpoint behind them, or behind the shard's end.
    pub(crate) fn move_on(&mut self, consumer: &Consumer, lease: &Lease, many: usize) -> Result<(), Error> {
        let before = self.in_force(consumer, lease.shard_id())?;
        let mut iterator = lease.iterator()?.include_unsynced(true);
        let records = iterator.available().take(many).collect::<Result<Vec<Record>, _>>()?;
        let (position, stored) = match records.last() {
            Some(record) => {
                let at = RecordPosition::from(record);
                (Position::After(at), lease.checkpoint(at))
            }
            None if iterator.end_of_shard().is_some() => (Position::ShardEnd, lease.checkpoint_end()),
            None => return Ok(()),
        };
        let level = Outcome::of_level(consumer.stream().durability());
        let outcome = if stored.is_ok() { level } else { Outcome::Unknown };
        self.note(changed(&before, |next| next.position = position), outcome);
        stored
    }

    /// Puts these shards at a place of its own choice.
    pub(crate) fn reset(
        &mut self,
        consumer: &Consumer,
        shards: &[ShardId],
        (start, position): (RecordsStart, Position),
    ) -> Result<(), Error> {
        let before = shards.iter().map(|id| self.in_force(consumer, *id)).collect::<Result<Vec<_>, _>>()?;
        let reset = match shards {
            [shard_id] => consumer.reset_shard(*shard_id, start),
            _ => consumer.reset(start),
        };
        let outcome = if reset.is_ok() { Outcome::Durable } else { Outcome::Unknown };
        for before in before {
            let next = changed(&before, |next| {
                (next.position, next.owner, next.epoch) = (position, None, before.epoch + 1);
            });
            self.note(next, outcome);
        }
        reset
    }
}

/// A checkpoint's fields are there to be read; the type itself may get more, and is made by the library alone.
pub(crate) fn changed(before: &Checkpoint, change: impl FnOnce(&mut Checkpoint)) -> Checkpoint {
    let mut next = before.clone();
    change(&mut next);
    next
}

fn untouched(shard_id: ShardId) -> Checkpoint {
    thread_local! {
        static FIRST: Checkpoint = {
            let (disk, clock) = (SimulatedDisk::new(), Arc::new(ManualClock::default()));
            let stream = builder(&disk, &clock).create(PATH).unwrap();
            stream.consumer("c").unwrap().checkpoint(ShardId::new(0)).unwrap()
        };
    }
    let mut checkpoint = FIRST.with(Clone::clone);
    checkpoint.shard_id = shard_id;
    checkpoint
}

/// In each shard the consumer is given exactly what is not done: by number and incarnation, also what took the place of lost records.
pub(crate) fn check_done(consumer: &Consumer, visited: &mut Visited) {
    let stream = consumer.stream();
    for summary in stream.shards() {
        let shard_id = summary.shard_id;
        let mut iterator = stream.shard_iterator(shard_id, ShardIteratorType::TrimHorizon).unwrap();
        let all = iterator.available().collect::<Result<Vec<_>, _>>().unwrap();
        let next = iterator.next_sequence_number();
        let position = consumer.checkpoint(shard_id).unwrap().position;
        let given = match consumer.iterator(shard_id) {
            Err(Error::Trimmed { earliest, .. }) => {
                let Position::After(at) = position else { panic!("trimmed at {position:?}") };
                let replaced = all.first().is_none_or(|first| first.incarnation() > at.incarnation);
                let is_behind = at.sequence_number.next() < earliest;
                assert!(is_behind || replaced, "{} in {shard_id} at {at:?}, {earliest}", consumer.name());
                continue;
            }
            given => drain(given.unwrap()),
        };
        // From one who checkpoints, no leap of the clock hides anything: it may be given what has expired for others.
        let hidden = given.iter().take_while(|first| all.first().is_none_or(|shown| is_before(first, shown)));
        let given: Vec<_> = given.iter().skip(hidden.count()).map(place).collect();
        let expected: Vec<_> = all.iter().filter(|record| !is_done(position, record)).map(place).collect();
        assert_eq!(given, expected, "{} in {shard_id} at {position:?}", consumer.name());
        visited.count("a checkpoint in a child", !summary.parents.is_empty() && position != Position::TrimHorizon);
        visited.count("a checkpoint at the end of a shard", position == Position::ShardEnd);
        if let Position::After(at) = position {
            let is_ahead = at.sequence_number >= next;
            let replaced = given.first().is_some_and(|first| first.0 <= at.sequence_number.get());
            visited.count("a checkpoint behind a lost tail", is_ahead || replaced);
            let may_be_ahead = stream.durability() == Durability::Buffered;
            assert!(!is_ahead || may_be_ahead, "ahead of the data: {at:?}, {next}");
        }
        if position == Position::ShardEnd {
            assert_eq!(summary.state, ShardState::Closed);
        }
    }
}

fn is_done(position: Position, record: &Record) -> bool {
    match position {
        Position::After(at) => {
            record.sequence_number() <= at.sequence_number && record.incarnation() <= at.incarnation
        }
        Position::AtTimestamp(time) => record.arrival() < time,
        Position::ShardEnd => true,
        _ => false,
    }
}

fn is_before(one: &Record, other: &Record) -> bool {
    one.sequence_number() < other.sequence_number()
}

pub(crate) fn place(record: &Record) -> (u64, u64) {
    (record.sequence_number().get(), record.incarnation())
}

pub(crate) fn drain(mut iterator: ShardIterator) -> Vec<Record> {
    iterator.available().collect::<Result<_, _>>().unwrap()
}
