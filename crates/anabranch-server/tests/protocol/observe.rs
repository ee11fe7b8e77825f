//! What operators and browsers are told: counts as Prometheus reads them, health, the page, and what it shows.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anabranch::storage::{Access, Operation, Storage};
use anabranch::{DiskFault, Durability};
use anabranch_server::{Body, Credentials, Server, ServerOptions, Service, ServiceOptions};
use bytes::Bytes;
use http::{Request, Response};
use serde_json::{Value, json};

use crate::support::{World, arn, base64, shard};

type Labels = BTreeMap<String, String>;

/// Samples by name and labels, of a text that is as the format wants it; it panics where it is not.
#[derive(Debug, Default)]
struct Scrape {
    samples: BTreeMap<(String, Labels), f64>,
}

impl Scrape {
    fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line ends as all others");
        let mut scrape = Self::default();
        let (mut helped, mut family, mut families) = ("", ("", ""), BTreeSet::new());
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                assert!(is_name(name) && !help.is_empty() && !help.contains('\\'), "{line}");
                helped = name;
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert_eq!(name, helped, "HELP stands before TYPE");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(families.insert(name), "{name} stands in one place");
                family = (name, kind);
            } else {
                scrape.sample(line, family);
            }
        }
        scrape.check_histograms();
        scrape
    }

    fn sample(&mut self, line: &str, (family, kind): (&str, &str)) {
        let end = line.find(['{', ' ']).unwrap();
        let (name, rest) = line.split_at(end);
        let of_histogram = ["_bucket", "_sum", "_count"].iter().any(|suffix| name == format!("{family}{suffix}"));
        assert!(is_name(name) && if kind == "histogram" { of_histogram } else { name == family }, "{line}");
        assert!(kind != "counter" || name.ends_with("_total"), "{line}");
        let (labels, rest) = labels(rest);
        let value = rest.strip_prefix(' ').unwrap().parse::<f64>().unwrap();
        assert!(value >= 0.0 && value.is_finite(), "{line}");
        assert!(self.samples.insert((name.to_owned(), labels), value).is_none(), "told twice: {line}");
    }

    /// Classes contain those before them, and the last one all.
    fn check_histograms(&self) {
        let mut last: BTreeMap<(String, Labels), Vec<(f64, f64)>> = BTreeMap::new();
        for ((name, labels), count) in &self.samples {
            let Some(family) = name.strip_suffix("_bucket") else { continue };
            let mut labels = labels.clone();
            let end = labels.remove("le").unwrap().replace("+Inf", "inf").parse().unwrap();
            last.entry((family.to_owned(), labels)).or_default().push((end, *count));
        }
        for ((family, labels), mut classes) in last {
            classes.sort_by(|a, b| a.0.total_cmp(&b.0));
            assert!(classes.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{family} {classes:?}");
            let (end, all) = *classes.last().unwrap();
            assert!(end.is_infinite());
            assert_eq!(
                self.samples[&(format!("{family}_count"), labels.clone())].total_cmp(&all),
                std::cmp::Ordering::Equal
            );
            assert!(self.samples.contains_key(&(format!("{family}_sum"), labels)));
        }
    }

    /// The value of the sample with these labels, or zero: as text, to be compared.
    fn get(&self, name: &str, labels: &[(&str, &str)]) -> String {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.samples.get(&(name.to_owned(), labels)).unwrap_or(&0.0).to_string()
    }

    fn of_stream(&self, name: &str) -> String {
        self.get(name, &[("account", "000000000000"), ("region", "us-east-1"), ("stream", "s")])
    }

    fn requests(&self, operation: &str, outcome: &str) -> String {
        self.get("anabranch_requests_total", &[("operation", operation), ("outcome", outcome)])
    }
}

fn is_name(text: &str) -> bool {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':';
    text.bytes().all(is_fine) && !text.starts_with(|first: char| first.is_ascii_digit()) && !text.is_empty()
}

/// `{name="value",...}`, with escapes, and what follows.
fn labels(text: &str) -> (Labels, &str) {
    let mut labels = Labels::new();
    let Some(mut rest) = text.strip_prefix('{') else { return (labels, text) };
    loop {
        let (name, after) = rest.split_once("=\"").unwrap();
        assert!(is_name(name) && !name.contains(':'), "{text}");
        let (value, after) = quoted(after);
        assert!(labels.insert(name.to_owned(), value).is_none(), "{text}");
        rest = match after.split_at(1) {
            (",", more) => more,
            ("}", more) => return (labels, more),
            _ => panic!("{text}"),
        };
    }
}

/// Up to the quote that ends it.
fn quoted(text: &str) -> (String, &str) {
    let (mut value, mut characters) = (String::new(), text.char_indices());
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return (value, &text[index + 1..]),
            '\\' => value.push(match characters.next().unwrap().1 {
                'n' => '\n',
                plain @ ('\\' | '"') => plain,
                other => panic!("\\{other}"),
            }),
            plain => value.push(plain),
        }
    }
    panic!("no end: {text}")
}

fn observe(world: &World, path: &str) -> Response<Body> {
    world.service.observe(&Request::get(path).body(()).unwrap())
}

fn text(answer: &Response<Body>) -> String {
    String::from_utf8(answer.body().bytes().to_vec()).unwrap()
}

fn scrape(world: &World) -> Scrape {
    let answer = observe(world, "/metrics");
    assert_eq!(answer.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    Scrape::parse(&text(&answer))
}

fn status(world: &World) -> Value {
    serde_json::from_str(&text(&observe(world, "/status"))).unwrap()
}

fn health(world: &World) -> (u16, Value) {
    let answer = observe(world, "/health");
    (answer.status().as_u16(), serde_json::from_str(&text(&answer)).unwrap())
}

#[test]
fn a_service_that_was_never_asked_has_metrics() {
    assert_eq!(scrape(&World::new()).get("anabranch_connections", &[]), "0");
}

#[test]
fn requests_are_counted_by_operation_and_outcome() {
    let world = World::with_stream(1);
    world.put("a", "one");
    world.put("a", "two");
    world.refusal("PutRecord", json!({"StreamName": "none", "PartitionKey": "a", "Data": ""}));
    world.refusal("PutRecord", json!({"StreamName": "s", "PartitionKey": "", "Data": ""}));
    world.refusal("Nonsense", json!({}));
    let scrape = scrape(&world);
    for (operation, outcome, count) in [
        ("CreateStream", "ok", "1"),
        ("PutRecord", "ok", "2"),
        ("PutRecord", "ResourceNotFoundException", "1"),
        ("PutRecord", "ValidationException", "1"),
        ("unknown", "UnknownOperationException", "1"),
        ("GetRecords", "ok", "0"),
    ] {
        assert_eq!(scrape.requests(operation, outcome), count, "{operation} {outcome}");
    }
    let durations = "anabranch_request_duration_seconds_count";
    assert_eq!(scrape.get(durations, &[("operation", "PutRecord")]), "4");
}

#[test]
fn records_and_bytes_are_counted_by_stream_in_and_out() {
    let world = World::with_stream(1);
    world.put("key", "hello");
    let records =
        json!([{"PartitionKey": "k", "Data": base64("12")}, {"PartitionKey": "k", "Data": base64("34")}]);
    world.ok("PutRecords", json!({"StreamName": "s", "Records": records}));
    world.refusal("PutRecord", json!({"StreamName": "s", "PartitionKey": "a", "Data": "", "DryRun": true}));
    for _ in 0..2 {
        assert_eq!(world.all("0").len(), 3);
    }
    let scrape = scrape(&world);
    for (name, count) in [
        ("anabranch_incoming_records_total", "3"),
        ("anabranch_incoming_bytes_total", "14"),
        ("anabranch_outgoing_records_total", "6"),
        ("anabranch_outgoing_bytes_total", "28"),
        ("anabranch_open_shards", "1"),
        ("anabranch_throttled_total", "0"),
        ("anabranch_stream_failed", "0"),
    ] {
        assert_eq!(scrape.of_stream(name), count, "{name}");
    }
}

#[test]
fn what_is_throttled_is_counted_and_did_not_come_in() {
    let world = World::with(ServiceOptions { enforce_limits: true, ..ServiceOptions::default() });
    world.ok("CreateStream", json!({"StreamName": "s", "ShardCount": 1}));
    let record = |index: usize| json!({"PartitionKey": index.to_string(), "Data": base64(vec![b'x'; 100_000])});
    let records: Vec<_> = (0..15).map(record).collect();
    let answer = world.ok("PutRecords", json!({"StreamName": "s", "Records": records}));
    let refused = answer["FailedRecordCount"].as_u64().unwrap();
    assert!((1..15).contains(&refused), "{refused}");
    world.refusal(
        "PutRecord",
        json!({"StreamName": "s", "PartitionKey": "a", "Data": base64(vec![b'x'; 1_000_000])}),
    );
    let scrape = scrape(&world);
    assert_eq!(scrape.of_stream("anabranch_throttled_total"), (refused + 1).to_string());
    assert_eq!(scrape.of_stream("anabranch_incoming_records_total"), (15 - refused).to_string());
    assert_eq!(scrape.requests("PutRecord", "ProvisionedThroughputExceededException"), "1");
}

fn subscribe(world: &World) -> Response<Body> {
    let register = json!({"StreamARN": arn("s"), "ConsumerName": "c"});
    let registered = world.ok("RegisterStreamConsumer", register);
    let position = json!({"Type": "TRIM_HORIZON"});
    let consumer = &registered["Consumer"]["ConsumerARN"];
    world.send("SubscribeToShard", &json!({"ConsumerARN": consumer, "ShardId": "0", "StartingPosition": position}))
}

#[test]
fn subscriptions_are_seen_as_long_as_they_are_read_and_how_far_they_are_behind() {
    let world = World::with_stream(1);
    world.put("a", "one");
    world.advance(5_000);
    world.put("a", "two");
    let mut subscription = subscribe(&world);
    let seen = || {
        let status = status(&world);
        let consumer = status["streams"][0]["consumers"][0].clone();
        (
            scrape(&world).of_stream("anabranch_subscriptions"),
            consumer["subscriptions"].clone(),
            consumer["behindMs"].clone(),
        )
    };
    assert_eq!(seen(), ("1".to_owned(), json!(1), json!(5_000)));
    let mut events = 0;
    while subscription.body_mut().next_event().is_some() {
        events += 1;
    }
    assert!(events >= 2, "{events}");
    assert_eq!(seen(), ("1".to_owned(), json!(1), json!(0)));
    assert_eq!(scrape(&world).of_stream("anabranch_outgoing_records_total"), "2");
    drop(subscription);
    assert_eq!(seen(), ("0".to_owned(), json!(0), Value::Null));
}

#[test]
fn the_counts_of_a_stream_go_with_it() {
    let world = World::with_stream(1);
    world.put("a", "one");
    assert_eq!(scrape(&world).of_stream("anabranch_incoming_records_total"), "1");
    world.ok("DeleteStream", json!({"StreamName": "s"}));
    let is_of_it = |labels: &Labels| labels.get("stream").is_some_and(|name| name == "s");
    assert!(!scrape(&world).samples.keys().any(|(_, labels)| is_of_it(labels)));
    world.ok("CreateStream", json!({"StreamName": "s", "ShardCount": 1}));
    let scraped = scrape(&world);
    assert_eq!(scraped.of_stream("anabranch_open_shards"), "1");
    assert_eq!(scraped.of_stream("anabranch_incoming_records_total"), "0");
}

#[test]
fn a_service_that_refuses_records_is_not_well() {
    let world = World::with_stream(1);
    world.put("a", "one");
    assert_eq!(health(&world), (200, json!({"status": "ok"})));
    world.disk.fail_on(Operation::Sync, 0, DiskFault::Error(std::io::ErrorKind::Other));
    let put = json!({"StreamName": "s", "PartitionKey": "a", "Data": ""});
    assert_eq!(world.send("PutRecord", &put).status(), 500);
    let (code, document) = health(&world);
    let reason = document["reasons"][0].as_str().unwrap();
    assert_eq!((code, &document["status"]), (503, &json!("failing")));
    assert!(reason.starts_with(&arn("s")) && reason.contains("takes no more records"), "{reason}");
    assert_eq!(scrape(&world).of_stream("anabranch_stream_failed"), "1");
    assert!(status(&world)["streams"][0]["failure"].is_string());

    assert!(world.service.close().is_err());
    let world = restarted(world);
    world.put("a", "two");
    assert_eq!(health(&world).0, 200);
}

/// Nobody puts or reads after a record that was acknowledged before the disk failed.
#[test]
fn a_failed_flush_is_told_before_anybody_is_refused() {
    let world = World::with(ServiceOptions { durability: Durability::Buffered, ..ServiceOptions::default() });
    world.ok("CreateStream", json!({"StreamName": "s", "ShardCount": 1}));
    world.put("a", "one"); // makes the shard's file, which would fail otherwise
    assert_eq!(health(&world).0, 200);
    world.disk.fail_on(Operation::Sync, 0, DiskFault::Error(std::io::ErrorKind::Other));
    let put = json!({"StreamName": "s", "PartitionKey": "a", "Data": ""});
    world.send("PutRecord", &put); // should the flush of the first have come before it, it is refused
    let given_up = Instant::now() + Duration::from_secs(60);
    while health(&world).0 == 200 {
        assert!(Instant::now() < given_up, "it is never told");
        std::thread::sleep(Duration::from_millis(5)); // the flush is behind its interval
    }
    let reason = health(&world).1["reasons"][0].as_str().unwrap().to_owned();
    assert!(reason.contains("takes no more records"), "{reason}");
    assert_eq!(health(&world).0, 503, "it stays so");
}

/// The same disk under a service that knows of nothing yet.
fn restarted(world: World) -> World {
    let World { service, clock, disk } = world;
    drop(service); // with its lock
    let options = ServiceOptions::default();
    let service = Service::open_on("/data", options, clock.clone(), Arc::new(disk.clone())).unwrap();
    World { clock, disk, service }
}

#[test]
fn a_batch_that_is_refused_for_a_failed_shard_is_told_of_too() {
    let world = World::with_stream(1);
    world.put("a", "one");
    world.disk.fail_on(Operation::Sync, 0, DiskFault::Error(std::io::ErrorKind::Other));
    let records = json!([{"PartitionKey": "k", "Data": ""}]);
    let answer = world.ok("PutRecords", json!({"StreamName": "s", "Records": records}));
    assert_eq!(answer["FailedRecordCount"], 1);
    assert_eq!(health(&world).0, 503);
    assert_eq!(scrape(&world).of_stream("anabranch_incoming_records_total"), "1");
}

#[test]
fn status_shows_shards_through_a_split() {
    let world = World::with_stream(1);
    world.ok("SplitShard", json!({"StreamName": "s", "ShardToSplit": shard(0), "NewStartingHashKey": "100"}));
    let status = status(&world);
    let stream = &status["streams"][0];
    assert_eq!(
        (&stream["name"], &stream["openShards"], &stream["shardCount"]),
        (&json!("s"), &json!(2), &json!(3))
    );
    let shown = |index: usize| {
        let shard = &stream["shards"][index];
        (shard["isOpen"].clone(), shard["startingHashKey"].clone(), shard["parents"].clone())
    };
    assert_eq!(shown(0), (json!(false), json!("0"), json!([])));
    assert_eq!(shown(1), (json!(true), json!("0"), json!([shard(0)])));
    assert_eq!(shown(2), (json!(true), json!("100"), json!([shard(0)])));
}

#[test]
fn streams_are_seen_after_a_restart_and_not_opened_by_it() {
    let world = World::with_stream(3);
    world.service.close().unwrap();
    let world = restarted(world);
    let seen = || {
        let status = status(&world);
        (status["streams"][0]["openShards"].clone(), status["streams"][0]["shards"].is_array())
    };
    assert_eq!(seen(), (json!(3), false));
    world.put("a", "one");
    assert_eq!(seen(), (json!(3), true));
}

#[test]
fn only_get_and_only_what_is_there() {
    let world = World::new();
    assert_eq!(observe(&world, "/favicon.ico").status(), 404);
    assert_eq!(world.service.observe(&Request::post("/").body(()).unwrap()).status(), 405);
    let page = observe(&world, "/");
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    assert!(
        policy.starts_with("default-src 'none'; connect-src 'self';") && !policy.contains("unsafe"),
        "{policy}"
    );
    assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
    assert_eq!(page.headers()["x-content-type-options"], "nosniff");
}

#[test]
fn the_protocol_s_port_has_the_page_for_browsers_and_the_page_alone() {
    const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let world = World::new();
    let known = Credentials { access_key_id: "me".into(), secret_access_key: "secret".into() };
    let closed = World::with(ServiceOptions { credentials: vec![known], ..ServiceOptions::default() });
    let code = |world: &World, path: &str, accept: &str, origin: Option<&str>| {
        let mut request = Request::get(path).header("accept", accept);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        world.service.respond(request.body(Bytes::new()).unwrap()).status().as_u16()
    };
    assert_eq!(code(&world, "/", BROWSER, None), 200);
    assert_eq!(code(&world, "/status", "application/json", None), 200);
    for (path, accept) in
        [("/", "*/*"), ("/", ""), ("/status", BROWSER), ("/metrics", "*/*"), ("/health", "*/*"), ("/x", BROWSER)]
    {
        assert_eq!(code(&world, path, accept, None), 403, "{path} {accept}");
    }
    for (path, accept) in [("/", BROWSER), ("/status", "application/json")] {
        assert_eq!(
            code(&world, path, accept, Some("http://elsewhere")),
            403,
            "another site's script could read it"
        );
        assert_eq!(code(&closed, path, accept, None), 403, "it is not signed");
        for (host, expected) in [("localhost:4567", 200), ("10.0.0.7", 200), ("evil.example:4567", 403)] {
            let request = Request::get(path).header("accept", accept).header("host", host);
            let answer = world.service.respond(request.body(Bytes::new()).unwrap());
            assert_eq!(answer.status(), expected, "{host}: another site's name can lead here");
        }
    }
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut socket = TcpStream::connect(address).unwrap();
    write!(socket, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

fn until(condition: impl Fn() -> bool) {
    assert!((0..10_000).any(|_| condition()), "it never came to be");
}

#[test]
fn a_server_tells_how_it_is_at_an_address_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::open(directory.path(), ServiceOptions::default()).unwrap();
    let options = ServerOptions { health: Some("127.0.0.1:0".parse().unwrap()), ..ServerOptions::default() };
    let server = Server::start_with(service.clone(), "127.0.0.1:0", &options).unwrap();
    let address = server.health_address().unwrap();
    assert!(get(address, "/health").starts_with("HTTP/1.1 200 OK"));
    assert!(get(server.address(), "/health").starts_with("HTTP/1.1 403"));

    let mut client = TcpStream::connect(server.address()).unwrap();
    client.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{").unwrap();
    let connections = || {
        let answer = get(address, "/metrics");
        Scrape::parse(answer.split_once("\r\n\r\n").unwrap().1).get("anabranch_connections", &[])
    };
    until(|| connections() == "1"); // it is accepted by somebody else's thread

    // As long as a client is being answered, whoever asks hears that it stops.
    let stopping = std::thread::spawn(|| server.stop());
    until(|| get(address, "/health").starts_with("HTTP/1.1 503"));
    assert!(get(address, "/health").ends_with(r#"{"status":"stopping"}"#));
    client.write_all(b"}").unwrap();
    drop(client);
    stopping.join().unwrap().unwrap();
    assert!(TcpStream::connect(address).is_err());
}

/// How often the disk was asked for something that changes what is on it, or takes a lock.
fn changes(world: &World) -> u64 {
    use Operation::{CreateDir, CreateFile, Lock, RemoveDir, RemoveFile, Rename, SyncDir, Write};
    let changing = [CreateDir, CreateFile, Lock, RemoveDir, RemoveFile, Rename, SyncDir, Write];
    changing.iter().map(|operation| world.disk.operations_of(*operation)).sum()
}

#[test]
fn looking_changes_nothing_of_what_nobody_has_used() {
    let world = World::with_stream(3);
    world.service.close().unwrap();
    for path in ["", "/us-east-1", "/us-east-1/photos"] {
        world.disk.create_dir(Path::new(&format!("/data/111111111111{path}"))).unwrap();
    }
    world.disk.create_file(Path::new("/data/222222222222")).unwrap();
    let settings = Path::new("/data/000000000000/us-east-1/settings/left.json");
    world.disk.create_file(settings).unwrap(); // what a crash could leave
    let world = restarted(world);
    let before = changes(&world);
    assert_eq!(health(&world), (200, json!({"status": "ok"})));
    assert_eq!(scrape(&world).of_stream("anabranch_open_shards"), "3");
    assert_eq!(status(&world)["streamCount"], 1);
    assert_eq!(changes(&world), before);
    assert_eq!(world.ok("ListStreams", json!({}))["StreamNames"], json!(["s"]));
    assert!(world.disk.open_file(settings, Access::Read).is_err(), "it is cleared away by the first who asks");
}

#[test]
fn a_stream_that_cannot_be_opened_is_not_well() {
    let world = World::with_stream(1);
    world.service.close().unwrap();
    let world = restarted(world);
    let manifest = Path::new("/data/000000000000/us-east-1/streams/s/MANIFEST");
    world.ok("ListStreams", json!({}));
    let (file, mut kept) = (world.disk.open_file(manifest, Access::Write).unwrap(), [0; 8]);
    file.read_at(&mut kept, 0).unwrap();
    file.write_at(b"XXXXXXXX", 0).unwrap();
    let put = json!({"StreamName": "s", "PartitionKey": "a", "Data": ""});
    assert_eq!(world.send("PutRecord", &put).status(), 500);
    let (code, document) = health(&world);
    assert!(code == 503 && document["reasons"][0].as_str().unwrap().starts_with(&arn("s")), "{document}");
    file.write_at(&kept, 0).unwrap();
    world.put("a", "one");
    assert_eq!(health(&world).0, 200);
}

#[test]
fn settings_that_could_not_be_written_are_tried_again_by_who_asks() {
    let world = World::with_stream(1);
    world.disk.fail_on(Operation::SyncDir, 0, DiskFault::ErrorFromThenOn(std::io::ErrorKind::StorageFull));
    let tag = json!({"StreamName": "s", "Tags": {"a": "1"}});
    assert_eq!(world.send("AddTagsToStream", &tag).status(), 500);
    for _ in 0..2 {
        let (code, document) = health(&world);
        assert!(code == 503 && document["reasons"][0].as_str().unwrap().contains("settings"), "{document}");
    }
    world.disk.clear_faults();
    assert_eq!(health(&world).0, 200);
    let tags = |world: &World| world.ok("ListTagsForStream", json!({"StreamName": "s"}))["Tags"].clone();
    assert_eq!(tags(&world), json!([]));
    assert_eq!(
        tags(&restarted(world)),
        json!([]),
        "what was refused, and in the file all the same, is taken back"
    );
}

#[test]
fn settings_that_cannot_be_read_are_told_before_anybody_asks() {
    let world = World::with_stream(1);
    world.service.close().unwrap();
    let settings = Path::new("/data/000000000000/us-east-1/settings/s.json");
    world.disk.open_file(settings, Access::Write).unwrap().write_at(b"XXXXXXXX", 0).unwrap();
    let world = restarted(world);
    for is_used in [false, true] {
        let (code, document) = health(&world);
        assert!(code == 503 && document["reasons"][0].as_str().unwrap().contains("settings/s.json"), "{document}");
        assert!(is_used || world.ok("ListStreams", json!({})).is_object());
    }
}

#[test]
fn what_is_known_of_an_account_and_cannot_be_read_is_told() {
    let world = World::with_stream(1);
    let commit = json!({"MinimumThroughputBillingCommitment": {"Status": "ENABLED"}});
    world.ok("UpdateAccountSettings", commit);
    world.service.close().unwrap();
    let account = Path::new("/data/000000000000/us-east-1/account.json");
    world.disk.open_file(account, Access::Write).unwrap().write_at(b"XXXXXXXX", 0).unwrap();
    let world = restarted(world);
    for _ in 0..2 {
        let (code, document) = health(&world);
        assert!(code == 503 && document["reasons"][0].as_str().unwrap().contains("account.json"), "{document}");
        assert_eq!(world.ok("ListStreams", json!({}))["StreamNames"], json!(["s"]));
    }
}

#[test]
fn a_name_of_somebody_else_s_is_refused_where_operators_look() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::open(directory.path(), ServiceOptions::default()).unwrap();
    let options = ServerOptions { health: Some("127.0.0.1:0".parse().unwrap()), ..ServerOptions::default() };
    let server = Server::start_with(service, "127.0.0.1:0", &options).unwrap();
    let status = |host: &str| {
        let mut socket = TcpStream::connect(server.health_address().unwrap()).unwrap();
        let request = format!("GET /health HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().to_owned()
    };
    for host in ["127.0.0.1", "10.0.0.7:9464", "[::1]:9464", "localhost", "LOCALHOST:9464"] {
        assert_eq!(status(host), "200", "{host}");
    }
    for host in ["evil.example", "evil.example:9464", "127.0.0.1.evil.example", "localhost.evil.example:80", "a b"]
    {
        assert_eq!(status(host), "421", "{host}");
    }
    server.stop().unwrap();
}

#[test]
fn an_address_of_health_that_cannot_be_had_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::open(directory.path(), ServiceOptions::default()).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let health = taken.local_addr().unwrap();
    let options = ServerOptions { health: Some(health), ..ServerOptions::default() };
    let refused = Server::start_with(service, "127.0.0.1:0", &options).unwrap_err();
    assert!(refused.to_string().starts_with(&format!("health at {health}: ")), "{refused}");
}
