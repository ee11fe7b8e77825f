//! What is kept beside the log: positions of consumers, queues, open windows. Every byte of each of these files is changed, and each is cut to every length.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anabranch::{
    Batch, Checkpoint, Crash, Error, EventSourceOptions, Position, QueueDescription, QueueOptions, SetAside,
    ShardId, SimulatedDisk, Stream, repair,
};

use super::{Case, Outcome, Sample, finds_damage, refused};
use crate::history::{PATH, builder};

pub(super) const CONSUMER: &str = "billing";
const SOURCE: &str = "totals";
const QUEUE: &str = "orders";
/// The layout of a consumer's file.
const HEADER: usize = 256;
const MARK: usize = 248;
const SLOT: usize = 768;

/// What was stored of each shard of the consumer, oldest first.
#[derive(Debug)]
pub(super) struct Kept(BTreeMap<ShardId, Vec<Checkpoint>>);

/// A stream with all of it, and what may be found there.
struct Beside {
    sample: Sample,
    kept: Kept,
    queue: QueueState,
}

/// All that a queue's file has, as the next opening shows it.
#[derive(Debug, PartialEq, Eq)]
struct QueueState {
    described: QueueDescription,
    set_aside: Vec<SetAside>,
    /// Records that are received then: their shards, their numbers, and how often they were received.
    received: Vec<(ShardId, u64, u32)>,
}

/// Whether it is a file of a consumer or a queue.
pub(super) fn is_kept(path: &Path) -> bool {
    ["consumers", "queues"].iter().any(|directory| path.starts_with(Path::new(PATH).join(directory)))
}

impl Kept {
    /// A consumer with positions, a queue with records that are received and not acknowledged, an event source with a window that is open.
    pub(super) fn keep(stream: &Stream) -> Self {
        let positions = keep_positions(stream);
        keep_queue(stream);
        let mut source = stream.consumer(SOURCE).unwrap().event_source("worker", windows()).unwrap();
        let count = |batch: &mut Batch<'_>| {
            note(batch);
            Ok(())
        };
        while source.step(&count).unwrap() > 0 {}
        source.close().unwrap();
        Self(positions)
    }
}

fn keep_positions(stream: &Stream) -> BTreeMap<ShardId, Vec<Checkpoint>> {
    let consumer = stream.consumer(CONSUMER).unwrap();
    let mut positions: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for shard in stream.shards() {
        let shard_id = shard.shard_id;
        let stored = positions.entry(shard_id).or_default();
        let mut note = || stored.push(consumer.checkpoint(shard_id).unwrap());
        note();
        let lease = consumer.take(shard_id, "worker").unwrap();
        note();
        let records: Vec<_> = lease.iterator().unwrap().available().take(3).map(Result::unwrap).collect();
        for record in records {
            lease.checkpoint(&record).unwrap();
            note();
        }
        if shard_id == ShardId::new(0) {
            lease.checkpoint_end().unwrap();
            note();
        }
    }
    positions
}

fn queue_options() -> QueueOptions {
    QueueOptions::new().max_receives(2)
}

/// Of ten records, three are done, one is set aside, and six are received and not acknowledged.
fn keep_queue(stream: &Stream) {
    let queue = stream.queue(QUEUE, queue_options()).unwrap();
    let received = queue.receive(10, Duration::ZERO).unwrap();
    for done in &received[..3] {
        queue.acknowledge(done).unwrap();
    }
    queue.give_back(&received[3]).unwrap();
    let again = queue.receive(1, Duration::ZERO).unwrap();
    queue.give_back(&again[0]).unwrap();
    assert_eq!(queue.set_aside().unwrap().len(), 1);
    queue.sync().unwrap();
}

fn windows() -> EventSourceOptions {
    EventSourceOptions::new().tumbling_window(Duration::from_secs(600)).lanes(2)
}

/// Adds what each record of a batch holds to the state of its key; gives the states.
fn note(batch: &mut Batch<'_>) -> Vec<Vec<u8>> {
    let records = batch.records();
    let mut states = Vec::new();
    for record in records {
        let state = batch.state_mut(record);
        state.push(record.data()[0]);
        states.push(state.clone());
    }
    states
}

impl Beside {
    /// What the queue shows is looked at in a copy.
    fn new((sample, kept): (Sample, Kept)) -> Self {
        let stream = builder(&sample.copy(), &sample.clock).open_existing(PATH).unwrap();
        let queue = queue_state(&stream).unwrap();
        let counts: Vec<_> = queue.received.iter().map(|(_, _, receives)| *receives).collect();
        assert_eq!(counts[..6], [2; 6], "those that were received and not acknowledged come first");
        assert!(counts[6..].iter().all(|receives| *receives == 1) && counts.len() > 6);
        assert_eq!(queue.set_aside.len(), 1);
        Self { sample, kept, queue }
    }

    fn kept_files(&self) -> Vec<PathBuf> {
        let files = self.sample.files_beside_the_log();
        let names: Vec<_> = files.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, [CONSUMER, SOURCE, "~totals~~000000000002~000000000000", QUEUE]);
        files
    }

    /// Damages a copy of one file; gives whether reading was refused, whether `verify` found it, and whether an older position was found. The log is
    /// as it was. A position is none but one of the last `back` that were stored.
    fn damage_kept(
        &self,
        path: &Path,
        case: &Case,
        back: usize,
        change: impl FnOnce(&mut Vec<u8>),
    ) -> (Outcome, bool, bool) {
        let disk = self.sample.copy();
        disk.damage(path, change).unwrap();
        let found = finds_damage(&disk, case);
        let (refusals, is_older) = self.read_kept(&disk.fork(Crash::ProcessKilled), case, back);
        let follower = builder(&disk, &self.sample.clock).open_read_only(PATH).unwrap();
        let followed = self.positions(&follower, &case.and("read-only"), back);
        let is_consumers = path.ends_with(CONSUMER);
        assert_eq!(followed.is_none(), is_consumers && refusals > 0, "{case}: a follower");
        (if refusals == 0 { Outcome::Right } else { Outcome::Refused }, found, is_older)
    }

    /// Opens and uses all of it; gives how often that was refused, and whether a position was an older one.
    fn read_kept(&self, disk: &SimulatedDisk, case: &Case, back: usize) -> (usize, bool) {
        let stream = builder(disk, &self.sample.clock).open_existing(PATH).unwrap();
        assert_eq!(self.sample.read_all(&stream, case), 0, "{case}: the log is sound");
        let mut refusals = 0;
        let mut keep = |outcome: Result<(), Error>| {
            if let Err(error) = outcome {
                refused(&error, case);
                refusals += 1;
            }
        };
        keep(stream.consumers().map(|names| assert_eq!(names, [CONSUMER, SOURCE], "{case}")));
        keep(stream.queues().map(|names| assert_eq!(names, [QUEUE], "{case}")));
        keep(queue_state(&stream).map(|state| assert_eq!(state, self.queue, "{case}")));
        keep(self.count(&stream, case));
        match self.positions(&stream, case, back) {
            Some(is_older) => (refusals, is_older),
            None => (refusals + 1, false),
        }
    }

    /// Looks at each position; whether one of them was not the last. Nothing where that was refused.
    fn positions(&self, stream: &Stream, case: &Case, back: usize) -> Option<bool> {
        let consumer = match stream.consumer(CONSUMER) {
            Ok(consumer) => consumer,
            Err(error) => {
                refused(&error, case);
                return None;
            }
        };
        let found = consumer.checkpoints().unwrap();
        assert_eq!(found.len(), self.kept.0.len(), "{case}");
        let mut is_older = false;
        for (checkpoint, stored) in found.iter().zip(self.kept.0.values()) {
            let last = stored.len().saturating_sub(back);
            assert!(
                stored[last..].contains(checkpoint),
                "{case}: {checkpoint:?} is none of {:?}",
                &stored[last..]
            );
            is_older |= Some(checkpoint) != stored.last();
        }
        Some(is_older)
    }

    /// Lets the source go on. Each state is that of all records of its key up to the one that was handled, those that a parent had included; no shard is
    /// ahead of what was handled.
    fn count(&self, stream: &Stream, case: &Case) -> Result<(), Error> {
        let states = Mutex::new(Vec::new());
        let handler = |batch: &mut Batch<'_>| {
            let found = note(batch);
            states.lock().unwrap().extend(found);
            Ok(())
        };
        let consumer = stream.consumer(SOURCE)?;
        for checkpoint in consumer.checkpoints()? {
            let may_be_done = checkpoint.shard_id == ShardId::new(0);
            assert!(may_be_done || checkpoint.position == Position::TrimHorizon, "{case}: {checkpoint:?}");
        }
        let mut source = consumer.event_source("worker", windows())?;
        let mut outcome = Ok(());
        for _ in 0..20 {
            outcome = outcome.and(source.step(&handler).map(drop));
        }
        let states = states.into_inner().unwrap();
        let all = self.states();
        let is_one = |state: &Vec<u8>| all.iter().any(|all| all.starts_with(state));
        assert!(states.iter().all(is_one), "{case}: a state of other records");
        let is_whole = all.iter().all(|all| states.contains(all));
        assert_eq!(is_whole, outcome.is_ok(), "{case}: {outcome:?}");
        outcome
    }

    /// What the states of the two keys come to: one has its records in a shard and its child.
    fn states(&self) -> [Vec<u8>; 2] {
        let of = |shards: &[u32]| {
            let records = self.sample.contents.iter().filter(|((id, _), _)| shards.contains(&id.get()));
            records.map(|(_, data)| data[0]).collect()
        };
        [of(&[0, 2]), of(&[1])]
    }
}

fn queue_state(stream: &Stream) -> Result<QueueState, Error> {
    let queue = stream.queue(QUEUE, queue_options())?;
    let (described, set_aside) = (queue.describe()?, queue.set_aside()?);
    let received = queue.receive(10, Duration::ZERO)?;
    let received = received.iter().map(|received| {
        let record = &received.record;
        (record.shard_id(), record.sequence_number().get(), received.receive_count)
    });
    Ok(QueueState { described, set_aside, received: received.collect() })
}

fn is_consumers(path: &Path) -> bool {
    path.ends_with(CONSUMER) || path.ends_with(SOURCE)
}

/// The unit around a byte that has a checksum of its own: of a consumer's file the header, the mark of a deletion, a slot.
fn unit(path: &Path, at: usize, length: usize) -> Range<u64> {
    let unit = match at {
        _ if !is_consumers(path) => 0..length,
        0..MARK => 0..MARK,
        MARK..HEADER => MARK..HEADER,
        _ => {
            let slot = at - (at - HEADER) % SLOT;
            slot..slot + SLOT
        }
    };
    unit.start as u64..unit.end as u64
}

#[test]
fn every_changed_byte_beside_the_log_is_right_or_refused() {
    // The files are the same once the writer was killed; the openings are not.
    for (sample, step) in [(Sample::closed_with_kept(), 1), (Sample::killed_with_kept(), 7)] {
        let beside = Beside::new(sample);
        let (mut older, mut newest) = (0, 0);
        for path in beside.kept_files() {
            let bytes = beside.sample.disk.read_file(&path).unwrap();
            for at in (0..bytes.len()).step_by(step) {
                let unit = unit(&path, at, bytes.len());
                // One damaged copy of a slot leaves another: the one in force, or the one before it.
                let has_copies = is_consumers(&path) && at >= HEADER;
                for pattern in [1 << (at % 8), 0xff] {
                    let name = format!("{} byte {at} by {pattern:#x}", path.display());
                    let case = Case::new(name, &path, unit.clone());
                    let (outcome, found, is_older) =
                        beside.damage_kept(&path, &case, 2, |bytes| bytes[at] ^= pattern);
                    assert_eq!(outcome == Outcome::Right, has_copies, "{case}");
                    assert_eq!(found, !has_copies, "{case}: seen by verify");
                    older += usize::from(is_older);
                    newest += usize::from(!is_older && has_copies);
                }
            }
        }
        assert!(older > 0 && newest > 0, "{older} and {newest}");
    }
}

#[test]
fn files_beside_the_log_of_another_length_are_right_or_refused() {
    let beside = Beside::new(Sample::closed_with_kept());
    for path in beside.kept_files() {
        let bytes = beside.sample.disk.read_file(&path).unwrap();
        let name = path.display();
        for length in 0..bytes.len() {
            // Of a consumer's file that was cut, the slots that are not there to their ends are said to be damaged, the first one first.
            let unit = unit(&path, if length < HEADER { 0 } else { length }, bytes.len());
            let case = Case::new(format!("{name} cut to {length}"), &path, unit.start..bytes.len() as u64);
            let (outcome, found, _) = beside.damage_kept(&path, &case, 1, |bytes| bytes.truncate(length));
            assert_eq!((outcome, found), (Outcome::Refused, true), "{case}");
        }
        for more in [1, 8, 4096] {
            let case = Case::new(format!("{name} with {more} more bytes"), &path, 0..bytes.len() as u64 + more);
            let (outcome, found, is_older) = beside.damage_kept(&path, &case, 1, |bytes| {
                bytes.extend(vec![7; usize::try_from(more).unwrap()]);
            });
            // Behind the slots there may be the beginning of one whose making was cut short: its first copy.
            let is_harmless = is_consumers(&path) && more < 256;
            assert_eq!((outcome == Outcome::Right, found), (is_harmless, !is_harmless), "{case}");
            assert!(!is_older, "{case}");
        }
    }
}

/// A slot that is not there to its end is given up, and its shard begun anew; what stands before it stays. The shards that came by a split are among them,
/// which the file had no slots for when it was made.
#[test]
fn a_consumers_file_that_was_cut_is_mended() {
    let beside = Beside::new(Sample::closed_with_kept());
    let path = Path::new(PATH).join("consumers").join(CONSUMER);
    let slots = beside.kept.0.len();
    for (cut, length) in [HEADER, HEADER + SLOT, HEADER + SLOT + 300, HEADER + 3 * SLOT].into_iter().enumerate() {
        let whole = (length - HEADER) / SLOT;
        let disk = beside.sample.copy();
        disk.damage(&path, |bytes| bytes.truncate(length)).unwrap();
        let report = repair(PATH, Some(Arc::new(disk.clone()))).unwrap();
        let offsets: Vec<_> = report.before.damage.iter().map(|found| found.offset).collect();
        // The header counts those that the file was made with, of the two shards that there were then, and the first slot all of them.
        let counted = if whole == 0 { 2 } else { slots };
        let expected = (whole..counted).map(|slot| (HEADER + slot * SLOT) as u64);
        assert!(offsets.iter().copied().eq(expected), "cut {cut}: {offsets:?}");
        assert!(report.after.is_sound(), "cut {cut}: {:?}", report.after.damage);
        let stream = builder(&disk, &beside.sample.clock).open_existing(PATH).unwrap();
        let consumer = stream.consumer(CONSUMER).unwrap();
        for (place, (shard_id, stored)) in beside.kept.0.iter().enumerate() {
            let expected = if place < whole { stored.last() } else { None };
            let found = consumer.checkpoint(*shard_id).unwrap();
            let is_untouched = found.position == Position::TrimHorizon && found.epoch == 0;
            assert!(expected.map_or(is_untouched, |stored| *stored == found), "cut {cut}: {found:?}");
        }
    }
}
