//! Records to JSON: rows of CSV, and lines of logs by a pattern with named groups.
//!
//! A record becomes one object whose members are strings in the order of the fields; bytes that are no UTF-8 become U+FFFD. The names are those of
//! Kinesis Agent.

use std::borrow::Cow;
use std::io;

use clap::ValueEnum;
use regex::bytes::Regex;
use serde::{Serialize, Serializer, ser::SerializeMap};

/// The formats that have a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatName {
    /// Rows of comma-separated values, named by --fields
    Csv,
    /// Apache's common log format
    Common,
    /// Apache's combined log format
    Combined,
    /// Apache's error log
    ApacheError,
    /// Lines of syslog files: RFC 3164 with its times or with those of RFC 3339
    Syslog,
    /// Lines that match --pattern, named by its groups
    Regex,
}

const COMMON: &str = r#"(?s-u)^(?P<host>\S+) (?P<ident>\S+) (?P<authuser>.+?) \[(?P<datetime>[^\]]+)\] "(?P<request>(?:[^"\\]|\\.)*)" (?P<response>\d{3}|-) (?P<bytes>\d+|-)$"#;
const COMBINED: &str = r#"(?s-u)^(?P<host>\S+) (?P<ident>\S+) (?P<authuser>.+?) \[(?P<datetime>[^\]]+)\] "(?P<request>(?:[^"\\]|\\.)*)" (?P<response>\d{3}|-) (?P<bytes>\d+|-) "(?P<referrer>(?:[^"\\]|\\.)*)" "(?P<agent>(?:[^"\\]|\\.)*)"$"#;
const APACHE_ERROR: &str = r"(?s-u)^\[(?P<timestamp>[^\]]+)\] \[(?:(?P<module>[^:\]]*):)?(?P<severity>[^\]]+)\](?: \[pid (?P<processid>\d+)(?::tid (?P<threadid>\d+))?\])?(?: \[client (?P<client>[^\]]+)\])? (?P<message>.*)$";
const SYSLOG: &str = r"(?s-u)^(?:<(?P<priority>\d{1,3})>)?(?P<timestamp>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT\S+) (?P<hostname>\S+) (?P<program>[^\s:\[]+)(?:\[(?P<processid>[^\]]*)\])?: ?(?P<message>.*)$";

/// How to read a record.
#[derive(Debug, Clone)]
pub(crate) enum Format {
    Csv {
        fields: Vec<String>,
        delimiter: u8,
    },
    Pattern {
        pattern: Regex,
        /// Whether `-` stands for nothing.
        dash_is_null: bool,
    },
}

impl Format {
    /// One of the formats that need no options.
    pub(crate) fn built_in(name: FormatName) -> Result<Option<Self>, regex::Error> {
        let (pattern, dash_is_null) = match name {
            FormatName::Common => (COMMON, true),
            FormatName::Combined => (COMBINED, true),
            FormatName::ApacheError => (APACHE_ERROR, false),
            FormatName::Syslog => (SYSLOG, false),
            FormatName::Csv | FormatName::Regex => return Ok(None),
        };
        Ok(Some(Self::Pattern { pattern: Regex::new(pattern)?, dash_is_null }))
    }

    /// The record as JSON; nothing where it is not of this format.
    pub(crate) fn convert(&self, record: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Csv { fields, delimiter } => row(record, fields, *delimiter),
            Self::Pattern { pattern, dash_is_null } => groups(record, pattern, *dash_is_null),
        }
    }
}

/// A record that is not of the format asked for, as an object.
pub(crate) fn message(record: &[u8]) -> Option<Vec<u8>> {
    object(vec![("message", Some(String::from_utf8_lossy(record)))])
}

/// A row with another number of values than there are fields is none: which of them is missing nobody knows. Nor is one whose last quote is open:
/// what should follow is not there.
fn row(record: &[u8], fields: &[String], delimiter: u8) -> Option<Vec<u8>> {
    // An open quote takes in what follows the record.
    let followed = io::Read::chain(record, &b"\nx"[..]);
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).flexible(true).delimiter(delimiter).from_reader(followed);
    let mut values = csv::ByteRecord::new();
    let is_there = reader.read_byte_record(&mut values).ok()?;
    let is_all = reader.position().byte() >= record.len() as u64;
    let is_closed = reader.read_byte_record(&mut csv::ByteRecord::new()).ok()?;
    if !is_there || !is_all || !is_closed || values.len() != fields.len() {
        return None;
    }
    let values = values.iter().map(|value| Some(String::from_utf8_lossy(value)));
    object(fields.iter().map(String::as_str).zip(values).collect())
}

fn groups(record: &[u8], pattern: &Regex, dash_is_null: bool) -> Option<Vec<u8>> {
    let captures = pattern.captures(record)?;
    let value = |name| {
        let bytes = captures.name(name)?.as_bytes();
        (!dash_is_null || bytes != b"-").then(|| String::from_utf8_lossy(bytes))
    };
    object(pattern.capture_names().flatten().map(|name| (name, value(name))).collect())
}

fn object(members: Vec<(&str, Option<Cow<'_, str>>)>) -> Option<Vec<u8>> {
    serde_json::to_vec(&Members(members)).ok()
}

/// An object whose members keep their order.
struct Members<'a>(Vec<(&'a str, Option<Cow<'a, str>>)>);

impl Serialize for Members<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_json(format: &Format, record: &[u8], expected: Option<&str>) {
        let found = format.convert(record).map(|json| String::from_utf8(json).unwrap());
        assert_eq!(found.as_deref(), expected, "{}", String::from_utf8_lossy(record));
    }

    fn named(name: FormatName) -> Format {
        Format::built_in(name).unwrap().unwrap()
    }

    #[test]
    fn rows_are_named_by_their_fields() {
        let csv = |delimiter| Format::Csv { fields: vec!["b".to_owned(), "a".to_owned()], delimiter };
        assert_json(&csv(b','), b"1,two words", Some(r#"{"b":"1","a":"two words"}"#));
        assert_json(&csv(b','), br#""x, ""y""",z"#, Some(r#"{"b":"x, \"y\"","a":"z"}"#));
        assert_json(&csv(b','), b"\"x\ny\",", Some(r#"{"b":"x\ny","a":""}"#));
        assert_json(&csv(b'\t'), b"1\t\xff", Some("{\"b\":\"1\",\"a\":\"\u{fffd}\"}"));
        assert_json(&csv(b','), b"1,2\r", Some(r#"{"b":"1","a":"2"}"#));
        for wrong in [&b""[..], b"1", b"1,2,3", b"1,2\n3,4", b"1,\"open", b"1,\"open\"\"", b"\"1,2"] {
            assert_json(&csv(b','), wrong, None);
        }
    }

    #[test]
    fn access_logs() {
        let line = br#"64.242.88.10 - ann [07/Mar/2004:16:10:02 -0800] "GET /a?q=\"x\" HTTP/1.1" 200 6291"#;
        let common = r#"{"host":"64.242.88.10","ident":null,"authuser":"ann","datetime":"07/Mar/2004:16:10:02 -0800","request":"GET /a?q=\\\"x\\\" HTTP/1.1","response":"200","bytes":"6291""#;
        assert_json(&named(FormatName::Common), line, Some(&format!("{common}}}")));
        assert_json(&named(FormatName::Combined), line, None);
        let combined = [&line[..], br#" "http://a.b/c" "Mozilla/5.0 (X11)""#].concat();
        let expected = format!(r#"{common},"referrer":"http://a.b/c","agent":"Mozilla/5.0 (X11)"}}"#);
        assert_json(&named(FormatName::Combined), &combined, Some(&expected));
        assert_json(&named(FormatName::Common), &combined, None);
        let failed = br#"::1 - - [07/Mar/2004:16:10:02 -0800] "-" 408 -"#;
        let expected = r#"{"host":"::1","ident":null,"authuser":null,"datetime":"07/Mar/2004:16:10:02 -0800","request":null,"response":"408","bytes":null}"#;
        assert_json(&named(FormatName::Common), failed, Some(expected));
    }

    #[test]
    fn error_logs() {
        let line = b"[Fri Sep 09 10:42:29.902022 2011] [core:error] [pid 35708:tid 4328636416] [client 72.15.99.187:80] File does not exist: /x";
        let expected = r#"{"timestamp":"Fri Sep 09 10:42:29.902022 2011","module":"core","severity":"error","processid":"35708","threadid":"4328636416","client":"72.15.99.187:80","message":"File does not exist: /x"}"#;
        assert_json(&named(FormatName::ApacheError), line, Some(expected));
        let old = b"[Wed Oct 11 14:32:52 2000] [error] [client 127.0.0.1] denied";
        let expected = r#"{"timestamp":"Wed Oct 11 14:32:52 2000","module":null,"severity":"error","processid":null,"threadid":null,"client":"127.0.0.1","message":"denied"}"#;
        assert_json(&named(FormatName::ApacheError), old, Some(expected));
        assert_json(&named(FormatName::ApacheError), b"PHP Warning: x", None);
    }

    #[test]
    fn system_logs() {
        let line = b"<34>Oct  1 22:14:15 mymachine su[77]: 'su root' failed\xff";
        let expected = "{\"priority\":\"34\",\"timestamp\":\"Oct  1 22:14:15\",\"hostname\":\"mymachine\",\"program\":\"su\",\"processid\":\"77\",\"message\":\"'su root' failed\u{fffd}\"}";
        assert_json(&named(FormatName::Syslog), line, Some(expected));
        let line = b"2026-01-31T12:00:00.5+01:00 host kernel: usb 1-1\n next";
        let expected = r#"{"priority":null,"timestamp":"2026-01-31T12:00:00.5+01:00","hostname":"host","program":"kernel","processid":null,"message":"usb 1-1\n next"}"#;
        assert_json(&named(FormatName::Syslog), line, Some(expected));
        assert_json(&named(FormatName::Syslog), b"hello", None);
    }

    #[test]
    fn patterns_of_ones_own() {
        let pattern = Regex::new(r"^(?P<level>[A-Z]+) (?:u=(?P<user>\w+) )?(.*)$").unwrap();
        let format = Format::Pattern { pattern, dash_is_null: false };
        assert_json(&format, b"INFO u=ann -", Some(r#"{"level":"INFO","user":"ann"}"#));
        assert_json(&format, b"INFO -", Some(r#"{"level":"INFO","user":null}"#));
        assert_json(&format, b"info", None);
        assert_eq!(message(b"x\"\xff").unwrap(), "{\"message\":\"x\\\"\u{fffd}\"}".as_bytes());
    }
}
