//! `put`: lines, keys, receipts and refusals.

use std::fs;

use serde_json::Value;

use crate::support::{Home, json_lines, lines, numbers, text};

#[test]
fn what_is_put_is_what_is_got() {
    let home = Home::with_stream(&[]);
    let input = b"one\n\n\xff\xfe\x00\ntwo\r\nlast";
    let put = home.run_with(&["put", "s", "--key", "k"], input);
    assert!(put.is_code(0) && put.stdout.is_empty(), "{put:?}");
    assert!(put.stderr.contains("put 5 records"), "{put:?}");
    assert_eq!(home.ok(&["get", "s"]).stdout, b"one\n\n\xff\xfe\x00\ntwo\r\nlast\n");

    let records = json_lines(&home.ok(&["get", "s", "--json"]).stdout);
    assert_eq!(numbers(&records), [0, 1, 2, 3, 4]);
    assert_eq!(records[1]["data"], "");
    assert_eq!(records[2]["dataBase64"], "//4A");
    assert_eq!(records[2]["data"], Value::Null);
    assert_eq!(records[4]["data"], "last");
    assert!(records.iter().all(|record| record["partitionKey"] == "k"));
    assert!(records.iter().all(|record| record["shardId"] == "shardId-000000000000"));
}

#[test]
fn files_are_put_in_order_and_each_ends_its_last_line() {
    let home = Home::with_stream(&[]);
    fs::write(home.path("a"), "a1\na2").unwrap();
    fs::write(home.path("b"), "b1\r\n").unwrap();
    home.ok_with(&["put", "s", "a", "-", "b", "--crlf", "--key-file-name"], b"i1\n");
    let records = json_lines(&home.ok(&["get", "s", "--json"]).stdout);
    let seen: Vec<_> =
        records.iter().map(|record| (text(&record["partitionKey"]), text(&record["data"]))).collect();
    assert_eq!(seen, [("a", "a1"), ("a", "a2"), ("-", "i1"), ("b", "b1")]);
}

#[test]
fn keys_come_from_fields_patterns_and_the_line() {
    for (options, keys) in [
        (&["--key-field", "2"][..], ["bob", "cy"]),
        (&["--key-field", "1", "--delimiter", ","][..], ["x  bob 1", "y cy 2"]),
        (&["--key-regex", "([a-z]+) ([0-9])"][..], ["bob", "cy"]),
        (&["--key-regex", "[0-9]"][..], ["1", "2"]),
        (&["--key", "all"][..], ["all", "all"]),
    ] {
        let home = Home::with_stream(&[]);
        home.ok_with(&[&["put", "s"][..], options].concat(), b"x  bob 1\ny cy 2\n");
        let records = json_lines(&home.ok(&["get", "s", "--json"]).stdout);
        let found: Vec<_> = records.iter().map(|record| text(&record["partitionKey"])).collect();
        assert_eq!(found, keys, "{options:?}");
    }
}

#[test]
fn without_a_key_option_lines_spread_over_the_shards() {
    let home = Home::with_stream(&["--shards", "4"]);
    let put = home.ok_with(&["put", "s", "--json", "--batch", "7"], &lines(0..100));
    let summary = json_lines(&put.stdout).remove(0);
    assert_eq!(summary["records"], 100);
    assert_eq!(summary["complete"], true);
    assert_eq!(summary["shards"].as_array().map(Vec::len), Some(4));
    let mut got: Vec<_> = home.ok(&["get", "s"]).stdout.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    let mut put: Vec<_> = lines(0..100).split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    got.sort();
    put.sort();
    assert_eq!(got, put);
}

#[test]
fn a_line_without_a_key_stops_the_put_where_the_message_says() {
    let home = Home::with_stream(&[]);
    let input = b"a 1\nb 2\nlonely\nc 3\n";
    let put = home.run_with(&["put", "s", "--key-field", "2"], input);
    assert!(put.is_code(3) && put.stderr.contains("anabranch: -:3: "), "{put:?}");
    assert!(put.stderr.contains("put 2 records"), "{put:?}");
    assert_eq!(home.ok(&["get", "s"]).stdout, b"a 1\nb 2\n");

    let skipped = home.ok_with(&["put", "s", "--key-field", "2", "--bad-key", "skip"], input);
    assert!(skipped.stderr.contains("put 3 records") && skipped.stderr.contains("skipped 1"), "{skipped:?}");
    let hashed = home.ok_with(&["put", "s", "--key-field", "2", "--bad-key", "hash"], input);
    assert!(hashed.stderr.contains("put 4 records"), "{hashed:?}");
}

#[test]
fn a_line_beyond_the_limit_is_refused_and_those_before_it_are_there() {
    let home = Home::with_stream(&["--max-data-bytes", "1KiB"]);
    for tail in ["\nafter\n", ""] {
        let input = format!("fits\n{}{tail}", "x".repeat(1_025));
        let put = home.run_with(&["put", "s"], input.as_bytes());
        assert!(put.is_code(3) && put.stderr.contains("-:2: "), "{put:?}");
    }
    // A line whose end never comes is refused as well, before it fills the memory.
    let put = home.run_with(&["put", "s"], &vec![b'x'; 1 << 20]);
    assert!(put.is_code(3) && put.stderr.contains("-:1: "), "{put:?}");
    assert_eq!(home.ok(&["get", "s"]).stdout, b"fits\nfits\n");

    let missing = home.run(&["put", "s", "nowhere.log"]);
    assert!(missing.is_code(3) && missing.stderr.contains("nowhere.log"), "{missing:?}");
}

#[test]
fn receipts_name_each_record() {
    let home = Home::new();
    let put = home
        .ok_with(&["put", "s", "--create", "--receipts", "--durability", "synced", "--batch", "2"], &lines(0..5));
    let receipts = json_lines(&put.stdout);
    assert_eq!(numbers(&receipts), [0, 1, 2, 3, 4]);
    let records = json_lines(&home.ok(&["get", "s", "--json"]).stdout);
    for (receipt, record) in receipts.iter().zip(&records) {
        for field in ["shardId", "sequenceNumber", "arrival"] {
            assert_eq!(receipt[field], record[field]);
        }
    }
}

#[test]
fn an_explicit_hash_key_picks_the_shard() {
    let home = Home::with_stream(&["--shards", "2"]);
    for (hash_key, shard) in [("0", "0"), ("340282366920938463463374607431768211455", "1")] {
        home.ok_with(&["put", "s", "--hash-key", hash_key], b"x\ny\nz\n");
        assert_eq!(home.ok(&["get", "s", "--shard", shard]).stdout, b"x\ny\nz\n");
    }
}

#[test]
fn quiet_means_quiet() {
    let home = Home::with_stream(&[]);
    let put = home.ok_with(&["put", "s", "--quiet", "--durability", "buffered"], b"x\n");
    assert!(put.stdout.is_empty() && put.stderr.is_empty(), "{put:?}");
}
