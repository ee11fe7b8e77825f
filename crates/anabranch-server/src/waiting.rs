//! Calls that wait for records of queues. They have neither a thread nor room for an answer until there is something to look for: some thousands may wait, and others are answered.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::Response;

use crate::body::Body;
use crate::http_protocol::{Answer, Asked};
use crate::limits::MAX_WAITING_RECEIVES;
use crate::observe::Counted;
use crate::operations::{Receive, Reply};
use crate::service::Core;

/// A call that found nothing yet.
#[derive(Debug)]
pub(crate) struct Waiting {
    core: Arc<Core>,
    receive: Box<Receive>,
    asked: Asked,
    _counted: Counted,
}

impl Waiting {
    /// Begins to wait; where there are too many already, that was it.
    pub(crate) fn begin(core: &Arc<Core>, receive: Box<Receive>, asked: Asked) -> Answer {
        let counted = core.counters.waiting.one_more();
        let waiting = Self { core: Arc::clone(core), receive, asked, _counted: counted };
        if core.counters.waiting.get() > MAX_WAITING_RECEIVES {
            return Answer::Now(waiting.give_up());
        }
        Answer::Later(Box::new(waiting))
    }

    /// Whether there is nothing to look for and the wait is not over: told from memory.
    pub(crate) fn is_silent(&self) -> bool {
        !self.is_over() && !self.receive.has_news()
    }

    /// Looks for records; it may wait for the disk. Somebody else may have been faster.
    pub(crate) fn look(self: Box<Self>) -> Answer {
        match self.receive.look(self.core.clock.now()) {
            Ok(None) if !self.is_over() => Answer::Later(self),
            Ok(None) => Answer::Now(self.give_up()),
            Ok(Some(records)) => Answer::Now(self.asked.answer(&self.core, Ok(Reply::Document(records)))),
            Err(fault) => Answer::Now(self.asked.answer(&self.core, Err(fault))),
        }
    }

    /// The answer without records.
    pub(crate) fn give_up(&self) -> Response<Body> {
        self.asked.answer(&self.core, Ok(Reply::Document(self.receive.nothing())))
    }

    /// A server that stops keeps nobody waiting.
    fn is_over(&self) -> bool {
        let waited = self.core.clock.monotonic().saturating_sub(self.asked.begun);
        waited >= self.receive.wait || self.core.stopping.load(Ordering::SeqCst)
    }
}
