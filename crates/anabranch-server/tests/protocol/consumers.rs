//! Consumers and their subscriptions.

use anabranch_server::{Body, ServiceOptions};
use serde_json::{Value, json};

use crate::support::{ACCOUNT, World, arn, base64, data, shard};

fn register(world: &World) -> String {
    let answer = world.ok("RegisterStreamConsumer", json!({"StreamARN": arn("s"), "ConsumerName": "c"}));
    assert_eq!(answer["Consumer"]["ConsumerStatus"], "CREATING");
    answer["Consumer"]["ConsumerARN"].as_str().unwrap().to_owned()
}

fn subscription(consumer: &str, position: &Value) -> Value {
    json!({"ConsumerARN": consumer, "ShardId": shard(0), "StartingPosition": position})
}

fn subscribe(world: &World, consumer: &str, position: &Value) -> Body {
    let answer = world.send("SubscribeToShard", &subscription(consumer, position));
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["content-type"]),
        (200, &"application/vnd.amazon.eventstream".parse().unwrap())
    );
    let mut body = answer.into_body();
    assert_eq!(event(&mut body).unwrap(), ("initial-response".to_owned(), json!({})));
    body
}

/// The type of the next message, and its document.
#[allow(clippy::big_endian_bytes, reason = "the framing is the service's")]
fn event(body: &mut Body) -> Option<(String, Value)> {
    let bytes = body.next_event()?;
    let length = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    assert_eq!(length(0), bytes.len());
    let payload = 12 + length(4);
    let (mut at, mut kind) = (12, String::new());
    while at < payload {
        let name_end = at + 1 + usize::from(bytes[at]);
        let value = name_end + 3;
        let value_end = value + usize::from(u16::from_be_bytes([bytes[name_end + 1], bytes[name_end + 2]]));
        if matches!(&bytes[at + 1..name_end], b":event-type" | b":exception-type") {
            kind = String::from_utf8(bytes[value..value_end].to_vec()).unwrap();
        }
        at = value_end;
    }
    Some((kind, serde_json::from_slice(&bytes[payload..bytes.len() - 4]).unwrap()))
}

/// Its place is free, whatever came before, and who has it keeps it.
#[test]
fn a_subscription_that_cannot_start_takes_no_place() {
    let world = World::with_stream(1);
    let consumer = register(&world);
    let latest = json!({"Type": "LATEST"});
    let fail = || {
        let of_another_shard = "49680480295140701666000208137266954160295174489195413522";
        for position in [
            json!({"Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": of_another_shard}),
            json!({"Type": "AT_SEQUENCE_NUMBER"}),
            json!({"Type": "AT_TIMESTAMP", "Timestamp": 4_000_000_000_u32}),
        ] {
            let (kind, text) = world.refusal("SubscribeToShard", subscription(&consumer, &position));
            assert_eq!(kind, "InvalidArgumentException", "{text}");
        }
        let mut dry = subscription(&consumer, &latest);
        dry["DryRun"] = true.into();
        assert_eq!(world.refusal("SubscribeToShard", dry).0, "DryRunOperationException");
        let mut unknown = subscription(&consumer, &latest);
        unknown["ShardId"] = shard(7).into();
        assert_eq!(world.refusal("SubscribeToShard", unknown).0, "ResourceNotFoundException");
    };
    (0..10).for_each(|_| fail());
    let mut body = subscribe(&world, &consumer, &latest);
    world.advance(5_000);
    (0..10).for_each(|_| fail());
    world.put("a", "one");
    assert_eq!(data(&event(&mut body).unwrap().1), ["one"], "it goes on");
}

#[test]
fn consumers_are_registered_found_and_gone() {
    let world = World::with_stream(1);
    let consumer = register(&world);
    assert_eq!(consumer, format!("{}/consumer/c:1767225600", arn("s")));
    let again = json!({"StreamARN": arn("s"), "ConsumerName": "c"});
    world.refused(
        "RegisterStreamConsumer",
        again.clone(),
        "ResourceInUseException",
        &format!("Consumer c of stream s under account {ACCOUNT} already exists."),
    );
    for by in [json!({"ConsumerARN": consumer}), again.clone()] {
        let description = world.ok("DescribeStreamConsumer", by)["ConsumerDescription"].clone();
        assert_eq!(
            (&description["ConsumerStatus"], &description["StreamARN"]),
            (&json!("ACTIVE"), &json!(arn("s")))
        );
    }
    world.ok("TagResource", json!({"ResourceARN": consumer, "Tags": {"a": "1"}}));
    assert_eq!(world.ok("ListTagsForResource", json!({"ResourceARN": consumer}))["Tags"][0]["Key"], "a");
    let delete = json!({"StreamName": "s"});
    assert_eq!(world.refusal("DeleteStream", delete).0, "ResourceInUseException");
    world.ok("RegisterStreamConsumer", json!({"StreamARN": arn("s"), "ConsumerName": "b"}));
    let page = world.ok("ListStreamConsumers", json!({"StreamARN": arn("s"), "MaxResults": 1}));
    assert_eq!(page["Consumers"][0]["ConsumerName"], "b");
    let rest = world.ok("ListStreamConsumers", json!({"StreamARN": arn("s"), "NextToken": page["NextToken"]}));
    assert_eq!((&rest["Consumers"][0]["ConsumerName"], rest.get("NextToken")), (&json!("c"), None));
    world.ok("DeregisterStreamConsumer", json!({"ConsumerARN": consumer}));
    let gone = format!("Consumer c of stream s under account {ACCOUNT} not found.");
    world.refused("DescribeStreamConsumer", again, "ResourceNotFoundException", &gone);
    assert_ne!(register(&world), consumer, "its name again, with another ARN");
    world.ok("DeleteStream", json!({"StreamName": "s", "EnforceConsumerDeletion": true}));
}

#[test]
fn an_event_takes_no_record_that_would_make_it_too_large() {
    let world = World::with_stream(1);
    let consumer = register(&world);
    for of in ["1", "2", "3"] {
        world.put("a", &of.repeat(600_000));
        world.advance(1_000);
    }
    world.ok("SplitShard", json!({"StreamName": "s", "ShardToSplit": shard(0), "NewStartingHashKey": "5"}));
    let mut body = subscribe(&world, &consumer, &json!({"Type": "TRIM_HORIZON"}));
    for (of, behind) in [("1", 1), ("2", 1), ("3", 0)] {
        let (_, event) = event(&mut body).unwrap();
        assert!(data(&event) == [of.repeat(600_000)], "{of}");
        assert!(event["MillisBehindLatest"].as_u64().unwrap() >= behind, "{of}");
        assert_eq!(event.get("ChildShards").is_some(), of == "3", "the end comes behind the last record");
        if of != "3" {
            assert_eq!(event["ContinuationSequenceNumber"], event["Records"][0]["SequenceNumber"]);
        }
    }
    assert_eq!(event(&mut body), None);
}

#[test]
fn a_subscription_gives_records_heartbeats_and_the_end_of_the_shard() {
    let world = World::with_stream(1);
    let consumer = register(&world);
    world.put("a", "one");
    let mut body = subscribe(&world, &consumer, &json!({"Type": "TRIM_HORIZON"}));
    let (kind, first) = event(&mut body).unwrap();
    assert_eq!((kind.as_str(), data(&first)), ("SubscribeToShardEvent", vec!["one".to_owned()]));
    assert_eq!(first["ContinuationSequenceNumber"], first["Records"][0]["SequenceNumber"]);
    assert!(first.get("ChildShards").is_none());
    assert_eq!(event(&mut body), None, "nothing yet");
    world.advance(4_000);
    let (_, silence) = event(&mut body).unwrap();
    assert_eq!(data(&silence), [""; 0]);
    let number = |event: &Value| event["ContinuationSequenceNumber"].as_str().unwrap().to_owned();
    assert!(number(&silence) > number(&first), "the time goes on in it");
    world.advance(50_000);
    world.put("a", "two");
    world.clock.set(anabranch::Timestamp::from_millis(1_767_225_600_000));
    let (_, second) = event(&mut body).unwrap();
    assert_eq!(data(&second), ["two"]);
    assert!(number(&second) > number(&silence));
    world.advance(4_000);
    let (_, silence) = event(&mut body).unwrap();
    assert!(number(&silence) >= number(&second), "though the clock went back");
    world.ok("SplitShard", json!({"StreamName": "s", "ShardToSplit": shard(0), "NewStartingHashKey": "5"}));
    let (_, end) = event(&mut body).unwrap();
    assert!(end.get("ContinuationSequenceNumber").is_none());
    assert_eq!(end["ChildShards"].as_array().unwrap().len(), 2);
    assert_eq!(event(&mut body), None);
    // Subscribing at the end of a closed shard gives that last event.
    world.advance(5_000);
    let mut body = subscribe(&world, &consumer, &json!({"Type": "LATEST"}));
    assert_eq!(event(&mut body).unwrap().1["ChildShards"].as_array().unwrap().len(), 2);
}

#[test]
fn a_refused_deletion_leaves_subscriptions_running() {
    let world = World::with_stream(1);
    let mut body = subscribe(&world, &register(&world), &json!({"Type": "LATEST"}));
    event(&mut body).unwrap();
    assert_eq!(world.refusal("DeleteStream", json!({"StreamName": "s"})).0, "ResourceInUseException");
    world.put("a", "one");
    assert_eq!(data(&event(&mut body).unwrap().1), ["one"]);
}

#[test]
fn a_subscription_goes_on_where_another_ended_and_lasts_five_minutes() {
    let world = World::with_stream(1);
    let consumer = register(&world);
    world.put("a", "one");
    let mut body = subscribe(&world, &consumer, &json!({"Type": "TRIM_HORIZON"}));
    let place = event(&mut body).unwrap().1["ContinuationSequenceNumber"].clone();
    world.put("a", "two");
    world.advance(300_000);
    assert_eq!(event(&mut body), None, "it is over");
    let mut body =
        subscribe(&world, &consumer, &json!({"Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": place}));
    assert_eq!(data(&event(&mut body).unwrap().1), ["two"]);
}

#[test]
fn a_later_subscription_takes_over_after_five_seconds() {
    let world = World::with_stream(1);
    let consumer = register(&world);
    let latest = json!({"Type": "LATEST"});
    let mut first = subscribe(&world, &consumer, &latest);
    event(&mut first).unwrap();
    world.advance(4_999);
    let (kind, text) = world.refusal("SubscribeToShard", subscription(&consumer, &latest));
    assert_eq!(
        (kind.as_str(), text.starts_with("Another active subscription exists")),
        ("ResourceInUseException", true)
    );
    world.advance(1);
    let mut second = subscribe(&world, &consumer, &latest);
    assert_eq!(event(&mut first).unwrap().0, "ResourceInUseException");
    assert_eq!(event(&mut first), None);
    assert_eq!(event(&mut second).unwrap().0, "SubscribeToShardEvent");
    let unknown = subscription(&format!("{}/consumer/none:1", arn("s")), &latest);
    assert_eq!(world.refusal("SubscribeToShard", unknown).0, "ResourceNotFoundException");
}

/// The last words of a subscription.
fn farewell(body: &mut Body) -> (String, String) {
    let (kind, document) = event(body).unwrap();
    assert_eq!(event(body), None, "they are the last");
    (kind, document["message"].as_str().unwrap().to_owned())
}

#[test]
fn subscriptions_end_with_their_consumer_and_with_their_stream() {
    let world = World::with_stream(1);
    let consumer = register(&world);
    let latest = json!({"Type": "LATEST"});
    let mut body = subscribe(&world, &consumer, &latest);
    event(&mut body).unwrap();
    world.ok("DeregisterStreamConsumer", json!({"ConsumerARN": consumer}));
    let not_found = "ResourceNotFoundException".to_owned();
    let text = format!("Consumer c of stream s under account {ACCOUNT} not found.");
    assert_eq!(farewell(&mut body), (not_found.clone(), text));
    let consumer = register(&world);
    let mut body = subscribe(&world, &consumer, &latest);
    event(&mut body).unwrap();
    world.ok("DeleteStream", json!({"StreamName": "s", "EnforceConsumerDeletion": true}));
    let text = format!("Stream s under account {ACCOUNT} not found.");
    assert_eq!(farewell(&mut body), (not_found, text));
}

#[test]
fn whatever_a_consumer_is_called_it_can_subscribe() {
    let world = World::with_stream(1);
    world.put("a", "one");
    for name in [".", "..", "c"] {
        let registered = world.ok("RegisterStreamConsumer", json!({"StreamARN": arn("s"), "ConsumerName": name}));
        let consumer = registered["Consumer"]["ConsumerARN"].as_str().unwrap();
        let mut body = subscribe(&world, consumer, &json!({"Type": "TRIM_HORIZON"}));
        assert_eq!(data(&event(&mut body).unwrap().1), ["one"], "{name}");
    }
}

#[test]
fn a_consumer_that_is_registered_again_has_a_throughput_of_its_own() {
    let world = World::with(ServiceOptions { enforce_limits: true, ..ServiceOptions::default() });
    world.ok("CreateStream", json!({"StreamName": "s", "ShardCount": 1}));
    let large = base64(vec![b'x'; 1_000_000]);
    for _ in 0..4 {
        world.ok("PutRecord", json!({"StreamName": "s", "PartitionKey": "a", "Data": large}));
        world.advance(1_000);
    }
    let read = || {
        let consumer = register(&world);
        let mut body = subscribe(&world, &consumer, &json!({"Type": "TRIM_HORIZON"}));
        let events = std::iter::from_fn(|| event(&mut body)).map(|(_, event)| data(&event).len()).sum::<usize>();
        world.ok("DeregisterStreamConsumer", json!({"ConsumerARN": consumer}));
        events
    };
    let first = read();
    assert!((1..4).contains(&first), "two MiB in a moment: {first}");
    assert_eq!(read(), first);
}

#[test]
fn the_time_goes_on_in_the_numbers_of_a_shard_without_records() {
    let world = World::with_stream(1);
    let consumer = register(&world);
    let mut body = subscribe(&world, &consumer, &json!({"Type": "TRIM_HORIZON"}));
    let mut numbers = Vec::new();
    for _ in 0..3 {
        let number = event(&mut body).unwrap().1["ContinuationSequenceNumber"].clone();
        numbers.push(number.as_str().unwrap().to_owned());
        world.advance(4_000);
    }
    assert!(numbers[0] < numbers[1] && numbers[1] < numbers[2], "{numbers:?}");
    let first = world.put("a", "one")["SequenceNumber"].as_str().unwrap().to_owned();
    assert!(numbers[2] < first);
    for number in numbers {
        world.advance(5_000);
        let after = json!({"Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": number});
        assert_eq!(data(&event(&mut subscribe(&world, &consumer, &after)).unwrap().1), ["one"]);
    }
}
