//! The engines compared, each behind the same few operations.

mod anabranch;
mod bare;
mod commitlog;
mod fjall;
mod heed;
mod nano_wal;
mod okaywal;
mod raft_engine;
mod redb;
#[cfg(feature = "rocksdb")]
mod rocksdb;
mod seglog;
mod walrus;

use std::path::Path;

use crate::Result;

pub(crate) use anabranch::Anabranch;
pub(crate) use bare::{Futex, cpu_time, kill_self};

/// What an append survives once it has returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Survives {
    /// It waits in a buffer of the process.
    Nothing,
    /// It is in the kernel's page cache.
    Kill,
    /// It is on the disk.
    PowerCut,
}

impl Survives {
    pub(crate) const ALL: [Self; 3] = [Self::Nothing, Self::Kill, Self::PowerCut];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Kill => "kill -9",
            Self::PowerCut => "power cut",
        }
    }
}

/// What an engine can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Can {
    /// Appends of one record.
    Append,
    /// Appends of many records in one call.
    Batch,
    /// Appends from many threads to one log without a lock around it.
    Threads,
    /// Several logs, over which the records are spread.
    Shards,
    /// Reading on from a record, again and again.
    Scan,
    /// Reading a record by its number.
    Get,
    /// Reading what was just appended, beside the writer.
    Tail,
    /// Waking a thread that waits for what comes.
    Park,
    /// Being opened again with everything it survived.
    Reopen,
}

/// Who an engine is in the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Ours,
    Peer,
    /// The same system calls with nothing around them: the floor.
    Bare,
}

/// An engine that can be opened.
pub(crate) struct Entrant {
    pub(crate) name: &'static str,
    pub(crate) role: Role,
    /// Its crate, whose version `Cargo.lock` knows.
    pub(crate) package: &'static str,
    /// What it is made to survive, and how.
    pub(crate) levels: &'static [(Survives, &'static str)],
    pub(crate) can: &'static [Can],
    pub(crate) open: fn(&Setup<'_>) -> Result<Box<dyn Engine>>,
}

impl Entrant {
    pub(crate) fn survives(&self, level: Survives) -> bool {
        self.levels.iter().any(|(survives, _)| *survives == level)
    }

    pub(crate) fn can(&self, what: Can) -> bool {
        self.can.contains(&what)
    }

    /// The weakest level of its own that still survives `kill -9`, or else the strongest: how it is filled to be read.
    pub(crate) fn easiest(&self) -> Survives {
        let levels = || self.levels.iter().map(|(survives, _)| *survives);
        levels().filter(|level| *level >= Survives::Kill).min().or(levels().max()).unwrap_or(Survives::Nothing)
    }

    /// Its version; none for ours and the bare probes.
    pub(crate) fn version(&self) -> Option<&'static str> {
        let lock = include_str!("../../Cargo.lock");
        let (_, entry) = lock.split_once(&format!("name = \"{}\"\nversion = \"", self.package))?;
        entry.split('"').next()
    }
}

/// How an engine is opened.
#[derive(Debug)]
pub(crate) struct Setup<'a> {
    /// A directory of its own.
    pub(crate) dir: &'a Path,
    pub(crate) survives: Survives,
    pub(crate) record_bytes: usize,
    /// At most how many bytes of records will be appended.
    pub(crate) volume_bytes: u64,
    /// More than one only where an engine [can](Can::Shards).
    pub(crate) shards: u32,
    /// Whether ours flushes in the background, as it does by default.
    pub(crate) flushes: bool,
}

/// A log. Records are numbered from 0 in the order of their appends.
pub(crate) trait Engine: Send + Sync {
    fn append(&self, data: &[u8]) -> Result<()>;

    /// Several records, in one call where there is one ([`Can::Batch`]).
    fn append_batch(&self, batch: &[&[u8]]) -> Result<()> {
        batch.iter().try_for_each(|data| self.append(data))
    }

    /// Visits every record from this number to the end ([`Can::Scan`], [`Can::Tail`]).
    fn scan(&self, from: u64, visit: &mut dyn FnMut(&[u8])) -> Result<()> {
        let (_, _) = (from, visit);
        Err("no scan".into())
    }

    /// Visits one record ([`Can::Get`]).
    fn get(&self, number: u64, visit: &mut dyn FnMut(&[u8])) -> Result<()> {
        let (_, _) = (number, visit);
        Err("no point reads".into())
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// All engines, in the order of the tables' rows.
pub(crate) const ENTRANTS: &[Entrant] = &[
    anabranch::ENTRANT,
    seglog::ENTRANT,
    commitlog::ENTRANT,
    nano_wal::ENTRANT,
    okaywal::ENTRANT,
    walrus::MAP,
    walrus::FILE,
    raft_engine::ENTRANT,
    fjall::ENTRANT,
    redb::ENTRANT,
    heed::ENTRANT,
    #[cfg(feature = "rocksdb")]
    rocksdb::ENTRANT,
    bare::STAGING,
    bare::WRITE,
    bare::MAP,
    bare::MAP_UNCHECKED,
    bare::GROUP_FUTEX,
    bare::GROUP_YIELD,
    bare::FUTEX,
];

pub(crate) fn entrant(name: &str) -> Result<&'static Entrant> {
    ENTRANTS.iter().find(|entrant| entrant.name == name).ok_or_else(|| format!("no engine {name}").into())
}

/// A record's number as the key of an ordered map of bytes.
#[expect(clippy::big_endian_bytes, reason = "keys that sort as their numbers do")]
fn key(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}
