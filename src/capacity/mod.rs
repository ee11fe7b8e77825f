//! How many shards a load wants: what is known of each, and the decision to split and merge. Pure: no file, no clock.
//!
//! The rule is that of Pravega's streams (the auto-scaling policy of its controller), with averages over 2, 5, 10 and 20 minutes: a shard is *hot* when a short average
//! is far above its target or a long one above it at all, and *cold* when all are below and the longest is below half. Hot shards are split where the keys that they
//! were seen to take balance, cold neighbours are merged. What keeps it from swinging: a shard has to be as old as the average that
//! it is judged by, and neighbours are merged only if together they stay well below what would split them.

mod decide;
mod history;
mod keys;
mod policy;
#[cfg(test)]
mod tests;

pub(crate) use decide::{Action, Autoscaler};
pub(crate) use history::Seen;
pub use policy::{Capacity, CapacityPolicy};
