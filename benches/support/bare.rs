//! The rival of the read path: a stream's own segments, mapped, and nothing else around them.
#![allow(unsafe_code, reason = "memory maps")]

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use super::sum;

const HEADER_BYTES: usize = 128;
const FRAME_HEADER_BYTES: usize = 40;
const FOOTER_BYTES: usize = 128;

/// The maps of the sealed segments of shard 0, and where each record's frame starts in which of them.
pub(crate) struct BareMaps {
    maps: Vec<BareMap>,
    index: Vec<(u32, u32)>,
}

struct BareMap {
    map: Mmap,
    seed: u32,
    /// Where the frames end.
    end: usize,
}

impl BareMaps {
    /// Of a stream that was closed.
    pub(crate) fn open(stream: &Path) -> Self {
        let directory = stream.join("shards").join(format!("{:012}", 0));
        let mut paths: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let maps: Vec<_> = paths.iter().map(|path| BareMap::open(path)).collect();
        let mut index = Vec::new();
        for (number, map) in (0..).zip(&maps) {
            map.for_each(|position, _| index.push((number, u32::try_from(position / 8).unwrap())));
        }
        Self { maps, index }
    }

    /// Reads every record, with or without its checksum: how many there are, and the sum of their keys and data.
    pub(crate) fn scan(&self, checked: bool) -> (u64, u64) {
        let mut found = (0, 0);
        for map in &self.maps {
            map.for_each(|_, frame| {
                found.0 += 1;
                found.1 += map.read(frame, checked);
            });
        }
        found
    }

    /// The sum of one record's key and data, its checksum verified.
    pub(crate) fn get(&self, number: u64) -> u64 {
        let (map, units) = self.index[usize::try_from(number).unwrap()];
        let map = &self.maps[map as usize];
        map.read(map.frame(units as usize * 8), true)
    }
}

impl BareMap {
    fn open(path: &Path) -> Self {
        // SAFETY: nobody changes the segments of a stream that was closed.
        let map = unsafe { Mmap::map(&File::open(path).unwrap()) }.unwrap();
        let mut seed = crc32fast::Hasher::new();
        seed.update(&map[16..36]); // stream, shard
        seed.update(&map[40..56]); // incarnation, first sequence number
        let footer = &map[map.len() - FOOTER_BYTES..];
        let end = usize::try_from(u64::from_le_bytes(footer[32..40].try_into().unwrap())).unwrap();
        Self { seed: seed.finalize(), end, map }
    }

    fn for_each(&self, mut visit: impl FnMut(usize, &[u8])) {
        let mut position = HEADER_BYTES;
        while position < self.end {
            let frame = self.frame(position);
            visit(position, frame);
            position += frame.len();
        }
    }

    fn frame(&self, position: usize) -> &[u8] {
        let length = u32_at(&self.map[position..], 4) as usize;
        &self.map[position..position + length.next_multiple_of(8)]
    }

    fn read(&self, frame: &[u8], checked: bool) -> u64 {
        if checked {
            let mut hasher = crc32fast::Hasher::new_with_initial(self.seed);
            hasher.update(&frame[4..]);
            assert_eq!(hasher.finalize(), u32_at(frame, 0));
        }
        let key_bytes = usize::from(u16::from_le_bytes(frame[36..38].try_into().unwrap()));
        let (key, data) = frame[FRAME_HEADER_BYTES..u32_at(frame, 4) as usize].split_at(key_bytes);
        sum(key) + sum(data)
    }
}

fn u32_at(bytes: &[u8], position: usize) -> u32 {
    u32::from_le_bytes(bytes[position..position + 4].try_into().unwrap())
}
