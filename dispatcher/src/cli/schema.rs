//! config-schema.

use super::surroundings;
use crate::config::FileSettings;
use crate::output::Format;
use crate::problem::Problem;

/// Prints the JSON Schema of orchestrator.toml, for editors.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {}

pub(super) fn run(format: Format, Arguments {}: Arguments) -> Result<u8, Problem> {
    let (_, output, _) = surroundings(format)?;
    let schema = schemars::schema_for!(FileSettings);
    output.result(&schema, || serde_json::to_string_pretty(&schema).unwrap_or_default() + "\n")?;
    Ok(0)
}
