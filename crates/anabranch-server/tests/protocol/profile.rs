//! The service as it was in 2020: each difference, beside the service of now.

use anabranch_server::{Profile, ServiceOptions};
use serde_json::{Value, json};

use crate::support::{World, arn, base64, shard};

fn in_2020() -> World {
    World::with(ServiceOptions { profile: Profile::Y2020, ..ServiceOptions::default() })
}

fn in_2020_with_stream() -> World {
    let world = in_2020();
    world.ok("CreateStream", json!({"StreamName": "s", "ShardCount": 1}));
    world
}

/// The names of the members of an answer.
fn names(answer: &Value) -> Vec<&str> {
    let mut names: Vec<_> = answer.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

#[test]
fn descriptions_say_what_they_said() {
    let described = [
        "EncryptionType",
        "EnhancedMonitoring",
        "HasMoreShards",
        "RetentionPeriodHours",
        "Shards",
        "StreamARN",
        "StreamCreationTimestamp",
        "StreamName",
        "StreamStatus",
    ];
    let summarized = [
        "ConsumerCount",
        "EncryptionType",
        "EnhancedMonitoring",
        "OpenShardCount",
        "RetentionPeriodHours",
        "StreamARN",
        "StreamCreationTimestamp",
        "StreamName",
        "StreamStatus",
    ];
    let world = in_2020_with_stream();
    let answer = |operation: &str| world.ok(operation, json!({"StreamName": "s"}));
    assert_eq!(names(&answer("DescribeStream")["StreamDescription"]), described);
    assert_eq!(names(&answer("DescribeStreamSummary")["StreamDescriptionSummary"]), summarized);
    assert_eq!(names(&answer("DescribeLimits")), ["OpenShardCount", "ShardLimit"]);
    assert_eq!(answer("ListStreams"), json!({"HasMoreStreams": false, "StreamNames": ["s"]}));
    let metrics = json!({"StreamName": "s", "ShardLevelMetrics": ["ALL"]});
    let monitored = ["CurrentShardLevelMetrics", "DesiredShardLevelMetrics", "StreamName"];
    for operation in ["EnableEnhancedMonitoring", "DisableEnhancedMonitoring"] {
        assert_eq!(names(&world.ok(operation, metrics.clone())), monitored);
    }
    let count = json!({"StreamName": "s", "TargetShardCount": 2, "ScalingType": "UNIFORM_SCALING"});
    assert_eq!(
        names(&world.ok("UpdateShardCount", count)),
        ["CurrentShardCount", "StreamName", "TargetShardCount"]
    );
    // Now they say more.
    let world = World::with_stream(1);
    let now = world.ok("DescribeStream", json!({"StreamName": "s"}));
    assert_eq!(now["StreamDescription"]["StreamModeDetails"], json!({"StreamMode": "PROVISIONED"}));
}

#[test]
fn what_is_told_keeps_its_form() {
    let (then, now) = (in_2020_with_stream(), World::with_stream(1));
    let description = |world: &World| world.ok("DescribeStream", json!({"StreamName": "s"}));
    let mut expected = description(&now);
    expected["StreamDescription"].as_object_mut().unwrap().remove("StreamModeDetails");
    assert_eq!(description(&then), expected);
    let ask = |world: &World| {
        let mut request = crate::support::request("DescribeStream", &b"\xa1\x6aStreamName\x61s"[..]);
        let cbor = http::HeaderValue::from_static("application/x-amz-cbor-1.1");
        request.headers_mut().insert("content-type", cbor);
        world.service.respond(request).body().bytes().to_vec()
    };
    let mode = b"\x71StreamModeDetails\xa1\x6aStreamMode\x6bPROVISIONED";
    let is_told = |bytes: &[u8]| bytes.windows(mode.len()).any(|window| window == mode);
    let (then, now) = (ask(&then), ask(&now));
    assert!(is_told(&now) && !is_told(&then));
    // A time in milliseconds, which is a long number, and a map that is one shorter.
    assert!(then.windows(25).any(|window| window.starts_with(b"\x77StreamCreationTimestamp")));
    assert!(then.len() < now.len());
}

#[test]
fn ends_of_shards_name_no_children() {
    let world = in_2020_with_stream();
    world.put("a", "one");
    let end = json!({"StreamName": "s", "ShardToSplit": shard(0), "NewStartingHashKey": "7"});
    world.ok("SplitShard", end);
    let answer = world.read(&world.iterator(&shard(0), "TRIM_HORIZON"));
    assert_eq!(names(&answer), ["MillisBehindLatest", "Records"]);
    assert_eq!(answer["Records"][0]["Data"], base64("one"));

    let registered = json!({"StreamARN": arn("s"), "ConsumerName": "c", "Tags": {"passed": "over"}});
    let consumer = world.ok("RegisterStreamConsumer", registered)["Consumer"]["ConsumerARN"].clone();
    let start =
        json!({"ConsumerARN": consumer, "ShardId": shard(0), "StartingPosition": {"Type": "TRIM_HORIZON"}});
    let events = world.send("SubscribeToShard", &start);
    assert_eq!(events.status(), 200);
    let mut events = events.into_body();
    let bytes: Vec<u8> = std::iter::from_fn(|| events.next_event()).flatten().collect();
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains("MillisBehindLatest") && !text.contains("ChildShards"), "{text}");
}

#[test]
fn requests_have_no_members_that_came_later() {
    let world = in_2020();
    let later = json!({"StreamName": "s", "ShardCount": 1, "StreamModeDetails": {"StreamMode": "ON_DEMAND"}, "MaxRecordSizeInKiB": 7,
        "WarmThroughputMiBps": -1, "RecordDistributionStrategy": "none", "Tags": {"passed": "over"}});
    world.ok("CreateStream", later);
    assert_eq!(world.ok("ListTagsForStream", json!({"StreamName": "s"}))["Tags"], json!([]));
    let by_arn = json!({"StreamARN": arn("s")});
    assert_eq!(
        world.refusal("DescribeStream", by_arn).1,
        "Either StreamName or StreamARN should be provided.",
        "the one that there was is missing"
    );
    let dry = json!({"StreamName": "s", "StreamARN": "passed over", "PartitionKey": "a", "Data": base64("x"), "DryRun": true});
    world.ok("PutRecord", dry);
    assert_eq!(world.all(&shard(0)), ["x"]);
    let filter = json!({"StreamName": "s", "ShardFilter": {"Type": "none"}});
    assert_eq!(world.shards(filter), ["0"]);
    world.ok("ListStreams", json!({"NextToken": "none"}));
}

#[test]
fn operations_that_came_later_are_unknown() {
    let world = in_2020_with_stream();
    let body = json!({"StreamARN": arn("s"), "StreamModeDetails": {"StreamMode": "ON_DEMAND"}});
    assert_eq!(world.refusal("UpdateStreamMode", body.clone()).0, "UnknownOperationException");
    for operation in
        ["TagResource", "GetResourcePolicy", "UpdateMaxRecordSize", "DescribeAccountSettings", "ListQueues"]
    {
        assert_eq!(world.refusal(operation, json!({"ResourceARN": arn("s")})).0, "UnknownOperationException");
    }
    World::with_stream(1).ok("UpdateStreamMode", body);
}

#[test]
fn bounds_are_those_of_then() {
    let (then, now) = (in_2020_with_stream(), World::with_stream(1));
    let refused = |operation: &str, body: Value, text: &str| {
        let refusal = then.refusal(operation, body);
        assert!(refusal.1.contains(text), "{refusal:?}");
    };

    let hours = |hours: u32| json!({"StreamName": "s", "RetentionPeriodHours": hours});
    then.ok("IncreaseStreamRetentionPeriod", hours(168));
    refused("IncreaseStreamRetentionPeriod", hours(169), "Maximum allowed retention period is 168 hours.");
    now.ok("IncreaseStreamRetentionPeriod", hours(169));

    let tags = |count: usize| {
        (0..count).map(|number| (format!("t{number}"), "".into())).collect::<serde_json::Map<_, Value>>()
    };
    let add = |count: usize| json!({"StreamName": "s", "Tags": tags(count)});
    then.ok("AddTagsToStream", add(10));
    refused("AddTagsToStream", add(11), "less than or equal to 10");
    now.ok("AddTagsToStream", add(11));
    let remove = |count: usize| json!({"StreamName": "s", "TagKeys": tags(count).keys().collect::<Vec<_>>()});
    then.ok("RemoveTagsFromStream", remove(10));
    refused("RemoveTagsFromStream", remove(11), "less than or equal to 10");
    now.ok("RemoveTagsFromStream", remove(11));
    refused("ListTagsForStream", json!({"StreamName": "s", "Limit": 11}), "less than or equal to 10");
    now.ok("ListTagsForStream", json!({"StreamName": "s", "Limit": 11}));

    let megabyte = json!({"PartitionKey": "a", "Data": base64(vec![0; 1_000_000])});
    let batch = |count: usize| json!({"StreamName": "s", "Records": vec![&megabyte; count]});
    then.ok("PutRecords", batch(5));
    refused("PutRecords", batch(6), "Records size exceeds 5 MB limit");
    now.ok("PutRecords", batch(6));
}

/// Streams that were made for larger records are served to those of then as then.
#[test]
fn records_have_a_megabyte() {
    let now = World::new();
    now.ok("CreateStream", json!({"StreamName": "s", "ShardCount": 1, "MaxRecordSizeInKiB": 2_048}));
    let record = json!({"StreamName": "s", "PartitionKey": "a", "Data": base64(vec![0; (1 << 20) + 1])});
    now.ok("PutRecord", record.clone());
    let World { service, clock, disk } = now;
    service.close().unwrap();
    drop(service);
    let options = ServiceOptions { profile: Profile::Y2020, ..ServiceOptions::default() };
    let service =
        anabranch_server::Service::open_on("/data", options, clock.clone(), std::sync::Arc::new(disk.clone()));
    let then = World { service: service.unwrap(), clock, disk };
    let refusal = then.refusal("PutRecord", record);
    assert!(refusal.1.ends_with("Member must have length less than or equal to 1048576"), "{refusal:?}");
    assert_eq!(then.read(&then.iterator(&shard(0), "TRIM_HORIZON"))["Records"].as_array().unwrap().len(), 1);
}
