//! `DescribeAccountSettings` and `UpdateAccountSettings`.

use serde::Serialize;

use super::{Call, Reply};
use crate::catalog::{Commitment, CommitmentStatus};
use crate::errors::Fault;
use crate::validate::Validator;
use crate::wire::{Fields, Time};

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct AccountAnswer {
    minimum_throughput_billing_commitment: CommitmentShape,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct CommitmentShape {
    status: CommitmentStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    earliest_allowed_end_at: Option<Time>,
}

pub(super) fn describe_account_settings(call: &Call<'_>, _: Fields<'_>) -> Result<Reply, Fault> {
    let settings = call.territory()?.map(|territory| territory.account_file.read()).transpose()?;
    answer(call, settings.unwrap_or_default().commitment)
}

pub(super) fn update_account_settings(call: &Call<'_>, mut fields: Fields<'_>) -> Result<Reply, Fault> {
    let mut commitment = fields.structure("MinimumThroughputBillingCommitment")?;
    let status = commitment.as_mut().map(|commitment| commitment.text("Status")).transpose()?.flatten();
    let mut check = Validator::default();
    check.required("minimumThroughputBillingCommitment", commitment.as_ref());
    if commitment.is_some() {
        check.required("minimumThroughputBillingCommitment.status", status.as_ref());
        check.one_of("minimumThroughputBillingCommitment.status", status.as_deref(), &["ENABLED", "DISABLED"]);
    }
    check.finish()?;

    let commitment = call.own_territory()?.account_file.change(|settings| {
        match status.as_deref() {
            Some("ENABLED") => settings.commitment.enable(call.now),
            _ => settings.commitment.disable(call.now),
        }
        settings.commitment
    })?;
    answer(call, commitment)
}

fn answer(call: &Call<'_>, commitment: Commitment) -> Result<Reply, Fault> {
    call.answer(&AccountAnswer {
        minimum_throughput_billing_commitment: CommitmentShape {
            status: commitment.status(call.now),
            started_at: commitment.started().map(Time),
            ended_at: commitment.ended(call.now).map(Time),
            earliest_allowed_end_at: commitment.earliest_end(call.now).map(Time),
        },
    })
}
