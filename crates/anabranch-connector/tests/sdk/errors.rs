//! Refusals, as the types that the SDK makes of them.

use anabranch_server::ServiceOptions;
use aws_sdk_kinesis::error::ProvideErrorMetadata;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::ShardIteratorType;

use crate::support::{both, both_with, shard};

#[test]
fn a_stream_that_is_not_there_is_not_found() {
    both(async |world| {
        let put =
            world.kinesis.put_record().stream_name("none").partition_key("a").data(Blob::new("")).send().await;
        let error = put.unwrap_err().into_service_error();
        assert!(error.is_resource_not_found_exception(), "{error:?}");
        assert_eq!(error.message(), Some("Stream none under account 000000000000 not found."));
    });
}

#[test]
fn a_stream_that_is_there_is_in_use() {
    both(async |world| {
        world.create(1).await;
        let create = world.kinesis.create_stream().stream_name("s").shard_count(1).send().await;
        assert!(create.unwrap_err().into_service_error().is_resource_in_use_exception());
    });
}

#[test]
fn an_iterator_expires_and_nonsense_is_none() {
    both(async |world| {
        world.create(1).await;
        let iterator = world.iterator(&shard(0), ShardIteratorType::TrimHorizon).await;
        world.advance(300_001);
        let get = |iterator: &str| world.kinesis.get_records().shard_iterator(iterator).send();
        assert!(get(&iterator).await.unwrap_err().into_service_error().is_expired_iterator_exception());
        assert!(get("nonsense").await.unwrap_err().into_service_error().is_invalid_argument_exception());
    });
}

#[test]
fn what_the_model_forbids_is_a_validation_error() {
    both(async |world| {
        let create = world.kinesis.create_stream().stream_name("not a name").shard_count(1).send().await;
        let error = create.unwrap_err().into_service_error();
        assert_eq!(error.code(), Some("ValidationException"));
        assert!(error.is_validation_exception(), "{error:?}");
    });
}

#[test]
fn shards_above_the_limit_are_refused() {
    both_with(&ServiceOptions { shard_limit: 2, ..ServiceOptions::default() }, async |world| {
        let create = world.kinesis.create_stream().stream_name("s").shard_count(3).send().await;
        let error = create.unwrap_err().into_service_error();
        assert!(error.is_limit_exceeded_exception(), "{error:?}");
    });
}

#[test]
fn a_shard_that_is_asked_too_often_says_so() {
    both_with(&ServiceOptions { enforce_limits: true, ..ServiceOptions::default() }, async |world| {
        world.create(1).await;
        let iterator = world.iterator(&shard(0), ShardIteratorType::TrimHorizon).await;
        let get = || world.kinesis.get_records().shard_iterator(&iterator).send();
        for _ in 0..5 {
            get().await.unwrap();
        }
        let error = get().await.unwrap_err().into_service_error();
        assert!(error.is_provisioned_throughput_exceeded_exception(), "{error:?}");
        world.advance(1_000);
        get().await.unwrap();
    });
}
