//! Event sources: how a function is called with a stream's records.
//!
//! An [`EventSource`](crate::EventSource) is what a Lambda event source mapping is, in the process of its caller: it reads what a consumer has not done, gathers it into batches, calls a
//! [`BatchHandler`](crate::BatchHandler) with them, tries again what fails, and keeps the consumer's place. Any number of them, in threads and in processes, share the shards.
//!
//! # A whole program
//!
//! It counts visits by page and minute. A line that is no visit is left to another stream; the counts are made once, whatever crashes or splits on the way.
//!
//! ```
//! use std::collections::BTreeMap;
//! use std::sync::Mutex;
//! use std::time::Duration;
//!
//! use anabranch::{Batch, BatchFailure, BatchHandler, ClosedWindow, EventSourceOptions, Stream};
//!
//! #[derive(Default)]
//! struct Visits(Mutex<BTreeMap<(i64, String), usize>>);
//!
//! impl BatchHandler for Visits {
//!     fn handle(&self, batch: &mut Batch<'_>) -> Result<(), BatchFailure> {
//!         for record in batch.records() {
//!             if record.data() != b"visit" {
//!                 return Err(BatchFailure::at(record, "no visit")); // what stands before it is done
//!             }
//!             batch.state_mut(record).push(1); // of its key, in this minute
//!         }
//!         Ok(())
//!     }
//!
//!     fn close_window(&self, closed: &ClosedWindow) -> Result<(), BatchFailure> {
//!         let mut visits = self.0.lock()?;
//!         for page in &closed.states {
//!             visits.insert((closed.window.start.as_millis(), page.partition_key.clone()), page.state.len());
//!         }
//!         Ok(())
//!     }
//! }
//!
//! # fn main() -> anabranch::Result<()> {
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = directory.path().to_path_buf();
//! # let clock = std::sync::Arc::new(anabranch::ManualClock::default());
//! # let builder = || Stream::builder().clock(clock.clone()).background(false);
//! let lines = builder().shards(2).open(path.join("lines"))?;
//! let failed = builder().open(path.join("failed"))?;
//! lines.put("/cart", b"visit")?;
//! lines.put("/cart", b"?")?;
//! lines.put("/cart", b"visit")?;
//! # clock.advance(Duration::from_secs(62));
//!
//! let options = EventSourceOptions::new().tumbling_window(Duration::from_secs(60)).retries(0);
//! let mut source = lines.consumer("visits")?.event_source("worker-1", options)?.on_failure(failed.clone());
//! let visits = Visits::default();
//! source.run(&visits, || visits.0.lock().is_ok_and(|visits| !visits.is_empty()))?; // elsewhere: until the program ends
//! assert_eq!(visits.0.lock().unwrap().values().next(), Some(&2));
//! assert_eq!(failed.describe()?.shards[0].records, 1);
//! source.close()
//! # }
//! ```
//!
//! # Batches and lanes
//!
//! A batch has up to 100 records of one shard, and is handled at once; [`batch_window`](crate::EventSourceOptions::batch_window) gathers longer. With
//! [`lanes`](crate::EventSourceOptions::lanes), several batches of a shard are handled at a time, each with keys of its own: what is promised of order is promised of a key. The checkpoint
//! stands where everything before it is done. Records behind it come again after a crash, or when a shard changes hands: **at least once**.
//!
//! # What fails
//!
//! | the handler | and then |
//! | --- | --- |
//! | returns [`BatchFailure::at`](crate::BatchFailure::at) a record | what stands before it is done |
//! | returns any other error, or panics | nothing of the batch is done |
//! | failed, with [`bisect_on_error`](crate::EventSourceOptions::bisect_on_error) (the default) | the rest is cut, there or in halves, until what fails stands alone; that is no retry |
//! | failed, otherwise | the rest is tried again, 10 times unless told otherwise, after 100 ms, 200 ms, 400 ms, ... |
//! | failed for the last time, or the records are a day old | the [destination](crate::EventSource::on_failure) is told where they are, and the source goes on behind them |
//!
//! Where no destination is named, or it fails, the source stops with a typed error, before the record, and loses nothing. A [`FailedBatch`](crate::FailedBatch) holds positions, not data:
//! [`records`](crate::FailedBatch::records) reads them again, for as long as the stream keeps them.
//!
//! # Tumbling windows
//!
//! Records belong to a window by their arrival, and each key in it has a state. A change counts when the batch does. When the window is over, the handler is given the states, and they
//! are gone. They were made of each record once, in order, though the handler may have seen it more often: after a crash all records of an open window are given
//! again, and their states begin from nothing. Through splits and merges states go with their keys. An end may be told twice, with the same states: write them by window and key.
