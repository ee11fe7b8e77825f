//! The STAGING file: where the frames of `Buffered` shards gather, and how the next opening finds them.
//!
//! A `Buffered` put is acknowledged when its frame stands in a slot of this file, which is mapped: the kernel has it, and no call was made. The slot is
//! written to the segment when it is full, when a reader comes to it, before every sync and seal, and by the background thread about every
//! millisecond. A process that dies leaves its slots; recovery continues the unsealed segment with them. A machine that dies leaves anything
//! in the file: frames have checksums, and only what continues the segment is taken.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::sync::OnceLock;
use crate::sync::atomic::{AtomicBool, Ordering};

use crate::format::{Frame, SLOT_HEADER_BYTES, SegmentHeader, SlotHeader};
use crate::limits::{MAX_STAGING_SLOTS, SLOT_UNIT_BYTES, STAGING_SLOT_BYTES};
use crate::storage::{Access, Fault, Staging, StagingLayout, StagingSlot, Storage};
use crate::trace::event;
use crate::types::SequenceNumber;

/// The file's name in the stream's directory.
pub(crate) const STAGING_FILE: &str = "STAGING";

const LAYOUT: StagingLayout = StagingLayout { slot_bytes: STAGING_SLOT_BYTES, slots: MAX_STAGING_SLOTS };

/// The slots of a stream's writer. The file is made when the first one is asked for.
#[derive(Debug)]
pub(crate) struct StagingSlots {
    storage: Arc<dyn Storage>,
    path: PathBuf,
    /// Nothing where there can be none.
    staging: OnceLock<Option<Staging>>,
    /// None was left when one was asked for last.
    exhausted: AtomicBool,
}

impl StagingSlots {
    pub(crate) fn new(storage: Arc<dyn Storage>, stream: &Path) -> Self {
        let path = stream.join(STAGING_FILE);
        Self { storage, path, staging: OnceLock::new(), exhausted: AtomicBool::new(false) }
    }

    /// A slot; nothing where all are lent, or where none could be made: a full disk is no reason to refuse a put, whose segment has its room.
    pub(crate) fn lend(&self) -> Option<StagingSlot> {
        if self.exhausted.load(Ordering::Relaxed) {
            return None;
        }
        let staging = self.staging.get_or_init(|| self.make().ok().flatten());
        let slot = staging.as_ref().and_then(|staging| staging.lend().ok().flatten());
        if slot.is_none() {
            event!(debug, path = %self.path.display(), "no slot to stage records in");
            self.exhausted.store(true, Ordering::Relaxed);
        }
        slot
    }

    /// Whether somebody went without a slot; asking again is then worth it, once some are given back.
    pub(crate) fn take_exhausted(&self) -> bool {
        self.exhausted.swap(false, Ordering::Relaxed)
    }

    /// Makes the file. What an earlier incarnation left in it was recovered.
    fn make(&self) -> io::Result<Option<Staging>> {
        remove_if_there(self.storage.as_ref(), &self.path)?;
        self.storage.create_staging(&self.path, LAYOUT)
    }

    /// Removes the file of a stream that is closed. Should it stay, or come back, it means nothing.
    pub(crate) fn remove(&self) {
        let _ = remove_if_there(self.storage.as_ref(), &self.path);
    }
}

fn remove_if_there(storage: &dyn Storage, path: &Path) -> io::Result<()> {
    match storage.remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What a writer that died left in its slots.
#[derive(Debug, Default)]
pub(crate) struct Staged {
    slots: Vec<(SlotHeader, Vec<u8>)>,
}

impl Staged {
    /// Reads the file, if there is one.
    pub(crate) fn load(storage: &dyn Storage, stream: &Path) -> Result<Self, Fault> {
        let path = stream.join(STAGING_FILE);
        let file = match storage.open_file(&path, Access::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(Fault::io("open", &path)(error)),
        };
        let length = file.len().map_err(Fault::io("read the length of", &path))?;
        let most = STAGING_SLOT_BYTES * MAX_STAGING_SLOTS;
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(most).min(most)];
        let read = file.read_at(&mut bytes, 0).map_err(Fault::io("read", &path))?;
        bytes.truncate(read);
        Ok(Self::of(&bytes))
    }

    /// The slots in the bytes of the file. Where a power cut took a header, the next one is looked for.
    fn of(bytes: &[u8]) -> Self {
        let mut slots = Vec::new();
        let mut position = 0;
        while let Some(rest) = bytes.get(position..).filter(|rest| !rest.is_empty()) {
            let header = SlotHeader::decode(rest);
            let slot = header.and_then(|header| Some((header, rest.get(..header.slot_bytes as usize)?)));
            match slot {
                Some((header, slot)) if !slot.is_empty() => {
                    position += slot.len().next_multiple_of(SLOT_UNIT_BYTES);
                    slots.push((header, slot.to_vec()));
                }
                _ => position += SLOT_UNIT_BYTES,
            }
        }
        Self { slots }
    }

    /// The frames that continue a segment from the record `next` on; empty where there are none.
    pub(crate) fn continuing(&self, segment: &SegmentHeader, next: SequenceNumber) -> &[u8] {
        let slots = self.slots.iter().filter(|(header, _)| header.is_of(segment));
        let runs =
            slots.map(|(_, slot)| run_from(slot.get(SLOT_HEADER_BYTES..).unwrap_or_default(), segment, next));
        // A shard has one slot at a time. An older one may hold what the segment has as well, and a power cut may have lost either.
        runs.max_by_key(|run| run.len()).unwrap_or_default()
    }
}

/// The sound frames from the record `next` on, of those that follow one another from the front, to the end of the last whole batch.
fn run_from<'a>(slot: &'a [u8], segment: &SegmentHeader, next: SequenceNumber) -> &'a [u8] {
    let (mut start, mut end, mut position) = (None, 0, 0);
    let mut due = None;
    while let Ok(frame) = Frame::decode(slot.get(position..).unwrap_or_default(), segment.seed()) {
        if due.is_some_and(|due| due != frame.sequence_number) {
            break;
        }
        if frame.sequence_number == next {
            start = Some(position);
        }
        due = Some(frame.sequence_number.next());
        position += frame.size;
        if frame.batch_remaining == 0 {
            end = position;
        }
    }
    start.and_then(|start| slot.get(start..end)).unwrap_or_default()
}
