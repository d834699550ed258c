//! The most input tokens that a request can have, before it is sent. Pure.
//!
//! A token is at least one byte of text, so bytes bound tokens. That is about four times too much
//! for ordinary text; but a conversation grows at its end, and the tokens of the part that was
//! answered before are known. Only what is new is bounded by its bytes.

use std::collections::HashMap;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::body::Prompt;

/// Most tokens of one image; the largest that the API documents is 4,784.
const IMAGE_TOKENS: u64 = 6_000;

/// Context window of the largest models; a longer prompt is rejected without a charge.
pub const CONTEXT_WINDOW: u64 = 1_000_000;

/// Tokens that the API adds to a prompt, such as for the use of tools.
const OVERHEAD_TOKENS: u64 = 2_000;

/// Tokens that the API adds to a message.
const MESSAGE_TOKENS: u64 = 16;

/// Most prompts that are remembered.
const MAX_KNOWN: usize = 4096;

/// Blocks whose tokens are bounded by their own bytes.
///
/// A reference to a tool adds the definition of the tool, which may be anywhere.
const SELF_CONTAINED: &[&str] =
    &["text", "tool_use", "tool_result", "thinking", "redacted_thinking", "image"];

type Fingerprint = [u8; 32];

/// The tokens of prompts that were answered.
#[derive(Debug, Default)]
pub struct KnownPrompts {
    tokens: HashMap<Fingerprint, u64>,
}

/// The bound of a request, and the fingerprint of its whole prompt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Estimate {
    pub max_tokens: u64,
    pub fingerprint: Fingerprint,
}

impl KnownPrompts {
    /// Returns the most input tokens that a request can have.
    #[must_use]
    pub fn estimate(&self, model: &str, prompt: &Prompt) -> Estimate {
        let mut hasher = Sha256::new();
        hasher.update(model.as_bytes());
        let mut bytes = OVERHEAD_TOKENS;
        for (name, value) in &prompt.head {
            let text = without_cache_control(value).to_string();
            bytes += length(&text);
            hash(&mut hasher, name, &text);
        }
        let largest_tool = largest_tool(prompt);
        // From the last message that is the end of a known prompt.
        let mut bound = bytes;
        for message in &prompt.messages {
            let text = without_cache_control(message).to_string();
            hash(&mut hasher, "message", &text);
            let references = blocks(message).filter(|block| block["type"] == "tool_reference").count();
            let referenced = largest_tool.saturating_mul(u64::try_from(references).unwrap_or(u64::MAX));
            let whole = message_tokens(message, &text).saturating_add(referenced);
            bytes = bytes.saturating_add(whole);
            bound = if is_self_contained(message) { bound.saturating_add(whole) } else { u64::MAX };
            let fingerprint: Fingerprint = hasher.clone().finalize().into();
            if let Some(known) = self.tokens.get(&fingerprint) {
                bound = known + OVERHEAD_TOKENS;
            }
        }
        Estimate { max_tokens: bound.min(bytes).min(CONTEXT_WINDOW), fingerprint: hasher.finalize().into() }
    }

    /// Remembers the tokens of a prompt that was answered.
    pub fn insert(&mut self, fingerprint: Fingerprint, tokens: u64) {
        if self.tokens.len() >= MAX_KNOWN {
            self.tokens.clear();
        }
        self.tokens.insert(fingerprint, tokens);
    }
}

/// Returns the bytes of the longest definition of a tool; each reference may insert it.
fn largest_tool(prompt: &Prompt) -> u64 {
    let tools = prompt.head.iter().filter(|(name, _)| name == "tools");
    let tools = tools.flat_map(|(_, tools)| tools.as_array().into_iter().flatten());
    tools.map(|tool| length(&tool.to_string())).max().unwrap_or(0)
}

fn hash(hasher: &mut Sha256, name: &str, text: &str) {
    hasher.update(name.as_bytes());
    hasher.update(length(text).to_le_bytes());
    hasher.update(text.as_bytes());
}

fn length(text: &str) -> u64 {
    u64::try_from(text.len()).unwrap_or(u64::MAX)
}

/// Returns a value without the marks of the cache, which move from request to request.
fn without_cache_control(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let rest = fields.iter().filter(|(name, _)| *name != "cache_control");
            Value::Object(rest.map(|(name, value)| (name.clone(), without_cache_control(value))).collect())
        }
        Value::Array(values) => Value::Array(values.iter().map(without_cache_control).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// Returns the most tokens of a message with this text.
fn message_tokens(message: &Value, text: &str) -> u64 {
    let mut tokens = length(text) + MESSAGE_TOKENS;
    for block in blocks(message) {
        let data = block["source"]["data"].as_str().map_or(0, length);
        match block["type"].as_str() {
            Some("image") => tokens = tokens - data + IMAGE_TOKENS,
            // A compressed document can have any number of pages.
            Some("document") if block["source"]["type"] == "base64" => tokens = CONTEXT_WINDOW,
            Some(_) | None => {}
        }
    }
    tokens
}

fn is_self_contained(message: &Value) -> bool {
    blocks(message).all(|block| block["type"].as_str().is_some_and(|kind| SELF_CONTAINED.contains(&kind)))
}

/// Returns the content blocks of a message, and those in its tool results.
fn blocks(message: &Value) -> impl Iterator<Item = &Value> {
    fn inner(block: &Value) -> &[Value] {
        let is_result = block["type"] == "tool_result";
        block["content"].as_array().filter(|_| is_result).map(Vec::as_slice).unwrap_or_default()
    }
    let outer = message["content"].as_array().map(Vec::as_slice).unwrap_or_default();
    outer.iter().flat_map(|block| std::iter::once(block).chain(inner(block)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn prompt(messages: Vec<Value>) -> Prompt {
        Prompt { messages, head: vec![("tools".to_owned(), json!([{"name": "Bash"}]))] }
    }

    fn text(text: &str) -> Value {
        json!({"role": "user", "content": [{"type": "text", "text": text}]})
    }

    fn bound(known: &KnownPrompts, messages: Vec<Value>) -> u64 {
        known.estimate("m", &prompt(messages)).max_tokens
    }

    #[test]
    fn unknown_prompt_is_bounded_by_its_bytes() {
        let tokens = bound(&KnownPrompts::default(), vec![text(&"é".repeat(5_000))]);
        assert!((10_000..10_000 + 3_000).contains(&tokens), "{tokens}");
    }

    #[test]
    fn known_prefix_counts_with_its_tokens() {
        let mut known = KnownPrompts::default();
        let start = || vec![text(&"x".repeat(50_000)), text("one")];
        known.insert(known.estimate("m", &prompt(start())).fingerprint, 12_000);
        let mut longer = start();
        longer[1]["content"][0]["cache_control"] = json!({"type": "ephemeral"});
        longer.push(text(&"y".repeat(1_000)));
        let tokens = bound(&known, longer.clone());
        assert!((13_000..16_000).contains(&tokens), "{tokens}");
        // Anything else about the prefix makes it another one.
        assert!(known.estimate("other", &prompt(longer.clone())).max_tokens > 50_000);
        longer[0] = text(&"z".repeat(50_000));
        assert!(bound(&known, longer) > 50_000);
    }

    #[test]
    fn reference_to_tool_makes_the_whole_prompt_count() {
        let mut known = KnownPrompts::default();
        let start = || vec![text(&"x".repeat(50_000))];
        known.insert(known.estimate("m", &prompt(start())).fingerprint, 100);
        let mut longer = start();
        longer.push(json!({"role": "user", "content": [{"type": "tool_result", "content": [{"type": "tool_reference"}]}]}));
        assert!(bound(&known, longer) > 50_000);
    }

    #[test]
    fn image_has_fixed_tokens_only_where_it_is_an_image() {
        let image = json!({"type": "image", "source": {"type": "base64", "data": "A".repeat(900_000)}});
        let known = KnownPrompts::default();
        let shown = bound(&known, vec![json!({"role": "user", "content": [image]})]);
        assert!((6_000..10_000).contains(&shown), "{shown}");
        let in_result = json!({"role": "user", "content": [{"type": "tool_result", "content": [image]}]});
        assert!(bound(&known, vec![in_result]) < 10_000);
        let as_text = json!({"role": "assistant", "content": [{"type": "tool_use", "input": image}]});
        assert!(bound(&known, vec![as_text]) > 900_000);
    }

    #[test]
    fn compressed_document_can_fill_the_context() {
        let document = json!({"type": "document", "source": {"type": "base64", "data": "AAAA"}});
        let tokens = bound(&KnownPrompts::default(), vec![json!({"role": "user", "content": [document]})]);
        assert_eq!(tokens, CONTEXT_WINDOW);
    }
}
