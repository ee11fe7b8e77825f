//! Streams on demand: their shards follow the load.

use anabranch::CapacityPolicy;
use anabranch_server::{OpenError, Service, ServiceOptions, limits};
use serde_json::{Value, json};

use crate::support::{ACCOUNT, World, arn, base64, data, shard};

/// A shard is worth a record a second here.
fn options() -> ServiceOptions {
    ServiceOptions { on_demand: CapacityPolicy::default().records_per_second(1), ..ServiceOptions::default() }
}

fn on_demand() -> World {
    let world = World::with(options());
    world.ok("CreateStream", json!({"StreamName": "s", "StreamModeDetails": {"StreamMode": "ON_DEMAND"}}));
    world
}

/// For so many minutes, so many records a second.
fn minutes(world: &World, minutes: usize, records: usize) {
    for turn in 0..minutes * 6 {
        let record = |number: usize| json!({"Data": base64("x"), "PartitionKey": format!("{turn} {number}")});
        let records: Vec<_> = (0..records * 10).map(record).collect();
        if !records.is_empty() {
            world.ok("PutRecords", json!({"StreamName": "s", "Records": records}));
        }
        world.advance(10_000);
        world.service.rebalance().unwrap();
    }
}

fn open_shards(world: &World) -> u64 {
    let summary = world.ok("DescribeStreamSummary", json!({"StreamName": "s"}));
    let open = world.ok("ListShards", json!({"StreamName": "s", "ShardFilter": {"Type": "AT_LATEST"}}));
    let count = summary["StreamDescriptionSummary"]["OpenShardCount"].as_u64().unwrap();
    assert_eq!(open["Shards"].as_array().unwrap().len() as u64, count);
    count
}

fn set_mode(mode: &str) -> Value {
    json!({"StreamARN": arn("s"), "StreamModeDetails": {"StreamMode": mode}})
}

#[test]
fn shards_double_under_a_load_and_are_merged_after_it() {
    let world = on_demand();
    assert_eq!(open_shards(&world), 4);
    minutes(&world, 9, 6);
    assert_eq!(open_shards(&world), 4, "a load has to last");
    minutes(&world, 6, 6);
    assert_eq!(open_shards(&world), 8);
    let listed = world.ok("ListShards", json!({"StreamName": "s"}));
    let parents: Vec<_> =
        listed["Shards"].as_array().unwrap()[4..].iter().map(|shard| shard["ParentShardId"].clone()).collect();
    assert_eq!(parents.len(), 8);
    assert!(
        (0..4).all(|number| parents.iter().filter(|parent| **parent == shard(number)).count() == 2),
        "{parents:?}"
    );
    let put = world.put("after", "y")["ShardId"].as_str().unwrap().to_owned();
    assert_eq!(data(&world.read(&world.iterator(&put, "TRIM_HORIZON"))).last().unwrap(), "y");
    minutes(&world, 60, 0);
    assert_eq!(open_shards(&world), 4, "never fewer than it started with");
    let kept: usize = (0..16).map(|number| world.all(&shard(number)).len()).sum();
    assert_eq!(kept, 15 * 6 * 60 + 1);
}

#[test]
fn a_mode_keeps_the_shards_that_it_finds() {
    let world = World::with(options());
    world.ok("CreateStream", json!({"StreamName": "s", "ShardCount": 1}));
    minutes(&world, 15, 2);
    assert_eq!(open_shards(&world), 1, "provisioned");
    world.ok("UpdateStreamMode", set_mode("ON_DEMAND"));
    minutes(&world, 9, 2);
    assert_eq!(open_shards(&world), 1);
    minutes(&world, 6, 2);
    assert!(open_shards(&world) >= 2, "the load decides now");
    world.ok("UpdateStreamMode", set_mode("PROVISIONED"));
    let shards = open_shards(&world);
    minutes(&world, 60, 0);
    assert_eq!(open_shards(&world), shards, "and now clients");
    let body = json!({"StreamName": "s", "TargetShardCount": shards - 1, "ScalingType": "UNIFORM_SCALING"});
    world.ok("UpdateShardCount", body);
}

#[test]
fn a_mode_that_is_refused_changes_nothing() {
    let world = World::with(ServiceOptions { shard_limit: 3, ..options() });
    world.ok("CreateStream", json!({"StreamName": "s", "StreamModeDetails": {"StreamMode": "ON_DEMAND"}}));
    let (kind, text) = world.refusal("UpdateStreamMode", set_mode("PROVISIONED"));
    assert_eq!(kind, "LimitExceededException");
    assert!(
        text.starts_with(&format!("This request would exceed the shard limit for the account {ACCOUNT}")),
        "{text}"
    );
    minutes(&world, 15, 6);
    assert_eq!(open_shards(&world), 8, "the load decides as before");
}

#[test]
fn a_policy_that_no_stream_can_have_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let on_demand = CapacityPolicy::default().min_shards(0);
    let refused = Service::open(directory.path(), ServiceOptions { on_demand, ..ServiceOptions::default() });
    assert!(matches!(refused.unwrap_err(), OpenError::Stream(anabranch::Error::InvalidArgument { .. })));
}

#[test]
fn there_may_be_so_many_however_they_came_to_be() {
    let world = World::with(ServiceOptions { on_demand: options().on_demand.min_shards(1), ..options() });
    for number in 0..limits::ON_DEMAND_STREAMS {
        let mode = json!({"StreamMode": "ON_DEMAND"});
        world.ok("CreateStream", json!({"StreamName": format!("t{number}"), "StreamModeDetails": mode}));
    }
    world.ok("CreateStream", json!({"StreamName": "s", "ShardCount": 1}));
    assert_eq!(world.refusal("UpdateStreamMode", set_mode("ON_DEMAND")).0, "LimitExceededException");
    world.ok("DeleteStream", json!({"StreamName": "t0"}));
    world.ok("UpdateStreamMode", set_mode("ON_DEMAND"));
    world.ok("UpdateStreamMode", set_mode("ON_DEMAND"));
}

#[test]
fn a_mode_that_it_has_already_does_not_begin_anew() {
    let world = on_demand();
    minutes(&world, 9, 6);
    world.ok("UpdateStreamMode", set_mode("ON_DEMAND"));
    minutes(&world, 6, 6);
    assert_eq!(open_shards(&world), 8, "the load has lasted all the same");
}

/// Nobody puts after the merges, nor asks: who started the server again would be told of shards that are long merged.
#[test]
fn shards_are_counted_when_the_load_has_changed_them() {
    let world = on_demand();
    minutes(&world, 15, 6);
    assert_eq!(open_shards(&world), 8);
    minutes(&world, 60, 0);
    let World { service, clock, disk } = world;
    drop(service); // as a process that was killed
    let service = Service::open_on("/data", options(), clock, std::sync::Arc::new(disk)).unwrap();
    assert_eq!(seen(&service), 4);
}

/// How many open shards those see who only look.
fn seen(service: &Service) -> Value {
    let answer = service.observe(&http::Request::get("/status").body(()).unwrap());
    serde_json::from_slice::<Value>(answer.body().bytes()).unwrap()["streams"][0]["openShards"].clone()
}

#[test]
fn those_who_look_see_what_the_load_made() {
    let world = on_demand();
    minutes(&world, 15, 6);
    assert_eq!(seen(&world.service), 8);
    let World { service, clock, disk } = world;
    service.close().unwrap();
    drop(service);
    let service = Service::open_on("/data", options(), clock, std::sync::Arc::new(disk)).unwrap();
    assert_eq!(seen(&service), 8, "and after a restart, before anybody asks for it");
}
