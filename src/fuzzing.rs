//! The bodies of the fuzz targets: for the fuzzers in `fuzz/`, and for the test that runs the bodies over their
//! corpora. Not part of the library's interface.
//!
//! Each body takes the fuzzer's bytes and panics where a promise does not hold. They are here because they need
//! the decoders themselves; what they find in the public interface they find through it.
#![allow(clippy::missing_panics_doc, reason = "that is what they do")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a body is a test")]

mod input;
mod operations;
mod recover;
mod repair;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;
use crate::event_source::FailedBatch;
use crate::format::{
    CONSUMER_HEADER_BYTES, CONSUMER_SLOT_BYTES, COPY_BYTES, ConsumerHeader, FOOTER_BYTES, Footer, Frame,
    FrameInput, MARK_POSITION, ManifestState, QUEUE_HEADER_BYTES, QueueSnapshot, RawFrame, SEGMENT_HEADER_BYTES,
    SLOT_HEADER_BYTES, Seed, SegmentHeader, SlotCopy, SlotHeader, WATERMARK_SLOT_BYTES, WindowsSnapshot,
    decode_slot, encode_slot, encode_to,
};
use crate::queue::QueueOptions;
use crate::shard::{STAGING_FILE, Staged};
use crate::storage::{Crash, SimulatedDisk, Storage};
use crate::stream::Stream;
use crate::types::{SequenceNumber, ShardId, StreamId, Timestamp};

pub use input::{Input, random_input};
pub use operations::operations;
pub use recover::recover_segment;
pub use repair::repair;

/// The stream that all bytes given to the decoders are said to be of.
const STREAM_ID: StreamId = StreamId::new(0x5eed);
const SHARD_ID: ShardId = ShardId::new(0);

/// Arbitrary bytes to each decoder: none panics, and what decodes is encoded to the same bytes again.
///
/// The first byte selects the decoder, and whether the checksum is put right before.
pub fn decode(input: &[u8]) {
    let Some((selector, bytes)) = input.split_first() else {
        return;
    };
    let mut bytes = bytes.to_vec();
    let mend = selector & 0x80 != 0;
    match selector & 0x7f {
        0 => decode_frame(&mut bytes, mend),
        1 => decode_header(&mut bytes, mend),
        2 => decode_footer(&mut bytes, mend),
        3 => decode_manifest(&mut bytes, mend),
        5 => decode_staging(&mut bytes, mend),
        6 => decode_consumer(&mut bytes, mend),
        7 => decode_consumer_slot(&mut bytes, mend),
        8 => open_consumer(&bytes, mend),
        9 => decode_windows(&mut bytes, mend),
        10 => read_failed_batch(&bytes),
        11 => decode_queue(&mut bytes, mend),
        12 => open_queue(&bytes, mend),
        _ => decode_watermark(&mut bytes, mend),
    }
}

fn header() -> SegmentHeader {
    SegmentHeader {
        stream_id: STREAM_ID,
        shard_id: SHARD_ID,
        incarnation: 3,
        first: SequenceNumber::ZERO,
        created: Timestamp::from_millis(1_000),
        file_bytes: 4_096,
    }
}

fn decode_frame(bytes: &mut [u8], mend: bool) {
    let seed = header().seed();
    if mend {
        mend_frame(bytes, seed);
    }
    let _ = Frame::claimed_sequence_number(bytes);
    let _ = RawFrame::split(bytes).map(|raw| raw.decode());
    let Ok(frame) = Frame::decode(bytes, seed) else {
        return;
    };
    let mut again = Vec::new();
    encode_to(
        &mut again,
        seed,
        &FrameInput {
            sequence_number: frame.sequence_number,
            arrival: frame.arrival,
            durable: frame.durable,
            batch_remaining: frame.batch_remaining,
            explicit_hash_key: frame.explicit_hash_key,
            producer: frame.producer,
            partition_key: frame.partition_key,
            data: frame.data,
        },
    );
    assert_eq!(bytes.get(..frame.size), Some(&again[..]), "{frame:?}");
    assert_eq!(RawFrame::split(bytes).and_then(|raw| raw.decode()), Some(frame));
}

/// Puts the checksum of the frame in front right, and gives the frame's size.
fn mend_frame(bytes: &mut [u8], seed: Seed) -> Option<usize> {
    let size = Frame::size_at(bytes).ok()?;
    let frame = bytes.get_mut(..size)?;
    let checksum = seed.checksum(&frame[4..]);
    frame[..4].copy_from_slice(&checksum.to_le_bytes());
    Some(size)
}

/// Puts a checksum right that stands in the last four bytes of `bytes`.
fn mend_tail(bytes: &mut [u8], checksum: impl Fn(&[u8]) -> u32) {
    if let Some((checked, tail)) = bytes.split_last_chunk_mut::<4>() {
        *tail = checksum(checked).to_le_bytes();
    }
}

fn decode_header(bytes: &mut [u8], mend: bool) {
    let Some(bytes) = bytes.first_chunk_mut::<SEGMENT_HEADER_BYTES>() else {
        return;
    };
    if mend {
        mend_tail(bytes, crc32fast::hash);
    }
    if let Ok(header) = SegmentHeader::decode(bytes) {
        assert_eq!(header.encode(), *bytes, "{header:?}");
    }
}

fn decode_footer(bytes: &mut [u8], mend: bool) {
    let Some(bytes) = bytes.first_chunk_mut::<FOOTER_BYTES>() else {
        return;
    };
    let header = header();
    if mend {
        mend_tail(bytes, |checked| header.seed().checksum(checked));
    }
    if let Some(footer) = Footer::decode(bytes, &header) {
        assert_eq!(footer.encode(header.seed()), *bytes, "{footer:?}");
        assert!(footer.next() > footer.first);
    }
}

fn decode_watermark(bytes: &mut [u8], mend: bool) {
    let Some(slot) = bytes.first_chunk_mut::<WATERMARK_SLOT_BYTES>() else {
        return;
    };
    if mend {
        let durable = slot.first_chunk().copied().map_or(0, u64::from_le_bytes);
        let whole = encode_slot(STREAM_ID, SHARD_ID, SequenceNumber::new(durable));
        slot[8..12].copy_from_slice(&whole[8..12]);
    }
    if let Some(durable) = decode_slot(slot, STREAM_ID, SHARD_ID) {
        assert_eq!(encode_slot(STREAM_ID, SHARD_ID, durable), *slot);
    }
}

fn decode_staging(bytes: &mut [u8], mend: bool) {
    let Some(front) = bytes.first_chunk_mut::<SLOT_HEADER_BYTES>() else {
        return;
    };
    if mend {
        mend_tail(front, crc32fast::hash);
    }
    let front = *front;
    let Some(slot) = SlotHeader::decode(&front) else {
        return;
    };
    assert_eq!(slot.encode(), front, "{slot:?}");
    let SlotHeader { stream_id, shard_id, incarnation, first, .. } = slot;
    let segment = SegmentHeader { stream_id, shard_id, incarnation, first, ..header() };
    let mut position = SLOT_HEADER_BYTES;
    while mend && let Some(size) = mend_frame(&mut bytes[position..], segment.seed()) {
        position += size;
    }
    take_staged(&segment, bytes);
}

/// What recovery takes from a file with this slot in front: whole sound frames that follow one another, whatever the file says.
fn take_staged(segment: &SegmentHeader, file: &[u8]) {
    let disk = SimulatedDisk::new();
    write_file(&disk, STAGING_FILE, file);
    let staged = Staged::load(&disk, Path::new("/")).unwrap();
    let mut frames = staged.continuing(segment, segment.first);
    let mut next = segment.first;
    while !frames.is_empty() {
        let frame = Frame::decode(frames, segment.seed()).unwrap();
        assert_eq!(frame.sequence_number, next);
        next = next.next();
        frames = &frames[frame.size..];
        assert!(!frames.is_empty() || frame.batch_remaining == 0, "a batch is taken whole");
    }
}

fn consumer_header() -> ConsumerHeader {
    ConsumerHeader {
        stream_id: STREAM_ID,
        file_id: 7,
        created: Timestamp::from_millis(1_000),
        name: "consumer".to_owned(),
        slots: 1,
    }
}

fn decode_consumer(bytes: &mut [u8], mend: bool) {
    let Some(front) = bytes.first_chunk_mut::<CONSUMER_HEADER_BYTES>() else {
        return;
    };
    if mend {
        mend_tail(&mut front[..MARK_POSITION], crc32fast::hash);
    }
    if let Ok(header) = ConsumerHeader::decode(front) {
        assert_eq!(header.encode()[..MARK_POSITION], front[..MARK_POSITION], "{header:?}");
    }
}

fn decode_consumer_slot(bytes: &mut [u8], mend: bool) {
    let Some(copy) = bytes.first_chunk_mut::<COPY_BYTES>() else {
        return;
    };
    let seed = consumer_header().seed(0);
    if mend {
        mend_copy(copy, seed);
    }
    if let Some(decoded) = SlotCopy::decode(copy, seed) {
        assert_eq!(decoded.encode(seed), *copy, "{decoded:?}");
    }
}

fn mend_copy(copy: &mut [u8], seed: Seed) {
    if let Some((stored, rest)) = copy.split_first_chunk_mut::<4>() {
        *stored = seed.checksum(rest).to_le_bytes();
    }
}

/// A consumer's file with these slots, whatever they say: it is used, or refused by a typed error, and a repair makes it usable.
fn open_consumer(bytes: &[u8], mend: bool) {
    let disk = SimulatedDisk::new();
    let stream = builder(&disk).shards(2).create("/").unwrap();
    stream.put("key", b"data").unwrap();
    drop(stream.consumer("consumer").unwrap());
    let path = Path::new("consumers/consumer");
    disk.damage(path, |file| {
        let header = file.first_chunk().and_then(|front| ConsumerHeader::decode(front).ok());
        file.truncate(CONSUMER_HEADER_BYTES);
        file.extend_from_slice(bytes);
        for (slot, copies) in (0..).zip(file[CONSUMER_HEADER_BYTES..].chunks_mut(CONSUMER_SLOT_BYTES)) {
            let seed = header.as_ref().unwrap().seed(slot);
            copies.chunks_mut(COPY_BYTES).filter(|_| mend).for_each(|copy| mend_copy(copy, seed));
        }
    })
    .unwrap();
    if use_consumer(&stream).is_err() {
        stream.close().unwrap();
        crate::stream::repair("/", Some(Arc::new(disk.clone()))).unwrap();
        use_consumer(&builder(&disk).open("/").unwrap()).unwrap();
    }
}

/// The only errors that a damaged file may lead to, as far as a repair can mend them.
fn use_consumer(stream: &Stream) -> crate::error::Result<()> {
    let consumer = stream.consumer("consumer")?;
    for checkpoint in consumer.checkpoints()? {
        // A position may claim anything, under a right checksum; it is damage to nothing else.
        let _ = consumer.iterator(checkpoint.shard_id).map(|mut iterator| iterator.available().count());
        let taken = consumer.take(checkpoint.shard_id, "worker");
        let Ok(lease) = taken else { continue };
        let _ = lease.checkpoint_at(SequenceNumber::ZERO);
        lease.release()?;
    }
    consumer.reset(crate::stream::RecordsStart::TrimHorizon)
}

fn decode_queue(bytes: &mut [u8], mend: bool) {
    if mend {
        mend_tail(bytes, crc32fast::hash);
    }
    if let Ok(snapshot) = QueueSnapshot::decode(bytes) {
        assert_eq!(snapshot.encode(), bytes, "{snapshot:?}");
    }
}

/// A queue's file of this stream that says whatever it says behind its name: it is used, or refused by a typed error, and a repair makes way for another.
fn open_queue(bytes: &[u8], mend: bool) {
    let disk = SimulatedDisk::new();
    let stream = builder(&disk).shards(2).create("/").unwrap();
    for _ in 0..4 {
        stream.put("key", b"data").unwrap();
    }
    let queue = stream.queue("queue", QueueOptions::new()).unwrap();
    assert_eq!(queue.receive(2, Duration::ZERO).unwrap().len(), 2);
    queue.sync().unwrap();
    drop(queue);
    stream.close().unwrap();
    let path = Path::new("queues/queue");
    disk.damage(path, |file| {
        let front = file.len().min(QUEUE_HEADER_BYTES);
        file.truncate(front);
        file[40..48].copy_from_slice(&bytes.first_chunk().copied().unwrap_or([0; 8])); // how many shards and records
        file.extend_from_slice(bytes.get(8..).unwrap_or_default());
        if mend {
            mend_tail(file, crc32fast::hash);
        }
    })
    .unwrap();
    let stream = builder(&disk).open("/").unwrap();
    if use_queue(&stream).is_err() {
        stream.close().unwrap();
        crate::stream::repair("/", Some(Arc::new(disk.clone()))).unwrap();
        use_queue(&builder(&disk).open("/").unwrap()).unwrap();
    }
}

/// The only errors that a damaged file may lead to, as far as a repair can mend them.
fn use_queue(stream: &Stream) -> crate::error::Result<()> {
    let queue = stream.queue("queue", QueueOptions::new())?;
    queue.restore_all()?;
    for received in queue.receive(100, Duration::ZERO)? {
        assert_eq!(received.record.data(), b"data");
        queue.acknowledge(&received)?;
    }
    queue.describe()?;
    queue.sync()
}

fn decode_windows(bytes: &mut [u8], mend: bool) {
    if mend {
        mend_tail(bytes, crc32fast::hash);
    }
    if let Ok(windows) = WindowsSnapshot::decode(bytes) {
        assert_eq!(windows.encode(), bytes, "{windows:?}");
    }
}

/// There are many ways to write the same, and what is read can be written.
fn read_failed_batch(bytes: &[u8]) {
    if let Ok(failed) = FailedBatch::from_bytes(bytes) {
        assert_eq!(FailedBatch::from_bytes(failed.to_json().as_bytes()).unwrap(), failed);
    }
}

fn decode_manifest(bytes: &mut [u8], mend: bool) {
    if mend {
        mend_tail(bytes, crc32fast::hash);
    }
    if let Ok(state) = ManifestState::decode(bytes) {
        assert_eq!(state.encode(), bytes, "{state:?}");
        open_manifest(&state, bytes);
    }
}

/// A manifest that decodes may still promise what is not there: opening gives a stream that works, or a typed error.
fn open_manifest(state: &ManifestState, bytes: &[u8]) {
    let disk = SimulatedDisk::new();
    write_file(&disk, "MANIFEST", bytes);
    write_file(&disk, "WATERMARK", &[]);
    disk.create_dir(Path::new("shards")).unwrap();
    for shard in state.shards.iter().take(8) {
        disk.create_dir(&Path::new("shards").join(shard.id.directory())).unwrap();
    }
    disk.sync_dir(Path::new("shards")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    let beside = disk.fork(Crash::ProcessKilled);
    if let Ok(stream) = builder(&beside).open_read_only("/") {
        let _ = stream.describe();
    }
    if let Ok(stream) = builder(&disk).open_existing("/") {
        let _ = stream.put("key", b"data");
        let _ = stream.describe();
        let _ = stream.close();
    }
}

/// A stream on this disk that does the same at every run.
fn builder(disk: &SimulatedDisk) -> crate::stream::StreamBuilder {
    Stream::builder()
        .storage(Arc::new(disk.clone()))
        .clock(Arc::new(crate::clock::ManualClock::default()))
        .background(false)
}

fn write_file(disk: &SimulatedDisk, path: &str, bytes: &[u8]) {
    let file = disk.create_file(Path::new(path)).unwrap();
    file.write_at(bytes, 0).unwrap();
    file.sync().unwrap();
}

/// A record as the bodies compare it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    number: u64,
    key: String,
    data: Vec<u8>,
}

/// All that a reader of the shard is shown from its trim horizon on, and what stopped it if it was not the tail.
fn read_shard(stream: &Stream, shard_id: ShardId) -> (Vec<Seen>, Option<Error>) {
    let mut seen = Vec::new();
    let mut iterator = match stream.shard_iterator(shard_id, crate::ShardIteratorType::TrimHorizon) {
        Ok(iterator) => iterator,
        Err(error) => return (seen, Some(error)),
    };
    loop {
        match iterator.next_batch() {
            Ok(batch) if batch.is_empty() => return (seen, None),
            Ok(batch) => seen.extend(batch.map(|record| Seen {
                number: record.sequence_number().get(),
                key: record.partition_key().to_owned(),
                data: record.data().to_vec(),
            })),
            Err(error) => return (seen, Some(error)),
        }
    }
}
