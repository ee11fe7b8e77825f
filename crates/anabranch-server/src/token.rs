//! Opaque tokens: shard iterators, the tokens of next pages, and the handles of records that queues gave.
//!
//! Nothing of them is kept by the server, so that one can be used again and again until it is too old, after a restart too. They
//! have the outside of the service's: base64 of the number 1 in eight bytes and of a body that is padded to a multiple of 16. The checksum is
//! against bytes that are no token; who may read what is decided by the signature of each request, never by a token.

use anabranch::Timestamp;
use sha2::{Digest, Sha256};

const PREFIX: [u8; 8] = [0, 0, 0, 0, 0, 0, 0, 1];
const CHECKSUM_BYTES: usize = 16;
/// Bytes before the payload: prefix, checksum, the time of issue and the payload's length.
const HEADER_BYTES: usize = PREFIX.len() + CHECKSUM_BYTES + 8 + 4;
/// The least length of a token in bytes; longer ones grow by whole steps.
const MIN_BYTES: usize = 152;
const STEP_BYTES: usize = 16;
/// Far above any payload, so that what is no token is not decoded.
const MAX_TEXT_BYTES: usize = 2_048;

/// What a token is for: one of another purpose is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Iterator,
    Shards,
    Streams,
    Consumers,
    Queues,
    /// The handle of a record that a queue gave.
    Receipt,
    /// The same of a dead letter.
    DeadLetter,
}

/// A token that was opened.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) issued: Timestamp,
    pub(crate) payload: Vec<u8>,
}

impl Opened {
    /// Whether it is older than this, in milliseconds.
    pub(crate) fn is_expired(&self, now: Timestamp, lifetime_ms: i64) -> bool {
        now.as_millis().saturating_sub(self.issued.as_millis()) > lifetime_ms
    }
}

/// Makes a token.
pub(crate) fn seal(purpose: Purpose, issued: Timestamp, payload: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(MIN_BYTES.max(HEADER_BYTES + payload.len() + STEP_BYTES));
    bytes.extend_from_slice(&PREFIX);
    bytes.extend_from_slice(&[0; CHECKSUM_BYTES]);
    bytes.extend_from_slice(&issued.as_millis().to_le_bytes());
    bytes.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(payload);
    let steps = bytes.len().saturating_sub(MIN_BYTES).div_ceil(STEP_BYTES);
    bytes.resize(MIN_BYTES + steps * STEP_BYTES, 0);
    let checksum = checksum(purpose, &bytes);
    bytes[PREFIX.len()..PREFIX.len() + CHECKSUM_BYTES].copy_from_slice(&checksum);
    base64_simd::STANDARD.encode_to_string(bytes)
}

/// Opens a token; nothing if it is none of this purpose. Some clients send one in quotes.
pub(crate) fn open(purpose: Purpose, text: &str) -> Option<Opened> {
    let text = text.trim_matches('"');
    let bytes = (text.len() <= MAX_TEXT_BYTES).then(|| base64_simd::STANDARD.decode_to_vec(text).ok())??;
    let rest = bytes.strip_prefix(&PREFIX)?;
    let (found, rest) = rest.split_at_checked(CHECKSUM_BYTES)?;
    if found != checksum(purpose, &bytes) {
        return None;
    }
    let (issued, rest) = rest.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let payload = rest.get(..u32::from_le_bytes(*length) as usize)?.to_vec();
    Some(Opened { issued: Timestamp::from_millis(i64::from_le_bytes(*issued)), payload })
}

/// Over everything behind the checksum.
fn checksum(purpose: Purpose, bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let digest = Sha256::new()
        .chain_update([purpose as u8])
        .chain_update(bytes.get(PREFIX.len() + CHECKSUM_BYTES..).unwrap_or_default());
    let mut checksum = [0; CHECKSUM_BYTES];
    checksum.copy_from_slice(&digest.finalize()[..CHECKSUM_BYTES]);
    checksum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_the_outside_of_the_service_s_and_come_back() {
        let issued = Timestamp::from_millis(1_795_408_017_123);
        for length in [0, 1, 100, 116, 117, 180] {
            let payload: Vec<_> = (0..length).collect();
            let token = seal(Purpose::Iterator, issued, &payload);
            let bytes = base64_simd::STANDARD.decode_to_vec(&token).unwrap();
            assert_eq!(bytes[..8], PREFIX);
            assert!(
                (152..=280).contains(&bytes.len()) && (bytes.len() - 152).is_multiple_of(16),
                "{}",
                bytes.len()
            );
            let opened = open(Purpose::Iterator, &format!("\"{token}\"")).unwrap();
            assert_eq!((opened.issued, opened.payload), (issued, payload));
            assert!(open(Purpose::Shards, &token).is_none(), "of another purpose");
        }
    }

    #[test]
    fn any_change_makes_it_no_token() {
        let bytes = base64_simd::STANDARD
            .decode_to_vec(seal(Purpose::Iterator, Timestamp::from_millis(1), b"payload"))
            .unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(
                open(Purpose::Iterator, &base64_simd::STANDARD.encode_to_string(changed)).is_none(),
                "byte {at}"
            );
            assert!(open(Purpose::Iterator, &base64_simd::STANDARD.encode_to_string(&bytes[..at])).is_none());
        }
        assert!(open(Purpose::Iterator, &"A".repeat(1 << 20)).is_none());
    }
}
