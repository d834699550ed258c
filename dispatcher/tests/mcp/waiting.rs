//! Waiting calls and their progress notifications.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::bench::Bench;
use crate::client::{ERAS, Era, call, connect, server};

#[tokio::test]
async fn wait_timeout_reports_progress_in_both_eras() {
    for era in ERAS {
        let bench = Bench::new();
        let client = connect(server(&bench, "held"), era).await;
        call(&client, "submit_implementation_task", json!({ "task_id": 1, "service": "trader" })).await;
        let waited = call(&client, "wait_for_task", json!({ "timeout_seconds": 0.5 })).await;
        assert_eq!(waited.value["finished"], false);
        assert!(waited.text.contains("call `wait_for_task` again"), "{waited:?}");
        let reported = client.service().0.lock().unwrap().clone();
        assert!(
            reported.iter().any(|reported| reported.message.as_deref().unwrap().starts_with("Running")),
            "{reported:?}"
        );
        assert!(reported.windows(2).all(|pair| pair[0].progress < pair[1].progress), "{reported:?}");
    }
}

#[tokio::test]
async fn wait_returns_when_run_finishes() {
    let bench = Bench::new();
    let client = connect(server(&bench, "held"), Era::Stateless).await;
    let submitted =
        call(&client, "submit_implementation_task", json!({ "task_id": 1, "service": "trader" })).await;
    let waiting = call(&client, "wait_for_task", json!({ "timeout_seconds": 45 }));
    let release = async { bench.release(submitted.value["run"]["run"].as_str().unwrap()) };
    let (waited, ()) = tokio::join!(waiting, release);
    assert_eq!(waited.value["run"]["phase"], "Succeeded", "{waited:?}");
}

#[tokio::test]
async fn wait_ends_when_client_disconnects() {
    let bench = Bench::new();
    let server = server(&bench, "held");
    let closing = server.closing();
    let client = connect(server, Era::Handshake).await;
    call(&client, "submit_implementation_task", json!({ "task_id": 1, "service": "trader" })).await;
    let peer = client.peer().clone();
    let waiting = tokio::spawn(async move {
        let call = rmcp::model::CallToolRequestParams::new("wait_for_task");
        let arguments = json!({ "timeout_seconds": 45 });
        peer.call_tool(call.with_arguments(arguments.as_object().unwrap().clone())).await
    });
    let start = Instant::now();
    client.cancel().await.unwrap();
    closing.cancelled().await;
    assert!(start.elapsed() < Duration::from_secs(20));
    waiting.abort();
}
