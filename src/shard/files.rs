//! Bounds on what shards keep open: files for appending, maps for point reads.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use crate::sync::Mutex;

use super::Shard;
use crate::limits::{MAX_OPEN_FILES, RECENT_SEGMENTS};
use crate::segment::Segment;
use crate::types::{SequenceNumber, ShardId};

/// The shards whose active segment has its file open, oldest opening first. Shared by the streams of a store.
///
/// A shard that is appended to opens its file and is noted here; when there are too many, the one noted first closes
/// its file. It opens it again when it is next appended to or synced.
#[derive(Debug)]
pub(crate) struct OpenFiles {
    most: usize,
    shards: Mutex<VecDeque<Weak<Shard>>>,
}

impl Default for OpenFiles {
    fn default() -> Self {
        Self::new(MAX_OPEN_FILES)
    }
}

impl OpenFiles {
    /// At most this many at once, and one.
    pub(crate) fn new(most: usize) -> Self {
        Self { most: most.max(1), shards: Mutex::default() }
    }

    /// Notes that a shard opened a file, and closes others' if there are too many. Call it without a lock of any shard.
    pub(crate) fn opened(&self, shard: &Arc<Shard>) {
        let mut shards = self.shards.lock();
        shards.push_back(Arc::downgrade(shard));
        let excess = shards.len().saturating_sub(self.most);
        let oldest: Vec<_> = shards.drain(..excess).collect();
        drop(shards);
        for weak in oldest {
            let parked = weak.upgrade().is_none_or(|shard| shard.park());
            if !parked {
                self.shards.lock().push_back(weak); // it is committing: another time
            }
        }
    }
}

/// The segments that were opened last, kept mapped so that point reads need not open them again.
#[derive(Debug, Default)]
pub(crate) struct RecentSegments {
    segments: Mutex<VecDeque<Arc<Segment>>>,
}

impl RecentSegments {
    pub(super) fn keep(&self, segment: &Arc<Segment>) {
        let mut segments = self.segments.lock();
        segments.push_back(Arc::clone(segment));
        if segments.len() > RECENT_SEGMENTS {
            segments.pop_front();
        }
    }

    /// Lets go of a segment that retention removes, so that its room comes free.
    pub(super) fn forget(&self, shard_id: ShardId, first: SequenceNumber) {
        self.segments.lock().retain(|segment| (segment.shard_id(), segment.first()) != (shard_id, first));
    }
}
