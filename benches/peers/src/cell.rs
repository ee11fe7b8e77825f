//! A cell: one engine under one load, measured in a process of its own.

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::Result;
use crate::engines::{Engine, Entrant, Setup, Survives, entrant};
use crate::workloads::Workload;

/// What is measured.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cell {
    pub(crate) load: Load,
    pub(crate) engine: &'static str,
    pub(crate) survives: Survives,
}

/// What an engine is put through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Load {
    pub(crate) workload: Workload,
    pub(crate) record_bytes: usize,
    pub(crate) threads: usize,
    pub(crate) shards: u32,
}

/// What came out: figures by name.
pub(crate) type Figures = Vec<(String, f64)>;

impl Cell {
    /// Itself as one argument; see [`from_str`](Self::from_str).
    pub(crate) fn argument(&self) -> String {
        let Load { workload, record_bytes, threads, shards } = self.load;
        let (workload, survives) = (workload.name(), self.survives.name());
        [workload, self.engine, survives, &record_bytes.to_string(), &threads.to_string(), &shards.to_string()]
            .join("\t")
    }

    /// Measures it in a process of its own, in a directory of its own that is gone afterwards.
    pub(crate) fn measure(&self, parent: &Path, scale: f64) -> Result<Figures> {
        let dir = tempfile::tempdir_in(parent)?;
        let figures = self.spawn(dir.path(), scale)?;
        dir.close()?;
        Ok(figures)
    }

    /// Measures it in a process of its own, in this directory.
    pub(crate) fn spawn(&self, dir: &Path, scale: f64) -> Result<Figures> {
        let output = Command::new(std::env::current_exe()?)
            .args(["--cell", &self.argument(), "--scale", &scale.to_string(), "--dir"])
            .arg(dir)
            .env("WALRUS_DATA_DIR", dir)
            .env("WALRUS_QUIET", "1")
            .stderr(Stdio::inherit())
            .output()?;
        if !output.status.success() {
            return Err(format!("{}: {}", self.argument(), output.status).into());
        }
        let lines = String::from_utf8(output.stdout)?;
        // Engines print too: only lines of two fields, the second a number, are figures.
        let figure = |line: &str| {
            let (name, value) = line.strip_prefix("figure ")?.split_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Ok(lines.lines().filter_map(figure).collect())
    }
}

impl FromStr for Cell {
    type Err = Box<dyn std::error::Error + Send + Sync>;

    fn from_str(argument: &str) -> Result<Self> {
        let fields: Vec<_> = argument.split('\t').collect();
        let [workload, engine, survives, record_bytes, threads, shards] = fields[..] else {
            return Err("a cell has six fields".into());
        };
        let load = Load {
            workload: Workload::from_name(workload).ok_or("no such workload")?,
            record_bytes: record_bytes.parse()?,
            threads: threads.parse()?,
            shards: shards.parse()?,
        };
        let survives = Survives::ALL.into_iter().find(|level| level.name() == survives).ok_or("no such level")?;
        Ok(Self { load, engine: entrant(engine)?.name, survives })
    }
}

/// A cell inside its process.
pub(crate) struct Run<'a> {
    pub(crate) cell: &'a Cell,
    pub(crate) dir: &'a Path,
    pub(crate) scale: f64,
}

impl Run<'_> {
    pub(crate) fn entrant(&self) -> Result<&'static Entrant> {
        entrant(self.cell.engine)
    }

    pub(crate) fn setup(&self, volume_bytes: u64) -> Setup<'_> {
        Setup {
            dir: self.dir,
            survives: self.cell.survives,
            record_bytes: self.cell.load.record_bytes,
            volume_bytes,
            shards: self.cell.load.shards,
            flushes: false,
        }
    }

    pub(crate) fn open(&self, volume_bytes: u64) -> Result<Box<dyn Engine>> {
        (self.entrant()?.open)(&self.setup(volume_bytes))
    }

    /// So many mebibytes at scale 1.
    pub(crate) fn mebibytes(&self, at_scale_1: f64) -> u64 {
        (at_scale_1 * self.scale * f64::from(1 << 20)) as u64
    }

    /// So many seconds at scale 1.
    pub(crate) fn seconds(&self, at_scale_1: f64) -> Duration {
        Duration::from_secs_f64(at_scale_1 * self.scale)
    }
}

/// Touches as much memory as a cell will need. In a virtual machine that hands free pages back to its host, their next first touch can
/// cost ten times the guest's own fault, and figures would follow the order of the cells.
pub(crate) fn touch_memory(bytes: u64) {
    let available = field("/proc/meminfo", "MemAvailable:").unwrap_or(0);
    drop(black_box(vec![1_u8; bytes.min(available / 2) as usize]));
}

/// Waits until the processors are idle, but no longer than this.
pub(crate) fn wait_until_quiet(most: Duration) {
    let started = Instant::now();
    while started.elapsed() < most {
        let before = idle_and_all();
        sleep(Duration::from_millis(50));
        let after = idle_and_all();
        let (idle, all) = (after.0 - before.0, after.1 - before.1);
        if idle * 10 >= all * 9 {
            return;
        }
    }
}

/// The processors' clock ticks so far.
fn idle_and_all() -> (u64, u64) {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = first.split_whitespace().skip(1).filter_map(|ticks| ticks.parse().ok()).collect();
    (ticks.get(3).copied().unwrap_or(0), ticks.iter().take(8).sum())
}

/// The private memory of this process, in bytes.
pub(crate) fn private_bytes() -> u64 {
    field("/proc/self/status", "RssAnon:").unwrap_or(0)
}

/// A field that is given in kibibytes, in bytes.
fn field(file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(value.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

/// What the files of a directory take on the disk, in bytes.
pub(crate) fn disk_bytes(dir: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let (path, metadata) =
            (entry.as_ref().map(fs::DirEntry::path), entry.as_ref().map(fs::DirEntry::metadata));
        let (Ok(path), Ok(Ok(metadata))) = (path, metadata) else { continue }; // gone meanwhile
        bytes += if metadata.is_dir() { disk_bytes(&path)? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}
