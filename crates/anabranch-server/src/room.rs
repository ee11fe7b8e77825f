//! Room in memory for what goes between sockets and the service, of all connections together; and how long a client may leave an answer lying.
//!
//! A client gets as much room as it sends bytes, and as much as its answer has until it has taken it. Who does not take its answers loses its connection.

use std::collections::BTreeMap;
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
    IDLE_REQUEST_BYTES, MAX_ANSWER_BYTES, MAX_ANSWERS_BYTES, MAX_BODIES_BYTES, MAX_BODY_BYTES, REQUEST_BYTES,
};

/// How long a request may wait for room.
const ROOM_TIMEOUT: Duration = Duration::from_secs(5);
/// What a body gets at first that says how long it will be: it may not be true.
const FIRST_BYTES: usize = 64 << 10;

/// The room of a port.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    bodies: Arc<Semaphore>,
    answers: Arc<Semaphore>,
    timeout: Duration,
}

impl Default for Room {
    fn default() -> Self {
        Self::new(MAX_BODIES_BYTES, MAX_ANSWERS_BYTES, ROOM_TIMEOUT)
    }
}

impl Room {
    pub(crate) fn new(bodies: usize, answers: usize, timeout: Duration) -> Self {
        let (bodies, answers) = (Arc::new(Semaphore::new(bodies)), Arc::new(Semaphore::new(answers)));
        Self { bodies, answers, timeout }
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

    /// Room for an answer that nobody knows yet: for the greatest that there are, unless it is known to be small.
    pub(crate) async fn for_answer(&self, is_small: bool) -> Result<OwnedSemaphorePermit, StatusCode> {
        self.take(&self.answers, if is_small { REQUEST_BYTES } else { MAX_ANSWER_BYTES }).await
    }

    #[cfg(test)]
    pub(crate) fn left_for_bodies(&self) -> usize {
        self.bodies.available_permits()
    }

    #[cfg(test)]
    pub(crate) fn left_for_answers(&self) -> usize {
        self.answers.available_permits()
    }

    async fn take(&self, of: &Arc<Semaphore>, bytes: usize) -> Result<OwnedSemaphorePermit, StatusCode> {
        let bytes = u32::try_from(bytes).map_err(|_| StatusCode::PAYLOAD_TOO_LARGE)?;
        let taken = tokio::time::timeout(self.timeout, Arc::clone(of).acquire_many_owned(bytes)).await;
        taken.ok().and_then(Result::ok).ok_or(StatusCode::SERVICE_UNAVAILABLE)
    }
}

/// The answers of a connection that its client has not taken yet, and since when.
#[derive(Debug, Clone, Default)]
pub(crate) struct Untaken(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    since: BTreeMap<u64, Instant>,
}

impl Untaken {
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
        let room = room.split(bytes.len()).unwrap_or(room); // the rest is for others
        Ok(Bytes::from_owner(Held { bytes, _room: Some(room), _place: self.place() }))
    }

    /// As [`hold`](Self::hold), of one of many pieces, which come one at a time.
    pub(crate) fn hold_piece(&self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Held { bytes, _room: None, _place: self.place() })
    }

    /// Since when the oldest waits.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.0.lock().since.first_key_value().map(|(_, since)| *since)
    }

    fn place(&self) -> Place {
        let mut waiting = self.0.lock();
        let number = waiting.next;
        waiting.next += 1;
        waiting.since.insert(number, Instant::now());
        Place { of: self.clone(), number }
    }
}

struct Place {
    of: Untaken,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.of.0.lock().since.remove(&self.number);
    }
}

struct Held {
    bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
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

    #[tokio::test]
    async fn an_answer_that_is_larger_than_its_room_is_counted_or_not_given() {
        let (room, untaken) = (Room::new(1, MAX_ANSWER_BYTES, Duration::ZERO), Untaken::default());
        let of_a_put = || room.for_answer(true);
        let large = Bytes::from(vec![0; MAX_ANSWER_BYTES / 2 + 1]);
        let held = untaken.hold(large.clone(), of_a_put().await.unwrap()).unwrap();
        assert_eq!(room.left_for_answers(), MAX_ANSWER_BYTES - large.len());
        let refused = untaken.hold(large.clone(), of_a_put().await.unwrap());
        assert_eq!(refused.unwrap_err(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(room.left_for_answers(), MAX_ANSWER_BYTES - large.len(), "its own room is given back");
        drop(held);
        untaken.hold(large, of_a_put().await.unwrap()).unwrap();
        assert_eq!(room.left_for_answers(), MAX_ANSWER_BYTES);
    }
}
