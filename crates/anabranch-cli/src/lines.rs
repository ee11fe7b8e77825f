//! Input files as chunks, read by a thread of their own, and chunks as lines.
//!
//! A read of a terminal or a pipe cannot be interrupted or timed portably. With the thread, the putting
//! side can send a partial batch on its way when input is slow, and stop when the user asks it to.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// How much is read at once, and [`QUEUED`] of it is held at most.
const CHUNK_BYTES: usize = 128 << 10;
const QUEUED: usize = 4;

/// What the reading thread tells. The channel's end is the input's end.
#[derive(Debug)]
pub(crate) enum Event {
    /// A file begins. `-` is standard input.
    Begin(String),
    /// Its next bytes.
    Bytes(Vec<u8>),
    /// It ends.
    End,
    /// It could not be opened or read; nothing follows.
    Failed(String, io::Error),
}

/// Starts to read `files` one after another; no files mean standard input, and so does `-`.
pub(crate) fn read(files: &[PathBuf]) -> Receiver<Event> {
    let files = if files.is_empty() { vec![PathBuf::from("-")] } else { files.to_vec() };
    let (sender, events) = sync_channel(QUEUED);
    thread::spawn(move || {
        for file in files {
            if send_file(&file, &sender).is_none() {
                return;
            }
        }
    });
    events
}

/// Nothing when there is no use in reading on: the file failed, or nobody listens.
fn send_file(path: &Path, events: &SyncSender<Event>) -> Option<()> {
    let name = path.display().to_string();
    events.send(Event::Begin(name.clone())).ok()?;
    let outcome = open(path).and_then(|input| send_chunks(input, events));
    let last = match outcome {
        Ok(()) => Event::End,
        Err(error) => Event::Failed(name, error),
    };
    let is_end = matches!(last, Event::End);
    events.send(last).ok()?;
    is_end.then_some(())
}

fn open(path: &Path) -> io::Result<Box<dyn Read>> {
    Ok(if is_stdin(path) { Box::new(io::stdin().lock()) } else { Box::new(File::open(path)?) })
}

/// Whether the name stands for standard input.
pub(crate) fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn send_chunks(mut input: impl Read, events: &SyncSender<Event>) -> io::Result<()> {
    loop {
        let mut chunk = vec![0; CHUNK_BYTES];
        match input.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(length) => {
                chunk.truncate(length);
                if events.send(Event::Bytes(chunk)).is_err() {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Puts the lines of a file together from its chunks.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    partial: Vec<u8>,
}

impl Splitter {
    /// Calls `each` with every line that `chunk` completes, without its `\n`.
    pub(crate) fn feed<E>(&mut self, chunk: &[u8], mut each: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', chunk) {
            let line = &chunk[start..end];
            start = end + 1;
            if self.partial.is_empty() {
                each(line)?;
            } else {
                self.partial.extend_from_slice(line);
                let outcome = each(&self.partial);
                self.partial.clear();
                outcome?;
            }
        }
        self.partial.extend_from_slice(&chunk[start..]);
        Ok(())
    }

    /// Bytes of the line whose end has not come yet.
    pub(crate) fn partial_bytes(&self) -> usize {
        self.partial.len()
    }

    /// The last line of a file that does not end with `\n`, if there is one.
    pub(crate) fn finish(&mut self) -> Option<Vec<u8>> {
        let line = std::mem::take(&mut self.partial);
        (!line.is_empty()).then_some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut splitter = Splitter::default();
        let mut lines = Vec::new();
        for chunk in chunks {
            let outcome: Result<(), ()> = splitter.feed(chunk, |line| {
                lines.push(line.to_vec());
                Ok(())
            });
            assert_eq!(outcome, Ok(()));
        }
        lines.extend(splitter.finish());
        lines
    }

    #[test]
    fn lines_do_not_depend_on_how_bytes_arrive() {
        let text = b"one\n\ntwo\r\n\xff\xfe\nlast";
        let expected: [&[u8]; 5] = [b"one", b"", b"two\r", b"\xff\xfe", b"last"];
        assert_eq!(lines_of(&[text]), expected);
        for cut in 0..=text.len() {
            assert_eq!(lines_of(&[&text[..cut], &text[cut..]]), expected, "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(lines_of(&bytes), expected);
    }

    #[test]
    fn a_final_newline_starts_no_line() {
        assert_eq!(lines_of(&[b"a\n"]), [b"a"]);
        assert_eq!(lines_of(&[b"\n"]), [b""]);
        assert!(lines_of(&[]).is_empty());
    }

    #[test]
    fn files_come_in_order_and_a_missing_one_ends_the_input() {
        let directory = tempfile::tempdir().unwrap();
        let present = directory.path().join("a");
        let missing = directory.path().join("b");
        std::fs::write(&present, "x\n").unwrap();
        let mut events = read(&[present, missing]).into_iter();
        assert!(matches!(events.next(), Some(Event::Begin(_))));
        assert!(matches!(events.next(), Some(Event::Bytes(bytes)) if bytes == b"x\n"));
        assert!(matches!(events.next(), Some(Event::End)));
        assert!(matches!(events.next(), Some(Event::Begin(_))));
        assert!(matches!(events.next(), Some(Event::Failed(..))));
        assert!(events.next().is_none());
    }
}
