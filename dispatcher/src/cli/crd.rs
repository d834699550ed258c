//! `dispatcher crd`.

use super::context::load_environment;
use crate::error::Error;
use crate::output::OutputFormat;
use crate::taskrun::crd;

/// Print the Kubernetes CustomResourceDefinition of TaskRuns
///
/// `dispatcher/deploy` contains it together with all other manifests.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  dispatcher crd | kubectl apply --server-side -f -
  dispatcher crd -o json")]
pub(super) struct Arguments {}

pub(super) fn run(format: OutputFormat, Arguments {}: Arguments) -> Result<u8, Error> {
    let (_, output, _) = load_environment(format)?;
    let definition = crd::definition();
    output.result(&definition, || serde_saphyr::to_string(&definition).unwrap_or_default())?;
    Ok(0)
}
