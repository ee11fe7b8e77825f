//! What two looks at a stream say together: how much there is, and how fast it grows. No I/O.

use std::collections::HashMap;
use std::time::Duration;

use anabranch::Timestamp;
use serde::Serialize;

use super::snapshot::{Reading, Shard, Snapshot, Writing};

/// The stream, and all that is in it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Figures {
    pub(crate) stream: String,
    pub(crate) stream_id: String,
    pub(crate) durability: &'static str,
    pub(crate) retention: String,
    pub(crate) open_shards: usize,
    pub(crate) closed_shards: usize,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) disk_bytes: u64,
    /// Nothing at the first look.
    pub(crate) records_per_second: Option<f64>,
    pub(crate) bytes_per_second: Option<f64>,
    pub(crate) shards: Vec<ShardFigures>,
    pub(crate) consumers: Vec<Reading>,
    pub(crate) producers: Vec<Writing>,
    pub(crate) queues: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ShardFigures {
    pub(crate) shard_id: String,
    pub(crate) state: &'static str,
    pub(crate) hash_key_share: f64,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) disk_bytes: u64,
    pub(crate) records_per_second: Option<f64>,
    pub(crate) bytes_per_second: Option<f64>,
    pub(crate) oldest_age_millis: Option<u64>,
    pub(crate) newest_age_millis: Option<u64>,
}

impl Figures {
    /// Rates are those between the looks; of one look alone there are none, nor of two different streams.
    pub(crate) fn new(before: Option<&Snapshot>, now: &Snapshot) -> Self {
        let before = before.filter(|before| before.stream_id == now.stream_id && before.taken < now.taken);
        let known: Option<HashMap<&str, &Shard>> =
            before.map(|before| before.shards.iter().map(|shard| (shard.id.as_str(), shard)).collect());
        let elapsed = before.map_or(Duration::ZERO, |before| now.taken.saturating_sub(before.taken));
        let shards = now.shards.iter().map(|shard| {
            let growth = known.as_ref().map(|known| growth(known.get(shard.id.as_str()).copied(), shard));
            ShardFigures::new(shard, growth, elapsed, now.now)
        });
        let mut figures = Self {
            stream: now.path.clone(),
            stream_id: now.stream_id.clone(),
            durability: now.durability,
            retention: now.retention.clone(),
            shards: shards.collect(),
            consumers: now.readings.clone(),
            producers: now.producers.clone(),
            queues: now.queues.clone(),
            ..Self::default()
        };
        figures.add_up();
        figures
    }

    fn add_up(&mut self) {
        self.open_shards = self.shards.iter().filter(|shard| shard.state == "open").count();
        self.closed_shards = self.shards.len() - self.open_shards;
        self.records = self.shards.iter().map(|shard| shard.records).sum();
        self.bytes = self.shards.iter().map(|shard| shard.bytes).sum();
        self.disk_bytes = self.shards.iter().map(|shard| shard.disk_bytes).sum();
        self.records_per_second = self.shards.iter().map(|shard| shard.records_per_second).sum();
        self.bytes_per_second = self.shards.iter().map(|shard| shard.bytes_per_second).sum();
    }
}

/// Records and bytes that a shard took since a look that may not have known it.
fn growth(before: Option<&Shard>, now: &Shard) -> (u64, u64) {
    let records = now.next.saturating_sub(before.map_or(now.starting, |before| before.next));
    let bytes = match now.bytes.checked_sub(before.map_or(0, |before| before.bytes)) {
        Some(bytes) if records > 0 => bytes,
        Some(_) => 0,
        // Retention removed more than came: what came is as long as what is there.
        None => mean_bytes(now).saturating_mul(records),
    };
    (records, bytes)
}

fn mean_bytes(shard: &Shard) -> u64 {
    shard.bytes.checked_div(shard.records).unwrap_or(0)
}

impl ShardFigures {
    fn new(shard: &Shard, growth: Option<(u64, u64)>, elapsed: Duration, now: i64) -> Self {
        let age = |arrival: i64| Timestamp::from_millis(now).millis_since(Timestamp::from_millis(arrival));
        Self {
            shard_id: shard.id.clone(),
            state: if shard.is_open { "open" } else { "closed" },
            hash_key_share: shard.share,
            records: shard.records,
            bytes: shard.bytes,
            disk_bytes: shard.disk_bytes,
            records_per_second: growth.map(|(records, _)| per_second(records, elapsed)),
            bytes_per_second: growth.map(|(_, bytes)| per_second(bytes, elapsed)),
            oldest_age_millis: shard.oldest.map(age),
            newest_age_millis: shard.newest.map(age),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "rates are shown with three digits")]
fn per_second(count: u64, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn shard(id: u32, next: u64, bytes: u64) -> Shard {
        Shard {
            id: format!("shardId-{id:012}"),
            is_open: true,
            share: 0.25,
            starting: 10,
            next,
            records: next - 10,
            bytes,
            disk_bytes: 65_536,
            oldest: Some(1_000),
            newest: Some(4_500),
        }
    }

    pub(crate) fn snapshot(seconds: u64, shards: Vec<Shard>) -> Snapshot {
        let taken = Duration::from_secs(seconds);
        Snapshot { path: "clicks".to_owned(), taken, now: 5_000, shards, ..Snapshot::default() }
    }

    #[track_caller]
    fn assert_rates(before: &Snapshot, now: &Snapshot, expected: &[(f64, f64)]) {
        let figures = Figures::new(Some(before), now);
        let rates = figures
            .shards
            .iter()
            .map(|shard| (shard.records_per_second.unwrap(), shard.bytes_per_second.unwrap()));
        assert_eq!(rates.collect::<Vec<_>>(), expected);
        let sum = expected.iter().map(|rates| rates.0).sum::<f64>();
        assert_eq!(figures.records_per_second, Some(sum));
    }

    #[test]
    fn rates_are_what_came_in_between() {
        let before = snapshot(10, vec![shard(0, 20, 1_000)]);
        assert_rates(&before, &snapshot(12, vec![shard(0, 120, 3_000)]), &[(50.0, 1_000.0)]);
        assert_rates(&before, &snapshot(11, vec![shard(0, 20, 1_000)]), &[(0.0, 0.0)]);
        // A shard that was made meanwhile counts from its first record.
        let split = snapshot(11, vec![shard(0, 20, 1_000), shard(1, 15, 500)]);
        assert_rates(&before, &split, &[(0.0, 0.0), (5.0, 500.0)]);
        // Retention took more than came.
        let trimmed = Shard { records: 4, bytes: 400, ..shard(0, 22, 0) };
        assert_rates(&before, &snapshot(11, vec![trimmed]), &[(2.0, 200.0)]);
        let only_trimmed = Shard { records: 4, bytes: 400, ..shard(0, 20, 0) };
        assert_rates(&before, &snapshot(11, vec![only_trimmed]), &[(0.0, 0.0)]);
    }

    #[test]
    fn one_look_has_no_rates_and_neither_have_two_streams() {
        let now = snapshot(12, vec![shard(0, 20, 1_000), Shard { is_open: false, ..shard(1, 30, 500) }]);
        let other = Snapshot { stream_id: "other".to_owned(), ..snapshot(10, vec![shard(0, 10, 0)]) };
        for before in [None, Some(&now), Some(&other)] {
            let figures = Figures::new(before, &now);
            assert_eq!((figures.records_per_second, figures.shards[0].records_per_second), (None, None));
            assert_eq!((figures.open_shards, figures.closed_shards), (1, 1));
            assert_eq!((figures.records, figures.bytes, figures.disk_bytes), (30, 1_500, 131_072));
            assert_eq!(figures.shards[0].newest_age_millis, Some(500));
        }
    }
}
