//! What the end of the agent's program means. Pure.
//!
//! Success is exit 0 AND a result AND `is_error` false AND `terminal_reason`
//! "completed" AND a verdict that the schema accepted. Everything else is
//! something else, with its own reason.

use orchestrator_contract::Reason;
use orchestrator_contract::outcome::{Verdict, VerdictStatus};
use serde_json::{Value, json};

use super::stream::{AgentResult, truncate};
use crate::failure::Failure;
use crate::process::Exit;
use crate::run::SessionOutcome;

/// The JSON Schema of the verdict that ends a conversation (`--json-schema`).
#[must_use]
pub fn verdict_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "status": {
                "type": "string",
                "enum": ["done", "already_done", "blocked"],
                "description": "done: you did what you were asked for. already_done: it was done already. \
                                blocked: you cannot go on without an answer."
            },
            "summary": {
                "type": "string",
                "description": "What you did and why, for the reviewer of the pull request, in Markdown."
            },
            "question": {
                "type": "string",
                "description": "If blocked: what you need to know."
            }
        },
        "required": ["status", "summary"],
        "additionalProperties": false
    })
}

/// Everything known when the agent's program has ended.
#[derive(Clone, Copy, Debug)]
pub struct AgentExit<'a> {
    /// How the process ended.
    pub exit: Exit,
    /// Whether we killed it because it did not leave after its result.
    pub killed_after_result: bool,
    /// Its last result.
    pub result: Option<&'a AgentResult>,
    /// The end of its standard error.
    pub stderr: &'a str,
    /// Whether the kernel's count of out-of-memory kills grew meanwhile.
    pub out_of_memory: bool,
}

/// The verdict of a result, if it has one that the schema allows.
#[must_use]
pub fn parse_verdict(result: &AgentResult) -> Option<Verdict> {
    let verdict: Verdict = serde_json::from_value(result.structured_output.clone()?).ok()?;
    let answerable = verdict.status != VerdictStatus::Blocked || !verdict_question(&verdict).is_empty();
    answerable.then_some(verdict)
}

fn verdict_question(verdict: &Verdict) -> &str {
    verdict.question.as_deref().unwrap_or(&verdict.summary)
}

/// Decides what the end of a conversation means.
#[must_use]
pub fn classify_exit(ended: AgentExit<'_>) -> SessionOutcome {
    let failed = |reason, message: String| SessionOutcome::Failed(Failure::new(reason, message));
    let AgentExit { exit, killed_after_result, result, stderr, out_of_memory } = ended;
    if out_of_memory && exit != Exit::Code(0) && !killed_after_result {
        return failed(Reason::AgentOutOfMemory, format!("the agent ran out of memory ({exit})"));
    }
    let Some(result) = result else {
        let said = truncate(stderr, 300);
        let said = if said.is_empty() { String::new() } else { format!(": {said}") };
        return match exit {
            Exit::Code(126 | 127) => {
                failed(Reason::AgentCliNotFound, format!("the agent's program cannot be run ({exit}){said}"))
            }
            Exit::Code(_) | Exit::Signal(_) => {
                failed(Reason::AgentFailed, format!("the agent ended without a result ({exit}){said}"))
            }
        };
    };
    let completed = !result.is_error && result.terminal_reason.as_deref() == Some("completed");
    if completed && (exit == Exit::Code(0) || killed_after_result) {
        return match parse_verdict(result) {
            Some(verdict) => SessionOutcome::Verdict(verdict.status, verdict_question(&verdict).to_owned()),
            None => failed(Reason::AgentFailed, "the agent ended without a verdict".to_owned()),
        };
    }
    if completed {
        return failed(Reason::AgentFailed, format!("the agent gave a result and then ended with {exit}"));
    }
    let text = result.error_text();
    let reason = match result.subtype.as_str() {
        "error_max_turns" => Reason::TurnLimit,
        "error_max_budget_usd" => Reason::CostLimit,
        _ => reason_of_api_status(result.api_error_status, &text),
    };
    failed(reason, format!("the agent ended with an error: {text}"))
}

fn reason_of_api_status(status: Option<u16>, text: &str) -> Reason {
    match status {
        Some(401 | 403) => Reason::ModelAuthenticationFailed,
        Some(404) => Reason::ModelNotFound,
        Some(408 | 429 | 500..=599) => Reason::ModelUnavailable,
        // The CLI refuses a session without credentials before it asks anybody.
        None if text.contains("/login") || text.contains("Invalid API key") => {
            Reason::ModelAuthenticationFailed
        }
        Some(_) | None => Reason::AgentFailed,
    }
}

#[cfg(test)]
mod tests {
    use super::super::stream::{CliMessage, parse_line};
    use super::*;

    fn last_result(name: &str) -> Option<AgentResult> {
        let path = format!("{}/tests/fixtures/claude-stream-json/{name}.jsonl", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        let result = |line: &str| {
            if let CliMessage::Result(result) = parse_line(line.as_bytes()) { Some(*result) } else { None }
        };
        text.lines().rev().find_map(result)
    }

    fn reason(exit: Exit, result: Option<&AgentResult>) -> Option<Reason> {
        let ended = AgentExit { exit, killed_after_result: false, result, stderr: "", out_of_memory: false };
        match classify_exit(ended) {
            SessionOutcome::Verdict(..) => None,
            SessionOutcome::Failed(failure) => Some(failure.reason),
        }
    }

    fn good() -> AgentResult {
        AgentResult {
            terminal_reason: Some("completed".to_owned()),
            structured_output: Some(json!({"status": "done", "summary": "did it"})),
            ..AgentResult::default()
        }
    }

    #[test]
    fn recorded_exits_map_to_reasons() {
        let cases = [
            ("api-error-403", 1, Some(Reason::ModelAuthenticationFailed)),
            ("api-error-529", 1, Some(Reason::ModelUnavailable)),
            ("not-logged-in", 1, Some(Reason::ModelAuthenticationFailed)),
            ("max-turns", 1, Some(Reason::TurnLimit)),
            ("max-budget", 1, Some(Reason::CostLimit)),
            ("resume-unknown", 1, Some(Reason::AgentFailed)),
            ("structured-output-fail", 1, Some(Reason::AgentFailed)),
            // A success without a verdict is none, and neither is one by another schema.
            ("success", 0, Some(Reason::AgentFailed)),
            ("structured-output", 0, Some(Reason::AgentFailed)),
            // SIGINT makes the CLI exit 0 with an error result, or with none.
            ("sigint-during-bash", 0, Some(Reason::AgentFailed)),
            ("sigint-during-api", 0, Some(Reason::AgentFailed)),
            ("sigterm-during-bash", 143, Some(Reason::AgentFailed)),
        ];
        for (name, code, expected) in cases {
            assert_eq!(reason(Exit::Code(code), last_result(name).as_ref()), expected, "{name}");
        }
    }

    #[test]
    fn success_requires_exit_zero_with_result_verdict() {
        assert_eq!(reason(Exit::Code(0), Some(&good())), None);
        for code in 1..=255 {
            assert_eq!(reason(Exit::Code(code), Some(&good())), Some(Reason::AgentFailed), "{code}");
        }
        for signal in 1..=64 {
            assert_eq!(reason(Exit::Signal(signal), Some(&good())), Some(Reason::AgentFailed), "{signal}");
        }
        assert_eq!(reason(Exit::Code(0), None), Some(Reason::AgentFailed));
        assert_eq!(reason(Exit::Code(127), None), Some(Reason::AgentCliNotFound));
    }

    #[test]
    fn result_before_kill_keeps_verdict() {
        let result = good();
        let ended = AgentExit {
            exit: Exit::Signal(9),
            killed_after_result: true,
            result: Some(&result),
            stderr: "",
            out_of_memory: false,
        };
        assert_eq!(classify_exit(ended), SessionOutcome::Verdict(VerdictStatus::Done, "did it".to_owned()));
    }

    #[test]
    fn oom_kill_returns_agent_out_of_memory() {
        let ended = AgentExit {
            exit: Exit::Signal(9),
            killed_after_result: false,
            result: None,
            stderr: "",
            out_of_memory: true,
        };
        let SessionOutcome::Failed(failure) = classify_exit(ended) else { panic!("no failure") };
        assert_eq!(failure.reason, Reason::AgentOutOfMemory);
    }
}
