//! A day of a stream on demand: its load rises and falls, one key is hot for an hour and a half in the morning, and the shards follow. On a clock that
//! the example moves and a disk in memory, so that the day takes seconds and is the same at every run.
//!
//! `cargo run --release --example capacity` prints the hours; with a path, it draws the day there as SVG.

#![allow(clippy::print_stdout)] // a program's output, not a library's
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)] // small numbers, drawn

use std::error::Error;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use anabranch::{
    Capacity, CapacityPolicy, Durability, ManualClock, PutEntry, RetentionPeriod, SimulatedDisk, Stream,
};

/// Records a second that are a shard's target.
const TARGET: u32 = 4;
const TICK_SECONDS: u32 = 10;
const TICKS_AN_HOUR: u32 = 3_600 / TICK_SECONDS;
const KEYS: u32 = 5_000;

/// Records a second of all keys but the hot one, hour by hour; in between, it is interpolated.
const HOURS: [f64; 25] = [
    4.0, 3.0, 2.0, 2.0, 3.0, 6.0, 12.0, 22.0, 32.0, 38.0, 42.0, 46.0, 52.0, 56.0, 52.0, 46.0, 38.0, 28.0, 18.0,
    12.0, 8.0, 6.0, 5.0, 4.0, 4.0,
];

fn hot_load(hour: f64) -> f64 {
    if (9.0..10.5).contains(&hour) { 24.0 } else { 0.0 }
}

fn load(hour: f64) -> f64 {
    let before = hour.floor();
    let at = |hour: f64| HOURS.get(hour as usize).copied().unwrap_or(4.0);
    at(before) + (at(before + 1.0) - at(before)) * (hour - before)
}

/// What was seen at one time of the day.
struct Seen {
    hour: f64,
    others: f64,
    hot: f64,
    shards: u32,
}

fn main() -> Result<(), Box<dyn Error>> {
    let day = live_through_a_day()?;
    println!("hour  records/s  of the hot key  shards");
    for seen in day.iter().step_by(TICKS_AN_HOUR as usize) {
        println!("{:4.0}  {:9.1}  {:14.1}  {:6}", seen.hour, seen.others + seen.hot, seen.hot, seen.shards);
    }
    if let Some(path) = std::env::args().nth(1) {
        std::fs::write(&path, draw(&day)?)?;
        println!("drawn: {path}");
    }
    Ok(())
}

fn live_through_a_day() -> Result<Vec<Seen>, Box<dyn Error>> {
    let clock = Arc::new(ManualClock::default());
    let policy = CapacityPolicy::default().min_shards(2).records_per_second(u64::from(TARGET));
    let stream = Stream::builder()
        .capacity(Capacity::OnDemand(policy))
        .durability(Durability::Buffered)
        .retention(RetentionPeriod::hours(1))
        .clock(clock.clone())
        .storage(Arc::new(SimulatedDisk::new()))
        .background(false) // what it would do in its time is called for below
        .create("day")?;
    let mut day = Vec::new();
    let (mut drawn, mut owed, mut put) = (1, 0.0, 0);
    for tick in 0..24 * TICKS_AN_HOUR {
        let hour = f64::from(tick) / f64::from(TICKS_AN_HOUR);
        let (others, hot) = (load(hour), hot_load(hour));
        owed += (others + hot) * f64::from(TICK_SECONDS);
        let count = owed as u32;
        owed -= f64::from(count);
        let keys: Vec<_> = (0..count).map(|_| key(&mut drawn, hot / (others + hot))).collect();
        let entries: Vec<_> = keys.iter().map(|key| PutEntry::new(key, b"GET /")).collect();
        put += stream.put_batch(&entries)?.len() as u64;
        clock.advance(Duration::from_secs(u64::from(TICK_SECONDS)));
        let shards = u32::try_from(stream.rebalance()?.open_shards)?;
        if tick % 60 == 0 {
            stream.maintain()?;
        }
        day.push(Seen { hour, others, hot, shards });
    }
    assert_eq!(stream.metrics().records_in, put);
    stream.close()?;
    Ok(day)
}

/// The hot key, by its share of the load, or any other.
fn key(drawn: &mut u64, share: f64) -> String {
    *drawn = drawn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    let place = (*drawn >> 11) as f64 / (1_u64 << 53) as f64;
    if place < share { "hot".to_owned() } else { format!("user-{}", (*drawn >> 40) % u64::from(KEYS)) }
}

// ---- the picture ----

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 330.0;
const LEFT: f64 = 50.0;
const RIGHT: f64 = 810.0;
const TOP: f64 = 36.0;
const BOTTOM: f64 = 290.0;

fn x(hour: f64) -> f64 {
    LEFT + hour / 24.0 * (RIGHT - LEFT)
}

fn y(records: f64, most: f64) -> f64 {
    BOTTOM - records / most * (BOTTOM - TOP)
}

/// Load and capacity on one axis, since a shard is worth its target: where the line is above the area, there is room.
fn draw(day: &[Seen]) -> Result<String, std::fmt::Error> {
    let shards = day.iter().map(|seen| seen.shards).max().unwrap_or(1);
    let most = f64::from(shards.next_multiple_of(4) * TARGET);
    let mut svg = String::new();
    writeln!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">"#
    )?;
    writeln!(svg, r##"<rect width="{WIDTH}" height="{HEIGHT}" rx="6" fill="#fff"/>"##)?;
    let area = |load: fn(&Seen) -> f64| {
        let points = day.iter().step_by(60).map(|seen| format!("{:.1},{:.1}", x(seen.hour), y(load(seen), most)));
        points.collect::<Vec<_>>().join(" ")
    };
    for (color, load) in
        [("#e8a33d", (|seen| seen.others + seen.hot) as fn(&Seen) -> f64), ("#7fa8d1", |seen| seen.others)]
    {
        writeln!(svg, r#"<polygon fill="{color}" points="{LEFT},{BOTTOM} {} {RIGHT},{BOTTOM}"/>"#, area(load))?;
    }
    for hour in (0..=24).step_by(3) {
        let at = x(f64::from(hour));
        writeln!(svg, r##"<text x="{at:.0}" y="308" text-anchor="middle" fill="#333">{hour}:00</text>"##)?;
    }
    for shards in (0..=shards.next_multiple_of(4)).step_by(4) {
        let (records, at) = (shards * TARGET, y(f64::from(shards * TARGET), most));
        writeln!(svg, r##"<path stroke="#ccc" stroke-width=".5" d="M{LEFT} {at:.1}H{RIGHT}"/>"##)?;
        writeln!(svg, r##"<text x="44" y="{:.1}" text-anchor="end" fill="#333">{records}</text>"##, at + 4.0)?;
        writeln!(svg, r##"<text x="816" y="{:.1}" fill="#b03a2e">{shards}</text>"##, at + 4.0)?;
    }
    writeln!(
        svg,
        r##"<text x="{LEFT}" y="22" fill="#333">records a second: all keys but one (blue), one hot key (orange)</text>"##
    )?;
    writeln!(
        svg,
        r##"<text x="{RIGHT}" y="22" text-anchor="end" fill="#b03a2e">open shards, of {TARGET} records a second each</text>"##
    )?;
    writeln!(svg, r##"<path fill="none" stroke="#b03a2e" stroke-width="2" d="{}"/>"##, steps(day, most))?;
    writeln!(svg, "</svg>")?;
    Ok(svg)
}

fn steps(day: &[Seen], most: f64) -> String {
    let mut before = None;
    let changes = day.iter().filter(|seen| before.replace(seen.shards) != Some(seen.shards));
    let corners = changes.map(|seen| (x(seen.hour), y(f64::from(seen.shards * TARGET), most)));
    let lines: Vec<_> = corners.map(|(x, y)| format!("{x:.1}V{y:.1}")).collect();
    format!("M{LEFT} {BOTTOM}H{}H{RIGHT}", lines.join("H"))
}
