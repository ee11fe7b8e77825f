//! Runs the tests: once each with no mutant, to see which mutants it reaches and how long it takes, and then against mutants.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::sites::Mutant;
use crate::tree::Suite;

/// A test that takes so many times what it takes without a mutant has noticed it.
const TIMES: u32 = 5;
/// However short it is: others may use the machine.
const SHORTEST: Duration = Duration::from_secs(20);
/// A test that takes longer without a mutant waits for something that does not come.
const LONGEST: Duration = Duration::from_secs(900);

/// A test, and what was seen of it without a mutant.
pub struct Test {
    pub suite: usize,
    pub name: String,
    pub took: Duration,
    pub reaches: BTreeSet<u32>,
}

/// What became of a mutant.
pub enum Outcome {
    Caught(String),
    /// By so many tests that reached it.
    Survived(usize),
}

pub struct Bench {
    pub suites: Vec<Suite>,
    /// For what the tests leave behind.
    pub scratch: PathBuf,
}

/// How a run of tests ended.
enum Ended {
    Passed,
    Failed(String),
}

impl Bench {
    /// All tests of a suite, but for those that were not asked for.
    pub fn list(&self, suite: usize, wanted: &dyn Fn(&str) -> bool) -> io::Result<Vec<String>> {
        let names = |more: &[&str]| -> io::Result<Vec<String>> {
            let mut command = Command::new(&self.suites[suite].program);
            let output = command.args(["--list", "--format=terse"]).args(more).output()?;
            let output = String::from_utf8_lossy(&output.stdout).into_owned();
            Ok(output.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
        };
        let ignored: BTreeSet<_> = names(&["--ignored"])?.into_iter().collect();
        Ok(names(&[])?.into_iter().filter(|name| !ignored.contains(name) && wanted(name)).collect())
    }

    /// Runs a test by itself with no mutant; nothing where it fails then.
    pub fn measure(&self, suite: usize, name: &str) -> io::Result<Option<Test>> {
        let notes = self.scratch.with_extension("reached");
        fs::write(&notes, "")?;
        let begin = Instant::now();
        let ended =
            self.run(suite, &[name], LONGEST, &[("ANABRANCH_MUTANTS_REACHED", notes.display().to_string())])?;
        if let Ended::Failed(how) = ended {
            println!("left out, since it fails without a mutant: {name} ({how})");
            return Ok(None);
        }
        let reaches = fs::read_to_string(&notes)?.lines().filter_map(|line| line.parse().ok()).collect();
        Ok(Some(Test { suite, name: name.to_owned(), took: begin.elapsed(), reaches }))
    }

    /// Runs the tests of a suite that reach a mutant against it: those of its own module first, then the short ones.
    pub fn judge(&self, mutant: &Mutant, tests: &[Test]) -> io::Result<Outcome> {
        let module = mutant.file.trim_start_matches("src/").trim_end_matches(".rs").replace('/', "::");
        let own = |test: &Test| self.suites[test.suite].name == "lib" && test.name.starts_with(&module);
        let mut reaching: Vec<_> = tests.iter().filter(|test| test.reaches.contains(&mutant.number)).collect();
        reaching.sort_by_key(|test| (!own(test), test.took));
        for group in reaching.chunk_by(|a, b| own(a) == own(b)) {
            let names: Vec<_> = group.iter().map(|test| test.name.as_str()).collect();
            let took: Duration = group.iter().map(|test| test.took).sum();
            let chosen = [("ANABRANCH_MUTANT", mutant.number.to_string())];
            let limit = (took * TIMES).max(SHORTEST);
            if let Ended::Failed(how) = self.run(group[0].suite, &names, limit, &chosen)? {
                return Ok(Outcome::Caught(format!("{}: {how}", self.suites[group[0].suite].name)));
            }
        }
        Ok(Outcome::Survived(reaching.len()))
    }

    /// Until the first of them fails. A mutant may want all memory and all room there is: it gets some.
    fn run(&self, suite: usize, names: &[&str], limit: Duration, set: &[(&str, String)]) -> io::Result<Ended> {
        let suite = &self.suites[suite];
        let scratch = Scratch::make(&self.scratch)?;
        let mut command = Command::new("bash");
        command.args(["-c", "ulimit -v 12000000 -f 8000000 -c 0; exec \"$0\" \"$@\""]).arg(&suite.program);
        command.args(["--exact", "--test-threads=1"]).args(names).current_dir(&suite.directory);
        command.env("CARGO_MANIFEST_DIR", &suite.directory).env("TMPDIR", scratch.0).env("RUST_BACKTRACE", "0");
        command.envs(set.iter().map(|(name, value)| (name, value)));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).stdin(Stdio::null()).spawn()?;
        let (says, heard) = mpsc::channel();
        if let Some(output) = child.stdout.take() {
            thread::spawn(move || {
                let lines = BufReader::new(output).lines().map_while(Result::ok);
                lines.map_while(|line| says.send(line).ok()).for_each(drop);
            });
        }
        let until = Instant::now() + limit;
        let mut running = String::new(); // the test whose end has not been told
        let ended = loop {
            match heard.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) if line.ends_with("... FAILED") => {
                    break Ended::Failed(
                        line.trim_start_matches("test ").trim_end_matches(" ... FAILED").to_owned(),
                    );
                }
                Ok(line) => running = line,
                Err(RecvTimeoutError::Timeout) => {
                    break Ended::Failed(format!("not over in time, behind {running}"));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let status = child.wait()?;
                    break if status.success() {
                        Ended::Passed
                    } else {
                        Ended::Failed(format!("{status}, behind {running}"))
                    };
                }
            }
        };
        let _ = child.kill(); // it may be over
        child.wait()?;
        Ok(ended)
    }
}

/// A directory that goes with all that is left in it.
struct Scratch<'a>(&'a Path);

impl<'a> Scratch<'a> {
    fn make(path: &'a Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.0); // what cannot go is in nobody's way
    }
}
