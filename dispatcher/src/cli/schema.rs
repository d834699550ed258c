//! config-schema.

use super::load_context;
use crate::config::FileSettings;
use crate::error::Error;
use crate::output::OutputFormat;

/// Prints the JSON Schema of orchestrator.toml, for editors.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  dispatcher config-schema > orchestrator.schema.json

Then begin orchestrator.toml with the line
  #:schema ./orchestrator.schema.json")]
pub(super) struct Arguments {}

pub(super) fn run(format: OutputFormat, Arguments {}: Arguments) -> Result<u8, Error> {
    let (_, output, _) = load_context(format)?;
    let schema = FileSettings::schema();
    output.result(&schema, || serde_json::to_string_pretty(&schema).unwrap_or_default() + "\n")?;
    Ok(0)
}
