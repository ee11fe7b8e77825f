//! Keeping a read-only stream up with the process that writes it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::StreamInner;
use super::open::SHARDS_DIRECTORY;
use crate::error::{Error, Result};
use crate::manifest::{self, Manifest};
use crate::shard::Shard;

impl StreamInner {
    /// In a read-only stream: takes over what the writer changed in the manifest.
    pub(super) fn refresh(&self) -> Result<()> {
        if !self.read_only {
            return Ok(());
        }
        let mut manifest = self.manifest.lock();
        let storage = self.context.storage.as_ref();
        if !manifest::changed(storage, &self.path, manifest.state().generation)? {
            return Ok(());
        }
        let Some(state) = manifest::load(storage, &self.path)? else {
            return Err(Error::StreamNotFound(self.path.clone()));
        };
        if state.stream_id != self.context.stream_id {
            return Err(Error::Closed); // deleted, and another stream made in its place
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
        self.publish(&state, made);
        *manifest = Manifest::new(Arc::clone(&self.context.storage), self.path.clone(), state);
        Ok(())
    }

    /// In a read-only stream: looks for what the writer added to a shard.
    pub(super) fn refresh_shard(&self, shard: &Shard) -> Result<()> {
        if !self.read_only {
            return Ok(());
        }
        shard.refresh()?;
        if let Some(member) = self.topology().shards.get(&shard.id()) {
            member.shard.refresh_end(&member.entry);
        }
        Ok(())
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
