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
        Answer::Later(waiting)
    }

    /// Whether there is something to look for: told from memory.
    pub(crate) fn has_news(&self) -> bool {
        self.receive.has_news()
    }

    /// Looks for records; it may wait for the disk. Somebody else may have been faster.
    pub(crate) fn look(self) -> Answer {
        match self.receive.look(self.core.clock.now()) {
            Ok(None) if !self.is_over() => Answer::Later(self),
            Ok(None) => Answer::Now(self.give_up()),
            Ok(Some(records)) => Answer::Now(self.asked.answer(&self.core, Ok(records))),
            Err(fault) => Answer::Now(self.asked.answer(&self.core, Err(fault))),
        }
    }

    /// The answer without records.
    pub(crate) fn give_up(&self) -> Response<Body> {
        self.asked.answer(&self.core, Ok(Reply::Document(self.receive.nothing())))
    }

    /// A server that stops keeps nobody waiting.
    pub(crate) fn is_over(&self) -> bool {
        let waited = self.core.clock.monotonic().saturating_sub(self.asked.begun);
        waited >= self.receive.wait || self.core.stopping.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use anabranch::{ManualClock, SimulatedDisk};
    use http::Request;

    use super::*;
    use crate::{Service, ServiceOptions};

    fn request(operation: &str, body: String) -> Request<bytes::Bytes> {
        let authorization = "AWS4-HMAC-SHA256 Credential=me/20260101/us-east-1/kinesis/aws4_request, SignedHeaders=host, Signature=00";
        let request = Request::post("/")
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", format!("Kinesis_20131202.{operation}"))
            .header("x-amz-date", "20260101T000000Z")
            .header("authorization", authorization);
        request.body(body.into()).unwrap()
    }

    /// A service with a stream on demand, a queue of it, and a call that receives from that.
    fn receiving() -> (Service, impl Fn() -> Answer) {
        let clock = Arc::new(ManualClock::default());
        let disk = Arc::new(SimulatedDisk::new());
        let service = Service::open_on("/data", ServiceOptions::default(), clock, disk).unwrap();
        let stream = r#""StreamName": "s", "StreamModeDetails": {"StreamMode": "ON_DEMAND"}"#;
        service.respond(request("CreateStream", format!("{{{stream}}}")));
        let arn = "arn:aws:kinesis:us-east-1:000000000000:stream/s";
        let queue = format!(r#"{{"QueueName": "q", "StreamConfigurationList": [{{"StreamARN": "{arn}"}}]}}"#);
        let made = service.respond(request("CreateQueue", queue));
        let made: serde_json::Value = serde_json::from_slice(made.body().bytes()).unwrap();
        let receive = format!(r#"{{"QueueARN": {}}}"#, made["QueueDescription"]["QueueARN"]);
        let to_begin = service.clone();
        (service, move || to_begin.begin(request("ReceiveQueueRecords", receive.clone())))
    }

    #[test]
    fn so_many_wait_and_others_are_answered_at_once() {
        let (_service, begin) = receiving();
        let mut waiting: Vec<_> = (0..MAX_WAITING_RECEIVES).map(|_| begin()).collect();
        assert!(waiting.iter().all(|answer| matches!(answer, Answer::Later(_))));
        for _ in 0..3 {
            let Answer::Now(answer) = begin() else { panic!("one more waits") };
            assert_eq!(answer.body().bytes(), br#"{"QueueRecords":[]}"#);
        }
        waiting.pop();
        assert!(matches!(begin(), Answer::Later(_)));
    }

    #[test]
    fn records_go_back_if_their_answer_is_not_given() {
        let (service, begin) = receiving();
        let put = r#"{"StreamName": "s", "PartitionKey": "a", "Data": "aGVsbG8="}"#;
        service.respond(request("PutRecord", put.to_owned()));
        let receives = |answer: &Response<Body>| {
            let answer: serde_json::Value = serde_json::from_slice(answer.body().bytes()).unwrap();
            answer["QueueRecords"][0]["ReceiveCount"].clone()
        };
        for count in 1..3 {
            let Answer::Now(answer) = begin() else { panic!("it waits") };
            assert_eq!(receives(&answer), count, "the one before was dropped");
        }
        let Answer::Now(answer) = begin() else { panic!("it waits") };
        let mut body = Box::pin(answer.into_body());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(http_body::Body::poll_frame(body.as_mut(), &mut context).is_ready());
        drop(body);
        assert!(matches!(begin(), Answer::Later(_)), "somebody has it");
    }
}
