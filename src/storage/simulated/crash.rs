//! The two crashes, and how a seed decides what survives one.

use std::ops::Range;

use super::contents::SECTOR_BYTES;
use super::tree::InodeId;

/// Media store bytes in units of at least this size: inside of one, nothing tears.
const TEAR_BYTES: usize = 8;

/// What happened to the program, or to its machine.
///
/// ```
/// use anabranch::storage::{Crash, SimulatedDisk, Storage};
/// use std::path::Path;
///
/// let disk = SimulatedDisk::new();
/// disk.create_dir(Path::new("clicks"))?;
/// let killed = disk.fork(Crash::ProcessKilled);
/// assert_eq!(killed.list(Path::new("/"))?.len(), 1);
/// let unsynced_names = |seed| disk.fork(Crash::PowerLost { seed }).list(Path::new("/"));
/// assert!((0..100).any(|seed| unsynced_names(seed).is_ok_and(|names| names.is_empty())));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Crash {
    /// The process died (killed, panicked, out of memory) and the machine runs on: everything that
    /// was written is there. What was not synced still is not, so a later power loss may take it.
    ProcessKilled,
    /// The machine went down: what was synced is there, and of the rest whatever the seed decides.
    /// The same history and seed give the same state.
    PowerLost {
        /// Chooses the state. Any number is good; count up from 0 to see many states.
        seed: u64,
    },
}

/// What the seed of a power loss decides for each file and directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fates {
    seed: u64,
    /// Some seeds keep everything, some only what was synced: the ends of the scale would else be
    /// rare on a disk of many files.
    common: Option<Share>,
}

impl Fates {
    pub(super) fn new(seed: u64) -> Self {
        let common = match Random::new(seed).below(8) {
            0 => Some(Share::All),
            1 => Some(Share::None),
            _ => None,
        };
        Self { seed, common }
    }

    /// The fate of a file. Its size and its sectors are persisted on their own.
    pub(super) fn of_file(self, inode: InodeId) -> FileFate {
        FileFate { size: self.draw(inode, 0), sectors: self.draw(inode, 1) }
    }

    /// The fate of a directory's unsynced changes.
    pub(super) fn of_directory(self, inode: InodeId) -> Fate {
        self.draw(inode, 2)
    }

    /// Each fate has random numbers of its own, so that a change to one file's history leaves the
    /// rest of a state as it was.
    fn draw(self, inode: InodeId, aspect: u64) -> Fate {
        let stream = Random::new(inode.wrapping_mul(4).wrapping_add(aspect)).next();
        let mut random = Random::new(self.seed ^ stream);
        let share = match random.below(4) {
            0 => Share::All,
            1 => Share::None,
            _ => Share::Of256(1 + random.below(255)),
        };
        Fate { random, share: self.common.unwrap_or(share) }
    }
}

/// The fate of a file.
#[derive(Debug)]
pub(super) struct FileFate {
    pub(super) size: Fate,
    pub(super) sectors: Fate,
}

/// How much of what was not synced survives.
#[derive(Debug, Clone, Copy)]
enum Share {
    None,
    All,
    Of256(usize),
}

/// Decides over the changes of one kind to one file or directory.
#[derive(Debug)]
pub(super) struct Fate {
    random: Random,
    share: Share,
}

impl Fate {
    /// Whether one change survives.
    pub(super) fn keeps(&mut self) -> bool {
        match self.share {
            Share::None => false,
            Share::All => true,
            Share::Of256(kept) => self.random.below(256) < kept,
        }
    }

    /// Which of `count` versions survives; the first is the durable one.
    pub(super) fn version(&mut self, count: usize) -> usize {
        let last = count.saturating_sub(1);
        if self.keeps() {
            return last;
        }
        match self.share {
            Share::Of256(_) => self.random.below(last),
            Share::None | Share::All => 0,
        }
    }

    /// Whether and how the last of a sector's versions is torn; `last` is its index.
    pub(super) fn tear(&mut self, last: usize) -> Option<Tear> {
        if !matches!(self.share, Share::Of256(_)) || last == 0 || self.random.below(4) != 0 {
            return None;
        }
        let older_version = self.random.below(last);
        let cut = TEAR_BYTES * (1 + self.random.below(SECTOR_BYTES / TEAR_BYTES - 1));
        let older_bytes = match self.random.below(2) {
            0 => 0..cut,
            _ => cut..SECTOR_BYTES,
        };
        Some(Tear { older_version, older_bytes })
    }
}

/// A sector that was caught while it was stored: partly of an older version.
#[derive(Debug)]
pub(super) struct Tear {
    pub(super) older_version: usize,
    pub(super) older_bytes: Range<usize>,
}

/// `SplitMix64`: small, and good enough from any seed.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, or zero if that is zero.
    fn below(&mut self, bound: usize) -> usize {
        let wide = u128::from(self.next()) * bound as u128;
        usize::try_from(wide >> 64).unwrap_or(0)
    }
}
