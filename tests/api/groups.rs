//! Groups: workers share the shards of a consumer, die, stall, come back, while the shards split and merge.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anabranch::storage::{Operation, Storage};
use anabranch::{
    Clock, Consumer, DiskFault, Durability, Error, ErrorKind, Handler, ManualClock, Position, Record,
    RecordsStart, Result, ShardId, SimulatedDisk, Stream, Work, Worker, WorkerOptions,
};

use crate::support::{
    DEADLINE, Mixer, S0, S1, builder, eventually, expire, fill_large, number, put_to, read_stream, simulated,
    split_undurably, stream,
};

const LEASE: Duration = Duration::from_secs(9);

fn options() -> WorkerOptions {
    WorkerOptions::new().lease_time(LEASE)
}

fn worker(consumer: &Consumer, name: &str) -> Worker {
    consumer.worker(name, options()).unwrap()
}

/// All that a worker has to do now.
fn all(worker: &mut Worker) -> Vec<Work> {
    std::iter::from_fn(|| worker.poll().unwrap()).collect()
}

/// Lets the workers look around until nothing changes any more.
fn settle(clock: &ManualClock, workers: &mut [&mut Worker]) {
    for _ in 0..10 {
        clock.advance(LEASE / 3);
        for worker in workers.iter_mut() {
            all(worker);
        }
    }
}

fn counts(workers: &[&mut Worker]) -> Vec<usize> {
    workers.iter().map(|worker| worker.shards().len()).collect()
}

#[test]
fn workers_share_the_shards_evenly_and_steal_one_at_a_time() {
    let (_disk, clock, stream) = simulated(builder().shards(8));
    let consumer = stream.consumer("c").unwrap();
    let (mut a, mut b, mut c) = (worker(&consumer, "a"), worker(&consumer, "b"), worker(&consumer, "c"));
    assert_eq!(all(&mut a).len(), 8, "alone it has all");
    let mut before = 0;
    for _ in 0..4 {
        all(&mut b);
        assert!(b.shards().len() - before <= 1, "one a round");
        before = b.shards().len();
        clock.advance(LEASE / 3);
        all(&mut a);
    }
    assert_eq!((a.shards().len(), b.shards().len()), (4, 4));
    settle(&clock, &mut [&mut a, &mut b, &mut c]);
    let mut shares = counts(&[&mut a, &mut b, &mut c]);
    shares.sort_unstable();
    assert_eq!(shares, [2, 3, 3]);
    let held: BTreeSet<_> = [&a, &b, &c].into_iter().flat_map(Worker::shards).collect();
    assert_eq!(held.len(), 8, "each shard is one worker's");
    b.close().unwrap();
    clock.advance(LEASE / 3);
    all(&mut a);
    all(&mut c);
    assert_eq!(a.shards().len() + c.shards().len(), 8, "what is given back is taken at once");
    assert_eq!((a.name(), a.consumer().name()), ("a", "c"));
}

#[test]
fn a_dead_workers_shards_move_within_its_lease_time_whatever_the_wall_clock_does() {
    let (_disk, clock, stream) = simulated(builder().shards(2));
    for _ in 0..3 {
        put_to(&stream, S0, "key", b"data");
        put_to(&stream, S1, "key", b"data");
    }
    let consumer = stream.consumer("c").unwrap();
    let (mut dies, mut lives) = (worker(&consumer, "dies"), worker(&consumer, "lives"));
    for work in all(&mut dies) {
        if let Work::Records { shard_id: S0, records } = work {
            dies.checkpoint(S0, &records[1]).unwrap();
        }
    }
    drop(dies);
    assert!(all(&mut lives).iter().all(|work| matches!(work, Work::Started(_) | Work::Records { .. })));
    assert!(lives.shards().len() < 2, "at most one was stolen");
    clock.set(anabranch::Timestamp::from_millis(i64::MAX / 2));
    all(&mut lives);
    clock.set(anabranch::Timestamp::from_millis(0));
    all(&mut lives);
    assert!(lives.shards().len() < 2, "no time has passed");
    let mut work = Vec::new();
    for _ in 0..4 {
        clock.advance(LEASE / 3);
        work.extend(all(&mut lives));
    }
    assert_eq!(lives.shards(), [S0, S1]);
}

/// Nobody renews it, so that it has nothing to be dead by.
#[test]
fn what_was_taken_by_hand_is_left_to_its_owner() {
    let (_disk, clock, stream) = simulated(builder().shards(4));
    let consumer = stream.consumer("c").unwrap();
    let by_hand: Vec<_> = (0..4).map(|id| consumer.take(ShardId::new(id), "hand").unwrap()).collect();
    let (mut other, mut of_its_name) = (worker(&consumer, "other"), worker(&consumer, "hand"));
    settle(&clock, &mut [&mut other, &mut of_its_name]);
    assert_eq!(counts(&[&mut other, &mut of_its_name]), [0, 0]);
    for lease in by_hand {
        assert_eq!(lease.owner(), "hand");
        lease.release().unwrap();
    }
    settle(&clock, &mut [&mut other, &mut of_its_name]);
    assert_eq!(counts(&[&mut other, &mut of_its_name]), [2, 2]);
}

/// They share what is left, all of it.
#[test]
fn who_took_a_shard_by_hand_has_no_share_of_the_others() {
    let (_disk, clock, stream) = simulated(builder().shards(4));
    let consumer = stream.consumer("c").unwrap();
    let _by_hand = consumer.take(S0, "hand").unwrap();
    let mut one = worker(&consumer, "one");
    settle(&clock, &mut [&mut one]);
    assert_eq!(one.shards().len(), 3);
    let mut two = worker(&consumer, "two");
    settle(&clock, &mut [&mut one, &mut two]);
    assert_eq!(counts(&[&mut one, &mut two]), [2, 1]);
}

#[test]
fn a_worker_that_comes_back_under_its_name_need_not_wait() {
    let (disk, clock, stream) = simulated(builder().shards(3));
    let consumer = stream.consumer("c").unwrap();
    let mut first = worker(&consumer, "w");
    assert_eq!(all(&mut first).len(), 3);
    let taken = consumer.worker("w", options()).unwrap_err();
    assert!(matches!(&taken, Error::WorkerExists(name) if name == "w"), "{taken:?}");
    assert_eq!(taken.kind(), ErrorKind::AlreadyExists);
    let reader = builder().storage(Arc::new(disk.clone())).clock(clock.clone()).open_read_only("stream").unwrap();
    let elsewhere = reader.consumer("c").unwrap();
    assert!(matches!(elsewhere.worker("w", options()), Err(Error::WorkerExists(_))), "in another process");
    drop(first);
    let mut again = elsewhere.worker("w", options()).unwrap();
    assert_eq!(all(&mut again).len(), 3);
}

fn claims(disk: &SimulatedDisk) -> Vec<String> {
    let names = disk.list("stream/consumers".as_ref()).unwrap().into_iter().map(|entry| entry.name);
    names.filter(|name| name.starts_with("~c~")).collect()
}

#[test]
fn workers_leave_nothing_of_their_names() {
    let (disk, _clock, stream) = simulated(builder());
    let consumer = stream.consumer("c").unwrap();
    for number in 0..10 {
        let name = format!("w{number}");
        let (closed, dropped) = (worker(&consumer, &name), worker(&consumer, "other"));
        assert_eq!(claims(&disk).len(), 2);
        closed.close().unwrap();
        drop(dropped);
    }
    assert_eq!(claims(&disk), Vec::<String>::new());
}

/// Its name was free as soon as its consumer was deleted.
#[test]
fn a_worker_of_a_deleted_consumer_leaves_the_name_to_who_has_it_now() {
    let (disk, _clock, stream) = simulated(builder());
    let former = worker(&stream.consumer("c").unwrap(), "w");
    stream.delete_consumer("c").unwrap();
    let consumer = stream.consumer("c").unwrap();
    let present = worker(&consumer, "w");
    drop(former);
    assert_eq!(claims(&disk), ["~c~w"]);
    assert!(matches!(consumer.worker("w", options()), Err(Error::WorkerExists(_))));
    drop(present);
    assert_eq!(claims(&disk), Vec::<String>::new());
}

#[test]
fn names_that_are_too_long_together_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let stream = builder().create(directory.path().join("stream")).unwrap();
    let consumer = stream.consumer(&"c".repeat(128)).unwrap();
    drop(worker(&consumer, &"w".repeat(125)));
    for length in 126..=128 {
        let refused = consumer.worker(&"w".repeat(length), options()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{length}: {refused:?}");
    }
    drop(worker(&stream.consumer("c").unwrap(), &"w".repeat(128)));
}

#[test]
fn a_child_is_given_when_every_parent_is_finished() {
    let (_disk, clock, stream) = simulated(builder().shards(2));
    let consumer = stream.consumer("c").unwrap();
    let mut worker = worker(&consumer, "w");
    for shard_id in [S0, S1] {
        put_to(&stream, shard_id, "key", b"parent");
    }
    let child = stream.merge_shards(S0, S1).unwrap();
    put_to(&stream, child, "key", b"child");
    let Some(Work::Started(first)) = worker.poll().unwrap() else { panic!("nothing begins") };
    let early = worker.finish(first.shard_id).unwrap_err(); // it is closed, and not given to its end
    assert_eq!(early.kind(), ErrorKind::InvalidInput);
    let mut ended = Vec::new();
    for work in all(&mut worker) {
        match work {
            Work::Ended(shard_id) => ended.push(shard_id),
            Work::Started(checkpoint) => assert_ne!(checkpoint.shard_id, child),
            Work::Records { shard_id, records } => worker.checkpoint(shard_id, &records[0]).unwrap(),
            _ => panic!("nobody else is there"),
        }
    }
    ended.sort_unstable();
    assert_eq!(ended, [S0, S1]);
    let early = worker.finish(child).unwrap_err();
    assert!(matches!(early, Error::LeaseLost { .. }), "{early:?}");
    worker.finish(S0).unwrap();
    clock.advance(LEASE);
    assert_eq!(all(&mut worker).len(), 0, "one of two parents is not enough");
    worker.finish(S1).unwrap();
    let work = all(&mut worker);
    assert!(matches!(&work[0], Work::Started(at) if at.shard_id == child && at.position == Position::TrimHorizon));
    assert!(matches!(&work[1], Work::Records { shard_id, records } if *shard_id == child && records.len() == 1));
    let not_over = worker.finish(child).unwrap_err();
    assert_eq!(not_over.kind(), ErrorKind::InvalidInput);
    assert_eq!(consumer.checkpoint(S0).unwrap().owner, None);
}

#[test]
fn bad_use_is_told() {
    let (_disk, clock, stream) = simulated(builder());
    let consumer = stream.consumer("c").unwrap();
    for lease_time in [Duration::ZERO, Duration::from_millis(9), Duration::from_secs(100_000), Duration::MAX] {
        let refused = consumer.worker("w", WorkerOptions::new().lease_time(lease_time)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{lease_time:?}");
    }
    assert!(consumer.worker("w", options().max_records(0)).is_err());
    assert!(consumer.worker("a/b", options()).is_err());
    put_to(&stream, S0, "key", b"data");
    let (mut stalled, mut other) = (worker(&consumer, "stalled"), worker(&consumer, "other"));
    let Some(Work::Records { records, .. }) = all(&mut stalled).pop() else { panic!() };
    all(&mut other);
    clock.advance(LEASE);
    let given = all(&mut other);
    assert!(matches!(given.last(), Some(Work::Records { records, .. }) if records.len() == 1), "{given:?}");
    let refused = stalled.checkpoint(S0, &records[0]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused:?}");
    let refused = stalled.checkpoint(S0, &records[0]).unwrap_err();
    assert!(matches!(refused, Error::LeaseLost { .. }), "{refused:?}");
    other.checkpoint(S0, &records[0]).unwrap();
    // One that was taken by hand is left alone.
    let by_hand = consumer.take(S0, "somebody").unwrap();
    for _ in 0..5 {
        clock.advance(LEASE);
        all(&mut other);
        all(&mut stalled);
    }
    assert_eq!((other.shards().len(), stalled.shards().len()), (0, 0));
    by_hand.release().unwrap();
    clock.advance(LEASE);
    all(&mut other);
    assert_eq!(other.shards(), [S0]);
    consumer.reset(RecordsStart::TrimHorizon).unwrap();
    clock.advance(LEASE);
    let work = all(&mut other);
    assert!(matches!(work[0], Work::Lost(S0)) && matches!(work[1], Work::Started(_)), "{work:?}");
    stream.delete_consumer("c").unwrap();
    clock.advance(LEASE);
    assert!(matches!(other.poll(), Err(Error::ConsumerNotFound(_))));
    assert!(matches!(consumer.worker("new", options()), Err(Error::ConsumerNotFound(_))));
}

#[test]
fn a_worker_that_retention_overtook_is_told_once_and_goes_on() {
    let (_directory, stream) = stream(builder().segment_bytes(4 << 10));
    fill_large(&stream, S0, 30);
    let consumer = stream.consumer("c").unwrap();
    consumer.take(S0, "w").unwrap().checkpoint_at(number(3)).unwrap();
    consumer.take(S0, "w").unwrap().release().unwrap();
    stream.trim_shard(S0, number(20)).unwrap();
    let mut worker = worker(&consumer, "w");
    assert!(matches!(worker.poll(), Ok(Some(Work::Started(_)))));
    assert!(matches!(worker.poll(), Err(Error::Trimmed { earliest, .. }) if earliest == number(20)));
    let work = all(&mut worker);
    assert!(matches!(&work[0], Work::Records { records, .. } if records[0].sequence_number() == number(20)));
}

/// What one worker of the property is in the middle of.
struct Actor {
    worker: Worker,
    /// Handled, and not checkpointed yet.
    batch: Option<(ShardId, Vec<Record>)>,
    ended: Vec<ShardId>,
}

/// What has happened, against which everything is checked.
#[derive(Default)]
struct Story {
    /// Records that were given to somebody.
    given: BTreeSet<(ShardId, u64)>,
    /// By shard, the number behind what is checkpointed.
    done: BTreeMap<ShardId, u64>,
    finished: BTreeSet<ShardId>,
    zombies: u64,
}

impl Story {
    /// A batch under a lease that is in force: nothing of it was done before, and its parents were.
    fn give(&mut self, consumer: &Consumer, worker: &Worker, shard_id: ShardId, records: &[Record]) {
        let checkpoint = consumer.checkpoint(shard_id).unwrap();
        let is_live = checkpoint.owner.as_deref() == Some(worker.name()) && worker.shards().contains(&shard_id);
        let done = self.done.get(&shard_id).copied().unwrap_or(0);
        for record in records {
            let number = record.sequence_number().get();
            assert!(!is_live || number >= done, "{number} of {shard_id} is given again, done below {done}");
            self.given.insert((shard_id, number));
        }
        let shards = consumer.stream().shards();
        let summary = shards.iter().find(|shard| shard.shard_id == shard_id).unwrap();
        for parent in &summary.parents {
            assert!(self.finished.contains(parent), "{shard_id} is given before its parent {parent} is finished");
        }
    }

    fn checkpoint(&mut self, stream: &Stream, shard_id: ShardId, last: u64) {
        for record in crate::support::read_all(stream, shard_id) {
            let number = record.sequence_number().get();
            let is_skipped = number <= last && !self.given.contains(&(shard_id, number));
            assert!(!is_skipped, "{number} of {shard_id} is done and was never given");
        }
        let done = self.done.entry(shard_id).or_insert(0);
        assert!(*done <= last + 1, "a checkpoint went back");
        *done = last + 1;
    }
}

/// Several workers, in two processes, stall, die and come back under other names or their own; shards split and merge. No record is skipped, none
/// is handled twice under a live lease after its checkpoint, no child before its parents, and no zombie's checkpoint counts.
#[test]
fn groups_skip_nothing_and_repeat_nothing_that_is_done() {
    let (first, runs) = (number_of("GROUP_SEED", 1), number_of("GROUP_RUNS", 60));
    let mut zombies = 0;
    for seed in first..first + runs {
        let outcome = std::panic::catch_unwind(|| run_group(seed));
        assert!(outcome.is_ok(), "failed: GROUP_SEED={seed} GROUP_RUNS=1");
        zombies += outcome.unwrap();
    }
    assert!(zombies > 0 || runs < 10, "no zombie was ever refused");
}

fn number_of(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

fn run_group(seed: u64) -> u64 {
    let mut mixer = Mixer(seed);
    let disk: Arc<SimulatedDisk> = Arc::default();
    let clock = Arc::new(ManualClock::default());
    let open = || builder().storage(disk.clone()).clock(clock.clone());
    let durability = if mixer.coin() { Durability::Synced } else { Durability::Buffered };
    let stream = open().shards(2).durability(durability).create("stream").unwrap();
    let reader = open().open_read_only("stream").unwrap();
    let consumers = [stream.consumer("c").unwrap(), reader.consumer("c").unwrap()];
    let (mut story, mut actors, mut names) = (Story::default(), Vec::new(), 0);
    let mut below = |bound: u64| mixer.next() % bound;
    for _ in 0..400 {
        match below(16) {
            0 if actors.len() < 4 => {
                names += 1;
                let name = format!("w{}", if below(2) == 0 { names } else { below(3) });
                let consumer = &consumers[usize::try_from(below(2)).unwrap()];
                match consumer.worker(&name, options().max_records(3)) {
                    Ok(worker) => actors.push(Actor { worker, batch: None, ended: Vec::new() }),
                    Err(error) => assert!(matches!(error, Error::WorkerExists(_)), "{error:?}"),
                }
            }
            1 if below(4) == 0 && !actors.is_empty() => {
                drop(actors.swap_remove(usize::try_from(below(actors.len() as u64)).unwrap()));
            }
            2 if below(4) == 0 && !actors.is_empty() => {
                let actor = actors.swap_remove(usize::try_from(below(actors.len() as u64)).unwrap());
                actor.worker.close().unwrap();
            }
            3..=5 => {
                for _ in 0..below(5) {
                    stream.put(format!("key {}", below(9)), b"data").unwrap();
                }
            }
            6 if below(3) == 0 => {
                let open = stream.open_shards();
                if open.len() < 4 && below(2) == 0 {
                    stream.split_shard(open[0], None).unwrap();
                } else if open.len() > 1 {
                    stream.merge_shards(open[0], open[1]).unwrap();
                }
            }
            7 => clock.advance(LEASE / u32::try_from(1 + below(9)).unwrap()),
            8 => clock.set(anabranch::Timestamp::from_millis(i64::try_from(below(1 << 40)).unwrap())),
            _ if actors.is_empty() => {}
            _ => {
                let at = usize::try_from(below(actors.len() as u64)).unwrap();
                act(&mut actors[at], &mut story, &stream, below(4) > 0);
            }
        }
    }
    // One that stays and does not stall gets it all.
    drop(actors);
    let mut last = Actor { worker: worker(&consumers[0], "last"), batch: None, ended: Vec::new() };
    for _ in 0..4_000 {
        clock.advance(LEASE / 9);
        act(&mut last, &mut story, &stream, true);
    }
    let all = read_stream(&stream);
    assert!(all.iter().all(|record| story.given.contains(&(record.shard_id(), record.sequence_number().get()))));
    for record in all {
        let done = story.done.get(&record.shard_id()).copied().unwrap_or(0);
        assert!(done > record.sequence_number().get(), "{record:?} was never done");
    }
    assert!(clock.monotonic() > Duration::ZERO);
    story.zombies
}

/// One step of a worker: checkpoints what it handled, finishes what ended, or asks for more.
fn act(actor: &mut Actor, story: &mut Story, stream: &Stream, prompt: bool) {
    if !prompt {
        return; // it stalls
    }
    let consumer = actor.worker.consumer().clone();
    let holds = |shard_id: ShardId| consumer.checkpoint(shard_id).unwrap();
    if let Some((shard_id, records)) = actor.batch.take() {
        let last = records.last().unwrap();
        let before = holds(shard_id);
        match actor.worker.checkpoint(shard_id, last) {
            Ok(()) => {
                assert_eq!(before.owner.as_deref(), Some(actor.worker.name()), "a zombie's checkpoint counted");
                story.checkpoint(stream, shard_id, last.sequence_number().get());
            }
            Err(Error::LeaseLost { .. }) => {
                story.zombies += 1;
                assert_eq!(holds(shard_id), before, "what is refused changes nothing");
            }
            // A worker that lost the shard and has it again is behind what was done meanwhile.
            Err(Error::BehindCheckpoint { .. }) => story.zombies += 1,
            Err(error) => panic!("{error:?}"),
        }
        return;
    }
    if let Some(shard_id) = actor.ended.pop() {
        match actor.worker.finish(shard_id) {
            Ok(()) => {
                if let Some(last) = crate::support::read_all(stream, shard_id).last() {
                    story.checkpoint(stream, shard_id, last.sequence_number().get());
                }
                story.finished.insert(shard_id);
            }
            Err(Error::LeaseLost { .. } | Error::InvalidArgument { .. }) => story.zombies += 1,
            Err(error) => panic!("{error:?}"),
        }
        return;
    }
    match actor.worker.poll().unwrap() {
        Some(Work::Records { shard_id, records }) => {
            story.give(&consumer, &actor.worker, shard_id, &records);
            actor.batch = Some((shard_id, records));
        }
        Some(Work::Ended(shard_id)) => actor.ended.push(shard_id),
        _ => {}
    }
}

/// Counts what it is told.
#[derive(Default)]
struct Counts {
    started: AtomicU64,
    records: AtomicU64,
    ended: AtomicU64,
}

impl Handler for &Counts {
    fn initialize(&mut self, _: &anabranch::Checkpoint) -> Result<()> {
        self.started.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn process(&mut self, worker: &mut Worker, shard_id: ShardId, records: &[Record]) -> Result<()> {
        self.records.fetch_add(records.len() as u64, Ordering::SeqCst);
        worker.checkpoint_last(shard_id, records)
    }

    fn shard_ended(&mut self, worker: &mut Worker, shard_id: ShardId) -> Result<()> {
        self.ended.fetch_add(1, Ordering::SeqCst);
        worker.finish(shard_id)
    }
}

/// Says no more than what is done with records.
struct Records<'a>(&'a AtomicU64);

impl Handler for Records<'_> {
    fn process(&mut self, worker: &mut Worker, shard_id: ShardId, records: &[Record]) -> Result<()> {
        self.0.fetch_add(records.len() as u64, Ordering::SeqCst);
        worker.checkpoint_last(shard_id, records)
    }
}

#[test]
fn a_handler_of_records_alone_gets_behind_a_split() {
    let (_directory, stream) = stream(builder());
    put_to(&stream, S0, "key", b"parent");
    let (lower, upper) = stream.split_shard(S0, None).unwrap();
    put_to(&stream, lower, "key", b"child");
    put_to(&stream, upper, "key", b"child");
    let (records, deadline) = (AtomicU64::new(0), Instant::now() + DEADLINE);
    let is_over = || records.load(Ordering::SeqCst) == 3 || Instant::now() > deadline;
    worker(&stream.consumer("c").unwrap(), "w").run(&mut Records(&records), is_over).unwrap();
    assert_eq!(records.load(Ordering::SeqCst), 3);
}

#[test]
fn handlers_of_two_threads_get_a_stream_through_a_split_and_a_merge() {
    let (_directory, stream) = stream(builder().shards(2));
    let consumer = stream.consumer("c").unwrap();
    let (counts, stop) = (Counts::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for name in ["one", "two"] {
            let (consumer, counts, stop) = (&consumer, &counts, &stop);
            scope.spawn(move || {
                let options = WorkerOptions::new().lease_time(Duration::from_millis(300));
                let mut worker = consumer.worker(name, options).unwrap();
                let mut handler = counts;
                worker.run(&mut handler, || stop.load(Ordering::SeqCst)).unwrap();
                worker.close().unwrap();
            });
        }
        for round in 0..300 {
            stream.put(format!("key {}", round % 7), b"data").unwrap();
            match round {
                100 => drop(stream.split_shard(S0, None).unwrap()),
                200 => drop(stream.merge_shards(stream.open_shards()[0], stream.open_shards()[1]).unwrap()),
                _ => {}
            }
        }
        let left = |id: &ShardId| consumer.iterator(*id).unwrap().available().count();
        eventually("all is handled", || stream.open_shards().iter().map(left).sum::<usize>() == 0);
        eventually("three shards ended", || counts.ended.load(Ordering::SeqCst) >= 3);
        stop.store(true, Ordering::SeqCst);
    });
    assert!(counts.records.load(Ordering::SeqCst) >= 300);
    assert!(counts.started.load(Ordering::SeqCst) >= 5);
}

/// A worker that is slow, or was paused, is overtaken by retention: it is told once, and goes on with what is left.
#[test]
fn a_shard_that_retention_overtakes_while_it_is_held_goes_on_at_the_horizon() {
    let (_disk, _clock, stream) = simulated(builder().segment_bytes(4 << 10));
    fill_large(&stream, S0, 2);
    let mut worker = worker(&stream.consumer("c").unwrap(), "w");
    assert_eq!(all(&mut worker).len(), 2, "it begins, and has the first two");
    worker.pause(S0);
    fill_large(&stream, S0, 40);
    let trimmed = stream.trim_shard(S0, number(30)).unwrap();
    assert!(trimmed.segments_removed > 2);
    worker.resume(S0);
    let (mut found, mut told) = (Vec::new(), 0);
    while found.last() != Some(&41) {
        match worker.poll() {
            Ok(Some(Work::Records { records, .. })) => {
                found.extend(records.iter().map(|record| record.sequence_number().get()));
            }
            Err(Error::Trimmed { .. }) => told += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(told, 1);
    assert!(found.contains(&30) && found.is_sorted(), "{found:?}");
}

/// The parent is done: so all of the child is due.
#[test]
fn a_consumer_is_told_what_it_missed_of_a_child() {
    let (_directory, stream) = stream(builder().segment_bytes(4 << 10));
    let follower = builder().open_read_only(stream.path()).unwrap();
    put_to(&stream, S0, "key", b"before");
    let consumers = [("c", &stream), ("d", &follower)].map(|(name, stream)| stream.consumer(name).unwrap());
    let mut workers = [0, 1].map(|index| worker(&consumers[index], "w"));
    for worker in &mut workers {
        assert_eq!(all(worker).len(), 2);
    }
    let (lower, _) = stream.split_shard(S0, None).unwrap();
    for worker in &mut workers {
        assert!(matches!(all(worker)[..], [Work::Ended(S0)]));
        worker.finish(S0).unwrap();
    }
    fill_large(&stream, lower, 12);
    stream.trim_shard(lower, number(10)).unwrap();
    for worker in &mut workers {
        let (mut found, mut told) = (Vec::new(), Vec::new());
        while found.len() < 3 {
            match worker.poll() {
                Ok(Some(Work::Records { records, .. })) => {
                    assert_eq!(told.len(), 1, "first");
                    found.extend(records.iter().map(|record| record.sequence_number().get()));
                }
                Ok(Some(Work::Started(_))) => {}
                Err(Error::Trimmed { shard_id, requested, earliest }) => {
                    told.push((shard_id, requested, earliest));
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((found, told), (vec![10, 11, 12], vec![(lower, number(1), number(10))]));
    }
}

#[test]
fn errors_of_shards_come_behind_what_the_round_did_to_the_others() {
    let (_disk, clock, stream) = simulated(builder().shards(3).segment_bytes(4 << 10));
    let consumer = stream.consumer("c").unwrap();
    let mut worker = worker(&consumer, "w");
    let shards = [S0, S1, ShardId::new(2)];
    for (shard_id, records) in shards.into_iter().zip([2, 20, 20]) {
        fill_large(&stream, shard_id, records);
    }
    for work in all(&mut worker) {
        if let Work::Records { shard_id, records } = work {
            worker.checkpoint(shard_id, &records[0]).unwrap();
        }
    }
    for shard_id in shards {
        consumer.take(shard_id, "other").unwrap().release().unwrap();
    }
    for shard_id in &shards[1..] {
        assert!(stream.trim_shard(*shard_id, number(12)).unwrap().segments_removed > 0);
    }
    clock.advance(LEASE / 3);
    let mut told = Vec::new();
    for _ in 0..8 {
        told.push(match worker.poll() {
            Ok(Some(Work::Lost(shard_id))) => format!("lost {}", shard_id.get()),
            Ok(Some(Work::Started(checkpoint))) => format!("started {}", checkpoint.shard_id.get()),
            Err(Error::Trimmed { shard_id, .. }) => format!("trimmed {}", shard_id.get()),
            other => panic!("{other:?}"),
        });
    }
    let expected = ["lost 0", "lost 1", "lost 2", "started 0", "started 1", "started 2", "trimmed 1", "trimmed 2"];
    assert_eq!(told, expected);
}

/// Notes what it was given, and fails once at each of these, by this error.
struct FailsOnce<'a> {
    error: Error,
    fails: Vec<&'a str>,
    log: Vec<String>,
}

impl FailsOnce<'_> {
    fn note(&mut self, what: String) -> Result<()> {
        let fails = self.fails.iter().position(|fails| what == *fails);
        self.log.push(what);
        match fails.map(|at| self.fails.remove(at)) {
            Some(_) => Err(self.error.clone()),
            None => Ok(()),
        }
    }
}

impl Handler for FailsOnce<'_> {
    fn initialize(&mut self, checkpoint: &anabranch::Checkpoint) -> Result<()> {
        self.note(format!("begin {}", checkpoint.shard_id.get()))
    }

    fn process(&mut self, worker: &mut Worker, shard_id: ShardId, records: &[Record]) -> Result<()> {
        let number = records[0].sequence_number().get();
        self.note(format!("record {number} of {}", shard_id.get()))?;
        if number.is_multiple_of(2) { worker.checkpoint_last(shard_id, records) } else { Ok(()) }
    }

    fn shard_ended(&mut self, worker: &mut Worker, shard_id: ShardId) -> Result<()> {
        self.note(format!("end {}", shard_id.get()))?;
        worker.finish(shard_id)
    }
}

#[test]
fn what_a_handler_failed_at_is_given_again_from_the_checkpoint_on() {
    let source = std::io::Error::other("no").into();
    expect_given_again(&Error::Io { operation: "handle", path: "there".into(), source });
}

/// They are of other shards, or of other streams, with which the handler works.
#[test]
fn an_error_that_a_worker_would_give_for_a_lost_shard_is_as_any_other_while_it_has_the_shard() {
    for shard_id in [ShardId::new(99), S0] {
        expect_given_again(&Error::ShardNotFound(shard_id));
        expect_given_again(&Error::LeaseLost { shard_id, epoch: 1, current: 2, owner: None });
    }
}

/// Its end is stored, and what the handler does behind that is not of the shard any more.
#[test]
fn an_error_of_another_shard_is_told_by_who_has_finished_one() {
    struct FinishesAndFails;
    impl Handler for FinishesAndFails {
        fn process(&mut self, _: &mut Worker, _: ShardId, _: &[Record]) -> Result<()> {
            Ok(())
        }

        fn lease_lost(&mut self, shard_id: ShardId) {
            panic!("{shard_id} was not lost");
        }

        fn shard_ended(&mut self, worker: &mut Worker, shard_id: ShardId) -> Result<()> {
            worker.finish(shard_id)?;
            Err(Error::ShardNotFound(ShardId::new(99)))
        }
    }
    let (_directory, stream) = stream(builder());
    stream.split_shard(S0, None).unwrap();
    let looks = std::cell::Cell::new(0);
    let stop = || looks.replace(looks.get() + 1) > 20;
    let told = worker(&stream.consumer("c").unwrap(), "w").run(&mut FinishesAndFails, stop);
    assert!(matches!(told, Err(Error::ShardNotFound(shard_id)) if shard_id == ShardId::new(99)), "{told:?}");
}

fn expect_given_again(error: &Error) {
    let (_directory, stream) = stream(builder());
    for _ in 0..5 {
        put_to(&stream, S0, "key", b"data");
    }
    let (lower, _) = stream.split_shard(S0, None).unwrap();
    put_to(&stream, lower, "key", b"data");
    let mut worker = stream.consumer("c").unwrap().worker("w", options().max_records(1)).unwrap();
    let fails = vec!["begin 0", "record 2 of 0", "record 3 of 0", "end 0"];
    let mut handler = FailsOnce { error: error.clone(), fails, log: Vec::new() };
    let deadline = Instant::now() + DEADLINE;
    let mut failures = 0;
    while !handler.log.iter().any(|what| what.ends_with("of 1")) {
        assert!(Instant::now() < deadline, "{:?}", handler.log);
        let looks = std::cell::Cell::new(0);
        let stop = || looks.replace(looks.get() + 1) > 20;
        failures += usize::from(worker.run(&mut handler, stop).is_err());
    }
    assert_eq!(failures, 4);
    let of_the_parent: Vec<_> =
        handler.log.iter().filter(|what| what.ends_with('0')).map(String::as_str).collect();
    let record = |number: u64| format!("record {number} of 0");
    let mut expected = vec!["begin 0".to_owned(), "begin 0".to_owned()];
    // Behind 0, 2, and 4 there is a checkpoint: what failed at 2 goes back to 1.
    expected.extend([0, 1, 2, 1, 2, 3, 3, 4].map(record));
    expected.extend(["end 0".to_owned(), "end 0".to_owned()]);
    assert_eq!(of_the_parent, expected);
}

/// It was slow, and the shard that it has is not there any more.
#[test]
fn a_shard_that_expires_while_it_is_held_is_lost() {
    let (_disk, clock, stream) = simulated(builder().segment_bytes(4 << 10).retention(Duration::from_secs(3_600)));
    fill_large(&stream, S0, 30);
    let (lower, _) = stream.split_shard(S0, None).unwrap();
    let consumer = stream.consumer("c").unwrap();
    let mut worker = consumer.worker("w", options().max_records(1)).unwrap();
    assert!(matches!(worker.poll(), Ok(Some(Work::Started(_)))));
    assert!(matches!(worker.poll(), Ok(Some(Work::Records { .. }))));
    expire(&clock, &stream, Duration::from_secs(3_601));
    assert!(stream.shards().iter().all(|shard| shard.shard_id != S0));
    put_to(&stream, lower, "key", b"child");
    let (mut lost, mut children) = (0, 0);
    for _ in 0..20 {
        match worker.poll() {
            Ok(Some(Work::Lost(S0))) => lost += 1,
            Ok(Some(Work::Records { shard_id, .. })) if shard_id == lower => children += 1,
            Ok(Some(Work::Records { shard_id, .. })) => {
                assert!(children == 0, "a record of {shard_id} behind its child's");
                clock.advance(LEASE / 3);
            }
            Ok(_) => clock.advance(LEASE / 3),
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!((lost, children), (1, 1));
    assert!(!worker.shards().contains(&S0));
}

/// All of it was given, and may be being handled: that it expires meanwhile changes nothing for this worker, be it with children that had nothing.
#[test]
fn a_shard_that_expires_behind_its_end_is_finished_before_its_children_begin() {
    for is_merged in [false, true] {
        let (_disk, clock, stream) = simulated(builder().retention(Duration::from_secs(3_600)));
        put_to(&stream, S0, "key", b"parent");
        let (lower, upper) = stream.split_shard(S0, None).unwrap();
        let heirs = if is_merged { vec![stream.merge_shards(lower, upper).unwrap()] } else { vec![lower, upper] };
        let mut worker = worker(&stream.consumer("c").unwrap(), "w");
        assert!(matches!(all(&mut worker).last(), Some(Work::Ended(S0))));
        expire(&clock, &stream, Duration::from_secs(3_601));
        assert!(stream.shards().iter().map(|shard| &shard.shard_id).eq(&heirs));
        for _ in 0..4 {
            let work = all(&mut worker);
            assert!(work.is_empty(), "{work:?}");
            clock.advance(LEASE / 3);
        }
        worker.finish(S0).unwrap();
        all(&mut worker);
        assert_eq!(worker.shards(), heirs);
    }
}

/// Others wait for its children until it is finished, or its worker is dead; and only once, though what is stored of it stays.
#[test]
fn a_shard_that_expires_behind_its_end_keeps_its_children_from_others() {
    for (is_merged, dies) in [(false, false), (true, false), (false, true), (true, true)] {
        let case = format!("merged {is_merged}, dies {dies}");
        let (_disk, clock, stream) = simulated(builder().retention(Duration::from_secs(3_600)));
        put_to(&stream, S0, "key", b"parent");
        let (lower, upper) = stream.split_shard(S0, None).unwrap();
        let heirs = if is_merged { vec![stream.merge_shards(lower, upper).unwrap()] } else { vec![lower, upper] };
        let consumer = stream.consumer("c").unwrap();
        let (mut owner, mut other) = (worker(&consumer, "owner"), worker(&consumer, "other"));
        assert!(matches!(all(&mut owner).last(), Some(Work::Ended(S0))));
        expire(&clock, &stream, Duration::from_secs(3_601));
        assert!(stream.shards().iter().map(|shard| &shard.shard_id).eq(&heirs));
        for _ in 0..6 {
            let mut work = all(&mut owner);
            work.extend(all(&mut other));
            assert!(work.is_empty(), "{case}: {work:?}");
            clock.advance(LEASE / 3);
        }
        all(&mut owner);
        if dies {
            drop(owner);
        } else {
            owner.finish(S0).unwrap();
            owner.close().unwrap();
        }
        all(&mut other);
        assert_eq!(other.shards().is_empty(), dies, "{case}");
        settle(&clock, &mut [&mut other]);
        assert_eq!(other.shards(), heirs, "{case}");
        other.close().unwrap();
        let mut next = worker(&consumer, "next");
        all(&mut next);
        assert_eq!(next.shards(), heirs, "{case}");
    }
}

/// As any lease, though nothing is stored of the shard any more.
#[test]
fn a_shard_that_expires_behind_its_end_is_lost_by_a_reset() {
    let (_disk, clock, stream) = simulated(builder().retention(Duration::from_secs(3_600)));
    put_to(&stream, S0, "key", b"parent");
    let heirs = stream.split_shard(S0, None).unwrap();
    let consumer = stream.consumer("c").unwrap();
    let mut worker = worker(&consumer, "w");
    assert!(matches!(all(&mut worker).last(), Some(Work::Ended(S0))));
    expire(&clock, &stream, Duration::from_secs(3_601));
    assert!(all(&mut worker).is_empty());
    consumer.reset(RecordsStart::TrimHorizon).unwrap();
    assert!(matches!(worker.finish(S0), Err(Error::LeaseLost { shard_id: S0, .. })));
    clock.advance(LEASE / 3);
    all(&mut worker);
    assert_eq!(worker.shards(), [heirs.0, heirs.1]);
}

/// It was not given to its end, and who had it shows that it has it no more: no other waits for it.
#[test]
fn a_shard_that_expires_before_its_end_keeps_no_child_from_others() {
    let (_disk, clock, stream) = simulated(builder().retention(Duration::from_secs(3_600)));
    put_to(&stream, S0, "key", b"parent");
    let heirs = stream.split_shard(S0, None).unwrap();
    let consumer = stream.consumer("c").unwrap();
    let (mut owner, mut other) = (worker(&consumer, "owner"), worker(&consumer, "other"));
    assert!(matches!(owner.poll(), Ok(Some(Work::Started(_)))));
    expire(&clock, &stream, Duration::from_secs(3_601));
    all(&mut owner);
    assert_eq!(owner.shards(), [heirs.0, heirs.1]);
    owner.close().unwrap();
    all(&mut other);
    assert_eq!(other.shards(), [heirs.0, heirs.1]);
}

/// Its worker needs room for the children of another one meanwhile: not the slot in which others see its lease.
#[test]
fn a_shard_that_expires_behind_its_end_keeps_its_slot() {
    let (_disk, clock, stream) = simulated(builder().shards(2).retention(LEASE / 2));
    put_to(&stream, S0, "key", b"parent");
    let (lower, upper) = stream.split_shard(S0, None).unwrap();
    let consumer = stream.consumer("c").unwrap();
    let mut owner = worker(&consumer, "owner");
    assert!(all(&mut owner).iter().any(|work| matches!(work, Work::Ended(S0))));
    expire_beside(&mut owner, &clock, &stream);
    let (left, right) = stream.split_shard(S1, None).unwrap();
    all(&mut owner);
    owner.finish(S1).unwrap();
    all(&mut owner);
    assert_eq!(owner.shards(), [S0, left, right]);
    let mut other = worker(&consumer, "other");
    for _ in 0..4 {
        all(&mut other);
        assert!(!other.shards().iter().any(|shard_id| [lower, upper].contains(shard_id)));
        clock.advance(LEASE / 3);
        all(&mut owner);
    }
    assert!(owner.shards().contains(&S0));
}

/// Whoever needs room for another shard's children, by hand: not the slot in which workers see that somebody is at work, whether its own children are there or only theirs.
#[test]
fn a_shard_that_expires_behind_its_end_keeps_its_slot_from_who_takes_by_hand() {
    for is_merged in [false, true] {
        let (_disk, clock, stream) = simulated(builder().shards(2).retention(LEASE / 2));
        put_to(&stream, S0, "key", b"parent");
        let (lower, upper) = stream.split_shard(S0, None).unwrap();
        let heirs = if is_merged { vec![stream.merge_shards(lower, upper).unwrap()] } else { vec![lower, upper] };
        let consumer = stream.consumer("c").unwrap();
        let mut owner = worker(&consumer, "owner");
        assert!(all(&mut owner).iter().any(|work| matches!(work, Work::Ended(S0))));
        expire_beside(&mut owner, &clock, &stream);
        let (left, right) = stream.split_shard(S1, None).unwrap();
        consumer.take(left, "hand").unwrap();
        consumer.reset_shard(right, RecordsStart::TrimHorizon).unwrap();
        let mut other = worker(&consumer, "other");
        for _ in 0..4 {
            all(&mut other);
            assert!(!other.shards().iter().any(|shard_id| heirs.contains(shard_id)), "{heirs:?}");
            clock.advance(LEASE / 3);
            all(&mut owner);
        }
        owner.finish(S0).unwrap();
    }
}

/// It died behind the end of the shard: who comes back under its name shows that nobody is at work there.
#[test]
fn a_shard_that_expired_is_nobodys_once_its_worker_comes_back() {
    let (_disk, clock, stream) = simulated(builder().retention(Duration::from_secs(3_600)));
    put_to(&stream, S0, "key", b"parent");
    let heirs = stream.split_shard(S0, None).unwrap();
    let consumer = stream.consumer("c").unwrap();
    let mut died = worker(&consumer, "w");
    assert!(matches!(all(&mut died).last(), Some(Work::Ended(S0))));
    drop(died);
    expire(&clock, &stream, Duration::from_secs(3_601));
    let mut back = worker(&consumer, "w");
    all(&mut back);
    back.close().unwrap();
    let mut other = worker(&consumer, "other");
    all(&mut other);
    assert_eq!(other.shards(), [heirs.0, heirs.1]);
}

/// The oldest of `lower` and the parent expire, whatever is stored of that: so all of `lower` was due, to whichever worker begins it.
#[test]
fn what_a_child_lost_is_told_where_its_parent_expired() {
    for (is_checkpointed, by_another) in [(true, false), (false, false), (true, true), (false, true)] {
        let case = format!("checkpointed {is_checkpointed}, by another {by_another}");
        let (_disk, clock, stream) =
            simulated(builder().segment_bytes(4096).retention(Duration::from_secs(3_600)));
        let consumer = stream.consumer("c").unwrap(); // with no place for the children
        put_to(&stream, S0, "key", b"parent");
        let (lower, upper) = stream.split_shard(S0, None).unwrap();
        fill_large(&stream, lower, 12);
        let mut worker = worker(&consumer, "w");
        for work in all(&mut worker) {
            if let Work::Records { shard_id, records } = work
                && is_checkpointed
            {
                worker.checkpoint(shard_id, records.last().unwrap()).unwrap();
            }
        }
        expire(&clock, &stream, Duration::from_secs(3_601));
        put_to(&stream, lower, "key", b"left");
        worker.finish(S0).unwrap();
        if by_another {
            worker.close().unwrap();
            worker = consumer.worker("next", WorkerOptions::new().lease_time(LEASE)).unwrap();
        }
        let mut told = Vec::new();
        let mut given = Vec::new();
        loop {
            match worker.poll() {
                Ok(Some(Work::Records { records, .. })) => given.extend(records),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(Error::Trimmed { shard_id, .. }) if given.is_empty() => told.push(shard_id),
                Err(error) => panic!("{case}: {error:?}"),
            }
        }
        assert_eq!((told, given.len()), (vec![lower], 1), "{case}");
        assert_eq!(worker.shards(), [lower, upper], "{case}");
    }
}

/// A reset to what is left says that the loss is known: no life of a worker is told again. One before the parent was done knew of nothing.
#[test]
fn what_a_child_lost_is_accepted_by_a_reset() {
    let (_directory, stream) = stream(builder().segment_bytes(4096));
    let consumer = stream.consumer("c").unwrap();
    let (lower, _) = stream.split_shard(S0, None).unwrap();
    consumer.reset_shard(lower, RecordsStart::TrimHorizon).unwrap();
    let mut first = worker(&consumer, "first");
    assert!(matches!(all(&mut first)[..], [Work::Started(_), Work::Ended(S0)]));
    first.finish(S0).unwrap();
    fill_large(&stream, lower, 12);
    stream.trim_shard(lower, number(10)).unwrap();
    let told = std::iter::repeat_with(|| first.poll()).take(20).find_map(Result::err).unwrap();
    assert!(matches!(told, Error::Trimmed { shard_id, .. } if shard_id == lower), "{told:?}");
    first.close().unwrap();
    consumer.reset_shard(lower, RecordsStart::TrimHorizon).unwrap();
    assert_eq!(consumer.checkpoint(lower).unwrap().position, Position::TrimHorizon);
    for life in ["second", "third"] {
        let mut worker = worker(&consumer, life);
        assert!(all(&mut worker).iter().any(|work| matches!(work, Work::Records { .. })));
        worker.close().unwrap();
    }
}

#[test]
fn what_a_child_of_an_expired_shard_lost_is_accepted_by_a_reset_of_all() {
    let (_disk, clock, stream) = simulated(builder().segment_bytes(4096).retention(Duration::from_secs(3_600)));
    put_to(&stream, S0, "key", b"parent");
    let (lower, _) = stream.split_shard(S0, None).unwrap();
    fill_large(&stream, lower, 12);
    let consumer = stream.consumer("c").unwrap();
    consumer.take(S0, "hand").unwrap().checkpoint_end().unwrap();
    consumer.take(S0, "hand").unwrap().release().unwrap();
    expire(&clock, &stream, Duration::from_secs(3_601));
    put_to(&stream, lower, "key", b"left");
    consumer.reset(RecordsStart::TrimHorizon).unwrap();
    let mut worker = worker(&consumer, "w");
    assert!(all(&mut worker).iter().any(|work| matches!(work, Work::Records { .. })));
}

/// What is stored of the one goes, since the other one's children need room.
#[test]
fn a_shard_that_expires_behind_its_end_is_had_while_others_begin() {
    let (_disk, clock, stream) = simulated(builder().shards(2).retention(LEASE / 2));
    put_to(&stream, S0, "key", b"parent");
    let (lower, upper) = stream.split_shard(S0, None).unwrap();
    let mut worker = worker(&stream.consumer("c").unwrap(), "w");
    assert!(all(&mut worker).iter().any(|work| matches!(work, Work::Ended(S0))));
    expire_beside(&mut worker, &clock, &stream);
    let (left, right) = stream.split_shard(S1, None).unwrap();
    assert!(all(&mut worker).iter().any(|work| matches!(work, Work::Ended(S1))));
    worker.finish(S1).unwrap();
    for _ in 0..4 {
        for work in all(&mut worker) {
            let is_of_others = matches!(&work, Work::Started(at) if [left, right].contains(&at.shard_id));
            assert!(is_of_others, "{work:?}");
        }
        clock.advance(LEASE / 3);
    }
    assert_eq!(worker.shards(), [S0, left, right]);
    worker.finish(S0).unwrap();
    all(&mut worker);
    assert_eq!(worker.shards(), [lower, upper, left, right]);
}

/// The one that had it stood still for longer than its lease. That another took it meanwhile is stored nowhere any more, and that it may have is enough.
#[test]
fn a_shard_that_expires_behind_its_end_is_lost_by_who_stood_still() {
    let (_disk, clock, stream) = simulated(builder().shards(2).retention(LEASE / 2));
    put_to(&stream, S0, "key", b"parent");
    stream.split_shard(S0, None).unwrap();
    let mut still = worker(&stream.consumer("c").unwrap(), "still");
    assert!(all(&mut still).iter().any(|work| matches!(work, Work::Ended(S0))));
    let mut other = worker(&stream.consumer("c").unwrap(), "other");
    all(&mut other);
    clock.advance(LEASE);
    assert!(all(&mut other).iter().any(|work| matches!(work, Work::Ended(S0))));
    other.finish(S0).unwrap();
    expire_beside(&mut other, &clock, &stream);
    stream.split_shard(S1, None).unwrap();
    assert!(all(&mut other).iter().any(|work| matches!(work, Work::Ended(S1))));
    other.finish(S1).unwrap();
    all(&mut other); // the children are given the room of what expired
    assert!(all(&mut still).iter().any(|work| matches!(work, Work::Lost(S0))));
    assert!(!still.shards().contains(&S0));
}

/// What is there expires, and the worker keeps its leases meanwhile.
fn expire_beside(worker: &mut Worker, clock: &ManualClock, stream: &Stream) {
    for _ in 0..3 {
        clock.advance(LEASE * 2 / 3);
        stream.enforce_retention().unwrap();
        all(worker);
    }
}

/// A clock of the user's that comes to the end of time when it is told to.
#[derive(Debug, Default)]
struct EndingClock {
    clock: ManualClock,
    is_over: AtomicBool,
}

impl Clock for EndingClock {
    fn now(&self) -> anabranch::Timestamp {
        self.clock.now()
    }

    fn monotonic(&self) -> Duration {
        if self.is_over.load(Ordering::SeqCst) { Duration::MAX } else { self.clock.monotonic() }
    }
}

#[test]
fn a_worker_works_at_the_end_of_time() {
    let (disk, clock) = (Arc::new(SimulatedDisk::new()), Arc::new(EndingClock::default()));
    let stream = builder().storage(disk).clock(clock.clone()).create("stream").unwrap();
    let mut worker = worker(&stream.consumer("c").unwrap(), "w");
    assert!(matches!(worker.poll(), Ok(Some(Work::Started(_)))));
    clock.is_over.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        assert!(worker.poll().unwrap().is_none());
    }
    assert_eq!(worker.shards(), [S0]);
}

/// Its end is stored; that the lease could not be given back after that keeps nobody waiting.
#[test]
fn a_shard_is_finished_once_its_end_is_stored() {
    let (disk, _clock, stream) = simulated(builder());
    put_to(&stream, S0, "key", b"parent");
    let (lower, upper) = stream.split_shard(S0, None).unwrap();
    let consumer = stream.consumer("c").unwrap();
    let mut worker = worker(&consumer, "w");
    assert!(matches!(all(&mut worker).last(), Some(Work::Ended(S0))));
    disk.fail_on(Operation::Sync, 1, DiskFault::Error(std::io::ErrorKind::Other));
    worker.finish(S0).unwrap();
    assert_eq!(consumer.checkpoint(S0).unwrap().position, Position::ShardEnd);
    all(&mut worker);
    assert_eq!(worker.shards(), [lower, upper]);
}

/// A worker in a process that may not make the split durable stored an end that a power cut undoes. Before anybody takes the shard again, it has come to another.
#[test]
fn a_shard_that_went_on_behind_an_end_is_given_to_its_new_one() {
    let mut undone = 0;
    for seed in 0..16 {
        let (disk, clock, writer) = simulated(builder());
        writer.consumer("c").unwrap();
        writer.put("key", b"0").unwrap();
        let reader =
            builder().storage(Arc::new(disk.clone())).clock(clock.clone()).open_read_only("stream").unwrap();
        let consumer = reader.consumer("c").unwrap();
        split_undurably(&disk, &writer, std::io::ErrorKind::PermissionDenied);
        assert_eq!(words_to_the_end(&consumer), ["0"]);
        let survivor = Arc::new(disk.crash(anabranch::Crash::PowerLost { seed }));
        let stream = builder().storage(survivor).clock(clock).open_existing("stream").unwrap();
        undone += u32::from(stream.shards().len() == 1);
        stream.put("key", b"1").unwrap();
        stream.split_shard(stream.open_shards()[0], None).unwrap();
        stream.put("key", b"2").unwrap();
        assert_eq!(words_to_the_end(&stream.consumer("c").unwrap()), ["1", "2"], "seed {seed}");
    }
    assert!((1..16).contains(&undone), "{undone}");
}

/// What a worker is given until there is nothing more to do, all of it done.
fn words_to_the_end(consumer: &Consumer) -> Vec<String> {
    let mut worker = worker(consumer, "w");
    let mut words = Vec::new();
    while let Some(work) = worker.poll().unwrap() {
        match work {
            Work::Records { shard_id, records } => {
                words.extend(records.iter().map(|record| String::from_utf8_lossy(record.data()).into_owned()));
                worker.checkpoint(shard_id, &records[records.len() - 1]).unwrap();
            }
            Work::Ended(shard_id) => worker.finish(shard_id).unwrap(),
            _ => {}
        }
    }
    words
}
