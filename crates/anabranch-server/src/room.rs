//! Room in memory for what goes between sockets and the service, of all connections together; and how long a client may leave an answer lying.
//!
//! A client gets as much room as it sends bytes, and as much as its answer has until it has taken it. Who does not take its answers loses its connection.
//!
//! Whoever is first in a queue for room holds up all behind it. So answers have rooms by what they are to, and those of one kind, slow or not taken, keep no other kind from being answered:
//!
//! ```text
//! puts      short; what waits for the disk, and for nobody's change
//! others    short; they may wait for changes of streams and shards, which can take long
//! long      of those that read and list, each with room for the longest until its length is known
//! events    of subscriptions; nobody waits for room for one, it is looked for it again later
//! words     events without records: a subscription says that it goes on, or ends, though others have all room for records
//! ```
//!
//! Each also has a thread at most, and there are as many threads as all can have together: those that wait, be it for a disk that stands still, leave one to each of another kind.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::{
    IDLE_REQUEST_BYTES, MAX_ANSWER_BYTES, MAX_ANSWERS_BYTES, MAX_BODIES_BYTES, MAX_BODY_BYTES,
    MAX_CONNECTION_EVENTS_BYTES, MAX_EVENTS_BYTES, MAX_PUT_ANSWERS_BYTES, MAX_SHORT_ANSWERS_BYTES,
    MAX_SHORT_EVENTS_BYTES, REQUEST_BYTES, SHORT_ANSWER_BYTES, SHORT_EVENT_BYTES,
};
use crate::operations::AnswerKind;

/// How long a request may wait for room.
const ROOM_TIMEOUT: Duration = Duration::from_secs(5);
/// What a body gets at first that says how long it will be: it may not be true.
const FIRST_BYTES: usize = 64 << 10;

/// The room of a port.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    bodies: Arc<Semaphore>,
    puts: Arc<Semaphore>,
    short: Arc<Semaphore>,
    long: Arc<Semaphore>,
    events: Arc<Semaphore>,
    words: Arc<Semaphore>,
    timeout: Duration,
}

impl Default for Room {
    fn default() -> Self {
        Self::new(MAX_BODIES_BYTES, MAX_ANSWERS_BYTES, ROOM_TIMEOUT)
    }
}

impl Room {
    /// With so many bytes for bodies and for long answers.
    pub(crate) fn new(bodies: usize, long: usize, timeout: Duration) -> Self {
        Self {
            bodies: of(bodies),
            puts: of(MAX_PUT_ANSWERS_BYTES),
            short: of(MAX_SHORT_ANSWERS_BYTES),
            long: of(long),
            events: of(MAX_EVENTS_BYTES),
            words: of(MAX_SHORT_EVENTS_BYTES),
            timeout,
        }
    }

    /// Reads a body, for which room is taken as its bytes come; the room is for as long as the request is there.
    pub(crate) async fn read(&self, mut body: Incoming) -> Result<(Bytes, OwnedSemaphorePermit), StatusCode> {
        let declared = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if declared > MAX_BODY_BYTES {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        let mut room = self.take(&self.bodies, IDLE_REQUEST_BYTES).await?;
        let mut rest = REQUEST_BYTES - IDLE_REQUEST_BYTES;
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(piece) = frame.map_err(|_| StatusCode::BAD_REQUEST)?.into_data() else { continue };
            if bytes.len() + piece.len() > MAX_BODY_BYTES {
                return Err(StatusCode::PAYLOAD_TOO_LARGE);
            }
            room.merge(self.take(&self.bodies, std::mem::take(&mut rest) + piece.len()).await?);
            if bytes.is_empty() && body.is_end_stream() {
                return Ok((piece, room)); // as it was read from the socket
            }
            if bytes.is_empty() {
                bytes.reserve(declared.min(FIRST_BYTES));
            }
            bytes.extend_from_slice(&piece);
        }
        room.merge(self.take(&self.bodies, rest).await?);
        Ok((bytes.freeze(), room))
    }

    /// Room for an answer that nobody knows yet: for the greatest of its kind.
    pub(crate) async fn for_answer(&self, kind: AnswerKind) -> Result<OwnedSemaphorePermit, StatusCode> {
        let (of, bytes) = match kind {
            AnswerKind::Put => (&self.puts, SHORT_ANSWER_BYTES),
            AnswerKind::Short => (&self.short, SHORT_ANSWER_BYTES),
            AnswerKind::Long => (&self.long, MAX_ANSWER_BYTES),
        };
        self.take(of, bytes).await
    }

    #[cfg(test)]
    pub(crate) fn left_for_bodies(&self) -> usize {
        self.bodies.available_permits()
    }

    #[cfg(test)]
    pub(crate) fn left_for_answers(&self) -> usize {
        self.long.available_permits()
    }

    #[cfg(test)]
    pub(crate) fn left_for_puts(&self) -> usize {
        self.puts.available_permits()
    }

    #[cfg(test)]
    pub(crate) fn left_for_events(&self) -> usize {
        self.events.available_permits()
    }

    async fn take(&self, of: &Arc<Semaphore>, bytes: usize) -> Result<OwnedSemaphorePermit, StatusCode> {
        let bytes = u32::try_from(bytes).map_err(|_| StatusCode::PAYLOAD_TOO_LARGE)?;
        let taken = tokio::time::timeout(self.timeout, Arc::clone(of).acquire_many_owned(bytes)).await;
        taken.ok().and_then(Result::ok).ok_or(StatusCode::SERVICE_UNAVAILABLE)
    }
}

fn of(bytes: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(bytes))
}

/// Room that is free now.
fn take_now(of: &Arc<Semaphore>, bytes: usize) -> Option<OwnedSemaphorePermit> {
    Arc::clone(of).try_acquire_many_owned(u32::try_from(bytes).ok()?).ok()
}

/// Room for an event that nobody knows yet.
#[derive(Debug)]
pub(crate) struct EventRoom {
    of_port: OwnedSemaphorePermit,
    /// Of one with records: what it takes of its connection's.
    of_connection: Option<OwnedSemaphorePermit>,
}

impl EventRoom {
    pub(crate) fn is_for_records(&self) -> bool {
        self.of_connection.is_some()
    }
}

/// The answers and events of a connection that its client has not taken yet, and since when.
#[derive(Debug, Clone)]
pub(crate) struct Untaken {
    room: Room,
    /// What is left of its room for events with records.
    events: Arc<Semaphore>,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    since: BTreeSet<(Instant, u64)>,
}

impl Untaken {
    pub(crate) fn new(room: Room) -> Self {
        Self { room, events: of(MAX_CONNECTION_EVENTS_BYTES), waiting: Arc::default() }
    }

    /// Bytes to be sent, which keep their room until they are: HTTP drops them when the last was written.
    ///
    /// An answer that became larger than its room gets the rest if that is free; who waited for it could keep others from being done.
    pub(crate) fn hold(&self, bytes: Bytes, mut room: OwnedSemaphorePermit) -> Result<Bytes, StatusCode> {
        let missing = bytes.len().saturating_sub(room.num_permits());
        if missing > 0 {
            let missing = u32::try_from(missing).map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
            let more = Arc::clone(room.semaphore()).try_acquire_many_owned(missing);
            room.merge(more.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?);
        }
        Ok(self.hold_from(Instant::now(), bytes, [Some(room), None]))
    }

    /// Room for an event with records, if there is any now.
    pub(crate) fn room_for_event(&self) -> Option<EventRoom> {
        let of_connection = Some(take_now(&self.events, MAX_ANSWER_BYTES)?);
        Some(EventRoom { of_port: take_now(&self.room.events, MAX_ANSWER_BYTES)?, of_connection })
    }

    /// Room for an event without.
    pub(crate) fn room_for_word(&self) -> Option<EventRoom> {
        Some(EventRoom { of_port: take_now(&self.room.words, SHORT_EVENT_BYTES)?, of_connection: None })
    }

    /// As [`hold`](Self::hold), of an event of a subscription that is over at some time. A client may read as slowly as it likes until then: it has room of its own, and who
    /// shares its connection has done nothing.
    pub(crate) fn hold_event(&self, bytes: Bytes, room: EventRoom, over: Instant) -> Bytes {
        self.hold_from(over, bytes, [Some(room.of_port), room.of_connection])
    }

    fn hold_from(&self, since: Instant, bytes: Bytes, rooms: [Option<OwnedSemaphorePermit>; 2]) -> Bytes {
        let fit = |mut room: OwnedSemaphorePermit| room.split(bytes.len()).unwrap_or(room); // the rest is for others
        let rooms = rooms.map(|room| room.map(fit));
        Bytes::from_owner(Held { bytes, _rooms: rooms, _place: self.place(since) })
    }

    /// Since when the oldest waits; it can lie in the future.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.waiting.lock().since.first().map(|(since, _)| *since)
    }

    fn place(&self, since: Instant) -> Place {
        let mut waiting = self.waiting.lock();
        let key = (since, waiting.next);
        waiting.next += 1;
        waiting.since.insert(key);
        Place { of: Arc::clone(&self.waiting), key }
    }
}

struct Place {
    of: Arc<Mutex<Waiting>>,
    key: (Instant, u64),
}

impl Drop for Place {
    fn drop(&mut self) {
        self.of.lock().since.remove(&self.key);
    }
}

struct Held {
    bytes: Bytes,
    _rooms: [Option<OwnedSemaphorePermit>; 2],
    _place: Place,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(long: usize) -> Room {
        Room::new(1, long, Duration::ZERO)
    }

    #[tokio::test]
    async fn an_answer_that_is_larger_than_its_room_is_counted_or_not_given() {
        let room = room(MAX_ANSWER_BYTES + 1);
        let untaken = Untaken::new(room.clone());
        let large = Bytes::from(vec![0; MAX_ANSWER_BYTES + 1]);
        let held = untaken.hold(large.clone(), room.for_answer(AnswerKind::Long).await.unwrap()).unwrap();
        assert_eq!(room.left_for_answers(), 0);
        drop(held);
        let of_another = Arc::clone(&room.long).acquire_owned().await.unwrap();
        let refused = untaken.hold(large, room.for_answer(AnswerKind::Long).await.unwrap());
        assert_eq!(refused.unwrap_err(), StatusCode::SERVICE_UNAVAILABLE);
        drop(of_another);
        assert_eq!(room.left_for_answers(), MAX_ANSWER_BYTES + 1, "its own room is given back");
    }

    #[tokio::test]
    async fn no_kind_of_answer_keeps_another_one_waiting() {
        let room = room(MAX_ANSWER_BYTES);
        let mut taken = Vec::new();
        for kind in [AnswerKind::Long, AnswerKind::Short, AnswerKind::Put] {
            let before = taken.len();
            while let Ok(one) = room.for_answer(kind).await {
                taken.push(one);
            }
            assert!(taken.len() > before, "{kind:?}");
        }
        let untaken = Untaken::new(room.clone());
        assert!(untaken.room_for_event().is_some() && untaken.room_for_word().is_some());
    }

    #[test]
    fn one_connection_does_not_have_all_events_and_words_have_room_of_their_own() {
        let room = room(MAX_ANSWER_BYTES);
        let (greedy, other) = (Untaken::new(room.clone()), Untaken::new(room.clone()));
        let all_of = |untaken: &Untaken| std::iter::from_fn(|| untaken.room_for_event()).collect::<Vec<_>>();
        let taken = all_of(&greedy);
        assert_eq!(taken.len(), MAX_CONNECTION_EVENTS_BYTES / MAX_ANSWER_BYTES);
        let event = Bytes::from_static(b"event");
        let held = taken.into_iter().map(|room| greedy.hold_event(event.clone(), room, Instant::now()));
        let held: Vec<_> = held.collect();
        assert_eq!(greedy.events.available_permits(), MAX_CONNECTION_EVENTS_BYTES - held.len() * event.len());
        let taken: Vec<_> =
            std::iter::repeat_with(|| Untaken::new(room.clone())).map(|one| all_of(&one)).take(99).collect();
        assert!(other.room_for_event().is_none(), "there is none left");
        let word = other.room_for_word().unwrap();
        assert!(!word.is_for_records());
        drop((taken, held));
        assert_eq!(all_of(&greedy).len(), MAX_CONNECTION_EVENTS_BYTES / MAX_ANSWER_BYTES);
    }

    /// Others on its connection are not cut off with it before that.
    #[tokio::test]
    async fn an_event_may_lie_until_its_subscription_is_over() {
        let room = room(MAX_ANSWER_BYTES);
        let untaken = Untaken::new(room.clone());
        let over = Instant::now() + Duration::from_secs(300);
        let event = untaken.hold_event(Bytes::from_static(b"event"), untaken.room_for_event().unwrap(), over);
        assert_eq!(untaken.oldest(), Some(over));
        assert_eq!(room.left_for_events(), MAX_EVENTS_BYTES - 5);
        let long = room.for_answer(AnswerKind::Long).await.unwrap();
        let answer = untaken.hold(Bytes::from_static(b"answer"), long).unwrap();
        assert!(untaken.oldest().unwrap() < over);
        drop((event, answer));
        assert_eq!((untaken.oldest(), room.left_for_events()), (None, MAX_EVENTS_BYTES));
    }
}
