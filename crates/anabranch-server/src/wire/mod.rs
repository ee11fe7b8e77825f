//! Documents on the wire: JSON 1.1 and CBOR 1.1, read into one kind of [`Value`] and written from one set of types.

mod cbor;
mod fields;
mod output;
mod value;

use serde::Serialize;

pub(crate) use fields::{Fields, List, TextMap};
pub(crate) use output::{Blob, Time};

use crate::errors::Fault;
use value::Value;

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Cbor,
}

impl Format {
    /// That of a content type; its parameters do not matter.
    pub(crate) fn of_content_type(content_type: &str) -> Option<Self> {
        match content_type.split(';').next()?.trim() {
            "application/x-amz-json-1.1" => Some(Self::Json),
            "application/x-amz-cbor-1.1" => Some(Self::Cbor),
            _ => None,
        }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/x-amz-json-1.1",
            Self::Cbor => "application/x-amz-cbor-1.1",
        }
    }

    /// Reads a body, which has to be one object; text and bytes are borrowed from it where they can be.
    pub(crate) fn read(self, body: &[u8]) -> Option<Fields<'_>> {
        Fields::of_body(self, self.value(body)?)
    }

    fn value(self, body: &[u8]) -> Option<Value<'_>> {
        match self {
            Self::Json => value::from_json(body),
            Self::Cbor => cbor::decode(body),
        }
    }

    /// A document of ours without the members of these names.
    pub(crate) fn without(self, names: &[&str], document: Vec<u8>) -> Vec<u8> {
        let shorter = self.value(&document).and_then(|mut value| {
            value.forget(names);
            self.write_sized(&value, document.len()).ok()
        });
        shorter.unwrap_or(document)
    }

    /// Writes a document.
    pub(crate) fn write(self, document: &impl Serialize) -> Result<Vec<u8>, Fault> {
        self.write_sized(document, 256)
    }

    /// Writes a document for which so many bytes are likely to be enough.
    pub(crate) fn write_sized(self, document: &impl Serialize, bytes: usize) -> Result<Vec<u8>, Fault> {
        let internal = |error: String| Fault::new(crate::errors::FaultKind::InternalFailure, error);
        match self {
            Self::Json => {
                let mut text = Vec::with_capacity(bytes);
                let mut serializer = serde_json::Serializer::with_formatter(&mut text, output::JsonFormatter);
                document.serialize(&mut serializer).map_err(|error| internal(error.to_string()))?;
                Ok(text)
            }
            Self::Cbor => minicbor_serde::to_vec(document).map_err(|error| internal(error.to_string())),
        }
    }
}
