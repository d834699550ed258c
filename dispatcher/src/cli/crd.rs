//! crd.

use super::load_context;
use crate::error::Error;
use crate::output::OutputFormat;
use crate::taskrun::crd;

/// Prints the definition of TaskRuns, for a cluster.
///
/// `dispatcher/deploy` has it already, with everything else that a cluster needs.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  dispatcher crd | kubectl apply --server-side -f -
  dispatcher crd -o json")]
pub(super) struct Arguments {}

pub(super) fn run(format: OutputFormat, Arguments {}: Arguments) -> Result<u8, Error> {
    let (_, output, _) = load_context(format)?;
    let definition = crd::definition();
    output.result(&definition, || serde_saphyr::to_string(&definition).unwrap_or_default())?;
    Ok(0)
}
