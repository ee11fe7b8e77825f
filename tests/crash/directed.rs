//! Short stories of crashes that a random history reaches rarely.

use std::path::Path;
use std::sync::Arc;

use anabranch::storage::Storage;
use anabranch::{Crash, ManualClock, SequenceNumber, ShardId, SimulatedDisk, Stream};

use crate::history::builder;

/// A directory that a killed process made and did not live to sync is made durable by the next one.
#[test]
fn a_directory_left_unsynced_by_a_killed_process_is_synced_by_the_next() {
    for made in ["data", "data/clicks"] {
        for seed in 0..32 {
            let (disk, clock) = (SimulatedDisk::new(), Arc::new(ManualClock::default()));
            disk.create_dir(Path::new("data")).unwrap();
            if made == "data/clicks" {
                disk.create_dir(Path::new(made)).unwrap();
            }
            let stream: Stream = builder(&disk, &clock).create("data/clicks").unwrap();
            stream.put("key", b"acknowledged").unwrap();
            let disk = disk.crash(Crash::PowerLost { seed });
            let stream = builder(&disk, &clock).open_existing("data/clicks").unwrap();
            assert_eq!(stream.get(ShardId::new(0), SequenceNumber::ZERO).unwrap().data(), b"acknowledged");
        }
    }
}
