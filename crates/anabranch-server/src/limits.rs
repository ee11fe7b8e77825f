//! Every bound of the server, in one place. Those of streams are the library's: [`anabranch::limits`].

use std::time::Duration;

/// Bytes of a request's body: 10 MiB of records in base64, and what stands around them.
pub const MAX_BODY_BYTES: usize = 24 << 20;

/// Changes of streams and shards that are under way or wait for one another, in all accounts and regions: others are refused (`LimitExceededException`). They are a part of the calls
/// that can be answered at a time, and of the threads.
pub const MAX_CHANGES: usize = 64;

/// Bytes of the bodies of all requests that are being read or answered, together; others wait, and are refused (503) when they waited for long.
pub const MAX_BODIES_BYTES: usize = 1 << 30;

/// What a request counts for beside its body: its head, and what is kept of it while it is answered.
pub const REQUEST_BYTES: usize = 128 << 10;

/// What of this a request counts for before the first bytes of its body are there, so that those who only announce one keep nobody out.
pub const IDLE_REQUEST_BYTES: usize = 4 << 10;

/// Bytes of an answer: the greatest is one of `GetRecords`, 10 MiB of records in base64.
pub const MAX_ANSWER_BYTES: usize = 16 << 20;

/// Bytes of all answers that are being made or were not taken yet, together, of calls that read or list; requests wait for room in which to be answered, as above.
pub const MAX_ANSWERS_BYTES: usize = 1 << 30;

/// Bytes for which an answer to any other call has room, while it is being made; if it becomes larger, it gets the rest if that is free.
pub const SHORT_ANSWER_BYTES: usize = 128 << 10;

/// Bytes of the answers to puts.
pub const MAX_PUT_ANSWERS_BYTES: usize = 64 << 20;

/// Bytes of the answers to calls that neither put, read nor list.
pub const MAX_SHORT_ANSWERS_BYTES: usize = 24 << 20;

/// Bytes of the events of subscriptions that are being made or were not taken yet, together; others come later.
pub const MAX_EVENTS_BYTES: usize = 512 << 20;

/// What of this the subscriptions of one connection can have.
pub const MAX_CONNECTION_EVENTS_BYTES: usize = 64 << 20;

/// Bytes for which an event without records has room while it is being made.
pub const SHORT_EVENT_BYTES: usize = 4 << 10;

/// Bytes of the events without records, heartbeats and ends, that are being made or were not taken yet, together: there is room for them whatever becomes of those with records.
pub const MAX_SHORT_EVENTS_BYTES: usize = 512 << 10;

/// Threads for calls that may wait.
pub const MAX_THREADS: usize = 1_024;

/// Characters of a client's value that a refusal repeats; the rest is an ellipsis.
pub const MAX_PRINTED_CHARS: usize = 1_024;

/// Connections at a time; others wait to be accepted.
pub const MAX_CONNECTIONS: usize = 4_096;

/// Requests at a time on one connection of HTTP/2, subscriptions among them.
pub const MAX_CONNECTION_REQUESTS: u32 = 128;

/// Values (members, elements, pieces of strings in CBOR) of a request's body: a batch of records has a few thousand. Without it, a body of short numbers would take ten times its size in memory.
pub const MAX_BODY_VALUES: usize = 100_000;

/// How deep lists and maps of a body may lie in each other.
pub const MAX_BODY_DEPTH: usize = 32;

/// Accounts and regions, together, that have streams.
pub const MAX_TERRITORIES: usize = 1_000;

/// Records of a `PutRecords`.
pub const MAX_PUT_RECORDS: usize = 500;

/// Bytes (keys and data) of a `PutRecords`.
pub const MAX_PUT_BYTES: usize = 10 << 20;

/// Bytes of a record's data whatever its stream allows.
pub const MAX_DATA_BYTES: usize = 10 << 20;

/// KiB of a record (key and data) unless its stream was made for larger ones.
pub const DEFAULT_RECORD_KIB: u32 = 1_024;

/// The most KiB that a stream can be made for.
pub const MAX_RECORD_KIB: u32 = 10_240;

/// Characters of a partition key.
pub const MAX_KEY_CHARS: usize = 256;

/// Records that one `GetRecords` gives.
pub const MAX_GET_RECORDS: usize = 10_000;

/// Bytes (keys and data) that one `GetRecords` gives, but for a single record that is larger.
pub const MAX_GET_BYTES: usize = 10 << 20;

/// How long the token of a next page is good for, in milliseconds.
pub const TOKEN_LIFETIME_MS: i64 = 300_000;

/// How long a shard iterator is good for, unless the server is told otherwise.
pub const ITERATOR_LIFETIME: Duration = Duration::from_secs(300);

/// Shards of a page of `ListShards`.
pub const MAX_LIST_SHARDS: usize = 10_000;

/// Shards of a page of `ListShards` that asks for no number.
pub const DEFAULT_LIST_SHARDS: usize = 1_000;

/// Streams, consumers or shards of a page elsewhere.
pub const DEFAULT_PAGE: usize = 100;

/// Open shards of an account in a region, unless the server is told otherwise.
pub const DEFAULT_SHARD_LIMIT: u32 = 20_000;

/// Shards that a stream can be asked to have.
pub const MAX_STREAM_SHARDS: u32 = 10_000;

/// Shards of a stream on demand when it is made, unless the server is told otherwise.
pub const ON_DEMAND_SHARDS: u32 = 4;

/// Shards that a stream on demand grows to, unless the server is told otherwise: what takes 200 MB a second there.
pub const MAX_ON_DEMAND_SHARDS: u32 = 400;

/// Streams on demand of an account.
pub const ON_DEMAND_STREAMS: usize = 50;

/// The warm throughput that a stream on demand can ask for, in MiB a second.
pub const MAX_WARM_MIBPS: u32 = 10_240;

/// The shortest retention, in hours; it is the default.
pub const MIN_RETENTION_HOURS: i64 = 24;

/// The longest retention, in hours.
pub const MAX_RETENTION_HOURS: i64 = 8_760;

/// Consumers and queues of a stream, together.
pub const MAX_CONSUMERS: usize = 20;

/// The same of a stream on demand in an account that committed itself to throughput.
pub const MAX_ADVANTAGE_CONSUMERS: usize = 50;

/// How long a minimum throughput billing commitment lasts at least, in milliseconds.
pub const COMMITMENT_MS: i64 = 86_400_000;

/// Streams of an account in a region that are said to be in creation at a time.
pub const MAX_CREATING_STREAMS: usize = 5;

/// The same of the consumers of a stream.
pub const MAX_CREATING_CONSUMERS: usize = 5;

/// Bytes of a resource policy.
pub const MAX_POLICY_BYTES: usize = 20 << 10;

/// Tags of a stream, a consumer or a queue.
pub const MAX_TAGS: usize = 50;

/// Bytes of a stream's settings in its file: consumers, queues, tags, policies, and a line for each shard.
pub const MAX_SETTINGS_BYTES: u64 = 64 << 20;

/// How long a subscription to a shard lasts, in milliseconds.
pub const SUBSCRIPTION_MS: i64 = 300_000;

/// How long a subscription is safe from another one of the same consumer to the same shard, in milliseconds.
pub const SUBSCRIPTION_GUARD_MS: i64 = 5_000;

/// The longest silence of a subscription, in milliseconds; less than the service's five seconds.
pub const HEARTBEAT_MS: i64 = 4_000;

/// Bytes (keys and data) of the records in one event, but for a single record that is larger.
pub const MAX_EVENT_BYTES: usize = 1 << 20;

/// How often a subscription at the tail looks for records, in milliseconds.
pub const SUBSCRIPTION_LOOK_MS: u64 = 20;

/// Records of one call of a queue's.
pub const MAX_QUEUE_BATCH: usize = 10;

/// How long a call waits for records of a queue unless it says otherwise, in seconds.
pub const DEFAULT_WAIT_SECONDS: u32 = 9;

/// The longest that it can wait, in seconds.
pub const MAX_WAIT_SECONDS: u32 = 20;

/// How long a record that was received is not visible to others, unless its queue says otherwise, in seconds.
pub const DEFAULT_VISIBILITY_SECONDS: u32 = 30;

/// The longest of this, in seconds.
pub const MAX_VISIBILITY_SECONDS: u32 = 43_200;

/// How often a record can be received before it is a dead letter, unless its queue says otherwise.
pub const DEFAULT_RECEIVE_COUNT: u32 = 6;

/// The most of this that a queue can say.
pub const MAX_RECEIVE_COUNT: u32 = 1_000;

/// Characters of the handle of a record that a queue gave.
pub const MAX_RECEIPT_CHARS: usize = 1_024;

/// Calls that wait for records of queues at a time, in all accounts and regions: others are answered at once.
pub const MAX_WAITING_RECEIVES: u64 = 4_096;

/// How often a call that waits for records of a queue looks for them, in milliseconds.
pub const RECEIVE_LOOK_MS: u64 = 20;

/// Calls a second of the operations that the service counts by account and region.
pub const CALLS_PER_SECOND: [(&str, u32); 19] = [
    ("CreateStream", 5),
    ("DeleteStream", 5),
    ("ListStreams", 5),
    ("SplitShard", 5),
    ("MergeShards", 5),
    ("AddTagsToStream", 5),
    ("RemoveTagsFromStream", 5),
    ("ListTagsForStream", 5),
    ("RegisterStreamConsumer", 5),
    ("UpdateStreamWarmThroughput", 5),
    ("DescribeAccountSettings", 5),
    ("UpdateAccountSettings", 5),
    ("PutResourcePolicy", 5),
    ("GetResourcePolicy", 5),
    ("DeleteResourcePolicy", 5),
    ("DescribeStream", 10),
    ("UpdateShardCount", 10),
    ("DescribeStreamSummary", 20),
    ("DescribeLimits", 1),
];

/// Calls a second of the operations that the service counts by stream.
pub const CALLS_PER_SECOND_OF_STREAM: [(&str, u32); 8] = [
    ("ListShards", 1_000),
    ("DescribeStreamConsumer", 20),
    ("DeregisterStreamConsumer", 5),
    ("ListStreamConsumers", 5),
    ("IncreaseStreamRetentionPeriod", 5),
    ("DecreaseStreamRetentionPeriod", 5),
    ("EnableEnhancedMonitoring", 5),
    ("DisableEnhancedMonitoring", 5),
];

/// How often an operation can change a stream in 24 hours.
pub const CALLS_PER_DAY_OF_STREAM: [(&str, u32); 4] = [
    ("UpdateShardCount", 10),
    ("UpdateStreamMode", 2),
    ("StartStreamEncryption", 25),
    ("StopStreamEncryption", 25),
];

/// Calls a second of `GetShardIterator`, of each shard.
pub const ITERATORS_PER_SECOND: u32 = 5;

/// How far the time of a signature may be from the server's, in milliseconds.
pub const SIGNATURE_TOLERANCE_MS: i64 = 300_000;

/// For how long a presigned request can be good, in seconds.
pub const MAX_PRESIGNED_SECONDS: i64 = 604_800;

/// Connections at a time to the address of health and metrics.
pub const MAX_HEALTH_CONNECTIONS: usize = 64;

/// Streams that the page shows, the first by account, region and name.
pub const MAX_SHOWN_STREAMS: usize = 200;

/// Shards of a stream that the page shows: the open ones before closed ones, new ones before old ones.
pub const MAX_SHOWN_SHARDS: usize = 256;

/// Bytes of a file of certificates, or of a key.
pub const MAX_PEM_BYTES: u64 = 1 << 20;

const _: () = {
    assert!(MAX_BODY_BYTES > MAX_PUT_BYTES / 3 * 4);
    assert!(MAX_BODIES_BYTES >= MAX_BODY_BYTES && MAX_BODY_BYTES <= u32::MAX as usize);
    assert!(MAX_RECORD_KIB as usize * 1024 == MAX_DATA_BYTES);
    assert!(MAX_BODY_VALUES > MAX_PUT_RECORDS * 16);
    assert!(MAX_ANSWER_BYTES > MAX_DATA_BYTES / 3 * 4 && MAX_EVENT_BYTES <= MAX_DATA_BYTES);
    // Changes leave room to other calls. And whatever is waited for, there is a thread for each that has room: puts, others, those that read or list, of operators too, and events.
    let (short, long) = (MAX_SHORT_ANSWERS_BYTES / SHORT_ANSWER_BYTES, MAX_ANSWERS_BYTES / MAX_ANSWER_BYTES);
    let events = MAX_EVENTS_BYTES / MAX_ANSWER_BYTES + MAX_SHORT_EVENTS_BYTES / SHORT_EVENT_BYTES;
    let puts = MAX_PUT_ANSWERS_BYTES / SHORT_ANSWER_BYTES;
    assert!(2 * MAX_CHANGES <= short && puts + short + 2 * long + events <= MAX_THREADS);
    assert!(MAX_ANSWER_BYTES <= MAX_CONNECTION_EVENTS_BYTES && MAX_CONNECTION_EVENTS_BYTES <= MAX_EVENTS_BYTES);
};
