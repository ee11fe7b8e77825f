//! Keeping a read-only stream up with the process that writes it.

use crate::sync::atomic::Ordering;
use std::io;
use std::sync::Arc;

use super::open::{LOOKS, SHARDS_DIRECTORY};
use super::{Member, StreamInner};
use crate::error::{Error, ErrorKind, Result};
use crate::format::ManifestState;
use crate::manifest::{self, Manifest};
use crate::shard::Shard;
use crate::storage::Fault;
use crate::types::SequenceNumber;

impl StreamInner {
    /// In a read-only stream: takes over what the writer changed in the manifest.
    pub(super) fn refresh(&self) -> Result<()> {
        if !self.follows() {
            return Ok(());
        }
        for _ in 1..LOOKS {
            match self.take_over_manifest() {
                Err(error) if self.may_be_stale(&error) => {} // the writer went on meanwhile, and has removed what the manifest named
                other => return other,
            }
        }
        self.take_over_manifest()
    }

    /// Whether it looks at what another process writes. A copy that a fork made does not: another thread of its parent may have had the locks.
    fn follows(&self) -> bool {
        self.read_only && !self.context.process.was_forked()
    }

    fn take_over_manifest(&self) -> Result<()> {
        let mut manifest = self.manifest.lock();
        let storage = self.context.storage.as_ref();
        let changed = manifest::changed(storage, &self.path, manifest.state());
        if !changed.map_err(|fault| self.or_deleted(fault))? {
            return Ok(());
        }
        let loaded = manifest::load_durable(storage, &self.path).map_err(|fault| self.or_deleted(fault))?;
        let Some(state) = loaded else {
            return Err(Error::StreamNotFound(self.path.clone()));
        };
        if state.stream_id != self.context.stream_id {
            return Err(Error::StreamNotFound(self.path.clone())); // deleted, and another one made in its place
        }
        let known = self.topology();
        let mut made = Vec::new();
        for entry in &state.shards {
            if let Some(member) = known.shards.get(&entry.id) {
                member.shard.refresh_entry(entry);
            } else {
                let directory = self.path.join(SHARDS_DIRECTORY).join(entry.id.directory());
                made.push(Arc::new(Shard::follow(Arc::clone(&self.context), directory, entry)?));
            }
        }
        self.context.retention.store(state.options.retention.as_millis().unwrap_or(u64::MAX), Ordering::Relaxed);
        self.context.producers.replace(&state.producers);
        self.publish(&state, made);
        // Behind that, so that a reader that meets the end of one finds its children.
        for (id, member) in &known.shards {
            if state.shard(*id).is_none() {
                member.shard.expire(end_of_expired(member, &state));
            }
        }
        *manifest = Manifest::new(Arc::clone(&self.context.storage), self.path.clone(), state);
        Ok(())
    }

    /// A manifest that is gone means that the stream was deleted.
    fn or_deleted(&self, fault: Fault) -> Error {
        match fault {
            Fault::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Error::StreamNotFound(self.path.clone())
            }
            other => other.into(),
        }
    }

    /// In a read-only stream: looks for what the writer added to a shard.
    pub(super) fn refresh_shard(&self, shard: &Shard) -> Result<()> {
        if !self.follows() {
            return Ok(());
        }
        shard.refresh()?;
        if let Some(member) = self.topology().shards.get(&shard.id()) {
            member.shard.refresh_end(&member.entry);
        }
        Ok(())
    }

    /// Looks at files. Beside a live writer, or retention in another thread, one may have gone since it was listed: then again, by what is listed now.
    pub(super) fn look<T>(&self, mut look: impl FnMut() -> Result<T>) -> Result<T> {
        for _ in 1..LOOKS {
            match look() {
                Err(error) if self.may_be_stale(&error) => self.refresh()?,
                other => return other,
            }
        }
        look()
    }

    /// Whether this is what a file looks like that was removed meanwhile. What is damaged in the process that writes is so for good.
    fn may_be_stale(&self, error: &Error) -> bool {
        match error {
            Error::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
            other => self.read_only && other.kind() == ErrorKind::Corrupt,
        }
    }

    pub(super) fn refresh_all(&self) -> Result<()> {
        self.refresh()?;
        if self.read_only {
            for member in self.topology().shards.values() {
                self.refresh_shard(&member.shard)?;
            }
        }
        Ok(())
    }
}

/// Where a shard ended that is not listed any more: where it was closed, if that was seen, or where its children start. A child of a merge starts
/// behind both of its parents.
fn end_of_expired(member: &Member, state: &ManifestState) -> Option<SequenceNumber> {
    if !member.entry.is_open() {
        return Some(member.entry.next);
    }
    let mut children = state.shards.iter().filter(|entry| entry.parents.contains(&member.entry.id));
    children.next().map(|child| child.starting)
}
