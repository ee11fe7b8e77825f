//! The proof. It knows nothing of the stream but what was put in and what came out.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::Outcome;
use crate::source::Line;

/// What is known of the lines of each key: how many they are, and a hash chained over them in
/// order. A line that is missing, changed, doubled or out of order shows in one of the two.
#[derive(Default)]
pub(crate) struct Tally(HashMap<String, Chain>);

#[derive(Default)]
struct Chain {
    lines: u64,
    hash: DefaultHasher,
}

impl Tally {
    pub(crate) fn of_lines(lines: &[Line]) -> Self {
        let mut tally = Self::default();
        for line in lines {
            tally.add(&line.key, &line.text);
        }
        tally
    }

    pub(crate) fn add(&mut self, key: &str, line: &[u8]) {
        if let Some(chain) = self.0.get_mut(key) {
            chain.add(line);
        } else {
            let mut chain = Chain::default();
            chain.add(line);
            self.0.insert(key.to_owned(), chain);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    fn get(&self, key: &str) -> (u64, u64) {
        self.0.get(key).map_or((0, 0), |chain| (chain.lines, chain.hash.finish()))
    }

    /// Fails, naming the keys, unless every key has the same lines in the same order as `expected`.
    pub(crate) fn prove(&self, reading: &str, expected: &Self) -> Outcome<()> {
        let mut wrong: Vec<&String> = expected.0.keys().chain(self.0.keys()).collect();
        wrong.retain(|key| self.get(key) != expected.get(key));
        wrong.sort();
        wrong.dedup();
        for key in wrong.iter().take(10) {
            let (there, here) = (expected.get(key).0, self.get(key).0);
            let what = if there == here { "changed or out of order" } else { "lost or doubled" };
            eprintln!("{key}: {what}: {there} lines put, {here} read {reading}");
        }
        if wrong.is_empty() {
            return Ok(());
        }
        Err(format!("proof failed: read {reading}, {} keys are not what was put", wrong.len()).into())
    }
}

impl Chain {
    fn add(&mut self, line: &[u8]) {
        self.lines += 1;
        line.hash(&mut self.hash);
    }
}
