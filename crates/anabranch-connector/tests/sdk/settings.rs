//! Streams, their descriptions, tags and retention.

use std::collections::HashMap;

use aws_sdk_kinesis::types::{StreamMode, StreamStatus};

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
