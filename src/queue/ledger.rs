//! What a queue knows of its records: a book without files, clocks or readers.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use crate::format::{QueueRecord, QueueShard};
use crate::types::{SequenceNumber, ShardId, Timestamp};

/// Where a record is.
pub(super) type Place = (ShardId, SequenceNumber);

/// The records of all shards that were received and are not done.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    shards: BTreeMap<ShardId, Shard>,
    /// Those that can be received again.
    visible: BTreeSet<Place>,
    /// Those that somebody has, by the time until which.
    in_flight: BTreeSet<(Duration, Place)>,
    /// Those that were received too often, by the time until which somebody has them.
    set_aside: BTreeSet<(Duration, Place)>,
    /// How often something changed that is kept.
    changes: u64,
}

#[derive(Debug)]
struct Shard {
    /// The first number that was never received: what is below it and not among the records is done.
    next: SequenceNumber,
    records: BTreeMap<SequenceNumber, Entry>,
}

/// A record that was received and is not done.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) first_received: Timestamp,
    pub(super) receives: u32,
    /// The number of the receipt that is in force; 0 where there is none.
    pub(super) receipt: u64,
    status: Status,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Visible,
    /// Until this time by the monotonic clock.
    InFlight(Duration),
    /// The same, once somebody received it from those that are set aside.
    SetAside(Option<Duration>),
}

/// A record that is set aside can be received from then on.
fn aside_until(until: Option<Duration>) -> Duration {
    until.unwrap_or(Duration::ZERO)
}

/// What decides whether a record is set aside.
#[derive(Debug, Clone, Copy)]
pub(super) struct Policy {
    /// After how many receives; none for never.
    pub(super) max_receives: Option<u32>,
    /// How many there may be.
    pub(super) max_set_aside: usize,
}

/// A receive, as it is put down.
#[derive(Debug, Clone, Copy)]
pub(super) struct Receive {
    pub(super) at: Timestamp,
    pub(super) until: Duration,
    pub(super) receipt: u64,
}

/// How many records of a shard are in which state.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) visible: usize,
    pub(super) in_flight: usize,
    pub(super) set_aside: usize,
}

impl Ledger {
    /// What was kept: nobody has any of it.
    pub(super) fn of_shards(kept: Vec<QueueShard>) -> Self {
        let mut ledger = Self::default();
        for QueueShard { shard_id, next, records } in kept {
            for record in &records {
                let place = (shard_id, record.sequence_number);
                if record.set_aside {
                    ledger.set_aside.insert((aside_until(None), place));
                } else {
                    ledger.visible.insert(place);
                }
            }
            let records = records.into_iter().map(|record| (record.sequence_number, Entry::of(record))).collect();
            ledger.shards.insert(shard_id, Shard { next, records });
        }
        ledger
    }

    /// What is to be kept.
    pub(super) fn to_shards(&self) -> Vec<QueueShard> {
        let shards = self.shards.iter().map(|(shard_id, shard)| QueueShard {
            shard_id: *shard_id,
            next: shard.next,
            records: shard.records.iter().map(|(number, entry)| entry.kept(*number)).collect(),
        });
        shards.collect()
    }

    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    pub(super) fn shard_ids(&self) -> impl Iterator<Item = ShardId> {
        self.shards.keys().copied()
    }

    pub(super) fn add_shard(&mut self, shard_id: ShardId, next: SequenceNumber) {
        self.shards.entry(shard_id).or_insert_with(|| {
            self.changes += 1;
            Shard { next, records: BTreeMap::new() }
        });
    }

    /// Retention took the shard.
    pub(super) fn remove_shard(&mut self, shard_id: ShardId) {
        self.drop_records(shard_id, SequenceNumber::new(u64::MAX), |_| true);
        if self.shards.remove(&shard_id).is_some() {
            self.changes += 1;
        }
    }

    /// The first number that was never received.
    pub(super) fn next(&self, shard_id: ShardId) -> SequenceNumber {
        self.shards.get(&shard_id).map_or(SequenceNumber::ZERO, |shard| shard.next)
    }

    /// The numbers below this one are not there to be received.
    pub(super) fn pass_to(&mut self, shard_id: ShardId, next: SequenceNumber) {
        if let Some(shard) = self.shards.get_mut(&shard_id).filter(|shard| shard.next < next) {
            shard.next = next;
            self.changes += 1;
        }
    }

    /// There is nothing at this number and above it.
    pub(super) fn return_to(&mut self, shard_id: ShardId, tail: SequenceNumber) {
        let Some(shard) = self.shards.get_mut(&shard_id).filter(|shard| shard.next > tail) else { return };
        shard.next = tail;
        self.changes += 1;
        let gone: Vec<_> = shard.records.range(tail..).map(|(number, _)| (shard_id, *number)).collect();
        for place in gone {
            self.forget(place);
        }
    }

    /// Retention keeps nothing below this number: what nobody has of it is gone.
    pub(super) fn trim(&mut self, shard_id: ShardId, horizon: SequenceNumber) {
        self.drop_records(shard_id, horizon, |entry| !matches!(entry.status, Status::InFlight(_)));
        self.pass_to(shard_id, horizon);
    }

    /// Records that were received and are neither done nor set aside.
    pub(super) fn unacknowledged(&self) -> usize {
        self.visible.len() + self.in_flight.len()
    }

    pub(super) fn has_visible(&self) -> bool {
        !self.visible.is_empty()
    }

    /// The first records that can be received again.
    pub(super) fn visible(&self, most: usize) -> Vec<Place> {
        self.visible.iter().take(most).copied().collect()
    }

    /// When the first record that somebody has can be received again.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.in_flight.first().map(|(until, _)| *until)
    }

    /// The first records that are set aside and that nobody has.
    pub(super) fn visible_aside(&self, now: Duration, most: usize) -> Vec<Place> {
        let visible = self.set_aside.iter().take_while(|(until, _)| *until <= now);
        visible.take(most).map(|(_, place)| *place).collect()
    }

    /// The record was received, for the first time or again. One that is set aside stays so.
    pub(super) fn receive(&mut self, place: Place, receive: Receive) -> Entry {
        let Receive { at, until, receipt } = receive;
        let mut entry = match self.take_out(place) {
            Some(entry) => entry,
            None => Entry { first_received: at, receives: 0, receipt, status: Status::Visible },
        };
        entry.receives = entry.receives.saturating_add(1);
        entry.receipt = receipt;
        self.pass_to(place.0, place.1.next());
        self.put_in(place, entry.held(until));
        entry
    }

    /// The record is done. False for a receipt that is not in force.
    pub(super) fn acknowledge(&mut self, place: Place, receipt: u64) -> bool {
        self.is_in_force(place, receipt) && self.take_out(place).is_some()
    }

    /// The record is invisible until this time instead. False for a receipt that is not in force.
    pub(super) fn hold(&mut self, place: Place, receipt: u64, until: Duration) -> bool {
        let is_held = |entry: &Entry| entry.status != Status::SetAside(None);
        let holds = self.is_in_force(place, receipt) && self.entry(place).is_some_and(is_held);
        if let Some(entry) = holds.then(|| self.take_out(place)).flatten() {
            self.put_in(place, entry.held(until));
        }
        holds
    }

    /// The record was received, and given to nobody: that does not count, and it can be received at once. Nothing happens for a receipt that is not in force.
    pub(super) fn take_back(&mut self, place: Place, receipt: u64) {
        let Some(entry) = self.is_in_force(place, receipt).then(|| self.take_out(place)).flatten() else { return };
        let status = if entry.is_aside() { Status::SetAside(None) } else { Status::Visible };
        self.put_in(place, Entry { receives: entry.receives.saturating_sub(1), receipt: 0, status, ..entry });
    }

    /// Whose time is over can be received again, or is set aside.
    pub(super) fn expire(&mut self, now: Duration, policy: Policy) {
        while let Some((_, place)) = self.in_flight.first().copied().filter(|(until, _)| *until <= now) {
            self.let_go(place, policy);
        }
    }

    /// Sets aside what was received often enough and is not: the policy may have changed.
    pub(super) fn sweep(&mut self, policy: Policy) {
        for place in self.visible(usize::MAX) {
            self.let_go(place, policy);
        }
    }

    /// Every record that is set aside.
    pub(super) fn set_aside(&self) -> impl Iterator<Item = (Place, Entry)> {
        let of_shard = |(shard_id, shard): (&ShardId, &Shard)| {
            let aside = shard.records.iter().filter(|(_, entry)| entry.is_aside());
            let shard_id = *shard_id;
            aside.map(|(number, entry)| ((shard_id, *number), *entry)).collect::<Vec<_>>()
        };
        self.shards.iter().flat_map(of_shard)
    }

    /// A record that is set aside is received again, as if for the first time. False where there is none.
    pub(super) fn restore(&mut self, place: Place) -> bool {
        let entry = self.take_set_aside(place);
        if let Some(entry) = entry {
            self.put_in(place, Entry { receives: 0, receipt: 0, status: Status::Visible, ..entry });
        }
        entry.is_some()
    }

    /// The same of one that was received from those that are set aside. False for a receipt that is not in force.
    pub(super) fn restore_held(&mut self, place: Place, receipt: u64) -> bool {
        let is_held = |entry: &Entry| matches!(entry.status, Status::SetAside(Some(_)));
        self.is_in_force(place, receipt) && self.entry(place).is_some_and(is_held) && self.restore(place)
    }

    /// A record that is set aside is done. False where there is none.
    pub(super) fn discard(&mut self, place: Place) -> bool {
        self.take_set_aside(place).is_some()
    }

    /// The record is not there any more.
    pub(super) fn forget(&mut self, place: Place) {
        self.take_out(place);
    }

    pub(super) fn counts(&self, shard_id: ShardId) -> Counts {
        let mut counts = Counts::default();
        for entry in self.shards.get(&shard_id).into_iter().flat_map(|shard| shard.records.values()) {
            match entry.status {
                Status::Visible => counts.visible += 1,
                Status::InFlight(_) => counts.in_flight += 1,
                Status::SetAside(_) => counts.set_aside += 1,
            }
        }
        counts
    }

    /// Everything below it is done, or set aside.
    pub(super) fn floor(&self, shard_id: ShardId) -> SequenceNumber {
        let Some(shard) = self.shards.get(&shard_id) else { return SequenceNumber::ZERO };
        let open = shard.records.iter().find(|(_, entry)| !entry.is_aside());
        open.map_or(shard.next, |(number, _)| *number)
    }

    fn let_go(&mut self, place: Place, policy: Policy) {
        let Some(entry) = self.take_out(place) else { return };
        let is_spent = policy.max_receives.is_some_and(|most| entry.receives >= most);
        let set_aside = is_spent && self.set_aside.len() < policy.max_set_aside;
        let status = if set_aside { Status::SetAside(None) } else { Status::Visible };
        self.put_in(place, Entry { status, ..entry });
    }

    fn entry(&self, (shard_id, number): Place) -> Option<&Entry> {
        self.shards.get(&shard_id)?.records.get(&number)
    }

    fn is_in_force(&self, place: Place, receipt: u64) -> bool {
        self.entry(place).is_some_and(|entry| entry.receipt == receipt && receipt != 0)
    }

    fn take_set_aside(&mut self, place: Place) -> Option<Entry> {
        let is_aside = self.entry(place).is_some_and(Entry::is_aside);
        is_aside.then(|| self.take_out(place)).flatten()
    }

    fn take_out(&mut self, place: Place) -> Option<Entry> {
        let entry = self.shards.get_mut(&place.0)?.records.remove(&place.1)?;
        match entry.status {
            Status::Visible => drop(self.visible.remove(&place)),
            Status::InFlight(until) => drop(self.in_flight.remove(&(until, place))),
            Status::SetAside(until) => drop(self.set_aside.remove(&(aside_until(until), place))),
        }
        self.changes += 1;
        Some(entry)
    }

    fn put_in(&mut self, place: Place, entry: Entry) {
        let Some(shard) = self.shards.get_mut(&place.0) else { return };
        match entry.status {
            Status::Visible => drop(self.visible.insert(place)),
            Status::InFlight(until) => drop(self.in_flight.insert((until, place))),
            Status::SetAside(until) => drop(self.set_aside.insert((aside_until(until), place))),
        }
        shard.records.insert(place.1, entry);
    }

    fn drop_records(&mut self, shard_id: ShardId, below: SequenceNumber, goes: impl Fn(&Entry) -> bool) {
        let Some(shard) = self.shards.get(&shard_id) else { return };
        let range = (Bound::Unbounded, Bound::Excluded(below));
        let gone: Vec<_> =
            shard.records.range(range).filter(|(_, entry)| goes(entry)).map(|(number, _)| *number).collect();
        for number in gone {
            self.forget((shard_id, number));
        }
    }
}

impl Entry {
    fn of(record: QueueRecord) -> Self {
        let QueueRecord { first_received, receives, set_aside, .. } = record;
        let status = if set_aside { Status::SetAside(None) } else { Status::Visible };
        Self { first_received, receives, receipt: 0, status }
    }

    fn kept(&self, sequence_number: SequenceNumber) -> QueueRecord {
        let Self { first_received, receives, .. } = *self;
        QueueRecord { sequence_number, first_received, receives, set_aside: self.is_aside() }
    }

    fn is_aside(&self) -> bool {
        matches!(self.status, Status::SetAside(_))
    }

    /// Somebody has it until then.
    fn held(self, until: Duration) -> Self {
        let status = if self.is_aside() { Status::SetAside(Some(until)) } else { Status::InFlight(until) };
        Self { status, ..self }
    }
}
