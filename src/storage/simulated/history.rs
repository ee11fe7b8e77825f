//! What one independently persisted unit, a sector or a file's size, may be on the medium.

/// Most versions kept of one unit; beyond it some in the middle are forgotten, which makes fewer
/// states reachable but none illegal.
const MAX_VERSIONS: usize = 16;

/// The durable value of a unit and each it had since, the current one last.
///
/// Stamps order changes and syncs of a file: a sync covers the changes stamped up to its start.
#[derive(Debug, Clone)]
pub(super) struct History<T> {
    /// Never empty.
    versions: Vec<Version<T>>,
    /// A sync that covered changes up to here failed, and the system took them for written: no later
    /// sync writes them.
    dropped: Option<u64>,
}

#[derive(Debug, Clone)]
struct Version<T> {
    stamp: u64,
    value: T,
}

impl<T: PartialEq> History<T> {
    /// A unit that is on the medium as it is.
    pub(super) fn durable(value: T) -> Self {
        Self { versions: vec![Version { stamp: 0, value }], dropped: None }
    }

    /// Notes a change. Writing what is there already changes nothing, unless it repairs a dropped write.
    pub(super) fn push(&mut self, stamp: u64, value: T) {
        let repairs = self.versions.len() > 1 && self.is_dropped(self.versions.len() - 1);
        let is_change = self.versions.last().is_none_or(|last| last.value != value);
        if is_change || repairs {
            self.versions.push(Version { stamp, value });
        }
    }

    /// Forgets a version in the middle if there are many. Not while a sync is under way: it may need it.
    pub(super) fn thin(&mut self) {
        if self.versions.len() > MAX_VERSIONS {
            self.versions.remove(MAX_VERSIONS / 2);
        }
    }

    /// A sync that started at `stamp` succeeded.
    pub(super) fn synced(&mut self, stamp: u64) {
        let covered = self.versions.partition_point(|version| version.stamp <= stamp);
        let newest = covered.saturating_sub(1);
        if newest > 0 && !self.is_dropped(newest) {
            self.versions.drain(..newest);
        }
    }

    /// A sync that started at `stamp` failed.
    pub(super) fn sync_failed(&mut self, stamp: u64) {
        self.dropped = Some(stamp);
    }

    /// Whether the current value is durable.
    pub(super) fn is_durable(&self) -> bool {
        self.versions.len() == 1
    }

    /// How many values the medium may have.
    pub(super) fn len(&self) -> usize {
        self.versions.len()
    }

    /// One of the values that the medium may have, the durable one first.
    pub(super) fn get(&self, index: usize) -> Option<&T> {
        self.versions.get(index).map(|version| &version.value)
    }

    fn is_dropped(&self, index: usize) -> bool {
        self.dropped >= self.versions.get(index).map(|version| version.stamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(history: &History<char>) -> String {
        history.versions.iter().map(|version| version.value).collect()
    }

    #[test]
    fn a_sync_covers_what_was_there_when_it_started() {
        let mut history = History::durable('a');
        history.push(1, 'b');
        history.push(2, 'c');
        history.push(3, 'd');
        history.synced(2);
        assert_eq!(values(&history), "cd");
        history.synced(3);
        assert!(history.is_durable());
    }

    #[test]
    fn a_failed_sync_is_not_repaired_by_a_good_one() {
        let mut history = History::durable('a');
        history.push(1, 'b');
        history.sync_failed(1);
        history.synced(1);
        assert_eq!(values(&history), "ab");
        history.push(2, 'b');
        assert_eq!(values(&history), "abb");
        history.synced(1);
        assert_eq!(values(&history), "abb");
        history.synced(2);
        assert_eq!(values(&history), "b");
    }

    #[test]
    fn equal_values_are_one_version_and_versions_are_bounded() {
        let mut history = History::durable('a');
        history.push(1, 'a');
        assert!(history.is_durable());
        for stamp in 2..100 {
            history.push(stamp, if stamp % 2 == 0 { 'b' } else { 'c' });
            history.thin();
        }
        assert_eq!(history.len(), MAX_VERSIONS);
        assert_eq!(history.get(0), Some(&'a'));
        assert_eq!(history.get(MAX_VERSIONS - 1), Some(&'c'));
    }
}
