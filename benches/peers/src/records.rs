//! The records that all engines write, and the check that what they read back is what was written.

use crate::Result;

/// Records of one size: their number, then bytes that do not compress.
pub(crate) struct Records {
    template: Vec<u8>,
    /// The sum of a record with number 0.
    template_sum: u64,
}

impl Records {
    pub(crate) fn new(bytes: usize) -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut template = vec![0; bytes];
        for word in template[8..].chunks_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes()[..word.len()]);
        }
        let template_sum = sum(&template);
        Self { template, template_sum }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.template.len()
    }

    /// A record to be [numbered](number).
    pub(crate) fn blank(&self) -> Vec<u8> {
        self.template.clone()
    }

    /// That records `from..to` were read, whole.
    pub(crate) fn check(&self, read: &Tally, from: u64, to: u64) -> Result<()> {
        self.check_sum(read, to - from, (from..to).fold(0, u64::wrapping_add))
    }

    /// That so many records were read, whole, whose numbers have this sum.
    pub(crate) fn check_sum(&self, read: &Tally, records: u64, numbers: u64) -> Result<()> {
        let expected = Tally { records, sum: self.template_sum.wrapping_mul(records).wrapping_add(numbers) };
        if *read == expected { Ok(()) } else { Err(format!("read {read:?}, wrote {expected:?}").into()) }
    }
}

/// Numbers a record.
pub(crate) fn number(data: &mut [u8], number: u64) {
    data[..8].copy_from_slice(&number.to_le_bytes());
}

/// The number of a record.
pub(crate) fn number_of(data: &[u8]) -> u64 {
    data.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// One of so many parts for a record: each as often as the others, and not the same for records that threads write at one time.
pub(crate) fn part_of(data: &[u8], parts: usize) -> usize {
    (number_of(data).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % parts
}

/// What was read: every byte of it is in the sum, so that no engine wins by not reading.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) records: u64,
    sum: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, data: &[u8]) {
        self.records += 1;
        self.sum = self.sum.wrapping_add(sum(data));
    }
}

/// The sum of all words. (Sizes are multiples of eight.)
fn sum(data: &[u8]) -> u64 {
    let (words, _) = data.as_chunks::<8>();
    words.iter().fold(0, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)))
}
