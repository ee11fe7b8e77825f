//! The library as its users see it: everything here goes through the public exports, most of it on real directories.
//!
//! Nothing is timed. What has to wait polls with a deadline far above what it takes, so that only a hang fails by it. Streams
//! are made without their background thread, except where that thread is the subject.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]
#![allow(clippy::print_stderr, reason = "a skipped test says why")]

mod support;

mod background;
mod batching;
mod capacity;
mod clock;
mod consumers;
mod durability;
mod event_source;
mod event_windows;
mod fencing;
mod follow;
mod groups;
mod idempotence;
mod iterators;
mod linearizable;
mod metrics;
mod open;
mod pipeline;
mod producers;
mod put;
mod queue;
mod quotas;
mod read_only;
mod reshard;
mod retention;
mod routing;
mod store;
