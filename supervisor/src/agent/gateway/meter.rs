//! Counts the tokens of a response while it passes: a JSON object or a stream of events. Pure.

use serde::Deserialize;
use serde_json::Value;

use super::prices::{NanoUsd, Price, WEB_SEARCH};

/// Maximum bytes of one line of a stream, or of a whole response, that the meter keeps.
const MAX_KEPT_BYTES: usize = 32 * 1024 * 1024;

/// Maximum of one figure; larger ones are not believed.
const MAX_FIGURE: u64 = 100_000_000;

/// Tokens and web searches that a response reported.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tokens {
    /// Input tokens, without those read from or written to the cache.
    pub input: u64,
    pub output: u64,
    pub cache_read: u64,
    pub cache_write_5m: u64,
    pub cache_write_1h: u64,
    pub web_searches: u64,
    /// Whether the request was processed in a region with a surcharge of a tenth.
    pub surcharge: bool,
}

impl Tokens {
    /// Returns the tokens of the prompt, cached or not.
    #[must_use]
    pub fn prompt(&self) -> u64 {
        self.input + self.cache_read + self.cache_write_5m + self.cache_write_1h
    }

    /// Returns the cost at a price.
    #[must_use]
    pub fn cost(&self, price: &Price) -> NanoUsd {
        let rates = price.rates(self.prompt());
        let tokens = self.input * rates.input
            + self.output * rates.output
            + self.cache_read * rates.cache_read
            + self.cache_write_5m * rates.cache_write_5m
            + self.cache_write_1h * rates.cache_write_1h;
        let tokens = if self.surcharge { tokens + tokens / 10 } else { tokens };
        tokens + self.web_searches * WEB_SEARCH
    }

    /// Adds the tokens and searches of another response.
    pub fn accumulate(&mut self, other: &Self) {
        self.input += other.input;
        self.output += other.output;
        self.cache_read += other.cache_read;
        self.cache_write_5m += other.cache_write_5m;
        self.cache_write_1h += other.cache_write_1h;
        self.web_searches += other.web_searches;
    }

    fn max(self, other: &Self) -> Self {
        Self {
            input: self.input.max(other.input),
            output: self.output.max(other.output),
            cache_read: self.cache_read.max(other.cache_read),
            cache_write_5m: self.cache_write_5m.max(other.cache_write_5m),
            cache_write_1h: self.cache_write_1h.max(other.cache_write_1h),
            web_searches: self.web_searches.max(other.web_searches),
            surcharge: self.surcharge || other.surcharge,
        }
    }
}

/// What a response reported when it was complete.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answer {
    pub tokens: Tokens,
    /// The model that answered.
    pub model: String,
}

/// The field `usage` of the API.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Usage {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    cache_creation: Option<CacheCreation>,
    server_tool_use: Option<ServerToolUse>,
    inference_geo: Option<String>,
    /// Several samplings of one request; the figures above may be those of the last.
    iterations: Option<Vec<Value>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CacheCreation {
    ephemeral_5m_input_tokens: Option<u64>,
    ephemeral_1h_input_tokens: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ServerToolUse {
    web_search_requests: Option<u64>,
}

fn figure(value: Option<u64>) -> u64 {
    value.unwrap_or(0).min(MAX_FIGURE)
}

/// Reads a `usage` object; `None` if it is none.
fn read_usage(value: &Value) -> Option<Tokens> {
    let usage = Usage::deserialize(value.as_object().map(|_| value)?).ok()?;
    let written = figure(usage.cache_creation_input_tokens);
    let creation = usage.cache_creation.unwrap_or_default();
    let hour = figure(creation.ephemeral_1h_input_tokens);
    let tokens = Tokens {
        input: figure(usage.input_tokens),
        output: figure(usage.output_tokens),
        cache_read: figure(usage.cache_read_input_tokens),
        cache_write_5m: written.saturating_sub(hour).max(figure(creation.ephemeral_5m_input_tokens)),
        cache_write_1h: hour,
        web_searches: figure(usage.server_tool_use.unwrap_or_default().web_search_requests),
        surcharge: usage.inference_geo.as_deref() == Some("us"),
    };
    let mut sum = Tokens::default();
    for iteration in usage.iterations.iter().flatten().take(1000).filter_map(read_usage) {
        sum.accumulate(&iteration);
    }
    Some(tokens.max(&sum))
}

/// Reads the usage of a response while its bytes pass.
#[derive(Debug)]
pub struct ResponseMeter {
    is_stream: bool,
    /// An incomplete line of a stream, or a whole response.
    kept: Vec<u8>,
    /// Whether the response had more bytes than are kept.
    overflowed: bool,
    answer: Option<Answer>,
    complete: bool,
}

impl ResponseMeter {
    /// Creates a meter for a stream of events, or for a JSON object.
    #[must_use]
    pub fn new(is_stream: bool) -> Self {
        Self { is_stream, kept: Vec::new(), overflowed: false, answer: None, complete: false }
    }

    /// Reads the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        if !self.is_stream {
            self.keep(bytes);
            return;
        }
        let mut rest = bytes;
        while let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = rest.split_at(at);
            rest = &after[1..];
            if self.kept.is_empty() {
                self.read_line(line);
            } else {
                self.keep(line);
                let line = std::mem::take(&mut self.kept);
                self.read_line(&line);
            }
        }
        self.keep(rest);
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.kept.len() + bytes.len() > MAX_KEPT_BYTES {
            self.overflowed = true;
            self.kept.clear();
        } else if !self.overflowed {
            self.kept.extend_from_slice(bytes);
        }
    }

    fn read_line(&mut self, line: &[u8]) {
        let Some(data) = line.strip_prefix(b"data:") else { return };
        // The many events of content are not parsed.
        if !contains(data, b"message_") {
            return;
        }
        let Ok(event) = serde_json::from_slice::<Value>(data) else { return };
        match event["type"].as_str() {
            Some("message_start") => {
                if let Some(tokens) = read_usage(&event["message"]["usage"]) {
                    let model = event["message"]["model"].as_str().unwrap_or_default().to_owned();
                    self.answer = Some(Answer { tokens, model });
                }
            }
            Some("message_delta") => {
                // Its figures are totals; those that are missing did not change.
                if let (Some(answer), Some(tokens)) = (&mut self.answer, read_usage(&event["usage"])) {
                    answer.tokens = answer.tokens.max(&tokens);
                    self.complete |= event["delta"]["stop_reason"].is_string();
                }
            }
            Some("message_stop") => self.complete = true,
            Some(_) | None => {}
        }
    }

    /// Returns whether a stream reported its last figures.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Returns what a complete response reported; `None` if it was cut or reported nothing.
    #[must_use]
    pub fn finish(mut self) -> Option<Answer> {
        if self.is_stream {
            let rest = std::mem::take(&mut self.kept);
            self.read_line(&rest);
            return self.answer.filter(|_| self.complete && !self.overflowed);
        }
        let message: Value = serde_json::from_slice(&self.kept).ok()?;
        let tokens = read_usage(&message["usage"])?;
        Some(Answer { tokens, model: message["model"].as_str().unwrap_or_default().to_owned() })
    }
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::prices::find_price;
    use super::*;

    const STREAM: &str = concat!(
        "event: message_start\n",
        "data: {\"type\":\"message_start\",\"message\":{\"model\":\"claude-sonnet-5-5\",\"usage\":",
        "{\"input_tokens\":100,\"cache_creation_input_tokens\":30,\"cache_read_input_tokens\":7,",
        "\"cache_creation\":{\"ephemeral_5m_input_tokens\":10,\"ephemeral_1h_input_tokens\":20},",
        "\"output_tokens\":1}}}\r\n\r\n",
        "data: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"message_delta {\\\"usage\\\"\"}}\n\n",
        "data:{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},",
        "\"usage\":{\"output_tokens\":50,\"server_tool_use\":{\"web_search_requests\":2}}}\n\n",
        "data: {\"type\":\"message_stop\"}\n\n",
    );

    fn tokens() -> Tokens {
        Tokens {
            input: 100,
            output: 50,
            cache_read: 7,
            cache_write_5m: 10,
            cache_write_1h: 20,
            web_searches: 2,
            surcharge: false,
        }
    }

    fn read(chunks: &[&[u8]], is_stream: bool) -> Option<Answer> {
        let mut meter = ResponseMeter::new(is_stream);
        for chunk in chunks {
            meter.push(chunk);
        }
        meter.finish()
    }

    #[test]
    fn stream_is_counted_wherever_it_is_divided() {
        let text = STREAM.as_bytes();
        for at in 0..text.len() {
            let answer = read(&[&text[..at], &text[at..]], true).expect("a complete stream");
            assert_eq!((answer.tokens, answer.model.as_str()), (tokens(), "claude-sonnet-5-5"), "{at}");
        }
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(read(&bytes, true).map(|answer| answer.tokens), Some(tokens()));
    }

    #[test]
    fn cut_stream_is_not_confirmed() {
        let end = STREAM.find("data:{\"type\":\"message_delta\"").unwrap();
        assert_eq!(read(&[&STREAM.as_bytes()[..end]], true), None);
        assert_eq!(read(&[b""], true), None);
        // The usage of a stream without its start is unknown.
        assert_eq!(read(&[&STREAM.as_bytes()[end..]], true), None);
    }

    #[test]
    fn whole_response_is_counted() {
        let message = json!({"model": "claude-haiku-5-5", "usage": {"input_tokens": 3, "output_tokens": 4}});
        let text = message.to_string();
        let answer = read(&[text.as_bytes()], false).unwrap();
        assert_eq!((answer.tokens.input, answer.tokens.output), (3, 4));
        assert_eq!(read(&[&text.as_bytes()[..20]], false), None);
        assert_eq!(read(&[b"{}"], false), None);
    }

    #[test]
    fn sum_of_iterations_counts_if_it_is_larger() {
        let usage = json!({
            "input_tokens": 10, "output_tokens": 5,
            "iterations": [{"input_tokens": 1000, "output_tokens": 100}, {"input_tokens": 10, "output_tokens": 5}],
        });
        let tokens = read_usage(&usage).unwrap();
        assert_eq!((tokens.input, tokens.output), (1010, 105));
    }

    #[test]
    fn absurd_figures_are_bounded() {
        let usage =
            json!({"input_tokens": u64::MAX, "output_tokens": u64::MAX, "cache_read_input_tokens": u64::MAX});
        let tokens = read_usage(&usage).unwrap();
        assert_eq!(tokens.input, MAX_FIGURE);
        // Does not overflow at the dearest price.
        assert!(tokens.cost(&find_price("claude-opus-4").unwrap()) > 0);
        assert_eq!(read_usage(&json!({"input_tokens": -5})), None);
        assert_eq!(read_usage(&json!(null)), None);
    }

    #[test]
    fn cost_adds_all_kinds_of_tokens_and_searches() {
        let price = find_price("claude-sonnet-5-5").unwrap();
        let expected = 100 * 2_000 + 50 * 10_000 + 7 * 100 + 10 * 2_500 + 20 * 4_000 + 2 * 10_000_000;
        assert_eq!(tokens().cost(&price), expected);
        let regional = Tokens { surcharge: true, web_searches: 0, ..tokens() };
        assert_eq!(regional.cost(&price), (expected - 20_000_000) / 10 * 11);
    }
}
