//! `tail`: files that grow, are rotated, copied, cut off and deleted.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Child;
use std::thread;
use std::time::Duration;

use anabranch::{PutEntry, Stream};
use serde_json::Value;

use crate::support::{Done, Home, finish, interrupt, json_lines, lines, text, until};

const QUICK: [&str; 6] = ["--into", "s", "--poll", "5ms", "--idle", "250ms"];

impl Home {
    fn append(&self, name: &str, content: impl AsRef<[u8]>) {
        let file = OpenOptions::new().create(true).append(true).open(self.path(name));
        file.unwrap().write_all(content.as_ref()).unwrap();
    }

    fn records(&self) -> Vec<String> {
        let records = json_lines(&self.ok(&["get", "s", "--json"]).stdout);
        records.iter().map(|record| text(&record["data"]).to_owned()).collect()
    }

    /// An agent at work, which begins at the starts of files.
    fn agent(&self, arguments: &[&str]) -> Child {
        self.spawn(&[&["tail"], arguments, &QUICK[..], &["--from", "start", "--key", "k"]].concat())
    }

    /// Everything that is there now, with one partition key, so that order shows.
    fn once(&self, arguments: &[&str]) -> Done {
        self.ok(&[&["tail", "--once", "--into", "s", "--key", "k"], arguments].concat())
    }

    fn until_records(&self, expected: &[&str]) {
        until(&format!("{expected:?}"), || self.records().len() >= expected.len());
        assert_eq!(self.records(), expected);
    }
}

fn stop(agent: Child) -> Done {
    interrupt(&agent);
    let done = finish(agent);
    assert!(done.is_code(0), "{done:?}");
    done
}

fn producers(home: &Home) -> Vec<Value> {
    let listed: Value = serde_json::from_slice(&home.ok(&["producers", "s", "--json"]).stdout).unwrap();
    listed.as_array().unwrap().clone()
}

#[test]
fn lines_are_put_as_they_are_completed_and_the_next_run_goes_on() {
    let home = Home::with_stream(&[]);
    home.append("app.log", "one\ntw");
    let agent = home.agent(&["app.log"]);
    home.until_records(&["one"]);
    home.append("app.log", "o\nthree\nfo");
    home.until_records(&["one", "two", "three"]);
    let done = stop(agent);
    assert!(done.stderr.contains("put 3 records"), "{done:?}");

    home.append("app.log", "ur\n");
    let agent = home.agent(&["app.log"]);
    home.until_records(&["one", "two", "three", "four"]);
    let second = home.run(&["tail", "app.log", "--into", "s"]);
    assert!(second.is_code(3) && second.stderr.contains("locked"), "{second:?}");
    stop(agent);
    let summary = home.once(&["app.log", "--json"]);
    let summary = json_lines(&summary.stdout).remove(0);
    assert_eq!((&summary["records"], &summary["files"]), (&0.into(), &1.into()), "{summary}");
    assert_eq!(summary["complete"], true);
}

#[test]
fn a_first_run_begins_with_the_line_that_is_being_written() {
    let home = Home::with_stream(&[]);
    home.append("old.log", "before\nha");
    let agent = home.spawn(&[&["tail", "*.log", "--key", "k"], &QUICK[..]].concat());
    until("the registry is there", || home.path("s.agent/registry").exists());
    home.append("old.log", "lf\n");
    home.until_records(&["half"]);
    home.append("new.log", "first\n");
    home.until_records(&["half", "first"]);
    stop(agent);
    home.append("later.log", "from its start\n");
    let agent = home.spawn(&[&["tail", "*.log", "--key", "k"], &QUICK[..]].concat());
    home.until_records(&["half", "first", "from its start"]);
    stop(agent);
}

#[test]
fn a_renamed_file_is_read_to_its_end_before_its_successor() {
    for pattern in ["app.log", "app.log*"] {
        let home = Home::with_stream(&[]);
        let mut writer = File::create(home.path("app.log")).unwrap();
        writeln!(writer, "one").unwrap();
        let agent = home.agent(&[pattern]);
        home.until_records(&["one"]);
        // Quiet for longer than --idle: what counts is the time since it was renamed.
        thread::sleep(Duration::from_millis(300));
        fs::rename(home.path("app.log"), home.path("app.log.1")).unwrap();
        thread::sleep(Duration::from_millis(20));
        write!(writer, "two\nthree").unwrap();
        home.append("app.log", "new one\n");
        // The last line of a rotated file counts without its end, once nobody has written for a while.
        home.until_records(&["one", "two", "three", "new one"]);
        stop(agent);
        home.once(&[pattern]);
        assert_eq!(home.records().len(), 4);
    }
}

#[test]
fn files_that_were_rotated_while_nobody_looked_go_on_where_they_were() {
    let home = Home::with_stream(&[]);
    home.append("app.log", lines(0..3));
    home.once(&["app.log*"]);
    home.append("app.log", lines(3..5));
    fs::rename(home.path("app.log"), home.path("app.log.2")).unwrap();
    home.append("app.log.1", lines(5..7));
    home.append("app.log", lines(7..9));
    home.once(&["app.log*"]);
    let expected: Vec<_> = (0..9).map(|number| format!("line {number}")).collect();
    assert_eq!(home.records(), expected);
}

/// What logrotate's `copytruncate` does.
fn copy_and_cut_off(home: &Home, name: &str, copy: &str) {
    fs::copy(home.path(name), home.path(copy)).unwrap();
    OpenOptions::new().write(true).open(home.path(name)).unwrap().set_len(0).unwrap();
}

#[test]
fn a_file_that_is_cut_off_goes_on_in_its_copy() {
    for long in ["", &"x".repeat(2_000)] {
        let home = Home::with_stream(&[]);
        let (first, new) = (format!("one{long}"), format!("new{long}"));
        home.append("app.log", format!("{first}\n"));
        home.once(&["app.log*"]);
        home.append("app.log", "two\n");
        copy_and_cut_off(&home, "app.log", "app.log.1");
        home.append("app.log", format!("{new}\n"));
        home.once(&["app.log*"]);
        assert_eq!(home.records(), [&first, "two", &new]);

        let agent = home.agent(&["app.log*"]);
        home.append("app.log", "and more\n");
        home.until_records(&[&first, "two", &new, "and more"]);
        fs::rename(home.path("app.log.1"), home.path("app.log.2")).unwrap();
        copy_and_cut_off(&home, "app.log", "app.log.1");
        home.append("app.log", "last\n");
        home.until_records(&[&first, "two", &new, "and more", "last"]);
        stop(agent);
        home.once(&["app.log*"]);
        assert_eq!(home.records().len(), 5);
    }
}

#[test]
fn a_copy_that_is_older_than_what_was_put_is_not_put_again() {
    for long in ["", &"x".repeat(2_000)] {
        let home = Home::with_stream(&[]);
        let cut_off = || OpenOptions::new().write(true).open(home.path("app.log")).unwrap().set_len(0).unwrap();
        let first = format!("one{long}");
        home.append("app.log", format!("{first}\n"));
        // A short copy would be a file of its own after --idle.
        let options = ["--into", "s", "--poll", "5ms", "--idle", "1h", "--from", "start", "--key", "k"];
        let agent = home.spawn(&[&["tail", "app.log*"], &options[..]].concat());
        home.until_records(&[&first]);
        fs::copy(home.path("app.log"), home.path("app.log.1")).unwrap();
        // Between the copy and the cut.
        home.append("app.log", "two\n");
        home.until_records(&[&first, "two"]);
        cut_off();
        home.append("app.log", "three\n");
        home.until_records(&[&first, "two", "three"]);
        stop(agent);
        home.once(&["app.log*"]);
        assert_eq!(home.records().len(), 3);
    }
}

#[test]
fn a_file_that_lost_its_end_in_a_power_cut_is_not_put_again() {
    let home = Home::with_stream(&[]);
    let first = "x".repeat(2_000);
    home.append("app.log", format!("{first}\none\ntwo\n"));
    home.once(&["app.log"]);
    let file = OpenOptions::new().write(true).open(home.path("app.log")).unwrap();
    file.set_len(2_001 + 4).unwrap();
    let done = home.once(&["app.log"]);
    assert!(done.stderr.contains("app.log: shorter than when it was read"), "{done:?}");
    assert_eq!(home.records(), [&first, "one", "two"]);
    home.append("app.log", "new\n");
    home.once(&["app.log"]);
    assert_eq!(home.records(), [&first, "one", "two", "new"]);
}

#[test]
fn a_file_that_is_cut_off_without_a_copy_begins_anew() {
    let home = Home::with_stream(&[]);
    home.append("app.log", "same\none\n");
    let agent = home.agent(&["app.log"]);
    home.until_records(&["same", "one"]);
    File::create(home.path("app.log")).unwrap();
    home.append("app.log", "same\nother and longer\n");
    home.until_records(&["same", "one", "same", "other and longer"]);
    until("its first producer is deleted", || producers(&home).len() == 1);
    home.append("app.log", "more\n");
    home.until_records(&["same", "one", "same", "other and longer", "more"]);
    stop(agent);

    // The same between two runs.
    File::create(home.path("app.log")).unwrap();
    home.append("app.log", "third\n");
    home.once(&["app.log"]);
    assert_eq!(home.records().last().unwrap(), "third");

    // A record without a key is named by its place.
    home.append("app.log", "unread\n");
    let agent = home.spawn(&[&["tail", "app.log", "--key-field", "9"], &QUICK[..]].concat());
    let done = finish(agent);
    assert!(done.is_code(3), "{done:?}");
    assert!(done.stderr.contains("app.log: the record at byte 6: the line has too few fields"), "{done:?}");
}

#[test]
fn a_short_file_is_known_by_all_that_was_read_of_it() {
    let home = Home::with_stream(&[]);
    for (content, expected) in [("same\n", 1), ("one\n", 2)] {
        home.append("app.log", content);
        home.once(&["app.log"]);
        assert_eq!(home.records().len(), expected);
    }
    // Longer than before, and it begins as it did at first sight: the line that was read then tells.
    fs::write(home.path("app.log"), "same\ntwo\nthree\n").unwrap();
    home.once(&["app.log"]);
    assert_eq!(home.records(), ["same", "one", "same", "two", "three"]);
}

#[test]
fn short_files_that_begin_alike_are_different_files_and_long_ones_are_copies() {
    let home = Home::with_stream(&[]);
    home.append("a.log", "starting\n");
    let agent = home.agent(&["*.log"]);
    home.until_records(&["starting"]);
    home.append("b.log", "starting\n");
    home.until_records(&["starting", "starting"]);
    home.append("c.log", "starting too\n");
    home.until_records(&["starting", "starting", "starting too"]);
    let long = format!("{}\n", "x".repeat(1_500));
    home.append("d.log", &long);
    until("it is put", || home.records().len() == 4);
    fs::copy(home.path("d.log"), home.path("e.log")).unwrap();
    home.append("f.log", "end\n");
    until("the rest is put", || home.records().len() == 5);
    // Longer than what it begins like: no copy of it.
    fs::write(home.path("g.log"), format!("{long}and more\n")).unwrap();
    until("it is put as well", || home.records().len() == 7);
    stop(agent);
    let done = home.once(&["*.log"]);
    assert!(done.stderr.contains("e.log: not read: it begins like d.log"), "{done:?}");
    assert_eq!(home.records().len(), 7);
}

#[test]
fn a_short_file_that_grows_from_run_to_run() {
    let home = Home::with_stream(&[]);
    let mut expected = Vec::new();
    for number in 0..12 {
        let line = format!("{number} {}", "x".repeat(150));
        home.append("app.log", format!("{line}\n"));
        expected.push(line);
        home.once(&["*.log"]);
        assert_eq!(home.records(), expected);
    }
}

#[test]
fn files_that_are_deleted_leave_nothing_behind() {
    let home = Home::with_stream(&[]);
    home.append("a.log", "one\n");
    home.append("b.log", "two\n");
    let agent = home.agent(&["*.log"]);
    until("both are put", || home.records().len() == 2);
    assert_eq!(producers(&home).len(), 2);
    let mut writer = OpenOptions::new().append(true).open(home.path("a.log")).unwrap();
    fs::remove_file(home.path("a.log")).unwrap();
    writeln!(writer, "after its end").unwrap();
    until("what was written to the deleted file", || home.records().len() == 3);
    until("its producer is deleted", || producers(&home).len() == 1);
    stop(agent);
    let registry = fs::read_to_string(home.path("s.agent/registry")).unwrap();
    assert!(!registry.contains("a.log") && registry.contains("b.log"), "{registry}");
}

#[test]
fn what_is_no_readable_file_is_told_and_passed_over() {
    let home = Home::with_stream(&[]);
    fs::create_dir(home.path("dir.log")).unwrap();
    home.append("fine.log", "fine\n");
    home.append("secret.log", "secret\n");
    fs::set_permissions(home.path("secret.log"), fs::Permissions::from_mode(0o000)).unwrap();
    let is_root = File::open(home.path("secret.log")).is_ok();
    let done = home.run(&["tail", "*.log", "--once", "--into", "s", "--key", "k"]);
    if is_root {
        println!("skipped: for root every file is readable");
        return;
    }
    assert!(done.is_code(3), "{done:?}");
    assert!(done.stderr.contains("secret.log: "), "{done:?}");
    assert_eq!(home.records(), ["fine"]);
    fs::set_permissions(home.path("secret.log"), fs::Permissions::from_mode(0o600)).unwrap();
    home.once(&["*.log"]);
    assert_eq!(home.records(), ["fine", "secret"]);
}

#[test]
fn once_is_no_success_without_a_file_that_was_named() {
    let home = Home::with_stream(&[]);
    home.append("a.log", "one\n");
    let done = home.run(&["tail", "a.log", "b.log", "--into", "s", "--once"]);
    assert!(done.is_code(3) && done.stderr.contains("b.log: "), "{done:?}");
    assert_eq!(home.records(), ["one"], "the others are put");
    home.once(&["a.log", "c*.log"]);
}

#[test]
fn the_streams_own_files_are_not_followed() {
    let home = Home::with_stream(&[]);
    home.append("app.log", "one\n");
    home.once(&["**/*"]);
    home.append("app.log", "two\n");
    home.once(&["**/*"]);
    assert_eq!(home.records(), ["one", "two"]);
}

#[test]
fn lines_that_belong_together_are_one_record() {
    let home = Home::with_stream(&[]);
    home.append("app.log", "ERR a\n  at x\nERR b\n  at y\n");
    let agent = home.agent(&["app.log", "--start-pattern", "^ERR", "--single-line"]);
    home.until_records(&["ERR a   at x", "ERR b   at y"]);
    home.append("app.log", "ERR c\n");
    home.until_records(&["ERR a   at x", "ERR b   at y", "ERR c"]);
    stop(agent);
}

#[test]
fn records_become_json() {
    for (options, content, expected) in [
        (
            &["--format", "csv", "--fields", "id,name", "--skip-header", "1"][..],
            "number,called\n1,ann\n2,\"b, c\"\n",
            &[r#"{"id":"1","name":"ann"}"#, r#"{"id":"2","name":"b, c"}"#][..],
        ),
        (
            &["--format", "syslog", "--unmatched", "drop"],
            "Oct  1 22:14:15 box cron[7]: run\nnothing\n",
            &[
                r#"{"priority":null,"timestamp":"Oct  1 22:14:15","hostname":"box","program":"cron","processid":"7","message":"run"}"#,
            ],
        ),
        (
            &["--format", "regex", "--pattern", "^(?P<level>[A-Z]+) (?P<rest>.*)$", "--unmatched", "raw"],
            "INFO x\nnothing\n",
            &[r#"{"level":"INFO","rest":"x"}"#, "nothing"],
        ),
        (&["--format", "common"], "nothing\n", &[r#"{"message":"nothing"}"#]),
    ] {
        let home = Home::with_stream(&[]);
        home.append("app.log", content);
        let done = home.once(&[&["app.log"], options].concat());
        assert_eq!(home.records(), expected, "{options:?}");
        assert_eq!(done.stderr.contains("unmatched 1"), content.contains("nothing"), "{done:?}");
    }
}

#[test]
fn a_header_is_left_out_of_every_file_even_if_it_comes_bit_by_bit() {
    let home = Home::with_stream(&[]);
    let agent = home.agent(&["*.csv", "--skip-header", "2"]);
    home.append("a.csv", "head");
    home.append("b.csv", "title\nheader\nb1\n");
    home.until_records(&["b1"]);
    home.append("a.csv", "\n");
    home.append("b.csv", "b2\n");
    home.until_records(&["b1", "b2"]);
    home.append("a.csv", "er\na1\n");
    home.until_records(&["b1", "b2", "a1"]);
    stop(agent);
    home.append("a.csv", "a2\n");
    home.once(&["*.csv", "--skip-header", "2"]);
    assert_eq!(home.records(), ["b1", "b2", "a1", "a2"]);
}

#[test]
fn records_beyond_the_limit_are_cut_into_pieces_or_stop_the_agent() {
    let home = Home::with_stream(&["--max-data-bytes", "1KiB"]);
    let long = "x".repeat(2_500);
    home.append("app.log", format!("fits\n{long}\nafter\n"));
    let stopped = home.run(&["tail", "app.log", "--into", "s", "--once", "--key", "k", "--oversize", "stop"]);
    assert!(stopped.is_code(3) && stopped.stderr.contains("app.log: the record at byte 5"), "{stopped:?}");
    assert_eq!(home.records(), ["fits"]);
    let done = home.once(&["app.log"]);
    assert!(done.stderr.contains("pieces 3"), "{done:?}");
    assert_eq!(home.records(), ["fits", &long[..1_024], &long[..1_024], &long[..452], "after"]);
}

#[test]
fn a_registry_that_cannot_be_trusted_stops_the_agent() {
    let home = Home::with_stream(&[]);
    home.append("app.log", "one\n");
    home.once(&["app.log"]);
    let registry = home.path("s.agent/registry");
    let sound = fs::read(&registry).unwrap();
    for damaged in [&sound[..sound.len() / 2], b"", b"{}\n", &[&sound[..], b"\n"].concat()] {
        fs::write(&registry, damaged).unwrap();
        let done = home.run(&["tail", "app.log", "--into", "s", "--once"]);
        assert!(done.is_code(3) && done.stderr.contains("s.agent: "), "{done:?}");
        assert_eq!(fs::read(&registry).unwrap(), damaged, "it is left as it is");
    }
    fs::write(&registry, &sound).unwrap();
    home.once(&["app.log"]);
    assert_eq!(home.records(), ["one"]);

    home.ok(&["create", "t"]);
    let done = home.run(&["tail", "app.log", "--into", "t", "--state", "s.agent"]);
    assert!(done.is_code(3) && done.stderr.contains("it is of the stream with id"), "{done:?}");
}

/// The number of the batch that is made of these bytes.
fn number(start: usize, end: usize) -> u64 {
    (end as u64) << 24 | (end - start) as u64
}

#[test]
fn a_batch_that_is_there_in_part_is_completed() {
    let home = Home::with_stream(&["--shards", "2"]);
    let options = ["--into", "s", "--once", "--key-field", "1"];
    home.append("app.log", "k0 first\n");
    home.ok(&[&["tail", "app.log"], &options[..]].concat());
    let registry = fs::read(home.path("s.agent/registry")).unwrap();
    let name = text(&producers(&home)[0]["name"]).to_owned();

    // One shard's part of the next batch, as a process that was killed in the middle leaves it.
    let batch: Vec<_> = (0..20).map(|index| (format!("k{index}"), format!("k{index} line"))).collect();
    let content = batch.iter().map(|(_, line)| format!("{line}\n")).collect::<Vec<_>>().concat();
    home.append("app.log", &content);
    let stream = Stream::builder().open_existing(home.path("s")).unwrap();
    let shard = stream.open_shards()[0];
    let part = batch.iter().filter(|(key, _)| stream.route(key).unwrap() == shard);
    let part: Vec<_> = part.map(|(key, line)| PutEntry::new(key, line.as_bytes())).collect();
    assert!(!part.is_empty() && part.len() < 20);
    stream.producer(&name).unwrap().put_batch(number(9, 9 + content.len()), &part).unwrap();
    stream.close().unwrap();

    // Other options would make other records of the same bytes.
    let other = home.run(&["tail", "app.log", "--into", "s", "--once", "--key", "k"]);
    assert!(other.is_code(2) && other.stderr.contains("--key-field '1'"), "{other:?}");

    // Lines that came since are no part of that batch.
    home.append("app.log", "k0 last\n");
    home.ok(&[&["tail", "app.log"], &options[..]].concat());
    let mut expected: Vec<_> = batch.into_iter().map(|(_, line)| line).collect();
    expected.extend(["k0 first".to_owned(), "k0 last".to_owned()]);
    expected.sort();
    let mut found = home.records();
    found.sort();
    assert_eq!(found, expected);

    // A registry that is older than the stream is no reason to put anything again.
    fs::write(home.path("s.agent/registry"), registry).unwrap();
    home.ok(&[&["tail", "app.log"], &options[..]].concat());
    assert_eq!(home.records().len(), 22);
}

#[test]
fn a_batch_whose_bytes_are_others_now_does_not_stop_the_other_files() {
    let home = Home::with_stream(&[]);
    let options = ["--into", "s", "--once", "--key", "k"];
    home.append("app.log", "first\n");
    home.ok(&[&["tail", "*.log"], &options[..]].concat());
    let name = text(&producers(&home)[0]["name"]).to_owned();
    let stream = Stream::builder().open_existing(home.path("s")).unwrap();
    stream.producer(&name).unwrap().put_batch(number(6, 12), &[PutEntry::new("k", b"lines")]).unwrap();
    stream.close().unwrap();

    // A power cut took that line, and the file grew again.
    home.append("app.log", "a\nb\nc\nlast\n");
    home.append("b.log", "b\n");
    for note in [true, false] {
        let done = home.ok(&[&["tail", "*.log"], &options[..]].concat());
        assert_eq!(done.stderr.contains("app.log: its bytes 6 to 12"), note, "{done:?}");
        assert_eq!(home.records(), ["first", "lines", "last", "b"]);
    }
}

#[test]
fn wrong_options_are_refused_before_anything_is_made() {
    let home = Home::with_stream(&[]);
    for wrong in [
        &["tail", "--into", "s"][..],
        &["tail", "a.log"],
        &["tail", "a.log", "--into", "nowhere"],
        &["tail", "a***", "--into", "s"],
        &["tail", "a.log", "--into", "s", "--format", "csv"],
        &["tail", "a.log", "--into", "s", "--pattern", "(?P<a>x)"],
        &["tail", "a.log", "--into", "s", "--start-pattern", "("],
        &["tail", "a.log", "--into", "s", "--key-random", "--key-file-name"],
        &["tail", "a.log", "--into", "s", "--poll", "0ms"],
    ] {
        let done = home.run(wrong);
        assert!(done.is_code(2), "{wrong:?} {done:?}");
    }
    assert!(!home.path("s.agent").exists() && !home.path("nowhere").exists());
    home.append("a.log", "x\n");
    home.ok(&["tail", "a.log", "--into", "new", "--create", "--once"]);
    assert_eq!(home.ok(&["get", "new"]).stdout, b"x\n");
}
