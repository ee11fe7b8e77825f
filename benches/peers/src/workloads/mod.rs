//! What the engines are put through.

mod durable;
mod open;
mod read;
mod readers;
mod shards;
mod tail;
mod write;

use crate::Result;
use crate::cell::{Figures, Run};
use crate::engines::{Can, Entrant, Role, Survives};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Workload {
    /// One record a call, one thread. Also what memory, disk and processor time it takes.
    Write,
    /// 100 records a call, one thread.
    Batch,
    /// One record a call, several threads.
    Threads,
    /// One record a call, several threads, on the disk before it returns.
    Durable,
    /// Everything once in order, then records by their numbers, at random.
    Read,
    /// From the start of an append until a spinning reader has the record.
    Tail,
    /// The same until a sleeping reader has it.
    Park,
    /// How long single appends take.
    Latency,
    /// Opening a big log, after a kill and after a close.
    Open,
    /// Part of `Open`: fills the log and dies.
    Fill,
    /// Part of `Open`: opens it, and closes it.
    Reopen,
    /// Ten thousand shards.
    Shards,
    /// One writer, several tailing readers.
    Readers,
}

impl Workload {
    const ALL: [Self; 13] = [
        Self::Write,
        Self::Batch,
        Self::Threads,
        Self::Durable,
        Self::Read,
        Self::Tail,
        Self::Park,
        Self::Latency,
        Self::Open,
        Self::Fill,
        Self::Reopen,
        Self::Shards,
        Self::Readers,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Batch => "batch",
            Self::Threads => "threads",
            Self::Durable => "durable",
            Self::Read => "read",
            Self::Tail => "tail",
            Self::Park => "park",
            Self::Latency => "latency",
            Self::Open => "open",
            Self::Fill => "fill",
            Self::Reopen => "reopen",
            Self::Shards => "shards",
            Self::Readers => "readers",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|workload| workload.name() == name)
    }

    /// Whether it makes sense for an engine at this level, with this many shards.
    pub(crate) fn takes(self, entrant: &Entrant, level: Survives, shards: u32) -> bool {
        let ours = entrant.role == Role::Ours;
        let fits = match self {
            Self::Write => entrant.can(Can::Append) && level <= Survives::Kill,
            Self::Batch => entrant.can(Can::Batch) && level <= Survives::Kill,
            Self::Threads => entrant.can(Can::Threads) && level == Survives::Kill,
            Self::Durable => entrant.can(Can::Append) && level == Survives::PowerCut,
            Self::Read => (entrant.can(Can::Scan) || entrant.can(Can::Get)) && level == entrant.easiest(),
            Self::Tail => entrant.can(Can::Tail) && level == Survives::Kill,
            Self::Park => entrant.can(Can::Park) && level <= Survives::Kill,
            Self::Latency => entrant.can(Can::Append) && level == Survives::Kill,
            Self::Open => entrant.can(Can::Reopen) && level == entrant.easiest(),
            Self::Fill | Self::Reopen => false,
            Self::Shards | Self::Readers => ours && level == Survives::Kill,
        };
        fits && entrant.survives(level) && (shards == 1 || entrant.can(Can::Shards))
    }

    /// Measures, in the cell's process.
    pub(crate) fn run(self, run: &Run<'_>) -> Result<Figures> {
        match self {
            Self::Write => write::one_by_one(run),
            Self::Batch => write::in_batches(run),
            Self::Threads => write::by_threads(run),
            Self::Durable => durable::durable(run),
            Self::Read => read::read(run),
            Self::Tail => tail::spinning(run),
            Self::Park => tail::parked(run),
            Self::Latency => tail::latency(run),
            Self::Open => open::open(run),
            Self::Fill => open::fill(run),
            Self::Reopen => open::reopen(run),
            Self::Shards => shards::shards(run),
            Self::Readers => readers::readers(run),
        }
    }
}

/// A figure with its name.
fn figure(name: &str, value: f64) -> (String, f64) {
    (name.to_owned(), value)
}

/// The value below which this part of the sorted nanoseconds lies, in microseconds.
fn percentile_us(sorted_ns: &[u32], part: f64) -> f64 {
    let index = (sorted_ns.len() as f64 * part) as usize;
    sorted_ns.get(index.min(sorted_ns.len().saturating_sub(1))).map_or(f64::NAN, |ns| f64::from(*ns) / 1e3)
}
