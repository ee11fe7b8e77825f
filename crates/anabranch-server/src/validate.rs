//! The generic validator: lengths, ranges, patterns and enumerations of members, and its texts. All faults of a request are told at once, up to ten.

use crate::errors::{Fault, FaultKind, printed};
use crate::limits::MAX_PRINTED_CHARS;

const MOST_FAULTS: usize = 10;

/// A regular expression of the model, by its text and by what it means.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pattern {
    text: &'static str,
    holds: fn(&str) -> bool,
}

impl Pattern {
    pub(crate) fn holds(self, text: &str) -> bool {
        (self.holds)(text)
    }
}

/// Names of streams, consumers, queues and shards.
pub(crate) const NAME: Pattern = Pattern {
    text: "[a-zA-Z0-9_.-]+",
    holds: |text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)),
};
pub(crate) const HASH_KEY: Pattern = Pattern { text: "0|([1-9]\\d{0,38})", holds: |text| is_number(text, 39) };
pub(crate) const SEQUENCE: Pattern = Pattern { text: "0|([1-9]\\d{0,128})", holds: |text| is_number(text, 129) };
pub(crate) const STREAM_ARN: Pattern =
    Pattern { text: "arn:aws.*:kinesis:.*:\\d{12}:stream/\\S+", holds: crate::arn::is_stream };
pub(crate) const CONSUMER_ARN: Pattern = Pattern {
    text: "^(arn):aws.*:kinesis:.*:\\d{12}:.*stream\\/[a-zA-Z0-9_.-]+\\/consumer\\/[a-zA-Z0-9_.-]+:[0-9]+",
    holds: crate::arn::is_consumer,
};
pub(crate) const QUEUE_ARN: Pattern =
    Pattern { text: "arn:aws.*:kinesis:.*:\\d{12}:queue/\\S+", holds: crate::arn::is_queue };
pub(crate) const RESOURCE_ARN: Pattern =
    Pattern { text: "arn:aws.*:kinesis:.*:\\d{12}:.*(stream|channel|queue)/\\S+", holds: crate::arn::is_resource };

fn is_number(text: &str, digits: usize) -> bool {
    let is_plain = text.len() <= digits && text.bytes().all(|b| b.is_ascii_digit());
    is_plain && (text == "0" || text.bytes().next().is_some_and(|first| first != b'0'))
}

/// Collects what is wrong with a request.
#[derive(Debug, Default)]
pub(crate) struct Validator {
    faults: Vec<String>,
    /// Of which of a request's records the members are.
    record: Option<usize>,
}

impl Validator {
    /// What is checked from here on are members of the record of this index. Its place is printed in faults only: there are hundreds of records in most requests, and nearly never a fault.
    pub(crate) fn of_record(&mut self, index: usize) {
        self.record = Some(index);
    }

    pub(crate) fn of_request(&mut self) {
        self.record = None;
    }

    pub(crate) fn required<T>(&mut self, path: &str, value: Option<&T>) {
        if value.is_none() {
            self.fault("null", path, "Member must not be null");
        }
    }

    /// Characters of a text.
    pub(crate) fn length(&mut self, path: &str, value: Option<&str>, least: usize, most: usize) {
        if let Some(value) = value {
            let length = value.chars().count();
            if !(least..=most).contains(&length) {
                self.size(path, &quoted(value), length, least, most);
            }
        }
    }

    /// The length of something whose print is not its value.
    pub(crate) fn size(&mut self, path: &str, print: &str, length: usize, least: usize, most: usize) {
        if length < least {
            self.fault(print, path, &format!("Member must have length greater than or equal to {least}"));
        }
        if length > most {
            self.fault(print, path, &format!("Member must have length less than or equal to {most}"));
        }
    }

    pub(crate) fn range(&mut self, path: &str, value: Option<i64>, least: i64, most: i64) {
        let Some(value) = value else { return };
        let print = format!("'{value}'");
        if value < least {
            self.fault(&print, path, &format!("Member must have value greater than or equal to {least}"));
        }
        if value > most {
            self.fault(&print, path, &format!("Member must have value less than or equal to {most}"));
        }
    }

    pub(crate) fn pattern(&mut self, path: &str, value: Option<&str>, pattern: Pattern) {
        if let Some(value) = value.filter(|value| !(pattern.holds)(value)) {
            let constraint = format!("Member must satisfy regular expression pattern: {}", pattern.text);
            self.fault(&quoted(value), path, &constraint);
        }
    }

    pub(crate) fn one_of(&mut self, path: &str, value: Option<&str>, allowed: &[&str]) {
        if let Some(value) = value.filter(|value| !allowed.contains(value)) {
            let constraint = format!("Member must satisfy enum value set: [{}]", allowed.join(", "));
            self.fault(&quoted(value), path, &constraint);
        }
    }

    /// A name of 1 to 128 characters.
    pub(crate) fn name(&mut self, path: &str, value: Option<&str>) {
        self.pattern(path, value, NAME);
        self.length(path, value, 1, 128);
    }

    /// The name of a stream that is to be made, which is to have a directory of this name.
    pub(crate) fn stream_name(&mut self, path: &str, value: Option<&str>) {
        self.name(path, value);
        if let Some(value @ ("." | "..")) = value {
            self.fault(&quoted(value), path, "Member must be neither . nor ..");
        }
    }

    /// Those behind the last that is told are not kept either.
    fn fault(&mut self, print: &str, path: &str, constraint: &str) {
        if self.faults.len() == MOST_FAULTS {
            return;
        }
        let place = self.record.map_or_else(String::new, |index| format!("records.{}.member.", index + 1));
        self.faults.push(format!("Value {print} at '{place}{path}' failed to satisfy constraint: {constraint}"));
    }

    pub(crate) fn finish(self) -> Result<(), Fault> {
        let count = self.faults.len();
        let errors = match count {
            0 => return Ok(()),
            1 => "error",
            _ => "errors",
        };
        let message = format!("{count} validation {errors} detected: {}", self.faults.join("; "));
        Err(Fault::new(FaultKind::Validation, message))
    }
}

fn quoted(value: &str) -> String {
    format!("'{}'", printed(value))
}

/// The print of a list of texts.
pub(crate) fn listed<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> String {
    let mut list = String::new();
    for text in texts {
        if !list.is_empty() {
            list.push_str(", ");
        }
        list.push_str(&printed(text.as_ref()));
        if list.len() > 4 * MAX_PRINTED_CHARS {
            break; // the rest would be cut, whatever the characters are
        }
    }
    format!("'[{}]'", printed(&list))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_told_together() {
        let mut check = Validator::default();
        check.required("shardId", None::<&&str>);
        check.name("streamName", Some("a b"));
        check.range("limit", Some(10_001), 1, 10_000);
        check.one_of("type", Some("X"), &["A", "B"]);
        let message = check.finish().unwrap_err().message.unwrap();
        assert_eq!(
            message,
            "4 validation errors detected: Value null at 'shardId' failed to satisfy constraint: Member must not be null; \
             Value 'a b' at 'streamName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+; \
             Value '10001' at 'limit' failed to satisfy constraint: Member must have value less than or equal to 10000; \
             Value 'X' at 'type' failed to satisfy constraint: Member must satisfy enum value set: [A, B]"
        );
    }

    #[test]
    fn what_is_long_or_much_is_told_in_part() {
        let long = "\u{e9} ".repeat(1 << 20);
        let mut check = Validator::default();
        for _ in 0..100 {
            check.name("streamName", Some(&long));
        }
        check.size("tagKeys", &listed([&long; 60]), 60, 1, 50);
        assert_eq!(check.faults.len(), MOST_FAULTS);
        let message = check.finish().unwrap_err().message.unwrap();
        assert!(
            message.starts_with("10 validation errors detected: Value '\u{e9} ")
                && message.contains(" \u{2026}' at 'streamName'")
        );
        assert!(message.chars().count() < MOST_FAULTS * (MAX_PRINTED_CHARS + 200));
        assert_eq!(listed(["a", "b"]), "'[a, b]'");
        assert!(listed([&long; 60]).chars().count() <= MAX_PRINTED_CHARS + 5);
    }

    #[test]
    fn numbers_have_no_leading_zeros_and_an_end() {
        for (text, holds) in [("0", true), ("10", true), ("01", false), ("", false), ("-1", false)] {
            assert_eq!((HASH_KEY.holds)(text), holds, "{text}");
        }
        assert!((HASH_KEY.holds)(&"9".repeat(39)) && !(HASH_KEY.holds)(&"9".repeat(40)));
        assert!((SEQUENCE.holds)(&"9".repeat(129)) && !(SEQUENCE.holds)(&"9".repeat(130)));
    }
}
