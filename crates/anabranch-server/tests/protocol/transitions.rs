//! Streams that are said to be in creation, in change and in deletion for a while.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anabranch::storage::Operation;
use anabranch_server::{Service, ServiceOptions};
use serde_json::{Value, json};

use crate::support::{ACCOUNT, World, arn, base64, data, request, shard};

fn options() -> ServiceOptions {
    ServiceOptions { transition_delay: Duration::from_secs(1), ..ServiceOptions::default() }
}

fn create(name: &str) -> Value {
    json!({"StreamName": name, "ShardCount": 1})
}

/// With a stream `s` that is active.
fn active() -> World {
    let world = World::with(options());
    world.ok("CreateStream", create("s"));
    world.advance(1_000);
    world
}

fn summary(world: &World) -> Value {
    world.ok("DescribeStreamSummary", json!({"StreamName": "s"}))["StreamDescriptionSummary"].clone()
}

fn status(world: &World) -> Value {
    let described = world.ok("DescribeStream", json!({"StreamName": "s"}))["StreamDescription"].clone();
    assert_eq!(described["StreamStatus"], summary(world)["StreamStatus"]);
    described["StreamStatus"].clone()
}

fn refused_as(world: &World, operation: &str, body: Value, state: &str) {
    let text = format!("Stream s under account {ACCOUNT} not ACTIVE, instead in state {state}");
    world.refused(operation, body, "ResourceInUseException", &text);
}

const NOT_FOUND: &str = "ResourceNotFoundException";

fn not_found() -> String {
    format!("Stream s under account {ACCOUNT} not found.")
}

fn put() -> Value {
    json!({"StreamName": "s", "PartitionKey": "a", "Data": base64("x")})
}

fn split(number: u32) -> Value {
    json!({"StreamName": "s", "ShardToSplit": shard(number), "NewStartingHashKey": "5"})
}

#[test]
fn a_stream_in_creation_shows_nothing_and_serves_nobody() {
    let world = World::with(options());
    world.ok("CreateStream", create("s"));
    for pause in [0, 999] {
        world.advance(pause);
        assert_eq!((status(&world), &summary(&world)["OpenShardCount"]), (json!("CREATING"), &json!(0)));
        assert_eq!(
            world.ok("DescribeStream", json!({"StreamName": "s"}))["StreamDescription"]["Shards"],
            json!([])
        );
        assert_eq!(world.ok("ListStreams", json!({}))["StreamSummaries"][0]["StreamStatus"], "CREATING");
        world.refused("PutRecord", put(), NOT_FOUND, &not_found());
        let records = json!({"StreamName": "s", "Records": [{"PartitionKey": "a", "Data": ""}]});
        world.refused("PutRecords", records, NOT_FOUND, &not_found());
        let iterator = json!({"StreamName": "s", "ShardId": shard(0), "ShardIteratorType": "LATEST"});
        world.refused("GetShardIterator", iterator, NOT_FOUND, &not_found());
        refused_as(&world, "ListShards", json!({"StreamName": "s"}), "CREATING");
        refused_as(&world, "SplitShard", split(0), "CREATING");
        let consumer = json!({"StreamARN": arn("s"), "ConsumerName": "c"});
        refused_as(&world, "RegisterStreamConsumer", consumer, "CREATING");
        assert_eq!(world.refusal("CreateStream", create("s")).0, "ResourceInUseException");
    }
    world.advance(1);
    assert_eq!((status(&world), &summary(&world)["OpenShardCount"]), (json!("ACTIVE"), &json!(1)));
    world.ok("PutRecord", put());
}

#[test]
fn changes_wait_for_each_other_and_records_for_none() {
    let key = json!({"StreamName": "s", "EncryptionType": "KMS", "KeyId": "k"});
    let changes = [
        ("SplitShard", split(0)),
        ("MergeShards", json!({"StreamName": "s", "ShardToMerge": shard(1), "AdjacentShardToMerge": shard(2)})),
        ("UpdateShardCount", json!({"StreamName": "s", "TargetShardCount": 2, "ScalingType": "UNIFORM_SCALING"})),
        ("IncreaseStreamRetentionPeriod", json!({"StreamName": "s", "RetentionPeriodHours": 48})),
        ("DecreaseStreamRetentionPeriod", json!({"StreamName": "s", "RetentionPeriodHours": 24})),
        ("StartStreamEncryption", key.clone()),
        ("StopStreamEncryption", key),
        ("UpdateMaxRecordSize", json!({"StreamName": "s", "MaxRecordSizeInKiB": 2_048})),
        ("UpdateStreamMode", json!({"StreamARN": arn("s"), "StreamModeDetails": {"StreamMode": "ON_DEMAND"}})),
        ("UpdateStreamWarmThroughput", json!({"StreamName": "s", "WarmThroughputMiBps": 10})),
    ];
    let world = active();
    world.ok("UpdateAccountSettings", json!({"MinimumThroughputBillingCommitment": {"Status": "ENABLED"}}));
    for (operation, body) in changes.clone() {
        world.ok(operation, body);
        assert_eq!(status(&world), "UPDATING", "{operation}");
        for (other, body) in changes.clone() {
            refused_as(&world, other, body, "UPDATING");
        }
        world.ok("PutRecord", put());
        world.ok("ListShards", json!({"StreamName": "s"}));
        world.ok("AddTagsToStream", json!({"StreamName": "s", "Tags": {"a": "1"}}));
        world.advance(1_000);
        assert_eq!(status(&world), "ACTIVE", "{operation}");
    }
}

#[test]
fn what_was_refused_begins_nothing() {
    let world = active();
    world.refusal("SplitShard", split(7));
    world.refusal(
        "UpdateShardCount",
        json!({"StreamName": "s", "TargetShardCount": 9, "ScalingType": "UNIFORM_SCALING"}),
    );
    assert_eq!(status(&world), "ACTIVE");
}

#[test]
fn a_stream_in_deletion_is_seen_and_not_used() {
    let world = active();
    world.ok("PutRecord", put());
    let iterator = world.iterator(&shard(0), "TRIM_HORIZON");
    world.ok("DeleteStream", json!({"StreamName": "s"}));
    assert_eq!(status(&world), "DELETING");
    world.service.rebalance().unwrap();
    assert_eq!(world.ok("ListStreams", json!({}))["StreamNames"], json!(["s"]));
    assert_eq!(world.ok("DescribeLimits", json!({}))["OpenShardCount"], 0, "its shards are free");
    world.refused("PutRecord", put(), NOT_FOUND, &not_found());
    let text = format!("Shard {} in stream s under account {ACCOUNT} does not exist", shard(0));
    world.refused("GetRecords", json!({"ShardIterator": iterator}), NOT_FOUND, &text);
    let tags = json!({"StreamName": "s", "Tags": {"a": "1"}});
    world.refused("AddTagsToStream", tags, NOT_FOUND, &not_found());
    for operation in ["DeleteStream", "ListShards"] {
        refused_as(&world, operation, json!({"StreamName": "s"}), "DELETING");
    }
    assert_eq!(world.refusal("CreateStream", create("s")).0, "ResourceInUseException");
    world.advance(1_000);
    world.refused("DescribeStreamSummary", json!({"StreamName": "s"}), NOT_FOUND, &not_found());
    assert_eq!(world.ok("ListStreams", json!({}))["StreamNames"], json!([]));
    world.ok("CreateStream", create("s"));
    world.ok("DeleteStream", json!({"StreamName": "s"})); // in creation too
    assert_eq!(status(&world), "DELETING");
}

#[test]
fn a_restart_ends_every_transition() {
    let world = World::with(options());
    world.ok("CreateStream", create("gone"));
    world.ok("DeleteStream", json!({"StreamName": "gone"}));
    world.ok("CreateStream", create("s"));
    let World { clock, disk, service } = world;
    service.close().unwrap();
    drop(service);
    let service = Service::open_on("/data", options(), clock.clone(), Arc::new(disk.clone())).unwrap();
    let world = World { clock, disk, service };
    assert_eq!(status(&world), "ACTIVE");
    world.ok("PutRecord", put());
    assert_eq!(world.ok("ListStreams", json!({}))["StreamNames"], json!(["s"]));
}

#[test]
fn few_are_in_creation_at_a_time() {
    let world = World::with(options());
    (0..5).for_each(|number| drop(world.ok("CreateStream", create(&format!("s{number}")))));
    let text = format!(
        "This request would exceed the limit of 5 streams in state CREATING for the account {ACCOUNT} in us-east-1."
    );
    world.refused("CreateStream", create("s"), "LimitExceededException", &text);
    world.advance(1_000);
    world.ok("CreateStream", create("s"));
    world.advance(1_000);
    let register = |number: u32| json!({"StreamARN": arn("s"), "ConsumerName": format!("c{number}")});
    (0..5).for_each(|number| drop(world.ok("RegisterStreamConsumer", register(number))));
    let text = format!("Stream s under account {ACCOUNT} has 5 consumers in state CREATING.");
    world.refused("RegisterStreamConsumer", register(5), "LimitExceededException", &text);
    let described = world.ok("DescribeStreamConsumer", register(0))["ConsumerDescription"].clone();
    let listed = world.ok("ListStreamConsumers", json!({"StreamARN": arn("s")}))["Consumers"][0].clone();
    assert_eq!(
        (&described["ConsumerStatus"], &listed["ConsumerStatus"]),
        (&json!("CREATING"), &json!("CREATING"))
    );
    let subscribe =
        json!({"ConsumerARN": described["ConsumerARN"], "ShardId": "0", "StartingPosition": {"Type": "LATEST"}});
    world.refused("SubscribeToShard", subscribe.clone(), "ResourceInUseException", "Consumer c0 is not ACTIVE.");
    world.advance(1_000);
    world.ok("RegisterStreamConsumer", register(5));
    assert_eq!(world.send("SubscribeToShard", &subscribe).status(), 200);
}

#[test]
fn nothing_takes_time_unless_it_is_asked_for() {
    let world = World::with_stream(1);
    world.ok("SplitShard", split(0));
    assert_eq!(status(&world), "ACTIVE");
    world.put("a", "x");
    assert_eq!(data(&world.read(&world.iterator(&shard(2), "TRIM_HORIZON"))), ["x"]);
    world.ok("DeleteStream", json!({"StreamName": "s"}));
    world.refused("DescribeStream", json!({"StreamName": "s"}), NOT_FOUND, &not_found());
}

#[test]
fn streams_that_a_server_starts_with_are_active_at_once_however_many() {
    let world = World::with(options());
    for name in ["s", "t", "u", "v", "w", "x"] {
        world.service.create_stream(name, 1).unwrap();
    }
    assert_eq!(status(&world), "ACTIVE");
    world.ok("PutRecord", put());
    world.ok("CreateStream", create("y"));
}

#[test]
fn whoever_meets_a_stream_while_it_is_deleted_is_told_so() {
    let world = World::with_stream(1);
    world.ok("CreateStream", create("other"));
    world.put("a", "one");
    let iterator = world.iterator("0", "TRIM_HORIZON");
    world.ok("DeleteStream", json!({"StreamName": "other"})); // what is kept of streams that were deleted is kept by now
    let (service, disk) = (world.service.clone(), world.disk.clone());
    disk.stall_syncs(true);
    let before = disk.operations_of(Operation::SyncDir);
    let delete = move || service.respond(request("DeleteStream", json!({"StreamName": "s"}).to_string())).status();
    let deletion = thread::spawn(delete);
    while disk.operations_of(Operation::SyncDir) == before {
        assert!(!deletion.is_finished());
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(status(&world), "DELETING");
    for (operation, body) in [
        ("PutRecord", put()),
        ("PutRecords", json!({"StreamName": "s", "Records": [{"PartitionKey": "a", "Data": ""}]})),
        ("GetRecords", json!({"ShardIterator": iterator})),
        ("GetShardIterator", json!({"StreamName": "s", "ShardId": shard(0), "ShardIteratorType": "LATEST"})),
    ] {
        assert_eq!(world.refusal(operation, body).0, NOT_FOUND);
    }
    let count = json!({"StreamName": "s", "TargetShardCount": 2, "ScalingType": "UNIFORM_SCALING"});
    for (operation, body) in [("SplitShard", split(0)), ("UpdateShardCount", count), ("DeleteStream", create("s"))]
    {
        refused_as(&world, operation, body, "DELETING");
    }
    disk.stall_syncs(false);
    assert_eq!(deletion.join().unwrap(), 200);
    world.refused("DescribeStream", json!({"StreamName": "s"}), NOT_FOUND, &not_found());
    world.ok("CreateStream", create("s"));
}
