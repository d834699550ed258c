//! Requests that the API refuses, so that a program that breaks its rules fails here too.

use axum::http::HeaderMap;
use serde_json::Value;

/// Fields of a request for a message.
const FIELDS: &[&str] = &[
    "model",
    "messages",
    "system",
    "tools",
    "tool_choice",
    "metadata",
    "max_tokens",
    "thinking",
    "context_management",
    "output_config",
    "output_format",
    "stop_sequences",
    "stream",
    "temperature",
    "top_k",
    "top_p",
    "cache_control",
    "service_tier",
    "container",
    "mcp_servers",
    "inference_geo",
    "speed",
    "fallbacks",
];

/// Most output tokens of any model.
const MAX_TOKENS: u64 = 128_000;

/// Checks a request; returns the message of the error.
pub(super) fn check(line: &str, headers: &HeaderMap, body: &Value) -> Result<(), String> {
    if headers.get("anthropic-version").is_none_or(|version| version != "2023-06-01") {
        return Err("anthropic-version: header is required".to_owned());
    }
    let fields = body.as_object().ok_or("the body is not a JSON object")?;
    if let Some(name) = fields.keys().find(|name| !FIELDS.contains(&name.as_str())) {
        return Err(format!("{name}: Extra inputs are not permitted"));
    }
    if body["messages"].as_array().is_none_or(Vec::is_empty) {
        return Err("messages: at least one message is required".to_owned());
    }
    if line.ends_with("/count_tokens") {
        return Ok(());
    }
    let Some(max_tokens) = body["max_tokens"].as_u64().filter(|tokens| (1..=MAX_TOKENS).contains(tokens))
    else {
        return Err(format!("max_tokens: {} is not from 1 to {MAX_TOKENS}", body["max_tokens"]));
    };
    if let Some(budget) = body["thinking"]["budget_tokens"].as_u64() {
        if budget < 1024 {
            return Err(
                "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024".to_owned()
            );
        }
        if budget >= max_tokens {
            return Err("`max_tokens` must be greater than `thinking.budget_tokens`".to_owned());
        }
    }
    Ok(())
}
