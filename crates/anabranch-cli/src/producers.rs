//! `producers`: who puts batches under a name.

use anabranch::ProducerDescription;
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::open::{self, StreamArg};
use crate::output::{Align, Output, Table};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ProducerView {
    name: String,
    epoch: u32,
    last_batch: Option<u64>,
}

impl From<ProducerDescription> for ProducerView {
    fn from(producer: ProducerDescription) -> Self {
        Self { name: producer.name, epoch: producer.epoch, last_batch: producer.last_batch }
    }
}

/// Lists the producers that a stream knows.
pub(crate) fn list(args: &StreamArg, out: &mut Output) -> Result<Exit, Failure> {
    let producers = open::to_read(&args.dir)?.producers()?;
    let views: Vec<_> = producers.into_iter().map(ProducerView::from).collect();
    if out.is_json() {
        out.value(&views)?;
        return Ok(Exit::Fine);
    }
    let mut table =
        Table::new(&[("PRODUCER", Align::Left), ("EPOCH", Align::Right), ("LAST BATCH", Align::Right)]);
    for view in views {
        let last = view.last_batch.map_or_else(|| "-".to_owned(), |number| number.to_string());
        table.row([view.name, view.epoch.to_string(), last]);
    }
    out.bytes(table.to_string().as_bytes())?;
    Ok(Exit::Fine)
}
