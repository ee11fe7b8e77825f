//! One call: who asks, in what format, when; and what is answered.

use std::sync::Arc;

use anabranch::{Stream, Timestamp};
use serde::Serialize;

use crate::catalog::{Catalog, Entry, Territory};
use crate::errors::Fault;
use crate::profile::Bounds;
use crate::service::ServiceOptions;
use crate::subscription::Subscription;
use crate::wire::Format;

use super::{Receive, Taken};

/// A call of an operation.
#[derive(Debug)]
pub(crate) struct Call<'c> {
    /// The name of the operation.
    pub(crate) operation: &'static str,
    pub(crate) catalog: &'c Catalog,
    pub(crate) options: &'c ServiceOptions,
    pub(crate) account: String,
    pub(crate) region: String,
    pub(crate) format: Format,
    pub(crate) now: Timestamp,
    /// Whether it runs where sockets are read: what waits has to say so.
    pub(crate) is_among_sockets: bool,
}

/// What an operation answers.
#[derive(Debug)]
pub(crate) enum Reply {
    /// Operations without output have no body at all.
    Empty,
    Document(Vec<u8>),
    /// Records of a queue, which nobody else gets meanwhile.
    Records(Vec<u8>, Box<Taken>),
    Events(Box<Subscription>),
    /// There are no records yet.
    Waiting(Box<Receive>),
}

impl Call<'_> {
    /// Those that were not the same in all years.
    pub(crate) fn bounds(&self) -> &'static Bounds {
        self.options.profile.bounds()
    }

    /// Does what may wait for the disk.
    pub(crate) fn waiting<T>(&self, wait: impl FnOnce() -> T) -> T {
        if self.is_among_sockets { tokio::task::block_in_place(wait) } else { wait() }
    }

    pub(crate) fn territory(&self) -> Result<Option<Arc<Territory>>, Fault> {
        match self.catalog.opened_territory(&self.account, &self.region) {
            Some(territory) => Ok(Some(territory)),
            None => self.waiting(|| self.catalog.territory(&self.account, &self.region)),
        }
    }

    /// The stream, which is opened if it is not open yet.
    pub(crate) fn open(&self, entry: &Entry) -> Result<Stream, Fault> {
        entry.opened_stream().map_or_else(|| self.waiting(|| entry.stream()), Ok)
    }

    /// The stream of a name, if it may be asked now.
    pub(crate) fn stream(&self, name: &str) -> Result<Arc<Entry>, Fault> {
        let found = self.territory()?.and_then(|territory| territory.stream(name));
        let entry = found.ok_or_else(|| Fault::stream_not_found(name, &self.account))?;
        entry.admit(self.operation)?;
        Ok(entry)
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
