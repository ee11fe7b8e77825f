//! Read-only views of files: the crate's only unsafe code lives here and in the simulated disk's buffer.
#![allow(unsafe_code)]

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::simulated::SharedBuffer;

/// A read-only view of a file's first bytes, shared by all clones. It sees later writes to the file.
#[derive(Clone)]
pub struct Map {
    /// Where the view starts; valid for `len` bytes for as long as `owner` lives.
    start: *const u8,
    len: usize,
    owner: Owner,
}

#[derive(Clone)]
enum Owner {
    Mapped(
        #[cfg_attr(not(unix), allow(dead_code, reason = "held to keep the pages mapped"))] Arc<memmap2::MmapRaw>,
    ),
    Simulated(Arc<SharedBuffer>),
}

// SAFETY: the pointer is to memory that `owner` keeps alive and never moves, and this type only reads
// through it, under the protocol stated in `bytes`.
unsafe impl Send for Map {}
// SAFETY: as above; reads from several threads do not conflict.
unsafe impl Sync for Map {}

impl Map {
    /// Maps the first `len` bytes of an open file, which must be that long.
    pub(super) fn of_file(file: &File, len: usize) -> io::Result<Self> {
        let pages = memmap2::MmapOptions::new().len(len).map_raw_read_only(file)?;
        Ok(Self { start: pages.as_ptr(), len, owner: Owner::Mapped(Arc::new(pages)) })
    }

    /// Views the first `len` bytes of a simulated file; nothing if it is shorter.
    pub(super) fn of_buffer(buffer: Arc<SharedBuffer>, len: usize) -> Option<Self> {
        (len <= buffer.len()).then(|| Self { start: buffer.as_ptr(), len, owner: Owner::Simulated(buffer) })
    }

    /// The length of the view in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the view has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Tells the system that the view is going to be read from front to back, so that it reads ahead and far. A hint.
    pub(crate) fn expect_a_scan(&self) {
        #[cfg(unix)]
        if let Owner::Mapped(pages) = &self.owner {
            let _ = pages.advise(memmap2::Advice::Sequential);
        }
    }

    /// Borrows a range of the view; nothing if it reaches past its end.
    ///
    /// Only ask for **published** bytes: bytes that are written and will never be written again (see
    /// the [module](self)'s protocol). Every caller in this crate takes the end of the range from a
    /// segment's published end.
    pub(crate) fn bytes(&self, range: Range<usize>) -> Option<&[u8]> {
        if range.start > range.end || range.end > self.len {
            return None;
        }
        if let Owner::Simulated(buffer) = &self.owner {
            buffer.lend(range.clone()); // from now on the simulated disk refuses to write there
        }
        // SAFETY: the range lies in the view, whose memory the owner keeps alive and in place for
        // at least as long as the borrow. Published bytes are not written while borrowed: segments are only
        // appended to behind their published end, and mapped files are never shortened. For bytes
        // changed by another program the crate's documentation makes the user answer, as every map does.
        Some(unsafe { std::slice::from_raw_parts(self.start.add(range.start), range.end - range.start) })
    }
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map").field("len", &self.len).finish_non_exhaustive()
    }
}
