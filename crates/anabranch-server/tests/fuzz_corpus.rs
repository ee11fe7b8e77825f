//! The fuzz targets of the server without a fuzzer: each body over its committed corpus, and over seeded random inputs.
//!
//! `FUZZ_SEED` chooses the first random input and `FUZZ_INPUTS` how many there are of each target.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail by panicking, and say what they ran")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::{env, fs};

use anabranch::fuzzing::random_input;
use anabranch_server::fuzzing;

fn run(target: &str, body: fn(&[u8]), default_inputs: u64) {
    let number = |variable, default| env::var(variable).map_or(default, |text| text.parse().unwrap());
    let (first, inputs) = (number("FUZZ_SEED", 1), number("FUZZ_INPUTS", default_inputs));
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    println!("{target}: {} files, then {inputs} random inputs from FUZZ_SEED={first} on", files.len());
    let kept = files.iter().map(|file| (file.display().to_string(), fs::read(file).unwrap()));
    let random = (first..first + inputs)
        .map(|seed| (format!("FUZZ_SEED={seed} FUZZ_INPUTS=1"), random_input(target, seed)));
    for (name, input) in kept.chain(random) {
        let outcome = catch_unwind(AssertUnwindSafe(|| body(&input)));
        assert!(outcome.is_ok(), "{name} failed");
    }
    assert!(!files.is_empty(), "the corpus is empty");
}

#[test]
fn decode() {
    run("server_decode", fuzzing::decode, 20_000);
}

#[test]
fn requests() {
    run("server_requests", fuzzing::requests, 100);
}
