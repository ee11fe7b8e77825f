//! Which shards were open before some of the reshards.

use std::collections::BTreeSet;

use anabranch::{ShardId, ShardSummary};

/// Those of the listed shards, which are in the order of their ids, that were open before the reshards that came later: like those that are open now, they tile the hash keys. From these, each
/// later reshard is undone, the latest first, if all of what it replaced is listed. Times of different reshards are not compared, since clocks go back.
pub(super) fn open_before(shards: &[ShardSummary], is_later: impl Fn(&ShardSummary) -> bool) -> BTreeSet<ShardId> {
    let mut open: BTreeSet<_> =
        shards.iter().filter(|shard| shard.closed.is_none()).map(|shard| shard.shard_id).collect();
    // The children of a reshard are neighbours, and stand behind their parents.
    for children in shards.chunk_by(|a, b| a.parents == b.parents).rev() {
        let is_undone = children.iter().all(|child| open.contains(&child.shard_id) && is_later(child));
        let Some(parents) = replaced_by(children, shards).filter(|_| is_undone) else { continue };
        for child in children {
            open.remove(&child.shard_id);
        }
        open.extend(parents);
    }
    open
}

/// The shards that these children took the place of, if all of either are listed.
fn replaced_by<'s>(children: &'s [ShardSummary], shards: &[ShardSummary]) -> Option<&'s [ShardId]> {
    let listed = |id: &ShardId| shards.binary_search_by_key(id, |shard| shard.shard_id).ok().map(|at| &shards[at]);
    let (first, last) = (children.first()?, children.last()?);
    let parents: Vec<_> = first.parents.iter().map(listed).collect::<Option<_>>()?;
    let is_whole = parents.first()?.hash_key_range.start() == first.hash_key_range.start()
        && parents.last()?.hash_key_range.end() == last.hash_key_range.end();
    is_whole.then_some(&first.parents)
}
