//! Members of a body by name and type, with the service's texts for wrong ones. What is `null` is absent, what nobody asks for is passed over.

use std::borrow::Cow;

use anabranch::Timestamp;

use super::Format;
use super::value::Value;
use crate::errors::{Fault, FaultKind, printed};

const LIST_OUT_OF_PLACE: &str = "Start of list found where not expected";
const MAP_OUT_OF_PLACE: &str = "Start of structure or map found where not expected.";

/// The members of a structure.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    format: Format,
    members: Vec<(Cow<'a, str>, Value<'a>)>,
}

/// Text by text, in the order of the body.
pub(crate) type TextMap = Vec<(String, Option<String>)>;

/// The elements of a list.
#[derive(Debug)]
pub(crate) struct List<'a> {
    format: Format,
    elements: Vec<Value<'a>>,
}

impl<'a> Fields<'a> {
    pub(crate) fn of_body(format: Format, value: Value<'a>) -> Option<Self> {
        match value {
            Value::Map(members) => Some(Self { format, members }),
            _ => None,
        }
    }

    pub(crate) fn text(&mut self, name: &str) -> Result<Option<Cow<'a, str>>, Fault> {
        self.take(name).map(as_text).transpose()
    }

    pub(crate) fn integer(&mut self, name: &str) -> Result<Option<i64>, Fault> {
        self.take(name).map(as_integer).transpose()
    }

    pub(crate) fn flag(&mut self, name: &str) -> Result<bool, Fault> {
        match self.take(name) {
            None => Ok(false),
            Some(Value::Bool(value)) => Ok(value),
            Some(other) => Err(wrong(&other, "an Boolean")),
        }
    }

    /// Base64 in JSON, bytes in CBOR.
    pub(crate) fn blob(&mut self, name: &str) -> Result<Option<Cow<'a, [u8]>>, Fault> {
        match (self.take(name), self.format) {
            (None, _) => Ok(None),
            (Some(Value::Text(text)), Format::Json) => decode_base64(&text).map(|bytes| Some(bytes.into())),
            (Some(Value::Bytes(bytes)), Format::Cbor) => Ok(Some(bytes)),
            (Some(other), _) => Err(wrong(&other, "a Blob")),
        }
    }

    /// Seconds with a fraction in JSON, whole milliseconds in CBOR.
    #[allow(clippy::cast_possible_truncation, reason = "what is out of range saturates")]
    pub(crate) fn time(&mut self, name: &str) -> Result<Option<Timestamp>, Fault> {
        let millis = match (self.take(name), self.format) {
            (None, _) => return Ok(None),
            (Some(Value::Integer(seconds)), Format::Json) => seconds.saturating_mul(1_000),
            (Some(Value::Float(seconds)), Format::Json) => (seconds * 1_000.0).round() as i64,
            (Some(Value::Integer(millis)), Format::Cbor) => millis,
            (Some(Value::Float(millis)), Format::Cbor) => millis.round() as i64,
            (Some(other), _) => return Err(wrong(&other, "milliseconds since epoch")),
        };
        Ok(Some(Timestamp::from_millis(millis)))
    }

    pub(crate) fn list(&mut self, name: &str) -> Result<Option<List<'a>>, Fault> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::List(elements)) => Ok(Some(List { format: self.format, elements })),
            Some(Value::Map(_)) => Err(Fault::type_of(MAP_OUT_OF_PLACE)),
            Some(_) => Err(Fault::type_of("Expected list or null")),
        }
    }

    /// Text by text, in the order of the body.
    pub(crate) fn text_map(&mut self, name: &str) -> Result<Option<TextMap>, Fault> {
        let members = match self.take(name) {
            None => return Ok(None),
            Some(Value::Map(members)) => members,
            Some(Value::List(_)) => return Err(Fault::type_of(LIST_OUT_OF_PLACE)),
            Some(_) => return Err(Fault::type_of("Expected map or null")),
        };
        let entry = |(key, value): (Cow<'a, str>, Value<'a>)| match value {
            Value::Null => Ok((key.into_owned(), None)),
            value => Ok((key.into_owned(), Some(as_text(value)?.into_owned()))),
        };
        members.into_iter().map(entry).collect::<Result<_, _>>().map(Some)
    }

    pub(crate) fn structure(&mut self, name: &str) -> Result<Option<Fields<'a>>, Fault> {
        self.take(name).map(|value| as_structure(self.format, value)).transpose()
    }

    /// Takes out members that nobody is to ask for.
    pub(crate) fn forget(&mut self, names: &[&str]) {
        self.members.retain(|(name, _)| !names.contains(&name.as_ref()));
    }

    /// Of members with the same name, the last counts.
    fn take(&mut self, name: &str) -> Option<Value<'a>> {
        let at = self.members.iter().rposition(|(found, _)| found == name)?;
        let value = std::mem::replace(&mut self.members.get_mut(at)?.1, Value::Null);
        (value != Value::Null).then_some(value)
    }
}

impl<'a> List<'a> {
    pub(crate) fn texts(self) -> Result<Vec<Cow<'a, str>>, Fault> {
        self.elements.into_iter().map(as_text).collect()
    }

    pub(crate) fn structures(self) -> Result<Vec<Fields<'a>>, Fault> {
        let format = self.format;
        self.elements.into_iter().map(|value| as_structure(format, value)).collect()
    }
}

fn as_text(value: Value<'_>) -> Result<Cow<'_, str>, Fault> {
    match value {
        Value::Text(text) => Ok(text),
        other => Err(wrong(&other, "an String")),
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the service truncates too")]
fn as_integer(value: Value<'_>) -> Result<i64, Fault> {
    match value {
        Value::Integer(value) => Ok(value),
        Value::Float(value) => Ok(value as i64),
        other => Err(wrong(&other, "an Integer")),
    }
}

fn as_structure(format: Format, value: Value<'_>) -> Result<Fields<'_>, Fault> {
    match value {
        Value::Map(members) => Ok(Fields { format, members }),
        Value::List(_) => Err(Fault::type_of(LIST_OUT_OF_PLACE)),
        _ => Err(Fault::type_of("Expected null")),
    }
}

/// The service names the classes of its own parser.
fn wrong(value: &Value<'_>, wanted: &str) -> Fault {
    let class = match value {
        Value::List(_) => return Fault::type_of(LIST_OUT_OF_PLACE),
        Value::Map(_) => return Fault::type_of(MAP_OUT_OF_PLACE),
        Value::Bool(_) => "java.lang.Boolean",
        Value::Integer(_) | Value::Float(_) => "com.amazon.coral.value.json.numbers.TruncatingBigNumber",
        Value::Bytes(_) => "java.nio.HeapByteBuffer",
        Value::Text(_) | Value::Null => "java.lang.String",
    };
    Fault::type_of(format!("class {class} can not be converted to {wanted}"))
}

fn decode_base64(text: &str) -> Result<Vec<u8>, Fault> {
    base64_simd::STANDARD.decode_to_vec(text).map_err(|_| {
        let reason = base64_fault(text);
        let text = printed(text);
        Fault::new(FaultKind::Serialization, format!("'{text}' can not be converted to a Blob: {reason}"))
    })
}

fn base64_fault(text: &str) -> String {
    if !text.len().is_multiple_of(4) {
        let length = text.len();
        return format!("Base64 encoded length is expected a multiple of 4 bytes but found: {length}");
    }
    let padding = text.bytes().rev().take(2).take_while(|byte| *byte == b'=').count();
    let is_foreign = |c: &char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '/'));
    match text.chars().take(text.len() - padding).find(is_foreign) {
        Some(c) => format!("Invalid Base64 character: '{c}'"),
        None => "Invalid last non-pad Base64 character dectected".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message<T: std::fmt::Debug>(result: Result<T, Fault>) -> String {
        let fault = result.unwrap_err();
        assert_eq!(fault.kind, FaultKind::Serialization);
        fault.message.unwrap()
    }

    fn json(text: &str) -> Fields<'_> {
        Format::Json.read(text.as_bytes()).unwrap()
    }

    #[test]
    fn wrong_types_are_told_in_the_service_s_words() {
        assert_eq!(
            message(json(r#"{"a": true}"#).text("a")),
            "class java.lang.Boolean can not be converted to an String"
        );
        assert_eq!(
            message(json(r#"{"a": 1}"#).text("a")),
            "class com.amazon.coral.value.json.numbers.TruncatingBigNumber can not be converted to an String"
        );
        assert_eq!(
            message(json(r#"{"a": "1"}"#).integer("a")),
            "class java.lang.String can not be converted to an Integer"
        );
        assert_eq!(message(json(r#"{"a": 1}"#).list("a")), "Expected list or null");
        assert_eq!(message(json(r#"{"a": 1}"#).text_map("a")), "Expected map or null");
        assert_eq!(message(json(r#"{"a": 1}"#).structure("a")), "Expected null");
        assert_eq!(message(json(r#"{"a": []}"#).text("a")), LIST_OUT_OF_PLACE);
        assert_eq!(message(json(r#"{"a": {}}"#).text("a")), MAP_OUT_OF_PLACE);
        assert_eq!(
            message(json(r#"{"a": "abc"}"#).blob("a")),
            "'abc' can not be converted to a Blob: Base64 encoded length is expected a multiple of 4 bytes but found: 3"
        );
        assert_eq!(
            message(json(r#"{"a": "a#=="}"#).blob("a")),
            "'a#==' can not be converted to a Blob: Invalid Base64 character: '#'"
        );
        assert_eq!(
            message(json(r#"{"a": "ab=="}"#).blob("a")),
            "'ab==' can not be converted to a Blob: Invalid last non-pad Base64 character dectected"
        );
    }

    #[test]
    fn null_is_absent_and_the_last_of_a_name_counts() {
        let mut fields = json(r#"{"a": null, "b": "1", "b": "2", "c": 1.9}"#);
        assert_eq!(fields.text("a"), Ok(None));
        assert_eq!(fields.text("b").unwrap().as_deref(), Some("2"));
        assert_eq!(fields.integer("c"), Ok(Some(1)));
        assert_eq!(fields.text("d"), Ok(None));
    }

    #[test]
    fn times_are_seconds_in_json_and_milliseconds_in_cbor() {
        let time = Timestamp::from_millis(1_459_799_926_480);
        assert_eq!(json(r#"{"a": 1459799926.480}"#).time("a"), Ok(Some(time)));
        let cbor = b"\xa1\x61a\xc1\x1b\x00\x00\x01\x53\xe3\x26\x46\x90"; // 1(ms)
        let expected = i64::from_str_radix("153e3264690", 16).unwrap();
        assert_eq!(Format::Cbor.read(cbor).unwrap().time("a"), Ok(Some(Timestamp::from_millis(expected))));
    }
}
