//! What the scripted agent does: the content of `script.json` beside its executable.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A script; after its last step the agent exits with 0.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Script {
    /// Whether SIGTERM does nothing, neither to the agent nor to what it starts.
    pub ignore_term: bool,
    /// What it does, in order.
    pub steps: Vec<Step>,
}

/// One thing that an agent does.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// Prints one JSON line.
    Line { line: Value },
    /// Prints bytes as they are, several times.
    Raw { bytes: Vec<u8>, times: usize },
    /// Prints valid `stream-json` as fast as it can, this many bytes or a little more.
    Flood { bytes: u64 },
    /// Prints a single line of this many bytes.
    LongLine { bytes: u64 },
    /// Prints a line with arrays in arrays.
    Nested { depth: usize },
    /// Runs a shell script in the agent's folder, with the agent's standard output.
    Shell { script: String },
    /// Writes this many small files.
    Files { count: usize },
    /// Waits until it is killed.
    Wait,
    /// Exits.
    Exit { code: u8 },
    /// Ends by a signal, such as `SEGV`.
    Signal { name: String },
}

impl Script {
    /// A script of these steps.
    pub fn of(steps: impl IntoIterator<Item = Step>) -> Self {
        Self { ignore_term: false, steps: steps.into_iter().collect() }
    }

    /// The same with SIGTERM ignored.
    pub fn ignoring_term(self) -> Self {
        Self { ignore_term: true, ..self }
    }
}

/// The result line of a conversation that ended well.
pub fn verdict(status: &str) -> Step {
    Step::Line {
        line: json!({
            "type": "result",
            "subtype": "success",
            "is_error": false,
            "terminal_reason": "completed",
            "num_turns": 1,
            "total_cost_usd": 0.01,
            "session_id": "11111111-1111-4111-8111-111111111111",
            "structured_output": {"status": status, "summary": "Added the feature."},
            "model_usage_since_last_result": {},
        }),
    }
}

/// The result line of a conversation that ended with an error of this subtype.
pub fn error_result(subtype: &str, api_error_status: Option<u16>) -> Step {
    Step::Line {
        line: json!({
            "type": "result",
            "subtype": subtype,
            "is_error": true,
            "terminal_reason": "api_error",
            "num_turns": 1,
            "total_cost_usd": 0.01,
            "session_id": "11111111-1111-4111-8111-111111111111",
            "result": "scripted failure",
            "api_error_status": api_error_status,
            "model_usage_since_last_result": {},
        }),
    }
}

/// Runs a shell script.
pub fn shell(script: &str) -> Step {
    Step::Shell { script: script.to_owned() }
}

/// Prints bytes.
pub fn raw(bytes: impl AsRef<[u8]>) -> Step {
    Step::Raw { bytes: bytes.as_ref().to_vec(), times: 1 }
}

/// Writes a file that is worth a pull request.
pub fn work() -> Step {
    shell("echo 'pub fn added() {}' > added.rs")
}
