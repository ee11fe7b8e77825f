//! Read-only processes beside a writer: through rolls, splits, merges, trims, and the deaths of both.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anabranch::storage::Operation;
use anabranch::{DiskFault, Durability, RecordsStart, ShardId, SimulatedDisk, Stream};

use crate::child::{self, Process};
use crate::records::{Contents, Found, Id, assert_sound, read};
use crate::support::{Random, length, lines, wait_until};
use crate::writer::Places;

const ROUNDS: u64 = 6;

/// Follows a stream from its trim horizon on, and notes each record that it was shown.
pub(crate) fn run() {
    let stream = Stream::builder().open_read_only(child::argument("STREAM")).unwrap();
    let mut notes = OpenOptions::new().append(true).create(true).open(child::argument("NOTES")).unwrap();
    let mut records = stream.records(RecordsStart::TrimHorizon).unwrap();
    loop {
        let mut text = String::new();
        if let Some(record) = records.next_timeout(Duration::from_millis(200)).unwrap() {
            let id = Found::parse(record.partition_key(), record.data(), record.incarnation()).id;
            writeln!(text, "{} {} {}", record.shard_id().get(), record.sequence_number(), id.0).unwrap();
        }
        loop {
            let batch = records.next_batch().unwrap();
            if batch.is_empty() {
                break;
            }
            for record in batch {
                let id = Found::parse(record.partition_key(), record.data(), record.incarnation()).id;
                writeln!(text, "{} {} {}", record.shard_id().get(), record.sequence_number(), id.0).unwrap();
            }
        }
        notes.write_all(text.as_bytes()).unwrap();
    }
}

struct Follower {
    process: Process,
    notes: PathBuf,
}

fn follow(places: &Places, directory: &Path, name: &str) -> Follower {
    let notes = directory.join(name);
    let log = directory.join(format!("{name}.log"));
    let process = child::start("follower", &log, &[("STREAM", &places.stream), ("NOTES", &notes)]);
    Follower { process, notes }
}

/// What a follower was shown, each record once, in order, without gaps.
fn check_notes(notes: &Path) -> BTreeMap<(ShardId, u64), Id> {
    let mut shown = BTreeMap::new();
    let mut newest: HashMap<u64, u64> = HashMap::new();
    let mut keys: HashMap<String, Id> = HashMap::new();
    for [shard, number, id] in lines::<3>(notes) {
        let id = Id(id);
        if let Some(before) = newest.insert(shard, number) {
            assert_eq!(number, before + 1, "shard {shard}");
        }
        assert!(keys.insert(id.key(), id) < Some(id), "{id:?} is out of its key's order");
        shown.insert((ShardId::new(u32::try_from(shard).unwrap()), number), id);
    }
    shown
}

#[test]
fn followers_see_each_synced_record_once() {
    beside("followers_see_each_synced_record_once", Durability::Synced);
}

#[test]
fn followers_see_each_buffered_record_once() {
    beside("followers_see_each_buffered_record_once", Durability::Buffered);
}

/// A segment that never got a record is removed by recovery, and another one is made under its name; one whose records were
/// acknowledged and could not be written gets them then.
#[test]
fn a_follower_notices_a_segment_that_was_made_anew() {
    for durability in [Durability::Synced, Durability::Buffered] {
        let disk = SimulatedDisk::new();
        let on_disk = || Stream::builder().storage(Arc::new(disk.clone())).background(false);
        let writer = on_disk().durability(durability).create("/stream").unwrap();
        disk.fail_on(Operation::Write, 1, DiskFault::Error(io::ErrorKind::Other)); // behind the segment's header
        let is_staged = writer.put("key", b"data").is_ok();
        assert_eq!(is_staged, durability == Durability::Buffered);
        assert!(writer.sync().is_err(), "it is not written now either");

        let follower = on_disk().open_read_only("/stream").unwrap();
        let mut records = follower.records(RecordsStart::TrimHorizon).unwrap();
        assert!(records.next_timeout(Duration::ZERO).unwrap().is_none());

        writer.close().unwrap_err();
        let writer = on_disk().open_existing("/stream").unwrap();
        if !is_staged {
            writer.put("key", b"data").unwrap();
        }
        let record = records.next_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(record.expect("a record that stays hidden").data(), b"data");
        assert_eq!(writer.describe().unwrap().shards[0].records, 1);
        writer.close().unwrap();
    }
}

fn beside(name: &str, durability: Durability) {
    let mut random = Random::of_test(name);
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let places = Places::new(directory, durability);

    let mut writer = start_writer(&places, &mut random, 0);
    let mut steady = follow(&places, directory, "steady");
    for round in 1..=ROUNDS {
        let mut killed = follow(&places, directory, &format!("killed-{round}"));
        std::thread::sleep(random.millis(100, 300));
        steady.process.assert_runs();
        killed.process.assert_runs();
        allow_trim(&places, &[&steady, &killed]);
        std::thread::sleep(random.millis(20, 150));
        killed.process.assert_runs();
        drop(killed.process);
        fs::remove_file(&places.trim).unwrap(); // the next one reads from the horizon as it is then
        writer.kill();
        assert_sound(&places.stream);
        writer = start_writer(&places, &mut random, round);
    }
    writer.kill();

    let stream = Stream::builder().open_existing(&places.stream).unwrap();
    let contents = read(&stream);
    let next: BTreeMap<_, _> = contents.keys().copied().collect(); // the last of each shard
    wait_until("the follower to see the end", || {
        steady.process.assert_runs();
        let shown: BTreeMap<_, _> =
            lines::<3>(&steady.notes).into_iter().map(|[shard, at, _]| (shard, at)).collect();
        next.iter().all(|(shard, last)| shown.get(&u64::from(shard.get())) >= Some(last))
    });
    let shown = check_notes(&steady.notes);
    check_shown(&contents, &shown, &places.ledger);
    for round in 1..=ROUNDS {
        for (place, id) in check_notes(&directory.join(format!("killed-{round}"))) {
            assert_eq!(shown.get(&place), Some(&id), "the two followers differ at {place:?}");
        }
    }
    let trimmed = shown.len() - contents.len();
    println!("{name}: {} shown, {trimmed} of them trimmed since", shown.len());
    drop(steady.process);
    stream.close().unwrap();
    assert_sound(&places.stream);
}

fn start_writer(places: &Places, random: &mut Random, run: u64) -> Process {
    let written = length(&places.ledger);
    let mut writer = places.start("writer", run, random.next());
    wait_until("the writer", || {
        writer.assert_runs();
        length(&places.ledger) > written
    });
    writer
}

/// Lets the writer trim what all followers have been shown.
fn allow_trim(places: &Places, followers: &[&Follower]) {
    let mut least: Option<BTreeMap<u64, u64>> = None;
    for follower in followers {
        let shown: BTreeMap<_, _> =
            lines::<3>(&follower.notes).into_iter().map(|[shard, at, _]| (shard, at)).collect();
        least = Some(match least {
            None => shown,
            Some(least) => {
                least.into_iter().filter_map(|(shard, at)| Some((shard, at.min(*shown.get(&shard)?)))).collect()
            }
        });
    }
    let text: String = least.unwrap_or_default().iter().fold(String::new(), |mut text, (shard, at)| {
        writeln!(text, "{shard} {at}").unwrap();
        text
    });
    let new = places.trim.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, &places.trim).unwrap();
}

/// What was shown is what recovery found, or was trimmed; what was acknowledged was shown.
fn check_shown(contents: &Contents, shown: &BTreeMap<(ShardId, u64), Id>, ledger: &Path) {
    for (place, found) in contents {
        assert_eq!(shown.get(place), Some(&found.id), "the follower and recovery differ at {place:?}");
    }
    let horizon = |shard: ShardId| contents.range((shard, 0)..).next().filter(|(place, _)| place.0 == shard);
    for (place, id) in shown {
        let is_kept = horizon(place.0).is_some_and(|(first, _)| first.1 <= place.1);
        assert!(!is_kept || contents.contains_key(place), "{id:?} at {place:?} was shown, and recovery lost it");
    }
    for [shard, number, id] in lines::<3>(ledger) {
        let place = (ShardId::new(u32::try_from(shard).unwrap()), number);
        assert_eq!(shown.get(&place), Some(&Id(id)), "acknowledged at {place:?}");
    }
}
