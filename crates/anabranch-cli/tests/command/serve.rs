//! `serve`: what it says, how it ends, and what a kill leaves.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Child;

use crate::support::{Home, finish, interrupt};

fn start(home: &Home) -> (Child, String) {
    start_with(home, &[], &[])
}

fn start_with(home: &Home, options: &[&str], variables: &[(&str, &str)]) -> (Child, String) {
    let arguments = ["serve", "--data", "data", "--port", "0", "--create", "s:2"];
    let mut child = home.spawn_with(&[&arguments, options].concat(), variables);
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("http://").map(str::to_owned);
    (child, address.unwrap_or_else(|| panic!("{line:?}")))
}

fn call(address: &str, operation: &str, body: &str) -> String {
    let mut socket = TcpStream::connect(address).unwrap();
    let length = body.len();
    write!(
        socket,
        "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/x-amz-json-1.1\r\ncontent-length: {length}\r\n\
         x-amz-date: 20260101T000000Z\r\nx-amz-target: Kinesis_20131202.{operation}\r\nauthorization: AWS4-HMAC-SHA256 \
         Credential=me/20260101/us-east-1/kinesis/aws4_request, SignedHeaders=host, Signature=00\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

fn put(address: &str, number: u32) {
    let hash_key = if number.is_multiple_of(2) { 0 } else { u128::MAX };
    let body = format!(
        r#"{{"StreamName": "s", "PartitionKey": "key-{number}", "Data": "", "ExplicitHashKey": "{hash_key}"}}"#
    );
    let answer = call(address, "PutRecord", &body);
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

fn keys(address: &str) -> usize {
    let of_shard = |shard: u32| {
        let ask = format!(r#"{{"StreamName": "s", "ShardId": "{shard}", "ShardIteratorType": "TRIM_HORIZON"}}"#);
        let iterator = call(address, "GetShardIterator", &ask);
        let (_, iterator) = iterator.split_once("\r\n\r\n").unwrap();
        call(address, "GetRecords", iterator).matches(r#""PartitionKey":"key-"#).count()
    };
    of_shard(0) + of_shard(1)
}

#[test]
fn a_server_that_is_killed_again_and_again_loses_nothing_that_it_acknowledged() {
    let home = Home::new();
    let mut acknowledged = 0;
    for _ in 0..4 {
        let (mut child, address) = start(&home);
        assert_eq!(keys(&address), acknowledged);
        for _ in 0..5 {
            put(&address, u32::try_from(acknowledged).unwrap());
            acknowledged += 1;
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let (child, address) = start(&home);
    assert_eq!(keys(&address), acknowledged);
    interrupt(&child);
    let done = finish(child);
    assert!(done.is_code(0), "{done:?}");
}

#[test]
fn a_second_server_of_a_directory_is_refused() {
    let home = Home::new();
    let (child, address) = start(&home);
    let done = home.run(&["serve", "--data", "data", "--port", "0"]);
    assert!(done.is_code(3) && done.stderr.contains("data is locked elsewhere"), "{done:?}");
    put(&address, 0);
    interrupt(&child);
    assert!(finish(child).is_code(0));
}

#[test]
fn the_year_of_the_service_is_an_option() {
    let home = Home::new();
    for (options, has_modes) in [(&[][..], true), (&["--profile", "2020"], false)] {
        let (child, address) = start_with(&home, options, &[]);
        let answer = call(&address, "DescribeStream", r#"{"StreamName": "s"}"#);
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.contains("StreamModeDetails") == has_modes,
            "{answer}"
        );
        interrupt(&child);
        assert!(finish(child).is_code(0));
    }
}

#[test]
fn who_may_ask_is_told_by_options_or_by_the_environment() {
    let home = Home::new();
    let others = "AKIDEXAMPLE:secret,AKIDOTHER:secret";
    for (options, variables, refusal) in [
        (vec!["--credentials", "AKIDEXAMPLE:secret"], vec![], "UnrecognizedClientException"),
        (vec![], vec![("ANABRANCH_CREDENTIALS", others)], "UnrecognizedClientException"),
        // Known, but its signature is a made-up one.
        (
            vec!["--credentials", "AKIDEXAMPLE:secret", "--credentials", "me:se:cret"],
            vec![],
            "InvalidSignatureException",
        ),
    ] {
        let (child, address) = start_with(&home, &options, &variables);
        let answer = call(&address, "ListStreams", "{}");
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains(refusal), "{options:?} {answer}");
        interrupt(&child);
        assert!(finish(child).is_code(0));
    }
    for wrong in ["hidden", "hidden:", ":hidden"] {
        let done =
            finish(home.spawn_with(&["serve", "--data", "d", "--port", "0"], &[("ANABRANCH_CREDENTIALS", wrong)]));
        assert!(done.is_code(2) && done.stderr.contains("a colon"), "{done:?}");
        assert!(!done.stderr.contains("hidden"), "{done:?}");
    }
}

#[test]
fn transitions_and_iterators_take_the_time_that_they_are_told() {
    let home = Home::new();
    let hour = "3600000";
    let (child, address) = start_with(&home, &["--transition-delay", hour, "--iterator-lifetime", "0"], &[]);
    assert!(
        call(&address, "DescribeStream", r#"{"StreamName": "s"}"#).contains("ACTIVE"),
        "it was there at the start"
    );
    call(&address, "CreateStream", r#"{"StreamName": "t", "ShardCount": 1}"#);
    assert!(call(&address, "DescribeStream", r#"{"StreamName": "t"}"#).contains("CREATING"));
    interrupt(&child);
    assert!(finish(child).is_code(0));
}

#[test]
fn wrong_use_is_told() {
    let home = Home::new();
    for (arguments, part) in [
        (vec!["--account", "1"], "twelve digits"),
        (vec!["--create", "a b:1"], "stream a b"),
        (vec!["--create", "a:x"], "no number of shards"),
        (vec!["--tls", "cert.pem"], "neither CERT.pem:KEY.pem nor self-signed"),
    ] {
        let done = home.run(&[vec!["serve", "--data", "d", "--port", "0"], arguments.clone()].concat());
        assert!(done.is_code(2) && done.stderr.contains(part), "{arguments:?} {done:?}");
    }
}

#[test]
fn a_certificate_is_told_and_kept() {
    let home = Home::new();
    let told = || {
        let mut child = home.spawn(&["serve", "--data", "data", "--port", "0", "--tls", "self-signed"]);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines.next().unwrap().unwrap();
        assert!(address.starts_with("https://127.0.0.1:"), "{address}");
        let certificate = lines.next().unwrap().unwrap();
        interrupt(&child);
        assert!(finish(child).is_code(0));
        let path = certificate.strip_prefix("certificate: ").unwrap().to_owned();
        std::fs::read_to_string(home.path(&path)).unwrap()
    };
    assert_eq!(told(), told());
    std::fs::write(home.path("data/tls/key.pem"), "nonsense").unwrap();
    let done = home.run(&["serve", "--data", "data", "--port", "0", "--tls", "self-signed"]);
    assert!(done.is_code(2) && done.stderr.contains("data/tls/key.pem"), "{done:?}");
    let done = home.run(&["serve", "--data", "data", "--port", "0", "--tls", "none.pem:data/tls/key.pem"]);
    assert!(done.is_code(3) && done.stderr.contains("none.pem"), "{done:?}");
}

#[test]
fn health_is_told_where_it_is_wanted() {
    let home = Home::new();
    let mut child = home.spawn(&["--json", "serve", "--data", "data", "--port", "0", "--health", "127.0.0.1:0"]);
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let told: serde_json::Value = serde_json::from_str(&line).unwrap();
    let address = told["health"].as_str().unwrap().strip_prefix("http://").unwrap();
    let mut socket = TcpStream::connect(address).unwrap();
    socket.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with(r#"{"status":"ok"}"#), "{answer}");
    interrupt(&child);
    assert!(finish(child).is_code(0));
}

#[test]
fn an_address_that_cannot_be_had_is_named() {
    let home = Home::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let done = home.run(&["serve", "--data", "d", "--port", "0", "--health", &address]);
    assert!(!done.is_code(0) && done.stderr.contains(&format!("health at {address}: ")), "{done:?}");
}
