//! Event sources in processes: they are killed, and others go on, with the windows that were open.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use anabranch::{
    Batch, BatchFailure, BatchHandler, ClosedWindow, EventSourceOptions, FailedBatch, RecordsStart, Stream,
};

use crate::child::{self, Process};
use crate::support::{Random, wait_until};

const WINDOW: Duration = Duration::from_secs(1);
const SOURCES: u64 = 2;
const ROUNDS: u64 = 5;

fn options() -> EventSourceOptions {
    let lease = Duration::from_millis(400);
    EventSourceOptions::new().lanes(2).batch_records(10).lease_time(lease).tumbling_window(WINDOW).retries(1)
}

/// Notes each batch, and what each window was closed with, in a file, by one write each.
struct Notes(Mutex<File>);

impl Notes {
    fn note(&self, what: &str, words: impl Iterator<Item = String>) {
        let mut line = what.to_owned();
        for word in words {
            write!(line, " {word}").unwrap();
        }
        line.push('\n');
        self.0.lock().unwrap().write_all(line.as_bytes()).unwrap();
    }
}

impl BatchHandler for Notes {
    fn handle(&self, batch: &mut Batch<'_>) -> Result<(), BatchFailure> {
        let words = |record: &anabranch::Record| String::from_utf8_lossy(record.data()).into_owned();
        for (place, record) in batch.records().iter().enumerate() {
            if words(record).ends_with("99") {
                self.note("handled", batch.records()[..place].iter().map(words));
                return Err(BatchFailure::at(record, "it ends with 99"));
            }
            let state = batch.state_mut(record);
            state.extend_from_slice(words(record).as_bytes());
            state.push(b' ');
        }
        self.note("handled", batch.records().iter().map(words));
        Ok(())
    }

    fn close_window(&self, closed: &ClosedWindow) -> Result<(), BatchFailure> {
        for state in &closed.states {
            let what = format!("closed {} {}", closed.window.start.as_millis(), state.partition_key);
            self.note(&what, String::from_utf8_lossy(&state.state).split_whitespace().map(str::to_owned));
        }
        Ok(())
    }
}

/// Runs an event source until it is killed.
pub(crate) fn run() {
    let stream = Stream::builder().open_read_only(child::argument("STREAM")).unwrap();
    let ledger = OpenOptions::new().append(true).create(true).open(child::argument("LEDGER")).unwrap();
    let (notes, again) = (Notes(Mutex::new(ledger.try_clone().unwrap())), Notes(Mutex::new(ledger)));
    let source = stream.consumer("c").unwrap().event_source(&child::argument("NAME"), options()).unwrap();
    let mut source = source.on_failure(move |failed: &FailedBatch| {
        let records = failed.records(&stream)?;
        again.note("told", records.iter().map(|record| String::from_utf8_lossy(record.data()).into_owned()));
        Ok(())
    });
    source.run(&notes, || false).unwrap();
}

fn start(directory: &Path, stream: &Path, ledger: &Path, number: u64) -> Process {
    let (log, name) = (directory.join(format!("source-{number}.log")), format!("source-{number}"));
    child::start("event_source", &log, &[("STREAM", &stream), ("LEDGER", &ledger), ("NAME", &name)])
}

#[test]
fn event_sources_that_are_killed_lose_no_record_and_no_window() {
    let mut random = Random::of_test("event_sources_that_are_killed_lose_no_record_and_no_window");
    let directory = tempfile::tempdir().unwrap();
    let (path, ledger) = (directory.path().join("stream"), directory.path().join("ledger"));
    let stream = Stream::builder().shards(2).create(&path).unwrap();
    drop(stream.consumer("c").unwrap());
    let mut sources: Vec<_> = (0..SOURCES).map(|number| start(directory.path(), &path, &ledger, number)).collect();
    let (mut puts, mut number) = (0_u64, SOURCES);
    for round in 0..ROUNDS {
        for _ in 0..60 {
            stream.put(format!("key-{}", puts % 7), puts.to_string()).unwrap();
            puts += 1;
            std::thread::sleep(random.millis(0, 10));
        }
        let open = stream.open_shards();
        if round % 2 == 0 {
            stream.split_shard(open[0], None).unwrap();
        } else {
            stream.merge_shards(open[0], open[1]).unwrap();
        }
        std::thread::sleep(random.millis(0, 600));
        let victim = usize::try_from(random.within(0, SOURCES)).unwrap();
        sources.swap_remove(victim).kill();
        sources.push(start(directory.path(), &path, &ledger, number));
        number += 1;
    }
    let expected = windows_of(&stream);
    wait_until("all windows are closed", || {
        sources.iter_mut().for_each(Process::assert_runs);
        let (_, closed) = read(&ledger);
        let of = |place| closed.get(place).into_iter().flatten().flatten().copied().collect::<BTreeSet<_>>();
        expected.iter().all(|(place, ids)| of(place).is_superset(ids))
    });
    sources.into_iter().for_each(Process::kill);
    let (seen, closed) = read(&ledger);
    assert_eq!(seen, (0..puts).collect(), "each is handled, or told of");
    let (mut whole, mut ends) = (0, 0);
    for (place, closings) in &closed {
        for ids in closings {
            let each: BTreeSet<_> = ids.iter().copied().collect();
            assert_eq!(each.len(), ids.len(), "{place:?}: counted twice in {ids:?}");
            assert!(each.is_subset(&expected[place]), "{place:?}: {ids:?} are not of it");
            whole += usize::from(each == expected[place]);
            ends += 1;
        }
    }
    println!("{puts} records, {ends} ends of {} windows, {whole} of them whole, {ROUNDS} kills", expected.len());
    stream.close().unwrap();
}

type Windows<Ids> = BTreeMap<(i64, String), Ids>;

/// What each window of each key has, but for records that fail.
fn windows_of(stream: &Stream) -> Windows<BTreeSet<u64>> {
    let length = i64::try_from(WINDOW.as_millis()).unwrap();
    let mut windows = Windows::<BTreeSet<u64>>::new();
    for record in stream.records(RecordsStart::TrimHorizon).unwrap().available() {
        let record = record.unwrap();
        let text = std::str::from_utf8(record.data()).unwrap();
        if !text.ends_with("99") {
            let start = record.arrival().as_millis().div_euclid(length) * length;
            let place = (start, record.partition_key().to_owned());
            windows.entry(place).or_default().insert(text.parse().unwrap());
        }
    }
    windows
}

/// What was handled or told of, and what each window was closed with.
fn read(ledger: &Path) -> (BTreeSet<u64>, Windows<Vec<Vec<u64>>>) {
    let text = fs::read_to_string(ledger).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let (mut seen, mut closed) = (BTreeSet::new(), Windows::<Vec<Vec<u64>>>::new());
    for line in whole.lines() {
        let mut words = line.split(' ');
        if words.next() == Some("closed") {
            let place = (words.next().unwrap().parse().unwrap(), words.next().unwrap().to_owned());
            closed.entry(place).or_default().push(words.map(|id| id.parse().unwrap()).collect());
        } else {
            seen.extend(words.map(|id| id.parse::<u64>().unwrap()));
        }
    }
    (seen, closed)
}
