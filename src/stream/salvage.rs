//! Reading what is sound of a stream that is damaged.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::open::SHARDS_DIRECTORY;
use super::verify::no_stream;
use crate::error::Result;
use crate::format::{
    Footer, Frame, ManifestState, SEGMENT_HEADER_BYTES, SegmentHeader, ShardEntry, parse_segment_name,
    segment_name,
};
use crate::manifest;
use crate::segment::{Expected, Run, Survey, tolerant};
use crate::shard::{Staged, Watermarks};
use crate::storage::{Access, Corruption, Disk, Fault, Storage, StorageFile};
use crate::types::{HashKey, SequenceNumber, ShardId, StreamId, Timestamp};

/// Which incarnations are tried for a damaged segment where there is no manifest to tell how many there were.
const UNKNOWN_INCARNATIONS: u64 = 1 << 12;

/// What [`salvage`] hands over: a record, or a stretch that cannot be read.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Salvaged<'a> {
    /// A record whose checksum holds.
    Record(SalvagedRecord<'a>),
    /// Records that are gone.
    Lost(LostRange),
}

/// A record whose checksum holds, borrowed for the time of the call.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct SalvagedRecord<'a> {
    /// The shard that it is in.
    pub shard_id: ShardId,
    /// Its place in the shard.
    pub sequence_number: SequenceNumber,
    /// When the library took it.
    pub arrival: Timestamp,
    /// The key that it was put under.
    pub partition_key: &'a str,
    /// Its bytes.
    pub data: &'a [u8],
    /// The hash key that was given in place of its partition key's, if one was.
    pub explicit_hash_key: Option<HashKey>,
}

/// Records of a shard that cannot be read any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LostRange {
    /// The shard.
    pub shard_id: ShardId,
    /// The first one that is lost.
    pub first: SequenceNumber,
    /// The last one that is lost.
    pub last: SequenceNumber,
}

/// What [`salvage`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SalvageReport {
    /// Shard directories that were read.
    pub shards: u64,
    /// Records that were handed over.
    pub records: u64,
    /// Records that are known to have been there and cannot be read.
    pub lost: Vec<LostRange>,
    /// What is wrong with the manifest, if something is. Without it, what is missing before a shard's first segment and behind its last
    /// is not known.
    pub manifest: Option<Corruption>,
}

/// Hands every record of a stream directory that passes its checksum to `visit`, shard by shard, in order, and names the stretches
/// that are lost. For a stream that is damaged, where reading stops at the damage: this goes on behind it. It needs no manifest, changes
/// nothing and takes no lock.
///
/// Behind a write that a crash cut short it gives nothing but what is known to have been durable, as recovery does. Sectors that the
/// device cannot read are lost; what stands around them is not.
///
/// # Errors
///
/// [`Error::StreamNotFound`](crate::Error::StreamNotFound), [`Error::NotAStream`](crate::Error::NotAStream) where there is neither a manifest nor
/// a shard, [`Error::UnsupportedVersion`](crate::Error::UnsupportedVersion), and [`Error::Io`](crate::Error::Io) where directories
/// or files cannot be opened.
pub fn salvage(
    path: impl AsRef<Path>,
    storage: Option<Arc<dyn Storage>>,
    mut visit: impl FnMut(Salvaged<'_>) -> ControlFlow<()>,
) -> Result<SalvageReport> {
    let storage = storage.unwrap_or_else(|| Arc::new(Disk));
    let path = path.as_ref();
    let mut report = SalvageReport::default();
    let state = match manifest::load(storage.as_ref(), path) {
        Ok(state) => state,
        Err(Fault::Corrupt(damage)) => {
            report.manifest = Some(*damage);
            None
        }
        Err(Fault::Io { path, source, .. }) => {
            report.manifest = Some(Corruption::new(&path, 0, format!("it cannot be read: {source}")));
            None
        }
        Err(fault) => return Err(fault.into()),
    };
    let shards = shard_directories(storage.as_ref(), path)?;
    if state.is_none() && shards.is_empty() {
        return Err(no_stream(storage.as_ref(), path));
    }
    if state.is_none() && report.manifest.is_none() {
        let missing = path.join(manifest::MANIFEST_FILE);
        report.manifest = Some(Corruption::new(&missing, 0, "the file is missing"));
    }
    let looker = Looker::new(storage.as_ref(), path, state.as_ref(), &shards, true)?;
    let staged = Staged::load(storage.as_ref(), path).unwrap_or_default(); // what cannot be read is done without
    for id in shards {
        let look = looker.look(id)?;
        report.shards += 1;
        if look.tell(&staged, &mut report, &mut visit)?.is_break() {
            break;
        }
    }
    Ok(report)
}

/// The shards that have a directory, by id.
pub(super) fn shard_directories(storage: &dyn Storage, path: &Path) -> Result<Vec<ShardId>, Fault> {
    let shards = path.join(SHARDS_DIRECTORY);
    let entries = match storage.list(&shards) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(Fault::io("list", &shards)(error)),
    };
    let mut ids: Vec<_> = entries.iter().filter_map(|entry| ShardId::from_directory(&entry.name)).collect();
    ids.sort_unstable();
    Ok(ids)
}

/// Looks at shards, sound or not.
pub(super) struct Looker<'a> {
    storage: &'a dyn Storage,
    path: &'a Path,
    state: Option<&'a ManifestState>,
    stream_id: StreamId,
    watermarks: Option<Watermarks>,
    /// Whether what the device cannot read is done without: for salvage, which changes nothing.
    lenient: bool,
}

/// What is left of one shard.
pub(super) struct Look {
    pub(super) shard_id: ShardId,
    pub(super) directory: PathBuf,
    /// Every segment file, ascending, the unusable ones included.
    pub(super) files: Vec<SegmentFile>,
    /// All of the shard from its start to its end, in order.
    pub(super) pieces: Vec<Piece>,
    /// The number behind the last record that is known to have been there.
    pub(super) next: SequenceNumber,
    pub(super) last_arrival: Timestamp,
}

pub(super) struct SegmentFile {
    pub(super) first: SequenceNumber,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn StorageFile>,
    /// Nothing where the file is not the segment that its name says.
    pub(super) survey: Option<Survey>,
}

impl SegmentFile {
    /// Whether an earlier repair made it to stand for records that were lost.
    pub(super) fn is_lost(&self) -> bool {
        self.survey.as_ref().and_then(|survey| survey.footer).is_some_and(|footer| footer.is_lost())
    }
}

/// A stretch of a shard.
#[derive(Debug, Clone, Copy)]
pub(super) enum Piece {
    /// A run of records in the file with this index.
    Records(usize, Run),
    /// Numbers from the first to below the second.
    Lost(SequenceNumber, SequenceNumber),
}

impl<'a> Looker<'a> {
    pub(super) fn new(
        storage: &'a dyn Storage,
        path: &'a Path,
        state: Option<&'a ManifestState>,
        shards: &[ShardId],
        lenient: bool,
    ) -> Result<Self, Fault> {
        let stream_id = match state {
            Some(state) => state.stream_id,
            None => stream_id_of_segments(storage, path, shards)?.unwrap_or(StreamId::new(0)),
        };
        let watermarks = match Watermarks::open_if_there(storage, path, stream_id) {
            Err(_) if lenient => None,
            opened => opened?,
        };
        Ok(Self { storage, path, state, stream_id, watermarks, lenient })
    }

    pub(super) fn look(&self, shard_id: ShardId) -> Result<Look, Fault> {
        let directory = self.path.join(SHARDS_DIRECTORY).join(shard_id.directory());
        let entry = self.state.and_then(|state| state.shard(shard_id));
        let mut files = self.survey(shard_id, &directory, entry)?;
        let exact = entry.is_some_and(|entry| !entry.is_open() || self.state.is_some_and(|state| state.clean));
        let mut durable = entry.map_or(SequenceNumber::ZERO, |entry| entry.next);
        // Also where a clean close said the end: an older copy of manifest and segments may have been put back, and the numbers behind it were given. What is
        // above the end of a closed shard is its children's.
        let may_go_on = entry.is_none_or(ShardEntry::is_open);
        if let Some(watermarks) = self.watermarks.as_ref().filter(|_| may_go_on) {
            durable = durable.max(match watermarks.load(shard_id) {
                Err(_) if self.lenient => SequenceNumber::ZERO,
                noted => noted?,
            });
        }
        bound(&mut files, entry, exact, durable);
        let closed = entry.filter(|entry| !entry.is_open()).map(|entry| entry.next);
        let known = files.iter().filter_map(|file| file.survey.as_ref()).map(|survey| match &survey.footer {
            // What stands for lost records tells of them also where a repair that was cut short has left a file of no use among them.
            Some(footer) if footer.is_lost() => bounded(footer, closed),
            _ => survey.durable,
        });
        let durable = known.max().unwrap_or_default().max(durable);
        Ok(assemble(shard_id, directory, files, entry, durable))
    }

    fn survey(
        &self,
        shard_id: ShardId,
        directory: &Path,
        entry: Option<&ShardEntry>,
    ) -> Result<Vec<SegmentFile>, Fault> {
        let names = match self.storage.list(directory) {
            Ok(names) => names,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(Fault::io("list", directory)(error)),
        };
        let names = names.iter().filter(|entry| !entry.is_dir);
        let mut firsts: Vec<_> = names.filter_map(|entry| parse_segment_name(&entry.name)).collect();
        firsts.retain(|first| entry.is_none_or(|entry| *first >= entry.first)); // the rest was trimmed
        firsts.sort_unstable();
        let last = self.state.map_or(UNKNOWN_INCARNATIONS, |state| state.incarnation);
        firsts
            .into_iter()
            .map(|first| {
                let path = directory.join(segment_name(first));
                let file = self.storage.open_file(&path, Access::Read).map_err(Fault::io("open", &path))?;
                let file = if self.lenient { tolerant(file) } else { file };
                let expected = Expected { stream_id: self.stream_id, shard_id, first, incarnations: 1..=last };
                let survey = Survey::of(&file, &path, &expected)?;
                Ok(SegmentFile { first, path, file, survey })
            })
            .collect()
    }
}

/// Cuts what each file holds where the next one begins, and the last one where the log ends.
fn bound(files: &mut [SegmentFile], entry: Option<&ShardEntry>, exact: bool, durable: SequenceNumber) {
    let mut is_last = true;
    let mut next_first = None;
    let mut durable = durable;
    for file in files.iter_mut().rev() {
        let is_lost = file.is_lost();
        let Some(survey) = &mut file.survey else { continue };
        if is_lost {
            // What it stands for was durable, also where the note of that is gone. And it may be in an older copy of the file before that was put back.
            durable = durable.max(survey.footer.map_or(durable, |footer| footer.next()));
            continue;
        }
        if let Some(next) = next_first {
            survey.cut_at(next);
        } else if survey.footer.is_none() && survey.runs.is_empty() {
            continue; // the successor that an interrupted roll left: the log ends before it
        }
        if is_last && survey.footer.is_none() && !exact {
            survey.cut_torn_tail(durable);
        }
        if let Some(closed) = entry.filter(|entry| !entry.is_open()) {
            survey.cut_at(closed.next); // what is above belongs to its children
        }
        is_last = false;
        next_first = Some(file.first);
    }
}

fn assemble(
    shard_id: ShardId,
    directory: PathBuf,
    files: Vec<SegmentFile>,
    entry: Option<&ShardEntry>,
    durable: SequenceNumber,
) -> Look {
    let usable = || files.iter().enumerate().filter_map(|(index, file)| Some((index, file.survey.as_ref()?)));
    let closed = entry.filter(|entry| !entry.is_open()).map(|entry| entry.next);
    // Of two files that claim the same numbers the later one is right: a repair puts the later ones in place first.
    let ends = usable().skip(1).map(|(_, survey)| survey.header.first).map(Some).chain([closed]);
    let mut pieces = Vec::new();
    let mut next =
        entry.map(|entry| entry.first).or_else(|| files.first().map(|file| file.first)).unwrap_or(durable);
    let mut last_arrival = Timestamp::MIN;
    for ((index, survey), end) in usable().zip(ends) {
        for run in &survey.runs {
            if run.first < next {
                continue; // another file holds these
            }
            push_lost(&mut pieces, next, run.first);
            pieces.push(Piece::Records(index, *run));
            next = run.next;
            last_arrival = last_arrival.max(run.last_arrival);
        }
        // What the footer counts was there, and what a repair found lost stays lost.
        if let Some(footer) = survey.footer.filter(|footer| bounded(footer, end) > next) {
            let counted = bounded(&footer, end);
            push_lost(&mut pieces, next, counted);
            next = counted;
            last_arrival = last_arrival.max(footer.last_arrival);
        }
    }
    push_lost(&mut pieces, next, durable);
    Look { shard_id, directory, files, pieces, next: next.max(durable), last_arrival }
}

/// The number behind what the footer counts, as far as no later file and no child of the shard holds it.
fn bounded(footer: &Footer, end: Option<SequenceNumber>) -> SequenceNumber {
    end.map_or(footer.next(), |end| footer.next().min(end))
}

fn push_lost(pieces: &mut Vec<Piece>, from: SequenceNumber, to: SequenceNumber) {
    if from >= to {
        return;
    }
    match pieces.last_mut() {
        Some(Piece::Lost(_, end)) if *end == from => *end = to,
        _ => pieces.push(Piece::Lost(from, to)),
    }
}

impl Look {
    /// Calls `visit` with the records of a run; whether it wanted all of them.
    pub(super) fn records(
        &self,
        index: usize,
        run: &Run,
        visit: impl FnMut(&Frame<'_>) -> Result<bool, Fault>,
    ) -> Result<bool, Fault> {
        match self.files.get(index) {
            Some(SegmentFile { survey: Some(survey), file, path, .. }) => survey.visit(file, path, run, visit),
            _ => Ok(true),
        }
    }

    /// The frames that a dead writer staged and that continue the last segment behind all that stands in it: that file, its header,
    /// the frames, the place of the first and its number.
    pub(super) fn staged_behind<'s>(&'s self, staged: &'s Staged) -> Result<Option<StagedBehind<'s>>, Fault> {
        let usable = |file: &'s SegmentFile| Some((file, file.survey.as_ref()?));
        let Some((file, survey)) = self.files.iter().rev().find_map(usable) else {
            return Ok(None);
        };
        let header = survey.header;
        let (end, next) = match Survey::of(&file.file, &file.path, &Expected::exactly(&header))? {
            // Not as it is cut in this look: where its bytes end.
            Some(whole) if whole.footer.is_none() => {
                whole.runs.last().map_or((SEGMENT_HEADER_BYTES as u64, header.first), |run| (run.end, run.next))
            }
            _ => return Ok(None),
        };
        let frames = staged.continuing(&header, next);
        let fits = !frames.is_empty() && end + frames.len() as u64 <= header.footer_position();
        Ok(fits.then_some(StagedBehind { path: &file.path, header, frames, end, next }))
    }

    fn tell(
        &self,
        staged: &Staged,
        report: &mut SalvageReport,
        visit: &mut impl FnMut(Salvaged<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Fault> {
        for piece in &self.pieces {
            let goes_on = match piece {
                Piece::Lost(first, next) => {
                    let lost = lost_range(self.shard_id, *first, *next);
                    report.lost.push(lost);
                    visit(Salvaged::Lost(lost)).is_continue()
                }
                Piece::Records(index, run) => self.records(*index, run, |frame| {
                    report.records += 1;
                    Ok(visit(Salvaged::Record(salvaged(self.shard_id, frame))).is_continue())
                })?,
            };
            if !goes_on {
                return Ok(ControlFlow::Break(()));
            }
        }
        // Behind anything that is cut off here, there is nothing.
        let behind = self.staged_behind(staged)?.filter(|behind| behind.next == self.next);
        let mut frames = behind.as_ref().map_or(&[][..], |behind| behind.frames);
        while let Some(frame) = behind.as_ref().and_then(|it| Frame::decode(frames, it.header.seed()).ok()) {
            report.records += 1;
            if visit(Salvaged::Record(salvaged(self.shard_id, &frame))).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            frames = frames.get(frame.size..).unwrap_or_default();
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// Staged frames, and the place where they belong.
pub(super) struct StagedBehind<'a> {
    pub(super) path: &'a Path,
    header: SegmentHeader,
    pub(super) frames: &'a [u8],
    pub(super) end: u64,
    next: SequenceNumber,
}

pub(super) fn lost_range(shard_id: ShardId, first: SequenceNumber, next: SequenceNumber) -> LostRange {
    LostRange { shard_id, first, last: next.previous().unwrap_or(first) }
}

fn salvaged<'a>(shard_id: ShardId, frame: &Frame<'a>) -> SalvagedRecord<'a> {
    SalvagedRecord {
        shard_id,
        sequence_number: frame.sequence_number,
        arrival: frame.arrival,
        partition_key: frame.partition_key,
        data: frame.data,
        explicit_hash_key: frame.explicit_hash_key,
    }
}

/// Whose segments they are, where no manifest says it: the first sound header's.
fn stream_id_of_segments(
    storage: &dyn Storage,
    path: &Path,
    shards: &[ShardId],
) -> Result<Option<StreamId>, Fault> {
    for id in shards {
        let directory = path.join(SHARDS_DIRECTORY).join(id.directory());
        for entry in storage.list(&directory).map_err(Fault::io("list", &directory))? {
            let path = directory.join(&entry.name);
            if parse_segment_name(&entry.name).is_none() {
                continue;
            }
            let file = storage.open_file(&path, Access::Read).map_err(Fault::io("open", &path))?;
            let mut bytes = [0; SEGMENT_HEADER_BYTES];
            let read = file.read_at(&mut bytes, 0).unwrap_or(0);
            if let Some(header) = Some(&bytes).filter(|_| read == bytes.len())
                && let Ok(header) = SegmentHeader::decode(header)
                && header.shard_id == *id
            {
                return Ok(Some(header.stream_id));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{FrameInput, SlotHeader, encode_to};
    use crate::shard::STAGING_FILE;
    use crate::storage::{Crash, SimulatedDisk};
    use crate::stream::Stream;

    /// A stream whose writer died after one record, and then staged records that have room in the segment, or have not.
    fn left_with(records: u64) -> SimulatedDisk {
        let disk = SimulatedDisk::new();
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        let stream = Stream::builder().storage(storage).background(false).segment_bytes(4096).create("s").unwrap();
        stream.put("key", [1; 1000]).unwrap();
        let left = disk.crash(Crash::ProcessKilled);
        drop(stream);
        let path = Path::new("s/shards/000000000000").join(segment_name(SequenceNumber::ZERO));
        let bytes = left.read_file(&path).unwrap();
        let header = SegmentHeader::decode(bytes.first_chunk().unwrap()).unwrap();
        let mut slot = SlotHeader::of_segment(&header, 1 << 14).encode().to_vec();
        for number in 1..=records {
            let input = FrameInput {
                sequence_number: SequenceNumber::new(number),
                arrival: Timestamp::from_millis(1 << 42), // no earlier than the first one's,
                durable: SequenceNumber::ZERO,
                batch_remaining: 0,
                explicit_hash_key: None,
                producer: None,
                partition_key: "key",
                data: &[2; 1000],
            };
            encode_to(&mut slot, header.seed(), &input);
        }
        slot.resize(1 << 14, 0);
        let file = left.create_file(&Path::new("s").join(STAGING_FILE)).unwrap();
        file.write_at(&slot, 0).unwrap();
        left
    }

    #[test]
    fn staged_records_are_taken_if_their_segment_has_room_for_them() {
        for (staged, taken) in [(0, 0), (1, 1), (2, 2), (3, 0)] {
            let storage: Arc<dyn Storage> = Arc::new(left_with(staged));
            let report = salvage("s", Some(Arc::clone(&storage)), |_| ControlFlow::Continue(())).unwrap();
            assert_eq!((report.records, report.lost), (1 + taken, vec![]), "{staged} were staged");
            let stream = Stream::builder().storage(storage).background(false).open_existing("s").unwrap();
            assert_eq!(stream.describe().unwrap().shards[0].records, 1 + taken, "{staged} were staged");
        }
    }
}
