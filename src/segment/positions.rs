//! Where the frames of a growing segment start: one writer, any number of readers, no lock.

use crate::format::FRAME_HEADER_BYTES;
use crate::sync::OnceLock;
use crate::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Records of one chunk: small, since most shards are idle.
const CHUNK: usize = 512;

/// The positions of the frames, in units of 8 bytes, in chunks that never move. A record costs its writer two plain stores.
#[derive(Debug)]
pub(super) struct Positions {
    chunks: Box<[OnceLock<Box<[AtomicU32]>>]>,
    len: AtomicUsize,
}

impl Positions {
    /// Room for as many frames as a file of this length can hold.
    pub(super) fn of_file(file_bytes: u64) -> Self {
        let records = usize::try_from(file_bytes).unwrap_or(usize::MAX) / FRAME_HEADER_BYTES;
        let chunks = (0..records.div_ceil(CHUNK)).map(|_| OnceLock::new()).collect();
        Self { chunks, len: AtomicUsize::new(0) }
    }

    /// Adds a position behind the others. Called by one thread at a time.
    pub(super) fn push(&self, position: u64) {
        let place = self.len.load(Ordering::Relaxed);
        let Some(chunk) = self.chunks.get(place / CHUNK) else {
            return; // more frames than bytes for them: the caller made sure that there is room
        };
        let chunk = chunk.get_or_init(|| (0..CHUNK).map(|_| AtomicU32::new(0)).collect());
        if let Some(slot) = chunk.get(place % CHUNK) {
            // Files are below 32 GiB.
            slot.store(u32::try_from(position / 8).unwrap_or(u32::MAX), Ordering::Relaxed);
        }
        self.len.store(place + 1, Ordering::Release);
    }

    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// The position with this index, in units of 8 bytes.
    pub(super) fn get(&self, place: usize) -> Option<u32> {
        if place >= self.len() {
            return None;
        }
        let chunk = self.chunks.get(place / CHUNK)?.get()?;
        chunk.get(place % CHUNK).map(|slot| slot.load(Ordering::Relaxed))
    }

    /// All positions, as the index of a sealed segment has them.
    pub(super) fn encode(&self) -> Vec<u8> {
        let records = self.len();
        let mut index = Vec::with_capacity(crate::format::index_bytes(records));
        let slots = self.chunks.iter().map_while(OnceLock::get).flat_map(|chunk| chunk.iter());
        for slot in slots.take(records) {
            index.extend_from_slice(&slot.load(Ordering::Relaxed).to_le_bytes());
        }
        index.resize(crate::format::index_bytes(records), 0);
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_stay_as_they_were_added() {
        let count = 3 * CHUNK + 1;
        let positions = Positions::of_file((count * FRAME_HEADER_BYTES) as u64);
        assert_eq!((positions.len(), positions.get(0)), (0, None));
        assert!(positions.encode().is_empty());
        for place in 0..count {
            positions.push(128 + 48 * place as u64);
            assert_eq!(positions.len(), place + 1);
        }
        for place in [0, 1, CHUNK - 1, CHUNK, 2 * CHUNK, count - 1] {
            assert_eq!(positions.get(place), Some(u32::try_from(16 + 6 * place).unwrap()));
        }
        assert_eq!(positions.get(count), None);
        let index = positions.encode();
        assert_eq!(index.len(), crate::format::index_bytes(count));
        let numbers: Vec<_> = index.chunks(4).map(|four| u32::from_le_bytes(four.try_into().unwrap())).collect();
        assert_eq!(numbers[count - 1], u32::try_from(16 + 6 * (count - 1)).unwrap());
        assert_eq!(numbers[count..], [0], "padding to a multiple of 8 bytes");
    }

    #[test]
    fn there_are_chunks_for_a_file_of_frames_and_no_more() {
        let chunks = |records: usize| Positions::of_file((records * FRAME_HEADER_BYTES) as u64).chunks.len();
        assert_eq!([0, 1, CHUNK, CHUNK + 1].map(chunks), [0, 1, 1, 2]);
    }
}
