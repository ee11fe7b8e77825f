//! `create` and `describe`: a stream as a whole.

use clap::Args;

use crate::exit::{Exit, Failure};
use crate::open::{self, NewStreamArgs, StreamArg};
use crate::output::Output;
use crate::units::show_counted;
use crate::view::print_stream;

/// Arguments of `create`.
#[derive(Debug, Clone, Args)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    stream: StreamArg,
    #[command(flatten)]
    options: NewStreamArgs,
}

/// Makes a stream and shows what it is like.
pub(crate) fn create(args: &CreateArgs, out: &mut Output) -> Result<Exit, Failure> {
    let stream = args.options.builder().create(&args.stream.dir)?;
    let description = stream.describe()?;
    stream.close()?;
    if out.is_json() {
        print_stream(out, &description)?;
    } else {
        out.note(format_args!(
            "created {} with {}",
            args.stream.dir.display(),
            show_counted(description.shards.len() as u64, "shard")
        ));
    }
    Ok(Exit::Fine)
}

/// Shows a stream's options and contents.
pub(crate) fn describe(args: &StreamArg, out: &mut Output) -> Result<Exit, Failure> {
    let description = open::to_read(&args.dir)?.describe()?;
    print_stream(out, &description)?;
    Ok(Exit::Fine)
}
