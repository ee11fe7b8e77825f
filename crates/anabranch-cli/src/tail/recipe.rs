//! What a record of a file becomes in the stream: its data and its partition key.
//!
//! Both depend on the record's bytes, the file's name and the record's place alone, so that a range which is read again gives what it gave before.

use std::borrow::Cow;

use anabranch::Limits;

use super::args::{Oversize, RecordArgs, Unmatched};
use super::cut::Cutter;
use super::format::{self, Format};
use crate::exit::Failure;
use crate::keys::{BadKey, KeyFault, KeyRule, line_hash};

/// The longest record whatever the stream allows: the range of a batch has to hold it.
const MAX_RECORD_BYTES: usize = 8 << 20;

/// How records are made.
#[derive(Debug)]
pub(crate) struct Recipe {
    pub(crate) cutter: Cutter,
    format: Option<Format>,
    args: RecordArgs,
    /// Nothing for keys that are drawn from the place.
    key: Option<KeyRule>,
    max_data_bytes: usize,
}

/// A record as it stands in its file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Raw<'a> {
    /// Its bytes, without the line end.
    pub(crate) bytes: &'a [u8],
    /// Where it starts.
    pub(crate) offset: u64,
    /// Whether it begins where a line does, and was not cut off.
    pub(crate) is_whole: bool,
    /// Whether it was cut off.
    pub(crate) is_cut_off: bool,
}

/// The file that a record comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin<'a> {
    /// What it was called when it was seen first.
    pub(crate) name: &'a str,
    /// The name of its producer, which no other file has.
    pub(crate) producer: &'a str,
}

/// What a record becomes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Made<'a> {
    pub(crate) key: Cow<'a, str>,
    pub(crate) data: Cow<'a, [u8]>,
}

/// Why a record stops the command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(transparent)]
    Key(#[from] KeyFault),
    #[error("the record is longer than the {0} bytes that the stream takes, and --oversize is stop")]
    TooLong(usize),
}

/// What was left out or changed on the way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) left_out: u64,
    pub(crate) unmatched: u64,
    pub(crate) pieces: u64,
}

impl Recipe {
    pub(crate) fn new(args: &RecordArgs, limits: &Limits) -> Result<Self, Failure> {
        let max_data_bytes = limits.max_data_bytes as usize;
        let max_bytes = max_data_bytes.min(MAX_RECORD_BYTES);
        Ok(Self {
            cutter: Cutter { start_pattern: args.start_pattern.clone(), max_bytes },
            format: args.format()?,
            key: (!args.key_random).then(|| args.key.rule()),
            args: args.clone(),
            max_data_bytes,
        })
    }

    /// What the record becomes; nothing if it is left out.
    pub(crate) fn make<'a>(
        &'a self,
        raw: Raw<'a>,
        origin: Origin<'a>,
        counts: &mut Counts,
    ) -> Result<Option<Made<'a>>, Refusal> {
        if raw.is_cut_off && self.args.oversize == Oversize::Stop {
            return Err(Refusal::TooLong(self.cutter.max_bytes));
        }
        let text = self.text(raw.bytes);
        let Some(key) = self.key(raw, &text, origin, counts)? else {
            return Ok(None);
        };
        if !raw.is_whole {
            counts.pieces += 1;
            return Ok(Some(Made { key: key.into(), data: raw.bytes.into() }));
        }
        let data = self.data(text, counts)?;
        Ok(data.map(|data| Made { key: key.into(), data }))
    }

    /// The record as the options for lines want it.
    fn text<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let bytes = match bytes {
            [bytes @ .., b'\r'] if self.args.crlf => bytes,
            bytes => bytes,
        };
        if !self.args.single_line {
            return bytes.into();
        }
        let lines = bytes.split(|byte| *byte == b'\n').map(|line| match line {
            [line @ .., b'\r'] if self.args.crlf => line,
            line => line,
        });
        Cow::from(lines.collect::<Vec<_>>().join(&b' '))
    }

    /// A piece of a line may lack what the key is found in: it takes its hash.
    fn key(
        &self,
        raw: Raw<'_>,
        text: &[u8],
        origin: Origin<'_>,
        counts: &mut Counts,
    ) -> Result<Option<String>, Refusal> {
        let Some(rule) = &self.key else {
            return Ok(Some(line_hash(format!("{}:{}", origin.producer, raw.offset).as_bytes())));
        };
        match rule.key(text, origin.name) {
            Ok(key) => Ok(Some(key.into_owned())),
            Err(_) if !raw.is_whole || self.args.key.bad_key == BadKey::Hash => Ok(Some(line_hash(raw.bytes))),
            Err(_) if self.args.key.bad_key == BadKey::Skip => {
                counts.left_out += 1;
                Ok(None)
            }
            Err(fault) => Err(fault.into()),
        }
    }

    /// JSON that is too long where its record is not gives way to the record.
    fn data<'a>(&self, text: Cow<'a, [u8]>, counts: &mut Counts) -> Result<Option<Cow<'a, [u8]>>, Refusal> {
        let Some(format) = &self.format else {
            return Ok(Some(text));
        };
        let mut json = format.convert(&text);
        if json.is_none() {
            counts.unmatched += 1;
            json = match self.args.unmatched {
                Unmatched::Message => format::message(&text),
                Unmatched::Raw => None,
                Unmatched::Drop => {
                    counts.left_out += 1;
                    return Ok(None);
                }
            };
        }
        match json {
            Some(json) if json.len() <= self.max_data_bytes => Ok(Some(json.into())),
            Some(_) if self.args.oversize == Oversize::Stop => Err(Refusal::TooLong(self.max_data_bytes)),
            Some(_) => {
                counts.pieces += 1;
                Ok(Some(text))
            }
            None => Ok(Some(text)),
        }
    }
}

impl Counts {
    pub(crate) fn add(&mut self, other: Self) {
        self.left_out += other.left_out;
        self.unmatched += other.unmatched;
        self.pieces += other.pieces;
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Options {
        #[command(flatten)]
        records: RecordArgs,
    }

    fn recipe(options: &[&str], max_data_bytes: u32) -> Recipe {
        let options = Options::try_parse_from([&["tail"], options].concat()).unwrap();
        Recipe::new(&options.records, &Limits { max_data_bytes, ..Limits::default() }).unwrap()
    }

    const ORIGIN: Origin<'_> = Origin { name: "app.log", producer: "p-1" };

    fn raw(bytes: &[u8]) -> Raw<'_> {
        Raw { bytes, offset: 7, is_whole: true, is_cut_off: false }
    }

    #[track_caller]
    fn assert_made(options: &[&str], bytes: &[u8], expected: Option<(&str, &[u8])>) {
        let recipe = recipe(options, 60);
        let made = recipe.make(raw(bytes), ORIGIN, &mut Counts::default()).unwrap();
        let made = made.as_ref().map(|made| (made.key.as_ref(), made.data.as_ref()));
        assert_eq!(made, expected, "{options:?}");
    }

    #[test]
    fn keys_come_from_the_record_as_it_stands_in_the_file() {
        assert_made(&[], b"foobar", Some(("85944171f73967e8", b"foobar")));
        assert_made(&["--key-file-name"], b"x", Some(("app.log", b"x")));
        let syslog = ["--format", "regex", "--pattern", "(?P<a>.)$", "--key-regex", "u=(\\w+)"];
        assert_made(&syslog, b"u=ann 1", Some(("ann", br#"{"a":"1"}"#)));
        assert_made(&["--key-field", "2", "--bad-key", "skip"], b"x", None);
        let of_place = recipe(&["--key-random"], 60);
        let made = of_place.make(raw(b"x"), ORIGIN, &mut Counts::default()).unwrap().unwrap();
        assert_eq!(made.key, line_hash(b"p-1:7"));
        let other = Origin { producer: "p-2", ..ORIGIN };
        assert_ne!(of_place.make(raw(b"x"), other, &mut Counts::default()).unwrap().unwrap().key, made.key);
    }

    #[test]
    fn lines_of_a_record_are_joined() {
        let options = ["--key", "k", "--start-pattern", "^x", "--single-line", "--crlf"];
        assert_made(&options, b"x\r\n at y\n\n z\r", Some(("k", b"x  at y   z")));
        assert_made(&options[..4], b"x\n at y", Some(("k", b"x\n at y")));
    }

    #[test]
    fn records_that_are_not_of_the_format() {
        let with = |action| ["--key", "k", "--format", "csv", "--fields", "a,b", "--unmatched", action];
        assert_made(&with("message"), b"1,2", Some(("k", br#"{"a":"1","b":"2"}"#)));
        assert_made(&with("message"), b"1", Some(("k", br#"{"message":"1"}"#)));
        assert_made(&with("raw"), b"1", Some(("k", b"1")));
        assert_made(&with("drop"), b"1", None);
        let long = [b'"'; 50];
        assert_made(&with("message"), &long, Some(("k", &long)));
    }

    #[test]
    fn pieces_are_put_as_they_are_and_need_no_key() {
        let piece = Raw { is_whole: false, is_cut_off: true, ..raw(b"1,2") };
        let split = ["--key-field", "9", "--format", "csv", "--fields", "a,b"];
        let mut counts = Counts::default();
        let recipe_of_pieces = recipe(&split, 60);
        let made = recipe_of_pieces.make(piece, ORIGIN, &mut counts).unwrap().unwrap();
        assert_eq!((made.data.as_ref(), counts.pieces), (b"1,2".as_slice(), 1));
        assert_eq!(made.key, line_hash(b"1,2"));
        let stop = recipe(&["--oversize", "stop"], 60);
        assert_eq!(stop.make(piece, ORIGIN, &mut counts), Err(Refusal::TooLong(60)));
        assert_eq!(recipe(&split, 60).make(raw(b"1,2"), ORIGIN, &mut counts), Err(KeyFault::NoField.into()));
    }

    #[test]
    fn options_are_told_as_they_are_typed() {
        let options = ["--format", "csv", "--fields", "a,b", "--key-regex", "it's", "--skip-header", "1"];
        let typed = recipe(&options, 60).args.as_typed();
        let expected = r"--skip-header 1 --format csv --fields 'a,b' --unmatched message --oversize split --key-regex 'it'\''s'";
        assert_eq!(typed, format!("{expected} --bad-key 'fail'"));
    }

    #[test]
    fn options_that_need_each_other() {
        for wrong in [
            &["--format", "csv"][..],
            &["--fields", "a"],
            &["--format", "csv", "--fields", "a,b,a"],
            &["--format", "regex"],
            &["--pattern", "(?P<a>x)"],
            &["--format", "common", "--csv-delimiter", ";"],
        ] {
            let options = Options::try_parse_from([&["tail"], wrong].concat()).unwrap();
            assert!(options.records.format().is_err(), "{wrong:?}");
        }
        for wrong in [
            &["--pattern", "(x)"][..],
            &["--key-random", "--key", "k"],
            &["--single-line"],
            &["--csv-delimiter", "ab"],
        ] {
            assert!(Options::try_parse_from([&["tail"], wrong].concat()).is_err(), "{wrong:?}");
        }
    }
}
