//! From a request to an answer, without a socket: what is checked in which order, and the headers around it.
//!
//! The order is the service's, since clients and their tests see which fault comes first: CORS, method, content type, body, target, signature, and only then the operation.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use serde::Serialize;

use crate::arn::is_account;
use crate::body::Body;
use crate::errors::{Fault, FaultKind};
use crate::observe;
use crate::operations::{self, Call, Operation, Reply};
use crate::service::Core;
use crate::signature::Signature;
use crate::waiting::Waiting;
use crate::wire::Format;

const TARGET: &str = "x-amz-target";
const TARGET_PREFIX: &str = "Kinesis_20131202.";
const EXPOSED: &str = "x-amzn-RequestId,x-amzn-ErrorType,x-amz-request-id,x-amz-id-2,x-amzn-ErrorMessage,Date";
const DENIED: &str = "<AccessDeniedException>\n  <Message>Unable to determine service/operation name to be authorized</Message>\n</AccessDeniedException>\n";
const PLAIN_JSON: &str = "application/json";

/// An answer, or a call that has none yet.
#[derive(Debug)]
pub(crate) enum Answer {
    Now(Response<Body>),
    Later(Waiting),
}

/// What is known of a request when its answer is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    operation: Option<Operation>,
    format: Format,
    /// By the monotonic clock.
    pub(crate) begun: Duration,
    is_foreign: bool,
}

/// Answers a request; `is_among_sockets` is the call's.
pub(crate) fn respond(core: &Arc<Core>, parts: &Parts, body: &Bytes, is_among_sockets: bool) -> Answer {
    let is_foreign = parts.headers.contains_key(ORIGIN);
    if parts.method == Method::OPTIONS && is_foreign {
        return Answer::Now(labelled(preflight(&parts.headers), is_foreign));
    }
    if let Some(answer) = observe::respond_beside_protocol(core, parts) {
        return Answer::Now(identified(answer, is_foreign));
    }
    match hear(core, parts, body, is_among_sockets) {
        Heard::Call(asked, Ok(Reply::Waiting(receive))) => Waiting::begin(core, receive, asked),
        Heard::Call(asked, outcome) => Answer::Now(asked.answer(core, outcome)),
        Heard::Other(answer) => Answer::Now(identified(answer, is_foreign)),
    }
}

impl Asked {
    /// Counts the request, and makes its answer.
    pub(crate) fn answer(self, core: &Core, outcome: Result<Reply, Fault>) -> Response<Body> {
        let took = core.clock.monotonic().saturating_sub(self.begun);
        let fault = outcome.as_ref().err().map(|fault| fault.kind);
        core.counters.count(self.operation.map(|operation| operation.name), fault, took);
        let answer = match outcome {
            Ok(Reply::Document(bytes)) => {
                let name = self.operation.map_or("", |operation| operation.name);
                let bytes = core.options.profile.answered(name, self.format, bytes);
                success(core, self.format, Reply::Document(bytes))
            }
            Ok(reply) => success(core, self.format, reply),
            Err(fault) => refusal(self.format, &fault),
        };
        identified(answer, self.is_foreign)
    }
}

fn identified(mut response: Response<Body>, is_foreign: bool) -> Response<Body> {
    put_header(response.headers_mut(), "x-amz-id-2", &base64_simd::STANDARD.encode_to_string(random::<72>()));
    labelled(response, is_foreign)
}

fn labelled(mut response: Response<Body>, is_foreign: bool) -> Response<Body> {
    let headers = response.headers_mut();
    put_header(headers, "x-amzn-requestid", &request_id());
    if is_foreign {
        put_header(headers, "access-control-allow-origin", "*");
        put_header(headers, "access-control-expose-headers", EXPOSED);
    }
    response
}

/// A browser asks whether it may ask.
fn preflight(asked: &HeaderMap) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    for (of, to) in [
        ("access-control-request-headers", "access-control-allow-headers"),
        ("access-control-request-method", "access-control-allow-methods"),
    ] {
        if let Some(value) = asked.get(of) {
            headers.insert(HeaderName::from_static(to), value.clone());
        }
    }
    put_header(headers, "access-control-max-age", "172800");
    response
}

/// What a request was.
enum Heard {
    /// A call, and what came of it.
    Call(Asked, Result<Reply, Fault>),
    /// Nothing of this protocol, and what is answered to it.
    Other(Response<Body>),
}

fn hear(core: &Core, parts: &Parts, body: &Bytes, is_among_sockets: bool) -> Heard {
    if parts.method != Method::POST {
        return Heard::Other(plain(StatusCode::FORBIDDEN, DENIED));
    }
    let (target, content_type) = (text(parts, TARGET), text(parts, CONTENT_TYPE.as_str()));
    let profile = core.options.profile;
    let operation = operation(parts).filter(|operation| profile.has(operation.name));
    let (begun, is_foreign) = (core.clock.monotonic(), parts.headers.contains_key(ORIGIN));
    let asked = |format: Format| Asked { operation, format, begun, is_foreign };
    let refuse = |format: Format, kind: FaultKind| Heard::Call(asked(format), Err(Fault::bare(kind)));
    let unknown = if operation.is_some() { FaultKind::Serialization } else { FaultKind::UnknownOperation };
    let format = Format::of_content_type(content_type);
    let is_plain = content_type.split(';').next().is_some_and(|name| name.trim() == PLAIN_JSON);
    if body.is_empty() {
        let format = if is_plain { Format::Json } else { format.unwrap_or(Format::Cbor) };
        return refuse(format, unknown);
    }
    let Some(format) = format else {
        return Heard::Other(foreign(is_plain, target, body));
    };
    let Some(mut fields) = format.read(body) else {
        return refuse(format, FaultKind::Serialization);
    };
    let Some(operation) = operation else {
        return refuse(format, FaultKind::UnknownOperation);
    };
    let outcome = call(core, operation.name, parts, body, format).and_then(|call| {
        let call = Call { is_among_sockets, ..call };
        if core.options.enforce_limits {
            core.rates.admit(operation.name, (&call.account, &call.region), core.clock.monotonic())?;
        }
        profile.asked(operation.name, &mut fields);
        (operation.run)(&call, fields)
    });
    Heard::Call(asked(format), outcome)
}

/// The operation that a request is for.
pub(crate) fn operation(parts: &Parts) -> Option<Operation> {
    text(parts, TARGET).strip_prefix(TARGET_PREFIX).and_then(operations::named)
}

/// A header; empty where it is missing.
fn text<'p>(parts: &'p Parts, name: &str) -> &'p str {
    parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Content types that are not of this protocol.
fn foreign(is_plain_json: bool, target: &str, body: &[u8]) -> Response<Body> {
    let of_coral = |status, kind: FaultKind| {
        let text =
            format!(r#"{{"Output":{{"__type":"com.amazon.coral.service#{}"}},"Version":"1.0"}}"#, kind.name());
        let mut response = plain(status, text);
        put_header(response.headers_mut(), CONTENT_TYPE.as_str(), PLAIN_JSON);
        response
    };
    match (is_plain_json, target) {
        (true, _) if Format::Json.read(body).is_none() => {
            of_coral(StatusCode::BAD_REQUEST, FaultKind::Serialization)
        }
        (true, _) => of_coral(StatusCode::NOT_FOUND, FaultKind::UnknownOperation),
        (false, "") => plain(StatusCode::FORBIDDEN, DENIED),
        (false, _) => plain(StatusCode::NOT_FOUND, "<UnknownOperationException/>\n"),
    }
}

/// Who asks for what: the account is the access key, where that has twelve digits, the region is the signature's.
fn call<'c>(
    core: &'c Core,
    operation: &'static str,
    parts: &Parts,
    body: &[u8],
    format: Format,
) -> Result<Call<'c>, Fault> {
    let now = core.clock.now();
    let signature = Signature::read(parts)?;
    if !core.options.credentials.is_empty() {
        signature.verify(parts, body, &core.options.credentials, now)?;
    }
    let (key, region) = (signature.access_key_id(), signature.region());
    let account = if is_account(key) { key } else { &core.options.account };
    let region = if is_region(region) { region } else { &core.options.region };
    Ok(Call {
        operation,
        catalog: &core.catalog,
        options: &core.options,
        account: account.to_owned(),
        region: region.to_owned(),
        format,
        now,
        is_among_sockets: false,
    })
}

/// It becomes the name of a directory.
pub(crate) fn is_region(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=64).contains(&text.len()) && text.bytes().all(is_plain)
}

fn success(core: &Core, format: Format, reply: Reply) -> Response<Body> {
    let (content_type, body) = match reply {
        Reply::Empty => (format.content_type(), Body::empty()),
        Reply::Document(bytes) => (format.content_type(), Body::whole(bytes)),
        Reply::Records(bytes, taken) => (format.content_type(), Body::of_records(bytes, taken)),
        Reply::Events(events) => {
            ("application/vnd.amazon.eventstream", Body::events(events, Arc::clone(&core.clock)))
        }
        Reply::Waiting(receive) => return success(core, format, Reply::Document(receive.nothing())),
    };
    let mut response = Response::new(body);
    put_header(response.headers_mut(), CONTENT_TYPE.as_str(), content_type);
    response
}

#[derive(Serialize)]
struct Refusal<'a> {
    #[serde(rename = "__type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    /// Of serialization faults alone.
    #[serde(rename = "Message", skip_serializing_if = "Option::is_none")]
    capital: Option<&'a str>,
}

fn refusal(format: Format, fault: &Fault) -> Response<Body> {
    let message = fault.message.as_deref();
    let is_capital = fault.kind == FaultKind::Serialization;
    let document = Refusal {
        kind: fault.kind.name(),
        message: message.filter(|_| !is_capital),
        capital: message.filter(|_| is_capital),
    };
    let mut response = Response::new(Body::whole(format.write(&document).unwrap_or_default()));
    *response.status_mut() =
        StatusCode::from_u16(fault.kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    put_header(response.headers_mut(), CONTENT_TYPE.as_str(), format.content_type());
    put_header(response.headers_mut(), "x-amzn-errortype", fault.kind.name());
    response
}

fn plain(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    let mut response = Response::new(Body::whole(text.into().into_bytes()));
    *response.status_mut() = status;
    response
}

fn put_header(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}

fn request_id() -> String {
    let number = u128::from_le_bytes(random());
    let text = format!("{number:032x}");
    let part = |from: usize, to: usize| text.get(from..to).unwrap_or_default().to_owned();
    format!("{}-{}-4{}-a{}-{}", part(0, 8), part(8, 12), part(13, 16), part(17, 20), part(20, 32))
}

/// Bytes that differ at every call: for ids, not for secrets.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    for chunk in bytes.chunks_mut(8) {
        let word = RandomState::new().build_hasher().finish().to_le_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
    bytes
}
