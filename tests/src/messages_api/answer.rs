//! Responses in both formats of the API: a JSON object, or a stream of events.

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::response::{IntoResponse, Json, Response};
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use uuid::Uuid;

use super::script::{Block, FaultKind, Turn};

/// Builds the message for a request.
pub(super) fn message(turn: &Turn, request: &Value) -> Value {
    let mut content: Vec<Value> = turn.blocks.iter().map(|block| content(block, request)).collect();
    let allowed = request["max_tokens"].as_u64().unwrap_or(0);
    let is_cut = turn.usage.unwrap_or_else(|| usage_of(request, &content)).1 > allowed;
    if is_cut {
        content = vec![json!({ "type": "text", "text": "The answer does not fit" })];
    }
    let calls = content.iter().any(|block| block["type"] == "tool_use");
    let (input, output) = turn.usage.unwrap_or_else(|| usage_of(request, &content));
    let bytes = u64::try_from(request.to_string().len()).unwrap_or(u64::MAX);
    let (input, output) = (input.min(bytes), output.min(allowed));
    // As with the real API, most input of later requests is read from the cache.
    let cached = if turn.usage.is_none() { input * 9 / 10 } else { 0 };
    json!({
        "id": format!("msg_{}", Uuid::new_v4().simple()),
        "type": "message",
        "role": "assistant",
        "model": request["model"],
        "content": content,
        "stop_reason": match (is_cut, calls) {
            (true, _) => "max_tokens",
            (false, true) => "tool_use",
            (false, false) => "end_turn",
        },
        "stop_sequence": null,
        "usage": {
            "input_tokens": input - cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": cached,
            "output_tokens": output,
        },
    })
}

fn content(block: &Block, request: &Value) -> Value {
    match block {
        Block::Text(text) => json!({ "type": "text", "text": text }),
        Block::Tool(name, input) => json!({
            "type": "tool_use",
            "id": format!("toolu_{}", Uuid::new_v4().simple()),
            "name": name,
            "input": input.value(request),
        }),
    }
}

/// Estimates tokens: about four characters each.
pub(super) fn usage_of(request: &Value, content: &[Value]) -> (u64, u64) {
    let tokens = |length: usize| length as u64 / 4 + 1;
    (tokens(request.to_string().len()), tokens(content.iter().map(|block| block.to_string().len()).sum()))
}

/// Sends a message in the requested format: streamed or whole.
pub(super) fn respond(message: Value, request: &Value) -> Response {
    if request["stream"] != true {
        return Json(message).into_response();
    }
    event_stream(stream::iter(events(&message)).map(Ok).boxed())
}

/// Builds a faulty response; `None` if there is no response.
pub(super) fn faulty(kind: FaultKind, message: &Value) -> Option<Response> {
    // The start of the message and half of its first block.
    let partial = || stream::iter(events(message)).take(3).map(Ok);
    match kind {
        FaultKind::Status { status, retry_after } => {
            Some(error_with(status, error_type(status), "injected fault", retry_after))
        }
        FaultKind::Error { status, kind, text, retry_after } => {
            Some(error_with(status, kind, text, retry_after))
        }
        FaultKind::NoAnswer => None,
        FaultKind::StallsMidStream => Some(event_stream(partial().chain(stream::pending()).boxed())),
        FaultKind::DropsMidStream => {
            let broken = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
            Some(event_stream(partial().chain(stream::iter([Err(broken)])).boxed()))
        }
    }
}

fn error_with(status: u16, kind: &str, text: &str, retry_after: Option<u32>) -> Response {
    let mut response = error(status, kind, text);
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

/// Builds an error response of the API.
pub(super) fn error(status: u16, kind: &str, text: &str) -> Response {
    let status = StatusCode::from_u16(status).expect("an HTTP status");
    let request_id = format!("req_{}", Uuid::new_v4().simple());
    let body =
        json!({ "type": "error", "error": { "type": kind, "message": text }, "request_id": request_id });
    (status, Json(body)).into_response()
}

fn error_type(status: u16) -> &'static str {
    match status {
        400 => "invalid_request_error",
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        529 => "overloaded_error",
        _ => "api_error",
    }
}

fn event_stream(events: stream::BoxStream<'static, Result<Bytes, std::io::Error>>) -> Response {
    ([(CONTENT_TYPE, "text/event-stream")], Body::from_stream(events)).into_response()
}

fn events(message: &Value) -> Vec<Bytes> {
    let mut opening = message.clone();
    opening["content"] = json!([]);
    opening["stop_reason"] = Value::Null;
    opening["usage"]["output_tokens"] = json!(1);
    let mut events = vec![event(json!({ "type": "message_start", "message": opening }))];
    for (index, block) in message["content"].as_array().into_iter().flatten().enumerate() {
        let mut empty = block.clone();
        let (whole, delta, field) = if block["type"] == "text" {
            empty["text"] = json!("");
            (block["text"].as_str().unwrap_or_default().to_owned(), "text_delta", "text")
        } else {
            empty["input"] = json!({});
            (block["input"].to_string(), "input_json_delta", "partial_json")
        };
        events.push(event(json!({ "type": "content_block_start", "index": index, "content_block": empty })));
        let half = (whole.len() / 2..=whole.len()).find(|&at| whole.is_char_boundary(at)).unwrap_or(0);
        for part in [&whole[..half], &whole[half..]] {
            let mut piece = json!({ "type": delta });
            piece[field] = json!(part);
            events.push(event(json!({ "type": "content_block_delta", "index": index, "delta": piece })));
        }
        events.push(event(json!({ "type": "content_block_stop", "index": index })));
    }
    let delta = json!({ "stop_reason": message["stop_reason"], "stop_sequence": null });
    events.push(event(json!({ "type": "message_delta", "delta": delta, "usage": message["usage"] })));
    events.push(event(json!({ "type": "message_stop" })));
    events
}

fn event(data: Value) -> Bytes {
    format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap_or_default()).into()
}
