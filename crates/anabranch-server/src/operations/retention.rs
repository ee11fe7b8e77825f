//! `IncreaseStreamRetentionPeriod` and `DecreaseStreamRetentionPeriod`.

use anabranch::{RetentionPeriod, Stream};

use super::target::StreamTarget;
use super::{Call, Reply};
use crate::catalog::Entry;
use crate::errors::Fault;
use crate::limits::MIN_RETENTION_HOURS;
use crate::validate::Validator;
use crate::wire::Fields;

/// The retention period in hours.
pub(super) fn hours(stream: &Stream) -> u64 {
    stream.retention().as_millis().unwrap_or(u64::MAX) / 3_600_000
}

pub(super) fn increase(call: &Call<'_>, fields: Fields<'_>) -> Result<Reply, Fault> {
    change(call, fields, |entry, stream, wanted| {
        let present = hours(stream);
        if wanted < present {
            return Err(Fault::invalid(format!(
                "Requested retention period ({wanted} hours) for stream {} can not be shorter than existing retention period \
                 ({present} hours). Use DecreaseRetentionPeriod API.",
                entry.name
            )));
        }
        stream.increase_retention(RetentionPeriod::hours(wanted)).map_err(|error| entry.fault(error))
    })
}

pub(super) fn decrease(call: &Call<'_>, fields: Fields<'_>) -> Result<Reply, Fault> {
    change(call, fields, |entry, stream, wanted| {
        let present = hours(stream);
        if wanted > present {
            return Err(Fault::invalid(format!(
                "Requested retention period ({wanted} hours) for stream {} can not be longer than existing retention period \
                 ({present} hours). Use IncreaseRetentionPeriod API.",
                entry.name
            )));
        }
        stream.decrease_retention(RetentionPeriod::hours(wanted)).map_err(|error| entry.fault(error))
    })
}

fn change(
    call: &Call<'_>,
    mut fields: Fields<'_>,
    apply: impl FnOnce(&Entry, &Stream, u64) -> Result<(), Fault>,
) -> Result<Reply, Fault> {
    let target = StreamTarget::read(&mut fields)?;
    let hours = fields.integer("RetentionPeriodHours")?;
    let mut check = Validator::default();
    check.required("retentionPeriodHours", hours.as_ref());
    target.check(&mut check);
    check.finish()?;

    let hours = hours.unwrap_or(MIN_RETENTION_HOURS);
    if hours < MIN_RETENTION_HOURS {
        return Err(Fault::invalid(format!(
            "Minimum allowed retention period is {MIN_RETENTION_HOURS} hours. Requested retention period ({hours} hours) is too short."
        )));
    }
    let most = call.bounds().retention_hours;
    if hours > most {
        return Err(Fault::invalid(format!(
            "Maximum allowed retention period is {most} hours. Requested retention period ({hours} hours) is too long."
        )));
    }
    let entry = target.find_active(call)?;
    entry.update(|| entry.reshard(|stream| apply(&entry, stream, hours.unsigned_abs())))?;
    Ok(Reply::Empty)
}
