//! How many shards a stream has open, and how they follow a load.
//!
//! A stream's shards change when somebody calls [`split_shard`](crate::Stream::split_shard), [`merge_shards`](crate::Stream::merge_shards) or
//! [`update_shard_count`](crate::Stream::update_shard_count). With [`Capacity::OnDemand`](crate::Capacity::OnDemand) the stream does it by itself:
//!
//! ```
//! use anabranch::{Capacity, CapacityPolicy, Stream};
//!
//! # fn main() -> anabranch::Result<()> {
//! # let directory = tempfile::tempdir().unwrap();
//! let policy = CapacityPolicy::default().min_shards(2).max_shards(64).records_per_second(20_000);
//! let stream = Stream::builder().capacity(Capacity::OnDemand(policy)).open(directory.path().join("clicks"))?;
//! assert_eq!(stream.open_shards().len(), 2);
//! # stream.close()
//! # }
//! ```
//!
//! A day of a stream whose shards are to take 4 records a second each, as `cargo run --release --example capacity -- capacity.svg` draws it:
//!
#![doc = include_str!("capacity.svg")]
//!
//! # The rule
//!
//! A shard's load is what it takes a second, as a share of its [target](crate::CapacityPolicy): of records or of bytes, whichever is more. It is averaged
//! exponentially over 2, 5, 10 and 20 minutes of the stream's clock. The rule is that of Pravega's auto-scaling, with other cuts:
//!
//! - A shard is **split** when its average over 2 minutes is above 5, over 5 minutes above 2, or over 10 minutes above 1, and it is at least as old. It
//!   becomes as many shards as its highest average says, at most 8 at a time, as long as there are fewer than the policy's most.
//! - A shard is **cold** when it is 20 minutes old, all averages are below 1 and the one over 20 minutes is below a half, for 10 minutes; or when it took nothing for
//!   20 minutes. Two cold neighbours are **merged** if their highest averages add up to less than 0.6, those with the least load first, as long as there are
//!   more than the policy's least.
//! - The cuts lie where the keys that the shard was **seen to take** balance, not in the middle of its range. A key that has a quarter of the load is cut off
//!   exactly. So a key that is too much for a shard ends in one whose range is that key, and nothing more is tried: no split would help.
//!   A cut that would take less than a twentieth of the load away is not made.
//!
//! A load that stays as it is leads to shards that stay as they are: each half of what was split is well above what neighbours may have together to be merged.
//! A burst of a minute does nothing.
//!
//! # What it costs
//!
//! Writers pay nothing. How many records a shard took is the number of its next one; its bytes are counted when they are written out; and keys are read from
//! the log: of a shard that takes more than half of its target, 64 of the new records, spread evenly, at each look. The newest 1,024 keys of such a shard are
//! kept, some 32 KiB. A split or merge makes the puts to its shards wait while these are sealed, as every reshard does.
//!
//! # What is not done
//!
//! Averages are not kept over an opening: a stream that was just opened waits for its shards to be as old as the rule asks. Kinesis' on-demand streams also keep room for
//! twice the peak of the last 30 days; this library's shards take far more than the targets that they are split by, so that a
//! load that rises at once is taken, on fewer shards than it should have. Nothing is refused above a target: the library does not throttle.
