//! A service on a simulated disk and a clock that stands still, and a client of it.

use std::sync::Arc;
use std::time::Duration;

use anabranch::{ManualClock, SimulatedDisk};
use anabranch_server::{Body, Service, ServiceOptions};
use bytes::Bytes;
use http::{Request, Response};
use serde_json::{Value, json};

pub(crate) const ACCOUNT: &str = "000000000000";
pub(crate) const AUTHORIZATION: &str =
    "AWS4-HMAC-SHA256 Credential=me/20260101/us-east-1/kinesis/aws4_request, SignedHeaders=host, Signature=00";

pub(crate) struct World {
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) disk: SimulatedDisk,
    pub(crate) service: Service,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(ServiceOptions::default())
    }

    pub(crate) fn with(options: ServiceOptions) -> Self {
        let (clock, disk) = (Arc::new(ManualClock::default()), SimulatedDisk::new());
        let service = Service::open_on("/data", options, clock.clone(), Arc::new(disk.clone())).unwrap();
        Self { clock, disk, service }
    }

    /// With a stream `s` of so many shards.
    pub(crate) fn with_stream(shards: u32) -> Self {
        let world = Self::new();
        world.ok("CreateStream", json!({"StreamName": "s", "ShardCount": shards}));
        world
    }

    pub(crate) fn advance(&self, millis: u64) {
        self.clock.advance(Duration::from_millis(millis));
    }

    pub(crate) fn send(&self, operation: &str, body: &Value) -> Response<Body> {
        self.service.respond(request(operation, body.to_string()))
    }

    /// The answer of a call that has to succeed; null where it is empty.
    pub(crate) fn ok(&self, operation: &str, body: Value) -> Value {
        let answer = self.send(operation, &body);
        let text = String::from_utf8_lossy(answer.body().bytes()).into_owned();
        assert_eq!(answer.status(), 200, "{operation} {body}: {text}");
        if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() }
    }

    /// The name and the text of a refusal.
    pub(crate) fn refusal(&self, operation: &str, body: Value) -> (String, String) {
        let answer = self.send(operation, &body);
        let document: Value = serde_json::from_slice(answer.body().bytes()).unwrap_or_default();
        assert_eq!(answer.status(), 400, "{operation} {body}: {document}");
        let text = |name: &str| document[name].as_str().map(str::to_owned);
        (text("__type").unwrap(), text("message").or(text("Message")).unwrap_or_default())
    }

    pub(crate) fn refused(&self, operation: &str, body: Value, kind: &str, message: &str) {
        assert_eq!(self.refusal(operation, body), (kind.to_owned(), message.to_owned()));
    }

    pub(crate) fn put(&self, key: &str, data: &str) -> Value {
        self.ok("PutRecord", json!({"StreamName": "s", "PartitionKey": key, "Data": base64(data)}))
    }

    pub(crate) fn iterator(&self, shard: &str, kind: &str) -> String {
        let body = json!({"StreamName": "s", "ShardId": shard, "ShardIteratorType": kind});
        self.ok("GetShardIterator", body)["ShardIterator"].as_str().unwrap().to_owned()
    }

    pub(crate) fn read(&self, iterator: &str) -> Value {
        self.ok("GetRecords", json!({"ShardIterator": iterator}))
    }

    /// The data of everything in a shard.
    pub(crate) fn all(&self, shard: &str) -> Vec<String> {
        data(&self.read(&self.iterator(shard, "TRIM_HORIZON")))
    }

    pub(crate) fn shards(&self, body: Value) -> Vec<String> {
        ids(&self.ok("ListShards", body))
    }
}

pub(crate) fn request(operation: &str, body: impl Into<Bytes>) -> Request<Bytes> {
    Request::post("/")
        .header("content-type", "application/x-amz-json-1.1")
        .header("x-amz-target", format!("Kinesis_20131202.{operation}"))
        .header("x-amz-date", "20260101T000000Z")
        .header("authorization", AUTHORIZATION)
        .body(body.into())
        .unwrap()
}

pub(crate) fn base64(data: impl AsRef<[u8]>) -> String {
    base64_simd::STANDARD.encode_to_string(data)
}

/// The data of the records of an answer.
pub(crate) fn data(answer: &Value) -> Vec<String> {
    let records = answer["Records"].as_array().unwrap();
    let text = |record: &Value| {
        String::from_utf8(base64_simd::STANDARD.decode_to_vec(record["Data"].as_str().unwrap()).unwrap()).unwrap()
    };
    records.iter().map(text).collect()
}

/// The ids of the shards of an answer, without their zeros.
pub(crate) fn ids(answer: &Value) -> Vec<String> {
    let shards = answer["Shards"].as_array().unwrap();
    shards.iter().map(|shard| shard["ShardId"].as_str().unwrap().replace("shardId-00000000000", "")).collect()
}

pub(crate) fn shard(number: u32) -> String {
    format!("shardId-{number:012}")
}

pub(crate) fn arn(name: &str) -> String {
    format!("arn:aws:kinesis:us-east-1:{ACCOUNT}:stream/{name}")
}
