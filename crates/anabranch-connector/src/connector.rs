//! Requests of the SDK in, answers of a service out.

use std::sync::Arc;

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
    injector: Option<Arc<Injector>>,
}

impl Connector {
    /// Answers from this service.
    pub fn new(service: Service) -> Self {
        Self { service, injector: None }
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
        Ok((Self::new(service), clock))
    }

    /// The same service, with faults between it and its clients. The connector that this is called on, and its other clones, stay as they are.
    /// What it remembers, to decide and to tell, grows with the calls: it is for tests.
    #[must_use]
    pub fn with_faults(&self, faults: Faults) -> Self {
        Self { service: self.service.clone(), injector: Some(Arc::new(Injector::new(faults))) }
    }

    /// What was injected since this was last asked, oldest first: for clients that call one after another, in the order of their calls.
    pub fn take_injections(&self) -> Vec<Injection> {
        self.injector.as_ref().map(|injector| injector.take_log()).unwrap_or_default()
    }

    /// What a client is made from: this connector, the region `us-east-1`, some credentials, and for the rest what the SDK does by default.
    /// Whoever has a configuration gives it the connector as its `http_client` instead.
    pub fn sdk_config(&self) -> SdkConfig {
        let credentials = Credentials::from_keys("me", "secret", None);
        SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::from_static("us-east-1"))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .http_client(self.clone())
            .build()
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
        if let Some(delay) = fate.delay {
            injector.pass(delay).await;
        }
        match fate.fault {
            None => sdk_response(self.respond(request).await?),
            Some(Fault::AnswerLost) => {
                self.respond(request).await?;
                Err(ConnectorError::io("the connection broke before the answer (injected)".into()))
            }
            Some(Fault::RecordsFailed(places)) => {
                let (head, body) = request.into_parts();
                let rest = Request::from_parts(head, partial::without(&body, &places));
                let answer = self.respond(rest).await?;
                sdk_response(answer.map(|body| partial::woven(body, &places)))
            }
            Some(fault) => sdk_response(fault.refusal(operation(&request))),
        }
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
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::new(self.clone().answer(request))
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
