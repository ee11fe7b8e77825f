//! The types of answers that the two formats write in different ways. JSON is told by being for people.

use anabranch::Timestamp;
use serde::{Serialize, Serializer};

/// Bytes: base64 in JSON, as they are in CBOR.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Blob<'a>(pub(crate) &'a [u8]);

impl Serialize for Blob<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&base64_simd::STANDARD.encode_to_string(self.0))
        } else {
            serializer.serialize_bytes(self.0)
        }
    }
}

/// A time: seconds with a fraction in JSON, whole milliseconds in CBOR.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Time(pub(crate) Timestamp);

impl Serialize for Time {
    #[allow(clippy::cast_precision_loss, reason = "milliseconds of any year that has a name are exact in 53 bits")]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let millis = self.0.as_millis();
        if serializer.is_human_readable() {
            serializer.serialize_f64(millis as f64 / 1_000.0)
        } else {
            serializer.serialize_i64(millis)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Format;

    #[derive(Serialize)]
    struct Both<'a> {
        data: Blob<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        absent: Option<u8>,
        time: Time,
    }

    #[test]
    fn each_format_has_its_own_way() {
        let both =
            Both { data: Blob(b"hello"), absent: None, time: Time(Timestamp::from_millis(1_459_799_926_480)) };
        assert_eq!(Format::Json.write(&both).unwrap(), br#"{"data":"aGVsbG8=","time":1459799926.48}"#);
        let cbor = Format::Cbor.write(&both).unwrap();
        assert_eq!(cbor, b"\xa2\x64data\x45hello\x64time\x1b\x00\x00\x01\x53\xe2\xdb\x26\xd0");
    }
}
