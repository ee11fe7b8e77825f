//! Progress on standard error, where that is a terminal.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar that is wiped when it is dropped, so that messages never stand in its line.
#[derive(Debug)]
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// A bar over so many bytes.
    pub(crate) fn of_bytes(total: u64, what: &'static str) -> Self {
        Self::new(total, what, "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}")
    }

    /// A bar over so many records.
    pub(crate) fn of_records(total: u64, what: &'static str) -> Self {
        Self::new(total, what, "{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}")
    }

    /// Shows nothing.
    pub(crate) fn none() -> Self {
        Self(ProgressBar::hidden())
    }

    fn new(total: u64, what: &'static str, template: &str) -> Self {
        if !io::stderr().is_terminal() {
            return Self::none();
        }
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        // A template that does not parse would cost the layout, not the work.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what);
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    /// So much more is done.
    pub(crate) fn add(&self, amount: u64) {
        self.0.inc(amount);
    }

    /// So much of so much is done.
    pub(crate) fn set(&self, done: u64, total: u64) {
        self.0.set_length(total);
        self.0.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
