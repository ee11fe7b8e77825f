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
pub(crate) use position::{Position, millis_behind_latest, next_that_fits, open_reader};
pub(crate) use receive::{Receive, Taken};
pub(crate) use shapes::{ChildShardShape, RecordShape, child_shapes};

use crate::errors::Fault;
use crate::wire::Fields;

/// An operation by its name on the wire.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    pub(crate) answer: AnswerKind,
    pub(crate) run: fn(&Call<'_>, Fields<'_>) -> Result<Reply, Fault>,
}

/// What is to be expected of an answer, before the operation is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnswerKind {
    /// A put's: it is small, and the operation says where it waits for the disk, so that it can be answered where sockets are read.
    Put,
    /// One of a call that gives little, though it may take long.
    Short,
    /// One of a call that reads or lists.
    Long,
}

/// All there are. Another one is answered as an unknown one.
const OPERATIONS: [Operation; 52] = [
    Operation { name: "PutRecord", answer: AnswerKind::Put, run: write::put_record },
    Operation { name: "PutRecords", answer: AnswerKind::Put, run: write::put_records },
    Operation { name: "GetRecords", answer: AnswerKind::Long, run: read::get_records },
    Operation { name: "GetShardIterator", answer: AnswerKind::Short, run: read::get_shard_iterator },
    Operation { name: "SubscribeToShard", answer: AnswerKind::Short, run: subscribe::subscribe_to_shard },
    Operation { name: "ListShards", answer: AnswerKind::Long, run: list_shards::list_shards },
    Operation { name: "DescribeStream", answer: AnswerKind::Long, run: describe::describe_stream },
    Operation { name: "DescribeStreamSummary", answer: AnswerKind::Short, run: describe::describe_stream_summary },
    Operation { name: "DescribeLimits", answer: AnswerKind::Short, run: describe::describe_limits },
    Operation { name: "ListStreams", answer: AnswerKind::Long, run: describe::list_streams },
    Operation { name: "CreateStream", answer: AnswerKind::Short, run: lifecycle::create_stream },
    Operation { name: "DeleteStream", answer: AnswerKind::Short, run: lifecycle::delete_stream },
    Operation { name: "SplitShard", answer: AnswerKind::Short, run: reshard::split_shard },
    Operation { name: "MergeShards", answer: AnswerKind::Short, run: reshard::merge_shards },
    Operation { name: "UpdateShardCount", answer: AnswerKind::Short, run: reshard::update_shard_count },
    Operation { name: "IncreaseStreamRetentionPeriod", answer: AnswerKind::Short, run: retention::increase },
    Operation { name: "DecreaseStreamRetentionPeriod", answer: AnswerKind::Short, run: retention::decrease },
    Operation { name: "AddTagsToStream", answer: AnswerKind::Short, run: tags::add_tags_to_stream },
    Operation { name: "RemoveTagsFromStream", answer: AnswerKind::Short, run: tags::remove_tags_from_stream },
    Operation { name: "ListTagsForStream", answer: AnswerKind::Short, run: tags::list_tags_for_stream },
    Operation { name: "TagResource", answer: AnswerKind::Short, run: tags::tag_resource },
    Operation { name: "UntagResource", answer: AnswerKind::Short, run: tags::untag_resource },
    Operation { name: "ListTagsForResource", answer: AnswerKind::Short, run: tags::list_tags_for_resource },
    Operation { name: "RegisterStreamConsumer", answer: AnswerKind::Short, run: consumers::register },
    Operation { name: "DeregisterStreamConsumer", answer: AnswerKind::Short, run: consumers::deregister },
    Operation { name: "DescribeStreamConsumer", answer: AnswerKind::Short, run: consumers::describe },
    Operation { name: "ListStreamConsumers", answer: AnswerKind::Long, run: consumers::list },
    Operation { name: "EnableEnhancedMonitoring", answer: AnswerKind::Short, run: settings::enable_monitoring },
    Operation { name: "DisableEnhancedMonitoring", answer: AnswerKind::Short, run: settings::disable_monitoring },
    Operation { name: "StartStreamEncryption", answer: AnswerKind::Short, run: settings::start_encryption },
    Operation { name: "StopStreamEncryption", answer: AnswerKind::Short, run: settings::stop_encryption },
    Operation { name: "UpdateStreamMode", answer: AnswerKind::Short, run: settings::update_mode },
    Operation { name: "UpdateMaxRecordSize", answer: AnswerKind::Short, run: settings::update_max_record_size },
    Operation {
        name: "UpdateStreamWarmThroughput",
        answer: AnswerKind::Short,
        run: settings::update_warm_throughput,
    },
    Operation { name: "PutResourcePolicy", answer: AnswerKind::Short, run: policies::put },
    Operation { name: "GetResourcePolicy", answer: AnswerKind::Short, run: policies::get },
    Operation { name: "DeleteResourcePolicy", answer: AnswerKind::Short, run: policies::delete },
    Operation {
        name: "UpdateStreamRecordDistributionStrategy",
        answer: AnswerKind::Short,
        run: settings::update_record_distribution,
    },
    Operation {
        name: "DescribeAccountSettings",
        answer: AnswerKind::Short,
        run: account::describe_account_settings,
    },
    Operation { name: "UpdateAccountSettings", answer: AnswerKind::Short, run: account::update_account_settings },
    Operation { name: "CreateQueue", answer: AnswerKind::Short, run: queues::create },
    Operation { name: "DescribeQueue", answer: AnswerKind::Short, run: queues::describe },
    Operation { name: "UpdateQueue", answer: AnswerKind::Short, run: queues::update },
    Operation { name: "DeleteQueue", answer: AnswerKind::Short, run: queues::delete },
    Operation { name: "ListQueues", answer: AnswerKind::Long, run: queues::list },
    Operation { name: "ReceiveQueueRecords", answer: AnswerKind::Long, run: receive::receive_records },
    Operation { name: "AcknowledgeQueueRecords", answer: AnswerKind::Short, run: queue_records::acknowledge },
    Operation {
        name: "UpdateQueueRecordsVisibility",
        answer: AnswerKind::Short,
        run: queue_records::update_visibility,
    },
    Operation {
        name: "ReceiveDeadLetterQueueRecords",
        answer: AnswerKind::Long,
        run: receive::receive_dead_letters,
    },
    Operation {
        name: "AcknowledgeDeadLetterQueueRecords",
        answer: AnswerKind::Short,
        run: queue_records::acknowledge_dead_letters,
    },
    Operation {
        name: "RestoreDeadLetterQueueRecords",
        answer: AnswerKind::Short,
        run: queue_records::restore_dead_letters,
    },
    Operation {
        name: "UpdateDeadLetterQueueRecordsVisibility",
        answer: AnswerKind::Short,
        run: queue_records::update_dead_letter_visibility,
    },
];

/// The names of all.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    OPERATIONS.iter().map(|operation| operation.name)
}

/// The operation of this name.
pub(crate) fn named(name: &str) -> Option<Operation> {
    OPERATIONS.iter().find(|operation| operation.name == name).copied()
}
