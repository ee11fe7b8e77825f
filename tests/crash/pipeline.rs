//! Exactly once from stream to stream: a pipeline that is cut or struck at every operation of itself, of its input and of its output, and started again. In
//! the end the output is what it would be if nothing had happened.

use std::collections::BTreeMap;
use std::sync::Arc;

use anabranch::{
    Crash, DiskFault, Durability, Error, ManualClock, Outputs, Pipeline, Record, RecordsStart, SimulatedDisk,
    Stream,
};

use crate::history::{any_crash, builder, reshard_somewhere};
use crate::ledger::Visited;
use crate::{Case, Random, is_single, only_at, seeds};

const STEPS: u64 = 14;

#[test]
fn output_is_as_if_the_power_had_stayed() {
    strike_everywhere("output_is_as_if_the_power", Durability::Synced, Durability::Synced, DiskFault::PowerCut, 2);
}

/// What a power cut takes from the input was not made anything of.
#[test]
fn output_of_buffered_streams_is_as_if_the_power_had_stayed() {
    let test = "output_of_buffered_streams";
    strike_everywhere(test, Durability::Buffered, Durability::Buffered, DiskFault::PowerCut, 2);
}

#[test]
fn output_is_as_if_nothing_had_failed() {
    let failure = DiskFault::Error(std::io::ErrorKind::Other);
    strike_everywhere("output_is_as_if_nothing_had_failed", Durability::Synced, Durability::Synced, failure, 2);
}

/// The checkpoints of a `Buffered` stream are durable only after a flush; those of a pipeline with every batch, or it would read all since the last flush again.
#[test]
fn what_a_step_has_done_is_not_made_again_after_a_power_cut() {
    for seed in 0..16 {
        let mut visited = Visited::default();
        let mut life = Life::new(seed, (Durability::Buffered, Durability::Buffered), &mut visited);
        life.open().expect("an opening");
        for _ in 0..5 {
            life.put().expect("puts");
            life.input().sync().expect("a sync");
            while life.step().expect("a step") > 0 {}
        }
        let cut = life.disk.crash(Crash::PowerLost { seed });
        life.close();
        life.disk = cut;
        life.open().expect("an opening after the cut");
        let mut again = 0;
        let make = |_: &Record, _: &mut Outputs| again += 1;
        life.pipeline.as_mut().expect("a pipeline").step(make).expect("a step");
        assert_eq!(again, 0, "seed {seed}: of {} records", life.puts);
    }
}

fn strike_everywhere(test: &'static str, input: Durability, output: Durability, fault: DiskFault, quick: u64) {
    let mut visited = Visited::default();
    let mut states = 0;
    for seed in seeds(quick) {
        let mut case = Case { test, seed, at: u64::MAX, detail: "without a fault".to_owned() };
        let mut whole = Life::new(seed, (input, output), &mut visited);
        whole.run().expect("a history without faults");
        let operations = whole.disk.operations();
        whole.finish();
        for at in (0..operations).filter(|at| only_at().is_none_or(|only| only == *at)) {
            (case.at, case.detail) = (at, format!("{fault:?}"));
            let mut life = Life::new(seed, (input, output), &mut visited);
            life.disk.fail_at(at, fault);
            if life.run().is_err() {
                if matches!(fault, DiskFault::Error(_)) && life.streams.is_some() {
                    life.disk.clear_faults();
                    let _ = life.step(); // a shard may have failed for good
                }
                let again = life.random.one_in(2).then(|| life.random.below(60));
                life.restart(again);
            }
            life.finish();
            states += 1;
        }
    }
    println!("{states} states");
    if !is_single() {
        visited.demand(&["a batch was to be repeated", "a finished shard"]);
    }
}

struct Life<'a> {
    disk: SimulatedDisk,
    clock: Arc<ManualClock>,
    durability: (Durability, Durability),
    streams: Option<(Stream, Stream)>,
    pipeline: Option<Pipeline>,
    random: Random,
    puts: u64,
    visited: &'a mut Visited,
}

/// What is made of a record: none to three, told apart by their data.
fn make(record: &Record, output: &mut Outputs) {
    let id: u64 = std::str::from_utf8(record.data()).expect("text").parse().expect("a number");
    for part in 0..id % 4 {
        output.put(record.partition_key(), format!("{id:06}:{part}"));
    }
}

impl<'a> Life<'a> {
    fn new(seed: u64, durability: (Durability, Durability), visited: &'a mut Visited) -> Self {
        for state in ["a batch was to be repeated", "a finished shard"] {
            visited.count(state, false);
        }
        let (disk, clock) = (SimulatedDisk::new(), Arc::new(ManualClock::default()));
        let random = Random::new(seed);
        Self { disk, clock, durability, streams: None, pipeline: None, random, puts: 0, visited }
    }

    fn open(&mut self) -> Result<(), Error> {
        let builder = || builder(&self.disk, &self.clock).segment_bytes(4096).first_segment_bytes(4096);
        let input = builder().shards(2).durability(self.durability.0).open("input")?;
        let output = builder().shards(2).durability(self.durability.1).open("output")?;
        let consumer = input.consumer("copy")?;
        let pipeline = Pipeline::new(&consumer, &output, "worker")?.batch_records(5);
        let positions = consumer.checkpoints()?;
        for (producer, checkpoint) in output.producers()?.iter().zip(&positions) {
            let done = match checkpoint.position {
                anabranch::Position::After(at) => Some(at.sequence_number.get()),
                _ => None,
            };
            let is_its = producer.name.starts_with(&format!("copy.{:012}.", checkpoint.shard_id.get()));
            let repeats = is_its && producer.last_batch > done;
            self.visited.count("a batch was to be repeated", repeats);
        }
        let is_finished =
            |checkpoint: &anabranch::Checkpoint| checkpoint.position == anabranch::Position::ShardEnd;
        self.visited.count("a finished shard", positions.iter().any(is_finished));
        (self.streams, self.pipeline) = (Some((input, output)), Some(pipeline));
        Ok(())
    }

    fn run(&mut self) -> Result<(), Error> {
        self.open()?;
        for _ in 0..STEPS {
            match self.random.below(100) {
                0..35 => self.put()?,
                35..70 => drop(self.step()?),
                70..78 => self.reshard(true)?,
                78..86 => self.reshard(false)?,
                86..93 => self.input().sync()?,
                _ => {
                    self.close();
                    self.open()?;
                }
            }
        }
        Ok(())
    }

    fn input(&self) -> &Stream {
        &self.streams.as_ref().expect("open streams").0
    }

    fn output(&self) -> &Stream {
        &self.streams.as_ref().expect("open streams").1
    }

    fn put(&mut self) -> Result<(), Error> {
        for _ in 0..self.random.within(1..8) {
            self.puts += 1;
            self.input().put(format!("key-{}", self.puts % 9), self.puts.to_string())?;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<u64, Error> {
        self.pipeline.as_mut().expect("a pipeline").step(make)
    }

    fn reshard(&mut self, of_input: bool) -> Result<(), Error> {
        let stream = if of_input { self.input() } else { self.output() }.clone();
        reshard_somewhere(&stream, &mut self.random)
    }

    fn close(&mut self) {
        (self.pipeline, self.streams) = (None, None); // the last handles close their streams, unless that fails
    }

    fn restart(&mut self, again: Option<u64>) {
        self.crash();
        if let Some(at) = again {
            self.disk.fail_at(at, DiskFault::PowerCut);
            if self.open().and_then(|()| self.step()).is_ok() {
                self.disk.clear_faults();
                return;
            }
            self.crash();
        }
        self.open().expect("an opening after the cut");
    }

    fn crash(&mut self) {
        self.close();
        self.disk = self.disk.crash(any_crash(&mut self.random));
    }

    /// Reads on to the tail, and compares.
    fn finish(&mut self) {
        self.disk.clear_faults();
        if self.streams.is_none() || self.input().sync().is_err() || self.step().is_err() {
            self.restart(None);
        }
        self.input().sync().expect("a sync");
        while self.step().expect("a step") > 0 {}
        let mut expected = Vec::new();
        for record in read(self.input()) {
            let id: u64 = record.1.parse().expect("a number");
            expected.extend((0..id % 4).map(|part| (record.0.clone(), format!("{id:06}:{part}"))));
        }
        let mut found = read(self.output());
        let mut last = BTreeMap::new();
        for (key, data) in &found {
            let before = last.insert(key.clone(), data.clone());
            assert!(before.as_ref() < Some(data), "{key}: {data} after {before:?}");
        }
        expected.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, expected);
        self.close();
    }
}

/// Keys and data of all that a stream holds.
fn read(stream: &Stream) -> Vec<(String, String)> {
    let mut records = stream.records(RecordsStart::TrimHorizon).expect("a reader");
    let text = |record: Record| {
        (record.partition_key().to_owned(), String::from_utf8(record.data().to_vec()).expect("text"))
    };
    records.available().map(|record| text(record.expect("a record"))).collect()
}
