//! The protocol as clients see it: most of it through the service without a socket, on a clock that stands still; what sockets add, through one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]
#![allow(clippy::print_stderr, reason = "a skipped test says why")]
#![allow(clippy::needless_pass_by_value, reason = "bodies are written where they are used")]

mod bodies;
mod clients;
mod consumers;
mod http_order;
mod lineage;
mod listing;
mod observe;
mod on_demand;
mod profile;
mod puts;
mod queues;
mod queues_waiting;
mod rates;
mod reads;
mod restart;
mod settings;
mod sockets;
mod support;
mod tls;
mod transitions;
