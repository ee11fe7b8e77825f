//! Arbitrary bytes to each parser of what clients send. The body is `anabranch_server::fuzzing::decode`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| anabranch_server::fuzzing::decode(input));
