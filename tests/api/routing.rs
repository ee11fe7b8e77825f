//! From partition key to shard, compared with what Kinesis publishes.

use anabranch::{HashKey, PartitionHash, ShardId};

use crate::support::{builder, read_all, stream};

/// The test suite of RFC 1321 (appendix A.5), but for the empty text, which is no partition key: digest, then the shard of three
/// and of four. A third of the space ends at 0x5555..., a quarter at 0x3fff...: the digest's first digits decide.
const RFC_1321: [(&str, u128, u32, u32); 6] = [
    ("a", 0x0cc1_75b9_c0f1_b6a8_31c3_99e2_6977_2661, 0, 0),
    ("abc", 0x9001_5098_3cd2_4fb0_d696_3f7d_28e1_7f72, 1, 2),
    ("message digest", 0xf96b_697d_7cb7_938d_525a_2f31_aaf1_61d0, 2, 3),
    ("abcdefghijklmnopqrstuvwxyz", 0xc3fc_d3d7_6192_e400_7dfb_496c_ca67_e13b, 2, 3),
    (
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
        0xd174_ab98_d277_d9f5_a561_1c2c_9f41_9d9f,
        2,
        3,
    ),
    (
        "12345678901234567890123456789012345678901234567890123456789012345678901234567890",
        0x57ed_f4a2_2be3_c955_ac49_da2e_2107_b67a,
        1,
        1,
    ),
];

#[test]
fn md5_gives_the_digests_of_rfc_1321() {
    let (_directory, stream) = stream(builder().partition_hash(PartitionHash::Md5));
    for (key, digest, _, _) in RFC_1321 {
        assert_eq!(stream.hash_key(key).unwrap(), HashKey::new(digest), "{key}");
    }
}

#[test]
fn md5_gives_the_hash_keys_that_kinesis_was_seen_to_use() {
    let (_directory, stream) = stream(builder().partition_hash(PartitionHash::Md5));
    for (key, decimal) in [
        ("a", "16955237001963240173058271559858726497"),
        ("partitionKey-1", "159499196025307651934328298402289840726"),
        ("k0", "54280909868488310885655169584342319285"),
        ("user-123", "250018372642977770877286195909578633128"),
    ] {
        assert_eq!(stream.hash_key(key).unwrap().to_string(), decimal, "{key}");
        assert_eq!(decimal.parse(), Ok(stream.hash_key(key).unwrap()));
    }
}

#[test]
fn md5_routes_to_the_shards_that_were_worked_out_by_hand() {
    for count in [3, 4] {
        let (_directory, stream) = stream(builder().shards(count).partition_hash(PartitionHash::Md5));
        for (key, _, of_three, of_four) in RFC_1321 {
            let expected = ShardId::new(if count == 3 { of_three } else { of_four });
            assert_eq!(stream.route(key).unwrap(), expected, "{key} of {count}");
            let receipt = stream.put(key, b"data").unwrap();
            assert_eq!(receipt.shard_id, expected, "{key} of {count}");
            assert_eq!(read_all(&stream, expected).last().unwrap().partition_key(), key);
        }
    }
}

#[test]
fn initial_ranges_are_those_of_kinesis() {
    let ends = |count: u32| {
        let (_directory, stream) = stream(builder().shards(count));
        let shards = stream.shards();
        assert!(shards.windows(2).all(|pair| pair[0].hash_key_range.is_followed_by(pair[1].hash_key_range)));
        assert_eq!(shards[0].hash_key_range.start(), HashKey::MIN);
        shards.iter().map(|shard| shard.hash_key_range.end().to_string()).collect::<Vec<_>>()
    };
    let max = "340282366920938463463374607431768211455";
    assert_eq!(ends(1), [max]);
    assert_eq!(ends(2), ["170141183460469231731687303715884105727", max]);
    assert_eq!(
        ends(3),
        ["113427455640312821154458202477256070484", "226854911280625642308916404954512140969", max]
    );
    assert_eq!(ends(4)[0], "85070591730234615865843651857942052863");
    assert_eq!(ends(5)[0], "68056473384187692692674921486353642290");
}

#[test]
fn the_two_hashes_differ_and_stay() {
    let (_md5, md5) = stream(builder().partition_hash(PartitionHash::Md5));
    let (_xxh3, xxh3) = stream(builder());
    assert_ne!(md5.hash_key("a").unwrap(), xxh3.hash_key("a").unwrap());
    assert_eq!(xxh3.hash_key("a").unwrap(), xxh3.hash_key("a").unwrap());
    // An opening that sets nothing takes the hash that the stream was created with.
    let path = md5.path().to_path_buf();
    md5.close().unwrap();
    let md5 = builder().open(path).unwrap();
    assert_eq!(md5.hash_key("abc").unwrap(), HashKey::new(RFC_1321[1].1));
}

#[test]
fn keys_spread_over_the_shards() {
    for hash in [PartitionHash::Xxh3, PartitionHash::Md5] {
        let (_directory, stream) = stream(builder().shards(8).partition_hash(hash));
        let mut counts = [0; 8];
        for index in 0..4_000 {
            counts[stream.route(format!("user-{index}")).unwrap().get() as usize] += 1;
        }
        assert!(counts.iter().all(|count| (400..600).contains(count)), "{hash:?}: {counts:?}");
    }
}
