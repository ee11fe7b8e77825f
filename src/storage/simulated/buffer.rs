//! The memory of one simulated file: a block that never moves, so that maps can point into it.
#![allow(unsafe_code)]

use std::alloc::{self, Layout};
use std::fmt;
use std::io;
use std::ops::Range;
use std::ptr::NonNull;

use crate::sync::Mutex;

/// A fixed number of bytes at a fixed address, zero at first.
///
/// All copies in and out go through [`read`](Self::read), [`write`](Self::write) and
/// [`zero`](Self::zero), which exclude each other. A map reads behind their back, and so may only
/// borrow bytes that are not written any more; those it announces with [`lend`](Self::lend) are
/// refused to writers.
pub(in crate::storage) struct SharedBuffer {
    start: NonNull<u8>,
    len: usize,
    /// The hull of what maps have borrowed. Locked during every copy.
    lent: Mutex<Range<usize>>,
}

// SAFETY: the block belongs to this value alone, and every access through `&self` holds `lent`.
unsafe impl Send for SharedBuffer {}
// SAFETY: as above.
unsafe impl Sync for SharedBuffer {}

impl SharedBuffer {
    /// A block of zeros; ends the process if there is no memory, as collections do.
    pub(super) fn zeroed(len: usize) -> Self {
        Self::try_zeroed(len).unwrap_or_else(|_| match Layout::array::<u8>(len) {
            Ok(layout) => alloc::handle_alloc_error(layout),
            Err(_) => alloc::handle_alloc_error(Layout::new::<u8>()),
        })
    }

    /// A block of zeros, or an error if there is no memory for it.
    pub(super) fn try_zeroed(len: usize) -> io::Result<Self> {
        let layout = Layout::array::<u8>(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let start = if len == 0 {
            NonNull::dangling()
        } else {
            // SAFETY: the layout's size is `len`, which is not zero.
            NonNull::new(unsafe { alloc::alloc_zeroed(layout) }).ok_or(io::ErrorKind::OutOfMemory)?
        };
        Ok(Self { start, len, lent: Mutex::new(0..0) })
    }

    pub(in crate::storage) fn len(&self) -> usize {
        self.len
    }

    pub(in crate::storage) fn as_ptr(&self) -> *const u8 {
        self.start.as_ptr()
    }

    /// Announces that a map borrows these bytes: from now on writing to them fails.
    #[cfg_attr(
        not(test),
        allow(dead_code, reason = "a map that does not announce keeps to the protocol unchecked")
    )]
    pub(in crate::storage) fn lend(&self, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        let mut lent = self.lent.lock();
        *lent = if lent.is_empty() { range } else { lent.start.min(range.start)..lent.end.max(range.end) };
    }

    /// Forgets what was lent. The exclusive borrow proves that no map is left.
    pub(super) fn reclaim(&mut self) {
        *self.lent.get_mut() = 0..0;
    }

    /// Fills `bytes` from `position`, which must leave room for them.
    pub(super) fn read(&self, bytes: &mut [u8], position: usize) -> io::Result<()> {
        self.check(position, bytes.len())?;
        let _copying = self.lent.lock();
        // SAFETY: `check` found the range inside the block. `bytes` is not part of it, since nobody
        // has a mutable borrow of the block; writers are kept out by the lock.
        unsafe {
            bytes.as_mut_ptr().copy_from_nonoverlapping(self.start.as_ptr().add(position), bytes.len());
        }
        Ok(())
    }

    /// Stores `bytes` at `position`, which must leave room for them and not be lent.
    pub(super) fn write(&self, bytes: &[u8], position: usize) -> io::Result<()> {
        self.check(position, bytes.len())?;
        let lent = self.lent.lock();
        refuse_lent(&lent, &(position..position + bytes.len()))?;
        // SAFETY: `check` found the range inside the block. Other copies are kept out by the lock. A
        // map borrows only published bytes, which its users never have written again; `bytes` itself
        // may be such a borrow, and then lies elsewhere.
        unsafe {
            self.start.as_ptr().add(position).copy_from(bytes.as_ptr(), bytes.len());
        }
        Ok(())
    }

    /// Stores zeros in a range, which must not be lent.
    pub(super) fn zero(&self, range: Range<usize>) -> io::Result<()> {
        self.check(range.start, range.len())?;
        let lent = self.lent.lock();
        refuse_lent(&lent, &range)?;
        // SAFETY: as in `write`.
        unsafe {
            self.start.as_ptr().add(range.start).write_bytes(0, range.len());
        }
        Ok(())
    }

    fn check(&self, position: usize, len: usize) -> io::Result<()> {
        match position.checked_add(len) {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn refuse_lent(lent: &Range<usize>, range: &Range<usize>) -> io::Result<()> {
    if range.start < lent.end && lent.start < range.end {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the bytes are borrowed from a map and must not be written again",
        ));
    }
    Ok(())
}

impl Drop for SharedBuffer {
    fn drop(&mut self) {
        if let Ok(layout) = Layout::array::<u8>(self.len)
            && self.len != 0
        {
            // SAFETY: the block was allocated with this layout and is freed once, here.
            unsafe { alloc::dealloc(self.start.as_ptr(), layout) };
        }
    }
}

impl fmt::Debug for SharedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedBuffer").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_stay_inside_the_block() {
        let buffer = SharedBuffer::zeroed(16);
        buffer.write(b"abcd", 12).unwrap();
        let mut bytes = [1; 6];
        buffer.read(&mut bytes, 10).unwrap();
        assert_eq!(&bytes, b"\0\0abcd");
        assert!(buffer.write(b"abcd", 13).is_err());
        assert!(buffer.read(&mut bytes, usize::MAX).is_err());
        assert!(buffer.zero(15..17).is_err());
        assert!(SharedBuffer::try_zeroed(usize::MAX).is_err());
        assert_eq!(SharedBuffer::zeroed(0).len(), 0);
    }

    #[test]
    fn lent_bytes_are_not_written() {
        let mut buffer = SharedBuffer::zeroed(64);
        buffer.lend(8..16);
        buffer.lend(20..20);
        assert!(buffer.write(b"x", 15).is_err());
        assert!(buffer.zero(0..9).is_err());
        buffer.write(b"before", 2).unwrap();
        buffer.write(b"behind", 16).unwrap();
        buffer.reclaim();
        buffer.write(b"x", 15).unwrap();
    }
}
