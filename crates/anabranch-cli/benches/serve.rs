//! `anabranch serve` beside two other local servers of the protocol: ferrokinesis (Rust, memory, or a log and snapshots) and kinesalite (Node.js, `LevelDB`).
//!
//! `cargo bench -p anabranch-cli --bench serve`. The others are taken from `PATH`, or from the files that `FERROKINESIS` and `KINESALITE` name, and left out where they are not:
//!
//! ```console
//! cargo install ferrokinesis && npm install --prefix DIR kinesalite    # KINESALITE=DIR/node_modules/.bin/kinesalite
//! ```
//!
//! Every server is a process of its own, with a stream of four shards, and is sent the same bytes: JSON, records of 1 KiB that do not compress, over kept connections of HTTP/1.1, by
//! one client that does nothing but write requests and look for the end of answers. The servers take turns within a round; printed are medians of rounds, and the median of the
//! rounds' ratios. At the end gigabytes go through one server while its memory is looked at. `-- --quick` is a short form, and `-- GetRecords` only what has that in its title.
#![allow(missing_docs, reason = "a program")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "a failure ends the benchmark"
)]

use std::env;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Builder;
use tokio::task::JoinSet;

const SHARDS: usize = 4;
const RECORD_BYTES: usize = 1024;
/// Records of a `PutRecords`, and of a `GetRecords`.
const BATCH: usize = 100;
/// Different requests of a kind, which are sent in turn.
const VARIANTS: usize = 64;
/// How long a server may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(20);

fn main() {
    let is_quick = env::args().any(|argument| argument == "--quick");
    let (rounds, length) = if is_quick { (1, Duration::from_millis(300)) } else { (7, Duration::from_secs(2)) };
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let wanted: Vec<_> = env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let is_wanted = |title: &str| wanted.is_empty() || wanted.iter().any(|text| title.contains(text));
    for comparison in comparisons().into_iter().filter(|comparison| is_wanted(comparison.title)) {
        comparison.run(directory.path(), rounds, length);
    }
    if is_wanted("Memory") {
        watch_memory(directory.path(), if is_quick { 64 << 20 } else { 4 << 30 });
    }
}

/// One kind of load for several servers.
struct Comparison {
    title: &'static str,
    servers: Vec<Program>,
    load: Load,
    connections: usize,
}

#[derive(Clone, Copy)]
enum Load {
    PutRecord,
    PutRecords,
    GetRecords,
}

fn comparisons() -> Vec<Comparison> {
    let in_memory =
        || [Some(anabranch("buffered")), ferrokinesis(false), kinesalite(false)].into_iter().flatten().collect();
    let on_disk =
        || [Some(anabranch("synced")), ferrokinesis(true), kinesalite(true)].into_iter().flatten().collect();
    let comparison =
        |title, servers: Vec<Program>, load, connections| Comparison { title, servers, load, connections };
    vec![
        comparison("PutRecord, 1 connection; survives the process, or nothing", in_memory(), Load::PutRecord, 1),
        comparison(
            "PutRecord, 16 connections; survives the process, or nothing",
            in_memory(),
            Load::PutRecord,
            16,
        ),
        comparison(
            "PutRecords of 100, 16 connections; survives the process, or nothing",
            in_memory(),
            Load::PutRecords,
            16,
        ),
        comparison("GetRecords of 100, 16 connections", in_memory(), Load::GetRecords, 16),
        comparison("PutRecord, 16 connections; on disk", on_disk(), Load::PutRecord, 16),
    ]
}

/// A server that can be started.
struct Program {
    name: &'static str,
    executable: PathBuf,
    arguments: Vec<String>,
    /// Put before the directory of its data; of one that keeps nothing, nothing.
    data_flag: Option<&'static str>,
}

fn anabranch(durability: &str) -> Program {
    Program {
        name: if durability == "synced" { "anabranch, synced" } else { "anabranch, buffered" },
        executable: env!("CARGO_BIN_EXE_anabranch").into(),
        arguments: vec!["serve".to_owned(), "--durability".to_owned(), durability.to_owned()],
        data_flag: Some("--data"),
    }
}

fn ferrokinesis(is_durable: bool) -> Option<Program> {
    Some(Program {
        name: if is_durable { "ferrokinesis, durable" } else { "ferrokinesis, memory" },
        executable: find("FERROKINESIS", "ferrokinesis")?,
        arguments: vec![
            "--create-stream-ms".to_owned(),
            "0".to_owned(),
            "--log-level".to_owned(),
            "off".to_owned(),
        ],
        data_flag: is_durable.then_some("--state-dir"),
    })
}

fn kinesalite(is_durable: bool) -> Option<Program> {
    Some(Program {
        name: if is_durable { "kinesalite, LevelDB" } else { "kinesalite, memory" },
        executable: find("KINESALITE", "kinesalite")?,
        arguments: vec!["--createStreamMs".to_owned(), "0".to_owned()],
        data_flag: is_durable.then_some("--path"),
    })
}

/// The file that a variable names, or the first of this name on the path.
fn find(variable: &str, name: &str) -> Option<PathBuf> {
    if let Some(path) = env::var_os(variable) {
        return Some(path.into());
    }
    let found = env::split_paths(&env::var_os("PATH")?).map(|place| place.join(name)).find(|file| file.is_file());
    if found.is_none() {
        println!("skipped: {name} is neither on PATH nor named by {variable}");
    }
    found
}

impl Comparison {
    fn run(&self, directory: &Path, rounds: usize, length: Duration) {
        println!(
            "\n{}\n{:24} {:>12} {:>12} {:>12} {:>8}",
            self.title, "", "requests/s", "records/s", "a request", ""
        );
        let per_request = match self.load {
            Load::PutRecord => 1,
            Load::PutRecords | Load::GetRecords => BATCH,
        };
        let mut rates = vec![Vec::new(); self.servers.len()];
        for _ in 0..rounds {
            for (program, rates) in self.servers.iter().zip(&mut rates) {
                // Anew every time: one that keeps all in memory would grow slower from round to round.
                let server = Running::start(program, directory);
                rates.push(self.load.measure(server.address, self.connections, length));
            }
        }
        for (program, of_server) in self.servers.iter().zip(&rates) {
            let ratios = rates[0].iter().zip(of_server).map(|(first, other)| first / other);
            let (rate, ratio) = (median(of_server.clone()), median(ratios.collect()));
            let records = rate * per_request as f64;
            let micros = 1e6 / rate;
            println!("{:24} {rate:12.0} {records:12.0} {micros:9.1} us {ratio:7.2}x", program.name);
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

impl Load {
    /// Requests a second.
    fn measure(self, address: SocketAddr, connections: usize, length: Duration) -> f64 {
        let requests = Arc::new(match self {
            Self::PutRecord => put_record_requests(),
            Self::PutRecords => put_records_requests(),
            Self::GetRecords => get_records_requests(address),
        });
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let started = Instant::now();
        let answered = runtime.block_on(async {
            let mut clients = JoinSet::new();
            for client in 0..connections {
                clients.spawn(ask(address, Arc::clone(&requests), client, started + length));
            }
            clients.join_all().await.into_iter().sum::<usize>()
        });
        answered as f64 / started.elapsed().as_secs_f64()
    }
}

/// Asks until the time is over, and gives how often it was answered.
async fn ask(address: SocketAddr, requests: Arc<Vec<Vec<u8>>>, client: usize, until: Instant) -> usize {
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let (mut answered, mut buffer) = (0, vec![0; 1 << 20]);
    while Instant::now() < until {
        socket.write_all(&requests[(client * 7 + answered) % requests.len()]).await.unwrap();
        let mut filled = 0;
        let length = loop {
            let read = socket.read(&mut buffer[filled..]).await.unwrap();
            assert!(read > 0, "the server went away");
            filled += read;
            if let Some(length) = answer_length(&buffer[..filled]).filter(|length| *length <= filled) {
                break length;
            }
        };
        expect_success(&buffer[..length]);
        answered += 1;
    }
    answered
}

/// Bytes of an answer with a length or in chunks, once its head, and of chunks the end, are there.
fn answer_length(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let length = text.split_once("content-length: ").map(|(_, rest)| rest.split('\r').next().unwrap_or_default());
    match length {
        Some(length) => Some(head + length.parse::<usize>().unwrap()),
        None => bytes.ends_with(b"0\r\n\r\n").then_some(bytes.len()),
    }
}

fn expect_success(answer: &[u8]) {
    let is_success = answer.starts_with(b"HTTP/1.1 200");
    let start = &answer[..answer.len().min(2_000)];
    assert!(is_success, "{}", String::from_utf8_lossy(start));
    let has_failed = start.windows(20).any(|window| window == b"\"FailedRecordCount\":") && {
        let text = String::from_utf8_lossy(answer);
        !text.contains("\"FailedRecordCount\":0")
    };
    assert!(!has_failed, "{}", String::from_utf8_lossy(start));
}

fn put_record_requests() -> Vec<Vec<u8>> {
    (0..VARIANTS)
        .map(|number| request("PutRecord", &format!(r#"{{"StreamName":"load",{}}}"#, record(number))))
        .collect()
}

fn put_records_requests() -> Vec<Vec<u8>> {
    let records = |first: usize| {
        let records: Vec<_> = (first..first + BATCH).map(|number| format!("{{{}}}", record(number))).collect();
        records.join(",")
    };
    let body = |number| format!(r#"{{"StreamName":"load","Records":[{}]}}"#, records(number * BATCH));
    (0..VARIANTS).map(|number| request("PutRecords", &body(number))).collect()
}

/// Fills the stream, and reads its shards from the beginning, again and again.
fn get_records_requests(address: SocketAddr) -> Vec<Vec<u8>> {
    for request in put_records_requests() {
        exchange(address, &request);
    }
    let shards = (0..SHARDS).map(|shard| {
        let body = format!(
            r#"{{"StreamName":"load","ShardId":"shardId-{shard:012}","ShardIteratorType":"TRIM_HORIZON"}}"#
        );
        let answer = exchange(address, &request("GetShardIterator", &body));
        let iterator = answer.split('"').nth(3).expect("an iterator").to_owned();
        let get = request("GetRecords", &format!(r#"{{"ShardIterator":"{iterator}","Limit":{BATCH}}}"#));
        assert_eq!(exchange(address, &get).matches("PartitionKey").count(), BATCH);
        get
    });
    shards.collect()
}

/// The members of a record.
fn record(number: usize) -> String {
    let mut state = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let data: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
    .take(RECORD_BYTES)
    .collect();
    format!(r#""PartitionKey":"user-{number}","Data":"{}""#, BASE64_STANDARD.encode(data))
}

fn request(operation: &str, body: &str) -> Vec<u8> {
    let mut request =
        format!("POST / HTTP/1.1\r\nhost: localhost\r\nx-amz-target: Kinesis_20131202.{operation}\r\n");
    request += "content-type: application/x-amz-json-1.1\r\nx-amz-date: 20261126T000000Z\r\n";
    request += "authorization: AWS4-HMAC-SHA256 Credential=load/20261126/us-east-1/kinesis/aws4_request, \
                SignedHeaders=content-type;host;x-amz-date;x-amz-target, Signature=0000\r\n";
    write!(request, "content-length: {}\r\n\r\n{body}", body.len()).unwrap();
    request.into_bytes()
}

/// One request on a connection of its own; gives the body of the answer.
fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.write_all(request).unwrap();
    let (mut answer, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    let length = loop {
        let read = socket.read(&mut buffer).unwrap();
        assert!(read > 0, "the server went away");
        answer.extend_from_slice(&buffer[..read]);
        if let Some(length) = answer_length(&answer).filter(|length| *length <= answer.len()) {
            break length;
        }
    };
    expect_success(&answer[..length]);
    String::from_utf8_lossy(&answer).split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// A server that runs, on a port and in a directory of its own; killed when dropped.
struct Running {
    process: Child,
    address: SocketAddr,
    _data: tempfile::TempDir,
}

impl Running {
    fn start(program: &Program, directory: &Path) -> Self {
        let data = tempfile::tempdir_in(directory).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(&program.executable);
        command.args(&program.arguments).arg("--port").arg(port.to_string());
        if let Some(flag) = program.data_flag {
            command.arg(flag).arg(data.path());
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", program.name));
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let running = Self { process, address, _data: data };
        wait_until_it_listens(address).unwrap_or_else(|error| panic!("{}: {error}", program.name));
        exchange(address, &request("CreateStream", &format!(r#"{{"StreamName":"load","ShardCount":{SHARDS}}}"#)));
        std::thread::sleep(Duration::from_millis(100)); // those that create behind the answer
        running
    }

    /// Of the process, in bytes: what is its own, and what of files is mapped.
    fn memory(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap(); // Linux
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
        };
        (field("RssAnon:"), field("RssFile:"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn wait_until_it_listens(address: SocketAddr) -> io::Result<()> {
    let started = Instant::now();
    loop {
        match TcpStream::connect(address) {
            Ok(_) => return Ok(()),
            Err(error) if started.elapsed() > START_TIMEOUT => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// Puts so many bytes, and prints the server's memory eight times on the way.
fn watch_memory(directory: &Path, bytes: usize) {
    let server = Running::start(&anabranch("buffered"), directory);
    let requests = put_records_requests();
    println!("\nMemory of anabranch while data passes\n{:>10} {:>12} {:>14}", "MiB put", "own MiB", "mapped MiB");
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let calls = bytes / (BATCH * RECORD_BYTES);
    for part in 0..8 {
        let (own, mapped) = server.memory();
        println!("{:10} {:12} {:14}", (part * bytes / 8) >> 20, own >> 20, mapped >> 20);
        runtime.block_on(async {
            let mut socket = tokio::net::TcpStream::connect(server.address).await.unwrap();
            let mut buffer = vec![0; 1 << 16];
            for call in 0..calls / 8 {
                socket.write_all(&requests[call % requests.len()]).await.unwrap();
                let mut filled = 0;
                while answer_length(&buffer[..filled]).is_none_or(|length| length > filled) {
                    filled += socket.read(&mut buffer[filled..]).await.unwrap();
                }
                expect_success(&buffer[..filled]);
            }
        });
    }
    let (own, mapped) = server.memory();
    println!("{:10} {:12} {:14}", bytes >> 20, own >> 20, mapped >> 20);
}
