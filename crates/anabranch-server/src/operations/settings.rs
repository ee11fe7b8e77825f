//! Settings that are kept and reported: monitoring, encryption, mode, record size, record distribution, warm throughput.

use std::collections::BTreeSet;

use serde::Serialize;

use super::describe::WarmThroughputShape;
use super::lifecycle::{MODES, check_distribution, check_record_size, mode_of};
use super::target::StreamTarget;
use super::{Call, Reply};
use crate::catalog::{Entry, Mode, Settings, Territory};
use crate::distribution::{Distribution, STRATEGIES};
use crate::errors::{Fault, FaultKind};
use crate::limits::MAX_WARM_MIBPS;
use crate::validate::{Validator, listed};
use crate::wire::{Fields, List};

const METRICS: [&str; 8] = [
    "IncomingBytes",
    "IncomingRecords",
    "OutgoingBytes",
    "OutgoingRecords",
    "WriteProvisionedThroughputExceeded",
    "ReadProvisionedThroughputExceeded",
    "IteratorAgeMilliseconds",
    "ALL",
];

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct MonitoringAnswer {
    stream_name: String,
    #[serde(rename = "StreamARN")]
    stream_arn: String,
    current_shard_level_metrics: BTreeSet<String>,
    desired_shard_level_metrics: BTreeSet<String>,
}

pub(super) fn enable_monitoring(call: &Call<'_>, fields: Fields<'_>) -> Result<Reply, Fault> {
    monitoring(call, fields, BTreeSet::extend)
}

pub(super) fn disable_monitoring(call: &Call<'_>, fields: Fields<'_>) -> Result<Reply, Fault> {
    monitoring(call, fields, |metrics, named| metrics.retain(|metric| !named.contains(metric)))
}

fn monitoring(
    call: &Call<'_>,
    mut fields: Fields<'_>,
    change: impl FnOnce(&mut BTreeSet<String>, BTreeSet<String>),
) -> Result<Reply, Fault> {
    let target = StreamTarget::read(&mut fields)?;
    let metrics = fields.list("ShardLevelMetrics")?.map(List::texts).transpose()?;
    let mut check = Validator::default();
    check.required("shardLevelMetrics", metrics.as_ref());
    if let Some(metrics) = metrics.as_ref().filter(|metrics| !(1..METRICS.len()).contains(&metrics.len())) {
        let print = listed(metrics.iter().flatten());
        check.size("shardLevelMetrics", &print, metrics.len(), 1, METRICS.len() - 1);
    }
    let metrics = metrics.unwrap_or_default();
    for (index, metric) in metrics.iter().enumerate() {
        let path = format!("shardLevelMetrics.{}.member", index + 1);
        check.required(&path, metric.as_ref());
        check.one_of(&path, metric.as_deref(), &METRICS);
    }
    target.check(&mut check);
    check.finish()?;

    let entry = target.find(call)?;
    let metrics: Vec<_> = metrics.into_iter().flatten().collect();
    let has_all = metrics.iter().any(|metric| metric == "ALL");
    let is_named = |metric: &&&str| has_all || metrics.iter().any(|named| named == **metric);
    let named =
        METRICS.iter().filter(|metric| **metric != "ALL").filter(is_named).map(|metric| (*metric).to_owned());
    let named = named.collect();
    let (before, after) = entry.change(|settings| {
        let before = settings.shard_level_metrics.clone();
        change(&mut settings.shard_level_metrics, named);
        Ok((before, settings.shard_level_metrics.clone()))
    })?;
    call.answer(&MonitoringAnswer {
        stream_name: entry.name.clone(),
        stream_arn: entry.arn.clone(),
        current_shard_level_metrics: before,
        desired_shard_level_metrics: after,
    })
}

pub(super) fn start_encryption(call: &Call<'_>, fields: Fields<'_>) -> Result<Reply, Fault> {
    encryption(call, fields, |present, key| *present = Some(key))
}

pub(super) fn stop_encryption(call: &Call<'_>, fields: Fields<'_>) -> Result<Reply, Fault> {
    encryption(call, fields, |present, _| *present = None)
}

fn encryption(
    call: &Call<'_>,
    mut fields: Fields<'_>,
    change: impl FnOnce(&mut Option<String>, String),
) -> Result<Reply, Fault> {
    let target = StreamTarget::read(&mut fields)?;
    let kind = fields.text("EncryptionType")?;
    let key = fields.text("KeyId")?;
    let mut check = Validator::default();
    check.required("encryptionType", kind.as_ref());
    check.one_of("encryptionType", kind.as_deref(), &["KMS", "NONE"]);
    check.required("keyId", key.as_ref());
    check.length("keyId", key.as_deref(), 1, 2_048);
    target.check(&mut check);
    check.finish()?;
    if kind.as_deref() != Some("KMS") {
        return Err(Fault::invalid("Encryption type must be KMS."));
    }

    let key = key.unwrap_or_default().into_owned();
    let entry = target.find_active(call)?;
    let change = |settings: &mut Settings| {
        change(&mut settings.key_id, key);
        Ok(())
    };
    entry.of_the_day(call.operation, || entry.update(|| entry.change(change)))?;
    Ok(Reply::Empty)
}

pub(super) fn update_mode(call: &Call<'_>, mut fields: Fields<'_>) -> Result<Reply, Fault> {
    let target = StreamTarget::read(&mut fields)?;
    let details = fields.structure("StreamModeDetails")?;
    let warm = fields.integer("WarmThroughputMiBps")?;
    let mut check = Validator::default();
    check.required("streamModeDetails", details.as_ref());
    let mode = details.map(|mut details| details.text("StreamMode")).transpose()?;
    if let Some(mode) = &mode {
        check.required("streamModeDetails.streamMode", mode.as_ref());
        check.one_of("streamModeDetails.streamMode", mode.as_deref(), &MODES);
    }
    check.range("warmThroughputMiBps", warm, 0, i64::from(u32::MAX));
    target.check_arn(&mut check);
    check.finish()?;

    let entry = target.find_active(call)?;
    let mode = mode_of(mode.flatten().as_deref());
    let warm = warm_throughput(call, warm, mode, &entry.name)?;
    let territory = call.own_territory()?;
    let change = |settings: &mut Settings| {
        settings.mode = mode;
        check_distribution(settings, &entry.name, &entry.account)?;
        let kept = settings.warm_throughput_mibps.filter(|_| mode == Mode::OnDemand);
        settings.warm_throughput_mibps = warm.or(kept);
        Ok(())
    };
    entry.update(|| {
        territory.while_counting(|| {
            if entry.settings()?.mode == mode {
                return entry.change(change); // who changes the shards goes on
            }
            entry.of_the_day(call.operation, || change_mode(&territory, &entry, mode, change))
        })
    })?;
    Ok(Reply::Empty)
}

fn change_mode(
    territory: &Territory,
    entry: &Entry,
    mode: Mode,
    change: impl FnOnce(&mut Settings) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let stream = entry.stream()?;
    stream.set_capacity(None).map_err(|error| entry.fault(error))?; // the load changes no shards meanwhile
    let outcome = entry.reshard(|_| Ok(())).and_then(|()| {
        match mode {
            // Its shards are counted from now on.
            Mode::Provisioned => {
                entry.check_no_queues()?;
                territory.check_shards(entry.settings()?.open_shards)?;
            }
            Mode::OnDemand => territory.check_on_demand()?,
        }
        entry.change(change)
    });
    entry.follow_mode(&stream)?;
    outcome
}

pub(super) fn update_max_record_size(call: &Call<'_>, mut fields: Fields<'_>) -> Result<Reply, Fault> {
    let target = StreamTarget::read(&mut fields)?;
    let kib = fields.integer("MaxRecordSizeInKiB")?;
    let mut check = Validator::default();
    check.required("maxRecordSizeInKiB", kib.as_ref());
    check_record_size(&mut check, kib);
    target.check(&mut check);
    check.finish()?;

    let kib = kib.and_then(|kib| u32::try_from(kib).ok());
    let entry = target.find_active(call)?;
    let change = |settings: &mut Settings| {
        settings.max_record_kib = kib.unwrap_or(settings.max_record_kib);
        Ok(())
    };
    entry.update(|| entry.change(change))?;
    Ok(Reply::Empty)
}

pub(super) fn update_record_distribution(call: &Call<'_>, mut fields: Fields<'_>) -> Result<Reply, Fault> {
    let target = StreamTarget::read(&mut fields)?;
    let strategy = fields.text("RecordDistributionStrategy")?;
    let mut check = Validator::default();
    check.required("recordDistributionStrategy", strategy.as_ref());
    check.one_of("recordDistributionStrategy", strategy.as_deref(), &STRATEGIES);
    target.check_arn(&mut check);
    check.finish()?;

    let entry = target.find(call)?;
    entry.change(|settings| {
        settings.distribution = Distribution::named(strategy.as_deref().unwrap_or_default());
        check_distribution(settings, &entry.name, &entry.account)
    })?;
    Ok(Reply::Empty)
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct WarmAnswer {
    stream_name: String,
    #[serde(rename = "StreamARN")]
    stream_arn: String,
    warm_throughput: WarmThroughputShape,
}

pub(super) fn update_warm_throughput(call: &Call<'_>, mut fields: Fields<'_>) -> Result<Reply, Fault> {
    let target = StreamTarget::read(&mut fields)?;
    let warm = fields.integer("WarmThroughputMiBps")?;
    let mut check = Validator::default();
    check.required("warmThroughputMiBps", warm.as_ref());
    check.range("warmThroughputMiBps", warm, 0, i64::from(u32::MAX));
    target.check(&mut check);
    check.finish()?;

    let entry = target.find_active(call)?;
    let change = |settings: &mut Settings| {
        let wanted = warm_throughput(call, warm, settings.mode, &entry.name)?;
        Ok((wanted.unwrap_or(0), std::mem::replace(&mut settings.warm_throughput_mibps, wanted).unwrap_or(0)))
    };
    let (wanted, before) = entry.update(|| entry.change(change))?;
    call.answer(&WarmAnswer {
        stream_name: entry.name.clone(),
        stream_arn: entry.arn.clone(),
        warm_throughput: WarmThroughputShape { target: wanted, current: before },
    })
}

/// The warm throughput that a stream in this mode may have, if it was asked for: on demand, in an account that committed itself to throughput, and no more than there is.
pub(super) fn warm_throughput(
    call: &Call<'_>,
    asked: Option<i64>,
    mode: Mode,
    name: &str,
) -> Result<Option<u32>, Fault> {
    let Some(asked) = asked else { return Ok(None) };
    let invalid = |message: String| Fault::new(FaultKind::Validation, message);
    let account = &call.account;
    if mode != Mode::OnDemand {
        return Err(invalid(format!(
            "Request is invalid. Stream {name} under account {account} is not in On-Demand mode."
        )));
    }
    let agreed = call.territory()?.map(|territory| territory.account_file.read()).transpose()?;
    if !agreed.is_some_and(|agreed| agreed.commitment.is_on(call.now)) {
        return Err(invalid(format!(
            "Request is invalid. Account {account} has no minimum throughput billing commitment."
        )));
    }
    let fits = u32::try_from(asked).ok().filter(|asked| *asked <= MAX_WARM_MIBPS);
    fits.map(Some).ok_or_else(|| {
        Fault::limit(format!(
            "Stream {name} under account {account} can have a warm throughput of {MAX_WARM_MIBPS} MiBps; {asked} were requested."
        ))
    })
}
