//! Short stories of crashes and faults: each was, or could be, told of a store like this one, and is reached rarely by a
//! random history.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anabranch::storage::{Operation, Storage};
use anabranch::{
    Clock, Consumer, Crash, DiskFault, Durability, Error, ErrorKind, ManualClock, Position, PutOptions, Queue,
    QueueOptions, RecordsStart, SequenceNumber, ShardId, SimulatedDisk, Stream,
};

use crate::history::{PATH, assert_sound, builder};

const SHARD: ShardId = ShardId::new(0);
/// Two of them do not fit one segment.
const LARGE: [u8; 3_000] = [1; 3_000];

struct Story {
    disk: SimulatedDisk,
    clock: Arc<ManualClock>,
}

impl Story {
    fn begin(durability: Durability) -> (Self, Stream) {
        let story = Self { disk: SimulatedDisk::new(), clock: Arc::new(ManualClock::default()) };
        let made = story.builder().segment_bytes(4096).durability(durability);
        let stream = made.create(PATH).unwrap();
        (story, stream)
    }

    fn builder(&self) -> anabranch::StreamBuilder {
        builder(&self.disk, &self.clock)
    }

    fn crash(&mut self, crash: Crash, stream: Stream) {
        self.disk = self.disk.crash(crash);
        drop(stream);
    }

    fn segments(&self) -> usize {
        self.disk.list(&Path::new(PATH).join("shards/000000000000")).unwrap().len()
    }

    /// Verifies, opens, and reads the first records by their numbers: through the index.
    fn reopen(&self, records: u64) -> Stream {
        assert_sound(&self.disk, "before an opening");
        let stream = self.builder().open_existing(PATH).unwrap();
        for number in 0..records {
            assert_eq!(stream.get(SHARD, number.into()).unwrap().sequence_number().get(), number);
        }
        stream
    }
}

/// A directory that a killed process made and did not live to sync is made durable by the next one.
#[test]
fn a_directory_left_unsynced_by_a_killed_process_is_synced_by_the_next() {
    for made in ["data", "data/clicks"] {
        for seed in 0..32 {
            let mut story = Story { disk: SimulatedDisk::new(), clock: Arc::new(ManualClock::default()) };
            story.disk.create_dir(Path::new("data")).unwrap();
            if made == PATH {
                story.disk.create_dir(Path::new(made)).unwrap();
            }
            let stream = story.builder().create(PATH).unwrap();
            stream.put("key", b"acknowledged").unwrap();
            story.crash(Crash::PowerLost { seed }, stream);
            assert_eq!(story.reopen(1).get(SHARD, SequenceNumber::ZERO).unwrap().data(), b"acknowledged");
        }
    }
}

/// A condition that does not hold makes no segment that then stays empty behind one that is sealed as rolled.
#[test]
fn a_condition_that_fails_where_a_roll_was_due_leaves_no_gap() {
    let (story, stream) = Story::begin(Durability::Synced);
    stream.put("key", LARGE).unwrap();
    let wrong = PutOptions::new().expect_next(SequenceNumber::new(77));
    let refusal = stream.put_with("key", LARGE, wrong).unwrap_err();
    assert!(matches!(refusal, Error::SequenceNumberMismatch { .. }), "{refusal:?}");
    stream.close().unwrap();
    story.reopen(1).put("key", LARGE).unwrap();
}

/// The successor of a rolled segment got no record: recovery removes it, and the opening after that misses nothing.
#[test]
fn a_cut_between_a_roll_and_its_first_record_leaves_no_gap() {
    let mut cuts = 0;
    for nth in 0.. {
        let (mut story, stream) = Story::begin(Durability::Synced);
        stream.put("key", LARGE).unwrap();
        story.disk.fail_on(Operation::Write, nth, DiskFault::PowerCut);
        let is_cut = stream.put("key", LARGE).is_err();
        cuts += u64::from(is_cut);
        story.crash(Crash::ProcessKilled, stream);
        let stream = story.reopen(1);
        story.crash(Crash::ProcessKilled, stream);
        story.reopen(1).close().unwrap();
        story.reopen(1);
        if !is_cut {
            break;
        }
    }
    assert!(cuts >= 4, "header, index, footer and frame are written: {cuts}");
}

/// The sync of a rolled segment's footer failed; the footer can be read all the same, so its successor has to be there.
#[test]
fn a_failed_seal_leaves_a_stream_that_opens() {
    let mut failures = 0;
    for operation in [Operation::Sync, Operation::Write] {
        for nth in 0..5 {
            let (mut story, stream) = Story::begin(Durability::Synced);
            stream.put("key", LARGE).unwrap();
            story.disk.fail_on(operation, nth, DiskFault::Error(io::ErrorKind::Other));
            failures += u64::from(stream.put("key", LARGE).is_err());
            story.disk.clear_faults();
            drop(stream);
            let stream = story.reopen(1);
            let next = stream.put("key", LARGE).unwrap().sequence_number.get();
            story.crash(Crash::PowerLost { seed: nth }, stream);
            story.reopen(next + 1);
        }
    }
    assert!(failures >= 6, "{failures}");
}

/// The process died between writing a footer and syncing it; the next one goes on behind it, and the power goes.
#[test]
fn a_footer_that_was_never_synced_is_made_durable_by_the_next_opening() {
    let mut cuts = 0;
    for nth in 0..4 {
        for seed in 0..40 {
            let (mut story, stream) = Story::begin(Durability::Synced);
            stream.put("key", b"first").unwrap();
            story.disk.fail_on(Operation::Sync, nth, DiskFault::PowerCut);
            cuts += u64::from(stream.close().is_err());
            story.disk = story.disk.crash(Crash::ProcessKilled);
            let stream = story.reopen(1);
            stream.put("key", b"second").unwrap();
            story.crash(Crash::PowerLost { seed }, stream);
            story.reopen(2);
        }
    }
    assert!(cuts >= 80, "{cuts}");
}

/// A footer never outlives the index it vouches for.
#[test]
fn a_cut_while_sealing_leaves_no_footer_without_its_index() {
    let mut cuts = 0;
    for nth in 0..2 {
        for seed in 0..200 {
            let (mut story, stream) = Story::begin(Durability::Synced);
            for _ in 0..8 {
                stream.put("key", [1; 300]).unwrap();
            }
            story.disk.fail_on(Operation::Sync, nth, DiskFault::PowerCut);
            cuts += u64::from(stream.close().is_err());
            story.disk = story.disk.crash(Crash::PowerLost { seed });
            story.reopen(8);
        }
    }
    assert_eq!(cuts, 400);
}

/// A roll was cut short, and the power took the buffered tail in front of the new segment: no damage, and no gap.
#[test]
fn a_roll_cut_short_behind_a_lost_tail_is_no_damage() {
    for seed in 0..100 {
        let (mut story, stream) = Story::begin(Durability::Buffered);
        stream.put("key", LARGE).unwrap();
        // The successor's own sync is the first; the next one begins the seal.
        story.disk.fail_on(Operation::Sync, 1, DiskFault::PowerCut);
        stream.put("key", LARGE).unwrap_err();
        story.crash(Crash::PowerLost { seed }, stream);
        let stream = story.reopen(0);
        let next = stream.put("key", LARGE).unwrap().sequence_number.get();
        assert!(next <= 1, "{next}");
        story.crash(Crash::ProcessKilled, stream);
        story.reopen(next + 1);
    }
}

/// A recovery removed the empty successor of a tail that was lost, and did not make that durable: whoever recovers next does, or else the
/// power brings the successor back behind a gap.
#[test]
fn a_removal_that_a_recovery_did_not_finish_is_made_durable_by_the_next() {
    let error = DiskFault::Error(io::ErrorKind::Other);
    let mut removed = 0;
    for (fault, trims) in
        [(DiskFault::PowerCut, false), (DiskFault::PowerCut, true), (error, false), (error, true)]
    {
        for (seed, nth) in (0..40).flat_map(|seed| (0..6).map(move |nth| (seed, nth))) {
            let (mut story, stream) = Story::begin(Durability::Buffered);
            stream.put_with("key", b"small", PutOptions::new().durability(Durability::Synced)).unwrap();
            stream.put("key", LARGE).unwrap();
            // The successor's own sync is the first; the next one begins the seal.
            story.disk.fail_on(Operation::Sync, 1, DiskFault::PowerCut);
            stream.put("key", LARGE).unwrap_err();
            story.crash(Crash::PowerLost { seed }, stream);
            let before = story.segments();
            story.disk.fail_on(Operation::SyncDir, nth, fault);
            let opened = story.builder().open_existing(PATH);
            story.disk = story.disk.crash(Crash::ProcessKilled);
            removed += u64::from(opened.is_err() && story.segments() < before);
            drop(opened);
            let stream = story.reopen(1);
            let next = stream.describe().unwrap().shards[0].next_sequence_number.get();
            if trims {
                stream.trim_shard(SHARD, SequenceNumber::new(1)).unwrap();
            }
            story.crash(Crash::PowerLost { seed: !seed }, stream);
            assert_sound(&story.disk, &format!("{fault:?}, trims: {trims}, {nth}, seed {seed}"));
            let reader = story.builder().open_read_only(PATH).unwrap();
            for number in u64::from(trims)..next {
                reader.get(SHARD, number.into()).unwrap();
            }
            let put = story.reopen(0).put("key", b"goes on").unwrap();
            assert_eq!(put.sequence_number.get(), next);
        }
    }
    assert!(removed > 100, "{removed}");
}

/// A segment whose creation failed was removed; a power cut must not bring it back in front of later records.
#[test]
fn a_segment_whose_creation_failed_does_not_come_back() {
    use Operation::{Allocate, Map, RemoveFile, Sync, SyncDir, Write};
    let cases: [&[(Operation, u64)]; 10] = [
        &[(Allocate, 0)],
        &[(Write, 0)],
        &[(Sync, 0)],
        &[(SyncDir, 0)],
        &[(Map, 0)],
        // And its removal fails as well, which is tried again before the next record: once, or more often.
        &[(Allocate, 0), (RemoveFile, 0)],
        &[(Allocate, 0), (RemoveFile, 0), (RemoveFile, 1)],
        &[(SyncDir, 0), (SyncDir, 1)],
        &[(SyncDir, 0), (SyncDir, 1), (SyncDir, 2)],
        &[(Map, 0), (RemoveFile, 0), (SyncDir, 1)],
    ];
    for faults in cases {
        for seed in 0..40 {
            let (mut story, stream) = Story::begin(Durability::Synced);
            stream.put("key", LARGE).unwrap();
            for (operation, nth) in faults {
                story.disk.fail_on(*operation, *nth, DiskFault::Error(io::ErrorKind::Other));
            }
            stream.put("key", LARGE).unwrap_err();
            let put = stream.put("key", b"small").or_else(|_| stream.put("key", b"small"));
            assert_eq!(put.unwrap().sequence_number.get(), 1, "{faults:?}");
            for what_follows in [LARGE.as_slice(), b"small"] {
                stream.put("key", what_follows).unwrap();
            }
            stream.close().unwrap();
            story.disk = story.disk.crash(Crash::PowerLost { seed });
            let stream = story.reopen(4);
            assert_eq!(stream.put("key", LARGE).unwrap().sequence_number.get(), 4);
        }
    }
}

/// Small commits write zeros ahead; a large one goes on behind them, where nothing but a whole sync makes it durable.
#[test]
fn a_commit_that_goes_on_behind_the_zeros_is_durable() {
    for seed in 0..16 {
        let (mut story, stream) = {
            let story = Story { disk: SimulatedDisk::new(), clock: Arc::new(ManualClock::default()) };
            let made = story.builder().segment_bytes(8 << 20).first_segment_bytes(8 << 20);
            let stream = made.durability(Durability::Synced).create(PATH).unwrap();
            (story, stream)
        };
        for _ in 0..4 {
            stream.put("key", b"small").unwrap();
        }
        stream.put("key", vec![1; 400_000]).unwrap();
        story.crash(Crash::PowerLost { seed }, stream);
        story.reopen(5);
    }
}

/// The removal of trimmed segments was cut short, or undone: what the manifest does not count any more is removed by the next opening.
#[test]
fn segments_that_a_trim_left_are_removed_by_the_next_opening() {
    let mut left = 0;
    for seed in 0..40 {
        let (mut story, stream) = Story::begin(Durability::Synced);
        for _ in 0..3 {
            stream.put("key", LARGE).unwrap();
        }
        stream.trim_shard(SHARD, SequenceNumber::new(2)).unwrap();
        story.crash(Crash::PowerLost { seed }, stream);
        left += story.segments() - 1;
        let stream = story.reopen(0);
        assert_eq!(story.segments(), 1, "seed {seed}");
        assert_eq!(stream.get(SHARD, SequenceNumber::new(2)).unwrap().data(), LARGE);
    }
    assert!(left > 10, "{left}");
}

/// The clock was set back while nobody had the stream open: arrival times go on from those that are there, also where the manifest does not know
/// them.
#[test]
fn arrival_times_do_not_fall_behind_a_crash() {
    for closes in [false, true] {
        let (mut story, stream) = Story::begin(Durability::Synced);
        let created = story.clock.now();
        story.clock.advance(Duration::from_secs(100));
        let before = stream.put("key", b"before").unwrap();
        if closes {
            stream.close().unwrap();
        } else {
            story.crash(Crash::ProcessKilled, stream);
        }
        story.clock.set(created);
        let stream = story.reopen(1);
        let behind = stream.put("key", b"behind").unwrap();
        assert!(behind.arrival >= before.arrival, "{:?} behind {:?}", behind.arrival, before.arrival);
        stream.close().unwrap();
        story.reopen(2);
    }
}

/// The header of a new segment was torn anywhere: nothing was appended to it, and nothing is damaged.
#[test]
fn a_header_torn_at_any_place_is_no_damage() {
    for kept in (0..=128).step_by(8) {
        let (mut story, stream) = Story::begin(Durability::Synced);
        story.disk.fail_on(Operation::Sync, 0, DiskFault::PowerCut);
        stream.put("key", b"never acknowledged").unwrap_err();
        story.crash(Crash::ProcessKilled, stream);
        let segment = Path::new(PATH).join("shards/000000000000/00000000000000000000.seg");
        story.disk.damage(&segment, |bytes| bytes[kept..].fill(0)).unwrap();
        assert_eq!(story.reopen(0).put("key", b"first").unwrap().sequence_number, SequenceNumber::ZERO);
    }
}

/// The writer died before a manifest's name was durable: nothing is removed on that manifest's word until it is.
#[test]
fn segments_are_not_removed_on_the_word_of_a_manifest_that_may_be_lost() {
    let mut cuts = 0;
    for seed in 0..60 {
        for at in 0.. {
            let (mut story, stream) = Story::begin(Durability::Synced);
            for _ in 0..3 {
                stream.put("key", LARGE).unwrap();
            }
            story.disk.fail_on(Operation::SyncDir, 0, DiskFault::PowerCut);
            stream.trim_shard(SHARD, SequenceNumber::new(2)).unwrap_err();
            story.crash(Crash::ProcessKilled, stream);
            story.disk.fail_at(at, DiskFault::PowerCut);
            let opened = story.builder().open_existing(PATH);
            let is_cut = opened.is_err();
            story.disk = story.disk.crash(Crash::PowerLost { seed });
            drop(opened);
            assert_eq!(story.reopen(0).get(SHARD, SequenceNumber::new(2)).unwrap().data(), LARGE);
            if !is_cut {
                break;
            }
            cuts += 1;
        }
    }
    assert!(cuts > 600, "{cuts}");
}

/// A shard that closes its file for another one's sake has written what it holds, and opens its file again to add to it and to sync it.
#[test]
fn a_shard_whose_file_is_closed_for_another_keeps_what_it_holds() {
    let story = Story { disk: SimulatedDisk::new(), clock: Arc::new(ManualClock::default()) };
    let made = story.builder().open_files(1).shards(2).durability(Durability::Buffered);
    let stream = made.create(PATH).unwrap();
    let at = [0, u128::MAX].map(|key| PutOptions::new().explicit_hash_key(anabranch::HashKey::new(key)));
    let opened = story.disk.operations_of(Operation::OpenFile);
    let syncs = stream.metrics().syncs;
    for _ in 0..4 {
        for at in &at {
            for _ in 0..2 {
                stream.put_with("key", [7; 100], *at).unwrap();
            }
        }
    }
    assert_eq!(
        story.disk.operations_of(Operation::OpenFile) - opened,
        6,
        "once for each change of shards, but the first"
    );
    assert_eq!(stream.metrics().syncs - syncs, 0, "closing a file is no sync");
    let disk = story.disk.fork(Crash::ProcessKilled);
    let found = builder(&disk, &story.clock).open_existing(PATH).unwrap().describe().unwrap();
    assert!(found.shards.iter().all(|shard| shard.next_sequence_number.get() == 8));
    stream.sync().unwrap();
    for seed in 0..64 {
        let disk = story.disk.fork(Crash::PowerLost { seed });
        let stream = builder(&disk, &story.clock).open_existing(PATH).unwrap();
        let found = stream.describe().unwrap();
        assert!(found.shards.iter().all(|shard| shard.next_sequence_number.get() == 8), "seed {seed}");
    }
}

/// A segment behind another one is not another open file.
#[test]
fn a_shard_closes_no_file_for_its_own_next_one() {
    let story = Story { disk: SimulatedDisk::new(), clock: Arc::new(ManualClock::default()) };
    let stream = story.builder().open_files(1).segment_bytes(4096).create(PATH).unwrap();
    let opened = story.disk.operations_of(Operation::OpenFile);
    for _ in 0..4 {
        stream.put("key", LARGE).unwrap();
    }
    assert_eq!(story.segments(), 4);
    assert_eq!(story.disk.operations_of(Operation::OpenFile), opened);
}

/// As with too many open files: an error of that put, and none of the shard. What it wrote is there and durable with the next commit, or it wrote nothing.
#[test]
fn a_shard_whose_file_cannot_be_opened_again_goes_on() {
    for level in [Durability::Synced, Durability::Buffered] {
        let story = Story { disk: SimulatedDisk::new(), clock: Arc::new(ManualClock::default()) };
        let stream = story.builder().open_files(1).shards(2).durability(level).create(PATH).unwrap();
        let at = [0, u128::MAX].map(|key| PutOptions::new().explicit_hash_key(anabranch::HashKey::new(key)));
        let put = |shard: usize| stream.put_with("key", [7; 100], at[shard]);
        put(0).unwrap();
        put(1).unwrap();
        story.disk.fail_on(Operation::OpenFile, 0, DiskFault::Error(io::ErrorKind::Other));
        assert_eq!(put(0).unwrap_err().kind(), ErrorKind::Io, "{level:?}: its file was closed for the other one");
        let last = put(0).unwrap().sequence_number.get();
        put(1).unwrap();
        if level == Durability::Buffered {
            story.disk.fail_on(Operation::OpenFile, 0, DiskFault::Error(io::ErrorKind::Other));
            assert_eq!(
                stream.sync().unwrap_err().kind(),
                ErrorKind::Io,
                "of what was written before its file was closed"
            );
        }
        stream.sync().unwrap();
        for seed in 0..64 {
            let disk = story.disk.fork(Crash::PowerLost { seed });
            let found = builder(&disk, &story.clock).open_existing(PATH).unwrap().describe().unwrap();
            let next = found.shards.iter().map(|shard| shard.next_sequence_number.get());
            assert_eq!(next.collect::<Vec<_>>(), [last + 1, 2], "{level:?}, seed {seed}");
        }
    }
}

/// Whatever write or sync of a roll fails: the put that rolls is refused and the shard goes on, or the shard takes nothing any more; what was acknowledged, and synced by a success, is there.
#[test]
fn a_roll_that_fails_is_told_and_loses_nothing() {
    let mut ended = 0;
    for (level, call) in [Durability::Synced, Durability::Buffered]
        .into_iter()
        .flat_map(|level| [Operation::Write, Operation::Sync].map(|call| (level, call)))
    {
        for nth in 0.. {
            let name = format!("{level:?}, {call:?} {nth}");
            let story = Story { disk: SimulatedDisk::new(), clock: Arc::new(ManualClock::default()) };
            let stream = story.builder().segment_bytes(4096).durability(level).create(PATH).unwrap();
            let put = || stream.put("key", [7; 1_000]);
            let mut acknowledged = (0..3).filter_map(|_| put().ok()).count() as u64;
            let before = story.disk.operations_of(call);
            story.disk.fail_on(call, nth, DiskFault::Error(io::ErrorKind::Other));
            let (rolls, next) = (put(), put());
            let is_struck = story.disk.operations_of(call) - before > nth;
            acknowledged += u64::from(rolls.is_ok()) + u64::from(next.is_ok());
            let is_over = rolls.is_err_and(|error| error.kind() == ErrorKind::Reopen);
            if is_over {
                assert_eq!(next.unwrap_err().kind(), ErrorKind::Reopen, "{name}: nothing any more");
                ended += 1;
            }
            let is_synced = stream.sync().is_ok() || level == Durability::Synced;
            let losses = (0..16).filter(|_| is_synced).map(|seed| Crash::PowerLost { seed });
            for crash in [Crash::ProcessKilled].into_iter().chain(losses) {
                let disk = story.disk.fork(crash);
                let stream = builder(&disk, &story.clock).open_existing(PATH);
                let stream = stream.unwrap_or_else(|error| panic!("{name}, {crash:?}: {error:?}"));
                let found = stream.describe().unwrap().shards[0].next_sequence_number.get();
                assert!(found >= acknowledged, "{name}, {crash:?}: {found} of {acknowledged}");
            }
            if !is_struck {
                break;
            }
        }
    }
    assert!(ended > 2, "{ended}");
}

/// Unsynced bytes are synced when there are enough of them, and not before; a sealed segment gives its room back.
#[test]
fn unsynced_bytes_are_bounded_and_room_is_given_back() {
    let story = Story { disk: SimulatedDisk::new(), clock: Arc::new(ManualClock::default()) };
    let made = story.builder().segment_bytes(8 << 20).durability(Durability::Buffered).flush_bytes(64 << 10);
    let stream = made.create(PATH).unwrap();
    for _ in 0..1_000 {
        stream.put("key", [7; 1_000 - 43]).unwrap(); // frames of 1,000 bytes
    }
    // Nobody else flushes, so each 65 or 66 frames one put does.
    assert_eq!(stream.metrics().syncs, 15);
    stream.close().unwrap();
    assert!(story.disk.used_bytes() < (1_000_000 + 4_000 + 64 * 1024), "{} bytes", story.disk.used_bytes());
}

/// A budget that is enforced, cut short at any call, removes nothing that the whole of it would not; run again, it ends where that did.
#[test]
fn a_budget_that_is_enforced_and_cut_short_removes_nothing_more() {
    let story = Story { disk: SimulatedDisk::new(), clock: Arc::new(ManualClock::default()) };
    let made = story.builder().segment_bytes(4096).shards(3).durability(Durability::Synced);
    let stream = made.create(PATH).unwrap();
    for number in 0_u64..60 {
        story.clock.advance(Duration::from_millis(1));
        stream.put(format!("key-{}", number % 7), number.to_le_bytes().repeat(100)).unwrap();
    }
    let enforce = |stream: &Stream| {
        stream.set_retention_bytes(Some(30_000)).and_then(|()| stream.enforce_retention()).map(drop)
    };
    let held = |stream: &Stream| -> Vec<_> {
        let shards = stream.describe().unwrap().shards;
        for shard in &shards {
            let id = shard.summary.shard_id;
            let first = shard.first_sequence_number.unwrap_or(shard.next_sequence_number).get();
            for number in first..shard.next_sequence_number.get() {
                stream.get(id, number.into()).unwrap();
            }
        }
        shards.iter().map(|shard| (shard.first_sequence_number, shard.next_sequence_number)).collect()
    };
    let before = held(&stream);
    let whole = story.disk.fork(Crash::ProcessKilled);
    let on = |disk: &SimulatedDisk| builder(disk, &story.clock).open_existing(PATH);
    let stream = on(&whole).unwrap();
    let opened = whole.operations();
    enforce(&stream).unwrap();
    let calls = whole.operations() - opened;
    let after = held(&stream);
    assert!(after.iter().zip(&before).any(|(after, before)| after.0 > before.0), "something is removed");
    for at in 0..calls {
        for seed in 0..8 {
            let disk = story.disk.fork(Crash::ProcessKilled);
            let stream = on(&disk).unwrap();
            disk.fail_at(at, DiskFault::PowerCut);
            drop(enforce(&stream));
            let disk = disk.crash(Crash::PowerLost { seed });
            let name = format!("cut at {at}, seed {seed}");
            assert_sound(&disk, &name);
            let stream = on(&disk).unwrap();
            for (found, after) in held(&stream).iter().zip(&after) {
                assert!(found.0 <= after.0 && found.1 == after.1, "{name}: {found:?} where {after:?} was to stay");
            }
            enforce(&stream).unwrap();
            assert_eq!(held(&stream), after, "{name}: run again");
        }
    }
}

/// Retention that finds nothing expired leaves the active segment as it is.
#[test]
fn a_look_that_finds_nothing_expired_seals_nothing() {
    let story = Story { disk: SimulatedDisk::new(), clock: Arc::new(ManualClock::default()) };
    let stream = story.builder().create(PATH).unwrap();
    for _ in 0..3 {
        stream.put("key", [1; 100]).unwrap();
        let writes = story.disk.operations_of(Operation::Write);
        for _ in 0..3 {
            // More than one look: the first ones may not believe the clock.
            story.clock.advance(Duration::from_secs(5));
            stream.enforce_retention().unwrap();
        }
        assert_eq!(story.disk.operations_of(Operation::Write), writes, "no footer, no manifest");
    }
    assert_eq!(story.segments(), 1);
}

/// A `Buffered` checkpoint is durable once the stream was closed or synced, whether its consumer is still open then or not.
#[test]
fn a_checkpoint_survives_a_power_cut_behind_a_sync_and_a_close() {
    type End = (&'static str, fn(Stream));
    let ends: [End; 3] = [
        ("closed", |stream| stream.close().unwrap()),
        ("synced", |stream| stream.sync().unwrap()),
        ("maintained", |stream| stream.maintain().unwrap()),
    ];
    for (end, end_it) in ends {
        for is_consumer_open in [true, false] {
            let (story, stream) = Story::begin(Durability::Buffered);
            stream.put("key", b"data").unwrap();
            let consumer = stream.consumer("c").unwrap();
            let lease = consumer.take(SHARD, "w").unwrap();
            lease.checkpoint(&stream.get(SHARD, 0.into()).unwrap()).unwrap();
            let open = is_consumer_open.then_some((consumer, lease));
            end_it(stream);
            for seed in 0..16 {
                let lost = story.disk.fork(Crash::PowerLost { seed });
                let stream = builder(&lost, &story.clock).open_existing(PATH).unwrap();
                let position = stream.consumer("c").unwrap().checkpoint(SHARD).unwrap().position;
                let case = format!("{end}, open: {is_consumer_open}, seed {seed}: {position:?}");
                assert!(matches!(position, Position::After(at) if at.sequence_number.get() == 0), "{case}");
            }
            drop(open);
        }
    }
}

/// Who has no background thread, and calls what it would do, has what was put before made durable.
#[test]
fn what_was_put_before_a_maintenance_survives_a_power_cut() {
    let (story, stream) = Story::begin(Durability::Buffered);
    for _ in 0..3 {
        stream.put("key", b"data").unwrap();
    }
    stream.maintain().unwrap();
    for seed in 0..32 {
        let lost = story.disk.fork(Crash::PowerLost { seed });
        let stream = builder(&lost, &story.clock).open_existing(PATH).unwrap();
        assert_eq!(stream.describe().unwrap().shards[0].next_sequence_number.get(), 3, "seed {seed}");
    }
}

/// A reset is durable when it returns, and so is a checkpoint whose sync failed once and then succeeded: pages that look clean may be lost.
#[test]
fn where_a_consumer_stands_survives_a_power_cut_behind_a_reset_and_a_failed_sync() {
    for is_reset in [true, false] {
        let (story, stream) = Story::begin(if is_reset { Durability::Synced } else { Durability::Buffered });
        stream.put("key", b"data").unwrap();
        let consumer = stream.consumer("c").unwrap();
        let lease = consumer.take(SHARD, "w").unwrap();
        stream.sync().unwrap();
        lease.checkpoint(&stream.get(SHARD, 0.into()).unwrap()).unwrap();
        if is_reset {
            consumer.reset_shard(SHARD, RecordsStart::TrimHorizon).unwrap();
        } else {
            story.disk.fail_on(Operation::Sync, 0, DiskFault::Error(io::ErrorKind::Other));
            consumer.sync().unwrap_err();
            consumer.sync().unwrap();
        }
        for seed in 0..32 {
            let lost = story.disk.fork(Crash::PowerLost { seed });
            let stream = builder(&lost, &story.clock).open_existing(PATH).unwrap();
            let position = stream.consumer("c").unwrap().checkpoint(SHARD).unwrap().position;
            let is_after = matches!(position, Position::After(at) if at.sequence_number.get() == 0);
            let is_right = if is_reset { position == Position::TrimHorizon } else { is_after };
            assert!(is_right, "reset: {is_reset}, seed {seed}: {position:?}");
        }
    }
}

/// One sync of a flush, or of a close, fails: that of a shard, of a consumer or of a queue. All that it does not cover is durable all the same.
#[test]
fn a_flush_that_fails_at_one_thing_makes_the_others_durable() {
    type Flush = fn(&Stream) -> Result<(), Error>;
    let flushes: [Flush; 2] = [Stream::sync, |stream| stream.clone().close()];
    for flush in flushes {
        let mut missing = BTreeSet::new();
        for nth in 0.. {
            let (story, stream) = Story::begin(Durability::Buffered);
            stream.put("key", b"durable").unwrap();
            stream.sync().unwrap();
            let held = NAMES.map(|name| finish_first(&stream, name));
            stream.put("key", b"unsynced").unwrap();
            story.disk.fail_on(Operation::Sync, nth, DiskFault::Error(io::ErrorKind::Other));
            let outcome = flush(&stream);
            story.disk.clear_faults();
            for seed in 0..32 {
                let disk = story.disk.fork(Crash::PowerLost { seed });
                let lost = not_durable(&Story { disk, clock: Arc::clone(&story.clock) });
                assert!(lost.len() <= usize::from(outcome.is_err()), "sync {nth}, seed {seed}: {lost:?}");
                missing.extend(lost);
            }
            drop(held);
            if outcome.is_ok() {
                break;
            }
        }
        let all = ["record", "consumer one", "consumer other", "queue one", "queue other"];
        assert_eq!(missing, all.map(str::to_owned).into(), "each was struck");
    }
}

/// Consumers, and queues.
const NAMES: [&str; 2] = ["one", "other"];

/// A consumer and a queue for which the first record is done.
fn finish_first(stream: &Stream, name: &str) -> (Consumer, Queue) {
    let (consumer, queue) = (stream.consumer(name).unwrap(), stream.queue(name, QueueOptions::new()).unwrap());
    let received = queue.receive(1, Duration::ZERO).unwrap().remove(0);
    consumer.take(SHARD, "w").unwrap().checkpoint(&received.record).unwrap();
    queue.acknowledge(received.receipt).unwrap();
    (consumer, queue)
}

/// What a power cut took: the second record, or that the first one is done for a consumer or a queue.
fn not_durable(story: &Story) -> Vec<String> {
    let stream = story.builder().open_existing(PATH).unwrap();
    let mut lost = Vec::new();
    if stream.describe().unwrap().shards[0].next_sequence_number.get() < 2 {
        lost.push("record".to_owned());
    }
    for name in NAMES {
        if stream.consumer(name).unwrap().checkpoint(SHARD).unwrap().position == Position::TrimHorizon {
            lost.push(format!("consumer {name}"));
        }
        let given = stream.queue(name, QueueOptions::new()).unwrap().receive(2, Duration::ZERO).unwrap();
        if given.iter().any(|one| one.record.sequence_number().get() == 0) {
            lost.push(format!("queue {name}"));
        }
    }
    lost
}

/// What is trimmed, or hidden for good, is kept in the manifest, which must not be ahead of the records.
#[test]
fn a_horizon_is_never_ahead_of_what_a_power_cut_leaves() {
    type Change = (&'static str, fn(&Stream, &ManualClock));
    let changes: [Change; 2] = [
        ("trimmed", |stream, _| drop(stream.trim_shard(SHARD, 3.into()).unwrap())),
        ("hidden", |stream, clock| {
            clock.advance(Duration::from_secs(25 * 3_600));
            stream.increase_retention(anabranch::RetentionPeriod::hours(48)).unwrap();
        }),
    ];
    for (name, change) in changes {
        let story = Story { disk: SimulatedDisk::new(), clock: Arc::new(ManualClock::default()) };
        let made = story.builder().durability(Durability::Buffered).retention(Duration::from_secs(86_400));
        let stream = made.create(PATH).unwrap();
        for _ in 0..3 {
            stream.put("key", b"data").unwrap();
        }
        change(&stream, &story.clock);
        for seed in 0..32 {
            let lost = story.disk.fork(Crash::PowerLost { seed });
            assert_sound(&lost, name);
            let stream = builder(&lost, &story.clock).open_existing(PATH).unwrap();
            stream.put("key", b"data").unwrap();
            assert!(name == "hidden" || stream.describe().unwrap().shards[0].next_sequence_number.get() == 4);
        }
    }
}
