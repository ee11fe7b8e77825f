//! The chart beside the table: a panel a load, a bar an engine, drawn by hand.

use std::fmt::Write;

use crate::Result;
use crate::engines::Role;
use crate::report::{Results, Row, number, rows};
use crate::tables::{Column, TABLES, Unit};

/// Which columns are shown: table and head.
const PANELS: [(&str, &str, &str); 8] = [
    ("W1", "128 B", "One record a call, 128 B"),
    ("W1", "1 KiB", "One record a call, 1 KiB"),
    ("W2", "128 B", "Batches of 100, 128 B"),
    ("W2", "1 KiB", "Batches of 100, 1 KiB"),
    ("W4", "8 threads", "Durable, 1 KiB, 8 threads"),
    ("W4", "64 threads", "Durable, 1 KiB, 64 threads"),
    ("W5", "1 KiB", "Scan, 1 KiB"),
    ("W6", "1 KiB", "Point reads, 1 KiB"),
];

const PANEL_WIDTH: usize = 460;
const NAME_WIDTH: usize = 190;
const BAR_WIDTH: usize = 190;
const ROW_HEIGHT: usize = 18;
const HEAD_HEIGHT: usize = 46;
const MARGIN: usize = 16;

const STYLE: &str = "\
text{font:12px system-ui,sans-serif;fill:#1f2328}.head{font-weight:600;font-size:13px}.unit,.value{fill:#59636e}\
.ours{fill:#0969da}.peer{fill:#afb8c1}.bare{fill:none;stroke:#59636e;stroke-dasharray:3 2}.page{fill:#fff}\
@media(prefers-color-scheme:dark){text{fill:#f0f6fc}.unit,.value{fill:#9198a1}.ours{fill:#4493f8}.peer{fill:#59636e}\
.bare{stroke:#9198a1}.page{fill:#0d1117}}";

pub(crate) fn svg(results: &Results) -> Result<String> {
    let panels: Vec<_> = PANELS.iter().filter_map(|panel| Panel::new(results, *panel)).collect();
    let (mut body, mut y) = (String::new(), MARGIN);
    for pair in panels.chunks(2) {
        for (index, panel) in pair.iter().enumerate() {
            panel.draw(&mut body, MARGIN + index * (PANEL_WIDTH + MARGIN), y)?;
        }
        y += pair.iter().map(Panel::height).max().unwrap_or(0) + MARGIN;
    }
    let (width, height) = (2 * PANEL_WIDTH + 3 * MARGIN, y + 20);
    Ok(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\">\n<title>anabranch beside its \
         rivals</title>\n<style>{STYLE}</style>\n<rect class=\"page\" width=\"{width}\" height=\"{height}\"/>\n{body}<text \
         class=\"unit\" x=\"{MARGIN}\" y=\"{y}\">Longer is faster. Dashed: the bare system calls, the floor. All bars of a panel \
         survive the same crash.</text>\n</svg>\n"
    ))
}

struct Panel {
    title: &'static str,
    unit: Unit,
    /// Fastest first.
    bars: Vec<(Row, f64)>,
}

impl Panel {
    fn new(results: &Results, (table, head, title): (&str, &str, &'static str)) -> Option<Self> {
        let table = TABLES.iter().find(|candidate| candidate.id == table)?;
        let column: &Column = table.columns.iter().find(|column| column.head == head)?;
        let level = rows().find(|row| row.entrant.role == Role::Ours && results.median(*row, column).is_some())?;
        let rows = rows().filter(|row| row.survives >= level.survives);
        let mut bars: Vec<_> = rows.filter_map(|row| Some((row, results.median(row, column)?))).collect();
        bars.sort_by(|left, right| right.1.total_cmp(&left.1));
        Some(Self { title, unit: column.unit, bars })
    }

    fn height(&self) -> usize {
        HEAD_HEIGHT + self.bars.len() * ROW_HEIGHT
    }

    fn draw(&self, svg: &mut String, x: usize, y: usize) -> Result<()> {
        let unit = if self.unit == Unit::ThousandPerSecond { "thousand/s" } else { "million/s" };
        writeln!(svg, "<text class=\"head\" x=\"{x}\" y=\"{}\">{}</text>", y + 16, self.title)?;
        writeln!(svg, "<text class=\"unit\" x=\"{x}\" y=\"{}\">{unit}</text>", y + 32)?;
        let most = self.bars.first().map_or(1.0, |bar| bar.1);
        let bar_x = x + NAME_WIDTH;
        for (index, (row, value)) in self.bars.iter().enumerate() {
            let top = y + HEAD_HEIGHT - 6 + index * ROW_HEIGHT;
            let length = (value / most * BAR_WIDTH as f64).max(1.0);
            let class = match row.entrant.role {
                Role::Ours => "ours",
                Role::Peer => "peer",
                Role::Bare => "bare",
            };
            let name = row.entrant.name.replace('`', "");
            let weight = if row.entrant.role == Role::Ours { " font-weight=\"600\"" } else { "" };
            writeln!(
                svg,
                "<text x=\"{}\" y=\"{}\" text-anchor=\"end\"{weight}>{name}</text><rect class=\"{class}\" x=\"{bar_x}\" \
                 y=\"{top}\" width=\"{length:.1}\" height=\"{}\" rx=\"2\"/><text class=\"value\" x=\"{:.1}\" y=\"{}\">{}</text>",
                bar_x - 6,
                top + 11,
                ROW_HEIGHT - 5,
                bar_x as f64 + length + 6.0,
                top + 11,
                number(value / self.unit.divisor())
            )?;
        }
        Ok(())
    }
}
