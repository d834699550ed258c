//! Formats the agent's messages and tool calls as log lines. Pure.

use std::collections::BTreeMap;

use orchestrator_contract::{Level, figures};

use super::stream::{CliMessage, ContentBlock, truncate};

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AgentLogLine {
    pub level: Level,
    pub text: String,
}

/// Maximum characters of the agent's text per line.
const MAX_CHARS: usize = 240;

/// Returns the log lines of one CLI message.
#[must_use]
pub fn log_lines(message: &CliMessage) -> Vec<AgentLogLine> {
    let info = |text: String| vec![AgentLogLine { level: Level::Info, text }];
    match message {
        CliMessage::Init(init) => {
            let short = |text: &str| truncate(text, 100);
            info(format!(
                "session {} with {} (CLI {})",
                short(&init.session_id),
                short(&init.model),
                short(&init.version)
            ))
        }
        CliMessage::Retry(retry) => {
            let status = retry.error_status.map(|status| format!(" ({status})")).unwrap_or_default();
            let error = retry.error.as_str().unwrap_or("no response");
            let text = format!(
                "model API failed{status}: {}; retry {} of {} in {:.1} s",
                truncate(error, 80),
                retry.attempt,
                retry.max_retries,
                retry.retry_delay_ms / 1000.0
            );
            vec![AgentLogLine { level: Level::Warn, text }]
        }
        CliMessage::Answer(answer) => {
            let prefix = if answer.is_subagent { "sub-agent " } else { "" };
            let line = |part: &ContentBlock| {
                let text = match part {
                    ContentBlock::Text(text) => truncate(text, MAX_CHARS),
                    ContentBlock::Tool { name, arguments } => describe_tool_call(name, arguments),
                };
                (!text.is_empty())
                    .then(|| AgentLogLine { level: Level::Info, text: format!("{prefix}{text}") })
            };
            answer.parts.iter().filter_map(line).collect()
        }
        CliMessage::Result(result) => {
            // The agent can write such a line too.
            let cost = result.total_cost_usd;
            let cost =
                if (0.0..=1e6).contains(&cost) { figures::cost(cost) } else { "unknown cost".to_owned() };
            let text = format!("{}, {cost}", figures::turns(result.num_turns));
            if result.is_error {
                vec![AgentLogLine { level: Level::Warn, text: format!("{text}: {}", result.error_text()) }]
            } else {
                info(text)
            }
        }
        CliMessage::Denied(tool) => {
            vec![AgentLogLine {
                level: Level::Warn,
                text: format!("permission denied: {}", truncate(tool, 100)),
            }]
        }
        CliMessage::ToolResult { is_error: true } => info("tool call failed".to_owned()),
        CliMessage::ToolResult { is_error: false } | CliMessage::Other | CliMessage::Unparsable => Vec::new(),
    }
}

/// Describes a tool call, such as `edits src/lib.rs`.
fn describe_tool_call(name: &str, arguments: &BTreeMap<String, String>) -> String {
    let argument = |key: &str| arguments.get(key).map(String::as_str).unwrap_or_default();
    let verb = |verb: &str, key: &str| format!("{verb} {}", argument(key));
    match name {
        "Read" => verb("reads", "file_path"),
        "Edit" | "MultiEdit" => verb("edits", "file_path"),
        "Write" => verb("writes", "file_path"),
        "NotebookEdit" => verb("edits", "notebook_path"),
        "Bash" => format!("runs {}", truncate(argument("command"), 160)),
        "Grep" | "Glob" => verb("searches for", "pattern"),
        "WebFetch" => verb("fetches", "url"),
        "WebSearch" => verb("searches the web for", "query"),
        "ToolSearch" => verb("searches for tools:", "query"),
        "Task" | "Agent" => verb("starts a sub-agent:", "description"),
        "StructuredOutput" => match argument("status") {
            "" => "reports its verdict".to_owned(),
            status => format!("reports its verdict: {status}"),
        },
        other => match other.strip_prefix("mcp__").and_then(|rest| rest.split_once("__")) {
            Some((server, tool)) => {
                let detail = ["query", "name", "path", "search"]
                    .iter()
                    .find_map(|key| arguments.get(*key))
                    .map(|text| format!(" ({})", truncate(text, 80)))
                    .unwrap_or_default();
                format!("calls {}: {}{detail}", truncate(server, 100), truncate(tool, 100))
            }
            None => format!("uses {}", truncate(other, 100)),
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
            "calls memory: search_nodes (http)"
        );
        assert_eq!(call("StructuredOutput", &[("status", "done")]), "reports its verdict: done");
        assert_eq!(call("Monitor", &[]), "uses Monitor");
    }
}
