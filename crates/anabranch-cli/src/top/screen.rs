//! What is on the screen: which pane has the keys, how each is sorted and how far it is scrolled. No I/O.

use super::figures::Figures;
use super::panes::{PANES, Pane};

/// What a key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    Quit,
    NextPane,
    PreviousPane,
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
    /// By the next column.
    Sort,
}

/// The screen's state between two drawings.
#[derive(Debug, Default)]
pub(crate) struct Screen {
    pub(crate) figures: Option<Figures>,
    /// Why the last look failed: what is shown is from before.
    pub(crate) trouble: Option<String>,
    pub(crate) focus: usize,
    /// What the figures are as tables, not sorted yet.
    panes: Vec<Pane>,
    views: [View; PANES],
}

/// How a pane is looked at.
#[derive(Debug, Clone, Copy, Default)]
struct View {
    sorted_by: usize,
    first_row: usize,
    /// Rows that the last drawing had room for.
    page: usize,
}

/// A pane as it is to be drawn.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) pane: Pane,
    pub(crate) sorted_by: usize,
    pub(crate) first_row: usize,
}

impl Screen {
    /// A look succeeded.
    pub(crate) fn update(&mut self, figures: Figures) {
        self.panes = Pane::all(&figures).into();
        self.figures = Some(figures);
        self.trouble = None;
    }

    /// Does what a key asks for; false once it is to end.
    pub(crate) fn obey(&mut self, command: Command) -> bool {
        let view = &mut self.views[self.focus];
        let page = view.page.max(1);
        match command {
            Command::Quit => return false,
            Command::NextPane => self.focus = (self.focus + 1) % PANES,
            Command::PreviousPane => self.focus = (self.focus + PANES - 1) % PANES,
            Command::Up => view.first_row = view.first_row.saturating_sub(1),
            Command::Down => view.first_row = view.first_row.saturating_add(1),
            Command::PageUp => view.first_row = view.first_row.saturating_sub(page),
            Command::PageDown => view.first_row = view.first_row.saturating_add(page),
            Command::First => view.first_row = 0,
            Command::Last => view.first_row = usize::MAX,
            Command::Sort => view.sorted_by += 1,
        }
        true
    }

    /// A pane, sorted, and scrolled no further than its last rows, of which so many have room.
    pub(crate) fn show(&mut self, place: usize, room: usize) -> Option<Shown> {
        let mut pane = self.panes.get(place)?.clone();
        let view = self.views.get_mut(place)?;
        view.sorted_by %= pane.columns.len();
        view.page = room;
        view.first_row = view.first_row.min(pane.rows.len().saturating_sub(room));
        pane.sort_by(view.sorted_by);
        Some(Shown { pane, sorted_by: view.sorted_by, first_row: view.first_row })
    }
}

#[cfg(test)]
mod tests {
    use super::super::figures::tests::{shard, snapshot};
    use super::*;

    fn screen(shards: u32) -> Screen {
        let shards = (0..shards).map(|id| shard(id, 20, 100)).collect();
        let mut screen = Screen::default();
        screen.update(Figures::new(None, &snapshot(1, shards)));
        screen
    }

    #[test]
    fn scrolling_stays_within_the_rows() {
        let mut screen = screen(10);
        let first_row = |screen: &mut Screen| screen.show(0, 4).unwrap().first_row;
        assert_eq!(first_row(&mut screen), 0);
        for (command, expected) in [
            (Command::Up, 0),
            (Command::Down, 1),
            (Command::PageDown, 5),
            (Command::PageDown, 6),
            (Command::Up, 5),
            (Command::Last, 6),
            (Command::PageUp, 2),
            (Command::First, 0),
        ] {
            assert!(screen.obey(command));
            assert_eq!(first_row(&mut screen), expected, "{command:?}");
        }
        assert!(screen.obey(Command::Last));
        screen.update(Figures::new(None, &snapshot(2, vec![shard(0, 20, 100)])));
        assert_eq!(first_row(&mut screen), 0, "the shards became fewer");
        assert!(!screen.obey(Command::Quit));
    }

    #[test]
    fn keys_go_to_one_pane_at_a_time() {
        let mut screen = screen(3);
        let columns = screen.show(0, 4).unwrap().pane.columns.len();
        for expected in (1..columns).chain([0]) {
            screen.obey(Command::Sort);
            assert_eq!(screen.show(0, 4).unwrap().sorted_by, expected);
        }
        screen.obey(Command::PreviousPane);
        screen.obey(Command::Sort);
        assert_eq!(
            (screen.focus, screen.show(2, 4).unwrap().sorted_by, screen.show(0, 4).unwrap().sorted_by),
            (2, 1, 0)
        );
        screen.obey(Command::NextPane);
        assert_eq!(screen.focus, 0);
        assert!(Screen::default().show(0, 4).is_none());
    }
}
