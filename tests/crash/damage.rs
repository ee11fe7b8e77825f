//! Stored bytes change: every file of a stream, field by field. The answer is the right data or a typed error.

mod kept;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anabranch::storage::Storage;
use anabranch::{
    Corruption, Crash, Durability, Error, HashKey, ManualClock, PutEntry, PutOptions, RecordsStart,
    RetentionPeriod, SequenceNumber, ShardId, ShardIterator, ShardIteratorType, SimulatedDisk, Stream,
    VerifyOptions, verify,
};

use crate::history::{PATH, builder};
use kept::Kept;

pub(crate) const HEADER: usize = 128;
pub(crate) const FOOTER: usize = 128;

/// What every shard holds, by number.
pub(crate) type Contents = BTreeMap<(ShardId, u64), Vec<u8>>;

/// What became of a damaged stream.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// All of the right data.
    Right,
    /// Refused by an error of a kind that damage may have.
    Refused,
}

/// What was damaged, and where an error may say that it is.
#[derive(Debug, Clone)]
struct Case {
    name: String,
    /// The damaged file; its directory, or a neighbour, where it is gone or is another's.
    paths: Vec<PathBuf>,
    /// The enclosing unit that has a checksum of its own: a header, a record, an index, a slot, a whole file. `Corruption::offset` is where the damage
    /// was noticed, and nothing below such a unit is noticed by itself.
    unit: Range<u64>,
    /// The first record that cannot be read is one of these. The damage hides none where there is nothing here.
    numbers: Option<RangeInclusive<u64>>,
}

impl Case {
    fn new(name: String, path: &Path, unit: Range<u64>) -> Self {
        Self { name, paths: vec![path.to_path_buf()], unit, numbers: None }
    }

    /// It may be said to be anywhere in one of these.
    fn anywhere(name: String, paths: &[&Path]) -> Self {
        let paths = paths.iter().map(|path| path.to_path_buf()).collect();
        Self { name, paths, unit: 0..u64::MAX, numbers: None }
    }

    /// A file is missed by the one before it, or by its directory.
    fn gone(name: String, path: &Path) -> Self {
        Self::anywhere(name, &[path, path.parent().unwrap()])
    }

    fn and(&self, more: &str) -> Self {
        Self { name: format!("{self}, {more}"), ..self.clone() }
    }

    fn expect(&self, found: &Corruption) {
        assert!(self.paths.contains(&found.path), "{self}: said to be elsewhere: {found:?}");
        assert!(self.unit.contains(&found.offset), "{self}: not in {:?}: {found:?}", self.unit);
        let mut parts = found.path.components().filter_map(|part| part.as_os_str().to_str()?.parse().ok());
        let is_slot = found.path.ends_with("WATERMARK") && found.shard_id.is_some();
        let shard = if is_slot { u32::try_from(found.offset / 16).ok() } else { parts.next() };
        assert_eq!(found.shard_id, shard.map(ShardId::new), "{self}: {found:?}");
        if let Some(numbers) = &self.numbers {
            let is_among = |first: SequenceNumber| numbers.contains(&first.get());
            assert!(found.first_sequence_number.is_some_and(is_among), "{self}: not of {numbers:?}: {found:?}");
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

pub(crate) struct Sample {
    pub(crate) disk: SimulatedDisk,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) contents: Contents,
}

/// Several shards, some closed, with several segments each, of two lives of their writer.
pub(crate) fn sample(durability: Durability) -> (SimulatedDisk, Arc<ManualClock>, Stream, Contents) {
    let (disk, clock) = (SimulatedDisk::new(), Arc::new(ManualClock::default()));
    let made = builder(&disk, &clock).shards(2).segment_bytes(4096).durability(durability);
    let mut stream = made.retention(RetentionPeriod::Unlimited).create(PATH).unwrap();
    let mut contents = Contents::new();
    let mut put = |stream: &Stream, key: u128, bytes: usize| {
        let data = vec![u8::try_from(contents.len() % 251).unwrap(); bytes];
        let options = PutOptions::new().explicit_hash_key(HashKey::new(key));
        let receipt = stream.put_with("partition", &data, options).unwrap();
        contents.insert((receipt.shard_id, receipt.sequence_number.get()), data);
    };
    for round in 0..14 {
        clock.advance(Duration::from_millis(1));
        if round == 7 {
            stream.close().unwrap();
            stream = builder(&disk, &clock).open_existing(PATH).unwrap();
        }
        put(&stream, 1, 400 + round * 20);
        put(&stream, u128::MAX, 300);
    }
    let receipts = put_stamped(&stream).unwrap();
    contents.extend(receipts.into_iter().zip(STAMPED).map(|(place, (_, data))| (place, data.to_vec())));
    let mut put = |stream: &Stream, key: u128, bytes: usize| {
        let data = vec![u8::try_from(contents.len() % 251).unwrap(); bytes];
        let options = PutOptions::new().explicit_hash_key(HashKey::new(key));
        let receipt = stream.put_with("partition", &data, options).unwrap();
        contents.insert((receipt.shard_id, receipt.sequence_number.get()), data);
    };
    put(&stream, u128::MAX, 300);
    stream.consumer(kept::CONSUMER).unwrap(); // the shards that come get slots later
    stream.split_shard(ShardId::new(0), None).unwrap();
    for _ in 0..12 {
        put(&stream, 1, 500);
    }
    (disk, clock, stream, contents)
}

/// A producer's batch, of a record for each shard.
const STAMPED: [(HashKey, &[u8]); 2] = [(HashKey::new(1), &[0xfe; 300]), (HashKey::MAX, &[0xff; 300])];

/// Puts the batch, or puts it again; gives its places.
fn put_stamped(stream: &Stream) -> Result<Vec<(ShardId, u64)>, Error> {
    let entries =
        STAMPED.map(|(key, data)| PutEntry { explicit_hash_key: Some(key), ..PutEntry::new("partition", data) });
    let receipts = stream.producer("producer")?.put_batch(1, &entries)?;
    Ok(receipts.iter().map(|receipt| (receipt.shard_id, receipt.sequence_number.get())).collect())
}

impl Sample {
    pub(crate) fn closed() -> Self {
        Self::closed_with_kept().0
    }

    pub(crate) fn killed() -> Self {
        Self::killed_with_kept().0
    }

    fn closed_with_kept() -> (Self, Kept) {
        let (disk, clock, stream, contents) = sample(Durability::Synced);
        let kept = Kept::keep(&stream);
        stream.close().unwrap();
        (Self { disk, clock, contents }, kept)
    }

    fn killed_with_kept() -> (Self, Kept) {
        let (disk, clock, stream, contents) = sample(Durability::Synced);
        let kept = Kept::keep(&stream);
        let disk = disk.crash(Crash::ProcessKilled);
        drop(stream);
        (Self { disk, clock, contents }, kept)
    }

    /// All that have bytes, but for those of consumers and queues.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        files_of(&self.disk).into_iter().filter(|path| !kept::is_kept(path)).collect()
    }

    /// Those of consumers and queues.
    pub(crate) fn files_beside_the_log(&self) -> Vec<PathBuf> {
        files_of(&self.disk).into_iter().filter(|path| kept::is_kept(path)).collect()
    }

    pub(crate) fn segments(&self) -> Vec<PathBuf> {
        self.files().into_iter().filter(|path| path.extension().is_some()).collect()
    }

    pub(crate) fn copy(&self) -> SimulatedDisk {
        self.disk.fork(Crash::ProcessKilled)
    }

    /// Opens a damaged copy and reads all of it, in every way.
    fn read(&self, disk: &SimulatedDisk, case: &Case) -> Outcome {
        let stream = match builder(disk, &self.clock).open_existing(PATH) {
            Ok(stream) => stream,
            Err(error) => return refused(&error, case),
        };
        let mut refusals = self.read_all(&stream, case);
        match put_stamped(&stream) {
            Ok(places) => self.assert_stamped(&places, case),
            Err(error) => {
                refused(&error, case);
                refusals += 1;
            }
        }
        if refusals == 0 { Outcome::Right } else { Outcome::Refused }
    }

    /// The same as a follower does.
    fn follow(&self, disk: &SimulatedDisk, case: &Case) -> Outcome {
        let case = &case.and("read-only");
        match builder(disk, &self.clock).open_read_only(PATH) {
            Ok(stream) if self.read_all(&stream, case) == 0 => Outcome::Right,
            Ok(_) => Outcome::Refused,
            Err(error) => refused(&error, case),
        }
    }

    /// Reads all of a stream; gives how often that was refused.
    fn read_all(&self, stream: &Stream, case: &Case) -> u64 {
        let mut refusals = 0;
        for shard in stream.shards() {
            let id = shard.shard_id;
            let expected = self.contents.range((id, 0)..=(id, u64::MAX));
            let expected: Vec<_> = expected.map(|((_, number), data)| (*number, data)).collect();
            let mut read = 0;
            let mut ended = true;
            match stream.shard_iterator(id, ShardIteratorType::TrimHorizon) {
                Ok(mut iterator) => {
                    for record in iterator.available() {
                        match record {
                            Ok(record) => {
                                let found = (record.sequence_number().get(), &record.data().to_vec());
                                assert_eq!(found, expected[read], "{case}: wrong data from {id}");
                                read += 1;
                            }
                            Err(error) => {
                                refused(&error, case);
                                ended = false;
                                break;
                            }
                        }
                    }
                }
                Err(error) => {
                    refused(&error, case);
                    ended = false;
                }
            }
            assert!(!ended || read == expected.len(), "{case}: {id} ends silently after {read} records");
            refusals += u64::from(!ended);
            for (number, data) in expected {
                match stream.get(id, SequenceNumber::new(number)) {
                    Ok(record) => assert_eq!(record.data(), data, "{case}: wrong data at {id} {number}"),
                    Err(error) => {
                        refused(&error, case);
                        refusals += 1;
                    }
                }
            }
        }
        let records = stream.records(RecordsStart::TrimHorizon);
        let all: Result<Vec<_>, _> = records.and_then(|mut records| records.available().collect());
        match all {
            Ok(all) => assert_eq!(all.len(), self.contents.len(), "{case}: a silent shortfall"),
            Err(error) => {
                refused(&error, case);
                refusals += 1;
            }
        }
        refusals
    }

    /// The producer's batch is where it was put.
    fn assert_stamped(&self, places: &[(ShardId, u64)], case: &dyn fmt::Display) {
        for (place, (_, data)) in places.iter().zip(STAMPED) {
            let found = self.contents.get(place).map(Vec::as_slice);
            assert_eq!(found, Some(data), "{case}: the batch was appended again, at {place:?}");
        }
    }

    /// If what is left of a stream has the whole batch, it is not appended again.
    pub(crate) fn assert_remembered(&self, stream: &Stream, case: &str) {
        let is_there = |data: &[u8]| {
            let mut places = self.contents.iter().filter(|(_, found)| found.as_slice() == data);
            places.any(|((id, number), _)| stream.get(*id, SequenceNumber::new(*number)).is_ok())
        };
        if STAMPED.iter().all(|(_, data)| is_there(data)) {
            self.assert_stamped(&put_stamped(stream).unwrap(), &case);
        }
    }

    /// Damages a copy of one file; gives whether reading was refused, and whether `verify` found it. A follower is given all of the right data
    /// too, or refused.
    fn damage(&self, path: &Path, case: &Case, change: impl FnOnce(&mut Vec<u8>)) -> (Outcome, bool) {
        let disk = self.copy();
        disk.damage(path, change).unwrap();
        self.follow(&disk, case);
        (self.read(&disk.fork(Crash::ProcessKilled), case), finds_damage(&disk, case))
    }
}

/// Every file of the stream that has bytes.
pub(crate) fn files_of(disk: &SimulatedDisk) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![PathBuf::from(PATH)];
    while let Some(directory) = pending.pop() {
        for entry in disk.list(&directory).unwrap() {
            let path = directory.join(entry.name);
            if entry.is_dir { pending.push(path) } else { found.push(path) }
        }
    }
    found.retain(|path| !disk.read_file(path).unwrap().is_empty()); // but for locks
    found.sort();
    found
}

fn refused(error: &Error, case: &Case) -> Outcome {
    match error {
        Error::Corrupt(found) => case.expect(found),
        Error::UnsupportedVersion { path, .. } => assert!(case.paths.contains(path), "{case}: {error:?}"),
        Error::NotAStream { path, .. } => {
            assert_eq!(path, Path::new(PATH), "{case}: {error:?}");
            assert_eq!(case.paths[0], path.join("MANIFEST"), "{case}: {error:?}");
        }
        _ => panic!("{case}: the wrong kind of error: {error:?}"),
    }
    Outcome::Refused
}

fn finds_damage(disk: &SimulatedDisk, case: &Case) -> bool {
    let options = VerifyOptions { storage: Some(Arc::new(disk.clone())), progress: None };
    match verify(PATH, options) {
        Ok(report) => {
            report.damage.iter().for_each(|found| case.expect(found));
            !report.is_sound()
        }
        Err(error) => refused(&error, case) == Outcome::Refused,
    }
}

/// The units of a file of the log that have checksums of their own, in order; and of a segment, the first record that damage to each hides.
fn units(path: &Path, bytes: &[u8]) -> Vec<(Range<usize>, Option<RangeInclusive<u64>>)> {
    if path.ends_with("WATERMARK") {
        return (0..bytes.len()).step_by(16).map(|at| (at..at + 16, None)).collect();
    }
    if path.extension().is_none() {
        return vec![(0..bytes.len(), None)];
    }
    let footer = &bytes[bytes.len() - FOOTER..];
    let field = |at: usize| u64::from_le_bytes(footer[at..at + 8].try_into().unwrap());
    let (first, records, index) = (field(16), field(24), usize::try_from(field(40)).unwrap());
    let producers = index + usize::try_from(records * 4).unwrap().next_multiple_of(8);
    let mut starts = frames(bytes);
    starts.push(index);
    let of_frames = starts.windows(2).zip(first..).map(|(at, number)| (at[0]..at[1], Some(number..=number)));
    let all = Some(first..=first + records);
    let slack = slack(bytes);
    let mut units = vec![(0..HEADER, all.clone())];
    units.extend(of_frames);
    units.push((index..producers, all.clone()));
    units.push((producers..slack.start, None));
    units.push((slack.clone(), None));
    units.push((slack.end..bytes.len(), all));
    units
}

/// Where a sealed segment has bytes that say nothing: behind index and producers, up to the footer. They were allocated for records that never
/// came, nothing points there, and no later record will be stored there.
fn slack(bytes: &[u8]) -> Range<usize> {
    let footer = &bytes[bytes.len() - FOOTER..];
    let field = |at: usize| u64::from_le_bytes(footer[at..at + 8].try_into().unwrap());
    let (records, index) = (field(24), field(40));
    let producers = u64::from(u32::from_le_bytes(footer[76..80].try_into().unwrap()));
    let end = index + (records * 4).next_multiple_of(8) + 72 * producers;
    usize::try_from(end).unwrap()..bytes.len() - FOOTER
}

#[test]
fn every_changed_byte_of_a_closed_stream_is_right_or_refused() {
    let sample = Sample::closed();
    let mut unseen: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    for path in sample.files() {
        let bytes = sample.disk.read_file(&path).unwrap();
        let is_segment = path.extension().is_some();
        let slack = if is_segment { slack(&bytes) } else { 0..0 };
        // Each byte of header, footer and index, of MANIFEST and WATERMARK; of the frames and the slack, some.
        let index = if is_segment { slack.start - 64 - 72..slack.start } else { 0..0 };
        let units = units(&path, &bytes);
        for at in 0..bytes.len() {
            let sampled = !is_segment
                || at < HEADER + 64
                || at >= bytes.len() - FOOTER
                || index.contains(&at)
                || at % 61 == 0;
            if !sampled {
                continue;
            }
            let (unit, numbers) = units.iter().find(|(unit, _)| unit.contains(&at)).unwrap().clone();
            let unit = unit.start as u64..unit.end as u64;
            let case = Case { numbers, ..Case::new(format!("{} byte {at}", path.display()), &path, unit) };
            let bit = 1 << (at % 8);
            let (outcome, found) = sample.damage(&path, &case, |bytes| bytes[at] ^= bit);
            if !found {
                unseen.entry(path.display().to_string()).or_default().insert(at);
                assert_eq!(outcome, Outcome::Right, "{case}: refused, but verify finds nothing");
                assert!(slack.contains(&at), "{case}: not seen by verify");
            }
        }
    }
    assert!(!unseen.is_empty(), "the slack was tried too");
}

#[test]
fn files_of_another_length_or_place_are_right_or_refused() {
    let sample = Sample::closed();
    for path in sample.files() {
        let bytes = sample.disk.read_file(&path).unwrap();
        let name = path.display();
        for len in [0, 1, 8, bytes.len() / 2, bytes.len() - FOOTER.min(bytes.len()), bytes.len() - 1] {
            let case = Case::new(format!("{name} cut to {len}"), &path, 0..bytes.len() as u64);
            let (outcome, found) = sample.damage(&path, &case, |bytes| bytes.truncate(len));
            // WATERMARK is a witness: what it does not say is not missed after a clean close.
            assert!(found || path.ends_with("WATERMARK"), "{case}: not seen by verify");
            assert!(outcome == Outcome::Refused || path.ends_with("WATERMARK"), "{case}: not refused");
        }
        for more in [1, 8, 4096] {
            let case = Case::new(format!("{name} with {more} more bytes"), &path, 0..bytes.len() as u64);
            let (outcome, found) = sample.damage(&path, &case, |bytes| bytes.extend(vec![7; more]));
            assert!(found || path.ends_with("WATERMARK"), "{case}: not seen by verify");
            assert!(outcome == Outcome::Refused || path.ends_with("WATERMARK"), "{case}: not refused");
        }
        let disk = sample.copy();
        disk.remove_file(&path).unwrap();
        let case = Case::gone(format!("{name} is gone"), &path);
        assert!(finds_damage(&disk, &case), "{case}: not seen by verify");
        assert_eq!(sample.follow(&disk, &case), Outcome::Refused, "{case}: a follower");
        assert_eq!(sample.read(&disk, &case), Outcome::Refused, "{case}");
        if path.extension().is_some() {
            let case = case.and("and WATERMARK is zeros");
            disk.damage(&Path::new(PATH).join("WATERMARK"), |bytes| bytes.fill(0)).unwrap();
            assert_eq!(sample.follow(&disk, &case), Outcome::Refused, "{case}");
        }
    }
}

#[test]
fn segments_in_each_others_place_are_refused() {
    let sample = Sample::closed();
    let segments = sample.segments();
    assert!(segments.len() >= 6, "several segments of several shards");
    for (index, one) in segments.iter().enumerate() {
        for other in &segments[index + 1..] {
            let name = format!("{} and {} swapped", one.display(), other.display());
            let case = Case::anywhere(name, &[one, other]);
            let (one_bytes, other_bytes) =
                (sample.disk.read_file(one).unwrap(), sample.disk.read_file(other).unwrap());
            let disk = sample.copy();
            disk.damage(one, |bytes| *bytes = other_bytes).unwrap();
            disk.damage(other, |bytes| *bytes = one_bytes).unwrap();
            assert!(finds_damage(&disk, &case), "{case}: not seen by verify");
            assert_eq!(sample.follow(&disk, &case), Outcome::Refused, "{case}: a follower");
            assert_eq!(sample.read(&disk, &case), Outcome::Refused, "{case}");
        }
    }
}

/// A restored copy of one file beside the others as they are now.
#[test]
fn an_older_version_of_a_file_is_refused() {
    let (disk, clock, stream, contents) = sample(Durability::Synced);
    stream.close().unwrap();
    let old = disk.fork(Crash::ProcessKilled);
    let mut sample = Sample { disk, clock, contents };
    let stream = builder(&sample.disk, &sample.clock).open_existing(PATH).unwrap();
    for key in [1, u128::MAX] {
        let options = PutOptions::new().explicit_hash_key(HashKey::new(key));
        let receipt = stream.put_with("partition", b"later", options).unwrap();
        sample.contents.insert((receipt.shard_id, receipt.sequence_number.get()), b"later".to_vec());
    }
    stream.split_shard(ShardId::new(1), None).unwrap();
    stream.close().unwrap();
    let path = Path::new(PATH).join("MANIFEST");
    let older = old.read_file(&path).unwrap();
    // It is what does not fit to it that is found: segments, and a shard, which it does not know.
    let mut files = sample.files();
    files.extend(files.clone().iter().map(|path| path.parent().unwrap().to_path_buf()));
    let files: Vec<_> = files.iter().map(PathBuf::as_path).collect();
    let case = &Case::anywhere("an older MANIFEST".to_owned(), &files);
    let (outcome, found) = sample.damage(&path, case, |bytes| *bytes = older);
    assert!(found, "{case}: not seen by verify");
    assert_eq!(outcome, Outcome::Refused, "{case}");
    let path = Path::new(PATH).join("WATERMARK");
    let older = old.read_file(&path).unwrap();
    let case = Case::anywhere("an older WATERMARK".to_owned(), &[&path]);
    let (outcome, _) = sample.damage(&path, &case, |bytes| *bytes = older);
    assert_eq!(outcome, Outcome::Right, "it claims less, and the manifest knows the rest");
}

/// Where the records of a segment start: found by their lengths.
pub(crate) fn frames(bytes: &[u8]) -> Vec<usize> {
    let mut starts = Vec::new();
    let mut at = HEADER;
    let footer = &bytes[bytes.len() - FOOTER..];
    let end = u64::from_le_bytes(footer[32..40].try_into().unwrap());
    let end = if footer.starts_with(b"ANABREND") { usize::try_from(end).unwrap() } else { bytes.len() - FOOTER };
    loop {
        let length = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
        if length == 0 || at >= end {
            return starts;
        }
        starts.push(at);
        at += length.next_multiple_of(8);
    }
}

#[test]
fn damage_to_what_was_durable_is_refused_after_a_crash_too() {
    let sample = Sample::killed();
    let sound = Case::anywhere("no damage".to_owned(), &[]);
    assert_eq!(sample.read(&sample.copy(), &sound), Outcome::Right);
    let mut unsealed = 0;
    for path in sample.segments() {
        let bytes = sample.disk.read_file(&path).unwrap();
        if bytes[bytes.len() - FOOTER..].starts_with(b"ANABREND") {
            continue;
        }
        let starts = frames(&bytes);
        let first: u64 = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        unsealed += 1;
        assert!(!starts.is_empty(), "an active segment with records");
        for (index, start) in starts.iter().enumerate() {
            let is_last = index + 1 == starts.len();
            for offset in [0, 4, 8, 16, 24, 32, 36, 38, 39, 40, 60, 200] {
                let name = format!("{} byte {offset} of the record at {start}", path.display());
                let number = first + index as u64;
                let unit = *start as u64..*start as u64 + 1;
                let case = Case { numbers: Some(number..=number), ..Case::new(name, &path, unit) };
                let disk = sample.copy();
                disk.damage(&path, |bytes| bytes[start + offset] ^= 0x10).unwrap();
                assert!(finds_damage(&disk, &case), "{case}: not seen by verify");
                assert_eq!(sample.follow(&disk, &case), Outcome::Refused, "{case}: a follower");
                assert_eq!(sample.read(&disk, &case), Outcome::Refused, "{case}");
                // Without the witness, the later records still tell of all but the last.
                let disk = sample.copy();
                disk.damage(&Path::new(PATH).join("WATERMARK"), |bytes| bytes.fill(0)).unwrap();
                disk.damage(&path, |bytes| bytes[start + offset] ^= 0x10).unwrap();
                if !is_last {
                    let case = case.and("no WATERMARK");
                    assert!(finds_damage(&disk, &case), "{case}: not seen by verify");
                    assert_eq!(sample.read(&disk, &case), Outcome::Refused, "{case}");
                }
            }
        }
    }
    assert!(unsealed >= 2, "two shards were being written");
}

#[test]
fn a_missing_segment_is_refused_after_a_crash_too() {
    let sample = Sample::killed();
    for path in sample.segments() {
        let case = Case::gone(format!("{} is gone", path.display()), &path);
        let disk = sample.copy();
        disk.remove_file(&path).unwrap();
        assert!(finds_damage(&disk, &case), "{case}: not seen by verify");
        assert_eq!(sample.follow(&disk, &case), Outcome::Refused, "{case}: a follower");
        assert_eq!(sample.read(&disk, &case), Outcome::Refused, "{case}");
    }
}

/// A follower that was there before comes to a segment that is damaged, or missing: it is told so, as often as it looks.
#[test]
fn a_follower_that_comes_to_damage_is_told() {
    for is_removed in [false, true] {
        let (disk, clock) = (SimulatedDisk::new(), Arc::new(ManualClock::default()));
        let writer = builder(&disk, &clock).segment_bytes(4096).create(PATH).unwrap();
        let put = || writer.put("key", [1; 1000]).unwrap();
        put();
        let follower = builder(&disk, &clock).open_read_only(PATH).unwrap();
        let mut iterator = follower.shard_iterator(ShardId::new(0), ShardIteratorType::TrimHorizon).unwrap();
        assert_eq!(iterator.available().map(Result::unwrap).count(), 1);
        let next = [put(), put(), put()][2].sequence_number;
        let path = Path::new(PATH).join(format!("shards/{:012}/{:020}.seg", 0, next.get()));
        if is_removed {
            disk.remove_file(&path).unwrap();
        } else {
            disk.damage(&path, |bytes| bytes[20] ^= 1).unwrap();
        }
        assert_eq!(iterator.available().map_while(Result::ok).count(), 2, "what is sound comes first");
        for _ in 0..2 {
            match iterator.available().next() {
                Some(Err(Error::Corrupt(met))) => {
                    assert_eq!((&met.path, met.first_sequence_number), (&path, Some(next)), "{met}");
                }
                other => panic!("removed: {is_removed}: {other:?}"),
            }
        }
    }
}

/// A stream of so many segments of three records each, one byte of which was changed since it was closed.
fn with_damage(segments: u64, damaged: u64, place: impl FnOnce(&[u8]) -> usize) -> Stream {
    let (disk, clock) = (SimulatedDisk::new(), Arc::new(ManualClock::default()));
    let stream = builder(&disk, &clock).segment_bytes(4096).create(PATH).unwrap();
    for _ in 0..3 * segments {
        stream.put("key", [1; 1000]).unwrap();
    }
    stream.close().unwrap();
    let path = Path::new(PATH).join(format!("shards/{:012}/{:020}.seg", 0, 3 * damaged));
    disk.damage(&path, |bytes| {
        let at = place(bytes);
        bytes[at] ^= 1;
    })
    .unwrap();
    builder(&disk, &clock).open_existing(PATH).unwrap()
}

/// Where a segment begins, too, when all before it was verified.
#[test]
fn how_long_a_damaged_record_is_is_not_told() {
    let stream = with_damage(2, 1, |_| HEADER + 45);
    let mut reader = stream.shard_iterator(ShardId::new(0), ShardIteratorType::TrimHorizon).unwrap();
    assert_eq!(reader.next_records(3).unwrap().len(), 3);
    let told = reader.next_record_bytes();
    assert!(matches!(told, Err(Error::Corrupt(_))), "{told:?}");
}

/// Retention is limited, and to find the trim horizon would be a search: for a record that is kept there is none.
#[test]
fn damage_elsewhere_keeps_no_iterator_from_a_sound_record() {
    let stream = with_damage(5, 2, |bytes| bytes.len() - FOOTER + 28);
    for number in [0, 12].map(SequenceNumber::new) {
        let kind = ShardIteratorType::AtSequenceNumber(number);
        let mut reader = stream.shard_iterator(ShardId::new(0), kind).unwrap();
        assert_eq!(reader.next_records(1).unwrap()[0].sequence_number(), number);
    }
}

/// What is said of damage leads to it: the file, the place, the shard, the first record that cannot be read.
#[test]
fn damage_is_located() {
    for sample in [Sample::closed(), Sample::killed()] {
        for path in sample.segments() {
            let bytes = sample.disk.read_file(&path).unwrap();
            let first: u64 = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
            let shard: u32 = path.parent().unwrap().file_name().unwrap().to_str().unwrap().parse().unwrap();
            let starts = frames(&bytes);
            for (index, start) in starts.iter().enumerate() {
                let disk = sample.copy();
                disk.damage(&path, |bytes| bytes[start + 45] ^= 1).unwrap();
                let case = format!("{} record {index}", path.display());
                let options = VerifyOptions { storage: Some(Arc::new(disk.clone())), progress: None };
                let damage = verify(PATH, options).unwrap().damage;
                let found = damage.first().unwrap_or_else(|| panic!("{case}: not seen"));
                assert_eq!((&found.path, found.offset), (&path, *start as u64), "{case}: {found}");
                assert_eq!(found.shard_id, Some(ShardId::new(shard)), "{case}: {found}");
                let number = SequenceNumber::new(first + index as u64);
                assert_eq!(found.first_sequence_number, Some(number), "{case}: {found}");
                assert!(found.last_sequence_number.is_none_or(|last| last >= number), "{case}: {found}");

                // Reading says the same as verifying does.
                let Ok(stream) = builder(&disk, &sample.clock).open_existing(PATH) else { continue };
                let Err(Error::Corrupt(met)) = stream.get(ShardId::new(shard), number) else {
                    panic!("{case}: it was read");
                };
                assert_eq!((&met.path, met.offset), (&path, *start as u64), "{case}: {met}");
                assert_eq!(met.first_sequence_number, Some(number), "{case}: {met}");
                for in_batches in [true, false] {
                    let kind = ShardIteratorType::AtSequenceNumber(SequenceNumber::new(first));
                    let mut reader = stream.shard_iterator(ShardId::new(shard), kind).unwrap();
                    let (read, met) = read_to_damage(&mut reader, in_batches);
                    assert_eq!((read, met), (index, *start as u64), "{case}: sound records come first");
                    assert_eq!(read_to_damage(&mut reader, in_batches).0, 0, "{case}: and nothing behind it");
                }
            }
        }
    }
}

/// How many records come before damage, and where that is.
fn read_to_damage(reader: &mut ShardIterator, in_batches: bool) -> (usize, u64) {
    let mut records = 0;
    loop {
        let step = if in_batches {
            reader.next_batch().map(|batch| batch.len())
        } else {
            reader.available().next().transpose().map(|record| usize::from(record.is_some()))
        };
        match step {
            Ok(0) => panic!("the damage was passed over"),
            Ok(count) => records += count,
            Err(Error::Corrupt(met)) => return (records, met.offset),
            Err(error) => panic!("{error}"),
        }
    }
}
