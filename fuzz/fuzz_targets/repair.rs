//! Damage to the files of a stream, then salvage and repair. The body is `anabranch::fuzzing::repair`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| anabranch::fuzzing::repair(input));
