//! Complete conversations, from submission to stop.

use rmcp::model::{
    ArgumentInfo, CompleteRequestParams, GetPromptRequestParams, ReadResourceRequestParams, Reference,
};
use serde_json::json;

use crate::bench::Bench;
use crate::client::{Era, call, connect, server, steady, text_of};

const FIRST: &str = "trader-claude-agent-1-task1-attempt1";

#[tokio::test]
async fn failed_first_task_is_retried_with_guidance() {
    let bench = Bench::new();
    let client = connect(server(&bench, "failing"), Era::Stateless).await;
    let submitted = call(
        &client,
        "submit_implementation_task",
        json!({
            "task_id": "1", "service": "trader", "agent": "claude-agent-1", "model": "sonnet",
            "repository_url": "git@github.com:myorg/trader.git",
        }),
    )
    .await;
    assert!(!submitted.is_error);
    assert_eq!(
        (submitted.value["result"].as_str(), submitted.value["run"]["run"].as_str()),
        (Some("created"), Some(FIRST))
    );
    insta::assert_snapshot!("submitted", steady(&submitted.text, &bench));

    bench.release(FIRST);
    let waited = call(&client, "wait_for_task", json!({ "run": FIRST })).await;
    assert_eq!(waited.value["finished"], true);
    insta::assert_snapshot!("failed", steady(&waited.text, &bench));

    let again =
        call(&client, "submit_implementation_task", json!({ "task_id": 1, "service": "trader" })).await;
    assert!(again.is_error);
    insta::assert_snapshot!("refused", again.text);

    // "Retry the last task but tell the agent to use reqwest" gives no other argument.
    let retried = call(
        &client,
        "submit_implementation_task",
        json!({ "retry": true, "guidance": "Use the reqwest crate instead of curl." }),
    )
    .await;
    insta::assert_snapshot!("retried", steady(&retried.text, &bench));
    bench.release("trader-claude-agent-1-task1-attempt2");
    call(&client, "wait_for_task", json!({})).await;

    let next = call(
        &client,
        "submit_implementation_task",
        json!({ "task_id": 2, "service": "trader", "working_directory": "trading-engine" }),
    )
    .await;
    insta::assert_snapshot!("next", steady(&next.text, &bench));
    bench.release("trader-claude-agent-1-task2-attempt1");
    call(&client, "wait_for_task", json!({})).await;
    let list = call(&client, "list_tasks", json!({ "phase": "failed" })).await;
    assert_eq!(list.value["runs"].as_array().unwrap().len(), 3);
    insta::assert_snapshot!("list", steady(&list.text, &bench));
}

#[tokio::test]
async fn active_run_is_inspected_then_stopped() {
    let bench = Bench::new();
    let client = connect(server(&bench, "held"), Era::Handshake).await;
    call(&client, "submit_implementation_task", json!({ "task_id": 1, "service": "trader" })).await;
    let same =
        call(&client, "submit_implementation_task", json!({ "task_id": 1, "service": "trader" })).await;
    assert_eq!(same.value["result"], "already_running");

    let status = call(&client, "get_task_status", json!({ "run": "the current task" })).await;
    assert_eq!(status.value["run"]["phase"], "Running");
    insta::assert_snapshot!("running", steady(&status.text, &bench));

    let logs = call(&client, "get_task_logs", json!({})).await;
    assert_eq!(logs.value["lines"].as_array().unwrap().len(), 1);
    insta::assert_snapshot!("logs", steady(&logs.text, &bench));
    let next = logs.value["next_cursor"].clone();
    let rest = call(&client, "get_task_logs", json!({ "cursor": next })).await;
    assert!(rest.text.contains("no new lines"), "{rest:?}");

    let stopped = call(&client, "stop_task", json!({ "service": "trader" })).await;
    assert_eq!(stopped.value["state"], "stopped", "{stopped:?}");
    insta::assert_snapshot!("stopped", steady(&stopped.text, &bench));
    let again = call(&client, "stop_task", json!({})).await;
    assert_eq!(again.value["state"], "already_finished", "{again:?}");
}

#[tokio::test]
async fn slow_stop_is_answered_immediately() {
    let bench = Bench::new();
    let client = connect(server(&bench, "stubborn"), Era::Stateless).await;
    call(&client, "submit_implementation_task", json!({ "task_id": 1, "service": "trader" })).await;
    let stopping = call(&client, "stop_task", json!({})).await;
    assert_eq!(stopping.value["state"], "stopping", "{stopping:?}");
    assert!(
        stopping.text.contains("was asked to stop") && stopping.text.contains("wait_for_task"),
        "{stopping:?}"
    );
    let now = call(&client, "stop_task", json!({ "now": true })).await;
    assert_eq!(now.value["state"], "stopped", "{now:?}");
}

#[tokio::test]
async fn run_resources_are_read_by_uri() {
    let bench = Bench::new();
    let run = bench.submit_and_wait("done");
    let record = bench.path("state/workspaces/workspace-trader/.orchestrator/runs").join(&run);
    std::fs::create_dir_all(&record).unwrap();
    std::fs::write(record.join("diff.patch"), "+++ b/src/lib.rs\n+fn new() {}\n").unwrap();
    let client = connect(server(&bench, "done"), Era::Stateless).await;
    let read = async |part: &str| {
        let uri = format!("orchestrator://runs/{run}/{part}");
        let result = client.read_resource(ReadResourceRequestParams::new(uri)).await;
        result.map(|result| text_of(&result.contents[0])).map_err(|error| error.to_string())
    };
    assert!(read("log").await.unwrap().contains("edits src/lib.rs"));
    assert!(read("outcome").await.unwrap().contains("\"reason\": \"Completed\""));
    assert!(read("diff").await.unwrap().contains("+fn new() {}"));
    let missing = read("transcript").await.unwrap_err();
    assert!(missing.contains("has no transcript"), "{missing}");
    let unknown = read("secrets").await.unwrap_err();
    assert!(unknown.contains("orchestrator://runs/{run}/log"), "{unknown}");
    let listed = client.list_all_resources().await.unwrap();
    assert_eq!(listed.len(), 4, "{listed:?}");
}

#[tokio::test]
async fn prompts_are_filled_with_completed_arguments() {
    let bench = Bench::new();
    bench.submit_and_wait("done");
    let client = connect(server(&bench, "done"), Era::Handshake).await;
    let arguments = json!({ "guidance": "Use reqwest.", "service": "trader" });
    let prompt = GetPromptRequestParams::new("retry").with_arguments(arguments.as_object().unwrap().clone());
    let filled = client.get_prompt(prompt).await.unwrap();
    let text = serde_json::to_string(&filled.messages).unwrap();
    assert!(
        text.contains("Retry the last task of the trader service but tell the agent: Use reqwest."),
        "{text}"
    );
    let complete = async |reference: Reference, name: &str, typed: &str| {
        let params = CompleteRequestParams::new(reference, ArgumentInfo::new(name, typed));
        client.complete(params).await.unwrap().completion.values
    };
    let of_submit = || Reference::for_prompt("submit");
    assert_eq!(complete(of_submit(), "service", "tr").await, ["trader"]);
    assert_eq!(complete(of_submit(), "task_id", "").await, ["1"]);
    assert_eq!(complete(of_submit(), "service", "x").await, [""; 0]);
    let template = Reference::for_resource("orchestrator://runs/{run}/log");
    assert_eq!(complete(template, "run", "trader-").await, [FIRST]);
}
