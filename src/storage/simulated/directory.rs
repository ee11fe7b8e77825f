//! The names in one simulated directory, and which of them are on the medium.

use std::collections::BTreeMap;

use super::crash::Fate;
use super::tree::InodeId;

/// Most unsynced changes kept. Then the older half becomes durable, as file systems do from time to
/// time by themselves.
const MAX_UNSYNCED: usize = 1024;

#[derive(Debug, Clone, Default)]
pub(super) struct Directory {
    /// What the program sees.
    entries: BTreeMap<String, InodeId>,
    durable: BTreeMap<String, InodeId>,
    /// What was done since, oldest first. Power loss leaves any subset of it.
    unsynced: Vec<Change>,
    /// Counts changes.
    stamp: u64,
}

/// Names that change together or not at all: to a file or directory, or to nothing.
#[derive(Debug, Clone)]
struct Change {
    stamp: u64,
    names: Vec<(String, Option<InodeId>)>,
}

impl Directory {
    /// A directory of these names, all of them durable.
    pub(super) fn durable(entries: BTreeMap<String, InodeId>) -> Self {
        Self { durable: entries.clone(), entries, unsynced: Vec::new(), stamp: 0 }
    }

    pub(super) fn get(&self, name: &str) -> Option<InodeId> {
        self.entries.get(name).copied()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (&str, InodeId)> {
        self.entries.iter().map(|(name, &inode)| (name.as_str(), inode))
    }

    /// Everything that this directory has, or may have after power loss.
    pub(super) fn references(&self) -> impl Iterator<Item = InodeId> {
        let changed = self.unsynced.iter().flat_map(|change| &change.names);
        self.entries.values().chain(self.durable.values()).copied().chain(changed.filter_map(|(_, inode)| *inode))
    }

    pub(super) fn link(&mut self, name: &str, inode: InodeId) {
        self.change(vec![(name.to_owned(), Some(inode))]);
    }

    pub(super) fn unlink(&mut self, name: &str) {
        self.change(vec![(name.to_owned(), None)]);
    }

    /// A rename inside this directory: one change, so the new name always has a file if it had one.
    pub(super) fn rename(&mut self, from: &str, to: &str, inode: InodeId) {
        self.change(vec![(from.to_owned(), None), (to.to_owned(), Some(inode))]);
    }

    /// What a sync that starts now covers.
    pub(super) fn start_sync(&self) -> u64 {
        self.stamp
    }

    /// Makes durable what had been done when the sync started.
    pub(super) fn finish_sync(&mut self, started: u64) {
        let covered = self.unsynced.partition_point(|change| change.stamp <= started);
        self.settle(covered);
    }

    /// One set of names that may be found after power loss.
    pub(super) fn after_power_loss(&self, fate: &mut Fate) -> BTreeMap<String, InodeId> {
        let mut entries = self.durable.clone();
        for change in &self.unsynced {
            if fate.keeps() {
                change.apply(&mut entries);
            }
        }
        entries
    }

    fn change(&mut self, names: Vec<(String, Option<InodeId>)>) {
        self.stamp += 1;
        let change = Change { stamp: self.stamp, names };
        change.apply(&mut self.entries);
        self.unsynced.push(change);
        if self.unsynced.len() > MAX_UNSYNCED {
            self.settle(MAX_UNSYNCED / 2);
        }
    }

    fn settle(&mut self, count: usize) {
        for change in self.unsynced.drain(..count) {
            change.apply(&mut self.durable);
        }
    }
}

impl Change {
    fn apply(&self, entries: &mut BTreeMap<String, InodeId>) {
        for (name, inode) in &self.names {
            match inode {
                Some(inode) => entries.insert(name.clone(), *inode),
                None => entries.remove(name),
            };
        }
    }
}
