//! Batches of records out of a file, from a place on.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use anabranch::Limits;

use super::cut::{Cut, Ending};
use super::range::{FileRange, MAX_RANGE_BYTES};
use super::recipe::{Counts, Origin, Raw, Recipe, Refusal};
use crate::batch::Batch;

/// How much is read at once.
const CHUNK_BYTES: usize = 128 << 10;

/// The most bytes of a batch's data: what Kinesis Agent sends at once.
const BATCH_BYTES: u64 = 4 << 20;

/// Records of one range.
#[derive(Debug)]
pub(crate) struct Gathered {
    /// Empty where all records of the range are left out.
    pub(crate) batch: Batch,
    pub(crate) range: FileRange,
    pub(crate) counts: Counts,
}

/// Why there is no batch.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stop {
    /// The file could not be read.
    #[error(transparent)]
    Unreadable(#[from] io::Error),
    /// The record at this offset is refused; those before it were given.
    #[error("{refusal}")]
    Refused { offset: u64, refusal: Refusal },
}

/// What is read of a file: from where, how far, and whether more will come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) ending: Ending,
}

/// Reads one file at a time, and keeps what it read ahead as long as it goes on there.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    recipe: &'a Recipe,
    limits: Limits,
    max_records: usize,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(recipe: &'a Recipe, limits: Limits, max_records: u32) -> Self {
        let max_records = max_records.min(limits.max_batch_records) as usize;
        Self { recipe, limits, max_records, start: 0, bytes: Vec::new() }
    }

    /// Forgets what was read ahead: the next batch is of another file, or of later bytes.
    pub(crate) fn reset(&mut self) {
        self.bytes.clear();
        self.start = 0;
    }

    /// The next records, as many as a batch takes; nothing where no record is complete.
    pub(crate) fn gather(
        &mut self,
        file: &File,
        origin: Origin<'_>,
        extent: Extent,
    ) -> Result<Option<Gathered>, Stop> {
        self.collect(file, origin, extent, self.max_records, BATCH_BYTES)
    }

    /// The records of a range from which a batch was made before.
    pub(crate) fn gather_again(
        &mut self,
        file: &File,
        origin: Origin<'_>,
        range: FileRange,
    ) -> Result<Option<Gathered>, Stop> {
        let extent = Extent { start: range.start, end: range.end, ending: Ending::Final };
        self.collect(file, origin, extent, usize::MAX, u64::MAX)
    }

    fn collect(
        &mut self,
        file: &File,
        origin: Origin<'_>,
        extent: Extent,
        max_records: usize,
        max_bytes: u64,
    ) -> Result<Option<Gathered>, Stop> {
        self.begin_at(extent.start);
        let mut batch = Batch::default();
        let mut counts = Counts::default();
        let mut starts_a_line = starts_a_line(file, extent.start)?;
        let mut used = 0;
        while batch.len() < max_records && batch.data_bytes() < max_bytes {
            let Some(cut) = self.first_cut(file, used, extent)? else {
                break;
            };
            if (used + cut.bytes) as u64 > MAX_RANGE_BYTES {
                break;
            }
            let offset = extent.start + used as u64;
            let bytes = &self.bytes[used..used + cut.data_bytes];
            let is_whole = starts_a_line && !cut.is_cut_off;
            let raw = Raw { bytes, offset, is_whole, is_cut_off: cut.is_cut_off };
            match self.recipe.make(raw, origin, &mut counts) {
                Ok(Some(made)) if batch.has_room(&made.key, &made.data, &self.limits) => {
                    batch.push(&made.key, &made.data);
                }
                Ok(None) => {}
                Err(refusal) if used == 0 => return Err(Stop::Refused { offset, refusal }),
                Ok(Some(_)) | Err(_) => break, // it is the first of the next batch
            }
            starts_a_line = !cut.is_cut_off;
            used += cut.bytes;
        }
        self.bytes.drain(..used);
        self.start += used as u64;
        let range = FileRange::new(extent.start, extent.start + used as u64);
        Ok(range.map(|range| Gathered { batch, range, counts }))
    }

    /// The record behind what is used, as soon as enough is read.
    fn first_cut(&mut self, file: &File, used: usize, extent: Extent) -> io::Result<Option<Cut>> {
        loop {
            let is_all = self.start + self.bytes.len() as u64 >= extent.end;
            let ending = if is_all { extent.ending } else { Ending::Open };
            let cut = self.recipe.cutter.first(&self.bytes[used..], ending);
            if cut.is_some() || is_all || !self.fill(file, extent.end)? {
                return Ok(cut);
            }
        }
    }

    fn begin_at(&mut self, start: u64) {
        if self.start != start {
            self.bytes.clear();
            self.start = start;
        }
    }

    /// Reads on; false where the file ends before it should.
    fn fill(&mut self, file: &File, end: u64) -> io::Result<bool> {
        let length = self.bytes.len();
        let at = self.start + length as u64;
        let wanted = usize::try_from(end - at).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        self.bytes.resize(length + wanted, 0);
        let read = read_at(file, &mut self.bytes[length..], at);
        self.bytes.truncate(length + *read.as_ref().unwrap_or(&0));
        Ok(read? > 0)
    }
}

fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, at) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

/// Whether a line starts there: with the file, or behind a line end.
fn starts_a_line(file: &File, offset: u64) -> io::Result<bool> {
    let Some(before) = offset.checked_sub(1) else {
        return Ok(true);
    };
    let mut byte = [0];
    Ok(read_at(file, &mut byte, before)? == 1 && byte == *b"\n")
}

/// Where the line starts that the file ends with, for now; not further back than a record is long.
pub(crate) fn start_of_last_line(file: &File, size: u64, max_bytes: usize) -> io::Result<u64> {
    let lowest = size.saturating_sub(max_bytes as u64);
    let mut end = size;
    while end > lowest {
        let start = end.saturating_sub(CHUNK_BYTES as u64).max(lowest);
        let mut chunk = vec![0; usize::try_from(end - start).unwrap_or(CHUNK_BYTES)];
        file.read_exact_at(&mut chunk, start)?;
        if let Some(last) = memchr::memrchr(b'\n', &chunk) {
            return Ok(start + last as u64 + 1);
        }
        end = start;
    }
    Ok(if lowest == 0 { 0 } else { size })
}

/// Behind so many lines; nothing where the file has not got them yet.
pub(crate) fn end_of_header(file: &File, lines: u32) -> io::Result<Option<u64>> {
    let mut left = lines as usize;
    let mut at = 0;
    let mut chunk = vec![0; CHUNK_BYTES];
    while left > 0 {
        let length = read_at(file, &mut chunk, at)?;
        if length == 0 {
            return Ok(None);
        }
        let chunk = &chunk[..length];
        match memchr::memchr_iter(b'\n', chunk).nth(left - 1) {
            Some(last) => return Ok(Some(at + last as u64 + 1)),
            None => left -= memchr::memchr_iter(b'\n', chunk).count(),
        }
        at += length as u64;
    }
    Ok(Some(0))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::args::RecordArgs;
    use super::*;

    #[derive(Parser)]
    struct Options {
        #[command(flatten)]
        records: RecordArgs,
    }

    fn recipe(options: &[&str], limits: &Limits) -> Recipe {
        let options = Options::try_parse_from([&["tail"], options].concat()).unwrap();
        Recipe::new(&options.records, limits).unwrap()
    }

    fn file(content: &[u8]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(content, 0).unwrap();
        file
    }

    const ORIGIN: Origin<'_> = Origin { name: "a", producer: "p" };

    type Records = Vec<(String, Vec<u8>)>;

    fn records(gathered: &Gathered) -> Records {
        let entries = gathered.batch.entries(None);
        entries.iter().map(|entry| (entry.partition_key.to_owned(), entry.data.to_vec())).collect()
    }

    fn all(reader: &mut Reader<'_>, file: &File, end: u64, ending: Ending) -> Vec<(FileRange, Records)> {
        let mut start = 0;
        let mut batches = Vec::new();
        while let Some(gathered) = reader.gather(file, ORIGIN, Extent { start, end, ending }).unwrap() {
            assert_eq!(gathered.range.start, start);
            start = gathered.range.end;
            batches.push((gathered.range, records(&gathered)));
        }
        batches
    }

    #[test]
    fn batches_are_bounded_and_each_comes_again_from_its_range() {
        let mut content: Vec<u8> = (0..300_000).flat_map(|line| format!("S{line}\n at\n").into_bytes()).collect();
        content.extend(vec![b'x'; 200_000]);
        content.extend(b"\nlast");
        let (file, end) = (file(&content), content.len() as u64);
        let limits = Limits { max_data_bytes: 1 << 10, max_batch_bytes: 1 << 14, ..Limits::default() };
        for options in [&["--key-random"][..], &["--start-pattern", "^S", "--single-line"]] {
            let recipe = recipe(options, &limits);
            let mut reader = Reader::new(&recipe, limits, 500);
            let batches = all(&mut reader, &file, end, Ending::Final);
            assert_eq!(batches.last().unwrap().0.end, end);
            let bytes =
                |records: &Records| records.iter().map(|(key, data)| key.len() + data.len()).sum::<usize>();
            assert!(batches.iter().all(|(_, records)| records.len() <= 500 && bytes(records) <= 1 << 14));
            for (range, records_before) in batches {
                let again = reader.gather_again(&file, ORIGIN, range).unwrap().unwrap();
                assert_eq!((again.range, records(&again)), (range, records_before));
            }
        }
    }

    #[test]
    fn a_refused_record_comes_after_those_before_it() {
        let limits = Limits::default();
        let recipe = recipe(&["--key-field", "2"], &limits);
        let mut reader = Reader::new(&recipe, limits, 500);
        let file = file(b"a 1\nb 2\nlonely\n");
        let extent = |start| Extent { start, end: 15, ending: Ending::Open };
        assert_eq!(records(&reader.gather(&file, ORIGIN, extent(0)).unwrap().unwrap()).len(), 2);
        let stop = reader.gather(&file, ORIGIN, extent(8)).unwrap_err();
        assert!(matches!(stop, Stop::Refused { offset: 8, .. }), "{stop}");
    }

    #[test]
    fn what_is_cut_off_by_others_is_not_waited_for() {
        let limits = Limits::default();
        let recipe = recipe(&[], &limits);
        let mut reader = Reader::new(&recipe, limits, 500);
        let extent = Extent { start: 0, end: 100, ending: Ending::Open };
        let gathered = reader.gather(&file(b"a\nb"), ORIGIN, extent).unwrap().unwrap();
        assert_eq!((records(&gathered).len(), gathered.range.end), (1, 2));
    }

    #[test]
    fn places_in_a_file() {
        assert_eq!(start_of_last_line(&file(b""), 0, 10).unwrap(), 0);
        assert_eq!(start_of_last_line(&file(b"abc"), 3, 10).unwrap(), 0);
        assert_eq!(start_of_last_line(&file(b"a\nbc"), 4, 10).unwrap(), 2);
        assert_eq!(start_of_last_line(&file(b"a\nbc\n"), 5, 10).unwrap(), 5);
        assert_eq!(start_of_last_line(&file(b"a\nbcdefgh"), 9, 4).unwrap(), 9, "too long to be taken whole");
        assert_eq!(end_of_header(&file(b"a\nb\nc"), 0).unwrap(), Some(0));
        assert_eq!(end_of_header(&file(b"a\nb\nc"), 2).unwrap(), Some(4));
        assert_eq!(end_of_header(&file(b"a\nb\nc"), 3).unwrap(), None);
        let long = [vec![b'x'; CHUNK_BYTES], b"\ny\nz\n".to_vec()].concat();
        assert_eq!(end_of_header(&file(&long), 2).unwrap(), Some(CHUNK_BYTES as u64 + 3));
    }
}
