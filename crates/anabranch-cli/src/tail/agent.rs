//! The loop: look at the files, put what came, remember how far that is.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::ErrorKind;
use std::thread;
use std::time::{Duration, Instant};

use anabranch::{Durability, Error, Limits, Stream};

use super::args::{From as Place, TailArgs};
use super::cut::Ending;
use super::files::{Begin, Files, MAX_LOOKS};
use super::followed::{Followed, Standing};
use super::matches::{self, Troubles};
use super::range::{FileRange, MAX_OFFSET};
use super::reader::{self, Extent, Gathered, Reader, Stop};
use super::recipe::{Counts, Origin, Recipe};
use super::registry::{Registry, State};
use crate::exit::{Exit, Failure};
use crate::interrupt::{Interrupt, PATIENCE};
use crate::open;
use crate::output::Output;
use crate::tally::Tally;

/// After how long the registry's offsets are brought up to date. They matter when retention has removed a file's last batch, so this has to be far
/// below any retention period.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);

/// How much of a file is put before the next one has its turn.
const TURN_BYTES: u64 = 64 << 20;

/// Follows files until the user stops it, or to their ends with `--once`. However it ends, the registry says how far it came, and so does the summary.
pub(crate) fn run(args: &TailArgs, out: &mut Output) -> Result<Exit, Failure> {
    let interrupt = Interrupt::install()?;
    let stream = open::to_fill(&args.into, args.create, out)?;
    let limits = stream.limits();
    let recipe = Recipe::new(&args.records, &limits)?;
    let mut agent = Agent::open(args, &stream, limits, &recipe, &interrupt, out)?;
    let outcome = agent.run();
    let saved = agent.save();
    let tally = agent.summary();
    let closed = stream.close().map_err(Failure::from);
    let outcome = outcome.and(saved).and(closed);
    tally.report(&outcome, out)?;
    outcome.map(|()| Exit::Fine)
}

struct Agent<'a> {
    args: &'a TailArgs,
    stream: &'a Stream,
    interrupt: &'a Interrupt,
    out: &'a Output,
    registry: Registry,
    state: State,
    files: Files,
    reader: Reader<'a>,
    max_line_bytes: usize,
    troubles: Troubles,
    tally: Tally,
    counts: Counts,
    /// No run was before, and no look in this one.
    is_first: bool,
    /// The files were looked at in this run.
    has_looked: bool,
    /// Some position is not in the registry.
    is_ahead: bool,
    saved: Instant,
    /// A file that could not be read.
    unread: Option<(String, ErrorKind)>,
}

impl<'a> Agent<'a> {
    fn open(
        args: &'a TailArgs,
        stream: &'a Stream,
        limits: Limits,
        recipe: &'a Recipe,
        interrupt: &'a Interrupt,
        out: &'a Output,
    ) -> Result<Self, Failure> {
        let directory = match &args.state {
            Some(directory) => directory.clone(),
            None => Registry::beside(&args.into)
                .map_err(|error| Failure::State { path: args.into.clone(), reason: error.to_string() })?,
        };
        let stream_id = stream.describe()?.stream_id.to_string();
        let (registry, state, is_first) = Registry::open(&directory, &stream_id)?;
        let files = Files::new(known_files(stream, &state)?, args.idle, &[&args.into, &directory]);
        Ok(Self {
            args,
            stream,
            interrupt,
            out,
            registry,
            state,
            files,
            reader: Reader::new(recipe, limits, args.batch),
            max_line_bytes: recipe.cutter.max_bytes,
            troubles: Troubles::default(),
            tally: Tally::new(),
            counts: Counts::default(),
            is_first,
            has_looked: false,
            is_ahead: false,
            saved: Instant::now(),
            unread: None,
        })
    }

    fn run(&mut self) -> Result<(), Failure> {
        self.look();
        self.settle_options()?;
        self.save()?;
        loop {
            let has_more = self.read_all()?;
            self.let_go()?;
            if self.interrupt.requested() {
                return Ok(());
            }
            if self.args.once && !has_more {
                return self.has_read_all();
            }
            if self.is_ahead && self.saved.elapsed() >= SAVE_INTERVAL {
                self.save()?;
            }
            if !has_more {
                self.pause();
            }
            if self.look() {
                self.save()?;
            }
        }
    }

    /// Whether everything that was asked for was read, for those who do not look again.
    fn has_read_all(&self) -> Result<(), Failure> {
        if let Some(name) = matches::absent(&self.args.files) {
            return Err(Failure::Input { input: name.clone(), error: ErrorKind::NotFound.into() });
        }
        match &self.unread {
            Some((path, kind)) => Err(Failure::Input { input: path.clone(), error: (*kind).into() }),
            None => Ok(()),
        }
    }

    fn pause(&self) {
        let until = Instant::now() + self.args.poll;
        while !self.interrupt.requested() {
            match until.checked_duration_since(Instant::now()) {
                Some(left) if !left.is_zero() => thread::sleep(left.min(PATIENCE)),
                _ => return,
            }
        }
    }

    /// Looks at the files until no name moves meanwhile. True if there is something to save before anything is put.
    fn look(&mut self) -> bool {
        let begin = match self.args.from {
            Some(Place::Start) => Begin::Start,
            None if self.args.once => Begin::Start,
            _ if !self.is_first => Begin::Start,
            _ => Begin::End { max_line_bytes: self.max_line_bytes },
        };
        let decides = self.is_first || self.args.once;
        let mut is_news = false;
        self.unread = None;
        for _ in 0..MAX_LOOKS {
            let list = || matches::look(&self.args.files, &mut self.troubles);
            let sightings = self.files.sightings(!self.has_looked, list);
            let looked = self.files.look(sightings, &mut self.state, begin, decides, &mut self.troubles);
            is_news |= looked.is_news;
            self.unread = looked.unread;
            if looked.is_settled {
                break;
            }
        }
        (self.is_first, self.has_looked) = (false, true);
        for trouble in self.troubles.take_news() {
            self.out.note(trouble);
        }
        is_news
    }

    /// Other options make other records of the bytes of a batch that has to be put again.
    fn settle_options(&mut self) -> Result<(), Failure> {
        let typed = self.args.records.as_typed();
        if self.state.options == typed {
            return Ok(());
        }
        for file in self.files.list.iter_mut().filter(|file| file.unconfirmed.is_some()) {
            let name = &file.entry.name;
            if file.standing != Standing::Missing {
                return Err(Failure::Usage(format!(
                    "the last run ended in the middle of a batch of {name}, with other options: run once more with {} --once",
                    self.state.options
                )));
            }
            self.out.note(format_args!("{name}: not found; its last batch may be in the stream in part"));
            file.skip_unconfirmed();
        }
        self.state.options = typed;
        Ok(())
    }

    /// Gives each file its turn, older ones first. True if there is more to read at once.
    fn read_all(&mut self) -> Result<bool, Failure> {
        let mut has_more = false;
        let mut held_back = HashSet::new();
        for (place, family) in self.files.families().into_iter().enumerate() {
            if self.interrupt.requested() {
                return Ok(false);
            }
            if self.files.list[place].awaits_copy() {
                return Ok(true); // the next look at once
            }
            if !held_back.contains(&family) {
                has_more |= self.read(place)?;
            }
            if self.files.list[place].comes_first() {
                held_back.insert(family);
            }
            has_more |= self.files.list[place].is_in_flux();
        }
        Ok(has_more)
    }

    /// Puts what is complete of a file. True if its turn was over before its end.
    fn read(&mut self, place: usize) -> Result<bool, Failure> {
        let file = &mut self.files.list[place];
        let is_there = matches!(file.standing, Standing::Matched | Standing::Moved { .. });
        let ending = if self.args.once { Ending::Final } else { file.ending(self.args.idle) };
        let trying = file.look().map(|look| (look, ending));
        if !is_there || file.is_drained() || file.tried == trying {
            return Ok(false);
        }
        self.reader.reset();
        let was_open = file.is_open();
        let outcome = self.read_on(place, ending);
        self.files.keep_few_open(place, was_open);
        match outcome {
            Ok(has_more) => {
                self.files.list[place].tried = if has_more { None } else { trying };
                Ok(has_more)
            }
            Err(Halt::Stop(Stop::Unreadable(error))) => {
                let path = self.files.list[place].path().to_owned();
                self.unread = Some((path.display().to_string(), error.kind()));
                self.troubles.note(&path, error);
                Ok(false)
            }
            Err(Halt::Stop(Stop::Refused { offset, refusal })) => {
                let input = self.files.list[place].path().display().to_string();
                Err(Failure::Record { input, offset, reason: refusal.to_string() })
            }
            Err(Halt::Failed(failure)) => Err(failure),
        }
    }

    fn read_on(&mut self, place: usize, ending: Ending) -> Result<bool, Halt> {
        let file = self.files.list[place].open()?;
        if let Some(range) = self.files.list[place].unconfirmed
            && !self.put_again(place, &file, range)?
        {
            return Ok(false);
        }
        if !self.skip_header(place, &file, ending)? {
            return Ok(false);
        }
        let turn = self.files.list[place].position.saturating_add(TURN_BYTES);
        loop {
            let followed = &self.files.list[place];
            if self.interrupt.requested() {
                return Ok(false);
            }
            if followed.position >= turn {
                return Ok(true);
            }
            let end = self.readable(place);
            let followed = &self.files.list[place];
            let extent = Extent { start: followed.position, end, ending };
            let Some(gathered) = self.reader.gather(&file, origin(followed), extent)? else {
                return Ok(false);
            };
            if !self.files.list[place].held(gathered.range.end)? {
                return Ok(false); // it was cut off meanwhile: the next look finds out
            }
            self.put(place, &gathered)?;
        }
    }

    /// Up to where the file is read now.
    fn readable(&mut self, place: usize) -> u64 {
        let file = &self.files.list[place];
        if file.size() > MAX_OFFSET {
            let what = format_args!("not read beyond {MAX_OFFSET} bytes: rotate it");
            self.troubles.note(file.path(), what);
        }
        file.size().min(MAX_OFFSET)
    }

    /// False as long as the header is not whole.
    fn skip_header(&mut self, place: usize, file: &File, ending: Ending) -> Result<bool, Halt> {
        let followed = &mut self.files.list[place];
        match reader::end_of_header(file, self.args.records.skip_header)? {
            Some(end) => followed.position = followed.position.max(end),
            None if ending == Ending::Final => followed.position = followed.size(),
            None => return Ok(false),
        }
        Ok(true)
    }

    /// Makes the last batch of the run before again, and has the stream complete it. False if the file is another by now: the next look finds out.
    fn put_again(&mut self, place: usize, file: &File, range: FileRange) -> Result<bool, Halt> {
        let followed = &mut self.files.list[place];
        let again = match self.reader.gather_again(file, origin(followed), range) {
            Err(Stop::Refused { .. }) => None,
            gathered => gathered?,
        };
        if !followed.held(range.end)? {
            return Ok(false);
        }
        let again = again.filter(|again| again.range == range && !again.batch.is_empty());
        match again.map(|again| self.put(place, &again)) {
            None | Some(Err(Failure::Stream(Error::BatchMismatch { .. }))) => self.give_up_batch(place, range),
            Some(outcome) => outcome?,
        }
        self.files.list[place].unconfirmed = None;
        Ok(true)
    }

    /// The bytes of a batch are not what they were, and never will be: the file lost its end in a power cut and grew again, or somebody changed it.
    fn give_up_batch(&mut self, place: usize, range: FileRange) {
        let file = &mut self.files.list[place];
        let (path, FileRange { start, end }) = (file.path().display(), range);
        let why = "the last run put other records of them, as before a power cut";
        self.out.note(format_args!(
            "{path}: its bytes {start} to {end} may be in the stream in part: {why}; goes on behind them"
        ));
        file.skip_unconfirmed();
        self.is_ahead = true;
    }

    fn put(&mut self, place: usize, gathered: &Gathered) -> Result<(), Failure> {
        let is_empty = gathered.batch.is_empty();
        // What tells the file from others has to be known before the stream says how far it came.
        if !is_empty && self.files.list[place].extend_fingerprint(gathered.range.end) {
            self.save()?;
        }
        let file = &mut self.files.list[place];
        if !is_empty {
            let producer = match &mut file.producer {
                Some(producer) => producer,
                none => none.insert(self.stream.producer(&file.entry.producer)?),
            };
            let durability = Durability::from(self.args.durability);
            let entries = gathered.batch.entries(None);
            let receipts = producer.put_batch_with(gathered.range.number(), &entries, durability)?;
            self.tally.count(&receipts, gathered.batch.data_bytes());
        }
        file.position = gathered.range.end;
        self.counts.add(gathered.counts);
        self.is_ahead = true;
        Ok(())
    }

    /// Lets go of files that are gone, and of their producers: first in the registry, so that no entry is without what its producer knows.
    fn let_go(&mut self) -> Result<(), Failure> {
        let out = self.out;
        let gone = self.files.let_go(&mut |text| out.note(text));
        if gone.is_empty() {
            return Ok(());
        }
        self.save()?;
        gone.iter().try_for_each(|file| delete_producer(self.stream, &file.entry.producer))
    }

    /// Brings the registry up to date. An offset in it is never ahead of what the stream keeps through a power cut.
    fn save(&mut self) -> Result<(), Failure> {
        if self.is_ahead {
            self.stream.sync()?;
        }
        let entries = self.files.list.iter_mut().map(|file| {
            if file.unconfirmed.is_none() {
                file.entry.offset = file.position;
            }
            file.entry.clone()
        });
        self.state.files = entries.collect();
        self.registry.save(&self.state)?;
        self.is_ahead = false;
        self.saved = Instant::now();
        Ok(())
    }

    fn summary(self) -> Tally {
        let followed = self.files.list.iter().filter(|file| file.standing == Standing::Matched);
        let more = [
            ("files", followed.count() as u64),
            ("unmatched", self.counts.unmatched),
            ("pieces", self.counts.pieces),
        ];
        self.tally.with(self.counts.left_out, BTreeMap::from(more))
    }
}

/// What ends the reading of a file.
enum Halt {
    Stop(Stop),
    Failed(Failure),
}

impl<E: Into<Stop>> From<E> for Halt {
    fn from(stop: E) -> Self {
        Self::Stop(stop.into())
    }
}

impl From<Failure> for Halt {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

fn origin(file: &Followed) -> Origin<'_> {
    Origin { name: &file.entry.name, producer: &file.entry.producer }
}

/// The files of the registry, with the batches that the stream knows of them. Producers of files that were let go just before a crash are deleted.
fn known_files(stream: &Stream, state: &State) -> Result<Vec<Followed>, Failure> {
    let mut batches = BTreeMap::new();
    for producer in stream.producers()?.into_iter().filter(|producer| state.has_named(&producer.name)) {
        if state.files.iter().any(|entry| entry.producer == producer.name) {
            batches.insert(producer.name, producer.last_batch);
        } else {
            delete_producer(stream, &producer.name)?;
        }
    }
    let known = |entry: &super::registry::Entry| {
        let last = batches.get(&entry.producer).copied().flatten();
        Followed::known(entry.clone(), last.and_then(FileRange::of_number))
    };
    Ok(state.files.iter().map(known).collect())
}

fn delete_producer(stream: &Stream, name: &str) -> Result<(), Failure> {
    match stream.delete_producer(name) {
        Ok(()) | Err(Error::ProducerNotFound(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
