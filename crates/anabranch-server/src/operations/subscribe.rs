//! `SubscribeToShard`: what comes before the first event.

use std::sync::Arc;

use super::position::{Start, open_reader};
use super::target::ConsumerTarget;
use super::write::dry_run;
use super::{Call, Reply};
use crate::catalog::Status;
use crate::errors::Fault;
use crate::subscription::Subscription;
use crate::validate::Validator;
use crate::wire::Fields;

pub(super) fn subscribe_to_shard(call: &Call<'_>, mut fields: Fields<'_>) -> Result<Reply, Fault> {
    let target = ConsumerTarget::read(&mut fields)?;
    let shard = fields.text("ShardId")?;
    let mut position = fields.structure("StartingPosition")?;
    let kind = position.as_mut().map(|position| position.text("Type")).transpose()?.flatten();
    let number = position.as_mut().map(|position| position.text("SequenceNumber")).transpose()?.flatten();
    let timestamp = position.as_mut().map(|position| position.time("Timestamp")).transpose()?.flatten();
    let is_dry = fields.flag("DryRun")?;

    let mut check = Validator::default();
    target.check_arn(&mut check);
    check.required("shardId", shard.as_ref());
    check.name("shardId", shard.as_deref());
    check.required("startingPosition", position.as_ref());
    if position.is_some() {
        check.required("startingPosition.type", kind.as_ref());
    }
    let start = Start {
        kind: kind.as_deref().unwrap_or("LATEST"),
        sequence_number: number.as_deref(),
        timestamp,
        operation: "SubscribeToShard",
    };
    start.check(&mut check, "startingPosition.type", "startingPosition.sequenceNumber");
    check.finish()?;

    let (entry, consumer) = target.find(call)?;
    entry.check_serves(call.now)?;
    if entry.consumer_status(&consumer, call.now) != Status::Active {
        return Err(Fault::in_use(format!("Consumer {} is not ACTIVE.", consumer.name)));
    }
    let stream = entry.stream()?;
    let shard_id = entry.shard(shard.as_deref().unwrap_or_default())?;
    let position = start.resolve(&entry, &stream, shard_id, call.now)?;
    if is_dry {
        return Err(dry_run());
    }
    let reader = open_reader(&entry, &stream, shard_id, position)?;
    // By what no other registration has, be it of the same name; and any is a name there.
    let payer = consumer.arn_second.to_string();
    let reader = reader.dedicated(&payer).map_err(|error| entry.fault(error))?;
    // Nothing fails from here on but for a reason that ends the one before too: that one goes on otherwise.
    let ticket = entry.subscribers.begin(consumer.arn_second, shard_id, call.now)?;
    target.find(call)?; // whoever deregisters the consumer from here on ends the subscription
    let of = (Arc::clone(&entry), payer);
    let subscription = Subscription::new(of, shard_id, reader, ticket, call);
    Ok(Reply::Events(Box::new(subscription)))
}
