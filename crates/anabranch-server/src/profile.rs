//! What the service looked like to clients of another year: the operations, members and bounds that came later are not there.
//!
//! All differences are in this file. Operations do not know of them, but for the bounds, which they ask for.

use crate::limits::{MAX_DATA_BYTES, MAX_PUT_BYTES, MAX_RETENTION_HOURS, MAX_TAGS};
use crate::wire::{Fields, Format};

/// Of which year the service is.
///
/// ```
/// use anabranch_server::{Profile, ServiceOptions};
///
/// assert_eq!(ServiceOptions::default().profile, Profile::Current);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Profile {
    /// As it is now.
    #[default]
    Current,
    /// As it was in the middle of 2020, for programs and tests that compare whole answers with those of then: streams have no modes, ends of shards no children, resources no
    /// policies, calls name streams by name only (consumers by ARN), records have 1 MiB, batches 5 MiB, requests 10 tags and streams a retention of up to 168 hours. What
    /// came later is passed over in requests and left out of answers; operations that came later are unknown.
    Y2020,
}

/// Bounds that changed.
#[derive(Debug)]
pub(crate) struct Bounds {
    /// Bytes of a record's data whatever its stream allows.
    pub(crate) data_bytes: usize,
    /// Bytes (keys and data) of a `PutRecords`.
    pub(crate) put_bytes: usize,
    pub(crate) retention_hours: i64,
    /// Tags that one request adds.
    pub(crate) tags_added: usize,
    /// Tags that one request removes, or asks for.
    pub(crate) tags_named: usize,
}

const NOW: Bounds = Bounds {
    data_bytes: MAX_DATA_BYTES,
    put_bytes: MAX_PUT_BYTES,
    retention_hours: MAX_RETENTION_HOURS,
    tags_added: 200,
    tags_named: MAX_TAGS,
};

const IN_2020: Bounds =
    Bounds { data_bytes: 1 << 20, put_bytes: 5 << 20, retention_hours: 168, tags_added: 10, tags_named: 10 };

/// Operations that came after the middle of 2020.
const LATER_OPERATIONS: [&str; 24] = [
    "TagResource",
    "UntagResource",
    "ListTagsForResource",
    "UpdateStreamMode",
    "UpdateMaxRecordSize",
    "UpdateStreamWarmThroughput",
    "UpdateStreamRecordDistributionStrategy",
    "PutResourcePolicy",
    "GetResourcePolicy",
    "DeleteResourcePolicy",
    "DescribeAccountSettings",
    "UpdateAccountSettings",
    "CreateQueue",
    "DescribeQueue",
    "UpdateQueue",
    "DeleteQueue",
    "ListQueues",
    "ReceiveQueueRecords",
    "AcknowledgeQueueRecords",
    "UpdateQueueRecordsVisibility",
    "ReceiveDeadLetterQueueRecords",
    "AcknowledgeDeadLetterQueueRecords",
    "RestoreDeadLetterQueueRecords",
    "UpdateDeadLetterQueueRecordsVisibility",
];

/// What changed about the members of an operation since.
#[derive(Debug)]
struct Since {
    operation: &'static str,
    /// Members of its requests that came later.
    asked: &'static [&'static str],
    /// Members of its answers that came later, wherever they stand in it.
    answered: &'static [&'static str],
}

const fn since(
    operation: &'static str,
    asked: &'static [&'static str],
    answered: &'static [&'static str],
) -> Since {
    Since { operation, asked, answered }
}

const SINCE_2020: [Since; 25] = [
    since("PutRecord", &["StreamARN", "DryRun"], &[]),
    since("PutRecords", &["StreamARN", "DryRun"], &[]),
    since("GetRecords", &["StreamARN", "DryRun"], &["ChildShards"]),
    since("GetShardIterator", &["StreamARN", "DryRun"], &[]),
    since("SubscribeToShard", &["DryRun"], &["ChildShards"]),
    since("ListShards", &["StreamARN", "ShardFilter"], &[]),
    since("DescribeStream", &["StreamARN"], &["StreamModeDetails"]),
    since(
        "DescribeStreamSummary",
        &["StreamARN"],
        &[
            "StreamModeDetails",
            "MaxRecordSizeInKiB",
            "WarmThroughput",
            "RecordDistributionStrategy",
            "QueueCount",
            "ChannelCount",
        ],
    ),
    since(
        "DescribeLimits",
        &[],
        &["OnDemandStreamCount", "OnDemandStreamCountLimit", "ChannelCount", "ChannelCountLimit"],
    ),
    since("ListStreams", &["NextToken"], &["NextToken", "StreamSummaries"]),
    since(
        "CreateStream",
        &["StreamModeDetails", "Tags", "MaxRecordSizeInKiB", "WarmThroughputMiBps", "RecordDistributionStrategy"],
        &[],
    ),
    since("DeleteStream", &["StreamARN"], &[]),
    since("SplitShard", &["StreamARN"], &[]),
    since("MergeShards", &["StreamARN"], &[]),
    since("UpdateShardCount", &["StreamARN"], &["StreamARN"]),
    since("IncreaseStreamRetentionPeriod", &["StreamARN"], &[]),
    since("DecreaseStreamRetentionPeriod", &["StreamARN"], &[]),
    since("AddTagsToStream", &["StreamARN"], &[]),
    since("RemoveTagsFromStream", &["StreamARN"], &[]),
    since("ListTagsForStream", &["StreamARN"], &[]),
    since("RegisterStreamConsumer", &["Tags"], &[]),
    since("EnableEnhancedMonitoring", &["StreamARN"], &["StreamARN"]),
    since("DisableEnhancedMonitoring", &["StreamARN"], &["StreamARN"]),
    since("StartStreamEncryption", &["StreamARN"], &[]),
    since("StopStreamEncryption", &["StreamARN"], &[]),
];

impl Profile {
    pub(crate) fn bounds(self) -> &'static Bounds {
        match self {
            Self::Current => &NOW,
            Self::Y2020 => &IN_2020,
        }
    }

    /// Whether there was an operation of this name.
    pub(crate) fn has(self, operation: &str) -> bool {
        self == Self::Current || !LATER_OPERATIONS.contains(&operation)
    }

    /// Passes over what nobody could ask for.
    pub(crate) fn asked(self, operation: &str, fields: &mut Fields<'_>) {
        if let Some(since) = self.since(operation) {
            fields.forget(since.asked);
        }
    }

    /// Leaves out what nobody was told.
    pub(crate) fn answered(self, operation: &str, format: Format, document: Vec<u8>) -> Vec<u8> {
        match self.since(operation) {
            Some(since) if !since.answered.is_empty() => format.without(since.answered, document),
            _ => document,
        }
    }

    fn since(self, operation: &str) -> Option<&'static Since> {
        match self {
            Self::Current => None,
            Self::Y2020 => SINCE_2020.iter().find(|since| since.operation == operation),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operations;

    #[test]
    fn differences_are_of_operations_that_there_are() {
        let of_members = SINCE_2020.iter().map(|since| since.operation);
        for name in of_members.chain(LATER_OPERATIONS) {
            assert!(operations::named(name).is_some(), "{name}");
            assert!(Profile::Current.has(name));
            assert_eq!(Profile::Y2020.has(name), Profile::Y2020.since(name).is_some(), "{name}");
        }
        assert!(Profile::Y2020.has("ListStreamConsumers"));
        assert_eq!(
            operations::names().filter(|name| Profile::Y2020.has(name)).count(),
            28,
            "is a new one listed?"
        );
    }
}
