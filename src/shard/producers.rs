//! What a shard remembers of producers, so that a batch that comes again is answered and not appended again.
//!
//! Of each producer the last batch, by number, and where its records went: in *parts*. A batch that a shard took by itself is one part, of the
//! shard's whole range. Children of a split remember the parts of their parent, each for its own range; the child of a merge remembers those of both parents: where
//! only one of them had taken its records of the last batch, the other's are appended when the batch comes again, and nothing twice.
//! A producer repeats no other batch than its last, so of two parents that know different ones only the later one counts.
//!
//! The truth is in the frames: the first of a batch carries its stamp. A seal writes down what is remembered; opening a shard reads that of the newest
//! sealed segment, or where the shard has none, of its nearest ancestors that do, and the stamps of what stands behind it. So a batch is
//! remembered as long as its records are kept, and what has to be read does not grow with the log.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, RwLock};

use super::{AppendState, Shard, ShardError};
use crate::format::{
    Footer, PART_BYTES, ProducerEntry, ProducerPart, ProducerStamp, SEGMENT_HEADER_BYTES, SegmentHeader,
    ShardEntry, encode_parts, parse_segment_name, section_bytes, segment_name,
};
use crate::limits::MAX_PRODUCER_PARTS;
use crate::segment::{StampedBatch, producers_section, read_footer, read_header};
use crate::storage::{Access, Corruption, Fault, Storage, StorageFile, list_if_there};
use crate::types::{HashKey, HashKeyRange, SequenceNumber, ShardId, StreamId};

/// The producers that the stream knows, and which handle of each may append.
#[derive(Debug, Default)]
pub(crate) struct ProducerRegistry {
    epochs: RwLock<BTreeMap<u64, Arc<AtomicU64>>>,
}

/// Higher than any epoch: of a producer that was deleted.
const DELETED: u64 = u64::MAX;

impl ProducerRegistry {
    /// From now on, only this epoch of the producer may append.
    pub(crate) fn set(&self, id: u64, epoch: u32) -> Arc<AtomicU64> {
        let mut epochs = self.epochs.write();
        let current = epochs.entry(id).or_default();
        current.store(epoch.into(), Ordering::SeqCst);
        Arc::clone(current)
    }

    /// Knows these from now on, and no others.
    pub(crate) fn replace(&self, producers: &[ProducerEntry]) {
        self.epochs.write().retain(|id, _| producers.iter().any(|producer| producer.id == *id));
        for producer in producers {
            self.set(producer.id, producer.epoch);
        }
    }

    pub(crate) fn remove(&self, id: u64) {
        if let Some(current) = self.epochs.write().remove(&id) {
            current.store(DELETED, Ordering::SeqCst);
        }
    }

    fn is_empty(&self) -> bool {
        self.epochs.read().is_empty()
    }

    fn contains(&self, id: u64) -> bool {
        self.epochs.read().contains_key(&id)
    }
}

/// The shards as the manifest lists them, for those who look for their ancestors.
#[derive(Debug, Default)]
pub(crate) struct Lineage(Mutex<Arc<Vec<ShardEntry>>>);

impl Lineage {
    pub(crate) fn set(&self, entries: &[ShardEntry]) {
        *self.0.lock() = Arc::new(entries.to_vec());
    }

    pub(super) fn get(&self) -> Arc<Vec<ShardEntry>> {
        Arc::clone(&self.0.lock())
    }
}

/// The last batches of the producers of one shard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Producers {
    last: BTreeMap<u64, LastBatch>,
    /// Over all of them.
    parts: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct LastBatch {
    number: u64,
    /// By range, ascending and apart.
    parts: Vec<ProducerPart>,
}

impl Producers {
    pub(crate) fn encode(&self) -> Vec<u8> {
        encode_parts(self.parts())
    }

    /// How long [`encode`](Self::encode) is.
    pub(crate) fn section_bytes(&self) -> u64 {
        section_bytes(self.parts) as u64
    }

    /// The most that one more batch of a producer can add to [`section_bytes`](Self::section_bytes).
    pub(super) fn most_added(&self, producer_id: u64) -> u64 {
        let parts = self.last.get(&producer_id).map_or(0, |last| last.parts.len());
        section_bytes(parts + 1) as u64 // between the parts that are there, and around them
    }

    fn parts(&self) -> impl Iterator<Item = &ProducerPart> {
        self.last.values().flat_map(|last| &last.parts)
    }

    pub(crate) fn last_batch(&self, producer_id: u64) -> Option<u64> {
        self.last.get(&producer_id).map(|last| last.number)
    }

    /// The part that a record of the producer's last batch is in, if it is there.
    pub(super) fn part_of(&self, producer_id: u64, key: HashKey) -> Option<&ProducerPart> {
        let parts = &self.last.get(&producer_id)?.parts;
        let behind = parts.partition_point(|part| part.range.start() <= key);
        parts.get(behind.checked_sub(1)?).filter(|part| part.range.contains(key))
    }

    /// Learns of a batch that a shard has taken: its records of all keys of `range` that are in no part yet.
    pub(crate) fn note(&mut self, batch: &StampedBatch, shard_id: ShardId, range: HashKeyRange) {
        let ProducerStamp { producer_id, batch_number, .. } = batch.stamp;
        let (count, first, arrival) = (batch.count, batch.first, batch.arrival);
        self.add(ProducerPart { producer_id, batch_number, shard_id, count, first, arrival, range });
        self.forget_surplus();
    }

    /// Takes over what a parent knew, for the keys of `range`.
    pub(crate) fn inherit(&mut self, parts: &[ProducerPart], range: HashKeyRange) {
        for part in parts {
            if let Some(range) = part.range.intersection(range) {
                self.add(ProducerPart { range, ..*part });
            }
        }
        self.forget_surplus();
    }

    fn add(&mut self, part: ProducerPart) {
        let fresh = LastBatch { number: part.batch_number, parts: Vec::new() };
        let last = self.last.entry(part.producer_id).or_insert_with(|| fresh.clone());
        if part.batch_number < last.number {
            return;
        }
        self.parts -= last.parts.len();
        if part.batch_number > last.number {
            *last = fresh;
        }
        for range in uncovered(&last.parts, part.range) {
            last.parts.push(ProducerPart { range, ..part });
        }
        last.parts.sort_unstable_by_key(|part| part.range.start());
        self.parts += last.parts.len();
    }

    pub(crate) fn retain(&mut self, stays: impl Fn(&ProducerPart) -> bool) {
        self.last.retain(|_, last| {
            last.parts.retain(&stays);
            !last.parts.is_empty()
        });
        self.parts = self.parts().count();
    }

    /// Keeps the memory within its bound.
    fn forget_surplus(&mut self) {
        self.forget_beyond(MAX_PRODUCER_PARTS);
    }

    /// Keeps no more than can be written down in `room` bytes.
    pub(super) fn fit(&mut self, room: u64) {
        self.forget_beyond(usize::try_from(room).unwrap_or(usize::MAX) / PART_BYTES);
    }

    /// Those go that have been silent for the longest time.
    fn forget_beyond(&mut self, parts: usize) {
        if self.parts <= parts {
            return;
        }
        let newest = |last: &LastBatch| last.parts.iter().map(|part| part.arrival).max();
        let mut silent: Vec<_> = self.last.iter().map(|(id, last)| (newest(last), *id)).collect();
        silent.sort_unstable();
        for (_, id) in silent {
            if self.parts <= parts {
                return;
            }
            self.parts -= self.last.remove(&id).map_or(0, |gone| gone.parts.len());
        }
    }
}

/// What of `range` no part covers.
fn uncovered(parts: &[ProducerPart], range: HashKeyRange) -> Vec<HashKeyRange> {
    let mut gaps = Vec::new();
    let mut start = Some(range.start());
    for covered in parts.iter().filter_map(|part| part.range.intersection(range)) {
        let gap = start.zip(covered.start().previous()).and_then(|(start, end)| HashKeyRange::new(start, end));
        gaps.extend(gap);
        start = covered.end().next();
    }
    gaps.extend(start.and_then(|start| HashKeyRange::new(start, range.end())));
    gaps
}

/// Finds what the files of a stream remember.
#[derive(Clone, Copy)]
pub(crate) struct Memory<'a> {
    pub(crate) storage: &'a dyn Storage,
    pub(crate) stream_id: StreamId,
    /// The directory that holds those of the shards.
    pub(crate) shards: &'a Path,
    /// Of the manifest.
    pub(crate) entries: &'a [ShardEntry],
}

impl Memory<'_> {
    /// What the newest sealed segment of a shard says, or, where it has none, those of its ancestors.
    pub(crate) fn of(&self, entry: &ShardEntry) -> Result<Producers, Fault> {
        match self.newest_section(entry)? {
            Some(parts) => {
                let mut producers = Producers::default();
                producers.inherit(&parts, entry.range);
                Ok(producers)
            }
            None => self.inherited(entry),
        }
    }

    /// What the nearest ancestors that hold segments say for the keys of a shard. An ancestor that is not listed any more has no records
    /// that could come again.
    pub(crate) fn inherited(&self, entry: &ShardEntry) -> Result<Producers, Fault> {
        let mut producers = Producers::default();
        let mut seen = BTreeSet::new(); // after many merges, most ancestors are reached on many ways
        let mut waiting = entry.parents.clone();
        while let Some(id) = waiting.pop() {
            let place = self.entries.binary_search_by_key(&id, |entry| entry.id);
            let Some(ancestor) = place.ok().and_then(|place| self.entries.get(place)) else {
                continue;
            };
            if !seen.insert(id) {
                continue;
            }
            match self.newest_section(ancestor)? {
                Some(parts) => producers.inherit(&parts, entry.range),
                None => waiting.extend(&ancestor.parents),
            }
        }
        Ok(producers)
    }

    /// What a sealed segment says of batches that have a record left. One that is gone may have been put again since: learnt first, it would hide that.
    pub(crate) fn section(
        &self,
        file: &dyn StorageFile,
        path: &Path,
        header: &SegmentHeader,
        footer: &Footer,
    ) -> Result<Vec<ProducerPart>, Fault> {
        let mut parts = producers_section(file, path, header, footer)?;
        parts.retain(|part| is_kept(part, horizon_in(self.entries, part.shard_id)));
        Ok(parts)
    }

    /// The section of a shard's newest sealed segment, if there is one. Not sealed are at most the two newest: one that is being written, or was when its
    /// writer died, and its successor, which gets no record before that is sealed.
    fn newest_section(&self, entry: &ShardEntry) -> Result<Option<Vec<ProducerPart>>, Fault> {
        let directory = self.shards.join(entry.id.directory());
        let names = list_if_there(self.storage, &directory)?;
        let firsts = names.iter().filter(|name| !name.is_dir).filter_map(|name| parse_segment_name(&name.name));
        let mut firsts: Vec<_> = firsts.filter(|first| *first >= entry.first).collect();
        firsts.sort_unstable();
        let newest = firsts.last().copied();
        let mut may_be_unsealed = true;
        for first in firsts.into_iter().rev() {
            let path = directory.join(segment_name(first));
            let file = self.storage.open_file(&path, Access::Read).map_err(Fault::io("open", &path))?;
            let header = match read_header(file.as_ref(), &path, self.stream_id, entry.id, first) {
                // Its creation was cut short, or opening says what is wrong.
                Err(Fault::Corrupt(_)) if Some(first) == newest => continue,
                other => other?,
            };
            match read_footer(file.as_ref(), &path, &header)? {
                Some(footer) => return self.section(file.as_ref(), &path, &header, &footer).map(Some),
                None if may_be_unsealed => {
                    may_be_unsealed = Some(first) == newest && !holds_records(file.as_ref(), &path)?;
                }
                None => {
                    let reason = "the footer of a sealed segment is not sound";
                    return Err(Corruption::new(&path, header.footer_position(), reason)
                        .of_shard(entry.id)
                        .of_records(first, None)
                        .into());
                }
            }
        }
        Ok(None)
    }
}

/// Below which number readers are shown nothing of a shard, if it is listed.
fn horizon_in(entries: &[ShardEntry], id: ShardId) -> Option<SequenceNumber> {
    let place = entries.binary_search_by_key(&id, |entry| entry.id).ok()?;
    entries.get(place).map(|entry| entry.horizon)
}

/// Whether a record of a part is left, where the shard that took it shows nothing below `horizon`, or is not listed.
fn is_kept(part: &ProducerPart, horizon: Option<SequenceNumber>) -> bool {
    horizon.is_some_and(|horizon| part.first.plus(part.count.into()) > horizon)
}

/// Whether anything stands in the place of a segment's first record.
fn holds_records(file: &dyn StorageFile, path: &Path) -> Result<bool, Fault> {
    let mut front = [0; 8];
    file.read_at(&mut front, SEGMENT_HEADER_BYTES as u64).map_err(Fault::io("read", path))?;
    Ok(front != [0; 8])
}

impl Shard {
    /// The number of the last batch of a producer that the shard knows of.
    pub(crate) fn last_batch(&self, producer_id: u64) -> Result<Option<u64>, ShardError> {
        if let Some(stamped) = self.followed_batches() {
            // Of a shard that another process writes: as far as its files were looked at.
            let mut producers = self.load_producers()?;
            for batch in &stamped {
                producers.note(batch, self.id, self.range);
            }
            return Ok(producers.last_batch(producer_id));
        }
        let mut state = self.append.lock();
        Ok(self.producers(&mut state)?.last_batch(producer_id))
    }

    /// Returns when no append is under way that began before.
    pub(crate) fn pass_appends(&self) {
        drop(self.append.lock());
    }

    /// What the shard remembers; read from the files at first use.
    pub(super) fn producers<'s>(&self, state: &'s mut AppendState) -> Result<&'s mut Producers, Fault> {
        if state.producers.is_none() {
            state.producers = Some(self.load_producers()?);
        }
        Ok(state.producers.get_or_insert_default())
    }

    /// Retention may take away what was listed: the manifest said so before, and there is nothing more to remember of it.
    fn load_producers(&self) -> Result<Producers, Fault> {
        match self.look_for_producers() {
            Err(fault) if fault.is_missing_file() => self.look_for_producers(),
            looked => looked,
        }
    }

    fn look_for_producers(&self) -> Result<Producers, Fault> {
        let context = &self.context;
        let entries = context.lineage.get();
        let place = entries.binary_search_by_key(&self.id, |entry| entry.id);
        let (Some(entry), Some(shards)) =
            (place.ok().and_then(|place| entries.get(place)), self.directory.parent())
        else {
            return Ok(Producers::default());
        };
        context.remembered(entry, shards, &entries)
    }

    /// Forgets what is not to be remembered any longer: producers that were deleted, and batches whose records are gone, be it from an ancestor.
    pub(super) fn prune_producers(&self, producers: &mut Producers) {
        let entries = self.context.lineage.get();
        let horizon_of = |id| {
            if id == self.id {
                return Some(SequenceNumber::new(self.horizon.load(Ordering::SeqCst)));
            }
            horizon_in(&entries, id)
        };
        let registry = &self.context.producers;
        producers.retain(|part| is_kept(part, horizon_of(part.shard_id)) && registry.contains(part.producer_id));
    }
}

impl super::ShardContext {
    /// What the files remember for a shard of the producers that the stream knows.
    pub(super) fn remembered(
        &self,
        entry: &ShardEntry,
        shards: &Path,
        entries: &[ShardEntry],
    ) -> Result<Producers, Fault> {
        if self.producers.is_empty() {
            return Ok(Producers::default()); // and nobody who has none pays for it
        }
        let memory = Memory { storage: self.storage.as_ref(), stream_id: self.stream_id, shards, entries };
        let mut producers = memory.of(entry)?;
        producers.retain(|part| self.producers.contains(part.producer_id));
        Ok(producers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{FrameInput, SealKind};
    use crate::segment::SegmentWriter;
    use crate::storage::SimulatedDisk;
    use crate::types::{SequenceNumber, Timestamp};

    fn range(start: u128, end: u128) -> HashKeyRange {
        HashKeyRange::new(HashKey::new(start), HashKey::new(end)).unwrap()
    }

    fn batch(producer_id: u64, batch_number: u64, first: u64) -> StampedBatch {
        StampedBatch {
            stamp: ProducerStamp { producer_id, epoch: 1, batch_number },
            first: SequenceNumber::new(first),
            count: 1,
            arrival: Timestamp::from_millis(i64::try_from(first).unwrap()),
        }
    }

    fn first_of(producers: &Producers, key: u128) -> Option<u64> {
        producers.part_of(1, HashKey::new(key)).map(|part| part.first.get())
    }

    fn parts(producers: &Producers) -> Vec<ProducerPart> {
        producers.parts().copied().collect()
    }

    #[test]
    fn only_the_last_batch_counts() {
        let mut producers = Producers::default();
        for (number, first) in [(5, 50), (9, 51), (7, 52), (9, 53)] {
            producers.note(&batch(1, number, first), ShardId::new(0), range(0, 99));
        }
        assert_eq!(producers.last_batch(1), Some(9));
        assert_eq!(parts(&producers).len(), 1);
        assert_eq!(first_of(&producers, 0), Some(51), "what is there is not taken again");
        assert_eq!((producers.last_batch(2), first_of(&producers, 100)), (None, None));
        assert_eq!(producers.section_bytes(), producers.encode().len() as u64);
    }

    /// Two shards of which only one took its records of batch 2, merged: the batch comes again, and each finds its place.
    #[test]
    fn parts_are_kept_apart_through_merge_and_split() {
        let (mut lower, mut upper) = (Producers::default(), Producers::default());
        lower.note(&batch(1, 1, 10), ShardId::new(1), range(0, 49));
        upper.note(&batch(1, 1, 20), ShardId::new(2), range(50, 99));
        lower.note(&batch(1, 2, 11), ShardId::new(1), range(0, 49));
        let mut merged = Producers::default();
        let mut otherwise = Producers::default();
        for (parent, other) in [(&upper, &lower), (&lower, &upper)] {
            merged.inherit(&parts(parent), range(0, 99));
            otherwise.inherit(&parts(other), range(0, 99));
        }
        assert_eq!(merged, otherwise, "whichever parent comes first");
        assert_eq!(merged.last_batch(1), Some(2));
        assert_eq!((first_of(&merged, 49), first_of(&merged, 50)), (Some(11), None));
        merged.note(&batch(1, 2, 30), ShardId::new(3), range(0, 99));
        assert_eq!((first_of(&merged, 49), first_of(&merged, 50)), (Some(11), Some(30)));

        let mut children = [range(0, 59), range(60, 99)].map(|range| {
            let mut child = Producers::default();
            child.inherit(&parts(&merged), range);
            child
        });
        let found = |child: &Producers| [0, 49, 50, 59, 60, 99].map(|key| first_of(child, key));
        assert_eq!(found(&children[0]), [Some(11), Some(11), Some(30), Some(30), None, None]);
        assert_eq!(found(&children[1]), [None, None, None, None, Some(30), Some(30)]);
        // Reached on two ways, a part is still one.
        let before = children[0].clone();
        children[0].inherit(&parts(&before), range(0, 59));
        assert_eq!(children[0], before);
        assert_eq!(before.parts, 2);
    }

    #[test]
    fn gaps_are_found_at_both_ends_of_the_space() {
        let full = HashKeyRange::FULL;
        assert_eq!(uncovered(&[], full), [full]);
        let mut producers = Producers::default();
        producers.note(&batch(1, 1, 0), ShardId::new(0), range(0, 9));
        producers.note(&batch(1, 1, 1), ShardId::new(1), range(u128::MAX - 9, u128::MAX));
        producers.note(&batch(1, 1, 2), ShardId::new(2), range(100, 100));
        assert_eq!(uncovered(&parts(&producers), full), [range(10, 99), range(101, u128::MAX - 10)]);
        producers.note(&batch(1, 1, 3), ShardId::new(3), full);
        assert_eq!(uncovered(&parts(&producers), full), []);
        assert_eq!(producers.parts, 5);
    }

    /// A batch goes between the parts that are there, and around them.
    #[test]
    fn no_batch_adds_more_than_is_reckoned_with() {
        let mut producers = Producers::default();
        for (first, taken) in [range(10, 19), range(30, 39), range(0, 99)].into_iter().enumerate() {
            let (before, most) = (producers.section_bytes(), producers.most_added(1));
            producers.note(&batch(1, 1, first as u64), ShardId::new(0), taken);
            assert!(producers.section_bytes() <= before + most, "{taken:?}");
        }
        assert_eq!(producers.section_bytes(), section_bytes(5) as u64);
    }

    #[test]
    fn those_go_first_that_have_been_silent_for_the_longest_time() {
        let mut producers = Producers::default();
        for (id, arrival) in [(1, 30), (2, 10), (3, 20)] {
            producers.note(&batch(id, 1, arrival), ShardId::new(0), range(0, 9));
        }
        producers.parts = MAX_PRODUCER_PARTS; // as if others had the rest
        producers.note(&batch(4, 1, 40), ShardId::new(0), range(0, 9));
        assert_eq!(producers.last.keys().copied().collect::<Vec<_>>(), [1, 3, 4]);
        assert_eq!(producers.parts, MAX_PRODUCER_PARTS);
    }

    #[test]
    fn what_is_pruned_takes_no_room() {
        let mut producers = Producers::default();
        for id in 1..=3 {
            producers.note(&batch(id, 1, id), ShardId::new(0), range(0, 9));
        }
        producers.retain(|part| part.producer_id != 2);
        assert_eq!((producers.last_batch(2), producers.section_bytes()), (None, section_bytes(2) as u64));
    }
    #[test]
    fn the_registry_knows_the_newest_epoch_of_those_that_are_there() {
        let registry = ProducerRegistry::default();
        let entry = |id: u64, epoch| ProducerEntry { name: id.to_string(), id, epoch };
        let (first, second) = (registry.set(1, 1), registry.set(2, 1));
        let epochs = || (first.load(Ordering::SeqCst), second.load(Ordering::SeqCst));
        registry.replace(&[entry(2, 5)]);
        assert_eq!(epochs(), (1, 5), "handles of the one that stays");
        assert_eq!((registry.contains(1), registry.contains(2)), (false, true));
        registry.replace(&[entry(2, 6), entry(3, 1)]);
        assert_eq!((epochs(), registry.contains(3)), ((1, 6), true));
        registry.remove(2);
        assert_eq!((epochs(), registry.contains(2)), ((1, DELETED), false));
    }

    /// A shard of two segments, each of which says that batch 1 or 2 was the last, and what is found of that once the files were changed.
    fn found(change: impl FnOnce(&SimulatedDisk, [&Path; 2])) -> Result<Option<u64>, Fault> {
        let disk = SimulatedDisk::new();
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        let entry =
            ShardEntry::new(ShardId::new(4), vec![], HashKeyRange::FULL, SequenceNumber::ZERO, Timestamp::MIN);
        let directory = Path::new("shards").join(entry.id.directory());
        storage.create_dir(Path::new("shards")).unwrap();
        storage.create_dir(&directory).unwrap();
        let paths = [0, 1].map(|first| {
            let first = SequenceNumber::new(first);
            let created = Timestamp::from_millis(1);
            let (stream_id, shard_id) = (StreamId::new(1), entry.id);
            let header = SegmentHeader { stream_id, shard_id, incarnation: 1, first, created, file_bytes: 4096 };
            let mut writer = SegmentWriter::create(&storage, &directory, header).unwrap();
            let frame = FrameInput {
                sequence_number: first,
                arrival: created,
                durable: SequenceNumber::ZERO,
                batch_remaining: 0,
                explicit_hash_key: None,
                producer: None,
                partition_key: "key",
                data: b"data",
            };
            writer.stage(&frame).unwrap();
            let mut producers = Producers::default();
            producers.note(&batch(1, first.get() + 1, first.get()), entry.id, entry.range);
            writer.seal(SealKind::Rolled, &producers.encode()).unwrap();
            directory.join(segment_name(first))
        });
        change(&disk, [&paths[0], &paths[1]]);
        let (stream_id, shards) = (StreamId::new(1), Path::new("shards"));
        let memory =
            Memory { storage: storage.as_ref(), stream_id, shards, entries: std::slice::from_ref(&entry) };
        memory.of(&entry).map(|producers| producers.last_batch(1))
    }

    /// Only the newest segment may be unfinished, or the two newest where the last one has no record: what another one should say would be missing.
    #[test]
    fn the_newest_sealed_segment_tells_and_none_is_passed_over() {
        type Change = fn(&mut [u8]);
        fn unmade(bytes: &mut [u8]) {
            bytes[..8].fill(0);
        }
        fn unsealed(bytes: &mut [u8]) {
            let footer = bytes.len() - 8;
            bytes[footer..].fill(0);
        }
        assert_eq!(found(|_, _| ()).unwrap(), Some(2));
        let both = |to_newest: Change, to_older: Change| {
            found(|disk, [older, newest]| {
                disk.damage(newest, |bytes| to_newest(bytes)).unwrap();
                disk.damage(older, |bytes| to_older(bytes)).unwrap();
            })
        };
        for unfinished in [unmade, unsealed] {
            assert_eq!(both(unfinished, |_| ()).unwrap(), Some(1));
            let refused = both(unfinished, unmade);
            assert!(matches!(refused, Err(Fault::Corrupt(_))), "{refused:?}");
        }
        let refused = both(unsealed, unsealed);
        assert!(matches!(refused, Err(Fault::Corrupt(_))), "the newest has a record: {refused:?}");
        assert_eq!(both(unmade, unsealed).unwrap(), None, "the making of the newest was cut short");
    }
}
