//! How to stop a run.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How to stop a run.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StopMode {
    /// Stops the agent, then saves and pushes its work.
    Graceful,
    /// Kills the agent; its work stays in the workspace and is not pushed.
    Now,
}
