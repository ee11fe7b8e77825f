//! Lines that exist, wherever the example runs, each with its partition key.

use std::env;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anabranch::limits::MAX_PARTITION_KEY_CHARS;

use crate::{Outcome, grouped};

/// What a search on this machine has to find, and where it has found enough.
const MIN_LINES: usize = 100_000;
const ENOUGH_LINES: usize = 400_000;

/// A longer line is taken in pieces, so that no record and no batch gets near the stream's limits.
const MAX_LINE_BYTES: u64 = 16 << 10;

pub(crate) struct Source {
    /// Where the lines come from, for the screen.
    pub(crate) name: String,
    pub(crate) lines: Vec<Line>,
}

/// One line, without its line feed. The bytes are as they were found, which may not be UTF-8.
pub(crate) struct Line {
    pub(crate) key: String,
    pub(crate) text: Vec<u8>,
}

impl Source {
    /// All lines of one access log. They are held in memory, so that the rates are the stream's own.
    pub(crate) fn access_log(path: &Path) -> Outcome<Self> {
        let mut lines = Vec::new();
        open(path)
            .and_then(|log| read_lines(log, client, usize::MAX, &mut lines))
            .map_err(|error| format!("{}: {error}", path.display()))?;
        if lines.is_empty() {
            return Err(format!("{}: no lines in it", path.display()).into());
        }
        Ok(Self { name: path.display().to_string(), lines })
    }

    /// At least [`MIN_LINES`] lines of the machine the example runs on. None are made up.
    pub(crate) fn discover() -> Outcome<Self> {
        for search in [Self::system_logs, Self::cargo_sources] {
            let source = search();
            if source.lines.len() >= MIN_LINES {
                return Ok(source);
            }
            let (name, lines) = (source.name, grouped(source.lines.len()));
            println!("passed over {name}: {lines} lines, fewer than {}", grouped(MIN_LINES));
        }
        Err("this machine has too few lines of its own; name an access log as argument".into())
    }

    /// What can be read under `/var/log`: access logs first and by client, others by file name.
    fn system_logs() -> Self {
        let root = Path::new("/var/log");
        let (access, other): (Vec<_>, Vec<_>) =
            files_under(root).into_iter().partition(|path| file_name(path).contains("access"));
        let (mut lines, mut files) = (Vec::new(), 0);
        for path in &access {
            files += usize::from(read_if_text(path, client, &mut lines));
        }
        for path in &other {
            files += usize::from(read_if_text(path, |_| file_name(path), &mut lines));
        }
        Self { name: format!("{files} logs under {}", root.display()), lines }
    }

    /// Rust sources that cargo fetched or that are vendored here, under their package as key.
    fn cargo_sources() -> Self {
        let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from);
        let cargo_home = cargo_home.or_else(|| Some(env::home_dir()?.join(".cargo")));
        let mut roots = cargo_home.map(|home| entries(&home.join("registry/src"))).unwrap_or_default();
        roots.extend(env::var_os("CARGO_MANIFEST_DIR").map(|dir| Path::new(&dir).join("vendor")));
        roots.retain(|root| root.is_dir());

        let (mut lines, mut packages) = (Vec::new(), 0);
        for package in roots.iter().flat_map(|root| entries(root)) {
            let before = lines.len();
            for path in files_under(&package) {
                if path.extension().is_some_and(|extension| extension == "rs") {
                    read_if_text(&path, |_| file_name(&package), &mut lines);
                }
            }
            packages += usize::from(lines.len() > before);
        }
        let roots: Vec<_> = roots.iter().map(|root| root.display().to_string()).collect();
        Self { name: format!("Rust sources of {packages} packages in {}", roots.join(", ")), lines }
    }
}

/// The client of a line in the common or combined log format: its first field.
fn client(line: &[u8]) -> String {
    let field = line.split(u8::is_ascii_whitespace).next().unwrap_or_default();
    String::from_utf8_lossy(field).into_owned()
}

fn open(path: &Path) -> io::Result<Box<dyn BufRead>> {
    let file = File::open(path)?;
    Ok(if path.extension().is_some_and(|extension| extension == "gz") {
        Box::new(BufReader::new(flate2::read::MultiGzDecoder::new(file)))
    } else {
        Box::new(BufReader::new(file))
    })
}

fn read_lines(
    mut from: impl BufRead,
    key_of: impl Fn(&[u8]) -> String,
    enough: usize,
    lines: &mut Vec<Line>,
) -> io::Result<()> {
    let mut text = Vec::new();
    while lines.len() < enough && from.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut text)? > 0 {
        text.pop_if(|last| *last == b'\n');
        let mut key: String = key_of(&text).chars().take(MAX_PARTITION_KEY_CHARS).collect();
        if key.is_empty() {
            key.push('-'); // as the log formats write what is not known
        }
        lines.push(Line { key, text: std::mem::take(&mut text) });
    }
    Ok(())
}

/// For files that were come across: whether there were lines to take. Others are passed over.
fn read_if_text(path: &Path, key_of: impl Fn(&[u8]) -> String, lines: &mut Vec<Line>) -> bool {
    let before = lines.len();
    if let Ok(mut from) = open(path)
        && from.fill_buf().is_ok_and(|start| !start.contains(&0))
    {
        // A file that turns out unreadable half-way still gave real lines.
        let _ = read_lines(from, key_of, ENOUGH_LINES, lines);
    }
    lines.len() > before
}

/// What is in a directory, sorted, so that each run sees the same; nothing if it cannot be read.
fn entries(directory: &Path) -> Vec<PathBuf> {
    let listing = fs::read_dir(directory).into_iter().flatten();
    let mut paths: Vec<_> = listing.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths
}

fn files_under(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for path in entries(directory) {
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => files.extend(files_under(&path)),
            Ok(metadata) if metadata.is_file() => files.push(path),
            _ => {} // links may lead in circles
        }
    }
    files
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
