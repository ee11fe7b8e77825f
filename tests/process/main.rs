//! Several processes on one stream: writers that are killed, followers beside them, and who gets the lock.
//!
//! The test binary starts itself again as a child in one of the roles of [`child`]. `PROCESS_SEED` chooses what is
//! chosen at random; when exactly a process dies is up to the machine all the same. Each test prints its seed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "children and seeds")]

mod child;
mod consumers;
mod create;
mod event_source;
mod follow;
mod fork;
mod groups;
mod kill;
mod limits;
mod lock;
mod moved;
mod producers;
mod queue;
mod records;
mod short;
mod strange;
mod support;
mod syscalls;
mod writer;
