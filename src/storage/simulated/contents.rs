//! The bytes of one simulated file, and what of them is on the medium.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::buffer::SharedBuffer;
use super::crash::{Fate, FileFate};
use super::history::History;
use crate::storage::Map;

/// The unit in which a medium stores or loses bytes.
pub(super) const SECTOR_BYTES: usize = 512;

/// The unit in which room is given back.
const BLOCK_BYTES: usize = 4096;

type Sector = Box<[u8; SECTOR_BYTES]>;

/// A file as the running program sees it, and beside it every state it may have after power loss.
#[derive(Debug)]
pub(super) struct Contents {
    /// What the program sees; zero behind the file's size. Its length is a whole number of sectors.
    buffer: Arc<SharedBuffer>,
    size: usize,
    /// Everything from here on is zero: crash states need not copy it.
    data_end: usize,
    /// Sectors whose bytes are not all durable. The others are on the medium as they are in the buffer.
    unsynced: BTreeMap<usize, History<Sector>>,
    /// The durable size and the sizes since; the size never shrinks.
    sizes: History<usize>,
    /// Blocks that were given back and not written since.
    holes: BTreeSet<usize>,
    /// Blocks that ever had data: all others are zero in every state. Of a file with allocated room that is nearly all.
    written: BTreeSet<usize>,
    /// A sync has covered what was written up to here.
    synced_end: usize,
    /// Counts changes.
    stamp: u64,
    syncs_under_way: usize,
    /// What the medium does not give back.
    unreadable: Vec<Range<usize>>,
}

/// What a sync that has begun will make durable.
#[derive(Debug, Clone, Copy)]
pub(super) struct StartedSync {
    stamp: u64,
    data_end: usize,
}

impl Contents {
    /// A file of these bytes, all of them durable.
    pub(super) fn durable(bytes: &[u8]) -> Self {
        let buffer = SharedBuffer::zeroed(whole_sectors(bytes.len()));
        // Cannot fail: the buffer has room and nobody maps it.
        let _ = buffer.write(bytes, 0);
        Self {
            buffer: Arc::new(buffer),
            size: bytes.len(),
            data_end: bytes.len(),
            unsynced: BTreeMap::new(),
            sizes: History::durable(bytes.len()),
            holes: BTreeSet::new(),
            written: touched_blocks(&(0..bytes.len())).collect(),
            synced_end: bytes.len(),
            stamp: 0,
            syncs_under_way: 0,
            unreadable: Vec::new(),
        }
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// The room that the file takes.
    pub(super) fn used_bytes(&self) -> usize {
        self.size.saturating_sub(self.holes.len() * BLOCK_BYTES)
    }

    pub(super) fn is_mapped(&self) -> bool {
        Arc::strong_count(&self.buffer) > 1
    }

    pub(super) fn read(&self, bytes: &mut [u8], position: usize) -> io::Result<usize> {
        let count = self.size.saturating_sub(position).min(bytes.len());
        if self.unreadable.iter().any(|lost| position < lost.end && lost.start < position + count) {
            return Err(io::Error::other("the medium does not give these sectors back"));
        }
        let (filled, _) = bytes.split_at_mut(count);
        if count > 0 {
            self.buffer.read(filled, position)?;
        }
        Ok(count)
    }

    /// From now on reads that touch the sectors of this range fail.
    pub(super) fn make_unreadable(&mut self, range: Range<usize>) {
        let start = range.start / SECTOR_BYTES * SECTOR_BYTES;
        self.unreadable.push(start..whole_sectors(range.end));
    }

    pub(super) fn read_all(&self) -> Vec<u8> {
        self.bytes(0..self.size)
    }

    pub(super) fn map(&self, len: usize) -> io::Result<Map> {
        let too_short = || {
            let message = "the file is shorter than its map";
            io::Error::new(io::ErrorKind::UnexpectedEof, message)
        };
        if len > self.size {
            return Err(too_short());
        }
        Map::of_buffer(Arc::clone(&self.buffer), len).ok_or_else(too_short)
    }

    /// Writes as much of `bytes` as `room` more bytes of storage allow, and fails if that is not all.
    pub(super) fn write(&mut self, bytes: &[u8], position: usize, room: u64) -> io::Result<()> {
        let Some(end) = position.checked_add(bytes.len()) else {
            return Err(io::ErrorKind::FileTooLarge.into());
        };
        if self.growth(position..end) <= room {
            return self.store(bytes, position);
        }
        let fitting = self.fitting(position..end, room);
        self.store(bytes.get(..fitting).unwrap_or_default(), position)?;
        Err(io::ErrorKind::StorageFull.into())
    }

    /// Makes the file at least `len` bytes long, without holes, all of which `room` must allow.
    pub(super) fn allocate(&mut self, len: usize, room: u64) -> io::Result<()> {
        if self.growth(0..len) > room {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.reserve(len, len)?;
        self.holes = self.holes.split_off(&len.div_ceil(BLOCK_BYTES));
        self.stamp += 1;
        self.grow_to(len);
        Ok(())
    }

    /// Zeroes a range, as far as the file reaches, and gives its whole blocks back.
    pub(super) fn release(&mut self, range: Range<usize>) -> io::Result<()> {
        let range = range.start..range.end.min(self.size);
        if range.is_empty() {
            return Ok(());
        }
        let written: Vec<_> = self.written.range(touched_blocks(&range)).copied().collect();
        for block in written {
            let inside = (block * BLOCK_BYTES).max(range.start)..((block + 1) * BLOCK_BYTES).min(range.end);
            self.change(inside.clone(), |buffer| buffer.zero(inside))?;
        }
        self.stamp += 1;
        self.holes.extend(whole_blocks(&range));
        self.grow_to(range.end);
        Ok(())
    }

    /// Starts a sync: what it covers, for [`finish_sync`](Self::finish_sync).
    pub(super) fn start_sync(&mut self) -> StartedSync {
        self.syncs_under_way += 1;
        StartedSync { stamp: self.stamp, data_end: self.data_end }
    }

    /// Makes durable what had been written when the sync started, and no more: what came later is
    /// not promised to be part of it.
    pub(super) fn finish_sync(&mut self, started: StartedSync) {
        self.sizes.synced(started.stamp);
        self.make_durable(started, usize::MAX);
        self.synced_end = self.synced_end.max(started.data_end);
    }

    /// As [`finish_sync`](Self::finish_sync), but only of what was synced before and written again.
    pub(super) fn finish_sync_in_place(&mut self, started: StartedSync) {
        self.make_durable(started, self.synced_end);
    }

    fn make_durable(&mut self, started: StartedSync, end: usize) {
        self.syncs_under_way = self.syncs_under_way.saturating_sub(1);
        self.unsynced.retain(|index, history| {
            if *index < end.div_ceil(SECTOR_BYTES) {
                history.synced(started.stamp);
            }
            !history.is_durable()
        });
    }

    /// A sync failed the way Linux does it: whatever was unsynced may be lost, stays readable until
    /// then, and counts as clean, so that no later sync writes it unless it is written anew.
    pub(super) fn fail_sync(&mut self) {
        self.sizes.sync_failed(self.stamp);
        for history in self.unsynced.values_mut() {
            history.sync_failed(self.stamp);
        }
    }

    /// Puts other bytes in the file's place, on the medium too. Maps keep the old ones.
    pub(super) fn replace(&mut self, bytes: &[u8]) {
        let stamp = self.stamp + 1; // a sync that is under way must not take the new bytes for old ones
        *self = Self::durable(bytes);
        self.stamp = stamp;
    }

    /// The file as the next program finds it after this one was killed: what is in memory stays there.
    pub(super) fn after_kill(&self) -> Self {
        Self {
            buffer: self.copy_of_buffer(self.size),
            size: self.size,
            data_end: self.data_end,
            unsynced: self.unsynced.clone(),
            sizes: self.sizes.clone(),
            holes: self.holes.clone(),
            written: self.written.clone(),
            synced_end: self.synced_end,
            stamp: self.stamp,
            syncs_under_way: 0,
            unreadable: self.unreadable.clone(),
        }
    }

    /// One state in which the file may be found after power loss.
    pub(super) fn after_power_loss(&self, fate: &mut FileFate) -> Self {
        let size = pick(&self.sizes, &mut fate.size).unwrap_or(self.size);
        let buffer = self.copy_of_buffer(size);
        for (&index, history) in &self.unsynced {
            let start = index * SECTOR_BYTES;
            let kept = size.saturating_sub(start).min(SECTOR_BYTES);
            let sector = settle(history, &mut fate.sectors);
            if let Some(bytes) = sector.get(..kept) {
                // Cannot fail: `kept` bytes are within the buffer, which nobody maps yet.
                let _ = buffer.write(bytes, start);
            }
        }
        let mut survivor = Self {
            buffer,
            size,
            data_end: self.data_end.min(size),
            unsynced: BTreeMap::new(),
            sizes: History::durable(size),
            holes: BTreeSet::new(),
            written: self.written.clone(),
            synced_end: 0,
            stamp: 0,
            syncs_under_way: 0,
            unreadable: self.unreadable.clone(),
        };
        survivor.holes = self.holes.iter().copied().filter(|&hole| survivor.is_hole(hole)).collect();
        survivor
    }

    /// The further room that a write of this range needs.
    fn growth(&self, range: Range<usize>) -> u64 {
        if range.is_empty() {
            return 0;
        }
        let filled = self.holes.range(touched_blocks(&range)).count() * BLOCK_BYTES;
        (range.end.saturating_sub(self.size) + filled) as u64
    }

    /// How many bytes of a write that does not fit do fit.
    fn fitting(&self, range: Range<usize>, room: u64) -> usize {
        let inside = range.start..range.end.min(self.size);
        let Some(left) = room.checked_sub(self.growth(inside)) else {
            return 0;
        };
        let end = self.size.saturating_add(usize::try_from(left).unwrap_or(usize::MAX));
        end.min(range.end).saturating_sub(range.start)
    }

    fn store(&mut self, bytes: &[u8], position: usize) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let end = position + bytes.len();
        self.reserve(end, self.buffer.len().saturating_mul(2))?;
        self.change(position..end, |buffer| buffer.write(bytes, position))?;
        for block in touched_blocks(&(position..end)) {
            self.holes.remove(&block);
            self.written.insert(block);
        }
        self.data_end = self.data_end.max(end);
        self.grow_to(end);
        Ok(())
    }

    /// Sees to it that the buffer reaches to `end`; if it must be replaced, by one of `target` bytes.
    fn reserve(&mut self, end: usize, target: usize) -> io::Result<()> {
        if end <= self.buffer.len() {
            return Ok(());
        }
        if self.is_mapped() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "a mapped file cannot grow beyond what was allocated",
            ));
        }
        let buffer = SharedBuffer::try_zeroed(whole_sectors(end.max(target)))?;
        buffer.write(&self.bytes(0..self.data_end), 0)?;
        self.buffer = Arc::new(buffer);
        Ok(())
    }

    /// Changes bytes in place, and notes the new version of each sector that they are in.
    fn change(
        &mut self,
        range: Range<usize>,
        change: impl FnOnce(&SharedBuffer) -> io::Result<()>,
    ) -> io::Result<()> {
        if let Some(buffer) = Arc::get_mut(&mut self.buffer) {
            buffer.reclaim();
        }
        let sectors = range.start / SECTOR_BYTES..range.end.div_ceil(SECTOR_BYTES);
        for index in sectors.clone() {
            let before = || History::durable(read_sector(&self.buffer, index));
            self.unsynced.entry(index).or_insert_with(before);
        }
        let result = change(&self.buffer);
        self.stamp += 1;
        for index in sectors {
            self.note_version(index);
        }
        result
    }

    fn note_version(&mut self, index: usize) {
        let Some(history) = self.unsynced.get_mut(&index) else {
            return;
        };
        history.push(self.stamp, read_sector(&self.buffer, index));
        if self.syncs_under_way == 0 {
            history.thin();
        }
        if history.is_durable() {
            self.unsynced.remove(&index);
        }
    }

    /// Notes the size after a change. Any change of the file gives a dropped size another chance.
    fn grow_to(&mut self, end: usize) {
        self.size = self.size.max(end);
        self.sizes.push(self.stamp, self.size);
        if self.syncs_under_way == 0 {
            self.sizes.thin();
        }
    }

    fn copy_of_buffer(&self, size: usize) -> Arc<SharedBuffer> {
        let buffer = SharedBuffer::zeroed(whole_sectors(size));
        // Cannot fail: both ranges are within their buffers, and nobody maps the copy yet.
        let _ = buffer.write(&self.bytes(0..self.data_end.min(size)), 0);
        Arc::new(buffer)
    }

    /// Bytes of the buffer, which must have them.
    fn bytes(&self, range: Range<usize>) -> Vec<u8> {
        let mut bytes = vec![0; range.len()];
        let _ = self.buffer.read(&mut bytes, range.start);
        bytes
    }

    /// Whether a block that was given back still is: its release may have been lost.
    fn is_hole(&self, block: usize) -> bool {
        let range = block * BLOCK_BYTES..(block + 1) * BLOCK_BYTES;
        range.end <= self.size && self.bytes(range).iter().all(|&byte| byte == 0)
    }
}

fn read_sector(buffer: &SharedBuffer, index: usize) -> Sector {
    let mut sector = Box::new([0; SECTOR_BYTES]);
    // Cannot fail for a sector of the buffer, whose length is a whole number of them.
    let _ = buffer.read(sector.as_mut_slice(), index * SECTOR_BYTES);
    sector
}

/// What the medium has of a sector: some version, or a mix of the last with an older one.
fn settle(history: &History<Sector>, fate: &mut Fate) -> Sector {
    let index = fate.version(history.len());
    let mut sector = history.get(index).cloned().unwrap_or_else(|| Box::new([0; SECTOR_BYTES]));
    let is_last = index + 1 == history.len();
    if is_last
        && let Some(tear) = fate.tear(index)
        && let Some(older) = history.get(tear.older_version)
    {
        let range = tear.older_bytes;
        if let (Some(torn), Some(older)) = (sector.get_mut(range.clone()), older.get(range)) {
            torn.copy_from_slice(older);
        }
    }
    sector
}

fn pick<T: PartialEq + Copy>(history: &History<T>, fate: &mut Fate) -> Option<T> {
    history.get(fate.version(history.len())).copied()
}

fn whole_sectors(len: usize) -> usize {
    len.checked_next_multiple_of(SECTOR_BYTES).unwrap_or(usize::MAX)
}

fn whole_blocks(range: &Range<usize>) -> Range<usize> {
    range.start.div_ceil(BLOCK_BYTES)..range.end / BLOCK_BYTES
}

fn touched_blocks(range: &Range<usize>) -> Range<usize> {
    range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lent_bytes_can_be_written_again_once_no_map_is_left() {
        let mut file = Contents::durable(&[1; 100]);
        let map = file.map(100).unwrap();
        file.buffer.lend(0..50);
        let refused = file.write(&[2; 10], 45, u64::MAX).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
        assert!(file.release(0..10).is_err());
        assert!(file.unsynced.is_empty());
        file.write(&[2; 10], 50, u64::MAX).unwrap();
        assert_eq!(map.bytes(44..51), Some(&[1, 1, 1, 1, 1, 1, 2][..]));
        drop(map);
        file.write(&[2; 10], 45, u64::MAX).unwrap();
    }

    #[test]
    fn releasing_what_was_never_written_notes_no_versions() {
        let mut file = Contents::durable(&[1; 100]);
        file.allocate(1 << 20, u64::MAX).unwrap();
        file.write(&[2; 100], (1 << 20) - 100, u64::MAX).unwrap();
        file.release(50..(1 << 20) - 50).unwrap();
        let unsynced: Vec<_> = file.unsynced.keys().copied().collect();
        assert_eq!(unsynced, [0, (1 << 20) / SECTOR_BYTES - 1], "the two sectors with data");
        assert_eq!(file.bytes(0..100), [[1; 50], [0; 50]].concat());
        assert_eq!(file.bytes((1 << 20) - 100..1 << 20), [[0; 50], [2; 50]].concat());
        assert_eq!(file.used_bytes(), 2 * BLOCK_BYTES);
    }

    #[test]
    fn a_write_that_does_not_fit_writes_what_does() {
        let bytes = vec![1; 20_000];
        let mut file = Contents::durable(&bytes[..10_000]);
        file.release(0..4096).unwrap();
        assert_eq!(file.used_bytes(), 10_000 - 4096);
        assert!(file.write(&bytes, 0, 4095).is_err()); // the hole does not fit
        assert_eq!(file.size(), 10_000);
        assert!(file.write(&bytes, 0, 4100).is_err());
        assert_eq!(file.size(), 10_004);
        assert!(file.write(&[2; 5], 20_000, 100).is_err()); // nor does the gap
        assert_eq!((file.size(), file.used_bytes()), (10_004, 10_004));
    }
}
