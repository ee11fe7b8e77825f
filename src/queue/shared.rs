//! A queue that is open: its book, its readers, and its file.

use std::collections::{BTreeMap, VecDeque};

use super::ledger::{Ledger, Place, Policy, Receive};
use super::receipt::{Receipt, Received};
use crate::error::{Error, Result};
use crate::format::QueueSnapshot;
use crate::queue_files::QueuesDirectory;
use crate::segment::Record;
use crate::stream::{OpenQueue, ShardIterator, Stream};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::types::{SequenceNumber, ShardId, StreamId, Timestamp};

/// What all handles of a queue share.
pub(super) struct Core {
    name: String,
    stream_id: StreamId,
    created: Timestamp,
    pub(super) state: Mutex<State>,
    /// Held while the file is written: taken before the state's lock, which nobody holds meanwhile.
    writing: Mutex<()>,
    /// Up to which change the file holds everything, durably.
    written: AtomicU64,
}

/// What the lock protects.
pub(super) struct State {
    pub(super) ledger: Ledger,
    readers: BTreeMap<ShardId, Reader>,
    end: Option<End>,
    /// What went wrong, and was not told: while records were found, which are given first, or beside something else.
    faults: VecDeque<Error>,
    /// The shard that gave new records last: its neighbour is asked first.
    last: ShardId,
}

enum Reader {
    At(Box<ShardIterator>),
    /// The shard is closed and was read to its end.
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Closed,
    Deleted,
}

/// One look for records.
pub(super) struct Call<'a> {
    pub(super) stream: &'a Stream,
    pub(super) policy: Policy,
    /// How many may be received and not acknowledged.
    pub(super) max_unacknowledged: usize,
    /// How many are wanted.
    pub(super) most: usize,
    /// How many bytes they may have, but for a single record.
    pub(super) most_bytes: usize,
    pub(super) visibility: std::time::Duration,
}

/// What a look found.
#[derive(Default)]
struct Found {
    records: Vec<Received>,
    bytes: usize,
    /// There was one that has too many bytes beside the others.
    is_full: bool,
}

/// So often a reader that retention overtook is put at the trim horizon, which may move meanwhile.
const ATTEMPTS: u32 = 3;

impl Core {
    /// A queue that is made now.
    pub(super) fn create(
        files: &QueuesDirectory<'_>,
        name: &str,
        created: Timestamp,
        places: &[(ShardId, SequenceNumber)],
    ) -> Result<Self> {
        let mut ledger = Ledger::default();
        for (shard_id, next) in places {
            ledger.add_shard(*shard_id, *next);
        }
        let core = Self::new(name, files.stream_id, created, ledger);
        files.write(&core.snapshot(&core.state.lock()))?;
        core.written.store(core.state.lock().ledger.changes(), Ordering::SeqCst);
        Ok(core)
    }

    /// A queue that was there. Of records that were only there for it, it knows nothing from now on: others will get their numbers.
    pub(super) fn of_snapshot(
        files: &QueuesDirectory<'_>,
        kept: QueueSnapshot,
        tail_of: impl Fn(ShardId) -> Result<Option<SequenceNumber>>,
    ) -> Result<Self> {
        let QueueSnapshot { stream_id, created, name, shards } = kept;
        let core = Self::new(&name, stream_id, created, Ledger::of_shards(shards));
        {
            let ledger = &mut core.state.lock().ledger;
            for shard_id in ledger.shard_ids().collect::<Vec<_>>() {
                if let Some(tail) = tail_of(shard_id)? {
                    ledger.return_to(shard_id, tail);
                }
            }
        }
        core.write(files, None)?;
        Ok(core)
    }

    fn new(name: &str, stream_id: StreamId, created: Timestamp, ledger: Ledger) -> Self {
        let state = State {
            ledger,
            readers: BTreeMap::new(),
            end: None,
            faults: VecDeque::new(),
            last: ShardId::default(),
        };
        let (state, writing, written) = (Mutex::new(state), Mutex::new(()), AtomicU64::new(0));
        Self { name: name.to_owned(), stream_id, created, state, writing, written }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// How many changes a crash would take back.
    pub(super) fn unwritten(&self) -> u64 {
        let changes = self.state.lock().ledger.changes();
        changes.saturating_sub(self.written.load(Ordering::SeqCst))
    }

    /// Looks for records, first those that were received before.
    pub(super) fn receive(&self, call: &Call<'_>) -> Result<Vec<Received>> {
        let mut state = self.state.lock();
        state.expect_usable(&self.name)?;
        if let Some(fault) = state.faults.pop_front() {
            return Err(fault);
        }
        state.ledger.expire(call.stream.clock().monotonic(), call.policy);
        state.follow_shards(call.stream)?;
        let mut found = Found::default();
        state.receive_again(call, &mut found);
        state.receive_new(call, &mut found);
        state.give(found)
    }

    /// Looks for records that are set aside.
    pub(super) fn receive_set_aside(&self, call: &Call<'_>) -> Result<Vec<Received>> {
        let mut state = self.state.lock();
        state.expect_usable(&self.name)?;
        if let Some(fault) = state.faults.pop_front() {
            return Err(fault);
        }
        let now = call.stream.clock().monotonic();
        state.ledger.expire(now, call.policy);
        state.trim(call.stream)?;
        let mut found = Found::default();
        let places = state.ledger.visible_aside(now, call.most);
        state.receive_places(call, places, &mut found);
        state.give(found)
    }

    fn snapshot(&self, state: &State) -> QueueSnapshot {
        let shards = state.ledger.to_shards();
        QueueSnapshot { stream_id: self.stream_id, created: self.created, name: self.name.clone(), shards }
    }

    /// Writes what has changed, and then ends the queue, if it is to end. Of one that was closed, and could not be written then, nothing is written any more.
    fn write(&self, files: &QueuesDirectory<'_>, end: Option<End>) -> Result<()> {
        let _writing = self.writing.lock();
        let (changes, snapshot) = {
            let mut state = self.state.lock();
            let changes = state.ledger.changes();
            let is_written = changes == self.written.load(Ordering::SeqCst);
            match state.end {
                None => {}
                Some(End::Closed) if !is_written => return Err(Error::Closed),
                Some(End::Closed | End::Deleted) => return Ok(()),
            }
            state.end = end;
            if end.is_some() {
                state.readers.clear(); // they hold the stream
            }
            if is_written {
                return Ok(());
            }
            (changes, self.snapshot(&state))
        };
        files.write(&snapshot)?;
        self.written.store(changes, Ordering::SeqCst);
        Ok(())
    }
}

impl OpenQueue for Core {
    fn keep(&self, files: &QueuesDirectory<'_>) -> Result<()> {
        self.write(files, None)
    }

    fn close(&self, files: &QueuesDirectory<'_>) -> Result<()> {
        self.write(files, Some(End::Closed))
    }

    fn forget(&self) {
        let _writing = self.writing.lock();
        let mut state = self.state.lock();
        state.end = Some(End::Deleted);
        state.readers.clear();
    }
}

impl State {
    pub(super) fn expect_usable(&self, name: &str) -> Result<()> {
        match self.end {
            None => Ok(()),
            Some(End::Closed) => Err(Error::Closed),
            Some(End::Deleted) => Err(Error::QueueNotFound(name.to_owned())),
        }
    }

    /// Whether the next look gives an error that an earlier one met beside something else.
    pub(super) fn has_fault(&self) -> bool {
        !self.faults.is_empty()
    }

    /// Whether a look may find something.
    pub(super) fn has_news(&self, max_unacknowledged: usize) -> bool {
        let is_full = self.ledger.unacknowledged() >= max_unacknowledged;
        let has_new = |reader: &Reader| matches!(reader, Reader::At(iterator) if iterator.has_news());
        self.end.is_some() || self.ledger.has_visible() || (!is_full && self.readers.values().any(has_new))
    }

    /// Whether there are shards that no reader has looked at, or whose end is not known yet.
    pub(super) fn has_new_shards(&self, stream: &Stream) -> bool {
        !stream.listed_shards().is_ok_and(|listed| self.readers.keys().eq(listed.iter()))
    }

    /// What was found, or why nothing was.
    fn give(&mut self, found: Found) -> Result<Vec<Received>> {
        let told = if found.records.is_empty() { self.faults.pop_front() } else { None };
        // Of damage the reader tells again; what is lost is said once.
        self.faults.retain(|fault| matches!(fault, Error::Lost { .. }));
        told.map_or(Ok(found.records), Err)
    }

    /// Takes in the shards that are new, from their start, and lets go of those that expired.
    pub(super) fn follow_shards(&mut self, stream: &Stream) -> Result<()> {
        let listed = stream.listed_shards()?;
        if self.ledger.shard_ids().eq(listed.iter().copied()) {
            return Ok(());
        }
        let gone: Vec<_> = self.ledger.shard_ids().filter(|id| listed.binary_search(id).is_err()).collect();
        for shard_id in gone {
            self.ledger.remove_shard(shard_id);
            self.readers.remove(&shard_id);
        }
        for shard_id in listed {
            self.ledger.add_shard(shard_id, SequenceNumber::ZERO);
        }
        Ok(())
    }

    /// Drops what retention took of records that nobody has.
    pub(super) fn trim(&mut self, stream: &Stream) -> Result<()> {
        self.follow_shards(stream)?;
        for shard_id in self.ledger.shard_ids().collect::<Vec<_>>() {
            let Ok(horizon) = stream.horizon_of(shard_id) else {
                continue; // expired since, or there is damage further on: who comes to it is told
            };
            self.ledger.trim(shard_id, horizon);
            let is_behind = |reader: &Reader| matches!(reader, Reader::At(iterator) if iterator.next_sequence_number() < horizon);
            if self.readers.get(&shard_id).is_some_and(is_behind) {
                self.readers.remove(&shard_id);
            }
        }
        Ok(())
    }

    fn receive_again(&mut self, call: &Call<'_>, found: &mut Found) {
        while found.records.len() < call.most && !found.is_full {
            let places = self.ledger.visible(call.most - found.records.len());
            if places.is_empty() || !self.receive_places(call, places, found) {
                return;
            }
        }
    }

    /// Receives these records again, or those of them that there are and that have room. Whether there is any use in a look at others.
    fn receive_places(&mut self, call: &Call<'_>, places: Vec<Place>, found: &mut Found) -> bool {
        for place in places {
            match call.stream.get_lasting(place.0, place.1) {
                Ok(record) if !found.has_room_for(&record, call) => return false,
                Ok(record) => found.push(self.hand_over(call, record)),
                Err(Error::Trimmed { .. } | Error::ShardNotFound(_)) => self.ledger.forget(place),
                Err(Error::Closed) => {
                    self.faults.push_back(Error::Closed);
                    return false; // nobody looked at it
                }
                Err(error) => {
                    if matches!(error, Error::Lost { .. }) {
                        self.ledger.forget(place);
                    } else {
                        // As if it had been received: the others come first, and it is set aside in the end.
                        self.ledger.receive(place, call.receive());
                    }
                    self.faults.push_back(error);
                }
            }
        }
        true
    }

    /// The shards take turns.
    fn receive_new(&mut self, call: &Call<'_>, found: &mut Found) {
        let (before, after): (Vec<_>, Vec<_>) = self.ledger.shard_ids().partition(|id| *id <= self.last);
        for shard_id in after.into_iter().chain(before) {
            let had = found.records.len();
            match self.read_shard(shard_id, call, found) {
                Ok(()) | Err(Error::ShardNotFound(_)) => {} // expired since
                Err(error) => self.faults.push_back(error),
            }
            if found.records.len() > had {
                self.last = shard_id;
            }
        }
    }

    fn read_shard(&mut self, shard_id: ShardId, call: &Call<'_>, found: &mut Found) -> Result<()> {
        for _ in 0..ATTEMPTS {
            if !self.wants_more(call, found) {
                return Ok(());
            }
            let mut iterator = match self.readers.remove(&shard_id) {
                Some(Reader::At(iterator)) => iterator,
                Some(Reader::Ended) => {
                    self.readers.insert(shard_id, Reader::Ended);
                    return Ok(());
                }
                None => {
                    match call.stream.horizon_of(shard_id) {
                        Ok(horizon) => self.ledger.trim(shard_id, horizon),
                        Err(error @ Error::ShardNotFound(_)) => return Err(error),
                        Err(_) => {} // damage further on: the reader tells it where it comes to it
                    }
                    match call.stream.durable_iterator(shard_id, self.ledger.next(shard_id)) {
                        Ok(iterator) => Box::new(iterator),
                        Err(Error::Trimmed { .. }) => continue, // since a moment ago
                        Err(error) => return Err(error),
                    }
                }
            };
            match self.read(&mut iterator, call, found) {
                Ok(()) if found.is_full => return Ok(()), // it is past a record that was not given: the next look has another
                Ok(()) => {
                    let ended = iterator.end_of_shard().is_some();
                    let reader = if ended { Reader::Ended } else { Reader::At(iterator) };
                    self.readers.insert(shard_id, reader);
                    return Ok(());
                }
                // Retention overtook it: what is left is read by another.
                Err(Error::Trimmed { .. }) => self.ledger.trim(shard_id, call.stream.horizon_of(shard_id)?),
                Err(error) => {
                    self.ledger.pass_to(shard_id, iterator.next_sequence_number());
                    self.readers.insert(shard_id, Reader::At(iterator));
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn read(&mut self, iterator: &mut ShardIterator, call: &Call<'_>, found: &mut Found) -> Result<()> {
        while self.wants_more(call, found) && iterator.has_news() {
            let Some(record) = iterator.available().next() else { break };
            let record = record?;
            if found.has_room_for(&record, call) {
                found.push(self.hand_over(call, record));
            }
        }
        Ok(())
    }

    fn wants_more(&self, call: &Call<'_>, found: &Found) -> bool {
        !found.is_full && found.records.len() < call.most && self.ledger.unacknowledged() < call.max_unacknowledged
    }

    fn hand_over(&mut self, call: &Call<'_>, record: Record) -> Received {
        let place = (record.shard_id(), record.sequence_number());
        let receive = call.receive();
        let entry = self.ledger.receive(place, receive);
        let receipt = Receipt {
            shard_id: place.0,
            sequence_number: place.1,
            incarnation: call.stream.incarnation(),
            number: receive.receipt,
        };
        Received { record, receipt, receive_count: entry.receives, first_received: entry.first_received }
    }
}

impl Found {
    /// Whether the record can be given beside the others; if not, none is from here on.
    fn has_room_for(&mut self, record: &Record, call: &Call<'_>) -> bool {
        self.is_full = !self.records.is_empty() && self.bytes.saturating_add(size(record)) > call.most_bytes;
        !self.is_full
    }

    fn push(&mut self, received: Received) {
        self.bytes = self.bytes.saturating_add(size(&received.record));
        self.records.push(received);
    }
}

/// What a record counts for.
fn size(record: &Record) -> usize {
    record.partition_key().len() + record.data().len()
}

impl Call<'_> {
    fn receive(&self) -> Receive {
        let clock = self.stream.clock();
        Receive {
            at: clock.now(),
            until: clock.monotonic().saturating_add(self.visibility),
            receipt: self.stream.next_receipt(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::queue::QueueOptions;
    use crate::storage::{DiskFault, Operation, SimulatedDisk};

    /// As by a receive that began before the close.
    #[test]
    fn a_record_that_a_close_kept_from_being_read_was_not_received() {
        let stream =
            Stream::builder().storage(Arc::new(SimulatedDisk::new())).background(false).create("/s").unwrap();
        let options = QueueOptions::new().visibility(Duration::ZERO);
        let queue = stream.queue("q", options.clone()).unwrap();
        let put = stream.put("a", b"one").unwrap();
        assert_eq!(queue.receive(1, Duration::ZERO).unwrap().len(), 1);
        stream.clone().close().unwrap();
        let call = Call {
            stream: &stream,
            policy: options.policy(),
            max_unacknowledged: options.max_unacknowledged,
            most: 1,
            most_bytes: options.max_receive_bytes,
            visibility: options.visibility,
        };
        let (mut state, mut found) = (queue.core.state.lock(), Found::default());
        state.ledger.expire(stream.clock().monotonic(), call.policy);
        assert_eq!(state.ledger.visible(1), [(put.shard_id, put.sequence_number)]);
        state.receive_again(&call, &mut found);
        assert!(matches!(state.give(found), Err(Error::Closed)));
        let records = &state.ledger.to_shards()[0].records;
        assert_eq!(records[0].receives, 1);
    }

    /// As by a sync that began before the close.
    #[test]
    fn what_a_close_could_not_write_is_not_said_to_be_written() {
        let disk = SimulatedDisk::new();
        let stream = Stream::builder().storage(Arc::new(disk.clone())).background(false).create("/s").unwrap();
        let queue = stream.queue("q", QueueOptions::new()).unwrap();
        stream.put("a", b"one").unwrap();
        stream.sync().unwrap();
        assert_eq!(queue.receive(1, Duration::ZERO).unwrap().len(), 1);
        disk.fail_on(Operation::Rename, 0, DiskFault::ErrorFromThenOn(std::io::ErrorKind::Other));
        stream.clone().close().unwrap_err();
        disk.clear_faults();
        assert!(matches!(stream.keep_queue(queue.core.as_ref()), Err(Error::Closed)));
    }
}
