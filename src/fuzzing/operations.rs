//! A stream under operations, faults and crashes that the fuzzer chose, beside a plain model of it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::input::Input;
use super::{Seen, builder, read_shard};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{Crash, DiskFault, SimulatedDisk};
use crate::stream::{
    PutEntry, PutOptions, PutReceipt, RecordsStart, ShardDescription, ShardSummary, Stream, VerifyOptions, verify,
};
use crate::types::{Durability, RetentionPeriod, SequenceNumber, ShardId};

const PATH: &str = "/stream";
const KEYS: [&str; 8] = ["ada", "brook", "creek", "delta", "eddy", "ford", "gorge", "harbour"];
/// Longer inputs only make slower runs.
const MAX_OPERATIONS: usize = 200;
const MAX_SHARDS: usize = 12;

/// Puts, batches, syncs, splits, merges, trims, faults, closes and crashes, in the fuzzer's order.
///
/// After each crash and each opening, every shard holds a prefix of what was put, whole batches only, which contains all
/// that was acknowledged at a level that the crash must spare; nothing else, and nothing twice. What failed may
/// be there or not. Before each opening the stream verifies as sound.
pub fn operations(input: &[u8]) {
    let mut input = Input::new(input);
    if let Some(mut world) = World::draw(&mut input) {
        for _ in 0..MAX_OPERATIONS {
            if world.step(&mut input).is_none() {
                break;
            }
        }
        world.crash(Crash::ProcessKilled);
        world.look();
    }
}

/// One shard as it must be.
#[derive(Debug, Default)]
struct Log {
    /// The number of the first record in `records`.
    first: u64,
    records: Vec<Put>,
    /// The records below this number survive power loss.
    durable: u64,
    /// The trim horizon, and where it may be after a trim that failed.
    horizon: u64,
    horizon_at_most: u64,
    /// Batches that failed: each may be there, in this order.
    failed: Vec<Vec<Put>>,
    /// Whether a byte budget may have removed it whole.
    may_be_gone: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Put {
    key: &'static str,
    data: Vec<u8>,
    /// How many records of its batch follow in this shard.
    remaining: usize,
}

impl Log {
    fn next(&self) -> u64 {
        self.first + self.records.len() as u64
    }

    fn is_at(&self, seen: &Seen) -> bool {
        let place = seen.number.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        place.and_then(|place| self.records.get(place)).is_some_and(|put| put.is(seen))
    }
}

impl Put {
    fn is(&self, seen: &Seen) -> bool {
        self.key == seen.key && self.data == seen.data
    }
}

struct World {
    disk: SimulatedDisk,
    durability: Durability,
    /// Nothing while no opening has succeeded.
    stream: Option<Stream>,
    logs: BTreeMap<ShardId, Log>,
    /// Makes each record's data its own.
    count: u32,
    /// Whether the power went since the last opening that succeeded.
    power_lost: bool,
}

impl World {
    fn draw(input: &mut Input<'_>) -> Option<Self> {
        let shape = input.byte()?;
        let durability = if shape & 1 == 0 { Durability::Synced } else { Durability::Buffered };
        let disk = SimulatedDisk::new();
        let stream = builder(&disk)
            .durability(durability)
            .shards(1 + u32::from(shape >> 1 & 3))
            .segment_bytes(if shape & 8 == 0 { 4_096 } else { 16_384 })
            .flush_bytes(if shape & 16 == 0 { 500 } else { 1 << 20 })
            .retention(RetentionPeriod::Unlimited)
            .create(PATH)
            .unwrap();
        let logs = stream.shards().into_iter().map(|shard| (shard.shard_id, Log::default())).collect();
        Some(Self { disk, durability, stream: Some(stream), logs, count: 0, power_lost: false })
    }

    fn step(&mut self, input: &mut Input<'_>) -> Option<()> {
        let operation = input.byte()? % 20;
        let Some(stream) = self.stream.clone() else {
            // Faults kept it from opening: only a new start helps.
            let seed = u64::from(input.byte()?);
            self.crash(Crash::PowerLost { seed });
            return Some(());
        };
        match operation {
            0..=4 => self.put(&stream, input, self.durability)?,
            5 => self.put(&stream, input, Durability::Synced)?,
            6..=8 => self.put_batch(&stream, input)?,
            9 => {
                if stream.sync().map_err(assert_plausible).is_ok() {
                    self.logs.values_mut().for_each(|log| log.durable = log.next());
                }
            }
            10 => self.split(&stream, input.byte()?),
            11 => self.merge(&stream, input.byte()?),
            12 => self.trim(&stream, input.byte()?, input.byte()?),
            13 => self.trim_bytes(&stream, input.byte()?),
            14 => {
                drop(stream);
                self.close();
            }
            15 => {
                drop(stream);
                self.crash(Crash::ProcessKilled);
            }
            16 => {
                drop(stream);
                let seed = u64::from(input.short()?);
                self.crash(Crash::PowerLost { seed });
            }
            17 | 18 => self.plan_fault(input.byte()?, input.byte()?),
            _ => self.look(),
        }
        Some(())
    }

    fn draw_put(&mut self, input: &mut Input<'_>) -> Option<Put> {
        let shape = input.byte()?;
        let mut data = self.count.to_le_bytes().to_vec();
        self.count += 1;
        data.resize(4 + 12 * usize::from(shape >> 3), 0xd0 | shape & 7);
        Some(Put { key: KEYS[usize::from(shape & 7)], data, remaining: 0 })
    }

    fn put(&mut self, stream: &Stream, input: &mut Input<'_>, durability: Durability) -> Option<()> {
        let put = self.draw_put(input)?;
        let shard_id = stream.route(put.key).unwrap();
        match stream.put_with(put.key, &put.data, PutOptions::new().durability(durability)) {
            Ok(receipt) => self.acknowledged(&receipt, put, durability),
            Err(error) => {
                assert_plausible(error);
                self.log(shard_id).failed.push(vec![put]);
            }
        }
        Some(())
    }

    fn put_batch(&mut self, stream: &Stream, input: &mut Input<'_>) -> Option<()> {
        let mut puts = Vec::new();
        for _ in 0..2 + input.below(5)? {
            puts.push(self.draw_put(input)?);
        }
        let mut shards: BTreeMap<ShardId, usize> = BTreeMap::new();
        for put in puts.iter_mut().rev() {
            let later = shards.entry(stream.route(put.key).unwrap()).or_default();
            put.remaining = *later;
            *later += 1;
        }
        let entries: Vec<_> = puts.iter().map(|put| PutEntry::new(put.key, &put.data)).collect();
        match stream.put_batch(&entries) {
            Ok(receipts) => {
                assert_eq!(receipts.len(), puts.len());
                for (receipt, put) in receipts.iter().zip(puts) {
                    self.acknowledged(receipt, put, self.durability);
                }
            }
            Err(error) => {
                assert_plausible(error);
                for shard_id in shards.into_keys() {
                    let part = puts.iter().filter(|put| stream.route(put.key).unwrap() == shard_id);
                    self.log(shard_id).failed.push(part.cloned().collect());
                }
                // Some shards may have taken their part, so only a new start tells what they hold.
                let seed = u64::from(self.count);
                self.crash(if seed % 2 == 0 { Crash::ProcessKilled } else { Crash::PowerLost { seed } });
            }
        }
        Some(())
    }

    fn acknowledged(&mut self, receipt: &PutReceipt, put: Put, durability: Durability) {
        let is_durable = durability.max(self.durability) == Durability::Synced;
        let log = self.log(receipt.shard_id);
        assert_eq!(receipt.sequence_number.get(), log.next(), "numbers are dense");
        log.failed.clear(); // they would stand before
        log.records.push(put);
        if is_durable {
            log.durable = log.next();
        }
    }

    fn log(&mut self, shard_id: ShardId) -> &mut Log {
        self.logs.get_mut(&shard_id).expect("a shard that nobody made")
    }

    fn split(&mut self, stream: &Stream, choice: u8) {
        let open = stream.open_shards();
        let parent = open[usize::from(choice) % open.len()];
        if open.len() >= MAX_SHARDS {
            return;
        }
        if let Ok((lower, upper)) = stream.split_shard(parent, None).map_err(assert_plausible) {
            self.resharded(&[parent], &[lower, upper]);
        }
    }

    fn merge(&mut self, stream: &Stream, choice: u8) {
        let open = stream.open_shards();
        let pairs: Vec<_> = open.windows(2).collect();
        let Some(pair) = pairs.get(usize::from(choice) % pairs.len().max(1)) else {
            return;
        };
        if let Ok(child) = stream.merge_shards(pair[0], pair[1]).map_err(assert_plausible) {
            self.resharded(pair, &[child]);
        }
    }

    fn resharded(&mut self, parents: &[ShardId], children: &[ShardId]) {
        let mut first = 0;
        for parent in parents {
            let log = self.log(*parent);
            log.durable = log.next();
            log.failed.clear();
            first = first.max(log.next());
        }
        for child in children {
            let log = Log { first, durable: first, horizon: first, horizon_at_most: first, ..Log::default() };
            assert!(self.logs.insert(*child, log).is_none(), "a shard id was used again");
        }
    }

    fn trim(&mut self, stream: &Stream, choice: u8, share: u8) {
        let ids: Vec<_> = self.logs.keys().copied().collect();
        let shard_id = ids[usize::from(choice) % ids.len()];
        let durability = self.durability;
        let log = self.log(shard_id);
        let tail = if durability == Durability::Synced { log.next() } else { log.durable };
        let before = log.horizon + tail.saturating_sub(log.horizon) * u64::from(share) / 256;
        match stream.trim_shard(shard_id, SequenceNumber::new(before)) {
            Ok(_) => log.horizon = log.horizon.max(before),
            Err(error) => assert_plausible(error),
        }
        log.horizon_at_most = log.horizon_at_most.max(before);
    }

    /// Removes the oldest sealed segments, whatever they are.
    fn trim_bytes(&mut self, stream: &Stream, budget: u8) {
        let trimmed = trim_bytes(stream, u64::from(budget) << 10);
        let described = stream.describe();
        let listed: Vec<_> = stream.shards().into_iter().map(|shard| shard.shard_id).collect();
        let open = stream.open_shards();
        for (shard_id, log) in &mut self.logs {
            log.may_be_gone |= !open.contains(shard_id);
        }
        self.logs.retain(|shard_id, log| listed.contains(shard_id) || !log.may_be_gone);
        for (shard_id, log) in &mut self.logs {
            let shard = described
                .as_ref()
                .ok()
                .and_then(|stream| stream.shards.iter().find(|shard| shard.summary.shard_id == *shard_id));
            match (&trimmed, shard) {
                (Ok(()), Some(shard)) => {
                    let horizon = shard.first_sequence_number.unwrap_or(shard.next_sequence_number).get();
                    assert!((log.horizon..=log.next()).contains(&horizon), "{shard_id} was trimmed to {horizon}");
                    (log.horizon, log.horizon_at_most) = (horizon, horizon);
                }
                _ => log.horizon_at_most = log.next(),
            }
        }
        let errors = [trimmed.err(), described.err()];
        errors.into_iter().flatten().for_each(assert_plausible);
    }

    fn plan_fault(&mut self, nth: u8, kind: u8) {
        let fault = match kind % 4 {
            0 => DiskFault::Error(io::ErrorKind::Other),
            1 => DiskFault::Error(io::ErrorKind::StorageFull),
            2 => DiskFault::ShortWrite,
            _ => DiskFault::PowerCut,
        };
        self.disk.fail_at(u64::from(nth), fault);
    }

    fn close(&mut self) {
        let Some(stream) = self.stream.take() else { return };
        if stream.close().map_err(assert_plausible).is_ok() {
            self.logs.values_mut().for_each(|log| log.durable = log.next());
        }
        self.open();
    }

    /// Ends the process or the machine, and opens the stream again.
    fn crash(&mut self, crash: Crash) {
        self.power_lost |= matches!(crash, Crash::PowerLost { .. });
        let disk = self.disk.crash(crash);
        self.stream = None; // its closing meets a disk that is off
        self.disk = disk;
        let options =
            VerifyOptions { storage: Some(Arc::new(self.disk.fork(Crash::ProcessKilled))), ..Default::default() };
        let report = verify(PATH, options).expect("a crash leaves a stream that can be verified");
        assert!(report.is_sound(), "a crash is no damage: {:?}", report.damage);
        self.open();
        assert!(self.stream.is_some(), "nothing was planned to fail");
    }

    fn open(&mut self) {
        match builder(&self.disk).open_existing(PATH) {
            Ok(stream) => {
                self.disk.clear_faults(); // one that is still to come would only hide what recovery found
                self.adopt(&stream);
                self.stream = Some(stream);
                self.power_lost = false;
            }
            Err(error) => assert_plausible(error),
        }
    }

    /// Compares a stream that was just opened with the model, and takes over what may have gone either way.
    fn adopt(&mut self, stream: &Stream) {
        let shards = stream.shards();
        for shard in &shards {
            self.adopt_lineage(shard);
        }
        let listed: Vec<_> = shards.iter().map(|shard| shard.shard_id).collect();
        self.logs.retain(|shard_id, log| listed.contains(shard_id) || !log.may_be_gone);
        assert_eq!(shards.len(), self.logs.len(), "shards are missing");
        let Ok(described) = stream.describe().map_err(assert_plausible) else {
            return; // the disk: it is looked at after the next crash
        };
        for shard in described.shards {
            let (seen, stopped) = read_shard(stream, shard.summary.shard_id);
            match stopped {
                None => self.adopt_shard(&shard, &seen),
                Some(error) => assert_plausible(error),
            }
        }
    }

    /// A reshard that failed may have happened.
    fn adopt_lineage(&mut self, shard: &ShardSummary) {
        if self.logs.contains_key(&shard.shard_id) {
            return;
        }
        assert!(!shard.parents.is_empty(), "{shard:?} came from nowhere");
        let first = shard.parents.iter().map(|parent| self.log(*parent).next()).max().unwrap_or(0);
        let log = Log { first, durable: first, horizon: first, horizon_at_most: first, ..Log::default() };
        self.logs.insert(shard.shard_id, log);
    }

    fn adopt_shard(&mut self, shard: &ShardDescription, seen: &[Seen]) {
        let (shard_id, power_lost) = (shard.summary.shard_id, self.power_lost);
        let log = self.log(shard_id);
        let end = shard.next_sequence_number.get();
        if log.records.is_empty() && log.failed.is_empty() {
            // The child of a reshard whose parents' last puts had failed: it starts where they ended.
            assert!(seen.is_empty());
            *log = Log { first: end, durable: end, horizon: end, horizon_at_most: end, ..Log::default() };
            return;
        }
        let horizon = seen.first().map_or(end, |first| first.number);
        let horizons = log.horizon..=log.horizon_at_most.max(log.horizon);
        assert!(horizons.contains(&horizon), "{shard_id} starts at {horizon}, not within {horizons:?}");
        let keep = if power_lost { log.durable } else { log.next() };
        assert!(end >= keep, "{shard_id} ends at {end}; the records below {keep} were acknowledged");
        let (known, extra) = seen.split_at(seen.partition_point(|record| record.number < log.next()));
        for (place, record) in seen.iter().enumerate() {
            assert_eq!(record.number, horizon + place as u64, "{shard_id}");
        }
        for record in known {
            assert!(log.is_at(record), "{shard_id}: {record:?} was not put there");
        }
        let kept = usize::try_from(end.saturating_sub(log.first)).unwrap_or(usize::MAX).min(log.records.len());
        log.records.truncate(kept);
        assert!(log.records.last().is_none_or(|last| last.remaining == 0), "{shard_id}: a batch in part");
        let mut extra = extra;
        for batch in std::mem::take(&mut log.failed) {
            let is_there = extra.len() >= batch.len() && batch.iter().zip(extra).all(|(put, seen)| put.is(seen));
            if is_there {
                extra = &extra[batch.len()..];
                log.records.extend(batch);
            }
        }
        assert_eq!(extra, &[], "{shard_id} holds what nobody put");
        log.durable = log.next();
        (log.horizon, log.horizon_at_most) = (horizon, horizon);
    }

    /// Reads everything, shard by shard and as one stream.
    fn look(&self) {
        let Some(stream) = &self.stream else { return };
        for (shard_id, log) in &self.logs {
            let (seen, stopped) = read_shard(stream, *shard_id);
            if let Some(error) = stopped {
                assert_plausible(error);
                return;
            }
            let known = seen.iter().take_while(|record| record.number < log.next()).count();
            assert!(seen[..known].iter().all(|record| log.is_at(record)), "{shard_id}: {seen:?}, not {log:?}");
            assert!(known == seen.len() || !log.failed.is_empty(), "{shard_id} shows what nobody put");
            let shown = log.next() - seen.first().map_or(log.next(), |first| first.number);
            assert_eq!(known as u64, shown, "{shard_id} does not show all");
        }
        assert!(look_in_order(stream).map_err(assert_plausible).unwrap_or(true), "out of order");
    }
}

/// Whether the records of each key come in the order of their puts.
fn look_in_order(stream: &Stream) -> Result<bool> {
    let mut newest: BTreeMap<String, u32> = BTreeMap::new();
    for record in stream.records(RecordsStart::TrimHorizon)?.available() {
        let record = record?;
        let count = record.data().first_chunk().copied().map(u32::from_le_bytes);
        let before = newest.insert(record.partition_key().to_owned(), count.unwrap_or(0));
        if before >= count {
            return Ok(false);
        }
    }
    Ok(true)
}

fn trim_bytes(stream: &Stream, budget: u64) -> Result<()> {
    stream.set_retention_bytes(Some(budget))?;
    stream.enforce_retention()?;
    stream.set_retention_bytes(None)
}

/// Operations that are meant well fail only when the disk does; never for damage.
#[allow(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn assert_plausible(error: Error) {
    let planned = matches!(error.kind(), ErrorKind::Io | ErrorKind::StorageFull | ErrorKind::Reopen);
    let narrow = matches!(&error, Error::InvalidArgument { argument: "shard_id", .. });
    assert!(planned || narrow, "{error:?}");
}
