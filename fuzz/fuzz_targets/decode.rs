//! Arbitrary bytes to every decoder of the on-disk format. The body is `anabranch::fuzzing::decode`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| anabranch::fuzzing::decode(input));
