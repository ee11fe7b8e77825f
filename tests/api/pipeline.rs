//! From stream to stream.

use std::io::ErrorKind;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use anabranch::{
    Crash, Error, ManualClock, Outputs, Pipeline, Position, Quotas, Record, RecordsStart, ShardId, ShardState,
    SimulatedDisk, Stream, repair,
};

use crate::support::{
    HORIZON, S0, S1, S2, builder, damage, damage_on, expire, fill_large, number, put_to, read_all, read_stream,
    segments, simulated, split_undurably, stream,
};

fn copy(record: &Record, output: &mut Outputs) {
    output.put(record.partition_key(), record.data());
}

fn run(pipeline: &mut Pipeline) {
    while pipeline.step(copy).unwrap() > 0 {}
}

fn pipeline(input: &Stream, output: &Stream) -> Pipeline {
    Pipeline::new(&input.consumer("copy").unwrap(), output, "worker").unwrap().batch_records(4)
}

fn data(stream: &Stream) -> Vec<String> {
    let text = |record: Record| String::from_utf8(record.data().to_vec()).unwrap();
    let mut data: Vec<_> = read_stream(stream).into_iter().map(text).collect();
    data.sort_unstable();
    data
}

/// Their consumers have one name, and their shards one id: still, what one has put is not taken for the other's.
#[test]
fn two_inputs_of_one_output_are_kept_apart() {
    let inputs = [(); 2].map(|()| stream(builder()));
    let (_directory, output) = stream(builder());
    let mut expected = Vec::new();
    for round in 0..3 {
        for (index, (_, input)) in inputs.iter().enumerate() {
            for number in 0..5 * (index + 1) {
                let data = format!("{round}-{index}-{number}");
                input.put("key", &data).unwrap();
                expected.push(data);
            }
            run(&mut pipeline(input, &output));
        }
    }
    expected.sort_unstable();
    assert_eq!(data(&output), expected);
}

#[test]
fn of_two_on_one_consumer_the_first_is_told_and_goes_on() {
    let (_input, input) = stream(builder());
    let (_output, output) = stream(builder());
    let (mut first, mut second) = (pipeline(&input, &output), pipeline(&input, &output));
    for round in 0..6 {
        let one = if round % 2 == 0 { &mut first } else { &mut second };
        input.put("key", round.to_string()).unwrap();
        if round > 1 {
            let error = one.step(copy).unwrap_err();
            assert!(matches!(error, Error::ProducerFenced { .. } | Error::LeaseLost { .. }), "{error:?}");
        }
        run(one);
    }
    assert_eq!(data(&output), ["0", "1", "2", "3", "4", "5"]);
}

/// Shards that end within the step do not make it forget what it has done.
#[test]
fn steps_count_each_record_once_through_a_split() {
    let (_input, input) = stream(builder());
    let (_output, output) = stream(builder());
    let mut pipeline = pipeline(&input, &output);
    let mut done = 0;
    for number in 0..12 {
        input.put(format!("key-{number}"), number.to_string()).unwrap();
        if number % 4 == 1 {
            let open = input.shards().into_iter().rfind(|shard| shard.state == ShardState::Open).unwrap();
            input.split_shard(open.shard_id, None).unwrap();
        }
        done += pipeline.step(copy).unwrap();
    }
    while let records @ 1.. = pipeline.step(copy).unwrap() {
        done += records;
    }
    assert_eq!((done, data(&output).len()), (12, 12));
}

#[test]
fn a_child_is_begun_behind_its_parent() {
    let (_input, input) = stream(builder());
    let (_output, output) = stream(builder());
    for number in 0..10 {
        input.put("key", number.to_string()).unwrap();
    }
    input.split_shard(S0, None).unwrap();
    for number in 10..20 {
        input.put("key", number.to_string()).unwrap();
    }
    run(&mut pipeline(&input, &output));
    let found = read_stream(&output).into_iter().map(|record| String::from_utf8(record.data().to_vec()).unwrap());
    assert!(found.eq((0..20).map(|number| number.to_string())));
}

#[test]
fn what_is_made_can_be_routed_by_a_hash_key_of_its_own() {
    let (_input, input) = stream(builder());
    let (_output, output) = stream(builder().shards(2));
    for number in 0..4 {
        input.put(format!("key-{number}"), number.to_string()).unwrap();
    }
    let upper = output.shards()[1].hash_key_range.start();
    let mut pipeline = pipeline(&input, &output);
    while pipeline.step(|record, output| output.put_at(upper, record.partition_key(), record.data())).unwrap() > 0
    {
    }
    let found: Vec<_> = read_all(&output, S1).iter().map(|record| record.partition_key().to_owned()).collect();
    assert_eq!(found, ["key-0", "key-1", "key-2", "key-3"]);
}

#[test]
fn everything_is_made_anew_after_a_restart_of_the_pipeline() {
    let (_input, input) = stream(builder());
    let (_output, output) = stream(builder());
    for number in 0..6 {
        input.put("key", number.to_string()).unwrap();
    }
    let mut pipeline = pipeline(&input, &output);
    run(&mut pipeline);
    input.split_shard(S0, None).unwrap();
    run(&mut pipeline);
    assert_eq!(output.producers().unwrap().len(), 2, "of the children: the parent is finished");
    pipeline.restart(RecordsStart::TrimHorizon).unwrap();
    run(&mut pipeline);
    assert_eq!(data(&output).len(), 12);
}

#[test]
fn what_is_too_large_together_is_put_in_pieces() {
    let (_input, input) = stream(builder());
    let limits = anabranch::Limits { max_batch_records: 3, ..Default::default() };
    let (_output, output) = stream(builder().limits(limits));
    for number in 0..10 {
        input.put("key", number.to_string()).unwrap();
    }
    run(&mut pipeline(&input, &output));
    assert_eq!(data(&output).len(), 10);
    input.put("key", b"four").unwrap();
    let mut pipeline = pipeline(&input, &output);
    let error = pipeline.step(|record, output| (0..4).for_each(|_| copy(record, output))).unwrap_err();
    assert!(matches!(error, Error::BatchTooLarge { .. }), "{error:?}");
    run(&mut pipeline);
    assert_eq!(data(&output).len(), 11);
}

#[test]
fn misuse_is_refused() {
    let (_input, input) = stream(builder());
    let (_output, output) = stream(builder());
    let consumer = input.consumer(&"c".repeat(99)).unwrap();
    assert!(matches!(Pipeline::new(&consumer, &output, "worker"), Err(Error::InvalidArgument { .. })));
    let consumer = input.consumer(&"c".repeat(98)).unwrap();
    assert!(matches!(Pipeline::new(&consumer, &output, "a/b"), Err(Error::InvalidArgument { .. })));
    run(&mut Pipeline::new(&consumer, &output, "worker").unwrap());
    let reader = builder().open_read_only(output.path()).unwrap();
    assert!(matches!(Pipeline::new(&consumer, &reader, "worker"), Err(Error::ReadOnly)));
}

/// It is told each time; the others have their batch all the same.
#[test]
fn a_shard_that_retention_overtook_keeps_no_other_waiting_and_goes_on_after_a_reset() {
    let (_disk, _clock, input) = simulated(builder().shards(2).segment_bytes(4096));
    let (_output, output) = stream(builder());
    let consumer = input.consumer("copy").unwrap();
    let mut pipeline = pipeline(&input, &output);
    let stands_at = |shard_id, expected| {
        let position = consumer.checkpoint(shard_id).unwrap().position;
        matches!(position, Position::After(at) if at.sequence_number == number(expected))
    };
    fill_large(&input, S0, 2);
    run(&mut pipeline);
    fill_large(&input, S0, 40);
    input.trim_shard(S0, number(30)).unwrap();
    let mut told = 0;
    for round in 0..10 {
        put_to(&input, S1, "key", b"data");
        told += usize::from(matches!(pipeline.step(copy), Err(Error::Trimmed { shard_id: S0, .. })));
        assert!(stands_at(S1, round), "{round}");
    }
    assert!(told > 5);
    consumer.reset_shard(S0, RecordsStart::TrimHorizon).unwrap();
    run(&mut pipeline);
    assert!(stands_at(S0, 41) && stands_at(S1, 9));
}

/// In two shards, beside a third one that cannot be begun.
#[test]
fn each_loss_is_told_once_whatever_is_met_beside_it() {
    let (disk, clock, input) = simulated(builder().shards(3).segment_bytes(4096));
    let (_output, output) = stream(builder());
    fill_large(&input, S0, 2);
    run(&mut pipeline(&input, &output));
    fill_large(&input, S0, 40);
    input.trim_shard(S0, number(30)).unwrap();
    for shard_id in [S1, S2] {
        put_to(&input, shard_id, "key", b"to be lost");
    }
    input.close().unwrap();
    for shard_id in [S1, S2] {
        damage_on(&disk, shard_id, b"to be lost");
    }
    repair("stream", Some(Arc::new(disk.clone()))).unwrap();
    let input = reopened(&disk, &clock);
    let mut pipeline = pipeline(&input, &output);
    let (mut trimmed, mut lost) = (0, Vec::new());
    for _ in 0..10 {
        match pipeline.step(copy) {
            Err(Error::Trimmed { shard_id: S0, .. }) => trimmed += 1,
            Err(Error::Lost { shard_id, .. }) => lost.push(shard_id),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((trimmed, lost), (8, vec![S1, S2]));
}

/// A pipeline that is done with a record in the first shard, which is split then; and the lower child.
fn through_with_the_parent(input: &Stream, output: &Stream) -> (Pipeline, ShardId) {
    let mut pipeline = pipeline(input, output);
    fill_large(input, S0, 1);
    run(&mut pipeline);
    (pipeline, input.split_shard(S0, None).unwrap().0)
}

/// The parent is done: so all of the child was due, which is said once.
#[test]
fn a_pipeline_is_told_what_it_missed_of_a_child() {
    let (_disk, _clock, input) = simulated(builder().segment_bytes(4096));
    let (_output, output) = stream(builder());
    let (mut pipeline, lower) = through_with_the_parent(&input, &output);
    fill_large(&input, lower, 12);
    input.trim_shard(lower, number(10)).unwrap();
    let error = pipeline.step(copy).unwrap_err();
    assert!(matches!(error, Error::Trimmed { earliest, .. } if earliest == number(10)), "{error:?}");
    run(&mut pipeline);
    assert_eq!(data(&output).len(), 4);
}

/// What retention takes of the front while the output refuses, behind what was told, is told as well.
#[test]
fn a_pipeline_is_told_what_else_it_missed_of_a_child() {
    let (_disk, _clock, input) = simulated(builder().segment_bytes(4096));
    let (_output, output) = stream(builder());
    let (mut pipeline, lower) = through_with_the_parent(&input, &output);
    fill_large(&input, lower, 18);
    let too_large = |_: &Record, output: &mut Outputs| output.put("key", vec![0; 16 << 20]);
    for earliest in [4, 10, 16] {
        input.trim_shard(lower, number(earliest)).unwrap();
        let error = pipeline.step(too_large).unwrap_err();
        assert!(matches!(error, Error::Trimmed { earliest: told, .. } if told == number(earliest)), "{error:?}");
        let refused = pipeline.step(too_large).unwrap_err();
        assert!(!matches!(refused, Error::Trimmed { .. }), "{refused:?}");
    }
    run(&mut pipeline);
    assert_eq!(data(&output).len(), 4);
}

/// The front goes on expiring, record by record, while it is told.
#[test]
fn a_pipeline_goes_on_where_retention_does() {
    let (_disk, clock, input) = simulated(builder().retention(Duration::from_secs(3_600)));
    let (_output, output) = stream(builder());
    let (mut pipeline, lower) = through_with_the_parent(&input, &output);
    for _ in 0..200 {
        put_to(&input, lower, "key", b"child");
        clock.advance(Duration::from_secs(1));
    }
    clock.advance(Duration::from_secs(3_420));
    input.enforce_retention().unwrap();
    let mut told = 0;
    for _ in 0..4 {
        clock.advance(Duration::from_secs(2));
        told +=
            u32::from(matches!(pipeline.step(copy), Err(Error::Trimmed { shard_id, .. }) if shard_id == lower));
    }
    assert_eq!((told, data(&output).len()), (1, 1 + 4 * 4));
}

/// The parent expired behind its last record, with the front of the child.
#[test]
fn a_pipeline_is_told_what_it_missed_of_a_child_of_a_shard_that_expired() {
    let (_disk, clock, input) = simulated(builder().segment_bytes(4096).retention(Duration::from_secs(3_600)));
    let (_output, output) = stream(builder());
    let (mut pipeline, lower) = through_with_the_parent(&input, &output);
    fill_large(&input, lower, 12);
    expire(&clock, &input, Duration::from_secs(3_601));
    put_to(&input, lower, "key", b"left");
    let error = pipeline.step(copy).unwrap_err();
    assert!(matches!(error, Error::Trimmed { shard_id, .. } if shard_id == lower), "{error:?}");
    run(&mut pipeline);
    assert_eq!(data(&output).len(), 2);
}

/// One that cannot be read at all is told each time, too.
#[test]
fn a_damaged_shard_keeps_no_other_waiting() {
    let (directory, input) = stream(builder().shards(2));
    let (_output, output) = stream(builder());
    put_to(&input, S0, "key", b"to be damaged");
    put_to(&input, S1, "key", b"sound");
    input.close().unwrap();
    let path = directory.path().join("stream");
    damage(&segments(&path, S0)[0], b"to be damaged");
    let input = builder().open_existing(path).unwrap();
    let mut pipeline = pipeline(&input, &output);
    for _ in 0..3 {
        assert!(matches!(pipeline.step(copy), Err(Error::Corrupt(_))));
        assert_eq!(data(&output), ["sound"]);
    }
}

/// Killed between the end of a shard and what follows it: the next life follows it up.
#[test]
fn the_producer_of_a_shard_that_an_earlier_life_finished_is_forgotten() {
    let (_input, input) = stream(builder());
    let (_output, output) = stream(builder());
    input.put("key", "0").unwrap();
    run(&mut pipeline(&input, &output));
    assert_eq!(output.producers().unwrap().len(), 1);
    input.split_shard(S0, None).unwrap();
    input.consumer("copy").unwrap().take(S0, "worker").unwrap().checkpoint_end().unwrap();
    run(&mut pipeline(&input, &output));
    let left: Vec<_> = output.producers().unwrap().into_iter().map(|producer| producer.name).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(!left.iter().any(|name| name.contains(".000000000000.")), "{left:?}");
}

/// A pipeline in a process that may not make the split durable stored an end that a power cut undoes. The shard goes on, and is split again.
#[test]
fn an_end_that_a_power_cut_undid_is_none() {
    let mut undone = 0;
    for seed in 0..16 {
        let (disk, clock, writer) = simulated(builder());
        let (_disk, _clock, output) = simulated(builder());
        writer.consumer("copy").unwrap();
        writer.put("key", "0").unwrap();
        let reader =
            builder().storage(Arc::new(disk.clone())).clock(clock.clone()).open_read_only("stream").unwrap();
        let consumer = reader.consumer("copy").unwrap();
        split_undurably(&disk, &writer, ErrorKind::PermissionDenied);
        run(&mut pipeline(&reader, &output));
        assert_eq!(consumer.checkpoint(S0).unwrap().position, Position::ShardEnd);
        let survivor = Arc::new(disk.crash(Crash::PowerLost { seed }));
        let input = builder().storage(survivor).clock(clock).open_existing("stream").unwrap();
        undone += u32::from(input.shards().len() == 1);
        let mut again = pipeline(&input, &output);
        input.put("key", "1").unwrap();
        if seed % 2 == 0 {
            run(&mut again); // before it ends again, and behind that
        }
        input.put("key", "2").unwrap();
        input.split_shard(input.open_shards()[0], None).unwrap();
        input.put("key", "3").unwrap();
        run(&mut again);
        assert_eq!(data(&output), ["0", "1", "2", "3"], "seed {seed}");
    }
    assert!((1..16).contains(&undone), "{undone}");
}

/// Two shards, in the second of which a life of the pipeline put a batch of four records and made no checkpoint, since somebody else had taken the shard by then.
/// A batch of one record came before, if there is a checkpoint; two records follow. What was put first is five seconds older than the rest, and all expires after ten.
fn with_a_batch_to_repeat(output: &Stream, has_checkpoint: bool) -> (SimulatedDisk, Arc<ManualClock>) {
    let (disk, clock, input) = simulated(builder().shards(2).retention(Duration::from_secs(10)));
    let put = |texts: [&str; 2]| texts.map(|text| put_to(&input, S1, "key", text.as_bytes()));
    let mut first = pipeline(&input, output);
    if has_checkpoint {
        put_to(&input, S1, "key", b"first");
        run(&mut first);
    }
    put(["0", "1"]);
    clock.advance(Duration::from_secs(5));
    put(["2", "3"]);
    let taken = first.step(|record, output| {
        copy(record, output);
        input.consumer("copy").unwrap().take(S1, "somebody").unwrap();
    });
    assert!(matches!(taken, Err(Error::LeaseLost { .. })), "{taken:?}");
    assert!(data(output).starts_with(&["0", "1", "2", "3"].map(str::to_owned)));
    put(["4", "5"]);
    put_to(&input, S0, "key", b"other");
    input.close().unwrap();
    (disk, clock)
}

fn reopened(disk: &SimulatedDisk, clock: &Arc<ManualClock>) -> Stream {
    builder().storage(Arc::new(disk.clone())).clock(clock.clone()).open_existing("stream").unwrap()
}

/// Nobody comes to its end, and with so many reshards there would be no room for another producer.
#[test]
fn the_producer_of_a_shard_that_expired_is_forgotten() {
    let (_disk, clock, input) = simulated(builder().retention(Duration::from_secs(10)));
    let (_output, output) = stream(builder());
    let of_others = ["copy.000000000000", "copy.more.000000000000.0123456789abcdef", "copies"];
    for name in of_others {
        output.producer(name).unwrap();
    }
    put_to(&input, S0, "key", b"0");
    run(&mut pipeline(&input, &output));
    put_to(&input, S0, "key", b"1");
    let (lower, upper) = input.split_shard(S0, None).unwrap();
    expire(&clock, &input, Duration::from_secs(11));
    assert_eq!(input.open_shards(), [lower, upper]);
    assert_eq!(input.shards().len(), 2);
    put_to(&input, lower, "key", b"2");
    run(&mut pipeline(&input, &output));
    assert_eq!(data(&output), ["0", "2"]);
    let names: Vec<_> = output.producers().unwrap().into_iter().map(|producer| producer.name).collect();
    let of_shard = |shard_id: ShardId| format!("copy.{:012}.", shard_id.get());
    assert!(!names.iter().any(|name| name.starts_with(&of_shard(S0))), "{names:?}");
    for shard_id in [lower, upper] {
        assert!(names.iter().any(|name| name.starts_with(&of_shard(shard_id))), "{names:?}");
    }
    assert_eq!(names.len(), 2 + of_others.len());
}

/// Its quota is used up by somebody else when it expires, with children that had nothing.
#[test]
fn the_rest_of_a_shard_that_expired_does_not_come_behind_what_follows_it() {
    let (_disk, clock, input) = simulated(builder().retention(Duration::from_secs(10)));
    let (_output, output) = stream(builder());
    for number in 0..8 {
        put_to(&input, S0, "key", number.to_string().as_bytes());
    }
    let mut pipeline = pipeline(&input, &output);
    assert_eq!(pipeline.step(copy).unwrap(), 4);
    let mut other = input.shard_iterator(S0, HORIZON).unwrap();
    let (lower, upper) = input.split_shard(S0, None).unwrap();
    let last = input.merge_shards(lower, upper).unwrap();
    expire(&clock, &input, Duration::from_secs(11));
    assert_eq!(input.shards().len(), 1);
    put_to(&input, last, "key", b"8");
    input.set_quotas(Quotas { shared_read_calls: NonZeroU64::new(1), ..Quotas::none() });
    while other.begin_call().is_ok() {}
    let mut told = Vec::new();
    for _ in 0..4 {
        told.extend(pipeline.step(copy).err());
        clock.advance(Duration::from_secs(1));
    }
    let found = read_stream(&output).into_iter().map(|record| String::from_utf8(record.data().to_vec()).unwrap());
    assert_eq!(found.collect::<Vec<_>>(), ["0", "1", "2", "3", "8"]);
    assert!(matches!(told.as_slice(), [Error::ShardNotFound(S0)]), "{told:?}");
}

#[test]
fn of_shards_that_expire_at_once_each_is_told() {
    let (_disk, clock, input) = simulated(builder().shards(2).retention(Duration::from_secs(10)));
    let (_output, output) = stream(builder());
    for _ in 0..8 {
        put_to(&input, S0, "key", b"data");
        put_to(&input, S1, "key", b"data");
    }
    let mut pipeline = pipeline(&input, &output);
    assert_eq!(pipeline.step(copy).unwrap(), 8);
    for shard_id in [S0, S1] {
        input.split_shard(shard_id, None).unwrap();
    }
    expire(&clock, &input, Duration::from_secs(11));
    assert_eq!(input.shards().len(), 4);
    for expired in [S0, S1] {
        let told = pipeline.step(copy);
        assert!(matches!(told, Err(Error::ShardNotFound(shard_id)) if shard_id == expired), "{told:?}");
    }
    assert_eq!(pipeline.step(copy).unwrap(), 0);
}

/// The other shard has its turn first, and takes so long that this one is gone when its end is to be stored.
#[test]
fn a_shard_that_expires_behind_its_end_was_done() {
    let (_disk, clock, input) = simulated(builder().shards(2).retention(Duration::from_secs(10)));
    let (_output, output) = stream(builder());
    put_to(&input, S1, "key", b"0");
    let mut pipeline = pipeline(&input, &output);
    assert_eq!(pipeline.step(copy).unwrap(), 1);
    let (lower, _) = input.split_shard(S1, None).unwrap();
    put_to(&input, S0, "key", b"1");
    let is_gone = || input.shards().iter().all(|shard| shard.shard_id != S1);
    let make = |record: &Record, output: &mut Outputs| {
        expire(&clock, &input, Duration::from_secs(11));
        assert!(is_gone());
        copy(record, output);
    };
    assert_eq!(pipeline.step(make).unwrap(), 1);
    put_to(&input, lower, "key", b"2");
    run(&mut pipeline);
    assert_eq!(data(&output), ["0", "1", "2"]);
}

/// The other shard has its turn first, and takes so long that the clock is believed by then.
#[test]
fn a_batch_that_expires_before_it_is_repeated_is_repeated_whole() {
    let (_output, output) = stream(builder());
    let (disk, clock) = with_a_batch_to_repeat(&output, false);
    let input = reopened(&disk, &clock);
    let mut again = pipeline(&input, &output);
    let mut made = Vec::new();
    let make = |record: &Record, output: &mut Outputs| {
        if record.data() == b"other" {
            clock.advance(Duration::from_secs(6));
        }
        made.push(String::from_utf8(record.data().to_vec()).unwrap());
        copy(record, output);
    };
    assert_eq!(again.step(make).unwrap(), 5);
    assert_eq!(made, ["other", "0", "1", "2", "3"]);
    run(&mut again);
    assert_eq!(data(&output), ["0", "1", "2", "3", "4", "5", "other"]);
}

#[test]
fn a_batch_of_which_a_part_has_expired_is_passed_and_nothing_of_it_put_twice() {
    let left: [(u64, &[&str]); 2] =
        [(6, &["0", "1", "2", "3", "4", "5", "new", "other"]), (30, &["0", "1", "2", "3", "new"])];
    for (seconds, expected) in left {
        let (_output, output) = stream(builder());
        let (disk, clock) = with_a_batch_to_repeat(&output, false);
        let input = reopened(&disk, &clock);
        clock.advance(Duration::from_secs(seconds)); // of all of it at last, and of what follows
        run(&mut pipeline(&input, &output));
        put_to(&input, S1, "key", b"new");
        run(&mut pipeline(&input, &output));
        assert_eq!(data(&output), expected, "{seconds}");
    }
}

/// In its middle, at its end, all of it.
#[test]
fn a_batch_of_which_records_are_lost_is_passed_and_nothing_of_it_put_twice() {
    let expected = ["0", "1", "2", "3", "4", "5", "first", "other"].map(str::to_owned).to_vec();
    for lost in [1..2, 3..4, 0..4] {
        let (_output, output) = stream(builder());
        let (disk, clock) = with_a_batch_to_repeat(&output, true);
        for number in lost.clone() {
            damage_on(&disk, S1, format!("key{number}").as_bytes());
        }
        assert!(!repair("stream", Some(Arc::new(disk.clone()))).unwrap().lost.is_empty());
        let input = reopened(&disk, &clock);
        let mut again = pipeline(&input, &output);
        let mut told = 0;
        for _ in 0..10 {
            match again.step(copy) {
                Ok(_) => {}
                Err(Error::Lost { .. }) => told += 1,
                Err(error) => panic!("{error:?}"),
            }
        }
        assert_eq!((told, data(&output)), (1, expected.clone()), "{lost:?}");
    }
}
