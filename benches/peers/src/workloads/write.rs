//! Appends that survive the death of the process: one record a call, batches, threads.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use super::figure;
use crate::Result;
use crate::cell::{Figures, Run, disk_bytes, private_bytes, touch_memory};
use crate::engines::{Engine, cpu_time};
use crate::records::{Records, number};

const VOLUME_MEBIBYTES: f64 = 768.0;
const LIMIT_SECONDS: f64 = 1.5;
pub(super) const BATCH: usize = 100;
/// Between looks at the clock.
const STEP_BYTES: usize = 1 << 20;
/// Between looks at the memory.
const MEMORY_STEP: u64 = 64;

/// When to stop writing: whichever comes first.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    pub(super) bytes: u64,
    pub(super) time: Duration,
}

pub(super) struct Written {
    pub(super) records: u64,
    pub(super) elapsed: Duration,
    /// At most how much private memory the process had.
    pub(super) private_bytes: u64,
}

impl Written {
    fn per_second(&self) -> f64 {
        self.records as f64 / self.elapsed.as_secs_f64()
    }
}

pub(super) fn one_by_one(run: &Run<'_>) -> Result<Figures> {
    let (volume, bounds) = bounds(run);
    touch_memory(volume * 2);
    let engine = run.open(volume)?;
    let records = Records::new(run.cell.load.record_bytes);
    let cpu = cpu_time();
    let written = write(&*engine, &records, 1, 0, bounds)?;
    let cpu = cpu_time().saturating_sub(cpu);
    engine.close()?;
    let bytes = (written.records * records.bytes() as u64) as f64;
    Ok(vec![
        figure("records_per_s", written.per_second()),
        figure("private_bytes", written.private_bytes as f64),
        figure("cpu_s_per_gb", cpu.as_secs_f64() / bytes * 1e9),
        figure("disk_per_byte", disk_bytes(run.dir)? as f64 / bytes),
    ])
}

pub(super) fn in_batches(run: &Run<'_>) -> Result<Figures> {
    let (volume, bounds) = bounds(run);
    touch_memory(volume * 2);
    let engine = run.open(volume)?;
    let written = write(&*engine, &Records::new(run.cell.load.record_bytes), BATCH, 0, bounds)?;
    engine.close()?;
    Ok(vec![figure("records_per_s", written.per_second())])
}

pub(super) fn by_threads(run: &Run<'_>) -> Result<Figures> {
    let (volume, bounds) = bounds(run);
    touch_memory(volume * 2);
    let engine = run.open(volume)?;
    let records = Records::new(run.cell.load.record_bytes);
    let threads = run.cell.load.threads;
    let each = Bounds { bytes: bounds.bytes / threads as u64, ..bounds };
    let barrier = Barrier::new(threads + 1);
    let (written, elapsed) = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..threads as u64)
            .map(|thread| {
                let (engine, records, barrier) = (&*engine, &records, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    write(engine, records, 1, thread << 40, each)
                })
            })
            .collect();
        barrier.wait();
        let started = Instant::now();
        let mut written = 0;
        for writer in writers {
            written += writer.join().map_err(|_| "a writer panicked")??.records;
        }
        Result::Ok((written, started.elapsed()))
    })?;
    engine.close()?;
    Ok(vec![figure("records_per_s", written as f64 / elapsed.as_secs_f64())])
}

fn bounds(run: &Run<'_>) -> (u64, Bounds) {
    let volume = run.mebibytes(VOLUME_MEBIBYTES);
    (volume, Bounds { bytes: volume, time: run.seconds(LIMIT_SECONDS) })
}

/// Appends records numbered from `first`, `batch` of them a call.
pub(super) fn write(
    engine: &dyn Engine,
    records: &Records,
    batch: usize,
    first: u64,
    bounds: Bounds,
) -> Result<Written> {
    let calls_of_step = (STEP_BYTES / records.bytes() / batch).max(1);
    let end = first + bounds.bytes / records.bytes() as u64 / batch as u64 * batch as u64;
    let (mut next, mut steps, mut most) = (first, 0, private_bytes());
    let mut data = vec![records.blank(); batch];
    let started = Instant::now();
    while next < end && started.elapsed() < bounds.time {
        for _ in 0..calls_of_step.min((end - next) as usize / batch) {
            for data in &mut data {
                number(data, next);
                next += 1;
            }
            match &data[..] {
                [data] => engine.append(data)?,
                data => engine.append_batch(&data.iter().map(Vec::as_slice).collect::<Vec<_>>())?,
            }
        }
        steps += 1;
        if steps % MEMORY_STEP == 0 {
            most = most.max(private_bytes());
        }
    }
    let elapsed = started.elapsed();
    Ok(Written { records: next - first, elapsed, private_bytes: most.max(private_bytes()) })
}
