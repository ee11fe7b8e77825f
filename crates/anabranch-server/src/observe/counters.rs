//! What is counted: each with a few relaxed additions where it happens, and no lock.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anabranch::Record;

use crate::errors::FaultKind;
use crate::operations;

/// The name under which requests are counted that name no operation.
const UNKNOWN: &str = "unknown";

/// The upper ends of the classes of the histograms, in milliseconds: from what memory takes to what a disk under load does.
pub(super) const CLASSES_MS: [u64; 6] = [1, 5, 25, 100, 500, 2_500];

/// The counts of a service since it was opened.
#[derive(Debug)]
pub(crate) struct Counters {
    operations: BTreeMap<&'static str, OperationCounts>,
    /// Connections that are open.
    pub(crate) connections: Gauge,
    /// Calls that wait for records of queues.
    pub(crate) waiting: Gauge,
}

/// The counts of an operation.
#[derive(Debug, Default)]
pub(super) struct OperationCounts {
    fine: AtomicU64,
    faults: [AtomicU64; FaultKind::ALL.len()],
    /// Requests by how long they took; the last class has no end.
    classes: [AtomicU64; CLASSES_MS.len() + 1],
    micros: AtomicU64,
}

impl Default for Counters {
    fn default() -> Self {
        let names = operations::names().chain([UNKNOWN]);
        Self {
            operations: names.map(|name| (name, OperationCounts::default())).collect(),
            connections: Gauge::default(),
            waiting: Gauge::default(),
        }
    }
}

impl Counters {
    /// Counts a request of an operation, or of none that is known, and what came of it.
    pub(crate) fn count(&self, operation: Option<&str>, fault: Option<FaultKind>, took: Duration) {
        if let Some(counts) = self.operations.get(operation.unwrap_or(UNKNOWN)) {
            counts.count(fault, took);
        }
    }

    /// The operations that were asked for.
    pub(super) fn operations(&self) -> impl Iterator<Item = (&'static str, &OperationCounts)> + Clone {
        self.operations.iter().map(|(name, counts)| (*name, counts)).filter(|(_, counts)| counts.total() > 0)
    }
}

impl OperationCounts {
    fn count(&self, fault: Option<FaultKind>, took: Duration) {
        let outcome = match fault {
            None => Some(&self.fine),
            Some(kind) => self.faults.get(kind as usize),
        };
        let class = CLASSES_MS.partition_point(|end| Duration::from_millis(*end) < took);
        for count in [outcome, self.classes.get(class)].into_iter().flatten() {
            add(count, 1);
        }
        add(&self.micros, u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    pub(super) fn total(&self) -> u64 {
        self.outcomes().map(|(_, count)| count).sum()
    }

    /// What came of it, how often; `ok`, or the name of a fault.
    pub(super) fn outcomes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let faults = FaultKind::ALL.iter().zip(&self.faults).map(|(kind, count)| (kind.name(), get(count)));
        [("ok", get(&self.fine))].into_iter().chain(faults).filter(|(_, count)| *count > 0)
    }

    /// Requests of each class of [`CLASSES_MS`], and of the last one.
    pub(super) fn classes(&self) -> [u64; CLASSES_MS.len() + 1] {
        self.classes.each_ref().map(get)
    }

    pub(super) fn duration(&self) -> Duration {
        Duration::from_micros(get(&self.micros))
    }
}

/// What came into a stream, and what went out of it, through this server since it was started.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    records_in: AtomicU64,
    bytes_in: AtomicU64,
    records_out: AtomicU64,
    bytes_out: AtomicU64,
    throttled: AtomicU64,
    /// Subscriptions that go on.
    pub(crate) subscriptions: Gauge,
}

impl Traffic {
    /// Counts a record that was put: the bytes are those of its key and its data.
    pub(crate) fn came_in(&self, bytes: usize) {
        add(&self.records_in, 1);
        add(&self.bytes_in, bytes as u64);
    }

    pub(crate) fn went_out(&self, records: impl IntoIterator<Item: Borrow<Record>>) {
        let (mut count, mut bytes) = (0, 0);
        for record in records {
            let record = record.borrow();
            count += 1;
            bytes += record.partition_key().len() + record.data().len();
        }
        add(&self.bytes_out, bytes as u64);
        add(&self.records_out, count);
    }

    /// Counts a call, or a record of a batch, that a quota refused.
    pub(crate) fn throttle(&self) {
        add(&self.throttled, 1);
    }

    pub(super) fn records_in(&self) -> u64 {
        get(&self.records_in)
    }

    pub(super) fn bytes_in(&self) -> u64 {
        get(&self.bytes_in)
    }

    pub(super) fn records_out(&self) -> u64 {
        get(&self.records_out)
    }

    pub(super) fn bytes_out(&self) -> u64 {
        get(&self.bytes_out)
    }

    pub(super) fn throttled(&self) -> u64 {
        get(&self.throttled)
    }
}

/// How many there are of something now.
#[derive(Debug, Default)]
pub(crate) struct Gauge(Arc<()>);

/// One of those that a gauge counts, as long as it is kept.
#[derive(Debug)]
pub(crate) struct Counted(#[expect(dead_code, reason = "it is there to be there")] Arc<()>);

impl Gauge {
    pub(crate) fn one_more(&self) -> Counted {
        Counted(Arc::clone(&self.0))
    }

    pub(crate) fn get(&self) -> u64 {
        Arc::strong_count(&self.0) as u64 - 1
    }
}

fn add(count: &AtomicU64, more: u64) {
    count.fetch_add(more, Ordering::Relaxed);
}

fn get(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_in_the_class_whose_end_it_did_not_pass() {
        let counts = OperationCounts::default();
        for micros in [0, 1_000, 1_001, 2_500_000, 2_500_001, u64::MAX] {
            counts.count(None, Duration::from_micros(micros));
        }
        assert_eq!(counts.classes(), [2, 1, 0, 0, 0, 1, 2]);
        assert_eq!(counts.total(), 6);
    }

    #[test]
    fn a_gauge_counts_what_is_kept() {
        let gauge = Gauge::default();
        let (one, two) = (gauge.one_more(), gauge.one_more());
        assert_eq!(gauge.get(), 2);
        drop((one, two));
        assert_eq!(gauge.get(), 0);
    }
}
