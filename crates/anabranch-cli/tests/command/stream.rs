//! Everything about a stream but its records' way in and out.

use std::ops::Range;

use serde_json::Value;

use crate::support::{Home, lines, text};

#[test]
fn order_of_a_key_survives_every_split_and_merge() {
    let home = Home::with_stream(&["--shards", "2"]);
    let put = |range: Range<u32>| home.ok_with(&["put", "s", "--key-field", "1"], &keyed(range));
    put(0..50);
    let children = shards(&home.ok(&["split", "s", "0", "--json"]).stdout);
    assert_eq!(children, ["shardId-000000000002", "shardId-000000000003"]);
    put(50..100);
    assert_eq!(shards(&home.ok(&["merge", "s", "3", "1", "--json"]).stdout), ["shardId-000000000004"]);
    put(100..150);
    assert_eq!(shards(&home.ok(&["scale", "s", "5", "--json"]).stdout).len(), 5);
    put(150..200);
    assert_eq!(shards(&home.ok(&["scale", "s", "1", "--json"]).stdout).len(), 1);
    put(200..250);

    let got = String::from_utf8(home.ok(&["get", "s"]).stdout).unwrap();
    assert_eq!(got.lines().count(), 250);
    for key in 0..10 {
        let prefix = format!("key{key} ");
        let numbers: Vec<u32> = got.lines().filter_map(|line| line.strip_prefix(&prefix)?.parse().ok()).collect();
        assert_eq!(numbers.len(), 25);
        assert!(numbers.is_sorted(), "{prefix}{numbers:?}");
    }

    let listed = home.ok(&["shards", "s"]);
    let table = String::from_utf8(listed.stdout).unwrap();
    assert!(table.starts_with("SHARD"), "{table}");
    assert!(table.contains("3+1") && table.contains("closed") && table.contains("open"), "{table}");
    assert!(home.run(&["split", "s", "0"]).code != Some(0), "a closed shard does not split");
    assert!(home.ok(&["verify", "s"]).stdout.starts_with(b"shards"));
}

#[test]
fn a_split_can_name_its_hash_key() {
    let home = Home::with_stream(&[]);
    let split = home.ok(&["split", "s", "0", "--at", "1000", "--json"]);
    let children: Value = serde_json::from_slice(&split.stdout).unwrap();
    assert_eq!(children[0]["hashKeyRange"]["endingHashKey"], "999");
    assert_eq!(children[1]["hashKeyRange"]["startingHashKey"], "1000");
}

#[test]
fn options_are_kept_and_shown() {
    let home = Home::new();
    let created = home.ok(&[
        "create",
        "s",
        "--shards",
        "3",
        "--retention",
        "7d",
        "--retention-bytes",
        "10GiB",
        "--segment-bytes",
        "1MiB",
        "--durability",
        "buffered",
        "--hash",
        "md5",
        "--max-data-bytes",
        "32MiB",
        "--flush-interval",
        "250ms",
        "--flush-bytes",
        "1MiB",
        "--json",
    ]);
    let description: Value = serde_json::from_slice(&created.stdout).unwrap();
    for (field, value) in [
        ("retentionMillis", 604_800_000_u64),
        ("retentionBytes", 10 << 30),
        ("segmentBytes", 1 << 20),
        ("maxDataBytes", 32 << 20),
        ("flushIntervalMillis", 250),
        ("flushBytes", 1 << 20),
        ("openShards", 3),
    ] {
        assert_eq!(description[field], value, "{field}");
    }
    assert_eq!(description["durability"], "buffered");
    assert_eq!(description["partitionHash"], "md5");
    let again: Value = serde_json::from_slice(&home.ok(&["describe", "s", "--json"]).stdout).unwrap();
    assert_eq!(again["streamId"], description["streamId"]);
    let table = String::from_utf8(home.ok(&["describe", "s"]).stdout).unwrap();
    assert!(table.contains("3 open, 0 closed") && table.contains("7d"), "{table}");

    let second = home.run(&["create", "s"]);
    assert!(second.is_code(3) && second.stderr.starts_with("anabranch: "), "{second:?}");
}

#[test]
fn retention_changes_and_trims() {
    let home = Home::with_stream(&[]);
    let shown = |arguments: &[&str]| -> Value {
        let all = [&["retention", "s", "--json"], arguments].concat();
        serde_json::from_slice(&home.ok(&all).stdout).unwrap()
    };
    assert_eq!(shown(&[])["retentionMillis"], 86_400_000);
    assert_eq!(shown(&["--increase", "48h"])["retentionMillis"], 172_800_000);
    assert_eq!(shown(&["--decrease", "24h"])["retentionMillis"], 86_400_000);
    assert_eq!(shown(&["--bytes", "1GiB"])["retentionBytes"], 1 << 30);
    assert_eq!(shown(&["--bytes", "none"])["retentionBytes"], Value::Null);
    assert!(home.run(&["retention", "s", "--increase", "1h"]).code != Some(0));
    assert_eq!(home.run(&["retention", "s", "--increase", "9d", "--decrease", "1h"]).code, Some(2));

    home.ok_with(&["put", "s"], &lines(0..10));
    home.ok(&["trim", "s"]);
    assert_eq!(home.ok(&["get", "s"]).stdout, lines(0..10), "nothing is past its retention");
    home.ok(&["trim", "s", "--shard", "0", "--before", "4"]);
    assert_eq!(home.ok(&["get", "s"]).stdout, lines(4..10));
    let below = home.run(&["get", "s", "--shard", "0", "--from", "at:2"]);
    assert!(below.is_code(3) && below.stderr.contains("hint: ") && below.stderr.contains("at:4"), "{below:?}");
}

#[test]
fn verify_tells_damage_by_its_exit_code() {
    let home = Home::with_stream(&[]);
    home.ok_with(&["put", "s"], &lines(0..1_000));
    let sound: Value = serde_json::from_slice(&home.ok(&["verify", "s", "--json"]).stdout).unwrap();
    assert_eq!((&sound["sound"], &sound["records"]), (&Value::Bool(true), &Value::from(1_000)));

    home.flip_a_byte_of_a_segment();
    let damaged = home.run(&["verify", "s"]);
    assert!(damaged.is_code(1), "{damaged:?}");
    assert!(String::from_utf8_lossy(&damaged.stdout).contains("damage: "), "{damaged:?}");
    let damaged: Value = serde_json::from_slice(&home.run(&["verify", "s", "--json"]).stdout).unwrap();
    assert_eq!(damaged["sound"], false);
    assert_eq!(damaged["damage"][0]["shardId"], "shardId-000000000000");
    let read = home.run(&["get", "s"]);
    assert!(read.is_code(1) && read.stderr.contains("hint: `anabranch verify DIR`"), "{read:?}");
}

#[test]
fn damage_is_salvaged_and_repaired() {
    let home = Home::with_stream(&[]);
    home.ok_with(&["put", "s"], &lines(0..1_000));
    assert_eq!(home.ok(&["salvage", "s"]).stdout, lines(0..1_000));
    home.flip_a_byte_of_a_segment();
    let salvaged = home.run(&["salvage", "s"]);
    assert!(salvaged.is_code(1) && salvaged.stderr.contains("lost: sequence numbers "), "{salvaged:?}");

    let repaired = home.ok(&["verify", "s", "--repair"]);
    let text = String::from_utf8_lossy(&repaired.stdout).into_owned();
    assert!(text.contains("set aside: ") && text.contains("repaired: "), "{text}");
    assert!(home.path("s/damaged/1").is_dir());
    let read = home.ok(&["get", "s"]);
    assert_eq!(read.stdout, salvaged.stdout, "what was sound is there");
    assert!(read.stderr.contains("are lost"), "and what is not, is told: {read:?}");
    let again: Value = serde_json::from_slice(&home.ok(&["verify", "s", "--repair", "--json"]).stdout).unwrap();
    assert_eq!((&again["sound"], &again["repair"]), (&Value::Bool(true), &Value::Null));
    assert_eq!(again["lost"][0]["shardId"], "shardId-000000000000");
}

/// `keyK N` with ten keys in turn.
fn keyed(range: Range<u32>) -> Vec<u8> {
    range.flat_map(|number| format!("key{} {number}\n", number % 10).into_bytes()).collect()
}

fn shards(json: &[u8]) -> Vec<String> {
    let shards: Value = serde_json::from_slice(json).unwrap();
    let ids = shards.as_array().unwrap().iter().map(|shard| text(&shard["shardId"]).to_owned());
    ids.collect()
}
