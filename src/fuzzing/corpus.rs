//! The fuzz targets without a fuzzer: a body over its committed corpus, and over random inputs.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

const LONGEST: u64 = 600;

type Body = fn(&[u8]);

/// Runs the body of a target over its corpus, which is the directory `target` in `corpora`, and over seeded random inputs.
///
/// `FUZZ_SEED` chooses the first random input and `FUZZ_INPUTS` how many there are of each target.
#[allow(clippy::print_stdout, reason = "says what it ran")]
pub fn run_corpus(corpora: &Path, target: &str, body: Body, default_inputs: u64) {
    let corpus = corpora.join(target);
    let mut files: Vec<_> = fs::read_dir(&corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", corpus.display());
    for file in &files {
        run_one(&file.display().to_string(), body, &fs::read(file).unwrap());
    }
    let (first, inputs) = (number("FUZZ_SEED", 1), number("FUZZ_INPUTS", default_inputs));
    println!("{target}: {} files, then {inputs} random inputs from FUZZ_SEED={first} on", files.len());
    for seed in first..first + inputs {
        run_one(&format!("FUZZ_SEED={seed} FUZZ_INPUTS=1"), body, &random_input(target, seed));
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

/// Mostly small bytes, which select and measure, as the fuzzer soon finds out.
fn random_input(target: &str, seed: u64) -> Vec<u8> {
    let mut state = seed ^ (target.len() as u64) << 32;
    let mut next = || {
        // SplitMix64
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed ^ (mixed >> 29)
    };
    let length = next() % LONGEST;
    (0..length)
        .map(|_| {
            let drawn = next();
            let bound = if drawn % 4 == 0 { 256 } else { 24 };
            u8::try_from((drawn >> 8) % bound).unwrap()
        })
        .collect()
}
