//! Arbitrary input in arbitrary pieces: messages get a response, the rest is skipped.

use std::time::Duration;

use dispatcher::mcp::stdio;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::bench::Bench;
use crate::client::server;

/// Timeout of a response.
const LIMIT: Duration = Duration::from_secs(20);

/// The first message of every input: rmcp closes the connection if the first request is not a greeting.
const FIRST: &str = r#"{"jsonrpc":"2.0","id":"the first one","method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"noise","version":"1"}}}"#;

/// The last request of every input.
const LAST: &str = r#"{"jsonrpc":"2.0","id":"the last one","method":"tools/list","params":{}}"#;

/// Valid and invalid messages of clients.
fn message() -> impl Strategy<Value = Value> {
    let id = prop_oneof![
        Just(json!(7)),
        Just(json!("seven")),
        Just(json!(null)),
        Just(json!(-1.5)),
        Just(json!([]))
    ];
    let method = prop::sample::select(vec![
        "initialize",
        "server/discover",
        "notifications/initialized",
        "notifications/cancelled",
        "ping",
        "tools/list",
        "tools/call",
        "resources/read",
        "prompts/get",
        "completion/complete",
        "no/such",
        "",
    ]);
    let parameters = prop::sample::select(vec![
        json!({}),
        json!(null),
        json!([1]),
        json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "n", "version": "1"}}),
        json!({"protocolVersion": 1}),
        json!({"name": "get_task_status", "arguments": {"run": "latest"}}),
        json!({"name": "get_task_status", "arguments": {"run": {"a": []}}}),
        json!({"name": "list_tasks", "arguments": null}),
        json!({"name": "no_such_tool"}),
        json!({"uri": "orchestrator://runs/../../etc/passwd/log"}),
        json!({"requestId": 7}),
        json!({"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}),
        json!({"_meta": {"io.modelcontextprotocol/protocolVersion": "1999-01-01", "progressToken": {}}}),
    ]);
    let request =
        (id.clone(), method, parameters, prop::bool::ANY).prop_map(|(id, method, params, notification)| {
            let mut message = json!({"jsonrpc": "2.0", "method": method, "params": params});
            if !notification {
                message["id"] = id;
            }
            message
        });
    let response = id.prop_map(|id| json!({"jsonrpc": "2.0", "id": id, "result": {}}));
    prop_oneof![4 => request, 1 => response]
}

/// A line of input, without its end.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let bytes = || vec(any::<u8>().prop_filter("no end of line", |byte| *byte != b'\n'), 0..200);
    let cut = (message(), any::<Index>()).prop_map(|(message, at)| {
        let mut text = message.to_string().into_bytes();
        text.truncate(at.index(text.len()));
        text
    });
    let changed = (message(), any::<Index>(), any::<u8>()).prop_map(|(message, at, byte)| {
        let mut text = message.to_string().into_bytes();
        let at = at.index(text.len());
        text[at] = if byte == b'\n' { b' ' } else { byte };
        text
    });
    let nested = (1_usize..5_000).prop_map(|depth| "[".repeat(depth).into_bytes());
    let whole = message().prop_map(|message| message.to_string().into_bytes());
    prop_oneof![3 => whole, 2 => bytes(), 2 => cut, 2 => changed, 1 => nested]
}

/// Returns the server's output for these bytes, sent in pieces of this size.
async fn answer(bench: &Bench, input: &[u8], piece: usize) -> Vec<u8> {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let (read, write) = tokio::io::split(theirs);
    let (mut output, mut sink) = tokio::io::split(ours);
    let talk = async {
        for piece in input.chunks(piece) {
            sink.write_all(piece).await.unwrap();
        }
        // Reads before closing the input: a disconnected server does not respond.
        let mut received = Vec::new();
        while !String::from_utf8_lossy(&received).contains(r#""id":"the last one""#) {
            let mut piece = [0; 8192];
            let length = output.read(&mut piece).await.unwrap();
            assert_ne!(length, 0, "it ended after {:?}", String::from_utf8_lossy(&received));
            received.extend_from_slice(&piece[..length]);
        }
        sink.shutdown().await.unwrap();
        output.read_to_end(&mut received).await.unwrap();
        received
    };
    let serving = stdio::serve_over(server(bench, "done"), read, write);
    let both = async { tokio::join!(talk, serving).0 };
    tokio::time::timeout(LIMIT, both).await.expect("an answer, and an end")
}

#[test]
fn request_after_noise_is_answered_with_valid_messages_only() {
    let bench = Bench::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let cases = ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(cases, |(lines in vec(line(), 0..30), piece in 1_usize..5_000)| {
        let mut input = format!("{FIRST}\n").into_bytes();
        input.extend(lines.join(&b'\n'));
        input.extend_from_slice(format!("\n{LAST}\n").as_bytes());
        let received = runtime.block_on(answer(&bench, &input, piece));
        let received = String::from_utf8(received).unwrap();
        for line in received.lines() {
            let message: Value = serde_json::from_str(line).unwrap();
            prop_assert_eq!(&message["jsonrpc"], &json!("2.0"));
            let last = message["id"] == "the last one";
            prop_assert!(!last || message["result"]["tools"].is_array(), "{}", line);
        }
    });
}
