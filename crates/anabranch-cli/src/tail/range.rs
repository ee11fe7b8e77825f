//! The number of a batch, which says what part of its file the batch was made of.
//!
//! The end of the range stands above its length: numbers rise from batch to batch, as a producer's have to, and the next life of the command
//! learns from the last of them which bytes to read and put again. No journal beside the stream is needed for it.

/// The lower bits of a number hold the range's length, the upper ones its end.
const LENGTH_BITS: u32 = 24;

/// The longest range of one batch: a byte below 16 MiB.
pub(crate) const MAX_RANGE_BYTES: u64 = (1 << LENGTH_BITS) - 1;

/// The last offset that a number can hold: a byte below 1 TiB.
pub(crate) const MAX_OFFSET: u64 = (1 << (u64::BITS - LENGTH_BITS)) - 1;

/// Bytes of a file, never none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileRange {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

impl FileRange {
    /// Nothing for ranges that are empty or out of bounds.
    pub(crate) fn new(start: u64, end: u64) -> Option<Self> {
        let bytes = end.checked_sub(start)?;
        ((1..=MAX_RANGE_BYTES).contains(&bytes) && end <= MAX_OFFSET).then_some(Self { start, end })
    }

    /// The number of the batch that is made of this range.
    pub(crate) fn number(self) -> u64 {
        self.end << LENGTH_BITS | (self.end - self.start)
    }

    /// The range that a number stands for; nothing for a number that no range has.
    pub(crate) fn of_number(number: u64) -> Option<Self> {
        let end = number >> LENGTH_BITS;
        Self::new(end.checked_sub(number & MAX_RANGE_BYTES)?, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_give_their_ranges_back_and_rise_with_their_ends() {
        let ends = [1, 2, 500, MAX_RANGE_BYTES, MAX_RANGE_BYTES + 7, MAX_OFFSET];
        let lengths = [1, 2, 499, MAX_RANGE_BYTES];
        let ranges = ends.iter().flat_map(|&end| lengths.map(|length| (end.checked_sub(length), end)));
        let ranges: Vec<_> =
            ranges.filter_map(|(start, end)| start.and_then(|start| FileRange::new(start, end))).collect();
        assert!(ranges.len() > 15);
        for range in &ranges {
            assert_eq!(FileRange::of_number(range.number()), Some(*range));
            for later in ranges.iter().filter(|later| later.end > range.end) {
                assert!(later.number() > range.number(), "{range:?} {later:?}");
            }
        }
    }

    #[test]
    fn what_is_no_range_is_refused() {
        assert_eq!(FileRange::new(5, 5), None);
        assert_eq!(FileRange::new(6, 5), None);
        assert_eq!(FileRange::new(0, MAX_RANGE_BYTES + 1), None);
        assert_eq!(FileRange::new(MAX_OFFSET, MAX_OFFSET + 1), None);
        for number in [0, 7 << LENGTH_BITS, 7 << LENGTH_BITS | 8, MAX_RANGE_BYTES] {
            assert_eq!(FileRange::of_number(number), None, "{number}");
        }
    }
}
