//! Runs anabranch beside its rivals and beside the bare system calls, interleaved, each cell in a process of its own,
//! and makes the tables and the chart. See README.md.

mod cell;
mod chart;
mod engines;
mod records;
mod report;
mod tables;
mod workloads;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cell::{Cell, Run, wait_until_quiet};
use engines::{ENTRANTS, Role};
use report::Results;
use tables::{TABLES, Table};

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Error>;

const USAGE: &str = "\
cargo run --release -- [OPTIONS]
  --workload w1,w4      which tables (all)
  --peers a,b           which engines beside anabranch and the bare probes (all)
  --rounds N            how often each cell is measured; the tables show medians (5)
  --scale X             times volumes and time limits (1.0)
  --quick               the same as --rounds 1 --scale 0.2
  --dir PATH            a directory on the disk to be measured, never a tmpfs (target/peers)
  --out PATH            where results.tsv, table.md and chart.svg go (results)";

struct Options {
    tables: Option<Vec<String>>,
    peers: Option<Vec<String>>,
    rounds: usize,
    scale: f64,
    dir: PathBuf,
    out: PathBuf,
    /// Only in a cell's process: what to measure.
    cell: Option<Cell>,
}

fn main() -> Result<()> {
    let options = Options::parse()?;
    match &options.cell {
        Some(cell) => measure(cell, &options),
        None => compare(&options),
    }
}

impl Options {
    fn parse() -> Result<Self> {
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut options = Self {
            tables: None,
            peers: None,
            rounds: 5,
            scale: 1.0,
            dir: package.join("target/peers"),
            out: package.join("results"),
            cell: None,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().ok_or(USAGE);
            let list = |value: String| Some(value.split(',').map(str::to_lowercase).collect());
            match &name[..] {
                "--workload" => options.tables = list(value()?),
                "--peers" => options.peers = list(value()?),
                "--rounds" => options.rounds = value()?.parse()?,
                "--scale" => options.scale = value()?.parse()?,
                "--quick" => (options.rounds, options.scale) = (1, 0.2),
                "--dir" => options.dir = value()?.into(),
                "--out" => options.out = value()?.into(),
                "--cell" => options.cell = Some(value()?.parse()?),
                _ => return Err(USAGE.into()),
            }
        }
        Ok(options)
    }

    fn wants(&self, table: &Table) -> bool {
        self.tables.as_ref().is_none_or(|wanted| wanted.contains(&table.id.to_lowercase()))
    }

    /// What the wanted tables show, each cell once.
    fn cells(&self) -> Vec<Cell> {
        let loads = TABLES.iter().filter(|table| self.wants(table)).flat_map(|table| table.columns);
        let mut cells = Vec::new();
        for load in loads.map(|column| column.load) {
            for entrant in ENTRANTS {
                let wanted = |peers: &Vec<String>| peers.iter().any(|peer| entrant.name.starts_with(&peer[..]));
                if entrant.role == Role::Peer && !self.peers.as_ref().is_none_or(wanted) {
                    continue;
                }
                for (level, _) in entrant.levels {
                    let cell = Cell { load, engine: entrant.name, survives: *level };
                    if load.workload.takes(entrant, *level, load.shards) && !cells.contains(&cell) {
                        cells.push(cell);
                    }
                }
            }
        }
        cells
    }
}

/// In a cell's process.
#[expect(clippy::print_stdout, reason = "how figures get to the parent")]
fn measure(cell: &Cell, options: &Options) -> Result<()> {
    let run = Run { cell, dir: &options.dir, scale: options.scale };
    for (name, value) in cell.load.workload.run(&run)? {
        println!("figure {name} {value}");
    }
    Ok(())
}

/// Rounds over all cells, engines side by side; the order turns by one engine each round.
fn compare(options: &Options) -> Result<()> {
    fs::create_dir_all(&options.dir)?;
    fs::create_dir_all(&options.out)?;
    let mut results = Results::new(options.rounds, options.scale);
    let started = Instant::now();
    for round in 0..options.rounds {
        let cells = options.cells();
        for group in cells.chunk_by(|left, right| left.load == right.load) {
            for index in 0..group.len() {
                let cell = &group[(index + round) % group.len()];
                wait_until_quiet(Duration::from_secs_f64(options.scale.min(1.0) * 2.0));
                progress(round, cell, started);
                match cell.measure(&options.dir, options.scale) {
                    Ok(figures) => results.add(cell, figures),
                    Err(error) => results.fail(cell, &error),
                }
            }
        }
        // Whoever stops it early has the rounds so far.
        results.save(&options.out)?;
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "a program's progress")]
fn progress(round: usize, cell: &Cell, started: Instant) {
    let name = cell.argument().replace('\t', " ");
    eprintln!("{:6.0} s  round {}  {name}", started.elapsed().as_secs_f64(), round + 1);
}
