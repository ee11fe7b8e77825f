//! The AWS SDK for Rust against the service: in the process, and through a port.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod consumers;
mod errors;
mod faults;
mod lineage;
mod records;
mod runtime;
mod settings;
mod support;
