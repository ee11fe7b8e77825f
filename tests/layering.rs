//! The rules that hold the library's rooms apart, read off its sources.
//!
//! A room is a module at the top of `src`. Rooms are listed from the ground up in [`ROOMS`], and a room uses only rooms before it in that
//! list. What else is checked here: where `unsafe` may stand and that it says why, which room alone talks to the operating system, what
//! a library must never do, and that the satellites under `crates` stand on the public exports alone.
//!
//! The sources are read as text, without comments, strings and test code. That is no compiler, but it sees every path that is written
//! out, and the tests below show the checks failing on made-up sources.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// From the ground up. A room uses only rooms that stand before it.
const ROOMS: [&str; 24] = [
    "docs",
    "sync",
    "trace",
    "limits",
    "types",
    "clock",
    "format",
    "storage",
    "segment",
    "routing",
    "capacity",
    "manifest",
    "leases",
    "queue_files",
    "shard",
    "error",
    "stream",
    "batching",
    "consumer",
    "event_source",
    "queue",
    "pipeline",
    "store",
    "fuzzing",
];

/// The only places that measure time for themselves: waits have real deadlines, and the clock has to start somewhere.
const MAY_CALL_INSTANT_NOW: [&str; 9] = [
    "batching/batch.rs",
    "batching/mod.rs",
    "batching/queue.rs",
    "clock.rs",
    "consumer/worker.rs",
    "queue/mod.rs",
    "stream/background.rs",
    "stream/read.rs",
    "stream/records.rs",
];

/// What talks to the operating system, as a path starts.
const OF_STORAGE: [&str; 4] = ["std::fs", "std::os", "memmap2", "rustix"];

/// Where threads wait for one another, and the one family of calls that this takes.
const WAITS: (&str, &str) = ("sync/door.rs", "rustix::thread::futex");

/// What a library leaves to the program around it, or never does.
const FORBIDDEN: [&str; 11] = [
    "println!",
    "print!",
    "eprintln!",
    "eprint!",
    "dbg!",
    "todo!",
    "unimplemented!",
    "process::exit",
    "process::abort",
    "static mut",
    "set_var",
];

// ---- the sources ----

/// A source file: its path below the directory that was read, and its text.
#[derive(Debug)]
struct Source {
    path: String,
    text: String,
}

fn sources(directory: &Path) -> Vec<Source> {
    fn walk(directory: &Path, top: &Path, found: &mut Vec<Source>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, top, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let below = path.strip_prefix(top).unwrap().to_str().unwrap().replace('\\', "/");
                found.push(Source { path: below, text });
            }
        }
    }
    let mut found = Vec::new();
    walk(directory, directory, &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!found.is_empty(), "no sources in {}", directory.display());
    found
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn library() -> Vec<Source> {
    sources(&root().join("src"))
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    /// The room that the file belongs to; nothing for the library's front page.
    fn room(&self) -> Option<&str> {
        let top = self.path.split('/').next().unwrap();
        let room = top.strip_suffix(".rs").unwrap_or(top);
        (room != "lib").then_some(room)
    }

    /// How many modules the file's own stands below the crate's root.
    fn depth(&self) -> usize {
        let parts: Vec<_> = self.path.split('/').collect();
        parts.len() - usize::from(parts.len() > 1 && parts[parts.len() - 1] == "mod.rs")
    }

    /// Files that are test code from the first line to the last.
    fn is_test(&self) -> bool {
        self.path.split('/').any(|part| part == "tests.rs" || part == "tests")
    }

    /// The text without comments, strings and test modules: line breaks stay, so that line numbers do.
    fn code(&self) -> String {
        if self.is_test() { String::new() } else { without_tests(&bare(&self.text)) }
    }

    fn at(&self, code: &str, offset: usize, what: &str) -> String {
        format!("{}:{}: {what}", self.path, code[..offset].matches('\n').count() + 1)
    }
}

/// Blanks out comments and the contents of strings and characters.
fn bare(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let blank = |out: &mut String, c: char| out.push(if c == '\n' { '\n' } else { ' ' });
    let mut i = 0;
    while i < chars.len() {
        let rest = &chars[i..];
        let length = match rest {
            ['/', '/', ..] => rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()),
            ['/', '*', ..] => block_comment(rest),
            ['r', ..] if !follows_a_word(&chars, i) => raw_string(rest, 1),
            ['b', 'r', ..] if !follows_a_word(&chars, i) => raw_string(rest, 2),
            ['"', ..] => string(rest),
            ['\'', '\\', ..] => 2 + rest.iter().skip(3).position(|c| *c == '\'').map_or(rest.len(), |end| end + 2),
            ['\'', _, '\'', ..] => 3,
            _ => 0,
        };
        let length = length.min(rest.len());
        rest[..length].iter().for_each(|c| blank(&mut out, *c));
        if length == 0 {
            out.push(chars[i]);
        }
        i += length.max(1);
    }
    out
}

fn follows_a_word(chars: &[char], at: usize) -> bool {
    at.checked_sub(1).and_then(|before| chars.get(before)).is_some_and(|c| is_word(*c))
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn block_comment(rest: &[char]) -> usize {
    let (mut depth, mut i) = (0_usize, 0);
    while i < rest.len() {
        match &rest[i..] {
            ['/', '*', ..] => (depth, i) = (depth + 1, i + 2),
            ['*', '/', ..] => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            return i;
        }
    }
    rest.len()
}

fn string(rest: &[char]) -> usize {
    let mut i = 1;
    while i < rest.len() && rest[i] != '"' {
        i += if rest[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

/// The length of a raw string whose hashes start at `prefix`; zero where there is none.
fn raw_string(rest: &[char], prefix: usize) -> usize {
    let hashes = rest[prefix..].iter().take_while(|c| **c == '#').count();
    let start = prefix + hashes;
    if rest.get(start) != Some(&'"') {
        return 0;
    }
    let mut i = start + 1;
    while i < rest.len() {
        let closes = rest[i] == '"' && rest[i + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes;
        if closes {
            return i + 1 + hashes;
        }
        i += 1;
    }
    rest.len()
}

/// Blanks out what stands behind `#[cfg(test)]`: a module, or another item up to its end.
fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = code.to_owned();
    while let Some(start) = out.find(MARK) {
        let behind = start + MARK.len();
        let body = out[behind..].find(['{', ';']).map_or(out.len(), |at| behind + at);
        let end = if out[body..].starts_with('{') { matching(&out, body) } else { (body + 1).min(out.len()) };
        let blanked: String = out[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        out.replace_range(start..end, &blanked);
    }
    out
}

/// The position behind the brace that closes the one at `open`.
fn matching(code: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, c) in code[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return open + at + 1;
        }
    }
    code.len()
}

// ---- paths ----

/// Every path in the code, written out: those of `use` trees one for each leaf. With the offset at which each starts.
fn paths(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut i = 0;
    while i < code.len() {
        let c = code[i..].chars().next().unwrap();
        if is_word(c) {
            let (end, leaves) = tree(code, i);
            found.extend(leaves.into_iter().filter(|path| path.contains("::")).map(|path| (i, path)));
            i = end.max(i + 1);
        } else {
            i += c.len_utf8();
        }
    }
    found
}

/// The path or tree of paths that starts at `start`, and where it ends.
fn tree(code: &str, start: usize) -> (usize, Vec<String>) {
    let word: String = code[start..].chars().take_while(|c| is_word(*c)).collect();
    let mut at = start + word.len();
    let Some(behind) = after_colons(code, at) else { return (at, vec![word]) };
    let rest = code[behind..].chars().next();
    if rest == Some('{') {
        let mut leaves = Vec::new();
        at = behind + 1;
        while at < code.len() {
            let c = code[at..].chars().next().unwrap();
            if c == '}' {
                return (at + 1, leaves);
            }
            if let Some(renamed) = code[at..].strip_prefix("as ") {
                at = code.len() - renamed.trim_start_matches(|c: char| is_word(c) || c == ' ').len();
            } else if is_word(c) {
                let (end, inner) = tree(code, at);
                leaves.extend(inner.into_iter().map(|leaf| format!("{word}::{leaf}")));
                at = end;
            } else {
                at += c.len_utf8();
            }
        }
        return (at, leaves);
    }
    if rest.is_some_and(is_word) {
        let (end, leaves) = tree(code, behind);
        return (end, leaves.into_iter().map(|leaf| format!("{word}::{leaf}")).collect());
    }
    (at, vec![format!("{word}::")]) // `path::*`, `path::<T>`
}

/// The position behind `::` and the blanks around it, if that is what follows.
fn after_colons(code: &str, at: usize) -> Option<usize> {
    let rest = code[at..].trim_start();
    let behind = rest.strip_prefix("::")?.trim_start();
    Some(code.len() - behind.len())
}

/// The rooms that a file's paths lead to, by `crate::` or by climbing up with `super::`.
fn rooms_used(source: &Source) -> Vec<(usize, String)> {
    let depth = source.depth();
    let room_of = |path: &str| {
        let mut parts = path.split("::").peekable();
        if parts.peek() == Some(&"self") {
            parts.next();
        }
        let mut climbed = 0;
        while parts.peek() == Some(&"super") {
            parts.next();
            climbed += 1;
        }
        if climbed == 0 && parts.next() != Some("crate") {
            return None;
        }
        if climbed > 0 && climbed < depth {
            return None;
        }
        parts.next().filter(|room| !room.is_empty()).map(ToOwned::to_owned)
    };
    paths(&source.code()).into_iter().filter_map(|(at, path)| Some((at, room_of(&path)?))).collect()
}

// ---- the checks: each gives what is wrong ----

/// The rooms behind the names that the front page exports: `crate::Name` uses one of them.
fn exports(library: &[Source]) -> BTreeMap<String, String> {
    let front = library.iter().find(|source| source.path == "lib.rs").expect("a front page");
    let pairs = paths(&front.code()).into_iter().filter_map(|(_, path)| {
        let (room, name) = path.rsplit_once("::")?;
        Some((name.to_owned(), room.to_owned()))
    });
    pairs.collect()
}

fn upward_imports(source: &Source, rooms: &[&str], exports: &BTreeMap<String, String>) -> Vec<String> {
    let Some(room) = source.room() else { return Vec::new() };
    let code = source.code();
    let Some(own) = rooms.iter().position(|known| *known == room) else {
        return vec![format!("{}: room {room} is not in the list", source.path)];
    };
    let mut wrong = Vec::new();
    for (at, used) in rooms_used(source) {
        let used = exports.get(&used).unwrap_or(&used);
        match rooms.iter().position(|known| known == used) {
            Some(other) if other <= own => {}
            Some(_) => wrong.push(source.at(&code, at, &format!("{room} uses {used}, which stands above it"))),
            None => wrong.push(source.at(&code, at, &format!("{room} uses {used}, which is no room"))),
        }
    }
    wrong
}

fn unsafe_out_of_place(source: &Source) -> Vec<String> {
    let code = bare(&source.text); // tests too
    let mut wrong = Vec::new();
    for at in words(&code, "unsafe") {
        if source.room() != Some("storage") {
            wrong.push(source.at(&code, at, "unsafe outside the storage room"));
        } else if !is_justified(&source.text, code[..at].matches('\n').count()) {
            wrong.push(source.at(&code, at, "unsafe without a SAFETY comment directly above"));
        }
    }
    wrong
}

/// Whether the comment directly above a line, past attributes, says why it is safe.
fn is_justified(text: &str, line: usize) -> bool {
    let lines: Vec<_> = text.lines().take(line).collect();
    let above = lines.iter().rev().map(|line| line.trim()).skip_while(|line| line.starts_with("#["));
    above.take_while(|line| line.starts_with("//")).any(|line| line.starts_with("// SAFETY:"))
}

/// Where a word stands by itself.
fn words(code: &str, word: &str) -> Vec<usize> {
    let starts = code.match_indices(word).map(|(at, _)| at);
    let apart = |at: &usize| {
        let before = code[..*at].chars().next_back();
        let behind = code[at + word.len()..].chars().next();
        let longer = word.ends_with(is_word) && behind.is_some_and(is_word);
        !longer && !before.is_some_and(is_word)
    };
    starts.filter(apart).collect()
}

fn forbidden(source: &Source) -> Vec<String> {
    let code = source.code();
    let found = FORBIDDEN.iter().flat_map(|word| words(&code, word).into_iter().map(move |at| (at, *word)));
    found.map(|(at, word)| source.at(&code, at, &format!("{word} in a library"))).collect()
}

fn without_a_front_page(source: &Source) -> Vec<String> {
    let says = source.text.lines().next().is_some_and(|line| line.len() > 4 && line.starts_with("//! "));
    if says { Vec::new() } else { vec![format!("{}: does not open with `//!` and what it is", source.path)] }
}

fn system_calls_out_of_place(source: &Source) -> Vec<String> {
    let code = source.code();
    let mut wrong = Vec::new();
    for (at, path) in paths(&code) {
        let of_storage = OF_STORAGE.iter().any(|start| {
            let rest = path.strip_prefix(start);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        });
        let waits = (source.path.as_str(), path.as_str()) == WAITS;
        if of_storage && source.room() != Some("storage") && !waits {
            wrong.push(source.at(&code, at, &format!("{path} outside the storage room")));
        }
        if path.ends_with("SystemTime::now") && source.path != "clock.rs" {
            wrong.push(source.at(&code, at, "SystemTime::now outside the clock"));
        }
        if path.ends_with("Instant::now") && !MAY_CALL_INSTANT_NOW.contains(&source.path.as_str()) {
            wrong.push(source.at(&code, at, "Instant::now where time is not to be measured"));
        }
    }
    wrong
}

fn private_doors(source: &Source) -> Vec<String> {
    let code = bare(&source.text);
    let mut wrong = Vec::new();
    for trick in ["#[path", "include!"] {
        wrong.extend(code.match_indices(trick).map(|(at, _)| source.at(&code, at, trick)));
    }
    // Paths of files are strings, which `bare` has blanked: looked for in the text.
    wrong.extend(
        source.text.match_indices("../src").map(|(at, _)| source.at(&source.text, at, "the library's sources")),
    );
    wrong
}

fn assert_none(wrong: impl Iterator<Item = String>) {
    let wrong: Vec<_> = wrong.collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

// ---- the library ----

#[test]
fn rooms_use_only_rooms_below_them() {
    let library = library();
    let exports = exports(&library);
    assert!(exports.get("Stream").is_some_and(|room| room == "stream"), "{exports:?}");
    assert_none(library.iter().flat_map(|source| upward_imports(source, &ROOMS, &exports)));
    for room in ROOMS {
        assert!(library.iter().any(|source| source.room() == Some(room)), "{room} is listed and not there");
    }
    let used: usize = library.iter().map(|source| rooms_used(source).len()).sum();
    assert!(used > 100, "only {used} uses of rooms were seen: the reading of sources is broken");
}

#[test]
fn unsafe_stands_in_the_storage_room_and_says_why() {
    let library = library();
    assert_none(library.iter().flat_map(unsafe_out_of_place));
    assert!(library.iter().any(|source| !words(&bare(&source.text), "unsafe").is_empty()), "none seen at all");
}

#[test]
fn a_library_does_not_print_exit_or_leave_holes() {
    assert_none(library().iter().flat_map(forbidden));
}

#[test]
fn every_file_says_what_it_is() {
    let root = root();
    let mut all = library();
    all.extend(sources(&root.join("tests")));
    all.extend(satellites());
    assert_none(all.iter().flat_map(without_a_front_page));
}

#[test]
fn only_storage_and_the_clock_ask_the_operating_system() {
    let library = library();
    assert_none(library.iter().flat_map(system_calls_out_of_place));
    for path in MAY_CALL_INSTANT_NOW {
        let source = library.iter().find(|source| source.path == path);
        let calls = source.is_some_and(|source| source.code().contains("Instant::now"));
        assert!(calls, "{path} may call Instant::now and does not");
    }
}

fn satellites() -> Vec<Source> {
    sources(&root().join("crates"))
}

#[test]
fn satellites_stand_on_the_public_exports() {
    assert_none(satellites().iter().flat_map(private_doors));
    for entry in fs::read_dir(root().join("crates")).unwrap() {
        let manifest = fs::read_to_string(entry.unwrap().path().join("Cargo.toml")).unwrap();
        let depends =
            manifest.lines().filter(|line| line.starts_with("anabranch ") || line.starts_with("anabranch="));
        for line in depends {
            assert!(!line.contains("features"), "no feature is a private door: {line}");
        }
    }
}

// ---- the checks themselves ----

/// A promise is kept by tests that are there: each that the pages name, in the file that they name.
#[test]
fn the_tests_that_promises_name_exist() {
    let mut named = 0;
    for page in ["promises.rs", "testing.rs"] {
        let text = fs::read_to_string(root().join("src/docs").join(page)).unwrap();
        for (file, test) in text.split('`').filter_map(|quoted| quoted.split_once(".rs::")) {
            let path = root().join("tests").join(format!("{file}.rs"));
            let code = fs::read_to_string(&path).unwrap_or_else(|_| panic!("{page} names {}", path.display()));
            assert!(code.contains(&format!("fn {test}(")), "{page} names {file}.rs::{test}");
            named += 1;
        }
    }
    assert!(named > 40, "only {named} tests are named");
}

#[test]
fn comments_strings_and_tests_are_no_code() {
    let source = Source::new(
        "shard/append.rs",
        r##"//! use crate::store::Store;
/* use crate::store /* nested */ ::Store; */
const TEXT: &str = "use crate::store; \" todo!()";
const RAW: &str = r#"println!("{}", crate::store::X)"#;
const QUOTE: char = '"'; const ESCAPED: char = '\''; const TICK: &'static str = "unsafe";
#[cfg(test)]
use crate::store::Store;
#[cfg(test)]
mod tests {
    use crate::stream::Stream;
    fn inner() { println!("{{"); }
}
fn real() {}
"##,
    );
    let code = source.code();
    assert!(!code.contains("store") && !code.contains("Stream") && !code.contains("println"), "{code}");
    assert!(code.contains("&'static str") && code.contains("fn real()"), "{code}");
    assert_eq!(code.lines().count(), source.text.lines().count());
    assert!(Source::new("segment/scan/tests.rs", "use crate::store::Store;").code().is_empty());
}

#[test]
fn use_trees_are_taken_apart() {
    let found = |code: &str| paths(code).into_iter().map(|(_, path)| path).collect::<Vec<_>>();
    assert_eq!(
        found("use crate::{limits::{A, B}, types::c::D as E, clock};"),
        ["crate::limits::A", "crate::limits::B", "crate::types::c::D", "crate::clock"]
    );
    assert_eq!(
        found("use std::{\n    fs,\n    io::{self, Write},\n};"),
        ["std::fs", "std::io::self", "std::io::Write"]
    );
    assert_eq!(found("use crate::format::*;"), ["crate::format::"]);
    assert_eq!(found("let x = crate :: error :: Error::new::<u8>();"), ["crate::error::Error::new::"]);
    assert_eq!(found("pub(crate) fn x() -> std::io::Result<()> {}"), ["std::io::Result"]);
}

#[test]
fn upward_imports_are_seen_however_they_are_written() {
    let front = [Source::new("lib.rs", "mod stream; pub use stream::{Stream, Follow}; pub use types::ShardId;")];
    let exports = exports(&front);
    let wrong = |path: &str, text: &str| upward_imports(&Source::new(path, text), &ROOMS, &exports);
    for text in [
        "use crate::stream::Stream;",
        "use crate::Stream;",
        "use crate::{ShardId, Follow};",
        "use crate::{limits::MAX, stream::Stream};",
        "use crate::{\n    types,\n    stream,\n};",
        "fn x() -> crate::stream::Stream { todo() }",
        "pub use crate :: stream :: *;",
        "use super::super::stream::Stream;",
        "use super::super::{types, stream::Stream};",
    ] {
        let found = wrong("shard/append.rs", text);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert!(found[0].contains("shard uses stream"), "{found:?}");
    }
    assert_eq!(wrong("shard/mod.rs", "use super::stream::Stream;").len(), 1, "one step up is the crate there");
    assert_eq!(
        wrong("routing.rs", "\n\nuse super::shard::Shard;"),
        ["routing.rs:3: routing uses shard, which stands above it"]
    );
    assert_eq!(wrong("attic.rs", ""), ["attic.rs: room attic is not in the list"]);
    assert_eq!(wrong("store.rs", "use crate::attic::Old;").len(), 1);
    for (path, text) in [
        ("shard/append.rs", "use crate::types::ShardId; use super::Shard; use crate::shard::Cursor;"),
        ("shard/append.rs", "use super::super::types::ShardId; // crate::stream"),
        ("stream/put.rs", "use super::{Stream, StreamInner}; use crate::error::Error;"),
        ("lib.rs", "mod store; pub use store::Store; pub use crate::stream::Stream;"),
        ("storage/simulated/mod.rs", "use super::{Access, stream::Of}; use super::super::types;"),
    ] {
        let allowed = wrong(path, text);
        let expected = usize::from(path.starts_with("storage/simulated") && text.contains("super::super::stream"));
        assert_eq!(allowed.len(), expected, "{path}: {allowed:?}");
    }
    assert_eq!(wrong("storage/simulated/tree.rs", "use super::super::super::shard::X;").len(), 1);
}

#[test]
fn unsafe_is_seen() {
    let wrong = |path: &str, text: &str| unsafe_out_of_place(&Source::new(path, text)).len();
    assert_eq!(wrong("shard/mod.rs", "// SAFETY: none\nunsafe { x() }"), 1);
    assert_eq!(wrong("storage/map.rs", "fn x() {\n    unsafe { y() }\n}"), 1);
    assert_eq!(wrong("storage/map.rs", "// SAFETY: it is\n\nunsafe impl Send for X {}"), 1, "not directly above");
    assert_eq!(wrong("storage/map.rs", "// safe enough\nunsafe impl Send for X {}"), 1);
    assert_eq!(
        wrong("storage/map.rs", "// SAFETY: it is,\n// since so.\n#[allow(unsafe_code)]\nunsafe { x() }"),
        0
    );
    assert_eq!(wrong("storage/map.rs", "// SAFETY: it is\nlet x = unsafe { y() }; // unsafe"), 0);
    assert_eq!(wrong("storage/map.rs", "#![deny(unsafe_code)]\nlet s = \"unsafe\"; fn unsafely() {}"), 0);
    assert_eq!(wrong("types/mod.rs", "#[cfg(test)]\nmod tests { unsafe fn x() {} }"), 1, "in tests too");
}

#[test]
fn forbidden_words_are_seen() {
    let wrong = |text: &str| forbidden(&Source::new("shard/mod.rs", text)).len();
    for text in [
        "println!(\"x\");",
        "std::process::exit(1)",
        "use std::process; process::exit(1)",
        "static mut X: u8 = 0;",
        "todo!()",
        "fn x() { unimplemented!() }",
        "eprintln!()",
        "dbg!(x)",
    ] {
        assert_eq!(wrong(text), 1, "{text}");
    }
    assert_eq!(wrong("// println!()\nlet x = \"todo!()\"; writeln!(f); my_println!()"), 0);
    assert_eq!(wrong("#[cfg(test)] mod tests { fn x() { println!() } }"), 0);
}

#[test]
fn missing_front_pages_are_seen() {
    let wrong = |text: &str| without_a_front_page(&Source::new("x.rs", text)).len();
    assert_eq!(wrong("//! What it is.\nuse x;"), 0);
    for text in ["", "use x;", "// A comment.", "\n//! Late.", "//!", "/// An item.", "#![allow(x)]\n//! Late."] {
        assert_eq!(wrong(text), 1, "{text:?}");
    }
}

#[test]
fn system_calls_are_seen() {
    let wrong = |path: &str, text: &str| system_calls_out_of_place(&Source::new(path, text)).len();
    for text in [
        "use std::fs;",
        "use std::fs::File;",
        "use std::{io, fs::{self, File}};",
        "fn x() { std::fs::remove_file(p) }",
        "use memmap2::Mmap;",
        "use rustix::{fs::fallocate, io::Errno};",
        "let now = SystemTime::now();",
        "let now = std::time::SystemTime::now();",
        "let now = Instant::now();",
    ] {
        assert!(wrong("shard/mod.rs", text) > 0, "{text}");
    }
    assert_eq!(wrong("storage/disk.rs", "use std::fs::File; use rustix::fs::fallocate;"), 0);
    assert_eq!(wrong("clock.rs", "SystemTime::now(); Instant::now()"), 0);
    assert_eq!(wrong("stream/read.rs", "Instant::now()"), 0);
    assert_eq!(
        wrong("shard/mod.rs", "use std::io; use std::time::{Duration, Instant}; clock.now(); // std::fs"),
        0
    );
}

#[test]
fn private_doors_are_seen() {
    let wrong = |text: &str| private_doors(&Source::new("cli/src/main.rs", text)).len();
    assert!(wrong("#[path = \"../../../src/shard/mod.rs\"]\nmod shard;") > 0);
    assert!(wrong("include!(concat!(\"x\"));") > 0);
    assert!(wrong("const X: &[u8] = include_bytes!(\"../../../src/lib.rs\");") > 0);
    assert_eq!(wrong("use anabranch::Stream; // #[path] is a trick"), 0);
}
