//! Consumers, and their subscriptions as event streams.

use aws_sdk_kinesis::operation::subscribe_to_shard::SubscribeToShardOutput;
use aws_sdk_kinesis::types::{
    ChildShard, ConsumerStatus, ShardIteratorType, StartingPosition, SubscribeToShardEvent,
    SubscribeToShardEventStream,
};

use crate::support::{World, both, data, shard};

async fn register(world: &World) -> String {
    let register =
        world.kinesis.register_stream_consumer().stream_arn(world.stream_arn().await).consumer_name("c");
    register.send().await.unwrap().consumer.unwrap().consumer_arn
}

async fn subscribe(world: &World, consumer: &str, kind: ShardIteratorType) -> SubscribeToShardOutput {
    let position = StartingPosition::builder().r#type(kind).build().unwrap();
    let subscribe = world.kinesis.subscribe_to_shard().consumer_arn(consumer).shard_id(shard(0));
    subscribe.starting_position(position).send().await.unwrap()
}

async fn event(subscription: &mut SubscribeToShardOutput) -> Option<SubscribeToShardEvent> {
    match subscription.event_stream.recv().await.unwrap()? {
        SubscribeToShardEventStream::SubscribeToShardEvent(event) => Some(event),
        other => panic!("{other:?}"),
    }
}

#[test]
fn consumers_are_registered_described_listed_and_deregistered() {
    both(async |world| {
        world.create(1).await;
        let consumer = register(&world).await;
        let described = world.kinesis.describe_stream_consumer().consumer_arn(&consumer).send().await.unwrap();
        let description = described.consumer_description().unwrap();
        assert_eq!((description.consumer_name(), description.consumer_status()), ("c", &ConsumerStatus::Active));
        let list = world.kinesis.list_stream_consumers().stream_arn(world.stream_arn().await);
        assert_eq!(list.clone().send().await.unwrap().consumers()[0].consumer_arn(), consumer);
        world.kinesis.deregister_stream_consumer().consumer_arn(&consumer).send().await.unwrap();
        assert!(list.send().await.unwrap().consumers().is_empty());
    });
}

#[test]
fn a_subscription_pushes_records_to_the_end_of_the_shard() {
    both(async |world| {
        world.create(1).await;
        let consumer = register(&world).await;
        let first = world.put("a", "one").await;
        let mut subscription = subscribe(&world, &consumer, ShardIteratorType::TrimHorizon).await;
        let one = event(&mut subscription).await.unwrap();
        assert_eq!(data(one.records()), ["one"]);
        assert_eq!((one.continuation_sequence_number(), one.millis_behind_latest()), (first.sequence_number(), 0));
        world.put("a", "two").await;
        assert_eq!(data(event(&mut subscription).await.unwrap().records()), ["two"]);
        world.advance(4_000);
        assert!(event(&mut subscription).await.unwrap().records().is_empty(), "still there");
        world.split(&shard(0), "5").await;
        let end = event(&mut subscription).await.unwrap();
        let children: Vec<_> = end.child_shards().iter().map(ChildShard::shard_id).collect();
        assert_eq!(children, [shard(1), shard(2)]);
        assert!(event(&mut subscription).await.is_none());
    });
}

#[test]
fn what_goes_wrong_in_a_subscription_is_a_typed_error() {
    both(async |world| {
        world.create(1).await;
        let consumer = register(&world).await;
        let mut subscription = subscribe(&world, &consumer, ShardIteratorType::Latest).await;
        event(&mut subscription).await.unwrap();
        let position = StartingPosition::builder().r#type(ShardIteratorType::Latest).build().unwrap();
        let again = world.kinesis.subscribe_to_shard().consumer_arn(&consumer).shard_id(shard(0));
        let refused = again.starting_position(position).send().await.unwrap_err().into_service_error();
        assert!(refused.is_resource_in_use_exception(), "{refused:?}");
        world.kinesis.deregister_stream_consumer().consumer_arn(&consumer).send().await.unwrap();
        let error = subscription.event_stream.recv().await.unwrap_err().into_service_error();
        assert!(error.is_resource_not_found_exception(), "{error:?}");
    });
}
