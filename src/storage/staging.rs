//! A file mapped for writing, lent out in slots that have one writer each.
#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::StorageFile;
use super::contained::contained;
use super::simulated::SimulatedFile;
use crate::sync::Mutex;

/// Memory that survives the death of the process, though not of the machine: a file, all of whose room is reserved, mapped shared, in
/// slots of equal length.
///
/// What was stored is in the kernel's page cache when the store is done, without a call. The file is there to be read by the next program; nobody
/// else reads or writes it meanwhile, and it is never synced.
#[derive(Clone)]
pub struct Staging {
    inner: Arc<Inner>,
}

/// How many slots of which length a [`Staging`] file has at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StagingLayout {
    /// The length of a slot, in bytes.
    pub slot_bytes: usize,
    /// Most slots.
    pub slots: usize,
}

impl StagingLayout {
    pub(super) fn bytes(self) -> io::Result<usize> {
        let bytes = self.slot_bytes.checked_mul(self.slots).filter(|bytes| *bytes > 0);
        bytes.ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }
}

struct Inner {
    file: Arc<dyn StorageFile>,
    memory: Memory,
    layout: StagingLayout,
    state: Mutex<State>,
}

enum Memory {
    /// Address space for all slots; those behind the end of the file are never touched.
    Mapped(memmap2::MmapRaw),
    Simulated(Arc<SimulatedFile>),
}

#[derive(Default)]
struct State {
    /// Slots below this one have their room reserved.
    made: usize,
    /// Those of them that nobody has.
    free: Vec<usize>,
}

impl Staging {
    /// Stages in a new file of the disk, of which as much is mapped as the layout says.
    pub(super) fn of_file(file: Arc<dyn StorageFile>, pages: memmap2::MmapRaw, layout: StagingLayout) -> Self {
        Self { inner: Arc::new(Inner { file, memory: Memory::Mapped(pages), layout, state: Mutex::default() }) }
    }

    /// Stages in a new file of a simulated disk.
    pub(super) fn of_simulated(file: Arc<SimulatedFile>, layout: StagingLayout) -> Self {
        let memory = Memory::Simulated(Arc::clone(&file));
        Self { inner: Arc::new(Inner { file, memory, layout, state: Mutex::default() }) }
    }

    /// Lends a slot that nobody has, with its room reserved; nothing if all are lent.
    pub fn lend(&self) -> io::Result<Option<StagingSlot>> {
        let inner = &self.inner;
        let mut state = inner.state.lock();
        let index = match state.free.pop() {
            Some(index) => index,
            None if state.made < inner.layout.slots => {
                // Running out of room is an error here. Without it, a store would be a signal.
                let bytes = ((state.made + 1) * inner.layout.slot_bytes) as u64;
                contained(|| inner.file.allocate(bytes))?;
                state.made += 1;
                state.made - 1
            }
            None => return Ok(None),
        };
        drop(state);
        Ok(Some(StagingSlot { memory: inner.memory_of(index), inner: Arc::clone(inner), index, is_kept: false }))
    }
}

impl Inner {
    fn memory_of(&self, index: usize) -> SlotMemory {
        match &self.memory {
            Memory::Mapped(pages) => {
                // SAFETY: the slot lies within the map, whose length is that of all slots, and its index is below their number.
                SlotMemory::Mapped(unsafe { pages.as_mut_ptr().add(index * self.layout.slot_bytes) })
            }
            Memory::Simulated(_) => SlotMemory::Simulated(vec![0; self.layout.slot_bytes].into_boxed_slice()),
        }
    }
}

/// A lent slot of a [`Staging`] file: its holder alone stores there, until it is dropped.
pub struct StagingSlot {
    inner: Arc<Inner>,
    index: usize,
    memory: SlotMemory,
    /// Nobody gets it after this holder.
    is_kept: bool,
}

enum SlotMemory {
    /// The slot's first byte; the map it points into lives as long as `inner`.
    Mapped(*mut u8),
    /// What is to be stored; the simulated file gets it by [`StagingSlot::stored`].
    Simulated(Box<[u8]>),
}

// SAFETY: the slot's piece of the map belongs to this value alone, so that it can be sent as a `Box<[u8]>` can.
unsafe impl Send for StagingSlot {}
// SAFETY: through a shared reference it can only be read.
unsafe impl Sync for StagingSlot {}

impl StagingSlot {
    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.inner.layout.slot_bytes
    }

    /// Never: a layout has no empty slots.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What was stored.
    pub fn bytes(&self) -> &[u8] {
        match &self.memory {
            // SAFETY: the slot is within a live map and within the reserved file, so the memory is there; it is lent to this
            // value alone, whose exclusive borrow is needed to store, and no other program stores in the file of
            // a live stream (as for every map, that is its user's to keep).
            SlotMemory::Mapped(start) => unsafe { std::slice::from_raw_parts(start.cast_const(), self.len()) },
            SlotMemory::Simulated(bytes) => bytes,
        }
    }

    /// The place to store in. What was stored is told with [`stored`](Self::stored).
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let len = self.len();
        match &mut self.memory {
            // SAFETY: as in `bytes`; the exclusive borrow of the only holder makes this the only reference.
            SlotMemory::Mapped(start) => unsafe { std::slice::from_raw_parts_mut(*start, len) },
            SlotMemory::Simulated(bytes) => bytes,
        }
    }

    /// Ends the loan and leaves what is in the slot for the next program: nobody else gets it in this one.
    pub fn keep(mut self) {
        self.is_kept = true;
    }

    /// The bytes of this range were stored, after all that was told before: from now on they survive the death of the process. On a real
    /// disk that needs no call and cannot fail; a simulated one can lose its power here.
    #[inline]
    pub fn stored(&self, range: Range<usize>) -> io::Result<()> {
        if let (Memory::Simulated(file), Some(bytes)) = (&self.inner.memory, self.bytes().get(range.clone())) {
            return file.stage(bytes, self.index * self.len() + range.start);
        }
        // A killed process has done its stores up to some instruction, in the order of the program: it is the compiler
        // that must not move these behind the acknowledgement.
        std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
        Ok(())
    }
}

impl Drop for StagingSlot {
    fn drop(&mut self) {
        if !self.is_kept {
            self.inner.state.lock().free.push(self.index);
        }
    }
}

impl fmt::Debug for Staging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Staging").field("layout", &self.inner.layout).finish_non_exhaustive()
    }
}

impl fmt::Debug for StagingSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StagingSlot").field("index", &self.index).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::storage::{Access, Disk, SimulatedDisk, Storage};

    #[test]
    fn what_is_stored_is_in_the_file_and_a_slot_has_one_holder() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("STAGING");
        let disks: [(&dyn Storage, &Path); 2] = [(&Disk, &path), (&SimulatedDisk::new(), Path::new("STAGING"))];
        for (disk, path) in disks {
            let layout = StagingLayout { slot_bytes: 1024, slots: 2 };
            let Some(staging) = disk.create_staging(path, layout).unwrap() else {
                continue; // a file system that is not trusted with it
            };
            let first = staging.lend().unwrap().unwrap();
            let mut second = staging.lend().unwrap().unwrap();
            assert!(staging.lend().unwrap().is_none());
            assert_eq!((second.len(), second.bytes()), (1024, &[0; 1024][..]));
            assert!(!second.is_empty());
            assert!(format!("{staging:?} {second:?}").contains("index: 1"));
            second.bytes_mut()[100..104].copy_from_slice(b"here");
            second.stored(100..104).unwrap();
            let file = disk.open_file(path, Access::Read).unwrap();
            let mut found = [0; 4];
            assert_eq!(file.read_at(&mut found, 1124).unwrap(), 4);
            assert_eq!(&found, b"here");
            drop(first);
            let mut again = staging.lend().unwrap().unwrap();
            assert_eq!(again.bytes()[100..104], [0; 4], "not the other's");
            again.bytes_mut().fill(1);
            again.stored(0..1024).unwrap();
            assert_eq!(second.bytes()[100..105], *b"here\0");
            again.keep();
            assert!(staging.lend().unwrap().is_none());
            assert!(disk.create_staging(path, layout).is_err(), "it is there");
            assert!(format!("{staging:?}").contains("1024"));
        }
    }

    #[test]
    fn a_slot_without_room_is_an_error_and_no_slot() {
        let disk = SimulatedDisk::new();
        let layout = StagingLayout { slot_bytes: 1024, slots: 2 };
        let staging = disk.create_staging(Path::new("STAGING"), layout).unwrap().unwrap();
        disk.set_capacity(Some(1024));
        let _slot = staging.lend().unwrap().unwrap();
        assert_eq!(staging.lend().unwrap_err().kind(), io::ErrorKind::StorageFull);
        disk.set_capacity(None);
        assert!(staging.lend().unwrap().is_some());
    }

    #[test]
    fn a_layout_has_bytes() {
        let bytes = |slot_bytes, slots| StagingLayout { slot_bytes, slots }.bytes().ok();
        assert_eq!(bytes(1024, 3), Some(3072));
        assert_eq!([bytes(0, 3), bytes(1024, 0), bytes(usize::MAX, 2)], [None; 3]);
    }
}
