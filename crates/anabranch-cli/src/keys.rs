//! The partition key of an input line.

use std::borrow::Cow;

use anabranch::limits::MAX_PARTITION_KEY_CHARS;
use clap::{Args, ValueEnum};
use regex::bytes::Regex;

/// Where the partition key of a line comes from.
///
/// Keys are UTF-8: bytes of a line that are not become U+FFFD in its key (never in its data).
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub(crate) struct KeyArgs {
    /// Give every record this partition key
    #[arg(long, value_name = "KEY", group = "key_rule", value_parser = parse_key)]
    key: Option<String>,

    /// Take the Nth field of the line, counted from 1, as the partition key
    ///
    /// Fields are separated by runs of whitespace, or by --delimiter.
    #[arg(long, value_name = "N", group = "key_rule", value_parser = clap::value_parser!(u32).range(1..))]
    key_field: Option<u32>,

    /// Separate fields by this text instead of whitespace (\t is a tab)
    #[arg(long, value_name = "TEXT", requires = "key_field", value_parser = parse_delimiter)]
    delimiter: Option<Delimiter>,

    /// Take what this pattern finds in the line: its first group, or else the whole match
    #[arg(long, value_name = "REGEX", group = "key_rule")]
    key_regex: Option<Regex>,

    /// Take the name of the input file as the partition key, which keeps the file's lines in order
    #[arg(long, group = "key_rule")]
    key_file_name: bool,

    /// What to do with a line whose key is missing, empty or longer than 256 characters
    #[arg(long, value_name = "ACTION", value_enum, default_value_t)]
    pub(crate) bad_key: BadKey,
}

/// What becomes of a line without a usable key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum BadKey {
    /// Stop there; the lines before it are in the stream
    #[default]
    Fail,
    /// Use the hash of the line, as without a key option
    Hash,
    /// Leave the line out; the summary counts it
    Skip,
}

/// The text between fields.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Delimiter(Vec<u8>);

/// How to find the key of a line.
#[derive(Debug, Clone)]
pub(crate) enum KeyRule {
    Constant(String),
    Field { index: usize, delimiter: Option<Vec<u8>> },
    Pattern(Regex),
    FileName,
    LineHash,
}

/// Why a line has no usable key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyFault {
    #[error("the line has too few fields for --key-field")]
    NoField,
    #[error("--key-regex finds nothing in the line")]
    NoMatch,
    #[error("the partition key is empty")]
    Empty,
    #[error("the partition key is longer than {MAX_PARTITION_KEY_CHARS} characters")]
    TooLong,
}

impl KeyArgs {
    /// The rule that the options ask for; without one, the hash of the line.
    pub(crate) fn rule(&self) -> KeyRule {
        if let Some(key) = &self.key {
            KeyRule::Constant(key.clone())
        } else if let Some(field) = self.key_field {
            KeyRule::Field {
                index: field as usize - 1,
                delimiter: self.delimiter.as_ref().map(|delimiter| delimiter.0.clone()),
            }
        } else if let Some(pattern) = &self.key_regex {
            KeyRule::Pattern(pattern.clone())
        } else if self.key_file_name {
            KeyRule::FileName
        } else {
            KeyRule::LineHash
        }
    }

    /// The options that were given, by name, as they are typed.
    pub(crate) fn as_typed(&self) -> Vec<(&'static str, String)> {
        let bad_key = self.bad_key.to_possible_value().map(|value| value.get_name().to_owned());
        let delimiter = self.delimiter.as_ref();
        let typed = [
            ("key", self.key.clone()),
            ("key-field", self.key_field.map(|field| field.to_string())),
            ("delimiter", delimiter.map(|delimiter| String::from_utf8_lossy(&delimiter.0).into_owned())),
            ("key-regex", self.key_regex.as_ref().map(|pattern| pattern.as_str().to_owned())),
            ("key-file-name", self.key_file_name.then(String::new)),
            ("bad-key", bad_key),
        ];
        typed.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

impl KeyRule {
    /// The key of `line`, which comes from the file named `input`.
    pub(crate) fn key<'a>(&'a self, line: &'a [u8], input: &'a str) -> Result<Cow<'a, str>, KeyFault> {
        let key = match self {
            Self::Constant(key) => Cow::from(key),
            Self::Field { index, delimiter } => {
                let field = field(line, *index, delimiter.as_deref());
                String::from_utf8_lossy(field.ok_or(KeyFault::NoField)?)
            }
            Self::Pattern(pattern) => String::from_utf8_lossy(matched(pattern, line).ok_or(KeyFault::NoMatch)?),
            Self::FileName => Cow::from(input),
            Self::LineHash => Cow::from(line_hash(line)),
        };
        check_key(&key)?;
        Ok(key)
    }
}

fn check_key(key: &str) -> Result<(), KeyFault> {
    if key.is_empty() {
        Err(KeyFault::Empty)
    } else if key.len() > MAX_PARTITION_KEY_CHARS && key.chars().count() > MAX_PARTITION_KEY_CHARS {
        Err(KeyFault::TooLong)
    } else {
        Ok(())
    }
}

fn field<'a>(line: &'a [u8], index: usize, delimiter: Option<&[u8]>) -> Option<&'a [u8]> {
    match delimiter {
        None => line.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty()).nth(index),
        Some(delimiter) => delimited_field(line, index, delimiter),
    }
}

fn delimited_field<'a>(line: &'a [u8], index: usize, delimiter: &[u8]) -> Option<&'a [u8]> {
    let mut rest = line;
    for _ in 0..index {
        let at = memchr::memmem::find(rest, delimiter)?;
        rest = &rest[at + delimiter.len()..];
    }
    let end = memchr::memmem::find(rest, delimiter).unwrap_or(rest.len());
    Some(&rest[..end])
}

/// The first group where the pattern has one, else the whole match.
fn matched<'a>(pattern: &Regex, line: &'a [u8]) -> Option<&'a [u8]> {
    if pattern.captures_len() == 1 {
        return pattern.find(line).map(|found| found.as_bytes());
    }
    pattern.captures(line)?.get(1).map(|group| group.as_bytes())
}

/// FNV-1a over the line, 64 bits in 16 hexadecimal digits: spreads lines over the shards, and the same
/// line always goes to the same one, whichever release put it.
pub(crate) fn line_hash(line: &[u8]) -> String {
    let hash = line
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

fn parse_key(text: &str) -> Result<String, KeyFault> {
    check_key(text).map(|()| text.to_owned())
}

fn parse_delimiter(text: &str) -> Result<Delimiter, String> {
    match text {
        "" => Err("a delimiter has at least one character".to_owned()),
        "\\t" => Ok(Delimiter(b"\t".to_vec())),
        _ => Ok(Delimiter(text.as_bytes().to_vec())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_field(number: usize, delimiter: Option<&str>) -> KeyRule {
        KeyRule::Field { index: number - 1, delimiter: delimiter.map(|text| parse_delimiter(text).unwrap().0) }
    }

    fn by_pattern(pattern: &str) -> KeyRule {
        KeyRule::Pattern(Regex::new(pattern).unwrap())
    }

    #[track_caller]
    fn assert_key(rule: &KeyRule, line: &[u8], expected: Result<&str, KeyFault>) {
        assert_eq!(rule.key(line, "access.log").as_deref(), expected.as_ref().map(|key| *key));
    }

    #[test]
    fn fields_are_split_by_whitespace_runs() {
        assert_key(&by_field(1, None), b"  10.0.0.1 \t GET /", Ok("10.0.0.1"));
        assert_key(&by_field(2, None), b"10.0.0.1 \t GET /", Ok("GET"));
        assert_key(&by_field(4, None), b"10.0.0.1 GET /", Err(KeyFault::NoField));
        assert_key(&by_field(1, None), b"   ", Err(KeyFault::NoField));
    }

    #[test]
    fn delimited_fields_may_be_empty() {
        assert_key(&by_field(2, Some(",")), b"a,b,c", Ok("b"));
        assert_key(&by_field(3, Some(",")), b"a,b,c", Ok("c"));
        assert_key(&by_field(2, Some("::")), b"a::b c", Ok("b c"));
        assert_key(&by_field(2, Some("\\t")), b"a b\tc", Ok("c"));
        assert_key(&by_field(2, Some(",")), b"a,,c", Err(KeyFault::Empty));
        assert_key(&by_field(2, Some(",")), b"abc", Err(KeyFault::NoField));
        assert_key(&by_field(1, Some(",")), b"", Err(KeyFault::Empty));
    }

    #[test]
    fn patterns_give_their_first_group_or_the_match() {
        assert_key(&by_pattern("user=(\\w+)"), b"x user=ann y", Ok("ann"));
        assert_key(&by_pattern("[0-9]+"), b"order 42", Ok("42"));
        assert_key(&by_pattern("(a)|b"), b"b", Err(KeyFault::NoMatch));
        assert_key(&by_pattern("z"), b"abc", Err(KeyFault::NoMatch));
        assert_key(&by_pattern("x*"), b"abc", Err(KeyFault::Empty));
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        assert_key(&by_field(1, None), b"a\xffb c", Ok("a\u{fffd}b"));
    }

    #[test]
    fn lengths_are_counted_in_characters() {
        let longest = "ü".repeat(256);
        assert_key(&by_field(1, None), longest.as_bytes(), Ok(&longest));
        assert_key(&by_field(1, None), "ü".repeat(257).as_bytes(), Err(KeyFault::TooLong));
        assert!(parse_key("").is_err());
        assert!(parse_key(&longest).is_ok());
    }

    #[test]
    fn the_other_rules_need_no_line() {
        assert_key(&KeyRule::FileName, b"", Ok("access.log"));
        assert_key(&KeyRule::Constant("k".to_owned()), b"", Ok("k"));
        // The published test vectors of 64-bit FNV-1a.
        assert_key(&KeyRule::LineHash, b"", Ok("cbf29ce484222325"));
        assert_key(&KeyRule::LineHash, b"foobar", Ok("85944171f73967e8"));
    }
}
