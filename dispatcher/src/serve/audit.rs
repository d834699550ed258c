//! Audit log: one line per call, with caller, operation and result.
//!
//! Arguments, guidance, responses and tokens are never logged. Names are logged only if they are
//! well-formed.

use std::net::SocketAddr;
use std::time::Instant;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use futures::StreamExt as _;
use orchestrator_contract::RunName;
use serde_json::Value;
use tracing::{debug, info};

use super::auth::Caller;

/// Maximum length of a method or tool name to log.
const MAX_NAME_BYTES: usize = 64;

/// A call, logged when the entry is dropped.
#[derive(Debug)]
pub(super) struct AuditEntry {
    started: Instant,
    client: SocketAddr,
    identity: &'static str,
    method: String,
    tool: String,
    run: String,
    status: u16,
    result: &'static str,
}

impl AuditEntry {
    /// Starts an entry. Unless updated, it counts as cut off by the caller.
    pub(super) fn start(client: SocketAddr) -> Self {
        let unknown = || "-".to_owned();
        Self {
            started: Instant::now(),
            client,
            identity: "-",
            method: unknown(),
            tool: unknown(),
            run: unknown(),
            status: 0,
            result: "cut",
        }
    }

    /// Records the caller.
    pub(super) fn record_caller(&mut self, identity: Caller) {
        self.identity = identity.word();
    }

    /// Records method, tool and run of the request.
    pub(super) fn on_request(&mut self, body: &[u8]) {
        let Ok(request) = serde_json::from_slice::<Value>(body) else { return };
        self.method = name(&request["method"]);
        self.tool = name(&request["params"]["name"]);
        self.record_run(&request["params"]["arguments"]["run"]);
        debug!(target: "audit", client = %self.client, method = self.method, tool = self.tool, "call started");
    }

    /// Records the HTTP status.
    pub(super) fn record_status(&mut self, status: StatusCode) {
        self.status = status.as_u16();
        self.result = if status.is_client_error() || status.is_server_error() { "refused" } else { "-" };
    }

    /// Records one message of the response.
    fn on_response_chunk(&mut self, message: &[u8]) {
        let Ok(response) = serde_json::from_slice::<Value>(message) else { return };
        if response.get("error").is_some() {
            self.result = "refused";
        } else if let Some(result) = response.get("result") {
            self.result = if result["isError"] == Value::Bool(true) { "error" } else { "ok" };
            self.record_run(&result["structuredContent"]["run"]);
        }
    }

    /// Records a run's name, or the name in a run summary.
    fn record_run(&mut self, run: &Value) {
        let run = if run.is_object() { &run["run"] } else { run };
        if let Some(run) = run.as_str().and_then(|run| RunName::new(run).ok()) {
            self.run = run.to_string();
        }
    }

    /// Passes the response on. The call ends when the response is complete: a stream when its last
    /// chunk was sent, or its reader disconnected.
    pub(super) async fn follow(mut self, response: Response) -> Response {
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let is_stream = kind.is_some_and(|kind| kind.starts_with("text/event-stream"));
        let (head, body) = response.into_parts();
        if !is_stream {
            let Ok(whole) = to_bytes(body, usize::MAX).await else {
                return Response::from_parts(head, Body::empty());
            };
            self.on_response_chunk(&whole);
            return Response::from_parts(head, Body::from(whole));
        }
        self.result = "cut";
        let state = (body.into_data_stream(), self, Vec::new());
        let body =
            Body::from_stream(futures::stream::unfold(state, async |(mut body, mut call, mut tail)| {
                let chunk = body.next().await?;
                if let Ok(chunk) = &chunk {
                    call.read(chunk, &mut tail);
                }
                Some((chunk, (body, call, tail)))
            }));
        Response::from_parts(head, body)
    }

    /// Parses server-sent events as they pass; `tail` buffers an incomplete line.
    fn read(&mut self, chunk: &Bytes, tail: &mut Vec<u8>) {
        tail.extend_from_slice(chunk);
        while let Some(end) = tail.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = tail.drain(..=end).collect();
            if let Some(message) = line.strip_prefix(b"data:") {
                self.on_response_chunk(message);
            }
        }
    }
}

impl Drop for AuditEntry {
    fn drop(&mut self) {
        let Self { started, client, identity, method, tool, run, status, result } = self;
        let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        info!(target: "audit", %client, identity, method, tool, run, status, result, ms, "call");
    }
}

/// Returns a name that is safe to log.
fn name(value: &Value) -> String {
    let fits = |name: &&str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/_-.$".contains(&byte);
        !name.is_empty() && name.len() <= MAX_NAME_BYTES && name.bytes().all(plain)
    };
    match value {
        Value::String(text) => Some(text.as_str()).filter(fits).unwrap_or("?").to_owned(),
        Value::Null => "-".to_owned(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call() -> AuditEntry {
        AuditEntry::start("127.0.0.1:9".parse().unwrap())
    }

    #[test]
    fn audit_entry_records_names_not_arguments() {
        let mut call = call();
        call.on_request(
            br#"{"method":"tools/call","params":{"name":"submit_implementation_task",
                "arguments":{"guidance":"hush","run":"a-b-task1-attempt1"}}}"#,
        );
        assert_eq!((call.method.as_str(), call.tool.as_str()), ("tools/call", "submit_implementation_task"));
        assert_eq!(call.run, "a-b-task1-attempt1");
        assert!(!format!("{call:?}").contains("hush"));
        call.on_request(
            br#"{"method":"tools\ncall","params":{"name":["hush"],"arguments":{"run":"hush me"}}}"#,
        );
        assert_eq!(
            (call.method.as_str(), call.tool.as_str(), call.run.as_str()),
            ("?", "?", "a-b-task1-attempt1")
        );
        call.on_request(b"no JSON");
    }

    #[test]
    fn audit_entry_result_is_parsed_from_response() {
        let cases: &[(&[&str], &str, &str)] = &[
            (&["data: {\"result\":{\"structuredContent\":{\"run\":\"r-1\"}}}\n\n"], "ok", "r-1"),
            (&["data: {\"result\":{\"structuredContent\":{\"run\":{\"run\":\"r-1\"}}}}\n\n"], "ok", "r-1"),
            (&["data: {\"result\":{\"isError\":true}}\n"], "error", "-"),
            (&["data: {\"error\":{\"code\":-32602}}\n"], "refused", "-"),
            (&["id: 1\nda", "ta: {\"method\":\"notifications/progress\"}\n\n"], "cut", "-"),
            (&["data: {\"method\":\"x\"}\n\ndata: {\"resu", "lt\":{}}\n\n"], "ok", "-"),
        ];
        for (chunks, result, run) in cases {
            let (mut call, mut tail) = (call(), Vec::new());
            for chunk in *chunks {
                call.read(&Bytes::from_static(chunk.as_bytes()), &mut tail);
            }
            assert_eq!((call.result, call.run.as_str()), (*result, *run), "{chunks:?}");
        }
    }
}
