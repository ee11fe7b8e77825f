//! Records as readers get them: borrowed from a segment's map, or sharing it.

use std::fmt;
use std::sync::Arc;

use super::read::Segment;
use crate::format::RawFrame;
use crate::types::{HashKey, SequenceNumber, ShardId, Timestamp};

/// A record that was read. It shares the segment's map: no bytes are copied, clones are cheap, and it stays
/// valid after the segment expired and after the stream was closed.
#[derive(Clone)]
pub struct Record {
    segment: Arc<Segment>,
    sequence_number: SequenceNumber,
    arrival: Timestamp,
    explicit_hash_key: Option<HashKey>,
    /// Where the key starts.
    start: usize,
    key_bytes: usize,
    data_bytes: usize,
}

impl Record {
    /// The record of a frame that was checked in this segment's map, and ends there.
    #[inline]
    pub(crate) fn new(segment: &Arc<Segment>, frame: &RawFrame<'_>, frame_end: usize) -> Self {
        let (key_bytes, data_bytes) = (frame.partition_key().len(), frame.data().len());
        Self {
            segment: Arc::clone(segment),
            sequence_number: frame.sequence_number(),
            arrival: frame.arrival(),
            explicit_hash_key: frame.explicit_hash_key(),
            start: frame_end - frame.padding() - data_bytes - key_bytes,
            key_bytes,
            data_bytes,
        }
    }

    /// The shard that the record is in.
    pub fn shard_id(&self) -> ShardId {
        self.segment.shard_id()
    }

    /// Its place in the shard.
    #[inline]
    pub fn sequence_number(&self) -> SequenceNumber {
        self.sequence_number
    }

    /// When the library took it. Never falls inside a shard, whatever the clock does.
    #[inline]
    pub fn arrival(&self) -> Timestamp {
        self.arrival
    }

    /// The key that it was put under.
    #[inline]
    pub fn partition_key(&self) -> &str {
        let bytes = self.segment.map().bytes(self.start..self.start + self.key_bytes).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default() // was checked when the frame was
    }

    /// Its bytes.
    #[inline]
    pub fn data(&self) -> &[u8] {
        let start = self.start + self.key_bytes;
        self.segment.map().bytes(start..start + self.data_bytes).unwrap_or_default()
    }

    /// The hash key that was given in place of its partition key's, if one was.
    pub fn explicit_hash_key(&self) -> Option<HashKey> {
        self.explicit_hash_key
    }

    /// The writable opening of the stream in which it was put: 1 for the first. A record that a power cut took from
    /// a `Buffered` stream may leave its number to another one; that one has a higher incarnation.
    pub fn incarnation(&self) -> u64 {
        self.segment.header().incarnation
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("shard_id", &self.shard_id())
            .field("sequence_number", &self.sequence_number)
            .field("arrival", &self.arrival)
            .field("partition_key", &self.partition_key())
            .field("data_bytes", &self.data_bytes)
            .finish_non_exhaustive()
    }
}

/// A record of a [`RecordBatch`], borrowed from the map.
#[derive(Clone, Copy)]
pub struct RecordRef<'a> {
    segment: &'a Arc<Segment>,
    frame: RawFrame<'a>,
    frame_end: usize,
}

impl<'a> RecordRef<'a> {
    /// The shard that the record is in.
    #[inline]
    pub fn shard_id(&self) -> ShardId {
        self.segment.shard_id()
    }

    /// Its place in the shard.
    #[inline]
    pub fn sequence_number(&self) -> SequenceNumber {
        self.frame.sequence_number()
    }

    /// When the library took it.
    #[inline]
    pub fn arrival(&self) -> Timestamp {
        self.frame.arrival()
    }

    /// The key that it was put under.
    #[inline]
    pub fn partition_key(&self) -> &'a str {
        std::str::from_utf8(self.frame.partition_key()).unwrap_or_default() // was checked when the frame was
    }

    /// Its bytes.
    #[inline]
    pub fn data(&self) -> &'a [u8] {
        self.frame.data()
    }

    /// The hash key that was given in place of its partition key's, if one was.
    #[inline]
    pub fn explicit_hash_key(&self) -> Option<HashKey> {
        self.frame.explicit_hash_key()
    }

    /// See [`Record::incarnation`].
    pub fn incarnation(&self) -> u64 {
        self.segment.header().incarnation
    }

    /// A record that outlives the batch; it shares the map, no bytes are copied.
    pub fn to_record(&self) -> Record {
        Record::new(self.segment, &self.frame, self.frame_end)
    }
}

impl fmt::Debug for RecordRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_record().fmt(f)
    }
}

/// Consecutive records of one shard, borrowed from the map: an iterator over [`RecordRef`].
///
/// Every checksum in it was verified before it was handed out.
#[derive(Clone, Default)]
pub struct RecordBatch<'a> {
    segment: Option<&'a Arc<Segment>>,
    bytes: &'a [u8],
    /// Where `bytes` ends in the segment.
    end: usize,
    records: usize,
}

impl<'a> RecordBatch<'a> {
    /// `bytes` are `records` whole frames, checked before, and end at `end` in the segment.
    pub(crate) fn new(segment: &'a Arc<Segment>, bytes: &'a [u8], end: usize, records: usize) -> Self {
        Self { segment: Some(segment), bytes, end, records }
    }

    /// How many records are left in it.
    pub fn len(&self) -> usize {
        self.records
    }

    /// Whether no record is left in it.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }
}

impl<'a> Iterator for RecordBatch<'a> {
    type Item = RecordRef<'a>;

    #[inline]
    fn next(&mut self) -> Option<RecordRef<'a>> {
        let segment = self.segment.filter(|_| self.records > 0)?;
        let frame = RawFrame::split(self.bytes)?;
        let (_, rest) = self.bytes.split_at_checked(frame.size())?;
        self.bytes = rest;
        self.records -= 1;
        Some(RecordRef { segment, frame, frame_end: self.end - rest.len() })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.records, Some(self.records))
    }
}

impl ExactSizeIterator for RecordBatch<'_> {}

impl fmt::Debug for RecordBatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordBatch").field("records", &self.records).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::format::{FrameInput, SegmentHeader};
    use crate::segment::{SegmentWriter, Visibility};
    use crate::storage::{SimulatedDisk, Storage};
    use crate::types::StreamId;

    /// (key, data, hash key) of records from number 100 on. Their frames have paddings of different lengths.
    const RECORDS: [(&str, &[u8], Option<u128>); 3] =
        [("user-7", b"one", None), ("user-42", b"twelve bytes", Some(5)), ("u", b"", Some(u128::MAX))];

    fn segment() -> Arc<Segment> {
        let storage: Arc<dyn Storage> = Arc::new(SimulatedDisk::new());
        storage.create_dir(Path::new("shard")).unwrap();
        let header = SegmentHeader {
            stream_id: StreamId::new(1),
            shard_id: ShardId::new(2),
            incarnation: 3,
            first: SequenceNumber::new(100),
            created: Timestamp::from_millis(0),
            file_bytes: 4096,
        };
        let mut writer = SegmentWriter::create(&storage, Path::new("shard"), header).unwrap();
        for ((partition_key, data, hash_key), number) in RECORDS.into_iter().zip(100..) {
            writer
                .stage(&FrameInput {
                    sequence_number: SequenceNumber::new(number),
                    arrival: Timestamp::from_millis(i64::try_from(number).unwrap() * 10),
                    durable: SequenceNumber::ZERO,
                    batch_remaining: 0,
                    explicit_hash_key: hash_key.map(HashKey::new),
                    producer: None,
                    partition_key,
                    data,
                })
                .unwrap();
        }
        writer.sync().unwrap();
        Arc::clone(writer.segment())
    }

    /// The records from `from` on.
    fn batch(segment: &Arc<Segment>, from: usize) -> RecordBatch<'_> {
        let first = SequenceNumber::new(100 + from as u64);
        let start = segment.position(first, Visibility::Durable).unwrap().unwrap();
        let end = segment.end(Visibility::Durable);
        let bytes = segment.published(start, end).unwrap();
        RecordBatch::new(segment, bytes, usize::try_from(end).unwrap(), RECORDS.len() - from)
    }

    #[test]
    fn a_record_and_what_it_was_borrowed_from_are_what_was_put() {
        let segment = segment();
        for from in 0..RECORDS.len() {
            let records: Vec<_> = batch(&segment, from).collect();
            assert_eq!(records.len(), RECORDS.len() - from);
            for (borrowed, (index, put)) in records.iter().zip(RECORDS.iter().enumerate().skip(from)) {
                let (key, data, hash_key) = *put;
                let (number, arrival) = (100 + index as u64, 1_000 + 10 * index as u64);
                let arrival = Timestamp::from_millis(i64::try_from(arrival).unwrap());
                let owned = borrowed.to_record();
                assert_eq!((borrowed.shard_id(), owned.shard_id()), (ShardId::new(2), ShardId::new(2)));
                assert_eq!(borrowed.sequence_number().get(), number);
                assert_eq!(owned.sequence_number().get(), number);
                assert_eq!((borrowed.arrival(), owned.arrival()), (arrival, arrival));
                assert_eq!((borrowed.partition_key(), owned.partition_key()), (key, key));
                assert_eq!((borrowed.data(), owned.data()), (data, data));
                assert_eq!(borrowed.explicit_hash_key(), hash_key.map(HashKey::new));
                assert_eq!(owned.explicit_hash_key(), hash_key.map(HashKey::new));
                assert_eq!((borrowed.incarnation(), owned.incarnation()), (3, 3));
            }
        }
    }

    #[test]
    fn a_batch_counts_what_is_left_in_it() {
        let segment = segment();
        let mut batch = batch(&segment, 0);
        for left in (0..=RECORDS.len()).rev() {
            assert_eq!((batch.len(), batch.is_empty()), (left, left == 0));
            assert_eq!(batch.size_hint(), (left, Some(left)));
            assert_eq!(format!("{batch:?}"), format!("RecordBatch {{ records: {left}, .. }}"));
            assert_eq!(batch.next().is_some(), left > 0);
        }
        assert!(RecordBatch::default().is_empty());
    }

    /// Where it is and how long, but not the data: logs are read by others than those who may read the data.
    #[test]
    fn a_record_shows_its_place_and_its_key_and_the_length_of_its_data() {
        let segment = segment();
        let record = batch(&segment, 1).next().unwrap();
        let shown = format!("{record:?}");
        assert_eq!(shown, format!("{:?}", record.to_record()));
        for part in ["Record {", "user-42", "data_bytes: 12", "101", "1010"] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
        assert!(!shown.contains("twelve"), "{shown}");
    }
}
