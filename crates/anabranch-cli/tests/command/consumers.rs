//! Who reads a stream, who writes it, and how far they came.

use anabranch::{PutEntry, Stream};
use serde_json::Value;

use crate::support::Home;

fn json(home: &Home, arguments: &[&str]) -> Value {
    serde_json::from_slice(&home.ok(&[arguments, &["--json"]].concat()).stdout).unwrap()
}

#[test]
fn producers_are_listed_beside_the_writer() {
    let home = Home::with_stream(&["--shards", "2"]);
    assert_eq!(json(&home, &["producers", "s"]), serde_json::json!([]));
    let stream = Stream::builder().open_existing(home.path("s")).unwrap();
    stream.producer("idle").unwrap();
    stream.producer("busy").unwrap().put_batch(7, &[PutEntry::new("a", b"1"), PutEntry::new("b", b"2")]).unwrap();
    let listed = json(&home, &["producers", "s"]);
    assert_eq!(listed[0], serde_json::json!({"name": "busy", "epoch": 1, "lastBatch": 7}));
    assert_eq!(listed[1]["lastBatch"], Value::Null);
    let table = String::from_utf8(home.ok(&["producers", "s"]).stdout).unwrap();
    assert!(table.starts_with("PRODUCER") && table.contains("busy"), "{table}");
}

#[test]
fn consumers_are_listed_moved_and_deleted() {
    let home = Home::with_stream(&[]);
    let stream = Stream::builder().open_existing(home.path("s")).unwrap();
    let receipts: Vec<_> = (0..5).map(|index| stream.put("key", index.to_string()).unwrap()).collect();
    let lease = stream.consumer("billing").unwrap().take(receipts[0].shard_id, "worker-1").unwrap();
    lease.checkpoint_at(receipts[1].sequence_number).unwrap();

    let listed = json(&home, &["consumers", "s"]);
    let expected = serde_json::json!([{"consumer": "billing", "shardId": "shardId-000000000000",
        "position": "after:1", "owner": "worker-1", "epoch": 1, "recordsBehind": 3}]);
    assert_eq!(listed, expected);
    let table = String::from_utf8(home.ok(&["consumers", "s"]).stdout).unwrap();
    assert!(table.contains("after:1") && table.contains("worker-1"), "{table}");

    let moved = json(&home, &["checkpoint", "s", "billing", "--reset", "trim-horizon"]);
    assert_eq!((&moved[0]["position"], &moved[0]["recordsBehind"]), (&"trim-horizon".into(), &5.into()));
    assert!(lease.checkpoint_at(receipts[2].sequence_number).is_err(), "its worker has lost the shard");
    let moved = json(&home, &["checkpoint", "s", "billing", "--reset", "latest", "--shard", "0"]);
    assert_eq!(moved[0]["recordsBehind"], 0);
    assert_eq!(json(&home, &["checkpoint", "s", "billing"]), moved);

    for wrong in [
        &["checkpoint", "s", "biling"][..],
        &["checkpoint", "s", "billing", "--shard", "9"],
        &["checkpoint", "s", "billing", "--reset", "at:1"],
        &["checkpoint", "s", "../billing", "--delete"],
        &["checkpoint", "s", "billing", "--delete", "--reset", "latest"],
    ] {
        let done = home.run(wrong);
        assert!(done.is_code(2), "{wrong:?} {done:?}");
    }
    assert_eq!(json(&home, &["consumers", "s"]).as_array().unwrap().len(), 1, "a misspelt name makes none");
    home.ok(&["checkpoint", "s", "billing", "--delete"]);
    assert_eq!(json(&home, &["consumers", "s"]), serde_json::json!([]));
}
