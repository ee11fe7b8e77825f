//! The fuzz targets without a fuzzer: each body over its committed corpus, and over seeded random inputs.
//!
//! `FUZZ_SEED` chooses the first random input and `FUZZ_INPUTS` how many there are of each target.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail by panicking, and say what they ran")]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use anabranch::fuzzing;

type Body = fn(&[u8]);

fn run(target: &str, body: Body, default_inputs: u64) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(&corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", corpus.display());
    for file in &files {
        run_one(&file.display().to_string(), body, &fs::read(file).unwrap());
    }
    let (first, inputs) = (number("FUZZ_SEED", 1), number("FUZZ_INPUTS", default_inputs));
    println!("{target}: {} files, then {inputs} random inputs from FUZZ_SEED={first} on", files.len());
    for seed in first..first + inputs {
        run_one(&format!("FUZZ_SEED={seed} FUZZ_INPUTS=1"), body, &fuzzing::random_input(target, seed));
    }
}

/// Runs a body, and names the input if it panics.
fn run_one(name: &str, body: Body, input: &[u8]) {
    let outcome = catch_unwind(AssertUnwindSafe(|| body(input)));
    assert!(outcome.is_ok(), "{name} failed");
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
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
