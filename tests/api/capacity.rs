//! Shards that follow a load, on a clock that the tests move.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anabranch::storage::Operation;
use anabranch::{
    Capacity, CapacityPolicy, Clock, DiskFault, Durability, Error, HashKey, ManualClock, PutEntry, Rebalanced,
    SimulatedDisk, Stream, StreamBuilder,
};

use crate::support::{builder, read_stream, simulated};

/// Records between two looks, five seconds apart, that are a shard's target.
const TARGET: usize = 50;

fn policy() -> CapacityPolicy {
    CapacityPolicy::default().min_shards(1).max_shards(16).records_per_second(10).bytes_per_second(1_000_000)
}

fn on_demand(policy: CapacityPolicy) -> StreamBuilder {
    builder().capacity(Capacity::OnDemand(policy)).durability(Durability::Buffered)
}

/// A stream, and what was put to it.
struct World {
    disk: SimulatedDisk,
    clock: Arc<ManualClock>,
    stream: Stream,
    put: u64,
}

impl World {
    fn new(options: StreamBuilder) -> Self {
        let (disk, clock, stream) = simulated(options);
        Self { disk, clock, stream, put: 0 }
    }

    /// For so many minutes, so many records between two looks, their keys by `key`.
    fn minutes(&mut self, minutes: u64, records: usize, key: impl Fn(u64) -> String) -> Rebalanced {
        let mut total = Rebalanced::default();
        for _ in 0..minutes * 12 {
            let texts: Vec<_> = (0..records as u64).map(|index| key(self.put + index)).collect();
            let data: Vec<_> = (0..records as u64).map(|index| (self.put + index).to_string()).collect();
            let entries: Vec<_> =
                texts.iter().zip(&data).map(|(key, data)| PutEntry::new(key, data.as_bytes())).collect();
            self.stream.put_batch(&entries).unwrap();
            self.put += records as u64;
            self.clock.advance(Duration::from_secs(5));
            let done = self.stream.rebalance().unwrap();
            total.splits += done.splits;
            total.merges += done.merges;
            assert_eq!(done.open_shards, self.stream.open_shards().len() as u64);
        }
        total
    }

    /// Every record is there once, and those of each key in their order.
    fn assert_whole(&self) {
        let mut last = BTreeMap::new();
        let mut count = 0;
        for record in read_stream(&self.stream) {
            let index: u64 = std::str::from_utf8(record.data()).unwrap().parse().unwrap();
            let before = last.insert(record.partition_key().to_owned(), index);
            assert!(before.is_none_or(|before| before < index), "{} after {before:?}", record.partition_key());
            count += 1;
        }
        assert_eq!(count, self.put);
    }

    fn open_shards(&self) -> usize {
        self.stream.open_shards().len()
    }
}

fn many(index: u64) -> String {
    format!("key-{}", index * 7 % 997)
}

#[test]
fn shards_follow_the_load() {
    let mut world = World::new(on_demand(policy()));
    world.minutes(20, TARGET / 2, many);
    assert_eq!(world.open_shards(), 1);
    let up = world.minutes(40, TARGET * 4, many);
    let high = world.open_shards();
    assert!((4..=8).contains(&high), "{high}");
    assert_eq!((up.splits, up.merges), (high as u64 - 1, 0));
    let down = world.minutes(180, 1, many);
    assert_eq!((world.open_shards(), down.splits, down.merges), (1, 0, high as u64 - 1));
    world.assert_whole();
    let (reads, reshards) = (world.put, high as u64 * 2 - 2);
    let metrics = world.stream.metrics();
    assert_eq!((metrics.records_out, metrics.reshards), (reads, reshards), "who looks at keys is no reader");
}

/// The cut lies where the load balances, not in the middle of the range.
#[test]
fn keys_in_a_corner_are_divided_evenly() {
    let world = World::new(on_demand(policy()));
    let corner = |stream: &Stream, index: u64| {
        let key = HashKey::new(u128::from(index * 7 % 1_000) << 20);
        stream.put_with("key", b"data", anabranch::PutOptions::new().explicit_hash_key(key)).unwrap().shard_id
    };
    for tick in 0..12 * 60 {
        (0..200).for_each(|index| drop(corner(&world.stream, tick * 200 + index).to_string()));
        world.clock.advance(Duration::from_secs(5));
        world.stream.rebalance().unwrap();
    }
    let mut taken = BTreeMap::new();
    (0..1_000).for_each(|index| *taken.entry(corner(&world.stream, index)).or_insert(0) += 1);
    assert!(taken.len() >= 4 && taken.len() == world.open_shards(), "{taken:?}");
    assert!(taken.values().all(|count| (60..=300).contains(count)), "{taken:?}");
}

#[test]
fn a_hot_key_gets_a_shard_of_its_own() {
    let mut world = World::new(on_demand(policy()));
    let mostly_hot = |index: u64| if index % 10 < 7 { "hot".to_owned() } else { many(index) };
    world.minutes(90, TARGET * 4, mostly_hot);
    let hot = world.stream.route("hot").unwrap();
    let shards = world.stream.shards();
    let range = shards.iter().find(|shard| shard.shard_id == hot).unwrap().hash_key_range;
    let key = world.stream.hash_key("hot").unwrap();
    assert_eq!((range.start(), range.end()), (key, key));
    let calm = world.minutes(30, TARGET * 4, mostly_hot);
    assert!(calm.splits + calm.merges <= 2, "there is nothing left to gain: {calm:?}");
    world.assert_whole();
}

#[test]
fn bytes_are_a_load_too() {
    let mut world = World::new(on_demand(policy().bytes_per_second(1_000).records_per_second(1_000_000)));
    let long = |index: u64| format!("{}-{}", many(index), "x".repeat(200));
    world.minutes(30, 50, long); // more than two kilobytes a second
    assert!(world.open_shards() >= 2);
    world.assert_whole();
}

#[test]
fn a_policy_keeps_its_bounds() {
    let mut world = World::new(on_demand(policy().min_shards(3).max_shards(5)));
    assert_eq!(world.open_shards(), 3, "a new stream starts with the least");
    world.minutes(40, TARGET * 20, many);
    assert_eq!(world.open_shards(), 5);
    world.minutes(180, 0, many);
    assert_eq!(world.open_shards(), 3);

    // An opening with other bounds is brought within them.
    let (disk, clock) = (world.disk.clone(), world.clock.clone());
    let put = world.put;
    world.stream.close().unwrap();
    let options = on_demand(policy().min_shards(6).max_shards(8));
    let stream = options.storage(Arc::new(disk.clone())).clock(clock.clone()).open("stream").unwrap();
    assert_eq!(stream.open_shards().len(), 3);
    assert_eq!(stream.rebalance().unwrap().open_shards, 6);
    World { disk, clock, stream, put }.assert_whole();
}

#[test]
fn provisioned_shards_are_what_was_asked_for() {
    let world = World::new(builder().capacity(Capacity::Provisioned { shards: 4 }));
    assert_eq!(world.open_shards(), 4);
    let [first, second] = world.stream.open_shards()[..2] else { panic!("four shards") };
    world.stream.merge_shards(first, second).unwrap();
    let done = world.stream.rebalance().unwrap();
    assert_eq!((done.splits, done.merges, done.open_shards), (1, 0, 4));
    assert_eq!(world.stream.rebalance().unwrap().splits, 0);

    let plain = World::new(builder().shards(2));
    plain.stream.update_shard_count(3).unwrap();
    assert_eq!(plain.stream.rebalance().unwrap().open_shards, 3, "nobody said how many");
    assert_eq!((plain.stream.capacity(), world.stream.capacity().is_some()), (None, true));
    let both = World::new(builder().shards(2).capacity(Capacity::Provisioned { shards: 4 }));
    assert_eq!(both.open_shards(), 2);
    assert_eq!(both.stream.rebalance().unwrap().splits, 2);
}

#[test]
fn capacity_is_changed_while_a_stream_is_open() {
    let mut world = World::new(builder().durability(Durability::Buffered));
    let handle = world.stream.clone();
    world.minutes(15, TARGET * 4, many);
    assert_eq!(world.open_shards(), 1, "nobody said how many");
    handle.set_capacity(Some(Capacity::OnDemand(policy()))).unwrap();
    assert_eq!(world.stream.capacity(), Some(Capacity::OnDemand(policy())));
    assert!(world.minutes(15, TARGET * 4, many).splits >= 3);
    handle.set_capacity(None).unwrap();
    let before = world.open_shards();
    world.minutes(15, TARGET * 4 * before, many);
    assert_eq!((world.open_shards(), world.stream.capacity()), (before, None));
    let wrong = Capacity::Provisioned { shards: 0 };
    assert!(matches!(handle.set_capacity(Some(wrong)), Err(Error::InvalidArgument { argument: "capacity", .. })));
    assert_eq!(world.stream.capacity(), None);
    world.assert_whole();
}

#[test]
fn the_background_looks_at_the_load_of_a_capacity_that_came_later() {
    let world = World::new(builder().background(true));
    let policy = policy().min_shards(3).interval(Duration::from_millis(1));
    world.stream.set_capacity(Some(Capacity::OnDemand(policy))).unwrap();
    while world.open_shards() < 3 {
        std::thread::yield_now();
    }
}

#[test]
fn a_failed_split_is_tried_again() {
    let mut world = World::new(on_demand(policy()));
    world.minutes(9, TARGET * 2, many);
    assert_eq!(world.open_shards(), 1);
    world.disk.fail_on(Operation::CreateDir, 0, DiskFault::Error(std::io::ErrorKind::Other));
    let mut failures = 0;
    for _ in 0..600 {
        world.stream.put_batch(&[PutEntry::new("key", b"0"); TARGET * 2]).unwrap();
        world.clock.advance(Duration::from_secs(5));
        failures += u64::from(world.stream.rebalance().is_err());
        if world.open_shards() > 1 {
            break;
        }
    }
    assert_eq!((failures, world.open_shards()), (1, 2));
}

#[test]
fn capacities_out_of_range_are_refused() {
    for wrong in [
        Capacity::Provisioned { shards: 0 },
        Capacity::Provisioned { shards: 65_537 },
        Capacity::OnDemand(policy().min_shards(0)),
        Capacity::OnDemand(policy().min_shards(9).max_shards(8)),
        Capacity::OnDemand(policy().max_shards(65_537)),
        Capacity::OnDemand(policy().records_per_second(0)),
        Capacity::OnDemand(policy().bytes_per_second(0)),
        Capacity::OnDemand(policy().interval(Duration::ZERO)),
        Capacity::OnDemand(policy().interval(Duration::from_secs(86_401))),
    ] {
        let options = builder().capacity(wrong).storage(Arc::new(SimulatedDisk::new()));
        assert!(matches!(
            options.create("stream").unwrap_err(),
            Error::InvalidArgument { argument: "capacity", .. }
        ));
    }
    let world = World::new(on_demand(policy()));
    let reader = builder().storage(Arc::new(world.disk.clone())).clock(world.clock.clone());
    assert!(matches!(reader.open_read_only("stream").unwrap().rebalance().unwrap_err(), Error::ReadOnly));
    let stream = world.stream.clone();
    world.stream.close().unwrap();
    assert!(matches!(stream.rebalance().unwrap_err(), Error::Closed));
    assert!(world.clock.monotonic().is_zero());
}
