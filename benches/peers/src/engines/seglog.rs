//! seglog: one writer over a `BufWriter`, segments of a fixed size that the application rolls.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use seglog::RECORD_HEAD_SIZE;
use seglog::read::{ReadHint, Reader};
use seglog::write::Writer;

use super::{Can, Engine, Entrant, Role, Setup, Survives};
use crate::Result;

pub(super) const ENTRANT: Entrant = Entrant {
    name: "seglog",
    role: Role::Peer,
    package: "seglog",
    levels: &[
        (Survives::Nothing, "`append`"),
        (Survives::Kill, "`append`, `flush_writer` (its own recovery keeps only what `commit` synced)"),
        (Survives::PowerCut, "`append`, `commit`"),
    ],
    can: &[Can::Append, Can::Batch, Can::Scan, Can::Get],
    open: |setup| Ok(Box::new(Seglog::open(setup)?)),
};

const SEGMENT_BYTES: usize = 256 << 20;
/// Left free at the end of a segment, for commit markers.
const MARGIN_BYTES: usize = 1 << 10;

struct Seglog {
    dir: PathBuf,
    survives: Survives,
    frame_bytes: usize,
    log: Mutex<Log>,
    readers: Mutex<Vec<Reader<0>>>,
}

struct Log {
    writer: Writer<0>,
    segments: usize,
    commits: u64,
}

fn segment(dir: &Path, index: usize) -> PathBuf {
    dir.join(format!("{index:06}.log"))
}

impl Seglog {
    fn open(setup: &Setup<'_>) -> Result<Self> {
        let writer = Writer::create(segment(setup.dir, 0), SEGMENT_BYTES, 0)?;
        Ok(Self {
            dir: setup.dir.to_owned(),
            survives: setup.survives,
            frame_bytes: RECORD_HEAD_SIZE + setup.record_bytes,
            log: Mutex::new(Log { writer, segments: 1, commits: 0 }),
            readers: Mutex::default(),
        })
    }

    fn write(&self, log: &mut Log, data: &[u8]) -> Result<()> {
        let frames = self.frames_of_segment() as u64;
        let full = log.writer.remaining_bytes() < (MARGIN_BYTES + self.frame_bytes) as u64;
        // Where every record is committed, markers take room too, and no reader asks for records by number.
        if full
            || (self.survives != Survives::PowerCut
                && log.writer.write_offset() >= frames * self.frame_bytes as u64)
        {
            log.writer.flush_writer()?;
            log.writer = Writer::create(segment(&self.dir, log.segments), SEGMENT_BYTES, 0)?;
            log.segments += 1;
        }
        log.writer.append_data(data)?;
        Ok(())
    }

    fn finish(&self, log: &mut Log) -> Result<()> {
        match self.survives {
            Survives::Nothing => {}
            Survives::Kill => log.writer.flush_writer()?,
            Survives::PowerCut => {
                log.commits += 1;
                let commits = log.commits;
                log.writer.commit(commits)?;
            }
        }
        Ok(())
    }

    fn frames_of_segment(&self) -> usize {
        (SEGMENT_BYTES - MARGIN_BYTES) / self.frame_bytes
    }

    fn reader(&self, index: usize) -> Result<Reader<0>> {
        Ok(Reader::open(segment(&self.dir, index), None)?)
    }
}

impl Engine for Seglog {
    fn append(&self, data: &[u8]) -> Result<()> {
        self.append_batch(&[data])
    }

    fn append_batch(&self, batch: &[&[u8]]) -> Result<()> {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        batch.iter().try_for_each(|data| self.write(&mut log, data))?;
        self.finish(&mut log)
    }

    fn scan(&self, from: u64, visit: &mut dyn FnMut(&[u8])) -> Result<()> {
        let segments = self.log.lock().unwrap_or_else(PoisonError::into_inner).segments;
        let mut skip = from as usize % self.frames_of_segment();
        for index in from as usize / self.frames_of_segment()..segments {
            let mut reader = self.reader(index)?;
            let mut records = reader.iter((skip * self.frame_bytes) as u64);
            while let Some(record) = records.next_record()? {
                visit(&record.data);
            }
            skip = 0;
        }
        Ok(())
    }

    fn get(&self, number: u64, visit: &mut dyn FnMut(&[u8])) -> Result<()> {
        let index = number as usize / self.frames_of_segment();
        let offset = number as usize % self.frames_of_segment() * self.frame_bytes;
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        while readers.len() <= index {
            let next = readers.len();
            readers.push(self.reader(next)?);
        }
        visit(&readers[index].read_record(offset as u64, ReadHint::Random)?.data);
        Ok(())
    }
}
