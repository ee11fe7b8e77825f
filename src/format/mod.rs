//! The on-disk format, version 1: bytes to values and back. Pure: no I/O, no clock, no panic on any input.
//!
//! All integers are little-endian. All checksums are CRC-32 (ISO-HDLC, as in zlib). A stream is a directory:
//!
//! ```text
//! clicks/
//!   LOCK                                  the writer's lock; empty
//!   MANIFEST                              options and shards; replaced whole
//!   WATERMARK                             per shard, what is known durable
//!   STAGING                               frames on their way to a segment, while a `Buffered` stream is open
//!   shards/000000000007/                  one directory a shard
//!     00000000000000000000.seg            a segment, named by its first sequence number
//!     00000000000000031402.seg
//!   consumers/billing                     how far a consumer is in each shard, and who works on it
//!   consumers/~billing~~CHILD~PARENT      tumbling windows that were open when a shard ended, for one of its children
//!   queues/orders                         what is not done of a queue; replaced whole
//! ```
//!
//! # Segment
//!
//! One self-describing file of fixed length: header, frames, room; once sealed, an index and what is known of producers behind the
//! frames, and a footer in the file's last 128 bytes.
//!
//! ```text
//! | header 128 | frame | frame | ... | index | producers | (room, given back) | footer 128 |
//!                                    ^ frames end                             ^ file length - 128
//! ```
//!
//! Every segment belongs to one **incarnation** of its stream: the number, kept in the manifest, that each
//! writable opening raises. Stream, shard, incarnation and first sequence number seed the checksums
//! of the segment's frames, index and footer, so that bytes of another file or another life never pass for its own.
//!
//! ## Header
//!
//! ```text
//!   0  8  magic "ANABRSEG"
//!   8  4  format version (1)
//!  12  4  checksum kind (1 = CRC-32)
//!  16 16  stream id
//!  32  4  shard id
//!  36  4  0
//!  40  8  incarnation
//!  48  8  first sequence number
//!  56  8  time of creation, ms since 1970
//!  64  8  file length
//!  72 52  0
//! 124  4  CRC-32 of bytes 0 to 123
//! ```
//!
//! ## Frame
//!
//! One record. Frames start at multiples of 8.
//!
//! ```text
//!   0  4  CRC-32, seeded, of everything behind it, padding included
//!   4  4  length: header to end of data, without padding
//!   8  8  sequence number
//!  16  8  arrival time, ms since 1970
//!  24  8  durable watermark: all records of the shard below this number were durable when this was written
//!  32  4  records of the same batch that follow this one
//!  36  2  partition key length in bytes
//!  38  1  flags: 1 = explicit hash key, 2 = producer stamp
//!  39  1  0
//!  40     [explicit hash key, 16] [producer id 8, epoch 4, zero 4, batch number 8]
//!         partition key (UTF-8), data, zeros to a multiple of 8
//! ```
//!
//! Eight zero bytes where a frame should start mean that nothing was written there. The **watermark** is what tells
//! a torn tail from damage: if the place of record *n* does not decode and any later frame says that *n* was
//! durable, the file is damaged; otherwise the write of *n* was never acknowledged and was cut short. The
//! count of **records that follow** makes a batch whole: a tail that ends inside a batch is cut before it. The **producer stamp** of a
//! batch stands in its first frame.
//!
//! ## Index and footer
//!
//! The index holds, for each record, its frame's position divided by 8 as a 32-bit number, padded to a multiple of 8 bytes: finding a record
//! by its sequence number is one step, by its arrival time a binary search.
//!
//! ```text
//!   0  8  magic "ANABREND"
//!   8  4  format version (1)
//!  12  4  why it was sealed: 1 = rolled, a successor exists; 2 = closed, it may be the shard's last;
//!        3 = lost: a repair made it to stand for records that are gone; it has neither frames nor index
//!  16  8  first sequence number
//!  24  8  count of records, at least 1
//!  32  8  frames end
//!  40  8  index position
//!  48  8  first arrival time
//!  56  8  last arrival time
//!  64  8  bytes of keys and data
//!  72  4  CRC-32, seeded, of the index
//!  76  4  count of entries in the section about producers
//!  80  4  CRC-32, seeded, of that section; 0 where it has none
//!  84 40  0
//! 124  4  CRC-32, seeded, of bytes 0 to 123
//! ```
//!
//! ## Producers
//!
//! What the shard knew of the last batch of each producer when the segment was sealed: of its own batches, and of those that it inherited from its parents.
//! So whoever opens it reads this section and the stamps of what stands behind it, however long the log is. Entries of 72 bytes, by ascending producer
//! and range:
//!
//! ```text
//!   0  8  producer id
//!   8  8  batch number
//!  16  4  shard that took this part of the batch
//!  20  4  count of its records, at least 1
//!  24  8  sequence number of the first of them
//!  32  8  arrival time
//!  40 16  first hash key of the range whose records of the batch these are
//!  56 16  last hash key
//! ```
//!
//! # WATERMARK
//!
//! One slot of 16 bytes for each shard id, written after each sync of a shard, and synced only by a clean close:
//!
//! ```text
//!   0  8  all sequence numbers below this one are durable
//!   8  4  CRC-32 of stream id, shard id and the number above
//!  12  4  0
//! ```
//!
//! It bounds what followers in other processes are shown, and is a second witness against damage at the very
//! end of a log. Since it is written only *after* a sync, it is never ahead of the data; a slot of zeros, or one that does
//! not pass its checksum, claims nothing.
//!
//! # STAGING
//!
//! Where frames of `Buffered` shards gather before a larger piece is written to their segment: a file that is mapped and stored to, and so keeps
//! what is in it when the process dies. It is made anew by every writable opening that needs it, never synced, removed by a
//! clean close, and means nothing after one. Slots start at multiples of 1024:
//!
//! ```text
//!   0  8  magic "ANABRSTG"
//!   8  4  format version (1)
//!  12  4  length of the slot, this header included
//!  16 16  stream id
//!  32  4  shard id
//!  36  4  0
//!  40  8  incarnation
//!  48  8  first sequence number of the segment
//!  56  4  0
//!  60  4  CRC-32 of bytes 0 to 59
//!  64     frames, as they will stand in the segment
//! ```
//!
//! A slot's frames are those from its front on whose checksums hold (seeded as the segment's) and whose numbers follow one another. When they were
//! written to the segment, the next ones are stored over them. So what recovery finds there is old, and in the segment
//! already, or continues the segment exactly where its frames end; nothing else is taken.
//!
//! # consumers/NAME
//!
//! A header, and one slot of three copies for each shard. What is written again is always a copy that nobody needs any more, so that a write
//! that is cut short never takes an older value with it. The file is made under another name, synced, and renamed.
//!
//! ```text
//! | header 256 | slot 768 | slot 768 | ...        slot: | copy 256 | copy 256 | copy 256 |
//! ```
//!
//! ## Header
//!
//! ```text
//!   0  8  magic "ANABRCON"
//!   8  4  format version (1)
//!  12  4  length of the name
//!  16 16  stream id
//!  32 16  file id, drawn when the file is made
//!  48  8  time of creation, ms since 1970
//!  56 128 name, zeros behind it
//! 184  4  count of slots that the file was made with
//! 188 56  0
//! 244  4  CRC-32 of bytes 0 to 243
//! 248  8  0; "DELETED", 0 in a file whose consumer was deleted: who has it open is told
//! ```
//!
//! ## Copy of a slot
//!
//! ```text
//!   0  4  CRC-32, seeded with stream id, file id and the slot's place, of everything behind it
//!   4  4  shard id
//!   8  8  version: raised by every write to the slot; the sound copy with the highest is in force
//!  16  8  durable version: the copies up to this version were durable when this one was written
//!  24  4  flags: 1 = it is acknowledged after a sync only
//!  28  4  position: 1 = trim horizon, 2 = time, 3 = behind a record, 4 = behind a part of a record, 5 = behind the shard's end
//!  32  8  sequence number of that record, the number behind the shard's last record, or the time in ms since 1970
//!  40  8  sub-sequence number of the part
//!  48  8  incarnation of the record, or of the opening at the shard's end
//!  56  8  owner epoch: raised by every change of owner and by every reset
//!  64  8  renewals of the lease
//!  72  8  how long the lease lasts without one, in ms; 0 = no end
//!  80  4  length of the owner's name
//!  84  4  count of slots that the file was known to have when this was written
//!  88 128 owner's name, zeros behind it
//! 216 40  0
//! ```
//!
//! A write goes to a copy that is neither the one in force nor the newest that is known durable. See the room `leases` for how that is known.
//! A file that ends before the last slot that its header or a sound copy counts is damaged.
//!
//! # consumers/~NAME~~CHILD~PARENT
//!
//! The states of an event source's tumbling windows that were open at the end of a shard, for one of its children. Both shards as 12 digits; written once, whole, by
//! write, sync, rename, sync of the directory, before the parent is finished; removed when the child has closed them.
//!
//! ```text
//!   0  8  magic "ANABRWIN"
//!   8  4  format version (1)
//!  12  4  count of states
//!  16 16  stream id
//!  32 16  file id of the consumer
//!  48  4  shard id of the child
//!  52  4  shard id of the parent
//!  56  8  0
//!  64     states, by ascending window, hash key and partition key:
//!           0  8  start of the window, ms since 1970
//!           8  8  its end
//!          16 16  hash key
//!          32  4  length of the partition key
//!          36  4  length of the state, at least 1
//!          40     partition key (UTF-8), state
//!      4  CRC-32 of everything before
//! ```
//!
//! # queues/NAME
//!
//! What a queue keeps: for each shard the first number that was never received, and the records below it that are not acknowledged. Replaced whole by
//! write, sync, rename, sync of the directory.
//!
//! ```text
//!   0  8  magic "ANABRQUE"
//!   8  4  format version (1)
//!  12  4  length of the name
//!  16 16  stream id
//!  32  8  time of creation, ms since 1970
//!  40  4  count of shards
//!  44  4  count of records, over all shards
//!  48 128 name, zeros behind it
//! 176 16  0
//! 192     shards, by ascending id
//!      4  CRC-32 of everything before
//! ```
//!
//! A shard, and its records by ascending number, all below the first one:
//!
//! ```text
//!   0  4  shard id
//!   4  4  count of records
//!   8  8  first number that was never received
//!  16     records of 24 bytes:
//!           0  8  sequence number
//!           8  8  when it was received first, ms since 1970
//!          16  4  how often it was received since it was restored last
//!          20  4  flags: 1 = set aside
//! ```
//!
//! # MANIFEST
//!
//! Replaced whole by write, sync, rename, sync of the directory: the commit point of creation, of every reshard,
//! of trimming and of option changes. See `manifest.rs` for its fields. It ends in a CRC-32 of all that stands before.
//!
//! # Versions
//!
//! A file whose version is not known is refused by a typed error. Every released version keeps a
//! fixture that the tests open.

mod checkpoint;
mod frame;
mod manifest;
mod producers;
mod queue;
mod reader;
mod segment;
mod staging;
mod watermark;
mod whole;
mod windows;

pub(crate) use checkpoint::{
    COPIES, COPY_BYTES, ConsumerHeader, ConsumerHeaderError, DELETED_MARK, HEADER_BYTES as CONSUMER_HEADER_BYTES,
    MARK_POSITION, SLOT_BYTES as CONSUMER_SLOT_BYTES, SlotCopy, SlotState, StoredPosition,
};
pub(crate) use frame::{
    Frame, FrameError, FrameInput, HEADER_BYTES as FRAME_HEADER_BYTES, ProducerStamp, RawFrame, STAMP_BYTES,
    encode, encode_to, frame_bytes,
};
pub(crate) use manifest::{ClosedShard, ManifestError, ManifestState, ProducerEntry, ShardEntry, StreamOptions};
pub(crate) use producers::{PART_BYTES, ProducerPart, decode_parts, encode_parts, section_bytes};
pub(crate) use queue::{
    HEADER_BYTES as QUEUE_HEADER_BYTES, MAX_FILE_BYTES as MAX_QUEUE_FILE_BYTES, QueueRecord, QueueShard,
    QueueSnapshot,
};
pub(crate) use segment::{
    FOOTER_BYTES, Footer, HEADER_BYTES as SEGMENT_HEADER_BYTES, HeaderError, SealKind, SegmentHeader, index_bytes,
    parse_segment_name, segment_name,
};
pub(crate) use staging::{HEADER_BYTES as SLOT_HEADER_BYTES, SlotHeader};
pub(crate) use watermark::{SLOT_BYTES as WATERMARK_SLOT_BYTES, decode_slot, encode_slot};
pub(crate) use whole::WholeFileError;
pub(crate) use windows::{MAX_FILE_BYTES as MAX_WINDOWS_FILE_BYTES, WindowState, WindowsSnapshot};

/// A count as it is stored; those that are stored are bounded far below.
fn u32_of(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The format version this release writes, and the only one it reads.
pub const FORMAT_VERSION: u32 = 1;

/// The seed of a segment's checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seed(u32);

impl Seed {
    /// CRC-32 of `bytes`, started from this seed.
    #[inline]
    pub(crate) fn checksum(self, bytes: &[u8]) -> u32 {
        self.checker().checksum(bytes)
    }

    /// For many checksums in a row: what the processor can do is asked once.
    #[inline]
    pub(crate) fn checker(self) -> Checker {
        Checker(crc32fast::Hasher::new_with_initial(self.0))
    }
}

/// Computes checksums from a seed.
#[derive(Debug, Clone)]
pub(crate) struct Checker(crc32fast::Hasher);

impl Checker {
    /// CRC-32 of `bytes`, started from the seed.
    #[inline]
    pub(crate) fn checksum(&self, bytes: &[u8]) -> u32 {
        let mut hasher = self.0.clone();
        hasher.update(bytes);
        hasher.finalize()
    }
}

/// Rounds up to the next multiple of 8.
pub(crate) const fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(8)
}
