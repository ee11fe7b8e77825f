//! The vocabulary: values without I/O, named as Kinesis names them.

mod durability;
mod hash_key;
mod names;
mod sequence_number;
mod timestamp;

pub use durability::{Durability, PartitionHash, RetentionPeriod};
pub use hash_key::{HashKey, HashKeyRange};
pub(crate) use names::is_name;
pub use names::{ParseShardIdError, ShardId, StreamId};
pub use sequence_number::{SequenceNumber, ShardIteratorType};
pub use timestamp::Timestamp;
