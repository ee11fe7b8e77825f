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
        let staging = self.staging.get_or_init(|| self.make().ok().flatten()).as_ref()?;
        if self.exhausted.load(Ordering::SeqCst) {
            return None;
        }
        let slot = staging.lend().ok().flatten();
        if slot.is_none() {
            event!(debug, path = %self.path.display(), "no slot to stage records in");
            self.exhausted.store(true, Ordering::SeqCst);
        }
        slot
    }

    /// Whether somebody goes without a slot, until somebody [takes note](Self::take_exhausted) of it.
    pub(crate) fn are_exhausted(&self) -> bool {
        self.exhausted.load(Ordering::SeqCst)
    }

    /// Whether somebody went without a slot; asking again is then worth it, once some are given back.
    pub(crate) fn take_exhausted(&self) -> bool {
        self.exhausted.swap(false, Ordering::SeqCst)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{FrameInput, encode_to};
    use crate::storage::{DiskFault, Operation, SimulatedDisk};
    use crate::types::{ShardId, StreamId, Timestamp};

    fn segment() -> SegmentHeader {
        SegmentHeader {
            stream_id: StreamId::new(7),
            shard_id: ShardId::new(3),
            incarnation: 2,
            first: SequenceNumber::new(90),
            created: Timestamp::MIN,
            file_bytes: 4096,
        }
    }

    /// A slot of the segment with these records, each with how many of its batch follow.
    fn slot(slot_bytes: usize, records: &[(u64, u32)]) -> Vec<u8> {
        let header = SlotHeader::of_segment(&segment(), u32::try_from(slot_bytes).unwrap());
        let mut bytes = header.encode().to_vec();
        for (number, batch_remaining) in records {
            let input = FrameInput {
                sequence_number: SequenceNumber::new(*number),
                arrival: Timestamp::from_millis(1),
                durable: SequenceNumber::ZERO,
                batch_remaining: *batch_remaining,
                explicit_hash_key: None,
                producer: None,
                partition_key: "key",
                data: b"data",
            };
            encode_to(&mut bytes, segment().seed(), &input);
        }
        bytes.resize(slot_bytes.max(SLOT_UNIT_BYTES), 0);
        bytes
    }

    /// The numbers of the frames that continue the segment from `next` on.
    fn continuing(staged: &Staged, next: u64) -> Vec<u64> {
        let mut frames = staged.continuing(&segment(), SequenceNumber::new(next));
        let mut numbers = Vec::new();
        while let Ok(frame) = Frame::decode(frames, segment().seed()) {
            numbers.push(frame.sequence_number.get());
            frames = &frames[frame.size..];
        }
        assert!(frames.is_empty());
        numbers
    }

    #[test]
    fn what_continues_a_segment_is_taken_to_the_end_of_its_last_batch() {
        let staged = Staged::of(&slot(1024, &[(91, 0), (92, 1), (93, 0), (94, 1)]));
        assert_eq!(continuing(&staged, 91), [91, 92, 93]);
        assert_eq!(continuing(&staged, 92), [92, 93]);
        assert_eq!(continuing(&staged, 93), [93]);
        for next in [90, 94, 95] {
            assert_eq!(continuing(&staged, next), [0; 0], "from {next} on");
        }
        let gap = Staged::of(&slot(1024, &[(91, 0), (93, 0)]));
        assert_eq!((continuing(&gap, 91), continuing(&gap, 93)), (vec![91], vec![]));
        let other = SegmentHeader { first: SequenceNumber::new(80), ..segment() };
        assert!(staged.continuing(&other, SequenceNumber::new(91)).is_empty());
    }

    #[test]
    fn slots_are_found_wherever_they_stand() {
        let mut bytes = vec![0; SLOT_UNIT_BYTES]; // its header is gone
        bytes.extend(slot(3 * SLOT_UNIT_BYTES, &[(91, 0)]));
        bytes.extend(slot(0, &[])); // says that it has no bytes
        bytes.extend(slot(1500, &[(91, 0), (92, 0)]));
        bytes.resize(bytes.len().next_multiple_of(SLOT_UNIT_BYTES), 0);
        bytes.extend(slot(1024, &[(91, 0)]));
        let staged = Staged::of(&bytes);
        let lengths: Vec<_> = staged.slots.iter().map(|(_, slot)| slot.len()).collect();
        assert_eq!(
            lengths,
            [3072, 0, 1500, 1024].iter().copied().filter(|length| *length > 0).collect::<Vec<_>>()
        );
        assert_eq!(continuing(&staged, 91), [91, 92], "the longest run");
        let cut = Staged::of(&bytes[..bytes.len() - 1]);
        assert_eq!(cut.slots.len(), 2, "one that is longer than the file is none");
    }

    #[test]
    fn all_of_the_file_is_read_and_nothing_else_stands_for_it() {
        let (disk, stream) = (SimulatedDisk::new(), Path::new("/"));
        assert!(Staged::load(&disk, stream).unwrap().slots.is_empty(), "no file");
        let mut bytes = vec![0; STAGING_SLOT_BYTES * (MAX_STAGING_SLOTS - 1)];
        bytes.extend(slot(STAGING_SLOT_BYTES, &[(91, 0)]));
        disk.create_file(Path::new(STAGING_FILE)).unwrap().write_at(&bytes, 0).unwrap();
        let load = || Staged::load(&disk, stream);
        assert_eq!(continuing(&load().unwrap(), 91), [91], "the last slot");
        for operation in [Operation::OpenFile, Operation::Len, Operation::Read] {
            disk.fail_on(operation, 0, DiskFault::Error(io::ErrorKind::Other));
            assert!(matches!(load(), Err(Fault::Io { .. })), "{operation:?}");
        }
    }

    #[test]
    fn slots_are_lent_until_there_are_none_and_again_when_some_were_given_back() {
        let disk = SimulatedDisk::new();
        let slots = StagingSlots::new(Arc::new(disk.clone()), Path::new("/"));
        let mut lent: Vec<_> = (0..MAX_STAGING_SLOTS).map(|_| slots.lend().unwrap()).collect();
        assert!(!slots.take_exhausted());
        assert!(slots.lend().is_none());
        lent.pop();
        assert!(slots.lend().is_none(), "nobody looked");
        assert!(slots.take_exhausted());
        assert!(!slots.take_exhausted());
        assert!(slots.lend().is_some());

        // The next life makes its own file, and a stream that is closed leaves none.
        let path = Path::new(STAGING_FILE);
        let next = StagingSlots::new(Arc::new(disk.clone()), Path::new("/"));
        assert!(next.lend().is_some());
        assert!(disk.open_file(path, Access::Read).is_ok());
        next.remove();
        assert_eq!(disk.open_file(path, Access::Read).unwrap_err().kind(), io::ErrorKind::NotFound);
        next.remove();
    }
}
