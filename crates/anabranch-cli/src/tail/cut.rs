//! Bytes of a file to records: lines, or lines that belong together.
//!
//! Where a record ends depends on its own bytes and the line behind them, never on how the bytes arrived: a range of a file that ended with a record
//! gives the same records whenever it is read again.

use regex::bytes::Regex;

/// What is known of the bytes that may follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// More may come at any time.
    Open,
    /// The file has not grown for a while: the lines that are there are all that belong together. A line without end may still grow.
    AtRest,
    /// Nothing comes any more: the last line needs no end.
    Final,
}

/// A record at the start of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Bytes of the record, without the `\n` that ends it.
    pub(crate) data_bytes: usize,
    /// Bytes to go on behind.
    pub(crate) bytes: usize,
    /// Whether it was cut off since it is longer than a record may be.
    pub(crate) is_cut_off: bool,
}

/// How to find records.
#[derive(Debug, Clone)]
pub(crate) struct Cutter {
    /// A record begins with each line that matches; without it, with every line.
    pub(crate) start_pattern: Option<Regex>,
    /// The longest record.
    pub(crate) max_bytes: usize,
}

impl Cutter {
    /// The first record of `bytes`, which start where a record starts; nothing where its end is not there yet.
    pub(crate) fn first(&self, bytes: &[u8], ending: Ending) -> Option<Cut> {
        let is_over = bytes.len() > self.max_bytes;
        let visible = &bytes[..bytes.len().min(self.max_bytes + 1)];
        if let Some(end) = self.known_end(visible, ending == Ending::Final && bytes.len() < self.max_bytes) {
            return Some(ended_by_newline(end));
        }
        if is_over {
            return self.end_of_all(&bytes[..self.max_bytes], Ending::Final);
        }
        self.end_of_all(visible, ending)
    }

    /// Behind the `\n` that certainly ends the first record.
    fn known_end(&self, bytes: &[u8], last_line_is_whole: bool) -> Option<usize> {
        let mut line_end = memchr::memchr(b'\n', bytes)? + 1;
        let Some(pattern) = &self.start_pattern else {
            return Some(line_end);
        };
        loop {
            let rest = &bytes[line_end..];
            let next = match memchr::memchr(b'\n', rest) {
                Some(length) => length,
                None if last_line_is_whole && !rest.is_empty() => rest.len(),
                None => return None,
            };
            if pattern.is_match(&rest[..next]) {
                return Some(line_end);
            }
            line_end = (line_end + next + 1).min(bytes.len());
        }
    }

    /// The end of a record with which, for now, the bytes end.
    fn end_of_all(&self, bytes: &[u8], ending: Ending) -> Option<Cut> {
        match ending {
            Ending::Open => None,
            Ending::AtRest => memchr::memrchr(b'\n', bytes).map(|last| ended_by_newline(last + 1)),
            Ending::Final => match bytes {
                [] => None,
                [.., b'\n'] => Some(ended_by_newline(bytes.len())),
                _ => {
                    let is_cut_off = bytes.len() == self.max_bytes;
                    Some(Cut { data_bytes: bytes.len(), bytes: bytes.len(), is_cut_off })
                }
            },
        }
    }
}

fn ended_by_newline(end: usize) -> Cut {
    Cut { data_bytes: end - 1, bytes: end, is_cut_off: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cutter(pattern: Option<&str>, max_bytes: usize) -> Cutter {
        Cutter { start_pattern: pattern.map(|pattern| Regex::new(pattern).unwrap()), max_bytes }
    }

    /// All records of a text, and where each ends.
    fn cut(cutter: &Cutter, text: &[u8], ending: Ending) -> Vec<(Vec<u8>, usize)> {
        let mut at = 0;
        let mut found = Vec::new();
        while let Some(cut) = cutter.first(&text[at..], ending) {
            found.push((text[at..at + cut.data_bytes].to_vec(), at + cut.bytes));
            at += cut.bytes;
        }
        found
    }

    #[track_caller]
    fn assert_cut(cutter: &Cutter, text: &str, ending: Ending, expected: &[&str]) {
        let found = cut(cutter, text.as_bytes(), ending);
        let found: Vec<_> = found.iter().map(|(data, _)| std::str::from_utf8(data).unwrap()).collect();
        assert_eq!(found, expected, "{text:?} {ending:?}");
    }

    #[test]
    fn a_line_is_a_record_once_it_has_its_end() {
        let lines = cutter(None, 100);
        for ending in [Ending::Open, Ending::AtRest] {
            assert_cut(&lines, "a\n\nb\npart", ending, &["a", "", "b"]);
        }
        assert_cut(&lines, "a\n\nb\npart", Ending::Final, &["a", "", "b", "part"]);
        assert_cut(&lines, "", Ending::Final, &[]);
    }

    #[test]
    fn lines_belong_to_the_start_before_them() {
        let stanzas = cutter(Some("^ERR"), 100);
        let text = "lead\nERR 1\n at x\n at y\nERR 2\nERR 3\n at z\nER";
        let known = ["lead", "ERR 1\n at x\n at y", "ERR 2"];
        assert_cut(&stanzas, text, Ending::Open, &known);
        assert_cut(&stanzas, text, Ending::AtRest, &[&known[..], &["ERR 3\n at z"]].concat());
        assert_cut(&stanzas, text, Ending::Final, &[&known[..], &["ERR 3\n at z\nER"]].concat());
        assert_cut(&stanzas, "ERR 1\nERR", Ending::Final, &["ERR 1", "ERR"]);
        assert_cut(&stanzas, "ERR 1\nERR", Ending::Open, &[]);
    }

    #[test]
    fn what_is_too_long_is_cut_into_pieces() {
        let lines = cutter(None, 4);
        assert_cut(
            &lines,
            "1234\n12345\n123456789\nx\n",
            Ending::Open,
            &["1234", "1234", "5", "1234", "5678", "9", "x"],
        );
        assert!(lines.first(b"12345", Ending::Open).unwrap().is_cut_off);
        assert!(!lines.first(b"1234\n", Ending::Open).unwrap().is_cut_off);
        assert_eq!(lines.first(b"1234", Ending::Open), None, "its end may come next");
    }

    /// A small generator of the tests' own, so that a seed means the same text in every release.
    fn next(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    #[test]
    fn a_range_that_ended_with_a_record_gives_the_same_records_again() {
        let seed = std::env::var("ANABRANCH_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed: u64 = seed.unwrap_or_else(|| u64::from(std::process::id()) + 1);
        println!("ANABRANCH_SEED={seed}");
        let mut state = seed;
        for _ in 0..3_000 {
            let length = next(&mut state) % 60;
            let text: Vec<u8> = (0..length).map(|_| b"\n\nSxyz"[(next(&mut state) % 6) as usize]).collect();
            for pattern in [None, Some("^S"), Some("S$"), Some("x")] {
                for ending in [Ending::Open, Ending::AtRest, Ending::Final] {
                    let cutter = cutter(pattern, 3 + (next(&mut state) % 20) as usize);
                    let all = cut(&cutter, &text, ending);
                    let starts = std::iter::once(0).chain(all.iter().map(|(_, end)| *end));
                    for (from, start) in starts.enumerate() {
                        for to in from + 1..=all.len() {
                            let again = cut(&cutter, &text[start..all[to - 1].1], Ending::Final);
                            let records = again.iter().map(|(data, _)| data);
                            assert!(
                                records.eq(all[from..to].iter().map(|(data, _)| data)),
                                "{text:?} {cutter:?} {from} {to}"
                            );
                        }
                    }
                }
            }
        }
    }
}
