//! Clients where no runtime is.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use anabranch_connector::Connector;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::timeout::TimeoutConfig;
use aws_sdk_kinesis::config::{IdentityCache, StalledStreamProtectionConfig};
use aws_sdk_kinesis::types::{ShardIteratorType, StartingPosition};

use crate::support::{config, shard};

/// What is there at once.
fn now<T>(call: impl Future<Output = T>) -> T {
    match pin!(call).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("it waits for something"),
    }
}

/// What the SDK has timers for is off, as they are Tokio's.
#[test]
fn a_client_without_timers_needs_no_runtime_but_for_subscriptions() {
    let (connector, _clock) = Connector::in_memory().unwrap();
    let config = config(&connector)
        .timeout_config(TimeoutConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .identity_cache(IdentityCache::no_cache());
    let kinesis = Client::from_conf(config.build());
    now(kinesis.create_stream().stream_name("s").shard_count(1).send()).unwrap();
    let streams = now(kinesis.list_streams().send()).unwrap();
    assert_eq!(streams.stream_names(), ["s"]);

    let position = StartingPosition::builder().r#type(ShardIteratorType::Latest).build().unwrap();
    let subscribe =
        kinesis.subscribe_to_shard().consumer_arn("arn:aws:kinesis:us-east-1:000000000000:stream/s/consumer/c:1");
    let refused = now(subscribe.shard_id(shard(0)).starting_position(position).send()).unwrap_err();
    assert!(format!("{refused:?}").contains("SubscribeToShard needs a Tokio runtime"), "{refused:?}");
}
