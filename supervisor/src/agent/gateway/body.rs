//! Checks the body of a request for a message, and limits what it may cost. Pure.
//!
//! Fields that the CLI sends pass. Fields that are known to cost more, to reach outside or to name
//! another model are refused. Other fields are removed: the API never sees a field that is unknown
//! here, and the outcome names it.

use std::collections::BTreeSet;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::blocks::{check_messages, check_tools, web_searches};
use super::json::{parse_fields, parse_strict, short};
use super::models::Models;
use super::refusal::{Refusal, RefusalKind};

/// Fields that pass unchanged.
const PASSED: &[&str] = &[
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
];

/// Fields that are refused, with the reason.
const REFUSED: &[(&str, &str)] = &[
    ("container", "the gateway does not admit containers of the API"),
    ("mcp_servers", "the gateway does not admit MCP servers of the API"),
    ("fallbacks", "the gateway does not admit other models"),
    ("fallback_credit_token", "the gateway does not admit other models"),
    ("inference_geo", "the gateway does not admit a region with a surcharge"),
    ("skills", "the gateway does not admit skills of the API"),
];

/// Fewest tokens of a thinking budget that the API accepts.
const MIN_THINKING_BUDGET: u64 = 1024;

/// A checked request.
#[derive(Debug)]
pub struct MessageRequest {
    fields: Vec<(String, Box<RawValue>)>,
    pub model: String,
    /// Most output tokens, including those of thinking; 0 for a count of tokens.
    pub max_tokens: u64,
    pub is_stream: bool,
    /// Whether it is a turn of a conversation: it offers tools of the client.
    pub offers_tools: bool,
    /// Most web searches of the API that it may start.
    pub web_searches: u64,
    /// Whether a part of the prompt may be written to the cache for more than 5 minutes.
    pub caches_hour: bool,
    /// Names of the fields that were removed.
    pub removed: BTreeSet<String>,
    /// What the model reads, for the estimate of input tokens.
    pub prompt: Prompt,
}

/// The parts of a request that the model reads.
#[derive(Debug, Default)]
pub struct Prompt {
    pub messages: Vec<Value>,
    /// Fields besides the messages that change what the model reads.
    pub head: Vec<(String, Value)>,
}

/// What a body is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Purpose {
    Message,
    CountTokens,
}

fn malformed(message: impl Into<String>) -> Refusal {
    Refusal::new(RefusalKind::Malformed, message)
}

impl MessageRequest {
    /// Parses and checks a body.
    ///
    /// # Errors
    /// Refuses a body that is malformed, ambiguous, or asks for something that is not admitted.
    pub fn parse(body: &[u8], purpose: Purpose, models: &Models) -> Result<Self, Refusal> {
        let mut fields = parse_fields(body).map_err(|error| malformed(format!("invalid body: {error}")))?;
        let mut removed = BTreeSet::new();
        for (name, value) in &fields {
            if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| refused == name) {
                return Err(Refusal::forbidden(format!("{why} (field `{name}`)")));
            }
            check_price_field(name, value.get())?;
            if !PASSED.contains(&name.as_str()) {
                removed.insert(short(name));
            }
        }
        fields.retain(|(name, _)| PASSED.contains(&name.as_str()));
        let field = |name: &str| -> Result<Value, Refusal> {
            let Some((_, raw)) = fields.iter().find(|(known, _)| known == name) else {
                return Ok(Value::Null);
            };
            parse_strict(raw.get()).map_err(|error| malformed(format!("invalid `{name}`: {error}")))
        };
        let model = field("model")?;
        let model = model.as_str().ok_or_else(|| malformed("`model` is missing"))?.to_owned();
        models.check(&model)?;
        let max_tokens = match (purpose, field("max_tokens")?) {
            (Purpose::CountTokens, _) => 0,
            (Purpose::Message, value) => {
                value.as_u64().ok_or_else(|| malformed("`max_tokens` is not a number of tokens"))?
            }
        };
        let tools = field("tools")?;
        let client_tools = check_tools(&tools)?;
        let Value::Array(messages) = field("messages")? else {
            return Err(malformed("`messages` is not a list"));
        };
        check_messages(&messages)?;
        check_context_management(&field("context_management")?)?;
        let mut head = vec![("tools".to_owned(), tools.clone())];
        for name in ["system", "thinking", "context_management", "output_config", "output_format"] {
            head.push((name.to_owned(), field(name)?));
        }
        head.push(("cache_control".to_owned(), json!({"cache_control": field("cache_control")?})));
        let caches_hour =
            head.iter().any(|(_, value)| caches_hour(value)) || messages.iter().any(caches_hour);
        Ok(Self {
            caches_hour,
            is_stream: field("stream")? == Value::Bool(true),
            offers_tools: client_tools > 1,
            web_searches: web_searches(&tools),
            model,
            max_tokens,
            removed,
            prompt: Prompt { messages, head },
            fields,
        })
    }

    /// Limits the output tokens, and with them the thinking budget.
    pub fn limit_output(&mut self, max_tokens: u64) {
        if max_tokens >= self.max_tokens {
            return;
        }
        self.max_tokens = max_tokens;
        self.replace("max_tokens", &json!(max_tokens));
        let thinking = self.prompt.head.iter().find(|(name, _)| name == "thinking");
        let Some(budget) = thinking.and_then(|(_, value)| value["budget_tokens"].as_u64()) else { return };
        if budget >= max_tokens {
            // The API requires at least 1,024 tokens of thinking, and fewer than the maximum.
            let half = max_tokens / 2;
            let value = if half >= MIN_THINKING_BUDGET {
                json!({"type": "enabled", "budget_tokens": half})
            } else {
                json!({"type": "disabled"})
            };
            self.replace("thinking", &value);
        }
    }

    /// Limits the web searches that the API may make.
    pub fn limit_web_searches(&mut self, searches: u64) {
        if searches >= self.web_searches {
            return;
        }
        self.web_searches = searches;
        let tools = self.prompt.head.iter().find(|(name, _)| name == "tools");
        let Some((_, mut tools)) = tools.cloned() else { return };
        for tool in tools.as_array_mut().into_iter().flatten() {
            if tool["type"].as_str().is_some_and(super::blocks::is_web_search) {
                tool["max_uses"] = json!(searches);
            }
        }
        self.replace("tools", &tools);
    }

    fn replace(&mut self, name: &str, value: &Value) {
        let Ok(raw) = serde_json::value::to_raw_value(value) else { return };
        if let Some((_, field)) = self.fields.iter_mut().find(|(known, _)| known == name) {
            *field = raw;
        }
    }

    /// Returns the body to forward: the admitted fields, each with its own text.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut body = vec![b'{'];
        for (name, value) in &self.fields {
            if body.len() > 1 {
                body.push(b',');
            }
            // The names are those of `PASSED`, which need no escapes.
            body.extend(format!("\"{name}\":").bytes());
            body.extend_from_slice(value.get().as_bytes());
        }
        body.push(b'}');
        body
    }
}

/// Refuses values of fields that raise the price.
fn check_price_field(name: &str, text: &str) -> Result<(), Refusal> {
    let allowed: &[&str] = match name {
        "service_tier" => &["\"standard_only\"", "\"auto\"", "null"],
        "speed" => &["\"standard\"", "null"],
        _ => return Ok(()),
    };
    if allowed.contains(&text) {
        return Ok(());
    }
    Err(Refusal::forbidden(format!(
        "the gateway does not admit this value of `{name}`, which raises the price"
    )))
}

/// Returns whether a value has a mark of the cache for more than 5 minutes.
fn caches_hour(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.iter().any(|(name, value)| {
            let ttl = value.get("ttl").filter(|_| name == "cache_control");
            ttl.is_some_and(|ttl| *ttl != "5m") || caches_hour(value)
        }),
        Value::Array(values) => values.iter().any(caches_hour),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Admits edits that only remove content; others make the API call a model once more.
fn check_context_management(value: &Value) -> Result<(), Refusal> {
    for edit in value["edits"].as_array().into_iter().flatten() {
        let kind = edit["type"].as_str().unwrap_or_default();
        if !kind.starts_with("clear_") {
            return Err(Refusal::forbidden(format!(
                "the gateway does not admit the context edit `{}`",
                short(kind)
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(changes: &Value) -> Value {
        let mut body = json!({
            "model": "claude-sonnet-5-5",
            "max_tokens": 32_000,
            "messages": [{"role": "user", "content": "hello"}],
            "stream": true,
        });
        for (name, value) in changes.as_object().unwrap() {
            body[name] = value.clone();
        }
        body
    }

    fn parse(changes: &Value) -> Result<MessageRequest, Refusal> {
        let models = Models::of_task("sonnet", &[]);
        MessageRequest::parse(request(changes).to_string().as_bytes(), Purpose::Message, &models)
    }

    fn forwarded(request: &MessageRequest) -> Value {
        serde_json::from_slice(&request.to_bytes()).unwrap()
    }

    #[test]
    fn ordinary_request_passes_byte_for_byte() {
        let text = br#"{"model":"claude-sonnet-5-5","messages":[{"role":"user","content":"\u0068i"}],"max_tokens":10,"metadata":{"user_id":"z", "b":1}}"#;
        let models = Models::of_task("sonnet", &[]);
        let request = MessageRequest::parse(text, Purpose::Message, &models).unwrap();
        assert_eq!(request.to_bytes(), text);
        assert!(!request.is_stream && request.removed.is_empty());
    }

    #[test]
    fn fields_that_cost_or_reach_outside_are_refused() {
        for changes in [
            json!({"container": "c"}),
            json!({"container": {"skills": []}}),
            json!({"mcp_servers": [{"type": "url", "url": "https://example.com"}]}),
            json!({"fallbacks": [{"model": "claude-opus-4"}]}),
            json!({"fallback_credit_token": "t"}),
            json!({"inference_geo": "us"}),
            json!({"service_tier": "priority"}),
            json!({"speed": "fast"}),
            json!({"model": "claude-opus-5-5"}),
            json!({"context_management": {"edits": [{"type": "compact_20260112"}]}}),
        ] {
            let refusal = parse(&changes).expect_err(&changes.to_string());
            assert_eq!(refusal.kind, RefusalKind::Forbidden, "{changes}");
        }
    }

    #[test]
    fn unknown_fields_are_removed_and_named() {
        let request = parse(&json!({"new_feature": {"a": 1}, "speed": "standard"})).unwrap();
        assert_eq!(request.removed.iter().map(String::as_str).collect::<Vec<_>>(), ["new_feature", "speed"]);
        assert_eq!(forwarded(&request).get("new_feature"), None);
        assert_eq!(forwarded(&request).get("speed"), None);
    }

    #[test]
    fn malformed_bodies_are_refused() {
        let models = Models::of_task("sonnet", &[]);
        let repeated = r#"{"model":"claude-sonnet-5-5","max_tokens":1,"max_tokens":90000,"messages":[]}"#;
        let hidden = r#"{"model":"claude-sonnet-5-5","max_tokens":1,"messages":[{"role":"user","content":[{"type":"text","type":"document","text":"x"}]}]}"#;
        for text in ["", "[]", "hello", "{}", r#"{"model":1}"#, repeated, hidden] {
            let refusal = MessageRequest::parse(text.as_bytes(), Purpose::Message, &models).unwrap_err();
            assert_eq!(refusal.kind, RefusalKind::Malformed, "{text}: {refusal:?}");
        }
        for max_tokens in [json!(-1), json!(1.5), json!("9"), json!(null), json!(1e300)] {
            let refusal = parse(&json!({"max_tokens": max_tokens})).unwrap_err();
            assert_eq!(refusal.kind, RefusalKind::Malformed);
        }
    }

    #[test]
    fn output_limit_keeps_thinking_budget_valid() {
        let with_budget = |budget: u64| json!({"thinking": {"type": "enabled", "budget_tokens": budget}});
        let limited = |changes: &Value, limit: u64| {
            let mut request = parse(changes).unwrap();
            request.limit_output(limit);
            forwarded(&request)
        };
        let body = limited(&with_budget(16_000), 8_000);
        assert_eq!((&body["max_tokens"], &body["thinking"]["budget_tokens"]), (&json!(8_000), &json!(4_000)));
        let body = limited(&with_budget(2_000), 8_000);
        assert_eq!(body["thinking"]["budget_tokens"], 2_000);
        let body = limited(&with_budget(16_000), 1_500);
        assert_eq!(body["thinking"], json!({"type": "disabled"}));
        let body = limited(&json!({}), 100_000);
        assert_eq!(body["max_tokens"], 32_000);
    }

    #[test]
    fn cache_for_an_hour_is_found_at_any_depth() {
        let cached =
            |cache: Value| json!({"system": [{"type": "text", "text": "x", "cache_control": cache}]});
        assert!(!parse(&cached(json!({"type": "ephemeral"}))).unwrap().caches_hour);
        assert!(!parse(&cached(json!({"type": "ephemeral", "ttl": "5m"}))).unwrap().caches_hour);
        assert!(parse(&cached(json!({"type": "ephemeral", "ttl": "1h"}))).unwrap().caches_hour);
        assert!(parse(&json!({"cache_control": {"type": "ephemeral", "ttl": "24h"}})).unwrap().caches_hour);
    }

    #[test]
    fn web_searches_are_limited_in_forwarded_tools() {
        let tools = json!([{"type": "web_search_20250305", "name": "web_search", "max_uses": 8}]);
        let mut request = parse(&json!({"tools": tools})).unwrap();
        assert_eq!((request.web_searches, request.offers_tools), (8, false));
        request.limit_web_searches(2);
        assert_eq!(forwarded(&request)["tools"][0]["max_uses"], 2);
    }
}
