//! The operations: each reads its members (wrong types), validates them (what the model says), acts (what the stream says) and answers.

mod account;
mod call;
mod consumers;
mod describe;
mod lifecycle;
mod list_shards;
mod policies;
mod position;
mod queue_records;
mod queues;
mod read;
mod receive;
mod reshard;
mod retention;
mod settings;
mod shapes;
mod subscribe;
mod tags;
mod target;
mod write;

pub(crate) use call::{Call, Reply};
pub(crate) use position::{Position, open_reader};
pub(crate) use receive::Receive;
pub(crate) use shapes::{ChildShardShape, RecordShape, child_shapes};

use crate::errors::Fault;
use crate::wire::Fields;

/// An operation by its name on the wire.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&Call<'_>, Fields<'_>) -> Result<Reply, Fault>,
}

/// All there are. One that is not in the list is answered as an unknown one.
const OPERATIONS: [Operation; 52] = [
    Operation { name: "PutRecord", run: write::put_record },
    Operation { name: "PutRecords", run: write::put_records },
    Operation { name: "GetRecords", run: read::get_records },
    Operation { name: "GetShardIterator", run: read::get_shard_iterator },
    Operation { name: "SubscribeToShard", run: subscribe::subscribe_to_shard },
    Operation { name: "ListShards", run: list_shards::list_shards },
    Operation { name: "DescribeStream", run: describe::describe_stream },
    Operation { name: "DescribeStreamSummary", run: describe::describe_stream_summary },
    Operation { name: "DescribeLimits", run: describe::describe_limits },
    Operation { name: "ListStreams", run: describe::list_streams },
    Operation { name: "CreateStream", run: lifecycle::create_stream },
    Operation { name: "DeleteStream", run: lifecycle::delete_stream },
    Operation { name: "SplitShard", run: reshard::split_shard },
    Operation { name: "MergeShards", run: reshard::merge_shards },
    Operation { name: "UpdateShardCount", run: reshard::update_shard_count },
    Operation { name: "IncreaseStreamRetentionPeriod", run: retention::increase },
    Operation { name: "DecreaseStreamRetentionPeriod", run: retention::decrease },
    Operation { name: "AddTagsToStream", run: tags::add_tags_to_stream },
    Operation { name: "RemoveTagsFromStream", run: tags::remove_tags_from_stream },
    Operation { name: "ListTagsForStream", run: tags::list_tags_for_stream },
    Operation { name: "TagResource", run: tags::tag_resource },
    Operation { name: "UntagResource", run: tags::untag_resource },
    Operation { name: "ListTagsForResource", run: tags::list_tags_for_resource },
    Operation { name: "RegisterStreamConsumer", run: consumers::register },
    Operation { name: "DeregisterStreamConsumer", run: consumers::deregister },
    Operation { name: "DescribeStreamConsumer", run: consumers::describe },
    Operation { name: "ListStreamConsumers", run: consumers::list },
    Operation { name: "EnableEnhancedMonitoring", run: settings::enable_monitoring },
    Operation { name: "DisableEnhancedMonitoring", run: settings::disable_monitoring },
    Operation { name: "StartStreamEncryption", run: settings::start_encryption },
    Operation { name: "StopStreamEncryption", run: settings::stop_encryption },
    Operation { name: "UpdateStreamMode", run: settings::update_mode },
    Operation { name: "UpdateMaxRecordSize", run: settings::update_max_record_size },
    Operation { name: "UpdateStreamWarmThroughput", run: settings::update_warm_throughput },
    Operation { name: "PutResourcePolicy", run: policies::put },
    Operation { name: "GetResourcePolicy", run: policies::get },
    Operation { name: "DeleteResourcePolicy", run: policies::delete },
    Operation { name: "UpdateStreamRecordDistributionStrategy", run: settings::update_record_distribution },
    Operation { name: "DescribeAccountSettings", run: account::describe_account_settings },
    Operation { name: "UpdateAccountSettings", run: account::update_account_settings },
    Operation { name: "CreateQueue", run: queues::create },
    Operation { name: "DescribeQueue", run: queues::describe },
    Operation { name: "UpdateQueue", run: queues::update },
    Operation { name: "DeleteQueue", run: queues::delete },
    Operation { name: "ListQueues", run: queues::list },
    Operation { name: "ReceiveQueueRecords", run: receive::receive_records },
    Operation { name: "AcknowledgeQueueRecords", run: queue_records::acknowledge },
    Operation { name: "UpdateQueueRecordsVisibility", run: queue_records::update_visibility },
    Operation { name: "ReceiveDeadLetterQueueRecords", run: receive::receive_dead_letters },
    Operation { name: "AcknowledgeDeadLetterQueueRecords", run: queue_records::acknowledge_dead_letters },
    Operation { name: "RestoreDeadLetterQueueRecords", run: queue_records::restore_dead_letters },
    Operation {
        name: "UpdateDeadLetterQueueRecordsVisibility",
        run: queue_records::update_dead_letter_visibility,
    },
];

/// The names of all.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    OPERATIONS.iter().map(|operation| operation.name)
}

/// The operation of this name.
pub(crate) fn named(name: &str) -> Option<Operation> {
    OPERATIONS.into_iter().find(|operation| operation.name == name)
}
