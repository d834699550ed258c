//! config-schema.

use super::Session;
use crate::config::FileSettings;
use crate::problem::Problem;

/// Prints the JSON Schema of orchestrator.toml, for editors.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {}

pub(super) fn run(session: &Session, Arguments {}: Arguments) -> Result<u8, Problem> {
    let schema = schemars::schema_for!(FileSettings);
    session.output.result(&schema, || serde_json::to_string_pretty(&schema).unwrap_or_default() + "\n")?;
    Ok(0)
}
