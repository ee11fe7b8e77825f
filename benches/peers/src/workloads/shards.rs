//! Ten thousand shards, mostly idle.

use std::fs;
use std::sync::Barrier;
use std::time::Instant;

use anabranch::{HashKey, PutOptions};

use super::figure;
use crate::Result;
use crate::cell::{Figures, Run, disk_bytes, private_bytes};
use crate::engines::{Anabranch, Engine};
use crate::records::Records;

const SECONDS: f64 = 1.0;

pub(super) fn shards(run: &Run<'_>) -> Result<Figures> {
    let records = Records::new(run.cell.load.record_bytes);
    let setup = run.setup(0);
    let ours = Anabranch::open(&setup)?;
    for summary in ours.stream().shards() {
        let at = PutOptions::new().explicit_hash_key(summary.hash_key_range.start());
        ours.stream().put_with("partition-000001", records.blank(), at)?;
    }
    Box::new(ours).close()?;

    let (private, started) = (private_bytes(), Instant::now());
    let ours = Anabranch::open(&setup)?;
    let opened = started.elapsed();
    let private = private_bytes().saturating_sub(private);
    let disk = disk_bytes(run.dir)?;
    let per_second = put_at_random(run, &ours, &records)?;
    let handles = fs::read_dir("/proc/self/fd")?.count();
    let after = private_bytes();
    Box::new(ours).close()?;
    Ok(vec![
        figure("open_ms", opened.as_secs_f64() * 1e3),
        figure("private_bytes", private as f64),
        figure("disk_bytes", disk as f64),
        figure("records_per_s", per_second),
        figure("handles", handles as f64),
        figure("private_bytes_after", after as f64),
    ])
}

/// Threads put records to shards at random.
fn put_at_random(run: &Run<'_>, ours: &Anabranch, records: &Records) -> Result<f64> {
    let limit = run.seconds(SECONDS);
    let barrier = Barrier::new(run.cell.load.threads);
    let put = |thread: u64| -> Result<f64> {
        let (data, mut state, mut count) = (records.blank(), 0x9e37_79b9_7f4a_7c15 + thread, 0_u64);
        barrier.wait();
        let started = Instant::now();
        while count % 64 != 0 || started.elapsed() < limit {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let at = PutOptions::new().explicit_hash_key(HashKey::new(u128::from(state) << 64));
            ours.stream().put_with("partition-000001", &data, at)?;
            count += 1;
        }
        Ok(count as f64 / started.elapsed().as_secs_f64())
    };
    std::thread::scope(|scope| {
        let put = &put;
        let writers: Vec<_> =
            (0..run.cell.load.threads as u64).map(|thread| scope.spawn(move || put(thread))).collect();
        writers.into_iter().map(|writer| writer.join().map_err(|_| "a writer panicked")?).sum()
    })
}
