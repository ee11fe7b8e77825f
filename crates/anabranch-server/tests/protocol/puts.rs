//! Writing: numbers, routing, batches, and what is refused.

use anabranch_server::ServiceOptions;
use serde_json::{Value, json};

use crate::support::{ACCOUNT, World, arn, base64, data, shard};

fn body(more: &Value) -> Value {
    let mut body = json!({"StreamName": "s", "PartitionKey": "a", "Data": "aGVsbG8="});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

#[test]
fn a_record_comes_back_as_it_was_put() {
    let world = World::with_stream(1);
    world.advance(1_480);
    let put = world.put("a", "hello");
    assert_eq!(put["ShardId"], shard(0));
    assert!(put.get("EncryptionType").is_none());
    let number = put["SequenceNumber"].as_str().unwrap();
    assert_eq!(number.len(), 56);
    let answer = world.read(&world.iterator(&shard(0), "TRIM_HORIZON"));
    let record = json!({
        "SequenceNumber": number, "ApproximateArrivalTimestamp": 1_767_225_601.48, "Data": "aGVsbG8=", "PartitionKey": "a",
    });
    assert_eq!(answer["Records"], json!([record]));
    assert_eq!(answer["MillisBehindLatest"], 0);
    world.ok("PutRecord", body(&json!({"Data": "", "SequenceNumberForOrdering": number})));
    assert_eq!(world.all(&shard(0)), ["hello", ""]);
}

/// Arrivals do not.
#[test]
fn puts_follow_one_another_while_the_clock_goes_back() {
    let world = World::with_stream(1);
    world.advance(10_000);
    let mut last = world.put("a", "0")["SequenceNumber"].clone();
    world.clock.set(anabranch::Timestamp::from_millis(1_767_225_600_000));
    for number in 1..4 {
        let put = json!({"Data": base64(number.to_string()), "SequenceNumberForOrdering": last});
        let next = world.ok("PutRecord", body(&put))["SequenceNumber"].clone();
        assert!(next.as_str() > last.as_str());
        last = next;
    }
    assert_eq!(world.all(&shard(0)), ["0", "1", "2", "3"]);
    // One that no record has is refused while it says a second that is still to come.
    let ahead = World::with_stream(1);
    ahead.advance(10_000);
    for number in 0..5 {
        last = ahead.put("a", &number.to_string())["SequenceNumber"].clone();
    }
    let ordering = body(&json!({"SequenceNumberForOrdering": last}));
    assert_eq!(world.refusal("PutRecord", ordering).0, "InvalidArgumentException");
}

#[test]
fn keys_are_routed_by_md5_and_explicit_hash_keys_before_them() {
    let world = World::with_stream(2);
    // MD5("a") is in the lower half, MD5("user-123") in the upper.
    assert_eq!(world.put("a", "x")["ShardId"], shard(0));
    assert_eq!(world.put("user-123", "x")["ShardId"], shard(1));
    let most = u128::MAX.to_string();
    for (key, at) in [
        ("0", 0),
        ("170141183460469231731687303715884105727", 0),
        ("170141183460469231731687303715884105728", 1),
        (&most, 1),
    ] {
        assert_eq!(world.ok("PutRecord", body(&json!({"ExplicitHashKey": key})))["ShardId"], shard(at), "{key}");
    }
    let text = "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. Specified value was 340282366920938463463374607431768211456";
    let over = body(&json!({"ExplicitHashKey": "340282366920938463463374607431768211456"}));
    world.refused("PutRecord", over, "InvalidArgumentException", text);
}

#[test]
fn what_is_wrong_with_a_record_is_told_and_nothing_is_put() {
    let world = World::with_stream(1);
    world.refused(
        "PutRecord",
        json!({"StreamName": "s"}),
        "ValidationException",
        "2 validation errors detected: Value null at 'data' failed to satisfy constraint: Member must not be null; \
         Value null at 'partitionKey' failed to satisfy constraint: Member must not be null",
    );
    let (kind, message) = world.refusal("PutRecord", body(&json!({"PartitionKey": "é".repeat(257)})));
    assert_eq!(kind, "ValidationException");
    assert!(message.ends_with(
        "at 'partitionKey' failed to satisfy constraint: Member must have length less than or equal to 256"
    ));
    world.ok("PutRecord", body(&json!({"PartitionKey": "é".repeat(256)})));
    world.refused(
        "PutRecord",
        body(&json!({"StreamName": "t"})),
        "ResourceNotFoundException",
        &format!("Stream t under account {ACCOUNT} not found."),
    );
    world.refused(
        "PutRecord",
        body(&json!({"SequenceNumberForOrdering": "5"})),
        "InvalidArgumentException",
        &format!(
            "ExclusiveMinimumSequenceNumber 5 used in PutRecord on stream s under account {ACCOUNT} is invalid."
        ),
    );
    world.refused(
        "PutRecord",
        body(&json!({"DryRun": true})),
        "DryRunOperationException",
        "The request would have succeeded, but DryRun is set.",
    );
    assert_eq!(world.all(&shard(0)).len(), 1);
}

#[test]
fn the_key_counts_into_the_size_of_a_record() {
    let world = World::with_stream(1);
    let record = |bytes: usize| body(&json!({"Data": base64(vec![0; bytes])}));
    world.ok("PutRecord", record((1 << 20) - 1));
    let (kind, message) = world.refusal("PutRecord", record(1 << 20));
    assert_eq!(kind, "ValidationException");
    assert!(
        message.contains("Value java.nio.HeapByteBuffer[pos=0 lim=1048576 cap=1048576] at 'data'"),
        "{message}"
    );
    world.ok("UpdateMaxRecordSize", json!({"StreamARN": arn("s"), "MaxRecordSizeInKiB": 10_240}));
    world.ok("PutRecord", record((10 << 20) - 1));
    assert_eq!(world.refusal("PutRecord", record((10 << 20) + 1)).0, "ValidationException");
    // More than an answer holds, and given all the same.
    let first = world.read(&world.iterator(&shard(0), "TRIM_HORIZON"));
    assert_eq!(first["Records"].as_array().unwrap().len(), 1);
    assert!(first["MillisBehindLatest"].as_u64().unwrap() > 0);
    let second = world.read(first["NextShardIterator"].as_str().unwrap());
    assert_eq!(second["Records"].as_array().unwrap().len(), 1);
    assert_eq!(second["MillisBehindLatest"], 0);
}

fn batch(keys: &[&str]) -> Value {
    let records: Vec<_> = keys.iter().map(|key| json!({"PartitionKey": key, "Data": base64(key)})).collect();
    json!({"StreamName": "s", "Records": records})
}

#[test]
fn a_batch_has_an_outcome_for_each_record_in_order() {
    let world = World::with_stream(2);
    let answer = world.ok("PutRecords", batch(&["a", "user-123", "a"]));
    assert_eq!(answer["FailedRecordCount"], 0);
    let records = answer["Records"].as_array().unwrap();
    assert_eq!(
        records.iter().map(|record| record["ShardId"].clone()).collect::<Vec<_>>(),
        [shard(0), shard(1), shard(0)]
    );
    assert!(records[0]["SequenceNumber"].as_str().unwrap() < records[2]["SequenceNumber"].as_str().unwrap());
    assert!(records[0].get("ErrorCode").is_none());
}

#[test]
fn a_shard_over_its_quota_fails_its_own_records_alone() {
    let world = World::with(ServiceOptions { enforce_limits: true, ..ServiceOptions::default() });
    world.ok("CreateStream", json!({"StreamName": "s", "ShardCount": 2}));
    let large = base64(vec![0; 900_000]);
    let record = |key: &str| json!({"PartitionKey": key, "Data": large});
    let answer = world
        .ok("PutRecords", json!({"StreamName": "s", "Records": [record("a"), record("a"), record("user-123")]}));
    assert_eq!(answer["FailedRecordCount"], 1);
    let text = format!("Rate exceeded for shard {} in stream s under account {ACCOUNT}.", shard(0));
    assert_eq!(
        answer["Records"][1],
        json!({"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": text})
    );
    assert_eq!(answer["Records"][2]["ShardId"], shard(1));
    let one = json!({"StreamName": "s", "PartitionKey": "a", "Data": large});
    world.refused("PutRecord", one, "ProvisionedThroughputExceededException", &text);
    // Reading has its quota too: five calls a second.
    let iterator = world.iterator(&shard(1), "TRIM_HORIZON");
    for _ in 0..2 {
        world.read(&iterator);
    }
    let refusals =
        (0..5).filter(|_| world.send("GetRecords", &json!({"ShardIterator": iterator})).status() == 400);
    assert!(refusals.count() > 0);
}

#[test]
fn control_operations_have_their_rates_where_limits_are_enforced() {
    let world = World::with(ServiceOptions { enforce_limits: true, ..ServiceOptions::default() });
    world.ok("DescribeLimits", json!({}));
    let text = format!("Rate exceeded for DescribeLimits under account {ACCOUNT}.");
    world.refused("DescribeLimits", json!({}), "LimitExceededException", &text);
    world.ok("ListStreams", json!({}));
    world.advance(1_000);
    world.ok("DescribeLimits", json!({}));
    let free = World::new();
    (0..9).for_each(|_| drop(free.ok("DescribeLimits", json!({}))));
}

#[test]
fn a_batch_with_one_wrong_record_is_refused_whole() {
    let world = World::with_stream(1);
    let mut wrong = batch(&["a", "b"]);
    wrong["Records"][1]["PartitionKey"] = json!("");
    world.refused(
        "PutRecords",
        wrong.clone(),
        "ValidationException",
        "1 validation error detected: Value '' at 'records.2.member.partitionKey' failed to satisfy constraint: Member must have length greater \
         than or equal to 1",
    );
    wrong["Records"][1] = Value::Null;
    world.refused(
        "PutRecords",
        wrong,
        "ValidationException",
        "2 validation errors detected: Value null at 'records.2.member.data' failed to satisfy constraint: Member must not be null; \
         Value null at 'records.2.member.partitionKey' failed to satisfy constraint: Member must not be null",
    );
    let (kind, message) = world.refusal("PutRecords", batch(&[]));
    assert_eq!(
        (
            kind.as_str(),
            message.contains("'records' failed to satisfy constraint: Member must have length greater")
        ),
        ("ValidationException", true)
    );
    let (kind, message) = world.refusal("PutRecords", batch(&vec!["a"; 501]));
    assert_eq!((kind.as_str(), message.contains("less than or equal to 500")), ("ValidationException", true));
    assert_eq!(world.all(&shard(0)), [""; 0]);
    let large = json!({"PartitionKey": "a", "Data": base64(vec![0; 1_048_000])});
    let eleven = json!({"StreamName": "s", "Records": vec![large; 11]});
    world.refused("PutRecords", eleven, "InvalidArgumentException", "Records size exceeds 10 MB limit");
    assert_eq!(data(&world.read(&world.iterator(&shard(0), "TRIM_HORIZON"))), [""; 0]);
}

/// How many records each of the first shards holds.
fn counts(world: &World, shards: u32) -> Vec<usize> {
    (0..shards).map(|number| world.all(&shard(number)).len()).collect()
}

#[test]
fn records_are_spread_where_the_service_chooses_their_shards() {
    let world = World::new();
    let strategy = |strategy: &str| json!({"StreamARN": arn("s"), "RecordDistributionStrategy": strategy});
    let on_demand = json!({"StreamName": "s", "StreamModeDetails": {"StreamMode": "ON_DEMAND"}, "RecordDistributionStrategy": "AUTO"});
    world.ok("CreateStream", on_demand);
    let told = || {
        world.ok("DescribeStreamSummary", json!({"StreamName": "s"}))["StreamDescriptionSummary"]["RecordDistributionStrategy"].clone()
    };
    assert_eq!(told(), "AUTO");
    let entry = json!({"Data": base64("x"), "PartitionKey": "a", "ExplicitHashKey": "0"});
    world.ok("PutRecords", json!({"StreamName": "s", "Records": vec![entry; 400]}));
    let counted = counts(&world, 4);
    assert!(counted.iter().all(|count| (97..=103).contains(count)), "whatever their keys say: {counted:?}");
    world.ok("PutRecord", json!({"StreamName": "s", "Data": base64("keyless")}));
    let records: Vec<_> = (0..4)
        .flat_map(|number| {
            world.read(&world.iterator(&shard(number), "TRIM_HORIZON"))["Records"].as_array().unwrap().clone()
        })
        .collect();
    let keys = |data: &str| -> Vec<_> {
        records
            .iter()
            .filter(|record| record["Data"] == base64(data))
            .map(|record| record.get("PartitionKey").cloned())
            .collect()
    };
    assert_eq!(keys("keyless"), [None], "told only if it was given");
    assert!(keys("x").iter().all(|key| *key == Some(json!("a"))));

    world.ok("UpdateStreamRecordDistributionStrategy", strategy("USER_PARTITION_KEY"));
    assert_eq!(told(), "USER_PARTITION_KEY");
    let keyless = json!({"StreamName": "s", "Data": base64("x")});
    let text = "1 validation error detected: Value null at 'partitionKey' failed to satisfy constraint: Member must not be null";
    world.refused("PutRecord", keyless, "ValidationException", text);
    let before = counts(&world, 4);
    let entry = json!({"Data": base64("x"), "PartitionKey": "a"});
    world.ok("PutRecords", json!({"StreamName": "s", "Records": vec![entry; 40]}));
    let after = counts(&world, 4);
    assert_eq!((0..4).filter(|shard| before[*shard] != after[*shard]).count(), 1, "by their key again");
}

#[test]
fn shards_are_not_chosen_for_provisioned_streams() {
    let world = World::with_stream(1);
    let provisioned = json!({"StreamName": "t", "ShardCount": 1, "RecordDistributionStrategy": "AUTO"});
    assert_eq!(world.refusal("CreateStream", provisioned).0, "InvalidArgumentException");
    let auto = json!({"StreamARN": arn("s"), "RecordDistributionStrategy": "AUTO"});
    let text = format!(
        "Record distribution strategy AUTO is for streams in On-Demand mode; stream s under account {ACCOUNT} would be in Provisioned mode."
    );
    world.refused("UpdateStreamRecordDistributionStrategy", auto.clone(), "InvalidArgumentException", &text);
    let mode = |mode: &str| json!({"StreamARN": arn("s"), "StreamModeDetails": {"StreamMode": mode}});
    world.ok("UpdateStreamMode", mode("ON_DEMAND"));
    world.ok("UpdateStreamRecordDistributionStrategy", auto);
    world.refused("UpdateStreamMode", mode("PROVISIONED"), "InvalidArgumentException", &text);
    let summary = world.ok("DescribeStreamSummary", json!({"StreamName": "s"}));
    assert_eq!(summary["StreamDescriptionSummary"]["StreamModeDetails"]["StreamMode"], "ON_DEMAND");
    let other = json!({"StreamARN": arn("s"), "RecordDistributionStrategy": "X"});
    assert_eq!(world.refusal("UpdateStreamRecordDistributionStrategy", other).0, "ValidationException");
}

/// Also the one that stands for none in the log.
#[test]
fn a_key_comes_back_whatever_it_is() {
    let world = World::with_stream(1);
    let none = "\u{FFFF}";
    for hash_key in [json!(null), json!("0"), json!("7"), json!(u128::MAX.to_string())] {
        world.ok("PutRecord", body(&json!({"PartitionKey": none, "ExplicitHashKey": hash_key})));
    }
    let read = world.read(&world.iterator(&shard(0), "TRIM_HORIZON"));
    let keys: Vec<_> = read["Records"].as_array().unwrap().iter().map(|record| &record["PartitionKey"]).collect();
    assert_eq!(keys, [none; 4]);
}
