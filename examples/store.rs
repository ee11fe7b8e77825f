//! A program with many streams keeps them in one store: found by name, sharing background threads.
//!
//! ```text
//! cargo run --example store
//! ```

#![allow(clippy::print_stdout)] // a program's output, not a library's

use std::error::Error;

use anabranch::{Durability, ErrorKind, RecordsStart, RetentionPeriod, Store, Stream};

fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("tenants");

    let store = Store::open(&path)?;
    // Each stream has options of its own.
    let audit = Stream::builder().retention(RetentionPeriod::hours(30 * 24));
    store.create("acme.audit", audit)?.put("alice", "signed in")?;
    let clicks = Stream::builder().shards(4).durability(Durability::Buffered);
    store.create("acme.clicks", clicks)?;
    store.create("zenith.clicks", Stream::builder())?;

    // Names work as Kinesis' do, and are never paths.
    for (name, kind) in [
        ("acme.audit", ErrorKind::AlreadyExists),
        ("../elsewhere", ErrorKind::InvalidInput),
        ("", ErrorKind::InvalidInput),
    ] {
        let refused = store.create(name, Stream::builder()).map_err(|error| error.kind());
        assert_eq!(refused.err(), Some(kind), "{name:?}");
    }

    // A tenant's streams are the ones under its prefix.
    for tenant in ["acme", "zenith"] {
        let mut names = store.list()?;
        names.retain(|name| name.starts_with(tenant));
        println!("{tenant}: {}", names.join(", "));
    }

    // Dropping the last handle closes everything; another run finds it again by name.
    drop(store);
    let store = Store::open(&path)?;
    let audit = store.open_stream("acme.audit")?;
    let records = audit.records(RecordsStart::TrimHorizon)?.available().collect::<Result<Vec<_>, _>>()?;
    assert_eq!(records.len(), 1);
    println!("acme.audit: {} {}", records[0].partition_key(), String::from_utf8_lossy(records[0].data()));
    let again = store.open_or_create("acme.clicks", Stream::builder())?;
    assert_eq!(again.open_shards().len(), 4);

    store.delete("zenith.clicks")?;
    let gone = store.open_stream("zenith.clicks").map_err(|error| error.kind());
    assert_eq!(gone.err(), Some(ErrorKind::NotFound));
    let mut left = store.list()?;
    left.sort();
    assert_eq!(left, ["acme.audit", "acme.clicks"]);
    println!("zenith.clicks is deleted, {} streams are left", left.len());
    Ok(())
}
