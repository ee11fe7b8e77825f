//! Resource policies of streams, consumers and queues. They are kept and given back; nobody is refused by them.

use serde::Serialize;

use super::target::{Resource, ResourceTarget};
use super::{Call, Reply};
use crate::errors::Fault;
use crate::limits::MAX_POLICY_BYTES;
use crate::validate::Validator;
use crate::wire::Fields;

/// What the service answers where there is no policy.
const NONE: &str = "{}";

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct PolicyAnswer {
    policy: String,
}

pub(super) fn get(call: &Call<'_>, fields: Fields<'_>) -> Result<Reply, Fault> {
    let resource = resource(call, fields)?;
    let settings = resource.entry.settings()?;
    let (_, policy) = settings.labels(resource.part).ok_or_else(|| resource.gone())?;
    call.answer(&PolicyAnswer { policy: policy.cloned().unwrap_or_else(|| NONE.to_owned()) })
}

pub(super) fn put(call: &Call<'_>, mut fields: Fields<'_>) -> Result<Reply, Fault> {
    let policy = fields.text("Policy")?;
    let target = ResourceTarget::read(&mut fields)?;
    let mut check = Validator::default();
    target.check(&mut check);
    check.required("policy", policy.as_ref());
    check.finish()?;
    let policy = policy.unwrap_or_default().into_owned();
    if policy.len() > MAX_POLICY_BYTES {
        return Err(Fault::limit(format!(
            "A policy can have {MAX_POLICY_BYTES} bytes; this one has {}.",
            policy.len()
        )));
    }
    if !matches!(serde_json::from_str(&policy), Ok(serde_json::Value::Object(_))) {
        return Err(Fault::invalid("The policy is no JSON document."));
    }
    set(&target.find(call)?, Some(policy))
}

pub(super) fn delete(call: &Call<'_>, fields: Fields<'_>) -> Result<Reply, Fault> {
    set(&resource(call, fields)?, None)
}

fn resource(call: &Call<'_>, mut fields: Fields<'_>) -> Result<Resource, Fault> {
    let target = ResourceTarget::read(&mut fields)?;
    let mut check = Validator::default();
    target.check(&mut check);
    check.finish()?;
    target.find(call)
}

fn set(resource: &Resource, policy: Option<String>) -> Result<Reply, Fault> {
    resource.entry.change(|settings| {
        let (_, present) = settings.labels_mut(resource.part).ok_or_else(|| resource.gone())?;
        *present = policy;
        Ok(())
    })?;
    Ok(Reply::Empty)
}

#[cfg(test)]
mod tests {
    use anabranch::{SimulatedDisk, Timestamp};

    use super::*;
    use crate::catalog::{Catalog, Common, ConsumerSettings, Mode, Part, Settings, Status};
    use crate::errors::FaultKind;

    #[test]
    fn a_policy_for_a_consumer_that_is_gone_meanwhile_is_refused() {
        let catalog = Catalog::open("/data".into(), Common::of_tests(&SimulatedDisk::new())).unwrap();
        let territory = catalog.make_territory("000000000000", "us-east-1").unwrap();
        let settings = Settings::new(Timestamp::from_millis(0), Mode::Provisioned);
        territory.create("s", settings, 1, Status::Active).unwrap();
        let consumer = ConsumerSettings {
            name: "c".to_owned(),
            arn_second: 1,
            created_ms: 0,
            tags: std::collections::BTreeMap::new(),
            policy: None,
        };
        let resource =
            Resource { entry: territory.stream("s").unwrap(), part: Part::Consumer(consumer.arn_second) };
        let put = || set(&resource, Some("{}".to_owned())).map(drop);
        assert_eq!(put().unwrap_err().kind, FaultKind::ResourceNotFound);
        let register = |settings: &mut Settings| {
            settings.consumers.push(consumer);
            Ok(())
        };
        resource.entry.change(register).unwrap();
        put().unwrap();
        assert_eq!(resource.entry.settings().unwrap().consumers[0].policy.as_deref(), Some("{}"));
    }
}
