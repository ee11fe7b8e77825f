//! A property test of *your* code: an account ledger on a stream runs on a simulated disk, loses
//! power at a moment that proptest picks, and must come back with every acknowledged posting.
//!
//! ```text
//! cargo run --example property_test
//! ```
//!
//! The ledger keeps a journal and, in a second stream, snapshots of its balances. Each snapshot
//! holds the place in the journal at which to go on, so that the two can never disagree. Change
//! `AtSequenceNumber` to `AfterSequenceNumber` in [`Ledger::open`], and watch proptest find the
//! shortest history that shows the mistake.

#![allow(clippy::print_stdout)] // a program's output, not a library's

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;

use anabranch::{Crash, RecordsStart, SequenceNumber, ShardIteratorType, SimulatedDisk, Stream, StreamBuilder};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

const CASES: u32 = 200;

type Balances = BTreeMap<String, i64>;

// ---- the code under test ----

struct Ledger {
    journal: Stream,
    snapshots: Stream,
    balances: Balances,
}

impl Ledger {
    fn open(options: &StreamBuilder) -> Result<Self, Box<dyn Error>> {
        let journal = options.clone().open("/journal")?;
        let snapshots = options.clone().open("/snapshots")?;

        let newest = snapshots.records(RecordsStart::TrimHorizon)?.available().last().transpose()?;
        let snapshot = newest.map(|record| decode(record.data())).transpose()?;
        let (mut balances, next) = snapshot.unwrap_or_default();

        let shard_id = journal.open_shards()[0];
        let mut rest = journal.shard_iterator(shard_id, ShardIteratorType::AtSequenceNumber(next))?;
        for record in rest.available() {
            let record = record?;
            let amount = i64::from_le_bytes(record.data().try_into()?);
            *balances.entry(record.partition_key().to_owned()).or_default() += amount;
        }
        Ok(Self { journal, snapshots, balances })
    }

    /// Adds to an account. The posting is on the disk when this returns.
    fn post(&mut self, account: &str, amount: i64) -> anabranch::Result<()> {
        self.journal.put(account, amount.to_le_bytes())?;
        *self.balances.entry(account.to_owned()).or_default() += amount;
        Ok(())
    }

    /// Shortens the next start.
    fn snapshot(&self) -> anabranch::Result<()> {
        let next = self.journal.describe()?.shards[0].next_sequence_number;
        self.snapshots.put("snapshot", encode(&self.balances, next))?;
        Ok(())
    }
}

/// The place in the journal, then a line for each account.
fn encode(balances: &Balances, next: SequenceNumber) -> String {
    let lines = balances.iter().map(|(account, balance)| format!("\n{account} {balance}"));
    next.to_string() + &lines.collect::<String>()
}

fn decode(snapshot: &[u8]) -> Result<(Balances, SequenceNumber), Box<dyn Error>> {
    let mut lines = std::str::from_utf8(snapshot)?.lines();
    let next = lines.next().ok_or("an empty snapshot")?.parse()?;
    let mut balances = Balances::new();
    for line in lines {
        let (account, balance) = line.split_once(' ').ok_or("no balance")?;
        balances.insert(account.to_owned(), balance.parse()?);
    }
    Ok((balances, next))
}

// ---- the property ----

#[derive(Debug, Clone)]
enum Step {
    Post(&'static str, i64),
    Snapshot,
}

fn step() -> impl Strategy<Value = Step> {
    let account = prop::sample::select(vec!["alice", "bob", "carol"]);
    prop_oneof![
        4 => (account, -100..100_i64).prop_map(|(account, amount)| Step::Post(account, amount)),
        1 => Just(Step::Snapshot),
    ]
}

fn main() -> Result<(), Box<dyn Error>> {
    let history = prop::collection::vec(step(), 0..40);
    let case = (history, any::<Index>(), any::<u64>());
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    TestRunner::new(config).run(&case, |(history, cut, seed)| {
        let (before, after) = history.split_at(cut.index(history.len() + 1));
        survives_a_power_cut(before, after, seed).map_err(|error| TestCaseError::fail(error.to_string()))
    })?;
    println!("{CASES} ledgers lost power; none lost an acknowledged posting");
    Ok(())
}

/// Runs the ledger and a plain map side by side, through a power cut. They must agree after it.
fn survives_a_power_cut(before: &[Step], after: &[Step], seed: u64) -> Result<(), Box<dyn Error>> {
    let disk = SimulatedDisk::new();
    let mut model = Balances::new();
    let mut ledger = Ledger::open(&on(&disk))?;
    run(&mut ledger, &mut model, before)?;

    // Nobody closes the ledger. Of what was not synced, the seed decides what stays on the disk.
    let disk = disk.crash(Crash::PowerLost { seed });
    let mut ledger = Ledger::open(&on(&disk))?;
    agree(&ledger.balances, &model)?;

    run(&mut ledger, &mut model, after)?;
    let disk = disk.crash(Crash::ProcessKilled);
    let ledger = Ledger::open(&on(&disk))?;
    agree(&ledger.balances, &model)
}

/// No background thread, so that a history that fails once fails always.
fn on(disk: &SimulatedDisk) -> StreamBuilder {
    Stream::builder().storage(Arc::new(disk.clone())).background(false)
}

fn run(ledger: &mut Ledger, model: &mut Balances, steps: &[Step]) -> anabranch::Result<()> {
    for step in steps {
        match step {
            Step::Post(account, amount) => {
                ledger.post(account, *amount)?;
                *model.entry((*account).to_owned()).or_default() += amount;
            }
            Step::Snapshot => ledger.snapshot()?,
        }
    }
    Ok(())
}

fn agree(ledger: &Balances, model: &Balances) -> Result<(), Box<dyn Error>> {
    if ledger == model {
        return Ok(());
    }
    Err(format!("the ledger says {ledger:?}, but posted was {model:?}").into())
}
