//! From the start of an append until a reader beside the writer has the record, and how long appends take.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{Scope, ScopedJoinHandle, sleep};
use std::time::{Duration, Instant};

use super::{figure, percentile_us};
use crate::Result;
use crate::cell::{Figures, Run, touch_memory};
use crate::engines::{Anabranch, Engine, Futex, Role};
use crate::records::{Records, Tally, number};

/// Paced appends of a run.
const APPENDS: f64 = 10_000.0;
/// Between them: for a reader that spins, and for one that has to fall asleep first.
const SPIN_PACE: Duration = Duration::from_micros(20);
const PARK_PACE: Duration = Duration::from_micros(200);
const VOLUME_MEBIBYTES: f64 = 256.0;
const LATENCY_SECONDS: f64 = 1.5;

/// What writer and reader tell each other.
struct Meeting {
    base: Instant,
    /// When the append in flight began.
    began_ns: AtomicU64,
    /// Records whose append has returned.
    appended: AtomicU64,
    /// Records that the reader has, and when it had the last.
    seen: AtomicU64,
    seen_ns: AtomicU64,
    stop: AtomicBool,
}

impl Meeting {
    fn new() -> Self {
        Self {
            base: Instant::now(),
            began_ns: AtomicU64::new(0),
            appended: AtomicU64::new(0),
            seen: AtomicU64::new(0),
            seen_ns: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        }
    }

    fn now_ns(&self) -> u64 {
        self.base.elapsed().as_nanos() as u64
    }

    fn see(&self, records: u64) {
        self.seen_ns.store(self.now_ns(), Ordering::Release);
        self.seen.store(records, Ordering::Release);
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// The writer: appends, waits until it was seen, pauses. Microseconds from begin to sight, sorted.
    fn pace(&self, appends: u64, pace: Duration, append: &mut dyn FnMut(u64) -> Result<()>) -> Result<Vec<u32>> {
        let mut latencies = Vec::with_capacity(appends as usize);
        for next in 0..appends {
            let began = Instant::now();
            self.began_ns.store(self.now_ns(), Ordering::Release);
            append(next)?;
            self.appended.store(next + 1, Ordering::Release);
            while self.seen.load(Ordering::Acquire) <= next {
                if began.elapsed() > Duration::from_secs(5) {
                    return Err("the reader does not see the record".into());
                }
                spin_loop();
            }
            let took = self.seen_ns.load(Ordering::Acquire).saturating_sub(self.began_ns.load(Ordering::Acquire));
            latencies.push(took as u32);
            // A reader that spins stays awake, and so does the writer.
            if pace >= PARK_PACE {
                sleep(pace);
            } else {
                let paused = Instant::now();
                while paused.elapsed() < pace {
                    spin_loop();
                }
            }
        }
        latencies.sort_unstable();
        Ok(latencies)
    }
}

fn figures(latencies: &[u32]) -> Figures {
    vec![
        figure("p50_us", percentile_us(latencies, 0.50)),
        figure("p99_us", percentile_us(latencies, 0.99)),
        figure("p999_us", percentile_us(latencies, 0.999)),
    ]
}

fn appends(run: &Run<'_>) -> u64 {
    (APPENDS * run.scale) as u64
}

/// The reader spins: ours on its iterator, the others on the writer's word that there is something to read.
pub(super) fn spinning(run: &Run<'_>) -> Result<Figures> {
    let (records, meeting) = (Records::new(run.cell.load.record_bytes), Meeting::new());
    let volume = appends(run) * records.bytes() as u64;
    let ours = if run.entrant()?.role == Role::Ours { Some(Anabranch::open(&run.setup(volume))?) } else { None };
    let theirs = if ours.is_none() { Some(run.open(volume)?) } else { None };
    let latencies = std::thread::scope(|scope| -> Result<Vec<u32>> {
        let (meeting, records) = (&meeting, &records);
        match (&ours, &theirs) {
            (Some(ours), _) => {
                let mut iterator = ours.iterator(0)?;
                let reader = scope.spawn(move || {
                    let mut read = Tally::default();
                    while !meeting.stopped() {
                        let batch = iterator.next_batch()?;
                        if !batch.is_empty() {
                            batch.for_each(|record| read.add(record.data()));
                            meeting.see(read.records);
                        }
                    }
                    Ok(read)
                });
                drive(run, ours, records, meeting, reader)
            }
            (None, Some(engine)) => {
                let reader = follow(scope, &**engine, meeting);
                drive(run, &**engine, records, meeting, reader)
            }
            (None, None) => Err("no engine".into()),
        }
    })?;
    Ok(figures(&latencies))
}

fn follow<'scope>(
    scope: &'scope Scope<'scope, '_>,
    engine: &'scope dyn Engine,
    meeting: &'scope Meeting,
) -> ScopedJoinHandle<'scope, Result<Tally>> {
    scope.spawn(move || {
        let mut read = Tally::default();
        while !meeting.stopped() {
            let from = read.records;
            if meeting.appended.load(Ordering::Acquire) > from {
                engine.scan(from, &mut |data| read.add(data))?;
                if read.records > from {
                    meeting.see(read.records);
                }
            } else {
                spin_loop();
            }
        }
        Ok(read)
    })
}

fn drive(
    run: &Run<'_>,
    engine: &dyn Engine,
    records: &Records,
    meeting: &Meeting,
    reader: ScopedJoinHandle<'_, Result<Tally>>,
) -> Result<Vec<u32>> {
    let mut data = records.blank();
    let latencies = meeting.pace(appends(run), SPIN_PACE, &mut |next| {
        number(&mut data, next);
        engine.append(&data)
    });
    meeting.stop.store(true, Ordering::Release);
    let read = reader.join().map_err(|_| "the reader panicked")??;
    let latencies = latencies?;
    records.check(&read, 0, latencies.len() as u64)?;
    Ok(latencies)
}

/// The reader sleeps until the record comes: ours in its iterator, the bare probe in a futex.
pub(super) fn parked(run: &Run<'_>) -> Result<Figures> {
    let latencies = if run.entrant()?.role == Role::Ours { parked_ours(run)? } else { parked_bare(run)? };
    Ok(figures(&latencies))
}

fn parked_ours(run: &Run<'_>) -> Result<Vec<u32>> {
    let (records, meeting) = (Records::new(run.cell.load.record_bytes), Meeting::new());
    let ours = Anabranch::open(&run.setup(run.mebibytes(VOLUME_MEBIBYTES)))?;
    let mut iterator = ours.iterator(0)?;
    let mut data = records.blank();
    std::thread::scope(|scope| {
        let meeting = &meeting;
        let reader = scope.spawn(move || -> Result<Tally> {
            let mut read = Tally::default();
            while !meeting.stopped() {
                iterator.next_batch_timeout(Duration::from_secs(1))?.for_each(|record| read.add(record.data()));
                meeting.see(read.records);
            }
            Ok(read)
        });
        let latencies = meeting.pace(appends(run) / 4, PARK_PACE, &mut |next| {
            number(&mut data, next);
            ours.append(&data)
        });
        meeting.stop.store(true, Ordering::Release);
        let read = reader.join().map_err(|_| "the reader panicked")??;
        let latencies = latencies?;
        records.check(&read, 0, latencies.len() as u64)?;
        Ok(latencies)
    })
}

fn parked_bare(run: &Run<'_>) -> Result<Vec<u32>> {
    let (futex, meeting) = (Futex::default(), Meeting::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut woken = 0;
            loop {
                let ticket = futex.ticket();
                if meeting.stopped() {
                    return;
                }
                if ticket == woken {
                    futex.wait(ticket);
                } else {
                    woken = ticket;
                    meeting.see(u64::from(woken));
                }
            }
        });
        let latencies = meeting.pace(appends(run) / 4, PARK_PACE, &mut |_| {
            futex.wake(1);
            Ok(())
        });
        meeting.stop.store(true, Ordering::Release);
        futex.wake(1);
        latencies
    })
}

/// How long single appends take at full speed: the tail shows what rolling, draining and flushing cost.
pub(super) fn latency(run: &Run<'_>) -> Result<Figures> {
    let volume = run.mebibytes(VOLUME_MEBIBYTES);
    touch_memory(volume * 2);
    let engine = run.open(volume)?;
    let records = Records::new(run.cell.load.record_bytes);
    let mut data = records.blank();
    let end = volume / records.bytes() as u64;
    let mut latencies = Vec::with_capacity(end as usize);
    let began = Instant::now();
    for next in 0..end {
        number(&mut data, next);
        let started = Instant::now();
        engine.append(&data)?;
        latencies.push(started.elapsed().as_nanos() as u32);
        if next % 64 == 0 && began.elapsed() > run.seconds(LATENCY_SECONDS) {
            break;
        }
    }
    engine.close()?;
    latencies.sort_unstable();
    Ok(figures(&latencies))
}
