//! One look at all streams. It opens the accounts and regions that are there, so that nothing is missing after a restart, and no stream: that can take long, and is left to who uses it.

use std::sync::Arc;

use crate::catalog::{Entry, Settings};
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
    pub(super) entry: Arc<Entry>,
    pub(super) settings: Option<Arc<Settings>>,
}

impl StreamLook {
    pub(super) fn open_shards(&self) -> u64 {
        self.settings.as_ref().map_or(0, |settings| settings.open_shards.into())
    }

    /// What tells it from all others.
    pub(super) fn labels(&self) -> [(&'static str, &str); 3] {
        let Entry { account, region, name, .. } = &*self.entry;
        [("account", account), ("region", region), ("stream", name)]
    }
}

pub(super) fn look(core: &Core) -> Look {
    let mut look = Look::default();
    for territory in core.catalog.territories() {
        match territory {
            Ok(territory) => look.streams.extend(territory.entries().into_iter().map(|entry| {
                let settings = entry.settings().ok();
                StreamLook { entry, settings }
            })),
            Err(fault) => look.problems.push(fault.message.unwrap_or_default()),
        }
    }
    look
}
