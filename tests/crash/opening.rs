//! What an opening decides, one decision at a time. Most were written for a mutant that nothing else caught.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anabranch::storage::{Operation, Storage};
use anabranch::{
    Crash, DiskFault, Durability, Error, ManualClock, PutEntry, PutOptions, SequenceNumber, ShardId,
    ShardIteratorType, SimulatedDisk, Stream, StreamBuilder,
};

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
    case.disk.fail_on(Operation::Write, 0, DiskFault::Error(std::io::ErrorKind::Other));
    let mut reader = stream.shard_iterator(SHARD, ShardIteratorType::TrimHorizon).unwrap();
    assert!(matches!(reader.next_batch(), Err(Error::ShardFailed { .. })));
    assert!(matches!(stream.put("key", "more"), Err(Error::ShardFailed { .. })));
    assert!(stream.close().is_err());
    let stream = case.open().unwrap();
    assert_eq!(count(&stream), 1);
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
