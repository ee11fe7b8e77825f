//! The tables: which figures of which loads stand side by side.

use crate::cell::Load;
use crate::workloads::Workload;

use Unit::{Amount, Mebibytes, Microseconds, MillionPerSecond, Milliseconds, Plain, ThousandPerSecond};
use Workload::{Batch, Durable, Latency, Open, Park, Read, Readers, Shards, Tail, Threads, Write};

/// What a figure counts, and so how it is shown and whether more is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Millions a second.
    MillionPerSecond,
    /// Thousands a second.
    ThousandPerSecond,
    Microseconds,
    Milliseconds,
    Mebibytes,
    /// As it is; less is better.
    Plain,
    /// As it is; neither more nor less is better.
    Amount,
}

impl Unit {
    pub(crate) fn more_is_better(self) -> bool {
        matches!(self, Self::MillionPerSecond | Self::ThousandPerSecond)
    }

    pub(crate) fn divisor(self) -> f64 {
        match self {
            Self::MillionPerSecond => 1e6,
            Self::ThousandPerSecond => 1e3,
            Self::Mebibytes => f64::from(1 << 20),
            Self::Microseconds | Self::Milliseconds | Self::Plain | Self::Amount => 1.0,
        }
    }
}

pub(crate) struct Table {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) columns: &'static [Column],
}

pub(crate) struct Column {
    pub(crate) head: &'static str,
    pub(crate) load: Load,
    pub(crate) figure: &'static str,
    pub(crate) unit: Unit,
}

const fn column(head: &'static str, load: Load, figure: &'static str, unit: Unit) -> Column {
    Column { head, load, figure, unit }
}

const fn load(workload: Workload, record_bytes: usize, threads: usize, shards: u32) -> Load {
    Load { workload, record_bytes, threads, shards }
}

const fn rate(head: &'static str, load: Load) -> Column {
    column(head, load, "records_per_s", MillionPerSecond)
}

const fn one(workload: Workload, record_bytes: usize) -> Load {
    load(workload, record_bytes, 1, 1)
}

const KIB: usize = 1 << 10;

pub(crate) const TABLES: &[Table] = &[
    Table {
        id: "W1",
        title: "one record a call, one thread: million records/s",
        columns: &[
            rate("128 B", one(Write, 128)),
            rate("1 KiB", one(Write, KIB)),
            rate("10 KiB", one(Write, 10 * KIB)),
        ],
    },
    Table {
        id: "W2",
        title: "100 records a call, one thread: million records/s",
        columns: &[
            rate("128 B", one(Batch, 128)),
            rate("1 KiB", one(Batch, KIB)),
            rate("10 KiB", one(Batch, 10 * KIB)),
        ],
    },
    Table {
        id: "W3",
        title: "one record a call, 8 threads beside one: million records/s",
        columns: &[
            rate("128 B, 1 thread", one(Threads, 128)),
            rate("128 B, one log", load(Threads, 128, 8, 1)),
            rate("128 B, 16 shards", load(Threads, 128, 8, 16)),
            rate("1 KiB, 1 thread", one(Threads, KIB)),
            rate("1 KiB, one log", load(Threads, KIB, 8, 1)),
            rate("1 KiB, 16 shards", load(Threads, KIB, 8, 16)),
        ],
    },
    Table {
        id: "W4",
        title: "durable, 1 KiB, one log: thousand acknowledgements/s; latency in microseconds",
        columns: &[
            column("1 thread", load(Durable, KIB, 1, 1), "records_per_s", ThousandPerSecond),
            column("8 threads", load(Durable, KIB, 8, 1), "records_per_s", ThousandPerSecond),
            column("64 threads", load(Durable, KIB, 64, 1), "records_per_s", ThousandPerSecond),
            column("p50, 1", load(Durable, KIB, 1, 1), "p50_us", Microseconds),
            column("p99, 1", load(Durable, KIB, 1, 1), "p99_us", Microseconds),
            column("p50, 64", load(Durable, KIB, 64, 1), "p50_us", Microseconds),
            column("p99, 64", load(Durable, KIB, 64, 1), "p99_us", Microseconds),
        ],
    },
    Table {
        id: "W5",
        title: "scan, every byte summed and compared: million records/s",
        columns: &[
            column("128 B", one(Read, 128), "scanned_per_s", MillionPerSecond),
            column("1 KiB", one(Read, KIB), "scanned_per_s", MillionPerSecond),
            column("10 KiB", one(Read, 10 * KIB), "scanned_per_s", MillionPerSecond),
        ],
    },
    Table {
        id: "W6",
        title: "point reads at random, by sequence number: million records/s",
        columns: &[
            column("128 B", one(Read, 128), "got_per_s", MillionPerSecond),
            column("1 KiB", one(Read, KIB), "got_per_s", MillionPerSecond),
            column("10 KiB", one(Read, 10 * KIB), "got_per_s", MillionPerSecond),
        ],
    },
    Table {
        id: "W7",
        title: "append until visible, paced writer, 128 B; single appends at full speed, 1 KiB: microseconds",
        columns: &[
            column("spinning, p50", one(Tail, 128), "p50_us", Microseconds),
            column("spinning, p99", one(Tail, 128), "p99_us", Microseconds),
            column("parked, p50", one(Park, 128), "p50_us", Microseconds),
            column("parked, p99", one(Park, 128), "p99_us", Microseconds),
            column("append, p50", one(Latency, KIB), "p50_us", Microseconds),
            column("append, p99.9", one(Latency, KIB), "p999_us", Microseconds),
        ],
    },
    Table {
        id: "W8",
        title: "opening a log of 1 KiB records: milliseconds",
        columns: &[
            column("GiB in it", one(Open, KIB), "gib", Amount),
            column("after a close", one(Open, KIB), "closed_ms", Milliseconds),
            column("after kill -9", one(Open, KIB), "killed_ms", Milliseconds),
            column("MiB recovered", one(Open, KIB), "killed_recovered_mib", Amount),
            column("GB/s of them", one(Open, KIB), "killed_recovered_gb_per_s", Amount),
        ],
    },
    Table {
        id: "W9",
        title: "what W1 takes: private memory in MiB; bytes on disk per byte of data; processor seconds per GB",
        columns: &[
            column("memory, 1 KiB", one(Write, KIB), "private_bytes", Mebibytes),
            column("disk, 128 B", one(Write, 128), "disk_per_byte", Plain),
            column("disk, 1 KiB", one(Write, KIB), "disk_per_byte", Plain),
            column("CPU, 128 B", one(Write, 128), "cpu_s_per_gb", Plain),
            column("CPU, 1 KiB", one(Write, KIB), "cpu_s_per_gb", Plain),
            column("CPU, 10 KiB", one(Write, 10 * KIB), "cpu_s_per_gb", Plain),
        ],
    },
    Table {
        id: "W10",
        title: "10,000 shards, a record of 1 KiB in each",
        columns: &[
            column("open, ms", load(Shards, KIB, 8, 10_000), "open_ms", Milliseconds),
            column("memory, MiB", load(Shards, KIB, 8, 10_000), "private_bytes", Mebibytes),
            column("disk, MiB", load(Shards, KIB, 8, 10_000), "disk_bytes", Mebibytes),
            rate("random puts, 8 threads, M/s", load(Shards, KIB, 8, 10_000)),
            column("handles after", load(Shards, KIB, 8, 10_000), "handles", Plain),
            column("memory after, MiB", load(Shards, KIB, 8, 10_000), "private_bytes_after", Mebibytes),
        ],
    },
    Table {
        id: "W11",
        title: "one writer of 1 KiB beside tailing readers: million records/s, by wall clock and by the writer's processor time",
        columns: &[
            rate("0 readers", load(Readers, KIB, 0, 1)),
            rate("1", load(Readers, KIB, 1, 1)),
            rate("8", load(Readers, KIB, 8, 1)),
            rate("32", load(Readers, KIB, 32, 1)),
            column("0, CPU", load(Readers, KIB, 0, 1), "records_per_cpu_s", MillionPerSecond),
            column("1, CPU", load(Readers, KIB, 1, 1), "records_per_cpu_s", MillionPerSecond),
            column("8, CPU", load(Readers, KIB, 8, 1), "records_per_cpu_s", MillionPerSecond),
            column("32, CPU", load(Readers, KIB, 32, 1), "records_per_cpu_s", MillionPerSecond),
        ],
    },
];
