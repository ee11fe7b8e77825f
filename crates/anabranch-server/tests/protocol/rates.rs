//! How often a stream may be asked, and changed, where limits are enforced; and that nobody counts where they are not.

use anabranch_server::ServiceOptions;
use serde_json::{Value, json};

use crate::support::{ACCOUNT, World, arn, shard};

const HOUR_MS: u64 = 3_600_000;

/// What to ask of the stream of a name.
type Body<'a> = &'a dyn Fn(&str) -> Value;

fn limited() -> World {
    with_stream(World::with(ServiceOptions { enforce_limits: true, ..ServiceOptions::default() }))
}

fn with_stream(world: World) -> World {
    world.ok("CreateStream", json!({"StreamName": "s", "ShardCount": 2}));
    world
}

#[track_caller]
fn is_refused(world: &World, operation: &str, body: Value) {
    let text = format!("Rate exceeded for stream s under account {ACCOUNT}.");
    world.refused(operation, body, "LimitExceededException", &text);
}

fn set_mode(mode: &str) -> Value {
    json!({"StreamARN": arn("s"), "StreamModeDetails": {"StreamMode": mode}})
}

fn set_shards(count: usize) -> Value {
    json!({"StreamName": "s", "TargetShardCount": count, "ScalingType": "UNIFORM_SCALING"})
}

#[test]
fn a_stream_answers_an_operation_so_often_in_a_second() {
    let world = limited();
    world.ok("CreateStream", json!({"StreamName": "t", "ShardCount": 1}));
    world.ok("RegisterStreamConsumer", json!({"StreamARN": arn("s"), "ConsumerName": "c"}));
    let of = |name: &str, more: Value| {
        let mut body = json!({"StreamName": name});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let by_name = |more: Value| move |name: &str| of(name, more.clone());
    let by_arn = |name: &str| json!({"StreamARN": arn(name)});
    let consumer = |name: &str| json!({"StreamARN": arn(name), "ConsumerName": "c"});
    let operations: [(&str, usize, Body<'_>); 7] = [
        ("ListShards", 1_000, &by_name(json!({}))),
        ("ListStreamConsumers", 5, &by_arn),
        ("IncreaseStreamRetentionPeriod", 5, &by_name(json!({"RetentionPeriodHours": 24}))),
        ("DecreaseStreamRetentionPeriod", 5, &by_name(json!({"RetentionPeriodHours": 24}))),
        ("EnableEnhancedMonitoring", 5, &by_name(json!({"ShardLevelMetrics": ["ALL"]}))),
        ("DisableEnhancedMonitoring", 5, &by_name(json!({"ShardLevelMetrics": ["ALL"]}))),
        ("DescribeStreamConsumer", 20, &consumer),
    ];
    for (operation, rate, body) in operations {
        for _ in 0..rate {
            world.ok(operation, body("s"));
        }
        is_refused(&world, operation, body("s"));
        if operation != "DescribeStreamConsumer" {
            world.ok(operation, body("t")); // another stream has its own
        }
        world.advance(1_000);
        world.ok(operation, body("s"));
    }
    let gone = json!({"StreamARN": arn("s"), "ConsumerName": "none"});
    for _ in 0..5 {
        assert_eq!(world.refusal("DeregisterStreamConsumer", gone.clone()).0, "ResourceNotFoundException");
    }
    is_refused(&world, "DeregisterStreamConsumer", consumer("s"));
}

#[test]
fn pages_count_too() {
    let world = limited();
    let first = json!({"StreamName": "s", "MaxResults": 1});
    let token = world.ok("ListShards", first)["NextToken"].clone();
    for _ in 1..1_000 {
        world.ok("ListShards", json!({"NextToken": token}));
    }
    is_refused(&world, "ListShards", json!({"NextToken": token}));
}

#[test]
fn a_shard_gives_so_many_iterators_in_a_second() {
    let world = limited();
    let text = format!("Rate exceeded for shard {} in stream s under account {ACCOUNT}.", shard(0));
    (0..5).for_each(|_| drop(world.iterator(&shard(0), "LATEST")));
    let body = json!({"StreamName": "s", "ShardId": shard(0), "ShardIteratorType": "LATEST"});
    world.refused("GetShardIterator", body, "ProvisionedThroughputExceededException", &text);
    world.iterator(&shard(1), "LATEST");
    world.advance(200);
    world.iterator(&shard(0), "LATEST");
}

#[test]
fn shards_are_counted_anew_ten_times_a_day() {
    let world = limited();
    for turn in 0..10 {
        // What is refused does not count.
        assert!(world.refusal("UpdateShardCount", set_shards(20)).1.contains("over double"));
        world.ok("UpdateShardCount", set_shards(if turn % 2 == 0 { 4 } else { 2 }));
        world.advance(HOUR_MS);
    }
    is_refused(&world, "UpdateShardCount", set_shards(4));
    world.advance(14 * HOUR_MS - 1);
    is_refused(&world, "UpdateShardCount", set_shards(4));
    world.advance(1);
    world.ok("UpdateShardCount", set_shards(4));
    is_refused(&world, "UpdateShardCount", set_shards(2));
    // Other ways to change them have no such limit.
    let split = json!({"StreamName": "s", "ShardToSplit": world.shards(json!({"StreamName": "s", "ShardFilter": {"Type": "AT_LATEST"}}))[0],
        "NewStartingHashKey": "7"});
    world.ok("SplitShard", split);
}

#[test]
fn a_mode_is_changed_twice_a_day() {
    let world = limited();
    for mode in ["ON_DEMAND", "ON_DEMAND", "PROVISIONED", "PROVISIONED"] {
        world.ok("UpdateStreamMode", set_mode(mode)); // that it has already is no change
    }
    is_refused(&world, "UpdateStreamMode", set_mode("ON_DEMAND"));
    world.ok("UpdateShardCount", set_shards(3));
    world.advance(24 * HOUR_MS);
    world.ok("UpdateStreamMode", set_mode("ON_DEMAND"));
}

#[test]
fn encryption_begins_and_ends_so_often_a_day() {
    let world = limited();
    let body = json!({"StreamName": "s", "EncryptionType": "KMS", "KeyId": "alias/aws/kinesis"});
    for operation in ["StartStreamEncryption", "StopStreamEncryption"] {
        for _ in 0..25 {
            world.ok(operation, body.clone());
        }
        is_refused(&world, operation, body.clone());
    }
    world.advance(24 * HOUR_MS);
    world.ok("StartStreamEncryption", body);
}

#[test]
fn counts_go_with_their_stream() {
    let world = limited();
    let modes = ["ON_DEMAND", "PROVISIONED"];
    for mode in modes {
        world.ok("UpdateStreamMode", set_mode(mode));
    }
    is_refused(&world, "UpdateStreamMode", set_mode("ON_DEMAND"));
    world.ok("DeleteStream", json!({"StreamName": "s"}));
    world.ok("CreateStream", json!({"StreamName": "s", "ShardCount": 2}));
    for mode in modes {
        world.ok("UpdateStreamMode", set_mode(mode));
    }
}

#[test]
fn nobody_counts_where_limits_are_not_enforced() {
    let world = with_stream(World::new());
    for turn in 0..30 {
        world.ok("UpdateStreamMode", set_mode(if turn % 2 == 0 { "ON_DEMAND" } else { "PROVISIONED" }));
        world.ok("ListStreamConsumers", json!({"StreamARN": arn("s")}));
        world.iterator(&shard(0), "LATEST");
    }
    for turn in 0..12 {
        world.ok("UpdateShardCount", set_shards(if turn % 2 == 0 { 4 } else { 2 }));
    }
}
