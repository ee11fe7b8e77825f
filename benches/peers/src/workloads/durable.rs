//! Appends that survive a power cut, by threads that wait for each.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::{figure, percentile_us};
use crate::Result;
use crate::cell::{Figures, Run};
use crate::records::{Records, number};

const VOLUME_MEBIBYTES: f64 = 1_024.0;
/// Not measured: the first segments of some engines are small.
const WARM_UP_SECONDS: f64 = 0.3;
const SECONDS: f64 = 1.0;

pub(super) fn durable(run: &Run<'_>) -> Result<Figures> {
    let engine = run.open(run.mebibytes(VOLUME_MEBIBYTES))?;
    let records = Records::new(run.cell.load.record_bytes);
    let (measuring, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    let writer = |thread: u64| -> Result<Vec<u32>> {
        let (mut data, mut latencies) = (records.blank(), Vec::new());
        for next in thread << 40.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            number(&mut data, next);
            let started = Instant::now();
            engine.append(&data)?;
            if measuring.load(Ordering::Relaxed) {
                latencies.push(started.elapsed().as_nanos() as u32);
            }
        }
        Ok(latencies)
    };
    let (mut latencies, elapsed) = std::thread::scope(|scope| {
        let writer = &writer;
        let writers: Vec<_> =
            (0..run.cell.load.threads as u64).map(|thread| scope.spawn(move || writer(thread))).collect();
        std::thread::sleep(run.seconds(WARM_UP_SECONDS));
        let started = Instant::now();
        measuring.store(true, Ordering::Relaxed);
        std::thread::sleep(run.seconds(SECONDS));
        measuring.store(false, Ordering::Relaxed);
        let elapsed = started.elapsed();
        stop.store(true, Ordering::Relaxed);
        let mut latencies = Vec::new();
        for writer in writers {
            latencies.extend(writer.join().map_err(|_| "a writer panicked")??);
        }
        Result::Ok((latencies, elapsed))
    })?;
    engine.close()?;
    latencies.sort_unstable();
    Ok(vec![
        figure("records_per_s", latencies.len() as f64 / elapsed.as_secs_f64()),
        figure("p50_us", percentile_us(&latencies, 0.50)),
        figure("p99_us", percentile_us(&latencies, 0.99)),
    ])
}
