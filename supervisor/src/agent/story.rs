//! What a person reads of the agent's work: one short line for what it says and does. Pure.

use std::collections::BTreeMap;

use orchestrator_contract::Level;

use super::stream::{Part, Said, shorten};

/// A line of the story.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Line {
    /// How much it matters.
    pub level: Level,
    /// What happened.
    pub text: String,
}

/// Longest line of the agent's own words.
const WORDS: usize = 240;

/// What to tell of something that the agent's program said.
#[must_use]
pub fn tell(said: &Said) -> Vec<Line> {
    let info = |text: String| vec![Line { level: Level::Info, text }];
    match said {
        Said::Init(init) => {
            info(format!("conversation {} with {} (CLI {})", init.session_id, init.model, init.version))
        }
        Said::Retry(retry) => {
            let status = retry.error_status.map(|status| format!(" ({status})")).unwrap_or_default();
            let error = retry.error.as_str().unwrap_or("no answer");
            let text = format!(
                "the model's service failed{status}: {}; try {} of {} in {:.1} s",
                shorten(error, 80),
                retry.attempt,
                retry.max_retries,
                retry.retry_delay_ms / 1000.0
            );
            vec![Line { level: Level::Warn, text }]
        }
        Said::Answer(answer) => {
            let who = if answer.is_subagent { "sub-agent " } else { "" };
            let line = |part: &Part| {
                let text = match part {
                    Part::Text(text) => shorten(text, WORDS),
                    Part::Tool { name, arguments } => describe_call(name, arguments),
                };
                (!text.is_empty()).then(|| Line { level: Level::Info, text: format!("{who}{text}") })
            };
            answer.parts.iter().filter_map(line).collect()
        }
        Said::Result(result) => {
            let text = format!("turns {}, cost ${:.4}", result.num_turns, result.total_cost_usd);
            if result.is_error {
                vec![Line { level: Level::Warn, text: format!("{text}: {}", result.error_text()) }]
            } else {
                info(text)
            }
        }
        Said::Denied(tool) => vec![Line { level: Level::Warn, text: format!("was denied {tool}") }],
        Said::ToolResult { is_error: true } => info("that failed".to_owned()),
        Said::ToolResult { is_error: false } | Said::Other | Said::Garbage => Vec::new(),
    }
}

/// A call of a tool in words: `edits src/lib.rs`.
fn describe_call(name: &str, arguments: &BTreeMap<String, String>) -> String {
    let argument = |key: &str| arguments.get(key).map(String::as_str).unwrap_or_default();
    let verb = |verb: &str, key: &str| format!("{verb} {}", argument(key));
    match name {
        "Read" => verb("reads", "file_path"),
        "Edit" | "MultiEdit" => verb("edits", "file_path"),
        "Write" => verb("writes", "file_path"),
        "NotebookEdit" => verb("edits", "notebook_path"),
        "Bash" => format!("runs {}", shorten(argument("command"), 160)),
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
                    .map(|text| format!(" ({})", shorten(text, 80)))
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
        describe_call(name, &arguments)
    }

    #[test]
    fn calls_read_like_a_story() {
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
