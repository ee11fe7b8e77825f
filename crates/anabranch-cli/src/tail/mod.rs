//! `tail`: log files become records as they grow, each line once, whatever happens to the files and to this process.
//!
//! Each file has an idempotent producer of its own, and the number of a batch says which bytes of the file it was made of ([`range`]). After a crash the
//! last batch is made of the same bytes and put again under its number, which completes it or does nothing; then reading goes on
//! behind it. So what stands in the stream and where the next batch begins can never disagree. What has to be kept beside the stream is only which
//! producer belongs to which file ([`registry`]).
//!
//! [`args`] are the options; [`matches`] finds files, [`identity`] tells them apart, [`followed`] is one of them and [`files`] are all. [`reader`] makes
//! batches of bytes: [`cut`] says where records end, [`recipe`] what they become, [`format`] how they become JSON. [`agent`] puts it all together.

mod agent;
mod args;
mod cut;
mod files;
mod followed;
mod format;
mod identity;
mod matches;
mod range;
mod reader;
mod recipe;
mod registry;

pub(crate) use agent::run;
pub(crate) use args::TailArgs;
