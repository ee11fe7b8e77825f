//! Standard output and the notes on standard error. Nothing else in the command prints.

use std::fmt::{self, Display, Write as _};
use std::io::{self, BufWriter, StdoutLock, Write};

use serde::Serialize;

use crate::exit::Failure;

/// Where results go, and in which form.
pub(crate) struct Output {
    writer: BufWriter<StdoutLock<'static>>,
    json: bool,
    quiet: bool,
}

impl Output {
    /// Standard output, locked for the life of the process.
    pub(crate) fn new(json: bool, quiet: bool) -> Self {
        Self { writer: BufWriter::with_capacity(64 << 10, io::stdout().lock()), json, quiet }
    }

    /// Whether results are for programs.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether notes and progress are unwanted.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Writes a value as one line of JSON.
    pub(crate) fn value(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.writer, value).map_err(|error| Failure::Output(error.into()))?;
        self.bytes(b"\n")
    }

    /// Writes a line of text.
    pub(crate) fn line(&mut self, text: impl Display) -> Result<(), Failure> {
        writeln!(self.writer, "{text}").map_err(Failure::Output)
    }

    /// Writes bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.writer.write_all(bytes).map_err(Failure::Output)
    }

    /// Hands everything written so far to the reader.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.writer.flush().map_err(Failure::Output)
    }

    /// Tells the user something on standard error, unless it is to be quiet.
    pub(crate) fn note(&self, text: impl Display) {
        if !self.quiet {
            let _ = writeln!(io::stderr().lock(), "{text}");
        }
    }
}

/// On which side of its column a cell stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Rows in aligned columns.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings; a table whose headings are all empty shows its rows alone.
    pub(crate) fn new(columns: &[(&'static str, Align)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// A table of names and values.
    pub(crate) fn of_facts() -> Self {
        Self::new(&[("", Align::Left), ("", Align::Left)])
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Adds a row of a table made by [`of_facts`](Self::of_facts).
    pub(crate) fn fact(&mut self, name: &str, value: impl Display) {
        self.row([name.to_owned(), value.to_string()]);
    }

    fn widths(&self) -> Vec<usize> {
        let width = |cell: &str| cell.chars().count();
        let column = |(index, (heading, _)): (usize, &(&str, Align))| {
            let cells = self.rows.iter().filter_map(|row| row.get(index));
            cells.map(|cell| width(cell)).max().unwrap_or(0).max(width(heading))
        };
        self.columns.iter().enumerate().map(column).collect()
    }

    fn write_row(&self, cells: &[&str], widths: &[usize], f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = String::new();
        for ((cell, width), (_, align)) in cells.iter().zip(widths).zip(&self.columns) {
            match align {
                Align::Left => write!(line, "{cell:<width$}  ")?,
                Align::Right => write!(line, "{cell:>width$}  ")?,
            }
        }
        writeln!(f, "{}", line.trim_end())
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        if self.columns.iter().any(|(heading, _)| !heading.is_empty()) {
            let headings: Vec<&str> = self.columns.iter().map(|(heading, _)| *heading).collect();
            self.write_row(&headings, &widths, f)?;
        }
        for row in &self.rows {
            let cells: Vec<&str> = row.iter().map(String::as_str).collect();
            self.write_row(&cells, &widths, f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&[("NAME", Align::Left), ("COUNT", Align::Right)]);
        table.row(["a".to_owned(), "5".to_owned()]);
        table.row(["Größe".to_owned(), "1,234".to_owned()]);
        assert_eq!(table.to_string(), "NAME   COUNT\na          5\nGröße  1,234\n");
    }

    #[test]
    fn facts_have_no_heading() {
        let mut table = Table::of_facts();
        table.fact("records", 3);
        table.fact("id", "x");
        assert_eq!(table.to_string(), "records  3\nid       x\n");
    }
}
