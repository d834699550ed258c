//! Classifies the exit of the agent CLI. Pure.
//!
//! Success requires exit code 0, a result, `is_error` false, `terminal_reason`
//! "completed", and a verdict that matches the schema. Every other exit is a
//! failure with a reason.

use jiff::Timestamp;
use orchestrator_contract::Reason;
use orchestrator_contract::outcome::{Verdict, VerdictStatus};
use serde_json::{Value, json};

use super::gateway::api_error::Meaning;
use super::gateway::budget::ConversationSpending;
use super::stream::{AgentResult, truncate};
use crate::failure::Failure;
use crate::process::Exit;
use crate::program::ProgramEnd;
use crate::run::SessionOutcome;

/// Returns the JSON Schema of the verdict that ends a session (`--json-schema`).
#[must_use]
pub fn verdict_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "status": {
                "type": "string",
                "enum": ["done", "already_done", "blocked"],
                "description": "done: you completed the requested work. already_done: it was complete already. \
                                blocked: you cannot continue without an answer."
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

/// What is known about the agent CLI when it has exited.
#[derive(Clone, Copy, Debug)]
pub struct AgentExit<'a> {
    pub exit: ProgramEnd,
    /// Whether the supervisor killed it because it did not exit after its result.
    pub killed_after_result: bool,
    pub result: Option<&'a AgentResult>,
    /// The tail of its standard error.
    pub stderr: &'a str,
    /// Whether the kernel's count of out-of-memory kills increased during the session.
    pub out_of_memory: bool,
    /// What the gateway refused to the session, and what the model API answered.
    pub spent: &'a ConversationSpending,
}

/// Returns why the model API refuses to continue the conversation of a failed session.
#[must_use]
pub fn refused_conversation(end: &SessionOutcome, spent: &ConversationSpending) -> Option<String> {
    match (end, &spent.api_error) {
        (SessionOutcome::Failed(_), Some(error)) if error.meaning == Meaning::ConversationRefused => {
            Some(error.describe())
        }
        (SessionOutcome::Failed(_) | SessionOutcome::Verdict(..), _) => None,
    }
}

/// A usage limit of the model that ends by itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct UsageLimit {
    /// When the model API admits requests again, if it named a time.
    pub ends_at: Option<Timestamp>,
}

/// Returns the usage limit that ended a failed session.
#[must_use]
pub fn reached_usage_limit(end: &SessionOutcome, spent: &ConversationSpending) -> Option<UsageLimit> {
    match (end, &spent.api_error) {
        (SessionOutcome::Failed(failure), Some(error))
            if failure.reason == Reason::ModelQuotaExceeded
                && error.meaning == Meaning::UsageLimitReached =>
        {
            Some(UsageLimit { ends_at: error.retry_at })
        }
        (SessionOutcome::Failed(_) | SessionOutcome::Verdict(..), _) => None,
    }
}

/// Returns the verdict of a result, if it has a valid one.
#[must_use]
pub fn parse_verdict(result: &AgentResult) -> Option<Verdict> {
    let mut verdict: Verdict = serde_json::from_value(result.structured_output.clone()?).ok()?;
    verdict.bound();
    let valid = verdict.status != VerdictStatus::Blocked || !verdict_question(&verdict).is_empty();
    valid.then_some(verdict)
}

fn verdict_question(verdict: &Verdict) -> &str {
    verdict.question.as_deref().unwrap_or(&verdict.summary)
}

/// Classifies the exit of a session as a verdict or a failure.
#[must_use]
pub fn classify_exit(agent_exit: AgentExit<'_>) -> SessionOutcome {
    let failed = |reason, message: String| SessionOutcome::Failed(Failure::new(reason, message));
    let AgentExit { exit, killed_after_result, result, stderr, out_of_memory, spent } = agent_exit;
    let ProgramEnd::Exited(exit) = exit else {
        let message = "the agent's container ended: it ran out of memory, or it was stopped from outside";
        return failed(Reason::AgentOutOfMemory, message.to_owned());
    };
    if out_of_memory && exit != Exit::Code(0) && !killed_after_result {
        return failed(Reason::AgentOutOfMemory, format!("the agent ran out of memory ({exit})"));
    }
    let Some(result) = result else {
        let stderr = truncate(stderr, 300);
        let stderr = if stderr.is_empty() { String::new() } else { format!(": {stderr}") };
        return match exit {
            Exit::Code(126 | 127) => {
                failed(Reason::AgentCliNotFound, format!("cannot run the agent CLI ({exit}){stderr}"))
            }
            Exit::Code(_) | Exit::Signal(_) => {
                failed(Reason::AgentFailed, format!("the agent exited without a result ({exit}){stderr}"))
            }
        };
    };
    let completed = !result.is_error && result.terminal_reason.as_deref() == Some("completed");
    if completed && (exit == Exit::Code(0) || killed_after_result) {
        return match parse_verdict(result) {
            Some(verdict) => SessionOutcome::Verdict(verdict.status, verdict_question(&verdict).to_owned()),
            None => failed(Reason::AgentFailed, "the agent exited without a verdict".to_owned()),
        };
    }
    if completed {
        return failed(Reason::AgentFailed, format!("the agent returned a result, then failed ({exit})"));
    }
    match (result.api_error_status, &spent.cost_refusal, &spent.refusal) {
        (Some(402), Some(message), _) => return failed(Reason::CostLimit, message.clone()),
        (Some(403), _, Some(message)) => {
            return failed(
                Reason::AgentFailed,
                format!("the gateway refused the agent's request: {message}"),
            );
        }
        (Some(_) | None, _, _) => {}
    }
    if let Some(error) = &spent.api_error
        && matches!(error.meaning, Meaning::QuotaExceeded | Meaning::UsageLimitReached)
    {
        return failed(Reason::ModelQuotaExceeded, error.describe());
    }
    let text = match &spent.api_error {
        Some(error) if error.retry_at.is_some() => error.describe(),
        Some(_) | None => result.error_text(),
    };
    let reason = match result.subtype.as_str() {
        "error_max_turns" => Reason::TurnLimit,
        "error_max_budget_usd" => Reason::CostLimit,
        _ => reason_for_api_status(result.api_error_status, &text),
    };
    failed(reason, format!("the agent failed: {text}"))
}

fn reason_for_api_status(status: Option<u16>, text: &str) -> Reason {
    match status {
        Some(401 | 403) => Reason::ModelAuthenticationFailed,
        Some(404) => Reason::ModelNotFound,
        Some(408 | 429 | 500..=599) => Reason::ModelUnavailable,
        // Without credentials the CLI fails before it sends a request.
        None if text.contains("/login") || text.contains("Invalid API key") => {
            Reason::ModelAuthenticationFailed
        }
        Some(_) | None => Reason::AgentFailed,
    }
}

#[cfg(test)]
mod tests {
    use super::super::gateway::api_error::ApiError;
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
        let spent = ConversationSpending::default();
        let agent_exit = AgentExit {
            exit: ProgramEnd::Exited(exit),
            killed_after_result: false,
            result,
            stderr: "",
            out_of_memory: false,
            spent: &spent,
        };
        match classify_exit(agent_exit) {
            SessionOutcome::Verdict(..) => None,
            SessionOutcome::Failed(failure) => Some(failure.reason),
        }
    }

    fn successful_result() -> AgentResult {
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
            // A result without a valid verdict is a failure.
            ("success", 0, Some(Reason::AgentFailed)),
            ("structured-output", 0, Some(Reason::AgentFailed)),
            // SIGINT makes the CLI exit with 0 and an error result, or no result.
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
        assert_eq!(reason(Exit::Code(0), Some(&successful_result())), None);
        for code in 1..=255 {
            assert_eq!(
                reason(Exit::Code(code), Some(&successful_result())),
                Some(Reason::AgentFailed),
                "{code}"
            );
        }
        for signal in 1..=64 {
            assert_eq!(
                reason(Exit::Signal(signal), Some(&successful_result())),
                Some(Reason::AgentFailed),
                "{signal}"
            );
        }
        assert_eq!(reason(Exit::Code(0), None), Some(Reason::AgentFailed));
        assert_eq!(reason(Exit::Code(127), None), Some(Reason::AgentCliNotFound));
    }

    #[test]
    fn result_before_kill_keeps_verdict() {
        let result = successful_result();
        let agent_exit = AgentExit {
            exit: ProgramEnd::Exited(Exit::Signal(9)),
            killed_after_result: true,
            result: Some(&result),
            stderr: "",
            out_of_memory: false,
            spent: &ConversationSpending::default(),
        };
        assert_eq!(
            classify_exit(agent_exit),
            SessionOutcome::Verdict(VerdictStatus::Done, "did it".to_owned())
        );
    }

    #[test]
    fn request_refused_by_gateway_explains_exit() {
        let spent = ConversationSpending {
            cost_refusal: Some("the run reached its cost limit".to_owned()),
            refusal: Some("no batches".to_owned()),
            ..ConversationSpending::default()
        };
        let classify = |status: u16, spent: &ConversationSpending| {
            let result =
                AgentResult { is_error: true, api_error_status: Some(status), ..AgentResult::default() };
            let agent_exit = AgentExit {
                exit: ProgramEnd::Exited(Exit::Code(1)),
                killed_after_result: false,
                result: Some(&result),
                stderr: "",
                out_of_memory: false,
                spent,
            };
            let SessionOutcome::Failed(failure) = classify_exit(agent_exit) else { panic!("not a failure") };
            (failure.reason, failure.message)
        };
        let (reason, message) = classify(402, &spent);
        assert_eq!((reason, message.as_str()), (Reason::CostLimit, "the run reached its cost limit"));
        let (reason, message) = classify(403, &spent);
        assert!(reason == Reason::AgentFailed && message.ends_with("no batches"), "{message}");
        // Errors of the API itself keep their reasons.
        assert_eq!(classify(529, &spent).0, Reason::ModelUnavailable);
        assert_eq!(classify(403, &ConversationSpending::default()).0, Reason::ModelAuthenticationFailed);
        assert_eq!(classify(402, &ConversationSpending::default()).0, Reason::AgentFailed);
    }

    #[test]
    fn usage_limit_is_reached_only_if_time_cures_failure() {
        let now: Timestamp = "2026-11-27T10:00:00Z".parse().unwrap();
        let limit = |text: &str, retry_after: Option<&str>| {
            let body = json!({"error": {"type": "rate_limit_error", "message": text}}).to_string();
            let api_error = ApiError::parse(429, retry_after, body.as_bytes(), now);
            let spent = ConversationSpending { api_error, ..ConversationSpending::default() };
            let result =
                AgentResult { is_error: true, api_error_status: Some(429), ..AgentResult::default() };
            let end = classify_exit(AgentExit {
                exit: ProgramEnd::Exited(Exit::Code(1)),
                killed_after_result: false,
                result: Some(&result),
                stderr: "",
                out_of_memory: false,
                spent: &spent,
            });
            let verdict = SessionOutcome::Verdict(VerdictStatus::Done, String::new());
            assert_eq!(reached_usage_limit(&verdict, &spent), None, "the session succeeded after all");
            reached_usage_limit(&end, &spent)
        };
        let at = "2026-11-27T12:00:00Z".parse().unwrap();
        assert_eq!(limit("Too many requests", Some("7200")), Some(UsageLimit { ends_at: Some(at) }));
        assert_eq!(limit("You have reached your usage limit.", None), Some(UsageLimit { ends_at: None }));
        assert_eq!(limit("Your credit balance is too low.", Some("7200")), None);
        assert_eq!(limit("Too many requests", Some("20")), None, "the CLI waits for it");
    }

    #[test]
    fn oom_kill_returns_agent_out_of_memory() {
        let agent_exit = AgentExit {
            exit: ProgramEnd::Exited(Exit::Signal(9)),
            killed_after_result: false,
            result: None,
            stderr: "",
            out_of_memory: true,
            spent: &ConversationSpending::default(),
        };
        let SessionOutcome::Failed(failure) = classify_exit(agent_exit) else { panic!("not a failure") };
        assert_eq!(failure.reason, Reason::AgentOutOfMemory);
    }
}
