//! What an opening removes on the manifest's word, and whether it is what the manifest takes it for.

use std::io::ErrorKind;
use std::path::Path;

use super::open::SHARDS_DIRECTORY;
use super::salvage::shard_directories;
use crate::format::{ManifestState, SEGMENT_HEADER_BYTES, SegmentHeader, parse_segment_name};
use crate::storage::{Access, Corruption, Fault, Storage, list_if_there};
use crate::types::{SequenceNumber, ShardId, StreamId};

/// Where a segment belongs.
type Place = (StreamId, ShardId, SequenceNumber);

/// The leftovers that are segments of another stream, shard or place: directories, or MANIFESTs, were put in each other's place. They are no leftovers
/// where they belong.
pub(super) fn misplaced(
    storage: &dyn Storage,
    path: &Path,
    state: &ManifestState,
) -> Result<Vec<Corruption>, Fault> {
    let mut found = Vec::new();
    for id in shard_directories(storage, path)? {
        let entry = state.shard(id);
        let holds_none = entry.map_or(id >= state.next_shard_id, |entry| entry.first == SequenceNumber::ZERO);
        if holds_none {
            continue;
        }
        let directory = path.join(SHARDS_DIRECTORY).join(id.directory());
        for file in list_if_there(storage, &directory)?.iter().filter(|file| !file.is_dir) {
            let first = parse_segment_name(&file.name);
            let Some(first) = first.filter(|first| entry.is_none_or(|entry| *first < entry.first)) else {
                continue;
            };
            let path = directory.join(&file.name);
            if place_of(storage, &path)?.is_some_and(|place| place != (state.stream_id, id, first)) {
                let reason = "it is a segment of another stream, shard or place";
                found.push(Corruption::new(&path, 0, reason).of_shard(id).of_records(first, None));
            }
        }
    }
    Ok(found)
}

/// Where a file belongs by its header. One without a sound header, or that is gone by now, does not tell.
fn place_of(storage: &dyn Storage, path: &Path) -> Result<Option<Place>, Fault> {
    let file = match storage.open_file(path, Access::Read) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(Fault::io("open", path))?,
    };
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    let read = file.read_at(&mut bytes, 0).unwrap_or(0);
    let header = Some(&bytes).filter(|_| read == bytes.len()).and_then(|bytes| SegmentHeader::decode(bytes).ok());
    Ok(header.map(|header| (header.stream_id, header.shard_id, header.first)))
}
