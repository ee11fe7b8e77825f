//! Whether a stream holds what the marks say it must.

use std::collections::HashMap;
use std::path::Path;

use anabranch::{Durability, SequenceNumber, ShardId, Stream, VerifyOptions, verify};

use crate::image::Event;
use crate::readers::Promised;
use crate::workload::{builder, id_of, record};

/// What was promised before a power cut.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Acknowledged, or shown to a reader: the record of each number of each shard.
    have: HashMap<(u32, u64), u64>,
    /// Trims that were begun, by shard.
    trims: HashMap<u32, u64>,
    /// Of the consumer and the queue.
    pub(crate) readers: Promised,
    /// Refusals that the workload met: what was refused, the kind of the error, and the whole of it.
    pub(crate) refused: Vec<(String, String, String)>,
    /// What else was told, word by word, and how often.
    told: HashMap<String, u64>,
}

impl Ledger {
    pub(crate) fn of(events: &[Event]) -> Self {
        let mut ledger = Self::default();
        for event in events {
            let Event::Mark(mark) = event else { continue };
            let words: Vec<_> = mark.split(' ').collect();
            let number = |at: usize| words[at].parse::<u64>().unwrap();
            let shard = |at: usize| words[at].parse::<u32>().unwrap();
            *ledger.told.entry(words[0].to_owned()).or_default() += 1;
            match words[0] {
                "have" => {
                    let before = ledger.have.insert((shard(1), number(2)), number(3));
                    assert!(
                        before.is_none_or(|before| before == number(3)),
                        "{mark}: it was another record before"
                    );
                }
                "trim" => {
                    let trim = ledger.trims.entry(shard(1)).or_default();
                    *trim = number(2).max(*trim);
                }
                "refused" => {
                    ledger.refused.push((words[1].to_owned(), words[2].to_owned(), words[3..].join(" ")));
                }
                _ => ledger.readers.note(&words),
            }
        }
        ledger
    }

    pub(crate) fn len(&self) -> usize {
        self.have.len()
    }

    /// How many marks began with this word.
    pub(crate) fn told(&self, word: &str) -> u64 {
        self.told.get(word).copied().unwrap_or(0)
    }

    /// Demands that everything that was refused was refused with one of these kinds: `Reopen` for whatever reason, or `Reopen-StorageFull` for this one.
    pub(crate) fn demand_kinds(&self, kinds: &[&str], case: &str) {
        for (what, kind, error) in &self.refused {
            let kind_alone = kind.split('-').next().unwrap_or_default();
            let is_right = kinds.iter().any(|one| one == kind || *one == kind_alone);
            assert!(is_right, "{case}: {what} was refused with {kind}: {error}");
        }
    }

    /// Opens the stream and demands everything; then uses it and closes it.
    pub(crate) fn check(&self, path: &Path, durability: Durability, case: &str) -> Found {
        let stream = builder(durability).open(path);
        let stream = stream.unwrap_or_else(|error| panic!("{case}: opening: {error:?}"));
        let recovery = stream.recovery();
        let (positions, kept) = self.readers.durable();
        let found = Found {
            positions,
            kept,
            records: recovery.records_recovered,
            torn: recovery.torn_tails.len() as u64,
            clean: u64::from(recovery.was_clean),
        };
        self.demand(&stream, case);
        self.readers.demand_consumer(&stream, case);
        self.readers.demand_queue(&stream, case);
        let (key, data) = record(u64::MAX);
        stream.put(key, data).unwrap_or_else(|error| panic!("{case}: a put: {error:?}"));
        self.demand(&stream, case);
        stream.close().unwrap_or_else(|error| panic!("{case}: closing: {error:?}"));
        let report =
            verify(path, VerifyOptions::default()).unwrap_or_else(|error| panic!("{case}: verify: {error:?}"));
        assert!(report.is_sound(), "{case}: {report:?}");
        found
    }

    /// Demands everything that was promised, and nothing that nobody put.
    pub(crate) fn demand(&self, stream: &Stream, case: &str) {
        for ((shard, sequence_number), id) in &self.have {
            if self.trims.get(shard).is_some_and(|trim| sequence_number < trim) {
                continue;
            }
            let found = stream.get(ShardId::new(*shard), SequenceNumber::new(*sequence_number));
            let found = found
                .unwrap_or_else(|error| panic!("{case}: record {sequence_number} of shard {shard}: {error:?}"));
            let (key, data) = record(*id);
            assert!(
                (found.partition_key(), found.data()) == (key.as_str(), data.as_slice()),
                "{case}: record {sequence_number} of shard {shard} is another one"
            );
        }
        for found in stream.records(anabranch::RecordsStart::TrimHorizon).unwrap().available() {
            let found = found.unwrap_or_else(|error| panic!("{case}: reading: {error:?}"));
            assert_eq!(found.data(), record(id_of(&found)).1, "{case}: a record that nobody put");
        }
    }
}

/// What an opening met.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Found {
    pub(crate) records: u64,
    pub(crate) torn: u64,
    pub(crate) clean: u64,
    /// Durable positions of the consumer, and acknowledgements of the queue, that were looked for.
    pub(crate) positions: u64,
    pub(crate) kept: u64,
}
