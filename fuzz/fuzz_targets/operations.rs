//! A stream under operations, faults and crashes, beside a model. The body is `anabranch::fuzzing::operations`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| anabranch::fuzzing::operations(input));
