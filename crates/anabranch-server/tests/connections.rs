//! Clients that are many, slow, half gone or too loud: others are served meanwhile, and memory stays within bounds.
//!
//! The server and its clients are one process. Its memory is what the system says of it, so that one test runs at a time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]
#![allow(clippy::print_stderr, reason = "a skipped test says why")]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anabranch_server::{Server, Service, ServiceOptions, limits};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const LIST: (&str, &str) = ("ListStreams", "{}");
const PUT: (&str, &str) = ("PutRecord", r#"{"StreamName": "s", "PartitionKey": "a", "Data": "aGVsbG8="}"#);
/// A client of HTTP/2 that is there and asks for nothing: the preface, and empty settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

struct Served {
    _alone: MutexGuard<'static, ()>,
    _directory: tempfile::TempDir,
    server: Option<Server>,
    address: SocketAddr,
}

impl Served {
    fn new() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = tempfile::tempdir().unwrap();
        let service = Service::open(directory.path(), ServiceOptions::default()).unwrap();
        service.create_stream("s", 1).unwrap();
        let server = Server::start(service, "127.0.0.1:0").unwrap();
        let address = server.address();
        Self { _alone: alone, _directory: directory, server: Some(server), address }
    }

    fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(120))).unwrap(); // far above what anything takes
        socket
    }

    /// Whoever comes new, puts and reads is answered.
    fn serves_others(&self) {
        for call in [PUT, LIST] {
            let mut socket = self.connect();
            socket.write_all(&request(call)).unwrap();
            assert!(answer(&mut socket).starts_with("HTTP/1.1 200 OK"));
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let stopped = self.server.take().map(Server::stop);
        assert!(std::thread::panicking() || stopped.is_some_and(|stopped| stopped.is_ok()));
    }
}

fn request((operation, body): (&str, &str)) -> Vec<u8> {
    format!("{}content-length: {}\r\n\r\n{body}", head(operation), body.len()).into_bytes()
}

fn head(operation: &str) -> String {
    format!(
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-amz-json-1.1\r\nx-amz-date: 20260101T000000Z\r\n\
         x-amz-target: Kinesis_20131202.{operation}\r\nauthorization: AWS4-HMAC-SHA256 Credential=me/20260101/us-east-1/kinesis/aws4_request, \
         SignedHeaders=host, Signature=00\r\n"
    )
}

/// The next answer on a connection: its head, and its body by its length.
fn answer(socket: &mut TcpStream) -> String {
    let (mut answer, mut byte) = (Vec::new(), [0]);
    while !answer.ends_with(b"\r\n\r\n") {
        socket.read_exact(&mut byte).unwrap();
        answer.extend(byte);
    }
    let head = String::from_utf8(answer).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    socket.read_exact(&mut body).unwrap();
    head + &String::from_utf8(body).unwrap()
}

/// Bytes of memory that the process has, where the system tells.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1_024)
}

fn within(most: u64, what: &str, work: impl FnOnce()) {
    let before = resident_bytes();
    work();
    let (Some(before), Some(after)) = (before, resident_bytes()) else {
        eprintln!("not measured: the system does not tell of memory");
        return;
    };
    let grown = after.saturating_sub(before);
    eprintln!("{what}: {} KiB", grown >> 10);
    assert!(grown <= most, "{what}: {grown} bytes, and {most} are fine");
}

/// Makes room for so many open files; whether there is.
fn may_open(files: u64) -> bool {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= files) {
        return true;
    }
    let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(files), maximum: limit.maximum });
    let may = getrlimit(Resource::Nofile).current.is_none_or(|current| current >= files);
    if !may {
        eprintln!("skipped: the process may open {:?} files, and {files} are needed", limit.maximum);
    }
    may
}

#[test]
fn two_thousand_idle_connections_cost_little_and_hold_up_nobody() {
    const CONNECTIONS: usize = 2_000;
    if !may_open(2 * CONNECTIONS as u64 + 500) {
        return;
    }
    let served = Served::new();
    served.serves_others();
    let mut idle = Vec::new();
    within(CONNECTIONS as u64 * (32 << 10), "2,000 idle connections", || {
        for index in 0..CONNECTIONS {
            let mut socket = served.connect();
            match index % 4 {
                0 => {} // it says nothing
                1 => socket.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-le").unwrap(),
                2 => socket.write_all(PREFACE).unwrap(),
                _ => {
                    socket.write_all(&request(LIST)).unwrap();
                    answer(&mut socket); // and it may ask again
                }
            }
            idle.push(socket);
        }
        served.serves_others();
    });
    let asks_again = idle.last_mut().unwrap();
    asks_again.write_all(&request(PUT)).unwrap();
    assert!(answer(asks_again).starts_with("HTTP/1.1 200 OK"));
}

#[test]
fn a_client_that_has_said_all_may_close_its_side_and_is_answered() {
    let served = Served::new();
    for _ in 0..20 {
        let mut socket = served.connect();
        socket.write_all(&request(PUT)).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("SequenceNumber"), "{answer}");
    }
}

#[test]
fn a_client_that_closes_its_side_in_the_middle_is_let_go() {
    let served = Served::new();
    let whole = request(PUT);
    for length in [0, 1, 20, whole.len() - 1] {
        let mut socket = served.connect();
        socket.write_all(&whole[..length]).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer); // it ends, with a refusal or without
        assert!(!String::from_utf8_lossy(&answer).contains("200 OK"), "{length}");
    }
    served.serves_others();
}

#[test]
fn slow_clients_hold_up_nobody_and_are_served_themselves() {
    let served = Served::new();
    let whole = request(PUT);
    let mut slow: Vec<_> = (0..50).map(|_| served.connect()).collect();
    for (index, byte) in whole.iter().enumerate() {
        for socket in &mut slow {
            socket.write_all(&[*byte]).unwrap();
        }
        if index % 40 == 0 {
            served.serves_others();
        }
    }
    for socket in &mut slow {
        assert!(answer(socket).starts_with("HTTP/1.1 200 OK"));
    }
}

#[test]
fn what_is_announced_and_does_not_come_takes_no_memory() {
    let served = Served::new();
    let count = limits::MAX_BODIES_BYTES / limits::MAX_BODY_BYTES - 1; // as many as have room together
    served.serves_others();
    let mut announced = Vec::new();
    within(16 << 20, "large bodies that are announced", || {
        for _ in 0..count {
            let mut socket = served.connect();
            let head = format!("{}content-length: {}\r\n\r\n{{", head("PutRecords"), limits::MAX_BODY_BYTES);
            socket.write_all(head.as_bytes()).unwrap();
            announced.push(socket);
        }
        served.serves_others();
    });
}

#[test]
fn bodies_that_are_too_large_are_refused_and_others_are_served() {
    let served = Served::new();
    let mut announcing = served.connect();
    let length = limits::MAX_BODY_BYTES + 1;
    announcing.write_all(format!("{}content-length: {length}\r\n\r\n", head("PutRecords")).as_bytes()).unwrap();
    assert!(answer(&mut announcing).starts_with("HTTP/1.1 413"), "before it has come");

    let mut streaming = served.connect(); // it never says how much will come
    streaming.write_all(format!("{}transfer-encoding: chunked\r\n\r\n", head("PutRecords")).as_bytes()).unwrap();
    let chunk = [b"100000\r\n".to_vec(), vec![b' '; 1 << 20], b"\r\n".to_vec()].concat();
    let mut sent = 0;
    while sent < 4 * limits::MAX_BODY_BYTES && streaming.write_all(&chunk).is_ok() {
        sent += 1 << 20;
        if sent % (8 << 20) == 0 {
            served.serves_others();
        }
    }
    assert!(sent < 4 * limits::MAX_BODY_BYTES, "it is cut off");
    served.serves_others();
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let served = Served::new();
    let mut socket = served.connect();
    let count = 200;
    let all: Vec<u8> = (0..count).flat_map(|_| request(PUT)).collect();
    socket.write_all(&all).unwrap();
    let numbers: Vec<String> = (0..count).map(|_| sequence_number(&answer(&mut socket))).collect();
    assert!(numbers.is_sorted() && numbers.len() == count); // they have as many digits
    served.serves_others();
}

fn sequence_number(answer: &str) -> String {
    let (_, rest) = answer.split_once(r#""SequenceNumber":""#).unwrap_or_else(|| panic!("{answer}"));
    rest.split('"').next().unwrap().to_owned()
}

#[test]
fn a_client_that_asks_and_does_not_listen_is_not_listened_to() {
    let served = Served::new();
    let data = "A".repeat(1 << 20);
    let put = format!(r#"{{"StreamName": "s", "PartitionKey": "a", "Data": "{data}"}}"#);
    let mut socket = served.connect();
    socket.write_all(&request(("PutRecord", &put))).unwrap();
    answer(&mut socket);
    let ask = r#"{"StreamName": "s", "ShardId": "0", "ShardIteratorType": "TRIM_HORIZON"}"#;
    socket.write_all(&request(("GetShardIterator", ask))).unwrap();
    let (_, iterator) =
        answer(&mut socket).split_once("\r\n\r\n").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();

    within(64 << 20, "a client that does not read", || {
        socket.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        let ask = request(("GetRecords", &iterator));
        let refused = (0..1_000_000).find_map(|_| socket.write_all(&ask).err());
        assert!(refused.is_some_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)));
        served.serves_others();
    });
}
