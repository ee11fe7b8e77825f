//! One consumer's file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{LeaseError, patiently};
use crate::format::{
    CONSUMER_HEADER_BYTES, CONSUMER_SLOT_BYTES, COPIES, COPY_BYTES, ConsumerHeader, ConsumerHeaderError,
    DELETED_MARK, MARK_POSITION, SlotCopy, SlotState,
};
use crate::limits::MAX_CONSUMER_SLOTS;
use crate::storage::{Corruption, Fault, StorageFile};
use crate::sync::{Mutex, MutexGuard};
use crate::types::{ShardId, StreamId};

/// How many slots are read at once.
const SLOTS_AT_ONCE: u32 = 256;
/// Where the last slot ends that a file can have.
pub(super) const MAX_FILE_BYTES: u64 =
    CONSUMER_HEADER_BYTES as u64 + MAX_CONSUMER_SLOTS as u64 * CONSUMER_SLOT_BYTES as u64;

/// A consumer's file, open. All handles of the consumer in this process share it.
#[derive(Debug)]
pub(crate) struct LeaseFile {
    path: PathBuf,
    file: Arc<dyn StorageFile>,
    header: ConsumerHeader,
    /// Held with the file's lock: first this one, so that threads wait in order.
    known: Mutex<Known>,
}

/// What this process remembers of the file.
#[derive(Debug, Default)]
struct Known {
    /// Where a shard's slot was found last.
    places: HashMap<ShardId, u32>,
    /// The version of each slot up to which it is durable.
    durable: HashMap<u32, u64>,
    /// The versions that were written here and not synced.
    unsynced: HashMap<u32, u64>,
    /// How many slots the file has for certain, if any were added here.
    slots: u32,
    /// How long the file was when this process synced it whole the last time.
    length: u64,
    /// A write or a sync failed: what looks clean may be lost.
    is_suspect: bool,
}

/// The file with its lock held.
#[derive(Debug)]
#[must_use = "it is unlocked when this is dropped"]
pub(crate) struct LockedLeases<'a> {
    leases: &'a LeaseFile,
    known: MutexGuard<'a, Known>,
}

/// A slot as it was read.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    index: u32,
    copies: [Option<SlotCopy>; COPIES],
    /// The place of the copy in force.
    newest: usize,
}

impl Slot {
    fn copy(&self) -> Option<&SlotCopy> {
        self.copies.get(self.newest).and_then(Option::as_ref)
    }

    /// What is in force.
    pub(crate) fn state(&self) -> Option<&SlotState> {
        self.copy().map(|copy| &copy.state)
    }

    /// The place that the next write may take: not that of the copy in force, nor that of the newest one up to `durable`. Of others the
    /// oldest, so that all three come into use.
    fn spare(&self, durable: u64) -> usize {
        let version = |at: usize| self.copies.get(at).and_then(Option::as_ref).map(|copy| copy.version);
        let kept = (0..COPIES).filter(|at| version(*at) <= Some(durable)).max_by_key(|at| version(*at));
        let free = (0..COPIES).filter(|at| *at != self.newest && Some(*at) != kept);
        free.min_by_key(|at| version(*at)).unwrap_or(0) // there are three, and two are kept at most
    }
}

impl LeaseFile {
    /// A file of which nothing was read.
    pub(super) fn unread(path: &Path, file: Arc<dyn StorageFile>) -> Self {
        let header = ConsumerHeader {
            stream_id: StreamId::new(0),
            file_id: 0,
            created: crate::types::Timestamp::MIN,
            name: String::new(),
            slots: 0,
        };
        Self { path: path.to_path_buf(), file, header, known: Mutex::default() }
    }

    /// Reads the header, and makes everything in the file durable.
    pub(super) fn begin(mut self, stream_id: StreamId, name: &str) -> Result<Self, LeaseError> {
        self.header = self.read_header(stream_id, name)?;
        self.renew()?;
        Ok(self)
    }

    pub(super) fn read_header(&self, stream_id: StreamId, name: &str) -> Result<ConsumerHeader, Fault> {
        let damaged = |reason: String| Fault::from(Corruption::new(&self.path, 0, reason));
        let mut bytes = [0; CONSUMER_HEADER_BYTES];
        let read = self.read(&mut bytes, 0)?;
        if read < bytes.len() {
            return Err(damaged("the file is shorter than a consumer's header".to_owned()));
        }
        let header = match ConsumerHeader::decode(&bytes) {
            Ok(header) => header,
            Err(ConsumerHeaderError::Version(found)) => {
                return Err(Fault::UnsupportedVersion { path: self.path.clone(), found });
            }
            Err(error) => return Err(damaged(error.to_string())),
        };
        if header.stream_id != stream_id || header.name != name {
            return Err(damaged("it is the file of another stream or consumer".to_owned()));
        }
        Ok(header)
    }

    /// Drawn when the file was made: tells a consumer from an earlier one of its name.
    pub(crate) fn file_id(&self) -> u128 {
        self.header.file_id
    }

    /// Waits for the file's lock.
    pub(crate) fn lock(&self) -> Result<LockedLeases<'_>, LeaseError> {
        let locked = self.hold()?;
        if self.is_deleted()? { Err(LeaseError::Deleted) } else { Ok(locked) }
    }

    /// The same, whether the consumer was deleted or not.
    fn hold(&self) -> Result<LockedLeases<'_>, LeaseError> {
        let known = self.known.lock();
        let attempt = || Ok(self.file.try_lock().map_err(Fault::io("lock", &self.path))?.then_some(()));
        patiently(attempt)?.ok_or_else(|| LeaseError::Busy(self.path.clone()))?;
        Ok(LockedLeases { leases: self, known })
    }

    /// Makes everything in the file durable, whoever wrote it.
    pub(crate) fn renew(&self) -> Result<(), LeaseError> {
        self.lock()?.renew()
    }

    /// Makes what was written here durable.
    pub(crate) fn sync(&self) -> Result<(), LeaseError> {
        if self.has_unsynced() { self.lock()?.sync() } else { Ok(()) }
    }

    pub(crate) fn has_unsynced(&self) -> bool {
        let known = self.known.lock();
        known.is_suspect || !known.unsynced.is_empty()
    }

    /// Whether the consumer was deleted, for good: whoever marked the file may have died before the mark was durable, or may have been told that it
    /// will never be.
    pub(super) fn is_deleted(&self) -> Result<bool, Fault> {
        let is_marked = self.is_marked()?;
        if is_marked {
            self.write_mark()?;
        }
        Ok(is_marked)
    }

    /// Whether there is the mark of a deletion, durable or not.
    pub(super) fn is_marked(&self) -> Result<bool, Fault> {
        let mut mark = [0; DELETED_MARK.len()];
        self.read(&mut mark, MARK_POSITION as u64)?;
        if mark == DELETED_MARK {
            return Ok(true);
        }
        // A write that was cut short leaves the front of the mark: that deletion failed, and said so.
        let front = mark.iter().zip(DELETED_MARK).take_while(|(found, of_mark)| **found == *of_mark).count();
        if mark.iter().skip(front).all(|byte| *byte == 0) {
            return Ok(false);
        }
        Err(Corruption::new(&self.path, MARK_POSITION as u64, "what stands there is no mark of a deletion").into())
    }

    /// Tells everybody who has the file open that the consumer is gone, durably. Damaged or not, it may be deleted.
    pub(super) fn mark_deleted(&self) -> Result<(), LeaseError> {
        let _locked = self.hold()?;
        Ok(self.write_mark()?)
    }

    /// Written also where it is: a sync that failed leaves pages that look clean and are lost.
    fn write_mark(&self) -> Result<(), Fault> {
        self.write(&DELETED_MARK, MARK_POSITION as u64)?;
        self.file.sync().map_err(Fault::io("sync", &self.path))
    }

    /// Makes damaged slots free, durably.
    pub(super) fn clear(&self, damage: &[Corruption]) -> Result<(), LeaseError> {
        let _locked = self.hold()?;
        for damage in damage {
            self.write(&[0; CONSUMER_SLOT_BYTES], damage.offset)?;
        }
        Ok(self.file.sync().map_err(Fault::io("sync", &self.path))?)
    }

    /// The bytes of the file as far as there can be slots.
    pub(super) fn slots_that_can_be(&self) -> Result<Vec<u8>, Fault> {
        let most = self.length()?.min(MAX_FILE_BYTES);
        let mut bytes = vec![0; usize::try_from(most).unwrap_or(0)]; // some 16 MiB
        let read = self.read(&mut bytes, 0)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// What is damaged in the file, a header first. A reader's look: nothing is changed, no lock taken.
    pub(super) fn damage(mut self, stream_id: StreamId, name: &str) -> Result<Vec<Corruption>, Fault> {
        let mut damage = Vec::new();
        let mut keep = |outcome: Result<(), Fault>| match outcome {
            Err(Fault::Corrupt(found)) => {
                damage.push(*found);
                Ok(())
            }
            other => other,
        };
        match self.read_header(stream_id, name) {
            Ok(header) => self.header = header,
            Err(fault) => {
                keep(Err(fault))?;
                return Ok(damage);
            }
        }
        keep(self.is_marked().map(drop))?;
        let slots = self.for_each_slot(|_, slot| keep(slot.map(drop)));
        keep(slots)?;
        Ok(damage)
    }

    /// How many slots the file has, and how many of them are there to their ends: the last may have been cut short when it was made.
    fn slots(&self) -> Result<(u32, u32), Fault> {
        let length = self.length()?;
        let bytes = length.saturating_sub(CONSUMER_HEADER_BYTES as u64);
        let (slots, whole) = (bytes.div_ceil(CONSUMER_SLOT_BYTES as u64), bytes / CONSUMER_SLOT_BYTES as u64);
        match (u32::try_from(slots), u32::try_from(whole)) {
            (Ok(slots), Ok(whole)) if slots <= MAX_CONSUMER_SLOTS => Ok((slots, whole)),
            _ => {
                let reason = format!("{length} bytes are more than a consumer's file can have");
                Err(Corruption::new(&self.path, MAX_FILE_BYTES, reason).into())
            }
        }
    }

    fn length(&self) -> Result<u64, Fault> {
        self.file.len().map_err(Fault::io("read the length of", &self.path))
    }

    fn read(&self, bytes: &mut [u8], position: u64) -> Result<usize, Fault> {
        self.file.read_at(bytes, position).map_err(Fault::io("read", &self.path))
    }

    fn write(&self, bytes: &[u8], position: u64) -> Result<(), Fault> {
        self.file.write_at(bytes, position).map_err(Fault::io("write", &self.path))
    }

    /// Reads one slot; nothing if it holds nothing.
    fn read_slot(&self, index: u32) -> Result<Option<Slot>, Fault> {
        let mut bytes = [0; CONSUMER_SLOT_BYTES];
        self.read(&mut bytes, slot_position(index))?; // what is not there is zeros
        self.decode_slot(index, &bytes)
    }

    fn decode_slot(&self, index: u32, bytes: &[u8; CONSUMER_SLOT_BYTES]) -> Result<Option<Slot>, Fault> {
        let seed = self.header.seed(index);
        let mut copies = [None, None, None];
        let mut written = 0;
        for (copy, bytes) in copies.iter_mut().zip(bytes.chunks_exact(COPY_BYTES)) {
            written += usize::from(bytes.iter().any(|byte| *byte != 0));
            *copy = bytes.first_chunk().and_then(|bytes| SlotCopy::decode(bytes, seed));
        }
        let sound = copies.iter().enumerate().filter_map(|(at, copy)| Some((copy.as_ref()?.version, at)));
        match sound.max() {
            Some((_, newest)) => Ok(Some(Slot { index, copies, newest })),
            None if written <= 1 => Ok(None), // free, or its first copy was cut short
            None => {
                let reason = "no copy of a slot is sound";
                Err(Corruption::new(&self.path, slot_position(index), reason).into())
            }
        }
    }

    /// Every slot that holds something, and the places of those that do not.
    fn read_slots(&self) -> Result<(Vec<Slot>, Vec<u32>), Fault> {
        let (mut slots, mut free) = (Vec::new(), Vec::new());
        self.for_each_slot(|index, found| {
            match found? {
                Some(slot) => slots.push(slot),
                None => free.push(index),
            }
            Ok(())
        })?;
        Ok((slots, free))
    }

    /// A file that ends before the last slot that it is known to have was cut: what was stored there is gone, and not a beginning.
    fn for_each_slot(
        &self,
        mut visit: impl FnMut(u32, Result<Option<Slot>, Fault>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let (count, whole) = self.slots()?;
        let mut known = self.header.slots;
        let cut = |index| Corruption::new(&self.path, slot_position(index), "the file ends before the slot does");
        let mut first = 0;
        while first < count {
            let many = (count - first).min(SLOTS_AT_ONCE);
            let mut bytes = vec![0; many as usize * CONSUMER_SLOT_BYTES];
            self.read(&mut bytes, slot_position(first))?;
            for (index, bytes) in (first..).zip(bytes.chunks_exact(CONSUMER_SLOT_BYTES)) {
                let Some(bytes) = bytes.first_chunk() else { continue };
                let found = self.decode_slot(index, bytes);
                if let Ok(Some(Slot { copies, .. })) = &found {
                    known = copies.iter().flatten().map(|copy| copy.slots).fold(known, u32::max);
                }
                visit(index, if (whole..known).contains(&index) { Err(cut(index).into()) } else { found })?;
            }
            first += many;
        }
        (count..known).try_for_each(|index| visit(index, Err(cut(index).into())))
    }
}

impl LockedLeases<'_> {
    /// The slot of a shard; nothing if it has none.
    pub(crate) fn find(&mut self, shard_id: ShardId) -> Result<Option<Slot>, LeaseError> {
        if let Some(index) = self.known.places.get(&shard_id) {
            let slot = self.leases.read_slot(*index)?;
            if let Some(slot) = slot.filter(|slot| slot.state().is_some_and(|state| state.shard_id == shard_id)) {
                return Ok(Some(slot));
            }
        }
        let slots = self.all()?;
        Ok(slots.into_iter().find(|slot| slot.state().is_some_and(|state| state.shard_id == shard_id)))
    }

    /// Every slot that holds something.
    pub(crate) fn all(&mut self) -> Result<Vec<Slot>, LeaseError> {
        let (slots, _) = self.leases.read_slots()?;
        let place = |slot: &Slot| Some((slot.state()?.shard_id, slot.index));
        self.known.places = slots.iter().filter_map(place).collect();
        Ok(slots)
    }

    /// Puts `state` in force in a slot that was read under this lock. It survives the process; one that is to be `synced` before it is acknowledged
    /// needs a [`sync`](Self::sync).
    pub(crate) fn write(&mut self, slot: &Slot, state: SlotState, synced: bool) -> Result<(), LeaseError> {
        let leases = self.leases;
        let newest = slot.copy().ok_or_else(|| self.damaged(slot.index, "a slot without a sound copy"))?;
        let durable = self.durable_version(slot, newest)?;
        let version = newest.version.checked_add(1);
        let version = version.ok_or_else(|| self.damaged(slot.index, "the versions of a slot are used up"))?;
        let copy = SlotCopy { version, durable, synced, slots: newest.slots.max(self.known.slots), state };
        let position = copy_position(slot.index, slot.spare(durable));
        self.write_slot(&copy.encode(leases.header.seed(slot.index)), position)?;
        self.known.unsynced.insert(slot.index, version);
        Ok(())
    }

    /// Up to which version the slot is durable. A copy that may have been acknowledged as durable is made so.
    fn durable_version(&mut self, slot: &Slot, newest: &SlotCopy) -> Result<u64, LeaseError> {
        let known = self.known.durable.get(&slot.index).copied().unwrap_or(0);
        let durable = known.min(newest.version).max(newest.durable);
        if !newest.synced || durable == newest.version {
            return Ok(durable);
        }
        let leases = self.leases;
        let bytes = newest.encode(leases.header.seed(slot.index));
        self.write_slot(&bytes, copy_position(slot.index, slot.newest))?;
        self.known.unsynced.insert(slot.index, newest.version);
        self.sync()?;
        Ok(newest.version)
    }

    /// A write that fails may have put its copy in force all the same, where the rest of it is zeros: it is in need of a sync, too.
    fn write_slot(&mut self, bytes: &[u8], position: u64) -> Result<(), Fault> {
        let written = self.leases.write(bytes, position);
        self.known.is_suspect |= written.is_err();
        written
    }

    /// Makes everything that was written here durable.
    pub(crate) fn sync(&mut self) -> Result<(), LeaseError> {
        // Another process may have made slots, and not lived to make the new length durable.
        if self.known.is_suspect || self.leases.length()? > self.known.length {
            return self.renew();
        }
        let synced = self.leases.file.sync_in_place(); // slots are made whole, and grow no more
        self.note_sync(synced)
    }

    /// As [`sync`](Self::sync), where the file may have grown. What is suspect has to be written again before.
    fn sync_grown(&mut self) -> Result<(), LeaseError> {
        if self.known.is_suspect { self.renew() } else { self.sync_whole() }
    }

    fn sync_whole(&mut self) -> Result<(), LeaseError> {
        let length = self.leases.length()?;
        let synced = self.leases.file.sync();
        self.note_sync(synced)?;
        self.known.length = length;
        Ok(())
    }

    fn note_sync(&mut self, outcome: std::io::Result<()>) -> Result<(), LeaseError> {
        let known = &mut *self.known;
        if let Err(error) = outcome {
            known.is_suspect = true;
            return Err(Fault::io("sync", &self.leases.path)(error).into());
        }
        known.durable.extend(known.unsynced.drain());
        known.is_suspect = false;
        Ok(())
    }

    /// Writes the whole file again as it is, and syncs it: whoever wrote it may have died before it was durable, or may have been told that it
    /// will never be.
    fn renew(&mut self) -> Result<(), LeaseError> {
        let leases = self.leases;
        let (slots, _) = leases.read_slots()?;
        for slot in &slots {
            let mut bytes = [0; CONSUMER_SLOT_BYTES];
            leases.read(&mut bytes, slot_position(slot.index))?;
            leases.write(&bytes, slot_position(slot.index))?;
        }
        for slot in &slots {
            let version = slot.copy().map_or(0, |copy| copy.version);
            self.known.unsynced.insert(slot.index, version);
        }
        self.sync_whole()
    }

    /// Gives each of these shards a slot, durably. Those of shards that are gone are used again; what is still `wanted` of them only where the file is full, the least first.
    pub(crate) fn add<W: Default + Ord>(
        &mut self,
        states: Vec<SlotState>,
        is_gone: impl Fn(&SlotState) -> bool,
        wanted: impl Fn(&SlotState) -> W,
    ) -> Result<(), LeaseError> {
        let (slots, free) = self.leases.read_slots()?;
        let wanted = |slot: &Slot| slot.state().map(&wanted).unwrap_or_default();
        let mut gone: Vec<_> = slots.into_iter().filter(|slot| slot.state().is_some_and(&is_gone)).collect();
        gone.sort_by_key(wanted);
        let unwanted = gone.partition_point(|slot| wanted(slot) == W::default());
        let wanted = gone.split_off(unwanted);
        let (count, _) = self.leases.slots()?;
        let (mut unwanted, mut wanted) = (gone.into_iter(), wanted.into_iter());
        let mut unused = free.into_iter().chain(count..MAX_CONSUMER_SLOTS);
        let mut made = Vec::new();
        for state in states {
            if let Some(slot) = unwanted.next() {
                self.write(&slot, state, true)?;
            } else if let Some(index) = unused.next() {
                made.push((index, state));
            } else {
                self.write(&wanted.next().ok_or(LeaseError::Full)?, state, true)?;
            }
        }
        self.make_slots(made)
    }

    /// Two copies, one after the other: see the room's documentation.
    fn make_slots(&mut self, made: Vec<(u32, SlotState)>) -> Result<(), LeaseError> {
        let leases = self.leases;
        for (index, state) in &made {
            let copy = SlotCopy { version: 1, durable: 0, synced: true, slots: 0, state: state.clone() };
            let mut bytes = [0; CONSUMER_SLOT_BYTES];
            bytes[..COPY_BYTES].copy_from_slice(&copy.encode(leases.header.seed(*index)));
            self.write_slot(&bytes, slot_position(*index))?;
            self.known.unsynced.insert(*index, 1);
        }
        self.sync_grown()?;
        for (index, state) in made {
            let slot = leases.read_slot(index)?;
            let slot = slot.ok_or_else(|| self.damaged(index, "a slot that was just made is not there"))?;
            self.write(&slot, state, true)?;
        }
        self.note_slots()?;
        self.sync()
    }

    /// Says in the first slot how many there are, now that they are durable: a cut that takes them does not take that, or takes what the header counts.
    fn note_slots(&mut self) -> Result<(), LeaseError> {
        let (_, whole) = self.leases.slots()?;
        self.known.slots = whole;
        let (slots, _) = self.leases.read_slots()?;
        let Some((slot, copy)) = slots.first().and_then(|slot| Some((slot, slot.copy()?))) else { return Ok(()) };
        if self.leases.header.slots.max(copy.slots) >= whole {
            return Ok(());
        }
        self.write(slot, copy.state.clone(), true)
    }

    fn damaged(&self, index: u32, reason: &str) -> LeaseError {
        Corruption::new(&self.leases.path, slot_position(index), reason).into()
    }
}

impl Drop for LockedLeases<'_> {
    fn drop(&mut self) {
        let _ = self.leases.file.unlock(); // the system drops it with the handle at the latest
    }
}

/// The bytes of a new file, in which each slot has two copies.
pub(super) fn first_copies(header: &ConsumerHeader, slots: Vec<SlotState>) -> Vec<u8> {
    let count = u32::try_from(slots.len()).unwrap_or(u32::MAX); // a stream has no more shards than a file has room for
    let mut bytes = ConsumerHeader { slots: count, ..header.clone() }.encode().to_vec();
    for (index, state) in (0..).zip(slots) {
        let seed = header.seed(index);
        let first = SlotCopy { version: 1, durable: 0, synced: true, slots: 0, state };
        let second = SlotCopy { version: 2, durable: 1, ..first.clone() };
        bytes.extend_from_slice(&first.encode(seed));
        bytes.extend_from_slice(&second.encode(seed));
        bytes.extend_from_slice(&[0; COPY_BYTES]);
    }
    bytes
}

fn slot_position(index: u32) -> u64 {
    (CONSUMER_HEADER_BYTES + index as usize * CONSUMER_SLOT_BYTES) as u64
}

fn copy_position(index: u32, place: usize) -> u64 {
    slot_position(index) + (place * COPY_BYTES) as u64
}
