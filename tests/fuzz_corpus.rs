//! The fuzz targets without a fuzzer: each body over its committed corpus, and over seeded random inputs; see [`fuzzing::run_corpus`].

use std::path::Path;

use anabranch::fuzzing;

fn run(target: &str, body: fn(&[u8]), default_inputs: u64) {
    fuzzing::run_corpus(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus"), target, body, default_inputs);
}

#[test]
fn decode() {
    run("decode", fuzzing::decode, 20_000);
}

#[test]
fn recover_segment() {
    run("recover_segment", fuzzing::recover_segment, 3_000);
}

#[test]
fn operations() {
    run("operations", fuzzing::operations, 600);
}

#[test]
fn repair() {
    run("repair", fuzzing::repair, 1_000);
}
