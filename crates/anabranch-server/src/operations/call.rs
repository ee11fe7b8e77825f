//! One call: who asks, in what format, when; and what is answered.

use std::sync::Arc;

use anabranch::Timestamp;
use serde::Serialize;

use crate::catalog::{Catalog, Entry, Territory};
use crate::errors::Fault;
use crate::service::ServiceOptions;
use crate::subscription::Subscription;
use crate::wire::Format;

/// A call of an operation.
#[derive(Debug)]
pub(crate) struct Call<'c> {
    pub(crate) catalog: &'c Catalog,
    pub(crate) options: &'c ServiceOptions,
    pub(crate) account: String,
    pub(crate) region: String,
    pub(crate) format: Format,
    pub(crate) now: Timestamp,
}

/// What an operation answers.
#[derive(Debug)]
pub(crate) enum Reply {
    /// Operations without output have no body at all.
    Empty,
    Document(Vec<u8>),
    Events(Box<Subscription>),
}

impl Call<'_> {
    pub(crate) fn territory(&self) -> Result<Option<Arc<Territory>>, Fault> {
        self.catalog.territory(&self.account, &self.region)
    }

    pub(crate) fn stream(&self, name: &str) -> Result<Arc<Entry>, Fault> {
        let found = self.territory()?.and_then(|territory| territory.stream(name));
        found.ok_or_else(|| Fault::stream_not_found(name, &self.account))
    }

    /// The territory of a stream that was found.
    pub(crate) fn own_territory(&self) -> Result<Arc<Territory>, Fault> {
        self.catalog.make_territory(&self.account, &self.region)
    }

    pub(crate) fn answer(&self, document: &impl Serialize) -> Result<Reply, Fault> {
        self.format.write(document).map(Reply::Document)
    }

    /// As [`answer`](Self::answer), of so many bytes or somewhat less.
    pub(crate) fn answer_sized(&self, document: &impl Serialize, bytes: usize) -> Result<Reply, Fault> {
        self.format.write_sized(document, bytes).map(Reply::Document)
    }
}
