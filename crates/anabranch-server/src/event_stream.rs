//! The framing of event streams: messages with headers, each with two checksums.
//!
//! ```text
//! u32 length | u32 length of headers | u32 CRC-32 of these 8 bytes | headers | payload | u32 CRC-32 of everything before       (big endian)
//! header: u8 length of name | name | u8 type (7 is text) | u16 length of value | value
//! ```
#![allow(clippy::big_endian_bytes, reason = "the framing is the service's")]

const TEXT: u8 = 7;
/// Bytes around headers and payload.
const FRAME_BYTES: usize = 16;

/// A message with headers of text, in this order. Names have at most 255 bytes, values at most 65,535.
pub(crate) fn message(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        block.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        block.extend_from_slice(name.as_bytes());
        block.push(TEXT);
        block.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
        block.extend_from_slice(value.as_bytes());
    }
    let length = FRAME_BYTES + block.len() + payload.len();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend_from_slice(&length_bytes(length));
    bytes.extend_from_slice(&length_bytes(block.len()));
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
    bytes.extend_from_slice(&block);
    bytes.extend_from_slice(payload);
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
    bytes
}

fn length_bytes(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An empty message, as published with the format.
    #[test]
    fn an_empty_message_is_the_published_one() {
        assert_eq!(message(&[], b""), [0, 0, 0, 0x10, 0, 0, 0, 0, 0x05, 0xc2, 0x48, 0xeb, 0x7d, 0x98, 0xc8, 0xff]);
    }

    #[test]
    fn headers_stand_before_the_payload() {
        let bytes = message(&[(":a", "xyz")], b"body");
        assert_eq!(bytes.len(), FRAME_BYTES + 9 + 4);
        assert_eq!(&bytes[12..bytes.len() - 4], b"\x02:a\x07\x00\x03xyzbody");
    }
}
