//! What survives: histories of a stream on a simulated disk, cut short or struck by faults at every single operation.
//!
//! - `power` cuts the power (or kills the process) at every operation of a history and of the recovery that follows, and
//!   checks what the next opening finds against a ledger of everything that was acknowledged and shown.
//! - `threads` does it under several threads that put, read, split, merge and scale.
//! - `faults` lets every operation fail once, fills the disk up, and checks the same.
//! - `consumers`: positions and leases under cuts, kills and failing calls.
//! - `queue`: nothing unacknowledged is lost, and what was acknowledged and synced does not come again.
//! - `damage` changes stored bytes, field by field, and demands the right data or a typed error.
//! - `opening`: what an opening decides, one decision at a time.
//! - `repair` mends what was damaged: what is sound stays, what is lost is said, the rest is set aside; the power is cut
//!   in the middle of it, too.
//! - `producers` puts numbered batches again after every one of these, and counts that each is there once.
//! - `pipeline` does so with what reads one stream and appends to another.
//! - `event_source` counts what a handler was given, and what its windows were closed with.
//! - `history` makes and runs the histories; `ledger` is the memory of what was promised, `positions` that of where a consumer may stand; `directed` holds
//!   the short stories of states that a random history reaches rarely.
//!
//! The quick form runs with every `cargo test`. The long form, 200 histories of each kind and all short ones of 3 steps:
//!
//! ```text
//! ANABRANCH_CRASH_SEEDS=200 ANABRANCH_CRASH_STEPS=3 cargo test --release --test crash -- --nocapture
//! ```
//!
//! A failure prints its seed and the operation at which the history was cut. To run that one alone, as it prints:
//!
//! ```text
//! ANABRANCH_CRASH_SEED=17 ANABRANCH_CRASH_AT=203 cargo test --test crash TEST_NAME -- --nocapture
//! ```
#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr, clippy::print_stdout, clippy::unwrap_used)]

mod consumers;
mod damage;
mod directed;
mod event_source;
mod faults;
mod history;
mod ledger;
mod opening;
mod pipeline;
mod plain;
mod positions;
mod power;
mod producers;
mod queue;
mod repair;
mod threads;
mod verified;

use std::io;
use std::ops::Range;

use anabranch::DiskFault;

/// What each call is struck by.
pub(crate) const FAULTS: [DiskFault; 4] = [
    DiskFault::Error(io::ErrorKind::Other),
    DiskFault::Error(io::ErrorKind::StorageFull),
    DiskFault::ShortWrite,
    DiskFault::Panic,
];

/// `SplitMix64`: the same numbers for the same seed, on every machine.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5DEE_CE66)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub(crate) fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.below(range.end - range.start)
    }

    /// True once in `times`.
    pub(crate) fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap()
    }
}

/// The seeds to run: `quick` of them, or as many (or the one) as the environment asks for.
pub(crate) fn seeds(quick: u64) -> Range<u64> {
    if let Some(seed) = only_seed() {
        return seed..seed + 1;
    }
    0..number("ANABRANCH_CRASH_SEEDS").unwrap_or(quick)
}

/// Whether one case alone was asked for: then nothing can be said about coverage.
pub(crate) fn is_single() -> bool {
    only_seed().is_some()
}

/// The one history to run, if the environment names it.
pub(crate) fn only_seed() -> Option<u64> {
    number("ANABRANCH_CRASH_SEED")
}

/// The one operation to cut at, if the environment names it.
pub(crate) fn only_at() -> Option<u64> {
    number("ANABRANCH_CRASH_AT")
}

pub(crate) fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number in the environment"))
}

/// Prints what case it was when a test fails inside it.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) test: &'static str,
    pub(crate) seed: u64,
    pub(crate) at: u64,
    pub(crate) detail: String,
}

impl Drop for Case {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { test, seed, at, detail } = self;
            eprintln!("failed with seed {seed} at operation {at}: {detail}");
            let steps = number("ANABRANCH_CRASH_STEPS").map(|steps| format!("ANABRANCH_CRASH_STEPS={steps} "));
            let steps = steps.unwrap_or_default(); // which histories there are depends on it
            eprintln!(
                "alone: {steps}ANABRANCH_CRASH_SEED={seed} ANABRANCH_CRASH_AT={at} cargo test --test crash {test}"
            );
        }
    }
}
