//! A service on a simulated disk and a clock that stands still, with a client of the SDK before it: in the process, and again through a port.

use std::sync::Arc;
use std::time::Duration;

use anabranch::{ManualClock, SimulatedDisk};
use anabranch_connector::Connector;
use anabranch_server::{Server, Service, ServiceOptions};
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::operation::get_records::GetRecordsOutput;
use aws_sdk_kinesis::operation::put_record::PutRecordOutput;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, Record, ShardIteratorType};

pub(crate) struct World {
    pub(crate) kinesis: Client,
    pub(crate) clock: Arc<ManualClock>,
}

/// Runs a test both ways, on services with these options. The SDK tries nothing again.
pub(crate) fn both_with(options: &ServiceOptions, test: impl AsyncFn(World)) {
    let run = |kinesis: Client, clock| block_on(test(World { kinesis, clock }));

    let (service, clock) = service(options);
    let connector = Connector::new(service);
    run(Client::from_conf(config(&connector).build()), clock);

    let (service, clock) = self::service(options);
    let server = Server::start(service, "127.0.0.1:0").unwrap();
    let address = format!("http://{}", server.address());
    let http = aws_smithy_http_client::Builder::new().build_http();
    run(Client::from_conf(config(&connector).http_client(http).endpoint_url(address).build()), clock);
    server.stop().unwrap();
}

pub(crate) fn both(test: impl AsyncFn(World)) {
    both_with(&ServiceOptions::default(), test);
}

/// For as long as a test may take; most need a moment.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn block_on(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.expect("it hangs") });
}

pub(crate) fn config(connector: &Connector) -> aws_sdk_kinesis::config::Builder {
    aws_sdk_kinesis::config::Builder::from(&connector.sdk_config()).retry_config(RetryConfig::disabled())
}

pub(crate) fn service(options: &ServiceOptions) -> (Service, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::default());
    let disk = Arc::new(SimulatedDisk::new());
    (Service::open_on("/data", options.clone(), clock.clone(), disk).unwrap(), clock)
}

impl World {
    pub(crate) fn advance(&self, millis: u64) {
        self.clock.advance(Duration::from_millis(millis));
    }

    /// Makes the stream `s`.
    pub(crate) async fn create(&self, shards: i32) {
        self.kinesis.create_stream().stream_name("s").shard_count(shards).send().await.unwrap();
    }

    pub(crate) async fn put(&self, key: &str, data: &str) -> PutRecordOutput {
        let put = self.kinesis.put_record().stream_name("s").partition_key(key).data(Blob::new(data));
        put.send().await.unwrap()
    }

    pub(crate) async fn iterator(&self, shard_id: &str, kind: ShardIteratorType) -> String {
        let iterator = self.kinesis.get_shard_iterator().stream_name("s").shard_id(shard_id);
        iterator.shard_iterator_type(kind).send().await.unwrap().shard_iterator.unwrap()
    }

    pub(crate) async fn get(&self, iterator: &str) -> GetRecordsOutput {
        self.kinesis.get_records().shard_iterator(iterator).send().await.unwrap()
    }

    /// The data of everything in a shard.
    pub(crate) async fn all(&self, shard_id: &str) -> Vec<String> {
        let iterator = self.iterator(shard_id, ShardIteratorType::TrimHorizon).await;
        data(self.get(&iterator).await.records())
    }

    pub(crate) async fn stream_arn(&self) -> String {
        let summary = self.kinesis.describe_stream_summary().stream_name("s").send().await.unwrap();
        summary.stream_description_summary.unwrap().stream_arn
    }

    pub(crate) async fn split(&self, shard_id: &str, at: &str) {
        let split = self.kinesis.split_shard().stream_name("s").shard_to_split(shard_id);
        split.new_starting_hash_key(at).send().await.unwrap();
    }

    pub(crate) async fn merge(&self, lower: &str, upper: &str) {
        let merge = self.kinesis.merge_shards().stream_name("s").shard_to_merge(lower);
        merge.adjacent_shard_to_merge(upper).send().await.unwrap();
    }
}

pub(crate) fn shard(number: u32) -> String {
    format!("shardId-{number:012}")
}

pub(crate) fn data(records: &[Record]) -> Vec<String> {
    records.iter().map(|record| String::from_utf8(record.data().as_ref().to_vec()).unwrap()).collect()
}

pub(crate) fn entry(key: &str, data: &str) -> PutRecordsRequestEntry {
    PutRecordsRequestEntry::builder().partition_key(key).data(Blob::new(data)).build().unwrap()
}
