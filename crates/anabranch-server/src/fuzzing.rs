//! The bodies of the fuzz targets `server_decode` and `server_requests`: for the fuzzers in `fuzz/`, and for the test that runs the bodies over their corpora. Not part of the interface.
//!
//! Each takes the fuzzer's bytes and panics where a promise does not hold.
#![allow(clippy::missing_panics_doc, reason = "that is what they do")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a body is a test")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anabranch::fuzzing::Input;
use anabranch::{Clock, ManualClock, SimulatedDisk};
use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};

use crate::arn::{Arn, QueueArn};
use crate::limits::MAX_BODY_VALUES;
use crate::operations;
use crate::sequence::Sequence;
use crate::service::{Service, ServiceOptions};
use crate::signature::{Credentials, Signature};
use crate::token::{self, Purpose};
use crate::wire::Format;

const AUTHORIZATION: &str =
    "AWS4-HMAC-SHA256 Credential=me/20260101/us-east-1/kinesis/aws4_request, SignedHeaders=host, Signature=00";
/// Half of the least retention, so that nothing expires.
const MOST_TIME: Duration = Duration::from_secs(12 * 3600);
/// Calls of one input: many short histories find more than few long ones.
const MOST_CALLS: usize = 40;
/// Names of members, right ones and one that nobody has.
const MEMBERS: [&str; 6] = ["StreamName", "Records", "Data", "Limit", "Tags", "none"];

/// Arbitrary bytes to each parser of what clients send: none panics, and each agrees with itself, or with another one.
pub fn decode(input: &[u8]) {
    let Some((selector, bytes)) = input.split_first() else { return };
    let text = String::from_utf8_lossy(bytes);
    match selector % 6 {
        0 => decode_json(bytes),
        1 => ask_for_members(Format::Cbor, bytes),
        2 => decode_sequence(&text),
        3 => decode_token(bytes, &text),
        4 => drop((Arn::parse(&text), QueueArn::parse(&text))),
        _ => read_signature(&text),
    }
}

/// What is an object for a parser that makes other values of it is one for ours, unless it is too much.
fn decode_json(bytes: &[u8]) {
    let expected = serde_json::from_slice::<Value>(bytes).is_ok_and(|value| value.is_object());
    if bytes.len() < MAX_BODY_VALUES {
        assert_eq!(Format::Json.read(bytes).is_some(), expected);
    }
    ask_for_members(Format::Json, bytes);
}

/// Each member is asked for as each type; those of another give a fault.
fn ask_for_members(format: Format, bytes: &[u8]) {
    for kind in 0..7 {
        let Some(mut fields) = format.read(bytes) else { return };
        for name in MEMBERS {
            match kind {
                0 => drop(fields.text(name)),
                1 => drop(fields.integer(name)),
                2 => drop(fields.flag(name)),
                3 => drop(fields.blob(name)),
                4 => drop(fields.time(name)),
                5 => drop(fields.text_map(name)),
                _ => drop(fields.list(name).map(|list| list.map(|list| list.structures().map(|all| all.len())))),
            }
        }
    }
}

fn decode_sequence(text: &str) {
    if let Some(number) = Sequence::parse(text) {
        assert_eq!(Sequence::parse(&number.to_string()), Some(number), "{text}");
    }
}

/// A token that was made opens as what it was, and only for its purpose; what was not made does not open, unless somebody computed the checksum.
fn decode_token(bytes: &[u8], text: &str) {
    if let Some(opened) = token::open(Purpose::Iterator, text) {
        assert!(token::open(Purpose::Shards, text).is_none());
        drop(opened);
    }
    let bytes = &bytes[..bytes.len().min(600)];
    let sealed = token::seal(Purpose::Streams, anabranch::Timestamp::from_millis(7), bytes);
    assert_eq!(token::open(Purpose::Streams, &sealed).expect("it was made").payload, bytes);
    assert!(token::open(Purpose::Consumers, &sealed).is_none());
}

/// A line is a header, or the query; nothing verifies.
fn read_signature(text: &str) {
    let mut lines = text.lines();
    let mut request = Request::post(format!("/?{}", lines.next().unwrap_or_default()));
    for line in lines.take(20) {
        let (name, value) = line.split_once(':').unwrap_or(("authorization", line));
        request = request.header(name, value);
    }
    let Ok(request) = request.body(()) else { return };
    let (parts, ()) = request.into_parts();
    if let Ok(signature) = Signature::read(&parts) {
        let me = [Credentials { access_key_id: "me".to_owned(), secret_access_key: "secret".to_owned() }];
        let now = anabranch::Timestamp::from_millis(1_767_225_600_000);
        assert!(signature.verify(&parts, b"{}", &me, now).is_err());
    }
}

/// Requests one after the other, sensible ones and others, to a service in memory. None is a failure of the server, every answer can be read, and what was acknowledged is read at the end.
pub fn requests(input: &[u8]) {
    let clock = Arc::new(ManualClock::default());
    let disk = Arc::new(SimulatedDisk::new());
    let open = || Service::open_on("/data", ServiceOptions::default(), clock.clone(), disk.clone()).unwrap();
    let mut world = World { service: open(), acknowledged: BTreeSet::new() };
    world.ask("CreateStream", &json!({"StreamName": "s", "ShardCount": 2}));
    let mut input = Input::new(input);
    for _ in 0..MOST_CALLS {
        let Some(choice) = input.byte() else { break };
        match choice % 16 {
            0 => clock.advance(
                Duration::from_secs(input.below(256).unwrap_or(0))
                    .min(MOST_TIME.saturating_sub(clock.monotonic())),
            ),
            1 => {
                let World { service, acknowledged } = world;
                service.close().unwrap();
                drop(service); // and with it the lock of the directory
                world = World { service: open(), acknowledged };
            }
            2 => world.send_raw(&mut input),
            3..8 => world.put(&mut input),
            _ => world.change(&mut input),
        }
    }
    world.expect_all();
    world.service.close().unwrap();
}

struct World {
    service: Service,
    /// The data of all records.
    acknowledged: BTreeSet<String>,
}

impl World {
    fn ask(&self, operation: &str, body: &Value) -> Option<Value> {
        self.send(operation, "application/x-amz-json-1.1", body.to_string().into_bytes())
    }

    /// Gives what succeeded.
    fn send(&self, operation: &str, content_type: &str, body: Vec<u8>) -> Option<Value> {
        let request = Request::post("/")
            .header("content-type", content_type)
            .header("x-amz-target", format!("Kinesis_20131202.{operation}"))
            .header("x-amz-date", "20260101T000000Z")
            .header("authorization", AUTHORIZATION)
            .body(Bytes::from(body));
        let answer = self.service.respond(request.unwrap());
        assert!(!answer.status().is_server_error(), "{operation}: {}", answer.status());
        let is_success = answer.status().is_success();
        if !content_type.contains("json") || operation == "SubscribeToShard" {
            return is_success.then_some(Value::Null);
        }
        let body = answer.body().bytes();
        let document = if body.is_empty() { Value::Null } else { serde_json::from_slice(body).expect("JSON") };
        is_success.then_some(document)
    }

    /// Any operation with any body.
    fn send_raw(&self, input: &mut Input<'_>) {
        let names: Vec<_> = operations::names().collect();
        let name = names[usize::from(input.byte().unwrap_or(0)) % names.len()];
        if matches!(name, "PutRecord" | "PutRecords" | "DeleteStream") {
            return; // the model does not know what they do
        }
        let is_json = input.below(2) == Some(0);
        let length = usize::from(input.byte().unwrap_or(0));
        let format = if is_json { Format::Json } else { Format::Cbor };
        self.send(name, format.content_type(), input.bytes(length).to_vec());
    }

    fn put(&mut self, input: &mut Input<'_>) {
        let key = format!("key-{}", input.byte().unwrap_or(0));
        let data = |number: usize| base64_simd::STANDARD.encode_to_string(format!("record {number}"));
        let first = self.acknowledged.len();
        let count = usize::from(input.byte().unwrap_or(0) % 4) + 1;
        let records: Vec<_> =
            (first..first + count).map(|number| json!({"Data": data(number), "PartitionKey": key})).collect();
        let (operation, body) = match count {
            1 => ("PutRecord", json!({"StreamName": "s", "Data": data(first), "PartitionKey": key})),
            _ => ("PutRecords", json!({"StreamName": "s", "Records": records})),
        };
        let answer = self.ask(operation, &body).expect("a put to a sound stream");
        assert!(count == 1 || answer["FailedRecordCount"] == 0, "{answer}");
        self.acknowledged.extend((first..first + count).map(data));
    }

    /// Changes of the stream; those that do not fit are refused.
    fn change(&self, input: &mut Input<'_>) {
        let (what, shard, number) = (input.below(8), input.byte().unwrap_or(0), input.byte().unwrap_or(0));
        let shard_id = format!("shardId-{:012}", shard % 16);
        let (operation, mut body) = match what.unwrap_or(0) {
            0 => {
                let hash_key = format!("{}", u128::MAX / 256 * u128::from(number));
                ("SplitShard", json!({"ShardToSplit": shard_id, "NewStartingHashKey": hash_key}))
            }
            1 => {
                let other = format!("shardId-{:012}", number % 16);
                ("MergeShards", json!({"ShardToMerge": shard_id, "AdjacentShardToMerge": other}))
            }
            2 => ("UpdateShardCount", json!({"TargetShardCount": number % 8, "ScalingType": "UNIFORM_SCALING"})),
            3 => ("IncreaseStreamRetentionPeriod", json!({"RetentionPeriodHours": u32::from(number) * 8})),
            4 => ("AddTagsToStream", json!({"Tags": {(shard_id): "value"}})),
            5 => ("DescribeStream", json!({"Limit": number})),
            6 => (
                "ListShards",
                json!({"MaxResults": number, "ShardFilter": {"Type": "AFTER_SHARD_ID", "ShardId": shard_id}}),
            ),
            _ => ("DescribeStreamSummary", json!({})),
        };
        body["StreamName"] = "s".into();
        self.ask(operation, &body);
    }

    /// Every shard from its beginning to its end, or to the tail.
    fn expect_all(&self) {
        let mut read = BTreeSet::new();
        let shards = self.ask("ListShards", &json!({"StreamName": "s"})).unwrap();
        for shard in shards["Shards"].as_array().unwrap() {
            let start =
                json!({"StreamName": "s", "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"});
            let mut next = self.ask("GetShardIterator", &start).unwrap()["ShardIterator"].take();
            while !next.is_null() {
                let mut answer = self.ask("GetRecords", &json!({"ShardIterator": next, "Limit": 3})).unwrap();
                let records = answer["Records"].as_array().unwrap();
                let data = records.iter().map(|record| record["Data"].as_str().unwrap().to_owned());
                let is_empty = records.is_empty();
                read.extend(data);
                next = if is_empty { Value::Null } else { answer["NextShardIterator"].take() };
            }
        }
        assert_eq!(read, self.acknowledged);
    }
}
