//! Copies of records that are to be put.

use super::PutEntry;
use crate::types::HashKey;

/// Records that are to be put together, their keys and data one behind the other: none is allocated by itself.
#[derive(Debug, Default)]
pub(crate) struct EntryBuffer {
    keys: String,
    data: Vec<u8>,
    places: Vec<Place>,
}

/// Where the key and the data of a record end; they start where those of the one before did.
#[derive(Debug, Clone, Copy)]
struct Place {
    key_end: usize,
    data_end: usize,
    explicit_hash_key: Option<HashKey>,
}

impl EntryBuffer {
    /// Takes a copy of a record.
    pub(crate) fn push(&mut self, entry: &PutEntry<'_>) {
        self.keys.push_str(entry.partition_key);
        self.data.extend_from_slice(entry.data);
        let (key_end, data_end) = (self.keys.len(), self.data.len());
        self.places.push(Place { key_end, data_end, explicit_hash_key: entry.explicit_hash_key });
    }

    /// How many records there are.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Bytes of their keys and data.
    pub(crate) fn bytes(&self) -> usize {
        self.keys.len() + self.data.len()
    }

    /// Bytes that keys and data can have without more memory.
    pub(crate) fn capacity(&self) -> usize {
        self.keys.capacity() + self.data.capacity()
    }

    /// The same memory for others.
    pub(crate) fn clear(&mut self) {
        self.keys.clear();
        self.data.clear();
        self.places.clear();
    }

    pub(crate) fn entries(&self) -> Vec<PutEntry<'_>> {
        let (mut key, mut data) = (0, 0);
        let entries = self.places.iter().map(|place| {
            let entry = PutEntry {
                partition_key: self.keys.get(key..place.key_end).unwrap_or_default(),
                data: self.data.get(data..place.data_end).unwrap_or_default(),
                explicit_hash_key: place.explicit_hash_key,
            };
            (key, data) = (place.key_end, place.data_end);
            entry
        });
        entries.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_out_as_they_went_in() {
        let at = PutEntry { explicit_hash_key: Some(HashKey::new(7)), ..PutEntry::new("é", b"") };
        let records = [PutEntry::new("a", b"one"), at, PutEntry::new("bc", b"three")];
        let mut buffer = EntryBuffer::default();
        for _ in 0..2 {
            for record in &records {
                buffer.push(record);
            }
            assert_eq!(buffer.entries(), records);
            assert_eq!((buffer.len(), buffer.bytes(), buffer.is_empty()), (3, 13, false));
            buffer.clear();
            assert_eq!((buffer.entries(), buffer.bytes(), buffer.is_empty()), (vec![], 0, true));
        }
    }
}
