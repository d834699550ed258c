//! Checks the tools and the content blocks of a request. Pure.

use serde_json::Value;

use super::json::short;
use super::refusal::Refusal;

/// Types of content blocks that pass: those of the CLI that only carry content.
const BLOCKS: &[&str] = &[
    "text",
    "image",
    "document",
    "tool_use",
    "tool_result",
    "thinking",
    "redacted_thinking",
    "search_result",
    "server_tool_use",
    "web_search_tool_result",
    "tool_search_tool_result",
    "tool_reference",
    "tool_addition",
    "tool_removal",
    "connector_text",
    "mid_conv_system",
];

/// Prefixes of the types of tools that pass besides tools of the client.
///
/// They run in the client, or, as the search among tools, cost nothing. The other tools of the API
/// start containers, fetch addresses or call other models.
const TOOLS: &[&str] = &["bash_", "text_editor_", "memory_", "tool_search_tool_"];

/// The tool with which the API searches the web for the CLI's `WebSearch`.
///
/// Newer versions run code in a container too.
const WEB_SEARCH: &str = "web_search_20250305";

/// Searches of one request if it does not limit them.
const DEFAULT_WEB_SEARCHES: u64 = 8;

/// Returns whether a tool type is the admitted web search.
pub fn is_web_search(kind: &str) -> bool {
    kind == WEB_SEARCH
}

/// Checks the tools; returns the number of tools that the client runs.
///
/// # Errors
/// Refuses tools that the API would run outside of the gateway's limits.
pub fn check_tools(tools: &Value) -> Result<usize, Refusal> {
    let mut of_client = 0;
    for tool in tools.as_array().into_iter().flatten() {
        of_client += usize::from(check_tool(tool)?);
    }
    Ok(of_client)
}

/// Checks a tool; returns whether the client runs it.
fn check_tool(tool: &Value) -> Result<bool, Refusal> {
    let kind = match &tool["type"] {
        Value::Null => return Ok(true),
        Value::String(kind) => kind.as_str(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => "",
    };
    if kind == "custom" {
        return Ok(true);
    }
    if is_web_search(kind) || TOOLS.iter().any(|prefix| kind.starts_with(prefix)) {
        return Ok(false);
    }
    Err(Refusal::forbidden(format!("the gateway does not admit tools of the type `{}`", short(kind))))
}

/// Returns how many web searches the API may make for a request with these tools.
#[must_use]
pub fn web_searches(tools: &Value) -> u64 {
    let searches = |tool: &Value| {
        let is_search = tool["type"].as_str().is_some_and(is_web_search);
        if is_search { tool["max_uses"].as_u64().unwrap_or(DEFAULT_WEB_SEARCHES) } else { 0 }
    };
    tools.as_array().into_iter().flatten().map(searches).fold(0, u64::saturating_add)
}

/// Checks the content blocks of all messages.
///
/// # Errors
/// Refuses blocks that make the API fetch an address or read a stored file, and unknown ones.
pub fn check_messages(messages: &[Value]) -> Result<(), Refusal> {
    for message in messages {
        for block in message["content"].as_array().into_iter().flatten() {
            check_block(block)?;
            if block["type"] == "tool_result" {
                for inner in block["content"].as_array().into_iter().flatten() {
                    check_block(inner)?;
                }
            }
        }
    }
    Ok(())
}

fn check_block(block: &Value) -> Result<(), Refusal> {
    let kind = block["type"].as_str().unwrap_or_default();
    if !BLOCKS.contains(&kind) {
        return Err(Refusal::forbidden(format!(
            "the gateway does not admit content of the type `{}`",
            short(kind)
        )));
    }
    if kind == "tool_addition" {
        let definition = &block["tool"]["definition"];
        return match check_tool(definition)? {
            true => Ok(()),
            false => Err(Refusal::forbidden("the gateway admits tools of the API in `tools` only")),
        };
    }
    if matches!(kind, "image" | "document") {
        let source = block["source"]["type"].as_str().unwrap_or_default();
        if !matches!(source, "base64" | "text" | "content") {
            return Err(Refusal::forbidden(format!(
                "the gateway does not admit content from a source of the type `{}`",
                short(source)
            )));
        }
        for inner in block["source"]["content"].as_array().into_iter().flatten() {
            if inner["type"] != "text" {
                return Err(Refusal::forbidden("the gateway admits text only inside of documents"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(block: &Value) -> bool {
        let in_message = check_messages(&[json!({"role": "user", "content": [block]})]);
        let result = json!({"type": "tool_result", "content": [block]});
        let in_result = check_messages(&[json!({"role": "user", "content": [result]})]);
        assert_eq!(in_message, in_result);
        in_message.is_ok()
    }

    #[test]
    fn content_from_addresses_and_stored_files_is_refused() {
        for kind in ["image", "document"] {
            assert!(check(&json!({"type": kind, "source": {"type": "base64", "data": ""}})));
            for source in [
                json!({"type": "url", "url": "https://example.com/x"}),
                json!({"type": "file", "file_id": "file_1"}),
                json!({}),
                json!({"type": "content", "content": [{"type": "image", "source": {"type": "url"}}]}),
            ] {
                assert!(!check(&json!({"type": kind, "source": source})), "{source}");
            }
        }
        for kind in ["container_upload", "mcp_tool_use", "compaction", ""] {
            assert!(!check(&json!({"type": kind})), "{kind}");
        }
    }

    #[test]
    fn tools_that_the_api_runs_are_refused_except_web_search() {
        let tools = json!([
            {"name": "Bash", "input_schema": {}},
            {"type": "custom", "name": "Read"},
            {"type": "web_search_20250305", "name": "web_search", "max_uses": 3},
            {"type": "bash_20250124", "name": "bash"},
        ]);
        assert_eq!(check_tools(&tools), Ok(2));
        assert_eq!(web_searches(&tools), 3);
        for kind in [
            json!("code_execution_20250825"),
            json!("web_fetch_20250910"),
            json!("web_search_20260209"),
            json!("mcp_toolset"),
            json!("advisor_20260301"),
            json!(["custom"]),
            json!(1),
        ] {
            let addition = json!({"type": "tool_addition", "tool": {"type": "tool_definition", "definition": {"type": kind}}});
            assert!(!check(&addition), "{kind}");
            assert!(check_tools(&json!([{"type": kind, "name": "x"}])).is_err(), "{kind}");
        }
    }

    #[test]
    fn tool_added_in_conversation_is_of_client() {
        let addition = |definition: Value| json!({"type": "tool_addition", "tool": {"type": "tool_definition", "definition": definition}});
        assert!(check(&addition(json!({"name": "mcp__memory__read", "input_schema": {}}))));
        assert!(!check(&addition(json!({"type": "web_search_20250305", "name": "web_search"}))));
        assert!(check(&json!({"type": "tool_addition", "tool": {"type": "tool_reference", "name": "x"}})));
    }

    #[test]
    fn text_content_passes() {
        let messages = [
            json!({"role": "user", "content": "hi"}),
            json!({"role": "system", "content": [{"type": "text", "text": "x"}]}),
        ];
        assert_eq!(check_messages(&messages), Ok(()));
    }
}
