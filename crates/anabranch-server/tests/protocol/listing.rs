//! Lists and descriptions, page by page.

use anabranch_server::ServiceOptions;
use serde_json::{Value, json};

use crate::support::{ACCOUNT, World, arn, ids, shard};

#[test]
fn a_new_stream_is_described() {
    let world = World::with_stream(3);
    let description = world.ok("DescribeStream", json!({"StreamARN": arn("s")}))["StreamDescription"].clone();
    let shards = description["Shards"].as_array().unwrap();
    assert_eq!(
        shards[2]["HashKeyRange"],
        json!({"StartingHashKey": "226854911280625642308916404954512140970", "EndingHashKey": u128::MAX.to_string()})
    );
    let expected = json!({
        "StreamName": "s", "StreamARN": arn("s"), "StreamStatus": "ACTIVE", "StreamModeDetails": {"StreamMode": "PROVISIONED"},
        "RetentionPeriodHours": 24, "StreamCreationTimestamp": 1_767_225_600.0, "EnhancedMonitoring": [{"ShardLevelMetrics": []}],
        "EncryptionType": "NONE", "Shards": shards, "HasMoreShards": false,
    });
    assert_eq!(description, expected);
    let summary =
        world.ok("DescribeStreamSummary", json!({"StreamName": "s"}))["StreamDescriptionSummary"].clone();
    assert_eq!(
        (&summary["OpenShardCount"], &summary["ConsumerCount"], &summary["MaxRecordSizeInKiB"]),
        (&json!(3), &json!(0), &json!(1_024))
    );
    let page =
        world.ok("DescribeStream", json!({"StreamName": "s", "Limit": 1, "ExclusiveStartShardId": shard(0)}));
    assert_eq!(ids(&page["StreamDescription"]), ["1"]);
    assert_eq!(page["StreamDescription"]["HasMoreShards"], true);
}

#[test]
fn shards_come_in_pages_that_keep_their_filter() {
    let world = World::with_stream(5);
    world
        .ok("MergeShards", json!({"StreamName": "s", "ShardToMerge": shard(0), "AdjacentShardToMerge": shard(1)}));
    let mut answer =
        world.ok("ListShards", json!({"StreamName": "s", "MaxResults": 2, "ShardFilter": {"Type": "AT_LATEST"}}));
    let mut pages = vec![ids(&answer)];
    while let Some(token) = answer["NextToken"].as_str() {
        let token = token.to_owned();
        world.refused(
            "ListShards",
            json!({"StreamName": "s", "NextToken": token}),
            "InvalidArgumentException",
            "NextToken and StreamName cannot be provided together.",
        );
        answer = world.ok("ListShards", json!({"NextToken": token, "MaxResults": 2}));
        pages.push(ids(&answer));
    }
    assert_eq!(pages, [vec!["2", "3"], vec!["4", "5"]]);
    assert_eq!(world.shards(json!({"StreamName": "s", "ExclusiveStartShardId": shard(3)})), ["4", "5"]);
    let after = json!({"StreamName": "s", "ShardFilter": {"Type": "AFTER_SHARD_ID", "ShardId": shard(4)}});
    assert_eq!(world.shards(after), ["5"]);
    world.refused(
        "ListShards",
        json!({}),
        "InvalidArgumentException",
        "Either NextToken or StreamName should be provided.",
    );
    let first = world.ok("ListShards", json!({"StreamName": "s", "MaxResults": 1}))["NextToken"].clone();
    world.advance(300_001);
    world.refused("ListShards", json!({"NextToken": first}), "ExpiredNextTokenException", "NextToken expired.");
    world.refused("ListShards", json!({"NextToken": "x"}), "InvalidArgumentException", "Invalid NextToken.");
}

#[test]
fn streams_come_by_name() {
    let world = World::new();
    for name in ["b", "a", "c"] {
        world.ok("CreateStream", json!({"StreamName": name, "ShardCount": 1}));
    }
    let first = world.ok("ListStreams", json!({"Limit": 2}));
    assert_eq!((&first["StreamNames"], &first["HasMoreStreams"]), (&json!(["a", "b"]), &json!(true)));
    assert_eq!(first["StreamSummaries"][1]["StreamARN"], arn("b"));
    for more in [json!({"NextToken": first["NextToken"]}), json!({"ExclusiveStartStreamName": "b"})] {
        let rest = world.ok("ListStreams", more);
        assert_eq!((&rest["StreamNames"], &rest["HasMoreStreams"]), (&json!(["c"]), &json!(false)));
    }
}

#[test]
fn names_and_arns_of_other_places_find_nothing() {
    let world = World::with_stream(1);
    let missing = |account: &str| format!("Stream s under account {account} not found.");
    let elsewhere = "arn:aws:kinesis:eu-west-1:000000000000:stream/s";
    world.refused(
        "DescribeStreamSummary",
        json!({"StreamARN": elsewhere}),
        "ResourceNotFoundException",
        &missing(ACCOUNT),
    );
    let other = "arn:aws:kinesis:us-east-1:123456789012:stream/s";
    world.refused(
        "DescribeStreamSummary",
        json!({"StreamARN": other}),
        "ResourceNotFoundException",
        &missing("123456789012"),
    );
    world.refused(
        "DescribeStreamSummary",
        json!({}),
        "InvalidArgumentException",
        "Either StreamName or StreamARN should be provided.",
    );
    let both = json!({"StreamName": "t", "StreamARN": arn("s")});
    assert_eq!(world.refusal("DescribeStreamSummary", both).0, "InvalidArgumentException");
    // Another account, by its access key, has streams of its own.
    let mut request = crate::support::request("ListStreams", "{}");
    let theirs = crate::support::AUTHORIZATION.replace("=me/", "=123456789012/");
    request.headers_mut().insert("authorization", theirs.parse().unwrap());
    let answer = world.service.respond(request);
    let names: Value = serde_json::from_slice(answer.body().bytes()).unwrap();
    assert_eq!(names["StreamNames"], json!([]));
}

#[test]
fn limits_of_shards_hold_for_all_streams_together() {
    let world = World::with(ServiceOptions { shard_limit: 3, ..ServiceOptions::default() });
    world.ok("CreateStream", json!({"StreamName": "s", "ShardCount": 2}));
    let text = |count: u32, more: u32| {
        format!(
            "This request would exceed the shard limit for the account {ACCOUNT} in us-east-1. Current shard count for the account: {count}. Limit: 3. \
             Number of additional shards that would have resulted from this request: {more}. Refer to the AWS Service Limits page \
             (https://docs.aws.amazon.com/general/latest/gr/aws_service_limits.html) for current limits and how to request higher limits."
        )
    };
    world.refused(
        "CreateStream",
        json!({"StreamName": "t", "ShardCount": 2}),
        "LimitExceededException",
        &text(2, 2),
    );
    let split = |number: u32, key: &str| json!({"StreamName": "s", "ShardToSplit": shard(number), "NewStartingHashKey": key});
    world.ok("SplitShard", split(0, "50"));
    world.refused("SplitShard", split(2, "20"), "LimitExceededException", &text(3, 1));
    let up = json!({"StreamName": "s", "TargetShardCount": 4, "ScalingType": "UNIFORM_SCALING"});
    world.refused("UpdateShardCount", up, "LimitExceededException", &text(3, 1));
    assert_eq!(world.ok("DescribeLimits", json!({}))["OpenShardCount"], 3);
    world.refused(
        "CreateStream",
        json!({"StreamName": "s", "ShardCount": 1}),
        "ResourceInUseException",
        &format!("Stream s under account {ACCOUNT} already exists."),
    );
    world.ok("DeleteStream", json!({"StreamName": "s"}));
    world.ok("CreateStream", json!({"StreamName": "t", "ShardCount": 3}));
}

#[test]
fn streams_on_demand_have_four_shards_and_refuse_to_be_resharded() {
    let world = World::new();
    let mode = json!({"StreamMode": "ON_DEMAND"});
    world.ok("CreateStream", json!({"StreamName": "s", "StreamModeDetails": mode}));
    assert_eq!(world.shards(json!({"StreamName": "s"})).len(), 4);
    let text = format!("Request is invalid. Stream s under account {ACCOUNT} is in On-Demand mode.");
    for (operation, body) in [
        ("SplitShard", json!({"StreamName": "s", "ShardToSplit": shard(0), "NewStartingHashKey": "5"})),
        ("MergeShards", json!({"StreamName": "s", "ShardToMerge": shard(0), "AdjacentShardToMerge": shard(1)})),
        ("UpdateShardCount", json!({"StreamName": "s", "TargetShardCount": 4, "ScalingType": "UNIFORM_SCALING"})),
    ] {
        world.refused(operation, body, "ValidationException", &text);
    }
    assert_eq!(world.ok("DescribeLimits", json!({}))["OnDemandStreamCount"], 1);
    world.ok(
        "UpdateStreamMode",
        json!({"StreamARN": arn("s"), "StreamModeDetails": {"StreamMode": "PROVISIONED"}}),
    );
    assert_eq!(world.ok("DescribeLimits", json!({}))["OpenShardCount"], 4);
    world.refused(
        "CreateStream",
        json!({"StreamName": "t"}),
        "ValidationException",
        "ShardCount must be specified for a stream in PROVISIONED mode.",
    );
    let both = json!({"StreamName": "t", "ShardCount": 1, "StreamModeDetails": mode});
    world.refused(
        "CreateStream",
        both,
        "ValidationException",
        "Requested ShardCount can not be specified for a stream in ON_DEMAND mode.",
    );
}

/// Directories have them already.
#[test]
fn names_of_directories_are_none_of_streams() {
    let world = World::new();
    for name in [".", ".."] {
        let text = format!(
            "1 validation error detected: Value '{name}' at 'streamName' failed to satisfy constraint: Member must be neither . nor .."
        );
        world.refused("CreateStream", json!({"StreamName": name, "ShardCount": 1}), "ValidationException", &text);
        assert_eq!(world.service.create_stream(name, 1).unwrap_err().to_string(), text);
    }
    assert_eq!(world.ok("ListStreams", json!({}))["StreamNames"], json!([]));
    let health = world.service.observe(&http::Request::get("/health").body(()).unwrap());
    assert_eq!(health.status(), 200);
    world.ok("CreateStream", json!({"StreamName": "...", "ShardCount": 1}));
}

/// What was meant for a consumer is not done to its stream.
#[test]
fn the_arn_of_a_consumer_is_none_of_a_stream() {
    let world = World::with_stream(1);
    let register = json!({"StreamARN": arn("s"), "ConsumerName": "c"});
    let consumer = world.ok("RegisterStreamConsumer", register)["Consumer"]["ConsumerARN"].clone();
    let consumer = consumer.as_str().unwrap();
    let text = format!("{consumer} is no ARN of a stream.");
    for (operation, body) in [
        ("DeleteStream", json!({"StreamARN": consumer, "EnforceConsumerDeletion": true})),
        ("DescribeStreamSummary", json!({"StreamName": "s", "StreamARN": consumer})),
        ("DescribeStreamConsumer", json!({"StreamARN": consumer, "ConsumerName": "c"})),
        ("ListStreamConsumers", json!({"StreamARN": consumer})),
    ] {
        world.refused(operation, body, "InvalidArgumentException", &text);
    }
    world.ok("DescribeStreamConsumer", json!({"ConsumerARN": consumer}));
    world.ok("ListTagsForResource", json!({"ResourceARN": consumer}));
}

#[test]
fn consumers_are_listed_of_the_stream_that_was_asked_for() {
    let world = World::with_stream(1);
    let register = |stream: &str, name: &str| {
        world.ok("RegisterStreamConsumer", json!({"StreamARN": arn(stream), "ConsumerName": name}))
    };
    world.ok("CreateStream", json!({"StreamName": "t", "ShardCount": 1}));
    for (stream, name) in [("s", "a"), ("s", "b"), ("t", "a"), ("t", "b")] {
        register(stream, name);
    }
    let token =
        world.ok("ListStreamConsumers", json!({"StreamARN": arn("s"), "MaxResults": 1}))["NextToken"].clone();
    let (invalid, text) = ("InvalidArgumentException", "Invalid NextToken.");
    let go_on = |stream: &str| json!({"StreamARN": arn(stream), "NextToken": token});
    assert_eq!(world.ok("ListStreamConsumers", go_on("s"))["Consumers"][0]["ConsumerName"], "b");
    world.refused("ListStreamConsumers", go_on("t"), invalid, text);

    let created =
        |seconds: u32| json!({"StreamARN": arn("s"), "StreamCreationTimestamp": 1_767_225_600 + seconds});
    assert_eq!(world.ok("ListStreamConsumers", created(0))["Consumers"].as_array().unwrap().len(), 2);
    let gone = format!("Stream s under account {ACCOUNT} not found.");
    world.refused("ListStreamConsumers", created(1), "ResourceNotFoundException", &gone);
    let mut both = created(0);
    both["NextToken"] = token.clone();
    let text_of_both = "NextToken and StreamCreationTimestamp cannot be provided together.";
    world.refused("ListStreamConsumers", both, invalid, text_of_both);

    world.ok("DeleteStream", json!({"StreamName": "s", "EnforceConsumerDeletion": true}));
    world.ok("CreateStream", json!({"StreamName": "s", "ShardCount": 1}));
    world.refused("ListStreamConsumers", go_on("s"), invalid, text);
}
