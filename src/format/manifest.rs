//! The manifest: the durable state of a stream as one checksummed value.
//!
//! ```text
//!   0  8  magic "ANABRMAN"
//!   8  4  format version (1)
//!  12  8  generation: counts the replacements
//!  20 16  stream id
//!  36  8  time of creation, ms since 1970
//!  44  8  incarnation: counts the writable openings
//!  52  1  1 after a clean close, else 0
//!  53     options: retention ms 8 (all ones: unlimited), retention bytes 8 (all ones: no budget),
//!         segment bytes 8, durability 1, partition hash 1, flush interval ms 8, flush bytes 8,
//!         max data bytes 4, max batch records 4, max batch bytes 4, initial shards 4
//!         next shard id 4, count of shards 4, and for each shard, ids ascending:
//!           shard id 4, count of parents 1, parents 4 each, range start 16, range end 16,
//!           starting sequence number 8, time of opening 8, closed 1, time of closing 8 (if closed),
//!           first 8, horizon 8, next 8, last arrival 8
//!         count of extensions 4, and for each, kinds ascending: kind 4, length 4, and what it says:
//!           kind 1, producers: next producer id 8, count 4, and for each, names ascending:
//!             length of the name 1, name, producer id 8, epoch 4
//!           kind 2, fencing tokens: count 4, and for each, ids ascending: shard id 4, token 8 (never 0)
//!         An extension that has nothing to say is left out.
//!   end-4 CRC-32 of everything before
//! ```

use std::time::Duration;

use super::FORMAT_VERSION;
use super::reader::Reader;
use super::whole::only_version_differs;
use crate::limits::{
    DEFAULT_FLUSH_BYTES, DEFAULT_FLUSH_INTERVAL_MS, DEFAULT_SEGMENT_BYTES, Limits, MAX_PRODUCERS,
    MAX_SEGMENT_BYTES, MAX_SHARD_ID, MAX_SHARDS, MIN_SEGMENT_BYTES, Quotas,
};
use crate::types::{
    Durability, HashKey, HashKeyRange, PartitionHash, RetentionPeriod, SequenceNumber, ShardId, StreamId,
    Timestamp, is_name,
};

const MAGIC: [u8; 8] = *b"ANABRMAN";
const NONE: u64 = u64::MAX;
/// No stream is opened or changed so often; a number beyond it was never written.
const MAX_COUNT: u64 = 1 << 62;
const PRODUCERS: u32 = 1;
const FENCING_TOKENS: u32 = 2;
const MAX_FLUSH_INTERVAL_S: u64 = 24 * 3_600;

/// What a stream was created with; kept for its life, except for its retention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamOptions {
    pub(crate) retention: RetentionPeriod,
    pub(crate) retention_bytes: Option<u64>,
    pub(crate) segment_bytes: u64,
    pub(crate) durability: Durability,
    pub(crate) partition_hash: PartitionHash,
    pub(crate) flush_interval: Duration,
    pub(crate) flush_bytes: u64,
    pub(crate) limits: Limits,
    pub(crate) initial_shards: u32,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self {
            retention: RetentionPeriod::default(),
            retention_bytes: None,
            segment_bytes: DEFAULT_SEGMENT_BYTES,
            durability: Durability::default(),
            partition_hash: PartitionHash::default(),
            flush_interval: Duration::from_millis(DEFAULT_FLUSH_INTERVAL_MS),
            flush_bytes: DEFAULT_FLUSH_BYTES,
            limits: Limits::default(),
            initial_shards: 1,
        }
    }
}

impl StreamOptions {
    /// The first option that is out of its range, and why.
    pub(crate) fn fault(&self) -> Option<(&'static str, String)> {
        if self.initial_shards == 0 || self.initial_shards > MAX_SHARDS {
            Some(("shards", format!("{} is not within 1..={MAX_SHARDS}", self.initial_shards)))
        } else if !self.retention.is_valid() {
            Some(("retention", format!("{} is not within 1 ms..=8760 h, nor unlimited", self.retention)))
        } else if self.retention_bytes == Some(NONE) {
            Some(("retention_bytes", "2^64 - 1 is reserved; use None for no budget".to_owned()))
        } else if !(MIN_SEGMENT_BYTES..=MAX_SEGMENT_BYTES).contains(&self.segment_bytes)
            || !self.segment_bytes.is_multiple_of(8)
        {
            let bytes = self.segment_bytes;
            Some(("segment_bytes", format!("{bytes} is not a multiple of 8 within 4 KiB..=4 GiB")))
        } else if self.flush_interval < Duration::from_millis(1)
            || self.flush_interval > Duration::from_secs(MAX_FLUSH_INTERVAL_S)
        {
            Some(("flush_interval", format!("{:?} is not within 1 ms..=24 h", self.flush_interval)))
        } else if self.flush_bytes == 0 {
            Some(("flush_bytes", "must be at least 1".to_owned()))
        } else {
            self.limits.fault().map(|reason| ("limits", reason.to_owned()))
        }
    }
}

/// That a shard takes no more records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClosedShard {
    pub(crate) at: Timestamp,
}

/// One shard in the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShardEntry {
    pub(crate) id: ShardId,
    /// None for a stream's first shards, one after a split, two after a merge (the lower one first).
    pub(crate) parents: Vec<ShardId>,
    pub(crate) range: HashKeyRange,
    /// The number its first record has, or would have had.
    pub(crate) starting: SequenceNumber,
    pub(crate) opened: Timestamp,
    pub(crate) closed: Option<ClosedShard>,
    /// The first number of its first segment: no file holds anything below.
    pub(crate) first: SequenceNumber,
    /// Readers are shown nothing below this number.
    pub(crate) horizon: SequenceNumber,
    /// All records below were durable when this was written. Exact for a closed shard and after a clean close.
    pub(crate) next: SequenceNumber,
    /// No record of the shard arrived later than this, as of the time it was written.
    pub(crate) last_arrival: Timestamp,
    /// The token that fenced appends have to show; 0 where there is none.
    pub(crate) fencing_token: u64,
}

/// A producer that the stream knows by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProducerEntry {
    pub(crate) name: String,
    /// Never given to another producer.
    pub(crate) id: u64,
    /// Counts the handles that were made of it: only the newest can append.
    pub(crate) epoch: u32,
}

impl ShardEntry {
    /// A shard that was never written to.
    pub(crate) fn new(
        id: ShardId,
        parents: Vec<ShardId>,
        range: HashKeyRange,
        starting: SequenceNumber,
        opened: Timestamp,
    ) -> Self {
        Self {
            id,
            parents,
            range,
            starting,
            opened,
            closed: None,
            first: starting,
            horizon: starting,
            next: starting,
            last_arrival: opened,
            fencing_token: 0,
        }
    }

    pub(crate) const fn is_open(&self) -> bool {
        self.closed.is_none()
    }
}

/// All that a stream remembers beside its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ManifestState {
    pub(crate) generation: u64,
    pub(crate) stream_id: StreamId,
    pub(crate) created: Timestamp,
    pub(crate) incarnation: u64,
    pub(crate) clean: bool,
    pub(crate) options: StreamOptions,
    pub(crate) next_shard_id: ShardId,
    pub(crate) shards: Vec<ShardEntry>,
    pub(crate) next_producer_id: u64,
    /// By name, ascending.
    pub(crate) producers: Vec<ProducerEntry>,
}

/// Why bytes are no manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ManifestError {
    #[error("it does not start with a manifest's magic bytes")]
    Magic,
    #[error("format version {0} is not known")]
    Version(u32),
    #[error("the manifest's checksum does not match")]
    Checksum,
    #[error("the manifest's fields contradict each other")]
    Fields,
}

impl ManifestState {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128 + self.shards.len() * 112);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.stream_id.get().to_le_bytes());
        out.extend_from_slice(&self.created.as_millis().to_le_bytes());
        out.extend_from_slice(&self.incarnation.to_le_bytes());
        out.push(u8::from(self.clean));
        self.options.encode(&mut out);
        out.extend_from_slice(&self.next_shard_id.get().to_le_bytes());
        out.extend_from_slice(&count(self.shards.len()));
        for shard in &self.shards {
            shard.encode(&mut out);
        }
        self.encode_extensions(&mut out);
        let checksum = crc32fast::hash(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        let mut reader = Reader::new(bytes);
        if reader.array() != Some(MAGIC) {
            return Err(ManifestError::Magic);
        }
        let version = reader.u32().ok_or(ManifestError::Fields)?;
        let (checked, stored) = bytes.split_last_chunk().ok_or(ManifestError::Fields)?;
        let stored = u32::from_le_bytes(*stored);
        if version != FORMAT_VERSION && version != 0 && !only_version_differs(checked, stored) {
            return Err(ManifestError::Version(version));
        }
        if crc32fast::hash(checked) != stored {
            return Err(ManifestError::Checksum);
        }
        if version == 0 {
            return Err(ManifestError::Fields);
        }
        let mut fields = Reader::new(checked.get(12..).unwrap_or_default());
        let state = Self::parse(&mut fields).ok_or(ManifestError::Fields)?;
        state.is_consistent().then_some(state).ok_or(ManifestError::Fields)
    }

    fn parse(reader: &mut Reader<'_>) -> Option<Self> {
        let generation = reader.u64()?;
        let stream_id = StreamId::new(reader.u128()?);
        let created = Timestamp::from_millis(reader.i64()?);
        let incarnation = reader.u64()?;
        let clean = boolean(reader)?;
        let options = StreamOptions::parse(reader)?;
        let next_shard_id = ShardId::new(reader.u32()?);
        let count = reader.u32()?;
        if count > MAX_SHARDS {
            return None;
        }
        let shards = (0..count).map(|_| ShardEntry::parse(reader)).collect::<Option<Vec<_>>>()?;
        let mut state = Self {
            generation,
            stream_id,
            created,
            incarnation,
            clean,
            options,
            next_shard_id,
            shards,
            next_producer_id: 0,
            producers: Vec::new(),
        };
        state.parse_extensions(reader)?;
        reader.end()?;
        Some(state)
    }

    fn encode_extensions(&self, out: &mut Vec<u8>) {
        let mut extensions = Vec::new();
        if self.next_producer_id > 0 {
            extensions.push((PRODUCERS, self.encode_producers()));
        }
        if self.shards.iter().any(|shard| shard.fencing_token != 0) {
            extensions.push((FENCING_TOKENS, self.encode_fencing_tokens()));
        }
        out.extend_from_slice(&count(extensions.len()));
        for (kind, body) in extensions {
            out.extend_from_slice(&kind.to_le_bytes());
            out.extend_from_slice(&count(body.len()));
            out.extend_from_slice(&body);
        }
    }

    fn encode_producers(&self) -> Vec<u8> {
        let mut out = self.next_producer_id.to_le_bytes().to_vec();
        out.extend_from_slice(&count(self.producers.len()));
        for producer in &self.producers {
            out.push(u8::try_from(producer.name.len()).unwrap_or(u8::MAX));
            out.extend_from_slice(producer.name.as_bytes());
            out.extend_from_slice(&producer.id.to_le_bytes());
            out.extend_from_slice(&producer.epoch.to_le_bytes());
        }
        out
    }

    fn encode_fencing_tokens(&self) -> Vec<u8> {
        let fenced: Vec<_> = self.shards.iter().filter(|shard| shard.fencing_token != 0).collect();
        let mut out = count(fenced.len()).to_vec();
        for shard in fenced {
            out.extend_from_slice(&shard.id.get().to_le_bytes());
            out.extend_from_slice(&shard.fencing_token.to_le_bytes());
        }
        out
    }

    fn parse_extensions(&mut self, reader: &mut Reader<'_>) -> Option<()> {
        let mut last_kind = 0;
        for _ in 0..reader.u32()? {
            let (kind, length) = (reader.u32()?, reader.u32()?);
            let mut body = Reader::new(reader.take(usize::try_from(length).ok()?)?);
            match kind {
                PRODUCERS if last_kind < PRODUCERS => self.parse_producers(&mut body)?,
                FENCING_TOKENS if last_kind < FENCING_TOKENS => self.parse_fencing_tokens(&mut body)?,
                _ => return None,
            }
            body.end()?;
            last_kind = kind;
        }
        Some(())
    }

    fn parse_producers(&mut self, reader: &mut Reader<'_>) -> Option<()> {
        self.next_producer_id = reader.u64()?;
        let count = reader.u32()?;
        if count as usize > MAX_PRODUCERS || self.next_producer_id == 0 {
            return None;
        }
        for _ in 0..count {
            let length = reader.u8()?;
            let name = std::str::from_utf8(reader.take(length.into())?).ok()?;
            let producer = ProducerEntry { name: name.to_owned(), id: reader.u64()?, epoch: reader.u32()? };
            let is_next = self.producers.last().is_none_or(|last| last.name < producer.name);
            if !is_next || !is_name(name) || producer.id >= self.next_producer_id {
                return None;
            }
            self.producers.push(producer);
        }
        Some(())
    }

    fn parse_fencing_tokens(&mut self, reader: &mut Reader<'_>) -> Option<()> {
        let mut last = None;
        for _ in 0..reader.u32()? {
            let (id, token) = (ShardId::new(reader.u32()?), reader.u64()?);
            if token == 0 || last.is_some_and(|last| last >= id) {
                return None;
            }
            self.shard_mut(id)?.fencing_token = token;
            last = Some(id);
        }
        last.map(drop)
    }

    fn is_consistent(&self) -> bool {
        let ascending = self.shards.windows(2).all(|pair| pair[0].id < pair[1].id);
        let issued = self.shards.iter().all(|shard| shard.id < self.next_shard_id);
        let bounded = self.next_shard_id.get() <= MAX_SHARD_ID;
        // Both are raised by one at every opening, and the generation by every change after it.
        let counts_on = self.incarnation < MAX_COUNT && self.generation < MAX_COUNT;
        counts_on && ascending && issued && bounded && self.options.fault().is_none()
    }

    /// The entry of a shard.
    pub(crate) fn shard(&self, id: ShardId) -> Option<&ShardEntry> {
        let index = self.shards.binary_search_by_key(&id, |shard| shard.id).ok()?;
        self.shards.get(index)
    }

    /// The entry of a shard, to change it.
    pub(crate) fn shard_mut(&mut self, id: ShardId) -> Option<&mut ShardEntry> {
        let index = self.shards.binary_search_by_key(&id, |shard| shard.id).ok()?;
        self.shards.get_mut(index)
    }
}

impl StreamOptions {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.retention.as_millis().unwrap_or(NONE).to_le_bytes());
        out.extend_from_slice(&self.retention_bytes.unwrap_or(NONE).to_le_bytes());
        out.extend_from_slice(&self.segment_bytes.to_le_bytes());
        out.push(match self.durability {
            Durability::Buffered => 0,
            Durability::Synced => 1,
        });
        out.push(match self.partition_hash {
            PartitionHash::Xxh3 => 0,
            PartitionHash::Md5 => 1,
        });
        let interval_ms = u64::try_from(self.flush_interval.as_millis()).unwrap_or(NONE);
        out.extend_from_slice(&interval_ms.to_le_bytes());
        out.extend_from_slice(&self.flush_bytes.to_le_bytes());
        out.extend_from_slice(&self.limits.max_data_bytes.to_le_bytes());
        out.extend_from_slice(&self.limits.max_batch_records.to_le_bytes());
        out.extend_from_slice(&self.limits.max_batch_bytes.to_le_bytes());
        out.extend_from_slice(&self.initial_shards.to_le_bytes());
    }

    fn parse(reader: &mut Reader<'_>) -> Option<Self> {
        let retention = match reader.u64()? {
            NONE => RetentionPeriod::Unlimited,
            millis => RetentionPeriod::Millis(millis),
        };
        let retention_bytes = Some(reader.u64()?).filter(|bytes| *bytes != NONE);
        let segment_bytes = reader.u64()?;
        let durability = match reader.u8()? {
            0 => Durability::Buffered,
            1 => Durability::Synced,
            _ => return None,
        };
        let partition_hash = match reader.u8()? {
            0 => PartitionHash::Xxh3,
            1 => PartitionHash::Md5,
            _ => return None,
        };
        Some(Self {
            retention,
            retention_bytes,
            segment_bytes,
            durability,
            partition_hash,
            flush_interval: Duration::from_millis(reader.u64()?),
            flush_bytes: reader.u64()?,
            limits: Limits {
                max_data_bytes: reader.u32()?,
                max_batch_records: reader.u32()?,
                max_batch_bytes: reader.u32()?,
                quotas: Quotas::none(), // whoever opens the stream says them
            },
            initial_shards: reader.u32()?,
        })
    }
}

impl ShardEntry {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.get().to_le_bytes());
        out.push(u8::try_from(self.parents.len()).unwrap_or(u8::MAX));
        for parent in &self.parents {
            out.extend_from_slice(&parent.get().to_le_bytes());
        }
        out.extend_from_slice(&self.range.start().get().to_le_bytes());
        out.extend_from_slice(&self.range.end().get().to_le_bytes());
        out.extend_from_slice(&self.starting.get().to_le_bytes());
        out.extend_from_slice(&self.opened.as_millis().to_le_bytes());
        out.push(u8::from(self.closed.is_some()));
        if let Some(closed) = self.closed {
            out.extend_from_slice(&closed.at.as_millis().to_le_bytes());
        }
        out.extend_from_slice(&self.first.get().to_le_bytes());
        out.extend_from_slice(&self.horizon.get().to_le_bytes());
        out.extend_from_slice(&self.next.get().to_le_bytes());
        out.extend_from_slice(&self.last_arrival.as_millis().to_le_bytes());
    }

    fn parse(reader: &mut Reader<'_>) -> Option<Self> {
        let id = ShardId::new(reader.u32()?);
        let parents = match reader.u8()? {
            count @ 0..=2 => (0..count).map(|_| reader.u32().map(ShardId::new)).collect::<Option<Vec<_>>>()?,
            _ => return None,
        };
        let range = HashKeyRange::new(HashKey::new(reader.u128()?), HashKey::new(reader.u128()?))?;
        let starting = SequenceNumber::new(reader.u64()?);
        let opened = Timestamp::from_millis(reader.i64()?);
        let closed =
            if boolean(reader)? { Some(ClosedShard { at: Timestamp::from_millis(reader.i64()?) }) } else { None };
        let entry = Self {
            id,
            parents,
            range,
            starting,
            opened,
            closed,
            first: SequenceNumber::new(reader.u64()?),
            horizon: SequenceNumber::new(reader.u64()?),
            next: SequenceNumber::new(reader.u64()?),
            last_arrival: Timestamp::from_millis(reader.i64()?),
            fencing_token: 0,
        };
        let lineage = entry.parents.iter().all(|parent| *parent < id);
        let ordered = starting <= entry.first && entry.first <= entry.horizon && entry.horizon <= entry.next;
        (lineage && ordered).then_some(entry)
    }
}

fn boolean(reader: &mut Reader<'_>) -> Option<bool> {
    match reader.u8()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn count(len: usize) -> [u8; 4] {
    u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use crate::format::whole::CHECKSUM_BYTES;
    use proptest::prelude::*;

    use super::*;

    fn state() -> ManifestState {
        let [lower, upper] = HashKeyRange::partition(2)[..] else { panic!() };
        let mut parent = ShardEntry::new(
            ShardId::new(0),
            vec![],
            HashKeyRange::FULL,
            SequenceNumber::ZERO,
            Timestamp::from_millis(1),
        );
        parent.closed = Some(ClosedShard { at: Timestamp::from_millis(9) });
        parent.horizon = SequenceNumber::new(4);
        parent.next = SequenceNumber::new(10);
        let child = |id, range| {
            ShardEntry::new(
                ShardId::new(id),
                vec![ShardId::new(0)],
                range,
                SequenceNumber::new(10),
                Timestamp::from_millis(9),
            )
        };
        ManifestState {
            generation: 3,
            stream_id: StreamId::new(77),
            created: Timestamp::from_millis(1),
            incarnation: 2,
            clean: false,
            options: StreamOptions {
                retention_bytes: Some(5),
                retention: RetentionPeriod::Unlimited,
                ..Default::default()
            },
            next_shard_id: ShardId::new(3),
            shards: vec![parent, ShardEntry { fencing_token: 7, ..child(1, lower) }, child(2, upper)],
            next_producer_id: 9,
            producers: vec![producer("agent", 8), producer("importer", 2)],
        }
    }

    fn producer(name: &str, id: u64) -> ProducerEntry {
        ProducerEntry { name: name.to_owned(), id, epoch: 3 }
    }

    fn reseal(bytes: &mut [u8]) {
        let body = bytes.len() - 4;
        let checksum = crc32fast::hash(&bytes[..body]);
        bytes[body..].copy_from_slice(&checksum.to_le_bytes());
    }

    #[test]
    fn survives_the_round_trip() {
        assert_eq!(ManifestState::decode(&state().encode()), Ok(state()));
        let mut other = state();
        other.options.partition_hash = PartitionHash::Md5;
        other.options.durability = Durability::Buffered;
        other.options.retention = RetentionPeriod::Millis(5);
        other.options.retention_bytes = None;
        assert_eq!(ManifestState::decode(&other.encode()), Ok(other));
    }

    #[test]
    fn every_bit_is_checked() {
        let sound = state().encode();
        for position in 0..sound.len() {
            for bit in 0..8 {
                let mut bytes = sound.clone();
                bytes[position] ^= 1 << bit;
                assert!(ManifestState::decode(&bytes).is_err(), "byte {position} bit {bit}");
            }
            assert!(ManifestState::decode(&sound[..position]).is_err(), "cut at {position}");
        }
    }

    #[test]
    fn a_newer_version_is_named() {
        let mut bytes = state().encode();
        bytes[8..12].copy_from_slice(&9u32.to_le_bytes());
        assert_eq!(
            ManifestState::decode(&bytes),
            Err(ManifestError::Checksum),
            "nothing but the version is another"
        );
        reseal(&mut bytes);
        assert_eq!(ManifestState::decode(&bytes), Err(ManifestError::Version(9)));
    }

    #[test]
    fn contradictions_are_refused_even_with_a_sound_checksum() {
        let broken: [fn(&mut ManifestState); 18] = [
            |state| state.shards.swap(0, 1),
            |state| state.next_shard_id = ShardId::new(2),
            |state| state.shards[0].first = SequenceNumber::new(5),
            |state| state.shards[1].parents = vec![ShardId::new(2)],
            |state| state.options.segment_bytes = MIN_SEGMENT_BYTES - 8,
            |state| state.options.segment_bytes = MIN_SEGMENT_BYTES + 4,
            |state| state.options.flush_interval = Duration::ZERO,
            |state| state.options.flush_interval = Duration::from_millis(MAX_FLUSH_INTERVAL_S * 1_000 + 1),
            |state| state.shards[1].parents = vec![ShardId::new(1)],
            |state| state.shards[2].id = ShardId::new(1),
            |state| state.incarnation = MAX_COUNT,
            |state| state.generation = MAX_COUNT,
            |state| state.options.initial_shards = MAX_SHARDS + 1,
            |state| state.producers.swap(0, 1),
            |state| state.producers[1].name = "agent".to_owned(),
            |state| state.producers[0].name = "..".to_owned(),
            |state| state.producers[0].id = 9,
            |state| state.producers.resize(MAX_PRODUCERS + 1, producer("z", 1)),
        ];
        for (index, breaking) in broken.iter().enumerate() {
            let mut state = state();
            breaking(&mut state);
            assert_eq!(ManifestState::decode(&state.encode()), Err(ManifestError::Fields), "case {index}");
        }
    }

    #[test]
    fn the_most_is_taken() {
        let mut state = state();
        (state.incarnation, state.generation) = (MAX_COUNT - 1, MAX_COUNT - 1);
        state.options.initial_shards = MAX_SHARDS;
        state.options.flush_interval = Duration::from_secs(MAX_FLUSH_INTERVAL_S);
        state.producers = (0..MAX_PRODUCERS).map(|index| producer(&format!("{index:09}"), 8)).collect();
        state.next_shard_id = ShardId::new(MAX_SHARDS);
        let shard = state.shards.swap_remove(0);
        state.shards = (0..MAX_SHARDS).map(|id| ShardEntry { id: ShardId::new(id), ..shard.clone() }).collect();
        assert_eq!(ManifestState::decode(&state.encode()).as_ref(), Ok(&state));
        state.next_shard_id = ShardId::new(MAX_SHARDS + 1);
        state.shards.push(ShardEntry { id: ShardId::new(MAX_SHARDS), ..shard });
        assert_eq!(ManifestState::decode(&state.encode()), Err(ManifestError::Fields), "a shard too many");
    }

    #[test]
    fn nothing_may_be_left_over() {
        let mut bytes = state().encode();
        bytes.extend_from_slice(&[0; 8]);
        reseal(&mut bytes);
        assert_eq!(ManifestState::decode(&bytes), Err(ManifestError::Fields));
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_state_or_an_error(patch: Vec<u8>, at in 12..400usize) {
            let mut bytes = state().encode();
            for (offset, byte) in patch.iter().enumerate() {
                if let Some(target) = bytes.get_mut(at + offset) {
                    *target = *byte;
                }
            }
            reseal(&mut bytes);
            if let Ok(decoded) = ManifestState::decode(&bytes) {
                prop_assert_eq!(decoded.encode(), bytes);
            }
        }
    }
    /// The extensions of a manifest as these, each of a kind and a body.
    fn extended(extensions: &[(u32, &[u8])]) -> Result<ManifestState, ManifestError> {
        let mut bare = state();
        (bare.next_producer_id, bare.producers) = (0, vec![]);
        bare.shards[1].fencing_token = 0;
        let mut bytes = bare.encode();
        bytes.truncate(bytes.len() - CHECKSUM_BYTES - 4);
        bytes.extend_from_slice(&count(extensions.len()));
        for (kind, body) in extensions {
            bytes.extend_from_slice(&kind.to_le_bytes());
            bytes.extend_from_slice(&count(body.len()));
            bytes.extend_from_slice(body);
        }
        bytes.extend_from_slice(&[0; CHECKSUM_BYTES]);
        reseal(&mut bytes);
        ManifestState::decode(&bytes)
    }

    #[test]
    fn extensions_come_once_and_in_order_and_have_something_to_say() {
        let mut known = state();
        known.producers.clear();
        let producers = known.encode_producers();
        let tokens = known.encode_fencing_tokens();
        assert_eq!(extended(&[(PRODUCERS, &producers), (FENCING_TOKENS, &tokens)]), Ok(known));
        let no_producer = [0; 12];
        let no_token = [0; 4];
        let empty_token = [&[1, 0, 0, 0, 1, 0, 0, 0][..], &[0; 8]].concat();
        let twice = [&[2, 0, 0, 0], &tokens[4..], &tokens[4..]].concat();
        for (extensions, why) in [
            (&[(FENCING_TOKENS, &*tokens), (PRODUCERS, &*producers)][..], "out of order"),
            (&[(PRODUCERS, &producers), (PRODUCERS, &producers)], "producers twice"),
            (&[(FENCING_TOKENS, &tokens), (FENCING_TOKENS, &tokens)], "tokens twice"),
            (&[(3, &[])], "a kind to come"),
            (&[(PRODUCERS, &no_producer)], "no producer"),
            (&[(FENCING_TOKENS, &no_token)], "no token"),
            (&[(FENCING_TOKENS, &empty_token)], "a token that is none"),
            (&[(FENCING_TOKENS, &twice)], "a shard's token twice"),
        ] {
            assert_eq!(extended(extensions), Err(ManifestError::Fields), "{why}");
        }
    }
}
