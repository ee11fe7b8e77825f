//! A port with sockets: patience, room, and who is answered where.

use std::io::{Read, Write};

use super::*;
use crate::limits::{
    IDLE_REQUEST_BYTES, MAX_ANSWER_BYTES, MAX_ANSWERS_BYTES, MAX_BODIES_BYTES, MAX_BODY_BYTES,
    MAX_PUT_ANSWERS_BYTES, REQUEST_BYTES, SHORT_ANSWER_BYTES,
};
use crate::service::ServiceOptions;

struct Served {
    _directory: tempfile::TempDir,
    port: Port,
    address: SocketAddr,
    runtime: Runtime,
}

/// A port with little patience and little room, in a directory of its own.
fn serve() -> Served {
    serve_as(|_, port| Port {
        read_timeout: Duration::from_millis(500),
        room: Room::new(REQUEST_BYTES + 10, MAX_ANSWER_BYTES, Duration::from_millis(250)),
        ..port
    })
}

fn serve_as(change: impl FnOnce(&tempfile::TempDir, Port) -> Port) -> Served {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::open(directory.path(), ServiceOptions::default()).unwrap();
    let port = change(&directory, Port::new(service));
    let runtime = Builder::new_multi_thread().enable_all().max_blocking_threads(MAX_THREADS).build().unwrap();
    let address = listen(&runtime, port.clone());
    Served { _directory: directory, port, address, runtime }
}

fn listen(runtime: &Runtime, port: Port) -> SocketAddr {
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(async move {
        let (_keep, stopped) = oneshot::channel();
        accept(listener, port, stopped).await;
    });
    address
}

fn connect_to(address: SocketAddr) -> std::net::TcpStream {
    let socket = std::net::TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap(); // far above the server's patience
    socket
}

/// Whether the server ended it, whatever it said before.
fn is_closed(mut socket: std::net::TcpStream) -> bool {
    let closed = socket.read_to_end(&mut Vec::new());
    !matches!(&closed, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

#[track_caller]
fn until(condition: impl Fn() -> bool) {
    for _ in 0..2_000 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("it never came to be");
}

#[test]
fn a_connection_that_never_asks_is_closed() {
    let served = serve();
    for beginning in ["", "PRI * HT", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", "POST / HT"] {
        let mut socket = connect_to(served.address);
        socket.write_all(beginning.as_bytes()).unwrap();
        assert!(is_closed(socket), "{beginning:?}");
    }
}

fn identify(directory: &tempfile::TempDir) -> TlsAcceptor {
    TlsIdentity::self_signed(directory.path().join("tls"), "localhost").unwrap().acceptor()
}

#[test]
fn a_handshake_that_stalls_is_cut_off() {
    let served = serve_as(|directory, port| Port {
        tls: Some(identify(directory)),
        read_timeout: Duration::from_millis(100),
        ..port
    });
    for beginning in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01\x00"] {
        let mut socket = connect_to(served.address);
        socket.write_all(beginning).unwrap();
        assert!(is_closed(socket), "{beginning:?}");
    }
}

#[test]
fn a_handshake_has_the_place_of_a_connection_and_gives_it_back() {
    let connections = Arc::new(Semaphore::new(1));
    let served = serve_as(|directory, port| Port {
        tls: Some(identify(directory)),
        connections: Arc::clone(&connections),
        ..port
    });
    let taken = || served.port.connections.available_permits() == 0;
    for _ in 0..3 {
        let mut socket = connect_to(served.address);
        socket.write_all(b"\x16\x03").unwrap();
        socket.shutdown(std::net::Shutdown::Write).unwrap(); // half a handshake, which fails
        assert!(is_closed(socket));
    }
    let socket = connect_to(served.address);
    let mut waiting = connect_to(served.address);
    waiting.write_all(b"no TLS at all, which is told at once to whoever has a place").unwrap();
    until(taken);
    waiting.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(waiting.read(&mut [0]).is_err(), "there is no second place");
    drop(socket);
    waiting.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert!(is_closed(waiting));
}

#[test]
fn stopping_waits_for_no_handshake() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::open(directory.path(), ServiceOptions::default()).unwrap();
    let tls = TlsIdentity::self_signed(directory.path().join("tls"), "localhost").unwrap();
    let server =
        Server::start_with(service, "127.0.0.1:0", &ServerOptions { tls: Some(tls), ..ServerOptions::default() });
    let server = server.unwrap();
    let socket = connect_to(server.address());
    until(|| server.service.counters().connections.get() == 1);
    let closed = std::thread::spawn(|| is_closed(socket)); // sooner than it would be cut off
    server.stop().unwrap();
    assert!(closed.join().unwrap());
}

#[test]
fn bodies_wait_for_room() {
    let served = serve();
    let status = |body: &str| {
        let mut socket = connect_to(served.address);
        let head = format!(
            "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        socket.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        let _ = socket.read_to_string(&mut answer); // it may be cut off behind the answer
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    for _ in 0..3 {
        assert_eq!(status("0123456789"), "403", "room is given back");
        assert_eq!(status("0123456789a"), "503", "there never is so much");
    }
}

#[test]
fn a_body_takes_room_when_it_comes_and_not_when_it_is_announced() {
    let served = serve_as(|_, port| Port {
        room: Room::new(MAX_BODY_BYTES, MAX_ANSWER_BYTES, Duration::from_millis(50)),
        ..port
    });
    let announcing: Vec<_> = (0..8).map(|_| connect_to(served.address)).collect();
    for mut socket in &announcing {
        let head = format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {MAX_BODY_BYTES}\r\n\r\n");
        socket.write_all(head.as_bytes()).unwrap();
    }
    until(|| served.port.room.left_for_bodies() == MAX_BODY_BYTES - 8 * IDLE_REQUEST_BYTES);
    let mut socket = connect_to(served.address);
    socket.write_all(request("ListStreams", "{}").as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

fn ask(address: SocketAddr, operation: &str, body: &str) -> String {
    let mut socket = connect_to(address);
    socket.write_all(request(operation, body).as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

#[track_caller]
fn ask_well(address: SocketAddr, operation: &str, body: &str) -> String {
    let answer = ask(address, operation, body);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

const CREATE: &str = r#"{"StreamName": "s", "ShardCount": 1}"#;
const PUT: &str = r#"{"StreamName": "s", "PartitionKey": "a", "Data": "aGVsbG8="}"#;

#[test]
fn puts_and_short_calls_do_not_wait_behind_answers_that_nobody_takes() {
    let served = serve_as(|_, port| Port {
        room: Room::new(MAX_BODY_BYTES, MAX_ANSWER_BYTES, Duration::from_millis(250)),
        ..port
    });
    let room = &served.port.room;
    let _long = served.runtime.block_on(room.for_answer(AnswerKind::Long)).unwrap(); // all there is
    assert!(ask(served.address, "ListStreams", "{}").starts_with("HTTP/1.1 503"));
    ask_well(served.address, "CreateStream", CREATE);
    ask_well(served.address, "PutRecord", PUT);
}

/// A quick put is answered without a look at who asks; where operators look, nobody puts.
#[test]
fn nothing_is_put_where_operators_look() {
    let options = ServiceOptions { durability: anabranch::Durability::Buffered, ..ServiceOptions::default() };
    let directory = tempfile::tempdir().unwrap();
    let service = Service::open(directory.path(), options).unwrap();
    service.create_stream("s", 1).unwrap();
    let operators = serve_as(|_, port| Port { service: service.clone(), desk: Desk::Operators, ..port });
    assert!(ask(operators.address, "PutRecord", PUT).starts_with("HTTP/1.1 421"));
    let named = request("PutRecord", PUT).replace("host: x", "host: localhost");
    let mut socket = connect_to(operators.address);
    socket.write_all(named.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
    let clients = serve_as(|_, port| Port { service, ..port });
    ask_well(clients.address, "PutRecord", PUT);
}

#[test]
fn events_that_nobody_takes_have_room_and_wait_for_it() {
    let served = serve_as(|_, port| port);
    let address = served.address;
    seven_megabytes(address);
    let arn = "arn:aws:kinesis:us-east-1:000000000000:stream/s";
    let registered =
        ask_well(address, "RegisterStreamConsumer", &format!(r#"{{"StreamARN": "{arn}", "ConsumerName": "c"}}"#));
    let consumer = registered.split(r#""ConsumerARN":""#).nth(1).unwrap().split('"').next().unwrap();
    let position = r#"{"Type": "TRIM_HORIZON"}"#;
    let subscribe = format!(r#"{{"ConsumerARN": "{consumer}", "ShardId": "0", "StartingPosition": {position}}}"#);
    let room = &served.port.room;
    let whole = room.left_for_events();
    let mut taken: Vec<_> = std::iter::from_fn(|| Untaken::new(room.clone()).room_for_event()).collect();
    let mut socket = connect_to(address);
    socket.write_all(request("SubscribeToShard", &subscribe).as_bytes()).unwrap();
    let mut heard = String::new();
    let mut hear = |until: &str| {
        let mut bytes = [0; 4_096];
        while !heard.contains(until) {
            let read = socket.read(&mut bytes).unwrap();
            assert_ne!(read, 0, "{heard}");
            heard.push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
        heard.contains("BwcHBwcH")
    };
    assert!(!hear("SubscribeToShardEvent"), "there is no room for records, and a word all the same");
    taken.clear();
    assert!(hear("BwcHBwcH"));
    until(|| room.left_for_events() < whole);
    drop(socket);
    until(|| room.left_for_events() == whole);
}

/// Makes a stream of seven records of a megabyte, and gives the body of a request for them.
fn seven_megabytes(address: SocketAddr) -> String {
    ask_well(address, "CreateStream", CREATE);
    let data = base64_simd::STANDARD.encode_to_string(vec![7; 1_000_000]);
    for _ in 0..7 {
        let put = format!(r#"{{"StreamName": "s", "PartitionKey": "a", "Data": "{data}"}}"#);
        ask_well(address, "PutRecord", &put);
    }
    let shard = r#"{"StreamName": "s", "ShardId": "0", "ShardIteratorType": "TRIM_HORIZON"}"#;
    ask_well(address, "GetShardIterator", shard)
}

fn request(operation: &str, body: &str) -> String {
    let headers: String = headers(operation).map(|(name, value)| format!("{name}: {value}\r\n")).concat();
    let length = body.len();
    format!("POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}")
}

fn headers(operation: &str) -> [(&'static str, String); 4] {
    let authorization =
        "AWS4-HMAC-SHA256 Credential=me/20260101/us-east-1/kinesis/aws4_request, SignedHeaders=host, Signature=00";
    [
        ("content-type", "application/x-amz-json-1.1".to_owned()),
        ("x-amz-target", format!("Kinesis_20131202.{operation}")),
        ("x-amz-date", "20260101T000000Z".to_owned()),
        ("authorization", authorization.to_owned()),
    ]
}

#[test]
fn a_subscription_that_cannot_start_gives_its_room_back() {
    let served = serve_as(|_, port| Port {
        room: Room::new(MAX_BODY_BYTES, MAX_ANSWER_BYTES, Duration::from_millis(250)), // one answer at a time
        ..port
    });
    ask(served.address, "CreateStream", r#"{"StreamName": "s", "ShardCount": 1}"#);
    let stream = "arn:aws:kinesis:us-east-1:000000000000:stream/s";
    let registered = format!(r#"{{"StreamARN": "{stream}", "ConsumerName": "c"}}"#);
    let answer = ask(served.address, "RegisterStreamConsumer", &registered);
    let (_, rest) = answer.split_once(r#""ConsumerARN":""#).unwrap();
    let (consumer, _) = rest.split_once('"').unwrap();
    let subscribe = |kind: &str| {
        format!(r#"{{"ConsumerARN": "{consumer}", "ShardId": "0", "StartingPosition": {{"Type": "{kind}"}}}}"#)
    };
    for _ in 0..10 {
        let answer = ask(served.address, "SubscribeToShard", &subscribe("AT_SEQUENCE_NUMBER"));
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
    let mut socket = connect_to(served.address);
    socket.write_all(request("SubscribeToShard", &subscribe("LATEST")).as_bytes()).unwrap();
    let (mut answer, mut bytes) = (Vec::new(), [0; 4_096]);
    while !String::from_utf8_lossy(&answer).contains("SubscribeToShardEvent") {
        let read = socket.read(&mut bytes).unwrap();
        assert_ne!(read, 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&bytes[..read]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    until(|| served.port.room.left_for_answers() == MAX_ANSWER_BYTES);
}

fn impatient() -> Served {
    serve_as(|_, port| Port { write_timeout: Duration::from_secs(2), ..port })
}

#[test]
fn who_leaves_an_answer_lying_loses_the_connection_and_its_room() {
    let served = impatient();
    let iterator = seven_megabytes(served.address);
    let get = request("GetRecords", &iterator);
    let whole = MAX_ANSWERS_BYTES;
    until(|| served.port.room.left_for_answers() == whole);
    let sockets: Vec<_> = (0..8).map(|_| connect_to(served.address)).collect(); // more than the system takes from the server
    for mut socket in &sockets {
        socket.write_all(get.as_bytes()).unwrap();
    }
    until(|| served.port.room.left_for_answers() < whole - (4 << 20));
    until(|| served.port.room.left_for_answers() == whole);
    until(|| served.port.connections.available_permits() == MAX_CONNECTIONS - 1); // the next one has its place already
    // Who takes it, gets it.
    let mut socket = connect_to(served.address);
    socket.write_all(get.as_bytes()).unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    assert!(answer.len() > 7_000_000);
}

/// The socket takes all there is; it is the client of HTTP/2 that gives no room for the answer.
#[test]
fn who_opens_no_window_for_an_answer_loses_the_connection_and_its_room() {
    let served = impatient();
    let iterator = seven_megabytes(served.address);
    let mut socket = connect_to(served.address);
    socket.write_all(HTTP2).unwrap();
    socket.write_all(&frame(4, 0, 0, &[0, 4, 0, 0, 0, 0])).unwrap(); // SETTINGS: INITIAL_WINDOW_SIZE = 0
    socket.write_all(&http2_request(1, "GetRecords", &iterator)).unwrap();
    until(|| served.port.room.left_for_answers() < MAX_ANSWERS_BYTES - (2 << 20));
    assert!(is_closed(socket));
    until(|| served.port.room.left_for_answers() == MAX_ANSWERS_BYTES);
}

/// What a client of HTTP/2 says first, before its settings.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame of HTTP/2.
#[allow(clippy::big_endian_bytes, reason = "the framing is that of HTTP")]
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

fn http2_request(stream: u8, operation: &str, body: &str) -> Vec<u8> {
    let field = |name: &str, value: &str| {
        let prefix = |length: usize| match length {
            0..127 => vec![u8::try_from(length).unwrap()],
            _ => vec![127, u8::try_from(length - 127).unwrap()], // below 255
        };
        [&[0][..], &prefix(name.len()), name.as_bytes(), &prefix(value.len()), value.as_bytes()].concat()
    };
    let pseudo = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "x")];
    let mut head = pseudo.map(|(name, value)| field(name, value)).concat();
    head.extend(headers(operation).map(|(name, value)| field(name, &value)).concat());
    let (head, body) = (frame(1, 4, stream, &head), frame(0, 1, stream, body.as_bytes())); // HEADERS, END_HEADERS; DATA, END_STREAM
    [head, body].concat()
}

/// So that there is room for as many as may wait.
#[test]
fn a_call_that_waits_has_no_room() {
    let served = serve_as(|_, port| port);
    let (room, address) = (&served.port.room, served.address);
    ask_well(address, "CreateStream", r#"{"StreamName": "s", "StreamModeDetails": {"StreamMode": "ON_DEMAND"}}"#);
    let arn = "arn:aws:kinesis:us-east-1:000000000000:stream/s";
    let create = format!(r#"{{"QueueName": "q", "StreamConfigurationList": [{{"StreamARN": "{arn}"}}]}}"#);
    let made = ask_well(address, "CreateQueue", &create);
    let queue = made.split(r#""QueueARN":""#).nth(1).unwrap().split('"').next().unwrap();
    let mut socket = connect_to(address);
    let receive = format!(r#"{{"QueueARN": "{queue}", "WaitTimeSeconds": 20}}"#);
    socket.write_all(request("ReceiveQueueRecords", &receive).as_bytes()).unwrap();
    let waiting = || served.port.service.counters().waiting.get();
    until(|| waiting() == 1);
    until(|| room.left_for_bodies() == MAX_BODIES_BYTES && room.left_for_answers() == MAX_ANSWERS_BYTES);
    assert_eq!(waiting(), 1, "it goes on");
}

/// As for a disk that stands still: more puts than there are threads.
#[test]
fn puts_that_wait_leave_threads_to_everybody_else() {
    const CONNECTIONS: usize = MAX_THREADS / MAX_CONNECTION_REQUESTS as usize + 1;
    let served = serve_as(|_, port| port);
    let (service, room) = (&served.port.service, &served.port.room);
    for name in ["s", "other"] {
        service.create_stream(name, 1).unwrap();
    }
    let entry = service.territory().stream("s").unwrap();
    entry.close().unwrap();
    let (go_on, stands_still) = std::sync::mpsc::channel::<()>();
    let (begin, begun) = std::sync::mpsc::channel();
    let opening = std::thread::spawn(move || {
        let hold = |_: &mut _| {
            begin.send(()).unwrap();
            let _ = stands_still.recv();
            Ok(())
        };
        entry.change(hold).unwrap(); // who opens the stream waits for it
    });
    begun.recv().unwrap();
    let sockets: Vec<_> = (0..CONNECTIONS).map(|_| connect_to(served.address)).collect();
    for mut socket in &sockets {
        let puts = (0..128).flat_map(|index| http2_request(2 * index + 1, "PutRecord", PUT));
        socket.write_all(&[HTTP2.to_vec(), frame(4, 0, 0, &[]), puts.collect()].concat()).unwrap();
    }
    let puts_bytes = CONNECTIONS * 128 * SHORT_ANSWER_BYTES;
    until(|| room.left_for_puts() <= MAX_PUT_ANSWERS_BYTES.saturating_sub(puts_bytes));
    ask_well(served.address, "ListStreams", "{}");
    ask_well(served.address, "DeleteStream", r#"{"StreamName": "other"}"#);
    let operators = Port { desk: Desk::Operators, ..Port::new(service.clone()) };
    let mut socket = connect_to(listen(&served.runtime, operators));
    socket.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut health = String::new();
    socket.read_to_string(&mut health).unwrap();
    assert!(health.starts_with("HTTP/1.1 200"), "{health}");
    drop(go_on);
    opening.join().unwrap();
    until(|| room.left_for_puts() == MAX_PUT_ANSWERS_BYTES);
}
