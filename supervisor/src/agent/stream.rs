//! Parses one line of the CLI's `stream-json` output. Pure.
//!
//! Unknown types and subtypes are ignored, since new CLI versions add some. Large
//! parts (tool results, file contents) are never copied.

use std::borrow::Cow;
use std::collections::BTreeMap;

use orchestrator_contract::outcome::ModelUsage;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

#[derive(Clone, Debug, PartialEq)]
pub enum CliMessage {
    /// The session has started.
    Init(Init),
    /// A request to the model API failed and will be retried.
    Retry(ApiRetry),
    /// Content of the model's response.
    Answer(AssistantMessage),
    /// A tool call finished.
    ToolResult {
        /// Whether the call failed.
        is_error: bool,
    },
    /// The result; the process may print another one later.
    Result(Box<AgentResult>),
    /// The named tool was denied.
    Denied(String),
    /// A message that the supervisor ignores.
    Other,
    /// A line that is not in the CLI's format.
    Unparsable,
}

/// The message that starts a session.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct Init {
    pub session_id: String,
    pub model: String,
    /// The CLI's version.
    #[serde(rename = "claude_code_version")]
    pub version: String,
    /// The MCP servers and their status.
    pub mcp_servers: Vec<McpServerStatus>,
}

/// The status of an MCP server in the CLI.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct McpServerStatus {
    pub name: String,
    /// Such as `connected`, `failed`, `pending`.
    pub status: String,
}

/// A failed request to the model API that will be retried.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct ApiRetry {
    /// The number of the retry, starting at 1.
    pub attempt: u32,
    pub max_retries: u32,
    /// The delay before the retry, in milliseconds.
    pub retry_delay_ms: f64,
    /// The HTTP status, if there was a response.
    pub error_status: Option<u16>,
    pub error: Value,
}

/// Content of the model's response.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AssistantMessage {
    /// The message id; several lines can share it.
    pub message_id: String,
    /// Whether the message is from a sub-agent.
    pub is_subagent: bool,
    /// The content blocks.
    pub parts: Vec<ContentBlock>,
}

/// A text or a tool call of the model.
#[derive(Clone, Debug, PartialEq)]
pub enum ContentBlock {
    Text(String),
    /// A tool call.
    Tool {
        name: String,
        /// Short arguments, truncated for log lines.
        arguments: BTreeMap<String, String>,
    },
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct AgentResult {
    /// `success`, `error_max_turns`, ... An API failure is a `success` with `is_error`.
    pub subtype: String,
    /// Whether the session failed.
    pub is_error: bool,
    /// `completed`, `api_error`, `max_turns`, ...
    pub terminal_reason: Option<String>,
    /// The last text; `None` for errors.
    pub result: Option<String>,
    pub errors: Value,
    /// The HTTP status of the failed request that ended the session.
    pub api_error_status: Option<u16>,
    pub num_turns: u32,
    /// The cost in US dollars, cumulative over resumes.
    pub total_cost_usd: f64,
    /// Tokens and cost per model since the last result of this process.
    pub model_usage_since_last_result: BTreeMap<String, TokenUsage>,
    pub permission_denials: Vec<PermissionDenial>,
    pub session_id: String,
    /// The output that matches the JSON Schema.
    pub structured_output: Option<Value>,
}

/// A tool call that was denied.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct PermissionDenial {
    pub tool_name: String,
}

/// Token usage and cost of one model.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct TokenUsage {
    input_tokens: u64,
    output_tokens: u64,
    cache_read_input_tokens: u64,
    cache_creation_input_tokens: u64,
    #[serde(rename = "costUSD")]
    cost_usd: f64,
}

/// Most tokens of one kind that one result may report.
const MAX_TOKENS: u64 = 1_000_000_000_000;

/// Highest cost in US dollars that one result may report.
const MAX_COST_USD: f64 = 1e6;

impl TokenUsage {
    /// Adds these numbers to `usage`; numbers that are out of range are ignored or limited.
    pub fn add_to(&self, usage: &mut ModelUsage) {
        let Self {
            input_tokens,
            output_tokens,
            cache_read_input_tokens,
            cache_creation_input_tokens,
            cost_usd,
        } = self;
        // The agent can write such lines too.
        let add = |sum: &mut u64, tokens: &u64| *sum = sum.saturating_add((*tokens).min(MAX_TOKENS));
        add(&mut usage.input_tokens, input_tokens);
        add(&mut usage.output_tokens, output_tokens);
        add(&mut usage.cache_read_tokens, cache_read_input_tokens);
        add(&mut usage.cache_creation_tokens, cache_creation_input_tokens);
        if (0.0..=MAX_COST_USD).contains(cost_usd) {
            usage.cost_usd += cost_usd;
        }
    }
}

impl AgentResult {
    /// Returns the errors in one line.
    #[must_use]
    pub fn error_text(&self) -> String {
        let from_errors = match &self.errors {
            Value::Array(list) => list
                .iter()
                .map(|error| error.as_str().map_or_else(|| error.to_string(), str::to_owned))
                .collect(),
            Value::String(text) => vec![text.clone()],
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Vec::new(),
        };
        let text = if from_errors.is_empty() {
            self.result.clone().unwrap_or_else(|| self.subtype.clone())
        } else {
            from_errors.join("; ")
        };
        truncate(&text, 500)
    }
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(default, borrow)]
    subtype: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    message: Option<&'a RawValue>,
    #[serde(default)]
    parent_tool_use_id: Option<String>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(default)]
    id: String,
    #[serde(default, borrow)]
    content: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Block<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(default, borrow)]
    text: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    input: Option<BTreeMap<Cow<'a, str>, &'a RawValue>>,
    #[serde(default)]
    is_error: Option<bool>,
}

/// Maximum characters of an argument in a log line.
const ARGUMENT_MAX_CHARS: usize = 300;

/// Parses one line, without its line feed.
#[must_use]
pub fn parse_line(line: &[u8]) -> CliMessage {
    let Ok(text) = std::str::from_utf8(line) else { return CliMessage::Unparsable };
    let Ok(head) = serde_json::from_str::<Line<'_>>(text) else { return CliMessage::Unparsable };
    match (head.kind.as_ref(), head.subtype.as_deref()) {
        ("system", Some("init")) => parse_as(text, CliMessage::Init),
        ("system", Some("api_retry")) => parse_as(text, CliMessage::Retry),
        ("system", Some("permission_denied")) => {
            let denial = serde_json::from_str::<PermissionDenial>(text).unwrap_or_default();
            CliMessage::Denied(denial.tool_name)
        }
        ("result", _) => parse_as(text, |result| CliMessage::Result(Box::new(result))),
        ("assistant", _) => assistant_message(&head).map_or(CliMessage::Other, CliMessage::Answer),
        ("user", _) => tool_result(&head),
        _ => CliMessage::Other,
    }
}

fn parse_as<'a, T: Deserialize<'a>>(text: &'a str, wrap: impl FnOnce(T) -> CliMessage) -> CliMessage {
    serde_json::from_str(text).map_or(CliMessage::Other, wrap)
}

fn blocks<'a>(head: &Line<'a>) -> Option<(String, Vec<Block<'a>>)> {
    let message: Message<'a> = serde_json::from_str(head.message?.get()).ok()?;
    let blocks = serde_json::from_str(message.content?.get()).ok()?;
    Some((message.id, blocks))
}

fn assistant_message(head: &Line<'_>) -> Option<AssistantMessage> {
    let (message_id, blocks) = blocks(head)?;
    let content_block = |block: Block<'_>| match block.kind.as_ref() {
        "text" => Some(ContentBlock::Text(block.text?.into_owned())),
        "tool_use" => Some(ContentBlock::Tool {
            name: block.name?.into_owned(),
            arguments: block.input.unwrap_or_default().into_iter().filter_map(short_argument).collect(),
        }),
        _ => None,
    };
    let parts = blocks.into_iter().filter_map(content_block).collect();
    Some(AssistantMessage { message_id, is_subagent: head.parent_tool_use_id.is_some(), parts })
}

fn short_argument((name, value): (Cow<'_, str>, &RawValue)) -> Option<(String, String)> {
    // File contents never appear in log lines.
    if matches!(name.as_ref(), "content" | "new_string" | "old_string" | "new_source") {
        return None;
    }
    let raw = value.get();
    if raw.len() > 64 * ARGUMENT_MAX_CHARS {
        return None;
    }
    let text = if raw.starts_with('"') { serde_json::from_str(raw).ok()? } else { raw.to_owned() };
    Some((name.into_owned(), truncate(&text, ARGUMENT_MAX_CHARS)))
}

fn tool_result(head: &Line<'_>) -> CliMessage {
    let is_error = blocks(head).and_then(|(_, blocks)| {
        blocks
            .into_iter()
            .find(|block| block.kind == "tool_result")
            .map(|block| block.is_error.unwrap_or_default())
    });
    is_error.map_or(CliMessage::Other, |is_error| CliMessage::ToolResult { is_error })
}

/// Joins the words of `text` into one line of at most `limit` characters.
#[must_use]
pub fn truncate(text: &str, limit: usize) -> String {
    let mut short = String::new();
    for word in text.split_whitespace() {
        if !short.is_empty() {
            short.push(' ');
        }
        short.extend(word.chars().filter(|c| !c.is_control()).take(limit));
        if short.chars().count() > limit {
            let truncated: String = short.chars().take(limit).collect();
            return format!("{truncated}…");
        }
    }
    short
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn recordings() -> Vec<(String, String)> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/claude-stream-json");
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| {
                let name = path.file_stem().unwrap().to_string_lossy().into_owned();
                (name, std::fs::read_to_string(path).unwrap())
            })
            .collect();
        files.sort();
        files
    }

    #[test]
    fn recorded_streams_match_log_snapshot() {
        let mut log = String::new();
        for (name, text) in recordings() {
            writeln!(log, "## {name}").unwrap();
            for line in text.lines() {
                let message = parse_line(line.as_bytes());
                assert_ne!(message, CliMessage::Unparsable, "{name}: {line}");
                if let CliMessage::Result(result) = &message {
                    writeln!(
                        log,
                        "result {} {:?} {} turns",
                        result.subtype, result.terminal_reason, result.num_turns
                    )
                    .unwrap();
                }
                for line in crate::agent::log_lines::log_lines(&message) {
                    writeln!(log, "{:?} {}", line.level, line.text).unwrap();
                }
            }
        }
        insta::assert_snapshot!(log);
    }

    #[test]
    fn malformed_stream_lines_parse_as_unparsable() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let nested = format!("{{\"type\":\"assistant\",\"message\":{deep}}}");
        for line in [b"\xff\xfe".as_slice(), b"\0\0", b"{", b"null", b"{\"type\":1}", deep.as_bytes()] {
            assert_eq!(parse_line(line), CliMessage::Unparsable);
        }
        assert!(matches!(parse_line(nested.as_bytes()), CliMessage::Unparsable | CliMessage::Other));
    }

    proptest! {
        #[test]
        fn parse_line_of_arbitrary_bytes_never_panics(line in prop::collection::vec(any::<u8>(), 0..400)) {
            drop(parse_line(&line));
        }

        #[test]
        fn truncated_text_is_single_line_within_limit(text in any::<String>(), limit in 1usize..50) {
            let short = truncate(&text, limit);
            prop_assert!(short.chars().count() <= limit + 1);
            prop_assert!(!short.contains('\n'));
        }
    }
}
