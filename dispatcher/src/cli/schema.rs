//! config-schema.

use super::surroundings;
use crate::config::FileSettings;
use crate::output::Format;
use crate::problem::Problem;

/// Prints the JSON Schema of orchestrator.toml, for editors.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  dispatcher config-schema > orchestrator.schema.json

Then begin orchestrator.toml with the line
  #:schema ./orchestrator.schema.json")]
pub(super) struct Arguments {}

pub(super) fn run(format: Format, Arguments {}: Arguments) -> Result<u8, Problem> {
    let (_, output, _) = surroundings(format)?;
    let schema = FileSettings::schema();
    output.result(&schema, || serde_json::to_string_pretty(&schema).unwrap_or_default() + "\n")?;
    Ok(0)
}
