//! Many streams under one directory.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::sync::Mutex;

use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Result};
use crate::shard::OpenFiles;
use crate::storage::{Contained, Disk, Fault, Storage, remove_if_there};
use crate::stream::{Background, Stream, StreamBuilder, WeakStream, draw_id, make_directories};
use crate::types::is_name;

/// Streams by name, in the directories of one directory: one background thread flushes and trims for all of them.
///
/// A stream that is open is the same stream for everybody who asks for it by name, and is closed when the last
/// handle is dropped. Clones share the store.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path();
/// use anabranch::{Store, Stream};
///
/// let store = Store::open(path)?;
/// let clicks = store.create("clicks", Stream::builder().shards(2))?;
/// clicks.put("user-42", b"GET /cart")?;
/// assert_eq!(store.list()?, ["clicks"]);
/// store.delete("clicks")?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    clock: Arc<dyn Clock>,
    storage: Arc<dyn Storage>,
    background: Option<Background>,
    files: Arc<OpenFiles>,
    /// Held while a stream is created, opened or deleted, so that these exclude each other.
    open: Mutex<BTreeMap<String, WeakStream>>,
}

/// Describes a store to open: made by [`Store::builder`].
#[derive(Debug, Clone, Default)]
#[must_use = "a builder does nothing until it opens"]
pub struct StoreBuilder {
    clock: Option<Arc<dyn Clock>>,
    storage: Option<Arc<dyn Storage>>,
    no_background: bool,
    open_files: Option<usize>,
}

/// How a stream's directory is called while it is being deleted: no stream's name starts so. The stream's name follows, and something drawn.
const DELETED_PREFIX: &str = "~deleted-";

impl StoreBuilder {
    /// Where all streams of the store take the time from; the system's clock by default.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Where the files of all streams are; the machine's file systems by default.
    pub fn storage(mut self, storage: Arc<dyn Storage>) -> Self {
        self.storage = Some(Arc::new(Contained::new(storage)));
        self
    }

    /// Whether a thread flushes and trims in the background; it does by default.
    pub fn background(mut self, on: bool) -> Self {
        self.no_background = !on;
        self
    }

    /// How many shards of all streams have their file open for appending at once: at least 1;
    /// [`MAX_OPEN_FILES`](crate::limits::MAX_OPEN_FILES) by default.
    pub fn open_files(mut self, most: usize) -> Self {
        self.open_files = Some(most);
        self
    }

    /// Opens the store at `path`; makes the directory if there is none. Finishes deletions that were cut short, as far as files can be removed.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Store> {
        let path = path.as_ref().to_path_buf();
        let storage = self.storage.unwrap_or_else(|| Arc::new(Disk));
        make_directories(storage.as_ref(), &path)?;
        let background = if self.no_background {
            None
        } else {
            Some(Background::start().map_err(Fault::io("start a thread for", &path))?)
        };
        let store = Store {
            inner: Arc::new(Inner {
                path,
                clock: self.clock.unwrap_or_else(|| Arc::new(SystemClock::new())),
                storage,
                background,
                files: Arc::new(self.open_files.map_or_else(OpenFiles::default, OpenFiles::new)),
                open: Mutex::default(),
            }),
        };
        store.inner.finish_deletions()?;
        Ok(store)
    }
}

impl Store {
    /// Starts describing a store to open.
    pub fn builder() -> StoreBuilder {
        StoreBuilder::default()
    }

    /// Opens the store at `path` on the machine's file systems and clock.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder().open(path)
    }

    /// The store's directory.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Creates a stream. The builder's clock, storage and background thread are replaced by the store's.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for a name that is not 1 to 128 characters of `[a-zA-Z0-9_.-]`, or is `.` or `..`; [`Error::StreamExists`]; and as
    /// [`StreamBuilder::create`].
    pub fn create(&self, name: &str, options: StreamBuilder) -> Result<Stream> {
        let path = self.inner.stream_path(name)?;
        let mut open = self.inner.open.lock();
        if live(&open, name).is_some() {
            return Err(Error::StreamExists(path));
        }
        let stream = self.inner.adopt(options).create(path)?;
        open.insert(name.to_owned(), stream.downgrade());
        Ok(stream)
    }

    /// Opens a stream by name; if it is open already, gives another handle of it.
    ///
    /// # Errors
    ///
    /// [`Error::StreamNotFound`], and as [`StreamBuilder::open_existing`].
    pub fn open_stream(&self, name: &str) -> Result<Stream> {
        let path = self.inner.stream_path(name)?;
        let mut open = self.inner.open.lock();
        if let Some(stream) = live(&open, name) {
            return Ok(stream);
        }
        let stream = self.inner.adopt(Stream::builder()).open_existing(path)?;
        open.insert(name.to_owned(), stream.downgrade());
        Ok(stream)
    }

    /// Opens a stream by name, or creates it with these options. Options that were set and contradict an existing stream are
    /// an error, except when it is open already.
    pub fn open_or_create(&self, name: &str, options: StreamBuilder) -> Result<Stream> {
        let path = self.inner.stream_path(name)?;
        let mut open = self.inner.open.lock();
        if let Some(stream) = live(&open, name) {
            return Ok(stream);
        }
        let stream = self.inner.adopt(options).open(path)?;
        open.insert(name.to_owned(), stream.downgrade());
        Ok(stream)
    }

    /// The names of the streams, ascending.
    pub fn list(&self) -> Result<Vec<String>> {
        let inner = &self.inner;
        let mut names = Vec::new();
        for entry in inner.storage.list(&inner.path).map_err(Fault::io("list", &inner.path))? {
            if entry.is_dir && is_name(&entry.name) && inner.is_stream(&entry.name)? {
                names.push(entry.name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Deletes a stream with all its records. Handles of it are closed; records that were read stay valid. The name is free when
    /// this returns.
    ///
    /// # Errors
    ///
    /// [`Error::StreamNotFound`]; [`Error::Locked`] if another process writes it.
    pub fn delete(&self, name: &str) -> Result<()> {
        let path = self.inner.stream_path(name)?;
        let mut open = self.inner.open.lock();
        let handle = live(&open, name);
        if handle.is_none() && !self.inner.is_stream(name)? {
            // A deletion before may have failed behind its rename: what is said to be gone must not come back.
            self.inner.sync()?;
            return Err(Error::StreamNotFound(path));
        }
        // Held until its name is gone, so that no other process opens it meanwhile.
        let _lock = match handle.and_then(|stream| stream.close_for_deletion()) {
            Some(lock) => lock,
            None => self.inner.lock(&path)?, // also of a stream that somebody has just closed
        };
        open.remove(name);
        self.inner.delete(name, &path)
    }
}

fn live(open: &BTreeMap<String, WeakStream>, name: &str) -> Option<Stream> {
    open.get(name).and_then(WeakStream::upgrade)
}

impl Inner {
    fn adopt(&self, builder: StreamBuilder) -> StreamBuilder {
        builder.within_store(
            Arc::clone(&self.clock),
            Arc::clone(&self.storage),
            self.background.clone(),
            Arc::clone(&self.files),
        )
    }

    fn stream_path(&self, name: &str) -> Result<PathBuf> {
        Error::check_name("stream name", name)?;
        Ok(self.path.join(name))
    }

    fn is_stream(&self, name: &str) -> Result<bool> {
        let path = self.path.join(name);
        match self.storage.list(&path) {
            Ok(entries) => Ok(entries.iter().any(|entry| entry.name == crate::manifest::MANIFEST_FILE)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Fault::io("list", &path)(error).into()),
        }
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn crate::storage::LockGuard>> {
        let file = path.join(crate::stream::LOCK_FILE);
        let guard = self.storage.lock(&file).map_err(Fault::io("lock", &file))?;
        guard.ok_or_else(|| Error::Locked(path.to_path_buf()))
    }

    /// The rename is what deletes; the files follow, now or at the next opening of the store. Under a name of its own for each deletion: another process may be removing
    /// what one before left, whose rename is durable, and this one is not yet.
    fn delete(&self, name: &str, path: &Path) -> Result<()> {
        let drawn = draw_id(self.clock.now(), path);
        let gone = self.path.join(format!("{DELETED_PREFIX}{name}~{drawn:032x}"));
        self.storage.rename(path, &gone).map_err(Fault::io("rename", path))?;
        self.sync()?;
        Ok(self.remove_tree(&gone)?)
    }

    fn sync(&self) -> Result<()> {
        Ok(self.storage.sync_dir(&self.path).map_err(Fault::io("sync", &self.path))?)
    }

    /// A rename that its caller did not live to make durable is made so before files are removed on its word, and before a name is shown as free.
    /// What cannot be removed keeps no other stream from being used: it has no stream's name, and the next opening tries again.
    fn finish_deletions(&self) -> Result<()> {
        let entries = self.storage.list(&self.path).map_err(Fault::io("list", &self.path))?;
        self.sync()?; // of what was seen: what others rename behind it is theirs
        for entry in entries.iter().filter(|entry| entry.name.starts_with(DELETED_PREFIX)) {
            let _ = self.remove_tree(&self.path.join(&entry.name));
        }
        Ok(())
    }

    /// A stream's files lie at most three directories deep.
    fn remove_tree(&self, path: &Path) -> Result<(), Fault> {
        self.remove_below(path, 3)
    }

    fn remove_below(&self, path: &Path, depth: u32) -> Result<(), Fault> {
        let entries = match self.storage.list(path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Fault::io("list", path)(error)),
        };
        for entry in entries {
            let inside = path.join(&entry.name);
            if entry.is_dir && depth > 0 {
                self.remove_below(&inside, depth - 1)?;
            } else {
                remove_if_there(self.storage.as_ref(), &inside)?;
            }
        }
        match self.storage.remove_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Fault::io("remove", path)(error)),
            _ => Ok(()), // another process may have been at the same
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("path", &self.inner.path).finish_non_exhaustive()
    }
}
