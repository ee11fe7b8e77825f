//! The test binary as its own child.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ExitStatus, Stdio};

use crate::{
    consumers, create, event_source, follow, groups, limits, lock, producers, queue, short, syscalls, writer,
};

const ROLE: &str = "ANABRANCH_CHILD";

/// A child process. It is killed when this is dropped, and ends by itself when the parent dies.
pub(crate) struct Process {
    child: Child,
    /// Open as long as this process lives. Kept apart from the child, whose `wait` would close it.
    _life: ChildStdin,
    log: PathBuf,
    is_dead: bool,
}

/// Starts this binary again as `role`, with arguments as environment variables.
pub(crate) fn start(role: &str, log: &Path, arguments: &[(&str, &dyn AsRef<std::ffi::OsStr>)]) -> Process {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child::role", "--nocapture", "--test-threads=1"]);
    command.env(ROLE, role).stdin(Stdio::piped());
    for (name, value) in arguments {
        command.env(name, value);
    }
    let output = File::create(log).unwrap();
    command.stdout(output.try_clone().unwrap()).stderr(output);
    let mut child = command.spawn().unwrap();
    let life = child.stdin.take().unwrap();
    Process { child, _life: life, log: log.to_path_buf(), is_dead: false }
}

impl Process {
    /// Kills it with SIGKILL, wherever it is. It must not have ended by itself.
    pub(crate) fn kill(mut self) {
        self.assert_runs();
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.is_dead = true;
    }

    pub(crate) fn assert_runs(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            self.is_dead = true;
            panic!("the child ended by itself with {status}:\n{}", self.output());
        }
    }

    /// Waits for its end, which must be a success.
    pub(crate) fn join(mut self) {
        let status: ExitStatus = self.child.wait().unwrap();
        self.is_dead = true;
        assert!(status.success(), "the child ended with {status}:\n{}", self.output());
    }

    fn output(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.is_dead {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// An argument of this child.
pub(crate) fn argument(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("the role needs {name}"))
}

/// What a child does. As a test of its own, nothing.
#[test]
fn role() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    std::thread::spawn(|| {
        let _ = io::stdin().read(&mut [0]);
        std::process::exit(0); // the parent is gone
    });
    // A panic ends the process, not one of its threads.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::exit(101);
    }));
    match role.as_str() {
        "writer" => writer::run(),
        "producer" => producers::run(),
        "worker" => groups::run(),
        "event_source" => event_source::run(),
        "open" => drop(writer::open()),
        "consumer" => consumers::run(),
        "queue" => queue::run(),
        "follower" => follow::run(),
        "try" => lock::try_to_open(),
        "hold" => lock::hold(),
        "create" => create::run(),
        "history" => syscalls::run(),
        "short" => short::run(),
        "limited" => limits::run(),
        "decode" => limits::decode(),
        other => panic!("no role {other}"),
    }
}
