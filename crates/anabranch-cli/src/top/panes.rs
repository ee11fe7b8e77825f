//! The tables that people see: shards, consumers, producers, as text and in an order. No I/O.

use std::cmp::Ordering;

use super::figures::{Figures, ShardFigures};
use super::snapshot::{Reading, Writing};
use crate::output::{Align, Table};
use crate::units::{show_bytes, show_count, show_millis};

/// How many panes there are.
pub(crate) const PANES: usize = 3;

/// A table, its most telling columns first: a narrow terminal shows no others.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pane {
    pub(crate) title: &'static str,
    pub(crate) columns: Vec<(&'static str, Align)>,
    pub(crate) rows: Vec<Vec<Cell>>,
}

/// What stands in a row under a column, and what it counts for in an order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cell {
    pub(crate) text: String,
    rank: Rank,
}

#[derive(Debug, Clone, PartialEq)]
enum Rank {
    /// Ascending.
    Name(String),
    /// Descending, and what is not known last.
    Amount(Option<f64>),
}

impl Pane {
    /// All panes, in the order in which they are shown.
    pub(crate) fn all(figures: &Figures) -> [Self; PANES] {
        [shards(&figures.shards), consumers(&figures.consumers), producers(&figures.producers)]
    }

    /// Sorts by a column; rows that are equal there stay as they are.
    pub(crate) fn sort_by(&mut self, column: usize) {
        self.rows.sort_by(|a, b| match (a.get(column), b.get(column)) {
            (Some(a), Some(b)) => a.rank.compare(&b.rank),
            _ => Ordering::Equal,
        });
    }
}

impl Rank {
    fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Name(a), Self::Name(b)) => a.cmp(b),
            (Self::Amount(Some(a)), Self::Amount(Some(b))) => b.total_cmp(a),
            (Self::Amount(a), Self::Amount(b)) => b.is_some().cmp(&a.is_some()),
            _ => Ordering::Equal,
        }
    }
}

impl Cell {
    fn name(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { rank: Rank::Name(text.clone()), text }
    }

    /// A shard by its number, as commands take it.
    fn shard(id: &str) -> Self {
        let digits = id.rsplit('-').next().unwrap_or(id).trim_start_matches('0');
        let text = if digits.is_empty() { "0" } else { digits }.to_owned();
        Self { text, rank: Rank::Name(id.to_owned()) }
    }

    #[expect(clippy::cast_precision_loss, reason = "an order of what is nearly equal does not matter")]
    fn amount(amount: Option<u64>, show: impl Fn(u64) -> String) -> Self {
        Self {
            text: amount.map_or_else(|| "-".to_owned(), show),
            rank: Rank::Amount(amount.map(|amount| amount as f64)),
        }
    }

    fn rate(rate: Option<f64>, show: impl Fn(u64) -> String) -> Self {
        Self { text: rate.map_or_else(|| "-".to_owned(), |rate| show(rounded(rate))), rank: Rank::Amount(rate) }
    }
}

/// Rates are no more exact than this.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it saturates, and rates are not negative"
)]
fn rounded(rate: f64) -> u64 {
    rate.round() as u64
}

fn shards(shards: &[ShardFigures]) -> Pane {
    let row = |shard: &ShardFigures| {
        vec![
            Cell::shard(&shard.shard_id),
            Cell::name(shard.state),
            Cell::rate(shard.records_per_second, show_count),
            Cell::rate(shard.bytes_per_second, show_bytes),
            Cell::amount(Some(shard.records), show_count),
            Cell::amount(Some(shard.bytes), show_bytes),
            Cell::amount(shard.newest_age_millis, show_age),
            Cell::amount(shard.oldest_age_millis, show_age),
            Cell::rate(Some(shard.hash_key_share * 1_000.0), |permille| {
                format!("{}.{} %", permille / 10, permille % 10)
            }),
            Cell::amount(Some(shard.disk_bytes), show_bytes),
        ]
    };
    let columns = vec![
        ("SHARD", Align::Right),
        ("STATE", Align::Left),
        ("RECORDS/S", Align::Right),
        ("BYTES/S", Align::Right),
        ("RECORDS", Align::Right),
        ("BYTES", Align::Right),
        ("NEWEST", Align::Right),
        ("OLDEST", Align::Right),
        ("KEYS", Align::Right),
        ("DISK", Align::Right),
    ];
    Pane { title: "shards", columns, rows: shards.iter().map(row).collect() }
}

fn consumers(consumers: &[Reading]) -> Pane {
    let row = |reading: &Reading| {
        vec![
            Cell::name(&reading.consumer),
            Cell::shard(&reading.shard_id),
            Cell::amount(reading.records_behind, show_count),
            Cell::amount(reading.millis_behind, show_age),
            Cell::name(reading.owner.as_deref().unwrap_or("-")),
            Cell::name(&reading.position),
        ]
    };
    let columns = vec![
        ("CONSUMER", Align::Left),
        ("SHARD", Align::Right),
        ("BEHIND", Align::Right),
        ("LAG", Align::Right),
        ("WORKER", Align::Left),
        ("POSITION", Align::Left),
    ];
    Pane { title: "consumers", columns, rows: consumers.iter().map(row).collect() }
}

fn producers(producers: &[Writing]) -> Pane {
    let row = |writing: &Writing| {
        vec![
            Cell::name(&writing.name),
            Cell::amount(Some(writing.epoch.into()), show_count),
            Cell::amount(writing.last_batch, |number| number.to_string()),
        ]
    };
    let columns = vec![("PRODUCER", Align::Left), ("EPOCH", Align::Right), ("LAST BATCH", Align::Right)];
    Pane { title: "producers", columns, rows: producers.iter().map(row).collect() }
}

/// An age or a lag in at most two units: `3h20m`, `4.2s`, `180ms`.
fn show_age(millis: u64) -> String {
    match millis {
        0 => "0s".to_owned(),
        1..1_000 => format!("{millis}ms"),
        1_000..60_000 => format!("{}.{}s", millis / 1_000, millis % 1_000 / 100),
        60_000..86_400_000 => show_millis(millis - millis % if millis < 3_600_000 { 1_000 } else { 60_000 }),
        _ => show_millis(millis - millis % 3_600_000),
    }
}

/// The stream as a whole, in three lines.
pub(crate) fn summary(figures: &Figures) -> [String; 3] {
    let rate = match (figures.records_per_second, figures.bytes_per_second) {
        (Some(records), Some(bytes)) => {
            format!("{} records/s, {}/s", show_count(rounded(records)), show_bytes(rounded(bytes)))
        }
        _ => "-".to_owned(),
    };
    let queues = match figures.queues.as_slice() {
        [] => String::new(),
        names => format!(", queues {}", names.join(" ")),
    };
    [
        format!("{}  {}", figures.stream, figures.stream_id),
        format!("{} open, {} closed shards; writes {rate}", figures.open_shards, figures.closed_shards),
        format!(
            "{} records, {}, on disk {}; {}, kept {}{queues}",
            show_count(figures.records),
            show_bytes(figures.bytes),
            show_bytes(figures.disk_bytes),
            figures.durability,
            figures.retention,
        ),
    ]
}

/// All of it as text; what there is none of is left out.
pub(crate) fn as_text(figures: &Figures) -> String {
    let mut text = summary(figures).join("\n");
    text.push('\n');
    for pane in Pane::all(figures).iter().filter(|pane| !pane.rows.is_empty()) {
        let mut table = Table::new(&pane.columns);
        for row in &pane.rows {
            table.row(row.iter().map(|cell| cell.text.clone()));
        }
        text.push('\n');
        text.push_str(&table.to_string());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::figures::tests::{shard, snapshot};
    use super::*;

    fn column(pane: &Pane, name: &str) -> Vec<String> {
        let place = pane.columns.iter().position(|(column, _)| *column == name).unwrap();
        pane.rows.iter().map(|row| row[place].text.clone()).collect()
    }

    #[test]
    fn rows_are_sorted_by_any_column() {
        let before = snapshot(0, vec![shard(2, 20, 0), shard(10, 20, 0)]);
        let now = snapshot(1, vec![shard(2, 30, 0), shard(10, 50, 0), shard(11, 10, 0)]);
        let mut pane = Pane::all(&Figures::new(Some(&before), &now))[0].clone();
        assert_eq!(column(&pane, "SHARD"), ["2", "10", "11"]);
        pane.sort_by(2);
        assert_eq!(column(&pane, "RECORDS/S"), ["30", "10", "0"]);
        pane.sort_by(0);
        assert_eq!(column(&pane, "SHARD"), ["2", "10", "11"]);
        pane.sort_by(99);
        assert_eq!(pane.rows.len(), 3);
        assert_eq!(column(&pane, "KEYS"), ["25.0 %"; 3]);
        let unknown = Rank::Amount(None);
        assert_eq!(unknown.compare(&Rank::Amount(Some(0.0))), Ordering::Greater, "what is not known comes last");
    }

    #[test]
    fn ages_are_short() {
        for (millis, shown) in [
            (0, "0s"),
            (180, "180ms"),
            (4_270, "4.2s"),
            (61_999, "1m1s"),
            (3_661_000, "1h1m"),
            (86_400_000 * 2 + 3_600_000 + 5, "2d1h"),
        ] {
            assert_eq!(show_age(millis), shown);
        }
    }

    #[test]
    fn text_has_what_there_is() {
        let text = as_text(&Figures::new(None, &snapshot(1, vec![shard(3, 1_244, 5 << 20)])));
        assert!(text.contains("1 open, 0 closed shards; writes -"), "{text}");
        assert!(text.contains("1,234 records, 5.0 MiB"), "{text}");
        assert!(text.contains("SHARD") && !text.contains("CONSUMER"), "{text}");
    }
}
