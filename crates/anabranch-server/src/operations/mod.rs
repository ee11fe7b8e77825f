//! The operations: each reads its members (wrong types), validates them (what the model says), acts (what the stream says) and answers.

mod account;
mod call;
mod consumers;
mod describe;
mod lifecycle;
mod lineage;
mod list_shards;
mod policies;
mod position;
mod read;
mod reshard;
mod retention;
mod settings;
mod shapes;
mod subscribe;
mod tags;
mod target;
mod write;

pub(crate) use call::{Call, Reply};
pub(crate) use position::{Position, millis_behind_latest, next_that_fits, open_reader};
pub(crate) use shapes::{ChildShardShape, RecordShape, child_shapes};

use crate::errors::Fault;
use crate::wire::Fields;

/// An operation by its name on the wire.
#[derive(Clone, Copy)]
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    pub(crate) answer: Answer,
    pub(crate) run: fn(&Call<'_>, Fields<'_>) -> Result<Reply, Fault>,
}

/// What is to be expected of an answer, before the operation is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A put's: it is small, and the operation says where it waits for the disk, so that it can be answered where sockets are read.
    Put,
    /// One of a call that gives little, though it may take long.
    Short,
    /// One of a call that reads or lists.
    Long,
}

/// All there are. Another one is answered as an unknown one.
const OPERATIONS: [Operation; 40] = [
    Operation { name: "PutRecord", answer: Answer::Put, run: write::put_record },
    Operation { name: "PutRecords", answer: Answer::Put, run: write::put_records },
    Operation { name: "GetRecords", answer: Answer::Long, run: read::get_records },
    Operation { name: "GetShardIterator", answer: Answer::Short, run: read::get_shard_iterator },
    Operation { name: "SubscribeToShard", answer: Answer::Short, run: subscribe::subscribe_to_shard },
    Operation { name: "ListShards", answer: Answer::Long, run: list_shards::list_shards },
    Operation { name: "DescribeStream", answer: Answer::Long, run: describe::describe_stream },
    Operation { name: "DescribeStreamSummary", answer: Answer::Short, run: describe::describe_stream_summary },
    Operation { name: "DescribeLimits", answer: Answer::Short, run: describe::describe_limits },
    Operation { name: "ListStreams", answer: Answer::Long, run: describe::list_streams },
    Operation { name: "CreateStream", answer: Answer::Short, run: lifecycle::create_stream },
    Operation { name: "DeleteStream", answer: Answer::Short, run: lifecycle::delete_stream },
    Operation { name: "SplitShard", answer: Answer::Short, run: reshard::split_shard },
    Operation { name: "MergeShards", answer: Answer::Short, run: reshard::merge_shards },
    Operation { name: "UpdateShardCount", answer: Answer::Short, run: reshard::update_shard_count },
    Operation { name: "IncreaseStreamRetentionPeriod", answer: Answer::Short, run: retention::increase },
    Operation { name: "DecreaseStreamRetentionPeriod", answer: Answer::Short, run: retention::decrease },
    Operation { name: "AddTagsToStream", answer: Answer::Short, run: tags::add_tags_to_stream },
    Operation { name: "RemoveTagsFromStream", answer: Answer::Short, run: tags::remove_tags_from_stream },
    Operation { name: "ListTagsForStream", answer: Answer::Short, run: tags::list_tags_for_stream },
    Operation { name: "TagResource", answer: Answer::Short, run: tags::tag_resource },
    Operation { name: "UntagResource", answer: Answer::Short, run: tags::untag_resource },
    Operation { name: "ListTagsForResource", answer: Answer::Short, run: tags::list_tags_for_resource },
    Operation { name: "RegisterStreamConsumer", answer: Answer::Short, run: consumers::register },
    Operation { name: "DeregisterStreamConsumer", answer: Answer::Short, run: consumers::deregister },
    Operation { name: "DescribeStreamConsumer", answer: Answer::Short, run: consumers::describe },
    Operation { name: "ListStreamConsumers", answer: Answer::Long, run: consumers::list },
    Operation { name: "EnableEnhancedMonitoring", answer: Answer::Short, run: settings::enable_monitoring },
    Operation { name: "DisableEnhancedMonitoring", answer: Answer::Short, run: settings::disable_monitoring },
    Operation { name: "StartStreamEncryption", answer: Answer::Short, run: settings::start_encryption },
    Operation { name: "StopStreamEncryption", answer: Answer::Short, run: settings::stop_encryption },
    Operation { name: "UpdateStreamMode", answer: Answer::Short, run: settings::update_mode },
    Operation { name: "UpdateMaxRecordSize", answer: Answer::Short, run: settings::update_max_record_size },
    Operation { name: "UpdateStreamWarmThroughput", answer: Answer::Short, run: settings::update_warm_throughput },
    Operation { name: "PutResourcePolicy", answer: Answer::Short, run: policies::put },
    Operation { name: "GetResourcePolicy", answer: Answer::Short, run: policies::get },
    Operation { name: "DeleteResourcePolicy", answer: Answer::Short, run: policies::delete },
    Operation {
        name: "UpdateStreamRecordDistributionStrategy",
        answer: Answer::Short,
        run: settings::update_record_distribution,
    },
    Operation { name: "DescribeAccountSettings", answer: Answer::Short, run: account::describe_account_settings },
    Operation { name: "UpdateAccountSettings", answer: Answer::Short, run: account::update_account_settings },
];

/// The names of all.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    OPERATIONS.iter().map(|operation| operation.name)
}

/// The operation of this name.
pub(crate) fn named(name: &str) -> Option<Operation> {
    OPERATIONS.iter().find(|operation| operation.name == name).copied()
}
