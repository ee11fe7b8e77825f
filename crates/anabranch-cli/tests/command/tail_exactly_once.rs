//! `tail`, killed again and again while its files are written and rotated: every line is in the stream once, in order.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anabranch::Stream;

use crate::support::{Home, json_lines, text};

/// A small generator of the tests' own, so that a seed means the same history in every release.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Writes `NAME NUMBER ...` lines into NAME.log and rotates it, in one of two ways; the old files stay.
struct Writer {
    directory: PathBuf,
    name: char,
    next: u64,
    dice: Dice,
    file: File,
}

impl Writer {
    fn new(directory: PathBuf, name: char, dice: Dice) -> Self {
        let file = open(&directory.join(format!("{name}.log")));
        Self { directory, name, next: 0, dice, file }
    }

    fn path(&self, generation: u64) -> PathBuf {
        let name = self.name;
        match generation {
            0 => self.directory.join(format!("{name}.log")),
            _ => self.directory.join(format!("{name}.log.{generation}")),
        }
    }

    fn run(mut self, over: &AtomicBool) -> (char, u64) {
        while !over.load(Ordering::Relaxed) {
            for _ in 0..self.dice.below(40) {
                self.write_line();
            }
            match self.dice.below(30) {
                0 => self.rename(),
                1 => self.copy_and_cut_off(),
                _ => {}
            }
            thread::sleep(Duration::from_millis(1 + self.dice.below(12)));
        }
        (self.name, self.next)
    }

    /// Sometimes in two writes, so that half lines are seen.
    fn write_line(&mut self) {
        let filler = "x".repeat(usize::try_from(self.dice.below(60)).unwrap());
        let line = format!("{} {} {filler}\n", self.name, self.next);
        let cut = usize::try_from(self.dice.below(line.len() as u64)).unwrap();
        self.file.write_all(&line.as_bytes()[..cut]).unwrap();
        self.file.write_all(&line.as_bytes()[cut..]).unwrap();
        self.next += 1;
    }

    fn make_room(&self) {
        let last = (1..u64::MAX).find(|generation| !self.path(*generation).exists()).unwrap();
        for generation in (1..last).rev() {
            fs::rename(self.path(generation), self.path(generation + 1)).unwrap();
        }
    }

    fn rename(&mut self) {
        self.make_room();
        fs::rename(self.path(0), self.path(1)).unwrap();
        self.file = open(&self.path(0));
    }

    fn copy_and_cut_off(&mut self) {
        self.make_room();
        fs::copy(self.path(0), self.path(1)).unwrap();
        self.file.set_len(0).unwrap();
    }
}

fn open(path: &PathBuf) -> File {
    OpenOptions::new().create(true).append(true).open(path).unwrap()
}

#[test]
fn every_line_is_there_once_and_in_order_through_kills_and_rotations() {
    let seed = from_environment("ANABRANCH_SEED").unwrap_or_else(|| u64::from(std::process::id()) * 2 + 1);
    let kills = from_environment("ANABRANCH_KILLS").unwrap_or(25);
    println!("ANABRANCH_SEED={seed} ANABRANCH_KILLS={kills}");
    for (salt, key) in [(1, &["--key-random"][..]), (2, &["--key-regex", "^(\\w) "])] {
        run(&mut Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ salt), kills, key);
    }
}

fn run(dice: &mut Dice, kills: u64, key: &[&str]) {
    let home = Home::with_stream(&["--shards", "3"]);
    let logs = home.path("logs");
    fs::create_dir(&logs).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = ['a', 'b']
        .map(|name| {
            let writer = Writer::new(logs.clone(), name, Dice(dice.below(u64::MAX) + 1));
            let over = Arc::clone(&over);
            thread::spawn(move || writer.run(&over))
        })
        .into();

    let arguments = [&["tail", "logs/*", "--into", "s", "--from", "start", "--batch", "23"], key].concat();
    for kill in 0..kills {
        let mut agent = home.spawn(&[&arguments[..], &["--poll", "2ms"]].concat());
        thread::sleep(Duration::from_millis(30 + dice.below(270)));
        agent.kill().unwrap();
        agent.wait().unwrap();
        if kill % 8 == 3 {
            let stream = Stream::builder().open_existing(home.path("s")).unwrap();
            let open = stream.open_shards();
            let shard = open[usize::try_from(dice.below(open.len() as u64)).unwrap()];
            stream.split_shard(shard, None).unwrap();
        }
    }
    over.store(true, Ordering::Relaxed);
    let written: BTreeMap<char, u64> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
    home.ok(&[&arguments[..], &["--once"]].concat());

    let records = json_lines(&home.ok(&["get", "s", "--json"]).stdout);
    let mut found: BTreeMap<char, Vec<u64>> = BTreeMap::new();
    let mut by_shard: BTreeMap<(String, char), u64> = BTreeMap::new();
    for record in &records {
        let data = text(&record["data"]);
        let mut words = data.split(' ');
        let name = words.next().unwrap().chars().next().unwrap();
        let number: u64 = words.next().unwrap().parse().unwrap();
        let before = by_shard.insert((text(&record["shardId"]).to_owned(), name), number);
        assert!(before.is_none_or(|before| before < number), "{data:?} behind {before:?} of {name}");
        found.entry(name).or_default().push(number);
    }
    for (name, numbers) in &mut found {
        if key[0] == "--key-regex" {
            assert!(numbers.is_sorted(), "order of {name}");
        }
        numbers.sort_unstable();
        let expected: Vec<_> = (0..written[name]).collect();
        let first = numbers.iter().zip(&expected).position(|(found, expected)| found != expected);
        assert!(
            *numbers == expected,
            "{name}: {} of {} lines, wrong from {first:?}",
            numbers.len(),
            expected.len()
        );
    }
    assert_eq!(found.len(), 2);
}
