//! Following a shard that another process writes: reading its files, changing nothing.
//!
//! The writer publishes nothing to followers but its files. A follower reads the WATERMARK first, then the
//! footer, then the frames, each checked by its checksum; in that order what it read first is vouched for by what
//! it reads next, and a value that is late or torn does no harm. What the WATERMARK or the manifest counts, and the files
//! that are read after it do not hold, is damage.

use crate::sync::atomic::{AtomicU64, Ordering};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::sync::Mutex;

use super::recover::{check_front, list_segments};
use super::segments::Segments;
use super::{Phase, STILL_OPEN, Shard, ShardContext};
use crate::format::{Footer, ShardEntry, segment_name};
use crate::segment::{Scan, Segment, StampedBatch, Visibility, advance, read_footer, read_header};
use crate::storage::{Access, Corruption, Fault, StorageFile};
use crate::types::SequenceNumber;

/// How far a shard was followed.
#[derive(Debug)]
pub(super) struct FollowState {
    /// The unsealed segment, if one was found.
    live: Option<Followed>,
    /// Where the next segment starts, or the live one started.
    next: SequenceNumber,
    /// Where the manifest's first segment starts: what is below may be gone.
    front: SequenceNumber,
    /// All records below were durable when the manifest was written.
    known_durable: SequenceNumber,
}

#[derive(Debug)]
struct Followed {
    segment: Arc<Segment>,
    file: Arc<dyn StorageFile>,
    found: Scan,
}

impl Shard {
    /// Opens a shard beside its writer.
    pub(crate) fn follow(
        context: Arc<ShardContext>,
        directory: PathBuf,
        entry: &ShardEntry,
    ) -> Result<Self, Fault> {
        let mut firsts = list_segments(&context, &directory, entry)?;
        firsts.retain(|first| *first >= entry.first);
        check_front(&directory, entry, firsts.first().copied().unwrap_or(entry.next))?;
        let mut next = None;
        // At most the two newest are unsealed: the active one, and a successor that is being made.
        while let Some(first) = firsts.last().copied() {
            if let Some(footer) = footer_of(&context, &directory, entry, first)? {
                next.get_or_insert(footer.next());
                break;
            }
            next = Some(first);
            firsts.pop();
        }
        let next = next.unwrap_or(entry.next);
        let mut segments = Segments::default();
        for first in firsts {
            segments.push_sealed(first, None);
        }
        let mut shard = Self::assemble(context, directory, entry, segments, next, entry.last_arrival);
        let known_durable = entry.next;
        shard.follow = Some(Mutex::new(FollowState { live: None, next, front: entry.first, known_durable }));
        shard.end = AtomicU64::new(STILL_OPEN); // until all that the manifest counts is found
        shard.append.lock().phase = Phase::Closed; // not shut: there is more to come, from elsewhere
        shard.refresh()?;
        Ok(shard)
    }

    /// The last batches of producers in the segment that the other process appends to; nothing where this process is the writer.
    pub(super) fn followed_batches(&self) -> Option<Vec<StampedBatch>> {
        let state = self.follow.as_ref()?.lock();
        let live = state.live.iter().flat_map(|followed| followed.found.stamped.values().copied());
        Some(live.collect())
    }

    /// Takes over what the manifest says now.
    pub(crate) fn refresh_entry(&self, entry: &ShardEntry) {
        self.raise_horizon(entry.horizon);
        if let Some(follow) = &self.follow {
            let mut state = follow.lock();
            state.front = state.front.max(entry.first);
            state.known_durable = state.known_durable.max(entry.next);
        }
        let mut segments = self.segments.write();
        while let Some(first) = segments.first().filter(|first| *first < entry.first) {
            segments.remove(first);
            self.context.recent.forget(self.id, first);
        }
    }

    /// Closes the shard for readers, once the manifest says where it ends.
    pub(crate) fn refresh_end(&self, entry: &ShardEntry) {
        if !entry.is_open() && self.next(Visibility::Durable) >= entry.next {
            self.end.store(entry.next.get(), Ordering::SeqCst);
            self.announce();
        }
    }

    /// The shard is no longer listed: all its records expired. It ended at `end`, or nobody knows: then a record may have stood behind those that
    /// were seen. Readers are at its end, or are told that they fell behind.
    pub(crate) fn expire(&self, end: Option<SequenceNumber>) {
        let _follow = self.follow.as_ref().map(Mutex::lock); // whoever looks for records now is done before
        let seen = self.next(Visibility::Written);
        let end = self.end().unwrap_or_else(|| end.unwrap_or(seen.next()).max(seen));
        self.written.fetch_max(end.get(), Ordering::SeqCst);
        self.drained.fetch_max(end.get(), Ordering::SeqCst);
        self.durable.fetch_max(end.get(), Ordering::SeqCst);
        self.raise_horizon(end);
        let removed = std::mem::take(&mut *self.segments.write());
        for slot in removed.all() {
            self.context.recent.forget(self.id, slot.first);
        }
        self.end.store(end.get(), Ordering::SeqCst);
        self.announce();
    }

    /// Looks for what the writer has added. That records which were durable are not there is damage; or the writer has removed them, and the
    /// manifest says so by now.
    pub(crate) fn refresh(&self) -> Result<(), Fault> {
        let Some(follow) = self.follow.as_ref().filter(|_| self.end().is_none()) else {
            return Ok(());
        };
        let mut state = follow.lock();
        if self.end().is_some() {
            return Ok(()); // it expired while this waited
        }
        loop {
            let durable = self.context.watermarks.load(self.id)?.max(state.known_durable);
            // A segment that never got a record is removed when its writer died, and another one may have its name.
            let first = state.next;
            if state.live.take_if(|followed| followed.found.next == first).is_some() {
                self.segments.write().remove(first);
            }
            if state.live.is_none() {
                self.skip_removed(&mut state);
                state.live = match self.open_next(state.next) {
                    // Not made yet, or being made: its header is there before any of its records is durable.
                    Err(Fault::Corrupt(_)) if durable <= state.next => None,
                    opened => Some(opened?),
                };
            }
            let Some(followed) = &mut state.live else {
                return Ok(());
            };
            let Some(footer) = self.read_on(followed, durable)? else {
                return Ok(());
            };
            state.next = footer.next();
            state.live = None;
        }
    }

    /// Goes on at the manifest's first segment, if the writer removed all from the place of this follower up to it.
    fn skip_removed(&self, state: &mut FollowState) {
        if state.next < state.front {
            state.next = state.front;
            self.written.fetch_max(state.front.get(), Ordering::SeqCst);
            self.durable.fetch_max(state.front.get(), Ordering::SeqCst);
            self.announce();
        }
    }

    fn open_next(&self, first: SequenceNumber) -> Result<Followed, Fault> {
        let path = self.directory.join(segment_name(first));
        let file = match self.context.storage.open_file(&path, Access::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let missing = Corruption::new(&path, 0, "the segment is missing");
                return Err(missing.of_shard(self.id).of_records(first, None).into());
            }
            Err(error) => return Err(Fault::io("open", &path)(error)),
        };
        let header = read_header(file.as_ref(), &path, self.context.stream_id, self.id, first)?;
        let segment = Arc::new(Segment::follow(&path, header, file.as_ref())?);
        self.segments.write().push_live(Arc::clone(&segment));
        Ok(Followed { segment, file, found: Scan::start(&header) })
    }

    /// Publishes what stands behind the part of the segment that was read before; gives its footer once it is sealed.
    fn read_on(&self, followed: &mut Followed, durable: SequenceNumber) -> Result<Option<Footer>, Fault> {
        let Followed { segment, file, found } = followed;
        let footer = read_footer(file.as_ref(), segment.path(), segment.header())?;
        match footer.filter(Footer::is_lost) {
            Some(lost) => found.next = lost.next(),
            None => advance(file.as_ref(), segment.path(), segment.header(), found)?,
        }
        segment.publish(&std::mem::take(&mut found.starts), found.end);
        let expected = footer.map_or(durable, |footer| footer.next());
        if found.next < expected {
            let reason = "a record that was durable does not decode";
            return Err(segment.damaged_from(found.end, found.next, reason).into());
        }
        let durable = footer.map_or(durable.min(found.next), |footer| footer.next());
        let durable_end = segment.position(durable, Visibility::Written)?.unwrap_or(found.end);
        if durable > segment.first() {
            segment.publish_durable(durable_end);
        }
        let mut state = self.append.lock();
        state.last_arrival = state.last_arrival.max(found.last_arrival);
        drop(state);
        if let Some(footer) = footer {
            segment.publish_footer(footer);
            self.segments.write().seal(segment.first());
        }
        self.written.fetch_max(found.next.get(), Ordering::SeqCst);
        self.drained.fetch_max(found.next.get(), Ordering::SeqCst);
        self.durable.fetch_max(durable.get(), Ordering::SeqCst);
        self.announce();
        Ok(footer)
    }
}

fn footer_of(
    context: &ShardContext,
    directory: &std::path::Path,
    entry: &ShardEntry,
    first: SequenceNumber,
) -> Result<Option<Footer>, Fault> {
    let path = directory.join(segment_name(first));
    let file = context.storage.open_file(&path, Access::Read).map_err(Fault::io("open", &path))?;
    match read_header(file.as_ref(), &path, context.stream_id, entry.id, first) {
        Ok(header) => read_footer(file.as_ref(), &path, &header),
        Err(Fault::Corrupt(_)) => Ok(None), // being made, or damaged: a look at what should be in it will tell
        Err(fault) => Err(fault),
    }
}
