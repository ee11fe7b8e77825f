//! Writers that are killed, again and again, on one directory.

use anabranch::{Durability, Stream};

use crate::records::{Contents, assert_sound, check_history, check_ledger, read};
use crate::support::{Random, length, wait_until};
use crate::writer::Places;

const ROUNDS: u64 = 12;

#[test]
fn kill_nine_loses_nothing_synced() {
    rounds("kill_nine_loses_nothing_synced", Durability::Synced);
}

/// The page cache survives the process.
#[test]
fn kill_nine_loses_nothing_buffered() {
    rounds("kill_nine_loses_nothing_buffered", Durability::Buffered);
}

fn rounds(name: &str, durability: Durability) {
    let mut random = Random::of_test(name);
    let directory = tempfile::tempdir().unwrap();
    let places = Places::new(directory.path(), durability);
    let mut before = Contents::new();
    let mut acknowledged = 0;
    for round in 0..ROUNDS {
        kill_a_writer(&places, &mut random, round);
        assert_sound(&places.stream);
        for attempt in 0..random.within(0, 3) {
            let recovery = places.start("open", round * 10 + attempt, 0);
            std::thread::sleep(std::time::Duration::from_micros(random.within(500, 20_000)));
            drop(recovery); // killed, unless it was done
            assert_sound(&places.stream);
        }
        let stream = Stream::builder().open_existing(&places.stream).unwrap();
        let contents = read(&stream);
        check_history(&contents, &before);
        acknowledged = check_ledger(&contents, &places.ledger);
        if random.within(0, 2) == 0 {
            stream.close().unwrap();
            assert_sound(&places.stream);
        }
        before = contents;
    }
    println!("{name}: {acknowledged} acknowledged, {} found after {ROUNDS} kills", before.len());
    assert!(acknowledged > 0 && before.len() >= acknowledged);
}

/// Kills it at some moment after it has acknowledged something, or sometimes before.
fn kill_a_writer(places: &Places, random: &mut Random, round: u64) {
    let written = length(&places.ledger);
    let mut writer = places.start("writer", round, random.next());
    if round == 0 || random.within(0, 5) > 0 {
        wait_until("the first acknowledgement", || {
            writer.assert_runs();
            length(&places.ledger) > written
        });
        std::thread::sleep(random.millis(0, 250));
    } else {
        std::thread::sleep(random.millis(5, 60));
    }
    writer.kill();
}
