//! What goes wrong between a client and the service, decided by a seed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anabranch::ManualClock;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http::Response;
use parking_lot::Mutex;
use serde_json::json;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::partial;

/// How often a call meets what. Probabilities are from 0, never, to 1, always; a call meets one fault at most, the first of them in this order, and a delay beside it.
///
/// What befalls a call depends on the seed, on the operation and its parameters, and on how often it was called with these. So a program that calls the same is met by the same, in every run
/// and on every machine. For that, its time has to be a [`ManualClock`]'s: iterators and numbers of records contain the time. And a task among others meets the same faults if its requests do
/// not depend on their order: it does not ask for what another task asks for too, nor send on what depends on what others did. With [`delayed`](Self::delayed) on a clock that they share, that is
/// everything with the time in it, iterators and numbers of records: the delay of one task moves the time of all. Such tasks meet the same faults only where delays are left out, or pass really.
///
/// ```
/// # type Result = std::result::Result<(), Box<dyn std::error::Error>>;
/// use anabranch_connector::{Connector, Fault, Faults};
/// use aws_sdk_kinesis::Client;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result {
/// let (connector, _clock) = Connector::in_memory()?;
/// let broken = connector.with_faults(Faults { answers_lost: 1.0, ..Faults::new(7) });
/// let create = Client::new(&broken.sdk_config()).create_stream().stream_name("clicks").shard_count(1);
/// create.send().await.unwrap_err(); // though it was tried again, each time
///
/// let injected = broken.take_injections().unwrap_or_default();
/// assert_eq!((injected.len(), &*injected[0].operation, &injected[0].fault), (3, "CreateStream", &Fault::AnswerLost));
/// let streams = Client::new(&connector.sdk_config()).list_streams().send().await?;
/// assert_eq!(streams.stream_names(), ["clicks"]); // and yet it was made
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Faults {
    /// What all decisions come from.
    pub seed: u64,
    /// [`Fault::Throttled`].
    pub throttled: f64,
    /// [`Fault::IteratorExpired`], of calls of `GetRecords`.
    pub iterators_expired: f64,
    /// [`Fault::Failed`].
    pub failed: f64,
    /// [`Fault::AnswerLost`].
    pub answers_lost: f64,
    /// [`Fault::RecordsFailed`]: the probability of each record of a `PutRecords`. Such a request is changed on its way, behind the client's signature: a service that
    /// [verifies signatures](anabranch_server::ServiceOptions::credentials) refuses it.
    pub records_failed: f64,
    /// [`Fault::Delayed`].
    pub delayed: f64,
    /// The longest delay; the shortest is nothing.
    pub longest_delay: Duration,
    /// The clock that a delay moves, while nobody waits. Where there is none, it is that of a connector [in memory](crate::Connector::in_memory); before another one, a delay is waited for, by
    /// Tokio's timer, and outside of a Tokio runtime left out.
    pub delay_clock: Option<Arc<ManualClock>>,
}

impl Faults {
    /// No faults yet: those that are wanted are given beside it.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            throttled: 0.0,
            iterators_expired: 0.0,
            failed: 0.0,
            answers_lost: 0.0,
            records_failed: 0.0,
            delayed: 0.0,
            longest_delay: Duration::from_secs(1),
            delay_clock: None,
        }
    }
}

/// What befell a call.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Refused without effect: `ProvisionedThroughputExceededException` where records and iterators are concerned, `LimitExceededException` elsewhere.
    Throttled,
    /// A `GetRecords` was told `ExpiredIteratorException`.
    IteratorExpired,
    /// `InternalFailure`, without effect.
    Failed,
    /// The call took effect, or was refused, as without the fault; then the connection broke before the answer. Clients that try again do it twice: that is where duplicates come from.
    AnswerLost,
    /// These records of a `PutRecords`, by their places from 0, were not put, and the others were. At least one is put.
    RecordsFailed(Vec<usize>),
    /// The answer came later by so much: a client that stops waiting for it does not know that the call took effect.
    Delayed(Duration),
}

/// A fault, and the call that it befell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Injection {
    /// The name of the operation, as `PutRecords`.
    pub operation: String,
    /// The body of the request, with the members of its objects in alphabetical order: the SDK writes maps, as tags are, in an order that differs from run to run.
    pub request: Bytes,
    /// What befell it.
    pub fault: Fault,
}

impl Fault {
    /// The answer that it is, to a call of this operation and of this number.
    pub(crate) fn refusal(&self, operation: &str, number: u64) -> Response<SdkBody> {
        let (status, name) = match self {
            Self::Throttled => (400, throttling(operation)),
            Self::IteratorExpired => (400, "ExpiredIteratorException"),
            _ => (500, "InternalFailure"),
        };
        let document = json!({"__type": name, "message": "injected"}).to_string();
        let mut response = Response::new(SdkBody::from(document));
        *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
        let headers = response.headers_mut();
        headers.insert("content-type", http::HeaderValue::from_static("application/x-amz-json-1.1"));
        let id = format!("00000000-0000-4000-a000-{:012x}", number & 0xffff_ffff_ffff);
        headers.extend(
            http::HeaderValue::try_from(id).map(|id| (http::HeaderName::from_static("x-amzn-requestid"), id)),
        );
        response
    }
}

fn throttling(operation: &str) -> &'static str {
    match operation {
        "PutRecord" | "PutRecords" | "GetRecords" | "GetShardIterator" => "ProvisionedThroughputExceededException",
        _ => "LimitExceededException",
    }
}

/// What a call is about to meet.
#[derive(Debug)]
pub(crate) struct Fate {
    /// Another one for each call.
    pub(crate) number: u64,
    pub(crate) delay: Option<Duration>,
    pub(crate) fault: Option<Fault>,
}

/// Decides, and remembers what it decided.
#[derive(Debug)]
pub(crate) struct Injector {
    faults: Faults,
    /// How often each request came, by its hash.
    seen: Mutex<HashMap<u64, u64>>,
    log: Mutex<Vec<Injection>>,
}

impl Injector {
    pub(crate) fn new(faults: Faults) -> Self {
        Self { faults, seen: Mutex::default(), log: Mutex::default() }
    }

    pub(crate) fn take_log(&self) -> Vec<Injection> {
        std::mem::take(&mut self.log.lock())
    }

    /// Decides about a call, and logs what will happen. Whether records fail is seen later: the service may refuse all of them.
    pub(crate) fn fate(&self, operation: &str, body: &Bytes) -> Fate {
        let body = in_order(body);
        let mut draws = self.draws(operation, &body);
        let number = draws.0;
        let fate = Fate { number, delay: self.delay(&mut draws), fault: self.fault(operation, &body, &mut draws) };
        let fault = fate.fault.clone().filter(|fault| !matches!(fault, Fault::RecordsFailed(_)));
        for fault in fate.delay.map(Fault::Delayed).into_iter().chain(fault) {
            self.log_ordered(operation, body.clone(), fault);
        }
        fate
    }

    /// Logs what happened to a call.
    pub(crate) fn log(&self, operation: &str, body: &Bytes, fault: Fault) {
        self.log_ordered(operation, in_order(body), fault);
    }

    fn log_ordered(&self, operation: &str, request: Bytes, fault: Fault) {
        self.log.lock().push(Injection { operation: operation.to_owned(), request, fault });
    }

    /// Lets time pass.
    pub(crate) async fn pass(&self, delay: Duration) {
        match &self.faults.delay_clock {
            Some(clock) => clock.advance(delay),
            None if tokio::runtime::Handle::try_current().is_ok() => tokio::time::sleep(delay).await,
            None => {}
        }
    }

    /// Chance, for this coming of this request.
    fn draws(&self, operation: &str, body: &[u8]) -> Draws {
        let key = xxh3_64_with_seed(body, xxh3_64_with_seed(operation.as_bytes(), self.faults.seed));
        let mut seen = self.seen.lock();
        let nth = seen.entry(key).or_default();
        *nth += 1;
        Draws(xxh3_64_with_seed(&nth.to_le_bytes(), key))
    }

    fn delay(&self, draws: &mut Draws) -> Option<Duration> {
        let (is_delayed, share) = (draws.happens(self.faults.delayed), draws.share());
        is_delayed.then(|| self.faults.longest_delay.mul_f64(share))
    }

    /// Every chance is drawn, also of what is behind the first that happens: one more probability changes nothing of the others.
    fn fault(&self, operation: &str, body: &[u8], draws: &mut Draws) -> Option<Fault> {
        let Faults { throttled, iterators_expired, failed, answers_lost, records_failed, .. } = self.faults;
        let is_get = operation == "GetRecords";
        let [throttled, expired, failed, lost] =
            [throttled, iterators_expired, failed, answers_lost].map(|chance| draws.happens(chance));
        let whole = [
            throttled.then_some(Fault::Throttled),
            (is_get && expired).then_some(Fault::IteratorExpired),
            failed.then_some(Fault::Failed),
            lost.then_some(Fault::AnswerLost),
        ];
        whole.into_iter().flatten().next().or_else(|| {
            let count = if operation == "PutRecords" { partial::count(body) } else { 0 };
            let mut places: Vec<_> = (0..count).filter(|_| draws.happens(records_failed)).collect();
            if places.len() == count {
                places.pop(); // so that the service looks at the request
            }
            (!places.is_empty()).then_some(Fault::RecordsFailed(places))
        })
    }
}

/// A document with the members of its objects in alphabetical order; what is none stays as it is.
fn in_order(body: &Bytes) -> Bytes {
    let Ok(mut document) = serde_json::from_slice::<serde_json::Value>(body) else { return body.clone() };
    document.sort_all_objects();
    document.to_string().into()
}

/// Numbers that follow from the first one, as Steele, Lea and Flood's `SplitMix64` gives them (OOPSLA 2014).
#[derive(Debug)]
struct Draws(u64);

impl Draws {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// At least 0 and less than 1.
    fn share(&mut self) -> f64 {
        f64::from(u32::try_from(self.next() >> 32).unwrap_or_default()) / (f64::from(u32::MAX) + 1.0)
    }

    fn happens(&mut self, probability: f64) -> bool {
        self.share() < probability
    }
}
