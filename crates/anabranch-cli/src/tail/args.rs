//! Arguments of `tail`.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum, ValueHint};
use regex::bytes::Regex;

use super::format::{Format, FormatName};
use super::matches::parse_pattern;
use crate::exit::Failure;
use crate::keys::KeyArgs;
use crate::open::DurabilityArg;
use crate::units::parse_duration;

#[derive(Debug, Clone, Args)]
pub(crate) struct TailArgs {
    /// Files to follow: names and patterns with * ? [] and **, which are matched again at every look
    #[arg(value_name = "FILE", required = true, value_hint = ValueHint::FilePath, value_parser = parse_pattern)]
    pub(crate) files: Vec<String>,

    /// The stream's directory
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) into: PathBuf,

    /// Make the stream, with the defaults of `create`, if there is none
    #[arg(long)]
    pub(crate) create: bool,

    /// Where to keep what is known of the files [default: DIR.agent, beside the stream]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) state: Option<PathBuf>,

    /// Where to begin in files that are there at the very first run; later files are read from their start
    /// [default: end, or start with --once]
    #[arg(long, value_name = "PLACE", value_enum)]
    pub(crate) from: Option<From>,

    /// Put everything that is there, also a last line without end, and exit; with code 3 if a file could not be read, or has no wildcard and is not there
    #[arg(long)]
    pub(crate) once: bool,

    /// How often to look at the files; what came in the meantime is put together
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = parse_poll)]
    pub(crate) poll: Duration,

    /// Take a file that has not grown for so long as complete: the last record of --start-pattern, the last line of a
    /// rotated file, a file that is being copied
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_duration)]
    pub(crate) idle: Duration,

    /// Put up to so many records at once
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch: u32,

    /// What acknowledged records survive, where that is more than the stream's own level
    #[arg(long, value_name = "LEVEL", value_enum, default_value = "synced")]
    pub(crate) durability: DurabilityArg,

    #[command(flatten)]
    pub(crate) records: RecordArgs,
}

/// What a record is made of. The same bytes have to give the same records while a batch is not known to be complete.
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub(crate) struct RecordArgs {
    /// Leave out so many lines at the start of each file
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) skip_header: u32,

    /// Begin a record with each line that matches; the lines behind it belong to it
    #[arg(long, value_name = "REGEX")]
    pub(crate) start_pattern: Option<Regex>,

    /// Put a space in the place of each line end inside a record
    #[arg(long, requires = "start_pattern")]
    pub(crate) single_line: bool,

    /// Take a carriage return at the end of a record off, too
    #[arg(long)]
    pub(crate) crlf: bool,

    /// Make JSON of each record
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub(crate) format: Option<FormatName>,

    /// The names of the values in a row of --format csv
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub(crate) fields: Vec<String>,

    /// What stands between the values in a row of --format csv (\t is a tab) [default: ,]
    #[arg(long, value_name = "CHAR", value_parser = parse_csv_delimiter)]
    pub(crate) csv_delimiter: Option<u8>,

    /// What a record of --format regex looks like; its named groups become the members
    #[arg(long, value_name = "REGEX", value_parser = parse_named_groups)]
    pub(crate) pattern: Option<Regex>,

    /// What becomes of a record that is not of the --format
    #[arg(long, value_name = "ACTION", value_enum, default_value_t)]
    pub(crate) unmatched: Unmatched,

    /// What becomes of a record that is longer than the stream takes
    #[arg(long, value_name = "ACTION", value_enum, default_value_t)]
    pub(crate) oversize: Oversize,

    /// Give every record a partition key of its own, drawn from its place: records spread evenly, equal ones too
    #[arg(long, group = "key_rule")]
    pub(crate) key_random: bool,

    #[command(flatten)]
    pub(crate) key: KeyArgs,
}

/// Where to begin in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum From {
    /// With its first line
    Start,
    /// With the line that is being written
    End,
}

/// What becomes of a record that is not of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Unmatched {
    /// It becomes {"message": record}
    #[default]
    Message,
    /// It is put as it is
    Raw,
    /// It is left out; the summary counts it
    Drop,
}

/// What becomes of a record that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Oversize {
    /// Each piece that the stream takes becomes a record, as it is
    #[default]
    Split,
    /// Stop there; the records before it are in the stream
    Stop,
}

impl RecordArgs {
    /// How to read records as JSON, if that is asked for.
    pub(crate) fn format(&self) -> Result<Option<Format>, Failure> {
        self.check()?;
        let Some(name) = self.format else {
            return Ok(None);
        };
        let built_in = Format::built_in(name).map_err(|error| Failure::Usage(error.to_string()))?;
        Ok(built_in.or_else(|| match &self.pattern {
            Some(pattern) => Some(Format::Pattern { pattern: pattern.clone(), dash_is_null: false }),
            None => {
                Some(Format::Csv { fields: self.fields.clone(), delimiter: self.csv_delimiter.unwrap_or(b',') })
            }
        }))
    }

    fn check(&self) -> Result<(), Failure> {
        let is_csv = self.format == Some(FormatName::Csv);
        let is_regex = self.format == Some(FormatName::Regex);
        let mut names = HashSet::new();
        let wrong = if !self.fields.iter().all(|name| names.insert(name)) {
            "--fields has a name twice"
        } else if is_csv == self.fields.is_empty() {
            "--format csv and --fields belong together"
        } else if !is_csv && self.csv_delimiter.is_some() {
            "--csv-delimiter belongs to --format csv"
        } else if is_regex != self.pattern.is_some() {
            "--format regex and --pattern belong together"
        } else {
            return Ok(());
        };
        Err(Failure::Usage(wrong.to_owned()))
    }

    /// The options as they are typed, to tell whether they are those of the run before, and to say what those were.
    pub(crate) fn as_typed(&self) -> String {
        let mut typed = Vec::new();
        let mut add = |name: &str, value: Option<String>| {
            typed.extend(value.map(|value| format!("--{name} {value}")));
        };
        add("skip-header", (self.skip_header > 0).then(|| self.skip_header.to_string()));
        add("start-pattern", self.start_pattern.as_ref().map(|pattern| quoted(pattern.as_str())));
        add("single-line", self.single_line.then(String::new));
        add("crlf", self.crlf.then(String::new));
        add("format", self.format.as_ref().map(value_name));
        add("fields", (!self.fields.is_empty()).then(|| quoted(&self.fields.join(","))));
        add("csv-delimiter", self.csv_delimiter.map(|byte| quoted(&char::from(byte).to_string())));
        add("pattern", self.pattern.as_ref().map(|pattern| quoted(pattern.as_str())));
        add("unmatched", self.format.map(|_| value_name(&self.unmatched)));
        add("oversize", Some(value_name(&self.oversize)));
        add("key-random", self.key_random.then(String::new));
        for (name, value) in self.key.as_typed() {
            add(name, Some(if value.is_empty() { value } else { quoted(&value) }));
        }
        typed.iter().map(|option| option.trim_end()).collect::<Vec<_>>().join(" ")
    }
}

fn value_name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Without a pause it would be all that a processor does.
fn parse_poll(text: &str) -> Result<Duration, String> {
    let poll = parse_duration(text)?;
    if poll < Duration::from_millis(1) {
        return Err("1ms is the shortest pause".to_owned());
    }
    Ok(poll)
}

fn parse_csv_delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        [b'\\', b't'] => Ok(b'\t'),
        [byte] if byte.is_ascii() && !matches!(byte, b'\n' | b'\r' | b'"') => Ok(*byte),
        _ => Err("expected one ASCII character, or \\t".to_owned()),
    }
}

fn parse_named_groups(text: &str) -> Result<Regex, String> {
    let pattern = Regex::new(text).map_err(|error| error.to_string())?;
    if pattern.capture_names().flatten().next().is_none() {
        return Err("it has no named group such as (?P<name>...)".to_owned());
    }
    Ok(pattern)
}
