//! Retention, tags, monitoring, encryption, policies, throughput.

use serde_json::{Value, json};

use crate::support::{ACCOUNT, World, arn, shard};

#[test]
fn retention_has_its_bounds_and_its_directions() {
    let world = World::with_stream(1);
    let hours = |hours: i64| json!({"StreamName": "s", "RetentionPeriodHours": hours});
    let (up, down, invalid) =
        ("IncreaseStreamRetentionPeriod", "DecreaseStreamRetentionPeriod", "InvalidArgumentException");
    world.refused(
        up,
        hours(23),
        invalid,
        "Minimum allowed retention period is 24 hours. Requested retention period (23 hours) is too short.",
    );
    world.refused(
        up,
        hours(8_761),
        invalid,
        "Maximum allowed retention period is 8760 hours. Requested retention period (8761 hours) is too long.",
    );
    world.ok(up, hours(48));
    world.refused(
        up,
        hours(25),
        invalid,
        "Requested retention period (25 hours) for stream s can not be shorter than existing retention period (48 hours). Use \
         DecreaseRetentionPeriod API.",
    );
    world.refused(
        down,
        hours(49),
        invalid,
        "Requested retention period (49 hours) for stream s can not be longer than existing retention period (48 hours). Use \
         IncreaseRetentionPeriod API.",
    );
    assert_eq!(
        world.ok("DescribeStream", json!({"StreamName": "s"}))["StreamDescription"]["RetentionPeriodHours"],
        48
    );
    world.put("a", "x");
    world.advance(25 * 3_600_000);
    assert_eq!(world.all(&shard(0)), ["x"]);
    world.ok(down, hours(24));
    assert_eq!(world.all(&shard(0)), [""; 0], "out of reach at once");
}

#[test]
fn tags_of_both_kinds_are_the_same_tags() {
    let world = World::with_stream(1);
    world.ok("AddTagsToStream", json!({"StreamName": "s", "Tags": {"b": "2", "a": "1"}}));
    world.ok("TagResource", json!({"ResourceARN": arn("s"), "Tags": {"c": ""}}));
    let tag = |key: &str, value: &str| json!({"Key": key, "Value": value});
    let list = |more: Value| world.ok("ListTagsForStream", more);
    assert_eq!(
        list(json!({"StreamName": "s"})),
        json!({"Tags": [tag("a", "1"), tag("b", "2"), tag("c", "")], "HasMoreTags": false})
    );
    let page = list(json!({"StreamName": "s", "Limit": 1, "ExclusiveStartTagKey": "a"}));
    assert_eq!(page, json!({"Tags": [tag("b", "2")], "HasMoreTags": true}));
    world.ok("RemoveTagsFromStream", json!({"StreamName": "s", "TagKeys": ["a", "none"]}));
    world.ok("UntagResource", json!({"ResourceARN": arn("s"), "TagKeys": ["b"]}));
    let missing = "1 validation error detected: Value null at 'tagKeys.1.member' failed to satisfy constraint: Member must not be null";
    let null = json!({"ResourceARN": arn("s"), "TagKeys": [null]});
    world.refused("UntagResource", null, "ValidationException", missing);
    assert_eq!(world.ok("ListTagsForResource", json!({"ResourceARN": arn("s")})), json!({"Tags": [tag("c", "")]}));
    let many: Value =
        (0..50).map(|number| (format!("k{number}"), json!("v"))).collect::<serde_json::Map<_, _>>().into();
    let text = format!(
        "Failed to add tags to stream s under account {ACCOUNT} because it cannot have more than 50 tags associated with it."
    );
    world.refused("AddTagsToStream", json!({"StreamName": "s", "Tags": many}), "InvalidArgumentException", &text);
    world.refused(
        "AddTagsToStream",
        json!({"StreamName": "s", "Tags": {"a#": "x"}}),
        "InvalidArgumentException",
        "Some tags contain invalid characters. Valid characters: Unicode letters, digits, white space, _ . : / = + - @.",
    );
    assert_eq!(
        world.ok("ListTagsForStream", json!({"StreamName": "s"}))["Tags"].as_array().unwrap().len(),
        1,
        "refused whole"
    );
}

#[test]
fn tags_at_birth_have_the_bounds_of_later_ones() {
    let world = World::with_stream(1);
    let many: Value =
        (0..51).map(|number| (format!("k{number}"), json!("v"))).collect::<serde_json::Map<_, _>>().into();
    let stream = |tags: &Value| json!({"StreamName": "t", "ShardCount": 1, "Tags": tags});
    let consumer = |tags: &Value| json!({"StreamARN": arn("s"), "ConsumerName": "c", "Tags": tags});
    for tags in [many, json!({"a#": "x"}), json!({"a": "x\u{0}"})] {
        assert_eq!(world.refusal("CreateStream", stream(&tags)).0, "InvalidArgumentException", "{tags}");
        assert_eq!(
            world.refusal("RegisterStreamConsumer", consumer(&tags)).0,
            "InvalidArgumentException",
            "{tags}"
        );
    }
    world.ok("CreateStream", stream(&json!({"a": "1"})));
    world.ok("RegisterStreamConsumer", consumer(&json!({"a": "1"})));
}

#[test]
fn monitoring_is_told_before_and_after() {
    let world = World::with_stream(1);
    let metrics = |names: Value| json!({"StreamName": "s", "ShardLevelMetrics": names});
    let answer = world.ok("EnableEnhancedMonitoring", metrics(json!(["ALL"])));
    assert_eq!(answer["CurrentShardLevelMetrics"], json!([]));
    assert_eq!(answer["DesiredShardLevelMetrics"].as_array().unwrap().len(), 7);
    let answer = world.ok("DisableEnhancedMonitoring", metrics(json!(["IncomingBytes"])));
    assert_eq!(answer["DesiredShardLevelMetrics"].as_array().unwrap().len(), 6);
    assert_eq!(world.refusal("EnableEnhancedMonitoring", metrics(json!(["X"]))).0, "ValidationException");
    for (names, constraint) in [
        (
            json!([]),
            "at 'shardLevelMetrics' failed to satisfy constraint: Member must have length greater than or equal to 1",
        ),
        (
            json!(vec!["ALL"; 8]),
            "at 'shardLevelMetrics' failed to satisfy constraint: Member must have length less than or equal to 7",
        ),
        (
            json!(["ALL", null]),
            "Value null at 'shardLevelMetrics.2.member' failed to satisfy constraint: Member must not be null",
        ),
    ] {
        let (kind, text) = world.refusal("EnableEnhancedMonitoring", metrics(names));
        assert_eq!((kind.as_str(), text.ends_with(constraint)), ("ValidationException", true), "{text}");
    }
}

#[test]
fn encryption_is_reported_everywhere() {
    let world = World::with_stream(1);
    let body = json!({"StreamName": "s", "EncryptionType": "KMS", "KeyId": "alias/mine"});
    world.ok("StartStreamEncryption", body.clone());
    assert_eq!(world.put("a", "x")["EncryptionType"], "KMS");
    assert_eq!(world.read(&world.iterator(&shard(0), "TRIM_HORIZON"))["Records"][0]["EncryptionType"], "KMS");
    assert_eq!(world.ok("DescribeStream", json!({"StreamName": "s"}))["StreamDescription"]["KeyId"], "alias/mine");
    world.ok("StopStreamEncryption", body);
    assert!(world.put("a", "x").get("EncryptionType").is_none());
    let none = json!({"StreamName": "s", "EncryptionType": "NONE", "KeyId": "k"});
    world.refused("StartStreamEncryption", none, "InvalidArgumentException", "Encryption type must be KMS.");
}

#[test]
fn policies_are_kept() {
    let world = World::with_stream(1);
    let of = json!({"ResourceARN": arn("s")});
    assert_eq!(world.ok("GetResourcePolicy", of.clone()), json!({"Policy": "{}"}));
    world.ok("PutResourcePolicy", json!({"ResourceARN": arn("s"), "Policy": "{\"Version\": \"2012-10-17\"}"}));
    assert_eq!(world.ok("GetResourcePolicy", of.clone())["Policy"], "{\"Version\": \"2012-10-17\"}");
    world.refused(
        "PutResourcePolicy",
        json!({"ResourceARN": arn("s"), "Policy": "x"}),
        "InvalidArgumentException",
        "The policy is no JSON document.",
    );
    let long = |bytes: usize| {
        let policy = format!("{{\"Sid\": \"{}\"}}", "x".repeat(bytes - 11));
        json!({"ResourceARN": arn("s"), "Policy": policy})
    };
    let text = "A policy can have 20480 bytes; this one has 20481.";
    world.refused("PutResourcePolicy", long(20_481), "LimitExceededException", text);
    world.ok("PutResourcePolicy", long(20_480));
    world.ok("DeleteResourcePolicy", of.clone());
    assert_eq!(world.ok("GetResourcePolicy", of)["Policy"], "{}");
}

#[test]
fn throughput_is_kept_warm_on_demand_where_it_is_committed() {
    let world = World::new();
    let create = |name: &str, mode: &str, warm: u32| {
        let count = if mode == "PROVISIONED" { json!(1) } else { Value::Null };
        json!({"StreamName": name, "ShardCount": count, "StreamModeDetails": {"StreamMode": mode}, "WarmThroughputMiBps": warm})
    };
    let update = |warm: u32| json!({"StreamName": "s", "WarmThroughputMiBps": warm});
    let set_mode = |mode: &str, warm: Value| json!({"StreamARN": arn("s"), "StreamModeDetails": {"StreamMode": mode}, "WarmThroughputMiBps": warm});
    let told = || {
        world.ok("DescribeStreamSummary", json!({"StreamName": "s"}))["StreamDescriptionSummary"]["WarmThroughput"]
            .clone()
    };
    let (invalid, over) = ("ValidationException", "LimitExceededException");
    let uncommitted =
        format!("Request is invalid. Account {ACCOUNT} has no minimum throughput billing commitment.");
    let provisioned = |name: &str| {
        format!("Request is invalid. Stream {name} under account {ACCOUNT} is not in On-Demand mode.")
    };

    world.refused("CreateStream", create("s", "ON_DEMAND", 100), invalid, &uncommitted);
    world.ok("CreateStream", json!({"StreamName": "s", "StreamModeDetails": {"StreamMode": "ON_DEMAND"}}));
    world.refused("UpdateStreamWarmThroughput", update(100), invalid, &uncommitted);
    world.refused("UpdateStreamMode", set_mode("ON_DEMAND", json!(100)), invalid, &uncommitted);
    world.ok("UpdateAccountSettings", json!({"MinimumThroughputBillingCommitment": {"Status": "ENABLED"}}));

    world.refused("CreateStream", create("t", "PROVISIONED", 100), invalid, &provisioned("t"));
    assert_eq!(world.refusal("CreateStream", create("t", "ON_DEMAND", 10_241)).0, over);
    world.ok("CreateStream", create("t", "ON_DEMAND", 10_240));
    assert_eq!(world.refusal("UpdateStreamWarmThroughput", update(10_241)).0, over);
    let before_and_after = json!({"TargetMiBps": 100, "CurrentMiBps": 0});
    assert_eq!(world.ok("UpdateStreamWarmThroughput", update(100))["WarmThroughput"], before_and_after);

    world.refused("UpdateStreamMode", set_mode("PROVISIONED", json!(100)), invalid, &provisioned("s"));
    world.ok("UpdateStreamMode", set_mode("ON_DEMAND", Value::Null));
    assert_eq!(told(), json!({"TargetMiBps": 100, "CurrentMiBps": 100}), "kept by who is on demand");
    world.ok("UpdateStreamMode", set_mode("PROVISIONED", Value::Null));
    world.refused("UpdateStreamWarmThroughput", update(100), invalid, &provisioned("s"));
    world.ok("UpdateStreamMode", set_mode("ON_DEMAND", Value::Null));
    assert_eq!(told(), Value::Null, "and lost by who was not");
    assert_eq!(world.refusal("UpdateStreamMode", set_mode("ON_DEMAND", json!(10_241))).0, over);
    world.ok("UpdateStreamMode", set_mode("ON_DEMAND", json!(10_240)));
    assert_eq!(told()["TargetMiBps"], 10_240);
}

#[test]
fn a_commitment_is_of_an_account_in_a_region() {
    let world = World::new();
    let describe = || world.ok("DescribeAccountSettings", json!({}))["MinimumThroughputBillingCommitment"].clone();
    let update = |status: &str| {
        let body = json!({"MinimumThroughputBillingCommitment": {"Status": status}});
        world.ok("UpdateAccountSettings", body)["MinimumThroughputBillingCommitment"].clone()
    };
    assert_eq!(describe(), json!({"Status": "DISABLED"}));
    let begun = 1_767_225_600.0;
    let enabled = json!({"Status": "ENABLED", "StartedAt": begun, "EarliestAllowedEndAt": begun + 86_400.0});
    assert_eq!(update("ENABLED"), enabled);
    world.advance(1_000);
    assert_eq!(update("DISABLED")["Status"], "ENABLED_UNTIL_EARLIEST_ALLOWED_END");
    world.advance(86_400_000);
    assert_eq!(describe(), json!({"Status": "DISABLED", "StartedAt": begun, "EndedAt": begun + 86_400.0}));
    let kind = |body: Value| world.refusal("UpdateAccountSettings", body).0;
    assert_eq!(kind(json!({})), "ValidationException");
    assert_eq!(kind(json!({"MinimumThroughputBillingCommitment": {"Status": "X"}})), "ValidationException");
}

#[test]
fn consumers_may_be_more_where_throughput_is_committed() {
    let world = World::with_stream(1);
    let register = |number: u32| json!({"StreamARN": arn("s"), "ConsumerName": format!("c{number}")});
    (0..20).for_each(|number| drop(world.ok("RegisterStreamConsumer", register(number))));
    assert_eq!(world.refusal("RegisterStreamConsumer", register(20)).0, "LimitExceededException");
    let mode = |mode: &str| json!({"StreamARN": arn("s"), "StreamModeDetails": {"StreamMode": mode}});
    world.ok("UpdateStreamMode", mode("ON_DEMAND"));
    assert_eq!(world.refusal("RegisterStreamConsumer", register(20)).0, "LimitExceededException");
    world.ok("UpdateStreamMode", mode("PROVISIONED"));
    world.ok("UpdateAccountSettings", json!({"MinimumThroughputBillingCommitment": {"Status": "ENABLED"}}));
    assert_eq!(world.refusal("RegisterStreamConsumer", register(20)).0, "LimitExceededException");
    world.ok("UpdateStreamMode", mode("ON_DEMAND"));
    (20..50).for_each(|number| drop(world.ok("RegisterStreamConsumer", register(number))));
    assert_eq!(world.refusal("RegisterStreamConsumer", register(50)).0, "LimitExceededException");
}
