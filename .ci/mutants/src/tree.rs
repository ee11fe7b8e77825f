//! A copy of the tree that has all the mutants in it, and what cargo makes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::sites::{self, Mutant, Site};
use crate::weave::{Woven, weave};

/// How often the compiler may find mutants that are no code: it tells of some mistakes only where there is none of another sort.
const MOST_BUILDS: usize = 12;

const LIBRARY: &str = "src/lib.rs";

/// What stands in the library's copy: the choice, and for a run with no mutant a note of all that were asked for.
const CHOICE: &str = r#"
/// Whether this mutant is the chosen one.
pub(crate) fn mutant(number: u32) -> bool {
    use std::io::Write as _;
    use std::sync::atomic::{AtomicBool, Ordering};
    static CHOICE: std::sync::OnceLock<(u32, Option<std::sync::Mutex<std::fs::File>>)> = std::sync::OnceLock::new();
    static REACHED: [AtomicBool; COUNT] = [const { AtomicBool::new(false) }; COUNT];
    let (chosen, notes) = CHOICE.get_or_init(|| {
        let chosen = std::env::var("ANABRANCH_MUTANT").ok().and_then(|number| number.parse().ok()).unwrap_or(0);
        let path = std::env::var_os("ANABRANCH_MUTANTS_REACHED");
        let notes = path.map(|path| std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap());
        (chosen, notes.map(std::sync::Mutex::new))
    });
    if let Some(notes) = notes
        && !REACHED[number as usize].swap(true, Ordering::Relaxed)
    {
        writeln!(notes.lock().unwrap(), "{number}").unwrap();
    }
    number == *chosen
}
"#;

pub struct Tree {
    place: PathBuf,
    files: BTreeMap<String, (String, Vec<Site>)>,
    count: u32,
    /// What does not compile.
    pub no_code: BTreeSet<u32>,
}

/// A program with tests.
pub struct Suite {
    pub name: String,
    pub program: PathBuf,
    pub directory: PathBuf,
}

impl Tree {
    /// Copies the tree, and finds the mutants of these files.
    pub fn copy(from: &Path, place: &Path, names: &[String]) -> io::Result<Self> {
        let own: Vec<_> = names.iter().map(|name| place.join(name)).chain([place.join(LIBRARY)]).collect();
        copy_directory(from, place, &own)?;
        let (mut files, mut count) = (BTreeMap::new(), 0);
        for name in names {
            let source = fs::read_to_string(from.join(name))?;
            let mut sites = sites::find(name, &source).map_err(io::Error::other)?;
            for mutant in sites.iter_mut().flat_map(|site| &mut site.mutants) {
                count += 1;
                mutant.number = count;
            }
            files.insert(name.clone(), (source, sites));
        }
        let library = fs::read_to_string(from.join(LIBRARY))? + &CHOICE.replace("COUNT", &(count + 1).to_string());
        write_if_other(&place.join(LIBRARY), library.as_bytes())?;
        Ok(Self { place: place.to_owned(), files, count, no_code: BTreeSet::new() })
    }

    /// By ascending number.
    pub fn mutants(&self) -> Vec<&Mutant> {
        let sites = self.files.values().flat_map(|(_, sites)| sites);
        let mut mutants: Vec<_> = sites.flat_map(|site| &site.mutants).collect();
        mutants.sort_by_key(|mutant| mutant.number);
        mutants
    }

    /// Builds the programs, without the mutants that are no code.
    pub fn build(&mut self, suites: &[&str]) -> io::Result<Vec<Suite>> {
        for _ in 0..MOST_BUILDS {
            let woven = self.write()?;
            let output = self.cargo(suites)?;
            let mistakes = mistakes(&output, &woven);
            println!("built: {} of {} mutants are no code", self.no_code.len() + mistakes.len(), self.count);
            if mistakes.is_empty() {
                return self.programs(&output, suites);
            }
            self.no_code.extend(mistakes);
        }
        Err(io::Error::other("the compiler is never content"))
    }

    fn write(&self) -> io::Result<BTreeMap<&str, Woven>> {
        let mut all = BTreeMap::new();
        for (name, (source, sites)) in &self.files {
            let woven = weave(source, sites, &self.no_code);
            write_if_other(&self.place.join(name), woven.text.as_bytes())?;
            all.insert(name.as_str(), woven);
        }
        Ok(all)
    }

    fn cargo(&self, suites: &[&str]) -> io::Result<String> {
        let mut command = Command::new("cargo");
        command.current_dir(&self.place).args(["test", "--no-run", "--package=anabranch", "--features=async"]);
        command.args(["--message-format=short", "--color=never", "--jobs=1"]);
        for suite in suites {
            if *suite == "lib" {
                command.arg("--lib")
            } else {
                command.args(["--test", suite])
            };
        }
        // What is never reached or always overflows is a mutant like any other.
        let output = command.env("RUSTFLAGS", "--cap-lints allow").env("CARGO_INCREMENTAL", "0").output()?;
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn programs(&self, output: &str, suites: &[&str]) -> io::Result<Vec<Suite>> {
        let find = |name: &&str| {
            let source = if *name == "lib" { "src/lib.rs".to_owned() } else { format!("tests/{name}") };
            let line = output.lines().find(|line| line.contains("Executable") && line.contains(&source))?;
            let program = line.split_once('(')?.1.trim_end_matches(')');
            let program = self.place.join(program);
            Some(Suite { name: (*name).to_owned(), program, directory: self.place.clone() })
        };
        let programs: Option<Vec<_>> = suites.iter().map(find).collect();
        programs.ok_or_else(|| io::Error::other(format!("no programs were built:\n{output}")))
    }
}

/// The mutants that the compiler complains of.
fn mistakes(output: &str, woven: &BTreeMap<&str, Woven>) -> BTreeSet<u32> {
    let mut mistakes = BTreeSet::new();
    for line in output.lines().filter(|line| line.contains(": error")) {
        let mut parts = line.splitn(4, ':');
        let file = parts.next().and_then(|file| woven.get(file));
        let mut number = || parts.next().and_then(|number| number.parse().ok());
        if let (Some(file), Some(line), Some(column)) = (file, number(), number()) {
            mistakes.extend(file.to_blame(file.offset(line, column)));
        }
    }
    mistakes
}

/// Without what is built there and the history, and without these files.
fn copy_directory(from: &Path, to: &Path, without: &[PathBuf]) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let (entry, kind) = entry.and_then(|entry| entry.file_type().map(|kind| (entry, kind)))?;
        let (path, copy) = (entry.path(), to.join(entry.file_name()));
        let stays = entry.file_name() == "target" || entry.file_name() == ".git" || without.contains(&copy);
        if kind.is_dir() && !stays {
            copy_directory(&path, &copy, without)?;
        } else if kind.is_file() && !stays {
            write_if_other(&copy, &fs::read(&path)?)?;
        }
    }
    Ok(())
}

/// What has not changed since an earlier run need not be built again.
fn write_if_other(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if fs::read(path).is_ok_and(|there| there == bytes) { Ok(()) } else { fs::write(path, bytes) }
}
