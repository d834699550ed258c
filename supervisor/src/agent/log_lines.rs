//! What a person reads of the agent's work: one short line for what it says and does. Pure.

use std::collections::BTreeMap;

use orchestrator_contract::Level;

use super::stream::{CliMessage, ContentBlock, truncate};

/// A line of the story.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AgentLogLine {
    /// How much it matters.
    pub level: Level,
    /// What happened.
    pub text: String,
}

/// Longest line of the agent's own words.
const MAX_CHARS: usize = 240;

/// What to tell of something that the agent's program said.
#[must_use]
pub fn log_lines(said: &CliMessage) -> Vec<AgentLogLine> {
    let info = |text: String| vec![AgentLogLine { level: Level::Info, text }];
    match said {
        CliMessage::Init(init) => {
            info(format!("conversation {} with {} (CLI {})", init.session_id, init.model, init.version))
        }
        CliMessage::Retry(retry) => {
            let status = retry.error_status.map(|status| format!(" ({status})")).unwrap_or_default();
            let error = retry.error.as_str().unwrap_or("no answer");
            let text = format!(
                "the model's service failed{status}: {}; try {} of {} in {:.1} s",
                truncate(error, 80),
                retry.attempt,
                retry.max_retries,
                retry.retry_delay_ms / 1000.0
            );
            vec![AgentLogLine { level: Level::Warn, text }]
        }
        CliMessage::Answer(answer) => {
            let who = if answer.is_subagent { "sub-agent " } else { "" };
            let line = |part: &ContentBlock| {
                let text = match part {
                    ContentBlock::Text(text) => truncate(text, MAX_CHARS),
                    ContentBlock::Tool { name, arguments } => describe_tool_call(name, arguments),
                };
                (!text.is_empty()).then(|| AgentLogLine { level: Level::Info, text: format!("{who}{text}") })
            };
            answer.parts.iter().filter_map(line).collect()
        }
        CliMessage::Result(result) => {
            let text = format!("turns {}, cost ${:.4}", result.num_turns, result.total_cost_usd);
            if result.is_error {
                vec![AgentLogLine { level: Level::Warn, text: format!("{text}: {}", result.error_text()) }]
            } else {
                info(text)
            }
        }
        CliMessage::Denied(tool) => {
            vec![AgentLogLine { level: Level::Warn, text: format!("was denied {tool}") }]
        }
        CliMessage::ToolResult { is_error: true } => info("that failed".to_owned()),
        CliMessage::ToolResult { is_error: false } | CliMessage::Other | CliMessage::Unparseable => {
            Vec::new()
        }
    }
}

/// A call of a tool in words: `edits src/lib.rs`.
fn describe_tool_call(name: &str, arguments: &BTreeMap<String, String>) -> String {
    let argument = |key: &str| arguments.get(key).map(String::as_str).unwrap_or_default();
    let verb = |verb: &str, key: &str| format!("{verb} {}", argument(key));
    match name {
        "Read" => verb("reads", "file_path"),
        "Edit" | "MultiEdit" => verb("edits", "file_path"),
        "Write" => verb("writes", "file_path"),
        "NotebookEdit" => verb("edits", "notebook_path"),
        "Bash" => format!("runs {}", truncate(argument("command"), 160)),
        "Grep" | "Glob" => verb("looks for", "pattern"),
        "WebFetch" => verb("fetches", "url"),
        "WebSearch" => verb("searches the web for", "query"),
        "ToolSearch" => verb("looks for tools:", "query"),
        "Task" | "Agent" => verb("starts a sub-agent:", "description"),
        "StructuredOutput" => match argument("status") {
            "" => "gives its verdict".to_owned(),
            status => format!("gives its verdict: {status}"),
        },
        other => match other.strip_prefix("mcp__").and_then(|rest| rest.split_once("__")) {
            Some((server, tool)) => {
                let what = ["query", "name", "path", "search"]
                    .iter()
                    .find_map(|key| arguments.get(*key))
                    .map(|text| format!(" ({})", truncate(text, 80)))
                    .unwrap_or_default();
                format!("asks {server}: {tool}{what}")
            }
            None => format!("uses {other}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(name: &str, arguments: &[(&str, &str)]) -> String {
        let arguments = arguments.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        describe_tool_call(name, &arguments)
    }

    #[test]
    fn tool_calls_render_as_activity_text() {
        assert_eq!(call("Edit", &[("file_path", "src/lib.rs")]), "edits src/lib.rs");
        assert_eq!(call("Bash", &[("command", "cargo test\n  --workspace")]), "runs cargo test --workspace");
        assert_eq!(
            call("mcp__memory__search_nodes", &[("query", "http")]),
            "asks memory: search_nodes (http)"
        );
        assert_eq!(call("StructuredOutput", &[("status", "done")]), "gives its verdict: done");
        assert_eq!(call("Monitor", &[]), "uses Monitor");
    }
}
