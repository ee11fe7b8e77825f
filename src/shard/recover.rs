//! Opening a shard: where its log ends, and whether what is missing was ever acknowledged.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::segments::Segments;
use super::{Producers, Shard, ShardContext, Staged};
use crate::format::{
    Footer, SEGMENT_HEADER_BYTES, SealKind, SegmentHeader, ShardEntry, parse_segment_name, segment_name,
};
use crate::segment::{Due, Scan, SegmentWriter, is_unfinished, read_footer, read_header, scan};
use crate::storage::{Access, Corruption, Fault, Storage, StorageFile};
use crate::types::{SequenceNumber, ShardId, Timestamp};

/// How much of a segment is looked at, and cleared, at once.
const CLEARED_PIECE: usize = 256 << 10;
/// So many segments without a record are removed from the end of a shard: a crash leaves the successor of a roll, and before it one whose records the power took.
const MOST_EMPTY: u32 = 8;

/// What opening a shard found.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) shard: Shard,
    /// The number behind its last record, which is durable now.
    pub(crate) next: SequenceNumber,
    pub(crate) last_arrival: Timestamp,
    /// Records that were in an unsealed segment.
    pub(crate) records: u64,
    /// A write that was cut short, if one was.
    pub(crate) torn: Option<Torn>,
}

/// A tail that was cut off: none of it was acknowledged at a level that the crash had to spare.
#[derive(Debug, Clone)]
pub(crate) struct Torn {
    pub(crate) shard_id: ShardId,
    pub(crate) next: SequenceNumber,
    pub(crate) path: PathBuf,
    pub(crate) offset: u64,
}

/// The end of a shard's log.
struct Tail {
    next: SequenceNumber,
    last_arrival: Timestamp,
    records: u64,
    torn: Option<Torn>,
    newest_file_bytes: Option<u64>,
    newest_footer: Option<Footer>,
}

impl Shard {
    /// Opens a shard for writing. `exact` says that the manifest knows its end: it is closed, or the stream was closed cleanly.
    ///
    /// Leaves every segment sealed and durable. Interrupted, it can be run again: it destroys nothing but
    /// segments below the manifest's first one and segments that hold no record.
    pub(crate) fn recover(
        context: Arc<ShardContext>,
        directory: PathBuf,
        entry: &ShardEntry,
        exact: bool,
        staged: &Staged,
    ) -> Result<Recovered, Fault> {
        let removed = Cell::new(0);
        let opening = Opening { exact, context: &context, directory: &directory, entry, staged, removed };
        let mut firsts = opening.list()?;
        opening.remove_trimmed(&mut firsts)?;
        if let Some(first) = firsts.first() {
            check_front(&directory, entry, *first)?; // before anything is changed
        }
        let tail = opening.find_tail(&mut firsts)?;
        check_front(&directory, entry, firsts.first().copied().unwrap_or(tail.next))?;
        opening.check_end(tail.next, exact)?;

        let mut segments = Segments::default();
        for first in &firsts {
            let footer = tail.newest_footer.filter(|footer| footer.first == *first);
            segments.push_sealed(*first, footer);
        }
        segments.newest_file_bytes = tail.newest_file_bytes;
        let last_arrival = tail.last_arrival.max(entry.last_arrival);
        if !exact {
            // Where the manifest knows the end there is nothing to note, and a clean stream stays untouched.
            context.watermarks.store(entry.id, tail.next);
        }
        Ok(Recovered {
            next: tail.next,
            last_arrival,
            records: tail.records,
            torn: tail.torn,
            shard: Self::assemble(context, directory, entry, segments, tail.next, last_arrival),
        })
    }
}

/// The first sequence numbers of the segment files in a shard's directory, ascending.
pub(super) fn list_segments(
    context: &ShardContext,
    directory: &Path,
    entry: &ShardEntry,
) -> Result<Vec<SequenceNumber>, Fault> {
    let entries = context.storage.list(directory).map_err(|source| {
        if source.kind() == std::io::ErrorKind::NotFound {
            Corruption::new(directory, 0, "the shard's directory is missing")
                .of_shard(entry.id)
                .of_records(entry.first, entry.next.previous())
                .into()
        } else {
            Fault::io("list", directory)(source)
        }
    })?;
    let names = entries.iter().filter(|entry| !entry.is_dir);
    let mut firsts: Vec<_> = names.filter_map(|entry| parse_segment_name(&entry.name)).collect();
    firsts.sort_unstable();
    Ok(firsts)
}

/// Refuses a shard whose files start behind its first segment.
pub(super) fn check_front(directory: &Path, entry: &ShardEntry, starts_at: SequenceNumber) -> Result<(), Fault> {
    if starts_at == entry.first {
        return Ok(());
    }
    Err(Corruption::new(&directory.join(segment_name(entry.first)), 0, "the shard's first segment is missing")
        .of_shard(entry.id)
        .of_records(entry.first, starts_at.previous())
        .into())
}

struct Opening<'a> {
    /// The manifest knows the shard's end.
    exact: bool,
    context: &'a ShardContext,
    directory: &'a Path,
    entry: &'a ShardEntry,
    /// What the last writer left in its slots.
    staged: &'a Staged,
    /// Segments without a record that were removed from the end.
    removed: Cell<u32>,
}

/// Writes zeros over the frames of a segment that holds no whole one, and makes that durable.
fn clear_frames(storage: &dyn Storage, path: &Path, header: &SegmentHeader) -> Result<(), Fault> {
    let file = storage.open_file(path, Access::Write).map_err(Fault::io("open", path))?;
    let mut piece = vec![0; CLEARED_PIECE];
    let mut position = SEGMENT_HEADER_BYTES as u64;
    while position < header.footer_position() {
        let left = usize::try_from(header.footer_position() - position).unwrap_or(usize::MAX);
        piece.resize(left.min(CLEARED_PIECE), 0);
        let read = file.read_at(&mut piece, position).map_err(Fault::io("read", path))?;
        if read == 0 {
            break;
        }
        if piece.iter().any(|byte| *byte != 0) {
            piece.fill(0);
            file.write_at(piece.get(..read).unwrap_or_default(), position).map_err(Fault::io("write", path))?;
        }
        position += read as u64;
    }
    file.sync().map_err(Fault::io("sync", path))
}

impl Opening<'_> {
    fn list(&self) -> Result<Vec<SequenceNumber>, Fault> {
        list_segments(self.context, self.directory, self.entry)
    }

    /// Finishes a removal that retention began: the manifest no longer counts these segments.
    fn remove_trimmed(&self, firsts: &mut Vec<SequenceNumber>) -> Result<(), Fault> {
        let keep = firsts.partition_point(|first| *first < self.entry.first);
        for first in firsts.drain(..keep) {
            self.remove(first)?;
        }
        Ok(())
    }

    fn remove(&self, first: SequenceNumber) -> Result<(), Fault> {
        let path = self.path(first);
        self.context.storage.remove_file(&path).map_err(Fault::io("remove", &path))
    }

    fn sync_directory(&self) -> Result<(), Fault> {
        self.context.storage.sync_dir(self.directory).map_err(Fault::io("sync", self.directory))
    }

    fn path(&self, first: SequenceNumber) -> PathBuf {
        self.directory.join(segment_name(first))
    }

    /// Looks at the newest segments, scans and seals the one that was left unsealed, removes the one that
    /// never got a record.
    fn find_tail(&self, firsts: &mut Vec<SequenceNumber>) -> Result<Tail, Fault> {
        let Some(newest) = firsts.pop() else {
            return Ok(self.empty_tail());
        };
        let previous = match firsts.last() {
            Some(first) => self.footer_of(*first)?,
            None => None,
        };
        let unsealed_before = firsts.last().is_some() && previous.is_none();
        let path = self.path(newest);
        let file = self.open(&path)?;
        let header = match self.header(file.as_ref(), &path, newest) {
            Ok(header) => header,
            Err(fault) => {
                // A segment whose creation was cut short. Nothing was appended to it, and nothing durable can be above its number.
                let may_be_unfinished = matches!(fault, Fault::Corrupt(_))
                    && is_unfinished(file.as_ref(), &path, &self.due(newest))?
                    && previous.is_none_or(|footer| footer.kind != SealKind::Rolled)
                    && self.known_durable()? <= newest;
                if !may_be_unfinished {
                    return Err(fault);
                }
                return self.without_newest(firsts, newest, previous);
            }
        };
        if unsealed_before {
            return self.interrupted_roll(firsts, newest, file.as_ref(), &header);
        }
        if let Some(footer) = read_footer(file.as_ref(), &path, &header)? {
            firsts.push(newest);
            return self.sealed_tail(&path, &header, footer);
        }
        self.unsealed_tail(firsts, newest, previous, file.as_ref(), &header)
    }

    fn empty_tail(&self) -> Tail {
        Tail {
            next: self.entry.next,
            last_arrival: self.entry.last_arrival,
            records: 0,
            torn: None,
            newest_file_bytes: None,
            newest_footer: None,
        }
    }

    /// The newest segment never got a record: the log ends in the one before.
    fn without_newest(
        &self,
        firsts: &mut Vec<SequenceNumber>,
        newest: SequenceNumber,
        previous: Option<Footer>,
    ) -> Result<Tail, Fault> {
        if let (Some(footer), Some(first)) = (previous, firsts.last()) {
            let path = self.path(*first);
            let file = self.open(&path)?;
            // Before its successor is gone: a segment sealed as rolled must have one. Cut short, this may tear the footer; what is
            // left is then a roll that was cut short, since the successor holds no whole record.
            self.reseal(&path, &self.header(file.as_ref(), &path, *first)?, footer)?;
        }
        if self.removed.replace(self.removed.get() + 1) >= MOST_EMPTY {
            let reason = "more segments without a record than a crash can leave";
            return Err(Corruption::new(&self.path(newest), 0, reason).of_shard(self.entry.id).into());
        }
        self.remove(newest)?;
        self.sync_directory()?;
        self.find_tail(firsts) // where the one before is unsealed, this was an interrupted roll
    }

    /// The roll makes the successor first and seals the old segment next; appends go on after both. So behind an unsealed segment
    /// the successor is empty, or else the old segment's footer was damaged. Or the footer was torn when a recovery wrote it again, because
    /// the successor held no whole record, whose frames may be there again.
    fn interrupted_roll(
        &self,
        firsts: &mut Vec<SequenceNumber>,
        newest: SequenceNumber,
        file: &dyn StorageFile,
        header: &SegmentHeader,
    ) -> Result<Tail, Fault> {
        let path = self.path(newest);
        let before = firsts.last().copied().unwrap_or_default();
        // A sealed successor was appended to, or is the marker of a repair, which no roll makes.
        let is_sealed = read_footer(file, &path, header)?.is_some();
        let found = scan(file, &path, header, Scan::start(header), SequenceNumber::ZERO)?;
        let is_empty = !is_sealed && found.starts.is_empty();
        if is_empty && (!found.torn || self.nothing_is_missing(before, newest)?) {
            return self.without_newest(firsts, newest, None);
        }
        let path = self.path(before);
        let footer = self.header(self.open(&path)?.as_ref(), &path, before)?.footer_position();
        Err(Corruption::new(&path, footer, "the footer of a segment that has a successor is not sound")
            .of_shard(self.entry.id)
            .of_records(before, newest.previous())
            .into())
    }

    /// Whether the records of a segment reach up to its successor, and none of the successor's is known durable.
    fn nothing_is_missing(&self, before: SequenceNumber, newest: SequenceNumber) -> Result<bool, Fault> {
        if self.known_durable()? > newest {
            return Ok(false);
        }
        let path = self.path(before);
        let file = self.open(&path)?;
        let header = self.header(file.as_ref(), &path, before)?;
        let found = scan(file.as_ref(), &path, &header, Scan::start(&header), SequenceNumber::ZERO)?;
        Ok(found.next == newest)
    }

    /// Writes the footer of the newest segment again, as a closed one's, and makes it durable: the last writer may have died
    /// before it was. What it vouches for was durable before it was written.
    fn reseal(&self, path: &Path, header: &SegmentHeader, footer: Footer) -> Result<(), Fault> {
        let file = self.context.storage.open_file(path, Access::Write).map_err(Fault::io("open", path))?;
        let kind = if footer.is_lost() { footer.kind } else { SealKind::Closed };
        let footer = Footer { kind, ..footer };
        let bytes = footer.encode(header.seed());
        file.write_at(&bytes, header.footer_position()).map_err(Fault::io("write", path))?;
        file.sync().map_err(Fault::io("sync", path))
    }

    fn sealed_tail(&self, path: &Path, header: &SegmentHeader, footer: Footer) -> Result<Tail, Fault> {
        if footer.kind == SealKind::Rolled {
            let reason = format!("the segment that follows {} is missing", path.display());
            return Err(Corruption::new(self.directory, 0, reason)
                .of_shard(self.entry.id)
                .of_records(footer.next(), None)
                .into());
        }
        if !self.exact && header.incarnation + 1 == self.context.incarnation {
            self.reseal(path, header, footer)?;
        }
        Ok(Tail {
            next: footer.next(),
            last_arrival: footer.last_arrival,
            records: 0,
            torn: None,
            newest_file_bytes: Some(header.file_bytes),
            newest_footer: Some(footer),
        })
    }

    fn unsealed_tail(
        &self,
        firsts: &mut Vec<SequenceNumber>,
        newest: SequenceNumber,
        previous: Option<Footer>,
        file: &dyn StorageFile,
        header: &SegmentHeader,
    ) -> Result<Tail, Fault> {
        let path = self.path(newest);
        let durable = self.known_durable()?;
        let mut found = scan(file, &path, header, Scan::start(header), durable)?;
        if !self.exact {
            found = self.take_staged(&path, header, found, durable)?;
        }
        let torn = found.torn.then(|| Torn {
            shard_id: self.entry.id,
            next: found.next,
            path: path.clone(),
            offset: found.end,
        });
        if found.starts.is_empty() {
            if found.torn {
                clear_frames(self.context.storage.as_ref(), &path, header)?;
            }
            let tail = self.without_newest(firsts, newest, previous)?;
            return Ok(Tail { torn, ..tail });
        }
        if self.exact {
            let reason = "the footer of a sealed segment is not sound";
            return Err(Corruption::new(&path, header.footer_position(), reason)
                .of_shard(self.entry.id)
                .of_records(newest, found.next.previous())
                .into());
        }
        let records = found.starts.len() as u64;
        let mut producers = self.producers(&found)?;
        let mut writer = SegmentWriter::recover(&self.context.storage, &path, *header, &found, durable)?;
        // Its writer kept room for what it knew. An ancestor may know of more, where the sections between were trimmed.
        producers.fit(writer.section_room());
        // A recovery that did not end may have removed an empty successor. Were it to come back later, it would stand behind a gap.
        self.sync_directory()?;
        let footer = writer.seal(SealKind::Closed, &producers.encode())?;
        firsts.push(newest);
        Ok(Tail {
            next: footer.next(),
            last_arrival: footer.last_arrival,
            records,
            torn,
            newest_file_bytes: Some(header.file_bytes),
            newest_footer: Some(footer),
        })
    }

    /// Writes the frames that the dead writer staged behind those that it had written, and reads on.
    fn take_staged(
        &self,
        path: &Path,
        header: &SegmentHeader,
        found: Scan,
        durable: SequenceNumber,
    ) -> Result<Scan, Fault> {
        let (end, next) = found.reached; // a batch may be written in part and staged in part
        let frames = self.staged.continuing(header, next);
        if frames.is_empty() || end + frames.len() as u64 > header.footer_position() {
            return Ok(found);
        }
        let file = self.context.storage.open_file(path, Access::Write).map_err(Fault::io("open", path))?;
        file.write_at(frames, end).map_err(Fault::io("write", path))?;
        scan(file.as_ref(), path, header, found, durable)
    }

    /// What the shard remembers of producers: what it did when the segment was begun, and what the segment says.
    fn producers(&self, found: &Scan) -> Result<Producers, Fault> {
        let shards = self.directory.parent().unwrap_or(self.directory);
        let mut producers = self.context.remembered(self.entry, shards, &self.context.lineage.get())?;
        for batch in found.stamped.values() {
            producers.note(batch, self.entry.id, self.entry.range);
        }
        Ok(producers)
    }

    /// The number below which records are known to have been durable: by the manifest, or by the note after the last sync.
    fn known_durable(&self) -> Result<SequenceNumber, Fault> {
        Ok(self.entry.next.max(self.context.watermarks.load(self.entry.id)?))
    }

    fn check_end(&self, next: SequenceNumber, exact: bool) -> Result<(), Fault> {
        let durable = self.known_durable()?;
        let reason = if next < durable {
            format!("the shard ends at {next}, though the records below {durable} were durable")
        } else if exact && next > self.entry.next {
            format!("the shard holds records from {} on that the manifest does not know", self.entry.next)
        } else {
            return Ok(());
        };
        Err(Corruption::new(self.directory, 0, reason)
            .of_shard(self.entry.id)
            .of_records(next.min(self.entry.next), durable.max(next).previous())
            .into())
    }

    fn footer_of(&self, first: SequenceNumber) -> Result<Option<Footer>, Fault> {
        let path = self.path(first);
        let file = self.open(&path)?;
        let header = self.header(file.as_ref(), &path, first)?;
        read_footer(file.as_ref(), &path, &header)
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn StorageFile>, Fault> {
        self.context.storage.open_file(path, Access::Read).map_err(Fault::io("open", path))
    }

    /// What a segment of the last writer would be.
    fn due(&self, first: SequenceNumber) -> Due {
        let incarnation = self.context.incarnation.saturating_sub(1);
        Due { stream_id: self.context.stream_id, shard_id: self.entry.id, first, incarnation }
    }

    fn header(&self, file: &dyn StorageFile, path: &Path, first: SequenceNumber) -> Result<SegmentHeader, Fault> {
        let header = read_header(file, path, self.context.stream_id, self.entry.id, first)?;
        // This opening's own incarnation has no segments yet; `>=` also refuses what an older copy of the manifest does not know.
        if header.incarnation >= self.context.incarnation {
            return Err(Corruption::new(path, 40, "the segment is newer than the manifest")
                .of_shard(self.entry.id)
                .of_records(first, None)
                .into());
        }
        Ok(header)
    }
}
