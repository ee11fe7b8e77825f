//! Changes the library's code in many small ways, and tells which changes no test notices.
//!
//! All the mutants of the files that are named are built into the tests at once, and an environment variable chooses one of them: a build for each takes
//! longer than its tests. A run with no mutant notes which of them each test reaches; a mutant is run against those tests only, and
//! until the first that fails.

mod sites;
mod tests;
mod tree;
mod values;
mod weave;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use sites::Mutant;
use tests::{Bench, Outcome, Test};
use tree::Tree;

const USAGE: &str = "\
usage: .ci/mutate [OPTIONS] FILE...
  --list            says which mutants there are, and runs nothing
  --only N,N        these mutants only, by their numbers in the list
  --suites S,S      these suites only (lib,api,crash): lib, or programs of tests/
  --tests TEXT      tests with this in their names only
  --skip TEXT       no tests with this in their names; may come again
  --work DIRECTORY  where the tree is copied to and the results are written (in the directory for temporary files)";

#[derive(Default)]
struct Options {
    list: bool,
    only: Vec<u32>,
    suites: Vec<String>,
    tests: String,
    skip: Vec<String>,
    work: Option<PathBuf>,
    files: Vec<String>,
}

fn main() -> ExitCode {
    let Some(options) = parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::FAILURE;
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Options> {
    let words = |list: &str| list.split(',').map(str::to_owned).collect::<Vec<_>>();
    let mut options = Options { suites: words("lib,api,crash"), ..Options::default() };
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--list" => options.list = true,
            "--only" => {
                let numbers = words(&arguments.next()?);
                options.only = numbers.iter().map(|number| number.parse().ok()).collect::<Option<_>>()?;
            }
            "--suites" => options.suites = words(&arguments.next()?),
            "--tests" => options.tests = arguments.next()?,
            "--skip" => options.skip.push(arguments.next()?),
            "--work" => options.work = Some(arguments.next()?.into()),
            option if option.starts_with('-') => return None,
            _ => options.files.push(argument),
        }
    }
    (!options.files.is_empty()).then_some(options)
}

fn run(options: &Options) -> io::Result<()> {
    let work = options.work.clone().unwrap_or_else(|| std::env::temp_dir().join("anabranch-mutants"));
    fs::create_dir_all(&work)?;
    let mut tree = Tree::copy(&std::env::current_dir()?, &work.join("tree"), &options.files)?;
    if options.list {
        tree.mutants().iter().for_each(|mutant| println!("{}", shown(mutant)));
        return Ok(());
    }
    // What an earlier run found to be no code need not be built to be found again.
    let known = fs::read_to_string(work.join("no_code.txt")).unwrap_or_default();
    let known: BTreeSet<_> = known.lines().collect();
    let dropped = tree.mutants().into_iter().filter(|mutant| known.contains(shown(mutant).as_str()));
    tree.no_code = dropped.map(|mutant| mutant.number).collect();
    let names: Vec<_> = options.suites.iter().map(String::as_str).collect();
    let suites = tree.build(&names)?;
    // Most of what the tests take on a disk is waiting for it: TMPDIR may be in memory.
    let scratch = std::env::temp_dir().join(format!("anabranch-mutants-{}", std::process::id()));
    let bench = Bench { suites, scratch };
    let chosen = |mutant: &&Mutant| options.only.is_empty() || options.only.contains(&mutant.number);
    let (no_code, mut left): (Vec<_>, Vec<_>) =
        tree.mutants().into_iter().filter(chosen).partition(|mutant| tree.no_code.contains(&mutant.number));
    let mut lists =
        Lists::create(&work, tree.mutants().iter().filter(|mutant| tree.no_code.contains(&mutant.number)))?;
    let count = left.len();
    for suite in 0..bench.suites.len() {
        // Those that the first suite catches, nearly all, cost the others nothing.
        left = judge(&bench, suite, &left, options, &mut lists)?;
    }
    for mutant in &left {
        writeln!(lists.survived, "{}", shown(mutant))?;
    }
    println!("{} no code, {} caught, {} survived", no_code.len(), count - left.len(), left.len());
    Ok(())
}

/// Runs the tests of a suite against these mutants; gives those that none of them caught.
fn judge<'a>(
    bench: &Bench,
    suite: usize,
    mutants: &[&'a Mutant],
    options: &Options,
    lists: &mut Lists,
) -> io::Result<Vec<&'a Mutant>> {
    let tests = measure(bench, suite, options)?;
    let name = &bench.suites[suite].name;
    let mut left = Vec::new();
    for mutant in mutants {
        match bench.judge(mutant, &tests)? {
            Outcome::Caught(by) => writeln!(lists.caught, "{} [{by}]", shown(mutant))?,
            Outcome::Survived(reached) => {
                println!("survived {reached} tests of {name}: {}", shown(mutant));
                left.push(*mutant);
            }
        }
    }
    println!("{name}: {} caught, {} survived", mutants.len() - left.len(), left.len());
    Ok(left)
}

/// Runs each test of a suite by itself with no mutant.
fn measure(bench: &Bench, suite: usize, options: &Options) -> io::Result<Vec<Test>> {
    let wanted =
        |name: &str| name.contains(&options.tests) && !options.skip.iter().any(|skip| name.contains(skip));
    let mut tests = Vec::new();
    for name in bench.list(suite, &wanted)? {
        tests.extend(bench.measure(suite, &name)?);
    }
    let reaching = tests.iter().filter(|test| !test.reaches.is_empty()).count();
    let (name, took) = (&bench.suites[suite].name, tests.iter().map(|test| test.took).sum::<Duration>());
    println!("{name}: {} tests in {} s, {reaching} of them reach a mutant", tests.len(), took.as_secs());
    Ok(tests)
}

/// What became of the mutants, as far as is known.
struct Lists {
    caught: File,
    survived: File,
}

impl Lists {
    fn create<'a>(work: &Path, no_code: impl Iterator<Item = &'a &'a Mutant>) -> io::Result<Self> {
        let mut list = File::create(work.join("no_code.txt"))?;
        for mutant in no_code {
            writeln!(list, "{}", shown(mutant))?;
        }
        Ok(Self {
            caught: File::create(work.join("caught.txt"))?,
            survived: File::create(work.join("survived.txt"))?,
        })
    }
}

fn shown(mutant: &Mutant) -> String {
    let Mutant { number, file, line, column, function, change, .. } = mutant;
    format!("{number} {file}:{line}:{column} {function}: {change}")
}
