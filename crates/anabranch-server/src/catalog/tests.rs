//! Territories and their streams on a simulated disk: what counts, what stays, what comes back.

use std::sync::atomic::{AtomicI64, Ordering};

use anabranch::storage::Operation;
use anabranch::{DiskFault, ShardId, SimulatedDisk, Stream, Timestamp};

use super::*;
use crate::errors::FaultKind;
use crate::limits::MAX_CHANGES;
use crate::sequence::second;

fn catalog(disk: &SimulatedDisk) -> Catalog {
    Catalog::open("/data".into(), Common::of_tests(disk)).unwrap()
}

fn own(catalog: &Catalog) -> Result<Arc<Territory>, Fault> {
    catalog.make_territory("000000000000", "us-east-1")
}

fn territory(disk: &SimulatedDisk) -> Arc<Territory> {
    own(&catalog(disk)).unwrap()
}

fn create(territory: &Territory) -> Result<Arc<Entry>, Fault> {
    create_named(territory, "s")
}

fn create_named(territory: &Territory, name: &str) -> Result<Arc<Entry>, Fault> {
    let settings = Settings::new(territory.common.clock.now(), Mode::Provisioned);
    territory.create(name, settings, 1, Status::Creating)?;
    Ok(territory.stream(name).unwrap())
}

fn split(stream: &Stream) -> Result<(), Fault> {
    let shard_id = stream.open_shards()[0];
    stream.split_shard(shard_id, None).map(drop).map_err(Fault::internal)
}

/// One that is at work would write over what those who come later wrote.
#[test]
fn what_was_closed_has_the_same_settings_as_what_is_opened_later() {
    let catalog = catalog(&SimulatedDisk::new());
    let entry = create(&own(&catalog).unwrap()).unwrap();
    catalog.close().unwrap();
    let again = own(&catalog).unwrap().stream("s").unwrap();
    assert!(Arc::ptr_eq(&again, &entry));
    again.stream().unwrap().put("a", b"one").unwrap();
    catalog.close().unwrap();
}

#[test]
fn a_territory_that_cannot_be_opened_takes_no_place() {
    let disk = SimulatedDisk::new();
    let catalog = catalog(&disk);
    disk.fail_at(0, DiskFault::Error(io::ErrorKind::Other));
    own(&catalog).unwrap_err();
    assert!(catalog.places.lock().is_empty());
    own(&catalog).unwrap();
    assert_eq!(catalog.places.lock().len(), 1);
}

#[test]
fn a_change_counts_once_whatever_it_waits_for() {
    let territory = territory(&SimulatedDisk::new());
    let entry = create(&territory).unwrap();
    let changes = &territory.common.changes;
    let others: Vec<_> = (1..MAX_CHANGES).map(|_| changes.begin().unwrap()).collect();
    entry.update(|| territory.while_counting(|| entry.reshard(split))).unwrap();
    let last = changes.begin().unwrap();
    let refused = entry.update(|| territory.while_counting(|| entry.reshard(split)));
    assert_eq!(refused.unwrap_err().kind, FaultKind::LimitExceeded);
    drop((others, last));
}

/// A second goes by at every look.
#[derive(Debug, Default)]
struct Hasty(AtomicI64);

impl Clock for Hasty {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.fetch_add(1_000, Ordering::Relaxed))
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

#[test]
fn a_stream_looks_as_if_it_were_being_made_from_when_it_was_made() {
    let (clock, delay) = (Arc::new(Hasty::default()), Duration::from_millis(1_500));
    let common =
        Common { clock: clock.clone(), transition_delay: delay, ..Common::of_tests(&SimulatedDisk::new()) };
    let entry = create(&own(&Catalog::open("/data".into(), common).unwrap()).unwrap()).unwrap();
    assert_eq!(entry.status(clock.now()), Status::Creating);
    assert_eq!(entry.status(clock.now()), Status::Active);
}

#[test]
fn streams_that_are_made_at_once_are_made_now() {
    let territory = territory(&SimulatedDisk::new());
    let now = second(territory.common.clock.now());
    for index in 0..50 {
        let entry = create_named(&territory, &index.to_string()).unwrap();
        assert_eq!(second(entry.settings().unwrap().created()), now);
    }
}

/// Its children were made in the second after it.
#[test]
fn a_stream_is_later_than_all_shards_of_one_that_was_deleted_before() {
    let territory = territory(&SimulatedDisk::new());
    let old = create(&territory).unwrap();
    old.reshard(split).unwrap();
    let born = old.numbers(ShardId::new(1)).unwrap().created;
    territory.delete(&old, false).unwrap();
    let new = create(&territory).unwrap();
    assert!(new.numbers(ShardId::new(0)).unwrap().created > born);
    assert_eq!(territory.account_file.stream_second(Timestamp::from_millis(0)).unwrap(), born + 1);
}

#[test]
fn a_stream_that_was_closed_is_there_and_one_that_was_deleted_is_not() {
    let territory = territory(&SimulatedDisk::new());
    let entry = create(&territory).unwrap();
    assert_eq!(entry.fault(Error::Closed).kind, FaultKind::InternalFailure);
    territory.delete(&entry, false).unwrap();
    assert_eq!(entry.fault(Error::Closed).kind, FaultKind::ResourceNotFound);
}

/// Who found it before that meets it closed, or without its files.
#[test]
fn whatever_fails_of_a_stream_that_is_being_deleted_fails_for_that() {
    let disk = SimulatedDisk::new();
    let territory = territory(&disk);
    let entry = create(&territory).unwrap();
    territory.account_file.retire_second(u64::from(u32::MAX)).unwrap(); // nothing else is written then
    disk.stall_syncs(true);
    let before = disk.operations_of(Operation::SyncDir);
    let deletion = std::thread::spawn({
        let (territory, entry) = (Arc::clone(&territory), Arc::clone(&entry));
        move || territory.delete(&entry, false)
    });
    while disk.operations_of(Operation::SyncDir) == before {
        assert!(!deletion.is_finished());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!entry.is_gone());
    let put = entry.stream().unwrap().put("a", b"one").unwrap_err();
    let source = Arc::new(io::Error::from(io::ErrorKind::NotFound));
    let no_file = Error::Io { operation: "open", path: "shards/0".into(), source };
    for error in [put, no_file] {
        assert_eq!(entry.fault(error).kind, FaultKind::ResourceNotFound);
    }
    assert_eq!(entry.update(|| Ok(())).unwrap_err().kind, FaultKind::ResourceInUse);
    assert_eq!(entry.failure(), None);
    disk.stall_syncs(false);
    deletion.join().unwrap().unwrap();
}

fn tag(entry: &Entry) -> Result<(), Fault> {
    entry.change(|settings| {
        settings.tags.insert("a".to_owned(), "1".to_owned());
        Ok(())
    })
}

#[test]
fn a_call_that_found_a_stream_before_it_was_deleted_leaves_the_next_of_its_name_alone() {
    let territory = territory(&SimulatedDisk::new());
    let old = create(&territory).unwrap();
    territory.delete(&old, false).unwrap();
    let new = create(&territory).unwrap();
    assert_eq!(territory.delete(&old, true).unwrap_err().kind, FaultKind::ResourceNotFound);
    assert_eq!(tag(&old).unwrap_err().kind, FaultKind::ResourceNotFound);
    assert_eq!(territory.settings.read("s").unwrap().as_ref(), Some(&*new.settings().unwrap()));
    new.stream().unwrap().put("a", b"one").unwrap();
}

#[test]
fn a_consumer_that_was_registered_meanwhile_keeps_its_stream() {
    let territory = territory(&SimulatedDisk::new());
    let entry = create(&territory).unwrap();
    let consumer = ConsumerSettings {
        name: "c".to_owned(),
        arn_second: 1,
        created_ms: 0,
        tags: BTreeMap::new(),
        policy: None,
    };
    let register = |settings: &mut Settings| {
        settings.consumers.push(consumer);
        Ok(())
    };
    entry.change(register).unwrap();
    assert_eq!(territory.delete(&entry, false).unwrap_err().kind, FaultKind::ResourceInUse);
    territory.delete(&entry, true).unwrap();
}

/// It would wait for itself otherwise, as puts to the new shards would for all of a reshard.
#[test]
fn numbers_of_a_new_shard_are_known_while_the_reshard_goes_on() {
    let entry = create(&territory(&SimulatedDisk::new())).unwrap();
    let reshard = entry.reshard(|stream| {
        let shard_id = stream.open_shards()[0];
        let (left, _) = stream.split_shard(shard_id, None).unwrap();
        entry.numbers(left)
    });
    assert_eq!(reshard.unwrap().shard, 1);
}

/// It is not listed, and whoever put it there finds it as it was.
#[test]
fn a_stream_that_came_from_elsewhere_is_neither_replaced_nor_deleted() {
    let disk = SimulatedDisk::new();
    let territory = territory(&disk);
    let manifest = Path::new("/data/000000000000/us-east-1/streams/s/MANIFEST");
    disk.create_dir(manifest.parent().unwrap()).unwrap();
    disk.create_file(manifest).unwrap().write_at(b"of a later release", 0).unwrap();
    assert_eq!(create(&territory).unwrap_err().kind, FaultKind::ResourceInUse);
    assert_eq!(territory.store.list().unwrap(), ["s"]);
    assert!(territory.settings.read("s").unwrap().is_none());
}

/// Every operation of the disk fails, once or from then on. Whatever is left, the name can be used: after deleting what is listed.
#[test]
fn a_create_or_a_delete_that_fails_does_not_take_its_name_away() {
    for is_delete in [false, true] {
        for fault in [DiskFault::Error, DiskFault::ErrorFromThenOn] {
            let disk = SimulatedDisk::new();
            let territory = territory(&disk);
            let is_over = |nth: &u64| !fails(&disk, &territory, is_delete, (*nth, fault(io::ErrorKind::Other)));
            let operations = (0..10_000).find(is_over);
            assert!(operations > Some(5), "there are more than {operations:?}");
        }
    }
}

/// Whether so many operations were done.
fn fails(disk: &SimulatedDisk, territory: &Territory, is_delete: bool, (nth, fault): (u64, DiskFault)) -> bool {
    let entry = is_delete.then(|| create(territory).unwrap());
    let before = disk.operations();
    disk.fail_at(nth, fault);
    let _ = entry.map_or_else(|| create(territory).map(drop), |entry| territory.delete(&entry, true));
    let is_met = disk.operations() > before + nth;
    disk.clear_faults();
    let told = |fault: Fault| format!("is_delete {is_delete}, {nth}: {fault:?}");
    if let Some(left) = territory.stream("s") {
        territory.delete(&left, true).map_err(told).unwrap();
    }
    let again = create(territory).map_err(told).unwrap();
    again.stream().unwrap().put("a", b"one").unwrap();
    territory.delete(&again, true).unwrap();
    is_met
}
