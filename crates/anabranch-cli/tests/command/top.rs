//! `top`: one look as text and JSON, and the live view on a pseudo-terminal.

use std::fs;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

use crate::support::{Home, finish, lines, until};

#[test]
fn one_look_is_text_or_json() {
    let home = Home::with_stream(&["--shards", "2"]);
    home.ok_with(&["put", "s", "--key-field", "2"], &lines(0..50));
    let text = String::from_utf8(home.ok(&["top", "s", "--interval", "10ms"]).stdout).unwrap();
    assert!(text.contains("2 open, 0 closed shards; writes 0 records/s, 0 B/s"), "{text}");
    assert!(text.contains("50 records") && text.contains("synced, kept 24h"), "{text}");
    assert!(text.contains("SHARD  STATE") && !text.contains("CONSUMER"), "{text}");

    let figures: Value =
        serde_json::from_slice(&home.ok(&["top", "s", "--once", "--interval", "10ms", "--json"]).stdout).unwrap();
    assert_eq!((&figures["openShards"], &figures["records"]), (&2.into(), &50.into()));
    assert_eq!(figures["shards"][1]["shardId"], "shardId-000000000001");
    assert_eq!((&figures["recordsPerSecond"], &figures["consumers"]), (&0.0.into(), &Value::Array(Vec::new())));

    for wrong in [&["top", "nowhere"][..], &["top", "s", "--interval", "1ms"]] {
        assert!(home.run(wrong).is_code(2), "{wrong:?}");
    }
}

/// The command on a terminal of 80 columns and 24 lines, by `script` of util-linux; nothing where that is not there.
struct OnTerminal {
    script: Option<Child>,
    seen: Arc<Mutex<String>>,
}

impl OnTerminal {
    fn start(home: &Home, arguments: &str) -> Option<Self> {
        let version = Command::new("script").arg("--version").output().ok()?;
        if !String::from_utf8_lossy(&version.stdout).contains("util-linux") {
            return None;
        }
        let command = format!("stty rows 24 cols 80; exec {} {arguments}", env!("CARGO_BIN_EXE_anabranch"));
        let mut script = Command::new("script")
            .args(["-qec", &command, "/dev/null"])
            .current_dir(home.path("."))
            .env("TERM", "xterm")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .ok()?;
        let mut stdout = script.stdout.take()?;
        let seen = Arc::new(Mutex::new(String::new()));
        let sink = Arc::clone(&seen);
        thread::spawn(move || {
            let mut chunk = [0; 4_096];
            while let Ok(length @ 1..) = stdout.read(&mut chunk) {
                sink.lock().unwrap().push_str(&String::from_utf8_lossy(&chunk[..length]));
            }
        });
        Some(Self { script: Some(script), seen })
    }

    fn until_seen(&self, text: &str) {
        until(text, || self.seen.lock().unwrap().contains(text));
    }

    fn press(&mut self, keys: &str) {
        let script = self.script.as_mut().unwrap();
        script.stdin.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }
}

impl Drop for OnTerminal {
    /// A test that failed leaves nothing running: the terminal goes away, and with it who uses it.
    fn drop(&mut self) {
        if let Some(script) = &mut self.script {
            let _ = script.kill().and_then(|()| script.wait());
        }
    }
}

#[test]
fn the_live_view_follows_the_stream_to_its_end_and_gives_the_terminal_back() {
    let home = Home::with_stream(&[]);
    home.ok_with(&["put", "s"], &lines(0..7));
    let Some(mut top) = OnTerminal::start(&home, "top s --interval 20ms") else {
        println!("skipped: there is no `script` of util-linux");
        return;
    };
    // Words only: a terminal is not sent the spaces that it has.
    top.until_seen("synced");
    top.press("\tss");
    home.ok(&["split", "s", "0"]);
    top.until_seen("closed");
    fs::rename(home.path("s"), home.path("elsewhere")).unwrap();
    top.until_seen("there is no stream");
    home.ok_with(&["put", "elsewhere"], &lines(0..1_227));
    fs::rename(home.path("elsewhere"), home.path("s")).unwrap();
    top.until_seen("1,234");
    top.press("q");
    let seen = Arc::clone(&top.seen);
    let done = finish(top.script.take().unwrap());
    assert!(done.is_code(0), "{done:?}");
    let seen = seen.lock().unwrap();
    assert!(seen.contains("\u{1b}[?1049h") && seen.contains("\u{1b}[?1049l"), "the terminal is as it was");
}
