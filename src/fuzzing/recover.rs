//! Recovery of a segment that the fuzzer wrote.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::input::Input;
use super::{SHARD_ID, STREAM_ID, Seen, builder, read_shard, write_file};
use crate::error::{Error, ErrorKind};
use crate::format::{
    FOOTER_BYTES, Footer, Frame, FrameInput, ManifestState, SEGMENT_HEADER_BYTES, SealKind, Seed, SegmentHeader,
    ShardEntry, StreamOptions, encode_slot, encode_to, index_bytes, segment_name,
};
use crate::storage::{Crash, SimulatedDisk, Storage};
use crate::stream::{VerifyOptions, verify};
use crate::types::{HashKeyRange, RetentionPeriod, SequenceNumber, Timestamp};

/// The incarnation that the segments are of; the manifest's is this one too, and the next opening's is above.
const INCARNATION: u64 = 3;
const START: Timestamp = Timestamp::from_millis(1_000);
/// Records in the sealed segment before the newest, where there is one.
const SEALED_RECORDS: u64 = 3;

/// A newest segment made of whatever the fuzzer chose, on a simulated disk, is opened.
///
/// The choices are pieces: sound frames in or out of order, raw bytes, gaps, flipped bits, a frame of another life, a footer. Checksums are
/// put right where the fuzzer asks for it. Opening must end in data or a typed error. Data means: each record read is
/// a frame of the file whose checksum holds; an unsealed segment gives exactly its whole batches, never fewer
/// than any frame or note says were durable; recovery's outcome survives power loss; the next opening gives the
/// same. An error means: nothing was changed, and the next opening gives the same error.
pub fn recover_segment(input: &[u8]) {
    let mut input = Input::new(input);
    if let Some(scene) = Scene::draw(&mut input) {
        scene.play();
    }
}

/// A stream of one shard whose writer is gone.
struct Scene {
    disk: SimulatedDisk,
    /// The newest segment's path and bytes, and its header if it has a sound one.
    path: PathBuf,
    image: Vec<u8>,
    header: Option<SegmentHeader>,
    /// What the manifest and the WATERMARK file say is durable.
    durable: u64,
    sealed: Vec<Seen>,
    seed: u64,
}

impl Scene {
    fn draw(input: &mut Input<'_>) -> Option<Self> {
        let flags = input.byte()?;
        let seed = u64::from(input.byte()?);
        let (noted, promised) = (u64::from(input.byte()?), input.below(8)?);
        let disk = SimulatedDisk::new();
        let directory = Path::new("shards").join(SHARD_ID.directory());
        disk.create_dir(Path::new("shards")).unwrap();
        disk.create_dir(&directory).unwrap();

        let sealed = match flags & 3 {
            0 | 1 => Vec::new(),
            2 => write_sealed(&disk, &directory, SealKind::Rolled),
            _ => write_sealed(&disk, &directory, SealKind::Closed),
        };
        let first = sealed.len() as u64;
        let header = SegmentHeader {
            stream_id: STREAM_ID,
            shard_id: SHARD_ID,
            incarnation: INCARNATION,
            first: SequenceNumber::new(first),
            created: START,
            file_bytes: 512 * (1 + input.below(16)?),
        };
        let (image, header) = draw_segment(input, header, flags & 4 != 0);
        let path = directory.join(segment_name(SequenceNumber::new(first)));

        let mut entry = ShardEntry::new(SHARD_ID, Vec::new(), HashKeyRange::FULL, SequenceNumber::ZERO, START);
        entry.next = SequenceNumber::new(promised);
        let state = ManifestState {
            generation: 1,
            stream_id: STREAM_ID,
            created: START,
            incarnation: INCARNATION,
            clean: flags & 8 != 0,
            options: StreamOptions {
                segment_bytes: 8_192,
                retention: RetentionPeriod::Unlimited,
                ..Default::default()
            },
            next_shard_id: SHARD_ID.successor(),
            shards: vec![entry],
            next_producer_id: 0,
            producers: Vec::new(),
        };
        write_file(&disk, "MANIFEST", &state.encode());
        write_file(&disk, "WATERMARK", &encode_slot(STREAM_ID, SHARD_ID, SequenceNumber::new(noted)));
        // As a process leaves it that was killed before it synced. The header is on the medium, and where there is a
        // footer, so is all that it vouches for. What a clean manifest knows of was synced before it was written.
        let is_sealed = header.is_some_and(|header| is_sealed(&image, &header));
        let synced = match (state.clean, is_sealed) {
            (true, _) => image.len(),
            (false, true) => image.len() - FOOTER_BYTES,
            (false, false) => SEGMENT_HEADER_BYTES.min(image.len()),
        };
        let file = disk.create_file(&path).unwrap();
        file.allocate(image.len() as u64).unwrap();
        file.write_at(&image[..synced], 0).unwrap();
        file.sync().unwrap();
        file.write_at(&image[synced..], synced as u64).unwrap();
        for directory in [directory.as_path(), Path::new("shards"), Path::new("/")] {
            disk.sync_dir(directory).unwrap();
        }
        Some(Self { disk, path, image, header, durable: noted.max(promised), sealed, seed })
    }

    fn play(&self) {
        let shown = self.read_only();
        let was_sound = verify("/", options(&self.disk)).is_ok_and(|report| report.is_sound());
        match builder(&self.disk).open_existing("/") {
            Ok(stream) => {
                let (found, stopped) = read_shard(&stream, SHARD_ID);
                self.check(&found, stopped.as_ref());
                assert!(found.starts_with(&shown), "a follower was shown what recovery took away");
                let after = self.disk.fork(Crash::PowerLost { seed: self.seed });
                Self::open_again(&after, &found, stopped.as_ref());
                if was_sound {
                    let whole = stopped.as_ref().is_none_or(|error| error.kind() == ErrorKind::Lost);
                    assert!(whole, "{stopped:?} in a stream that was verified");
                    assert!(verify("/", options(&after)).unwrap().is_sound());
                }
                stream.close().unwrap();
                Self::open_again(&self.disk.fork(Crash::PowerLost { seed: self.seed }), &found, stopped.as_ref());
            }
            Err(error) => {
                assert!(!was_sound, "{error} in a stream that was verified");
                assert_typed(&error);
                self.assert_untouched(&error);
                let again = builder(&self.disk).open_existing("/").expect_err("an error that goes away by itself");
                assert_eq!(again.to_string(), error.to_string());
            }
        }
    }

    /// The newest segment is as it was, or is gone and had no record.
    fn assert_untouched(&self, error: &Error) {
        if let Ok(bytes) = self.disk.read_file(&self.path) {
            assert!(bytes == self.image, "{error}, and the segment was changed");
        } else {
            let records = self.header.map(|header| self.whole_batches(&header).0);
            assert!(records.is_none_or(|records| records.is_empty()), "{error}, and the segment is gone");
        }
    }

    /// What a follower is shown: it changes nothing, so it looks first.
    fn read_only(&self) -> Vec<Seen> {
        let beside = self.disk.fork(Crash::ProcessKilled);
        match builder(&beside).open_read_only("/") {
            Ok(stream) => {
                let (shown, stopped) = read_shard(&stream, SHARD_ID);
                stopped.iter().for_each(assert_typed);
                self.check_frames(&shown);
                shown
            }
            Err(error) => {
                assert_typed(&error);
                Vec::new()
            }
        }
    }

    /// The outcome of a recovery is durable before the first read, and is found again.
    fn open_again(disk: &SimulatedDisk, found: &[Seen], stopped: Option<&Error>) {
        let stream = builder(disk).open_existing("/").expect("a stream that was opened opens again");
        let (again, stopped_again) = read_shard(&stream, SHARD_ID);
        assert_eq!(again, found);
        assert_eq!(stopped_again.is_some(), stopped.is_some());
        let put = stream.put("again", b"more").unwrap();
        if stopped.is_none() {
            assert_eq!(put.sequence_number.get(), found.len() as u64);
            let (more, _) = read_shard(&stream, SHARD_ID);
            assert_eq!(more.split_last().map(|(_, before)| before), Some(found));
        }
    }

    fn check(&self, found: &[Seen], stopped: Option<&Error>) {
        if let Some(error) = stopped {
            assert_typed(error);
        }
        self.check_frames(found);
        let Some(header) = self.header.filter(|header| !is_sealed(&self.image, header)) else {
            return; // a sealed segment is believed as far as its checksums hold
        };
        let (whole, stop) = self.whole_batches(&header);
        assert!(stopped.is_none(), "{stopped:?} behind a recovery");
        assert_eq!(found[self.sealed.len()..], whole);
        let next = found.len() as u64;
        assert!(next >= self.durable, "records below {} were durable; found {next}", self.durable);
        let claimed = self.durable_behind(&header, stop, next);
        assert!(next >= claimed, "a later frame says that records below {claimed} were durable; found {next}");
    }

    /// Every record is one of the sealed segment's, or a frame of this one whose checksum holds; no number is missing.
    fn check_frames(&self, found: &[Seen]) {
        for (place, record) in found.iter().enumerate() {
            assert_eq!(record.number, place as u64);
        }
        let (before, rest) = found.split_at(found.len().min(self.sealed.len()));
        assert_eq!(before, &self.sealed[..before.len()]);
        if rest.is_empty() {
            return;
        }
        let seed = self.header.expect("records without a header").seed();
        let frames: BTreeSet<_> =
            (0..self.image.len()).step_by(8).filter_map(|at| frame(&self.image[at..], seed)).collect();
        for record in rest {
            assert!(frames.contains(record), "no frame holds {record:?}");
        }
    }

    /// The records of the unsealed segment that must be found, read naively, and the first place that is no record.
    fn whole_batches(&self, header: &SegmentHeader) -> (Vec<Seen>, usize) {
        let room = &self.image[..self.image.len() - FOOTER_BYTES];
        let mut whole = Vec::new();
        let mut batch = Vec::new();
        let (mut at, mut last_arrival, mut remaining) = (SEGMENT_HEADER_BYTES, Timestamp::MIN, None);
        while let Ok(frame) = Frame::decode(&room[at..], header.seed()) {
            let number = header.first.get() + (whole.len() + batch.len()) as u64;
            let fits = remaining.is_none_or(|remaining| remaining == frame.batch_remaining);
            if frame.sequence_number.get() != number || frame.arrival < last_arrival || !fits {
                break;
            }
            if at + frame.size + index_bytes(whole.len() + batch.len() + 1) > room.len() {
                break; // a writer leaves room for the index
            }
            batch.push(seen(&frame));
            at += frame.size;
            last_arrival = frame.arrival;
            remaining = frame.batch_remaining.checked_sub(1);
            if remaining.is_none() {
                whole.append(&mut batch);
            }
        }
        (whole, at)
    }

    /// The highest watermark of the frames from `from` on.
    fn durable_behind(&self, header: &SegmentHeader, from: usize, next: u64) -> u64 {
        let room = &self.image[..self.image.len() - FOOTER_BYTES];
        let possible = next..=next + room.len() as u64 / 40;
        let (mut at, mut durable) = (from, 0);
        while at + 8 <= room.len() {
            match Frame::decode(&room[at..], header.seed()) {
                // One that could not be here is data that imitates a frame.
                Ok(frame) if possible.contains(&frame.sequence_number.get()) => {
                    durable = durable.max(frame.durable.get());
                    at += frame.size;
                }
                _ => at += 8,
            }
        }
        durable
    }
}

fn is_sealed(image: &[u8], header: &SegmentHeader) -> bool {
    let footer = image.last_chunk::<FOOTER_BYTES>();
    footer.is_some_and(|footer| Footer::decode(footer, header).is_some())
}

fn options(disk: &SimulatedDisk) -> VerifyOptions<'static> {
    VerifyOptions { storage: Some(std::sync::Arc::new(disk.clone())), ..Default::default() }
}

/// Bytes cannot make the library blame its caller or the system.
fn assert_typed(error: &Error) {
    assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported | ErrorKind::Lost), "{error:?}");
}

fn seen(frame: &Frame<'_>) -> Seen {
    Seen { number: frame.sequence_number.get(), key: frame.partition_key.to_owned(), data: frame.data.to_vec() }
}

fn frame(bytes: &[u8], seed: Seed) -> Option<Seen> {
    Frame::decode(bytes, seed).ok().map(|frame| seen(&frame))
}

/// A sealed segment of the shard's first records.
fn write_sealed(disk: &SimulatedDisk, directory: &Path, kind: SealKind) -> Vec<Seen> {
    let header = SegmentHeader { incarnation: INCARNATION - 1, file_bytes: 1_024, ..super::header() };
    let mut image = header.encode().to_vec();
    let (mut records, mut index) = (Vec::new(), Vec::new());
    for number in 0..SEALED_RECORDS {
        let record = Seen { number, key: "sealed".to_owned(), data: vec![7; 20] };
        index.extend_from_slice(&u32::try_from(image.len() / 8).unwrap().to_le_bytes());
        encode_to(
            &mut image,
            header.seed(),
            &FrameInput {
                sequence_number: SequenceNumber::new(number),
                arrival: START,
                durable: SequenceNumber::ZERO,
                batch_remaining: 0,
                explicit_hash_key: None,
                producer: None,
                partition_key: &record.key,
                data: &record.data,
            },
        );
        records.push(record);
    }
    index.resize(index_bytes(records.len()), 0);
    let footer = Footer {
        kind,
        first: header.first,
        records: SEALED_RECORDS,
        frames_end: image.len() as u64,
        index_position: image.len() as u64,
        first_arrival: START,
        last_arrival: START,
        bytes: 26 * SEALED_RECORDS,
        index_checksum: header.seed().checksum(&index),
        producers: 0,
        producers_checksum: 0,
    };
    image.extend_from_slice(&index);
    image.resize(1_024 - FOOTER_BYTES, 0);
    image.extend_from_slice(&footer.encode(header.seed()));
    write_file(disk, directory.join(segment_name(header.first)).to_str().unwrap(), &image);
    records
}

/// The bytes of a segment as the fuzzer puts them together, and its header if that is sound.
fn draw_segment(
    input: &mut Input<'_>,
    header: SegmentHeader,
    wild_header: bool,
) -> (Vec<u8>, Option<SegmentHeader>) {
    let mut bytes = header.encode();
    if wild_header {
        for _ in 0..=input.below(2).unwrap_or(0) {
            let (at, mask) = (input.below(124).unwrap_or(0), input.byte().unwrap_or(0));
            bytes[usize::try_from(at).unwrap()] ^= mask;
        }
        if input.byte().unwrap_or(0) & 1 == 0 {
            super::mend_tail(&mut bytes, crc32fast::hash);
        }
    }
    let sound = SegmentHeader::decode(&bytes).ok();
    let mut drawing = Drawing {
        image: vec![0; usize::try_from(header.file_bytes).unwrap()],
        at: SEGMENT_HEADER_BYTES,
        next: header.first.get(),
        arrival: START.as_millis(),
        header: sound.unwrap_or(header),
        starts: Vec::new(),
    };
    drawing.image[..bytes.len()].copy_from_slice(&bytes);
    while drawing.piece(input).is_some() {}
    // Pieces may have changed the header: what counts is what stands there in the end.
    let sound = drawing.image.first_chunk().and_then(|bytes| SegmentHeader::decode(bytes).ok());
    let whole = sound.filter(|sound| {
        sound.file_bytes == drawing.image.len() as u64
            && (sound.stream_id, sound.shard_id, sound.first) == (STREAM_ID, SHARD_ID, header.first)
    });
    (drawing.image, whole)
}

struct Drawing {
    image: Vec<u8>,
    at: usize,
    next: u64,
    arrival: i64,
    header: SegmentHeader,
    starts: Vec<u32>,
}

impl Drawing {
    fn piece(&mut self, input: &mut Input<'_>) -> Option<()> {
        match input.byte()? % 16 {
            0..=5 => self.frame(input, self.header.seed(), 0)?,
            6 => {
                let skipped = input.below(4)?;
                self.frame(input, self.header.seed(), skipped)?;
            }
            7 => {
                let other = SegmentHeader { incarnation: INCARNATION - 1, ..self.header };
                self.frame(input, other.seed(), 0)?;
            }
            8 => {
                let count = usize::from(input.byte()?);
                self.put(input.bytes(count));
            }
            9 => self.at += 8 * usize::from(input.byte()?),
            10 => self.at = self.at.saturating_sub(8 * usize::from(input.byte()?)).max(SEGMENT_HEADER_BYTES),
            11 => {
                let (at, mask) = (usize::from(input.short()?) % self.image.len().max(1), input.byte()?);
                if let Some(byte) = self.image.get_mut(at) {
                    *byte ^= mask;
                }
            }
            12 => self.footer(input, 0)?,
            13 => {
                let more = input.below(4)?;
                self.footer(input, more)?;
            }
            14 => self.next = u64::from(input.byte()?),
            _ => {
                let length = usize::from(input.short()?) % 9_000;
                self.image.resize(length, 0);
            }
        }
        Some(())
    }

    /// A frame with a right checksum.
    fn frame(&mut self, input: &mut Input<'_>, seed: Seed, skipped: u64) -> Option<()> {
        let (shape, lengths) = (input.byte()?, input.byte()?);
        self.next += skipped;
        self.arrival += i64::from(shape & 3) - i64::from(shape & 0x10 != 0) * 3;
        let durable = if shape & 0x20 == 0 { 0 } else { u64::from(input.byte()?) };
        let key = ["a", "bb", "ccc", "dddd"][usize::from(lengths & 3)];
        let data = input.bytes(usize::from(lengths >> 2));
        let mut frame = Vec::new();
        encode_to(
            &mut frame,
            seed,
            &FrameInput {
                sequence_number: SequenceNumber::new(self.next),
                arrival: Timestamp::from_millis(self.arrival),
                durable: SequenceNumber::new(durable),
                batch_remaining: u32::from(shape >> 2 & 3),
                explicit_hash_key: None,
                producer: None,
                partition_key: key,
                data,
            },
        );
        self.starts.push(u32::try_from(self.at / 8).unwrap());
        self.next += 1;
        self.put(&frame);
        Some(())
    }

    /// Writes at the place that has been reached; what does not fit is left out.
    fn put(&mut self, bytes: &[u8]) {
        let room = self.image.get_mut(self.at..).unwrap_or_default();
        let count = room.len().min(bytes.len());
        room[..count].copy_from_slice(&bytes[..count]);
        self.at += count.next_multiple_of(8);
    }

    /// An index and a footer with right checksums, of the frames so far or of a few more or fewer.
    fn footer(&mut self, input: &mut Input<'_>, more: u64) -> Option<()> {
        let shape = input.byte()?;
        let records = (self.starts.len() as u64 + more).saturating_sub(u64::from(shape >> 6));
        let mut index: Vec<u8> = self.starts.iter().flat_map(|start| start.to_le_bytes()).collect();
        index.resize(index_bytes(usize::try_from(records).unwrap()), 0);
        let footer = Footer {
            kind: if shape & 1 == 0 { SealKind::Closed } else { SealKind::Rolled },
            first: self.header.first,
            records,
            frames_end: self.at as u64 + 8 * u64::from(shape >> 1 & 1),
            index_position: self.at as u64 + 8 * u64::from(shape >> 2 & 1),
            first_arrival: START,
            last_arrival: Timestamp::from_millis(self.arrival.max(START.as_millis())),
            bytes: 0,
            index_checksum: self.header.seed().checksum(&index) ^ u32::from(shape & 8),
            producers: 0,
            producers_checksum: 0,
        };
        let footer = if shape & 0x30 == 0x30 { lost(footer, self.header.seed()) } else { footer };
        self.at = usize::try_from(footer.index_position).unwrap();
        self.put(&index);
        let place = self.image.len().checked_sub(FOOTER_BYTES)?;
        self.image[place..].copy_from_slice(&footer.encode(self.header.seed()));
        Some(())
    }
}

/// The footer of a segment that stands for records that are lost.
fn lost(footer: Footer, seed: Seed) -> Footer {
    let start = SEGMENT_HEADER_BYTES as u64;
    let index_checksum = seed.checksum(&[]);
    Footer { kind: SealKind::Lost, frames_end: start, index_position: start, bytes: 0, index_checksum, ..footer }
}
