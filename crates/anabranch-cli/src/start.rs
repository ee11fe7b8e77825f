//! `--from`: where reading starts.

use std::str::FromStr;

use anabranch::{RecordsStart, SequenceNumber, ShardIteratorType, Timestamp};

use crate::units::parse_time;

/// A place to start at, as it is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    TrimHorizon,
    Latest,
    At(SequenceNumber),
    After(SequenceNumber),
    Time(Timestamp),
}

impl Start {
    /// The same place in one shard.
    pub(crate) fn in_shard(self) -> ShardIteratorType {
        match self {
            Self::TrimHorizon => ShardIteratorType::TrimHorizon,
            Self::Latest => ShardIteratorType::Latest,
            Self::At(number) => ShardIteratorType::AtSequenceNumber(number),
            Self::After(number) => ShardIteratorType::AfterSequenceNumber(number),
            Self::Time(time) => ShardIteratorType::AtTimestamp(time),
        }
    }

    /// The same place in the whole stream; nothing for a sequence number, which belongs to one shard.
    pub(crate) fn in_stream(self) -> Option<RecordsStart> {
        match self {
            Self::TrimHorizon => Some(RecordsStart::TrimHorizon),
            Self::Latest => Some(RecordsStart::Latest),
            Self::Time(time) => Some(RecordsStart::AtTimestamp(time)),
            Self::At(_) | Self::After(_) => None,
        }
    }
}

impl FromStr for Start {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |digits: &str| digits.parse().map_err(|_| format!("{digits:?} is no sequence number"));
        match text.split_once(':') {
            None if text == "trim-horizon" => Ok(Self::TrimHorizon),
            None if text == "latest" => Ok(Self::Latest),
            Some(("at", digits)) => number(digits).map(Self::At),
            Some(("after", digits)) => number(digits).map(Self::After),
            Some(("time", time)) => parse_time(time).map(Self::Time),
            _ => Err("expected trim-horizon, latest, at:N, after:N or time:RFC3339".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_parse() {
        for (text, start) in [
            ("trim-horizon", Start::TrimHorizon),
            ("latest", Start::Latest),
            ("at:0", Start::At(SequenceNumber::ZERO)),
            ("after:12", Start::After(SequenceNumber::new(12))),
            ("time:1970-01-01T00:00:01Z", Start::Time(Timestamp::from_millis(1_000))),
        ] {
            assert_eq!(text.parse(), Ok(start), "{text}");
        }
        for text in ["", "at", "at:", "at:-1", "at:x", "time:", "latest:1", "horizon"] {
            assert!(text.parse::<Start>().is_err(), "{text}");
        }
    }

    #[test]
    fn sequence_numbers_mean_nothing_without_a_shard() {
        assert_eq!(Start::At(SequenceNumber::ZERO).in_stream(), None);
        assert_eq!(Start::After(SequenceNumber::ZERO).in_stream(), None);
        assert_eq!(Start::Latest.in_stream(), Some(RecordsStart::Latest));
    }
}
