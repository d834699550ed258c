//! Selection of runs, and errors of ambiguous calls.

use serde_json::json;

use crate::bench::Bench;
use crate::client::{Era, call, connect, server, steady};

#[tokio::test]
async fn ambiguous_tool_call_among_active_runs_is_not_guessed() {
    let bench = Bench::new();
    let client = connect(server(&bench, "held"), Era::Stateless).await;
    for service in ["auth", "trader"] {
        let submitted = call(
            &client,
            "submit_implementation_task",
            json!({ "task_id": 1, "service": service, "repository_url": "https://github.com/myorg/x" }),
        )
        .await;
        assert!(!submitted.is_error, "{submitted:?}");
    }
    let status = call(&client, "get_task_status", json!({})).await;
    assert!(!status.is_error);
    assert_eq!(status.value["candidates"].as_array().unwrap().len(), 2);
    assert!(status.value["run"].is_null());

    let stop = call(&client, "stop_task", json!({ "run": "current" })).await;
    assert!(stop.is_error);
    insta::assert_snapshot!("candidates", steady(&stop.text, &bench));
    for tool in ["get_task_logs", "wait_for_task"] {
        assert!(call(&client, tool, json!({})).await.is_error, "{tool}");
    }
    let one = call(&client, "stop_task", json!({ "run": "that auth task" })).await;
    assert_eq!(one.value["run"]["run"], "auth-claude-agent-1-task1-attempt1", "{one:?}");
    let other = call(&client, "get_task_status", json!({})).await;
    assert_eq!(other.value["run"]["service"], "trader");
}

#[tokio::test]
async fn retry_uses_agent_of_previous_attempt() {
    let bench = Bench::new();
    let client = connect(server(&bench, "failed"), Era::Handshake).await;
    let first = json!({ "task_id": 4, "service": "trader", "agent": "claude-agent-7", "model": "opus" });
    call(&client, "submit_implementation_task", first).await;
    call(&client, "wait_for_task", json!({ "task_id": 4 })).await;
    let retry = json!({ "task_id": 4, "service": "trader", "retry": true, "guidance": "better" });
    let retried = call(&client, "submit_implementation_task", retry).await;
    assert_eq!(retried.value["run"]["run"], "trader-claude-agent-7-task4-attempt2", "{retried:?}");
    assert!(retried.text.contains("**Model**: opus"), "{retried:?}");
    call(&client, "wait_for_task", json!({ "task_id": 4 })).await;
    let fresh = json!({ "task_id": 4, "service": "trader", "fresh": true });
    let fresh = call(&client, "submit_implementation_task", fresh).await;
    assert_eq!(fresh.value["run"]["run"], "trader-claude-agent-7-task4-attempt3", "{fresh:?}");
}

#[tokio::test]
async fn latest_means_newest_run_that_fits_the_verb() {
    let bench = Bench::new();
    let submit = |service: &'static str, more: &'static str| {
        let url = "--repository-url https://github.com/myorg/x";
        format!("submit --task 1 --service {service} {url} {more} -o json")
    };
    for service in ["payments", "trader"] {
        let run = bench.run_ending("failed", &submit(service, "")).json()["run"].as_str().unwrap().to_owned();
        bench.run(&format!("wait {run}"));
    }
    let client = connect(server(&bench, "held"), Era::Stateless).await;
    let auth = json!({ "task_id": 1, "service": "auth", "repository_url": "https://github.com/myorg/x" });
    call(&client, "submit_implementation_task", auth).await;

    let retry = json!({ "retry": true, "run": "latest", "guidance": "Use reqwest." });
    let retried = call(&client, "submit_implementation_task", retry).await;
    assert_eq!(retried.value["run"]["run"], "trader-claude-agent-1-task1-attempt2", "{retried:?}");
    // Both have an active attempt; another task is not retried instead.
    for arguments in [json!({ "retry": true }), json!({ "retry": true, "service": "auth" })] {
        let busy = call(&client, "submit_implementation_task", arguments).await;
        assert!(busy.is_error && busy.text.contains("is still active"), "{busy:?}");
    }
    let stopped = call(&client, "stop_task", json!({ "run": "the last one" })).await;
    assert_eq!(stopped.value["run"]["service"], "trader", "{stopped:?}");
    let status = call(&client, "get_task_status", json!({ "run": "latest" })).await;
    assert_eq!(status.value["run"]["service"], "trader", "{status:?}");
}

#[tokio::test]
async fn finished_docs_run_is_retried_when_nothing_else_is() {
    let bench = Bench::new();
    let client = connect(server(&bench, "done"), Era::Stateless).await;
    let docs = json!({ "service": "trader", "platform_repository_url": "https://github.com/myorg/platform" });
    let run = call(&client, "init_docs", docs).await.value["run"]["run"].clone();
    call(&client, "wait_for_task", json!({ "run": run })).await;
    for arguments in [
        json!({ "retry": true, "run": run }),
        json!({ "retry": true }),
        json!({ "retry": true, "run": "latest" }),
    ] {
        let retried = call(&client, "submit_implementation_task", arguments.clone()).await;
        assert!(!retried.is_error && retried.text.contains("docs-attempt"), "{arguments}: {retried:?}");
        call(&client, "wait_for_task", json!({ "run": retried.value["run"]["run"] })).await;
    }
}

#[tokio::test]
async fn fresh_first_attempt_is_simply_the_first() {
    let bench = Bench::new();
    let client = connect(server(&bench, "done"), Era::Stateless).await;
    let fresh = json!({ "task_id": 3, "service": "trader", "fresh": true });
    let submitted = call(&client, "submit_implementation_task", fresh.clone()).await;
    assert_eq!(submitted.value["run"]["run"], "trader-claude-agent-1-task3-attempt1", "{submitted:?}");
    assert!(submitted.text.contains("feature/task-3-implementation"), "{submitted:?}");
    assert!(!submitted.text.contains("feature/task-3-implementation-"), "{submitted:?}");
    call(&client, "wait_for_task", json!({ "task_id": 3 })).await;
    let again = call(&client, "submit_implementation_task", fresh).await;
    assert!(again.text.contains("feature/task-3-implementation-2"), "{again:?}");
}

#[tokio::test]
async fn tool_errors_use_tool_vocabulary() {
    let bench = Bench::new();
    let client = connect(server(&bench, "done"), Era::Stateless).await;
    let mut reported = Vec::new();
    for (tool, arguments) in [
        ("get_task_status", json!({})),
        ("get_task_status", json!({ "run": "no-such-run" })),
        ("get_task_status", json!({ "bogus": 1 })),
        ("list_tasks", json!({ "phase": "walking" })),
        ("submit_implementation_task", json!({ "service": "trader" })),
        ("submit_implementation_task", json!({})),
        ("submit_implementation_task", json!({ "task_id": 1, "service": "payments" })),
        ("submit_implementation_task", json!({ "task_id": 1, "service": "Bad Name" })),
        ("submit_implementation_task", json!({ "task_id": "1.2", "service": "trader" })),
        ("submit_implementation_task", json!({ "retry": true })),
        ("submit_implementation_task", json!({ "task_id": 1, "service": "trader", "retry": true })),
        ("submit_implementation_task", json!({ "retry": true, "fresh": true })),
        ("wait_for_task", json!({ "timeout_seconds": -1 })),
    ] {
        let answer = call(&client, tool, arguments.clone()).await;
        assert!(answer.is_error, "{tool} {arguments}: {answer:?}");
        assert!(!answer.text.contains(" --") && !answer.text.contains("dispatcher "), "{answer:?}");
        reported.push(format!("{tool} {arguments}\n  {}", steady(&answer.text, &bench)));
    }
    insta::assert_snapshot!("errors", reported.join("\n"));
}

#[tokio::test]
async fn broken_config_is_reported_until_fixed_without_restart() {
    let bench = Bench::new();
    let file = bench.path("open/orchestrator.toml");
    std::fs::write(&file, "nonsense = = 1").unwrap();
    let client = connect(server(&bench, "done"), Era::Stateless).await;
    assert_eq!(client.list_all_tools().await.unwrap().len(), 8);
    let broken = call(&client, "list_tasks", json!({})).await;
    assert!(broken.is_error && broken.text.contains("orchestrator.toml"), "{broken:?}");
    std::fs::write(&file, "").unwrap();
    assert!(!call(&client, "list_tasks", json!({})).await.is_error);
}
