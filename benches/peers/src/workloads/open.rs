//! Opening a big log: after a kill, and after a close.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use super::write::{BATCH, Bounds, write};
use super::{Workload, figure};
use crate::Result;
use crate::cell::{Cell, Figures, Load, Run};
use crate::engines::{Anabranch, Engine, Role, Setup, kill_self};
use crate::records::{Records, Tally};

const VOLUME_MEBIBYTES: f64 = 4_096.0;
const FILL_SECONDS: f64 = 8.0;
/// Where the filling process notes how much it wrote.
const NOTE: &str = "note";

/// One process fills it and dies; a second opens it and closes it; a third opens it again.
pub(super) fn open(run: &Run<'_>) -> Result<Figures> {
    let part = |workload| {
        let load = Load { workload, ..run.cell.load };
        Cell { load, ..run.cell.clone() }.spawn(run.dir, run.scale)
    };
    // It dies by a signal, as it should.
    let _ = part(Workload::Fill);
    let written = fs::read_to_string(run.dir.join(NOTE))?.parse::<f64>()?;
    // As in a process that lives for a while: the kernel has written everything back.
    sync(&run.dir.join("log"))?;
    let mut figures = vec![figure("gib", written * run.cell.load.record_bytes as f64 / f64::from(1 << 30))];
    for state in ["killed", "closed"] {
        let opened = part(Workload::Reopen)?;
        figures.extend(opened.into_iter().map(|(name, value)| (format!("{state}_{name}"), value)));
    }
    Ok(figures)
}

fn sync(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() { sync(&path)? } else { File::open(&path)?.sync_all()? }
    }
    Ok(())
}

/// A setup in a directory beside the note; ours flushes as by default, so that a kill leaves what it leaves in life.
fn setup<'a>(run: &Run<'a>, dir: &'a Path, volume_bytes: u64) -> Setup<'a> {
    Setup {
        dir,
        survives: run.cell.survives,
        record_bytes: run.cell.load.record_bytes,
        volume_bytes,
        shards: 1,
        flushes: true,
    }
}

pub(super) fn fill(run: &Run<'_>) -> Result<Figures> {
    let (dir, volume) = (run.dir.join("log"), run.mebibytes(VOLUME_MEBIBYTES));
    fs::create_dir(&dir)?;
    let engine = (run.entrant()?.open)(&setup(run, &dir, volume))?;
    let bounds = Bounds { bytes: volume, time: run.seconds(FILL_SECONDS).max(Duration::from_secs(1)) };
    let batch = BATCH.min((1 << 20) / run.cell.load.record_bytes);
    let written = write(&*engine, &Records::new(run.cell.load.record_bytes), batch, 0, bounds)?;
    fs::write(run.dir.join(NOTE), written.records.to_string())?;
    kill_self()
}

/// Opens it, reads it whole and compares, closes it.
pub(super) fn reopen(run: &Run<'_>) -> Result<Figures> {
    let dir = run.dir.join("log");
    let setup = setup(run, &dir, run.mebibytes(VOLUME_MEBIBYTES));
    let records = Records::new(run.cell.load.record_bytes);
    let written = fs::read_to_string(run.dir.join(NOTE))?.parse()?;
    let mut figures = Figures::new();
    let started = Instant::now();
    let engine: Box<dyn Engine> = if run.entrant()?.role == Role::Ours {
        let ours = Anabranch::open(&setup)?;
        let elapsed = started.elapsed().as_secs_f64();
        let recovered = ours.stream().recovery().records_recovered * records.bytes() as u64;
        figures.push(figure("ms", elapsed * 1e3));
        figures.push(figure("recovered_mib", recovered as f64 / f64::from(1 << 20)));
        figures.push(figure("recovered_gb_per_s", recovered as f64 / 1e9 / elapsed));
        Box::new(ours)
    } else {
        let engine = (run.entrant()?.open)(&setup)?;
        figures.push(figure("ms", started.elapsed().as_secs_f64() * 1e3));
        engine
    };
    let mut read = Tally::default();
    engine.scan(0, &mut |data| read.add(data))?;
    records.check(&read, 0, written)?;
    engine.close()?;
    Ok(figures)
}
