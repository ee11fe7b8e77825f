//! Running the binary: a home directory for each test, deadlines on everything that waits.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Far above what anything here takes, so that only a hang fails by it.
const DEADLINE: Duration = Duration::from_secs(60);

/// What a finished command left.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Done {
    pub(crate) fn is_code(&self, code: i32) -> bool {
        self.code == Some(code) && !self.stderr.contains("panicked")
    }
}

/// A directory in which commands run, so that a stream's name is its path.
pub(crate) struct Home(TempDir);

impl Home {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// With a stream `s` made with these options.
    pub(crate) fn with_stream(options: &[&str]) -> Self {
        let home = Self::new();
        home.ok(&[&["create", "s"], options].concat());
        home
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn spawn(&self, arguments: &[&str]) -> Child {
        self.spawn_with(arguments, &[])
    }

    /// With variables in its environment.
    pub(crate) fn spawn_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Child {
        Command::new(env!("CARGO_BIN_EXE_anabranch"))
            .args(arguments)
            .envs(variables.iter().copied())
            .current_dir(self.0.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    pub(crate) fn run_with(&self, arguments: &[&str], input: &[u8]) -> Done {
        let mut child = self.spawn(arguments);
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        // A command that refuses its input closes it before its end.
        let feeder = thread::spawn(move || stdin.write_all(&input).is_ok());
        let done = finish(child);
        feeder.join().unwrap();
        done
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Done {
        self.run_with(arguments, b"")
    }

    /// Runs a command that has to succeed.
    pub(crate) fn ok_with(&self, arguments: &[&str], input: &[u8]) -> Done {
        let done = self.run_with(arguments, input);
        assert!(done.is_code(0), "{arguments:?} {done:?}");
        done
    }

    pub(crate) fn ok(&self, arguments: &[&str]) -> Done {
        self.ok_with(arguments, b"")
    }

    /// In the middle of the records of the first shard of `s`; the header of a segment is 128 bytes.
    pub(crate) fn flip_a_byte_of_a_segment(&self) {
        let shard = self.path("s/shards/000000000000");
        let segments = fs::read_dir(shard).unwrap().map(|entry| entry.unwrap().path());
        let mut segments: Vec<_> = segments.filter(|path| path.extension() == Some(OsStr::new("seg"))).collect();
        segments.sort();
        let mut bytes = fs::read(&segments[0]).unwrap();
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        bytes[128 + (used - 128) / 3] ^= 0x10;
        fs::write(&segments[0], bytes).unwrap();
    }
}

/// Waits for a command's end and takes what is left of its output.
pub(crate) fn finish(mut child: Child) -> Done {
    drop(child.stdin.take());
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let deadline = Instant::now() + DEADLINE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("the command hangs");
        }
        thread::sleep(Duration::from_millis(2));
    };
    Done {
        code: status.code(),
        stdout: stdout.join().unwrap(),
        stderr: String::from_utf8(stderr.join().unwrap()).unwrap(),
    }
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut bytes).unwrap();
        }
        bytes
    })
}

/// Ctrl-C.
pub(crate) fn interrupt(child: &Child) {
    let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

/// Polls until a condition holds.
pub(crate) fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) fn json_lines(bytes: &[u8]) -> Vec<Value> {
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
}

pub(crate) fn numbers(values: &[Value]) -> Vec<u64> {
    values.iter().map(|value| value["sequenceNumber"].as_u64().unwrap()).collect()
}

/// `line N` for each number.
pub(crate) fn lines(range: Range<u32>) -> Vec<u8> {
    range.flat_map(|number| format!("line {number}\n").into_bytes()).collect()
}

/// A string of JSON.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}
