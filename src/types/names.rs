//! Names and identities of streams and shards.

use std::fmt;
use std::str::FromStr;

use crate::limits::{MAX_NAME_CHARS, MAX_SHARD_ID};

/// Whether a stream, a consumer, a worker or a producer can be called so: 1 to 128 characters of `[a-zA-Z0-9_.-]`, as Kinesis names streams, and
/// a name of its own in a directory: neither `.` nor `..`.
pub(crate) fn is_name(name: &str) -> bool {
    let characters = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    characters && (1..=MAX_NAME_CHARS).contains(&name.len()) && name != "." && name != ".."
}

/// A shard's number in its stream. Prints as Kinesis names shards: `shardId-000000000007`.
///
/// Numbers count up in order of creation over the life of the stream and are never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ShardId(u32);

impl ShardId {
    /// The id with this number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The id that is issued next.
    pub(crate) const fn successor(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The name of the shard's directory.
    pub(crate) fn directory(self) -> String {
        format!("{:012}", self.0)
    }

    /// The inverse of [`directory`](Self::directory): nothing for any other name, also of an id that is never issued.
    pub(crate) fn from_directory(name: &str) -> Option<Self> {
        let id = Self(name.parse().ok()?);
        (id.directory() == name && id.0 < MAX_SHARD_ID).then_some(id)
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shardId-{:012}", self.0)
    }
}

/// A text that is no shard id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no shard id: expected a number, or shardId- and a number")]
pub struct ParseShardIdError(String);

impl FromStr for ShardId {
    type Err = ParseShardIdError;

    /// Takes the number alone or behind a dash (`7`, `shardId-7`, `shardId-000000000007`), as Kinesis does.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.split_once('-').map_or(text, |(_, digits)| digits);
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        match digits.parse() {
            Ok(number) if is_number => Ok(Self(number)),
            _ => Err(ParseShardIdError(text.to_owned())),
        }
    }
}

/// The identity of a stream, drawn at its creation. It goes into every checksum, so that no file of
/// another stream is ever taken for one of this.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(u128);

impl StreamId {
    /// The identity with this number.
    pub const fn new(value: u128) -> Self {
        Self(value)
    }

    /// The number.
    pub const fn get(self) -> u128 {
        self.0
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shard_ids_print_and_parse_as_kinesis_does() {
        let seven = ShardId::new(7);
        assert_eq!(seven.to_string(), "shardId-000000000007");
        for text in ["7", "shardId-7", "x-7", "shardId-000000000007"] {
            assert_eq!(text.parse(), Ok(seven), "{text}");
        }
        for text in ["", "-", "shardId-", "shardId-x", "+7", "shardId-+7", "4294967296", "7 "] {
            assert!(text.parse::<ShardId>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn directories_are_named_in_one_way_only() {
        assert_eq!(ShardId::from_directory("000000000007"), Some(ShardId::new(7)));
        for name in ["7", "+00000000007", "0000000000007", "00000000000x", "lost+found"] {
            assert_eq!(ShardId::from_directory(name), None, "{name}");
        }
    }
}
