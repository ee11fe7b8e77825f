//! The protocol without a socket, and its options.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anabranch::storage::{Disk, Storage};
use anabranch::{Capacity, CapacityPolicy, Clock, Durability, SystemClock};
use bytes::Bytes;
use http::{Request, Response};

use crate::arn::is_account;
use crate::body::Body;
use crate::catalog::{Catalog, Changes, Common, Mode, Settings, Status};
use crate::errors::Fault;
use crate::http_protocol::{self, Answer};
use crate::limits::{DEFAULT_SHARD_LIMIT, ITERATOR_LIFETIME, MAX_ON_DEMAND_SHARDS, ON_DEMAND_SHARDS};
use crate::observe::{self, Counters};
use crate::operations::Call;
use crate::rates::Rates;
use crate::signature::Credentials;
use crate::validate::Validator;
use crate::wire::Format;
use crate::{CreateError, OpenError, Profile};

/// How a [`Service`] behaves.
///
/// ```
/// use anabranch::Durability;
/// use anabranch_server::ServiceOptions;
///
/// let options = ServiceOptions { durability: Durability::Buffered, region: "eu-west-1".to_owned(), ..ServiceOptions::default() };
/// assert_eq!(options.account, "000000000000");
/// ```
#[derive(Debug, Clone)]
pub struct ServiceOptions {
    /// What an acknowledged put to a stream that is made from now on survives: [`Durability::Synced`], a power cut, unless told otherwise.
    pub durability: Durability,
    /// The account of those whose access key is not twelve digits; `000000000000` by default.
    pub account: String,
    /// The region of those whose signature names none; `us-east-1` by default.
    pub region: String,
    /// Open shards of the provisioned streams of an account in a region; [`DEFAULT_SHARD_LIMIT`] by default.
    pub shard_limit: u32,
    /// Whether shards have the service's [quotas](anabranch::Quotas::kinesis), accounts and streams its [rates](crate::limits::CALLS_PER_SECOND) of control operations, and streams its
    /// [changes a day](crate::limits::CALLS_PER_DAY_OF_STREAM), so that clients are throttled as by it; off by default. What was done is not kept: a restart begins a new day.
    pub enforce_limits: bool,
    /// When the shards of streams on demand are split and merged, and how many such a stream starts with: as the service does, unless told otherwise. A stream that takes
    /// little shows it with lower targets.
    pub on_demand: CapacityPolicy,
    /// For how long, on the service's clock, a stream or a queue is said to be `CREATING`, `UPDATING` or `DELETING` after a change, and refuses what it refuses then: not at all by
    /// default. What was asked for is done all the same when it is answered, and a restart ends the wait.
    pub transition_delay: Duration,
    /// How long a shard iterator is good for; 300 seconds by default.
    pub iterator_lifetime: Duration,
    /// Of which year the service is, where clients see it; as it is now by default.
    pub profile: Profile,
    /// Who may ask. Where there are none, everybody may: signatures are read then and not verified.
    pub credentials: Vec<Credentials>,
}

impl Default for ServiceOptions {
    fn default() -> Self {
        Self {
            durability: Durability::Synced,
            account: "000000000000".to_owned(),
            region: "us-east-1".to_owned(),
            shard_limit: DEFAULT_SHARD_LIMIT,
            enforce_limits: false,
            on_demand: CapacityPolicy::default().min_shards(ON_DEMAND_SHARDS).max_shards(MAX_ON_DEMAND_SHARDS),
            transition_delay: Duration::ZERO,
            iterator_lifetime: ITERATOR_LIFETIME,
            profile: Profile::Current,
            credentials: Vec::new(),
        }
    }
}

/// The Kinesis protocol over the streams of a directory: requests in, answers out. Clones share it.
///
/// It has no socket and no threads of its own but one of each account and region, for flushes and retention. [`Server`](crate::Server) puts it behind a port; a test calls it directly, with
/// a [manual clock](anabranch::ManualClock) and a [simulated disk](anabranch::SimulatedDisk) if it likes:
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path();
/// use anabranch_server::{Service, ServiceOptions};
///
/// let service = Service::open(path, ServiceOptions::default())?;
/// service.create_stream("clicks", 1)?;
/// let put = http::Request::post("/")
///     .header("content-type", "application/x-amz-json-1.1")
///     .header("x-amz-target", "Kinesis_20131202.PutRecord")
///     .header("x-amz-date", "20261126T000000Z")
///     .header("authorization", "AWS4-HMAC-SHA256 Credential=me/20261126/us-east-1/kinesis/aws4_request, SignedHeaders=host, Signature=00")
///     .body(r#"{"StreamName": "clicks", "Data": "aGVsbG8=", "PartitionKey": "a"}"#.into())?;
/// let answer = service.respond(put);
/// assert_eq!(answer.status(), 200);
/// assert!(answer.body().bytes().starts_with(br#"{"ShardId":"shardId-000000000000","#));
/// service.close()?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Service {
    core: Arc<Core>,
}

/// What all clones share.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) options: ServiceOptions,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) catalog: Catalog,
    pub(crate) rates: Rates,
    pub(crate) counters: Counters,
    /// Said to those who ask how it is, so that they send nothing new.
    pub(crate) stopping: AtomicBool,
}

impl Service {
    /// Opens the streams of a directory, which is made if there is none. Streams are opened when they are first asked for.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; of options, a policy that no stream can have, an account that is not twelve digits or a region that is no name. One service at a time has a directory, until its last clone is
    /// dropped: another one gets [`Error::Locked`](anabranch::Error::Locked).
    pub fn open(path: impl AsRef<Path>, options: ServiceOptions) -> Result<Self, OpenError> {
        Self::open_on(path, options, Arc::new(SystemClock::new()), Arc::new(Disk))
    }

    /// Opens it on another clock and another storage than the machine's.
    pub fn open_on(
        path: impl AsRef<Path>,
        options: ServiceOptions,
        clock: Arc<dyn Clock>,
        storage: Arc<dyn Storage>,
    ) -> Result<Self, OpenError> {
        if !is_account(&options.account) {
            return Err(OpenError::Option(format!("account {:?}; it has twelve digits", options.account)));
        }
        if !http_protocol::is_region(&options.region) {
            return Err(OpenError::Option(format!("region {:?}; it is a name as us-east-1", options.region)));
        }
        Capacity::OnDemand(options.on_demand).check()?;
        let common = Common {
            clock: Arc::clone(&clock),
            storage,
            durability: options.durability,
            enforce_limits: options.enforce_limits,
            shard_limit: options.shard_limit,
            on_demand: options.on_demand,
            transition_delay: options.transition_delay,
            changes: Changes::default(),
        };
        let catalog = Catalog::open(path.as_ref().to_path_buf(), common)?;
        let core = Core {
            options,
            clock,
            catalog,
            rates: Rates::default(),
            counters: Counters::default(),
            stopping: AtomicBool::new(false),
        };
        Ok(Self { core: Arc::new(core) })
    }

    /// Answers a request. It may wait for the disk, or for a reshard, whatever the operation: a stream is opened, and recovered, by the first call that asks for it, has the
    /// durability that it was made with, and changes its shards while others put. So it belongs where nobody else is kept waiting, as on a thread for calls that block.
    ///
    /// It does not wait for records: what receives some from a queue is answered with those that there are, as if its `WaitTimeSeconds` were over. A [`Server`](crate::Server) waits.
    pub fn respond(&self, request: Request<Bytes>) -> Response<Body> {
        at_once(self.begin(request))
    }

    /// The same, with calls left open that wait for records.
    pub(crate) fn begin(&self, request: Request<Bytes>) -> Answer {
        let (parts, body) = request.into_parts();
        http_protocol::respond(&self.core, &parts, &body, false)
    }

    /// Answers a put on a worker of a runtime of Tokio with several threads, which it leaves to others only if it has to wait for the disk: going to a thread for calls that block
    /// and back takes longer than a buffered put.
    pub(crate) fn respond_among_sockets(&self, request: Request<Bytes>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        at_once(http_protocol::respond(&self.core, &parts, &body, true))
    }

    /// Whether puts rarely wait.
    pub(crate) fn has_quick_puts(&self) -> bool {
        self.core.options.durability == Durability::Buffered
    }

    /// Answers what operators and their browsers ask: `GET` of `/health`, `/metrics`, `/status` and `/`. It is no part of the protocol, and asks for no signature; a
    /// [`Server`](crate::Server) has it at an address of its own. It may wait for the disk, as [`respond`](Self::respond).
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path();
    /// use anabranch_server::{Service, ServiceOptions};
    ///
    /// let service = Service::open(path, ServiceOptions::default())?;
    /// service.create_stream("clicks", 2)?;
    /// let answer = service.observe(&http::Request::get("/metrics").body(())?);
    /// let text = String::from_utf8(answer.body().bytes().to_vec())?;
    /// assert!(text.contains(r#"anabranch_open_shards{account="000000000000",region="us-east-1",stream="clicks"} 2"#));
    /// # Ok(()) }
    /// ```
    pub fn observe<T>(&self, request: &Request<T>) -> Response<Body> {
        observe::respond(&self.core, request.method(), request.uri().path())
    }

    /// Says from now on, to whoever asks how it is, that it is about to stop.
    pub(crate) fn announce_stop(&self) {
        self.core.stopping.store(true, Ordering::SeqCst);
    }

    /// That of the default account and region.
    #[cfg(test)]
    pub(crate) fn territory(&self) -> Arc<crate::catalog::Territory> {
        let Core { options, catalog, .. } = &*self.core;
        catalog.make_territory(&options.account, &options.region).unwrap()
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.core.counters
    }

    /// Makes a stream in the default account and region, unless there is one of this name. It is active at once, whatever [`ServiceOptions::transition_delay`] says.
    ///
    /// # Errors
    ///
    /// [`CreateError`]: what `CreateStream` would answer.
    pub fn create_stream(&self, name: &str, shards: u32) -> Result<(), CreateError> {
        let Core { options, clock, catalog, .. } = &*self.core;
        let create = || -> Result<(), Fault> {
            let call = Call {
                operation: "CreateStream",
                catalog,
                options,
                account: options.account.clone(),
                region: options.region.clone(),
                format: Format::Json,
                now: clock.now(),
                is_among_sockets: false,
            };
            let mut check = Validator::default();
            check.stream_name("streamName", Some(name));
            check.range("shardCount", Some(shards.into()), 1, crate::limits::MAX_STREAM_SHARDS.into());
            check.finish()?;
            let territory = call.own_territory()?;
            if territory.stream(name).is_some() {
                return Ok(());
            }
            territory.create(name, Settings::new(call.now, Mode::Provisioned), shards, Status::Active)
        };
        create().map_err(|fault| CreateError(fault.reason()))
    }

    /// Does now what is done in the background every few seconds: looks at the load of the open streams on demand, and splits and merges their shards as it asks for. For a
    /// clock that somebody moves.
    ///
    /// # Errors
    ///
    /// The first failure of a stream; all are tried. See [`Stream::rebalance`](anabranch::Stream::rebalance).
    pub fn rebalance(&self) -> anabranch::Result<()> {
        self.core.catalog.rebalance()
    }

    /// Makes everything durable and ends all writing. Requests that come later open the streams anew.
    ///
    /// # Errors
    ///
    /// The first failure of a stream; all are tried.
    pub fn close(&self) -> anabranch::Result<()> {
        self.core.catalog.close()
    }
}

/// Nobody waits.
fn at_once(answer: Answer) -> Response<Body> {
    match answer {
        Answer::Now(answer) => answer.map(Body::given),
        Answer::Later(waiting) => waiting.give_up(),
    }
}
