//! One writer, and readers that tail it.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::figure;
use super::write::{Bounds, write};
use crate::Result;
use crate::cell::{Figures, Run, touch_memory};
use crate::engines::Anabranch;
use crate::records::{Records, Tally};

const VOLUME_MEBIBYTES: f64 = 1_024.0;
const SECONDS: f64 = 1.5;

/// `threads` of the load are the readers here.
pub(super) fn readers(run: &Run<'_>) -> Result<Figures> {
    let volume = run.mebibytes(VOLUME_MEBIBYTES);
    touch_memory(volume * 2);
    let ours = Anabranch::open(&run.setup(volume))?;
    let records = Records::new(run.cell.load.record_bytes);
    let stop = AtomicBool::new(false);
    let (written, cpu_ns) = std::thread::scope(|scope| {
        let tail = || -> Result<()> {
            let (mut iterator, mut read) = (ours.iterator(0)?, Tally::default());
            while !stop.load(Ordering::Acquire) {
                iterator
                    .next_batch_timeout(Duration::from_millis(100))?
                    .for_each(|record| read.add(record.data()));
            }
            records.check(&read, 0, read.records)
        };
        let tails: Vec<_> = (0..run.cell.load.threads).map(|_| scope.spawn(tail)).collect();
        let cpu_ns = thread_cpu_ns();
        let written = write(&ours, &records, 1, 0, Bounds { bytes: volume, time: run.seconds(SECONDS) });
        let cpu_ns = thread_cpu_ns() - cpu_ns;
        stop.store(true, Ordering::Release);
        for tail in tails {
            tail.join().map_err(|_| "a reader panicked")??;
        }
        Result::Ok((written?, cpu_ns))
    })?;
    Ok(vec![
        figure("records_per_s", written.records as f64 / written.elapsed.as_secs_f64()),
        figure("records_per_cpu_s", written.records as f64 / (cpu_ns as f64 / 1e9)),
    ])
}

/// How long this thread has had a processor.
fn thread_cpu_ns() -> u64 {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
}
