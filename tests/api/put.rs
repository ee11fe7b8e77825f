//! Putting: limits, batches, hash keys at the edges, conditions.

use std::sync::{Arc, Barrier};
use std::thread;

use anabranch::{Error, ErrorKind, HashKey, Limits, PutEntry, PutOptions, SequenceNumber, Stream};

use crate::support::{
    HORIZON, Mixer, S0, builder, number, numbers_from, put_at, put_to, read_all, read_stream, stream,
};

fn is_empty(stream: &Stream) -> bool {
    let metrics = stream.metrics();
    read_stream(stream).is_empty() && (metrics.puts, metrics.records_in, metrics.bytes_in) == (0, 0, 0)
}

#[test]
fn partition_keys_have_1_to_256_characters() {
    let (_directory, stream) = stream(builder().shards(2));
    for wrong in [String::new(), "x".repeat(257), "é".repeat(257), "🦀".repeat(257), "x".repeat(100_000)] {
        for outcome in [
            stream.put(&wrong, b"data").map(drop),
            stream.put_batch(&[PutEntry::new(&wrong, b"data")]).map(drop),
            stream.hash_key(&wrong).map(drop),
            stream.route(&wrong).map(drop),
        ] {
            let error = outcome.expect_err("the key is out of its range");
            let named = matches!(&error, Error::InvalidArgument { argument: "partition_key", .. });
            assert!(named, "{} characters: {error:?}", wrong.chars().count());
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
    }
    assert!(is_empty(&stream));

    let right =
        ["x".to_owned(), "x".repeat(256), "é".repeat(256), "🦀".repeat(256), "\0".to_owned(), " ".to_owned()];
    for key in &right {
        let receipt = stream.put(key, key.as_bytes()).unwrap();
        assert_eq!(stream.route(key).unwrap(), receipt.shard_id);
        let record = stream.get(receipt.shard_id, receipt.sequence_number).unwrap();
        assert_eq!(record.partition_key(), key);
        assert_eq!(record.data(), key.as_bytes());
        assert_eq!(record.explicit_hash_key(), None);
        assert_eq!(record.arrival(), receipt.arrival);
    }
}

#[test]
fn data_may_be_empty_and_as_long_as_the_limit() {
    let limits = Limits { max_data_bytes: 1_000, ..Limits::default() };
    let (_directory, stream) = stream(builder().limits(limits));
    for length in [1_001, 5_000] {
        let error = stream.put("key", vec![7; length]).expect_err("too long");
        assert!(matches!(error, Error::DataTooLarge { bytes, limit: 1_000 } if bytes == length), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    assert!(is_empty(&stream));
    for length in [0, 1, 7, 8, 9, 999, 1_000] {
        let receipt = stream.put("key", vec![7; length]).unwrap();
        assert_eq!(stream.get(S0, receipt.sequence_number).unwrap().data(), vec![7; length]);
    }
}

#[test]
fn the_default_limit_is_one_mebibyte() {
    let (_directory, stream) = stream(builder());
    let mebibyte = vec![1; 1 << 20];
    stream.put("é".repeat(256), &mebibyte).unwrap();
    let error = stream.put("key", vec![1; (1 << 20) + 1]).expect_err("too long");
    assert!(matches!(error, Error::DataTooLarge { limit: 1_048_576, .. }), "{error:?}");
    assert_eq!(read_all(&stream, S0)[0].data(), mebibyte);
}

#[test]
fn data_of_ten_mebibytes_and_more_can_be_allowed() {
    let limits = Limits { max_data_bytes: 40 << 20, max_batch_bytes: 64 << 20, ..Limits::default() };
    // Segments are far smaller than the records: each record gets one of its own.
    let (_directory, stream) = stream(builder().limits(limits).segment_bytes(64 << 10));
    let mut mixer = Mixer(1);
    let mut random = |bytes: usize| {
        let words = std::iter::repeat_with(|| mixer.next().to_le_bytes());
        words.take(bytes / 8).flatten().collect::<Vec<u8>>()
    };
    let large = [random(10 << 20), random(10 << 20), random(40 << 20)];
    stream.put("small", b"before").unwrap();
    for data in &large {
        stream.put("large", data).unwrap();
    }
    stream.put("small", b"after").unwrap();
    let records = read_all(&stream, S0);
    assert_eq!(records.len(), 5);
    for (record, data) in records[1..].iter().zip(&large) {
        assert!(record.data() == data, "{record:?}"); // not assert_eq: nobody wants to see 40 MiB
    }
    assert_eq!(records[4].data(), b"after");
    let path = stream.path().to_path_buf();
    stream.close().unwrap();
    let stream = builder().open(path).unwrap();
    assert!(stream.get(S0, number(3)).unwrap().data() == large[2]);
}

#[test]
fn a_batch_is_held_to_its_count_and_bytes() {
    let limits = Limits { max_data_bytes: 100, max_batch_records: 4, max_batch_bytes: 1_200, ..Limits::default() };
    let (_directory, stream) = stream(builder().shards(2).limits(limits));
    let entry = PutEntry::new("key", b"data");
    let error = stream.put_batch(&[entry; 5]).expect_err("too many");
    let told = matches!(error, Error::BatchTooLarge { records: 5, bytes: 35, max_records: 4, max_bytes: 1_200 });
    assert!(told, "{error:?}");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);

    let key = "k".repeat(256);
    let long_key = "🦀".repeat(256); // 1,024 bytes
    let data = [1; 100];
    let fits = [PutEntry::new(&long_key, &data), PutEntry::new(&key[..76], b"")];
    let over = [PutEntry::new(&long_key, &data), PutEntry::new(&key[..77], b"")];
    let error = stream.put_batch(&over).expect_err("too many bytes");
    assert!(matches!(error, Error::BatchTooLarge { records: 2, bytes: 1_201, .. }), "{error:?}");
    assert!(is_empty(&stream));

    assert_eq!(stream.put_batch(&fits).unwrap().len(), 2);
    assert_eq!(stream.put_batch(&[entry; 4]).unwrap().len(), 4);
    assert_eq!(read_stream(&stream).len(), 6);
}

#[test]
fn an_empty_batch_is_nothing() {
    let (_directory, stream) = stream(builder());
    assert_eq!(stream.put_batch(&[]).unwrap(), []);
    assert!(is_empty(&stream));
}

#[test]
fn one_bad_entry_anywhere_keeps_a_batch_from_being_written() {
    let limits = Limits { max_data_bytes: 100, ..Limits::default() };
    let (_directory, stream) = stream(builder().shards(4).limits(limits));
    let keys: Vec<String> = (0..50).map(|index| format!("key-{index}")).collect();
    let sound: Vec<PutEntry<'_>> = keys.iter().map(|key| PutEntry::new(key, b"data")).collect();
    let too_long = [0; 101];
    let overlong_key = "x".repeat(257);
    let bad = [PutEntry::new("", b"data"), PutEntry::new(&overlong_key, b"data"), PutEntry::new("key", &too_long)];
    for bad in bad {
        for position in [0, 1, 25, 49, 50] {
            let mut entries = sound.clone();
            entries.insert(position, bad);
            let error = stream.put_batch(&entries).expect_err("one entry is bad");
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{position}: {error:?}");
        }
    }
    assert!(is_empty(&stream));
    stream.put_batch(&sound).unwrap();
    assert_eq!(read_stream(&stream).len(), 50);
}

#[test]
fn receipts_of_a_batch_come_in_the_order_of_its_entries() {
    let (_directory, stream) = stream(builder().shards(4));
    let keys: Vec<String> = (0..200).map(|index| format!("key-{}", index % 40)).collect();
    let data: Vec<String> = (0..200).map(|index| index.to_string()).collect();
    let mut entries: Vec<_> =
        keys.iter().zip(&data).map(|(key, data)| PutEntry::new(key, data.as_bytes())).collect();
    entries[7].explicit_hash_key = Some(HashKey::MAX);
    let receipts = stream.put_batch(&entries).unwrap();
    assert_eq!(receipts.len(), entries.len());
    let mut next = [SequenceNumber::ZERO; 4];
    for (receipt, entry) in receipts.iter().zip(&entries) {
        let shard = receipt.shard_id.get() as usize;
        assert_eq!(receipt.sequence_number, next[shard], "dense, and in the order of the entries");
        next[shard] = next[shard].next();
        let record = stream.get(receipt.shard_id, receipt.sequence_number).unwrap();
        assert_eq!((record.partition_key(), record.data()), (entry.partition_key, entry.data));
        assert_eq!(record.explicit_hash_key(), entry.explicit_hash_key);
        assert_eq!(record.arrival(), receipt.arrival);
    }
    assert_eq!(receipts[7].shard_id.get(), 3);
    assert_eq!(stream.metrics().puts, 4, "one append a shard");
}

#[test]
fn a_batch_larger_than_a_segment_is_written_whole() {
    let (_directory, stream) = stream(builder().segment_bytes(4 << 10));
    let data = [5; 900];
    let entries = [PutEntry::new("key", &data); 100];
    stream.put("key", b"before").unwrap();
    stream.put_batch(&entries).unwrap();
    stream.put("key", b"after").unwrap();
    let records = read_all(&stream, S0);
    assert_eq!(records.len(), 102);
    assert!(records[1..101].iter().all(|record| record.data() == data));
    assert_eq!(records[101].data(), b"after");
}

#[test]
fn explicit_hash_keys_route_at_the_edges_of_ranges() {
    for count in [1, 2, 3, 7] {
        let (_directory, stream) = stream(builder().shards(count));
        assert_eq!(put_at(&stream, HashKey::MIN, "key", b"").shard_id.get(), 0);
        assert_eq!(put_at(&stream, HashKey::MAX, "key", b"").shard_id.get(), count - 1);
        for shard in stream.shards() {
            for edge in [shard.hash_key_range.start(), shard.hash_key_range.end()] {
                let receipt = put_at(&stream, edge, "a key", b"data");
                assert_eq!(receipt.shard_id, shard.shard_id, "{edge}");
                let record = stream.get(receipt.shard_id, receipt.sequence_number).unwrap();
                assert_eq!(record.explicit_hash_key(), Some(edge));
                assert_eq!(record.partition_key(), "a key", "the partition key is stored all the same");
            }
        }
        // The key still has to be one.
        let options = PutOptions::new().explicit_hash_key(HashKey::MIN);
        assert_eq!(stream.put_with("", b"", options).expect_err("no key").kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn keys_and_data_are_taken_in_any_form() {
    let (_directory, stream) = stream(builder());
    stream.put("key", "text").unwrap();
    stream.put(String::from("key"), vec![1, 2]).unwrap();
    stream.put(std::borrow::Cow::from("key"), [3_u8; 2]).unwrap();
    stream.put("key", b"bytes").unwrap();
    let records = read_all(&stream, S0);
    let data: Vec<_> = records.iter().map(anabranch::Record::data).collect();
    assert_eq!(data, [&b"text"[..], &[1, 2], &[3, 3], b"bytes"]);
}

#[test]
fn a_condition_holds_only_at_the_next_number() {
    let (_directory, stream) = stream(builder());
    let put = |expected| stream.put_with("key", b"data", PutOptions::new().expect_next(number(expected)));
    for expected in [1, 2, u64::MAX] {
        let error = put(expected).expect_err("nothing is written yet");
        let Error::SequenceNumberMismatch { shard_id: S0, expected: told, actual } = error else {
            panic!("{error:?}");
        };
        assert_eq!((told.get(), actual.get()), (expected, 0));
        assert_eq!(error.kind(), ErrorKind::Conflict);
    }
    assert!(is_empty(&stream));
    assert_eq!(put(0).unwrap().sequence_number, number(0));
    assert_eq!(put(1).unwrap().sequence_number, number(1));
    let error = put(1).expect_err("taken");
    assert!(matches!(error, Error::SequenceNumberMismatch { actual, .. } if actual == number(2)), "{error:?}");
    assert_eq!(numbers_from(&stream, S0, HORIZON), [0, 1]);
}

#[test]
fn a_condition_is_held_against_the_shard_that_takes_the_record() {
    let (_directory, stream) = stream(builder().shards(2));
    for _ in 0..5 {
        put_to(&stream, S0, "key", b"data");
    }
    let to_second = PutOptions::new().explicit_hash_key(HashKey::MAX);
    stream.put_with("key", b"data", to_second.expect_next(number(0))).unwrap();
    let (lower, _) = stream.split_shard(S0, None).unwrap();
    let to_lower = PutOptions::new().explicit_hash_key(HashKey::MIN);
    let error = stream.put_with("key", b"data", to_lower.expect_next(number(0))).expect_err("it starts at 5");
    assert!(matches!(error, Error::SequenceNumberMismatch { shard_id, actual, .. }
        if shard_id == lower && actual == number(5)));
    stream.put_with("key", b"data", to_lower.expect_next(number(5))).unwrap();
}

#[test]
fn a_contest_for_a_number_has_exactly_one_winner() {
    const THREADS: u64 = 8;
    const ROUNDS: u64 = 100;
    for durability in [anabranch::Durability::Synced, anabranch::Durability::Buffered] {
        let (_directory, stream) = stream(builder().durability(durability));
        let barrier = Arc::new(Barrier::new(usize::try_from(THREADS).unwrap()));
        let contestants = (0..THREADS).map(|thread| {
            let (stream, barrier) = (stream.clone(), Arc::clone(&barrier));
            thread::spawn(move || {
                let mut won = Vec::new();
                for round in 0..ROUNDS {
                    barrier.wait();
                    let condition = PutOptions::new().expect_next(number(round));
                    match stream.put_with("key", thread.to_string(), condition) {
                        Ok(receipt) => won.push(receipt.sequence_number.get()),
                        Err(Error::SequenceNumberMismatch { actual, .. }) => assert!(actual.get() > round),
                        Err(error) => panic!("{error:?}"),
                    }
                }
                (thread, won)
            })
        });
        let outcomes: Vec<_> = contestants.collect::<Vec<_>>().into_iter().map(|c| c.join().unwrap()).collect();
        let records = read_all(&stream, S0);
        assert_eq!(records.len() as u64, ROUNDS);
        assert_eq!(outcomes.iter().map(|(_, won)| won.len() as u64).sum::<u64>(), ROUNDS);
        for (thread, won) in outcomes {
            for round in won {
                let record = &records[usize::try_from(round).unwrap()];
                assert_eq!(record.sequence_number().get(), round);
                assert_eq!(record.data(), thread.to_string().as_bytes(), "the winner's data stands there");
            }
        }
    }
}
