//! Reading: everything once in order, then records by their numbers, at random. Every byte is summed and compared.

use std::time::{Duration, Instant};

use super::figure;
use super::write::{BATCH, Bounds, write};
use crate::Result;
use crate::cell::{Figures, Run, touch_memory, wait_until_quiet};
use crate::engines::{Can, Engine};
use crate::records::{Records, Tally};

const VOLUME_MEBIBYTES: f64 = 512.0;
const FILL_SECONDS: f64 = 4.0;
const GET_SECONDS: f64 = 0.5;
/// Point reads between looks at the clock.
const STEP: usize = 1_000;
/// For what engines do in the background after the fill.
const QUIET: Duration = Duration::from_secs(1);

pub(super) fn read(run: &Run<'_>) -> Result<Figures> {
    let volume = run.mebibytes(VOLUME_MEBIBYTES);
    touch_memory(volume * 2);
    let engine = run.open(volume)?;
    let records = Records::new(run.cell.load.record_bytes);
    let bounds = Bounds { bytes: volume, time: run.seconds(FILL_SECONDS) };
    let batch = if run.entrant()?.can(Can::Batch) { BATCH } else { 1 };
    let written = write(&*engine, &records, batch, 0, bounds)?.records;
    wait_until_quiet(QUIET);
    let mut figures = Figures::new();
    if run.entrant()?.can(Can::Scan) {
        figures.push(figure("scanned_per_s", scan(&*engine, &records, written)?));
    }
    if run.entrant()?.can(Can::Get) {
        figures.push(figure("got_per_s", get(&*engine, &records, written, run.seconds(GET_SECONDS))?));
    }
    engine.close()?;
    Ok(figures)
}

fn scan(engine: &dyn Engine, records: &Records, written: u64) -> Result<f64> {
    let mut read = Tally::default();
    let started = Instant::now();
    engine.scan(0, &mut |data| read.add(data))?;
    let elapsed = started.elapsed();
    records.check(&read, 0, written)?;
    Ok(written as f64 / elapsed.as_secs_f64())
}

fn get(engine: &dyn Engine, records: &Records, written: u64, limit: Duration) -> Result<f64> {
    let (mut read, mut state) = (Tally::default(), 0x2545_f491_4f6c_dd1d_u64);
    let (mut drawn, mut numbers) = (0, 0_u64);
    let started = Instant::now();
    while started.elapsed() < limit {
        for _ in 0..STEP {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let number = state % written;
            engine.get(number, &mut |data| read.add(data))?;
            numbers = numbers.wrapping_add(number);
        }
        drawn += STEP as u64;
    }
    let elapsed = started.elapsed();
    records.check_sum(&read, drawn, numbers)?;
    Ok(drawn as f64 / elapsed.as_secs_f64())
}
