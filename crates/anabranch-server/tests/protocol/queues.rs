//! Queues: each record to one at a time, until it is acknowledged or a dead letter.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use anabranch::storage::Storage;
use anabranch::{Crash, DiskFault, SimulatedDisk};
use anabranch_server::{Service, ServiceOptions};
use serde_json::{Value, json};

use crate::support::{ACCOUNT, World, arn, base64, shard};

const NOT_FOUND: &str = "ResourceNotFoundException";
const IN_USE: &str = "ResourceInUseException";
const VALIDATION: &str = "ValidationException";
const INVALID: &str = "InvalidArgumentException";

/// With a stream `s` on demand.
pub(crate) fn world() -> World {
    on_demand(World::new())
}

fn on_demand(world: World) -> World {
    world.ok("CreateStream", json!({"StreamName": "s", "StreamModeDetails": {"StreamMode": "ON_DEMAND"}}));
    world
}

fn configuration(stream: &str) -> Value {
    json!([{"StreamARN": arn(stream), "StartingPosition": {"Type": "TRIM_HORIZON"}}])
}

/// The ARN of a new queue of `s`, from its start.
fn create(world: &World, name: &str) -> String {
    create_with(world, name, json!({}))
}

fn create_with(world: &World, name: &str, attributes: Value) -> String {
    let queue =
        json!({"QueueName": name, "StreamConfigurationList": configuration("s"), "QueueAttributes": attributes});
    let described = world.ok("CreateQueue", queue)["QueueDescription"].clone();
    assert_eq!(described["QueueStatus"], "CREATING");
    described["QueueARN"].as_str().unwrap().to_owned()
}

fn up_to(count: u32) -> Value {
    json!({"DeadLetterConfiguration": {"TargetType": "BUILT_IN", "MaxReceiveCount": count}})
}

fn describe(world: &World, queue: &str) -> Value {
    world.ok("DescribeQueue", json!({"QueueARN": queue}))["QueueDescription"].clone()
}

fn names(world: &World, body: Value) -> Vec<String> {
    let listed = world.ok("ListQueues", body);
    let name = |queue: &Value| queue["QueueName"].as_str().unwrap().to_owned();
    listed["QueueSummaries"].as_array().unwrap().iter().map(name).collect()
}

/// Up to ten records that can be received.
fn receive(world: &World, queue: &str) -> Vec<Value> {
    records(world, "ReceiveQueueRecords", json!({"QueueARN": queue}))
}

fn receive_dead(world: &World, queue: &str) -> Vec<Value> {
    records(world, "ReceiveDeadLetterQueueRecords", json!({"QueueARN": queue}))
}

fn records(world: &World, operation: &str, body: Value) -> Vec<Value> {
    world.ok(operation, body)["QueueRecords"].as_array().unwrap().clone()
}

/// The data of records, in an order.
fn data(records: &[Value]) -> Vec<String> {
    let text = |record: &Value| {
        let data = base64_simd::STANDARD.decode_to_vec(record["Data"].as_str().unwrap()).unwrap();
        String::from_utf8(data).unwrap()
    };
    let mut texts: Vec<_> = records.iter().map(text).collect();
    texts.sort_unstable();
    texts
}

fn handle(record: &Value) -> String {
    record["ReceiptHandle"].as_str().unwrap().to_owned()
}

fn handles(records: &[Value]) -> Vec<String> {
    records.iter().map(handle).collect()
}

fn entries(queue: &str, handles: &[String]) -> Value {
    let entries: Vec<_> = handles.iter().map(|handle| json!({"ReceiptHandle": handle})).collect();
    json!({"QueueARN": queue, "Entries": entries})
}

fn visibilities(queue: &str, handles: &[String], seconds: u32) -> Value {
    let entry = |handle| json!({"ReceiptHandle": handle, "VisibilityTimeoutSeconds": seconds});
    json!({"QueueARN": queue, "Entries": handles.iter().map(entry).collect::<Vec<_>>()})
}

/// Of a call that has to succeed for all entries.
fn for_all(world: &World, operation: &str, body: Value) {
    let count = body["Entries"].as_array().unwrap().len();
    let answer = world.ok(operation, body);
    assert_eq!(answer["Failed"], json!([]), "{operation}");
    assert_eq!(answer["Successful"].as_array().unwrap().len(), count);
}

fn acknowledge(world: &World, queue: &str, records: &[Value]) {
    for_all(world, "AcknowledgeQueueRecords", entries(queue, &handles(records)));
}

/// The codes of the entries of a call that fail, by their handles.
fn failures(world: &World, operation: &str, body: Value) -> Vec<(String, String)> {
    let answer = world.ok(operation, body);
    let text = |failed: &Value, member: &str| failed[member].as_str().unwrap().to_owned();
    let failed = answer["Failed"].as_array().unwrap();
    failed.iter().map(|failed| (text(failed, "ReceiptHandle"), text(failed, "ErrorCode"))).collect()
}

fn again(world: World, disk: SimulatedDisk, options: ServiceOptions) -> World {
    let World { service, clock, .. } = world;
    drop(service); // with its lock
    let service = Service::open_on("/data", options, clock.clone(), Arc::new(disk.clone())).unwrap();
    World { clock, disk, service }
}

fn no_queue(queue: &str) -> String {
    format!("Queue {queue} under account {ACCOUNT} not found.")
}

#[test]
fn a_queue_is_made_gives_records_is_changed_and_is_gone() {
    let world = world();
    world.put("k", "one");
    let queue = create(&world, "mails");
    let summary =
        || world.ok("DescribeStreamSummary", json!({"StreamName": "s"}))["StreamDescriptionSummary"].clone();
    assert_eq!((&summary()["QueueCount"], &summary()["ConsumerCount"]), (&json!(1), &json!(0)));
    let described = describe(&world, &queue);
    let now = summary()["StreamCreationTimestamp"].clone();
    assert_eq!(
        described,
        json!({
            "QueueName": "mails", "QueueARN": queue, "QueueStatus": "ACTIVE", "QueueCreationTimestamp": now,
            "StreamConfigurationList": [
                {"StreamARN": arn("s"), "StartingPosition": {"Type": "TRIM_HORIZON", "Timestamp": now}},
            ],
            "QueueAttributes": {
                "VisibilityTimeoutSeconds": 30,
                "DeadLetterConfiguration": {"TargetType": "BUILT_IN", "MaxReceiveCount": 6},
            },
        })
    );
    assert!(queue.starts_with(&format!("arn:aws:kinesis:us-east-1:{ACCOUNT}:queue/")) && !queue.contains("mails"));
    world.advance(1_000);
    let received = receive(&world, &queue);
    assert_eq!((data(&received), &received[0]["PartitionKey"]), (vec!["one".to_owned()], &json!("k")));
    assert_eq!((&received[0]["ReceiveCount"], &received[0]["ApproximateArrivalTimestamp"]), (&json!(1), &now));
    assert_eq!(received[0]["FirstReceiveTimestamp"], json!(1_767_225_601.0));
    acknowledge(&world, &queue, &received);
    world.advance(30_000);
    assert!(receive(&world, &queue).is_empty(), "it is done");
    let left: usize = (0..4).map(|number| world.all(&shard(number)).len()).sum();
    assert_eq!(left, 1, "and stays in the stream");

    let attributes = json!({"VisibilityTimeoutSeconds": 5, "DeadLetterConfiguration": {"TargetType": "NONE"}});
    let updated = world.ok("UpdateQueue", json!({"QueueARN": queue, "QueueAttributes": attributes}));
    assert_eq!(updated["QueueDescription"]["QueueStatus"], "UPDATING");
    assert_eq!(describe(&world, &queue)["QueueAttributes"], attributes);
    world.ok("UpdateQueue", json!({"QueueARN": queue, "QueueAttributes": {}}));
    assert_eq!(describe(&world, &queue)["QueueAttributes"], attributes, "what is not said is left as it is");

    world.ok("DeleteQueue", json!({"QueueARN": queue}));
    for operation in ["DescribeQueue", "DeleteQueue", "ReceiveQueueRecords", "ReceiveDeadLetterQueueRecords"] {
        world.refused(operation, json!({"QueueARN": queue}), NOT_FOUND, &no_queue(&queue));
    }
    world.refused("AcknowledgeQueueRecords", entries(&queue, &handles(&received)), NOT_FOUND, &no_queue(&queue));
    let update = json!({"QueueARN": queue, "QueueAttributes": {}});
    world.refused("UpdateQueue", update, NOT_FOUND, &no_queue(&queue));
    assert_eq!((names(&world, json!({})), &summary()["QueueCount"]), (vec![], &json!(0)));
    let again = create(&world, "mails");
    assert_ne!(again, queue, "its name again, with another ARN");
    assert_eq!(data(&receive(&world, &again)), ["one"], "and nothing of the other's");
}

#[test]
fn a_record_has_one_id_in_all_queues_and_a_handle_for_each_receive() {
    let world = world();
    let number = world.put("a", "one")["SequenceNumber"].clone();
    let (left, right) = (create(&world, "left"), create(&world, "right"));
    let first = receive(&world, &left);
    world.advance(30_000);
    let second = receive(&world, &left);
    let other = receive(&world, &right);
    for record in [&first[0], &second[0], &other[0]] {
        assert_eq!(record["RecordId"], number);
    }
    assert_eq!((&second[0]["ReceiveCount"], &other[0]["ReceiveCount"]), (&json!(2), &json!(1)));
    assert_eq!(second[0]["FirstReceiveTimestamp"], first[0]["FirstReceiveTimestamp"]);
    let handles: BTreeSet<_> = [&first, &second, &other].into_iter().flat_map(|some| handles(some)).collect();
    assert_eq!(handles.len(), 3);
}

#[test]
fn receivers_share_a_queue() {
    let world = world();
    let queue = create(&world, "mails");
    (0..25).for_each(|index| drop(world.put(&index.to_string(), &format!("{index:02}"))));
    let some = |limit: u32| records(&world, "ReceiveQueueRecords", json!({"QueueARN": queue, "Limit": limit}));
    let parts = [receive(&world, &queue), some(3), receive(&world, &queue), receive(&world, &queue), some(1)];
    assert_eq!(parts.each_ref().map(Vec::len), [10, 3, 10, 2, 0]);
    let all: Vec<_> = (0..25).map(|index| format!("{index:02}")).collect();
    assert_eq!(data(&parts.concat()), all);
}

#[test]
fn a_queue_starts_where_it_is_told() {
    let world = world();
    let start = |name: &str, position: Value| {
        let stream = match position {
            Value::Null => json!({"StreamARN": arn("s")}),
            position => json!({"StreamARN": arn("s"), "StartingPosition": position}),
        };
        let answer = world.ok("CreateQueue", json!({"QueueName": name, "StreamConfigurationList": [stream]}));
        let creating = answer["QueueDescription"]["StreamConfigurationList"][0]["StartingPosition"].clone();
        let queue = answer["QueueDescription"]["QueueARN"].as_str().unwrap().to_owned();
        let active = describe(&world, &queue)["StreamConfigurationList"][0]["StartingPosition"].clone();
        (queue, creating, active)
    };
    let created = 1_767_225_600.0;
    world.put("a", "one");
    world.advance(1_000);
    world.put("a", "two");
    let horizon = start("horizon", json!({"Type": "TRIM_HORIZON"}));
    let timed = start("timed", json!({"Type": "AT_TIMESTAMP", "Timestamp": created + 1.0}));
    let early = start("early", json!({"Type": "AT_TIMESTAMP", "Timestamp": 5.0}));
    let latest = start("latest", json!({"Type": "LATEST"}));
    let unsaid = start("unsaid", Value::Null);
    world.put("a", "three");
    let all = ["one", "three", "two"].map(str::to_owned);
    assert_eq!(data(&receive(&world, &horizon.0)), all);
    assert_eq!(data(&receive(&world, &timed.0)), all[1..]);
    assert_eq!(data(&receive(&world, &early.0)), all);
    assert_eq!(data(&receive(&world, &latest.0)), ["three"]);
    assert_eq!(data(&receive(&world, &unsaid.0)), ["three"]);
    assert_eq!(horizon.1, json!({"Type": "TRIM_HORIZON"}), "not determined yet");
    assert_eq!(horizon.2, json!({"Type": "TRIM_HORIZON", "Timestamp": created}));
    assert_eq!((&timed.1, &timed.2), (&timed.1, &json!({"Type": "AT_TIMESTAMP", "Timestamp": created + 1.0})));
    assert_eq!(early.1, json!({"Type": "AT_TIMESTAMP", "Timestamp": 5.0}));
    assert_eq!(early.2, json!({"Type": "AT_TIMESTAMP", "Timestamp": created}), "when the stream was made");
    assert_eq!(
        (latest.1, unsaid.2),
        (json!({"Type": "LATEST"}), json!({"Type": "LATEST", "Timestamp": created + 1.0}))
    );
}

#[test]
fn visibility_is_the_queue_s_the_call_s_or_the_record_s() {
    let world = world();
    let queue = create_with(&world, "mails", json!({"VisibilityTimeoutSeconds": 10}));
    world.put("a", "one");
    let first = receive(&world, &queue);
    world.advance(9_999);
    assert!(receive(&world, &queue).is_empty());
    world.advance(1);
    let longer = json!({"QueueARN": queue, "VisibilityTimeoutSeconds": 20});
    let second = records(&world, "ReceiveQueueRecords", longer);
    assert_eq!(second.len(), 1);
    world.advance(19_999);
    assert!(receive(&world, &queue).is_empty());
    let stale = visibilities(&queue, &handles(&first), 0);
    assert_eq!(
        failures(&world, "UpdateQueueRecordsVisibility", stale),
        [(handle(&first[0]), NOT_FOUND.to_owned())]
    );
    for_all(&world, "UpdateQueueRecordsVisibility", visibilities(&queue, &handles(&second), 100));
    world.advance(99_999);
    assert!(receive(&world, &queue).is_empty());
    for_all(&world, "UpdateQueueRecordsVisibility", visibilities(&queue, &handles(&second), 0));
    let third = receive(&world, &queue);
    assert_eq!(third[0]["ReceiveCount"], 3, "visible at once");
    // A new timeout is that of what is received from then on.
    let attributes = json!({"VisibilityTimeoutSeconds": 0});
    world.ok("UpdateQueue", json!({"QueueARN": queue, "QueueAttributes": attributes}));
    world.advance(9_999);
    assert!(receive(&world, &queue).is_empty());
    world.advance(1);
    assert_eq!((receive(&world, &queue).len(), receive(&world, &queue).len()), (1, 1));
}

#[test]
fn each_entry_of_a_call_has_an_outcome_of_its_own() {
    let world = world();
    let (queue, other) = (create_with(&world, "mails", up_to(2)), create(&world, "other"));
    (0..4).for_each(|index| drop(world.put(&index.to_string(), &index.to_string())));
    let foreign = handle(&receive(&world, &other)[0]);
    let stale = handle(&records(&world, "ReceiveQueueRecords", json!({"QueueARN": queue, "Limit": 1}))[0]);
    world.advance(30_000);
    let received = receive(&world, &queue);
    assert_eq!(received.len(), 4);
    let good = handles(&received[1..]);
    let long = "A".repeat(1_024);
    let asked = [&good[0], &stale, &foreign, "nonsense", &long, &good[1], &good[0]].map(str::to_owned);
    let answer = world.ok("AcknowledgeQueueRecords", entries(&queue, &asked));
    assert_eq!(answer["Successful"], json!([{"ReceiptHandle": good[0]}, {"ReceiptHandle": good[1]}]));
    let failed = answer["Failed"].as_array().unwrap();
    let codes: Vec<_> =
        failed.iter().map(|one| (one["ReceiptHandle"].as_str().unwrap(), &one["ErrorCode"])).collect();
    let (invalid, not_found) = (json!(INVALID), json!(NOT_FOUND));
    assert_eq!(
        codes,
        [
            (stale.as_str(), &not_found), // somebody received it since
            (&foreign, &invalid),
            ("nonsense", &invalid),
            (&long, &invalid),
            (&good[0], &not_found), // it is done: it was in the call before
        ]
    );
    assert!(failed.iter().all(|one| !one["ErrorMessage"].as_str().unwrap().is_empty()));
    // Of records and of dead letters, no handle is the other's.
    for operation in ["AcknowledgeDeadLetterQueueRecords", "RestoreDeadLetterQueueRecords"] {
        let refused = failures(&world, operation, entries(&queue, &good[2..]));
        assert_eq!(refused, [(good[2].clone(), INVALID.to_owned())], "{operation}");
    }
    world.advance(30_000);
    let (dead, again) = (receive_dead(&world, &queue), receive(&world, &queue));
    assert_eq!((dead.len(), again.len()), (1, 1));
    for (operation, body) in [
        ("AcknowledgeQueueRecords", entries(&queue, &handles(&dead))),
        ("UpdateQueueRecordsVisibility", visibilities(&queue, &handles(&dead), 0)),
        ("UpdateDeadLetterQueueRecordsVisibility", visibilities(&queue, &handles(&again), 0)),
    ] {
        assert_eq!(failures(&world, operation, body)[0].1, INVALID, "{operation}");
    }
    // Whoever is late and alone is not too late.
    world.advance(100_000);
    for_all(&world, "AcknowledgeDeadLetterQueueRecords", entries(&queue, &handles(&dead)));
}

#[test]
fn what_is_received_too_often_is_a_dead_letter() {
    let world = world();
    let queue = create_with(&world, "mails", up_to(2));
    (0..4).for_each(|index| drop(world.put(&index.to_string(), &index.to_string())));
    assert_eq!(receive(&world, &queue).len(), 4);
    assert!(receive_dead(&world, &queue).is_empty());
    world.advance(30_000);
    assert_eq!(receive(&world, &queue).len(), 4);
    world.advance(30_000);
    assert!(receive(&world, &queue).is_empty());
    let limited = json!({"QueueARN": queue, "Limit": 3, "VisibilityTimeoutSeconds": 60});
    let dead = records(&world, "ReceiveDeadLetterQueueRecords", limited);
    assert_eq!((dead.len(), &dead[0]["ReceiveCount"]), (3, &json!(3)));
    assert_eq!(receive_dead(&world, &queue).len(), 1);
    assert!(receive_dead(&world, &queue).is_empty(), "they are somebody's");
    for_all(&world, "AcknowledgeDeadLetterQueueRecords", entries(&queue, &handles(&dead[..1])));
    for_all(&world, "RestoreDeadLetterQueueRecords", entries(&queue, &handles(&dead[1..2])));
    for_all(&world, "UpdateDeadLetterQueueRecordsVisibility", visibilities(&queue, &handles(&dead[2..]), 0));
    let restored = receive(&world, &queue);
    assert_eq!((data(&restored), &restored[0]["ReceiveCount"]), (data(&dead[1..2]), &json!(1)));
    assert_eq!(data(&receive_dead(&world, &queue)), data(&dead[2..]));
    let stale = entries(&queue, &handles(&dead));
    let codes = failures(&world, "RestoreDeadLetterQueueRecords", stale);
    assert!(codes.len() == 3 && codes.iter().all(|(_, code)| code == NOT_FOUND), "{codes:?}");
    // Turned off, what is received comes again for ever; what is a dead letter stays one.
    let off = json!({"DeadLetterConfiguration": {"TargetType": "NONE"}});
    world.ok("UpdateQueue", json!({"QueueARN": queue, "QueueAttributes": off}));
    for count in 2..10 {
        world.advance(30_000);
        assert_eq!(receive(&world, &queue)[0]["ReceiveCount"], count);
    }
    // With less, it is one as soon as its time is over.
    world.ok("UpdateQueue", json!({"QueueARN": queue, "QueueAttributes": up_to(5)}));
    world.advance(30_000);
    assert!(receive(&world, &queue).is_empty());
    assert_eq!(receive_dead(&world, &queue).len(), 3);
}

#[test]
fn an_answer_has_room_for_the_greatest_record_and_not_for_two() {
    let world = world();
    world.ok("UpdateMaxRecordSize", json!({"StreamARN": arn("s"), "MaxRecordSizeInKiB": 10_240}));
    let queue = create(&world, "mails");
    let large = "x".repeat(6 << 20);
    (0..2).for_each(|_| drop(world.put("a", &large)));
    world.put("a", "small");
    let lengths =
        || receive(&world, &queue).iter().map(|one| one["Data"].as_str().unwrap().len()).collect::<Vec<_>>();
    let encoded = base64(&large).len();
    assert_eq!([lengths(), lengths(), lengths()], [vec![encoded], vec![encoded, 8], vec![]]);
}

#[test]
fn a_closed_service_goes_on_where_it_was() {
    let world = world();
    let queue = create_with(&world, "mails", up_to(1));
    world.ok("TagResource", json!({"ResourceARN": queue, "Tags": {"a": "1"}}));
    (0..3).for_each(|index| drop(world.put(&index.to_string(), &index.to_string())));
    let received = receive(&world, &queue);
    acknowledge(&world, &queue, &received[..1]);
    for_all(&world, "UpdateQueueRecordsVisibility", visibilities(&queue, &handles(&received[1..2]), 0));
    let described = describe(&world, &queue);
    world.service.close().unwrap();
    let disk = world.disk.clone();
    let world = again(world, disk, ServiceOptions::default());
    assert_eq!(describe(&world, &queue), described);
    assert_eq!(world.ok("ListTagsForResource", json!({"ResourceARN": queue}))["Tags"][0]["Key"], "a");
    let stale = failures(&world, "AcknowledgeQueueRecords", entries(&queue, &handles(&received[2..])));
    assert_eq!(stale, [(handle(&received[2]), NOT_FOUND.to_owned())], "handles end with the opening");
    assert!(receive(&world, &queue).is_empty());
    assert_eq!(data(&receive_dead(&world, &queue)), data(&received[1..]), "received as often as they may be");
}

#[test]
fn a_power_cut_takes_neither_a_queue_nor_what_was_acknowledged_or_restored() {
    for seed in 0..20 {
        let world = world();
        let queue = create_with(&world, "mails", up_to(1));
        (0..6).for_each(|index| drop(world.put(&index.to_string(), &index.to_string())));
        let received = receive(&world, &queue);
        acknowledge(&world, &queue, &received[..2]);
        for_all(&world, "UpdateQueueRecordsVisibility", visibilities(&queue, &handles(&received[2..]), 0));
        let dead = receive_dead(&world, &queue);
        assert_eq!(dead.len(), 4);
        for_all(&world, "AcknowledgeDeadLetterQueueRecords", entries(&queue, &handles(&dead[..1])));
        for_all(&world, "RestoreDeadLetterQueueRecords", entries(&queue, &handles(&dead[1..2])));
        let described = describe(&world, &queue);
        let disk = world.disk.crash(Crash::PowerLost { seed });
        let world = again(world, disk, ServiceOptions::default());
        assert_eq!(describe(&world, &queue), described, "seed {seed}");
        assert_eq!(data(&receive(&world, &queue)), data(&dead[1..2]), "seed {seed}");
        assert_eq!(data(&receive_dead(&world, &queue)), data(&dead[2..]), "seed {seed}");
        world.ok("DeleteQueue", json!({"QueueARN": queue}));
        let disk = world.disk.crash(Crash::PowerLost { seed });
        let world = again(world, disk, ServiceOptions::default());
        assert_eq!(names(&world, json!({})), [""; 0], "seed {seed}");
    }
}

/// Wherever it is cut, there is the queue as it was asked for, or there is none and its name is free.
#[test]
fn a_creation_that_was_cut_short_leaves_all_of_a_queue_or_nothing() {
    let queue = json!({"QueueName": "mails", "StreamConfigurationList": configuration("s")});
    let mut operations = 0;
    loop {
        let world = world();
        world.put("a", "one");
        world.disk.fail_at(operations, DiskFault::ErrorFromThenOn(io::ErrorKind::Other));
        let is_over = world.send("CreateQueue", &queue).status() == 200;
        world.disk.clear_faults();
        let disk = world.disk.crash(Crash::ProcessKilled);
        let world = again(world, disk, ServiceOptions::default());
        let listed = world.ok("ListQueues", json!({}))["QueueSummaries"].clone();
        let arn = match listed[0]["QueueARN"].as_str() {
            Some(arn) => arn.to_owned(),
            None => create(&world, "mails"),
        };
        assert_eq!(data(&receive(&world, &arn)), ["one"], "{operations}");
        if is_over {
            break;
        }
        operations += 1;
    }
    assert!(operations > 5, "{operations}");
}

/// Each operation of the disk fails once.
#[test]
fn a_creation_that_failed_leaves_nothing_behind() {
    let queue = json!({"QueueName": "mails", "StreamConfigurationList": configuration("s")});
    let directory = format!("/data/{ACCOUNT}/us-east-1/streams/s/queues");
    let mut operations = 0;
    loop {
        let world = world();
        world.disk.fail_at(operations, DiskFault::Error(io::ErrorKind::Other));
        let is_made = world.send("CreateQueue", &queue).status() == 200;
        world.disk.clear_faults();
        if is_made {
            break;
        }
        let mut files = world.disk.list(Path::new(&directory)).unwrap_or_default();
        files.retain(|file| !file.name.starts_with('~')); // one that did not get its name
        assert!(files.is_empty(), "{operations}: {files:?}");
        assert_eq!(names(&world, json!({})), [""; 0], "{operations}");
        operations += 1;
    }
    assert!(operations > 5, "{operations}");
}

/// Wherever it is cut, there is the queue as it was, or there is none, and whatever is left of it in the library is not part of the next one of its name.
#[test]
fn a_deletion_that_was_cut_short_leaves_all_of_a_queue_or_a_free_name() {
    let directory = format!("/data/{ACCOUNT}/us-east-1/streams/s/queues");
    for crash in [Crash::ProcessKilled, Crash::PowerLost { seed: 0 }, Crash::PowerLost { seed: 1 }] {
        let (mut operations, mut has_left) = (0, false);
        loop {
            let world = world();
            let queue = create(&world, "mails");
            world.put("a", "one");
            world.put("a", "two");
            let received = receive(&world, &queue);
            acknowledge(&world, &queue, &received[..1]);
            world.disk.fail_at(operations, DiskFault::PowerCut);
            let is_over = world.send("DeleteQueue", &json!({"QueueARN": queue})).status() == 200;
            let disk = world.disk.crash(crash);
            let world = again(world, disk, ServiceOptions::default());
            match names(&world, json!({})).len() {
                0 => {
                    has_left |= !world.disk.list(Path::new(&directory)).unwrap_or_default().is_empty();
                    let next = create(&world, "mails");
                    assert_ne!(next, queue);
                    assert_eq!(data(&receive(&world, &next)), ["one", "two"], "{crash:?}, {operations}");
                }
                _ => assert_eq!(data(&receive(&world, &queue)), ["two"], "{crash:?}, {operations}"),
            }
            if is_over {
                break;
            }
            operations += 1;
        }
        assert!(operations > 5 && has_left, "{crash:?}, {operations}");
    }
}

#[test]
fn queues_are_of_streams_on_demand_and_keep_them() {
    let world = world();
    world.ok("CreateStream", json!({"StreamName": "p", "ShardCount": 1}));
    let text = format!(
        "Queues are for streams in On-Demand mode; stream p under account {ACCOUNT} is in Provisioned mode."
    );
    let of_p = json!({"QueueName": "mails", "StreamConfigurationList": configuration("p")});
    world.refused("CreateQueue", of_p, VALIDATION, &text);
    let queue = create(&world, "mails");
    let text = format!("Stream s under account {ACCOUNT} has queues; delete them first.");
    for consumers_too in [false, true] {
        let delete = json!({"StreamName": "s", "EnforceConsumerDeletion": consumers_too});
        world.refused("DeleteStream", delete, IN_USE, &text);
    }
    let mode = |mode: &str| json!({"StreamARN": arn("s"), "StreamModeDetails": {"StreamMode": mode}});
    world.refused("UpdateStreamMode", mode("PROVISIONED"), IN_USE, &text);
    world.ok("UpdateStreamMode", mode("ON_DEMAND"));
    world.put("a", "one");
    assert_eq!(data(&receive(&world, &queue)), ["one"]);
    world.ok("DeleteQueue", json!({"QueueARN": queue}));
    world.ok("UpdateStreamMode", mode("PROVISIONED"));
    world.ok("DeleteStream", json!({"StreamName": "s"}));
}

#[test]
fn queues_and_consumers_share_a_limit() {
    let world = world();
    let register = |name: &str| json!({"StreamARN": arn("s"), "ConsumerName": name});
    let queue = |name: &str| json!({"QueueName": name, "StreamConfigurationList": configuration("s")});
    (0..10).for_each(|number| drop(world.ok("CreateQueue", queue(&format!("q{number}")))));
    (0..10).for_each(|number| drop(world.ok("RegisterStreamConsumer", register(&format!("c{number}")))));
    let text = |most: u32| format!("Stream s under account {ACCOUNT} has {most} consumers and queues already.");
    world.refused("CreateQueue", queue("more"), "LimitExceededException", &text(20));
    world.refused("RegisterStreamConsumer", register("more"), "LimitExceededException", &text(20));
    let commitment = json!({"MinimumThroughputBillingCommitment": {"Status": "ENABLED"}});
    world.ok("UpdateAccountSettings", commitment);
    (10..40).for_each(|number| drop(world.ok("CreateQueue", queue(&format!("q{number}")))));
    world.refused("CreateQueue", queue("more"), "LimitExceededException", &text(50));
}

#[test]
fn a_name_is_one_queue_s_in_an_account_and_a_region() {
    let world = world();
    world.ok("CreateStream", json!({"StreamName": "t", "StreamModeDetails": {"StreamMode": "ON_DEMAND"}}));
    create(&world, "mails");
    let of_t = json!({"QueueName": "mails", "StreamConfigurationList": configuration("t")});
    world.refused("CreateQueue", of_t, IN_USE, "Queue mails already exists.");
    let foreign = format!("arn:aws:kinesis:eu-west-1:{ACCOUNT}:stream/s");
    let body = json!({"QueueName": "x", "StreamConfigurationList": [{"StreamARN": foreign}]});
    assert_eq!(world.refusal("CreateQueue", body).0, NOT_FOUND);
    let body = json!({"QueueName": "x", "StreamConfigurationList": configuration("none")});
    world.refused("CreateQueue", body, NOT_FOUND, &format!("Stream none under account {ACCOUNT} not found."));
}

#[test]
fn queues_are_listed_page_by_page_and_by_stream() {
    let world = world();
    assert_eq!(names(&world, json!({})), [""; 0]);
    world.advance(5_000);
    world.ok("CreateStream", json!({"StreamName": "t", "StreamModeDetails": {"StreamMode": "ON_DEMAND"}}));
    for (name, stream) in [("b", "s"), ("d", "t"), ("a", "t"), ("c", "s")] {
        world.ok("CreateQueue", json!({"QueueName": name, "StreamConfigurationList": configuration(stream)}));
    }
    assert_eq!(names(&world, json!({})), ["a", "b", "c", "d"]);
    let page = world.ok("ListQueues", json!({"MaxResults": 3}));
    let last = world.ok("ListQueues", json!({"MaxResults": 3, "NextToken": page["NextToken"]}));
    assert_eq!(
        (page["QueueSummaries"].as_array().unwrap().len(), &last["QueueSummaries"][0]["QueueName"]),
        (3, &json!("d"))
    );
    assert!(last.get("NextToken").is_none());
    let created = 1_767_225_600.0;
    let summary = &last["QueueSummaries"][0];
    assert_eq!(
        (&summary["QueueStatus"], &summary["QueueCreationTimestamp"]),
        (&json!("ACTIVE"), &json!(created + 5.0))
    );
    let streams = json!([{"StreamARN": arn("t"), "StreamCreationTimestamp": created + 5.0}]);
    assert_eq!(summary["Streams"], streams);
    assert_eq!(names(&world, json!({"StreamFilter": [{"StreamARN": arn("s")}]})), ["b", "c"]);
    assert_eq!(
        names(&world, json!({"StreamFilter": [{"StreamARN": arn("s")}, {"StreamARN": arn("t")}]})).len(),
        4
    );
    assert_eq!(names(&world, json!({"StreamFilter": streams})), ["a", "d"]);
    let other = json!([{"StreamARN": arn("t"), "StreamCreationTimestamp": created}]);
    assert_eq!(names(&world, json!({"StreamFilter": other})), [""; 0], "one that had its name before");
    assert_eq!(names(&world, json!({"StreamFilter": [{"StreamARN": arn("none")}]})), [""; 0]);
    world.refused("ListQueues", json!({"NextToken": "nonsense"}), INVALID, "Invalid NextToken.");
    world.advance(300_001);
    let expired = json!({"NextToken": page["NextToken"]});
    world.refused("ListQueues", expired, "ExpiredNextTokenException", "NextToken expired.");
}

#[test]
fn a_queue_has_tags_and_a_policy() {
    let world = world();
    let queue =
        json!({"QueueName": "mails", "StreamConfigurationList": configuration("s"), "Tags": {"team": "a"}});
    let queue = world.ok("CreateQueue", queue)["QueueDescription"]["QueueARN"].clone();
    world.ok("TagResource", json!({"ResourceARN": queue, "Tags": {"x": "y"}}));
    world.ok("UntagResource", json!({"ResourceARN": queue, "TagKeys": ["team"]}));
    let tags = |of: &Value| world.ok("ListTagsForResource", json!({"ResourceARN": of}))["Tags"].clone();
    assert_eq!(tags(&queue), json!([{"Key": "x", "Value": "y"}]));
    assert_eq!(tags(&json!(arn("s"))), json!([]), "not its stream's");
    let policy = |of: &Value| world.ok("GetResourcePolicy", json!({"ResourceARN": of}))["Policy"].clone();
    assert_eq!(policy(&queue), "{}");
    world.ok("PutResourcePolicy", json!({"ResourceARN": queue, "Policy": "{\"a\": 1}"}));
    assert_eq!((policy(&queue), policy(&json!(arn("s")))), (json!("{\"a\": 1}"), json!("{}")));
    world.ok("DeleteResourcePolicy", json!({"ResourceARN": queue}));
    assert_eq!(policy(&queue), "{}");
    let many: serde_json::Map<_, _> = (0..51).map(|number| (format!("k{number}"), json!("v"))).collect();
    assert_eq!(world.refusal("TagResource", json!({"ResourceARN": queue, "Tags": many})).0, INVALID);
    world.ok("DeleteQueue", json!({"QueueARN": queue}));
    let text = no_queue(queue.as_str().unwrap());
    for operation in ["ListTagsForResource", "GetResourcePolicy", "DeleteResourcePolicy"] {
        world.refused(operation, json!({"ResourceARN": queue}), NOT_FOUND, &text);
    }
    let channel = json!({"ResourceARN": format!("arn:aws:kinesis:us-east-1:{ACCOUNT}:channel/x")});
    assert_eq!(world.refusal("ListTagsForResource", channel).0, INVALID);
}

#[test]
fn a_queue_looks_for_a_while_as_if_it_were_being_made_changed_or_deleted() {
    let options =
        || ServiceOptions { transition_delay: std::time::Duration::from_secs(1), ..ServiceOptions::default() };
    let world = on_demand(World::with(options()));
    let body = json!({"QueueName": "mails", "StreamConfigurationList": configuration("s")});
    assert_eq!(world.refusal("CreateQueue", body).0, IN_USE, "the stream is being made");
    world.advance(1_000);
    let queue = create(&world, "mails");
    let status = || describe(&world, &queue)["QueueStatus"].clone();
    let update = json!({"QueueARN": queue, "QueueAttributes": up_to(2)});
    let busy = |state: &str| format!("Queue {queue} under account {ACCOUNT} not ACTIVE, instead in state {state}");
    world.put("a", "one");
    world.advance(999);
    assert_eq!(status(), "CREATING");
    assert!(describe(&world, &queue)["StreamConfigurationList"][0]["StartingPosition"].get("Timestamp").is_none());
    world.refused("ReceiveQueueRecords", json!({"QueueARN": queue}), NOT_FOUND, &no_queue(&queue));
    world.refused("UpdateQueue", update.clone(), IN_USE, &busy("CREATING"));
    world.advance(1);
    assert_eq!(status(), "ACTIVE");
    world.ok("UpdateQueue", update.clone());
    assert_eq!(status(), "UPDATING");
    world.refused("UpdateQueue", update.clone(), IN_USE, &busy("UPDATING"));
    let received = receive(&world, &queue);
    acknowledge(&world, &queue, &received);
    world.advance(1_000);
    assert_eq!(status(), "ACTIVE");
    world.ok("DeleteQueue", json!({"QueueARN": queue}));
    world.ok("DeleteQueue", json!({"QueueARN": queue}));
    assert_eq!((status(), names(&world, json!({}))), (json!("DELETING"), vec!["mails".to_owned()]));
    world.refused("ReceiveQueueRecords", json!({"QueueARN": queue}), NOT_FOUND, &no_queue(&queue));
    world.refused("UpdateQueue", update, IN_USE, &busy("DELETING"));
    let body = json!({"QueueName": "mails", "StreamConfigurationList": configuration("s")});
    world.refused("CreateQueue", body, IN_USE, "Queue mails already exists.");
    assert_eq!(world.refusal("DeleteStream", json!({"StreamName": "s"})).0, IN_USE, "it goes on");
    world.advance(1_000);
    world.refused("DescribeQueue", json!({"QueueARN": queue}), NOT_FOUND, &no_queue(&queue));
    assert_eq!(names(&world, json!({})), [""; 0]);
    create(&world, "mails");
    let disk = world.disk.crash(Crash::ProcessKilled);
    let world = again(world, disk, options());
    let listed = world.ok("ListQueues", json!({}))["QueueSummaries"][0]["QueueStatus"].clone();
    assert_eq!(listed, "ACTIVE", "a restart ends every transition");
}

#[test]
fn what_is_wrong_with_a_creation_is_told_by_member() {
    let world = world();
    let queue = create(&world, "mails");
    let stream = |with: Value| {
        let mut stream = json!({"StreamARN": arn("s")});
        stream.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
        json!([stream])
    };
    let make = |name: &str, streams: Value, attributes: Value| json!({"QueueName": name, "StreamConfigurationList": streams, "QueueAttributes": attributes});
    let one = || stream(json!({}));
    let dead = |with: Value| json!({"DeadLetterConfiguration": with});
    let wrong = [
        ("CreateQueue", json!({}), "queueName"),
        ("CreateQueue", json!({}), "streamConfigurationList"),
        ("CreateQueue", make("a b", one(), json!({})), "queueName"),
        ("CreateQueue", make(&"x".repeat(129), one(), json!({})), "queueName"),
        ("CreateQueue", make("x", json!([]), json!({})), "streamConfigurationList"),
        ("CreateQueue", make("x", json!([{}]), json!({})), "streamConfigurationList.1.member.streamARN"),
        (
            "CreateQueue",
            make("x", json!([{"StreamARN": queue}]), json!({})),
            "streamConfigurationList.1.member.streamARN",
        ),
        ("CreateQueue", make("x", stream(json!({"StartingPosition": {}})), json!({})), "startingPosition.type"),
        (
            "CreateQueue",
            make("x", stream(json!({"StartingPosition": {"Type": "NOW"}})), json!({})),
            "[TRIM_HORIZON, LATEST, AT_TIMESTAMP]",
        ),
        (
            "CreateQueue",
            make("x", one(), json!({"VisibilityTimeoutSeconds": 43_201})),
            "queueAttributes.visibilityTimeoutSeconds",
        ),
        (
            "CreateQueue",
            make("x", one(), json!({"VisibilityTimeoutSeconds": -1})),
            "queueAttributes.visibilityTimeoutSeconds",
        ),
        ("CreateQueue", make("x", one(), dead(json!({}))), "queueAttributes.deadLetterConfiguration.targetType"),
        ("CreateQueue", make("x", one(), dead(json!({"TargetType": "S3"}))), "[BUILT_IN, NONE]"),
        (
            "CreateQueue",
            make("x", one(), dead(json!({"TargetType": "BUILT_IN", "MaxReceiveCount": 0}))),
            "maxReceiveCount",
        ),
        (
            "CreateQueue",
            make("x", one(), dead(json!({"TargetType": "BUILT_IN", "MaxReceiveCount": 1_001}))),
            "maxReceiveCount",
        ),
        ("CreateQueue", make("x", one(), dead(json!({"TargetType": "BUILT_IN"}))), "needs a MaxReceiveCount"),
        (
            "CreateQueue",
            make("x", one(), dead(json!({"TargetType": "NONE", "MaxReceiveCount": 1}))),
            "Only a TargetType of BUILT_IN",
        ),
        (
            "CreateQueue",
            make("x", json!([{"StreamARN": arn("s")}, {"StreamARN": arn("s")}]), json!({})),
            "exactly one stream",
        ),
        (
            "CreateQueue",
            make("x", stream(json!({"StartingPosition": {"Type": "AT_TIMESTAMP"}})), json!({})),
            "needs a Timestamp",
        ),
        (
            "CreateQueue",
            make("x", stream(json!({"StartingPosition": {"Type": "LATEST", "Timestamp": 5}})), json!({})),
            "Only a StartingPosition of type AT_TIMESTAMP",
        ),
    ];
    told_by_member(&world, wrong);
    let future = stream(json!({"StartingPosition": {"Type": "AT_TIMESTAMP", "Timestamp": 1_900_000_000}}));
    assert_eq!(world.refusal("CreateQueue", make("x", future, json!({}))).0, INVALID);
    assert_eq!(names(&world, json!({})), ["mails"], "what was refused left no trace");
}

fn told_by_member<const N: usize>(world: &World, wrong: [(&str, Value, &str); N]) {
    for (operation, body, part) in wrong {
        let (kind, text) = world.refusal(operation, body.clone());
        assert!(kind == VALIDATION && text.contains(part), "{operation} {body}: {kind}: {text}");
    }
}

#[test]
fn what_is_wrong_with_a_call_is_told_by_member() {
    let world = world();
    let queue = create(&world, "mails");
    let dead = |with: Value| json!({"DeadLetterConfiguration": with});
    let wrong = [
        ("UpdateQueue", json!({"QueueARN": queue}), "queueAttributes"),
        ("UpdateQueue", json!({"QueueAttributes": {}}), "queueARN"),
        (
            "UpdateQueue",
            json!({"QueueARN": queue, "QueueAttributes": dead(json!({"TargetType": "BUILT_IN"}))}),
            "needs a MaxReceiveCount",
        ),
        ("DescribeQueue", json!({"QueueARN": arn("s")}), "arn:aws.*:kinesis:.*:\\d{12}:queue/\\S+"),
        ("DeleteQueue", json!({}), "queueARN"),
        ("ListQueues", json!({"MaxResults": 10_001}), "maxResults"),
        ("ListQueues", json!({"StreamFilter": []}), "streamFilter"),
        ("ListQueues", json!({"StreamFilter": [{}]}), "streamFilter.1.member.streamARN"),
        ("ReceiveQueueRecords", json!({"QueueARN": queue, "Limit": 11}), "limit"),
        ("ReceiveQueueRecords", json!({"QueueARN": queue, "WaitTimeSeconds": 0}), "waitTimeSeconds"),
        ("ReceiveQueueRecords", json!({"QueueARN": queue, "WaitTimeSeconds": 21}), "waitTimeSeconds"),
        (
            "ReceiveDeadLetterQueueRecords",
            json!({"QueueARN": queue, "VisibilityTimeoutSeconds": 43_201}),
            "visibilityTimeoutSeconds",
        ),
        ("AcknowledgeQueueRecords", json!({"QueueARN": queue}), "entries"),
        ("AcknowledgeQueueRecords", entries(&queue, &[]), "entries"),
        ("AcknowledgeQueueRecords", entries(&queue, &vec!["x".to_owned(); 11]), "entries"),
        (
            "RestoreDeadLetterQueueRecords",
            json!({"QueueARN": queue, "Entries": [{}]}),
            "entries.1.member.receiptHandle",
        ),
        (
            "AcknowledgeDeadLetterQueueRecords",
            entries(&queue, &["x".repeat(1_025)]),
            "entries.1.member.receiptHandle",
        ),
        (
            "UpdateQueueRecordsVisibility",
            entries(&queue, &["x".to_owned()]),
            "entries.1.member.visibilityTimeoutSeconds",
        ),
        (
            "UpdateDeadLetterQueueRecordsVisibility",
            visibilities(&queue, &["x".to_owned()], 43_201),
            "entries.1.member.visibilityTimeoutSeconds",
        ),
    ];
    told_by_member(&world, wrong);
    for id in ["0", "+1767225600", "01767225600", "mails", "x/y"] {
        let arn = format!("arn:aws:kinesis:us-east-1:{ACCOUNT}:queue/{id}");
        world.refused("DescribeQueue", json!({"QueueARN": arn}), NOT_FOUND, &no_queue(&arn));
    }
    let foreign = queue.replace("us-east-1", "eu-west-1");
    world.refused("DescribeQueue", json!({"QueueARN": foreign}), NOT_FOUND, &no_queue(&foreign));
}
