//! Each rule by which a scan tells the end of a log, a torn tail and damage apart.

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::format::{FrameInput, encode_to};
use crate::storage::{SimulatedDisk, Storage};
use crate::types::{ShardId, StreamId};

const FILE_BYTES: usize = 64 << 10;
const PATH: &str = "segment";

fn header() -> SegmentHeader {
    SegmentHeader {
        stream_id: StreamId::new(5),
        shard_id: ShardId::new(2),
        incarnation: 3,
        first: SequenceNumber::new(10),
        created: Timestamp::from_millis(0),
        file_bytes: FILE_BYTES as u64,
    }
}

/// The bytes of a segment that holds batches of these lengths; each batch says that all before it were durable.
struct Image {
    bytes: Vec<u8>,
    /// Where each frame starts, and where the last one ends.
    positions: Vec<usize>,
}

fn image(batches: &[u32]) -> Image {
    let mut frames = Vec::new();
    let mut number = header().first;
    for count in batches {
        let durable = number;
        for index in 0..*count {
            let batch_remaining = count - 1 - index;
            frames.push(FrameInput { sequence_number: number, durable, batch_remaining, ..frame() });
            number = number.next();
        }
    }
    image_of(&frames)
}

fn image_of(frames: &[FrameInput<'_>]) -> Image {
    let mut bytes = header().encode().to_vec();
    let mut positions = vec![bytes.len()];
    for frame in frames {
        encode_to(&mut bytes, header().seed(), frame);
        positions.push(bytes.len());
    }
    bytes.resize(FILE_BYTES, 0);
    Image { bytes, positions }
}

/// The first of a segment, by itself, which says nothing of what was durable.
fn frame() -> FrameInput<'static> {
    FrameInput {
        sequence_number: header().first,
        arrival: Timestamp::from_millis(100),
        durable: SequenceNumber::ZERO,
        batch_remaining: 0,
        explicit_hash_key: None,
        producer: None,
        partition_key: "key",
        data: &[7; 50],
    }
}

impl Image {
    fn scan_with(&self, durable: u64) -> Result<Scan, Fault> {
        let disk = SimulatedDisk::new();
        let file: Arc<dyn StorageFile> = disk.create_file(Path::new(PATH)).unwrap();
        file.write_at(&self.bytes, 0).unwrap();
        let start = Scan::start(&header());
        scan(file.as_ref(), Path::new(PATH), &header(), start, SequenceNumber::new(durable))
    }

    fn scan(&self) -> Result<Scan, Fault> {
        self.scan_with(0)
    }

    /// Makes the frame of record `index` undecodable.
    fn damage(mut self, index: usize) -> Self {
        let position = self.positions[index];
        self.bytes[position + 20] ^= 0xff;
        self
    }

    fn zero(mut self, index: usize) -> Self {
        let range = self.positions[index]..self.positions[index + 1];
        self.bytes[range].fill(0);
        self
    }
}

#[track_caller]
fn assert_damaged(outcome: Result<Scan, Fault>, first: u64, last: u64) {
    let Err(Fault::Corrupt(damage)) = outcome else {
        panic!("not reported as damage: {outcome:?}");
    };
    assert_eq!(damage.first_sequence_number, Some(SequenceNumber::new(first)));
    assert_eq!(damage.last_sequence_number, Some(SequenceNumber::new(last)));
    assert_eq!(damage.shard_id, Some(ShardId::new(2)));
}

#[test]
fn a_whole_segment_is_read_to_its_end() {
    let image = image(&[1, 3, 1]);
    let found = image.scan().unwrap();
    assert_eq!(found.next, SequenceNumber::new(15));
    assert_eq!(found.end, *image.positions.last().unwrap() as u64);
    assert_eq!(found.bytes, 5 * 53);
    assert!(!found.torn);
    let starts: Vec<_> = found.starts.iter().map(|units| *units as usize * 8).collect();
    assert_eq!(starts, image.positions[..5]);
}

#[test]
fn an_empty_segment_is_empty() {
    let found = image(&[]).scan().unwrap();
    assert_eq!((found.starts.len(), found.next, found.torn), (0, header().first, false));
}

#[test]
fn the_last_record_torn_is_cut_off() {
    for broken in [image(&[1, 1]).damage(1), image(&[2]).damage(1)] {
        let found = broken.scan().unwrap();
        assert!(found.torn);
    }
    assert_eq!(image(&[1, 1]).damage(1).scan().unwrap().next, SequenceNumber::new(11));
}

#[test]
fn a_batch_that_is_not_whole_is_cut_off_whole() {
    let found = image(&[1, 3]).damage(3).scan().unwrap();
    assert_eq!(found.next, SequenceNumber::new(11));
    assert!(found.torn);
    assert_eq!(found.starts.len(), 1);
}

#[test]
fn a_later_record_of_the_same_group_proves_nothing() {
    // The sectors of one unsynced batch land in any order.
    for image in [image(&[1, 4]).damage(2), image(&[1, 4]).zero(1)] {
        let found = image.scan().unwrap();
        assert_eq!(found.next, SequenceNumber::new(11));
        assert!(found.torn);
    }
}

#[test]
fn a_later_record_that_vouches_for_the_damaged_one_proves_damage() {
    assert_damaged(image(&[1, 1, 1]).damage(1).scan(), 11, 11);
    assert_damaged(image(&[2, 1]).damage(0).scan(), 10, 11);
    assert_damaged(image(&[1, 1, 1]).zero(0).scan(), 10, 11);
}

#[test]
fn what_is_known_durable_from_elsewhere_proves_damage() {
    assert_damaged(image(&[1, 1]).damage(1).scan_with(12), 11, 11);
    assert!(image(&[1, 1]).damage(1).scan_with(11).is_ok());
    assert_damaged(image(&[1]).scan_with(12), 11, 11);
}

#[test]
fn frames_of_another_incarnation_are_nothing() {
    let mut other = image(&[1, 1]);
    let later = SegmentHeader { incarnation: 4, ..header() };
    other.bytes[..128].copy_from_slice(&later.encode());
    let disk = SimulatedDisk::new();
    let file = disk.create_file(Path::new(PATH)).unwrap();
    file.write_at(&other.bytes, 0).unwrap();
    let start = Scan::start(&later);
    let found = scan(file.as_ref(), Path::new(PATH), &later, start, SequenceNumber::ZERO).unwrap();
    assert_eq!(found.next, header().first);
    assert!(found.torn);
}

#[test]
fn a_read_error_is_never_the_end() {
    let disk = SimulatedDisk::new();
    let file = disk.create_file(Path::new(PATH)).unwrap();
    file.write_at(&image(&[1, 1]).bytes, 0).unwrap();
    disk.fail_at(0, crate::storage::DiskFault::Error(std::io::ErrorKind::Other));
    let start = Scan::start(&header());
    let outcome = scan(file.as_ref(), Path::new(PATH), &header(), start, SequenceNumber::ZERO);
    assert!(matches!(outcome, Err(Fault::Io { .. })), "{outcome:?}");
}

#[test]
fn data_that_imitates_some_hundred_frames_is_a_torn_tail() {
    // Every 16 bytes a header that claims a long frame with a number to come.
    let mut image = image(&[1]);
    let from = image.positions[1];
    for position in (from..).step_by(16).take(400) {
        image.bytes[position + 4..position + 8].copy_from_slice(&30_000u32.to_le_bytes());
        image.bytes[position + 8..position + 16].copy_from_slice(&20u64.to_le_bytes());
    }
    let found = image.scan().unwrap();
    assert_eq!((found.next.get(), found.torn), (11, true));
}

/// Which of so many is sound is not found out in bounded time: a silent cut would be the worse mistake.
#[test]
fn what_imitates_too_many_frames_is_damage() {
    let mut imitations = Vec::new();
    while imitations.len() < 4 * MIB {
        imitations.extend_from_slice(&1_u32.to_le_bytes());
        imitations.extend_from_slice(&0x10_0000_u32.to_le_bytes());
        imitations.extend_from_slice(&20_u64.to_le_bytes());
    }
    let (found, _) = scan_counted(&imitations);
    assert_damaged(found, 10, 10);
}

/// A batch cut short before zeros is a torn tail too.
#[test]
fn half_a_batch_before_zeros_is_torn() {
    let found = image(&[1, 2]).zero(2).scan().unwrap();
    assert_eq!((found.next.get(), found.torn), (11, true));
}

#[test]
fn damage_says_what_is_wrong_with_the_place() {
    let told = |image: Image| match image.scan_with(12) {
        Err(Fault::Corrupt(damage)) => damage.reason,
        other => panic!("{other:?}"),
    };
    assert!(told(image(&[1, 1, 1]).damage(1)).starts_with("a frame's checksum does not match"));
    assert!(told(image(&[1])).starts_with("zeros in the place of a record"));
    let mut long = image(&[1, 1, 1]);
    let length = long.positions[1] + 4;
    long.bytes[length..length + 4].fill(0xff);
    assert!(told(long).starts_with("a frame's length is impossible"));
}

/// A file that counts what is read of it.
#[derive(Debug)]
struct Counting {
    bytes: Vec<u8>,
    reads: std::sync::Mutex<Vec<(u64, usize)>>,
}

impl StorageFile for Counting {
    fn len(&self) -> std::io::Result<u64> {
        Ok(self.bytes.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> std::io::Result<usize> {
        self.reads.lock().unwrap().push((position, buffer.len()));
        let rest = self.bytes.get(usize::try_from(position).unwrap()..).unwrap_or_default();
        let count = buffer.len().min(rest.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, _: &[u8], _: u64) -> std::io::Result<()> {
        unreachable!("a scan changes nothing")
    }

    fn allocate(&self, _: u64) -> std::io::Result<()> {
        unreachable!("a scan changes nothing")
    }

    fn release(&self, _: std::ops::Range<u64>) -> std::io::Result<()> {
        unreachable!("a scan changes nothing")
    }

    fn sync(&self) -> std::io::Result<()> {
        unreachable!("a scan changes nothing")
    }

    fn map(&self, _: u64) -> std::io::Result<crate::storage::Map> {
        unreachable!("a scan takes no signal")
    }
}

const MIB: usize = 1 << 20;

/// Scans a segment of 8 MiB with these bytes behind its header; gives what was found and how it was read.
fn scan_counted(frames: &[u8]) -> (Result<Scan, Fault>, Vec<(u64, usize)>) {
    scan_counted_of(8 * MIB, frames)
}

fn scan_counted_of(file_bytes: usize, frames: &[u8]) -> (Result<Scan, Fault>, Vec<(u64, usize)>) {
    let header = SegmentHeader { file_bytes: file_bytes as u64, ..header() };
    let mut bytes = header.encode().to_vec();
    bytes.extend_from_slice(frames);
    bytes.resize(file_bytes, 0);
    let file = Counting { bytes, reads: std::sync::Mutex::default() };
    let found = scan(&file, Path::new(PATH), &header, Scan::start(&header), SequenceNumber::ZERO);
    (found, file.reads.into_inner().unwrap())
}

/// Each byte is read once, in pieces that grow: few calls for a large segment, few bytes for a short look.
#[test]
fn a_scan_reads_each_byte_about_once() {
    let mut frames = Vec::new();
    for number in 0..5_000 {
        let input = FrameInput {
            sequence_number: SequenceNumber::new(10 + number),
            arrival: Timestamp::from_millis(100),
            durable: SequenceNumber::ZERO,
            batch_remaining: 0,
            explicit_hash_key: None,
            producer: None,
            partition_key: "key",
            data: &[7; 1000],
        };
        encode_to(&mut frames, header().seed(), &input);
    }
    for (frames, records) in [(frames.as_slice(), 5_000), (&[], 0)] {
        let (found, reads) = scan_counted(frames);
        let found = found.unwrap();
        assert_eq!((found.starts.len(), found.torn), (records, false));
        let bytes: usize = reads.iter().map(|(_, count)| count).sum();
        assert!((8 * MIB - 512..8 * MIB + 16 * 1100).contains(&bytes), "{bytes} bytes in {} reads", reads.len());
        assert_eq!(reads[0], (SEGMENT_HEADER_BYTES as u64, 16 << 10));
        assert!(reads.len() <= 16, "{} reads", reads.len());
        assert!(reads.iter().all(|(_, count)| *count <= MIB), "{reads:?}");
        assert!(reads.windows(2).all(|pair| pair[0].0 < pair[1].0), "{reads:?}");
        assert!(
            reads.iter().all(|(position, count)| position + *count as u64 <= 8 * MIB as u64 - 128),
            "{reads:?}"
        );
    }
}

/// What claims a possible length and an impossible number, or more bytes than there is room, is not worth a checksum, and spends nothing of the budget.
#[test]
fn garbage_that_claims_the_impossible_is_a_torn_tail() {
    let first_impossible = 10 + (8 * MIB / FRAME_HEADER_BYTES) as u64 + 1;
    for (length, number) in [(2 * MIB, u64::MAX / 2), (2 * MIB, first_impossible), (8 * MIB, 20)] {
        let mut garbage = Vec::new();
        while garbage.len() < 4 * MIB {
            garbage.extend_from_slice(&1_u32.to_le_bytes());
            garbage.extend_from_slice(&u32::try_from(length).unwrap().to_le_bytes());
            garbage.extend_from_slice(&number.to_le_bytes());
        }
        let (found, _) = scan_counted(&garbage);
        let found = found.unwrap_or_else(|error| panic!("{length} bytes, number {number}: {error:?}"));
        assert_eq!((found.next, found.torn), (header().first, true));
    }
}

/// The budget grows with the segment, so that nothing that a writer puts there uses it up.
#[test]
fn a_torn_record_that_takes_most_of_a_segment_is_cut_off() {
    let number = SequenceNumber::new(11);
    let data = vec![0; 64 * MIB]; // zeros, which a look behind passes over fast
    let mut frames = Vec::new();
    encode_to(&mut frames, header().seed(), &frame());
    let torn = frames.len();
    encode_to(&mut frames, header().seed(), &FrameInput { sequence_number: number, data: &data, ..frame() });
    frames[torn + 20] ^= 0xff;
    let (found, _) = scan_counted_of(66 * MIB, &frames);
    let found = found.unwrap();
    assert_eq!((found.next, found.torn), (number, true));
}

/// However sound a frame is by itself.
#[test]
fn a_frame_out_of_its_order_ends_the_frames() {
    let numbered = |number| FrameInput { sequence_number: SequenceNumber::new(number), ..frame() };
    let of_batch = |number, batch_remaining| FrameInput { batch_remaining, ..numbered(number) };
    for (behind, why) in [
        (vec![numbered(12)], "a number is left out"),
        (vec![numbered(10)], "a number comes again"),
        (vec![FrameInput { arrival: Timestamp::from_millis(99), ..numbered(11) }], "it arrived before the first"),
        (vec![of_batch(11, 1), of_batch(12, 1), of_batch(13, 0)], "a batch does not count down"),
    ] {
        let found = image_of(&[vec![frame()], behind].concat()).scan().unwrap();
        assert_eq!((found.next, found.torn), (SequenceNumber::new(11), true), "{why}");
    }
}

/// A writer never goes into the room that the index will need. Frames of this size come to within four bytes of it: one entry of the index decides.
#[test]
fn frames_end_where_the_index_needs_the_room() {
    let numbered = |number| FrameInput { sequence_number: SequenceNumber::new(number), data: &[7; 29], ..frame() };
    let frames: Vec<_> = (10..880).map(numbered).collect();
    let image = image_of(&frames);
    let room = FILE_BYTES - 2 * SEGMENT_HEADER_BYTES; // the footer is as long as the header
    let fit =
        (0..frames.len()).take_while(|count| count * frames[0].size() + index_bytes(*count) <= room).count() - 1;
    assert_eq!(image.scan().unwrap().starts.len(), fit);
    assert!(fit < frames.len(), "more would fit without an index");
}

/// However many records are missing in between: the search gives none up for its number while that is possible.
#[test]
fn a_record_far_behind_the_damage_proves_it() {
    let image = (5..600).fold(image(&[1; 620]), Image::zero);
    assert_damaged(image.scan(), 15, 628);
}

/// A checksum begins with a zero as with any other byte: not all zeros in front of a frame's length are room.
#[test]
fn a_frame_that_begins_with_a_zero_is_found_behind_zeros() {
    let number = SequenceNumber::new;
    let arrived = |millis| FrameInput {
        sequence_number: number(12),
        durable: number(12),
        arrival: Timestamp::from_millis(millis),
        ..frame()
    };
    let begins_with_zero = |input: &FrameInput<'_>| image_of(&[*input]).bytes[SEGMENT_HEADER_BYTES] == 0;
    let vouches = (100..10_000).map(arrived).find(begins_with_zero).unwrap();
    let image = image_of(&[frame(), FrameInput { sequence_number: number(11), ..frame() }, vouches]).zero(1);
    assert_damaged(image.scan(), 11, 11);
}
