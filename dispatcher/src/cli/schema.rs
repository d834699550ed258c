//! `dispatcher config-schema`.

use super::context::load_environment;
use crate::config::FileSettings;
use crate::error::Error;
use crate::output::OutputFormat;

/// Print the JSON Schema of orchestrator.toml, for editors
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  dispatcher config-schema > orchestrator.schema.json

Then start orchestrator.toml with this line:
  #:schema ./orchestrator.schema.json")]
pub(super) struct Arguments {}

pub(super) fn run(format: OutputFormat, Arguments {}: Arguments) -> Result<u8, Error> {
    let (_, output, _) = load_environment(format)?;
    let schema = FileSettings::schema();
    output.result(&schema, || serde_json::to_string_pretty(&schema).unwrap_or_default() + "\n")?;
    Ok(0)
}
