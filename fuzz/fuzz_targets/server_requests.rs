//! Requests to a server in memory, beside a model. The body is `anabranch_server::fuzzing::requests`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| anabranch_server::fuzzing::requests(input));
