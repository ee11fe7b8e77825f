//! Writes a source file anew, with all of its mutants in it.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::sites::{Kind, Site};

/// A file with its mutants.
pub struct Woven {
    pub text: String,
    /// Which bytes of the text are there for which mutant alone.
    codes: Vec<(Range<usize>, u32)>,
    /// Which bytes of the text are there for which mutants, with what was there before.
    places: Vec<(Range<usize>, Vec<u32>)>,
}

impl Woven {
    /// The mutants that are to blame for an error at this byte: the one whose code it is in, or all of the place it is in.
    pub fn to_blame(&self, at: usize) -> Vec<u32> {
        let narrowest = |range: &Range<usize>| range.len();
        let code = self.codes.iter().filter(|(range, _)| range.contains(&at));
        if let Some((_, number)) = code.min_by_key(|(range, _)| narrowest(range)) {
            return vec![*number];
        }
        let place = self.places.iter().filter(|(range, _)| range.contains(&at));
        place.min_by_key(|(range, _)| narrowest(range)).map_or(Vec::new(), |(_, numbers)| numbers.clone())
    }

    /// The byte at a line and a column, both from 1 on, as the compiler tells them.
    pub fn offset(&self, line: usize, column: usize) -> usize {
        let lines = self.text.split_inclusive('\n');
        let before: usize = lines.clone().take(line - 1).map(str::len).sum();
        let within = lines.clone().nth(line - 1).unwrap_or("").char_indices().nth(column - 1);
        before + within.map_or(0, |(bytes, _)| bytes)
    }
}

/// The source with these places, but for the mutants that were dropped.
pub fn weave(source: &str, sites: &[Site], dropped: &BTreeSet<u32>) -> Woven {
    let woven = Woven { text: String::new(), codes: Vec::new(), places: Vec::new() };
    let mut weaver = Weaver { source, sites, dropped, next: 0, woven };
    weaver.piece(0, source.len());
    weaver.woven
}

struct Weaver<'a> {
    source: &'a str,
    sites: &'a [Site],
    dropped: &'a BTreeSet<u32>,
    next: usize,
    woven: Woven,
}

impl Weaver<'_> {
    /// These bytes of the source, with the places in them.
    fn piece(&mut self, mut from: usize, to: usize) {
        while let Some(site) = self.sites.get(self.next).filter(|site| site.start < to) {
            self.next += 1;
            self.woven.text.push_str(&self.source[from..site.start]);
            self.site(site);
            from = site.end;
        }
        self.woven.text.push_str(&self.source[from..to]);
    }

    fn site(&mut self, site: &Site) {
        let start = self.woven.text.len();
        let mutants: Vec<_> =
            site.mutants.iter().filter(|mutant| !self.dropped.contains(&mutant.number)).collect();
        for (index, mutant) in mutants.iter().enumerate() {
            let chosen = format!("crate::mutant({})", mutant.number);
            let code = match site.kind {
                Kind::Body => format!(" if {chosen} {{ {} }}", mutant.code),
                Kind::Guard => format!("!{chosen} && "),
                Kind::Arm => format!(" if !{chosen}"),
                Kind::Choice if index == 0 => format!("(if {chosen} {{ {} }}", mutant.code),
                Kind::Choice => format!(" else if {chosen} {{ {} }}", mutant.code),
            };
            let begin = self.woven.text.len();
            self.woven.text.push_str(&code);
            self.woven.codes.push((begin..self.woven.text.len(), mutant.number));
        }
        if site.kind == Kind::Choice {
            // In parentheses, since a block at the front of a statement would end it.
            let (open, close) = if mutants.is_empty() { ("", "") } else { (" else { (", ") })") };
            self.woven.text.push_str(open);
            self.piece(site.start, site.end);
            self.woven.text.push_str(close);
        }
        let numbers = mutants.iter().map(|mutant| mutant.number).collect();
        self.woven.places.push((start..self.woven.text.len(), numbers));
    }
}
