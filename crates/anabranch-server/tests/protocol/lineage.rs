//! Splits, merges and scaling, and readers that follow them.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anabranch::{Clock, SimulatedDisk, Timestamp};
use anabranch_server::{Service, ServiceOptions};
use serde_json::{Value, json};

use crate::support::{ACCOUNT, World, arn, data, ids, request, shard};

const HALF: &str = "170141183460469231731687303715884105728";

fn split(world: &World, number: u32, key: &str) {
    world.ok("SplitShard", json!({"StreamName": "s", "ShardToSplit": shard(number), "NewStartingHashKey": key}));
}

fn merge(world: &World, lower: u32, upper: u32) {
    world.ok(
        "MergeShards",
        json!({"StreamName": "s", "ShardToMerge": shard(lower), "AdjacentShardToMerge": shard(upper)}),
    );
}

#[test]
fn a_split_and_a_merge_keep_every_record_readable_under_its_number() {
    let world = World::with_stream(1);
    let mut put = vec![world.put("a", "parent")["SequenceNumber"].as_str().unwrap().to_owned()];
    split(&world, 0, HALF);
    put.push(world.put("a", "child")["SequenceNumber"].as_str().unwrap().to_owned());
    merge(&world, 1, 2);
    put.push(world.put("a", "grandchild")["SequenceNumber"].as_str().unwrap().to_owned());
    assert!(put.is_sorted(), "all within one second, and still in order: {put:?}");

    let parent = world.read(&world.iterator(&shard(0), "TRIM_HORIZON"));
    assert_eq!(data(&parent), ["parent"]);
    assert_eq!(parent["Records"][0]["SequenceNumber"], put[0]);
    assert!(parent.get("NextShardIterator").is_none());
    let range = |start: &str, end: &str| json!({"StartingHashKey": start, "EndingHashKey": end});
    let most = u128::MAX.to_string();
    assert_eq!(
        parent["ChildShards"],
        json!([
            {"ShardId": shard(1), "ParentShards": [shard(0)], "HashKeyRange": range("0", "170141183460469231731687303715884105727")},
            {"ShardId": shard(2), "ParentShards": [shard(0)], "HashKeyRange": range(HALF, &most)},
        ])
    );
    for number in [1, 2] {
        let child = world.read(&world.iterator(&shard(number), "TRIM_HORIZON"));
        let merged = json!([{"ShardId": shard(3), "ParentShards": [shard(1), shard(2)], "HashKeyRange": range("0", &most)}]);
        assert_eq!(child["ChildShards"], merged);
    }
    assert_eq!(world.all(&shard(1)), ["child"]);
    assert_eq!(world.all(&shard(3)), ["grandchild"]);
    // At the end of a closed shard, the first read says so.
    let at_end = world.read(&world.iterator(&shard(0), "LATEST"));
    assert!(at_end.get("NextShardIterator").is_none() && at_end["ChildShards"].is_array());
}

#[test]
fn shards_are_listed_with_their_lineage_and_rising_numbers() {
    let world = World::with_stream(1);
    split(&world, 0, HALF);
    merge(&world, 1, 2);
    let listed = world.ok("ListShards", json!({"StreamName": "s"}));
    let shards = listed["Shards"].as_array().unwrap();
    assert_eq!(ids(&listed), ["0", "1", "2", "3"]);
    assert!(shards[0].get("ParentShardId").is_none());
    assert_eq!((&shards[1]["ParentShardId"], shards[1].get("AdjacentParentShardId")), (&json!(shard(0)), None));
    assert_eq!(
        (&shards[3]["ParentShardId"], &shards[3]["AdjacentParentShardId"]),
        (&json!(shard(1)), &json!(shard(2)))
    );
    let number = |index: usize, end: &str| shards[index]["SequenceNumberRange"][end].as_str().map(str::to_owned);
    for (parent, child) in [(0, 1), (0, 2), (1, 3), (2, 3)] {
        assert!(
            number(parent, "EndingSequenceNumber") < number(child, "StartingSequenceNumber"),
            "{parent} {child}"
        );
    }
    assert_eq!(
        number(1, "StartingSequenceNumber").map(|text| text[..10].to_owned()),
        number(2, "StartingSequenceNumber").map(|text| text[..10].to_owned())
    );
    assert_eq!(number(3, "EndingSequenceNumber"), None);
    // The end of a closed shard is a place to read from: nothing is left behind it.
    let end = json!({"StreamName": "s", "ShardId": shard(0), "ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": number(0, "EndingSequenceNumber")});
    let iterator = world.ok("GetShardIterator", end);
    assert_eq!(data(&world.read(iterator["ShardIterator"].as_str().unwrap())), [""; 0]);
}

#[test]
fn wrong_splits_and_merges_are_refused_and_change_nothing() {
    let world = World::with_stream(3);
    let (a, b, c) = (shard(0), shard(1), shard(2));
    let split =
        |shard: &str, key: &str| json!({"StreamName": "s", "ShardToSplit": shard, "NewStartingHashKey": key});
    let invalid = "InvalidArgumentException";
    for key in ["0", "1", "113427455640312821154458202477256070484", HALF] {
        let text = format!(
            "NewStartingHashKey {key} used in SplitShard() on shard {a} in stream s under account {ACCOUNT} is not both greater than one plus the \
             shard's StartingHashKey 0 and less than the shard's EndingHashKey 113427455640312821154458202477256070484."
        );
        world.refused("SplitShard", split(&a, key), invalid, &text);
    }
    let merge = |lower: &str, upper: &str| json!({"StreamName": "s", "ShardToMerge": lower, "AdjacentShardToMerge": upper});
    for (lower, upper) in [(&a, &c), (&b, &a), (&a, &a)] {
        let text = format!(
            "Shards {lower} and {upper} in stream s under account {ACCOUNT} are not an adjacent pair of shards eligible for merging"
        );
        world.refused("MergeShards", merge(lower, upper), invalid, &text);
    }
    let missing = format!("Shard {} in stream s under account {ACCOUNT} does not exist", shard(7));
    world.refused("SplitShard", split(&shard(7), "5"), "ResourceNotFoundException", &missing);
    world.refused("MergeShards", merge(&a, &shard(7)), "ResourceNotFoundException", &missing);
    world.ok("SplitShard", split(&a, "2"));
    let done = format!(
        "Shard {a} in stream s under account {ACCOUNT} has already been merged or split, and thus is not eligible for merging or splitting."
    );
    world.refused("SplitShard", split(&a, "5"), invalid, &done);
    world.refused("MergeShards", merge(&a, &b), invalid, &done);
    assert_eq!(world.shards(json!({"StreamName": "s"})), ["0", "1", "2", "3", "4"]);
}

#[test]
fn scaling_leaves_as_many_shards_as_the_service_does() {
    for (from, to, total) in [(2, 4, 6), (4, 5, 15), (10, 13, 37), (4, 2, 6), (5, 3, 7)] {
        let world = World::with_stream(from);
        let body = json!({"StreamName": "s", "TargetShardCount": to, "ScalingType": "UNIFORM_SCALING"});
        let answer = world.ok("UpdateShardCount", body);
        assert_eq!((&answer["CurrentShardCount"], &answer["TargetShardCount"]), (&json!(from), &json!(to)));
        let all = world.ok("ListShards", json!({"StreamName": "s"}));
        assert_eq!(all["Shards"].as_array().unwrap().len(), total, "{from} to {to}");
        let open = world.ok("ListShards", json!({"StreamName": "s", "ShardFilter": {"Type": "AT_LATEST"}}));
        assert_eq!(open["Shards"].as_array().unwrap().len(), to, "{from} to {to}");
    }
    let world = World::with_stream(4);
    let to = |count: u32| json!({"StreamName": "s", "TargetShardCount": count, "ScalingType": "UNIFORM_SCALING"});
    let refused = |count: u32, how: &str| {
        let text = format!(
            "UpdateShardCount cannot scale {how} your current open shard count. Current open shard count: 4 Target shard count: {count}"
        );
        world.refused("UpdateShardCount", to(count), "LimitExceededException", &text);
    };
    refused(9, "up over double");
    refused(1, "down below half");
}

#[test]
fn a_scaling_that_cannot_be_finished_is_not_begun() {
    let world = World::with_stream(1);
    split(&world, 0, "2"); // which leaves a shard of two keys, and the next one of one
    let to = |count: u32| json!({"StreamName": "s", "TargetShardCount": count, "ScalingType": "UNIFORM_SCALING"});
    world.ok("UpdateShardCount", to(4));
    let text = format!(
        "Stream s under account {ACCOUNT} cannot have more shards: {} has one hash key, which cannot be split.",
        shard(3)
    );
    world.refused("UpdateShardCount", to(8), "LimitExceededException", &text);
    assert_eq!(world.shards(json!({"StreamName": "s"})), ["0", "1", "2", "3", "4", "5", "6"]);
}

fn tiles(answer: &Value) -> bool {
    let key = |shard: &Value, end: &str| shard["HashKeyRange"][end].as_str().unwrap().parse::<u128>().unwrap();
    let mut ranges: Vec<_> = answer["Shards"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| (key(s, "StartingHashKey"), key(s, "EndingHashKey")))
        .collect();
    ranges.sort_unstable();
    let joined = ranges.windows(2).all(|pair| pair[0].1.checked_add(1) == Some(pair[1].0));
    joined
        && ranges.first().is_some_and(|first| first.0 == 0)
        && ranges.last().is_some_and(|last| last.1 == u128::MAX)
}

/// A clock that is a millisecond later at every look, as real ones are between any two steps.
#[derive(Debug)]
struct Ticking(AtomicI64);

impl Clock for Ticking {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.fetch_add(1, Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst).unsigned_abs())
    }
}

#[test]
fn the_living_shards_tile_the_space_while_time_passes() {
    let clock = Arc::new(Ticking(AtomicI64::new(1_767_225_600_000)));
    let service =
        Service::open_on("/data", ServiceOptions::default(), clock, Arc::new(SimulatedDisk::new())).unwrap();
    let call = |operation: &str, body: Value| -> Value {
        let answer = service.respond(request(operation, body.to_string()));
        serde_json::from_slice(answer.body().bytes()).unwrap_or_default()
    };
    call("CreateStream", json!({"StreamName": "s", "ShardCount": 2}));
    call("SplitShard", json!({"StreamName": "s", "ShardToSplit": shard(0), "NewStartingHashKey": "5"}));
    call("MergeShards", json!({"StreamName": "s", "ShardToMerge": shard(3), "AdjacentShardToMerge": shard(1)}));
    let oldest = call("ListShards", json!({"StreamName": "s", "ShardFilter": {"Type": "AT_TRIM_HORIZON"}}));
    assert_eq!(ids(&oldest), ["0", "1"]);
    for millis in 0..200 {
        let time = 1_767_225_600.0 + f64::from(millis) / 1_000.0;
        let then = call(
            "ListShards",
            json!({"StreamName": "s", "ShardFilter": {"Type": "AT_TIMESTAMP", "Timestamp": time}}),
        );
        assert!(tiles(&then), "{millis}: {then}");
    }
}

#[test]
fn at_each_moment_the_living_shards_tile_the_space() {
    let world = World::with_stream(2);
    world.advance(1_000);
    split(&world, 0, "5");
    world.advance(1_000);
    merge(&world, 3, 1);
    world.advance(1_000);
    let at = |kind: &str, millis: i64| {
        #[allow(clippy::cast_precision_loss, reason = "small")]
        let time = (1_767_225_600_000 + millis) as f64 / 1_000.0;
        world.ok("ListShards", json!({"StreamName": "s", "ShardFilter": {"Type": kind, "Timestamp": time}}))
    };
    for (millis, expected) in [
        (-5, vec!["0", "1"]),
        (0, vec!["0", "1"]),
        (999, vec!["0", "1"]),
        (1_000, vec!["1", "2", "3"]),
        (1_999, vec!["1", "2", "3"]),
        (2_000, vec!["2", "4"]),
        (3_000, vec!["2", "4"]),
    ] {
        let answer = at("AT_TIMESTAMP", millis);
        assert_eq!(ids(&answer), expected, "{millis}");
        assert!(tiles(&answer), "{millis}");
    }
    assert_eq!(ids(&at("FROM_TIMESTAMP", 0)), ["0", "1", "2", "3", "4"]);
    assert_eq!(ids(&at("FROM_TIMESTAMP", 1_000)), ["0", "1", "2", "3", "4"], "closed just then");
    assert_eq!(ids(&at("FROM_TIMESTAMP", 1_001)), ["1", "2", "3", "4"]);
    let filter = |kind: &str| world.ok("ListShards", json!({"StreamName": "s", "ShardFilter": {"Type": kind}}));
    assert_eq!(ids(&filter("AT_TRIM_HORIZON")), ["0", "1"]);
    assert_eq!(ids(&filter("AT_LATEST")), ["2", "4"]);
    assert_eq!(ids(&filter("FROM_TRIM_HORIZON")).len(), 5);
    // A day later the parents are gone, and what was open at the horizon still tiles.
    world.advance(24 * 3_600_000);
    assert_eq!(ids(&filter("FROM_TRIM_HORIZON")), ["2", "4"]);
    assert!(tiles(&filter("AT_TRIM_HORIZON")));
}

#[test]
fn the_pages_of_a_listing_are_of_one_moment() {
    let world = World::with_stream(2);
    world.advance(2_000);
    world.put("a", "in 0, and there when it has expired");
    world.put("user-123", "in 1");
    world.clock.set(Timestamp::from_millis(1_767_225_601_000));
    let first = |kind: &str| {
        let body = json!({"StreamName": "s", "MaxResults": 1, "ShardFilter": {"Type": kind}});
        world.ok("ListShards", body)
    };
    let pages = ["AT_LATEST", "AT_TRIM_HORIZON"].map(first);
    split(&world, 0, "5");
    split(&world, 1, "255211775190703847597530955573826158592");
    for page in pages {
        let rest = world.ok("ListShards", json!({"NextToken": page["NextToken"]}));
        assert_eq!((ids(&page), ids(&rest)), (vec!["0".to_owned()], vec!["1".to_owned()]));
    }
    // What expires between two pages is listed to the end.
    world.advance(24 * 3_600_000);
    let page = first("FROM_TRIM_HORIZON");
    world.advance(1);
    let rest = world.ok("ListShards", json!({"NextToken": page["NextToken"]}));
    assert_eq!((ids(&page).len(), ids(&rest)), (1, ["1", "2", "3", "4", "5"].map(str::to_owned).to_vec()));
}

#[test]
fn a_shard_that_has_expired_is_gone_before_its_files_are() {
    let world = World::with_stream(1);
    world.put("a", "one");
    split(&world, 0, HALF);
    let consumer = world.ok("RegisterStreamConsumer", json!({"StreamARN": arn("s"), "ConsumerName": "c"}));
    let iterator = json!({"StreamName": "s", "ShardId": shard(0), "ShardIteratorType": "TRIM_HORIZON"});
    let subscription = json!({
        "ConsumerARN": consumer["Consumer"]["ConsumerARN"], "ShardId": shard(0), "StartingPosition": {"Type": "TRIM_HORIZON"},
    });
    world.advance(24 * 3_600_000);
    world.ok("GetShardIterator", iterator.clone());
    world.advance(1);
    assert_eq!(world.shards(json!({"StreamName": "s"})), ["1", "2"]);
    let gone = format!("Shard {} in stream s under account {ACCOUNT} does not exist", shard(0));
    world.refused("GetShardIterator", iterator, "ResourceNotFoundException", &gone);
    world.refused("SubscribeToShard", subscription, "ResourceNotFoundException", &gone);
}
