//! CBOR, and bodies that are nothing: no bytes make the service panic.

use anabranch_server::Body;
use http::Response;
use proptest::prelude::*;

use crate::support::{World, request, shard};

fn cbor(world: &World, operation: &str, body: &[u8]) -> Response<Body> {
    let mut request = request(operation, body.to_vec());
    request.headers_mut().insert("content-type", "application/x-amz-cbor-1.1".parse().unwrap());
    world.service.respond(request)
}

fn text(text: &str) -> Vec<u8> {
    let mut bytes = if text.len() < 24 {
        vec![0x60 + u8::try_from(text.len()).unwrap()]
    } else {
        vec![0x78, u8::try_from(text.len()).unwrap()]
    };
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

#[test]
#[allow(clippy::big_endian_bytes, reason = "as CBOR has them")]
fn cbor_has_bytes_as_bytes_and_times_as_milliseconds() {
    let world = World::with_stream(1);
    world.advance(1_480);
    let mut put = vec![0xbf]; // of indefinite length, as Jackson writes it
    for (name, value) in [("StreamName", text("s")), ("PartitionKey", text("a")), ("Data", vec![0x43, 0, 255, 7])]
    {
        put.extend(text(name));
        put.extend(value);
    }
    put.push(0xff);
    let answer = cbor(&world, "PutRecord", &put);
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["content-type"]),
        (200, &"application/x-amz-cbor-1.1".parse().unwrap())
    );
    let mut iterator = vec![0xa4];
    let millis: u64 = 1_767_225_601_480;
    let time = [vec![0xc1, 0x1b], millis.to_be_bytes().to_vec()].concat();
    for (name, value) in [
        ("StreamName", text("s")),
        ("ShardId", text(&shard(0))),
        ("ShardIteratorType", text("AT_TIMESTAMP")),
        ("Timestamp", time.clone()),
    ] {
        iterator.extend(text(name));
        iterator.extend(value);
    }
    let answer = cbor(&world, "GetShardIterator", &iterator);
    assert_eq!(answer.status(), 200);
    let records = cbor(&world, "GetRecords", answer.body().bytes());
    let bytes = records.body().bytes();
    let holds = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
    assert!(holds(&[text("Data"), vec![0x43, 0, 255, 7]].concat()), "{bytes:x?}");
    assert!(holds(&[text("ApproximateArrivalTimestamp"), time[1..].to_vec()].concat()), "{bytes:x?}");
    let refusal = cbor(&world, "DescribeStreamSummary", &[vec![0xa1], text("StreamName"), text("t")].concat());
    let kind = [text("__type"), text("ResourceNotFoundException")].concat();
    assert!(refusal.body().bytes().windows(kind.len()).any(|window| window == kind));
}

const OPERATIONS: [&str; 6] =
    ["PutRecord", "PutRecords", "GetRecords", "GetShardIterator", "ListShards", "CreateStream"];

fn json_value() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::{Value, json};
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|value| json!(value)),
        "[a-zA-Z0-9=+/ é-]{0,20}".prop_map(Value::from),
        Just(json!("s")),
    ];
    let name = prop_oneof![
        Just("StreamName"),
        Just("Data"),
        Just("PartitionKey"),
        Just("Records"),
        Just("ShardId"),
        Just("ShardFilter"),
        Just("Timestamp"),
        Just("ShardIteratorType"),
        Just("ShardIterator"),
        Just("NextToken"),
        Just("ShardCount"),
        Just("Type"),
        Just("ExplicitHashKey"),
        Just("Limit"),
    ];
    leaf.prop_recursive(3, 40, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(name.clone(), inner, 0..8).prop_map(|map| Value::Object(
                map.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
            )),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_are_a_panic_or_a_failure_of_the_server(bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 8), which in 0..6_usize) {
        let world = World::with_stream(1);
        for body in bodies {
            let status = cbor(&world, OPERATIONS[which], &body).status();
            prop_assert!(status.as_u16() < 500, "{body:x?}");
            let status = world.service.respond(request(OPERATIONS[which], body.clone())).status();
            prop_assert!(status.as_u16() < 500, "{body:x?}");
        }
    }

    #[test]
    fn no_document_is_a_panic_or_a_failure_of_the_server(documents in prop::collection::vec(json_value(), 16), which in 0..6_usize) {
        let world = World::with_stream(1);
        for document in documents {
            let status = world.service.respond(request(OPERATIONS[which], document.to_string())).status();
            prop_assert!(status.as_u16() < 500, "{document}");
        }
    }
}
