//! Iterators of all types, their expiry, and pages of records.

use std::time::Duration;

use anabranch_server::ServiceOptions;
use serde_json::{Value, json};

use crate::support::{ACCOUNT, World, base64, data, shard};

fn iterator(world: &World, more: &Value) -> Value {
    let mut body = json!({"StreamName": "s", "ShardId": shard(0)});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body["probe"] = json!(1); // unknown members are passed over
    world.ok("GetShardIterator", body)
}

fn from(world: &World, more: &Value) -> Vec<String> {
    data(&world.read(iterator(world, more)["ShardIterator"].as_str().unwrap()))
}

#[test]
fn iterators_start_where_their_types_say() {
    let world = World::with_stream(1);
    let mut numbers = Vec::new();
    for data in ["one", "two", "three"] {
        world.advance(1_000);
        numbers.push(world.put("a", data)["SequenceNumber"].clone());
    }
    let latest = world.iterator(&shard(0), "LATEST");
    world.put("a", "four");
    assert_eq!(data(&world.read(&latest)), ["four"], "fixed when it was made");
    assert_eq!(data(&world.read(&latest)), ["four"], "and good for another time");
    assert_eq!(data(&world.read(&format!("\"{latest}\""))), ["four"], "in quotes too");
    let kind = |kind: &str, number: &Value| json!({"ShardIteratorType": kind, "StartingSequenceNumber": number});
    assert_eq!(from(&world, &kind("AT_SEQUENCE_NUMBER", &numbers[1])), ["two", "three", "four"]);
    assert_eq!(from(&world, &kind("AFTER_SEQUENCE_NUMBER", &numbers[1])), ["three", "four"]);
    let at = |seconds: f64| json!({"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": seconds});
    assert_eq!(from(&world, &at(1_767_225_602.0)), ["two", "three", "four"], "inclusive");
    assert_eq!(from(&world, &at(1_767_225_602.001)), ["three", "four"]);
    assert_eq!(from(&world, &at(0.0)).len(), 4);
    let starting = world.ok("ListShards", json!({"StreamName": "s"}))["Shards"][0]["SequenceNumberRange"]["StartingSequenceNumber"].clone();
    for type_of in ["AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"] {
        assert_eq!(from(&world, &kind(type_of, &starting)).len(), 4, "{type_of}");
    }
}

#[test]
fn pages_go_on_until_the_tail_and_say_how_far_behind_they_are() {
    let world = World::with_stream(1);
    for number in 0..5 {
        world.put("a", &number.to_string());
        world.advance(1_000);
    }
    let mut iterator = world.iterator(&shard(0), "TRIM_HORIZON");
    let (mut seen, mut behind) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let answer = world.ok("GetRecords", json!({"ShardIterator": iterator, "Limit": 2}));
        seen.extend(data(&answer));
        behind.push(answer["MillisBehindLatest"].as_u64().unwrap());
        iterator = answer["NextShardIterator"].as_str().unwrap().to_owned();
        assert!(answer.get("ChildShards").is_none());
    }
    assert_eq!(seen, ["0", "1", "2", "3", "4"]);
    assert!(behind[0] > behind[1] && behind[1] > 0 && behind[2] == 0, "{behind:?}");
    for (limit, constraint) in [(0, "greater than or equal to 1"), (10_001, "less than or equal to 10000")] {
        let text = format!(
            "1 validation error detected: Value '{limit}' at 'limit' failed to satisfy constraint: Member must have value {constraint}"
        );
        world.refused(
            "GetRecords",
            json!({"ShardIterator": iterator, "Limit": limit}),
            "ValidationException",
            &text,
        );
    }
}

/// An iterator that was made when the world began is refused, `now`.
fn expect_expired(world: &World, iterator: &str, now: &str, lifetime_ms: u32) {
    let text = format!(
        "Iterator expired. The iterator was created at time Thu Jan 01 00:00:00 UTC 2026 while right now it is Thu Jan 01 {now} UTC 2026 which \
         is further in the future than the tolerated delay of {lifetime_ms} milliseconds."
    );
    world.refused("GetRecords", json!({"ShardIterator": iterator}), "ExpiredIteratorException", &text);
}

#[test]
fn an_iterator_expires_after_five_minutes_and_each_read_gives_a_new_one() {
    let world = World::with_stream(1);
    let first = world.iterator(&shard(0), "LATEST");
    world.advance(300_000);
    let next = world.read(&first)["NextShardIterator"].as_str().unwrap().to_owned();
    world.advance(1);
    expect_expired(&world, &first, "00:05:00", 300_000);
    world.put("a", "x");
    assert_eq!(data(&world.read(&next)), ["x"]);
}

#[test]
fn an_iterator_lives_as_long_as_the_server_is_told() {
    let iterator_lifetime = Duration::from_secs(10);
    let world = World::with(ServiceOptions { iterator_lifetime, ..ServiceOptions::default() });
    world.ok("CreateStream", json!({"StreamName": "s", "ShardCount": 1}));
    let first = world.iterator(&shard(0), "LATEST");
    world.advance(10_000);
    world.read(&first);
    world.advance(1);
    expect_expired(&world, &first, "00:00:10", 10_000);
}

#[test]
fn wrong_arguments_are_told_apart() {
    let world = World::with_stream(1);
    let refused = |body: &Value, kind: &str, text: &str| {
        let mut whole = json!({"StreamName": "s", "ShardId": shard(0)});
        for (name, value) in body.as_object().unwrap() {
            whole[name] = value.clone();
        }
        world.refused("GetShardIterator", whole, kind, text);
    };
    let invalid = "InvalidArgumentException";
    let either = "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and StartingSequenceNumber or (2) TRIM_HORIZON or LATEST and no \
                  StartingSequenceNumber. Request specified";
    refused(
        &json!({"ShardIteratorType": "AT_SEQUENCE_NUMBER"}),
        invalid,
        &format!("{either} AT_SEQUENCE_NUMBER and no StartingSequenceNumber."),
    );
    refused(
        &json!({"ShardIteratorType": "LATEST", "StartingSequenceNumber": "1"}),
        invalid,
        &format!("{either} LATEST and also a StartingSequenceNumber."),
    );
    refused(
        &json!({"ShardIteratorType": "AT_TIMESTAMP"}),
        invalid,
        "Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP. Current request has no timestamp parameter.",
    );
    refused(
        &json!({"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": 1_767_225_601}),
        invalid,
        "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. timestampInMillis: 1767225601000, \
         currentTimestampInMillis: 1767225600000",
    );
    refused(
        &json!({"ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": "7"}),
        invalid,
        &format!(
            "StartingSequenceNumber 7 used in GetShardIterator on shard {} in stream s under account {ACCOUNT} is invalid.",
            shard(0)
        ),
    );
    let foreign = "49680480295140701666000208137266954160295174283036983298";
    refused(
        &json!({"ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": foreign}),
        invalid,
        &format!(
            "StartingSequenceNumber {foreign} used in GetShardIterator on shard {} in stream s under account {ACCOUNT} is invalid because it did not \
             come from this stream.",
            shard(0)
        ),
    );
    refused(
        &json!({"ShardId": "x-5", "ShardIteratorType": "LATEST"}),
        "ResourceNotFoundException",
        &format!("Shard {} in stream s under account {ACCOUNT} does not exist", shard(5)),
    );
    refused(
        &json!({"ShardId": "nothing", "ShardIteratorType": "LATEST"}),
        "ResourceNotFoundException",
        &format!("Could not find shard nothing in stream s under account {ACCOUNT}."),
    );
    let (kind, text) = world.refusal("GetShardIterator", json!({"StreamName": "s", "ShardIteratorType": "X"}));
    assert_eq!(kind, "ValidationException");
    assert!(
        text.contains("Value null at 'shardId'")
            && text.contains("Member must satisfy enum value set: [AFTER_SEQUENCE_NUMBER, LATEST"),
        "{text}"
    );
    world.refused("GetRecords", json!({"ShardIterator": "x"}), invalid, "Invalid ShardIterator.");
}

#[test]
fn a_number_of_another_shard_is_refused() {
    let world = World::with_stream(2);
    let number = world.put("user-123", "x")["SequenceNumber"].clone();
    let body = json!({"StreamName": "s", "ShardId": shard(0), "ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": number});
    let text = format!(
        "Invalid StartingSequenceNumber. It encodes {}, while it was used in a call to a shard with {}",
        shard(1),
        shard(0)
    );
    world.refused("GetShardIterator", body, "InvalidArgumentException", &text);
}

#[test]
fn tokens_of_a_deleted_stream_lead_nowhere_even_if_its_name_is_taken_again() {
    let world = World::with_stream(1);
    let iterator = world.iterator(&shard(0), "LATEST");
    world.ok("DeleteStream", json!({"StreamName": "s"}));
    let text = format!("Shard {} in stream s under account {ACCOUNT} does not exist", shard(0));
    world.refused("GetRecords", json!({"ShardIterator": iterator}), "ResourceNotFoundException", &text);
    world.advance(5);
    world.ok("CreateStream", json!({"StreamName": "s", "ShardCount": 1}));
    world.refused("GetRecords", json!({"ShardIterator": iterator}), "ResourceNotFoundException", &text);
}

#[test]
fn what_retention_hides_is_passed_over() {
    let world = World::with_stream(1);
    let number = world.put("a", "old")["SequenceNumber"].clone();
    world.advance(25 * 3_600_000);
    world.put("a", "new");
    assert_eq!(world.all(&shard(0)), ["new"]);
    assert_eq!(
        from(&world, &json!({"ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": number})),
        ["new"]
    );
}

/// It is no record's, and yet reading could start there.
#[test]
fn the_ends_of_a_shard_are_not_given_in_the_future() {
    let world = World::with_stream(2);
    let split = |number: u32, key: &str| {
        world
            .ok("SplitShard", json!({"StreamName": "s", "ShardToSplit": shard(number), "NewStartingHashKey": key}))
    };
    let later = World::with_stream(2);
    later.advance(10_000);
    later.ok("SplitShard", json!({"StreamName": "s", "ShardToSplit": shard(0), "NewStartingHashKey": "5"}));
    let ending = later.ok("ListShards", json!({"StreamName": "s"}))["Shards"][0]["SequenceNumberRange"]["EndingSequenceNumber"].clone();
    let from = |number: &Value| json!({"StreamName": "s", "ShardId": shard(0), "ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": number});
    let text = format!(
        "StartingSequenceNumber {} used in GetShardIterator on shard {} in stream s under account {ACCOUNT} is invalid.",
        ending.as_str().unwrap(),
        shard(0)
    );
    world.refused("GetShardIterator", from(&ending), "InvalidArgumentException", &text);
    world.advance(10_000);
    world.ok("GetShardIterator", from(&ending));
    split(0, "5");
    world.clock.set(anabranch::Timestamp::from_millis(1_767_225_600_000));
    world.ok("GetShardIterator", from(&ending));
}

/// A record that does not fit into an answer is read with the next one, and not before.
#[test]
fn what_an_answer_leaves_is_not_paid_for() {
    let world = World::with(ServiceOptions { enforce_limits: true, ..ServiceOptions::default() });
    world.ok("CreateStream", json!({"StreamName": "s", "ShardCount": 1, "MaxRecordSizeInKiB": 10_240}));
    for mib in [6, 6] {
        let large = base64(vec![0; mib << 20]);
        world.ok("PutRecord", json!({"StreamName": "s", "PartitionKey": "a", "Data": large}));
        world.advance(60_000);
    }
    let first = world.read(&world.iterator(&shard(0), "TRIM_HORIZON"));
    assert_eq!(first["Records"].as_array().unwrap().len(), 1);
    let next = json!({"ShardIterator": first["NextShardIterator"]});
    world.advance(3_000);
    assert_eq!(world.refusal("GetRecords", next.clone()).0, "ProvisionedThroughputExceededException");
    world.advance(1); // six MiB and a key, at two a second
    assert_eq!(world.ok("GetRecords", next)["Records"].as_array().unwrap().len(), 1);
}
