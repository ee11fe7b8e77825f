//! `/health`: whether the server takes what it is given.

use std::sync::atomic::Ordering;

use http::{Response, StatusCode};
use serde::Serialize;

use super::json;
use super::look::{Look, look};
use crate::body::Body;
use crate::service::Core;

/// How the server is.
#[derive(Debug, Serialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub(super) enum Health {
    Ok,
    /// It stops: nothing new should be sent to it.
    Stopping,
    /// Something is refused until somebody mends it, or starts the server again.
    Failing {
        reasons: Vec<String>,
    },
}

impl Health {
    pub(super) fn new(core: &Core, look: &Look) -> Self {
        if core.stopping.load(Ordering::SeqCst) {
            return Self::Stopping;
        }
        let failures = look.streams.iter().filter_map(|stream| {
            let failure = stream.failure.as_deref()?;
            Some(format!("{}: {failure}", stream.arn()))
        });
        let reasons: Vec<_> = look.problems.iter().cloned().chain(failures).collect();
        if reasons.is_empty() { Self::Ok } else { Self::Failing { reasons } }
    }
}

pub(super) fn respond(core: &Core) -> Response<Body> {
    let health = Health::new(core, &look(core));
    let status = if matches!(health, Health::Ok) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(status, &health)
}
