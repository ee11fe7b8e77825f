//! Streams that earlier releases wrote, opened by this one.
//!
//! `tests/fixtures/v1` holds streams of format version 1 as they stood on the disk, each beside a plain text that says what is in it.
//! The tests copy each to a temporary directory and open it there, to read and to write; every record must be what the text says, and
//! the stream must go on from there. A format that changes without a new version number, or a release that no longer
//! reads an old version, fails here.
//!
//! The fixtures of a released version are never made again. To make those of a version that is not released yet, where they are missing:
//!
//! ```text
//! cargo test --test fixtures -- --ignored write_the_fixtures
//! ```
//!
//! The clock in them is a manual one; stream ids are drawn anew each time, and so checksums differ from run to run.
//!
//! Version control keeps no empty directories: a shard that has no segment yet has none in the fixture, and the tests make
//! it from the list of shards in the text.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anabranch::{
    Clock, HashKey, ManualClock, PartitionHash, Position, PutEntry, PutOptions, PutReceipt, QueueOptions,
    Received, Record, RetentionPeriod, ShardId, ShardIteratorType, Stream, StreamBuilder, Timestamp,
    VerifyOptions, verify,
};
use tempfile::TempDir;

/// Each fixture: its name, its hash, and whether its writer closed it or was killed.
const FIXTURES: [(&str, PartitionHash, bool); 8] = [
    ("xxh3-closed", PartitionHash::Xxh3, true),
    ("xxh3-killed", PartitionHash::Xxh3, false),
    ("md5-closed", PartitionHash::Md5, true),
    ("md5-killed", PartitionHash::Md5, false),
    ("producers-closed", PartitionHash::Xxh3, true),
    ("producers-killed", PartitionHash::Xxh3, false),
    ("consumers-closed", PartitionHash::Xxh3, true),
    ("consumers-killed", PartitionHash::Xxh3, false),
];

/// Whether a producer and a fencing token are in a fixture: the others were made before there were any.
fn has_producers(name: &str) -> bool {
    name.starts_with("producers")
}

/// Whether a consumer and a queue are in a fixture.
fn has_consumers(name: &str) -> bool {
    name.starts_with("consumers")
}

/// The fencing token of the stream's lowest shard, and of its descendants.
const TOKEN: u64 = 7;

/// The keys of the batches of the producer `importer`, 1 and 2.
fn stamped_keys() -> Vec<String> {
    (0..6).map(|index| format!("stamped-{index}")).collect()
}

fn put_stamped(stream: &Stream, number: u64) -> Vec<PutReceipt> {
    let (keys, data) = (stamped_keys(), format!("batch {number}"));
    let entries: Vec<_> = keys.iter().map(|key| PutEntry::new(key, data.as_bytes())).collect();
    stream.producer("importer").unwrap().put_batch(number, &entries).unwrap()
}

/// Has a consumer and a queue do some of what is there; gives lines that say what, and what is left.
///
/// ```text
/// checkpoint SHARD NUMBER|-
/// received SHARD NUMBER   of the queue, and not acknowledged
/// ```
fn consume(stream: &Stream) -> String {
    let mut text = String::new();
    let consumer = stream.consumer("billing").unwrap();
    for shard in stream.shards() {
        let lease = consumer.take(shard.shard_id, "worker-1").unwrap();
        let records = lease.iterator().unwrap().next_records(2).unwrap();
        if let Some(last) = records.last() {
            lease.checkpoint(last).unwrap();
        }
        let last = records.last().map_or("-".to_owned(), |last| last.sequence_number().to_string());
        writeln!(text, "checkpoint {} {last}", shard.shard_id.get()).unwrap();
    }
    let queue = stream.queue("orders", QueueOptions::new()).unwrap();
    let received = queue.receive(9, Duration::ZERO).unwrap();
    for record in &received[..4] {
        queue.acknowledge(record).unwrap();
    }
    for Received { record, .. } in &received[4..] {
        writeln!(text, "received {} {}", record.shard_id().get(), record.sequence_number()).unwrap();
    }
    queue.sync().unwrap();
    text
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1")
}

fn builder(clock: &Arc<ManualClock>) -> StreamBuilder {
    Stream::builder().background(false).clock(Arc::clone(clock) as Arc<dyn Clock>)
}

// ---- the text beside a fixture ----

/// All that a reader is shown of a stream, one line for each shard and each record.
///
/// ```text
/// stream ID created MS incarnation N hash KIND retention MS clean yes|no now MS
/// shard ID parents [ID+ID] range START..=END state open|closed starting N next N
/// record SHARD NUMBER arrival MS incarnation N hash-key KEY|- key "KEY" data HEX*TIMES|-
/// ```
fn describe(stream: &Stream, clean: bool, now: Timestamp) -> String {
    let described = stream.describe().unwrap();
    let mut text = String::new();
    let hash = match described.partition_hash {
        PartitionHash::Md5 => "md5",
        _ => "xxh3",
    };
    writeln!(
        text,
        "stream {} created {} incarnation {} hash {hash} retention {} clean {} now {}",
        described.stream_id,
        described.created.as_millis(),
        described.incarnation,
        described.retention.as_millis().unwrap(),
        if clean { "yes" } else { "no" },
        now.as_millis(),
    )
    .unwrap();
    for shard in &described.shards {
        let summary = &shard.summary;
        let parents: Vec<_> = summary.parents.iter().map(|parent| parent.get().to_string()).collect();
        writeln!(
            text,
            "shard {} parents [{}] range {} state {} starting {} next {}",
            summary.shard_id.get(),
            parents.join("+"),
            summary.hash_key_range,
            summary.state,
            shard.starting_sequence_number,
            shard.next_sequence_number,
        )
        .unwrap();
    }
    for shard in &described.shards {
        let mut iterator = stream.shard_iterator(shard.summary.shard_id, ShardIteratorType::TrimHorizon).unwrap();
        for record in iterator.available() {
            text.push_str(&line(&record.unwrap()));
        }
    }
    text
}

fn line(record: &Record) -> String {
    format!(
        "record {} {} arrival {} incarnation {} hash-key {} key {:?} data {}\n",
        record.shard_id().get(),
        record.sequence_number(),
        record.arrival().as_millis(),
        record.incarnation(),
        record.explicit_hash_key().map_or("-".to_owned(), |key| key.to_string()),
        record.partition_key(),
        repeated(record.data()),
    )
}

/// The shortest piece that, repeated, is the data: in hexadecimal, and how often.
fn repeated(data: &[u8]) -> String {
    if data.is_empty() {
        return "-".to_owned();
    }
    let is_piece =
        |length: &usize| data.len().is_multiple_of(*length) && data.chunks(*length).all(|c| *c == data[..*length]);
    let length = (1..=data.len()).find(is_piece).unwrap();
    let mut text = String::new();
    for byte in &data[..length] {
        write!(text, "{byte:02x}").unwrap();
    }
    format!("{text}*{}", data.len() / length)
}

/// The word behind `name` in the first line of a text.
fn field<'a>(text: &'a str, name: &str) -> &'a str {
    let line = text.lines().next().unwrap();
    let mut words = line.split(' ');
    words.find(|word| *word == name).unwrap_or_else(|| panic!("no {name} in {line}"));
    words.next().unwrap()
}

// ---- opening them ----

/// Copies the files of a directory; empty directories are left out, as version control leaves them out.
fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::create_dir_all(to).unwrap();
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// A fixture that was copied, so that it can be written to.
struct Copied {
    directory: TempDir,
    expected: String,
    /// What [`consume`] said.
    consumed: String,
    clock: Arc<ManualClock>,
}

impl Copied {
    fn new(name: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let text = fs::read_to_string(fixtures().join(format!("{name}.txt"))).unwrap();
        let is_of_stream = |line: &&str| !line.starts_with("checkpoint ") && !line.starts_with("received ");
        let (expected, consumed): (String, String) = text.split_inclusive('\n').partition(is_of_stream);
        let stream = directory.path().join("stream");
        copy(&fixtures().join(name), &stream);
        for shard in expected.lines().filter(|line| line.starts_with("shard ")) {
            let id: u32 = field(shard, "shard").parse().unwrap();
            fs::create_dir_all(stream.join(format!("shards/{id:012}"))).unwrap();
        }
        let now = field(&expected, "now").parse().unwrap();
        let clock = Arc::new(ManualClock::at(Timestamp::from_millis(now)));
        Self { directory, expected, consumed, clock }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("stream")
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn builder(&self) -> StreamBuilder {
        builder(&self.clock)
    }

    /// The lines of a kind in the text.
    fn lines(&self, kind: &str) -> Vec<&str> {
        self.expected.lines().filter(|line| line.starts_with(kind)).collect()
    }
}

/// The bytes of all segment files of a stream.
fn segments(stream: &Path) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for shard in fs::read_dir(stream.join("shards")).unwrap() {
        for segment in fs::read_dir(shard.unwrap().path()).unwrap() {
            found.push(fs::read(segment.unwrap().path()).unwrap());
        }
    }
    found
}

fn assert_same(name: &str, found: &str, expected: &str) {
    for (found, expected) in found.lines().zip(expected.lines()) {
        assert_eq!(found, expected, "{name}");
    }
    assert_eq!(found.lines().count(), expected.lines().count(), "{name}");
}

#[test]
fn every_fixture_holds_what_it_was_made_for() {
    for (name, _, closed) in FIXTURES {
        let fixture = Copied::new(name);
        assert_eq!(field(&fixture.expected, "clean"), if closed { "yes" } else { "no" });
        let shards = fixture.lines("shard ");
        let records = fixture.lines("record ");
        assert!(shards.iter().any(|line| field(line, "parents") == "[0]"), "{name}: a split");
        assert!(shards.iter().any(|line| field(line, "parents").contains('+')), "{name}: a merge");
        assert!(
            shards
                .iter()
                .any(|line| field(line, "state") == "open" && field(line, "starting") == field(line, "next"))
        );
        assert!(records.iter().any(|line| field(line, "hash-key") != "-"), "{name}: explicit hash keys");
        assert!(records.iter().any(|line| field(line, "hash-key") == HashKey::MAX.to_string()), "{name}");
        assert!(records.iter().any(|line| line.ends_with("data -")), "{name}: empty data");
        assert!(records.iter().any(|line| !line.is_ascii()), "{name}: a key that is not ASCII");
        assert!(
            records[0].starts_with("record 0 ") && !records[0].starts_with("record 0 0 "),
            "{name}: a trimmed segment"
        );
        let segments = segments(&fixture.path());
        assert!(segments.len() > shards.len(), "{name}: rolls");
        assert!(!fixtures().join(name).join("shards/000000000006").exists(), "{name}: a shard without a segment");
        let bytes: usize = segments.iter().map(Vec::len).sum();
        assert!(bytes <= 64 << 10, "{name}: {bytes} bytes are much for a repository");
    }
}

#[test]
fn fixtures_are_of_the_version_they_are_filed_under() {
    for (name, _, _) in FIXTURES {
        let manifest = fs::read(fixtures().join(name).join("MANIFEST")).unwrap();
        assert_eq!(&manifest[..12], b"ANABRMAN\x01\0\0\0", "{name}");
        let segments = segments(&fixtures().join(name));
        assert!(!segments.is_empty(), "{name}");
        assert!(segments.iter().all(|bytes| bytes.starts_with(b"ANABRSEG\x01\0\0\0")), "{name}");
    }
}

#[test]
fn fixtures_verify() {
    for (name, _, closed) in FIXTURES {
        let fixture = Copied::new(name);
        let report = verify(fixture.path(), VerifyOptions::default()).unwrap();
        assert!(report.is_sound(), "{name}: {:?}", report.damage);
        assert_eq!(report.clean_close, closed, "{name}");
        assert_eq!(report.torn_tails, [], "{name}");
        assert_eq!(report.shards, fixture.lines("shard ").len() as u64, "{name}");
        assert!(report.records >= fixture.lines("record ").len() as u64, "{name}");
    }
}

#[test]
fn fixtures_are_read_without_being_changed() {
    for (name, hash, closed) in FIXTURES {
        let fixture = Copied::new(name);
        let before = fs::read(fixture.path().join("MANIFEST")).unwrap();
        let reader = fixture.builder().partition_hash(hash).open_read_only(fixture.path()).unwrap();
        assert_eq!(reader.recovery().was_clean, closed);
        assert_same(name, &describe(&reader, closed, fixture.now()), &fixture.expected);
        assert_eq!(fs::read(fixture.path().join("MANIFEST")).unwrap(), before, "{name}");
    }
}

#[test]
fn fixtures_are_opened_for_writing_and_go_on() {
    for (name, hash, closed) in FIXTURES {
        let fixture = Copied::new(name);
        let stream = fixture.builder().partition_hash(hash).open_existing(fixture.path()).unwrap();
        let recovery = stream.recovery();
        assert_eq!(recovery.was_clean, closed, "{name}");
        assert_eq!(recovery.records_recovered > 0, !closed, "{name}: {recovery:?}");
        assert_eq!(recovery.torn_tails, [], "{name}");

        // The incarnation is the one thing that an opening changes.
        let before: u64 = field(&fixture.expected, "incarnation").parse().unwrap();
        let (own, next) = (format!("incarnation {before} hash"), format!("incarnation {} hash", before + 1));
        let found = describe(&stream, closed, fixture.now());
        assert_same(name, &found, &fixture.expected.replacen(&own, &next, 1));

        if has_producers(name) {
            remembers(name, &fixture, &stream);
        }
        if has_consumers(name) {
            goes_on_consuming(name, &fixture, &stream);
        }
        go_on(name, &fixture, &stream);
        let expected = describe(&stream, true, fixture.now());
        stream.close().unwrap();
        let report = verify(fixture.path(), VerifyOptions::default()).unwrap();
        assert!(report.is_sound() && report.clean_close, "{name}: {:?}", report.damage);
        let reader = fixture.builder().open_read_only(fixture.path()).unwrap();
        assert_same(name, &describe(&reader, true, fixture.now()), &expected);
    }
}

/// The producer's last batch is answered, and a fenced put has to show the token.
fn remembers(name: &str, fixture: &Copied, stream: &Stream) {
    let before = stream.metrics().records_in;
    let place = |receipt: &PutReceipt| format!("record {} {}", receipt.shard_id.get(), receipt.sequence_number);
    for (key, receipt) in stamped_keys().iter().zip(put_stamped(stream, 2)) {
        let mut found = fixture.lines("record ").into_iter().filter(|line| line.contains(&format!("key {key:?}")));
        let second = found.next_back().unwrap();
        assert!(second.starts_with(&format!("{} ", place(&receipt))), "{name}: {second} {receipt:?}");
    }
    assert_eq!(stream.metrics().records_in, before, "{name}");
    assert_eq!(stream.fencing_token(stream.open_shards()[0]).unwrap(), TOKEN, "{name}");
}

/// The consumer and the queue stand where they stood, and have everything before them that they had.
fn goes_on_consuming(name: &str, fixture: &Copied, stream: &Stream) {
    let consumer = stream.consumer("billing").unwrap();
    let all: Vec<_> = stream
        .shards()
        .iter()
        .flat_map(|shard| {
            let mut iterator = stream.shard_iterator(shard.shard_id, ShardIteratorType::TrimHorizon).unwrap();
            iterator.next_records(usize::MAX).unwrap()
        })
        .map(|record| format!("received {} {}", record.shard_id().get(), record.sequence_number()))
        .collect();
    let (checkpoints, received): (Vec<_>, Vec<_>) =
        fixture.consumed.lines().partition(|line| line.starts_with("checkpoint "));
    assert_eq!((checkpoints.len(), received.len()), (stream.shards().len(), 5), "{name}");
    for (shard, line) in stream.shards().iter().zip(checkpoints) {
        let checkpoint = consumer.checkpoint(shard.shard_id).unwrap();
        assert_eq!(checkpoint.owner.as_deref(), Some("worker-1"), "{name}");
        let last = match checkpoint.position {
            Position::After(position) => position.sequence_number.to_string(),
            _ => "-".to_owned(),
        };
        assert_eq!(format!("checkpoint {} {last}", shard.shard_id.get()), line, "{name}");
    }
    let queue = stream.queue("orders", QueueOptions::new()).unwrap();
    let mut counts: Vec<_> = queue.receive(1_000, Duration::ZERO).unwrap();
    counts.sort_by_key(|received| received.receive_count);
    assert_eq!(counts.len(), all.len() - 4, "{name}: four were acknowledged");
    let again = counts.iter().filter(|received| received.receive_count == 2);
    let mut again: Vec<_> = again
        .map(|Received { record, .. }| {
            format!("received {} {}", record.shard_id().get(), record.sequence_number())
        })
        .collect();
    again.sort_unstable();
    let mut received = received;
    received.sort_unstable();
    assert_eq!(again, received, "{name}");
    assert!(received.iter().all(|line| all.iter().any(|other| other == line)), "{name}");
}

/// Appends to every open shard, by batch and one by one, then reshards.
fn go_on(name: &str, fixture: &Copied, stream: &Stream) {
    let next_of = |line: &&str| field(line, "next").parse::<u64>().unwrap();
    let open: Vec<_> = fixture.lines("shard ").into_iter().filter(|line| field(line, "state") == "open").collect();
    assert_eq!(stream.open_shards().len(), open.len(), "{name}");
    for line in &open {
        let id = ShardId::new(field(line, "shard").parse().unwrap());
        let start = field(line, "range").split("..=").next().unwrap().parse().unwrap();
        for step in 0..20 {
            let put = PutOptions::new().explicit_hash_key(start);
            let receipt = stream.put_with("new", [7; 300], put).unwrap();
            assert_eq!((receipt.shard_id, receipt.sequence_number.get()), (id, next_of(line) + step), "{name}");
        }
    }
    let keys: Vec<_> = (0..50).map(|index| format!("new-{index}")).collect();
    let entries: Vec<_> = keys.iter().map(|key| PutEntry::new(key, b"batch")).collect();
    let receipts = stream.put_batch(&entries).unwrap();
    for (receipt, key) in receipts.iter().zip(&keys) {
        let record = stream.get(receipt.shard_id, receipt.sequence_number).unwrap();
        assert_eq!((record.partition_key(), record.data()), (key.as_str(), &b"batch"[..]), "{name}");
    }
    fixture.clock.advance(Duration::from_secs(1));
    let highest = stream.shards().last().unwrap().shard_id.get();
    let (lower, upper) = stream.split_shard(stream.open_shards()[0], None).unwrap();
    assert_eq!((lower.get(), upper.get()), (highest + 1, highest + 2), "{name}: ids go on");
    stream.merge_shards(lower, upper).unwrap();
    stream.put("new", b"after the merge").unwrap();
}

#[test]
fn records_keep_their_routes() {
    // A record without a hash key of its own must lie where its partition key leads today.
    for (name, _, _) in FIXTURES {
        let fixture = Copied::new(name);
        let stream = fixture.builder().open_read_only(fixture.path()).unwrap();
        let shards = stream.shards();
        let mut checked = 0;
        for shard in &shards {
            let mut iterator = stream.shard_iterator(shard.shard_id, ShardIteratorType::TrimHorizon).unwrap();
            for record in iterator.available() {
                let record = record.unwrap();
                let key = record.explicit_hash_key().unwrap_or(stream.hash_key(record.partition_key()).unwrap());
                assert!(shard.hash_key_range.contains(key), "{name}: {record:?}");
                checked += 1;
            }
        }
        assert_eq!(checked, fixture.lines("record ").len(), "{name}");
    }
}

// ---- making them ----

/// Writes the fixtures of the present version that are not there: see the top of this file for when.
#[test]
#[ignore = "writes to the source tree"]
fn write_the_fixtures() {
    fs::create_dir_all(fixtures()).unwrap();
    for (name, hash, closed) in FIXTURES {
        if fixtures().join(name).exists() {
            continue;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("stream");
        let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_767_225_600_000)));
        let stream = write(&path, hash, &clock, has_producers(name));
        let mut described = describe(&stream, closed, clock.now());
        if has_consumers(name) {
            described.push_str(&consume(&stream));
        }
        if closed {
            stream.close().unwrap();
            copy(&path, &fixtures().join(name));
        } else {
            copy(&path, &fixtures().join(name)); // the files as a killed process leaves them
        }
        fs::write(fixtures().join(format!("{name}.txt")), described).unwrap();
    }
}

/// A history with one of everything, in segments as small as there are.
fn write(path: &Path, hash: PartitionHash, clock: &Arc<ManualClock>, producers: bool) -> Stream {
    let options = builder(clock).shards(2).segment_bytes(4 << 10).retention(RetentionPeriod::hours(168));
    options.partition_hash(hash).create(path).unwrap().close().unwrap();
    // A second incarnation, so that its number is not the one that everything starts with.
    let stream = builder(clock).open_existing(path).unwrap();
    let tick = || clock.advance(Duration::from_millis(1_250));
    if producers {
        stream.fence_shard(ShardId::new(0), TOKEN).unwrap();
        put_stamped(&stream, 1);
    }

    // Shard 0 rolls three times; its first segment is trimmed.
    for index in 0..24_u8 {
        put(&stream, HashKey::MIN, &format!("minimum-{index}"), &[index, index ^ 0xff].repeat(210));
        tick();
    }
    let report = stream.trim_shard(ShardId::new(0), if producers { 12 } else { 8 }.into()).unwrap();
    assert_eq!(report.segments_removed, 1);

    // Both shards, by their partition keys: empty data, all bytes, keys of every width, a batch.
    let all_bytes: Vec<u8> = (0..=255).collect();
    let long_key = "k".repeat(256);
    let entries = [
        PutEntry::new("empty", b""),
        PutEntry::new("all bytes", &all_bytes),
        PutEntry::new("é-ж-水-🦀", "é-ж-水-🦀".as_bytes()),
        PutEntry::new(&long_key, b"the longest key"),
        PutEntry { explicit_hash_key: Some(HashKey::MAX), ..PutEntry::new("maximum", b"the highest hash key") },
    ];
    stream.put_batch(&entries).unwrap();
    tick();
    for index in 0..10 {
        stream.put(format!("user-{index}"), format!("{index}")).unwrap();
    }

    if producers {
        put_stamped(&stream, 2);
    }

    // 0 splits into 2 and 3; 3 and 1 merge to 4; 4 splits into 5 and 6. The last two share the rest, one of them gets none of it.
    tick();
    let (_, upper) = stream.split_shard(ShardId::new(0), None).unwrap();
    for index in 0..5 {
        stream.put(format!("after the split {index}"), b"split").unwrap();
    }
    tick();
    let merged = stream.merge_shards(upper, ShardId::new(1)).unwrap();
    for index in 0..5 {
        stream.put(format!("after the merge {index}"), b"merged").unwrap();
    }
    tick();
    stream.split_shard(merged, Some(HashKey::new(u128::MAX - 9))).unwrap();
    for index in 0..3 {
        put(&stream, HashKey::MIN, &format!("last-{index}"), b"the end");
        tick();
    }
    put(&stream, HashKey::new(1 << 127), "middle", b"the middle");
    stream
}

fn put(stream: &Stream, at: HashKey, key: &str, data: &[u8]) {
    stream.put_with(key, data, PutOptions::new().explicit_hash_key(at)).unwrap();
}
