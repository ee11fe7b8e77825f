//! Calls that wait for records of a queue, through a port: the clock is the test's, so that only it ends a wait.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anabranch::{ManualClock, SimulatedDisk};
use anabranch_server::{Server, Service, ServiceOptions};
use serde_json::{Value, json};

use crate::support::{AUTHORIZATION, arn, base64};

struct Port {
    clock: Arc<ManualClock>,
    service: Service,
    server: Server,
    address: SocketAddr,
    queue: String,
}

/// With a stream `s` and a queue of it.
fn port() -> Port {
    let clock = Arc::new(ManualClock::default());
    let service =
        Service::open_on("/data", ServiceOptions::default(), clock.clone(), Arc::new(SimulatedDisk::new()))
            .unwrap();
    let server = Server::start(service.clone(), "127.0.0.1:0").unwrap();
    let address = server.address();
    ask(address, "CreateStream", json!({"StreamName": "s", "StreamModeDetails": {"StreamMode": "ON_DEMAND"}}));
    let create = json!({"QueueName": "mails", "StreamConfigurationList": [{"StreamARN": arn("s")}]});
    let (_, created) = ask(address, "CreateQueue", create);
    let queue = created["QueueDescription"]["QueueARN"].as_str().unwrap().to_owned();
    Port { clock, service, server, address, queue }
}

/// The status and the document of an answer.
fn ask(address: SocketAddr, operation: &str, body: Value) -> (u16, Value) {
    listen(connect(address, operation, &body))
}

/// A connection on which something was asked.
fn connect(address: SocketAddr, operation: &str, body: &Value) -> TcpStream {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(120))).unwrap(); // far above what anything takes
    say(&mut socket, "connection: close\r\n", operation, body);
    socket
}

fn say(socket: &mut TcpStream, header: &str, operation: &str, body: &Value) {
    let body = body.to_string();
    let head = format!(
        "POST / HTTP/1.1\r\nhost: x\r\n{header}content-type: application/x-amz-json-1.1\r\nx-amz-date: 20260101T000000Z\r\n\
         x-amz-target: Kinesis_20131202.{operation}\r\nauthorization: {AUTHORIZATION}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(head.as_bytes()).unwrap();
}

fn listen(mut socket: TcpStream) -> (u16, Value) {
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap_or_default())
}

impl Port {
    fn receive(&self, operation: &'static str, wait: u32) -> JoinHandle<(u16, Value)> {
        let (address, body) = (self.address, json!({"QueueARN": self.queue, "WaitTimeSeconds": wait}));
        thread::spawn(move || ask(address, operation, body))
    }

    fn put(&self, data: &str) {
        let record = json!({"StreamName": "s", "PartitionKey": "a", "Data": base64(data)});
        assert_eq!(ask(self.address, "PutRecord", record).0, 200);
    }

    /// Returns once so many calls wait.
    fn until_waiting(&self, count: usize) {
        let line = format!("anabranch_waiting_receives {count}");
        for _ in 0..6_000 {
            let metrics = self.service.observe(&http::Request::get("/metrics").body(()).unwrap());
            if String::from_utf8_lossy(metrics.body().bytes()).lines().any(|found| found == line) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("there never are {count}");
    }
}

fn data(answer: &(u16, Value)) -> Vec<String> {
    assert_eq!(answer.0, 200, "{answer:?}");
    let records = answer.1["QueueRecords"].as_array().unwrap();
    records.iter().map(|record| record["Data"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_call_that_waits_is_answered_with_what_is_put() {
    let port = port();
    let waiting = port.receive("ReceiveQueueRecords", 20);
    port.until_waiting(1);
    port.put("one");
    assert_eq!(data(&waiting.join().unwrap()), [base64("one")]);
    // One of two gets it, the other goes on waiting.
    let both = [port.receive("ReceiveQueueRecords", 20), port.receive("ReceiveQueueRecords", 20)];
    port.until_waiting(2);
    port.put("two");
    port.until_waiting(1);
    port.put("three");
    let mut all: Vec<_> = both.into_iter().flat_map(|waiting| data(&waiting.join().unwrap())).collect();
    all.sort_unstable();
    assert_eq!(all, [base64("three"), base64("two")]);
    port.server.stop().unwrap();
}

#[test]
fn a_call_waits_for_what_becomes_visible_and_for_dead_letters_too() {
    let port = port();
    let attributes = json!({"DeadLetterConfiguration": {"TargetType": "BUILT_IN", "MaxReceiveCount": 2}});
    ask(port.address, "UpdateQueue", json!({"QueueARN": port.queue, "QueueAttributes": attributes}));
    port.put("one");
    assert_eq!(data(&port.receive("ReceiveQueueRecords", 1).join().unwrap()).len(), 1);
    port.clock.advance(Duration::from_secs(25));
    let (alive, dead) =
        (port.receive("ReceiveQueueRecords", 20), port.receive("ReceiveDeadLetterQueueRecords", 20));
    port.until_waiting(2);
    port.clock.advance(Duration::from_secs(5));
    assert_eq!(data(&alive.join().unwrap()), [base64("one")]);
    port.clock.advance(Duration::from_secs(14));
    port.until_waiting(1);
    port.clock.advance(Duration::from_secs(1));
    assert_eq!(data(&dead.join().unwrap()), [""; 0], "its time is over");
    port.clock.advance(Duration::from_secs(10));
    let dead = port.receive("ReceiveDeadLetterQueueRecords", 20);
    port.until_waiting(1);
    port.clock.advance(Duration::from_secs(5));
    assert_eq!(data(&dead.join().unwrap()), [base64("one")]);
    port.server.stop().unwrap();
}

#[test]
fn a_wait_ends_with_its_time_its_queue_and_the_server() {
    let port = port();
    let waiting = port.receive("ReceiveQueueRecords", 3);
    port.until_waiting(1);
    port.clock.advance(Duration::from_secs(3));
    assert_eq!(data(&waiting.join().unwrap()), [""; 0]);
    let waiting = port.receive("ReceiveDeadLetterQueueRecords", 20);
    port.until_waiting(1);
    let other = json!({"QueueName": "other", "StreamConfigurationList": [{"StreamARN": arn("s")}]});
    let other = ask(port.address, "CreateQueue", other).1["QueueDescription"]["QueueARN"].clone();
    assert_eq!(ask(port.address, "DeleteQueue", json!({"QueueARN": port.queue})).0, 200);
    let (status, refusal) = waiting.join().unwrap();
    assert_eq!((status, &refusal["__type"]), (400, &json!("ResourceNotFoundException")));
    let port = Port { queue: other.as_str().unwrap().to_owned(), ..port };
    let waiting = port.receive("ReceiveQueueRecords", 20);
    port.until_waiting(1);
    port.server.stop().unwrap();
    assert_eq!(data(&waiting.join().unwrap()), [""; 0]);
}

/// More than have room for an answer, or a thread.
#[test]
fn those_who_wait_keep_nobody_else_waiting() {
    const WAITING: usize = 600;
    let port = port();
    let waiting: Vec<_> = (0..WAITING).map(|_| port.receive("ReceiveQueueRecords", 20)).collect();
    port.until_waiting(WAITING);
    for _ in 0..3 {
        assert_eq!(ask(port.address, "DescribeStreamSummary", json!({"StreamName": "s"})).0, 200);
    }
    port.put("one");
    port.until_waiting(WAITING - 1);
    port.clock.advance(Duration::from_secs(20));
    let answers: Vec<_> = waiting.into_iter().map(|waiting| data(&waiting.join().unwrap())).collect();
    assert_eq!(answers.concat(), [base64("one")]);
    port.server.stop().unwrap();
}

/// It asks for nothing more, and may be gone: what it were given nobody else would get for half a minute.
#[test]
fn a_client_that_goes_away_while_it_waits_is_given_nothing() {
    let port = port();
    let receive = || connect(port.address, "ReceiveQueueRecords", &json!({"QueueARN": port.queue}));
    let (goes, closes_its_side) = (receive(), receive());
    port.until_waiting(2);
    drop(goes);
    port.until_waiting(1);
    closes_its_side.shutdown(Shutdown::Write).unwrap();
    assert_eq!(data(&listen(closes_its_side)), [""; 0], "it is answered, at once");
    // One that has not read what it was told before breaks the connection off.
    let mut breaks_off = TcpStream::connect(port.address).unwrap();
    say(&mut breaks_off, "", "ListStreams", &json!({}));
    breaks_off.peek(&mut [0]).unwrap();
    say(&mut breaks_off, "", "ReceiveQueueRecords", &json!({"QueueARN": port.queue}));
    port.until_waiting(1);
    drop(breaks_off);
    port.until_waiting(0);
    port.put("one");
    assert_eq!(data(&listen(receive())), [base64("one")]);
    // Who has said all when there is something to be given, is given it.
    port.put("two");
    let closed = receive();
    closed.shutdown(Shutdown::Write).unwrap();
    assert_eq!(data(&listen(closed)), [base64("two")]);
    port.server.stop().unwrap();
}
