//! Recovery of a stream whose newest segment the fuzzer put together. The body is `anabranch::fuzzing::recover_segment`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| anabranch::fuzzing::recover_segment(input));
