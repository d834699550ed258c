//! The script of the scripted agent: `script.json` beside its executable.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A script; the agent exits with 0 after its last step.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Script {
    /// Ignores SIGTERM, also in child processes.
    pub ignore_term: bool,
    pub steps: Vec<Step>,
}

/// A step of the agent.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// Prints a JSON line.
    Line {
        line: Value,
    },
    /// Prints bytes several times.
    Raw {
        bytes: Vec<u8>,
        times: usize,
    },
    /// Prints valid `stream-json` as fast as possible, at least this many bytes.
    Flood {
        bytes: u64,
    },
    /// Prints one line of this many bytes.
    LongLine {
        bytes: u64,
    },
    /// Prints a line with nested arrays.
    Nested {
        depth: usize,
    },
    /// Runs a shell script in the agent's directory, with the agent's standard output.
    Shell {
        script: String,
    },
    /// Writes small files.
    Files {
        count: usize,
    },
    /// Waits until it is killed.
    Wait,
    Exit {
        code: u8,
    },
    /// Exits by a signal, such as `SEGV`.
    Signal {
        name: String,
    },
}

impl Script {
    pub fn of(steps: impl IntoIterator<Item = Step>) -> Self {
        Self { ignore_term: false, steps: steps.into_iter().collect() }
    }

    /// Ignores SIGTERM.
    pub fn ignoring_term(self) -> Self {
        Self { ignore_term: true, ..self }
    }
}

/// The result line of a successful session.
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

/// The result line of a failed session.
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

pub fn shell(script: &str) -> Step {
    Step::Shell { script: script.to_owned() }
}

pub fn raw(bytes: impl AsRef<[u8]>) -> Step {
    Step::Raw { bytes: bytes.as_ref().to_vec(), times: 1 }
}

/// Writes a file that is worth a pull request.
pub fn work() -> Step {
    shell("echo 'pub fn added() {}' > added.rs")
}
