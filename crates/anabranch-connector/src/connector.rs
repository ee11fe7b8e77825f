//! Requests of the SDK in, answers of a service out.

use std::sync::Arc;
use std::time::Duration;

use anabranch::{ManualClock, SimulatedDisk};
use anabranch_server::{Body, OpenError, Service, ServiceOptions, limits};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_runtime_api::client::behavior_version::BehaviorVersion;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_types::SdkConfig;
use aws_types::region::Region;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as _;
use http_body_util::{BodyExt, Limited};
use tokio::runtime::Handle;

use crate::faults::{Fault, Faults, Injection, Injector};
use crate::partial;

/// An HTTP client of the AWS SDK that calls a [`Service`] in the same process. Clones share it.
///
/// ```
/// use anabranch_connector::Connector;
/// use anabranch_server::{Service, ServiceOptions};
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path();
///
/// // Streams that stay: a service on a directory and on the machine's clock.
/// let service = Service::open(path, ServiceOptions::default())?;
/// let config = Connector::new(service).sdk_config();
/// assert_eq!(config.region().map(|region| region.as_ref()), Some("us-east-1"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Connector {
    service: Service,
    /// The service's, where it is one that the test moves.
    clock: Option<Arc<ManualClock>>,
    injector: Option<Arc<Injector>>,
    /// How long its client waits for an answer, if not for ever.
    read_timeout: Option<Duration>,
}

impl Connector {
    /// Answers from this service.
    ///
    /// One that [verifies signatures](ServiceOptions::credentials) compares their time with its own clock's: on a [`ManualClock`], clients need a `time_source` that tells that time.
    pub fn new(service: Service) -> Self {
        Self { service, clock: None, injector: None, read_timeout: None }
    }

    /// Answers from an empty service whose disk is in memory, and whose time, 2026-01-01 at first, passes when the test says so. To crash the disk, or to have other options, make the
    /// [`Service`] with [`Service::open_on`].
    ///
    /// # Errors
    ///
    /// As [`Service::open_on`]; an empty disk in memory gives none.
    pub fn in_memory() -> Result<(Self, Arc<ManualClock>), OpenError> {
        let clock = Arc::new(ManualClock::default());
        let disk = Arc::new(SimulatedDisk::new());
        let service = Service::open_on("/kinesis", ServiceOptions::default(), clock.clone(), disk)?;
        Ok((Self { clock: Some(clock.clone()), ..Self::new(service) }, clock))
    }

    /// The service that answers, for what is no call of a client: [`Service::create_stream`], [`Service::rebalance`], [`Service::observe`].
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// The same service, with faults between it and its clients. The connector that this is called on, and its other clones, stay as they are.
    /// What it remembers, to decide and to tell, grows with the calls: it is for tests.
    #[must_use]
    pub fn with_faults(&self, faults: Faults) -> Self {
        let delay_clock = faults.delay_clock.or_else(|| self.clock.clone());
        let injector = Injector::new(Faults { delay_clock, ..faults });
        Self { injector: Some(Arc::new(injector)), ..self.clone() }
    }

    /// What was injected since this was last asked, oldest first: for clients that call one after another, in the order of their calls. Nothing at all, not even an empty list, of a connector
    /// without faults: it is the one that [`with_faults`](Self::with_faults) gave that knows.
    pub fn take_injections(&self) -> Option<Vec<Injection>> {
        self.injector.as_ref().map(|injector| injector.take_log())
    }

    /// What a client is made from: this connector, the region `us-east-1`, some credentials, and for the rest what the SDK does by default.
    /// Whoever has a configuration gives it the connector as its `http_client` instead.
    ///
    /// A client asks for the streams of its own region: where [`ServiceOptions::region`] is another one, those that [`Service::create_stream`] makes are there, and a client that is to see them
    /// is given that region.
    pub fn sdk_config(&self) -> SdkConfig {
        let credentials = Credentials::from_keys("me", "secret", None);
        SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::from_static("us-east-1"))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .http_client(self.clone())
            .build()
    }

    /// The answer, if it comes in time. The call goes on to its end in any case, as one does that is on its way.
    async fn answer_in_time(self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        match self.read_timeout.filter(|_| Handle::try_current().is_ok()) {
            Some(timeout) => tokio::time::timeout(timeout, self.answer(request))
                .await
                .unwrap_or_else(|late| Err(ConnectorError::timeout(late.into()))),
            None => self.answer(request).await,
        }
    }

    async fn answer(self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let request = whole(request).await?;
        match &self.injector {
            Some(injector) => self.answer_with_faults(injector, request).await,
            None => sdk_response(self.respond(request).await?),
        }
    }

    async fn answer_with_faults(
        &self,
        injector: &Injector,
        request: Request<Bytes>,
    ) -> Result<HttpResponse, ConnectorError> {
        let fate = injector.fate(operation(&request), request.body());
        let answer = match fate.fault {
            None => self.respond(request).await.and_then(sdk_response),
            Some(Fault::AnswerLost) => {
                self.respond(request).await?;
                Err(ConnectorError::io("the connection broke before the answer (injected)".into()))
            }
            Some(Fault::RecordsFailed(places)) => {
                self.respond_in_part(injector, request, places).await.and_then(sdk_response)
            }
            Some(fault) => sdk_response(fault.refusal(operation(&request), fate.number)),
        };
        if let Some(delay) = fate.delay {
            injector.pass(delay).await;
        }
        answer
    }

    /// The service is asked about the whole request first: what it refuses stays refused, also where it is for a record that fails, and none did.
    async fn respond_in_part(
        &self,
        injector: &Injector,
        request: Request<Bytes>,
        places: Vec<usize>,
    ) -> Result<Response<SdkBody>, ConnectorError> {
        let (head, body) = request.into_parts();
        let whole = self.respond(Request::from_parts(head.clone(), partial::dry(&body))).await?;
        if !partial::is_fine_but_dry(whole.body()) {
            return Ok(whole);
        }
        let rest = Request::from_parts(head, partial::without(&body, &places));
        let name = operation(&rest).to_owned();
        let answer = self.respond(rest).await?;
        if !answer.status().is_success() {
            return Ok(answer);
        }
        let answer = answer.map(|answer| partial::woven(answer, &places));
        injector.log(&name, &body, Fault::RecordsFailed(places));
        Ok(answer)
    }

    /// The service's answer, from a thread that may wait if there is one.
    async fn respond(&self, request: Request<Bytes>) -> Result<Response<SdkBody>, ConnectorError> {
        let response = if Handle::try_current().is_ok() {
            let service = self.service.clone();
            let answer = tokio::task::spawn_blocking(move || service.respond(request)).await;
            answer.map_err(|error| ConnectorError::other(error.into(), None))?
        } else if operation(&request) == "SubscribeToShard" {
            return Err(ConnectorError::user("SubscribeToShard needs a Tokio runtime".into()));
        } else {
            self.service.respond(request)
        };
        Ok(response.map(sdk_body))
    }
}

impl HttpClient for Connector {
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(Self { read_timeout: settings.read_timeout(), ..self.clone() })
    }
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::new(self.clone().answer_in_time(request))
    }
}

/// A request with its body in one piece.
async fn whole(request: HttpRequest) -> Result<Request<Bytes>, ConnectorError> {
    let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
    let (head, body) = request.into_parts();
    let body = Limited::new(body, limits::MAX_BODY_BYTES).collect().await.map_err(ConnectorError::user)?;
    Ok(Request::from_parts(head, body.to_bytes()))
}

/// The name of the operation; empty if there is none.
fn operation(request: &Request<Bytes>) -> &str {
    let target = request.headers().get("x-amz-target").and_then(|target| target.to_str().ok());
    target.and_then(|target| target.split_once('.')).map_or("", |(_, operation)| operation)
}

fn sdk_response(response: Response<SdkBody>) -> Result<HttpResponse, ConnectorError> {
    response.try_into().map_err(|error| ConnectorError::other(Box::new(error), None))
}

/// A whole body as bytes, which can be looked at; one of events as it comes.
fn sdk_body(body: Body) -> SdkBody {
    if body.size_hint().exact().is_some() { SdkBody::from(body.bytes()) } else { SdkBody::from_body_1_x(body) }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn request(operation: &str, body: &str) -> HttpRequest {
        let request = Request::post("https://kinesis.us-east-1.amazonaws.com/")
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", format!("Kinesis_20131202.{operation}"))
            .header("x-amz-date", "20260101T000000Z")
            .header(
                "authorization",
                "AWS4-HMAC-SHA256 Credential=me/20260101/us-east-1/kinesis/aws4_request, SignedHeaders=host, Signature=00",
            );
        request.body(SdkBody::from(body)).unwrap().try_into().unwrap()
    }

    /// The answer, where it is there at once.
    fn call(connector: &Connector, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        match pin!(connector.call(request)).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => answer,
            Poll::Pending => panic!("it waits for something"),
        }
    }

    #[test]
    fn outside_of_a_runtime_it_answers_where_it_is_called() {
        let (connector, _clock) = Connector::in_memory().unwrap();
        let create = request("CreateStream", r#"{"StreamName": "s", "ShardCount": 1}"#);
        assert_eq!(call(&connector, create).unwrap().status().as_u16(), 200);
        assert!(call(&connector, request("SubscribeToShard", "{}")).unwrap_err().is_user());
    }

    #[test]
    fn what_is_no_call_of_kinesis_is_refused_by_the_service() {
        let (connector, _clock) = Connector::in_memory().unwrap();
        let faults = connector.with_faults(Faults { records_failed: 1.0, ..Faults::new(0) });
        for body in ["", "{", "[]", "3", r#"{"Records": 3}"#, r#"{"Records": [3, 4]}"#] {
            for connector in [&connector, &faults] {
                let answer = call(connector, request("PutRecords", body)).unwrap();
                assert_eq!(answer.status().as_u16(), 400, "{body}");
            }
        }
        assert_eq!(call(&faults, request("", "{}")).unwrap().status().as_u16(), 400);
    }

    #[test]
    fn what_was_asked_without_effect_has_none_when_records_fail() {
        let (connector, _clock) = Connector::in_memory().unwrap();
        connector.service().create_stream("s", 1).unwrap();
        let faults = connector.with_faults(Faults { records_failed: 1.0, ..Faults::new(0) });
        let record = r#"{"Data": "YQ==", "PartitionKey": "a"}"#;
        let put = format!(r#"{{"StreamName": "s", "DryRun": true, "Records": [{record}, {record}]}}"#);
        let answer = call(&faults, request("PutRecords", &put)).unwrap();
        assert!(partial::is_fine_but_dry(answer.body()));
    }

    /// Calls wait on threads for calls that block: where there is one, and it is taken, nobody else is kept waiting. And a request that is on its way takes effect, as over a network.
    #[test]
    fn a_call_has_a_thread_and_goes_on_to_its_end_when_its_caller_has_gone() {
        let (connector, _clock) = Connector::in_memory().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        let (release, taken) = std::sync::mpsc::channel::<()>();
        runtime.spawn_blocking(move || taken.recv());
        runtime.block_on(async {
            {
                let create = request("CreateStream", r#"{"StreamName": "s", "ShardCount": 1}"#);
                let mut call = pin!(connector.call(create));
                assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            }
            drop(release);
            let describe = connector.call(request("DescribeStreamSummary", r#"{"StreamName": "s"}"#));
            assert_eq!(describe.await.unwrap().status().as_u16(), 200);
        });
    }
}
