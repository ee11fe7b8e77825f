//! Bodies of answers: whole, or events as they come.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anabranch::Clock;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::Sleep;

use crate::limits::SUBSCRIPTION_LOOK_MS;
use crate::subscription::{Next, Subscription};

/// The body of an answer.
///
/// Most are whole; that of `SubscribeToShard` comes event by event. As an [`http_body::Body`] it waits for events with Tokio's timer; [`next_event`](Self::next_event)
/// needs no runtime.
pub struct Body(Inner);

enum Inner {
    Whole(Bytes),
    Events { subscription: Box<Subscription>, clock: Arc<dyn Clock>, nap: Option<Pin<Box<Sleep>>> },
}

impl Body {
    pub(crate) fn empty() -> Self {
        Self(Inner::Whole(Bytes::new()))
    }

    pub(crate) fn whole(bytes: Vec<u8>) -> Self {
        Self(Inner::Whole(bytes.into()))
    }

    pub(crate) fn events(subscription: Box<Subscription>, clock: Arc<dyn Clock>) -> Self {
        Self(Inner::Events { subscription, clock, nap: None })
    }

    /// The bytes of a whole body; none of one that comes as events.
    pub fn bytes(&self) -> &[u8] {
        match &self.0 {
            Inner::Whole(bytes) => bytes,
            Inner::Events { .. } => &[],
        }
    }

    /// The next message of a body that comes as events, if there is one by now. It never waits.
    pub fn next_event(&mut self) -> Option<Bytes> {
        match &mut self.0 {
            Inner::Whole(_) => None,
            Inner::Events { subscription, clock, .. } => match subscription.next(clock.now()) {
                Next::Event(bytes) => Some(bytes.into()),
                Next::Later | Next::Over => None,
            },
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
        match &mut self.0 {
            Inner::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Inner::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Inner::Events { subscription, clock, nap } => loop {
                if let Some(sleeping) = nap {
                    if sleeping.as_mut().poll(context).is_pending() {
                        return Poll::Pending;
                    }
                    *nap = None;
                }
                match subscription.next(clock.now()) {
                    Next::Event(bytes) => return Poll::Ready(Some(Ok(Frame::data(bytes.into())))),
                    Next::Over => return Poll::Ready(None),
                    Next::Later => {
                        let look = Duration::from_millis(SUBSCRIPTION_LOOK_MS);
                        *nap = Some(Box::pin(tokio::time::sleep(look)));
                    }
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.0, Inner::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Inner::Events { .. } => SizeHint::default(),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Inner::Whole(bytes) => f.debug_tuple("Body").field(&bytes.len()).finish(),
            Inner::Events { subscription, .. } => f.debug_tuple("Body").field(subscription).finish(),
        }
    }
}
