//! Histories of many threads on one shard, checked to be linearizable: appends, reads and looks at the tail happen, each of them, at one moment
//! between their call and their return.
//!
//! For a log no search is needed, since the sequence numbers force the order. With the operations sorted by their calls:
//! numbers are unique and a place never holds two values; an operation that shows position *p* and returned before another was called
//! means that the other does not show less; nobody reads a value before its append was called.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anabranch::{Durability, PutEntry, ShardId, ShardIteratorType, Stream};

use crate::support;

const SHARD: ShardId = ShardId::new(0);

/// One operation: when it was called, when it returned, what it did.
#[derive(Debug, Clone)]
struct Event {
    called: u64,
    returned: u64,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    /// These values got the numbers from this one on.
    Put(u64, Vec<u64>),
    /// These values stood at the numbers from this one on, and no more.
    Read(u64, Vec<u64>),
    /// The next number would be this one.
    Tail(u64),
}

impl Event {
    /// All positions below this one existed when it returned.
    fn shows(&self) -> u64 {
        match &self.what {
            What::Put(first, values) | What::Read(first, values) => first + values.len() as u64,
            What::Tail(next) => *next,
        }
    }
}

/// What is wrong with a history; nothing if it is linearizable.
fn fault(history: &[Event]) -> Option<String> {
    let mut values: BTreeMap<u64, u64> = BTreeMap::new();
    let mut puts: BTreeMap<u64, u64> = BTreeMap::new();
    for event in history {
        if let What::Put(first, put) = &event.what {
            for (number, value) in (*first..).zip(put) {
                if values.insert(number, *value).is_some() {
                    return Some(format!("{number} was given twice"));
                }
                puts.insert(*value, event.called);
            }
        }
    }
    for event in history {
        if let What::Read(first, read) = &event.what {
            for (number, value) in (*first..).zip(read) {
                if values.get(&number) != Some(value) {
                    return Some(format!("{number} was read as {value}, and put as {:?}", values.get(&number)));
                }
                if puts[value] > event.returned {
                    return Some(format!("{value} was read before it was put"));
                }
            }
        }
    }
    // In the order of time: what operations that returned before an operation was called have shown, it shows too.
    let mut moments: Vec<(u64, bool, &Event)> =
        history.iter().flat_map(|event| [(event.called, false, event), (event.returned, true, event)]).collect();
    moments.sort_by_key(|(when, ..)| *when);
    let mut shown = 0;
    let mut least: BTreeMap<u64, u64> = BTreeMap::new();
    for (_, is_return, event) in moments {
        if !is_return {
            least.insert(event.called, shown);
            continue;
        }
        let before = least[&event.called];
        let first = match &event.what {
            What::Put(first, _) => *first, // an append comes behind all that was there
            _ => event.shows(),
        };
        if first < before {
            return Some(format!("{event:?} came after {before} had been shown"));
        }
        shown = shown.max(event.shows());
    }
    None
}

/// A clock that orders calls and returns of all threads.
#[derive(Debug, Default)]
struct Ticks(AtomicU64);

impl Ticks {
    fn tick(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }

    fn observe(&self, operation: impl FnOnce() -> What) -> Event {
        let called = self.tick();
        let what = operation();
        Event { called, returned: self.tick(), what }
    }
}

fn put(stream: &Stream, values: &[u64]) -> What {
    let data: Vec<_> = values.iter().map(|value| value.to_le_bytes()).collect();
    let entries: Vec<_> = data.iter().map(|data| PutEntry::new("key", data)).collect();
    let receipts = stream.put_batch(&entries).unwrap();
    What::Put(receipts[0].sequence_number.get(), values.to_vec())
}

fn read(stream: &Stream, from: u64) -> What {
    let at = ShardIteratorType::AtSequenceNumber(anabranch::SequenceNumber::new(from));
    let mut iterator = stream.shard_iterator(SHARD, at).unwrap();
    let value = |record: anabranch::Record| u64::from_le_bytes(record.data().try_into().unwrap());
    What::Read(from, iterator.available().map(|record| value(record.unwrap())).collect())
}

fn tail(stream: &Stream) -> What {
    What::Tail(stream.describe().unwrap().shards[0].next_sequence_number.get())
}

fn history(stream: &Stream) -> Vec<Event> {
    let ticks = Arc::new(Ticks::default());
    let threads: Vec<_> = (0..6_u64)
        .map(|thread| {
            let (stream, ticks) = (stream.clone(), Arc::clone(&ticks));
            thread::spawn(move || {
                let mut events: Vec<Event> = Vec::new();
                for round in 0..60 {
                    let seen = events.iter().map(Event::shows).max().unwrap_or(0);
                    events.push(match (thread + round) % 3 {
                        0 => ticks.observe(|| tail(&stream)),
                        1 => ticks.observe(|| read(&stream, seen.saturating_sub(5))),
                        _ => {
                            let first = (thread << 32) | (round << 8);
                            let values: Vec<_> = (first..=first + round % 3).collect();
                            ticks.observe(|| put(&stream, &values))
                        }
                    });
                }
                events
            })
        })
        .collect();
    threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
}

#[test]
fn histories_of_threads_are_linearizable() {
    for durability in [Durability::Synced, Durability::Buffered] {
        let mut met = 0;
        // On a disk without a delay and a busy machine, the threads of one history may run one after another.
        for _ in 0..100 {
            let (_directory, stream) =
                support::stream(support::builder().durability(durability).segment_bytes(4096));
            let history = history(&stream);
            assert_eq!(fault(&history), None, "{durability:?}");
            let meets = |one: &Event, two: &Event| two.called < one.called && one.called < two.returned;
            met += history.iter().filter(|one| history.iter().any(|two| meets(one, two))).count();
            if met > 10 {
                break;
            }
        }
        assert!(met > 10, "the threads met each other");
    }
}

#[test]
fn histories_that_are_not_linearizable_are_told() {
    let event = |called, returned, what| Event { called, returned, what };
    let sound = [
        event(0, 3, What::Put(0, vec![7])),
        event(1, 2, What::Read(0, vec![])),
        event(4, 5, What::Read(0, vec![7])),
        event(6, 7, What::Tail(1)),
    ];
    assert_eq!(fault(&sound), None);
    let wrong = [
        vec![event(0, 1, What::Put(0, vec![7])), event(2, 3, What::Put(0, vec![8]))],
        vec![event(0, 1, What::Put(0, vec![7])), event(2, 3, What::Read(0, vec![8]))],
        vec![event(0, 1, What::Put(0, vec![7])), event(2, 3, What::Read(0, vec![]))],
        vec![event(0, 1, What::Put(0, vec![7])), event(2, 3, What::Tail(0))],
        vec![event(0, 1, What::Read(0, vec![7])), event(2, 3, What::Put(0, vec![7]))],
        vec![event(0, 1, What::Put(1, vec![7])), event(2, 3, What::Put(0, vec![8]))],
    ];
    for history in wrong {
        assert!(fault(&history).is_some(), "{history:?}");
    }
}
