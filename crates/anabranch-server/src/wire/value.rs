//! A body before anybody knows what it should be, borrowed from its bytes.
//!
//! Bodies are read in two steps, so that the texts about wrong types are the service's for both formats, and so that data is decoded once, from where it arrived.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Serialize, Serializer};

use crate::limits::MAX_BODY_VALUES;

/// A value of a body.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value<'a> {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(Cow<'a, str>),
    /// CBOR only.
    Bytes(Cow<'a, [u8]>),
    List(Vec<Value<'a>>),
    Map(Vec<(Cow<'a, str>, Value<'a>)>),
}

impl Value<'_> {
    /// Takes out the members of these names, of whatever structure.
    pub(crate) fn forget(&mut self, names: &[&str]) {
        match self {
            Self::List(values) => {
                for value in values {
                    value.forget(names);
                }
            }
            Self::Map(members) => {
                members.retain(|(name, _)| !names.contains(&name.as_ref()));
                for (_, value) in members {
                    value.forget(names);
                }
            }
            _ => {}
        }
    }
}

/// As it was read: bytes are of CBOR, where they are written as such.
impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Integer(value) => serializer.serialize_i64(*value),
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Bytes(bytes) => serializer.serialize_bytes(bytes),
            Self::List(values) => serializer.collect_seq(values),
            Self::Map(members) => serializer.collect_map(members.iter().map(|(name, value)| (name, value))),
        }
    }
}

/// Reads JSON; nothing if it is none, or too much. The parser bounds the depth itself.
pub(crate) fn from_json(body: &[u8]) -> Option<Value<'_>> {
    let left = Cell::new(MAX_BODY_VALUES);
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = Seed(&left).deserialize(&mut json).ok()?;
    json.end().ok().map(|()| value)
}

/// Counts values down.
#[derive(Clone, Copy)]
struct Seed<'c>(&'c Cell<usize>);

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value<'de>, D::Error> {
        let left = self.0.get().checked_sub(1).ok_or_else(|| de::Error::custom("too many values"))?;
        self.0.set(left);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value<'de>, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value<'de>, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value<'de>, E> {
        Ok(Value::Integer(i64::try_from(value).unwrap_or(i64::MAX)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value<'de>, E> {
        Ok(Value::Float(value))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Owned(value.to_owned()))) // it had escapes
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value<'de>, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(self)? {
            values.push(value);
        }
        Ok(Value::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value<'de>, A::Error> {
        let mut members = Vec::new();
        while let Some(name) = map.next_key_seed(Name)? {
            members.push((name, map.next_value_seed(self)?));
        }
        Ok(Value::Map(members))
    }
}

/// The name of a member.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(value.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_borrowed_unless_it_has_escapes() {
        let body = br#"{"a": "one", "b": "t\u0077o", "c": [1, -2.5, null, true]}"#;
        let Some(Value::Map(members)) = from_json(body) else { panic!("no map") };
        assert!(matches!(&members[0].1, Value::Text(Cow::Borrowed("one"))));
        assert!(matches!(&members[1].1, Value::Text(Cow::Owned(text)) if text == "two"));
        let list = vec![Value::Integer(1), Value::Float(-2.5), Value::Null, Value::Bool(true)];
        assert_eq!(members[2].1, Value::List(list));
    }

    #[test]
    fn what_is_too_much_is_no_body() {
        let zeros = |count: usize| format!("[{}0]", "0,".repeat(count - 1)).into_bytes();
        assert!(from_json(&zeros(MAX_BODY_VALUES - 1)).is_some());
        assert!(from_json(&zeros(MAX_BODY_VALUES)).is_none());
        assert!(from_json("[".repeat(100_000).as_bytes()).is_none());
        assert!(from_json(b"{} {}").is_none());
    }
}
