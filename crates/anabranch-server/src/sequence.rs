//! Sequence numbers as the service writes them, and the library's inside them.
//!
//! A number has 186 bits, 47 hexadecimal digits, and travels as 56 decimal ones. Version 2, the only one in use:
//!
//! ```text
//! hex digit   0     1..9             10            11..26     27..28   29..37          38..45   46
//!             '2'   create seconds   shard & 0xf   counter    '00'     write seconds   shard    '2'
//! bit from    184   148              144           80         72       36              4        0
//! ```
//!
//! The library's numbers are dense in a shard and begin, in a child, above its parents'. One of them, plus one, is the *counter*, so that counter 0 is left for the number that
//! a shard starts at, and the greatest counter for the one that it ends at. Everything else follows from shard and time. Numbers rise within a shard since the create
//! second is the same there and the counter stands above the write second; they rise from parents to children since a child's create second is later.

use std::fmt;

use anabranch::Timestamp;
use serde::{Serialize, Serializer};

/// The counter of the number at which a closed shard ends.
const LAST_COUNTER: u64 = (1 << 63) - 1;
/// Create seconds from here on (the year 2477) are refused by the service.
const CREATED_BOUND: u64 = 16_025_175_000;
/// Write seconds have 36 bits.
const WRITTEN_BOUND: u64 = 1 << 36;
/// What one decimal group of a limb's arithmetic holds.
const GROUP: u64 = 10_000_000_000_000_000_000;
const GROUP_DIGITS: usize = 19;
const DIGITS: usize = 56;

/// The last second that there is in numbers.
pub(crate) const LAST_SECOND: u64 = WRITTEN_BOUND - 1;

/// The second of a moment, as sequence numbers have it.
pub(crate) fn second(time: Timestamp) -> u64 {
    u64::try_from(time.as_millis().div_euclid(1_000)).unwrap_or(0).min(LAST_SECOND)
}

/// A sequence number, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sequence {
    created: u64,
    counter: u64,
    written: u64,
    shard: u32,
}

/// What all numbers of one shard have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ShardNumbers {
    pub(crate) shard: u32,
    /// The second since 1970 in which the shard was made; that of a child is later than those of its parents.
    pub(crate) created: u64,
}

/// Where a number lies among the library's numbers of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Before every record.
    Start,
    /// At this number of the library's.
    At(u64),
    /// Behind every record.
    End,
}

impl ShardNumbers {
    /// The number before all records of the shard.
    pub(crate) fn starting(self) -> Sequence {
        self.starting_at(self.created)
    }

    /// The same place, as it is told in this second.
    pub(crate) fn starting_at(self, told: u64) -> Sequence {
        self.with(0, told)
    }

    /// The number behind all records of a shard that was closed in this second.
    pub(crate) fn ending(self, closed: u64) -> Sequence {
        self.with(LAST_COUNTER, closed)
    }

    /// That of the record with the library's number `dense` that was written in this second.
    pub(crate) fn record(self, dense: u64, written: u64) -> Sequence {
        self.with(dense.saturating_add(1).min(LAST_COUNTER - 1), written)
    }

    fn with(self, counter: u64, written: u64) -> Sequence {
        let created = self.created.min(CREATED_BOUND - 1);
        Sequence { created, counter, written: written.max(created).min(WRITTEN_BOUND - 1), shard: self.shard }
    }
}

impl Sequence {
    /// Takes a decimal number apart; nothing for what the service never gave to anybody.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (high, low) = parse_decimal(text)?;
        let bits = |from: u32, count: u32| (low >> from) & ((1 << count) - 1);
        let created = (high >> 20) & ((1 << 36) - 1);
        let counter = ((high & 0xffff) << 48) | u64::try_from(bits(80, 48)).ok()?;
        let shard = u32::try_from(bits(4, 32)).ok()?;
        let is_version_2 = high >> 56 == 2 && bits(0, 4) == 2 && bits(72, 8) == 0;
        let is_shard = shard <= i32::MAX.unsigned_abs() && (high >> 16) & 0xf == u64::from(shard & 0xf);
        let is_sound = is_version_2 && is_shard && counter <= LAST_COUNTER && created < CREATED_BOUND;
        is_sound.then_some(Self { created, counter, written: u64::try_from(bits(36, 36)).ok()?, shard })
    }

    /// The shard that it encodes.
    pub(crate) fn shard(self) -> u32 {
        self.shard
    }

    /// The second in which its shard was made.
    pub(crate) fn created(self) -> u64 {
        self.created
    }

    /// The second in which it says that it was given.
    pub(crate) fn written(self) -> u64 {
        self.written
    }

    /// Where it lies among the library's.
    pub(crate) fn place(self) -> Place {
        match self.counter {
            0 => Place::Start,
            LAST_COUNTER => Place::End,
            counter => Place::At(counter - 1),
        }
    }
}

impl Sequence {
    /// Its decimal digits.
    fn digits(self) -> [u8; DIGITS] {
        let shard = u128::from(self.shard);
        let low = 2 | shard << 4 | u128::from(self.written) << 36 | u128::from(self.counter) << 80;
        let high = self.counter >> 48 | u64::from(self.shard & 0xf) << 16 | self.created << 20 | 2 << 56;
        let (rest, last) = divide([high, upper(low), lower(low)]);
        let (rest, middle) = divide(rest);
        let (_, first) = divide(rest);
        let mut digits = [b'0'; DIGITS];
        let (head, tail) = digits.split_at_mut(DIGITS - 2 * GROUP_DIGITS);
        let (between, tail) = tail.split_at_mut(GROUP_DIGITS);
        write_digits(first, head);
        write_digits(middle, between);
        write_digits(last, tail);
        digits
    }
}

/// A number at the end of what it is to fill.
fn write_digits(mut number: u64, digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.digits()).unwrap_or_default())
    }
}

impl Serialize for Sequence {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(std::str::from_utf8(&self.digits()).unwrap_or_default())
    }
}

/// The numbers of this type have 56 digits: three groups, of which the first is never zero.
fn divide(limbs: [u64; 3]) -> ([u64; 3], u64) {
    let mut rest = 0;
    let quotient = limbs.map(|limb| {
        let value = u128::from(rest) << 64 | u128::from(limb);
        rest = lower(value % u128::from(GROUP));
        lower(value / u128::from(GROUP))
    });
    (quotient, rest)
}

fn parse_decimal(text: &str) -> Option<(u64, u128)> {
    let mut limbs = [0_u64; 3];
    for group in text.as_bytes().chunks(GROUP_DIGITS) {
        let digits =
            std::str::from_utf8(group).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
        let scale = 10_u64.checked_pow(u32::try_from(group.len()).ok()?)?;
        let mut carry = digits.parse::<u64>().ok()?;
        for limb in limbs.iter_mut().rev() {
            let value = u128::from(*limb) * u128::from(scale) + u128::from(carry);
            (*limb, carry) = (lower(value), upper(value));
        }
        if carry > 0 {
            return None;
        }
    }
    Some((limbs[0], u128::from(limbs[1]) << 64 | u128::from(limbs[2])))
}

#[allow(clippy::cast_possible_truncation, reason = "the lower half is what is asked for")]
fn lower(value: u128) -> u64 {
    value as u64
}

fn upper(value: u128) -> u64 {
    lower(value >> 64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STARTING: &str = "49680480295140701666000208137266954160295174283036983298";
    const LATER: &str = "49680480295140701666000208137266954160295174489195413506";
    const NUMBERS: ShardNumbers = ShardNumbers { shard: 0, created: 1_795_408_017 };

    #[test]
    fn numbers_are_the_service_s() {
        assert_eq!(NUMBERS.starting().to_string(), STARTING);
        assert_eq!(NUMBERS.with(0, 1_795_408_020).to_string(), LATER);
        let later = Sequence::parse(LATER).unwrap();
        assert_eq!(
            (later.created, later.counter, later.written, later.shard),
            (1_795_408_017, 0, 1_795_408_020, 0)
        );
        assert_eq!(Sequence::parse(STARTING), Some(NUMBERS.starting()));
    }

    #[test]
    fn what_the_service_never_gave_is_refused() {
        let counter = format!("{}", 0x2_0000_0000_u64); // a short number
        let most = (u128::MAX).to_string();
        for text in ["", "0", "x", "4968-", &counter, &most, &"9".repeat(129), &format!("{STARTING}0")] {
            assert_eq!(Sequence::parse(text), None, "{text}");
        }
        let beyond = Sequence { counter: 1 << 63, ..NUMBERS.starting() };
        assert_eq!(Sequence::parse(&beyond.to_string()), None);
        let created = Sequence { created: CREATED_BOUND, ..NUMBERS.starting() };
        assert_eq!(Sequence::parse(&created.to_string()), None);
    }

    proptest! {
        #[test]
        fn numbers_come_back_and_keep_their_order(
            shard in 0..=i32::MAX.unsigned_abs(), created in 0..CREATED_BOUND - 1_000, dense in 0..LAST_COUNTER - 2, later in 0..1_000_u64,
        ) {
            let numbers = ShardNumbers { shard, created };
            let number = numbers.record(dense, created + later);
            prop_assert_eq!(Sequence::parse(&number.to_string()), Some(number));
            prop_assert_eq!(number.place(), Place::At(dense));
            let text = |number: Sequence| { let text = number.to_string(); (text.len(), text) };
            prop_assert!(text(numbers.starting()) < text(number));
            prop_assert!(text(number) < text(numbers.record(dense + 1, created)));
            prop_assert!(text(numbers.record(dense + 1, created)) < text(numbers.ending(created)));
            let child = ShardNumbers { shard: shard / 2, created: created + 1 };
            prop_assert!(text(numbers.ending(created + later)) < text(child.starting()));
        }
    }
}
