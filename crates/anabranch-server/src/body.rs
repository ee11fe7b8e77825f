//! Bodies of answers: whole, or events as they come.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use anabranch::{Clock, Timestamp};
use bytes::Bytes;
use http::StatusCode;
use http_body::{Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;
use tokio::time::Sleep;

use crate::limits::{SUBSCRIPTION_LOOK_MS, SUBSCRIPTION_MS};
use crate::operations::Taken;
use crate::room::{EventRoom, Untaken};
use crate::subscription::{Next, Subscription};

/// The body of an answer.
///
/// Most are whole; that of `SubscribeToShard` comes event by event. As an [`http_body::Body`] it waits for events with Tokio's timer and reads them on Tokio's threads for calls
/// that block; [`next_event`](Self::next_event) needs no runtime.
pub struct Body {
    inner: Inner,
    /// Of a body that comes as events, behind a port: with when it will be over.
    untaken: Option<(Untaken, Instant)>,
    /// The records in it, if it is of a queue's: until somebody has it they go back where it is dropped.
    taken: Option<Box<Taken>>,
}

enum Inner {
    Whole(Bytes),
    Events(Turn, Arc<dyn Clock>),
}

/// Who has a subscription.
enum Turn {
    Looking(Box<Subscription>),
    Napping(Box<Subscription>, Pin<Box<Sleep>>),
    /// A thread that may wait for the disk.
    Reading(JoinHandle<(Box<Subscription>, Next, Option<EventRoom>)>),
    Over,
}

/// An event, and its room behind a port.
type Roomed = (Bytes, Option<EventRoom>);

impl Turn {
    fn nap(subscription: Box<Subscription>) -> Self {
        Self::Napping(subscription, Box::pin(tokio::time::sleep(Duration::from_millis(SUBSCRIPTION_LOOK_MS))))
    }

    /// Looks for what there is room for: an event without records, where those with records have all the room there is.
    fn look(subscription: Box<Subscription>, now: Timestamp, port: Option<&Untaken>) -> Self {
        let (has_records, has_word) = (subscription.has_records(), subscription.has_word(now));
        let Some(port) = port else {
            return if has_records || has_word {
                Self::read(subscription, now, None)
            } else {
                Self::nap(subscription)
            };
        };
        let room = has_records.then(|| port.room_for_event()).flatten();
        match room.or_else(|| has_word.then(|| port.room_for_word()).flatten()) {
            None => Self::nap(subscription),
            room => Self::read(subscription, now, room),
        }
    }

    /// The thread goes on if the client goes away, and keeps the room until it is done.
    fn read(mut subscription: Box<Subscription>, now: Timestamp, room: Option<EventRoom>) -> Self {
        Self::Reading(tokio::task::spawn_blocking(move || {
            let next = subscription.next(now, room.as_ref().is_none_or(EventRoom::is_for_records));
            (subscription, next, room)
        }))
    }

    /// The next message, once there is one, and room for it; nothing when there will be no more.
    fn poll(
        &mut self,
        clock: &dyn Clock,
        port: Option<&Untaken>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Roomed>> {
        loop {
            let now = clock.now();
            *self = match std::mem::replace(self, Self::Over) {
                Self::Looking(subscription) => Self::look(subscription, now, port),
                Self::Napping(subscription, mut nap) => match nap.as_mut().poll(context) {
                    Poll::Ready(()) => Self::Looking(subscription),
                    Poll::Pending => {
                        *self = Self::Napping(subscription, nap);
                        return Poll::Pending;
                    }
                },
                Self::Reading(mut reading) => match Pin::new(&mut reading).poll(context) {
                    Poll::Ready(Ok((subscription, Next::Event(bytes), room))) => {
                        *self = Self::Looking(subscription);
                        return Poll::Ready(Some((bytes.into(), room)));
                    }
                    Poll::Ready(Ok((subscription, Next::Later, _))) => Self::nap(subscription),
                    Poll::Ready(Ok((_, Next::Over, _)) | Err(_)) => Self::Over, // or the server stops
                    Poll::Pending => {
                        *self = Self::Reading(reading);
                        return Poll::Pending;
                    }
                },
                Self::Over => return Poll::Ready(None),
            };
        }
    }
}

impl Body {
    pub(crate) fn empty() -> Self {
        Self::of(Inner::Whole(Bytes::new()))
    }

    pub(crate) fn whole(bytes: Vec<u8>) -> Self {
        Self::of(Inner::Whole(bytes.into()))
    }

    pub(crate) fn of_records(bytes: Vec<u8>, taken: Box<Taken>) -> Self {
        Self { taken: Some(taken), ..Self::whole(bytes) }
    }

    pub(crate) fn events(subscription: Box<Subscription>, clock: Arc<dyn Clock>) -> Self {
        Self::of(Inner::Events(Turn::Looking(subscription), clock))
    }

    fn of(inner: Inner) -> Self {
        Self { inner, untaken: None, taken: None }
    }

    /// The same with its bytes counted until the client has taken them.
    pub(crate) fn held(self, untaken: &Untaken, room: OwnedSemaphorePermit) -> Result<Self, StatusCode> {
        Ok(match self.inner {
            Inner::Whole(bytes) if bytes.is_empty() => Self::empty(),
            Inner::Whole(bytes) => {
                Self { taken: self.taken, ..Self::of(Inner::Whole(untaken.hold(bytes, room)?)) }
            }
            inner @ Inner::Events(..) => {
                let over = Instant::now() + Duration::from_millis(SUBSCRIPTION_MS.unsigned_abs());
                Self { untaken: Some((untaken.clone(), over)), ..Self::of(inner) }
            }
        })
    }

    /// The same for somebody who has it.
    pub(crate) fn given(mut self) -> Self {
        self.give();
        self
    }

    fn give(&mut self) {
        if let Some(taken) = self.taken.take() {
            taken.give();
        }
    }

    /// The bytes of a whole body; none of one that comes as events.
    pub fn bytes(&self) -> &[u8] {
        match &self.inner {
            Inner::Whole(bytes) => bytes,
            Inner::Events(..) => &[],
        }
    }

    /// The next message of a body that comes as events, if there is one by now. It may wait for the disk, and for nothing else. A body that was polled has none here while a thread
    /// of Tokio's reads it.
    pub fn next_event(&mut self) -> Option<Bytes> {
        match &mut self.inner {
            Inner::Events(Turn::Looking(subscription) | Turn::Napping(subscription, _), clock) => {
                match subscription.next(clock.now(), true) {
                    Next::Event(bytes) => Some(bytes.into()),
                    Next::Later | Next::Over => None,
                }
            }
            Inner::Events(..) | Inner::Whole(_) => None,
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.give();
        let Self { inner, untaken, .. } = &mut *self;
        let held = |(bytes, room): Roomed| match (&*untaken, room) {
            (Some((untaken, over)), Some(room)) => untaken.hold_event(bytes, room, *over),
            _ => bytes,
        };
        match inner {
            Inner::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Inner::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Inner::Events(turn, clock) => {
                let port = untaken.as_ref().map(|(untaken, _)| untaken);
                turn.poll(clock.as_ref(), port, context).map(|next| next.map(|event| Ok(Frame::data(held(event)))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.inner, Inner::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Inner::Events(..) => SizeHint::default(),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.inner {
            Inner::Whole(bytes) => f.debug_tuple("Body").field(&bytes.len()).finish(),
            Inner::Events(..) => f.write_str("Body(events)"),
        }
    }
}
