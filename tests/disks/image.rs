//! The bytes of a disk, cheap to copy; and the states that a power cut can leave of one.

use std::collections::HashMap;
use std::sync::Arc;

const PAGE: usize = 4096;

/// The bytes of a disk: pages that were never written are zeros.
#[derive(Clone, Default)]
pub(crate) struct Image(HashMap<u64, Arc<[u8; PAGE]>>);

impl Image {
    pub(crate) fn write(&mut self, mut offset: u64, mut data: &[u8]) {
        while !data.is_empty() {
            let start = usize::try_from(offset % PAGE as u64).unwrap();
            let (piece, rest) = data.split_at(data.len().min(PAGE - start));
            let page = self.0.entry(offset / PAGE as u64).or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[start..start + piece.len()].copy_from_slice(piece);
            offset += piece.len() as u64;
            data = rest;
        }
    }

    pub(crate) fn read(&self, mut offset: u64, mut into: &mut [u8]) {
        while !into.is_empty() {
            let start = usize::try_from(offset % PAGE as u64).unwrap();
            let (piece, rest) = into.split_at_mut(into.len().min(PAGE - start));
            match self.0.get(&(offset / PAGE as u64)) {
                Some(page) => piece.copy_from_slice(&page[start..start + piece.len()]),
                None => piece.fill(0),
            }
            offset += piece.len() as u64;
            into = rest;
        }
    }
}

/// What happened to a disk, in order.
pub(crate) enum Event {
    Write {
        offset: u64,
        data: Vec<u8>,
    },
    /// Everything written before is durable.
    Flush,
    /// What the workload said had happened by now.
    Mark(String),
}

/// How much of what was written since the last flush a power cut leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    Nothing,
    Everything,
    /// Some of the sectors, which are of this many bytes.
    Sectors(usize),
}

/// A power cut before `events[at]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    pub(crate) at: usize,
    pub(crate) rest: Rest,
}

impl Cut {
    /// What is on the disk after it.
    pub(crate) fn state(self, before: &Image, events: &[Event], random: &mut Random) -> Image {
        let events = &events[..self.at];
        let flushed = events.iter().rposition(|event| matches!(event, Event::Flush)).unwrap_or(0);
        let mut image = before.clone();
        for (index, event) in events.iter().enumerate() {
            let Event::Write { offset, data } = event else { continue };
            if index < flushed || self.rest == Rest::Everything {
                image.write(*offset, data);
            } else if let Rest::Sectors(bytes) = self.rest {
                for (number, sector) in data.chunks(bytes).enumerate() {
                    if random.below(2) == 0 {
                        image.write(offset + (number * bytes) as u64, sector);
                    }
                }
            }
        }
        image
    }
}

/// `SplitMix64`: the same numbers for the same seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap()
    }
}
