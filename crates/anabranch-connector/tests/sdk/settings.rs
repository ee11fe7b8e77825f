//! Streams, their descriptions, tags and retention.

use std::collections::HashMap;

use aws_sdk_kinesis::types::{EncryptionType, MetricsName, StreamMode, StreamModeDetails, StreamStatus};

use crate::support::both;

#[test]
fn streams_are_made_described_listed_and_deleted() {
    both(async |world| {
        world.create(3).await;
        world.kinesis.create_stream().stream_name("t").shard_count(1).send().await.unwrap();
        let summary = world.kinesis.describe_stream_summary().stream_name("s").send().await.unwrap();
        let summary = summary.stream_description_summary().unwrap();
        assert_eq!((summary.stream_status(), summary.open_shard_count()), (&StreamStatus::Active, 3));
        assert_eq!(summary.stream_arn(), "arn:aws:kinesis:us-east-1:000000000000:stream/s");
        assert_eq!(summary.stream_mode_details().unwrap().stream_mode(), &StreamMode::Provisioned);
        assert_eq!(summary.stream_creation_timestamp().secs(), 1_767_225_600);

        let describe =
            world.kinesis.describe_stream().stream_arn(summary.stream_arn()).limit(2).send().await.unwrap();
        let description = describe.stream_description().unwrap();
        assert_eq!((description.shards().len(), description.has_more_shards()), (2, true));

        let mut names = Vec::new();
        let mut pages = world.kinesis.list_streams().limit(1).into_paginator().send();
        while let Some(page) = pages.next().await {
            names.extend(page.unwrap().stream_names);
        }
        assert_eq!(names, ["s", "t"]);

        world.kinesis.delete_stream().stream_name("t").send().await.unwrap();
        let gone = world.kinesis.describe_stream_summary().stream_name("t").send().await.unwrap_err();
        assert!(gone.into_service_error().is_resource_not_found_exception());
    });
}

#[test]
fn tags_are_put_listed_and_removed() {
    both(async |world| {
        world.create(1).await;
        let tags = HashMap::from([("room".to_owned(), "2".to_owned()), ("team".to_owned(), "a b".to_owned())]);
        world.kinesis.add_tags_to_stream().stream_name("s").set_tags(Some(tags)).send().await.unwrap();
        world.kinesis.remove_tags_from_stream().stream_name("s").tag_keys("room").send().await.unwrap();
        let list = world.kinesis.list_tags_for_stream().stream_name("s").send().await.unwrap();
        let tags: Vec<_> = list.tags().iter().map(|tag| (tag.key(), tag.value())).collect();
        assert_eq!(tags, [("team", Some("a b"))]);
        assert!(!list.has_more_tags());
    });
}

#[test]
fn retention_is_longer_then_shorter() {
    both(async |world| {
        world.create(1).await;
        let hours = async || {
            let summary = world.kinesis.describe_stream_summary().stream_name("s").send().await.unwrap();
            summary.stream_description_summary.unwrap().retention_period_hours
        };
        let longer = world.kinesis.increase_stream_retention_period().stream_name("s");
        longer.retention_period_hours(48).send().await.unwrap();
        assert_eq!(hours().await, 48);
        let shorter = world.kinesis.decrease_stream_retention_period().stream_name("s");
        shorter.retention_period_hours(24).send().await.unwrap();
        assert_eq!(hours().await, 24);
    });
}

#[test]
fn resources_have_tags_and_policies() {
    both(async |world| {
        world.create(1).await;
        let arn = world.stream_arn().await;
        world.kinesis.tag_resource().resource_arn(&arn).tags("room", "2").send().await.unwrap();
        let list = || world.kinesis.list_tags_for_resource().resource_arn(&arn).send();
        assert_eq!(list().await.unwrap().tags()[0].value(), Some("2"));
        world.kinesis.untag_resource().resource_arn(&arn).tag_keys("room").send().await.unwrap();
        assert!(list().await.unwrap().tags().is_empty());

        let get = || world.kinesis.get_resource_policy().resource_arn(&arn).send();
        assert_eq!(get().await.unwrap().policy(), "{}");
        let policy = r#"{"Version": "2012-10-17", "Statement": []}"#;
        world.kinesis.put_resource_policy().resource_arn(&arn).policy(policy).send().await.unwrap();
        assert_eq!(get().await.unwrap().policy(), policy);
        world.kinesis.delete_resource_policy().resource_arn(&arn).send().await.unwrap();
        assert_eq!(get().await.unwrap().policy(), "{}");
    });
}

#[test]
fn monitoring_encryption_and_modes_are_kept_and_reported() {
    both(async |world| {
        world.create(1).await;
        let enable = world.kinesis.enable_enhanced_monitoring().stream_name("s");
        let enabled = enable.shard_level_metrics(MetricsName::IncomingBytes).send().await.unwrap();
        assert_eq!(enabled.desired_shard_level_metrics(), [MetricsName::IncomingBytes]);
        let encrypt = world.kinesis.start_stream_encryption().stream_name("s");
        encrypt.encryption_type(EncryptionType::Kms).key_id("alias/aws/kinesis").send().await.unwrap();
        let mode = StreamModeDetails::builder().stream_mode(StreamMode::OnDemand).build().unwrap();
        let update = world.kinesis.update_stream_mode().stream_arn(world.stream_arn().await);
        update.stream_mode_details(mode).send().await.unwrap();

        let summary = world.kinesis.describe_stream_summary().stream_name("s").send().await.unwrap();
        let summary = summary.stream_description_summary().unwrap();
        assert_eq!(summary.enhanced_monitoring()[0].shard_level_metrics(), [MetricsName::IncomingBytes]);
        assert_eq!(
            (summary.encryption_type(), summary.key_id()),
            (Some(&EncryptionType::Kms), Some("alias/aws/kinesis"))
        );
        assert_eq!(summary.stream_mode_details().unwrap().stream_mode(), &StreamMode::OnDemand);
        assert_eq!(world.put("a", "one").await.encryption_type(), Some(&EncryptionType::Kms));

        let limits = world.kinesis.describe_limits().send().await.unwrap();
        assert_eq!((limits.shard_limit(), limits.on_demand_stream_count()), (20_000, 1));
    });
}
