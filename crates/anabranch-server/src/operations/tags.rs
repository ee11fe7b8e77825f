//! Tags, in both their forms: of streams by name, and of resources (streams, consumers and queues) by ARN.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;

use super::target::{Resource, ResourceTarget, StreamTarget};
use super::{Call, Reply};
use crate::catalog::Part;
use crate::errors::{Fault, printed};
use crate::limits::MAX_TAGS;
use crate::profile::Bounds;
use crate::validate::{Validator, listed};
use crate::wire::{Fields, List, TextMap};

type Tags = BTreeMap<String, String>;
type Given = TextMap;

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct TagShape {
    key: String,
    value: String,
}

/// Lengths of keys and values, and how many there may be in one request.
pub(super) fn check_tags(check: &mut Validator, bounds: &Bounds, tags: &Given) {
    if tags.len() > bounds.tags_added {
        check.size("tags", "'{...}'", tags.len(), 0, bounds.tags_added);
    }
    for (key, value) in tags {
        check.length("tags.key", Some(key), 1, 128);
        check.length(&format!("tags.{}.member", printed(key)), value.as_deref(), 0, 256);
    }
}

type Keys<'a> = Vec<Option<Cow<'a, str>>>;

fn check_keys(check: &mut Validator, bounds: &Bounds, keys: Option<&Keys<'_>>) {
    check.required("tagKeys", keys);
    let Some(keys) = keys else { return };
    if !(1..=bounds.tags_named).contains(&keys.len()) {
        check.size("tagKeys", &listed(keys.iter().flatten()), keys.len(), 1, bounds.tags_named);
    }
    for (index, key) in keys.iter().enumerate() {
        let path = format!("tagKeys.{}.member", index + 1);
        check.required(&path, key.as_ref());
        check.length(&path, key.as_deref(), 1, 128);
    }
}

/// Adds tags to those that are there, or refuses all.
pub(super) fn add_tags(present: &mut Tags, given: Given, whose: &str) -> Result<(), Fault> {
    let is_allowed = |c: char| c.is_alphanumeric() || c.is_whitespace() || "_.:/=+-@".contains(c);
    for (key, value) in given {
        let value = value.unwrap_or_default();
        if !key.chars().chain(value.chars()).all(is_allowed) {
            return Err(Fault::invalid(
                "Some tags contain invalid characters. Valid characters: Unicode letters, digits, white space, _ . : / = + - @.",
            ));
        }
        present.insert(key, value);
    }
    if present.len() > MAX_TAGS {
        return Err(Fault::invalid(format!(
            "Failed to add tags to {whose} because it cannot have more than {MAX_TAGS} tags associated with it."
        )));
    }
    Ok(())
}

fn change(resource: &Resource, change: impl FnOnce(&mut Tags) -> Result<(), Fault>) -> Result<Reply, Fault> {
    resource.entry.change(|settings| {
        let (tags, _) = settings.labels_mut(resource.part).ok_or_else(|| resource.gone())?;
        change(tags)
    })?;
    Ok(Reply::Empty)
}

fn whose(resource: &Resource) -> String {
    format!("stream {} under account {}", resource.entry.name, resource.entry.account)
}

pub(super) fn add_tags_to_stream(call: &Call<'_>, mut fields: Fields<'_>) -> Result<Reply, Fault> {
    let target = StreamTarget::read(&mut fields)?;
    let tags = fields.text_map("Tags")?;
    let mut check = Validator::default();
    check_given(&mut check, call.bounds(), tags.as_ref());
    target.check(&mut check);
    check.finish()?;

    let resource = Resource { entry: target.find(call)?, part: Part::Stream };
    change(&resource, |present| add_tags(present, tags.unwrap_or_default(), &whose(&resource)))
}

fn check_given(check: &mut Validator, bounds: &Bounds, tags: Option<&Given>) {
    check.required("tags", tags);
    if let Some(tags) = tags {
        if tags.is_empty() {
            check.size("tags", "'{}'", 0, 1, bounds.tags_added);
        }
        check_tags(check, bounds, tags);
    }
}

pub(super) fn tag_resource(call: &Call<'_>, mut fields: Fields<'_>) -> Result<Reply, Fault> {
    let target = ResourceTarget::read(&mut fields)?;
    let tags = fields.text_map("Tags")?;
    let mut check = Validator::default();
    check_given(&mut check, call.bounds(), tags.as_ref());
    target.check(&mut check);
    check.finish()?;

    let resource = target.find(call)?;
    change(&resource, |present| add_tags(present, tags.unwrap_or_default(), &whose(&resource)))
}

pub(super) fn remove_tags_from_stream(call: &Call<'_>, mut fields: Fields<'_>) -> Result<Reply, Fault> {
    let target = StreamTarget::read(&mut fields)?;
    let keys = fields.list("TagKeys")?.map(List::texts).transpose()?;
    let mut check = Validator::default();
    check_keys(&mut check, call.bounds(), keys.as_ref());
    target.check(&mut check);
    check.finish()?;
    remove(&Resource { entry: target.find(call)?, part: Part::Stream }, &keys.unwrap_or_default())
}

pub(super) fn untag_resource(call: &Call<'_>, mut fields: Fields<'_>) -> Result<Reply, Fault> {
    let target = ResourceTarget::read(&mut fields)?;
    let keys = fields.list("TagKeys")?.map(List::texts).transpose()?;
    let mut check = Validator::default();
    check_keys(&mut check, call.bounds(), keys.as_ref());
    target.check(&mut check);
    check.finish()?;
    remove(&target.find(call)?, &keys.unwrap_or_default())
}

/// Keys that are not there are fine.
fn remove(resource: &Resource, keys: &Keys<'_>) -> Result<Reply, Fault> {
    change(resource, |present| {
        present.retain(|key, _| !keys.iter().flatten().any(|gone| gone == key));
        Ok(())
    })
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct StreamTagsAnswer {
    tags: Vec<TagShape>,
    has_more_tags: bool,
}

pub(super) fn list_tags_for_stream(call: &Call<'_>, mut fields: Fields<'_>) -> Result<Reply, Fault> {
    let target = StreamTarget::read(&mut fields)?;
    let after = fields.text("ExclusiveStartTagKey")?;
    let limit = fields.integer("Limit")?;
    let mut check = Validator::default();
    let most = call.bounds().tags_named;
    check.range("limit", limit, 1, i64::try_from(most).unwrap_or(i64::MAX));
    check.length("exclusiveStartTagKey", after.as_deref(), 1, 128);
    target.check(&mut check);
    check.finish()?;

    let settings = target.find(call)?.settings()?;
    let mut tags = shapes(&settings.tags);
    tags.retain(|tag| after.as_deref().is_none_or(|after| tag.key.as_str() > after));
    let most = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(most);
    let has_more_tags = tags.len() > most;
    tags.truncate(most);
    call.answer(&StreamTagsAnswer { tags, has_more_tags })
}

fn shapes(tags: &Tags) -> Vec<TagShape> {
    tags.iter().map(|(key, value)| TagShape { key: key.clone(), value: value.clone() }).collect()
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct TagsAnswer {
    tags: Vec<TagShape>,
}

pub(super) fn list_tags_for_resource(call: &Call<'_>, mut fields: Fields<'_>) -> Result<Reply, Fault> {
    let target = ResourceTarget::read(&mut fields)?;
    let mut check = Validator::default();
    target.check(&mut check);
    check.finish()?;

    let resource = target.find(call)?;
    let settings = resource.entry.settings()?;
    let (tags, _) = settings.labels(resource.part).ok_or_else(|| resource.gone())?;
    call.answer(&TagsAnswer { tags: shapes(tags) })
}
