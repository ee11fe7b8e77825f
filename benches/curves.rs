//! Whether a put costs the same in a stream of one shard and of ten thousand, of a megabyte and of gigabytes.
//!
//! `cargo bench --bench curves -- [--gib N] [--chart FILE]`: tables of the two curves up to N GiB (1 unless told), which it writes below the directory for benchmarks, and a chart of them.
//! Costs are processor time of the calling thread, the kernel's part of it included: it does not count how long the disk, or the page that was thrown out of memory, is waited for. Medians of
//! pieces.
#![allow(missing_docs, reason = "a program")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a failure ends the benchmark"
)]

mod support;

use std::fmt::Write;
use std::hint::black_box;
use std::time::{Duration, Instant};

use anabranch::{Durability, HashKey, PutEntry, PutOptions, SequenceNumber, ShardId, Stream, StreamBuilder};
use support::{Place, median, processor_time};

const SHARDS: [u32; 8] = [1, 4, 16, 64, 256, 1_024, 4_096, 10_000];
const MEBIBYTES: [u64; 8] = [1, 4, 16, 64, 256, 1_024, 4_096, 20_480];
const PIECES: usize = 15;
const CALLS: u64 = 4_000;
/// Of one record.
const BYTES: usize = 1 << 10;

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let value = |name: &str| arguments.iter().skip_while(|argument| *argument != name).nth(1);
    let most = value("--gib").map_or(1, |gibibytes| gibibytes.parse().unwrap()) << 10;
    let (shards, sizes) = (over_shards(), over_size(most));
    if let Some(path) = value("--chart") {
        std::fs::write(path, chart(&shards, &sizes)).unwrap();
    }
}

/// What depends on one quantity.
struct Curve {
    title: &'static str,
    lines: &'static [(&'static str, &'static str)],
    points: Vec<(String, Vec<f64>)>,
}

fn builder() -> StreamBuilder {
    // No sync in the background, which would come into some pieces and not into others.
    Stream::builder()
        .durability(Durability::Buffered)
        .flush_interval(Duration::from_secs(3_600))
        .flush_bytes(u64::MAX / 16)
}

fn over_shards() -> Curve {
    println!("{:>8} {:>16} {:>16} {:>12} {:>12}", "shards", "put, one shard", "put, at random", "split", "merge");
    let points = SHARDS.map(|shards| {
        let place = Place::new();
        let stream = builder().shards(shards).create(place.stream()).unwrap();
        let mut next = Random(1);
        for summary in stream.shards() {
            put_to(&stream, summary.hash_key_range.start()); // the first makes the shard's file
        }
        stream.sync().unwrap();
        let one = cost(|| put_to(&stream, HashKey::MAX));
        let random = cost(|| put_to(&stream, next.hash_key()));
        let (split, merge) = reshards(&stream);
        println!("{shards:8} {one:13.0} ns {random:13.0} ns {split:9.2} ms {merge:9.2} ms");
        stream.close().unwrap();
        (shards.to_string(), vec![one, random])
    });
    let lines = &[("ours", "put to one of the shards"), ("other", "put to shards at random")];
    Curve { title: "Shards", lines, points: points.into() }
}

fn put_to(stream: &Stream, key: HashKey) {
    stream.put_with("partition-000001", [0xa5; BYTES], PutOptions::new().explicit_hash_key(key)).unwrap();
}

/// Milliseconds by the wall: they wait for the disk.
fn reshards(stream: &Stream) -> (f64, f64) {
    let (mut splits, mut merges) = (Vec::new(), Vec::new());
    for _ in 0..PIECES {
        let shard = stream.route("partition-000001").unwrap();
        let started = Instant::now();
        let (left, right) = stream.split_shard(shard, None).unwrap();
        splits.push(started.elapsed().as_secs_f64() * 1e3);
        let started = Instant::now();
        stream.merge_shards(left, right).unwrap();
        merges.push(started.elapsed().as_secs_f64() * 1e3);
    }
    (median(&mut splits), median(&mut merges))
}

fn over_size(most: u64) -> Curve {
    println!("{:>8} {:>16} {:>16} {:>12}", "MiB", "put", "get at random", "open");
    let place = Place::new();
    let mut stream = builder().create(place.stream()).unwrap();
    let (mut points, mut random) = (Vec::new(), Random(1));
    let data = vec![0xa5; BYTES];
    let batch: Vec<_> = (0..256).map(|_| PutEntry::new("partition-000001", &data)).collect();
    for mebibytes in MEBIBYTES.into_iter().filter(|mebibytes| *mebibytes <= most) {
        while records(&stream) < mebibytes << 10 {
            stream.put_batch(&batch).unwrap();
        }
        stream.close().unwrap(); // and all is on the disk: the system has nothing to write back meanwhile
        let started = Instant::now();
        stream = builder().open_existing(place.stream()).unwrap();
        let open = started.elapsed().as_secs_f64() * 1e3;
        let count = records(&stream);
        let get = cost(|| {
            let number = SequenceNumber::new(random.below(count));
            assert_eq!(black_box(stream.get(ShardId::new(0), number).unwrap().data()).len(), BYTES);
        });
        put_to(&stream, HashKey::MAX); // the first makes a file
        let put = cost(|| put_to(&stream, HashKey::MAX));
        println!("{mebibytes:8} {put:13.0} ns {get:13.0} ns {open:9.2} ms");
        let size = if mebibytes < 1_024 { format!("{mebibytes} MiB") } else { format!("{} GiB", mebibytes >> 10) };
        points.push((size, vec![put, get]));
    }
    Curve { title: "Size of a shard", lines: &[("ours", "put"), ("other", "get, at random")], points }
}

fn records(stream: &Stream) -> u64 {
    stream.describe().unwrap().shards.iter().map(|shard| shard.records).sum()
}

/// Nanoseconds of this thread for a call.
fn cost(mut call: impl FnMut()) -> f64 {
    let mut pieces: Vec<_> = (0..=PIECES)
        .map(|_| {
            let before = processor_time();
            (0..CALLS).for_each(|_| call());
            processor_time().saturating_sub(before).as_nanos() as f64 / CALLS as f64
        })
        .collect();
    median(&mut pieces[1..]) // the first warms up
}

/// Numbers that repeat from run to run: splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn hash_key(&mut self) -> HashKey {
        HashKey::new(u128::from(self.next()) << 64)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

const WIDTH: f64 = 420.0;
const LEFT: f64 = 56.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 250.0;
/// What the axis of costs begins and ends with, in nanoseconds.
const COSTS: (f64, f64) = (100.0, 1_000_000.0);

fn chart(left: &Curve, right: &Curve) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} 320\" role=\"img\" font-family=\"sans-serif\" font-size=\"12\">\n<title>what a put costs over shards and size</title>\n\
         <style>.ours{{stroke:#0969da}}.other{{stroke:#b03a2e}}.line{{fill:none;stroke-width:2}}</style>\n<rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"#fff\"/>\n",
        2.0 * WIDTH
    );
    panel(&mut svg, left, 0.0);
    panel(&mut svg, right, WIDTH);
    svg + "</svg>\n"
}

fn panel(svg: &mut String, curve: &Curve, x: f64) {
    let y = |nanos: f64| BOTTOM - (nanos / COSTS.0).log10() / (COSTS.1 / COSTS.0).log10() * (BOTTOM - TOP);
    let step = (WIDTH - LEFT - 40.0) / (curve.points.len().max(2) - 1) as f64;
    let at = |index: usize| x + LEFT + step * index as f64;
    writeln!(svg, "<text x=\"{}\" y=\"24\" font-weight=\"600\">{}</text>", x + LEFT, curve.title).unwrap();
    for (nanos, label) in
        [(100.0, "0.1 us"), (1_000.0, "1 us"), (10_000.0, "10 us"), (100_000.0, "100 us"), (1_000_000.0, "1 ms")]
    {
        let (height, end) = (y(nanos), x + WIDTH - 40.0);
        writeln!(svg, "<path stroke=\"#ccc\" stroke-width=\".5\" d=\"M{} {height:.1}H{end}\"/>", x + LEFT)
            .unwrap();
        let text = height + 4.0;
        writeln!(svg, "<text x=\"{}\" y=\"{text:.1}\" text-anchor=\"end\">{label}</text>", x + LEFT - 6.0)
            .unwrap();
    }
    for (index, (name, _)) in curve.points.iter().enumerate() {
        writeln!(
            svg,
            "<text x=\"{:.0}\" y=\"270\" text-anchor=\"middle\" font-size=\"11\">{name}</text>",
            at(index)
        )
        .unwrap();
    }
    for (number, (class, name)) in curve.lines.iter().enumerate() {
        let places = curve.points.iter().enumerate();
        let places = places.map(|(index, (_, costs))| format!("{:.1},{:.1}", at(index), y(costs[number])));
        let places = places.collect::<Vec<_>>().join(" ");
        writeln!(svg, "<polyline class=\"line {class}\" points=\"{places}\"/>").unwrap();
        let key = x + LEFT + 190.0 * number as f64;
        writeln!(
            svg,
            "<path class=\"line {class}\" d=\"M{key} 296h18\"/><text x=\"{}\" y=\"300\">{name}</text>",
            key + 24.0
        )
        .unwrap();
    }
}
