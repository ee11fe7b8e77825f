//! The screen on a terminal of whatever size.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Paragraph, Row, Table};

use super::panes::{PANES, summary};
use super::screen::{Screen, Shown};
use crate::output::Align;

const KEYS: &str = "q quit  Tab pane  arrows scroll  s sort";

/// Lines of a pane that are worth their place: title, headings, and two rows.
const MIN_PANE_LINES: u16 = 4;

/// Between two columns.
const GAP: u16 = 2;

/// Draws everything. Small terminals show the pane that has the keys, and columns as far as they have room.
pub(crate) fn draw(frame: &mut Frame<'_>, screen: &mut Screen) {
    let [top, body, bottom] =
        Layout::vertical([Constraint::Max(4), Constraint::Fill(1), Constraint::Max(1)]).areas(frame.area());
    draw_summary(frame, top, screen);
    draw_bottom(frame, bottom, screen);
    if body.height < MIN_PANE_LINES * 3 {
        draw_pane(frame, body, screen, screen.focus);
        return;
    }
    // Shards have what room there is; the other panes a third, if they need it.
    let wanted = |screen: &mut Screen, place| {
        let rows = screen.show(place, 0).map_or(0, |shown| shown.pane.rows.len());
        u16::try_from(rows + 3).unwrap_or(u16::MAX).clamp(MIN_PANE_LINES, body.height / 3)
    };
    let lower = [1, 2].map(|place| Constraint::Length(wanted(screen, place)));
    let areas: [Rect; PANES] = Layout::vertical([Constraint::Fill(1), lower[0], lower[1]]).areas(body);
    for (place, area) in areas.into_iter().enumerate() {
        draw_pane(frame, area, screen, place);
    }
}

fn draw_summary(frame: &mut Frame<'_>, area: Rect, screen: &Screen) {
    let Some(figures) = &screen.figures else {
        return;
    };
    let [first, second, third] = summary(figures);
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let lines = vec![Line::styled(first, bold), Line::from(second), Line::from(third)];
    frame.render_widget(Paragraph::new(lines), area);
}

fn draw_bottom(frame: &mut Frame<'_>, area: Rect, screen: &Screen) {
    let line = match &screen.trouble {
        Some(trouble) => Line::styled(trouble.as_str(), Style::new().add_modifier(Modifier::REVERSED)),
        None => Line::styled(KEYS, Style::new().add_modifier(Modifier::DIM)),
    };
    frame.render_widget(line, area);
}

fn draw_pane(frame: &mut Frame<'_>, area: Rect, screen: &mut Screen, place: usize) {
    let [title, table] = Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
    let room = usize::from(table.height.saturating_sub(1));
    let has_keys = screen.focus == place;
    let Some(shown) = screen.show(place, room) else {
        return;
    };
    frame.render_widget(title_line(&shown, room, has_keys), title);
    frame.render_widget(rows(&shown, room, area.width), table);
}

fn title_line(shown: &Shown, room: usize, has_keys: bool) -> Line<'static> {
    let count = shown.pane.rows.len();
    let last = count.min(shown.first_row + room);
    let place = match count {
        0 => "none".to_owned(),
        _ if room >= count => count.to_string(),
        _ => format!("{} to {last} of {count}", shown.first_row + 1),
    };
    let style = if has_keys { Modifier::BOLD | Modifier::UNDERLINED } else { Modifier::empty() };
    Line::styled(format!("{}: {place}", shown.pane.title), Style::new().add_modifier(style))
}

fn rows(shown: &Shown, room: usize, width: u16) -> Table<'static> {
    let widths = widths(shown, width);
    let columns = || shown.pane.columns.iter().take(widths.len());
    let visible = shown.pane.rows.iter().skip(shown.first_row).take(room);
    let rows = visible.map(|row| {
        let cells = columns().zip(row);
        Row::new(cells.map(|((_, align), cell)| aligned(cell.text.clone(), *align)).collect::<Vec<_>>())
    });
    let headings = columns().enumerate().map(|(place, (name, align))| {
        let emphasis = if place == shown.sorted_by { Modifier::REVERSED } else { Modifier::DIM };
        aligned((*name).to_owned(), *align).style(Style::new().add_modifier(emphasis))
    });
    Table::new(rows, widths.iter().map(|width| Constraint::Length(*width)))
        .header(Row::new(headings.collect::<Vec<_>>()))
        .column_spacing(GAP)
}

/// The widths of the columns that have room: the first always, as far as it goes.
fn widths(shown: &Shown, width: u16) -> Vec<u16> {
    let mut left = width;
    let mut widths = Vec::new();
    for (place, (name, _)) in shown.pane.columns.iter().enumerate() {
        let cells = shown.pane.rows.iter().filter_map(|row| row.get(place));
        let needed = cells.map(|cell| cell.text.chars().count()).max().unwrap_or(0).max(name.len());
        let needed = u16::try_from(needed).unwrap_or(u16::MAX);
        if place > 0 && needed.saturating_add(GAP) > left {
            break;
        }
        widths.push(needed.min(left));
        left = left.saturating_sub(needed.saturating_add(if place > 0 { GAP } else { 0 }));
    }
    widths
}

fn aligned(text: String, align: Align) -> Cell<'static> {
    Cell::from(match align {
        Align::Left => Line::from(text),
        Align::Right => Line::from(text).right_aligned(),
    })
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::figures::Figures;
    use super::super::figures::tests::{shard, snapshot};
    use super::super::screen::Command;
    use super::super::snapshot::{Reading, Snapshot, Writing};
    use super::*;

    fn screen() -> Screen {
        let reading = |shard: u32| Reading {
            consumer: "billing".to_owned(),
            shard_id: format!("shardId-{shard:012}"),
            position: "after:17".to_owned(),
            owner: Some("worker-1".to_owned()),
            records_behind: Some(1_234),
            millis_behind: Some(61_000),
        };
        let before = snapshot(1, (0..30).map(|id| shard(id, 20, 100)).collect());
        let now = Snapshot {
            readings: (0..2).map(reading).collect(),
            producers: vec![Writing { name: "importer".to_owned(), epoch: 3, last_batch: Some(7) }],
            ..snapshot(2, (0..30).map(|id| shard(id, 25 + u64::from(id), 200)).collect())
        };
        let mut screen = Screen::default();
        screen.update(Figures::new(Some(&before), &now));
        screen
    }

    fn drawn(screen: &mut Screen, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, screen)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        (0..height).map(line).collect()
    }

    #[track_caller]
    fn assert_shows(lines: &[String], parts: &[&str]) {
        for part in parts {
            assert!(lines.iter().any(|line| line.contains(part)), "{part:?} is not in {lines:#?}");
        }
    }

    #[test]
    fn a_usual_terminal_shows_all_panes() {
        let lines = drawn(&mut screen(), 80, 24);
        assert_eq!(lines[0], "clicks");
        assert_shows(&lines, &["30 open, 0 closed shards; writes 585 records/s, 2.9 KiB/s", "shards: 1 to "]);
        assert_shows(&lines, &["SHARD  STATE  RECORDS/S  BYTES/S", "    0  open           5    100 B"]);
        assert_shows(&lines, &["consumers: 2", "billing       0   1,234  1m1s  worker-1  after:17"]);
        assert_shows(&lines, &["producers: 1", "importer      3           7", "q quit"]);
    }

    #[test]
    fn a_large_terminal_shows_every_column_and_row() {
        let lines = drawn(&mut screen(), 200, 60);
        assert_shows(&lines, &["shards: 30", "OLDEST", "DISK", "64.0 KiB", "25.0 %", "   29  open          34"]);
    }

    #[test]
    fn a_small_terminal_shows_one_pane_and_the_first_columns() {
        let mut screen = screen();
        let lines = drawn(&mut screen, 40, 10);
        assert_shows(&lines, &["shards: 1 to ", "RECORDS/S", "q quit"]);
        assert!(!lines.iter().any(|line| line.contains("consumers") || line.contains("OLDEST")), "{lines:#?}");
        screen.obey(Command::NextPane);
        assert_shows(&drawn(&mut screen, 40, 10), &["consumers: 2", "billing"]);
    }

    #[test]
    fn what_was_sorted_and_scrolled_is_shown() {
        let mut screen = screen();
        screen.obey(Command::Sort);
        screen.obey(Command::Sort);
        let lines = drawn(&mut screen, 80, 24);
        let first = lines.iter().position(|line| line.contains("RECORDS/S")).unwrap() + 1;
        assert!(lines[first].contains("   29  open          34"), "{lines:#?}");
        screen.obey(Command::Last);
        assert_shows(&drawn(&mut screen, 80, 24), &["to 30 of 30", "    0  open           5"]);
    }

    #[test]
    fn no_size_is_too_small_and_no_trouble_is_hidden() {
        for (width, height) in [(1, 1), (1, 50), (200, 1), (3, 3), (17, 5), (79, 16)] {
            drawn(&mut screen(), width, height);
            drawn(&mut Screen::default(), width, height);
        }
        let mut screen = screen();
        screen.trouble = Some("there is no stream at clicks".to_owned());
        let lines = drawn(&mut screen, 80, 24);
        assert_shows(&lines, &["there is no stream at clicks", "shards: 1 to "]);
        screen.update(Figures::default());
        assert_shows(&drawn(&mut screen, 80, 24), &["shards: none", "consumers: none", "q quit"]);
    }
}
