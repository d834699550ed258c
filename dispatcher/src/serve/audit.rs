//! One line a call: who, from where, what, how it ended.
//!
//! Never what was said: arguments, guidance and answers stay out of it, and so
//! does the token. Names are only told if they look like names.

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

/// The longest name of a method or tool that is told.
const LONGEST: usize = 64;

/// A call, told when it ends: when this value goes.
#[derive(Debug)]
pub(super) struct AuditEntry {
    began: Instant,
    client: SocketAddr,
    identity: &'static str,
    method: String,
    tool: String,
    run: String,
    status: u16,
    result: &'static str,
}

impl AuditEntry {
    /// A call that begins now. As long as nothing else is said, its caller went away.
    pub(super) fn begin(client: SocketAddr) -> Self {
        let unknown = || "-".to_owned();
        Self {
            began: Instant::now(),
            client,
            identity: "-",
            method: unknown(),
            tool: unknown(),
            run: unknown(),
            status: 0,
            result: "cut",
        }
    }

    /// Who calls.
    pub(super) fn identified(&mut self, identity: Caller) {
        self.identity = identity.word();
    }

    /// What is asked for.
    pub(super) fn on_request(&mut self, body: &[u8]) {
        let Ok(asked) = serde_json::from_slice::<Value>(body) else { return };
        self.method = name(&asked["method"]);
        self.tool = name(&asked["params"]["name"]);
        self.record_run(&asked["params"]["arguments"]["run"]);
        debug!(target: "audit", client = %self.client, method = self.method, tool = self.tool, "call begins");
    }

    /// With which status it is answered.
    pub(super) fn answered(&mut self, status: StatusCode) {
        self.status = status.as_u16();
        self.result = if status.is_client_error() || status.is_server_error() { "refused" } else { "-" };
    }

    /// One message of the answer.
    fn on_response_chunk(&mut self, message: &[u8]) {
        let Ok(said) = serde_json::from_slice::<Value>(message) else { return };
        if said.get("error").is_some() {
            self.result = "refused";
        } else if let Some(result) = said.get("result") {
            self.result = if result["isError"] == Value::Bool(true) { "error" } else { "ok" };
            self.record_run(&result["structuredContent"]["run"]);
        }
    }

    /// A run's name, or what is told of the run.
    fn record_run(&mut self, run: &Value) {
        let run = if run.is_object() { &run["run"] } else { run };
        if let Some(run) = run.as_str().and_then(|run| RunName::new(run).ok()) {
            self.run = run.to_string();
        }
    }

    /// The same answer. The call has ended when the answer is complete; where it comes in pieces,
    /// when the last one was sent, or its reader is gone.
    pub(super) async fn follow(mut self, response: Response) -> Response {
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let in_pieces = kind.is_some_and(|kind| kind.starts_with("text/event-stream"));
        let (head, body) = response.into_parts();
        if !in_pieces {
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

    /// Reads events with a message each as they pass; one that comes in pieces is put together in `tail`.
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
        let Self { began, client, identity, method, tool, run, status, result } = self;
        let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        info!(target: "audit", %client, identity, method, tool, run, status, result, ms, "call");
    }
}

/// A name as it may stand in a log.
fn name(value: &Value) -> String {
    let fits = |name: &&str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/_-.$".contains(&byte);
        !name.is_empty() && name.len() <= LONGEST && name.bytes().all(plain)
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
        AuditEntry::begin("127.0.0.1:9".parse().unwrap())
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
