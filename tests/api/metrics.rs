//! Figures that match what was done.

use std::time::Duration;

use anabranch::{Durability, Metrics, PutEntry, ShardState};

use crate::support::{
    HORIZON, LARGE_PER_SEGMENT, S0, S1, builder, drain, fill_large, number, put_to, read_all, segments, simulated,
    stream,
};

#[test]
fn a_new_stream_has_counted_nothing() {
    let (_directory, stream) = stream(builder());
    assert_eq!(stream.metrics(), Metrics::default());
    assert_eq!(stream.metrics().records_per_sync().to_bits(), 0.0_f64.to_bits());
}

#[test]
fn what_comes_in_is_counted() {
    let (_directory, stream) = stream(builder().shards(2).durability(Durability::Buffered));
    put_to(&stream, S0, "key", b"12345");
    put_to(&stream, S1, "éé", b"");
    let mut entries = [PutEntry::new("abc", b"1234567"); 6];
    entries[..3].iter_mut().for_each(|entry| entry.explicit_hash_key = Some(anabranch::HashKey::MIN));
    entries[3..].iter_mut().for_each(|entry| entry.explicit_hash_key = Some(anabranch::HashKey::MAX));
    stream.put_batch(&entries).unwrap();
    let metrics = stream.metrics();
    assert_eq!(metrics.puts, 4, "two puts, and a batch's part in each of two shards");
    assert_eq!(metrics.records_in, 8);
    assert_eq!(metrics.bytes_in, 8 + 4 + 60, "bytes of keys, not characters, and of data");
    assert_eq!(metrics.unsynced_records, 8);
    assert_eq!((metrics.records_out, metrics.bytes_out), (0, 0));
    stream.sync().unwrap();
    let metrics = stream.metrics();
    assert_eq!((metrics.syncs, metrics.records_synced, metrics.unsynced_records), (2, 8, 0));
    assert!((metrics.records_per_sync() - 4.0).abs() < 1e-9);
}

#[test]
fn what_goes_out_is_counted() {
    let (_directory, stream) = stream(builder());
    for _ in 0..10 {
        put_to(&stream, S0, "key", b"12345");
    }
    // A frame is 40 bytes, the explicit hash key 16, key and data 8: padded to a multiple of 8.
    let frame = 40 + 16 + 8;
    assert_eq!(read_all(&stream, S0).len(), 10);
    let metrics = stream.metrics();
    assert_eq!((metrics.records_out, metrics.bytes_out), (10, 10 * frame));
    stream.get(S0, number(3)).unwrap();
    assert_eq!(stream.metrics().records_out, 11);
    let mut iterator = stream.shard_iterator(S0, HORIZON).unwrap();
    assert_eq!(iterator.next_batch().unwrap().len(), 10);
    assert_eq!(stream.metrics().records_out, 21);
    iterator.millis_behind_latest().unwrap();
    assert_eq!(stream.metrics().bytes_out, 21 * frame, "a look is no read");
}

#[test]
fn rolls_trims_and_reshards_are_counted() {
    let (_directory, stream) = stream(builder().segment_bytes(4 << 10));
    fill_large(&stream, S0, 30);
    assert_eq!(segments(stream.path(), S0).len(), 5);
    assert_eq!(stream.metrics().segments_rolled, 4);
    let report = stream.trim_shard(S0, number(15)).unwrap();
    assert_eq!(stream.metrics().segments_trimmed, report.segments_removed);
    let (lower, upper) = stream.split_shard(S0, None).unwrap();
    stream.merge_shards(lower, upper).unwrap();
    stream.update_shard_count(4).unwrap();
    assert_eq!(stream.metrics().reshards, 5);
    assert_eq!(stream.metrics().records_synced, 30);
}

#[test]
fn clones_share_the_counts_and_openings_do_not() {
    let (_directory, stream) = stream(builder());
    stream.clone().put("key", b"data").unwrap();
    assert_eq!(stream.metrics().records_in, 1);
    let path = stream.path().to_path_buf();
    stream.close().unwrap();
    assert_eq!(builder().open(path).unwrap().metrics(), Metrics::default());
}

#[test]
fn a_description_tells_what_a_shard_holds() {
    let (disk, clock, stream) = simulated(builder().shards(2).segment_bytes(4 << 10));
    let created = stream.describe().unwrap().created;
    let empty = &stream.describe().unwrap().shards[0];
    assert_eq!((empty.records, empty.bytes, empty.disk_bytes, empty.segments), (0, 0, 0, 0));
    assert_eq!((empty.first_sequence_number, empty.last_sequence_number), (None, None));
    assert_eq!((empty.oldest_arrival, empty.newest_arrival), (None, None));
    assert_eq!((empty.starting_sequence_number, empty.next_sequence_number), (number(0), number(0)));

    for _ in 0..20 {
        clock.advance(Duration::from_secs(1));
        fill_large(&stream, S0, 1);
    }
    let described = stream.describe().unwrap();
    let shard = &described.shards[0];
    assert_eq!(shard.summary.state, ShardState::Open);
    assert_eq!(shard.summary.opened, created);
    assert_eq!(shard.records, 20);
    assert_eq!(shard.bytes, 20 * 503);
    assert_eq!(shard.segments, 20_u64.div_ceil(LARGE_PER_SEGMENT));
    assert_eq!((shard.first_sequence_number, shard.last_sequence_number), (Some(number(0)), Some(number(19))));
    assert_eq!(shard.next_sequence_number, number(20));
    assert_eq!(shard.oldest_arrival.unwrap().millis_since(created), 1_000);
    assert_eq!(shard.newest_arrival.unwrap().millis_since(created), 20_000);
    assert!((3 * 3_400..=4 * 4_096).contains(&shard.disk_bytes), "{}", shard.disk_bytes);
    assert_eq!(described.shards[1].records, 0);
    assert_eq!(described.incarnation, 1);
    assert_eq!(stream.shards(), described.shards.iter().map(|shard| shard.summary.clone()).collect::<Vec<_>>());

    // The same after a clean close.
    let before = stream.describe().unwrap();
    stream.close().unwrap();
    let stream = builder().storage(std::sync::Arc::new(disk)).clock(clock).open("stream").unwrap();
    let after = stream.describe().unwrap();
    for (before, after) in before.shards.iter().zip(&after.shards) {
        assert_eq!(before.summary, after.summary);
        assert_eq!((before.records, before.bytes, before.segments), (after.records, after.bytes, after.segments));
        assert_eq!(before.oldest_arrival, after.oldest_arrival);
        assert_eq!(before.newest_arrival, after.newest_arrival);
        assert!(after.disk_bytes <= before.disk_bytes, "a sealed segment gives its room back");
    }
    assert_eq!(drain(&mut stream.shard_iterator(S0, HORIZON).unwrap()).len(), 20);
}
