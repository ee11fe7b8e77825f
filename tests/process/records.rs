//! Records that say what they are, and what must hold for all that a stream shows.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use anabranch::{RecordsStart, ShardId, ShardIteratorType, Stream, verify};

use crate::support::lines;

/// Keys of one thread.
pub(crate) const KEYS: u64 = 6;
const HEAD: usize = 18;

/// Who put a record: the run of the writer, its thread, and a count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Id(pub(crate) u64);

impl Id {
    pub(crate) fn new(run: u64, thread: u64, count: u64) -> Self {
        Self(run << 48 | thread << 40 | count)
    }

    pub(crate) fn key(self) -> String {
        format!("t{}-{}", self.0 >> 40 & 0xff, (self.0 & 0xff_ffff_ffff) % KEYS)
    }

    /// The data of a record that was put with `size - 1` others from `first` on.
    pub(crate) fn data(self, first: Self, size: u16) -> Vec<u8> {
        let mut data = Vec::new();
        data.extend_from_slice(&self.0.to_le_bytes());
        data.extend_from_slice(&first.0.to_le_bytes());
        data.extend_from_slice(&size.to_le_bytes());
        data.resize(HEAD + usize::try_from(self.0.wrapping_mul(7919) % 400).unwrap(), self.0.to_le_bytes()[0]);
        data
    }
}

/// A record as a reader got it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) id: Id,
    pub(crate) incarnation: u64,
    batch: (Id, u16),
}

impl Found {
    /// Every byte of the record is the one that was put.
    pub(crate) fn parse(key: &str, data: &[u8], incarnation: u64) -> Self {
        let number = |at: usize| u64::from_le_bytes(data[at..at + 8].try_into().unwrap());
        let (id, first) = (Id(number(0)), Id(number(8)));
        let size = u16::from_le_bytes([data[16], data[17]]);
        assert_eq!(key, id.key());
        assert_eq!(data, id.data(first, size), "{id:?}");
        Self { id, incarnation, batch: (first, size) }
    }
}

/// What is in a stream, by shard and sequence number.
pub(crate) type Contents = BTreeMap<(ShardId, u64), Found>;

/// Reads a stream whole, and checks what holds for every stream.
pub(crate) fn read(stream: &Stream) -> Contents {
    let mut contents = Contents::new();
    let mut is_trimmed = false;
    for shard in stream.describe().unwrap().shards {
        is_trimmed |= shard.records != shard.next_sequence_number.since(shard.starting_sequence_number);
        read_shard(stream, shard.summary.shard_id, &mut contents);
    }
    if !is_trimmed {
        check_batches(stream, &contents);
    }
    check_keys(stream, contents.len());
    contents
}

fn read_shard(stream: &Stream, shard_id: ShardId, contents: &mut Contents) {
    let mut iterator = stream.shard_iterator(shard_id, ShardIteratorType::TrimHorizon).unwrap();
    let mut next = iterator.next_sequence_number();
    loop {
        let batch = iterator.next_batch().unwrap();
        if batch.is_empty() {
            break;
        }
        for record in batch {
            assert_eq!(record.sequence_number(), next, "{shard_id}");
            next = next.next();
            let found = Found::parse(record.partition_key(), record.data(), record.incarnation());
            contents.insert((shard_id, record.sequence_number().get()), found);
        }
    }
}

/// What a shard got of a batch is there whole. A record of the batch that would belong there too went to a parent, before a
/// merge, and so is there.
fn check_batches(stream: &Stream, contents: &Contents) {
    let ids: HashSet<_> = contents.values().map(|found| found.id).collect();
    let parts: HashSet<_> = contents.iter().map(|((shard_id, _), found)| (*shard_id, found.batch)).collect();
    let ranges: HashMap<_, _> =
        stream.shards().into_iter().map(|shard| (shard.shard_id, shard.hash_key_range)).collect();
    for (shard_id, (first, size)) in parts {
        let members = (first.0..first.0 + u64::from(size)).map(Id);
        let is_own = |id: &Id| ranges[&shard_id].contains(stream.hash_key(id.key()).unwrap());
        for id in members.filter(is_own) {
            assert!(ids.contains(&id), "{shard_id}: a batch in part: {first:?} and {size}, without {id:?}");
        }
    }
}

/// Each key's records come once, in the order of their puts.
fn check_keys(stream: &Stream, records: usize) {
    let mut newest: HashMap<String, u64> = HashMap::new();
    let mut seen = 0;
    for record in stream.records(RecordsStart::TrimHorizon).unwrap().available() {
        let record = record.unwrap();
        let id = u64::from_le_bytes(record.data()[..8].try_into().unwrap());
        let before = newest.insert(record.partition_key().to_owned(), id);
        assert!(before < Some(id), "{} is out of order", record.partition_key());
        seen += 1;
    }
    assert_eq!(seen, records);
}

/// Everything that was acknowledged is there, and nothing is there twice.
pub(crate) fn check_ledger(contents: &Contents, ledger: &Path) -> usize {
    let acknowledged = lines::<3>(ledger);
    for [shard, number, id] in &acknowledged {
        let place = (ShardId::new(u32::try_from(*shard).unwrap()), *number);
        let found = contents.get(&place).map(|found| found.id);
        assert_eq!(found, Some(Id(*id)), "acknowledged at {place:?}");
    }
    let ids: HashSet<_> = contents.values().map(|found| found.id).collect();
    assert_eq!(ids.len(), contents.len(), "a record is there twice");
    acknowledged.len()
}

/// What was found once is found again: nothing that was shown changes, in whatever incarnation.
pub(crate) fn check_history(contents: &Contents, before: &Contents) {
    for (place, found) in before {
        assert_eq!(contents.get(place), Some(found), "at {place:?}");
    }
}

pub(crate) fn assert_sound(path: &Path) {
    let report = verify(path, anabranch::VerifyOptions::default()).unwrap();
    assert!(report.is_sound(), "{:?}", report.damage);
}
