//! A territory that nobody has asked for since the server was started, as those see it who only look: its files are read, and nothing is opened, cleared away or written.

use std::io;
use std::path::Path;
use std::sync::Arc;

use anabranch::storage::Storage;

use super::settings::{self, Settings};
use super::{Key, SETTINGS, STREAMS};
use crate::OpenError;
use crate::errors::Fault;
use crate::validate::NAME;

/// The file that makes a directory a stream of the library.
const MANIFEST: &str = "MANIFEST";

/// An account in a region.
#[derive(Debug)]
pub(crate) struct Resting {
    pub(crate) account: String,
    pub(crate) region: String,
    /// By name.
    pub(crate) streams: Vec<RestingStream>,
}

/// A stream, and its settings if it has any; or why they cannot be read.
#[derive(Debug)]
pub(crate) struct RestingStream {
    pub(crate) name: String,
    pub(crate) settings: Result<Option<Arc<Settings>>, String>,
}

impl Resting {
    pub(super) fn read(path: &Path, (account, region): Key, storage: &dyn Storage) -> Result<Self, Fault> {
        let (directory, settings) = (path.join(STREAMS), path.join(SETTINGS));
        let listed =
            storage.list(&directory).map_err(|error| Fault::internal(OpenError::io(&directory)(error)))?;
        let mut streams = Vec::new();
        for entry in listed.into_iter().filter(|entry| entry.is_dir && NAME.holds(&entry.name)) {
            if let Some(reason) = why_lost(storage, &directory, &settings, &entry.name) {
                streams.push(RestingStream { name: entry.name, settings: Err(reason) });
            } else if is_stream(&directory.join(&entry.name), storage) {
                streams.push(RestingStream::read(entry.name, &settings, storage));
            }
        }
        streams.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { account, region, streams })
    }
}

impl RestingStream {
    fn read(name: String, settings: &Path, storage: &dyn Storage) -> Self {
        let read = settings::read(storage, settings, &name);
        Self { name, settings: read.map(|found| found.map(Arc::new)).map_err(|error| error.to_string()) }
    }
}

/// Why a directory that is no stream was one: its MANIFEST is missing, and whoever brings it back is to find the settings too. Those of a creation that was cut short
/// know of no shard yet.
pub(super) fn why_lost(storage: &dyn Storage, streams: &Path, settings: &Path, name: &str) -> Option<String> {
    let path = streams.join(name);
    match storage.list(&path) {
        Ok(entries) if entries.iter().any(|entry| entry.name == MANIFEST) => return None,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        _ => {}
    }
    let was_whole = settings::read(storage, settings, name)
        .map(|settings| settings.is_some_and(|settings| !settings.births.is_empty()));
    was_whole.unwrap_or(true).then(|| format!("{} is missing", path.join(MANIFEST).display()))
}

/// One that went away meanwhile is none.
fn is_stream(path: &Path, storage: &dyn Storage) -> bool {
    storage.list(path).is_ok_and(|entries| entries.iter().any(|entry| entry.name == MANIFEST))
}
