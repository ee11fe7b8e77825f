//! The live view: looks, keys and drawings in turn, on a terminal that is given back as it was.

use std::io;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::draw::draw;
use super::figures::Figures;
use super::screen::{Command, Screen};
use super::snapshot::{Snapshot, Watcher};
use crate::exit::Failure;
use crate::interrupt::{Interrupt, PATIENCE};

/// Shows the stream until the user has seen enough. However this ends, also by a panic or a second signal, the terminal is as it was.
pub(crate) fn show(watcher: Watcher, interval: Duration, interrupt: &Interrupt) -> Result<(), Failure> {
    interrupt.before_exit(|| _ = ratatui::try_restore());
    let terminal = ratatui::try_init();
    // What was done of it before it failed is undone.
    let mut terminal = terminal.inspect_err(|_| _ = ratatui::try_restore()).map_err(Failure::Output)?;
    let outcome =
        View { watcher, before: None, screen: Screen::default() }.run(&mut terminal, interval, interrupt);
    let restored = ratatui::try_restore();
    outcome.and(restored).map_err(Failure::Output)
}

struct View {
    watcher: Watcher,
    before: Option<Snapshot>,
    screen: Screen,
}

impl View {
    fn run(mut self, terminal: &mut DefaultTerminal, interval: Duration, interrupt: &Interrupt) -> io::Result<()> {
        let mut due = Instant::now();
        let mut is_stale = true;
        loop {
            if due <= Instant::now() {
                self.look();
                due = Instant::now() + interval;
                is_stale = true;
            }
            if is_stale {
                terminal.draw(|frame| draw(frame, &mut self.screen))?;
            }
            if interrupt.requested() {
                return Ok(());
            }
            match self.obey_until(due)? {
                ControlFlow::Continue(is_news) => is_stale = is_news,
                ControlFlow::Break(()) => return Ok(()),
            }
        }
    }

    /// A stream that cannot be looked at may come back.
    fn look(&mut self) {
        match self.watcher.look() {
            Ok(now) => {
                self.screen.update(Figures::new(self.before.as_ref(), &now));
                self.before = Some(now);
            }
            Err(error) => self.screen.trouble = Some(error.to_string()),
        }
    }

    /// Waits for a key or a new size, not past the next look, and says whether there is something to draw.
    fn obey_until(&mut self, due: Instant) -> io::Result<ControlFlow<(), bool>> {
        let patience = due.saturating_duration_since(Instant::now()).min(PATIENCE);
        if !event::poll(patience)? {
            return Ok(ControlFlow::Continue(false));
        }
        let Event::Key(key) = event::read()? else {
            return Ok(ControlFlow::Continue(true)); // a new size: the next drawing has it
        };
        let goes_on = command(key).is_none_or(|command| self.screen.obey(command));
        Ok(if goes_on { ControlFlow::Continue(true) } else { ControlFlow::Break(()) })
    }
}

fn command(key: KeyEvent) -> Option<Command> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    Some(match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Command::Quit,
        KeyCode::Char('q') | KeyCode::Esc => Command::Quit,
        KeyCode::Tab | KeyCode::Right => Command::NextPane,
        KeyCode::BackTab | KeyCode::Left => Command::PreviousPane,
        KeyCode::Up => Command::Up,
        KeyCode::Down => Command::Down,
        KeyCode::PageUp => Command::PageUp,
        KeyCode::PageDown => Command::PageDown,
        KeyCode::Home => Command::First,
        KeyCode::End => Command::Last,
        KeyCode::Char('s') => Command::Sort,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_end_it() {
        let plain = |code| KeyEvent::new(code, KeyModifiers::NONE);
        for key in [
            plain(KeyCode::Char('q')),
            plain(KeyCode::Esc),
            KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL),
        ] {
            assert_eq!(command(key), Some(Command::Quit));
        }
        assert_eq!(command(plain(KeyCode::Char('c'))), None);
        assert_eq!(command(plain(KeyCode::Char('s'))), Some(Command::Sort));
    }
}
