//! What an opening decides, one decision at a time. Most were written for a mutant that nothing else caught.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anabranch::limits::{MAX_SHARD_ID, RECENT_SEGMENTS};
use anabranch::storage::{Access, DirEntry, LockGuard, Operation, Storage, StorageFile};
use anabranch::{
    Clock, Crash, DiskFault, Durability, Error, ErrorKind, HashKey, ManualClock, PutEntry, PutOptions,
    QueueOptions, RecordsStart, RetentionPeriod, SequenceNumber, ShardId, ShardIteratorType, SimulatedDisk, Store,
    Stream, StreamBuilder, VerifyOptions, repair, verify,
};

use crate::damage::files_of;
use crate::history::{PATH, assert_sound, builder};

const SHARD: ShardId = ShardId::new(0);
const HEADER: usize = 128;
const SLOT_HEADER: usize = 64;

fn staging() -> PathBuf {
    Path::new(PATH).join("STAGING")
}

fn segment(first: u64) -> PathBuf {
    Path::new(PATH).join(format!("shards/{:012}/{first:020}.seg", 0))
}

struct Case {
    disk: SimulatedDisk,
    clock: Arc<ManualClock>,
}

impl Case {
    fn create(durability: Durability, segment_bytes: u64) -> (Self, Stream) {
        let case = Self { disk: SimulatedDisk::new(), clock: Arc::new(ManualClock::default()) };
        let made = case.builder().segment_bytes(segment_bytes).durability(durability);
        let stream = made.create(PATH).unwrap();
        (case, stream)
    }

    fn builder(&self) -> StreamBuilder {
        builder(&self.disk, &self.clock)
    }

    fn kill(&mut self, stream: Stream) {
        self.disk = self.disk.crash(Crash::ProcessKilled);
        drop(stream);
    }

    fn copy(&self) -> Self {
        Self { disk: self.disk.fork(Crash::ProcessKilled), clock: Arc::clone(&self.clock) }
    }

    fn open(&self) -> Result<Stream, Error> {
        self.builder().open_existing(PATH)
    }

    /// Refused as damage to these records.
    fn refused(&self, first: u64, last: u64) {
        match self.open() {
            Err(Error::Corrupt(found)) => {
                let records = (found.first_sequence_number, found.last_sequence_number);
                let expected = (Some(SequenceNumber::new(first)), Some(SequenceNumber::new(last)));
                assert_eq!((found.shard_id, records), (Some(SHARD), expected), "{found}");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// The second segment holds a torn write and no record, so that the first one's footer is written again. Power cuts in the middle of that, and
/// of the next opening, leave no footer torn before a successor that is not empty. The write is as long as several of the pieces that are cleared.
#[test]
fn a_torn_successor_is_emptied_before_the_footer_before_it_is_written_again() {
    let (mut case, stream) = Case::create(Durability::Buffered, 512 << 10);
    stream.put("key", vec![1; 300_000]).unwrap();
    stream.put("key", vec![2; 300_000]).unwrap();
    case.kill(stream);
    case.disk.damage(&segment(1), |bytes| bytes[HEADER + 100] ^= 1).unwrap();
    let whole = case.copy();
    assert_eq!(whole.open().unwrap().recovery().torn_tails.len(), 1);
    for nth in 0..whole.disk.operations_of(Operation::Sync) {
        for seed in 0..150 {
            let cut = case.copy();
            cut.disk.fail_on(Operation::Sync, nth, DiskFault::PowerCut);
            drop(cut.open());
            let mut cut = Case { disk: cut.disk.crash(Crash::PowerLost { seed }), ..cut };
            let name = format!("cut at sync {nth}, seed {seed}");
            let stream = cut.open().unwrap_or_else(|error| panic!("{name}: {error:?}"));
            cut.kill(stream);
            assert_sound(&cut.disk, &name);
        }
    }
}

/// The zeros over a torn successor were written and not made durable, so that the next opening finds nothing torn. The power takes them when the
/// footer before is being written again.
#[test]
fn a_torn_successor_that_comes_back_behind_a_torn_footer_is_no_damage() {
    let mut both_torn = 0;
    for fault in [DiskFault::PowerCut, DiskFault::Error(io::ErrorKind::Other)] {
        for seed in 0..300 {
            let (mut case, stream) = Case::create(Durability::Buffered, 4160); // whose footer is in two sectors
            stream.put("key", [1; 3_000]).unwrap();
            stream.put("key", [2; 3_000]).unwrap();
            case.kill(stream);
            case.disk.damage(&segment(1), |bytes| bytes[HEADER + 100] ^= 1).unwrap();
            for (fault, crash) in [(fault, Crash::ProcessKilled), (DiskFault::PowerCut, Crash::PowerLost { seed })]
            {
                case.disk.fail_on(Operation::Sync, 0, fault);
                case.open().unwrap_err();
                case.disk = case.disk.crash(crash);
            }
            let name = format!("{fault:?}, seed {seed}");
            let is_torn = case.disk.read_file(&segment(1)).unwrap()[HEADER..].iter().any(|byte| *byte != 0);
            assert_sound(&case.disk, &name);
            let stream = case.open().unwrap_or_else(|error| panic!("{name}: {error:?}"));
            both_torn += u32::from(is_torn && stream.recovery().records_recovered == 1);
            assert_eq!(count(&stream), 1, "{name}");
            case.kill(stream);
            assert_sound(&case.disk, &name);
        }
    }
    assert!(both_torn > 20, "{both_torn}");
}

/// A footer that is not sound before a successor that has a torn record only is damage where that record is known durable, and where the segment
/// does not reach up to it.
#[test]
fn a_damaged_footer_before_a_damaged_successor_is_told() {
    for (durability, reaches) in [(Durability::Synced, true), (Durability::Buffered, false)] {
        let (mut case, stream) = Case::create(durability, 4160);
        stream.put("key", [1; 3_000]).unwrap();
        stream.put("key", [2; 3_000]).unwrap();
        case.kill(stream);
        case.disk.damage(&segment(1), |bytes| bytes[HEADER + 100] ^= 1).unwrap();
        let footer_alone = case.copy();
        footer_alone.disk.damage(&segment(0), |bytes| bytes[4_159] ^= 1).unwrap();
        if durability == Durability::Buffered {
            assert_eq!(count(&footer_alone.open().unwrap()), 1, "a roll that was cut short leaves the same");
        }
        case.disk.damage(&segment(0), |bytes| bytes[4_159] ^= 1).unwrap();
        if !reaches {
            case.disk.damage(&segment(0), |bytes| bytes[HEADER + 100] ^= 1).unwrap();
            // Nor is it known that the first record was durable.
            case.disk.damage(&Path::new(PATH).join("WATERMARK"), |bytes| bytes.fill(0)).unwrap();
        }
        let options = VerifyOptions { storage: Some(Arc::new(case.disk.clone())), progress: None };
        let report = verify(PATH, options).unwrap();
        assert!(report.damage.iter().any(|damage| damage.path == segment(0)), "{durability:?}: {report:?}");
        case.refused(0, 0);
        assert!(case.disk.read_file(&segment(1)).is_ok(), "nothing is removed");
    }
}

/// A write-back failed and the system lets the pages go while a recovery is at work: it finds zeros where it found records. It vouches for no
/// record that it does not see again.
#[test]
fn what_a_recovery_does_not_find_again_is_not_sealed() {
    let is_sealed = |disk: &SimulatedDisk| {
        let bytes = disk.read_file(&segment(0)).unwrap();
        bytes[bytes.len() - 128..].starts_with(b"ANABREND")
    };
    let (mut case, stream) = Case::create(Durability::Buffered, 1 << 20);
    for byte in 0..3 {
        stream.put("key", [byte; 100]).unwrap();
    }
    assert_eq!(count(&stream), 3); // which also writes them to the segment
    case.kill(stream);
    case.disk.remove_file(&staging()).unwrap(); // from where they would be taken again
    let mut refused = 0;
    for at in 0.. {
        let case = case.copy();
        let disk = case.disk.clone();
        let storage = Meanwhile::before(at..at + 1, &case.disk, move || {
            if disk.read_file(&segment(0)).is_ok() && !is_sealed(&disk) {
                disk.damage(&segment(0), |bytes| bytes[HEADER + 144..].fill(0)).unwrap();
            }
        });
        let name = format!("before look {at}");
        match case.builder().storage(storage.clone()).open_existing(PATH) {
            Ok(stream) => assert!([1, 3].contains(&count(&stream)), "{name}"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Io, "{name}: {error:?}");
                refused += 1;
            }
        }
        let disk = case.disk.crash(Crash::PowerLost { seed: at });
        assert_sound(&disk, &name);
        let stream = builder(&disk, &case.clock).open_existing(PATH).unwrap();
        assert!(count(&stream) <= 3, "{name}");
        if storage.looks.load(Ordering::SeqCst) <= at {
            break;
        }
    }
    assert!(refused > 0, "it never happened between two looks at the records");
}

/// A torn tail behind sound records is told: where it stood, and from which number on.
#[test]
fn a_torn_tail_is_told() {
    let (mut case, stream) = Case::create(Durability::Buffered, 1 << 20);
    stream.put("key", [1; 100]).unwrap();
    stream.put("key", [2; 100]).unwrap();
    assert_eq!(count(&stream), 2); // which also writes them to the segment
    case.kill(stream);
    case.disk.remove_file(&staging()).unwrap(); // from where the second would be taken again
    let path = segment(0);
    let second = HEADER + 144; // a frame of 40 + 3 + 100 bytes before it
    case.disk.damage(&path, |bytes| bytes[second + 60] ^= 1).unwrap();
    let stream = case.open().unwrap();
    let recovery = stream.recovery();
    let [torn] = recovery.torn_tails.as_slice() else { panic!("{recovery:?}") };
    assert_eq!((torn.shard_id, torn.next_sequence_number.get()), (SHARD, 1));
    assert_eq!((&torn.path, torn.offset), (&path, second as u64));
    assert_eq!((recovery.records_recovered, recovery.shards_recovered, recovery.was_clean), (1, 1, false));
}

/// Reads the shard, and with that writes what is staged to its segment.
fn count(stream: &Stream) -> usize {
    stream.shard_iterator(SHARD, ShardIteratorType::TrimHorizon).unwrap().available().map(Result::unwrap).count()
}

/// What was acknowledged and never written to its segment is there after a kill; and after a kill in the middle of taking it from the
/// staging file, at every call of it; also where the segment holds a part of the batch, or a torn copy.
#[test]
fn what_was_staged_is_recovered_whenever_the_recovery_dies() {
    for written in [false, true] {
        let (mut case, stream) = Case::create(Durability::Buffered, 1 << 20);
        stream.put("key", [1; 100]).unwrap();
        if written {
            assert_eq!(count(&stream), 1);
            stream.put("key", [2; 100]).unwrap();
        }
        let entries = vec![PutEntry::new("key", &[3; 100]); 20]; // longer than a slot of the simulated disk
        stream.put_batch(&entries).unwrap();
        let expected = 21 + usize::from(written);
        case.kill(stream);
        if written {
            case.disk.damage(&segment(0), |bytes| bytes[HEADER + 60] ^= 1).unwrap(); // torn, and whole in its slot no more
        }
        let whole = case.copy();
        if written {
            // The first record is gone from both: nothing behind it may come back.
            assert_eq!(count(&whole.open().unwrap()), 0);
            continue;
        }
        assert_eq!(count(&whole.open().unwrap()), expected);
        for nth in 0..whole.disk.operations() {
            let mut cut = case.copy();
            cut.disk.fail_at(nth, DiskFault::PowerCut);
            drop(cut.open());
            cut.disk = cut.disk.crash(Crash::ProcessKilled);
            let stream = cut.open().unwrap_or_else(|error| panic!("cut at {nth}: {error:?}"));
            assert_eq!(count(&stream), expected, "cut at {nth}");
            cut.kill(stream);
            assert_sound(&cut.disk, &format!("cut at {nth}"));
        }
    }
}

/// A slot is taken for what its header and its frames' checksums say, bit for bit, and for nothing else.
#[test]
fn a_damaged_slot_gives_up_its_records_from_the_damage_on() {
    let (mut case, stream) = Case::create(Durability::Buffered, 1 << 20);
    for number in 0..3_u8 {
        stream.put("key", [number; 100]).unwrap();
    }
    case.kill(stream);
    for at in 0..SLOT_HEADER + 3 * 144 {
        let damaged = case.copy();
        damaged.disk.damage(&staging(), |bytes| bytes[at] ^= 1).unwrap();
        let stream = damaged.open().unwrap();
        let sound = at.checked_sub(SLOT_HEADER).map_or(0, |behind| behind / 144);
        assert_eq!(count(&stream), sound, "byte {at}");
        let put = stream.put("key", "goes on").unwrap();
        assert_eq!(put.sequence_number.get(), sound as u64);
    }
}

/// An older staging file that comes back, or one of another stream, is nobody's.
#[test]
fn a_staging_file_of_another_life_is_ignored() {
    let (mut case, stream) = Case::create(Durability::Buffered, 1 << 20);
    stream.put("key", [1; 100]).unwrap();
    case.kill(stream);
    let old = case.disk.read_file(&staging()).unwrap();
    let stream = case.open().unwrap();
    assert_eq!(count(&stream), 1);
    stream.put("key", [2; 100]).unwrap();
    assert_eq!(count(&stream), 2);
    case.kill(stream);
    case.disk.damage(&staging(), |bytes| *bytes = old).unwrap();
    let stream = case.open().unwrap();
    assert_eq!(count(&stream), 2);
    stream.close().unwrap();
    assert!(case.disk.read_file(&staging()).is_err(), "a clean close leaves none");
}

/// What is staged cannot be written: the shard fails, the next opening finds it. Nobody else gets the slot meanwhile.
#[test]
fn what_cannot_be_written_stays_staged() {
    let (case, stream) = Case::create(Durability::Buffered, 1 << 20);
    stream.put("key", [1; 100]).unwrap();
    case.disk.fail_on(Operation::Write, 0, DiskFault::Error(io::ErrorKind::Other));
    let mut reader = stream.shard_iterator(SHARD, ShardIteratorType::TrimHorizon).unwrap();
    assert!(matches!(reader.next_batch(), Err(Error::ShardFailed { .. })));
    assert!(matches!(stream.put("key", "more"), Err(Error::ShardFailed { .. })));
    assert!(stream.close().is_err());
    let stream = case.open().unwrap();
    assert_eq!(count(&stream), 1);
}

/// Who has nothing unseen has nothing written for it, and is told of no write that fails.
#[test]
fn what_is_staged_is_not_written_for_who_has_nothing_unseen() {
    let (case, stream) = Case::create(Durability::Buffered, 1 << 20);
    let latest = || stream.shard_iterator(SHARD, ShardIteratorType::Latest).unwrap();
    let of_durable = latest().include_unsynced(false);
    stream.put("key", [1; 100]).unwrap();
    let mut readers = [latest(), of_durable];
    case.disk.fail_on(Operation::Write, 0, DiskFault::Error(io::ErrorKind::Other));
    let outcomes = readers.each_mut().map(|reader| reader.next_batch().map(|batch| batch.len()));
    assert!(matches!(outcomes, [Ok(0), Ok(0)]), "{outcomes:?}");
}

/// The only segment of a shard vanishes: nothing else on the disk is wrong.
#[test]
fn the_only_segment_is_missed() {
    for closed in [false, true] {
        let (mut case, stream) = Case::create(Durability::Synced, 1 << 20);
        for _ in 0..3 {
            stream.put("key", [1; 100]).unwrap();
        }
        if closed {
            stream.close().unwrap();
        } else {
            case.kill(stream);
        }
        case.disk.remove_file(&segment(0)).unwrap();
        case.refused(0, 2);
    }
}

/// What a recovery made durable is witnessed twice: an older manifest put back does not hide that its records are gone.
#[test]
fn recovered_records_are_missed_beside_an_older_manifest() {
    let (mut case, stream) = Case::create(Durability::Buffered, 1 << 20);
    stream.put("key", [1; 100]).unwrap();
    case.kill(stream);
    let manifest = Path::new(PATH).join("MANIFEST");
    let older = case.disk.read_file(&manifest).unwrap();
    let stream = case.open().unwrap();
    case.kill(stream);
    case.disk.damage(&manifest, |bytes| *bytes = older).unwrap();
    assert_eq!(case.copy().open().unwrap().recovery().records_recovered, 0, "the manifest alone does no harm");
    case.disk.remove_file(&segment(0)).unwrap();
    case.refused(0, 0);
}

/// The same stream went on elsewhere, and its segment was copied back: it holds records that the clean manifest does not know.
#[test]
fn a_segment_that_goes_on_behind_a_clean_manifest_is_refused() {
    let (mut case, stream) = Case::create(Durability::Buffered, 1 << 20);
    stream.put("key", [1; 100]).unwrap();
    let elsewhere = case.disk.fork(Crash::ProcessKilled);
    stream.put("key", [2; 100]).unwrap();
    stream.close().unwrap();
    let longer = case.disk.read_file(&segment(0)).unwrap();
    // A recovery ends with the manifest knowing one record; a close makes it a clean one.
    case.disk = elsewhere;
    case.open().unwrap().close().unwrap();
    case.copy().open().unwrap();
    case.disk.damage(&segment(0), |bytes| *bytes = longer).unwrap();
    case.refused(1, 1);
}

/// A clean opening writes to no segment, and a shard more costs it no write and no sync.
#[test]
fn a_clean_opening_touches_no_segment() {
    let costs = [1_u32, 9].map(|shards| {
        let (case, stream) = Case::create(Durability::Synced, 1 << 20);
        drop(stream);
        let case = Case { disk: SimulatedDisk::new(), ..case };
        let stream = case.builder().shards(shards).create(PATH).unwrap();
        for summary in stream.shards() {
            let at = PutOptions::new().explicit_hash_key(summary.hash_key_range.start());
            stream.put_with("key", [1; 100], at).unwrap();
        }
        stream.close().unwrap();
        let changes = [Operation::Write, Operation::Sync, Operation::SyncDir];
        let before = changes.map(|operation| case.disk.operations_of(operation));
        let stream = case.open().unwrap();
        assert!(stream.recovery().was_clean);
        let after = changes.map(|operation| case.disk.operations_of(operation));
        [after[0] - before[0], after[1] - before[1], after[2] - before[2]]
    });
    assert_eq!(costs[0], costs[1], "writes, syncs, syncs of directories");
}

/// So many shards that several threads recover them: the power goes in the middle of that, once more in the middle of the next, and a
/// damaged one among them is named, whichever thread meets it.
#[test]
fn many_shards_are_recovered_by_threads_and_cut_short() {
    const SHARDS: u32 = 100;
    let case = Case { disk: SimulatedDisk::new(), clock: Arc::new(ManualClock::default()) };
    let stream = case.builder().shards(SHARDS).durability(Durability::Buffered).create(PATH).unwrap();
    for summary in stream.shards() {
        for durability in [Durability::Synced, Durability::Buffered] {
            let at = PutOptions::new().explicit_hash_key(summary.hash_key_range.start()).durability(durability);
            stream.put_with("key", [1; 100], at).unwrap();
        }
    }
    let whole = case.copy();
    let calls = whole.disk.operations();
    whole.open().unwrap();
    let calls = whole.disk.operations() - calls;
    for round in 0..60 {
        let mut cut = case.copy();
        for step in 0..2 {
            cut.disk.fail_at((round * 7919 + step * 31) % calls, DiskFault::PowerCut);
            drop(cut.open());
            cut.disk = cut.disk.crash(Crash::PowerLost { seed: round + step });
        }
        let name = format!("round {round}");
        assert_sound(&cut.disk, &name);
        let stream = cut.open().unwrap_or_else(|error| panic!("{name}: {error:?}"));
        for id in 0..SHARDS {
            stream.get(ShardId::new(id), SequenceNumber::ZERO).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        }
        stream.close().unwrap();
        assert!(cut.open().unwrap().recovery().was_clean, "{name}");
    }
    for damaged in [0_u32, 63, 64, 99] {
        let case = case.copy();
        let path = Path::new(PATH).join(format!("shards/{damaged:012}/{:020}.seg", 0));
        case.disk.damage(&path, |bytes| bytes[HEADER + 100] ^= 1).unwrap();
        match case.open() {
            Err(Error::Corrupt(found)) => assert_eq!(found.shard_id, Some(ShardId::new(damaged)), "{found}"),
            other => panic!("shard {damaged}: {other:?}"),
        }
    }
}

type Way = fn(&Case) -> Result<Option<Stream>, Error>;

/// A call that fails is an error of the disk to who opens, creates or verifies: not a stream that is missing, nor damage, nor
/// nothing at all.
#[test]
fn a_call_that_fails_is_told_as_what_it_is() {
    let (case, stream) = Case::create(Durability::Synced, 4096);
    for _ in 0..12 {
        stream.put("key", [1; 1000]).unwrap();
    }
    stream.split_shard(SHARD, None).unwrap();
    stream.put("key", [1; 100]).unwrap();
    stream.close().unwrap();
    let empty = Case { disk: SimulatedDisk::new(), clock: Arc::clone(&case.clock) };
    let ways: [(&str, &Case, Way); 4] = [
        ("open", &case, |case| case.builder().open(PATH).map(Some)),
        ("read", &case, |case| case.builder().open_read_only(PATH).map(Some)),
        ("verify", &case, |case| {
            let options = VerifyOptions { storage: Some(Arc::new(case.disk.clone())), progress: None };
            assert!(verify(PATH, options)?.is_sound());
            Ok(None)
        }),
        ("create", &empty, |case| case.builder().open(PATH).map(Some)),
    ];
    for (name, case, way) in ways {
        let whole = case.copy();
        let stream = way(&whole).unwrap();
        let calls = whole.disk.operations();
        drop(stream);
        assert!(calls > 10, "{name}");
        for at in 0..calls {
            let failing = case.copy();
            failing.disk.fail_at(at, DiskFault::Error(io::ErrorKind::Other));
            match way(&failing) {
                Err(error) => assert_eq!(error.kind(), ErrorKind::Io, "{name}, call {at}: {error:?}"),
                Ok(_) => panic!("{name}, call {at}: it failed, and nobody was told"),
            }
        }
    }
}

/// The directories above the one that was made need not be readable, nor in a file system that takes changes: somebody else made them. A file system
/// that failed takes none from then on, above or below.
#[test]
fn only_what_a_creation_made_has_to_be_synced() {
    let syncs = |path: &str, nth, fault| {
        let disk = SimulatedDisk::new();
        disk.create_dir(Path::new("above")).unwrap();
        disk.create_dir(Path::new("above/data")).unwrap();
        disk.fail_on(Operation::SyncDir, nth, fault);
        builder(&disk, &Arc::new(ManualClock::default())).create(path).is_ok()
    };
    let denied = DiskFault::Error(io::ErrorKind::PermissionDenied);
    let without_syncs = DiskFault::Error(io::ErrorKind::InvalidInput);
    let read_only = DiskFault::Error(io::ErrorKind::ReadOnlyFilesystem);
    let failed = DiskFault::ErrorFromThenOn(io::ErrorKind::ReadOnlyFilesystem);
    let other = DiskFault::Error(io::ErrorKind::Other);
    // The directory of the shards, the stream's, the one that holds it; those above; the stream's for the manifest.
    for (nth, passes) in (0..).zip([false, false, false, true, true, false]) {
        assert_eq!(syncs("above/data/clicks", nth, denied), passes, "directory {nth} may not be read");
        // A file system that is never written has no syncs.
        assert_eq!(syncs("above/data/clicks", nth, without_syncs), passes, "directory {nth} has no syncs");
        // The stream's own directory may be where another file system is mounted.
        assert_eq!(syncs("above/data/clicks", nth, read_only), passes || nth == 2, "directory {nth} is read-only");
        for fault in [failed, other] {
            assert!(!syncs("above/data/clicks", nth, fault), "directory {nth}, {fault:?}");
        }
    }
}

/// What a recovery found is counted: records, and the shards that had any.
#[test]
fn recovered_records_and_shards_are_counted() {
    let mut case = Case { disk: SimulatedDisk::new(), clock: Arc::new(ManualClock::default()) };
    let stream = case.builder().shards(4).create(PATH).unwrap();
    for (summary, records) in stream.shards().iter().zip([3, 0, 2, 0]) {
        for _ in 0..records {
            let at = PutOptions::new().explicit_hash_key(summary.hash_key_range.start());
            stream.put_with("key", [1; 100], at).unwrap();
        }
    }
    case.kill(stream);
    let stream = case.open().unwrap();
    let recovery = stream.recovery();
    assert_eq!((recovery.records_recovered, recovery.shards_recovered, recovery.was_clean), (5, 2, false));
}

/// Data of a record that was torn, each 16 bytes of which claim to be a frame of the number that would come next. Which are is not found out in bounded time.
#[test]
fn a_tail_that_imitates_too_many_frames_is_refused_and_cut_by_a_repair() {
    let (mut case, stream) = Case::create(Durability::Synced, 64 << 20);
    stream.put("key", vec![1; 1 << 20]).unwrap(); // the next segment is four times as long
    stream.put("key", [1; 100]).unwrap();
    case.kill(stream);
    case.disk
        .damage(&segment(1), |bytes| {
            let claimed = u32::try_from(bytes.len() / 2).unwrap();
            for place in bytes[HEADER + 200..].as_chunks_mut::<16>().0.iter_mut().take(8_192) {
                place[..4].fill(1);
                place[4..8].copy_from_slice(&claimed.to_le_bytes());
                place[8..].copy_from_slice(&3_u64.to_le_bytes());
            }
        })
        .unwrap();
    case.refused(2, 2);
    let report = repair(PATH, Some(Arc::new(case.disk.clone()))).unwrap();
    assert!(report.after.is_sound(), "{:?}", report.after.damage);
    let stream = case.open().unwrap();
    assert_eq!(stream.get(SHARD, SequenceNumber::new(1)).unwrap().data(), [1; 100]);
    assert_eq!(stream.put("key", b"next").unwrap().sequence_number.get(), 2);
}

/// Directories that no manifest names: a shard that expired may hold files and is removed; one that is newer than the manifest is
/// removed where it is empty, the leftover of a reshard, and refused where it holds anything.
#[test]
fn a_directory_that_the_manifest_does_not_name_is_removed_or_refused() {
    let case = Case { disk: SimulatedDisk::new(), clock: Arc::new(ManualClock::default()) };
    let stream = case.builder().retention(Duration::from_secs(60)).create(PATH).unwrap();
    stream.put("key", [1; 100]).unwrap();
    let (left, _) = stream.split_shard(SHARD, None).unwrap();
    for _ in 0..4 {
        case.clock.advance(Duration::from_secs(40));
        stream.enforce_retention().unwrap();
    }
    stream.close().unwrap();
    let directory = |id: u32| Path::new(PATH).join(format!("shards/{id:012}"));
    let is_there = |case: &Case, id| case.disk.list(&directory(id)).is_ok();
    assert!(!is_there(&case, 0) && is_there(&case, left.get()), "the parent went with its last record");
    let put = |id: u32, file: bool| {
        let case = case.copy();
        case.disk.create_dir(&directory(id)).unwrap();
        if file {
            case.disk.create_file(&directory(id).join(format!("{:020}.seg", 0))).unwrap();
        }
        case
    };
    for (id, file) in [(0, false), (0, true), (3, false), (9, false)] {
        let case = put(id, file);
        drop(case.open().unwrap());
        assert!(!is_there(&case, id), "{id}, with a file: {file}");
    }
    for id in [3, 9] {
        let case = put(id, true);
        match case.open() {
            Err(Error::Corrupt(found)) => assert_eq!(found.shard_id, Some(ShardId::new(id)), "{found}"),
            other => panic!("{id}: {other:?}"),
        }
        assert!(is_there(&case, id), "{id}");
    }
    // What is no shard's directory is nobody's business.
    let case = case.copy();
    let foreign = [Path::new(PATH).join("shards/notes"), directory(MAX_SHARD_ID), directory(MAX_SHARD_ID + 1)];
    for foreign in &foreign {
        case.disk.create_dir(foreign).unwrap();
        case.disk.create_file(&foreign.join("file")).unwrap();
    }
    drop(case.open().unwrap());
    for foreign in &foreign {
        assert!(case.disk.list(foreign).is_ok());
    }
}

/// Two shards of ten records, three in a segment; of the first the front was trimmed.
fn with_a_trimmed_shard() -> Case {
    let case = Case { disk: SimulatedDisk::new(), clock: Arc::new(ManualClock::default()) };
    let stream = case.builder().shards(2).segment_bytes(4096).create(PATH).unwrap();
    for summary in stream.shards() {
        let at = PutOptions::new().explicit_hash_key(summary.hash_key_range.start());
        for _ in 0..10 {
            stream.put_with("key", [1; 1000], at).unwrap();
        }
    }
    stream.trim_shard(SHARD, SequenceNumber::new(7)).unwrap();
    stream.close().unwrap();
    assert!(case.disk.read_file(&segment(3)).is_err() && case.disk.read_file(&segment(6)).is_ok());
    case
}

/// A segment of the second shard stands where one of the first shard was trimmed.
pub(crate) fn with_a_misplaced_segment() -> SimulatedDisk {
    let disk = with_a_trimmed_shard().disk;
    let other = Path::new(PATH).join("shards/000000000001").join(segment(0).file_name().unwrap());
    let bytes = disk.read_file(&other).unwrap();
    disk.create_file(&segment(0)).unwrap().write_at(&bytes, 0).unwrap();
    disk
}

/// A child's segment in the directory of its parent, which expired: no manifest says more of that than it did.
pub(crate) fn with_a_misplaced_segment_of_no_shard() -> SimulatedDisk {
    let case = Case { disk: SimulatedDisk::new(), clock: Arc::new(ManualClock::default()) };
    let stream = case.builder().retention(Duration::from_secs(60)).create(PATH).unwrap();
    stream.put("key", [1; 100]).unwrap();
    stream.split_shard(SHARD, None).unwrap();
    for _ in 0..4 {
        case.clock.advance(Duration::from_secs(40));
        stream.enforce_retention().unwrap();
    }
    let put = stream.put("key", [2; 100]).unwrap();
    stream.close().unwrap();
    let place = segment(put.sequence_number.get());
    let name = place.file_name().unwrap();
    let child = Path::new(PATH).join(format!("shards/{:012}", put.shard_id.get())).join(name);
    let bytes = case.disk.read_file(&child).unwrap();
    case.disk.create_dir(place.parent().unwrap()).unwrap();
    case.disk.create_file(&place).unwrap().write_at(&bytes, 0).unwrap();
    case.disk
}

fn segments_of(disk: &SimulatedDisk) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = files_of(disk).into_iter().filter(|path| path.extension().is_some_and(|found| found == "seg"));
    paths.map(|path| (path.clone(), disk.read_file(&path).unwrap())).collect()
}

/// Refuses it, changes no segment, and says so beforehand; what stands for a leftover there is set aside by a repair.
fn expect_misplaced(case: &Case, leftover: &Path, name: &str) {
    let before = segments_of(&case.disk);
    let options = VerifyOptions { storage: Some(Arc::new(case.disk.clone())), progress: None };
    let damage = verify(PATH, options).unwrap().damage;
    assert!(damage.iter().any(|damage| damage.path == leftover), "{name}: {damage:?}");
    for _ in 0..2 {
        let refused = case.open().map(drop).unwrap_err();
        assert!(matches!(refused, Error::Corrupt(_)), "{name}: {refused:?}");
        assert!(segments_of(&case.disk) == before, "{name}: segments are gone");
    }
    let repaired = case.copy();
    let report = repair(PATH, Some(Arc::new(repaired.disk.clone()))).unwrap();
    assert!(report.after.is_sound(), "{name}: {:?}", report.after.damage);
    drop(repaired.open().unwrap_or_else(|error| panic!("{name}: {error:?}")));
    let aside: Vec<_> = report.set_aside.iter().map(|path| repaired.disk.read_file(path).unwrap()).collect();
    let after = segments_of(&repaired.disk);
    for (path, bytes) in before {
        assert!(after.get(&path) == Some(&bytes) || aside.contains(&bytes), "{name}: {} is gone", path.display());
    }
}

/// The directories of two shards are in each other's place: what is below the first record of the one is all that there is of the other.
#[test]
fn shards_in_each_others_place_are_refused_and_nothing_is_removed() {
    let case = with_a_trimmed_shard();
    let sound = segments_of(&case.disk);
    let path = |name: &str| Path::new(PATH).join("shards").join(name);
    let swap = || {
        for (from, to) in [("000000000000", "aside"), ("000000000001", "000000000000"), ("aside", "000000000001")]
        {
            case.disk.rename(&path(from), &path(to)).unwrap();
        }
    };
    swap();
    expect_misplaced(&case, &segment(3), "swapped");
    swap();
    assert!(segments_of(&case.disk) == sound);
    let stream = case.open().unwrap();
    assert_eq!(stream.records(RecordsStart::TrimHorizon).unwrap().available().count(), 13, "as it was before");
}

/// The MANIFEST of another stream: what it does not count is not its own.
#[test]
fn behind_a_foreign_manifest_nothing_is_removed() {
    let manifest = Path::new(PATH).join("MANIFEST");
    let (case, stream) = Case::create(Durability::Synced, 4096);
    for _ in 0..10 {
        stream.put("key", [1; 1000]).unwrap();
    }
    stream.close().unwrap();
    let own = case.disk.read_file(&manifest).unwrap();

    let trimmed = with_a_trimmed_shard();
    let expired = Case { disk: SimulatedDisk::new(), clock: Arc::new(ManualClock::default()) };
    let stream = expired.builder().retention(Duration::from_secs(60)).create(PATH).unwrap();
    stream.put("key", b"data").unwrap();
    stream.split_shard(SHARD, None).unwrap();
    for _ in 0..4 {
        expired.clock.advance(Duration::from_secs(40));
        stream.enforce_retention().unwrap();
    }
    stream.close().unwrap();

    for (name, foreign, leftover) in [("below the first", trimmed, 3), ("an unlisted shard", expired, 0)] {
        let foreign = foreign.disk.read_file(&manifest).unwrap();
        case.disk.damage(&manifest, |bytes| *bytes = foreign).unwrap();
        expect_misplaced(&case, &segment(leftover), name);
    }
    case.disk.damage(&manifest, |bytes| *bytes = own).unwrap();
    assert_eq!(count(&case.open().unwrap()), 10, "as it was before");
}

/// What somebody else keeps in the directory of a shard keeps nobody out when the shard has expired, and is let be.
#[test]
fn what_is_not_the_streams_in_an_expired_shard_is_in_nobodys_way() {
    let case = Case { disk: SimulatedDisk::new(), clock: Arc::new(ManualClock::default()) };
    let stream = case.builder().retention(Duration::from_secs(60)).create(PATH).unwrap();
    stream.put("key", b"data").unwrap();
    stream.split_shard(SHARD, None).unwrap();
    let shard = segment(0).parent().unwrap().to_path_buf();
    let (others, note) = (shard.join("old"), shard.join("note"));
    case.disk.create_dir(&others).unwrap();
    drop(case.disk.create_file(&note).unwrap());
    for _ in 0..4 {
        case.clock.advance(Duration::from_secs(40));
        let _ = stream.enforce_retention(); // it tells that the directory stays
    }
    assert_eq!(stream.shards().len(), 2);
    stream.close().unwrap();
    for _ in 0..2 {
        let stream = case.open().unwrap();
        stream.put("key", b"data").unwrap();
        let looked = VerifyOptions { storage: Some(Arc::new(case.disk.clone())), progress: None };
        assert!(verify(PATH, looked).unwrap().is_sound());
        stream.close().unwrap();
    }
    let mut left: Vec<_> = case.disk.list(&shard).unwrap().into_iter().map(|entry| entry.name).collect();
    left.sort();
    assert_eq!(left, ["note", "old"]);
}

/// All records expired, and the MANIFEST is lost: another stream in the same place would give their numbers again. What a creation that was cut short
/// leaves is no stream's.
#[test]
fn no_stream_is_made_where_one_lost_its_manifest() {
    let remove_manifest = |case: &Case| case.disk.remove_file(&Path::new(PATH).join("MANIFEST")).unwrap();
    for shards in [1, 600] {
        let case = Case { disk: SimulatedDisk::new(), clock: Arc::new(ManualClock::default()) };
        let made = case.builder().shards(shards).retention(Duration::from_secs(60));
        let stream = made.create(PATH).unwrap();
        let unused = case.copy();
        remove_manifest(&unused);
        drop(unused.builder().create(PATH).unwrap());

        let last = stream.shards().pop().unwrap().hash_key_range.start();
        stream.put_with("key", b"data", PutOptions::new().explicit_hash_key(last)).unwrap();
        for _ in 0..4 {
            case.clock.advance(Duration::from_secs(40));
            stream.enforce_retention().unwrap();
        }
        stream.close().unwrap();
        assert!(segments_of(&case.disk).is_empty());
        remove_manifest(&case);
        for _ in 0..2 {
            let refused = case.builder().create(PATH).map(drop).unwrap_err();
            assert!(matches!(refused, Error::NotAStream { .. }), "{shards} shards: {refused:?}");
        }
    }
}

/// A disk on which something happens just before some of the calls that look for files: a writer is at work beside the caller.
pub(crate) struct Meanwhile {
    disk: SimulatedDisk,
    looks: AtomicU64,
    at: Range<u64>,
    happens: Box<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meanwhile").finish_non_exhaustive()
    }
}

impl Meanwhile {
    /// On this disk it happens before these looks.
    pub(crate) fn before(
        at: Range<u64>,
        disk: &SimulatedDisk,
        happens: impl Fn() + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { disk: disk.clone(), looks: AtomicU64::new(0), at, happens: Box::new(happens) })
    }

    /// How many there were.
    pub(crate) fn looks(&self) -> u64 {
        self.looks.load(Ordering::SeqCst)
    }

    fn look(&self) -> &SimulatedDisk {
        if self.at.contains(&self.looks.fetch_add(1, Ordering::SeqCst)) {
            (self.happens)();
        }
        &self.disk
    }
}

impl Storage for Meanwhile {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir(path)
    }

    fn create_file(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        self.disk.create_file(path)
    }

    fn open_file(&self, path: &Path, access: Access) -> io::Result<Arc<dyn StorageFile>> {
        self.look().open_file(path, access)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.look().list(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn LockGuard>>> {
        self.look().lock(path)
    }
}

/// Whatever a writer puts and takes away between two looks, all that was there before included: a reader opens, and a
/// verification finds no damage.
#[test]
fn a_look_beside_a_writer_that_trims_is_repeated() {
    for verifies in [false, true] {
        let mut happened = true;
        for at in 0.. {
            let (case, stream) = Case::create(Durability::Synced, 4096);
            for _ in 0..14 {
                stream.put("key", [1; 1000]).unwrap();
            }
            let storage = Meanwhile::before(at..at + 1, &case.disk, {
                let stream = stream.clone();
                move || {
                    for _ in 0..8 {
                        stream.put("key", [1; 1000]).unwrap();
                    }
                    stream.trim_shard(SHARD, SequenceNumber::new(18)).unwrap();
                }
            });
            let has_happened = || storage.looks.load(Ordering::SeqCst) > at;
            let name = format!("verifies: {verifies}, before look {at}");
            if verifies {
                let report = verify(PATH, VerifyOptions { storage: Some(storage.clone()), progress: None });
                let report = report.unwrap_or_else(|error| panic!("{name}: {error:?}"));
                assert!(report.is_sound(), "{name}: {:?}", report.damage);
            } else {
                let opened = case.builder().storage(storage.clone()).open_read_only(PATH);
                let reader = opened.unwrap_or_else(|error| panic!("{name}: {error:?}"));
                // Overtaken while it reads, it is told so, and begins again.
                let read = || {
                    let mut records = reader.records(RecordsStart::TrimHorizon).unwrap();
                    records.available().take_while(Result::is_ok).count()
                };
                loop {
                    let before = has_happened();
                    let count = read();
                    if has_happened() == before {
                        assert_eq!(count, if before { 4 } else { 14 }, "{name}");
                        break;
                    }
                }
            }
            happened = has_happened();
            if !happened {
                break;
            }
        }
        assert!(!happened, "it happened before every look");
    }
}

/// The same of a shard that a follower meets for the first time.
#[test]
fn a_look_for_new_shards_beside_a_writer_that_trims_is_repeated() {
    let mut happened = true;
    for at in 0.. {
        let (case, stream) = Case::create(Durability::Synced, 4096);
        let (child, before) = (ShardId::new(1), SequenceNumber::new(3));
        let storage = Meanwhile::before(at..at + 1, &case.disk, {
            let stream = stream.clone();
            move || drop(stream.trim_shard(child, before)) // once there is one
        });
        let reader = case.builder().storage(storage.clone()).open_read_only(PATH).unwrap();
        stream.split_shard(SHARD, None).unwrap();
        for _ in 0..4 {
            stream.put_with("key", [1; 1000], PutOptions::new().explicit_hash_key(HashKey::MIN)).unwrap();
        }
        storage.looks.store(0, Ordering::SeqCst);
        let opened = reader.shard_iterator(child, ShardIteratorType::TrimHorizon);
        let mut iterator = opened.unwrap_or_else(|error| panic!("before look {at}: {error:?}"));
        let outcomes: Vec<_> = iterator.available().take(5).collect();
        let read = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        let is_expected = |outcome: &_| matches!(outcome, Ok(_) | Err(Error::Trimmed { .. }));
        assert!(outcomes.iter().all(is_expected), "before look {at}: {outcomes:?}");
        happened = storage.looks.load(Ordering::SeqCst) > at;
        if !happened {
            assert_eq!(read, 4);
            break;
        }
    }
    assert!(!happened, "it happened before every look");
}

/// The writer died at any write of a roll. Between two looks of a follower that opens, its next life removes an empty segment that was listed,
/// and has not come to the manifest yet.
#[test]
fn an_opening_beside_a_recovery_is_repeated() {
    let mut removed = 0;
    for nth in 0.. {
        let (mut case, stream) = Case::create(Durability::Synced, 4096);
        for _ in 0..3 {
            stream.put("key", [1; 1000]).unwrap();
        }
        case.disk.fail_on(Operation::Write, nth, DiskFault::Error(io::ErrorKind::Other));
        let is_whole = stream.put("key", [1; 1000]).is_ok();
        case.kill(stream);
        let mut happened = true;
        for at in 0.. {
            let case = case.copy();
            let segments = || case.disk.list(segment(0).parent().unwrap()).unwrap().len();
            let before = segments();
            let storage = Meanwhile::before(at..at + 1, &case.disk, {
                let case = Case { disk: case.disk.clone(), clock: Arc::clone(&case.clock) };
                move || {
                    case.disk.fail_on(Operation::Rename, 0, DiskFault::Error(io::ErrorKind::Other));
                    case.open().unwrap_err();
                }
            });
            let name = format!("write {nth} failed, before look {at}");
            let opened = case.builder().storage(storage.clone()).open_read_only(PATH);
            let reader = opened.unwrap_or_else(|error| panic!("{name}: {error:?}"));
            assert!((3..=4).contains(&count(&reader)), "{name}");
            removed += before - segments();
            happened = storage.looks.load(Ordering::SeqCst) > at;
            if !happened {
                break;
            }
        }
        assert!(!happened, "it happened before every look");
        if is_whole {
            break;
        }
    }
    assert!(removed > 0, "no recovery removed a segment");
}

/// Retention removes segments just before a reader opens one, in the process that writes and in another: what is gone is trimmed.
#[test]
fn a_reader_beside_retention_is_told_what_is_trimmed() {
    const SEGMENTS: u64 = RECENT_SEGMENTS as u64 + 6; // more than stay open
    let disk = SimulatedDisk::new();
    let clock = Arc::new(ManualClock::default());
    let made = builder(&disk, &clock).segment_bytes(4096).retention(RetentionPeriod::Unlimited);
    let stream = made.create(PATH).unwrap();
    for _ in 0..3 * SEGMENTS {
        stream.put("key", [1; 1000]).unwrap();
    }
    stream.close().unwrap();
    let whole = Case { disk, clock };
    for follows in [false, true] {
        let mut trimmed = 0;
        let mut happened = true;
        for at in 0.. {
            let case = whole.copy();
            let writer = Arc::new(Mutex::new(None::<Stream>));
            let storage = Meanwhile::before(at..at + 1, &case.disk, {
                let writer = Arc::clone(&writer);
                move || {
                    let writer = writer.lock().unwrap().take();
                    if let Some(writer) = writer {
                        writer.trim_shard(SHARD, SequenceNumber::new(3 * SEGMENTS - 4)).unwrap();
                    }
                }
            });
            let on_storage = || case.builder().storage(storage.clone());
            let stream = if follows { case.open() } else { on_storage().open_existing(PATH) }.unwrap();
            stream.describe().unwrap(); // so that a trim opens nothing, whatever is being opened
            let reader = if follows { on_storage().open_read_only(PATH).unwrap() } else { stream.clone() };
            *writer.lock().unwrap() = Some(stream);
            storage.looks.store(0, Ordering::SeqCst);
            let mut outcomes = vec![reader.get(SHARD, SequenceNumber::new(1)).map(drop)];
            match reader.shard_iterator(SHARD, ShardIteratorType::TrimHorizon) {
                Ok(mut iterator) => outcomes.extend(iterator.available().take(20).map(|record| record.map(drop))),
                Err(error) => outcomes.push(Err(error)),
            }
            for error in outcomes.into_iter().filter_map(Result::err) {
                assert!(matches!(error, Error::Trimmed { .. }), "follows: {follows}, before look {at}: {error:?}");
                trimmed += 1;
            }
            happened = storage.looks.load(Ordering::SeqCst) > at;
            if !happened {
                drop(writer.lock().unwrap().take());
                break;
            }
        }
        assert!(!happened, "it happened before every look");
        assert!(trimmed > 0, "nothing was trimmed, follows: {follows}");
    }
}

/// A writer whose retention removes, before every look, all that was listed before it: a verification goes on behind that, and finds no damage.
#[test]
fn a_verification_beside_retention_that_is_faster_finds_no_damage() {
    let (case, stream) = Case::create(Durability::Synced, 4096);
    let put_segments = move |segments: u64| {
        let mut last = SequenceNumber::ZERO;
        for _ in 0..3 * segments {
            last = stream.put("key", [1; 1000]).unwrap().sequence_number;
        }
        stream.trim_shard(SHARD, last).unwrap().segments_removed
    };
    put_segments(3);
    let removed = Arc::new(AtomicU64::new(0));
    let storage = Meanwhile::before(0..u64::MAX, &case.disk, {
        let removed = Arc::clone(&removed);
        move || {
            removed.fetch_add(put_segments(2), Ordering::SeqCst);
        }
    });
    let report = verify(PATH, VerifyOptions { storage: Some(storage.clone()), progress: None }).unwrap();
    assert!(report.is_sound(), "{:?}", report.damage);
    assert_eq!(removed.load(Ordering::SeqCst), 2 * storage.looks(), "each look missed what was listed before it");
}

/// Damage is told though the writer changes something before every look: the looks are repeated a few times and not for ever.
#[test]
fn damage_beside_a_busy_writer_is_told() {
    let (case, stream) = Case::create(Durability::Synced, 4096);
    for _ in 0..4 {
        stream.put("key", [1; 1000]).unwrap();
    }
    let segment = Path::new(PATH).join(format!("shards/{:012}/{:020}.seg", 0, 0));
    case.disk.damage(&segment, |bytes| bytes[128 + 50] ^= 1).unwrap();
    let budget = AtomicU64::new(1 << 40);
    let storage = Meanwhile::before(0..u64::MAX, &case.disk, move || {
        stream.set_retention_bytes(Some(budget.fetch_add(1, Ordering::SeqCst))).unwrap();
    });
    let report = verify(PATH, VerifyOptions { storage: Some(storage), progress: None }).unwrap();
    assert_eq!(report.damage.len(), 1, "{:?}", report.damage);
}

/// What the last writer did until it let go of the lock stands.
#[test]
fn a_repair_begins_with_what_is_there_when_it_has_the_lock() {
    let mut repaired = 0;
    for at in 0..8 {
        let (case, stream) = Case::create(Durability::Synced, 4096);
        for _ in 0..8 {
            stream.put("key", [1; 1000]).unwrap();
        }
        let segment = Path::new(PATH).join(format!("shards/{:012}/{:020}.seg", 0, 0));
        case.disk.damage(&segment, |bytes| bytes[128 + 50] ^= 1).unwrap();
        let storage = Meanwhile::before(at..at + 1, &case.disk, {
            let stream = stream.clone();
            move || {
                stream.split_shard(SHARD, None).unwrap();
                stream.put("key", b"to a child").unwrap();
                stream.clone().close().unwrap();
            }
        });
        match repair(PATH, Some(storage)) {
            Err(Error::Locked(_)) => continue,
            other => assert!(other.unwrap().after.is_sound()),
        }
        repaired += 1;
        let stream = builder(&case.disk, &case.clock).open_existing(PATH).unwrap();
        assert_eq!(stream.open_shards().len(), 2, "before look {at}");
        let mut records = stream.records(RecordsStart::TrimHorizon).unwrap();
        let last = records.available().filter_map(Result::ok).last();
        assert_eq!(last.unwrap().data(), b"to a child", "before look {at}");
    }
    assert!(repaired > 1, "before the first look at the manifest, and before the lock");
}

/// While another process deletes it: whatever an opening of the store helps to remove is gone for good.
#[test]
fn a_stream_that_is_deleted_while_its_store_is_opened_is_whole_or_gone() {
    let store = Path::new("store");
    let mut happened = 0;
    for at in 0..8 {
        let disk = SimulatedDisk::new();
        let open =
            |storage: Arc<dyn Storage>| Store::builder().background(false).storage(storage).open(store).unwrap();
        let stream = open(Arc::new(disk.clone())).create("clicks", Stream::builder()).unwrap();
        for byte in 0..3_u8 {
            stream.put("key", [byte]).unwrap();
        }
        stream.close().unwrap();
        let storage = Meanwhile::before(at..at + 1, &disk, {
            let disk = disk.clone();
            move || drop(disk.rename(&store.join("clicks"), &store.join("~deleted-clicks")))
        });
        drop(open(storage.clone()));
        happened += u32::from(storage.looks.load(Ordering::SeqCst) > at);
        for seed in 0..32 {
            let store = open(Arc::new(disk.fork(Crash::PowerLost { seed })));
            match store.open_stream("clicks") {
                Ok(stream) => {
                    let mut records = stream.records(RecordsStart::TrimHorizon).unwrap();
                    assert_eq!(
                        records.available().map(Result::unwrap).count(),
                        3,
                        "before look {at}, seed {seed}"
                    );
                }
                Err(Error::StreamNotFound(_)) => drop(store.create("clicks", Stream::builder()).unwrap()),
                Err(error) => panic!("before look {at}, seed {seed}: {error:?}"),
            }
        }
    }
    assert!(happened > 0);
}

/// What has a file of its own beside the shards: how it is made, deleted and named.
struct Kind {
    make: fn(&Stream) -> anabranch::Result<()>,
    delete: fn(&Stream) -> anabranch::Result<()>,
    names: fn(&Stream) -> anabranch::Result<Vec<String>>,
}

const KINDS: [Kind; 2] = [
    Kind {
        make: |stream| stream.consumer("it").map(drop),
        delete: |stream| stream.delete_consumer("it"),
        names: Stream::consumers,
    },
    Kind {
        make: |stream| stream.queue("it", QueueOptions::new()).map(drop),
        delete: |stream| stream.delete_queue("it"),
        names: Stream::queues,
    },
];

impl Kind {
    /// A deletion that fails at its first call, at its second, and so on.
    fn failed_deletions(&self, mut look: impl FnMut(&Case, Stream)) {
        for nth in 0.. {
            let (case, stream) = Case::create(Durability::Synced, 4096);
            (self.make)(&stream).unwrap();
            case.disk.fail_at(nth, DiskFault::Error(io::ErrorKind::Other));
            if (self.delete)(&stream).is_ok() {
                break;
            }
            look(&case, stream);
        }
    }

    fn expect_after_power_cuts(&self, case: &Case, shown: &[String]) {
        for seed in 0..64 {
            let disk = case.disk.fork(Crash::PowerLost { seed });
            let stream = builder(&disk, &case.clock).open_existing(PATH).unwrap();
            assert_eq!((self.names)(&stream).unwrap(), shown, "power cut {seed}");
        }
    }
}

/// What failed behind the removal is durable when the next attempt says that there is nothing to delete.
#[test]
fn a_deletion_that_failed_and_is_not_found_again_does_not_come_back() {
    for kind in KINDS {
        let mut not_found = 0;
        kind.failed_deletions(|case, stream| {
            if let Err(error) = (kind.delete)(&stream) {
                assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
                not_found += 1;
            }
            kind.expect_after_power_cuts(case, &[]);
        });
        assert!(not_found > 0, "it never failed behind the removal");
    }
}

/// The process dies in the middle of a deletion; who opens the stream again is shown that nothing is there, and no power cut brings it back.
#[test]
fn what_an_opening_shows_as_deleted_stays_deleted() {
    for kind in KINDS {
        let mut gone = 0;
        kind.failed_deletions(|case, stream| {
            let mut case = case.copy();
            case.kill(stream);
            let stream = case.open().unwrap();
            let shown = (kind.names)(&stream).unwrap();
            gone += u32::from(shown.is_empty());
            kind.expect_after_power_cuts(&case, &shown);
        });
        assert!(gone > 0, "it never failed behind the removal");
    }
}

/// Readers from a time on, begun while the first record that arrived then is put: it is given, whatever was looked at before it came.
#[test]
fn a_reader_from_a_time_on_is_given_what_comes_while_it_begins() {
    let (mut happened, mut met) = (true, 0);
    for at in 0.. {
        let (case, stream) = Case::create(Durability::Synced, 4096);
        for _ in 0..14 {
            stream.put("key", [1; 1000]).unwrap();
        }
        stream.increase_retention(RetentionPeriod::Unlimited).unwrap(); // else the horizon is looked for first
        stream.close().unwrap();
        case.clock.advance(Duration::from_secs(1));
        let late: Arc<Mutex<Option<Stream>>> = Arc::default();
        let storage = Meanwhile::before(at..u64::MAX, &case.disk, {
            let late = Arc::clone(&late);
            move || {
                let taken = late.lock().unwrap().take(); // the put has looks of its own
                if let Some(stream) = taken {
                    stream.put("key", b"late").unwrap();
                }
            }
        });
        let stream = case.builder().storage(storage.clone()).open_existing(PATH).unwrap();
        *late.lock().unwrap() = Some(stream.clone());
        storage.looks.store(0, Ordering::SeqCst);
        let since = ShardIteratorType::AtTimestamp(case.clock.now());
        let mut iterator = stream.shard_iterator(SHARD, since).unwrap();
        happened = late.lock().unwrap().is_none();
        if !happened {
            break;
        }
        met += 1;
        let given: Vec<_> = iterator.available().map(|record| record.unwrap().data().to_vec()).collect();
        assert_eq!(given, [b"late"], "before look {at}");
    }
    assert!(!happened, "it happened before every look");
    assert!(met > 0, "and before some");
}

/// Records that only the process' death was to spare are not known durable: that they were there is seen from what is left of them.
#[test]
fn a_damaged_header_of_records_that_were_never_synced_is_refused() {
    let (mut case, stream) = Case::create(Durability::Buffered, 4096);
    stream.put("key", b"data").unwrap();
    let _ = stream.describe().unwrap(); // which writes what is staged
    case.kill(stream);
    case.disk.damage(&segment(0), |bytes| bytes[30] ^= 1).unwrap();
    for _ in 0..2 {
        let refused = case.open().map(drop).unwrap_err();
        assert!(matches!(refused, Error::Corrupt(_)), "{refused:?}");
    }
}

/// Behind a damaged footer there are records of the successor, which nothing else vouches for.
#[test]
fn records_behind_a_damaged_footer_are_not_dropped() {
    let (mut case, stream) = Case::create(Durability::Buffered, 4096);
    for _ in 0..2 {
        stream.put("key", [1; 3_000]).unwrap();
    }
    let _ = stream.describe().unwrap(); // which writes what is staged
    case.kill(stream);
    case.disk.damage(&segment(0), |bytes| bytes.iter_mut().rev().take(8).for_each(|byte| *byte ^= 1)).unwrap();
    for _ in 0..2 {
        let refused = case.open().map(drop).unwrap_err();
        assert!(matches!(refused, Error::Corrupt(_)), "{refused:?}");
    }
}

/// The manifest knows what was durable when it was written last: where the WATERMARK says nothing any more, that is missed all the same.
#[test]
fn what_a_manifest_knew_as_durable_is_missed() {
    let (mut case, stream) = Case::create(Durability::Synced, 1 << 16);
    for _ in 0..3 {
        stream.put("key", b"data").unwrap();
    }
    stream.trim_shard(SHARD, SequenceNumber::new(1)).unwrap(); // which writes the manifest
    case.kill(stream);
    let watermark = Path::new(PATH).join("WATERMARK");
    case.disk.damage(&watermark, |bytes| bytes.fill(0)).unwrap();
    drop(case.copy().open().unwrap());
    let last = HEADER + 2 * (case.disk.read_file(&segment(0)).unwrap()[HEADER + 4] as usize).next_multiple_of(8);
    case.disk.damage(&segment(0), |bytes| bytes[last + 30] ^= 1).unwrap();
    let refused = case.open().map(drop).unwrap_err();
    assert!(matches!(refused, Error::Corrupt(_)), "{refused:?}");
}

/// An older copy of the manifest was put back: what was written since is not taken for that of an earlier life.
#[test]
fn a_segment_of_a_later_life_than_the_manifests_is_refused() {
    let (mut case, stream) = Case::create(Durability::Buffered, 4096);
    let manifest = Path::new(PATH).join("MANIFEST");
    let older = case.disk.read_file(&manifest).unwrap();
    case.kill(stream);
    let stream = case.open().unwrap();
    stream.put("key", b"data").unwrap();
    let _ = stream.describe().unwrap(); // which writes what is staged
    case.kill(stream);
    case.disk.damage(&manifest, |bytes| *bytes = older).unwrap();
    let refused = case.open().map(drop).unwrap_err();
    assert!(matches!(refused, Error::Corrupt(_)), "{refused:?}");
}
