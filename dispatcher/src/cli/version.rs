//! `dispatcher version`.

use serde_json::json;

use super::context::load_environment;
use crate::error::Error;
use crate::output::OutputFormat;

/// Version and commit of this program, as `--version` prints them.
pub(super) const VERSION: &str =
    concat!(env!("CARGO_PKG_VERSION"), " (commit ", env!("ORCHESTRATOR_BUILD_COMMIT"), ")");

/// Print the version and the commit that it was built from
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  dispatcher version
  dispatcher version -o json")]
pub(super) struct Arguments {}

pub(super) fn run(format: OutputFormat, arguments: Arguments) -> Result<u8, Error> {
    let Arguments {} = arguments;
    let (_, output, _) = load_environment(format)?;
    let value = json!({ "version": env!("CARGO_PKG_VERSION"), "commit": env!("ORCHESTRATOR_BUILD_COMMIT") });
    output.result(&value, || format!("dispatcher {VERSION}\n"))?;
    Ok(0)
}
