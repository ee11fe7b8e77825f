//! The command as a user meets it: the binary, on temporary directories.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says so by panicking")]

mod consumers;
mod process;
mod put;
mod serve;
mod stream;
mod support;
mod tail;
mod tail_exactly_once;
mod top;
mod usage;
