//! The memory of what was promised: everything acknowledged, everything shown, everything that may have happened.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use anabranch::{
    Clock, Error, ErrorKind, HashKey, HashKeyRange, ManualClock, PutReceipt, Record, RecordsStart, SequenceNumber,
    ShardDescription, ShardId, ShardIteratorType, ShardState, SimulatedDisk, Stream, Timestamp,
};

use crate::positions::{Known, check_done};

/// Who makes the checkpoints.
pub(crate) const CONSUMER: &str = "billing";

/// What a crash has to spare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Survives {
    /// All that was acknowledged at any level: the process died, or was not even killed.
    Written,
    /// All that was acknowledged as `Synced`, or shown where only that is shown.
    Durable,
}

/// A record that was put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) data: Rc<[u8]>,
    pub(crate) hash_key: Option<HashKey>,
    /// How many records of its batch follow in its shard.
    pub(crate) batch_left: usize,
    /// Known once acknowledged or seen.
    pub(crate) stamp: Option<Stamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) arrival: Timestamp,
    pub(crate) incarnation: u64,
}

impl Entry {
    /// Stands for a record that nobody was told of: nobody can read it any more, or until the stream is opened again.
    fn unknown() -> Self {
        Self { key: String::new(), data: Rc::from([]), hash_key: None, batch_left: 0, stamp: None }
    }

    fn is_unknown(&self) -> bool {
        self.key.is_empty()
    }

    fn is(&self, record: &Record) -> bool {
        record.partition_key() == self.key
            && record.data() == &*self.data
            && record.explicit_hash_key() == self.hash_key
            && self.stamp.is_none_or(|stamp| stamp == stamp_of(record))
    }
}

fn stamp_of(record: &Record) -> Stamp {
    Stamp { arrival: record.arrival(), incarnation: record.incarnation() }
}

#[derive(Debug, Clone)]
pub(crate) struct ShardLedger {
    pub(crate) range: HashKeyRange,
    pub(crate) parents: Vec<ShardId>,
    pub(crate) is_open: bool,
    pub(crate) starting: u64,
    /// Numbered from `starting`.
    pub(crate) entries: Vec<Entry>,
    /// So many of them survive a power cut.
    pub(crate) durable: usize,
    /// So many of them survive the death of the process.
    pub(crate) written: usize,
    /// Readers start here or above: acknowledged.
    pub(crate) horizon: u64,
    /// The highest horizon that was ever asked for.
    pub(crate) horizon_most: u64,
    /// Batches whose puts failed with an unknown outcome, each of which may be there behind the last entry.
    pub(crate) attempts: Vec<Vec<Entry>>,
    /// Attempts that came before an acknowledged record, and could not be read when that came.
    unread: Vec<Entry>,
    /// Whether it answered that it takes no more records until it is opened again.
    pub(crate) failed: bool,
}

impl ShardLedger {
    pub(crate) fn new(range: HashKeyRange, parents: Vec<ShardId>, starting: u64) -> Self {
        Self {
            range,
            parents,
            is_open: true,
            starting,
            entries: Vec::new(),
            durable: 0,
            written: 0,
            horizon: starting,
            horizon_most: starting,
            attempts: Vec::new(),
            unread: Vec::new(),
            failed: false,
        }
    }

    pub(crate) fn next(&self) -> u64 {
        self.starting + self.entries.len() as u64
    }

    pub(crate) fn durable_next(&self) -> u64 {
        self.starting + self.durable as u64
    }

    pub(crate) fn all_durable(&mut self) {
        self.durable = self.entries.len();
        self.written = self.entries.len();
    }

    fn entry(&self, number: u64) -> Option<&Entry> {
        self.entries.get(usize::try_from(number.checked_sub(self.starting)?).unwrap())
    }

    /// The first record that arrived at `cutoff` or later, or the next one.
    fn first_at(&self, cutoff: Option<Timestamp>) -> u64 {
        let Some(cutoff) = cutoff else { return self.starting };
        let expired = |entry: &Entry| entry.stamp.is_none_or(|stamp| stamp.arrival < cutoff);
        self.starting + self.entries.partition_point(expired) as u64
    }

    /// Takes over an attempt that turned up at the end: from its first record on, or behind as many as nobody can read, which may have
    /// expired before anybody looked.
    fn absorb(&mut self, record: &Record) -> bool {
        let unread = self.entries.iter().rev().take_while(|entry| entry.is_unknown()).count();
        for index in 0..self.attempts.len() {
            let front = self.attempts[index].iter().position(|entry| entry.is(record));
            if let Some(front) = front.filter(|front| *front <= unread) {
                let attempt = self.attempts.remove(index);
                self.entries.extend(attempt.into_iter().skip(front));
                return true;
            }
        }
        false
    }
}

/// A split or merge whose outcome is not known.
#[derive(Debug, Clone)]
pub(crate) struct Reshard {
    pub(crate) parents: Vec<ShardId>,
    pub(crate) ranges: Vec<HashKeyRange>,
}

/// How often an interesting state was reached.
#[derive(Debug, Default)]
pub(crate) struct Visited(pub(crate) BTreeMap<&'static str, u64>);

impl Visited {
    pub(crate) fn count(&mut self, what: &'static str, happened: bool) {
        *self.0.entry(what).or_default() += u64::from(happened);
    }

    pub(crate) fn add(&mut self, others: &Self) {
        for (what, count) in &others.0 {
            *self.0.entry(what).or_default() += count;
        }
    }

    /// Prints the counts, and fails if one of the states that a run has to reach was not. They are named, since what is only counted where something else
    /// came before could otherwise be missed altogether.
    pub(crate) fn demand(&self, states: &[&str]) {
        println!("states reached:");
        for (what, count) in &self.0 {
            println!("{count:>9}  {what}");
        }
        let is_missed = |what: &&&str| self.0.get(**what).is_none_or(|count| *count == 0);
        let missed: Vec<_> = states.iter().filter(is_missed).collect();
        assert!(missed.is_empty() && !states.is_empty(), "never reached: {missed:?}");
    }
}

/// A place for all time: shard, number, incarnation.
type Named = (ShardId, u64, u64);

#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    pub(crate) shards: BTreeMap<ShardId, ShardLedger>,
    /// Closed shards that retention took.
    pub(crate) expired: BTreeSet<ShardId>,
    /// Splits and merges whose outcome is not known: one of them, at most, has happened.
    pub(crate) pending: Vec<Reshard>,
    pub(crate) retention_ms: Option<u64>,
    /// Every place that was acknowledged or shown, with what it named.
    seen: BTreeMap<Named, (String, Rc<[u8]>)>,
    pub(crate) consumer: Known,
    /// Of the present opening.
    pub(crate) incarnation: u64,
}

impl Ledger {
    pub(crate) fn new(shards: u32, retention_ms: Option<u64>) -> Self {
        let ranges = HashKeyRange::partition(shards).into_iter();
        let shards = (0..).map(ShardId::new).zip(ranges.map(|range| ShardLedger::new(range, Vec::new(), 0)));
        Self {
            shards: shards.collect(),
            expired: BTreeSet::new(),
            pending: Vec::new(),
            retention_ms,
            seen: BTreeMap::new(),
            consumer: Known::absent(),
            incarnation: 0,
        }
    }

    pub(crate) fn shard_of(&self, key: HashKey) -> ShardId {
        let mut holders = self.shards.iter().filter(|(_, shard)| shard.is_open && shard.range.contains(key));
        let holder = *holders.next().expect("the open shards tile the space").0;
        assert!(holders.next().is_none(), "two open shards hold {key}");
        holder
    }

    pub(crate) fn shard(&mut self, id: ShardId) -> &mut ShardLedger {
        self.shards.get_mut(&id).expect("a shard that the ledger knows")
    }

    pub(crate) fn open_shards(&self) -> Vec<ShardId> {
        let mut open: Vec<_> = self.shards.iter().filter(|(_, shard)| shard.is_open).collect();
        open.sort_by_key(|(_, shard)| shard.range);
        open.into_iter().map(|(id, _)| *id).collect()
    }

    /// Enters a record that was acknowledged.
    pub(crate) fn acknowledge(&mut self, stream: &Stream, entry: Entry, receipt: PutReceipt, synced: bool) {
        let (id, number) = (receipt.shard_id, receipt.sequence_number.get());
        self.absorb_before(stream, id, number);
        let stamp = Stamp { arrival: receipt.arrival, incarnation: self.incarnation };
        self.see(id, number, stamp, &entry);
        let shard = self.shard(id);
        assert!(shard.is_open, "{id} is closed");
        assert_eq!(number, shard.next(), "the number of a new record of {id}");
        if let Some(last) = shard.entries.last().and_then(|last| last.stamp) {
            assert!(last.arrival <= receipt.arrival, "arrival times fall in {id}");
        }
        let is_last_of_batch = entry.batch_left == 0;
        shard.entries.push(Entry { stamp: Some(stamp), ..entry });
        let before = std::mem::take(&mut shard.attempts);
        shard.unread.extend(before.into_iter().flatten());
        if is_last_of_batch {
            shard.written = shard.entries.len();
            if synced {
                shard.durable = shard.entries.len();
            }
        }
    }

    /// Records whose put failed may have come before an acknowledged one: reads which.
    pub(crate) fn absorb_before(&mut self, stream: &Stream, id: ShardId, number: u64) {
        while self.shard(id).next() < number {
            let place = SequenceNumber::new(self.shard(id).next());
            match stream.get(id, place) {
                Ok(record) => assert!(self.shard(id).absorb(&record), "{record:?} was never put"),
                // Expired before anybody looked: something was there, and nothing more is to be known of it.
                Err(Error::Trimmed { .. }) => self.shard(id).entries.push(Entry::unknown()),
                // It is staged, and the disk does not take it.
                Err(error)
                    if matches!(error.kind(), ErrorKind::Io | ErrorKind::StorageFull | ErrorKind::Reopen) =>
                {
                    let shard = self.shard(id);
                    assert!(!shard.attempts.is_empty(), "{id} has no record that could be below {number}");
                    shard.failed |= matches!(error, Error::ShardFailed { .. });
                    shard.entries.push(Entry::unknown());
                }
                Err(error) => panic!("a record below an acknowledged one: {error:?}"),
            }
        }
    }

    /// Readers start at `number`: attempts that were there and expired before anybody looked stay unknown.
    pub(crate) fn starts_at(&mut self, id: ShardId, number: u64) {
        let shard = self.shard(id);
        while shard.next() < number {
            assert!(!shard.attempts.is_empty(), "{id} starts at {number}, behind all that was put");
            shard.entries.push(Entry::unknown());
        }
    }

    /// Enters that a place was shown or promised: it never names anything else.
    fn see(&mut self, id: ShardId, number: u64, stamp: Stamp, entry: &Entry) {
        let named = (entry.key.clone(), Rc::clone(&entry.data));
        let before = self.seen.entry((id, number, stamp.incarnation)).or_insert_with(|| named.clone());
        assert_eq!(*before, named, "{id} {number} of incarnation {} named something else", stamp.incarnation);
    }

    /// A reader was shown a record.
    pub(crate) fn shown(&mut self, record: &Record, durable: bool) {
        let (id, number) = (record.shard_id(), record.sequence_number().get());
        let shard = self.shard(id);
        if number >= shard.next() {
            assert!(number == shard.next() && shard.absorb(record), "{record:?} was never put");
        }
        let index = usize::try_from(number - shard.starting).unwrap();
        let entry = &mut shard.entries[index];
        if entry.is_unknown() {
            let found = shard.unread.iter().find(|entry| entry.is(record));
            *entry = found.unwrap_or_else(|| panic!("{record:?} was never put")).clone();
        }
        assert!(entry.is(record), "{record:?} of {:?} is not what was put: {entry:?}", stamp_of(record));
        entry.stamp = Some(stamp_of(record));
        let entry = entry.clone();
        shard.written = shard.written.max(index + 1);
        if durable {
            shard.durable = shard.durable.max(index + 1);
        }
        self.see(id, number, stamp_of(record), &entry);
    }

    pub(crate) fn apply(&mut self, reshard: &Reshard, children: &[ShardId], starting: u64) {
        for parent in &reshard.parents {
            let parent = self.shard(*parent);
            parent.is_open = false;
            parent.all_durable();
            parent.attempts.clear();
        }
        for (id, range) in children.iter().zip(&reshard.ranges) {
            let child = ShardLedger::new(*range, reshard.parents.clone(), starting);
            assert!(self.shards.insert(*id, child).is_none(), "{id} was used before");
        }
        self.pending.clear();
    }

    pub(crate) fn cutoff(&self, clock: &ManualClock) -> Option<Timestamp> {
        self.retention_ms.map(|period| {
            Timestamp::from_millis(clock.now().as_millis().saturating_sub(i64::try_from(period).unwrap()))
        })
    }

    /// Compares a stream that was just opened with all that was promised, and takes over what it shows: all of it
    /// is durable now.
    pub(crate) fn settle(&mut self, stream: &Stream, clock: &ManualClock, crash: Survives, visited: &mut Visited) {
        let description = stream.describe().expect("a description");
        assert!(description.incarnation > self.incarnation, "an opening did not raise the incarnation");
        self.incarnation = description.incarnation;
        let listed: BTreeMap<_, _> =
            description.shards.iter().map(|shard| (shard.summary.shard_id, shard.clone())).collect();
        self.settle_topology(stream, &listed, clock, visited);
        let mut shown = 0;
        for (id, description) in &listed {
            shown += self.settle_shard(stream, *id, description, clock, crash, visited);
        }
        check_lineage(&listed);
        check_order_of_keys(stream, shown);
        self.consumer.crashed(crash);
    }

    /// Opens the consumer, if there is one: it stands where it may, which is durable now, and is given what is not done.
    pub(crate) fn settle_consumer(&mut self, stream: &Stream, visited: &mut Visited) {
        let is_unknown = self.consumer.exists.is_none();
        let found = self.consumer.look(stream, CONSUMER, visited).expect("an opening of the consumer");
        if is_unknown {
            visited.count("creation of a consumer cut short, made", found.is_some());
            visited.count("creation of a consumer cut short, not made", found.is_none());
        }
        if let Some(consumer) = found {
            check_done(&consumer, visited);
        }
    }

    fn settle_topology(
        &mut self,
        stream: &Stream,
        listed: &BTreeMap<ShardId, ShardDescription>,
        clock: &ManualClock,
        visited: &mut Visited,
    ) {
        let unknown: Vec<_> = listed.keys().copied().filter(|id| !self.shards.contains_key(id)).collect();
        let pending = std::mem::take(&mut self.pending);
        if !pending.is_empty() {
            visited.count("reshard cut short, in force", !unknown.is_empty());
            visited.count("reshard cut short, not in force", unknown.is_empty());
        }
        if let Some(child) = unknown.first().map(|id| &listed[id]) {
            let parents = &child.summary.parents;
            let reshard = pending.into_iter().find(|reshard| reshard.parents == *parents);
            let reshard = reshard.expect("no shards but those that somebody asked for");
            assert_eq!(unknown.len(), reshard.ranges.len(), "all children or none");
            self.apply(&reshard, &unknown, child.starting_sequence_number.get());
        }
        let cutoff = self.cutoff(clock);
        for (id, shard) in self.shards.clone() {
            let Some(found) = listed.get(&id) else {
                let all_expired = cutoff.is_some() && shard.first_at(cutoff) == shard.next();
                assert!(!shard.is_open && all_expired, "{id} is gone");
                self.shards.remove(&id);
                self.expired.insert(id);
                continue;
            };
            assert_eq!(found.summary.state == ShardState::Open, shard.is_open, "{id} is open");
            assert_eq!(found.summary.hash_key_range, shard.range, "the range of {id}");
            assert_eq!(found.summary.parents, shard.parents, "the parents of {id}");
            assert_eq!(found.starting_sequence_number.get(), shard.starting, "the start of {id}");
            assert!(!self.expired.contains(&id), "{id} had expired");
        }
        assert_eq!(stream.open_shards(), self.open_shards(), "the open shards in order");
        let mut next_key = Some(HashKey::MIN);
        for id in self.open_shards() {
            let range = self.shards[&id].range;
            assert_eq!(Some(range.start()), next_key, "the open shards tile the space");
            next_key = range.end().get().checked_add(1).map(HashKey::new);
        }
        assert_eq!(next_key, None, "the open shards tile the space");
    }

    fn settle_shard(
        &mut self,
        stream: &Stream,
        id: ShardId,
        description: &ShardDescription,
        clock: &ManualClock,
        crash: Survives,
        visited: &mut Visited,
    ) -> u64 {
        let mut iterator = stream.shard_iterator(id, ShardIteratorType::TrimHorizon).expect("an iterator");
        let from = iterator.next_sequence_number().get();
        let records = iterator.available().collect::<Result<Vec<_>, _>>().expect("sound records");
        let end = from + records.len() as u64;
        self.starts_at(id, from);
        assert_eq!(description.next_sequence_number.get(), end, "where {id} ends");
        assert_eq!(description.records, records.len() as u64, "the records of {id}");
        for (number, record) in (from..).zip(&records) {
            assert_eq!((record.shard_id(), record.sequence_number().get()), (id, number), "{id} is dense");
            self.shown(record, true);
        }

        let cutoff = self.cutoff(clock);
        let shard = self.shard(id);
        let required = match crash {
            Survives::Written => shard.written,
            Survives::Durable => shard.durable,
        };
        let held = usize::try_from(end - shard.starting).unwrap();
        assert!(
            held >= required,
            "{id} lost records: it ends at {end}, promised was {}",
            shard.starting + required as u64
        );
        assert!(held <= shard.entries.len(), "{id} holds more than was put");
        assert!(shard.is_open || held == shard.entries.len(), "{id} is closed and ends elsewhere");
        visited.count("buffered tail lost", held < shard.written);
        shard.entries.truncate(held);
        if let Some(last) = shard.entries.last() {
            assert_eq!(last.batch_left, 0, "{id} ends inside a batch");
        }
        let by_age = shard.first_at(cutoff);
        let horizons = shard.horizon.max(by_age)..=shard.horizon_most.max(by_age);
        assert!(horizons.contains(&from), "{id} starts at {from} and not within {horizons:?}");
        if from > by_age {
            shard.horizon = shard.horizon.max(from);
        }
        shard.horizon_most = shard.horizon;
        shard.all_durable();
        shard.attempts.clear();
        shard.unread.clear();
        shard.failed = false;
        records.len() as u64
    }

    /// Compares one record that a reader is given with what stands here, without taking note.
    pub(crate) fn expects(&self, record: &Record) -> bool {
        let shard = self.shards.get(&record.shard_id());
        shard.and_then(|shard| shard.entry(record.sequence_number().get())).is_some_and(|entry| entry.is(record))
    }
}

/// Reads the whole stream through its lineage: everything once, and the numbers of each key rising.
fn check_order_of_keys(stream: &Stream, shown: u64) {
    let mut last: BTreeMap<String, SequenceNumber> = BTreeMap::new();
    let mut count = 0;
    for record in stream.records(RecordsStart::TrimHorizon).expect("a reader").available() {
        let record = record.expect("a sound record");
        let number = record.sequence_number();
        let before = last.insert(record.partition_key().to_owned(), number);
        assert!(before.is_none_or(|before| before < number), "the order of key {:?}", record.partition_key());
        count += 1;
    }
    assert_eq!(count, shown, "all shards together hold what each of them holds");
}

/// Children start above everything their parents hold.
fn check_lineage(listed: &BTreeMap<ShardId, ShardDescription>) {
    for (id, shard) in listed {
        for parent in &shard.summary.parents {
            if let Some(parent) = listed.get(parent) {
                assert!(
                    shard.starting_sequence_number >= parent.next_sequence_number,
                    "{id} starts above its parents"
                );
            }
        }
    }
}

/// A batch that failed and turns up without its first record breaks a promise, unless that one expired before anybody looked.
#[test]
fn a_batch_that_turns_up_without_its_front_is_found_out() {
    let entry = |data: &str, batch_left| Entry {
        key: "key".to_owned(),
        data: Rc::from(data.as_bytes()),
        hash_key: None,
        batch_left,
        stamp: None,
    };
    let stream = Stream::builder().storage(Arc::new(SimulatedDisk::new())).create("stream").unwrap();
    let receipt = stream.put("key", "second").unwrap();
    let second = stream.get(receipt.shard_id, receipt.sequence_number).unwrap();
    let mut shard = ShardLedger::new(HashKeyRange::FULL, Vec::new(), 0);
    shard.attempts.push(vec![entry("first", 1), entry("second", 0)]);
    assert!(!shard.clone().absorb(&second), "nothing came before it");
    shard.entries.push(entry("before", 0));
    assert!(!shard.clone().absorb(&second), "another record came before it");
    shard.entries.push(Entry::unknown());
    assert!(shard.absorb(&second));
    assert_eq!(shard.entries.len(), 3);
}
