//! Random sequences of operations, compared step by step with a model that is a few vectors.
//!
//! What the model predicts: every receipt, every record that any kind of iterator gives, every description, and every
//! refusal with its fields. It knows nothing of segments, so where whole segments decide (how far retention got before its
//! period was lengthened again), it predicts a range. Plain proptest sequences are enough: each operation picks its shard from
//! those that exist when it runs, so every sequence is a valid one and shrinks well.
//!
//! 256 cases; `PROPTEST_CASES` sets another number.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anabranch::{
    Clock, Crash, Durability, Error, HashKey, HashKeyRange, ManualClock, PutEntry, PutOptions, PutReceipt, Record,
    RecordsStart, RetentionPeriod, SequenceNumber, ShardId, ShardIteratorType, ShardState, SimulatedDisk, Stream,
    StreamBuilder, Timestamp, verify,
};
use proptest::prelude::*;

const PATH: &str = "clicks";
const FIRST_SHARDS: u32 = 2;
const HOUR: i64 = 3_600_000;

/// What to put: under a hash key of its own, or the hash of one of a few partition keys.
#[derive(Debug, Clone)]
struct Put {
    key: u8,
    hash: Option<u128>,
    bytes: usize,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    TrimHorizon,
    Latest,
    At(u16),
    After(u16),
    AtTime(u16),
}

#[derive(Debug, Clone)]
enum Step {
    Put(Put),
    /// Appends only if the next number is the right one, or one that is off by so much.
    Expect(Put, u8),
    Batch(Vec<Put>),
    Sync,
    Split(u8, Option<u128>),
    Merge(u8, u8),
    Neighbours(u8),
    Count(u32),
    Trim(u8, u16),
    Retention(i64),
    Advance(u32),
    ClockBack(u32),
    Enforce,
    Reopen,
    Kill,
    PowerLoss(u64),
    Read(u8, Place),
    Get(u8, u16),
    Everything(Place),
}

fn put() -> impl Strategy<Value = Put> {
    let hash = prop_oneof![Just(None), any::<u128>().prop_map(Some)];
    let bytes = prop_oneof![8 => 0..300_usize, 1 => 300..5_000_usize];
    (any::<u8>(), hash, bytes).prop_map(|(key, hash, bytes)| Put { key: key % 5, hash, bytes })
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![
        Just(Place::TrimHorizon),
        Just(Place::Latest),
        any::<u16>().prop_map(Place::At),
        any::<u16>().prop_map(Place::After),
        any::<u16>().prop_map(Place::AtTime),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => put().prop_map(Step::Put),
        2 => (put(), 0..3_u8).prop_map(|(put, off)| Step::Expect(put, off)),
        4 => prop::collection::vec(put(), 0..8).prop_map(Step::Batch),
        1 => Just(Step::Sync),
        2 => (any::<u8>(), prop::option::of(any::<u128>())).prop_map(|(shard, at)| Step::Split(shard, at)),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(lower, upper)| Step::Merge(lower, upper)),
        2 => any::<u8>().prop_map(Step::Neighbours),
        1 => (1..6_u32).prop_map(Step::Count),
        2 => (any::<u8>(), any::<u16>()).prop_map(|(shard, at)| Step::Trim(shard, at)),
        1 => (1..48_i64).prop_map(Step::Retention),
        3 => prop_oneof![0..50_u32, 0..40_000_000_u32].prop_map(Step::Advance),
        1 => (0..10_000_u32).prop_map(Step::ClockBack),
        2 => Just(Step::Enforce),
        1 => Just(Step::Reopen),
        1 => Just(Step::Kill),
        1 => any::<u64>().prop_map(Step::PowerLoss),
        4 => (any::<u8>(), place()).prop_map(|(shard, place)| Step::Read(shard, place)),
        2 => (any::<u8>(), any::<u16>()).prop_map(|(shard, at)| Step::Get(shard, at)),
        1 => place().prop_map(Step::Everything),
    ]
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    key: String,
    hash: Option<HashKey>,
    data: Vec<u8>,
    arrival: Timestamp,
}

#[derive(Debug)]
struct ModelShard {
    parents: Vec<ShardId>,
    range: HashKeyRange,
    starting: u64,
    held: Vec<Held>,
    /// So many survive a power cut.
    durable: usize,
    closed: Option<Timestamp>,
    /// No record is stamped earlier.
    not_before: Timestamp,
    /// Nothing below is shown: by request.
    horizon: u64,
    /// Retention may have removed what lies below.
    removable: u64,
}

impl ModelShard {
    fn next(&self) -> u64 {
        self.starting + self.held.len() as u64
    }

    fn last_arrival(&self) -> Timestamp {
        self.held.last().map_or(self.not_before, |held| held.arrival.max(self.not_before))
    }

    /// The first record that arrived at `time` or later, or the next one.
    fn first_at(&self, time: Timestamp) -> u64 {
        self.starting + self.held.partition_point(|held| held.arrival < time) as u64
    }

    fn from(&self, number: u64) -> Vec<(u64, Held)> {
        let skipped = usize::try_from(number - self.starting).unwrap();
        (number..).zip(self.held.iter().skip(skipped).cloned()).collect()
    }
}

struct Model {
    disk: SimulatedDisk,
    clock: Arc<ManualClock>,
    synced: bool,
    stream: Option<Stream>,
    shards: BTreeMap<ShardId, ModelShard>,
    retention: Option<i64>,
    puts: usize,
}

impl Model {
    fn new(synced: bool, limited: bool) -> Self {
        let (disk, clock) = (SimulatedDisk::new(), Arc::new(ManualClock::default()));
        let now = clock.now();
        let ranges = HashKeyRange::partition(FIRST_SHARDS);
        let shards = (0..).map(ShardId::new).zip(ranges).map(|(id, range)| (id, shard(Vec::new(), range, 0, now)));
        let mut model =
            Self { disk, clock, synced, stream: None, shards: shards.collect(), retention: None, puts: 0 };
        model.retention = limited.then_some(12 * HOUR);
        let period = model.retention.map_or(RetentionPeriod::Unlimited, period);
        let durability = if synced { Durability::Synced } else { Durability::Buffered };
        let builder = model.builder().shards(FIRST_SHARDS).segment_bytes(4096).retention(period);
        model.stream = Some(builder.durability(durability).create(PATH).unwrap());
        model.let_the_clock_be_believed();
        model
    }

    /// A clock may have leapt before an opening: what it says is believed for deletions a second later.
    fn let_the_clock_be_believed(&self) {
        self.clock.advance(Duration::from_secs(1));
    }

    fn builder(&self) -> StreamBuilder {
        let clock = Arc::<ManualClock>::clone(&self.clock);
        Stream::builder().storage(Arc::new(self.disk.clone())).clock(clock).background(false)
    }

    fn stream(&self) -> Stream {
        self.stream.clone().expect("an open stream")
    }

    /// One of the shards that ever were, or one that never was.
    fn pick(&self, choice: u8) -> ShardId {
        let ever = self.shards.keys().next_back().map_or(0, |last| last.get() + 1);
        ShardId::new(u32::from(choice) % (ever + 1))
    }

    fn open_shards(&self) -> Vec<ShardId> {
        let mut open: Vec<_> = self.shards.iter().filter(|(_, shard)| shard.closed.is_none()).collect();
        open.sort_by_key(|(_, shard)| shard.range);
        open.into_iter().map(|(id, _)| *id).collect()
    }

    fn cutoff(&self) -> Option<Timestamp> {
        self.retention.map(|period| Timestamp::from_millis(self.clock.now().as_millis() - period))
    }

    /// The earliest record shown, found in the stream and compared with what is predicted.
    fn earliest(&self, id: ShardId) -> u64 {
        let shard = &self.shards[&id];
        let by_age = self.cutoff().map_or(shard.starting, |cutoff| shard.first_at(cutoff));
        let iterator = self.stream().shard_iterator(id, ShardIteratorType::TrimHorizon).unwrap();
        let earliest = iterator.next_sequence_number().get();
        let predicted = shard.horizon.max(by_age)..=shard.horizon.max(by_age).max(shard.removable);
        assert!(predicted.contains(&earliest), "{id} starts at {earliest}, predicted {predicted:?}");
        earliest
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Put(put) => self.put(&put),
            Step::Expect(put, off) => self.put_expecting(&put, off),
            Step::Batch(puts) => self.put_batch(&puts),
            Step::Sync => {
                self.stream().sync().unwrap();
                self.all_durable();
            }
            Step::Split(choice, at) => self.split(choice, at),
            Step::Merge(lower, upper) => self.merge(self.pick(lower), self.pick(upper)),
            Step::Neighbours(choice) => {
                let open = self.open_shards();
                let lower = usize::from(choice) % open.len();
                let upper = (lower + 1) % open.len();
                self.merge(open[lower], open[upper]);
            }
            Step::Count(target) => {
                let open = self.stream().update_shard_count(target).unwrap();
                self.adopt_children();
                assert_eq!(open, self.open_shards());
                assert_eq!(open.len(), target as usize);
            }
            Step::Trim(choice, at) => self.trim(self.pick(choice), at),
            Step::Retention(hours) => self.change_retention(hours * HOUR),
            Step::Advance(millis) => self.clock.advance(Duration::from_millis(millis.into())),
            // With a retention period, what a clock that goes back shows again depends on the segments that went.
            Step::ClockBack(millis) if self.retention.is_none() => {
                let now = self.clock.now().as_millis();
                self.clock.set(Timestamp::from_millis(now - i64::from(millis)));
            }
            Step::ClockBack(_) => {}
            Step::Enforce => self.enforce(),
            Step::Reopen => {
                self.stream.take().unwrap().close().unwrap();
                let report = verify(PATH, verify_options(&self.disk)).unwrap();
                assert!(report.is_sound() && report.clean_close, "{report:?}");
                self.all_durable();
                self.open();
                assert!(self.stream().recovery().was_clean);
            }
            Step::Kill => {
                self.crash(Crash::ProcessKilled);
                self.open();
            }
            Step::PowerLoss(seed) => {
                self.crash(Crash::PowerLost { seed });
                self.open();
            }
            Step::Read(choice, place) => self.read(self.pick(choice), place),
            Step::Get(choice, at) => self.get(self.pick(choice), at),
            Step::Everything(place) => self.read_everything(place),
        }
    }

    fn crash(&mut self, crash: Crash) {
        self.disk = self.disk.crash(crash);
        self.stream = None;
        if crash == Crash::ProcessKilled {
            return;
        }
        let stream = self.builder().open_existing(PATH).unwrap();
        for found in stream.describe().unwrap().shards {
            // A power cut may take a suffix of what was not durable.
            let shard = self.shards.get_mut(&found.summary.shard_id).unwrap();
            let left = usize::try_from(found.next_sequence_number.get() - shard.starting).unwrap();
            assert!((shard.durable..=shard.held.len()).contains(&left), "{left} records are left");
            shard.held.truncate(left);
        }
        self.stream = Some(stream);
        self.let_the_clock_be_believed();
        self.all_durable();
        self.disk = self.disk.crash(Crash::ProcessKilled);
        self.stream = None;
    }

    fn open(&mut self) {
        self.stream = Some(self.builder().open_existing(PATH).unwrap());
        self.let_the_clock_be_believed();
        self.all_durable();
    }

    fn all_durable(&mut self) {
        self.shards.values_mut().for_each(|shard| shard.durable = shard.held.len());
    }

    fn data(&mut self, put: &Put) -> Vec<u8> {
        self.puts += 1;
        let mut data = self.puts.to_le_bytes().to_vec();
        data.resize(put.bytes, put.key);
        data
    }

    fn route(&self, put: &Put) -> ShardId {
        let key = put.hash.map_or_else(|| self.stream().hash_key(key(put)).unwrap(), HashKey::new);
        let holders = self.shards.iter().filter(|(_, shard)| shard.closed.is_none() && shard.range.contains(key));
        let holders: Vec<_> = holders.map(|(id, _)| *id).collect();
        assert_eq!(holders.len(), 1, "the open shards tile the space");
        if put.hash.is_none() {
            assert_eq!(self.stream().route(self::key(put)).unwrap(), holders[0]);
        }
        holders[0]
    }

    fn put(&mut self, put: &Put) {
        let (id, data) = (self.route(put), self.data(put));
        let mut options = PutOptions::new();
        options.explicit_hash_key = put.hash.map(HashKey::new);
        let receipt = self.stream().put_with(key(put), &data, options).unwrap();
        self.took(id, put, data, receipt);
    }

    fn put_expecting(&mut self, put: &Put, off: u8) {
        let (id, data) = (self.route(put), self.data(put));
        let next = self.shards[&id].next();
        let expected = SequenceNumber::new(next + u64::from(off));
        let mut options = PutOptions::new().expect_next(expected);
        options.explicit_hash_key = put.hash.map(HashKey::new);
        match self.stream().put_with(key(put), &data, options) {
            Ok(receipt) => {
                assert_eq!(off, 0, "a condition that does not hold");
                self.took(id, put, data, receipt);
            }
            Err(Error::SequenceNumberMismatch { shard_id, expected: named, actual }) => {
                assert_eq!((shard_id, named, actual.get()), (id, expected, next));
                assert_ne!(off, 0, "a condition that holds");
            }
            Err(other) => panic!("{other:?}"),
        }
    }

    fn put_batch(&mut self, puts: &[Put]) {
        let routed: Vec<_> = puts.iter().map(|put| (self.route(put), self.data(put))).collect();
        let entries: Vec<_> = puts
            .iter()
            .zip(&routed)
            .map(|(put, (_, data))| PutEntry {
                explicit_hash_key: put.hash.map(HashKey::new),
                ..PutEntry::new(key(put), data)
            })
            .collect();
        let receipts = self.stream().put_batch(&entries).unwrap();
        drop(entries);
        assert_eq!(receipts.len(), puts.len());
        for ((put, (id, data)), receipt) in puts.iter().zip(routed).zip(receipts) {
            self.took(id, put, data, receipt);
        }
    }

    fn took(&mut self, id: ShardId, put: &Put, data: Vec<u8>, receipt: PutReceipt) {
        let now = self.clock.now();
        let synced = self.synced;
        let shard = self.shards.get_mut(&id).unwrap();
        let arrival = now.max(shard.last_arrival());
        let predicted = (id, shard.next(), arrival);
        assert_eq!((receipt.shard_id, receipt.sequence_number.get(), receipt.arrival), predicted);
        shard.held.push(Held { key: key(put).to_owned(), hash: put.hash.map(HashKey::new), data, arrival });
        if synced {
            shard.durable = shard.held.len();
        }
    }

    fn split(&mut self, choice: u8, at: Option<u128>) {
        let id = self.pick(choice);
        let outcome = self.stream().split_shard(id, at.map(HashKey::new));
        let Some(shard) = self.shards.get(&id) else {
            assert!(matches!(outcome, Err(Error::ShardNotFound(named)) if named == id), "{outcome:?}");
            return;
        };
        if shard.closed.is_some() {
            assert!(matches!(outcome, Err(Error::ShardClosed(named)) if named == id), "{outcome:?}");
            return;
        }
        let at = at.map(HashKey::new).or_else(|| shard.range.middle());
        let Some((lower, upper)) = at.and_then(|at| shard.range.split(at)) else {
            assert!(matches!(outcome, Err(Error::InvalidArgument { .. })), "{outcome:?}");
            return;
        };
        let children = outcome.unwrap();
        self.adopt_children();
        assert_eq!((self.shards[&children.0].range, self.shards[&children.1].range), (lower, upper));
    }

    fn merge(&mut self, lower: ShardId, upper: ShardId) {
        let outcome = self.stream().merge_shards(lower, upper);
        for id in [lower, upper] {
            match self.shards.get(&id) {
                None => {
                    assert!(matches!(outcome, Err(Error::ShardNotFound(named)) if named == id), "{outcome:?}");
                    return;
                }
                Some(shard) if shard.closed.is_some() => {
                    assert!(matches!(outcome, Err(Error::ShardClosed(named)) if named == id), "{outcome:?}");
                    return;
                }
                Some(_) => {}
            }
        }
        let Some(range) = self.shards[&lower].range.join(self.shards[&upper].range) else {
            let named = (lower, upper);
            assert!(
                matches!(outcome, Err(Error::NotAdjacent { lower, upper }) if (lower, upper) == named),
                "{outcome:?}"
            );
            return;
        };
        let child = outcome.unwrap();
        self.adopt_children();
        assert_eq!(self.shards[&child].range, range);
    }

    /// Takes over the shards that were just made, each from the parents it names.
    fn adopt_children(&mut self) {
        let now = self.clock.now();
        for summary in self.stream().shards() {
            if self.shards.contains_key(&summary.shard_id) {
                continue;
            }
            let parents: Vec<_> = summary.parents.iter().map(|id| &self.shards[id]).collect();
            let starting = parents.iter().map(|parent| parent.next()).max().unwrap();
            let latest = parents.iter().map(|parent| parent.last_arrival()).max().unwrap();
            for id in &summary.parents {
                let parent = self.shards.get_mut(id).unwrap();
                parent.closed.get_or_insert(now);
                parent.durable = parent.held.len();
            }
            let child = shard(summary.parents, summary.hash_key_range, starting, now.max(latest));
            self.shards.insert(summary.shard_id, child);
        }
        assert_eq!(self.stream().open_shards(), self.open_shards());
    }

    fn trim(&mut self, id: ShardId, at: u16) {
        let Some(shard) = self.shards.get(&id) else {
            let outcome = self.stream().trim_shard(id, SequenceNumber::ZERO);
            assert!(matches!(outcome, Err(Error::ShardNotFound(named)) if named == id), "{outcome:?}");
            return;
        };
        let durable = shard.starting + shard.durable as u64;
        let before = shard.starting + u64::from(at) % (shard.held.len() as u64 + 3);
        let tail = shard.next();
        let report = match self.stream().trim_shard(id, SequenceNumber::new(before)) {
            Ok(report) => report,
            Err(Error::BeyondTail { shard_id, requested, next }) => {
                assert_eq!((shard_id, requested.get()), (id, before));
                // A `Buffered` shard is durable as far as it was synced, or further if it rolled since.
                assert!((durable..=tail).contains(&next.get()) && before > next.get(), "{before} above {next}");
                return;
            }
            Err(other) => panic!("{other:?}"),
        };
        assert!(before <= tail, "trimmed above the tail");
        let shard = self.shards.get_mut(&id).unwrap();
        shard.horizon = shard.horizon.max(before);
        shard.durable = shard.durable.max(usize::try_from(before - shard.starting).unwrap());
        assert!(report.records_removed <= before - shard.starting, "{report:?}");
        assert_eq!(report.shards_removed, []);
    }

    /// Sets the retention period, in milliseconds, and tries the wrong way of doing so.
    fn change_retention(&mut self, period: i64) {
        let Some(present) = self.retention else {
            let outcome = self.stream().increase_retention(self::period(period));
            assert!(matches!(outcome, Err(Error::InvalidArgument { .. })), "unlimited is the longest");
            return;
        };
        let stream = self.stream();
        let (right, wrong) = if period >= present {
            let right = stream.increase_retention(self::period(period));
            (right, (period > present).then(|| stream.increase_retention(self::period(present))))
        } else {
            let right = stream.decrease_retention(self::period(period));
            (right, Some(stream.decrease_retention(self::period(present))))
        };
        right.unwrap();
        if let Some(wrong) = wrong {
            assert!(matches!(wrong, Err(Error::InvalidArgument { .. })), "the wrong way: {wrong:?}");
        }
        // What has expired stays hidden under a longer period, as far as it is durable.
        let cutoff = Timestamp::from_millis(self.clock.now().as_millis() - present);
        for shard in self.shards.values_mut() {
            let hidden = shard.first_at(cutoff);
            shard.horizon = shard.horizon.max(hidden.min(shard.starting + shard.durable as u64));
            shard.removable = shard.removable.max(hidden);
        }
        self.retention = Some(period);
        assert_eq!(stream.retention(), self::period(period));
    }

    fn enforce(&mut self) {
        let report = self.stream().enforce_retention().unwrap();
        let Some(cutoff) = self.cutoff() else {
            assert_eq!(report, anabranch::TrimReport::default());
            return;
        };
        let mut expired = Vec::new();
        for (id, shard) in &mut self.shards {
            let first = shard.first_at(cutoff);
            shard.removable = shard.removable.max(first);
            if shard.closed.is_some_and(|closed| closed < cutoff) && first == shard.next() {
                expired.push(*id);
            }
        }
        assert_eq!(report.shards_removed, expired);
        self.shards.retain(|id, _| !expired.contains(id));
    }

    /// A number from two below the shard's first to two above its next.
    fn number(&self, id: ShardId, at: u16) -> u64 {
        let shard = &self.shards[&id];
        (shard.starting + u64::from(at) % (shard.held.len() as u64 + 5)).saturating_sub(2)
    }

    fn time(&self, id: ShardId, at: u16) -> Timestamp {
        let held = &self.shards[&id].held;
        let arrival = held.get(usize::from(at) % (held.len() + 1)).map_or(self.clock.now(), |held| held.arrival);
        Timestamp::from_millis(arrival.as_millis() + i64::from(at % 3) - 1)
    }

    fn read(&self, id: ShardId, place: Place) {
        let stream = self.stream();
        let Some(shard) = self.shards.get(&id) else {
            let outcome = stream.shard_iterator(id, ShardIteratorType::TrimHorizon);
            assert!(matches!(outcome, Err(Error::ShardNotFound(named)) if named == id), "{outcome:?}");
            return;
        };
        let (earliest, next) = (self.earliest(id), shard.next());
        let (kind, requested, from) = match place {
            Place::TrimHorizon => (ShardIteratorType::TrimHorizon, 0, earliest),
            Place::Latest => (ShardIteratorType::Latest, 0, next),
            Place::At(at) => {
                let number = self.number(id, at);
                (ShardIteratorType::AtSequenceNumber(number.into()), number, number)
            }
            Place::After(at) => {
                let number = self.number(id, at);
                (ShardIteratorType::AfterSequenceNumber(number.into()), number, number + 1)
            }
            Place::AtTime(at) => {
                let time = self.time(id, at);
                (ShardIteratorType::AtTimestamp(time), 0, shard.first_at(time).max(earliest))
            }
        };
        let outcome = stream.shard_iterator(id, kind);
        if from > next {
            let named = (id, requested.into(), next.into());
            assert!(
                matches!(outcome, Err(Error::BeyondTail { shard_id, requested, next }) if (shard_id, requested, next) == named),
                "{outcome:?}"
            );
            return;
        }
        if from < earliest {
            let named = (id, requested.into(), earliest.into());
            assert!(
                matches!(outcome, Err(Error::Trimmed { shard_id, requested, earliest }) if (shard_id, requested, earliest) == named),
                "{outcome:?}"
            );
            return;
        }
        let mut iterator = outcome.unwrap();
        assert_eq!(iterator.next_sequence_number().get(), from, "{kind:?}");
        assert_eq!(iterator.records_behind(), next - from, "{kind:?}");
        let behind = iterator.millis_behind_latest().unwrap();
        let age = shard.from(from).first().map(|(_, held)| shard.last_arrival().millis_since(held.arrival).max(1));
        assert_eq!(behind, age.unwrap_or(0), "{kind:?}");
        if from < next {
            assert_eq!(iterator.end_of_shard(), None);
        }
        let found: Vec<_> = iterator.available().map(|record| held(&record.unwrap())).collect();
        assert_eq!(found, shard.from(from), "{kind:?}");
        assert_eq!((iterator.records_behind(), iterator.millis_behind_latest().unwrap()), (0, 0));
        let children = iterator.end_of_shard();
        assert_eq!(children.is_some(), shard.closed.is_some());
        for child in children.unwrap_or_default() {
            assert_eq!(child.parents, self.shards[&child.shard_id].parents);
        }
    }

    fn get(&self, id: ShardId, at: u16) {
        let Some(shard) = self.shards.get(&id) else {
            let outcome = self.stream().get(id, SequenceNumber::ZERO);
            assert!(matches!(outcome, Err(Error::ShardNotFound(named)) if named == id), "{outcome:?}");
            return;
        };
        let (number, earliest, next) = (self.number(id, at), self.earliest(id), shard.next());
        match self.stream().get(id, number.into()) {
            Ok(record) => {
                assert!((earliest..next).contains(&number), "{number} is not within {earliest}..{next}");
                assert_eq!(Some(&held(&record)), shard.from(number).first());
            }
            Err(Error::Trimmed { earliest: named, .. }) => {
                assert!(number < earliest && named.get() == earliest, "{number} below {earliest}, named {named}");
            }
            Err(Error::BeyondTail { next: named, .. }) => {
                assert!(number >= next && named.get() == next, "{number} above {next}, named {named}");
            }
            Err(other) => panic!("{other:?}"),
        }
    }

    /// Reads all shards at once: each record that is shown, and each key in its order.
    fn read_everything(&self, place: Place) {
        let time = match place {
            Place::AtTime(at) => Some(self.time(*self.shards.keys().next().unwrap(), at)),
            _ => None,
        };
        let start = match (place, time) {
            (_, Some(time)) => RecordsStart::AtTimestamp(time),
            (Place::Latest, None) => RecordsStart::Latest,
            _ => RecordsStart::TrimHorizon,
        };
        let mut found: BTreeMap<ShardId, Vec<_>> = BTreeMap::new();
        let mut last_of_key = BTreeMap::new();
        for record in self.stream().records(start).unwrap().available() {
            let record = record.unwrap();
            if record.explicit_hash_key().is_none() {
                let before = last_of_key.insert(record.partition_key().to_owned(), record.sequence_number());
                assert!(before.is_none_or(|before| before < record.sequence_number()), "{record:?}");
            }
            found.entry(record.shard_id()).or_default().push(held(&record));
        }
        for (id, shard) in &self.shards {
            let from = match start {
                RecordsStart::Latest => shard.next(),
                RecordsStart::AtTimestamp(time) => shard.first_at(time).max(self.earliest(*id)),
                _ => self.earliest(*id),
            };
            assert_eq!(found.remove(id).unwrap_or_default(), shard.from(from), "{id} from {start:?}");
        }
        assert!(found.is_empty(), "shards that do not exist: {found:?}");
    }

    /// Compares the stream's own description with the model.
    fn check(&self) {
        let description = self.stream().describe().unwrap();
        let listed: Vec<_> = description.shards.iter().map(|shard| shard.summary.shard_id).collect();
        assert_eq!(listed, self.shards.keys().copied().collect::<Vec<_>>());
        for found in description.shards {
            let id = found.summary.shard_id;
            let shard = &self.shards[&id];
            let (earliest, next) = (self.earliest(id), shard.next());
            let is_empty = earliest == next;
            assert_eq!(found.summary.state == ShardState::Open, shard.closed.is_none(), "{id}");
            assert_eq!(found.summary.closed, shard.closed, "{id}");
            assert_eq!(found.summary.hash_key_range, shard.range, "{id}");
            assert_eq!(found.starting_sequence_number.get(), shard.starting, "{id}");
            assert_eq!(found.next_sequence_number.get(), next, "{id}");
            assert_eq!(found.records, next - earliest, "{id}");
            assert_eq!(
                found.first_sequence_number.map(SequenceNumber::get),
                (!is_empty).then_some(earliest),
                "{id}"
            );
            assert_eq!(found.last_sequence_number.map(|last| last.get() + 1), (!is_empty).then_some(next), "{id}");
        }
    }
}

fn shard(parents: Vec<ShardId>, range: HashKeyRange, starting: u64, not_before: Timestamp) -> ModelShard {
    ModelShard {
        parents,
        range,
        starting,
        held: Vec::new(),
        durable: 0,
        closed: None,
        not_before,
        horizon: starting,
        removable: starting,
    }
}

fn key(put: &Put) -> &'static str {
    ["cart", "home", "search", "checkout", "ein Schlüssel"][usize::from(put.key)]
}

fn period(millis: i64) -> RetentionPeriod {
    RetentionPeriod::Millis(u64::try_from(millis).unwrap())
}

fn held(record: &Record) -> (u64, Held) {
    let held = Held {
        key: record.partition_key().to_owned(),
        hash: record.explicit_hash_key(),
        data: record.data().to_vec(),
        arrival: record.arrival(),
    };
    (record.sequence_number().get(), held)
}

fn verify_options(disk: &SimulatedDisk) -> anabranch::VerifyOptions<'static> {
    anabranch::VerifyOptions { storage: Some(Arc::new(disk.clone())), progress: None }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_stream_does_what_the_model_predicts(
        synced: bool,
        limited: bool,
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let mut model = Model::new(synced, limited);
        for step in steps {
            model.step(step);
            model.check();
        }
        model.read_everything(Place::TrimHorizon);
    }
}
