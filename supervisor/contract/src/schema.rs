//! JSON Schema of the contract, generated from the types.

use serde_json::{Value, json};

/// Returns the JSON Schemas (draft 2020-12) of task spec, event and outcome in one document.
#[must_use]
pub fn schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "orchestrator contract",
        "version": crate::VERSION,
        "task": schemars::schema_for!(crate::TaskSpec),
        "event": schemars::schema_for!(crate::Event),
        "outcome": schemars::schema_for!(crate::Outcome),
    })
}
