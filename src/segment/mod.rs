//! One file of a shard: written by appending, sealed with an index and a footer, read through a map.
//!
//! A [`Segment`] is the readers' side, the same for a segment that is being written and one that was sealed
//! years ago: a map, and how far it may be read. A [`SegmentWriter`] is the one writer's side. [`scan`]
//! finds the end of a segment whose writer died; a [`Survey`] finds what is sound in one that is damaged.

mod buffer;
mod positions;
mod read;
mod record;
mod scan;
mod survey;
mod write;

pub(crate) use read::{Due, Segment, Visibility, is_unfinished, producers_section, read_footer, read_header};
pub use record::{Record, RecordBatch, RecordRef};
pub(crate) use scan::{Scan, StampedBatch, advance, scan};
pub(crate) use survey::{Expected, Run, Survey, copy, tolerant};
pub(crate) use write::{NotCreated, SegmentWriter};
