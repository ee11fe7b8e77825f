//! What a port adds: HTTP/1.1, HTTP/2 that begins with its preface, bounds on bodies, an end.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anabranch::Durability;
use anabranch_server::{Server, Service, ServiceOptions, limits};

use crate::support::{AUTHORIZATION, arn};

fn start(directory: &tempfile::TempDir) -> Server {
    let service = Service::open(directory.path(), ServiceOptions::default()).unwrap();
    service.create_stream("s", 1).unwrap();
    Server::start(service, "127.0.0.1:0").unwrap()
}

fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap(); // far above what anything takes
    socket
}

fn head(operation: &str, length: usize) -> String {
    format!(
        "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/x-amz-json-1.1\r\nx-amz-date: 20260101T000000Z\r\n\
         x-amz-target: Kinesis_20131202.{operation}\r\nauthorization: {AUTHORIZATION}\r\ncontent-length: {length}\r\n\r\n"
    )
}

fn exchange(address: SocketAddr, operation: &str, body: &str) -> String {
    let mut socket = connect(address);
    socket.write_all(format!("{}{body}", head(operation, body.len())).as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

const PUT: &str = r#"{"StreamName": "s", "PartitionKey": "a", "Data": "aGVsbG8="}"#;

#[test]
fn what_is_put_through_a_port_is_there_after_it_was_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let server = start(&directory);
    let answer = exchange(server.address(), "PutRecord", PUT);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("x-amzn-requestid: "), "{answer}");
    server.stop().unwrap();
    let server = start(&directory);
    let iterator = exchange(
        server.address(),
        "GetShardIterator",
        r#"{"StreamName": "s", "ShardId": "0", "ShardIteratorType": "TRIM_HORIZON"}"#,
    );
    let (_, body) = iterator.split_once("\r\n\r\n").unwrap();
    assert!(exchange(server.address(), "GetRecords", body).contains("aGVsbG8="));
    server.stop().unwrap();
}

/// Its streams keep the durability that they were made with, so that puts to some wait for the disk.
#[test]
fn a_buffered_server_takes_puts_to_streams_of_both_kinds_that_are_not_open_yet() {
    let directory = tempfile::tempdir().unwrap();
    start(&directory).stop().unwrap();
    let options = ServiceOptions { durability: Durability::Buffered, ..ServiceOptions::default() };
    for round in 0..2 {
        let service = Service::open(directory.path(), options.clone()).unwrap();
        service.create_stream("buffered", 1).unwrap();
        let server = Server::start(service, "127.0.0.1:0").unwrap();
        let put = PUT.replace(r#""s""#, "\"buffered\"");
        std::thread::scope(|scope| {
            for body in [PUT, &put].repeat(4) {
                let address = server.address();
                scope.spawn(move || {
                    let answer = exchange(address, "PutRecord", body);
                    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{round}: {answer}");
                });
            }
        });
        server.stop().unwrap();
    }
}

#[test]
fn a_client_may_begin_with_http_2() {
    let directory = tempfile::tempdir().unwrap();
    let server = start(&directory);
    let mut socket = connect(server.address());
    // The preface, and an empty SETTINGS frame.
    socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    let mut frame = [0; 9];
    socket.read_exact(&mut frame).unwrap();
    assert_eq!(frame[3], 4, "SETTINGS are the first that a server of HTTP/2 says: {frame:?}");
    drop(socket);
    server.stop().unwrap();
}

#[test]
fn a_body_that_is_too_large_is_refused_and_the_next_request_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let server = start(&directory);
    let mut socket = connect(server.address());
    socket.write_all(head("PutRecord", limits::MAX_BODY_BYTES + 1).as_bytes()).unwrap();
    let chunk = vec![b' '; 1 << 20];
    while socket.write_all(&chunk).is_ok() {} // until it is cut off
    let half = connect(server.address()); // one that says nothing, and one that goes away in the middle
    let mut gone = connect(server.address());
    gone.write_all(b"POST / HTTP/1.1\r\ncontent-le").unwrap();
    drop(gone);
    assert!(exchange(server.address(), "PutRecord", PUT).starts_with("HTTP/1.1 200 OK\r\n"));
    drop(half);
    server.stop().unwrap();
}

#[test]
fn a_subscription_pushes_what_is_put_meanwhile() {
    let directory = tempfile::tempdir().unwrap();
    let server = start(&directory);
    let register = format!(r#"{{"StreamARN": "{}", "ConsumerName": "c"}}"#, arn("s"));
    let registered = exchange(server.address(), "RegisterStreamConsumer", &register);
    let (_, body) = registered.split_once("\r\n\r\n").unwrap();
    let consumer = serde_json::from_str::<serde_json::Value>(body).unwrap()["Consumer"]["ConsumerARN"].clone();
    let subscribe =
        format!(r#"{{"ConsumerARN": {consumer}, "ShardId": "0", "StartingPosition": {{"Type": "LATEST"}}}}"#);
    let mut socket = connect(server.address());
    socket.write_all(format!("{}{subscribe}", head("SubscribeToShard", subscribe.len())).as_bytes()).unwrap();
    read_until(&mut socket, "SubscribeToShardEvent"); // it is at the tail
    exchange(server.address(), "PutRecord", PUT);
    read_until(&mut socket, "aGVsbG8=");
    exchange(server.address(), "DeregisterStreamConsumer", &format!(r#"{{"ConsumerARN": {consumer}}}"#));
    read_until(&mut socket, "ResourceNotFoundException");
    socket.read_to_end(&mut Vec::new()).unwrap(); // it ends
    server.stop().unwrap();
}

fn read_until(socket: &mut TcpStream, text: &str) {
    let (mut seen, mut byte) = (Vec::new(), [0]);
    while !seen.ends_with(text.as_bytes()) {
        socket.read_exact(&mut byte).unwrap();
        seen.extend(byte);
    }
}

#[test]
fn a_huge_value_is_not_sent_back() {
    let directory = tempfile::tempdir().unwrap();
    let server = start(&directory);
    let name = "a b".repeat(limits::MAX_BODY_BYTES / 4);
    for body in [
        format!(r#"{{"StreamName": "{name}", "PartitionKey": "a", "Data": ""}}"#),
        format!(r#"{{"StreamName": "s", "PartitionKey": "a", "Data": "{name}"}}"#),
    ] {
        let answer = exchange(server.address(), "PutRecord", &body);
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("'a ba b"), "{}", answer.len());
        assert!(answer.len() < 8 * limits::MAX_PRINTED_CHARS, "{}", answer.len());
    }
    server.stop().unwrap();
}
