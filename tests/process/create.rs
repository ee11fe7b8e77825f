//! A creation that is killed.

use std::time::Duration;

use anabranch::Stream;

use crate::child;
use crate::records::assert_sound;
use crate::support::Random;

const SHARDS: u32 = 150;

pub(crate) fn run() {
    Stream::builder().shards(SHARDS).open(child::argument("STREAM")).unwrap();
}

#[test]
fn a_killed_creation_is_finished_by_the_next() {
    let mut random = Random::of_test("a_killed_creation_is_finished_by_the_next");
    let mut unfinished = 0;
    for round in 0..10 {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b/stream");
        for _ in 0..2 {
            let creation = child::start("create", &directory.path().join("log"), &[("STREAM", &path)]);
            std::thread::sleep(Duration::from_micros(random.within(1_000, 25_000)));
            drop(creation);
        }
        unfinished += u32::from(!path.join("MANIFEST").exists());
        let stream = Stream::builder().shards(SHARDS).open(&path).unwrap();
        assert_eq!(stream.open_shards().len(), SHARDS as usize, "round {round}");
        let put = stream.put("key", b"data").unwrap();
        assert_eq!(stream.get(put.shard_id, put.sequence_number).unwrap().data(), b"data");
        stream.close().unwrap();
        assert_sound(&path);
    }
    println!("{unfinished} of 10 creations were cut short");
}
