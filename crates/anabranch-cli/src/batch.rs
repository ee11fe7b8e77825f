//! The lines that `put` gathers for one call of the library.

use std::time::{Duration, Instant};

use anabranch::{HashKey, Limits, PutEntry};

use crate::interrupt::PATIENCE;

/// Lines on their way into the stream: keys and data one behind the other, and where each ends.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    keys: String,
    data: Vec<u8>,
    ends: Vec<(usize, usize)>,
    since: Option<Instant>,
}

impl Batch {
    /// How many lines there are.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of the lines, without keys.
    pub(crate) fn data_bytes(&self) -> u64 {
        self.data.len() as u64
    }

    /// Whether one more line keeps within the stream's limit of bytes.
    pub(crate) fn has_room(&self, key: &str, data: &[u8], limits: &Limits) -> bool {
        let bytes = self.keys.len() + self.data.len() + key.len() + data.len();
        bytes <= limits.max_batch_bytes as usize
    }

    /// Adds a line.
    pub(crate) fn push(&mut self, key: &str, data: &[u8]) {
        self.since.get_or_insert_with(Instant::now);
        self.keys.push_str(key);
        self.data.extend_from_slice(data);
        self.ends.push((self.keys.len(), self.data.len()));
    }

    /// The lines as the library takes them.
    pub(crate) fn entries(&self, explicit_hash_key: Option<HashKey>) -> Vec<PutEntry<'_>> {
        let mut start = (0, 0);
        let entry = |&end: &(usize, usize)| {
            let mut entry = PutEntry::new(&self.keys[start.0..end.0], &self.data[start.1..end.1]);
            entry.explicit_hash_key = explicit_hash_key;
            start = end;
            entry
        };
        self.ends.iter().map(entry).collect()
    }

    /// The same memory, without lines.
    pub(crate) fn cleared(mut self) -> Self {
        self.keys.clear();
        self.data.clear();
        self.ends.clear();
        self.since = None;
        self
    }

    /// How long to wait for more input before the batch has to go.
    pub(crate) fn patience(&self, linger: Duration) -> Duration {
        let left = self.since.map(|since| linger.saturating_sub(since.elapsed()));
        left.map_or(PATIENCE, |left| left.min(PATIENCE))
    }

    /// Whether the first line has waited for so long.
    pub(crate) fn has_waited(&self, linger: Duration) -> bool {
        self.since.is_some_and(|since| since.elapsed() >= linger)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_bounded_in_bytes_and_time() {
        let limits = Limits { max_batch_bytes: 10, ..Limits::default() };
        let linger = Duration::from_secs(60);
        let mut batch = Batch::default();
        assert_eq!(batch.patience(linger), PATIENCE);
        assert!(!batch.has_waited(Duration::ZERO), "an empty batch does not have to go");

        batch.push("k1", b"abc");
        assert!(batch.has_room("k2", b"abc", &limits));
        assert!(!batch.has_room("k2", b"abcd", &limits));
        assert!(batch.has_waited(Duration::ZERO));
        assert!(!batch.has_waited(linger));
        assert_eq!(batch.patience(Duration::ZERO), Duration::ZERO);
        assert_eq!((batch.len(), batch.data_bytes()), (1, 3));

        let batch = batch.cleared();
        assert!(batch.is_empty() && !batch.has_waited(Duration::ZERO));
    }
}
