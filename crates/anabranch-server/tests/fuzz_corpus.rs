//! The fuzz targets of the server without a fuzzer: each body over its committed corpus, and over seeded random inputs; see [`run_corpus`].

use std::path::Path;

use anabranch::fuzzing::run_corpus;
use anabranch_server::fuzzing;

fn run(target: &str, body: fn(&[u8]), default_inputs: u64) {
    run_corpus(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus"), target, body, default_inputs);
}

#[test]
fn decode() {
    run("server_decode", fuzzing::decode, 20_000);
}

#[test]
fn requests() {
    run("server_requests", fuzzing::requests, 100);
}
