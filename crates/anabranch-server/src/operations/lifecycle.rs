//! `CreateStream` and `DeleteStream`. A stream is there, or gone, when they answer.

use super::settings::warm_throughput;
use super::tags::{add_tags, check_tags};
use super::target::StreamTarget;
use super::{Call, Reply};
use crate::catalog::{Mode, Settings, Status};
use crate::distribution::{Distribution, STRATEGIES};
use crate::errors::{Fault, FaultKind};
use crate::limits::{DEFAULT_RECORD_KIB, MAX_RECORD_KIB, MAX_STREAM_SHARDS};
use crate::validate::Validator;
use crate::wire::Fields;

pub(super) const MODES: [&str; 2] = ["PROVISIONED", "ON_DEMAND"];

pub(super) fn create_stream(call: &Call<'_>, mut fields: Fields<'_>) -> Result<Reply, Fault> {
    let name = fields.text("StreamName")?;
    let shards = fields.integer("ShardCount")?;
    let mode = fields.structure("StreamModeDetails")?.map(|mut mode| mode.text("StreamMode")).transpose()?;
    let tags = fields.text_map("Tags")?.unwrap_or_default();
    let record_kib = fields.integer("MaxRecordSizeInKiB")?;
    let warm = fields.integer("WarmThroughputMiBps")?;
    let distribution = fields.text("RecordDistributionStrategy")?;

    let mut check = Validator::default();
    check.range("shardCount", shards, 1, 100_000);
    check.required("streamName", name.as_ref());
    check.stream_name("streamName", name.as_deref());
    if let Some(mode) = &mode {
        check.required("streamModeDetails.streamMode", mode.as_ref());
        check.one_of("streamModeDetails.streamMode", mode.as_deref(), &MODES);
    }
    check_record_size(&mut check, record_kib);
    check.range("warmThroughputMiBps", warm, 0, i64::from(u32::MAX));
    check_tags(&mut check, call.bounds(), &tags);
    check.one_of("recordDistributionStrategy", distribution.as_deref(), &STRATEGIES);
    check.finish()?;

    let mode = mode_of(mode.flatten().as_deref());
    let shards = shard_count(mode, shards, call.options.on_demand.min_shards)?;
    let mut settings = Settings::new(call.now, mode);
    settings.max_record_kib = record_kib.and_then(|kib| u32::try_from(kib).ok()).unwrap_or(DEFAULT_RECORD_KIB);
    let name = name.as_deref().unwrap_or_default();
    settings.warm_throughput_mibps = warm_throughput(call, warm, mode, name)?;
    settings.distribution = distribution.as_deref().map_or_else(Distribution::default, Distribution::named);
    check_distribution(&settings, name, &call.account)?;
    add_tags(&mut settings.tags, tags, &format!("stream {name} under account {}", call.account))?;
    let territory = if let Some(territory) = call.territory()? {
        territory
    } else {
        call.catalog.check_first((&call.account, &call.region), settings.mode, shards)?;
        call.own_territory()?
    };
    territory.create(name, settings, shards, Status::Creating)?;
    Ok(Reply::Empty)
}

pub(super) fn mode_of(text: Option<&str>) -> Mode {
    if text == Some("ON_DEMAND") { Mode::OnDemand } else { Mode::Provisioned }
}

/// The service chooses shards where it also decides how many there are.
pub(super) fn check_distribution(settings: &Settings, name: &str, account: &str) -> Result<(), Fault> {
    if settings.mode == Mode::OnDemand || settings.distribution != Distribution::Auto {
        return Ok(());
    }
    Err(Fault::invalid(format!(
        "Record distribution strategy AUTO is for streams in On-Demand mode; stream {name} under account {account} would be in Provisioned mode."
    )))
}

pub(super) fn check_record_size(check: &mut Validator, kib: Option<i64>) {
    check.range("maxRecordSizeInKiB", kib, i64::from(DEFAULT_RECORD_KIB), i64::from(MAX_RECORD_KIB));
}

fn shard_count(mode: Mode, asked: Option<i64>, on_demand: u32) -> Result<u32, Fault> {
    match (mode, asked) {
        (Mode::OnDemand, None) => Ok(on_demand),
        (Mode::OnDemand, Some(_)) => Err(Fault::new(
            FaultKind::Validation,
            "Requested ShardCount can not be specified for a stream in ON_DEMAND mode.",
        )),
        (Mode::Provisioned, None) => Err(Fault::new(
            FaultKind::Validation,
            "ShardCount must be specified for a stream in PROVISIONED mode.",
        )),
        (Mode::Provisioned, Some(count)) => match u32::try_from(count) {
            Ok(count) if count <= MAX_STREAM_SHARDS => Ok(count),
            _ => {
                Err(Fault::limit(format!("A stream can have {MAX_STREAM_SHARDS} shards; {count} were requested.")))
            }
        },
    }
}

pub(super) fn delete_stream(call: &Call<'_>, mut fields: Fields<'_>) -> Result<Reply, Fault> {
    let target = StreamTarget::read(&mut fields)?;
    let takes_consumers = fields.flag("EnforceConsumerDeletion")?;
    let mut check = Validator::default();
    target.check(&mut check);
    check.finish()?;

    let entry = target.find(call)?;
    entry.check_status(call.now, |status| status != Status::Deleting)?;
    call.own_territory()?.delete(&entry, takes_consumers)?;
    Ok(Reply::Empty)
}
