//! What was measured: medians, ratios, Markdown.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::cell::{Cell, Figures};
use crate::engines::{ENTRANTS, Entrant, Role, Survives};
use crate::tables::{Column, TABLES, Table, Unit};
use crate::{Error, Result, chart};

pub(crate) struct Results {
    rounds: usize,
    scale: f64,
    /// A value a round.
    values: BTreeMap<(Cell, String), Vec<f64>>,
    failures: BTreeMap<Cell, String>,
}

/// A row of a table: an engine at a level.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub(crate) entrant: &'static Entrant,
    pub(crate) survives: Survives,
}

pub(crate) fn rows() -> impl Iterator<Item = Row> {
    ENTRANTS.iter().flat_map(|entrant| entrant.levels.iter().map(|level| Row { entrant, survives: level.0 }))
}

impl Results {
    pub(crate) fn new(rounds: usize, scale: f64) -> Self {
        Self { rounds, scale, values: BTreeMap::new(), failures: BTreeMap::new() }
    }

    pub(crate) fn add(&mut self, cell: &Cell, figures: Figures) {
        for (name, value) in figures {
            self.values.entry((cell.clone(), name)).or_default().push(value);
        }
    }

    pub(crate) fn fail(&mut self, cell: &Cell, error: &Error) {
        self.failures.insert(cell.clone(), error.to_string());
    }

    pub(crate) fn median(&self, row: Row, column: &Column) -> Option<f64> {
        let cell = Cell { load: column.load, engine: row.entrant.name, survives: row.survives };
        self.values.get(&(cell, column.figure.to_owned())).map(|values| median(values))
    }

    /// The best of the rows that survive what ours survives, or nothing: better by the column's unit.
    fn best(&self, column: &Column, role: Role) -> Option<f64> {
        let ours = rows().find(|row| row.entrant.role == Role::Ours && self.median(*row, column).is_some())?;
        let rivals = rows().filter(|row| {
            let level = row.survives >= ours.survives || role == Role::Bare;
            row.entrant.role == role && level
        });
        let values = rivals.filter_map(|row| self.median(row, column));
        if column.unit.more_is_better() { values.reduce(f64::max) } else { values.reduce(f64::min) }
    }

    /// How many times better ours is than the best of them.
    fn ratio(&self, column: &Column, role: Role) -> Option<f64> {
        if column.unit == Unit::Amount {
            return None;
        }
        let (ours, theirs) = (self.best(column, Role::Ours)?, self.best(column, role)?);
        Some(if column.unit.more_is_better() { ours / theirs } else { theirs / ours })
    }

    /// Writes `results.tsv`, `table.md` and `chart.svg`.
    pub(crate) fn save(&self, out: &Path) -> Result<()> {
        fs::write(out.join("results.tsv"), self.lines()?)?;
        fs::write(out.join("table.md"), self.markdown()?)?;
        fs::write(out.join("chart.svg"), chart::svg(self)?)?;
        Ok(())
    }

    /// For machines: a line a figure.
    fn lines(&self) -> Result<String> {
        let mut text =
            "workload\tengine\tsurvives\trecord_bytes\tthreads\tshards\tfigure\tmedian\tvalues\n".to_owned();
        for ((cell, figure), values) in &self.values {
            let each: Vec<_> = values.iter().map(f64::to_string).collect();
            writeln!(text, "{}\t{figure}\t{}\t{}", cell.argument(), median(values), each.join(" "))?;
        }
        Ok(text)
    }

    fn markdown(&self) -> Result<String> {
        let mut text = format!(
            "{}\n\nMedians of {} rounds, engines interleaved, at scale {}. \"of the best peer\" and \"of the floor\" say how many \
             times better anabranch is (above 1) than the best engine that survives the same, and than the best bare probe.\n",
            machine(),
            self.rounds,
            self.scale
        );
        for table in TABLES {
            self.table(&mut text, table)?;
        }
        self.engines(&mut text)?;
        for (cell, error) in &self.failures {
            writeln!(text, "\nFailed: {}: {error}", cell.argument().replace('\t', " "))?;
        }
        Ok(text)
    }

    fn table(&self, text: &mut String, table: &Table) -> Result<()> {
        let filled = |row: Row| table.columns.iter().any(|column| self.median(row, column).is_some());
        if !rows().any(filled) {
            return Ok(());
        }
        let heads: Vec<_> = table.columns.iter().map(|column| column.head).collect();
        writeln!(text, "\n**{}** {}\n\n| | survives | {} |", table.id, table.title, heads.join(" | "))?;
        writeln!(text, "| --- | --- |{}", " ---: |".repeat(table.columns.len()))?;
        let cells =
            |value: &dyn Fn(&Column) -> String| table.columns.iter().map(value).collect::<Vec<_>>().join(" | ");
        for row in rows().filter(|row| filled(*row)) {
            let values = cells(&|column| {
                self.median(row, column).map_or_else(String::new, |value| number(value / column.unit.divisor()))
            });
            let (name, survives) = (row.entrant.name, row.survives.name());
            let name = if row.entrant.role == Role::Ours { format!("**{name}**") } else { name.to_owned() };
            writeln!(text, "| {name} | {survives} | {values} |")?;
        }
        for (name, role) in [("of the best peer", Role::Peer), ("of the floor", Role::Bare)] {
            if table.columns.iter().any(|column| self.ratio(column, role).is_some()) {
                let values = cells(&|column| {
                    self.ratio(column, role).map_or_else(String::new, |ratio| format!("*{}x*", number(ratio)))
                });
                writeln!(text, "| *{name}* | | {values} |")?;
            }
        }
        Ok(())
    }

    /// What each engine is and does, as far as it was measured.
    fn engines(&self, text: &mut String) -> Result<()> {
        writeln!(text, "\n**Engines**\n\n| | version | survives | by |\n| --- | --- | --- | --- |")?;
        for row in rows() {
            let measured = |cell: &Cell| cell.engine == row.entrant.name && cell.survives == row.survives;
            if self.values.keys().any(|(cell, _)| measured(cell)) {
                let by =
                    row.entrant.levels.iter().find(|level| level.0 == row.survives).map_or("", |level| level.1);
                let (name, version) = (row.entrant.name, row.entrant.version().unwrap_or_default());
                writeln!(text, "| {name} | {version} | {} | {by} |", row.survives.name())?;
            }
        }
        Ok(())
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
}

/// Three digits.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 99.95 => format!("{value:.0}"),
        v if v >= 9.995 => format!("{value:.1}"),
        v if v >= 0.0995 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// What it ran on.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model =
        cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("", |name| name.1);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory =
        read("/proc/meminfo").split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{cores} cores ({model}), {} GiB, Linux {}.", memory >> 20, kernel.trim())
}
