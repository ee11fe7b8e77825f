//! The types of answers that the two formats write in different ways. JSON is told by being for people.

use std::io::{self, Write};

use anabranch::Timestamp;
use base64_simd::AsOut;
use serde::{Serialize, Serializer};
use serde_json::ser::Formatter;

/// Bytes that become base64 at a time: a multiple of three, so that no piece but the last is padded.
const BASE64_STEP: usize = 6 << 10;

/// Bytes: base64 in JSON, which the [`JsonFormatter`] makes of them, as they are in CBOR.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Blob<'a>(pub(crate) &'a [u8]);

impl Serialize for Blob<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

/// JSON in which bytes are base64: written in one go from where they lie, without a string of their own that is looked through for what to escape.
pub(super) struct JsonFormatter;

impl Formatter for JsonFormatter {
    fn write_byte_array<W: Write + ?Sized>(&mut self, writer: &mut W, bytes: &[u8]) -> io::Result<()> {
        writer.write_all(b"\"")?;
        let mut text = [0; BASE64_STEP / 3 * 4];
        for piece in bytes.chunks(BASE64_STEP) {
            writer.write_all(base64_simd::STANDARD.encode(piece, text.as_mut_slice().as_out()))?;
        }
        writer.write_all(b"\"")
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
    fn long_blobs_are_base64_as_a_whole() {
        for length in [0, 1, BASE64_STEP - 1, BASE64_STEP, BASE64_STEP + 1, 3 * BASE64_STEP + 2] {
            let bytes: Vec<u8> = (0..length).map(|index| u8::try_from(index % 251).unwrap()).collect();
            let expected = format!("\"{}\"", base64_simd::STANDARD.encode_to_string(&bytes));
            assert_eq!(Format::Json.write(&Blob(&bytes)).unwrap(), expected.as_bytes(), "{length}");
        }
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
