//! Faults from a seed, and a program that overcomes them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anabranch::ManualClock;
use anabranch_connector::{Connector, Fault, Faults, Injection, ServiceOptions};
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::config::timeout::TimeoutConfig;
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::operation::RequestId;
use aws_sdk_kinesis::types::{Shard, ShardIteratorType};
use serde_json::Value;

use crate::support::{block_on, config, data, entry, shard};

const RECORDS: usize = 90;
const HALF: &str = "170141183460469231731687303715884105728";

/// The seeds that a test runs with: some, or the one that `ANABRANCH_FAULT_SEED` names.
fn seeds() -> Vec<u64> {
    match std::env::var("ANABRANCH_FAULT_SEED") {
        Ok(seed) => vec![seed.parse().unwrap_or_else(|error| panic!("ANABRANCH_FAULT_SEED={seed}: {error}"))],
        Err(_) => (0..12).collect(),
    }
}

/// A bit of everything.
fn storm(seed: u64, clock: &Arc<ManualClock>) -> Faults {
    Faults {
        throttled: 0.1,
        iterators_expired: 0.2,
        failed: 0.1,
        answers_lost: 0.1,
        records_failed: 0.1,
        delayed: 0.1,
        longest_delay: Duration::from_secs(3),
        delay_clock: Some(clock.clone()),
        ..Faults::new(seed)
    }
}

/// What a program saw that puts numbered records through a split and a merge, and reads them all.
struct Run {
    acknowledged: BTreeSet<usize>,
    seen: Vec<usize>,
    injections: Vec<Injection>,
}

impl Run {
    async fn of(seed: u64) -> Self {
        let (connector, clock) = Connector::in_memory().unwrap();
        let broken = connector.with_faults(storm(seed, &clock));
        let retries = RetryConfig::standard().with_max_attempts(12).with_initial_backoff(Duration::from_millis(1));
        let program = Program { kinesis: Client::from_conf(config(&broken).retry_config(retries).build()) };
        let direct = Client::from_conf(config(&connector).build());
        direct.create_stream().stream_name("s").shard_count(1).send().await.unwrap();

        let mut acknowledged = BTreeSet::new();
        for batch in (0..RECORDS).collect::<Vec<_>>().chunks(10) {
            match batch[0] {
                30 => program.split(&shard(0)).await,
                60 => program.merge(&shard(1), &shard(2)).await,
                _ => {}
            }
            program.put(batch, &mut acknowledged).await;
        }
        let mut seen = Vec::new();
        for shard in program.shards().await {
            seen.extend(program.drain(shard.shard_id()).await);
        }
        Self { acknowledged, seen, injections: broken.take_injections().unwrap() }
    }

    /// How many answers were lost to calls that put this record.
    fn answers_lost(&self) -> BTreeMap<usize, usize> {
        let mut lost = BTreeMap::new();
        let puts = self.injections.iter().filter(|injection| injection.operation == "PutRecords");
        for injection in puts.filter(|injection| injection.fault == Fault::AnswerLost) {
            for number in numbers(&injection.request) {
                *lost.entry(number).or_default() += 1;
            }
        }
        lost
    }
}

/// The numbers of the records of a request.
fn numbers(request: &[u8]) -> Vec<usize> {
    let request: Value = serde_json::from_slice(request).unwrap();
    let number = |record: &Value| {
        let data = base64_simd::STANDARD.decode_to_vec(record["Data"].as_str().unwrap()).unwrap();
        String::from_utf8(data).unwrap().parse().unwrap()
    };
    request["Records"].as_array().unwrap().iter().map(number).collect()
}

struct Program {
    kinesis: Client,
}

impl Program {
    /// Puts a batch; what failed of it is put again.
    async fn put(&self, batch: &[usize], acknowledged: &mut BTreeSet<usize>) {
        let mut left = batch.to_vec();
        while !left.is_empty() {
            let entries = left.iter().map(|number| entry(&format!("key-{}", number % 7), &number.to_string()));
            let put = self.kinesis.put_records().stream_name("s").set_records(Some(entries.collect()));
            let outcomes = put.send().await.unwrap().records;
            assert_eq!(outcomes.len(), left.len());
            let (failed, done): (Vec<_>, Vec<_>) =
                left.into_iter().zip(&outcomes).partition(|(_, outcome)| outcome.error_code().is_some());
            acknowledged.extend(done.into_iter().map(|(number, _)| number));
            left = failed.into_iter().map(|(number, _)| number).collect();
        }
    }

    /// A split whose answer was lost is refused when it is tried again: it is done already.
    async fn split(&self, shard_id: &str) {
        let split =
            self.kinesis.split_shard().stream_name("s").shard_to_split(shard_id).new_starting_hash_key(HALF);
        if let Err(error) = split.send().await {
            assert_eq!(error.into_service_error().code(), Some("InvalidArgumentException"));
        }
        assert!(self.is_closed(shard_id).await);
    }

    async fn merge(&self, lower: &str, upper: &str) {
        let merge =
            self.kinesis.merge_shards().stream_name("s").shard_to_merge(lower).adjacent_shard_to_merge(upper);
        if let Err(error) = merge.send().await {
            assert_eq!(error.into_service_error().code(), Some("InvalidArgumentException"));
        }
        assert!(self.is_closed(lower).await && self.is_closed(upper).await);
    }

    async fn shards(&self) -> Vec<Shard> {
        self.kinesis.list_shards().stream_name("s").send().await.unwrap().shards.unwrap()
    }

    async fn is_closed(&self, shard_id: &str) -> bool {
        let shards = self.shards().await;
        let range = shards.iter().find(|shard| shard.shard_id() == shard_id).unwrap().sequence_number_range();
        range.unwrap().ending_sequence_number().is_some()
    }

    /// The numbers in a shard. Where an iterator expires, another one goes on behind the last record.
    async fn drain(&self, shard_id: &str) -> Vec<usize> {
        let (mut seen, mut last) = (Vec::new(), None);
        let mut iterator = self.iterator(shard_id, last.clone()).await;
        loop {
            let got = match self.kinesis.get_records().shard_iterator(&iterator).limit(7).send().await {
                Ok(got) => got,
                Err(error) if error.as_service_error().unwrap().is_expired_iterator_exception() => {
                    iterator = self.iterator(shard_id, last.clone()).await;
                    continue;
                }
                Err(error) => panic!("{error:?}"),
            };
            seen.extend(data(got.records()).iter().map(|number| number.parse::<usize>().unwrap()));
            last = got.records().last().map(|record| record.sequence_number().to_owned()).or(last);
            match got.next_shard_iterator {
                Some(next) if got.millis_behind_latest != Some(0) => iterator = next,
                _ => return seen,
            }
        }
    }

    async fn iterator(&self, shard_id: &str, after: Option<String>) -> String {
        let kind =
            if after.is_some() { ShardIteratorType::AfterSequenceNumber } else { ShardIteratorType::TrimHorizon };
        let iterator = self.kinesis.get_shard_iterator().stream_name("s").shard_id(shard_id);
        let iterator = iterator.shard_iterator_type(kind).set_starting_sequence_number(after);
        iterator.send().await.unwrap().shard_iterator.unwrap()
    }
}

#[test]
fn nothing_acknowledged_is_missing_and_only_lost_answers_make_duplicates() {
    let (mut duplicates, mut kinds) = (0, BTreeSet::new());
    for seed in seeds() {
        block_on(async {
            let run = Run::of(seed).await;
            assert_eq!(run.acknowledged.len(), RECORDS, "seed {seed}");
            let lost = run.answers_lost();
            for number in 0..RECORDS {
                let count = run.seen.iter().filter(|seen| **seen == number).count();
                let most = 1 + lost.get(&number).copied().unwrap_or_default();
                assert!(
                    (1..=most).contains(&count),
                    "seed {seed}: {number} is there {count} times, {most} at most"
                );
                duplicates += count - 1;
            }
            kinds.extend(run.injections.iter().map(|injection| kind(&injection.fault)));
        });
    }
    if seeds().len() > 1 {
        assert!(duplicates > 0, "lost answers did nothing");
        assert_eq!(kinds.len(), 6, "{kinds:?}");
    }
}

fn kind(fault: &Fault) -> &'static str {
    match fault {
        Fault::Throttled => "throttled",
        Fault::IteratorExpired => "expired",
        Fault::Failed => "failed",
        Fault::AnswerLost => "lost",
        Fault::RecordsFailed(_) => "records",
        Fault::Delayed(_) => "delayed",
        _ => "another",
    }
}

#[test]
fn the_same_seed_gives_the_same_faults() {
    block_on(async {
        let (first, second, other) = (Run::of(3).await, Run::of(3).await, Run::of(4).await);
        assert!(!first.injections.is_empty());
        assert_eq!(first.injections, second.injections);
        assert_eq!(first.seen, second.seen);
        assert_ne!(first.injections, other.injections);
    });
}

/// Two tasks at once, whose requests are their own, and one after the other: each meets the same.
#[test]
fn tasks_at_once_meet_the_faults_that_they_meet_one_after_another() {
    let at_once = injections_of_tasks(async |tasks| {
        let tasks = tasks.map(tokio::spawn);
        for task in tasks {
            task.await.unwrap();
        }
    });
    let in_turn = injections_of_tasks(async |tasks| {
        for task in tasks {
            task.await;
        }
    });
    assert!(!at_once.is_empty());
    assert_eq!(at_once, in_turn);
}

/// What two tasks met that put records, whatever the order.
fn injections_of_tasks(
    run: impl AsyncFnOnce([std::pin::Pin<Box<dyn Future<Output = ()> + Send>>; 2]),
) -> Vec<Injection> {
    let mut injections = Vec::new();
    block_on(async {
        let (connector, clock) = Connector::in_memory().unwrap();
        connector.service().create_stream("s", 1).unwrap();
        let broken = connector.with_faults(storm(9, &clock));
        let kinesis = Client::from_conf(config(&broken).build());
        run(["a", "b"].map(|task| -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
            let put = kinesis.put_record().stream_name("s").partition_key(task);
            Box::pin(async move {
                for number in 0..40 {
                    let _ = put.clone().data(number.to_string().into_bytes().into()).send().await;
                }
            })
        }))
        .await;
        injections = broken.take_injections().unwrap();
    });
    injections.sort_by(|a, b| a.request.cmp(&b.request));
    injections
}

/// The SDK writes maps in the order that their hashes have in this run.
#[test]
fn the_order_of_tags_changes_no_faults() {
    let run = async || {
        let (connector, _clock) = Connector::in_memory().unwrap();
        let broken = connector.with_faults(Faults { failed: 0.5, ..Faults::new(1) });
        let kinesis = Client::from_conf(config(&broken).build());
        for name in 0..20 {
            let create = kinesis.create_stream().stream_name(name.to_string()).shard_count(1);
            let _ = create.tags("room", "2").tags("team", "a b").send().await;
        }
        broken.take_injections().unwrap()
    };
    block_on(async {
        let first = run().await;
        assert!(!first.is_empty());
        assert_eq!(first, run().await);
    });
}

#[test]
fn a_connector_without_faults_has_no_injections_to_tell() {
    let (connector, _clock) = Connector::in_memory().unwrap();
    assert_eq!(connector.take_injections(), None);
    assert_eq!(connector.with_faults(Faults::new(0)).take_injections(), Some(Vec::new()));
}

#[test]
fn injected_refusals_have_ids_of_their_own() {
    block_on(async {
        let (connector, _clock) = Connector::in_memory().unwrap();
        let broken = connector.with_faults(Faults { failed: 1.0, ..Faults::new(0) });
        let kinesis = Client::from_conf(config(&broken).build());
        let mut ids = BTreeSet::new();
        for _ in 0..3 {
            let refused = kinesis.list_streams().send().await.unwrap_err();
            ids.insert(refused.request_id().unwrap().to_owned());
        }
        assert_eq!(ids.len(), 3, "{ids:?}");
    });
}

#[test]
fn throttled_calls_have_the_errors_of_their_operations() {
    block_on(async {
        let (connector, _clock) = Connector::in_memory().unwrap();
        let broken = connector.with_faults(Faults { throttled: 1.0, ..Faults::new(0) });
        let kinesis = Client::from_conf(config(&broken).build());
        let put = kinesis.put_record().stream_name("s").partition_key("a").data(Vec::new().into()).send().await;
        assert!(put.unwrap_err().into_service_error().is_provisioned_throughput_exceeded_exception());
        let create = kinesis.create_stream().stream_name("s").shard_count(1).send().await;
        assert!(create.unwrap_err().into_service_error().is_limit_exceeded_exception());
    });
}

#[test]
fn some_records_of_a_batch_fail_and_the_others_are_put() {
    block_on(async {
        let (connector, _clock) = Connector::in_memory().unwrap();
        let direct = Client::new(&connector.sdk_config());
        let broken = connector.with_faults(Faults { records_failed: 0.5, ..Faults::new(1) });
        let kinesis = Client::from_conf(config(&broken).build());
        let put = || {
            let entries = (0..20).map(|number| entry("a", &number.to_string())).collect();
            kinesis.put_records().stream_name("s").set_records(Some(entries)).send()
        };
        let refused = put().await.unwrap_err().into_service_error();
        assert!(refused.is_resource_not_found_exception(), "the service is asked all the same: {refused:?}");

        direct.create_stream().stream_name("s").shard_count(1).send().await.unwrap();
        broken.take_injections();
        let answer = put().await.unwrap();
        let [Injection { fault: Fault::RecordsFailed(places), .. }] = &broken.take_injections().unwrap()[..]
        else {
            panic!("some records fail");
        };
        let is_failed = |place: &usize| answer.records()[*place].error_code().is_some();
        assert_eq!((0..20).filter(is_failed).collect::<Vec<_>>(), *places);
        assert_eq!(answer.failed_record_count(), i32::try_from(places.len()).ok());
        let put: Vec<_> = (0..20).filter(|place| !is_failed(place)).collect();
        assert_eq!(Program { kinesis: direct }.drain(&shard(0)).await, put);
    });
}

#[test]
fn all_records_of_a_batch_never_fail_together() {
    block_on(async {
        let (connector, _clock) = Connector::in_memory().unwrap();
        let create = Client::new(&connector.sdk_config()).create_stream().stream_name("s").shard_count(1);
        create.send().await.unwrap();
        let broken = connector.with_faults(Faults { records_failed: 1.0, ..Faults::new(1) });
        let kinesis = Client::from_conf(config(&broken).build());
        for (count, failed) in [(3, 2), (1, 0)] {
            let entries = (0..count).map(|number| entry("a", &number.to_string())).collect();
            let put = kinesis.put_records().stream_name("s").set_records(Some(entries)).send().await.unwrap();
            assert_eq!(put.failed_record_count(), Some(failed));
        }
    });
}

/// Also for a record that was to fail, which the service never sees put.
#[test]
fn what_the_service_refuses_is_refused_before_records_fail() {
    block_on(async {
        let (connector, _clock) = Connector::in_memory().unwrap();
        connector.service().create_stream("s", 1).unwrap();
        let broken = connector.with_faults(Faults { records_failed: 1.0, ..Faults::new(1) });
        let kinesis = Client::from_conf(config(&broken).build());
        let put = |entries| kinesis.put_records().stream_name("s").set_records(Some(entries));
        let fine = entry("a", "one");
        for (refused, fault) in
            [(entry("", "two"), "ValidationException"), (entry(&"k".repeat(257), "two"), "ValidationException")]
        {
            let error = put(vec![refused, fine.clone()]).send().await.unwrap_err();
            assert_eq!(error.into_service_error().code(), Some(fault));
        }
        let too_many = vec![fine.clone(); 501];
        let error = put(too_many).send().await.unwrap_err();
        assert_eq!(error.into_service_error().code(), Some("ValidationException"));

        let direct = Program { kinesis: Client::from_conf(config(&connector).build()) };
        let iterator = direct.iterator(&shard(0), None).await;
        let got = direct.kinesis.get_records().shard_iterator(iterator).send().await.unwrap();
        assert!(got.records().is_empty(), "nothing was put");
        assert_eq!(broken.take_injections().unwrap(), [], "and no record failed");
    });
}

/// That of a connector in memory, unless another one is named.
#[test]
fn a_delay_moves_the_clock() {
    block_on(async {
        let (connector, own) = Connector::in_memory().unwrap();
        let other = Arc::new(ManualClock::default());
        let faults = Faults { delayed: 1.0, longest_delay: Duration::from_secs(3_600), ..Faults::new(5) };
        for (clock, delay_clock) in [(&own, None), (&other, Some(other.clone()))] {
            let broken = connector.with_faults(Faults { delay_clock, ..faults.clone() });
            let now = |clock: &ManualClock| anabranch::Clock::now(clock).as_millis();
            let before = now(clock);
            Client::from_conf(config(&broken).build()).list_streams().send().await.unwrap();
            let [Injection { fault: Fault::Delayed(delay), .. }] = broken.take_injections().unwrap()[..] else {
                panic!("a delay");
            };
            assert_eq!(now(clock) - before, i64::try_from(delay.as_millis()).unwrap());
            assert!(delay > Duration::ZERO);
        }
    });
}

/// The answer is late, not the call. Tokio's time stands still but for those that wait for it.
#[tokio::test(start_paused = true)]
async fn a_call_that_is_timed_out_is_done_all_the_same() {
    let service = crate::support::service(&ServiceOptions::default()).0;
    let connector = Connector::new(service);
    let faults = Faults { delayed: 1.0, longest_delay: Duration::from_secs(10), ..Faults::new(5) };
    let broken = connector.with_faults(faults);
    let timeout = TimeoutConfig::builder().operation_timeout(Duration::from_millis(1)).build();
    let hasty = Client::from_conf(config(&broken).timeout_config(timeout).build());
    let create = hasty.create_stream().stream_name("s").shard_count(1).send().await;
    assert!(matches!(create, Err(SdkError::TimeoutError(_))), "{create:?}");
    let streams = Client::from_conf(config(&connector).build()).list_streams().send().await.unwrap();
    assert_eq!(streams.stream_names(), ["s"]);

    let begun = tokio::time::Instant::now();
    broken.take_injections();
    Client::from_conf(config(&broken).build()).list_streams().send().await.unwrap();
    let [Injection { fault: Fault::Delayed(delay), .. }] = broken.take_injections().unwrap()[..] else {
        panic!("a delay");
    };
    assert!(begun.elapsed() >= delay && delay > Duration::from_millis(1), "it is waited for");
}

/// By the client's own setting: whoever is late is not waited for.
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_read_in_time_is_a_timeout() {
    let connector = Connector::new(crate::support::service(&ServiceOptions::default()).0);
    let faults = Faults { delayed: 1.0, longest_delay: Duration::from_secs(10), ..Faults::new(5) };
    let client = |timeout: Duration| {
        let timeouts = TimeoutConfig::builder().read_timeout(timeout).build();
        Client::from_conf(config(&connector.with_faults(faults.clone())).timeout_config(timeouts).build())
    };
    let late = client(Duration::from_millis(1)).list_streams().send().await.unwrap_err();
    assert!(matches!(&late, SdkError::DispatchFailure(failure) if failure.is_timeout()), "{late:?}");
    client(Duration::from_secs(11)).list_streams().send().await.unwrap();
}
