//! The fuzzer's bytes as a source of choices.

/// Takes choices off the front of the fuzzer's bytes; nothing once they are used up, so that every input ends.
#[derive(Debug)]
pub struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    /// A number below `bound`, which is at most 256.
    pub fn below(&mut self, bound: u16) -> Option<u64> {
        Some(u64::from(u16::from(self.byte()?) % bound))
    }

    pub fn short(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes([self.byte()?, self.byte()?]))
    }

    /// Up to `count` bytes: what is left if that is less.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        taken
    }
}

/// Bytes at most of a random input.
const LONGEST: u64 = 600;

/// Mostly small bytes, which select and measure, as the fuzzer soon finds out.
pub fn random_input(target: &str, seed: u64) -> Vec<u8> {
    let mut state = seed ^ (target.len() as u64) << 32;
    let mut next = || {
        // SplitMix64
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed ^ (mixed >> 29)
    };
    let length = next() % LONGEST;
    (0..length)
        .map(|_| {
            let drawn = next();
            let bound = if drawn % 4 == 0 { 256 } else { 24 };
            u8::try_from((drawn >> 8) % bound).unwrap_or(0)
        })
        .collect()
}
