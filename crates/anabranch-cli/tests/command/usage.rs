//! The command line itself, `get`'s places, and `bench`.

use std::fs;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Home, finish, interrupt, json_lines, text, until};

#[test]
fn reading_starts_where_it_is_told_to() {
    let home = Home::with_stream(&[]);
    home.ok_with(&["put", "s"], b"a\nb\n");
    thread::sleep(Duration::from_millis(5)); // so that the second half has an arrival of its own
    home.ok_with(&["put", "s"], b"c\nd\n");
    let records = json_lines(&home.ok(&["get", "s", "--json"]).stdout);
    let time = format!("time:{}", text(&records[2]["arrival"]));

    let got = |arguments: &[&str]| {
        let all = [&["get", "s"], arguments].concat();
        String::from_utf8(home.ok(&all).stdout).unwrap()
    };
    assert_eq!(got(&["--shard", "0", "--from", "at:1"]), "b\nc\nd\n");
    assert_eq!(got(&["--shard", "shardId-000000000000", "--from", "after:1"]), "c\nd\n");
    assert_eq!(got(&["--from", &time]), "c\nd\n");
    assert_eq!(got(&["--shard", "0", "--from", &time]), "c\nd\n");
    assert_eq!(got(&["--from", "latest"]), "");
    assert_eq!(got(&["--limit", "3"]), "a\nb\nc\n");
    assert_eq!(got(&["--shard", "0", "-n", "1"]), "a\n");
}

#[test]
fn wrong_use_is_exit_code_2() {
    let home = Home::with_stream(&[]);
    for arguments in [
        &[][..],
        &["frobnicate"],
        &["get"],
        &["get", "s", "--from", "at:0"],
        &["get", "s", "--from", "after:0", "--shard", "0", "--shard", "0"],
        &["get", "s", "--from", "sometime"],
        &["get", "s", "--shard", "7"],
        &["get", "nowhere"],
        &["put", "nowhere"],
        &["verify", "nowhere"],
        &["describe", "nowhere"],
        &["put", "s", "--key", "a", "--key-field", "1"],
        &["put", "s", "--key", ""],
        &["put", "s", "--key-regex", "("],
        &["put", "s", "--delimiter", ","],
        &["create", "t", "--segment-bytes", "many"],
        &["create", "t", "--shards", "0"],
        &["split", "s", "9"],
        &["trim", "s", "--before", "4"],
    ] {
        let done = home.run(arguments);
        assert!(done.is_code(2), "{arguments:?} {done:?}");
        assert!(done.stdout.is_empty() && !done.stderr.is_empty(), "{arguments:?} {done:?}");
    }
    assert!(!home.path("nowhere").exists() && !home.path("t").exists());
}

#[test]
fn bench_measures_and_leaves_nothing() {
    let home = Home::new();
    fs::create_dir(home.path("disk")).unwrap();
    let bench = |more: &[&str]| {
        home.ok(&[&["bench", "disk", "--records", "2000", "--durability", "buffered"], more].concat())
    };
    let table = String::from_utf8(bench(&["--threads", "3", "--shards", "2"]).stdout).unwrap();
    assert!(table.contains("write") && table.contains("2,000") && table.contains("put latency"), "{table}");
    let report: Value =
        serde_json::from_slice(&bench(&["--json", "--batch", "1", "--size", "1KiB"]).stdout).unwrap();
    assert_eq!(report["read"]["records"], 2_000);
    assert_eq!(report["read"]["bytes"], 2_000 << 10);
    assert_eq!(fs::read_dir(home.path("disk")).unwrap().count(), 0);

    let endless = home.spawn(&["bench", "disk", "--records", "1000000000000", "--durability", "buffered"]);
    until("the stream is there", || fs::read_dir(home.path("disk")).unwrap().count() == 1);
    interrupt(&endless);
    assert_eq!(finish(endless).code, Some(130));
    assert_eq!(fs::read_dir(home.path("disk")).unwrap().count(), 0);
}

#[test]
fn shells_get_their_completions() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = String::from_utf8(home.ok(&["completions", shell]).stdout).unwrap();
        assert!(script.contains("anabranch") && script.contains("retention"), "{shell}");
    }
    assert_eq!(home.run(&["completions", "cobol"]).code, Some(2));
}

#[test]
fn help_documents_the_exit_codes() {
    let help = String::from_utf8(Home::new().ok(&["--help"]).stdout).unwrap();
    for code in ["  0    fine", "  1    damage", "  2    wrong use", "  3    refused", "  130  interrupted"] {
        assert!(help.contains(code), "{help}");
    }
}
