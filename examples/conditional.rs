//! Four box offices sell the seats of one hall, without a lock between them. Each decides on what it
//! has read so far and appends *only if nothing came in between*; who lost the race reads on and
//! decides again. No seat is sold twice.
//!
//! ```text
//! cargo run --example conditional
//! ```

#![allow(clippy::print_stdout)] // a program's output, not a library's

use std::collections::BTreeMap;
use std::error::Error;
use std::thread;
use std::time::Duration;

use anabranch::{ErrorKind, PutOptions, ShardIterator, ShardIteratorType, Stream};

type Failure = Box<dyn Error + Send + Sync>; // may cross threads

const HALL: &str = "hall-1";
const SEATS: u32 = 60;
const OFFICES: u32 = 4;

fn main() -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let stream = Stream::builder().create(directory.path().join("sales"))?;

    // All have read the empty hall before anyone sells: the first sale makes three of them lose.
    let halls = (0..OFFICES).map(|_| Hall::read(&stream)).collect::<Result<Vec<_>, _>>()?;
    let stream = &stream;
    let lost_races = thread::scope(|scope| {
        let offices: Vec<_> = (0..OFFICES)
            .zip(halls)
            .map(|(office, hall)| scope.spawn(move || sell_out(stream, hall, office)))
            .collect();
        let mut lost_races = 0;
        for office in offices {
            lost_races += office.join().map_err(|_| "an office panicked")??;
        }
        Ok::<_, Failure>(lost_races)
    })?;
    assert!(lost_races >= OFFICES - 1);

    let hall = Hall::read(stream)?;
    assert_eq!(hall.sold.len() as u64, u64::from(SEATS));
    for office in 0..OFFICES {
        let sold = hall.sold.values().filter(|by| **by == office).count();
        println!("office {office} sold {sold} seats");
    }
    println!("{SEATS} seats sold once each; {lost_races} times an office had to read on first");
    Ok(())
}

/// What an office knows: all sales up to a place in the shard.
struct Hall {
    sold: BTreeMap<u32, u32>,
    iterator: ShardIterator,
}

impl Hall {
    fn read(stream: &Stream) -> Result<Self, Failure> {
        let shard_id = stream.route(HALL)?;
        let iterator = stream.shard_iterator(shard_id, ShardIteratorType::TrimHorizon)?;
        let mut hall = Self { sold: BTreeMap::new(), iterator };
        hall.take_in(Duration::ZERO)?;
        Ok(hall)
    }

    /// Takes in all sales that are there; waits for one if there is none.
    fn take_in(&mut self, timeout: Duration) -> Result<(), Failure> {
        let mut next = self.iterator.next_timeout(timeout)?;
        while let Some(sale) = next {
            let (seat, office) = parse(sale.data()).ok_or("no sale")?;
            let before = self.sold.insert(seat, office);
            assert_eq!(before, None, "seat {seat} was sold twice");
            next = self.iterator.available().next().transpose()?;
        }
        Ok(())
    }

    fn free_seat(&self) -> Option<u32> {
        (0..SEATS).find(|seat| !self.sold.contains_key(seat))
    }
}

/// Sells seats until there are none; the number of races lost to other offices.
fn sell_out(stream: &Stream, mut hall: Hall, office: u32) -> Result<u32, Failure> {
    let mut lost_races = 0;
    while let Some(seat) = hall.free_seat() {
        // The sale holds if the next record of the shard is this one.
        let options = PutOptions::new().expect_next(hall.iterator.next_sequence_number());
        match stream.put_with(HALL, format!("{seat} {office}"), options) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Conflict => lost_races += 1,
            Err(error) => return Err(error.into()),
        }
        // There is a sale to read, ours or the winner's. The winner's shows once it is on the disk.
        hall.take_in(Duration::from_secs(10))?;
    }
    Ok(lost_races)
}

fn parse(sale: &[u8]) -> Option<(u32, u32)> {
    let (seat, office) = std::str::from_utf8(sale).ok()?.split_once(' ')?;
    Some((seat.parse().ok()?, office.parse().ok()?))
}
