//! Closing and crashes: what was acknowledged is there, with the same numbers and settings.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use anabranch::storage::{Access, Operation, Storage};
use anabranch::{Crash, DiskFault, SimulatedDisk};
use anabranch_server::{OpenError, Service, ServiceOptions};
use serde_json::json;

use crate::support::{World, arn, data, shard};

/// The service on the same disk again.
fn again(world: World, disk: SimulatedDisk) -> World {
    let World { service, clock, .. } = world;
    drop(service); // with its lock
    let service =
        Service::open_on("/data", ServiceOptions::default(), clock.clone(), Arc::new(disk.clone())).unwrap();
    World { clock, disk, service }
}

fn health(world: &World) -> String {
    let answer = world.service.observe(&http::Request::get("/health").body(()).unwrap());
    String::from_utf8(answer.body().bytes().to_vec()).unwrap()
}

fn fill(world: &World) -> (String, Vec<String>) {
    world.put("a", "one");
    world.ok("SplitShard", json!({"StreamName": "s", "ShardToSplit": shard(0), "NewStartingHashKey": "5"}));
    world.put("a", "two");
    world.ok("AddTagsToStream", json!({"StreamName": "s", "Tags": {"a": "1"}}));
    (listing(world), vec!["one".to_owned(), "two".to_owned()])
}

fn listing(world: &World) -> String {
    let shards = world.ok("ListShards", json!({"StreamName": "s"}));
    let tags = world.ok("ListTagsForStream", json!({"StreamName": "s"}));
    format!("{shards} {tags} {}", world.read(&world.iterator(&shard(2), "TRIM_HORIZON"))["Records"])
}

#[test]
fn a_closed_service_goes_on_where_it_was() {
    let world = World::with_stream(1);
    let (before, _) = fill(&world);
    let iterator = world.iterator(&shard(2), "TRIM_HORIZON");
    world.service.close().unwrap();
    let disk = world.disk.clone();
    let world = again(world, disk);
    assert_eq!(listing(&world), before);
    assert_eq!(data(&world.read(&iterator)), ["two"], "iterators too");
}

#[test]
fn a_power_cut_takes_nothing_that_was_acknowledged() {
    for seed in 0..20 {
        let world = World::with_stream(1);
        let (before, records) = fill(&world);
        let disk = world.disk.crash(Crash::PowerLost { seed });
        let world = again(world, disk);
        assert_eq!(listing(&world), before, "seed {seed}");
        assert_eq!([world.all(&shard(0)), world.all(&shard(2))].concat(), records, "seed {seed}");
    }
}

#[test]
fn damaged_settings_are_the_error_of_their_stream_alone() {
    let world = World::with_stream(1);
    world.ok("CreateStream", json!({"StreamName": "t", "ShardCount": 1}));
    world.put("a", "one");
    world.service.close().unwrap();
    let path = Path::new("/data/000000000000/us-east-1/settings/s.json");
    let file = world.disk.open_file(path, Access::Write).unwrap();
    let mut kept = [0; 8];
    file.read_at(&mut kept, 0).unwrap();
    file.write_at(b"XXXXXXXX", 0).unwrap();
    let disk = world.disk.clone();
    let world = again(world, disk);
    let answer = world.send("DescribeStreamSummary", &json!({"StreamName": "s"}));
    assert_eq!(answer.status(), 500);
    let text = String::from_utf8_lossy(answer.body().bytes()).into_owned();
    assert!(text.contains("Internal Service Failure") && !text.contains("/data"), "{text}");
    assert!(health(&world).contains("damaged: /data/000000000000/us-east-1/settings/s.json"));
    world.ok("DescribeStreamSummary", json!({"StreamName": "t"}));
    // Mended, it is what it was.
    file.write_at(&kept, 0).unwrap();
    let disk = world.disk.clone();
    let world = again(world, disk);
    assert_eq!(world.all(&shard(0)), ["one"]);
}

/// What stands before a damaged record is given, and the error is that of who asks for the record itself.
#[test]
fn records_before_a_damaged_one_are_given() {
    let world = World::with_stream(1);
    for data in ["one", "two", "three", "four", "five"] {
        world.put("a", data);
    }
    world.service.close().unwrap();
    let path = format!("/data/000000000000/us-east-1/streams/s/shards/{:012}/{:020}.seg", 0, 0);
    let disk = world.disk.clone();
    disk.damage(Path::new(&path), |bytes| {
        let at = bytes.windows(4).position(|window| window == b"four").unwrap();
        bytes[at] ^= 1;
    })
    .unwrap();
    let world = again(world, disk);
    let answer = world.read(&world.iterator(&shard(0), "TRIM_HORIZON"));
    assert_eq!(data(&answer), ["one", "two", "three"]);
    assert_eq!(answer["MillisBehindLatest"], 1, "there is more");
    let next = json!({"ShardIterator": answer["NextShardIterator"]});
    assert_eq!(world.send("GetRecords", &next).status(), 500);
}

#[test]
fn a_stream_whose_settings_are_lost_keeps_its_records() {
    let world = World::with_stream(1);
    world.put("a", "one");
    world.service.close().unwrap();
    world.disk.remove_file(Path::new("/data/000000000000/us-east-1/settings/s.json")).unwrap();
    let disk = world.disk.clone();
    let world = again(world, disk);
    assert_eq!(world.all(&shard(0)), ["one"]);
    assert_eq!(
        world.ok("DescribeStreamSummary", json!({"StreamName": "s"}))["StreamDescriptionSummary"]["StreamARN"],
        arn("s")
    );
}

#[test]
fn one_service_at_a_time_has_a_directory() {
    let world = World::with_stream(1);
    let open =
        || Service::open_on("/data", ServiceOptions::default(), world.clock.clone(), Arc::new(world.disk.clone()));
    let refused = open().unwrap_err();
    assert!(matches!(refused, OpenError::Stream(anabranch::Error::Locked(_))), "{refused}");
    world.put("a", "one"); // the first one goes on
    drop(world.service);
    open().unwrap();
}

/// What a stream gave is refused by the next one of its name, however soon that comes, and whatever the clock says.
#[test]
fn identities_of_deleted_streams_do_not_come_back() {
    let mut world = World::new();
    let mut seen = BTreeSet::new();
    for turn in 0..4 {
        world.ok("CreateStream", json!({"StreamName": "s", "ShardCount": 1}));
        let number = world.put("a", "x")["SequenceNumber"].as_str().unwrap().to_owned();
        let consumer = world.ok("RegisterStreamConsumer", json!({"StreamARN": arn("s"), "ConsumerName": "c"}));
        let summary = world.ok("DescribeStreamSummary", json!({"StreamName": "s"}));
        let created = summary["StreamDescriptionSummary"]["StreamCreationTimestamp"].to_string();
        let consumer = consumer["Consumer"]["ConsumerARN"].as_str().unwrap().to_owned();
        for identity in [number, created, consumer, world.iterator(&shard(0), "TRIM_HORIZON")] {
            assert!(seen.insert(identity.clone()), "{turn}: {identity}");
        }
        world.ok("DeleteStream", json!({"StreamName": "s", "EnforceConsumerDeletion": true}));
        match turn {
            0 => {} // within the same millisecond
            1 => {
                let disk = world.disk.clone();
                world = again(world, disk);
            }
            _ => world.clock.set(anabranch::Timestamp::from_millis(1_700_000_000_000)),
        }
    }
}

/// A child's numbers are above its parents' even if the clock goes back between them.
#[test]
fn numbers_rise_from_parents_to_children_whatever_the_clock_does() {
    let world = World::with_stream(1);
    let first = world.put("a", "one")["SequenceNumber"].as_str().unwrap().to_owned();
    world.clock.set(anabranch::Timestamp::from_millis(1_000_000_000_000));
    world.ok("SplitShard", json!({"StreamName": "s", "ShardToSplit": shard(0), "NewStartingHashKey": "5"}));
    let second = world.put("a", "two")["SequenceNumber"].as_str().unwrap().to_owned();
    assert!(first < second);
    world.service.close().unwrap();
    let disk = world.disk.clone();
    let world = again(world, disk);
    let answer = world.read(&world.iterator(&shard(2), "TRIM_HORIZON"));
    assert_eq!(answer["Records"][0]["SequenceNumber"], second);
}

#[test]
fn a_power_cut_takes_no_settings_of_an_account_that_has_no_streams_yet() {
    let commit = json!({"MinimumThroughputBillingCommitment": {"Status": "ENABLED"}});
    for seed in 0..50 {
        let world = World::new();
        world.ok("UpdateAccountSettings", commit.clone());
        let before = world.ok("DescribeAccountSettings", json!({}));
        let disk = world.disk.crash(Crash::PowerLost { seed });
        let world = again(world, disk);
        assert_eq!(world.ok("DescribeAccountSettings", json!({})), before, "seed {seed}");
    }
}

#[test]
fn a_stream_that_lost_its_manifest_keeps_its_settings_and_its_name() {
    let world = World::with_stream(1);
    let (before, _) = fill(&world);
    world.service.close().unwrap();
    let manifest = Path::new("/data/000000000000/us-east-1/streams/s/MANIFEST");
    let aside = Path::new("/data/aside");
    world.disk.rename(manifest, aside).unwrap();
    let disk = world.disk.clone();
    let world = again(world, disk);
    for _ in 0..2 {
        let told = health(&world); // before anybody asked for it, and after
        assert!(told.contains("streams/s/MANIFEST is missing"), "{told}");
        assert_eq!(world.ok("ListStreams", json!({}))["StreamNames"], json!(["s"]));
    }
    let create = json!({"StreamName": "s", "ShardCount": 1});
    assert_eq!(world.refusal("CreateStream", create).0, "ResourceInUseException");
    for operation in ["DescribeStream", "DescribeStreamSummary", "ListShards", "DeleteStream"] {
        assert_eq!(world.send(operation, &json!({"StreamName": "s"})).status(), 500, "{operation}");
    }
    world.disk.rename(aside, manifest).unwrap();
    let disk = world.disk.clone();
    let world = again(world, disk);
    assert_eq!(listing(&world), before);
}

/// Wherever it is cut: the name can be used.
#[test]
fn a_creation_that_was_cut_short_does_not_take_its_name_away() {
    let create = json!({"StreamName": "s", "ShardCount": 1});
    let mut operations = 0;
    loop {
        let world = World::new();
        world.disk.fail_at(operations, DiskFault::ErrorFromThenOn(std::io::ErrorKind::Other));
        let is_over = world.send("CreateStream", &create).status() == 200;
        world.disk.clear_faults();
        let disk = world.disk.crash(Crash::ProcessKilled);
        let world = again(world, disk);
        if world.send("DescribeStream", &json!({"StreamName": "s"})).status() != 200 {
            world.ok("CreateStream", create.clone());
        }
        world.put("a", "one");
        if is_over {
            break;
        }
        operations += 1;
    }
    assert!(operations > 20, "{operations}");
}

#[test]
fn a_creation_that_is_refused_leaves_nothing_of_its_account() {
    let world = World::with(ServiceOptions { shard_limit: 1, ..ServiceOptions::default() });
    let refused = world.refusal("CreateStream", json!({"StreamName": "s", "ShardCount": 2}));
    assert_eq!(refused.0, "LimitExceededException");
    assert!(world.disk.list(Path::new("/data/000000000000")).is_err());
    world.ok("CreateStream", json!({"StreamName": "s", "ShardCount": 1}));
}

/// A split that happened is answered as one, whatever becomes of the settings; whoever needs what was not kept of it meets the failure, and it is told until the disk is well.
#[test]
fn a_split_that_cannot_be_noted_has_happened() {
    let split = json!({"StreamName": "s", "ShardToSplit": shard(0), "NewStartingHashKey": "5"});
    let expect_split = |world: &World, nth| {
        assert_eq!(world.shards(json!({"StreamName": "s"})).len(), 3, "{nth}");
        world.put("a", "two");
        assert_eq!(health(world), r#"{"status":"ok"}"#, "{nth}");
    };
    for nth in 0..200 {
        let world = World::with_stream(1);
        world.put("a", "one");
        world.disk.fail_at(nth, DiskFault::Error(std::io::ErrorKind::Other));
        let status = world.send("SplitShard", &split).status();
        world.disk.clear_faults();
        if status == 200 {
            expect_split(&world, nth);
        }
    }
    let mut seen = 0;
    for nth in 0..10 {
        let world = World::with_stream(1);
        world.put("a", "one");
        world.disk.fail_on(Operation::Rename, nth, DiskFault::ErrorFromThenOn(std::io::ErrorKind::Other));
        let status = world.send("SplitShard", &split).status();
        let told = health(&world); // it tries again, and fails again
        world.disk.clear_faults();
        if told.contains("settings/s.json") {
            seen += 1;
            assert_eq!(status, 200, "{nth}");
            expect_split(&world, nth);
        }
    }
    assert!(seen > 0, "the settings were what failed");
}

#[test]
fn a_stream_whose_shards_cannot_be_noted_is_opened_and_says_so() {
    let settings = "settings/s.json";
    let mut seen = 0;
    for nth in 0..10 {
        let world = World::with_stream(1);
        world.put("a", "one");
        world.service.close().unwrap();
        world.disk.remove_file(&Path::new("/data/000000000000/us-east-1").join(settings)).unwrap();
        let disk = world.disk.clone();
        let world = again(world, disk);
        world.ok("ListStreams", json!({})); // it is given settings, which know of no shards
        world.disk.fail_on(Operation::Rename, nth, DiskFault::ErrorFromThenOn(std::io::ErrorKind::Other));
        let shards = json!({"StreamName": "s", "ShardId": shard(0), "ShardIteratorType": "LATEST"});
        let status = world.send("GetShardIterator", &shards).status();
        let told = health(&world);
        if told.contains(settings) {
            seen += 1;
            world.ok("DescribeStreamSummary", json!({"StreamName": "s"})); // nobody needs them for that
        }
        world.disk.clear_faults();
        assert!(status == 200 || told.contains("a planned fault"), "{nth}: {told}");
        assert_eq!(world.all(&shard(0)), ["one"], "{nth}");
        assert_eq!(health(&world), r#"{"status":"ok"}"#, "{nth}");
    }
    assert!(seen > 0, "the settings were among what failed");
}
