//! The command among other processes: pipes, signals, a writer and its readers.

use std::io::{BufRead, BufReader, Read, Write};
use std::thread;

use serde_json::Value;

use crate::support::{Home, finish, interrupt, json_lines, numbers};

#[test]
fn a_second_writer_is_refused_and_readers_are_not() {
    let home = Home::with_stream(&[]);
    let mut put = home.spawn(&["put", "s", "--receipts"]);
    let mut stdin = put.stdin.take().unwrap();
    stdin.write_all(b"first\n").unwrap();
    let mut receipts = BufReader::new(put.stdout.take().unwrap());
    receipts.read_line(&mut String::new()).unwrap();

    let second = home.run(&["split", "s", "0"]);
    assert!(second.is_code(3) && second.stderr.contains("hint: another process writes"), "{second:?}");
    assert_eq!(home.ok(&["get", "s"]).stdout, b"first\n");
    home.ok(&["describe", "s"]);
    home.ok(&["verify", "s"]);
    drop(stdin);
    assert_eq!(finish(put).code, Some(0));
}

#[test]
fn a_closed_pipe_ends_a_command_quietly() {
    let home = Home::with_stream(&[]);
    let line = [b'x'; 999];
    let input: Vec<u8> = (0..1_000).flat_map(|_| [&line[..], b"\n"].concat()).collect();
    home.ok_with(&["put", "s"], &input);
    for arguments in [&["get", "s"][..], &["get", "s", "--json"], &["get", "s", "--follow", "--shard", "0"]] {
        let mut get = home.spawn(arguments);
        let mut stdout = get.stdout.take().unwrap();
        stdout.read_exact(&mut [0; 10]).unwrap();
        drop(stdout);
        let done = finish(get);
        assert!(done.is_code(0) && done.stderr.is_empty(), "{arguments:?} {done:?}");
    }
}

#[test]
fn what_an_interrupted_put_acknowledged_is_there() {
    let home = Home::with_stream(&["--shards", "2"]);
    let mut put = home.spawn(&["put", "s", "--receipts", "--batch", "50"]);
    let mut stdin = put.stdin.take().unwrap();
    let feeder = thread::spawn(move || {
        let mut number = 0_u64;
        // Ends when the command does: the pipe closes.
        while writeln!(stdin, "line {number}").is_ok() {
            number += 1;
        }
    });
    let mut stdout = BufReader::new(put.stdout.take().unwrap());
    let mut receipts = Vec::new();
    for _ in 0..500 {
        stdout.read_until(b'\n', &mut receipts).unwrap();
    }
    interrupt(&put);
    stdout.read_to_end(&mut receipts).unwrap();
    let done = finish(put);
    feeder.join().unwrap();

    let receipts = json_lines(&receipts);
    assert!(done.is_code(130), "{done:?}");
    assert!(done.stderr.starts_with("interrupted: put ") && done.stderr.lines().count() == 1, "{done:?}");
    assert!(receipts.len() >= 500);
    let records = json_lines(&home.ok(&["get", "s", "--json"]).stdout);
    let place = |value: &Value| (value["shardId"].to_string(), value["sequenceNumber"].as_u64());
    let mut acknowledged: Vec<_> = receipts.iter().map(place).collect();
    let mut stored: Vec<_> = records.iter().map(place).collect();
    acknowledged.sort();
    stored.sort();
    assert_eq!(acknowledged, stored);
    let verified: Value = serde_json::from_slice(&home.ok(&["verify", "s", "--json"]).stdout).unwrap();
    assert_eq!(verified["cleanClose"], true);
}

#[test]
fn an_idle_put_notices_ctrl_c() {
    let home = Home::with_stream(&[]);
    let mut put = home.spawn(&["put", "s", "--receipts"]);
    let mut stdin = put.stdin.take().unwrap();
    stdin.write_all(b"whole\nhalf").unwrap();
    // A partial batch does not wait for more input: this receipt comes while the input is open.
    let mut receipt = String::new();
    BufReader::new(put.stdout.take().unwrap()).read_line(&mut receipt).unwrap();
    assert_eq!(numbers(&json_lines(receipt.as_bytes())), [0]);
    interrupt(&put);
    let done = finish(put);
    assert!(done.is_code(130), "{done:?}");
    drop(stdin);
    assert_eq!(home.ok(&["get", "s"]).stdout, b"whole\n");
}

#[test]
fn following_sees_what_another_process_puts() {
    for arguments in [&["get", "s", "--follow"][..], &["get", "s", "--follow", "--shard", "0"]] {
        let home = Home::with_stream(&[]);
        home.ok_with(&["put", "s"], b"before\n");
        let mut get = home.spawn(arguments);
        let mut stdout = BufReader::new(get.stdout.take().unwrap());
        let mut next = || {
            let mut line = String::new();
            stdout.read_line(&mut line).unwrap();
            line
        };
        assert_eq!(next(), "before\n");
        home.ok_with(&["put", "s"], b"after\n");
        assert_eq!(next(), "after\n");
        home.ok_with(&["put", "s"], b"and again\n");
        assert_eq!(next(), "and again\n");
        interrupt(&get);
        let done = finish(get);
        assert!(done.is_code(0) && done.stderr.is_empty(), "{arguments:?} {done:?}");
    }
}

#[test]
fn following_goes_on_in_the_children() {
    let home = Home::with_stream(&[]);
    home.ok_with(&["put", "s"], b"parent\n");
    let get = home.spawn(&["get", "s", "--follow", "--limit", "3"]);
    let parent_only = home.spawn(&["get", "s", "--follow", "--shard", "0"]);
    home.ok(&["split", "s", "0"]);
    home.ok_with(&["put", "s", "--hash-key", "0"], b"child\n");
    home.ok_with(&["put", "s", "--hash-key", "340282366920938463463374607431768211455"], b"child\n");
    let done = finish(get);
    assert!(done.is_code(0), "{done:?}");
    assert_eq!(done.stdout, b"parent\nchild\nchild\n");
    let done = finish(parent_only);
    assert!(done.is_code(0), "{done:?}");
    assert_eq!(done.stdout, b"parent\n", "a closed shard ends the reading of that shard");
}
