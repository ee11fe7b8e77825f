//! One shard by itself: what makes it sync, what its sleepers wait for.
#![allow(clippy::unwrap_used, reason = "outside the test functions too")]

mod failures;
mod follow;
mod recover;
mod resume;

use std::sync::Weak;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use super::*;
use crate::clock::ManualClock;
use crate::format::{ClosedShard, FrameInput, ProducerStamp, SegmentHeader, StreamOptions, frame_bytes};
use crate::limits::{MAX_PENDING_BYTES, MAX_STAGING_SLOTS, READ_BATCH_BYTES, RECENT_SEGMENTS, UNSYNCED_FACTOR};
use crate::segment::{Segment, StampedBatch};
use crate::storage::{Access, DirEntry, DiskFault, LockGuard, Operation, SimulatedDisk, StorageFile};
use crate::types::{Durability, HashKey, HashKeyRange, ShardIteratorType};

const STREAM: StreamId = StreamId::new(1);
const DATA: &[u8] = &[7; 100];
/// Far longer than any test: who is not woken fails by [`DEADLINE`].
const FOREVER: Duration = Duration::from_secs(3600);
const DEADLINE: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(20);

/// An empty shard of a stream whose background thread, if it has one, is the test.
pub(super) fn shard(flush_bytes: u64, has_background: bool) -> Arc<Shard> {
    shard_with(StreamOptions { flush_bytes, ..StreamOptions::default() }, has_background)
}

fn shard_with(options: StreamOptions, has_background: bool) -> Arc<Shard> {
    shard_on(Arc::new(SimulatedDisk::new()), options, has_background)
}

fn shard_on(storage: Arc<dyn Storage>, options: StreamOptions, has_background: bool) -> Arc<Shard> {
    let stream = PathBuf::from("stream");
    let directory = stream.join("shard");
    storage.create_dir(&stream).unwrap();
    storage.create_dir(&directory).unwrap();
    let watermarks = Watermarks::create(storage.as_ref(), &stream, STREAM).unwrap();
    let context = context(storage, watermarks, options, has_background);
    Arc::new(Shard::new(context, directory, &entry()))
}

fn context(
    storage: Arc<dyn Storage>,
    watermarks: Watermarks,
    options: StreamOptions,
    has_background: bool,
) -> Arc<ShardContext> {
    let staging = StagingSlots::new(Arc::clone(&storage), Path::new("stream"));
    Arc::new(ShardContext {
        storage,
        clock: Arc::new(ManualClock::default()),
        stream_id: STREAM,
        incarnation: 1,
        process: Process::this(),
        options,
        first_segment_bytes: crate::limits::FIRST_SEGMENT_BYTES,
        retention: AtomicU64::new(u64::MAX),
        watermarks,
        counters: Counters::default(),
        failure: OnceLock::new(),
        tail: Signal::default(),
        flush: Arc::default(),
        recent: RecentSegments::default(),
        has_background,
        staging,
        drains_rest: AtomicBool::new(true),
        producers: ProducerRegistry::default(),
        lineage: Lineage::default(),
        #[cfg(feature = "async")]
        wanted: Mutex::default(),
        #[cfg(feature = "async")]
        tasks: AtomicU64::new(0),
    })
}

fn entry() -> ShardEntry {
    let start = Timestamp::from_millis(0);
    ShardEntry::new(ShardId::new(0), Vec::new(), HashKeyRange::FULL, SequenceNumber::ZERO, start)
}

pub(super) fn append(shard: &Shard, durability: Durability) -> Result<SequenceNumber, ShardError> {
    let entry = AppendEntry { partition_key: "key", data: DATA, explicit_hash_key: None };
    shard.append(std::iter::once(entry), durability, Condition::default()).map(|appended| appended.first)
}

fn put(shard: &Shard) {
    append(shard, Durability::Buffered).unwrap();
}

fn frame() -> u64 {
    frame_bytes(None, "key", DATA) as u64
}

fn syncs(shard: &Shard) -> u64 {
    shard.context.counters.syncs.load(Ordering::SeqCst)
}

fn join<T>(thread: JoinHandle<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    while !thread.is_finished() {
        assert!(Instant::now() < deadline, "nobody woke it");
        thread::sleep(Duration::from_millis(1));
    }
    thread.join().unwrap()
}

/// A thread that does this, given time to fall asleep over it.
fn sleeper<T: Send + 'static>(sleep: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let thread = thread::spawn(sleep);
    thread::sleep(SHORT);
    thread
}

/// Demands that this sleeps until its time is over.
fn sleeps(sleep: impl FnOnce()) {
    let before = Instant::now();
    sleep();
    assert!(before.elapsed() >= SHORT, "it did not sleep");
}

#[test]
fn a_signal_wakes_who_sleeps_and_nobody_sleeps_over_what_happened() {
    let signal = Arc::new(Signal::default());
    sleeps(|| signal.wait_unless(SHORT, || false));
    signal.wait_unless(FOREVER, || true);
    let woken = sleeper({
        let signal = Arc::clone(&signal);
        move || signal.wait_unless(FOREVER, || false)
    });
    signal.ring();
    join(woken);
}

#[test]
fn a_wish_is_heard_once_and_a_look_is_no_sync() {
    let request = Arc::new(FlushRequest::default());
    sleeps(|| assert!(!request.wait(SHORT)));
    request.ask();
    assert!(request.wait(FOREVER));
    request.ask_to_look();
    assert!(!request.wait(FOREVER));
    request.ask();
    request.ask_to_look();
    assert!(request.wait(FOREVER), "the sync is not forgotten over the look");
    sleeps(|| assert!(!request.wait(SHORT)));
    for ask in [FlushRequest::ask, FlushRequest::ask_to_look] {
        let woken = sleeper({
            let request = Arc::clone(&request);
            move || request.wait(FOREVER)
        });
        ask(&request);
        join(woken);
    }
}

#[test]
fn a_reader_sleeps_until_there_is_something_to_read() {
    let shard = shard(1 << 20, true);
    let at = SequenceNumber::new;
    let wait = |next, timeout| shard.wait(at(next), Visibility::Written, timeout);
    sleeps(|| wait(0, SHORT));
    let woken = sleeper({
        let shard = Arc::clone(&shard);
        move || shard.wait(at(0), Visibility::Written, FOREVER)
    });
    put(&shard);
    join(woken);
    wait(0, FOREVER);
    sleeps(|| wait(1, SHORT));
    sleeps(|| wait(2, SHORT));
    sleeps(|| shard.wait(at(0), Visibility::Durable, SHORT));
    let woken = sleeper({
        let shard = Arc::clone(&shard);
        move || shard.wait(at(0), Visibility::Durable, FOREVER)
    });
    shard.sync().unwrap();
    join(woken);
}

/// A shard that stages what is put, and its disk.
fn staging_shard(has_background: bool) -> (Arc<Shard>, SimulatedDisk) {
    let disk = SimulatedDisk::new();
    let options = StreamOptions { durability: Durability::Buffered, ..StreamOptions::default() };
    (shard_on(Arc::new(disk.clone()), options, has_background), disk)
}

#[test]
fn a_staged_record_wakes_who_sleeps_at_the_tail_of_its_shard_or_its_stream() {
    for of_stream in [false, true] {
        let (shard, disk) = staging_shard(true);
        put(&shard); // the file and the slot are made
        let written = disk.operations_of(Operation::Write);
        let woken = sleeper({
            let shard = Arc::clone(&shard);
            move || {
                let is_there = || shard.next(Visibility::Written) > SequenceNumber::new(1);
                if of_stream {
                    shard.context.tail.wait_unless(FOREVER, is_there);
                } else {
                    shard.wait(SequenceNumber::new(1), Visibility::Written, FOREVER);
                }
                assert!(is_there());
            }
        });
        put(&shard);
        join(woken);
        assert!(!shard.has_staged(), "who was woken finds it in the segment");
        put(&shard);
        assert!(shard.has_staged());
        assert_eq!(disk.operations_of(Operation::Write), written + 1, "staging for nobody needs no call");
    }
}

#[test]
fn a_staged_record_wakes_the_background_that_rests_and_no_other() {
    for has_background in [true, false] {
        let (shard, _disk) = staging_shard(has_background);
        let wishes = || shard.context.flush.wish.load(Ordering::SeqCst);
        let rests = || shard.context.drains_rest.load(Ordering::SeqCst);
        put(&shard);
        assert_eq!((wishes(), rests()), if has_background { (LOOK_AGAIN, false) } else { (NO_WISH, true) });
        shard.context.flush.wait(Duration::ZERO);
        put(&shard);
        assert_eq!(wishes(), NO_WISH, "it looks anyway, or is not there");
        assert!(shard.has_staged());
        assert_eq!(shard.context.counters.puts.load(Ordering::SeqCst), 0, "counted when they are written");
        shard.drain().unwrap();
        assert!(!shard.has_staged());
        assert_eq!(shard.context.counters.puts.load(Ordering::SeqCst), 2);
        assert_eq!(shard.context.counters.bytes_in.load(Ordering::SeqCst), 2 * (3 + DATA.len() as u64));
    }
}

/// A writer that fills its slot between two looks writes it whole, which is the cheapest.
#[test]
fn what_is_staged_is_drained_by_the_second_look_that_finds_it() {
    let (shard, _disk) = staging_shard(true);
    let is_left_by_a_look = || {
        shard.drain_old().unwrap();
        shard.has_staged()
    };
    put(&shard);
    assert!(is_left_by_a_look());
    assert!(!is_left_by_a_look());
    put(&shard);
    assert!(is_left_by_a_look());
    put(&shard);
    assert!(!is_left_by_a_look(), "nor what came since");
}

/// A `Buffered` shard writes frames while a commit runs: zeros written by the commit could go over them.
#[test]
fn only_commits_that_are_alone_write_zeros_ahead() {
    for (durability, third) in [(Durability::Synced, 1), (Durability::Buffered, 0)] {
        let disk = SimulatedDisk::new();
        let shard =
            shard_on(Arc::new(disk.clone()), StreamOptions { durability, ..StreamOptions::default() }, true);
        let commit = || {
            append(&shard, Durability::Synced).unwrap();
            let before = disk.operations_of(Operation::Write);
            shard.sync().unwrap();
            disk.operations_of(Operation::Write) - before
        };
        let writes: Vec<_> = (0..8).map(|_| commit()).collect();
        let usual = writes[1];
        let expected: Vec<_> = (0..8).map(|commit| if commit == 2 { usual + third } else { usual }).collect();
        assert_eq!(writes, expected, "{durability:?}");
    }
}

/// Whoever waits for a commit is told when something else seals, syncs or ends the shard before anybody leads one.
#[test]
fn who_waits_for_a_commit_is_told_by_whatever_comes_instead() {
    type Instead = fn(&Shard);
    let cases: [(Instead, bool); 4] = [
        (|shard| assert!(shard.freeze().is_ok()), true),
        (|shard| shard.seal_rolled(&mut shard.append.lock()).unwrap(), true),
        (Shard::shut, false),
        (|shard| drop(shard.fail(&mut shard.append.lock(), io_fault())), false),
    ];
    for (index, (instead, is_durable)) in cases.into_iter().enumerate() {
        let shard = shard(1 << 20, true);
        let target = append(&shard, Durability::Synced).unwrap().next();
        shard.append.lock().committing = true;
        let waiters = [(); 3].map(|()| {
            sleeper({
                let shard = Arc::clone(&shard);
                move || shard.commit(target)
            })
        });
        assert!(waiters.iter().all(|waiter| !waiter.is_finished()));
        shard.append.lock().committing = false;
        instead(&shard);
        for waiter in waiters {
            assert_eq!(join(waiter).is_ok(), is_durable, "case {index}");
        }
    }
}

pub(super) fn io_fault() -> Fault {
    Fault::io("write", Path::new("file"))(io::ErrorKind::Other.into())
}

#[test]
fn slots_go_from_shard_to_shard() {
    let (shard, disk) = staging_shard(true);
    let has_slot = || shard.append.lock().writer.as_ref().is_some_and(SegmentWriter::has_slot);
    let lend_all = || std::iter::from_fn(|| shard.context.staging.lend()).collect::<Vec<_>>();
    put(&shard);
    assert!(has_slot());
    assert_eq!(lend_all().len(), MAX_STAGING_SLOTS - 1);
    shard.release_slot();
    assert!(has_slot(), "a record is in it");
    shard.drain().unwrap();
    shard.release_slot();
    assert!(!has_slot());
    shard.context.staging.take_exhausted();
    let all = lend_all();
    assert_eq!(all.len(), MAX_STAGING_SLOTS);
    let written = disk.operations_of(Operation::Write);
    put(&shard);
    assert_eq!((has_slot(), shard.has_staged()), (false, false));
    assert_eq!(disk.operations_of(Operation::Write), written + 1, "without a slot, a call of its own");
    drop(all);
    put(&shard);
    assert!(!has_slot(), "nobody looked");
    assert!(shard.context.staging.take_exhausted());
    put(&shard);
    assert!(has_slot());
    assert!(shard.park(), "what is staged is written first");
    assert!(!has_slot() && !shard.has_staged());
    assert_eq!(lend_all().len(), MAX_STAGING_SLOTS);
}

/// `Synced` records that nobody commits are committed by the put that finds too many of them.
#[test]
fn records_that_wait_for_their_commit_do_not_gather_without_end() {
    const LARGE: usize = 1 << 20;
    let mut context = Arc::into_inner(shard(1 << 40, true)).unwrap().context;
    let own = Arc::get_mut(&mut context).unwrap();
    (own.first_segment_bytes, own.options.segment_bytes) = (64 << 20, 64 << 20);
    let shard = Shard::new(context, PathBuf::from("stream/shard"), &entry());
    let large = vec![7; LARGE - frame_bytes(None, "key", b"")];
    assert_eq!(frame_bytes(None, "key", &large), LARGE);
    let put = || {
        let entry = AppendEntry { partition_key: "key", data: &large, explicit_hash_key: None };
        shard.append(std::iter::once(entry), Durability::Synced, Condition::default()).unwrap();
    };
    let most = MAX_PENDING_BYTES / LARGE;
    for _ in 0..most {
        put();
    }
    assert_eq!(syncs(&shard), 0);
    put();
    assert_eq!((syncs(&shard), shard.next(Visibility::Durable).get()), (1, most as u64));
}

#[test]
fn the_end_of_a_shard_and_of_its_stream_wake_its_readers() {
    for end in [Shard::close, Shard::shut] {
        let shard = shard(1 << 20, true);
        put(&shard);
        let woken = sleeper({
            let shard = Arc::clone(&shard);
            move || shard.wait(SequenceNumber::new(1), Visibility::Written, FOREVER)
        });
        end(&shard);
        join(woken);
        shard.wait(SequenceNumber::new(1), Visibility::Written, FOREVER);
        assert!(matches!(append(&shard, Durability::Buffered), Err(ShardError::NotOpen)));
    }
}

#[test]
fn many_unsynced_bytes_ask_for_a_sync_and_too_many_are_synced_at_once() {
    const FRAMES: u64 = 4;
    let shard = shard(FRAMES * frame(), true);
    let asked = || shard.context.flush.wait(Duration::ZERO);
    (1..FRAMES).for_each(|_| put(&shard));
    assert!(!asked());
    put(&shard);
    assert!(asked());
    (FRAMES + 1..FRAMES * UNSYNCED_FACTOR).for_each(|_| put(&shard));
    assert!(asked());
    assert_eq!(syncs(&shard), 0, "a sync by a put, while the background has been asked");
    put(&shard);
    assert_eq!(syncs(&shard), 1);
    assert!(!shard.has_unsynced());
}

/// Nobody leads its commit yet: whoever syncs the stream does.
#[test]
fn what_waits_for_a_commit_is_unsynced() {
    let shard = shard(1 << 20, true);
    let staged = append(&shard, Durability::Synced).unwrap();
    assert_eq!(shard.next(Visibility::Written), staged, "not even written");
    assert!(shard.has_unsynced());
    shard.commit(staged.next()).unwrap();
    assert!(!shard.has_unsynced());
}

/// Zeros that a commit writes ahead could go over what somebody else writes while it runs. A reader who looks for what is staged finds nothing to do,
/// also where the shard has failed since.
#[test]
fn what_waits_for_a_commit_is_written_by_nobody_else() {
    let disk = SimulatedDisk::new();
    let shard = shard_on(Arc::new(disk.clone()), StreamOptions::default(), true);
    let waiting = append(&shard, Durability::Synced).unwrap();
    let written = disk.operations_of(Operation::Write);
    shard.drain().unwrap();
    assert_eq!(disk.operations_of(Operation::Write), written);
    assert_eq!((shard.next(Visibility::Written), shard.has_unsynced()), (waiting, true));
    drop(shard.fail(&mut shard.append.lock(), io_fault()));
    shard.drain().unwrap();
}

#[test]
fn without_a_background_the_put_syncs() {
    let shard = shard(4 * frame(), false);
    (0..3).for_each(|_| put(&shard));
    assert_eq!(syncs(&shard), 0);
    put(&shard);
    assert_eq!(syncs(&shard), 1);
    assert!(!shard.context.flush.wait(Duration::ZERO), "asked of nobody");
}

#[test]
fn parking_closes_the_file_and_a_sync_opens_it_for_as_long_as_it_takes() {
    let shard = shard(1 << 20, true);
    let durable = || shard.next(Visibility::Durable).get();
    let is_parked = || shard.append.lock().writer.as_ref().is_some_and(SegmentWriter::is_parked);
    assert!(!shard.has_unsynced());
    assert!(shard.park());
    put(&shard);
    assert!(!is_parked());
    assert!(shard.park());
    assert_eq!((is_parked(), durable(), syncs(&shard), shard.has_unsynced()), (true, 0, 0, true));
    shard.sync().unwrap();
    assert_eq!((is_parked(), durable(), syncs(&shard), shard.has_unsynced()), (true, 1, 1, false));
    let staged = append(&shard, Durability::Synced).unwrap(); // nobody leads its commit yet
    assert!(shard.park());
    assert_eq!((is_parked(), durable()), (true, 1), "written, and not durable");
    assert_eq!(shard.next(Visibility::Written).get(), 2);
    shard.commit(staged.next()).unwrap();
    assert_eq!((is_parked(), durable(), syncs(&shard)), (true, 2, 2));
    put(&shard);
    assert_eq!(shard.next(Visibility::Written).get(), 3, "a parked shard takes records");
}

#[test]
fn a_frozen_shard_takes_no_appends_until_it_is_thawed() {
    let shard = shard(1 << 20, true);
    put(&shard);
    shard.freeze().unwrap();
    assert!(matches!(append(&shard, Durability::Buffered), Err(ShardError::NotOpen)));
    shard.thaw();
    put(&shard);
    assert_eq!(shard.next(Visibility::Written).get(), 2);
}

/// Also to a reader who came to the segment while it was written.
#[test]
fn a_seal_shows_all_that_it_made_durable() {
    let shard = shard(1 << 20, true);
    (0..3).for_each(|_| put(&shard));
    shard.sync().unwrap();
    let mut cursor =
        Cursor::new(Arc::clone(&shard), ShardIteratorType::TrimHorizon, Visibility::Durable, None).unwrap();
    assert_eq!(cursor.next_batch(usize::MAX).unwrap().0.len(), 3);
    (0..2).for_each(|_| put(&shard));
    assert_eq!(cursor.next_batch(usize::MAX).unwrap().1, Progress::Tail);
    shard.freeze().unwrap();
    assert_eq!(cursor.next_batch(usize::MAX).unwrap().0.len(), 2);
    shard.close();
    assert_eq!(cursor.next_batch(usize::MAX).unwrap().1, Progress::End);
}

#[test]
fn a_cursor_has_news_where_a_poll_finds_more_than_the_tail() {
    let shard = shard(1 << 20, true);
    let cursor = |next, visibility| {
        let at = ShardIteratorType::AtSequenceNumber(SequenceNumber::new(next));
        Cursor::new(Arc::clone(&shard), at, visibility, None).unwrap()
    };
    let first = cursor(0, Visibility::Written);
    assert!(!first.has_news());
    put(&shard);
    assert!(first.has_news());
    assert!(!cursor(0, Visibility::Durable).has_news());
    let second = cursor(1, Visibility::Written);
    assert!(!second.has_news());
    shard.sync().unwrap();
    put(&shard);
    assert!(first.has_news() && second.has_news());
    shard.freeze().unwrap();
    let third = cursor(2, Visibility::Written);
    assert!(!third.has_news());
    shard.close();
    assert!(third.has_news(), "the end");
    assert!(second.has_news());
}

#[test]
fn a_batch_ends_at_its_bound_wherever_in_the_segment_it_starts() {
    const FRAME: usize = 1 << 10;
    let shard = shard(u64::MAX, true);
    let data = vec![7; FRAME - frame_bytes(None, "key8", b"")];
    assert_eq!(frame_bytes(None, "key8", &data), FRAME);
    let a_batch = READ_BATCH_BYTES / FRAME;
    let records = a_batch * 3 + 1;
    for _ in 0..records {
        let entry = AppendEntry { partition_key: "key8", data: &data, explicit_hash_key: None };
        shard.append(std::iter::once(entry), Durability::Buffered, Condition::default()).unwrap();
    }
    // Into the one segment that holds the end, and the last whole batches of it.
    let kind = ShardIteratorType::AtSequenceNumber(SequenceNumber::new(a_batch as u64));
    let mut cursor = Cursor::new(Arc::clone(&shard), kind, Visibility::Written, None).unwrap();
    let mut batches = Vec::new();
    loop {
        let (batch, progress) = cursor.next_batch(usize::MAX).unwrap();
        if progress == Progress::Tail {
            break;
        }
        batches.push(batch.len());
    }
    assert_eq!(batches.iter().sum::<usize>(), a_batch * 2 + 1, "{batches:?}");
    assert!(batches.iter().all(|records| (1..=a_batch).contains(records)), "{batches:?}");
    assert!(batches.contains(&a_batch), "{batches:?}");
}

#[test]
fn the_shard_that_opened_its_file_first_closes_it_when_there_are_too_many() {
    let files = OpenFiles::new(2);
    let shards: Vec<_> = (0..5).map(|_| shard(1 << 20, true)).collect();
    let has_file =
        |shard: &Arc<Shard>| shard.append.lock().writer.as_ref().is_some_and(|writer| !writer.is_parked());
    let open = |index: usize| {
        put(&shards[index]);
        files.opened(&shards[index]);
        shards.iter().map(has_file).collect::<Vec<_>>()
    };
    let committing = |is: bool| shards[0].append.lock().committing = is;
    assert_eq!(open(0), [true, false, false, false, false]);
    assert_eq!(open(1), [true, true, false, false, false]);
    committing(true);
    assert_eq!(open(2), [true, true, true, false, false], "the first one commits: another time");
    committing(false);
    assert_eq!(open(3), [true, false, false, true, false], "the two that opened first, but for that one");
    assert_eq!(open(4), [false, false, false, true, true]);
    assert!(shards.iter().all(|shard| shard.has_unsynced()), "closing a file is no sync");
}

fn segment_of(shard: &Shard, incarnation: u64, first: u64) -> SegmentWriter {
    let header = SegmentHeader {
        stream_id: STREAM,
        shard_id: shard.id,
        incarnation,
        first: SequenceNumber::new(first),
        created: Timestamp::from_millis(0),
        file_bytes: 4096,
    };
    SegmentWriter::create(&shard.context.storage, &shard.directory, header).unwrap()
}

/// Another handle of its producer was made while it waited: the batch is refused before the segment is sealed as one that has a successor. An empty
/// successor would go with the close, and the shard could not be opened any more.
#[test]
fn a_batch_that_was_fenced_while_it_waited_rolls_nothing() {
    let shard = shard_with(StreamOptions { segment_bytes: 4096, ..StreamOptions::default() }, true);
    put(&shard);
    shard.append.lock().committing = true;
    let epoch = Arc::new(AtomicU64::new(1));
    let waiting = sleeper({
        let (shard, epoch) = (Arc::clone(&shard), Arc::clone(&epoch));
        move || {
            let stamp = ProducerStamp { producer_id: 0, epoch: 1, batch_number: 1 };
            let stamped = Stamped { producer: "p", stamp, current_epoch: &epoch, condition: Condition::default() };
            let entry = AppendEntry { partition_key: "key", data: &[7; 4000], explicit_hash_key: None };
            shard.append_stamped(&[(HashKey::new(0), entry)], Durability::Buffered, stamped).map(drop)
        }
    });
    epoch.store(2, Ordering::SeqCst);
    shard.append.lock().committing = false;
    shard.committed.notify_all();
    let outcome = join(waiting);
    assert!(matches!(outcome, Err(ShardError::ProducerFenced { .. })), "{outcome:?}");
    assert_eq!(shard.segments.read().all().len(), 1);
}

#[test]
fn the_segments_that_were_opened_last_are_kept() {
    let shard = shard(1 << 20, true);
    let recent = RecentSegments::default();
    let kept: Vec<Weak<Segment>> = (0..=RECENT_SEGMENTS as u64)
        .map(|first| {
            let segment = Arc::clone(segment_of(&shard, 1, first).segment());
            recent.keep(&segment);
            Arc::downgrade(&segment)
        })
        .collect();
    let gone = || {
        let gone = kept.iter().enumerate().filter(|(_, segment)| segment.upgrade().is_none());
        gone.map(|(index, _)| index).collect::<Vec<_>>()
    };
    assert_eq!(gone(), [0], "one too many");
    recent.forget(shard.id, SequenceNumber::new(5));
    assert_eq!(gone(), [0, 5]);
    recent.forget(ShardId::new(9), SequenceNumber::new(6));
    assert_eq!(gone(), [0, 5], "of another shard");
}

/// Until then its records are shown, and a roll that nobody needs costs a file.
#[test]
fn retention_seals_the_active_segment_once_all_of_it_is_expired() {
    let shard = shard(1 << 20, true);
    put(&shard);
    shard.sync().unwrap();
    let cutoff = shard.last_arrival();
    let behind = Timestamp::from_millis(cutoff.as_millis() + 1);
    let is_active = || shard.append.lock().writer.is_some();
    shard.retire_expired(cutoff).unwrap();
    assert!(is_active(), "a record that arrived at the cutoff is not expired");
    shard.append.lock().committing = true;
    shard.retire_expired(behind).unwrap();
    assert!(is_active(), "a commit writes to it");
    shard.append.lock().committing = false;
    shard.retire_expired(behind).unwrap();
    assert!(!is_active());
    assert!(shard.removal(|_| false).unwrap().is_empty());
    assert!(!shard.removal(|_| true).unwrap().is_empty());
    put(&shard);
    shard.abandon(&io_fault());
    shard.retire_expired(behind).unwrap();
    assert!(is_active(), "a shard that failed writes nothing any more");
}

/// A batch is known as long as one of its records is shown, by the shard or by the ancestor that took it.
#[test]
fn a_batch_is_forgotten_with_the_last_of_its_records() {
    let shard = shard(1 << 20, true);
    shard.context.producers.set(1, 1);
    shard.context.producers.set(2, 1);
    let batch = |producer_id, first| StampedBatch {
        stamp: ProducerStamp { producer_id, epoch: 1, batch_number: 1 },
        first: SequenceNumber::new(first),
        count: 2,
        arrival: Timestamp::from_millis(0),
    };
    let mut producers = Producers::default();
    producers.note(&batch(1, 5), shard.id, shard.range); // up to and with 6
    producers.note(&batch(2, 40), ShardId::new(9), shard.range);
    let parent = |horizon| ShardEntry { id: ShardId::new(9), horizon: SequenceNumber::new(horizon), ..entry() };
    let known = |listed: &[ShardEntry]| {
        shard.context.lineage.set(listed);
        let mut producers = producers.clone();
        shard.prune_producers(&mut producers);
        [1, 2].map(|id| producers.last_batch(id).is_some())
    };
    assert_eq!(known(&[entry(), parent(41)]), [true, true]);
    assert_eq!(known(&[entry(), parent(42)]), [true, false], "trimmed in the parent");
    assert_eq!(known(&[entry()]), [true, false], "gone with the parent");
    for (horizon, is_known) in [(1, true), (6, true), (7, false)] {
        shard.raise_horizon(SequenceNumber::new(horizon));
        assert_eq!(known(&[entry(), parent(0)]), [is_known, true], "below {horizon}");
    }
}
