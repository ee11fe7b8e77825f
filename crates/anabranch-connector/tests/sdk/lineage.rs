//! Shards that split and merge, and their listings.

use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::{ScalingType, Shard, ShardFilter, ShardFilterType, ShardIteratorType};

use crate::support::{World, both, data, shard};

const HALF: &str = "170141183460469231731687303715884105728";

fn ids(shards: &[Shard]) -> Vec<&str> {
    shards.iter().map(|shard| shard.shard_id().trim_start_matches("shardId-00000000000")).collect()
}

async fn filtered(world: &World, filter: ShardFilterType, change: impl Fn(&mut ShardFilter)) -> Vec<Shard> {
    let mut filter = ShardFilter::builder().r#type(filter).build().unwrap();
    change(&mut filter);
    let list = world.kinesis.list_shards().stream_name("s").shard_filter(filter);
    list.send().await.unwrap().shards.unwrap_or_default()
}

#[test]
fn parents_are_read_to_their_end_and_name_their_children() {
    both(async |world| {
        world.create(1).await;
        world.put("a", "parent").await;
        let latest = world.iterator(&shard(0), ShardIteratorType::Latest).await;
        world.split(&shard(0), HALF).await;
        world.put("a", "child").await;
        world.merge(&shard(1), &shard(2)).await;
        world.put("a", "grandchild").await;

        let iterator = world.iterator(&shard(0), ShardIteratorType::TrimHorizon).await;
        let mut got = world.get(&iterator).await;
        assert_eq!(data(got.records()), ["parent"]);
        if let Some(next) = got.next_shard_iterator() {
            got = world.get(next).await;
        }
        assert_eq!(got.next_shard_iterator(), None);
        let children: Vec<_> =
            got.child_shards().iter().map(|child| (child.shard_id(), child.parent_shards())).collect();
        let parents = [shard(0)];
        assert_eq!(children, [(&*shard(1), &parents[..]), (&*shard(2), &parents)]);
        assert_eq!(got.child_shards()[1].hash_key_range().unwrap().starting_hash_key(), HALF);
        assert_eq!(world.get(&latest).await.child_shards().len(), 2);

        for parent in [1, 2] {
            let end = world.iterator(&shard(parent), ShardIteratorType::Latest).await;
            let [child] = &world.get(&end).await.child_shards.unwrap()[..] else { panic!("one child") };
            assert_eq!((child.shard_id(), child.parent_shards()), (&*shard(3), &[shard(1), shard(2)][..]));
        }
        let children = [world.all(&shard(1)).await, world.all(&shard(2)).await].concat();
        assert_eq!((children, world.all(&shard(3)).await), (vec!["child".into()], vec!["grandchild".into()]));
    });
}

#[test]
fn shards_are_listed_by_all_filters_and_page_by_page() {
    both(async |world| {
        world.create(2).await;
        world.advance(10_000);
        world.split(&shard(0), "5").await;
        world.advance(10_000);
        world.merge(&shard(2), &shard(3)).await;

        let list = world.kinesis.list_shards().stream_name("s").send().await.unwrap();
        assert_eq!(ids(list.shards()), ["0", "1", "2", "3", "4"]);
        let merged = &list.shards()[4];
        assert_eq!(
            (merged.parent_shard_id(), merged.adjacent_parent_shard_id()),
            (Some(&*shard(2)), Some(&*shard(3)))
        );
        let is_closed = |shard: &Shard| shard.sequence_number_range().unwrap().ending_sequence_number().is_some();
        assert_eq!(list.shards().iter().map(is_closed).collect::<Vec<_>>(), [true, false, true, true, false]);

        let all = |_: &mut ShardFilter| {};
        let from = |shard_id: String| move |filter: &mut ShardFilter| filter.shard_id = Some(shard_id.clone());
        let at = |millis| move |filter: &mut ShardFilter| filter.timestamp = Some(DateTime::from_millis(millis));
        let split_at = 1_767_225_610_000;
        for (filter, expected) in [
            (filtered(&world, ShardFilterType::AtLatest, all).await, &["1", "4"][..]),
            (filtered(&world, ShardFilterType::AtTrimHorizon, all).await, &["0", "1"]),
            (filtered(&world, ShardFilterType::FromTrimHorizon, all).await, &["0", "1", "2", "3", "4"]),
            (filtered(&world, ShardFilterType::AfterShardId, from(shard(2))).await, &["3", "4"]),
            (filtered(&world, ShardFilterType::AtTimestamp, at(split_at + 1)).await, &["1", "2", "3"]),
            (filtered(&world, ShardFilterType::FromTimestamp, at(split_at + 1)).await, &["1", "2", "3", "4"]),
        ] {
            assert_eq!(ids(&filter), expected);
        }

        let mut page = world.kinesis.list_shards().stream_name("s").max_results(2).send().await.unwrap();
        let mut pages = vec![ids(page.shards()).concat()];
        while let Some(token) = page.next_token() {
            page = world.kinesis.list_shards().next_token(token).max_results(2).send().await.unwrap();
            pages.push(ids(page.shards()).concat());
        }
        assert_eq!(pages, ["01", "23", "4"]);
    });
}

#[test]
fn a_shard_count_is_updated() {
    both(async |world| {
        world.create(2).await;
        world.put("a", "before").await;
        let update = world.kinesis.update_shard_count().stream_name("s").target_shard_count(4);
        let update = update.scaling_type(ScalingType::UniformScaling).send().await.unwrap();
        assert_eq!((update.current_shard_count(), update.target_shard_count()), (Some(2), Some(4)));
        let open = filtered(&world, ShardFilterType::AtLatest, |_| {}).await;
        assert_eq!(open.len(), 4);
        assert_eq!(world.all(&shard(0)).await, ["before"]);
    });
}
