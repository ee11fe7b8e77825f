//! Counts as text for Prometheus: its [exposition format](https://prometheus.io/docs/instrumenting/exposition_formats/), version 0.0.4.

use std::fmt::{Display, Write};
use std::sync::atomic::Ordering;

use super::counters::{CLASSES_MS, OperationCounts, Traffic};
use super::look::{Look, StreamLook};
use crate::service::Core;

pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything there is to tell of a service.
pub(super) fn write(core: &Core, look: &Look) -> String {
    let mut text = Exposition::default();
    text.requests(core);
    text.durations(core);
    text.streams(look);
    text.family("anabranch_connections", "gauge", "Connections of clients that are open.");
    text.sample("anabranch_connections", &[], core.counters.connections.get());
    text.family("anabranch_waiting_receives", "gauge", "Calls that wait for records of queues.");
    text.sample("anabranch_waiting_receives", &[], core.counters.waiting.get());
    text.family("anabranch_stopping", "gauge", "Whether the server is stopping.");
    text.sample("anabranch_stopping", &[], u8::from(core.stopping.load(Ordering::SeqCst)));
    text.0
}

#[derive(Debug, Default)]
struct Exposition(String);

type Label<'a> = (&'a str, &'a str);

impl Exposition {
    fn requests(&mut self, core: &Core) {
        let name = "anabranch_requests_total";
        self.family(name, "counter", "Requests by operation and outcome: ok, or the name of the error.");
        for (operation, counts) in core.counters.operations() {
            for (outcome, count) in counts.outcomes() {
                self.sample(name, &[("operation", operation), ("outcome", outcome)], count);
            }
        }
    }

    fn durations(&mut self, core: &Core) {
        let name = "anabranch_request_duration_seconds";
        self.family(
            name,
            "histogram",
            "How long it took to answer a request, without its way through the network.",
        );
        for (operation, counts) in core.counters.operations() {
            self.histogram(name, operation, counts);
        }
    }

    fn histogram(&mut self, name: &str, operation: &str, counts: &OperationCounts) {
        let ends = CLASSES_MS.map(|end| seconds(end * 1_000)).into_iter().chain(["+Inf".to_owned()]);
        let mut total = 0;
        for (end, count) in ends.zip(counts.classes()) {
            total += count;
            self.sample(&format!("{name}_bucket"), &[("operation", operation), ("le", &end)], total);
        }
        let micros = u64::try_from(counts.duration().as_micros()).unwrap_or(u64::MAX);
        self.sample(&format!("{name}_sum"), &[("operation", operation)], seconds(micros));
        self.sample(&format!("{name}_count"), &[("operation", operation)], total);
    }

    fn streams(&mut self, look: &Look) {
        type Count = fn(&StreamLook) -> u64;
        let families: [(&str, &str, &str, Count); 8] = [
            ("anabranch_incoming_records_total", "counter", "Records put.", |stream| {
                stream.count(Traffic::records_in)
            }),
            ("anabranch_incoming_bytes_total", "counter", "Bytes put, of keys and data.", |stream| {
                stream.count(Traffic::bytes_in)
            }),
            ("anabranch_outgoing_records_total", "counter", "Records given to readers.", |stream| {
                stream.count(Traffic::records_out)
            }),
            ("anabranch_outgoing_bytes_total", "counter", "Bytes given to readers, of keys and data.", |stream| {
                stream.count(Traffic::bytes_out)
            }),
            (
                "anabranch_throttled_total",
                "counter",
                "Calls, and records of batches, that were refused for the rate of a shard.",
                |stream| stream.count(Traffic::throttled),
            ),
            ("anabranch_subscriptions", "gauge", "Subscriptions to shards that go on.", |stream| {
                stream.count(|traffic| traffic.subscriptions.get())
            }),
            ("anabranch_open_shards", "gauge", "Shards that take records.", StreamLook::open_shards),
            (
                "anabranch_stream_failed",
                "gauge",
                "Whether the stream, or a shard of it, is refused: after a failed write or sync until the server is started again.",
                |stream| u64::from(stream.failure.is_some()),
            ),
        ];
        for (name, kind, help, count) in families {
            self.family(name, kind, help);
            for stream in &look.streams {
                self.sample(name, &stream.labels(), count(stream));
            }
        }
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}"); // a string takes everything
    }

    fn sample(&mut self, name: &str, labels: &[Label<'_>], value: impl Display) {
        let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }
}

/// Microseconds as decimal seconds, exactly.
fn seconds(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_exact() {
        for (micros, text) in [(0, "0"), (1, "0.000001"), (1_000, "0.001"), (2_500_000, "2.5"), (10_000_000, "10")]
        {
            assert_eq!(seconds(micros), text);
        }
    }

    #[test]
    fn labels_are_escaped() {
        let mut text = Exposition::default();
        text.sample("a", &[("b", "x\"y\\z\n")], 1);
        assert_eq!(text.0, "a{b=\"x\\\"y\\\\z\\n\"} 1\n");
    }
}
