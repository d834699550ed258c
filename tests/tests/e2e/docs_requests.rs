//! Docs runs submitted from an open clone of the platform repository.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use orchestrator_contract::Reason;
use orchestrator_contract::outcome::DocsStatus;
use orchestrator_tests::documents::{platform_of, write_good, writes};
use orchestrator_tests::messages_api::{Script, Turn};
use orchestrator_tests::projects::fix;
use orchestrator_tests::test_env::TestEnv;
use serde_json::json;

fn git(folder: &Path, arguments: &[&str]) {
    let git = Command::new("git")
        .args(["-c", "user.name=Lead", "-c", "user.email=session@example.com"])
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .expect("git");
    assert!(git.status.success(), "git {arguments:?}: {git:?}");
}

/// Returns content and modification time of every file below a directory.
fn bytes(folder: &Path) -> BTreeMap<String, (Vec<u8>, std::time::SystemTime)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).expect("a folder").flatten() {
            let (path, about) = (entry.path(), entry.metadata().expect("an entry"));
            if about.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read(&path).unwrap_or_default();
            found.insert(path.display().to_string(), (text, about.modified().expect("a time")));
        }
    }
    found
}

#[test]
fn docs_run_for_open_branch_leaves_checkout_unchanged() {
    let writing = Script::new().turn(write_good()).turn(Turn::verdict("done", "Written."));
    let implementation = Script::when("Implement task 1 of the service")
        .turn(fix().expecting("Part 1 finds the best bid"))
        .turn(Turn::verdict("done", "It is the highest now."));
    let mut env = TestEnv::with([implementation, writing], platform_of(2), "main");
    env.git.commit("acme/platform", "drafts", "Plan more", &[("notes.md", "More.\n")]);
    let clone = env.path("open/trader");
    std::fs::create_dir_all(&clone).unwrap();
    git(
        &clone,
        &["clone", "--quiet", "--branch", "drafts", env.git.path("acme/platform").to_str().unwrap(), "."],
    );
    git(&clone, &["remote", "set-url", "origin", &env.git.url("acme/platform")]);
    git(&clone, &["config", "user.name", "The Lead"]);
    std::fs::write(clone.join("mine.md"), "mine\n").unwrap();
    git(&clone, &["add", "mine.md"]);
    git(&clone, &["commit", "--quiet", "-m", "Not pushed"]);
    std::fs::write(clone.join(".taskmaster/idea.md"), "not committed\n").unwrap();
    env.set("CLAUDE_PROJECT_DIR", clone.to_str().unwrap());
    env.record_refs();
    let before = bytes(&clone);

    let output = env.dispatcher(&["docs", "--task", "1", "--service", "trader", "--wait"]);
    assert_eq!(output.code, 0, "{output:#?}");
    assert!(output.stderr.contains("1 commit of `drafts` is not pushed"), "{}", output.stderr);
    assert!(output.stderr.contains(".taskmaster/idea.md"), "{}", output.stderr);
    assert!(output.stdout.contains("task 1 (Part 1 of the order book): written"), "{}", output.stdout);
    assert!(bytes(&clone) == before, "something in the checkout has changed");

    let outcome = env.outcome_of("trader-claude-agent-1-docs-task1-attempt1");
    assert_eq!(outcome.reason, Reason::Completed);
    let pull = env.github.pulls()[0].clone();
    assert_eq!(
        (pull["base"]["ref"].as_str(), pull["head"]["ref"].as_str()),
        (Some("drafts"), Some("docs/task-1-1"))
    );
    env.assert_invariants(&outcome);

    // After the merge, an implementation run reads it.
    let merged = env.git.refs("acme/platform")["refs/heads/docs/task-1-1"].clone();
    env.git.ask("acme/platform", &["update-ref", "refs/heads/main", &merged]);
    env.record_refs();
    let (output, outcome) = env.submit(&[]);
    assert_eq!(outcome.reason, Reason::Completed, "{output:#?}");
    env.model.assert_played();
    env.assert_invariants(&outcome);
}

#[test]
fn ide_session_requests_all_docs_then_existing_ones_again() {
    let env = TestEnv::with(writes(), platform_of(2), "main");
    let run = "platform-claude-agent-1-docs-attempt1";
    let asks = |script: Script, tool: &str, input: serde_json::Value| {
        script.turn(Turn::tool(format!("mcp__orchestrator__{tool}"), input)).turn(Turn::text("So it is."))
    };
    let script = asks(Script::new(), "init_docs", json!({}));
    let script = asks(script, "wait_for_task", json!({"run": run, "timeout_seconds": 45}));
    let script = asks(script, "init_docs", json!({"task_id": "1"}));
    let mut session = env.ide_session(script);
    let reply = session.say("Create docs for all tasks.");
    for fact in
        [run, "documents of all tasks of the platform service", "opus", "kept (force: true", "not modified"]
    {
        assert!(reply.answer().contains(fact), "{fact:?} is missing: {}", reply.answer());
    }
    let reply = session.say("Tell me when it is done.");
    for fact in [
        "task 1 (Part 1 of the order book): written",
        "task 2 (Part 2 of the order book): written",
        "/pull/1",
    ] {
        assert!(reply.answer().contains(fact), "{fact:?} is missing: {}", reply.answer());
    }
    let outcome = env.outcome_of(run);
    let states: Vec<_> = outcome.docs_results.iter().map(|task| task.status).collect();
    assert_eq!((outcome.reason, states), (Reason::Completed, vec![DocsStatus::Written; 2]));
    env.assert_invariants(&outcome);
    let reply = session.say("Generate documentation for task 1.");
    assert!(reply.answer().contains("platform-claude-agent-1-docs-task1-attempt1"), "{}", reply.answer());
    env.wait("platform-claude-agent-1-docs-task1-attempt1");
    session.model.assert_played();
}
