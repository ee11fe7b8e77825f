//! Sizes, durations and times as people write them, in both directions.

use std::fmt::Write as _;
use std::time::Duration;

use anabranch::{RetentionPeriod, Timestamp};

/// A byte budget: a size, or `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ByteBudget(pub(crate) Option<u64>);

/// Reads `64MiB`, `64M`, `1GB` (powers of 1000) or plain bytes.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let expected =
        || format!("{text:?} is no size: expected bytes, or a number with KiB, MiB, GiB, TiB, kB, MB, GB or TB");
    let (number, unit) = leading_number(text).ok_or_else(expected)?;
    let factor = byte_factor(unit.trim_start()).ok_or_else(expected)?;
    number.checked_mul(factor).ok_or_else(|| format!("{text:?} is more than 64 bits can count"))
}

fn byte_factor(unit: &str) -> Option<u64> {
    Some(match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return None,
    })
}

/// As [`parse_bytes`], for values that are counted in 32 bits.
pub(crate) fn parse_bytes_u32(text: &str) -> Result<u32, String> {
    u32::try_from(parse_bytes(text)?).map_err(|_| format!("{text:?} is 4 GiB or more"))
}

/// A size, or `none`.
pub(crate) fn parse_byte_budget(text: &str) -> Result<ByteBudget, String> {
    match text {
        "none" => Ok(ByteBudget(None)),
        _ => parse_bytes(text).map(|bytes| ByteBudget(Some(bytes))),
    }
}

/// Reads `250ms`, `30s`, `90m`, `24h`, `7d`, and sums such as `1h30m`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let expected =
        || format!("{text:?} is no duration: expected a number with ms, s, m, h or d, such as 90m or 7d");
    let mut millis = 0_u64;
    let mut rest = text;
    loop {
        let (number, behind) = leading_number(rest).ok_or_else(expected)?;
        let unit_length = behind.find(|c: char| c.is_ascii_digit()).unwrap_or(behind.len());
        let (unit, next) = behind.split_at(unit_length);
        millis = millis_factor(unit.trim())
            .ok_or_else(expected)?
            .checked_mul(number)
            .and_then(|part| millis.checked_add(part))
            .ok_or_else(|| format!("{text:?} is too long"))?;
        if next.is_empty() {
            return Ok(Duration::from_millis(millis));
        }
        rest = next;
    }
}

fn millis_factor(unit: &str) -> Option<u64> {
    Some(match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    })
}

/// A duration, or `unlimited`.
pub(crate) fn parse_retention(text: &str) -> Result<RetentionPeriod, String> {
    match text {
        "unlimited" => Ok(RetentionPeriod::Unlimited),
        _ => parse_duration(text).map(RetentionPeriod::from),
    }
}

/// Reads RFC 3339; a fraction of a millisecond rounds up, so that nothing earlier is meant.
pub(crate) fn parse_time(text: &str) -> Result<Timestamp, String> {
    let time: jiff::Timestamp = text
        .parse()
        .map_err(|_| format!("{text:?} is no time: expected RFC 3339, such as 2026-01-31T12:00:00Z"))?;
    let nanos = time.as_nanosecond();
    let millis = nanos.div_euclid(1_000_000) + i128::from(nanos.rem_euclid(1_000_000) != 0);
    i64::try_from(millis).map(Timestamp::from_millis).map_err(|_| format!("{text:?} is out of range"))
}

/// The digits at the start of `text` and what follows them.
fn leading_number(text: &str) -> Option<(u64, &str)> {
    let length = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(length);
    Some((digits.parse().ok()?, rest))
}

/// A size with one decimal: `12.3 MiB`.
pub(crate) fn show_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut shift = 0;
    let mut name = None;
    for unit in UNITS {
        if bytes >> shift < 1_024 {
            break;
        }
        shift += 10;
        name = Some(unit);
    }
    match name {
        None => format!("{bytes} B"),
        Some(name) => {
            let tenths = (u128::from(bytes) * 10) >> shift;
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
    }
}

/// A count in groups of three: `1,234,567`.
pub(crate) fn show_count(count: u64) -> String {
    let digits = count.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A count of things: `1 record`, `1,234 records`.
pub(crate) fn show_counted(count: u64, thing: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {thing}{plural}", show_count(count))
}

/// A duration as it is typed: `24h`, `1h30m`, `250ms`.
pub(crate) fn show_millis(millis: u64) -> String {
    const UNITS: [(u64, &str); 5] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")];
    let mut rest = millis;
    let mut shown = String::new();
    for (size, unit) in UNITS {
        // Kinesis counts retention in hours, and 24h reads better than 1d.
        let is_day_or_less = unit == "d" && rest <= size;
        if rest >= size && !is_day_or_less {
            let _ = write!(shown, "{}{unit}", rest / size); // a String takes everything
            rest %= size;
        }
    }
    if shown.is_empty() { "0s".to_owned() } else { shown }
}

/// As [`show_millis`], or `unlimited`.
pub(crate) fn show_retention(period: RetentionPeriod) -> String {
    period.as_millis().map_or_else(|| "unlimited".to_owned(), show_millis)
}

/// How many a second; nothing is rounded up to look faster.
pub(crate) fn per_second(count: u64, elapsed: Duration) -> u64 {
    let rate = u128::from(count) * 1_000_000_000 / elapsed.as_nanos().max(1);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_parse() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("512B", 512),
            ("64MiB", 64 << 20),
            ("64M", 64 << 20),
            ("64 mib", 64 << 20),
            ("1kB", 1_000),
            ("10GB", 10_000_000_000),
            ("1TiB", 1 << 40),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "-1", "1.5GiB", "64XiB", "99999999999TiB"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
        assert!(parse_bytes_u32("4GiB").is_err());
        assert_eq!(parse_byte_budget("none"), Ok(ByteBudget(None)));
        assert_eq!(parse_byte_budget("1KiB"), Ok(ByteBudget(Some(1_024))));
    }

    #[test]
    fn durations_parse() {
        for (text, millis) in [
            ("250ms", 250),
            ("30s", 30_000),
            ("90m", 5_400_000),
            ("24h", 86_400_000),
            ("7d", 604_800_000),
            ("1h30m", 5_400_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "24", "h", "24x", "1h30", "-1h", "999999999999999999d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert_eq!(parse_retention("unlimited"), Ok(RetentionPeriod::Unlimited));
        assert_eq!(parse_retention("2d"), Ok(RetentionPeriod::hours(48)));
    }

    #[test]
    fn times_parse_with_any_offset() {
        let noon = Timestamp::from_millis(1_769_860_800_000);
        assert_eq!(parse_time("2026-01-31T12:00:00Z"), Ok(noon));
        assert_eq!(parse_time("2026-01-31T13:00:00+01:00"), Ok(noon));
        assert_eq!(parse_time("2026-01-31T11:59:59.9991Z"), Ok(noon));
        assert_eq!(parse_time(&noon.to_string()), Ok(noon));
        assert!(parse_time("yesterday").is_err());
        assert!(parse_time("2026-01-31").is_err());
    }

    #[test]
    fn values_show_as_people_write_them() {
        assert_eq!(show_bytes(1_023), "1023 B");
        assert_eq!(show_bytes(1_536), "1.5 KiB");
        assert_eq!(show_bytes(64 << 20), "64.0 MiB");
        assert_eq!(show_bytes(u64::MAX), "15.9 EiB");
        assert_eq!(show_count(999), "999");
        assert_eq!(show_count(1_234_567), "1,234,567");
        assert_eq!(show_counted(1, "shard"), "1 shard");
        assert_eq!(show_counted(0, "shard"), "0 shards");
        assert_eq!(show_millis(86_400_000), "24h");
        assert_eq!(show_millis(604_800_000), "7d");
        assert_eq!(show_millis(5_400_000), "1h30m");
        assert_eq!(show_millis(0), "0s");
        assert_eq!(per_second(10, Duration::from_secs(2)), 5);
    }
}
