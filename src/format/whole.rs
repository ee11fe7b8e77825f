//! What the small files have in common that are replaced whole: a magic number and the format's version in front, a checksum of everything behind.

use super::FORMAT_VERSION;
use super::reader::Reader;

/// Behind everything else.
pub(super) const CHECKSUM_BYTES: usize = 4;

/// Why such a file does not decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WholeFileError {
    #[error("it does not begin as such a file")]
    Magic,
    #[error("format version {0}")]
    Version(u32),
    #[error("the file's checksum does not match")]
    Checksum,
    #[error("a field of the file is out of its range")]
    Field,
}

/// The front of a file that will have so many bytes.
pub(super) fn begin(magic: [u8; 8], length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length);
    bytes.extend_from_slice(&magic);
    bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes
}

/// Puts the checksum behind.
pub(super) fn seal(mut bytes: Vec<u8>) -> Vec<u8> {
    let checksum = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

/// The fields behind magic number and version and in front of the checksum, which all are as they should be.
pub(super) fn unseal(bytes: &[u8], magic: [u8; 8]) -> Result<Reader<'_>, WholeFileError> {
    let mut reader = Reader::new(bytes);
    if reader.array() != Some(magic) {
        return Err(WholeFileError::Magic);
    }
    let version = reader.u32().ok_or(WholeFileError::Checksum)?; // it was cut
    let stored = bytes.split_last_chunk().map(|(checked, stored)| (checked, u32::from_le_bytes(*stored)));
    if version != FORMAT_VERSION && !stored.is_some_and(|(checked, stored)| only_version_differs(checked, stored))
    {
        return Err(WholeFileError::Version(version));
    }
    let sound = stored.filter(|(checked, stored)| crc32fast::hash(checked) == *stored);
    let (checked, _) = sound.ok_or(WholeFileError::Checksum)?;
    let mut fields = Reader::new(checked);
    fields.take(magic.len() + 4).ok_or(WholeFileError::Checksum)?; // the checksum is none of them
    Ok(fields)
}

/// Whether bytes that say an unknown version are damaged, and not a later version's: with this release's own in its place, behind a magic number, their
/// checksum holds. A later version may keep its checksum elsewhere, so that nothing else is said of such bytes.
pub(super) fn only_version_differs(checked: &[u8], stored: u32) -> bool {
    let (Some(magic), Some(behind)) = (checked.get(..8), checked.get(12..)) else { return false };
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(magic);
    hasher.update(&FORMAT_VERSION.to_le_bytes());
    hasher.update(behind);
    hasher.finalize() == stored
}
