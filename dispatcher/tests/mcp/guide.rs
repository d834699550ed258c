//! The sentences of the user's guide, with three services and a dozen runs present: each one does what it says, or
//! asks for what it leaves open.

use serde_json::{Value, json};

use crate::bench::Bench;
use crate::client::{Answer, Client, Era, call, connect, server};

const SUBMIT: &str = "submit_implementation_task";

/// Ended runs, oldest first: service, task, and how each attempt ended.
const EARLIER: [(&str, u32, &[&str]); 11] = [
    ("trader", 4, &["failed", "done"]),
    ("analytics", 1, &["done"]),
    ("auth", 4, &["done"]),
    ("trader", 5, &["failed"]),
    ("analytics", 2, &["done"]),
    ("auth", 6, &["failed"]),
    ("trader", 7, &["done"]),
    ("analytics", 4, &["failed"]),
    ("auth", 7, &["done"]),
    ("trader", 8, &["done"]),
    ("auth", 8, &["done"]),
];

/// Returns a platform repository with the runs above.
fn platform() -> Bench {
    let bench = Bench::new();
    std::fs::create_dir_all(bench.path("open/.taskmaster")).unwrap();
    std::fs::write(bench.path("open/.git/HEAD"), "ref: refs/heads/main\n").unwrap();
    let services = ["analytics", "auth", "payments", "notifications"];
    let repository = |service: &&str| format!("[services.{service}]\nrepository_url = \"myorg/{service}\"\n");
    let config: String = services.iter().map(repository).collect();
    std::fs::write(bench.path("open/orchestrator.toml"), config).unwrap();
    for (service, task, ends) in EARLIER {
        for (at, end) in ends.iter().enumerate() {
            let retry = if at == 0 { "" } else { "--retry" };
            let submitted =
                bench.run_ending(end, &format!("submit --task {task} --service {service} {retry} -o json"));
            assert_eq!(submitted.code, 0, "{submitted:?}");
            bench.run(&format!("wait {}", submitted.json()["run"].as_str().unwrap()));
        }
    }
    assert_eq!(bench.runs().len(), 12);
    bench
}

/// A conversation: `quick` runs end soon, `held` ones stay active.
struct Talk {
    quick: Client,
    failing: Client,
    held: Client,
}

impl Talk {
    async fn start(bench: &Bench) -> Self {
        let client = |end: &'static str| connect(server(bench, end), Era::Stateless);
        Self { quick: client("done").await, failing: client("failed").await, held: client("held").await }
    }

    /// Calls a tool and, if it starts a run that ends soon, waits for the end.
    async fn say(client: &Client, tool: &'static str, arguments: Value) -> Answer {
        let answer = call(client, tool, arguments).await;
        if answer.value["result"] == "created" {
            call(client, "wait_for_task", json!({ "run": answer.value["run"]["run"], "timeout_seconds": 1 }))
                .await;
        }
        answer
    }
}

#[track_caller]
fn assert_run(answer: &Answer, name: &str) {
    assert!(!answer.is_error, "{answer:?}");
    assert_eq!(answer.value["run"]["run"], name, "{answer:?}");
}

#[track_caller]
fn assert_asks(answer: &Answer, words: &[&str]) {
    assert!(answer.is_error, "{answer:?}");
    assert!(words.iter().all(|word| answer.text.contains(word)), "{answer:?}");
}

#[tokio::test]
async fn scenarios_of_guide_work_among_three_services() {
    let bench = platform();
    let Talk { quick, failing, held } = Talk::start(&bench).await;
    // 1. "I want to start implementing task 1 using the claude-agent-1 GitHub account. The target repo is ..."
    let first = json!({
        "task_id": 1, "service": "trader", "agent": "claude-agent-1", "model": "sonnet",
        "repository_url": "git@github.com:myorg/trader.git",
    });
    assert_run(&Talk::say(&failing, SUBMIT, first).await, "trader-claude-agent-1-task1-attempt1");
    // 2. "Task 1 failed. It used 'curl' but should use 'reqwest'. Can you retry this with better guidance?"
    let retry = json!({ "task_id": 1, "retry": true, "guidance": "Use reqwest.", "service": "trader" });
    let retried = Talk::say(&quick, SUBMIT, retry).await;
    assert_run(&retried, "trader-claude-agent-1-task1-attempt2");
    assert!(retried.text.contains("git@github.com:myorg/trader.git"), "{retried:?}");
    // 3. "Let's move on to task 2, but I want to use a custom working directory 'trading-engine'."
    let next = json!({ "task_id": 2, "service": "trader", "working_directory": "trading-engine" });
    let next = Talk::say(&quick, SUBMIT, next).await;
    assert_run(&next, "trader-claude-agent-1-task2-attempt1");
    assert!(next.text.contains("trading-engine"), "{next:?}");
    // 4. "Now I want to start working on the auth service. Start with task 1."
    let auth = json!({
        "task_id": 1, "service": "the auth service",
        "repository_url": "git@github.com:myorg/platform-auth.git",
    });
    let auth = Talk::say(&held, SUBMIT, auth).await;
    assert_run(&auth, "auth-claude-agent-1-task1-attempt1");
    assert!(auth.text.contains("workspace-auth"), "{auth:?}");
    // 5. "How's that auth task coming along?"
    let status = call(&quick, "get_task_status", json!({ "run": "that auth task" })).await;
    assert_run(&status, "auth-claude-agent-1-task1-attempt1");
    assert_eq!(status.value["run"]["phase"], "Running");
    // 6. "Wait, I need to stop that auth task."
    let stopped = call(&quick, "stop_task", json!({ "service": "auth" })).await;
    assert_run(&stopped, "auth-claude-agent-1-task1-attempt1");
    assert_eq!(stopped.value["state"], "stopped", "{stopped:?}");
}

#[tokio::test]
async fn patterns_of_guide_start_and_retry_the_right_task() {
    let bench = platform();
    let Talk { quick, held, .. } = Talk::start(&bench).await;
    // 7. "Start implementing task 3 for the analytics service"
    let start = json!({ "task_id": 3, "service": "analytics service" });
    assert_run(&Talk::say(&held, SUBMIT, start).await, "analytics-claude-agent-1-task3-attempt1");
    // 8. "Begin task 1 using the opus model"
    let begin = json!({ "task_id": 1, "model": "Opus" });
    assert_asks(&call(&quick, SUBMIT, begin).await, &["`service` is missing", "analytics, auth, trader"]);
    let begin =
        Talk::say(&quick, SUBMIT, json!({ "task_id": 1, "model": "Opus", "service": "trader" })).await;
    assert_run(&begin, "trader-claude-agent-1-task1-attempt1");
    assert!(begin.text.contains("**Model**: opus"), "{begin:?}");
    // 9. "I want to implement task 2 in the 'backend-api' working directory"
    let implement = json!({ "task_id": 2, "service": "trader", "working_directory": "backend-api" });
    let implement = Talk::say(&quick, SUBMIT, implement).await;
    assert_run(&implement, "trader-claude-agent-1-task2-attempt1");
    assert!(implement.text.contains("backend-api"), "{implement:?}");
    // 10. "Task 5 failed because [reason]. Retry with [specific guidance]"
    let five = json!({ "task_id": 5, "retry": true, "guidance": "Use the pool." });
    assert_run(&Talk::say(&quick, SUBMIT, five).await, "trader-claude-agent-1-task5-attempt2");
    // 11. "The agent made a mistake in task 2. It should use [correct approach] instead"
    let mistake = json!({ "task_id": 2, "retry": true, "guidance": "Use serde." });
    let several = call(&quick, SUBMIT, mistake).await;
    assert_asks(
        &several,
        &["trader-claude-agent-1-task2-attempt1", "analytics-claude-agent-1-task2-attempt1"],
    );
    let mistake = json!({ "task_id": 2, "retry": true, "guidance": "Use serde.", "service": "analytics" });
    assert_run(&Talk::say(&quick, SUBMIT, mistake).await, "analytics-claude-agent-1-task2-attempt2");
    // 12. "Retry the last task but tell the agent to [specific instruction]"
    let last = json!({ "retry": true, "guidance": "Write a test first." });
    assert_run(&Talk::say(&quick, SUBMIT, last).await, "analytics-claude-agent-1-task2-attempt3");
}

#[tokio::test]
async fn patterns_of_guide_change_service_and_look_after_runs() {
    let bench = platform();
    let Talk { quick, held, .. } = Talk::start(&bench).await;
    // 13. "Switch to working on the user-service repository"
    let other = call(&quick, "list_tasks", json!({ "service": "the user-service repository" })).await;
    assert!(!other.is_error, "{other:?}");
    assert_eq!(other.value["runs"], json!([]));
    // 14. "Start fresh work on the notifications service"
    let fresh = json!({ "service": "notifications", "fresh": true });
    assert_asks(&call(&quick, SUBMIT, fresh).await, &["`task_id` is missing"]);
    let fresh = json!({ "service": "notifications", "fresh": true, "task_id": 1 });
    assert_run(&Talk::say(&quick, SUBMIT, fresh).await, "notifications-claude-agent-1-task1-attempt1");
    // 15. "I need to implement task 1 for a new service called 'payments'"
    let new = json!({ "task_id": 1, "service": "a new service called 'payments'" });
    let new = Talk::say(&quick, SUBMIT, new).await;
    assert_run(&new, "payments-claude-agent-1-task1-attempt1");
    assert!(new.text.contains("https://github.com/myorg/payments"), "{new:?}");
    Talk::say(&held, SUBMIT, json!({ "task_id": 3, "service": "analytics" })).await;
    // 16. "How's the current task progressing?"
    let active = "analytics-claude-agent-1-task3-attempt1";
    assert_run(&call(&quick, "get_task_status", json!({ "run": "the current task" })).await, active);
    // 19. "Generate documentation for task 5"
    let docs = Talk::say(&quick, "init_docs", json!({ "task_id": 5 })).await;
    assert_run(&docs, "trader-claude-agent-1-docs-task5-attempt1");
    // 17. "Check the status of the last implementation"
    assert_run(&call(&quick, "get_task_status", json!({ "run": "the last implementation" })).await, active);
    // 18. "Is task 3 still running?"
    let running = call(&quick, "get_task_status", json!({ "task_id": "3" })).await;
    assert_run(&running, active);
    assert_eq!(running.value["run"]["phase"], "Running");
    // 20. "Create docs for all tasks in the trader service"
    let all = json!({ "task_id": "all", "service": "the trader service" });
    assert_run(&Talk::say(&quick, "init_docs", all).await, "trader-claude-agent-1-docs-attempt1");
    // 21. "Regenerate the documentation with the opus model"
    let again = Talk::say(&quick, "init_docs", json!({ "force": "true", "model": "opus" })).await;
    assert_run(&again, "trader-claude-agent-1-docs-attempt2");
    assert!(again.text.contains("opus"), "{again:?}");
}
