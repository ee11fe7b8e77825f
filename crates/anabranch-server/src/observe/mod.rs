//! What operators and their browsers are told: whether the server is well, its counts, and a page that shows its streams.
//!
//! ```text
//! GET /health     200, or 503 with the reason
//! GET /metrics    counts, for Prometheus
//! GET /status     what the page shows, as JSON
//! GET /           the page
//! ```
//!
//! All of it is at an address of its own. The protocol's port answers GET as the service does, with a refusal, but for two requests that no client of the service makes: a
//! browser's for the page, and the page's own for what it shows. Neither is answered there where credentials are configured, since neither is signed, nor to the scripts of other
//! sites, whose requests have an origin, or come for a name of theirs.

mod counters;
mod exposition;
mod health;
mod look;
mod page;
mod status;

use std::net::IpAddr;

use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderName, ORIGIN, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};
use serde::Serialize;

use crate::body::Body;
use crate::service::Core;

pub(crate) use counters::{Counted, Counters, Traffic};

const JSON: &str = "application/json";
const HTML: &str = "text/html";

/// Answers at the address of its own.
pub(crate) fn respond(core: &Core, method: &Method, path: &str) -> Response<Body> {
    if method != Method::GET && method != Method::HEAD {
        return answer(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "GET only\n");
    }
    match path {
        "/" => page::page(),
        "/health" => health::respond(core),
        "/metrics" => {
            let text = exposition::write(core, &look::look(core));
            answer(StatusCode::OK, exposition::CONTENT_TYPE, text)
        }
        "/status" => json(StatusCode::OK, &status::Status::new(core)),
        _ => answer(StatusCode::NOT_FOUND, "text/plain", "/, /health, /metrics or /status\n"),
    }
}

/// What of it the protocol's port has; nothing for what is a request of the protocol.
pub(crate) fn respond_beside_protocol(core: &Core, parts: &Parts) -> Option<Response<Body>> {
    let is_for_all = core.options.credentials.is_empty() && !parts.headers.contains_key(ORIGIN);
    if parts.method != Method::GET || !is_for_all || has_foreign_host(&parts.headers, &parts.uri) {
        return None;
    }
    let accept = parts.headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let accepts =
        |kind: &str| accept.split(',').any(|part| part.split(';').next().unwrap_or_default().trim() == kind);
    match parts.uri.path() {
        "/" if accepts(HTML) => Some(page::page()),
        "/status" if accepts(JSON) => Some(json(StatusCode::OK, &status::Status::new(core))),
        _ => None,
    }
}

/// Whether a request is for a name other than `localhost`. A page elsewhere can let a name of its own lead here (DNS rebinding), and its scripts would read what
/// is for operators; an address, no page can make its own.
pub(crate) fn has_foreign_host(headers: &HeaderMap, uri: &Uri) -> bool {
    let header = headers.get(HOST).map(|host| Authority::try_from(host.as_bytes()));
    let is_foreign = |authority: &Authority| {
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        !host.eq_ignore_ascii_case("localhost") && host.parse::<IpAddr>().is_err()
    };
    let is_foreign_header = header.is_some_and(|host| host.as_ref().map_or(true, is_foreign));
    is_foreign_header || uri.authority().is_some_and(is_foreign)
}

fn json(status: StatusCode, document: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(document) {
        Ok(bytes) => answer(status, JSON, bytes),
        Err(error) => answer(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", error.to_string()),
    }
}

/// An answer that is true now and later no more.
fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Vec<u8>>) -> Response<Body> {
    let mut response = Response::new(Body::whole(body.into()));
    *response.status_mut() = status;
    for (name, value) in
        [(CONTENT_TYPE, content_type), (CACHE_CONTROL, "no-store"), (X_CONTENT_TYPE_OPTIONS, "nosniff")]
    {
        put(&mut response, name, HeaderValue::from_static(value));
    }
    response
}

fn put(response: &mut Response<Body>, name: HeaderName, value: HeaderValue) {
    response.headers_mut().insert(name, value);
}
