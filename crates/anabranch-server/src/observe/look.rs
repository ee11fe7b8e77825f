//! One look at all streams. It opens nothing, and writes nothing but settings that could not be written before: that can take long, and is left to who uses them. What nobody has used since the server was started is read from its files.

use std::sync::Arc;

use anabranch::Stream;

use super::counters::Traffic;
use crate::catalog::{Entry, Resting, Settings, Surveyed};
use crate::errors::Fault;
use crate::service::Core;

/// What there is.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// By account, region and name.
    pub(super) streams: Vec<StreamLook>,
    /// Why more may be there, and cannot be told of.
    pub(super) problems: Vec<String>,
}

/// A stream, and its settings where they can be read.
#[derive(Debug)]
pub(super) struct StreamLook {
    pub(super) account: String,
    pub(super) region: String,
    pub(super) name: String,
    /// Where it is in use; with its traffic.
    pub(super) entry: Option<Arc<Entry>>,
    pub(super) settings: Option<Arc<Settings>>,
    /// Why it, or one of its shards, is refused.
    pub(super) failure: Option<String>,
}

impl StreamLook {
    fn of_entry(entry: Arc<Entry>) -> Self {
        let settings = entry.settings();
        let fault = settings.as_ref().err().map(Fault::reason);
        Self {
            account: entry.account.clone(),
            region: entry.region.clone(),
            name: entry.name.clone(),
            settings: settings.ok(),
            failure: entry.failure().or(fault),
            entry: Some(entry),
        }
    }

    fn of_resting(resting: Resting) -> impl Iterator<Item = Self> {
        let Resting { account, region, streams } = resting;
        streams.into_iter().map(move |stream| {
            let (settings, failure) = match stream.settings {
                Ok(settings) => (settings, None),
                Err(reason) => (None, Some(reason)),
            };
            let (account, region) = (account.clone(), region.clone());
            Self { account, region, name: stream.name, entry: None, settings, failure }
        })
    }

    /// The stream, if it is open.
    pub(super) fn opened(&self) -> Option<Stream> {
        self.entry.as_ref().and_then(|entry| entry.opened_stream())
    }

    /// An open stream knows best: the load may have changed its shards a moment ago.
    pub(super) fn open_shards(&self) -> u64 {
        let noted = || self.settings.as_ref().map_or(0, |settings| settings.open_shards.into());
        self.opened().map_or_else(noted, |stream| stream.open_shards().len() as u64)
    }

    /// A count of its traffic.
    pub(super) fn count(&self, of: fn(&Traffic) -> u64) -> u64 {
        self.entry.as_ref().map_or(0, |entry| of(&entry.traffic))
    }

    /// What tells it from all others.
    pub(super) fn labels(&self) -> [(&'static str, &str); 3] {
        [("account", &self.account), ("region", &self.region), ("stream", &self.name)]
    }

    pub(super) fn arn(&self) -> String {
        crate::arn::of_stream(&self.region, &self.account, &self.name)
    }
}

pub(super) fn look(core: &Core) -> Look {
    let mut look = Look::default();
    for surveyed in core.catalog.survey() {
        match surveyed {
            Ok(Surveyed::Open(territory)) => {
                look.streams.extend(territory.entries().into_iter().map(StreamLook::of_entry));
            }
            Ok(Surveyed::Resting(resting)) => look.streams.extend(StreamLook::of_resting(resting)),
            Err(fault) => look.problems.push(fault.reason()),
        }
    }
    look
}
